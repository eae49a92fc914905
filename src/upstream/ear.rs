//! What a server says unasked: who wants to hear it, and who is told.
//!
//! An [`Ear`] is kept for each tenant that needs one: for the gateway itself, which wants to know of lists that change,
//! and for clients that have subscribed to resources or can be asked things. Each is a task on the pool's runtime, whose
//! work is in `hear`; what it hears goes to the pool's [`Hearer`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::AbortHandle;

use super::answer::refusal_to;
use super::channel::Channel;
use super::error::UpstreamError;
use super::legacy::{Session, Tenant};
use super::parting::{Messages, Partings};
use super::{Upstream, hear};
use crate::outbound::Client;
use crate::policy::Permit;
use crate::wire::changes::Topic;
use crate::wire::jsonrpc::Envelope;

/// Who is told what servers say unasked to one of their tenants. Nothing of it is waited for.
pub trait Hearer: Send + Sync {
    /// A notification: that a resource was updated, progress, a log message.
    fn told(&self, upstream: &Arc<Upstream>, tenant: &Tenant, notification: &Envelope);

    /// A request. Whoever returns true answers it by the replier, now or later; else the server is told that nobody will.
    fn asked(&self, upstream: &Arc<Upstream>, tenant: &Tenant, request: &Envelope, replier: &Replier) -> bool;
}

/// Answers what a server has asked in one session.
#[derive(Clone)]
pub struct Replier {
    channel: Channel,
    session: Arc<Session>,
}

impl Replier {
    pub(super) fn new(channel: &Channel, session: &Arc<Session>) -> Self {
        Self { channel: channel.clone(), session: Arc::clone(session) }
    }

    /// The same beside all calls, over the connections of the runtime on which it sends.
    pub(super) fn beside_calls(upstream: &Arc<Upstream>, session: &Arc<Session>) -> Self {
        Self::new(&Channel::new(upstream, &upstream.ears.http), session)
    }

    /// Sends the answer, in the background.
    pub fn reply(&self, answer: Vec<u8>) {
        let Some(waiting) = self.wait() else { return };
        let replier = self.clone();
        self.upstream().ears.runtime.spawn(async move {
            replier.deliver(answer).await;
            drop(waiting);
        });
    }

    /// Held while something waits to be sent; `None` if so much does already that this is lost.
    pub(super) fn wait(&self) -> Option<OwnedSemaphorePermit> {
        let upstream = self.upstream();
        let waiting = upstream.ears.messages.wait();
        if waiting.is_none() {
            upstream.log.debug("message to server lost", |r| {
                r.field("server", upstream.id()).text("reason", "it does not take those before");
            });
        }
        waiting
    }

    /// Sends a message in the session when it is its turn.
    pub(super) async fn deliver(&self, message: Vec<u8>) {
        let _turn = self.upstream().ears.messages.turn().await;
        self.channel.notify_or_log(&self.session, message).await;
    }

    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.channel.upstream
    }

    /// Whether it is still the tenant's session.
    pub(super) fn is_live(&self, tenant: &Tenant) -> bool {
        self.upstream().sessions.live(tenant).is_some_and(|live| Arc::ptr_eq(&live, &self.session))
    }

    /// Tells the server that nobody will answer its request; a ping gets its pong. One that does not take what it has asked
    /// for is told no more.
    pub fn refuse(&self, request: &Envelope) {
        if let Some(refusal) = refusal_to(request) {
            self.reply(refusal);
        }
    }
}

/// Who hears what the servers of a pool say; set once.
pub(super) type Listening = Arc<OnceLock<Weak<dyn Hearer>>>;

/// The ears at one server.
pub(super) struct Ears {
    pub(super) runtime: Handle,
    /// The connections of that runtime.
    pub(super) http: Client,
    hearer: Listening,
    pub(super) partings: Partings,
    pub(super) messages: Messages,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    ears: HashMap<Tenant, Arc<Ear>>,
    /// Whether no more are opened, because the server is another by now.
    closed: bool,
}

