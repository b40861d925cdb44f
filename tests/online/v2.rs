//! Both sources of v2 data follow real servers: what they delivered is what the server lists at the end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use etcdlift::internals::ids::V2Index;
use etcdlift::internals::interrupt::Interrupt;
use etcdlift::internals::online::v2::{Change, Effect, Head, Next, Node, V2, V2Options, open};

use crate::common::cluster::{Cluster, initial_cluster, seats};
use crate::common::peers::{self, Peers, Version};
use crate::common::random::seeds;
use crate::common::scratch;
use crate::connection::Call;
use crate::v2_client::{Client, Listed, list};

/// What a reader makes of a source.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) keys: BTreeMap<Vec<u8>, Node>,
    pub(crate) head: Head,
    last: u64,
    lost: u64,
    changes: u64,
}

impl Model {
    pub(crate) fn read(&mut self, source: &mut dyn V2) {
        self.keys.clear();
        let keys = &mut self.keys;
        self.head = source
            .state(&mut |node| {
                assert!(keys.insert(node.path.clone(), node).is_none(), "each key once");
                Ok(())
            })
            .unwrap();
        self.last = self.head.index.0;
    }

    pub(crate) fn apply(&mut self, Change { index, effect, .. }: Change) {
        assert!(index.0 >= self.last, "{index} after {}", self.last);
        self.last = index.0;
        self.changes += 1;
        match effect {
            Effect::Set(node) => drop(self.keys.insert(node.path.clone(), node)),
            Effect::Gone(path) | Effect::GoneDir(path) => {
                let below = if path == b"/" { path.clone() } else { [path.as_slice(), b"/"].concat() };
                self.keys.retain(|key, _| *key != path && !key.starts_with(&below));
            }
        }
    }

    pub(crate) fn next(&mut self, source: &mut dyn V2, wait: Duration) {
        match source.next(wait).unwrap() {
            Next::Changes { changes, head } => {
                assert!(!changes.is_empty());
                changes.into_iter().for_each(|change| self.apply(change));
                assert!(head.index.0 >= self.last && head.index >= self.head.index, "{head:?} after {:?}", self.head);
                self.head = head;
            }
            Next::Quiet(head) => {
                assert!(head.index >= self.head.index, "{head:?} after {:?}", self.head);
                self.head = head;
            }
            Next::Lost(_) => {
                self.lost += 1;
                self.read(source);
            }
        }
    }

    pub(crate) fn listed(&self) -> BTreeMap<String, Listed> {
        let listed = |(path, node): (&Vec<u8>, &Node)| {
            let listed = Listed {
                value: String::from_utf8(node.value.clone()).unwrap(),
                created: node.created.0,
                modified: node.modified.0,
                expiry: node.expiry.map(|at| at.as_second()),
            };
            (String::from_utf8(path.clone()).unwrap(), listed)
        };
        self.keys.iter().map(listed).collect()
    }
}

/// Servers of 3.4 that take snapshots and purge often.
struct Servers {
    cluster: Cluster,
    _temp: tempfile::TempDir,
}

const ARGS: [&str; 8] = [
    "--enable-v2",
    "--snapshot-count=40",
    "--max-wals=1",
    "--max-snapshots=1",
    "--heartbeat-interval=50",
    "--election-timeout=500",
    "--initial-cluster-state=new",
    "--experimental-initial-corrupt-check=false",
];

impl Servers {
    fn start(peers: &Peers, count: usize) -> Self {
        let temp = scratch::temp();
        let mut cluster = Cluster::new(peers, Version::V3_4, count, None);
        let names = &["a", "b", "c"][..count];
        let seats = seats(names);
        for seat in &seats {
            cluster.add(seat, &temp.path().join(&seat.name));
        }
        let mut servers = Self { cluster, _temp: temp };
        (0..count).for_each(|at| servers.spawn(at));
        (0..count).for_each(|at| servers.cluster.wait(at));
        servers
    }

    fn spawn(&mut self, at: usize) {
        let seats: Vec<_> = self.cluster.members.iter().map(|member| member.seat.clone()).collect();
        let all = format!("--initial-cluster={}", initial_cluster(&seats));
        let args: Vec<&str> = ARGS.into_iter().chain([all.as_str()]).collect();
        self.cluster.spawn(at, &args);
    }

    fn dir(&self, at: usize) -> PathBuf {
        self.cluster.members[at].data_dir.clone()
    }

    fn clients(&self) -> Vec<std::net::SocketAddr> {
        self.cluster.members.iter().map(|member| member.seat.client).collect()
    }
}

