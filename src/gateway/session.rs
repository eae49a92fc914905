//! Legacy sessions of clients.
//!
//! The id is sealed and says everything needed to serve the session (`wire::seal::SessionId`); what is kept here is soft
//! state that may be dropped and made anew at any time. Only the mark of a session that its client has ended must stay.
//! Source: MCP 2025-11-25, transports, "Session Management"; design 8.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::flight::{Flight, Mail};
use super::lasting::Lasting;
use super::listen::Digests;
use super::outbox::Outbox;
use super::principal::{Memory, Principal};
use super::{ClientState, Gateway, Snapshot};
use crate::policy::ClientId;
use crate::upstream::Tenant;
use crate::wire::json::text_of;
use crate::wire::jsonrpc::Envelope;
use crate::wire::mcp::{ClientCapabilities, ListKind, LogLevel, ProtocolVersion};
use crate::wire::seal::SessionId;

/// How long a session id is valid.
pub(super) const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Ended sessions of one client that are remembered.
const TOMBSTONES: usize = 10_000;

/// Questions to the client of one session that may be open.
const QUESTIONS: usize = 64;

/// When a session id becomes invalid by itself.
pub(super) fn ends(id: &SessionId) -> Duration {
    Duration::from_secs(id.issued) + LIFETIME
}

/// A session that does not exist, has ended, or belongs to somebody else; which of them is nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSession;

/// A client's session, or the lack of one: a legacy request without a session id is served as one that declared nothing.
///
/// A session of which a clone is held is in use, and its soft state is not dropped.
#[derive(Clone, Debug, Default)]
pub struct Session(Option<(SessionId, Arc<State>)>);

impl Session {
    /// The revision that was negotiated, if there is a session.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.0.as_ref().map(|(id, _)| id.version)
    }

    /// What the client declared that it can be asked for.
    #[must_use]
    pub(super) fn capabilities(&self) -> ClientCapabilities {
        self.0.as_ref().map_or(ClientCapabilities::NONE, |(id, _)| id.capabilities)
    }

    /// From which level on the client wants log messages, if it has said so.
    #[must_use]
    pub(super) fn level(&self) -> Option<LogLevel> {
        self.0.as_ref()?.1.level()
    }

    /// What its id says, if there is a session.
    pub(super) fn id(&self) -> Option<&SessionId> {
        self.0.as_ref().map(|(id, _)| id)
    }

    /// Its random bits, if there is a session.
    pub(super) fn nonce(&self) -> Option<[u8; 16]> {
        self.id().map(|id| id.nonce)
    }

    /// Calls off the requests of this id, as the client wrote it, that run in the session; outside of sessions none can be.
    pub fn cancel(&self, principal: &Principal, id: &[u8]) {
        if let Some(session) = self.nonce() {
            principal.state().flights.call_off(session, id);
        }
    }

    /// What waits to be sent to whoever listens in the session, if there is one.
    pub(super) fn outbox(&self) -> Option<&Arc<Outbox>> {
        self.0.as_ref().map(|(_, state)| &state.outbox)
    }

    /// The resources that the client has subscribed to in the session.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<String> {
        self.outbox().map(|outbox| outbox.subscriptions()).unwrap_or_default()
    }

    /// Ends the client's subscription to a resource, if there is one.
    pub(super) fn unsubscribe(&self, uri: &str) {
        if let Some(outbox) = self.outbox() {
            outbox.unsubscribe(uri);
        }
    }

    /// Notes what the client has been shown of a list, or that it was told of that.
    pub(super) fn shown(&self, kind: ListKind, digest: u64) {
        if let Some((_, state)) = &self.0 {
            state.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, digest);
        }
    }

    /// What the client was shown last of each list; of what it has never seen, what it would see now.
    pub(super) fn last_shown(&self, now: &Digests) -> Digests {
        let Some((_, state)) = &self.0 else { return *now };
        let shown = state.shown.lock().unwrap_or_else(PoisonError::into_inner);
        Digests::of(|kind| shown.get(&kind).copied().unwrap_or_else(|| now.get(kind)))
    }

    /// For whom sessions with servers are held, in which they may ask what the client has declared.
    pub(super) fn tenant(&self, client: &ClientId) -> Tenant {
        let (session, capabilities) = (self.nonce(), self.capabilities());
        Tenant::Client { client: client.clone(), session, capabilities, lane: 0 }
    }

    /// Takes note that the client is asked something for a call; `None` outside of sessions, and if too much is open.
    pub(super) fn ask(&self, flight: &Arc<Flight>) -> Option<Ticket> {
        let (_, state) = self.0.as_ref()?;
        let mut questions = state.questions();
        if questions.open.len() >= QUESTIONS {
            return None;
        }
        questions.last += 1;
        let (mark, number) = (questions.mark, questions.last);
        questions.open.insert(number, Arc::downgrade(flight));
        Some(Ticket { state: Arc::clone(state), mark, number })
    }

    /// Hands what the client answers to the call that waits for it. Answers that nobody waits for are normal: they were too
    /// late.
    pub fn answer(&self, response: Envelope) {
        let Some((_, state)) = &self.0 else { return };
        let mut questions = state.questions();
        let number = response.id().and_then(|id| number_of(questions.mark, id));
        let flight = number.and_then(|number| questions.open.remove(&number)).and_then(|flight| flight.upgrade());
        drop(questions);
        if let Some((flight, number)) = flight.zip(number) {
            flight.deliver(Mail::Answer(number, response));
        }
    }
}

