//! The upstreams of a registry, each kept fresh in the background.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::catalogue::Fetched;
use super::channel::Channel;
use super::ear::Replier;
use super::kept::{Keeper, Kept};
use super::lasting::SessionKeeper;
use super::legacy::Session;
use super::parting::Partings;
use super::{Catalogue, Common, Hearer, Offer, Tenant, Upstream, UpstreamError};
use crate::budget::Budget;
use crate::log::Log;
use crate::outbound::Client;
use crate::policy::{ClientId, Registry, Server, ServerId};
use crate::wire::config::Settings;
use crate::wire::mcp::{ListKind, method};

/// Catalogues fetched at the same time.
const FETCHES: usize = 128;
/// Longest name that every client and model API takes, in characters.
const LONGEST_NAME: usize = 64;
/// How many times `list_timeout` a whole catalogue may take in the background.
const PATIENCE: u32 = 10;

/// One upstream for every server of the registry, and a task for each that keeps its catalogue fresh.
///
/// The tasks run on the runtime given at the start, not on those that serve clients.
pub struct Pool {
    fetches: Arc<Semaphore>,
    /// Where catalogues outlive the process, if they do.
    kept: Option<Arc<Kept>>,
    common: Common,
    upstreams: RwLock<HashMap<ServerId, Arc<Upstream>>>,
    /// The refreshers, by server; only `follow` touches them.
    refreshers: Mutex<HashMap<ServerId, AbortHandle>>,
}

impl Pool {
    /// Makes an empty pool whose tasks run on `runtime` and use the connections of `http`, which must belong to it.
    #[must_use]
    pub fn new(runtime: Handle, http: Client, log: Log) -> Self {
        Self {
            fetches: Arc::new(Semaphore::new(FETCHES)),
            kept: None,
            common: Common {
                epoch: Arc::default(),
                changed: Arc::default(),
                runtime,
                http,
                hearer: Arc::default(),
                partings: Partings::default(),
                budget: Budget::default(),
                sessions: None,
                log,
            },
            upstreams: RwLock::default(),
            refreshers: Mutex::default(),
        }
    }

    /// Has catalogues kept there from now on, and new servers begin with what is.
    pub fn keep_in(&mut self, keeper: impl Keeper + 'static) {
        self.kept = Some(Arc::new(Kept::new(Box::new(keeper))));
    }

    /// Has somebody told of what servers say unasked to clients; whoever was first to be told stays that.
    pub fn tell(&self, hearer: Weak<dyn Hearer>) {
        let _ = self.common.hearer.set(hearer);
    }

