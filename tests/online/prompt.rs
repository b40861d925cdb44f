//! The prompt for a password, on a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::common::peers::{self, Version};
use crate::common::run::{bounded, etcdlift_path, run};
use crate::pair::{Pair, wait_for};
use crate::test_name;

const PROMPT: &str = "password of root: ";
const PATIENCE: Duration = Duration::from_secs(20);

/// A run of etcdlift that asks on a terminal.
struct Asking {
    child: Child,
    /// The side of the person at the terminal.
    person: File,
    /// The side of etcdlift. Open, so that the terminal stays when etcdlift ends.
    terminal: OwnedFd,
    shown: String,
}

impl Asking {
    /// Starts a run, and waits for the prompt.
    fn start(arguments: &[String]) -> Self {
        let pty = openpty(None, None).unwrap();
        let terminal = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = Command::new(etcdlift_path());
        command.args(arguments).env_remove("ETCDLIFT_PASSWORD").env("NO_COLOR", "1");
        let child = command.stdin(terminal()).stdout(terminal()).stderr(terminal()).spawn().unwrap();
        let mut asking = Self { child, person: pty.master.into(), terminal: pty.slave, shown: String::new() };
        let until = Instant::now() + PATIENCE;
        while !asking.shown.contains(PROMPT) {
            assert!(Instant::now() < until, "no prompt: {:?}", asking.shown);
            asking.look(100);
        }
        assert!(!asking.echoes(), "what is typed would be seen");
        asking
    }

    /// Reads what the terminal shows within these milliseconds. Returns whether there was something.
    fn look(&mut self, milliseconds: u8) -> bool {
        let mut ready = [PollFd::new(self.person.as_fd(), PollFlags::POLLIN)];
        let found = poll(&mut ready, PollTimeout::from(milliseconds)).unwrap() > 0;
        if found {
            let mut bytes = [0; 1024];
            let count = self.person.read(&mut bytes).unwrap();
            self.shown += std::str::from_utf8(&bytes[..count]).unwrap();
        }
        found
    }

    fn echoes(&self) -> bool {
        tcgetattr(self.terminal.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    fn types(mut self, text: &str) -> (i32, String) {
        self.person.write_all(text.as_bytes()).unwrap();
        self.end()
    }

    /// Waits for the end. Returns the exit status, and all that the terminal has shown.
    fn end(mut self) -> (i32, String) {
        wait_for("the end of etcdlift", || self.child.try_wait().unwrap().is_some());
        while self.look(0) {}
        assert_eq!(self.shown.matches(PROMPT).count(), 1, "{}", self.shown);
        assert!(self.echoes(), "the terminal stays silent");
        (self.child.wait().unwrap().code().unwrap_or(-1), std::mem::take(&mut self.shown))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_password_is_typed() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let mut pair = Pair::start(&peers, Version::V3_6, &[]);
    pair.set("/a", "v2");
    pair.ctl().does(&["user", "add", "root:secret"]);
    pair.ctl().does(&["user", "grant-role", "root", "root"]);
    pair.ctl().does(&["auth", "enable"]);
    pair.v3_user = Some("root:secret".into());
    let arguments = pair.arguments("copy", &["--once", "--user", "root"]);
    let (status, shown) = Asking::start(&arguments).types("guess\n");
    assert_eq!(status, 5, "{shown}");
    assert!(shown.contains("authentication failed") && !shown.contains("guess"), "{shown}");
    assert_eq!(shown.matches("etcdlift: error:").count(), 1, "{shown}");
    assert!(pair.v3_keys().is_empty());
    let (status, shown) = Asking::start(&arguments).types("secret\n");
    assert_eq!(status, 0, "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    assert_eq!(pair.v3_keys()["/a"], "v2");
    let mut command = bounded(Path::new(etcdlift_path()), 60);
    command.args(arguments).args(["--v2-user", "reader"]).env("ETCDLIFT_PASSWORD", "secret");
    let run = run(command.env_remove("ETCDLIFT_V2_PASSWORD"));
    assert_eq!(run.status, 2, "{}", run.story());
    assert!(run.stderr.starts_with("etcdlift: error: no password for user reader: "), "{}", run.story());
    assert!(run.stderr.ends_with("\nhint: give --v2-password-file, or set ETCDLIFT_V2_PASSWORD\n"), "{}", run.story());
}

/// Nobody answers at this address, but the password comes first.
fn status() -> Vec<String> {
    ["online", "status", "--user", "root", "--endpoints", "http://127.0.0.1:1"].map(String::from).into()
}

#[test]
fn an_interrupt_at_the_prompt_ends_the_run() {
    for (signal, expected) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let asking = Asking::start(&status());
        kill(Pid::from_raw(asking.child.id().cast_signed()), signal).unwrap();
        let (status, shown) = asking.end();
        assert_eq!(status, expected, "{shown}");
    }
}

#[test]
fn the_input_ends_at_the_prompt() {
    let (status, shown) = Asking::start(&status()).types("\x04");
    assert_eq!(status, 2, "{shown}");
    assert!(shown.contains("no password for user root") && shown.contains("hint: give --password-file"), "{shown}");
}

#[test]
fn there_is_no_terminal_to_ask_on() {
    let run = run(bounded(Path::new(etcdlift_path()), 60).args(status()).env_remove("ETCDLIFT_PASSWORD"));
    assert_eq!(run.status, 2, "{}", run.story());
    assert_eq!(
        run.stderr,
        "etcdlift: error: no password for user root: there is no terminal to ask on\n\
         hint: give --password-file, or set ETCDLIFT_PASSWORD\n"
    );
}
