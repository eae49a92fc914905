//! What servers ask clients while they serve them: elicitation, sampling, roots, in all four pairs of eras.
//!
//! | client, server | |
//! |---|---|
//! | legacy, legacy | the request goes to the client with an id of the session's own, the answer back |
//! | legacy, modern | what the server needs first becomes such requests; with the answers it is asked once more |
//! | modern, legacy | the request becomes a result that asks for input; the call waits for the client to come back (`park`) |
//! | modern, modern | the result goes through, with the server's state sealed (`repeat`) |
//!
//! A server may ask only while it serves the client, and only for what that has declared. Source: protocol.md 4.2 to 4.5.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Bytes;

use super::GatewayError;
use super::flight::Mail;
use super::park::Parking;
use super::relay::{Call, Client, Modern, Outgoing, Progress, Sending};
use crate::alarm::Alarm;
use crate::upstream::{Answer, Asked, Replier, UpstreamError};
use crate::wire::json::{text_of, write_text};
use crate::wire::jsonrpc::{Envelope, ErrorObject, Param, result_message};
use crate::wire::mcp::{ClientCapabilities, Era, Operation, code, method};
use crate::wire::question::{self, Question};
use crate::wire::rewrite::{self, Inputs, Instead};
use crate::wire::seal::{RequestState, StateKind};
use crate::wire::splice::Splice;

/// Questions of one call that may be open at a time; more are refused.
const MOST_OPEN: usize = 16;
/// How often a server may ask before it answers.
const MOST_ROUNDS: u32 = 16;
/// How long a server that asks for nothing but another try is left alone first; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// What a call has to keep whose server may ask its client for something.
pub(super) struct Bridge {
    /// What the server has asked for and nobody has answered.
    pub(super) open: Vec<Open>,
    /// What goes to the client before anything else.
    queue: VecDeque<Vec<u8>>,
    /// Whether a server waits for the client, and so may be silent itself.
    waits: Arc<AtomicBool>,
    /// Whether the client's stream is gone, so that nothing can be asked on it any more.
    deaf: bool,
    pub(super) how: How,
}

/// How questions reach the client.
pub(super) enum How {
    /// As requests in its session.
    Requests(Box<Again>),
    /// As results, for which it comes back.
    Results(Box<Parking>),
}

/// A question without an answer.
pub(super) struct Open {
    /// Its number in the session, or in the call.
    number: u64,
    asked: question::Asked,
    to: To,
}

/// Where an answer goes.
enum To {
    /// To a legacy server, which has given its request this id.
    Server {
        id: Bytes,
        replies: Replier,
        /// The question as a modern client gets it; nothing for a legacy one.
        value: Vec<u8>,
    },
    /// Into the next request to a modern server, under this key.
    Key(String),
}

/// What it takes to ask a modern server once more for a legacy client.
pub(super) struct Again {
    asked: Arc<Asked>,
    rounds: u32,
    /// What the server wants to see again, a JSON string.
    state: Option<Vec<u8>>,
    answers: Vec<(String, Bytes)>,
    /// Rings when the server is to be asked again that has not asked for anything.
    wait: Option<Alarm>,
    /// Rings when the call has taken as long as it may.
    limit: Alarm,
    longest: Duration,
    /// Why the call ends because of an answer.
    refused: Option<ErrorObject>,
}

impl Again {
    pub(super) fn new(asked: Arc<Asked>, limit: Alarm, longest: Duration) -> Self {
        let (state, answers, wait, refused) = (None, Vec::new(), None, None);
        Self { asked, rounds: 0, state, answers, wait, limit, longest, refused }
    }
}

impl Bridge {
    pub(super) fn new(how: How, waits: Arc<AtomicBool>) -> Self {
        Self { open: Vec::new(), queue: VecDeque::new(), waits, deaf: false, how }
    }

    /// The parking of a modern client's call.
    pub(super) fn parking(&mut self) -> Option<&mut Parking> {
        match &mut self.how {
            How::Results(parking) => Some(parking),
            How::Requests(_) => None,
        }
    }

    /// What a modern client is asked: keys and values of `inputRequests`.
    pub(super) fn questions(&self) -> Vec<(String, Vec<u8>)> {
        let value = |open: &Open| match &open.to {
            To::Server { value, .. } => Some((key_of(open.number), value.clone())),
            To::Key(_) => None,
        };
        self.open.iter().filter_map(value).collect()
    }

