//! A scenario of the corpus with a scratch directory, for tests that convert parts of it in several ways.
//!
//! Needs the peers (another reader of the output) and the corpus. Must not know what a test damages.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::common::corpus::{self, Scenario};
use crate::common::dump::Dump;
use crate::common::peers::{self, Peers};
use crate::common::rows::{self, Row};
use crate::common::run::{Output, etcdlift, read_json};
use crate::common::scratch;

/// A scenario, and the directory of its outputs and copies.
pub(crate) struct Case {
    peers: Peers,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) dir: tempfile::TempDir,
}

impl Case {
    /// The scenario of that name, or `None` after a note that `test` skips.
    pub(crate) fn require(test: &str, scenario: &str) -> Option<Self> {
        let peers = peers::require(test)?;
        Some(Self::new(peers, corpus::scenario(test, scenario)?))
    }

    pub(crate) fn new(peers: Peers, scenario: Arc<Scenario>) -> Self {
        Self { peers, scenario, dir: scratch::temp() }
    }

    /// Converts sources as of the capture of the scenario; returns the path of the output.
    pub(crate) fn convert<P: AsRef<Path>>(&self, sources: &[P], options: &[&str]) -> (Output, PathBuf) {
        let out = self.fresh(".db");
        let mut args = vec!["convert".into()];
        args.extend(sources.iter().map(|path| path.as_ref().as_os_str().to_owned()));
        args.extend(["-o".into(), out.clone().into_os_string()]);
        args.extend(["--report".into(), out.with_extension("json").into_os_string()]);
        args.extend(["--as-of".into(), self.scenario.truth.captured_at.clone().into()]);
        args.extend(self.scenario.truth.source_version().into_iter().chain(options.iter().copied()).map(Into::into));
        (etcdlift(args), out)
    }

    /// The data directories of these members.
    pub(crate) fn members(&self, names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|name| self.scenario.data_dir(name)).collect()
    }

    /// A copy of a member, to be damaged.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let to = self.fresh(&format!("-{name}"));
        scratch::copy_tree(&self.scenario.data_dir(name), &to);
        to
    }

    /// The rows of an output, read by another program.
    pub(crate) fn rows(&self, out: &Path) -> Vec<Row> {
        Dump::of(&self.peers, out).rows()
    }

    /// Whether an output has what this member should give.
    pub(crate) fn is_truth(&self, name: &str, out: &Path) -> bool {
        rows::differences(&rows::expected(&self.scenario, name), &self.rows(out)).is_empty()
    }

    /// A path that nothing has yet.
    fn fresh(&self, end: &str) -> PathBuf {
        self.dir.path().join(format!("{}{end}", fs::read_dir(self.dir.path()).unwrap().count()))
    }
}

/// The report of an output of [`Case::convert`].
pub(crate) fn report(out: &Path) -> Value {
    read_json(&out.with_extension("json"))
}
