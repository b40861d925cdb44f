//! Passwords: from a file, the environment, or a prompt without echo. Never from the command line, which every user of a
//! machine can list.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::cli::exit::usage;
use crate::error::{Error, Reason, Result};

/// Reads a password. A line end after it does not count.
///
/// # Errors
/// The file cannot be read; there is neither a file, a variable nor a terminal.
pub(super) fn read(user: &str, file: Option<&Path>, variable: &str) -> Result<String> {
    if let Some(path) = file {
        let text = fs::read_to_string(path).map_err(|e| Error::io(Reason::Usage, path, "read the password", e))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_string());
    }
    if let Some(password) = std::env::var_os(variable) {
        return password.into_string().map_err(|_| usage(format!("{variable}: expected UTF-8")));
    }
    if !io::stdin().is_terminal() {
        return Err(usage(format!("no password for user {user}: there is no terminal to ask on"))
            .hint(format!("give a file with it, or set {variable}")));
    }
    ask(user).map_err(|e| usage(format!("cannot ask for a password: {e}")))
}

fn ask(user: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(stdin.as_fd())?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &silent)?;
    let _ = write!(io::stderr(), "password of {user}: ");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &before)?;
    let _ = writeln!(io::stderr());
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}
