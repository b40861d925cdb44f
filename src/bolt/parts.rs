//! The pairs of a bucket in parts, for several threads: cut where branch pages are, so that no pair is read to find a
//! part.
//!
//! All parts of one bucket share one budget of pages, so together they read no more than a walk over the bucket. Must not
//! know what the pairs mean.

use super::damage::Damage;
use super::read::{Budget, Cursor, Db, Kind, Page, Tree};
use crate::limits::MAX_BOLT_DEPTH;

/// A number of parts for all threads: enough that the last part keeps no thread waiting.
pub const PARTS: usize = 256;

/// A number of parts of which this fraction is enough.
const FEW: usize = 16;

/// Consecutive pairs of a bucket.
#[derive(Debug)]
pub struct Part<'a> {
    /// The number of pairs of the bucket before them.
    pub first: u64,
    /// The number of pairs.
    pub len: u64,
    /// The size of their leaf pages in bytes.
    pub bytes: u64,
    /// The pairs, in file order.
    pub pairs: Cursor<'a>,
}

impl<'a> Tree<'a> {
    /// Cuts the pairs into about `wanted` parts in file order: there may be more, and a sixteenth is enough where the next cut
    /// is at every leaf page. There are fewer if the bucket has fewer leaf pages.
    ///
    /// # Errors
    /// A page above the pairs is damaged, or the header of a leaf page.
    pub fn parts(&self, wanted: usize) -> Result<Vec<Part<'a>>, Damage> {
        let db = self.db();
        let root = self.root_page()?;
        let (mut budget, parts_budget) = (Budget::new(db), Budget::new(db));
        let (mut pages, mut is_root) = (vec![root], true);
        for _ in 0..MAX_BOLT_DEPTH {
            if pages.len() >= wanted || pages.iter().any(|page| page.kind == Kind::Leaf) {
                break;
            }
            let mut below = Vec::new();
            for page in &pages {
                children(db, page, &mut budget, |child| below.push(child))?;
            }
            // A leaf page without overflow pages is a small part, and there may be a hundred times more of them.
            let is_small = |page: &Page<'_>| page.kind == Kind::Leaf && page.header.overflow == 0;
            if pages.len() >= wanted.div_ceil(FEW) && below.iter().all(is_small) {
                break;
            }
            (pages, is_root) = (below, false);
        }
        let mut parts = Vec::new();
        let (mut first, mut budget) = (0, Budget::new(db));
        for page in pages {
            let (len, bytes) = pairs_below(db, page, &mut budget)?;
            // The page of an inline bucket has no number.
            let pairs = if is_root { self.iter() } else { Cursor::below(db, page.header.id, &parts_budget) };
            parts.push(Part { first, len, bytes, pairs });
            first += len;
        }
        Ok(parts)
    }
}

/// Passes on the pages directly below a branch page.
fn children<'a>(
    db: &Db<'a>,
    page: &Page<'a>,
    budget: &mut Budget,
    mut take: impl FnMut(Page<'a>),
) -> Result<(), Damage> {
    for number in 0..page.count() {
        let child = db.page(page.child(number)?.page)?;
        budget.spend(&child)?;
        take(child);
    }
    Ok(())
}

/// Counts the pairs below a page, and the bytes of their leaf pages, by the headers of these.
fn pairs_below<'a>(db: &Db<'a>, top: Page<'a>, budget: &mut Budget) -> Result<(u64, u64), Damage> {
    let (mut pairs, mut bytes) = (0, 0);
    let mut pages = vec![top];
    while let Some(page) = pages.pop() {
        match page.kind {
            Kind::Leaf => {
                pairs += u64::from(page.count());
                bytes += page.bytes.len() as u64;
            }
            Kind::Branch => children(db, &page, budget, |child| pages.push(child))?,
        }
    }
    Ok((pairs, bytes))
}
