//! Damaged bbolt files: reading and checking them is an error or yields the same pairs; never a panic, never endless.
//!
//! The files are made here; each bit, each length and some crafted pages are tried.

use etcdlift::internals::bolt::{Bucket, Damage, Db, Strictness, check, format};
use etcdlift::internals::ids::PageId;

use super::made::{Made, file};

/// A bucket's name and its pairs.
type Content<'a> = Vec<(&'a [u8], Vec<(&'a [u8], &'a [u8])>)>;

/// Branch pages, an overflow page, an inline and an empty bucket; 9 pages.
fn small() -> Vec<u8> {
    let mut rows = vec![(17, 300); 20];
    rows.push((17, 5000));
    let (key, meta, none) = (Made(rows), Made(vec![(17, 9), (30, 40)]), Made(Vec::new()));
    let buckets = [
        Bucket { name: b"key", rows: &key },
        Bucket { name: b"lease", rows: &none },
        Bucket { name: b"meta", rows: &meta },
    ];
    file(&buckets, 1 << 20)
}

fn content(file: &[u8]) -> Result<Content<'_>, Damage> {
    let db = Db::open(file)?;
    let mut content = Vec::new();
    for bucket in &db.root() {
        let bucket = bucket?;
        let mut pairs = Vec::new();
        let tree = db.open_bucket(&bucket)?;
        for pair in &tree {
            let pair = pair?;
            pairs.push((pair.key, pair.value));
        }
        // What can be read in one walk can be read in parts.
        for wanted in [1, 3, 100] {
            let parts = tree.parts(wanted).unwrap().into_iter().flat_map(|part| part.pairs);
            assert!(parts.map(|pair| pair.map(|pair| (pair.key, pair.value)).unwrap()).eq(pairs.iter().copied()));
        }
        content.push((bucket.key, pairs));
    }
    Ok(content)
}

#[test]
fn every_single_bit() {
    let original = small();
    let sound = content(&original).unwrap();
    let mut file = original.clone();
    assert_eq!(check(&Db::open(&file).unwrap(), Strictness::Own).findings, []);
    let mut silent = 0;
    // Every bit of the structure, and one bit of each byte of data or unused space.
    for bit in (0..file.len() * 8).filter(|bit| bit / 8 % 4096 < 512 || bit % 8 == bit / 8 % 8) {
        file[bit / 8] ^= 1 << (bit % 8);
        let read = content(&file);
        let found = Db::open(&file).map(|db| (check(&db, Strictness::Any), check(&db, Strictness::Own)));
        match found {
            Ok((_, own)) if own.is_sound() => {
                // What the structure cannot show: another byte in a name, key or value, or zeros won for the last
                // value.
                assert_eq!(differences(&read.unwrap(), &sound), 1, "bit {bit}: unused bytes are not all looked at");
                silent += 1;
            }
            Ok(_) => {}
            Err(_) => {}
        }
        file[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(silent > 0);
}

/// How many buckets' names or pairs differ.
fn differences(a: &Content<'_>, b: &Content<'_>) -> usize {
    assert_eq!(a.len(), b.len());
    let names = a.iter().zip(b).filter(|(a, b)| a.0 != b.0).count();
    let mut changed = names;
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.1.len(), b.1.len());
        changed += a.1.iter().zip(&b.1).filter(|(a, b)| a != b).count();
    }
    changed
}

#[test]
fn every_length() {
    let file = small();
    for len in 0..file.len() {
        assert!(Db::open(&file[..len]).is_err(), "{len}");
    }
    let longer = [file.as_slice(), &[0; 4096]].concat();
    let db = Db::open(&longer).unwrap();
    assert!(check(&db, Strictness::Any).is_sound() && !check(&db, Strictness::Own).is_sound());
}

#[test]
fn either_meta_page_is_enough_to_read() {
    let file = small();
    let sound = content(&file).unwrap();
    for page in 0..2 {
        let mut damaged = file.clone();
        damaged[page * 4096 + 16..page * 4096 + 80].fill(0xee);
        assert_eq!(content(&damaged).unwrap(), sound);
        assert!(!check(&Db::open(&damaged).unwrap(), Strictness::Any).is_sound());
    }
}

#[test]
fn a_snapshots_trailer_is_set_apart() {
    let file = small();
    let snapshot = [file.as_slice(), &[7; 32]].concat();
    let db = Db::open(&snapshot).unwrap();
    assert_eq!((db.body().len(), db.trailer()), (file.len(), Some(&[7; 32])));
    assert!(check(&db, Strictness::Own).is_sound());
    assert_eq!(Db::open(&file).unwrap().trailer(), None);
}

/// The first branch page of the file.
fn branch(file: &[u8]) -> usize {
    file.chunks(4096).skip(2).position(|page| page[8] == 1).unwrap() + 2
}

