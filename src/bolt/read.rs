//! Reader of a bbolt file in memory: opens it, finds buckets, and walks pairs in order.
//!
//! docs/formats.md sections 8.1 to 8.5, 8.7 and 8.8, and the trailer of 10.4. The bytes are untrusted. Every offset and
//! length is checked. Walks are iterative and bounded by the depth and the number of pages, so cycles end. The pairs of
//! a page must be contiguous, so no walk yields more bytes than the file has. `check` tests all other properties (order
//! of keys, branch keys, unreachable pages). Must not know etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::damage::Damage;
use super::format::{
    BUCKET_LEN, BranchElement, BucketHeader, ELEMENT_BUCKET, ELEMENT_LEN, FLAG_BRANCH, FLAG_LEAF, HEADER_LEN,
    LeafElement, MAGIC, META_LEN, Meta, PageHeader, VERSION,
};
use crate::count::{bytes, counted};
use crate::ids::{ByteOffset, PageId};
use crate::interrupt::Interrupt;
use crate::limits::MAX_BOLT_DEPTH;

/// Length of the SHA-256 at the end of a snapshot file, in bytes.
const TRAILER_LEN: usize = 32;

/// The search for a page size covers 1 KiB to 16 MiB, as in bbolt.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 10..=24;

/// An open database: the bytes of the file and the current meta page.
#[derive(Debug, Clone, Copy)]
pub struct Db<'a> {
    body: &'a [u8],
    trailer: Option<&'a [u8; TRAILER_LEN]>,
    meta: Meta,
    metas: [Option<Meta>; 2],
    interrupt: Interrupt<'a>,
}

impl<'a> Db<'a> {
    /// Opens the bytes of a database file, or of a snapshot file (docs/formats.md 10.4), of any page size.
    ///
    /// # Errors
    /// Neither meta page is valid, or the file is shorter than the valid one requires.
    pub fn open(file: &'a [u8]) -> Result<Db<'a>, Damage> {
        let (body, trailer) = match file.split_last_chunk::<TRAILER_LEN>() {
            Some((body, trailer)) if body.len() % 512 == 0 => (body, Some(trailer)),
            _ => (file, None),
        };
        let first = meta_at(body, 0, None);
        let second = match first {
            Ok(meta) => meta_at(body, meta.page_size, Some(meta.page_size)),
            Err(_) => PAGE_SIZES
                .map(|bits| 1 << bits)
                .find_map(|size| meta_at(body, size, Some(size)).ok())
                .ok_or_else(|| Damage::new(ByteOffset(0), "expected a second meta page, found none")),
        };
        let metas = [first.as_ref().ok().copied(), second.ok()];
        let meta = match (first, metas) {
            (_, [Some(a), Some(b)]) => {
                if b.txid > a.txid {
                    b
                } else {
                    a
                }
            }
            (_, [Some(meta), None] | [None, Some(meta)]) => meta,
            (Err(damage), _) => return Err(damage),
            (Ok(meta), _) => meta,
        };
        let db = Db { body, trailer, meta, metas, interrupt: Interrupt::default() };
        if db.len().is_none_or(|len| len > body.len() as u64) {
            let message = format!(
                "expected {} of {} bytes, found a file of {}",
                counted(meta.hwm.0, "page", "pages"),
                meta.page_size,
                bytes(body.len() as u64)
            );
            return Err(Damage::new(ByteOffset::from(body.len()), message));
        }
        Ok(db)
    }

    /// Returns the same database with an interruption. After the interruption every page reads as damaged, and the
    /// caller must test for the interruption again.
    #[must_use]
    pub fn watched<'i>(self, interrupt: Interrupt<'i>) -> Db<'i>
    where
        'a: 'i,
    {
        Db { interrupt: interrupt.uncounted(), ..self }
    }

