//! The full structural check of a bbolt file: everything that `bbolt check` tests, and more.
//!
//! docs/formats.md section 8.9, with 8.3 for the freelist. In addition to `bbolt check`: element keys equal the first
//! key of their child; positions and sizes are in the page; data are contiguous; keys are not empty. Inline buckets,
//! page headers and the file length must be valid too. Continues after damage and lists it. [`Strictness::Own`] also
//! requires what only the writer of this crate guarantees: no unused page, and no nonzero byte that is not data. Must
//! not know etcd.

use super::damage::Damage;
use super::format::{
    ELEMENT_BUCKET, ELEMENT_LEN, FLAG_FREELIST, FLAG_META, FREELIST_ABSENT, FREELIST_LONG, HEADER_LEN, META_LEN,
    PAGE_SIZE, PageHeader,
};
use super::read::{Db, Kind, Page, Pair, Root, Tree};
use crate::count::{bytes, counted};
use crate::ids::{ByteOffset, PageId};
use crate::limits::{MAX_BOLT_DEPTH, MAX_BOLT_KEY};

/// Maximum number of stored findings; further findings are only counted.
const MAX_FINDINGS: usize = 100;

/// The strictness of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// The rules of every sound bbolt file.
    Any,
    /// Also the rules of this crate's writer: dense, no freelist, unused bytes zero, both meta pages equal.
    Own,
}

/// The findings and counts of the check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// The faults in the order of discovery, at most 100.
    pub findings: Vec<Damage>,
    /// Number of further faults.
    pub more_findings: u64,
    /// Number of leaf pages in use.
    pub leaf_pages: u64,
    /// Number of branch pages in use.
    pub branch_pages: u64,
    /// Number of overflow pages of both.
    pub overflow_pages: u64,
    /// Number of pages in the freelist.
    pub free_pages: u64,
    /// Number of pages that are neither in use nor in the freelist. In a file without a freelist, they are free.
    pub unreachable_pages: u64,
    /// Number of buckets with pages of their own, without the root bucket.
    pub buckets: u64,
    /// Number of buckets inside the page of their parent.
    pub inline_buckets: u64,
    /// Number of pairs in all buckets; a bucket counts as a pair.
    pub pairs: u64,
    /// Number of levels of the deepest tree.
    pub depth: usize,
}

impl Check {
    /// Returns whether there are no findings.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// Returns the counts of a sound file.
    ///
    /// # Errors
    /// The first finding.
    pub fn sound(self) -> Result<Check, Damage> {
        match self.findings.first() {
            None => Ok(self),
            Some(first) if self.findings.len() == 1 => Err(first.clone()),
            Some(first) => {
                let others = self.findings.len() as u64 - 1 + self.more_findings;
                Err(Damage::new(
                    first.offset,
                    format!("{} (and {})", first.message, counted(others, "more finding", "more findings")),
                ))
            }
        }
    }

    fn push(&mut self, damage: Damage) {
        if self.findings.len() < MAX_FINDINGS { self.findings.push(damage) } else { self.more_findings += 1 }
    }
}

/// Checks a whole file.
pub fn check(db: &Db<'_>, strictness: Strictness) -> Check {
    let pages = db.meta().hwm.0;
    let own = strictness == Strictness::Own;
    let mut checker = Checker {
        db,
        own,
        in_use: PageSet::new(pages),
        free: PageSet::new(pages),
        trees: vec![db.root()],
        in_root: true,
        out: Check::default(),
    };
    checker.metas();
    checker.freelist();
    while let Some(tree) = checker.trees.pop() {
        checker.tree(&tree);
        checker.in_root = false;
    }
    checker.unreachable();
    checker.out
}

struct Checker<'d, 'a> {
    db: &'d Db<'a>,
    own: bool,
    in_use: PageSet,
    free: PageSet,
    /// Pending buckets. Each has pages of its own, so there are at most as many as pages.
    trees: Vec<Tree<'a>>,
    /// Whether the current bucket is the root bucket.
    in_root: bool,
    out: Check,
}

/// A branch page whose children are being checked.
struct Frame<'a> {
    page: Page<'a>,
    next: u32,
    /// All keys in it must be lower than this.
    upper: Option<&'a [u8]>,
}

