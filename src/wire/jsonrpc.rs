//! JSON-RPC 2.0 messages as MCP uses them: spans over their own bytes.
//!
//! An [`Envelope`] is read in one pass and knows where the id, the method, the parameters and those members stand that the
//! gateway reads; everything else stays bytes. Source: JSON-RPC 2.0, and MCP's `schema.ts` (ids are strings or integers,
//! never `null`; `params` is an object).

use std::borrow::Cow;
use std::fmt;

use hyper::body::Bytes;

use super::json::{self, Duplicates, JsonError, JsonType, Scanner, Span, text_of, type_of};
use super::mcp::{code, meta, method};

/// Members of `params` that the gateway reads, in the order of `PARAM_NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// Tool or prompt of a call.
    Name,
    /// Resource of a read or subscription.
    Uri,
    /// Where a list goes on.
    Cursor,
    /// Progress token of a progress notification.
    ProgressToken,
    /// Request that a `notifications/cancelled` means.
    RequestId,
    /// Version asked for by `initialize`.
    ProtocolVersion,
    /// Client capabilities in `initialize`.
    Capabilities,
    /// Client name and version in `initialize`.
    ClientInfo,
    /// Arguments of a tool.
    Arguments,
    /// Level of `logging/setLevel`, and of a log message.
    Level,
    /// What the client answers to a modern server's questions.
    InputResponses,
    /// What a modern server wants back with those answers.
    RequestState,
    /// Tasks of 2025-11-25, which are not relayed.
    Task,
    /// Prompt or template of a completion.
    Ref,
    /// A task of the modern era.
    TaskId,
}

impl Param {
    /// The member's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        PARAM_NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

const PARAM_NAMES: [&str; 15] = [
    "name",
    "uri",
    "cursor",
    "progressToken",
    "requestId",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "arguments",
    "level",
    "inputResponses",
    "requestState",
    "task",
    "ref",
    "taskId",
];

/// Members of `params._meta` that the gateway reads, in the order of `META_NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Token under which the sender wants progress.
    ProgressToken,
    /// Version of a modern request.
    ProtocolVersion,
    /// Client capabilities of a modern request.
    ClientCapabilities,
    /// From which level on a modern client wants log messages.
    LogLevel,
}

const META_NAMES: [&str; 4] = ["progressToken", meta::PROTOCOL_VERSION, meta::CLIENT_CAPABILITIES, meta::LOG_LEVEL];

/// Members of a server's `result` that the gateway reads, in the order of `RESULT_NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultMember {
    /// How a modern result is to be read.
    Type,
    /// For how long it will do.
    Ttl,
    /// For whom it will do.
    CacheScope,
    /// What is said about it.
    Meta,
    /// The result of a tool as data.
    Structured,
    /// What a modern server wants back with the answers to its questions.
    RequestState,
}

impl ResultMember {
    /// The member's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        RESULT_NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

const RESULT_NAMES: [&str; 6] = ["resultType", "ttlMs", "cacheScope", "_meta", "structuredContent", "requestState"];

/// A member of an object, as far as it takes to replace it or to take it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the member before it ends, or the object begins.
    pub before: usize,
    /// Its value.
    pub value: Span,
    /// Whether it is the first of its object.
    pub first: bool,
}

/// Why a body is not a message that may be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// Not JSON, or JSON that is refused whole: -32700.
    Json(JsonError),
    /// JSON, but not a JSON-RPC message: -32600.
    Shape(&'static str),
}

impl MessageError {
    /// The JSON-RPC code of the answer.
    #[must_use]
    pub fn code(&self) -> i64 {
        match self {
            Self::Json(_) => code::PARSE_ERROR,
            Self::Shape(_) => code::INVALID_REQUEST,
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(e) => write!(f, "parse error: {e}"),
            Self::Shape(what) => write!(f, "invalid request: {what}"),
        }
    }
}

impl std::error::Error for MessageError {}

impl From<JsonError> for MessageError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result.
    Result,
    /// Has an error.
    Error,
}

/// Who sent a message, which decides how strictly it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client: duplicate members are refused.
    Client,
    /// A server: of duplicate members the last counts.
    Server,
}

/// A JSON-RPC message as spans over its own bytes.
#[derive(Clone, Debug)]
pub struct Envelope {
    bytes: Bytes,
    /// Boxed, because a message is handed on many times.
    spans: Box<Spans>,
}

