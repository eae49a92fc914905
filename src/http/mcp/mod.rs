//! The MCP endpoint: deciding the era of a request.
//!
//! Source: protocol.md 2.1, 2.2. The modern era is refused in the way that makes a dual-era client fall back to
//! `initialize`: 400 with an error that is none of the modern ones (MCP 2026-07-28, versioning, "Backward Compatibility").

mod legacy;

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};

use super::access::Access;
use super::request::only;
use super::response::{Body, not_a_message, rpc};
use crate::gateway::{Gateway, Snapshot};
use crate::outbound::Client;
use crate::policy::Caller;
use crate::shutdown::Shutdown;
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, Meta, Sender};
use crate::wire::mcp::{ProtocolVersion, code, header, method};

pub(super) use legacy::delete;

/// What every MCP request is served with.
pub(super) struct Exchange<'a> {
    /// The gateway.
    pub(super) gateway: &'a std::sync::Arc<Gateway>,
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
    let envelope = match Envelope::parse(body, depth, Sender::Client) {
        Ok(envelope) => envelope,
        Err(error) => return refused(exchange.access, not_a_message(&error, None), error.code()),
    };
    let kind = match envelope.kind() {
        Ok(kind) => kind,
        Err(error) => return refused(exchange.access, not_a_message(&error, envelope.id()), error.code()),
    };
    exchange.access.rpc = envelope.method().map(|m| m.chars().take(64).collect());
    if is_modern(&exchange.headers, &envelope) {
        let [oldest, .., newest] = ProtocolVersion::ALL;
        let what = format!("unsupported protocol version: expected {oldest} to {newest}; begin with `initialize`");
        let error = ErrorObject::new(code::INVALID_REQUEST, what);
        let answer = rpc(StatusCode::BAD_REQUEST, envelope.id().filter(|_| kind == Kind::Request), &error);
        return refused(exchange.access, answer, error.code);
    }
    legacy::post(exchange, kind, envelope).await
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
    only(headers, &header::PROTOCOL_VERSION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| ProtocolVersion::parse(v.trim()))
}
