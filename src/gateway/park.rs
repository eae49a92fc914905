//! Calls of modern clients at legacy servers that have asked for something and wait: parked until the client comes back
//! with its answer.
//!
//! A legacy server asks while it works, and a modern client is asked by a result. So the call goes on without the client:
//! what the server says meanwhile is kept, within bounds, and so is its response. The client comes back with a sealed
//! handle that is good once; what it is good for has never to be run again. A call that nobody comes back for is ended at
//! the server after a while. Source: protocol.md 4.3.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::runtime::Handle as Runtime;

use super::bridge::{Bridge, How, Open, Place, To};
use super::relay::{Call, Client, Modern, Outgoing, Progress, Relay, Running};
use super::repeat::Repeatable;
use super::{ClientState, Gateway, GatewayError, Request};
use crate::alarm::{Alarm, Alarms};
use crate::metrics::{Gauge, Held};
use crate::upstream::{Lane, Message, UpstreamError};
use crate::wire::json::{Span, members_of};
use crate::wire::jsonrpc::{Envelope, Meta, Param, result_message};
use crate::wire::mcp::method;
use crate::wire::question;
use crate::wire::seal::{Handle, StateKind};

/// How long simultaneous questions are waited for before the client is asked.
const TOGETHER: Duration = Duration::from_millis(15);
/// How often one call may be parked.
const MOST_ROUNDS: u32 = 16;
/// Notifications that are kept for a client that is away, and their bytes.
const MOST_KEPT: usize = 64;
const MOST_KEPT_BYTES: usize = 256 * 1024;

/// What a call needs to be parked.
pub(super) struct Parking {
    /// Names the call in this gateway; the round counts how often it was parked.
    handle: Handle,
    /// How long a client may stay away.
    patience: Duration,
    /// Calls of the client that may be parked.
    most: usize,
    /// Questions of the call so far, over all rounds.
    asked: u64,
    /// Rings when the client is to be asked what has come together.
    together: Option<Alarm>,
    /// Whether the client has been asked, and has not come back.
    away: bool,
    /// Rings when it has stayed away for too long.
    until: Option<Alarm>,
    /// What the server has said meanwhile.
    kept: VecDeque<Envelope>,
    kept_bytes: usize,
    /// How the call ended meanwhile.
    outcome: Option<Result<Envelope, UpstreamError>>,
    /// Counts the calls that are parked, and this one while it is.
    count: Gauge,
    counted: Option<Held>,
    /// Keeps the session with the server from everybody else.
    _lane: Lane,
}

impl Parking {
    pub(super) fn new(instance: u64, patience: Duration, most: usize, lane: Lane, count: Gauge) -> Self {
        Self {
            handle: Handle { instance, bits: rand::random(), round: 0 },
            patience,
            most,
            asked: 0,
            together: None,
            away: false,
            until: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            outcome: None,
            count,
            counted: None,
            _lane: lane,
        }
    }

    /// A number for another question, with which others may come.
    pub(super) fn next_number(&mut self, alarms: &Alarms) -> u64 {
        self.together.get_or_insert_with(|| alarms.after(TOGETHER));
        self.asked += 1;
        self.asked
    }

    /// Keeps something for the client until that comes back, if there is room.
    pub(super) fn keep(&mut self, notification: Envelope) {
        let bytes = notification.bytes().len();
        if self.kept.len() < MOST_KEPT && self.kept_bytes + bytes <= MOST_KEPT_BYTES {
            self.kept_bytes += bytes;
            self.kept.push_back(notification);
        }
    }
}

/// The parked calls of one client.
#[derive(Default)]
pub(super) struct ParkedCalls(Mutex<HashMap<[u8; 16], Arc<Parked>>>);

/// A parked call.
struct Parked {
    /// Nothing once the client has come back, or the call is over.
    running: Mutex<Option<Running>>,
    /// Wakes what looks after it.
    keeper: Mutex<Option<Waker>>,
}

