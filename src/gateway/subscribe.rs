//! Subscriptions of clients to resources, and what their servers tell of these.
//!
//! A subscription is decided like a read, at the resource's own URI, and ends with the grant that it rests on. A legacy
//! client's belongs to its session and is told there, now or when the client listens again; a modern client's belongs to
//! the stream that it was asked for with. Source: MCP 2025-11-25, resources; MCP 2026-07-28, "Subscriptions"; protocol.md
//! 4.2, 4.8.

use std::sync::{Arc, Weak};

use tokio::time::{Instant, timeout_at};

use super::flight::{Flight, Mail, Sent};
use super::outbox::{Outbox, Worth};
use super::view::Wanted;
use super::{ClientState, Gateway, GatewayError, Principal, Session, Snapshot, Subject, View};
use crate::policy::{ClientId, Registry, Target};
use crate::upstream::{Hearer, Replier, Subscription, Tenant, Upstream, UpstreamError};
use crate::wire::changes::covers;
use crate::wire::jsonrpc::{Envelope, Param, is_number};
use crate::wire::mcp::{ListKind, LogLevel, method};

/// Resources that one session, or one stream, may have subscribed to.
pub const MOST_SUBSCRIPTIONS: usize = 1_000;

/// Those that one client may have subscribed to, in all its sessions and on all its streams.
pub(super) const MOST_OF_CLIENT: usize = 10_000;
/// Longest URI that can be subscribed to, in bytes.
const LONGEST_URI: usize = 2_048;

/// A subscription of a session whose server is another by now, or was subscribed at by another process.
pub(super) struct Moved {
    outbox: Weak<Outbox>,
    tenant: Tenant,
    uri: String,
}

impl Outbox {
    /// Holds a subscription, of which news are put here.
    pub(super) fn subscribe(&self, subscription: Subscription) {
        let uri = subscription.name().to_owned();
        // One in its place ends without the lock: that changes what the server is told.
        let before = self.held().insert(uri, subscription);
        drop(before);
    }

    /// Holds a subscription that was made anew, unless nobody waits for it any more.
    fn subscribe_anew(&self, subscription: Subscription) {
        let mut awaited = self.awaited();
        if awaited.remove(subscription.name()) {
            self.subscribe(subscription);
        }
    }

    /// Ends a subscription, even one that is still to be made anew.
    pub(super) fn unsubscribe(&self, uri: &str) {
        self.awaited().remove(uri);
        let ended = self.held().remove(uri);
        drop(ended);
    }

    /// What is subscribed to.
    pub(super) fn subscriptions(&self) -> Vec<String> {
        self.held().keys().cloned().collect()
    }

    /// Ends the subscriptions that could not be made under this registry. Tells whether there were any, and which servers
    /// are others by now.
    fn review(&self, registry: &Registry) -> (bool, Vec<(Tenant, String)>) {
        let (mut withdrawn, mut moved) = (false, Vec::new());
        self.held().retain(|uri, subscription| {
            let permit = subscription.permit();
            let server = &permit.server().id;
            let allowed = registry.decide(permit.client(), server, permit.target()).verdict.is_ok();
            let is_same = registry.server(server) == Some(permit.server());
            if allowed && !is_same {
                moved.push((subscription.tenant().clone(), uri.clone()));
            }
            withdrawn |= !allowed;
            allowed
        });
        withdrawn |= self.review_tasks(registry);
        (withdrawn, moved)
    }

    /// Has it told that a resource of a server was updated, if that is one that was subscribed to, or lies below one and
    /// may be read.
    fn hear_of(&self, upstream: &Upstream, uri: &str, registry: &Registry) {
        let held = self.held();
        let fitting = held.values().filter(|s| s.upstream().id() == upstream.id() && covers(s.name(), uri));
        // SECURITY: the resource that was subscribed to is decided about too: the grant may be gone since.
        let may_read = |s: &&Subscription| {
            let client = s.permit().client();
            registry.decide(client, upstream.id(), Target::Resource(uri)).verdict.is_ok()
        };
        if let Some(subscription) = { fitting }.find(may_read) {
            self.updated(subscription.name(), uri);
        }
    }
}

impl ClientState {
    /// How many resources and tasks the client has subscribed to, in its sessions and on its streams.
    pub(super) fn subscriptions(&self) -> usize {
        let in_sessions = self.sessions().outboxes();
        let outside = self.listeners.outboxes_outside_of_sessions();
        in_sessions.iter().chain(&outside).map(|outbox| outbox.held().len() + outbox.tasks().len()).sum()
    }
}

/// Why a client cannot be told of changes of a resource.
fn refusal(uri: &str, error: UpstreamError) -> GatewayError {
    match error {
        UpstreamError::Rpc(_) => GatewayError::InvalidParams("expected a resource whose server tells of its changes"),
        error => GatewayError::Upstream { subject: Subject::new(ListKind::Resources, uri), error },
    }
}

