//! One-line records on stderr, as text or JSON.
//!
//! A record is a level, a fixed phrase that can be searched for, and fields. It is formatted by whoever writes it and
//! then added to a shared buffer; one writer thread puts whatever has gathered out in one `write`, so that a request
//! waits neither for stderr nor for another's formatting.
//! There is no global logger: a [`Log`] is handed to whoever may write. `wire` and `policy` have none.
//!
//! SECURITY: quotes, backslashes and control characters are escaped in every value, so that nobody can end a value
//! early, forge a record or drive a terminal; and a value is cut at `MAX_VALUE`, because servers and clients choose it.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// How long the writer lets records gather after it was woken.
const GATHER: Duration = Duration::from_millis(10);
/// Bytes that may wait for a blocked stderr; further records are dropped and counted.
const MAX_WAITING: usize = 4 << 20;
/// Bytes of a field's value that are written, counted before they are escaped; what was cut off shows as `…`.
const MAX_VALUE: usize = 1024;
/// Bytes that most records fit into.
const USUAL: usize = 256;

/// How much a record matters, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The operator has to act.
    Error,
    /// Refused or odd, served on.
    Warn,
    /// Starts, stops, loads, requests.
    Info,
    /// Expected closes, cache decisions, handshakes.
    Debug,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }
}

