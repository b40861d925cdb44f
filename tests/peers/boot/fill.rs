//! The full leaf pages of an output, after a server went on with it: puts fill new pages and split none of the old ones.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use etcdlift::internals::bolt::{Check, Db, Strictness, check};

use super::make;
use crate::common::peers::{self, Version};
use crate::common::server::{Boot, Server};
use crate::common::v2store::{joined, leaf, store};
use crate::common::{http, scratch, v2files};
use crate::test_name;

const KEYS: u64 = 20_000;
const PUTS: u64 = 10_000;
const PUTS_A_REQUEST: u64 = 100;
/// A quarter of a value, with which a row has 313 bytes.
const VALUE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn checked(data_dir: &std::path::Path) -> (Check, u64) {
    let file = std::fs::read(data_dir.join("member/snap/db")).unwrap();
    let db = Db::open(&file).unwrap();
    (check(&db, Strictness::Any).sound().unwrap(), db.size())
}

/// Half of the puts change existing keys, half make new ones, as clients do after a move.
fn put(server: &Server) {
    for request in 0..PUTS / PUTS_A_REQUEST {
        let numbers = (0..PUTS_A_REQUEST).map(|put| (request * PUTS_A_REQUEST + put) * KEYS / PUTS * 2);
        let puts: Vec<String> = numbers
            .map(|number| {
                let (key, value) = (STANDARD.encode(format!("/k{number:06}")), STANDARD.encode(VALUE.repeat(4)));
                format!(r#"{{"requestPut":{{"key":"{key}","value":"{value}"}}}}"#)
            })
            .collect();
        let json = format!(r#"{{"success":[{}]}}"#, puts.join(","));
        let answer = http::post(server.client_address(), "/v3/kv/txn", None, &json).unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn puts_after_a_boot_split_no_full_page() {
    let Some(peers) = peers::require(test_name!()) else { return };
    for version in [Version::V3_5, Version::V3_6, Version::V3_7] {
        let temp = scratch::temp();
        let source = temp.path().join("source.etcd");
        let leaves = (0..KEYS).map(|key| leaf(&format!("k{key:06}"), 2 + key, &VALUE.repeat(4)));
        let json = store(KEYS + 1, &joined(leaves)).into_bytes();
        let snapshot = v2files::write_snapshot(&source, json, KEYS + 3, 2, 1, KEYS + 1);
        v2files::write_minimal_wal(&source, &snapshot, 1, 7);
        let target = version.to_string();
        let made = make(&[source], temp.path(), &[], &["--target-version".into(), target]);
        let data_dir = made.out.clone();
        let (before, _) = checked(&data_dir);
        // 13 rows fill a page: no layout in the order of the keys has fewer. The rest are pages of other buckets.
        assert!((KEYS / 13..KEYS / 13 + 8).contains(&before.leaf_pages), "{}", before.leaf_pages);
        let server = Server::start(&Boot::new(&peers, version, &data_dir));
        put(&server);
        server.stop();
        let (after, bytes) = checked(&data_dir);
        let (new, rows) = (after.leaf_pages - before.leaf_pages, after.pairs - before.pairs);
        println!("etcd {version}: {} and {new} leaf pages, {bytes} bytes", before.leaf_pages);
        assert!(rows >= PUTS, "{rows}");
        // A page of bbolt that grew row by row is nine tenths full in this bucket: 11 rows, and 8 at the least.
        assert!(new <= PUTS / 8, "etcd {version}: {} leaf pages became {}", before.leaf_pages, after.leaf_pages);
    }
}
