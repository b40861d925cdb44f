//! Reports the versions by whose rules a log was replayed.
//!
//! Decides nothing. Must not know how a rule changes the tree.

use crate::count::counted;
use crate::display::{first_of, lossy, short};
use crate::notice::Code;
use crate::options::SourceVersion;
use crate::report::facts::{OtherRules, SourceFacts, VersionBound};
use crate::report::{Notice, Notices};
use crate::transform::policy::NAMESPACE;
use crate::v2store::dialect::{Bound, Place};
use crate::v2store::versions::{Other, Refutation, Refuted, Versions};

/// Reports the bounds of the server's version, and the other rules that are possible.
pub(super) fn facts(source: &mut SourceFacts, versions: &Versions) {
    source.replay_rules = Some(versions.used.label.to_string());
    source.server_versions = Some(versions.interval.to_string());
    source.version_bounds =
        versions.bounds.iter().map(bound).chain(versions.refuted.iter().map(|refuted| refutation(*refuted))).collect();
    source.other_rules = versions.others.iter().map(other).collect();
}

fn bound(bound: &Bound) -> VersionBound {
    VersionBound {
        bound: bound.limit.to_string(),
        proof: bound.proof.clone(),
        raft_index: match bound.place {
            Place::At(index) => Some(index.0),
            Place::End => None,
        },
        file: bound.file.as_ref().map(|file| file.display().to_string()),
        in_effect: bound.in_effect,
    }
}

fn refutation(refuted: Refuted) -> VersionBound {
    VersionBound {
        bound: format!("not {}", refuted.rule_set.label),
        proof: match refuted.refutation {
            Refutation::Name => {
                format!("a request uses an in-order key that the log makes by the rules of {}", refuted.by.label)
            }
            Refutation::Members => format!(
                "a learner's peer URLs are updated, and the v3 backend has the members as by the rules of {}",
                refuted.by.label
            ),
        },
        raft_index: Some(refuted.index.0),
        file: None,
        in_effect: true,
    }
}

fn other(other: &Other) -> OtherRules {
    let name = |path: &Vec<u8>| lossy(path.strip_prefix(NAMESPACE).filter(|key| !key.is_empty()).unwrap_or(path));
    OtherRules {
        rules: other.rule_set.label.to_string(),
        v2_index: other.v2_index.0,
        differing: other.difference.count,
        keys: other.difference.paths.iter().map(name).collect(),
    }
}

/// Returns the warnings and losses about the version. `named` is the version of `--source-version`.
pub(super) fn notices(versions: &Versions, others: &[OtherRules], named: Option<SourceVersion>) -> Notices {
    let mut notices = Notices::default();
    if let (Some(named), Some(bound)) = (named, versions.contradiction()) {
        let message = format!(
            "--source-version {named} contradicts the source, whose last server was {}: {}{}",
            bound.limit,
            bound.proof,
            place(bound.place)
        );
        notices.warn(Code::SourceVersionContradicted, message);
    }
    for other in others {
        let used = versions.used.label;
        let what = match other.differing {
            0 => format!("the v2 index is {} by the rules of etcd {}", other.v2_index, other.rules),
            count => format!(
                "{} by the rules of etcd {}: {}",
                counted(count, "node differs", "nodes differ"),
                other.rules,
                first_of(&other.keys.iter().map(|key| short(key)).collect::<Vec<_>>())
            ),
        };
        let message = format!(
            "the log is replayed by the rules of etcd {used}; {what}; the source does not prove which server started last"
        );
        notices
            .losses
            .push(Notice::new(Code::SourceVersionUnknown, message).hint("--source-version names the last server"));
    }
    notices
}

fn place(place: Place) -> String {
    match place {
        Place::At(index) => format!(" (raft index {index})"),
        Place::End => String::new(),
    }
}
