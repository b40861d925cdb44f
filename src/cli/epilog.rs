//! What follows the options in the help and in the manual page of each command: examples, and exit statuses.
//!
//! Plain text, separate from clap, so that both forms are made from it. Must not know any option's definition.

use clap::builder::styling::Style;

/// Examples and exit statuses of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epilog {
    /// What each example does, and its command, in lines.
    pub(super) examples: &'static [(&'static str, &'static str)],
    /// Each status, and what it means.
    pub(super) statuses: &'static [(&'static str, &'static str)],
}

impl Epilog {
    /// Returns the text below the options of `--help`.
    pub(super) fn help(&self) -> String {
        let heading = Style::new().bold().underline();
        let mut text = format!("{heading}Examples:{heading:#}\n");
        for (what, command) in self.examples {
            text.push_str(&format!("  {what}:\n    {}\n\n", command.replace('\n', "\n    ")));
        }
        text.push_str(&format!("{heading}Exit status:{heading:#}\n"));
        let lines: Vec<String> = self.statuses.iter().map(|(code, what)| format!("  {code:<3}  {what}")).collect();
        text + &lines.join("\n")
    }

    /// Returns the epilog of a command, by its name; that of etcdlift itself for any other name.
    pub(super) fn of(command: &str) -> Epilog {
        match command {
            "convert" => CONVERT,
            "inspect" => INSPECT,
            "compare" => COMPARE,
            "check" => CHECK,
            "advise" => ADVISE,
            "clean" => CLEAN,
            "verify" => VERIFY,
            "export" => EXPORT,
            "lookup" => LOOKUP,
            "completions" => COMPLETIONS,
            "man" => MAN,
            #[cfg(feature = "online")]
            "online" => ONLINE,
            _ => ETCDLIFT,
        }
    }
}

const INTERNAL: (&str, &str) = ("1", "an internal error of etcdlift");
const USAGE: (&str, &str) = ("2", "the command line is wrong");
const DAMAGED: (&str, &str) = ("3", "the source is damaged or cannot be read to its end");
const UNWRITTEN: (&str, &str) = ("6", "the output cannot be written");
const INTERRUPTED: (&str, &str) = ("130", "interrupted (143: terminated, 129: the terminal hung up)");

/// The epilog of etcdlift itself.
pub(super) const ETCDLIFT: Epilog = Epilog {
    examples: &[
        ("Show what a data directory contains", "etcdlift inspect default.etcd"),
        ("Convert it", "etcdlift convert default.etcd -o out.db --report report.json"),
        ("Check the output", "etcdlift verify out.db --source default.etcd --report report.json"),
    ],
    statuses: &[
        ("0", "done and verified"),
        INTERNAL,
        USAGE,
        DAMAGED,
        ("4", "nothing to convert, or `lookup` found nothing"),
        ("5", "refused: a file is missing, a precondition fails, a full disk, or a policy says fail"),
        ("6", "the output or a sidecar file cannot be written; no file remains"),
        ("7", "verification failed, `verify` or `compare` found a difference, or `check` a blocker"),
        ("8", "done and verified, but possibly incomplete; each loss is named"),
        INTERRUPTED,
    ],
};

/// The epilog of `convert`.
pub(super) const CONVERT: Epilog = Epilog {
    examples: &[
        (
            "Convert a data directory, and write a report and a ledger",
            "etcdlift convert default.etcd -o out.db \\\n  --report report.json --ledger ledger.ndjson",
        ),
        (
            "Convert an old backup of three members without expiring its keys",
            "etcdlift convert m0.etcd m1.etcd m2.etcd -o out.db --as-of last-write",
        ),
        (
            "Show what a conversion for etcd 3.5 would do, with renamed keys",
            "etcdlift convert default.etcd -o out.db --dry-run --target-version 3.5 \\\n  --exclude /tmp --map /services=/prod/services",
        ),
    ],
    statuses: &[
        ("0", "done and verified"),
        INTERNAL,
        USAGE,
        ("3", "the source is damaged, cannot be read to its end, or changed meanwhile"),
        ("4", "nothing to convert: the source has no v2 keys, or the options leave none"),
        ("5", "refused: a file is missing, a precondition fails, a full disk, or a policy says fail"),
        ("6", "the output or a sidecar file cannot be written; no file remains"),
        ("7", "verification failed; no file remains"),
        ("8", "done and verified, but possibly incomplete; each loss is named"),
        INTERRUPTED,
    ],
};

