//! `inspect --wal`: the log, entry by entry, with the effect of each entry.
//!
//! Observes the replay of `recover`, and decides nothing. A log that cannot be replayed is listed with unknown effects.
//! Entries are given to the caller one by one, because a log may be larger than memory. Must not know how a line is
//! printed.

use std::collections::HashMap;

use super::inspect::open_options;
use super::{Interrupted, backend, owner};
use crate::count::bytes;
use crate::display::lossy;
use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, V2Index};
use crate::interrupt::Interrupt;
use crate::options::{EntryFilter, WalOptions};
use crate::report::inspection::{EntryEffect, EntryLine};
use crate::source::entries::EntryRef;
use crate::source::internal_request::V3Request;
use crate::source::open::{Found, OpenOptions, Opened, open};
use crate::source::raft::{Entry, EntryKind, Method, Proposal, Request, parse_conf_change, parse_proposal};
use crate::source::wal::Wal;
use crate::transform::policy::NAMESPACE;
use crate::v2store::apply::Effect;
use crate::v2store::recover::recover_observed;
use crate::v2store::replay::{ReplayOptions, read_table_watched};

/// Shows each entry of the log that the options select, in order.
///
/// # Errors
/// Those of opening the source for a conversion; [`Reason::WalMissing`] if it has no log; damage in the log, after the
/// readable entries were shown; what `show` returned.
pub fn inspect_wal(
    options: &WalOptions,
    interrupted: Interrupted<'_>,
    show: &mut dyn FnMut(&EntryLine) -> Result<()>,
) -> Result<()> {
    let interrupt = Interrupt::new(interrupted);
    let open_options = OpenOptions { log_only: true, ..open_options(options.allow_live, interrupt) };
    let shown = show_entries(options, &open_options, interrupt, show);
    open_options.watch.settle(shown)
}

fn show_entries(
    options: &WalOptions,
    open_options: &OpenOptions<'_>,
    interrupt: Interrupt<'_>,
    show: &mut dyn FnMut(&EntryLine) -> Result<()>,
) -> Result<()> {
    let Found::V2(mut opened) = open(&options.source, options.wal_dir.as_ref(), open_options)? else {
        return Err(
            Error::new(Reason::UnsupportedFormat, "a v3 file has no log of v2 requests").in_file(&options.source)
        );
    };
    let Some(wal) = opened.wal() else {
        return Err(Error::new(Reason::WalMissing, "the write-ahead log is missing").in_file(&options.source));
    };
    let effects = Effects::of(&opened, interrupt)?;
    for (reference, counts) in entries(wal) {
        interrupt.ask()?;
        if !(options.from_index..=options.to_index).contains(&reference.index.0) {
            continue;
        }
        let entry = wal.entry(reference)?;
        let (filter, mut line) = describe(&entry)?;
        if !options.kinds.is_empty() && !options.kinds.iter().any(|kind| matches(*kind, filter)) {
            continue;
        }
        let (effect, v2_index) = effects.effect(reference.index, counts, &opened);
        (line.effect, line.v2_index) = (effect, v2_index.map(|index| index.0));
        place(&mut line, wal, reference, &entry);
        show(&line)?;
    }
    effects.failure.map_or(Ok(()), Err)?;
    opened.check_bytes(interrupt)?;
    // The readable entries were shown. Damage is an error nevertheless.
    let mut wals = opened.members.iter_mut().filter_map(|member| member.wal.as_mut());
    wals.find_map(Wal::take_damage).map_or(Ok(()), Err)
}

/// Returns all entries by index, and whether each counts: a received snapshot may have replaced it.
fn entries(wal: &Wal) -> Vec<(&EntryRef, bool)> {
    let mut entries: Vec<_> = wal.history().into_iter().map(|entry| (entry, true)).collect();
    entries.extend(wal.unproven().map(|(entry, replaced)| (entry, !replaced)));
    entries.sort_by_key(|(entry, _)| entry.index);
    entries
}

/// The effects of the entries, as far as the replay got.
#[derive(Default)]
struct Effects {
    of: HashMap<RaftIndex, (Effect, V2Index)>,
    /// The error that ended the replay.
    failure: Option<Error>,
}

