//! Raw HTTP/1.1 towards the gateway, and what is checked of every answer: only headers that the gateway is known to
//! send, a body of the kind that the content type says, a request id, and no secret anywhere.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::PATIENCE;

/// Every header that an answer may have.
const KNOWN: [&str; 20] = [
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "mcp-session-id",
    "referrer-policy",
    "retry-after",
    "transfer-encoding",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
    "x-content-type-options",
    "x-request-id",
];

/// The status and headers of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header that occurs at most once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} occurs twice: {self:?}");
        value
    }

    /// The names of all headers.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.parsed(&self.body)
    }

    /// The JSON-RPC message that answers the request, as JSON.
    #[track_caller]
    pub(crate) fn response(&self) -> Value {
        self.parsed(&self.message())
    }

    /// The messages of a stream, as JSON.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<Value> {
        self.events().iter().map(|event| self.parsed(event)).collect()
    }

    #[track_caller]
    fn parsed(&self, text: &str) -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the JSON-RPC error.
    #[track_caller]
    pub(crate) fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {self:?}"))
    }

    /// The data of the events of a stream.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<String> {
        assert!(self.head.is_stream(), "{self:?}");
        events_of(&self.body)
    }

    /// The JSON-RPC message that answers the request: the body, or the last event of the stream.
    #[track_caller]
    pub(crate) fn message(&self) -> String {
        match self.head.is_stream() {
            true => self.events().pop().unwrap_or_else(|| panic!("an empty stream: {self:?}")),
            false => self.body.clone(),
        }
    }
}

