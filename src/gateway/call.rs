//! A `tools/call`, or whatever else is passed on to a server: from what the client asks to a call that is under way.
//!
//! Source: protocol.md 2.3, 2.4, 4.2.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::HeaderMap;

use super::again::Again;
use super::bridge::{Bridge, How, askable};
use super::flight::{Flight, Lease, Sent};
use super::park::Parking;
use super::relay::{Call, Client, Modern, Progress, Relay, Sending};
use super::repeat::Repeatable;
use super::task::{Task, Tasks};
use super::{Gateway, GatewayError, Keyring, Principal, Session, Snapshot, Subject, View};
use crate::budget::Full;
use crate::log::RequestId;
use crate::outbound::Client as Http;
use crate::policy::{Permit, Server, ServerId};
use crate::upstream::{Asked, Catalogue, Lane, Upstream, Waits};
use crate::wire::config::Limits;
use crate::wire::headers::{agrees, decode, find};
use crate::wire::json::{JsonType, Span, members_of, type_of};
use crate::wire::jsonrpc::{Envelope, Meta, Param};
use crate::wire::mcp::{ClientCapabilities, Era, ListKind, LogLevel, Operation, ProtocolVersion};
use crate::wire::rewrite::{Asker, Inputs};
use crate::wire::seal::StateKind;

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
    /// About what, as the client names it: for a task, the tool that it was begun for.
    pub subject: Subject,
    /// The task, if it is about one.
    pub task: Option<Box<Task>>,
    /// The message, whose progress token, if it has one, is a string or an integer.
    pub envelope: Envelope,
    /// The headers of its trace context, if it has one. Boxed because hardly any has.
    pub trace: Option<Box<HeaderMap>>,
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
        let route = route(view, &request).ok_or_else(|| GatewayError::Unknown(request.subject.clone()))?;
        self.pass_on(http, route, Tasks::None, request, found)
    }

    /// Passes a request on that is about a task.
    ///
    /// # Errors
    /// [`GatewayError`] if there is no room for another call.
    pub fn ask_about(
        &self,
        http: &Http,
        task: Box<Task>,
        request: Request,
        found: impl FnOnce(&ServerId, Option<Era>),
    ) -> Result<Relay, GatewayError> {
        self.pass_on(http, task.route(), Tasks::About(task), request, found)
    }

    /// Passes a request on to where it goes.
    fn pass_on(
        &self,
        http: &Http,
        route: Route,
        about: Tasks,
        request: Request,
        found: impl FnOnce(&ServerId, Option<Era>),
    ) -> Result<Relay, GatewayError> {
        let Route { permit, upstream, tool } = route;
        let envelope = &request.envelope;
        let principal = &request.principal;
        found(upstream.id(), upstream.era());
        let most = request.snapshot.registry().settings().limits.buffered_bytes;
        self.budget().admit(most).map_err(|Full| GatewayError::Full)?;
        let (asker, passed_on) = request.asked(tool.as_ref())?;
        let task = about.own();
        let answered = request.client(permit.server(), &self.keys, about);
        let (state, answered) = match (opened(&answered, envelope)?, answered) {
            (Some((StateKind::Parked, handle)), Client::Modern(client)) => {
                return self.resume(&request, *client, &handle);
            }
            (Some((StateKind::Relay, state)), client) => (Some(state), client),
            (_, client) => (None, client),
        };
        let client = self.current_state(principal, &request.snapshot);
        let listens = client.listeners.count() > 0;
        let client_slot = self.client_slot(&request.snapshot, client).ok_or(GatewayError::Overloaded("client"))?;
        let call_slot = upstream.call_slot(principal.client()).ok_or(GatewayError::Overloaded("server"))?;
        let askable = askable(answered.capabilities()).filter(|_| request.operation.may_ask());
        let lane = askable.filter(|_| answered.era() == Era::Modern && upstream.era() != Some(Era::Modern));
        let lane = lane.map(|askable| upstream.lane(principal.client(), askable));
        let tenant = lane.as_ref().map_or_else(|| request.session.tenant(principal.client()), Lane::tenant);
        // Some servers tell only the session that has changed something what it has changed.
        if (askable.is_some() || listens) && upstream.era() != Some(Era::Modern) {
            upstream.listen(&tenant);
        }
        let (id, operation) = (upstream.next_id(), request.operation);
        let sent = Sent { upstream, permit, http: http.clone(), tenant, id };
        let limits = &request.snapshot.registry().settings().limits;
        let is_bridged = match answered.era() {
            Era::Modern => lane.is_some(),
            // A modern server may want to be asked again, without anything of the client.
            Era::Legacy => askable.is_some() || (operation.may_ask() && sent.upstream.era() == Some(Era::Modern)),
        };
        let waits = askable.map(|_| Waits::default());
        let token = envelope.meta(Meta::ProgressToken).map(Bytes::copy_from_slice);
        let (envelope, trace) = (request.envelope, request.trace);
        let asked = Asked { envelope, operation, asker, passed_on, trace, waits, tool, task };
        let (principal, session) = (request.principal, request.session);
        let lease = Lease::new(client_slot, principal, session, sent, request.id, request.now, askable.is_some());
        if self.generation() != request.snapshot.generation() {
            // What was taken away while the call was being prepared was not taken from this call yet.
            lease.review(self.snapshot().registry());
        }
        let (bridge, sending) = if is_bridged {
            let asked = Arc::new(asked);
            (Some(self.bridge(lane, &asked, limits)), send(lease.flight(), asked, state))
        } else {
            (None, send(lease.flight(), asked, state))
        };
        let call = Call {
            client: answered,
            lease,
            token,
            operation,
            subject: request.subject,
            longest: request.snapshot.registry().settings().refresh,
            request: request.request_id,
            slot: call_slot,
            bridge,
            _held: self.calls.hold(),
        };
        Ok(Relay::new(call, Progress::Sending(sending)))
    }

    /// What passes on what a server asks the client: by results if the call has a session to itself, else by requests.
    fn bridge(&self, lane: Option<Lane>, asked: &Arc<Asked>, limits: &Limits) -> Box<Bridge> {
        let how = match lane {
            Some(lane) => {
                let (patience, most) = (limits.parked_call, limits.parked_calls_per_client);
                How::Results(Box::new(Parking::new(self.instance, patience, most, lane, self.parked.clone())))
            }
            None => How::Requests(Box::new(Again::new(Arc::clone(asked), limits.whole_call))),
        };
        Box::new(Bridge::new(how, asked.waits.clone(), self.questions.clone()))
    }
}

