//! Calls in flight: what each was begun with, and what ends it before its answer.
//!
//! A client that is removed, a token that is revoked or expires, a grant that is taken away: each ends the calls that
//! were begun with it, within a second (design 14). And a client may call a request of its session off.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::outbox::Worth;
use super::session::Ticket;
use super::{ClientSlot, ClientState, Principal, Session};
use crate::alarm::{Alarm, Alarms};
use crate::outbound::Client as Http;
use crate::policy::{Permit, Registry};
use crate::upstream::{Replier, Tenant, Upstream};
use crate::wire::jsonrpc::Envelope;

/// What may wait for a call that comes from its server: so many messages, and so many bytes of them.
const MOST_MAIL: usize = 64;
const MOST_MAIL_BYTES: usize = 1024 * 1024;

/// Why a call was ended before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The client wants no answer any more.
    CalledOff,
    /// The token has expired.
    Expired,
    /// Client, token or grant are gone.
    Withdrawn,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CalledOff => "the client has called the request off",
            Self::Expired => "the token expired while the call was running; the call may have been executed",
            Self::Withdrawn => "access was taken away while the call was running; the call may have been executed",
        })
    }
}

/// What comes for a call from elsewhere than its own answer.
pub(super) enum Mail {
    /// The client's answer to the question of this number.
    Answer(u64, Envelope),
    /// A request of the server, made outside of the call, and where its answer goes.
    Request(Envelope, Replier),
    /// A notification of the server.
    Notification(Envelope),
}

impl Mail {
    /// What it counts against the limits. An answer counts nothing: there are no more of these than questions.
    fn bytes(&self) -> usize {
        match self {
            Self::Answer(..) => 0,
            Self::Request(message, _) | Self::Notification(message) => message.bytes().len(),
        }
    }
}

/// Where mail waits for a call. It stays the same when the call goes on for another request of its client, so that nothing
/// is lost in between.
#[derive(Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Waiting>,
    /// Whether anything is there; looked at more often than it is.
    has_mail: AtomicBool,
    /// Who reads it.
    waker: Mutex<Option<Waker>>,
}

#[derive(Default)]
struct Waiting {
    mail: Vec<Mail>,
    bytes: usize,
    /// Whether the call is over.
    closed: bool,
}

impl Mailbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes something in; false if the call is over, or does not read as fast as its server writes.
    fn put(&self, mail: Mail) -> bool {
        let mut waiting = self.waiting();
        let bytes = mail.bytes();
        let full = waiting.mail.len() >= MOST_MAIL || waiting.bytes + bytes > MOST_MAIL_BYTES;
        if waiting.closed || (full && bytes > 0 && !waiting.mail.is_empty()) {
            return false;
        }
        waiting.bytes += bytes;
        waiting.mail.push(mail);
        self.has_mail.store(true, Ordering::Release);
        drop(waiting);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waker.inspect(Waker::wake_by_ref);
        true
    }

    fn take(&self) -> Vec<Mail> {
        if !self.has_mail.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut waiting = self.waiting();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.mail)
    }

    /// Takes nothing in any more. What the server has asked, and nobody has read, is refused.
    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.mail);
        drop(waiting);
        for mail in left {
            if let Mail::Request(request, replies) = mail {
                replies.refuse(&request);
            }
        }
    }
}

/// A request as a server knows it, and what it takes to send it.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) upstream: Arc<Upstream>,
    pub(super) permit: Permit,
    /// The connections of the thread that the client is served on.
    pub(super) http: Http,
    pub(super) tenant: Tenant,
    pub(super) id: u64,
}

/// One call in flight.
pub(super) struct Flight {
    /// The client's id of the request, as it wrote it.
    id: Arc<[u8]>,
    /// The session that it runs in, by its random bits.
    session: Option<[u8; 16]>,
    principal: Principal,
    pub(super) sent: Sent,
    /// One of the values below; whatever was ordered first counts.
    order: AtomicU8,
    /// Who wants to know of that.
    waker: Mutex<Option<Waker>>,
    /// What comes for it from elsewhere; only for calls whose client can be asked something, as no others read it.
    mailbox: Option<Arc<Mailbox>>,
}

