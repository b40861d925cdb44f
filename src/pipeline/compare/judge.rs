//! The findings in words, the result for each member, the verdict, and the member to convert.
//!
//! Decides from what `logs` and `states` found. Must not read files.

use super::found::{Found, Given};
use super::reading::Reading;
use crate::count::counted;
use crate::options::{CompareOptions, WalDir};
use crate::report::comparison::{CommonV3, ComparedMember, Comparison, Rest, Status, Verdict};
use crate::report::next_steps;
use crate::source::cluster::Contradiction;

/// Maximum number of differences between two lists of members that are named.
const NAMED: usize = 5;

/// Decides about each member that was read.
pub(super) fn members(comparison: &mut Comparison, given: &Given<'_>, found: &Found) {
    let lines: Vec<ComparedMember> = comparison.members.clone();
    let reference_line = given.positions.get(found.reference).and_then(|position| lines.get(*position));
    let (Some(reference), Some(reference_line)) = (given.readings.get(found.reference), reference_line) else { return };
    for (at, (reading, position)) in given.readings.iter().zip(&given.positions).enumerate() {
        let Some(line) = comparison.members.get_mut(*position) else { continue };
        let pair = Pair { at, found, reading, reference, reference_line };
        let mut contradictions = pair.contradictions(line);
        contradictions.extend(pair.others(given));
        let mut unproven = pair.unproven(line, comparison.common_index);
        contradictions.extend(pair.backend(line, comparison.v3.as_ref().map(|v3| v3.revision)));
        unproven.extend(pair.backend_unproven(line, comparison.v3.as_ref()));
        let entries = pair.entries(line);
        let other_members = if at == found.reference { Vec::new() } else { membership(line, reference_line) };
        if line.raft_index == reference_line.raft_index {
            contradictions.extend(other_members);
        } else if entries.is_some() {
            unproven.extend(other_members);
        }
        line.status = match &entries {
            _ if given.is_removed(reading) => Status::Removed,
            _ if !contradictions.is_empty() => Status::Diverged,
            Some((Status::Behind, _)) => Status::Behind,
            _ if !unproven.is_empty() => Status::NotProven,
            Some((status, _)) => *status,
            None => Status::Equal,
        };
        if line.status == Status::Removed {
            line.findings.push("this member was removed from the cluster: leave it out".to_string());
        }
        line.findings.extend(contradictions);
        line.findings.extend(entries.map(|(_, words)| words));
        line.findings.extend(unproven);
        line.findings.extend(pair.backend_lag(line));
    }
}

/// A member and the reference.
struct Pair<'p> {
    at: usize,
    found: &'p Found,
    reading: &'p Reading,
    reference: &'p Reading,
    reference_line: &'p ComparedMember,
}

