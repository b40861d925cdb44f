//! What an operator and clients do with a new cluster: writes, transactions, leases, compaction, defragmentation, a saved
//! snapshot, restarts, and a member that joins. Each step keeps the expected content up to date.

use std::path::Path;

use serde_json::Value;

use super::check::{self, Content, until};
use crate::common::cluster::{Cluster, Seat, initial_cluster, seats};
use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{Peers, Version};
use crate::common::rows::Row;
use crate::common::run::{bounded, run};

/// Puts, a transaction, deletes, and leases: of a client, and of the conversion. Then compaction and defragmentation.
pub(super) fn use_it(cluster: &Cluster, content: &mut Content) {
    let (first, last) = (cluster.ctl(0), cluster.ctl(cluster.members.len() - 1));
    let start = content.revision;
    assert_eq!(first.put("/etcdlift/boot", "one"), start + 1);
    let answer = last.txn(
        "mod(\"/etcdlift/boot\") > \"0\"\n\nput /etcdlift/txn yes\ndel /etcdlift/boot\n\nput /etcdlift/txn no\n\n",
    );
    assert_eq!((&answer["succeeded"], answer["header"]["revision"].as_u64()), (&true.into(), Some(start + 2)));
    content.revision = start + 2;
    content.rows.push(row("/etcdlift/txn", "yes", content.revision));

    let lease = first.json(&["lease", "grant", "600"])["ID"].as_i64().unwrap();
    assert!(!content.leases.contains_key(&lease));
    let id = format!("{lease:x}");
    last.does(&["put", "--lease", &id, "/etcdlift/lease", "x"]);
    let (granted, _, keys) = first.time_to_live(lease);
    assert_eq!((granted, keys), (600, vec![b"/etcdlift/lease".to_vec()]));
    last.does(&["lease", "revoke", &id]);
    content.revision += 2;
    converted_leases(cluster, content);

    let victim = content.rows.iter().position(|row| row.key.is_ascii() && row.key.starts_with(b"/")).unwrap();
    let victim = content.rows.remove(victim);
    content.revision += 1;
    assert_eq!(last.del(str::from_utf8(&victim.key).unwrap()), (content.revision, 1));

    first.compaction(content.revision);
    content.revision += 1;
    assert_eq!(last.put("/etcdlift/compacted", "x"), content.revision);
    content.rows.push(row("/etcdlift/compacted", "x", content.revision));
    (0..cluster.members.len()).for_each(|at| cluster.ctl(at).defrag());
}

/// A lease that the conversion made can be renewed, and its keys go when it does.
fn converted_leases(cluster: &Cluster, content: &mut Content) {
    let ctl = cluster.ctl(cluster.members.len() - 1);
    if let Some((renewed, seconds)) = content.leases.last_key_value() {
        let answer = ctl.json(&["lease", "keep-alive", "--once", &format!("{renewed:x}")]);
        assert_eq!(answer["TTL"].as_i64(), Some(*seconds), "{answer}");
    }
    let Some((revoked, _)) = content.leases.pop_first() else { return };
    ctl.does(&["lease", "revoke", &format!("{revoked:x}")]);
    content.rows.retain(|row| row.lease != revoked);
    // All keys of a lease go in one revision.
    content.revision += 1;
}

fn row(key: &str, value: &str, revision: u64) -> Row {
    Row::of_file(key.as_bytes(), value.as_bytes(), revision, revision)
}

/// A snapshot that etcdctl saves is whole, by the release's own tool.
pub(super) fn save(peers: &Peers, version: Version, cluster: &Cluster, content: &Content, folder: &Path) {
    let file = folder.join("saved.db");
    cluster.ctl(0).save(&file);
    let status = match version {
        Version::V3_4 => {
            let mut command = bounded(&peers.etcdctl_3_4(), 60);
            run(command.env("ETCDCTL_API", "3").args(["snapshot", "status", "-w", "json"]).arg(&file))
        }
        _ => peers.status(version, &file),
    };
    let status = status.success().json();
    assert_eq!(status["revision"].as_u64(), Some(content.revision), "{status}");
}

/// One member stops and comes back. It misses a write if the others have a quorum without it, and compares its data with theirs
/// before it serves. Then all members lose power.
pub(super) fn restart(cluster: &mut Cluster, version: Version, content: &mut Content) {
    let last = cluster.members.len() - 1;
    cluster.stop(last);
    if last > 1 {
        check::leader(cluster);
        content.revision += 1;
        assert_eq!(cluster.ctl(0).put("/etcdlift/missed", "x"), content.revision);
        content.rows.push(row("/etcdlift/missed", "x", content.revision));
    }
    cluster.spawn(last, corrupt_check(version));
    cluster.wait(last);
    check::content(cluster, content);
    let hash = check::hash_kv(cluster);
    cluster.crash();
    cluster.start(&[]);
    check::leader(cluster);
    check::content(cluster, content);
    assert_eq!(check::hash_kv(cluster), hash);
}

/// The option for that comparison. With it a member waits for the others, so all members cannot start at the same time.
fn corrupt_check(version: Version) -> &'static [&'static str] {
    match version {
        Version::V3_4 | Version::V3_5 => &["--experimental-initial-corrupt-check"],
        Version::V3_6 | Version::V3_7 => &["--feature-gates=InitialCorruptCheck=true"],
    }
}

/// A further member starts empty and gets everything from the others. It begins as a learner where it would otherwise count
/// for the quorum at once and stop all writes: next to a single member.
pub(super) fn join(cluster: &mut Cluster, content: &Content, folder: &Path) {
    let seat = seats(&["joined"]).remove(0);
    let learner = cluster.members.len() == 1;
    let url = seat.peer_url();
    let mut add = vec!["member", "add", "joined", "--peer-urls", &url];
    add.extend(learner.then_some("--learner"));
    // etcd refuses a new member until every member has been connected to the others for 5 s.
    let id = until("member add", || succeeds(&cluster.ctl(0), &add))["member"]["ID"].as_u64().unwrap();
    let mut all: Vec<Seat> = cluster.members.iter().map(|member| member.seat.clone()).collect();
    all.push(seat.clone());
    let at = cluster.add(&seat, &folder.join("joined"));
    cluster.spawn(at, &["--initial-cluster", &initial_cluster(&all), "--initial-cluster-state", "existing"]);
    if learner {
        cluster.wait_for_port(at);
        until("member promote", || succeeds(&cluster.ctl(0), &["member", "promote", &format!("{id:x}")]));
    }
    cluster.wait(at);
    check::has_rows(cluster, at, content);
    check::hash_kv(cluster);
    until("member list", || {
        let found = check::listed(&cluster.ctl(0).json(&["member", "list"]));
        let urls = |seat: &Seat| found.iter().any(|member| member["client"][0] == seat.client_url().as_str());
        let right = found.len() == all.len() && all.iter().all(urls) && found.iter().all(|one| one["learner"] == false);
        if right { Ok(()) } else { Err(format!("{found:?}")) }
    });
    check::leader(cluster);
}

/// The answer of a command, for [`until`].
pub(super) fn succeeds(ctl: &Etcdctl, args: &[&str]) -> Result<Value, String> {
    let output = ctl.attempt(args);
    if output.status == 0 { Ok(output.json()) } else { Err(output.story()) }
}
