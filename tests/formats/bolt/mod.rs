//! The bbolt file format: what the writer makes, what the reader and the checks find in it, and databases that etcd wrote.

mod corpus;
mod corruption;
mod made;
mod roundtrip;
mod verify;
