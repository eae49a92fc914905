//! One `tools/call` from its permit to its response.
//!
//! The answer comes back with the client's id and progress token; nothing else is touched.
//! Source: protocol.md 2.4, 4.2, 4.6.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::runtime::Handle;

use super::lease::{Lease, Over};
use super::session::Running;
use super::{ClientSlot, Gateway, GatewayError, Session, Snapshot};
use crate::budget::Full;
use crate::log::{Log, cut};
use crate::metrics::Held;
use crate::outbound::Client;
use crate::policy::{Caller, ServerId};
use crate::upstream::{Answer, CallSlot, Message, Outcome, Tenant, Upstream, UpstreamError};
use crate::wire::jsonrpc::{Envelope, ErrorObject, Meta, Param, is_id, is_number};
use crate::wire::mcp::{code, method};
use crate::wire::splice::Splice;

/// Codes of JSON-RPC servers' own making without a shared meaning; they stay between gateway and server.
const PRIVATE_CODES: std::ops::RangeInclusive<i64> = -32019..=-32000;

/// Bytes of a server's text that go into an error of ours.
const LONGEST_MESSAGE: usize = 1024;

/// A client's request to call a tool.
pub struct Request {
    /// Names the request in the log.
    pub id: String,
    /// The policy under which the request is served, to its end.
    pub snapshot: Snapshot,
    /// Who calls.
    pub caller: Caller,
    /// Since when, since the epoch.
    pub now: Duration,
    /// In which session.
    pub session: Session,
    /// The message.
    pub envelope: Envelope,
}

/// What goes to the client.
#[derive(Debug)]
pub enum Outgoing {
    /// A notification that belongs to the call.
    Notification(Vec<u8>),
    /// The response; nothing follows. The code is that of its error, if it is one.
    Response(Vec<u8>, Option<i64>),
}

impl Gateway {
    /// Starts to call a tool. `found` hears which server the call goes to.
    ///
    /// # Errors
    /// [`GatewayError`] if there is no such tool for the client, or no room for another call.
    pub async fn call(
        &self,
        http: &Client,
        request: Request,
        found: impl FnOnce(&ServerId),
    ) -> Result<Relay, GatewayError> {
        let envelope = &request.envelope;
        let name = envelope.param_text(Param::Name).ok_or(GatewayError::InvalidParams("expected a string `name`"))?;
        if envelope.meta(Meta::ProgressToken).is_some_and(|token| !is_id(token)) {
            return Err(GatewayError::InvalidParams("expected a `progressToken` that is a string or an integer"));
        }
        let client = request.caller.client().clone();
        let view = self.view_with(&request.snapshot, &client, &name).await;
        let entry = view.tool(&name).ok_or_else(|| GatewayError::UnknownTool(name.to_string()))?;
        found(entry.upstream.id());
        let most = request.snapshot.registry().settings().limits.buffered_bytes;
        self.budget().admit(most).map_err(|Full| GatewayError::Full)?;
        let client_slot = self.client_slot(&request.snapshot, &client);
        let client_slot = client_slot.ok_or(GatewayError::Overloaded("client"))?;
        let call_slot = entry.upstream.call_slot(&client).ok_or(GatewayError::Overloaded("server"))?;
        let (upstream, permit, http) = (Arc::clone(&entry.upstream), entry.permit.clone(), http.clone());
        let id = Bytes::copy_from_slice(envelope.id().unwrap_or(b"null"));
        let call = Call {
            id: id.clone(),
            sent: Sent {
                upstream: Arc::clone(&upstream),
                http: http.clone(),
                tenant: request.session.tenant(&client),
                id: upstream.next_id(),
            },
            cancellable: request.session.begin(id),
            lease: Lease::new(Arc::clone(&client_slot.0), request.caller, permit.clone(), request.now),
            token: envelope.meta(Meta::ProgressToken).map(Bytes::copy_from_slice),
            tool: name.into_owned(),
            request: request.id,
            log: self.log.clone(),
            slot: call_slot,
            _held: (client_slot, self.calls.hold(), request.session),
        };
        let newest = self.snapshot();
        if newest.generation() != request.snapshot.generation() {
            // What was taken away while the call was being prepared was not taken from this call yet.
            call.lease.review(newest.registry());
        }
        let (tenant, own_id, envelope) = (call.sent.tenant.clone(), call.sent.id, request.envelope);
        let sending = Box::pin(async move { upstream.call(&http, &permit, &tenant, own_id, &envelope).await });
        Ok(Relay { running: Some((call, Progress::Sending(sending))) })
    }
}

/// What is known of a call from its beginning to its end.
struct Call {
    /// The client's id, as it wrote it.
    id: Bytes,
    /// The client's progress token, as it wrote it.
    token: Option<Bytes>,
    tool: String,
    /// The request as the server knows it.
    sent: Sent,
    /// How the client can call it off, if it has a session.
    cancellable: Option<Running>,
    /// What ends it when client, token or grant are taken away.
    lease: Lease,
    request: String,
    log: Log,
    /// What the call counts as at its server, and how it ended.
    slot: CallSlot,
    /// What the call counts as while it runs.
    _held: (ClientSlot, Held, Session),
}

/// A request as a server knows it.
struct Sent {
    upstream: Arc<Upstream>,
    http: Client,
    tenant: Tenant,
    id: u64,
}

impl Sent {
    /// Tells the server that nobody waits for the response any more.
    fn cancel(&self) {
        self.upstream.cancel(&self.http, &self.tenant, self.id);
    }
}

