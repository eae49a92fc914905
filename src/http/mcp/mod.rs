//! The MCP endpoint: deciding the era of a request, and what is the same in both.
//!
//! The era is a property of each request. Nothing about a connection is remembered: it may carry both eras, and several
//! clients, one after the other. Source: protocol.md 2.1, 2.2.

mod batch;
mod legacy;
mod modern;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, StatusCode};

use super::access::Access;
use super::request::{Single, single};
use super::response::{Body, STOPPING, Upkeep, change_stream, event_stream, json, json_of, not_a_message, result, rpc};
use crate::gateway::{
    Gateway, GatewayError, Memory, Opening, Outgoing, Page, Principal, Relay, Request, Session, Snapshot, Speech,
    Subject, Wanted,
};
use crate::outbound::Client;
use crate::policy::ServerId;
use crate::shutdown::Shutdown;
use crate::wire::changes::Filter;
use crate::wire::json::{JsonType, text_of, type_of, write_text};
use crate::wire::jsonrpc::{Envelope, ErrorObject, MessageError, Meta, Param, Sender, is_id, result_message};
use crate::wire::mcp::{Era, ListKind, Operation, ProtocolVersion, code, header, method};
use crate::wire::rewrite::{Reference, reference};

pub(super) use legacy::{delete, get};

/// How long an answer may keep its client waiting, at most, before it becomes an event stream, which can be kept alive.
const COMMIT: Duration = Duration::from_secs(10);

/// What every client is told that the gateway can do, whatever it sees of that now (protocol.md 4.7): members of an object.
const OFFERED: &str = concat!(
    r#""tools":{"listChanged":true},"prompts":{"listChanged":true},"#,
    r#""resources":{"subscribe":true,"listChanged":true},"logging":{}"#
);

/// What every MCP request is served with.
pub(super) struct Exchange<'a> {
    /// The gateway.
    pub(super) gateway: &'a Arc<Gateway>,
    /// This thread's connections to servers.
    pub(super) http: &'a Client,
    /// What this thread has found good lately.
    pub(super) memory: &'a Memory,
    /// The policy under which the request is served.
    pub(super) snapshot: Snapshot,
    /// Who asks.
    pub(super) principal: Principal,
    /// The request's headers.
    pub(super) headers: &'a HeaderMap,
    /// The revision that they name.
    pub(super) named: NamedVersion,
    /// Time since the Unix epoch.
    pub(super) now: Duration,
    /// Ordered shortly before open answers are cut off.
    pub(super) cut: &'a Shutdown,
    /// Ordered when the gateway ends.
    pub(super) stop: &'a Shutdown,
    /// The request's record.
    pub(super) access: &'a mut Access,
}

impl Exchange<'_> {
    fn upkeep(&self) -> Upkeep {
        let every = self.snapshot.registry().settings().limits.keep_alive;
        Upkeep { alive: self.http.alarms().after(every), every, cut: self.cut.clone() }
    }

    /// What a stream of changes lives by. Nobody waits for the end of it, so that it is the first to go.
    fn upkeep_of_changes(&self) -> Upkeep {
        Upkeep { cut: self.stop.clone(), ..self.upkeep() }
    }

    fn opening(&self) -> Opening<'_> {
        let (snapshot, principal, alarms) = (&self.snapshot, &self.principal, self.http.alarms());
        Opening { snapshot, principal, alarms, now: self.now }
    }
}

