//! One `tools/call` from its permit to its response.
//!
//! The request goes to the server with our own id and progress token, and the tool's own name; the answer comes back
//! with the client's. Nothing else is touched. Source: protocol.md 2.4, 4.2, 4.6.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use tokio::runtime::Handle;

use super::{ClientSlot, Gateway, GatewayError, Session, Snapshot};
use crate::log::Log;
use crate::outbound::Client;
use crate::policy::{ClientId, ServerId};
use crate::upstream::{Answer, Message, Slot, UpstreamError};
use crate::wire::json::write_text;
use crate::wire::jsonrpc::{Envelope, ErrorObject, Meta, Param, is_id, is_number};
use crate::wire::mcp::{code, method};
use crate::wire::splice::Splice;

/// Codes of JSON-RPC servers' own making without a shared meaning; they stay between gateway and server.
const PRIVATE_CODES: std::ops::RangeInclusive<i64> = -32019..=-32000;

/// A client's request to call a tool.
pub struct Request {
    /// The policy under which the request is served, to its end.
    pub snapshot: Snapshot,
    /// Who calls.
    pub client: ClientId,
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
    /// The response; nothing follows. The error says why the call failed, for the records.
    Response(Vec<u8>, Option<ErrorObject>),
}

impl Gateway {
    /// Calls a tool. A caller that stops waiting does not stop the call: it runs to its end, as the legacy era wants it.
    ///
    /// `found` hears which server the call goes to.
    ///
    /// # Errors
    /// [`GatewayError`] if the call could not be made or was not answered.
    pub async fn call(
        self: &Arc<Self>,
        http: &Client,
        request: Request,
        found: impl FnOnce(&ServerId),
    ) -> Result<Relay, GatewayError> {
        let envelope = &request.envelope;
        let name = envelope.param_text(Param::Name).ok_or(GatewayError::InvalidParams("expected a string `name`"))?;
        if envelope.meta(Meta::ProgressToken).is_some_and(|token| !is_id(token)) {
            return Err(GatewayError::InvalidParams("expected a `progressToken` that is a string or an integer"));
        }
        let unknown = || GatewayError::UnknownTool(name.to_string());
        let view = self.view(&request.snapshot, &request.client).await;
        let entry = view.tool(&name).ok_or_else(unknown)?;
        found(entry.upstream.id());
        let client_slot = self.client_slot(&request.snapshot, &request.client);
        let client_slot = client_slot.ok_or(GatewayError::Overloaded("client"))?;
        let server_slot = entry.upstream.slot().ok_or(GatewayError::Overloaded("server"))?;
        let own_name = entry.is_renamed().then(|| {
            let mut text = Vec::new();
            write_text(&mut text, entry.permit.name());
            text
        });
        let tool = name.into_owned();
        let (upstream, permit) = (Arc::clone(&entry.upstream), entry.permit.clone());
        let tenant = request.session.tenant(&request.client);
        let (http, log, envelope) = (http.clone(), self.log.clone(), request.envelope);
        let work = async move {
            let rewritten = |id| rewrite(&envelope, id, own_name.as_deref());
            let sent = upstream.call(&http, &permit, &tenant, rewritten).await;
            let answer = sent.map_err(|error| failure(&log, &tool, upstream.id(), error))?;
            let id = Bytes::copy_from_slice(envelope.id().unwrap_or(b"null"));
            let token = envelope.meta(Meta::ProgressToken).map(Bytes::copy_from_slice);
            Ok(Relay { running: Some(Running { answer, id, token, tool, log, _slots: (client_slot, server_slot) }) })
        };
        Detached(Some(Box::pin(work))).await
    }
}

/// The request as the server gets it.
fn rewrite(envelope: &Envelope, id: u64, own_name: Option<&[u8]>) -> Vec<u8> {
    let id = id.to_string();
    let splice = Splice::new(envelope.bytes())
        .replace_if(envelope.id_span(), id.as_bytes())
        .replace_if(envelope.meta_span(Meta::ProgressToken), id.as_bytes());
    match own_name {
        Some(name) => splice.replace_if(envelope.param_span(Param::Name), name).build(),
        None => splice.build(),
    }
}

