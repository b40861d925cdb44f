//! The next steps of an operator: commands that can be pasted, with the members of the source filled in.
//!
//! Data for the report (`next_steps`) and for the end of the summary. Knows what each etcd release accepts
//! (docs/formats.md 10.1, 10.5, 11.1). Must not know how the output was made.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::facts::{Layout, Member, SourceKind};
use super::model::{NextStep, OutputFacts, OutputMember, Purpose, Report};
use crate::display::{is_hidden, printable};
use crate::options::{Target, To};
use crate::v2store::membership::is_made_up;

/// The default quota of etcd, in bytes.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// The maximum number of bytes of all restore commands. Linux limits an argument to 128 KiB, and clusters have few
/// members.
const MOST_BYTES: usize = 1 << 20;

/// Returns the steps after a conversion; empty if it made no output.
pub(crate) fn steps(report: &Report) -> Vec<NextStep> {
    let Some(output) = report.output.as_ref().filter(|_| !report.options.dry_run) else { return Vec::new() };
    let members = members(report);
    let mut steps = Vec::new();
    if report.options.to.is_directory() {
        steps.extend(output.members.iter().map(|member| start_step(member, &members)));
    } else {
        steps.extend(restore_steps(report, &members));
        steps.extend(install_step(report, &members));
    }
    let expect = Some(output.hash_kv.to_string());
    steps.push(NextStep { member: None, purpose: Purpose::Check, command: check(report, output, &members), expect });
    steps
}

/// Returns the steps as text; empty after a dry run. Commands of more than `columns` columns continue on the next line.
pub(super) fn text(report: &Report, output: &OutputFacts, columns: usize) -> String {
    let mut text = String::new();
    if report.options.dry_run {
        return text;
    }
    let mut say = |line: &str, command: &str| text.push_str(&format!("{line}\n{}", lines(command, columns)));
    let of = |purpose: Purpose| report.next_steps.iter().filter(move |step| step.purpose == purpose);
    for step in of(Purpose::Restore) {
        let place = step.member.as_ref().map_or("every member".into(), |member| printable(member));
        say(&format!("next, on {place}:"), &step.command);
    }
    for step in of(Purpose::Start) {
        let place = step.member.as_ref().map_or("every member".into(), |member| printable(member));
        say(&format!("next, on {place}:"), &step.command);
    }
    if report.options.to == To::Member {
        say("add --enable-v2 to serve the v2 keys too", "");
    }
    for step in of(Purpose::Install) {
        say("or instead, in the directory of that member, with etcd stopped:", &step.command);
    }
    for step in of(Purpose::Check) {
        let hash = step.expect.as_deref().unwrap_or_default();
        let who = if has_learner(output) { "every voter" } else { "every member" };
        say(&format!("then, before the first write: {who} must print the hash {hash}"), &step.command);
        if step.command.contains("https://") {
            say("client URLs are https: add --cacert; add --cert and --key if the servers ask", "");
        }
    }
    if output.leases > 0 {
        let cluster = if report.options.to == To::Member { "cluster" } else { "new cluster" };
        say(&format!("leases start counting when the {cluster} elects its leader"), "");
    }
    if output.db_bytes > DEFAULT_QUOTA {
        say("the database exceeds the default quota of etcd (2 GiB): start etcd with", "");
        text.push_str(&format!("  --quota-backend-bytes={}\n", quota_for(output.db_bytes)));
    }
    text
}

/// Indents a command. If it is too long, each option has a line of its own, with a backslash at the end of the
/// previous one.
pub(super) fn lines(command: &str, columns: usize) -> String {
    if command.is_empty() {
        return String::new();
    }
    let one = format!("  {command}\n");
    if one.trim_end().chars().count() <= columns { one } else { format!("  {}\n", parts(command).join(" \\\n    ")) }
}

/// Splits a command before each option that is not in quotes.
fn parts(command: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escapes) = (0, false, false);
    let mut previous = ' ';
    let mut chars = command.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => (quoted, escapes) = (!quoted, !quoted && previous == '$'),
            // What follows is taken as it is.
            '\\' if !quoted || escapes => drop(chars.next()),
            ' ' if !quoted && command.get(at..).is_some_and(|rest| rest.starts_with(" --")) => {
                parts.extend(command.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
        previous = c;
    }
    parts.extend(command.get(start..).filter(|part| !part.is_empty()));
    parts
}

/// Returns half as much again, in whole GiB: room to write before the quota alarm.
fn quota_for(db_bytes: u64) -> u64 {
    db_bytes.saturating_add(db_bytes / 2).div_ceil(1 << 30).saturating_mul(1 << 30)
}

/// A member of the new cluster.
struct NewMember<'r> {
    name: String,
    peer_urls: &'r [String],
    client_urls: &'r [String],
}