    /// Returns the same as [`Db::watched`], with pages that count as processed when they are read.
    #[must_use]
    pub fn counted<'i>(self, interrupt: Interrupt<'i>) -> Db<'i>
    where
        'a: 'i,
    {
        Db { interrupt, ..self }
    }

    /// Returns the interruption.
    pub fn interrupt(&self) -> Interrupt<'a> {
        self.interrupt
    }

    /// Returns the current meta page.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Returns both meta pages, if they are valid.
    pub fn metas(&self) -> &[Option<Meta>; 2] {
        &self.metas
    }

    /// Returns the file without the trailer of a snapshot.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Returns the SHA-256 at the end of a snapshot file.
    pub fn trailer(&self) -> Option<&'a [u8; TRAILER_LEN]> {
        self.trailer
    }

    /// Returns the total size of all pages up to the high-water mark in bytes. The file can be longer.
    pub fn size(&self) -> u64 {
        self.len().unwrap_or(u64::MAX)
    }

    /// Returns the root bucket, whose pairs are the top-level buckets.
    pub fn root(&self) -> Tree<'a> {
        Tree { db: *self, root: Root::Page(self.meta.root.root), sequence: self.meta.root.sequence }
    }

    /// Returns a top-level bucket by name.
    ///
    /// # Errors
    /// A page on the path to it is damaged, or the pair is not a bucket.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Tree<'a>>, Damage> {
        self.root().get(name)?.map(|pair| self.open_bucket(&pair)).transpose()
    }

    /// Returns the bucket in the value of a pair.
    ///
    /// # Errors
    /// The pair is not a bucket, or its value is not valid.
    pub fn open_bucket(&self, pair: &Pair<'a>) -> Result<Tree<'a>, Damage> {
        if !pair.is_bucket {
            return Err(Damage::new(pair.offset, "expected a bucket, found a plain value"));
        }
        let offset = pair.value_offset();
        let Some((header, inline)) = pair.value.split_first_chunk::<16>() else {
            return Err(Damage::new(offset, "expected a bucket of 16 bytes or more"));
        };
        let header = BucketHeader::decode(header);
        let root = match header.root {
            PageId(0) => Root::Inline(Page::new(inline, offset + u64::from(BUCKET_LEN))?),
            page => Root::Page(page),
        };
        Ok(Tree { db: *self, root, sequence: header.sequence })
    }

    /// Returns a leaf or branch page by number.
    ///
    /// # Errors
    /// The number is out of range, or that offset does not contain this page completely.
    pub(super) fn page(&self, id: PageId) -> Result<Page<'a>, Damage> {
        let (_, bytes, offset) = self.run(id)?;
        Page::new(bytes, offset)
    }

    /// Returns the bytes of a page of any kind from its header on, with its overflow pages, and their offset.
    ///
    /// # Errors
    /// The number is out of range, or that offset does not contain this page completely.
    pub(super) fn run(&self, id: PageId) -> Result<(PageHeader, &'a [u8], ByteOffset), Damage> {
        let page_size = u64::from(self.meta.page_size);
        let offset = id.offset(self.meta.page_size);
        self.interrupt.ask().map_err(|_| Damage::new(offset, "interrupted"))?;
        if id.0 >= self.meta.hwm.0 {
            let message = format!("page {id} is not below the high-water mark {}", self.meta.hwm);
            return Err(Damage::new(offset.min(ByteOffset::from(self.body.len())), message));
        }
        let rest = cut(self.body, offset, u64::MAX).unwrap_or_default();
        let Some(header) = rest.first_chunk::<16>().map(PageHeader::decode) else {
            return Err(Damage::new(offset, "expected a page, found the end of the file"));
        };
        if header.id != id {
            return Err(Damage::new(offset, format!("expected page {id}, found page {}", header.id)));
        }
        let pages = u64::from(header.overflow) + 1;
        if pages > self.meta.hwm.0 - id.0 {
            let message = format!(
                "page {id} has {}, beyond the high-water mark",
                counted(header.overflow.into(), "overflow page", "overflow pages")
            );
            return Err(Damage::new(offset + 12, message));
        }
        let bytes = cut(rest, ByteOffset(0), pages.saturating_mul(page_size)).unwrap_or_default();
        self.interrupt.done(bytes.len() as u64);
        Ok((header, bytes, offset))
    }

    /// Returns at most `len` bytes of the file from `offset` on.
    pub(super) fn bytes(&self, offset: ByteOffset, len: u64) -> &'a [u8] {
        cut(self.body, offset, len).unwrap_or_default()
    }

    fn len(&self) -> Option<u64> {
        self.meta.hwm.0.checked_mul(u64::from(self.meta.page_size))
    }
}