/// A question that the client of a session is asked. Nobody waits for its answer any more once this is dropped.
pub(super) struct Ticket {
    state: Arc<State>,
    mark: u32,
    /// Counts the questions of the session.
    pub(super) number: u64,
}

impl Ticket {
    /// The question's id, as the client knows it.
    pub(super) fn id(&self) -> String {
        format!("gw-{:08x}-{}", self.mark, self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.state.questions().open.remove(&self.number);
    }
}

/// The number behind the id of a question, as it is written in a response.
fn number_of(mark: u32, id: &[u8]) -> Option<u64> {
    let text = text_of(id)?;
    let number = text.strip_prefix("gw-")?.strip_prefix(&format!("{mark:08x}"))?.strip_prefix('-')?;
    number.parse().ok()
}

/// What the client of a session is asked, and has not answered.
#[derive(Debug, Default)]
struct Questions {
    /// Part of every id, other than in another life of the session, so that a late answer is not taken for one to a question
    /// of this life.
    mark: u32,
    /// The number of the last question.
    last: u64,
    open: HashMap<u64, Weak<Flight>>,
}

/// What is kept of one session.
#[derive(Debug)]
struct State {
    /// From which level on the client wants log messages, as a place in [`LogLevel::ALL`]; another if it has not said so.
    level: AtomicU8,
    /// What the client is asked.
    questions: Mutex<Questions>,
    /// Whether the session was used in this process, so that what was subscribed to in it is known.
    known: AtomicBool,
    /// What waits to be sent to whoever listens.
    outbox: Arc<Outbox>,
    /// The lists as the client was shown them last, or told that they are others.
    shown: Mutex<BTreeMap<ListKind, u64>>,
}

impl State {
    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn level(&self) -> Option<LogLevel> {
        LogLevel::ALL.get(usize::from(self.level.load(Ordering::Relaxed))).copied()
    }
}

impl Default for State {
    fn default() -> Self {
        let questions = Mutex::new(Questions { mark: rand::random(), ..Questions::default() });
        let (level, known) = (AtomicU8::new(u8::MAX), AtomicBool::default());
        Self { level, questions, known, outbox: Arc::default(), shown: Mutex::default() }
    }
}

impl State {
    /// What an earlier process has kept.
    fn kept(level: LogLevel) -> Arc<Self> {
        Arc::new(Self { level: AtomicU8::new(level as u8), ..Self::default() })
    }
}

/// What belongs to sessions, by their random bits.
type BySession<T> = HashMap<[u8; 16], T, BuildHasherDefault<RandomBits>>;

/// The hash of bits that are random: some of them.
///
/// SECURITY: only bits that were drawn here and came back under a seal are looked up, so nobody can choose where they fall.
#[derive(Default)]
struct RandomBits(u64);

impl Hasher for RandomBits {
    fn write(&mut self, bits: &[u8]) {
        self.0 = bits.first_chunk().map_or(0, |bits| u64::from_ne_bytes(*bits));
    }

