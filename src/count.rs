//! Counts in sentences: one is singular.

/// A number and what is counted: `1 key`, `2 keys`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A number of bytes: `1 byte`, `2 bytes`.
pub fn bytes(count: u64) -> String {
    counted(count, "byte", "bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2, 11].map(|n| counted(n, "key", "keys")), ["0 keys", "1 key", "2 keys", "11 keys"]);
        assert_eq!([1, 21].map(bytes), ["1 byte", "21 bytes"]);
    }
}
