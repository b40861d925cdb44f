//! Passwords: from a file, the environment, or a prompt without echo. Never from the command line, which every user of a
//! machine can list.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::cli::exit::usage;
use crate::cli::signals;
use crate::error::{Error, Reason, Result};

/// Milliseconds after which a signal is seen at the latest.
const LOOK: u8 = 100;

/// Where a password comes from if nobody types it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    /// The file with it.
    pub(super) file: Option<&'a Path>,
    /// The option that names this file.
    pub(super) option: &'static str,
    /// The variable of the environment.
    pub(super) variable: &'static str,
}

/// Reads a password. A line end after it does not count.
///
/// # Errors
/// The file cannot be read; there is neither a file, a variable nor a terminal; a signal.
pub(super) fn read(user: &str, places: Places<'_>) -> Result<String> {
    let Places { file, option, variable } = places;
    if let Some(path) = file {
        let text = fs::read_to_string(path).map_err(|e| Error::io(Reason::Usage, path, "read the password", e))?;
        return Ok(without_end(&text));
    }
    if let Some(password) = std::env::var_os(variable) {
        return password.into_string().map_err(|_| usage(format!("{variable}: expected UTF-8")));
    }
    let missing = |why: &str| {
        usage(format!("no password for user {user}: {why}")).hint(format!("give {option}, or set {variable}"))
    };
    if !io::stdin().is_terminal() {
        return Err(missing("there is no terminal to ask on"));
    }
    match ask(user)?.as_str() {
        "" => Err(missing("the input ended")),
        line => Ok(without_end(line)),
    }
}

/// Returns the line that is typed, with its end; nothing at the end of the input.
fn ask(user: &str) -> Result<String> {
    let failed = |e: io::Error| usage(format!("cannot ask for a password: {e}"));
    let silence = Silence::begin().map_err(failed)?;
    let _ = write!(io::stderr(), "password of {user}: ");
    let line = line();
    drop(silence);
    let _ = writeln!(io::stderr());
    line?.map_err(failed)
}

/// Reads a line of the terminal. A signal does not end a read, so the line is awaited first.
fn line() -> Result<io::Result<String>> {
    let stdin = io::stdin();
    loop {
        signals::check()?;
        match poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::from(LOOK)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(error) => return Ok(Err(error.into())),
        }
    }
    let mut line = String::new();
    Ok(stdin.lock().read_line(&mut line).map(|_| line))
}

/// A terminal that does not show what is typed, until this value is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Silence> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &silent)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}

fn without_end(text: &str) -> String {
    text.trim_end_matches(['\r', '\n']).to_string()
}
