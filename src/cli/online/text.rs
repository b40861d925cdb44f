//! The results of `online` as text. Must not know how they came about.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::count::counted;
use crate::display::printable;
use crate::online::carry::Counters;
use crate::online::finish::Finished;
use crate::online::state::Keys;
use crate::online::status::Status;
use crate::online::switch::Switched;
use crate::online::undo::Undone;
use crate::online::v2::Head;
use crate::online::verify::Verified;

/// The summary of a copy that caught up.
pub(super) fn copied(head: Head, conflicts: u64, counters: &Counters) -> String {
    let result = match conflicts {
        0 => format!("COMPLETE, exit status 0: v3 has v2 up to index {}", head.index),
        _ => format!(
            "INCOMPLETE, exit status 8: v3 has v2 up to index {}, except {} listed as conflicts",
            head.index,
            counted(conflicts, "change", "changes")
        ),
    };
    format!("{result}\n{}", totals(counters))
}

/// The summary of a copy that a signal ended.
pub(super) fn stopped(counters: &Counters) -> String {
    let index = counters.index.load(Ordering::Relaxed);
    format!("STOPPED at v2 index {index}; run the command again to go on\n{}", totals(counters))
}

fn totals(counters: &Counters) -> String {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut text = String::new();
    for (name, count) in [
        ("keys and changes of v2", get(&counters.seen)),
        ("left out", get(&counters.left_out)),
        ("written", get(&counters.put)),
        ("deleted", get(&counters.deleted)),
        ("equal, or led by v3", get(&counters.equal)),
        ("conflicts", get(&counters.conflicts)),
    ] {
        text.push_str(&line(name, count));
    }
    if get(&counters.conflicts) > 0 {
        text.push_str("warning: changes of v2 are not in v3: `etcdlift online status --conflicts -` lists them\n");
    }
    text
}

/// A status.
pub(super) fn status(status: &Status) -> String {
    if !status.begun {
        return "no migration has begun with this state prefix\n".into();
    }
    let mut text = String::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&line(name, value));
        }
    };
    add("since", status.since.clone());
    add("phase", status.phase.map(|phase| phase.to_string()));
    add("v2 index in v3", status.v3_index.map(|index| index.to_string()));
    add("as of", status.v3_time.clone());
    add("v2 index", status.v2_index.map(|index| index.to_string()));
    add("lag", status.lag_entries.map(|lag| lag_text(lag, status.lag_seconds)));
    add("job", Some(status.lock.clone().unwrap_or_else(|| "none runs".into())));
    add("switch", Some(status.switch.as_deref().map_or("does not exist".into(), printable)));
    add("keys led by v3", Some(status.markers.to_string()));
    add("conflicts", Some(status.conflicts.to_string()));
    for conflict in &status.first_conflicts {
        let key = printable(&conflict.key);
        text.push_str(&format!("  {} at v2 index {}: {} {key}\n", conflict.why, conflict.index, conflict.action));
    }
    text
}

fn lag_text(entries: u64, seconds: Option<u64>) -> String {
    match (entries, seconds) {
        (0, _) | (_, None) => format!("{entries} entries"),
        (_, Some(seconds)) => format!("{entries} entries, {seconds} s"),
    }
}

/// What a comparison found.
pub(super) fn verified(found: &Verified, quiet: bool) -> String {
    let result = if found.differing == 0 { "VERIFIED" } else { "NOT VERIFIED" };
    let index = found.v3_index.map_or("none".into(), |index| index.to_string());
    let mut text = format!("{result}: v2 index {}, in v3 {index}\n", found.v2_index);
    if quiet {
        return text;
    }
    for (name, count) in [
        ("equal", found.equal),
        ("led by v3", found.moved),
        ("left out", found.left_out),
        ("differing", found.differing),
    ] {
        text.push_str(&line(name, count));
    }
    for one in &found.differences {
        text.push_str(&format!("wrong: {}: {}\n", one.what, printable(&one.key)));
    }
    text
}

/// What a switch did.
pub(super) fn switched(done: &Switched, keys: &Keys) -> String {
    let key = String::from_utf8_lossy(&keys.switch);
    let key = printable(&key);
    if done.before {
        return format!("{key} is already true, since revision {}\n", done.revision);
    }
    let mut text = format!("{key} is true, since revision {}; v2 index {}\n", done.revision, done.v2_index);
    if done.later > 0 {
        text.push_str(&format!("warning: {} changes of v2 came later; they are listed as conflicts\n", done.later));
    }
    text
}

/// What an undo did.
pub(super) fn undone(done: Undone) -> String {
    format!("UNDONE: v2 leads again\n{}{}", line("deleted in v3", done.deleted), line("newly led by v3", done.marked))
}

/// What a finish did.
pub(super) fn finished(done: Finished) -> String {
    format!("FINISHED\n{}{}", line("keys removed", done.removed), line("conflicts among them", done.conflicts))
}

fn line(name: &str, value: impl ToString) -> String {
    format!("{name:<24}{}\n", value.to_string())
}
