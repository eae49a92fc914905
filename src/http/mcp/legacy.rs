//! The legacy era, revisions 2024-11-05 to 2025-11-25: `initialize`, optional sessions, and one request a POST.
//!
//! JSON-RPC errors go out with status 200, because clients of this era lose the body of everything else and read 404 as
//! the end of their session. Source: protocol.md 2.4.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::{
    Exchange, List, NamedVersion, OFFERED, Step, check_progress_token, failed, id_of, no_such_method, request,
    subject_of, with_instructions,
};
use crate::gateway::{GatewayError, NoSession, Request, Session, Speech};
use crate::http::request::{Single, check_accept_events, only, single};
use crate::http::response::{Body, Refusal, change_stream, empty, json, result, rpc};
use crate::wire::json::{JsonType, Span, members_of, text_of, type_of};
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, Param, result_message};
use crate::wire::mcp::{
    ClientCapabilities, Era, IDENTITY, ListKind, LogLevel, MODERN, Operation, ProtocolVersion, code, header, method,
};

/// Takes a message of the legacy era.
pub(super) fn step(exchange: &mut Exchange<'_>, kind: Kind, envelope: Envelope) -> Step {
    if kind == Kind::Request && envelope.method().as_deref() == Some(method::INITIALIZE) {
        return initialize(exchange, &envelope).into();
    }
    let session = match session(exchange) {
        Ok(session) => session,
        Err(no_session) => return refuse_session(no_session).into(),
    };
    match kind {
        // Without a session there is nothing that this could be kept in.
        Kind::Request if session.version().is_none() && is_kept(envelope.method().as_deref()) => {
            exchange.access.code = Some(code::INVALID_REQUEST);
            session_required(envelope.id()).into()
        }
        Kind::Request => match serve(exchange, &session, envelope) {
            Served::Call(request) => Step::Call(request),
            Served::List(list) => Step::List(list),
            Served::Subscribe(id, session, uri) => Step::Subscribe(id, session, uri),
            Served::Response(response, code) => {
                exchange.access.code = code;
                json(StatusCode::OK, response).into()
            }
        },
        Kind::Notification => {
            notified(exchange, &session, &envelope);
            empty(StatusCode::ACCEPTED).into()
        }
        Kind::Result | Kind::Error if session.version().is_some() => {
            session.answer(envelope);
            empty(StatusCode::ACCEPTED).into()
        }
        Kind::Result | Kind::Error => session_required(None).into(),
    }
}

/// Whether a request of this method asks for something that is kept in its session.
fn is_kept(method: Option<&str>) -> bool {
    matches!(method, Some(method::SET_LEVEL | method::SUBSCRIBE | method::UNSUBSCRIBE))
}

/// Takes a notification of a client.
pub(super) fn notified(exchange: &Exchange<'_>, session: &Session, envelope: &Envelope) {
    match (envelope.method().as_deref(), envelope.param(Param::RequestId)) {
        (Some(method::CANCELLED), Some(id)) => session.cancel(&exchange.principal, id),
        (Some(method::ROOTS_CHANGED), _) => exchange.gateway.roots_changed(&exchange.principal, session),
        _ => {}
    }
}

/// Serves a GET: the stream on which a session is told what belongs to no request.
///
/// # Errors
/// [`Refusal::NotAcceptable`] for a client that takes no event streams, [`Refusal::Method`] without a session.
pub(in crate::http) fn get(exchange: &Exchange<'_>) -> Result<Response<Body>, Refusal> {
    check_accept_events(exchange.headers)?;
    if let Some(refused) = refuse_version(exchange) {
        return Ok(refused);
    }
    // Whatever else it may be told, a client takes this to mean that there is no such stream, and lives without.
    let stream = match session(exchange) {
        Ok(session) => exchange.gateway.open_stream(&exchange.opening(), session),
        Err(no_session) => return Ok(refuse_session(no_session)),
    };
    let stream = stream.ok_or(Refusal::Method("POST, DELETE"))?;
    Ok(change_stream(stream, exchange.upkeep_of_changes()))
}

