//! The recipe of etcd's guide ("Migrate applications from using API v2 to API v3"), as it is written: applications read v3
//! and then v2, and write and delete in v3 alone; a job copies each key that v3 has not; a switch key ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::apps::{Answer, Application, Command, keys};
use super::ops::Kind;
use crate::common::http;

const SWITCH: &str = "etcdlift/switch";

/// An application.
pub(super) struct Naive {
    pub(super) v3: SocketAddr,
    pub(super) v2: SocketAddr,
}

impl Application for Naive {
    fn ask(&mut self, command: &Command) -> Answer {
        self.run(command).unwrap_or(Answer::Unknown)
    }
}

impl Naive {
    fn run(&self, command: &Command) -> Option<Answer> {
        Some(match command {
            Command::Get(key) => Answer::Value(self.get(key)?),
            Command::List => {
                let values = keys().into_iter().map(|key| Some((self.get(&key)?, key)));
                let values: Option<Vec<_>> = values.collect();
                Answer::Values(values?.into_iter().filter_map(|(value, key)| Some((key, value?))).collect())
            }
            Command::Write(key, Kind::Put { value, ttl }) => {
                let lease = match ttl {
                    Some(ttl) => v3(self.v3, "lease/grant", &json!({ "TTL": ttl }))?["ID"].clone(),
                    None => json!(0),
                };
                let put = json!({ "key": encode(key), "value": encode(value), "lease": lease });
                v3(self.v3, "kv/put", &put).map(|_| Answer::Done)?
            }
            Command::Write(key, Kind::Delete) => {
                v3(self.v3, "kv/deleterange", &json!({ "key": encode(key) })).map(|_| Answer::Done)?
            }
            Command::Write(key, Kind::Swap { expected, value }) => self.swap(key, expected.as_deref(), value)?,
            Command::Write(_, Kind::Read(_)) => unreachable!(),
        })
    }

    fn get(&self, key: &str) -> Option<Option<String>> {
        match (get_v3(self.v3, key)?, get_v3(self.v3, SWITCH)?) {
            (None, None) => get_v2(self.v2, key),
            (found, _) => Some(found),
        }
    }

    fn swap(&self, key: &str, expected: Option<&str>, value: &str) -> Option<Answer> {
        let found = self.get(key)?;
        if found.as_deref() != expected {
            return Some(Answer::Found(found));
        }
        let compare = match get_v3(self.v3, key)? {
            Some(found) => json!({ "key": encode(key), "target": "VALUE", "value": encode(&found) }),
            None => json!({ "key": encode(key), "target": "CREATE", "create_revision": "0" }),
        };
        match put_if(self.v3, &compare, key, value)? {
            true => Some(Answer::Done),
            false => self.get(key).map(Answer::Found),
        }
    }
}

/// The job: copies until it is told to end.
pub(super) struct NaiveJob {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl NaiveJob {
    pub(super) fn start(v2: SocketAddr, v3: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                keys().iter().for_each(|key| copy(v2, v3, key));
                thread::sleep(Duration::from_millis(50));
            }
        });
        Self { thread, stop }
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Puts `true` into the switch key.
pub(super) fn switch(server: SocketAddr) {
    v3(server, "kv/put", &json!({ "key": encode(SWITCH), "value": encode("true") })).unwrap();
}

fn copy(v2: SocketAddr, v3: SocketAddr, key: &str) {
    if let Some(Some(value)) = get_v2(v2, key) {
        let absent = json!({ "key": encode(key), "target": "CREATE", "create_revision": "0" });
        put_if(v3, &absent, key, &value);
    }
}

fn put_if(server: SocketAddr, compare: &Value, key: &str, value: &str) -> Option<bool> {
    let put = json!({ "request_put": { "key": encode(key), "value": encode(value) } });
    let answer = v3(server, "kv/txn", &json!({ "compare": [compare], "success": [put] }))?;
    Some(answer["succeeded"] == true)
}

fn get_v3(server: SocketAddr, key: &str) -> Option<Option<String>> {
    let answer = v3(server, "kv/range", &json!({ "key": encode(key) }))?;
    let value = answer["kvs"][0].get("value").and_then(Value::as_str);
    Some(value.map(|value| String::from_utf8(STANDARD.decode(value).unwrap()).unwrap()))
}

fn get_v2(server: SocketAddr, key: &str) -> Option<Option<String>> {
    let answer = http::get(server, &format!("/v2/keys{key}?quorum=true")).ok()?;
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    match answer.status {
        200 => Some(body["node"]["value"].as_str().map(String::from)),
        404 => Some(None),
        _ => None,
    }
}

/// Asks the v3 API by its gateway.
pub(super) fn v3(server: SocketAddr, target: &str, request: &Value) -> Option<Value> {
    let answer = http::post(server, &format!("/v3/{target}"), None, &request.to_string()).ok()?;
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok())?
}

pub(super) fn encode(text: &str) -> String {
    STANDARD.encode(text)
}
