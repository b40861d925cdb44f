//! Instants in the form of RFC 3339, up to the end of year 9999.
//!
//! [`Timestamp`] ends at 9999-12-30T22:00:00.999999999Z, 26 hours before that; a later instant counts as that one. Must
//! not know what happens at an instant, and reads no clock.

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;

/// Parses an instant. Returns `None` if the text is not one, or has no offset from UTC.
pub fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| at_the_end(text))
}

/// Returns the last [`Timestamp`] if the text is a valid instant beyond it.
fn at_the_end(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let civil = pieces.date().to_datetime(pieces.time()?);
    match pieces.to_numeric_offset()?.to_timestamp(civil) {
        Ok(instant) => Some(instant),
        Err(_) if civil.year() > 0 => Some(Timestamp::MAX),
        Err(_) => Some(Timestamp::MIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_beyond_the_last_is_the_last() {
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999Z",
            "9999-12-30T22:00:01Z",
            "9999-12-31T00:00:00+00:00",
            "9999-12-30T23:30:00-01:00",
            "9999-12-31T23:59:59-23:59",
        ] {
            assert_eq!(instant(text), Some(Timestamp::MAX), "{text}");
        }
        for text in
            ["9999-12-30T22:00:00Z", "9999-12-31T01:00:00+03:00", "0000-01-01T00:00:00Z", "2016-05-04T12:00:00+02:00"]
        {
            assert_eq!(instant(text), Some(text.parse().unwrap()), "{text}");
        }
        for text in ["", "9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z", "10000-01-01T00:00:00Z", "soon"] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
