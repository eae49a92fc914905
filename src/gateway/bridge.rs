//! What servers ask clients while they serve them: elicitation, sampling, roots, in all four pairs of eras.
//!
//! | client, server | |
//! |---|---|
//! | legacy, legacy | the request goes to the client with an id of the session's own, the answer back |
//! | legacy, modern | what the server needs first becomes such requests; with the answers it is asked once more (`again`) |
//! | modern, legacy | the request becomes a result that asks for input; the call waits for the client to come back (`park`) |
//! | modern, modern | the result goes through, with the server's state sealed (`repeat`) |
//!
//! A server may ask only while it serves the client, and only for what that has declared. Source: protocol.md 4.2 to 4.5.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use hyper::body::Bytes;

use super::again::Again;
use super::flight::Mail;
use super::outbox::Worth;
use super::park::Parking;
use super::relay::{Call, Client, Outgoing, Progress};
use super::session::Ticket;
use crate::metrics::{Gauge, Held};
use crate::upstream::{Answer, Parting, Replier, UpstreamError, Waits};
use crate::wire::json::write_text;
use crate::wire::jsonrpc::{Envelope, ErrorObject, Param};
use crate::wire::mcp::{ClientCapabilities, code, method};
use crate::wire::question::{self, Asked, Question};
use crate::wire::splice::Splice;

/// Questions of one call that may be open at a time; more are refused.
pub(super) const MOST_OPEN: usize = 16;

/// What a call has to keep whose server may ask its client for something.
pub(super) struct Bridge {
    /// What the server has asked for and nobody has answered.
    pub(super) open: Vec<Open>,
    /// What goes to the client before anything else.
    queue: VecDeque<Saying>,
    /// Says when the server waits for the client, and so may be silent itself; nothing if that can be asked nothing.
    waits: Option<Waits>,
    /// Whether the client's stream is gone, so that nothing can be asked on it any more.
    deaf: bool,
    /// Whether a client that has called its request off was told what becomes of its questions.
    taken_back: bool,
    /// Counts all open questions.
    count: Gauge,
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
    pub(super) place: Place,
    pub(super) asked: Asked,
    pub(super) to: To,
    _counted: Held,
}

/// What an answer is known by.
pub(super) enum Place {
    /// The question's id in a session.
    Session(Ticket),
    /// Its number in the call.
    Call(u64),
}

impl Place {
    fn number(&self) -> u64 {
        match self {
            Self::Session(ticket) => ticket.number,
            Self::Call(number) => *number,
        }
    }
}

/// Where an answer goes.
pub(super) enum To {
    /// To a legacy server, which has given its request this id.
    Server {
        id: Bytes,
        replies: Replier,
        /// The question as a modern client gets it.
        value: Vec<u8>,
    },
    /// Into the next request to a modern server, under this key.
    Key(String),
}

/// Something for the client.
struct Saying {
    message: Vec<u8>,
    about: About,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// It asks the question of this number.
    Question(u64),
    /// It takes a question back.
    Withdrawal,
    /// What the server says of its work.
    Work,
}

impl Bridge {
    pub(super) fn new(how: How, waits: Option<Waits>, count: Gauge) -> Self {
        let (open, queue) = (Vec::new(), VecDeque::new());
        Self { open, queue, waits, deaf: false, taken_back: false, count, how }
    }

    /// The parking of a modern client's call.
    pub(super) fn parking(&mut self) -> Option<&mut Parking> {
        match &mut self.how {
            How::Results(parking) => Some(parking),
            How::Requests(_) => None,
        }
    }

    /// What it takes to ask a modern server once more.
    pub(super) fn again(&mut self) -> Option<&mut Again> {
        match &mut self.how {
            How::Requests(again) => Some(again),
            How::Results(_) => None,
        }
    }

    /// Takes note of a question; a legacy client gets it as this request.
    pub(super) fn ask(&mut self, place: Place, asked: Asked, to: To, request: Option<Vec<u8>>) {
        let about = About::Question(place.number());
        self.queue.extend(request.map(|message| Saying { message, about }));
        self.open.push(Open { place, asked, to, _counted: self.count.hold() });
        self.note_waiting();
    }

