//! An event stream that ends before the response, taken up again.
//!
//! A legacy server that gives its events ids may close a stream whenever it likes, and has the rest ready for a GET that
//! says which event came last. How long the client waits before that is the server's to say.
//! Source: MCP 2025-11-25, transports, "Resumability and Redelivery"; protocol.md 1.8, 3.5.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Method, Response};

use super::answer::content_type;
use super::channel::{Channel, Dialect};
use super::error::UpstreamError;
use super::request::Outbound;
use crate::alarm::Alarm;
use crate::outbound::{Incoming, OutboundError};
use crate::wire::sse::Event;

/// How long the first wait is if the server says nothing of it; each after that is half as long again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest of these.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// The shortest wait, whatever the server says: one that closes every stream at once would be asked without end.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait, whatever the server says; no call takes as long.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Attempts in a row that may bring nothing.
const FRUITLESS: u32 = 2;

/// Where a stream goes on, and how far the attempts at that have got.
pub(super) struct Resumption {
    /// The id that came last; nothing if the server has taken it back, or it cannot be sent.
    last_id: Option<HeaderValue>,
    /// How long the server wants to be left alone, if it has said so.
    retry: Option<Duration>,
    /// How long it is left alone otherwise.
    backoff: Duration,
    /// Attempts since something came.
    fruitless: u32,
    state: State,
}

enum State {
    /// The stream is read.
    Reading,
    /// The server is left alone.
    Waiting(Alarm),
    /// The server is asked for the rest.
    Asking(Pin<Box<dyn Future<Output = Result<Response<Incoming>, OutboundError>> + Send>>),
}

/// What comes next.
pub(super) enum Step {
    /// The server is left alone for so long.
    Wait(Duration),
    /// The stream goes on in this body.
    Read(Incoming),
}

impl Default for Resumption {
    fn default() -> Self {
        Self { last_id: None, retry: None, backoff: FIRST_WAIT, fruitless: 0, state: State::Reading }
    }
}

impl Resumption {
    /// Notes what an event says of where the stream goes on, and takes it out of the event.
    pub(super) fn note(&mut self, event: &mut Event) {
        if !event.data.is_empty() {
            self.backoff = FIRST_WAIT;
        }
        if !event.data.is_empty() || event.id.is_some() {
            self.fruitless = 0;
        }
        if let Some(id) = event.id.take() {
            self.last_id = HeaderValue::try_from(id).ok().filter(|id| !id.is_empty());
        }
        self.retry = event.retry.map(Duration::from_millis).or(self.retry);
    }

    /// Whether there is anything from where the stream could go on.
    pub(super) fn is_possible(&self) -> bool {
        self.last_id.is_some()
    }

    /// Goes on with taking up a stream that has ended.
    ///
    /// # Errors
    /// [`UpstreamError::Ended`] if there is nothing from where it could go on, the server refuses that, or it has led to
    /// nothing twice.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        channel: &Channel,
        dialect: &Dialect,
    ) -> Poll<Result<Step, UpstreamError>> {
        loop {
            self.state = match &mut self.state {
                State::Reading => {
                    let wait = self.next_wait()?;
                    self.state = State::Waiting(channel.http.alarms().after(wait));
                    return Poll::Ready(Ok(Step::Wait(wait)));
                }
                State::Waiting(alarm) => {
                    ready!(alarm.poll(cx));
                    self.ask(channel.clone(), dialect.clone())?
                }
                State::Asking(asked) => {
                    let response = ready!(asked.as_mut().poll(cx));
                    if let Some(body) = stream_in(response)? {
                        channel.upstream.log.debug("event stream resumed", |r| {
                            r.field("server", channel.upstream.id());
                        });
                        self.state = State::Reading;
                        return Poll::Ready(Ok(Step::Read(body)));
                    }
                    State::Reading
                }
            };
        }
    }

    /// How long the server is left alone before the next attempt.
    fn next_wait(&mut self) -> Result<Duration, UpstreamError> {
        if self.fruitless == FRUITLESS || !self.is_possible() {
            return Err(UpstreamError::Ended);
        }
        self.fruitless += 1;
        let wait = self.retry.unwrap_or(self.backoff);
        self.backoff = (self.backoff * 3 / 2).min(LAST_WAIT);
        Ok(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT))
    }

    fn ask(&self, channel: Channel, dialect: Dialect) -> Result<State, UpstreamError> {
        let last_id = self.last_id.clone().ok_or(UpstreamError::Ended)?;
        let get = Outbound::resuming(last_id);
        Ok(State::Asking(Box::pin(async move { channel.send(&dialect, Method::GET, get).await })))
    }
}

/// The stream that a response brings; none if it is worth asking once more.
fn stream_in(response: Result<Response<Incoming>, OutboundError>) -> Result<Option<Incoming>, UpstreamError> {
    let Ok(response) = response else { return Ok(None) };
    match response.status().as_u16() {
        200 if content_type(&response) == "text/event-stream" => Ok(Some(response.into_body())),
        // Of a server that is busy, or of one that stands before it while it starts.
        408 | 429 | 500 | 502..=504 => Ok(None),
        _ => Err(UpstreamError::Ended),
    }
}
