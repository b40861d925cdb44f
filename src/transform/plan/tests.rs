//! Plans of small trees under every policy and rule: which rows they have, and what they leave out.
//!
//! The trees are written here as the JSON of a snapshot.

use super::*;
use crate::options::rules::{Choice, Decode, Pattern, Rename, ValueRule};
use crate::options::{Expired, Rules, TtlRule};
use crate::transform::rules::{KeyRules, TtlRules};
use crate::v2store::json;
use crate::v2store::table::Table;

const STORE: &str = r#"{"Root":{"Path":"/","Children":{"0":{"Path":"/0","Children":{"x":{"Path":"/0/x","Value":"no"}}},
    "1":{"Path":"/1","Children":{
    "_h":{"Path":"/1/_h","Children":{"k":{"Path":"/1/_h/k","Value":"hidden"}}},
    "d":{"Path":"/1/d","Children":{"e":{"Path":"/1/d/e","Children":{}}}},
    "g":{"Path":"/1/g","Children":{"_x":{"Path":"/1/g/_x","Value":"1"}}},
    "t":{"Path":"/1/t","ExpireTime":"2001-01-01T00:00:00Z","Children":{"k":{"Path":"/1/t/k","Value":"\ufffd"}}},
    "u":{"Path":"/1/u","ExpireTime":"2020-01-01T00:01:00Z","Children":{
        "l":{"Path":"/1/u/l","Value":"1","ExpireTime":"2020-01-01T00:01:30Z"},
        "s":{"Path":"/1/u/s","Value":"1","ExpireTime":"2020-01-01T00:00:30.25Z"}}},
    "z":{"Path":"/1/z","Value":"eno="}}}}},"CurrentIndex":7}"#;

const AS_OF: Timestamp = Timestamp::constant(1_577_836_800, 0);

fn everything() -> Policy {
    Policy { mark_empty_dirs: true, ..Policy::everything(AS_OF) }
}

fn plan_of(table: &Table<'_>, mut policy: Policy) -> Result<(Plan, Vec<String>)> {
    let mut tree = Tree::new(table);
    let plan = plan(&mut tree, &mut policy, Interrupt::default())?;
    plan.refuse(&tree, &policy)?;
    let names = plan.rows.iter().map(|r| {
        let path = String::from_utf8(tree.path(r.node).into_owned()).unwrap();
        if r.marker { path + "/" } else { path }
    });
    let names = names.collect();
    let total = plan.written.plus(plan.dropped).plus(plan.expired).plus(plan.excluded);
    assert_eq!(total, plan.inventory.keys);
    assert_eq!(plan.written.keys + plan.left_out.len() as u64, plan.inventory.keys.keys);
    Ok((plan, names))
}

#[test]
fn counts_what_the_tree_holds_and_what_is_left_out() {
    let table = json::read(STORE.as_bytes()).unwrap();
    let (plan, names) = plan_of(&table, everything()).unwrap();
    assert_eq!(names, ["/1/_h/k", "/1/d/e/", "/1/g/_x", "/1/u/l", "/1/u/s", "/1/z"]);
    let inventory = &plan.inventory;
    assert_eq!((inventory.keys.keys, inventory.directories, inventory.empty_directories), (6, 6, 1));
    assert_eq!((inventory.hidden.keys, inventory.ttl.keys, inventory.expired.keys), (2, 3, 1));
    assert_eq!((inventory.replaced, plan.written.keys, plan.expired.keys, plan.dropped.keys), (1, 5, 1, 0));
    assert_eq!(inventory.first_elements.listed().count(), 5);
    assert_eq!((inventory.expired_keys.len(), plan.left_out[0].1), (1, Why::Expired));
}

#[test]
fn hidden_keys_can_be_left_out_with_their_directories() {
    let table = json::read(STORE.as_bytes()).unwrap();
    let (plan, names) = plan_of(&table, Policy { drop_hidden: true, ..everything() }).unwrap();
    assert_eq!(names, ["/1/d/e/", "/1/g/", "/1/u/l", "/1/u/s", "/1/z"]);
    assert_eq!((plan.dropped.keys, plan.written.keys), (2, 3));
}

