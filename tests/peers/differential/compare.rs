//! The answers of the API, compared with what etcdlift makes of the files, node by node.
//!
//! The rows of an output come from the `dump` peer, an independent reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use super::client::Written;
use super::listing::{Listing, Node, is_ambiguous};
use crate::common::convert::convert_to;
use crate::common::dump::Dump;
use crate::common::peers::Peers;
use crate::common::rows::Row;
use crate::common::run::etcdlift;
use crate::common::text::lossy;
use crate::common::v2files;

/// A data directory as etcdlift sees it.
#[derive(Debug)]
pub(super) struct Converted {
    /// Keys, and the markers of empty directories, whose names end in a slash.
    rows: Vec<Row>,
    /// When each key expires by its own TTL, by modified index.
    expirations: BTreeMap<u64, Timestamp>,
    report: Value,
    /// The v2 index of the snapshot that it began with; 0 without one.
    pub(super) snapshot_index: u64,
}

impl Converted {
    /// Converts a directory, with a marker for each empty directory, and looks into it.
    ///
    /// # Errors
    /// If etcdlift ends with another status than 0.
    pub(super) fn of(peers: &Peers, data_dir: &Path, folder: &Path, as_of: Timestamp) -> Result<Self, String> {
        let as_of = as_of.to_string();
        let options = ["--dirs", "marker", "--allow-empty", "--expired", "keep", "--as-of", &as_of];
        let converted = convert_to(data_dir, folder, options);
        if converted.output.status != 0 {
            return Err(converted.output.story());
        }
        let report: Value = serde_json::from_slice(&fs::read(&converted.report).unwrap()).unwrap();
        let inspected = etcdlift(["inspect".as_ref(), data_dir.as_os_str(), "--keys".as_ref(), "--json".as_ref()]);
        if inspected.status != 0 {
            return Err(inspected.story());
        }
        let keys = inspected.json();
        let expirations = keys["key_list"].as_array().unwrap().iter().filter_map(|line| {
            let at = line["expiration"].as_str()?.parse().unwrap();
            Some((line["modified"].as_u64().unwrap(), at))
        });
        let snapshot = report["source"]["snapshot_file"].as_str().map(PathBuf::from);
        Ok(Self {
            rows: Dump::of(peers, &converted.snapshot).rows(),
            expirations: expirations.collect(),
            snapshot_index: snapshot.map_or(0, |path| v2files::read_snapshot(&path).v2_index),
            report,
        })
    }

    pub(super) fn v2_index(&self) -> u64 {
        self.report["source"]["v2_index"].as_u64().unwrap()
    }

    /// The versions by whose rules it replayed the log.
    pub(super) fn rules(&self) -> &str {
        self.report["source"]["replay_rules"].as_str().unwrap()
    }

    fn count(&self, path: &str) -> u64 {
        let contents = self.report["contents"].pointer(path);
        contents.and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {}", self.report))
    }

    /// Every difference from a listing of the running server. A node whose time ran out before the server ended, at
    /// `end`, may be gone: the log may hold its expiry.
    pub(super) fn differences(&self, listing: &Listing, end: Timestamp) -> Vec<String> {
        let mut wrong = Vec::new();
        let shown: Vec<(String, Row)> = self.rows.iter().map(|row| (lossy(&row.key), shown(row))).collect();
        let there: BTreeSet<&str> = shown.iter().map(|(key, _)| key.as_str()).collect();
        let left = self.without_expired(listing, end, &there, &mut wrong);
        let tree = Expected::of(&left);
        let mut expected = tree.rows();
        let mut found: Vec<Row> = shown.into_iter().map(|(_, row)| row).collect();
        if tree.ambiguous {
            // If two directories have one name, the listing does not show which of them is empty.
            for rows in [&mut expected, &mut found] {
                rows.retain(|row| !row.key.ends_with(b"/"));
            }
        }
        wrong.extend(multiset_differences(expected, found));
        wrong.extend(tree.counts(self));
        for node in left.iter().filter(|node| !node.dir) {
            let expiration = self.expirations.get(&node.modified).copied();
            if expiration != node.expiration {
                wrong.push(format!("{:?} expires at {:?}, not {expiration:?}", node.key, node.expiration));
            }
        }
        wrong
    }

    /// The nodes that should remain. Checks that the index counts the expired ones.
    fn without_expired(
        &self,
        listing: &Listing,
        end: Timestamp,
        there: &BTreeSet<&str>,
        wrong: &mut Vec<String>,
    ) -> Vec<Node> {
        let files: BTreeSet<i64> =
            self.rows.iter().filter(|row| !row.key.ends_with(b"/")).map(|row| row.modified).collect();
        // A directory appears as a marker, or by its children.
        let has_rows = |dir: &str| there.range(format!("{dir}/").as_str()..).next().is_some_and(|key| below(key, dir));
        let is_there = |node: &Node| {
            if node.dir { has_rows(&node.key) } else { files.contains(&i64::try_from(node.modified).unwrap()) }
        };
        let due = listing.nodes.iter().filter(|node| node.expiration.is_some_and(|at| at <= end));
        let (stayed, gone): (Vec<_>, Vec<_>) = due.partition(|node| is_there(node));
        let in_gone = |node: &Node| gone.iter().any(|dir| dir.dir && below(&node.key, &dir.key));
        let tops: Vec<&&Node> = gone.iter().filter(|node| !in_gone(node)).collect();
        let earliest = stayed.iter().filter_map(|node| node.expiration).min();
        let latest = tops.iter().filter_map(|node| node.expiration).max();
        if earliest.is_some_and(|earliest| latest.is_some_and(|latest| earliest < latest)) {
            wrong.push(format!("of {stayed:?} and {gone:?}, those that stayed expired earlier"));
        }
        let counted = self.v2_index().checked_sub(listing.etcd_index);
        if !counted.is_some_and(|counted| (tops.len()..=gone.len()).contains(&(counted as usize))) {
            let index = self.v2_index();
            wrong.push(format!("v2 index {index} after {} and the expiry of {gone:?}", listing.etcd_index));
        }
        listing.nodes.iter().filter(|node| !gone.contains(node) && !in_gone(node)).cloned().collect()
    }

