//! Users and roles on real servers: everyone logs in with the password of v2 and may do in v3 what v2 allowed, no less
//! and no more.
//!
//! Needs the peers; the corpus for its scenario d, and nothing else for a store written by hand. A test that lacks one
//! says `SKIPPED`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::convert::{Converted, convert_to};
use crate::common::peers::{self, Peers, Version};
use crate::common::run::{all_well, etcdlift};
use crate::common::server::{Boot, Server};
use crate::common::{corpus, http, scratch, v2files};
use crate::test_name;

/// Of `abc123xyz`: the example of the article on bcrypt in Wikipedia.
const HASH: &str = "$2a$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW";
const PASSWORD: &str = "abc123xyz";

/// What v2 knew of its users.
struct V2 {
    passwords: BTreeMap<String, String>,
    /// Roles of each user.
    users: BTreeMap<String, Vec<String>>,
    /// What each role may read, and write.
    roles: BTreeMap<String, (Vec<String>, Vec<String>)>,
}

impl V2 {
    fn of_truth(truth: &Value) -> V2 {
        let strings = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_string()).collect()
        };
        let map = |value: &Value| value.as_object().unwrap().clone();
        let names = |user: &Value| {
            let roles = user["roles"].as_array().into_iter().flatten();
            // 2.1 shows names, later versions whole roles.
            roles.map(|role| role.as_str().or(role["role"].as_str()).unwrap().to_string()).collect()
        };
        V2 {
            passwords: map(&truth["passwords"])
                .iter()
                .filter_map(|(user, password)| Some((user.clone(), password.as_str()?.to_string())))
                .collect(),
            users: map(&truth["auth"]["users"]).iter().map(|(name, user)| (name.clone(), names(user))).collect(),
            roles: map(&truth["auth"]["roles"])
                .iter()
                .map(|(name, role)| {
                    let kv = &role["permissions"]["kv"];
                    (name.clone(), (strings(&kv["read"]), strings(&kv["write"])))
                })
                .collect(),
        }
    }

    /// Whether a user may read, or write, a key.
    fn allows(&self, user: &str, write: bool, key: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix),
            None => key == pattern,
        };
        user == "root"
            || self.users[user].iter().any(|role| {
                let Some((read, written)) = self.roles.get(role) else { return false };
                role == "root" || (if write { written } else { read }).iter().any(matches)
            })
    }

    /// Keys at, below and next to every pattern.
    fn probes(&self) -> BTreeSet<String> {
        let patterns: BTreeSet<&String> =
            self.roles.values().flat_map(|(read, write)| read.iter().chain(write)).collect();
        let mut keys = BTreeSet::from(["/elsewhere".to_string(), "/~".to_string()]);
        for pattern in patterns {
            let base = pattern.trim_end_matches('*').to_string();
            let mut sibling = base.clone();
            sibling.pop();
            keys.extend(["", "x", "/x", "!", "0"].map(|end| format!("{base}{end}")));
            keys.extend(["", "x", "~"].map(|end| format!("{sibling}{end}")));
        }
        keys.retain(|key| key.len() > 1 && key.starts_with('/') && !key.contains("//"));
        keys
    }
}

/// A server's v3 API as one user, or as nobody.
struct Session<'s> {
    server: &'s Server,
    token: Option<String>,
}

