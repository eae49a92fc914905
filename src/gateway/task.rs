//! Tasks: calls whose result is fetched later, by an id that the gateway has sealed.
//!
//! A server that runs a tool as a task gives out an id for it. The client gets one that says by its seal which server has
//! the task, for which tool it was begun, and whose it is: nothing is kept here, and whatever gateway has the same secret
//! can go on with it. A request about a task, or a wish to hear of it, is decided like a call of its tool, each time anew.
//! Source: MCP extension `io.modelcontextprotocol/tasks`; protocol.md 4.9.

use std::sync::Arc;

use hyper::body::Bytes;
use tokio::time::{Instant, timeout_at};

use super::call::Route;
use super::outbox::{Followed, Outbox, Worth};
use super::relay::{Call, Client, Outgoing};
use super::subscribe::MOST_OF_CLIENT;
use super::{Gateway, GatewayError, Principal, Session, Snapshot, Subject};
use crate::policy::{Permit, Registry, ServerKey, Target};
use crate::upstream::{Answer, Outcome, Subscription, Upstream, UpstreamError};
use crate::wire::changes;
use crate::wire::json::write_text;
use crate::wire::jsonrpc::{Envelope, Param};
use crate::wire::mcp::{Era, ListKind, Operation};
use crate::wire::rewrite::{self, Instead};
use crate::wire::seal::{Sealer, TaskId};

/// A task of a client, at the server that runs it.
pub struct Task {
    permit: Permit,
    upstream: Arc<Upstream>,
    /// The server's own id of it.
    own: String,
    /// The id by which the client knows it.
    sealed: String,
}

impl Task {
    /// The tool that it was begun for, as the client names it.
    #[must_use]
    pub fn subject(&self) -> Subject {
        let prefix = self.permit.server().prefix(ListKind::Tools);
        Subject::new(ListKind::Tools, [prefix, self.permit.name()].concat())
    }

    /// Where requests about it go.
    pub(super) fn route(&self) -> Route {
        Route { permit: self.permit.clone(), upstream: Arc::clone(&self.upstream), tool: None }
    }
}

/// What tasks have to do with a request.
pub(super) enum Tasks {
    /// Nothing: its result is not fetched later.
    None,
    /// It may become one, whose id is sealed with this.
    Possible(Arc<Sealer>),
    /// It is about this one.
    About(Box<Task>),
}

impl Tasks {
    /// The server's own id of the task, if the request is about one.
    pub(super) fn own(&self) -> Option<Box<str>> {
        match self {
            Self::About(task) => Some(task.own.as_str().into()),
            Self::None | Self::Possible(_) => None,
        }
    }

    /// The id of the task as the client knows it, a JSON string, if the request is about one.
    pub(super) fn id(&self) -> Option<Vec<u8>> {
        match self {
            Self::About(task) => Some(quoted(&task.sealed)),
            Self::None | Self::Possible(_) => None,
        }
    }
}

fn quoted(id: &str) -> Vec<u8> {
    let mut text = Vec::new();
    write_text(&mut text, id);
    text
}

impl Gateway {
    /// The task that a client means by an id.
    ///
    /// # Errors
    /// [`GatewayError::UnknownTask`] if the id was not given to this client, or it may not call the task's tool any more.
    pub fn task(&self, snapshot: &Snapshot, principal: &Principal, sealed: &str) -> Result<Task, GatewayError> {
        self.find_task(snapshot, principal, sealed).ok_or(GatewayError::UnknownTask)
    }

    fn find_task(&self, snapshot: &Snapshot, principal: &Principal, sealed: &str) -> Option<Task> {
        let id = TaskId::open(&self.keys.tasks, sealed)?;
        // SECURITY: to the server every client of the gateway is the same one, so that nobody else keeps them apart.
        if id.principal != principal.state().digest {
            return None;
        }
        let (registry, client) = (snapshot.registry(), principal.client());
        let identity = ServerKey::from_bytes(id.server);
        let server = registry.servers_of(client).into_iter().find(|server| server.identity == identity)?;
        let permit = registry.decide(client, &server.id, Target::Tool(&id.tool)).verdict.ok()?;
        let upstream = self.pool.get(&server.id)?;
        Some(Task { permit, upstream, own: id.own, sealed: sealed.to_owned() })
    }
}

