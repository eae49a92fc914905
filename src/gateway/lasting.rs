//! What of clients' sessions outlives the process: which have ended, and what was asked for in the others.
//!
//! An ended session is remembered until its id becomes invalid by itself. The rest is soft state like any other: it goes
//! with the session, or when nobody has used that for long.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::Gateway;
use super::session::{Session, ends};
use crate::store::Journal;
use crate::wire::hex;
use crate::wire::mcp::LogLevel;
use crate::wire::seal::SessionId;

/// Longest URI of a subscription that is kept, in bytes; one that is longer lasts as long as the process.
const LONGEST_URI: usize = 8 * 1024;

/// What is kept of a session: its key begins with one of these; the client's digest and the session's random bits follow.
#[derive(Clone, Copy)]
enum Kind {
    /// From which level on the client wants log messages.
    Level,
    /// A resource that it wants to hear of.
    Subscription,
    /// That the client has ended it.
    Ended,
}

impl Kind {
    fn of_client(self, client: &[u8; 16]) -> String {
        let kind = match self {
            Self::Level => "level",
            Self::Subscription => "subscription",
            Self::Ended => "ended",
        };
        format!("{kind}/{}/", hex::encode(client))
    }

    fn of_session(self, client: &[u8; 16], nonce: [u8; 16]) -> String {
        self.of_client(client) + &hex::encode(&nonce)
    }
}

/// Keeps what of clients' sessions outlives the process, or nothing.
#[derive(Clone, Default)]
pub(super) struct Lasting(Option<Arc<Journal>>);

impl Lasting {
    pub(super) fn new(journal: Option<Arc<Journal>>) -> Self {
        Self(journal)
    }

    /// Makes durable what was kept lately.
    pub(super) fn tend(&self) {
        if let Some(journal) = &self.0 {
            journal.tend();
        }
    }

    /// Keeps the level that was set in a session.
    pub(super) fn keep_level(&self, id: &SessionId, level: LogLevel) {
        if let Some(journal) = &self.0 {
            journal.put(&Kind::Level.of_session(&id.principal, id.nonce), level.as_str(), ends(id));
        }
    }

    /// The levels that a client has set, by session.
    pub(super) fn levels(&self, client: &[u8; 16]) -> Vec<([u8; 16], LogLevel)> {
        let kept = self.under(&Kind::Level.of_client(client));
        kept.filter_map(|(key, value, _)| Some((hex::decode(&key)?, LogLevel::parse(&value)?))).collect()
    }

    /// Keeps that a session has ended, and forgets what was asked for in it.
    pub(super) fn keep_end(&self, id: &SessionId) {
        if let Some(journal) = &self.0 {
            journal.put(&Kind::Ended.of_session(&id.principal, id.nonce), "", ends(id));
            self.forget(&id.principal, id.nonce);
        }
    }

    /// The sessions that a client has ended, and until when their ids are valid.
    pub(super) fn ended(&self, client: &[u8; 16]) -> Vec<([u8; 16], Duration)> {
        let kept = self.under(&Kind::Ended.of_client(client));
        kept.filter_map(|(key, _, until)| Some((hex::decode(&key)?, until))).collect()
    }

    /// Forgets that a session has ended.
    pub(super) fn forget_end(&self, client: &[u8; 16], nonce: [u8; 16]) {
        if let Some(journal) = &self.0 {
            journal.remove(&Kind::Ended.of_session(client, nonce));
        }
    }

    /// Forgets what was asked for in a session.
    pub(super) fn forget(&self, client: &[u8; 16], nonce: [u8; 16]) {
        if let Some(journal) = &self.0 {
            journal.remove(&Kind::Level.of_session(client, nonce));
            journal.remove_under(&(Kind::Subscription.of_session(client, nonce) + "/"));
        }
    }

    /// Forgets what was asked for in any session of a client that is gone; that some have ended only of one that cannot
    /// come again.
    pub(super) fn forget_client(&self, client: &[u8; 16], for_ever: bool) {
        let ended = for_ever.then_some(Kind::Ended);
        if let Some(journal) = &self.0 {
            let kinds = [Kind::Level, Kind::Subscription].into_iter().chain(ended);
            kinds.for_each(|kind| journal.remove_under(&kind.of_client(client)));
        }
    }

    fn keep_subscription(&self, id: &SessionId, uri: &str) {
        if let Some(journal) = self.0.as_ref().filter(|_| uri.len() <= LONGEST_URI) {
            journal.put(&subscription(id, uri), uri, ends(id));
        }
    }

    fn forget_subscription(&self, id: &SessionId, uri: &str) {
        if let Some(journal) = &self.0 {
            journal.remove(&subscription(id, uri));
        }
    }

