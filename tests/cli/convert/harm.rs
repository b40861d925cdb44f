//! Files that a run must not touch: those of the source, those that another process has open, those of another run, and
//! whatever is not a regular file. And a disk that is full, for every file that a run makes.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

use super::kit::{AS_OF, Case, DEMO_SNAP, DEMO_WAL, demo, one_line};
use crate::common::run::{Output, etcdlift, etcdlift_path, make_script, read_json, run};
use crate::common::scratch::names;
use crate::common::skip::{Need, skip};
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, store};
use crate::test_name;

const TARGETS: [(&str, &str); 4] =
    [("-o", "out.db"), ("--report", "r.json"), ("--ledger", "l.ndjson"), ("--index-map", "i.redb")];

fn convert(source: &Path, targets: &[(&str, PathBuf)], more: &[&str]) -> Output {
    let mut args = vec!["convert".into(), source.as_os_str().to_owned(), "--as-of".into(), AS_OF.into()];
    for (option, path) in targets {
        args.extend([option.into(), path.as_os_str().to_owned()]);
    }
    etcdlift(args.into_iter().chain(more.iter().map(Into::into)))
}

fn targets(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    TARGETS.iter().map(|(option, name)| (*option, folder.join(name))).collect()
}

/// Every way in which a data directory can have its files elsewhere, and the places where these really are.
#[test]
fn a_source_that_links_lead_to_is_not_written_into() {
    let case = Case::new();
    let real = case.demo();
    let with = |name: &str, links: &[(&str, PathBuf)]| {
        let source = case.path(name);
        for (link, to) in links {
            let link = source.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(to, link).unwrap();
        }
        source
    };
    let sources = [
        with("d1", &[("member", real.join("member"))]),
        with("d2", &[("member/wal", real.join("member/wal")), ("member/snap", real.join("member/snap"))]),
        with("d3", &[(DEMO_WAL, real.join(DEMO_WAL)), (DEMO_SNAP, real.join(DEMO_SNAP))]),
    ];
    let bytes = |path: &Path| fs::read(path).unwrap();
    let before = [bytes(&real.join(DEMO_WAL)), bytes(&real.join(DEMO_SNAP))];
    let listed = names(&real.join("member/wal"));
    for source in &sources {
        for (option, _) in TARGETS {
            for path in [real.join(DEMO_WAL), real.join(DEMO_SNAP), real.join("member/wal/new")] {
                let mut targets = vec![(option, path)];
                if option != "-o" {
                    targets.push(("-o", case.out()));
                }
                let output = convert(source, &targets, &["--overwrite"]);
                assert_eq!(output.status, 5, "{}", output.story());
                one_line(&output, &["would be written into the source, which is never changed"]);
                assert_eq!([bytes(&real.join(DEMO_WAL)), bytes(&real.join(DEMO_SNAP))], before);
                assert_eq!((names(&real.join("member/wal")), names(&case.path("out"))), (listed.clone(), vec![]));
            }
        }
    }
}

/// A source that is one file or one folder of a data directory: the others are not written to either.
#[test]
fn a_part_of_a_data_directory_stands_for_all_of_it() {
    let case = Case::new();
    let dir = case.demo();
    let other = dir.join("member/snap/0000000000000002-0000000000000028.snap");
    fs::copy(dir.join(DEMO_SNAP), &other).unwrap();
    let files = [dir.join(DEMO_SNAP), other, dir.join(DEMO_WAL), dir.join("member/snap/db")];
    let before: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let listed = [names(&dir.join("member/snap")), names(&dir.join("member/wal"))];
    let sources = ["member", "member/wal", "member/snap/../wal", DEMO_WAL, DEMO_SNAP];
    for source in sources.map(|name| dir.join(name)) {
        let new = [dir.join("member/snap/new.db"), dir.join("member/wal/new.db")];
        for path in files.iter().chain(&new) {
            for (option, _) in TARGETS {
                let mut targets = vec![(option, path.clone())];
                if option != "-o" {
                    targets.push(("-o", case.out()));
                }
                let output = convert(&source, &targets, &["--overwrite"]);
                assert_eq!(output.status, 5, "{}", output.story());
                assert!(output.stderr.contains("would be written into the source"), "{}", output.story());
            }
        }
        assert!(
            files.iter().zip(&before).all(|(path, bytes)| fs::read(path).unwrap() == *bytes),
            "{}",
            source.display()
        );
        assert_eq!([names(&dir.join("member/snap")), names(&dir.join("member/wal"))], listed);
    }
}

