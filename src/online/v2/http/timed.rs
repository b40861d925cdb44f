//! The nodes with a TTL. A watch does not show that a TTL was refreshed, so each is read again before it ends.
//!
//! Must not know how a node is read.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The shortest time between two reads of one node.
const SHORTEST: Duration = Duration::from_millis(300);

/// Nodes with a TTL of their own.
#[derive(Debug, Default)]
pub(super) struct Timed {
    nodes: BTreeMap<Vec<u8>, Known>,
    due: BTreeSet<(Instant, Vec<u8>)>,
}

/// What is known of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// When it expires by itself.
    pub(super) expiry: Timestamp,
    /// A hash of its value.
    value: u64,
    /// Whether it is a directory.
    pub(super) dir: bool,
    due: Instant,
}

impl Timed {
    /// Records a node, or that it has no TTL.
    pub(super) fn set(&mut self, path: &[u8], expiry: Option<Timestamp>, value: &[u8], dir: bool) {
        self.forget(path);
        let Some(expiry) = expiry else { return };
        let due = Instant::now() + until(expiry);
        self.nodes.insert(path.to_vec(), Known { expiry, value: hash(value), dir, due });
        self.due.insert((due, path.to_vec()));
    }

    /// Records that a node is as it was, so that it is read again later.
    pub(super) fn again(&mut self, path: &[u8]) {
        if let Some(known) = self.nodes.get_mut(path) {
            self.due.remove(&(known.due, path.to_vec()));
            known.due = Instant::now() + until(known.expiry);
            self.due.insert((known.due, path.to_vec()));
        }
    }

    /// Forgets a node and everything below it.
    pub(super) fn remove(&mut self, path: &[u8]) {
        self.forget(path);
        let below = if path == b"/" { b"/".to_vec() } else { [path, b"/"].concat() };
        let range = self.nodes.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
        let paths: Vec<Vec<u8>> = range.map(|(path, _)| path.clone()).collect();
        paths.iter().for_each(|path| self.forget(path));
    }

    fn forget(&mut self, path: &[u8]) {
        if let Some((path, known)) = self.nodes.remove_entry(path) {
            self.due.remove(&(known.due, path));
        }
    }

    /// Returns what is known of a node.
    pub(super) fn get(&self, path: &[u8]) -> Option<Known> {
        self.nodes.get(path).copied()
    }

    /// Returns the earliest expiry of the directories above a path.
    pub(super) fn above(&self, path: &[u8]) -> Option<Timestamp> {
        if self.nodes.is_empty() {
            return None;
        }
        let above = memchr::memchr_iter(b'/', path).filter_map(|at| path.get(..at));
        above.filter_map(|dir| self.nodes.get(dir)).filter(|known| known.dir).map(|known| known.expiry).min()
    }

    /// Takes a node that must be read again now. Recording it again sets its next time.
    pub(super) fn take_due(&mut self) -> Option<(Vec<u8>, Known)> {
        let (due, _) = self.due.first()?;
        if *due > Instant::now() {
            return None;
        }
        let (_, path) = self.due.pop_first()?;
        let known = self.nodes.get(&path).copied()?;
        Some((path, known))
    }
}

impl Known {
    /// Returns whether the node has this value.
    pub(super) fn has_value(&self, value: &[u8]) -> bool {
        self.value == hash(value)
    }
}

fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Returns the time until the next read: half of the rest, which leaves time for what must be done then.
fn until(expiry: Timestamp) -> Duration {
    let rest = expiry.duration_since(Timestamp::now());
    Duration::try_from(rest).unwrap_or_default().div_f64(2.0).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_directory_takes_what_is_below_it() {
        let mut timed = Timed::default();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        for (path, second, dir) in
            [("/a", 9, true), ("/a/b", 5, true), ("/a/b/c", 7, false), ("/ab", 3, false), ("/a!", 1, false)]
        {
            timed.set(path.as_bytes(), at(second), b"", dir);
        }
        assert_eq!(timed.above(b"/a/b/c"), at(5));
        assert_eq!(timed.above(b"/a/x"), at(9));
        assert_eq!(timed.above(b"/ab/x"), None, "a file has nothing below it");
        timed.remove(b"/a");
        assert_eq!(timed.nodes.keys().collect::<Vec<_>>(), [&b"/a!"[..], b"/ab"]);
        assert_eq!(timed.due.len(), 2);
        timed.set(b"/ab", None, b"", false);
        assert_eq!(timed.due.len(), 1);
    }

    #[test]
    fn a_node_is_due_before_it_expires_and_once() {
        let mut timed = Timed::default();
        timed.set(b"/soon", Some(Timestamp::now()), b"", false);
        timed.set(b"/later", Some(Timestamp::now() + jiff::SignedDuration::from_secs(60)), b"", false);
        assert!(timed.take_due().is_none());
        std::thread::sleep(SHORTEST);
        assert_eq!(timed.take_due().unwrap().0, b"/soon");
        assert!(timed.take_due().is_none());
    }
}
