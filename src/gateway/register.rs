//! Clients that register themselves: their tokens, the servers they bring, and their end.
//!
//! Names and tokens are made here and handed down as values. Source: design 6 and 7.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Authority, ChangeError, ClientState, Gateway, Snapshot};
use crate::outbound::{OutboundError, vet_endpoint};
use crate::policy::edit::NewServer;
use crate::policy::{Caller, ClientId, Edit, ServerId};
use crate::wire::rest::RegisterServer;

/// How long a token is good.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// How long a registered client without servers is kept after its last token has ended.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Clients that are removed in one go, together.
const COLLECTED: usize = 200;

/// A token for a registered client.
pub struct Granted {
    /// The client.
    pub client: ClientId,
    /// Its token, good for [`TOKEN_LIFETIME`].
    pub token: String,
}

impl Gateway {
    /// Registers a new client under a name that nobody can have foreseen, if the gateway that listens at `listen` is open.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn register_client(
        &self,
        label: Option<String>,
        listen: SocketAddr,
        now: Duration,
    ) -> Result<Granted, ChangeError> {
        // SECURITY: never a name of the caller's choice: rights may have been given to it in advance.
        let client = ClientId::new(&uuid(rand::random()));
        let edit = Edit::AddClient { client: client.clone(), label, at: Duration::from_secs(now.as_secs()) };
        self.change(edit, Authority::Registration(listen)).await?;
        Ok(self.token_for(client, now))
    }

    /// Gives a registered client that signed in with such a token a fresh one; `None` for everybody else.
    #[must_use]
    pub fn refresh_token(&self, snapshot: &Snapshot, caller: &Caller, now: Duration) -> Option<Granted> {
        let registered = snapshot.registry().client(caller.client()).is_some_and(|client| client.registered.is_some());
        (registered && caller.expires().is_some()).then(|| self.token_for(caller.client().clone(), now))
    }

    fn token_for(&self, client: ClientId, now: Duration) -> Granted {
        self.client(&client).token_lasts_until(now + TOKEN_LIFETIME);
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
    pub async fn register_server(&self, caller: &Caller, server: RegisterServer) -> Result<ServerId, ChangeError> {
        let id = server.name.as_deref().map_or_else(|| ServerId::new(&uuid(rand::random())), ServerId::new);
        let RegisterServer { url, headers, tool_prefix, .. } = server;
        let server = NewServer { id: id.clone(), url, headers, tool_prefix };
        let edit = Edit::AddServer { by: caller.client().clone(), server };
        self.change(edit, Authority::Caller(caller.clone())).await.map(|()| id)
    }

    /// Removes the registered clients without servers whose last token ended a day ago.
    pub async fn collect_clients(&self, now: Duration) {
        let known: HashMap<_, _> = self.known_clients().into_iter().collect();
        self.note_ends(&known);
        let asked: Vec<_> = self
            .abandoned(&known, now)
            .into_iter()
            .take(COLLECTED)
            .map(|client| {
                let pending = self.ask(Edit::Collect { client: client.clone() }, Authority::Gateway);
                (client, pending)
            })
            .collect();
        for (client, pending) in asked {
            let done = match pending {
                Ok(pending) => pending.done().await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => {
                    self.ends.forget(client.as_str());
                    self.log.info("client collected", |r| _ = r.field("client", &client));
                }
                // It has a server by now, or is gone.
                Err(ChangeError::Refused(_)) => {}
                // The others fare no better; the writer has said why.
                Err(ChangeError::Unavailable(_)) => return,
            }
        }
    }

    /// Tells other gateways on the state folder when the last tokens end that were issued or seen here.
    fn note_ends(&self, known: &HashMap<ClientId, Arc<ClientState>>) {
        for (client, state) in known {
            let ends = state.token_ends.load(Ordering::Relaxed);
            if state.noted_ends.swap(ends, Ordering::Relaxed) < ends
                && let Err(error) = self.ends.note(client.as_str(), Duration::from_secs(ends))
            {
                state.noted_ends.store(0, Ordering::Relaxed);
                return self.log.warn("end of a token not noted", |r| _ = r.field("reason", &error));
            }
        }
    }

    fn abandoned(&self, known: &HashMap<ClientId, Arc<ClientState>>, now: Duration) -> Vec<ClientId> {
        let snapshot = self.snapshot();
        let registry = snapshot.registry();
        let is_over = |client: &ClientId, registered: Duration| {
            let seen = known.get(client).map_or(0, |state| state.token_ends.load(Ordering::Relaxed));
            // Before this process began another one may have issued a token, and not noted it.
            let here = Duration::from_secs(seen).max(registered.max(self.started) + TOKEN_LIFETIME);
            // Looked at last: it costs a look at the disk.
            here + KEPT <= now && self.ends.of(client.as_str()).is_none_or(|ends| ends + KEPT <= now)
        };
        let registered = registry.clients().filter_map(|client| Some((&client.id, client.registered?)));
        let unused = registered.filter(|(client, _)| registry.owned_by(client).is_empty());
        unused.filter(|(client, registered)| is_over(client, *registered)).map(|(client, _)| client.clone()).collect()
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
