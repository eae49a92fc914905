//! A request that was passed on, and its answer: message by message as it arrives, with the client's id and progress
//! token, until the response.
//!
//! Source: protocol.md 2.3, 2.4, 4.2.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::runtime::Handle;

use super::Subject;
use super::bridge::Bridge;
use super::flight::{Lease, Over, Sent};
use super::park;
use super::repeat::Repeatable;
use super::task::Tasks;
use crate::log::RequestId;
use crate::metrics::Held;
use crate::upstream::{Answer, CallSlot, Message, Parting, UpstreamError};
use crate::wire::changes::Change;
use crate::wire::jsonrpc::{Envelope, ErrorObject, Param, is_number};
use crate::wire::mcp::{ClientCapabilities, Era, LogLevel, Operation, ProtocolVersion, code, method};
use crate::wire::seal::Sealer;
use crate::wire::splice::Splice;

/// What goes to the client.
#[derive(Debug)]
pub enum Outgoing {
    /// A notification that belongs to the request, or something that its server asks the client.
    Message(Vec<u8>),
    /// The response, in pieces that follow one another; nothing comes after it. The code is that of its error, if it is one.
    Response(Vec<Bytes>, Option<i64>),
}

/// The client of a call, as far as that decides what it is answered.
pub(super) enum Client {
    /// The revision it knows, what it can be asked for, and from which level on it wants log messages, if it has said so.
    Legacy(ProtocolVersion, ClientCapabilities, Option<LogLevel>),
    Modern(Box<Modern>),
}

impl Client {
    pub(super) fn era(&self) -> Era {
        match self {
            Self::Legacy(..) => Era::Legacy,
            Self::Modern(_) => Era::Modern,
        }
    }

    /// What it can be asked for.
    pub(super) fn capabilities(&self) -> ClientCapabilities {
        match self {
            Self::Legacy(_, capabilities, _) => *capabilities,
            Self::Modern(client) => client.capabilities,
        }
    }
}

/// What has to be known of a modern client.
pub(super) struct Modern {
    /// From which level on it wants log messages.
    pub(super) level: Option<LogLevel>,
    /// What it can be asked for.
    pub(super) capabilities: ClientCapabilities,
    /// What the server may want to see again.
    pub(super) repeatable: Repeatable,
    pub(super) states: Arc<Sealer>,
    /// What tasks have to do with its request.
    pub(super) tasks: Tasks,
}

/// What is known of a call from its beginning to its end.
pub(super) struct Call {
    pub(super) client: Client,
    /// The client's progress token, as it wrote it.
    pub(super) token: Option<Bytes>,
    pub(super) operation: Operation,
    /// What it is about, as the client names it.
    pub(super) subject: Subject,
    /// For how long a result may do that may be kept.
    pub(super) longest: Duration,
    /// What it was begun with, and what ends it before its answer.
    pub(super) lease: Lease,
    pub(super) request: RequestId,
    /// What the call counts as at its server, and how it ended.
    pub(super) slot: CallSlot,
    /// What passes on what the server asks the client; only where that can be asked something, or its modern server may want
    /// to be asked again.
    pub(super) bridge: Option<Box<Bridge>>,
    /// What the call counts as while it runs.
    pub(super) _held: Held,
}

/// A request on its way to a server that has not begun to answer.
pub(super) type Sending = Pin<Box<dyn Future<Output = Result<Box<Answer>, UpstreamError>> + Send>>;

/// How far a call has got.
pub(super) enum Progress {
    /// The server has not begun to answer.
    Sending(Sending),
    Answering(Box<Answer>),
    /// Nothing is under way: a modern server waits to be asked once more, or the call is over.
    Nothing,
}

/// A call and how far it has got. Boxed, because it is handed on many times.
pub(super) type Running = Box<(Call, Progress)>;

/// A call and its answer. Dropped before its response, a legacy client's call goes on without a listener, and a modern
/// client's is called off, as their eras want it.
pub struct Relay {
    running: Option<Running>,
}

impl Relay {
    pub(super) fn new(call: Call, progress: Progress) -> Self {
        Self { running: Some(Box::new((call, progress))) }
    }

    /// Goes on with a call that was begun before.
    pub(super) fn of(running: Running) -> Self {
        Self { running: Some(running) }
    }

