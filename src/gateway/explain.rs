//! Why a client may or may not use a tool, prompt or resource, and what it sees of each server.
//!
//! Answers come from the same [`View`](super::View) and the same decision function as lists and calls, so that explained
//! "yes" means listed and callable, or readable. What the asker may not know is left out by the asker's own standing.

use std::fmt;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::view::target;
use super::{Gateway, Snapshot, Subject, View, Wanted};
use crate::policy::registry::Server;
use crate::policy::{ClientId, Registry, Rule, ServerId};
use crate::upstream::Offer;
use crate::wire::config::Place;
use crate::wire::mcp::ListKind;
use crate::wire::uri_template::Template;

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

/// What decided about one tool, prompt or resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A rule of the configuration.
    Rule(Rule),
    /// Another server, named if the asker may know it, comes first and has one of the same name.
    Hidden(Option<ServerId>),
    /// The server has no such thing.
    NotOffered,
    /// The server has it, and clients know it under this name.
    Prefixed(String),
    /// The server has not answered yet, so nobody knows what it has.
    Unknown,
    /// No server that the asker may know of has such a thing.
    Nobody,
}

impl Reason {
    /// The reason in words, of something of this kind.
    #[must_use]
    pub fn about(&self, kind: ListKind) -> String {
        let (noun, name) = (kind.noun(), if kind.key() == "name" { "name" } else { "URI" });
        match self {
            Self::Rule(rule) => rule.to_string(),
            Self::Hidden(Some(winner)) => {
                format!("hidden: server `{winner}` comes first and has a {noun} of the same {name}")
            }
            Self::Hidden(None) => format!("hidden: another server comes first and has a {noun} of the same {name}"),
            Self::NotOffered if kind == ListKind::Resources => {
                "the server lists no such resource, and is not the only one that could have it".to_owned()
            }
            Self::NotOffered => format!("the server has no such {noun}"),
            Self::Prefixed(name) => format!("clients know this {noun} as `{name}`"),
            Self::Unknown => format!("the server has not answered yet, so its {noun}s are not known"),
            Self::Nobody => format!("no server in sight has such a {noun}"),
        }
    }

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
            Self::Rule(Rule::NotMatched | Rule::NoneOf(_)) => 5,
            Self::Unknown => 4,
            Self::Prefixed(_) => 3,
            Self::Rule(_) => 2,
            Self::NotOffered => 1,
            Self::Nobody => 0,
        }
    }
}

/// One server that has what is asked about, or may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The server.
    pub server: ServerId,
    /// The server's own name for it.
    pub name: String,
    /// Whether a request goes there.
    pub allowed: bool,
    /// Why, or why not.
    pub reason: Reason,
    /// How the server is doing.
    pub health: Health,
}

/// Whether a client may use something, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Where a request goes; `None` if the client may not make it.
    pub server: Option<ServerId>,
    /// What decided.
    pub reason: Reason,
    /// Every server that has it, or may have it.
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
    /// Says whether `client` may use a tool, prompt or resource, as it names it, and why. With `only`, one server is asked
    /// about, else all.
    /// `may_know` tells which servers the asker may know of: no other one is named.
    pub async fn explain(
        &self,
        snapshot: &Snapshot,
        client: &ClientId,
        subject: &Subject,
        only: Option<&ServerId>,
        may_know: impl Fn(&ServerId) -> bool,
    ) -> Explanation {
        let registry = snapshot.registry();
        if registry.client(client).is_none() {
            // SECURITY: nothing is kept for names that anybody can make up.
            return Explanation { server: None, reason: Reason::Rule(Rule::NoSuchClient), candidates: Vec::new() };
        }
        let view = self.view_with(snapshot, client, Wanted(subject.kind, &subject.name)).await;
        let winner = winner(&view, registry, subject);
        let question = Question { gateway: self, registry, winner, client, subject };
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

/// Where a request about this goes.
fn winner(view: &View, registry: &Registry, Subject { kind, name }: &Subject) -> Option<ServerId> {
    match kind {
        ListKind::Resources => view.resource(registry, name).map(|(_, upstream)| upstream.id().clone()),
        ListKind::Tools | ListKind::Prompts | ListKind::Templates => {
            view.find(*kind, name).map(|entry| entry.upstream.id().clone())
        }
    }
}

/// Who asks about what.
struct Question<'a> {
    gateway: &'a Gateway,
    registry: &'a Registry,
    /// Where a request goes.
    winner: Option<ServerId>,
    client: &'a ClientId,
    subject: &'a Subject,
}

impl Question<'_> {
    /// What there is to say about one server; nothing if it cannot have it and was not asked about by name.
    fn about(&self, server: &Server, named: bool, may_know: impl Fn(&ServerId) -> bool) -> Option<Candidate> {
        let offer = self.gateway.pool.get(&server.id)?.offer();
        let Subject { kind, name } = self.subject;
        let own = name.strip_prefix(server.prefix(*kind));
        let reason = match own {
            Some(own) => {
                let decision = self.registry.decide(self.client, &server.id, target(*kind, own));
                match decision.verdict {
                    Ok(_) if self.winner.as_ref() == Some(&server.id) => {
                        return Some(candidate(server, own, true, Reason::Rule(decision.rule), &offer));
                    }
                    Ok(_) if self.winner.is_some() && self.offers(&offer, own) => {
                        Reason::Hidden(self.winner.clone().filter(|id| may_know(id)))
                    }
                    Ok(_) if offer.known => Reason::NotOffered,
                    Ok(_) => Reason::Unknown,
                    Err(_) if named || self.offers(&offer, own) => Reason::Rule(decision.rule),
                    Err(_) => return None,
                }
            }
            None if self.offers(&offer, name) => Reason::Prefixed(format!("{}{name}", server.prefix(*kind))),
            None => Reason::NotOffered,
        };
        if reason == Reason::NotOffered && !named {
            return None;
        }
        Some(candidate(server, own.unwrap_or(name), false, reason, &offer))
    }

    /// Whether a server has this, under its own name.
    fn offers(&self, offer: &Offer, own: &str) -> bool {
        let (kind, catalogue) = (self.subject.kind, &offer.catalogue);
        catalogue.list(kind).iter().any(|entry| entry.name == own)
            || (kind == ListKind::Resources
                && catalogue.list(ListKind::Templates).iter().any(|entry| Template::parse(&entry.name).matches(own)))
    }
}

fn candidate(server: &Server, name: &str, allowed: bool, reason: Reason, offer: &Offer) -> Candidate {
    Candidate { server: server.id.clone(), name: name.to_owned(), allowed, reason, health: Health::of(offer) }
}
