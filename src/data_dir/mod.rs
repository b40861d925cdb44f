//! The files of a data directory that etcd boots, as bytes (docs/formats.md 10.5, 11).
//!
//! `segment` has the first segment of a log, and records that continue an existing log. `snap` has the `.snap` file with the v2 store of
//! the members, and `cluster` the rows of the bucket `members`. `restart` has the files of a member that starts again after a snapshot
//! without v2 content. The form is that of `etcdutl snapshot restore`. Must not know keys, pages of the database, or directories.

mod cluster;
mod restart;
mod segment;
mod snap;

pub use cluster::{Cluster, Member, member_rows};
use protobuf::Message;
pub use restart::Restart;
pub use segment::{PREALLOCATED, SEGMENT_NAME, continuation, first_segment};
pub use snap::{snap_file, snap_name};

use crate::error::{Error, Reason, Result};
use crate::ids::Term;

/// The term of every entry that a new cluster begins with.
pub const FIRST_TERM: Term = Term(1);

fn encode(message: &impl Message) -> Result<Vec<u8>> {
    let encoded = message.write_to_bytes();
    encoded.map_err(|e| Error::new(Reason::Internal, format!("cannot encode a message of the raft log: {e}")))
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let encoded = serde_json::to_vec(value);
    encoded.map_err(|e| Error::new(Reason::Internal, format!("cannot encode a member as JSON: {e}")))
}