impl Pair<'_> {
    /// Describes how the history or the content contradicts that of the reference.
    fn contradictions(&self, line: &ComparedMember) -> Vec<String> {
        let other = &self.reference_line.path;
        let mut lines = Vec::new();
        if let Some(found) = self.found.contradictions.get(self.at).copied().flatten() {
            lines.push(other_entry(&found, other));
        }
        if let (Some(own), Some(expected)) = (&line.common_hash, &self.reference_line.common_hash)
            && own != expected
        {
            lines.push(format!("the content at the common index differs from that of {other}"));
        }
        if let Some((index, false)) = self.found.compared_later.get(self.at).copied().flatten() {
            lines.push(format!("the content at raft index {index} differs from that of {other}"));
        }
        let same_index = self.reading.state.applied == self.reference.state.applied;
        if lines.is_empty() && same_index && self.reading.state.hash != self.reference.state.hash {
            let index = self.reading.state.applied;
            lines.push(format!("the content at raft index {index} differs from that of {other}"));
        }
        lines
    }

    /// Names another member that this one contradicts, if neither contradicts the reference.
    fn others(&self, given: &Given<'_>) -> Option<String> {
        let with_reference = |at: usize| self.found.contradict(self.found.reference, at);
        let contradicts = |other: &usize| self.found.contradict(self.at, *other) && !with_reference(*other);
        let is_reference = self.at == self.found.reference;
        let other =
            (0..given.readings.len()).find(contradicts).filter(|_| !is_reference && !with_reference(self.at))?;
        let path = given.sources.get(other)?.path.display();
        Some(format!("its history or content contradicts that of {path}"))
    }

    /// Describes what cannot be proven about the v2 content and the log.
    fn unproven(&self, line: &ComparedMember, common: u64) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.reading.state.incomplete.clone());
        if self.reading.state.applied > self.reference.state.applied {
            lines.push(format!("its committed state is after that of {}", self.reference_line.path));
        }
        let compared = self.found.compared_later.get(self.at).copied().flatten().is_some();
        let mut both = [line, self.reference_line].into_iter();
        let why = both.find_map(|line| Some((&line.path, line.no_common_hash.as_ref()?)));
        if let Some((path, why)) = why.filter(|_| self.at != self.found.reference && !compared) {
            lines.push(format!(
                "the content at raft index {common} cannot be compared, because {path} cannot be replayed to it: {why}"
            ));
        }
        lines
    }

    /// Describes how the v3 backend contradicts that of the reference.
    fn backend(&self, line: &ComparedMember, revision: Option<u64>) -> Option<String> {
        let (own, expected) = (line.v3.as_ref()?, self.reference_line.v3.as_ref()?);
        let other = &self.reference_line.path;
        if let (Some(hash), Some(expected)) = (own.common_hash_kv, expected.common_hash_kv)
            && hash != expected
        {
            let revision = revision.unwrap_or_default();
            return Some(format!("HashKV at revision {revision} is {hash}, and {expected} in {other}"));
        }
        let same_index = own.consistent_index.is_some() && own.consistent_index == expected.consistent_index;
        if same_index && own.replicated_hash != expected.replicated_hash {
            let index = own.consistent_index.unwrap_or_default();
            return Some(format!(
                "other users, roles, leases or alarms than {other}, both at consistent index {index}"
            ));
        }
        (same_index && own.revision != expected.revision).then(|| {
            let (index, own, expected) = (own.consistent_index.unwrap_or_default(), own.revision, expected.revision);
            format!("the v3 backend at consistent index {index} has revision {own}, and {expected} in {other}")
        })
    }

    /// Describes what cannot be proven about the v3 backend.
    fn backend_unproven(&self, line: &ComparedMember, common: Option<&CommonV3>) -> Option<String> {
        let has_data = |line: &ComparedMember| line.v3.as_ref().is_some_and(|v3| v3.pairs > 0);
        if let Some((_, Err(error))) = &self.reading.state.backend {
            return Some(format!("the v3 backend cannot be compared: {error}"));
        }
        // Every etcd of 3.x makes one when it starts.
        let version = self.reading.state.facts.cluster_version.as_deref().filter(|version| version.starts_with("3."));
        if let (None, Some(version)) = (&line.v3, version) {
            return Some(format!("the v3 backend is missing, and the cluster version is {version}"));
        }
        if self.at == self.found.reference {
            return None;
        }
        if line.v3.is_none() && has_data(self.reference_line) {
            return Some(format!("the v3 backend is missing, and {} has v3 data", self.reference_line.path));
        }
        let why = common?.not_comparable.as_ref()?;
        (has_data(line) || has_data(self.reference_line)).then(|| format!("HashKV cannot be compared: {why}"))
    }

    /// Describes a v3 backend that lacks entries of its own log. A server applies them when it starts, so this is no difference.
    fn backend_lag(&self, line: &ComparedMember) -> Option<String> {
        let (own, expected) = (line.v3.as_ref()?, self.reference_line.v3.as_ref()?);
        let lags = own.revision < expected.revision && own.consistent_index < expected.consistent_index;
        let index = own.consistent_index.filter(|_| lags && own.consistent_index < line.raft_index)?;
        Some(format!("the v3 backend is at raft index {index}; its server applies the rest of the log when it starts"))
    }

    /// Describes the entries that the member lacks or does not know to be committed; `None` if there are none.
    fn entries(&self, line: &ComparedMember) -> Option<(Status, String)> {
        let ComparedMember { behind, lacks, entries, .. } = line;
        if *behind == 0 && *lacks == 0 {
            return None;
        }
        let same_content = self.reading.state.hash == self.reference.state.hash;
        // What a SYNC expires is known up to the committed state of the reference only.
        let known_sync = entries.sync == 0 || *lacks <= *behind;
        let status = match entries.may_change_data() {
            false if same_content && known_sync => Status::ExceptEmptyEntries,
            true if same_content && entries.unknown == entries.total() => Status::NotProven,
            _ => Status::Behind,
        };
        let (other, total) = (&self.reference_line.path, counted(*behind.max(lacks), "entry", "entries"));
        let whose = if *behind == 0 { "the cluster".to_string() } else { other.clone() };
        let effect = if status == Status::ExceptEmptyEntries { ", without effect" } else { "" };
        let mut words = format!("{total} behind {whose}{effect} ({entries})");
        if *lacks == 0 {
            let they =
                if *behind == 1 { "the entry, and not its commit" } else { "these entries, and not their commit" };
            words.push_str(&format!("; its log has {they}"));
        }
        Some((status, words))
    }
}