/// A folder of the source, and one of its files, mounted elsewhere.
#[test]
fn a_bind_mount_is_the_source() {
    let case = Case::new();
    let source = case.demo();
    fs::create_dir(case.path("mounted")).unwrap();
    fs::create_dir_all(source.join("member/old")).unwrap();
    fs::create_dir(case.path("mounted2")).unwrap();
    fs::write(case.path("file"), "").unwrap();
    let script = r#"mount --bind "$1/member/wal" "$2" && mount --bind "$3" "$4" || exit 99
        mount --bind "$1/member/old" "${2}2" || exit 99
        out=$5 program=$6 source=$1
        for path in "$2/new" "$2/0000000000000000-0000000000000000.wal" "$4" "${2}2/new"; do
            "$program" convert "$source" -o "$path" --overwrite && exit 1
            "$program" convert "$source" -o "$out" --report "$path" --overwrite && exit 1
        done; ls -A "$2""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "timeout", "60", "sh", "-c", script, "sh"]);
    command.args([&source, &case.path("mounted"), &source.join(DEMO_SNAP), &case.path("file"), &case.out()]);
    let before = fs::read(source.join(DEMO_WAL)).unwrap();
    let output = run(command.arg(etcdlift_path()));
    if output.status == 99 || output.stderr.starts_with("unshare") {
        return skip(test_name!(), Need::Machine, "nothing can be mounted");
    }
    assert_eq!(output.status, 0, "{}", output.story());
    assert_eq!(output.text(), "0000000000000000-0000000000000000.wal\n", "{}", output.story());
    let refused = output.stderr.matches("would be written into the source, which is never changed").count();
    assert_eq!((refused, names(&case.path("out"))), (8, vec![]), "{}", output.story());
    assert!(fs::read(source.join(DEMO_WAL)).unwrap() == before);
}

/// A transformer runs in the middle of a conversion: it makes a link that leads the output into the source.
#[test]
fn a_folder_that_becomes_the_source_meanwhile_is_noticed() {
    for (option, name) in TARGETS {
        let case = Case::new();
        let source = case.demo();
        let folder = case.path("folder");
        fs::create_dir(&folder).unwrap();
        let wal = source.join("member/wal");
        let script = format!("#!/bin/sh\nrm -r '{0}' && ln -s '{1}' '{0}'\ncat\n", folder.display(), wal.display());
        let program = executable(&case, "swap", &script);
        let mut targets = vec![(option, folder.join(name))];
        if option != "-o" {
            targets.push(("-o", case.out()));
        }
        let before = names(&wal);
        let output = convert(&source, &targets, &["--transformer", &program, "--transformer-protocol", "json-lines"]);
        assert_ne!(output.status, 0, "{}", output.story());
        assert_eq!((names(&wal), names(&case.path("out"))), (before, vec![]), "{}", output.story());
    }
}

pub(super) fn executable(case: &Case, name: &str, script: &str) -> String {
    let path = case.path(name);
    make_script(&path, script);
    path.to_str().unwrap().to_string()
}

