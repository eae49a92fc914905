//! Server-sent events: the other of the two forms in which an MCP message travels over HTTP.
//!
//! [`Decoder`] reads what upstreams send, whatever the chunk borders; [`encode`] writes what clients are sent. The
//! grammar is the WHATWG's (HTML Living Standard, 9.2 "Server-sent events"), with three differences that MCP asks for
//! or that a gateway needs: an event without data is still handed out if it has an `id` or a `retry` (MCP 2025-11-25,
//! priming), text that is not UTF-8 is refused instead of repaired, and the end of the stream completes the last event
//! (see [`Decoder::finish`]).
//!
//! This module knows no JSON and no JSON-RPC. Reconnecting, the last event id and what an event name means are the
//! caller's.

use std::fmt;
use std::mem;

use hyper::body::{Buf, Bytes};

use super::words;

/// What keeps an idle stream open: a comment, which every reader skips.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Appends one JSON message, given in pieces that follow one another, to `out` as an event of a single `data:` line.
///
/// CR and LF cannot occur inside a JSON string, only as white space between tokens, so each becomes a space. `data`
/// must be JSON for that reason; it is not checked.
pub fn encode<'a>(out: &mut Vec<u8>, data: impl IntoIterator<Item = &'a [u8]>) {
    out.extend_from_slice(b"event: message\ndata: ");
    for piece in data {
        match find_line_end(piece) {
            None => out.extend_from_slice(piece),
            Some(_) => out.extend(piece.iter().map(|&byte| if is_line_end(byte) { b' ' } else { byte })),
        }
    }
    out.extend_from_slice(b"\n\n");
}

/// One event of a stream: the fields of a block of lines up to a blank one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last `event` field.
    pub name: Option<String>,
    /// The last `id` field of this event alone; empty means "forget the id". An earlier event's id is not carried over.
    pub id: Option<String>,
    /// The last `retry` field: how many milliseconds to wait before reconnecting.
    pub retry: Option<u64>,
    /// The `data` fields joined with LF, valid UTF-8. A single line that arrived in one chunk is a slice of that chunk
    /// and keeps it alive.
    pub data: Bytes,
}

impl Event {
    /// Tells whether the event carries a JSON-RPC message: it has data, and no name other than `message`.
    pub fn is_message(&self) -> bool {
        matches!(self.name.as_deref(), None | Some("" | "message")) && !self.data.is_empty()
    }
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SseError {
    /// An event has more than `limit` bytes.
    TooLarge {
        /// The limit given to [`Decoder::new`], in bytes.
        limit: usize,
    },
    /// A line that is not a comment is not UTF-8.
    NotUtf8,
}

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "expected an event of at most `{limit}` bytes, found a larger one"),
            Self::NotUtf8 => f.write_str("expected an event in UTF-8, found other bytes"),
        }
    }
}

impl std::error::Error for SseError {}

/// An incremental reader of one event stream.
///
/// Give it each chunk of the body with [`feed`](Self::feed) and call [`next_event`](Self::next_event) until it answers
/// `None`. Every byte is looked at a fixed number of times however small the chunks are, and besides the chunk in hand
/// no more than the limit is kept.
#[derive(Debug)]
pub struct Decoder {
    /// Largest event in bytes, see [`Decoder::new`].
    limit: usize,
    /// Bytes of the current event so far, its comments and line ends included.
    size: usize,
    /// The part of the last chunk that no line was taken from yet.
    rest: Bytes,
    /// The beginning of a line whose end has not come yet. Holds no line end, so it is never searched again.
    partial: Vec<u8>,
    /// The last line ended in CR: a LF that follows belongs to that line end.
    after_cr: bool,
    /// No line has been read yet: a byte order mark is allowed.
    at_start: bool,
    /// Fields of the current event; its data is kept apart, in `data`.
    event: Event,
    /// `data` fields of the current event.
    data: Data,
    /// The error that ended the stream. It is answered for ever, so that no event after a lost one can pass for whole.
    failed: Option<SseError>,
}