fn other_entry(found: &Contradiction, other: &str) -> String {
    // The reference is the first of the pair.
    let Contradiction { index, terms: (expected, own), common } = found;
    let what = if own == expected {
        format!("raft entry {index} of term {own} has another content than in {other}")
    } else {
        format!("raft entry {index} has term {own}, and term {expected} in {other}")
    };
    let common = match common {
        Some(index) => format!("the last entry in common is {index}"),
        None => "no entry before it is in common".to_string(),
    };
    format!("{what} ({common}): one of them continued alone, for example after --force-new-cluster")
}

/// Compares two views of the membership: ids, names, peer URLs, voters.
fn membership(line: &ComparedMember, reference: &ComparedMember) -> Vec<String> {
    let other = &reference.path;
    let mut lines = Vec::new();
    for member in &line.members {
        match reference.members.iter().find(|expected| expected.id == member.id) {
            None => lines.push(format!("it lists member {} ({}), and {other} does not", member.id, member.name)),
            Some(expected) if expected.name != member.name => {
                let (id, own, name) = (&member.id, &member.name, &expected.name);
                lines.push(format!("it has the name {own:?} for member {id}, and {other} has {name:?}"));
            }
            Some(expected) if expected.peer_urls != member.peer_urls => {
                let (id, own, urls) = (&member.id, member.peer_urls.join(","), expected.peer_urls.join(","));
                lines.push(format!("it has the peer URLs {own} for member {id}, and {other} has {urls}"));
            }
            Some(_) => {}
        }
    }
    let missing = reference.members.iter().filter(|member| !line.members.iter().any(|own| own.id == member.id));
    lines
        .extend(missing.map(|member| format!("{other} lists member {} ({}), and it does not", member.id, member.name)));
    if line.voters != reference.voters {
        let (own, expected) = (line.voters.join(", "), reference.voters.join(", "));
        lines.push(format!("its voters are {own}, and those of {other} are {expected}"));
    }
    let more = lines.len().saturating_sub(NAMED) as u64;
    lines.truncate(NAMED);
    if more > 0 {
        lines.push(counted(more, "more difference of the membership", "more differences of the membership"));
    }
    lines
}

