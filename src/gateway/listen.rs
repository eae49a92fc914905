//! Streams of changes: lists that changed for a client, resources that were updated.
//!
//! A legacy client opens one for its session by GET, a modern one by `subscriptions/listen`. A client is told that a list
//! has changed if, and only if, what it sees there is another: whoever puts another registry or another catalogue in force
//! wakes one task, which makes the views of the clients that listen and compares them with what they were told last.
//! Source: MCP 2025-11-25, transports; MCP 2026-07-28, "Subscriptions"; protocol.md 2.3, 2.4, 4.2.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::outbox::{News, Outbox};
use super::{ClientState, Gateway, Outgoing, Principal, Session, Snapshot, View};
use crate::alarm::{Alarm, Alarms};
use crate::policy::{ClientId, Registry};
use crate::wire::changes::{self, Change, Changes, Filter};
use crate::wire::mcp::ListKind;

/// How long changes are gathered before anybody is told.
const GATHERED: Duration = Duration::from_millis(20);

/// What a client sees of each list, in short; each in the place that its kind has in [`ListKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digests([u64; ListKind::ALL.len()]);

impl Digests {
    /// What this makes of each.
    pub(super) fn of(make: impl Fn(ListKind) -> u64) -> Self {
        Self(ListKind::ALL.map(make))
    }

    /// That of one list.
    pub(super) fn get(&self, kind: ListKind) -> u64 {
        let [tools, prompts, resources, templates] = self.0;
        match kind {
            ListKind::Tools => tools,
            ListKind::Prompts => prompts,
            ListKind::Resources => resources,
            ListKind::Templates => templates,
        }
    }

    /// Whether the lists that change as one are others.
    fn differ(&self, other: &Self, change: Change) -> bool {
        change.kinds().iter().any(|kind| self.get(*kind) != other.get(*kind))
    }
}

/// Who hears of changes: what all that tell it something know of one open stream.
pub(super) struct Listener {
    principal: Principal,
    outbox: Arc<Outbox>,
    /// The stream, among all that have read there.
    reader: u64,
    /// Whether it reads what waits for a session, whose subscriptions outlive it.
    in_session: bool,
    /// The lists of which it is told.
    lists: Changes,
    /// The lists as they were when it was told of them last, or when it began.
    told: Mutex<Digests>,
}

impl Listener {
    /// Ends the stream.
    fn end(&self) {
        self.outbox.end_of(self.reader);
    }

    fn told(&self) -> MutexGuard<'_, Digests> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells it of the lists that are others by now.
    fn compare(&self, now: &Digests) {
        let told = std::mem::replace(&mut *self.told(), *now);
        let differing = Change::ALL.into_iter().filter(|list| self.lists.has(*list) && told.differ(now, *list));
        differing.for_each(|list| self.outbox.changed(list));
    }
}

/// The open streams of one client, the oldest first.
#[derive(Default)]
pub(super) struct Listeners {
    open: Mutex<Vec<Arc<Listener>>>,
    /// How many there are; looked at more often than they are.
    count: AtomicUsize,
}

impl Listeners {
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Listener>>) -> T) -> T {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut open);
        self.count.store(open.len(), Ordering::Release);
        changed
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Adds one; if there are as many as may be, the oldest has to end.
    fn add(&self, listener: Arc<Listener>, most: usize) {
        let oldest = self.change(|open| {
            let oldest = (open.len() >= most && !open.is_empty()).then(|| open.remove(0));
            open.push(listener);
            oldest
        });
        if let Some(oldest) = oldest {
            oldest.end();
        }
    }

    fn remove(&self, listener: &Arc<Listener>) {
        self.change(|open| open.retain(|other| !Arc::ptr_eq(other, listener)));
    }

    /// What waits for the streams that belong to no session.
    pub(super) fn outboxes_outside_of_sessions(&self) -> Vec<Arc<Outbox>> {
        let all = self.all().into_iter().filter(|listener| !listener.in_session);
        all.map(|listener| Arc::clone(&listener.outbox)).collect()
    }

    fn all(&self) -> Vec<Arc<Listener>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A stream of changes to a client. Keeps its session in use.
