//! The legacy era, revisions 2024-11-05 to 2025-11-25: `initialize`, optional sessions, and one request a POST.
//!
//! JSON-RPC errors go out with status 200, because clients of this era lose the body of everything else and read 404 as
//! the end of their session. Source: protocol.md 2.4.

use std::future::poll_fn;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::{Exchange, version};
use crate::gateway::{GatewayError, NoSession, Outgoing, Request, Session};
use crate::http::request::only;
use crate::http::response::{Body, Refusal, STOPPING, empty, event_stream, json, result, rpc, rpc_error};
use crate::wire::json::{JsonType, Span, members_of, text_of, type_of, write_text};
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, Param};
use crate::wire::mcp::{ClientCapabilities, MODERN, ProtocolVersion, code, header, method};

/// How long an answer may keep its client waiting before it becomes an event stream, which can be kept alive.
const COMMIT: Duration = Duration::from_secs(10);

/// Serves a message of the legacy era.
pub(super) async fn post(exchange: Exchange<'_>, kind: Kind, envelope: Envelope) -> Response<Body> {
    if kind == Kind::Request && envelope.method().as_deref() == Some(method::INITIALIZE) {
        return initialize(exchange, &envelope);
    }
    let session = match session(&exchange) {
        Ok(session) => session,
        Err(NoSession) => return no_session(),
    };
    match kind {
        Kind::Request => request(exchange, session, envelope).await,
        Kind::Notification => {
            if let (Some(method::CANCELLED), Some(id)) =
                (envelope.method().as_deref(), envelope.param(Param::RequestId))
            {
                session.cancel(id);
            }
            empty(StatusCode::ACCEPTED)
        }
        Kind::Result | Kind::Error if session.version().is_some() => empty(StatusCode::ACCEPTED),
        Kind::Result | Kind::Error => session_required(),
    }
}

/// Serves a DELETE: the end of a session.
pub(in crate::http) fn delete(exchange: &Exchange<'_>) -> Response<Body> {
    let named = only(&exchange.headers, &header::PROTOCOL_VERSION);
    if named.is_some_and(|version| version.as_bytes() == MODERN.as_bytes()) {
        // That era has no sessions to end.
        return Refusal::Method("POST").rpc();
    }
    if exchange.headers.contains_key(header::PROTOCOL_VERSION) && version(&exchange.headers).is_none() {
        let known = ProtocolVersion::ALL.map(ProtocolVersion::as_str).join(", ");
        let what = format!("unsupported protocol version: expected one of {known}");
        return rpc(StatusCode::BAD_REQUEST, None, &ErrorObject::new(code::INVALID_REQUEST, what));
    }
    let Some(id) = session_header(exchange) else { return session_required() };
    match exchange.gateway.end_session(exchange.caller.client(), id, exchange.now) {
        Ok(()) => empty(StatusCode::NO_CONTENT),
        Err(NoSession) => no_session(),
    }
}

fn session_header<'a>(exchange: &'a Exchange<'_>) -> Option<&'a str> {
    if !exchange.headers.contains_key(header::SESSION_ID) {
        return None;
    }
    // A repeated or unreadable header names no session that exists.
    Some(only(&exchange.headers, &header::SESSION_ID).and_then(|v| v.to_str().ok()).unwrap_or_default())
}

fn session(exchange: &Exchange<'_>) -> Result<Session, NoSession> {
    match session_header(exchange) {
        None => Ok(Session::default()),
        Some(id) => exchange.gateway.session(&exchange.snapshot, exchange.caller.client(), id, exchange.now),
    }
}

/// The same for a session that never was, has ended, or is somebody else's.
fn no_session() -> Response<Body> {
    rpc(
        StatusCode::NOT_FOUND,
        None,
        &ErrorObject::new(code::INVALID_REQUEST, "session not found; begin with `initialize`"),
    )
}

fn session_required() -> Response<Body> {
    rpc(
        StatusCode::BAD_REQUEST,
        None,
        &ErrorObject::new(code::INVALID_REQUEST, "session required: expected an Mcp-Session-Id"),
    )
}

