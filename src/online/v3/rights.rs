//! The ranges of keys that a user may read, from the permissions of its roles. Must not know how these are read.

use super::txn::Scan;

/// A permission: its type, its key, and the end of its range; empty for one key.
pub(super) type Permission = (i32, Vec<u8>, Vec<u8>);

/// The type of a permission that allows no reads.
const WRITE: i32 = 1;

/// The end of all keys.
const END: &[u8] = &[0];

/// Returns the ranges that these permissions allow to read, in the order of keys, none overlapping another.
pub(super) fn readable(permissions: Vec<Permission>) -> Vec<Scan> {
    let mut ranges: Vec<(Vec<u8>, Vec<u8>)> = permissions.into_iter().filter_map(range).collect();
    ranges.sort();
    let mut merged: Vec<Scan> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if last.to == END => break,
            Some(last) if from <= last.to => {
                if to == END || to > last.to {
                    last.to = to;
                }
            }
            _ => merged.push(Scan { from, to, limit: 0, values: false }),
        }
    }
    merged
}

fn range((kind, from, to): Permission) -> Option<(Vec<u8>, Vec<u8>)> {
    // etcd refuses an empty key in a request: the first key of all is a zero byte.
    let from = if from.is_empty() { vec![0] } else { from };
    let to = if to.is_empty() { [&from[..], &[0]].concat() } else { to };
    (kind != WRITE && (to == END || from < to)).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_what_is_only_written_is_left_out() {
        let of = |all: &[(i32, &str, &str)]| -> Vec<(String, String)> {
            let all = all.iter().map(|(kind, from, to)| (*kind, from.as_bytes().to_vec(), to.as_bytes().to_vec()));
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            readable(all.collect()).into_iter().map(|scan| (text(scan.from), text(scan.to))).collect()
        };
        let is = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect()
        };
        assert_eq!(of(&[(2, "c", "d"), (0, "a", "b"), (1, "x", "y")]), is(&[("a", "b"), ("c", "d")]));
        assert_eq!(of(&[(2, "a", "c"), (2, "b", ""), (2, "b", "e"), (2, "e", "f")]), is(&[("a", "f")]));
        assert_eq!(of(&[(0, "k", "")]), is(&[("k", "k\0")]));
        assert_eq!(of(&[(0, "m", "\0"), (0, "a", "z"), (0, "z", "zz")]), is(&[("a", "\0")]));
        assert_eq!(of(&[(0, "", "\0"), (0, "a", "b")]), is(&[("\0", "\0")]));
        assert_eq!(of(&[(0, "b", "a")]), is(&[]));
    }
}
