//! The topics of `advise`: what v2 data can rely on that v3 does not have, and what to do instead.
//!
//! Each topic has a stable word, and the texts that every finding about it repeats. `docs/codes.md` lists the words, and a test
//! holds it. Must not know how a topic is found, or how it is printed.

use serde::Serialize;

use crate::count::counted;
use crate::words::words;

words! {
    /// The part of the API that a topic belongs to. The text groups findings by it.
    #[derive(PartialOrd, Ord)]
    pub enum Area {
        /// Directories.
        Directories = "directories",
        /// Names of keys.
        Names = "names",
        /// Values.
        Values = "values",
        /// Conditions of writes.
        Conditions = "conditions",
        /// TTLs.
        Ttl = "ttl",
        /// Reads and watches.
        Reads = "reads",
        /// What clients do with a key over time.
        Patterns = "patterns",
        /// Users and roles.
        Auth = "auth",
    }
}

words! {
    /// What the count of a finding counts.
    pub enum Unit {
        /// Directories.
        Directories = "directories",
        /// Keys.
        Keys = "keys",
        /// Keys and directories.
        Nodes = "nodes",
        /// Permissions of roles.
        Permissions = "permissions",
        /// Users.
        Users = "users",
    }
}

impl Unit {
    /// Returns the count with its noun: `1 key`.
    pub(crate) fn counted(self, count: u64) -> String {
        let one = match self {
            Unit::Directories => "directory",
            Unit::Keys => "key",
            Unit::Nodes => "node",
            Unit::Permissions => "permission",
            Unit::Users => "user",
        };
        counted(count, one, self.word())
    }
}

/// What v2 did, what v3 does, and what to do, in one or two sentences each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Guide {
    /// What v2 did.
    pub v2: &'static str,
    /// What v3 does instead.
    pub v3: &'static str,
    /// What to do in v3.
    pub advice: &'static str,
    /// The call that does it: a request of the v3 API, a command of `etcdctl`, or a function of the Go client.
    pub call: &'static str,
}

macro_rules! topics {
    ($(
        $(#[doc = $doc:literal])* $name:ident = $word:literal, $area:ident, $unit:ident {
            v2: $v2:literal, v3: $v3:literal, advice: $advice:literal, call: $call:literal,
        }
    )*) => {
        words! {
            /// The topic of a finding.
            #[derive(PartialOrd, Ord)]
            #[non_exhaustive]
            pub enum Topic {
                $($(#[doc = $doc])* $name = $word,)*
            }
        }

        impl Topic {
            /// Every topic with its meaning, in the order of findings.
            pub const ALL: &'static [(Topic, &'static str)] = &[$((Topic::$name, concat!($($doc),*)),)*];

            /// Returns the part of the API that the topic belongs to.
            pub const fn area(self) -> Area {
                match self { $(Topic::$name => Area::$area,)* }
            }

            /// Returns what the count of a finding counts.
            pub const fn unit(self) -> Unit {
                match self { $(Topic::$name => Unit::$unit,)* }
            }

            /// Returns what to do.
            pub const fn guide(self) -> Guide {
                match self {
                    $(Topic::$name => Guide { v2: $v2, v3: $v3, advice: $advice, call: $call },)*
                }
            }
        }
    };
}