fn set_child(file: &mut [u8], page: usize, element: usize, child: u64) {
    let at = page * 4096 + 16 + element * 16 + 8;
    file[at..at + 8].copy_from_slice(&child.to_le_bytes());
}

#[test]
fn cycles_end() {
    let mut file = small();
    let branch = branch(&file);
    set_child(&mut file, branch, 0, branch as u64);
    assert!(content(&file).is_err());
    let found = check(&Db::open(&file).unwrap(), Strictness::Any);
    assert!(found.findings.iter().any(|damage| damage.message.contains("twice")), "{found:?}");
    let tree = Db::open(&file).unwrap().bucket(b"key").unwrap().unwrap();
    assert!(tree.get(b"\0").is_err());
}

#[test]
fn a_page_reached_many_times_ends() {
    let mut file = small();
    let branch = branch(&file);
    for element in 0..3 {
        set_child(&mut file, branch, element, 2);
    }
    assert!(!check(&Db::open(&file).unwrap(), Strictness::Any).is_sound());
    // A wide one: every element of a chain of branch pages names the next page twice; 2^30 leaves without a budget.
    let mut file = vec![0; 40 * 4096];
    for (id, page) in file.chunks_mut(4096).enumerate().skip(2) {
        let flags = if id == 39 { format::FLAG_LEAF } else { format::FLAG_BRANCH };
        let header = format::PageHeader { id: PageId(id as u64), flags, count: 2, overflow: 0 };
        page[..16].copy_from_slice(&header.encode());
        for at in [16, 32] {
            let element = format::BranchElement { pos: 64, key_len: 1, page: PageId(id as u64 + 1) };
            let leaf = format::LeafElement { flags: 0, pos: 64, key_len: 1, value_len: 0 };
            page[at..at + 16].copy_from_slice(&if id == 39 { leaf.encode() } else { element.encode() });
        }
    }
    for id in 0..2u64 {
        let meta = format::Meta {
            magic: format::MAGIC,
            version: format::VERSION,
            page_size: 4096,
            flags: 0,
            root: format::BucketHeader { root: PageId(2), sequence: 0 },
            freelist: format::FREELIST_ABSENT,
            hwm: PageId(40),
            txid: id,
        };
        let at = id as usize * 4096;
        file[at + 16..at + 80].copy_from_slice(&meta.encode());
    }
    let db = Db::open(&file).unwrap();
    assert!(db.root().iter().any(|pair| pair.is_err()));
    // The count of the pairs, and the cut, have a budget too.
    for wanted in [1, 1000, usize::MAX] {
        assert!(db.root().parts(wanted).unwrap_err().message.contains("used twice"));
    }
    assert!(!check(&db, Strictness::Any).is_sound());
}

#[test]
fn elements_that_share_their_data_are_an_error() {
    let mut file = small();
    let (first, second) = (2 * 4096 + 16, 2 * 4096 + 32);
    // The second element points to the first one's pair.
    let pos = u32::from_le_bytes(file[first + 4..first + 8].try_into().unwrap()) - 16;
    file[second + 4..second + 8].copy_from_slice(&pos.to_le_bytes());
    assert!(content(&file).unwrap_err().message.contains("do not start at the end"));
    assert!(!check(&Db::open(&file).unwrap(), Strictness::Any).is_sound());
}

#[test]
fn a_branch_key_that_is_not_its_childs_first_key_is_found() {
    let mut file = small();
    let branch = branch(&file);
    let element = branch * 4096 + 32;
    let pos = u32::from_le_bytes(file[element..element + 4].try_into().unwrap()) as usize;
    // The last byte of the key: it still lies between its neighbours, so `bbolt check` is content.
    file[element + pos + 16] -= 1;
    let found = check(&Db::open(&file).unwrap(), Strictness::Any);
    assert!(found.findings[0].message.contains("differs from the key in its parent"), "{found:?}");
}

proptest::proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>, writes in proptest::collection::vec((0usize..100_000, 0u8..), 1..20)) {
        proptest::prop_assert!(Db::open(&bytes).is_err());
        let mut file = small();
        let len = file.len() - 2 * 4096;
        for (at, byte) in writes {
            // Half of the writes go to the headers and elements at the start of a page.
            let at = if at % 2 == 0 { at % len } else { (at % (len / 4096)) * 4096 + at / 64 % 128 };
            file[2 * 4096 + at] = byte;
        }
        let _ = content(&file);
        let db = Db::open(&file).unwrap();
        let any = check(&db, Strictness::Any);
        let own = check(&db, Strictness::Own);
        proptest::prop_assert!(any.is_sound() || !own.is_sound());
    }
}