impl<'a> Checker<'_, 'a> {
    fn find(&mut self, offset: ByteOffset, message: impl Into<String>) {
        self.out.push(Damage::new(offset, message));
    }

    fn metas(&mut self) {
        let page_size = u64::from(self.db.meta().page_size);
        for (id, meta) in (0..).zip(*self.db.metas()) {
            self.in_use.insert(id);
            let offset = PageId(id).offset(self.db.meta().page_size);
            let page = self.db.bytes(offset, page_size);
            match page.first_chunk::<16>().map(PageHeader::decode) {
                _ if meta.is_none() => self.find(offset, format!("meta page {id} is not valid")),
                Some(PageHeader { id: PageId(found), flags: FLAG_META, count: 0, overflow: 0 }) if found == id => {}
                _ => self.find(offset, format!("the header of meta page {id} is wrong")),
            }
            if self.own {
                self.unused(page, offset, u64::from(HEADER_LEN + META_LEN));
            }
        }
        if !self.own {
            return;
        }
        let chosen = *self.db.meta();
        if chosen.page_size != PAGE_SIZE || chosen.flags != 0 || chosen.root.sequence != 0 {
            self.find(
                ByteOffset(0),
                "expected the page size, flags and sequence that etcdlift writes in the meta pages, found others",
            );
        }
        for (id, meta) in (0..).zip(*self.db.metas()) {
            if let Some(meta) = meta
                && (super::format::Meta { txid: chosen.txid, ..meta } != chosen || meta.txid != id)
            {
                self.find(
                    PageId(id).offset(chosen.page_size),
                    "expected equal meta pages with the transactions 0 and 1, found others",
                );
            }
        }
        if self.db.body().len() as u64 != self.db.size() {
            let message = format!("expected a file of {}, found {}", bytes(self.db.size()), self.db.body().len());
            self.find(ByteOffset(self.db.size()), message);
        }
    }

    /// Reads the freelist, if the file has one.
    fn freelist(&mut self) {
        let id = self.db.meta().freelist;
        if id == FREELIST_ABSENT {
            return;
        }
        if self.own {
            self.find(ByteOffset(0), "expected no freelist, found one");
        }
        let (header, bytes, offset) = match self.db.run(id) {
            Ok(run) => run,
            Err(damage) => return self.out.push(damage),
        };
        self.mark_used(id, u64::from(header.overflow) + 1, offset);
        if header.flags != FLAG_FREELIST {
            return self.find(offset + 8, format!("expected a freelist page, found flags {:#06x}", header.flags));
        }
        let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).skip(2);
        let (skip, count) = match header.count {
            FREELIST_LONG => (1, words.clone().next().unwrap_or(0)),
            count => (0, u64::from(count)),
        };
        if count > words.len().saturating_sub(skip) as u64 {
            return self.find(
                offset + 10,
                format!("the freelist has no room for {}", counted(count, "page number", "page numbers")),
            );
        }
        let mut last = 1;
        for page in words.skip(skip).take(usize::try_from(count).unwrap_or(usize::MAX)) {
            if page <= last || page >= self.db.meta().hwm.0 {
                self.find(offset, format!("freelist: page {page} is out of order, a duplicate or not in the file"));
            } else {
                self.free.insert(page);
                self.out.free_pages += 1;
            }
            last = last.max(page);
        }
    }

    /// Checks one bucket with pages of its own.
    fn tree(&mut self, tree: &Tree<'a>) {
        let Root::Page(root) = *tree.root_place() else { return };
        let mut stack = Vec::new();
        let mut leaf_depth = None;
        let mut enter = self.enter(root, None, None, true);
        loop {
            match enter {
                Some(frame) if frame.page.kind == Kind::Leaf => {
                    let depth = stack.len() + 1;
                    self.out.depth = self.out.depth.max(depth);
                    if *leaf_depth.get_or_insert(depth) != depth && self.own {
                        self.find(frame.page.offset, "the leaves of a tree are not all on one level");
                    }
                }
                Some(frame) if stack.len() + 1 < MAX_BOLT_DEPTH => stack.push(frame),
                Some(frame) => self.find(frame.page.offset, format!("the tree has more than {MAX_BOLT_DEPTH} levels")),
                None => {}
            }
            let Some(frame) = stack.last_mut() else { return };
            if frame.next >= frame.page.count() {
                stack.pop();
                enter = None;
                continue;
            }
            let (child, after) = (frame.page.child(frame.next), frame.next + 1);
            let upper = match frame.page.child(after) {
                Ok(sibling) if after < frame.page.count() => Some(sibling.key),
                _ => frame.upper,
            };
            frame.next = after;
            // An unreadable child was a finding when the page was entered.
            enter = child.ok().and_then(|child| self.enter(child.page, Some(child.key), upper, false));
        }
    }

    /// Checks one page and its relation to the parent: its first key is `first`, all its keys are below `upper`.
    fn enter(&mut self, id: PageId, first: Option<&[u8]>, upper: Option<&'a [u8]>, root: bool) -> Option<Frame<'a>> {
        let page = match self.db.page(id) {
            Ok(page) => page,
            Err(damage) => {
                self.out.push(damage);
                return None;
            }
        };
        if !self.mark_used(id, u64::from(page.header.overflow) + 1, page.offset) {
            return None;
        }
        self.out.overflow_pages += u64::from(page.header.overflow);
        match page.kind {
            Kind::Leaf => self.out.leaf_pages += 1,
            Kind::Branch => self.out.branch_pages += 1,
        }
        if page.count() == 0 && !(root && page.kind == Kind::Leaf) {
            self.find(page.offset + 10, "expected a page with elements, found none");
        }
        if page.count() == 1 && page.kind == Kind::Branch && self.own {
            self.find(page.offset + 10, "a branch page with one child");
        }
        if page.header.count == u16::MAX {
            self.find(page.offset + 10, "a page with 65535 elements");
        }
        if let (Some(expected), Ok(found)) = (first, page.key(0))
            && expected != found
        {
            self.find(page.offset, format!("the first key of page {id} differs from the key in its parent"));
        }
        let used = self.elements(&page, upper, false);
        if self.own && used.div_ceil(u64::from(PAGE_SIZE)).max(1) != u64::from(page.header.overflow) + 1 {
            self.find(page.offset + 12, "a page has more or fewer overflow pages than it needs");
        }
        Some(Frame { page, next: 0, upper })
    }

    /// Checks the elements of a page, their order, and that all keys are below `upper`. Returns the number of used
    /// bytes.
    fn elements(&mut self, page: &Page<'a>, upper: Option<&[u8]>, inline: bool) -> u64 {
        let mut end = page.offset + page.elements_end();
        let mut last: Option<&[u8]> = None;
        for number in 0..page.count() {
            let element = page.offset + u64::from(HEADER_LEN) + u64::from(number) * u64::from(ELEMENT_LEN);
            let (key, start, len) = match self.element(page, number, element, inline) {
                Ok(found) => found,
                Err(damage) => {
                    self.out.push(damage);
                    continue;
                }
            };
            if start != end {
                self.find(element, "the data of an element do not start at the end of the data before them");
            }
            end = end.max(start + len);
            if key.is_empty() || key.len() as u64 > u64::from(MAX_BOLT_KEY) {
                self.find(element, format!("expected a key of 1 to 32768 bytes, found {}", bytes(key.len() as u64)));
            }
            if last.is_some_and(|last| last >= key) {
                self.find(start, "the keys of a page do not ascend");
            }
            last = Some(key);
        }
        if let (Some(last), Some(upper)) = (last, upper)
            && last >= upper
        {
            self.find(page.offset, "a key is not below the key of the next page");
        }
        if self.own {
            self.unused(page.bytes, page.offset, end - page.offset);
        }
        end - page.offset
    }

    /// Checks one element. Returns its key, the offset of its data, and their length.
    fn element(
        &mut self,
        page: &Page<'a>,
        number: u32,
        offset: ByteOffset,
        inline: bool,
    ) -> Result<(&'a [u8], ByteOffset, u64), Damage> {
        if page.kind == Kind::Branch {
            let child = page.child(number)?;
            return Ok((child.key, child.offset, child.key.len() as u64));
        }
        let pair = page.pair(number)?;
        self.out.pairs += 1;
        match page.element_flags(number) {
            0 if self.in_root && !inline => self.find(offset, "a plain value in the root bucket"),
            0 => {}
            ELEMENT_BUCKET if inline => self.find(offset, "a bucket inside an inline bucket"),
            ELEMENT_BUCKET => self.bucket(&pair),
            flags => self.find(offset, format!("an element with flags {flags:#x}")),
        }
        Ok((pair.key, pair.offset, pair.record.len() as u64))
    }

    fn bucket(&mut self, pair: &Pair<'a>) {
        let tree = match self.db.open_bucket(pair) {
            Ok(tree) => tree,
            Err(damage) => return self.out.push(damage),
        };
        if self.own && tree.sequence() != 0 {
            self.find(pair.value_offset() + 8, "a bucket with a sequence");
        }
        match tree.root_place() {
            Root::Page(_) => {
                self.out.buckets += 1;
                if self.own && pair.value.len() != 16 {
                    self.find(pair.value_offset(), "a bucket value that is longer than its header");
                }
                self.trees.push(tree);
            }
            Root::Inline(page) => {
                self.out.inline_buckets += 1;
                if page.kind != Kind::Leaf || page.header.id != PageId(0) || page.header.overflow != 0 {
                    self.find(page.offset, "the page header of an inline bucket is wrong");
                }
                if page.kind == Kind::Leaf {
                    let used = self.elements(page, None, true);
                    if self.own && used != page.bytes.len() as u64 {
                        self.find(page.offset, "an inline bucket is longer than its data");
                    }
                }
            }
        }
    }

    /// Marks pages as used. Returns false, and stops, at a page that was marked before. So all calls together mark each
    /// page once.
    fn mark_used(&mut self, id: PageId, pages: u64, offset: ByteOffset) -> bool {
        for page in id.0..id.0.saturating_add(pages) {
            if !self.in_use.insert(page) {
                self.find(offset, format!("page {page} is used twice"));
                return false;
            }
            if self.free.contains(page) {
                self.find(offset, format!("page {page} is in use and in the freelist"));
            }
        }
        true
    }

    fn unreachable(&mut self) {
        let pages = self.db.meta().hwm.0;
        let mut first = None;
        for page in 2..pages {
            if !self.in_use.contains(page) && !self.free.contains(page) {
                self.out.unreachable_pages += 1;
                first.get_or_insert(page);
            }
        }
        let no_freelist = self.db.meta().freelist == FREELIST_ABSENT;
        if let Some(page) = first.filter(|_| self.own || !no_freelist) {
            let message = format!(
                "{} neither in use nor free, page {page} first",
                counted(self.out.unreachable_pages, "page is", "pages are")
            );
            self.find(PageId(page).offset(self.db.meta().page_size), message);
        }
    }

    /// Checks that all bytes after `used` are zero.
    fn unused(&mut self, page: &[u8], offset: ByteOffset, used: u64) {
        let tail = usize::try_from(used).ok().and_then(|used| page.get(used..)).unwrap_or_default();
        if let Some(at) = tail.iter().position(|byte| *byte != 0) {
            self.find(offset + used + at as u64, "expected zero after the data of a page, found another byte");
        }
    }
}

/// A set of page numbers below the high-water mark, which is at most the number of pages in the file.
struct PageSet(Vec<u64>);

impl PageSet {
    fn new(pages: u64) -> Self {
        PageSet(vec![0; usize::try_from(pages / 64 + 1).unwrap_or(0)])
    }

    /// Returns whether the page was not in the set.
    fn insert(&mut self, page: u64) -> bool {
        match usize::try_from(page / 64).ok().and_then(|word| self.0.get_mut(word)) {
            Some(word) => {
                let fresh = *word >> (page % 64) & 1 == 0;
                *word |= 1 << (page % 64);
                fresh
            }
            None => false,
        }
    }

    fn contains(&self, page: u64) -> bool {
        let word = usize::try_from(page / 64).ok().and_then(|word| self.0.get(word));
        word.is_some_and(|word| word >> (page % 64) & 1 == 1)
    }
}
