//! `export`: a v2 tree or the live keys of a v3 store, as a file for other programs (docs/cli.md, docs/exports.md).
//!
//! A v2 source is replayed as in a conversion. Nothing expires, and only `--include` and `--exclude` leave keys out. A
//! v3 file is checked as a whole, but only its `key` bucket is exported. The written file is read back before it gets
//! its name. Must not know how a format encodes a record: `export/` has the formats.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;
use rayon::slice::ParallelSliceMut;

use super::context::Context;
use super::convert::open_v2;
use super::inspect::summary;
use super::read::Source;
use super::replay::{Replayed, replay};
use super::{Interrupted, listed, salvage, same_snapshot, targets};
use crate::bolt::{Damage, Db};
use crate::error::{Error, Reason, Result};
use crate::export::record::{ExportKind, Record, Records, What};
use crate::export::{ndjson, redb_table};
use crate::ids::{RaftIndex, Revision, V2Index};
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::notice::Code;
use crate::options::{ConvertOptions, Existing, ExportFormat, ExportOptions, Rules};
use crate::output::naming::Before;
use crate::output::sidecar::Sidecar;
use crate::report::{Exported, Notice, Notices, Report};
use crate::source::lock;
use crate::source::map::Map;
use crate::source::open::{Found, OpenOptions, Opened, open};
use crate::source::watch::Watch;
use crate::transform::policy::NAMESPACE;
use crate::transform::rules::KeyRules;
use crate::v2store::path;
use crate::v2store::replay::read_table_watched;
use crate::v2store::tree::{NodeRef, Tree};

/// Exports a source. If the options name no output, `print` takes the lines.
///
/// # Errors
/// Those of a conversion of the source; [`Reason::Damaged`] for a damaged v3 file; [`Reason::NothingToConvert`] if no
/// key is left; the output exists, cannot be written, or differs from the records when it is read back.
pub fn export(
    options: &ExportOptions,
    print: &mut dyn FnMut(&[u8]) -> Result<()>,
    interrupted: Interrupted<'_>,
) -> Result<Exported> {
    let before = targets::check_export(options, Vec::new())?;
    let watch = Arc::default();
    let exported = stage(options, before, &watch, print, (Empty::Refused, Interrupt::new(interrupted)));
    let (mut exported, file) = watch.settle(exported)?;
    if let Some(file) = file {
        exported.bytes = file.name(&|| targets::check_export(options, watch.files()).and_then(|_| watch.check()))?;
    }
    Ok(exported)
}

/// Writes the v2 keys of a source into a file that has no name yet. Without keys there is no file.
///
/// # Errors
/// Those of [`export`].
pub(super) fn stage_file(
    options: &ExportOptions,
    watch: &Arc<Watch>,
    interrupt: Interrupt<'_>,
) -> Result<(Exported, Option<Sidecar>)> {
    let no_print = &mut |_: &[u8]| Ok(());
    match stage(options, Before::Nothing, watch, no_print, (Empty::Reported, interrupt))? {
        (exported, Some(Delivered::File(file))) => file.sync().map(|()| (exported, Some(file))),
        (exported, None) if exported.keys + exported.directories == 0 => Ok((exported, None)),
        _ => Err(Error::new(Reason::Internal, "an export into a file made none")),
    }
}

/// What becomes of an export without keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// It is an error.
    Refused,
    /// Its warnings and losses are the result.
    Reported,
}

