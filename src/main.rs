//! The etcdlift command.
fn main() {}
