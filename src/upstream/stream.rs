//! A stream on which a server says what belongs to no request, message by message.
//!
//! Source: MCP 2025-11-25, transports, "Listening for Messages from the Server"; MCP 2026-07-28, "Subscriptions".

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Response;
use hyper::body::Body as _;
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer::content_type;
use super::channel::Channel;
use super::error::UpstreamError;
use super::legacy::Tenant;
use crate::budget::{Full, Holding};
use crate::outbound::Incoming;
use crate::wire::jsonrpc::{Envelope, Sender};
use crate::wire::sse::{Decoder, Event};

/// Bytes of an event to the gateway itself, which only wants to hear that lists have changed.
const OWN_EVENT: usize = 1024 * 1024;
/// The part of all buffers that events may fill which come in on such streams: one in so many. There is no limit on how
/// long that takes, and it must not leave calls without room.
const SHARE: usize = 4;
/// What a server can say on one stream in each [`SPELL`]; the rest has to wait, so that it does not keep others waiting.
const MOST_EVENTS: usize = 256;
const MOST_BYTES: usize = 1024 * 1024;
const SPELL: Duration = Duration::from_millis(100);

/// Where a stream goes on after it has ended, as its server has said.
#[derive(Default)]
pub(super) struct Resume {
    /// The id of its last event that had one.
    pub(super) last: Option<String>,
    /// How long to wait.
    pub(super) retry: Option<Duration>,
}

/// How much a stream has brought lately.
struct Pace {
    since: Instant,
    events: usize,
    bytes: usize,
    /// Ends the rest after too much; made when first needed.
    rest: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), events: 0, bytes: 0, rest: None }
    }

    fn count(&mut self, events: usize, bytes: usize) {
        if self.since.elapsed() >= SPELL {
            (self.since, self.events, self.bytes) = (Instant::now(), 0, 0);
        }
        self.events += events;
        self.bytes += bytes;
    }

    /// Ready when more may be read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.events < MOST_EVENTS && self.bytes < MOST_BYTES {
            return Poll::Ready(());
        }
        let until = self.since + SPELL;
        let rest = self.rest.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(rest.as_mut().poll(cx));
        *self = Self::new();
        Poll::Ready(())
    }
}

/// A stream being read. There is no limit on how long it is silent.
pub(super) struct Stream {
    body: Incoming,
    pace: Pace,
    decoder: Decoder,
    depth: usize,
    holding: Holding,
    pub(super) resume: Resume,
}

impl Stream {
    /// Takes over a 2xx response to this tenant.
    ///
    /// # Errors
    /// [`UpstreamError::NotMcp`] if it is no event stream.
    pub(super) fn new(channel: &Channel, tenant: &Tenant, response: Response<Incoming>) -> Result<Self, UpstreamError> {
        let found = content_type(&response);
        if found != "text/event-stream" {
            return Err(UpstreamError::NotMcp(format!("expected an event stream, found `{found}`")));
        }
        let limits = &channel.settings.limits;
        let most = match tenant {
            Tenant::Catalogue => limits.event_bytes.min(OWN_EVENT),
            Tenant::Client { .. } => limits.event_bytes,
        };
        let holding = channel.upstream.budget.hold(limits.buffered_bytes / SHARE);
        let (body, pace, decoder) = (response.into_body(), Pace::new(), Decoder::new(most));
        Ok(Self { body, pace, decoder, depth: limits.json_depth, holding, resume: Resume::default() })
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// What [`poll_next`](Self::poll_next) fails with.
    pub(super) async fn next(&mut self) -> Result<Option<Envelope>, UpstreamError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for whoever waits for something else, too.
    ///
    /// # Errors
    /// [`UpstreamError`] if the stream breaks or has something else than messages.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Envelope>, UpstreamError>> {
        loop {
            ready!(self.pace.poll(cx));
            if let Some(event) = self.decoder.next_event()? {
                self.pace.count(1, 0);
                match self.read(event)? {
                    Some(message) => return Poll::Ready(Ok(Some(message))),
                    None => continue,
                }
            }
            self.holding.resize(self.decoder.held()).map_err(|Full| UpstreamError::NoRoom)?;
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => {
                    if let Ok(chunk) = frame?.into_data() {
                        self.pace.count(0, chunk.len());
                        self.decoder.feed(chunk);
                    }
                }
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// The message of an event, if it has one.
    fn read(&mut self, event: Event) -> Result<Option<Envelope>, UpstreamError> {
        if let Some(retry) = event.retry {
            self.resume.retry = Some(Duration::from_millis(retry));
        }
        let is_message = event.is_message();
        if let Some(id) = event.id {
            self.resume.last = Some(id).filter(|id| !id.is_empty());
        }
        if !is_message {
            return Ok(None);
        }
        let message = Envelope::parse(event.data, self.depth, Sender::Server);
        message.map(Some).map_err(|e| UpstreamError::NotMcp(format!("expected a JSON-RPC message: {e}")))
    }
}