/// Follows a source in a thread while `act` changes the servers. Then the result must be what a member lists.
fn follow(source: &mut dyn V2, hidden: bool, wait: Duration, act: impl FnOnce() -> std::net::SocketAddr) -> Model {
    let mut model = Model::default();
    model.read(source);
    let (done, reached) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let model = &mut model;
        let (done, reached) = (&done, &reached);
        let reader = scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                model.next(source, wait);
                reached.store(model.head.index.0, Ordering::SeqCst);
            }
            (model, source)
        });
        let server = act();
        let deadline = Instant::now() + Duration::from_secs(20);
        // Until nothing expires any more.
        loop {
            let (index, keys) = list(server, hidden);
            while reached.load(Ordering::SeqCst) < index && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
            thread::sleep(Duration::from_millis(900));
            let now = jiff::Timestamp::now().as_second();
            let soon = keys.values().any(|listed| listed.expiry.is_some_and(|at| at < now + 30));
            if list(server, false).0 == index && !soon {
                break;
            }
        }
        done.store(true, Ordering::SeqCst);
        let (model, source) = reader.join().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (index, listed) = list(server, hidden);
            model.next(source, Duration::from_millis(300));
            if model.head.index.0 == index || Instant::now() > deadline {
                assert_eq!(model.head.index.0, index, "{:?}", model.head);
                compare(&model.listed(), &listed);
                break;
            }
        }
    });
    model
}

fn compare(found: &BTreeMap<String, Listed>, expected: &BTreeMap<String, Listed>) {
    let keys: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let different: Vec<_> = keys.into_iter().filter(|key| !is_like(found.get(*key), expected.get(*key))).collect();
    for key in &different {
        eprintln!("{key}: found {:?}, expected {:?}", found.get(*key), expected.get(*key));
    }
    assert!(different.is_empty());
}

fn is_like(a: Option<&Listed>, b: Option<&Listed>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a.is_like(b))
}

fn directory(dir: &Path) -> Box<dyn V2> {
    open(&V2Options { dir: Some(dir.to_path_buf()), ..V2Options::default() }, Interrupt::default()).unwrap()
}

fn options(servers: &Servers) -> V2Options {
    let endpoints = servers.clients().iter().map(|client| format!("http://{client}")).collect();
    V2Options { endpoints, retry_for: Duration::from_secs(30), ..V2Options::default() }
}

fn api(servers: &Servers) -> Box<dyn V2> {
    open(&options(servers), Interrupt::default()).unwrap()
}

/// Random requests while a lone server is killed and stopped.
fn restarts(servers: &mut Servers, client: &mut Client) -> std::net::SocketAddr {
    for round in 0..4 {
        client.send(150);
        match round % 2 {
            0 => servers.cluster.crash(),
            _ => servers.cluster.stop(0),
        }
        servers.spawn(0);
        servers.cluster.wait(0);
    }
    client.send(100);
    servers.clients()[0]
}

#[test]
fn a_directory_is_followed_through_snapshots_purges_and_restarts() {
    let Some(peers) = peers::require("online v2 directory") else { return };
    for seed in seeds("ONLINE_SEEDS", 0..3) {
        let mut servers = Servers::start(&peers, 1);
        let mut client = Client::new(&servers.clients(), seed, true);
        client.send(120);
        let mut source = directory(&servers.dir(0));
        let wait = Duration::from_millis(200);
        let model = follow(&mut *source, true, wait, || restarts(&mut servers, &mut client));
        assert!(model.changes > 100, "seed {seed}: {} changes", model.changes);
        assert_eq!(model.lost, 0, "seed {seed}");
    }
}

#[test]
fn the_api_is_followed_through_snapshots_and_restarts() {
    let Some(peers) = peers::require("online v2 API") else { return };
    for seed in seeds("ONLINE_SEEDS", 0..3) {
        let mut servers = Servers::start(&peers, 1);
        let mut client = Client::new(&servers.clients(), seed + 100, false);
        client.send(120);
        let mut source = api(&servers);
        assert!(!source.cluster().unwrap().is_empty());
        let wait = Duration::from_millis(200);
        let model = follow(&mut *source, false, wait, || restarts(&mut servers, &mut client));
        assert!(model.changes > 100, "seed {seed}: {} changes", model.changes);
        assert_eq!(model.lost, 0, "seed {seed}");
    }
}

