//! Runs programs to their end within a bounded time: etcdlift and any other.
//!
//! An [`Output`] has the exit status and both streams, and tells its story in the message of a failed test.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// No run of etcdlift on the corpus takes anywhere near this long.
const ETCDLIFT_SECONDS: u32 = 120;

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// The exit status; 124 if the time ran out, -1 if a signal ended it.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    /// # Panics
    /// If the program failed.
    pub fn success(self) -> Self {
        assert_eq!(self.status, 0, "{}", self.story());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// # Panics
    /// If what was printed is not JSON.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error} in the output of {}", self.story()),
        }
    }

    /// What ran and what came of it, for a failure message.
    pub fn story(&self) -> String {
        let text = self.text();
        let head: String = text.chars().take(2000).collect();
        format!("`{}` ended with {}\n--- stderr\n{}\n--- stdout\n{head}", self.command, self.status, self.stderr)
    }
}

/// The path of etcdlift as this build made it.
pub fn etcdlift_path() -> &'static str {
    env!("CARGO_BIN_EXE_etcdlift")
}

/// Runs etcdlift.
pub fn etcdlift<I, A>(args: I) -> Output
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    run(bounded(Path::new(etcdlift_path()), ETCDLIFT_SECONDS).args(args))
}

/// A command that ends after that many seconds whatever happens, even if the
/// test process is gone by then.
pub fn bounded(program: &Path, seconds: u32) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &seconds.to_string()]).arg(program);
    command
}

pub fn run(command: &mut Command) -> Output {
    let story = describe(command);
    match command.output() {
        Ok(output) => Output {
            command: story,
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Err(error) => panic!("{story}: {error}"),
    }
}

/// Waits for a child, and reads the processor time that the child and its own children used. Other children of this
/// process do not count. The unit of the kernel is 10 ms.
pub fn wait_with_time(child: &mut Child) -> (ExitStatus, Duration) {
    let pid = Pid::from_raw(child.id().cast_signed());
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Fields 14 to 17: user and system time of the child, then of its children. The name in field 2 may have spaces.
    let fields = stat.rsplit(") ").next().unwrap().split(' ');
    let ticks: u64 = fields.skip(14 - 3).take(4).map(|field| field.parse::<u64>().unwrap()).sum();
    (child.wait().unwrap(), Duration::from_millis(10 * ticks))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    // The first four words are `timeout -k 5 SECONDS` where `bounded` made it.
    let skip = if command.get_program() == "timeout" { 4 } else { 0 };
    let words: Vec<_> = words.skip(skip).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// A file of JSON, like a report.
pub fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A script of this text. Not written by this process: another test may be starting a program just now, and that would
/// hold the file open for writing for a moment.
pub fn make_script(path: &Path, text: &str) {
    let script = r#"printf '%s' "$1" >"$2.new" && chmod 755 "$2.new" && mv "$2.new" "$2""#;
    let made = Command::new("sh").args(["-c", script, "sh", text]).arg(path).status();
    assert!(made.unwrap().success());
}

/// Turns a list of complaints into one failure.
///
/// # Panics
/// If there is a complaint.
pub fn all_well<T: Debug + std::fmt::Display>(complaints: &[T]) {
    let text: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{} wrong:\n{}", text.len(), text.join("\n"));
}
