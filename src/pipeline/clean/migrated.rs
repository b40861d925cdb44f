//! `--require-migrated`: whether v3 has every v2 key with the same value, and every v2 user and role.
//!
//! Of users and roles, only the names count: permissions are about keys, which can have other names in v3, and a password can be new.
//! Compares the v2 state at the end of the log with the v3 backend, which must have the v3 writes of the log. Must not know what is
//! written.

use hashbrown::{HashMap, HashSet};

use crate::bolt::{Damage, Db};
use crate::count::counted;
use crate::display::{first_of, lossy};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::pipeline::backend::Backend;
use crate::pipeline::check;
use crate::pipeline::merge::preserved::Preserved;
use crate::pipeline::merge::unapplied;
use crate::source::internal_request::V3Action;
use crate::source::map::Map;
use crate::source::open::{OpenOptions, Opened};
use crate::transform::auth;
use crate::transform::policy::NAMESPACE;
use crate::v2store::path::user_key;
use crate::v2store::recover::recover;
use crate::v2store::replay::{ReplayOptions, read_table_watched};
use crate::verify;

const HINT: &str = "`etcdlift convert --existing merge` adds them to v3; without --require-migrated they are removed";

/// The v2 role of anonymous clients.
const GUEST: &str = "guest";

/// Refuses a member that has a v2 key, user or role which is missing in v3, or a key with another value there.
///
/// # Errors
/// [`Reason::NotMigrated`], with the first of these names; [`Reason::V3Unapplied`]; the source is damaged; an interruption.
pub(super) fn require(opened: &Opened, options: &OpenOptions<'_>) -> Result<()> {
    let interrupt = options.interrupt;
    let (backend, map) = check::v3_backend(opened.path(), opened, interrupt)?;
    require_applied(opened, (&backend, map), interrupt)?;
    let live = live_keys(map, interrupt).map_err(|e| e.in_file(map.path()))?;
    let table = read_table_watched(opened, interrupt)?;
    let replay = ReplayOptions { interrupt, ..ReplayOptions::default() };
    let mut recovered = recover(opened, &table, backend.applied(), &replay).map_err(|e| e.in_file(opened.path()))?;
    let tree = &mut recovered.replay.tree;
    let root = tree.lookup(NAMESPACE);
    let root = root.map_err(|_| Error::new(Reason::Internal, "the namespace of keys does not exist"))?;
    let (mut keys, mut missing, mut different) = (0u64, Vec::new(), Vec::new());
    tree.walk_sorted::<Error>(root, &mut |node, path| {
        if tree.is_dir(node) {
            return Ok(());
        }
        if keys.is_multiple_of(1 << 12) {
            interrupt.ask()?;
        }
        keys += 1;
        let key = user_key(path);
        match live.get(key) {
            None => missing.push(lossy(key)),
            Some(value) if **value != *tree.value(node) => different.push(lossy(key)),
            Some(_) => {}
        }
        Ok(())
    })?;
    let of_keys = [(&missing, "missing in v3"), (&different, "with another value in v3")];
    let mut parts: Vec<String> = objection(&counted(keys, "v2 key", "v2 keys"), &of_keys).into_iter().collect();
    let mut auth = auth::names(tree);
    // The rights of anonymous clients, which v3 does not have.
    auth.roles.retain(|role| role != GUEST);
    let buckets = [
        (auth.users, schema::AUTH_USERS, ["v2 user", "v2 users"]),
        (auth.roles, schema::AUTH_ROLES, ["v2 role", "v2 roles"]),
    ];
    for (names, bucket, [one, many]) in buckets {
        let in_v3 = names_in(map, bucket).map_err(|e| e.in_file(map.path()))?;
        let of_all = counted(names.len() as u64, one, many);
        let missing = names.into_iter().filter(|name| !in_v3.contains(name)).collect();
        parts.extend(objection(&of_all, &[(&missing, "missing in v3")]));
    }
    if parts.is_empty() {
        return Ok(());
    }
    Err(Error::new(Reason::NotMigrated, parts.join("; ")).in_file(opened.path()).hint(HINT))
}

/// Refuses a log with v3 writes of keys, users or roles that the backend does not show. A member applies them when it starts, also
/// those whose commit nothing proves.
fn require_applied(opened: &Opened, (backend, map): (&Backend<'_>, &Map), interrupt: Interrupt<'_>) -> Result<()> {
    let applied = backend.consistent_index.unwrap_or_default();
    let mut in_log = unapplied::left_out(opened, applied, interrupt)?;
    in_log.retain(|(_, request)| changes_names(request.action()));
    if in_log.is_empty() {
        return Ok(());
    }
    let damaged = |e: Damage| e.into_error(Reason::V3Unreadable).in_file(map.path());
    let db = Db::open(map.bytes()).map_err(damaged)?;
    let summary = verify::carried(&db.watched(interrupt));
    interrupt.ask()?;
    let preserved = Preserved::read(&db, summary.map_err(damaged)?.revision, interrupt);
    let in_log = unapplied::not_shown(&in_log, &preserved.map_err(|e| e.in_file(map.path()))?);
    if in_log.is_empty() {
        return Ok(());
    }
    Err(unapplied::refuse(opened, backend, &in_log, ("in the log", "clean")))
}

/// Returns whether a v3 request can change which keys, users and roles there are, or a value.
fn changes_names(action: V3Action) -> bool {
    use V3Action::{AddRole, AddUser, Delete, DeleteRole, DeleteUser, Put, RevokeLease, Txn};
    matches!(action, Put | Delete | Txn | RevokeLease | AddUser | DeleteUser | AddRole | DeleteRole)
}

/// Describes what is wrong with some names; `None` if nothing is.
fn objection(of_all: &str, lists: &[(&Vec<String>, &str)]) -> Option<String> {
    let lists = lists.iter().filter(|(names, _)| !names.is_empty());
    let parts: Vec<String> =
        lists.map(|(names, what)| format!("{} {what} ({})", names.len(), first_of(names))).collect();
    (!parts.is_empty()).then(|| format!("of {of_all}, {}", parts.join(", ")))
}

/// Returns the names in a bucket of users or roles.
fn names_in(map: &Map, bucket: &[u8]) -> Result<HashSet<String>> {
    let damaged = |e: Damage| e.into_error(Reason::V3Unreadable);
    let db = Db::open(map.bytes()).map_err(damaged)?;
    let bucket = db.bucket(bucket).map_err(damaged)?;
    let pairs = bucket.iter().flat_map(|bucket| bucket.iter());
    pairs.map(|pair| Ok(lossy(pair.map_err(damaged)?.key))).collect()
}

/// Returns the live keys of a v3 backend with their values.
fn live_keys<'m>(map: &'m Map, interrupt: Interrupt<'_>) -> Result<HashMap<&'m [u8], &'m [u8]>> {
    let damaged = |e: Damage| e.into_error(Reason::V3Unreadable);
    let db = Db::open(map.bytes()).map_err(damaged)?;
    let bucket = db.bucket(schema::KEY).map_err(damaged)?;
    let mut live = HashMap::new();
    for (number, pair) in bucket.iter().flat_map(|bucket| bucket.iter()).enumerate() {
        interrupt.ask_at(number)?;
        let pair = pair.map_err(damaged)?;
        let kv = KeyValue::decode(pair.value, pair.value_offset())?;
        match RevisionKey::decode(pair.key) {
            Some(RevisionKey { tombstone: true, .. }) => live.remove(kv.key),
            _ => live.insert(kv.key, kv.value),
        };
    }
    Ok(live)
}
