//! The random client: which request it sends next, and what it remembers of earlier ones.
//!
//! Its numbers come from the seed of the session. Must not know what etcdlift makes of the requests.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::words::Words;
use crate::common::http::Response;
use crate::common::random::Random;
use crate::connection::Call;

/// Seconds whose nanoseconds do not fit an `i64`, or only just.
const HUGE_TTLS: [&str; 5] = ["9223372036", "9223372037", "10000000000", "100000000000", "18446744073709551615"];

/// How often a kind of request is drawn, and what makes one.
type Kind = (usize, fn(&mut Client) -> Call);

const KINDS: [Kind; 13] = [
    (22, Client::set),
    (9, Client::create),
    (9, Client::update),
    (6, Client::make_directory),
    (10, Client::post),
    (13, Client::compare_and_swap),
    (5, Client::compare_and_delete),
    (7, Client::delete),
    (6, Client::delete_directory),
    (7, Client::refresh),
    (6, Client::change_ttl),
    (4, Client::recreate),
    (3, Client::read),
];

#[derive(Debug)]
pub(super) struct Client {
    random: Random,
    words: Words,
    /// Every key that a request named, in the order of the first.
    pub(super) touched: Vec<Vec<u8>>,
    known: BTreeSet<Vec<u8>>,
    /// What the server last said of a key.
    seen: BTreeMap<Vec<u8>, Seen>,
    deleted: Vec<Vec<u8>>,
    /// What each successful write of a file sent, by its index.
    pub(super) written: BTreeMap<u64, Written>,
    /// Whether any name or value was not UTF-8.
    pub(super) sent_bad_bytes: bool,
    /// What came of the requests: actions of the API, error codes, or else the HTTP status.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Nodes that expired between two requests.
    pub(super) expired: u64,
    /// The server's index, since it last started.
    index: Option<u64>,
}

#[derive(Clone, Debug)]
struct Seen {
    modified: u64,
    value: Vec<u8>,
}

/// The true bytes of a write.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) key: Vec<u8>,
    /// Not known of a refresh.
    pub(super) value: Option<Vec<u8>>,
}

impl Client {
    pub(super) fn new(mut random: Random) -> Self {
        let words = Words::new(&mut random);
        Self {
            random,
            words,
            touched: Vec::new(),
            known: BTreeSet::new(),
            seen: BTreeMap::new(),
            deleted: Vec::new(),
            written: BTreeMap::new(),
            sent_bad_bytes: false,
            outcomes: BTreeMap::new(),
            expired: 0,
            index: None,
        }
    }

    pub(super) fn next(&mut self) -> Call {
        let mut at = self.random.below(KINDS.iter().map(|(weight, _)| weight).sum());
        let kind = KINDS.iter().find(|(weight, _)| match at.checked_sub(*weight) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        });
        let mut call = kind.unwrap().1(self);
        call.escaped_slash = self.random.chance(5);
        self.touch(&call.path);
        let parts = call.parameters.iter().map(|(_, value)| value).chain([&call.path]);
        self.sent_bad_bytes |= parts.into_iter().any(|bytes| str::from_utf8(bytes).is_err());
        call
    }

    /// A file or a directory that goes within a second or so.
    pub(super) fn next_mortal(&mut self) -> Call {
        let path = self.path();
        let call = if self.random.chance(70) {
            Call::new("PUT", &path).with("value", self.value())
        } else {
            Call::new("PUT", &path).with("dir", "true").with("prevExist", self.random.pick(&["true", "false"]))
        };
        self.touch(&path);
        call.with("ttl", "1")
    }

    fn touch(&mut self, path: &[u8]) {
        if path != b"/" && self.known.insert(path.to_vec()) {
            self.touched.push(path.to_vec());
        }
    }
}

/// Requests.
impl Client {
    fn set(&mut self) -> Call {
        let path = self.path();
        self.put(&path)
    }

    fn create(&mut self) -> Call {
        let path = self.path();
        if self.random.chance(20) {
            let call = Call::new("PUT", &path).with("prevExist", "false").with("dir", "true");
            return self.maybe_ttl(call);
        }
        self.put(&path).with("prevExist", "false")
    }

