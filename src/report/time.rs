//! Times of day, as people read them.

use std::time::{Duration, UNIX_EPOCH};

/// `2026-11-24 05:12:03`, UTC.
pub(crate) fn utc(unix_ns: i64) -> String {
    let since = Duration::from_nanos(u64::try_from(unix_ns).unwrap_or(0));
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string();
    text.trim_end_matches('Z').replace('T', " ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_in_utc() {
        assert_eq!(super::utc(1_795_497_123_999_999_999), "2026-11-24 05:12:03");
        assert_eq!(super::utc(-5), "1970-01-01 00:00:00");
    }
}