impl Gateway {
    /// Subscribes to a resource in a legacy session; waits until the server tells of changes, as long as for a list.
    ///
    /// # Errors
    /// [`GatewayError`] if the client may not read the resource, or the server will not tell of it.
    pub async fn subscribe(
        &self,
        snapshot: &Snapshot,
        principal: &Principal,
        session: &Session,
        uri: &str,
    ) -> Result<(), GatewayError> {
        let outbox = session.outbox().ok_or(GatewayError::InvalidParams("expected a session to subscribe in"))?;
        let held = outbox.subscriptions();
        if held.iter().any(|known| known == uri) {
            return Ok(());
        }
        if held.len() >= MOST_SUBSCRIPTIONS {
            return Err(GatewayError::InvalidParams("expected at most 1000 subscriptions in a session"));
        }
        if principal.state().subscriptions() >= MOST_OF_CLIENT {
            return Err(GatewayError::InvalidParams("expected at most 10000 subscriptions of a client"));
        }
        let view = self.view_of(snapshot, principal, Some(Wanted(ListKind::Resources, uri))).await;
        let subscription = subscribe_in(&view, snapshot, &session.tenant(principal.client()), uri)?;
        let deadline = Instant::now() + snapshot.registry().settings().list_timeout;
        match timeout_at(deadline, subscription.settled()).await {
            Ok(Ok(())) => {
                outbox.subscribe(subscription);
                self.record_subscription(session, uri);
            }
            Ok(Err(error)) => return Err(refusal(uri, error)),
            Err(_) => {
                let error = UpstreamError::Silent(snapshot.registry().settings().list_timeout);
                return Err(refusal(uri, error));
            }
        }
        if self.generation() != snapshot.generation() {
            // What was taken away meanwhile was not taken from this subscription yet.
            self.review_outbox(outbox, self.snapshot().registry());
        }
        Ok(())
    }

    /// Ends a subscription of a legacy session, if there is one.
    pub fn unsubscribe(&self, session: &Session, uri: &str) {
        session.unsubscribe(uri);
        self.forget_subscription(session, uri);
    }

    /// Subscribes again to what was subscribed to in a session before this process began.
    pub(super) fn resubscribe(&self, session: &Session, client: &ClientId) {
        let uris = self.subscriptions_of(session);
        let Some(outbox) = session.outbox().filter(|_| !uris.is_empty()) else { return };
        let tenant = session.tenant(client);
        self.await_anew(outbox, uris.into_iter().map(|uri| (tenant.clone(), uri)));
        self.pool.changed().notify_one();
    }

    /// Notes what is to be subscribed to again for an outbox.
    fn await_anew(&self, outbox: &Arc<Outbox>, moved: impl IntoIterator<Item = (Tenant, String)>) {
        let noted = moved.into_iter().inspect(|(_, uri)| _ = outbox.awaited().insert(uri.clone()));
        self.moved().extend(noted.map(|(tenant, uri)| Moved { outbox: Arc::downgrade(outbox), tenant, uri }));
    }

    /// Subscribes for a modern stream to those of the resources that the client may read and whose servers tell of changes,
    /// and waits for the servers, as long as for a list.
    pub(super) async fn subscribe_all(
        &self,
        snapshot: &Snapshot,
        principal: &Principal,
        uris: Vec<String>,
    ) -> Vec<Subscription> {
        if uris.is_empty() {
            return Vec::new();
        }
        let deadline = Instant::now() + snapshot.registry().settings().list_timeout;
        let view = self.view_of(snapshot, principal, None).await;
        let tenant = Session::default().tenant(principal.client());
        let left = MOST_OF_CLIENT.saturating_sub(principal.state().subscriptions());
        let made = uris.iter().take(left).filter_map(|uri| subscribe_in(&view, snapshot, &tenant, uri).ok());
        let mut live = Vec::new();
        for subscription in made.collect::<Vec<_>>() {
            if let Ok(Ok(())) = timeout_at(deadline, subscription.settled()).await {
                live.push(subscription);
            }
        }
        live
    }

    /// Ends the subscriptions of an outbox that could not be made under this registry, and notes those whose servers are
    /// others by now. Tells whether any were ended.
    pub(super) fn review_outbox(&self, outbox: &Arc<Outbox>, registry: &Registry) -> bool {
        let (withdrawn, moved) = outbox.review(registry);
        self.await_anew(outbox, moved);
        withdrawn
    }

    /// Subscribes again at servers that have taken the place of others.
    pub(super) fn follow_servers(&self, snapshot: &Snapshot) {
        let moved = std::mem::take(&mut *self.moved());
        for Moved { outbox, tenant, uri } in moved {
            let (Some(kept), Tenant::Client { client, .. }) = (outbox.upgrade(), &tenant) else { continue };
            let view = self.view_as_known(snapshot, client, &self.client(client));
            match subscribe_in(&view, snapshot, &tenant, &uri) {
                Ok(subscription) => {
                    kept.subscribe_anew(subscription);
                    if self.generation() != snapshot.generation() {
                        // What was taken away meanwhile was not taken from this subscription yet.
                        self.review_outbox(&kept, self.snapshot().registry());
                    }
                }
                // Perhaps the server has not said yet what it has.
                Err(_) if view.is_unsettled() => self.moved().push(Moved { outbox, tenant, uri }),
                Err(_) => kept.unsubscribe(&uri),
            }
        }
    }

