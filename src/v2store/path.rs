//! Paths of the v2 store: Go's `path.Clean`, components, hidden names (docs/formats.md 6, 6.7).
//!
//! Paths are bytes, not text. [`user_key`] removes the namespace `/1` of user keys. Must not know nodes or the tree.

use std::borrow::Cow;

/// Returns the result of Go's `path.Clean("/" + path)`: rooted, without empty, `.` and `..` components.
pub fn clean(path: &[u8]) -> Cow<'_, [u8]> {
    if is_clean(path) {
        return Cow::Borrowed(path);
    }
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    let mut out = Vec::with_capacity(path.len() + 1);
    for component in components {
        out.push(b'/');
        out.extend_from_slice(component);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Cow::Owned(out)
}

fn is_clean(path: &[u8]) -> bool {
    if path == b"/" {
        return true;
    }
    let Some(rest) = path.strip_prefix(b"/") else { return false };
    // Most paths have no component that begins with a dot.
    let starts = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.']);
    if !path.ends_with(b"/") && !path.windows(2).fold(false, |found, pair| found | starts(pair)) {
        return true;
    }
    rest.split(|b| *b == b'/').all(|component| !matches!(component, b"" | b"." | b".."))
}

/// Returns the components of a clean path; none for the root.
pub fn components(clean: &[u8]) -> impl Iterator<Item = &[u8]> {
    clean.split(|b| *b == b'/').filter(|component| !component.is_empty())
}

/// Returns the directory and the name of a clean path other than the root.
pub fn split(clean: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memrchr(b'/', clean).unwrap_or(0);
    let (dir, name) = clean.split_at_checked(at).unwrap_or_default();
    (if dir.is_empty() { b"/" } else { dir }, name.get(1..).unwrap_or_default())
}

/// Returns whether a component starts with `_`. etcd hides such nodes from listings; a migration must convert them.
pub fn is_hidden(path: &[u8]) -> bool {
    // Most paths have no `_`: a search for the pair itself would prepare a searcher for each path.
    memchr::memchr_iter(b'_', path).any(|at| at.checked_sub(1).and_then(|before| path.get(before)) == Some(&b'/'))
}

/// Returns the client key: the store path without its namespace `/1`.
pub fn user_key(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/1").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("a", "/a"),
            ("/1//a/./b/", "/1/a/b"),
            ("/1/../../x", "/x"),
            ("/1/a/..", "/1"),
            ("/1/...", "/1/..."),
        ] {
            assert_eq!(&*clean(path.as_bytes()), expected.as_bytes(), "{path}");
        }
        assert_eq!(split(b"/a"), (&b"/"[..], &b"a"[..]));
        assert_eq!(split(b"/a/b"), (&b"/a"[..], &b"b"[..]));
        assert_eq!(components(b"/1/a").collect::<Vec<_>>(), [b"1", b"a"]);
        assert!(is_hidden(b"/1/a/_b/c") && !is_hidden(b"/1/a_/b"));
    }
}
