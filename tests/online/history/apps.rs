//! Applications that a run drives, each by a thread that records what it was told: processes that follow the protocol, and
//! clients of the v2 API. Must not know what else happens meanwhile.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ops::{Client, History, Kind, Micros, Op, V2Answer};
use crate::common::http::{self, Response};
use crate::common::random::Random;
use crate::common::run::bounded;

pub(super) const DIR: &str = "/app/";
const KEYS: usize = 18;
/// Keys that only v2-only clients write to, until the test releases them.
const RESERVED: usize = 3;
/// The clients that have moved begin to write to one more key each time.
const RELEASE_EVERY: Micros = 300_000;
const LIFE_SECONDS: u32 = 120;

/// The keys of a run: few, so that the clients meet.
pub(super) fn keys() -> Vec<String> {
    (0..KEYS).map(|at| format!("{DIR}k{at}")).collect()
}

/// How many keys the clients that have moved write to by now. A key moves at their first write, so each key has some time
/// in which v2 leads it.
pub(super) struct Released {
    all: AtomicBool,
    /// When the first key is.
    since: AtomicU64,
    clock: Clock,
}

impl Released {
    pub(super) fn new(clock: Clock) -> Self {
        Self { all: AtomicBool::new(false), since: AtomicU64::new(Micros::MAX), clock }
    }

    pub(super) fn begin(&self) {
        self.since.store(self.clock.now(), Ordering::Relaxed);
    }

    pub(super) fn release_all(&self) {
        self.all.store(true, Ordering::Relaxed);
    }

    fn keys(&self) -> usize {
        match self.all.load(Ordering::Relaxed) {
            true => KEYS,
            false => {
                let time = self.clock.now().saturating_sub(self.since.load(Ordering::Relaxed));
                usize::try_from(time / RELEASE_EVERY).unwrap().min(KEYS - RESERVED)
            }
        }
    }
}

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).unwrap()
    }
}

/// What an application is asked for.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Get(String),
    List,
    Write(String, Kind),
}

/// What it says.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Value(Option<String>),
    Values(HashMap<String, String>),
    Done,
    /// A swap that failed, and what it found.
    Found(Option<String>),
    /// It does not know, or could not read.
    Unknown,
}

/// An application that follows a recipe.
pub(super) trait Application: Send {
    fn ask(&mut self, command: &Command) -> Answer;
}

/// A running client.
pub(super) struct Running {
    thread: JoinHandle<History>,
    stop: Arc<AtomicBool>,
}

impl Running {
    /// Lets the operation end that is in flight, and returns the history.
    pub(super) fn stop(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    fn start(run: impl FnOnce(&AtomicBool) -> History + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Self { thread: thread::spawn(move || run(&told)), stop }
    }
}

/// Starts to drive an application.
pub(super) fn drive(mut app: Box<dyn Application>, number: usize, seed: u64, released: Arc<Released>) -> Running {
    let clock = released.clock;
    Running::start(move |stop| {
        let (mut history, mut plan) = (History::default(), Plan::new(number, seed));
        while !stop.load(Ordering::Relaxed) {
            let command = plan.next(released.keys());
            let start = clock.now();
            let answer = app.ask(&command);
            let end = clock.now();
            let mut add = |key: &str, kind, end| {
                history.add(key, Op { client: Client::Moved(number), kind, start, end, v2: None });
            };
            match (command, answer) {
                (Command::Get(key) | Command::Write(key, _), Answer::Value(value) | Answer::Found(value)) => {
                    plan.seen.insert(key.clone(), value.clone());
                    add(&key, Kind::Read(value), Some(end));
                }
                (Command::List, Answer::Values(mut values)) => {
                    keys().iter().for_each(|key| add(key, Kind::Read(values.remove(key)), Some(end)));
                    assert!(values.is_empty(), "{values:?}");
                }
                (Command::Write(key, kind), Answer::Done) => add(&key, kind, Some(end)),
                (Command::Write(key, kind), Answer::Unknown) => {
                    add(&key, kind, None);
                    thread::sleep(Duration::from_millis(50));
                }
                (_, Answer::Unknown) => thread::sleep(Duration::from_millis(50)),
                (command, answer) => panic!("{command:?}: {answer:?}"),
            }
            thread::sleep(plan.pause());
        }
        history
    })
}

/// What a client does, as its number and the seed determine it.
struct Plan {
    random: Random,
    number: usize,
    written: usize,
    /// What it last saw, for swaps.
    seen: HashMap<String, Option<String>>,
}

impl Plan {
    fn new(number: usize, seed: u64) -> Self {
        Self { random: Random::new(seed << 8 | number as u64), number, written: 0, seen: HashMap::new() }
    }