    /// Sends the answers that have come with a request and fit their questions; the others stay open.
    pub(super) fn answer_all(&mut self, responses: &[(impl AsRef<str>, &[u8])]) {
        self.open.retain(|open| {
            let key = key_of(open.number);
            let given = responses.iter().rev().find(|(name, _)| name.as_ref() == key).map(|(_, answer)| *answer);
            let fitting = given.filter(|answer| question::fits(open.asked.method, open.asked.form, answer));
            match (fitting, &open.to) {
                (Some(answer), To::Server { id, replies, .. }) => {
                    replies.reply(result_message(id, answer));
                    false
                }
                _ => true,
            }
        });
        self.note_waiting();
    }

    /// Says something to the client before anything else.
    pub(super) fn say(&mut self, messages: Vec<Vec<u8>>) {
        self.queue.extend(messages);
    }

    fn note_waiting(&self) {
        self.waits.store(!self.open.is_empty(), Ordering::Relaxed);
    }

    /// Answers every question of a legacy server in the way of somebody who does not want to.
    pub(super) fn answer_nothing(&mut self) -> Vec<u64> {
        let open = std::mem::take(&mut self.open);
        self.note_waiting();
        let unanswered = open.into_iter().map(|open| {
            if let To::Server { id, replies, .. } = &open.to {
                replies.reply(question::cancel_answer(open.asked.method, id));
            }
            open.number
        });
        unanswered.collect()
    }
}

/// What a question is called to a modern client: numbered over the whole call, so that no key comes twice.
fn key_of(number: u64) -> String {
    format!("q{number}")
}

impl Call {
    /// Takes a request of the server, which is refused if it is none that the client can be asked.
    pub(super) fn asked(&mut self, answer: &mut Answer, request: &Envelope) -> Result<(), UpstreamError> {
        match self.take_question(request, || answer.replier()) {
            true => Ok(()),
            false => answer.refuse(request),
        }
    }

    /// Takes a request of a legacy server that is for the client; false for any other.
    pub(super) fn take_question(&mut self, request: &Envelope, replies: impl FnOnce() -> Option<Replier>) -> bool {
        let capabilities = self.client.capabilities();
        let Some(bridge) = &mut self.bridge else { return false };
        let Some(Question { asked, value }) = question::legacy_to_modern(request) else { return false };
        let (Some(id), Some(replies)) = (request.id(), replies()) else { return false };
        if capabilities.lacks(asked.needed).is_some() || bridge.open.len() >= MOST_OPEN {
            return false;
        }
        let id = Bytes::copy_from_slice(id);
        if bridge.deaf {
            replies.reply(question::cancel_answer(asked.method, &id));
            return true;
        }
        let number = match (&mut bridge.how, &self.client) {
            (How::Requests(_), Client::Legacy(version, ..)) => {
                let Some(question) = self.lease.ask() else { return false };
                bridge.queue.push_back(question::legacy_to_legacy(request, &question.id, *version));
                question.number
            }
            (How::Results(parking), _) => parking.next_number(self.lease.alarms()),
            (How::Requests(_), Client::Modern(_)) => return false,
        };
        bridge.open.push(Open { number, asked, to: To::Server { id, replies, value } });
        bridge.note_waiting();
        true
    }

    /// A server does not want to know any more what it has asked. A legacy client is told.
    pub(super) fn question_withdrawn(&mut self, notification: &Envelope) -> Option<Vec<u8>> {
        let meant = notification.param(Param::RequestId)?;
        let bridge = self.bridge.as_mut()?;
        let is_meant = |open: &Open| matches!(&open.to, To::Server { id, .. } if *id == *meant);
        let at = bridge.open.iter().position(is_meant)?;
        let open = bridge.open.swap_remove(at);
        bridge.note_waiting();
        match bridge.how {
            How::Requests(_) => {
                let id = self.lease.forget_question(open.number)?;
                let mut text = Vec::new();
                write_text(&mut text, &id);
                let span = notification.param_span(Param::RequestId);
                Some(Splice::new(notification.bytes()).replace_if(span, &text).build())
            }
            How::Results(_) => None,
        }
    }

