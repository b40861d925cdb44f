//! The ledger: one line for every v2 node, read from the written file (docs/cli.md, `--ledger`).
//!
//! The tree has the nodes, the output has what became of them. If a node has neither pair nor reason, or a pair has no
//! node, the totals do not add up. All threads make lines; they are written in order. In a dry run the plan takes the
//! place of the output. Must not know why a policy leaves a node out, beyond the word for it.

use std::collections::HashSet;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::bolt::{Db, Pair};
use crate::display;
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::output::sidecar::Sidecar;
use crate::output::snapshot::hex;
use crate::pipeline::number::Numbered;
use crate::pipeline::totals::unbalanced;
use crate::report::ledger::{Line, NotWritten, Written, text_or_base64};
use crate::report::{Balance, Count};
use crate::transform::plan::Row;
use crate::transform::policy::{NAMESPACE, Total, Why};
use crate::transform::revisions::Pairs;
use crate::v2store::path;
use crate::v2store::table::Shadowed;
use crate::v2store::tree::{NodeRef, Tree};

/// The number of lines that are made at once.
const CHUNK: usize = 1 << 14;

/// The number of bytes after which lines are written: many directories may have long paths.
const LINES_BYTES: usize = 1 << 20;

/// Writes the ledger of a conversion into `out`. `file` is the output on disk; a dry run has none, and the plan takes
/// its place.
///
/// # Errors
/// [`Reason::Unbalanced`] if the lines do not add up to the totals; the output cannot be read, or the ledger cannot be
/// written; an interruption.
pub(in crate::pipeline) fn write(
    out: &mut Sidecar,
    numbered: &Numbered<'_>,
    file: Option<&[u8]>,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let mut ledger = Ledger { numbered, pairs: numbered.pairs(), counted: Balance::default(), lines: Vec::new() };
    let mut io_error = None;
    let written = out.write(|writer| {
        let mut emit = |lines: &mut Vec<u8>| {
            let written = writer.write_all(lines);
            lines.clear();
            written.map_err(|e| {
                io_error = Some(e);
                Error::new(Reason::OutputFailed, "cannot write the ledger")
            })
        };
        ledger.rows(file, interrupt, &mut emit)?;
        ledger.left_out(&numbered.plan.left_out, interrupt, &mut emit)?;
        ledger.directories(interrupt, &mut emit)?;
        ledger.shadowed(&mut emit)
    });
    if let Some(e) = io_error {
        return Err(out.failed(e));
    }
    written?;
    ledger.check_totals(&numbered.balance)
}

struct Ledger<'p, 'm> {
    numbered: &'p Numbered<'m>,
    pairs: Pairs<'p, 'm>,
    counted: Balance,
    lines: Vec<u8>,
}

type Emit<'a> = &'a mut dyn FnMut(&mut Vec<u8>) -> Result<()>;

