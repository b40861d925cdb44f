//! The error type of the crate: the cause, the file and the byte offset.
//!
//! A [`Reason`] is a stable word for scripts (`reason` in the report). Each belongs to one [`Kind`], and the kind alone
//! decides the exit status. An error prints as one line, `FILE: byte N: what is wrong`. Its [`Error::hint`] says what
//! to do, and is printed on a line of its own. Must not know who reports an error, or where it is printed.

mod permissions;

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::display::Printable;
pub use crate::ids::ByteOffset;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure, which decides the exit status of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A fault of etcdlift itself (exit 1).
    Internal,
    /// A wrong command line (exit 2).
    Usage,
    /// A source that is damaged or cannot be read to its end (exit 3).
    Damaged,
    /// Nothing to convert, or nothing found (exit 4).
    Empty,
    /// A refusal by a precondition or a policy (exit 5).
    Refused,
    /// A failed write of the output (exit 6).
    Output,
    /// A failed verification, or a difference (exit 7).
    Verify,
    /// A signal that ended the run (exit 128 + signal number).
    Interrupted(i32),
}

impl Kind {
    /// Returns the exit status of the process for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Internal => 1,
            Kind::Usage => 2,
            Kind::Damaged => 3,
            Kind::Empty => 4,
            Kind::Refused => 5,
            Kind::Output => 6,
            Kind::Verify => 7,
            Kind::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal, $kind:expr;)*) => {
        /// The reason why a run did not end with status 0: a stable word for scripts, and its kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $($(#[doc = $doc])* $name,)*
            /// A signal with this number.
            Interrupted(i32),
        }

        impl Reason {
            /// Every reason except the interruption, with its meaning.
            pub const ALL: &'static [(Reason, &'static str)] = &[$((Reason::$name, concat!($($doc),*)),)*];

            /// Returns the word for the field `reason` of the report.
            pub fn word(self) -> &'static str {
                match self { $(Reason::$name => $word,)* Reason::Interrupted(_) => "interrupted" }
            }

            /// Returns the kind of this reason.
            pub fn kind(self) -> Kind {
                match self { $(Reason::$name => $kind,)* Reason::Interrupted(signal) => Kind::Interrupted(signal) }
            }
        }
    };
}

