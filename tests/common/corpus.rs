//! The corpus of real v2 data directories: where it lies, and its archives
//! unpacked, each once for a test process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::scratch;
use super::skip::{Need, skip};
use super::truth::Truth;

/// One unpacked archive.
#[derive(Debug)]
pub struct Scenario {
    /// Like `v3.4.23-a`.
    pub name: String,
    /// Holds `truth.json` and the data directories.
    pub dir: PathBuf,
    pub truth: Truth,
}

impl Scenario {
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The names of its data directories, without removed members.
    pub fn live(&self) -> Vec<&str> {
        let dirs = self.truth.data_dirs.iter();
        let live = dirs.filter(|(_, dir)| !dir.is_removed());
        live.map(|(name, _)| name.as_str()).collect()
    }

    /// Like `a` or `gtorn`.
    pub fn kind(&self) -> &str {
        kind(&self.name)
    }

    /// Like `[3, 4, 23]`.
    pub fn version(&self) -> Vec<u32> {
        let version = self.name.trim_start_matches('v').split('-').next();
        version.unwrap().split('.').map(|n| n.parse().unwrap()).collect()
    }
}

/// All scenarios of the given kinds, or `None` after a note that `test` skips.
pub fn of_kinds(test: &str, kinds: &[&str]) -> Option<Vec<Arc<Scenario>>> {
    some(test, |name| kinds.contains(&kind(name)))
}

/// All scenarios, or `None` after a note that `test` skips.
pub fn all(test: &str) -> Option<Vec<Arc<Scenario>>> {
    some(test, |_| true)
}

fn some(test: &str, wanted: impl Fn(&str) -> bool) -> Option<Vec<Arc<Scenario>>> {
    let dir = require(test);
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".tar.zst").map(str::to_owned))
        .filter(|name| wanted(name))
        .collect();
    names.sort();
    if names.is_empty() {
        assert!(!place().whole, "no such scenario in the corpus");
        skip_missing(test, "a scenario of this kind");
        return None;
    }
    Some(names.iter().map(|name| load(dir, name)).collect())
}

/// One scenario, or `None` after a note that `test` skips.
pub fn scenario(test: &str, name: &str) -> Option<Arc<Scenario>> {
    let dir = require(test);
    if !place().whole && !dir.join(format!("{name}.tar.zst")).exists() {
        skip_missing(test, name);
        return None;
    }
    Some(load(dir, name))
}

/// The folder of real files from public repositories.
pub fn public(test: &str) -> Option<PathBuf> {
    let public = require(test).join("public");
    if !place().whole {
        skip_missing(test, "the folder `public`");
        return None;
    }
    Some(public)
}

/// Every scenario of corpus-mixed.
pub const MIXED: [&str; 19] = [
    "v3.4.23-m12",
    "v3.5.16-m1",
    "v3.5.16-m10",
    "v3.5.16-m11",
    "v3.5.16-m13",
    "v3.5.16-m14",
    "v3.5.16-m15",
    "v3.5.16-m1b",
    "v3.5.16-m2",
    "v3.5.16-m3",
    "v3.5.16-m3b",
    "v3.5.16-m4",
    "v3.5.16-m5",
    "v3.5.16-m6",
    "v3.5.16-m6b",
    "v3.5.16-m7",
    "v3.5.16-m7b",
    "v3.5.16-m8",
    "v3.5.16-m9",
];

/// A scenario of corpus-mixed: a folder with `truth.json` and directories that hold v2 and v3 data. `None` after a note that
/// `test` skips.
pub fn mixed(test: &str, name: &str) -> Option<PathBuf> {
    let archive = require(test).with_file_name("corpus-mixed").join(format!("{name}.tar.zst"));
    if !archive.exists() {
        skip(test, Need::Corpus, &format!("{name} is not in ../shared/corpus-mixed"));
        return None;
    }
    // Each test has its own: they run at the same time.
    let to = scratch::dir().join("corpus-mixed").join(test.replace("::", "-"));
    unpack(&archive, &to);
    Some(to.join(name))
}

/// The unpacked directories of corpus-runs.
pub fn runs(test: &str) -> Option<Vec<PathBuf>> {
    let from = require(test).with_file_name("corpus-runs");
    let to = scratch::dir().join("corpus-runs");
    let mut archives: Vec<PathBuf> = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "zst"))
        .collect();
    archives.sort();
    let unpacked = |archive: &PathBuf| {
        unpack(archive, &to);
        let name = archive.file_name().unwrap().to_str().unwrap();
        to.join(name.strip_suffix(".tar.zst").unwrap())
    };
    Some(archives.iter().map(unpacked).collect())
}

/// Where the archives are, and whether all of them are there.
struct Place {
    dir: PathBuf,
    whole: bool,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        match here.join("../shared/corpus").canonicalize() {
            Ok(dir) => Place { dir, whole: true },
            Err(_) => Place { dir: here.join("fixtures/corpus"), whole: false },
        }
    })
}

/// How many there must be at least: of the whole corpus, or of the part in `fixtures/`.
pub fn at_least(whole: usize, part: usize) -> usize {
    if place().whole { whole } else { part }
}

/// Where the archives are; a run that requires the whole corpus fails on the part in `fixtures/`.
fn require(test: &str) -> &'static Path {
    let Place { dir, whole } = place();
    if !whole && std::env::var_os("ETCDLIFT_REQUIRE_CORPUS").is_some_and(|value| value == "1") {
        panic!("{test}: the corpus is not at ../shared/corpus (ETCDLIFT_REQUIRE_CORPUS=1)");
    }
    dir
}

fn skip_missing(test: &str, what: &str) {
    skip(test, Need::Corpus, &format!("{what} is not in fixtures/corpus, and there is no ../shared/corpus"));
}

fn kind(name: &str) -> &str {
    name.rsplit('-').next().unwrap()
}

fn load(dir: &Path, name: &str) -> Arc<Scenario> {
    type Slot = Arc<OnceLock<Arc<Scenario>>>;
    static LOADED: Mutex<BTreeMap<String, Slot>> = Mutex::new(BTreeMap::new());
    let slot = {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.entry(name.to_owned()).or_default().clone()
    };
    let scenario = slot.get_or_init(|| {
        let to = scratch::dir().join("corpus");
        unpack(&dir.join(format!("{name}.tar.zst")), &to);
        let dir = to.join(name);
        let truth = fs::read(dir.join("truth.json")).unwrap();
        let truth = serde_json::from_slice(&truth).unwrap_or_else(|error| panic!("truth.json of {name}: {error}"));
        let name = name.to_owned();
        Arc::new(Scenario { name, dir, truth })
    });
    scenario.clone()
}

/// Unpacks an archive.
fn unpack(archive: &Path, to: &Path) {
    let file = File::open(archive).unwrap_or_else(|error| panic!("{archive:?}: {error}"));
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = to.join(entry.path().unwrap());
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(path).unwrap(),
            // Reading a sparse file from the archive gives its zeros too.
            tar::EntryType::Regular | tar::EntryType::GNUSparse => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                scratch::write_sparse(&mut entry, &path).unwrap();
            }
            other => panic!("{path:?} is a {other:?}"),
        }
    }
}