fn meta_at(body: &[u8], offset: u32, page_size: Option<u32>) -> Result<Meta, Damage> {
    let wrong = |message: String| Damage::new(ByteOffset(u64::from(offset)), message);
    // Like bbolt, this ignores the page header. Otherwise one wrong bit in it would select an older state.
    let page = cut(body, ByteOffset(u64::from(offset)), u64::from(HEADER_LEN + META_LEN)).unwrap_or_default();
    let page = if page.len() as u64 == u64::from(HEADER_LEN + META_LEN) { page } else { &[] };
    let bytes =
        page.last_chunk::<64>().ok_or_else(|| wrong("expected a bbolt meta page, found the end of the file".into()))?;
    let (meta, sound) = Meta::decode(bytes);
    if meta.magic != MAGIC {
        return Err(wrong(format!("expected a bbolt meta page (magic {MAGIC:#010x}), found {:#010x}", meta.magic)));
    }
    if meta.version != VERSION {
        return Err(wrong(format!("expected bbolt version {VERSION}, found {}", meta.version)));
    }
    if !sound {
        return Err(wrong("the checksum of the meta page is wrong".into()));
    }
    let bits = meta.page_size.trailing_zeros();
    if !meta.page_size.is_power_of_two()
        || !PAGE_SIZES.contains(&bits)
        || page_size.is_some_and(|s| s != meta.page_size)
    {
        return Err(wrong(format!("{} cannot be the page size", meta.page_size)));
    }
    Ok(meta)
}

/// Returns at most `len` bytes from `offset` on; `None` if that is after the end.
fn cut(bytes: &[u8], offset: ByteOffset, len: u64) -> Option<&[u8]> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    let len = usize::try_from(len).map_or(rest.len(), |len| len.min(rest.len()));
    rest.get(..len)
}

/// A bucket: the pairs below one root page.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    db: Db<'a>,
    root: Root<'a>,
    sequence: u64,
}

/// The location of a bucket's root page.
#[derive(Debug, Clone, Copy)]
pub(super) enum Root<'a> {
    Page(PageId),
    Inline(Page<'a>),
}

impl<'a> Tree<'a> {
    /// Returns the counter of the bucket.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns its pairs in file order, which is key order in a file that passes the check.
    pub fn iter(&self) -> Cursor<'a> {
        Cursor { db: self.db, start: Some(self.root), stack: Vec::new(), budget: Budget::new(&self.db) }
    }

    /// Returns the pair with this key.
    ///
    /// # Errors
    /// A page on the path to it is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Pair<'a>>, Damage> {
        let mut page = self.root_page()?;
        for _ in 0..MAX_BOLT_DEPTH {
            match page.kind {
                Kind::Leaf => {
                    let row = page.lower_bound(key)?;
                    let pair = if row < page.count() { Some(page.pair(row)?) } else { None };
                    return Ok(pair.filter(|pair| pair.key == key));
                }
                Kind::Branch => {
                    let child = page.child_for(key)?;
                    page = self.db.page(page.child(child)?.page)?;
                }
            }
        }
        Err(Damage::new(page.offset, format!("the tree has more than {MAX_BOLT_DEPTH} levels")))
    }

    pub(super) fn root_page(&self) -> Result<Page<'a>, Damage> {
        match self.root {
            Root::Page(id) => self.db.page(id),
            Root::Inline(page) if page.kind == Kind::Leaf => Ok(page),
            Root::Inline(page) => Err(Damage::new(page.offset, "expected a leaf page in an inline bucket")),
        }
    }

    pub(super) fn db(&self) -> &Db<'a> {
        &self.db
    }

    pub(super) fn root_place(&self) -> &Root<'a> {
        &self.root
    }
}

impl<'a> IntoIterator for &Tree<'a> {
    type Item = Result<Pair<'a>, Damage>;
    type IntoIter = Cursor<'a>;

    fn into_iter(self) -> Cursor<'a> {
        self.iter()
    }
}

/// One pair of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Key and value together, as in the file.
    pub record: &'a [u8],
    /// Whether the value is a bucket.
    pub is_bucket: bool,
    /// Offset of the key's first byte in the file.
    pub offset: ByteOffset,
}