impl Parked {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after the call; ready when there is nothing to look after any more.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        let mut running = self.running();
        let Some((call, progress)) = running.as_deref_mut() else { return Poll::Ready(()) };
        ready!(call.poll_parked(progress, cx));
        let over = running.take();
        drop(running);
        drop(over);
        Poll::Ready(())
    }

    /// Takes the call away from what looks after it, if it has been parked for this round.
    fn take(&self, round: u32) -> Option<Running> {
        let fits = |running: &mut Running| running.0.parked_for() == Some(round);
        let taken = self.running().take_if(fits)?;
        self.dismiss();
        Some(taken)
    }

    /// Wakes what looks after the call, which is not there any more.
    fn dismiss(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        keeper.inspect(Waker::wake_by_ref);
    }
}

impl ParkedCalls {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 16], Arc<Parked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn take(&self, handle: Handle) -> Option<Running> {
        let parked = self.lock().get(&handle.bits).cloned()?;
        let running = parked.take(handle.round)?;
        self.lock().remove(&handle.bits);
        Some(running)
    }

    /// Ends all of them at their servers.
    pub(super) fn end(&self) {
        for parked in std::mem::take(&mut *self.lock()).into_values() {
            if let Some(mut running) = parked.running().take() {
                let (call, progress) = &mut *running;
                call.abandon(progress);
            }
            parked.dismiss();
        }
    }
}

/// Parks a call whose client has just been asked.
pub(super) fn keep(mut running: Running) {
    let (call, progress) = &mut *running;
    let Some(bits) = call.bridge.as_deref_mut().and_then(Bridge::parking).map(|p| p.handle.bits) else { return };
    let client = Arc::clone(call.lease.client());
    let Ok(runtime) = Runtime::try_current() else { return call.abandon(progress) };
    let parked = Arc::new(Parked { running: Mutex::new(Some(running)), keeper: Mutex::default() });
    client.parked.lock().insert(bits, Arc::clone(&parked));
    runtime.spawn(async move {
        poll_fn(|cx| parked.poll(cx)).await;
        // Unless it was parked again since.
        let mut all = client.parked.lock();
        if all.get(&bits).is_some_and(|there| Arc::ptr_eq(there, &parked)) {
            all.remove(&bits);
        }
    });
}

impl Call {
    /// Whether the client has been asked and is to come back.
    pub(super) fn is_parked(&self) -> bool {
        self.parked_for().is_some()
    }

    /// The round for which it was parked, if it is.
    fn parked_for(&self) -> Option<u32> {
        match &self.bridge.as_deref()?.how {
            How::Results(parking) => parking.away.then_some(parking.handle.round),
            How::Requests(_) => None,
        }
    }

    /// Asks the client what the server has asked, once nothing more comes together with it; and answers it with what has come
    /// while it was away.
    pub(super) fn poll_parking(&mut self, progress: &Progress, cx: &mut Context<'_>) -> Poll<Outgoing> {
        if let Some(message) = self.next_kept() {
            return Poll::Ready(Outgoing::Message(message));
        }
        let Some(parking) = self.bridge.as_deref_mut().and_then(Bridge::parking) else { return Poll::Pending };
        match (parking.outcome.take(), progress) {
            (Some(Ok(response)), Progress::Answering(answer)) => {
                if let Some(outgoing) = self.response(answer, &response) {
                    return Poll::Ready(outgoing);
                }
            }
            (Some(Err(error)), _) => return Poll::Ready(self.failure(error)),
            _ => {}
        }
        let Some(parking) = self.bridge.as_deref_mut().and_then(Bridge::parking) else { return Poll::Pending };
        let Some(together) = &mut parking.together else { return Poll::Pending };
        ready!(together.poll(cx));
        parking.together = None;
        self.ask().map_or(Poll::Pending, Poll::Ready)
    }