/// Serves a POST whose body has been read.
pub(super) async fn post(exchange: &mut Exchange<'_>, body: Bytes) -> Response<Body> {
    let depth = exchange.snapshot.registry().settings().limits.json_depth;
    let envelope = match Envelope::parse(body.clone(), depth, Sender::Client) {
        Ok(envelope) => envelope,
        // Found to be JSON, but no object.
        Err(MessageError::Shape(_)) if batch::is_batch(&body) => return Box::pin(batch::post(exchange, &body)).await,
        Err(error) => return refused(exchange.access, not_a_message(&error, None), error.code()),
    };
    drop(body);
    let kind = match envelope.kind() {
        Ok(kind) => kind,
        Err(error) => return refused(exchange.access, not_a_message(&error, envelope.id()), error.code()),
    };
    if let Some(method) = envelope.method() {
        exchange.access.set_rpc(&method);
    }
    let era = if is_modern(exchange.named, &envelope) { Era::Modern } else { Era::Legacy };
    let step = match era {
        Era::Legacy => legacy::step(exchange, kind, envelope),
        Era::Modern => modern::step(exchange, kind, envelope),
    };
    match step {
        Step::Answer(answer) => answer,
        Step::List(list) => match list.page(exchange).await {
            Ok(page) if era == Era::Modern => modern::listed(&list.id, page),
            Ok(page) => result(&list.id, page.bytes),
            Err(error) => failed(exchange, era, &list.id, &error),
        },
        Step::Listen(id, filter) => {
            let stream = Box::pin(exchange.gateway.listen(exchange.opening(), id, filter)).await;
            change_stream(stream, exchange.upkeep_of_changes())
        }
        Step::Subscribe(id, session, uri) => match subscribe(exchange, &session, &uri).await {
            Ok(()) => json(StatusCode::OK, result_message(&id, b"{}")),
            Err(error) => failed(exchange, era, &id, &error),
        },
        Step::Call(request) => {
            let id = Arc::clone(&request.id);
            match begin(exchange, request).await {
                Ok(relay) => answer_of(exchange, relay, era).await,
                Err(error) => failed(exchange, era, &id, &error),
            }
        }
    }
}

/// What a message comes to, as far as nothing has to be waited for.
enum Step {
    /// It is answered.
    Answer(Response<Body>),
    /// It asks for a list.
    List(List),
    /// It opens a stream of changes.
    Listen(Arc<[u8]>, Filter),
    /// It subscribes to a resource in a session.
    Subscribe(Arc<[u8]>, Session, String),
    /// It is passed on to a server.
    Call(Box<Request>),
}

impl From<Response<Body>> for Step {
    fn from(answer: Response<Body>) -> Self {
        Self::Answer(answer)
    }
}

/// A list that a client asks for.
struct List {
    /// The client's id of the request.
    id: Arc<[u8]>,
    /// Which.
    kind: ListKind,
    /// For which legacy revision, if for one.
    version: Option<ProtocolVersion>,
    /// In which session, if in one.
    session: Session,
    /// Where it is to go on, if it is not to begin. What is no text is no cursor that was ever given out, and neither is an
    /// empty text.
    cursor: Option<String>,
}

impl List {
    fn new(
        id: Arc<[u8]>,
        kind: ListKind,
        version: Option<ProtocolVersion>,
        session: Session,
        envelope: &Envelope,
    ) -> Self {
        let cursor = envelope.param(Param::Cursor).filter(|cursor| type_of(cursor) != JsonType::Null);
        let cursor = cursor.map(|cursor| text_of(cursor).unwrap_or_default().into_owned());
        Self { id, kind, version, session, cursor }
    }

    async fn page(&self, exchange: &Exchange<'_>) -> Result<Page, GatewayError> {
        let (snapshot, principal, cursor) = (&exchange.snapshot, &exchange.principal, self.cursor.as_deref());
        exchange.gateway.list(snapshot, principal, &self.session, self.kind, self.version, cursor).await
    }
}

/// Subscribes to a resource in a session.
async fn subscribe(exchange: &Exchange<'_>, session: &Session, uri: &str) -> Result<(), GatewayError> {
    let (snapshot, principal) = (&exchange.snapshot, &exchange.principal);
    Box::pin(exchange.gateway.subscribe(snapshot, principal, session, uri)).await
}

/// The id of a request, as its client wrote it.
fn id_of(envelope: &Envelope) -> Arc<[u8]> {
    envelope.id().unwrap_or_default().into()
}