#[test]
fn both_sources_follow_a_cluster_whose_members_are_killed() {
    let Some(peers) = peers::require("online v2 cluster") else { return };
    for seed in seeds("ONLINE_SEEDS", 0..2) {
        for by_directory in [true, false] {
            let mut servers = Servers::start(&peers, 3);
            let mut client = Client::new(&servers.clients(), seed + 200, by_directory);
            client.send(100);
            let mut source = match by_directory {
                true => {
                    let options = V2Options { dir: Some(servers.dir(0)), ..options(&servers) };
                    open(&options, Interrupt::default()).unwrap()
                }
                false => api(&servers),
            };
            let model = follow(&mut *source, by_directory, Duration::from_millis(200), || {
                for member in [0, 1, 2] {
                    client.send(60);
                    servers.cluster.kill(member);
                    client.send(60);
                    servers.spawn(member);
                    servers.cluster.wait(member);
                }
                client.send(60);
                servers.clients()[1]
            });
            assert!(model.changes > 100, "seed {seed}: {} changes", model.changes);
        }
    }
}

#[test]
fn a_reader_of_the_api_that_is_late_is_told_that_changes_are_lost() {
    let Some(peers) = peers::require("online v2 late reader") else { return };
    let servers = Servers::start(&peers, 1);
    let mut client = Client::new(&servers.clients(), 1, false);
    client.send(50);
    let gate = Gate::before(servers.clients()[0]);
    let through = V2Options { endpoints: vec![format!("http://{}", gate.address)], ..options(&servers) };
    let mut source = open(&through, Interrupt::default()).unwrap();
    let mut model = Model::default();
    // Hidden keys take the place of events in the history, and a watch does not show them.
    let hidden = Call::new("PUT", b"/_h").with("value", "v");
    let visible = Call::new("PUT", b"/v").with("value", "v");
    for call in [&hidden, &visible] {
        model.read(&mut *source);
        client.ask(&visible);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut until = |what: &str, is: &dyn Fn(&Next) -> bool| loop {
            assert!(Instant::now() < deadline, "{what}");
            let next = source.next(Duration::from_millis(100)).unwrap();
            if is(&next) {
                return;
            }
        };
        until("a change", &|next| matches!(next, Next::Changes { .. }));
        // More than the 1,000 events that the server keeps.
        gate.shut();
        (0..1100).for_each(|_| client.ask(call));
        gate.open();
        until("the loss", &|next| matches!(next, Next::Lost(_)));
        assert!(matches!(source.next(Duration::ZERO).unwrap(), Next::Lost(_)), "it stays lost until the state is read");
        model.read(&mut *source);
        assert!(matches!(source.next(Duration::from_millis(100)).unwrap(), Next::Quiet(_)));
    }
}

/// A way to a server that can be shut: then connections end.
struct Gate {
    address: std::net::SocketAddr,
    passed: Arc<Mutex<Passed>>,
}

struct Passed {
    open: bool,
    /// The number of connections that still end after so many bytes of answers.
    cuts: usize,
    streams: Vec<TcpStream>,
}

impl Gate {
    /// Its thread ends with the process.
    fn before(server: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(Mutex::new(Passed { open: true, cuts: 0, streams: Vec::new() }));
        let shared = Arc::clone(&passed);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut passed = shared.lock().unwrap();
                let Some(other) = passed.open.then(|| TcpStream::connect(server).ok()).flatten() else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().unwrap();
                let (mut from, mut to) = (clone(&stream), clone(&other));
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let (mut from, mut to, shared) = (clone(&other), clone(&stream), Arc::clone(&shared));
                thread::spawn(move || {
                    pass_answers(&mut from, &mut to, &shared);
                    let _ = to.shutdown(Shutdown::Both);
                });
                passed.streams.extend([stream, other]);
            }
        });
        Self { address, passed }
    }

    fn shut(&self) {
        let mut passed = self.passed.lock().unwrap();
        passed.open = false;
        passed.streams.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    fn open(&self) {
        self.passed.lock().unwrap().open = true;
    }
}

/// Bytes of answers after which a gate ends a connection.
const CUT: usize = 200_000;

