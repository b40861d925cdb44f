//! The answer to a recursive GET, read node by node.
//!
//! Its own memory depends on the longest path and value, not on the number of nodes, and nothing recurses. Must not know HTTP.

use std::io::{BufReader, Read};

use jiff::Timestamp;

use super::super::Node;
use super::time::expiry;
use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, V2Index};

/// A node that the API lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// The key, with the expiry that directories above it give; without value for a directory.
    pub(super) node: Node,
    /// Whether it is a directory.
    pub(super) dir: bool,
    /// Its own expiry.
    pub(super) own: Option<Timestamp>,
}

/// Reads an answer and passes on each node: a file when it ends, a directory before what it contains. `at` is an instant after the
/// server read its clock.
///
/// # Errors
/// [`Reason::Damaged`] with the offset in the answer; [`Reason::Unreachable`] if it ends too early; that of `each`.
pub(super) fn read(from: impl Read, at: Timestamp, each: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
    let mut json = Json { bytes: BufReader::with_capacity(1 << 16, from), peeked: None, offset: 0 };
    json.expect(b'{')?;
    loop {
        match json.token()? {
            b'}' => return Err(json.fault("expected a node, found none")),
            b',' => {}
            b'"' => {
                let name = json.string()?;
                json.expect(b':')?;
                if name == "node" {
                    return nodes(&mut json, at, each);
                }
                json.skip()?;
            }
            _ => return Err(json.fault("expected the name of a field")),
        }
    }
}

/// A node that is being read.
#[derive(Default)]
struct Open {
    key: String,
    value: Option<String>,
    dir: bool,
    ttl: Option<i64>,
    expiration: Option<String>,
    created: u64,
    modified: u64,
    /// Whether it was passed on.
    passed: bool,
    /// The earliest expiry of the directories above it; then its own too.
    earliest: Option<Timestamp>,
}

impl Open {
    fn listed(&mut self, at: Timestamp) -> Listed {
        let own = expiry(self.ttl, self.expiration.as_deref(), at);
        self.earliest = self.earliest.into_iter().chain(own).min();
        self.passed = true;
        let node = Node {
            path: std::mem::take(&mut self.key).into_bytes(),
            value: self.value.take().unwrap_or_default().into_bytes(),
            created: V2Index(self.created),
            modified: V2Index(self.modified),
            expiry: self.earliest,
        };
        Listed { node, dir: self.dir, own }
    }
}

fn nodes<R: Read>(json: &mut Json<R>, at: Timestamp, each: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
    json.expect(b'{')?;
    let mut open = vec![Open::default()];
    while let Some(node) = open.last_mut() {
        match json.token()? {
            b',' => {}
            b'"' => {
                let name = json.string()?;
                json.expect(b':')?;
                match name.as_str() {
                    "key" => node.key = json.string_value()?,
                    "value" => node.value = Some(json.string_value()?),
                    "dir" => node.dir = json.literal()? == "true",
                    "expiration" => node.expiration = Some(json.string_value()?),
                    "ttl" => node.ttl = Some(json.number()?),
                    "createdIndex" => node.created = json.number()?,
                    "modifiedIndex" => node.modified = json.number()?,
                    "nodes" => {
                        json.expect(b'[')?;
                        node.dir = true;
                        each(node.listed(at))?;
                        let earliest = node.earliest;
                        if json.peek()? == b']' {
                            json.expect(b']')?;
                        } else {
                            json.expect(b'{')?;
                            open.push(Open { earliest, ..Open::default() });
                        }
                    }
                    _ => json.skip()?,
                }
            }
            b'}' => {
                if !node.passed {
                    each(node.listed(at))?;
                }
                open.pop();
                let Some(above) = open.last() else { break };
                let earliest = above.earliest;
                match json.token()? {
                    b']' => {}
                    b',' => {
                        json.expect(b'{')?;
                        open.push(Open { earliest, ..Open::default() });
                    }
                    _ => return Err(json.fault("expected the next node or the end of a list")),
                }
            }
            _ => return Err(json.fault("expected a field of a node or its end")),
        }
    }
    Ok(())
}

/// Longest string, in bytes as it is written.
const MAX_STRING: usize = 256 << 20;

/// The tokens of a JSON document.
struct Json<R> {
    bytes: BufReader<R>,
    peeked: Option<u8>,
    offset: u64,
}

impl<R: Read> Json<R> {
    fn byte(&mut self) -> Result<u8> {
        if let Some(byte) = self.peeked.take() {
            return Ok(byte);
        }
        let mut byte = [0];
        self.bytes.read_exact(&mut byte).map_err(|e| {
            Error::new(Reason::Unreachable, format!("expected the rest of an answer, {e}")).at(ByteOffset(self.offset))
        })?;
        self.offset += 1;
        Ok(byte[0])
    }

    /// Returns the first byte of the next token.
    fn token(&mut self) -> Result<u8> {
        loop {
            let byte = self.byte()?;
            if !byte.is_ascii_whitespace() {
                return Ok(byte);
            }
        }
    }

