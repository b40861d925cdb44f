//! A check of the transformer's pairs against the limits of a v3 store and against the sent nodes.
//!
//! docs/formats.md 12.1, 12.2 (flaw 10), 13.2. A pair belongs to the file node whose modified index equals its mod
//! revision. Data that it has in common with that node is not stored twice. Must not know processes, or how an answer
//! arrived.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};

use crate::count::bytes as bytes_of;
use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::{LeaseId, Revision};
use crate::limits;
use crate::mvcc::KeyValue;
use crate::transformer::listing::Listing;
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree};

/// One pair of a transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Its mod revision.
    pub modified: Revision,
    /// Its create revision.
    pub create: Revision,
    /// Its version.
    pub version: i64,
    /// Its lease; 0 for the lease of its node.
    pub lease: LeaseId,
    /// The file whose modified index equals its mod revision.
    pub node: Option<NodeRef>,
    /// Its key, if it differs from that of the node.
    pub key: Option<Box<[u8]>>,
    /// Its value, if it differs from that of the node.
    pub value: Option<Box<[u8]>>,
}

/// All pairs of a transformer.
#[derive(Debug, Default)]
pub struct Answers {
    /// Sorted by mod revision, which is unique.
    pub pairs: Vec<Pair>,
}

/// The sent file nodes, by their modified index.
#[derive(Debug)]
pub(super) struct Files {
    by_index: HashMap<u64, NodeRef>,
}

impl Files {
    pub(super) fn of(tree: &Tree<'_>, listing: &Listing) -> Files {
        let files = listing.nodes().iter().filter(|node| !tree.is_dir(**node));
        let mut by_index = HashMap::with_capacity(listing.len());
        for node in files {
            // If files of a store share an index (not written by etcd), their pairs cannot be told apart.
            by_index.entry(tree.modified(*node).0).or_insert(*node);
        }
        Files { by_index }
    }
}

/// The size of answers in bytes that is always allowed.
const FLOOR: u64 = 64 << 20;
/// The maximum ratio of answers to sent bytes.
const FACTOR: u64 = 16;
/// The overhead of a pair besides key and value, in bytes.
const PAIR: u64 = 128;

/// The pairs of all processes, in the order of their arrival.
pub(super) struct Collected<'a, 'm> {
    tree: &'a Tree<'m>,
    files: Files,
    pub(super) pairs: Vec<Pair>,
    revisions: HashSet<i64>,
    /// The mod revision of each key, by two hashes of the key.
    keys: HashMap<[u64; 2], i64>,
    hashers: [DefaultHashBuilder; 2],
    /// Number of bytes sent to all processes.
    sent: u64,
    /// Number of bytes of their answers, with [`PAIR`] for each pair.
    answered: u64,
    limit: Option<u64>,
    memory: Option<u64>,
}

impl<'a, 'm> Collected<'a, 'm> {
    /// Creates an empty collection with a limit of `limit` bytes of answers, and of `memory` bytes of memory.
    pub(super) fn new(tree: &'a Tree<'m>, files: Files, limit: Option<u64>, memory: Option<u64>) -> Self {
        Collected {
            tree,
            files,
            pairs: Vec::new(),
            revisions: HashSet::new(),
            keys: HashMap::new(),
            hashers: Default::default(),
            sent: 0,
            answered: 0,
            limit,
            memory,
        }
    }

    /// Adds to the number of sent bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Adds to the number of answered bytes.
    ///
    /// # Errors
    /// The number is above the limit.
    pub(super) fn answered(&mut self, bytes: u64) -> Result<(), String> {
        self.answered = self.answered.saturating_add(bytes);
        if !self.is_over_limit() {
            return Ok(());
        }
        let limit = self.answer_limit();
        Err(format!(
            "expected answers of up to {} for the {} that it received, found more",
            bytes_of(limit),
            bytes_of(self.sent)
        ))
    }

    /// Returns the maximum number of answered bytes.
    fn answer_limit(&self) -> u64 {
        self.limit.unwrap_or_else(|| self.sent.saturating_mul(FACTOR).max(FLOOR))
    }

    /// Returns whether the answers are above the limit.
    pub(super) fn is_over_limit(&self) -> bool {
        self.answered > self.answer_limit()
    }

    /// Checks the memory of the answers.
    ///
    /// # Errors
    /// [`Reason::MemoryLimit`].
    pub(super) fn fits(&self) -> Result<()> {
        match self.memory.filter(|memory| self.answered > *memory) {
            Some(memory) => {
                let message =
                    format!("expected answers of up to {}, which --memory-limit allows, found more", bytes_of(memory));
                Err(Error::new(Reason::MemoryLimit, message).hint("raise it, or run it on a larger machine"))
            }
            None => Ok(()),
        }
    }