/// Decides about the whole, and names the member to convert.
pub(super) fn verdict(comparison: &mut Comparison, given: &Given<'_>, found: &Found, options: &CompareOptions) {
    let mut reasons = Vec::new();
    let rank = |status: Status| match status {
        Status::Diverged => 0,
        Status::Behind => 1,
        Status::Removed => 2,
        Status::Unreadable => 3,
        Status::NotProven => 4,
        Status::ExceptEmptyEntries => 5,
        Status::Equal => 6,
    };
    let mut lines: Vec<&ComparedMember> = comparison.members.iter().collect();
    lines.sort_by_key(|line| rank(line.status));
    let has = |statuses: &[Status]| lines.iter().any(|line| statuses.contains(&line.status));
    let undecided = undecided(comparison, given);
    let verdict = if has(&[Status::Diverged, Status::Behind, Status::Removed]) {
        Verdict::Differ
    } else if has(&[Status::Unreadable, Status::NotProven]) || undecided.is_some() {
        Verdict::NotProven
    } else if has(&[Status::ExceptEmptyEntries]) {
        Verdict::ExceptEmptyEntries
    } else {
        Verdict::Converged
    };
    let is_reason = |line: &&&ComparedMember| match line.status {
        Status::Equal => false,
        Status::ExceptEmptyEntries => verdict == Verdict::ExceptEmptyEntries,
        _ => true,
    };
    for line in lines.iter().filter(is_reason) {
        reasons.extend(line.error.clone());
        reasons.extend(line.findings.first().map(|finding| format!("{}: {finding}", line.path)));
    }
    reasons.extend(undecided);
    (comparison.verdict, comparison.exit_status) = (verdict, verdict.exit_code());
    comparison.reasons = reasons;
    recommend(comparison, given, found, options);
}

/// Describes entries that may be committed and that a given member lacks.
fn undecided(comparison: &Comparison, given: &Given<'_>) -> Option<String> {
    let tail = &comparison.tail;
    let members = given.readings.iter().filter(|reading| !given.is_removed(reading)).count() as u64;
    if tail.rest != Rest::Undecided || !tail.rest_entries.may_change_data() || tail.held_by >= members {
        return None;
    }
    let (entries, held) = (tail.rest_entries, counted(tail.held_by, "given voter holds", "given voters hold"));
    Some(format!("entries after the committed ones may be committed too ({entries}): {held} them"))
}

/// Names the member to convert: the reference, unless members contradict each other and no majority agrees with it.
fn recommend(comparison: &mut Comparison, given: &Given<'_>, found: &Found, options: &CompareOptions) {
    let Some(reference) = given.readings.get(found.reference) else { return };
    let is_diverged =
        |position: &usize| comparison.members.get(*position).is_some_and(|line| line.status == Status::Diverged);
    let supported = |at: usize| {
        let contradicts = |other: &usize| found.contradict(*other, at) && !found.contradict(*other, found.reference);
        let supporters = (0..given.readings.len()).filter(contradicts).count();
        supporters * 2 > reference.state.voters.len().max(given.readings.len())
    };
    let mut diverged = (0..).zip(&given.positions).filter(|(_, position)| is_diverged(position));
    if diverged.any(|(at, _)| !supported(at)) {
        return;
    }
    // The given logs together prove more than the log of one member.
    let together = comparison.tail.committed_to.is_some() && comparison.tail.entries.may_change_data();
    let is_taken = |at: usize, reading: &Reading| {
        let in_history = found.contradictions.get(at).is_none_or(Option::is_none);
        at == found.reference || (together && in_history && !given.is_removed(reading))
    };
    let taken: Vec<usize> = (0..).zip(&given.readings).filter(|(at, of)| is_taken(*at, of)).map(|(at, _)| at).collect();
    let sources: Vec<_> = taken.iter().filter_map(|at| given.sources.get(*at)).collect();
    let mut command = "etcdlift convert".to_string();
    for source in &sources {
        command.push_str(&format!(" {}", next_steps::quoted(source.path)));
    }
    command.push_str(" -o snapshot.db");
    for wal_dir in sources.iter().filter_map(|source| source.wal_dir) {
        match wal_dir {
            WalDir::Dir(path) => command.push_str(&format!(" --wal-dir {}", next_steps::quoted(path))),
            WalDir::None => command.push_str(" --wal-dir none"),
        }
    }
    if taken.iter().filter_map(|at| given.readings.get(*at)).any(|reading| reading.state.has_v3_data) {
        command.push_str(" --existing merge");
    }
    if options.allow_live && given.readings.iter().any(Reading::is_live) {
        command.push_str(" --allow-live");
    }
    if given.is_removed(reference) {
        command.push_str(" --allow-removed");
    }
    comparison.convert = Some(comparison.reference.clone());
    comparison.next_step = Some(command);
}
