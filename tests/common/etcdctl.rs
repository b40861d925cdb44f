//! etcdctl against one running server: the calls that tests make, with JSON
//! answers.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::peers::Peers;
use super::rows::Row;
use super::run::{Output, bounded, run};
use super::scratch;
use super::server::Server;
use super::tls::Certificates;

const SECONDS: u32 = 60;

#[derive(Debug)]
pub struct Etcdctl {
    program: PathBuf,
    endpoint: String,
    /// `NAME:PASSWORD`.
    user: Option<String>,
    tls: Option<Certificates>,
}

impl Etcdctl {
    pub fn new(peers: &Peers, server: &Server) -> Self {
        Self::at(peers, server.client_address(), None)
    }

    /// Calls a server as a user, or without a name.
    pub fn at(peers: &Peers, address: SocketAddr, user: Option<&str>) -> Self {
        let endpoint = format!("http://{address}");
        Self { program: peers.etcdctl(), endpoint, user: user.map(String::from), tls: None }
    }

    /// Calls a server with TLS.
    pub fn with_tls(self, tls: &Certificates) -> Self {
        let endpoint = self.endpoint.replace("http://", "https://");
        Self { endpoint, tls: Some(tls.clone()), ..self }
    }

    /// Every key as this member has it, with the revision that it is at: no other member is asked.
    pub fn own(&self) -> (Vec<Row>, u64) {
        let answer = self.json(&["get", "--prefix", "--consistency=s", ""]);
        let rows = answer["kvs"].as_array().map(|pairs| pairs.iter().map(row).collect());
        (rows.unwrap_or_default(), revision(&answer))
    }

    /// Every key, with the revision that the server is at.
    pub fn all(&self) -> (Vec<Row>, u64) {
        let answer = self.json(&["get", "--prefix", ""]);
        let rows = match answer["kvs"].as_array() {
            Some(pairs) => pairs.iter().map(row).collect(),
            None => Vec::new(),
        };
        (rows, revision(&answer))
    }

    /// Every key as it was at a revision; `None` if that is compacted.
    pub fn all_at(&self, revision: u64) -> Option<Vec<Row>> {
        let output = self.run(&["get", "--prefix", "", "--rev", &revision.to_string()], SECONDS);
        if output.status != 0 && output.stderr.contains("compacted") {
            return None;
        }
        Some(output.success().json()["kvs"].as_array().map(|pairs| pairs.iter().map(row).collect()).unwrap_or_default())
    }

    /// Writes a key and returns its revision.
    pub fn put(&self, key: &str, value: &str) -> u64 {
        revision(&self.json(&["put", "--", key, value]))
    }

    /// Whether a write succeeds.
    pub fn puts(&self, key: &str, value: &str) -> bool {
        self.run(&["put", "--", key, value], SECONDS).status == 0
    }

    /// Deletes a key and returns the revision and how many there were.
    pub fn del(&self, key: &str) -> (u64, u64) {
        let answer = self.json(&["del", "--", key]);
        (revision(&answer), answer["deleted"].as_u64().unwrap_or(0))
    }

    /// Writes a key that keeps the lease it has, and returns the revision.
    pub fn put_ignoring_lease(&self, key: &str, value: &str) -> u64 {
        revision(&self.json(&["put", "--ignore-lease", "--", key, value]))
    }

    /// Writes a key with a lease of its own.
    pub fn put_with_new_lease(&self, key: &str, value: &str, seconds: u32) {
        let answer = self.json(&["lease", "grant", &seconds.to_string()]);
        let lease = answer["ID"].as_i64().unwrap_or_else(|| panic!("{answer}"));
        self.json(&["put", "--lease", &format!("{lease:x}"), "--", key, value]);
    }

    /// Any command that is to succeed.
    pub fn does(&self, args: &[&str]) {
        self.run(args, SECONDS).success();
    }

    pub fn add_user(&self, name: &str, password: &str) {
        self.run(&["user", "add", &format!("{name}:{password}")], SECONDS).success();
    }

    /// Saves a snapshot, with its trailer.
    pub fn save(&self, file: &Path) {
        self.run(&["snapshot", "save", file.to_str().unwrap()], SECONDS).success();
    }

    /// Seconds that a lease was granted for, seconds it has left, and its keys.
    pub fn time_to_live(&self, lease: i64) -> (i64, i64, Vec<Vec<u8>>) {
        let answer = self.json(&["lease", "timetolive", "--keys", &format!("{lease:x}")]);
        let number = |name: &str| answer[name].as_i64().unwrap();
        let keys = answer["keys"].as_array().into_iter().flatten();
        let keys = keys.map(|key| STANDARD.decode(key.as_str().unwrap()).unwrap());
        (number("granted-ttl"), number("ttl"), keys.collect())
    }

    /// Compacts, and waits until the file has no compacted pair.
    pub fn compaction(&self, revision: u64) {
        let revision = revision.to_string();
        self.run(&["compaction", "--physical", &revision], SECONDS).success();
    }

    pub fn defrag(&self) {
        self.run(&["defrag"], SECONDS).success();
    }

    /// The `Status` of the server.
    pub fn status(&self) -> Value {
        self.json(&["endpoint", "status"])[0]["Status"].clone()
    }

    /// The consistency hash at the current revision.
    pub fn hash_kv(&self) -> u64 {
        let answer = self.json(&["endpoint", "hashkv"]);
        answer[0]["HashKV"]["hash"].as_u64().unwrap()
    }

    /// Watches all keys from a revision, for a few seconds or until the
    /// server ends the watch.
    pub fn watch_from(&self, revision: u64, seconds: u32) -> Output {
        let revision = format!("--rev={revision}");
        self.run(&["watch", "--prefix", "", &revision], seconds)
    }

    /// The answer of a command that is to succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        self.run(args, SECONDS).success().json()
    }

    /// The outcome of a command.
    pub fn attempt(&self, args: &[&str]) -> Output {
        self.run(args, SECONDS)
    }

    /// A transaction in the language of `etcdctl txn`.
    pub fn txn(&self, text: &str) -> Value {
        let temp = scratch::temp();
        let file = temp.path().join("txn");
        fs::write(&file, text).unwrap();
        let mut command = self.command(SECONDS);
        run(command.arg("txn").stdin(File::open(file).unwrap())).success().json()
    }

    fn run(&self, args: &[&str], seconds: u32) -> Output {
        run(self.command(seconds).args(args))
    }

    fn command(&self, seconds: u32) -> Command {
        let mut command = bounded(&self.program, seconds);
        command.env("ETCDCTL_API", "3");
        command.args(["--endpoints", &self.endpoint, "-w", "json"]);
        command.args(["--command-timeout=30s", "--dial-timeout=10s"]);
        command.args(self.tls.iter().flat_map(|tls| tls.options("")));
        command.args(self.user.iter().flat_map(|user| ["--user", user]));
        command
    }
}

fn revision(answer: &Value) -> u64 {
    match answer["header"]["revision"].as_u64() {
        Some(revision) => revision,
        None => panic!("no revision in {answer}"),
    }
}

/// A pair as etcdctl prints it.
pub fn row(pair: &Value) -> Row {
    let bytes = |name: &str| match pair[name].as_str() {
        Some(text) => STANDARD.decode(text).unwrap(),
        None => Vec::new(),
    };
    let number = |name: &str| pair[name].as_i64().unwrap_or(0);
    Row {
        key: bytes("key"),
        value: bytes("value"),
        create: number("create_revision"),
        modified: number("mod_revision"),
        version: number("version"),
        lease: number("lease"),
    }
}
