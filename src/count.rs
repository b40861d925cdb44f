//! Counts and sizes in sentences.
//!
//! A count of 1 takes the singular, and a size from 1 KiB on has a second unit. Messages and summaries of all modules
//! use it. Must not know what is counted.

/// Formats a number with its noun: `1 key`, `2 keys`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Formats a number of bytes: `1 byte`, `2 bytes`.
pub fn bytes(count: u64) -> String {
    counted(count, "byte", "bytes")
}

/// Formats a size with a second unit: `1536 bytes (1.5 KiB)`.
pub fn size(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "bytes";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "bytes" { bytes(count) } else { format!("{count} bytes ({value:.1} {unit})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2, 11].map(|n| counted(n, "key", "keys")), ["0 keys", "1 key", "2 keys", "11 keys"]);
        assert_eq!([1, 21].map(bytes), ["1 byte", "21 bytes"]);
    }

    #[test]
    fn sizes_name_their_bytes() {
        assert_eq!((size(1), size(1023)), ("1 byte".into(), "1023 bytes".into()));
        assert_eq!(size(1536), "1536 bytes (1.5 KiB)");
        assert_eq!(size(3 << 30), "3221225472 bytes (3.0 GiB)");
    }
}
