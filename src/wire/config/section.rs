//! Reads one TOML table key by key: types and ranges are checked here, and every key nobody asked for is reported.
//!
//! Knows TOML's types and how to say what was expected and what was found; what the keys mean is known to the callers.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Located, Problem, Report, join};

/// Keys, of whatever table, that are read and checked but do nothing in this version; whoever writes one is told so.
pub(super) const NOT_IN_FORCE: &[&str] = &["audit_file"];

/// A key with its value.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    /// The key, unquoted.
    pub(super) key: &'a str,
    /// Where the key begins.
    pub(super) key_at: u32,
    /// The value.
    pub(super) value: &'a DeValue<'a>,
    /// Where the value begins; of a table with a header, where the header begins.
    pub(super) at: u32,
}

impl Entry<'_> {
    /// Where the statement that makes the entry begins: `[clients.alice]` or `bob = …`.
    pub(super) fn start(&self) -> u32 {
        self.key_at.min(self.at)
    }
}

/// The entries of a table in the order of the file (feature `preserve_order` of `toml`).
pub(super) fn entries<'a>(table: &'a DeTable<'a>) -> impl Iterator<Item = Entry<'a>> {
    table.iter().map(|(key, value)| Entry {
        key: key.get_ref(),
        key_at: offset(key.span().start),
        value: value.get_ref(),
        at: offset(value.span().start),
    })
}

/// An offset as it is kept; files beyond 4 GiB are refused before they are read.
pub(super) fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// What a value is, for `found …`.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fractional number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Longest text in a list, in bytes. A pattern's cost in memory grows with the square of its length.
const LONGEST_ITEM: usize = 1024;

/// A list of strings, each with its place, or what was found instead and where.
pub(super) fn strings<'a>(entry: &Entry<'a>) -> Result<Vec<Located<&'a str>>, (u32, &'static str)> {
    let DeValue::Array(items) = entry.value else {
        return Err((entry.at, kind(entry.value)));
    };
    let string = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
        DeValue::String(text) if text.len() > LONGEST_ITEM => {
            Err((offset(item.span().start), "a text over 1,024 bytes"))
        }
        DeValue::String(text) => Ok(Located { value: text.as_ref(), at: offset(item.span().start) }),
        other => Err((offset(item.span().start), kind(other))),
    };
    items.iter().map(string).collect()
}

/// One table being read.
///
/// Each accessor returns `None` both for a missing key and for a value that it has reported; [`Section::finish`]
/// reports the keys that no accessor asked for.
pub(super) struct Section<'a, 'r> {
    /// Path of the table: `clients.alice`.
    pub(super) path: String,
    /// Where the table begins.
    pub(super) at: u32,
    /// Where problems go.
    pub(super) report: &'r mut Report,
    /// Keys asked for so far.
    pub(super) known: Vec<&'static str>,
    table: &'a DeTable<'a>,
}

impl<'a, 'r> Section<'a, 'r> {
    /// Starts to read the table of an entry; reports a value that is no table (`expected` says which).
    pub(super) fn open(parent: &str, entry: &Entry<'a>, expected: &str, report: &'r mut Report) -> Option<Self> {
        let path = join(parent, entry.key);
        if let DeValue::Table(table) = entry.value {
            return Some(Self { path, at: entry.start(), report, known: Vec::new(), table });
        }
        let message = format!("expected {expected}, found {}", kind(entry.value));
        report.add(entry.at, Problem::error(path, message));
        None
    }

