//! bbolt files. Knows nothing of etcd.

pub mod format;
