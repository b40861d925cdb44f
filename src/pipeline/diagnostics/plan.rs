//! What the plan found: the content of the tree, what becomes of users and roles, and the v3 data of the source.
//!
//! Counts and names become fields of the report, and policies that leave something out become warnings. Must not know
//! how a node is planned, and decides nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Findings;
use super::merge::MergeFindings;
use crate::count::counted;
use crate::display::{first_of, lossy, short};
use crate::notice::Code;
use crate::options::{AuthPolicy, ConvertOptions};
use crate::pipeline::as_of::Proven;
use crate::report::facts::{AuthFacts, ExpiredKey, Oversized};
use crate::report::{Balance, Contents, Count, Notice, Notices, Report, Transformed};
use crate::transform::auth::{Auth, AuthNames};
use crate::transform::inventory::FirstElements;
use crate::transform::lease::MAX_SECONDS;
use crate::transform::plan::Plan;
use crate::transform::policy::Policy;
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree};

/// What the plan found.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct PlanFindings {
    /// The instant of `--as-of last-write`.
    pub(in crate::pipeline) last_write: Option<Proven>,
    pub(in crate::pipeline) contents: Contents,
    pub(in crate::pipeline) auth: AuthFacts,
    pub(in crate::pipeline) balance: Balance,
    /// The work of the transformer, if it ran. It does not name the program.
    pub(in crate::pipeline) transformed: Option<Transformed>,
    pub(in crate::pipeline) notices: Notices,
    /// The v3 data of the source.
    pub(in crate::pipeline) merge: MergeFindings,
}

impl Findings for PlanFindings {
    fn add_to(self, report: &mut Report) {
        if let Some(proven) = self.last_write {
            report.as_of = proven.at.to_string();
            report.as_of_evidence = Some(proven.by);
        }
        (report.contents, report.auth, report.balance) = (self.contents, self.auth, self.balance);
        if let Some(Transformed { nodes, pairs, added, .. }) = self.transformed {
            let made = report.transformed.get_or_insert_default();
            (made.nodes, made.pairs, made.added) = (nodes, pairs, added);
        }
        report.add(self.notices);
        self.merge.add_to(report);
    }
}

impl PlanFindings {
    /// Reports the names of users and roles.
    pub(in crate::pipeline) fn auth_names(&mut self, names: &AuthNames) {
        self.contents.auth_enabled = names.enabled;
        self.contents.users.clone_from(&names.users);
        self.contents.roles.clone_from(&names.roles);
    }

    /// Reports which users, roles and permissions the output has, and which it lacks.
    pub(in crate::pipeline) fn auth(&mut self, options: &ConvertOptions, auth: &Auth) {
        let policy = options.auth;
        self.auth = AuthFacts {
            enabled: auth.enabled,
            users: auth.users.len() as u64,
            roles: auth.roles.len() as u64,
            permissions: auth.roles.iter().map(|role| role.permissions.len() as u64).sum(),
            guest_dropped: auth.guest_dropped,
            widened: auth.widened.clone(),
            cut: auth.cut.clone(),
            matched_nothing: auth.matched_nothing.clone(),
        };
        let contents = &self.contents;
        let there = !contents.users.is_empty() || !contents.roles.is_empty();
        let was_on = contents.auth_enabled == Some(true);
        if policy == AuthPolicy::Ignore && there {
            let (users, roles) = (contents.users.len() as u64, contents.roles.len() as u64);
            let open = if was_on { ": authentication is on in v2, and v3 will be open to everyone" } else { "" };
            let message = format!(
                "{} ({}) and {} ({}) are left out{open}",
                counted(users, "v2 user", "v2 users"),
                first_of(&contents.users),
                counted(roles, "role", "roles"),
                first_of(&contents.roles)
            );
            self.notices.warn(Code::AuthLeftOut, message);
        }
        if policy == AuthPolicy::UsersOnly && was_on {
            self.notices.warnings.push(
                Notice::new(Code::AuthOff, "authentication is on in v2 and will be off in v3")
                    .hint("`etcdctl auth enable` turns it on in the new cluster"),
            );
        }
        if auth.guest_dropped {
            let message = "anonymous clients had rights by the role guest and lose them: v3 clients must log in";
            self.notices.warn(Code::GuestDropped, message);
        }
        if !auth.widened.is_empty() {
            let names: Vec<String> = auth.widened.iter().map(|name| short(name)).collect();
            let message = format!(
                "{} more in v3 than in v2, because etcd 2.1 honours only the first existing role of a user: {}",
                counted(names.len() as u64, "user may do", "users may do"),
                names.join(", ")
            );
            self.notices.warn(Code::RolesWiden, message);
        }
        if options.transformer.is_some() && auth.roles.iter().any(|role| !role.permissions.is_empty()) {
            let message = "permissions apply to the v2 names of keys: if the transformer renames a key, roles can lose or gain \
                           access to it";
            self.notices.warn(Code::PermissionsByV2Names, message);
        }
        if !auth.cut.is_empty() {
            let count = counted(auth.cut.len() as u64, "permission covers", "permissions cover");
            let message = format!("{count} fewer keys, because rules leave keys out: {}", first_of(&auth.cut));
            self.notices.warn(Code::PermissionsCut, message);
        }
        if !auth.matched_nothing.is_empty() {
            let count = counted(auth.matched_nothing.len() as u64, "permission is", "permissions are");
            let message = format!("{count} left out, because no v2 key can match: {}", first_of(&auth.matched_nothing));
            self.notices.warn(Code::PermissionsWithoutKeys, message);
        }
    }

