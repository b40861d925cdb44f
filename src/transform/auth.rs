//! v2 users and roles, and their form in v3 (docs/formats.md 7.1, 7.2).
//!
//! A user retains the bcrypt hash of the password byte for byte. Patterns of roles become ranges, through the same
//! rules as the keys. What v3 cannot express is refused or named, never widened. Knows the v2 store and the concepts of
//! v3. Must not know how v3 encodes them. A hash leaves this file only inside [`User`], whose `Debug` does not show it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hashbrown::{HashMap, HashSet};
use serde::Deserialize;

use crate::count::counted;
use crate::display::{first_of, short};
use crate::error::{Error, Reason, Result};
use crate::limits::MAX_BOLT_KEY;
use crate::options::{AuthPolicy, Guest, Rules};
use crate::transform::permissions::{Image, KeySets, NoImage, Range, matched};
use crate::transform::rules::shown;
use crate::v2store::tree::Tree;
use crate::words::words;

words! {
    /// A kind of name that authentication has.
    pub enum Principal {
        /// A user.
        User = "user",
        /// A role.
        Role = "role",
    }
}

/// The role with all permissions; it is implied, not stored.
const ROOT: &[u8] = b"root";
/// The role of anonymous clients.
const GUEST: &[u8] = b"guest";

/// The names in the v2 auth store.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AuthNames {
    /// Whether v2 authentication is on; `None` if authentication was never used.
    pub enabled: Option<bool>,
    /// Users, sorted.
    pub users: Vec<String>,
    /// Roles, sorted.
    pub roles: Vec<String>,
}

/// Reads the names below `/2`.
pub fn names(tree: &mut Tree<'_>) -> AuthNames {
    let names = |tree: &mut Tree<'_>, dir: &[u8]| -> Vec<String> {
        children(tree, dir).into_iter().map(|(name, _)| shown(&name).into_owned()).collect()
    };
    // Every server treats an unreadable value as off.
    let enabled = enabled(tree).unwrap_or(Some(false));
    AuthNames { enabled, users: names(tree, b"/2/users"), roles: names(tree, b"/2/roles") }
}

/// Users, roles and the state of authentication in v3.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Whether authentication will be on.
    pub enabled: bool,
    /// Users by name.
    pub users: Vec<User>,
    /// Roles by name.
    pub roles: Vec<Role>,
    /// The v2 rights of each role, in the same order.
    pub granted: Vec<Granted>,
    /// Whether rights of anonymous clients are lost, because v3 has none.
    pub guest_dropped: bool,
    /// Users with rights by a role other than the first existing one, which alone counts in 2.1.
    pub widened: Vec<String>,
    /// Permissions that lost some or all of their keys to rules: role and pattern.
    pub cut: Vec<String>,
    /// Patterns that can match no v2 key: role and pattern.
    pub matched_nothing: Vec<String>,
}

/// A user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: Vec<u8>,
    /// The bcrypt hash of the password; empty without a password.
    pub password: Vec<u8>,
    /// The roles, sorted.
    pub roles: BTreeSet<Vec<u8>>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &shown(&self.name)).field("roles", &self.roles).finish_non_exhaustive()
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The name.
    pub name: Vec<u8>,
    /// The permissions: access by key range, sorted by key.
    pub permissions: BTreeMap<Range, Access>,
}

/// The v2 keys that a role had rights on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Keys that it could read.
    pub read: Vec<Range>,
    /// Keys that it could write.
    pub write: Vec<Range>,
}

/// The kind of access that a permission allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Both.
    ReadWrite,
}

