//! Files of the writer, read by our reader, by our check and by an independent reader (`bolt-lite`).
//!
//! The pairs are made here: sizes around a page, many buckets, large values, random pairs.

use etcdlift::error::{Reason, Result};
use etcdlift::internals::bolt::{Bucket, Check, Db, OwnedRows, Rows, Strictness, Tree, check, image, layout};
use proptest::prelude::*;

use super::made::{Made, file};

fn sound(file: &[u8]) -> Check {
    let check = check(&Db::open(file).unwrap(), Strictness::Own);
    assert_eq!(check.findings, []);
    check
}

fn pairs(rows: &dyn Rows) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |row| {
        let (mut key, mut value) = (vec![0; rows.key_len(row) as usize], vec![0; rows.value_len(row) as usize]);
        rows.encode(row, &mut key, &mut value).unwrap();
        (key, value)
    };
    (0..rows.len()).map(pair).collect()
}

fn read(file: &[u8], bucket: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let tree = Db::open(file).unwrap().bucket(bucket).unwrap().unwrap();
    tree.iter().map(|pair| pair.map(|pair| (pair.key.to_vec(), pair.value.to_vec())).unwrap()).collect()
}

/// Writes, checks, reads with both readers, looks up each key.
fn round_trip(buckets: &[(&[u8], &dyn Rows)], target: u64) -> Check {
    let buckets: Vec<_> = buckets.iter().map(|(name, rows)| Bucket { name, rows: *rows }).collect();
    let file = file(&buckets, target);
    let check = sound(&file);
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), &file).unwrap();
    let other = bolt_lite::Bolt::open_ro(path.path()).unwrap();
    let db = Db::open(&file).unwrap();
    assert_eq!(db.size(), file.len() as u64);
    for bucket in &buckets {
        let expected = pairs(bucket.rows);
        assert!(read(&file, bucket.name) == expected, "bucket {:?}", bucket.name);
        // bolt-lite walks whole trees rightly, but looks a bucket up in the wrong child where the root has branch
        // pages.
        if buckets.len() < 10 {
            let transaction = other.begin().unwrap();
            let cursor = transaction.bucket(bucket.name).unwrap().cursor().unwrap();
            assert!(cursor.map(|e| (e.key, e.value)).eq(expected.iter().cloned()), "bolt-lite differs");
        }
        let tree = db.bucket(bucket.name).unwrap().unwrap();
        for wanted in [0, 1, 3, 100, 100_000] {
            in_parts(&tree, wanted, &expected);
        }
        for (key, value) in expected.iter().step_by(expected.len() / 200 + 1) {
            assert_eq!(tree.get(key).unwrap().unwrap().value, value);
            let missing = [key.as_slice(), b"\0"].concat();
            assert_eq!(tree.get(&missing).unwrap(), None);
        }
    }
    assert!(db.bucket(b"no such bucket").unwrap().is_none());
    check
}

/// The parts of a bucket have all its pairs, in order, and there are enough of them if there are enough leaf pages.
fn in_parts(tree: &Tree<'_>, wanted: usize, expected: &[(Vec<u8>, Vec<u8>)]) {
    let parts = tree.parts(wanted).unwrap();
    // A leaf page of these rows has at most 120 pairs, or all.
    let enough = wanted.div_ceil(16).min(expected.len() / 120);
    assert!(parts.len() >= enough, "{} parts of {} pairs", parts.len(), expected.len());
    let mut at = 0;
    for part in parts {
        assert_eq!(part.first, at as u64);
        let found: Vec<_> = part.pairs.map(Result::unwrap).collect();
        assert_eq!(found.len() as u64, part.len);
        let pairs = found.iter().map(|pair| (pair.key, pair.value));
        assert!(pairs.eq(expected[at..at + found.len()].iter().map(|(key, value)| (&key[..], &value[..]))));
        at += found.len();
    }
    assert_eq!(at, expected.len());
}

