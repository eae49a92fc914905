//! Why a client may or may not call a tool, and what it sees of each server.
//!
//! Answers come from the same [`View`](super::View) and the same decision function as lists and calls, so that explained
//! "yes" means listed and callable. What the asker may not know is left out by the asker's own standing.

use std::fmt;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{Gateway, Snapshot, View};
use crate::policy::registry::Server;
use crate::policy::{ClientId, Registry, Rule, ServerId, Target};
use crate::upstream::Offer;
use crate::wire::config::Place;
use crate::wire::mcp::ListKind;

/// How a server is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered when it was last asked.
    Ok,
    /// It did not, or was not asked yet, and its tools are those that were known before.
    Stale,
    /// It never answered.
    Down,
    /// It was not asked yet, and nothing is known of it.
    Starting,
}

impl Health {
    /// Every word.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Stale, Self::Down, Self::Starting];

    pub(super) fn of(offer: &Offer) -> Self {
        match (offer.attempted, offer.failure.is_some(), offer.known) {
            (true, false, true) => Self::Ok,
            (_, true, true) | (false, _, true) => Self::Stale,
            (true, _, false) => Self::Down,
            (false, _, false) => Self::Starting,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Stale => "stale",
            Self::Down => "down",
            Self::Starting => "starting",
        })
    }
}

/// What decided about one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A rule of the configuration.
    Rule(Rule),
    /// Another server, named if the asker may know it, comes first and has a tool of the same name.
    Hidden(Option<ServerId>),
    /// The server has no such tool.
    NotOffered,
    /// The server has the tool, and clients know it under this name.
    Prefixed(String),
    /// The server has not answered yet, so nobody knows what it has.
    Unknown,
    /// No server that the asker may know of has such a tool.
    Nobody,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::Hidden(Some(winner)) => {
                write!(f, "hidden: server `{winner}` comes first and has a tool of the same name")
            }
            Self::Hidden(None) => f.write_str("hidden: another server comes first and has a tool of the same name"),
            Self::NotOffered => f.write_str("the server has no such tool"),
            Self::Prefixed(name) => write!(f, "clients know this tool as `{name}`"),
            Self::Unknown => f.write_str("the server has not answered yet, so its tools are not known"),
            Self::Nobody => f.write_str("no server in sight has such a tool"),
        }
    }
}

impl Reason {
    /// Where the deciding rule stands in the file.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Rule(Rule::Allowed(found) | Rule::Denied(found)) => Some(found.place),
            _ => None,
        }
    }

    /// How much a reason says about why the answer is no: the greatest is the one to tell.
    fn weight(&self) -> u8 {
        match self {
            Self::Rule(Rule::Denied(_)) => 8,
            Self::Hidden(_) => 7,
            Self::Rule(Rule::NotShared) => 6,
            Self::Rule(Rule::NotMatched) => 5,
            Self::Unknown => 4,
            Self::Prefixed(_) => 3,
            Self::Rule(_) => 2,
            Self::NotOffered => 1,
            Self::Nobody => 0,
        }
    }
}

/// One server that has the tool, or may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The server.
    pub server: ServerId,
    /// The server's own name for the tool.
    pub tool: String,
    /// Whether a call goes there.
    pub allowed: bool,
    /// Why, or why not.
    pub reason: Reason,
    /// How the server is doing.
    pub health: Health,
}

/// Whether a client may call a tool, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Where a call goes; `None` if the client cannot call the tool.
    pub server: Option<ServerId>,
    /// What decided.
    pub reason: Reason,
    /// Every server that has the tool, or may have it.
    pub candidates: Vec<Candidate>,
}

/// A tool that a client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTool {
    /// The name under which the client knows it.
    pub name: String,
    /// Where a call goes.
    pub server: ServerId,
    /// The rule that allows it.
    pub rule: Rule,
    /// How the server is doing.
    pub health: Health,
}

/// A server that a client sees something of.
#[derive(Clone, Debug)]
pub struct SeenServer {
    /// The server.
    pub server: Arc<Server>,
    /// How it is doing.
    pub health: Health,
    /// What went wrong when it was last asked; for its owner and admins only.
    pub error: Option<String>,
    /// How many tools it offers altogether.
    pub offers: usize,
}