    /// Writes to the first keys only, so many.
    fn next(&mut self, writable: usize) -> Command {
        let at = self.random.below(KEYS);
        let key = keys().swap_remove(at);
        if at >= writable {
            return if self.random.chance(10) { Command::List } else { Command::Get(key) };
        }
        match self.random.below(100) {
            0..36 => Command::Get(key),
            36..40 => Command::List,
            40..60 => Command::Write(key, Kind::Put { value: self.value(), ttl: None }),
            60..68 => Command::Write(key, Kind::Put { value: self.value(), ttl: Some(2) }),
            68..82 => Command::Write(key, Kind::Delete),
            _ => self.swap(key),
        }
    }

    fn swap(&mut self, key: String) -> Command {
        let expected = self.seen.get(&key).cloned().flatten();
        Command::Write(key, Kind::Swap { expected, value: self.value() })
    }

    /// One that nobody else writes.
    fn value(&mut self) -> String {
        self.written += 1;
        format!("{}.{}", self.number, self.written)
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.random.between(5, 40) as u64)
    }
}

/// A process of `fixtures/online-app`.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(program: &Path, v3: &[SocketAddr], v2: &[SocketAddr]) -> Self {
        let urls = |servers: &[SocketAddr]| {
            servers.iter().map(|server| format!("http://{server}")).collect::<Vec<_>>().join(",")
        };
        let mut command = bounded(program, LIFE_SECONDS);
        command.arg(urls(v3)).arg(urls(v2)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    /// Runs a command as the program takes it, and returns what it prints.
    pub(crate) fn line(&mut self, line: &str) -> Value {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{line}: {error}: {answer:?}"))
    }
}

/// Asks for a swap. `None`: it was done; else what the key has.
///
/// # Panics
/// If the client does not know.
pub(crate) fn swap(app: &mut Process, key: &str, expected: &str, value: &str) -> Option<Option<String>> {
    let kind = Kind::Swap { expected: Some(expected.to_owned()), value: value.to_owned() };
    match app.ask(&Command::Write(key.to_owned(), kind)) {
        Answer::Done => None,
        Answer::Found(found) => Some(found),
        answer => panic!("{answer:?}"),
    }
}

