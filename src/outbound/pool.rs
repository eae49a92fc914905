//! Idle connections, by where they lead.
//!
//! The connection that became idle last is reused first, so that the others run out and are closed. Does not wait:
//! a connection that is not ready for a request is passed over. Knows nothing of what is sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::connect::Link;
use crate::alarm::{Alarm, Alarms};
use crate::policy::Reach;
use crate::wire::endpoint::Endpoint;

/// Idle connections kept per place; the oldest makes room.
const MAX_IDLE: usize = 128;

/// Time between two sweeps; an expired connection is closed that much late at most.
const SWEEP: Duration = Duration::from_millis(500);

/// Where a connection leads, borrowed; the numbers first because they are quick to compare.
pub(super) type Key<'a> = (u16, bool, bool, &'a str);

/// The key of an endpoint: all that its connections have in common.
///
/// SECURITY: the reach belongs to it, or a connection vetted for one owner would serve another.
pub(super) fn key(to: &Endpoint, reach: Reach) -> Key<'_> {
    (to.port, to.https, matches!(reach, Reach::Private), &to.host)
}

/// Where a connection leads, owned; a shelf shares it with the first connection that it held.
pub(super) struct Place {
    port: u16,
    https: bool,
    private: bool,
    host: Box<str>,
}

impl Place {
    pub(super) fn new((port, https, private, host): Key<'_>) -> Self {
        Self { port, https, private, host: host.into() }
    }

    fn key(&self) -> Key<'_> {
        (self.port, self.https, self.private, &self.host)
    }
}

/// The idle connections of one [`Client`](super::Client).
pub(super) struct Pool {
    state: Mutex<State>,
    alarms: Alarms,
}

#[derive(Default)]
struct State {
    /// Sorted by key: found without a look-up key of its own, in a handful of comparisons.
    shelves: Vec<Shelf>,
    /// Whether a task is there that will call [`Pool::sweep`].
    swept: bool,
}

/// The idle connections to one place, longest idle first.
struct Shelf {
    place: Arc<Place>,
    idle: VecDeque<Idle>,
}

struct Idle {
    link: Link,
    until: Instant,
}

impl Idle {
    fn usable(&self, now: Instant) -> bool {
        now < self.until && self.link.sender.is_ready()
    }
}

impl State {
    /// The position of a place's shelf, or where it would be.
    fn find(&self, key: Key<'_>) -> Result<usize, usize> {
        self.shelves.binary_search_by(|shelf| shelf.place.key().cmp(&key))
    }
}

impl Pool {
    pub(super) fn new(alarms: Alarms) -> Self {
        Self { state: Mutex::default(), alarms }
    }

    /// Takes the connection that became idle last and is ready for a request.
    pub(super) fn take(&self, key: Key<'_>) -> Option<Link> {
        let mut state = self.lock();
        let at = state.find(key).ok()?;
        let idle = &mut state.shelves.get_mut(at)?.idle;
        let now = Instant::now();
        let newest = idle.iter().rposition(|idle| idle.usable(now))?;
        idle.remove(newest).map(|idle| idle.link)
    }

    /// Keeps a connection whose answer has ended, to be used within the time `idle`.
    ///
    /// One that is not ready is dropped: it is closed, or the server answered before it had the whole request, and a
    /// client should not go on with that (RFC 9112 9.5). hyper may also leave such a connection unready for ever.
    pub(super) fn put(self: &Arc<Self>, link: Link, idle: Duration) {
        if !link.sender.is_ready() {
            return;
        }
        let until = Instant::now() + idle;
        let mut state = self.lock();
        let at = state.find(link.place.key()).unwrap_or_else(|at| {
            state.shelves.insert(at, Shelf { place: Arc::clone(&link.place), idle: VecDeque::new() });
            at
        });
        if let Some(shelf) = state.shelves.get_mut(at) {
            if shelf.idle.len() == MAX_IDLE {
                shelf.idle.pop_front();
            }
            shelf.idle.push_back(Idle { link, until });
        }
        // There is no runtime when a body is dropped after its runtime has ended; neither is there a connection.
        if !state.swept
            && let Ok(runtime) = Handle::try_current()
        {
            state.swept = true;
            runtime.spawn(sweep_until_empty(Arc::downgrade(self), self.alarms.after(SWEEP)));
        }
    }

    /// Closes what has expired and forgets what is closed; says whether anything is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        for shelf in &mut state.shelves {
            shelf.idle.retain(|idle| now < idle.until && !idle.link.sender.is_closed());
        }
        state.shelves.retain(|shelf| !shelf.idle.is_empty());
        state.swept = !state.shelves.is_empty();
        state.swept
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that closes expired connections: runs from the first idle connection until none is left.
async fn sweep_until_empty(pool: Weak<Pool>, mut alarm: Alarm) {
    loop {
        alarm.ring().await;
        alarm.move_to(alarm.deadline() + SWEEP);
        let left = pool.upgrade().is_some_and(|pool| pool.sweep());
        if !left {
            return;
        }
    }
}

#[cfg(test)]
impl Pool {
    /// The number of connections kept.
    pub(super) fn idle(&self) -> usize {
        self.lock().shelves.iter().map(|shelf| shelf.idle.len()).sum()
    }

    /// The number of connections that a request could take.
    pub(super) fn ready(&self) -> usize {
        let now = Instant::now();
        self.lock().shelves.iter().flat_map(|shelf| &shelf.idle).filter(|idle| idle.usable(now)).count()
    }
}
