//! Sibling names that become equal after U+FFFD replaces bytes that are not UTF-8 (docs/formats.md 3.1), and their
//! original names in the log.
//!
//! Of such siblings only the last is in the snapshot's tree, as in etcd. Must not know what becomes of the nodes.

use std::collections::{BTreeMap, HashSet};

use crate::count::counted;
use crate::display::{first_of, lossy};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::notice::Code;
use crate::pipeline::diagnostics::PlanFindings;
use crate::report::facts::{DuplicateName, TrueName};
use crate::source::open::Opened;
use crate::v2store::table::Table;
use crate::v2store::{path, replay, text};

/// The maximum number of names that the report lists, and of original names for each.
const LISTED: usize = 100;

/// Original names by the path that they became, each with its last raft index.
type OriginalNames = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, u64>>;

/// Reports the names, if there are any.
///
/// # Errors
/// A log entry cannot be read; an interruption.
pub(super) fn note(
    found: &mut PlanFindings,
    opened: &Opened,
    table: &Table<'_>,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    if table.duplicates == 0 {
        return Ok(());
    }
    let mut shadowed: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for of in table.shadowed.iter().filter(|of| of.sibling) {
        *shadowed.entry(table.path(&of.node).into_owned()).or_default() += 1;
    }
    let mut names: OriginalNames = shadowed.keys().take(LISTED).map(|path| (path.clone(), BTreeMap::new())).collect();
    search_logs(opened, &mut names, interrupt)?;
    let line = |(path, count): (&Vec<u8>, &u64)| DuplicateName {
        key: lossy(path::user_key(path)),
        shadowed: *count,
        written_as: names.get(path).into_iter().flatten().take(LISTED).map(true_name).collect(),
    };
    let lines: Vec<DuplicateName> = shadowed.iter().take(LISTED).map(line).collect();
    found.notices.warn(Code::DuplicateNames, message(table.duplicates, &lines));
    found.contents.duplicates = table.duplicates;
    found.contents.duplicate_names = lines;
    Ok(())
}

fn true_name((name, raft_index): (&Vec<u8>, &u64)) -> TrueName {
    TrueName { key: path::user_key(name).escape_ascii().to_string(), raft_index: *raft_index }
}

fn message(count: u64, lines: &[DuplicateName]) -> String {
    let keys: Vec<String> = lines.iter().map(|line| line.key.clone()).collect();
    let mut message = format!(
        "{} of the snapshot with the same name as a later node, because U+FFFD replaced bytes that are not UTF-8; like etcd, \
         etcdlift uses the last node: {}",
        counted(count, "node", "nodes"),
        first_of(&keys)
    );
    let known: Vec<String> = lines
        .iter()
        .flat_map(|line| &line.written_as)
        .map(|name| format!("{} (raft index {})", name.key, name.raft_index))
        .collect();
    if !known.is_empty() {
        message.push_str(&format!("; the log still has the original names: {}", first_of(&known)));
    }
    message
}

/// Searches all logs for requests whose path becomes one of these names, or is below one.
fn search_logs(opened: &Opened, names: &mut OriginalNames, interrupt: Interrupt<'_>) -> Result<()> {
    for wal in opened.members.iter().filter_map(|member| member.wal.as_ref()) {
        for reference in wal.spans().iter().flat_map(|span| &span.entries) {
            interrupt.ask()?;
            if let Some(write) = replay::write_in(&wal.entry(reference)?) {
                note_path(names, &write.path, write.index.0);
            }
        }
    }
    Ok(())
}

/// Records a path, or a directory above it, that becomes one of the names. A slash is part of no other character, so
/// the replaced path begins with the replaced directory. The function reads each byte once.
fn note_path(names: &mut OriginalNames, path: &[u8], index: u64) {
    let lengths: HashSet<usize> = names.keys().map(Vec::len).collect();
    let (mut replaced, mut from) = (Vec::with_capacity(path.len()), 0);
    for end in memchr::memchr_iter(b'/', path).skip(1).chain([path.len()]) {
        text::push_as_go_writes(&mut replaced, path.get(from..end).unwrap_or_default());
        from = end;
        if lengths.contains(&replaced.len())
            && let Some(known) = names.get_mut(&replaced)
            && let Some(written) = path.get(..end)
            && (known.len() < LISTED || known.contains_key(written))
        {
            let last = known.entry(written.to_vec()).or_default();
            *last = index.max(*last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(name: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        text::push_as_go_writes(&mut out, name);
        out
    }

    #[test]
    fn each_byte_that_is_no_utf8_becomes_one_character() {
        for (name, expected) in [
            (&b"/a"[..], "/a"),
            (b"/\xff", "/\u{fffd}"),
            (b"/\xe2\x82", "/\u{fffd}\u{fffd}"),
            ("/\u{e4}".as_bytes(), "/\u{e4}"),
        ] {
            assert_eq!(replaced(name), expected.as_bytes(), "{}", name.escape_ascii());
        }
        assert_eq!(replaced(b"/\xed\xa0\x80"), "/\u{fffd}\u{fffd}\u{fffd}".as_bytes());
    }

    /// A million components: the function reads each byte once, not once for every directory above it.
    #[test]
    fn a_deep_path_is_looked_at_once() {
        let deep = [&b"/1"[..], &b"/a".repeat(1_000_000), b"/\xff", b"/b"].concat();
        let mut names = OriginalNames::from([(
            [&b"/1"[..], &b"/a".repeat(1_000_000), "/\u{fffd}".as_bytes()].concat(),
            BTreeMap::new(),
        )]);
        note_path(&mut names, &deep, 7);
        let found: Vec<u64> = names.values().flatten().map(|(_, index)| *index).collect();
        assert_eq!(found, [7]);
    }

    #[test]
    fn the_last_request_counts_for_each_true_name() {
        let mut names = OriginalNames::from([("/1/\u{fffd}".as_bytes().to_vec(), BTreeMap::new())]);
        for (name, index) in [(&b"/1/\xff"[..], 5), (b"/1/\xfe", 6), (b"/1/\xff", 9), (b"/1/a", 7)] {
            note_path(&mut names, name, index);
        }
        let found: Vec<_> = names.values().flatten().map(true_name).map(|name| (name.key, name.raft_index)).collect();
        assert_eq!(found, [("/\\xfe".to_string(), 6), ("/\\xff".to_string(), 9)]);
    }
}