/// Serves a DELETE: the end of a session.
pub(in crate::http) fn delete(exchange: &Exchange<'_>) -> Response<Body> {
    if let Some(refused) = refuse_version(exchange) {
        return refused;
    }
    let Some(id) = session_header(exchange) else { return session_required(None) };
    match exchange.gateway.end_session(exchange.memory, &exchange.principal, id, exchange.now) {
        Ok(()) => empty(StatusCode::NO_CONTENT),
        Err(no_session) => refuse_session(no_session),
    }
}

/// The answer to a request about a session whose version has none, or is not known.
fn refuse_version(exchange: &Exchange<'_>) -> Option<Response<Body>> {
    let named = only(exchange.headers, &header::PROTOCOL_VERSION);
    if named.is_some_and(|version| version.as_bytes() == MODERN.as_bytes()) {
        return Some(Refusal::Method("POST").rpc());
    }
    (exchange.named == NamedVersion::Other).then(|| {
        let known = ProtocolVersion::ALL.map(ProtocolVersion::as_str).join(", ");
        let what = format!("unsupported protocol version: expected one of {known}");
        rpc(StatusCode::BAD_REQUEST, None, &ErrorObject::new(code::INVALID_REQUEST, what))
    })
}

fn session_header<'a>(exchange: &'a Exchange<'_>) -> Option<&'a str> {
    match single(exchange.headers, &header::SESSION_ID) {
        Single::Absent => None,
        // A repeated or unreadable header names no session that exists.
        Single::One(id) => Some(id.to_str().unwrap_or_default()),
        Single::Repeated => Some(""),
    }
}

pub(super) fn session(exchange: &Exchange<'_>) -> Result<Session, NoSession> {
    match session_header(exchange) {
        None => Ok(Session::default()),
        Some(id) => {
            exchange.gateway.session(exchange.memory, &exchange.snapshot, &exchange.principal, id, exchange.now)
        }
    }
}

/// The same for a session that never was, has ended, or is somebody else's.
pub(super) fn refuse_session(_: NoSession) -> Response<Body> {
    rpc(
        StatusCode::NOT_FOUND,
        None,
        &ErrorObject::new(code::INVALID_REQUEST, "session not found; begin with `initialize`"),
    )
}

fn session_required(id: Option<&[u8]>) -> Response<Body> {
    rpc(
        StatusCode::BAD_REQUEST,
        id,
        &ErrorObject::new(code::INVALID_REQUEST, "session required: expected an Mcp-Session-Id"),
    )
}

