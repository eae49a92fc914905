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

/// What goes to the client.
#[derive(Debug)]
pub enum Outgoing {
    /// A notification that belongs to the call.
    Notification(Vec<u8>),
    /// The response, in pieces that follow one another; nothing comes after it. The code is that of its error, if it is one.
    Response(Vec<Bytes>, Option<i64>),
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

/// The client of a call, as far as that decides what it is answered.
enum Client {
    /// The revision it knows, what it can be asked for, and from which level on it wants log messages, if it has said so.
    Legacy(ProtocolVersion, ClientCapabilities, Option<LogLevel>),
    Modern(Box<Modern>),
}

impl Client {
    fn era(&self) -> Era {
        match self {
            Self::Legacy(..) => Era::Legacy,
            Self::Modern(_) => Era::Modern,
        }
    }

    /// The server's own state behind the one that comes with a request.
    fn opened(&self, envelope: &Envelope) -> Result<Option<Vec<u8>>, GatewayError> {
        match (self, envelope.param(Param::RequestState)) {
            (Self::Modern(client), Some(sent)) => client.repeatable.open(&client.states, sent).map(Some),
            _ => Ok(None),
        }
    }
}

/// What has to be known of a modern client.
struct Modern {
    /// From which level on it wants log messages.
    level: Option<LogLevel>,
    /// What it can be asked for.
    capabilities: ClientCapabilities,
    /// What the server may want to see again.
    repeatable: Repeatable,
    states: Arc<Sealer>,
}

/// What is known of a call from its beginning to its end.
struct Call {
    client: Client,
    /// The client's progress token, as it wrote it.
    token: Option<Bytes>,
    operation: Operation,
    /// What it is about, as the client names it.
    subject: Subject,
    /// For how long a result may do that may be kept.
    longest: Duration,
    /// What it was begun with, and what ends it before its answer.
    lease: Lease,
    request: RequestId,
    /// What the call counts as at its server, and how it ended.
    slot: CallSlot,
    /// What the call counts as while it runs.
    _held: Held,
}

/// How far a call has got.
enum Progress {
    /// The server has not begun to answer.
    Sending(Pin<Box<dyn Future<Output = Result<Box<Answer>, UpstreamError>> + Send>>),
    Answering(Box<Answer>),
}

/// A call and its answer. Dropped before its response, a legacy client's call goes on without a listener, and a modern
/// client's is called off, as their eras want it.
pub struct Relay {
    /// Boxed, because it is handed on many times.
    running: Option<Box<(Call, Progress)>>,
}

impl Relay {
    /// The next message for the client; `None` after the response, and when the client has called the request off.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let Some((call, progress)) = self.running.as_deref_mut() else { return Poll::Ready(None) };
        let outgoing = ready!(call.poll_next(progress, cx));
        if let None | Some(Outgoing::Response(..)) = outgoing {
            self.running = None;
        }
        Poll::Ready(outgoing)
    }

    /// Ends the relay with an error instead of the answer, which goes on without a listener.
    pub fn cut_off(&mut self, why: &str) -> Option<Outgoing> {
        let (call, _) = self.running.as_deref()?;
        let response = call.error(&ErrorObject::new(code::INTERNAL_ERROR, why));
        self.detach();
        Some(response)
    }