    fn update(&mut self) -> Call {
        let path = self.used_path();
        if self.random.chance(25) {
            let call = Call::new("PUT", &path).with("prevExist", "true").with("dir", "true");
            return self.maybe_ttl(call);
        }
        self.put(&path).with("prevExist", "true")
    }

    fn make_directory(&mut self) -> Call {
        let path = self.path();
        let call = Call::new("PUT", &path).with("dir", "true");
        self.maybe_ttl(call)
    }

    fn post(&mut self) -> Call {
        let path = self.path();
        let call = Call::new("POST", &path);
        let call = if self.random.chance(15) { call.with("dir", "true") } else { call.with("value", self.value()) };
        self.maybe_ttl(call)
    }

    fn compare_and_swap(&mut self) -> Call {
        let path = self.used_path();
        let call = self.put(&path);
        let call = self.conditions(call);
        match self.random.below(10) {
            0..2 => call.with("prevExist", "true"),
            2 => call.with("prevExist", "false"),
            _ => call,
        }
    }

    fn compare_and_delete(&mut self) -> Call {
        let path = self.used_path();
        let call = Call::new("DELETE", &path);
        let call = self.conditions(call);
        if self.random.chance(15) { call.with("recursive", "true") } else { call }
    }

    fn delete(&mut self) -> Call {
        let path = self.used_path();
        self.deleted.push(path.clone());
        Call::new("DELETE", &path)
    }

    fn delete_directory(&mut self) -> Call {
        let mut path = self.used_path();
        if self.random.chance(30)
            && let Some(at) = path.iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0)
        {
            path.truncate(at);
        }
        self.deleted.push(path.clone());
        let call = Call::new("DELETE", &path);
        match self.random.below(3) {
            0 => call.with("dir", "true"),
            1 => call.with("recursive", "true"),
            _ => call.with("dir", "true").with("recursive", "true"),
        }
    }

    /// A new TTL for an existing node, with or without conditions.
    fn refresh(&mut self) -> Call {
        let path = self.used_path();
        let ttl = self.ttl();
        let call = Call::new("PUT", &path).with("ttl", ttl).with("refresh", "true");
        match self.random.below(5) {
            0 => call,
            1 | 2 => self.conditions(call),
            3 => self.conditions(call).with("prevExist", "true"),
            _ => call.with("prevExist", "true"),
        }
    }

    /// Takes the TTL away, or gives one, by an update.
    fn change_ttl(&mut self) -> Call {
        let path = self.used_path();
        let call = Call::new("PUT", &path).with("prevExist", "true");
        let call = if self.random.chance(30) { call.with("dir", "true") } else { call.with("value", self.value()) };
        match self.random.below(3) {
            0 => call.with("ttl", ""),
            1 => call.with("ttl", self.ttl()),
            _ => call,
        }
    }

    /// Puts something where something was deleted: a file or a directory, or a key below it.
    fn recreate(&mut self) -> Call {
        if self.deleted.is_empty() {
            return self.set();
        }
        let path = self.random.pick(&self.deleted);
        match self.random.below(3) {
            0 => self.put(&path),
            1 => Call::new("PUT", &path).with("dir", "true"),
            _ => {
                let path = self.below(&path);
                self.put(&path)
            }
        }
    }

    fn read(&mut self) -> Call {
        let path = self.path();
        Call::new("GET", &path).with("quorum", if self.random.chance(50) { "true" } else { "false" })
    }

    fn put(&mut self, path: &[u8]) -> Call {
        let call = Call::new("PUT", path).with("value", self.value());
        // A value with `dir` is allowed, and no use.
        let call = if self.random.chance(2) { call.with("dir", "true") } else { call };
        self.maybe_ttl(call)
    }

    /// `prevValue`, `prevIndex` or both, which hold or do not.
    fn conditions(&mut self, call: Call) -> Call {
        let seen = self.seen.get(&call.path).cloned();
        let met = self.random.chance(65);
        let (mut value, mut index) = match seen {
            Some(seen) => (seen.value, seen.modified),
            None => (self.value(), 7),
        };
        let which = self.random.below(3);
        if !met {
            if which != 1 {
                value = self.value();
            } else {
                index = index.saturating_sub(1).max(1);
            }
        }
        match which {
            0 => call.with("prevValue", value),
            1 => call.with("prevIndex", index.to_string()),
            _ => call.with("prevValue", value).with("prevIndex", index.to_string()),
        }
    }
}