const GO_ON: u8 = 0;
const CALLED_OFF: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Flight {
    fn new(
        id: Arc<[u8]>,
        session: Option<[u8; 16]>,
        principal: Principal,
        sent: Sent,
        mailbox: Option<Arc<Mailbox>>,
    ) -> Self {
        Self { id, session, principal, sent, order: AtomicU8::new(GO_ON), waker: Mutex::default(), mailbox }
    }

    fn end(&self, order: u8) {
        let _ = self.order.compare_exchange(GO_ON, order, Ordering::Release, Ordering::Relaxed);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.inspect(Waker::wake_by_ref);
    }

    /// Brings something for the call; false if it does not take it.
    pub(super) fn deliver(&self, mail: Mail) -> bool {
        self.mailbox.as_ref().is_some_and(|mailbox| mailbox.put(mail))
    }

    /// Whom the next order, and mail, wakes.
    fn listen(&self, waker: &Waker) {
        for place in [Some(&self.waker), self.mailbox.as_ref().map(|mailbox| &mailbox.waker)].into_iter().flatten() {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        }
    }

    fn over(&self) -> Poll<Over> {
        match self.order.load(Ordering::Acquire) {
            GO_ON => Poll::Pending,
            CALLED_OFF => Poll::Ready(Over::CalledOff),
            _ => Poll::Ready(Over::Withdrawn),
        }
    }

    /// Ends the call if it could not be begun under this registry.
    fn review(&self, registry: &Registry) {
        let permit = &self.sent.permit;
        let server = &permit.server().id;
        // A server that is gone takes no rights away: what it was asked before may be answered.
        let gone = registry.server(server).is_none();
        let allowed = gone || registry.decide(permit.client(), server, permit.target()).verdict.is_ok();
        if !registry.still_knows(self.principal.caller()) || !allowed {
            self.end(WITHDRAWN);
        }
    }
}

/// The calls in flight of one client.
#[derive(Default)]
pub(super) struct Flights(Mutex<Vec<Arc<Flight>>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, flight: &Arc<Flight>) {
        let mut flights = self.lock();
        if let Some(at) = flights.iter().position(|other| Arc::ptr_eq(other, flight)) {
            flights.swap_remove(at);
        }
    }

    /// Ends the calls that could not be begun under this registry.
    pub(super) fn review(&self, registry: &Registry) {
        self.lock().iter().for_each(|flight| flight.review(registry));
    }

    /// Those that fit and take mail, the last that was begun first.
    pub(super) fn reading(&self, fits: impl Fn(&Sent) -> bool) -> Vec<Arc<Flight>> {
        let flights = self.lock();
        let reading = flights.iter().rev().filter(|flight| flight.mailbox.is_some() && fits(&flight.sent));
        reading.cloned().collect()
    }

    /// Ends the calls of this id, as the client wrote it, that run in a session. A client may use an id twice; calling it off
    /// means both.
    pub(super) fn call_off(&self, session: [u8; 16], id: &[u8]) {
        self.call_off_those(|flight| flight.session == Some(session) && *flight.id == *id);
    }

    /// Ends all calls that run in a session: nobody could answer what their servers ask any more, or call them off.
    pub(super) fn call_off_all_of(&self, session: [u8; 16]) {
        self.call_off_those(|flight| flight.session == Some(session));
    }

    fn call_off_those(&self, are_meant: impl Fn(&Flight) -> bool) {
        let flights = self.lock();
        let meant = flights.iter().filter(|flight| are_meant(flight));
        meant.for_each(|flight| flight.end(CALLED_OFF));
    }
}

/// Held by a call while it runs; keeps its session in use.
pub(super) struct Lease {
    /// What the call counts as for its client.
    slot: ClientSlot,
    session: Session,
    flight: Arc<Flight>,
    /// Whom an order wakes, as far as it was said here: as long as that is the same task, it need not be said again.
    listening: Option<Waker>,
    /// Rings when the token expires.
    expiry: Option<Box<Alarm>>,
}

