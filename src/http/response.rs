//! Answers: the one body type, and the table of errors.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};

use super::access::Access;
use crate::alarm::Alarm;
use crate::budget::Budget;
use crate::gateway::{GatewayError, Outgoing, Relay, Stream};
use crate::log::RequestId;
use crate::shutdown::Shutdown;
use crate::wire::json::write_text;
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, MessageError, Sender, result_head};
use crate::wire::mcp::{Era, code, header};
use crate::wire::sse::{KEEP_ALIVE, encode};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What is said to whoever waits for an answer when the gateway ends.
pub const STOPPING: &str = "the gateway is stopping; the call may have been executed";
/// Nesting of what is skimmed of a message.
const SKIMMED_DEPTH: usize = 2;
/// Bytes of events that are gathered, of those that are there already, before they are sent.
const GATHERED: usize = 64 * 1024;
/// How often hyper asks a body for its next piece, at most, before other tasks have their turn.
const ASKED_IN_A_TURN: u8 = 2;
/// How often a piece is held back, at most, because another event has come: for 32 of them or so.
const MOST_ASKED: u8 = 2 * ASKED_IN_A_TURN * 16;

/// The body of every answer.
pub struct Body {
    content: Content,
    /// What it is; said in the head when that is complete.
    media_type: Option<&'static str>,
    /// Written to the log when the body is dropped.
    access: Option<Box<Access>>,
    /// Where events count until the client has taken them.
    budget: Option<Budget>,
}

enum Content {
    /// Pieces that follow one another, the next one last.
    Pieces(Vec<Bytes>),
    Events(Box<Events>),
}

impl Body {
    fn new(content: Content, media_type: Option<&'static str>) -> Self {
        Self { content, media_type, access: None, budget: None }
    }

    /// Of one media type, in pieces that follow one another, the next one last.
    fn of(pieces: Vec<Bytes>, media_type: &'static str) -> Self {
        Self::new(Content::Pieces(pieces), Some(media_type))
    }

    /// Hands over the request's record, to be completed while the body is sent.
    pub fn set_access(&mut self, mut access: Box<Access>) {
        match self.content {
            Content::Pieces(_) => access.complete = true,
            Content::Events(_) => access.streams(),
        }
        self.access = Some(access);
    }

