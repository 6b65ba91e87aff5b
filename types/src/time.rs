//! Times on the wire: RFC 3339 in UTC with nanoseconds, since nanoseconds as an integer exceed 2^53.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use ts_rs::TS;

/// A moment, written as `2026-11-20T22:43:28.000000000Z`. Text order is time order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, TS)]
#[schemars(with = "String", extend("format" = "date-time"))]
#[ts(type = "string")]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The system clock's time.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// From whole seconds and nanoseconds since 1970, as the kernel gives file times. Out of range becomes the nearest.
    #[must_use]
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Self {
        let nearest = if seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Self(jiff::Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0)).unwrap_or(nearest))
    }

    /// This long after; the last moment there is, where that is none.
    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Self {
        Self(self.0.checked_add(duration).unwrap_or(jiff::Timestamp::MAX))
    }

    /// How long after an earlier moment this is; nothing, where that one is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        self.0.duration_since(earlier.0).try_into().unwrap_or_default()
    }

    /// This long before; the first moment there is, where that is none.
    #[must_use]
    pub fn before(self, duration: std::time::Duration) -> Self {
        Self(self.0.checked_sub(duration).unwrap_or(jiff::Timestamp::MIN))
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn as_unix_seconds(self) -> i64 {
        self.0.as_second()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.9}", self.0)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_later_was_no_time_ago() {
        let (one, other) = (Timestamp::from_unix(10, 0), Timestamp::from_unix(12, 5));
        assert_eq!(other.since(one), std::time::Duration::new(2, 5));
        assert_eq!(other.before(std::time::Duration::new(2, 5)), one);
        assert_eq!(one.since(other), std::time::Duration::ZERO);
        let (first, last) = (Timestamp::from_unix(i64::MIN, 0), Timestamp::from_unix(i64::MAX, 0));
        assert!(last.since(first) > std::time::Duration::from_secs(1 << 36));
    }

    #[test]
    fn always_nine_digits_and_utc() {
        assert_eq!(Timestamp::from_unix(0, 5).to_string(), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(Timestamp::from_unix(1_700_000_000, 0).to_string(), "2023-11-14T22:13:20.000000000Z");
        let parsed: Timestamp = serde_json::from_str("\"2026-01-01T00:00:00+01:00\"").unwrap();
        assert_eq!(parsed.to_string(), "2025-12-31T23:00:00.000000000Z");
    }

    #[test]
    fn absurd_file_times_do_not_panic() {
        let _ = Timestamp::from_unix(i64::MAX, 0).to_string();
        let _ = Timestamp::from_unix(i64::MIN, u32::MAX).to_string();
        let last = Timestamp::from_unix(i64::MAX, 0);
        assert_eq!(last.after(std::time::Duration::MAX), last);
        let first = Timestamp::from_unix(i64::MIN, 0);
        assert!(last.since(first) > std::time::Duration::from_secs(1));
        assert_eq!(first.since(last), std::time::Duration::ZERO);
        assert_eq!(Timestamp::from_unix(5, 7).since(Timestamp::from_unix(4, 9)).as_nanos(), 999_999_998);
    }
}
