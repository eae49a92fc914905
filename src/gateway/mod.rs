//! The use cases, and the only writer.
//!
//! A request takes one [`Snapshot`] and keeps it to its end, so that a reload in the middle cannot mix two policies.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | [`Gateway`]: the snapshot, and what is kept for each client |
//! | `view` | [`View`]: what one client sees, and its ready-made lists |
//! | `paging` | where a list goes on after an entry, even one that is gone |
//! | `principal` | [`Principal`]: who has signed in, and what was found good lately |
//! | `call` | [`Request`]: what is passed on to a server, from what the client asks until it is under way |
//! | `relay` | [`Relay`]: the messages of its answer |
//! | `outcome` | the response, as the client gets it |
//! | `bridge` | what servers ask clients while they serve them |
//! | `again` | calls of legacy clients at modern servers, which are asked once more with the answers |
//! | `park` | calls that wait for a modern client to come back with an answer |
//! | `repeat` | what a modern server wants to see again with the answers |
//! | `flight` | calls in flight, and what ends them before their answer |
//! | `listen` | streams of changes, and who is told of one |
//! | `subscribe` | subscriptions to resources, and what servers tell of these |
//! | `task` | [`Task`]: calls whose result is fetched later, and news of them |
//! | `outbox` | what waits to be sent on such a stream |
//! | `session` | legacy sessions of clients: sealed ids and their soft state |
//! | `explain` | why a client may or may not use something, and what it sees |
//! | `keeper` | catalogues and sessions with servers on their way to the disk |
//! | `lasting` | what of clients' sessions outlives the process |
//! | `register` | clients that register themselves: their tokens, and their end |
//! | `change` | changes that REST asks for, on their way to the writer |
//! | `writer` | the one thread that follows the configuration file and changes it |
//! | `vitals` | what is to be seen of the gateway at one instant, for metrics |
//! | `error` | [`GatewayError`] |

mod again;
mod bridge;
mod call;
mod change;
mod error;
mod explain;
mod flight;
mod keeper;
mod lasting;
mod listen;
mod outbox;
mod outcome;
mod paging;
mod park;
mod principal;
mod register;
mod relay;
mod repeat;
mod session;
mod subscribe;
mod task;
mod view;
mod vitals;
pub mod writer;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

pub use self::call::{Request, Speech};
pub use self::change::{Authority, ChangeError, Job, Unavailable};
pub use self::error::{GatewayError, Subject};
pub use self::explain::{Candidate, Explanation, Health, Reason, SeenServer, SeenTool};
pub use self::listen::{Opening, Stream};
pub use self::principal::{Memory, Principal};
pub use self::register::{Granted, TOKEN_LIFETIME};
pub use self::relay::{Outgoing, Relay};
pub use self::session::{NoSession, Session};
pub use self::subscribe::MOST_SUBSCRIPTIONS;
pub use self::task::Task;
pub use self::view::{Page, View, Wanted};
pub use self::vitals::{ServerVitals, Vitals};

use self::flight::Flights;
use self::lasting::Lasting;
use self::listen::Listeners;
use self::park::ParkedCalls;
use self::session::Sessions;
use self::subscribe::Moved;
use crate::budget::Budget;
use crate::log::Log;
use crate::metrics::{Counter, Gauge};
use crate::policy::{ClientId, Registry};
use crate::store::{Catalogues, Journal, TokenEnds};
use crate::upstream::{Hearer, Pool};
use crate::wire::config::Problem;
use crate::wire::jwt::Keys;
use crate::wire::seal::{Sealer, SessionId};

/// Shards of the table of clients: enough that threads hardly ever meet on a lock.
const SHARDS: usize = 16;

/// The registry at one instant.
#[derive(Clone)]
pub struct Snapshot {
    registry: Arc<Registry>,
    /// Counts the registries that were published; what was made for one is not used with another.
    generation: u64,
}

