//! The `.snap` files of a member: which one counts, the v2 nodes in it, and the nodes in the others (docs/formats.md 2.3, 11.2).
//!
//! Selects like etcd 3.6: the newest file that loads and whose index and term the log has a committed record of. Must not know
//! requests in the log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::display::lossy;
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::report::upgrade_check::{CountingSnapshot, NodeKind, NotRead, UnreadSnapshot, V2Node};
use crate::source::dir::SnapName;
use crate::source::member::Member;
use crate::source::snap::Snapshot;
use crate::source::wal::Wal;
use crate::v2store::json;
use crate::v2store::table::{Node, NodeId, Table};

/// The snapshots of a member.
#[derive(Default)]
pub(super) struct Snapshots {
    /// The one that counts.
    pub(super) counting: Option<CountingSnapshot>,
    /// The nodes in it.
    pub(super) nodes: Nodes,
    /// The others that have v2 nodes, and those that cannot be read.
    pub(super) unread: Vec<UnreadSnapshot>,
    /// Those before it, the newest first, that can be read and that the log has no committed record of.
    pub(super) unrecorded: Vec<PathBuf>,
}

/// The v2 nodes in a snapshot.
#[derive(Default)]
pub(super) struct Nodes {
    /// Those that stop etcd 3.6.
    pub(super) blockers: Vec<V2Node>,
    /// Those that etcd 3.6 does not see.
    pub(super) unseen: Vec<V2Node>,
    /// The frame of users and roles, which only releases before 3.6.3 object to.
    pub(super) empty_auth: Vec<V2Node>,
}

/// Reads all snapshots of a member.
///
/// # Errors
/// The snapshot that counts has no v2 store that etcd can have written; an interruption.
pub(super) fn read(member: &Member, wal: &Wal, interrupt: Interrupt<'_>) -> Result<Snapshots> {
    let mut found = Snapshots::default();
    // etcd sorts by name, which is by term first.
    for name in member.snapshots.iter().rev() {
        let Some(loaded) = load(member, name, interrupt)? else { continue };
        let not_read = match &loaded {
            Err(_) => NotRead::Damaged,
            Ok(_) if found.counting.is_some() => NotRead::Older,
            Ok(snapshot) if is_recorded(snapshot, wal) => {
                let nodes = nodes(snapshot, interrupt)?;
                (found.counting, found.nodes) = (Some(nodes.0), nodes.1);
                snapshot.map().check_bytes(interrupt)?;
                continue;
            }
            Ok(_) => {
                found.unrecorded.push(name.path.clone());
                NotRead::NoRecord
            }
        };
        found.unread.extend(unread(name, not_read, loaded, interrupt)?);
    }
    for name in member.broken_snapshots.iter().rev() {
        let Some(loaded) = load(member, name, interrupt)? else { continue };
        found.unread.extend(unread(name, NotRead::Broken, loaded, interrupt)?);
    }
    Ok(found)
}

/// Loads a snapshot; `None` if a running etcd has purged it.
fn load(member: &Member, name: &SnapName, interrupt: Interrupt<'_>) -> Result<Option<Result<Snapshot>>> {
    let map = member.files.open_snapshot(&name.path, interrupt);
    match map.and_then(|map| Snapshot::of(map, interrupt)) {
        Err(error) if matches!(error.reason(), Reason::Interrupted(_) | Reason::PermissionDenied) => Err(error),
        Err(error) if error.reason() == Reason::SourceMissing => Ok(None),
        loaded => Ok(Some(loaded)),
    }
}

/// Returns whether the log has a record of the snapshot at or below its commit index.
fn is_recorded(snapshot: &Snapshot, wal: &Wal) -> bool {
    let commit = wal.hard_state().unwrap_or_default().commit;
    let mut records = wal.snapshots().iter().filter(|record| record.index <= commit);
    records.any(|record| (record.index, record.term) == (snapshot.index, snapshot.term))
}