topics! {
    /// Directories with keys or directories in them.
    Directory = "directory", Directories, Directories {
        v2: "A directory is a node of its own, and a read lists one level of it.",
        v3: "v3 has keys only. A range with a prefix returns the keys of all levels.",
        advice: "Read a directory as a prefix that ends with a slash. To see one level, cut each key at its next slash.",
        call: "etcdctl get --prefix --keys-only DIRECTORY/",
    }
    /// Directories without content. Some applications use them as markers.
    EmptyDirectory = "empty-directory", Directories, Directories {
        v2: "A directory exists without content, so it can be a marker.",
        v3: "v3 has no directories: an empty one has no counterpart.",
        advice: "If its existence means something, write a key. `convert --dirs marker` writes an empty key `DIRECTORY/`.",
        call: "Txn: if CreateRevision(DIRECTORY/) == 0 then Put(DIRECTORY/, \"\")",
    }
    /// Requests that create a directory (`dir=true`).
    CreateDirectory = "create-directory", Directories, Directories {
        v2: "`dir=true` creates a directory. It fails if the node exists.",
        v3: "v3 creates nothing for a prefix: the first key below it is enough.",
        advice: "Leave the request out. If it guards against a second creation, create a key only if it does not exist.",
        call: "Txn: if CreateRevision(key) == 0 then Put(key, value)",
    }
    /// Directories with 1,000 or more nodes directly in them.
    LargeDirectory = "large-directory", Directories, Directories {
        v2: "One response lists the whole directory.",
        v3: "A range returns all keys at once too, but it can have a limit. A transaction has at most 128 operations.",
        advice: "Read in pages: ask for a limit, and continue after the last key, at the revision of the first page.",
        call: "etcdctl get --prefix --limit=500 DIRECTORY/, then Range(last key + \\0, range_end, limit, revision)",
    }
    /// Directories whose name begins the name of a sibling, such as `/a` and `/ab`.
    SharedPrefix = "shared-prefix", Directories, Directories {
        v2: "`/a` and `/ab` are different nodes, so a listing of `/a` never has keys of `/ab`.",
        v3: "The prefix `/a` also matches `/ab`, in ranges, watches, deletions and permissions.",
        advice: "End every prefix with a slash.",
        call: "etcdctl get --prefix DIRECTORY/",
    }
    /// Deletions with `recursive=true`.
    RecursiveDelete = "recursive-delete", Directories, Nodes {
        v2: "`recursive=true` deletes a directory with everything below it. Watchers of the directory see one event.",
        v3: "A deletion of a range deletes every key of it at one revision, with one event for each key.",
        advice: "Delete the prefix with its slash, and the key without it if there is one.",
        call: "etcdctl del --prefix DIRECTORY/",
    }
    /// Deletions of a directory without `recursive=true`.
    DirectoryDelete = "directory-delete", Directories, Directories {
        v2: "`dir=true` deletes a directory only if it is empty.",
        v3: "A prefix disappears with its last key, and no request fails because keys remain.",
        advice: "Leave the request out. If it guards something, delete the marker key in a transaction that checks the range.",
        call: "Txn: if CreateRevision(DIRECTORY/, range_end) == 0 then Delete(marker)",
    }
    /// Requests that v2 refused because a node is a file or a directory (errors 102 and 104).
    FileOrDirectory = "file-or-directory", Directories, Nodes {
        v2: "`/a` and `/a/b` cannot both be keys. A request that would need it fails with error 102 or 104.",
        v3: "Both can exist, and no request fails for this reason.",
        advice: "If the application relies on the error, check both names in the transaction that writes.",
        call: "Txn: if CreateRevision(/a) == 0 then Put(/a/b, value)",
    }
    /// Keys with a path element that begins with `_`.
    HiddenKey = "hidden-key", Names, Keys {
        v2: "Listings and watches of a directory leave out names that begin with `_`.",
        v3: "A range with a prefix returns them, and a watch reports them.",
        advice: "Move them under a prefix of their own, or filter them in the client. `convert --map` renames a prefix.",
        call: "etcdctl get --prefix DIRECTORY/, without keys that contain \"/_\"",
    }
    /// Keys that a POST created, with names in the order of their creation.
    InOrderKey = "in-order-key", Names, Keys {
        v2: "A POST to a directory creates a key whose name is the next index.",
        v3: "v3 generates no names. The creation revision of a key has the order.",
        advice: "Choose a unique name, create the key only if it does not exist, and sort by creation revision.",
        call: "Txn: if CreateRevision(key) == 0 then Put(key, value); etcdctl get --prefix --sort-by=CREATE DIRECTORY/",
    }
    /// Requests whose path v2 had to clean, such as `/a//b` or `/a/`.
    UncleanPath = "unclean-path", Names, Keys {
        v2: "`/a/`, `//a` and `/a/.` are other spellings of `/a`.",
        v3: "A key is a string of bytes: each spelling is another key.",
        advice: "Build the names of keys in one place, and clean them there.",
        call: "path.Clean(key) before every request",
    }
    /// Keys that `--map` or `--strip-leading-slash` leaves without a slash at their beginning.
    NoLeadingSlash = "no-leading-slash", Names, Keys {
        v2: "Every key begins with a slash, whether the client writes it or not.",
        v3: "`a` and `/a` are two keys.",
        advice: "Let every client use the new spelling, and grant permissions on it.",
        call: "etcdctl get NAME, not etcdctl get /NAME",
    }
    /// Keys that get the same name through `--map` or `--strip-leading-slash`.
    EqualName = "equal-name", Names, Keys {
        v2: "The keys have different names.",
        v3: "The rules give them one name, and `convert` refuses such rules.",
        advice: "Give each prefix a name of its own.",
        call: "etcdlift convert --map OLD=NEW",
    }
    /// Keys whose name or value has bytes that are not UTF-8, or U+FFFD in their place.
    InvalidUtf8 = "invalid-utf8", Names, Keys {
        v2: "The API is JSON, so it shows U+FFFD for bytes that are not UTF-8. A snapshot loses the bytes.",
        v3: "Keys and values are bytes, and v3 returns them unchanged.",
        advice: "Write such values again from their origin. Do not encode binary values any more.",
        call: "Put(key, bytes)",
    }
    /// Keys with an empty value.
    EmptyValue = "empty-value", Values, Keys {
        v2: "`prevValue` with an empty text compares nothing, so no condition asks for an empty value.",
        v3: "An empty value is a value. A comparison with it fails if the key does not exist.",
        advice: "To ask whether a key exists, compare its creation revision, not its value.",
        call: "Txn: if CreateRevision(key) != 0 then Get(key)",
    }
    /// Keys whose name and value exceed a v3 request of 1.5 MiB, and requests that wrote such a key.
    LargeValue = "large-value", Values, Keys {
        v2: "A request has up to 10 MB.",
        v3: "A request has at most 1.5 MiB (`--max-request-bytes`). etcd serves the converted key, but clients cannot write it again.",
        advice: "Split the value, or store it elsewhere and keep its address in etcd.",
        call: "etcd --max-request-bytes BYTES, on every member",
    }
    /// Writes that compare the value or index of a key before they change it.
    CompareAndSwap = "compare-and-swap", Conditions, Keys {
        v2: "`prevValue` and `prevIndex` change a key only if they match. Otherwise the request fails with error 101.",
        v3: "A transaction compares and writes. A comparison that fails is no error: `succeeded` is false.",
        advice: "Use a transaction, and read the current state in its `else` part.",
        call: "Txn: if Value(key) == OLD then Put(key, NEW) else Get(key)",
    }
    /// Deletions that compare the value or index of a key.
    CompareAndDelete = "compare-and-delete", Conditions, Keys {
        v2: "`prevValue` and `prevIndex` delete a key only if they match.",
        v3: "A transaction compares and deletes.",
        advice: "Use a transaction with a comparison. Its `else` part runs if the key has changed.",
        call: "Txn: if ModRevision(key) == R then Delete(key) else Get(key)",
    }
    /// Writes and deletions with `prevIndex`.
    CompareIndex = "compare-index", Conditions, Keys {
        v2: "`prevIndex` is the modified index of the node.",
        v3: "The mod revision takes its place. `convert` gives a key the number of its modified index, unless told otherwise.",
        advice: "Compare the mod revision. Several keys of one transaction share a revision.",
        call: "Txn: if ModRevision(key) == R then Put(key, value)",
    }
    /// Writes with `prevExist=false`.
    CreateOnly = "create-only", Conditions, Keys {
        v2: "`prevExist=false` creates a key, and fails with error 105 if it exists.",
        v3: "Put always creates or replaces.",
        advice: "Compare the creation revision with 0, which means that the key does not exist.",
        call: "Txn: if CreateRevision(key) == 0 then Put(key, value) else Get(key)",
    }
    /// Writes with `prevExist=true`.
    UpdateOnly = "update-only", Conditions, Keys {
        v2: "`prevExist=true` changes a key, and fails with error 100 if it does not exist.",
        v3: "Put always creates or replaces.",
        advice: "Compare the creation revision with 0, and write only if it differs.",
        call: "Txn: if CreateRevision(key) != 0 then Put(key, value)",
    }
    /// Keys with a TTL of their own.
    TtlKey = "ttl-key", Ttl, Keys {
        v2: "Every key has its own TTL, and a write without a TTL removes it.",
        v3: "A key expires with its lease. Keys can share a lease, and a write without the lease detaches the key.",
        advice: "Grant one lease for all keys of a client, not one for each key. `--ignore-lease` keeps the lease of a key.",
        call: "LeaseGrant(TTL), then Put(key, value, lease); etcdctl put --lease=ID",
    }
    /// Directories with a TTL of their own.
    TtlDirectory = "ttl-directory", Ttl, Directories {
        v2: "A directory expires with everything below it, also with keys that are created later.",
        v3: "Only keys have leases. A new key below a prefix has none unless its writer attaches it.",
        advice: "Use one lease for all keys below the prefix, and give its ID to every client that writes there.",
        call: "LeaseGrant(TTL), then Put(key, value, lease) for each key; LeaseRevoke(ID) deletes them all",
    }
    /// Nodes with a TTL inside a directory with a TTL.
    NestedTtl = "nested-ttl", Ttl, Nodes {
        v2: "The node expires at the earlier of the two instants.",
        v3: "A key has one lease. `convert` gives it the earlier instant.",
        advice: "Decide which lease a key belongs to. A client that ends both ways deletes the key itself.",
        call: "Put(key, value, lease)",
    }
    /// Writes with a TTL of at most 5 seconds, as far as the log shows its clock.
    ShortTtl = "short-ttl", Ttl, Nodes {
        v2: "A TTL of 1 second is possible.",
        v3: "The minimum TTL of a lease is 2 seconds with default timeouts. Leases start again after a change of the leader.",
        advice: "Use a longer TTL with keep-alives, or delete the key when its work is done.",
        call: "LeaseGrant(10), then LeaseKeepAlive(ID)",
    }
    /// Writes with `refresh=true`.
    Refresh = "refresh", Ttl, Nodes {
        v2: "`refresh=true` sets the TTL again and does not notify watchers.",
        v3: "A keep-alive renews the lease with all its keys. It makes no revision and no event.",
        advice: "Keep the lease alive in place of each refresh.",
        call: "LeaseKeepAlive(ID); etcdctl lease keep-alive ID",
    }
    /// Times when a SYNC of the log expired nodes.
    Expiry = "expiry", Ttl, Keys {
        v2: "Watchers see the action `expire`, which differs from `delete`.",
        v3: "Watchers see a deletion. Nothing says that a lease has ended.",
        advice: "If the difference matters, ask for the lease of the previous pair: it no longer exists after an expiry.",
        call: "Watch(key, prev_kv), then LeaseTimeToLive(prev_kv.lease)",
    }
    /// Reads with `quorum=true`.
    QuorumRead = "quorum-read", Reads, Nodes {
        v2: "Only `quorum=true` reads the latest state, through the log. Other reads can be stale.",
        v3: "Every read is linearizable by default, and no read goes through the log.",
        advice: "Leave the option out. Choose serializable reads where a stale answer is enough.",
        call: "Range(key); etcdctl get --consistency=s for a serializable read",
    }
    /// Reads with `quorum=true` and `sorted=true`.
    SortedRead = "sorted-read", Reads, Nodes {
        v2: "`sorted=true` sorts a listing by name. Other listings have no order.",
        v3: "A range is in the byte order of keys, and can be sorted by value, version or revision.",
        advice: "Leave the option out, or name the order.",
        call: "etcdctl get --prefix --sort-by=CREATE --order=ASCEND DIRECTORY/",
    }
    /// More changes than the 1,000 that v2 remembers for watchers.
    EventWindow = "event-window", Reads, Nodes {
        v2: "A watcher can ask for the last 1,000 events. An older `waitIndex` fails with error 401.",
        v3: "A watcher can start at any revision after the last compaction. No event is lost until then.",
        advice: "Read a prefix, and watch from the next revision. After `ErrCompacted`, read it again.",
        call: "etcdctl get --prefix DIRECTORY/, then etcdctl watch --prefix --rev=R+1 DIRECTORY/",
    }
    /// Keys with the modified index of another key.
    SharedIndex = "shared-index", Reads, Keys {
        v2: "An index belongs to one change, unless a restore or a restart counted it again.",
        v3: "`convert` puts them at one revision, as one transaction does.",
        advice: "Do not use a revision as the name of a change: use the key and its mod revision.",
        call: "Range(prefix, min_mod_revision = R, max_mod_revision = R)",
    }
    /// Keys that look like locks or elections: 3 or more writes, at least half of them compared, with a TTL.
    Lock = "lock", Patterns, Keys {
        v2: "Clients create the key with a TTL, renew it with `prevValue` or `prevIndex`, and delete it.",
        v3: "The client library has locks and elections. Waiters form a queue, and the lock ends with its session.",
        advice: "Use the recipe. Check ownership of the lock in each transaction that it protects.",
        call: "concurrency.NewMutex(session, prefix) or concurrency.NewElection(session, prefix); etcdctl lock, etcdctl elect",
    }
    /// Keys that several writers update with comparisons: 3 or more writes, at least half of them compared, without a TTL.
    OptimisticUpdate = "optimistic-update", Patterns, Keys {
        v2: "Clients read the key, and write it with `prevIndex` or `prevValue` until that succeeds.",
        v3: "A transaction does the same, also over several keys.",
        advice: "Retry on `succeeded == false` with the pair that the `else` part returned, or use software transactions.",
        call: "Txn: if ModRevision(key) == R then Put(key, NEW) else Get(key); concurrency.NewSTM",
    }
    /// Nodes that clients keep alive: 3 or more writes with a TTL, at least half of all writes, and no lock.
    Heartbeat = "heartbeat", Patterns, Nodes {
        v2: "The client writes the node again before its TTL ends. Each write goes through the log.",
        v3: "A keep-alive needs no write: the leader renews the lease.",
        advice: "Open a session, and attach all keys of the client to its lease.",
        call: "concurrency.NewSession(client, concurrency.WithTTL(TTL)), then Put(key, value, session.Lease())",
    }
    /// Directories with 3 or more in-order keys, or as many POSTs.
    Queue = "queue", Patterns, Directories {
        v2: "Producers POST to a directory, and consumers delete the key with the lowest name.",
        v3: "v3 has no POST. The client library has a queue and a priority queue.",
        advice: "Use the recipe: consumers delete the key with the lowest creation revision in a transaction.",
        call: "recipe.NewQueue(client, prefix); Txn: if ModRevision(key) == R then Delete(key)",
    }
    /// Users of the v2 auth store.
    User = "user", Auth, Users {
        v2: "Every request has user and password. Permissions apply to reads and writes of paths.",
        v3: "A client logs in once and gets a token. Permissions apply to ranges, also in transactions and watches.",
        advice: "Give user and password to the client library. `convert` keeps names and password hashes.",
        call: "etcdctl --user NAME:PASSWORD get KEY",
    }
    /// Users without a role, or with a role that does not exist.
    UserWithoutRole = "user-without-role", Auth, Users {
        v2: "The user may do nothing. Its clients often leave the user out, and work with the permissions of guest.",
        v3: "The user can log in, but can neither read nor write, and v3 has no guest.",
        advice: "Grant a role, or delete the user.",
        call: "etcdctl user grant-role USER ROLE",
    }
    /// Permissions of the role guest while authentication is on.
    GuestAccess = "guest-access", Auth, Permissions {
        v2: "A request without a user has the permissions of the role guest.",
        v3: "v3 has no guest: without a login every request fails while authentication is on.",
        advice: "Create a user for these clients, with a role for what they need.",
        call: "etcdctl user add NAME; etcdctl role grant-permission ROLE read --prefix DIRECTORY/",
    }
    /// Permissions with a pattern that ends with `*`.
    WildcardPermission = "wildcard-permission", Auth, Permissions {
        v2: "`/a*` matches every path that begins with `/a`.",
        v3: "A permission is a range of keys. The permissions of a user must cover the whole range of a request.",
        advice: "Grant prefixes. `convert` makes a range of each pattern.",
        call: "etcdctl role grant-permission ROLE readwrite --prefix DIRECTORY/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_grouped_by_area_and_no_word_occurs_twice() {
        let areas: Vec<Area> = Topic::ALL.iter().map(|(topic, _)| topic.area()).collect();
        assert!(areas.is_sorted());
        let mut words: Vec<&str> = Topic::ALL.iter().map(|(topic, _)| topic.word()).collect();
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn every_sentence_of_a_guide_has_at_most_25_words() {
        for (topic, doc) in Topic::ALL {
            let Guide { v2, v3, advice, call } = topic.guide();
            for sentence in [v2, v3, advice, doc].iter().flat_map(|text| text.split(". ")) {
                assert!(sentence.split_whitespace().count() <= 25, "{topic}: {sentence}");
            }
            assert!(!call.is_empty() && [v2, v3, advice].iter().all(|text| text.ends_with('.')), "{topic}");
        }
    }
}
