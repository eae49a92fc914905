//! Clients that register themselves: their tokens, the servers they bring, and their end.
//!
//! Names and tokens are made here and handed down as values. Source: design 6 and 7.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{ChangeError, Gateway, Snapshot};
use crate::outbound::{OutboundError, vet_endpoint};
use crate::policy::edit::NewServer;
use crate::policy::{Caller, ClientId, Edit, ServerId};
use crate::wire::rest::RegisterServer;

/// How long a token is good.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// How long a registered client without servers is kept after its last token has ended.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A token for a registered client.
pub struct Granted {
    /// The client.
    pub client: ClientId,
    /// Its token, good for [`TOKEN_LIFETIME`].
    pub token: String,
}

impl Gateway {
    /// Registers a new client under a name that nobody can have foreseen.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn register_client(&self, label: Option<String>, now: Duration) -> Result<Granted, ChangeError> {
        // SECURITY: never a name of the caller's choice: rights may have been given to it in advance.
        let client = ClientId::new(&uuid(rand::random()));
        self.change(Edit::AddClient { client: client.clone(), label, at: Duration::from_secs(now.as_secs()) }).await?;
        Ok(self.token_for(client, now))
    }

    /// Gives a registered client that signed in with such a token a fresh one; `None` for everybody else.
    #[must_use]
    pub fn refresh_token(&self, snapshot: &Snapshot, caller: &Caller, now: Duration) -> Option<Granted> {
        let registered = snapshot.registry().client(caller.client()).is_some_and(|client| client.registered.is_some());
        (registered && caller.expires().is_some()).then(|| self.token_for(caller.client().clone(), now))
    }

    fn token_for(&self, client: ClientId, now: Duration) -> Granted {
        self.client(&client).token_ends.fetch_max((now + TOKEN_LIFETIME).as_secs(), Ordering::Relaxed);
        let token = self.keys.tokens.sign(client.as_str(), now, TOKEN_LIFETIME);
        Granted { client, token }
    }

    /// Refuses an address that a server of this client may not have, as far as that is known without asking a resolver.
    ///
    /// # Errors
    /// [`OutboundError::Forbidden`].
    pub fn check_address(
        &self,
        snapshot: &Snapshot,
        by: &ClientId,
        server: &RegisterServer,
    ) -> Result<(), OutboundError> {
        vet_endpoint(&server.endpoint, snapshot.registry().reach_of(by))
    }

    /// Adds a server that a client brings; a name is made up where it has none.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn register_server(&self, by: ClientId, server: RegisterServer) -> Result<ServerId, ChangeError> {
        let id = server.name.as_deref().map_or_else(|| ServerId::new(&uuid(rand::random())), ServerId::new);
        let RegisterServer { url, headers, tool_prefix, .. } = server;
        let server = NewServer { id: id.clone(), url, headers, tool_prefix };
        self.change(Edit::AddServer { by, server }).await.map(|()| id)
    }

    /// Removes the registered clients without servers whose last token ended a day ago.
    pub async fn collect_clients(&self, now: Duration) {
        for client in self.abandoned(now) {
            let done = self.change(Edit::Collect { client: client.clone() }).await;
            match done {
                Ok(()) => self.log.info("client collected", |r| _ = r.field("client", &client)),
                Err(error) => {
                    self.log.warn("client not collected", |r| _ = r.field("client", &client).field("reason", &error));
                }
            }
        }
    }

    fn abandoned(&self, now: Duration) -> Vec<ClientId> {
        let known: HashMap<_, _> = self.known_clients().into_iter().collect();
        let snapshot = self.snapshot();
        let registry = snapshot.registry();
        let is_over = |client: &ClientId, registered: Duration| {
            let seen = known.get(client).map_or(0, |state| state.token_ends.load(Ordering::Relaxed));
            // Before this process began another one may have issued a token.
            let ends = Duration::from_secs(seen).max(registered.max(self.started) + TOKEN_LIFETIME);
            ends + KEPT <= now
        };
        let unused = registry.clients().filter(|c| c.registered.is_some_and(|at| is_over(&c.id, at)));
        unused.filter(|c| registry.owned_by(&c.id).is_empty()).map(|c| c.id.clone()).collect()
    }
}

/// A UUID of version 4 (RFC 9562, 5.4) from random bits.
fn uuid(random: u128) -> String {
    let bits = random & !(0xf000 << 64 | 0xc000 << 48) | 0x4000 << 64 | 0x8000 << 48;
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_say_their_version_and_variant() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
