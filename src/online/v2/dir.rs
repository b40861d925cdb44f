//! The data directory of an etcd member, running or stopped, as a source of v2 data.
//!
//! A thread reads it, because its tree borrows from the files. Must not know the API of etcd.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use super::{Change, Head, Next, Node, V2};
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::source::dir::WalDir;
use crate::source::growing::LogPlace;

mod arena;
mod ask;
mod changes;
mod clock;
mod follow;
mod past;
mod worker;

use ask::{Ask, Missed, Part};

/// A data directory. Has hidden keys too.
#[derive(Debug)]
pub struct Dir {
    asks: Sender<Ask>,
}

/// Parts of an answer that wait for the reader.
const PARTS: usize = 4;

impl Dir {
    /// Starts to read a directory.
    ///
    /// # Errors
    /// [`Reason::Usage`] without a log; [`Reason::Internal`] if no thread can be started.
    pub fn open(dir: &Path, wal_dir: Option<&WalDir>, interrupt: Interrupt<'static>) -> Result<Dir> {
        if wal_dir == Some(&WalDir::None) {
            return Err(Error::new(Reason::Usage, "a source that is followed needs its log"));
        }
        let place = LogPlace { dir: dir.to_path_buf(), wal_dir: wal_dir.cloned() };
        let (asks, asked) = channel();
        let run = move || worker::run(place, &asked, interrupt);
        let started = thread::Builder::new().name("v2-directory".to_string()).spawn(run);
        started.map_err(|e| Error::new(Reason::Internal, format!("cannot start a thread: {e}")))?;
        Ok(Dir { asks })
    }

    fn ask<T>(&self, bound: usize, ask: impl FnOnce(SyncSender<Result<T>>) -> Ask) -> Result<Receiver<Result<T>>> {
        let (reply, answer) = sync_channel(bound);
        self.asks.send(ask(reply)).map_err(|_| ended())?;
        Ok(answer)
    }
}

impl V2 for Dir {
    fn cluster(&mut self) -> Result<String> {
        self.ask(1, Ask::Cluster)?.recv().unwrap_or_else(|_| Err(ended()))
    }

    fn state(&mut self, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<Head> {
        let answers = self.ask(PARTS, Ask::State)?;
        loop {
            match answers.recv().unwrap_or_else(|_| Err(ended()))? {
                Part::Nodes(nodes) => nodes.into_iter().try_for_each(&mut *each)?,
                Part::End(head) => return Ok(head),
            }
        }
    }

    fn head(&mut self) -> Result<Head> {
        self.ask(1, Ask::Head)?.recv().unwrap_or_else(|_| Err(ended()))
    }

    fn since(&mut self, index: V2Index, each: &mut dyn FnMut(Change) -> Result<()>) -> Result<bool> {
        let answers = self.ask(PARTS, |reply| Ask::Since(index, reply))?;
        loop {
            match answers.recv().unwrap_or_else(|_| Err(ended()))? {
                Missed::Changes(changes) => changes.into_iter().try_for_each(&mut *each)?,
                Missed::All(all) => return Ok(all),
            }
        }
    }

    fn next(&mut self, wait: Duration) -> Result<Next> {
        self.ask(1, |reply| Ask::Next(wait, reply))?.recv().unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> Error {
    Error::new(Reason::Internal, "the thread that reads the directory has ended")
}

#[cfg(test)]
mod tests;