    /// All entries in the order of the file, for a table whose keys are names.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        entries(self.table)
    }

    /// The entry of a key, which counts as known from now on.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.known.push(key);
        let (name, value) = self.table.get_key_value(key)?;
        let (key_at, at) = (offset(name.span().start), offset(value.span().start));
        Some(Entry { key, key_at, value: value.get_ref(), at })
    }

    /// Reports an error at one of the keys.
    pub(super) fn error(&mut self, at: u32, key: &str, message: impl Into<String>) {
        self.report.add(at, Problem::error(join(&self.path, key), message));
    }

    /// A string.
    pub(super) fn text(&mut self, key: &'static str, expected: &str) -> Option<Located<&'a str>> {
        let entry = self.entry(key)?;
        let DeValue::String(text) = entry.value else {
            self.error(entry.at, key, format!("expected {expected}, found {}", kind(entry.value)));
            return None;
        };
        Some(Located { value: text, at: entry.at })
    }

    /// A string that some function understands; its error is the message.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key, expected)?;
        parse(text.value).map_err(|message| self.error(text.at, key, message)).ok()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<Located<T>> {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        let expected = words.join(" or ");
        let text = self.text(key, &expected)?;
        let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) else {
            self.error(text.at, key, format!("expected {expected}, found `{}`", text.value.escape_debug()));
            return None;
        };
        Some(Located { value: *value, at: text.at })
    }

    /// A list of strings; an item of another type is reported at its own place.
    pub(super) fn list(&mut self, key: &'static str, expected: &str) -> Option<Vec<Located<&'a str>>> {
        let entry = self.entry(key)?;
        let wrong = |(at, found)| self.error(at, key, format!("expected {expected}, found {found}"));
        strings(&entry).map_err(wrong).ok()
    }

    /// A list of strings that some function understands one by one.
    pub(super) fn parsed_list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let mut parsed = Vec::new();
        for item in self.list(key, expected)? {
            match parse(item.value) {
                Ok(value) => parsed.push(value),
                Err(message) => self.error(item.at, key, message),
            }
        }
        Some(parsed)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<Located<bool>> {
        let entry = self.entry(key)?;
        let DeValue::Boolean(value) = entry.value else {
            self.error(entry.at, key, format!("expected `true` or `false`, found {}", kind(entry.value)));
            return None;
        };
        Some(Located { value: *value, at: entry.at })
    }

    /// A whole number within limits.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let entry = self.entry(key)?;
        let found = match entry.value {
            DeValue::Integer(number) => {
                let value = u32::from_str_radix(number.as_str(), number.radix()).ok();
                if value.is_some_and(|v| range.contains(&v)) {
                    return value;
                }
                format!("`{number}`")
            }
            other => kind(other).to_owned(),
        };
        let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
        self.error(entry.at, key, format!("{expected}, found {found}"));
        None
    }

    /// Replaces a count or a size in bytes if the key is there.
    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<u32>, target: &mut usize) {
        if let Some(value) = self.number(key, range).and_then(|n| usize::try_from(n).ok()) {
            *target = value;
        }
    }

    /// Replaces a time in whole seconds if the key is there.
    pub(super) fn seconds(&mut self, key: &'static str, range: RangeInclusive<u32>, target: &mut Duration) {
        if let Some(value) = self.number(key, range) {
            *target = Duration::from_secs(value.into());
        }
    }

    /// A date and time in UTC, as time since 1970-01-01T00:00:00Z.
    pub(super) fn instant(&mut self, key: &'static str) -> Option<Duration> {
        let entry = self.entry(key)?;
        let instant = since_epoch(entry.value);
        if instant.is_none() {
            let expected = "expected a date and time in UTC since 1970, like `2026-11-22T14:02:11Z`";
            let found = match entry.value {
                DeValue::Datetime(datetime) => format!("`{datetime}`"),
                other => kind(other).to_owned(),
            };
            self.error(entry.at, key, format!("{expected}, found {found}"));
        }
        instant
    }

    /// Reports the keys that nobody asked for, and those that do nothing yet.
    pub(super) fn finish(self) {
        for entry in entries(self.table) {
            if !self.known.contains(&entry.key) {
                let hint = self.report.nearest(entry.key, self.known.iter().copied());
                let problem = Problem::error(join(&self.path, entry.key), "unknown key").with_hint(hint);
                self.report.add(entry.key_at, problem);
            } else if NOT_IN_FORCE.contains(&entry.key) {
                let message = "read and checked, but not in force in this version";
                self.report.add(entry.key_at, Problem::warning(join(&self.path, entry.key), message));
            }
        }
    }
}

/// The time since the epoch of a date and time in UTC; `None` for anything else and for times before 1970.
fn since_epoch(value: &DeValue<'_>) -> Option<Duration> {
    let DeValue::Datetime(datetime) = value else {
        return None;
    };
    let (date, time) = (datetime.date?, datetime.time?);
    // The type of the offset has no public name without the crate's serde half; its text has.
    if datetime.offset?.to_string() != "Z" {
        return None;
    }
    let days = u64::try_from(days_since_epoch(date.year.into(), date.month.into(), date.day.into())).ok()?;
    let minutes = (days * 24 + u64::from(time.hour)) * 60 + u64::from(time.minute);
    let seconds = minutes * 60 + u64::from(time.second.unwrap_or(0));
    Some(Duration::new(seconds, time.nanosecond.unwrap_or(0)))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, by Howard Hinnant's `days_from_civil`
/// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March, so that the leap day is the last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1970_in_utc() {
        #[track_caller]
        fn check(text: &str, expected: Option<Duration>) {
            assert_eq!(since_epoch(DeValue::parse(text).unwrap().get_ref()), expected, "{text}");
        }
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        check("1970-01-01T00:00:00Z", seconds(0));
        check("1970-03-01T00:00:00Z", seconds(5_097_600));
        check("2000-02-29T12:34:56Z", seconds(951_827_696));
        check("2001-09-09T01:46:40Z", seconds(1_000_000_000));
        check("2024-12-31 23:59:59z", seconds(1_735_689_599));
        check("2026-11-22T14:02:11.5Z", Some(Duration::from_millis(1_795_356_131_500)));
        check("2100-03-01T00:00:00Z", seconds(4_107_542_400));
        check("1969-12-31T23:59:59Z", None);
        check("2026-11-22T14:02:11", None);
        check("2026-11-22T14:02:11+01:00", None);
        check("2026-11-22", None);
        check("14:02:11", None);
        check("1700000000", None);
    }

    #[test]
    fn entries_come_in_the_order_of_the_file() {
        let text = "[s.late.headers]\nx = 1\n[s.early]\n[s.late]\n[s.last]\n";
        let root = DeTable::parse(text).unwrap();
        let DeValue::Table(table) = root.get_ref().get("s").unwrap().get_ref() else { panic!("no table") };
        let keys: Vec<_> = entries(table).map(|entry| entry.key).collect();
        assert_eq!(keys, ["early", "late", "last"]);
    }
}
