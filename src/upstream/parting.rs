//! The last that a server hears of a call that ends before its response: what becomes of the questions it has asked, and
//! then that nobody waits any more. Source: protocol.md 3.7, 4.2.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::sleep;

use super::Upstream;
use super::answer::Answer;
use super::channel::{Channel, Dialect, cancelled};
use super::ear::Replier;
use super::legacy::Tenant;

/// More partings than there will ever be at a time; what the count starts from.
const MOST: u32 = 1 << 20;

/// Counts the partings that are under way, so that the process does not end before them.
#[derive(Clone)]
pub(super) struct Partings(Arc<Semaphore>);

impl Default for Partings {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST as usize)))
    }
}

impl Partings {
    fn hold(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }

    /// Waits until none is under way.
    pub(super) async fn over(&self) {
        // The semaphore is never closed.
        let _ = self.0.acquire_many(MOST).await.map(drop);
    }
}

/// Messages that are on their way to one server at a time, beside requests and what its ears say.
const ON_THE_WAY: usize = 64;
/// How many of them may wait for that.
const WAITING: usize = 1024;

/// Keeps a server that takes messages slowly, or not at all, from having ever more tasks and connections wait for it.
pub(super) struct Messages {
    turns: Semaphore,
    waiting: Arc<Semaphore>,
}

impl Default for Messages {
    fn default() -> Self {
        Self { turns: Semaphore::new(ON_THE_WAY), waiting: Arc::new(Semaphore::new(WAITING)) }
    }
}

impl Messages {
    /// Held from when somebody wants to send something to when all of it was sent; `None` if too many do.
    pub(super) fn wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    /// Waits for a turn to send one message. The semaphore is never closed.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }
}

/// By when a request has arrived at its server.
const ARRIVED: Duration = Duration::from_secs(1);

/// The last words about one call, in order.
#[derive(Default)]
pub struct Parting {
    words: Vec<(Replier, Vec<u8>)>,
    /// Whose request is called off once more when it must have arrived, in this session, and its id.
    repeated: Option<(Tenant, Replier, u64)>,
}

impl Parting {
    /// Adds a message in a session.
    pub fn say(&mut self, session: Replier, message: Vec<u8>) {
        self.words.push((session, message));
    }

    /// Adds that nobody waits for the rest of this answer, if any is to come. A modern server hears that from its
    /// connection.
    pub fn call_off(&mut self, answer: &Answer) {
        let session = answer.replier().filter(|_| answer.is_unfinished());
        self.words.extend(session.map(|session| (session, cancelled(answer.id()))));
    }

    /// Adds that nobody waits for the answer to a request of this id, which was made so long ago and has not begun: in the
    /// session in which it was made, as far as that is known.
    ///
    /// This goes another way than the request and may overtake it. A server that has not seen the request yet has nothing
    /// to end, and would run it, and ask its client, for nobody; so it is told once more when the request has arrived.
    pub fn call_off_unanswered(&mut self, upstream: &Arc<Upstream>, tenant: &Tenant, id: u64, age: Duration) {
        let Some(session) = upstream.sessions.live(tenant) else { return };
        let session = Replier::beside_calls(upstream, &session);
        self.repeated = (age < ARRIVED).then(|| (tenant.clone(), session.clone(), id));
        self.words.push((session, cancelled(id)));
    }

    /// Sends all of it in the background, one message after the other. Needs no runtime.
    pub fn send(self) {
        let Some((first, _)) = self.words.first() else { return };
        let Some(waiting) = first.wait() else { return };
        let ears = &first.upstream().ears;
        let (runtime, held) = (ears.runtime.clone(), ears.partings.hold());
        runtime.spawn(async move {
            for (session, message) in self.words {
                session.deliver(message).await;
            }
            drop((held, waiting));
            let Some((tenant, session, id)) = self.repeated else { return };
            sleep(ARRIVED).await;
            if session.is_live(&tenant) {
                session.reply(cancelled(id));
            }
        });
    }
}

impl Channel {
    /// Tells the server that nobody waits for the response to a request any more, without making anybody wait for that.
    /// A modern server hears it from the connection, which closes when its answer is dropped.
    pub(super) fn cancel(&self, dialect: &Dialect, id: u64) {
        let Dialect::Legacy(session) = dialect else { return };
        Replier::beside_calls(&self.upstream, session).reply(cancelled(id));
    }
}