impl Snapshot {
    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How many registries were in force before this one.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// What the gateway signs and seals with; made from the lines of the secret file, the newest first.
pub struct Keyring {
    tokens: Keys,
    sessions: Sealer,
    states: Arc<Sealer>,
    cursors: Sealer,
    tasks: Arc<Sealer>,
}

impl Keyring {
    /// Derives every key from the lines of the secret file.
    #[must_use]
    pub fn new(lines: &[Vec<u8>]) -> Self {
        let lines = || lines.iter().map(Vec::as_slice);
        let sealer = |kind| Sealer::new(lines(), kind);
        let (sessions, states, cursors) = (sealer("session"), Arc::new(sealer("state")), sealer("cursor"));
        let tasks = Arc::new(sealer("task"));
        Self { tokens: Keys::new(lines()), sessions, states, cursors, tasks }
    }

    /// Signs tokens.
    #[must_use]
    pub fn tokens(&self) -> &Keys {
        &self.tokens
    }
}

/// What is known of the newest text of the configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// When the configuration in force was loaded, since the epoch.
    pub at: Duration,
    /// Why a newer text is not in force, if there is one.
    pub refused: Option<Unavailable>,
    /// What is wrong with the newest text that could be read.
    pub problems: Vec<Problem>,
}

/// The gateway, shared by all threads.
pub struct Gateway {
    current: RwLock<Snapshot>,
    /// Held by whoever puts another registry in force: pool and snapshot change together.
    writer: Mutex<()>,
    pool: Pool,
    clients: [Mutex<HashMap<ClientId, Arc<ClientState>>>; SHARDS],
    hasher: RandomState,
    keys: Keyring,
    /// To the writer.
    jobs: SyncSender<Job>,
    /// Whether the writer has been asked to read the configuration again.
    reload: AtomicBool,
    loaded: Mutex<Loaded>,
    started: Duration,
    /// Drawn at the start, so that what only this process can know is told from what another one knew.
    instance: u64,
    config_path: String,
    ends: TokenEnds,
    /// Subscriptions that have to follow their servers.
    moved: Mutex<Vec<Moved>>,
    lasting: Lasting,
    /// Calls in flight, whatever has become of their servers.
    calls: Gauge,
    /// Calls that wait for a modern client to come back.
    parked: Gauge,
    /// What servers have asked clients, and nobody has answered.
    questions: Gauge,
    /// Requests refused because their client had as many running as it may.
    overloaded: Counter,
    log: Log,
}

/// What a gateway begins with.
pub struct Beginning {
    /// The first registry.
    pub registry: Registry,
    /// What is odd about its configuration.
    pub problems: Vec<Problem>,
    /// Where that lies, for people.
    pub config_path: String,
    /// What is signed and sealed with.
    pub keys: Keyring,
    /// What other gateways on the state folder know of tokens.
    pub ends: TokenEnds,
    /// Where catalogues outlive the process; `None` for one that is not to leave a trace.
    pub catalogues: Option<Catalogues>,
    /// Where sessions do; `None` as well.
    pub journal: Option<Journal>,
    /// The time, since the epoch.
    pub now: Duration,
}

/// What is kept for one client; all of it can be made anew.
struct ClientState {
    /// The client, as sealed values name it.
    digest: [u8; 16],
    view: Mutex<Option<Arc<View>>>,
    sessions: Mutex<Sessions>,
    in_flight: AtomicUsize,
    flights: Flights,
    parked: ParkedCalls,
    listeners: Listeners,
    /// When the last of its tokens that was issued or seen here expires, in seconds since the epoch.
    token_ends: AtomicU64,
    /// What of that others have been told.
    noted_ends: AtomicU64,
}

impl ClientState {
    fn new(client: &ClientId, lasting: &Lasting, now: Duration) -> Self {
        let digest = SessionId::principal(client.as_str());
        Self {
            digest,
            view: Mutex::default(),
            sessions: Mutex::new(Sessions::kept(lasting, &digest, now)),
            in_flight: AtomicUsize::default(),
            flights: Flights::default(),
            parked: ParkedCalls::default(),
            listeners: Listeners::default(),
            token_ends: AtomicU64::default(),
            noted_ends: AtomicU64::default(),
        }
    }

