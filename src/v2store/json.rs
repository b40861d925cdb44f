//! Reader of the snapshot's JSON into the flat table, in one iterative pass (docs/formats.md 3.1, 3.3).
//!
//! Fields can have any order, and unknown ones are skipped, as in Go's decoder. Of a skipped value only the brackets and the
//! ends of strings are checked, so what Go refuses may pass there. Where that decoder would merge or guess (a duplicate field,
//! a path that contradicts its position), this reader fails: such a document is not from etcd.
//! Nothing recurses, and the size of the document bounds the memory. Must not know the log.

use std::borrow::Cow;
use std::ops::Range;

use jiff::Timestamp;

use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, V2Index};
use crate::interrupt::{self, DOCUMENT_CHUNK, Interrupt};
use crate::limits;
use crate::v2store::name_hash::NameHash;
use crate::v2store::path;
use crate::v2store::table::{Node, NodeId, Shadowed, Table};
use crate::v2store::text::{self, Text};

mod canonical;

/// Reads a v2 store.
///
/// # Errors
/// [`Reason::Damaged`] with an offset from the first byte of the document, if it is not a complete v2 store.
pub fn read(document: &[u8]) -> Result<Table<'_>> {
    read_watched(document, Interrupt::default())
}

/// Reads a v2 store like [`read`], until an interruption.
///
/// # Errors
/// As [`read`]; the interruption.
pub fn read_watched<'m>(document: &'m [u8], interrupt: Interrupt<'_>) -> Result<Table<'m>> {
    read_by(document, Way::Fastest, interrupt)
}

/// Reads a v2 store like [`read`], by the general reader alone, for tests that both agree.
///
/// # Errors
/// As [`read`].
#[doc(hidden)]
pub fn read_generally(document: &[u8]) -> Result<Table<'_>> {
    read_by(document, Way::General, Interrupt::default())
}

fn read_by<'m>(document: &'m [u8], way: Way, interrupt: Interrupt<'_>) -> Result<Table<'m>> {
    let mut scanner = Scanner::new(document, way, interrupt)?;
    scanner.store()?;
    let Scanner { mut table, paths_checked, ascending, .. } = scanner;
    if !paths_checked {
        check_paths(&table, interrupt)?;
    }
    if !ascending {
        drop_duplicates(&mut table, interrupt)?;
    }
    Ok(table)
}

/// The reader of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// [`canonical`] if the document has that form.
    Fastest,
    /// Every document in one way.
    General,
}

/// Replaces every skipped value in the document by a zero. The result has all data that [`read`] examines.
#[doc(hidden)]
pub fn blank_unused(document: &[u8]) -> Result<Vec<u8>> {
    let mut scanner = Scanner::new(document, Way::General, Interrupt::default())?;
    scanner.lexer.skipped = Some(Vec::new());
    scanner.store()?;
    let mut out = document.to_vec();
    for range in scanner.lexer.skipped.into_iter().flatten() {
        let unused = out.get_mut(range).unwrap_or_default();
        unused.fill(b' ');
        unused.first_mut().into_iter().for_each(|byte| *byte = b'0');
    }
    Ok(out)
}

/// Returns whether the document is UTF-8; tests parts of about `part` bytes.
fn is_utf8(document: &[u8], part: usize, interrupt: Interrupt<'_>) -> Result<bool> {
    let mut rest = document;
    while !rest.is_empty() {
        interrupt.ask()?;
        let is_inside = |at: &usize| rest.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
        // A character has at most three bytes after its first one.
        let end = (0..4).filter_map(|back| part.checked_sub(back)).find(|at| !is_inside(at)).unwrap_or(part);
        let (head, after) = rest.split_at(end.min(rest.len()));
        if simdutf8::basic::from_utf8(head).is_err() {
            return Ok(false);
        }
        rest = after;
    }
    Ok(true)
}

struct Scanner<'m, 'i> {
    lexer: Lexer<'m, 'i>,
    table: Table<'m>,
    way: Way,
    /// Nodes with an open object, outermost first.
    open: Vec<Open>,
    /// Whether each path is known to be that of its directory and a name.
    paths_checked: bool,
    /// Whether no directory can have a name twice.
    ascending: bool,
}

