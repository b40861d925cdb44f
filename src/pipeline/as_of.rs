//! The instant against which TTLs count, and what proves it (docs/cli.md, `--as-of`).
//!
//! A copy that is a year old must not lose its keys: `last-write` takes the latest instant that the data itself proves.
//! A SYNC entry holds the leader's time. An event in the snapshot's history shows its time as its expiration minus its
//! TTL (docs/formats.md 3.1, 6.6). A file's modification time proves nothing. Must not know policies.

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::report::facts::AsOfEvidence;
use crate::source::open::Opened;
use crate::source::raft::{EntryKind, Method, Proposal, parse_proposal};
use crate::v2store::replay::Recovered;
use crate::v2store::table::Table;
use crate::{display, time};

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

/// The times in the watcher hub. Events are read one by one and not stored, so a history of any length takes no memory.
struct Hub<'i> {
    interrupt: Interrupt<'i>,
    /// The earliest possible time of the latest event.
    latest: Option<Timestamp>,
    /// The interruption that ended the reading.
    interrupted: Option<Error>,
}

/// The levels of the hub. Each level is the value of one field of the level above.
#[derive(Clone, Copy)]
enum Level {
    Hub,
    History,
    Queue,
    Events,
}

/// A deserializer of one level of a hub.
struct At<'h, 'i>(&'h mut Hub<'i>, Level);

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.1 {
            Level::Hub | Level::History | Level::Queue => "an object or null",
            Level::Events => "a list or null",
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.1 {
            Level::Hub | Level::History | Level::Queue => deserializer.deserialize_map(self),
            Level::Events => deserializer.deserialize_seq(self),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let (name, below) = match self.1 {
            Level::Hub => ("EventHistory", Level::History),
            Level::History => ("Queue", Level::Queue),
            Level::Queue | Level::Events => ("Events", Level::Events),
        };
        while let Some(field) = fields.next_key::<Cow<'_, str>>()? {
            match field == name {
                true => fields.next_value_seed(At(self.0, below))?,
                false => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        while let Some(event) = events.next_element::<Option<Event<'_>>>()? {
            if let Err(error) = self.0.interrupt.ask() {
                self.0.interrupted = Some(error);
                return Err(serde::de::Error::custom("interrupted"));
            }
            let nodes = event.into_iter().flat_map(|event| [event.node, event.previous]).flatten();
            self.0.latest = nodes.filter_map(|node| node.at()).chain(self.0.latest).max();
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    node: Option<Node<'a>>,
    #[serde(borrow, rename = "prevNode")]
    previous: Option<Node<'a>>,
}

#[derive(Deserialize)]
struct Node<'a> {
    #[serde(borrow)]
    expiration: Option<Cow<'a, str>>,
    /// Whole seconds, rounded up; absent for 0.
    #[serde(default)]
    ttl: i64,
}

impl Node<'_> {
    /// Returns the earliest possible time of the event.
    fn at(&self) -> Option<Timestamp> {
        let expiration = time::instant(self.expiration.as_ref()?)?;
        expiration.checked_sub(SignedDuration::from_secs(self.ttl)).ok()
    }
}

fn history(table: &Table<'_>, interrupt: Interrupt<'_>) -> Result<Option<Proven>> {
    let json = table.history();
    if json.is_empty() {
        return Ok(None);
    }
    let mut hub = Hub { interrupt, latest: None, interrupted: None };
    let mut document = serde_json::Deserializer::from_slice(json);
    let read = At(&mut hub, Level::Hub).deserialize(&mut document).and_then(|()| document.end());
    if let Some(interruption) = hub.interrupted {
        return Err(interruption);
    }
    read.map_err(|e| {
        let found = display::json_fault(&e);
        Error::new(Reason::Damaged, format!("expected an event history, {found}"))
            .at(table.history_offset())
            .hint("only `--as-of last-write` reads the event history; name an instant with --as-of instead")
    })?;
    Ok(hub.latest.map(|at| Proven { at, by: AsOfEvidence::History }))
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