    /// The next that the server has said while the client was away, as that gets it now.
    fn next_kept(&mut self) -> Option<Vec<u8>> {
        loop {
            let kept = self.bridge.as_deref_mut().and_then(Bridge::parking)?.kept.pop_front()?;
            // A legacy server knows the request under the id under which it was sent first.
            let message = self.notification(self.lease.sent().id, &kept);
            if message.is_some() {
                return message;
            }
        }
    }

    /// The result that asks the client; `None` if it cannot be asked, and the server has been told so.
    fn ask(&mut self) -> Option<Outgoing> {
        let parked = self.lease.client().parked.count();
        let (Some(bridge), Client::Modern(client)) = (&mut self.bridge, &self.client) else { return None };
        let questions = bridge.questions();
        let parking = bridge.parking()?;
        if questions.is_empty() {
            return None;
        }
        if parked >= parking.most || parking.handle.round >= MOST_ROUNDS {
            bridge.answer_nothing().send();
            return None;
        }
        parking.handle.round += 1;
        let state = client.repeatable.seal(&client.states, StateKind::Parked, &parking.handle.to_bytes());
        (parking.away, parking.until) = (true, Some(self.lease.alarms().after(parking.patience)));
        parking.counted = Some(parking.count.hold());
        let response = question::input_required(self.lease.id(), &questions, state.as_deref());
        Some(Outgoing::Response(vec![response.into()], None))
    }

    /// Looks after the call while its client is away; ready when nobody needs it any more.
    fn poll_parked(&mut self, progress: &mut Progress, cx: &mut Context<'_>) -> Poll<()> {
        let late = |until: &mut Option<Alarm>| until.as_mut().is_none_or(|until| until.poll(cx).is_ready());
        let late = self.bridge.as_deref_mut().and_then(Bridge::parking).is_none_or(|parking| late(&mut parking.until));
        if late || self.lease.poll_over(cx).is_ready() {
            self.abandon(progress);
            return Poll::Ready(());
        }
        self.read_mail();
        loop {
            let Some(parking) = self.bridge.as_deref_mut().and_then(Bridge::parking) else { return Poll::Ready(()) };
            if parking.outcome.is_some() {
                return Poll::Pending;
            }
            let answer = match progress {
                Progress::Answering(answer) => answer,
                Progress::Sending(sending) => {
                    match ready!(sending.as_mut().poll(cx)) {
                        Ok(answer) => *progress = Progress::Answering(answer),
                        Err(error) => {
                            *progress = Progress::Nothing;
                            self.failed_meanwhile(progress, error);
                        }
                    }
                    continue;
                }
                Progress::Nothing => return Poll::Pending,
            };
            match ready!(answer.poll_message(cx)) {
                Ok(Message::Response(response)) => self.answered_meanwhile(response),
                Ok(Message::Notification(n)) if n.method().as_deref() == Some(method::CANCELLED) => {
                    self.question_withdrawn(&n);
                }
                Ok(Message::Notification(notification)) => parking.keep(notification),
                Ok(Message::Request(request)) => {
                    if let Err(error) = self.asked(answer, &request) {
                        self.failed_meanwhile(progress, error);
                    }
                }
                Err(error) => self.failed_meanwhile(progress, error),
            }
        }
    }

    /// Keeps the response that has come while the client was away; the server wants no answers any more.
    fn answered_meanwhile(&mut self, response: Envelope) {
        let Some(bridge) = &mut self.bridge else { return };
        bridge.take(|_| true);
        if let Some(parking) = bridge.parking() {
            parking.outcome = Some(Ok(response));
        }
    }

    /// Keeps why there will be no response.
    fn failed_meanwhile(&mut self, progress: &mut Progress, error: UpstreamError) {
        self.abandon(progress);
        if let Some(parking) = self.bridge.as_deref_mut().and_then(Bridge::parking) {
            parking.outcome = Some(Err(error));
        }
    }

