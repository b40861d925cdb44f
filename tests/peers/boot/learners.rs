//! Learners: a cluster that begins with a member that does not vote, which is promoted later.

use super::check::{self, Content, until};
use super::work::succeeds;
use super::{VERSIONS, logs, make, options};
use crate::common::cluster::{Cluster, seats};
use crate::common::{corpus, peers, scratch};
use crate::test_name;

/// The learner has all keys from the start, is listed as one, and votes after its promotion.
#[test]
fn a_learner_starts_with_all_keys_and_is_promoted() {
    let test = test_name!();
    let (Some(peers), Some(scenario)) = (peers::require(test), corpus::scenario(test, "v2.3.8-b")) else { return };
    for version in VERSIONS {
        eprintln!("a learner on etcd {version}");
        let temp = scratch::temp();
        let options = [&options(&scenario)[..], &["--learner".into(), "c".into()]].concat();
        let made = make(&[scenario.data_dir("m0.etcd")], temp.path(), &seats(&["a", "b", "c"]), &options);
        let mut content = Content::of(&scenario, "m0.etcd");
        let mut cluster = made.cluster(&peers, version, None);
        start(&mut cluster);
        check::leader(&cluster);
        check::members(&cluster, &made, &["c"]);
        check::content(&cluster, &content);
        // A learner answers no request for its hash.
        for at in [0, 1] {
            assert_eq!(cluster.ctl(at).hash_kv(), made.hash_kv());
        }
        let refused = cluster.ctl(2).attempt(&["put", "/etcdlift/learner", "x"]);
        assert!(refused.status != 0 && refused.stderr.contains("not supported for learner"), "{}", refused.story());
        // It is still a learner after a restart.
        cluster.crash();
        start(&mut cluster);
        check::leader(&cluster);
        check::members(&cluster, &made, &["c"]);

        until("promotion", || succeeds(&cluster.ctl(0), &["member", "promote", &made.id("c")]));
        check::members(&cluster, &made, &[]);
        cluster.wait(2);
        assert_eq!(check::hash_kv(&cluster), made.hash_kv());
        // With one of the other two stopped, nothing is committed without its vote.
        cluster.stop(1);
        check::leader(&cluster);
        cluster.ctl(2).put("/etcdlift/learner", "x");
        cluster.spawn(1, &[]);
        cluster.wait(1);
        cluster.ctl(0).del("/etcdlift/learner");
        content.revision += 2;
        check::content(&cluster, &content);
        check::hash_kv(&cluster);
        check::no_alarm(&cluster);
        logs::blame_nothing(&cluster, version);
    }
}

/// Starts two voters and a learner, which is never healthy.
fn start(cluster: &mut Cluster) {
    (0..3).for_each(|at| cluster.spawn(at, &[]));
    (0..2).for_each(|at| cluster.wait(at));
    cluster.wait_for_port(2);
}
