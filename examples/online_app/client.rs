//! A client of the protocol of `etcdlift online`: one application that moves from the v2 API to the v3 API while it runs.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error as EtcdError, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Values = BTreeMap<String, String>;

/// The defaults of `--state-prefix` and `--switch-key`.
const STATE_PREFIX: &str = "etcdlift/online/";
const SWITCH_KEY: &str = "etcdlift/switch";

/// The job writes this key before it deletes a key, or writes one with a lease.
const DELETED: &str = "etcdlift/online/deleted";

/// The key that says that v3 leads a key.
fn marker(key: &str) -> String {
    format!("{STATE_PREFIX}moved/{key}")
}

/// Reads and writes keys, in the mode that the switch key has at that moment.
pub(crate) struct App {
    pub(crate) v3: Client,
    pub(crate) v2: V2,
}

/// What v3 has at one revision.
#[derive(Default)]
struct View {
    values: Values,
    /// The `mod_revision` of all keys that were read.
    revisions: HashMap<String, i64>,
    /// Empty or `false`: migration; `true`: normal; any other: careful.
    mode: String,
}

impl View {
    fn migrates(&self) -> bool {
        matches!(self.mode.as_str(), "" | "false")
    }

    fn v3_leads(&self, key: &str) -> bool {
        !self.migrates() || self.revisions.contains_key(&marker(key))
    }

    /// Compares with 0 if the key is missing.
    fn unchanged(&self, key: &str) -> Compare {
        Compare::mod_revision(key, CompareOp::Equal, self.revisions.get(key).copied().unwrap_or(0))
    }
}

impl App {
    /// Returns the value of a key.
    pub(crate) async fn get(&mut self, key: &str) -> Result<Option<String>> {
        Ok(self.read(key, None).await?.0.remove(key))
    }

    /// Returns all keys below a directory.
    pub(crate) async fn list(&mut self, dir: &str) -> Result<Values> {
        let prefix = format!("{}/", dir.strip_suffix('/').unwrap_or(dir));
        Ok(self.read(&prefix, Some(GetOptions::new().with_prefix())).await?.0)
    }

    /// Writes a value, with a lease if `ttl` (seconds) is not 0. After an error the value may be there or not.
    pub(crate) async fn put(&mut self, key: &str, value: &str, ttl: i64) -> Result<()> {
        let options = match ttl {
            0 => None,
            _ => Some(PutOptions::new().with_lease(self.v3.lease_grant(ttl, None).await?.id())),
        };
        self.write(key, TxnOp::put(key, value, options)).await
    }

    /// Deletes a key. If v2 still has it, the marker alone says that it is deleted.
    pub(crate) async fn delete(&mut self, key: &str) -> Result<()> {
        self.write(key, TxnOp::delete(key, None::<DeleteOptions>)).await
    }

    /// Writes a value if the key has the expected one; `None` stands for a missing key. The error has what the key has.
    pub(crate) async fn compare_and_swap(
        &mut self,
        key: &str,
        expected: Option<&str>,
        value: &str,
    ) -> Result<std::result::Result<(), Option<String>>> {
        loop {
            let (mut values, view) = self.read(key, None).await?;
            let found = values.remove(key);
            if found.as_deref() != expected {
                return Ok(Err(found));
            }
            let mut writes = vec![TxnOp::put(key, value, None)];
            if view.mode != "true" {
                writes.push(TxnOp::put(marker(key), "", None));
            }
            let mut unchanged = vec![view.unchanged(key), view.unchanged(&marker(key)), view.unchanged(SWITCH_KEY)];
            // v3 had no such key. It may have come since then, and gone again, without a revision that says so.
            if !view.revisions.contains_key(key) {
                unchanged.push(view.unchanged(DELETED));
            }
            if self.v3.txn(Txn::new().when(unchanged).and_then(writes)).await?.succeeded() {
                return Ok(Ok(()));
            }
        }
    }

