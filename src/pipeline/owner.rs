//! Whether a snapshot has what the log before it writes (docs/formats.md 4.11).
//!
//! Clusters of one configuration have equal IDs, as every cluster of one member on the default URLs. Only what their logs ask for
//! tells them apart. `source::owner` compares the members. Must not know how an entry is applied.

use std::cmp::Ordering;
use std::fs;

use crate::display::{lossy, short};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::source::entries::EntryRef;
use crate::source::member::Member;
use crate::source::open::Opened;
use crate::source::owner;
use crate::source::raft::{EntryKind, Method, Proposal, Request, parse_proposal};
use crate::source::snap::Snapshot;
use crate::source::wal::Wal;
use crate::v2store::table::{Node, NodeId, Table};
use crate::v2store::tree::{Missing, Tree};
use crate::v2store::{json, path};

/// The maximum number of entries before the snapshot that are examined.
const EXAMINED: usize = 1024;

/// The maximum number of bytes of their paths, each of which is compared with all others.
const EXAMINED_PATHS: usize = 1 << 16;

/// The maximum size of a snapshot that is read only for this. It is in memory together with the start snapshot.
const READ_BYTES: u64 = 64 << 20;

/// Refuses a log whose last writes before a snapshot are not in it: the start snapshot with this store, and the newest one that was
/// passed over.
///
/// # Errors
/// [`Reason::NotOneMember`](crate::error::Reason::NotOneMember); an entry is damaged; an interruption.
pub(super) fn require_content(opened: &Opened, table: &Table<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    if let (Some(member), Some(snapshot)) = (opened.start_member(), &opened.start.snapshot) {
        require(member, snapshot, table, interrupt)?;
    }
    // A log without a record of a snapshot in its directory may be of another cluster.
    let Some(passed) = opened.start.passed_over.iter().find(|passed| !passed.damaged) else { return Ok(()) };
    let of = |member: &&Member| member.snapshots.iter().any(|name| name.path == passed.path);
    let Some(member) = opened.members.iter().find(of).filter(|member| member.wal.is_some()) else { return Ok(()) };
    // Before it is opened: a file of a running etcd is copied to memory.
    if !fs::metadata(&passed.path).is_ok_and(|found| found.len() <= READ_BYTES) {
        return Ok(());
    }
    let snapshot = member.files.open_snapshot(&passed.path, interrupt).and_then(|map| Snapshot::of(map, interrupt));
    if let Ok(snapshot) = snapshot.as_ref()
        && let Ok(table) = json::read_watched(snapshot.json(), interrupt.uncounted())
    {
        require(member, snapshot, &table, interrupt)?;
    }
    interrupt.ask()
}

fn require(member: &Member, snapshot: &Snapshot, table: &Table<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    let Some(wal) = &member.wal else { return Ok(()) };
    let Some(entries) = before(wal, snapshot) else { return Ok(()) };
    let mut store = Store { table, tree: None };
    // The paths that later entries change.
    let mut changed: Vec<Vec<u8>> = Vec::new();
    let (mut bytes, mut expires) = (0, false);
    for (number, reference) in entries.iter().rev().take(EXAMINED).enumerate() {
        interrupt.ask_at(number)?;
        if reference.kind != EntryKind::Normal || bytes > EXAMINED_PATHS {
            continue;
        }
        let entry = wal.entry(reference)?;
        let Ok(Proposal::V2(request)) = parse_proposal(entry.data, entry.data_offset) else { continue };
        let clean = path::clean(request.path);
        expires |= request.method == Method::Sync;
        if is_plain(&request) && !changed.iter().any(|other| overlap(other, &clean)) {
            match store.has(&request, expires) {
                Some(true) => return Ok(()),
                Some(false) => return refuse(member, snapshot, reference, request.path),
                None => {}
            }
        }
        if request.is_write() {
            bytes += clean.len();
            changed.push(clean.into_owned());
        }
    }
    Ok(())
}

/// Returns the entries up to the snapshot, if the log has its last one. They are of its history, and all of them are applied.
fn before<'w>(wal: &'w Wal, snapshot: &Snapshot) -> Option<&'w [EntryRef]> {
    let span = wal.spans().iter().rev().find(|span| span.at(snapshot.index).is_some())?;
    let entry = span.at(snapshot.index).filter(|entry| entry.term == snapshot.term)?;
    let first = span.entries.first()?.index;
    span.entries.get(..=usize::try_from(entry.index.0.checked_sub(first.0)?).ok()?)
}

/// Returns whether a request writes a value, without a TTL and without a comparison, and a snapshot can contain its bytes.
fn is_plain(request: &Request<'_>) -> bool {
    let Request { method, path, val, dir, prev_value, prev_index, expiration, refresh, .. } = request;
    let is_compared = !prev_value.is_empty() || *prev_index != 0;
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    // Whether the server writes below `/0` depends on its members.
    let is_key = (path.starts_with(b"/1/") || path.starts_with(b"/2/")) && *path::clean(path) == **path;
    let is_plain = *method == Method::Put && !dir && !is_compared && *expiration == 0 && refresh.is_none();
    is_plain && is_key && is_text(path) && is_text(val)
}

/// Returns whether one path is that of the other or of a node above it.
fn overlap(one: &[u8], other: &[u8]) -> bool {
    let (above, below) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || above == b"/")
}

/// The store of a snapshot.
struct Store<'t> {
    table: &'t Table<'t>,
    /// The same, for a document in any order.
    tree: Option<Tree<'t>>,
}

impl<'t> Store<'t> {
    /// Returns whether the store has what a request writes; `None` if the request may have failed, or its node may have expired.
    fn has(&mut self, request: &Request<'_>, expires: bool) -> Option<bool> {
        if let Some(node) = self.find(request.path).filter(|node| !node.is_dir())
            && *self.table.value(&node) == *request.val
        {
            return Some(true);
        }
        let tree = self.tree.get_or_insert_with(|| Tree::new(self.table));
        match tree.lookup(request.path) {
            Ok(node) if tree.is_dir(node) => None,
            Ok(node) if *tree.value(node) == *request.val => Some(true),
            // The key existed already, so its creation failed.
            Ok(_) => (request.prev_exist != Some(false)).then_some(false),
            // A node above it is no directory, so the request failed.
            Err(Missing::NotDir) => None,
            // The key did not exist, so its update failed.
            Err(Missing::NotFound) if request.prev_exist == Some(true) => None,
            // A directory above it may have expired.
            Err(Missing::NotFound) => (!expires).then_some(false),
        }
    }

    /// Finds a node in a document whose siblings are sorted by name, as etcd writes it.
    fn find(&self, path: &[u8]) -> Option<Node> {
        let (mut low, mut high) = (0, u32::try_from(self.table.len()).ok()?);
        while low < high {
            let middle = low + (high - low) / 2;
            let node = self.table.node(NodeId(middle));
            match path::components(&self.table.path(&node)).cmp(path::components(path)) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some(node),
                Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// Refuses the log, unless it is a backup or damaged.
fn refuse(member: &Member, snapshot: &Snapshot, entry: &EntryRef, path: &[u8]) -> Result<()> {
    let key = path::user_key(path);
    let path = short(&lossy(if key.is_empty() { path } else { key }));
    let how = format!(
        "it is at raft index {} and does not have the value of {path} that entry {} writes",
        snapshot.index, entry.index
    );
    owner::contradicted(member, snapshot.path(), Some(&snapshot.conf_state), &how).map_or(Ok(()), Err)
}
