//! The client side of MCP: one [`Upstream`] per configured server.
//!
//! Knows how to speak to a server and what it offers. Who may use it is not decided here: every call takes a [`Permit`],
//! which only the policy can make; fetching the catalogue is the one thing done without, and what it brings leaves the
//! gateway only through a view.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | [`Upstream`] |
//! | `channel` | a request to a server over one thread's connections |
//! | `answer` | [`Answer`]: the messages of an answer as they arrive |
//! | `resume` | an event stream that ends too early, taken up again |
//! | `request` | requests as one dialect or the other writes them |
//! | `target` | where requests go, and what all of them say |
//! | `probe` | which dialect a server speaks |
//! | `legacy` | the handshake dialect: sessions and their renewal |
//! | `catalogue` | [`Catalogue`]: what a server offers, over all pages |
//! | `ear` | [`Hearer`], [`Subscription`]: who wants to hear what a server says unasked |
//! | `hear` | the life of an ear: its stream, and what the server is told |
//! | `stream` | a stream of what belongs to no request |
//! | `health` | whether a server can be reached, and when it is asked next |
//! | `kept` | [`Keeper`]: catalogues that outlive the process |
//! | `lasting` | [`SessionKeeper`]: sessions that outlive the process |
//! | `parting` | [`Parting`]: the last that a server hears of a call |
//! | `pool` | [`Pool`]: the upstreams of a registry, each kept fresh in the background |
//! | `series` | [`Series`]: what is counted of one server |
//! | `error` | [`UpstreamError`] |

mod answer;
mod catalogue;
mod channel;
mod ear;
mod error;
mod health;
mod hear;
mod kept;
mod lasting;
mod legacy;
mod parting;
mod pool;
mod probe;
mod request;
mod resume;
mod series;
mod stream;
mod target;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::timeout;

pub use self::answer::{Answer, Message, Waits};
pub use self::catalogue::{Catalogue, Listed, Member};
pub use self::ear::{Hearer, Replier, Subscription};
pub use self::error::UpstreamError;
pub use self::kept::Keeper;
pub use self::lasting::SessionKeeper;
pub use self::legacy::Tenant;
pub use self::parting::Parting;
pub use self::pool::Pool;
pub use self::series::{Outcome, Series};

use self::answer::refusal_of;
use self::channel::Channel;
use self::ear::{Ears, Listening};
use self::health::{Health, LEAST_INTERVAL};
use self::kept::OnDisk;
use self::lasting::Lasting;
use self::legacy::Sessions;
use self::parting::Partings;
use self::probe::{Failed, Known};
use self::request::{Call, Request};
use crate::budget::Budget;
use crate::log::Log;
use crate::outbound::Client;
use crate::policy::{ClientId, Permit, Server, ServerId};
use crate::wire::config::Settings;
use crate::wire::endpoint::Endpoint;
use crate::wire::jsonrpc::Envelope;
use crate::wire::mcp::{ClientCapabilities, ListKind, Operation, code};
use crate::wire::rewrite::{Asker, Inputs};

/// What a server offers and how fresh that is.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// The last catalogue that was fetched, by this process or one before it; empty before the first.
    pub catalogue: Arc<Catalogue>,
    /// Whether a catalogue was ever fetched.
    pub known: bool,
    /// For how long a modern server says that it will do, from when it was fetched; of an earlier process nobody knows.
    pub ttl: Option<Duration>,
    /// Whether this process has tried to fetch one.
    pub attempted: bool,
    /// Why the last attempt failed, if it did: the catalogue is stale then.
    pub failure: Option<UpstreamError>,
}

impl Offer {
    /// Whether nobody has to wait for the first catalogue: there is one, or the server is known to be down.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.known || self.attempted
    }
}

