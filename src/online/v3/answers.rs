//! Transactions in the form of the client, and its answers as plain data. Must not know connections.

use etcd_client::{
    self as client, CompareOp, DeleteOptions, GetOptions, PutOptions, TxnOp, TxnOpResponse, TxnResponse,
};

use super::txn::{Check, Compare, Got, Op, Pair, Reply, Scan, Txn};

/// Returns a transaction in the client's form.
pub(super) fn request(txn: &Txn) -> client::Txn {
    let operations = |all: &[Op]| all.iter().map(operation).collect::<Vec<_>>();
    let compares: Vec<client::Compare> = txn.when.iter().map(compare).collect();
    // The client panics at an empty list that follows another.
    let mut request = client::Txn::new();
    if !compares.is_empty() {
        request = request.when(compares);
    }
    if !txn.then.is_empty() {
        request = request.and_then(operations(&txn.then));
    }
    if !txn.otherwise.is_empty() {
        request = request.or_else(operations(&txn.otherwise));
    }
    request
}

/// Returns the answer of a transaction.
pub(super) fn reply(response: &TxnResponse) -> Reply {
    let revision = response.header().map_or(0, client::ResponseHeader::revision);
    Reply { succeeded: response.succeeded(), revision, got: response.op_responses().into_iter().map(got).collect() }
}

fn compare(compare: &Compare) -> client::Compare {
    let key = compare.key.clone();
    match compare.check {
        Check::Created(revision) => client::Compare::create_revision(key, CompareOp::Equal, revision),
        Check::Modified(revision) => client::Compare::mod_revision(key, CompareOp::Equal, revision),
    }
}

fn operation(operation: &Op) -> TxnOp {
    match operation {
        Op::Put { key, value, lease } => {
            TxnOp::put(key.clone(), value.clone(), Some(PutOptions::new().with_lease(*lease)))
        }
        Op::Delete(key) => TxnOp::delete(key.clone(), None),
        Op::DeleteRange(from, to) => TxnOp::delete(from.clone(), Some(DeleteOptions::new().with_range(to.clone()))),
        Op::Look(key) => TxnOp::get(key.clone(), Some(GetOptions::new().with_keys_only())),
        Op::Get(key) => TxnOp::get(key.clone(), None),
        Op::Scan(Scan { from, to, limit, values }) => {
            let options = GetOptions::new().with_range(to.clone()).with_limit(*limit);
            TxnOp::get(from.clone(), Some(if *values { options } else { options.with_keys_only() }))
        }
    }
}

fn got(response: TxnOpResponse) -> Got {
    let TxnOpResponse::Get(mut response) = response else { return Got::default() };
    let more = response.more();
    let pairs = response.take_kvs().into_iter().map(pair).collect();
    Got { pairs, more }
}

fn pair(pair: client::KeyValue) -> Pair {
    let (created, modified, lease) = (pair.create_revision(), pair.mod_revision(), pair.lease());
    let (key, value) = pair.into_key_value();
    Pair { key, value, created, modified, lease }
}
