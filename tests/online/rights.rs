//! TLS, users and their rights, on both sides.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::peers::{self, Version};
use crate::common::run::{Output, bounded, etcdlift, etcdlift_path, run};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::common::tls::Certificates;
use crate::pair::{Pair, wait_for};

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A run that is refused, with one line that says this.
fn refused(output: &Output, expected: &str) {
    assert!([2, 5].contains(&output.status), "{}", output.story());
    assert!(output.stderr.contains(expected), "expected {expected}: {}", output.story());
    assert_eq!(output.stderr.matches("etcdlift: error:").count(), 1, "{}", output.story());
    assert_eq!(output.stderr.matches("hint: ").count(), 1, "{}", output.story());
}

#[test]
fn a_user_with_a_password() {
    let Some(peers) = peers::require("online::rights") else { return };
    let mut pair = Pair::start(&peers, Version::V3_6, &["--auth-token-ttl", "1"]);
    pair.set("/a", "v2");
    pair.ctl().does(&["user", "add", "root:secret"]);
    pair.ctl().does(&["user", "grant-role", "root", "root"]);
    pair.ctl().does(&["user", "add", "poor:secret"]);
    pair.ctl().does(&["auth", "enable"]);
    pair.v3_user = Some("root:secret".into());
    let (right, wrong) = (file(pair.temp.path(), "right", "secret\n"), file(pair.temp.path(), "wrong", "guess\n"));
    for (arguments, expected) in [
        (vec![], "give --user"),
        (vec!["--user", "root", "--password-file", &wrong], "authentication failed"),
        (vec!["--user", "poor", "--password-file", &right], "permission denied"),
        (vec!["--user", "root:secret"], "list of processes"),
    ] {
        refused(&pair.online("copy", &[&["--once"], &arguments[..]].concat()), expected);
    }
    let login = ["--user", "root", "--password-file", &right];
    let job = pair.job(&login);
    // Longer than a token lives.
    thread::sleep(Duration::from_secs(4));
    pair.set("/a", "new");
    wait_for("the change", || pair.v3_keys().get("/a").is_some_and(|value| value == "new"));
    let (status, text) = job.stop();
    assert_eq!(status, 143, "{text}");
}

#[test]
fn certificates_are_checked_on_both_sides() {
    let Some(peers) = peers::require("online::rights") else { return };
    let temp = scratch::temp();
    let (good, other) = (Certificates::make(temp.path(), "good"), Certificates::make(temp.path(), "other"));
    let server =
        Server::start(&Boot { tls: Some(good.clone()), ..Boot::new(&peers, Version::V3_6, &temp.path().join("data")) });
    let url = format!("https://{}", server.client_address());
    let status = |endpoint: &str, files: Vec<String>| {
        let all = ["online", "status", "--retry-for", "3s", "--endpoints", endpoint].map(String::from);
        etcdlift(all.into_iter().chain(files))
    };
    status(&url, good.options("")).success();
    for (endpoint, files, expected) in [
        (&*url, Certificates { ca: other.ca.clone(), ..good.clone() }.options(""), "TLS fails"),
        (&url, Certificates { ca: good.ca.clone(), ..other }.options(""), "http"),
        (&url.replace("https", "http"), vec![], "http"),
    ] {
        refused(&status(endpoint, files), expected);
    }
}