/// Reads the v2 auth store and decides what of it is converted.
///
/// # Errors
/// [`Reason::AuthPresent`] for `--auth fail`; [`Reason::GuestRights`] for rights of anonymous clients that would be
/// lost; [`Reason::AuthInvalid`] if nobody could administer v3, a permission cannot be expressed, or a user or role is
/// unreadable.
pub fn migrate(tree: &mut Tree<'_>, policy: AuthPolicy, guest: Guest, rules: &Rules) -> Result<Auth> {
    let names = names(tree);
    let present = !names.users.is_empty() || !names.roles.is_empty();
    match policy {
        AuthPolicy::Ignore => return Ok(Auth::default()),
        AuthPolicy::Fail if present => {
            let message = format!(
                "--auth fail refuses {} ({}) and {} ({})",
                counted(names.users.len() as u64, "v2 user", "v2 users"),
                first_of(&names.users),
                counted(names.roles.len() as u64, "role", "roles"),
                first_of(&names.roles)
            );
            return Err(Error::new(Reason::AuthPresent, message));
        }
        AuthPolicy::Fail | AuthPolicy::Migrate | AuthPolicy::UsersOnly => {}
    }
    let mut auth = Auth {
        enabled: enabled(tree)? == Some(true) && policy == AuthPolicy::Migrate,
        users: users(tree)?,
        ..Auth::default()
    };
    let guest_rights = auth.read_roles(tree, rules)?;
    auth.widened = widened(tree)?;
    if auth.enabled {
        refuse_lockout(&auth.users)?;
        if guest_rights && guest == Guest::Fail {
            let message =
                "authentication is on, and anonymous clients have rights by the role guest, which v3 cannot express";
            let hint = "accept that they lose access with --guest drop, or give --auth users-only";
            return Err(Error::new(Reason::GuestRights, message).hint(hint));
        }
        auth.guest_dropped = guest_rights;
    }
    Ok(auth)
}

/// Returns whether v2 authentication is on. It must not be guessed: v3 would be open to everyone.
fn enabled(tree: &mut Tree<'_>) -> Result<Option<bool>> {
    let Ok(node) = tree.lookup(b"/2/enabled") else { return Ok(None) };
    let message = "/2/enabled: expected true or false for v2 authentication, found something else";
    serde_json::from_slice(&tree.value(node)).map(Some).map_err(|_| {
        Error::new(Reason::AuthInvalid, message)
            .hint("leave users and roles out with --auth ignore; v3 is then open to everyone")
    })
}

/// Refuses authentication without an administrator: v3 trusts the flag, and nobody could ever change anything.
fn refuse_lockout(users: &[User]) -> Result<()> {
    if users.iter().any(|user| user.name == ROOT && !user.password.is_empty()) {
        return Ok(());
    }
    let message =
        "authentication is on, and the user root with a password does not exist, so nobody could administer v3";
    let hint = "give --auth users-only, which converts users and roles and leaves authentication off";
    Err(Error::new(Reason::AuthInvalid, message).hint(hint))
}

#[derive(Deserialize)]
struct UserJson {
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    roles: Option<Vec<String>>,
}

fn users(tree: &mut Tree<'_>) -> Result<Vec<User>> {
    let mut users = Vec::new();
    for (name, value) in children(tree, b"/2/users") {
        refuse_long(Principal::User, &name)?;
        let json: UserJson = document(&value).ok_or_else(|| unreadable(Principal::User, &name))?;
        let mut roles: BTreeSet<Vec<u8>> = json.roles.into_iter().flatten().map(String::into_bytes).collect();
        if name == ROOT {
            roles.insert(ROOT.to_vec());
        }
        users.push(User { name, password: json.password.unwrap_or_default().into_bytes(), roles });
    }
    Ok(users)
}