fn initialize(exchange: Exchange<'_>, envelope: &Envelope) -> Response<Body> {
    let id = envelope.id().unwrap_or_default();
    let Some((asked, capabilities)) = read_initialize(envelope) else {
        let expected = "expected `protocolVersion`, `capabilities` and `clientInfo` with `name` and `version`";
        return failed(exchange, id, &GatewayError::InvalidParams(expected));
    };
    let agreed = asked.unwrap_or(ProtocolVersion::LATEST);
    let instructions = exchange.gateway.instructions(&exchange.snapshot, exchange.caller.client());
    let mut text = format!(
        r#"{{"protocolVersion":"{agreed}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"mcp-x","version":"{}"}}"#,
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes();
    if let Some(instructions) = instructions {
        text.extend_from_slice(b",\"instructions\":");
        write_text(&mut text, &instructions);
    }
    text.push(b'}');
    let mut answer = result(id, text.into());
    let session = exchange.gateway.open_session(exchange.caller.client(), agreed, capabilities, exchange.now);
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

async fn request(exchange: Exchange<'_>, session: Session, envelope: Envelope) -> Response<Body> {
    let id = Bytes::copy_from_slice(envelope.id().unwrap_or_default());
    if !envelope.params_fit() {
        return failed(exchange, &id, &GatewayError::InvalidParams("expected `params` to be an object"));
    }
    match envelope.method().as_deref() {
        Some(method::PING) => result(&id, Bytes::from_static(b"{}")),
        Some(method::TOOLS_LIST) => list(exchange, session, &id, &envelope).await,
        Some(method::TOOLS_CALL) => call(exchange, session, &id, envelope).await,
        other => {
            let name: String = other.unwrap_or_default().chars().take(64).collect();
            let error = ErrorObject::new(code::METHOD_NOT_FOUND, format!("method not found: `{name}`"));
            exchange.access.code = Some(error.code);
            rpc(StatusCode::OK, Some(&id), &error)
        }
    }
}

async fn list(exchange: Exchange<'_>, session: Session, id: &[u8], envelope: &Envelope) -> Response<Body> {
    let cursor = envelope.param(Param::Cursor).filter(|cursor| type_of(cursor) != JsonType::Null);
    // What is no text is no cursor that was ever given out, and neither is an empty text.
    let cursor = cursor.map(|cursor| text_of(cursor).unwrap_or_default());
    let assumed = version(&exchange.headers).unwrap_or(ProtocolVersion::V2025_03_26);
    let (client, version) = (exchange.caller.client(), session.version().unwrap_or(assumed));
    match exchange.gateway.list_tools(&exchange.snapshot, client, version, cursor.as_deref()).await {
        Ok(page) => result(id, page),
        Err(error) => failed(exchange, id, &error),
    }
}

async fn call(exchange: Exchange<'_>, session: Session, id: &[u8], envelope: Envelope) -> Response<Body> {
    exchange.access.tool = envelope.param_text(Param::Name).map(|n| n.chars().take(128).collect());
    let id_of_request = exchange.access.id.clone();
    let snapshot = exchange.snapshot.clone();
    let caller = exchange.caller.clone();
    let request = Request { id: id_of_request, snapshot, caller, now: exchange.now, session, envelope };
    let server = &mut exchange.access.server;
    let relay = exchange.gateway.call(exchange.http, request, |found| *server = Some(found.clone())).await;
    let mut relay = match relay {
        Ok(relay) => relay,
        Err(error) => {
            if let GatewayError::UnknownTool(_) = error {
                exchange.access.denied();
            }
            return failed(exchange, id, &error);
        }
    };
    let mut cut = exchange.cut.clone();
    let first = tokio::time::timeout(COMMIT, cut.or(poll_fn(|cx| relay.poll_next(cx)))).await;
    let first = match first {
        Ok(None) => relay.cut_off(STOPPING),
        Ok(Some(first)) => first,
        Err(_) => return event_stream(None, relay, exchange.cut.clone()),
    };
    match first {
        Some(Outgoing::Response(message, code)) => {
            exchange.access.code = code;
            json(StatusCode::OK, message)
        }
        Some(Outgoing::Notification(message)) => event_stream(Some(message), relay, exchange.cut.clone()),
        None => event_stream(None, relay, exchange.cut.clone()),
    }
}

fn failed(exchange: Exchange<'_>, id: &[u8], error: &GatewayError) -> Response<Body> {
    let error = rpc_error(error);
    exchange.access.code = Some(error.code);
    rpc(StatusCode::OK, Some(id), &error)
}
