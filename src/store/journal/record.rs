//! The lines of a journal.
//!
//! A file begins with a line that names its format. Every further line is one record: a checksum (the first 8 bytes of the
//! SHA-256 of what follows, in hexadecimal) and a JSON array, `[at,until,"key","value"]` where a text is kept, `[at,"key"]`
//! where it is forgotten. So a line that was cut or damaged is known for that, and costs no other.

use sha2::{Digest as _, Sha256};

use crate::wire::hex;
use crate::wire::json::{Duplicates, Scanner, text_of, write_text};

/// What every first line begins with, whatever the format.
const TITLE: &[u8] = b"mcp-x sessions ";
/// The number of this format; a file with another one is of a newer gateway.
pub(super) const FORMAT: &str = "1";
/// Digits of a checksum.
const CHECKSUM: usize = 16;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// When it was written: microseconds since the epoch, and later than every record that its writer knew.
    pub(super) at: u64,
    pub(super) key: String,
    /// What is kept; `None` if it is forgotten.
    pub(super) kept: Option<Kept>,
}

/// A text, and how long it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) value: String,
    /// Seconds since the epoch.
    pub(super) until: u64,
}

/// A file is of another format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OtherFormat;

/// The first line.
pub(super) fn header() -> Vec<u8> {
    [TITLE, FORMAT.as_bytes(), b"\n"].concat()
}

/// The line of a text that is kept.
pub(super) fn kept(at: u64, until: u64, key: &str, value: &str) -> Vec<u8> {
    let mut text = format!("[{at},{until},").into_bytes();
    write_text(&mut text, key);
    text.push(b',');
    write_text(&mut text, value);
    line(text)
}

/// The line that forgets a text.
pub(super) fn forgotten(at: u64, key: &str) -> Vec<u8> {
    let mut text = format!("[{at},").into_bytes();
    write_text(&mut text, key);
    line(text)
}

fn line(mut text: Vec<u8>) -> Vec<u8> {
    text.push(b']');
    let mut line = checksum(&text).into_bytes();
    line.push(b' ');
    line.append(&mut text);
    line.push(b'\n');
    line
}

fn checksum(text: &[u8]) -> String {
    let mut sum = hex::encode(&Sha256::digest(text));
    sum.truncate(CHECKSUM);
    sum
}

/// The records of a file, and how many of its lines are not what was written.
///
/// # Errors
/// [`OtherFormat`] if its first line is whole and says so.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Record>, usize), OtherFormat> {
    let (mut records, mut damaged) = (Vec::new(), 0);
    for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if at == 0 && line == header() {
            continue;
        }
        let whole = line.strip_suffix(b"\n");
        if at == 0 && whole.is_some_and(|line| line.starts_with(TITLE)) {
            return Err(OtherFormat);
        }
        match whole.and_then(record) {
            Some(record) => records.push(record),
            None => damaged += 1,
        }
    }
    Ok((records, damaged))
}

/// Reads one line, without its end.
fn record(line: &[u8]) -> Option<Record> {
    let (sum, text) = line.split_at_checked(CHECKSUM)?;
    let text = text.strip_prefix(b" ")?;
    if sum != checksum(text).as_bytes() {
        return None;
    }
    let mut parts = Vec::new();
    let mut scanner = Scanner::new(text, 1, Duplicates::LastCounts).ok()?;
    let elements = scanner.array(|scanner| {
        parts.push(scanner.value()?.of(text));
        Ok(())
    });
    elements.and_then(|_| scanner.end()).ok()?;
    let number = |part: &[u8]| str::from_utf8(part).ok()?.parse::<u64>().ok();
    let text = |part| text_of(part).map(String::from);
    match parts.as_slice() {
        [at, key] => Some(Record { at: number(at)?, key: text(key)?, kept: None }),
        [at, until, key, value] => {
            let kept = Some(Kept { value: text(value)?, until: number(until)? });
            Some(Record { at: number(at)?, key: text(key)?, kept })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file, and what is in it.
    fn file() -> (Vec<u8>, Vec<Record>) {
        let rows = [
            (1, "a/b", Some(("one", 7))),
            (2, "", Some(("", 0))),
            (u64::MAX, "a \"b\"\n\u{e9}\u{0}", Some(("two\r\nlines \\ \u{1f600}", u64::MAX))),
            (3, "a/b", None),
        ];
        let (mut bytes, mut records) = (header(), Vec::new());
        for (at, key, value) in rows {
            bytes.extend(value.map_or_else(|| forgotten(at, key), |(value, until)| kept(at, until, key, value)));
            let kept = value.map(|(value, until)| Kept { value: value.to_owned(), until });
            records.push(Record { at, key: key.to_owned(), kept });
        }
        (bytes, records)
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, records) = file();
        assert_eq!(read(&bytes), Ok((records, 0)));
        assert_eq!(read(&header()), Ok((vec![], 0)));
        assert_eq!(read(b""), Ok((vec![], 0)));
    }

    #[test]
    fn a_file_cut_at_any_byte_gives_every_record_before_the_cut_and_tells() {
        let (bytes, records) = file();
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            let lines = cut.iter().filter(|byte| **byte == b'\n').count();
            let whole = records.iter().take(lines.saturating_sub(1)).cloned().collect::<Vec<_>>();
            let torn = usize::from(!cut.is_empty() && !cut.ends_with(b"\n"));
            assert_eq!(read(cut), Ok((whole, torn)), "{length}");
        }
    }

    #[test]
    fn one_byte_that_changed_costs_the_lines_it_stands_in_and_no_other() {
        let (bytes, records) = file();
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, b'\n'] {
                let mut changed = bytes.clone();
                changed[at] = if change == b'\n' { b'\n' } else { changed[at] ^ change };
                if changed == bytes {
                    continue;
                }
                match read(&changed) {
                    Ok((found, damaged)) => {
                        assert!(found.iter().all(|record| records.contains(record)), "{at}: {found:?}");
                        assert!(found.len() + 2 >= records.len() && damaged > 0, "{at}: {found:?}, {damaged}");
                    }
                    Err(OtherFormat) => assert!(at < header().len(), "{at}"),
                }
            }
        }
    }

    #[test]
    fn a_file_of_another_format_is_known_for_it() {
        let (bytes, _) = file();
        let text = String::from_utf8(bytes).unwrap();
        for format in ["2", "10", "1 with more"] {
            let other = text.replacen("sessions 1\n", &format!("sessions {format}\n"), 1);
            assert_eq!(read(other.as_bytes()), Err(OtherFormat), "{format}");
        }
    }

    #[test]
    fn a_line_that_is_not_of_this_form_is_damaged_even_if_its_checksum_is_right() {
        for text in
            ["[1]", "[1,2,\"a\"]", "[\"a\",\"b\"]", "[1,-2,\"a\",\"b\"]", "[1,2,3,4]", "[1,\"a\"", "{}", "[[1],\"a\"]"]
        {
            let bytes = [&header()[..], checksum(text.as_bytes()).as_bytes(), b" ", text.as_bytes(), b"\n"].concat();
            assert_eq!(read(&bytes), Ok((vec![], 1)), "{text}");
        }
    }
}