/// The answer to a request that failed.
fn failed(exchange: &mut Exchange<'_>, era: Era, id: &[u8], error: &GatewayError) -> Response<Body> {
    let error = error.to_rpc(era);
    refused(exchange.access, rpc(status_of(era, error.code), Some(id), &error), error.code)
}

/// The HTTP status that goes with an error of a request.
fn status_of(era: Era, code: i64) -> StatusCode {
    match (era, code) {
        (Era::Legacy, _) => StatusCode::OK,
        (Era::Modern, code::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        (Era::Modern, code::HEADER_MISMATCH | code::MISSING_CAPABILITY | code::UNSUPPORTED_VERSION) => {
            StatusCode::BAD_REQUEST
        }
        (Era::Modern, _) => StatusCode::OK,
    }
}

fn refused(access: &mut Access, answer: Response<Body>, code: i64) -> Response<Body> {
    access.code = Some(code);
    answer
}

/// Whether a message belongs to the modern era (protocol.md 2.2): by its body first, then by its version header.
fn is_modern(named: NamedVersion, envelope: &Envelope) -> bool {
    if envelope.meta_span(Meta::ProtocolVersion).is_some() || envelope.meta_span(Meta::ClientCapabilities).is_some() {
        return true;
    }
    match envelope.method().as_deref() {
        Some(method::INITIALIZE) => false,
        Some(method::DISCOVER | method::LISTEN) => true,
        _ => named == NamedVersion::Other,
    }
}

/// What the version header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedVersion {
    /// There is none.
    Nothing,
    /// A legacy revision.
    Legacy(ProtocolVersion),
    /// Something else, or several.
    Other,
}

impl NamedVersion {
    /// Reads the header.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match single(headers, &header::PROTOCOL_VERSION) {
            Single::Absent => Self::Nothing,
            Single::One(value) => {
                let version = value.to_str().ok().and_then(|text| ProtocolVersion::parse(text.trim()));
                version.map_or(Self::Other, Self::Legacy)
            }
            Single::Repeated => Self::Other,
        }
    }

    /// The legacy revision, if it is one.
    fn legacy(self) -> Option<ProtocolVersion> {
        match self {
            Self::Legacy(version) => Some(version),
            Self::Nothing | Self::Other => None,
        }
    }
}

/// What a request that is passed on is about, which is noted in the record.
fn subject_of(exchange: &mut Exchange<'_>, operation: Operation, envelope: &Envelope) -> Result<Subject, GatewayError> {
    let (kind, name) = match operation {
        Operation::Call => (ListKind::Tools, envelope.param_text(Param::Name)),
        Operation::Get => (ListKind::Prompts, envelope.param_text(Param::Name)),
        Operation::Read => (ListKind::Resources, envelope.param_text(Param::Uri)),
        Operation::Complete => match reference(envelope) {
            Some(Reference::Prompt(name)) => (ListKind::Prompts, text_of(name.of(envelope.bytes()))),
            Some(Reference::Resource(uri)) => (ListKind::Templates, text_of(uri.of(envelope.bytes()))),
            None => return Err(GatewayError::InvalidParams("expected a `ref` to one prompt or one resource")),
        },
        // Only the gateway can read the id of one.
        Operation::GetTask | Operation::UpdateTask | Operation::CancelTask => return Err(GatewayError::UnknownTask),
    };
    let name = name.ok_or(GatewayError::InvalidParams(match operation {
        Operation::Read => "expected a string `uri`",
        _ => "expected a string `name`",
    }))?;
    let subject = Subject::new(kind, name);
    exchange.access.set_subject(&subject);
    Ok(subject)
}

/// Checks the token under which a client wants progress.
fn check_progress_token(envelope: &Envelope) -> Result<(), GatewayError> {
    match envelope.meta(Meta::ProgressToken) {
        Some(token) if !is_id(token) => {
            Err(GatewayError::InvalidParams("expected a `progressToken` that is a string or an integer"))
        }
        _ => Ok(()),
    }
}

