//! Sizes as typed: a number of bytes, with or without a unit.
//!
//! 1k and 1KiB are 1024 bytes, 1kB is 1000. Options of the command line and their variables use it. Must not know what
//! a size limits.

/// The forms of a size, for help and messages.
pub(crate) const FORMS: &str = "bytes, or with a unit: KiB, MiB, GiB, TiB (powers of 1024; k, m, g, t are short for them) or kB, MB, GB, TB \
     (powers of 1000)";

/// Reads a size: `1536`, `512k`, `1MiB`, `2 GB`. Case does not count.
///
/// # Errors
/// The text is something else, or more than 2^64 - 1 bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a size in {FORMS}");
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    let factor = factor(unit.trim_start()).ok_or_else(expected)?;
    if number.is_empty() {
        return Err(expected());
    }
    let number: Option<u64> = number.parse().ok();
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(|| "expected a size below 2^64 bytes".into())
}

/// As [`parse`], of at least one byte.
///
/// # Errors
/// Those of [`parse`], and a size of 0 bytes.
pub(crate) fn parse_positive(text: &str) -> Result<u64, String> {
    match parse(text)? {
        0 => Err("expected at least 1 byte".into()),
        size => Ok(size),
    }
}

fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if unit.is_empty() || unit == "b" {
        return Some(1);
    }
    let (prefix, rest) = unit.split_at_checked(1)?;
    let power = match prefix {
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    match rest {
        "" | "ib" => Some(1024u64.pow(power)),
        "b" => Some(1000u64.pow(power)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_typed() {
        for (text, bytes) in [
            ("0", 0),
            ("1536", 1536),
            ("7B", 7),
            ("512k", 512 << 10),
            ("1K", 1 << 10),
            ("1KiB", 1 << 10),
            ("1kB", 1000),
            ("1MiB", 1 << 20),
            ("3 mib", 3 << 20),
            ("1m", 1 << 20),
            ("1MB", 1_000_000),
            ("2GiB", 2 << 30),
            ("2G", 2 << 30),
            ("2gb", 2_000_000_000),
            ("1TiB", 1 << 40),
            ("1TB", 1_000_000_000_000),
            ("16777215TiB", 16_777_215 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused_with_the_valid_forms() {
        for text in ["", "k", "MiB", "1X", "1 M i B", "1.5GiB", "-1", "+1", "1e6", "0x10", "1KiBB", "1ii", "1é", "1bb"]
        {
            assert!(parse(text).unwrap_err().contains("KiB, MiB, GiB"), "{text}");
        }
        for text in ["18446744073709551616", "16777216TiB", "99999999999999999999999"] {
            assert_eq!(parse(text), Err("expected a size below 2^64 bytes".into()), "{text}");
        }
        assert_eq!((parse_positive("1k"), parse_positive("0k").is_err()), (Ok(1024), true));
    }
}
