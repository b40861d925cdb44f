//! The result of `lookup` in an index map, as data and as text.
//!
//! Keys that are not UTF-8 are in base64. If nothing is found, a note says what the map proves, and never guesses. Must
//! not know the tables of the map.

use serde::Serialize;

use super::ledger::text_or_base64;
use crate::display::short;
use crate::export::index_map::{Entry, Found, Query};
use crate::options::Revisions;
use crate::report::table::Table;

/// The answer to one query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The path of the index map.
    pub file: String,
    /// The output that the map belongs to.
    pub map: MapFacts,
    /// The query.
    pub query: Asked,
    /// The pairs that were found, sorted by revision.
    pub found: Vec<Line>,
    /// What the map proves, if nothing was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The output that an index map belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapFacts {
    /// The sha256 of the output, in lower-case hex.
    pub output_sha256: String,
    /// The numbering. `keep`: each v3 revision is the v2 modified index. `dense`: revisions are consecutive numbers.
    pub numbering: Revisions,
    /// The v2 index of the converted state.
    pub v2_index: u64,
    /// The current revision of the output; later writes have greater ones.
    pub revision: i64,
    /// The revision below which history counts as compacted; 0 for no compaction.
    pub compact_revision: i64,
}

/// A query; exactly one field is present.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Asked {
    /// A v2 index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_index: Option<u64>,
    /// A v3 revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// A v2 or v3 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
}

/// A pair of the output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Line {
    /// The main revision.
    pub revision: i64,
    /// The sub revision; not 0 only if nodes share an index.
    pub sub_revision: u64,
    /// The v3 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The v3 key in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Whether the pair deletes the key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The modified index of its v2 node; absent for preserved v3 data and for pairs that a transformer added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_index: Option<u64>,
    /// The v2 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_key: Option<String>,
    /// The v2 key in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_key_base64: Option<String>,
    /// Whether the pair is the marker of an empty directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dir: bool,
}

impl Answer {
    /// Creates the answer from what was found in a map.
    pub(crate) fn new(file: &std::path::Path, query: &Query, found: &Found) -> Answer {
        let facts = &found.facts;
        let map = MapFacts {
            output_sha256: facts.output_sha256.clone(),
            numbering: facts.numbering,
            v2_index: facts.v2_index.0,
            revision: facts.revision.0,
            compact_revision: facts.compact_revision.0,
        };
        let query = match query {
            Query::V2Index(index) => Asked { v2_index: Some(*index), ..Asked::default() },
            Query::Revision(revision) => Asked { revision: Some(*revision), ..Asked::default() },
            Query::Key(key) => {
                let (key, key_base64) = text_or_base64(key);
                Asked { key, key_base64, ..Asked::default() }
            }
        };
        let note = found.entries.is_empty().then(|| note(&query, &map));
        Answer {
            file: file.display().to_string(),
            map,
            query,
            found: found.entries.iter().map(Line::new).collect(),
            note,
        }
    }

    /// Returns aligned lines for people: a paragraph for each pair, then the output of the map.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.found {
            text.push_str(&format!("{}\n", line.table()));
        }
        let mut table = Table::new();
        table.maybe("not found", self.note.as_ref());
        table.line("numbering", self.map.numbering);
        table.line("v2 index", self.map.v2_index);
        table.line("v3 revision", self.map.revision);
        table.line("compacted below", self.map.compact_revision);
        table.line("output sha256", &self.map.output_sha256);
        text + &table.to_string()
    }
}

/// Returns what the map proves about something that it does not contain.
fn note(query: &Asked, map: &MapFacts) -> String {
    let MapFacts { v2_index, revision, compact_revision, .. } = *map;
    let state =
        format!("later v3 writes follow revision {revision}; revisions before {compact_revision} are compacted");
    match query {
        Asked { v2_index: Some(asked), .. } if *asked > v2_index => {
            format!("v2 index {asked} is after the converted state, which ends at v2 index {v2_index}; {state}")
        }
        Asked { v2_index: Some(asked), .. } => format!(
            "no key of the output has the modified index {asked}: no key changed there, or it has changed since, or it is left out; \
             {state}"
        ),
        Asked { revision: Some(asked), .. } if i64::try_from(*asked).map_or(true, |asked| asked > revision) => {
            format!("revision {asked} is after the output; {state}")
        }
        Asked { revision: Some(asked), .. } => format!("no pair of the output has revision {asked}; {state}"),
        Asked { key, key_base64, .. } => {
            let key = key.as_ref().or(key_base64.as_ref()).map_or(String::new(), |key| short(key));
            format!("no pair of the output has the v3 or v2 name {key} (a ledger lists what was left out); {state}")
        }
    }
}

