//! The handshake dialect: `initialize`, sessions, renewal of lost ones.
//!
//! A server that hands out a session id keeps state behind it, so a session is never shared between principals: each is
//! kept under its [`Tenant`]. A server that hands out none is session-less; one handshake tells, and then every call is a
//! single request. Source: MCP 2025-11-25, lifecycle and transports; protocol.md 3.2, 3.3, 4.1.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hyper::header::HeaderValue;
use tokio::sync::OnceCell;

use super::answer::Answer;
use super::channel::Channel;
use super::error::UpstreamError;
use crate::policy::ClientId;
use crate::wire::jsonrpc::Envelope;
use crate::wire::mcp::{ClientCapabilities, InitializeResult, ProtocolVersion, header, method};

/// For whom a session is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tenant {
    /// The gateway itself: it lists, and nothing else.
    Catalogue,
    /// A client, in one of its own sessions or outside of them.
    Client {
        /// The principal.
        client: ClientId,
        /// Random bits of the downstream session, if there is one.
        session: Option<[u8; 16]>,
        /// What the client can be asked for.
        capabilities: ClientCapabilities,
    },
}

/// What a handshake agreed on.
#[derive(Debug)]
pub(super) struct Session {
    /// The server's session id; `None` for a session-less server.
    pub(super) id: Option<HeaderValue>,
    /// Revision of all further requests.
    pub(super) version: ProtocolVersion,
    /// The server's instructions to models.
    pub(super) instructions: Option<String>,
    /// Whether this stands for no session yet: `initialize` itself carries no version header.
    pub(super) opening: bool,
}

type Slot = Arc<OnceCell<Arc<Session>>>;

/// The sessions with one server.
#[derive(Default)]
pub(super) struct Sessions {
    /// Set once the server turned out to be session-less; then it serves every tenant.
    sessionless: RwLock<Option<Arc<Session>>>,
    held: Mutex<HashMap<Tenant, Slot>>,
}

impl Sessions {
    fn held(&self) -> MutexGuard<'_, HashMap<Tenant, Slot>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenant's slot; whoever finds it empty makes the handshake, the others wait for it.
    fn slot(&self, tenant: &Tenant) -> Slot {
        let mut held = self.held();
        match held.get(tenant) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(held.entry(tenant.clone()).or_default()),
        }
    }

    fn sessionless(&self) -> Option<Arc<Session>> {
        self.sessionless.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_sessionless(&self, session: Option<Arc<Session>>) {
        *self.sessionless.write().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Forgets a session that the server does not know any more, unless somebody has renewed it already.
    pub(super) fn forget(&self, tenant: &Tenant, dead: &Arc<Session>) {
        if dead.id.is_none() {
            self.set_sessionless(None);
        }
        let mut held = self.held();
        if held.get(tenant).and_then(|slot| slot.get()).is_some_and(|live| Arc::ptr_eq(live, dead)) {
            held.remove(tenant);
        }
    }

    /// Takes out the sessions that were held for one downstream session.
    pub(super) fn end(&self, client: &ClientId, nonce: [u8; 16]) -> Vec<Arc<Session>> {
        let mut ended = Vec::new();
        self.held().retain(|tenant, slot| {
            let of_it =
                matches!(tenant, Tenant::Client { client: c, session: Some(s), .. } if c == client && *s == nonce);
            if of_it {
                ended.extend(slot.get().cloned());
            }
            !of_it
        });
        ended
    }
}

impl Channel {
    /// The tenant's session, made now if there is none.
    ///
    /// # Errors
    /// What went wrong in the handshake; the next caller tries again.
    pub(super) async fn session(&self, tenant: &Tenant) -> Result<Arc<Session>, UpstreamError> {
        if let Some(session) = self.upstream.sessions.sessionless() {
            return Ok(session);
        }
        let slot = self.upstream.sessions.slot(tenant);
        slot.get_or_try_init(|| self.handshake(tenant)).await.cloned()
    }

    async fn handshake(&self, tenant: &Tenant) -> Result<Arc<Session>, UpstreamError> {
        let opening =
            Arc::new(Session { id: None, version: ProtocolVersion::LATEST, instructions: None, opening: true });
        let id = self.upstream.next_id();
        let (answer, session_id) = self.open(tenant, &opening, id, initialize(id, tenant)).await?;
        let session = Arc::new(agreed(&answer.response().await?, session_id)?);
        self.notify(&session, format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, method::INITIALIZED).into_bytes())
            .await?;
        if session.id.is_none() {
            self.upstream.sessions.set_sessionless(Some(Arc::clone(&session)));
        }
        self.upstream.log.debug("server session opened", |r| {
            r.field("server", self.upstream.id())
                .field("version", session.version)
                .field("sessionful", session.id.is_some());
        });
        Ok(session)
    }

    /// Sends `initialize`. A URL without a path is tried as it is and at `/mcp`; one redirect within the origin is followed.
    async fn open(
        &self,
        tenant: &Tenant,
        opening: &Arc<Session>,
        id: u64,
        message: Vec<u8>,
    ) -> Result<(Answer, Option<HeaderValue>), UpstreamError> {
        let mut response = self.post_short(opening, message.clone()).await?;
        let elsewhere = match response.0.status().as_u16() {
            404 | 405 if self.upstream.server.endpoint.bare => Some(self.upstream.server.endpoint.with_target("/mcp")),
            307 | 308 => self.upstream.redirected(response.0.headers()),
            _ => None,
        };
        if let Some(endpoint) = elsewhere {
            self.upstream.move_to(endpoint);
            response = self.post_short(opening, message).await?;
        }
        let (response, timer) = response;
        let session_id = response.headers().get(header::SESSION_ID).cloned();
        let answer = self.answer(tenant, Arc::clone(opening), id, response, timer).await?;
        Ok((answer, session_id))
    }
}

/// The `initialize` request. A call session declares nothing, because the gateway can pass nothing on to its client; the
/// catalogue session declares everything, because some servers list their tools by what the client can do.
fn initialize(id: u64, tenant: &Tenant) -> Vec<u8> {
    let capabilities = match tenant {
        Tenant::Catalogue => r#"{"roots":{},"sampling":{},"elicitation":{"form":{},"url":{}}}"#,
        Tenant::Client { .. } => "{}",
    };
    let (version, own) = (ProtocolVersion::LATEST, env!("CARGO_PKG_VERSION"));
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{capabilities},"clientInfo":{{"name":"mcp-x","version":"{own}"}}}}}}"#
    )
    .into_bytes()
}

fn agreed(response: &Envelope, id: Option<HeaderValue>) -> Result<Session, UpstreamError> {
    if let Some(error) = response.error() {
        return Err(UpstreamError::Rpc(error));
    }
    let result = response.result_span().map(|s| s.of(response.bytes())).unwrap_or_default();
    let result = InitializeResult::parse(result).map_err(|e| UpstreamError::NotMcp(format!("initialize: {e}")))?;
    let version = ProtocolVersion::parse(&result.protocol_version).ok_or_else(|| {
        let found: String = result.protocol_version.chars().take(40).collect();
        UpstreamError::NotMcp(format!("expected a protocol version up to {}, found `{found}`", ProtocolVersion::LATEST))
    })?;
    Ok(Session { id, version, instructions: result.instructions, opening: false })
}