    fn detach(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if let Ok(runtime) = Handle::try_current() {
            let (call, progress) = &*running;
            if let Client::Modern(_) = call.client {
                return call.cancel(progress);
            }
            runtime.spawn(async move {
                let (call, progress) = &mut *running;
                while let Some(Outgoing::Notification(_)) = poll_fn(|cx| call.poll_next(progress, cx)).await {}
            });
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Call {
    /// Tells the server that nobody waits for the response any more: in the session in which it answers, or else in the one
    /// in which it was asked, as far as that is known.
    fn cancel(&self, progress: &Progress) {
        match progress {
            Progress::Answering(answer) => answer.cancel(),
            Progress::Sending(_) => {
                let Sent { upstream, http, tenant, id, .. } = self.lease.sent();
                upstream.cancel(http, tenant, *id);
            }
        }
    }

    /// The next message for the client; `None` if it has called the request off, which gets no response then.
    fn poll_next(&mut self, progress: &mut Progress, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if let Poll::Ready(over) = self.lease.poll_over(cx) {
            self.cancel(progress);
            return Poll::Ready((over != Over::CalledOff).then(|| self.withdrawn(over)));
        }
        loop {
            let answer = match progress {
                Progress::Answering(answer) => answer,
                Progress::Sending(sending) => match ready!(sending.as_mut().poll(cx)) {
                    Ok(answer) => {
                        *progress = Progress::Answering(answer);
                        continue;
                    }
                    Err(error) => return Poll::Ready(Some(self.failure(error))),
                },
            };
            let settled = match ready!(answer.poll_message(cx)) {
                Ok(Message::Response(response)) => return Poll::Ready(Some(self.response(answer, &response))),
                Ok(Message::Notification(notification)) => {
                    if let Some(message) = self.notification(answer, &notification) {
                        return Poll::Ready(Some(Outgoing::Notification(message)));
                    }
                    Ok(())
                }
                // Nothing can be asked of a legacy client here, and it declared nothing that it could be asked for.
                Ok(Message::Request(request)) => answer.refuse(&request),
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                return Poll::Ready(Some(self.failure(error)));
            }
        }
    }

    /// A notification as the client gets it, if it is one for the client.
    fn notification(&self, answer: &Answer, notification: &Envelope) -> Option<Vec<u8>> {
        match notification.method()?.as_ref() {
            method::PROGRESS => {
                let own = is_number(notification.param(Param::ProgressToken)?, answer.id());
                let token = self.token.as_deref().filter(|_| own)?;
                let span = notification.param_span(Param::ProgressToken);
                Some(Splice::new(notification.bytes()).replace_if(span, token).build())
            }
            method::MESSAGE => self.wants(notification).then(|| notification.bytes().to_vec()),
            method::TOOLS_CHANGED | method::PROMPTS_CHANGED | method::RESOURCES_CHANGED => {
                answer.upstream().refresh_soon();
                None
            }
            _ => None,
        }
    }

    /// Whether a log message is one that the client wants. Its server may have no session to keep the level in.
    fn wants(&self, message: &Envelope) -> bool {
        let least = match &self.client {
            Client::Legacy(_, _, None) => return true,
            Client::Legacy(_, _, least) => *least,
            Client::Modern(client) => client.level,
        };
        least.is_some_and(|least| {
            let level = message.param_text(Param::Level).and_then(|level| LogLevel::parse(&level));
            level.is_some_and(|level| level >= least)
        })
    }

    /// A response as the client gets it (protocol.md 4.6).
    fn response(&mut self, answer: &Answer, response: &Envelope) -> Outgoing {
        self.slot.ended(if response.result().is_some() { Outcome::Result } else { Outcome::Error });
        match response.error() {
            Some(error) => self.server_error(answer, response, error),
            // The client would not know which of its requests it is about.
            None if response.id().is_none() => self.error(&ErrorObject::new(code::INTERNAL_ERROR, "unreadable error")),
            None => self.result(answer, response),
        }
    }

    fn result(&mut self, answer: &Answer, response: &Envelope) -> Outgoing {
        if answer.era() == Era::Modern {
            match rewrite::result_type(response) {
                ResultType::Complete => {}
                ResultType::InputRequired => return self.questions(response),
                ResultType::Unknown => {
                    return self.failure(UpstreamError::NotMcp("expected a complete result".to_owned()));
                }
            }
        }
        let bytes = match &self.client {
            Client::Legacy(version, ..) => {
                rewrite::result_for_legacy(response, self.lease.id(), *version, answer.era())
            }
            Client::Modern(_) => {
                let longest = (self.operation == Operation::Read).then_some(self.longest);
                rewrite::result_for_modern(response, self.lease.id(), answer.era(), None, longest)
            }
        };
        Outgoing::Response(bytes, None)
    }

    /// What a modern server asks for before it goes on (protocol.md 4.5).
    fn questions(&mut self, response: &Envelope) -> Outgoing {
        let Client::Modern(client) = &self.client else { return self.failure(UpstreamError::NeedsInput) };
        let questions = rewrite::questions(response);
        let Some(needed) = questions.needed else {
            return self.failure(UpstreamError::NotMcp("expected no other requests for input than MCP has".to_owned()));
        };
        if let Some(missing) = client.capabilities.lacks(needed) {
            let data = Some(format!(r#"{{"requiredCapabilities":{missing}}}"#).into());
            let message = "the server needs a capability that the client did not declare".to_owned();
            return self.error(&ErrorObject { code: code::MISSING_CAPABILITY, message, data });
        }
        let ours = match questions.state.map(|original| client.repeatable.seal(&client.states, original)) {
            Some(None) => return self.failure(UpstreamError::TooLarge(RequestState::MAX_LENGTH)),
            ours => ours.flatten(),
        };
        let asked = rewrite::result_for_modern(response, self.lease.id(), Era::Modern, ours.as_deref(), None);
        Outgoing::Response(asked, None)
    }

    /// The response to a call that its server answers with an error.
    fn server_error(&self, answer: &Answer, response: &Envelope, error: ErrorObject) -> Outgoing {
        match error.code {
            // Perhaps the tool is gone.
            code::INVALID_PARAMS => answer.upstream().refresh_soon(),
            code::METHOD_NOT_FOUND => answer.upstream().doubt(),
            _ => {}
        }
        match (error.code, answer.era(), &self.client) {
            (code::METHOD_NOT_FOUND, ..) if self.operation == Operation::Complete => {
                self.own_result(br#""completion":{"values":[]}"#)
            }
            (code::METHOD_NOT_FOUND, ..) => {
                let unknown = GatewayError::Unknown(self.subject.clone()).to_string();
                self.error(&ErrorObject::new(code::INVALID_PARAMS, unknown))
            }
            (code::RESOURCE_NOT_FOUND, _, client) if self.operation == Operation::Read => {
                let code = match client.era() {
                    Era::Legacy => code::RESOURCE_NOT_FOUND,
                    Era::Modern => code::INVALID_PARAMS,
                };
                self.not_found(ErrorObject { code, ..error })
            }
            (code::INVALID_PARAMS, Era::Modern, Client::Legacy(..))
                if self.operation == Operation::Read && names_uri(&error) =>
            {
                self.not_found(ErrorObject { code: code::RESOURCE_NOT_FOUND, ..error })
            }
            (code::MISSING_CAPABILITY, Era::Modern, Client::Modern(_)) => self.passed_on(response, error),
            (code::MISSING_CAPABILITY, Era::Modern, Client::Legacy(..)) => self.told(&error),
            (code::URL_ELICITATION_REQUIRED, Era::Legacy, client) => match client {
                Client::Legacy(ProtocolVersion::V2025_11_25, can, _) if can.opens_urls() => {
                    self.passed_on(response, error)
                }
                Client::Legacy(..) => self.told(&error),
                Client::Modern(_) => {
                    let needed = Bytes::from_static(br#"{"requiredCapabilities":{"elicitation":{"url":{}}}}"#);
                    self.error(&ErrorObject { code: code::MISSING_CAPABILITY, data: Some(needed), ..error })
                }
            },
            (number, ..) if PRIVATE_CODES.contains(&number) => {
                self.report("server answered with an error of its own", &error);
                self.error(&ErrorObject::new(code::INTERNAL_ERROR, cut(&error.message, LONGEST_MESSAGE)))
            }
            _ => self.passed_on(response, error),
        }
    }

    /// The error for a resource that is not there, which says which one.
    fn not_found(&self, error: ErrorObject) -> Outgoing {
        let data = if names_uri(&error) { error.data } else { Some(data_of_uri(&self.subject.name)) };
        self.error(&ErrorObject { data, ..error })
    }

    /// A result of the gateway's own, given as its members.
    fn own_result(&self, members: &[u8]) -> Outgoing {
        let result = rewrite::own_result(self.lease.id(), self.client.era(), members);
        Outgoing::Response(vec![result.into()], None)
    }

    /// An error as the server wrote it.
    fn passed_on(&self, response: &Envelope, error: ErrorObject) -> Outgoing {
        if response.id().is_none() {
            return self.error(&error);
        }
        let spliced = Splice::new(response.bytes()).replace_if(response.id_span(), self.lease.id());
        Outgoing::Response(spliced.pieces(response.bytes()), Some(error.code))
    }

    /// An error that the client has no code for: as the result of a tool that failed, or as an internal one.
    fn told(&self, error: &ErrorObject) -> Outgoing {
        self.report("server answered with an error of its own", error);
        if self.operation != Operation::Call {
            return self.error(&ErrorObject::new(code::INTERNAL_ERROR, cut(&error.message, LONGEST_MESSAGE)));
        }
        let text = rewrite::text_block(cut(&error.message, LONGEST_MESSAGE));
        self.own_result(&[b"\"content\":[", text.as_slice(), b"],\"isError\":true"].concat())
    }

    /// The response to a call that failed without an answer: the log says why, the client as much as it may know.
    fn failure(&mut self, error: UpstreamError) -> Outgoing {
        self.slot.failed(&error);
        self.report("call failed", &error);
        let code = match error {
            UpstreamError::Removed | UpstreamError::Unmirrorable(_) => code::INVALID_PARAMS,
            _ => code::INTERNAL_ERROR,
        };
        let message = GatewayError::Upstream { subject: self.subject.clone(), error }.to_string();
        self.error(&ErrorObject::new(code, message))
    }

    /// The response to a call that the client may not make any more.
    fn withdrawn(&mut self, over: Over) -> Outgoing {
        self.slot.ended(Outcome::Withdrawn);
        self.report("call ended", &over);
        self.error(&ErrorObject::new(code::INTERNAL_ERROR, over.to_string()))
    }

    fn error(&self, error: &ErrorObject) -> Outgoing {
        Outgoing::Response(vec![error.to_message(Some(self.lease.id())).into()], Some(error.code))
    }

    fn report(&self, event: &str, reason: &dyn std::fmt::Display) {
        let upstream = &self.lease.sent().upstream;
        upstream.log().warn(event, |r| {
            r.text("req", self.request.as_str())
                .field(self.subject.kind.noun(), &self.subject.name)
                .field("server", upstream.id())
                .field("reason", reason);
        });
    }
}