    // The length, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Soft state of one client's sessions.
#[derive(Default)]
pub(super) struct Sessions {
    live: BySession<Live>,
    /// When the ids of ended sessions become invalid by themselves.
    ended: BySession<Duration>,
}

/// What is kept of a session that is in use, or was not long ago.
struct Live {
    /// When it was last used, since the Unix epoch.
    used: Duration,
    /// Held by every request that runs in the session.
    state: Arc<State>,
}

impl Live {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.state) == 1
    }
}

impl Sessions {
    /// What earlier processes have kept of a client's sessions, as if they had been used just now.
    pub(super) fn kept(lasting: &Lasting, client: &[u8; 16], now: Duration) -> Self {
        let live = |(nonce, level)| (nonce, Live { used: now, state: State::kept(level) });
        Self {
            live: lasting.levels(client).into_iter().map(live).collect(),
            ended: lasting.ended(client).into_iter().collect(),
        }
    }

    /// Notes that a session is in use; returns what holds it, and another session that had to make room.
    fn touch(&mut self, nonce: [u8; 16], now: Duration, most: usize) -> (Arc<State>, Option<[u8; 16]>) {
        if let Some(live) = self.live.get_mut(&nonce) {
            live.used = now;
            return (Arc::clone(&live.state), None);
        }
        let full = self.live.len() >= most;
        let idle = self.live.iter().filter(|(_, live)| full && live.is_idle());
        let oldest = idle.min_by_key(|(_, live)| live.used).map(|(nonce, _)| *nonce);
        oldest.map(|oldest| self.live.remove(&oldest));
        let state = Arc::<State>::default();
        self.live.insert(nonce, Live { used: now, state: Arc::clone(&state) });
        (state, oldest)
    }

    /// What waits for a session.
    pub(super) fn outbox(&self, nonce: &[u8; 16]) -> Option<Arc<Outbox>> {
        self.live.get(nonce).map(|live| Arc::clone(&live.state.outbox))
    }

    /// The same, and from which level on its client wants log messages.
    pub(super) fn outbox_and_level(&self, nonce: &[u8; 16]) -> Option<(Arc<Outbox>, Option<LogLevel>)> {
        let state = &self.live.get(nonce)?.state;
        Some((Arc::clone(&state.outbox), state.level()))
    }

    /// What waits for any of the sessions.
    pub(super) fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.live.values().map(|live| Arc::clone(&live.state.outbox)).collect()
    }

    /// How many have soft state.
    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// Ends a session; returns one that ended earlier and has to be forgotten to make room.
    fn end(&mut self, id: &SessionId, now: Duration) -> Option<[u8; 16]> {
        if let Some(live) = self.live.remove(&id.nonce) {
            live.state.outbox.end();
        }
        self.ended.retain(|_, until| *until > now);
        let full = self.ended.len() >= TOMBSTONES;
        let first = self.ended.iter().filter(|_| full).min_by_key(|(_, until)| **until).map(|(nonce, _)| *nonce);
        first.map(|nonce| self.ended.remove(&nonce));
        self.ended.insert(id.nonce, ends(id));
        first
    }

    /// Takes out the sessions that were not in use for so long. A stream keeps its session in use to its end.
    fn drop_idle(&mut self, now: Duration, idle: Duration) -> Vec<[u8; 16]> {
        let limit = now.saturating_sub(idle);
        let dropped = self.live.extract_if(|_, live| {
            let is_idle = live.is_idle();
            if !is_idle {
                live.used = now;
            }
            is_idle && live.used < limit
        });
        dropped.map(|(nonce, _)| nonce).collect()
    }
}

