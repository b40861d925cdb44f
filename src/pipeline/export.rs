//! `export`: a v2 tree or the live keys of a v3 store, as a file for other programs (CLI.md).
//!
//! A v2 source is replayed as a conversion replays it; nothing expires, and only `--include` and `--exclude` leave something
//! out. Of a v3 file the `key` bucket is read, and nothing else. What was written is read back before it gets its name.

use crate::notice::Code;
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;
use rayon::slice::ParallelSliceMut;

use super::convert::open_v2;
use super::inspect::summary;
use super::{Interrupted, diagnostics, listed, prepare, salvage, same_snapshot, targets};
use crate::bolt::{Damage, Db};
use crate::error::{Error, Reason, Result};
use crate::export::record::{Record, Records, What};
use crate::export::{ndjson, redb_table};
use crate::ids::{RaftIndex, Revision, V2Index};
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::options::{ConvertOptions, ExportFormat, ExportOptions, Rules};
use crate::output::naming::Before;
use crate::output::sidecar::Sidecar;
use crate::pipeline::read::{backend, wal_dir};
use crate::pipeline::replay_options::replay_options;
use crate::report::{Exported, Notice, Report};
use crate::source::lock;
use crate::source::map::Map;
use crate::source::open::{Found, OpenOptions, Opened, open};
use crate::source::watch::Watch;
use crate::transform::policy::NAMESPACE;
use crate::transform::rules::KeyRules;
use crate::v2store::path;
use crate::v2store::recover::recover;
use crate::v2store::replay::read_table_watched;
use crate::v2store::tree::{NodeRef, Tree};

/// Exports a source. Without an output of its own, the lines go to `print`.
///
/// # Errors
/// As for a conversion of the source; a v3 file that is not sound ([`Reason::Damaged`]); nothing to export
/// ([`Reason::NothingToConvert`]); the output exists, cannot be written, or is not what was written into it.
pub fn export(
    options: &ExportOptions,
    print: &mut dyn FnMut(&[u8]) -> Result<()>,
    interrupted: Interrupted<'_>,
) -> Result<Exported> {
    let before = targets::check_export(options, Vec::new())?;
    let watch = Arc::default();
    let exported = stage(options, before, &watch, print, interrupted);
    let (mut exported, file) = watch.settle(exported)?;
    if let Some(file) = file {
        exported.bytes = file.name(&|| targets::check_export(options, watch.files()).and_then(|_| watch.check()))?;
    }
    Ok(exported)
}

/// [`export`] up to the name of the output.
fn stage(
    options: &ExportOptions,
    before: Before,
    watch: &Arc<Watch>,
    print: Print<'_>,
    interrupted: Interrupted<'_>,
) -> Result<(Exported, Option<Delivered>)> {
    let convert = conversion(options);
    if let [source] = convert.sources.as_slice() {
        let open_options = OpenOptions {
            up_to: options.up_to_index.map(RaftIndex),
            salvage: options.salvage,
            allow_live: options.allow_live,
            watch: Arc::clone(watch),
            interrupt: Interrupt::new(interrupted),
            ..OpenOptions::default()
        };
        match open(source, &wal_dir(convert.wal_dirs.first()), &open_options)? {
            Found::V2(mut opened) => {
                salvage::weigh(&mut opened, &convert, interrupted)?;
                export_v2(&opened, &convert, options, before, print, interrupted)
            }
            Found::V3File(map) | Found::V3Only(map) => export_v3(&map, options, before, print, interrupted),
        }
    } else {
        export_v2(&*open_v2(&convert, watch, interrupted)?, &convert, options, before, print, interrupted)
    }
}

/// Prints a part of an export that goes to no file.
type Print<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// An output that is whole and read back, without its name.
enum Delivered {
    File(Sidecar),
    #[cfg(feature = "sled")]
    Folder(crate::output::staged_dir::Folder),
}