/// A node in progress.
struct Open {
    id: u32,
    /// Its name: the key of its object. The root has none.
    name: Text,
    name_escaped: bool,
    seen: u8,
    /// Whether the reader is in its `Children` object.
    in_children: bool,
}

impl Open {
    const PATH: u8 = 1;
    const CREATED: u8 = 2;
    const MODIFIED: u8 = 4;
    const EXPIRY: u8 = 8;
    const VALUE: u8 = 16;
    const CHILDREN: u8 = 32;
}

impl<'m, 'i> Scanner<'m, 'i> {
    fn new(document: &'m [u8], way: Way, interrupt: Interrupt<'i>) -> Result<Scanner<'m, 'i>> {
        let valid_utf8 = is_utf8(document, interrupt::CHUNK, interrupt)?;
        Ok(Scanner {
            lexer: Lexer { document, at: 0, valid_utf8, skipped: None, interrupt, asked_at: 0 },
            table: Table { document, ..Table::empty() },
            way,
            open: Vec::new(),
            paths_checked: false,
            ascending: false,
        })
    }

    fn store(&mut self) -> Result<()> {
        self.lexer.expect(b'{', "a v2 store, which is a JSON object")?;
        let (mut root, mut index) = (false, false);
        let mut first = true;
        while let Some(key) = self.lexer.next_key(&mut first)? {
            match self.lexer.raw(&key.text) {
                b"Root" if !root => {
                    root = true;
                    self.tree()?;
                }
                b"CurrentIndex" if !index => {
                    index = true;
                    self.table.current_index = V2Index(self.lexer.number()?);
                }
                b"Root" | b"CurrentIndex" => {
                    return Err(damaged(key.text.offset, "expected a field once, found it twice"));
                }
                other => {
                    unknown(&key, other, &["Root", "CurrentIndex"])?;
                    let start = self.lexer.at;
                    self.lexer.skip()?;
                    if other == b"WatcherHub" {
                        self.table.history = start..self.lexer.at;
                    }
                }
            }
        }
        self.lexer.end()?;
        if root { Ok(()) } else { Err(damaged(ByteOffset(0), "expected a v2 store, found an object without `Root`")) }
    }

    /// Reads the whole tree.
    fn tree(&mut self) -> Result<()> {
        let Lexer { document, at, valid_utf8, interrupt, .. } = self.lexer;
        if self.way == Way::Fastest
            && valid_utf8
            && let Some(found) = canonical::read(document, at, interrupt)?
        {
            (self.table.nodes, self.table.expiries) = (found.nodes, found.expiries);
            (self.paths_checked, self.ascending) = (true, found.ascending);
            (self.lexer.at, self.lexer.asked_at) = (found.end, found.end);
            return Ok(());
        }
        self.tree_in_any_form()
    }

    /// Reads the whole tree. `self.open` replaces the call stack.
    fn tree_in_any_form(&mut self) -> Result<()> {
        self.begin_node(Key::default())?;
        let mut first = true;
        while let Some(top) = self.open.last() {
            let in_children = top.in_children;
            match self.lexer.next_key(&mut first)? {
                Some(key) if in_children => {
                    self.begin_node(key)?;
                    first = true;
                }
                Some(key) => first = self.field(&key)?,
                None if in_children => self.end_children(),
                None => self.end_node()?,
            }
        }
        Ok(())
    }

    fn begin_node(&mut self, name: Key) -> Result<()> {
        let offset = self.lexer.offset();
        self.lexer.ask()?;
        self.lexer.expect(b'{', "a node, which is a JSON object")?;
        // The root and its namespaces are not components of a key.
        if self.open.len() > limits::MAX_PATH_COMPONENTS {
            return Err(damaged(offset, format!("expected at most {} path components", limits::MAX_PATH_COMPONENTS)));
        }
        let id = u32::try_from(self.table.nodes.len()).ok().filter(|id| u64::from(*id) < limits::MAX_NODES);
        let id = id.ok_or_else(|| damaged(offset, "expected fewer nodes"))?;
        self.table.nodes.push(Node::default());
        self.open.push(Open { id, name: name.text, name_escaped: name.escaped, seen: 0, in_children: false });
        Ok(())
    }

