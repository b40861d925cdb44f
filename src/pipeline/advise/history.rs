//! The topics of the snapshot's event history: changes before the snapshot whose log entries may be gone.
//!
//! Counts events only, because the log may have the same changes. Must not know the log.

use super::nodes::is_in_order;
use super::requests::SHORT_SECONDS;
use super::tallies::Tallies;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::pipeline::event_history::{self, Event};
use crate::report::advice::Topic;
use crate::v2store::path;
use crate::v2store::table::Table;

/// Number of events that a store remembers for watchers.
const REMEMBERED: u64 = 1000;

/// Counts the topics of the history. Returns the number of events of keys and directories.
///
/// # Errors
/// The history is damaged; an interruption.
pub(super) fn read(table: &Table<'_>, found: &mut Tallies, interrupt: Interrupt<'_>) -> Result<u64> {
    let mut events = 0;
    event_history::read(table, interrupt, &mut |event| events += u64::from(see(&event, found)))?;
    Ok(events)
}

/// Reports how many changes v2 no longer remembers at this index. Each change has an index of its own.
pub(super) fn forgotten(v2_index: u64, found: &mut Tallies) {
    if v2_index > REMEMBERED {
        found.events(Topic::EventWindow, v2_index - REMEMBERED);
    }
}

/// Counts an event. Returns whether it concerns a key or a directory of clients.
fn see(event: &Event<'_>, found: &mut Tallies) -> bool {
    let Some(node) = &event.node else { return false };
    let Some(key) = node.key.as_deref().and_then(client_key) else { return false };
    let action = event.action.as_deref().unwrap_or_default();
    let name = path::split(key.as_bytes()).1;
    let is_write = !matches!(action, "delete" | "compareAndDelete" | "expire");
    let expires = is_write && node.expiration.is_some();
    let is_post = action == "create" && is_in_order(name, node.created);
    let is_new = event.previous.is_none();
    for (applies, topic) in [
        (is_post, Topic::InOrderKey),
        (action == "create" && !is_post, Topic::CreateOnly),
        (is_write && node.dir && is_new, Topic::CreateDirectory),
        (action == "update", Topic::UpdateOnly),
        (action == "compareAndSwap", Topic::CompareAndSwap),
        (action == "compareAndDelete", Topic::CompareAndDelete),
        (action == "expire", Topic::Expiry),
        (expires && !node.dir, Topic::TtlKey),
        (expires && node.dir, Topic::TtlDirectory),
        (expires && (1..=SHORT_SECONDS).contains(&node.ttl), Topic::ShortTtl),
        (event.refresh, Topic::Refresh),
    ] {
        if applies {
            found.events(topic, 1);
            // The example of a POST is its directory.
            let shown = if topic == Topic::InOrderKey { path::split(key.as_bytes()).0 } else { key.as_bytes() };
            found.example(topic, || super::nodes::shown(shown));
        }
    }
    true
}

/// Returns the key of clients of a path; `None` for nodes of the server. Some releases store the key without its namespace.
fn client_key(path: &str) -> Option<&str> {
    match path.strip_prefix("/1/") {
        Some(_) => path.strip_prefix("/1"),
        None if path.starts_with("/0/") || path.starts_with("/2/") => None,
        None => Some(path).filter(|path| path.len() > 1),
    }
}