    /// Counts what is sent as held until the client has taken it. It is not refused: it has been gathered already.
    pub fn set_budget(&mut self, budget: &Budget) {
        match &mut self.content {
            Content::Pieces(pieces) => {
                for piece in pieces {
                    *piece = budget.keep(std::mem::take(piece));
                }
            }
            Content::Events(_) => self.budget = Some(budget.clone()),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let next = match &mut this.content {
            Content::Pieces(pieces) => Poll::Ready(pieces.pop()),
            Content::Events(events) => events.poll_next(cx, this.access.as_deref_mut()),
        };
        let next = match &this.budget {
            Some(budget) => next.map(|bytes| bytes.map(|bytes| budget.keep(bytes))),
            None => next,
        };
        if let (Poll::Ready(Some(bytes)), Some(access)) = (&next, this.access.as_mut()) {
            access.bytes += bytes.len() as u64;
        }
        next.map(|bytes| bytes.map(|b| Ok(Frame::data(b))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Pieces(pieces) => pieces.is_empty(),
            Content::Events(events) => events.sources.is_empty() && events.held.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Pieces(pieces) => SizeHint::with_exact(pieces.iter().map(|p| p.len() as u64).sum()),
            Content::Events(_) => SizeHint::default(),
        }
    }
}

/// What an event stream lives by, beside its messages.
pub struct Upkeep {
    /// Rings when the stream has been silent for long.
    pub alive: Alarm,
    /// How long that is.
    pub every: Duration,
    /// Says when the stream has to end; the connection wakes whoever writes on it then.
    pub cut: Shutdown,
}

/// Where the messages of an event stream come from.
enum Source {
    /// A call.
    Call(Relay),
    /// What changes for the client.
    Changes(Box<Stream>),
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        match self {
            Self::Call(relay) => relay.poll_next(cx),
            Self::Changes(stream) => stream.poll_next(cx),
        }
    }

    /// Its last message, as the gateway ends.
    fn cut_off(&mut self) -> Option<Outgoing> {
        match self {
            Self::Call(relay) => relay.cut_off(STOPPING),
            Self::Changes(stream) => stream.end(),
        }
    }
}

/// The messages of calls, or of what changes, as an event stream.
struct Events {
    /// Those that run; the stream is over with the last of them.
    sources: Vec<Source>,
    /// Events that have come and were not sent yet.
    held: Vec<u8>,
    /// How often hyper has asked for more since the last of them came, and since the first.
    asked: (u8, u8),
    /// Whether any was sent. The first goes at once, in one write with the head.
    begun: bool,
    upkeep: Upkeep,
}

impl Events {
    /// All events that are there, in one piece.
    ///
    /// The connection to a server hands over one event a turn of the runtime, even where it has read them all. So what has
    /// come is held until that connection has had its turn and nothing more came, for a number of turns at most; nothing
    /// is waited for.
    fn poll_next(&mut self, cx: &mut Context<'_>, mut access: Option<&mut Access>) -> Poll<Option<Bytes>> {
        let held_before = self.held.len();
        self.gather(cx, access.as_deref_mut());
        let done = self.sources.is_empty();
        if let Some(access) = access {
            access.complete = done;
        }
        if self.held.is_empty() {
            return if done { Poll::Ready(None) } else { self.poll_keep_alive(cx) };
        }
        let (lately, in_all) = self.asked;
        let lately = if self.held.len() > held_before { 0 } else { lately };
        let more = !done && self.begun && self.held.len() < GATHERED;
        if more && lately < ASKED_IN_A_TURN && in_all < MOST_ASKED {
            self.asked = (lately + 1, in_all + 1);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        (self.asked, self.begun) = ((0, 0), true);
        self.upkeep.alive.move_to(Instant::now() + self.upkeep.every);
        Poll::Ready(Some(std::mem::take(&mut self.held).into()))
    }

    /// Takes what the sources have.
    fn gather(&mut self, cx: &mut Context<'_>, mut access: Option<&mut Access>) {
        let (over, out) = (self.upkeep.cut.ordered(), &mut self.held);
        // None of several fills every piece before it is the others' turn.
        if self.sources.len() > 1 {
            self.sources.rotate_left(1);
        }
        self.sources.retain_mut(|source| {
            while out.len() < GATHERED {
                let next = if over { Poll::Ready(source.cut_off()) } else { source.poll_next(cx) };
                match next {
                    Poll::Pending => break,
                    Poll::Ready(Some(Outgoing::Message(message))) => encode(out, [message.as_slice()]),
                    Poll::Ready(Some(Outgoing::Response(message, code))) => {
                        encode(out, message.iter().map(AsRef::as_ref));
                        if let Some(access) = access.as_deref_mut() {
                            access.code = code;
                        }
                        return false;
                    }
                    // Called off by the client: the end without a response is what it asked for. Or a legacy stream of
                    // changes, which has no other end.
                    Poll::Ready(None) => return false,
                }
            }
            true
        });
    }

    /// Says that the stream is alive, if it has been silent for long.
    fn poll_keep_alive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        ready!(self.upkeep.alive.poll(cx));
        self.upkeep.alive.move_to(Instant::now() + self.upkeep.every);
        Poll::Ready(Some(Bytes::from_static(KEEP_ALIVE)))
    }
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Completes the head of an answer, in the header map of its request: hyper has made it, and uses it for the next one.
pub fn complete_head(answer: &mut Response<Body>, id: RequestId, mut headers: HeaderMap) {
    headers.clear();
    if let Some(media_type) = answer.body().media_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    if !answer.headers().is_empty() {
        headers.extend(std::mem::take(answer.headers_mut()));
    }
    *answer.headers_mut() = headers;
}

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response<Body> {
    response(status, Body::new(Content::Pieces(Vec::new()), None))
}

/// A JSON answer.
#[must_use]
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    json_of(status, vec![body.into()])
}

/// A JSON answer in pieces that follow one another.
#[must_use]
pub fn json_of(status: StatusCode, mut pieces: Vec<Bytes>) -> Response<Body> {
    pieces.reverse();
    response(status, Body::of(pieces, "application/json"))
}

/// An error of every endpoint but MCP: `{"detail": …}`.
#[must_use]
pub fn detail(status: StatusCode, text: &str) -> Response<Body> {
    let mut body = b"{\"detail\":".to_vec();
    write_text(&mut body, text);
    body.push(b'}');
    json(status, body)
}

/// A file.
#[must_use]
pub fn file(media_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    response(StatusCode::OK, Body::of(vec![body.into()], media_type))
}

/// A JSON-RPC result; the result's bytes are not copied.
#[must_use]
pub fn result(id: &[u8], result: Bytes) -> Response<Body> {
    result_of(id, vec![result])
}

/// The same for a result in pieces.
#[must_use]
pub fn result_of(id: &[u8], result: Vec<Bytes>) -> Response<Body> {
    let mut pieces = vec![result_head(id).into()];
    pieces.extend(result);
    pieces.push(Bytes::from_static(b"}"));
    json_of(StatusCode::OK, pieces)
}

/// An event stream that begins with the message that made it one, if there is one, and goes on with the relay's; when it is
/// cut off it ends with an error.
#[must_use]
pub fn event_stream(first: Option<Vec<u8>>, relay: Relay, upkeep: Upkeep) -> Response<Body> {
    event_streams(first.into_iter().collect(), vec![relay], upkeep)
}

/// The same for several relays, whose messages come as they arrive.
#[must_use]
pub fn event_streams(first: Vec<Vec<u8>>, relays: Vec<Relay>, upkeep: Upkeep) -> Response<Body> {
    let mut held = Vec::new();
    first.iter().for_each(|message| encode(&mut held, [message.as_slice()]));
    events(held, relays.into_iter().map(Source::Call).collect(), upkeep)
}

/// An event stream of what changes for a client.
#[must_use]
pub fn change_stream(stream: Stream, upkeep: Upkeep) -> Response<Body> {
    events(Vec::new(), vec![Source::Changes(Box::new(stream))], upkeep)
}

fn events(held: Vec<u8>, sources: Vec<Source>, upkeep: Upkeep) -> Response<Body> {
    let events = Events { sources, held, asked: (0, 0), begun: false, upkeep };
    let mut response =
        response(StatusCode::OK, Body::new(Content::Events(Box::new(events)), Some("text/event-stream")));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(header::ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Why a request is refused before anybody looks at what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such path.
    NotFound,
    /// The path does not take this method; those it does take.
    Method(&'static str),
    /// No `Host`, two of them, or one that cannot be read.
    BadHost,
    /// A `Host` that is not served.
    Host,
    /// An `Origin` that is not served.
    Origin,
    /// No usable `Authorization`.
    NotAuthenticated,
    /// A token of nobody.
    InvalidToken,
    /// A token whose time is over.
    ExpiredToken,
    /// A body that is not JSON by its own word.
    MediaType,
    /// A client that does not take what the endpoint answers with.
    NotAcceptable,
    /// A body larger than so many bytes.
    TooLarge(usize),
    /// A body that did not come within so many seconds.
    TooSlow(u64),
    /// A body that broke off.
    Broken,
    /// A transfer coding that is not read here.
    TransferCoding,
    /// A client that is no admin.
    AdminsOnly,
    /// A body that there is no room for, because all requests together hold as many bytes as they may: what was skimmed
    /// of it.
    Overloaded(Vec<u8>),
}

impl Refusal {
    /// Every kind.
    pub const KINDS: [&'static str; 16] = [
        "not_found",
        "method",
        "bad_host",
        "host",
        "origin",
        "not_authenticated",
        "invalid_token",
        "expired_token",
        "media_type",
        "not_acceptable",
        "too_large",
        "too_slow",
        "broken",
        "transfer_coding",
        "admins_only",
        "overloaded",
    ];

    /// What kind of refusal it is, in one word of [`KINDS`](Self::KINDS).
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Method(_) => "method",
            Self::BadHost => "bad_host",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::NotAuthenticated => "not_authenticated",
            Self::InvalidToken => "invalid_token",
            Self::ExpiredToken => "expired_token",
            Self::MediaType => "media_type",
            Self::NotAcceptable => "not_acceptable",
            Self::TooLarge(_) => "too_large",
            Self::TooSlow(_) => "too_slow",
            Self::Broken => "broken",
            Self::TransferCoding => "transfer_coding",
            Self::AdminsOnly => "admins_only",
            Self::Overloaded(_) => "overloaded",
        }
    }

    /// The status, for every endpoint, but that MCP has its own for [`Overloaded`](Self::Overloaded); `protocol.md` 2.1 and design 7.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadHost | Self::Broken => StatusCode::BAD_REQUEST,
            Self::Host | Self::Origin | Self::AdminsOnly => StatusCode::FORBIDDEN,
            Self::NotAuthenticated | Self::InvalidToken | Self::ExpiredToken => StatusCode::UNAUTHORIZED,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Overloaded(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The code of the JSON-RPC error.
    #[must_use]
    pub fn code(&self) -> i64 {
        match self {
            Self::Overloaded(_) => code::INTERNAL_ERROR,
            _ => code::INVALID_REQUEST,
        }
    }

    /// Whether the request's body may still be on its way, so that the connection is of no further use.
    fn closes(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::TooSlow(_) | Self::Broken | Self::TransferCoding)
    }

    /// The answer: `{"detail": …}`, as every endpoint gives it.
    #[must_use]
    pub fn detail(&self) -> Response<Body> {
        self.finish(detail(self.status(), &self.to_string()))
    }

    /// The answer of the MCP endpoint: a JSON-RPC error without an id, which its clients can show; with the id where the
    /// request has been read.
    #[must_use]
    pub fn rpc(&self) -> Response<Body> {
        if let Self::Overloaded(skimmed) = self {
            return overloaded(skimmed);
        }
        let error = ErrorObject::new(self.code(), self.to_string());
        self.finish(json(self.status(), error.to_message(None)))
    }

    fn finish(&self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        match self {
            Self::Method(allow) => _ = headers.insert(ALLOW, HeaderValue::from_static(allow)),
            Self::NotAuthenticated => _ = headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Self::InvalidToken | Self::ExpiredToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
            }
            Self::Overloaded(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            _ => {}
        }
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("Not Found"),
            Self::Method(allow) => write!(f, "Method Not Allowed, expected one of: {allow}"),
            Self::BadHost => f.write_str("expected exactly one valid Host header"),
            Self::Host => f.write_str("Host not allowed; add it to allowed_hosts in [gateway]"),
            Self::Origin => f.write_str("Origin not allowed; add it to allowed_origins in [gateway]"),
            Self::NotAuthenticated => f.write_str("Not authenticated"),
            Self::InvalidToken => f.write_str("Invalid authentication token"),
            Self::ExpiredToken => f.write_str("Token expired"),
            Self::MediaType => f.write_str("expected Content-Type: application/json, in UTF-8"),
            Self::NotAcceptable => f.write_str("expected Accept: application/json, text/event-stream"),
            Self::TooLarge(limit) => write!(f, "body larger than {limit} bytes"),
            Self::TooSlow(seconds) => write!(f, "body not received within {seconds} s"),
            Self::Broken => f.write_str("body broke off"),
            Self::TransferCoding => f.write_str("expected no Transfer-Encoding but chunked"),
            Self::AdminsOnly => f.write_str("Only admins may use this endpoint"),
            Self::Overloaded(_) => GatewayError::Full.fmt(f),
        }
    }
}

/// The answer to a message of which only this is left. One without an id cannot be answered within HTTP 200: its client
/// would go on waiting.
fn overloaded(skimmed: &[u8]) -> Response<Body> {
    let envelope = Envelope::parse(Bytes::copy_from_slice(skimmed), SKIMMED_DEPTH, Sender::Client).ok();
    let envelope = envelope.filter(|envelope| envelope.kind() == Ok(Kind::Request));
    let id = envelope.as_ref().and_then(Envelope::id);
    let status = if id.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    rpc(status, id, &GatewayError::Full.to_rpc(Era::Legacy))
}

/// A JSON-RPC error as an answer.
#[must_use]
pub fn rpc(status: StatusCode, id: Option<&[u8]>, error: &ErrorObject) -> Response<Body> {
    json(status, error.to_message(id))
}

/// The answer to a body that is no message: 400, with the id if there is a usable one.
#[must_use]
pub fn not_a_message(error: &MessageError, id: Option<&[u8]>) -> Response<Body> {
    rpc(StatusCode::BAD_REQUEST, id, &ErrorObject::new(error.code(), error.to_string()))
}
