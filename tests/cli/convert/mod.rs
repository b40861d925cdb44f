//! `etcdlift convert` as an operator meets it: what it refuses and in which words, what each option does to the output,
//! and that a failed run leaves nothing behind. Runs the binary; most of it needs neither peers nor the corpus.

mod carry;
mod changing;
mod demo;
mod directories;
mod harm;
mod hidden;
mod holes;
mod inputs;
pub(crate) mod killed;
mod kit;
mod locks;
mod logs;
mod members;
mod nothing;
mod options;
mod outputs;
mod paths;
mod replacing;
mod reports;
mod resources;
mod scenarios;
pub(crate) mod signals;
mod snapshots;
mod sources;
mod transformer;
mod words;