    /// Notes when one of the client's tokens expires, since the epoch.
    fn token_lasts_until(&self, expires: Duration) {
        self.token_ends.fetch_max(expires.as_secs(), Ordering::Relaxed);
    }
}

/// One call or request in flight for a client.
pub struct ClientSlot(Arc<ClientState>);

impl ClientSlot {
    fn state(&self) -> &Arc<ClientState> {
        &self.0
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gateway {
    /// Starts with a registry; its servers are asked at once for what they offer. The second part is for the
    /// [`writer::Writer`], without which nothing can be changed.
    #[must_use]
    pub fn new(beginning: Beginning, mut pool: Pool, log: Log) -> (Arc<Self>, Receiver<Job>) {
        let Beginning { registry, problems, config_path, keys, ends, catalogues, journal, now } = beginning;
        if let Some(catalogues) = catalogues {
            catalogues.retain(registry.servers().map(|server| server.key));
            pool.keep_in(catalogues);
        }
        let journal = journal.map(Arc::new);
        if let Some(journal) = &journal {
            keeper::retain(journal, registry.servers().map(|server| server.key));
            pool.keep_sessions_in(Arc::<Journal>::clone(journal));
        }
        pool.follow(&registry);
        let (jobs, waiting) = change::queue();
        let (changed, runtime) = (pool.changed(), pool.runtime().clone());
        let gateway = Arc::new(Self {
            current: RwLock::new(Snapshot { registry: Arc::new(registry), generation: 0 }),
            writer: Mutex::default(),
            pool,
            clients: Default::default(),
            hasher: RandomState::new(),
            keys,
            jobs,
            reload: AtomicBool::default(),
            loaded: Mutex::new(Loaded { at: now, refused: None, problems }),
            started: now,
            instance: rand::random(),
            config_path,
            ends,
            moved: Mutex::default(),
            lasting: Lasting::new(journal),
            calls: Gauge::default(),
            parked: Gauge::default(),
            questions: Gauge::default(),
            overloaded: Counter::default(),
            log,
        });
        let hearer: Weak<dyn Hearer> = Arc::<Self>::downgrade(&gateway);
        gateway.pool.tell(hearer);
        runtime.spawn(listen::follow_changes(Arc::downgrade(&gateway), changed));
        (gateway, waiting)
    }

    /// Counts a request to a REST endpoint, as one of the client's calls, while the guard lives; `None` when the client
    /// has as many as the limit allows.
    #[must_use]
    pub fn rest_slot(&self, snapshot: &Snapshot, principal: &Principal) -> Option<ClientSlot> {
        self.client_slot(snapshot, self.current_state(principal, snapshot))
    }

    /// What all requests hold in buffers.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        self.pool.budget()
    }

    /// Waits until servers have heard the last of the calls that have ended, no longer than that may take.
    pub async fn parted(&self, longest: Duration) {
        self.pool.parted(longest).await;
    }

    /// Tells the servers that a client's session has sessions with that its roots are others, if it has said that it would.
    pub fn roots_changed(&self, principal: &Principal, session: &Session) {
        if session.capabilities().tells_of_roots() {
            self.pool.roots_changed(&session.tenant(principal.client()));
        }
    }

    /// Has the configuration read again soon, with all that it names, even if its text is the same.
    pub fn reload(&self) {
        self.reload.store(true, Ordering::Relaxed);
    }

    /// Where the configuration lies, for people.
    #[must_use]
    pub fn config_path(&self) -> &str {
        &self.config_path
    }

    /// When the gateway was started, since the epoch.
    #[must_use]
    pub fn started(&self) -> Duration {
        self.started
    }

    /// What is known of the newest text of the configuration.
    #[must_use]
    pub fn loaded(&self) -> Loaded {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a newer text than the one in force was refused.
    fn is_refused(&self) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).refused.is_some()
    }