/// What one tenant wants to hear, and how far the server has been told.
pub(super) struct Ear {
    wants: Mutex<Wants>,
    /// Says that the tenant wants something else.
    pub(super) wanted: watch::Sender<()>,
    /// Says that the server has answered.
    settled: watch::Sender<()>,
    task: OnceLock<AbortHandle>,
}

#[derive(Default)]
struct Wants {
    /// Whether the tenant's client can be asked things.
    asked: bool,
    topics: BTreeMap<Topic, Want>,
}

/// A resource or task that is subscribed to.
struct Want {
    /// How many want it.
    holders: usize,
    state: State,
}

#[derive(Clone)]
enum State {
    /// The server has not answered yet.
    New,
    /// The server tells of changes.
    Live,
    /// The server will not.
    Refused(UpstreamError),
}

impl Ears {
    pub(super) fn new(runtime: Handle, http: Client, hearer: Listening, partings: Partings) -> Self {
        Self { runtime, http, hearer, partings, messages: Messages::default(), open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is told.
    pub(super) fn hearer(&self) -> Option<Arc<dyn Hearer>> {
        self.hearer.get().and_then(Weak::upgrade)
    }

    /// Ends the ears of those tenants.
    pub(super) fn end(&self, ends: impl Fn(&Tenant) -> bool) {
        self.lock().ears.retain(|tenant, ear| {
            let stays = !ends(tenant);
            if !stays {
                ear.abort();
            }
            stays
        });
    }

    /// Ends all of them for good.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.end(|_| true);
    }

    /// Whether this tenant has subscribed to anything.
    pub(super) fn holds(&self, tenant: &Tenant) -> bool {
        self.lock().ears.get(tenant).is_some_and(|ear| !ear.wants().topics.is_empty())
    }

    /// Takes out an ear whose tenant wants nothing any more; false if it does by now.
    pub(super) fn retire(&self, tenant: &Tenant, ear: &Arc<Ear>) -> bool {
        let mut open = self.lock();
        let idle = ear.is_idle();
        if idle && open.ears.get(tenant).is_some_and(|known| Arc::ptr_eq(known, ear)) {
            open.ears.remove(tenant);
        }
        idle
    }
}

impl Ear {
    fn new() -> Self {
        let (wanted, settled) = (watch::Sender::new(()), watch::Sender::new(()));
        Self { wants: Mutex::default(), wanted, settled, task: OnceLock::new() }
    }

    fn wants(&self) -> MutexGuard<'_, Wants> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    fn is_idle(&self) -> bool {
        let wants = self.wants();
        !wants.asked && wants.topics.is_empty()
    }

    /// The resources and tasks that are wanted now.
    pub(super) fn topics(&self) -> BTreeSet<Topic> {
        self.wants().topics.keys().cloned().collect()
    }

    /// Notes what the server says to a subscription.
    pub(super) fn settle(&self, topic: &Topic, answer: Result<(), UpstreamError>) {
        if let Some(want) = self.wants().topics.get_mut(topic) {
            want.state = answer.map_or_else(State::Refused, |()| State::Live);
        }
        self.settled.send_replace(());
    }

    /// Whether the server has said something to a subscription.
    pub(super) fn is_settled(&self, topic: &Topic) -> bool {
        !matches!(self.state(topic), State::New)
    }

    fn hold(&self, topic: &Topic) {
        let mut wants = self.wants();
        match wants.topics.get_mut(topic) {
            Some(want) => want.holders += 1,
            None => _ = wants.topics.insert(topic.clone(), Want { holders: 1, state: State::New }),
        }
        drop(wants);
        self.wanted.send_replace(());
    }

    fn release(&self, topic: &Topic) {
        let mut wants = self.wants();
        let Some(want) = wants.topics.get_mut(topic) else { return };
        want.holders -= 1;
        if want.holders == 0 {
            wants.topics.remove(topic);
            drop(wants);
            self.wanted.send_replace(());
        }
    }

    fn state(&self, topic: &Topic) -> State {
        self.wants().topics.get(topic).map_or(State::New, |want| want.state.clone())
    }
}