fn pass_answers(from: &mut TcpStream, to: &mut TcpStream, shared: &Mutex<Passed>) {
    let (mut buffer, mut count) = ([0; 4096], 0);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        count += read;
        if count > CUT {
            let mut passed = shared.lock().unwrap();
            if passed.cuts > 0 {
                passed.cuts -= 1;
                return;
            }
        }
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

#[test]
fn a_listing_whose_connection_ends_is_read_again() {
    let Some(peers) = peers::require("online v2 listing") else { return };
    let servers = Servers::start(&peers, 1);
    let server = servers.clients()[0];
    let mut client = Client::new(&servers.clients(), 1, false);
    let value = "v".repeat(2000);
    (0..400).for_each(|number| {
        client.ask(&Call::new("PUT", format!("/{number}").as_bytes()).with("value", value.clone()));
    });
    // The same endpoint again, and the next one.
    for (cuts, more) in [(2, vec![]), (1, vec![format!("http://{server}")])] {
        let gate = Gate::before(server);
        let endpoints = [vec![format!("http://{}", gate.address)], more].concat();
        let mut source = open(&V2Options { endpoints, ..options(&servers) }, Interrupt::default()).unwrap();
        gate.passed.lock().unwrap().cuts = cuts;
        let mut model = Model::default();
        model.read(&mut *source);
        assert_eq!(gate.passed.lock().unwrap().cuts, 0, "the listing was cut");
        compare(&model.listed(), &list(server, false).1);
        assert_eq!(model.keys.len(), 400);
        client.ask(&Call::new("PUT", b"/0").with("value", "later"));
        let until = Instant::now() + Duration::from_secs(20);
        while model.keys[&b"/0"[..]].value != b"later" {
            assert!(Instant::now() < until, "the changes follow");
            model.next(&mut *source, Duration::from_millis(100));
        }
        assert_eq!(model.lost, 0);
    }
    // No answer is ever whole.
    let gate = Gate::before(server);
    gate.passed.lock().unwrap().cuts = usize::MAX;
    let (endpoints, retry_for) = (vec![format!("http://{}", gate.address)], Duration::from_secs(1));
    let mut source = open(&V2Options { endpoints, retry_for, ..options(&servers) }, Interrupt::default()).unwrap();
    let began = Instant::now();
    let error = source.state(&mut |_| panic!("a part of a listing")).unwrap_err();
    let text = format!("{error}");
    assert!(text.contains("the v2 API does not answer: an answer ended after 19"), "{text}");
    assert!(text.contains(&gate.address.to_string()), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_refreshed_ttl_is_noticed_before_the_key_would_expire() {
    let Some(peers) = peers::require("online v2 refresh") else { return };
    let servers = Servers::start(&peers, 1);
    let mut client = Client::new(&servers.clients(), 1, false);
    for path in ["/k", "/d/a"] {
        client.ask(
            &Call::new("PUT", path.as_bytes()).with("value", "v").with("ttl", if path == "/k" { "4" } else { "100" }),
        );
    }
    let refresh = |path: &str, dir: bool| {
        let call = Call::new("PUT", path.as_bytes()).with("prevExist", "true").with("ttl", "4");
        if dir { call.with("dir", "true") } else { call.with("refresh", "true") }
    };
    client.ask(&refresh("/d", true));
    for mut source in [api(&servers), directory(&servers.dir(0))] {
        client.ask(&refresh("/k", false));
        client.ask(&refresh("/d", true));
        let mut model = Model::default();
        model.read(&mut *source);
        let begun = Instant::now();
        let mut refreshed = begun;
        while begun.elapsed() < Duration::from_secs(10) {
            if refreshed.elapsed() > Duration::from_millis(1500) {
                client.ask(&refresh("/k", false));
                client.ask(&refresh("/d", true));
                refreshed = Instant::now();
            }
            model.next(&mut *source, Duration::from_millis(100));
            for path in [&b"/k"[..], b"/d/a"] {
                let expiry = model.keys[path].expiry.unwrap();
                let left = expiry.duration_since(jiff::Timestamp::now()).as_millis();
                assert!((0..=6000).contains(&left), "{}: {left} ms", String::from_utf8_lossy(path));
            }
        }
        // Without refreshes, both expire.
        while !model.keys.is_empty() && begun.elapsed() < Duration::from_secs(30) {
            model.next(&mut *source, Duration::from_millis(100));
        }
        assert!(model.keys.is_empty());
        for path in ["/k", "/d/a"] {
            client.ask(
                &Call::new("PUT", path.as_bytes())
                    .with("value", "v")
                    .with("ttl", if path == "/k" { "4" } else { "100" }),
            );
        }
        client.ask(&refresh("/d", true));
    }
}

#[test]
fn a_directory_is_followed_while_segments_are_cut_and_purged() {
    let Some(peers) = peers::require("online v2 purge") else { return };
    let servers = Servers::start(&peers, 1);
    let mut client = Client::new(&servers.clients(), 7, true);
    client.send(60);
    let mut source = directory(&servers.dir(0));
    let segments = || {
        let wal = servers.dir(0).join("member/wal");
        let names = std::fs::read_dir(wal).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".wal")).collect::<Vec<_>>()
    };
    // A slow reader: it is behind when etcd purges, which it does every 30 seconds.
    let model = follow(&mut *source, true, Duration::from_millis(700), || {
        let begun = Instant::now();
        let mut value = "v".repeat(900_000);
        while begun.elapsed() < Duration::from_secs(60)
            && segments().iter().any(|name| name.starts_with("0000000000000000-"))
        {
            value.replace_range(..8, &format!("{:08}", begun.elapsed().as_millis()));
            client.ask(
                &Call::new("PUT", format!("/big/{}", begun.elapsed().as_millis() % 7).as_bytes())
                    .with("value", value.clone()),
            );
            client.send(1);
            thread::sleep(Duration::from_millis(60));
        }
        assert!(segments().iter().all(|name| !name.starts_with("0000000000000000-")), "{:?}", segments());
        client.send(100);
        servers.clients()[0]
    });
    assert!(model.changes > 100);
    assert_eq!(model.lost, 0);
    let mut model = Model::default();
    model.read(&mut *source);
    assert!(!since(&mut *source, 1).1, "the first segment is gone");
}

/// Returns the changes after an index, and whether these are all.
fn since(source: &mut dyn V2, index: u64) -> (Vec<Change>, bool) {
    let mut changes = Vec::new();
    let all = source.since(V2Index(index), &mut |change| {
        changes.push(change);
        Ok(())
    });
    (changes, all.unwrap())
}

#[test]
fn a_reader_that_was_away_is_told_what_it_missed() {
    let Some(peers) = peers::require("online v2 since") else { return };
    for by_directory in [true, false] {
        let mut servers = Servers::start(&peers, 1);
        let mut client = Client::new(&servers.clients(), 5, by_directory);
        client.send(120);
        let open = |servers: &Servers| if by_directory { directory(&servers.dir(0)) } else { api(servers) };
        let mut away = Model::default();
        away.read(&mut *open(&servers));
        let index = away.head.index.0;
        restarts(&mut servers, &mut client);
        let mut source = open(&servers);
        let head = source.head().unwrap();
        let mut now = Model::default();
        now.read(&mut *source);
        assert!(head.index.0 > index && now.head.index >= head.index, "{head:?} {:?}", now.head);
        let (changes, all) = since(&mut *source, index);
        assert!(all && changes.len() > 100, "{}", changes.len());
        changes.into_iter().for_each(|change| away.apply(change));
        let names = |model: &Model| {
            model.keys.values().map(|node| (node.path.clone(), node.value.clone(), node.modified)).collect::<Vec<_>>()
        };
        assert_eq!(names(&away), names(&now));
        // The head is a place to go on from.
        let head = source.head().unwrap();
        client.ask(&Call::new("PUT", b"/after").with("value", "v"));
        let found = |next: &Next| match next {
            Next::Changes { changes, .. } => changes.iter().any(|change| change.effect.path() == b"/after"),
            _ => false,
        };
        assert!((0..50).any(|_| found(&source.next(Duration::from_millis(200)).unwrap())), "after {head:?}");
        if !by_directory {
            (0..1100).for_each(|_| client.ask(&Call::new("PUT", b"/many").with("value", "v")));
            now.read(&mut *source);
            assert!(!since(&mut *source, index).1, "the server keeps 1,000 events");
        }
    }
}

#[test]
fn errors_name_the_place_and_what_to_do() {
    let dead = V2Options {
        endpoints: vec!["http://127.0.0.1:9".into()],
        retry_for: Duration::from_millis(300),
        ..V2Options::default()
    };
    let mut source = open(&dead, Interrupt::default()).unwrap();
    let error = source.state(&mut |_| Ok(())).unwrap_err();
    let text = format!("{error}");
    assert!(text.contains("http://127.0.0.1:9/") && text.contains("does not answer"), "{text}");
    for bad in [V2Options::default(), V2Options { endpoints: vec!["127.0.0.1:9".into()], ..V2Options::default() }] {
        assert!(open(&bad, Interrupt::default()).is_err());
    }
    let empty = scratch::temp();
    let mut source = directory(empty.path());
    let error = source.state(&mut |_| Ok(())).unwrap_err();
    assert!(format!("{error}").contains(&empty.path().display().to_string()), "{error}");
}
