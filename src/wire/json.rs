//! A JSON scanner: one pass over the bytes, no tree, spans instead of values.
//!
//! Checks the whole grammar of RFC 8259 and the nesting depth, and hands the members of the objects that somebody wants
//! to read to a visitor. What nobody reads is skipped, checked but not copied.
//!
//! SECURITY: keys are compared after unescaping, so that `"n\u0061me"` cannot slip past as another member than `"name"`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use super::words;

/// A stretch of a message, as byte offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The stretch of `bytes` that the span names; empty when the span is not from these bytes.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }

    /// The span as a range.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// The same stretch, with so many bytes more in front.
    fn behind(self, bytes: usize) -> Self {
        Self { start: self.start + bytes, end: self.end + bytes }
    }
}

/// Why bytes are not a JSON text that may be read. Boxed, as nearly every step of a scan may fail and hardly any does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError(Box<Fault>);

/// What is wrong with a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not UTF-8; the offset of the first bad byte.
    NotUtf8(usize),
    /// Not JSON: what was expected, and the offset at which something else stands.
    Syntax(&'static str, usize),
    /// Nested deeper than the limit.
    TooDeep(usize),
    /// A member that occurs twice in one of the objects that are read.
    Duplicate(String),
}

impl From<Fault> for JsonError {
    #[cold]
    fn from(fault: Fault) -> Self {
        Self(Box::new(fault))
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Fault::NotUtf8(at) => write!(f, "not UTF-8 at byte {at}"),
            Fault::Syntax(expected, at) => write!(f, "expected {expected} at byte {at}"),
            Fault::TooDeep(limit) => write!(f, "nested deeper than {limit} levels"),
            Fault::Duplicate(key) => write!(f, "member `{key}` occurs twice"),
        }
    }
}

impl std::error::Error for JsonError {}

/// What happens to a member that occurs twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// It is an error: what was authorised must be what is sent.
    Refused,
    /// The last one counts, as nearly every parser has it; for what servers send.
    LastCounts,
}

/// The kind of a JSON value, from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
}

/// The kind of a value that was scanned before.
#[must_use]
pub fn type_of(value: &[u8]) -> JsonType {
    match value.first() {
        Some(b'{') => JsonType::Object,
        Some(b'[') => JsonType::Array,
        Some(b'"') => JsonType::String,
        Some(b't' | b'f') => JsonType::Bool,
        Some(b'n') => JsonType::Null,
        _ => JsonType::Number,
    }
}

/// The text of a string value that was scanned before; `None` for other values and for unpaired surrogates.
#[must_use]
pub fn text_of(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = inside_quotes(value)?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice(value).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// What stands between the quotes of a string value, as it is written; `None` for other values.
#[must_use]
pub fn inside_quotes(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// Appends `text` as a JSON string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    // A `Vec` takes every write and a `str` is always serialisable.
    let _ = serde_json::to_writer(out, text);
}

/// The members of an object that was scanned before, in order; empty for other values.
///
/// Keys are unescaped. Where a member occurs twice, both are there.
#[must_use]
pub fn members_of(bytes: &[u8], object: Span) -> Vec<(Cow<'_, str>, Span)> {
    let mut members = Vec::new();
    let _ = Scanner::again(bytes, object).object(|s, key| {
        let value = s.value()?.behind(object.start);
        members.push((key, value));
        Ok(())
    });
    members
}

/// The value of a member of an object that was scanned before; of several of this name the last. `None` for other values.
#[must_use]
pub fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let members = members_of(object, Span { start: 0, end: object.len() });
    members.into_iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.of(object))
}

/// A member of an object, where it stands.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The key, unescaped.
    pub key: Cow<'a, str>,
    /// Key and value, as they are written.
    pub whole: Span,
    /// The value.
    pub value: Span,
}

