//! What an etcd v3 backend stores in its buckets, and the checksums over it. Knows no pages.

mod auth;
mod auth_state;
mod content;
mod hash;
mod key_value;
mod lease;
mod revision;
mod rows;
pub mod schema;

pub use auth::auth_buckets;
pub use auth_state::{AuthState, Named};
pub use content::{Content, Pair};
pub use hash::{HashKv, StatusHash, is_hashed};
pub use key_value::{KeyValue, key_value_len};
pub use lease::Lease;
pub use revision::{REVISION_LEN, RevisionKey};
pub use rows::{KeyRows, Stored};
pub use schema::Meta;