    fn subscriptions(&self, id: &SessionId) -> Vec<String> {
        let kept = self.under(&(Kind::Subscription.of_session(&id.principal, id.nonce) + "/"));
        kept.map(|(_, uri, _)| uri).collect()
    }

    fn under(&self, prefix: &str) -> impl Iterator<Item = (String, String, Duration)> + use<> {
        let entries = self.0.as_ref().map(|journal| journal.under(prefix)).unwrap_or_default();
        entries.into_iter().map(|entry| (entry.key, entry.value, entry.until))
    }
}

/// The key of a subscription. A URI may hold anything, and be long.
fn subscription(id: &SessionId, uri: &str) -> String {
    let digest = hex::encode(&Sha256::digest(uri));
    format!("{}/{digest}", Kind::Subscription.of_session(&id.principal, id.nonce))
}

impl Gateway {
    /// Makes durable what of sessions outlives the process. To be called once a second, from where one may wait for a disk.
    pub fn tend(&self) {
        self.lasting.tend();
    }

    /// Keeps that the client wants to hear of a resource in this session, so that it still does after a restart.
    pub(super) fn record_subscription(&self, session: &Session, uri: &str) {
        if let Some(id) = session.id() {
            self.lasting.keep_subscription(id, uri);
        }
    }

    /// Forgets a subscription that is over.
    pub(super) fn forget_subscription(&self, session: &Session, uri: &str) {
        if let Some(id) = session.id() {
            self.lasting.forget_subscription(id, uri);
        }
    }

    /// The resources of which the client wants to hear in this session, as far as that was recorded, by this process or one
    /// before it.
    pub(super) fn subscriptions_of(&self, session: &Session) -> Vec<String> {
        session.id().map(|id| self.lasting.subscriptions(id)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::wire::mcp::{ClientCapabilities, ProtocolVersion};

    fn lasting(folder: &std::path::Path) -> Lasting {
        let journal = Journal::open(folder, || Duration::from_secs(1_000), Log::none());
        Lasting::new(Some(Arc::new(journal)))
    }

    fn id(client: &str, nonce: u8) -> SessionId {
        SessionId {
            principal: SessionId::principal(client),
            version: ProtocolVersion::LATEST,
            capabilities: ClientCapabilities::NONE,
            issued: 500,
            nonce: [nonce; 16],
        }
    }

    #[test]
    fn what_was_asked_for_in_a_session_is_there_after_a_restart_and_goes_with_it() {
        let folder = std::env::temp_dir().join(format!("mcp-x-lasting-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let (one, two, other) = (id("a", 1), id("a", 2), id("b", 1));
        let before = lasting(&folder);
        for id in [&one, &two, &other] {
            before.keep_level(id, LogLevel::Debug);
            before.keep_subscription(id, "test://one");
        }
        before.keep_level(&one, LogLevel::Error);
        before.keep_subscription(&one, "test://two \"\n\u{e9}");
        before.keep_subscription(&one, "test://three");
        before.forget_subscription(&one, "test://three");
        before.keep_subscription(&one, &"x".repeat(LONGEST_URI + 1));
        drop(before);
        let after = lasting(&folder);
        let levels = |lasting: &Lasting, client| lasting.levels(&SessionId::principal(client));
        assert_eq!(levels(&after, "a"), [([1; 16], LogLevel::Error), ([2; 16], LogLevel::Debug)]);
        assert_eq!(levels(&after, "b"), [([1; 16], LogLevel::Debug)]);
        let mut subscriptions = after.subscriptions(&one);
        subscriptions.sort();
        assert_eq!(subscriptions, ["test://one", "test://two \"\n\u{e9}"]);
        after.keep_end(&one);
        after.forget(&two.principal, two.nonce);
        drop(after);
        let after = lasting(&folder);
        assert_eq!((levels(&after, "a"), levels(&after, "b").len()), (vec![], 1));
        assert_eq!(after.subscriptions(&one), [""; 0]);
        assert_eq!((after.subscriptions(&two).len(), after.subscriptions(&other).len()), (0, 1));
        assert_eq!(after.ended(&one.principal), [([1; 16], ends(&one))]);
        assert_eq!(after.ended(&other.principal), []);
        after.forget_end(&one.principal, one.nonce);
        assert_eq!(after.ended(&one.principal), []);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_gateway_that_leaves_no_trace_keeps_nothing() {
        let (lasting, id) = (Lasting::default(), id("a", 1));
        lasting.keep_level(&id, LogLevel::Debug);
        lasting.keep_subscription(&id, "test://one");
        lasting.keep_end(&id);
        assert!(lasting.levels(&id.principal).is_empty() && lasting.ended(&id.principal).is_empty());
        assert!(lasting.subscriptions(&id).is_empty());
    }
}
