//! The exact effects of each operation, one request at a time.
//!
//! Each test starts from an empty tree, or from a few nodes, with the rules of one version.

use super::*;
use crate::v2store::dialect::Version;
use crate::v2store::table::Table;
use crate::v2store::tree::NodeRef;

struct Store {
    replay: Replay<'static>,
}

/// Returns a store with the rules of the newest patch of a line.
fn store(version: (u32, u32)) -> Store {
    store_of(Version::new(version.0, version.1, 99))
}

fn store_of(version: Version) -> Store {
    let table: &'static Table<'static> = Box::leak(Box::new(Table::empty()));
    Store { replay: Replay::new(Tree::new(table), Voters::default(), Rules::of(version), RaftIndex(0)) }
}

impl Store {
    fn run(&mut self, request: Request<'static>) -> Effect {
        let entry = Entry {
            kind: EntryKind::Normal,
            term: crate::ids::Term(1),
            index: RaftIndex(self.replay.applied.0 + 1),
            data: &[],
            data_offset: ByteOffset(0),
        };
        self.replay.request(&request, &entry).unwrap()
    }

    fn put(&mut self, path: &'static str, val: &'static str) -> Effect {
        self.run(Request { method: Method::Put, path: path.as_bytes(), val: val.as_bytes(), ..Request::default() })
    }

    fn node(&mut self, path: &str) -> Option<(String, u64, u64)> {
        let node: NodeRef = self.replay.tree.lookup(path.as_bytes()).ok()?;
        let tree = &self.replay.tree;
        let value = String::from_utf8(tree.value(node).into_owned()).unwrap();
        Some((value, tree.created(node).0, tree.modified(node).0))
    }

    fn index(&self) -> u64 {
        self.replay.tree.current_index.0
    }
}

fn put(path: &'static str, val: &'static str) -> Request<'static> {
    Request { method: Method::Put, path: path.as_bytes(), val: val.as_bytes(), ..Request::default() }
}

#[test]
fn set_resets_the_created_index_and_update_keeps_it() {
    let mut s = store((2, 3));
    assert_eq!(s.put("/1/a/b", "x"), Effect::Changed);
    assert_eq!(s.put("/1/a/b", "y"), Effect::Changed);
    assert_eq!(s.node("/1/a/b"), Some(("y".into(), 2, 2)));
    assert_eq!(s.node("/1/a"), Some(("".into(), 1, 1)));
    s.run(Request { prev_exist: Some(true), ..put("/1/a/b", "z") });
    assert_eq!(s.node("/1/a/b"), Some(("z".into(), 2, 3)));
    assert_eq!(s.put("/1/a", "z"), Effect::Refused(NOT_FILE));
    assert_eq!(s.put("/1/a/b/c", "z"), Effect::Refused(NOT_DIR));
    assert_eq!(s.put("/1", "z"), Effect::Refused(ROOT_READ_ONLY));
    assert_eq!(s.run(Request { prev_exist: Some(false), ..put("/1/a/b", "z") }), Effect::Refused(NODE_EXIST));
    assert_eq!(s.index(), 3);
}

#[test]
fn compares_value_and_index() {
    let mut s = store((2, 3));
    s.put("/1/a", "x");
    let swap =
        |value: &'static str, index| Request { prev_value: value.as_bytes(), prev_index: index, ..put("/1/a", "n") };
    assert_eq!(s.run(swap("y", 0)), Effect::Refused(TEST_FAILED));
    assert_eq!(s.run(swap("x", 9)), Effect::Refused(TEST_FAILED));
    assert_eq!(s.run(swap("x", 1)), Effect::Changed);
    assert_eq!(s.node("/1/a"), Some(("n".into(), 1, 2)));
    assert_eq!(s.run(Request { method: Method::Delete, ..swap("n", 1) }), Effect::Refused(TEST_FAILED));
    assert_eq!(s.run(Request { method: Method::Delete, ..swap("n", 2) }), Effect::Changed);
    assert_eq!((s.node("/1/a"), s.index()), (None, 3));
}

#[test]
fn in_order_names_follow_the_server_that_ran_last() {
    let post = Request { method: Method::Post, path: b"/1/q", val: b"x", ..Request::default() };
    let mut old = store((2, 1));
    old.run(post);
    assert_eq!(old.node("/1/q/1"), Some(("x".into(), 1, 1)));
    let mut new = store((2, 2));
    new.run(post);
    assert_eq!(new.node("/1/q/00000000000000000001"), Some(("x".into(), 1, 1)));
}

#[test]
fn deletes_directories_only_when_asked_to() {
    let mut s = store((3, 4));
    s.put("/1/d/x", "1");
    let delete = Request { method: Method::Delete, path: b"/1/d", ..Request::default() };
    assert_eq!(s.run(delete), Effect::Refused(NOT_FILE));
    assert_eq!(s.run(Request { dir: true, ..delete }), Effect::Refused(DIR_NOT_EMPTY));
    assert_eq!(s.run(Request { recursive: true, ..delete }), Effect::Changed);
    assert_eq!((s.node("/1/d"), s.index()), (None, 2));
    assert_eq!(s.run(delete), Effect::Refused(KEY_NOT_FOUND));
}

