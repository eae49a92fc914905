//! The MCP endpoint: deciding the era of a request, and what is the same in both.
//!
//! The era is a property of each request. Nothing about a connection is remembered: it may carry both eras, and several
//! clients, one after the other. Source: protocol.md 2.1, 2.2.

mod batch;
mod legacy;
mod modern;

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, StatusCode};

use super::access::Access;
use super::request::only;
use super::response::{Body, STOPPING, event_stream, json, not_a_message};
use crate::gateway::{Gateway, GatewayError, Outgoing, Relay, Request, Session, Snapshot, Speech};
use crate::outbound::Client;
use crate::policy::{Caller, ServerId};
use crate::shutdown::Shutdown;
use crate::wire::json::{JsonType, text_of, type_of, write_text};
use crate::wire::jsonrpc::{Envelope, ErrorObject, MessageError, Meta, Param, Sender};
use crate::wire::mcp::{Era, ProtocolVersion, code, header, method};

pub(super) use legacy::delete;

/// How long an answer may keep its client waiting before it becomes an event stream, which can be kept alive.
const COMMIT: Duration = Duration::from_secs(10);

/// What every MCP request is served with.
pub(super) struct Exchange<'a> {
    /// The gateway.
    pub(super) gateway: &'a Arc<Gateway>,
    /// This thread's connections to servers.
    pub(super) http: &'a Client,
    /// The policy under which the request is served.
    pub(super) snapshot: Snapshot,
    /// Who asks.
    pub(super) caller: Caller,
    /// The request's headers.
    pub(super) headers: HeaderMap,
    /// Time since the Unix epoch.
    pub(super) now: Duration,
    /// Heard shortly before open answers are cut off.
    pub(super) cut: Shutdown,
    /// The request's record.
    pub(super) access: &'a mut Access,
}

/// Serves a POST whose body has been read.
pub(super) async fn post(exchange: Exchange<'_>, body: Bytes) -> Response<Body> {
    let depth = exchange.snapshot.registry().settings().limits.json_depth;
    let envelope = match Envelope::parse(body.clone(), depth, Sender::Client) {
        Ok(envelope) => envelope,
        // Found to be JSON, but no object.
        Err(MessageError::Shape(_)) if batch::is_batch(&body) => return batch::post(exchange, &body).await,
        Err(error) => return refused(exchange.access, not_a_message(&error, None), error.code()),
    };
    let kind = match envelope.kind() {
        Ok(kind) => kind,
        Err(error) => return refused(exchange.access, not_a_message(&error, envelope.id()), error.code()),
    };
    exchange.access.rpc = envelope.method().map(|m| m.chars().take(64).collect());
    if is_modern(&exchange.headers, &envelope) {
        modern::post(exchange, kind, envelope).await
    } else {
        legacy::post(exchange, kind, envelope).await
    }
}

fn refused(access: &mut Access, answer: Response<Body>, code: i64) -> Response<Body> {
    access.code = Some(code);
    answer
}

/// Whether a message belongs to the modern era (protocol.md 2.2): by its body first, then by its version header.
fn is_modern(headers: &HeaderMap, envelope: &Envelope) -> bool {
    if envelope.meta_span(Meta::ProtocolVersion).is_some() || envelope.meta_span(Meta::ClientCapabilities).is_some() {
        return true;
    }
    if envelope.method().as_deref() == Some(method::INITIALIZE) {
        return false;
    }
    (headers.contains_key(header::PROTOCOL_VERSION) && version(headers).is_none())
        || matches!(envelope.method().as_deref(), Some(method::DISCOVER | method::LISTEN))
}

/// The legacy revision that the version header names.
fn version(headers: &HeaderMap) -> Option<ProtocolVersion> {
    only_text(headers, &header::PROTOCOL_VERSION).and_then(ProtocolVersion::parse)
}

/// Where a list is to go on, if it is not to begin. What is no text is no cursor that was ever given out, and neither is an
/// empty text.
fn cursor(envelope: &Envelope) -> Option<Cow<'_, str>> {
    let cursor = envelope.param(Param::Cursor).filter(|cursor| type_of(cursor) != JsonType::Null);
    cursor.map(|cursor| text_of(cursor).unwrap_or_default())
}

/// The text of a header that must not be repeated, without the white space around it.
fn only_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    only(headers, name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// The error for a method that is not served.
fn no_such_method(name: Option<&str>) -> ErrorObject {
    let name: String = name.unwrap_or_default().chars().take(64).collect();
    ErrorObject::new(code::METHOD_NOT_FOUND, format!("method not found: `{name}`"))
}

/// Ends an object that is open with the gateway's instructions for the caller, if there are any.
fn with_instructions(exchange: &Exchange<'_>, open: String) -> Bytes {
    let mut text = open.into_bytes();
    if let Some(instructions) = exchange.gateway.instructions(&exchange.snapshot, exchange.caller.client()) {
        text.extend_from_slice(b",\"instructions\":");
        write_text(&mut text, &instructions);
    }
    text.push(b'}');
    text.into()
}

/// Starts to call a tool, and notes in the record where the call goes.
async fn begin(
    exchange: &mut Exchange<'_>,
    session: Session,
    speech: Speech,
    envelope: Envelope,
) -> Result<Relay, GatewayError> {
    let era = speech.era();
    let request = Request {
        id: exchange.access.id.clone(),
        snapshot: exchange.snapshot.clone(),
        caller: exchange.caller.clone(),
        now: exchange.now,
        session,
        speech,
        envelope,
    };
    let access = &mut *exchange.access;
    let (server, eras) = (&mut access.server, &mut access.eras);
    let found = |found: &ServerId, theirs: Option<Era>| {
        *server = Some(found.clone());
        *eras = theirs.map(|theirs| (era, theirs));
    };
    let relay = exchange.gateway.call(exchange.http, request, found).await;
    if let Err(GatewayError::UnknownTool(_)) = relay {
        access.denied();
    }
    relay
}

/// The answer to a call: as JSON if the response comes first and soon, else as an event stream. Until then nothing is
/// decided, so that an error still has its status; `status` says which.
async fn answer_of(exchange: Exchange<'_>, mut relay: Relay, status: fn(i64) -> StatusCode) -> Response<Body> {
    let mut cut = exchange.cut.clone();
    let first = tokio::time::timeout(COMMIT, cut.or(poll_fn(|cx| relay.poll_next(cx)))).await;
    let first = match first {
        Ok(None) => relay.cut_off(STOPPING),
        Ok(Some(first)) => first,
        Err(_) => return event_stream(None, relay, &exchange.cut),
    };
    match first {
        Some(Outgoing::Response(message, code)) => {
            exchange.access.code = code;
            json(code.map_or(StatusCode::OK, status), message)
        }
        Some(Outgoing::Notification(message)) => event_stream(Some(message), relay, &exchange.cut),
        None => event_stream(None, relay, &exchange.cut),
    }
}
