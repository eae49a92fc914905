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
//! | `legacy` | the handshake dialect: sessions and their renewal |
//! | `catalogue` | [`Catalogue`]: what a server offers, over all pages |
//! | `health` | whether a server can be reached, and when it is asked next |
//! | `kept` | [`Keeper`]: catalogues that outlive the process |
//! | `pool` | [`Pool`]: the upstreams of a registry, each kept fresh in the background |
//! | `error` | [`UpstreamError`] |

mod answer;
mod catalogue;
mod channel;
mod error;
mod health;
mod kept;
mod legacy;
mod pool;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;

pub use self::answer::{Answer, Message};
pub use self::catalogue::{Catalogue, Member, Tool};
pub use self::error::UpstreamError;
pub use self::kept::Keeper;
pub use self::legacy::Tenant;
pub use self::pool::Pool;

use self::channel::Channel;
use self::health::Health;
use self::kept::OnDisk;
use self::legacy::{Sessions, rewrite};
use crate::log::Log;
use crate::outbound::Client;
use crate::policy::{ClientId, Permit, Server, ServerId};
use crate::wire::config::Settings;
use crate::wire::endpoint::Endpoint;
use crate::wire::jsonrpc::Envelope;

/// What a server offers and how fresh that is.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// The last catalogue that was fetched, by this process or one before it; empty before the first.
    pub catalogue: Arc<Catalogue>,
    /// Whether a catalogue was ever fetched.
    pub known: bool,
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
    sessions: Sessions,
    next_id: AtomicU64,
    offer: watch::Sender<Offer>,
    /// Counts the catalogues, of all servers together, that differed from the one before; the pool's.
    epoch: Arc<AtomicU64>,
    /// Whether it can be reached, and when it is asked for its catalogue next.
    health: Health,
    /// What is known of the copy of the catalogue that outlives the process.
    on_disk: Mutex<OnDisk>,
    /// Calls in flight, by client.
    in_flight: Mutex<InFlight>,
    log: Log,
}

impl Upstream {
    /// `on_disk` is the catalogue that is kept of it already.
    fn new(
        server: Arc<Server>,
        settings: Arc<Settings>,
        offer: Offer,
        on_disk: Option<Arc<Catalogue>>,
        epoch: Arc<AtomicU64>,
        log: Log,
    ) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in server.headers.iter() {
            // The registry has refused what is not a header.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        let place = Arc::new(server.endpoint.clone());
        Self {
            server,
            headers,
            settings: RwLock::new(settings),
            place: RwLock::new(place),
            sessions: Sessions::default(),
            next_id: AtomicU64::new(1),
            offer: watch::Sender::new(offer),
            epoch,
            health: Health::new(),
            on_disk: OnDisk::new(on_disk),
            in_flight: Mutex::default(),
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

    /// Asks for a fresh catalogue soon; nobody waits for it.
    pub fn refresh_soon(&self) {
        self.health.wanted();
    }

    /// Counts a call while the guard lives; `None` when the server has as many as the limit allows, or the client half
    /// of that, so that no client can keep a server from the others.
    #[must_use]
    pub fn call_slot(self: &Arc<Self>, client: &ClientId) -> Option<CallSlot> {
        let limit = self.settings().limits.calls_per_server;
        let mut in_flight = self.in_flight();
        let own = in_flight.by_client.get(client).copied().unwrap_or_default();
        if in_flight.all >= limit || own >= limit.div_ceil(2) {
            return None;
        }
        in_flight.all += 1;
        in_flight.by_client.insert(client.clone(), own + 1);
        Some(CallSlot { upstream: Arc::clone(self), client: client.clone() })
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a client's request to call a tool and returns the answer as soon as it begins.
    ///
    /// The request is sent with `id`, from [`next_id`](Self::next_id), which is the progress token too, and with the
    /// server's own name for the tool; nothing else is changed. A session that the server does not know any more is renewed, and the request,
    /// which was refused then, sent once more.
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
        envelope: &Envelope,
    ) -> Result<Answer, UpstreamError> {
        // SECURITY: a permit is for a server as the registry it came from had it, with its address and credentials.
        if *permit.server() != self.server {
            return Err(UpstreamError::Removed);
        }
        self.admit()?;
        let answer = Channel::new(self, http).request(tenant, id, rewrite(envelope, id, permit.name())).await;
        self.note_call(&answer);
        answer
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_settings(&self, settings: &Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(settings);
    }

    /// Tells the server, in the background, that nobody waits for the response to a call any more.
    pub fn cancel(self: &Arc<Self>, http: &Client, tenant: &Tenant, id: u64) {
        if let Some(session) = self.sessions.live(tenant) {
            Channel::new(self, http).cancel(&session, id);
        }
    }

    /// An id that no request to the server has had.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn place(&self) -> Arc<Endpoint> {
        Arc::clone(&self.place.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes where the server is; `None` for its URL.
    fn move_to(&self, place: Option<Arc<Endpoint>>) {
        if let Some(place) = &place {
            self.log.info("server found elsewhere", |r| _ = r.field("server", self.id()).field("url", place));
        }
        let place = place.unwrap_or_else(|| Arc::new(self.server.endpoint.clone()));
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = place;
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
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        let mut in_flight = self.upstream.in_flight();
        in_flight.all -= 1;
        if let Some(own) = in_flight.by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                in_flight.by_client.remove(&self.client);
            }
        }
    }
}
