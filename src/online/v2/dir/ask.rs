//! What is asked of the thread that reads a directory.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::super::{Head, Next, Node};
use crate::error::Result;

/// A question to the thread, with the way for its answer.
pub(super) enum Ask {
    Cluster(SyncSender<Result<String>>),
    State(SyncSender<Result<Part>>),
    Next(Duration, SyncSender<Result<Next>>),
}

/// A part of the state.
pub(super) enum Part {
    Nodes(Vec<Node>),
    End(Head),
}