impl Lease {
    /// Begins a call with the client's `id`; `now` is the time since the epoch. One that is `asked` can ask its client
    /// something.
    pub(super) fn new(
        slot: ClientSlot,
        principal: Principal,
        session: Session,
        sent: Sent,
        id: Arc<[u8]>,
        now: Duration,
        asked: bool,
    ) -> Self {
        let expiry = expiry(&principal, &sent, now);
        let mailbox = asked.then(Arc::<Mailbox>::default);
        let flight = Arc::new(Flight::new(id, session.nonce(), principal, sent, mailbox));
        slot.state().flights.lock().push(Arc::clone(&flight));
        Self { slot, session, flight, listening: None, expiry }
    }

    /// Goes on with the call in the name of another request, of the same client.
    pub(super) fn renew(&mut self, principal: Principal, id: &Arc<[u8]>, now: Duration) {
        let (sent, mailbox) = (self.flight.sent.clone(), self.flight.mailbox.clone());
        self.expiry = expiry(&principal, &sent, now);
        let flight = Arc::new(Flight::new(Arc::clone(id), self.session.nonce(), principal, sent, mailbox));
        let flights = &self.slot.state().flights;
        flights.lock().push(Arc::clone(&flight));
        flights.leave(&self.flight);
        (self.flight, self.listening) = (flight, None);
    }

    /// What is kept for the client.
    pub(super) fn client(&self) -> &Arc<ClientState> {
        self.slot.state()
    }

    /// Takes note that the client of the session is asked something; `None` if it cannot be asked more, or not at all.
    pub(super) fn ask(&self) -> Option<Ticket> {
        self.session.ask(&self.flight)
    }

    /// Has a message sent on the stream that the session's client has opened by GET; false if there is none.
    pub(super) fn say_elsewhere(&self, message: Vec<u8>, worth: Worth) -> bool {
        self.session.outbox().is_some_and(|outbox| outbox.push(message, worth))
    }

    /// What has come for the call.
    pub(super) fn take_mail(&self) -> Vec<Mail> {
        self.flight.mailbox.as_ref().map(|mailbox| mailbox.take()).unwrap_or_default()
    }

    /// What rings on the thread that the client is served on.
    pub(super) fn alarms(&self) -> &Alarms {
        self.flight.sent.http.alarms()
    }

    /// The call, for whoever sends it.
    pub(super) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// The request as the server knows it.
    pub(super) fn sent(&self) -> &Sent {
        &self.flight.sent
    }

    /// The client's id of the request, as it wrote it.
    pub(super) fn id(&self) -> &[u8] {
        &self.flight.id
    }

    /// Ends the call if it could not be begun under this registry.
    pub(super) fn review(&self, registry: &Registry) {
        self.flight.review(registry);
    }

    /// Whether the call has been ordered to end.
    pub(super) fn is_over(&self) -> bool {
        self.flight.over().is_ready()
    }

    /// Ready when the call has to end.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        if !self.listening.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.flight.listen(cx.waker());
            self.listening = Some(cx.waker().clone());
        }
        // Looked at last: an order given before anybody listened is seen here.
        if let Poll::Ready(over) = self.flight.over() {
            return Poll::Ready(over);
        }
        match &mut self.expiry {
            Some(expiry) => expiry.poll(cx).map(|()| Over::Expired),
            None => Poll::Pending,
        }
    }
}

/// Rings when the token expires.
fn expiry(principal: &Principal, sent: &Sent, now: Duration) -> Option<Box<Alarm>> {
    let alarm = |expires: Duration| sent.http.alarms().after(expires.saturating_sub(now));
    principal.caller().expires().map(|expires| Box::new(alarm(expires)))
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slot.state().flights.leave(&self.flight);
        if let Some(mailbox) = &self.flight.mailbox {
            mailbox.close();
        }
    }
}
