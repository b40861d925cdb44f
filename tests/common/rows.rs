//! What a v3 store should hold for a v2 tree: one row a file node, with the
//! v2 indexes as revisions. And the comparison of two sets of rows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::corpus::Scenario;
use super::truth::Node;
use super::v2files;

/// A key in a v3 store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub lease: i64,
}

impl Row {
    /// What a v2 file becomes when it gets no lease.
    pub fn of_file(key: &[u8], value: &[u8], created: u64, modified: u64) -> Self {
        Self {
            key: key.to_vec(),
            value: value.to_vec(),
            create: i64::try_from(created).unwrap(),
            modified: i64::try_from(modified).unwrap(),
            version: 1,
            lease: 0,
        }
    }

    pub fn of_node(node: &Node) -> Self {
        let value = node.value.as_deref().unwrap_or_default();
        let (created, modified) = (node.created_index, node.modified_index);
        Self::of_file(node.key.as_bytes(), value.as_bytes(), created, modified)
    }

    /// All fields on one line, with a truncated value.
    pub fn show(&self) -> String {
        let head = &self.value[..self.value.len().min(40)];
        format!(
            "{:?} = {:?} ({} bytes) create {} mod {} version {} lease {}",
            self.key.escape_ascii().to_string(),
            head.escape_ascii().to_string(),
            self.value.len(),
            self.create,
            self.modified,
            self.version,
            self.lease
        )
    }
}

/// The rows that one data directory of a scenario should give, with TTLs counted from the instant of capture: keys that
/// have expired then are gone, and the others have a lease for each distinct number of seconds left.
///
/// The API, and so the truth, shows U+FFFD for bytes that are not UTF-8. So
/// does a `.snap`; only data that is in the log alone still has its bytes.
pub fn expected(scenario: &Scenario, data_dir: &str) -> Vec<Row> {
    expected_at(scenario, data_dir, &scenario.truth.captured_at)
}

/// As [`expected`], with TTLs counted from another instant (RFC 3339).
pub fn expected_at(scenario: &Scenario, data_dir: &str, as_of: &str) -> Vec<Row> {
    let snapshot = v2files::newest_snapshot(&scenario.data_dir(data_dir));
    let in_snapshot = snapshot.map_or(0, |snapshot| snapshot.v2_index);
    let writes = scenario.truth.raw_utf8_writes.iter();
    let raw: BTreeMap<u64, _> = writes
        .filter(|write| write.status < 300)
        .filter_map(|write| Some((write.modified_index?, write)))
        .filter(|(index, _)| *index > in_snapshot)
        .collect();
    let nodes = scenario.truth.nodes_of(data_dir).iter();
    let (lengths, all) = (lease_lengths_at(scenario, data_dir, as_of), scenario.truth.nodes_of(data_dir));
    let seconds = |node: &Node| seconds_left(all, &node.key, as_of);
    let files = nodes.filter(|node| !node.dir && seconds(node).is_none_or(|left| left > 0)).map(|node| {
        let mut row = Row::of_node(node);
        let place = seconds(node).and_then(|left| lengths.iter().position(|length| *length == left.max(2)));
        row.lease = place.map_or(0, |place| i64::try_from(place).unwrap() + 1);
        if let Some(write) = raw.get(&node.modified_index) {
            row.key.clone_from(&write.key);
            row.value.clone_from(&write.value);
        }
        row
    });
    files.collect()
}

/// The leases of those rows, in seconds; the first has the id 1.
pub fn lease_lengths(scenario: &Scenario, data_dir: &str) -> Vec<i64> {
    lease_lengths_at(scenario, data_dir, &scenario.truth.captured_at)
}

/// As [`lease_lengths`], counted from another instant.
pub fn lease_lengths_at(scenario: &Scenario, data_dir: &str, as_of: &str) -> Vec<i64> {
    let nodes = scenario.truth.nodes_of(data_dir);
    let left = |node: &Node| seconds_left(nodes, &node.key, as_of);
    let alive = nodes.iter().filter(|node| !node.dir).filter_map(left).filter(|left| *left > 0);
    alive.map(|left| left.max(2)).collect::<BTreeSet<i64>>().into_iter().collect()
}

/// Seconds that a key has left, rounded up: by its own expiration, or an earlier one of a directory that it is in.
fn seconds_left(nodes: &[Node], key: &str, as_of: &str) -> Option<i64> {
    let as_of: Timestamp = as_of.parse().unwrap();
    let above = |node: &&Node| key == node.key || key.strip_prefix(&node.key).is_some_and(|rest| rest.starts_with('/'));
    let expirations = nodes.iter().filter(above).filter_map(|node| node.expiration.as_ref());
    let first = expirations.map(|at| at.parse::<Timestamp>().unwrap()).min()?;
    let left = first.as_nanosecond() - as_of.as_nanosecond();
    Some(i64::try_from(left.div_euclid(1_000_000_000) + i128::from(left.rem_euclid(1_000_000_000) > 0)).unwrap())
}

/// Every difference, in words; none means that both hold the same rows.
pub fn differences(expected: &[Row], actual: &[Row]) -> Vec<String> {
    const SHOWN: usize = 12;
    let mut found = Vec::new();
    let expected = by_key(expected, "expected", &mut found);
    let actual = by_key(actual, "actual", &mut found);
    for (key, row) in &expected {
        match actual.get(key) {
            None => found.push(format!("missing: {}", row.show())),
            Some(other) if other != row => {
                found.push(format!("expected {}\n     got {}", row.show(), other.show()));
            }
            Some(_) => {}
        }
    }
    let extra = actual.iter().filter(|(key, _)| !expected.contains_key(*key));
    found.extend(extra.map(|(_, row)| format!("extra: {}", row.show())));
    let more = found.len().saturating_sub(SHOWN);
    if more > 0 {
        found.truncate(SHOWN);
        found.push(format!("and {more} more"));
    }
    found
}

fn by_key<'a>(rows: &'a [Row], whose: &str, found: &mut Vec<String>) -> BTreeMap<&'a [u8], &'a Row> {
    let mut map = BTreeMap::new();
    for row in rows {
        if map.insert(row.key.as_slice(), row).is_some() {
            found.push(format!("twice in {whose}: {}", row.show()));
        }
    }
    map
}
