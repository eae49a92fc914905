//! The tools of the clock server: the time, conversions between its two spellings, and a countdown.
//!
//! Times are whole seconds since 1970-01-01T00:00:00Z without leap seconds (POSIX), and RFC 3339 in the years 0000 to 9999.

use std::ops::RangeInclusive;

use serde_json::json;

use super::rpc::{Arguments, Output, Tool};

const SECONDS_PER_DAY: i64 = 86_400;
/// 0000-01-01T00:00:00Z to 9999-12-31T23:59:59Z, the years RFC 3339 can write.
const RANGE: RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;
/// Shortest and longest countdown, in seconds.
const COUNTDOWN: RangeInclusive<i64> = 1..=60;
/// Days of the week, from the one that 1970-01-01 was.
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// All of them, in the order they are listed.
pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "clock_now",
        title: "Current time",
        description: "Tells the current time in UTC: as RFC 3339, as Unix seconds, and the day of the week.",
        properties: || json!({}),
        required: &[],
        run: |_, now| Ok(moment(now)),
    },
    Tool {
        name: "clock_convert",
        title: "Convert a time",
        description: "Converts Unix seconds to RFC 3339 in UTC, or RFC 3339 with any offset to Unix seconds. Give \
                      exactly one of the two; fractions of a second are dropped.",
        properties: || {
            let unix = "Seconds since 1970-01-01T00:00:00Z";
            let rfc3339 = "A time such as 2026-11-22T15:04:05+01:00";
            json!({
                "unix": {"type": "integer", "minimum": RANGE.start(), "maximum": RANGE.end(), "description": unix},
                "rfc3339": {"type": "string", "format": "date-time", "description": rfc3339},
            })
        },
        required: &[],
        run: convert,
    },
    Tool {
        name: "countdown",
        title: "Countdown",
        description: "Waits for some seconds and then answers. Reports progress every second if the caller gave a \
                      progress token.",
        properties: || {
            let (least, most) = (COUNTDOWN.start(), COUNTDOWN.end());
            json!({"seconds": {"type": "integer", "minimum": least, "maximum": most, "description": "How long to wait"}})
        },
        required: &["seconds"],
        run: countdown,
    },
];

fn convert(arguments: &Arguments<'_>, _: i64) -> Result<Output, String> {
    match (arguments.integer("unix", RANGE)?, arguments.text("rfc3339")?) {
        (Some(unix), None) => Ok(moment(unix)),
        (None, Some(text)) => parse(text).map(moment).ok_or_else(|| {
            "`rfc3339`: expected a time such as `2026-11-22T15:04:05Z` or `2026-11-22T15:04:05+01:00`".to_owned()
        }),
        (None, None) => Err("expected either `unix` or `rfc3339`, found neither".to_owned()),
        (Some(_), Some(_)) => Err("expected either `unix` or `rfc3339`, found both".to_owned()),
    }
}

fn countdown(arguments: &Arguments<'_>, _: i64) -> Result<Output, String> {
    let seconds = arguments.integer("seconds", COUNTDOWN)?.and_then(|seconds| seconds.try_into().ok());
    seconds.map(Output::Countdown).ok_or_else(|| "`seconds`: expected an integer, found nothing".to_owned())
}

/// A time in all its spellings.
fn moment(unix: i64) -> Output {
    let day = unix.div_euclid(SECONDS_PER_DAY);
    let weekday = usize::try_from(day.rem_euclid(7)).ok().and_then(|index| WEEKDAYS.get(index));
    Output::Data(json!({"rfc3339": format(unix), "unix": unix, "weekday": weekday}))
}

/// RFC 3339 in UTC.
fn format(unix: i64) -> String {
    let (year, month, day) = date_of(unix.div_euclid(SECONDS_PER_DAY));
    let second = unix.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads RFC 3339 5.6, with the space that its note allows for the `T`; without leap seconds.
fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, zone) = time.split_at_checked(time.find(['Z', 'z', '+', '-'])?)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let offset = match zone.strip_prefix(['+', '-']) {
        None => (zone.len() == 1).then_some(0)?,
        Some(offset) => {
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            let size = (hours < 24 && minutes < 60).then_some(hours * 3_600 + minutes * 60)?;
            if zone.starts_with('-') { -size } else { size }
        }
    };
    let days = days_to(year, month, day);
    let exists =
        (1..=12).contains(&month) && date_of(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    let fraction_fits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let unix = days * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second - offset;
    (exists && fraction_fits && RANGE.contains(&unix)).then_some(unix)
}