    /// What tells a client that has called its request off that one of the questions that it was asked is over too.
    pub(super) fn take_back(&mut self) -> Option<Vec<u8>> {
        let bridge = self.bridge.as_mut().filter(|bridge| !bridge.deaf)?;
        bridge.queue.clear();
        let open = bridge.open.pop()?;
        if let To::Server { id, replies, .. } = &open.to {
            replies.reply(question::cancel_answer(open.asked.method, id));
        }
        let id = self.lease.forget_question(open.number)?;
        let (method, mut text) = (method::CANCELLED, Vec::new());
        write_text(&mut text, &id);
        let text = String::from_utf8_lossy(&text);
        Some(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{text}}}}}"#).into_bytes())
    }

    /// Nobody reads what the client would be sent.
    pub(super) fn nobody_listens(&mut self) {
        if let Some(bridge) = &mut self.bridge {
            bridge.deaf = true;
        }
    }

    /// Answers what is open in the way of somebody who does not want to.
    pub(super) fn answer_nothing(&mut self) {
        let Some(bridge) = &mut self.bridge else { return };
        for number in bridge.answer_nothing() {
            self.lease.forget_question(number);
        }
    }

    /// What there is to do beside waiting for the server.
    pub(super) fn poll_bridge(&mut self, progress: &mut Progress, cx: &mut Context<'_>) -> Poll<Outgoing> {
        self.read_mail();
        let Some(bridge) = &mut self.bridge else { return Poll::Pending };
        if let Some(message) = bridge.queue.pop_front() {
            return Poll::Ready(Outgoing::Message(message));
        }
        match &mut bridge.how {
            How::Results(_) => self.poll_parking(progress, cx),
            How::Requests(again) if matches!(progress, Progress::Asking) => {
                if let Some(error) = again.refused.take() {
                    return Poll::Ready(self.refused_by_client(&error));
                }
                if again.limit.poll(cx).is_ready() {
                    let longest = again.longest;
                    return Poll::Ready(self.failure(UpstreamError::TooLong(longest)));
                }
                let waits = again.wait.as_mut().is_some_and(|wait| wait.poll(cx).is_pending());
                if bridge.open.is_empty() && !waits {
                    *progress = Progress::Sending(self.retry());
                }
                Poll::Pending
            }
            How::Requests(_) => Poll::Pending,
        }
    }

    /// Takes what has come for the call from elsewhere than its own answer.
    pub(super) fn read_mail(&mut self) {
        for mail in self.lease.take_mail() {
            match mail {
                Mail::Answer(number, answer) => self.take_answer(number, &answer),
                Mail::Request(request, replies) => {
                    if !self.take_question(&request, || Some(replies.clone())) {
                        replies.refuse(&request);
                    }
                }
                Mail::Notification(notification) => {
                    let id = self.lease.sent().id;
                    let message = self.notification(id, &notification);
                    if let Some(bridge) = &mut self.bridge {
                        bridge.queue.extend(message);
                    }
                }
            }
        }
    }

    /// Takes what a legacy client answers.
    fn take_answer(&mut self, number: u64, answer: &Envelope) {
        let Some(bridge) = &mut self.bridge else { return };
        let Some(at) = bridge.open.iter().position(|open| open.number == number) else { return };
        let open = bridge.open.swap_remove(at);
        bridge.note_waiting();
        match (open.to, &mut bridge.how) {
            (To::Server { id, replies, .. }, _) => {
                let reply = Splice::new(answer.bytes()).replace_if(answer.id_span(), &id).build();
                replies.reply(reply);
            }
            (To::Key(key), How::Requests(again)) => {
                let result = match answer.error() {
                    Some(error) => {
                        let instead = question::refused_answer(open.asked.method, &error);
                        if instead.is_none() {
                            again.refused = Some(error);
                        }
                        instead.map(Bytes::from)
                    }
                    None => answer.result_span().map(|span| answer.bytes().slice(span.range())),
                };
                again.answers.extend(result.map(|result| (key, result)));
            }
            (To::Key(_), How::Results(_)) => {}
        }
    }

    /// A modern server needs something before it goes on. A modern client is told; a legacy one is asked, and there is no
    /// response yet.
    pub(super) fn input_required(&mut self, response: &Envelope) -> Option<Outgoing> {
        let questions = rewrite::questions(response);
        let Some(needed) = questions.needed.filter(|_| self.operation.may_ask()) else {
            let what = "expected no other requests for input than MCP has".to_owned();
            return Some(self.failure(UpstreamError::NotMcp(what)));
        };
        if let Some(missing) = self.client.capabilities().lacks(needed) {
            let message = format!("the server needs a capability that the client did not declare: {missing}");
            let data = Some(format!(r#"{{"requiredCapabilities":{missing}}}"#).into());
            let error = ErrorObject { code: code::MISSING_CAPABILITY, message, data };
            return Some(match self.client {
                Client::Modern(_) => self.error(&error),
                Client::Legacy(..) => self.told(&error),
            });
        }
        match &self.client {
            Client::Modern(client) => Some(self.input_required_of_modern(client, response, questions.state)),
            Client::Legacy(..) => self.ask_legacy(response, questions.state),
        }
    }

    /// The questions as they are, with a state of the gateway's own (protocol.md 4.5).
    fn input_required_of_modern(&self, client: &Modern, response: &Envelope, state: Option<&[u8]>) -> Outgoing {
        let seal = |original: &[u8]| client.repeatable.seal(&client.states, StateKind::Relay, original);
        let ours = match state.map(seal) {
            Some(None) => {
                self.report("state too long", &UpstreamError::TooLarge(RequestState::MAX_LENGTH));
                let error = UpstreamError::TooLarge(RequestState::MAX_LENGTH);
                let message = GatewayError::Upstream { subject: self.subject.clone(), error }.to_string();
                return self.error(&ErrorObject::new(code::INTERNAL_ERROR, message));
            }
            ours => ours.flatten(),
        };
        let instead = Instead { state: ours.as_deref(), ..Instead::default() };
        let asked = rewrite::result_for_modern(response, self.lease.id(), Era::Modern, instead);
        Outgoing::Response(asked, None)
    }

    /// The questions as requests on the client's open stream (protocol.md 4.4).
    fn ask_legacy(&mut self, response: &Envelope, state: Option<&[u8]>) -> Option<Outgoing> {
        let Client::Legacy(version, ..) = self.client else { return None };
        let Some(Bridge { open, queue, waits, deaf: false, how: How::Requests(again) }) = self.bridge.as_deref_mut()
        else {
            return Some(self.failure(UpstreamError::NeedsInput));
        };
        again.rounds += 1;
        again.state = state.map(<[u8]>::to_vec);
        again.answers.clear();
        let questions = question::questions_of(response);
        if again.rounds > MOST_ROUNDS || questions.len() > MOST_OPEN {
            return Some(self.failure(UpstreamError::NeedsInput));
        }
        let pause = FIRST_WAIT * 2_u32.saturating_pow(again.rounds - 1);
        again.wait =
            questions.is_empty().then(|| self.lease.alarms().after(pause.mul_f64(rand::random_range(0.8..1.2))));
        for (key, value) in questions {
            let asked = question::Asked::of(value);
            let (Some(asked), Some(question)) = (asked, self.lease.ask()) else {
                return Some(self.failure(UpstreamError::NeedsInput));
            };
            queue.extend(question::modern_to_legacy(value, &question.id, version, &question.id));
            open.push(Open { number: question.number, asked, to: To::Key(key.into_owned()) });
        }
        waits.store(true, Ordering::Relaxed);
        None
    }

    /// Asks a modern server once more, with what the client has answered.
    fn retry(&mut self) -> Sending {
        let flight = self.lease.flight();
        let Some(Bridge { how: How::Requests(again), .. }) = self.bridge.as_deref_mut() else {
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
        let message = format!("the client refused what the server needs: {}", error.message);
        self.told(&ErrorObject::new(code::INTERNAL_ERROR, message))
    }

    /// A legacy server wants URLs to be opened first (-32042). A modern client is asked to, and makes its request again.
    pub(super) fn opens_first(&self, client: &Modern, error: ErrorObject) -> Outgoing {
        if !client.capabilities.opens_urls() {
            let needed = Bytes::from_static(br#"{"requiredCapabilities":{"elicitation":{"url":{}}}}"#);
            return self.error(&ErrorObject { code: code::MISSING_CAPABILITY, data: Some(needed), ..error });
        }
        let questions = error.data.as_deref().and_then(question::elicitations_of);
        let state = client.repeatable.seal(&client.states, StateKind::Again, b"");
        match questions {
            Some(questions) if self.operation != Operation::Complete => {
                let response = question::input_required(self.lease.id(), &questions, state.as_deref());
                Outgoing::Response(vec![response.into()], None)
            }
            _ => self.error(&ErrorObject::new(code::INTERNAL_ERROR, error.message)),
        }
    }
}

/// The number of a question in a session, and its id as the client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) id: String,
}

impl Numbered {
    /// A question of a session, which has a mark so that a late answer is not taken for one to a question of another life
    /// of the session.
    pub(super) fn new(mark: u32, number: u64) -> Self {
        Self { number, id: format!("gw-{mark:08x}-{number}") }
    }

    /// The number behind an id, as it is written in a response.
    pub(super) fn read(mark: u32, id: &[u8]) -> Option<u64> {
        let text = text_of(id)?;
        let number = text.strip_prefix("gw-")?.strip_prefix(&format!("{mark:08x}"))?.strip_prefix('-')?;
        number.parse().ok()
    }
}

/// What of a client's capabilities lets servers ask it something.
pub(super) fn askable(capabilities: ClientCapabilities) -> Option<ClientCapabilities> {
    let able = capabilities.askable();
    (able != ClientCapabilities::NONE).then_some(able)
}
