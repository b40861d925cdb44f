//! Golden files: texts and bytes in the repository that a test computes again.
//!
//! If the environment variable `BLESS` is exactly `1`, the file is written; any other value compares.
//! `src/cli/reference.rs` includes this file too, so it uses the standard library only and nothing of `tests/common`.

use std::fs;
use std::path::Path;

/// Compares a file of the repository with what a test computed, or writes the file.
///
/// # Panics
/// If the two differ.
pub(crate) fn golden(file: impl AsRef<Path>, computed: impl AsRef<[u8]>) {
    let (file, computed) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(file), computed.as_ref());
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, computed).unwrap();
    }
    let stored = fs::read(&file).unwrap_or_default();
    assert!(
        stored == computed,
        "{} differs{} (BLESS=1 accepts it)",
        file.display(),
        first_difference(&stored, computed)
    );
}

/// The first line that differs, if both sides are text.
fn first_difference(stored: &[u8], computed: &[u8]) -> String {
    let (Ok(stored), Ok(computed)) = (std::str::from_utf8(stored), std::str::from_utf8(computed)) else {
        return String::new();
    };
    let same = stored.lines().zip(computed.lines()).take_while(|(one, other)| one == other).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(end)").to_string();
    format!(" in line {}:\n- {}\n+ {}\n", same + 1, line(stored), line(computed))
}
