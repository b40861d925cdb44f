//! `etcdlift online` with a real v2 source and real v3 clusters: kills, foreign keys, TLS, passwords, and every fault with
//! its one line.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::etcdctl::Etcdctl;
use crate::common::http;
use crate::common::peers::{self, Peers, Version};
use crate::common::ports::free_address;
use crate::common::run::{Output, bounded, etcdlift, etcdlift_path, run};
use crate::common::scratch;
use crate::common::server::{Boot, Server};

/// A v2 source and a v3 cluster of one member.
struct Pair {
    v2: Server,
    v3: Server,
    peers: Peers,
    temp: TempDir,
}

impl Pair {
    fn start(peers: &Peers, version: Version, args: &[&str]) -> Self {
        let temp = scratch::temp();
        let mut old = Boot::new(peers, Version::V3_4, &temp.path().join("v2"));
        old.enable_v2 = true;
        let mut new = Boot::new(peers, version, &temp.path().join("v3"));
        new.args = args.iter().map(ToString::to_string).collect();
        // Both at once: tests that each hold one slot would wait for each other.
        let slot = std::sync::Arc::new(crate::common::server::Slot::all());
        let mut servers = Server::start_all(&[old, new], &slot);
        let v3 = servers.pop().unwrap();
        Self { v2: servers.pop().unwrap(), v3, peers: peers.clone(), temp }
    }

    fn ctl(&self) -> Etcdctl {
        Etcdctl::new(&self.peers, &self.v3)
    }

    fn set(&self, key: &str, value: &str) {
        set(self.v2.client_address(), key, value);
    }

    fn delete(&self, key: &str) {
        let url = format!("http://{}/v2/keys{key}?recursive=true", self.v2.client_address());
        assert_eq!(run(Command::new("curl").args(["-s", "-XDELETE", &url])).status, 0);
    }

    fn arguments<'a>(&self, command: &'a str, more: &[&'a str]) -> Vec<String> {
        let mut all = vec!["online".to_string(), command.into()];
        if command != "finish" {
            all.extend(["--v2-endpoints".into(), format!("http://{}", self.v2.client_address())]);
        }
        all.extend(["--endpoints".into(), format!("http://{}", self.v3.client_address())]);
        all.extend(more.iter().map(ToString::to_string));
        all
    }

    fn online(&self, command: &str, more: &[&str]) -> Output {
        etcdlift(self.arguments(command, more))
    }

    fn job(&self, more: &[&str]) -> Job {
        let mut command = Command::new(etcdlift_path());
        command.args(self.arguments("copy", more)).stdout(Stdio::null()).stderr(Stdio::piped());
        Job(command.spawn().unwrap())
    }

    /// Keys and values below `/` in v3.
    fn v3_keys(&self) -> BTreeMap<String, String> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let rows = self.ctl().all().0.into_iter().map(|row| (text(row.key), text(row.value)));
        rows.filter(|(key, _)| key.starts_with('/')).collect()
    }
}

fn set(v2: SocketAddr, key: &str, value: &str) {
    let answer = http::put_form(v2, &format!("/v2/keys{key}"), &format!("value={value}")).unwrap();
    assert!(answer.status < 300, "{}", answer.status);
}

/// A job that is killed with its value.
struct Job(Child);

impl Job {
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it with SIGTERM, and returns what it said.
    fn stop(mut self) -> (i32, String) {
        assert_eq!(run(Command::new("kill").arg(self.0.id().to_string())).status, 0);
        self.end()
    }

    fn end(&mut self) -> (i32, String) {
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

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_job_killed_at_any_moment_goes_on() {
    let Some(peers) = peers::require("online::copy") else { return };
    for version in [Version::V3_4, Version::V3_5, Version::V3_6, Version::V3_7] {
        let pair = Pair::start(&peers, version, &[]);
        let v2 = pair.v2.client_address();
        (0..300).for_each(|number| set(v2, &format!("/k/{number}"), "first"));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    set(v2, &format!("/k/{}", number % 300), &number.to_string());
                    number += 1;
                }
            });
            for wait in [30, 120, 400, 800] {
                let job = pair.job(&["--lock-ttl", "2s"]);
                thread::sleep(Duration::from_millis(wait));
                job.kill();
            }
            done.store(true, Ordering::Relaxed);
        });
        pair.delete("/k/7");
        let once = pair.online("copy", &["--once", "--lock-ttl", "2s"]).success();
        assert!(once.stderr.contains("COMPLETE"), "{}", once.story());
        let verified = pair.online("verify", &["--json"]).success().json();
        assert_eq!((verified["equal"].as_u64(), verified["differing"].as_u64()), (Some(299), Some(0)), "{verified}");
        let status = pair.online("status", &["--json"]).success().json();
        assert_eq!((status["lag_entries"].as_u64(), status["conflicts"].as_u64()), (Some(0), Some(0)), "{status}");
        assert_eq!(pair.v3_keys().len(), 299);
    }
}