impl Ledger<'_, '_> {
    /// Writes the lines of the written rows, in the order of revisions.
    fn rows(&mut self, file: Option<&[u8]>, interrupt: Interrupt<'_>, emit: Emit<'_>) -> Result<()> {
        let damaged = |e: crate::bolt::Damage| e.into_error(Reason::VerifyFailed);
        let db = file.map(Db::open).transpose().map_err(damaged)?;
        let bucket = db.as_ref().map(|db| db.bucket(schema::KEY)).transpose().map_err(damaged)?.flatten();
        // The rows follow the preserved v3 data.
        let preserved = usize::try_from(self.numbered.preserved_pairs()).unwrap_or(usize::MAX);
        let mut found = bucket.as_ref().map(|bucket| bucket.iter().skip(preserved));
        let pairs = self.pairs;
        let file_len = file.map_or(0, |file| file.len() as u64);
        let row_len = file_len / (pairs.ordered.rows.len() as u64).max(1);
        interrupt.expect(row_len * pairs.ordered.rows.len() as u64);
        for rows in pairs.ordered.rows.chunks(CHUNK) {
            interrupt.ask()?;
            interrupt.done(row_len * rows.len() as u64);
            let on_disk: Vec<Option<Pair<'_>>> = match &mut found {
                None => vec![None; rows.len()],
                Some(found) => {
                    let taken = found.by_ref().take(rows.len()).map(|pair| pair.map(Some));
                    taken.collect::<Result<_, _>>().map_err(damaged)?
                }
            };
            if on_disk.len() < rows.len() {
                return Err(unbalanced("the output ends before the last key of the plan"));
            }
            let lines: Vec<Line> = rows
                .par_iter()
                .zip(&on_disk)
                .map(|(row, pair)| row_line(pairs, row, pair.as_ref()))
                .collect::<Result<_>>()?;
            for (row, line) in rows.iter().zip(&lines) {
                if !row.marker && !pairs.is_added(row) {
                    self.counted.written.add(key_bytes(pairs.tree, row.node));
                }
                self.push(line)?;
            }
            emit(&mut self.lines)?;
        }
        if found.is_some_and(|mut found| found.next().is_some()) {
            return Err(unbalanced("the output has a pair that is not in the plan"));
        }
        Ok(())
    }

    /// Writes the lines of the keys that are left out.
    fn left_out(&mut self, nodes: &[(NodeRef, Why)], interrupt: Interrupt<'_>, emit: Emit<'_>) -> Result<()> {
        let tree = self.pairs.tree;
        for nodes in nodes.chunks(CHUNK) {
            interrupt.ask()?;
            let lines: Vec<Line> = nodes.par_iter().map(|(node, why)| self.left_out_line(*node, *why)).collect();
            for ((node, why), line) in nodes.iter().zip(&lines) {
                let count: &mut Count = match why.total() {
                    Total::Dropped => &mut self.counted.dropped,
                    Total::Excluded => &mut self.counted.excluded,
                    Total::Expired => &mut self.counted.expired,
                };
                count.add(key_bytes(tree, *node));
                self.push(line)?;
            }
            emit(&mut self.lines)?;
        }
        Ok(())
    }

    /// Writes the lines of the directories, which v3 does not have. Also counts the keys again, from the tree alone.
    fn directories(&mut self, interrupt: Interrupt<'_>, emit: Emit<'_>) -> Result<()> {
        let tree = self.pairs.tree;
        let markers = self.pairs.ordered.rows.iter().filter(|row| row.marker);
        let marked: HashSet<NodeRef> = markers.map(|row| row.node).collect();
        let mut visited = 0usize;
        tree.walk::<Error>(tree.root(), &mut |visit| {
            visited += 1;
            if visited.is_multiple_of(CHUNK) || self.lines.len() > LINES_BYTES {
                interrupt.ask()?;
                emit(&mut self.lines)?;
            }
            let path = visit.path();
            let Some(key) = path.strip_prefix(NAMESPACE).filter(|key| key.first() == Some(&b'/')) else {
                return Ok(());
            };
            if marked.contains(&visit.node) {
                // The line of a marker is among the rows.
            } else if tree.is_dir(visit.node) {
                let mut line = node_line(tree, visit.node, key);
                line.dir = true;
                line.reason = Some(NotWritten::Directory);
                self.push(&line)?;
            } else {
                self.counted.source.add(key_bytes(tree, visit.node));
            }
            Ok(())
        })?;
        emit(&mut self.lines)
    }

    /// Writes the lines of the snapshot's nodes that a later sibling of the same name replaces. They do not count as
    /// keys of the source: etcd does not show them.
    fn shadowed(&mut self, emit: Emit<'_>) -> Result<()> {
        let table = self.numbered.replayed.table;
        for Shadowed { node, .. } in &table.shadowed {
            let path = table.path(node);
            let Some(key) = path.strip_prefix(NAMESPACE).filter(|key| key.first() == Some(&b'/')) else { continue };
            let (path, path_base64) = text_or_base64(key);
            let value = table.value(node);
            let is_file = !node.is_dir();
            self.push(&Line {
                path,
                path_base64,
                dir: node.is_dir(),
                created_index: node.created,
                modified_index: node.modified,
                expiration: table.expiry(node).map(|at| at.to_string()),
                value_bytes: is_file.then_some(value.len() as u64),
                value_sha256: is_file.then(|| hex(&Sha256::digest(&value))),
                reason: Some(NotWritten::DuplicateName),
                ..Line::default()
            })?;
        }
        emit(&mut self.lines)
    }

    fn left_out_line(&self, node: NodeRef, why: Why) -> Line {
        let tree = self.pairs.tree;
        let path = tree.path(node);
        let mut line = file_line(tree, node, path::user_key(&path));
        line.reason = Some(match why {
            Why::Hidden => NotWritten::Hidden,
            Why::Excluded(_) => NotWritten::Excluded,
            Why::NotIncluded => NotWritten::NotIncluded,
            Why::Expired => NotWritten::Expired,
            Why::Ttl => NotWritten::Ttl,
            Why::Transformer => NotWritten::Transformer,
            Why::PreservedV3 => NotWritten::KeptV3,
            Why::V3Only => NotWritten::V3Only,
        });
        if let Why::Excluded(rule) = why {
            line.rule = Some(self.numbered.rules.choice_text(rule).to_string());
        }
        line
    }

    fn push(&mut self, line: &Line) -> Result<()> {
        display::write_json(&mut self.lines, line)
            .map_err(|e| Error::new(Reason::Internal, format!("cannot write a line of the ledger as JSON: {e}")))?;
        self.lines.push(b'\n');
        Ok(())
    }

    /// Checks that the lines add up to the totals.
    fn check_totals(&self, balance: &Balance) -> Result<()> {
        if self.counted == *balance && balance.holds() {
            return Ok(());
        }
        let keys = |balance: &Balance| {
            let Balance { source, written, expired, excluded, dropped } = balance;
            [source, written, expired, excluded, dropped].map(|count| count.keys.to_string()).join("/")
        };
        Err(unbalanced(&format!(
            "the keys (source/written/expired/excluded/dropped) of the ledger are {}, those of the report {}",
            keys(&self.counted),
            keys(balance)
        )))
    }
}