/// Exports like [`export`], but leaves the output without its name.
fn stage(
    options: &ExportOptions,
    before: Before,
    watch: &Arc<Watch>,
    print: Print<'_>,
    (empty, interrupt): (Empty, Interrupt<'_>),
) -> Result<(Exported, Option<Delivered>)> {
    let convert = conversion(options);
    let context = &Context::new(&convert, &Report::new(&convert), &(), interrupt)?;
    if let [source] = convert.sources.as_slice() {
        let open_options = OpenOptions {
            up_to: options.up_to_index.map(RaftIndex),
            salvage: options.salvage,
            allow_live: options.allow_live,
            watch: Arc::clone(watch),
            interrupt,
            ..OpenOptions::default()
        };
        match open(source, convert.wal_dirs.first(), &open_options)? {
            Found::V2(mut opened) => {
                salvage::compare_starts(&mut opened, context)?;
                export_v2(&opened, context, options, (before, empty), print)
            }
            Found::V3File(map) | Found::V3Only(map) => export_v3(&map, options, before, print, interrupt),
        }
    } else {
        export_v2(&*open_v2(context, watch)?, context, options, (before, empty), print)
    }
}

/// The receiver of the lines of an export that goes to no file.
type Print<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// An output that is whole and read back, under a temporary name.
enum Delivered {
    File(Sidecar),
    #[cfg(feature = "sled")]
    Folder(crate::output::staged_dir::Folder),
}

impl Delivered {
    /// Gives the output its name, directly after `check`. Returns the size of the output in bytes.
    fn name(self, check: &dyn Fn() -> Result<()>) -> Result<u64> {
        match self {
            Delivered::File(file) => {
                let failed = |e| Error::io(Reason::OutputFailed, file.path(), "read it back", e);
                let bytes = fs::metadata(file.temp_path()).map_err(failed)?.len();
                file.sync()?;
                check()?;
                file.name()?;
                Ok(bytes)
            }
            #[cfg(feature = "sled")]
            Delivered::Folder(folder) => {
                let bytes = folder.sync()?;
                check()?;
                folder.name()?;
                Ok(bytes)
            }
        }
    }
}

/// Returns the options of a conversion that reads the source in the same way.
fn conversion(options: &ExportOptions) -> ConvertOptions {
    ConvertOptions {
        sources: options.sources.clone(),
        wal_dirs: options.wal_dirs.clone(),
        tail: options.tail,
        up_to_index: options.up_to_index,
        source_version: options.source_version,
        in_order_names: options.in_order_names,
        salvage: options.salvage,
        allow_removed: options.allow_removed,
        allow_live: options.allow_live,
        // An export of v2 keys leaves v3 data out, and names it.
        existing: Existing::DropV3,
        ..ConvertOptions::new("", "")
    }
}

fn export_v2(
    opened: &Opened,
    context: &Context<'_>,
    options: &ExportOptions,
    (before, empty): (Before, Empty),
    print: Print<'_>,
) -> Result<(Exported, Option<Delivered>)> {
    let interrupt = context.interrupt;
    same_snapshot::check(opened, context)?;
    let table = read_table_watched(opened, interrupt)?;
    let (found, replayed) = replay(context, Source { opened, table: &table, changes_limit: None });
    let Replayed { backend, mut recovered, possibly_incomplete, .. } = replayed?;
    let Notices { mut warnings, losses } = found.notices;
    if let Some(what) = backend.describe() {
        let message = format!("the source also holds v3 data ({what}), which is not exported");
        warnings.push(Notice::new(Code::V3Present, message).hint("name the v3 database to export it"));
    }
    let v2_index = recovered.v2_index();
    let tree = &mut recovered.replay.tree;
    listed::refuse_deep(tree, opened, "the export", interrupt)?;
    let root =
        tree.lookup(NAMESPACE).map_err(|_| Error::new(Reason::Internal, "the namespace of keys does not exist"))?;
    let mut rules = key_rules(options)?;
    let nodes = Nodes::new(tree, root, v2_index, &mut rules, interrupt)?;
    let directories = nodes.nodes.iter().filter(|node| tree.is_dir(**node)).count() as u64;
    warnings.extend(unused(&rules));
    let (bytes, delivered) = match empty {
        Empty::Reported if nodes.is_empty() => (0, None),
        _ => {
            refuse_nothing(&nodes, options, opened.path(), &possibly_incomplete)?;
            deliver(&nodes, options, before, print, interrupt)?
        }
    };
    opened.check_bytes(interrupt)?;
    let exported = Exported {
        kind: ExportKind::V2,
        keys: nodes.nodes.len() as u64 - directories,
        directories,
        state: format!("v2 index {v2_index}"),
        output: options.output.clone(),
        bytes,
        warnings,
        losses,
    };
    Ok((exported, delivered))
}

fn export_v3(
    map: &Map,
    options: &ExportOptions,
    before: Before,
    print: Print<'_>,
    interrupt: Interrupt<'_>,
) -> Result<(Exported, Option<Delivered>)> {
    let damaged = |e: Damage| e.into_error(Reason::Damaged).in_file(map.path());
    let live = match lock::check_db(map.path()) {
        Err(e) if e.reason() == Reason::Locked && options.allow_live => true,
        checked => checked.map(|()| false)?,
    };
    let summary = summary(map, interrupt)?;
    if let Some(first) = summary.findings.first() {
        return Err(damaged(first.clone()).hint("`etcdlift verify` lists all findings"));
    }
    let db = Db::open(map.bytes()).map_err(damaged)?;
    let mut rules = key_rules(options)?;
    let live_keys = LiveKeys::new(&db, summary.revision, &mut rules, interrupt).map_err(|e| e.in_file(map.path()))?;
    refuse_nothing(&live_keys, options, map.path(), "")?;
    let mut warnings = unused(&rules);
    if live {
        let message = format!(
            "an etcd is running on the file: the output has its state at revision {}, and no later writes",
            summary.revision
        );
        warnings.insert(0, Notice::new(Code::Live, message));
    }
    let (bytes, delivered) = deliver(&live_keys, options, before, print, interrupt)?;
    map.check_bytes(interrupt)?;
    let exported = Exported {
        kind: ExportKind::V3,
        keys: live_keys.pairs.len() as u64,
        directories: 0,
        state: format!("revision {}", summary.revision),
        output: options.output.clone(),
        bytes,
        warnings,
        losses: Vec::new(),
    };
    Ok((exported, delivered))
}

/// Returns the rules of `--include` and `--exclude`.
fn key_rules(options: &ExportOptions) -> Result<KeyRules> {
    KeyRules::new(&Rules { choose: options.choose.clone(), ..Rules::default() })
}

fn unused(rules: &KeyRules) -> Vec<Notice> {
    let notice = |rule| Notice::new(Code::UnusedRule, format!("a rule matched nothing: {rule}"));
    rules.unused().into_iter().map(notice).collect()
}

fn refuse_nothing(records: &dyn Records, options: &ExportOptions, source: &Path, incomplete: &str) -> Result<()> {
    if !records.is_empty() {
        return Ok(());
    }
    let message = if options.choose.is_empty() {
        "the source holds no key"
    } else {
        "--include and --exclude leave no key of the source"
    };
    let message = format!("nothing to export: {message}{incomplete}");
    Err(Error::new(Reason::NothingToConvert, message).in_file(source))
}

/// Writes the records and reads them back. Returns the number of printed bytes, and the output without its name.
fn deliver(
    records: &dyn Records,
    options: &ExportOptions,
    before: Before,
    print: Print<'_>,
    interrupt: Interrupt<'_>,
) -> Result<(u64, Option<Delivered>)> {
    let records = &Watched { records, interrupt };
    let Some(path) = &options.output else {
        let mut bytes = 0;
        ndjson::write(records, &mut |text| {
            bytes += text.len() as u64;
            print(text)
        })?;
        return Ok((bytes, None));
    };
    let in_output = |e: Error| e.in_file(path);
    if options.format == ExportFormat::Sled {
        return deliver_sled(path, records).map(|folder| (0, Some(folder))).map_err(in_output);
    }
    let mut file = Sidecar::create(path, before)?;
    if options.format == ExportFormat::Redb {
        redb_table::write(file.temp_path(), records, interrupt).map_err(in_output)?;
        redb_table::compare(file.temp_path(), records, interrupt)?;
    } else {
        file.write(|out| {
            ndjson::write(records, &mut |text| {
                out.write_all(text).map_err(|e| Error::io(Reason::OutputFailed, path, "write", e))
            })
        })?;
        let text =
            File::open(file.temp_path()).map_err(|e| Error::io(Reason::OutputFailed, path, "read it back", e))?;
        ndjson::compare(&mut BufReader::with_capacity(1 << 20, text), records).map_err(in_output)?;
    }
    interrupt.ask()?;
    Ok((0, Some(Delivered::File(file))))
}

#[cfg(feature = "sled")]
fn deliver_sled(path: &Path, records: &dyn Records) -> Result<Delivered> {
    use crate::export::sled_dir;
    let folder = crate::output::staged_dir::Folder::create(path, Default::default())?;
    sled_dir::write(folder.temp_path(), records)?;
    sled_dir::compare(folder.temp_path(), records)?;
    Ok(Delivered::Folder(folder))
}

#[cfg(not(feature = "sled"))]
fn deliver_sled(_: &Path, _: &dyn Records) -> Result<Delivered> {
    Err(no_sled())
}

/// Returns the error of `--format sled` in a build without it.
#[cfg(not(feature = "sled"))]
pub fn no_sled() -> Error {
    let error = Error::new(Reason::Usage, "this etcdlift was built without `--format sled`");
    error.hint("build it with `cargo build --release --features sled`")
}

/// Records that are shown until an interruption.
struct Watched<'a> {
    records: &'a dyn Records,
    interrupt: Interrupt<'a>,
}