    fn set_loaded(&self, set: impl FnOnce(&mut Loaded)) {
        set(&mut self.loaded.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is in force now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many registries were in force before the one that is now.
    fn generation(&self) -> u64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Puts another registry in force. Returns the one before, which may still be in use and is not cheap to drop.
    pub fn publish(&self, registry: Registry) -> Arc<Registry> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.follow(&registry);
        let before = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            let generation = current.generation + 1;
            std::mem::replace(&mut *current, Snapshot { registry: Arc::new(registry), generation })
        };
        let after = self.snapshot();
        for (client, state) in self.known_clients() {
            state.flights.review(after.registry());
            self.review_listeners(&state, after.registry());
            if after.registry().client(&client).is_none() {
                self.shard(&client).remove(&client);
                self.pool.end_client(&client);
                // Whoever still holds the state must not hold all that the client could see.
                *state.view.lock().unwrap_or_else(PoisonError::into_inner) = None;
                continue;
            }
            // A view is made anew only for a client whose part of the registry has changed.
            let same = after.registry().same_for(before.registry(), &client);
            let mut view = state.view.lock().unwrap_or_else(PoisonError::into_inner);
            let outdated = |v: &View| v.belongs_to(&before) && !(same && v.carry_over(&after));
            // One whose cursors clients hold stays, out of date, to tell where its entries stood.
            view.take_if(|v| outdated(v) && !v.has_cursors());
        }
        for gone in before.registry.clients().filter(|client| after.registry().client(&client.id).is_none()) {
            // Of one that registered itself nobody gets the name again.
            let digest = SessionId::principal(gone.id.as_str());
            self.lasting.forget_client(&digest, gone.registered.is_some());
        }
        self.pool.end_hearing(after.registry());
        self.pool.changed().notify_one();
        before.registry
    }

    /// What the servers that a client sees have to say to models, each at most 2 KiB.
    ///
    /// SECURITY: a self-registered server may speak only to its owner, because its words reach the model of whoever
    /// reads them.
    #[must_use]
    pub fn instructions(&self, snapshot: &Snapshot, client: &ClientId) -> Option<String> {
        let mut texts = Vec::new();
        for server in snapshot.registry().servers_of(client) {
            if server.registered_by.is_some() && server.owner != *client {
                continue;
            }
            let offer = self.pool.get(&server.id).map(|upstream| upstream.offer());
            texts.extend(offer.and_then(|o| o.catalogue.instructions.clone()));
        }
        (!texts.is_empty()).then(|| texts.join("\n\n"))
    }

    fn client(&self, id: &ClientId) -> Arc<ClientState> {
        let mut shard = self.shard(id);
        if let Some(state) = shard.get(id) {
            return Arc::clone(state);
        }
        let state = Arc::new(ClientState::new(id, &self.lasting, self.started));
        shard.insert(id.clone(), Arc::clone(&state));
        state
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder of the array's length is an index of it")]
    fn shard(&self, id: &ClientId) -> MutexGuard<'_, HashMap<ClientId, Arc<ClientState>>> {
        let shard = self.hasher.hash_one(id) as usize % SHARDS;
        self.clients[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every client that anything is kept for.
    fn known_clients(&self) -> Vec<(ClientId, Arc<ClientState>)> {
        let mut known = Vec::new();
        for shard in &self.clients {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            known.extend(shard.iter().map(|(id, state)| (id.clone(), Arc::clone(state))));
        }
        known
    }

    fn moved(&self) -> MutexGuard<'_, Vec<Moved>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every client that has a stream open.
    fn listening_clients(&self) -> Vec<(ClientId, Arc<ClientState>)> {
        let mut listening = Vec::new();
        for shard in &self.clients {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let open = shard.iter().filter(|(_, state)| state.listeners.count() > 0);
            listening.extend(open.map(|(id, state)| (id.clone(), Arc::clone(state))));
        }
        listening
    }

    /// Counts a call of a client while the guard lives; `None` when it has as many as the limit allows.
    fn client_slot(&self, snapshot: &Snapshot, client: Arc<ClientState>) -> Option<ClientSlot> {
        let limit = snapshot.registry().settings().limits.calls_per_client;
        let slot = ClientSlot(client);
        let free = slot.0.in_flight.fetch_add(1, Ordering::Relaxed) < limit;
        if !free {
            self.overloaded.inc();
        }
        free.then_some(slot)
    }
}
