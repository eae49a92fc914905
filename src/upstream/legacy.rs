//! The handshake dialect: `initialize`, sessions, renewal of lost ones.
//!
//! A server that hands out a session id keeps state behind it, so a session is never shared between principals: each is
//! kept under its [`Tenant`]. A server that hands out none is session-less; one handshake tells, and then every call is a
//! single request. Source: MCP 2025-11-25, lifecycle and transports; protocol.md 3.2, 3.3, 4.1.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use hyper::Response;
use hyper::header::{HeaderMap, HeaderValue, LOCATION};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::Instant;

use super::Upstream;
use super::channel::{Channel, Dialect};
use super::error::UpstreamError;
use super::lasting::Lasting;
use super::probe::Failed;
use super::request::Outbound;
use super::target::Target;
use crate::log::cut;
use crate::outbound::Incoming;
use crate::policy::ClientId;
use crate::wire::endpoint::Endpoint;
use crate::wire::jsonrpc::Envelope;
use crate::wire::mcp::{
    ClientCapabilities, IDENTITY, InitializeResult, LogLevel, ProtocolVersion, ServerCapabilities, header, method,
};

/// Bytes of a server's instructions that are kept.
const INSTRUCTIONS: usize = 2 * 1024;

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
        /// What the client can be asked for in it.
        capabilities: ClientCapabilities,
        /// Tells apart sessions that serve one call at a time; see [`Lane`](super::Lane).
        lane: u16,
    },
}

/// What a handshake agreed on.
pub(super) struct Session {
    /// The server's session id; `None` for a session-less server.
    pub(super) id: Option<HeaderValue>,
    /// Revision of all further requests.
    pub(super) version: ProtocolVersion,
    /// What the server can do.
    pub(super) capabilities: ServerCapabilities,
    /// The server's instructions to models.
    pub(super) instructions: Option<Box<str>>,
    /// Where the server was when the session was opened, and is as long as it lasts.
    pub(super) target: Target,
    /// Whether this stands for no session yet.
    pub(super) opening: bool,
    /// The level of log messages that the server was told last.
    level: Mutex<Option<LogLevel>>,
}

/// The place of a session.
#[derive(Default)]
struct Opening {
    session: OnceLock<Arc<Session>>,
    /// Held by whoever opens it, with how that failed last.
    turn: AsyncMutex<Option<Failed>>,
}

struct Held {
    opening: Arc<Opening>,
    used: Instant,
}

/// The sessions with one server.
pub(super) struct Sessions {
    /// Set once the server turned out to be session-less; then it serves every tenant.
    sessionless: RwLock<Option<Arc<Session>>>,
    held: Mutex<HashMap<Tenant, Held>>,
    /// Says that a session, or the server, is another.
    pub(super) changed: watch::Sender<()>,
    /// Where those of `held` outlive the process. Told while `held` is locked, so that it hears everything in order.
    pub(super) lasting: Lasting,
}

