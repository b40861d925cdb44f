//! v2 files made or damaged by hand: a `.snap` around any store, the frames of a log.

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::path::Path;

/// A `.snap` file with the right checksum, at this raft index of term 2, with one voter.
pub(crate) fn snap(store: &[u8], index: u8) -> Vec<u8> {
    let mut metadata = vec![0x0a, 2, 0x08, 7];
    metadata.extend([0x10, index, 0x18, 2]);
    let body = [delimited(1, store), delimited(2, &metadata)].concat();
    let mut file = vec![1 << 3];
    put_varint(&mut file, u64::from(crc32c::crc32c(&body)));
    file.extend(delimited(2, &body));
    file
}

/// The store of a v2 server with these nodes below `/1`.
pub(crate) fn store(index: u64, children: &str) -> String {
    let keys = format!(r#""1":{}"#, node("/1", index, &format!(r#""Value":"","Children":{{{children}}}"#)));
    let root = node("/", 0, &format!(r#""Value":"","Children":{{{keys}}}"#));
    let hub = r#"{"EventHistory":{"Queue":{"Events":[],"Size":0,"Front":0,"Back":0,"Capacity":1000},"StartIndex":0,"LastIndex":0}}"#;
    format!(r#"{{"Root":{root},"WatcherHub":{hub},"CurrentIndex":{index},"Stats":{{}},"CurrentVersion":2}}"#)
}

/// The store of a v2 server with these users and roles, each a name and a document.
pub(crate) fn auth_store(users: &[(&str, &str)], roles: &[(&str, &str)]) -> String {
    let folder = |path: &str, children: &str| node(path, 0, &format!(r#""Value":"","Children":{{{children}}}"#));
    let documents = |path: &str, of: &[(&str, &str)]| {
        let one = |(name, document): &(&str, &str)| {
            let value = serde_json::to_string(document).unwrap();
            format!(
                r#""{name}":{}"#,
                node(&format!("{path}/{name}"), 5, &format!(r#""Value":{value},"Children":null"#))
            )
        };
        folder(path, &of.iter().map(one).collect::<Vec<_>>().join(","))
    };
    let (users, roles) = (documents("/2/users", users), documents("/2/roles", roles));
    let children = format!(
        r#""1":{},"2":{}"#,
        folder("/1", &leaf("k", 8, "v")),
        folder("/2", &format!(r#""roles":{roles},"users":{users}"#))
    );
    format!(r#"{{"Root":{},"CurrentIndex":9,"CurrentVersion":2}}"#, folder("/", &children))
}

/// A file node of a store, by its name at the top and its modified index.
pub(crate) fn leaf(name: &str, index: u64, value: &str) -> String {
    let path = format!("/1/{name}");
    format!(r#""{name}":{}"#, node(&path, index, &format!(r#""Value":"{value}","Children":null"#)))
}

fn node(path: &str, index: u64, rest: &str) -> String {
    format!(
        r#"{{"Path":"{path}","CreatedIndex":{index},"ModifiedIndex":{index},"ExpireTime":"0001-01-01T00:00:00Z","ACL":"",{rest}}}"#
    )
}

fn delimited(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    put_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The frames of a log segment of etcd 3.x: where each starts, and its record.
pub(crate) fn frames(segment: &[u8]) -> Vec<(usize, Range<usize>)> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(head) = segment.get(at..at + 8) {
        let length = u64::from_le_bytes(head.try_into().unwrap());
        if length == 0 {
            break;
        }
        let padding = if length >> 63 == 1 { (length >> 56) as usize & 7 } else { 0 };
        let record = at + 8..at + 8 + (length & 0x00ff_ffff_ffff_ffff) as usize;
        frames.push((at, record.clone()));
        at = record.end + padding;
    }
    frames
}

/// Changes a file in place.
pub(crate) fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    write_sparse(path, &bytes);
}

/// Copies a folder. A segment is 64 MB, nearly all of them zeros: they become a hole.
pub(crate) fn copy_sparse(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_sparse(&entry.path(), &target);
        } else {
            write_sparse(&target, &fs::read(entry.path()).unwrap());
        }
    }
}

fn write_sparse(path: &Path, bytes: &[u8]) {
    let zeros = bytes.rchunks(4096).take_while(|chunk| chunk.iter().all(|byte| *byte == 0)).map(<[u8]>::len);
    fs::write(path, &bytes[..bytes.len() - zeros.sum::<usize>()]).unwrap();
    OpenOptions::new().write(true).open(path).unwrap().set_len(bytes.len() as u64).unwrap();
}