fn unread(
    name: &SnapName,
    not_read: NotRead,
    loaded: Result<Snapshot>,
    interrupt: Interrupt<'_>,
) -> Result<Option<UnreadSnapshot>> {
    let mut file = UnreadSnapshot {
        path: name.path.display().to_string(),
        raft_index: name.index.0,
        not_read,
        nodes: BTreeMap::new(),
        error: None,
    };
    let read = loaded.and_then(|snapshot| {
        let (_, nodes) = nodes(&snapshot, interrupt)?;
        for node in nodes.blockers.iter().chain(&nodes.unseen) {
            *file.nodes.entry(node.kind.word()).or_default() += 1;
        }
        snapshot.map().check_bytes(interrupt)
    });
    interrupt.ask()?;
    file.error = read.err().map(|error: Error| error.to_string());
    let is_listed = not_read == NotRead::Broken || file.error.is_some() || !file.nodes.is_empty();
    Ok(is_listed.then_some(file))
}

/// Reads the nodes of a snapshot.
fn nodes(snapshot: &Snapshot, interrupt: Interrupt<'_>) -> Result<(CountingSnapshot, Nodes)> {
    let table = json::read_watched(snapshot.json(), interrupt)
        .map_err(|error| error.counted_from(snapshot.json_offset()).in_file(snapshot.path()))?;
    let counting = CountingSnapshot {
        path: snapshot.path().display().to_string(),
        raft_index: snapshot.index.0,
        term: snapshot.term.0,
        v2_index: table.current_index.0,
    };
    Ok((counting, classify(&table, interrupt)?))
}

/// A directory above the node that is being classified.
struct Above {
    /// The number of the first node after it.
    end: u32,
    /// Whether a component of its path is hidden.
    hidden: bool,
}

/// Divides the nodes outside `/0` into those that stop etcd 3.6 and those that it does not see.
///
/// etcd 3.6 objects to a visible directory of the root that has a visible child. Of `/2`, it objects to grandchildren.
fn classify(table: &Table<'_>, interrupt: Interrupt<'_>) -> Result<Nodes> {
    let mut nodes = Nodes::default();
    let mut above: Vec<Above> = Vec::new();
    let mut top = Vec::new();
    let mut id = 1;
    while (id as usize) < table.len() {
        interrupt.ask_at(id as usize)?;
        while above.last().is_some_and(|dir| id >= dir.end) {
            above.pop();
        }
        let node = table.node(NodeId(id));
        let name = table.name(&node);
        let depth = above.len() + 1;
        if depth == 1 {
            top = name.to_vec();
        }
        if depth == 1 && *name == *b"0" {
            id = node.end.max(id + 1);
            continue;
        }
        let hidden = name.starts_with(b"_") || above.last().is_some_and(|dir| dir.hidden);
        if let Some(kind) = kind(table, NodeId(id), &node, hidden) {
            let is_root_of_keys = depth == 1 && (top == b"1" || top == b"2");
            let is_frame = top == b"2" && depth == 2 && !hidden;
            let list = match hidden || depth == 1 {
                _ if is_frame => &mut nodes.empty_auth,
                true => &mut nodes.unseen,
                false => &mut nodes.blockers,
            };
            if !is_root_of_keys || !node.is_dir() {
                list.push(line(table, &node, kind, hidden));
            }
        }
        if node.is_dir() {
            above.push(Above { end: node.end, hidden });
        }
        id += 1;
    }
    Ok(nodes)
}

/// Returns the kind of a node that is listed: a key, or a directory without children that are listed in its place.
fn kind(table: &Table<'_>, id: NodeId, node: &Node, hidden: bool) -> Option<NodeKind> {
    if node.is_dir() {
        // The children of a hidden directory are all hidden.
        let is_shown = |child: NodeId| hidden || !table.name(&table.node(child)).starts_with(b"_");
        return (!table.children(id).any(is_shown)).then_some(NodeKind::EmptyDirectory);
    }
    let path = table.path(node);
    let is_below = |dir: &[u8]| path.strip_prefix(dir).is_some_and(|name| !name.contains(&b'/'));
    Some(match () {
        () if is_below(b"/2/users/") => NodeKind::User,
        () if is_below(b"/2/roles/") => NodeKind::Role,
        () => NodeKind::Key,
    })
}

fn line(table: &Table<'_>, node: &Node, kind: NodeKind, hidden: bool) -> V2Node {
    V2Node {
        kind,
        path: lossy(&table.path(node)),
        created_index: node.created,
        modified_index: node.modified,
        expiration: table.expiry(node).map(|at| at.to_string()),
        hidden,
    }
}