/// Returns users whose rights in 2.1 are less than those of all their roles. That server uses only the first existing
/// role. The role root is implied and has all rights.
fn widened(tree: &mut Tree<'_>) -> Result<Vec<String>> {
    let mut patterns: HashMap<Vec<u8>, Patterns> = HashMap::new();
    for (name, value) in children(tree, b"/2/roles") {
        let json: RoleJson = document(&value).ok_or_else(|| unreadable(Principal::Role, &name))?;
        let kv = json.permissions.and_then(|permissions| permissions.kv).unwrap_or_default();
        let set = |patterns: Option<Vec<String>>| patterns.into_iter().flatten().collect();
        patterns.insert(name, Patterns { read: set(kv.read), write: set(kv.write) });
    }
    let mut widened = Vec::new();
    // Users can have roles in common.
    let mut exceeds: HashMap<(*const Patterns, *const Patterns), bool> = HashMap::new();
    for (name, value) in children(tree, b"/2/users") {
        let json: UserJson = document(&value).ok_or_else(|| unreadable(Principal::User, &name))?;
        let roles: Vec<&[u8]> = json.roles.iter().flatten().map(String::as_bytes).collect();
        let exists = |role: &&&[u8]| **role == ROOT || patterns.contains_key(**role);
        let mut existing = roles.iter().filter(exists);
        let Some(first) = existing.next().filter(|first| **first != ROOT && name != ROOT) else { continue };
        let Some(first) = patterns.get(*first) else { continue };
        let mut exceed = |role: &Patterns| {
            let pair = (std::ptr::from_ref(role), std::ptr::from_ref(first));
            *exceeds.entry(pair).or_insert_with(|| role.exceed(first))
        };
        if existing.any(|role| *role == ROOT || patterns.get(*role).is_some_and(&mut exceed)) {
            widened.push(shown(&name).into_owned());
        }
    }
    Ok(widened)
}

/// The patterns of a role.
struct Patterns {
    read: HashSet<String>,
    write: HashSet<String>,
}

impl Patterns {
    /// Returns whether it has a pattern that `others` does not have.
    fn exceed(&self, others: &Patterns) -> bool {
        let within = |own: &HashSet<String>, theirs: &HashSet<String>| {
            own.len() <= theirs.len() && own.iter().all(|pattern| theirs.contains(pattern))
        };
        !within(&self.read, &others.read) || !within(&self.write, &others.write)
    }
}

#[derive(Deserialize)]
struct RoleJson {
    #[serde(default)]
    permissions: Option<Permissions>,
}

#[derive(Deserialize)]
struct Permissions {
    #[serde(default)]
    kv: Option<KvPermissions>,
}

#[derive(Deserialize, Default)]
struct KvPermissions {
    #[serde(default)]
    read: Option<Vec<String>>,
    #[serde(default)]
    write: Option<Vec<String>>,
}

impl Auth {
    /// Reads the roles. Returns whether the role of anonymous clients has any right.
    fn read_roles(&mut self, tree: &mut Tree<'_>, rules: &Rules) -> Result<bool> {
        let mut sets = KeySets::new(rules)?;
        let mut guest_rights = false;
        for (name, value) in children(tree, b"/2/roles") {
            refuse_long(Principal::Role, &name)?;
            let json: RoleJson = document(&value).ok_or_else(|| unreadable(Principal::Role, &name))?;
            let kv = json.permissions.and_then(|permissions| permissions.kv).unwrap_or_default();
            let (read, write) = (kv.read.unwrap_or_default(), kv.write.unwrap_or_default());
            guest_rights |= name == GUEST && !(read.is_empty() && write.is_empty());
            let ranges = |patterns: &[String]| patterns.iter().filter_map(|p| matched(p.as_bytes())).collect();
            self.granted.push(Granted { read: ranges(&read), write: ranges(&write) });
            let mut permissions = BTreeMap::new();
            for (access, pattern) in
                read.iter().map(|p| (Access::Read, p)).chain(write.iter().map(|p| (Access::Write, p)))
            {
                for range in self.image(&mut sets, &name, pattern)?.ranges {
                    let merge = |had: &mut Access| *had = had.and(access);
                    permissions.entry(range).and_modify(merge).or_insert(access);
                }
            }
            self.roles.push(Role { name, permissions });
        }
        for list in [&mut self.cut, &mut self.matched_nothing] {
            // Read and write of one pattern are reported once.
            list.sort();
            list.dedup();
        }
        Ok(guest_rights)
    }

