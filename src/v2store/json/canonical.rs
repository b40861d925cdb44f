//! The fast way through the tree of a store: every field in the order in which etcd writes it, and no white space
//! (docs/formats.md 3.1).
//!
//! Compares with the expected text instead of reading tokens, and checks each path against its directory on the way. A
//! document in any other form is left to the general reader, as a whole. Both give the same table. Must not know why a
//! document differs.

use jiff::Timestamp;

use crate::error::Result;
use crate::ids::ByteOffset;
use crate::interrupt::{DOCUMENT_CHUNK, Interrupt};
use crate::limits;
use crate::v2store::name_hash::NameHash;
use crate::v2store::table::Node;
use crate::v2store::text::{self, Text};

/// The nodes of a tree in canonical form.
pub(super) struct Canonical {
    pub(super) nodes: Vec<Node>,
    pub(super) expiries: Vec<Timestamp>,
    /// The position in the document after the tree.
    pub(super) end: usize,
    /// Whether the names of each directory ascend, so that none is there twice.
    pub(super) ascending: bool,
}

/// Reads the tree at `at`, in a document that is UTF-8. `None`: it has another form, or is damaged.
///
/// # Errors
/// The interruption.
pub(super) fn read(document: &[u8], at: usize, interrupt: Interrupt<'_>) -> Result<Option<Canonical>> {
    let cursor = Cursor { document, at };
    let mut reader = Reader { cursor, nodes: Vec::new(), expiries: Vec::new(), open: Vec::new(), ascending: true };
    let mut asked_at = at;
    if reader.root().is_none() {
        return Ok(None);
    }
    while !reader.open.is_empty() {
        if reader.cursor.at - asked_at >= DOCUMENT_CHUNK {
            interrupt.done((reader.cursor.at - asked_at) as u64);
            asked_at = reader.cursor.at;
            interrupt.ask()?;
        }
        if reader.step().is_none() {
            return Ok(None);
        }
    }
    let Reader { cursor, nodes, expiries, ascending, .. } = reader;
    Ok(Some(Canonical { nodes, expiries, end: cursor.at, ascending }))
}

struct Reader<'m> {
    cursor: Cursor<'m>,
    nodes: Vec<Node>,
    expiries: Vec<Timestamp>,
    /// The directories around the cursor, outermost first.
    open: Vec<Open<'m>>,
    ascending: bool,
}

/// A directory whose children are being read.
struct Open<'m> {
    id: u32,
    /// Its path in the document; empty for the root.
    path: &'m [u8],
    /// Length of that path without escapes, in bytes.
    len: u32,
    /// The flags that its path gives to the paths of its children.
    flags: u8,
    /// The name of the child before, in the document.
    last: &'m [u8],
    is_first: bool,
}