#[test]
fn a_directory_s_ttl_can_be_updated_before_3_5_only() {
    const AT: i64 = 2_000_000_000_000_000_000;
    for (version, effect, index) in [((3, 4), Effect::Changed, 2), ((3, 5), Effect::Refused(NOT_FILE), 1)] {
        let mut s = store(version);
        s.run(Request { dir: true, ..put("/1/d", "") });
        assert_eq!(s.run(Request { prev_exist: Some(true), expiration: AT, ..put("/1/d", "") }), effect);
        assert_eq!((s.index(), s.node("/1/d")), (index, Some(("".into(), 1, 1))));
    }
}

#[test]
fn a_ttl_before_2000_is_none_for_a_new_node_and_kept_by_an_update() {
    let mut s = store((3, 4));
    s.run(Request { expiration: -5, ..put("/1/a", "x") });
    let sync = Request { method: Method::Sync, time: 1_600_000_000_000_000_000, ..Request::default() };
    assert_eq!(s.run(sync), Effect::None);
    assert!(s.node("/1/a").is_some());
    s.run(Request { expiration: -5, prev_exist: Some(true), ..put("/1/a", "y") });
    assert_eq!(s.run(sync), Effect::Changed);
    assert_eq!((s.node("/1/a"), s.index()), (None, 3));
}

#[test]
fn refresh_keeps_the_value() {
    let mut s = store((3, 4));
    s.put("/1/a", "x");
    let refresh = |request| Request { refresh: Some(true), expiration: 2_000_000_000_000_000_000, ..request };
    assert_eq!(s.run(refresh(put("/1/none", ""))), Effect::Refused(KEY_NOT_FOUND));
    s.run(refresh(Request { prev_exist: Some(true), ..put("/1/a", "") }));
    assert_eq!(s.node("/1/a"), Some(("x".into(), 1, 2)));
    s.run(refresh(Request { prev_value: b"x", ..put("/1/a", "") }));
    assert_eq!(s.node("/1/a"), Some(("x".into(), 1, 3)));
    s.run(refresh(put("/1/a", "")));
    assert_eq!(s.node("/1/a"), Some(("x".into(), 4, 4)));
}

#[test]
fn refresh_in_a_swap_keeps_the_value_from_2_3_7_on() {
    for (patch, value) in [(0, ""), (6, ""), (7, "x"), (8, "x")] {
        let mut s = store_of(Version::new(2, 3, patch));
        s.put("/1/a", "x");
        let refresh = |request| Request { refresh: Some(true), expiration: 2_000_000_000_000_000_000, ..request };
        assert_eq!(s.run(refresh(Request { prev_exist: Some(true), ..put("/1/a", "") })), Effect::Changed);
        assert_eq!(s.node("/1/a"), Some(("x".into(), 1, 2)), "an update keeps it in any 2.3");
        assert_eq!(s.run(refresh(Request { prev_index: 2, ..put("/1/a", "") })), Effect::Changed);
        assert_eq!(s.node("/1/a"), Some((value.into(), 1, 3)), "2.3.{patch}");
    }
    // Servers before 2.3 ignore the field.
    let mut s = store((2, 2));
    s.put("/1/a", "x");
    s.run(Request { refresh: Some(true), prev_exist: Some(true), ..put("/1/a", "") });
    assert_eq!(s.node("/1/a"), Some(("".into(), 1, 2)));
}

#[test]
fn an_update_with_a_condition_compares_from_2_0_10_on() {
    for (patch, effect, node) in
        [(0, Effect::Changed, ("n", 2)), (9, Effect::Changed, ("n", 2)), (10, Effect::Refused(TEST_FAILED), ("x", 1))]
    {
        let mut s = store_of(Version::new(2, 0, patch));
        s.put("/1/a", "x");
        assert_eq!(s.run(Request { prev_exist: Some(true), prev_index: 9, ..put("/1/a", "n") }), effect, "2.0.{patch}");
        assert_eq!(s.node("/1/a"), Some((node.0.into(), 1, node.1)));
        // Without `prevExist`, every server compares.
        assert_eq!(s.run(Request { prev_value: b"other", ..put("/1/a", "m") }), Effect::Refused(TEST_FAILED));
    }
}

#[test]
fn namespaces_are_ordinary_directories_in_2_0_0() {
    for (patch, effect) in [(0, Effect::Changed), (1, Effect::Refused(ROOT_READ_ONLY))] {
        let mut s = store_of(Version::new(2, 0, patch));
        s.put("/1/a", "x");
        assert_eq!(
            s.run(Request { method: Method::Delete, path: b"/1", recursive: true, ..Request::default() }),
            effect
        );
        assert_eq!(s.node("/1/a").is_none(), patch == 0);
    }
}

