//! What a v3 store should hold for a v2 tree: one row a file node, with the
//! v2 indexes as revisions. And the comparison of two sets of rows.

use std::collections::BTreeMap;

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

    /// All of it on one line, the value cut short.
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

/// The rows that one data directory of a scenario should give.
///
/// The API, and so the truth, shows U+FFFD for bytes that are not UTF-8. So
/// does a `.snap`; only what stands in the log alone still has its bytes.
pub fn expected(scenario: &Scenario, data_dir: &str) -> Vec<Row> {
    let snapshot = v2files::newest_snapshot(&scenario.data_dir(data_dir));
    let in_snapshot = snapshot.map_or(0, |snapshot| snapshot.v2_index);
    let writes = scenario.truth.raw_utf8_writes.iter();
    let raw: BTreeMap<u64, _> = writes
        .filter(|write| write.status < 300)
        .filter_map(|write| Some((write.modified_index?, write)))
        .filter(|(index, _)| *index > in_snapshot)
        .collect();
    let nodes = scenario.truth.nodes_of(data_dir).iter();
    let files = nodes.filter(|node| !node.dir).map(|node| {
        let mut row = Row::of_node(node);
        if let Some(write) = raw.get(&node.modified_index) {
            row.key.clone_from(&write.key);
            row.value.clone_from(&write.value);
        }
        row
    });
    files.collect()
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
