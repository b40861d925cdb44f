//! Any bytes as a snapshot and the entries of a log, many of them over and over: what is small to write and may be large to
//! replay. The fuzzer's bounds of memory and time are the oracle, and what comes out is verified.

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

/// Bytes of all entries: a source stays small.
const MOST: usize = 1 << 20;

/// A part of the input: what it is (the lowest two bits of its first byte), how often it stands there as a power of two (the
/// others), its length in two bytes, its bytes.
pub fn part(kind: u8, power: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap();
    [&[kind | power << 2][..], &len.to_le_bytes(), bytes].concat()
}

/// A v2 request, a change of the configuration, the JSON of the snapshot's store.
pub const PARTS: [u8; 3] = [0, 1, 2];

/// Any bytes as parts.
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
    // What cannot be numbered or named in v3 is refused.
    drop(database(&mut recovered.replay.tree, index));
}
