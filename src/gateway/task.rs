//! Tasks: calls whose result is fetched later, by an id that the gateway has sealed.
//!
//! A server that runs a tool as a task gives out an id for it. The client gets one that says by its seal which server has
//! the task, for which tool it was begun, and whose it is: nothing is kept here, and whatever gateway has the same secret
//! can go on with it. A request about a task is decided like a call of its tool, each time anew. Source: MCP extension
//! `io.modelcontextprotocol/tasks`; protocol.md 4.9.

use std::sync::Arc;

use hyper::body::Bytes;

use super::call::Route;
use super::relay::{Call, Client, Outgoing};
use super::{Gateway, GatewayError, Principal, Snapshot, Subject};
use crate::policy::{Permit, ServerKey, Target};
use crate::upstream::{Outcome, Upstream, UpstreamError};
use crate::wire::json::write_text;
use crate::wire::jsonrpc::Envelope;
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
        let key = ServerKey::from_bytes(id.server);
        let server = registry.servers_of(client).into_iter().find(|server| server.key == key)?;
        let permit = registry.decide(client, &server.id, Target::Tool(&id.tool)).verdict.ok()?;
        let upstream = self.pool.get(&server.id)?;
        Some(Task { permit, upstream, own: id.own, sealed: sealed.to_owned() })
    }
}

impl Call {
    /// The response to a call that its server goes on with as a task: with an id of the gateway's.
    pub(super) fn begun_task(&mut self, response: &Envelope) -> Outgoing {
        let sealer = match &self.client {
            Client::Modern(client) => match &client.tasks {
                Tasks::Possible(sealer) => sealer,
                Tasks::None | Tasks::About(_) => return self.not_a_task("expected a complete result"),
            },
            Client::Legacy(..) => return self.not_a_task("expected a complete result"),
        };
        let Some(own) = rewrite::task_of(response) else {
            return self.not_a_task("expected a task with one `taskId` and without `requestState`");
        };
        let permit = &self.lease.sent().permit;
        let id = TaskId {
            principal: self.lease.client().digest,
            server: *permit.server().key.as_bytes(),
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
        match &self.client {
            Client::Modern(client) => match &client.tasks {
                Tasks::About(task) if self.operation == Operation::GetTask => {
                    rewrite::task_of(response).is_none_or(|own| *own != *task.own)
                }
                _ => false,
            },
            Client::Legacy(..) => false,
        }
    }

    pub(super) fn not_a_task(&mut self, expected: &str) -> Outgoing {
        self.failure(UpstreamError::NotMcp(expected.to_owned()))
    }

    fn with_task(&self, response: &Envelope, id: &[u8]) -> Vec<Bytes> {
        let instead = Instead { task: Some(id), ..Instead::default() };
        rewrite::result_for_modern(response, self.lease.id(), Era::Modern, instead)
    }
}