impl Line {
    fn new(entry: &Entry<'_>) -> Line {
        let (key, key_base64) = text_or_base64(&entry.key);
        let mut line = Line {
            revision: entry.revision.0,
            sub_revision: entry.sub,
            key,
            key_base64,
            deleted: entry.deleted,
            ..Line::default()
        };
        if let Some(node) = &entry.node {
            line.v2_index = Some(node.index.0);
            (line.v2_key, line.v2_key_base64) = text_or_base64(&node.key);
            line.dir = node.dir;
        }
        line
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.maybe("key", self.key.as_ref());
        table.maybe("key (base64)", self.key_base64.as_ref());
        let sub = if self.sub_revision == 0 { String::new() } else { format!(", sub revision {}", self.sub_revision) };
        let deleted = if self.deleted { ", which deletes it" } else { "" };
        table.line("revision", format!("{}{sub}{deleted}", self.revision));
        let Some(index) = self.v2_index else {
            table.line("v2", "none: it does not come from a v2 key");
            return table;
        };
        table.maybe("v2 key", self.v2_key.as_ref());
        table.maybe("v2 key (base64)", self.v2_key_base64.as_ref());
        table.line("v2 index", format!("{index}{}", if self.dir { ", of an empty directory" } else { "" }));
        table
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::path::Path;

    use super::*;
    use crate::export::index_map::{Facts, Origin};
    use crate::ids::{Revision, V2Index};

    fn facts() -> Facts {
        let (revision, compact_revision) = (Revision(9), Revision(9));
        Facts { numbering: Revisions::Dense, v2_index: V2Index(51), revision, compact_revision, ..Facts::default() }
    }

    #[test]
    fn found_entries_are_printed() {
        let node = Origin { index: V2Index(40), key: Cow::Borrowed(b"/d"), dir: true };
        let entry = |key: &'static [u8], node| Entry {
            revision: Revision(3),
            sub: 1,
            deleted: false,
            key: Cow::Borrowed(key),
            node,
        };
        let found = Found { facts: facts(), entries: vec![entry(b"/d/", Some(node)), entry(b"\xff", None)] };
        let answer = Answer::new(Path::new("m"), &Query::Revision(3), &found);
        let json = serde_json::to_value(&answer).unwrap();
        let first = r#"{"revision":3,"sub_revision":1,"key":"/d/","v2_index":40,"v2_key":"/d","dir":true}"#;
        let second = r#"{"revision":3,"sub_revision":1,"key_base64":"/w=="}"#;
        let lines = [first, second].map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        assert_eq!(json["found"], serde_json::json!(lines));
        assert!(json.get("note").is_none());
        let text = answer.text();
        assert!(text.contains("revision:  3, sub revision 1\n") && text.contains("of an empty directory"), "{text}");
    }

    #[test]
    fn missing_entries_are_not_guessed() {
        let found = Found { facts: facts(), entries: Vec::new() };
        let note = |query: Query| Answer::new(Path::new("m"), &query, &found).note.unwrap();
        assert!(note(Query::V2Index(52)).contains("ends at v2 index 51"));
        assert!(note(Query::V2Index(51)).contains("it has changed since"));
        assert!(note(Query::Revision(10)).contains("after the output"));
        assert!(note(Query::Revision(u64::MAX)).contains("after the output"));
        assert!(note(Query::Revision(9)).contains("no pair"));
        for query in [Query::V2Index(1), Query::Revision(1), Query::Key(b"a".to_vec())] {
            assert!(note(query).ends_with("later v3 writes follow revision 9; revisions before 9 are compacted"));
        }
    }
}
