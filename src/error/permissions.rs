//! The owner and mode of a file, for the message "permission denied".
//!
//! The operating system names neither. If the file cannot be examined, the nearest directory above it is described.
//! Must not know why the file is opened.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

/// Returns owner and mode of `place`, or of the nearest directory above it that can be examined, and the uid of this
/// process. `file` is the subject of the message, whose path is not repeated.
pub(super) fn describe(file: &Path, place: &Path) -> String {
    let process = format!("this process runs as uid {}", geteuid());
    let absolute = std::path::absolute(place);
    let above = absolute.as_deref().unwrap_or(place).ancestors();
    let found = above.enumerate().find_map(|(steps, path)| Some((steps, path, fs::metadata(path).ok()?)));
    let Some((steps, path, metadata)) = found else { return process };
    let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    let owner = format!("owned by uid {uid} and gid {gid}, mode {mode:04o}; {process}");
    if steps == 0 && place == file { owner } else { format!("{}: {owner}", path.display()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_the_owner_the_mode_and_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let uid = geteuid();
        let said = describe(&path, &path);
        assert!(said.starts_with(&format!("owned by uid {uid} and gid ")), "{said}");
        assert!(said.ends_with(&format!(", mode 0640; this process runs as uid {uid}")), "{said}");
        let missing = path.with_file_name("b").join("c");
        assert!(describe(&missing, &missing).starts_with(&format!("{}: owned by", dir.path().display())));
    }
}
