//! The reader of the snapshot's JSON: documents as etcd writes them, and documents that must be refused.
//!
//! The documents are written here as text.

use super::*;

#[test]
fn a_document_is_utf8_wherever_it_is_cut() {
    for text in ["", "a\u{e4}\u{20ac}\u{1f600}".repeat(9).as_str(), "\u{1f600}".repeat(9).as_str()] {
        for part in 4..20 {
            assert!(is_utf8(text.as_bytes(), part, Interrupt::default()).unwrap(), "{part}");
            let bad = [text.as_bytes(), b"\x80\x80\x80\x80\x80", text.as_bytes()].concat();
            assert!(!is_utf8(&bad, part, Interrupt::default()).unwrap(), "{part}");
        }
    }
}

#[test]
fn reading_ends_where_it_is_interrupted() {
    let leaves: Vec<String> = (0..50_000)
        .map(|name| format!(r#""{name:05}":{}"#, node(&format!("/1/{name:05}"), r#""Value":"0123456789""#)))
        .collect();
    let text = store(&format!(r#""1":{}"#, node("/1", &format!(r#""Children":{{{}}}"#, leaves.join(",")))));
    let asked = std::sync::atomic::AtomicU64::new(0);
    let ask = |last: u64| {
        asked.store(0, std::sync::atomic::Ordering::Relaxed);
        let interrupted = || match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < last {
            true => Ok(()),
            false => Err(Error::new(Reason::Interrupted(2), "interrupted")),
        };
        read_watched(text.as_bytes(), Interrupt::new(&interrupted)).map(|table| table.len())
    };
    assert_eq!(ask(u64::MAX).unwrap(), 50_002);
    let total = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!(total > 20, "{total}");
    for last in 0..total {
        assert_eq!(ask(last).unwrap_err().reason(), Reason::Interrupted(2), "{last}");
    }
}

fn node(path: &str, rest: &str) -> String {
    format!(r#"{{"Path":"{path}","CreatedIndex":3,"ModifiedIndex":4,"ExpireTime":"0001-01-01T00:00:00Z",{rest}}}"#)
}

fn store(children: &str) -> String {
    let root = node("/", &format!(r#""Value":"","Children":{{{children}}}"#));
    format!(
        r#"{{"Root":{root},"WatcherHub":{{"EventHistory":{{"Queue":{{"Events":[null,{{"a":"]\""}}]}}}}}},"CurrentIndex":9,"CurrentVersion":2}}"#
    )
}

fn paths(document: &str) -> Vec<String> {
    let table = read(document.as_bytes()).unwrap();
    table.nodes.iter().map(|n| String::from_utf8(table.path(n).into_owned()).unwrap()).collect()
}

#[test]
fn reads_a_tree_in_pre_order() {
    let leaf = node("/1/a/b", r#""Value":"v\u003c","Children":null"#);
    let dir = node("/1/a", &format!(r#""Value":"","Children":{{"b":{leaf}}}"#));
    let one = node("/1", &format!(r#""Value":"","Children":{{"a":{dir},"c":{}}}"#, node("/1/c", r#""Value":"x""#)));
    let text = store(&format!(r#""1":{one}"#));
    let table = read(text.as_bytes()).unwrap();
    assert_eq!(paths(&text), ["/", "/1", "/1/a", "/1/a/b", "/1/c"]);
    assert_eq!(table.nodes.iter().map(|n| n.end).collect::<Vec<_>>(), [5, 5, 4, 4, 5]);
    assert_eq!(&*table.value(&table.nodes[3]), b"v<");
    assert_eq!(&*table.name(&table.nodes[3]), b"b");
    assert_eq!((table.nodes[3].created, table.nodes[3].modified), (3, 4));
    assert_eq!(table.current_index, V2Index(9));
}

#[test]
fn fields_may_stand_in_any_order_with_white_space() {
    let text = "{ \"CurrentIndex\" : 1 , \"Root\" : { \"Children\" : { \"1\" : { \"Value\":\"x\", \"Path\":\"/1\" } },\n\
                \"Path\":\"/\", \"Extra\": [1, {\"Path\": true}] } }";
    assert_eq!(paths(text), ["/", "/1"]);
}

#[test]
fn of_siblings_with_one_name_the_last_subtree_counts() {
    let leaf = |value: &str| node("/1/\\ufffd/b", &format!(r#""Value":"{value}""#));
    let dir = |value: &str| node("/1/\\ufffd", &format!(r#""Value":"","Children":{{"b":{}}}"#, leaf(value)));
    let other = node("/1/a", r#""Value":"o""#);
    let one = format!(r#""Value":"","Children":{{"\ufffd":{},"a":{other},"\ufffd":{}}}"#, dir("first"), dir("last"));
    let text = store(&format!(r#""1":{}"#, node("/1", &one)));
    let table = read(text.as_bytes()).unwrap();
    assert_eq!(paths(&text), ["/", "/1", "/1/a", "/1/\u{fffd}", "/1/\u{fffd}/b"]);
    assert_eq!(table.duplicates, 1);
    let shadowed: Vec<_> = table.shadowed.iter().map(|of| (table.path(&of.node), of.sibling)).collect();
    let expected = [("/1/\u{fffd}", true), ("/1/\u{fffd}/b", false)].map(|(path, of)| (path.as_bytes().into(), of));
    assert_eq!(shadowed, expected);
    assert_eq!(&*table.value(&table.shadowed[1].node), b"first");
    assert_eq!(&*table.value(&table.nodes[4]), b"last");
    assert_eq!(table.nodes.iter().map(|n| n.end).collect::<Vec<_>>(), [5, 5, 3, 5, 5]);
}

#[test]
fn expiry_times_have_any_offset_and_up_to_nine_digits() {
    let text = store(r#""1":{"Path":"/1","ExpireTime":"2016-05-01T12:00:00.123456789+02:00"}"#);
    let table = read(text.as_bytes()).unwrap();
    let expected: Timestamp = "2016-05-01T10:00:00.123456789Z".parse().unwrap();
    assert_eq!(table.expiry(&table.nodes[1]), Some(expected));
}

#[test]
fn the_zero_time_is_no_ttl_in_any_spelling() {
    for zero in [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00.000Z",
        "0001-01-01T00:00:00+00:00",
        "0001-01-01T01:00:00+01:00",
        "0000-12-31T23:30:00-00:30",
    ] {
        let text = store(&format!(r#""1":{{"Path":"/1","ExpireTime":"{zero}"}}"#));
        let table = read(text.as_bytes()).unwrap();
        assert!(table.expiry(&table.nodes[1]).is_none() && table.expiries.is_empty(), "{zero}");
    }
    let text = store(r#""1":{"Path":"/1","ExpireTime":"0001-01-01T00:00:00.000000001Z"}"#);
    let table = read(text.as_bytes()).unwrap();
    assert!(table.expiry(&table.nodes[1]).is_some());
}

#[test]
fn refuses_what_is_no_store() {
    let twice = r#""1":{"Path":"/1","Path":"/1"}"#;
    let elsewhere = r#""1":{"Path":"/1","Children":{"a":{"Path":"/2/a"}}}"#;
    let misnamed = r#""1":{"Path":"/2"}"#;
    // The end of such a path says nothing of the name.
    let escaped = [r#""1":{"Path":"\u002f1"}"#, r#""1":{"Path":"/1","Children":{"a":{"Path":"/1\u002Fa"}}}"#];
    let others = [r#""1":{}"#, r#""":{"Path":"/"}"#, r#""1":{"Path":"/1","CreatedIndex":-1}"#];
    for children in [twice, elsewhere, misnamed].into_iter().chain(escaped).chain(others) {
        let error = read(store(children).as_bytes()).unwrap_err();
        assert_eq!(error.reason(), Reason::Damaged, "{children}");
        assert!(error.offset().is_some(), "{children}: {error}");
    }
    for text in ["", "null", "[]", "{}", r#"{"Root":null}"#, r#"{"Root":{"Path":"/"}}"#, "{\"Root\":1}"] {
        assert!(read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn numbers_have_no_leading_zeros() {
    let text = |number: &str| store(&format!(r#""1":{{"Path":"/1","CreatedIndex":{number}}}"#));
    assert_eq!(read(text("0").as_bytes()).unwrap().nodes[1].created, 0);
    assert_eq!(read(text("18446744073709551615").as_bytes()).unwrap().nodes[1].created, u64::MAX);
    for number in ["00", "01", "18446744073709551616", "1.0", "1e3", "+1", "-0", ""] {
        assert!(read(text(number).as_bytes()).is_err(), "{number}");
    }
}

#[test]
fn a_field_in_another_spelling_is_not_passed_over() {
    for field in ["value", "VALUE", r"V\u0061lue", "path", "children"] {
        let text = store(&format!(r#""1":{{"Path":"/1","{field}":"x"}}"#));
        assert!(read(text.as_bytes()).is_err(), "{field}");
    }
    let text = store("").replace("CurrentIndex", "currentIndex");
    assert!(read(text.as_bytes()).is_err());
}

#[test]
fn every_cut_is_an_error() {
    let text = store(r#""1":{"Path":"/1","Children":{"a":{"Path":"/1/a","Value":"\u003c","Children":null}}}"#);
    assert!(read(text.as_bytes()).is_ok());
    for len in 0..text.len() {
        assert!(read(&text.as_bytes()[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let deep = |levels: usize| {
        let mut text = String::new();
        let mut path = String::new();
        for _ in 0..levels {
            path.push_str("/x");
            text.push_str(&format!(r#""x":{{"Path":"{path}","Children":{{"#));
        }
        text.push_str(&"}}".repeat(levels));
        store(&text)
    };
    assert_eq!(read(deep(3000).as_bytes()).unwrap().len(), 3001);
    let brackets = format!("{{\"a\":{}", "[".repeat(1_000_000));
    assert!(read(brackets.as_bytes()).is_err());
}

/// The children of a directory, in document order: a name, and for a directory its children.
#[derive(Debug, Clone)]
struct Named(String, Option<Vec<Named>>);

fn named() -> impl proptest::strategy::Strategy<Value = Vec<Named>> {
    use proptest::prelude::*;
    let leaf = "[abc]".prop_map(|name| Named(name, None));
    let any = leaf.prop_recursive(5, 60, 6, |inner| {
        ("[abc]", proptest::collection::vec(inner, 0..6)).prop_map(|(name, children)| Named(name, Some(children)))
    });
    proptest::collection::vec(any, 0..6)
}

/// Returns the JSON of these children of `path`.
fn written(children: &[Named], path: &str) -> String {
    let one = |(place, Named(name, children)): (usize, &Named)| {
        let path = format!("{path}/{name}");
        let inner = children.as_ref().map(|children| format!(r#""Children":{{{}}}"#, written(children, &path)));
        format!(r#""{name}":{}"#, node(&path, &inner.unwrap_or_else(|| format!(r#""Value":"{place}""#))))
    };
    children.iter().enumerate().map(one).collect::<Vec<_>>().join(",")
}

/// Returns the children that count, in pre-order: path, value and number of nodes of the subtree.
fn counting(children: &[Named], path: &str, out: &mut Vec<(String, String, usize)>) {
    for (place, Named(name, inner)) in children.iter().enumerate() {
        if children.iter().skip(place + 1).any(|later| later.0 == *name) {
            continue;
        }
        let (path, at) = (format!("{path}/{name}"), out.len());
        out.push((path.clone(), inner.as_ref().map_or(place.to_string(), |_| String::new()), 0));
        counting(inner.as_deref().unwrap_or_default(), &path, out);
        out[at].2 = out.len() - at;
    }
}

proptest::proptest! {
    #[test]
    fn of_siblings_with_one_name_the_last_counts_at_every_level(children in named()) {
        let text = store(&format!(r#""1":{}"#, node("/1", &format!(r#""Children":{{{}}}"#, written(&children, "/1")))));
        let table = read(text.as_bytes()).unwrap();
        let mut expected = Vec::new();
        counting(&children, "/1", &mut expected);
        let text = |bytes: Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
        let found: Vec<_> = (0..)
            .zip(&table.nodes)
            .skip(2)
            .map(|(id, node): (u32, _)| (text(table.path(node)), text(table.value(node)), (node.end - id) as usize))
            .collect();
        proptest::prop_assert_eq!(found, expected);
    }
}

/// A node as etcd writes it: a name, and a value or children. Names and values are JSON text.
#[derive(Debug, Clone)]
enum Written {
    Key(String, String, Option<&'static str>),
    Directory(String, Vec<Written>),
}

impl Written {
    fn name(&self) -> &str {
        match self {
            Written::Key(name, ..) | Written::Directory(name, _) => name,
        }
    }
}

fn written_children() -> impl proptest::strategy::Strategy<Value = Vec<Written>> {
    use proptest::prelude::*;
    const TEXT: &str = "([a-c]|[0-9]|\u{e4}|\u{1f600}|\\\\u003c|\\\\ufffd|\\\\\"|\\\\n|_){0,4}";
    let expiry = prop::sample::select(vec![None, Some("2030-01-02T03:04:05.678Z"), Some("0001-01-01T00:00:00.0Z")]);
    let first = || prop::sample::select(vec!["n", "_", "\\u005f", "\\u005F", "\\u005b", "n\\u002f_", "\\u002F"]);
    let name = move || (first(), TEXT).prop_map(|(first, text)| format!("{first}{text}"));
    let leaf = (name(), TEXT, expiry).prop_map(|(name, value, expiry)| Written::Key(name, value, expiry));
    let any = leaf.prop_recursive(4, 40, 6, move |inner| {
        (name(), proptest::collection::vec(inner, 0..6)).prop_map(|(name, inner)| Written::Directory(name, inner))
    });
    proptest::collection::vec(any, 0..6)
}

/// Returns a node as etcd writes it.
fn canonical_node(path: &str, number: usize, expiry: &str, value: &str, children: &str) -> String {
    let (created, modified) = (number * 7919, number * 7919 + 5);
    format!(
        r#"{{"Path":"{path}","CreatedIndex":{created},"ModifiedIndex":{modified},"ExpireTime":"{expiry}","Value":"{value}","Children":{children}}}"#
    )
}

/// Returns a store as etcd writes it; `sorted`: with the siblings in order.
fn canonical_store(children: &[Written], sorted: bool) -> String {
    fn list(children: &[Written], path: &str, sorted: bool, number: &mut usize) -> String {
        let mut children: Vec<&Written> = children.iter().collect();
        if sorted {
            children.sort_by(|a, b| a.name().cmp(b.name()));
        }
        let mut out = Vec::new();
        for child in children {
            *number += 1;
            let path = format!("{path}/{}", child.name());
            let node = match child {
                Written::Key(_, value, expiry) => {
                    canonical_node(&path, *number, expiry.unwrap_or("0001-01-01T00:00:00Z"), value, "null")
                }
                Written::Directory(_, inner) => {
                    let (mine, inner) = (*number, list(inner, &path, sorted, number));
                    canonical_node(&path, mine, "0001-01-01T00:00:00Z", "", &format!("{{{inner}}}"))
                }
            };
            out.push(format!(r#""{}":{node}"#, child.name()));
        }
        out.join(",")
    }
    let root =
        canonical_node("/", 0, "0001-01-01T00:00:00Z", "", &format!("{{{}}}", list(children, "", sorted, &mut 0)));
    format!(
        r#"{{"Root":{root},"WatcherHub":{{"EventHistory":{{}}}},"CurrentIndex":9,"Stats":{{}},"CurrentVersion":2}}"#
    )
}

fn agree(document: &[u8]) {
    match (read(document), read_generally(document)) {
        (Ok(fast), Ok(general)) => {
            assert!(fast == general, "{}", document.escape_ascii());
            for node in &fast.nodes {
                let path = fast.path(node);
                assert_eq!(node.has(Node::HIDDEN), path::is_hidden(&path), "{}", path.escape_ascii());
            }
        }
        (Err(fast), Err(general)) => assert_eq!(fast.to_string(), general.to_string()),
        (fast, general) => panic!("{}: {fast:?}, {general:?}", document.escape_ascii()),
    }
}

#[test]
fn the_fast_reader_takes_what_etcd_writes() {
    let key = |name: &str| Written::Key(name.into(), "v\\n".into(), Some("2030-01-02T03:04:05.678Z"));
    let children = [Written::Directory("1".into(), vec![key("a"), Written::Directory("b".into(), vec![]), key("c")])];
    let text = canonical_store(&children, true);
    let found = canonical::read(text.as_bytes(), br#"{"Root":"#.len(), Interrupt::default()).unwrap().unwrap();
    assert_eq!((found.nodes.len(), found.expiries.len(), found.ascending), (5, 2, true));
    assert!(text.as_bytes()[found.end..].starts_with(br#","WatcherHub""#));
    agree(text.as_bytes());
}

#[test]
fn the_fast_reader_leaves_every_cut_to_the_general_one() {
    let key = |name: &str| Written::Key(name.into(), "x".into(), None);
    let text = canonical_store(&[Written::Directory("1".into(), vec![key("a"), key("b")])], true);
    for end in 0..=text.len() {
        agree(&text.as_bytes()[..end]);
    }
}

proptest::proptest! {
    #[test]
    fn both_readers_agree_on_what_etcd_writes(children in written_children(), sorted: bool) {
        agree(canonical_store(&children, sorted).as_bytes());
    }

    #[test]
    fn both_readers_agree_on_changed_documents(
        children in written_children(),
        changes in proptest::collection::vec((proptest::prelude::any::<u16>(), 0..4u8, proptest::prelude::any::<u8>()), 1..4),
    ) {
        let mut document = canonical_store(&children, true).into_bytes();
        for (place, kind, byte) in changes {
            let at = place as usize % document.len();
            let byte = match byte % 4 {
                0 => byte,
                _ => b"\"\\{}:,/0 n"[byte as usize % 10],
            };
            match kind {
                0 => document[at] = byte,
                1 => document.insert(at, byte),
                2 => drop(document.remove(at)),
                _ => {
                    // A field or a child twice, in another place, or away.
                    let from = (at..document.len()).find(|at| document[*at] == b',').unwrap_or(at);
                    let to = (from + 1..document.len()).find(|at| document[*at] == b',').unwrap_or(from);
                    let part = document[from..to].to_vec();
                    match byte % 2 {
                        0 => drop(document.splice(from..from, part)),
                        _ => drop(document.splice(from..to, [])),
                    }
                }
            }
            if document.is_empty() {
                break;
            }
        }
        agree(&document);
    }
}