    /// What waits for a session of a client.
    fn outbox_of(&self, client: &ClientId, nonce: &[u8; 16]) -> Option<Arc<Outbox>> {
        self.shard(client).get(client).cloned().and_then(|state| state.sessions().outbox(nonce))
    }

    /// Where news for a tenant go: to its session, or to the streams of a client outside of sessions.
    fn outboxes_of(&self, tenant: &Tenant) -> Vec<Arc<Outbox>> {
        match tenant {
            Tenant::Catalogue => Vec::new(),
            Tenant::Client { client, session: Some(nonce), .. } => self.outbox_of(client, nonce).into_iter().collect(),
            Tenant::Client { client, session: None, .. } => {
                let state = self.shard(client).get(client).cloned();
                state.map(|state| state.listeners.outboxes_outside_of_sessions()).unwrap_or_default()
            }
        }
    }

    /// Passes on a log message that belongs to no call, to whoever listens in the session in which it came.
    fn pass_on_log(&self, upstream: &Upstream, client: &ClientId, nonce: &[u8; 16], message: &Envelope) {
        // SECURITY: the session with the server outlives the grants that it was opened for.
        if !self.snapshot().registry().may_use(client, upstream.id()) {
            return;
        }
        let Some(state) = self.shard(client).get(client).cloned() else { return };
        let Some((outbox, least)) = state.sessions().outbox_and_level(nonce) else { return };
        let level = message.param_text(Param::Level).and_then(|level| LogLevel::parse(&level));
        if least.is_none() || level >= least {
            outbox.push(message.bytes().to_vec(), Worth::Little);
        }
    }
}

/// Subscribes at the server of a resource, as a client's view has it.
fn subscribe_in(view: &View, snapshot: &Snapshot, tenant: &Tenant, uri: &str) -> Result<Subscription, GatewayError> {
    let unknown = || GatewayError::Unknown(Subject::new(ListKind::Resources, uri));
    let found = view.resource(snapshot.registry(), uri).filter(|_| uri.len() <= LONGEST_URI);
    let (permit, upstream) = found.ok_or_else(unknown)?;
    upstream.subscribe(&permit, tenant).map_err(|error| refusal(uri, error))
}

impl Hearer for Gateway {
    fn told(&self, upstream: &Arc<Upstream>, tenant: &Tenant, notification: &Envelope) {
        match (notification.method().as_deref(), tenant) {
            (Some(method::RESOURCE_UPDATED), _) => {
                let Some(uri) = notification.param_text(Param::Uri) else { return };
                let snapshot = self.snapshot();
                for outbox in self.outboxes_of(tenant) {
                    outbox.hear_of(upstream, &uri, snapshot.registry());
                }
            }
            (Some(method::TASK_CHANGED), _) => {
                for outbox in self.outboxes_of(tenant) {
                    outbox.hear_of_task(upstream, notification);
                }
            }
            (Some(method::MESSAGE), Tenant::Client { client, session: Some(nonce), .. }) => {
                self.pass_on_log(upstream, client, nonce, notification);
            }
            (Some(method::PROGRESS), Tenant::Client { client, .. }) => {
                let token = notification.param(Param::ProgressToken);
                let meant = |sent: &Sent| token.is_some_and(|token| is_number(token, sent.id));
                for flight in self.reading(client, upstream, tenant, meant) {
                    flight.deliver(Mail::Notification(notification.clone()));
                }
            }
            (Some(method::MESSAGE | method::ELICITATION_COMPLETE), Tenant::Client { client, .. }) => {
                if let Some(flight) = self.reading(client, upstream, tenant, |_| true).first() {
                    flight.deliver(Mail::Notification(notification.clone()));
                }
            }
            // Which of the calls has been asked what is withdrawn, the call itself knows.
            (Some(method::CANCELLED), Tenant::Client { client, .. }) => {
                for flight in self.reading(client, upstream, tenant, |_| true) {
                    flight.deliver(Mail::Notification(notification.clone()));
                }
            }
            _ => {}
        }
    }

    fn asked(&self, upstream: &Arc<Upstream>, tenant: &Tenant, request: &Envelope, replier: &Replier) -> bool {
        // A server may ask only while it serves the client. In which of several calls it asks makes no difference: they are
        // the same client's, in the same session.
        let Tenant::Client { client, .. } = tenant else { return false };
        let flights = self.reading(client, upstream, tenant, |_| true);
        flights.first().is_some_and(|flight| flight.deliver(Mail::Request(request.clone(), replier.clone())))
    }
}

impl Gateway {
    /// The calls of a tenant at a server that are `meant` by what it has said outside of them, the last that was begun first.
    fn reading(
        &self,
        client: &ClientId,
        upstream: &Arc<Upstream>,
        tenant: &Tenant,
        meant: impl Fn(&Sent) -> bool,
    ) -> Vec<Arc<Flight>> {
        let Some(state) = self.shard(client).get(client).cloned() else { return Vec::new() };
        state.flights.reading(|sent| Arc::ptr_eq(&sent.upstream, upstream) && sent.tenant == *tenant && meant(sent))
    }
}