impl Delivered {
    /// Gives the output its name, right after `check`. Returns how many bytes it has.
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

/// The conversion that would read the source in the same way.
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
        ..ConvertOptions::new("", "")
    }
}

fn export_v2(
    opened: &Opened,
    convert: &ConvertOptions,
    options: &ExportOptions,
    before: Before,
    print: Print<'_>,
    interrupted: Interrupted<'_>,
) -> Result<(Exported, Option<Delivered>)> {
    let in_source = |e: Error| e.in_file(opened.path());
    same_snapshot::check(opened, convert, interrupted)?;
    let table = read_table_watched(opened, Interrupt::new(interrupted))?;
    let backend = backend(opened, interrupted)?;
    let replay_options = replay_options(convert, interrupted);
    let mut recovered = recover(opened, &table, backend.applied(), &replay_options).map_err(in_source)?;
    prepare::refuse_removed(opened, &mut recovered, convert.allow_removed)?;
    let mut report = Report::new(convert);
    diagnostics::source(&mut report, opened, &mut recovered).map_or(Ok(()), Err)?;
    backend.note_unusable(&mut report);
    if let Some(what) = backend.describe() {
        let message =
            format!("the source holds v3 data too ({what}), which is not exported: name its v3 database for that");
        report.warn(Code::V3Present, message);
    }
    let v2_index = recovered.v2_index();
    let tree = &mut recovered.replay.tree;
    listed::refuse_deep(tree, opened, "the export", interrupted)?;
    let root = tree.lookup(NAMESPACE).map_err(|_| Error::new(Reason::Internal, "there is no namespace of keys"))?;
    let mut rules = choice(options)?;
    let nodes = Nodes::new(tree, root, v2_index, &mut rules, interrupted)?;
    let directories = nodes.nodes.iter().filter(|node| tree.is_dir(**node)).count() as u64;
    refuse_nothing(&nodes, options, opened.path(), &diagnostics::possibly_incomplete(&report))?;
    report.warnings.extend(unused(&rules));
    let (bytes, delivered) = deliver(&nodes, options, before, print, interrupted)?;
    opened.check_bytes(Interrupt::new(interrupted))?;
    let exported = Exported {
        kind: "v2",
        keys: nodes.nodes.len() as u64 - directories,
        directories,
        state: format!("v2 index {v2_index}"),
        output: options.output.clone(),
        bytes,
        warnings: report.warnings,
        losses: report.losses,
    };
    Ok((exported, delivered))
}

