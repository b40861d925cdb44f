//! `convert --to member` without servers: what it refuses, what it copies, and the records that it appends to a log.
//!
//! Sources are generated: by hand (`source`), or by the model of raft in `tests/formats/raft/cluster.rs`.

#[path = "../../../formats/raft/cluster.rs"]
#[allow(dead_code)]
mod cluster;
mod generated;
mod outputs;
mod refusals;
mod source;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::common::run::{Output, etcdlift};

/// Converts members into a directory.
fn convert<P: AsRef<Path>>(sources: &[P], out: &Path, options: &[&str]) -> Output {
    let mut args: Vec<OsString> = vec!["convert".into(), "--to".into(), "member".into()];
    args.extend(sources.iter().map(|path| path.as_ref().into()));
    args.extend(["-o".into(), out.into()]);
    args.extend(["--as-of", "2026-01-01T00:00:00Z"].iter().chain(options).map(Into::into));
    etcdlift(args)
}

/// The segments of a data directory, in their order.
fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let wal = data_dir.join("member/wal");
    let names = crate::common::scratch::names(&wal);
    names.iter().filter(|name| name.ends_with(".wal")).map(|name| wal.join(name)).collect()
}
