//! What may happen to a copy of a member's directory. A log of 2.x that ends earlier at the edge of a record is not
//! among it: no reader could see that.

use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::fuzzing::log::Dialect;

use super::cluster::{Member, Style};
use crate::common::random::Random;
use crate::common::scratch::edit;

/// What was done to a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damage {
    pub(super) what: &'static str,
    /// Whether a reader can see it: snapshots and old segments are purged in healthy directories too.
    pub(super) is_visible: bool,
}

fn visible(what: &'static str) -> Option<Damage> {
    Some(Damage { what, is_visible: true })
}

/// Damages a directory, and says how; `None` if this damage does not fit the directory.
pub(super) fn damage(style: Style, member: &Member, dir: &Path, random: &mut Random) -> Option<Damage> {
    let segments = files(&dir.join("member/wal"));
    let snapshots = files(&dir.join("member/snap"));
    let last = segments.last()?;
    match random.below(10) {
        0..=2 => {
            let (path, start, end) = record(member, &segments, random)?;
            edit(path, |bytes| bytes[random.between(start, end - 1)] ^= 1 << random.below(8));
            visible("one bit of a record flipped")
        }
        3 => {
            let (path, start, _) = record(member, &segments, random)?;
            edit(path, |bytes| {
                let end = bytes.len().min(start + random.between(1, 700));
                bytes[start..end].fill(0xa5);
            });
            visible("bytes overwritten")
        }
        4 => {
            let (path, start, end) = record(member, &segments, random)?;
            // Inside a record: in its frame or its data.
            let at = random.between(start + 1, end - 1);
            let at_end = path == last;
            edit(path, |bytes| bytes.truncate(at));
            visible(if at_end { "the last segment truncated" } else { "a segment truncated" })
        }
        5 if style.dialect == Dialect::Padded => {
            let (path, start, _) = record(member, &segments[segments.len() - 1..], random)?;
            edit(path, |bytes| bytes.truncate(start));
            visible("the last segment truncated at a record")
        }
        6 if segments.len() > 1 => {
            let which = random.below(segments.len() - 1);
            fs::remove_file(&segments[which]).unwrap();
            Some(Damage { what: "a segment missing", is_visible: which > 0 })
        }
        7 => {
            fs::remove_dir_all(dir.join("member/wal")).unwrap();
            visible("no log")
        }
        8 if !snapshots.is_empty() => {
            let which = random.below(snapshots.len());
            edit(&snapshots[which], |bytes| {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            });
            // An older one is not read where a newer one will do.
            Some(Damage { what: "a .snap damaged", is_visible: which + 1 == snapshots.len() })
        }
        9 if !snapshots.is_empty() => {
            fs::remove_file(&snapshots[random.below(snapshots.len())]).unwrap();
            Some(Damage { what: "a .snap missing", is_visible: false })
        }
        _ => None,
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A record of one of the segments after its header: the file, where the frame begins and where it ends.
fn record<'s>(member: &Member, segments: &'s [PathBuf], random: &mut Random) -> Option<(&'s PathBuf, usize, usize)> {
    let path = &segments[random.below(segments.len())];
    let seq: usize = usize::from_str_radix(path.file_name()?.to_str()?.get(..16)?, 16).unwrap();
    let ends = &member.wal.segments()[seq].ends;
    let which = random.between(1, ends.len().checked_sub(1).filter(|last| *last > 0)?);
    Some((path, ends[which - 1], ends[which]))
}