pub struct Stream {
    listener: Arc<Listener>,
    state: Arc<ClientState>,
    dialect: Dialect,
    /// Rings when the token expires.
    expiry: Option<Alarm>,
}

/// How the messages of a stream are written.
enum Dialect {
    Legacy(Session),
    /// The request that opened it, and the acknowledgement, until that is sent; over when there is no request any more.
    Modern {
        id: Option<Arc<[u8]>>,
        first: Option<Vec<u8>>,
    },
}

impl Stream {
    /// The next message. After the response, or `None`, there is none.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if let Dialect::Modern { first, .. } = &mut self.dialect
            && let Some(first) = first.take()
        {
            return Poll::Ready(Some(Outgoing::Message(first)));
        }
        if self.expiry.as_mut().is_some_and(|expiry| expiry.poll(cx).is_ready()) {
            return Poll::Ready(self.end());
        }
        match self.listener.outbox.poll_next(self.listener.reader, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(self.end()),
            Poll::Ready(Some(news)) => Poll::Ready(Some(Outgoing::Message(self.write(news)))),
        }
    }

    /// Ends the stream, as its era has it.
    pub fn end(&mut self) -> Option<Outgoing> {
        match &mut self.dialect {
            Dialect::Legacy(_) => None,
            Dialect::Modern { id, .. } => {
                let id = id.take()?;
                Some(Outgoing::Response(vec![changes::complete(&id).into()], None))
            }
        }
    }

    fn write(&self, news: News) -> Vec<u8> {
        let stream = match &self.dialect {
            Dialect::Legacy(session) => {
                if let News::Changed(list) = news {
                    let told = *self.listener.told();
                    list.kinds().iter().for_each(|kind| session.shown(*kind, told.get(*kind)));
                }
                None
            }
            Dialect::Modern { id, .. } => id.as_deref(),
        };
        match news {
            News::Changed(list) => changes::changed(list, stream),
            News::Updated(uri) => changes::updated(&uri, stream),
            News::Message(message) => message,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.listener.outbox.detach(self.listener.reader);
        self.state.listeners.remove(&self.listener);
    }
}

/// Who opens a stream, and when.
pub struct Opening<'a> {
    /// The policy under which it is opened.
    pub snapshot: &'a Snapshot,
    /// Who listens.
    pub principal: &'a Principal,
    /// The time limits of the thread that the client is served on.
    pub alarms: &'a Alarms,
    /// Since when, since the epoch.
    pub now: Duration,
}

impl Gateway {
    /// Opens the stream of a legacy session; the one before it ends. What changed since the client was last shown a list
    /// is told at once.
    #[must_use]
    pub fn open_stream(&self, opening: &Opening<'_>, session: Session) -> Option<Stream> {
        let outbox = Arc::clone(session.outbox()?);
        let state = self.current_state(opening.principal, opening.snapshot);
        let now = self.view_as_known(opening.snapshot, opening.principal.client(), &state).digests();
        let told = session.last_shown(&now);
        Some(self.begin_stream(opening, state, outbox, Changes::ALL, told, Dialect::Legacy(session)))
    }

