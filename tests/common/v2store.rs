//! The JSON of a v2 store, as the `.snap` of a server has it. Values and names are JSON text, so that a test can choose
//! escapes.
//!
//! Children are text too: nodes as [`Node::child`] gives them, joined by commas.

/// The expiration of a node without a TTL.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// A node of the store.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    path: &'a str,
    created: u64,
    modified: u64,
    expires: &'a str,
    value: &'a str,
    /// A JSON object; `null` for a file.
    children: String,
}

impl<'a> Node<'a> {
    /// A file with this created and modified index.
    pub fn file(path: &'a str, index: u64, value: &'a str) -> Self {
        Self { path, created: index, modified: index, expires: NEVER, value, children: "null".to_string() }
    }

    /// A directory with these children.
    pub fn dir(path: &'a str, index: u64, children: &str) -> Self {
        Self { children: format!("{{{children}}}"), ..Self::file(path, index, "") }
    }

    pub fn modified(self, index: u64) -> Self {
        Self { modified: index, ..self }
    }

    pub fn expires(self, at: &'a str) -> Self {
        Self { expires: at, ..self }
    }

    pub fn json(&self) -> String {
        let Self { path, created, modified, expires, value, children } = self;
        format!(
            r#"{{"Path":"{path}","CreatedIndex":{created},"ModifiedIndex":{modified},"ExpireTime":"{expires}","Value":"{value}","Children":{children}}}"#
        )
    }

    /// The node with its name, as its parent contains it.
    pub fn child(&self) -> String {
        format!(r#""{}":{}"#, self.path.rsplit('/').next().unwrap(), self.json())
    }
}

/// Text as the JSON of a string, without quotes.
pub fn escaped(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap();
    json[1..json.len() - 1].to_string()
}

/// Children from a list.
pub fn joined(children: impl IntoIterator<Item = String>) -> String {
    children.into_iter().collect::<Vec<_>>().join(",")
}

/// A file below `/1`, where keys are, by its name and its created and modified index.
pub fn leaf(name: &str, index: u64, value: &str) -> String {
    Node::file(&format!("/1/{name}"), index, value).child()
}

/// As [`leaf`], with a TTL.
pub fn leaf_until(name: &str, index: u64, value: &str, expires: &str) -> String {
    Node::file(&format!("/1/{name}"), index, value).expires(expires).child()
}

/// A store with these children of `/1`.
pub fn store(index: u64, children: &str) -> String {
    store_with_events(index, children, "")
}

/// As [`store`], with these events in its history.
pub fn store_with_events(index: u64, children: &str, events: &str) -> String {
    let queue = format!(r#"{{"Events":[{events}],"Size":0,"Front":0,"Back":0,"Capacity":1000}}"#);
    let history = format!(r#"{{"Queue":{queue},"StartIndex":0,"LastIndex":0}}"#);
    store_of(index, &Node::dir("/1", index, children).child(), &history)
}

/// A store with these children of the root, and this history of events.
pub fn store_of(index: u64, children: &str, history: &str) -> String {
    let root = Node::dir("/", 0, children).json();
    format!(
        r#"{{"Root":{root},"WatcherHub":{{"EventHistory":{history}}},"CurrentIndex":{index},"Stats":{{}},"CurrentVersion":2}}"#
    )
}

/// A store with one key and these users and roles, each a name and a document.
pub fn auth_store(users: &[(&str, &str)], roles: &[(&str, &str)]) -> String {
    let documents = |path: &str, of: &[(&str, &str)]| {
        let one =
            |(name, document): &(&str, &str)| Node::file(&format!("{path}/{name}"), 5, &escaped(document)).child();
        Node::dir(path, 0, &joined(of.iter().map(one))).child()
    };
    let auth = joined([documents("/2/roles", roles), documents("/2/users", users)]);
    let children = joined([Node::dir("/1", 0, &leaf("k", 8, "v")).child(), Node::dir("/2", 0, &auth).child()]);
    store_of(9, &children, "null")
}