impl Effects {
    fn of(opened: &Opened, interrupt: Interrupt<'_>) -> Result<Effects> {
        let mut effects = Effects::default();
        if opened.log_only {
            return Ok(effects);
        }
        let table = read_table_watched(opened, interrupt)?;
        owner::require_content(opened, &table, interrupt)?;
        let backend = backend::newest(opened, interrupt)?;
        let mut of = HashMap::new();
        let observe = &mut |applied: &crate::v2store::replay::Applied<'_>| {
            of.insert(applied.entry.index, (applied.effect, applied.v2_index));
            Ok(())
        };
        let replay_options = ReplayOptions { interrupt, ..ReplayOptions::default() };
        let replayed = recover_observed(opened, &table, backend.applied(), &replay_options, observe);
        interrupt.ask()?;
        // The entries are shown first, then the damage.
        effects.failure = replayed.err();
        effects.of = of;
        Ok(effects)
    }

    fn effect(&self, index: RaftIndex, counts: bool, opened: &Opened) -> (EntryEffect, Option<V2Index>) {
        match self.of.get(&index) {
            _ if !counts => (EntryEffect::Replaced, None),
            Some((effect, v2_index)) => (EntryEffect::of(*effect), Some(*v2_index)),
            None if opened.log_only => (EntryEffect::Unknown, None),
            None if index <= opened.start.index() => (EntryEffect::InSnapshot, None),
            None if self.failure.is_some() => (EntryEffect::Unknown, None),
            None => (EntryEffect::NotCommitted, None),
        }
    }
}

fn place(line: &mut EntryLine, wal: &Wal, reference: &EntryRef, entry: &Entry<'_>) {
    line.raft_index = entry.index.0;
    line.term = entry.term.0;
    line.bytes = entry.data.len() as u64;
    line.offset = entry.data_offset.0;
    line.segment = wal.segment_path(reference).file_name().unwrap_or_default().to_string_lossy().into_owned();
}

fn describe(entry: &Entry<'_>) -> Result<(EntryFilter, EntryLine)> {
    if entry.kind != EntryKind::Normal {
        return conf_change(entry);
    }
    let (filter, line) = match parse_proposal(entry.data, entry.data_offset)? {
        Proposal::Empty => (EntryFilter::Empty, EntryLine::default()),
        Proposal::V2(request) => self::request(&request),
        Proposal::ClusterVersionSet(_) => (EntryFilter::V3, with_detail("cluster version")),
        Proposal::MemberAttributesSet(_) => (EntryFilter::V3, with_detail("member attributes")),
        Proposal::V3(request) => (EntryFilter::V3, v3_request(&request)),
    };
    Ok((filter, EntryLine { kind: filter, ..line }))
}

fn with_detail(detail: &str) -> EntryLine {
    EntryLine { detail: vec![detail.to_string()], ..EntryLine::default() }
}

fn v3_request(request: &V3Request<'_>) -> EntryLine {
    let parts = request.parts();
    let name = parts.first().map_or(&[][..], |part| part.name);
    EntryLine {
        key: (!name.is_empty()).then(|| lossy(name)),
        detail: parts.iter().map(|part| part.action.to_string()).collect(),
        ..EntryLine::default()
    }
}

fn conf_change(entry: &Entry<'_>) -> Result<(EntryFilter, EntryLine)> {
    let change = parse_conf_change(entry.data, entry.data_offset)?;
    let line = EntryLine {
        kind: EntryFilter::ConfChange,
        key: Some(change.node_id.to_string()),
        detail: vec![change.kind.to_string()],
        ..EntryLine::default()
    };
    Ok((EntryFilter::ConfChange, line))
}

fn request(request: &Request<'_>) -> (EntryFilter, EntryLine) {
    let filter = match request.method {
        Method::Put => EntryFilter::Put,
        Method::Post => EntryFilter::Post,
        Method::Delete => EntryFilter::Delete,
        Method::Sync => EntryFilter::Sync,
        Method::Qget => EntryFilter::Qget,
        _ => EntryFilter::Empty,
    };
    let mut detail = Vec::new();
    let mut say = |condition: bool, text: String| {
        if condition {
            detail.push(text);
        }
    };
    say(request.dir, "dir".into());
    say(request.recursive, "recursive".into());
    say(request.refresh == Some(true), "refresh".into());
    say(request.prev_exist.is_some(), format!("prevExist={}", request.prev_exist == Some(true)));
    say(request.prev_index > 0, format!("prevIndex={}", request.prev_index));
    say(!request.prev_value.is_empty(), format!("prevValue of {}", bytes(request.prev_value.len() as u64)));
    say(request.expiration != 0, format!("expires {}", time(request.expiration)));
    say(filter == EntryFilter::Sync, format!("at {}", time(request.time)));
    let path = request.path.strip_prefix(NAMESPACE).unwrap_or(request.path);
    let line = EntryLine {
        key: (!path.is_empty()).then(|| lossy(path)),
        value_bytes: request.is_write().then_some(request.val.len() as u64),
        detail,
        ..EntryLine::default()
    };
    (filter, line)
}

fn time(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map_or_else(|_| nanoseconds.to_string(), |at| at.to_string())
}

fn matches(wanted: EntryFilter, found: EntryFilter) -> bool {
    let write = matches!(found, EntryFilter::Put | EntryFilter::Post | EntryFilter::Delete);
    wanted == found || (wanted == EntryFilter::Write && write)
}