impl Sessions {
    pub(super) fn new(lasting: Lasting) -> Self {
        let changed = watch::Sender::new(());
        Self { sessionless: RwLock::default(), held: Mutex::default(), changed, lasting }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Tenant, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of the tenant's session; whoever finds it empty makes the handshake, the others wait for it.
    fn opening(&self, tenant: &Tenant) -> Arc<Opening> {
        let now = Instant::now();
        let mut held = self.held();
        if let Some(held) = held.get_mut(tenant) {
            held.used = now;
            return Arc::clone(&held.opening);
        }
        let opening = Arc::<Opening>::default();
        held.insert(tenant.clone(), Held { opening: Arc::clone(&opening), used: now });
        opening
    }

    /// Puts a session into its place, where all who waited for it find it.
    fn opened(&self, tenant: &Tenant, opening: &Arc<Opening>, session: &Arc<Session>) {
        let held = self.held();
        // Whoever has the turn is the only one who sets it.
        let _ = opening.session.set(Arc::clone(session));
        // Not so if the tenant has ended meanwhile.
        if held.get(tenant).is_some_and(|held| Arc::ptr_eq(&held.opening, opening)) {
            self.lasting.opened(tenant, session);
        }
    }

    /// Puts a session of an earlier process into its place.
    pub(super) fn take_up(&self, tenant: Tenant, session: Session) {
        let opening = Opening { session: Arc::new(session).into(), ..Opening::default() };
        self.held().insert(tenant, Held { opening: Arc::new(opening), used: Instant::now() });
    }

    /// The session for a request that is about to be sent, if there is one.
    fn in_use(&self, tenant: &Tenant) -> Option<Arc<Session>> {
        if let Some(session) = self.sessionless() {
            return Some(session);
        }
        let mut held = self.held();
        let held = held.get_mut(tenant)?;
        held.used = Instant::now();
        held.opening.session.get().cloned()
    }

    /// The session that serves the tenant now, if there is one.
    pub(super) fn live(&self, tenant: &Tenant) -> Option<Arc<Session>> {
        self.sessionless().or_else(|| self.held().get(tenant)?.opening.session.get().cloned())
    }

    /// The session that is held for the tenant, if there is one.
    pub(super) fn of(&self, tenant: &Tenant) -> Option<Arc<Session>> {
        self.held().get(tenant)?.opening.session.get().filter(|session| session.id.is_some()).cloned()
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
        if held.get(tenant).and_then(|h| h.opening.session.get()).is_some_and(|live| Arc::ptr_eq(live, dead)) {
            held.remove(tenant);
            self.lasting.ended(tenant);
        }
        drop(held);
        self.changed.send_replace(());
    }

    /// Forgets all sessions.
    pub(super) fn clear(&self) {
        self.set_sessionless(None);
        for (tenant, _) in self.held().drain() {
            self.lasting.ended(&tenant);
        }
        self.changed.send_replace(());
    }

    /// Takes out all sessions, and keeps none from now on.
    pub(super) fn retire(&self) -> Vec<Arc<Session>> {
        let mut held = self.held();
        let all = held.drain().map(|(tenant, held)| {
            self.lasting.ended(&tenant);
            held.opening.session.get().cloned()
        });
        let taken = all.flatten().collect();
        self.lasting.end();
        taken
    }

    /// Takes out the sessions that `ends` is true of, given whose they are and when they were last used; of one that was
    /// still being opened, only whose it was to be.
    pub(super) fn take(&self, ends: impl Fn(&Tenant, Instant) -> bool) -> HashMap<Tenant, Option<Arc<Session>>> {
        let mut held = self.held();
        let taken = held.extract_if(|tenant, held| ends(tenant, held.used));
        let taken = taken.inspect(|(tenant, _)| self.lasting.ended(tenant));
        taken.map(|(tenant, held)| (tenant, held.opening.session.get().cloned())).collect()
    }
}

impl Channel {
    /// The tenant's session, made now if there is none. One makes it, the others wait for that.
    ///
    /// # Errors
    /// What went wrong in the handshake; whoever comes later tries again.
    pub(super) async fn session(&self, tenant: &Tenant) -> Result<Arc<Session>, UpstreamError> {
        match self.upstream.sessions.in_use(tenant) {
            Some(session) => Ok(session),
            // Boxed because it is rare and large: it would make the future of every call as large.
            None => Box::pin(self.make_session(tenant)).await,
        }
    }

    async fn make_session(&self, tenant: &Tenant) -> Result<Arc<Session>, UpstreamError> {
        let opening = self.upstream.sessions.opening(tenant);
        let since = Instant::now();
        let mut last = opening.turn.lock().await;
        match (opening.session.get(), &*last) {
            (Some(session), _) => return Ok(Arc::clone(session)),
            (None, Some(handshake)) if handshake.ended >= since => return Err(handshake.failure.clone()),
            (None, _) => {}
        }
        let made = self.handshake(tenant).await;
        match &made {
            Ok(session) => self.upstream.sessions.opened(tenant, &opening, session),
            Err(failure) => *last = Some(Failed { ended: Instant::now(), failure: failure.clone() }),
        }
        made
    }

    async fn handshake(&self, tenant: &Tenant) -> Result<Arc<Session>, UpstreamError> {
        let known = self.upstream.place();
        let session = match self.open(tenant, Arc::clone(&known)).await {
            Ok(session) => Arc::new(session),
            Err(error) => {
                // Wherever the server was, it may be back at its URL, and as another.
                self.upstream.move_to_start();
                self.upstream.forget();
                return Err(error);
            }
        };
        if session.target.place != known {
            self.upstream.move_to(Arc::clone(&session.target.place));
        }
        let initialized = format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, method::INITIALIZED);
        self.notify(&session, initialized.into_bytes()).await?;
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

    /// Sends `initialize`. A URL without a path is tried as it is and at `/mcp`, and one redirect within the origin is
    /// followed.
    async fn open(&self, tenant: &Tenant, place: Arc<Endpoint>) -> Result<Session, UpstreamError> {
        let mut place = place;
        let id = self.upstream.next_id();
        let message = Outbound::of(initialize(id, tenant));
        let mut opening = Dialect::Legacy(Arc::new(Session::opening(&self.upstream, &place)));
        let (mut response, mut timer) = self.post_short(&opening, message.clone()).await?;
        if let Some(elsewhere) = elsewhere(&place, &response) {
            place = Arc::new(elsewhere);
            opening = Dialect::Legacy(Arc::new(Session::opening(&self.upstream, &place)));
            (response, timer) = self.post_short(&opening, message).await?;
        }
        let session_id = response.headers().get(header::SESSION_ID).cloned();
        let answer = self.answer(tenant, opening, id, response, timer).await?;
        agreed(&self.upstream, &answer.response().await?, session_id, place)
    }

    /// The tenant's session, told from which level on the client behind a request wants log messages.
    ///
    /// # Errors
    /// As [`session`](Self::session).
    pub(super) async fn prepared_session(
        &self,
        tenant: &Tenant,
        level: Option<LogLevel>,
    ) -> Result<Arc<Session>, UpstreamError> {
        let session = self.session(tenant).await?;
        if let Some(level) = level.filter(|level| !session.is_told(*level)) {
            Box::pin(self.set_level(tenant, &session, level)).await;
        }
        Ok(session)
    }

