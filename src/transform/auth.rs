//! v2 users and roles by name (FORMATS 7.1). Nothing of them is carried over yet, so they are named.

use crate::v2store::overlay::Tree;

/// Who is in the v2 auth store. Names only: no password, no permission leaves this file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AuthNames {
    /// Whether v2 authentication is on; `None` where auth was never used.
    pub enabled: Option<bool>,
    /// Users, sorted.
    pub users: Vec<String>,
    /// Roles, sorted.
    pub roles: Vec<String>,
}

/// Reads the names below `/2`.
pub fn names(tree: &mut Tree<'_>) -> AuthNames {
    let enabled = tree.lookup(b"/2/enabled").ok().map(|node| *tree.value(node) == *b"true");
    AuthNames { enabled, users: children(tree, b"/2/users"), roles: children(tree, b"/2/roles") }
}

fn children(tree: &mut Tree<'_>, dir: &[u8]) -> Vec<String> {
    let Ok(dir) = tree.lookup(dir) else { return Vec::new() };
    tree.children(dir).into_iter().map(|(name, _)| String::from_utf8_lossy(&name).into_owned()).collect()
}
