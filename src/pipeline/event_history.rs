//! The event history in the snapshot's watcher hub: up to 1,000 changes before the snapshot (docs/formats.md 3.1).
//!
//! Events are read one by one and not stored, so a history of any length takes no memory. Must not know what an event proves.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::display;
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::v2store::table::Table;

/// A change that the store recorded for watchers.
#[derive(Debug, Deserialize)]
pub(super) struct Event<'a> {
    /// What happened: `set`, `create`, `update`, `compareAndSwap`, `delete`, `compareAndDelete` or `expire`.
    #[serde(borrow)]
    pub(super) action: Option<Cow<'a, str>>,
    /// The node after the change.
    #[serde(borrow)]
    pub(super) node: Option<Node<'a>>,
    /// The node before the change.
    #[serde(borrow, rename = "prevNode")]
    pub(super) previous: Option<Node<'a>>,
    /// Whether the request was one with `refresh=true`.
    #[serde(default)]
    pub(super) refresh: bool,
}

/// A node of an event.
#[derive(Debug, Deserialize)]
pub(super) struct Node<'a> {
    /// The path; some releases leave out the namespace.
    #[serde(borrow)]
    pub(super) key: Option<Cow<'a, str>>,
    /// Whether it is a directory.
    #[serde(default)]
    pub(super) dir: bool,
    /// The created index.
    #[serde(default, rename = "createdIndex")]
    pub(super) created: u64,
    /// When it expires, RFC 3339.
    #[serde(borrow)]
    pub(super) expiration: Option<Cow<'a, str>>,
    /// Whole seconds, rounded up; absent for 0.
    #[serde(default)]
    pub(super) ttl: i64,
}

/// Reads the history of a snapshot, and calls `see` for each event, the oldest first or not: the queue is a ring.
///
/// # Errors
/// [`Reason::Damaged`] if the history is not that of a store; an interruption.
pub(super) fn read(table: &Table<'_>, interrupt: Interrupt<'_>, see: &mut dyn FnMut(Event<'_>)) -> Result<()> {
    let json = table.history();
    if json.is_empty() {
        return Ok(());
    }
    let mut hub = Hub { interrupt, see, interrupted: None };
    let mut document = serde_json::Deserializer::from_slice(json);
    let read = At(&mut hub, Level::Hub).deserialize(&mut document).and_then(|()| document.end());
    if let Some(interruption) = hub.interrupted {
        return Err(interruption);
    }
    read.map_err(|e| {
        let found = display::json_fault(&e);
        Error::new(Reason::Damaged, format!("expected an event history, {found}")).at(table.history_offset())
    })
}

/// A reading of the watcher hub.
struct Hub<'i, 's> {
    interrupt: Interrupt<'i>,
    see: &'s mut dyn FnMut(Event<'_>),
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
struct At<'h, 'i, 's>(&'h mut Hub<'i, 's>, Level);

impl<'de> DeserializeSeed<'de> for At<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_, '_> {
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
            event.into_iter().for_each(&mut *self.0.see);
        }
        Ok(())
    }
}
