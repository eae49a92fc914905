//! One `tools/call`, or whatever else is passed on, from its permit to its response.
//!
//! The answer comes back with the client's id and progress token, and as the client's era has it; nothing else is touched.
//! Source: protocol.md 2.3, 2.4, 4.2, 4.6.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::HeaderMap;
use tokio::runtime::Handle;

use super::bridge::Repeatable;
use super::error::{data_of_uri, names_uri};
use super::flight::{Lease, Over, Sent};
use super::{Gateway, GatewayError, Principal, Session, Snapshot, Subject, View};
use crate::budget::Full;
use crate::log::{RequestId, cut};
use crate::metrics::Held;
use crate::outbound::Client as Http;
use crate::policy::{Permit, Server, ServerId};
use crate::upstream::{Answer, Asked, CallSlot, Catalogue, Message, Outcome, Upstream, UpstreamError};
use crate::wire::headers::{agrees, decode, find};
use crate::wire::json::{JsonType, Span, members_of, type_of};
use crate::wire::jsonrpc::{Envelope, ErrorObject, Meta, Param, is_number};
use crate::wire::mcp::{ClientCapabilities, Era, ListKind, LogLevel, Operation, ProtocolVersion, code, method};
use crate::wire::rewrite::{self, Asker, ResultType};
use crate::wire::seal::{RequestState, Sealer};
use crate::wire::splice::Splice;

/// Codes of JSON-RPC servers' own making without a shared meaning, and those of MCP that mean something between the
/// gateway and the server only; they stay there.
const PRIVATE_CODES: std::ops::RangeInclusive<i64> = -32099..=-32000;

/// Bytes of a server's text that go into an error of ours.
const LONGEST_MESSAGE: usize = 1024;

/// How a client speaks, which decides what it is answered.
pub enum Speech {
    /// As this legacy revision has it.
    Legacy(ProtocolVersion),
    /// As the modern era has it.
    Modern {
        /// From which level on the client wants log messages.
        level: Option<LogLevel>,
        /// What the client can be asked for.
        capabilities: ClientCapabilities,
        /// The headers that mirror arguments.
        mirrored: HeaderMap,
    },
}

impl Speech {
    /// The era of the client's request.
    #[must_use]
    pub fn era(&self) -> Era {
        match self {
            Self::Legacy(_) => Era::Legacy,
            Self::Modern { .. } => Era::Modern,
        }
    }
}

/// A client's request that is passed on to a server.
pub struct Request {
    /// Names the request in the log.
    pub request_id: RequestId,
    /// The client's id of the request, as it wrote it.
    pub id: Arc<[u8]>,
    /// The policy under which the request is served, to its end.
    pub snapshot: Snapshot,
    /// Who calls.
    pub principal: Principal,
    /// Since when, since the epoch.
    pub now: Duration,
    /// In which session.
    pub session: Session,
    /// How the client speaks.
    pub speech: Speech,
    /// What it asks for.
    pub operation: Operation,
    /// About what, as the client names it.
    pub subject: Subject,
    /// The message, whose progress token, if it has one, is a string or an integer.
    pub envelope: Envelope,
}

impl Gateway {
    /// Passes a request on that is about something of the client's view. `found` hears which server it goes to, and in which
    /// era that is spoken to.
    ///
    /// # Errors
    /// [`GatewayError`] if there is no such thing for the client, or no room for another call.
    pub fn call(
        &self,
        http: &Http,
        view: &View,
        request: Request,
        found: impl FnOnce(&ServerId, Option<Era>),
    ) -> Result<Relay, GatewayError> {
        let envelope = &request.envelope;
        let principal = &request.principal;
        let Route { permit, upstream, tool } =
            route(view, &request).ok_or_else(|| GatewayError::Unknown(request.subject.clone()))?;
        found(upstream.id(), upstream.era());
        let most = request.snapshot.registry().settings().limits.buffered_bytes;
        self.budget().admit(most).map_err(|Full| GatewayError::Full)?;
        let (asker, passed_on) = request.asked(tool.as_ref())?;
        let answered = request.client(permit.server(), &self.keys.states);
        let state = answered.opened(envelope)?;
        let client = self.current_state(principal, &request.snapshot);
        let client_slot = self.client_slot(&request.snapshot, client).ok_or(GatewayError::Overloaded("client"))?;
        let call_slot = upstream.call_slot(principal.client()).ok_or(GatewayError::Overloaded("server"))?;
        let (tenant, id) = (request.session.tenant(principal.client()), upstream.next_id());
        let sent = Sent { upstream, permit, http: http.clone(), tenant, id };
        let call = Call {
            client: answered,
            lease: Lease::new(client_slot, request.principal, request.session, sent, request.id, request.now),
            token: envelope.meta(Meta::ProgressToken).map(Bytes::copy_from_slice),
            operation: request.operation,
            subject: request.subject,
            longest: request.snapshot.registry().settings().refresh,
            request: request.request_id,
            slot: call_slot,
            _held: self.calls.hold(),
        };
        if self.generation() != request.snapshot.generation() {
            // What was taken away while the call was being prepared was not taken from this call yet.
            call.lease.review(self.snapshot().registry());
        }
        let flight = call.lease.flight();
        let asked = Asked { envelope: request.envelope, operation: request.operation, asker, passed_on, state, tool };
        let sending = Box::pin(async move {
            let Sent { upstream, permit, http, tenant, id } = &flight.sent;
            upstream.call(http, permit, tenant, *id, &asked).await
        });
        Ok(Relay { running: Some(Box::new((call, Progress::Sending(sending)))) })
    }
}

