//! The way through the modules goes in one direction, and no two files use each other: read from every path in `src/`
//! that begins with `crate::` or `super::` (ARCHITECTURE.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every module at the top, each to the right of all that it may use.
const ORDER: [&str; 30] = [
    "words",
    "limits",
    "ids",
    "count",
    "display",
    "error",
    "notice",
    "time",
    "interrupt",
    "named_file",
    "wire",
    "proto",
    "source",
    "v2store",
    "options",
    "mvcc",
    "data_dir",
    "bolt",
    "transform",
    "transformer",
    "image",
    "verify",
    "output",
    "export",
    "report",
    "pipeline",
    "online",
    "facade",
    "cli",
    "fuzzing",
];

/// The files of `src/` by module path, without their tests and comments.
fn modules() -> BTreeMap<String, String> {
    fn walk(dir: &Path, path: &str, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().path();
            let stem = file.file_stem().unwrap().to_str().unwrap();
            let name = if path.is_empty() { stem.to_string() } else { format!("{path}::{stem}") };
            if file.is_dir() {
                walk(&file, &name, out);
            } else if file.extension().is_some_and(|end| end == "rs") && !["main", "lib", "tests"].contains(&stem) {
                let name = if stem == "mod" { path.to_string() } else { name };
                let text = fs::read_to_string(&file).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
                out.insert(name, lines.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(Path::new("src"), "", &mut out);
    out
}

/// Every path that a file names: `crate::a::{b, c::{self, d}}` gives three.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            // `super::super::` is found at its first word.
            let inner = code[..at].ends_with("::") || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !inner {
                expand(String::new(), &code[at..], &mut found);
            }
        }
    }
    found
}

/// Reads a path or a use tree; returns the rest of the text.
fn expand<'a>(prefix: String, text: &'a str, out: &mut Vec<String>) -> &'a str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (word, mut rest) = text.split_at(end);
    let path = format!("{prefix}{word}");
    if !path.ends_with("::") || !rest.starts_with('{') {
        out.push(path.trim_end_matches(':').to_string());
        return rest;
    }
    rest = &rest[1..];
    loop {
        rest = rest.trim_start();
        match rest.chars().next() {
            Some('}') => return &rest[1..],
            Some(',') => rest = &rest[1..],
            Some(c) if c.is_alphanumeric() || c == '_' => rest = expand(path.clone(), rest, out),
            // `as name` and the like do not matter.
            Some(c) => rest = &rest[c.len_utf8()..],
            None => return rest,
        }
    }
}

/// Which module a path of `module` leads to.
fn target<'m>(module: &str, path: &str, all: &'m BTreeMap<String, String>) -> Option<&'m str> {
    let mut words: Vec<&str> = path.split("::").collect();
    let mut absolute: Vec<&str> = module.split("::").collect();
    if words[0] == "crate" {
        absolute.clear();
        words.remove(0);
    }
    while words.first() == Some(&"super") {
        absolute.pop();
        words.remove(0);
    }
    absolute.extend(words.iter().filter(|word| **word != "self"));
    let prefixes = (1..=absolute.len()).rev().map(|len| absolute[..len].join("::"));
    prefixes.into_iter().find_map(|prefix| all.get_key_value(&prefix)).map(|(name, _)| name.as_str())
}

/// The words of a text.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect()
}

/// Splits a file into its `use` declarations, without the word itself, and everything else.
fn split_uses(code: &str) -> (Vec<&str>, String) {
    let (mut declarations, mut rest) = (Vec::new(), String::new());
    for statement in code.split_inclusive(';') {
        match statement.rfind("use ").filter(|_| statement.ends_with(';')) {
            Some(at) if statement[..at].ends_with(|c: char| c.is_whitespace()) || at == 0 => {
                rest.push_str(&statement[..at]);
                declarations.push(&statement[at + 4..]);
            }
            // The name of a child in its declaration is no use of it.
            _ if statement.trim_start().starts_with("mod ") => {}
            _ => rest.push_str(statement),
        }
    }
    (declarations, rest)
}