impl Gateway {
    /// Subscribes for a modern stream to those of the tasks that are the client's and of which their servers tell, and waits
    /// for the servers, as long as for a list. Returns the ids that the client sent, too.
    pub(super) async fn follow_tasks(
        &self,
        snapshot: &Snapshot,
        principal: &Principal,
        ids: Vec<String>,
    ) -> Vec<(String, Subscription)> {
        let deadline = Instant::now() + snapshot.registry().settings().list_timeout;
        let tenant = Session::default().tenant(principal.client());
        let left = MOST_OF_CLIENT.saturating_sub(principal.state().subscriptions());
        let followed = ids.into_iter().take(left).filter_map(|id| {
            let task = self.find_task(snapshot, principal, &id)?;
            let subscription = task.upstream.follow_task(&task.permit, &tenant, &task.own).ok()?;
            Some((id, subscription))
        });
        let mut live = Vec::new();
        for (id, subscription) in followed.collect::<Vec<_>>() {
            if let Ok(Ok(())) = timeout_at(deadline, subscription.settled()).await {
                live.push((id, subscription));
            }
        }
        live
    }
}

impl Outbox {
    /// Holds a subscription to a task, of which news are put here for the stream that this request opened.
    pub(super) fn follow_task(&self, id: String, subscription: Subscription, stream: &Arc<[u8]>) {
        let stream = Arc::clone(stream);
        self.tasks().insert(id, Followed { subscription, stream });
    }

    /// Has it told what a server says of one of its tasks, if that is followed.
    pub(super) fn hear_of_task(&self, upstream: &Upstream, news: &Envelope) {
        let Some(own) = news.param_text(Param::TaskId) else { return };
        let tasks = self.tasks();
        let is_meant = |followed: &Followed| {
            followed.subscription.upstream().id() == upstream.id() && followed.subscription.name() == own
        };
        for (id, followed) in tasks.iter().filter(|(_, followed)| is_meant(followed)) {
            self.push(changes::task_changed(news, id, &followed.stream), Worth::Much);
        }
    }

    /// Ends the subscriptions to tasks that could not be made under this registry, or whose servers are others by now. Tells
    /// whether there were any.
    pub(super) fn review_tasks(&self, registry: &Registry) -> bool {
        let stays = |followed: &Followed| {
            let permit = followed.subscription.permit();
            let server = &permit.server().id;
            registry.server(server) == Some(permit.server())
                && registry.decide(permit.client(), server, permit.target()).verdict.is_ok()
        };
        let mut tasks = self.tasks();
        let before = tasks.len();
        tasks.retain(|_, followed| stays(followed));
        tasks.len() < before
    }
}

impl Call {
    /// The response to a call that its server goes on with as a task: with an id of the gateway's.
    pub(super) fn begun_task(&mut self, answer: &Answer, response: &Envelope) -> Outgoing {
        // A server without the extension was not told that its client has it.
        let sealer = match self.tasks() {
            Tasks::Possible(sealer) if answer.upstream().runs_tasks() => sealer,
            _ => return self.not_a_task("expected a complete result"),
        };
        let Some(own) = rewrite::task_of(response) else {
            return self.not_a_task("expected a task with one `taskId` and without `requestState`");
        };
        let permit = &self.lease.sent().permit;
        let id = TaskId {
            principal: self.lease.client().digest,
            server: *permit.server().identity.as_bytes(),
            tool: permit.name().to_owned(),
            own: own.into_owned(),
        };
        let Some(sealed) = id.seal(sealer) else {
            return self.failure(UpstreamError::TooLarge(TaskId::MAX_LENGTH));
        };
        self.slot.ended(Outcome::Result);
        Outgoing::Response(self.with_task(response, &quoted(&sealed)), None)
    }

    /// Whether a result is about another task than the one that was asked for.
    pub(super) fn is_astray(&self, response: &Envelope) -> bool {
        match self.tasks() {
            Tasks::About(task) if self.operation == Operation::GetTask => {
                rewrite::task_of(response).is_none_or(|own| *own != *task.own)
            }
            _ => false,
        }
    }

    fn tasks(&self) -> &Tasks {
        match &self.client {
            Client::Modern(client) => &client.tasks,
            Client::Legacy(..) => &Tasks::None,
        }
    }

    /// The response to a call whose server says something else of tasks than it may.
    pub(super) fn not_a_task(&mut self, expected: &str) -> Outgoing {
        self.failure(UpstreamError::NotMcp(expected.to_owned()))
    }

    fn with_task(&self, response: &Envelope, id: &[u8]) -> Vec<Bytes> {
        let instead = Instead { task: Some(id), ..Instead::default() };
        rewrite::result_for_modern(response, self.lease.id(), Era::Modern, instead)
    }
}
