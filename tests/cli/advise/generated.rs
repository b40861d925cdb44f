//! Generated directories: each use of v2 gives its findings, with exact counts, and nothing else.

use std::path::Path;

use super::{advise, finding, json};
use crate::common::v2files::{self, Request};
use crate::common::v2store::{Node, escaped, joined, leaf, leaf_until, store, store_of, store_with_events};
use crate::common::{golden, scratch};

const NODE: u64 = 7;
const LATER: &str = "2040-01-01T00:00:00Z";
/// UNIX seconds of that instant.
const LATER_SECONDS: u64 = 2_208_988_800;

/// Topic, count, requests, refused requests, events.
type Expected<'a> = (&'a str, u64, u64, u64, u64);

/// Writes a data directory with this store, and these requests after it.
fn write(dir: &Path, store: String, requests: impl IntoIterator<Item = Request>) {
    let snapshot = v2files::write_snapshot(dir, store.into_bytes(), 10, 2, NODE, 9);
    v2files::write_wal(dir, &snapshot, NODE, 1, requests.into_iter().map(Request::bytes));
}

/// Compares all findings of such a directory, in their order.
fn expect(store: String, requests: impl IntoIterator<Item = Request>, options: &[&str], expected: &[Expected<'_>]) {
    let temp = scratch::temp();
    write(temp.path(), store, requests);
    let advice = json(temp.path(), options);
    let field = |finding: &serde_json::Value, name: &str| finding[name].as_u64().unwrap();
    let found: Vec<Expected<'_>> = advice["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| {
            let counts = ["count", "requests", "refused", "events"].map(|name| field(of, name));
            (of["topic"].as_str().unwrap(), counts[0], counts[1], counts[2], counts[3])
        })
        .collect();
    assert_eq!(found, expected);
}

