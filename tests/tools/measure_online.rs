//! Measures `etcdlift online copy --once` on a large source, beside a plain loop of puts with the same client.
//!
//! `cargo run --release --features online --example measure_online -- [KEYS [VALUE_BYTES [PUTS]]]`; the defaults are
//! 1,000,000 keys of 256 bytes, and 20,000 puts. `tests/peers/build` gives the servers. For each release it starts a new
//! server, puts the sample, copies all keys, and prints keys per second and the private memory of the job.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for tests"
)]

#[allow(dead_code, reason = "shared with other tools, which use more of it")]
#[path = "large_store.rs"]
mod large_store;
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
#[path = "../common/ports.rs"]
mod ports;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use etcd_client::Client;
use large_store::Shape;
use tokio::runtime::{Builder, Runtime};

const RELEASES: [&str; 2] = ["3.5", "3.6"];

fn main() {
    let args: Vec<u64> = env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let number = |at: usize, default: u64| args.get(at).copied().unwrap_or(default);
    let (keys, value_bytes, puts) = (number(0, 1_000_000), number(1, 256), number(2, 20_000));
    let program = build();
    let temp = tempfile::tempdir_in(env::current_dir().unwrap().join("target")).unwrap();
    let source = temp.path().join("source.etcd");
    Shape { keys, value_bytes, ..Shape::default() }.write(&source);
    println!(
        "| etcd | keys | puts, keys/s | copy, keys/s | times the puts | RssAnon at 10%, MiB | at the end | most |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for release in RELEASES {
        let server = Server::start(release, &temp.path().join(release));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let plain = puts as f64 / server.puts(&runtime, puts, value_bytes).as_secs_f64();
        let copy = server.copy(&runtime, &program, &source, keys);
        let rate = keys as f64 / copy.time.as_secs_f64();
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "| {release} | {keys} | {plain:.0} | {rate:.0} | {:.1} | {} | {} | {} |",
            rate / plain,
            mib(copy.at_tenth),
            mib(copy.last),
            mib(copy.most)
        );
    }
}

/// Builds the program, and returns its path.
fn build() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let status = command.args(["build", "--release", "--features", "online", "--bin", "etcdlift"]).status().unwrap();
    assert!(status.success(), "the program could not be built");
    // The examples are in a folder beside it.
    env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("etcdlift")
}

/// A server of one member.
struct Server {
    child: Child,
    client: SocketAddr,
}

/// What the job took.
struct Copy {
    time: Duration,
    /// Private memory in bytes: when a tenth of the keys was copied, at the end, and the most that was seen.
    at_tenth: u64,
    last: u64,
    most: u64,
}

impl Server {
    fn start(release: &str, dir: &Path) -> Self {
        let (client, peer) = (ports::free_address(), ports::free_address());
        let (url, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = Command::new(peers().join(release).join("etcd"));
        command.arg("--data-dir").arg(dir).args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--quota-backend-bytes=8589934592"]);
        let log = File::create(dir.with_extension("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let server = Self { child, client };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(client).is_err() {
            assert!(Instant::now() < deadline, "etcd {release} does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Puts keys one after the other.
    fn puts(&self, runtime: &Runtime, count: u64, value_bytes: u64) -> Duration {
        let value = "v".repeat(usize::try_from(value_bytes).unwrap());
        runtime.block_on(async {
            let mut client = Client::connect([self.client.to_string()], None).await.unwrap();
            let started = Instant::now();
            for at in 0..count {
                client.put(format!("/sample/{at:08}"), value.clone(), None).await.unwrap();
            }
            started.elapsed()
        })
    }

    /// Copies all keys, and looks at the job ten times a second.
    fn copy(&self, runtime: &Runtime, program: &Path, source: &Path, keys: u64) -> Copy {
        let endpoint = format!("http://{}", self.client);
        let mut command = Command::new(program);
        command.args(["online", "copy", "--once", "--quiet", "--endpoints", &endpoint]).arg(source);
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut copy = Copy { time: Duration::ZERO, at_tenth: 0, last: 0, most: 0 };
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "the job ended with {status}");
                copy.time = started.elapsed();
                assert!(self.count(runtime) >= keys, "keys are missing");
                return copy;
            }
            if let Some(bytes) = private_memory(child.id()) {
                copy.last = bytes;
                copy.most = copy.most.max(bytes);
                if copy.at_tenth == 0 && self.count(runtime) >= keys / 10 {
                    copy.at_tenth = bytes;
                }
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn count(&self, runtime: &Runtime) -> u64 {
        let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
        runtime.block_on(async {
            let mut client = Client::connect([self.client.to_string()], None).await.unwrap();
            u64::try_from(client.get("/bench/", Some(options)).await.unwrap().count()).unwrap()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn private_memory(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// The same rule as in `tests/peers/build`.
fn peers() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    set("ETCDLIFT_PEERS").or_else(|| Some(cache()?.join("etcdlift-peers"))).expect("a folder of peers")
}
