//! The overlay against a plain map: both must have the same content after every operation.
//!
//! The operations are random, and the tree starts from a small snapshot.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::v2store::json;

fn document(paths: &[&str]) -> String {
    // A directory for every path that is the parent of another one; a file otherwise.
    fn node(path: &str, paths: &[&str]) -> String {
        let prefix = if path == "/" { "/".to_string() } else { format!("{path}/") };
        let mut names: Vec<&str> =
            paths.iter().filter_map(|p| p.strip_prefix(&*prefix)).filter_map(|p| p.split('/').next()).collect();
        names.retain(|n| !n.is_empty());
        names.sort();
        names.dedup();
        let body = if names.is_empty() && path.contains('f') {
            format!(r#""Value":"{path}","Children":null"#)
        } else {
            let children: Vec<_> =
                names.iter().map(|n| format!(r#""{n}":{}"#, node(&format!("{prefix}{n}"), paths))).collect();
            format!(r#""Value":"","Children":{{{}}}"#, children.join(","))
        };
        format!(r#"{{"Path":"{path}","CreatedIndex":1,"ModifiedIndex":2,{body}}}"#)
    }
    format!(r#"{{"Root":{},"CurrentIndex":2}}"#, node("/", paths))
}

fn listing(tree: &Tree<'_>) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let mut out = BTreeMap::new();
    tree.walk::<()>(NodeRef::Over(tree.root), &mut |visit| {
        let path = tree.path(visit.node);
        assert_eq!((visit.path(), visit.path_len()), (path.clone(), tree.path_len(visit.node)));
        assert_eq!(visit.is_hidden(), path::is_hidden(&path));
        assert_eq!(visit.depth, path::components(&path).count());
        for skip in 0..path.len() {
            let mut end = vec![0; path.len() - skip];
            assert!(tree.copy_path(visit.node, skip, &mut end) && end == path[skip..], "{skip}");
        }
        let value = (!tree.is_dir(visit.node)).then(|| tree.value(visit.node).into_owned());
        assert!(out.insert(tree.path(visit.node).into_owned(), value).is_none(), "a path twice");
        Ok(())
    })
    .unwrap();
    out
}

#[derive(Debug, Clone)]
enum Op {
    Put(String),
    PutDir(String),
    Update(String),
    Remove(String),
}

impl Op {
    fn path(&self) -> &[u8] {
        let (Op::Put(path) | Op::PutDir(path) | Op::Update(path) | Op::Remove(path)) = self;
        path.as_bytes()
    }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "f", "c", "a!", "_h"]), 1..4)
        .prop_map(|p| format!("/1/{}", p.join("/")))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        path().prop_map(Op::Put),
        path().prop_map(Op::PutDir),
        path().prop_map(Op::Update),
        path().prop_map(Op::Remove)
    ]
}

proptest! {
    #[test]
    fn holds_what_a_plain_map_holds(base in prop::collection::vec(path(), 0..12), ops in prop::collection::vec(op(), 0..40)) {
        let base: Vec<&str> = base.iter().map(String::as_str).chain(["/0", "/1"]).collect();
        let text = document(&base);
        let table = json::read(text.as_bytes()).unwrap();
        let mut tree = Tree::new(&table);
        let mut model = listing(&tree);
        for (i, op) in ops.iter().enumerate() {
            let index = V2Index(i as u64 + 3);
            tree.look_ahead(ops.iter().map(Op::path));
            match op {
                Op::Put(path) | Op::PutDir(path) => {
                    let parents: Vec<String> =
                        path.match_indices('/').skip(1).map(|(at, _)| path[..at].to_string()).collect();
                    let blocked = parents.iter().any(|p| matches!(model.get(p.as_bytes()), Some(Some(_))));
                    let below = model.keys().any(|k| k.starts_with(format!("{path}/").as_bytes()));
                    if below { continue; }
                    let value = matches!(op, Op::Put(_)).then(|| format!("v{i}").into_bytes());
                    let node = NewNode { index, expiry: None, value: value.clone().map(Value::from) };
                    prop_assert_eq!(tree.put(path.as_bytes(), node).is_err(), blocked);
                    if !blocked {
                        for parent in parents { model.entry(parent.into_bytes()).or_insert(None); }
                        model.insert(path.clone().into_bytes(), value);
                    }
                }
                Op::Update(path) => {
                    if let Some(Some(value)) = model.get_mut(path.as_bytes()) {
                        *value = format!("u{i}").into_bytes();
                        tree.update(path.as_bytes(), Some(value.clone().into()), index, None);
                        let node = tree.lookup(path.as_bytes()).unwrap();
                        prop_assert_eq!(tree.modified(node), index);
                    }
                }
                Op::Remove(path) => {
                    let there = model.contains_key(path.as_bytes());
                    prop_assert_eq!(tree.remove(path.as_bytes()), there);
                    let prefix = format!("{path}/").into_bytes();
                    model.retain(|k, _| k != path.as_bytes() && !k.starts_with(&prefix));
                }
            }
            prop_assert_eq!(&listing(&tree), &model);
            prop_assert_eq!(tree.lookup(op.path()).is_ok(), model.contains_key(op.path()));
            let mut sorted = Vec::new();
            tree.walk_sorted::<()>(tree.root(), &mut |node, path| {
                assert_eq!(*tree.path(node), *path);
                sorted.push(path.to_vec());
                Ok(())
            }).unwrap();
            prop_assert!(sorted.iter().eq(model.keys()), "{:?}", sorted);
            prop_assert!(tree.nodes.len() - tree.free.len() <= model.len());
            for (path, value) in &model {
                let node = tree.lookup(path).unwrap();
                prop_assert_eq!(tree.is_dir(node), value.is_none());
                let prefix = if path == b"/" { path.clone() } else { [path, &b"/"[..]].concat() };
                let children = model.keys().any(|k| k != path && k.starts_with(&prefix));
                prop_assert_eq!(value.is_none() && tree.has_children(node), children);
            }
        }
    }
}

#[test]
fn finds_every_name_of_a_directory_with_and_without_an_index() {
    // As they stand in a document.
    let names = ["a", "b<", r"b\u003c\u003c", r"b\u003C3", r"c\\", r"d\u2028", "e\u{fffd}", r"f\ufffd", "\u{1f600}"];
    let node = |path: &str, body: &str| {
        let indexes = r#""CreatedIndex":1,"ModifiedIndex":1,"ExpireTime":"0001-01-01T00:00:00Z""#;
        format!(r#"{{"Path":"{path}",{indexes},{body}}}"#)
    };
    let dir = |path: &str, children: &str| node(path, &format!(r#""Value":"","Children":{{{children}}}"#));
    for count in 1..=names.len() {
        let file = |name| node(&format!("/1/d/{name}"), &format!(r#""Value":"{name}","Children":null"#));
        let files: Vec<_> = names[..count].iter().map(|name| format!(r#""{name}":{}"#, file(name))).collect();
        let below = format!(r#""d":{}"#, dir("/1/d", &files.join(",")));
        let root = dir("/", &format!(r#""1":{}"#, dir("/1", &below)));
        let text = format!(r#"{{"Root":{root},"CurrentIndex":2}}"#);
        let table = json::read(text.as_bytes()).unwrap();
        assert_eq!(table, json::read_generally(text.as_bytes()).unwrap());
        let mut tree = Tree::new(&table);
        for name in &names[..count] {
            let name: String = serde_json::from_str(&format!(r#""{name}""#)).unwrap();
            let node = tree.lookup(format!("/1/d/{name}").as_bytes()).unwrap();
            assert_eq!(&*tree.value(node), name.as_bytes());
        }
        assert_eq!(tree.lookup(b"/1/d/x"), Err(Missing::NotFound));
        assert_eq!(tree.indexes.len(), usize::from(count > FEW));
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn put(tree: &mut Tree<'_>, path: &str, expiry: Option<i64>) {
    tree.current_index.0 += 1;
    let node = NewNode { index: tree.current_index, expiry: expiry.map(at), value: Some(b"v"[..].into()) };
    tree.put(path.as_bytes(), node).unwrap();
}

#[test]
fn expires_whole_subtrees_for_one_index_each() {
    let text = r#"{"Root":{"Path":"/","Children":{"1":{"Path":"/1","Children":{
        "d":{"Path":"/1/d","ExpireTime":"1970-01-01T00:00:10Z","Children":{"x":{"Path":"/1/d/x","Value":"1"}}},
        "k":{"Path":"/1/k","ExpireTime":"1970-01-01T00:00:20Z","Value":"2"}}}}},"CurrentIndex":7}"#;
    let table = json::read(text.as_bytes()).unwrap();
    let mut tree = Tree::new(&table);
    put(&mut tree, "/1/d/y", None);
    put(&mut tree, "/1/k", Some(30));
    assert_eq!(tree.expire(at(9)), (0, false));
    assert_eq!(tree.expire(at(29)), (1, false), "the directory; the key lives longer now");
    assert!(tree.lookup(b"/1/d").is_err());
    assert_eq!(tree.expire(at(30)), (1, false));
    assert_eq!((tree.current_index, listing(&tree).len()), (V2Index(11), 3));
}

#[test]
fn says_when_a_directory_and_its_child_expire_together() {
    let table = json::read(br#"{"Root":{"Path":"/","Children":{}},"CurrentIndex":0}"#).unwrap();
    let mut tree = Tree::new(&table);
    let dir = NewNode { index: V2Index(1), expiry: Some(at(5)), value: None };
    tree.put(b"/1/d", dir).unwrap();
    put(&mut tree, "/1/d/x", Some(5));
    assert_eq!(tree.expire(at(5)), (1, true));
}

#[test]
fn a_walk_gives_the_earliest_expiry_above() {
    let text = r#"{"Root":{"Path":"/","Children":{"1":{"Path":"/1","Children":{
        "d":{"Path":"/1/d","ExpireTime":"1970-01-01T00:00:10Z","Children":{
            "x":{"Path":"/1/d/x","Value":"1"},"y":{"Path":"/1/d/y","ExpireTime":"1970-01-01T00:00:05Z","Value":"1"}}},
        "k":{"Path":"/1/k","Value":"2"}}}}},"CurrentIndex":7}"#;
    let table = json::read(text.as_bytes()).unwrap();
    let mut tree = Tree::new(&table);
    put(&mut tree, "/1/d/z", Some(50));
    let mut seen = BTreeMap::new();
    tree.walk::<()>(NodeRef::Over(tree.root), &mut |visit| {
        seen.insert(
            String::from_utf8(tree.path(visit.node).into_owned()).unwrap(),
            visit.expiry.map(|t| t.as_second()),
        );
        Ok(())
    })
    .unwrap();
    let expected =
        [("/1/d", Some(10)), ("/1/d/x", Some(10)), ("/1/d/y", Some(5)), ("/1/d/z", Some(10)), ("/1/k", None)];
    for (path, expiry) in expected {
        assert_eq!(seen[path], expiry, "{path}");
    }
}

#[test]
fn changes_preserve_what_a_snapshot_loses() {
    let json =
        document(&["/1/\u{fffd}/f", "/1/f\u{fffd}", "/1/fv"]).replace(r#""Value":"/1/fv""#, "\"Value\":\"\u{fffd}\"");
    // Go escapes U+FFFD if it replaces a byte, and only then.
    let json = json.replace('\u{fffd}', "\\ufffd");
    let table = json::read(json.as_bytes()).unwrap();
    let mut tree = Tree::new(&table);
    let replaced = |tree: &mut Tree<'_>, path: &str| {
        let node = tree.lookup(path.as_bytes()).unwrap();
        tree.replaced(node)
    };
    let (name, value) = ((true, false), (false, true));
    let before = [("/1/\u{fffd}/f", (true, true)), ("/1/f\u{fffd}", (true, true)), ("/1/fv", value)];
    assert_eq!(before.map(|(path, _)| (path, replaced(&mut tree, path))), before);
    // A new TTL changes neither; a new value changes only itself.
    tree.update("/1/fv".as_bytes(), None, V2Index(3), None);
    assert_eq!(replaced(&mut tree, "/1/fv"), value);
    tree.update("/1/f\u{fffd}".as_bytes(), Some(b"new"[..].into()), V2Index(4), None);
    assert_eq!(replaced(&mut tree, "/1/f\u{fffd}"), name);
    tree.update("/1/fv".as_bytes(), Some(b"new"[..].into()), V2Index(5), None);
    assert_eq!(replaced(&mut tree, "/1/fv"), (false, false));
    // A new key in place of an old one has its own name; one in a directory also has that of the directory.
    let new = || NewNode { index: V2Index(6), expiry: None, value: Some(b"v"[..].into()) };
    tree.put("/1/f\u{fffd}".as_bytes(), new()).unwrap();
    assert_eq!(replaced(&mut tree, "/1/f\u{fffd}"), name);
    tree.put("/1/\u{fffd}/new/key".as_bytes(), new()).unwrap();
    assert_eq!(replaced(&mut tree, "/1/\u{fffd}/new/key"), name);
    tree.put("/1/own\u{fffd}".as_bytes(), new()).unwrap();
    assert_eq!(replaced(&mut tree, "/1/own\u{fffd}"), (false, false));
}

#[test]
fn removed_and_replaced_nodes_are_freed() {
    let table = Table::empty();
    let mut tree = Tree::new(&table);
    let (mut nodes, mut bytes) = (0, 0);
    for round in 0..50 {
        put(&mut tree, &format!("/1/r{round:02}{}", "/d".repeat(2000)), Some(100 + round));
        put(&mut tree, &format!("/1/r{round:02}{}", "/d".repeat(2000)), None);
        assert!(tree.remove(format!("/1/r{round:02}").as_bytes()));
        if round == 0 {
            (nodes, bytes) = (tree.nodes.len(), tree.held_bytes());
        }
    }
    assert_eq!((tree.nodes.len(), tree.held_bytes()), (nodes, bytes));
    assert_eq!((tree.nodes.len() - tree.free.len(), tree.expiries.first(tree.table)), (3, None));
    let Held { names, name_bytes, changes, .. } = tree.held;
    assert_eq!((names, name_bytes, changes), (2, 2, 2));
}

#[test]
fn a_directory_that_a_log_makes_takes_no_more_than_is_reckoned() {
    let table = Table::empty();
    let mut tree = Tree::new(&table);
    let before = tree.held_bytes();
    put(&mut tree, &format!("/1{}", "/d".repeat(1000)), None);
    let each = (tree.held_bytes() - before) / 1000;
    assert!((200..=Tree::DIRECTORY_BYTES).contains(&each), "{each}");
}

#[test]
fn a_ttl_has_one_place_however_often_it_is_renewed() {
    let text = r#"{"Root":{"Path":"/","Children":{"1":{"Path":"/1","Children":{
        "k":{"Path":"/1/k","ExpireTime":"1970-01-01T00:00:20Z","Value":"2"}}}}},"CurrentIndex":7}"#;
    let table = json::read(text.as_bytes()).unwrap();
    let mut tree = Tree::new(&table);
    for second in 0..1000 {
        tree.update(b"/1/k", None, V2Index(8), Some(at(30 + second)));
        put(&mut tree, "/1/n", Some(30 + second));
    }
    let mut due = tree.expiries.due(tree.table, at(20));
    assert_eq!(due.pop().map(|(_, node)| node), Some(NodeRef::Base(NodeId(2))), "of the snapshot");
    assert_eq!(tree.expiries.due(tree.table, at(1029)).len(), 2);
    assert_eq!(tree.expire(at(1028)), (0, false));
    assert_eq!(tree.expire(at(1029)), (2, false));
    assert_eq!(tree.expiries.first(tree.table), None);
}

#[test]
fn an_escaped_value_is_compared_and_handed_on_as_it_stands() {
    let text = r#"{"Root":{"Path":"/","Children":{"1":{"Path":"/1","Children":{
        "k":{"Path":"/1/k","Value":"a\u003c\n"}}}}},"CurrentIndex":7}"#;
    let table = json::read(text.as_bytes()).unwrap();
    let mut tree = Tree::new(&table);
    let before = tree.held_bytes();
    for _ in 0..3 {
        let node = tree.lookup(b"/1/k").unwrap();
        assert!(tree.has_value(node, b"a<\n") && !tree.has_value(node, b"a<") && !tree.has_value(node, b"a<n"));
        assert_eq!((&*tree.value(node), tree.value_len(node)), (&b"a<\n"[..], 3));
        let value = tree.shared_value(node);
        let new = NewNode { index: V2Index(8), expiry: None, value: Some(value) };
        tree.put(b"/1/k", new).unwrap();
        tree.update(b"/1/k", None, V2Index(9), None);
    }
    assert!(tree.held_bytes() - before < 1000);
    let Ok(NodeRef::Over(id)) = tree.lookup(b"/1/k") else { panic!("changed") };
    assert!(matches!(tree.over(id).map(|over| &over.body), Some(Body::File(value)) if value.is_in_table()));
}