fn row_line(pairs: Pairs<'_, '_>, row: &Row, on_disk: Option<&Pair<'_>>) -> Result<Line> {
    let path = pairs.tree.path(row.node);
    let key = path::user_key(&path);
    let mut line = match (pairs.is_added(row), row.marker) {
        (true, _) => Line { added: true, ..Line::default() },
        (false, true) => Line { dir: true, ..node_line(pairs.tree, row.node, key) },
        (false, false) => file_line(pairs.tree, row.node, key),
    };
    let failed = |what: &str| unbalanced(&format!("key {}: {what}", String::from_utf8_lossy(key)));
    let (name, revision, sub, lease) = match on_disk {
        None => (pairs.key(row).into_owned(), row.main, i64::from(row.sub), pairs.ordered.lease(row)),
        Some(pair) => {
            let revision =
                RevisionKey::decode(pair.key).ok_or_else(|| failed("its pair in the output has no revision"))?;
            let kv = KeyValue::decode(pair.value, pair.value_offset()).map_err(|e| failed(e.expected))?;
            if kv.key != &*pairs.key(row) {
                return Err(failed("the output has another key in its place"));
            }
            (kv.key.to_vec(), revision.main, revision.sub, kv.lease)
        }
    };
    let (key, key_base64) = text_or_base64(&name);
    line.written = Some(Written { key, key_base64, revision: revision.0, sub_revision: sub, lease: lease.0 });
    Ok(line)
}

fn file_line(tree: &Tree<'_>, node: NodeRef, key: &[u8]) -> Line {
    let value = tree.value(node);
    Line {
        value_bytes: Some(value.len() as u64),
        value_sha256: Some(hex(&Sha256::digest(&value))),
        ..node_line(tree, node, key)
    }
}

fn node_line(tree: &Tree<'_>, node: NodeRef, key: &[u8]) -> Line {
    let (path, path_base64) = text_or_base64(key);
    Line {
        path,
        path_base64,
        created_index: tree.created(node).0,
        modified_index: tree.modified(node).0,
        expiration: tree.expiry(node).map(|at| at.to_string()),
        ..Line::default()
    }
}

/// Returns the bytes of a key's v2 name and value, as the totals count them.
fn key_bytes(tree: &Tree<'_>, node: NodeRef) -> u64 {
    (tree.path_len(node).saturating_sub(NAMESPACE.len()) + tree.value_len(node)) as u64
}