impl Pair<'_> {
    /// Returns the offset of the value's first byte in the file.
    pub fn value_offset(&self) -> ByteOffset {
        self.offset + self.key.len() as u64
    }
}

/// The number of pages that walks may still visit. A tree has at most as many as the file, but a cycle would have more.
#[derive(Debug)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    /// Creates a budget of all pages of the file.
    pub(super) fn new(db: &Db<'_>) -> Budget {
        Budget(Arc::new(AtomicU64::new(db.meta.hwm.0)))
    }

    /// Spends the pages of one page with its overflow pages.
    ///
    /// # Errors
    /// The walks have visited more pages than the file has.
    pub(super) fn spend(&mut self, page: &Page<'_>) -> Result<(), Damage> {
        if page.header.id == PageId(0) {
            return Ok(());
        }
        let pages = u64::from(page.header.overflow) + 1;
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(pages));
        left.map(drop)
            .map_err(|_| Damage::new(page.offset, "the tree has more pages than the file: a page is used twice"))
    }
}

/// An iterator over the pairs of a bucket, in order. Ends after the first damage.
#[derive(Debug)]
pub struct Cursor<'a> {
    db: Db<'a>,
    start: Option<Root<'a>>,
    stack: Vec<Frame<'a>>,
    budget: Budget,
}

#[derive(Debug, Clone)]
struct Frame<'a> {
    page: Page<'a>,
    next: u32,
    /// The required offset of the next element's data.
    data: ByteOffset,
}

impl Frame<'_> {
    /// Checks that data are in the order of their elements, without gaps. So no byte belongs to two elements, and a
    /// wrong number of elements is detected.
    fn follows(&mut self, start: ByteOffset, len: usize) -> Result<(), Damage> {
        if start != self.data {
            return Err(Damage::new(start, "the data of an element do not start at the end of the data before them"));
        }
        self.data = start + len as u64;
        Ok(())
    }
}

impl<'a> Cursor<'a> {
    /// Returns an iterator over the pairs below one page, which shares its budget with others.
    pub(super) fn below(db: &Db<'a>, page: PageId, budget: &Budget) -> Cursor<'a> {
        Cursor { db: *db, start: Some(Root::Page(page)), stack: Vec::new(), budget: Budget(Arc::clone(&budget.0)) }
    }

    fn advance(&mut self) -> Result<Option<Pair<'a>>, Damage> {
        if let Some(root) = self.start.take() {
            let page = Tree { db: self.db, root, sequence: 0 }.root_page()?;
            self.descend(page)?;
        }
        while let Some(frame) = self.stack.last_mut() {
            if frame.next >= frame.page.count() {
                self.stack.pop();
                continue;
            }
            let number = frame.next;
            frame.next += 1;
            match frame.page.kind {
                Kind::Leaf => {
                    let pair = frame.page.pair(number)?;
                    frame.follows(pair.offset, pair.record.len())?;
                    return Ok(Some(pair));
                }
                Kind::Branch => {
                    let child = frame.page.child(number)?;
                    frame.follows(child.offset, child.key.len())?;
                    let page = self.db.page(child.page)?;
                    self.descend(page)?;
                }
            }
        }
        Ok(None)
    }

    fn descend(&mut self, page: Page<'a>) -> Result<(), Damage> {
        if self.stack.len() >= MAX_BOLT_DEPTH {
            return Err(Damage::new(page.offset, format!("the tree has more than {MAX_BOLT_DEPTH} levels")));
        }
        self.budget.spend(&page)?;
        self.stack.push(Frame { page, next: 0, data: page.offset + page.elements_end() });
        Ok(())
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = Result<Pair<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if let Some(Err(_)) = next {
            self.stack.clear();
        }
        next
    }
}

/// A complete page: its header is that of a leaf or branch page, and its elements are in the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page<'a> {
    pub(super) header: PageHeader,
    pub(super) kind: Kind,
    /// The page from its header on, with its overflow pages.
    pub(super) bytes: &'a [u8],
    /// Its offset in the file.
    pub(super) offset: ByteOffset,
    elements: &'a [[u8; 16]],
}

/// The kind of a tree page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf,
    Branch,
}

/// An element of a branch page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child<'a> {
    pub(super) key: &'a [u8],
    pub(super) page: PageId,
    /// Offset of the key in the file.
    pub(super) offset: ByteOffset,
}