impl Records for Watched<'_> {
    fn kind(&self) -> ExportKind {
        self.records.kind()
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        self.records.facts()
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn each(&self, show: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
        let mut number = 0u64;
        self.records.each(&mut |record| {
            if number.is_multiple_of(1 << 12) {
                self.interrupt.ask()?;
            }
            number += 1;
            show(record)
        })
    }
}

fn common_facts(kind: ExportKind, state: (&'static str, String), records: usize) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("etcdlift", env!("CARGO_PKG_VERSION").to_string()),
        ("kind", kind.to_string()),
        ("records", records.to_string()),
        ("schema", "1".to_string()),
        state,
    ];
    facts.sort_unstable();
    facts
}

/// The nodes of a v2 tree below the namespace of keys, sorted by path.
struct Nodes<'t, 'm> {
    tree: &'t Tree<'m>,
    nodes: Vec<NodeRef>,
    v2_index: V2Index,
}

impl<'t, 'm> Nodes<'t, 'm> {
    fn new(
        tree: &'t Tree<'m>,
        root: NodeRef,
        v2_index: V2Index,
        rules: &mut KeyRules,
        interrupt: Interrupt<'_>,
    ) -> Result<Self> {
        let mut nodes = Vec::new();
        let mut visited = 0u64;
        tree.walk_sorted::<Error>(root, &mut |node, path| {
            if visited.is_multiple_of(1 << 12) {
                interrupt.ask()?;
            }
            visited += 1;
            if node != root && rules.excluded(path::user_key(path)).is_none() {
                nodes.push(node);
            }
            Ok(())
        })?;
        Ok(Nodes { tree, nodes, v2_index })
    }
}