    /// Reports the content of the tree.
    pub(in crate::pipeline) fn contents(&mut self, tree: &Tree<'_>, plan: &Plan, policy: &Policy) {
        let inventory = &plan.inventory;
        let contents = &mut self.contents;
        contents.keys = inventory.keys.keys;
        contents.bytes = inventory.keys.bytes;
        contents.directories = inventory.directories;
        contents.empty_directories = inventory.empty_directories;
        contents.hidden = inventory.hidden;
        contents.ttl = inventory.ttl;
        contents.expired = inventory.expired;
        contents.expired_keys = inventory.expired_keys.iter().map(|(node, at)| expired_key(tree, *node, *at)).collect();
        contents.renamed = plan.renamed;
        contents.decoded = plan.decoded;
        contents.replacements = inventory.replaced;
        contents.oversized = plan
            .oversized
            .iter()
            .map(|(node, bytes)| Oversized { key: key_text(tree, *node), bytes: *bytes })
            .collect();
        contents.first_elements = first_elements(&inventory.first_elements);
        contents.other_elements = Some(inventory.first_elements.others()).filter(|others| others.elements > 0);
        if plan.expired.keys > 0 {
            let message = format!(
                "{} had expired as of {} and {} left out (listed in the report)",
                counted(plan.expired.keys, "key", "keys"),
                policy.as_of.map_or(String::new(), |at| at.to_string()),
                if plan.expired.keys == 1 { "is" } else { "are" }
            );
            self.notices.warnings.push(Notice::new(Code::Expired, message).hint("--expired keep writes them"));
        }
        if plan.beyond_leases > 0 {
            let message = format!(
                "{} with a TTL of more than {MAX_SECONDS} seconds, the longest TTL of a lease: written without a lease",
                counted(plan.beyond_leases, "key", "keys")
            );
            self.notices.warn(Code::TtlTooLong, message);
        }
        for rule in policy.rules.unused().into_iter().map(String::from).chain(policy.ttl.unused()) {
            self.notices.warn(Code::UnusedRule, format!("a rule matched nothing: {rule}"));
        }
    }
}

fn expired_key(tree: &Tree<'_>, node: NodeRef, at: Timestamp) -> ExpiredKey {
    ExpiredKey { key: key_text(tree, node), expiration: at.to_string() }
}

/// Returns the v2 key of a node.
fn key_text(tree: &Tree<'_>, node: NodeRef) -> String {
    lossy(path::user_key(&tree.path(node)))
}

fn first_elements(elements: &FirstElements) -> BTreeMap<String, Count> {
    let mut out: BTreeMap<String, Count> = BTreeMap::new();
    for (name, counted) in elements.listed() {
        let entry = out.entry(lossy(name)).or_default();
        *entry = entry.plus(counted);
    }
    out
}
