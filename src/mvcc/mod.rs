//! The codec of the buckets of an etcd v3 backend, and the checksums over them (docs/formats.md 7.2, 9 and 10).
//!
//! One file for each kind of record: revision, key-value, lease, user and role, fields of `meta`. `hash` has HashKV and
//! the hash of `snapshot status`. Must not know pages, plans or v2.

mod auth;
mod hash;
mod key_value;
mod lease;
mod revision;
pub mod schema;

pub use auth::{FIRST_AUTH_REVISION, Permission, PermissionKind, encode_role, encode_user};
pub use hash::{HashKv, StatusHash, is_hashed};
pub use key_value::{KeyValue, key_value_len};
pub use lease::Lease;
pub use revision::{REVISION_LEN, RevisionKey};
pub use schema::Meta;
