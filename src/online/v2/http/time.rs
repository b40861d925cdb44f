//! When a node of the v2 API expires.

use jiff::{SignedDuration, Timestamp};

/// Returns the instant at which a node expires, by the clock of this machine, and never before the server removes it.
///
/// The seconds that are left count from `at`, which is after the server read its clock, and the server rounds them up. It leaves
/// them out when none is left. The instant alone is by the clock of the server.
pub(super) fn expiry(ttl: Option<i64>, expiration: Option<&str>, at: Timestamp) -> Option<Timestamp> {
    let after = |seconds: i64| at.saturating_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
    match (ttl, expiration) {
        (Some(ttl), _) => Some(after(ttl)),
        (None, Some(_)) => Some(at),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_that_are_left_count_and_none_means_now() {
        let at = Timestamp::from_second(1000).unwrap();
        assert_eq!(expiry(Some(5), Some("1970-01-01T00:00:01Z"), at).unwrap().as_second(), 1005);
        assert_eq!(expiry(Some(-5), None, at), Some(at));
        assert_eq!(expiry(None, Some("2090-01-01T00:00:00Z"), at), Some(at));
        assert_eq!(expiry(None, None, at), None);
        assert!(expiry(Some(i64::MAX), None, at).is_some());
    }
}