impl Application for Process {
    fn ask(&mut self, command: &Command) -> Answer {
        let line = match command {
            Command::Get(key) => format!("get {key}"),
            Command::List => format!("list {DIR}"),
            Command::Write(key, Kind::Put { value, ttl: None }) => format!("put {key} {value}"),
            Command::Write(key, Kind::Put { value, ttl: Some(ttl) }) => format!("put {key} {value} {ttl}"),
            Command::Write(key, Kind::Delete) => format!("delete {key}"),
            Command::Write(key, Kind::Swap { expected, value }) => {
                format!("cas {key} {} {value}", expected.as_deref().unwrap_or("-"))
            }
            Command::Write(_, Kind::Read(_)) => unreachable!(),
        };
        let answer = self.line(&line);
        if answer.get("error").is_some() {
            return Answer::Unknown;
        }
        let value = || answer["value"].as_str().map(String::from);
        match command {
            Command::Get(_) => Answer::Value(value()),
            Command::List => Answer::Values(serde_json::from_value(answer["values"].clone()).unwrap()),
            Command::Write(_, Kind::Swap { .. }) if answer["swapped"] == false => Answer::Found(value()),
            Command::Write(..) => Answer::Done,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a client that knows the v2 API only.
pub(super) fn drive_v2(servers: Vec<SocketAddr>, number: usize, seed: u64, clock: Clock) -> Running {
    Running::start(move |stop| {
        let (mut history, mut plan) = (History::default(), Plan::new(number, seed));
        let mut server = number;
        while !stop.load(Ordering::Relaxed) {
            let (key, kind) = match plan.next(KEYS) {
                Command::Write(key, kind) => (key, kind),
                Command::Get(key) => (key.clone(), plan.swap_kind(&key)),
                Command::List => continue,
            };
            let start = clock.now();
            let answer = write_v2(servers[server % servers.len()], &key, &kind);
            let end = clock.now();
            let mut add = |kind, end, v2| history.add(&key, Op { client: Client::V2(number), kind, start, end, v2 });
            match answer {
                V2Write::Done(v2) => {
                    let value = match &kind {
                        Kind::Put { value, .. } | Kind::Swap { value, .. } => Some(value.clone()),
                        _ => None,
                    };
                    plan.seen.insert(key.clone(), value);
                    add(kind, Some(end), Some(v2));
                }
                V2Write::Refused(found) => drop(plan.seen.insert(key.clone(), found)),
                V2Write::NotSent => server += 1,
                V2Write::Unknown => {
                    add(kind, None, None);
                    server += 1;
                }
            }
            thread::sleep(plan.pause());
        }
        history
    })
}

impl Plan {
    fn swap_kind(&mut self, key: &str) -> Kind {
        let expected = self.seen.get(key).cloned().flatten();
        Kind::Swap { expected, value: self.value() }
    }
}

/// What became of a write to v2.
pub(super) enum V2Write {
    Done(V2Answer),
    /// The key is missing, or has another value.
    Refused(Option<String>),
    NotSent,
    Unknown,
}

/// Writes to v2.
pub(super) fn write_v2(server: SocketAddr, key: &str, kind: &Kind) -> V2Write {
    let target = format!("/v2/keys{key}");
    let response = match kind {
        Kind::Put { value, ttl: None } => http::put_form(server, &target, &format!("value={value}")),
        Kind::Put { value, ttl: Some(ttl) } => http::put_form(server, &target, &format!("value={value}&ttl={ttl}")),
        Kind::Delete => http::delete(server, &target),
        Kind::Swap { expected: Some(expected), value } => {
            http::put_form(server, &target, &format!("value={value}&prevValue={expected}"))
        }
        Kind::Swap { expected: None, value } => {
            http::put_form(server, &target, &format!("value={value}&prevExist=false"))
        }
        Kind::Read(_) => unreachable!(),
    };
    match response {
        Ok(response) => understand(&response),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => V2Write::NotSent,
        Err(_) => V2Write::Unknown,
    }
}

fn understand(response: &Response) -> V2Write {
    let Ok(body) = serde_json::from_slice::<Value>(&response.body) else { return V2Write::Unknown };
    if let (200 | 201, Some(index)) = (response.status, body["node"]["modifiedIndex"].as_u64()) {
        let previous = body["prevNode"]["value"].as_str().map(String::from);
        return V2Write::Done(V2Answer { index, previous });
    }
    match body["errorCode"].as_u64() {
        // Key not found.
        Some(100) => V2Write::Refused(None),
        // Compare failed: `[EXPECTED != FOUND]`.
        Some(101) => {
            let found = body["cause"].as_str().and_then(|cause| cause.strip_suffix(']')?.split(" != ").nth(1));
            V2Write::Refused(found.map(String::from))
        }
        // Node exists.
        Some(105) => V2Write::Refused(None),
        _ => V2Write::Unknown,
    }
}