/// Sends a request, with what its server has given out itself for it.
fn send(flight: Arc<Flight>, asked: impl Borrow<Asked> + Send + 'static, state: Option<Vec<u8>>) -> Sending {
    Box::pin(async move {
        let Sent { upstream, permit, http, tenant, id } = &flight.sent;
        let inputs = Inputs { state: state.as_deref(), responses: None };
        upstream.call(http, permit, tenant, *id, asked.borrow(), inputs).await
    })
}

/// What is behind the state that comes with a request; with one about a task none does.
fn opened(client: &Client, envelope: &Envelope) -> Result<Option<(StateKind, Vec<u8>)>, GatewayError> {
    match (client, envelope.param(Param::RequestState)) {
        (Client::Modern(client), _) if client.tasks.own().is_some() => Ok(None),
        (Client::Modern(client), Some(sent)) => client.repeatable.open(&client.states, sent).map(Some),
        _ => Ok(None),
    }
}

/// Where a request goes.
pub(super) struct Route {
    pub(super) permit: Permit,
    pub(super) upstream: Arc<Upstream>,
    /// What describes the tool, if it is about one.
    pub(super) tool: Option<(Arc<Catalogue>, usize)>,
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
    fn client(&self, server: &Server, keys: &Keyring, about: Tasks) -> Client {
        match &self.speech {
            Speech::Legacy(version) => Client::Legacy(*version, self.session.capabilities(), self.session.level()),
            Speech::Modern { level, capabilities, .. } => {
                let bytes = self.envelope.bytes();
                let arguments = self.envelope.param_span(Param::Arguments).map(|span| bytes.slice(span.range()));
                let arguments = arguments.unwrap_or_default();
                // A tool and a prompt may have the same name.
                let request = [self.operation.method(), " ", &self.subject.name].concat();
                let repeatable = Repeatable::new(&self.principal, server, request, arguments, self.now);
                let (level, capabilities, states) = (*level, *capabilities, Arc::clone(&keys.states));
                let tasks = match about {
                    Tasks::None if self.operation == Operation::Call && capabilities.knows_tasks() => {
                        Tasks::Possible(Arc::clone(&keys.tasks))
                    }
                    about => about,
                };
                Client::Modern(Box::new(Modern { level, capabilities, repeatable, states, tasks }))
            }
        }
    }

    /// Who is behind the request, as its server is told, and the headers that mirror something nobody here knows of. The
    /// others are compared with what they mirror, before the inputs are looked at.
    fn asked(&self, tool: Option<&(Arc<Catalogue>, usize)>) -> Result<(Asker, HeaderMap), GatewayError> {
        let (asker, mirrored) = match &self.speech {
            Speech::Legacy(_) => {
                let (level, capabilities) = (self.session.level(), self.session.capabilities().askable());
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