/// A call that failed without an answer: the log says why, the client as much as it may know.
fn failure(log: &Log, tool: &str, server: &ServerId, error: UpstreamError) -> GatewayError {
    log.warn("call failed", |r| _ = r.field("tool", tool).field("server", server).field("reason", &error));
    GatewayError::Upstream { tool: tool.to_owned(), error }
}

/// A future that is finished in a task of its own when whoever waits for it goes away.
struct Detached<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(work) = self.0.as_mut() else { return Poll::Pending };
        let done = ready!(work.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

/// A call being answered. Dropped before its response, it goes on without a listener.
pub struct Relay {
    running: Option<Running>,
}

struct Running {
    answer: Answer,
    /// The client's id, as it wrote it.
    id: Bytes,
    /// The client's progress token, as it wrote it.
    token: Option<Bytes>,
    tool: String,
    log: Log,
    _slots: (ClientSlot, Slot),
}

impl Relay {
    /// The next message for the client; `None` after the response.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let Some(running) = self.running.as_mut() else { return Poll::Ready(None) };
        let outgoing = ready!(running.poll_next(cx));
        if let Outgoing::Response(..) = outgoing {
            self.running = None;
        }
        Poll::Ready(Some(outgoing))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let (Some(mut running), Ok(runtime)) = (self.running.take(), Handle::try_current()) {
            runtime.spawn(async move {
                while let Outgoing::Notification(_) = std::future::poll_fn(|cx| running.poll_next(cx)).await {}
            });
        }
    }
}

impl Running {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Outgoing> {
        loop {
            match ready!(self.answer.poll_message(cx)) {
                Ok(Message::Response(response)) => return Poll::Ready(self.response(&response)),
                Ok(Message::Notification(notification)) => {
                    if let Some(message) = self.notification(&notification) {
                        return Poll::Ready(Outgoing::Notification(message));
                    }
                }
                Err(error) => {
                    let error = failure(&self.log, &self.tool, self.answer.upstream().id(), error);
                    return Poll::Ready(self.error(ErrorObject::new(code::INTERNAL_ERROR, error.to_string())));
                }
            }
        }
    }

    /// A notification as the client gets it, if it is one for the client.
    fn notification(&self, notification: &Envelope) -> Option<Vec<u8>> {
        match notification.method()?.as_ref() {
            method::PROGRESS => {
                let own = is_number(notification.param(Param::ProgressToken)?, self.answer.id());
                let token = self.token.as_deref().filter(|_| own)?;
                let span = notification.param_span(Param::ProgressToken);
                Some(Splice::new(notification.bytes()).replace_if(span, token).build())
            }
            method::MESSAGE => Some(notification.bytes().to_vec()),
            method::TOOLS_CHANGED => {
                self.answer.upstream().refresh_soon();
                None
            }
            _ => None,
        }
    }

    fn response(&self, response: &Envelope) -> Outgoing {
        if let Some(error) = response.error() {
            return self.error(self.translated(error));
        }
        let spliced = Splice::new(response.bytes()).replace_if(response.id_span(), &self.id).build();
        Outgoing::Response(spliced, None)
    }

    fn error(&self, error: ErrorObject) -> Outgoing {
        Outgoing::Response(error.to_message(Some(&self.id)), Some(error))
    }

    /// An error of the server as the client gets it (protocol.md 4.6).
    fn translated(&self, error: ErrorObject) -> ErrorObject {
        if matches!(error.code, code::METHOD_NOT_FOUND | code::INVALID_PARAMS) {
            // Perhaps the tool is gone.
            self.answer.upstream().refresh_soon();
        }
        let error_log = |what: &'static str| {
            let server = self.answer.upstream().id();
            self.log.warn(what, |r| {
                r.field("tool", &self.tool)
                    .field("server", server)
                    .field("code", error.code)
                    .field("reason", &error.message);
            });
        };
        match error.code {
            code::METHOD_NOT_FOUND => {
                ErrorObject::new(code::INVALID_PARAMS, GatewayError::UnknownTool(self.tool.clone()).to_string())
            }
            private if PRIVATE_CODES.contains(&private) => {
                error_log("server answered with an error of its own");
                ErrorObject { code: code::INTERNAL_ERROR, ..error }
            }
            _ => error,
        }
    }
}