/// Sizes that matter: tiny ones, those of real rows, and those around one, two and three pages.
fn sizes() -> impl Strategy<Value = (u32, u32)> {
    let value = prop_oneof![
        8 => 0u32..300,
        3 => prop_oneof![Just(4096u32), Just(8192), Just(12288)].prop_flat_map(|page| page - 60..page + 4),
        1 => 0u32..12_300,
    ];
    let key =
        prop_oneof![12 => Just(17u32), 4 => 8u32..40, 1 => prop_oneof![Just(4064u32), 1000u32..4100, Just(32_768)]];
    (key, value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_rows_come_back(
        a in prop_oneof![prop::collection::vec(sizes(), 0..40), prop::collection::vec((Just(17u32), 0u32..200), 0..5000)],
        b in prop::collection::vec(sizes(), 0..400),
        target in 1u64..200_000,
    ) {
        let (a, b, none) = (Made(a), Made(b), Made(Vec::new()));
        let buckets: [(&[u8], &dyn Rows); 3] = [(b"alpha", &a), (b"beta", &b), (b"empty", &none)];
        let check = round_trip(&buckets, target);
        prop_assert_eq!(check.pairs, a.len() + b.len() + 3);
    }
}

#[test]
fn one_pair_of_every_size_around_a_page() {
    // Page header, element, key: 16 + 16 + 17.
    for value in (0..1100).step_by(7).chain(4040..4060).chain(8130..8160) {
        let rows = Made(vec![(17, value)]);
        let check = round_trip(&[(b"key", &rows)], 4096);
        assert_eq!(check.inline_buckets, u64::from(16 + 16 + 17 + value <= 1024), "{value}");
        let pages = u64::from((16 + 16 + 17 + value).div_ceil(4096) - 1);
        assert_eq!(check.overflow_pages, if check.inline_buckets == 1 { 0 } else { pages }, "{value}");
    }
}

#[test]
fn leaves_are_filled_to_exactly_the_page() {
    // Four rows of 1020 bytes and the header are 4096.
    let four = Made(vec![(17, 1020 - 16 - 17); 4]);
    assert_eq!(round_trip(&[(b"key", &four)], 4096).leaf_pages, 2);
    let five = Made(vec![(17, 1020 - 16 - 17); 5]);
    let check = round_trip(&[(b"key", &five)], 4096);
    assert_eq!((check.leaf_pages, check.branch_pages), (3, 1));
    let one_byte_more = Made(vec![(17, 987), (17, 987), (17, 987), (17, 988)]);
    assert_eq!(round_trip(&[(b"key", &one_byte_more)], 4096).leaf_pages, 3);
}

#[test]
fn empty_buckets_are_32_bytes_inline() {
    let none = Made(Vec::new());
    let names: [&[u8]; 3] = [b"a", b"b", b"c"];
    let buckets: Vec<(&[u8], &dyn Rows)> = names.iter().map(|name| (*name, &none as &dyn Rows)).collect();
    let check = round_trip(&buckets, 1 << 20);
    assert_eq!((check.inline_buckets, check.leaf_pages), (3, 1));
    let file = image(&[Bucket { name: b"a", rows: &none }]).unwrap();
    let pair = Db::open(&file).unwrap().root().get(b"a").unwrap().unwrap();
    let mut expected = [0; 32];
    expected[24] = 2;
    assert_eq!(pair.value, expected);
}

#[test]
fn no_bucket_at_all() {
    let check = sound(&file(&[], 1));
    assert_eq!((check.leaf_pages, check.pairs), (1, 0));
}

#[test]
fn many_buckets_make_a_root_tree_of_branches() {
    let rows = Made(vec![(17, 900)]);
    let names: Vec<Vec<u8>> = (0..2000u32).map(|i| i.to_be_bytes().to_vec()).collect();
    let buckets: Vec<(&[u8], &dyn Rows)> = names.iter().map(|name| (name.as_slice(), &rows as &dyn Rows)).collect();
    let check = round_trip(&buckets, 10_000);
    assert!(check.branch_pages > 1 && check.inline_buckets == 2000);
}

#[test]
fn branch_pages_of_huge_keys_have_two_children_at_least() {
    for count in 2..12 {
        let rows = Made(vec![(32_768, 1); count]);
        let check = round_trip(&[(b"key", &rows)], 1);
        assert_eq!(check.leaf_pages, count as u64 + 1);
        assert!(check.overflow_pages > 0);
    }
}

#[test]
fn three_levels() {
    let rows = Made(vec![(17, 2100); 20_000]);
    let check = round_trip(&[(b"key", &rows)], 1 << 20);
    assert!(check.depth == 4 && check.pairs == 20_001, "{check:?}");
}

#[test]
fn limits_are_errors() {
    for (sizes, reason) in [
        ((0, 5), Reason::Internal),
        ((32_769, 5), Reason::OutputFailed),
        ((17, (1 << 31) - 1), Reason::OutputFailed),
        ((u32::MAX, u32::MAX), Reason::OutputFailed),
    ] {
        let rows = Made(vec![sizes]);
        assert_eq!(layout(&[Bucket { name: b"key", rows: &rows }]).unwrap_err().reason(), reason);
    }
    let rows = Made(Vec::new());
    let (a, b) = (Bucket { name: b"a", rows: &rows }, Bucket { name: b"b", rows: &rows });
    for names in [&[b, a][..], &[a, a], &[Bucket { name: b"", rows: &rows }]] {
        assert_eq!(layout(names).unwrap_err().reason(), Reason::Internal);
    }
}

#[test]
fn a_value_of_two_gigabytes_is_laid_out() {
    let rows = Made(vec![(17, (1 << 31) - 2), (17, 10)]);
    let layout = layout(&[Bucket { name: b"key", rows: &rows }]).unwrap();
    // The long row's page, the short row's, the branch above both, the root.
    assert_eq!(layout.hwm().0, 2 + ((1u64 << 31) - 2 + 49).div_ceil(4096) + 1 + 1 + 1);
}

/// Keys in an order of their own.
struct Unsorted(Vec<u64>);

impl Rows for Unsorted {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn key_len(&self, _: u64) -> u32 {
        8
    }
    fn value_len(&self, _: u64) -> u32 {
        1000
    }
    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()> {
        value.fill(0);
        self.encode_key(row, key)
    }
    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()> {
        key.copy_from_slice(&self.0[row as usize].to_be_bytes());
        Ok(())
    }
}

#[test]
fn keys_out_of_order_are_an_internal_error_wherever_the_cut_is() {
    let numbers: Vec<u64> = (0..100).collect();
    for at in 0..99 {
        for equal in [true, false] {
            let mut numbers = numbers.clone();
            if equal {
                numbers[at + 1] = at as u64
            } else {
                numbers.swap(at, at + 1)
            }
            let rows = Unsorted(numbers);
            let buckets = [Bucket { name: b"key", rows: &rows }];
            let layout = layout(&buckets).unwrap();
            for target in [1, 10_000, 1 << 30] {
                let results = layout.extents(target).into_iter().map(|extent| {
                    let mut out = vec![0; extent.byte_len() as usize];
                    etcdlift::internals::bolt::emit(&layout, &buckets, &extent, &mut out)
                });
                let error = results.filter_map(std::result::Result::err).next().unwrap();
                assert_eq!(error.reason(), Reason::Internal);
            }
        }
    }
}

#[test]
fn owned_rows_sort() {
    let rows = OwnedRows::new(vec![(b"b".to_vec(), b"2".to_vec()), (b"a".to_vec(), b"1".to_vec())]);
    round_trip(&[(b"meta", &rows)], 1);
}