/// The epilog of `inspect`.
pub(super) const INSPECT: Epilog = Epilog {
    examples: &[
        ("Show what a data directory contains, with every key", "etcdlift inspect default.etcd --keys"),
        (
            "List the v2 writes of its log after raft index 1000, as lines of JSON",
            "etcdlift inspect default.etcd --wal --kind write --from-index 1001 --json",
        ),
        ("Show the revision and the hashes of a snapshot", "etcdlift inspect snapshot.db"),
    ],
    statuses: &[
        ("0", "done"),
        INTERNAL,
        USAGE,
        DAMAGED,
        ("5", "refused: not etcd data, a file is missing, or a running etcd uses it"),
        ("6", "standard output cannot be written"),
        INTERRUPTED,
    ],
};

/// The epilog of `compare`.
pub(super) const COMPARE: Epilog = Epilog {
    examples: &[
        ("Check whether three members have converged", "etcdlift compare m0.etcd m1.etcd m2.etcd"),
        ("Print the comparison as JSON", "etcdlift compare m0.etcd m1.etcd m2.etcd --json"),
    ],
    statuses: &[
        ("0", "converged, or the members differ by entries without effect only"),
        INTERNAL,
        USAGE,
        ("3", "every source is damaged, or a file changed while it was read"),
        ("5", "refused: not one cluster, a file is missing, or a running etcd uses it"),
        ("6", "standard output cannot be written"),
        ("7", "the members differ, or damage prevents the proof that they are equal"),
        INTERRUPTED,
    ],
};

/// The epilog of `check`.
pub(super) const CHECK: Epilog = Epilog {
    examples: &[
        ("Check whether etcd 3.6 would start on a data directory", "etcdlift check default.etcd"),
        (
            "Check three members for etcd 3.7, and print the result as JSON",
            "etcdlift check m0.etcd m1.etcd m2.etcd --target-version 3.7 --json",
        ),
        ("Check a member that has its log elsewhere", "etcdlift check m0.etcd --wal-dir /wal/m0"),
    ],
    statuses: &[
        ("0", "etcd starts on every source, and no v2 data is lost"),
        INTERNAL,
        USAGE,
        ("3", "no source is blocked, but one is damaged or changed while it was read"),
        ("5", "no source is blocked, but one has no v3 data, is missing, or is in use"),
        ("6", "standard output cannot be written"),
        ("7", "etcd does not start on a source; each blocker is listed"),
        ("8", "etcd starts without v2 data, or a source is possibly incomplete"),
        INTERRUPTED,
    ],
};

/// The epilog of `advise`.
pub(super) const ADVISE: Epilog = Epilog {
    examples: &[
        ("List what the data and the log rely on", "etcdlift advise default.etcd"),
        ("Read three members as one, and print JSON", "etcdlift advise m0.etcd m1.etcd m2.etcd --json"),
        ("Also judge the names that a conversion would give", "etcdlift advise default.etcd --strip-leading-slash"),
    ],
    statuses: &[
        ("0", "done, with or without findings"),
        INTERNAL,
        USAGE,
        DAMAGED,
        ("5", "refused: no v2 data, a file is missing, not one cluster, or a running etcd uses it"),
        ("6", "standard output cannot be written"),
        INTERRUPTED,
    ],
};

/// The epilog of `clean`.
pub(super) const CLEAN: Epilog = Epilog {
    examples: &[
        ("Copy a data directory so that etcd 3.6 starts on it", "etcdlift clean default.etcd -o clean.etcd"),
        (
            "Copy three members into clean/NAME, and save their v2 keys",
            "etcdlift clean m0.etcd m1.etcd m2.etcd -o clean --save-v2 keys.ndjson",
        ),
        ("Copy a member that has its log elsewhere", "etcdlift clean m0.etcd --wal-dir /wal/m0 -o clean.etcd"),
    ],
    statuses: &[
        ("0", "done and checked"),
        INTERNAL,
        USAGE,
        ("3", "a source is damaged, or its log does not continue from its v3 backend"),
        ("5", "refused: a precondition fails, a later version, an output exists, or a full disk"),
        ("6", "the output or another file cannot be written; no file remains"),
        ("7", "the copy did not pass its check; no file remains"),
        ("8", "done and checked, but the file of --save-v2 is possibly incomplete"),
        INTERRUPTED,
    ],
};