#[test]
fn attributes_of_a_removed_member_are_written_before_2_3() {
    for (version, effect) in [((2, 2), Effect::Changed), ((2, 3), Effect::None), ((3, 4), Effect::None)] {
        let mut s = store(version);
        s.put("/0/removed_members/ab", "");
        assert_eq!(s.put("/0/members/ab/attributes", r#"{"name":"m"}"#), effect, "{version:?}");
    }
}

#[test]
fn requests_that_use_in_order_names_are_seen() {
    let post = Request { method: Method::Post, path: b"/1/q", val: b"x", ..Request::default() };
    let delete = |path: &'static str| Request { method: Method::Delete, path: path.as_bytes(), ..Request::default() };
    let mut s = store((2, 2));
    s.replay.names = Some(InOrderNames::default());
    // Entries are numbered by the applied index, which does not count these requests.
    s.run(post);
    s.run(Request { dir: true, ..post });
    s.run(delete("/1/q/1"));
    s.run(delete("/1/q/00000000000000000007"));
    s.run(delete("/1/p/00000000000000000001"));
    assert!(s.replay.names.as_ref().unwrap().used.is_empty());
    s.run(delete("/1/q/00000000000000000001"));
    s.put("/1/q/00000000000000000002/below", "x");
    assert_eq!(s.replay.names.unwrap().used.len(), 2);
}

#[test]
fn knows_attribute_paths_as_etcd_does() {
    assert!(is_attributes_path(b"/0/members/8e9e05c52164694d/attributes"));
    assert!(is_attributes_path(b"/1/0/members/ab/attributes/x"));
    assert!(!is_attributes_path(b"/0/members/8e9e05c52164694d0/attributes"));
    assert!(!is_attributes_path(b"/0/members//attributes"));
    assert!(!is_attributes_path(b"/0/members/xyz/attributes"));
}

/// Requests and TTLs can change the members that configuration changes are compared with.
#[test]
fn a_change_of_the_members_sees_what_requests_and_ttls_did() {
    let mut s = store((2, 3));
    let add = |s: &mut Store, id: u64, url: &str| {
        let context = format!(r#"{{"id":{id},"peerURLs":["{url}"]}}"#);
        let change = crate::source::raft::ConfChange {
            kind: crate::source::raft::ConfChangeKind::AddNode,
            node_id: crate::ids::MemberId(id),
            context: context.as_bytes(),
        };
        let Replay { tree, members, voters, rules, .. } = &mut s.replay;
        membership::apply_conf_change(tree, members, voters, &change, *rules).unwrap()
    };
    assert!(add(&mut s, 10, "a") && !add(&mut s, 11, "a"));
    // One request removes the URL from the member, another one restores it.
    s.put("/0/members/a/raftAttributes", r#"{"peerURLs":["b"]}"#);
    assert!(add(&mut s, 11, "a") && !add(&mut s, 12, "b"));
    s.run(Request { method: Method::Delete, path: b"/0/members", recursive: true, ..Request::default() });
    assert!(add(&mut s, 12, "b"));
    let expiring = Request { expiration: 1_600_000_000_000_000_000, ..put("/0/members/d/raftAttributes", "") };
    s.run(Request { val: br#"{"peerURLs":["c"]}"#, ..expiring });
    assert!(!add(&mut s, 14, "c"));
    s.run(Request { method: Method::Sync, time: 1_700_000_000_000_000_000, ..Request::default() });
    assert!(add(&mut s, 14, "c"));
    s.run(Request { method: Method::Delete, path: b"/0/members/c", recursive: true, ..Request::default() });
    assert!(add(&mut s, 12, "b") && !add(&mut s, 12, "d"));
}

#[test]
fn an_error_does_not_show_a_value() {
    let mut s = store((3, 3));
    let run = |s: &mut Store, val: &'static str| {
        let request = put("/1/0/members/ab/attributes", val);
        let entry = Entry {
            kind: EntryKind::Normal,
            term: crate::ids::Term(1),
            index: RaftIndex(1),
            data: &[],
            data_offset: ByteOffset(0),
        };
        s.replay.request(&request, &entry).unwrap_err().to_string()
    };
    for (val, place) in
        [("\"$2a$10$secret\"", "byte 15"), ("{\"name\":[\"$2a$10$secret\"]}", "byte 8"), ("$2a$10$secret", "byte 1")]
    {
        let error = run(&mut s, val);
        assert!(error.contains(place) && !error.contains("secret"), "{error}");
    }
    let member = br#"{"id":"$2a$10$secret"}"#;
    let change = crate::source::raft::ConfChange {
        kind: crate::source::raft::ConfChangeKind::AddNode,
        node_id: crate::ids::MemberId(1),
        context: member,
    };
    let Replay { tree, members, voters, rules, .. } = &mut s.replay;
    let error = membership::apply_conf_change(tree, members, voters, &change, *rules).unwrap_err().to_string();
    assert!(error.ends_with("found a value of another kind at byte 21") && !error.contains("secret"), "{error}");
}
