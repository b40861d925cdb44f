//! Standard output: what a command prints, until a signal or the reader ends it.
//!
//! Must not know who prints.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{signals, terminal};
use crate::error::{Error, Reason, Result};

/// Bytes that a pipe accepts without blocking after poll reports it as writable (`PIPE_BUF`).
const PIECE: usize = 4096;

/// Milliseconds between two checks for a signal while nobody reads standard output.
const ASK_EVERY: u16 = 100;

/// Writes to standard output. A reader that closes the pipe early is not an error. A write to one that does not read can be
/// interrupted.
///
/// # Errors
/// Standard output cannot be written; an interruption.
pub(super) fn print(mut bytes: &[u8]) -> Result<()> {
    let out = io::stdout();
    while !bytes.is_empty() {
        signals::check()?;
        let mut waiting = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
        let ready = poll(&mut waiting, PollTimeout::from(ASK_EVERY));
        if ready == Ok(0) {
            continue;
        }
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        match ready.and_then(|_| nix::unistd::write(&out, piece)) {
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(Errno::EPIPE) => break,
            Err(e) => return Err(Error::io(Reason::OutputFailed, Path::new("standard output"), "write", e.into())),
        }
    }
    Ok(())
}

/// Writes text for people to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn print_text(text: &str) -> Result<()> {
    print(terminal::shown(text, &io::stdout()).as_bytes())
}