#[test]
fn what_v3_leads_stays_and_the_whole_way_to_the_end() {
    let Some(peers) = peers::require("online::copy") else { return };
    let pair = Pair::start(&peers, Version::V3_6, &[]);
    for key in ["/moved", "/foreign", "/plain", "/dir/a", "/dir/b"] {
        pair.set(key, "v2");
    }
    let answer = http::put_form(pair.v2.client_address(), "/v2/keys/timed", "value=t&ttl=100").unwrap();
    assert!(answer.status < 300);
    pair.ctl().put("/foreign", "v3");
    let job = pair.job(&[]);
    wait_for("the copy", || pair.v3_keys().len() == 6);
    let timed = pair.ctl().all().0.into_iter().find(|row| row.key == b"/timed").unwrap();
    assert!((90..=101).contains(&pair.ctl().time_to_live(timed.lease).0), "the lease has the time that is left");
    // A second job is refused, and says whose the lock is.
    let second = pair.online("copy", &["--lock-ttl", "2s"]);
    assert_eq!(second.status, 5, "{}", second.story());
    assert!(second.stderr.contains("has the lock of this migration"), "{}", second.story());
    pair.ctl().txn("\nput /moved v3\nput etcdlift/online/moved//moved \"\"\n\n\n");
    pair.set("/moved", "late");
    pair.set("/foreign", "late");
    pair.set("/plain", "new");
    pair.delete("/dir");
    wait_for("the changes", || !pair.v3_keys().contains_key("/dir/b") && pair.v3_keys()["/plain"] == "new");
    let keys = pair.v3_keys();
    assert_eq!((keys["/moved"].as_str(), keys["/foreign"].as_str()), ("v3", "v3"));
    let (status, text) = job.stop();
    assert_eq!((status, text.contains("STOPPED")), (143, true), "{text}");
    let listed = pair.online("status", &["--conflicts", "-"]).success().text();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert_eq!(pair.online("finish", &[]).status, 5, "the switch is off");
    pair.online("switch", &["--quiet-for", "1s"]).success();
    let refused = pair.online("finish", &[]);
    assert!(refused.status == 5 && refused.stderr.contains("--accept-conflicts"), "{}", refused.story());
    pair.online("finish", &["--accept-conflicts"]).success();
    let names: Vec<Vec<u8>> = pair.ctl().all().0.into_iter().map(|row| row.key).collect();
    let expected: [&[u8]; 5] = [b"/foreign", b"/moved", b"/plain", b"/timed", b"etcdlift/switch"];
    assert_eq!(names, expected);
}