impl<'s> Session<'s> {
    fn log_in(server: &'s Server, name: &str, password: &str) -> Option<Session<'s>> {
        let body = json!({"name": name, "password": password}).to_string();
        let response = http::post(server.client_address(), "/v3/auth/authenticate", None, &body).unwrap();
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        let token = answer["token"].as_str()?.to_string();
        Some(Session { server, token: Some(token) })
    }

    fn status(&self, target: &str, body: &Value) -> u16 {
        let token = self.token.as_deref();
        http::post(self.server.client_address(), target, token, &body.to_string()).unwrap().status
    }

    fn reads(&self, key: &str) -> bool {
        self.status("/v3/kv/range", &json!({"key": STANDARD.encode(key)})) == 200
    }

    fn writes(&self, key: &str) -> bool {
        self.status("/v3/kv/put", &json!({"key": STANDARD.encode(key), "value": "eA=="})) == 200
    }
}

/// Restores a snapshot, and tries every user at every key. `named` is what a v2 key is called in v3.
fn try_all(
    peers: &Peers,
    version: Version,
    converted: &Converted,
    v2: &V2,
    named: impl Fn(&str) -> String,
) -> Vec<String> {
    let temp = scratch::temp();
    let data_dir = temp.path().join("restored");
    peers.restore(version, &converted.snapshot, &data_dir).success();
    let server = Server::start(&Boot::new(peers, version, &data_dir));
    let mut wrong = Vec::new();
    assert!(!v2.users.is_empty());
    for user in v2.users.keys() {
        let password = &v2.passwords[user];
        for bad in ["", "wrong", &format!("{password}x"), &password[..password.len() - 1]] {
            if Session::log_in(&server, user, bad).is_some() {
                wrong.push(format!("{user} gets in with {bad:?}"));
            }
        }
        let Some(session) = Session::log_in(&server, user, password) else {
            wrong.push(format!("{user} does not get in with the right password"));
            continue;
        };
        for key in v2.probes() {
            let new = named(&key);
            for (what, write, can) in [("read", false, session.reads(&new)), ("write", true, session.writes(&new))] {
                if can != v2.allows(user, write, &key) {
                    wrong.push(format!("{user} {} {what} {key} ({new})", if can { "can" } else { "cannot" }));
                }
            }
        }
    }
    let nobody = Session { server: &server, token: None };
    if nobody.reads("/elsewhere") || nobody.writes("/elsewhere") {
        wrong.push("nobody has rights".into());
    }
    server.stop();
    wrong.into_iter().map(|what| format!("etcd {version}: {what}")).collect()
}

#[test]
fn users_of_the_corpus_can_do_what_they_could() {
    let test = test_name!();
    let (Some(peers), Some(scenarios)) = (peers::require(test), corpus::of_kinds(test, &["d"])) else { return };
    let mut wrong = Vec::new();
    for scenario in scenarios {
        let truth: Value = serde_json::from_slice(&fs::read(scenario.dir.join("truth.json")).unwrap()).unwrap();
        let v2 = V2::of_truth(&truth);
        let temp = scratch::temp();
        let source = scenario.data_dir("m0.etcd");
        let as_of = ["--as-of", &scenario.truth.captured_at];
        let refused = convert_to(&source, &temp.path().join("refused"), as_of);
        let words = "anonymous clients have rights by the role guest";
        assert!(refused.output.status == 5 && refused.output.stderr.contains(words), "{}", refused.output.story());
        let converted = convert_to(&source, temp.path(), [&as_of[..], &["--guest", "drop"]].concat());
        assert_eq!(converted.output.status, 0, "{}", converted.output.story());
        no_hash_is_shown(&source, &converted, &[&["--keys"], &["--json", "--keys"], &["--wal", "--json"]]);
        for version in [Version::V3_4, Version::V3_7] {
            let found = try_all(&peers, version, &converted, &v2, str::to_string);
            wrong.extend(found.into_iter().map(|what| format!("{}: {what}", scenario.name)));
        }
    }
    all_well(&wrong);
}

/// Neither what a conversion prints and reports, nor an inspection, has a hash in it.
fn no_hash_is_shown(source: &Path, converted: &Converted, inspections: &[&[&str]]) {
    let report = fs::read_to_string(&converted.report).unwrap();
    let mut said = vec![converted.output.story(), report];
    for options in inspections {
        let output = etcdlift([&["inspect", source.to_str().unwrap()], *options].concat()).success();
        said.push(String::from_utf8(output.stdout).unwrap() + &output.stderr);
    }
    let snapshot = etcdlift(["inspect", converted.snapshot.to_str().unwrap(), "--json", "--keys"]).success();
    said.push(snapshot.text());
    for text in said {
        assert!(!text.contains("$2a$") && !text.contains("\"password\""), "a hash is shown: {text}");
    }
}

/// A store with a user of each kind, and permissions that rules cut, move and drop.
fn by_hand(folder: &Path) -> V2 {
    let v2 = V2 {
        passwords: ["root", "reader", "writer", "both"].map(|user| (user.to_string(), PASSWORD.to_string())).into(),
        users: [("root", &[][..]), ("reader", &["r"]), ("writer", &["w"]), ("both", &["w", "r", "missing"])]
            .map(|(user, roles)| (user.to_string(), roles.iter().map(ToString::to_string).collect()))
            .into(),
        roles: [("r", &["/a/*", "/b"][..], &[][..]), ("w", &["/c*"], &["/a/b/*", "/c*", "/d"]), ("none", &[], &[])]
            .map(|(role, read, write)| {
                let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
                (role.to_string(), (strings(read), strings(write)))
            })
            .into(),
    };
    let file = |path: String, value: String| {
        let name = path.rsplit('/').next().unwrap().to_string();
        (name, json!({"Path": path, "CreatedIndex": 3, "ModifiedIndex": 3, "Value": value, "Children": null}))
    };
    let users = v2.users.iter().map(|(name, roles)| {
        let user = json!({"user": name, "password": HASH, "roles": roles});
        file(format!("/2/users/{name}"), user.to_string())
    });
    let roles = v2.roles.iter().map(|(name, (read, write))| {
        let role = json!({"role": name, "permissions": {"kv": {"read": read, "write": write}}});
        file(format!("/2/roles/{name}"), role.to_string())
    });
    let dir = |path: &str, children: serde_json::Map<String, Value>| json!({"Path": path, "Children": children});
    let two = json!({
        "enabled": file("/2/enabled".into(), "true".into()).1,
        "users": dir("/2/users", users.collect()),
        "roles": dir("/2/roles", roles.collect()),
    });
    let one = json!({"k": file("/1/k".into(), "v".into()).1});
    let children =
        json!({"1": dir("/1", one.as_object().unwrap().clone()), "2": dir("/2", two.as_object().unwrap().clone())});
    let root = dir("/", children.as_object().unwrap().clone());
    let store = json!({"Root": root, "CurrentIndex": 9}).to_string();
    v2files::write_snapshot(folder, store.into_bytes(), 40, 2, 7, 9);
    v2
}

#[test]
fn permissions_follow_the_rules_of_the_keys() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let source = temp.path().join("v2");
    let v2 = by_hand(&source);
    let plain = convert_to(&source, &temp.path().join("plain"), ["--wal-dir", "none"]);
    assert_eq!(plain.output.status, 0, "{}", plain.output.story());
    all_well(&try_all(&peers, Version::V3_7, &plain, &v2, str::to_string));
    let options = ["--wal-dir", "none", "--map", "/a/b=/moved", "--map", "/c=/a/b", "--strip-leading-slash"];
    let moved = convert_to(&source, &temp.path().join("moved"), options);
    assert_eq!(moved.output.status, 0, "{}", moved.output.story());
    let below = |key: &str, dir: &str| {
        key.strip_prefix(dir).filter(|rest| rest.is_empty() || rest.starts_with('/')).map(String::from)
    };
    let named = |key: &str| match (below(key, "/a/b"), below(key, "/c")) {
        (Some(rest), _) => format!("moved{rest}"),
        (_, Some(rest)) => format!("a/b{rest}"),
        _ => key[1..].to_string(),
    };
    all_well(&try_all(&peers, Version::V3_4, &moved, &v2, named));
}