/// Numbers of exactly these widths, with separators between them.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut values = [0; N];
    for (value, width) in values.iter_mut().zip(widths) {
        let part = parts.next()?;
        let fits = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
        *value = part.parse().ok().filter(|_| fits)?;
    }
    parts.next().is_none().then_some(values)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
///
/// Years begin in March here, so that the leap day is the last of its year; 400 of them have always 146,097 days. From Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day that lie so many days after 1970-01-01: the inverse of [`days_to`], `civil_from_days` there.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = (months_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::super::rpc::tests::run;
    use super::*;

    #[track_caller]
    fn check(unix: i64, rfc3339: &str, weekday: &str) {
        let expected = Ok(Output::Data(json!({"rfc3339": rfc3339, "unix": unix, "weekday": weekday})));
        assert_eq!(run(TOOLS, "clock_now", json!({}), unix), expected);
        assert_eq!(run(TOOLS, "clock_convert", json!({"unix": unix}), 0), expected);
        assert_eq!(run(TOOLS, "clock_convert", json!({"rfc3339": rfc3339}), 0), expected);
    }

    /// Weekdays and seconds from `date -u`.
    #[test]
    fn both_spellings_name_the_same_moment() {
        check(0, "1970-01-01T00:00:00Z", "Thursday");
        check(-1, "1969-12-31T23:59:59Z", "Wednesday");
        check(951_782_400, "2000-02-29T00:00:00Z", "Tuesday");
        check(1_795_359_845, "2026-11-22T15:04:05Z", "Sunday");
        check(4_107_542_399, "2100-02-28T23:59:59Z", "Sunday");
        check(4_107_542_400, "2100-03-01T00:00:00Z", "Monday");
        check(*RANGE.start(), "0000-01-01T00:00:00Z", "Saturday");
        check(*RANGE.end(), "9999-12-31T23:59:59Z", "Friday");
    }

    #[test]
    fn every_day_there_is_survives_the_round_trip() {
        let (mut previous, mut day) = (days_to(0, 1, 1), days_to(0, 1, 2));
        while day <= days_to(9999, 12, 31) {
            let (year, month, date) = date_of(day);
            assert_eq!(days_to(year, month, date), day);
            assert!(date_of(previous) < (year, month, date));
            (previous, day) = (day, day + 1);
        }
    }

    #[test]
    fn rfc_3339_is_read_in_full() {
        for (text, expected) in [
            ("2026-11-22T15:04:05+01:00", Some(1_795_356_245)),
            ("2026-11-22t15:04:05.999z", Some(1_795_359_845)),
            ("2026-11-22 15:04:05-23:59", Some(1_795_359_845 + 86_340)),
            ("2026-11-22T15:04:05-00:00", Some(1_795_359_845)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-01-00T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:60:00Z", None),
            ("2026-01-01T00:00:60Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00.+1Z", None),
            ("2026-01-01T00:00:00Zulu", None),
            ("2026-01-01T00:00:00+24:00", None),
            ("2026-01-01T00:00:00+0100", None),
            ("2026-1-1T00:00:00Z", None),
            ("2026-01-01-01T00:00:00Z", None),
            ("+026-01-01T00:00:00Z", None),
            ("0000-01-01T00:00:00+00:01", None),
            ("2026-01-01", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn wrong_arguments_are_explained() {
        for (tool, arguments, text) in [
            ("clock_convert", json!({}), "expected either `unix` or `rfc3339`, found neither"),
            ("clock_convert", json!({"unix": 0, "rfc3339": ""}), "expected either `unix` or `rfc3339`, found both"),
            ("countdown", json!({}), "`seconds`: expected an integer, found nothing"),
            ("countdown", json!({"seconds": 0}), "`seconds`: expected an integer from 1 to 60, found `0`"),
            ("countdown", json!({"seconds": 61}), "`seconds`: expected an integer from 1 to 60, found `61`"),
            ("clock_now", json!({"zone": "CET"}), "unknown argument: `zone`"),
        ] {
            assert_eq!(run(TOOLS, tool, arguments, 0), Err(text.to_owned()));
        }
        assert_eq!(run(TOOLS, "countdown", json!({"seconds": 60}), 0), Ok(Output::Countdown(60)));
    }
}
