//! A server's answer to one request, as the messages it consists of.
//!
//! Whether the server answers with one JSON object or with an event stream, [`Answer`] hands out its messages one by one
//! as they arrive, the response last. What concerns only the connection stays here: time and size limits, and reading the
//! body to its end so that the connection can be used again.
//! Source: MCP 2025-11-25, transports, "Sending Messages to the Server"; protocol.md 3.4 to 3.7.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::Response;
use hyper::body::{Body, Bytes};
use hyper::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::Upstream;
use super::channel::{Channel, Dialect};
use super::ear::Replier;
use super::error::UpstreamError;
use super::resume::{Resumption, Step};
use crate::alarm::{Alarm, Alarms};
use crate::budget::{Full, Holding};
use crate::outbound::Incoming;
use crate::wire::gather::Gather;
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, Sender, result_message};
use crate::wire::mcp::{Era, MODERN, code, method};
use crate::wire::sse::{Decoder, Event};

/// How long the rest of a body is waited for after the response was read.
const LINGER: Duration = Duration::from_secs(1);
/// Answers to a server's requests that may wait to be sent, for one call.
const REPLIES: usize = 16;

/// Says whether a server waits for its client, and so may be silent itself.
#[derive(Clone, Debug, Default)]
pub struct Waits(Arc<Mutex<Waiting>>);

#[derive(Clone, Copy, Debug, Default)]
enum Waiting {
    #[default]
    Never,
    Now,
    Until(Instant),
}

impl Waits {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether the server waits.
    pub fn set(&self, waits: bool) {
        let mut waiting = self.waiting();
        *waiting = match (waits, *waiting) {
            (true, _) => Waiting::Now,
            (false, Waiting::Now) => Waiting::Until(Instant::now()),
            (false, before) => before,
        };
    }

    /// When it waited last: from then on it is for the server to say something.
    fn last(&self) -> Option<Instant> {
        match *self.waiting() {
            Waiting::Never => None,
            Waiting::Now => Some(Instant::now()),
            Waiting::Until(end) => Some(end),
        }
    }
}

/// How long a call may take.
#[derive(Clone, Debug)]
pub(super) struct TimeLimits {
    /// Longest silence.
    pub(super) silent: Duration,
    /// Longest time altogether.
    pub(super) whole: Duration,
    /// Says when silence does not count.
    pub(super) waits: Option<Waits>,
}

/// The clock of one call.
pub(super) struct Timer {
    limits: TimeLimits,
    begun: Instant,
    heard: Instant,
    alarm: Alarm,
}

impl Timer {
    pub(super) fn start(limits: TimeLimits, alarms: &Alarms) -> Self {
        let now = Instant::now();
        let alarm = alarms.at(now + limits.silent.min(limits.whole));
        Self { limits, begun: now, heard: now, alarm }
    }

    /// Something came.
    fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// The server is not spoken to for so long, by its own wish: that is no silence.
    fn pause(&mut self, wait: Duration) {
        self.heard = Instant::now() + wait;
    }

    /// Fails when a limit has passed. Hearing something does not move the timer; when it rings too early it is set anew.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        loop {
            ready!(self.alarm.poll(cx));
            if let Some(last) = self.limits.waits.as_ref().and_then(Waits::last) {
                self.heard = self.heard.max(last);
            }
            let (silent, whole) = (self.heard + self.limits.silent, self.begun + self.limits.whole);
            let now = Instant::now();
            if now >= whole {
                return Poll::Ready(UpstreamError::TooLong(self.limits.whole));
            }
            if now >= silent {
                return Poll::Ready(UpstreamError::Silent(self.limits.silent));
            }
            self.alarm.move_to(silent.min(whole));
        }
    }

    /// Waits for `future` within the limits. It is pinned by the caller, as an async function would keep it twice.
    pub(super) async fn limit<T>(&mut self, mut future: Pin<&mut impl Future<Output = T>>) -> Result<T, UpstreamError> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.poll_limit(cx).map(Err),
        })
        .await
    }
}

/// One message of an answer.
#[derive(Debug)]
pub enum Message {
    /// A notification that belongs to the request.
    Notification(Envelope),
    /// A request that the server makes while it serves ours; it wants a [`reply`](Answer::reply).
    Request(Envelope),
    /// The response, result or error; nothing follows.
    Response(Envelope),
}

/// In which form the messages come.
enum Form {
    /// One JSON object; what has come of it.
    Json(Gather),
    Events(Box<Decoder>),
    /// The response is there already.
    Settled(Option<Box<Envelope>>),
}