#[test]
fn changes_of_moved_keys_while_no_job_runs_are_listed() {
    let Some(peers) = peers::require("online::copy") else { return };
    for by_directory in [true, false] {
        let pair = Pair::start(&peers, Version::V3_6, &[]);
        for key in ["/set", "/deleted", "/dir/below", "/plain"] {
            pair.set(key, "v2");
        }
        let run = |command: &str, more: &[&str]| {
            let mut arguments = pair.arguments(command, more);
            if by_directory {
                let dir = pair.temp.path().join("v2").display().to_string();
                arguments.splice(2..4, [dir]);
            }
            etcdlift(arguments)
        };
        let mut copy = pair.arguments("copy", &["--lock-ttl", "2s"]);
        if by_directory {
            copy.splice(2..4, [pair.temp.path().join("v2").display().to_string()]);
        }
        let mut command = Command::new(etcdlift_path());
        let job = Job(command.args(copy).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_for("the copy", || pair.v3_keys().len() == 4);
        // Until the progress is written, which is the place to go on from.
        thread::sleep(Duration::from_secs(1));
        job.kill();
        for key in ["/set", "/deleted", "/dir/below"] {
            pair.ctl().txn(&format!("\nput {key} v3\nput etcdlift/online/moved/{key} \"\"\n\n\n"));
        }
        pair.set("/set", "late");
        pair.delete("/deleted");
        pair.delete("/dir");
        pair.set("/plain", "late");
        let once = run("copy", &["--once", "--lock-ttl", "2s"]);
        assert!(once.status == 8 && once.stderr.contains("except 3 changes listed"), "{}", once.story());
        let listed = run("status", &["--conflicts", "-"]).success().text();
        assert_eq!(listed.lines().count(), 3, "{listed}");
        for key in ["/set", "/deleted", "/dir/below"] {
            assert!(listed.contains(&format!("\"{key}\"")), "{key}: {listed}");
        }
        assert!(!listed.contains("unknown-deletions"), "{listed}");
        assert_eq!(pair.v3_keys()["/plain"], "late");
        if by_directory {
            continue;
        }
        (0..1100).for_each(|number| pair.set("/plain", &number.to_string()));
        assert_eq!(run("copy", &["--once", "--lock-ttl", "2s"]).status, 8);
        let listed = run("status", &["--conflicts", "-"]).success().text();
        assert!(listed.contains("unknown-deletions"), "the history of the server is gone: {listed}");
    }
}

#[test]
fn an_undo_leaves_what_applications_wrote() {
    let Some(peers) = peers::require("online::copy") else { return };
    let pair = Pair::start(&peers, Version::V3_7, &[]);
    (0..100).for_each(|number| pair.set(&format!("/{number}"), "v2"));
    pair.online("copy", &["--once"]).success();
    pair.online("switch", &[]).success();
    pair.ctl().put("/1", "normal");
    pair.ctl().del("/2");
    pair.online("undo", &[]).success();
    assert_eq!(pair.v3_keys(), BTreeMap::from([("/1".to_string(), "normal".to_string())]));
    let rows = pair.ctl().all().0;
    let markers = rows.iter().filter(|row| row.key.starts_with(b"etcdlift/online/moved/"));
    assert_eq!(markers.count(), 2);
}

#[test]
fn a_revoked_lock_ends_the_job_and_no_space_is_named() {
    let Some(peers) = peers::require("online::copy") else { return };
    let pair = Pair::start(&peers, Version::V3_5, &["--quota-backend-bytes", "3000000"]);
    pair.set("/a", "v2");
    let mut job = pair.job(&[]);
    wait_for("the copy", || pair.v3_keys().len() == 1);
    pair.ctl().del("etcdlift/online/lock");
    pair.set("/a", "late");
    let (status, text) = job.end();
    assert_eq!((status, pair.v3_keys()["/a"].as_str()), (5, "v2"), "{text}");
    assert!(text.contains("the lock is lost") && text.contains("hint: run the command again"), "{text}");
    let large = "x".repeat(60_000);
    (0..150).for_each(|number| pair.set(&format!("/large/{number}"), &large));
    let full = pair.online("copy", &["--once", "--lock-ttl", "2s", "--in-flight", "1"]);
    assert_eq!(full.status, 5, "{}", full.story());
    assert!(
        full.stderr.contains("database space exceeded") && full.stderr.contains("alarm disarm"),
        "{}",
        full.story()
    );
    assert_eq!(full.stderr.matches("etcdlift: error:").count(), 1, "{}", full.story());
}

#[test]
fn a_user_with_a_password() {
    let Some(peers) = peers::require("online::copy") else { return };
    let pair = Pair::start(&peers, Version::V3_6, &["--auth-token-ttl", "1"]);
    pair.set("/a", "v2");
    pair.ctl().does(&["user", "add", "root:secret"]);
    pair.ctl().does(&["user", "grant-role", "root", "root"]);
    pair.ctl().does(&["user", "add", "poor:secret"]);
    pair.ctl().does(&["auth", "enable"]);
    let temp = scratch::temp();
    let file = |name: &str, text: &str| {
        let path = temp.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (right, wrong) = (file("right", "secret\n"), file("wrong", "guess\n"));
    for (arguments, expected) in [
        (vec![], "give --user"),
        (vec!["--user", "root", "--password-file", &wrong], "authentication failed"),
        (vec!["--user", "poor", "--password-file", &right], "permission denied"),
        (vec!["--user", "root:secret"], "list of processes"),
    ] {
        let refused = pair.online("copy", &[&["--once"], &arguments[..]].concat());
        assert!([2, 5].contains(&refused.status), "{}", refused.story());
        assert!(refused.stderr.contains(expected), "{}", refused.story());
        assert_eq!(refused.stderr.matches("etcdlift: error:").count(), 1, "{}", refused.story());
    }
    let login = ["--user", "root", "--password-file", &right];
    let job = pair.job(&login);
    // Longer than a token lives.
    thread::sleep(Duration::from_secs(4));
    pair.set("/a", "new");
    let ctl = Etcdctl::at(&pair.peers, pair.v3.client_address(), Some("root:secret"));
    wait_for("the change", || ctl.all().0.iter().any(|row| row.key == b"/a" && row.value == b"new"));
    let (status, text) = job.stop();
    assert_eq!(status, 143, "{text}");
}

#[test]
fn a_closed_port_has_one_line() {
    let closed = free_address().to_string();
    let began = Instant::now();
    let refused = etcdlift(["online", "status", "--endpoints", &closed]);
    assert_eq!(refused.status, 5, "{}", refused.story());
    let expected = format!("etcdlift: error: http://{closed}: cannot connect: Connection refused (os error 111)\n");
    assert!(refused.stderr.starts_with(&expected), "{}", refused.story());
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// Makes certificates with `openssl`: an authority, and one for 127.0.0.1.
fn certificates(dir: &Path, name: &str) {
    let script = r#"cd "$1" && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $2-ca.key \
        -out $2-ca.pem -days 2 -subj "/CN=$2" && openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -keyout $2.key -out $2.csr -subj /CN=127.0.0.1 && printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' \
        >$2.ext && openssl x509 -req -in $2.csr -CA $2-ca.pem -CAkey $2-ca.key -CAcreateserial -out $2.pem -days 2 -extfile $2.ext"#;
    let made = run(Command::new("sh").args(["-c", script, "sh"]).arg(dir).arg(name));
    assert_eq!(made.status, 0, "{}", made.story());
}

#[test]
fn certificates_are_checked_on_both_sides() {
    let Some(peers) = peers::require("online::copy") else { return };
    let temp = scratch::temp();
    certificates(temp.path(), "good");
    certificates(temp.path(), "other");
    let file = |name: &str| temp.path().join(name).display().to_string();
    let (client, peer) = (free_address(), free_address());
    let mut command = bounded(&peers.etcd(Version::V3_6), 60);
    let peer_url = format!("http://{peer}");
    command.args(["--data-dir", &file("data"), "--listen-peer-urls", &peer_url]);
    command.args(["--initial-advertise-peer-urls", &peer_url, "--initial-cluster", &format!("default={peer_url}")]);
    let url = format!("https://{client}");
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--client-cert-auth"]);
    command.args(["--trusted-ca-file", &file("good-ca.pem"), "--cert-file", &file("good.pem")]);
    command.args(["--key-file", &file("good.key")]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Job(command.spawn().unwrap());
    wait_for("the server", || TcpStream::connect(client).is_ok());
    let status = |endpoint: &str, files: &[&str]| {
        let mut all = vec!["online".to_string(), "status".into(), "--endpoints".into(), endpoint.into()];
        all.extend(["--retry-for".into(), "3s".into()]);
        for pair in files.chunks(2) {
            all.extend([pair[0].to_string(), file(pair[1])]);
        }
        etcdlift(all)
    };
    let good = ["--cacert", "good-ca.pem", "--cert", "good.pem", "--key", "good.key"];
    status(&url, &good).success();
    for (endpoint, files, expected) in [
        (&*url, &["--cacert", "other-ca.pem", "--cert", "good.pem", "--key", "good.key"][..], "TLS fails"),
        (&url, &["--cacert", "good-ca.pem", "--cert", "other.pem", "--key", "other.key"], "http"),
        (&format!("http://{client}"), &[], "http"),
    ] {
        let refused = status(endpoint, files);
        assert_eq!(refused.status, 5, "{}", refused.story());
        assert!(refused.stderr.contains(expected) && refused.stderr.contains("hint: "), "{}", refused.story());
        assert_eq!(refused.stderr.matches("etcdlift: error:").count(), 1, "{}", refused.story());
    }
}
