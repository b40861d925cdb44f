//! Examples and exit statuses of `online` and its commands.

use crate::cli::epilog::Epilog;
#[cfg(test)]
use crate::cli::epilog::ONLINE;

const INTERNAL: (&str, &str) = ("1", "an internal error of etcdlift");
const USAGE: (&str, &str) = ("2", "the command line is wrong");
const DAMAGED: (&str, &str) = ("3", "the source is damaged or cannot be read");
const REFUSED: (&str, &str) = ("5", "refused: no connection, no rights, no space, the lock, or a precondition");
const UNWRITTEN: (&str, &str) = ("6", "a file or standard output cannot be written");
const INTERRUPTED: (&str, &str) = ("130", "interrupted (143: terminated, 129: the terminal hung up)");

impl Epilog {
    /// Returns the epilog of a command of `online`, by its name.
    #[cfg(test)]
    pub(in crate::cli) fn of_online(command: &str) -> Epilog {
        match command {
            "copy" => COPY,
            "status" => STATUS,
            "verify" => VERIFY,
            "switch" => SWITCH,
            "undo" => UNDO,
            "finish" => FINISH,
            _ => ONLINE,
        }
    }
}

/// The epilog of `online copy`.
pub(super) const COPY: Epilog = Epilog {
    examples: &[
        (
            "Follow the v2 API instead of a directory",
            "etcdlift online copy --v2-endpoints http://old:2379 --endpoints http://new:2379",
        ),
        (
            "Copy once, with at most 1000 keys per second",
            "etcdlift online copy default.etcd --endpoints http://v3:2379 --once --rate-limit 1000",
        ),
        (
            "Use TLS, a user and renamed keys",
            "etcdlift online copy default.etcd --endpoints https://v3:2379 --cacert ca.pem \\\n  --user root --password-file password --map /services=/prod/services",
        ),
    ],
    statuses: &[
        ("0", "v3 has everything (--once)"),
        INTERNAL,
        USAGE,
        DAMAGED,
        REFUSED,
        ("8", "v3 has everything except the changes that are listed as conflicts (--once)"),
        INTERRUPTED,
    ],
};

/// The epilog of `online status`.
pub(super) const STATUS: Epilog = Epilog {
    examples: &[
        ("Show the lag and the conflicts", "etcdlift online status default.etcd --endpoints http://v3:2379"),
        ("Print all conflicts as lines of JSON", "etcdlift online status --endpoints http://v3:2379 --conflicts -"),
    ],
    statuses: &[("0", "done"), INTERNAL, USAGE, DAMAGED, REFUSED, UNWRITTEN, INTERRUPTED],
};

/// The epilog of `online verify`.
pub(super) const VERIFY: Epilog = Epilog {
    examples: &[
        ("Compare v2 and v3", "etcdlift online verify default.etcd --endpoints http://v3:2379"),
        (
            "Also write the v3 revision of each v2 index",
            "etcdlift online verify default.etcd --endpoints http://v3:2379 --index-map map.redb",
        ),
    ],
    statuses: &[
        ("0", "v3 has what v2 has, or leads the key"),
        INTERNAL,
        USAGE,
        DAMAGED,
        REFUSED,
        UNWRITTEN,
        ("7", "keys differ; each is named"),
        INTERRUPTED,
    ],
};

/// The epilog of `online switch`.
pub(super) const SWITCH: Epilog = Epilog {
    examples: &[
        ("Switch, if v3 has everything", "etcdlift online switch default.etcd --endpoints http://v3:2379"),
        (
            "Switch once v2 has not changed for 10 s",
            "etcdlift online switch default.etcd --endpoints http://v3:2379 --quiet-for 10s",
        ),
    ],
    statuses: &[
        ("0", "the switch is on"),
        INTERNAL,
        USAGE,
        DAMAGED,
        ("5", "refused: changes of v2 are missing in v3, keys differ, no connection, or no rights"),
        UNWRITTEN,
        (
            "8",
            "the switch is on, and v2 changed later; each change that is known to be committed is listed as a conflict",
        ),
        INTERRUPTED,
    ],
};

/// The epilog of `online undo`.
pub(super) const UNDO: Epilog = Epilog {
    examples: &[("Go back to v2", "etcdlift online undo default.etcd --endpoints http://v3:2379")],
    statuses: &[("0", "done"), INTERNAL, USAGE, DAMAGED, REFUSED, UNWRITTEN, INTERRUPTED],
};

/// The epilog of `online finish`.
pub(super) const FINISH: Epilog = Epilog {
    examples: &[
        ("Remove the state after the switch", "etcdlift online finish --endpoints http://v3:2379"),
        (
            "Save the conflicts, and finish in spite of them",
            "etcdlift online finish --endpoints http://v3:2379 --conflicts conflicts.ndjson --accept-conflicts",
        ),
    ],
    statuses: &[
        ("0", "done"),
        INTERNAL,
        USAGE,
        ("5", "refused: the switch is off, conflicts are not accepted, or no connection"),
        UNWRITTEN,
        INTERRUPTED,
    ],
};