    /// Opens a stream for a modern client that wants to hear of all this. It is granted every list, the resources that it may
    /// read, and its tasks, as far as their servers tell of them: they do, before the client is told so.
    pub async fn listen(&self, opening: Opening<'_>, id: Arc<[u8]>, mut filter: Filter) -> Stream {
        let (snapshot, principal) = (opening.snapshot, opening.principal);
        let outbox = Arc::<Outbox>::default();
        let uris = std::mem::take(&mut filter.uris);
        for subscription in self.subscribe_all(snapshot, principal, uris).await {
            filter.uris.push(subscription.name().to_owned());
            outbox.subscribe(subscription);
        }
        let tasks = std::mem::take(&mut filter.tasks);
        for (task, subscription) in self.follow_tasks(snapshot, principal, tasks).await {
            filter.tasks.push(task.clone());
            outbox.follow_task(task, subscription, &id);
        }
        let state = self.current_state(principal, snapshot);
        let told = self.view_as_known(snapshot, principal.client(), &state).digests();
        let first = Some(changes::acknowledged(&id, &filter));
        let dialect = Dialect::Modern { id: Some(id), first };
        self.begin_stream(&opening, state, outbox, filter.lists, told, dialect)
    }

    fn begin_stream(
        &self,
        opening: &Opening<'_>,
        state: Arc<ClientState>,
        outbox: Arc<Outbox>,
        lists: Changes,
        told: Digests,
        dialect: Dialect,
    ) -> Stream {
        let principal = opening.principal.clone();
        let expires = principal.caller().expires();
        let expiry = expires.map(|expires| opening.alarms.after(expires.saturating_sub(opening.now)));
        let reader = outbox.attach();
        let (told, in_session) = (Mutex::new(told), matches!(dialect, Dialect::Legacy(_)));
        let listener = Arc::new(Listener { principal, outbox, reader, in_session, lists, told });
        let most = opening.snapshot.registry().settings().limits.streams_per_client;
        state.listeners.add(Arc::clone(&listener), most);
        let snapshot = self.snapshot();
        if snapshot.generation() != opening.snapshot.generation() {
            // What was taken away while the stream was being opened was not taken from this one yet.
            self.review_listeners(&state, snapshot.registry());
        }
        self.compare(&snapshot, listener.principal.client(), &state, [&listener]);
        Stream { listener, state, dialect, expiry }
    }

    /// Ends the streams and subscriptions of a client that it could not have under this registry.
    pub(super) fn review_listeners(&self, state: &ClientState, registry: &Registry) {
        let outboxes = state.sessions().outboxes();
        for outbox in outboxes {
            self.review_outbox(&outbox, registry);
        }
        for listener in state.listeners.all() {
            // What a modern stream was granted is not changed while it is open.
            let changed = !listener.in_session && self.review_outbox(&listener.outbox, registry);
            if changed || !registry.still_knows(listener.principal.caller()) {
                listener.end();
            }
        }
    }

    /// Tells listeners of a client what it sees otherwise than they were told last.
    fn compare<'a>(
        &self,
        snapshot: &Snapshot,
        client: &ClientId,
        state: &ClientState,
        listeners: impl IntoIterator<Item = &'a Arc<Listener>>,
    ) {
        let view = self.view_as_known(snapshot, client, state);
        if view.is_torn() {
            // Another registry is coming into force; that will be told.
            return self.pool.changed().notify_one();
        }
        let now = view.digests();
        listeners.into_iter().for_each(|listener| listener.compare(&now));
    }

    /// Tells the clients that listen what has changed for them.
    async fn tell_changes(&self) {
        self.follow_servers(&self.snapshot());
        for (client, state) in self.listening_clients() {
            // What is in force now: under another registry its listeners may have been told of more than this one knows.
            self.compare(&self.snapshot(), &client, &state, &state.listeners.all());
            // Other tasks of the runtime must not wait for all clients.
            tokio::task::yield_now().await;
        }
    }
}

/// Tells clients of changes, as long as there is a gateway.
pub(super) async fn follow_changes(gateway: Weak<Gateway>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        sleep(GATHERED).await;
        let Some(gateway) = gateway.upgrade() else { return };
        gateway.tell_changes().await;
    }
}

impl View {
    /// What the client sees of each list, in short.
    fn digests(&self) -> Digests {
        Digests::of(|kind| self.digest(kind))
    }
}
