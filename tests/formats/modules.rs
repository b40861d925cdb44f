//! The way through the modules goes in one direction, and no two files use each other: read from every path in `src/` that
//! begins with `crate::` or `super::` (ARCHITECTURE.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every module at the top, each to the right of all that it may use.
const ORDER: [&str; 29] = [
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

fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let all = modules();
    let of = |(module, code): (&String, &String)| {
        let targets = paths(code).into_iter().filter_map(|path| target(module, &path, &all));
        // A folder and its files are one: its `mod.rs` names them.
        let others = targets.filter(|to| *to != module && !module.starts_with(&format!("{to}::")));
        (module.clone(), others.map(str::to_string).collect())
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

/// Takes away what uses nothing that is left, until nothing changes: what stays is in a circle, or uses one.
#[test]
fn no_files_use_each_other() {
    let mut left = uses();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, targets| targets.iter().any(|to| names.contains(to)));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

/// In these folders, `mod.rs` calls the other files, and none of them uses what is in it.
#[test]
fn files_do_not_use_the_mod_file_that_calls_them() {
    let all = modules();
    for folder in ["pipeline::compare", "pipeline::directories"] {
        let inside = format!("{folder}::");
        let children = || all.iter().filter(|(module, _)| module.starts_with(&inside));
        assert!(children().count() > 3, "{folder}");
        let up = |(module, code): (&String, &String)| {
            paths(code).iter().any(|path| target(module, path, &all) == Some(folder)).then(|| module.clone())
        };
        let found: Vec<String> = children().filter_map(up).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn use_trees_are_read() {
    let code = "use crate::a::{self, b::{C, d}, e as f};\nfn g() { super::h::i(); crate::j::K::new() }";
    let expected = ["crate::a::self", "crate::a::b::C", "crate::a::b::d", "crate::a::e", "crate::a::as", "crate::a::f"];
    let found = paths(code);
    assert!(expected.iter().all(|path| found.contains(&path.to_string())), "{found:?}");
    assert!(found.contains(&"super::h::i".to_string()) && found.contains(&"crate::j::K::new".to_string()), "{found:?}");
}