/// The error for a method that is not served.
fn no_such_method(name: Option<&str>) -> ErrorObject {
    let name: String = name.unwrap_or_default().chars().take(64).collect();
    ErrorObject::new(code::METHOD_NOT_FOUND, format!("method not found: `{name}`"))
}

/// Ends an object that is open with the gateway's instructions for the caller, if there are any.
fn with_instructions(exchange: &Exchange<'_>, open: String) -> Bytes {
    let mut text = open.into_bytes();
    if let Some(instructions) = exchange.gateway.instructions(&exchange.snapshot, exchange.principal.client()) {
        text.extend_from_slice(b",\"instructions\":");
        write_text(&mut text, &instructions);
    }
    text.push(b'}');
    text.into()
}

/// A client's request that is passed on, as it is served here.
fn request(
    exchange: &Exchange<'_>,
    id: Arc<[u8]>,
    (session, speech): (Session, Speech),
    operation: Operation,
    subject: Subject,
    envelope: Envelope,
) -> Box<Request> {
    let (snapshot, principal) = (exchange.snapshot.clone(), exchange.principal.clone());
    let (request_id, now, trace) = (exchange.access.id, exchange.now, trace_of(exchange.headers));
    let task = None;
    Box::new(Request {
        request_id,
        id,
        snapshot,
        principal,
        now,
        session,
        speech,
        operation,
        subject,
        task,
        envelope,
        trace,
    })
}

/// The trace context of a request, which is passed on as it is; hardly any has one.
fn trace_of(headers: &HeaderMap) -> Option<Box<HeaderMap>> {
    let [first, ..] = &header::TRACE;
    headers.contains_key(first).then(|| {
        let is_trace = |name: &HeaderName| header::TRACE.contains(name);
        let trace = headers.iter().filter(|(name, _)| is_trace(name));
        Box::new(trace.map(|(name, value)| (name.clone(), value.clone())).collect())
    })
}

/// Starts to pass a request on, and notes in the record where it goes.
async fn begin(exchange: &mut Exchange<'_>, mut request: Box<Request>) -> Result<Relay, GatewayError> {
    let (access, era) = (&mut *exchange.access, request.speech.era());
    let (server, eras) = (&mut access.server, &mut access.eras);
    let found = |found: &ServerId, theirs: Option<Era>| {
        *server = Some(found.clone());
        *eras = theirs.map(|theirs| (era, theirs));
    };
    let relay = match request.task.take() {
        Some(task) => exchange.gateway.ask_about(exchange.http, task, *request, found),
        None => {
            let wanted = Wanted(request.subject.kind, &request.subject.name);
            let view = exchange.gateway.view_of(&request.snapshot, &request.principal, Some(wanted)).await;
            exchange.gateway.call(exchange.http, &view, *request, found)
        }
    };
    if let Err(GatewayError::Unknown(_)) = relay {
        access.denied();
    }
    relay
}

/// The answer to a call: as JSON if the response comes first and soon, else as an event stream. Until then nothing is
/// decided, so that an error still has the status that it has in the client's era.
async fn answer_of(exchange: &mut Exchange<'_>, mut relay: Relay, era: Era) -> Response<Body> {
    // Whoever wants to hear of a stream more often than that wants to hear of it as soon.
    let patience = COMMIT.min(exchange.snapshot.registry().settings().limits.keep_alive);
    let mut late = exchange.http.alarms().after(patience);
    let first = poll_fn(|cx| match relay.poll_next(cx) {
        Poll::Ready(first) => Poll::Ready(first),
        // The connection wakes whoever is served on it when that is so.
        Poll::Pending if exchange.cut.ordered() => Poll::Ready(relay.cut_off(STOPPING)),
        Poll::Pending => late.poll(cx).map(|()| None),
    });
    match first.await {
        Some(Outgoing::Response(message, code)) => {
            exchange.access.code = code;
            json_of(code.map_or(StatusCode::OK, |code| status_of(era, code)), message)
        }
        Some(Outgoing::Message(message)) => event_stream(Some(message), relay, exchange.upkeep()),
        None => event_stream(None, relay, exchange.upkeep()),
    }
}