/// One connection to the gateway.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    address: SocketAddr,
    secrets: Arc<Vec<String>>,
    /// What has come of an event stream beyond the last whole event.
    partial: String,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, secrets: Arc<Vec<String>>) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream), address, secrets, partial: String::new() }
    }

    /// Another connection to the same gateway.
    pub(crate) fn another(&self) -> Self {
        Self::open(self.address, Arc::clone(&self.secrets))
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends as much as the gateway takes before it closes.
    pub(crate) fn send_while_taken(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }

    /// Sends nothing more, and goes on reading.
    pub(crate) fn finish_sending(&mut self) {
        self.reader.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// Reads the head of an answer of the gateway.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        let head = self.unchecked_head();
        for (name, value) in &head.headers {
            assert!(KNOWN.contains(&name.as_str()), "unknown header {name}: {value}");
        }
        let id = head.header("x-request-id").unwrap_or_default();
        assert!(!id.is_empty(), "no x-request-id: {head:?}");
        head
    }

    /// Reads a whole answer of the gateway.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        self.rest_of(head)
    }

    /// Reads a whole answer of hyper, which is given before there is a request.
    #[track_caller]
    pub(crate) fn refusal(&mut self) -> Answer {
        let head = self.unchecked_head();
        self.rest_of(head)
    }

    /// Reads an interim answer, which has nothing but a status.
    #[track_caller]
    pub(crate) fn interim(&mut self, status: u16) {
        let head = self.unchecked_head();
        assert!(head.status == status && head.headers.is_empty(), "{head:?}");
    }

    /// Reads a whole answer of this HTTP version.
    #[track_caller]
    pub(crate) fn refusal_of(&mut self, version: &str) -> Answer {
        let head = self.head_of(version);
        self.rest_of(head)
    }

    /// Reads the body that belongs to a head.
    #[track_caller]
    pub(crate) fn rest_of(&mut self, head: Head) -> Answer {
        let mut body = Vec::new();
        if head.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = head.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.reader.read_exact(&mut body).unwrap();
        }
        let answer = Answer { head, body: String::from_utf8(body).unwrap() };
        self.check(&answer);
        answer
    }

    /// Reads the answer to a HEAD request, which has no body.
    #[track_caller]
    pub(crate) fn answer_to_head(&mut self) -> Head {
        self.head()
    }

    #[track_caller]
    fn check(&self, answer: &Answer) {
        self.check_secrets(&answer.body);
        match answer.head.header("content-type") {
            Some("application/json") => assert!(is_json(&answer.body), "{answer:?}"),
            Some("text/event-stream") => assert!(answer.events().iter().all(|data| is_json(data)), "{answer:?}"),
            Some("image/png" | "text/css; charset=utf-8" | "text/html; charset=utf-8") => {}
            Some("text/javascript; charset=utf-8" | "text/plain; charset=utf-8") => {}
            Some("text/plain; version=0.0.4; charset=utf-8") => {}
            Some(other) => panic!("content type {other}: {answer:?}"),
            None => assert!(answer.body.is_empty(), "a body without a content type: {answer:?}"),
        }
    }

    #[track_caller]
    fn check_secrets(&self, text: &str) {
        for secret in self.secrets.iter() {
            assert!(!text.contains(secret), "a secret in the answer: {text}");
        }
    }

    #[track_caller]
    fn unchecked_head(&mut self) -> Head {
        self.head_of("HTTP/1.1")
    }

    #[track_caller]
    fn head_of(&mut self, version: &str) -> Head {
        let line = self.line();
        let status = line.strip_prefix(version).and_then(|rest| rest.get(1..4)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            self.check_secrets(&line);
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Head { status, headers }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap_or_else(|error| panic!("no answer: {error}"));
        assert!(line.ends_with("\r\n"), "the answer ends within a line: {line:?}");
        line.truncate(line.len() - 2);
        line
    }

    /// The next chunk of a chunked body; `None` after the last.
    #[track_caller]
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut chunk = vec![0; size];
        self.reader.read_exact(&mut chunk).unwrap();
        assert_eq!(self.line(), "");
        (size > 0).then_some(chunk)
    }

    /// The data of the next event of a stream, as soon as it is there; `None` at the end.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Option<String> {
        let begun = Instant::now();
        loop {
            // The sign of life that a silent stream gives is no event, and resets the time limit of the socket.
            assert!(begun.elapsed() < PATIENCE, "no event in {PATIENCE:?}: {:?}", self.partial);
            if let Some((event, rest)) = self.partial.split_once("\n\n") {
                let (event, rest) = (format!("{event}\n\n"), rest.to_owned());
                self.partial = rest;
                match events_of(&event).pop() {
                    Some(data) => return Some(data),
                    None => continue,
                }
            }
            let Some(chunk) = self.chunk() else {
                assert_eq!(self.partial, "", "the stream ends within an event");
                return None;
            };
            let text = String::from_utf8(chunk).unwrap();
            self.check_secrets(&text);
            self.partial.push_str(&text);
        }
    }

    /// What comes next of a stream, as it was sent; `None` at the end.
    #[track_caller]
    pub(crate) fn raw_chunk(&mut self) -> Option<Vec<u8>> {
        self.chunk()
    }

    /// Whether something has come that was not read yet.
    pub(crate) fn has_event(&self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).unwrap();
        let is_there = stream.peek(&mut [0; 1]).is_ok_and(|count| count > 0);
        stream.set_nonblocking(false).unwrap();
        is_there || !self.reader.buffer().is_empty() || !self.partial.is_empty()
    }

    /// The next event of a stream as JSON.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Value {
        let event = self.event().expect("the stream has ended");
        serde_json::from_str(&event).unwrap()
    }

    /// Whether the gateway closes the connection without sending anything more.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Whether the gateway closes the connection, whatever it sends before.
    pub(crate) fn ends(&mut self) -> bool {
        match self.reader.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// The data of the events in a text. The gateway sends `data` and comments, and never an id (protocol.md 2.4).
#[track_caller]
fn events_of(text: &str) -> Vec<String> {
    assert!(text.is_empty() || text.ends_with("\n\n"), "unfinished event: {text:?}");
    let mut events = Vec::new();
    for event in text.split_terminator("\n\n") {
        let mut data = Vec::new();
        for line in event.lines() {
            match line.split_once(':') {
                Some(("", _)) => {}
                Some(("event", " message" | "message")) => {}
                Some(("data", value)) => data.push(value.strip_prefix(' ').unwrap_or(value)),
                _ => panic!("unexpected line {line:?} in {event:?}"),
            }
        }
        if !data.is_empty() {
            events.push(data.join("\n"));
        }
    }
    events
}

/// Unpaired surrogates, which a `Value` cannot hold, are JSON as well.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}