reasons! {
    /// An invariant of the program does not hold.
    Internal = "internal", Kind::Internal;
    /// Options contradict each other, or a value cannot be parsed.
    Usage = "usage", Kind::Usage;
    /// Bytes of the source contradict its format or its checksums.
    Damaged = "damaged", Kind::Damaged;
    /// The operating system could not read the source.
    Unreadable = "unreadable", Kind::Damaged;
    /// A file of the source was written, replaced or truncated while it was being read.
    ChangedWhileReading = "changed-while-reading", Kind::Damaged;
    /// Entries between the snapshot and the log are missing.
    Gap = "gap", Kind::Damaged;
    /// The log ends before the commit index.
    CommitBeyondLog = "commit-beyond-log", Kind::Damaged;
    /// The source has no v2 key, or policies and rules leave none.
    NothingToConvert = "nothing-to-convert", Kind::Empty;
    /// The index map does not contain the requested item.
    NotFound = "not-found", Kind::Empty;
    /// The source does not exist, or a file of it does not exist any more.
    SourceMissing = "source-missing", Kind::Refused;
    /// A file that an option names does not exist.
    FileMissing = "file-missing", Kind::Refused;
    /// The operating system does not allow this process to read a file.
    PermissionDenied = "permission-denied", Kind::Refused;
    /// The source is an empty directory or file.
    SourceEmpty = "source-empty", Kind::Refused;
    /// The source is not etcd data.
    NotEtcd = "not-etcd-data", Kind::Refused;
    /// The source is etcd data of a kind that is not convertible (0.4, a proxy, a v3 database).
    UnsupportedFormat = "unsupported-format", Kind::Refused;
    /// The source has `.snap` files, but no write-ahead log.
    WalMissing = "wal-missing", Kind::Refused;
    /// A running etcd holds a lock on the source.
    Locked = "locked", Kind::Refused;
    /// The file is not the report of a conversion with an output.
    ReportUnusable = "report-unusable", Kind::Refused;
    /// The file does not exist, or is not an index map.
    NotIndexMap = "not-index-map", Kind::Refused;
    /// The output path exists.
    OutputExists = "output-exists", Kind::Refused;
    /// Two options name the same file.
    SameFile = "same-file", Kind::Refused;
    /// A path to write is the source, a file of it, or inside it.
    IntoSource = "into-source", Kind::Refused;
    /// The file system has no room for the output.
    NoRoom = "no-room", Kind::Refused;
    /// The conversion would need more memory than `--memory-limit` allows.
    MemoryLimit = "memory-limit", Kind::Refused;
    /// The source contains v3 keys, leases, users or roles.
    V3Present = "v3-present", Kind::Refused;
    /// The v3 backend of the source cannot be read.
    V3Unreadable = "v3-unreadable", Kind::Refused;
    /// `check` or `--existing keep-v3`, but the source has no v3 data.
    V3Missing = "v3-missing", Kind::Refused;
    /// v2 and v3 both have a key, user or role.
    Conflict = "conflict", Kind::Refused;
    /// `clean --require-migrated`: a v2 key, user or role is missing in v3, or a key has another value there.
    NotMigrated = "not-migrated", Kind::Refused;
    /// The log has v3 entries that are not applied to the v3 backend.
    V3Unapplied = "v3-late", Kind::Refused;
    /// The v3 backends of the members have different data.
    V3Differs = "v3-differs", Kind::Refused;
    /// A v2 index cannot be a v3 revision.
    IndexRange = "index-range", Kind::Refused;
    /// The log of the source removes this member from the cluster.
    MemberRemoved = "member-removed", Kind::Refused;
    /// The sources are not different members of one cluster.
    NotOneCluster = "not-one-cluster", Kind::Refused;
    /// The log is not that of the member whose other files are in the data directory.
    NotOneMember = "not-one-member", Kind::Refused;
    /// The logs of two members have different entries at one raft index.
    TwoHistories = "two-histories", Kind::Refused;
    /// A member has no log, and the others do not prove that nothing is missing.
    MemberIncomplete = "member-incomplete", Kind::Refused;
    /// The members in the source cannot form a new cluster: a name or a peer URL is missing or used twice.
    MembersUnusable = "members-unusable", Kind::Refused;
    /// The target version cannot continue on the directory of this member.
    CannotContinue = "cannot-continue", Kind::Refused;
    /// The given members together do not have all committed entries.
    NotReached = "not-reached", Kind::Refused;
    /// `--tail fail`, and the log has v2 writes after the commit index.
    TailPresent = "tail-present", Kind::Refused;
    /// `--up-to-index` names an index at which the replay cannot stop.
    IndexNotReached = "index-not-reached", Kind::Refused;
    /// `--ttl fail`, and keys have a TTL.
    TtlPresent = "ttl-present", Kind::Refused;
    /// Keys have a TTL, and the source does not prove a time of its last write.
    TimeUnknown = "time-unknown", Kind::Refused;
    /// `--auth fail`, and the source has users or roles.
    AuthPresent = "auth-present", Kind::Refused;
    /// Anonymous clients would lose rights, because v3 has none for them.
    GuestRights = "guest-rights", Kind::Refused;
    /// v3 cannot represent the users or roles.
    AuthInvalid = "auth-invalid", Kind::Refused;
    /// A rule cannot be applied to a key that it matches.
    RulesFailed = "rules-failed", Kind::Refused;
    /// The transformer failed, or its pairs cannot be written.
    TransformerFailed = "transformer-failed", Kind::Refused;
    /// A name or value is not UTF-8, but only text can be sent.
    NotUtf8 = "not-utf8", Kind::Refused;
    /// `--strict` refuses a loss, or a warning about data.
    Strict = "strict", Kind::Refused;
    /// A server of etcd cannot be reached, or does not answer in time.
    Unreachable = "unreachable", Kind::Refused;
    /// A cluster refuses the user or the password, or the v2 user lacks a right.
    LoginFailed = "login-failed", Kind::Refused;
    /// The v3 user lacks a right.
    V3Denied = "v3-denied", Kind::Refused;
    /// The v3 cluster has no space, and accepts no writes.
    NoSpace = "no-space", Kind::Refused;
    /// A request is larger than the v3 cluster accepts.
    RequestTooLarge = "request-too-large", Kind::Refused;
    /// A lease does not exist any more.
    LeaseGone = "lease-gone", Kind::Refused;
    /// The v3 cluster refuses a request for another reason.
    V3Failed = "v3-failed", Kind::Refused;
    /// Another `online` command with the same state is running.
    JobRunning = "job-running", Kind::Refused;
    /// The lock of this `online` command does not exist any more, or another command has it.
    LockLost = "lock-lost", Kind::Refused;
    /// The state in v3 is that of another migration.
    StateDiffers = "state-differs", Kind::Refused;
    /// v3 has no state of a migration.
    StateMissing = "state-missing", Kind::Refused;
    /// v3 has not received all changes of v2.
    Lagging = "lagging", Kind::Refused;
    /// v3 differs from v2, so the switch is refused.
    NotClean = "not-clean", Kind::Refused;
    /// The migration is not over.
    NotSwitched = "not-switched", Kind::Refused;
    /// The migration has conflicts that nobody has accepted.
    ConflictsOpen = "conflicts-open", Kind::Refused;
    /// The output could not be written.
    OutputFailed = "output-failed", Kind::Output;
    /// The written file differs from the expected content.
    VerifyFailed = "verify-failed", Kind::Verify;
    /// The totals do not add up.
    Unbalanced = "unbalanced", Kind::Verify;
}

