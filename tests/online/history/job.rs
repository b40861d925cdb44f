//! `etcdlift online` as a run uses it: the job as a process that is killed and started again, and the other commands.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::ops::History;
use super::servers::Servers;
use crate::common::etcdctl::Etcdctl;
use crate::common::run::{Output, bounded, etcdlift_path, run};
use crate::common::scratch;
use crate::common::server::crash;

pub(super) const STATE: &str = "etcdlift/online/";
pub(super) const SWITCH: &str = "etcdlift/switch";
const LIFE_SECONDS: u32 = 120;
const LOCK_SECONDS: u64 = 3;
const CAUGHT_UP_SECONDS: u64 = 60;

/// The job of a run.
pub(super) struct Job {
    source: Vec<String>,
    endpoints: String,
    child: Option<Child>,
    temp: TempDir,
    lives: usize,
}

/// A job of one server, which ends with it.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        crash(&mut self.0);
    }
}

/// Starts a job that copies the v2 data of a server into its v3 data.
pub(crate) fn start(server: SocketAddr, dir: &Path) -> Running {
    let log = File::create(dir.join("job")).unwrap();
    let mut command = bounded(Path::new(etcdlift_path()), LIFE_SECONDS);
    command.args([
        "online",
        "copy",
        &format!("--endpoints=http://{server}"),
        &format!("--v2-endpoints=http://{server}"),
    ]);
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

impl Job {
    /// Reads v2 from the directory of a member, or over HTTP.
    pub(super) fn new(servers: &Servers, from_directory: bool) -> Self {
        let api = format!("--v2-endpoints={}", urls(&servers.v2()));
        let source = match from_directory {
            // In a cluster of its own, reads through the API commit the last writes.
            true if servers.are_two() => vec![servers.v2_dir().to_str().unwrap().to_owned(), api],
            true => vec![servers.v2_dir().to_str().unwrap().to_owned()],
            false => vec![api],
        };
        let endpoints = format!("--endpoints={}", urls(&servers.v3()));
        Self { source, endpoints, child: None, temp: scratch::temp(), lives: 0 }
    }

    /// Starts the job.
    pub(super) fn start(&mut self) {
        self.lives += 1;
        let log = File::create(self.log_path()).unwrap();
        let mut command = bounded(Path::new(etcdlift_path()), LIFE_SECONDS);
        command.args(["online", "copy", &self.endpoints, &format!("--lock-ttl={LOCK_SECONDS}s")]).args(&self.source);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until the migration has begun.
    pub(super) fn wait_until_it_runs(&self, ctl: &Etcdctl) {
        let deadline = Instant::now() + Duration::from_secs(CAUGHT_UP_SECONDS);
        while ctl.json(&["get", &format!("{STATE}job")])["count"] != 1 {
            assert!(Instant::now() < deadline, "the job does not begin:\n{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it. Its lock goes when the lease ends, or at once if somebody deletes it.
    pub(super) fn kill(&mut self, delete_lock: Option<&Etcdctl>) {
        self.keep_alive();
        let mut child = self.child.take().unwrap();
        assert!(crash(&mut child), "the job had ended by itself:\n{}", self.log());
        if let Some(ctl) = delete_lock {
            ctl.does(&["del", &format!("{STATE}lock")]);
        }
    }

    /// Starts the job again if it lost its lock, or could not get it: a lease may last longer after an election.
    ///
    /// # Panics
    /// If it ended for another reason.
    fn keep_alive(&mut self) {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
            let log = self.log();
            assert!(log.contains("lock") || log.contains("runs"), "the job ended with {status}:\n{log}");
            self.start();
        }
    }

    /// Asks it to end.
    pub(super) fn stop(&mut self) {
        self.keep_alive();
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the job does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the job has caught up with v2.
    pub(super) fn catch_up(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(CAUGHT_UP_SECONDS);
        loop {
            let status = self.run("status", &["--json"], true);
            let lag = (status.status == 0).then(|| status.json()["lag_entries"].as_u64()).flatten();
            if lag == Some(0) {
                return;
            }
            self.keep_alive();
            assert!(Instant::now() < deadline, "{}\nthe job:\n{}", status.story(), self.log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs `etcdlift online COMMAND`, with the source if it needs one.
    pub(super) fn run(&self, command: &str, args: &[&str], source: bool) -> Output {
        let mut line = bounded(Path::new(etcdlift_path()), LIFE_SECONDS);
        line.args(["online", command, &self.endpoints]).args(args);
        if source {
            line.args(&self.source);
        }
        run(&mut line)
    }

    /// What the job wrote in its last life.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.temp.path().join(format!("job-{}", self.lives))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            crash(&mut child);
        }
    }
}

/// Adds the conflicts that are listed.
pub(super) fn add_conflicts(ctl: &Etcdctl, history: &mut History) {
    let rows = ctl.all().0.into_iter().filter(|row| row.key.starts_with(format!("{STATE}conflict/").as_bytes()));
    for row in rows {
        let conflict: Value = serde_json::from_slice(&row.value).unwrap();
        let index = conflict["index"].as_u64().unwrap();
        match conflict["why"].as_str().unwrap() {
            // The job says that it cannot know the changes after an index.
            "unknown-deletions" => {
                let after = conflict["action"].as_str().unwrap().strip_prefix("after ").unwrap();
                history.unknown.insert((after.parse().unwrap(), index));
            }
            why => {
                let listed = (conflict["v3_key"].as_str().unwrap().to_owned(), index);
                if why == "moved" {
                    history.moved.insert(listed.clone());
                }
                history.listed.insert(listed);
            }
        }
    }
}

fn urls(servers: &[SocketAddr]) -> String {
    servers.iter().map(|server| format!("http://{server}")).collect::<Vec<_>>().join(",")
}