impl Form {
    /// Bytes that have come and were not handed out as messages.
    fn held(&self) -> usize {
        match self {
            Self::Json(gather) => gather.held(),
            Self::Events(decoder) => decoder.held(),
            Self::Settled(_) => 0,
        }
    }
}

/// An answer being read.
pub struct Answer {
    channel: Channel,
    dialect: Dialect,
    /// Id of the request, which the response must have.
    id: u64,
    body: Option<Incoming>,
    form: Form,
    timer: Timer,
    /// What counts for what has come and is not a whole message yet, or was the response.
    holding: Holding,
    /// Where answers to the server's requests go; made for the first one.
    replies: Option<mpsc::Sender<Vec<u8>>>,
    /// How the stream is taken up again should it end too early; made for the first event that says something of that.
    resumption: Option<Box<Resumption>>,
    /// Whether the server may still be working on the request when nothing more of the answer is read.
    unfinished: bool,
}

impl Answer {
    /// Takes over a 2xx response.
    ///
    /// # Errors
    /// [`UpstreamError::NotMcp`] for a content type that is neither JSON nor an event stream.
    pub(super) fn new(
        channel: Channel,
        dialect: Dialect,
        id: u64,
        response: Response<Incoming>,
        (whole, event): (usize, usize),
        timer: Timer,
        holding: Holding,
    ) -> Result<Self, UpstreamError> {
        let form = match &*content_type(&response) {
            "application/json" => Form::Json(Gather::expecting(whole, response.body().size_hint().lower())),
            "text/event-stream" => Form::Events(Box::new(Decoder::new(event))),
            other => {
                let found = if other.is_empty() { "no content type".into() } else { format!("`{other}`") };
                return Err(UpstreamError::NotMcp(format!("expected JSON or an event stream, found {found}")));
            }
        };
        let body = Some(response.into_body());
        let (replies, resumption, unfinished) = (None, None, true);
        Ok(Self { channel, dialect, id, body, form, timer, holding, replies, resumption, unfinished })
    }

    /// An answer that consists of a response alone.
    pub(super) fn settled(channel: Channel, dialect: Dialect, id: u64, response: Envelope, timer: Timer) -> Self {
        let (form, holding) = (Form::Settled(Some(Box::new(response))), channel.upstream.budget.hold(0));
        let (body, replies, resumption, unfinished) = (None, None, None, false);
        Self { channel, dialect, id, body, form, timer, holding, replies, resumption, unfinished }
    }

