//! Programs with input and output through pipes: one thread serves all of them in both directions.
//!
//! A program counts as hung if it neither reads nor writes a byte for the timeout. After any failure, its process group
//! is killed and the program is waited for. It inherits standard error, of which nothing is stored. Must not know the
//! content of the exchange.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;

/// Bytes of one read, and about the size of the pending input.
const PIECE: usize = 1 << 18;

/// Maximum wait for an event in milliseconds, and so the maximum delay of an interruption.
const TICK: u16 = 50;

/// The same while the only pending event is the end of a program.
const END_TICK: u16 = 2;

/// Both directions of the exchange with one program.
pub(super) trait Dialogue {
    /// Appends more input for the program to `out`. Returns `false` if there is no more.
    fn ask(&mut self, out: &mut Vec<u8>) -> Result<bool>;

    /// Accepts output of the program.
    fn answer(&mut self, bytes: &[u8]) -> Result<()>;

    /// Handles the successful end of the program and of its output.
    fn end(&mut self) -> Result<()>;
}

/// Runs the program once for each dialogue, in parallel, until all have ended.
///
/// # Errors
/// [`Reason::TransformerFailed`] if it cannot be started, ends with another status than 0, does not read all its input,
/// or makes no progress for `timeout`; that of a dialogue; an interruption. No process remains in any case.
pub(super) fn converse(
    program: &Path,
    timeout: Duration,
    dialogues: &mut [impl Dialogue],
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let mut processes = Vec::with_capacity(dialogues.len());
    for _ in dialogues.iter() {
        processes.push(Process::start(program, timeout)?);
    }
    let mut piece = vec![0; PIECE];
    while processes.iter().any(|process| !process.finished) {
        interrupt.ask()?;
        let ready = wait(&processes)?;
        for ((process, dialogue), ready) in processes.iter_mut().zip(&mut *dialogues).zip(ready) {
            process.serve(ready, dialogue, &mut piece).map_err(|e| match e.reason() {
                Reason::TransformerFailed | Reason::MemoryLimit => e.in_file(program),
                // An error about a node is in the source file.
                _ => e,
            })?;
        }
    }
    Ok(())
}

/// The operations on a process that need no wait.
#[derive(Clone, Copy, Default)]
struct Ready {
    input: bool,
    output: bool,
}

/// Waits until an operation is possible for some process, or for one tick.
fn wait(processes: &[Process]) -> Result<Vec<Ready>> {
    let mut fds = Vec::new();
    let mut whose = Vec::new();
    for (at, process) in processes.iter().enumerate() {
        if let Some(input) = &process.input {
            fds.push(PollFd::new(input.as_fd(), PollFlags::POLLOUT));
            whose.push((at, true));
        }
        if let Some(output) = &process.output {
            fds.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
            whose.push((at, false));
        }
    }
    let ending = processes.iter().any(|process| !process.finished && process.output.is_none());
    let tick = if ending { END_TICK } else { TICK };
    match poll(&mut fds, PollTimeout::from(tick)) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(vec![Ready::default(); processes.len()]),
        Err(e) => return Err(Error::new(Reason::Internal, format!("cannot wait for a transformer: {e}"))),
    }
    let mut ready = vec![Ready::default(); processes.len()];
    for (fd, (at, is_input)) in fds.iter().zip(whose) {
        let any = fd.any().unwrap_or(false);
        if let Some(ready) = ready.get_mut(at) {
            if is_input { ready.input = any } else { ready.output = any }
        }
    }
    Ok(ready)
}

struct Process {
    child: Child,
    /// Our end of its standard input; `None` when all input is written, or no reader remains.
    input: Option<PipeWriter>,
    /// The other end of it, to read what the program did not read.
    unread: PipeReader,
    /// `None` after its end.
    output: Option<ChildStdout>,
    /// The pending input, from byte `written` on.
    pending: Vec<u8>,
    written: usize,
    /// Whether the dialogue has more input.
    more: bool,
    progress: Instant,
    timeout: Duration,
    /// Whether the program was waited for.
    finished: bool,
}

