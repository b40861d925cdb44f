//! The codes of warnings and losses: stable words for scripts, in the field `code` of the report.
//!
//! A warning is something that the operator should know. A loss means that the output may lack something that the
//! cluster held, and the run ends with status 8. `docs/codes.md` lists the codes, and a test holds it. Must not know
//! who reports a code.

use crate::words::words;

words! {
    /// In which list of the report a code appears.
    pub enum Severity {
        /// Always in `warnings`.
        Warning = "warning",
        /// Always in `losses`.
        Loss = "loss",
        /// In `losses`, or in `warnings` if the meaning of the code says so.
        Either = "either",
    }
}

/// The severity that a code names; a warning if it names none.
macro_rules! severity {
    () => {
        Severity::Warning
    };
    ($severity:ident) => {
        Severity::$severity
    };
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal $(, $severity:ident)?;)*) => {
        words! {
            /// The code of a warning or a loss.
            #[derive(PartialOrd, Ord)]
            #[non_exhaustive]
            pub enum Code {
                $($(#[doc = $doc])* $name = $word,)*
                /// A code that this version does not know, in the report of another version.
                #[serde(other)]
                Unknown = "unknown",
            }
        }

        impl Code {
            /// Every code that this version reports, with its meaning, in alphabetical order of the words.
            pub const ALL: &'static [(Code, &'static str)] = &[$((Code::$name, concat!($($doc),*)),)*];

            /// Returns in which list of the report the code appears.
            pub fn severity(self) -> Severity {
                match self {
                    $(Code::$name => severity!($($severity)?),)*
                    Code::Unknown => Severity::Either,
                }
            }
        }
    };
}