/// One MCP server, as the gateway's client side knows it. Shared by all threads.
pub struct Upstream {
    server: Arc<Server>,
    /// The configured headers, parsed.
    headers: HeaderMap,
    /// The settings in force, which a reload may change under a server that stays.
    settings: RwLock<Arc<Settings>>,
    /// Where the server is: its URL, or where that led.
    place: RwLock<Arc<Endpoint>>,
    /// The server's era, once it has told.
    known: RwLock<Option<Known>>,
    /// Held by whoever asks for it, with how that failed last.
    probing: AsyncMutex<Option<Failed>>,
    /// Whether the era has to be asked for again, in the background.
    doubted: AtomicBool,
    /// Whether the era was told from a silence.
    silent: AtomicBool,
    sessions: Sessions,
    /// Who hears what it says unasked.
    ears: Ears,
    next_id: AtomicU64,
    offer: watch::Sender<Offer>,
    /// Counts the catalogues, of all servers together, that differed from the one before; the pool's.
    epoch: Arc<AtomicU64>,
    /// Wakes whoever wants to know of that; the pool's.
    changed: Arc<Notify>,
    /// Whether it can be reached, and when it is asked for its catalogue next.
    health: Health,
    /// What is known of the copy of the catalogue that outlives the process.
    on_disk: Mutex<OnDisk>,
    /// Calls in flight, by client.
    in_flight: Mutex<InFlight>,
    /// Sessions that serve one call at a time and are doing so, by client and what that can be asked for.
    lanes: Mutex<HashMap<(ClientId, ClientCapabilities), BTreeSet<u16>>>,
    /// What is counted; the same for a server of this name before a change of its definition.
    series: Arc<Series>,
    /// What answers hold while they are gathered counts there.
    budget: Budget,
    log: Log,
}

/// What all upstreams of a pool have in common.
#[derive(Clone)]
struct Common {
    epoch: Arc<AtomicU64>,
    changed: Arc<Notify>,
    runtime: Handle,
    /// The connections of that runtime.
    http: Client,
    hearer: Listening,
    partings: Partings,
    budget: Budget,
    /// Where sessions outlive the process, if they do.
    sessions: Option<Arc<dyn SessionKeeper>>,
    log: Log,
}

