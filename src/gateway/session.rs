//! Legacy sessions of clients.
//!
//! The id is sealed and says everything needed to serve the session (`wire::seal::SessionId`); what is kept here is soft
//! state that may be dropped and made anew at any time. Only the mark of a session that its client has ended must stay.
//! Source: MCP 2025-11-25, transports, "Session Management"; design 8.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::{ClientState, Gateway, Snapshot};
use crate::policy::ClientId;
use crate::upstream::Tenant;
use crate::wire::mcp::{ClientCapabilities, ProtocolVersion};
use crate::wire::seal::SessionId;

/// How long a session id is valid.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Ended sessions of one client that are remembered.
const TOMBSTONES: usize = 10_000;

/// A session that does not exist, has ended, or belongs to somebody else; which of them is nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSession;

/// A client's session, or the lack of one: a legacy request without a session id is served as one that declared nothing.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    id: Option<SessionId>,
}

impl Session {
    /// Outside of any session.
    pub const NONE: Self = Self { id: None };

    /// The revision that was negotiated, if there is a session.
    #[must_use]
    pub fn version(self) -> Option<ProtocolVersion> {
        self.id.map(|id| id.version)
    }

    /// For whom sessions with servers are held.
    pub(super) fn tenant(self, client: &ClientId) -> Tenant {
        let capabilities = ClientCapabilities::NONE;
        Tenant::Client { client: client.clone(), session: self.id.map(|id| id.nonce), capabilities }
    }
}

/// Soft state of one client's sessions, by their random bits.
#[derive(Default)]
pub(super) struct Sessions {
    /// When each was last used, since the Unix epoch.
    live: HashMap<[u8; 16], Duration>,
    /// When the ids of ended sessions become invalid by themselves.
    ended: HashMap<[u8; 16], Duration>,
}

impl Sessions {
    /// Notes that a session is in use; returns one that had to make room.
    fn touch(&mut self, nonce: [u8; 16], now: Duration, most: usize) -> Option<[u8; 16]> {
        let full = self.live.len() >= most && !self.live.contains_key(&nonce);
        let oldest = if full { self.live.iter().min_by_key(|(_, used)| **used).map(|(n, _)| *n) } else { None };
        if let Some(oldest) = oldest {
            self.live.remove(&oldest);
        }
        self.live.insert(nonce, now);
        oldest
    }

    fn end(&mut self, id: &SessionId, now: Duration) {
        self.live.remove(&id.nonce);
        self.ended.retain(|_, until| *until > now);
        if self.ended.len() >= TOMBSTONES {
            let first = self.ended.iter().min_by_key(|(_, until)| **until).map(|(n, _)| *n);
            first.map(|n| self.ended.remove(&n));
        }
        self.ended.insert(id.nonce, Duration::from_secs(id.issued) + LIFETIME);
    }

    /// Takes out the sessions not used since `limit`.
    fn idle_since(&mut self, limit: Duration) -> Vec<[u8; 16]> {
        let idle: Vec<_> = self.live.iter().filter(|(_, used)| **used < limit).map(|(n, _)| *n).collect();
        for nonce in &idle {
            self.live.remove(nonce);
        }
        idle
    }
}

impl ClientState {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Makes the id of a new session. `now` is the time since the Unix epoch, as everywhere here.
    #[must_use]
    pub fn open_session(
        &self,
        client: &ClientId,
        version: ProtocolVersion,
        capabilities: ClientCapabilities,
        now: Duration,
    ) -> String {
        let id = SessionId {
            principal: SessionId::principal(client.as_str()),
            version,
            capabilities,
            issued: now.as_secs(),
            nonce: rand::random(),
        };
        id.seal(&self.sealer)
    }

    /// Finds the session of an id that a client sent.
    ///
    /// # Errors
    /// [`NoSession`] if the id was not made here, has expired or was ended, or is another client's.
    pub fn session(
        &self,
        snapshot: &Snapshot,
        client: &ClientId,
        sealed: &str,
        now: Duration,
    ) -> Result<Session, NoSession> {
        let id = self.read_id(client, sealed, now)?;
        let most = snapshot.registry().settings().limits.sessions_per_client;
        let state = self.client(client);
        let mut sessions = state.sessions();
        if sessions.ended.contains_key(&id.nonce) {
            return Err(NoSession);
        }
        let dropped = sessions.touch(id.nonce, now, most);
        drop(sessions);
        if let Some(nonce) = dropped {
            self.pool.end_session(client, nonce);
        }
        Ok(Session { id: Some(id) })
    }

    /// Ends a session for good.
    ///
    /// # Errors
    /// As [`session`](Self::session).
    pub fn end_session(&self, client: &ClientId, sealed: &str, now: Duration) -> Result<(), NoSession> {
        let id = self.read_id(client, sealed, now)?;
        let state = self.client(client);
        let mut sessions = state.sessions();
        if sessions.ended.contains_key(&id.nonce) {
            return Err(NoSession);
        }
        sessions.end(&id, now);
        drop(sessions);
        self.pool.end_session(client, id.nonce);
        Ok(())
    }

    /// Drops the soft state of sessions that nobody has used for long; their ids stay valid.
    pub fn drop_idle_sessions(&self, now: Duration) {
        let limit = now.saturating_sub(self.snapshot().registry().settings().limits.idle_session);
        for shard in &self.clients {
            let clients: Vec<_> = {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.iter().map(|(id, state)| (id.clone(), std::sync::Arc::clone(state))).collect()
            };
            for (client, state) in clients {
                let idle = state.sessions().idle_since(limit);
                for nonce in idle {
                    self.pool.end_session(&client, nonce);
                }
            }
        }
    }

    fn read_id(&self, client: &ClientId, sealed: &str, now: Duration) -> Result<SessionId, NoSession> {
        let id = SessionId::open(&self.sealer, sealed).ok_or(NoSession)?;
        // SECURITY: an id is worth nothing to another client, even if it was stolen.
        let own = id.principal == SessionId::principal(client.as_str());
        let valid = Duration::from_secs(id.issued) + LIFETIME > now;
        if own && valid { Ok(id) } else { Err(NoSession) }
    }
}