impl FromStr for Level {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            _ => Err("expected `error`, `warn`, `info` or `debug`"),
        }
    }
}

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-22T14:02:15.123Z INFO request client=bob status=200`
    Text,
    /// One JSON object a line: `time`, `level`, `event`, then the fields, all values strings or numbers.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected `text` or `json`"),
        }
    }
}

/// A handle to the log; clones write to the same place.
#[derive(Clone)]
pub struct Log {
    level: Level,
    /// Ends when the last handle is gone.
    writer: Arc<Writer>,
}

/// What the handles and the writer thread share.
struct Shared {
    format: Format,
    state: Mutex<State>,
    woken: Condvar,
}

struct State {
    waiting: Vec<u8>,
    dropped: u64,
    asleep: bool,
    closed: bool,
    out: Option<Box<dyn Write + Send>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes out what waits. The sink is taken for the time of the write, so that records go on gathering.
    fn drain(&self) {
        let mut state = self.lock();
        if state.dropped > 0 {
            let dropped = std::mem::take(&mut state.dropped);
            let mut record = Record::new(self.format, wall_clock(), Level::Warn, "log records dropped");
            record.number("count", dropped);
            state.waiting.append(&mut record.finish());
        }
        let Some(mut out) = state.out.take() else { return };
        let mut batch = std::mem::take(&mut state.waiting);
        drop(state);
        // Nothing sensible can be done about a log that cannot be written.
        let _ = out.write_all(&batch);
        let _ = out.flush();
        batch.clear();
        let mut state = self.lock();
        state.out = Some(out);
        if state.waiting.is_empty() {
            state.waiting = batch;
        }
    }
}

/// The writer thread, ended and joined on drop.
struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.woken.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.drain();
    }
}

fn write_until_closed(shared: &Shared) {
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() && !state.closed {
            state.asleep = true;
            state = shared.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        if state.closed {
            return;
        }
        drop(state);
        std::thread::sleep(GATHER);
        shared.drain();
    }
}

impl Log {
    /// Opens a log on stderr that keeps records of `level` and graver.
    #[must_use]
    pub fn stderr(level: Level, format: Format) -> Self {
        Self::to(Box::new(std::io::stderr()), level, format)
    }

    /// Opens a log on any sink.
    #[must_use]
    pub fn to(out: Box<dyn Write + Send>, level: Level, format: Format) -> Self {
        let state =
            State { waiting: Vec::with_capacity(4096), dropped: 0, asleep: false, closed: false, out: Some(out) };
        let shared = Arc::new(Shared { format, state: Mutex::new(state), woken: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new().name("log".into()).spawn(move || write_until_closed(&for_thread));
        Self { level, writer: Arc::new(Writer { shared, thread: spawned.ok() }) }
    }

    /// Opens a log that keeps nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::to(Box::new(std::io::sink()), Level::Error, Format::Text)
    }

    /// Writes an `error` record; `fields` is called only if the level is kept.
    pub fn error(&self, event: &str, fields: impl FnOnce(&mut Record)) {
        self.write(Level::Error, event, fields);
    }

    /// Writes a `warn` record.
    pub fn warn(&self, event: &str, fields: impl FnOnce(&mut Record)) {
        self.write(Level::Warn, event, fields);
    }

    /// Writes an `info` record.
    pub fn info(&self, event: &str, fields: impl FnOnce(&mut Record)) {
        self.write(Level::Info, event, fields);
    }

    /// Writes a `debug` record.
    pub fn debug(&self, event: &str, fields: impl FnOnce(&mut Record)) {
        self.write(Level::Debug, event, fields);
    }

    /// Puts out what waits, on the calling thread; for the moment before the process ends.
    pub fn flush(&self) {
        self.writer.shared.drain();
    }

    /// Writes a record of this level.
    pub fn write(&self, level: Level, event: &str, fields: impl FnOnce(&mut Record)) {
        if level <= self.level {
            self.write_at(wall_clock(), level, event, fields);
        }
    }

    /// The same for whoever knows what time it is, since the epoch.
    pub fn write_at(&self, time: Duration, level: Level, event: &str, fields: impl FnOnce(&mut Record)) {
        if level > self.level {
            return;
        }
        let shared = &self.writer.shared;
        let mut record = Record::new(shared.format, time, level, event);
        fields(&mut record);
        let mut record = record.finish();
        let mut state = shared.lock();
        if state.waiting.len() > MAX_WAITING {
            state.dropped += 1;
            return;
        }
        state.waiting.append(&mut record);
        if state.asleep {
            state.asleep = false;
            shared.woken.notify_one();
        }
    }
}

/// A record being written: its fields, in the order they are added.
pub struct Record {
    out: Vec<u8>,
    format: Format,
}

impl Record {
    /// Begins a record of this time, since the epoch.
    fn new(format: Format, time: Duration, level: Level, event: &str) -> Self {
        let mut out = Vec::with_capacity(USUAL);
        let (time, level) = (Timestamp(time), level.as_str());
        let [before, after, between, end] = match format {
            Format::Text => ["", " ", " ", ""],
            Format::Json => ["{\"time\":\"", "\",\"level\":\"", "\",\"event\":\"", "\""],
        };
        out.extend_from_slice(before.as_bytes());
        time.write_to(&mut out);
        for part in [after, level, between, event, end] {
            out.extend_from_slice(part.as_bytes());
        }
        Self { out, format }
    }

    /// Adds a field, `name=value` or `"name":"value"`. In text a value that is empty, holds a space or `=`, or had
    /// something escaped is quoted, which makes it the same string as in JSON.
    pub fn field(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        self.name(name);
        let start = self.out.len();
        // The error says that the value was cut.
        let _ = write!(Escaped { out: &mut self.out, left: MAX_VALUE }, "{value}");
        let written = self.out.get(start..).unwrap_or_default();
        let quoted = self.format == Format::Json
            || written.is_empty()
            || written.iter().any(|b| matches!(b, b' ' | b'=' | b'\\'));
        if quoted {
            self.out.insert(start, b'"');
            self.out.push(b'"');
        }
        self
    }

    /// The same as [`field`](Self::field) for a text; most need neither quotes nor escapes, and are copied as they are.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        let is_bare = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'=');
        if value.is_empty() || value.len() > MAX_VALUE || !value.bytes().all(is_bare) {
            return self.field(name, value);
        }
        self.name(name);
        let quoted = self.format == Format::Json;
        self.quote(quoted);
        self.out.extend_from_slice(value.as_bytes());
        self.quote(quoted);
        self
    }

    /// Adds a number, unquoted in both formats.
    pub fn number(&mut self, name: &str, value: impl Into<i128>) -> &mut Self {
        self.name(name);
        let value = value.into();
        match u64::try_from(value) {
            Ok(value) => write_decimal(&mut self.out, value),
            Err(_) => self.out.extend_from_slice(value.to_string().as_bytes()),
        }
        self
    }

    /// Adds a time in milliseconds, rounded to one decimal, unquoted in both formats.
    pub fn millis(&mut self, name: &str, value: Duration) -> &mut Self {
        self.name(name);
        let tenths = (value.as_nanos() + 50_000) / 100_000;
        write_decimal(&mut self.out, u64::try_from(tenths / 10).unwrap_or(u64::MAX));
        self.out.extend_from_slice(&[b'.', b'0' + (tenths % 10) as u8]);
        self
    }

    /// Writes what comes before a value.
    fn name(&mut self, name: &str) {
        let quoted = self.format == Format::Json;
        self.out.push(if quoted { b',' } else { b' ' });
        self.quote(quoted);
        self.out.extend_from_slice(name.as_bytes());
        self.quote(quoted);
        self.out.push(if quoted { b':' } else { b'=' });
    }

    fn quote(&mut self, quoted: bool) {
        if quoted {
            self.out.push(b'"');
        }
    }

    /// Ends the record and its line.
    fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(match self.format {
            Format::Text => b"\n",
            Format::Json => b"}\n",
        });
        self.out
    }
}

/// Appends a number in decimal digits.
fn write_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(decimal(&mut [0; 20], number));
}

/// A number in decimal digits, at the end of the room for them.
fn decimal(digits: &mut [u8; 20], number: u64) -> &[u8] {
    let (mut start, mut left) = (digits.len(), number);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        (start, left) = (start - 1, left / 10);
        if left == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

/// A writer that escapes, as JSON strings do, what could end a string or a line, and takes no more than it has room for.
struct Escaped<'a> {
    out: &'a mut Vec<u8>,
    /// Bytes that may still come; [`fmt::Error`] when there are more, so that the rest is not even formatted.
    left: usize,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (kept, rest) = text.split_at_checked(text.floor_char_boundary(self.left)).unwrap_or((text, ""));
        self.left -= kept.len();
        self.escape(kept);
        if rest.is_empty() {
            return Ok(());
        }
        self.out.extend_from_slice("…".as_bytes());
        Err(fmt::Error)
    }
}

impl Escaped<'_> {
    fn escape(&mut self, text: &str) {
        if text.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')) {
            self.out.extend_from_slice(text.as_bytes());
            return;
        }
        for c in text.chars() {
            match c {
                '\n' => self.out.extend_from_slice(b"\\n"),
                '\r' => self.out.extend_from_slice(b"\\r"),
                '\t' => self.out.extend_from_slice(b"\\t"),
                '"' | '\\' => self.out.extend_from_slice(&[b'\\', c as u8]),
                // U+0085, U+2028 and the bidirectional controls also move text about.
                c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    let _ = write!(self.out, "\\u{:04x}", c as u32);
                }
                c => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}

/// The name of a request, in every record about it and in its answer.
#[derive(Clone, Copy, Debug)]
pub struct RequestId {
    text: [u8; Self::LONGEST],
    length: usize,
}

impl RequestId {
    /// Four digits, a hyphen, and a `u64`.
    const LONGEST: usize = 25;

    /// Names the request of this number; `prefix` tells the requests of one process from those of others.
    #[must_use]
    pub fn new(prefix: u16, number: u64) -> Self {
        let hex = |shift: u16| b"0123456789abcdef".get(usize::from(prefix >> shift & 0xf)).copied().unwrap_or_default();
        let (mut digits, mut text) = ([0; 20], [0; Self::LONGEST]);
        let parts = [&[hex(12), hex(8), hex(4), hex(0), b'-'], decimal(&mut digits, number)];
        let length = parts.map(<[u8]>::len).iter().sum();
        text.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        Self { text, length }
    }

    /// The name: letters, digits and a hyphen.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// The beginning of a text: at most so many bytes, and whole characters.
#[must_use]
pub fn cut(text: &str, longest: usize) -> &str {
    text.get(..text.floor_char_boundary(longest)).unwrap_or_default()
}

/// What the system said, in lower case and without the error number.
#[must_use]
pub fn os_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "a record carries the time at which it was written")]
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[track_caller]
    fn check(format: Format, fields: impl FnOnce(&mut Record), expected: &str) {
        let sink = Sink::default();
        Log::to(Box::new(sink.clone()), Level::Info, format).info("request", fields);
        let text = sink.text();
        assert!(text.contains(expected), "{text:?} has no {expected:?}");
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
    }

    #[test]
    fn values_with_spaces_are_quoted() {
        check(Format::Text, |r| _ = r.field("a", "x").field("b", "x y"), " INFO request a=x b=\"x y\"\n");
        check(Format::Text, |r| _ = r.field("a", "").number("n", 7), " a=\"\" n=7\n");
        check(Format::Json, |r| _ = r.field("a", "x \"y\"").number("n", 7), r#","a":"x \"y\"","n":7}"#);
    }

    #[test]
    fn requests_are_named_by_process_and_number() {
        assert_eq!(RequestId::new(0xa7, 0).as_str(), "00a7-0");
        assert_eq!(RequestId::new(0xf00d, 1234).as_str(), "f00d-1234");
    }

    #[test]
    fn a_text_is_written_as_every_other_value() {
        for value in
            ["", "plain", "a b", "a=b", "\"", "\\", "é", "\u{202e}x", "\n", &"x".repeat(2000), &"=".repeat(2000)]
        {
            for format in [Format::Text, Format::Json] {
                let (mut text, mut field) = (
                    Record::new(format, Duration::ZERO, Level::Info, "e"),
                    Record::new(format, Duration::ZERO, Level::Info, "e"),
                );
                text.text("n", value);
                field.field("n", value);
                let behind_time = |record: Record| record.finish().split_off(34);
                assert_eq!(behind_time(text), behind_time(field), "{value}");
            }
        }
    }

    #[test]
    fn numbers_are_not_quoted() {
        let numbers =
            |r: &mut Record| _ = r.number("a", -32602).number("b", 7_u64).millis("c", Duration::from_micros(1250));
        check(Format::Text, numbers, " INFO request a=-32602 b=7 c=1.3\n");
        check(Format::Json, numbers, r#","a":-32602,"b":7,"c":1.3}"#);
        let edges = |r: &mut Record| _ = r.number("a", 0).number("b", u64::MAX).millis("c", Duration::from_secs(60));
        check(Format::Text, edges, " a=0 b=18446744073709551615 c=60000.0\n");
    }

    #[test]
    fn every_character_comes_back_out_of_json() {
        let all: Vec<char> =
            ('\0'..='\u{2ff}').chain('\u{2000}'..='\u{20ff}').chain(['\u{feff}', '\u{10ffff}']).collect();
        let sink = Sink::default();
        let log = Log::to(Box::new(sink.clone()), Level::Info, Format::Json);
        for chunk in all.chunks(300) {
            log.info("request", |r| _ = r.field("a", chunk.iter().collect::<String>()));
        }
        drop(log);
        let text = sink.text();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        let value =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["a"].as_str().unwrap().to_owned();
        assert_eq!(text.lines().map(value).collect::<String>(), all.iter().collect::<String>());
    }

    #[test]
    fn control_characters_cannot_forge_a_record() {
        check(Format::Text, |r| _ = r.field("a", "x\n2026 ERROR y"), r#"a="x\n2026 ERROR y""#);
        check(Format::Text, |r| _ = r.field("a", "\u{1b}[2J\u{202e}"), r#"a="\u001b[2J\u202e""#);
        check(Format::Json, |r| _ = r.field("a", "\n\u{7f}"), r#""a":"\n\u007f""#);
    }

    #[test]
    fn a_value_cannot_be_ended_early() {
        let forged = r#"x\" status=200 client=admin"#;
        check(Format::Text, |r| _ = r.field("a", forged), r#" a="x\\\" status=200 client=admin""#);
        check(Format::Json, |r| _ = r.field("a", forged), r#""a":"x\\\" status=200 client=admin"}"#);
        check(Format::Text, |r| _ = r.field("a", r"x\").field("b", "y"), r#" a="x\\" b=y"#);
        check(Format::Text, |r| _ = r.field("a", r"\n"), r#" a="\\n""#);
    }

    #[test]
    fn a_long_value_is_cut_and_says_so() {
        let most = "x".repeat(MAX_VALUE);
        check(Format::Text, |r| _ = r.field("a", &most).field("b", 1), &format!(" a={most} b=1"));
        check(Format::Text, |r| _ = r.field("a", format!("{most}y")).field("b", 1), &format!(" a={most}… b=1"));
        check(Format::Json, |r| _ = r.field("a", format!("{most}y")), &format!("\"a\":\"{most}…\"}}"));
        // In the middle of a character, and in pieces.
        let wide = "x".repeat(MAX_VALUE - 1);
        check(Format::Text, |r| _ = r.field("a", format!("{wide}é")), &format!(" a={wide}…\n"));
        check(Format::Text, |r| _ = r.field("a", format_args!("{most}{}", "y")), &format!(" a={most}…\n"));
    }

    #[test]
    fn a_value_may_write_a_record_of_its_own() {
        struct Chatty(Log);
        impl fmt::Display for Chatty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.info("inner", |_| {});
                f.write_str("x")
            }
        }
        let sink = Sink::default();
        let log = Log::to(Box::new(sink.clone()), Level::Info, Format::Text);
        let within = log.clone();
        let (done, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            within.info("outer", |r| _ = r.field("a", Chatty(within.clone())));
            let _ = done.send(());
        });
        outcome.recv_timeout(Duration::from_secs(10)).expect("formatting holds the lock");
        log.flush();
        assert!(sink.text().contains(" INFO inner\n") && sink.text().contains(" INFO outer a=x\n"), "{}", sink.text());
    }

    #[test]
    fn records_below_the_level_are_not_formatted() {
        let log = Log::to(Box::new(Sink::default()), Level::Warn, Format::Text);
        log.info("request", |_| panic!("formatted"));
    }

    #[test]
    fn a_blocked_sink_costs_records_and_not_memory() {
        for format in [Format::Text, Format::Json] {
            let sink = Sink::default();
            let guard = sink.0.lock().unwrap();
            let log = Log::to(Box::new(sink.clone()), Level::Info, format);
            let big = "x".repeat(MAX_VALUE);
            for _ in 0..3 * MAX_WAITING / MAX_VALUE {
                log.info("big", |r| _ = r.field("a", &big));
            }
            assert!(log.writer.shared.lock().waiting.len() < MAX_WAITING + 2 * MAX_VALUE);
            drop(guard);
            drop(log);
            let text = sink.text();
            let told = text.lines().find(|line| line.contains("log records dropped")).expect("nobody is told");
            let like_others = match format {
                Format::Text => told.starts_with("20") && told.contains("Z WARN log records dropped count="),
                Format::Json => {
                    told.starts_with("{\"time\":\"20")
                        && told.contains("\"level\":\"WARN\",\"event\":\"log records dropped\",\"count\":")
                        && told.ends_with('}')
                }
            };
            assert!(like_others, "{told}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!((cut("abc", 3), cut("abc", 2), cut("abc", 0)), ("abc", "ab", ""));
        assert_eq!((cut("a\u{e9}b", 2), cut("a\u{e9}b", 3)), ("a", "a\u{e9}"));
    }
}