/// Where the parts of a message stand.
#[derive(Clone, Debug, Default)]
struct Spans {
    version_ok: bool,
    id: Option<Span>,
    method: Option<Span>,
    /// The method, if it is one of the usual ones: it is asked for again and again.
    usual_method: Option<&'static str>,
    params: Option<Span>,
    result: Option<Span>,
    error: Option<Span>,
    param: [Option<Span>; PARAM_NAMES.len()],
    /// `params._meta`, whatever it is.
    meta: Option<Span>,
    in_meta: [Option<Span>; META_NAMES.len()],
    in_result: [Option<Found>; RESULT_NAMES.len()],
    /// Whether one of these occurs twice.
    result_repeats: bool,
}

impl Envelope {
    /// Reads one message; `depth` is the deepest nesting allowed, in levels.
    ///
    /// # Errors
    /// [`MessageError::Json`] for what is no JSON; [`MessageError::Shape`] for JSON that is no object (arrays included).
    pub fn parse(bytes: Bytes, depth: usize, sender: Sender) -> Result<Self, MessageError> {
        let duplicates = match sender {
            Sender::Client => Duplicates::Refused,
            Sender::Server => Duplicates::LastCounts,
        };
        let mut spans = Box::<Spans>::default();
        let mut scanner = Scanner::new(&bytes, depth, duplicates)?;
        if scanner.peek() != Some(b'{') {
            scanner.value()?;
            scanner.end()?;
            return Err(MessageError::Shape("expected a JSON object"));
        }
        scanner.object(|s, key| spans.member(&bytes, s, &key))?;
        scanner.end()?;
        Ok(Self { bytes, spans })
    }

    /// The message's own bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Tells what the message is.
    ///
    /// # Errors
    /// [`MessageError::Shape`], naming what is missing or wrong.
    pub fn kind(&self) -> Result<Kind, MessageError> {
        if !self.spans.version_ok {
            return Err(MessageError::Shape("expected `\"jsonrpc\": \"2.0\"`"));
        }
        match (self.spans.method, self.spans.result, self.spans.error) {
            (Some(method), None, None) if type_of(method.of(&self.bytes)) == JsonType::String => match self.spans.id {
                None => Ok(Kind::Notification),
                Some(_) if self.id().is_some() => Ok(Kind::Request),
                Some(_) => Err(MessageError::Shape("expected an `id` that is a string or an integer")),
            },
            (Some(_), None, None) => Err(MessageError::Shape("expected a `method` that is a string")),
            (None, Some(_), None) => Ok(Kind::Result),
            (None, None, Some(_)) => Ok(Kind::Error),
            (None, None, None) => Err(MessageError::Shape("expected a `method`, a `result` or an `error`")),
            _ => Err(MessageError::Shape("expected only one of `method`, `result` and `error`")),
        }
    }

    /// The id as it is written, if it is a string or an integer.
    #[must_use]
    pub fn id(&self) -> Option<&[u8]> {
        self.spans.id.map(|s| s.of(&self.bytes)).filter(|id| is_id(id))
    }

    /// Where the id stands, whatever it is.
    #[must_use]
    pub fn id_span(&self) -> Option<Span> {
        self.spans.id
    }

    /// Whether the id is this number, written as a number or (as some servers do) as a string.
    #[must_use]
    pub fn id_is(&self, number: u64) -> bool {
        self.id().is_some_and(|id| is_number(id, number))
    }

