//! What is asked of the thread that reads a directory.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::super::{Change, Head, Next, Node};
use crate::error::Result;
use crate::ids::V2Index;

/// A question to the thread, with the way for its answer.
pub(super) enum Ask {
    Cluster(SyncSender<Result<String>>),
    State(SyncSender<Result<Part>>),
    Head(SyncSender<Result<Head>>),
    Since(V2Index, SyncSender<Result<Missed>>),
    Next(Duration, SyncSender<Result<Next>>),
}

/// A part of the state.
pub(super) enum Part {
    Nodes(Vec<Node>),
    End(Head),
}

/// A part of the changes before the state.
pub(super) enum Missed {
    Changes(Vec<Change>),
    /// The end; whether these were all.
    All(bool),
}
