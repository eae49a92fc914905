//! The legacy era, revisions 2024-11-05 to 2025-11-25: `initialize`, optional sessions, and one request a POST.
//!
//! JSON-RPC errors go out with status 200, because clients of this era lose the body of everything else and read 404 as
//! the end of their session. Source: protocol.md 2.4.

use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::{
    Exchange, List, NamedVersion, Step, check_progress_token, failed, id_of, no_such_method, request, subject_of,
    with_instructions,
};
use crate::gateway::{GatewayError, NoSession, Request, Session, Speech};
use crate::http::request::{Single, only, single};
use crate::http::response::{Body, Refusal, empty, json, result, rpc};
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
        // Without a session there is nothing that a level could be kept in.
        Kind::Request if session.version().is_none() && envelope.method().as_deref() == Some(method::SET_LEVEL) => {
            exchange.access.code = Some(code::INVALID_REQUEST);
            session_required(envelope.id()).into()
        }
        Kind::Request => match serve(exchange, &session, envelope) {
            Served::Call(request) => Step::Call(request),
            Served::List(list) => Step::List(list),
            Served::Response(response, code) => {
                exchange.access.code = code;
                json(StatusCode::OK, response).into()
            }
        },
        Kind::Notification => {
            notified(exchange, &session, &envelope);
            empty(StatusCode::ACCEPTED).into()
        }
        Kind::Result | Kind::Error if session.version().is_some() => empty(StatusCode::ACCEPTED).into(),
        Kind::Result | Kind::Error => session_required(None).into(),
    }
}

/// Takes a notification of a client.
pub(super) fn notified(exchange: &Exchange<'_>, session: &Session, envelope: &Envelope) {
    if let (Some(method::CANCELLED), Some(id)) = (envelope.method().as_deref(), envelope.param(Param::RequestId)) {
        session.cancel(&exchange.principal, id);
    }
}

/// Serves a DELETE: the end of a session.
pub(in crate::http) fn delete(exchange: &Exchange<'_>) -> Response<Body> {
    let named = only(exchange.headers, &header::PROTOCOL_VERSION);
    if named.is_some_and(|version| version.as_bytes() == MODERN.as_bytes()) {
        // That era has no sessions to end.
        return Refusal::Method("POST").rpc();
    }
    if exchange.named == NamedVersion::Other {
        let known = ProtocolVersion::ALL.map(ProtocolVersion::as_str).join(", ");
        let what = format!("unsupported protocol version: expected one of {known}");
        return rpc(StatusCode::BAD_REQUEST, None, &ErrorObject::new(code::INVALID_REQUEST, what));
    }
    let Some(id) = session_header(exchange) else { return session_required(None) };
    match exchange.gateway.end_session(exchange.memory, &exchange.principal, id, exchange.now) {
        Ok(()) => empty(StatusCode::NO_CONTENT),
        Err(no_session) => refuse_session(no_session),
    }
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
    let offered = format!(r#"{{"tools":{{}},"prompts":{{}},"resources":{{}},"logging":{{}}{completions}}}"#);
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
    if let Some(operation) = envelope.method().as_deref().and_then(Operation::of_method) {
        return pass_on(exchange, session, operation, envelope);
    }
    match envelope.method().as_deref() {
        Some(method::PING) => Served::Response(result_message(&id, b"{}"), None),
        Some(method::SET_LEVEL) => match set_level(session, &envelope) {
            Ok(()) => Served::Response(result_message(&id, b"{}"), None),
            Err(error) => Served::failed(&id, &error),
        },
        Some(name) => match ListKind::of_method(name) {
            Some(kind) => {
                let assumed = exchange.named.legacy().unwrap_or(ProtocolVersion::V2025_03_26);
                Served::List(List::new(id, kind, Some(session.version().unwrap_or(assumed)), &envelope))
            }
            None => Served::error(&id, &no_such_method(Some(name))),
        },
        None => Served::error(&id, &no_such_method(None)),
    }
}

/// Serves a request that is passed on.
fn pass_on(exchange: &mut Exchange<'_>, session: &Session, operation: Operation, envelope: Envelope) -> Served {
    let subject = subject_of(exchange, operation, &envelope);
    match subject.and_then(|subject| check_progress_token(&envelope).map(|()| subject)) {
        Ok(subject) => {
            // Whoever has named no revision gets results as they are.
            let assumed = exchange.named.legacy().unwrap_or(ProtocolVersion::LATEST);
            let speech = Speech::Legacy(session.version().unwrap_or(assumed));
            Served::Call(request(exchange, (session.clone(), speech), operation, subject, envelope))
        }
        Err(error) => Served::failed(&id_of(&envelope), &error),
    }
}

fn set_level(session: &Session, envelope: &Envelope) -> Result<(), GatewayError> {
    let level = envelope.param_text(Param::Level).and_then(|level| LogLevel::parse(&level));
    let level = level.ok_or(GatewayError::InvalidParams("expected a `level` from `debug` to `emergency`"))?;
    if session.set_level(level) {
        Ok(())
    } else {
        Err(GatewayError::InvalidParams("expected a session to set a level in"))
    }
}