    fn peek(&mut self) -> Result<u8> {
        let byte = self.token()?;
        self.peeked = Some(byte);
        Ok(byte)
    }

    fn expect(&mut self, expected: u8) -> Result<()> {
        let found = self.token()?;
        if found == expected {
            return Ok(());
        }
        Err(self.fault(&format!("expected `{}`, found `{}`", char::from(expected), char::from(found).escape_default())))
    }

    /// Reads a string after its first quote.
    fn string(&mut self) -> Result<String> {
        let mut raw = vec![b'"'];
        let mut escaped = false;
        loop {
            let byte = self.byte()?;
            raw.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => break,
                _ => {}
            }
            if raw.len() > MAX_STRING {
                return Err(self.fault("expected a string of at most 256 MiB"));
            }
        }
        serde_json::from_slice(&raw).map_err(|_| self.fault("expected a string, found invalid escapes or bytes"))
    }

    fn string_value(&mut self) -> Result<String> {
        self.expect(b'"')?;
        self.string()
    }

    /// Reads a number or a word up to the byte after it.
    fn literal(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut byte = self.token()?;
        while byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') {
            text.push(char::from(byte));
            if text.len() > 64 {
                return Err(self.fault("expected a number or a word"));
            }
            byte = self.byte()?;
        }
        self.peeked = Some(byte);
        Ok(text)
    }

    fn number<N: std::str::FromStr>(&mut self) -> Result<N> {
        let text = self.literal()?;
        text.parse().map_err(|_| self.fault(&format!("expected a number, found `{text}`")))
    }

    /// Skips a value of any kind.
    fn skip(&mut self) -> Result<()> {
        let mut depth = 0u64;
        loop {
            match self.peek()? {
                b'"' => drop(self.string_value()?),
                byte @ (b'{' | b'[') => {
                    self.expect(byte)?;
                    depth += 1;
                }
                byte @ (b'}' | b']') if depth > 0 => {
                    self.expect(byte)?;
                    depth -= 1;
                }
                byte @ (b',' | b':') if depth > 0 => self.expect(byte)?,
                _ if self.literal()?.is_empty() => return Err(self.fault("expected a value")),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn fault(&self, message: &str) -> Error {
        Error::new(Reason::Damaged, message).at(ByteOffset(self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        read(text.as_bytes(), Timestamp::UNIX_EPOCH, &mut |listed| {
            found.push(listed);
            Ok(())
        })?;
        Ok(found)
    }

    const ANSWER: &str = r#"{"action":"get","x":[{"a":[1,"]"]},null],"node":{"dir":true,"nodes":[
        {"key":"/d","dir":true,"expiration":"2030-01-01T00:00:00Z","ttl":7,"nodes":[
            {"key":"/d/a","value":"\u00e9\n\"","expiration":"2030-01-01T00:00:00Z","ttl":3,"modifiedIndex":5,"createdIndex":4},
            {"key":"/d/b","value":"","ttl":9,"modifiedIndex":6,"createdIndex":6},
            {"key":"/d/e","dir":true,"nodes":[],"modifiedIndex":6,"createdIndex":6}
        ],"modifiedIndex":3,"createdIndex":3},
        {"key":"/e","dir":true,"modifiedIndex":8,"createdIndex":8},
        {"key":"/f","value":"v","modifiedIndex":7,"createdIndex":7}]}}"#;

    #[test]
    fn nodes_come_with_the_expiry_of_their_directories() {
        let found = all(ANSWER).unwrap();
        let short = |listed: &Listed| {
            let Listed { node, dir, own } = listed;
            let second = |at: Option<Timestamp>| at.map(Timestamp::as_second);
            (String::from_utf8(node.path.clone()).unwrap(), *dir, second(*own), second(node.expiry), node.modified.0)
        };
        let found: Vec<_> = found.iter().map(short).collect();
        let expected = [
            ("", true, None, None, 0),
            ("/d", true, Some(7), Some(7), 0),
            ("/d/a", false, Some(3), Some(3), 5),
            ("/d/b", false, Some(9), Some(7), 6),
            ("/d/e", true, None, Some(7), 0),
            ("/e", true, None, None, 8),
            ("/f", false, None, None, 7),
        ];
        assert_eq!(
            found,
            expected.map(|(path, dir, own, expiry, modified)| (path.to_string(), dir, own, expiry, modified))
        );
    }

    #[test]
    fn a_deep_tree_is_read_without_recursion_and_a_short_answer_is_an_error() {
        let deep = 200_000;
        let text = format!(
            "{{\"node\":{}{{\"key\":\"/x\",\"value\":\"v\"}}{}}}",
            "{\"dir\":true,\"nodes\":[".repeat(deep),
            "]}".repeat(deep)
        );
        assert_eq!(all(&text).unwrap().len(), deep + 1);
        let end = ANSWER.rfind("]}}").unwrap();
        for at in 0..end + 1 {
            if ANSWER.is_char_boundary(at) {
                assert!(all(&ANSWER[..at]).is_err(), "{at}");
            }
        }
    }
}