    /// Accepts a pair if a v3 store could contain it, alone and together with the earlier pairs.
    pub(super) fn push(&mut self, kv: &KeyValue<'_>) -> Result<(), String> {
        check(kv).map_err(|what| format!("key {}: {what}", name(kv.key)))?;
        self.answered(PAIR)?;
        let modified = kv.mod_revision.0;
        if !self.revisions.insert(modified) {
            let other = self.pairs.iter().find(|pair| pair.modified.0 == modified);
            let other = other.map(|pair| name(&key_of(self.tree, pair))).unwrap_or_default();
            return Err(format!(
                "expected one pair at each mod_revision, found {other} and {} at {modified}",
                name(kv.key)
            ));
        }
        // v2 has one state of each key. Two pairs of one key would need consistent versions. Two keys never have both
        // hashes equal in practice.
        let hash = self.hashers.each_ref().map(|hasher| hasher.hash_one(kv.key));
        if let Some(other) = self.keys.insert(hash, modified) {
            return Err(format!(
                "expected each key once, found {} at the mod_revisions {} and {}",
                name(kv.key),
                other.min(modified),
                other.max(modified)
            ));
        }
        let node = self.files.by_index.get(&modified.cast_unsigned()).copied();
        let key_of = |node| *path::user_key(&self.tree.path(node)) == *kv.key;
        let value_of = |node| self.tree.value_len(node) == kv.value.len() && *self.tree.value(node) == *kv.value;
        self.pairs.push(Pair {
            modified: kv.mod_revision,
            create: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            node,
            key: (!node.is_some_and(key_of)).then(|| kv.key.into()),
            value: (!node.is_some_and(value_of)).then(|| kv.value.into()),
        });
        Ok(())
    }

    /// Returns all pairs at the end.
    ///
    /// # Errors
    /// [`Reason::TransformerFailed`] if a pair names a lease that `is_lease` does not know.
    pub(super) fn finish(self, is_lease: &dyn Fn(LeaseId) -> bool) -> Result<Answers> {
        let Collected { tree, mut pairs, .. } = self;
        pairs.sort_by_key(|pair| pair.modified);
        if let Some(pair) = pairs.iter().find(|pair| pair.lease != LeaseId(0) && !is_lease(pair.lease)) {
            let message = format!(
                "key {}: expected lease 0 (that of its node) or one of the conversion's leases, found {}",
                name(&key_of(tree, pair)),
                pair.lease.0
            );
            return Err(refused(message));
        }
        Ok(Answers { pairs })
    }
}

fn check(kv: &KeyValue<'_>) -> Result<(), String> {
    let (create, modified) = (kv.create_revision.0, kv.mod_revision.0);
    let in_range = |revision: i64| u64::try_from(revision).is_ok_and(|r| (1..=limits::MAX_REVISION).contains(&r));
    if kv.key.is_empty() {
        Err("expected a name, found none".into())
    } else if !in_range(modified) {
        Err(format!("expected a mod_revision from 1 to 2^62, found {modified}"))
    } else if !in_range(create) || create > modified {
        Err(format!("expected a create_revision from 1 to its mod_revision {modified}, found {create}"))
    } else if kv.version < 1 {
        Err(format!("expected a version of at least 1, found {}", kv.version))
    } else if kv.lease.0 < 0 {
        Err(format!("expected a lease of 0 or above, found {}", kv.lease.0))
    } else {
        Ok(())
    }
}

fn key_of<'t>(tree: &'t Tree<'_>, pair: &'t Pair) -> std::borrow::Cow<'t, [u8]> {
    match (&pair.key, pair.node) {
        (Some(key), _) => (&**key).into(),
        (None, Some(node)) => match tree.path(node) {
            std::borrow::Cow::Borrowed(path) => path::user_key(path).into(),
            std::borrow::Cow::Owned(path) => path::user_key(&path).to_vec().into(),
        },
        (None, None) => std::borrow::Cow::default(),
    }
}

pub(super) fn refused(message: String) -> Error {
    Error::new(Reason::TransformerFailed, message).context("the transformer's answers cannot be used")
}

