//! A stream on which a server says what belongs to no request, message by message.
//!
//! Source: MCP 2025-11-25, transports, "Listening for Messages from the Server"; MCP 2026-07-28, "Subscriptions".

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Response;
use hyper::body::Body as _;

use super::answer::content_type;
use super::channel::Channel;
use super::error::UpstreamError;
use crate::budget::{Full, Holding};
use crate::outbound::Incoming;
use crate::wire::jsonrpc::{Envelope, Sender};
use crate::wire::sse::{Decoder, Event};

/// Where a stream goes on after it has ended, as its server has said.
#[derive(Default)]
pub(super) struct Resume {
    /// The id of its last event that had one.
    pub(super) last: Option<String>,
    /// How long to wait.
    pub(super) retry: Option<Duration>,
}

/// A stream being read. There is no limit on how long it is silent.
pub(super) struct Stream {
    body: Incoming,
    decoder: Decoder,
    depth: usize,
    holding: Holding,
    pub(super) resume: Resume,
}

impl Stream {
    /// Takes over a 2xx response.
    ///
    /// # Errors
    /// [`UpstreamError::NotMcp`] if it is no event stream.
    pub(super) fn new(channel: &Channel, response: Response<Incoming>) -> Result<Self, UpstreamError> {
        let found = content_type(&response);
        if found != "text/event-stream" {
            return Err(UpstreamError::NotMcp(format!("expected an event stream, found `{found}`")));
        }
        let limits = &channel.settings.limits;
        let holding = channel.upstream.budget.hold(limits.buffered_bytes);
        let (decoder, depth) = (Decoder::new(limits.event_bytes), limits.json_depth);
        Ok(Self { body: response.into_body(), decoder, depth, holding, resume: Resume::default() })
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
            while let Some(event) = self.decoder.next_event()? {
                if let Some(message) = self.read(event)? {
                    return Poll::Ready(Ok(Some(message)));
                }
            }
            self.holding.resize(self.decoder.held()).map_err(|Full| UpstreamError::NoRoom)?;
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => {
                    if let Ok(chunk) = frame?.into_data() {
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