    /// Says something to the client before anything else.
    pub(super) fn say(&mut self, messages: impl IntoIterator<Item = Vec<u8>>) {
        self.queue.extend(messages.into_iter().map(|message| Saying { message, about: About::Work }));
    }

    /// Takes out the questions that are over.
    pub(super) fn take(&mut self, is_over: impl Fn(&Open) -> bool) -> Vec<Open> {
        let over = self.open.extract_if(.., |open| is_over(open)).collect();
        self.note_waiting();
        over
    }

    fn note_waiting(&self) {
        if let Some(waits) = &self.waits {
            waits.set(!self.open.is_empty());
        }
    }

    /// Takes out the question of this number.
    fn take_numbered(&mut self, number: u64) -> Option<Open> {
        self.take(|open| open.place.number() == number).pop()
    }

    /// Answers every question of a legacy server in the way of somebody who does not want to.
    pub(super) fn answer_nothing(&mut self) -> Parting {
        self.answer_nothing_to(|_| true)
    }

    /// The same for some of the questions.
    pub(super) fn answer_nothing_to(&mut self, which: impl Fn(&Open) -> bool) -> Parting {
        let mut parting = Parting::default();
        for open in self.take(which) {
            if let To::Server { id, replies, .. } = open.to {
                parting.say(replies, question::cancel_answer(open.asked.method, &id));
            }
        }
        parting
    }
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
    fn take_question(&mut self, request: &Envelope, replies: impl FnOnce() -> Option<Replier>) -> bool {
        let capabilities = self.client.capabilities();
        let Some(bridge) = &mut self.bridge else { return false };
        let Some(Question { asked, value }) = question::legacy_to_modern(request) else { return false };
        let (Some(id), Some(replies)) = (request.id(), replies()) else { return false };
        if capabilities.lacks(asked.needed).is_some() || bridge.open.len() >= MOST_OPEN {
            return false;
        }
        let (place, question) = match (&mut bridge.how, &self.client) {
            (How::Requests(_), Client::Legacy(version, ..)) => {
                let Some(ticket) = self.lease.ask() else { return false };
                let question = question::legacy_to_legacy(request, &ticket.id(), *version);
                (Place::Session(ticket), Some(question))
            }
            (How::Results(parking), _) => (Place::Call(parking.next_number(self.lease.alarms())), None),
            (How::Requests(_), Client::Modern(_)) => return false,
        };
        let to = To::Server { id: Bytes::copy_from_slice(id), replies, value };
        bridge.ask(place, asked, to, question);
        true
    }

    /// A server does not want to know any more what it has asked. A legacy client is told.
    pub(super) fn question_withdrawn(&mut self, notification: &Envelope) {
        let (Some(bridge), Some(meant)) = (&mut self.bridge, notification.param(Param::RequestId)) else { return };
        let is_meant = |open: &Open| matches!(&open.to, To::Server { id, .. } if *id == *meant);
        for open in bridge.take(is_meant) {
            if let Place::Session(ticket) = open.place {
                let mut id = Vec::new();
                write_text(&mut id, &ticket.id());
                let span = notification.param_span(Param::RequestId);
                let message = Splice::new(notification.bytes()).replace_if(span, &id).build();
                bridge.queue.push_back(Saying { message, about: About::Withdrawal });
            }
        }
    }

    /// Ends the call whose client has called it off, and tells that what becomes of the questions it was asked: the next
    /// message of that.
    pub(super) fn take_back(&mut self, progress: &mut Progress) -> Option<Vec<u8>> {
        let bridge = self.bridge.as_mut()?;
        if !std::mem::replace(&mut bridge.taken_back, true) {
            let unsent: Vec<About> = bridge.queue.drain(..).map(|saying| saying.about).collect();
            let known = |open: &&Open| !unsent.contains(&About::Question(open.place.number()));
            let notice = |open: &Open| match &open.place {
                Place::Session(ticket) => Some(Saying { message: withdrawal(&ticket.id()), about: About::Withdrawal }),
                Place::Call(_) => None,
            };
            bridge.queue = bridge.open.iter().filter(known).filter_map(notice).collect();
            self.abandon(progress);
            self.say_elsewhere();
        }
        self.bridge.as_mut()?.queue.pop_front().map(|saying| saying.message)
    }

