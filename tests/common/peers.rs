//! The real etcd, etcdctl, etcdutl and bbolt programs that `tests/peers/build`
//! makes, and where they lie.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, fmt};

use super::run::{Output, bounded, run};
use super::skip::{Need, skip};

/// The etcd releases that a snapshot must suit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V3_4,
    V3_5,
    V3_6,
    V3_7,
}

impl Version {
    /// Those that have an etcdutl.
    pub const WITH_ETCDUTL: [Self; 3] = [Self::V3_5, Self::V3_6, Self::V3_7];

    fn folder(self) -> &'static str {
        match self {
            Self::V3_4 => "3.4",
            Self::V3_5 => "3.5",
            Self::V3_6 => "3.6",
            Self::V3_7 => "3.7",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}

/// All programs, found.
#[derive(Clone, Debug)]
pub struct Peers {
    dir: PathBuf,
}

/// The peers, or `None` after a note that `test` skips.
pub fn require(test: &str) -> Option<Peers> {
    let peers = get();
    if peers.is_none() {
        skip(test, Need::Peers, "peers are not built: run tests/peers/build");
    }
    peers
}

/// The peers if every program is there.
pub fn get() -> Option<Peers> {
    static PEERS: OnceLock<Option<Peers>> = OnceLock::new();
    PEERS
        .get_or_init(|| {
            let peers = Peers { dir: cache()? };
            peers.all().iter().all(|path| path.is_file()).then_some(peers)
        })
        .clone()
}

impl Peers {
    pub fn etcd(&self, version: Version) -> PathBuf {
        self.dir.join(version.folder()).join("etcd")
    }

    /// # Panics
    /// For 3.4, which has none.
    pub fn etcdutl(&self, version: Version) -> PathBuf {
        assert_ne!(version, Version::V3_4, "3.4 has no etcdutl");
        self.dir.join(version.folder()).join("etcdutl")
    }

    /// The etcdctl of 3.7, which talks to all of them.
    pub fn etcdctl(&self) -> PathBuf {
        self.dir.join("3.7/etcdctl")
    }

    /// The etcdctl of 3.4, which restores and migrates.
    pub fn etcdctl_3_4(&self) -> PathBuf {
        self.dir.join("3.4/etcdctl")
    }

    pub fn bbolt(&self) -> PathBuf {
        self.dir.join("bbolt")
    }

    pub fn dump(&self) -> PathBuf {
        self.dir.join("dump")
    }

    /// The application of `fixtures/online-app/go`.
    pub fn online_app(&self) -> PathBuf {
        self.dir.join("online-app")
    }

    /// Restores a snapshot file into a new data directory, with the release's
    /// own tool and its hash check.
    pub fn restore(&self, version: Version, snapshot: &Path, data_dir: &Path) -> Output {
        let program = match version {
            Version::V3_4 => self.etcdctl_3_4(),
            _ => self.etcdutl(version),
        };
        let mut command = bounded(&program, 60);
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]);
        run(command.arg(snapshot).arg("--data-dir").arg(data_dir))
    }

    /// `snapshot status`, as JSON.
    pub fn status(&self, version: Version, snapshot: &Path) -> Output {
        let mut command = bounded(&self.etcdutl(version), 60);
        run(command.args(["snapshot", "status", "-w", "json"]).arg(snapshot))
    }

    /// `bbolt check`.
    pub fn check(&self, file: &Path) -> Output {
        run(bounded(&self.bbolt(), 60).arg("check").arg(file))
    }

    fn all(&self) -> Vec<PathBuf> {
        let mut all = vec![self.etcd(Version::V3_4), self.etcdctl_3_4(), self.etcdctl(), self.bbolt(), self.dump()];
        all.push(self.online_app());
        for version in Version::WITH_ETCDUTL {
            all.extend([self.etcd(version), self.etcdutl(version)]);
        }
        all
    }
}

/// The same rule as in `tests/peers/build`.
fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = set("ETCDLIFT_PEERS") {
        return Some(dir.into());
    }
    let parent = match set("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(set("HOME")?).join(".cache"),
    };
    Some(parent.join("etcdlift-peers"))
}
