//! The upstreams of a registry, each kept fresh in the background.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::channel::Channel;
use super::{Catalogue, Upstream};
use crate::log::Log;
use crate::outbound::Client;
use crate::policy::{ClientId, Registry, Server, ServerId};
use crate::wire::config::Settings;

/// Catalogues fetched at the same time.
const FETCHES: usize = 128;
/// Longest name that every client and model API takes, in characters.
const LONGEST_NAME: usize = 64;
/// Shortest and longest wait before a server that failed is asked again.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// One upstream for every server of the registry, and a task for each that keeps its catalogue fresh.
///
/// The tasks run on the runtime given at the start, not on those that serve clients.
pub struct Pool {
    runtime: Handle,
    http: Client,
    log: Log,
    fetches: Arc<Semaphore>,
    epoch: Arc<AtomicU64>,
    upstreams: RwLock<HashMap<ServerId, Arc<Upstream>>>,
    /// The refreshers, by server; only `follow` touches them.
    refreshers: Mutex<HashMap<ServerId, AbortHandle>>,
}

impl Pool {
    /// Makes an empty pool whose tasks run on `runtime` and use the connections of `http`, which must belong to it.
    #[must_use]
    pub fn new(runtime: Handle, http: Client, log: Log) -> Self {
        Self {
            runtime,
            http,
            log,
            fetches: Arc::new(Semaphore::new(FETCHES)),
            epoch: Arc::default(),
            upstreams: RwLock::default(),
            refreshers: Mutex::default(),
        }
    }

    /// Makes the pool match a registry: unchanged servers keep their upstream, its sessions and its catalogue.
    pub fn follow(&self, registry: &Registry) {
        let settings = Arc::new(registry.settings().clone());
        let mut refreshers = self.refreshers();
        let old = self.upstreams.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut new = HashMap::with_capacity(old.len());
        for server in registry.servers() {
            let kept = old.get(&server.id).filter(|u| u.server == *server).cloned();
            let upstream = kept.unwrap_or_else(|| {
                let made = self.make(server, &settings);
                let task = self.runtime.spawn(self.keep_fresh(Arc::clone(&made)));
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
        *self.upstreams.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    fn make(&self, server: &Arc<Server>, settings: &Arc<Settings>) -> Arc<Upstream> {
        let (epoch, log) = (Arc::clone(&self.epoch), self.log.clone());
        Arc::new(Upstream::new(Arc::clone(server), Arc::clone(settings), epoch, log))
    }

    /// The upstream of a server.
    #[must_use]
    pub fn get(&self, server: &ServerId) -> Option<Arc<Upstream>> {
        self.upstreams.read().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// How often a catalogue of any server has changed; a view of an older epoch has to be looked at again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Ends what the servers hold for one session of a client, in the background.
    pub fn end_session(&self, client: &ClientId, nonce: [u8; 16]) {
        let upstreams = self.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        for upstream in upstreams.values() {
            for session in upstream.sessions.end(client, nonce) {
                let channel = Channel::new(upstream, &self.http);
                self.runtime.spawn(async move { channel.end(&session).await });
            }
        }
    }

    fn refreshers(&self) -> MutexGuard<'_, HashMap<ServerId, AbortHandle>> {
        self.refreshers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one server's catalogue.
    fn keep_fresh(&self, upstream: Arc<Upstream>) -> impl Future<Output = ()> + Send + use<> {
        let (http, fetches) = (self.http.clone(), Arc::clone(&self.fetches));
        async move {
            let mut retry = FIRST_RETRY;
            loop {
                let Ok(turn) = fetches.acquire().await else { return };
                // Made anew each time, for the settings may have changed.
                let fetched = Channel::new(&upstream, &http).refresh().await;
                drop(turn);
                let wait = if fetched {
                    retry = FIRST_RETRY;
                    upstream.settings().refresh
                } else {
                    // Jitter keeps the gateways of a fleet from asking in step.
                    let jittered = retry.mul_f64(rand::random_range(0.8..1.2));
                    retry = (retry * 2).min(LAST_RETRY);
                    jittered
                };
                // Either somebody asks for it or it is due.
                let _ = tokio::time::timeout(wait, upstream.stale.notified()).await;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for task in self.refreshers().values() {
            task.abort();
        }
    }
}

impl Channel {
    /// Fetches the catalogue; a failure leaves the last good one in force. True if it was fetched.
    async fn refresh(&self) -> bool {
        let fetched = self.fetch_catalogue().await;
        let upstream = &self.upstream;
        let failed_before = upstream.offer.borrow().failure.is_some();
        match &fetched {
            Err(error) if !failed_before => upstream.log.warn("server failed", |r| {
                r.field("server", upstream.id()).field("url", upstream.endpoint()).field("reason", error);
            }),
            Err(_) => {}
            Ok(_) if failed_before => {
                upstream.log.info("server recovered", |r| _ = r.field("server", upstream.id()));
            }
            Ok(_) => {}
        }
        let fine = fetched.is_ok();
        upstream.offer.send_modify(|offer| {
            offer.attempted = true;
            match fetched {
                Err(error) => offer.failure = Some(error),
                Ok(catalogue) => {
                    offer.failure = None;
                    offer.fetched = Some(Instant::now());
                    if *offer.catalogue != catalogue {
                        report(upstream, &catalogue);
                        offer.catalogue = Arc::new(catalogue);
                        upstream.epoch.fetch_add(1, Ordering::Release);
                    }
                }
            }
        });
        fine
    }
}

/// Tells the operator what is odd about a catalogue.
fn report(upstream: &Upstream, catalogue: &Catalogue) {
    for left_out in &catalogue.left_out {
        upstream.log.warn("left out of a list", |r| _ = r.field("server", upstream.id()).field("what", left_out));
    }
    let prefix = upstream.server.tool_prefix.len();
    for tool in catalogue.tools.iter().filter(|tool| prefix + tool.name.len() > LONGEST_NAME) {
        upstream.log.warn("exposed name over 64 characters", |r| {
            r.field("server", upstream.id()).field("prefix", &upstream.server.tool_prefix).field("tool", &tool.name);
        });
    }
}