    /// Where the client knows the true bytes of a write in the log after the snapshot, the output must contain them.
    pub(super) fn wrong_bytes(&self, written: &BTreeMap<u64, Written>) -> Vec<String> {
        let mut wrong = Vec::new();
        for row in &self.rows {
            let modified = u64::try_from(row.modified).unwrap();
            let Some(write) = written.get(&modified).filter(|_| modified > self.snapshot_index) else { continue };
            let value_differs = write.value.as_ref().is_some_and(|value| *value != row.value);
            if !row.key.ends_with(b"/") && (row.key != write.key || value_differs) {
                wrong.push(format!("{write:?} was sent, {row:?} found"));
            }
        }
        wrong
    }

    /// Every difference from what a server serves that was started on these very files, at or before `end`. It may have
    /// dropped what expired; `mortal` lists what had a TTL before.
    pub(super) fn differences_after_restart(&self, listing: &Listing, mortal: &Listing, end: Timestamp) -> Vec<String> {
        let expired = |key: &str| {
            let mut due = mortal.nodes.iter().filter(|node| node.expiration.is_some_and(|at| at <= end));
            due.any(|node| node.key == key || below(key, &node.key))
        };
        let files = |rows: Vec<Row>| -> Vec<Row> {
            let files = rows.into_iter().filter(|row| !row.key.ends_with(b"/"));
            files.filter(|row| !expired(str::from_utf8(&row.key).unwrap())).collect()
        };
        let expected = Expected::of(&listing.nodes).rows();
        let found = self.rows.iter().map(shown).collect();
        let mut wrong = multiset_differences(files(expected), files(found));
        if listing.etcd_index < self.v2_index() {
            wrong.push(format!("v2 index {}, above {} after a restart", self.v2_index(), listing.etcd_index));
        }
        wrong
    }
}

/// What a listing should become.
struct Expected<'a> {
    nodes: &'a [Node],
    empty: Vec<&'a Node>,
    /// Two nodes show the same key.
    ambiguous: bool,
}

impl<'a> Expected<'a> {
    fn of(nodes: &'a [Node]) -> Self {
        let parents: BTreeSet<&str> =
            nodes.iter().filter_map(|node| node.key.rsplit_once('/')).map(|(parent, _)| parent).collect();
        let empty = nodes.iter().filter(|node| node.dir && !parents.contains(node.key.as_str())).collect();
        Self { nodes, empty, ambiguous: is_ambiguous(nodes) }
    }

    fn files(&self) -> impl Iterator<Item = &'a Node> + Clone {
        self.nodes.iter().filter(|node| !node.dir)
    }

    fn rows(&self) -> Vec<Row> {
        let row =
            |key: &str, node: &Node| Row::of_file(key.as_bytes(), node.value.as_bytes(), node.created, node.modified);
        let files = self.files().map(|node| row(&node.key, node));
        let markers = self.empty.iter().map(|node| row(&format!("{}/", node.key), node));
        files.chain(markers).collect()
    }

    /// The report's numbers, where they are wrong.
    fn counts(&self, converted: &Converted) -> Vec<String> {
        if self.ambiguous {
            return Vec::new();
        }
        let mortal: Vec<&Node> = self.nodes.iter().filter(|node| node.expiration.is_some()).collect();
        let with_ttl = |file: &&Node| mortal.iter().any(|node| node.key == file.key || below(&file.key, &node.key));
        let expected = [
            ("/keys", self.files().count()),
            ("/directories", self.nodes.len() - self.files().count()),
            ("/empty_directories", self.empty.len()),
            ("/hidden/keys", self.files().filter(|node| node.key.contains("/_")).count()),
            ("/ttl/keys", self.files().filter(with_ttl).count()),
        ];
        let wrong = expected.into_iter().filter(|(name, count)| converted.count(name) != *count as u64);
        wrong.map(|(name, count)| format!("{name} is {}, not {count}", converted.count(name))).collect()
    }
}

/// A row as the API would show it. Leases are not its matter.
fn shown(row: &Row) -> Row {
    let (key, value) = (lossy(&row.key).into_bytes(), lossy(&row.value).into_bytes());
    Row { key, value, lease: 0, ..row.clone() }
}

fn below(key: &str, dir: &str) -> bool {
    key.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// Keys may be there twice.
fn multiset_differences(expected: Vec<Row>, found: Vec<Row>) -> Vec<String> {
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by(|a, b| (&a.key, a.modified, a.create, &a.value).cmp(&(&b.key, b.modified, b.create, &b.value)));
        rows
    };
    let (expected, mut found) = (sorted(expected), sorted(found));
    let mut wrong = Vec::new();
    for row in expected {
        match found.iter().position(|other| *other == row) {
            Some(at) => drop(found.remove(at)),
            None => wrong.push(format!("missing: {}", row.show())),
        }
    }
    wrong.extend(found.iter().map(|row| format!("extra: {}", row.show())));
    wrong
}