    fn image(&mut self, sets: &mut KeySets<'_>, role: &[u8], pattern: &str) -> Result<Image> {
        let named = || format!("{}: {}", shown(role), short(pattern));
        match sets.image(pattern.as_bytes()) {
            Ok(image) => {
                if image.cut {
                    self.cut.push(named());
                }
                Ok(image)
            }
            Err(NoImage::MatchesNothing) => {
                self.matched_nothing.push(named());
                Ok(Image::default())
            }
            Err(NoImage::TooMany) => {
                let message = format!(
                    "role {}: its permission {} and those before it would be too many ranges of v3 keys with these rules",
                    shown(role),
                    short(pattern)
                );
                let hint = "use fewer rules, or leave users and roles out with --auth ignore";
                Err(Error::new(Reason::AuthInvalid, message).hint(hint))
            }
            Err(NoImage::NoInterval) => {
                let message = format!(
                    "role {}: its permission {} is not a range of v3 keys, because a rule with a regular expression changes \
                     its keys",
                    shown(role),
                    short(pattern)
                );
                let hint = "use prefixes in the rules, or leave users and roles out with --auth ignore";
                Err(Error::new(Reason::AuthInvalid, message).hint(hint))
            }
        }
    }
}

impl Access {
    fn and(self, other: Access) -> Access {
        if self == other { self } else { Access::ReadWrite }
    }
}

/// Returns names and values of the files in a directory, sorted by name.
fn children(tree: &mut Tree<'_>, dir: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Ok(dir) = tree.lookup(dir) else { return Vec::new() };
    let files = tree.children(dir).into_iter().filter(|(_, node)| !tree.is_dir(*node));
    files.map(|(name, node)| (name, tree.value(node).into_owned())).collect()
}

/// Parses a user or a role. The decoder alone would also accept a list of the values of the fields.
fn document<T: for<'de> Deserialize<'de>>(value: &[u8]) -> Option<T> {
    let is_object = value.trim_ascii_start().first() == Some(&b'{');
    if is_object { serde_json::from_slice(value).ok() } else { None }
}

/// Refuses a name that bbolt does not accept as a key.
fn refuse_long(what: Principal, name: &[u8]) -> Result<()> {
    if name.len() as u64 <= u64::from(MAX_BOLT_KEY) {
        return Ok(());
    }
    let message = format!(
        "{what} {}: expected a name of up to {MAX_BOLT_KEY} bytes, the limit of a v3 database",
        short(&shown(name))
    );
    Err(Error::new(Reason::AuthInvalid, message).hint("leave users and roles out with --auth ignore"))
}