    /// Nobody reads what the client would be sent.
    pub(super) fn nobody_listens(&mut self) {
        if let Some(bridge) = &mut self.bridge {
            bridge.deaf = true;
        }
    }

    /// Sends what is about questions on another stream of the client's session, where its own is gone. Where there is none
    /// nobody will answer.
    fn say_elsewhere(&mut self) {
        let Some(bridge) = self.bridge.as_mut().filter(|bridge| bridge.deaf) else { return };
        for Saying { message, about } in std::mem::take(&mut bridge.queue) {
            let worth = match about {
                About::Question(_) => Worth::Much,
                About::Withdrawal => Worth::Little,
                About::Work => continue,
            };
            let is_said = self.lease.say_elsewhere(message, worth);
            if let (About::Question(number), false) = (about, is_said) {
                self.give_up(number);
            }
        }
    }

    /// Answers a question that the client will never see.
    fn give_up(&mut self, number: u64) {
        let Some(bridge) = &mut self.bridge else { return };
        let Some(Open { to, asked, .. }) = bridge.take_numbered(number) else { return };
        match (to, bridge.again()) {
            (To::Server { id, replies, .. }, _) => replies.reply(question::cancel_answer(asked.method, &id)),
            (To::Key(key), Some(again)) => {
                let error = ErrorObject::new(code::INTERNAL_ERROR, "the client cannot be reached");
                again.take_error(key, asked.method, error);
            }
            (To::Key(_), None) => {}
        }
    }

    /// What there is to do beside waiting for the server.
    pub(super) fn poll_bridge(&mut self, progress: &mut Progress, cx: &mut Context<'_>) -> Poll<Outgoing> {
        if self.bridge.as_ref().is_some_and(|bridge| bridge.queue.is_empty()) {
            // Not before: a client that reads slowly must not have more kept for it than its mailbox takes.
            self.read_mail();
        }
        self.say_elsewhere();
        let Some(bridge) = &mut self.bridge else { return Poll::Pending };
        if let Some(saying) = bridge.queue.pop_front() {
            return Poll::Ready(Outgoing::Message(saying.message));
        }
        match &bridge.how {
            How::Results(_) => self.poll_parking(progress, cx),
            How::Requests(_) => self.poll_again(progress, cx),
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
                Mail::Notification(notification) => self.take_notification(notification),
            }
        }
    }

    /// Takes what the server has said outside of its answer. What is said while the client is away is kept: when that comes
    /// back it may have another progress token.
    fn take_notification(&mut self, notification: Envelope) {
        let is_parked = self.is_parked();
        match self.bridge.as_deref_mut().and_then(Bridge::parking) {
            Some(parking) if is_parked && notification.method().as_deref() != Some(method::CANCELLED) => {
                parking.keep(notification);
            }
            _ => {
                let message = self.notification(self.lease.sent().id, &notification);
                if let Some(bridge) = &mut self.bridge {
                    bridge.say(message);
                }
            }
        }
    }

    /// Takes what a legacy client answers.
    fn take_answer(&mut self, number: u64, answer: &Envelope) {
        let Some(bridge) = &mut self.bridge else { return };
        match bridge.take_numbered(number) {
            Some(Open { to: To::Server { id, replies, .. }, .. }) => {
                replies.reply(Splice::new(answer.bytes()).replace_if(answer.id_span(), &id).build());
            }
            Some(Open { to: To::Key(key), asked, .. }) => {
                let Some(again) = bridge.again() else { return };
                match (answer.error(), answer.result_span()) {
                    (Some(error), _) => again.take_error(key, asked.method, error),
                    (None, Some(result)) => again.take(key, answer.bytes().slice(result.range())),
                    (None, None) => {}
                }
            }
            None => {}
        }
    }
}

/// What takes a question of this id back.
fn withdrawal(id: &str) -> Vec<u8> {
    let mut message =
        format!(r#"{{"jsonrpc":"2.0","method":"{}","params":{{"requestId":"#, method::CANCELLED).into_bytes();
    write_text(&mut message, id);
    message.extend_from_slice(b"}}");
    message
}

/// What of a client's capabilities lets servers ask it something.
pub(super) fn askable(capabilities: ClientCapabilities) -> Option<ClientCapabilities> {
    let able = capabilities.askable();
    (able != ClientCapabilities::NONE).then_some(able)
}