#[test]
fn policies() {
    let temp = scratch::temp();
    let source = temp.path().join("v2");
    by_hand(&source);
    let run = |name: &str, options: &[&str]| {
        convert_to(&source, &temp.path().join(name), [&["--wal-dir", "none"], options].concat())
    };
    let failed = run("fail", &["--auth", "fail"]);
    assert_eq!((failed.output.status, &failed.report()["reason"]), (5, &"auth-present".into()));
    assert!(!failed.snapshot.exists());
    let ignored = run("ignore", &["--auth", "ignore"]);
    assert_eq!(ignored.output.status, 0);
    assert!(ignored.output.stderr.contains("v3 will be open to everyone"), "{}", ignored.output.story());
    let json = etcdlift(["inspect", ignored.snapshot.to_str().unwrap(), "--json"]).json();
    assert_eq!((&json["users"], &json["roles"]), (&0.into(), &0.into()));
    let regex = scratch::temp();
    let rules = regex.path().join("rules.toml");
    fs::write(&rules, "[[rename]]\nregex = \"^/a\"\nto = \"/b\"\n").unwrap();
    let refused = run("regex", &["--rules", rules.to_str().unwrap()]);
    assert_eq!((refused.output.status, &refused.report()["reason"]), (5, &"auth-invalid".into()));
    let cut = run("cut", &["--exclude", "/a/b"]);
    assert_eq!(cut.report()["auth"]["cut"], json!(["r: /a/*", "w: /a/b/*"]), "{}", cut.output.story());

    // A name must not bring a key within reach of a role that could not reach it.
    let wider = run("wider", &["--map", "/k=/a/k"]);
    let story = wider.output.story();
    assert_eq!((wider.output.status, &wider.report()["reason"]), (5, &"auth-invalid".into()), "{story}");
    assert!(wider.output.stderr.contains("role r: it could not read /k in v2"), "{story}");
    assert!(!wider.snapshot.exists());
    assert_eq!(run("elsewhere", &["--map", "/k=/elsewhere"]).output.status, 0);
    assert_eq!(run("wider-ignored", &["--map", "/k=/a/k", "--auth", "ignore"]).output.status, 0);

    let ledger = temp.path().join("ledger.ndjson");
    let all = run("all", &["--ledger", ledger.to_str().unwrap()]);
    assert_eq!(all.output.status, 0, "{}", all.output.story());
    let said = [&failed, &ignored, &refused, &cut, &wider, &all].map(|run| run.output.story());
    let text = said.concat() + &fs::read_to_string(&ledger).unwrap();
    assert!(!text.contains(&HASH[..7]) && !text.contains(&HASH[29..]), "a hash is shown: {text}");
    no_hash_is_shown(&source, &all, &[&["--wal-dir", "none", "--keys"], &["--wal-dir", "none", "--json"]]);
}

/// Users are there, and authentication can be turned on by hand.
#[test]
fn users_alone_leave_authentication_off() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let source = temp.path().join("v2");
    by_hand(&source);
    let only = convert_to(&source, &temp.path().join("only"), ["--wal-dir", "none", "--auth", "users-only"]);
    assert_eq!(only.output.status, 0);
    assert!(only.output.stderr.contains("`etcdctl auth enable` turns it on"), "{}", only.output.story());
    for version in [Version::V3_4, Version::V3_7] {
        let data_dir = temp.path().join(format!("restored-{version}"));
        peers.restore(version, &only.snapshot, &data_dir).success();
        let server = Server::start(&Boot::new(&peers, version, &data_dir));
        let nobody = Session { server: &server, token: None };
        assert!(nobody.reads("/k") && nobody.writes("/k"));
        assert_eq!(nobody.status("/v3/auth/enable", &json!({})), 200);
        assert!(!nobody.reads("/k"));
        let reader = Session::log_in(&server, "reader", PASSWORD).unwrap();
        assert!(reader.reads("/b") && !reader.writes("/b") && !reader.reads("/k"));
        server.stop();
    }
}