    /// Wakes one who waits, each time that the [`epoch`](Self::epoch) changes.
    #[must_use]
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.common.changed)
    }

    /// Waits until servers have heard the last of the calls that have ended, no longer than that may take.
    pub async fn parted(&self, longest: Duration) {
        let _ = timeout(longest, self.common.partings.over()).await;
    }

    /// Tells those servers that have a session for this tenant that the roots of its client are others.
    pub fn roots_changed(&self, tenant: &Tenant) {
        let message = format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, method::ROOTS_CHANGED);
        for upstream in self.upstreams.read().unwrap_or_else(PoisonError::into_inner).values() {
            if let Some(session) = upstream.sessions.of(tenant) {
                Replier::beside_calls(upstream, &session).reply(message.clone().into_bytes());
            }
        }
    }

    /// Where the pool's tasks run.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.common.runtime
    }

    /// Has sessions with servers kept there from now on, and new servers go on in those that are.
    pub fn keep_sessions_in(&mut self, keeper: Arc<dyn SessionKeeper>) {
        self.common.sessions = Some(keeper);
    }

    /// Makes the pool match a registry: unchanged servers keep their upstream, its sessions and its catalogue.
    ///
    /// Reads from the disk what is kept of new servers, and so is not for a thread that serves requests.
    pub fn follow(&self, registry: &Registry) {
        let settings = Arc::new(registry.settings().clone());
        let mut refreshers = self.refreshers();
        let old = self.upstreams.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut new = HashMap::with_capacity(old.len());
        for server in registry.servers() {
            let kept = old.get(&server.id).filter(|u| u.server == *server).cloned();
            let upstream = kept.unwrap_or_else(|| {
                let before = old.get(&server.id);
                let made = self.make(server, &settings, before);
                if before.is_none() {
                    self.take_up_sessions(&made, registry);
                }
                let task = self.common.runtime.spawn(self.keep_fresh(Arc::clone(&made)));
                made.hear_of_lists();
                if let Some(before) = refreshers.insert(server.id.clone(), task.abort_handle()) {
                    before.abort();
                }
                made
            });
            upstream.set_settings(&settings);
            new.insert(server.id.clone(), upstream);
        }
        refreshers.retain(|id, task| {
            let stays = new.contains_key(id);
            if !stays {
                task.abort();
            }
            stays
        });
        for (id, upstream) in &old {
            if new.get(id).is_none_or(|kept| !Arc::ptr_eq(kept, upstream)) {
                upstream.ears.close();
                self.bid_farewell(upstream, upstream.sessions.retire());
            }
            if !new.contains_key(id) {
                self.forget(upstream);
            }
        }
        *self.upstreams.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Makes an upstream. One that is only reached or named in another way than before begins with the catalogue that
    /// was known, so that its tools do not vanish, nor their names go to another server, while it is asked again; a new
    /// one with what an earlier process kept of it.
    fn make(&self, server: &Arc<Server>, settings: &Arc<Settings>, before: Option<&Arc<Upstream>>) -> Arc<Upstream> {
        let same = |u: &Upstream| u.server.endpoint == server.endpoint && u.server.owner == server.owner;
        let on_disk = before.and_then(|u| u.retire());
        let (offer, on_disk) = match before.filter(|u| same(u)) {
            Some(known) => (known.offer(), on_disk),
            None => self.kept_offer(server, settings),
        };
        let series = before.map(|u| Arc::clone(u.series())).unwrap_or_default();
        let (server, settings) = (Arc::clone(server), Arc::clone(settings));
        Arc::new(Upstream::new(server, settings, offer, on_disk, series, self.common.clone()))
    }

    /// Goes on in the sessions that an earlier process has opened with a server, but for those of clients that are gone.
    fn take_up_sessions(&self, upstream: &Arc<Upstream>, registry: &Registry) {
        upstream.take_up_sessions();
        let is_gone = |client: &ClientId| registry.client(client).is_none();
        self.end_at(upstream, |tenant| matches!(tenant, Tenant::Client { client, .. } if is_gone(client)));
    }

    /// What answers hold in buffers while they are gathered; the bodies of requests count there too.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.common.budget
    }

    /// What an earlier process kept of a server.
    fn kept_offer(&self, server: &Server, settings: &Settings) -> (Offer, Option<Arc<Catalogue>>) {
        let kept = self.kept.as_ref();
        let offer = kept.map(|kept| kept.offer(server, &settings.limits, &self.common.log)).unwrap_or_default();
        let on_disk = offer.known.then(|| Arc::clone(&offer.catalogue));
        (offer, on_disk)
    }

    /// Removes what is kept of a server that is gone.
    fn forget(&self, upstream: &Upstream) {
        upstream.retire();
        if let Some(kept) = &self.kept {
            kept.remove(&upstream.server);
        }
    }

    /// The upstream of a server.
    #[must_use]
    pub fn get(&self, server: &ServerId) -> Option<Arc<Upstream>> {
        self.upstreams.read().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// How often a catalogue of any server has changed, or was fetched for the first time; a view of an older epoch has to be looked at again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.common.epoch.load(Ordering::Acquire)
    }

    /// Ends what the servers hold for one session of a client, in the background.
    pub fn end_session(&self, client: &ClientId, nonce: [u8; 16]) {
        self.end_sessions(&HashMap::from([(nonce, client.clone())]));
    }

    /// The same for many sessions, given whose they are: looks only once at what the servers hold.
    pub fn end_sessions(&self, sessions: &HashMap<[u8; 16], ClientId>) {
        self.end_tenants(|tenant| match tenant {
            Tenant::Client { client, session: Some(nonce), .. } => sessions.get(nonce) == Some(client),
            _ => false,
        });
    }

    /// Ends what the servers hold for a client that is no more, in the background.
    pub fn end_client(&self, client: &ClientId) {
        self.end_tenants(|tenant| matches!(tenant, Tenant::Client { client: c, .. } if c == client));
    }

    /// Has servers heard no longer for clients that may use nothing of them.
    pub fn end_hearing(&self, registry: &Registry) {
        for upstream in self.upstreams.read().unwrap_or_else(PoisonError::into_inner).values() {
            let may_hear = |client: &ClientId| registry.may_use(client, upstream.id());
            upstream.ears.end(|tenant| matches!(tenant, Tenant::Client { client, .. } if !may_hear(client)));
        }
    }

    /// Ends the sessions with servers that no client has used for so long, in the background; those that were made because
    /// another was taken, as soon as no call can be running in them. One that resources are subscribed to in is in use.
    pub fn end_idle(&self, idle: Duration) {
        let now = Instant::now();
        for upstream in self.upstreams.read().unwrap_or_else(PoisonError::into_inner).values() {
            let whole_call = upstream.settings().limits.whole_call;
            let longest = |tenant: &Tenant| match tenant {
                Tenant::Client { lane: 1.., .. } => idle.min(whole_call),
                Tenant::Client { .. } => idle,
                Tenant::Catalogue => Duration::MAX,
            };
            let is_unused = |tenant: &Tenant, used| now.duration_since(used) > longest(tenant);
            // All of it is asked at once, so that no session is ended which a call has just taken.
            let is_over = |tenant: &Tenant| !upstream.ears.holds(tenant) && !upstream.is_taken(tenant);
            let taken = upstream.sessions.take(|tenant, used| is_unused(tenant, used) && is_over(tenant));
            if !taken.is_empty() {
                upstream.ears.end(|tenant| taken.contains_key(tenant));
                self.bid_farewell(upstream, taken.into_values().flatten());
            }
        }
    }

    fn end_tenants(&self, ends: impl Fn(&Tenant) -> bool) {
        for upstream in self.upstreams.read().unwrap_or_else(PoisonError::into_inner).values() {
            upstream.ears.end(&ends);
            self.end_at(upstream, &ends);
        }
    }

    fn end_at(&self, upstream: &Arc<Upstream>, ends: impl Fn(&Tenant) -> bool) {
        let taken = upstream.sessions.take(|tenant, _| ends(tenant));
        self.bid_farewell(upstream, taken.into_values().flatten());
    }

    /// Tells a server in the background that these sessions are over.
    fn bid_farewell(&self, upstream: &Arc<Upstream>, sessions: impl IntoIterator<Item = Arc<Session>>) {
        for session in sessions {
            let channel = Channel::new(upstream, &self.common.http);
            self.common.runtime.spawn(async move { channel.end(&session).await });
        }
    }

    fn refreshers(&self) -> MutexGuard<'_, HashMap<ServerId, AbortHandle>> {
        self.refreshers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one server's catalogue.
    fn keep_fresh(&self, upstream: Arc<Upstream>) -> impl Future<Output = ()> + Send + use<> {
        let (http, fetches, kept) = (self.common.http.clone(), Arc::clone(&self.fetches), self.kept.clone());
        async move {
            loop {
                upstream.health.due().await;
                let Ok(turn) = Arc::clone(&fetches).acquire_owned().await else { return };
                // Made anew each time, for the settings may have changed.
                Channel::new(&upstream, &http).refresh(turn).await;
                if let Some(kept) = &kept {
                    upstream.keep(kept).await;
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for task in self.refreshers().values() {
            task.abort();
        }
        for upstream in self.upstreams.read().unwrap_or_else(PoisonError::into_inner).values() {
            upstream.ears.close();
        }
        self.common.changed.notify_one();
    }
}

impl Channel {
    /// Fetches the catalogue; a failure leaves the last good one in force.
    ///
    /// After `list_timeout` nobody waits for it any more, and `turn` goes to the next server, but a slow server gets
    /// [`PATIENCE`] times as long.
    async fn refresh(&self, turn: OwnedSemaphorePermit) {
        let limit = self.settings.list_timeout;
        let mut fetch = std::pin::pin!(self.fetch_catalogue());
        let fetched = match timeout(limit, fetch.as_mut()).await {
            Ok(fetched) => fetched,
            Err(_) => {
                drop(turn);
                self.store(Err(UpstreamError::Silent(limit)));
                timeout(limit * PATIENCE, fetch).await.unwrap_or(Err(UpstreamError::TooLong(limit * PATIENCE)))
            }
        };
        self.upstream.note_fetch(&fetched, self.settings.refresh);
        self.store(fetched);
    }

    fn store(&self, fetched: Result<Fetched, UpstreamError>) {
        self.upstream.series.refreshed(fetched.is_ok());
        match fetched {
            Err(error) => self.upstream.failed(&error),
            Ok(fetched) => self.upstream.offers(fetched),
        }
    }
}

impl Upstream {
    /// Puts a catalogue in force that was just fetched.
    fn offers(&self, Fetched { catalogue, ttl }: Fetched) {
        let mut recovered = false;
        self.set_offer(|offer| {
            recovered = offer.failure.take().is_some();
            (offer.known, offer.ttl) = (true, ttl);
            let differs = *offer.catalogue != catalogue;
            // What is odd about a catalogue that an earlier process kept is told once more.
            if differs || !offer.attempted {
                report(self, &catalogue);
            }
            if differs {
                offer.catalogue = Arc::new(catalogue);
            }
            differs
        });
        if recovered {
            self.log.info("server recovered", |r| _ = r.field("server", self.id()));
        }
    }

    /// Notes that what is known of the server is stale, and why; says so the first time.
    pub(super) fn failed(&self, error: &UpstreamError) {
        let mut failed_before = false;
        self.set_offer(|offer| {
            failed_before = offer.failure.replace(error.clone()).is_some();
            false
        });
        if !failed_before {
            self.log.warn("server failed", |r| {
                r.field("server", self.id()).field("url", self.place()).field("reason", error);
            });
        }
    }

    /// Changes what is known of the server, which was asked just now; `set` tells whether the catalogue is another one.
    fn set_offer(&self, set: impl FnOnce(&mut Offer) -> bool) {
        self.offer.send_modify(|offer| {
            let differs = set(offer);
            let first = !std::mem::replace(&mut offer.attempted, true);
            if differs || first {
                self.epoch.fetch_add(1, Ordering::Release);
                self.changed.notify_one();
            }
        });
    }
}

/// Tells the operator what is odd about a catalogue.
fn report(upstream: &Upstream, catalogue: &Catalogue) {
    for left_out in &catalogue.left_out {
        upstream.log.warn("left out of a list", |r| _ = r.field("server", upstream.id()).field("what", left_out));
    }
    let prefix = upstream.server.tool_prefix.len();
    for kind in [ListKind::Tools, ListKind::Prompts] {
        for entry in catalogue.list(kind).iter().filter(|entry| prefix + entry.name.len() > LONGEST_NAME) {
            upstream.log.warn("exposed name over 64 characters", |r| {
                r.field("server", upstream.id()).field("prefix", &upstream.server.tool_prefix);
                r.field(kind.word(), &entry.name);
            });
        }
    }
}