/// Returns the lease seconds of each written key; 0 for none.
fn leases(ttl: &[&str], expired: Expired) -> Result<Vec<(String, i64)>> {
    let table = json::read(STORE.as_bytes()).unwrap();
    let rules: Vec<TtlRule> = ttl.iter().map(|text| text.parse().unwrap()).collect();
    let policy = Policy { ttl: TtlRules::new(&rules), expired, mark_empty_dirs: false, ..everything() };
    let (plan, names) = plan_of(&table, policy)?;
    let (leases, places) = plan.leases.allocate(&Default::default()).unwrap();
    let seconds = |row: &Row| match places[row.lease.0 as usize] {
        LeaseSlot(0) => 0,
        place => leases[place.0 as usize - 1].seconds,
    };
    Ok(names.into_iter().zip(plan.rows.iter().map(seconds)).filter(|(_, seconds)| *seconds > 0).collect())
}

#[test]
fn a_key_has_the_earliest_expiry_above_it() {
    let lease = |name: &str, seconds| (name.to_string(), seconds);
    assert_eq!(leases(&[], Expired::Drop).unwrap(), [lease("/1/u/l", 60), lease("/1/u/s", 31)]);
    let kept = leases(&["/u=permanent"], Expired::Keep).unwrap();
    assert_eq!(kept, [lease("/1/t/k", 2)]);
    assert_eq!(leases(&["/u/l=fixed:9s", "drop"], Expired::Drop).unwrap(), [lease("/1/u/l", 9)]);
    assert_eq!(leases(&["fixed:9000000001s"], Expired::Drop).unwrap(), []);
    let error = leases(&["/u=fail"], Expired::Drop).unwrap_err();
    assert_eq!(error.reason(), Reason::TtlPresent);
    assert!(error.to_string().contains("refuses 2 keys") && error.to_string().contains("/u/l"), "{error}");
    assert!(leases(&["/t=fail"], Expired::Drop).is_ok(), "an expired key is left out before its policy applies");
}

#[test]
fn no_instant_no_ttl() {
    let table = json::read(STORE.as_bytes()).unwrap();
    let error = plan_of(&table, Policy { as_of: None, ..everything() }).unwrap_err();
    assert_eq!(error.reason(), Reason::TimeUnknown);
}

#[test]
fn rules_choose_rename_and_decode() {
    let table = json::read(STORE.as_bytes()).unwrap();
    let prefix = |text: &str| Pattern::Prefix(text.into());
    let rules = Rules {
        choose: vec![Choice::Exclude(prefix("/u/l")), Choice::Include(prefix("/u")), Choice::Include(prefix("/z"))],
        rename: vec![Rename { from: prefix("/u"), to: "/v".into() }],
        values: vec![ValueRule { of: prefix("/z"), decode: Decode::Base64 }],
        ..Rules::default()
    };
    let policy = Policy { rules: KeyRules::new(&rules).unwrap(), ..everything() };
    let (plan, names) = plan_of(&table, policy).unwrap();
    assert_eq!(names, ["/1/u/s", "/1/z"]);
    assert_eq!((plan.excluded.keys, plan.renamed, plan.decoded), (4, 1, 1));
    let overrides = |row: usize| plan.overrides[plan.rows[row].overrides as usize - 1].clone();
    assert_eq!(overrides(0).renamed.unwrap().apply(b"/u/s"), b"/v/s");
    assert_eq!(overrides(1).value.unwrap(), b"zz"[..].into());
    let whys: Vec<Why> = plan.left_out.iter().map(|(_, why)| *why).collect();
    assert_eq!(whys, [Why::NotIncluded, Why::NotIncluded, Why::NotIncluded, Why::Excluded(0)]);

    let values = vec![ValueRule { of: prefix("/u"), decode: Decode::Base64 }];
    let rules = KeyRules::new(&Rules { values, ..Rules::default() }).unwrap();
    let error = plan_of(&table, Policy { rules, ..everything() }).unwrap_err();
    assert_eq!(error.reason(), Reason::RulesFailed);
}