/// The epilog of `verify`.
pub(super) const VERIFY: Epilog = Epilog {
    examples: &[
        ("Check the structure of a snapshot and its hashes", "etcdlift verify out.db"),
        (
            "Compare it with its report and, key by key, with its source",
            "etcdlift verify out.db --report report.json --source default.etcd",
        ),
        ("Print the result as JSON", "etcdlift verify out.db --json"),
    ],
    statuses: &[
        ("0", "the file is valid and equal to what it was compared with"),
        INTERNAL,
        USAGE,
        ("3", "the source is damaged, or a file cannot be read"),
        ("5", "refused: a file is missing, or a precondition fails"),
        ("6", "standard output cannot be written"),
        ("7", "the file is invalid, or differs; each difference is named"),
        INTERRUPTED,
    ],
};

/// The epilog of `export`.
pub(super) const EXPORT: Epilog = Epilog {
    examples: &[
        ("Print the keys of a data directory as lines of JSON", "etcdlift export default.etcd -o -"),
        (
            "Write the v3 keys below /services as a redb table",
            "etcdlift export out.db -o services.redb --format redb --include /services/",
        ),
        (
            "Export the state of three members at raft index 5000",
            "etcdlift export m0.etcd m1.etcd m2.etcd -o keys.ndjson --up-to-index 5000",
        ),
    ],
    statuses: &[
        ("0", "done"),
        INTERNAL,
        USAGE,
        DAMAGED,
        ("4", "nothing to export: there are no keys, or the options leave none"),
        ("5", "refused: a file is missing, a precondition fails, or a full disk"),
        UNWRITTEN,
        ("7", "the written file differs from what was exported"),
        ("8", "done, but possibly incomplete; each loss is named"),
        INTERRUPTED,
    ],
};

/// The epilog of `lookup`.
pub(super) const LOOKUP: Epilog = Epilog {
    examples: &[
        ("Find the v3 revision of v2 index 42", "etcdlift lookup map.redb --v2-index 42"),
        ("Find the key that has v3 revision 42", "etcdlift lookup map.redb --revision 42"),
        ("Find the revision and the index of a key, as JSON", "etcdlift lookup map.redb --key /config/motd --json"),
    ],
    statuses: &[
        ("0", "found"),
        INTERNAL,
        USAGE,
        ("3", "the index map is damaged or cannot be read"),
        ("4", "not found; the output says what is known"),
        ("5", "the file does not exist, or is not an index map"),
        ("6", "standard output cannot be written"),
    ],
};

/// The epilog of `online` itself.
#[cfg(feature = "online")]
pub(super) const ONLINE: Epilog = Epilog {
    examples: &[
        (
            "Copy a running member into a v3 cluster, and carry its changes",
            "etcdlift online copy default.etcd --endpoints http://v3:2379",
        ),
        ("Show how far it is", "etcdlift online status default.etcd --endpoints http://v3:2379"),
        ("End the migration", "etcdlift online switch default.etcd --endpoints http://v3:2379"),
    ],
    statuses: &[
        ("0", "done"),
        INTERNAL,
        USAGE,
        ("3", "the source is damaged or cannot be read"),
        ("5", "refused: no connection, no rights, no space, the lock, or a precondition"),
        ("6", "a file or standard output cannot be written"),
        ("7", "`verify` found a difference"),
        INTERRUPTED,
    ],
};

/// The epilog of `completions`.
pub(super) const COMPLETIONS: Epilog = Epilog {
    examples: &[
        ("Load completions into this bash", "source <(etcdlift completions bash)"),
        ("Install completions for fish", "etcdlift completions fish > ~/.config/fish/completions/etcdlift.fish"),
    ],
    statuses: &[("0", "done"), USAGE, ("6", "standard output cannot be written")],
};

/// The epilog of `man`.
pub(super) const MAN: Epilog = Epilog {
    examples: &[
        ("Read the manual page of `convert`", "man <(etcdlift man convert)"),
        ("Install the manual page of etcdlift", "etcdlift man > /usr/local/share/man/man1/etcdlift.1"),
    ],
    statuses: &[("0", "done"), USAGE, ("6", "standard output cannot be written")],
};
