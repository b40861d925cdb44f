//! Small files that an operator names: a report, a rules file. They may be pipes, such as a shell's `<(command)`.
//!
//! Every wait can be interrupted. Must not know the content of the files.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::limits;

/// Milliseconds between two checks for an interruption while a pipe has no data.
const ASK_EVERY: u16 = 100;

/// Reads a regular file or a pipe to its end.
///
/// # Errors
/// `reason` if the file is neither a file nor a pipe, or is longer than [`limits::MAX_NAMED_FILE`]; `reason` or a more
/// specific one by [`Error::io`] if it cannot be opened or read; an interruption.
pub fn read(path: &Path, reason: Reason, action: &str, interrupt: Interrupt<'_>) -> Result<Vec<u8>> {
    let failed = |e| Error::io(reason, path, action, e);
    // Without this flag, opening a pipe waits for a writer.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_char_device() || kind.is_block_device() || kind.is_socket() {
        return Err(Error::new(reason, "expected a regular file or a pipe, found neither").in_file(path));
    }
    let mut bytes = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        interrupt.ask()?;
        if kind.is_fifo() {
            let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::from(ASK_EVERY)) {
                // The next check shows whether a signal concerns this run.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(failed(e.into())),
            }
        }
        match file.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.len() as u64 >= limits::MAX_NAMED_FILE => {
                let message = format!("expected up to {} bytes, found more", limits::MAX_NAMED_FILE);
                return Err(Error::new(reason, message).in_file(path));
            }
            Ok(len) => bytes.extend_from_slice(piece.get(..len).unwrap_or_default()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;

    fn text(path: &Path) -> Result<Vec<u8>> {
        read(path, Reason::Usage, "read it", Interrupt::default())
    }

    #[test]
    fn files_and_pipes_are_read_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("f"), dir.path().join("p"));
        fs::write(&file, vec![7; 200_000]).unwrap();
        assert!(text(&file).unwrap() == vec![7; 200_000]);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(text(&pipe).unwrap().is_empty(), "nobody writes");
        let (reader, mut writer) = std::io::pipe().unwrap();
        let through = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let writing = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(250));
            writer.write_all(&[8; 200_000]).unwrap();
        });
        assert!(text(Path::new(&format!("/dev/fd/{through}"))).unwrap() == vec![8; 200_000]);
        writing.join().unwrap();
    }

    #[test]
    fn an_idle_pipe_can_be_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("p");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Open for reading and writing, so that a writer exists, which writes nothing.
        let held = File::options().read(true).write(true).open(&pipe).unwrap();
        let asked = std::sync::atomic::AtomicU32::new(0);
        let ask = || match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0..3 => Ok(()),
            _ => Err(Error::new(Reason::Interrupted(2), "stop")),
        };
        let error = read(&pipe, Reason::Usage, "read it", Interrupt::new(&ask)).unwrap_err();
        assert_eq!(error.reason(), Reason::Interrupted(2));
        drop(held);
    }

    #[test]
    fn a_file_without_an_end_that_matters_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(limits::MAX_NAMED_FILE + 1).unwrap();
        assert_eq!(text(file.path()).unwrap_err().reason(), Reason::Usage);
    }

    #[test]
    fn devices_are_refused() {
        for path in ["/dev/zero", "/dev/null"] {
            assert_eq!(text(Path::new(path)).unwrap_err().reason(), Reason::Usage, "{path}");
        }
        assert!(text(Path::new("/")).is_err());
    }
}