    /// The next message for the client; `None` after the response, and when the client has called the request off.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let Some((call, progress)) = self.running.as_deref_mut() else { return Poll::Ready(None) };
        let outgoing = ready!(call.poll_next(progress, cx));
        if let None | Some(Outgoing::Response(..)) = outgoing
            && let Some(running) = self.running.take_if(|running| running.0.is_parked())
        {
            park::keep(running);
        }
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
            let (call, progress) = &mut *running;
            if let Client::Modern(_) = call.client {
                return call.abandon(progress);
            }
            call.nobody_listens();
            runtime.spawn(async move {
                let (call, progress) = &mut *running;
                while let Some(Outgoing::Message(_)) = poll_fn(|cx| call.poll_next(progress, cx)).await {}
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
    /// The next message for the client; `None` if it has called the request off, which gets no response then.
    fn poll_next(&mut self, progress: &mut Progress, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if let Poll::Ready(over) = self.lease.poll_over(cx) {
            return Poll::Ready(self.end(progress, over));
        }
        loop {
            if self.bridge.is_some()
                && let Poll::Ready(outgoing) = self.poll_bridge(progress, cx)
            {
                return Poll::Ready(Some(outgoing));
            }
            let answer = match progress {
                Progress::Answering(answer) => answer,
                Progress::Sending(sending) => match ready!(sending.as_mut().poll(cx)) {
                    Ok(answer) => {
                        *progress = Progress::Answering(answer);
                        continue;
                    }
                    Err(error) => {
                        *progress = Progress::Nothing;
                        return Poll::Ready(Some(self.failed(progress, error)));
                    }
                },
                Progress::Nothing => return Poll::Pending,
            };
            let settled = match ready!(answer.poll_message(cx)) {
                Ok(Message::Response(response)) => match self.response(answer, &response) {
                    Some(outgoing) => return Poll::Ready(Some(outgoing)),
                    None => {
                        *progress = Progress::Nothing;
                        continue;
                    }
                },
                Ok(Message::Notification(notification)) => {
                    if let Some(message) = self.notification(answer.id(), &notification) {
                        return Poll::Ready(Some(Outgoing::Message(message)));
                    }
                    Ok(())
                }
                Ok(Message::Request(request)) => self.asked(answer, &request),
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                return Poll::Ready(Some(self.failed(progress, error)));
            }
        }
    }

    /// Ends the call that gets no answer.
    fn failed(&mut self, progress: &mut Progress, error: UpstreamError) -> Outgoing {
        self.abandon(progress);
        self.failure(error)
    }

    /// Ends the call before its answer.
    fn end(&mut self, progress: &mut Progress, over: Over) -> Option<Outgoing> {
        if over == Over::CalledOff
            && let Some(message) = self.take_back(progress)
        {
            return Some(Outgoing::Message(message));
        }
        self.abandon(progress);
        (over != Over::CalledOff).then(|| self.withdrawn(over))
    }

    /// Ends what the server does for the call: what it has asked is answered as nobody would, and then it hears that nobody
    /// waits for the response. Once is enough.
    pub(super) fn abandon(&mut self, progress: &mut Progress) {
        let progress = std::mem::replace(progress, Progress::Nothing);
        let mut parting = self.bridge.as_mut().map_or_else(Parting::default, |bridge| bridge.answer_nothing());
        match &progress {
            Progress::Answering(answer) => parting.call_off(answer),
            Progress::Sending(_) => {
                let Sent { upstream, tenant, id, .. } = self.lease.sent();
                parting.call_off_unanswered(upstream, tenant, *id, self.slot.age());
            }
            Progress::Nothing => {}
        }
        parting.send();
    }

    /// A notification as the client gets it, if it is one for the client. The request was sent under this id.
    pub(super) fn notification(&mut self, id: u64, notification: &Envelope) -> Option<Vec<u8>> {
        match notification.method()?.as_ref() {
            method::PROGRESS => {
                let own = is_number(notification.param(Param::ProgressToken)?, id);
                let token = self.token.as_deref().filter(|_| own)?;
                let span = notification.param_span(Param::ProgressToken);
                Some(Splice::new(notification.bytes()).replace_if(span, token).build())
            }
            method::MESSAGE => self.wants(notification).then(|| notification.bytes().to_vec()),
            method::CANCELLED => {
                self.question_withdrawn(notification);
                None
            }
            method::ELICITATION_COMPLETE => match &self.client {
                Client::Legacy(ProtocolVersion::V2025_11_25, can, _) if can.opens_urls() => {
                    Some(notification.bytes().to_vec())
                }
                _ => None,
            },
            other => {
                if Change::of(other).is_some() {
                    self.lease.sent().upstream.told();
                } else if other == method::RESOURCE_UPDATED {
                    let sent = self.lease.sent();
                    sent.upstream.heard(&sent.tenant, notification);
                }
                None
            }
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
}
