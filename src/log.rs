//! One-line records on stderr, as text or JSON.
//!
//! A record is a level, a fixed phrase that can be searched for, and fields. It is formatted into a shared buffer;
//! one writer thread puts whatever has gathered out in one `write`, so that a request never waits for stderr.
//! There is no global logger: a [`Log`] is handed to whoever may write. `wire` and `policy` have none.
//!
//! SECURITY: control characters are escaped in every value, so that nobody can forge a record or drive a terminal.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the writer lets records gather after it was woken.
const GATHER: Duration = Duration::from_millis(10);
/// Bytes that may wait for a blocked stderr; further records are dropped and counted.
const MAX_WAITING: usize = 4 << 20;

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
    format: Format,
    shared: Arc<Shared>,
    /// Ends the writer when the last handle is gone.
    _writer: Arc<Writer>,
}

/// What the handles and the writer thread share.
struct Shared {
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
            let _ = writeln!(state.waiting, "WARN log records dropped count={dropped}");
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
        let shared = Arc::new(Shared { state: Mutex::new(state), woken: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new().name("log".into()).spawn(move || write_until_closed(&for_thread));
        let writer = Writer { shared: Arc::clone(&shared), thread: spawned.ok() };
        Self { level, format, shared, _writer: Arc::new(writer) }
    }

    /// Opens a log that keeps nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::to(Box::new(std::io::sink()), Level::Error, Format::Text)
    }

    /// Writes an `error` record; `fields` is called only if the level is kept.
    pub fn error(&self, event: &str, fields: impl FnOnce(&mut Record<'_>)) {
        self.write(Level::Error, event, fields);
    }

    /// Writes a `warn` record.
    pub fn warn(&self, event: &str, fields: impl FnOnce(&mut Record<'_>)) {
        self.write(Level::Warn, event, fields);
    }

    /// Writes an `info` record.
    pub fn info(&self, event: &str, fields: impl FnOnce(&mut Record<'_>)) {
        self.write(Level::Info, event, fields);
    }

    /// Writes a `debug` record.
    pub fn debug(&self, event: &str, fields: impl FnOnce(&mut Record<'_>)) {
        self.write(Level::Debug, event, fields);
    }

    /// Puts out what waits, on the calling thread; for the moment before the process ends.
    pub fn flush(&self) {
        self.shared.drain();
    }

    fn write(&self, level: Level, event: &str, fields: impl FnOnce(&mut Record<'_>)) {
        if level > self.level {
            return;
        }
        let mut state = self.shared.lock();
        if state.waiting.len() > MAX_WAITING {
            state.dropped += 1;
            return;
        }
        let mut record = Record { out: &mut state.waiting, format: self.format };
        record.head(level, event, wall_clock());
        fields(&mut record);
        record.tail();
        if state.asleep {
            state.asleep = false;
            self.shared.woken.notify_one();
        }
    }
}

/// A record being written: its fields, in the order they are added.
pub struct Record<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
}

impl Record<'_> {
    /// Adds a field, `name=value` or `"name":"value"`.
    pub fn field(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        match self.format {
            Format::Text => {
                let start = self.out.len();
                let _ = write!(Escaped { out: self.out, json: false }, " {name}={value}");
                quote_if_needed(self.out, start + name.len() + 2);
            }
            Format::Json => {
                let _ = write!(self.out, ",\"{name}\":\"");
                let _ = write!(Escaped { out: self.out, json: true }, "{value}");
                self.out.push(b'"');
            }
        }
        self
    }

    /// Adds a number, unquoted in both formats.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        let _ = match self.format {
            Format::Text => write!(self.out, " {name}={value}"),
            Format::Json => write!(self.out, ",\"{name}\":{value}"),
        };
        self
    }

    fn head(&mut self, level: Level, event: &str, now: Duration) {
        let level = level.as_str();
        let _ = match self.format {
            Format::Text => write!(self.out, "{} {level} {event}", Timestamp(now)),
            Format::Json => {
                write!(self.out, "{{\"time\":\"{}\",\"level\":\"{level}\",\"event\":\"{event}\"", Timestamp(now))
            }
        };
    }

    fn tail(&mut self) {
        self.out.extend_from_slice(match self.format {
            Format::Text => b"\n",
            Format::Json => b"}\n",
        });
    }
}

/// Puts the value that starts at `start` into quotes if it is empty or holds a space, a quote or `=`.
fn quote_if_needed(out: &mut Vec<u8>, start: usize) {
    let value = out.get(start..).unwrap_or_default();
    if !value.is_empty() && !value.iter().any(|b| matches!(b, b' ' | b'"' | b'=')) {
        return;
    }
    let value = out.split_off(start.min(out.len()));
    out.push(b'"');
    for byte in value {
        if byte == b'"' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// A writer that escapes what could break a line (text) or a string (JSON).
struct Escaped<'a> {
    out: &'a mut Vec<u8>,
    json: bool,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')) {
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        for c in text.chars() {
            match c {
                '\n' => self.out.extend_from_slice(b"\\n"),
                '\r' => self.out.extend_from_slice(b"\\r"),
                '\t' => self.out.extend_from_slice(b"\\t"),
                '"' | '\\' if self.json => self.out.extend_from_slice(&[b'\\', c as u8]),
                // U+0085, U+2028 and the bidirectional controls also move text about.
                c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    write!(self.out, "\\u{:04x}", c as u32).map_err(|_| fmt::Error)?;
                }
                c => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(())
    }
}

/// A duration since the Unix epoch, shown as RFC 3339 in UTC with milliseconds.
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
    fn check(format: Format, fields: impl FnOnce(&mut Record<'_>), expected: &str) {
        let sink = Sink::default();
        Log::to(Box::new(sink.clone()), Level::Info, format).info("request", fields);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
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
    fn control_characters_cannot_forge_a_record() {
        check(Format::Text, |r| _ = r.field("a", "x\n2026 ERROR y"), r#"a="x\n2026 ERROR y""#);
        check(Format::Text, |r| _ = r.field("a", "\u{1b}[2J\u{202e}"), r"a=\u001b[2J\u202e");
        check(Format::Json, |r| _ = r.field("a", "\n\u{7f}"), r#""a":"\n\u007f""#);
    }

    #[test]
    fn records_below_the_level_are_not_formatted() {
        let log = Log::to(Box::new(Sink::default()), Level::Warn, Format::Text);
        log.info("request", |_| panic!("formatted"));
    }

    #[test]
    fn a_blocked_sink_costs_records_and_not_memory() {
        let sink = Sink::default();
        let held = sink.clone();
        let guard = held.0.lock().unwrap();
        let log = Log::to(Box::new(sink), Level::Info, Format::Text);
        let big = "x".repeat(1 << 20);
        for _ in 0..20 {
            log.info("big", |r| _ = r.field("a", &big));
        }
        assert!(log.shared.lock().waiting.len() < MAX_WAITING + (2 << 20));
        drop(guard);
        drop(log);
        assert!(String::from_utf8_lossy(&held.0.lock().unwrap()).contains("log records dropped count="));
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        let show = |s: u64, ms: u64| Timestamp(Duration::from_millis(s * 1000 + ms)).to_string();
        assert_eq!(show(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(show(951_827_696, 5), "2000-02-29T12:34:56.005Z");
        assert_eq!(show(1_795_356_135, 123), "2026-11-22T14:02:15.123Z");
    }
}
