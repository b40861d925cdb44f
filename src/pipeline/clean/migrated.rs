//! `--require-migrated`: whether v3 has every v2 key, with the same value.
//!
//! Compares the v2 state at the end of the log with the v3 backend. Must not know what is written.

use hashbrown::HashMap;

use crate::bolt::{Damage, Db};
use crate::count::counted;
use crate::display::{first_of, lossy};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::pipeline::check;
use crate::source::map::Map;
use crate::source::open::{OpenOptions, Opened};
use crate::transform::policy::NAMESPACE;
use crate::v2store::path::user_key;
use crate::v2store::recover::recover;
use crate::v2store::replay::{ReplayOptions, read_table_watched};

const HINT: &str = "`etcdlift convert --existing merge` adds them to v3; without --require-migrated they are removed";

/// Refuses a member that has a v2 key which is missing in v3, or has another value there.
///
/// # Errors
/// [`Reason::NotMigrated`], with the first of these keys; the source is damaged; an interruption.
pub(super) fn require(opened: &Opened, options: &OpenOptions<'_>) -> Result<()> {
    let interrupt = options.interrupt;
    let (backend, map) = check::v3_backend(opened.path(), opened, interrupt)?;
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
    if missing.is_empty() && different.is_empty() {
        return Ok(());
    }
    let of_all = counted(keys, "v2 key", "v2 keys");
    let mut parts = Vec::new();
    for (names, what) in [(&missing, "missing in v3"), (&different, "with another value in v3")] {
        if !names.is_empty() {
            parts.push(format!("{} {what} ({})", names.len(), first_of(names)));
        }
    }
    let message = format!("of {of_all}, {}", parts.join(", "));
    Err(Error::new(Reason::NotMigrated, message).in_file(opened.path()).hint(HINT))
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