/// Returns the members of the source for a restore; empty if one of them cannot be restored.
fn members(report: &Report) -> Vec<NewMember<'_>> {
    let source = &report.source;
    let voters: HashSet<&String> = source.voters.iter().collect();
    let votes = |member: &&Member| voters.contains(&member.id);
    // A restore must not make a learner a voter.
    let any_votes = source.members.iter().any(|member| votes(&member));
    let live: Vec<&Member> = source.members.iter().filter(|member| !any_votes || votes(member)).collect();
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    live.iter().for_each(|member| *times.entry(&member.name).or_default() += 1);
    let mut urls: Vec<&String> = live.iter().flat_map(|member| &member.peer_urls).collect();
    let count = urls.len();
    urls.sort();
    urls.dedup();
    // Each command names the whole cluster. A command that is too long for a shell is useless.
    let cluster: usize = live.iter().map(|m| (m.name.len() + 17) * m.peer_urls.len() + urls_len(m)).sum();
    if cluster.saturating_mul(live.len()) > MOST_BYTES {
        return Vec::new();
    }
    let usable = |member: &&Member| {
        !member.peer_urls.is_empty()
            && member.peer_urls.iter().all(|url| is_url(url))
            && !is_made_up(&member.name, &member.peer_urls)
    };
    if urls.len() != count || !live.iter().all(usable) {
        return Vec::new();
    }
    let new = |member: &&'_ Member| -> String {
        let name = member.name.as_str();
        let plain = !name.contains(['=', ',']) && !name.chars().any(is_hidden);
        match times.get(name) {
            _ if name.is_empty() || !plain => member.id.clone(),
            Some(1) => name.to_string(),
            _ => format!("{name}-{}", member.id),
        }
    };
    live.iter()
        .map(|member| NewMember { name: new(member), peer_urls: &member.peer_urls, client_urls: &member.client_urls })
        .collect()
}

fn urls_len(member: &Member) -> usize {
    member.peer_urls.iter().map(String::len).sum()
}