impl Process {
    fn start(program: &Path, timeout: Duration) -> Result<Process> {
        let failed = |e: io::Error| Error::io(Reason::TransformerFailed, program, "start the transformer", e);
        let (unread, input) = io::pipe().map_err(failed)?;
        // A full pipe must not block us while answers arrive.
        fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| failed(e.into()))?;
        let mut command = Command::new(OsStr::new(program));
        command.process_group(0).stdin(unread.try_clone().map_err(failed)?).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let output = child.stdout.take();
        Ok(Process {
            child,
            input: Some(input),
            unread,
            output,
            pending: Vec::new(),
            written: 0,
            more: true,
            progress: Instant::now(),
            timeout,
            finished: false,
        })
    }

    fn serve(&mut self, ready: Ready, dialogue: &mut impl Dialogue, piece: &mut [u8]) -> Result<()> {
        if self.finished {
            return Ok(());
        }
        if ready.output {
            self.read(dialogue, piece)?;
        }
        if ready.input {
            self.write(dialogue)?;
        }
        if !ready.output && !ready.input {
            self.idle(dialogue)?;
        }
        Ok(())
    }

    fn read(&mut self, dialogue: &mut impl Dialogue, piece: &mut [u8]) -> Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        match output.read(piece) {
            Ok(0) => self.output = None,
            Ok(len) => dialogue.answer(piece.get(..len).unwrap_or_default())?,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(failed(format!("cannot read its answers: {e}"))),
        }
        self.progress = Instant::now();
        Ok(())
    }

    fn write(&mut self, dialogue: &mut impl Dialogue) -> Result<()> {
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
            while self.more && self.pending.len() < PIECE {
                self.more = dialogue.ask(&mut self.pending)?;
            }
        }
        let rest = self.pending.get(self.written..).unwrap_or_default();
        let Some(input) = self.input.as_mut().filter(|_| !rest.is_empty()) else {
            self.input = None;
            return Ok(());
        };
        match input.write(rest) {
            Ok(len) => {
                self.written += len;
                self.progress = Instant::now();
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(failed(format!("cannot write the nodes to it: {e}"))),
        }
    }

    /// Handles a tick without input or output: tests whether the program has ended or hangs.
    fn idle(&mut self, dialogue: &mut impl Dialogue) -> Result<()> {
        if self.has_ended()? {
            // No reader remains for the rest.
            self.input = None;
            if self.output.is_none() {
                let status = self.reap()?;
                let all_read = !self.more && self.written == self.pending.len() && self.nothing_unread()?;
                judge(status, all_read)?;
                return dialogue.end();
            }
        }
        if self.progress.elapsed() > self.timeout {
            let message =
                format!("no progress for {} s: it neither read a node nor wrote an answer", self.timeout.as_secs());
            return Err(failed(message).hint("repair the program, or give it more time with --transformer-timeout"));
        }
        Ok(())
    }

    /// Returns whether it has ended. It is not reaped yet, so its process group keeps its number.
    fn has_ended(&self) -> Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(e) => Err(Error::new(Reason::Internal, format!("cannot wait for the transformer: {e}"))),
        }
    }

    /// Kills the rest of its process group, and waits for the program.
    fn reap(&mut self) -> Result<ExitStatus> {
        // The group does not exist if no process of it remains; no other failure can be handled.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        self.finished = true;
        self.child.wait().map_err(|e| Error::new(Reason::Internal, format!("cannot wait for the transformer: {e}")))
    }

    /// Returns whether the program read all its input. The program and our writing end are closed, so this does not
    /// block.
    fn nothing_unread(&mut self) -> Result<bool> {
        loop {
            match self.unread.read(&mut [0]) {
                Ok(len) => return Ok(len == 0),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(format!("cannot determine what it has not read: {e}"))),
            }
        }
    }

    fn pid(&self) -> Pid {
        // Process ids are positive and far below 2^31.
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.reap();
        }
    }
}

fn judge(status: ExitStatus, has_read_all: bool) -> Result<()> {
    match (status.code(), status.signal()) {
        (Some(0), _) if has_read_all => Ok(()),
        (Some(0), _) => Err(failed("it ended with exit status 0 before it read all nodes")),
        (Some(code), _) => Err(failed(format!("it ended with exit status {code}"))),
        (None, signal) => {
            let signal = signal.unwrap_or(0);
            let name = Signal::try_from(signal).map_or("unknown", Signal::as_str);
            Err(failed(format!("signal {signal} ({name}) ended it")))
        }
    }
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(Reason::TransformerFailed, message).context("the transformer failed")
}
