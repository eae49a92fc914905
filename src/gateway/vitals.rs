//! What is to be seen of the gateway at one instant, for metrics.

use std::sync::Arc;
use std::time::Duration;

use super::{Gateway, Health};
use crate::policy::registry::Server;
use crate::upstream::Series;
use crate::wire::mcp::ListKind;

/// How much the gateway has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Calls in flight, of all clients to all servers.
    pub calls: u64,
    /// Those of them that wait for a modern client to come back with an answer.
    pub parked: u64,
    /// What servers have asked clients, and nobody has answered.
    pub questions: u64,
    /// Legacy sessions with soft state.
    pub sessions: usize,
    /// Open streams of changes.
    pub listeners: usize,
    /// Resources that clients have subscribed to.
    pub subscriptions: usize,
    /// Bytes held in buffers.
    pub buffered_bytes: usize,
    /// Requests refused because their client had as many running as it may.
    pub too_many_calls: u64,
    /// Requests and answers refused because all together hold as many bytes as they may.
    pub too_many_bytes: u64,
}

/// How one server is doing.
#[derive(Clone, Debug)]
pub struct ServerVitals {
    /// In one word.
    pub health: Health,
    /// Tools that it offers.
    pub tools: usize,
    /// How long ago that was fetched; `None` if it never was.
    pub age: Option<Duration>,
    /// Calls in flight.
    pub calls: usize,
    /// What has been counted.
    pub series: Arc<Series>,
}

impl Gateway {
    /// How much the gateway has to do.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let (budget, known) = (self.budget(), self.known_clients());
        Vitals {
            calls: self.calls.get(),
            parked: self.parked.get(),
            questions: self.questions.get(),
            sessions: known.iter().map(|(_, state)| state.sessions().live()).sum(),
            listeners: known.iter().map(|(_, state)| state.listeners.count()).sum(),
            subscriptions: known.iter().map(|(_, state)| state.subscriptions()).sum(),
            buffered_bytes: budget.held(),
            too_many_calls: self.overloaded.get(),
            too_many_bytes: budget.refused(),
        }
    }

    /// How a server is doing; `None` for one that is not in force yet, or not any more.
    #[must_use]
    pub fn server_vitals(&self, server: &Server) -> Option<ServerVitals> {
        let upstream = self.pool.get(&server.id)?;
        let offer = upstream.offer();
        let series = Arc::clone(upstream.series());
        Some(ServerVitals {
            health: Health::of(&offer),
            tools: offer.catalogue.list(ListKind::Tools).len(),
            age: series.age().filter(|_| offer.known),
            calls: upstream.calls(),
            series,
        })
    }
}