    async fn write(&mut self, key: &str, op: TxnOp) -> Result<()> {
        let normal = Compare::value(SWITCH_KEY, CompareOp::Equal, "true");
        let marked = vec![op.clone(), TxnOp::put(marker(key), "", None)];
        self.v3.txn(Txn::new().when([normal]).and_then([op]).or_else(marked)).await?;
        Ok(())
    }

    /// Answers from v3 if v3 leads, or else from v2. A key may move while v2 is read, so v3 is asked again. The view is
    /// the one to compare with in a transaction: it is not later than the answer.
    async fn read(&mut self, key: &str, options: Option<GetOptions>) -> Result<(Values, View)> {
        let mut first = self.look(key, &options).await?;
        // The marker of one key does not say who leads a list: that of the prefix belongs to a key with this very name.
        if !first.migrates() || options.is_none() && first.v3_leads(key) {
            return Ok((std::mem::take(&mut first.values), first));
        }
        let mut values = self.v2.values(key).await?;
        let mut again = self.look(key, &options).await?;
        values.retain(|found, _| !again.v3_leads(found) && found.starts_with(key));
        let moved = std::mem::take(&mut again.values).into_iter().filter(|(key, _)| again.v3_leads(key));
        values.extend(moved);
        Ok((values, first))
    }

    /// Reads keys, their markers and the switch key in one transaction.
    async fn look(&mut self, key: &str, options: &Option<GetOptions>) -> std::result::Result<View, EtcdError> {
        let gets = [(key, options.clone()), (&marker(key), options.clone()), (SWITCH_KEY, None), (DELETED, None)]
            .map(|(key, options)| TxnOp::get(key, options));
        let mut view = View::default();
        let answer = self.v3.txn(Txn::new().and_then(gets)).await?;
        for (at, response) in answer.op_responses().into_iter().enumerate() {
            let TxnOpResponse::Get(pairs) = response else { continue };
            for pair in pairs.kvs() {
                let (key, value) = (pair.key_str()?.to_owned(), pair.value_str()?.to_owned());
                view.revisions.insert(key.clone(), pair.mod_revision());
                match at {
                    0 => drop(view.values.insert(key, value)),
                    2 => view.mode = value,
                    _ => {}
                }
            }
        }
        Ok(view)
    }
}

/// The v2 API, to read from: a client that has moved never writes to v2.
#[derive(Clone)]
pub(crate) struct V2 {
    pub(crate) agent: ureq::Agent,
    pub(crate) endpoints: Vec<String>,
}

impl V2 {
    /// Returns the value of a key, or all values below a directory, as a majority of the members has them.
    async fn values(&self, key: &str) -> Result<Values> {
        let (v2, key) = (self.clone(), key.to_owned());
        tokio::task::spawn_blocking(move || {
            let (last, others) = v2.endpoints.split_last().ok_or("no endpoint of v2")?;
            let answer = others.iter().find_map(|endpoint| v2.ask(endpoint, &key).ok());
            answer.map_or_else(|| v2.ask(last, &key), Ok)
        })
        .await?
    }

    fn ask(&self, endpoint: &str, key: &str) -> Result<Values> {
        let escaped = |byte| match byte {
            b'/' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => String::from(char::from(byte)),
            _ => format!("%{byte:02X}"),
        };
        let path: String = key.bytes().map(escaped).collect();
        let mut response = self.agent.get(format!("{endpoint}/v2/keys{path}?quorum=true&recursive=true")).call()?;
        let body: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
        let mut values = Values::new();
        match (response.status().as_u16(), &body["errorCode"]) {
            (200, _) => collect(&body["node"], &mut values),
            // There is no such key, or a key with the name of one of its directories.
            (_, code) if *code == 100 || *code == 104 => {}
            _ => return Err(format!("{endpoint}: {body}").into()),
        }
        Ok(values)
    }
}

fn collect(node: &Value, into: &mut Values) {
    if let (Some(key), Some(value)) = (node["key"].as_str(), node["value"].as_str()) {
        into.insert(key.to_owned(), value.to_owned());
    }
    node["nodes"].as_array().into_iter().flatten().for_each(|child| collect(child, into));
}