/// As [`expect`], for requests to an empty store.
fn expect_requests(requests: impl IntoIterator<Item = Request>, expected: &[Expected<'_>]) {
    expect(store(9, ""), requests, &[], expected);
}

fn put(key: &str) -> Request {
    Request::new("PUT", &format!("/1{key}")).value(b"v")
}

fn post(key: &str) -> Request {
    Request::new("POST", &format!("/1{key}")).value(b"v")
}

fn delete(key: &str) -> Request {
    Request::new("DELETE", &format!("/1{key}"))
}

fn sync(at: u64) -> Request {
    Request::new("SYNC", "").time(at)
}

#[test]
fn plain_keys_rely_on_nothing_and_the_text_says_so() {
    let temp = scratch::temp();
    write(temp.path(), store(9, &joined([leaf("a", 3, "x"), leaf("b", 4, "y")])), [put("/c"), put("/a"), delete("/b")]);
    let output = advise(&[temp.path()], &[]).success();
    let first = output.text().lines().next().unwrap().to_string();
    let path = temp.path().display();
    assert_eq!(first, format!("NOTHING FOUND: {path} relies on no v2 behaviour that v3 does not have"));
    assert!(output.text().contains("\ncontent:      2 keys, 0 directories\n"), "{}", output.story());
    assert_eq!(json(temp.path(), &[])["findings"], serde_json::json!([]));
    assert_eq!(advise(&[temp.path()], &["--quiet"]).text(), format!("{first}\n"));
}

#[test]
fn the_demo_as_text() {
    golden::golden("fixtures/demo/expected/advise.txt", advise(&[Path::new(super::DEMO)], &[]).success().stdout);
}

#[test]
fn directories() {
    let empty = Node::dir("/1/e", 4, "").child();
    let full = Node::dir("/1/d", 3, &leaf("d/a", 3, "x")).child();
    expect(
        store(9, &joined([full.clone(), empty])),
        [],
        &[],
        &[("directory", 1, 0, 0, 0), ("empty-directory", 1, 0, 0, 0)],
    );
    let many = |count: u64| {
        let leaves = (0..count).map(|at| leaf(&format!("d/{at:04}x"), at + 2, "x"));
        store(count + 2, &Node::dir("/1/d", 2, &joined(leaves)).modified(count + 2).child())
    };
    expect(many(900), [], &[], &[("directory", 1, 0, 0, 0)]);
    let found = [("directory", 1, 0, 0, 0), ("large-directory", 1, 0, 0, 0), ("event-window", 0, 0, 0, 2)];
    expect(many(1000), [], &[], &found);
    // `/1/d` begins `/1/d!` and `/1/da`; a file has no prefix to read.
    let siblings = joined([full.clone(), leaf("d!", 4, "x"), leaf("da", 5, "x"), leaf("dab", 6, "x")]);
    expect(store(9, &siblings), [], &[], &[("directory", 1, 0, 0, 0), ("shared-prefix", 1, 0, 0, 0)]);
    expect(store(9, &joined([full, leaf("e", 6, "x")])), [], &[], &[("directory", 1, 0, 0, 0)]);
}

#[test]
fn names() {
    let hidden = joined([leaf("_a", 3, "x"), Node::dir("/1/_d", 4, &leaf("_d/a", 4, "x")).child(), leaf("a_", 5, "x")]);
    expect(store(9, &hidden), [], &[], &[("directory", 1, 0, 0, 0), ("hidden-key", 2, 0, 0, 0)]);
    let names = [leaf("q/00000000000000000005", 5, "x"), leaf("q/6", 6, "x"), leaf("q/7", 8, "x")];
    let queue = |names: &[String]| store(9, &Node::dir("/1/q", 5, &joined(names.iter().cloned())).child());
    let found = [("directory", 1, 0, 0, 0), ("in-order-key", 2, 0, 0, 0)];
    expect(queue(&names), [], &[], &found);
    let names = [leaf("q/5", 5, "x"), leaf("q/6", 6, "x"), leaf("q/8", 8, "x")];
    let found = [("directory", 1, 0, 0, 0), ("in-order-key", 3, 0, 0, 0), ("queue", 1, 0, 0, 0)];
    expect(queue(&names), [], &[], &found);
    // etcd escapes the character only in place of a byte that is not UTF-8.
    let replaced = joined([leaf("a", 3, "\\ufffd"), leaf("\\ufffd", 4, "x"), leaf("ü", 5, "\u{fffd}")]);
    expect(store(9, &replaced), [], &[], &[("invalid-utf8", 2, 0, 0, 0)]);
    expect_requests([put("/a").value(b"\xff"), put("/b")], &[("invalid-utf8", 1, 0, 0, 0)]);
    let spellings = [put("//a"), put("/a/"), put("/a")];
    expect_requests(spellings, &[("unclean-path", 1, 2, 0, 0)]);
}

#[test]
fn names_after_the_rules_of_a_conversion() {
    let keys = || store(9, &joined([leaf("a", 3, "x"), leaf("b", 4, "y")]));
    expect(keys(), [], &["--strip-leading-slash"], &[("no-leading-slash", 2, 0, 0, 0)]);
    expect(keys(), [], &["--map", "/a=/b"], &[("equal-name", 2, 0, 0, 0)]);
    expect(keys(), [], &["--map", "/a=c"], &[("no-leading-slash", 1, 0, 0, 0)]);
    expect(keys(), [], &["--map", "/a=/c"], &[]);
}

#[test]
fn values() {
    expect(store(9, &joined([leaf("a", 3, ""), leaf("b", 4, "x")])), [], &[], &[("empty-value", 1, 0, 0, 0)]);
    // The request has 512 bytes besides the key `/a` and the value.
    let fits = 1_572_864 - 512 - 2;
    for (bytes, found) in [(fits, &[][..]), (fits + 1, &[("large-value", 1, 0, 0, 0)])] {
        expect(store(9, &leaf("a", 3, &"x".repeat(bytes))), [], &[], found);
    }
    let large = "x".repeat(fits + 1);
    expect_requests([put("/a").value(large.as_bytes()), put("/a")], &[("large-value", 0, 1, 0, 0)]);
    let shared = joined([leaf("a", 3, "x"), leaf("b", 3, "x"), leaf("c", 4, "x")]);
    expect(store(9, &shared), [], &[], &[("shared-index", 2, 0, 0, 0)]);
}

#[test]
fn conditions() {
    // The index of the store is 9, so the PUT has 10.
    let swaps = || [put("/a"), put("/a").prev_value(b"v"), put("/a").prev_value(b"w"), put("/b").prev_index(3)];
    let found = [("compare-and-swap", 2, 3, 2, 0), ("compare-index", 1, 1, 1, 0), ("optimistic-update", 1, 3, 0, 0)];
    expect_requests(swaps(), &found);
    let deletions = [put("/a"), delete("/a").prev_index(3), delete("/a").prev_index(10)];
    let found = [("compare-and-delete", 1, 2, 1, 0), ("compare-index", 1, 2, 1, 0), ("optimistic-update", 1, 3, 0, 0)];
    expect_requests(deletions, &found);
    expect_requests([put("/a").prev_exist(false), put("/a").prev_exist(false)], &[("create-only", 1, 2, 1, 0)]);
    expect_requests(
        [put("/a").prev_exist(true), put("/b"), put("/b").prev_exist(true)],
        &[("update-only", 2, 2, 1, 0)],
    );
}

#[test]
fn directories_in_the_log() {
    let dir = |key: &str| Request::new("PUT", &format!("/1{key}")).dir();
    let found = [
        ("empty-directory", 1, 0, 0, 0),
        ("create-directory", 1, 2, 1, 0),
        // The second request is refused, because the node is a directory.
        ("file-or-directory", 1, 1, 1, 0),
    ];
    expect_requests([dir("/d"), dir("/d")], &found);
    let deletions = [put("/d/a"), delete("/d").dir(), delete("/d").recursive(), delete("/e").dir().recursive()];
    expect_requests(deletions, &[("recursive-delete", 2, 2, 1, 0), ("directory-delete", 1, 1, 1, 0)]);
    expect_requests([put("/a"), put("/a/b")], &[("file-or-directory", 1, 1, 1, 0)]);
}

#[test]
fn ttls() {
    let key = leaf_until("a", 3, "x", LATER);
    expect(store(9, &key), [], &[], &[("ttl-key", 1, 0, 0, 0)]);
    let children = joined([leaf("d/a", 4, "x"), leaf_until("d/b", 5, "x", LATER)]);
    let dir = Node::dir("/1/d", 4, &children).expires(LATER).child();
    let found =
        [("directory", 1, 0, 0, 0), ("ttl-key", 1, 0, 0, 0), ("ttl-directory", 1, 0, 0, 0), ("nested-ttl", 1, 0, 0, 0)];
    expect(store(9, &dir), [], &[], &found);
    let later = LATER_SECONDS;
    let short = [sync(later), put("/a").expires(later + 5), put("/b").expires(later + 6), sync(later + 10)];
    let found = [("ttl-key", 0, 2, 0, 0), ("short-ttl", 1, 1, 0, 0), ("expiry", 0, 1, 0, 0)];
    expect_requests(short, &found);
    // Without a SYNC, the TTL is unknown.
    expect_requests([put("/a").expires(later)], &[("ttl-key", 1, 1, 0, 0)]);
    let refreshed = [put("/a").expires(later), put("/a").prev_exist(true).expires(later + 9).refresh()];
    let found = [("update-only", 1, 1, 0, 0), ("ttl-key", 1, 2, 0, 0), ("refresh", 1, 1, 0, 0)];
    expect_requests(refreshed, &found);
    let dir = Request::new("PUT", "/1/d").dir().expires(later);
    let found = [("empty-directory", 1, 0, 0, 0), ("create-directory", 1, 1, 0, 0), ("ttl-directory", 1, 1, 0, 0)];
    expect_requests([dir], &found);
}

#[test]
fn reads() {
    let get = || Request::new("QGET", "/1/a");
    expect_requests([get(), get().sorted()], &[("quorum-read", 1, 2, 0, 0), ("sorted-read", 1, 1, 0, 0)]);
    expect(store(1000, ""), [], &[], &[]);
    expect(store(1000, ""), [put("/a")], &[], &[("event-window", 0, 0, 0, 1)]);
}

#[test]
fn patterns() {
    let later = LATER_SECONDS;
    let lock = [
        put("/l").prev_exist(false).expires(later),
        put("/l").prev_value(b"v").expires(later + 1),
        put("/l").prev_exist(false).expires(later + 2),
        delete("/l").prev_value(b"v"),
    ];
    let found = [
        ("compare-and-swap", 1, 1, 0, 0),
        ("compare-and-delete", 1, 1, 0, 0),
        ("create-only", 1, 2, 1, 0),
        ("ttl-key", 0, 3, 1, 0),
        ("lock", 1, 4, 0, 0),
    ];
    expect_requests(lock, &found);
    let beats = (0..3).map(|at| put("/h").expires(later + at));
    expect_requests(beats, &[("ttl-key", 1, 3, 0, 0), ("heartbeat", 1, 3, 0, 0)]);
    let found = [("directory", 1, 0, 0, 0), ("in-order-key", 2, 2, 0, 0)];
    expect_requests([post("/q"), post("/q")], &found);
    // One of the two is the name that the server gave.
    let taken = [post("/q"), post("/q"), post("/q"), delete("/q/10"), delete("/q/00000000000000000010")];
    let found = [("directory", 1, 0, 0, 0), ("in-order-key", 2, 3, 0, 0), ("queue", 1, 3, 0, 0)];
    expect_requests(taken, &found);
}

#[test]
fn users_and_roles() {
    let role = |name: &str, read: &str, write: &str| {
        let document = format!(r#"{{"role":"{name}","permissions":{{"kv":{{"read":[{read}],"write":[{write}]}}}}}}"#);
        Node::file(&format!("/2/roles/{name}"), 5, &escaped(&document)).child()
    };
    let user = |name: &str, roles: &str| {
        let document = format!(r#"{{"user":"{name}","password":"$2a$10$x","roles":[{roles}]}}"#);
        Node::file(&format!("/2/users/{name}"), 5, &escaped(&document)).child()
    };
    let auth = |enabled: &str| {
        let roles = joined([role("guest", r#""/a","/b*""#, r#""/a""#), role("reader", r#""/c*""#, "")]);
        let users = joined([
            user("ann", r#""reader""#),
            user("bob", ""),
            user("cyd", r#""missing""#),
            user("root", r#""root""#),
        ]);
        let children = joined([
            Node::file("/2/enabled", 6, enabled).child(),
            Node::dir("/2/roles", 0, &roles).child(),
            Node::dir("/2/users", 0, &users).child(),
        ]);
        let keys = Node::dir("/1", 0, &leaf("k", 8, "v")).child();
        store_of(9, &joined([keys, Node::dir("/2", 0, &children).child()]), "null")
    };
    let rest = [("user", 4, 0, 0, 0), ("user-without-role", 2, 0, 0, 0), ("wildcard-permission", 2, 0, 0, 0)];
    expect(auth("false"), [], &[], &rest);
    expect(auth("true"), [], &[], &[rest[0], rest[1], ("guest-access", 2, 0, 0, 0), rest[2]]);
}

#[test]
fn users_that_cannot_be_read_are_a_warning() {
    let temp = scratch::temp();
    write(temp.path(), crate::common::v2store::auth_store(&[("bob", "$2a$10$secret")], &[]), []);
    let output = advise(&[temp.path()], &[]).success();
    let text = super::words(&output.text());
    assert!(text.contains("1 user and 0 roles are not judged: user bob:") && !text.contains("secret"), "{text}");
    assert!(text.contains("[auth-unreadable]"), "{text}");
}

#[test]
fn the_history_of_a_snapshot() {
    let event = |action: &str, node: &str, rest: &str| format!(r#"{{"action":"{action}","node":{{{node}}}{rest}}}"#);
    let key = |key: &str| format!(r#""key":"{key}","value":"v","modifiedIndex":5,"createdIndex":5"#);
    let until = |key: &str, ttl: u64| format!(r#""key":"{key}","expiration":"{LATER}","ttl":{ttl}"#);
    let previous = r#","prevNode":{"key":"/1/a","value":"u"}"#;
    let events = joined([
        event("set", &key("/1/a"), ""),
        event("create", &key("/1/a"), ""),
        event("create", &key("/1/q/5"), ""),
        // Some releases leave the namespace out.
        event("compareAndSwap", &key("/a"), previous),
        event("compareAndDelete", &key("/1/a"), previous),
        event("update", &until("/1/t", 60), previous),
        event("set", &until("/1/t", 5), r#","refresh":true"#),
        event("set", &format!("{},\"dir\":true", until("/1/d", 60)), ""),
        event("expire", &key("/1/t"), previous),
        event("compareAndSwap", &key("/0/members/1/attributes"), previous),
        "null".to_string(),
    ]);
    let found = [
        ("create-directory", 0, 0, 0, 1),
        ("in-order-key", 0, 0, 0, 1),
        ("compare-and-swap", 0, 0, 0, 1),
        ("compare-and-delete", 0, 0, 0, 1),
        ("create-only", 0, 0, 0, 1),
        ("update-only", 0, 0, 0, 1),
        ("ttl-key", 0, 0, 0, 2),
        ("ttl-directory", 0, 0, 0, 1),
        ("short-ttl", 0, 0, 0, 1),
        ("refresh", 0, 0, 0, 1),
        ("expiry", 0, 0, 0, 1),
    ];
    expect(store_with_events(9, &leaf("a", 3, "x"), &events), [], &[], &found);
    let temp = scratch::temp();
    write(temp.path(), store_with_events(9, "", &events), []);
    let advice = json(temp.path(), &[]);
    assert_eq!(advice["basis"]["events"], 9);
    assert_eq!(finding(&advice, "in-order-key").unwrap()["examples"], serde_json::json!(["/q"]));
}

#[test]
fn examples_are_limited() {
    let temp = scratch::temp();
    write(temp.path(), store(9, &joined([leaf("_a", 3, "x"), leaf("_b", 4, "x"), leaf("_c", 5, "x")])), []);
    for (limit, examples, more) in
        [("2", &["/_a", "/_b"][..], true), ("3", &["/_a", "/_b", "/_c"], false), ("0", &[], true)]
    {
        let advice = json(temp.path(), &["--examples", limit]);
        let found = finding(&advice, "hidden-key").unwrap();
        assert_eq!((&found["examples"], &found["more"]), (&serde_json::json!(examples), &more.into()));
        assert_eq!(found["count"], 3);
    }
    assert!(advise(&[temp.path()], &["--examples", "2"]).text().contains("examples:  \"/_a\", \"/_b\", ...\n"));
}

#[test]
fn a_key_cannot_control_the_terminal() {
    let temp = scratch::temp();
    write(temp.path(), store(9, &leaf("_\\u001b[2J", 3, "x")), []);
    let text = advise(&[temp.path()], &[]).success().text();
    assert!(text.contains("/_\\u{1b}[2J") && !text.contains('\x1b'), "{text}");
}
