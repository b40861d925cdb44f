//! A v2 source and a v3 cluster, and the job between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::etcdctl::Etcdctl;
use crate::common::http;
use crate::common::peers::{Peers, Version};
use crate::common::run::{Output, etcdlift, etcdlift_path, run};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::common::tls::Certificates;

/// A v2 source and a v3 cluster of one member.
pub(crate) struct Pair {
    pub(crate) v2: Server,
    pub(crate) v3: Server,
    pub(crate) peers: Peers,
    pub(crate) temp: TempDir,
    /// Of both servers, if they have TLS.
    tls: Option<(Certificates, Certificates)>,
    /// `NAME:PASSWORD` for calls of tests.
    pub(crate) v2_user: Option<String>,
    pub(crate) v3_user: Option<String>,
}

impl Pair {
    pub(crate) fn start(peers: &Peers, version: Version, args: &[&str]) -> Self {
        Self::boot(peers, version, args, scratch::temp(), None)
    }

    /// Both servers have TLS, and authorities of their own.
    pub(crate) fn with_tls(peers: &Peers, version: Version) -> Self {
        let temp = scratch::temp();
        let make = |name| Certificates::make(temp.path(), name);
        let tls = Some((make("old"), make("new")));
        Self::boot(peers, version, &[], temp, tls)
    }

    fn boot(
        peers: &Peers,
        version: Version,
        args: &[&str],
        temp: TempDir,
        tls: Option<(Certificates, Certificates)>,
    ) -> Self {
        let mut old = Boot::new(peers, Version::V3_4, &temp.path().join("v2"));
        old.enable_v2 = true;
        let mut new = Boot::new(peers, version, &temp.path().join("v3"));
        new.args = args.iter().map(ToString::to_string).collect();
        (old.tls, new.tls) = tls.clone().unzip();
        // Both at once: tests that each hold one slot would wait for each other.
        let slot = std::sync::Arc::new(crate::common::server::Slot::all());
        let mut servers = Server::start_all(&[old, new], &slot);
        let v3 = servers.pop().unwrap();
        Self { v2: servers.pop().unwrap(), v3, peers: peers.clone(), temp, tls, v2_user: None, v3_user: None }
    }

    pub(crate) fn ctl(&self) -> Etcdctl {
        self.ctl_as(self.v3_user.as_deref())
    }

    pub(crate) fn ctl_as(&self, user: Option<&str>) -> Etcdctl {
        let ctl = Etcdctl::at(&self.peers, self.v3.client_address(), user);
        match &self.tls {
            Some((_, tls)) => ctl.with_tls(tls),
            None => ctl,
        }
    }

    /// A request to v2 that succeeds; the body is a form, or JSON.
    pub(crate) fn ask_v2(&self, method: &str, path: &str, body: &str) {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail-with-body", "-X", method, &format!("{}{path}", self.v2_url()), "-d", body]);
        if body.starts_with('{') {
            command.args(["-H", "Content-Type: application/json"]);
        }
        command.args(self.tls.iter().flat_map(|(tls, _)| tls.options("")));
        command.args(self.v2_user.iter().flat_map(|user| ["-u", user]));
        run(&mut command).success();
    }

    pub(crate) fn set(&self, key: &str, value: &str) {
        self.ask_v2("PUT", &format!("/v2/keys{key}"), &format!("value={value}"));
    }

    pub(crate) fn delete(&self, key: &str) {
        self.ask_v2("DELETE", &format!("/v2/keys{key}?recursive=true"), "");
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    pub(crate) fn v2_url(&self) -> String {
        format!("{}://{}", self.scheme(), self.v2.client_address())
    }

    pub(crate) fn v3_url(&self) -> String {
        format!("{}://{}", self.scheme(), self.v3.client_address())
    }

    pub(crate) fn arguments(&self, command: &str, more: &[&str]) -> Vec<String> {
        let mut all = vec!["online".to_string(), command.into()];
        if command != "finish" {
            all.extend(["--v2-endpoints".into(), self.v2_url()]);
        }
        all.extend(["--endpoints".into(), self.v3_url()]);
        if let Some((old, new)) = &self.tls {
            all.extend(if command == "finish" { vec![] } else { old.options("v2-") });
            all.extend(new.options(""));
        }
        all.extend(more.iter().map(ToString::to_string));
        all
    }

    pub(crate) fn online(&self, command: &str, more: &[&str]) -> Output {
        etcdlift(self.arguments(command, more))
    }

    pub(crate) fn job(&self, more: &[&str]) -> Job {
        Job::start(&self.arguments("copy", more))
    }

    /// Keys and values below `/` in v3.
    pub(crate) fn v3_keys(&self) -> BTreeMap<String, String> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let rows = self.ctl().all().0.into_iter().map(|row| (text(row.key), text(row.value)));
        rows.filter(|(key, _)| key.starts_with('/')).collect()
    }
}

pub(crate) fn set(v2: SocketAddr, key: &str, value: &str) {
    let answer = http::put_form(v2, &format!("/v2/keys{key}"), &format!("value={value}")).unwrap();
    assert!(answer.status < 300, "{}", answer.status);
}

/// A job that is killed with its value.
pub(crate) struct Job(pub(crate) Child);

impl Job {
    pub(crate) fn start(arguments: &[String]) -> Self {
        let mut command = Command::new(etcdlift_path());
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it with SIGTERM, and returns what it said.
    pub(crate) fn stop(mut self) -> (i32, String) {
        assert_eq!(run(Command::new("kill").arg(self.0.id().to_string())).status, 0);
        self.end()
    }

    /// Waits for its end, and returns what it said: less than a pipe holds.
    pub(crate) fn end(&mut self) -> (i32, String) {
        wait_for("the end of the job", || self.0.try_wait().unwrap().is_some());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut text).unwrap();
        (self.0.wait().unwrap().code().unwrap_or(-1), text)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}