impl ClientState {
    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Makes the id of a new session. `now` is the time since the Unix epoch, as everywhere here.
    #[must_use]
    pub fn open_session(
        &self,
        principal: &Principal,
        version: ProtocolVersion,
        capabilities: ClientCapabilities,
        now: Duration,
    ) -> String {
        let (issued, nonce) = (now.as_secs(), rand::random());
        let id = SessionId { principal: principal.state().digest, version, capabilities, issued, nonce };
        id.seal(&self.keys.sessions)
    }

    /// Finds the session of an id that a client sent.
    ///
    /// # Errors
    /// [`NoSession`] if the id was not made here, has expired or was ended, or is another client's.
    pub fn session(
        &self,
        memory: &Memory,
        snapshot: &Snapshot,
        principal: &Principal,
        sealed: &str,
        now: Duration,
    ) -> Result<Session, NoSession> {
        let id = self.session_id(memory, principal, sealed, now)?;
        let most = snapshot.registry().settings().limits.sessions_per_client;
        let mut sessions = principal.state().sessions();
        if sessions.ended.contains_key(&id.nonce) {
            return Err(NoSession);
        }
        let (kept, dropped) = sessions.touch(id.nonce, now, most);
        drop(sessions);
        if let Some(nonce) = dropped {
            self.drop_session(principal.client(), &id.principal, nonce);
        }
        let first = !kept.known.load(Ordering::Relaxed) && !kept.known.swap(true, Ordering::Relaxed);
        let session = Session(Some((id, kept)));
        if first {
            self.resubscribe(&session, principal.client());
        }
        Ok(session)
    }

    /// Notes from which level on the client wants log messages; false if there is no session to note it in.
    pub fn set_level(&self, session: &Session, level: LogLevel) -> bool {
        let Some((id, state)) = &session.0 else { return false };
        if state.level.swap(level as u8, Ordering::Relaxed) != level as u8 {
            self.lasting.keep_level(id, level);
        }
        true
    }

    /// Ends a session for good, and what runs in it.
    ///
    /// # Errors
    /// As [`session`](Self::session).
    pub fn end_session(
        &self,
        memory: &Memory,
        principal: &Principal,
        sealed: &str,
        now: Duration,
    ) -> Result<(), NoSession> {
        let id = self.session_id(memory, principal, sealed, now)?;
        let mut sessions = principal.state().sessions();
        if sessions.ended.contains_key(&id.nonce) {
            return Err(NoSession);
        }
        let forgotten = sessions.end(&id, now);
        drop(sessions);
        if let Some(nonce) = forgotten {
            self.lasting.forget_end(&id.principal, nonce);
        }
        // Before the client is answered: from then on it relies on that.
        self.lasting.keep_end(&id);
        principal.state().flights.call_off_all_of(id.nonce);
        self.pool.end_session(principal.client(), id.nonce);
        Ok(())
    }

    /// Drops the soft state of sessions that nobody has used for long; their ids stay valid.
    pub fn drop_idle_sessions(&self, now: Duration) {
        let idle = self.snapshot().registry().settings().limits.idle_session;
        let mut dropped = HashMap::new();
        for (client, state) in self.known_clients() {
            let of_client = state.sessions().drop_idle(now, idle);
            of_client.iter().for_each(|nonce| self.lasting.forget(&state.digest, *nonce));
            dropped.extend(of_client.into_iter().map(|nonce| (nonce, client.clone())));
        }
        if !dropped.is_empty() {
            self.pool.end_sessions(&dropped);
        }
        self.pool.end_idle(idle);
    }

    /// Drops what else there is of a session whose soft state was dropped.
    fn drop_session(&self, client: &ClientId, digest: &[u8; 16], nonce: [u8; 16]) {
        self.lasting.forget(digest, nonce);
        self.pool.end_session(client, nonce);
    }
}