    /// Reads one field of the innermost node. Returns whether it opened a new object.
    fn field(&mut self, key: &Key) -> Result<bool> {
        let field = match self.lexer.raw(&key.text) {
            b"Path" => Open::PATH,
            b"CreatedIndex" => Open::CREATED,
            b"ModifiedIndex" => Open::MODIFIED,
            b"ExpireTime" => Open::EXPIRY,
            b"Value" => Open::VALUE,
            b"Children" => Open::CHILDREN,
            other => {
                unknown(key, other, &["Path", "CreatedIndex", "ModifiedIndex", "ExpireTime", "Value", "Children"])?;
                return self.lexer.skip().map(|()| false);
            }
        };
        let open = self.open.last_mut().ok_or_else(internal)?;
        if open.seen & field != 0 {
            return Err(damaged(key.text.offset, "expected a field once, found it twice"));
        }
        open.seen |= field;
        let id = open.id as usize;
        let node = self.table.nodes.get_mut(id).ok_or_else(internal)?;
        match field {
            Open::PATH => {
                let path = self.lexer.string()?;
                node.path = path.text;
                node.flags |=
                    Node::flag(path.escaped, Node::PATH_ESCAPED) | Node::flag(path.replaced, Node::PATH_REPLACED);
                let path = text::decode(self.lexer.raw(&path.text), path.text.len as usize, path.escaped);
                node.flags |= Node::flag(path::is_hidden(&path), Node::HIDDEN);
            }
            Open::CREATED => node.created = self.lexer.number()?,
            Open::MODIFIED => node.modified = self.lexer.number()?,
            Open::EXPIRY => {
                if let Some(expiry) = self.lexer.time()? {
                    self.table.expiries.push(expiry);
                    node.expiry = u32::try_from(self.table.expiries.len()).map_err(|_| internal())?;
                }
            }
            Open::VALUE => {
                let value = self.lexer.string()?;
                node.value = value.text;
                node.flags |=
                    Node::flag(value.escaped, Node::VALUE_ESCAPED) | Node::flag(value.replaced, Node::VALUE_REPLACED);
            }
            _ => {
                if !self.lexer.null()? {
                    self.lexer.expect(b'{', "the children of a directory, or null")?;
                    node.flags |= Node::DIR;
                    open.in_children = true;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn end_children(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.in_children = false;
        }
    }

    fn end_node(&mut self) -> Result<()> {
        let open = self.open.pop().ok_or_else(internal)?;
        let end = u32::try_from(self.table.nodes.len()).map_err(|_| internal())?;
        let document = self.lexer.document;
        let offset = self.lexer.offset();
        let is_root = self.open.is_empty();
        let node = self.table.nodes.get_mut(open.id as usize).ok_or_else(internal)?;
        node.end = end;
        node.name_len = open.name.len;
        if open.seen & Open::PATH == 0 {
            return Err(damaged(offset, "expected a node with a path, found it without"));
        }
        let path = raw(document, &node.path);
        if is_root {
            if path != b"/" || !node.is_dir() {
                return Err(damaged(node.path.offset, "expected the root directory, found another node"));
            }
            return Ok(());
        }
        let name = raw(document, &open.name);
        let decoded = text::decode(name, open.name.len as usize, open.name_escaped);
        node.name_hash = NameHash::of(&decoded);
        if name.is_empty() || memchr::memchr(b'/', name).is_some() || memchr::memchr(b'/', &decoded).is_some() {
            return Err(damaged(open.name.offset, "expected the name of a node, found an empty one or a path"));
        }
        // Both have the same escapes, so the bytes of the document can be compared. Different bytes can still decode to
        // the same text.
        if path.strip_suffix(name).is_some_and(|parent| parent.ends_with(b"/")) {
            return Ok(());
        }
        let (raw, path) = (path, text::decode(path, node.path.len as usize, node.has(Node::PATH_ESCAPED)));
        // The name at the end of a path is found by its slash, without the rest of the path.
        let slashes = |path: &[u8]| memchr::memchr_iter(b'/', path).count();
        if slashes(raw) != slashes(&path) {
            return Err(damaged(node.path.offset, "expected a path whose slashes are no escapes, as etcd writes it"));
        }
        if path.strip_suffix(&*decoded).is_some_and(|parent| parent.ends_with(b"/")) {
            return Ok(());
        }
        Err(damaged(node.path.offset, "expected a path that ends in the node's name, found another"))
    }
}

/// Handles an unknown field. Go would accept a known name with escapes or in another case.
fn unknown(key: &Key, raw: &[u8], known: &[&str]) -> Result<()> {
    if key.escaped || known.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(raw)) {
        return Err(damaged(key.text.offset, "expected the name of a field as etcd writes it, found another spelling"));
    }
    Ok(())
}

/// Checks that every path is the path of its parent and one more name. So display and lookup use the same path.
fn check_paths(table: &Table<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    let mut parents: Vec<(u32, NodeId)> = Vec::new();
    for (id, node) in table.nodes.iter().enumerate() {
        interrupt.ask_at(id)?;
        let id = u32::try_from(id).map_err(|_| internal())?;
        while parents.last().is_some_and(|(end, _)| *end <= id) {
            parents.pop();
        }
        if let Some((_, parent)) = parents.last() {
            let parent = table.node(*parent);
            if !is_below(table, node, &parent) {
                return Err(damaged(
                    node.path.offset,
                    "expected a path below that of the node's directory, found another",
                ));
            }
        }
        if node.end > id + 1 {
            parents.push((node.end, NodeId(id)));
        }
    }
    Ok(())
}

fn is_below(table: &Table<'_>, node: &Node, parent: &Node) -> bool {
    let escaped = node.has(Node::PATH_ESCAPED) || parent.has(Node::PATH_ESCAPED);
    if !escaped {
        let (path, parent_path) = (table.raw(&node.path), table.raw(&parent.path));
        return directly_below(path, parent_path, node.name_len);
    }
    directly_below(&table.path(node), &table.path(parent), node.name_len)
}

fn directly_below(path: &[u8], parent: &[u8], name_len: u32) -> bool {
    let parent = if parent == b"/" { b"" } else { parent };
    path.len() == parent.len() + 1 + name_len as usize
        && path.starts_with(parent)
        && path.get(parent.len()) == Some(&b'/')
}

/// Drops duplicate siblings: of siblings with one name only the last counts, with its subtree (docs/formats.md 3.1). Go
/// sorts siblings, so names in ascending order cannot repeat. Only directories with another order need a second pass.
fn drop_duplicates(table: &mut Table<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    let mut dead: Vec<(u32, u32)> = Vec::new();
    for id in 0..table.nodes.len() {
        interrupt.ask_at(id)?;
        let id = NodeId(u32::try_from(id).map_err(|_| internal())?);
        if table.node(id).is_dir() && !ascending(table, id) {
            find_duplicates(table, id, &mut dead, interrupt)?;
        }
    }
    if dead.is_empty() {
        return Ok(());
    }
    table.duplicates = dead.len() as u64;
    dead.sort_unstable();
    table.shadowed = shadowed(table, &dead);
    remove(table, dead);
    Ok(())
}

/// Maximum number of stored shadowed nodes; further siblings are only counted.
const MAX_SHADOWED: usize = 10_000;

/// Returns the nodes of these subtrees, each once. `dead` is sorted by its first nodes; ranges can be nested.
fn shadowed(table: &Table<'_>, dead: &[(u32, u32)]) -> Vec<Shadowed> {
    let mut found = Vec::new();
    let mut done = 0;
    for (start, end) in dead {
        for id in (*start).max(done)..*end {
            if found.len() == MAX_SHADOWED {
                return found;
            }
            let sibling = dead.binary_search_by_key(&id, |(start, _)| *start).is_ok();
            found.push(Shadowed { node: table.node(NodeId(id)), sibling });
        }
        done = done.max(*end);
    }
    found
}

fn ascending(table: &Table<'_>, dir: NodeId) -> bool {
    let mut previous: Option<Cow<'_, [u8]>> = None;
    for child in table.children(dir) {
        let name = table.name(&table.node(child));
        if previous.is_some_and(|previous| previous >= name) {
            return false;
        }
        previous = Some(name);
    }
    true
}

fn find_duplicates(table: &Table<'_>, dir: NodeId, dead: &mut Vec<(u32, u32)>, interrupt: Interrupt<'_>) -> Result<()> {
    let mut children = Vec::new();
    for (number, child) in table.children(dir).enumerate() {
        interrupt.ask_at(number)?;
        children.push(child);
    }
    let name = |child: &NodeId| table.name(&table.node(*child));
    interrupt.sort_by(&mut children, |a, b| name(a).cmp(&name(b)).then(a.0.cmp(&b.0)))?;
    for (number, pair) in children.windows(2).enumerate() {
        interrupt.ask_at(number)?;
        if let [earlier, later] = pair
            && name(earlier) == name(later)
        {
            dead.push((earlier.0, table.node(*earlier).end));
        }
    }
    Ok(())
}

/// Removes whole subtrees from the table, in place. `dead` is sorted by its first nodes; ranges can be nested.
fn remove(table: &mut Table<'_>, mut dead: Vec<(u32, u32)>) {
    // A nested range disappears with the outer one.
    let mut until = 0;
    dead.retain(|(start, end)| {
        let outermost = *start >= until;
        until = until.max(*end);
        outermost
    });
    // Number of removed nodes up to the end of each range.
    let gone: Vec<u32> = dead
        .iter()
        .scan(0, |gone, (start, end)| {
            *gone += end - start;
            Some(*gone)
        })
        .collect();
    // A remaining node ends at the start of a range, at its end, or outside of all ranges, because ranges are whole
    // subtrees.
    let gone_before = |id: u32| {
        let ended = dead.partition_point(|(_, end)| *end <= id);
        ended.checked_sub(1).and_then(|last| gone.get(last)).copied().unwrap_or(0)
    };
    let (mut id, mut next) = (0, 0);
    table.nodes.retain_mut(|node| {
        while dead.get(next).is_some_and(|(_, end)| *end <= id) {
            next += 1;
        }
        let is_dead = dead.get(next).is_some_and(|(start, _)| *start <= id);
        id += 1;
        node.end -= gone_before(node.end);
        !is_dead
    });
}

/// A string, with the result of its scan.
#[derive(Debug, Clone, Copy, Default)]
struct Key {
    text: Text,
    escaped: bool,
    replaced: bool,
}

/// The tokens of a JSON document.
struct Lexer<'m, 'i> {
    document: &'m [u8],
    at: usize,
    valid_utf8: bool,
    /// Positions of the skipped values, if the caller wants them.
    skipped: Option<Vec<Range<usize>>>,
    interrupt: Interrupt<'i>,
    /// Position of the last test for an interruption.
    asked_at: usize,
}

impl<'m> Lexer<'m, '_> {
    /// Tests for an interruption from time to time.
    fn ask(&mut self) -> Result<()> {
        if self.at - self.asked_at < DOCUMENT_CHUNK {
            return Ok(());
        }
        self.interrupt.done((self.at - self.asked_at) as u64);
        self.asked_at = self.at;
        self.interrupt.ask()
    }

    fn offset(&self) -> ByteOffset {
        ByteOffset::from(self.at)
    }

    fn rest(&self) -> &'m [u8] {
        self.document.get(self.at..).unwrap_or_default()
    }