/// The message for a file that does not exist, as in other programs.
pub(crate) const MISSING: &str = "no such file or directory";

impl Reason {
    /// Returns whether a failure of this reason happened while a file was read.
    fn is_of_reading(self) -> bool {
        self.kind() != Kind::Output && self != Reason::TransformerFailed
    }

    /// Returns the reason for an I/O error of this kind; `self` is the reason for all other kinds.
    fn of_io(self, kind: ErrorKind) -> Reason {
        match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
                if self == Reason::OutputFailed =>
            {
                Reason::NoRoom
            }
            ErrorKind::PermissionDenied if self.is_of_reading() => Reason::PermissionDenied,
            ErrorKind::NotFound | ErrorKind::NotADirectory if self == Reason::Unreadable => Reason::SourceMissing,
            ErrorKind::NotFound | ErrorKind::NotADirectory if self == Reason::Usage => Reason::FileMissing,
            _ => self,
        }
    }
}

/// An error with its reason, file, byte offset, message and hint.
pub struct Error(Box<Inner>);

struct Inner {
    reason: Reason,
    file: Option<PathBuf>,
    offset: Option<ByteOffset>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error whose message says what was expected and what was found.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { reason, file: None, offset: None, message: message.into(), hint: None, source: None }))
    }

    /// Creates an error for a failed operation of the operating system on `file`. If the operation reads, a missing
    /// file or permission has a reason of its own instead of `reason`, because the data is not damaged.
    pub(crate) fn io(reason: Reason, file: &Path, action: &str, source: std::io::Error) -> Self {
        let text = source.to_string();
        // The path of a temporary file is of no use to the operator; only errors from tempfile contain it.
        let why = text.split_once(" at path ").filter(|_| source.get_ref().is_some()).map_or(&*text, |(why, _)| why);
        let message = match source.kind() {
            ErrorKind::NotFound if reason.is_of_reading() => MISSING.to_string(),
            ErrorKind::NotADirectory if reason.is_of_reading() => format!("{MISSING}: a part of its path is a file"),
            ErrorKind::PermissionDenied => {
                let place = if reason.kind() == Kind::Output { file.parent().unwrap_or(file) } else { file };
                let rights = permissions::describe(file, place);
                format!("cannot {action}: {why} ({rights})")
            }
            _ => format!("cannot {action}: {why}"),
        };
        let mut error = Error::new(reason.of_io(source.kind()), message).in_file(file);
        error.0.source = Some(Box::new(source));
        error
    }

    /// Creates an error for a failed operation on an output whose path the caller does not know.
    pub(crate) fn of_output(action: &str, source: &std::io::Error) -> Self {
        Error::new(Reason::OutputFailed.of_io(source.kind()), format!("cannot {action}: {source}"))
    }

    /// Adds the file, unless the error has one. An interruption has no file.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        if matches!(self.reason(), Reason::Interrupted(_)) {
            return self;
        }
        self.0.file.get_or_insert_with(|| file.to_path_buf());
        self
    }

    /// Adds the byte offset, unless the error has one.
    #[must_use]
    pub fn at(mut self, offset: ByteOffset) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Adds `start` to the offset, which a reader counted from the start of a part of the file.
    #[must_use]
    pub(crate) fn counted_from(mut self, start: ByteOffset) -> Self {
        self.0.offset = self.0.offset.map(|offset| start + offset.0);
        self
    }

    /// Puts the context before the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Adds what the operator can do, unless the error has a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Returns the reason.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.0.reason.kind()
    }

    /// Returns what was expected and what was found, without file and offset.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns what the operator can do, if it is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the file, if the error has one.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// Returns the byte offset in [`Error::file`], if the error has one.
    pub fn offset(&self) -> Option<ByteOffset> {
        self.0.offset
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.0.file {
            write!(f, "{}: ", Printable(&file.display().to_string()))?;
        }
        if let Some(offset) = self.0.offset {
            write!(f, "byte {offset}: ")?;
        }
        // One line, even if a key in the message contains a line end.
        write!(f, "{}", Printable(&self.0.message))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.reason.word())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_one_line_with_file_and_offset() {
        let error = Error::new(Reason::Damaged, "expected a\nrecord")
            .at(ByteOffset(17))
            .in_file(Path::new("a\n0.wal"))
            .at(ByteOffset(99));
        assert_eq!(error.to_string(), "a\\n0.wal: byte 17: expected a\\nrecord");
        assert_eq!(error.kind().exit_code(), 3);
    }

    #[test]
    fn a_temporary_name_is_not_shown() {
        let wrapped = tempfile::NamedTempFile::new_in("/nonexistent/dir").unwrap_err();
        let error = Error::io(Reason::OutputFailed, Path::new("r.json"), "write the report", wrapped);
        assert_eq!(error.to_string(), "r.json: cannot write the report: No such file or directory (os error 2)");
    }

    #[test]
    fn operating_system_errors_have_reasons() {
        use ErrorKind::{
            FileTooLarge, Interrupted, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, StorageFull,
        };
        for (reason, kind, expected) in [
            (Reason::Unreadable, PermissionDenied, Reason::PermissionDenied),
            (Reason::ReportUnusable, PermissionDenied, Reason::PermissionDenied),
            (Reason::NotIndexMap, PermissionDenied, Reason::PermissionDenied),
            (Reason::Usage, PermissionDenied, Reason::PermissionDenied),
            (Reason::OutputFailed, PermissionDenied, Reason::OutputFailed),
            (Reason::TransformerFailed, PermissionDenied, Reason::TransformerFailed),
            (Reason::Unreadable, NotFound, Reason::SourceMissing),
            (Reason::Unreadable, NotADirectory, Reason::SourceMissing),
            (Reason::Usage, NotFound, Reason::FileMissing),
            (Reason::ReportUnusable, NotFound, Reason::ReportUnusable),
            (Reason::OutputFailed, NotFound, Reason::OutputFailed),
            (Reason::OutputFailed, StorageFull, Reason::NoRoom),
            (Reason::OutputFailed, QuotaExceeded, Reason::NoRoom),
            (Reason::OutputFailed, FileTooLarge, Reason::NoRoom),
            (Reason::Unreadable, FileTooLarge, Reason::Unreadable),
            (Reason::Unreadable, Interrupted, Reason::Unreadable),
        ] {
            let error = Error::io(reason, Path::new("/proc/no-such-file"), "read", kind.into());
            assert_eq!(error.reason(), expected, "{reason:?} {kind:?}");
            let read = expected.kind() == Kind::Refused
                && reason.kind() != Kind::Output
                && reason != Reason::TransformerFailed;
            assert_eq!(error.message().starts_with(MISSING), read && kind != PermissionDenied, "{error}");
            let says_who = error.message().contains("this process runs as uid");
            assert_eq!(says_who, kind == PermissionDenied, "{error}");
        }
    }

    #[test]
    fn an_interruption_is_in_no_file() {
        let error = Error::new(Reason::Interrupted(2), "interrupted by signal 2").in_file(Path::new("a.snap"));
        assert_eq!(error.to_string(), "interrupted by signal 2");
    }

    #[test]
    fn interrupted_exits_with_the_signal_number() {
        assert_eq!(Reason::Interrupted(1).kind().exit_code(), 129);
        assert_eq!(Reason::Interrupted(2).kind().exit_code(), 130);
        assert_eq!(Reason::Interrupted(15).kind().exit_code(), 143);
    }
}
