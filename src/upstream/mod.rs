//! The client side of MCP: one [`Upstream`] per configured server.
//!
//! Knows how to speak to a server and what it offers. Who may use it is not decided here: every call takes a [`Permit`],
//! which only the policy can make; fetching the catalogue is the one thing done without, and what it brings leaves the
//! gateway only through a view.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | [`Upstream`], and [`Channel`]: a request to it over one thread's connections |
//! | `answer` | [`Answer`]: the messages of an answer as they arrive |
//! | `legacy` | the handshake dialect: sessions and their renewal |
//! | `catalogue` | [`Catalogue`]: what a server offers, over all pages |
//! | `pool` | [`Pool`]: the upstreams of a registry, each kept fresh in the background |
//! | `error` | [`UpstreamError`] |

mod answer;
mod catalogue;
mod error;
mod legacy;
mod pool;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use self::answer::{Answer, Message};
pub use self::catalogue::{Catalogue, Member, Tool};
pub use self::error::UpstreamError;
pub use self::legacy::Tenant;
pub use self::pool::Pool;

use self::answer::{TimeLimits, Timer, collect, time_limits};
use self::legacy::{Session, Sessions};
use crate::log::Log;
use crate::outbound::{Client, Incoming};
use crate::policy::{Permit, Server, ServerId};
use crate::wire::config::{Limits, Settings};
use crate::wire::endpoint::Endpoint;
use crate::wire::jsonrpc::{Envelope, Kind, Sender};
use crate::wire::mcp::header;

/// Bytes of an error body that are looked at.
const ERROR_BYTES: usize = 64 * 1024;
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("mcp-x/", env!("CARGO_PKG_VERSION")));

/// What a server offers and how fresh that is.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// The last catalogue that was fetched; empty before the first.
    pub catalogue: Arc<Catalogue>,
    /// When it was fetched.
    pub fetched: Option<Instant>,
    /// Whether fetching was tried at all, so that nobody waits for a server that is known to be down.
    pub attempted: bool,
    /// Why the last attempt failed, if it did: the catalogue is stale then.
    pub failure: Option<UpstreamError>,
}

/// One MCP server, as the gateway's client side knows it. Shared by all threads.
pub struct Upstream {
    server: Arc<Server>,
    /// The configured headers, parsed.
    headers: HeaderMap,
    limits: Limits,
    list_limits: TimeLimits,
    /// Where the server really is, when its URL led on to another path.
    moved: OnceLock<Endpoint>,
    sessions: Sessions,
    next_id: AtomicU64,
    offer: watch::Sender<Offer>,
    /// Counts the catalogues, of all servers together, that differed from the one before; the pool's.
    epoch: Arc<AtomicU64>,
    /// Asks the refresher not to wait until the catalogue is due.
    stale: Notify,
    in_flight: AtomicUsize,
    log: Log,
}

impl Upstream {
    fn new(server: Arc<Server>, settings: &Settings, epoch: Arc<AtomicU64>, log: Log) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in server.headers.iter() {
            // The registry has refused what is not a header.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        let limits = settings.limits.clone();
        Self {
            server,
            headers,
            list_limits: TimeLimits { silent: settings.list_timeout, whole: limits.whole_call },
            limits,
            moved: OnceLock::new(),
            sessions: Sessions::default(),
            next_id: AtomicU64::new(1),
            offer: watch::Sender::default(),
            epoch,
            stale: Notify::new(),
            in_flight: AtomicUsize::new(0),
            log,
        }
    }

    /// The server's id.
    #[must_use]
    pub fn id(&self) -> &ServerId {
        &self.server.id
    }

    /// The server's definition.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// What the server offers, as far as is known now.
    #[must_use]
    pub fn offer(&self) -> Offer {
        self.offer.borrow().clone()
    }

    /// Waits until the server's catalogue was fetched once, or failed to be.
    pub async fn attempted(&self) {
        let mut offer = self.offer.subscribe();
        // The sender lives as long as `self`, so there is no error to see.
        let _ = offer.wait_for(|o| o.attempted).await.map(drop);
    }

    /// Asks for a fresh catalogue soon; nobody waits for it.
    pub fn refresh_soon(&self) {
        self.stale.notify_one();
    }

    /// Counts a call while the guard lives; `None` when the server has as many as the limit allows.
    #[must_use]
    pub fn slot(self: &Arc<Self>) -> Option<Slot> {
        let slot = Slot(Arc::clone(self));
        (self.in_flight.fetch_add(1, Ordering::Relaxed) < self.limits.calls_per_server).then_some(slot)
    }

