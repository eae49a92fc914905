//! Calls of legacy clients at modern servers, which say what they need first and are asked once more with it.
//!
//! The server holds nothing meanwhile: what it wants to see again is kept here, and what it needs is asked of the client
//! while the call's stream stays open. Source: protocol.md 4.4.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Bytes;

use super::bridge::{Bridge, MOST_OPEN, Place, To};
use super::relay::{Call, Client, Outgoing, Progress, Sending};
use crate::alarm::Alarm;
use crate::upstream::{Asked, Outcome, UpstreamError};
use crate::wire::jsonrpc::{Envelope, ErrorObject};
use crate::wire::mcp::code;
use crate::wire::question;
use crate::wire::rewrite::Inputs;

/// How often a server may ask before it answers.
const MOST_ROUNDS: u32 = 16;
/// How long a server that asks for nothing but another try is left alone: at first, twice as long each time, at most.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// What it takes to ask a modern server once more for a legacy client.
pub(super) struct Again {
    asked: Arc<Asked>,
    rounds: u32,
    /// How many of them, the last ones, had no question.
    empty_rounds: u32,
    /// What the server wants to see again, a JSON string.
    state: Option<Vec<u8>>,
    answers: Vec<(String, Bytes)>,
    /// Rings when the server is to be asked again that has not asked for anything.
    wait: Option<Alarm>,
    /// Rings when the call has taken as long as it may; made for the first round.
    limit: Option<Alarm>,
    longest: Duration,
    /// Why the call ends because of an answer.
    refused: Option<ErrorObject>,
}

impl Again {
    pub(super) fn new(asked: Arc<Asked>, longest: Duration) -> Self {
        let (state, answers, wait, limit, refused) = (None, Vec::new(), None, None, None);
        Self { asked, rounds: 0, empty_rounds: 0, state, answers, wait, limit, longest, refused }
    }

    /// Takes the answer to the server's question of this key.
    pub(super) fn take(&mut self, key: String, answer: Bytes) {
        self.answers.push((key, answer));
    }

    /// Takes an error in the place of an answer, which ends the call unless the question can be answered all the same.
    pub(super) fn take_error(&mut self, key: String, method: &str, error: ErrorObject) {
        match question::refused_answer(method, &error) {
            Some(instead) => self.take(key, instead.into()),
            None => self.refused = Some(error),
        }
    }

    /// Begins a round with so many questions; false if there have been too many.
    fn begin(&mut self, questions: usize, state: Option<&[u8]>) -> bool {
        self.rounds += 1;
        self.empty_rounds = if questions == 0 { self.empty_rounds + 1 } else { 0 };
        self.state = state.map(<[u8]>::to_vec);
        self.answers.clear();
        self.wait = None;
        self.rounds <= MOST_ROUNDS && questions <= MOST_OPEN
    }

    /// How long the server is left alone.
    fn pause(&self) -> Duration {
        let pause = FIRST_WAIT * 2_u32.saturating_pow(self.empty_rounds.saturating_sub(1));
        pause.min(LONGEST_WAIT).mul_f64(rand::random_range(0.8..1.2))
    }
}

impl Call {
    /// The questions of a modern server as requests on the client's open stream; there is no response yet.
    pub(super) fn ask_legacy(&mut self, response: &Envelope, state: Option<&[u8]>) -> Option<Outgoing> {
        let Client::Legacy(version, ..) = self.client else { return None };
        let questions = question::questions_of(response);
        let Some(again) = self.bridge.as_deref_mut().and_then(Bridge::again) else {
            return Some(self.failure(UpstreamError::NeedsInput));
        };
        if !again.begin(questions.len(), state) {
            return Some(self.failure(UpstreamError::NeedsInput));
        }
        let left = again.longest.saturating_sub(self.slot.age());
        again.limit.get_or_insert_with(|| self.lease.alarms().after(left));
        if questions.is_empty() {
            again.wait = Some(self.lease.alarms().after(again.pause()));
        }
        for (key, value) in questions {
            let ticket = self.lease.ask();
            let (Some(asked), Some(ticket), Some(bridge)) = (question::Asked::of(value), ticket, &mut self.bridge)
            else {
                return Some(self.failure(UpstreamError::NeedsInput));
            };
            let id = ticket.id();
            let request = question::modern_to_legacy(value, &id, version, &id);
            bridge.ask(Place::Session(ticket), asked, To::Key(key.into_owned()), request);
        }
        None
    }

    /// Asks the server once more when it is time to.
    pub(super) fn poll_again(&mut self, progress: &mut Progress, cx: &mut Context<'_>) -> Poll<Outgoing> {
        let Some(bridge) = self.bridge.as_deref_mut() else { return Poll::Pending };
        let is_open = !bridge.open.is_empty();
        let Some(again) = bridge.again().filter(|again| again.rounds > 0) else { return Poll::Pending };
        if let Some(error) = again.refused.take() {
            return Poll::Ready(self.refused_by_client(&error));
        }
        if again.limit.as_mut().is_some_and(|limit| limit.poll(cx).is_ready()) {
            let longest = again.longest;
            return Poll::Ready(self.failure(UpstreamError::TooLong(longest)));
        }
        if matches!(progress, Progress::Nothing) && !is_open {
            let waits = again.wait.as_mut().is_some_and(|wait| wait.poll(cx).is_pending());
            if !waits {
                *progress = Progress::Sending(self.retry());
            }
        }
        Poll::Pending
    }

    /// The request once more, with what the client has answered.
    fn retry(&mut self) -> Sending {
        let flight = self.lease.flight();
        let Some(again) = self.bridge.as_deref_mut().and_then(Bridge::again) else {
            return Box::pin(std::future::ready(Err(UpstreamError::NeedsInput)));
        };
        let (asked, state) = (Arc::clone(&again.asked), again.state.take());
        let answers = std::mem::take(&mut again.answers);
        let responses = (!answers.is_empty()).then(|| question::input_responses(&answers));
        Box::pin(async move {
            let sent = &flight.sent;
            // An id of its own, as the first request has had the other one.
            let id = sent.upstream.next_id();
            let inputs = Inputs { state: state.as_deref(), responses: Some(responses.as_deref().unwrap_or(b"{}")) };
            sent.upstream.call(&sent.http, &sent.permit, &sent.tenant, id, &asked, inputs).await
        })
    }

    /// The response to a call whose client has not answered what its server needs.
    fn refused_by_client(&mut self, error: &ErrorObject) -> Outgoing {
        self.slot.ended(Outcome::Result);
        let message = format!("the client refused what the server needs: {}", error.message);
        self.told(&ErrorObject::new(code::INTERNAL_ERROR, message))
    }
}
