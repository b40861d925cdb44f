//! The topics of users and roles: what v2 grants and v3 does not.
//!
//! Must not know the tree outside the auth store.

use super::tallies::Tallies;
use crate::count::counted;
use crate::display::lossy;
use crate::notice::Code;
use crate::options::{AuthPolicy, Guest, Rules};
use crate::report::Notice;
use crate::report::advice::Topic;
use crate::transform::auth::{self, Auth};
use crate::transform::permissions::Range;
use crate::v2store::tree::Tree;

/// Name of the role that requests without a user have.
const GUEST: &[u8] = b"guest";

/// Name of the role with all permissions, which need not exist.
const ROOT: &[u8] = b"root";

/// Counts the topics of users and roles. Returns a warning if they cannot be read.
pub(super) fn read(tree: &mut Tree<'_>, found: &mut Tallies) -> Option<Notice> {
    let names = auth::names(tree);
    // This policy does not refuse a state that only `auth enable` would need.
    let auth = match auth::migrate(tree, AuthPolicy::UsersOnly, Guest::Drop, &Rules::default()) {
        Ok(auth) => auth,
        Err(error) => {
            let users = counted(names.users.len() as u64, "user", "users");
            let message = format!("{users} and {} are not judged: {error}", roles(names.roles.len()));
            return Some(Notice::new(Code::AuthUnreadable, message));
        }
    };
    users(&auth, found);
    for (role, granted) in auth.roles.iter().zip(&auth.granted) {
        let mut ranges: Vec<&Range> = granted.read.iter().chain(&granted.write).collect();
        ranges.sort_unstable();
        ranges.dedup();
        for range in ranges {
            let is_prefix = !is_one_key(range);
            let shown =
                || format!("{}: {}{}", lossy(&role.name), lossy(&range.start), if is_prefix { "*" } else { "" });
            if is_prefix {
                found.add(Topic::WildcardPermission, shown);
            }
            if role.name == GUEST && names.enabled == Some(true) {
                found.add(Topic::GuestAccess, shown);
            }
        }
    }
    None
}

fn users(auth: &Auth, found: &mut Tallies) {
    for user in &auth.users {
        let shown = || lossy(&user.name);
        found.add(Topic::User, shown);
        let exists = |role: &Vec<u8>| role == ROOT || auth.roles.iter().any(|of| of.name == *role);
        if user.roles.is_empty() || !user.roles.iter().all(exists) {
            found.add(Topic::UserWithoutRole, shown);
        }
    }
}

fn is_one_key(range: &Range) -> bool {
    range.end.as_ref().and_then(|end| end.strip_suffix(b"\0")) == Some(&range.start)
}

fn roles(count: usize) -> String {
    counted(count as u64, "role", "roles")
}
