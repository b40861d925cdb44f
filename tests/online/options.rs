//! The options of `convert` that `online copy` has too: v3 gets the same keys, values and leases by both, while the state is
//! copied and while changes are followed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use etcdlift::internals::bolt::Db;
use etcdlift::internals::mvcc::{KeyValue, Lease, schema};

use crate::common::http;
use crate::common::peers::{self, Version};
use crate::common::run::etcdlift;
use crate::pair::{Job, Pair, wait_for};

/// The value of each key, and the seconds of its lease.
type Keys = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

const RULES: &str = r#"
[[choose]]
exclude = "/services/tmp"

[[rename]]
regex = '^/services/([a-z]+)$'
to = "/prod/$1"

[[value]]
prefix = "/certs"
decode = "base64"

[[ttl]]
prefix = "/locks"
policy = "fixed:3600s"

[[ttl]]
policy = "drop"
"#;

/// What `convert` writes for the same directory now.
fn converted(pair: &Pair, options: &[&str]) -> Keys {
    let out = pair.temp.path().join("converted.db");
    let _ = fs::remove_file(&out);
    let source = pair.temp.path().join("v2");
    let mut args = vec!["convert", source.to_str().unwrap(), "-o", out.to_str().unwrap(), "--allow-live"];
    args.extend(options);
    etcdlift(args).success();
    keys_of(&out)
}

fn keys_of(file: &Path) -> Keys {
    let bytes = fs::read(file).unwrap();
    let db = Db::open(&bytes).unwrap();
    let pairs = |name| db.bucket(name).unwrap().unwrap().iter().map(Result::unwrap).collect::<Vec<_>>();
    let leases = pairs(schema::LEASE).into_iter().map(|pair| Lease::decode(pair.value, pair.value_offset()).unwrap());
    let leases: BTreeMap<i64, i64> = leases.map(|lease| (lease.id.0, lease.ttl)).collect();
    let keys = pairs(schema::KEY).into_iter().map(|pair| {
        let kv = KeyValue::decode(pair.value, pair.value_offset()).unwrap();
        (kv.key.to_vec(), (kv.value.to_vec(), leases.get(&kv.lease.0).copied()))
    });
    keys.collect()
}

/// What v3 has, without the keys of the migration.
fn copied(pair: &Pair) -> Keys {
    let ctl = pair.ctl();
    let rows = ctl.all().0.into_iter().filter(|row| !row.key.starts_with(b"etcdlift/"));
    rows.map(|row| (row.key, (row.value, (row.lease != 0).then(|| ctl.time_to_live(row.lease).0)))).collect()
}

/// Whether both have the same keys and values, and leases that end at about the same time.
fn alike(a: &Keys, b: &Keys) -> bool {
    let near = |a: Option<i64>, b: Option<i64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 5,
        (a, b) => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.0 == b.1.0 && near(a.1.1, b.1.1))
}

fn set(pair: &Pair, key: &str, body: &str) {
    let answer = http::put_form(pair.v2.client_address(), &format!("/v2/keys{key}"), body).unwrap();
    assert!(answer.status < 300, "{key}: {}", answer.status);
}

fn first_state(pair: &Pair) {
    for key in ["/plain", "/services/web", "/services/tmp/x", "/services/_cache", "/_top/secret", "/servicesother"] {
        set(pair, key, &format!("value=of{}", key.replace('/', "-")));
    }
    set(pair, "/certs/a", "value=aGVsbG8%3D");
    set(pair, "/locks/a", "value=a&ttl=500");
    set(pair, "/timed", "value=t&ttl=1000");
    set(pair, "/late", "value=l");
}

/// Every kind of change, of keys that some of the options treat apart.
fn changes(pair: &Pair) {
    for key in ["/services/web", "/services/api", "/services/tmp/y", "/services/_more", "/_top/secret"] {
        set(pair, key, "value=changed");
    }
    set(pair, "/certs/b", "value=d29ybGQ%3D");
    set(pair, "/locks/a", "value=again&ttl=700");
    set(pair, "/locks/b", "value=b&ttl=900");
    // A TTL that goes, and one that comes.
    set(pair, "/timed", "value=forever");
    set(pair, "/late", "value=l&ttl=800");
    for key in ["/plain", "/services/tmp/x", "/services/_cache"] {
        pair.delete(key);
    }
}

#[test]
fn online_copy_makes_the_same_keys_as_convert() {
    let Some(peers) = peers::require("online::options") else { return };
    let pair = Pair::start(&peers, Version::V3_6, &[]);
    let rules = pair.temp.path().join("rules.toml");
    fs::write(&rules, RULES).unwrap();
    let source = pair.temp.path().join("v2").display().to_string();
    let mut different = Vec::new();
    for options in [
        &[][..],
        &["--hidden", "drop"],
        &["--include", "/services", "--exclude", "/services/tmp"],
        &["--map", "/services=/prod"],
        &["--map", "/services=/prod", "--strip-leading-slash"],
        &["--ttl", "permanent"],
        &["--ttl", "drop"],
        &["--ttl", "/locks=fixed:3600s", "--ttl", "lease"],
        &["--rules", rules.to_str().unwrap()],
    ] {
        ["/plain", "/services", "/_top", "/certs", "/locks", "/timed", "/late", "/servicesother"]
            .iter()
            .for_each(|key| drop(http::delete(pair.v2.client_address(), &format!("/v2/keys{key}?recursive=true"))));
        first_state(&pair);
        let first = converted(&pair, options);
        let mut arguments = pair.arguments("copy", options);
        arguments.splice(2..4, [source.clone()]);
        let job = Job::start(&arguments);
        wait_for(&format!("the state, {options:?}"), || alike(&copied(&pair), &first));
        changes(&pair);
        let second = converted(&pair, options);
        assert!(!alike(&first, &second), "{options:?}");
        wait_for(&format!("the changes, {options:?}"), || alike(&copied(&pair), &second));
        let (status, text) = job.stop();
        assert_eq!(status, 143, "{text}");
        different.push(second.into_keys().collect::<Vec<_>>());
        pair.ctl().json(&["del", "--prefix", ""]);
    }
    // The options that change names or choose keys made a difference.
    let kinds: std::collections::BTreeSet<_> = different.into_iter().collect();
    assert_eq!(kinds.len(), 7, "{kinds:?}");
}