impl<'m> Reader<'m> {
    fn root(&mut self) -> Option<()> {
        self.cursor.literal(br#"{"Path":""#)?;
        let path = Text { offset: ByteOffset::from(self.cursor.at), raw_len: 1, len: 1 };
        self.cursor.literal(b"/")?;
        self.node(Node { path, ..Node::default() }, &[], 0)?;
        // The root is a directory.
        (!self.open.is_empty()).then_some(())
    }

    /// Reads one child, or the end of a directory.
    fn step(&mut self) -> Option<()> {
        let top = self.open.last_mut()?;
        match self.cursor.byte()? {
            b'}' => {
                self.cursor.literal(b"}}")?;
                let end = u32::try_from(self.nodes.len()).ok()?;
                self.nodes.get_mut(top.id as usize)?.end = end;
                self.open.pop();
                return Some(());
            }
            b',' if !top.is_first => self.cursor.at += 1,
            b'"' if top.is_first => {}
            _ => return None,
        }
        self.cursor.literal(b"\"")?;
        let name = self.cursor.string()?;
        if name.raw.is_empty() || memchr::memchr(b'/', name.raw).is_some() || name.has_escape(br"\u002f") {
            return None;
        }
        self.ascending &= top.is_first || (top.last < name.raw && !name.escaped);
        (top.last, top.is_first) = (name.raw, false);
        self.cursor.literal(br#":{"Path":""#)?;
        let start = self.cursor.at;
        self.cursor.literal(top.path)?;
        self.cursor.literal(b"/")?;
        self.cursor.literal(name.raw)?;
        let path = Text {
            offset: ByteOffset::from(start),
            raw_len: u32::try_from(self.cursor.at - start).ok()?,
            len: top.len.checked_add(1)?.checked_add(name.len)?,
        };
        let flags =
            top.flags | Node::flag(name.escaped, Node::PATH_ESCAPED) | Node::flag(name.replaced, Node::PATH_REPLACED);
        let flags = flags | Node::flag(name.is_hidden(), Node::HIDDEN);
        let raw = self.cursor.document.get(start..self.cursor.at)?;
        let name_hash = NameHash::of(&text::decode(name.raw, name.len as usize, name.escaped));
        self.node(Node { path, flags, name_len: name.len, name_hash, ..Node::default() }, raw, path.len)
    }

    /// Reads the rest of a node, from the end of its path. `path` and `len` are those of its children's directory.
    fn node(&mut self, mut node: Node, path: &'m [u8], len: u32) -> Option<()> {
        let id = u32::try_from(self.nodes.len()).ok().filter(|id| u64::from(*id) < limits::MAX_NODES)?;
        if self.open.len() > limits::MAX_PATH_COMPONENTS {
            return None;
        }
        let inherited = node.flags;
        self.cursor.literal(br#"","CreatedIndex":"#)?;
        node.created = self.cursor.number()?;
        self.cursor.literal(br#","ModifiedIndex":"#)?;
        node.modified = self.cursor.number()?;
        self.cursor.literal(br#","ExpireTime":""#)?;
        if let Some(expiry) = self.cursor.time()? {
            self.expiries.push(expiry);
            node.expiry = u32::try_from(self.expiries.len()).ok()?;
        }
        self.cursor.literal(br#","Value":""#)?;
        let offset = ByteOffset::from(self.cursor.at);
        let value = self.cursor.string()?;
        node.value = Text { offset, raw_len: u32::try_from(value.raw.len()).ok()?, len: value.len };
        node.flags |= Node::flag(value.escaped, Node::VALUE_ESCAPED) | Node::flag(value.replaced, Node::VALUE_REPLACED);
        self.cursor.literal(br#","Children":"#)?;
        if self.cursor.byte()? == b'{' {
            self.cursor.at += 1;
            node.flags |= Node::DIR;
            self.open.push(Open { id, path, len, flags: inherited, last: &[], is_first: true });
        } else {
            self.cursor.literal(b"null}")?;
            node.end = id + 1;
        }
        self.nodes.push(node);
        Some(())
    }
}

/// A string, after its quote.
struct Found<'m> {
    raw: &'m [u8],
    /// Decoded length in bytes.
    len: u32,
    escaped: bool,
    replaced: bool,
}

impl Found<'_> {
    /// Returns whether a node with this name is hidden.
    fn is_hidden(&self) -> bool {
        let head = self.raw.get(..6).unwrap_or_default();
        self.raw.first() == Some(&b'_') || head.eq_ignore_ascii_case(br"\u005f")
    }

    /// Returns whether the name may have this escape of 6 bytes.
    fn has_escape(&self, escape: &[u8; 6]) -> bool {
        self.escaped && self.raw.windows(6).any(|some| some.eq_ignore_ascii_case(escape))
    }
}

/// A position in the document.
struct Cursor<'m> {
    document: &'m [u8],
    at: usize,
}

impl<'m> Cursor<'m> {
    #[inline]
    fn rest(&self) -> &'m [u8] {
        self.document.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.document.get(self.at).copied()
    }

    /// Passes over exactly these bytes.
    #[inline]
    fn literal(&mut self, expected: &[u8]) -> Option<()> {
        self.rest().starts_with(expected).then(|| self.at += expected.len())
    }

    /// Reads a string after its opening quote, with its closing quote.
    #[inline]
    fn string(&mut self) -> Option<Found<'m>> {
        let rest = self.rest();
        let scanned = text::scan_utf8(rest)?;
        self.at += scanned.raw_len + 1;
        Some(Found {
            raw: rest.get(..scanned.raw_len)?,
            len: u32::try_from(scanned.len).ok()?,
            escaped: scanned.escaped,
            replaced: scanned.replaced > 0,
        })
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        let start = self.at;
        let mut value = 0u64;
        while let Some(digit) = self.byte().filter(u8::is_ascii_digit) {
            value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            self.at += 1;
        }
        let digits = self.document.get(start..self.at)?;
        (digits.len() == 1 || digits.first().is_some_and(|first| *first != b'0')).then_some(value)
    }

    /// Reads an expiry time after its opening quote: no time for that of Go, which means "no TTL".
    #[inline]
    fn time(&mut self) -> Option<Option<Timestamp>> {
        if self.rest().starts_with(text::NO_EXPIRY) && self.document.get(self.at + text::NO_EXPIRY.len()) == Some(&b'"')
        {
            self.at += text::NO_EXPIRY.len() + 1;
            return Some(None);
        }
        text::expiry(self.string()?.raw)
    }
}
