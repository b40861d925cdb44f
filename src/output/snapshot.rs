//! The form of a snapshot file: the database, then its SHA-256 as 32 raw bytes (docs/formats.md 10.4).
//!
//! The hash covers the file in order, meta pages first, but the meta pages are written last: their content is known
//! before the body. Must not know the content of the pages.

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Reason, Result};

/// Length of the trailer in bytes.
pub const TRAILER_LEN: u64 = 32;

/// The size of a database is a multiple of this, so 32 more bytes are known to be a trailer.
const UNIT: u64 = 512;

/// The running SHA-256 of an output file.
#[derive(Debug, Clone)]
pub struct Digest {
    sha256: Sha256,
    bytes: u64,
}

/// The hashes of a whole output file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digested {
    /// SHA-256 of the database: the trailer of a snapshot.
    pub db_sha256: [u8; 32],
    /// Length of the database in bytes.
    pub db_bytes: u64,
    /// SHA-256 of the file, with the trailer.
    pub sha256: [u8; 32],
    /// Length of the file in bytes, with the trailer.
    pub bytes: u64,
}

impl Digest {
    /// Starts the hash with the meta pages.
    pub fn new(meta: &[u8]) -> Self {
        let mut digest = Digest { sha256: Sha256::new(), bytes: 0 };
        digest.update(meta);
        digest
    }

    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Ends the database. With `trailer`, the hash of the file also covers the trailer.
    ///
    /// # Errors
    /// The size of the database is not a multiple of 512 bytes, so etcd could not detect the trailer.
    pub fn finish(mut self, trailer: bool) -> Result<Digested> {
        let db_bytes = self.bytes;
        if !db_bytes.is_multiple_of(UNIT) {
            let message = format!("expected a database size that is a multiple of {UNIT} bytes, found {db_bytes}");
            return Err(Error::new(Reason::Internal, message));
        }
        let db_sha256: [u8; 32] = self.sha256.clone().finalize().into();
        if trailer {
            self.update(&db_sha256);
        }
        Ok(Digested { db_sha256, db_bytes, sha256: self.sha256.finalize().into(), bytes: self.bytes })
    }
}

/// Returns lower-case hexadecimal, like `sha256sum`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|n| char::from_digit(n.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_what_sha256sum_hashes() {
        // head -c 1024 /dev/zero | sha256sum
        let db = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
        let mut digest = Digest::new(&[0; 512]);
        digest.update(&[0; 512]);
        let bare = digest.clone().finish(false).unwrap();
        assert_eq!((hex(&bare.sha256).as_str(), bare.bytes), (db, 1024));
        assert_eq!(bare.db_sha256, bare.sha256);
        let snapshot = digest.finish(true).unwrap();
        assert_eq!((snapshot.db_sha256, snapshot.db_bytes, snapshot.bytes), (bare.sha256, 1024, 1056));
        let file = [&[0; 1024][..], &snapshot.db_sha256].concat();
        assert_eq!(hex(&snapshot.sha256), hex(&Sha256::digest(&file)));
    }

    #[test]
    fn a_database_of_odd_length_has_no_form() {
        assert_eq!(Digest::new(&[0; 100]).finish(true).unwrap_err().reason(), Reason::Internal);
    }
}
