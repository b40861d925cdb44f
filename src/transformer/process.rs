//! Programs that are talked to over their standard input and output: both served at once, on one thread, for all of them.
//!
//! A program counts as hung when it takes no byte and gives none for the timeout. Whatever goes wrong, it is ended with all
//! that is left of its process group, and waited for. Its standard error is ours: nothing of it is kept. Knows nothing of
//! what is said.

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

/// Bytes read at once, and about as many are kept ready to be written.
const PIECE: usize = 1 << 18;

/// How long to wait for something to happen, in milliseconds: how late an interrupt is seen.
const TICK: u16 = 50;

/// The same when there is nothing left but to see the end of a program.
const END_TICK: u16 = 2;

/// Both sides of the talk with one program.
pub(super) trait Dialogue {
    /// Puts more of what the program is to read behind `out`; `false` if there is no more.
    fn ask(&mut self, out: &mut Vec<u8>) -> Result<bool>;

    /// Takes what the program has written.
    fn answer(&mut self, bytes: &[u8]) -> Result<()>;

    /// The program has ended well, and there are no more answers.
    fn end(&mut self) -> Result<()>;
}

/// Runs the program once for each dialogue, side by side, until all have ended.
///
/// # Errors
/// [`Reason::TransformerFailed`]: it cannot be started, ends with another status than 0, does not read to the end, or makes
/// no progress for `timeout`. What a dialogue or `interrupted` returned. No process is left in any case.
pub(super) fn converse(
    program: &Path,
    timeout: Duration,
    dialogues: &mut [impl Dialogue],
    interrupted: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let mut processes = Vec::with_capacity(dialogues.len());
    for _ in dialogues.iter() {
        processes.push(Process::start(program, timeout)?);
    }
    let mut piece = vec![0; PIECE];
    while processes.iter().any(|process| !process.finished) {
        interrupted()?;
        let ready = wait(&processes)?;
        for ((process, dialogue), ready) in processes.iter_mut().zip(&mut *dialogues).zip(ready) {
            process.serve(ready, dialogue, &mut piece).map_err(|e| match e.reason() {
                Reason::TransformerFailed | Reason::MemoryLimit => e.in_file(program),
                // A node that cannot be sent is in another file.
                _ => e,
            })?;
        }
    }
    Ok(())
}

/// What can be done with a process without waiting.
#[derive(Clone, Copy, Default)]
struct Ready {
    input: bool,
    output: bool,
}

/// Waits until something can be done with some process, or for a tick.
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
    /// Our end of its standard input; `None` once all is written, or nobody is left to read it.
    input: Option<PipeWriter>,
    /// The other end of it: what the program has not read can be read here.
    unread: PipeReader,
    /// `None` once it has ended.
    output: Option<ChildStdout>,
    /// What is to be written, from byte `written` on.
    pending: Vec<u8>,
    written: usize,
    /// There is more to be asked for.
    more: bool,
    progress: Instant,
    timeout: Duration,
    /// It was waited for.
    finished: bool,
}

impl Process {
    fn start(program: &Path, timeout: Duration) -> Result<Process> {
        let failed = |e: io::Error| Error::io(Reason::TransformerFailed, program, "start the transformer", e);
        let (unread, input) = io::pipe().map_err(failed)?;
        // A pipe that is full must not make us wait while answers come in.
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
            Err(e) => return Err(failed(format!("its answers cannot be read: {e}"))),
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
            Err(e) => Err(failed(format!("the nodes cannot be written to it: {e}"))),
        }
    }

    /// Nothing can be read or written: has it ended, does it hang?
    fn idle(&mut self, dialogue: &mut impl Dialogue) -> Result<()> {
        if self.has_ended()? {
            // Nobody will read the rest.
            self.input = None;
            if self.output.is_none() {
                let status = self.reap()?;
                let all_read = !self.more && self.written == self.pending.len() && self.nothing_unread()?;
                judge(status, all_read)?;
                return dialogue.end();
            }
        }
        if self.progress.elapsed() > self.timeout {
            let message = format!(
                "no progress for {} s: it has neither read a node nor written an answer; mend it, or give it longer with \
                 --transformer-timeout",
                self.timeout.as_secs()
            );
            return Err(failed(message));
        }
        Ok(())
    }

    /// Whether it has ended. It stays to be waited for, so that its process group keeps its number.
    fn has_ended(&self) -> Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(e) => Err(Error::new(Reason::Internal, format!("cannot wait for the transformer: {e}"))),
        }
    }

    /// Ends what is left of its process group, and waits for it.
    fn reap(&mut self) -> Result<ExitStatus> {
        // The group is gone where nothing of it is left; there is nothing to be done about any other failure.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        self.finished = true;
        self.child.wait().map_err(|e| Error::new(Reason::Internal, format!("cannot wait for the transformer: {e}")))
    }

    /// Whether it has read all that was written to it. Both it and our end for writing are gone: this does not wait.
    fn nothing_unread(&mut self) -> Result<bool> {
        loop {
            match self.unread.read(&mut [0]) {
                Ok(len) => return Ok(len == 0),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(format!("what it has not read cannot be found out: {e}"))),
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
        (Some(0), _) => Err(failed("it ended with exit status 0, but before it had read all nodes")),
        (Some(code), _) => Err(failed(format!("it ended with exit status {code}"))),
        (None, signal) => {
            let signal = signal.unwrap_or(0);
            let name = Signal::try_from(signal).map_or("unknown", Signal::as_str);
            Err(failed(format!("it was ended by signal {signal} ({name})")))
        }
    }
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(Reason::TransformerFailed, message).context("the transformer failed")
}
