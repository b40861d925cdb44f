//! Lists and reads of both clients of `fixtures/online-app`, where the names of keys and of directories meet.

use serde_json::{Value, json};

use crate::common::etcdctl::Etcdctl;
use crate::common::http;
use crate::common::peers::{self, Version};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::history::{Process, Programs};
use crate::test_name;

const LISTS: [&str; 2] = ["list /dir/", "list /dir"];

/// Runs commands in each client.
fn each(apps: &mut [Process; 2], commands: &[&str], expected: &Value) {
    for (app, language) in apps.iter_mut().zip(["Go", "Rust"]) {
        for command in commands {
            assert_eq!(app.line(command), *expected, "{language}: {command}");
        }
    }
}

fn values(pairs: &[(&str, &str)]) -> Value {
    json!({ "values": pairs.iter().copied().collect::<std::collections::BTreeMap<_, _>>() })
}

#[test]
fn a_key_with_the_name_of_a_directory_hides_nothing() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let programs = Programs::build(&peers);
    let temp = scratch::temp();
    let mut boot = Boot::new(&peers, Version::V3_4, &temp.path().join("etcd"));
    boot.enable_v2 = true;
    let server = Server::start(&boot);
    let address = server.client_address();
    for key in ["/dir/a", "/dir/b", "/dir/c", "/dir/sub/d", "/dirx/a", "/file"] {
        http::put_form(address, &format!("/v2/keys{key}"), "value=v2").unwrap();
    }
    let apps = &mut programs.both().map(|program| Process::start(program, &[address], &[address]));
    let (ok, null) = (json!({ "ok": true }), json!({ "value": null }));
    let of_v2 = values(&[("/dir/a", "v2"), ("/dir/b", "v2"), ("/dir/c", "v2"), ("/dir/sub/d", "v2")]);
    each(apps, &LISTS, &of_v2);
    each(apps, &["put /dir v3", "put /dirx/b v3"], &ok);
    each(apps, &LISTS, &of_v2);
    each(apps, &["put /dir/ v3", "put /dir/b v3", "delete /dir/c"], &ok);
    let of_both = [("/dir/", "v3"), ("/dir/a", "v2"), ("/dir/b", "v3"), ("/dir/sub/d", "v2")];
    each(apps, &LISTS, &values(&of_both));
    each(apps, &["delete /dir/"], &ok);
    each(apps, &LISTS, &values(&of_both[1..]));
    each(apps, &["get /dir"], &json!({ "value": "v3" }));
    // The path is a part of a URL.
    let odd = "/odd?a%41#\u{e9}&b";
    http::put_form(address, &format!("/v2/keys{}", http::escape_path(odd.as_bytes())), "value=v2").unwrap();
    each(apps, &[&format!("get {odd}")], &json!({ "value": "v2" }));
    // v2 answers with the key itself, and has no keys below it.
    each(apps, &["list /file", "list /file/"], &values(&[]));
    each(apps, &["get /file/a"], &null);
    each(apps, &["cas /file/a v2 v3"], &json!({ "swapped": false, "value": null }));
    each(apps, &["put /file/a v3"], &ok);
    each(apps, &["list /file"], &values(&[("/file/a", "v3")]));
    // In normal mode, v3 has all the answers.
    Etcdctl::new(&peers, &server).put("etcdlift/switch", "true");
    each(apps, &LISTS, &values(&[("/dir/b", "v3")]));
    each(apps, &["get /file"], &null);
}