codes! {
    /// A directory and a node below it expired at the same instant, so later v2 indexes may be too low or too high by
    /// one.
    AmbiguousExpiry = "ambiguous-expiry";
    /// v2 and v3 both have a user or role of one name, and the two differ.
    AuthConflict = "auth-conflict";
    /// Users and roles of v2 are left out.
    AuthLeftOut = "auth-left-out";
    /// Users and roles of v2 were added to those of v3.
    AuthMerged = "auth-merged";
    /// Authentication is enabled in v2 and disabled in the output.
    AuthOff = "auth-off";
    /// Authentication is enabled in the output, and was disabled in one of the two stores.
    AuthTurnedOn = "auth-turned-on";
    /// `advise`: users and roles of v2 cannot be read.
    AuthUnreadable = "auth-unreadable";
    /// The source is an `etcdctl backup`.
    Backup = "backup";
    /// A backup by etcdctl 3.3 or later has v2 writes after its snapshot, whose indexes may differ from those of the
    /// cluster.
    BackupRenumbered = "backup-renumbered", Loss;
    /// Keys have a created index above their modified index.
    CreatedAfterModified = "created-after-modified";
    /// The end of a log, or a segment after it, is probably missing in the copy. A warning if other members prove that
    /// nothing is missing.
    CutCopy = "cut-copy", Either;
    /// Entries after damage in one log were taken from another member. A loss if nothing proves that these are all;
    /// then the run is refused.
    DamageFilled = "damage-filled", Either;
    /// Damage in a log affects only entries that a snapshot or another member covers.
    DamageNotNeeded = "damage-not-needed";
    /// A log is damaged. A warning if other members prove that nothing is missing.
    DamagedLog = "damaged-log", Either;
    /// A damaged snapshot was not used, and nothing proves that the output is complete.
    DamagedSnapshot = "damaged-snapshot", Loss;
    /// Keys of one directory have the same name once U+FFFD replaces bytes that are not UTF-8.
    DuplicateNames = "duplicate-names";
    /// Keys with a TTL have expired and are left out.
    Expired = "expired";
    /// A v3 database has a fault.
    Finding = "finding";
    /// Anonymous clients lose their rights.
    GuestDropped = "guest-dropped";
    /// Keys exist in v2 and v3; the output has those of v3.
    KeptV3 = "kept-v3";
    /// A dry run does not replace an existing ledger.
    LedgerNotWritten = "ledger-not-written";
    /// An etcd ran on the source while it was read.
    Live = "live";
    /// A member's log is missing. A warning if other members prove that nothing else is missing; otherwise the run is
    /// refused.
    LogGone = "log-gone", Either;
    /// The source is a log without a data directory.
    LogOnly = "log-only";
    /// `clean`: the bucket `members` of the v3 backend does not have the members of the raft configuration.
    MembersDiffer = "members-differ";
    /// A snapshot was not used, and its state is after that of the output.
    OlderSnapshot = "older-snapshot", Loss;
    /// The sources are at most half of the voters, so they may lack later writes of the cluster.
    OneOfSeveralVoters = "one-of-several-voters";
    /// Keys that an earlier migration may have copied exist in v3 and no longer in v2.
    OnlyInV3 = "only-in-v3";
    /// The directories of some members of the cluster are not in the output, or in what `verify` checks.
    OtherMembers = "other-members";
    /// `verify` compared with other source files than the report names.
    OtherSource = "other-source";
    /// Permissions apply to v2 names of keys, and a transformer may rename keys.
    PermissionsByV2Names = "permissions-by-v2-names";
    /// A permission covers fewer keys than in v2, because rules exclude or rename some of them.
    PermissionsCut = "permissions-cut";
    /// A permission is left out, because no v2 key can match it.
    PermissionsWithoutKeys = "permissions-without-keys";
    /// `clean`: the member was removed from its cluster.
    RemovedMember = "removed-member";
    /// etcd repaired a torn log: the original segment is in a `.wal.broken` file.
    Repaired = "repaired";
    /// Users may do more in v3 than in v2, because etcd 2.1 honours only the first existing role of a user.
    RolesWiden = "roles-widen";
    /// `--salvage` skipped damage.
    Salvaged = "salvaged", Loss;
    /// The new cluster has the ID of the old one, so members of the two could join each other.
    SameClusterId = "same-cluster-id";
    /// Several keys have the same modified index.
    SharedIndex = "shared-index";
    /// The source is a snapshot without its log.
    SnapshotOnly = "snapshot-only";
    /// A snapshot was not used, and nothing is missing without it.
    SnapshotPassedOver = "snapshot-passed-over";
    /// `--source-version` contradicts what the source proves.
    SourceVersionContradicted = "source-version-contradicted";
    /// etcd versions that may have run last would give different trees. A loss; a warning of `compare`.
    SourceVersionUnknown = "source-version-unknown", Either;
    /// v2 writes after the commit index are left out.
    TailLeftOut = "tail-left-out", Loss;
    /// Keys exist in v2 and v3; the output has those of v2.
    TakenFromV2 = "taken-from-v2";
    /// The last record of a log is torn. A warning after a crash of etcd, or if other members prove that nothing is
    /// missing.
    TornTail = "torn-tail", Either;
    /// A TTL exceeds what a lease can hold, and the key becomes permanent.
    TtlTooLong = "ttl-too-long";
    /// The log updates a member that the store does not know.
    UnknownMember = "unknown-member";
    /// A rule matched nothing.
    UnusedRule = "unused-rule";
    /// `--existing keep-v3` leaves all v2 keys out.
    V2LeftOut = "v2-left-out";
    /// The v3 store holds a tree of `--experimental-enable-v2v3`.
    V2v3Tree = "v2v3-tree";
    /// v3 data of the source is left out.
    V3Dropped = "v3-dropped";
    /// The source also holds v3 data, which the export does not contain.
    V3Present = "v3-present";
    /// v3 writes after the commit index are left out.
    V3TailLeftOut = "v3-tail-left-out", Loss;
    /// `check`: the v3 backend has no v3 data, and v3 writes in the log are not applied to it.
    V3Unapplied = "v3-unapplied";
    /// The v3 backend of the source cannot be read.
    V3Unreadable = "v3-unreadable";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_order_and_differ() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].0.word() < pair[1].0.word()));
    }

    #[test]
    fn a_code_of_another_version_can_be_read() {
        let read = |json: &str| serde_json::from_str::<Code>(json).ok();
        assert_eq!(read("\"live\""), Some(Code::Live));
        assert_eq!(read("\"code-of-a-later-version\""), Some(Code::Unknown));
        assert_eq!(read("7"), None);
    }
}
