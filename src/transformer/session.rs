//! The whole run of a transformer: the nodes are divided into one range for each process, and the pairs are combined in
//! node order (docs/formats.md 12.1).
//!
//! Uses both wire formats through their functions. A process is a source of bytes and a consumer of bytes. Must not
//! know the plan or revisions of the output.

use std::cell::RefCell;
use std::time::Duration;

use jiff::Timestamp;

use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::LeaseId;
use crate::interrupt::Interrupt;
use crate::options::{Protocol, Transformer};
use crate::transformer::json_lines::{self, Lines};
use crate::transformer::listing::{Listing, Node};
use crate::transformer::migrate::{self, Frames};
use crate::transformer::process::{Dialogue, converse};
use crate::transformer::responses::{Answers, Collected, Files, refused};
use crate::v2store::tree::Tree;

/// The task of a transformer.
pub struct Task<'a, 'm> {
    /// The source of the nodes.
    pub tree: &'a Tree<'m>,
    /// The nodes to send.
    pub listing: &'a Listing,
    /// The program and its protocol.
    pub transformer: &'a Transformer,
    /// Maximum memory of the answers in bytes; `None`: the limit of the transformer alone.
    pub memory: Option<u64>,
    /// The instant for `ttl`, if it is known.
    pub as_of: Option<Timestamp>,
    /// Returns whether an answer may name a lease.
    pub is_lease: &'a dyn Fn(LeaseId) -> bool,
}

/// Runs the program to make the pairs.
///
/// # Errors
/// [`Reason::TransformerFailed`] if the program or one of its answers fails; [`Reason::NotUtf8`] if a node cannot be
/// sent; [`Reason::MemoryLimit`] if the answers take more than [`Task::memory`].
pub fn transform(task: &Task<'_, '_>, interrupt: Interrupt<'_>) -> Result<Answers> {
    let files = Files::of(task.tree, task.listing);
    let collected = RefCell::new(Collected::new(task.tree, files, task.transformer.answer_limit, task.memory));
    let nodes = task.listing.len();
    let jobs = task.transformer.jobs.clamp(1, nodes.max(1));
    let mut talks: Vec<Talk<'_, '_, '_>> = (0..jobs)
        .map(|job| Talk {
            task,
            next: place(job, nodes, jobs),
            end: place(job + 1, nodes, jobs),
            decoder: match task.transformer.protocol {
                Protocol::Migrate => Decoder::Frames(Frames::default()),
                Protocol::JsonLines => Decoder::Lines(Lines::default()),
            },
            collected: &collected,
        })
        .collect();
    let timeout = Duration::from_secs(task.transformer.timeout_seconds);
    converse(&task.transformer.program, timeout, &mut talks, interrupt)?;
    drop(talks);
    collected.into_inner().finish(task.is_lease).map_err(|e| e.in_file(&task.transformer.program))
}

/// Returns the first node of the range of a process.
fn place(job: usize, nodes: usize, jobs: usize) -> usize {
    // Both are far below 2^64.
    usize::try_from(job as u128 * nodes as u128 / jobs as u128).unwrap_or(nodes)
}

/// The range of nodes of one process, and its answers.
struct Talk<'c, 'a, 'm> {
    task: &'a Task<'a, 'm>,
    next: usize,
    end: usize,
    decoder: Decoder,
    /// The pairs of all processes.
    collected: &'c RefCell<Collected<'a, 'm>>,
}

enum Decoder {
    Frames(Frames),
    Lines(Lines),
}

impl Dialogue for Talk<'_, '_, '_> {
    fn ask(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        if self.next >= self.end {
            return Ok(false);
        }
        let Task { tree, listing, as_of, .. } = self.task;
        let before = out.len();
        let write = |node: &Node<'_>| match self.task.transformer.protocol {
            Protocol::Migrate => migrate::write_node(out, node, *as_of).map_err(|what| not_utf8(node.key, what)),
            Protocol::JsonLines => {
                json_lines::write_node(out, node, *as_of);
                Ok(())
            }
        };
        listing.node(tree, self.next, write).transpose()?;
        self.collected.borrow_mut().sent(out.len().saturating_sub(before));
        self.next += 1;
        Ok(self.next < self.end)
    }

    fn answer(&mut self, bytes: &[u8]) -> Result<()> {
        let collected = &mut *self.collected.borrow_mut();
        let taken = collected.answered(bytes.len() as u64).and_then(|()| match &mut self.decoder {
            Decoder::Frames(frames) => frames.push(bytes, &mut |kv| collected.push(kv)),
            Decoder::Lines(lines) => lines.push(bytes, &mut |kv| collected.push(kv)),
        });
        taken.map_err(|message| match collected.is_over_limit() {
            true => refused(message).hint("repair the program, or raise --transformer-answer-limit"),
            false => refused(message),
        })?;
        // Checked once for each read, which is small.
        collected.fits()
    }

    fn end(&mut self) -> Result<()> {
        match &self.decoder {
            Decoder::Frames(frames) => frames.end(),
            Decoder::Lines(lines) => lines.end(),
        }
        .map_err(refused)
    }
}

fn not_utf8(key: &[u8], what: &str) -> Error {
    let message = format!(
        "key {}: its {what} is not UTF-8, so it cannot be sent to a transformer of `etcdctl migrate`",
        short(&String::from_utf8_lossy(key))
    );
    Error::new(Reason::NotUtf8, message).hint("use --transformer-protocol json-lines")
}