impl Records for Nodes<'_, '_> {
    fn kind(&self) -> ExportKind {
        ExportKind::V2
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        common_facts(self.kind(), ("v2_index", self.v2_index.to_string()), self.nodes.len())
    }

    fn len(&self) -> usize {
        self.nodes.len()
    }

    fn each(&self, show: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
        let tree = self.tree;
        self.nodes.iter().try_for_each(|node| {
            let path = tree.path(*node);
            let what = What::Node {
                created: tree.created(*node),
                modified: tree.modified(*node),
                expiration: tree.expiry(*node),
                value: (!tree.is_dir(*node)).then(|| tree.value(*node)),
            };
            show(&Record { key: Cow::Borrowed(path::user_key(&path)), what })
        })
    }
}

/// The live keys of a v3 store at its current revision, sorted by key.
struct LiveKeys<'a> {
    pairs: Vec<KeyValue<'a>>,
    revision: Revision,
}

impl<'a> LiveKeys<'a> {
    fn new(db: &Db<'a>, revision: Revision, rules: &mut KeyRules, interrupt: Interrupt<'_>) -> Result<Self> {
        let damaged = |e: Damage| e.into_error(Reason::Damaged);
        let bucket = db.bucket(schema::KEY).map_err(damaged)?;
        let mut last: HashMap<&[u8], KeyValue<'a>> = HashMap::new();
        for (number, pair) in bucket.iter().flat_map(|bucket| bucket.iter()).enumerate() {
            if number.is_multiple_of(1 << 16) {
                interrupt.ask()?;
            }
            let pair = pair.map_err(damaged)?;
            let kv = KeyValue::decode(pair.value, pair.value_offset())?;
            match RevisionKey::decode(pair.key) {
                Some(RevisionKey { tombstone: true, .. }) => last.remove(kv.key),
                _ => last.insert(kv.key, kv),
            };
        }
        let mut pairs: Vec<_> = last.into_values().filter(|kv| rules.excluded(kv.key).is_none()).collect();
        pairs.par_sort_unstable_by_key(|kv| kv.key);
        Ok(LiveKeys { pairs, revision })
    }
}

impl Records for LiveKeys<'_> {
    fn kind(&self) -> ExportKind {
        ExportKind::V3
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        common_facts(self.kind(), ("revision", self.revision.to_string()), self.pairs.len())
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn each(&self, show: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
        self.pairs.iter().try_for_each(|kv| {
            let what = What::Pair {
                create: kv.create_revision,
                modified: kv.mod_revision,
                version: kv.version,
                lease: kv.lease,
                value: Cow::Borrowed(kv.value),
            };
            show(&Record { key: Cow::Borrowed(kv.key), what })
        })
    }
}