    /// Goes on with a parked call in the name of the request with which its client has come back.
    fn renew(&mut self, request: &Request, client: Modern) {
        self.lease.renew(request.principal.clone(), &request.id, request.now);
        (self.client, self.request) = (Client::Modern(Box::new(client)), request.request_id);
        self.token = request.envelope.meta(Meta::ProgressToken).map(Bytes::copy_from_slice);
        let Some(parking) = self.bridge.as_deref_mut().and_then(Bridge::parking) else { return };
        (parking.away, parking.until, parking.counted) = (false, None, None);
    }

    /// Takes the answers with which a client has come back.
    fn take_responses(&mut self, envelope: &Envelope) {
        let capabilities = self.client.capabilities();
        let Some(bridge) = &mut self.bridge else { return };
        let responses = envelope.param(Param::InputResponses).unwrap_or(b"{}");
        bridge.answer_all(&members_of(responses, Span { start: 0, end: responses.len() }), responses);
        // What the client cannot be asked any more nobody will answer.
        bridge.answer_nothing_to(|open| capabilities.lacks(open.asked.needed).is_some()).send();
        let open = !bridge.open.is_empty();
        let Some(parking) = bridge.parking() else { return };
        // What is still open is asked once more.
        parking.together = open.then(|| self.lease.alarms().after(Duration::ZERO));
    }
}

impl Bridge {
    /// What a modern client is asked: keys and values of `inputRequests`.
    fn questions(&self) -> Vec<(String, Vec<u8>)> {
        let value = |open: &Open| match &open.to {
            To::Server { value, .. } => Some((key_of(open)?, value.clone())),
            To::Key(_) => None,
        };
        self.open.iter().filter_map(value).collect()
    }

    /// Sends the answers that have come with a request, and fit their questions, to the server; the other questions stay
    /// open.
    fn answer_all(&mut self, responses: &[(Cow<'_, str>, Span)], bytes: &[u8]) {
        let fitting = |open: &Open| {
            let key = key_of(open)?;
            let (_, given) = responses.iter().rev().find(|(name, _)| *name == key)?;
            Some(given.of(bytes)).filter(|answer| question::fits(open.asked.method, open.asked.form, answer))
        };
        for open in self.take(|open| fitting(open).is_some()) {
            if let (Some(answer), To::Server { id, replies, .. }) = (fitting(&open), &open.to) {
                replies.reply(result_message(id, answer));
            }
        }
    }
}

/// What a question is called to a modern client: numbered over the whole call, so that no key comes twice.
fn key_of(open: &Open) -> Option<String> {
    match open.place {
        Place::Call(number) => Some(format!("q{number}")),
        Place::Session(_) => None,
    }
}

impl Gateway {
    /// Goes on with the call that waits for this request's answers.
    ///
    /// # Errors
    /// [`GatewayError::InvalidParams`] if there is no such call any more, or somebody else has come back for it.
    pub(super) fn resume(&self, request: &Request, client: Modern, handle: &[u8]) -> Result<Relay, GatewayError> {
        let handle = Handle::from_bytes(handle).filter(|handle| handle.instance == self.instance);
        let state: Arc<ClientState> = self.current_state(&request.principal, &request.snapshot);
        let running = handle.and_then(|handle| state.parked.take(handle));
        let mut running = running.ok_or(GatewayError::InvalidParams(Repeatable::UNKNOWN))?;
        running.0.renew(request, client);
        // An order to end it may have been given and not been seen yet.
        running.0.lease.review(self.snapshot().registry());
        // SECURITY: nothing more goes to the server for a client that may not call it any more.
        if !running.0.lease.is_over() {
            running.0.take_responses(&request.envelope);
        }
        Ok(Relay::of(running))
    }

    /// Ends all parked calls at their servers, as they cannot outlive the gateway. Needs no runtime.
    pub fn end_parked(&self) {
        for (_, client) in self.known_clients() {
            client.parked.end();
        }
    }
}