/// How far a call has got.
enum Progress {
    /// The server has not begun to answer.
    Sending(Pin<Box<dyn Future<Output = Result<Answer, UpstreamError>> + Send>>),
    Answering(Box<Answer>),
}

/// A call and its answer. Dropped before its response, it goes on without a listener, as the legacy era wants it.
pub struct Relay {
    running: Option<(Call, Progress)>,
}

impl Relay {
    /// The next message for the client; `None` after the response, and when the client has called the request off.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let Some((call, progress)) = self.running.as_mut() else { return Poll::Ready(None) };
        if call.cancellable.as_ref().is_some_and(|running| running.poll_cancelled(cx).is_ready()) {
            // A request that was called off gets no response.
            call.sent.cancel();
            self.running = None;
            return Poll::Ready(None);
        }
        let outgoing = ready!(call.poll_next(progress, cx));
        if let Outgoing::Response(..) = outgoing {
            self.running = None;
        }
        Poll::Ready(Some(outgoing))
    }

    /// Ends the relay with an error instead of the answer, which goes on without a listener.
    pub fn cut_off(&mut self, why: &str) -> Option<Outgoing> {
        let (call, _) = self.running.as_ref()?;
        let response = call.error(&ErrorObject::new(code::INTERNAL_ERROR, why));
        self.detach();
        Some(response)
    }

    fn detach(&mut self) {
        if let (Some((mut call, mut progress)), Ok(runtime)) = (self.running.take(), Handle::try_current()) {
            runtime.spawn(async move {
                while let Outgoing::Notification(_) = poll_fn(|cx| call.poll_next(&mut progress, cx)).await {}
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
    fn poll_next(&mut self, progress: &mut Progress, cx: &mut Context<'_>) -> Poll<Outgoing> {
        if let Poll::Ready(over) = self.lease.poll_over(cx) {
            self.sent.cancel();
            return Poll::Ready(self.withdrawn(over));
        }
        loop {
            let answer = match progress {
                Progress::Answering(answer) => answer,
                Progress::Sending(sending) => match ready!(sending.as_mut().poll(cx)) {
                    Ok(answer) => {
                        *progress = Progress::Answering(Box::new(answer));
                        continue;
                    }
                    Err(error) => return Poll::Ready(self.failure(error)),
                },
            };
            let settled = match ready!(answer.poll_message(cx)) {
                Ok(Message::Response(response)) => return Poll::Ready(self.response(answer, &response)),
                Ok(Message::Notification(notification)) => {
                    if let Some(message) = self.notification(answer, &notification) {
                        return Poll::Ready(Outgoing::Notification(message));
                    }
                    Ok(())
                }
                // Nothing can be asked of a legacy client here, and it declared nothing that it could be asked for.
                Ok(Message::Request(request)) => answer.refuse(&request),
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                return Poll::Ready(self.failure(error));
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
            method::MESSAGE => Some(notification.bytes().to_vec()),
            method::TOOLS_CHANGED => {
                answer.upstream().refresh_soon();
                None
            }
            _ => None,
        }
    }

    /// A response as the client gets it (protocol.md 4.6).
    fn response(&mut self, answer: &Answer, response: &Envelope) -> Outgoing {
        let error = response.error();
        self.slot.ended(if error.is_some() { Outcome::Error } else { Outcome::Result });
        if let Some(error) = &error {
            if matches!(error.code, code::METHOD_NOT_FOUND | code::INVALID_PARAMS) {
                // Perhaps the tool is gone.
                answer.upstream().refresh_soon();
            }
            if error.code == code::METHOD_NOT_FOUND {
                let unknown = GatewayError::UnknownTool(self.tool.clone()).to_string();
                return self.error(&ErrorObject::new(code::INVALID_PARAMS, unknown));
            }
            if PRIVATE_CODES.contains(&error.code) {
                self.report("server answered with an error of its own", error);
                return self.error(&ErrorObject::new(code::INTERNAL_ERROR, cut(&error.message, LONGEST_MESSAGE)));
            }
        }
        match response.id() {
            Some(_) => {
                let spliced = Splice::new(response.bytes()).replace_if(response.id_span(), &self.id).build();
                Outgoing::Response(spliced, error.map(|e| e.code))
            }
            None => self.error(&error.unwrap_or_else(|| ErrorObject::new(code::INTERNAL_ERROR, "unreadable error"))),
        }
    }

    /// The response to a call that failed without an answer: the log says why, the client as much as it may know.
    fn failure(&mut self, error: UpstreamError) -> Outgoing {
        self.slot.failed(&error);
        self.report("call failed", &error);
        let code = match error {
            UpstreamError::Removed => code::INVALID_PARAMS,
            _ => code::INTERNAL_ERROR,
        };
        let message = GatewayError::Upstream { tool: self.tool.clone(), error }.to_string();
        self.error(&ErrorObject::new(code, message))
    }

    /// The response to a call that the client may not make any more.
    fn withdrawn(&mut self, over: Over) -> Outgoing {
        self.slot.ended(Outcome::Withdrawn);
        self.report("call ended", &over);
        self.error(&ErrorObject::new(code::INTERNAL_ERROR, over.to_string()))
    }

    fn error(&self, error: &ErrorObject) -> Outgoing {
        Outgoing::Response(error.to_message(Some(&self.id)), Some(error.code))
    }

    fn report(&self, event: &str, reason: &dyn std::fmt::Display) {
        self.log.warn(event, |r| {
            r.field("req", &self.request)
                .field("tool", &self.tool)
                .field("server", self.sent.upstream.id())
                .field("reason", reason);
        });
    }
}