    fn raw(&self, text: &Text) -> &'m [u8] {
        raw(self.document, text)
    }

    /// Returns the next byte that is not white space, without consuming it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.document.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                byte => return byte.copied(),
            }
        }
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.expected(what))
    }

    fn expected(&self, what: &str) -> Error {
        let found = match self.document.get(self.at) {
            Some(byte) => format!("`{}`", byte.escape_ascii()),
            None => "the end of the data".to_string(),
        };
        damaged(self.offset(), format!("expected {what}, found {found}"))
    }

    /// Reads the next key of an object and its colon. Returns `None` at the end of the object.
    fn next_key(&mut self, first: &mut bool) -> Result<Option<Key>> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                // In the object around it, the next key follows a value.
                *first = false;
                return Ok(None);
            }
            Some(b',') if !*first => self.at += 1,
            Some(b'"') if *first => {}
            _ => return Err(self.expected("a comma or the end of an object")),
        }
        *first = false;
        let key = self.string()?;
        self.expect(b':', "a colon")?;
        Ok(Some(key))
    }

    fn string(&mut self) -> Result<Key> {
        self.expect(b'"', "a string")?;
        let offset = self.offset();
        let scanned = text::scan(self.rest(), self.valid_utf8)
            .map_err(|e| damaged(offset + e.at as u64, format!("expected {}", e.expected)))?;
        self.at += scanned.raw_len + 1;
        let text = Text {
            offset,
            raw_len: u32::try_from(scanned.raw_len).map_err(|_| internal())?,
            len: u32::try_from(scanned.len).map_err(|_| internal())?,
        };
        Ok(Key { text, escaped: scanned.escaped, replaced: scanned.replaced > 0 })
    }

    /// Reads an unsigned number exactly.
    fn number(&mut self) -> Result<u64> {
        self.peek();
        let digits = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        let text = self.rest().get(..digits).unwrap_or_default();
        let value = text
            .iter()
            .try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit.wrapping_sub(b'0'))));
        match value {
            Some(value) if digits == 1 || (digits > 1 && text.first() != Some(&b'0')) => {
                self.at += digits;
                Ok(value)
            }
            _ => Err(self.expected("a number of 64 bits without a sign")),
        }
    }

    /// Reads an expiry time; `None` for Go's zero time.
    fn time(&mut self) -> Result<Option<Timestamp>> {
        let string = self.string()?;
        text::expiry(self.raw(&string.text))
            .ok_or_else(|| damaged(string.text.offset, "expected a time as RFC 3339 has it"))
    }

    /// Consumes `null` if it is next.
    fn null(&mut self) -> Result<bool> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        if self.rest().starts_with(b"null") {
            self.at += 4;
            return Ok(true);
        }
        Err(self.expected("null"))
    }

    /// Skips one value of any kind.
    fn skip(&mut self) -> Result<()> {
        self.peek();
        let start = self.offset();
        // One bit for each level: whether it is an object.
        let mut levels: Vec<bool> = Vec::new();
        loop {
            self.ask()?;
            match self.peek() {
                Some(b'"') => self.skip_string()?,
                Some(open @ (b'{' | b'[')) => {
                    levels.push(open == b'{');
                    self.at += 1;
                    continue;
                }
                Some(close @ (b'}' | b']')) => {
                    if levels.pop() != Some(close == b'}') {
                        return Err(self.expected("the end of the value that is open"));
                    }
                    self.at += 1;
                }
                Some(b',' | b':') if !levels.is_empty() => {
                    self.at += 1;
                    continue;
                }
                Some(b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => self.skip_word(),
                None => return Err(damaged(start, "expected a whole value, found the end of the data in it")),
                _ => return Err(self.expected("a value")),
            }
            if levels.is_empty() {
                let skipped = usize::try_from(start).unwrap_or(self.at)..self.at;
                self.skipped.as_mut().into_iter().for_each(|list| list.push(skipped.clone()));
                return Ok(());
            }
        }
    }

    fn skip_string(&mut self) -> Result<()> {
        self.at += 1;
        loop {
            let ahead = self.rest();
            let Some(run) = memchr::memchr2(b'"', b'\\', ahead) else {
                self.at = self.document.len();
                return Err(self.expected("the end of a string"));
            };
            let quote = ahead.get(run) == Some(&b'"');
            self.at += run + if quote { 1 } else { 2 };
            if quote {
                return Ok(());
            }
        }
    }

    fn skip_word(&mut self) {
        let word = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        self.at += self.rest().iter().take_while(word).count();
    }

    fn end(&mut self) -> Result<()> {
        if self.peek().is_some() { Err(self.expected("the end of the data")) } else { Ok(()) }
    }
}

fn raw<'m>(document: &'m [u8], text: &Text) -> &'m [u8] {
    let start = usize::try_from(text.offset).unwrap_or(usize::MAX);
    document.get(start..start.saturating_add(text.raw_len as usize)).unwrap_or_default()
}

fn damaged(offset: ByteOffset, message: impl Into<String>) -> Error {
    Error::new(Reason::Damaged, message).at(offset)
}

fn internal() -> Error {
    Error::new(Reason::Internal, "the node table does not hold what it must")
}

#[cfg(test)]
mod tests;
