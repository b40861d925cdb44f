//! The instant against which TTLs count, and what proves it (docs/cli.md, `--as-of`).
//!
//! A copy that is a year old must not lose its keys: `last-write` takes the latest instant that the data itself proves.
//! A SYNC entry holds the leader's time. An event in the snapshot's history shows its time as its expiration minus its
//! TTL (docs/formats.md 3.1, 6.6). A file's modification time proves nothing. Must not know policies.

use jiff::{SignedDuration, Timestamp};

use super::event_history;
use crate::error::{Reason, Result};
use crate::interrupt::Interrupt;
use crate::report::facts::AsOfEvidence;
use crate::source::open::Opened;
use crate::source::raft::{EntryKind, Method, Proposal, parse_proposal};
use crate::time;
use crate::v2store::replay::Recovered;
use crate::v2store::table::Table;

/// An instant, and the record that proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Proven {
    pub(super) at: Timestamp,
    pub(super) by: AsOfEvidence,
}

/// Returns the latest instant that the state proves; `None` if nothing in it does.
///
/// # Errors
/// [`Reason::Damaged`] if a log entry or the history cannot be read; an interruption.
pub(super) fn last_write(
    opened: &Opened,
    table: &Table<'_>,
    recovered: &Recovered<'_>,
    interrupt: Interrupt<'_>,
) -> Result<Option<Proven>> {
    let replayed = recovered.replay.last_sync.map(|at| Proven { at, by: AsOfEvidence::Sync });
    let before = synced_before(opened, interrupt)?;
    let history = history(table, interrupt).map_err(|e| match &opened.start.snapshot {
        Some(snapshot) => e.counted_from(snapshot.json_offset()).in_file(snapshot.path()),
        None => e,
    })?;
    Ok(replayed.into_iter().chain(before).chain(history).max())
}

/// Returns the latest SYNC entry that the log still has from before the snapshot.
fn synced_before(opened: &Opened, interrupt: Interrupt<'_>) -> Result<Option<Proven>> {
    let mut latest = None;
    let start = opened.start.index();
    for wal in opened.members.iter().filter_map(|member| member.wal.as_ref()) {
        for reference in wal.entries().iter().filter(|entry| entry.index <= start && entry.kind == EntryKind::Normal) {
            interrupt.ask()?;
            let entry = wal.entry(reference)?;
            // An entry before the snapshot is not needed, so damage in it does not matter.
            if let Ok(Proposal::V2(request)) = parse_proposal(entry.data, entry.data_offset)
                && request.method == Method::Sync
            {
                latest = latest.max(Timestamp::from_nanosecond(i128::from(request.time)).ok());
            }
        }
    }
    Ok(latest.map(|at| Proven { at, by: AsOfEvidence::SyncBefore }))
}

fn history(table: &Table<'_>, interrupt: Interrupt<'_>) -> Result<Option<Proven>> {
    let mut latest = None;
    let read = event_history::read(table, interrupt, &mut |event| {
        let nodes = [event.node, event.previous].into_iter().flatten();
        latest = nodes.filter_map(|node| at(&node)).chain(latest).max();
    });
    read.map_err(|e| match e.reason() {
        Reason::Damaged => {
            e.hint("only `--as-of last-write` reads the event history; name an instant with --as-of instead")
        }
        _ => e,
    })?;
    Ok(latest.map(|at| Proven { at, by: AsOfEvidence::History }))
}

/// Returns the earliest possible time of the event of a node.
fn at(node: &event_history::Node<'_>) -> Option<Timestamp> {
    let expiration = time::instant(node.expiration.as_ref()?)?;
    expiration.checked_sub(SignedDuration::from_secs(node.ttl)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2store::json;

    fn of(hub: &str) -> Result<Option<Proven>> {
        let text = format!(r#"{{"Root":{{"Path":"/","Children":{{}}}},"WatcherHub":{hub},"CurrentIndex":3}}"#);
        history(&json::read(text.as_bytes()).unwrap(), Interrupt::default())
    }

    fn events(events: &str) -> Option<String> {
        let found = of(&format!(r#"{{"EventHistory":{{"Queue":{{"Events":[{events}]}},"StartIndex":1}}}}"#)).unwrap();
        found.map(|proven| proven.at.to_string())
    }

    #[test]
    fn an_event_with_a_ttl_says_when_it_happened() {
        let one = r#"{"action":"set","node":{"key":"/1/a","expiration":"2020-01-01T00:01:00.5Z","ttl":60}}"#;
        assert_eq!(events(one).unwrap(), "2020-01-01T00:00:00.5Z");
        let two = r#"null,{"action":"set","node":{"key":"/1/b"},
            "prevNode":{"expiration":"2020-01-01T02:00:30+01:00","ttl":10}},{"action":"x"}"#;
        assert_eq!(events(two).unwrap(), "2020-01-01T01:00:20Z");
        assert_eq!(events(&format!("{one},{two}")).unwrap(), "2020-01-01T01:00:20Z");
        assert_eq!(
            events(r#"{"action":"expire","prevNode":{"expiration":"2020-01-01T00:00:00Z"}}"#).unwrap(),
            "2020-01-01T00:00:00Z"
        );
    }

    #[test]
    fn without_one_nothing_is_proven() {
        assert_eq!(events(r#"{"action":"set","node":{"key":"/1/a","expiration":"soon","ttl":6}}"#), None);
        for hub in ["null", "{}", r#"{"EventHistory":null}"#, r#"{"EventHistory":{"Queue":{"Events":null}}}"#] {
            assert_eq!(of(hub).unwrap(), None, "{hub}");
        }
        assert_eq!(of(r#"{"EventHistory":7}"#).unwrap_err().reason(), Reason::Damaged);
    }
}