/// Where a request goes.
struct Route {
    permit: Permit,
    upstream: Arc<Upstream>,
    /// What describes the tool, if it is about one.
    tool: Option<(Arc<Catalogue>, usize)>,
}

/// Finds where a request goes; `None` if the client sees nothing of that name.
fn route(view: &View, request: &Request) -> Option<Route> {
    let Subject { kind, name } = &request.subject;
    let entry = view.find(*kind, name);
    if entry.is_none() && matches!(kind, ListKind::Resources | ListKind::Templates) {
        let (permit, upstream) = view.resource(request.snapshot.registry(), name)?;
        return Some(Route { permit, upstream, tool: None });
    }
    let entry = entry?;
    let tool = (*kind == ListKind::Tools).then(|| view.described(entry));
    Some(Route { permit: entry.permit.clone(), upstream: Arc::clone(&entry.upstream), tool })
}

impl Request {
    /// The client, as far as that decides what it is answered.
    fn client(&self, server: &Server, states: &Arc<Sealer>) -> Client {
        match &self.speech {
            Speech::Legacy(version) => Client::Legacy(*version, self.session.capabilities(), self.session.level()),
            Speech::Modern { level, capabilities, .. } => {
                let bytes = self.envelope.bytes();
                let arguments = self.envelope.param_span(Param::Arguments).map(|span| bytes.slice(span.range()));
                let arguments = arguments.unwrap_or_default();
                // A tool and a prompt may have the same name.
                let request = format!("{} {}", self.operation.method(), self.subject.name);
                let repeatable = Repeatable::new(&self.principal, server, request, arguments, self.now);
                let (level, capabilities, states) = (*level, *capabilities, Arc::clone(states));
                Client::Modern(Box::new(Modern { level, capabilities, repeatable, states }))
            }
        }
    }

    /// Who is behind the request, as its server is told, and the headers that mirror something nobody here knows of. The
    /// others are compared with what they mirror, before the inputs are looked at.
    fn asked(&self, tool: Option<&(Arc<Catalogue>, usize)>) -> Result<(Asker, HeaderMap), GatewayError> {
        let (asker, mirrored) = match &self.speech {
            Speech::Legacy(_) => {
                let (level, capabilities) = (self.session.level(), ClientCapabilities::NONE);
                return Ok((Asker { era: Era::Legacy, level, capabilities }, HeaderMap::new()));
            }
            Speech::Modern { level, capabilities, mirrored } => {
                (Asker { era: Era::Modern, level: *level, capabilities: *capabilities }, mirrored)
            }
        };
        let arguments = self.envelope.param(Param::Arguments).unwrap_or(b"{}");
        let mut unknown = mirrored.clone();
        let annotations = tool.map(|(catalogue, at)| catalogue.annotations(*at)).unwrap_or_default();
        for (annotation, argument) in annotations.iter().zip(find(annotations, arguments)) {
            unknown.remove(&annotation.header);
            let mut values = mirrored.get_all(&annotation.header).iter().map(|value| decode(value.as_bytes()));
            let fits = match (values.next(), values.next()) {
                (None, _) => agrees(None, argument),
                (Some(Some(value)), None) => agrees(Some(&value), argument),
                // Repeated, or no text.
                _ => false,
            };
            if !fits {
                return Err(GatewayError::HeaderMismatch(annotation.header.clone()));
            }
        }
        check_inputs(&self.envelope)?;
        Ok((asker, unknown))
    }
}

/// The answers to a server's questions, and what comes with them, have their shapes.
fn check_inputs(envelope: &Envelope) -> Result<(), GatewayError> {
    if envelope.param(Param::RequestState).is_some_and(|state| type_of(state) != JsonType::String) {
        return Err(GatewayError::InvalidParams("expected a `requestState` that is a string"));
    }
    let bytes = envelope.bytes();
    let is_object = |value: Span| type_of(value.of(bytes)) == JsonType::Object;
    let fits = |responses: Span| {
        is_object(responses) && members_of(bytes, responses).into_iter().all(|(_, response)| is_object(response))
    };
    match envelope.param_span(Param::InputResponses) {
        Some(responses) if !fits(responses) => {
            Err(GatewayError::InvalidParams("expected `inputResponses` to be an object of objects"))
        }
        _ => Ok(()),
    }
}