    /// The method's name, unescaped.
    #[must_use]
    pub fn method(&self) -> Option<Cow<'_, str>> {
        match self.spans.usual_method {
            Some(method) => Some(Cow::Borrowed(method)),
            None => text_of(self.spans.method?.of(&self.bytes)),
        }
    }

    /// Whether `params` is absent or an object.
    #[must_use]
    pub fn params_fit(&self) -> bool {
        self.spans.params.is_none_or(|p| type_of(p.of(&self.bytes)) == JsonType::Object)
    }

    /// Where `params` stands, if it is an object.
    #[must_use]
    pub fn params_span(&self) -> Option<Span> {
        self.spans.params.filter(|p| type_of(p.of(&self.bytes)) == JsonType::Object)
    }

    /// Where `params._meta` stands, whatever it is.
    #[must_use]
    pub fn meta_member_span(&self) -> Option<Span> {
        self.spans.meta
    }

    /// Where `params._meta` stands, if it is an object.
    #[must_use]
    pub fn meta_object_span(&self) -> Option<Span> {
        self.spans.meta.filter(|m| type_of(m.of(&self.bytes)) == JsonType::Object)
    }

    /// A member of `result`; of several of this name the last.
    #[must_use]
    pub fn in_result(&self, member: ResultMember) -> Option<Found> {
        self.spans.in_result.get(member as usize).copied().flatten()
    }

    /// Whether one of the members that the gateway reads occurs in `result` more than once.
    #[must_use]
    pub fn result_repeats(&self) -> bool {
        self.spans.result_repeats
    }

    /// Where a member of `params` stands.
    #[must_use]
    pub fn param_span(&self, param: Param) -> Option<Span> {
        self.spans.param.get(param as usize).copied().flatten()
    }

    /// A member of `params`, as it is written.
    #[must_use]
    pub fn param(&self, param: Param) -> Option<&[u8]> {
        self.param_span(param).map(|s| s.of(&self.bytes))
    }

    /// A member of `params` that is a string, unescaped; `None` if it is absent or something else.
    #[must_use]
    pub fn param_text(&self, param: Param) -> Option<Cow<'_, str>> {
        self.param(param).and_then(text_of)
    }

    /// Where a member of `params._meta` stands.
    #[must_use]
    pub fn meta_span(&self, meta: Meta) -> Option<Span> {
        self.spans.in_meta.get(meta as usize).copied().flatten()
    }

    /// A member of `params._meta`, as it is written.
    #[must_use]
    pub fn meta(&self, meta: Meta) -> Option<&[u8]> {
        self.meta_span(meta).map(|s| s.of(&self.bytes))
    }

    /// Where the result stands.
    #[must_use]
    pub fn result_span(&self) -> Option<Span> {
        self.spans.result
    }

    /// The result, as it is written, if the message is one.
    #[must_use]
    pub fn result(&self) -> Option<&[u8]> {
        self.spans.result.map(|s| s.of(&self.bytes))
    }

    /// The error object, if the message is one.
    #[must_use]
    pub fn error(&self) -> Option<ErrorObject> {
        let object = self.spans.error?;
        let mut error = ErrorObject { code: code::INTERNAL_ERROR, message: String::new(), data: None };
        for (key, span) in json::members_of(&self.bytes, object) {
            let value = span.of(&self.bytes);
            match key.as_ref() {
                "code" => error.code = std::str::from_utf8(value).ok()?.parse().ok()?,
                "message" => error.message = text_of(value)?.into_owned(),
                "data" => error.data = Some(self.bytes.slice(span.range())),
                _ => {}
            }
        }
        Some(error)
    }
}

impl Spans {
    fn member(&mut self, bytes: &[u8], s: &mut Scanner<'_>, key: &str) -> Result<(), JsonError> {
        match key {
            "jsonrpc" => self.version_ok = s.value()?.of(bytes) == b"\"2.0\"",
            "id" => self.id = Some(s.value()?),
            "method" => {
                let value = s.value()?;
                let name = json::inside_quotes(value.of(bytes));
                self.usual_method = method::USUAL.into_iter().find(|usual| name == Some(usual.as_bytes()));
                self.method = Some(value);
            }
            "params" => {
                // Should there be two, the last counts, with nothing of the first.
                (self.param, self.meta, self.in_meta) = ([None; PARAM_NAMES.len()], None, [None; META_NAMES.len()]);
                let is_object = s.peek() == Some(b'{');
                let span = if is_object { s.object(|s, key| self.param_member(s, &key)) } else { s.value() };
                self.params = Some(span?);
            }
            "result" => {
                (self.in_result, self.result_repeats) = ([None; RESULT_NAMES.len()], false);
                let is_object = s.peek() == Some(b'{');
                self.result = Some(if is_object { self.result_object(s)? } else { s.value()? });
            }
            "error" => self.error = Some(s.value()?),
            _ => drop(s.value()?),
        }
        Ok(())
    }

    fn result_object(&mut self, s: &mut Scanner<'_>) -> Result<Span, JsonError> {
        let (mut before, mut first) = (s.position() + 1, true);
        s.object(|s, key| {
            let value = s.value()?;
            if let Some(slot) = slot(&RESULT_NAMES, &mut self.in_result, &key) {
                self.result_repeats |= slot.replace(Found { before, value, first }).is_some();
            }
            (before, first) = (value.end, false);
            Ok(())
        })
    }