impl Decoder {
    /// Makes a reader for a new stream that accepts events of up to `limit` bytes: all lines of a block with their line
    /// ends, comments included (a CRLF counts as one byte).
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            size: 0,
            rest: Bytes::new(),
            partial: Vec::new(),
            after_cr: false,
            at_start: true,
            event: Event::default(),
            data: Data::None,
            failed: None,
        }
    }

    /// Begins to read another stream, with the same limit. What has come of the one before is dropped.
    pub fn restart(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Bytes that have come and were not handed out as events.
    #[must_use]
    pub fn held(&self) -> usize {
        self.size + self.rest.len()
    }

    /// Takes the next chunk of the body.
    ///
    /// What an earlier chunk still holds is read first; to keep it, both are copied into one, so read a chunk out
    /// before feeding the next.
    pub fn feed(&mut self, chunk: Bytes) {
        self.rest = if self.rest.is_empty() { chunk } else { [mem::take(&mut self.rest), chunk].concat().into() };
    }

    /// Reads the next whole event, or `None` if it needs another chunk. Blocks without data, `id` and `retry` are
    /// skipped.
    ///
    /// # Errors
    ///
    /// [`SseError::TooLarge`] as soon as a begun event exceeds the limit, [`SseError::NotUtf8`] at a line that is not
    /// text. The stream is lost then: every later call fails alike.
    pub fn next_event(&mut self) -> Result<Option<Event>, SseError> {
        while let Some(line) = self.next_line()? {
            if !line.is_empty() {
                self.read_field(line)?;
                continue;
            }
            self.size = 0;
            let event = self.take_event();
            if !event.data.is_empty() || event.id.is_some() || event.retry.is_some() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Reads on after the last chunk: first whole events, then, if it has data, the one that the end of the stream left
    /// without a blank line.
    ///
    /// The WHATWG drops such an event because it may be cut short. JSON tells by itself whether it is whole, and
    /// servers do end streams this way, so the caller decides.
    ///
    /// # Errors
    ///
    /// As [`next_event`](Self::next_event).
    pub fn finish(&mut self) -> Result<Option<Event>, SseError> {
        if let Some(event) = self.next_event()? {
            return Ok(Some(event));
        }
        let line = self.complete(Bytes::new());
        self.read_field(line)?;
        Ok(Some(self.take_event()).filter(|event| !event.data.is_empty()))
    }

    /// Takes the next line, without its end, or moves what is left of the chunk to `partial`.
    fn next_line(&mut self) -> Result<Option<Bytes>, SseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        if mem::take(&mut self.after_cr) && self.rest.starts_with(b"\n") {
            self.rest.advance(1);
        }
        let Some(length) = find_line_end(&self.rest) else {
            let piece = mem::take(&mut self.rest);
            self.count(piece.len())?;
            self.partial.extend_from_slice(&piece);
            return Ok(None);
        };
        let piece = self.rest.split_to(length);
        self.after_cr = self.rest.starts_with(b"\r");
        self.rest.advance(1);
        self.count(length + 1)?;
        Ok(Some(self.complete(piece)))
    }

    /// Puts the beginning of a line and its last piece together and takes off the byte order mark of the first line.
    fn complete(&mut self, piece: Bytes) -> Bytes {
        let mut line = if self.partial.is_empty() {
            piece
        } else {
            self.partial.extend_from_slice(&piece);
            mem::take(&mut self.partial).into()
        };
        if mem::take(&mut self.at_start) && line.starts_with(b"\xEF\xBB\xBF") {
            line.advance(3);
        }
        line
    }

    /// Adds to the size of the current event.
    fn count(&mut self, bytes: usize) -> Result<(), SseError> {
        self.size += bytes;
        if self.size > self.limit { Err(self.fail(SseError::TooLarge { limit: self.limit })) } else { Ok(()) }
    }

    /// Reads one line that is not blank into the current event: `name`, `name:value` or `name: value`.
    fn read_field(&mut self, line: Bytes) -> Result<(), SseError> {
        if line.starts_with(b":") {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            return Err(self.fail(SseError::NotUtf8));
        };
        // Names are short, so that looking at one byte after the other is quickest.
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let (name, value) = text.split_at_checked(colon).unwrap_or((text, ""));
        let value = value.strip_prefix(':').unwrap_or(value);
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => self.data.push(line.slice_ref(value.as_bytes())),
            "event" => self.event.name = Some(value.to_owned()),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" => self.event.retry = parse_retry(value).or(self.event.retry),
            _ => {}
        }
        Ok(())
    }

    /// Takes the current event and begins a new one.
    fn take_event(&mut self) -> Event {
        Event { data: mem::take(&mut self.data).join(), ..mem::take(&mut self.event) }
    }

    /// Notes the error that ends the stream.
    fn fail(&mut self, error: SseError) -> SseError {
        self.failed = Some(error);
        error
    }
}

