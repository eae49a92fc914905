//! Several messages in one body, as revision 2025-03-26 has them.
//!
//! Each is served like one that comes by itself; the responses come in one array, or on one event stream if a tool is
//! called. Source: MCP 2025-03-26, basic, "Batching"; protocol.md 2.4, L1.

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::{Response, StatusCode};

use super::legacy::{self, Served};
use super::{Exchange, NamedVersion, begin, is_modern, refused, subscribe};
use crate::gateway::Session;
use crate::http::response::{Body, empty, event_streams, json, rpc};
use crate::wire::json::{Span, elements_of};
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, Sender, result_message};
use crate::wire::mcp::{Era, ProtocolVersion, code, method};

/// Messages in one body.
const MOST: usize = 50;

/// Whether a body holds several messages.
pub(super) fn is_batch(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// Serves a body with several messages, which has been found to be JSON.
pub(super) async fn post(exchange: &mut Exchange<'_>, body: &Bytes) -> Response<Body> {
    exchange.access.set_rpc("batch");
    let session = match legacy::session(exchange) {
        Ok(session) => session,
        Err(no_session) => return legacy::refuse_session(no_session),
    };
    let (messages, kinds) = match read(exchange, &session, body) {
        Ok(read) => read,
        Err(what) => {
            let error = ErrorObject::new(code::INVALID_REQUEST, format!("invalid request: {what}"));
            return refused(exchange.access, rpc(StatusCode::BAD_REQUEST, None, &error), error.code);
        }
    };
    let (mut responses, mut relays) = (Vec::new(), Vec::new());
    for (message, kind) in messages.into_iter().zip(kinds) {
        match kind {
            Kind::Request => match legacy::serve(exchange, &session, message) {
                Served::Response(response, _) => responses.push(response),
                Served::List(list) => responses.push(match list.page(exchange).await {
                    Ok(page) => result_message(&list.id, &page.bytes),
                    Err(error) => error.to_rpc(Era::Legacy).to_message(Some(&list.id)),
                }),
                Served::Subscribe(id, session, uri) => {
                    responses.push(match subscribe(exchange, &session, &uri).await {
                        Ok(()) => result_message(&id, b"{}"),
                        Err(error) => error.to_rpc(Era::Legacy).to_message(Some(&id)),
                    });
                }
                Served::Call(request) => {
                    let id = Arc::clone(&request.id);
                    match begin(exchange, request).await {
                        Ok(relay) => relays.push(relay),
                        Err(error) => responses.push(error.to_rpc(Era::Legacy).to_message(Some(&id))),
                    }
                }
            },
            Kind::Notification => legacy::notified(exchange, &session, &message),
            Kind::Result | Kind::Error => session.answer(message),
        }
    }
    if !relays.is_empty() {
        return event_streams(responses, relays, exchange.upkeep());
    }
    if responses.is_empty() {
        return empty(StatusCode::ACCEPTED);
    }
    json(StatusCode::OK, [b"[".as_slice(), &responses.join(&b','), b"]"].concat())
}

/// The messages of a body, and what they are.
fn read(exchange: &Exchange<'_>, session: &Session, body: &Bytes) -> Result<(Vec<Envelope>, Vec<Kind>), String> {
    let unversioned = session.version().is_none() && exchange.named == NamedVersion::Nothing;
    if !unversioned && session.version() != Some(ProtocolVersion::V2025_03_26) {
        return Err(format!("batches belong to sessions of {}", ProtocolVersion::V2025_03_26));
    }
    let depth = exchange.snapshot.registry().settings().limits.json_depth;
    let start = body.len() - body.trim_ascii_start().len();
    let elements = elements_of(body, Span { start, end: body.len() });
    if !(1..=MOST).contains(&elements.len()) {
        return Err(format!("expected 1 to {MOST} messages in a batch, found {}", elements.len()));
    }
    let mut messages = Vec::with_capacity(elements.len());
    for element in elements {
        let message = Envelope::parse(body.slice(element.range()), depth, Sender::Client).map_err(|e| e.to_string())?;
        if is_modern(exchange.named, &message) {
            return Err("expected no message of another era in a batch".to_owned());
        }
        if message.method().as_deref() == Some(method::INITIALIZE) {
            return Err("expected `initialize` by itself, not in a batch".to_owned());
        }
        messages.push(message);
    }
    let kinds = messages.iter().map(|message| message.kind().map_err(|e| e.to_string())).collect::<Result<_, _>>()?;
    Ok((messages, kinds))
}