/// A client's subscription to a resource or task of a server; ends when it is dropped.
pub struct Subscription {
    upstream: Arc<Upstream>,
    ear: Arc<Ear>,
    tenant: Tenant,
    permit: Permit,
    topic: Topic,
}

impl Subscription {
    /// For whom it is.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The server.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// What shows that the client may read the resource, or call the tool that became a task.
    #[must_use]
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The URI of the resource, or the server's own id of the task.
    #[must_use]
    pub fn name(&self) -> &str {
        self.topic.name()
    }

    /// Waits until the server tells of changes, which can take as long as it cannot be reached.
    ///
    /// # Errors
    /// What the server says if it will not.
    pub async fn settled(&self) -> Result<(), UpstreamError> {
        let mut settled = self.ear.settled.subscribe();
        loop {
            match self.ear.state(&self.topic) {
                State::Live => return Ok(()),
                State::Refused(error) => return Err(error),
                // The sender lives as long as the ear, which is held here.
                State::New => _ = settled.changed().await,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.ear.release(&self.topic);
    }
}

impl Upstream {
    /// Has what the server says unasked to a tenant heard, because the tenant's client can be asked things, until the
    /// tenant's session ends.
    pub fn listen(self: &Arc<Self>, tenant: &Tenant) {
        self.with_ear(tenant, |ear| ear.wants().asked = true);
    }

    /// Subscribes to a resource for a tenant.
    ///
    /// # Errors
    /// [`UpstreamError::Removed`] if the permit is for another server, or for this one as it was before a change of the
    /// configuration.
    pub fn subscribe(self: &Arc<Self>, permit: &Permit, tenant: &Tenant) -> Result<Subscription, UpstreamError> {
        self.hear_of(permit, tenant, Topic::Resource(permit.name().to_owned()))
    }

    /// Subscribes to a task for a tenant, by the server's own id; the permit is for the tool that became the task.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn follow_task(
        self: &Arc<Self>,
        permit: &Permit,
        tenant: &Tenant,
        task: &str,
    ) -> Result<Subscription, UpstreamError> {
        self.hear_of(permit, tenant, Topic::Task(task.to_owned()))
    }

    fn hear_of(
        self: &Arc<Self>,
        permit: &Permit,
        tenant: &Tenant,
        topic: Topic,
    ) -> Result<Subscription, UpstreamError> {
        // SECURITY: as for calls.
        if *permit.server() != self.server {
            return Err(UpstreamError::Removed);
        }
        let ear = self.with_ear(tenant, |ear| ear.hold(&topic)).ok_or(UpstreamError::Removed)?;
        Ok(Subscription { upstream: Arc::clone(self), ear, tenant: tenant.clone(), permit: permit.clone(), topic })
    }

    /// Passes on what the server said to a tenant on another way than its own.
    pub fn heard(self: &Arc<Self>, tenant: &Tenant, notification: &Envelope) {
        if let Some(hearer) = self.ears.hearer() {
            hearer.told(self, tenant, notification);
        }
    }

    /// Begins to hear of lists that change.
    pub(super) fn hear_of_lists(self: &Arc<Self>) {
        self.with_ear(&Tenant::Catalogue, |ear| ear.wants().asked = true);
    }

    /// Changes what a tenant wants to hear; `None` if the server is another by now.
    fn with_ear(self: &Arc<Self>, tenant: &Tenant, change: impl FnOnce(&Ear)) -> Option<Arc<Ear>> {
        let mut open = self.ears.lock();
        if open.closed {
            return None;
        }
        if let Some(ear) = open.ears.get(tenant) {
            change(ear);
            return Some(Arc::clone(ear));
        }
        let ear = Arc::new(Ear::new());
        change(&ear);
        let hearing = hear::keep_hearing(Arc::clone(self), tenant.clone(), Arc::clone(&ear));
        let _ = ear.task.set(self.ears.runtime.spawn(hearing).abort_handle());
        open.ears.insert(tenant.clone(), Arc::clone(&ear));
        Some(ear)
    }
}