    fn param_member(&mut self, s: &mut Scanner<'_>, key: &str) -> Result<(), JsonError> {
        if key == "_meta" && s.peek() == Some(b'{') {
            self.in_meta = [None; META_NAMES.len()];
            self.meta = Some(s.object(|s, key| {
                let value = s.value()?;
                if let Some(slot) = slot(&META_NAMES, &mut self.in_meta, &key) {
                    *slot = Some(value);
                }
                Ok(())
            })?);
            return Ok(());
        }
        let value = s.value()?;
        if key == "_meta" {
            (self.meta, self.in_meta) = (Some(value), [None; META_NAMES.len()]);
        }
        if let Some(slot) = slot(&PARAM_NAMES, &mut self.param, key) {
            *slot = Some(value);
        }
        Ok(())
    }
}

fn slot<'s, T, const N: usize>(
    names: &[&str; N],
    slots: &'s mut [Option<T>; N],
    key: &str,
) -> Option<&'s mut Option<T>> {
    names.iter().position(|name| *name == key).and_then(|i| slots.get_mut(i))
}

/// Whether a value that was scanned is a string, or a number without fraction and exponent.
#[must_use]
pub fn is_id(value: &[u8]) -> bool {
    match type_of(value) {
        JsonType::String => true,
        JsonType::Number => value.iter().all(|b| b.is_ascii_digit() || *b == b'-'),
        _ => false,
    }
}

/// Whether a value that was scanned is this number, written as a number or (as some servers do) as a string.
#[must_use]
pub fn is_number(value: &[u8], number: u64) -> bool {
    let digits = json::inside_quotes(value).unwrap_or(value);
    let append = |so_far: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        so_far.checked_mul(10)?.checked_add(digit)
    };
    !digits.is_empty() && digits.iter().try_fold(0, append) == Some(number)
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}: {}", self.code, self.message)
    }
}

/// A JSON-RPC error: code, message, and data as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorObject {
    /// Number of the error, see [`code`].
    pub code: i64,
    /// One sentence for a person.
    pub message: String,
    /// Details, as they are written.
    pub data: Option<Bytes>,
}

impl ErrorObject {
    /// Makes an error without data.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// Writes the response that carries the error; `id` is left out when it is not known (the schemas allow no `null`).
    #[must_use]
    pub fn to_message(&self, id: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + self.message.len());
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\"");
        if let Some(id) = id {
            out.extend_from_slice(b",\"id\":");
            out.extend_from_slice(id);
        }
        out.extend_from_slice(b",\"error\":{\"code\":");
        out.extend_from_slice(self.code.to_string().as_bytes());
        out.extend_from_slice(b",\"message\":");
        json::write_text(&mut out, &self.message);
        if let Some(data) = &self.data {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(data);
        }
        out.extend_from_slice(b"}}");
        out
    }
}

/// What stands before the result in a response: `{"jsonrpc":"2.0","id":…,"result":`. A `}` follows the result.
#[must_use]
pub fn result_head(id: &[u8]) -> Vec<u8> {
    [b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"result\":"].concat()
}