fn initialize(exchange: &mut Exchange<'_>, envelope: &Envelope) -> Response<Body> {
    let id = envelope.id().unwrap_or_default();
    let Some((asked, capabilities)) = read_initialize(envelope) else {
        let expected = "expected `protocolVersion`, `capabilities` and `clientInfo` with `name` and `version`";
        return failed(exchange, Era::Legacy, id, &GatewayError::InvalidParams(expected));
    };
    let agreed = asked.unwrap_or(ProtocolVersion::LATEST);
    // Completion was declared from 2025-03-26 on.
    let completions = if agreed >= ProtocolVersion::V2025_03_26 { r#","completions":{}"# } else { "" };
    let offered = format!(r#"{{{OFFERED}{completions}}}"#);
    let text = format!(r#"{{"protocolVersion":"{agreed}","capabilities":{offered},"serverInfo":{IDENTITY}"#);
    let mut answer = result(id, with_instructions(exchange, text));
    let session = exchange.gateway.open_session(&exchange.principal, agreed, capabilities, exchange.now);
    if let Ok(value) = HeaderValue::try_from(session) {
        answer.headers_mut().insert(header::SESSION_ID, value);
    }
    answer
}

/// The revision asked for, if it is one of ours, and the client's capabilities; `None` if the parameters have another shape.
fn read_initialize(envelope: &Envelope) -> Option<(Option<ProtocolVersion>, ClientCapabilities)> {
    let asked = envelope.param_text(Param::ProtocolVersion)?;
    let capabilities = envelope.param(Param::Capabilities).filter(|c| type_of(c) == JsonType::Object)?;
    let info = envelope.param(Param::ClientInfo)?;
    let members = members_of(info, Span { start: 0, end: info.len() });
    let has = |name| members.iter().any(|(key, value)| key == name && text_of(value.of(info)).is_some());
    (has("name") && has("version")).then(|| (ProtocolVersion::parse(&asked), ClientCapabilities::parse(capabilities)))
}

/// What a request comes to, as far as nothing has to be waited for.
pub(super) enum Served {
    /// Its response, and the code of its error, if it is one.
    Response(Vec<u8>, Option<i64>),
    /// It asks for a list.
    List(List),
    /// It subscribes to a resource.
    Subscribe(Arc<[u8]>, Session, String),
    /// It calls a tool.
    Call(Box<Request>),
}

impl Served {
    /// The response to a request that failed.
    pub(super) fn failed(id: &[u8], error: &GatewayError) -> Self {
        Self::error(id, &error.to_rpc(Era::Legacy))
    }

    fn error(id: &[u8], error: &ErrorObject) -> Self {
        Self::Response(error.to_message(Some(id)), Some(error.code))
    }
}

/// Takes a request in a session, or outside of one.
pub(super) fn serve(exchange: &mut Exchange<'_>, session: &Session, envelope: Envelope) -> Served {
    let id = id_of(&envelope);
    if !envelope.params_fit() {
        return Served::failed(&id, &GatewayError::InvalidParams("expected `params` to be an object"));
    }
    let operation = envelope.method().as_deref().and_then(Operation::of_method);
    // The tasks of 2025-11-25 are others.
    if let Some(operation) = operation.filter(|operation| !operation.is_about_task()) {
        return pass_on(exchange, session, id, operation, envelope);
    }
    match envelope.method().as_deref() {
        Some(method::PING) => Served::Response(result_message(&id, b"{}"), None),
        Some(method::SET_LEVEL) => match set_level(exchange, session, &envelope) {
            Ok(()) => Served::Response(result_message(&id, b"{}"), None),
            Err(error) => Served::failed(&id, &error),
        },
        Some(method::SUBSCRIBE) => match resource(&envelope) {
            Ok(uri) => Served::Subscribe(id, session.clone(), uri),
            Err(error) => Served::failed(&id, &error),
        },
        Some(method::UNSUBSCRIBE) => match resource(&envelope) {
            Ok(uri) => {
                exchange.gateway.unsubscribe(session, &uri);
                Served::Response(result_message(&id, b"{}"), None)
            }
            Err(error) => Served::failed(&id, &error),
        },
        Some(name) => match ListKind::of_method(name) {
            Some(kind) => {
                let assumed = exchange.named.legacy().unwrap_or(ProtocolVersion::V2025_03_26);
                let version = session.version().unwrap_or(assumed);
                Served::List(List::new(id, kind, Some(version), session.clone(), &envelope))
            }
            None => Served::error(&id, &no_such_method(Some(name))),
        },
        None => Served::error(&id, &no_such_method(None)),
    }
}

/// Serves a request that is passed on.
fn pass_on(
    exchange: &mut Exchange<'_>,
    session: &Session,
    id: Arc<[u8]>,
    operation: Operation,
    envelope: Envelope,
) -> Served {
    let subject = subject_of(exchange, operation, &envelope);
    match subject.and_then(|subject| check_progress_token(&envelope).map(|()| subject)) {
        Ok(subject) => {
            // Whoever has named no revision gets results as they are.
            let assumed = exchange.named.legacy().unwrap_or(ProtocolVersion::LATEST);
            let speech = Speech::Legacy(session.version().unwrap_or(assumed));
            Served::Call(request(exchange, id, (session.clone(), speech), operation, subject, envelope))
        }
        Err(error) => Served::failed(&id, &error),
    }
}

/// The resource that a request names.
fn resource(envelope: &Envelope) -> Result<String, GatewayError> {
    let uri = envelope.param_text(Param::Uri);
    uri.map(Cow::into_owned).ok_or(GatewayError::InvalidParams("expected a string `uri`"))
}

fn set_level(exchange: &Exchange<'_>, session: &Session, envelope: &Envelope) -> Result<(), GatewayError> {
    let level = envelope.param_text(Param::Level).and_then(|level| LogLevel::parse(&level));
    let level = level.ok_or(GatewayError::InvalidParams("expected a `level` from `debug` to `emergency`"))?;
    if exchange.gateway.set_level(session, level) {
        Ok(())
    } else {
        Err(GatewayError::InvalidParams("expected a session to set a level in"))
    }
}