/// Adds users to v2, of whom `root` may do all, `reader` may read all keys, and `poor` may read a part of them.
fn enable_v2_login(pair: &mut Pair) {
    let user = |name: &str, roles: &str| {
        let json = format!(r#"{{"user":"{name}","password":"old-{name}","roles":[{roles}]}}"#);
        pair.ask_v2("PUT", &format!("/v2/auth/users/{name}"), &json);
    };
    let role = |name: &str, read: &str| {
        let json = format!(r#"{{"role":"{name}","permissions":{{"kv":{{"read":[{read}],"write":[]}}}}}}"#);
        pair.ask_v2("PUT", &format!("/v2/auth/roles/{name}"), &json);
    };
    role("reader", r#""/*""#);
    role("poor", r#""/app/*""#);
    user("root", r#""root""#);
    user("reader", r#""reader""#);
    user("poor", r#""poor""#);
    pair.ask_v2("PUT", "/v2/auth/enable", "");
    pair.v2_user = Some("root:old-root".into());
    let all = r#"{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}}}"#;
    pair.ask_v2("PUT", "/v2/auth/roles/guest", all);
}

#[test]
fn the_v2_api_with_certificates_and_users() {
    let Some(peers) = peers::require("online::rights") else { return };
    let mut pair = Pair::with_tls(&peers, Version::V3_5);
    pair.set("/app/a", "v2");
    enable_v2_login(&mut pair);
    let other = Certificates::make(pair.temp.path(), "other");
    let (right, wrong) = (file(pair.temp.path(), "right", "old-reader\n"), file(pair.temp.path(), "wrong", "guess\n"));
    let poor = file(pair.temp.path(), "poor", "old-poor\n");
    let reader = ["--v2-user", "reader", "--v2-password-file", &right];
    for (arguments, expected) in [
        (vec![], "refuses a request without a user"),
        (vec!["--v2-user", "reader", "--v2-password-file", &wrong], "refuses user reader"),
        (vec!["--v2-user", "poor", "--v2-password-file", &poor], "refuses user poor"),
        (vec!["--v2-user", "reader:old-reader"], "list of processes"),
    ] {
        refused(&pair.online("copy", &[&["--once"], &arguments[..]].concat()), expected);
    }
    let (right_ca, right_cert) = (pair.temp.path().join("old-ca.pem"), pair.temp.path().join("old.pem"));
    for (wrong, of, by) in [("the authority", &right_ca, &other.ca), ("the certificate", &right_cert, &other.cert)] {
        let mut arguments = pair.arguments("copy", &[&["--once"], &reader[..]].concat());
        let at = arguments.iter().position(|argument| *argument == of.display().to_string()).unwrap();
        arguments[at] = by.display().to_string();
        if wrong == "the certificate" {
            arguments[at + 2] = other.key.display().to_string();
        }
        let began = Instant::now();
        refused(&etcdlift(arguments), "TLS fails");
        assert!(began.elapsed() < Duration::from_secs(20), "{wrong}");
    }
    let without_tls = pair.v2_url().replace("https", "http");
    let mut arguments = pair.arguments("copy", &[&["--once", "--retry-for", "2s"], &reader[..]].concat());
    arguments[3] = without_tls;
    refused(&etcdlift(arguments), "https");
    assert!(pair.v3_keys().is_empty());
    // The password in the environment.
    let arguments = pair.arguments("copy", &["--once", "--v2-user", "reader"]);
    let mut command = bounded(Path::new(etcdlift_path()), 60);
    run(command.args(arguments).env("ETCDLIFT_V2_PASSWORD", "old-reader")).success();
    // A right that goes while the job follows: one line, and the next job goes on.
    let mut job = pair.job(&reader);
    pair.set("/app/a", "new");
    wait_for("the change", || pair.v3_keys()["/app/a"] == "new");
    pair.ask_v2("PUT", "/v2/auth/roles/reader", r#"{"role":"reader","revoke":{"kv":{"read":["/*"]}}}"#);
    pair.set("/app/a", "late");
    let (status, text) = job.end();
    assert!(status == 5 && text.matches("etcdlift: error:").count() == 1, "{status} {text}");
    assert!(text.contains("refuses user reader"), "{text}");
    pair.ask_v2("PUT", "/v2/auth/roles/reader", r#"{"role":"reader","grant":{"kv":{"read":["/*"]}}}"#);
    pair.online("copy", &[&["--once"], &reader[..]].concat()).success();
    assert_eq!(pair.v3_keys()["/app/a"], "late");
    pair.online("verify", &reader).success();
}

/// Makes a user of v3 that may read and write these keys alone: a prefix ends in `*`.
fn enable_v3_login(pair: &mut Pair, ranges: &[&str]) {
    let ctl = pair.ctl();
    ctl.does(&["user", "add", "root:new-root"]);
    ctl.does(&["user", "grant-role", "root", "root"]);
    ctl.does(&["role", "add", "lift"]);
    for range in ranges {
        let (range, prefix) = match range.strip_suffix('*') {
            Some(range) => (range, vec!["--prefix"]),
            None => (*range, vec![]),
        };
        ctl.does(&[&["role", "grant-permission", "lift", "readwrite", range], &prefix[..]].concat());
    }
    ctl.does(&["user", "add", "lift:new-lift"]);
    ctl.does(&["user", "grant-role", "lift", "lift"]);
    ctl.does(&["auth", "enable"]);
    pair.v3_user = Some("root:new-root".into());
}

/// The whole life of a migration between two clusters with TLS and passwords. The user of v3 has the rights that
/// docs/online.md names, and cannot read all keys.
#[test]
fn a_migration_with_few_rights_between_clusters_with_certificates_and_users() {
    let Some(peers) = peers::require("online::rights") else { return };
    let mut pair = Pair::with_tls(&peers, Version::V3_6);
    for key in ["/app/a", "/app/b", "/app/c", "/dir/a", "/dir/b"] {
        pair.set(key, "v2");
    }
    pair.ctl().put("theirs", "v3");
    pair.ctl().put("zoo", "v3");
    enable_v2_login(&mut pair);
    enable_v3_login(&mut pair, &["/*", "etcdlift/online/*", "etcdlift/switch"]);
    let (old, new) = (file(pair.temp.path(), "old", "old-reader\n"), file(pair.temp.path(), "new", "new-lift\n"));
    let v3 = ["--user", "lift", "--password-file", &new];
    let both = [&["--v2-user", "reader", "--v2-password-file", &old][..], &v3].concat();
    let online = |command: &str, more: &[&str]| pair.online(command, &[&both[..], more].concat());
    // Nobody may write to the state: nothing is written at all.
    let elsewhere = ["--state-prefix", "elsewhere/", "--once"];
    refused(&online("copy", &elsewhere), "permission denied");
    assert!(pair.v3_keys().is_empty());
    let job = pair.job(&[&both[..], &["--lock-ttl", "2s"]].concat());
    wait_for("the copy", || pair.v3_keys().len() == 5);
    // Until the progress is written.
    thread::sleep(Duration::from_secs(1));
    job.kill();
    pair.ctl().txn("\nput /app/b v3\nput etcdlift/online/moved//app/b \"\"\n\n\n");
    pair.set("/app/a", "new");
    pair.delete("/app/c");
    pair.delete("/dir");
    let keys = |pair: &Pair| pair.v3_keys().into_iter().map(|(key, value)| key + "=" + &value).collect::<Vec<_>>();
    online("copy", &["--once", "--lock-ttl", "2s"]).success();
    assert_eq!(keys(&pair), ["/app/a=new", "/app/b=v3"]);
    let verified = online("verify", &["--json"]).success().json();
    assert_eq!((verified["equal"].as_u64(), verified["moved"].as_u64()), (Some(1), Some(1)), "{verified}");
    online("switch", &[]).success();
    online("undo", &[]).success();
    assert_eq!(keys(&pair), ["/app/b=v3"]);
    online("copy", &["--once"]).success();
    online("verify", &[]).success();
    online("switch", &[]).success();
    let finished = pair.online("finish", &v3);
    finished.success();
    assert_eq!(keys(&pair), ["/app/a=new", "/app/b=v3"]);
    let rest: Vec<_> =
        pair.ctl().all().0.into_iter().filter(|row| !row.key.starts_with(b"/")).map(|row| row.key).collect();
    assert_eq!(rest, [&b"etcdlift/switch"[..], b"theirs", b"zoo"]);
}

/// The user may not even look at what rules leave out, also where a whole directory of that goes.
#[test]
fn a_user_with_rights_on_a_part_of_the_keys() {
    let Some(peers) = peers::require("online::rights") else { return };
    let mut pair = Pair::start(&peers, Version::V3_5, &[]);
    for key in ["/app/a", "/app/dir/b", "/other/dir/c", "/other/d"] {
        pair.set(key, "v2");
    }
    enable_v3_login(&mut pair, &["/app*", "etcdlift/online/*", "etcdlift/switch"]);
    let new = file(pair.temp.path(), "new", "new-lift\n");
    let login = ["--user", "lift", "--password-file", &new];
    let job = pair.job(&[&login[..], &["--include", "/app"]].concat());
    wait_for("the copy", || pair.v3_keys().len() == 2);
    thread::sleep(Duration::from_secs(1));
    pair.delete("/other/dir");
    pair.delete("/app/dir");
    pair.delete("/other");
    pair.set("/app/a", "new");
    wait_for("the changes", || pair.v3_keys().values().eq(["new"]));
    pair.online("verify", &login).success();
    let (status, text) = job.stop();
    assert_eq!(status, 143, "{text}");
    pair.delete("/app");
    pair.online("copy", &[&login[..], &["--once", "--include", "/app"]].concat()).success();
    assert!(pair.v3_keys().is_empty());
}

/// etcd knows the user by the common name of its certificate. Which keys it may read, only `--user` tells.
#[test]
fn a_user_of_a_certificate_with_rights_on_a_part_of_the_keys() {
    let Some(peers) = peers::require("online::rights") else { return };
    let mut pair = Pair::with_tls(&peers, Version::V3_6);
    for key in ["/app/a", "/app/b"] {
        pair.set(key, "v2");
    }
    enable_v3_login(&mut pair, &["/app/*", "etcdlift/online/*", "etcdlift/switch"]);
    // The common name of the certificates of tests.
    let name = "127.0.0.1";
    pair.ctl().add_user(name, "new-cert");
    pair.ctl().does(&["user", "grant-role", name, "lift"]);
    pair.online("copy", &["--once"]).success();
    assert_eq!(pair.v3_keys().len(), 2);
    pair.delete("/app/b");
    let expected = "the user of the certificate may not read all keys\nhint: without --user";
    for command in ["copy", "verify", "switch", "undo"] {
        let more: &[&str] = if command == "copy" { &["--once"] } else { &[] };
        refused(&pair.online(command, more), expected);
    }
    assert_eq!(pair.v3_keys().len(), 2);
    let password = file(pair.temp.path(), "password", "new-cert\n");
    let login = ["--user", name, "--password-file", &password];
    pair.online("copy", &[&login[..], &["--once"]].concat()).success();
    assert_eq!(pair.v3_keys().len(), 1);
    pair.online("verify", &login).success();
    // With the right to read everything, the certificate is enough.
    pair.ctl().does(&["role", "grant-permission", "lift", "read", "", "--prefix"]);
    pair.set("/app/c", "v2");
    pair.online("copy", &["--once"]).success();
    pair.online("verify", &[]).success();
    pair.online("switch", &[]).success();
    pair.online("undo", &[]).success();
    assert!(pair.v3_keys().is_empty());
}
