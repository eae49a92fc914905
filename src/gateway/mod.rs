//! The use cases, and the only writer.
//!
//! A request takes one [`Snapshot`] and keeps it to its end, so that a reload in the middle cannot mix two policies.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | [`Gateway`]: the snapshot, and what is kept for each client |
//! | `view` | [`View`]: what one client sees, and its ready-made lists |
//! | `call` | [`Relay`]: one call from its permit to its response |
//! | `session` | legacy sessions of clients: sealed ids and their soft state |
//! | `reload` | following the configuration file |
//! | `error` | [`GatewayError`] |

mod call;
mod error;
pub mod reload;
mod session;
mod view;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use self::call::{Outgoing, Relay, Request};
pub use self::error::GatewayError;
pub use self::session::{NoSession, Session};
pub use self::view::View;

use self::session::Sessions;
use crate::log::Log;
use crate::policy::{ClientId, Registry};
use crate::upstream::Pool;
use crate::wire::seal::Sealer;

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
}

/// The gateway, shared by all threads.
pub struct Gateway {
    current: RwLock<Snapshot>,
    /// Held by whoever puts another registry in force: pool and snapshot change together.
    writer: Mutex<()>,
    pool: Pool,
    clients: [Mutex<HashMap<ClientId, Arc<ClientState>>>; SHARDS],
    hasher: RandomState,
    sealer: Sealer,
    log: Log,
}

/// What is kept for one client; all of it can be made anew.
#[derive(Default)]
struct ClientState {
    view: Mutex<Option<Arc<View>>>,
    sessions: Mutex<Sessions>,
    in_flight: AtomicUsize,
}

/// One call in flight for a client.
struct ClientSlot(Arc<ClientState>);

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gateway {
    /// Starts with a registry; its servers are asked at once for what they offer. `sealer` makes the session ids.
    #[must_use]
    pub fn new(registry: Registry, pool: Pool, sealer: Sealer, log: Log) -> Self {
        pool.follow(&registry);
        Self {
            current: RwLock::new(Snapshot { registry: Arc::new(registry), generation: 0 }),
            writer: Mutex::default(),
            pool,
            clients: Default::default(),
            hasher: RandomState::new(),
            sealer,
            log,
        }
    }

    /// What is in force now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
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
            if after.registry().client(&client).is_none() {
                self.shard(&client).remove(&client);
                self.pool.end_client(&client);
                continue;
            }
            // A view is made anew only for a client whose part of the registry has changed.
            let same = after.registry().same_for(before.registry(), &client);
            let mut view = state.view.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(old) = view.take_if(|v| v.belongs_to(&before)) {
                *view = same.then(|| old.carry_over(&after)).flatten();
            }
        }
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
        match shard.get(id) {
            Some(state) => Arc::clone(state),
            None => Arc::clone(shard.entry(id.clone()).or_default()),
        }
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

    /// Counts a call of a client while the guard lives; `None` when it has as many as the limit allows.
    fn client_slot(&self, snapshot: &Snapshot, client: &ClientId) -> Option<ClientSlot> {
        let limit = snapshot.registry().settings().limits.calls_per_client;
        let slot = ClientSlot(self.client(client));
        (slot.0.in_flight.fetch_add(1, Ordering::Relaxed) < limit).then_some(slot)
    }
}