/// The same as [`members_of`], with the places of whole members.
#[must_use]
pub fn whole_members_of(bytes: &[u8], object: Span) -> Vec<Member<'_>> {
    let (mut members, mut after) = (Vec::new(), object.start + 1);
    let _ = Scanner::again(bytes, object).object(|s, key| {
        let value = s.value()?.behind(object.start);
        // From the end of the value before, less the comma and white space between them.
        let between = bytes.get(after..value.start).unwrap_or_default();
        let start = after + between.iter().position(|&b| b == b'"').unwrap_or(0);
        after = value.end;
        members.push(Member { key, whole: Span { start, end: value.end }, value });
        Ok(())
    });
    members
}

/// The elements of an array that was scanned before, in order; empty for other values.
#[must_use]
pub fn elements_of(bytes: &[u8], array: Span) -> Vec<Span> {
    let mut elements = Vec::new();
    let _ = Scanner::again(bytes, array).array(|s| {
        elements.push(s.value()?.behind(array.start));
        Ok(())
    });
    elements
}

/// A position in a JSON text, moving forward only.
pub struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    limit: usize,
    duplicates: Duplicates,
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte of `bytes`; `limit` is the deepest nesting allowed, in levels.
    ///
    /// # Errors
    /// [`Fault::NotUtf8`].
    pub fn new(bytes: &'a [u8], limit: usize, duplicates: Duplicates) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|e| Fault::NotUtf8(e.valid_up_to()))?;
        let mut scanner = Self { text, bytes, at: 0, depth: 0, limit, duplicates };
        scanner.space();
        Ok(scanner)
    }

    /// Starts at a value that was scanned before.
    fn again(bytes: &'a [u8], value: Span) -> Self {
        let text = std::str::from_utf8(value.of(bytes)).unwrap_or_default();
        Self { text, bytes: text.as_bytes(), at: 0, depth: 0, limit: usize::MAX, duplicates: Duplicates::LastCounts }
    }

    /// The first byte of the value that comes next, after white space.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The offset of what comes next.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Checks that nothing but white space is left.
    ///
    /// # Errors
    /// [`Fault::Syntax`].
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.expected("the end of the message")) }
    }

    /// Skips the value that comes next and returns its span.
    ///
    /// # Errors
    /// [`Fault::Syntax`], [`Fault::TooDeep`].
    pub fn value(&mut self) -> Result<Span, JsonError> {
        let start = self.at;
        self.skip()?;
        Ok(Span { start, end: self.at })
    }

    fn skip(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.skip_object(),
            Some(b'[') => self.array(Self::skip).map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(self.expected("a JSON value")),
        }
    }

    /// Reads the object that comes next: `member` gets each key, unescaped, and must take the value off the scanner.
    ///
    /// # Errors
    /// As [`Scanner::value`]; [`Fault::Duplicate`] for a member that occurs twice, if those are refused; and what `member` returns.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), JsonError>,
    ) -> Result<Span, JsonError> {
        let start = self.at;
        let mut seen = Keys::default();
        self.enter(b'{', "an object")?;
        if !self.eat(b'}') {
            loop {
                let key = self.key()?;
                if self.duplicates == Duplicates::Refused && !seen.insert(&key) {
                    return Err(Fault::Duplicate(key.chars().take(40).collect()).into());
                }
                member(self, key)?;
                if self.leaves(b'}', "`,` or `}`")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(Span { start, end: self.at })
    }

    /// Reads the array that comes next: `element` must take each element off the scanner.
    ///
    /// # Errors
    /// As [`Scanner::value`], and what `element` returns.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), JsonError>) -> Result<Span, JsonError> {
        let start = self.at;
        self.enter(b'[', "an array")?;
        if !self.eat(b']') {
            loop {
                element(self)?;
                if self.leaves(b']', "`,` or `]`")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(Span { start, end: self.at })
    }

    fn skip_object(&mut self) -> Result<(), JsonError> {
        self.enter(b'{', "an object")?;
        if !self.eat(b'}') {
            loop {
                self.raw_key()?;
                self.skip()?;
                if self.leaves(b'}', "`,` or `}`")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn key(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.at;
        let (end, has_escapes) = self.raw_key()?;
        if !has_escapes {
            return Ok(Cow::Borrowed(self.text.get(start + 1..end - 1).unwrap_or_default()));
        }
        // A key with an unpaired surrogate equals no name that is looked for; its raw text stands in for it.
        let raw = self.text.get(start..end).unwrap_or_default();
        Ok(text_of(raw.as_bytes()).unwrap_or(Cow::Borrowed(raw)))
    }

    /// Takes a key and the colon behind it; where the key ends, and whether something in it is escaped.
    fn raw_key(&mut self) -> Result<(usize, bool), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a member name"));
        }
        let (has_escapes, end) = (self.string()?, self.at);
        self.space();
        if self.eat(b':') { Ok((end, has_escapes)) } else { Err(self.expected("`:`")) }
    }

    fn enter(&mut self, bracket: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(bracket) {
            return Err(self.expected(expected));
        }
        self.depth += 1;
        if self.depth > self.limit {
            return Err(Fault::TooDeep(self.limit).into());
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// After a member or element: true at the closing bracket, false after a comma.
    fn leaves(&mut self, bracket: u8, expected: &'static str) -> Result<bool, JsonError> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(false)
            }
            Some(b) if b == bracket => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.expected(expected)),
        }
    }

    /// Takes `byte` and the white space behind it, if it comes next.
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
            // After a closing bracket the caller's position is the end of its span.
            if byte == b':' {
                self.space();
            }
        }
        found
    }

    #[inline]
    fn space(&mut self) {
        if self.peek().is_some_and(|b| b <= b' ') {
            self.spaces();
        }
    }

    fn spaces(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes a string; whether something in it is escaped.
    #[inline]
    fn string(&mut self) -> Result<bool, JsonError> {
        self.at += 1;
        // Most strings are short names.
        for at in [self.at, self.at + 8] {
            let Some(word) = self.bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) else { break };
            let special = special_in(u64::from_le_bytes(*word));
            if special != 0 {
                let length = special.trailing_zeros() as usize / 8;
                if word.get(length) != Some(&b'"') {
                    break;
                }
                self.at = at + length + 1;
                return Ok(false);
            }
        }
        self.long_string()
    }

    fn long_string(&mut self) -> Result<bool, JsonError> {
        let mut has_escapes = false;
        loop {
            self.at += plain_prefix(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(has_escapes);
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                _ => return Err(self.expected("a string without control characters, closed by `\"`")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 1..self.at + 5).unwrap_or_default();
                if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.expected("`\\u` and four hexadecimal digits"));
                }
                self.at += 5;
            }
            _ => return Err(self.expected("an escape sequence")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), JsonError> {
        if !self.bytes.get(self.at..).unwrap_or_default().starts_with(word) {
            return Err(self.expected("a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    #[cold]
    fn expected(&self, what: &'static str) -> JsonError {
        Fault::Syntax(what, self.at).into()
    }
}

/// Length of the longest prefix without quote, backslash and control characters.
fn plain_prefix(bytes: &[u8]) -> usize {
    // Most strings are names of a few letters; whole blocks are left to texts.
    if let Some(special) = words::find(bytes.get(..32).unwrap_or(bytes), special_in) {
        return special;
    }
    let begun = bytes.len().min(32);
    let special = |b: u8| u8::from(b == b'"') | u8::from(b == b'\\') | u8::from(b < 0x20);
    let clean = begun + words::clean_blocks(bytes.get(begun..).unwrap_or_default(), special);
    let rest = bytes.get(clean..).unwrap_or_default();
    clean + words::find(rest, special_in).unwrap_or(rest.len())
}

/// Marks quotes, backslashes and control characters.
fn special_in(word: u64) -> u64 {
    words::below(word, 0x20) | words::equal(word, b'"') | words::equal(word, b'\\')
}

/// The keys of one object, as hashes: compared one by one while they are few, by a set when there are many.
///
/// Equal keys have equal hashes, so no duplicate goes unseen; a sender who constructs a collision has only its own
/// message refused.
#[derive(Default)]
struct Keys {
    few: [u64; 16],
    count: usize,
    many: HashSet<u64>,
}

impl Keys {
    /// Adds a key; false if it was there.
    fn insert(&mut self, key: &str) -> bool {
        let hash = fnv1a(key.as_bytes());
        if self.few.iter().take(self.count).any(|&h| h == hash) || self.many.contains(&hash) {
            return false;
        }
        match self.few.get_mut(self.count) {
            Some(slot) => {
                *slot = hash;
                self.count += 1;
                true
            }
            None => self.many.insert(hash),
        }
    }
}

/// The 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), JsonError>) {
        let found = Scanner::new(text.as_bytes(), 4, Duplicates::Refused).and_then(|mut s| {
            s.value()?;
            s.end()
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn json_texts_are_accepted() {
        for text in [
            "0",
            "-0",
            "10",
            "1.5",
            "1e5",
            "1E+5",
            "1.5e-5",
            "true",
            "false",
            "null",
            "\"\"",
            " [] ",
            "{}",
            "[1, 2]",
            "[[[[]]]]",
            "{ \"a\" : 1 , \"b\" : [ ] }",
            r#""\u00e9\n\\\"""#,
            "\"\u{e9}\u{1F600}\"",
            "\t\r\n 1",
            r#""\ud800""#,
        ] {
            check(text, Ok(()));
        }
    }

    #[test]
    fn other_texts_are_refused_with_their_place() {
        for (text, expected, at) in [
            ("", "a JSON value", 0),
            ("  ", "a JSON value", 2),
            ("tru", "a JSON value", 0),
            ("nul", "a JSON value", 0),
            ("01", "the end of the message", 1),
            ("1.", "a digit", 2),
            ("-", "a digit", 1),
            ("1e", "a digit", 2),
            (".5", "a JSON value", 0),
            ("+1", "a JSON value", 0),
            ("NaN", "a JSON value", 0),
            ("[1,]", "a JSON value", 3),
            ("[1 2]", "`,` or `]`", 3),
            ("[", "a JSON value", 1),
            ("{\"a\":1,}", "a member name", 7),
            ("{a:1}", "a member name", 1),
            ("{\"a\" 1}", "`:`", 5),
            ("{\"a\":1", "`,` or `}`", 6),
            ("1 2", "the end of the message", 2),
            ("\"a\nb\"", "a string without control characters, closed by `\"`", 2),
            ("\"abc", "a string without control characters, closed by `\"`", 4),
            (r#""\x""#, "an escape sequence", 2),
            (r#""\u12g4""#, "`\\u` and four hexadecimal digits", 2),
            (r#""\u12"#, "`\\u` and four hexadecimal digits", 2),
            ("\u{feff}1", "a JSON value", 0),
        ] {
            check(text, Err(Fault::Syntax(expected, at).into()));
        }
        assert_eq!(Scanner::new(b"\"\xff\"", 4, Duplicates::Refused).err(), Some(Fault::NotUtf8(1).into()));
    }

    #[test]
    fn the_plain_prefix_ends_at_the_first_special_byte() {
        for special in [0, 0x1f, b'"', b'\\'] {
            for at in 0..80 {
                let mut bytes = [b'a'; 80];
                // Neighbours of the special ones, which are plain.
                let plain = [0x20, b'!', b'#', b'[', b']', 0x7f, 0x80, 0x9f, 0xa2, 0xdc, 0xff];
                bytes.iter_mut().zip(plain.iter().cycle()).for_each(|(byte, plain)| *byte = *plain);
                assert_eq!(plain_prefix(&bytes), 80);
                bytes[at] = special;
                assert_eq!(plain_prefix(&bytes), at, "{special}");
                bytes[at + 1..].fill(special);
                assert_eq!(plain_prefix(&bytes), at, "{special}");
            }
        }
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        check("[[[[]]]]", Ok(()));
        check("[[[[[]]]]]", Err(Fault::TooDeep(4).into()));
        check(r#"{"a":{"a":{"a":{"a":{}}}}}"#, Err(Fault::TooDeep(4).into()));
        let deep = "[".repeat(1_000_000);
        check(&deep, Err(Fault::TooDeep(4).into()));
    }

    #[track_caller]
    fn keys(text: &str, duplicates: Duplicates) -> Result<Vec<String>, JsonError> {
        let mut keys = Vec::new();
        Scanner::new(text.as_bytes(), 9, duplicates)?.object(|s, key| {
            keys.push(key.into_owned());
            s.value().map(drop)
        })?;
        Ok(keys)
    }

    #[test]
    fn duplicate_members_are_refused_however_they_are_written() {
        for text in [r#"{"a":1,"b":2,"a":3}"#, r#"{"name":1,"n\u0061me":2}"#, r#"{"\u0061":1,"\u0061":2}"#] {
            let error = keys(text, Duplicates::Refused).unwrap_err();
            assert!(matches!(*error.0, Fault::Duplicate(_)), "{text}");
            assert!(keys(text, Duplicates::LastCounts).is_ok(), "{text}");
        }
        let mut many: String = (0..1000).map(|i| format!("\"k{i}\":0,")).collect();
        assert_eq!(keys(&format!("{{{many}\"x\":0}}"), Duplicates::Refused).map(|k| k.len()), Ok(1001));
        many.push_str("\"k999\":0");
        let found = keys(&format!("{{{many}}}"), Duplicates::Refused);
        assert_eq!(found, Err(Fault::Duplicate("k999".into()).into()));
    }

    #[test]
    fn strings_of_every_length_are_skipped_to_their_end() {
        for length in 0..100 {
            let text = format!("[\"{}\", 7]", "x".repeat(length));
            let array = Span { start: 0, end: text.len() };
            let found = elements_of(text.as_bytes(), array);
            assert_eq!(found.last().map(|s| s.of(text.as_bytes())), Some(&b"7"[..]), "{length}");
            check(
                &format!("\"{}\u{1}\"", "x".repeat(length)),
                Err(Fault::Syntax("a string without control characters, closed by `\"`", length + 1).into()),
            );
        }
    }

    #[test]
    fn texts_are_unescaped_only_where_they_must_be() {
        assert!(matches!(text_of(b"\"abc\""), Some(Cow::Borrowed("abc"))));
        assert_eq!(text_of(br#""a\u00e9\ud83d\ude00""#).as_deref(), Some("a\u{e9}\u{1f600}"));
        assert_eq!(text_of(br#""\ud800""#), None);
        assert_eq!(text_of(b"12"), None);
    }

    /// Agreement with an independent parser, on texts made from the pieces that JSON is made of.
    #[test]
    fn verdicts_agree_with_serde_json() {
        let pieces = [
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"\\n\"", "1", "-2.5e3", "0", "true", "null", " ", "\"",
            "\\", "e", ".",
        ];
        let mut seed = 0x9e37_79b9_u32;
        let mut valid = 0;
        for _ in 0..60_000 {
            let mut text = String::new();
            for _ in 0..seed % 9 + 1 {
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                text.push_str(pieces[seed as usize % pieces.len()]);
            }
            let expected = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            let found = Scanner::new(text.as_bytes(), 128, Duplicates::LastCounts).and_then(|mut s| {
                s.value()?;
                s.end()
            });
            assert_eq!(found.is_ok(), expected, "{text:?} {found:?}");
            valid += u32::from(expected);
        }
        assert!(valid > 1_000, "only {valid} valid texts");
    }
}