#[test]
fn a_file_that_another_process_has_locked_is_not_replaced() {
    let case = Case::new();
    let made = targets(&case.path("out"));
    convert(&demo(), &made, &[]).success();
    let before: Vec<Vec<u8>> = made.iter().map(|(_, path)| fs::read(path).unwrap()).collect();
    let refused = |path: &Path| {
        let output = convert(&demo(), &made, &["--overwrite"]);
        assert_eq!(output.status, 5, "{}", output.story());
        let first = output.stderr.lines().next().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(first.contains(name) && first.contains("another process has locked the file"), "{}", output.story());
        let now: Vec<Vec<u8>> = made.iter().map(|(_, path)| fs::read(path).unwrap()).collect();
        assert!(now == before, "{}", output.story());
        assert_eq!(names(&case.path("out")).len(), 4, "{}", output.story());
    };
    for (_, path) in &made {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        refused(path);
        held.unlock().unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        let lock = libc::flock { l_type: libc::F_WRLCK as _, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        refused(path);
    }
    convert(&demo(), &made, &["--overwrite"]).success();
    // The same of an export.
    let out = case.path("out/export");
    let export = || etcdlift(["export", demo().to_str().unwrap(), "-o", out.to_str().unwrap(), "--overwrite"]);
    export().success();
    let _held = Flock::lock(File::open(&out).unwrap(), FlockArg::LockSharedNonblock).unwrap();
    assert_eq!(export().status, 5);
}

#[test]
fn whatever_is_no_regular_file_is_no_target() {
    let case = Case::new();
    let pipe = case.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (option, _) in TARGETS {
        for path in [&pipe, Path::new("/dev/null"), Path::new("/dev/full")] {
            for more in [&[][..], &["--overwrite"]] {
                // Before the work: a source that does not exist is not looked for.
                let mut targets = vec![(option, path.to_path_buf())];
                if option != "-o" {
                    targets.push(("-o", case.out()));
                }
                let output = convert(&case.path("missing"), &targets, more);
                assert_eq!(output.status, 5, "{}", output.story());
                one_line(&output, &[path.to_str().unwrap(), "not a regular file"]);
                assert!(names(&case.path("out")).is_empty(), "{}", output.story());
            }
        }
    }
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    for path in [&pipe, Path::new("/dev/full")] {
        for format in ["ndjson", "redb"] {
            let (source, out) = (case.path("missing"), path.to_str().unwrap());
            let args = ["export", source.to_str().unwrap(), "-o", out, "--overwrite", "--format", format];
            let output = etcdlift(args);
            assert_eq!(output.status, 5, "{}", output.story());
            assert!(output.stderr.contains("regular file"), "{}", output.story());
        }
    }
}

/// Nothing that is waited for, and nothing without an end, where an output or a report may be compared.
#[test]
fn pipes_and_devices_are_not_waited_for() {
    let case = Case::new();
    let made = targets(&case.path("out"));
    convert(&demo(), &made, &[]).success();
    let pipe = case.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for target in [&pipe, Path::new("/dev/zero"), Path::new("/dev/full")] {
        for at in [0, 2, 3] {
            let mut targets = made.clone();
            targets[at].1 = case.path("out/link");
            let _ = fs::remove_file(&targets[at].1);
            symlink(target, &targets[at].1).unwrap();
            // Before the work: a source that does not exist is not looked for.
            let output = convert(&case.path("missing"), &targets, &["--skip-existing"]);
            assert_eq!(output.status, 5, "{}", output.story());
            assert!(output.stderr.contains("out/link: "), "{}", output.story());
            assert!(output.stderr.contains("not a regular file"), "{}", output.story());
            fs::remove_file(&targets[at].1).unwrap();
        }
        let args = ["verify", made[0].1.to_str().unwrap(), "--report", target.to_str().unwrap()];
        assert_eq!(etcdlift(args).status, 5, "{}", target.display());
        let rules = convert(&demo(), &targets(&case.path("other")), &["--rules", target.to_str().unwrap()]);
        assert_eq!(rules.status, if target == pipe { 6 } else { 2 }, "{}", rules.story());
    }
}

#[test]
fn a_file_that_appears_during_the_run_is_not_replaced() {
    for at in 0..4 {
        let case = Case::new();
        let made = targets(&case.path("out"));
        let script = format!("#!/bin/sh\necho theirs >'{}'\nexec cat\n", made[at].1.display());
        let program = executable(&case, "appear", &script);
        let more = ["--transformer", &program, "--transformer-protocol", "json-lines", "--overwrite"];
        let output = convert(&demo(), &made, &more);
        assert_eq!(output.status, 5, "{}", output.story());
        assert!(output.stderr.contains("another process has written the file"), "{}", output.story());
        assert_eq!(fs::read(&made[at].1).unwrap(), b"theirs\n");
        let left = names(&case.path("out"));
        assert!(left.iter().all(|name| made[at].1.ends_with(name) || name == "r.json"), "{left:?}");
    }
}

/// A lone snapshot and a link are parts of a data directory, and protect all of it.
#[test]
fn a_part_of_a_data_directory_protects_its_root() {
    let case = Case::new();
    let source = case.demo();
    let linked = case.path("linked");
    fs::create_dir(&linked).unwrap();
    symlink(source.join("member"), linked.join("member")).unwrap();
    for part in [source.join(DEMO_SNAP), source.join("member"), source.join("member/wal"), linked] {
        let output = convert(&part, &[("-o", source.join("new.db"))], &[]);
        assert_eq!(output.status, 5, "{}", output.story());
        one_line(&output, &["into the source"]);
    }
}

/// A sidecar file that exists has to be the one that this run would make; an empty one is made.
#[test]
fn skip_existing_compares_sidecar_files() {
    let case = Case::new();
    let (made, other) = (targets(&case.path("out")), targets(&case.path("other")));
    fs::create_dir(case.path("other")).unwrap();
    convert(&demo(), &made, &[]).success();
    convert(&demo(), &other, &["--hidden", "drop"]).success();
    for at in [2, 3] {
        let right = fs::read(&made[at].1).unwrap();
        fs::copy(&other[at].1, &made[at].1).unwrap();
        let output = convert(&demo(), &made, &["--skip-existing"]);
        assert_eq!(output.status, 5, "{}", output.story());
        let first = output.stderr.lines().next().unwrap();
        assert!(first.contains(made[at].1.to_str().unwrap()), "{}", output.story());
        fs::write(&made[at].1, "").unwrap();
        let output = convert(&demo(), &made, &["--skip-existing"]).success();
        assert!(fs::read(&made[at].1).unwrap() == right, "{}", output.story());
    }
}

/// Runs that begin at once, over and over: in the end the report tells of the output that is there.
#[test]
fn of_runs_at_once_one_wins_and_its_report_stays() {
    let spawn = |targets: &[(&str, PathBuf)], more: &[&str]| {
        let mut command = Command::new(etcdlift_path());
        command.args(["convert".as_ref(), demo().as_os_str()]).args(["--as-of", AS_OF]).args(more);
        for (option, path) in targets {
            command.arg(option).arg(path);
        }
        command.stderr(Stdio::null()).spawn().unwrap()
    };
    let mut both = 0;
    for round in 0..40 {
        let case = Case::new();
        let made = targets(&case.path("out"));
        let overwrite = round % 2 == 1;
        let options: &[&str] = if overwrite { &["--overwrite"] } else { &[] };
        if overwrite {
            convert(&demo(), &made, &[]).success();
        }
        let kinds = [&["--hidden", "drop"][..], &["--dirs", "marker"], &["--include", "/none"]];
        // A run that makes nothing may take a free name for its report, but never that of an output's report.
        let kinds = if overwrite { &kinds[..] } else { &kinds[..2] };
        let mut runs: Vec<_> = kinds.iter().map(|kind| spawn(&made, &[*kind, options].concat())).collect();
        let won: Vec<bool> = runs.iter_mut().map(|run| run.wait().unwrap().success()).collect();
        let wins = won.iter().filter(|won| **won).count();
        both += usize::from(wins == 2);
        assert!(wins >= 1 && won.get(2) != Some(&true), "round {round}: {won:?}");
        assert_eq!(names(&case.path("out")), ["i.redb", "l.ndjson", "out.db", "r.json"], "round {round}");
        let told = read_json(&made[1].1);
        let verified = etcdlift(["verify".as_ref(), made[0].1.as_os_str(), "--report".as_ref(), made[1].1.as_os_str()]);
        assert_eq!(verified.status, 0, "round {round}, {won:?}: {}", verified.story());
        // Of the ledger too: it has a line for each hidden key that was dropped.
        let ledger = fs::read_to_string(&made[2].1).unwrap();
        let dropped = ledger.contains(r#""reason":"hidden"#);
        assert_eq!(dropped, told["options"]["hidden"] == "drop", "round {round}, {won:?}");
    }
    println!("{both} of 40 rounds were won by two runs, one after the other");
}

#[test]
fn skip_existing_does_not_take_the_report_at_its_word() {
    let case = Case::new();
    let made = targets(&case.path("out"));
    convert(&demo(), &made, &[]).success();
    let skip = |made: &[(&str, PathBuf)]| convert(&demo(), made, &["--skip-existing"]);
    assert!(skip(&made).success().stderr.contains(", left unchanged: "));
    // The sidecar files are made again, as they were.
    for at in [2, 3] {
        let before = fs::read(&made[at].1).unwrap();
        let bytes: Vec<Vec<u8>> = made.iter().map(|(_, path)| fs::read(path).unwrap()).collect();
        fs::remove_file(&made[at].1).unwrap();
        let output = skip(&made).success();
        assert!(fs::read(&made[at].1).unwrap() == before, "{}", output.story());
        assert!(bytes == made.iter().map(|(_, path)| fs::read(path).unwrap()).collect::<Vec<_>>());
    }
    // A dry run makes none.
    let last = fs::read(&made[3].1).unwrap();
    fs::remove_file(&made[3].1).unwrap();
    convert(&demo(), &made, &["--skip-existing", "--dry-run"]);
    assert!(!made[3].1.exists());
    fs::write(&made[3].1, last).unwrap();
    // A file of another kind has that name.
    fs::write(&made[2].1, "notes\n").unwrap();
    let output = skip(&made);
    assert_eq!(output.status, 5, "{}", output.story());
    assert!(output.stderr.contains("no ledger of etcdlift"), "{}", output.story());
    fs::remove_file(&made[2].1).unwrap();
    // An output that is no database, and a sound one of other keys, each with a report that names its hash.
    let other = case.path("other.db");
    convert(&demo(), &[("-o", other.clone())], &["--hidden", "drop"]).success();
    for (bytes, words) in [(vec![0; 16384], "it is damaged"), (fs::read(&other).unwrap(), "another HashKV")] {
        fs::write(&made[0].1, &bytes).unwrap();
        let mut told = read_json(&made[1].1);
        told["output"]["sha256"] = sha256(&made[0].1).into();
        told["output"]["bytes"] = bytes.len().into();
        fs::write(&made[1].1, told.to_string()).unwrap();
        let output = skip(&made);
        assert_eq!(output.status, 5, "{}", output.story());
        assert!(output.stderr.contains(words), "{}", output.story());
        assert!(fs::read(&made[0].1).unwrap() == bytes && !made[2].1.exists());
    }
    // A report that tells all of another output: a sidecar file is made for the source's own output only.
    let mut told = read_json(&made[1].1);
    let others = etcdlift(["inspect".as_ref(), other.as_os_str(), "--json".as_ref()]).success().json();
    for name in ["hash_kv", "status_hash", "pairs", "leases"] {
        told["output"][name] = others[name].clone();
    }
    fs::write(&made[1].1, told.to_string()).unwrap();
    let output = skip(&made);
    assert_eq!(output.status, 5, "{}", output.story());
    assert!(output.stderr.contains("it differs from the source"), "{}", output.story());
    assert!(!made[2].1.exists());
}

fn sha256(path: &Path) -> String {
    let output = run(Command::new("sha256sum").arg(path)).success();
    output.text().split_whitespace().next().unwrap().to_string()
}

/// A page of room below each file in turn, for a run that replaces and for one that does not.
#[test]
fn a_full_disk_is_one_reason_for_every_file() {
    let script = r#"mount -t tmpfs -o size=4k tmpfs "$1" || exit 99
        folder=$1; shift; "$@"; status=$?; ls -A "$folder"; exit $status"#;
    for (full, (option, name)) in TARGETS.iter().enumerate() {
        for overwrite in [false, true] {
            let case = Case::new();
            let small = case.path("small");
            fs::create_dir(&small).unwrap();
            let mut made = targets(&case.path("out"));
            if overwrite {
                convert(&demo(), &made, &[]).success();
            }
            made[full].1 = small.join(name);
            let listed = names(&case.path("out"));
            let before: Vec<Vec<u8>> = listed.iter().map(|n| fs::read(case.path("out").join(n)).unwrap()).collect();
            let mut command = Command::new("unshare");
            command.args(["--mount", "--map-root-user", "timeout", "60", "sh", "-c", script, "sh"]).arg(&small);
            command.args([etcdlift_path(), "convert"]).arg(demo()).args(["--as-of", AS_OF]);
            made.iter().for_each(|(option, path)| {
                command.arg(option).arg(path);
            });
            let output = run(command.args(overwrite.then_some("--overwrite")));
            if output.status == 99 || output.stderr.starts_with("unshare") {
                return skip(test_name!(), Need::Machine, "a small file system cannot be mounted");
            }
            let story = output.story();
            assert_eq!((output.status, output.text().as_str()), (5, ""), "{story}");
            let first = output.stderr.lines().next().unwrap();
            assert!(first.contains(name), "{option}: {story}");
            assert!(first.contains("no room") || first.contains("No space left on device"), "{story}");
            assert!(!first.contains(".etcdlift-"), "a temporary name: {story}");
            let now: Vec<Vec<u8>> = listed.iter().map(|n| fs::read(case.path("out").join(n)).unwrap()).collect();
            assert!(now == before, "{story}");
            if full != 1 && !overwrite {
                assert_eq!(
                    (names(&case.path("out")), &read_json(&made[1].1)["reason"]),
                    (vec!["r.json".into()], &"no-room".into()),
                    "{story}"
                );
            } else {
                assert_eq!(names(&case.path("out")), listed, "{story}");
            }
        }
    }
}

/// The same of an export, in every form.
#[test]
fn a_full_disk_is_the_same_reason_for_an_export() {
    let script = r#"mount -t tmpfs -o size=4k tmpfs "$1" || exit 99
        folder=$1; shift; "$@"; status=$?; ls -A "$folder"; exit $status"#;
    let case = Case::new();
    let small = case.path("small");
    fs::create_dir(&small).unwrap();
    let value = "v".repeat(9000);
    let source = case.file("a.snap", snap(store(9, &leaf("k", 8, &value)).as_bytes(), 9));
    for format in ["ndjson", "redb"] {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "timeout", "60", "sh", "-c", script, "sh"]).arg(&small);
        command.args([etcdlift_path(), "export"]).arg(&source).arg("-o").arg(small.join("out"));
        let output = run(command.args(["--format", format]));
        if output.status == 99 || output.stderr.starts_with("unshare") {
            return skip(test_name!(), Need::Machine, "a small file system cannot be mounted");
        }
        assert_eq!((output.status, output.text().as_str()), (5, ""), "{format}: {}", output.story());
        assert!(output.stderr.contains("No space left on device"), "{format}: {}", output.story());
    }
    let script = r#"exec "$0" export "$1" -o - >/dev/full"#;
    let output = run(Command::new("sh").args(["-c", script, etcdlift_path()]).arg(&source));
    assert_eq!(output.status, 5, "{}", output.story());
}

/// A file that may not grow any more: the limit of the process.
#[test]
fn a_file_size_limit_is_the_same_reason() {
    let case = Case::new();
    let made = targets(&case.path("out"));
    for blocks in [1, 4, 8, 20, 33, 40] {
        let script = format!("ulimit -f {blocks}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", etcdlift_path(), "convert"]).arg(demo());
        made.iter().for_each(|(option, path)| {
            command.arg(option).arg(path);
        });
        let output = run(&mut command);
        assert_eq!(output.status, 5, "{blocks}: {}", output.story());
        assert!(output.stderr.contains("large") || output.stderr.contains("no room"), "{}", output.story());
        let left = names(&case.path("out"));
        assert!(left.is_empty() || left == ["r.json"], "{left:?}: {}", output.story());
        if !left.is_empty() {
            assert_eq!(read_json(&made[1].1)["reason"], "no-room", "{}", output.story());
            fs::remove_file(&made[1].1).unwrap();
        }
    }
}