    /// The id under which the request was sent, which is its progress token too.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The server that answers.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.channel.upstream
    }

    /// The era in which the server was spoken to.
    #[must_use]
    pub fn era(&self) -> Era {
        self.dialect.era()
    }

    /// The instructions of the session in which the request was made.
    pub(super) fn instructions(&self) -> Option<Box<str>> {
        match &self.dialect {
            Dialect::Legacy(session) => session.instructions.clone(),
            Dialect::Modern(_) => None,
        }
    }

    /// Whether the server may be working on the request for nobody, if nothing more of the answer is read from now on. Of
    /// an `initialize` it is not told so.
    pub(super) fn is_unfinished(&self) -> bool {
        let opening = matches!(&self.dialect, Dialect::Legacy(session) if session.opening);
        self.unfinished && !opening
    }

    /// Waits for the response. Notifications are passed over, and requests refused. A request that fails while the server
    /// may still be working on it is cancelled there.
    ///
    /// # Errors
    /// As [`poll_message`](Self::poll_message).
    pub async fn response(mut self) -> Result<Envelope, UpstreamError> {
        let response = self.read_response().await;
        if response.is_err() && self.is_unfinished() {
            self.channel.cancel(&self.dialect, self.id);
        }
        response
    }

    async fn read_response(&mut self) -> Result<Envelope, UpstreamError> {
        loop {
            match poll_fn(|cx| self.poll_message(cx)).await? {
                Message::Response(response) => return Ok(response),
                Message::Request(request) => self.refuse(&request)?,
                Message::Notification(_) => {}
            }
        }
    }

    /// The next message. After the response, or an error, there is none.
    ///
    /// # Errors
    /// Everything in [`UpstreamError`] that can happen to an answer.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, UpstreamError>> {
        let result = match self.poll_unlimited(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(ready!(self.timer.poll_limit(cx))),
        };
        match &result {
            Ok(Message::Response(_)) => (self.resumption, self.unfinished) = (None, false),
            Ok(_) => {}
            Err(error) => self.lost(error),
        }
        Poll::Ready(result)
    }

    /// Nothing more of the answer is read after this error.
    fn lost(&mut self, error: &UpstreamError) {
        let gone = matches!(error, UpstreamError::Ended | UpstreamError::Unreachable(_));
        let (body, resumption) = (self.body.take(), self.resumption.take());
        self.unfinished &= (body.is_some() || resumption.is_some()) && !gone;
    }

    fn poll_unlimited(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, UpstreamError>> {
        loop {
            if let Some(message) = self.buffered_message()? {
                if let Some(body) = self.body.take_if(|_| matches!(message, Message::Response(_))) {
                    discard_now(body, cx);
                }
                return Poll::Ready(Ok(message));
            }
            self.holding.resize(self.form.held()).map_err(|Full| UpstreamError::NoRoom)?;
            let Some(body) = self.body.as_mut() else {
                ready!(self.poll_resumed(cx))?;
                continue;
            };
            // JSON that has come in the length that was announced is whole without being asked for once more.
            let whole = matches!(self.form, Form::Json(_)) && body.is_end_stream();
            match if whole { None } else { ready!(Pin::new(body).poll_frame(cx)) } {
                Some(Ok(frame)) => {
                    self.timer.heard();
                    if let Ok(chunk) = frame.into_data() {
                        self.take_chunk(chunk)?;
                    }
                }
                // What was cut off comes once more.
                Some(Err(_)) if self.resumption.as_ref().is_some_and(|resumption| resumption.is_possible()) => {
                    self.body = None;
                }
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => {
                    self.body = None;
                    if let Some(message) = self.last_message()? {
                        return Poll::Ready(Ok(message));
                    }
                }
            }
        }
    }

    /// Takes an event stream up again that has ended before the response.
    fn poll_resumed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        let Some(resumption) = &mut self.resumption else { return Poll::Ready(Err(UpstreamError::Ended)) };
        loop {
            match ready!(resumption.poll(cx, &self.channel, &self.dialect))? {
                Step::Wait(time) => self.timer.pause(time),
                Step::Read(body) => {
                    self.timer.heard();
                    if let Form::Events(decoder) = &mut self.form {
                        decoder.restart();
                    }
                    self.body = Some(body);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn take_chunk(&mut self, chunk: Bytes) -> Result<(), UpstreamError> {
        match &mut self.form {
            Form::Events(decoder) => decoder.feed(chunk),
            Form::Json(gather) => gather.push(chunk).map_err(|too_large| UpstreamError::TooLarge(too_large.limit))?,
            Form::Settled(_) => {}
        }
        Ok(())
    }

    /// The next message of what has come.
    fn buffered_message(&mut self) -> Result<Option<Message>, UpstreamError> {
        if let Form::Settled(response) = &mut self.form {
            return Ok(response.take().map(|response| Message::Response(*response)));
        }
        while let Form::Events(decoder) = &mut self.form {
            let Some(mut event) = decoder.next_event()? else { break };
            self.note_place(&mut event);
            if let Some(message) = self.read_event(event)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// What the end of the body completes.
    fn last_message(&mut self) -> Result<Option<Message>, UpstreamError> {
        match &mut self.form {
            Form::Json(gather) => {
                let whole = gather.finish();
                match self.read_message(whole)? {
                    Some(Message::Response(response)) => Ok(Some(Message::Response(response))),
                    _ => Err(UpstreamError::NotMcp("expected a JSON-RPC response".into())),
                }
            }
            // An event that the end of the stream cut short is a lost answer, not a wrong one.
            Form::Events(decoder) => {
                let Some(mut event) = decoder.finish()? else { return Ok(None) };
                let message = self.read_event(event.clone()).ok().flatten();
                if message.is_some() {
                    self.note_place(&mut event);
                }
                Ok(message)
            }
            Form::Settled(_) => Ok(None),
        }
    }

    /// Notes how the stream goes on after this event, should it end too early; only a legacy one does. An `initialize` has no
    /// session yet in which it could.
    fn note_place(&mut self, event: &mut Event) {
        if self.resumption.is_none() && event.id.is_none() && event.retry.is_none() {
            return;
        }
        if matches!(&self.dialect, Dialect::Legacy(session) if !session.opening) {
            self.resumption.get_or_insert_default().note(event);
        }
    }

    fn read_event(&self, event: Event) -> Result<Option<Message>, UpstreamError> {
        if event.is_message() { self.read_message(event.data) } else { Ok(None) }
    }

    /// Reads one message; `None` for a response to something else.
    fn read_message(&self, bytes: Bytes) -> Result<Option<Message>, UpstreamError> {
        let not_mcp = |e: &dyn std::fmt::Display| UpstreamError::NotMcp(format!("expected a JSON-RPC message: {e}"));
        let envelope = Envelope::parse(bytes, self.channel.settings.limits.json_depth, Sender::Server);
        let envelope = envelope.map_err(|e| not_mcp(&e))?;
        match envelope.kind().map_err(|e| not_mcp(&e))? {
            Kind::Notification => Ok(Some(Message::Notification(envelope))),
            Kind::Request if self.era() == Era::Modern => {
                Err(UpstreamError::NotMcp(format!("expected no requests of a server of {MODERN}")))
            }
            Kind::Request => Ok(Some(Message::Request(envelope))),
            Kind::Result | Kind::Error if envelope.id_is(self.id) => Ok(Some(Message::Response(envelope))),
            // An error without a usable id is about this request too: the server could not read it.
            Kind::Error if envelope.id().is_none() => Ok(Some(Message::Response(envelope))),
            Kind::Result | Kind::Error => Ok(None),
        }
    }

    /// Answers a request of the server for which there is nobody to ask: a ping gets its pong, everything else an error.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub fn refuse(&mut self, request: &Envelope) -> Result<(), UpstreamError> {
        refusal_to(request).map_or(Ok(()), |refusal| self.reply(refusal))
    }

    /// What answers the server's requests later than at once; nothing for a modern server, which makes none.
    #[must_use]
    pub fn replier(&self) -> Option<Replier> {
        match &self.dialect {
            Dialect::Legacy(session) => Some(Replier::beside_calls(self.upstream(), session)),
            Dialect::Modern(_) => None,
        }
    }

    /// Sends the answer to a request of the server, after those before it, without making this call wait.
    ///
    /// # Errors
    /// [`UpstreamError::NotMcp`] if the server asks faster than it takes answers.
    pub fn reply(&mut self, answer: Vec<u8>) -> Result<(), UpstreamError> {
        let Some(replier) = self.replier() else { return Ok(()) };
        let replies = self.replies.get_or_insert_with(|| {
            let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(REPLIES);
            self.channel.upstream.ears.runtime.spawn(async move {
                while let Some(answer) = receiver.recv().await {
                    let Some(_waiting) = replier.wait() else { return };
                    replier.deliver(answer).await;
                }
            });
            sender
        });
        if replies.try_send(answer).is_ok() {
            return Ok(());
        }
        Err(UpstreamError::NotMcp(format!("expected at most {REPLIES} requests at a time")))
    }
}

/// The answer to a request of a server for which there is nobody to ask: a ping gets its pong, everything else an error.
pub(super) fn refusal_to(request: &Envelope) -> Option<Vec<u8>> {
    let id = request.id()?;
    Some(match request.method().as_deref() {
        Some(method::PING) => result_message(id, b"{}"),
        _ => ErrorObject::new(code::METHOD_NOT_FOUND, "no client can be asked here").to_message(Some(id)),
    })
}

/// The code of the error with which a request was refused by its HTTP status, if it was.
pub(super) fn refusal_of(answer: &Result<Box<Answer>, UpstreamError>) -> Option<i64> {
    match &answer.as_ref().ok()?.form {
        Form::Settled(Some(response)) => response.error().map(|error| error.code),
        _ => None,
    }
}

/// The media type of a response, in lower case and without parameters.
pub(super) fn content_type(response: &Response<Incoming>) -> Cow<'_, str> {
    let value = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if value == "application/json" {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn collect(mut body: Incoming, limit: usize) -> Result<Bytes, UpstreamError> {
    let mut gather = Gather::new(limit);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(chunk) = frame?.into_data() {
            gather.push(chunk).map_err(|too_large| UpstreamError::TooLarge(too_large.limit))?;
        }
    }
    Ok(gather.finish())
}

/// Lets a body end by itself so that its connection can be used again; what still comes is thrown away.
pub(super) fn discard(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let rest = async { while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {} };
        // Running out of time closes the connection, which is all that is left to do.
        let _ = tokio::time::timeout(LINGER, rest).await;
    });
}

/// The same, without a task if the end is there already.
fn discard_now(mut body: Incoming, cx: &mut Context<'_>) {
    loop {
        match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(_) => return,
            Poll::Pending => return discard(body),
        }
    }
}
