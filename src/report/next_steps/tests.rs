//! The next steps of reports with one member, several members and none: the commands as data and as text.
//!
//! The reports are made here; no conversion runs.

use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use super::*;
use crate::options::ConvertOptions;
use crate::report::facts::SourceFacts;

fn member(id: &str, name: &str, peer: &[&str], client: &[&str]) -> Member {
    let list = |urls: &[&str]| urls.iter().map(ToString::to_string).collect();
    Member { id: id.into(), name: name.into(), peer_urls: list(peer), client_urls: list(client), is_learner: false }
}

fn report(members: Vec<Member>) -> Report {
    let mut report = Report::new(&ConvertOptions::new("m0.etcd", "out.db"));
    let voters = members.iter().map(|member| member.id.clone()).collect();
    report.source =
        SourceFacts { kind: SourceKind::DataDir, layout: Some(Layout::Member), members, voters, ..Default::default() };
    report.output = Some(OutputFacts { revision: 7, compact_revision: 7, hash_kv: 123, ..Default::default() });
    report
}

fn three() -> Vec<Member> {
    vec![
        member("a1", "m0", &["http://10.0.0.1:2380", "http://10.0.0.1:7001"], &["http://10.0.0.1:2379"]),
        member("b2", "m 1", &["http://10.0.0.2:2380"], &["http://10.0.0.2:2379", "http://10.0.0.2:4001"]),
        member("c3", "", &["http://10.0.0.3:2380"], &[]),
    ]
}

fn commands(report: &Report, purpose: Purpose) -> Vec<String> {
    steps(report).into_iter().filter(|step| step.purpose == purpose).map(|step| step.command).collect()
}

#[test]
fn each_member_is_restored_with_the_urls_it_had() {
    let restore = commands(&report(three()), Purpose::Restore);
    let cluster = "'m0=http://10.0.0.1:2380,m0=http://10.0.0.1:7001,m 1=http://10.0.0.2:2380,c3=http://10.0.0.3:2380'";
    let line = |name: &str, urls: &str, dir: &str| {
        format!(
            "etcdutl snapshot restore out.db --name {name} --initial-cluster {cluster} --initial-advertise-peer-urls {urls} \
             --data-dir {dir}"
        )
    };
    let expected = [
        line("m0", "http://10.0.0.1:2380,http://10.0.0.1:7001", "m0.v3.etcd"),
        line("'m 1'", "http://10.0.0.2:2380", "'m 1.v3.etcd'"),
        line("c3", "http://10.0.0.3:2380", "c3.v3.etcd"),
    ];
    assert_eq!(restore, expected);
    let members: Vec<_> = steps(&report(three())).into_iter().map(|step| step.member).collect();
    assert_eq!(members, [Some("m0".into()), Some("m 1".into()), Some("c3".into()), None]);
}

#[test]
fn members_that_cannot_be_restored_so_leave_placeholders() {
    let same = || member("a1", "m0", &["http://10.0.0.1:2380"], &[]);
    for members in [
        Vec::new(),
        vec![member("a1", "m0", &[], &[])],
        vec![member("a1", "m0", &["10.0.0.1:2380"], &[])],
        vec![member("a1", "m0", &["http://10.0.0.1:2380/path"], &[])],
        vec![same(), Member { id: "b2".into(), ..same() }],
        vec![member("a1", "etcdctl-v2-backup", &["http://use-flag--force-new-cluster:2080"], &[])],
    ] {
        let restore = commands(&report(members.clone()), Purpose::Restore);
        let [restore] = restore.as_slice() else { panic!("{restore:?}") };
        assert!(restore.contains("--name NAME --initial-cluster NAME=PEER_URL,... "), "{members:?}: {restore}");
        assert!(commands(&report(members), Purpose::Check).iter().all(|check| check.contains("CLIENT_URL")));
    }
}

#[test]
fn equal_names_are_told_apart_and_learners_stay_out() {
    let members = vec![
        member("a1", "default", &["http://10.0.0.1:2380"], &[]),
        member("b2", "default", &["http://10.0.0.2:2380"], &[]),
        member("c3", "learner", &["http://10.0.0.3:2380"], &[]),
    ];
    let mut report = report(members);
    report.source.voters.truncate(2);
    let names: Vec<_> = steps(&report).into_iter().filter_map(|step| step.member).collect();
    assert_eq!(names, ["default-a1", "default-b2"]);
}

#[test]
fn the_check_suits_the_release_and_the_login() {
    let mut report = report(three());
    report.source.members.truncate(2);
    report.source.voters.truncate(2);
    let mut check = |target, compacted, auth| {
        report.options.target = target;
        let output = report.output.as_mut().unwrap();
        (output.compact_revision, output.auth_enabled) = (compacted, auth);
        commands(&report, Purpose::Check).join("\n")
    };
    let endpoints = "--endpoints http://10.0.0.1:2379,http://10.0.0.2:2379";
    let plain = format!("etcdctl {endpoints} endpoint hashkv");
    assert_eq!(check(Target::V3_7, 7, false), format!("{plain} --rev 7"));
    assert_eq!(check(Target::V3_6, 7, true), format!("etcdctl {endpoints} --user root endpoint hashkv --rev 7"));
    assert_eq!(check(Target::V3_5, 7, false), plain);
    assert_eq!(check(Target::V3_5, 6, false), format!("{plain} --rev 7"));
    assert_eq!(check(Target::V3_4, 7, false), format!("ETCDCTL_API=3 {plain}"));
}

