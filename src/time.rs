//! Points in time, as people and other programs read them.

use std::fmt;
use std::time::Duration;

/// A duration since the Unix epoch, shown as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy)]
pub struct Timestamp(
    /// Time since 1970-01-01T00:00:00Z.
    pub Duration,
);

impl Timestamp {
    /// Appends the text to `out`; without formatting, because every record of the log begins with one.
    pub fn write_to(self, out: &mut Vec<u8>) {
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
        let two = |number: u64| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        let ([y0, y1], [y2, y3], [m0, m1], [d0, d1]) = (two(year / 100), two(year), two(month), two(day));
        let ([h0, h1], [n0, n1], [s0, s1]) = (two(hour), two(minute), two(second));
        let millis = u64::from(self.0.subsec_millis());
        let ([f0, f1], [_, f2]) = (two(millis / 10), two(millis));
        out.extend_from_slice(&[
            y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1, b'.', f0, f1, f2,
            b'Z',
        ]);
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(24);
        self.write_to(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
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