fn unreadable(what: Principal, name: &[u8]) -> Error {
    let message =
        format!("{what} {}: expected a v2 {what} as JSON in the store, found something else", short(&shown(name)));
    Error::new(Reason::AuthInvalid, message).hint("leave users and roles out with --auth ignore")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::rules::{Pattern, Rename};
    use crate::v2store::json;

    /// Returns a store with these values below `/2`.
    fn auth_of(enabled: &str, users: &[(&str, &str)], roles: &[(&str, &str)]) -> String {
        let file = |dir: &str, (name, value): &(&str, &str)| {
            let value = serde_json::to_string(value).unwrap();
            format!(r#""{name}":{{"Path":"/2/{dir}/{name}","Value":{value}}}"#)
        };
        let dir = |dir: &str, files: &[(&str, &str)]| {
            let files: Vec<_> = files.iter().map(|pair| file(dir, pair)).collect();
            format!(r#""{dir}":{{"Path":"/2/{dir}","Children":{{{}}}}}"#, files.join(","))
        };
        let enabled = format!(r#""enabled":{{"Path":"/2/enabled","Value":"{enabled}"}}"#);
        let two =
            format!(r#""2":{{"Path":"/2","Children":{{{},{},{enabled}}}}}"#, dir("roles", roles), dir("users", users));
        format!(r#"{{"Root":{{"Path":"/","Children":{{{two}}}}},"CurrentIndex":7}}"#)
    }

    fn migrated(store: &str, policy: AuthPolicy, guest: Guest, rules: &Rules) -> Result<Auth> {
        let table = json::read(store.as_bytes()).unwrap();
        migrate(&mut Tree::new(&table), policy, guest, rules)
    }

    const ROOT_USER: (&str, &str) = ("root", r#"{"user":"root","password":"$2a$10$hash","roles":null}"#);
    const READER: (&str, &str) =
        ("reader", r#"{"role":"reader","permissions":{"kv":{"read":["/a/*","/b"],"write":["/b"]}}}"#);

    #[test]
    fn users_and_roles_are_carried() {
        let bob = ("bob", r#"{"user":"bob","password":"$2a$10$x","roles":["writer","reader","reader"],"grant":["x"]}"#);
        let store = auth_of("true", &[bob, ROOT_USER], &[READER]);
        let auth = migrated(&store, AuthPolicy::Migrate, Guest::Fail, &Rules::default()).unwrap();
        assert!(auth.enabled);
        let names: Vec<_> = auth.users.iter().map(|user| shown(&user.name).into_owned()).collect();
        assert_eq!(names, ["bob", "root"]);
        assert_eq!(auth.users[0].password, b"$2a$10$x");
        let roles = |user: &User| user.roles.iter().map(|role| shown(role).into_owned()).collect::<Vec<_>>();
        assert_eq!(
            (roles(&auth.users[0]), roles(&auth.users[1])),
            (vec!["reader".into(), "writer".into()], vec!["root".into()])
        );
        let permissions: Vec<_> =
            auth.roles[0].permissions.iter().map(|(range, access)| (&range.start[..], *access)).collect();
        assert_eq!(permissions, [(&b"/a/"[..], Access::Read), (b"/b", Access::ReadWrite)]);
        assert!(!format!("{auth:?}").contains("$2a$"), "a hash is shown");
        let only = migrated(&store, AuthPolicy::UsersOnly, Guest::Fail, &Rules::default()).unwrap();
        assert_eq!((only.enabled, only.users.len()), (false, 2));
        assert_eq!(migrated(&store, AuthPolicy::Ignore, Guest::Fail, &Rules::default()).unwrap(), Auth::default());
        let refused = migrated(&store, AuthPolicy::Fail, Guest::Fail, &Rules::default()).unwrap_err();
        assert_eq!(refused.reason(), Reason::AuthPresent);
        assert!(migrated(&auth_of("false", &[], &[]), AuthPolicy::Fail, Guest::Fail, &Rules::default()).is_ok());
    }

    #[test]
    fn anonymous_clients_lose_their_rights_only_when_told_so() {
        let guest = |kv: &str| format!(r#"{{"role":"guest","permissions":{{"kv":{kv}}}}}"#);
        let with = |enabled: &str, kv: &str, policy: AuthPolicy, option: Guest| {
            migrated(&auth_of(enabled, &[ROOT_USER], &[("guest", &guest(kv))]), policy, option, &Rules::default())
        };
        let (rights, none) = (r#"{"read":["*"],"write":[]}"#, r#"{"read":null,"write":[]}"#);
        let refused = with("true", rights, AuthPolicy::Migrate, Guest::Fail).unwrap_err();
        assert_eq!(refused.reason(), Reason::GuestRights);
        assert!(with("true", rights, AuthPolicy::Migrate, Guest::Drop).unwrap().guest_dropped);
        assert!(!with("true", none, AuthPolicy::Migrate, Guest::Fail).unwrap().guest_dropped);
        assert!(!with("false", rights, AuthPolicy::Migrate, Guest::Fail).unwrap().guest_dropped);
        assert!(!with("true", rights, AuthPolicy::UsersOnly, Guest::Fail).unwrap().guest_dropped);
    }

    #[test]
    fn lockouts_and_unreadable_users_are_refused() {
        let refused =
            |store: &str, rules: &Rules| migrated(store, AuthPolicy::Migrate, Guest::Fail, rules).unwrap_err();
        let none = Rules::default();
        assert_eq!(refused(&auth_of("true", &[], &[READER]), &none).reason(), Reason::AuthInvalid);
        let without = ("root", r#"{"user":"root","roles":["root"]}"#);
        assert_eq!(refused(&auth_of("true", &[without], &[]), &none).reason(), Reason::AuthInvalid);
        for unclear in ["", "1", "True", "nonsense"] {
            let store = auth_of(unclear, &[ROOT_USER], &[]);
            let error = refused(&store, &none);
            assert!(error.reason() == Reason::AuthInvalid && error.to_string().contains("/2/enabled"), "{error}");
            assert!(migrated(&store, AuthPolicy::Ignore, Guest::Fail, &none).is_ok());
        }
        let error = refused(&auth_of("true", &[("bob", "$2a$10$secret")], &[]), &none);
        assert_eq!(error.reason(), Reason::AuthInvalid);
        assert!(error.to_string().contains("user bob") && !error.to_string().contains("secret"), "{error}");
        let rename = vec![Rename { from: Pattern::Regex("a".into()), to: "b".into() }];
        let error = refused(&auth_of("true", &[ROOT_USER], &[READER]), &Rules { rename, ..Rules::default() });
        assert!(
            error.reason() == Reason::AuthInvalid && error.to_string().contains("role reader: its permission /a/*")
        );
    }

    #[test]
    fn a_user_or_role_that_is_no_object_is_named() {
        for value in ["[\"$2a$10$secret\",[\"root\"]]", "null", "7", "\"$2a$10$secret\"", ""] {
            for (users, roles) in [([("bob", value)].as_slice(), [].as_slice()), (&[], &[("bob", value)])] {
                let store = auth_of("false", users, roles);
                let error = migrated(&store, AuthPolicy::Migrate, Guest::Fail, &Rules::default()).unwrap_err();
                let text = error.to_string();
                assert!(
                    error.reason() == Reason::AuthInvalid && text.contains(" bob: ") && !text.contains("secret"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_no_database_takes_is_refused() {
        let fits = "n".repeat(32_768);
        let long = format!("{fits}x");
        let (user, role) = ("{\"password\":\"$2a$10$hash\"}", "{\"permissions\":{}}");
        let run = |users: &[(&str, &str)], roles: &[(&str, &str)]| {
            migrated(&auth_of("false", users, roles), AuthPolicy::Migrate, Guest::Fail, &Rules::default())
        };
        assert!(run(&[(&fits, user)], &[(&fits, role)]).is_ok());
        for (what, refused) in [("user n", run(&[(&long, user)], &[])), ("role n", run(&[], &[(&long, role)]))] {
            let error = refused.unwrap_err();
            assert!(error.reason() == Reason::AuthInvalid && error.to_string().contains(what), "{error}");
            assert!(error.to_string().contains("expected a name of up to 32768 bytes"), "{error}");
        }
    }

    #[test]
    fn odd_patterns_are_named() {
        let role = r#"{"role":"odd","permissions":{"kv":{"read":["","x","/ok"],"write":["x"]}}}"#;
        let store = auth_of("false", &[], &[("odd", role)]);
        let auth = migrated(&store, AuthPolicy::Migrate, Guest::Fail, &Rules::default()).unwrap();
        assert_eq!(auth.matched_nothing, ["odd: ", "odd: x"]);
        assert_eq!(auth.roles[0].permissions.len(), 1);
    }
}