#[test]
fn a_backend_is_restored_or_installed_where_it_fits() {
    let mut report = report(three());
    report.options.to = To::Backend;
    report.options.target = Target::V3_4;
    assert!(
        commands(&report, Purpose::Restore).iter().all(|command| command.contains("restore out.db --skip-hash-check"))
    );
    assert_eq!(commands(&report, Purpose::Install), [""; 0]);
    report.source.members.truncate(1);
    report.source.voters.truncate(1);
    assert_eq!(commands(&report, Purpose::Install), ["install -m 600 out.db m0.etcd/member/snap/db"]);
    report.options.target = Target::V3_5;
    assert_eq!(commands(&report, Purpose::Install), [""; 0]);
    report.source.cluster_version = Some("3.4.0".into());
    assert_eq!(commands(&report, Purpose::Install).len(), 1);
    report.options.to = To::Snapshot;
    assert_eq!(commands(&report, Purpose::Install), [""; 0]);
}

#[test]
fn without_an_output_there_is_no_next_step() {
    let mut report = report(three());
    report.options.dry_run = true;
    assert_eq!(steps(&report), []);
    report.options.dry_run = false;
    report.output = None;
    assert_eq!(steps(&report), []);
}

#[test]
fn a_shell_reads_each_path_as_it_is() {
    let bash = Command::new("bash").arg("-c").arg("true").status().is_ok_and(|status| status.success());
    for (bytes, expected) in [
        (&b"/a/b.db"[..], "/a/b.db"),
        (b"-my file's.db", r"'./-my file'\''s.db'"),
        ("é".as_bytes(), "'é'"),
        (b"", "''"),
        (b"a\nb", r"$'a\nb'"),
        (b"\xff1'\\", r"$'\3771\'\\'"),
        (b"\x1b[2J", r"$'\033[2J'"),
    ] {
        let path = std::path::PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
        let said = quoted(&path);
        assert_eq!(said, expected);
        if bash {
            let output = Command::new("bash").arg("-c").arg(format!("printf %s {said}")).output().unwrap();
            let dashed = if bytes.starts_with(b"-") { [b"./", bytes].concat() } else { bytes.to_vec() };
            assert_eq!(output.stdout, dashed, "{said}");
        }
    }
}

/// Not `./-x`, which is another name.
#[test]
fn a_name_that_begins_with_a_dash_stays_a_name() {
    assert_eq!(option("--name", "m0"), "--name m0");
    assert_eq!(option("--name", "-x"), "--name=-x");
    assert_eq!(option("--name", "--a b"), "--name='--a b'");
    let mut report = report(vec![member("a1", "-x", &["http://10.0.0.1:2380"], &[])]);
    let restore = commands(&report, Purpose::Restore).remove(0);
    assert!(restore.contains(" --name=-x --initial-cluster=-x=http://10.0.0.1:2380 "), "{restore}");
    assert!(restore.ends_with(" --data-dir ./-x.v3.etcd"), "{restore}");
    report.options.to = To::DataDir;
    let written = OutputMember { name: "-x".into(), directory: "-out/-x".into(), ..OutputMember::default() };
    report.output.as_mut().unwrap().members = vec![written];
    let start = commands(&report, Purpose::Start).remove(0);
    assert!(start.starts_with("etcd --name=-x --data-dir ./-out/-x "), "{start}");
}

/// Each command would name the whole cluster.
#[test]
fn a_cluster_that_no_command_can_name_leaves_placeholders() {
    let many = |count: usize| {
        let one = |n: usize| member(&format!("{n:x}"), &format!("m{n}"), &[&format!("http://10.0.0.1:{n}")], &[]);
        commands(&report((0..count).map(one).collect()), Purpose::Restore)
    };
    assert_eq!(many(100).len(), 100);
    assert!(many(100).iter().all(|command| !command.contains("PEER_URL")));
    assert!(matches!(many(5000).as_slice(), [command] if command.contains("NAME=PEER_URL,...")));
    let url = "http://10.0.0.1:2380";
    let urls: Vec<String> = (0..4000).map(|n| format!("http://10.0.0.1:{n}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).chain([url]).collect();
    let restore = commands(&report(vec![member("a1", &"n".repeat(1000), &urls, &[])]), Purpose::Restore);
    assert!(matches!(restore.as_slice(), [command] if command.len() < 1000), "{}", restore.len());
}

#[test]
fn a_long_command_continues_before_an_option() {
    let parts_of = |command| parts(command);
    assert_eq!(parts_of("a b --c d --e"), ["a b", "--c d", "--e"]);
    assert_eq!(parts_of("a 'b --c' --d"), ["a 'b --c'", "--d"]);
    assert_eq!(parts_of(r"a 'it'\''s --b' --c"), [r"a 'it'\''s --b'", "--c"]);
    assert_eq!(parts_of(r"a $'\' --b' --c"), [r"a $'\' --b'", "--c"]);
    assert_eq!(parts_of(r"a 'b\' --c"), [r"a 'b\'", "--c"]);
    assert_eq!(lines("a --b c", 80), "  a --b c\n");
    assert_eq!(lines("a --bbbb c --d", 12), "  a \\\n    --bbbb c \\\n    --d\n");
    let bash = Command::new("bash").arg("-c").arg("true").status().is_ok_and(|status| status.success());
    for command in commands(&report(three()), Purpose::Restore).iter().filter(|_| bash) {
        let words = |command: &str| {
            let script = format!("etcdutl() {{ printf '%s\\n' \"$@\"; }}; {command}");
            Command::new("bash").arg("-c").arg(script).output().unwrap().stdout
        };
        let wrapped = lines(command, 80);
        assert!(wrapped.lines().count() == 5, "{wrapped}");
        assert_eq!(words(&wrapped), words(command), "{wrapped}");
    }
}
