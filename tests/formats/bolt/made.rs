//! Rows of any size for the bolt tests: a key and a value are computed from their number and length alone.
//!
//! So a test can lay out a value of 2 GB without storing it.

use etcdlift::error::Result;
use etcdlift::internals::bolt::{Bucket, Rows, emit, image, layout, meta_pages};

/// Rows with the key and value lengths given. Keys of 8 bytes and more hold the row number, so they ascend.
#[derive(Debug, Clone)]
pub(crate) struct Made(pub(crate) Vec<(u32, u32)>);

impl Rows for Made {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn key_len(&self, row: u64) -> u32 {
        self.0[row as usize].0
    }

    fn value_len(&self, row: u64) -> u32 {
        self.0[row as usize].1
    }

    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()> {
        self.encode_key(row, key)?;
        for (at, byte) in value.iter_mut().enumerate() {
            *byte = (row as usize * 31 + at) as u8;
        }
        Ok(())
    }

    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()> {
        let number = row.to_be_bytes();
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = number.get(at).copied().unwrap_or(b'k');
        }
        Ok(())
    }
}

/// The file, after making sure that extents of any size, in any order, give the same bytes.
pub(crate) fn file(buckets: &[Bucket<'_>], target: u64) -> Vec<u8> {
    let whole = image(buckets).unwrap();
    let layout = layout(buckets).unwrap();
    let mut parts = vec![0xaa; layout.file_len() as usize];
    parts[..8192].copy_from_slice(&meta_pages(&layout));
    for extent in layout.extents(target).iter().rev() {
        let start = extent.offset() as usize;
        emit(&layout, buckets, extent, &mut parts[start..start + extent.byte_len() as usize]).unwrap();
    }
    assert!(whole == parts, "the bytes depend on how the file is cut");
    whole
}
