//! Points in time, as people and other programs read them.

use std::fmt;
use std::time::Duration;

/// A duration since the Unix epoch, shown as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy)]
pub struct Timestamp(
    /// Time since 1970-01-01T00:00:00Z.
    pub Duration,
);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Civil date from a count of days: Howard Hinnant, `civil_from_days`, for dates since 1970.
        let z = days + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
        let millis = self.0.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        let show = |s: u64, ms: u64| Timestamp(Duration::from_millis(s * 1000 + ms)).to_string();
        assert_eq!(show(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(show(951_827_696, 5), "2000-02-29T12:34:56.005Z");
        assert_eq!(show(1_795_356_135, 123), "2026-11-22T14:02:15.123Z");
    }
}