fn export_v3(
    map: &Map,
    options: &ExportOptions,
    before: Before,
    print: Print<'_>,
    interrupted: Interrupted<'_>,
) -> Result<(Exported, Option<Delivered>)> {
    let unsound = |e: Damage| e.into_error(Reason::Damaged).in_file(map.path());
    let live = match lock::check_db(map.path()) {
        Err(e) if e.reason() == Reason::Locked && options.allow_live => true,
        checked => checked.map(|()| false)?,
    };
    let summary = summary(map, interrupted)?;
    if let Some(first) = summary.findings.first() {
        return Err(unsound(first.clone()).hint("`etcdlift verify` lists all that is wrong"));
    }
    let db = Db::open(map.bytes()).map_err(unsound)?;
    let mut rules = choice(options)?;
    let live_keys = LiveKeys::new(&db, summary.revision, &mut rules, interrupted).map_err(|e| e.in_file(map.path()))?;
    refuse_nothing(&live_keys, options, map.path(), "")?;
    let mut warnings = unused(&rules);
    if live {
        let message = format!(
            "an etcd is running on it: state at revision {}; later writes are not in this output",
            summary.revision
        );
        warnings.insert(0, Notice { code: Code::Live.word().to_string(), message });
    }
    let (bytes, delivered) = deliver(&live_keys, options, before, print, interrupted)?;
    map.check_bytes(Interrupt::new(interrupted))?;
    let exported = Exported {
        kind: "v3",
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

/// `--include` and `--exclude`.
fn choice(options: &ExportOptions) -> Result<KeyRules> {
    KeyRules::new(&Rules { choose: options.choose.clone(), ..Rules::default() })
}

fn unused(rules: &KeyRules) -> Vec<Notice> {
    let notice =
        |rule| Notice { code: Code::UnusedRule.word().to_string(), message: format!("a rule matched nothing: {rule}") };
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

/// Writes the records and reads them back. Returns how many bytes were printed, or the output without its name.
fn deliver(
    records: &dyn Records,
    options: &ExportOptions,
    before: Before,
    print: Print<'_>,
    interrupted: Interrupted<'_>,
) -> Result<(u64, Option<Delivered>)> {
    let records = &Watched { records, interrupted };
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
        redb_table::write(file.temp_path(), records, Interrupt::new(interrupted)).map_err(in_output)?;
        redb_table::compare(file.temp_path(), records, Interrupt::new(interrupted))?;
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
    interrupted()?;
    Ok((0, Some(Delivered::File(file))))
}

#[cfg(feature = "sled")]
fn deliver_sled(path: &Path, records: &dyn Records) -> Result<Delivered> {
    use crate::export::sled_dir;
    let folder = crate::output::staged_dir::Folder::create(path)?;
    sled_dir::write(folder.temp_path(), records)?;
    sled_dir::compare(folder.temp_path(), records)?;
    Ok(Delivered::Folder(folder))
}

#[cfg(not(feature = "sled"))]
fn deliver_sled(_: &Path, _: &dyn Records) -> Result<Delivered> {
    Err(Error::new(Reason::Usage, NO_SLED))
}

/// Why there is no `--format sled`.
#[cfg(not(feature = "sled"))]
pub const NO_SLED: &str =
    "--format sled is not in this etcdlift: build it with `cargo build --release --features sled`";

/// Records that are shown only as long as nobody interrupts.
struct Watched<'a> {
    records: &'a dyn Records,
    interrupted: Interrupted<'a>,
}

impl Records for Watched<'_> {
    fn table(&self) -> &'static str {
        self.records.table()
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
                (self.interrupted)()?;
            }
            number += 1;
            show(record)
        })
    }
}

fn common_facts(kind: &str, state: (&'static str, String), records: usize) -> Vec<(&'static str, String)> {
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

/// The nodes of a v2 tree below the namespace of keys, by path.
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
        interrupted: Interrupted<'_>,
    ) -> Result<Self> {
        let mut nodes = Vec::new();
        let mut visited = 0u64;
        tree.walk_sorted::<Error>(root, &mut |node, path| {
            if visited.is_multiple_of(1 << 12) {
                interrupted()?;
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
    fn table(&self) -> &'static str {
        "nodes"
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        common_facts("v2", ("v2_index", self.v2_index.to_string()), self.nodes.len())
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

/// The keys of a v3 store that are not deleted, as they are at the current revision.
struct LiveKeys<'a> {
    pairs: Vec<KeyValue<'a>>,
    revision: Revision,
}

impl<'a> LiveKeys<'a> {
    fn new(db: &Db<'a>, revision: Revision, rules: &mut KeyRules, interrupted: Interrupted<'_>) -> Result<Self> {
        let unsound = |e: Damage| e.into_error(Reason::Damaged);
        let bucket = db.bucket(schema::KEY).map_err(unsound)?;
        let mut last: HashMap<&[u8], KeyValue<'a>> = HashMap::new();
        for (number, pair) in bucket.iter().flat_map(|bucket| bucket.iter()).enumerate() {
            if number.is_multiple_of(1 << 16) {
                interrupted()?;
            }
            let pair = pair.map_err(unsound)?;
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
    fn table(&self) -> &'static str {
        "pairs"
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        common_facts("v3", ("revision", self.revision.to_string()), self.pairs.len())
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
