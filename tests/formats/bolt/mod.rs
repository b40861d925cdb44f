//! The bbolt file format: the writer, the reader and the checks.
//!
//! `roundtrip` and `corruption` make files, `corpus` uses databases of real servers, and `verify` checks the mvcc store
//! in them.

mod corpus;
mod corruption;
mod made;
mod roundtrip;
mod verify;