impl<'a> Page<'a> {
    fn new(bytes: &'a [u8], offset: ByteOffset) -> Result<Self, Damage> {
        let Some((header, body)) = bytes.split_first_chunk::<16>() else {
            return Err(Damage::new(offset, "expected a page header, found the end of the bucket"));
        };
        let header = PageHeader::decode(header);
        let kind = match header.flags {
            FLAG_LEAF => Kind::Leaf,
            FLAG_BRANCH => Kind::Branch,
            flags => {
                return Err(Damage::new(
                    offset + 8,
                    format!("expected a leaf or branch page, found flags {flags:#06x}"),
                ));
            }
        };
        let elements = body.as_chunks::<16>().0.get(..usize::from(header.count));
        let Some(elements) = elements else {
            return Err(Damage::new(
                offset + 10,
                format!("the page has no room for {}", counted(header.count.into(), "element", "elements")),
            ));
        };
        Ok(Page { header, kind, bytes, offset, elements })
    }

    pub(super) fn count(&self) -> u32 {
        u32::from(self.header.count)
    }

    /// Returns the end of the elements, from the start of the page.
    pub(super) fn elements_end(&self) -> u64 {
        u64::from(HEADER_LEN) + u64::from(self.count()) * u64::from(ELEMENT_LEN)
    }

    /// Returns an element of a leaf page; `number` is below `count`.
    pub(super) fn pair(&self, number: u32) -> Result<Pair<'a>, Damage> {
        let element = LeafElement::decode(self.element(number)?);
        let (start, record) =
            self.data(number, element.pos, u64::from(element.key_len) + u64::from(element.value_len))?;
        let key_len = usize::try_from(element.key_len).unwrap_or(usize::MAX);
        let (key, value) = record.split_at_checked(key_len).unwrap_or((record, &[]));
        let is_bucket = element.flags & ELEMENT_BUCKET != 0;
        Ok(Pair { key, value, record, is_bucket, offset: self.offset + start })
    }

    /// Returns the flags of a leaf element.
    pub(super) fn element_flags(&self, number: u32) -> u32 {
        self.element(number).map_or(0, |element| LeafElement::decode(element).flags)
    }

    /// Returns an element of a branch page; `number` is below `count`.
    pub(super) fn child(&self, number: u32) -> Result<Child<'a>, Damage> {
        let element = BranchElement::decode(self.element(number)?);
        let (start, key) = self.data(number, element.pos, u64::from(element.key_len))?;
        Ok(Child { key, page: element.page, offset: self.offset + start })
    }

    /// Returns the key of an element of either kind.
    pub(super) fn key(&self, number: u32) -> Result<&'a [u8], Damage> {
        match self.kind {
            Kind::Leaf => self.pair(number).map(|pair| pair.key),
            Kind::Branch => self.child(number).map(|child| child.key),
        }
    }

    fn element(&self, number: u32) -> Result<&'a [u8; 16], Damage> {
        let element = usize::try_from(number).ok().and_then(|number| self.elements.get(number));
        element.ok_or_else(|| Damage::new(self.offset, format!("the page has no element {number}")))
    }

    fn data(&self, number: u32, pos: u32, len: u64) -> Result<(u64, &'a [u8]), Damage> {
        let element = u64::from(HEADER_LEN) + u64::from(number) * u64::from(ELEMENT_LEN);
        let start = element + u64::from(pos);
        let inside = start >= self.elements_end() && start + len <= self.bytes.len() as u64;
        match cut(self.bytes, ByteOffset(start), len).filter(|_| inside) {
            Some(data) => Ok((start, data)),
            None => {
                Err(Damage::new(self.offset + element, format!("the data of element {number} are not inside the page")))
            }
        }
    }

    /// Returns the first element whose key is not below `key`.
    fn lower_bound(&self, key: &[u8]) -> Result<u32, Damage> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)? < key { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Returns the last element of a branch page whose key is not above `key`, or the first.
    fn child_for(&self, key: &[u8]) -> Result<u32, Damage> {
        let bound = self.lower_bound(key)?;
        if bound < self.count() && self.key(bound)? == key { Ok(bound) } else { Ok(bound.saturating_sub(1)) }
    }
}
