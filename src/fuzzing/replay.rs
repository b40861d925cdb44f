//! Any bytes as a snapshot and the entries of a log, with many repetitions: a small input that may be expensive to
//! replay.
//!
//! The oracles are the fuzzer's bounds of memory and time, and the verification of the result. Must not know what the
//! content should be: `convert` compares content.

use std::path::Path;

use super::convert::database;
use super::input::Input;
use super::log::{self, CONF_CHANGE, Dialect, Log, NORMAL};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::source::map::Map;
use crate::source::open::Opened;
use crate::source::snap::Snapshot;
use crate::source::start::Start;
use crate::source::wal::Wal;
use crate::v2store::recover::recover;
use crate::v2store::replay::{ReplayOptions, read_table};

const NODE: u64 = 0xa1;
const SNAPSHOT_INDEX: u64 = 10;

/// The maximum number of bytes of all entries, so that a source stays small.
const MOST: usize = 1 << 20;

/// Encodes a part of the input. The lowest two bits of its first byte are its kind, the others the number of
/// repetitions as a power of two. Its length follows in two bytes, then its bytes.
pub fn part(kind: u8, power: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap();
    [&[kind | power << 2][..], &len.to_le_bytes(), bytes].concat()
}

/// The kinds of parts: a v2 request, a configuration change, the JSON of the snapshot's store.
pub const PARTS: [u8; 3] = [0, 1, 2];

/// Replays any bytes, read as parts.
pub fn replay(data: &[u8]) {
    let mut input = Input(data);
    let (mut entries, mut store, mut bytes) = (Vec::new(), None, 0);
    while !input.is_empty() {
        let head = input.byte();
        let len = u16::from_le_bytes([input.byte(), input.byte()]);
        let text = input.take(len.into());
        match head & 3 {
            2 => store = Some(text),
            kind => {
                let times = (MOST.saturating_sub(bytes) / (text.len() + 40)).min(1 << (head >> 2).min(16));
                bytes += times * (text.len() + 40);
                entries.push((if kind == 1 { CONF_CHANGE } else { NORMAL }, text, times));
            }
        }
    }
    let mut log = Log::new(Dialect::Padded, NODE, 0xc);
    let mut index = if store.is_some() { SNAPSHOT_INDEX } else { 0 };
    if index > 0 {
        log.state(2, NODE, index);
        log.snapshot(index, 2);
    }
    for (kind, text, times) in entries {
        for _ in 0..times {
            index += 1;
            log.entry(kind, 2, index, Some(text));
        }
    }
    log.state(2, NODE, index);
    let Ok(wal) = Wal::of_bytes(log.named()) else { return };
    let opened = match store {
        None => match Opened::of_log(wal) {
            Ok(opened) => opened,
            Err(_) => return,
        },
        Some(json) => {
            let file = log::snap(json, SNAPSHOT_INDEX, 2, &[NODE]);
            let snapshot = Snapshot::of(Map::held(Path::new("memory.snap"), file), Interrupt::default()).unwrap();
            assert_eq!(snapshot.index, RaftIndex(SNAPSHOT_INDEX));
            Opened::held(Start { snapshot: Some(snapshot), member: 0, passed_over: Vec::new() }, wal)
        }
    };
    let Ok(table) = read_table(&opened) else { return };
    let Ok(mut recovered) = recover(&opened, &table, None, &ReplayOptions::default()) else { return };
    let index = recovered.v2_index();
    // An error is allowed: v3 cannot represent every index.
    drop(database(&mut recovered.replay.tree, index));
}