fn name(key: &[u8]) -> String {
    short(&String::from_utf8_lossy(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupt;
    use crate::transformer::listing::{Choice, listing};
    use crate::v2store::json;

    const STORE: &str = r#"{"Root":{"Path":"/","Children":{"1":{"Path":"/1","Children":{
        "a":{"Path":"/1/a","Value":"va","CreatedIndex":4,"ModifiedIndex":5},
        "d":{"Path":"/1/d","CreatedIndex":6,"ModifiedIndex":6,"Children":{
            "b":{"Path":"/1/d/b","Value":"\n","CreatedIndex":6,"ModifiedIndex":6}}}}}}},"CurrentIndex":7}"#;

    fn kv(key: &'static str, value: &'static str, create: i64, modified: i64) -> KeyValue<'static> {
        let (create_revision, mod_revision) = (Revision(create), Revision(modified));
        let (key, value) = (key.as_bytes(), value.as_bytes());
        KeyValue { key, value, create_revision, mod_revision, version: 1, lease: LeaseId(0) }
    }

    fn collected<T>(limit: Option<u64>, check: impl FnOnce(Collected<'_, '_>) -> T) -> T {
        let table = json::read(STORE.as_bytes()).unwrap();
        let mut tree = Tree::new(&table);
        let root = tree.lookup(b"/1").unwrap();
        let choice = Choice { file: &|_| true, bare_dir: &|_, _| true };
        let files = Files::of(&tree, &listing(&tree, root, &choice, Interrupt::default()).unwrap());
        check(Collected::new(&tree, files, limit, None))
    }

    fn gathered(kvs: &[KeyValue<'_>]) -> Result<Vec<Pair>, String> {
        collected(None, |mut collected| {
            kvs.iter().try_for_each(|kv| collected.push(kv))?;
            collected.finish(&|id| id == LeaseId(3)).map(|answers| answers.pairs).map_err(|e| e.to_string())
        })
    }

    #[test]
    fn answers_are_bounded_by_what_was_sent() {
        collected(None, |mut collected| {
            assert!(collected.answered(FLOOR).is_ok() && collected.answered(1).is_err());
            collected.sent(10 << 20);
            assert!(collected.answered(0).is_ok());
            let error = collected.answered(FACTOR * (10 << 20)).unwrap_err();
            assert!(
                error.starts_with("expected answers of up to 167772160 bytes for the 10485760 bytes that"),
                "{error}"
            );
        });
        collected(Some(2 * PAIR), |mut collected| {
            assert!(collected.push(&kv("/a", "", 4, 5)).is_ok() && collected.push(&kv("/b", "", 4, 6)).is_ok());
            assert!(collected.push(&kv("/c", "", 4, 7)).unwrap_err().contains("found more"));
        });
    }

    #[test]
    fn values_of_nodes_are_not_stored_twice() {
        let pairs = gathered(&[kv("new", "", 9, 9), kv("/d/B", "\n", 6, 6), kv("/a", "v", 4, 5)]).unwrap();
        let text = |bytes: &Option<Box<[u8]>>| bytes.as_ref().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let kept: Vec<_> =
            pairs.iter().map(|p| format!("{} {:?} {:?}", p.modified, text(&p.key), text(&p.value))).collect();
        assert_eq!(kept, [r#"5 None Some("v")"#, r#"6 Some("/d/B") None"#, r#"9 Some("new") Some("")"#]);
        assert_eq!(pairs.iter().filter(|pair| pair.node.is_some()).count(), 2);
    }

    #[test]
    fn answers_beyond_the_limits_are_refused() {
        let lease = |id| KeyValue { lease: LeaseId(id), ..kv("/a", "", 4, 5) };
        assert!(gathered(&[lease(3)]).is_ok());
        for (kvs, expected) in [
            (vec![kv("", "", 4, 5)], "expected a name, found none"),
            (vec![kv("k", "", 4, 0)], "expected a mod_revision from 1 to 2^62, found 0"),
            (vec![kv("k", "", 4, -5)], "found -5"),
            (vec![kv("k", "", 4, (1 << 62) + 1)], "found 4611686018427387905"),
            (vec![kv("k", "", 6, 5)], "expected a create_revision from 1 to its mod_revision 5, found 6"),
            (vec![kv("k", "", 0, 5)], "found 0"),
            (vec![KeyValue { version: 0, ..kv("k", "", 4, 5) }], "expected a version of at least 1, found 0"),
            (vec![lease(-1)], "expected a lease of 0 or above, found -1"),
            (vec![lease(4)], "key /a: expected lease 0 (that of its node) or one of the conversion's leases, found 4"),
            (vec![kv("k", "", 4, 5), kv("l", "", 4, 5)], "found k and l at 5"),
            (vec![kv("/a", "", 4, 5), kv("/a", "", 4, 6)], "found /a at the mod_revisions 5 and 6"),
        ] {
            let error = gathered(&kvs).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