/// Writes the response that carries `result`, a JSON text.
#[must_use]
pub fn result_message(id: &[u8], result: &[u8]) -> Vec<u8> {
    let mut out = result_head(id);
    out.extend_from_slice(result);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Envelope, MessageError> {
        Envelope::parse(Bytes::copy_from_slice(text.as_bytes()), 8, Sender::Client)
    }

    #[track_caller]
    fn check(text: &str, expected: Result<Kind, MessageError>) {
        assert_eq!(parse(text).and_then(|e| e.kind()), expected, "{text}");
    }

    #[test]
    fn messages_are_told_apart() {
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Ok(Kind::Request));
        check(r#"{"jsonrpc":"2.0","id":"","method":"ping","params":{}}"#, Ok(Kind::Request));
        check(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Ok(Kind::Notification));
        check(r#"{"result":{},"jsonrpc":"2.0","id":1}"#, Ok(Kind::Result));
        check(r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#, Ok(Kind::Error));
        check(" \n{\"jsonrpc\" : \"2.0\" , \"id\" : -7 , \"method\" : \"x\"} ", Ok(Kind::Request));
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        let shape = |what| Err(MessageError::Shape(what));
        check("[]", shape("expected a JSON object"));
        check("7", shape("expected a JSON object"));
        check("{}", shape("expected `\"jsonrpc\": \"2.0\"`"));
        check(r#"{"jsonrpc":2.0,"id":1,"method":"x"}"#, shape("expected `\"jsonrpc\": \"2.0\"`"));
        check(r#"{"jsonrpc":"2.0","id":1}"#, shape("expected a `method`, a `result` or an `error`"));
        check(r#"{"jsonrpc":"2.0","id":1,"method":7}"#, shape("expected a `method` that is a string"));
        let two = "expected only one of `method`, `result` and `error`";
        check(r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#, shape(two));
        check(r#"{"jsonrpc":"2.0","id":1,"error":{},"result":{}}"#, shape(two));
        assert_eq!(parse("{").map_err(|e| e.code()).err(), Some(code::PARSE_ERROR));
        assert_eq!(parse("[]").map_err(|e| e.code()).err(), Some(code::INVALID_REQUEST));
    }

    #[test]
    fn null_fractional_and_structured_ids_are_refused() {
        for id in ["null", "1.0", "1e3", "1.5", "true", "{}", "[1]"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#);
            check(&text, Err(MessageError::Shape("expected an `id` that is a string or an integer")));
        }
        for id in ["0", "-1", "9007199254740993", "123456789012345678901234567890", r#""a""#, r#""\u00e9""#] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#);
            assert_eq!(parse(&text).unwrap().id(), Some(id.as_bytes()));
        }
    }

    #[test]
    fn duplicates_are_refused_at_every_level_that_is_read() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\u0061me":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"z":1,"z":2}}"#,
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.ends_with("occurs twice"), "{text}: {error}");
        }
    }

    #[test]
    fn of_a_servers_duplicates_the_last_counts() {
        let text = r#"{"jsonrpc":"2.0","id":1,"id":2,"result":1,"result":{"a":1}}"#;
        let envelope = Envelope::parse(Bytes::from_static(text.as_bytes()), 8, Sender::Server).unwrap();
        assert_eq!(envelope.id(), Some(&b"2"[..]));
        assert_eq!(envelope.result_span().map(|s| s.of(text.as_bytes())), Some(&br#"{"a":1}"#[..]));
    }

    #[test]
    fn members_are_found_wherever_they_stand() {
        let text = r#"{"params":{"arguments":{"name":"no"},"_meta":{"x":1,"progressToken":"p"},"name":"t\u00e9","cursor":7},"method":"tools\/call","id":"i","jsonrpc":"2.0"}"#;
        let e = parse(text).unwrap();
        assert_eq!(e.method().as_deref(), Some("tools/call"));
        assert_eq!(e.param_text(Param::Name).as_deref(), Some("t\u{e9}"));
        assert_eq!(e.param(Param::Cursor), Some(&b"7"[..]));
        assert_eq!(e.param_text(Param::Cursor), None);
        assert_eq!(e.meta(Meta::ProgressToken), Some(&b"\"p\""[..]));
        assert_eq!(e.param(Param::Uri), None);
    }

    #[test]
    fn numeric_ids_are_recognised_as_numbers_and_as_strings() {
        let is = |id: &str, n| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
            Envelope::parse(Bytes::from(text), 8, Sender::Server).unwrap().id_is(n)
        };
        assert!(is("41", 41) && is("\"41\"", 41));
        assert!(!is("42", 41) && !is("\"x\"", 41) && !is("null", 41) && !is("41.0", 41));
    }

    #[test]
    fn errors_are_read_and_written() {
        let text = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no \"x\"","data":{"uri":"a"}}}"#;
        let error = parse(text).unwrap().error().unwrap();
        assert_eq!(error.code, -32602);
        assert_eq!(error.data.as_deref(), Some(&br#"{"uri":"a"}"#[..]));
        assert_eq!(String::from_utf8(error.to_message(Some(b"1"))).unwrap(), text);
        let without_id = r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"a"}}"#;
        assert_eq!(String::from_utf8(ErrorObject::new(-32700, "a").to_message(None)).unwrap(), without_id);
        for broken in [r#"{"code":"1"}"#, r#"{"code":1.5}"#, r#"{"message":1}"#] {
            assert_eq!(parse(&format!(r#"{{"jsonrpc":"2.0","id":1,"error":{broken}}}"#)).unwrap().error(), None);
        }
    }
}