impl Upstream {
    /// `on_disk` is the catalogue that is kept of it already.
    fn new(
        server: Arc<Server>,
        settings: Arc<Settings>,
        offer: Offer,
        on_disk: Option<Arc<Catalogue>>,
        series: Arc<Series>,
        common: Common,
    ) -> Self {
        let Common { epoch, changed, runtime, http, hearer, partings, budget, sessions, log } = common;
        let mut headers = HeaderMap::new();
        for (name, value) in server.headers.iter() {
            // The registry has refused what is not a header.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        let place = Arc::new(server.endpoint.clone());
        let sessions = Sessions::new(Lasting::new(sessions, &server));
        Self {
            server,
            headers,
            settings: RwLock::new(settings),
            place: RwLock::new(place),
            known: RwLock::default(),
            probing: AsyncMutex::default(),
            doubted: AtomicBool::default(),
            silent: AtomicBool::default(),
            sessions,
            ears: Ears::new(runtime, http, hearer, partings),
            next_id: AtomicU64::new(1),
            offer: watch::Sender::new(offer),
            epoch,
            changed,
            health: Health::new(),
            on_disk: OnDisk::new(on_disk),
            in_flight: Mutex::default(),
            lanes: Mutex::default(),
            series,
            budget,
            log,
        }
    }

    /// The server's id.
    #[must_use]
    pub fn id(&self) -> &ServerId {
        &self.server.id
    }

    /// The server's definition.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// What the server offers, as far as is known now.
    #[must_use]
    pub fn offer(&self) -> Offer {
        self.offer.borrow().clone()
    }

    /// Waits until the server's catalogue was fetched once, or failed to be.
    pub async fn attempted(&self) {
        let mut offer = self.offer.subscribe();
        // The sender lives as long as `self`, so there is no error to see.
        let _ = offer.wait_for(|o| o.attempted).await.map(drop);
    }

    /// For how long what the server offers will do from now on, by its own word; not at all if it has given none, as a
    /// legacy server cannot, or did not answer when it was last asked.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        let ttl = {
            let offer = self.offer.borrow();
            offer.ttl.filter(|_| offer.failure.is_none())
        };
        ttl.zip(self.series.age()).map_or(Duration::ZERO, |(ttl, age)| ttl.saturating_sub(age))
    }

    /// Asks for a fresh catalogue soon; nobody waits for it.
    pub fn refresh_soon(&self) {
        self.health.wanted();
    }

    /// Takes note that the server says that it offers something else: its catalogue is fetched at once.
    pub fn told(&self) {
        self.health.told();
    }

    /// Has the server asked again what it is and what it offers, as it may be another by now.
    pub fn doubt(&self) {
        if self.asking_is_slow() {
            self.doubted.store(true, Ordering::Relaxed);
        } else {
            self.forget();
        }
        self.refresh_soon();
    }

    /// Counts a call while the guard lives; `None` when the server has as many as the limit allows, or the client half
    /// of that, so that no client can keep a server from the others.
    #[must_use]
    pub fn call_slot(self: &Arc<Self>, client: &ClientId) -> Option<CallSlot> {
        let limit = self.settings.read().unwrap_or_else(PoisonError::into_inner).limits.calls_per_server;
        let mut in_flight = self.in_flight();
        let in_flight = &mut *in_flight;
        let own = in_flight.by_client.entry(client.clone());
        let count = if let Entry::Occupied(own) = &own { *own.get() } else { 0 };
        if in_flight.all >= limit || count >= limit.div_ceil(2) {
            self.series.calls.inc(Outcome::Overloaded.as_str());
            return None;
        }
        in_flight.all += 1;
        *own.or_default() += 1;
        let (upstream, client, begun) = (Arc::clone(self), client.clone(), Instant::now());
        Some(CallSlot { upstream, client, begun, outcome: Outcome::Cancelled })
    }

    /// Where what happens to the server's calls is recorded.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Calls in flight.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.in_flight().all
    }

    /// What has been counted of the server.
    #[must_use]
    pub fn series(&self) -> &Arc<Series> {
        &self.series
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session for one call of a client that can be asked something: what the server asks in it is asked for that
    /// call. The lowest that is free, so that calls one after the other share a session.
    #[must_use]
    pub fn lane(self: &Arc<Self>, client: &ClientId, capabilities: ClientCapabilities) -> Lane {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = lanes.entry((client.clone(), capabilities)).or_default();
        let number = (0..u16::MAX).find(|number| !taken.contains(number)).unwrap_or(u16::MAX);
        taken.insert(number);
        Lane { upstream: Arc::clone(self), client: client.clone(), capabilities, number }
    }

    /// Whether a call has taken this tenant's session for itself.
    fn is_taken(&self, tenant: &Tenant) -> bool {
        let Tenant::Client { client, session: None, capabilities, lane } = tenant else { return false };
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.get(&(client.clone(), *capabilities)).is_some_and(|taken| taken.contains(lane))
    }

    /// Sends a client's request, such as a call of a tool, and returns the answer as soon as it begins.
    ///
    /// The request is sent with `id`, from [`next_id`](Self::next_id), which is the progress token too, with the server's
    /// own name for what it is about, and with what the server's era has to be told; nothing else is changed. What provably was
    /// refused before it was executed is sent once more: in a new session where the old one is lost, with other headers
    /// where the tool's schema has changed, in another dialect where the server speaks another.
    ///
    /// # Errors
    /// [`UpstreamError`]. [`UpstreamError::Suspended`] while the breaker is open; [`UpstreamError::Removed`] if the permit
    /// is for another server, or for this one as it was before a change of the configuration.
    pub async fn call(
        self: &Arc<Self>,
        http: &Client,
        permit: &Permit,
        tenant: &Tenant,
        id: u64,
        asked: &Asked,
        inputs: Inputs<'_>,
    ) -> Result<Box<Answer>, UpstreamError> {
        // SECURITY: a permit is for a server as the registry it came from had it, with its address and credentials.
        if *permit.server() != self.server {
            return Err(UpstreamError::Removed);
        }
        self.admit()?;
        let channel = Channel::new(self, http);
        let call = asked.call(permit.name(), inputs);
        let mut answer = channel.request(tenant, id, &Request::Client(call)).await;
        if refusal_of(&answer) == Some(code::HEADER_MISMATCH) {
            answer = Box::pin(self.call_anew(&channel, tenant, id, call)).await;
        }
        self.note_call(&answer);
        answer
    }

    /// Sends a request once more that was refused for its headers, which are as the tool's schema has them now.
    async fn call_anew(
        &self,
        channel: &Channel,
        tenant: &Tenant,
        id: u64,
        call: Call<'_>,
    ) -> Result<Box<Answer>, UpstreamError> {
        let fresh = self.refreshed().await;
        let tool = fresh.list(ListKind::Tools).iter().find(|tool| tool.name == call.name);
        let tool = tool.filter(|_| call.operation == Operation::Call);
        let annotations = tool.map(|tool| tool.annotations.as_slice()).unwrap_or_default();
        channel.request(tenant, id, &Request::Client(Call { annotations, ..call })).await
    }

    /// What the server offers, asked for once more as soon as it may be; what was known before if that takes longer than a
    /// list may.
    async fn refreshed(&self) -> Arc<Catalogue> {
        let mut offer = self.offer.subscribe();
        self.refresh_soon();
        // The sender lives as long as `self`.
        let _ = timeout(LEAST_INTERVAL + self.settings().list_timeout, offer.changed()).await;
        self.offer().catalogue
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_settings(&self, settings: &Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(settings);
    }

    /// An id that no request to the server has had.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn place(&self) -> Arc<Endpoint> {
        Arc::clone(&self.place.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes where the server was found.
    fn move_to(&self, place: Arc<Endpoint>) {
        self.log.info("server found elsewhere", |r| _ = r.field("server", self.id()).field("url", &place));
        self.set_place(place);
    }

    /// Looks for the server at its URL again.
    fn move_to_start(&self) {
        self.set_place(Arc::new(self.server.endpoint.clone()));
    }

    fn set_place(&self, place: Arc<Endpoint>) {
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

/// What a client asks a server, and what has to be known to pass it on.
pub struct Asked {
    /// The client's request.
    pub envelope: Envelope,
    /// What it asks for.
    pub operation: Operation,
    /// Who is behind it.
    pub asker: Asker,
    /// Headers of the client that mirror something nobody here knows of.
    pub passed_on: HeaderMap,
    /// The headers of its trace context, if it has one. Boxed because hardly any has.
    pub trace: Option<Box<HeaderMap>>,
    /// Says when the server waits for the client; only for clients that can be asked something.
    pub waits: Option<Waits>,
    /// The tool, if it is about one: what the server offers, as the client's view has it, and where the tool stands in that.
    pub tool: Option<(Arc<Catalogue>, usize)>,
    /// The server's own id of the task, if it is about one.
    pub task: Option<Box<str>>,
}

impl Asked {
    /// The request as it is sent, about what its server knows by this name, unless it is about a task.
    fn call<'a>(&'a self, name: &'a str, inputs: Inputs<'a>) -> Call<'a> {
        let Self { envelope, operation, asker, passed_on, trace, waits, tool, task } = self;
        let name = task.as_deref().unwrap_or(name);
        let annotations = tool.as_ref().map(|(catalogue, at)| catalogue.annotations(*at)).unwrap_or_default();
        let (operation, asker, waits) = (*operation, *asker, waits.as_ref());
        Call { envelope, operation, name, asker, inputs, annotations, passed_on, trace: trace.as_deref(), waits }
    }
}

/// A session with a server that serves one call at a time.
pub struct Lane {
    upstream: Arc<Upstream>,
    client: ClientId,
    capabilities: ClientCapabilities,
    number: u16,
}

impl Lane {
    /// Whose session it is.
    #[must_use]
    pub fn tenant(&self) -> Tenant {
        let (client, capabilities) = (self.client.clone(), self.capabilities);
        Tenant::Client { client, session: None, capabilities, lane: self.number }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut lanes = self.upstream.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut taken) = lanes.entry((self.client.clone(), self.capabilities)) {
            taken.get_mut().remove(&self.number);
            if taken.get().is_empty() {
                taken.remove();
            }
        }
    }
}

/// Calls in flight to a server.
#[derive(Default)]
struct InFlight {
    all: usize,
    by_client: HashMap<ClientId, usize>,
}

/// One call in flight to a server.
pub struct CallSlot {
    upstream: Arc<Upstream>,
    client: ClientId,
    begun: Instant,
    outcome: Outcome,
}

impl CallSlot {
    /// How long ago the call was begun.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Notes how the call ends; without that it counts as cancelled.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Notes that the call ends without an answer.
    pub fn failed(&mut self, error: &UpstreamError) {
        self.outcome = Outcome::Failed;
        self.upstream.series.errors.inc(error.kind());
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.upstream.series.calls.inc(self.outcome.as_str());
        self.upstream.series.seconds.observe(self.begun.elapsed());
        let mut in_flight = self.upstream.in_flight();
        in_flight.all -= 1;
        if let Entry::Occupied(mut own) = in_flight.by_client.entry(self.client.clone()) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}