/// The `data` fields of an event: one is kept as it came, more are joined with LF.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    Line(Bytes),
    Lines(Vec<u8>),
}

impl Data {
    fn push(&mut self, line: Bytes) {
        *self = match mem::take(self) {
            Self::None => Self::Line(line),
            Self::Line(first) => Self::Lines([first, line].join(&b'\n')),
            Self::Lines(mut lines) => {
                lines.push(b'\n');
                lines.extend_from_slice(&line);
                Self::Lines(lines)
            }
        };
    }

    fn join(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::Line(line) => line,
            Self::Lines(lines) => lines.into(),
        }
    }
}

/// Reads a `retry` value: ASCII digits only, so neither a sign nor a fraction. A number beyond `u64` counts as none.
fn parse_retry(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// Finds the first CR or LF.
fn find_line_end(bytes: &[u8]) -> Option<usize> {
    let clean = words::clean_blocks(bytes, |byte| u8::from(is_line_end(byte)));
    let line_ends_in = |word| words::equal(word, b'\n') | words::equal(word, b'\r');
    words::find(bytes.get(clean..).unwrap_or_default(), line_ends_in).map(|at| clean + at)
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_first_line_end_is_found_wherever_it_stands() {
        // Neighbours of the line ends, which are none.
        let plain = [0, 9, 11, 12, 14, 0x7f, 0x80, 0x8a, 0x8d, 0xff];
        for length in 0..100 {
            let bytes: Vec<u8> = plain.iter().copied().cycle().take(length).collect();
            assert_eq!(find_line_end(&bytes), None);
            for at in 0..length {
                for end in [b'\n', b'\r'] {
                    let mut bytes = bytes.clone();
                    bytes[at] = end;
                    assert_eq!(find_line_end(&bytes), Some(at), "of {length}");
                    bytes[at..].fill(end);
                    assert_eq!(find_line_end(&bytes), Some(at), "of {length}");
                }
            }
        }
    }

    /// What a stream gives: every event, then what its end gives.
    fn read(limit: usize, chunks: impl IntoIterator<Item = Bytes>) -> Result<(Vec<Event>, Option<Event>), SseError> {
        let mut decoder = Decoder::new(limit);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.feed(chunk);
            while let Some(event) = decoder.next_event()? {
                events.push(event);
            }
        }
        Ok((events, decoder.finish()?))
    }

    /// The ways in which every sample is cut: not at all, at every byte, and at random places.
    fn cuts(text: &[u8]) -> Vec<Vec<Bytes>> {
        let mut cuts = vec![vec![Bytes::copy_from_slice(text)], text.chunks(1).map(Bytes::copy_from_slice).collect()];
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        for largest in [2, 3, 5, 8, 40, 200].repeat(10) {
            let mut rest = text;
            let mut cut = Vec::new();
            while !rest.is_empty() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let (piece, after) = rest.split_at(rest.len().min((state % (largest + 1)) as usize));
                cut.push(Bytes::copy_from_slice(piece));
                rest = after;
            }
            cuts.push(cut);
        }
        cuts
    }

    /// An event as a row of a table: name, id, retry, data.
    type Row<'a> = (Option<&'a str>, Option<&'a str>, Option<u64>, &'a str);

    fn event((name, id, retry, data): Row<'_>) -> Event {
        let data = Bytes::copy_from_slice(data.as_bytes());
        Event { name: name.map(str::to_owned), id: id.map(str::to_owned), retry, data }
    }

    fn message(data: &str) -> Event {
        event((None, None, None, data))
    }

    #[track_caller]
    fn check(text: &[u8], expected: &[Row<'_>], at_end: Option<Row<'_>>) {
        let expected = Ok((expected.iter().copied().map(event).collect(), at_end.map(event)));
        for cut in cuts(text) {
            assert_eq!(read(4096, cut.clone()), expected, "cut as {cut:?}");
        }
    }

    #[track_caller]
    fn check_refused(limit: usize, text: &[u8], expected: SseError) {
        for cut in cuts(text) {
            assert_eq!(read(limit, cut.clone()), Err(expected), "cut as {cut:?}");
        }
    }

    #[test]
    fn nothing_of_a_stream_is_left_in_the_one_after_it() {
        for cut in ["data: {\"a", "id: 1\ndata: {}\r", "data: {}\n\ndata: 1\n\nda", &"x".repeat(200)] {
            let mut decoder = Decoder::new(100);
            decoder.feed(Bytes::copy_from_slice(cut.as_bytes()));
            let _ = decoder.next_event();
            decoder.restart();
            assert_eq!(decoder.held(), 0);
            decoder.feed(Bytes::from_static(b"\xEF\xBB\xBFdata: []\n\n"));
            assert_eq!(decoder.next_event(), Ok(Some(message("[]"))), "after {cut:?}");
            decoder.feed(Bytes::from("x".repeat(101)));
            assert_eq!(decoder.next_event(), Err(SseError::TooLarge { limit: 100 }), "after {cut:?}");
        }
    }

    #[test]
    fn a_block_of_lines_is_an_event() {
        check(b"data: {}\n\n", &[(None, None, None, "{}")], None);
        check(b"event: message\ndata: {}\n\n", &[(Some("message"), None, None, "{}")], None);
        check(
            b"retry:9\nid: a b\ndata:1\nevent:ping\n\ndata:2\n\n",
            &[(Some("ping"), Some("a b"), Some(9), "1"), (None, None, None, "2")],
            None,
        );
    }

    #[test]
    fn lines_end_in_lf_cr_or_crlf() {
        let two = [(None, None, None, "1\n2"), (None, None, None, "3")];
        check(b"data: 1\ndata: 2\n\ndata: 3\n\n", &two, None);
        check(b"data: 1\rdata: 2\r\rdata: 3\r\r", &two, None);
        check(b"data: 1\r\ndata: 2\r\n\r\ndata: 3\r\n\r\n", &two, None);
        check(b"data: 1\rdata: 2\n\r\ndata: 3\r\n\r", &two, None);
    }

    #[test]
    fn an_event_ending_in_cr_does_not_wait_for_a_lf() {
        let mut decoder = Decoder::new(64);
        decoder.feed(Bytes::from_static(b"data: 1\r\n\r"));
        assert_eq!(decoder.next_event(), Ok(Some(message("1"))));
        decoder.feed(Bytes::new());
        decoder.feed(Bytes::from_static(b"\ndata: 2\n\n"));
        assert_eq!(decoder.next_event(), Ok(Some(message("2"))));
    }

    #[test]
    fn one_space_after_the_colon_is_not_data() {
        check(b"data:  a \n\n", &[(None, None, None, " a ")], None);
        check(b"data:\ta\n\n", &[(None, None, None, "\ta")], None);
        check(b"data: a: b\n\n", &[(None, None, None, "a: b")], None);
    }

    #[test]
    fn data_lines_are_joined_with_lf() {
        check(b"data\ndata\n\n", &[(None, None, None, "\n")], None);
        check(b"data: {\ndata\ndata: }\n\n", &[(None, None, None, "{\n\n}")], None);
        check(b"data:\ndata: x\n\n", &[(None, None, None, "\nx")], None);
    }

    #[test]
    fn other_fields_and_comments_are_skipped() {
        check(b": hello\n\n: \xFF\n:\n\n", &[], None);
        check(b"data: 1\n: keep-alive\nfoo: 2\nfoo\n Data: 3\nDATA: 4\n\n", &[(None, None, None, "1")], None);
        check(KEEP_ALIVE, &[], None);
    }

    #[test]
    fn a_priming_event_is_handed_out() {
        check(b"id: 7\ndata:\n\n", &[(None, Some("7"), None, "")], None);
        check(b"id: 7\n\n", &[(None, Some("7"), None, "")], None);
        check(b"retry: 500\n\n", &[(None, None, Some(500), "")], None);
        check(b"id\n\n", &[(None, Some(""), None, "")], None);
    }

    #[test]
    fn an_event_without_data_id_and_retry_is_dropped() {
        check(b"\n\n\n", &[], None);
        check(b"event: message\n\n", &[], None);
        check(b"event: message\ndata:\n\ndata: 1\n\n", &[(None, None, None, "1")], None);
    }

    #[test]
    fn an_id_with_nul_is_ignored() {
        check(b"id: a\0\ndata: 1\n\n", &[(None, None, None, "1")], None);
        check(b"id: a\nid: \0\ndata: 1\n\n", &[(None, Some("a"), None, "1")], None);
    }

    #[test]
    fn a_retry_that_is_not_digits_is_ignored() {
        for value in ["", "+5", "-5", "1.5", "5s", "5 ", "\u{665}", "18446744073709551616"] {
            check(format!("retry: {value}\ndata: 1\n\n").as_bytes(), &[(None, None, None, "1")], None);
            check(format!("retry: 3\nretry: {value}\ndata: 1\n\n").as_bytes(), &[(None, None, Some(3), "1")], None);
        }
        check(b"retry: 18446744073709551615\n\n", &[(None, None, Some(u64::MAX), "")], None);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_only() {
        check(b"\xEF\xBB\xBFdata: 1\n\n", &[(None, None, None, "1")], None);
        check(b"\n\xEF\xBB\xBFdata: 1\n\n", &[], None);
        check(b"\xEF\xBB\xBF\xEF\xBB\xBFdata: 1\n\n", &[], None);
    }

    #[test]
    fn the_end_of_the_stream_completes_an_event_with_data() {
        check(b"data: 1\n\ndata: 2\n", &[(None, None, None, "1")], Some((None, None, None, "2")));
        check(b"id: 3\ndata: {}", &[], Some((None, Some("3"), None, "{}")));
        check(b"\xEF\xBB\xBFdata: 1", &[], Some((None, None, None, "1")));
        check(b"id: 3\nevent: message\n", &[], None);
        check(b"data: 1\n\ndat", &[(None, None, None, "1")], None);
    }

    #[test]
    fn finish_reads_whole_events_first() {
        let mut decoder = Decoder::new(64);
        decoder.feed(Bytes::from_static(b"data: 1\n\nda"));
        decoder.feed(Bytes::from_static(b"ta: 2"));
        assert_eq!(decoder.finish(), Ok(Some(message("1"))));
        assert_eq!(decoder.finish(), Ok(Some(message("2"))));
        assert_eq!(decoder.finish(), Ok(None));
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        check_refused(64, b"data: \xFF\n\n", SseError::NotUtf8);
        check_refused(64, b"data: \xC3\ndata: \xA9\n\n", SseError::NotUtf8);
        check_refused(64, b"event: \xC3(\ndata: 1\n\n", SseError::NotUtf8);
        check_refused(64, b"data: \xE2\x82", SseError::NotUtf8);
        check("data: \u{20AC}\u{1F600}\n\n".as_bytes(), &[(None, None, None, "\u{20AC}\u{1F600}")], None);
    }

    #[test]
    fn an_event_over_the_limit_is_refused() {
        let exact = b"event: a\ndata: 1234\n\n";
        for cut in cuts(exact) {
            assert_eq!(read(exact.len(), cut).map(|(events, _)| events.len()), Ok(1));
        }
        let limit = exact.len() - 1;
        check_refused(limit, exact, SseError::TooLarge { limit });
        check_refused(limit, b"data: 1\n: a comment of the event\n\n", SseError::TooLarge { limit });
        check_refused(limit, b"data: a line without an end", SseError::TooLarge { limit });
        check_refused(limit, &b"data\n".repeat(5), SseError::TooLarge { limit });
    }

    #[test]
    fn the_limit_is_per_event() {
        let text = [&b"data: 1\n\n"[..], KEEP_ALIVE].concat().repeat(100);
        for cut in cuts(&text) {
            assert_eq!(read(KEEP_ALIVE.len(), cut).map(|(events, _)| events.len()), Ok(100));
        }
    }

    #[test]
    fn a_refused_stream_stays_refused() {
        let mut decoder = Decoder::new(16);
        decoder.feed(Bytes::from_static(b"data: 1\ndata: \xFF\n\ndata: 2\n\n"));
        for _ in 0..2 {
            assert_eq!(decoder.next_event(), Err(SseError::NotUtf8));
        }
        decoder.feed(Bytes::from_static(b"data: 3\n\n"));
        assert_eq!(decoder.finish(), Err(SseError::NotUtf8));
    }

    #[test]
    fn data_of_a_whole_event_is_a_slice_of_its_chunk() {
        for end in ["\n", "\r\n"] {
            let chunk = Bytes::from(format!("event: message{end}data: {{}}{end}{end}").repeat(3));
            let (events, _) = read(64, [chunk.clone()]).unwrap();
            assert_eq!(events.len(), 3);
            for event in events {
                assert!(chunk.as_ptr_range().contains(&event.data.as_ptr()), "copied");
            }
        }
    }

    #[test]
    fn a_message_has_data_and_no_other_name() {
        let rows = [
            (None, "{}", true),
            (Some(""), "{}", true),
            (Some("message"), "{}", true),
            (Some("Message"), "{}", false),
            (Some("endpoint"), "/messages", false),
            (Some("message"), "", false),
            (None, "", false),
        ];
        for (name, data, expected) in rows {
            assert_eq!(event((name, None, None, data)).is_message(), expected, "{name:?} {data:?}");
        }
    }

    #[test]
    fn a_message_survives_encoding() {
        for json in ["{}", "{\"a\":\n[1,\r\n2]}\n", "\"data: \u{e9}\\n\u{2028}\"", &"[1]".repeat(50)] {
            let mut text = Vec::new();
            let (begun, rest) = json.as_bytes().split_at(json.len() / 2);
            encode(&mut text, [begun, rest]);
            let expected = (Some("message"), None, None, &*json.replace(['\r', '\n'], " "));
            check(&text, &[expected], None);
        }
    }

    /// What `eventsource-parser`, the reader of the TypeScript SDK, makes of a sample; see `fixtures/sse/make.mjs`.
    #[derive(serde::Deserialize)]
    struct Oracle {
        events: Vec<OracleEvent>,
        retries: Vec<u64>,
    }

    #[derive(serde::Deserialize)]
    struct OracleEvent {
        name: Option<String>,
        id: Option<String>,
        data: String,
    }

    #[track_caller]
    fn check_fixture(path: &Path) {
        let oracle: Oracle = serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
        let with_data = oracle.events.into_iter().filter(|event| !event.data.is_empty());
        let expected: Vec<_> = with_data.map(|event| (event.name, event.id, event.data.into())).collect();
        for cut in cuts(&std::fs::read(path).unwrap()) {
            let (events, _) = read(1 << 20, cut).unwrap();
            let retries: Vec<u64> = events.iter().filter_map(|event| event.retry).collect();
            let with_data = events.into_iter().filter(|event| !event.data.is_empty());
            let found: Vec<_> =
                with_data.map(|event| (event.name.filter(|name| !name.is_empty()), event.id, event.data)).collect();
            assert_eq!(found, expected, "{}", path.display());
            assert_eq!(retries, oracle.retries, "{}", path.display());
        }
    }

    #[test]
    fn samples_are_read_as_the_reference_reads_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sse");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let samples: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "sse")).collect();
        assert!(samples.len() >= 15, "found {} samples", samples.len());
        samples.iter().for_each(|path| check_fixture(path));
    }
}