impl Gateway {
    /// Says whether `client` may call `tool`, as it names it, and why. With `only`, one server is asked about, else all.
    /// `may_know` tells which servers the asker may know of: no other one is named.
    pub async fn explain(
        &self,
        snapshot: &Snapshot,
        client: &ClientId,
        tool: &str,
        only: Option<&ServerId>,
        may_know: impl Fn(&ServerId) -> bool,
    ) -> Explanation {
        let registry = snapshot.registry();
        if registry.client(client).is_none() {
            // SECURITY: nothing is kept for names that anybody can make up.
            return Explanation { server: None, reason: Reason::Rule(Rule::NoSuchClient), candidates: Vec::new() };
        }
        let view = self.view_with(snapshot, client, tool).await;
        let question = Question { gateway: self, registry, view: &view, client, tool };
        let mut candidates = Vec::new();
        for server in registry.servers().filter(|server| may_know(&server.id)) {
            if only.is_none_or(|id| *id == server.id) {
                candidates.extend(question.about(server, only.is_some(), &may_know));
            }
        }
        let told = candidates.iter().find(|c| c.allowed).or_else(|| {
            // The first of several that weigh the same.
            candidates.iter().rev().max_by_key(|candidate| candidate.reason.weight())
        });
        Explanation {
            server: told.filter(|c| c.allowed).map(|c| c.server.clone()),
            reason: told.map_or(Reason::Nobody, |c| c.reason.clone()),
            candidates,
        }
    }

    /// The tools that a client sees, in the order of its list.
    pub async fn seen_tools(&self, snapshot: &Snapshot, client: &ClientId) -> Vec<SeenTool> {
        let view = self.view(snapshot, client).await;
        let seen = view.entries().map(|entry| {
            let server = entry.upstream.id();
            let rule = snapshot.registry().decide(client, server, entry.permit.target()).rule;
            let health = Health::of(&entry.upstream.offer());
            SeenTool { name: entry.exposed().to_owned(), server: server.clone(), rule, health }
        });
        seen.collect()
    }

    /// Waits until every server was asked for its tools once, as long as a client would wait for a list.
    pub async fn all_asked(&self, snapshot: &Snapshot) {
        let deadline = Instant::now() + snapshot.registry().settings().list_timeout;
        for upstream in snapshot.registry().servers().filter_map(|server| self.pool.get(&server.id)) {
            // They are all being asked side by side; one after the other is only the waiting.
            if timeout_at(deadline, upstream.attempted()).await.is_err() {
                return;
            }
        }
    }

    /// How a server is doing.
    #[must_use]
    pub fn seen_server(&self, server: &Arc<Server>) -> SeenServer {
        let offer = self.pool.get(&server.id).map(|upstream| upstream.offer()).unwrap_or_default();
        SeenServer {
            server: Arc::clone(server),
            health: Health::of(&offer),
            error: offer.failure.as_ref().map(ToString::to_string),
            offers: offer.catalogue.list(ListKind::Tools).len(),
        }
    }
}

/// Who asks about which tool.
struct Question<'a> {
    gateway: &'a Gateway,
    registry: &'a Registry,
    view: &'a View,
    client: &'a ClientId,
    tool: &'a str,
}

impl Question<'_> {
    /// What there is to say about one server; nothing if it cannot have the tool and was not asked about by name.
    fn about(&self, server: &Server, named: bool, may_know: impl Fn(&ServerId) -> bool) -> Option<Candidate> {
        let offer = self.gateway.pool.get(&server.id)?.offer();
        let own = self.tool.strip_prefix(server.tool_prefix.as_str());
        let offers = |name: &str| offer.catalogue.list(ListKind::Tools).iter().any(|tool| tool.name == name);
        let reason = match own {
            Some(own) => {
                let decision = self.registry.decide(self.client, &server.id, Target::Tool(own));
                match decision.verdict {
                    Ok(_) if offers(own) => return Some(self.allowed(server, own, decision.rule, &offer, may_know)),
                    Ok(_) if offer.known => Reason::NotOffered,
                    Ok(_) => Reason::Unknown,
                    Err(_) if named || offers(own) => Reason::Rule(decision.rule),
                    Err(_) => return None,
                }
            }
            None if offers(self.tool) => Reason::Prefixed(format!("{}{}", server.tool_prefix, self.tool)),
            None => Reason::NotOffered,
        };
        if reason == Reason::NotOffered && !named {
            return None;
        }
        Some(candidate(server, own.unwrap_or(self.tool), false, reason, &offer))
    }

    /// A server whose tool the client may use: a call goes there, or to another that comes first.
    fn allowed(
        &self,
        server: &Server,
        own: &str,
        rule: Rule,
        offer: &Offer,
        may_know: impl Fn(&ServerId) -> bool,
    ) -> Candidate {
        let winner = self.view.tool(self.tool).map(|entry| entry.upstream.id());
        if winner == Some(&server.id) {
            return candidate(server, own, true, Reason::Rule(rule), offer);
        }
        let reason = Reason::Hidden(winner.filter(|id| may_know(id)).cloned());
        candidate(server, own, false, reason, offer)
    }
}

fn candidate(server: &Server, tool: &str, allowed: bool, reason: Reason, offer: &Offer) -> Candidate {
    Candidate { server: server.id.clone(), tool: tool.to_owned(), allowed, reason, health: Health::of(offer) }
}