/// Returns whether etcd accepts this as a peer URL: a scheme, a host and a port, and no path.
fn is_url(url: &str) -> bool {
    let rest = ["http://", "https://", "unix://", "unixs://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let port = rest.and_then(|rest| rest.rsplit_once(':')).map(|(_, port)| port);
    let plain = !url.contains(',') && !url.chars().any(|c| is_hidden(c) || c.is_whitespace());
    plain && port.is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn restore_steps(report: &Report, members: &[NewMember<'_>]) -> Vec<NextStep> {
    let tool = match report.options.target {
        Target::V3_4 => "ETCDCTL_API=3 etcdctl",
        Target::V3_5 | Target::V3_6 | Target::V3_7 => "etcdutl",
    };
    let skip = match report.options.to {
        To::Snapshot => "",
        To::Backend | To::DataDir | To::Member => " --skip-hash-check",
    };
    let file = quoted(&report.options.output);
    let command = |name: &str, cluster: &str, urls: &str, dir: &str| {
        let (name, cluster) = (option("--name", name), option("--initial-cluster", cluster));
        format!(
            "{tool} snapshot restore {file}{skip} {name} {cluster} --initial-advertise-peer-urls {urls} --data-dir {dir}"
        )
    };
    let step = |member, command| NextStep { member, purpose: Purpose::Restore, command, expect: None };
    if members.is_empty() {
        return vec![step(None, command("NAME", "NAME=PEER_URL,...", "PEER_URL", "NAME.v3.etcd"))];
    }
    let pairs = members.iter().flat_map(|member| member.peer_urls.iter().map(|url| format!("{}={url}", member.name)));
    let cluster = pairs.collect::<Vec<_>>().join(",");
    let of = |member: &NewMember<'_>| {
        // Not etcd's default name, which the directory of the v2 data may have.
        let dir = quoted(Path::new(&format!("{}.v3.etcd", member.name.replace('/', "_"))));
        let urls = word(&member.peer_urls.join(","));
        step(Some(member.name.clone()), command(&member.name, &cluster, &urls, &dir))
    };
    members.iter().map(of).collect()
}

/// Returns the step that starts a member of a new cluster. The log in its directory names the other members, so the
/// command needs no `--initial-cluster`.
fn start_step(member: &OutputMember, of_source: &[NewMember<'_>]) -> NextStep {
    let clients = of_source.iter().find(|known| known.name == member.name && known.peer_urls == member.peer_urls);
    let clients =
        clients.map(|known| known.client_urls).filter(|urls| !urls.is_empty() && urls.iter().all(|url| is_url(url)));
    let listed = |urls: &[String]| word(&urls.join(","));
    let heard = |urls: &[String]| word(&urls.iter().map(|url| listening(url)).collect::<Vec<_>>().join(","));
    let (listen, advertise) = match clients {
        Some(urls) => (heard(urls), listed(urls)),
        None => ("CLIENT_URL".into(), "CLIENT_URL".into()),
    };
    let command = format!(
        "etcd {} --data-dir {} --listen-peer-urls {} --initial-advertise-peer-urls {} --listen-client-urls {listen} \
         --advertise-client-urls {advertise}",
        option("--name", &member.name),
        quoted(Path::new(&member.directory)),
        heard(&member.peer_urls),
        listed(&member.peer_urls),
    );
    NextStep { member: Some(member.name.clone()), purpose: Purpose::Start, command, expect: None }
}

/// Returns the URL on which a member listens that has this URL for others. etcd listens only on addresses: for a host
/// name, on all of the machine.
fn listening(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let Some((host, port)) = rest.rsplit_once(':') else { return url.to_string() };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = address.parse::<IpAddr>().is_ok() || host == "localhost" || scheme.starts_with("unix");
    if is_address { url.to_string() } else { format!("{scheme}://0.0.0.0:{port}") }
}

/// Returns the step that installs a backend in this member's own directory, if the release can continue from it
/// (docs/formats.md 11.1). With other voters, the backend would differ from theirs.
fn install_step(report: &Report, members: &[NewMember<'_>]) -> Option<NextStep> {
    let source = &report.source;
    let [root] = report.options.sources.as_slice() else { return None };
    let [member] = members else { return None };
    let of_3 = source.cluster_version.as_ref().is_some_and(|version| version.starts_with("3."));
    let of_3 = of_3 && source.old_cluster_version.is_none();
    let takes_it = match report.options.target {
        Target::V3_4 => true,
        Target::V3_5 => of_3,
        Target::V3_6 | Target::V3_7 => false,
    };
    let own = matches!(source.kind, SourceKind::DataDir | SourceKind::WalOnly) && source.layout == Some(Layout::Member);
    if report.options.to != To::Backend || !takes_it || !own || source.voters.len() != 1 {
        return None;
    }
    let (file, db) = (quoted(&report.options.output), quoted(&root.join("member/snap/db")));
    let command = format!("install -m 600 {file} {db}");
    Some(NextStep { member: Some(member.name.clone()), purpose: Purpose::Install, command, expect: None })
}

/// Returns the command that asks every member for its hash. Releases before 3.4.27 and 3.5 before 3.5.10 refuse a
/// compacted revision (docs/formats.md 10.1). Without a revision, every release answers for its current one.
fn check(report: &Report, output: &OutputFacts, members: &[NewMember<'_>]) -> String {
    let tool = match report.options.target {
        Target::V3_4 => "ETCDCTL_API=3 etcdctl",
        Target::V3_5 | Target::V3_6 | Target::V3_7 => "etcdctl",
    };
    // A new cluster may have other members than the source.
    let others = report.options.to == To::DataDir && !report.options.cluster.members_from_source;
    let members = if others { &[] } else { members };
    let endpoints: Vec<&str> = members.iter().filter_map(|member| Some(member.client_urls.first()?.as_str())).collect();
    let known = !endpoints.is_empty() && endpoints.len() == members.len() && endpoints.iter().all(|url| is_url(url));
    // Without `--cluster` if possible: etcdctl 3.4 does not log in to query the members.
    let (endpoints, cluster) = match known {
        true => (word(&endpoints.join(",")), ""),
        false if has_learner(output) => ("CLIENT_URL,...".to_string(), ""),
        false => ("CLIENT_URL".to_string(), " --cluster"),
    };
    let user = if output.auth_enabled { " --user root" } else { "" };
    let refused = report.options.target <= Target::V3_5 && output.revision <= output.compact_revision;
    let revision = if refused { String::new() } else { format!(" --rev {}", output.revision) };
    format!("{tool} --endpoints {endpoints}{user} endpoint hashkv{cluster}{revision}")
}

/// Returns whether a member of the output does not vote. It answers no request for its hash.
fn has_learner(output: &OutputFacts) -> bool {
    output.members.iter().any(|member| member.is_learner)
}

/// Quotes a path for a shell, so that it is never an option.
pub(crate) fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    if bytes.starts_with(b"-") {
        return shell_word(&[b"./", bytes].concat());
    }
    shell_word(bytes)
}

/// Returns an option with its value as words of a shell. A value that begins like an option is joined to the name.
pub(crate) fn option(name: &str, value: &str) -> String {
    let joint = if value.starts_with('-') { '=' } else { ' ' };
    format!("{name}{joint}{}", word(value))
}

/// Quotes text as one word of a shell.
fn word(text: &str) -> String {
    shell_word(OsStr::new(text).as_bytes())
}

/// Quotes bytes as one word of a shell: unquoted if no byte needs quotes, in single quotes if they are printable text,
/// otherwise in `$'…'`, which can express any byte.
fn shell_word(bytes: &[u8]) -> String {
    let bare = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(b);
    if !bytes.is_empty() && bytes.iter().all(bare) {
        return bytes.iter().map(|b| char::from(*b)).collect();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(is_hidden) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let escaped = bytes.iter().map(|b| match b {
                b'\'' | b'\\' => format!("\\{}", char::from(*b)),
                b' '..=b'~' => char::from(*b).to_string(),
                b'\n' => r"\n".to_string(),
                // Exactly three octal digits, so that a digit that follows is not part of the escape.
                _ => format!("\\{b:03o}"),
            });
            format!("$'{}'", escaped.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests;