/// Parts of requests.
impl Client {
    fn value(&mut self) -> Vec<u8> {
        self.words.value(&mut self.random)
    }

    fn maybe_ttl(&mut self, call: Call) -> Call {
        if self.random.chance(38) { call.with("ttl", self.ttl()) } else { call }
    }

    fn ttl(&mut self) -> Vec<u8> {
        let ttl = match self.random.below(20) {
            0 => "0".into(),
            1 => String::new(),
            2 => self.random.pick(&HUGE_TTLS).into(),
            3..9 => "1".into(),
            9..12 => "2".into(),
            12 => self.random.between(3, 6).to_string(),
            _ => self.random.between(600, 400_000_000).to_string(),
        };
        ttl.into_bytes()
    }

    /// A key that was named before, most of the time.
    fn used_path(&mut self) -> Vec<u8> {
        if self.touched.is_empty() || self.random.chance(8) {
            return self.path();
        }
        // Recent ones are more likely to be there.
        let back = if self.random.chance(50) { self.touched.len().min(12) } else { self.touched.len() };
        let at = self.touched.len() - 1 - self.random.below(back);
        self.touched[at].clone()
    }

    fn path(&mut self) -> Vec<u8> {
        match self.random.below(100) {
            0 => b"/".to_vec(),
            1 => (0..self.random.between(10, 30)).fold(Vec::new(), |path, _| self.below(&path)),
            2..45 if !self.touched.is_empty() => self.random.pick(&self.touched),
            45..65 if !self.touched.is_empty() => {
                let mut path = self.random.pick(&self.touched);
                // Mostly next to it: it may be a file.
                if self.random.chance(75) {
                    path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap());
                }
                self.below(&path)
            }
            _ => (0..self.random.between(1, 3)).fold(Vec::new(), |path, _| self.below(&path)),
        }
    }

    fn below(&mut self, path: &[u8]) -> Vec<u8> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        [path, &b"/"[..], &self.words.name(&mut self.random)].concat()
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    error_code: Option<u64>,
    action: String,
    node: Node,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    key: String,
    dir: bool,
    modified_index: u64,
}

impl Client {
    /// Remembers what the server made of a request.
    pub(super) fn learn(&mut self, call: &Call, response: &Response) {
        let answer: Option<Answer> = serde_json::from_slice(&response.body).ok();
        let outcome = match &answer {
            Some(Answer { error_code: Some(code), .. }) => code.to_string(),
            Some(answer) => answer.action.clone(),
            None => format!("HTTP {}", response.status),
        };
        *self.outcomes.entry(outcome).or_default() += 1;
        let changed = response.status < 300 && call.method != "GET";
        self.count_expired(response, changed);
        let Some(answer) = answer.filter(|_| changed) else { return };
        let mut key = call.path.clone();
        if call.method == "DELETE" {
            self.seen.remove(&key);
            return;
        }
        if call.method == "POST" {
            let name = answer.node.key.rsplit('/').next().unwrap();
            key = [key.strip_suffix(b"/").unwrap_or(&key), &b"/"[..], name.as_bytes()].concat();
            self.touch(&key);
        }
        if answer.node.dir {
            return;
        }
        let value = match call.parameter("value") {
            _ if call.says("refresh") => None,
            value => Some(value.unwrap_or_default().to_vec()),
        };
        let modified = answer.node.modified_index;
        let before = self.seen.get(&key).map(|seen| seen.value.clone());
        let now = value.clone().or(before).unwrap_or_default();
        self.seen.insert(key.clone(), Seen { modified, value: now });
        self.written.insert(modified, Written { key, value });
    }

    /// What the index counts besides the requests.
    fn count_expired(&mut self, response: &Response, changed: bool) {
        let index = response.header("X-Etcd-Index").and_then(|index| index.parse::<u64>().ok());
        // A bad request does not get as far as to the store.
        let Some(index) = index.filter(|index| *index > 0) else { return };
        let before = self.index.replace(index);
        self.expired += before.map_or(0, |before| index - before - u64::from(changed));
    }

    /// The server writes a little of its own when it starts.
    pub(super) fn restarted(&mut self) {
        self.index = None;
    }
}
