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
//! | `pool` | [`Pool`]: the upstreams of a registry, each kept fresh in the background |
//! | `error` | [`UpstreamError`] |

mod answer;
mod catalogue;
mod channel;
mod error;
mod legacy;
mod pool;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use hyper::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use self::answer::{Answer, Message};
pub use self::catalogue::{Catalogue, Member, Tool};
pub use self::error::UpstreamError;
pub use self::legacy::Tenant;
pub use self::pool::Pool;

use self::channel::Channel;
use self::legacy::Sessions;
use crate::log::Log;
use crate::outbound::Client;
use crate::policy::{Permit, Server, ServerId};
use crate::wire::config::Settings;
use crate::wire::endpoint::Endpoint;

/// What a server offers and how fresh that is.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// The last catalogue that was fetched; empty before the first.
    pub catalogue: Arc<Catalogue>,
    /// When it was fetched.
    pub fetched: Option<Instant>,
    /// Whether fetching was tried at all, so that nobody waits for a server that is known to be down.
    pub attempted: bool,
    /// Why the last attempt failed, if it did: the catalogue is stale then.
    pub failure: Option<UpstreamError>,
}

/// One MCP server, as the gateway's client side knows it. Shared by all threads.
pub struct Upstream {
    server: Arc<Server>,
    /// The configured headers, parsed.
    headers: HeaderMap,
    /// The settings in force, which a reload may change under a server that stays.
    settings: RwLock<Arc<Settings>>,
    /// Where the server really is, when its URL led on to another path.
    moved: OnceLock<Endpoint>,
    sessions: Sessions,
    next_id: AtomicU64,
    offer: watch::Sender<Offer>,
    /// Counts the catalogues, of all servers together, that differed from the one before; the pool's.
    epoch: Arc<AtomicU64>,
    /// Asks the refresher not to wait until the catalogue is due.
    stale: Notify,
    in_flight: AtomicUsize,
    log: Log,
}

impl Upstream {
    fn new(server: Arc<Server>, settings: Arc<Settings>, epoch: Arc<AtomicU64>, log: Log) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in server.headers.iter() {
            // The registry has refused what is not a header.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        Self {
            server,
            headers,
            settings: RwLock::new(settings),
            moved: OnceLock::new(),
            sessions: Sessions::default(),
            next_id: AtomicU64::new(1),
            offer: watch::Sender::default(),
            epoch,
            stale: Notify::new(),
            in_flight: AtomicUsize::new(0),
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
        self.stale.notify_one();
    }

    /// Counts a call while the guard lives; `None` when the server has as many as the limit allows.
    #[must_use]
    pub fn slot(self: &Arc<Self>) -> Option<Slot> {
        let slot = Slot(Arc::clone(self));
        (self.in_flight.fetch_add(1, Ordering::Relaxed) < self.settings().limits.calls_per_server).then_some(slot)
    }

    /// Sends a request for a client and returns its answer as soon as it begins.
    ///
    /// `message` writes the request with the id it is given, which is the progress token too. A session that the server
    /// does not know any more is renewed and the request, which was refused then, sent once more.
    ///
    /// # Errors
    /// [`UpstreamError`]. [`UpstreamError::Removed`] if the permit is for another server.
    pub async fn call(
        self: &Arc<Self>,
        http: &Client,
        permit: &Permit,
        tenant: &Tenant,
        message: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<Answer, UpstreamError> {
        if permit.server().id != self.server.id {
            return Err(UpstreamError::Removed);
        }
        let id = self.next_id();
        Channel::new(self, http).request(tenant, id, message(id)).await
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_settings(&self, settings: &Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(settings);
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn endpoint(&self) -> &Endpoint {
        self.moved.get().unwrap_or(&self.server.endpoint)
    }

    fn move_to(&self, endpoint: Endpoint) {
        self.log.info("server found elsewhere", |r| _ = r.field("server", self.id()).field("url", &endpoint));
        // Whoever was first has found the same place.
        let _ = self.moved.set(endpoint);
    }

    /// Where a redirect leads, if it stays within the origin.
    fn redirected(&self, headers: &HeaderMap) -> Option<Endpoint> {
        let location = headers.get(LOCATION)?.to_str().ok()?;
        let here = self.endpoint();
        if location.starts_with('/') && !location.starts_with("//") {
            return Endpoint::parse(&format!("{}{location}", here.origin())).ok();
        }
        // SECURITY: the configured headers may hold credentials, which must not reach another origin.
        Endpoint::parse(location).ok().filter(|there| there.origin() == here.origin())
    }
}

/// One call in flight to a server.
pub struct Slot(Arc<Upstream>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