    /// Tells the server the level if it was told another; whether it knows of levels makes no difference to the call.
    async fn set_level(&self, tenant: &Tenant, session: &Arc<Session>, level: LogLevel) {
        if session.swap_level(level) == Some(level) {
            return;
        }
        let (id, name, method) = (self.upstream.next_id(), level.as_str(), method::SET_LEVEL);
        let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"level":"{name}"}}}}"#);
        let dialect = Dialect::Legacy(Arc::clone(session));
        let told = async {
            let (response, timer) = self.post_short(&dialect, Outbound::of(message.into_bytes())).await?;
            self.answer(tenant, dialect.clone(), id, response, timer).await?.response().await
        };
        if let Err(error) = told.await {
            self.upstream.log.debug("log level not told", |r| {
                r.field("server", self.upstream.id()).field("reason", error);
            });
        }
    }
}

impl Session {
    /// A session that an earlier process has opened. Which level it told the server is not kept: to be told it twice does
    /// a server no harm.
    pub(super) fn taken_up(
        id: HeaderValue,
        version: ProtocolVersion,
        capabilities: ServerCapabilities,
        target: Target,
    ) -> Self {
        let (id, level) = (Some(id), Mutex::default());
        Self { id, version, capabilities, instructions: None, target, opening: false, level }
    }

    /// What stands for a session while there is none.
    fn opening(upstream: &Upstream, place: &Arc<Endpoint>) -> Self {
        let (target, level) = (Target::plain(upstream, Arc::clone(place)), Mutex::default());
        let (version, capabilities) = (ProtocolVersion::LATEST, ServerCapabilities::UNKNOWN);
        Self { id: None, version, capabilities, instructions: None, target, opening: true, level }
    }

    /// Whether the server need not be told this level, because it was told last or has no session to remember it in.
    fn is_told(&self, level: LogLevel) -> bool {
        self.id.is_none() || *self.level.lock().unwrap_or_else(PoisonError::into_inner) == Some(level)
    }

    /// Notes the level that the server is told now; returns the one before.
    fn swap_level(&self, level: LogLevel) -> Option<LogLevel> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).replace(level)
    }
}

/// Where else a response says, or its status suggests, that the server is.
pub(super) fn elsewhere(here: &Endpoint, response: &Response<Incoming>) -> Option<Endpoint> {
    match response.status().as_u16() {
        404 | 405 if here.bare => Some(here.with_target("/mcp")),
        307 | 308 => redirected(here, response.headers()),
        _ => None,
    }
}

/// Where a redirect leads, if it stays within the origin.
fn redirected(here: &Endpoint, headers: &HeaderMap) -> Option<Endpoint> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    if location.starts_with('/') && !location.starts_with("//") {
        return Endpoint::parse(&format!("{}{location}", here.origin())).ok();
    }
    // SECURITY: the configured headers may hold credentials, which must not reach another origin.
    Endpoint::parse(location).ok().filter(|there| there.origin() == here.origin())
}

/// The `initialize` request. A session for a client declares what that can be asked for; the catalogue session declares
/// everything, because some servers list their tools by what the client can do.
fn initialize(id: u64, tenant: &Tenant) -> Vec<u8> {
    let capabilities = match tenant {
        Tenant::Catalogue => r#"{"roots":{},"sampling":{},"elicitation":{"form":{},"url":{}}}"#.into(),
        Tenant::Client { capabilities, .. } => capabilities.to_legacy(),
    };
    let version = ProtocolVersion::LATEST;
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{capabilities},"clientInfo":{IDENTITY}}}}}"#
    )
    .into_bytes()
}

fn agreed(
    upstream: &Upstream,
    response: &Envelope,
    id: Option<HeaderValue>,
    place: Arc<Endpoint>,
) -> Result<Session, UpstreamError> {
    if let Some(error) = response.error() {
        return Err(UpstreamError::Rpc(error));
    }
    let result = InitializeResult::parse(response.result().unwrap_or_default());
    let result = result.map_err(|e| UpstreamError::NotMcp(format!("initialize: {e}")))?;
    let version = ProtocolVersion::parse(&result.protocol_version).ok_or_else(|| {
        let found: String = result.protocol_version.chars().take(40).collect();
        UpstreamError::NotMcp(format!("expected a protocol version up to {}, found `{found}`", ProtocolVersion::LATEST))
    })?;
    let instructions = result.instructions.as_deref().map(kept_instructions);
    let target = Target::legacy(upstream, place, version, id.as_ref());
    let (capabilities, level) = (result.capabilities(), Mutex::default());
    Ok(Session { id, version, capabilities, instructions, target, opening: false, level })
}

/// A server's instructions to models, as far as they are kept.
pub(super) fn kept_instructions(text: &str) -> Box<str> {
    cut(text, INSTRUCTIONS).into()
}