/// Whether a file defines an item of this name itself, so that it does not only pass it on from another file.
fn defines(code: &str, name: &str) -> bool {
    let kinds = ["struct", "enum", "fn", "trait", "const", "static", "type", "macro_rules!"];
    let found = |kind: &str| {
        let begin = format!("{kind} {name}");
        code.match_indices(&begin)
            .any(|(at, _)| !code[at + begin.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    kinds.into_iter().any(found)
}

/// The files of its own folder whose items a `mod.rs` uses. It may pass items on without using them.
fn children_in_use<'m>(module: &str, code: &str, all: &'m BTreeMap<String, String>) -> Vec<&'m str> {
    let (declarations, rest) = split_uses(code);
    let body = words(&rest);
    let begin = format!("{module}::");
    let is_used = |name: &str| {
        let by_path = format!("{name}::");
        let called = rest
            .match_indices(&by_path)
            .any(|(at, _)| !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
        let imports =
            declarations.iter().filter_map(|tree| tree.strip_prefix("self::").unwrap_or(tree).strip_prefix(&by_path));
        called || imports.flat_map(words).any(|word| !word.is_empty() && body.contains(word))
    };
    let children =
        all.keys().filter(|name| name.strip_prefix(&begin).is_some_and(|name| !name.contains("::") && is_used(name)));
    children.map(String::as_str).collect()
}

fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let all = modules();
    let of = |(module, code): (&String, &String)| {
        let targets = paths(code).into_iter().filter_map(|path| {
            let to = target(module, &path, &all)?;
            let item = path.rsplit("::").next().unwrap_or_default();
            // A file that takes from its own `mod.rs` what that only passes on uses the file behind it, not the `mod.rs`.
            let own = module.starts_with(&format!("{to}::")) && !defines(&all[to], item);
            (to != module && !own).then_some(to)
        });
        let targets = targets.chain(children_in_use(module, code, &all));
        (module.clone(), targets.map(str::to_string).collect())
    };
    all.iter().map(of).collect()
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap()
}

#[test]
fn a_module_uses_only_what_stands_before_it() {
    let place = |module: &str| ORDER.iter().position(|name| *name == top(module)).unwrap_or_else(|| panic!("{module}"));
    let mut against = Vec::new();
    let mut arrows = 0;
    for (module, targets) in uses() {
        arrows += targets.len();
        against.extend(targets.iter().filter(|to| place(to) > place(&module)).map(|to| format!("{module} -> {to}")));
    }
    assert!(arrows > 500, "the paths are not found: {arrows}");
    assert!(against.is_empty(), "{against:#?}");
}

/// Takes away files that use nothing that is left, or that nothing left uses, until nothing changes: the rest is in circles, or between
/// two.
#[test]
fn no_files_use_each_other() {
    let mut left = uses();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        for targets in left.values_mut() {
            targets.retain(|to| names.contains(to));
        }
        let used: BTreeSet<String> = left.values().flatten().cloned().collect();
        left.retain(|name, targets| !targets.is_empty() && used.contains(name));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn a_folder_and_its_files_can_form_a_circle() {
    let files = |parent: &str, child: &str| {
        BTreeMap::from([("a".to_string(), parent.to_string()), ("a::b".to_string(), child.to_string())])
    };
    for (parent, used) in [
        ("mod b;\npub use b::{T, U};\nfn f() {}", false),
        ("mod b;\npub use b::{T, U};\nfn f(u: U) {}", true),
        ("mod b;\nfn f() { b::g() }", true),
        ("mod b;\nfn f() { other_b::g(); c::b::g() }", false),
    ] {
        assert_eq!(
            children_in_use("a", parent, &files(parent, "")),
            if used { vec!["a::b"] } else { vec![] },
            "{parent}"
        );
    }
    assert!(defines("pub fn f() {}", "f") && !defines("pub fn f2() {}", "f") && !defines("pub use b::f;", "f"));
}

#[test]
fn use_trees_are_read() {
    let code = "use crate::a::{self, b::{C, d}, e as f};\nfn g() { super::h::i(); crate::j::K::new() }";
    let expected = ["crate::a::self", "crate::a::b::C", "crate::a::b::d", "crate::a::e", "crate::a::as", "crate::a::f"];
    let found = paths(code);
    assert!(expected.iter().all(|path| found.contains(&path.to_string())), "{found:?}");
    assert!(found.contains(&"super::h::i".to_string()) && found.contains(&"crate::j::K::new".to_string()), "{found:?}");
}