    /// Sends a request for a client and returns its answer as soon as it begins.
    ///
    /// `message` writes the request with the id it is given, which is the progress token too. A session that the server
    /// does not know any more is renewed and the request, which was refused then, sent once more.
    ///
    /// # Errors
    /// [`UpstreamError`]. [`UpstreamError::Removed`] if the permit is for another server.
    pub async fn call(
        self: &Arc<Self>,
        http: &Client,
        permit: &Permit,
        tenant: &Tenant,
        message: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<Answer, UpstreamError> {
        if permit.server().id != self.server.id {
            return Err(UpstreamError::Removed);
        }
        let id = self.next_id();
        let channel = Channel { upstream: Arc::clone(self), http: http.clone() };
        channel.request(tenant, id, message(id)).await
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn endpoint(&self) -> &Endpoint {
        self.moved.get().unwrap_or(&self.server.endpoint)
    }

    fn move_to(&self, endpoint: Endpoint) {
        self.log.info("server found elsewhere", |r| _ = r.field("server", self.id()).field("url", &endpoint));
        // Whoever was first has found the same place.
        let _ = self.moved.set(endpoint);
    }

    /// Where a redirect leads, if it stays within the origin.
    fn redirected(&self, headers: &HeaderMap) -> Option<Endpoint> {
        let location = headers.get(LOCATION)?.to_str().ok()?;
        let here = self.endpoint();
        if location.starts_with('/') && !location.starts_with("//") {
            return Endpoint::parse(&format!("{}{location}", here.origin())).ok();
        }
        // SECURITY: the configured headers may hold credentials, which must not reach another origin.
        Endpoint::parse(location).ok().filter(|there| there.origin() == here.origin())
    }
}

/// One call in flight to a server.
pub struct Slot(Arc<Upstream>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server, and the connections of the thread that talks to it.
#[derive(Clone)]
struct Channel {
    upstream: Arc<Upstream>,
    http: Client,
}

impl Channel {
    /// Sends a request in the tenant's session.
    async fn request(&self, tenant: &Tenant, id: u64, message: Vec<u8>) -> Result<Answer, UpstreamError> {
        let message = Bytes::from(message);
        let session = self.session(tenant).await?;
        let (response, timer) = self.post(&session, message.clone(), self.time_limits(tenant)).await?;
        if response.status() != 404 || session.id.is_none() {
            if matches!(response.status().as_u16(), 400 | 404) {
                // Some servers say 400 for a session they do not know. The request may have run: only the next one renews.
                self.upstream.sessions.forget(tenant, &session);
            }
            return self.answer(session, id, response, timer).await;
        }
        self.upstream.log.debug("server session lost", |r| _ = r.field("server", self.upstream.id()));
        drop(response);
        self.upstream.sessions.forget(tenant, &session);
        self.upstream.refresh_soon();
        let session = self.session(tenant).await?;
        let (response, timer) = self.post(&session, message, self.time_limits(tenant)).await?;
        self.answer(session, id, response, timer).await
    }

    fn time_limits(&self, tenant: &Tenant) -> TimeLimits {
        match tenant {
            Tenant::Catalogue => self.upstream.list_limits,
            Tenant::Client { .. } => time_limits(&self.upstream.limits, self.upstream.server.timeout),
        }
    }

    /// Sends a message that opens a session.
    async fn post_once(
        &self,
        session: &Session,
        message: Vec<u8>,
    ) -> Result<(Response<Incoming>, Timer), UpstreamError> {
        self.post(session, message.into(), self.upstream.list_limits).await
    }

    /// Sends a message and waits for the head of the response.
    async fn post(
        &self,
        session: &Session,
        message: Bytes,
        limits: TimeLimits,
    ) -> Result<(Response<Incoming>, Timer), UpstreamError> {
        let mut timer = Timer::start(limits);
        let sent = timer.limit(self.send(session, Method::POST, message)).await??;
        Ok((sent, timer))
    }

    async fn send(&self, session: &Session, method: Method, body: Bytes) -> Result<Response<Incoming>, UpstreamError> {
        let endpoint = self.upstream.endpoint();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // Both were part of a URL that parsed.
        *request.uri_mut() = Uri::try_from(endpoint.target.as_str()).unwrap_or_default();
        *request.headers_mut() = self.headers(session, endpoint);
        let (reach, limit) = (self.upstream.server.reach, self.upstream.limits.connect);
        Ok(self.http.send(endpoint, reach, limit, request).await?)
    }

    fn headers(&self, session: &Session, endpoint: &Endpoint) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8 + self.upstream.headers.len());
        headers.insert(HOST, HeaderValue::try_from(&endpoint.authority).unwrap_or(HeaderValue::from_static("")));
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, BOTH);
        headers.insert(USER_AGENT, AGENT);
        if let Some(id) = &session.id {
            headers.insert(header::SESSION_ID, id.clone());
        }
        if session.version.sends_header() && !session.opening {
            headers.insert(header::PROTOCOL_VERSION, HeaderValue::from_static(session.version.as_str()));
        }
        headers.extend(self.upstream.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers
    }

    /// Makes an answer of a response, or tells why it is none.
    async fn answer(
        &self,
        session: Arc<Session>,
        id: u64,
        response: Response<Incoming>,
        timer: Timer,
    ) -> Result<Answer, UpstreamError> {
        let status = response.status();
        if status.is_success() {
            return Answer::new(self.clone(), session, id, response, timer);
        }
        let mut timer = timer;
        let body = timer.limit(collect(response.into_body(), ERROR_BYTES)).await?.unwrap_or_default();
        let envelope = Envelope::parse(body.into(), self.upstream.limits.json_depth, Sender::Server).ok();
        let error = envelope.filter(|e| e.kind() == Ok(Kind::Error)).and_then(|e| e.error());
        Err(error.map_or(UpstreamError::BadStatus(status.as_u16()), UpstreamError::Rpc))
    }

    /// Sends a message that has no response.
    async fn notify(&self, session: &Session, message: Vec<u8>) -> Result<(), UpstreamError> {
        let (response, _) = self.post_once(session, message).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(UpstreamError::BadStatus(status.as_u16()));
        }
        // Read to its end so that the connection is used again; some servers put something into it.
        collect(response.into_body(), ERROR_BYTES).await.map(drop)
    }

    /// Ends a session at the server; whether the server likes that makes no difference.
    async fn end(&self, session: &Session) {
        if session.id.is_some() {
            let _ =
                tokio::time::timeout(self.upstream.limits.connect, self.send(session, Method::DELETE, Bytes::new()))
                    .await;
        }
    }
}
