//! Events of a watch.

use jiff::Timestamp;
use serde::Deserialize;

use super::super::Node;
use super::time::expiry;
use crate::ids::V2Index;

/// An event as the API sends it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    action: String,
    node: EventNode,
    prev_node: Option<EventNode>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventNode {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    dir: bool,
    expiration: Option<String>,
    ttl: Option<i64>,
    #[serde(default)]
    created_index: u64,
    #[serde(default)]
    modified_index: u64,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A key has this value; its expiry is its own.
    Set(Node),
    /// A node is gone; a directory with its subtree.
    Gone {
        /// Its path.
        path: Vec<u8>,
        /// Whether it was a directory.
        dir: bool,
    },
    /// A directory exists with this expiry of its own.
    Dir {
        /// Its path.
        path: Vec<u8>,
        /// Its own expiry.
        expiry: Option<Timestamp>,
        /// Whether it replaced a file.
        was_file: bool,
        /// Whether it existed before, and may contain keys.
        was_dir: bool,
    },
}

impl Event {
    /// Returns the index of the change.
    pub(super) fn index(&self) -> V2Index {
        V2Index(self.node.modified_index)
    }

    /// Returns the bytes of memory that it takes.
    pub(super) fn weight(&self) -> usize {
        let of = |node: &EventNode| node.key.len() + node.value.as_ref().map_or(0, String::len);
        size_of::<Event>() + of(&self.node) + self.prev_node.as_ref().map_or(0, of)
    }

    /// Returns the word and the meaning of an event that arrived at this instant; `None` for an unknown word.
    pub(super) fn meaning(self, at: Timestamp) -> Option<(&'static str, Meaning)> {
        let word = ACTIONS.iter().find(|word| **word == self.action)?;
        let Event { node, prev_node, .. } = self;
        let expiry = expiry(node.ttl, node.expiration.as_deref(), at);
        let (created, modified) = (V2Index(node.created_index), V2Index(node.modified_index));
        let path = node.key.into_bytes();
        let meaning = match *word {
            "delete" | "compareAndDelete" | "expire" => {
                // An event without the node before says nothing about its kind.
                let dir = node.dir || prev_node.as_ref().is_none_or(|node| node.dir);
                Meaning::Gone { path, dir }
            }
            _ if node.dir => {
                let was_dir = prev_node.as_ref().is_some_and(|node| node.dir);
                Meaning::Dir { path, expiry, was_file: prev_node.is_some() && !was_dir, was_dir }
            }
            _ => Meaning::Set(Node {
                path,
                value: node.value.unwrap_or_default().into_bytes(),
                created,
                modified,
                expiry,
            }),
        };
        Some((word, meaning))
    }
}

const ACTIONS: [&str; 7] = ["set", "create", "update", "compareAndSwap", "delete", "compareAndDelete", "expire"];

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(text: &str) -> (u64, &'static str, Meaning) {
        let event: Event = serde_json::from_str(text).unwrap();
        let index = event.index().0;
        let (word, meaning) = event.meaning(Timestamp::from_second(100).unwrap()).unwrap();
        (index, word, meaning)
    }

    #[test]
    fn events_of_keys_and_directories_mean_what_they_leave() {
        let set = r#"{"action":"set","node":{"key":"/a","value":"v","expiration":"2000-01-01T00:00:00Z","ttl":7,
            "modifiedIndex":9,"createdIndex":9},"prevNode":{"key":"/a","value":"u","modifiedIndex":8,"createdIndex":8}}"#;
        let node = Node {
            path: b"/a".to_vec(),
            value: b"v".to_vec(),
            created: V2Index(9),
            modified: V2Index(9),
            expiry: Some(Timestamp::from_second(107).unwrap()),
        };
        assert_eq!(meaning(set), (9, "set", Meaning::Set(node)));

        let expire = r#"{"action":"expire","node":{"key":"/d","dir":true,"modifiedIndex":5,"createdIndex":2},
            "prevNode":{"key":"/d","dir":true,"modifiedIndex":2,"createdIndex":2}}"#;
        assert_eq!(meaning(expire), (5, "expire", Meaning::Gone { path: b"/d".to_vec(), dir: true }));
        let delete = r#"{"action":"delete","node":{"key":"/a","modifiedIndex":7,"createdIndex":3},"prevNode":{"key":"/a",
            "value":"v","modifiedIndex":3,"createdIndex":3}}"#;
        assert_eq!(meaning(delete), (7, "delete", Meaning::Gone { path: b"/a".to_vec(), dir: false }));

        let dir = |prev: &str| {
            let text = format!(
                r#"{{"action":"set","node":{{"key":"/d","dir":true,"modifiedIndex":6,"createdIndex":6}}{prev}}}"#
            );
            meaning(&text).2
        };
        let expected = |was_file, was_dir| Meaning::Dir { path: b"/d".to_vec(), expiry: None, was_file, was_dir };
        assert_eq!(dir(""), expected(false, false));
        assert_eq!(dir(r#","prevNode":{"key":"/d","value":""}"#), expected(true, false));
        assert_eq!(dir(r#","prevNode":{"key":"/d","dir":true}"#), expected(false, true));
    }

    #[test]
    fn an_unknown_word_has_no_meaning() {
        let event: Event = serde_json::from_str(r#"{"action":"get","node":{"key":"/a"}}"#).unwrap();
        assert!(event.meaning(Timestamp::UNIX_EPOCH).is_none());
    }
}
