//! The accept loop, the threads, and the one wrapper around every request.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap, HeaderValue, VARY,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Access;
use super::api::{self, Endpoint, Registrations};
use super::connection::{IoLimits, Phase, Socket};
use super::mcp::{self, Exchange, NamedVersion};
use super::metrics::Traffic;
use super::request::{
    bearer_token, check_accept, check_content_type, check_framing, check_host, check_origin, read_body,
};
use super::response::{Body, Refusal, complete_head, empty};
use super::router::Route;
use super::{metrics, openapi, ops};
use crate::budget::Full;
use crate::gateway::{Gateway, Memory, Principal, Snapshot};
use crate::log::{Log, RequestId};
use crate::outbound::{Client, Trust};
use crate::policy::AuthError;
use crate::shutdown::{self, Shutdown, Trigger};
use crate::wire::mcp::header;

/// Pause after an `accept` that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that the kernel keeps waiting to be accepted, as far as `net.core.somaxconn` allows.
const BACKLOG: u32 = 4096;
/// More connections than a thread will ever have; what the count starts from.
const NONE_OPEN: u32 = 1 << 28;
/// What is left of the drain time for ending open answers with an error.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A bound port, and what it takes to serve it.
pub struct Server {
    listener: StdListener,
    gateway: Arc<Gateway>,
    trust: Trust,
    log: Log,
}

impl Server {
    /// Takes a listener that is bound already, so that a taken port is the caller's error and tests choose their own.
    #[must_use]
    pub fn new(listener: StdListener, gateway: Arc<Gateway>, trust: Trust, log: Log) -> Self {
        Self { listener, gateway, trust, log }
    }

    /// Binds an address, once; the threads share the listener. Must be called within a runtime.
    ///
    /// # Errors
    /// What the system says, such as that the address is in use.
    pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted gateway must not wait for the old connections' last minute.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    }

    /// Serves on `threads` threads until the stop, and then until every request is answered or the drain time is over.
    ///
    /// A connection, its requests and their connections to servers stay on the thread that accepted it.
    ///
    /// # Errors
    /// What the system says if a thread or its runtime cannot be made.
    pub fn run(self, threads: usize, stop: &Shutdown) -> io::Result<Vec<JoinHandle<()>>> {
        let settings = self.gateway.snapshot();
        let connections = Arc::new(Semaphore::new(settings.registry().settings().limits.connections));
        let address = self.listener.local_addr()?;
        let registrations = Arc::<Registrations>::default();
        let traffic = Arc::<Traffic>::default();
        let ids = Arc::new(RequestIds { prefix: rand::random(), next: AtomicU64::new(0) });
        let mut handles = Vec::with_capacity(threads);
        for _ in 0..threads.max(1) {
            let (cutter, cut) = shutdown::channel();
            let worker = Worker {
                gateway: Arc::clone(&self.gateway),
                http: Client::new(self.trust.clone()),
                memory: Memory::default(),
                log: self.log.clone(),
                ids: Arc::clone(&ids),
                address,
                registrations: Arc::clone(&registrations),
                traffic: Arc::clone(&traffic),
                stop: stop.clone(),
                cut,
            };
            let listener = self.listener.try_clone()?;
            let connections = Arc::clone(&connections);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let serve = move || {
                runtime.block_on(Arc::new(worker).serve(listener, connections, cutter));
                // Without waiting for a name that is still being resolved.
                runtime.shutdown_background();
            };
            handles.push(std::thread::Builder::new().name("serve".into()).spawn(serve)?);
        }
        Ok(handles)
    }
}

/// Names for requests: a random part for the process, so that two gateways' records can be told apart, and a count.
struct RequestIds {
    prefix: u16,
    next: AtomicU64,
}

impl RequestIds {
    fn next(&self) -> RequestId {
        RequestId::new(self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// One thread's share of the work.
struct Worker {
    gateway: Arc<Gateway>,
    http: Client,
    /// What the thread has found good lately.
    memory: Memory,
    log: Log,
    ids: Arc<RequestIds>,
    /// Where the gateway listens.
    address: SocketAddr,
    /// Who registered lately, on any thread.
    registrations: Arc<Registrations>,
    /// What is counted, on all threads.
    traffic: Arc<Traffic>,
    stop: Shutdown,
    /// Heard [`LAST_WORDS`] before the drain ends, by answers that are still open.
    cut: Shutdown,
}

impl Worker {
    async fn serve(self: Arc<Self>, listener: StdListener, connections: Arc<Semaphore>, cutter: Trigger) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return self.log.error("cannot listen", |r| _ = r.field("reason", &error)),
        };
        // Counts this thread's connections down, so that the drain knows when the last has ended.
        let own = Arc::new(Semaphore::new(NONE_OPEN as usize));
        let mut stop = self.stop.clone();
        while let Some(accepted) = stop.or(accept(&listener, &connections)).await {
            let (stream, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.log.error("accept failed", |r| _ = r.field("reason", crate::log::os_error(&error)));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(open) = Arc::clone(&own).try_acquire_owned() else { continue };
            let worker = Arc::clone(&self);
            tokio::spawn(async move {
                let counted = worker.traffic.connections.hold();
                worker.connection(stream, peer).await;
                drop((permit, open, counted));
            });
        }
        drop(listener);
        let drain = self.gateway.snapshot().registry().settings().drain;
        let mut ended = std::pin::pin!(own.acquire_many(NONE_OPEN));
        if tokio::time::timeout(drain.saturating_sub(LAST_WORDS), ended.as_mut()).await.is_ok() {
            return;
        }
        cutter.fire();
        let cut = tokio::time::timeout(LAST_WORDS, ended).await.is_err();
        self.log.warn("answers cut off", |r| _ = r.number("after_seconds", drain.as_secs()).field("abruptly", cut));
    }

    /// Serves one connection to its end.
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Small answers must not wait for more to come. A failure shows at the next write anyway.
        let _ = stream.set_nodelay(true);
        let limits = self.gateway.snapshot().registry().settings().limits.clone();
        let io_limits = IoLimits { idle: limits.idle, head: limits.header_read, stall: limits.idle };
        let socket = Socket::new(stream, io_limits, self.http.alarms());
        let phase = socket.phase();
        let (worker, phase) = (&self, &phase);
        let service =
            service_fn(
                move |mut request| async move { Ok::<_, Infallible>(worker.wrap(phase, peer, &mut request).await) },
            );
        let mut builder = http1::Builder::new();
        builder.max_buf_size(limits.head_bytes).max_headers(limits.headers).header_read_timeout(None);
        let mut connection = std::pin::pin!(builder.serve_connection(socket, service));
        let mut stop = self.stop.clone();
        let ended = match stop.or(connection.as_mut()).await {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                // Answers that are still open when they are cut off are woken by this, and end themselves.
                match self.cut.clone().or(connection.as_mut()).await {
                    Some(ended) => ended,
                    None => connection.await,
                }
            }
        };
        if let Err(error) = ended {
            // hyper answers a bad or oversized head by itself, before there is a request to record.
            let refused = error.is_parse() || error.is_parse_too_large();
            match refused {
                true => self.log.warn("request refused", |r| _ = r.field("reason", &error)),
                false => self.log.debug("connection ended", |r| _ = r.field("reason", &error)),
            }
        }
    }

    /// The wrapper around every request: clock, id, record, and the headers that every answer has.
    async fn wrap(&self, phase: &Phase, peer: SocketAddr, request: &mut Request<Incoming>) -> Response<Body> {
        let now = wall_clock();
        let id = self.ids.next();
        let (method, path) = (request.method().clone(), request.uri().path());
        let access = Access::start(id, now, method, path, self.log.clone(), Arc::clone(&self.traffic), phase.busy());
        let mut access = Box::new(access);
        let snapshot = self.gateway.snapshot();
        let origin = check_origin(request.headers(), snapshot.registry().settings());
        let route = access.route;
        let answer = match route {
            Some(route) => {
                let arrived = Arrived { peer, now, origin: &origin };
                self.dispatch(route, snapshot, request, arrived, &mut access).await
            }
            None => Err(Refusal::NotFound),
        };
        let answer = answer.inspect_err(|refusal| self.traffic.refused(refusal));
        let mut answer = answer.unwrap_or_else(|refusal| match (&refusal, route) {
            // Before there is a caller, every endpoint speaks alike.
            (
                Refusal::NotAuthenticated
                | Refusal::InvalidToken
                | Refusal::ExpiredToken
                | Refusal::NotFound
                | Refusal::Method(_),
                _,
            ) => refusal.detail(),
            (_, Some(Route::Mcp)) => {
                access.code = Some(refusal.code());
                refusal.rpc()
            }
            (_, _) => refusal.detail(),
        });
        access.status = answer.status().as_u16();
        complete_head(&mut answer, access.id, std::mem::take(request.headers_mut()));
        if let Ok(Some(origin)) = origin {
            let headers = answer.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("mcp-session-id, x-request-id"));
            headers.insert(VARY, HeaderValue::from_static("origin"));
        }
        if access.server.is_some() {
            answer.body_mut().set_budget(self.gateway.budget());
        }
        answer.body_mut().set_access(access);
        answer
    }

    /// Everything that is checked of a request, in the order of protocol.md 2.1, and then its route.
    async fn dispatch(
        &self,
        route: Route,
        snapshot: Snapshot,
        request: &mut Request<Incoming>,
        arrived: Arrived<'_>,
        access: &mut Access,
    ) -> Result<Response<Body>, Refusal> {
        let now = arrived.now;
        if route.checks_host() {
            check_host(request.headers(), request.uri(), snapshot.registry().settings())?;
        }
        let from_page = arrived.origin.as_ref().map_err(Clone::clone)?.is_some();
        check_framing(request.headers())?;
        if from_page && *request.method() == Method::OPTIONS {
            return Ok(preflight(route, request.headers()));
        }
        match route {
            Route::Health => check_method(route, request).map(|()| ops::health()),
            Route::Ready => check_method(route, request).map(|()| ops::ready(self.stop.ordered())),
            Route::Metrics => {
                self.check_reader(&snapshot, request.headers(), now, access)?;
                check_method(route, request).map(|()| metrics::page(&self.gateway, &snapshot, &self.traffic))
            }
            Route::OpenApi => check_method(route, request).map(|()| openapi::document()),
            Route::Docs => {
                check_method(route, request)?;
                openapi::page(request.uri().path()).ok_or(Refusal::NotFound)
            }
            // Boxed, so that the connections of those who only call tools do not have to make room for it.
            Route::Api(endpoint) => Box::pin(self.api(endpoint, snapshot, request, arrived, access)).await,
            Route::Mcp => {
                let principal = self.sign_in(&snapshot, request.headers(), now)?;
                access.client = Some(principal.client().clone());
                check_method(route, request)?;
                let named = NamedVersion::of(request.headers());
                let posted = *request.method() == Method::POST;
                let mut body = Bytes::new();
                if posted {
                    check_content_type(request.headers())?;
                    check_accept(request.headers())?;
                    let limits = &snapshot.registry().settings().limits;
                    let holding = self.gateway.budget().hold(limits.buffered_bytes);
                    body = read_body(request.body_mut(), limits.body_bytes, limits.body_read, holding).await?;
                }
                let (gateway, http, memory, cut, stop) =
                    (&self.gateway, &self.http, &self.memory, &self.cut, &self.stop);
                let headers = request.headers();
                let mut exchange =
                    Exchange { gateway, http, memory, snapshot, principal, headers, named, now, cut, stop, access };
                match *request.method() {
                    Method::POST => Ok(mcp::post(&mut exchange, body).await),
                    Method::GET => mcp::get(&exchange),
                    _ => Ok(mcp::delete(&exchange)),
                }
            }
        }
    }

    /// Serves a REST endpoint.
    async fn api(
        &self,
        endpoint: Endpoint,
        snapshot: Snapshot,
        request: &mut Request<Incoming>,
        arrived: Arrived<'_>,
        access: &mut Access,
    ) -> Result<Response<Body>, Refusal> {
        let principal = match endpoint {
            Endpoint::RegisterClient => None,
            _ => Some(self.sign_in(&snapshot, request.headers(), arrived.now)?),
        };
        access.client = principal.as_ref().map(|principal| principal.client().clone());
        check_method(Route::Api(endpoint), request)?;
        let headers = std::mem::take(request.headers_mut());
        let body = self.api_body(endpoint, &snapshot, &headers, request.body_mut()).await?;
        let (query, now) = (request.uri().query(), arrived.now);
        let call = api::Call { gateway: &self.gateway, snapshot: snapshot.clone(), query, body, now };
        Ok(match principal {
            Some(principal) => api::serve(call, endpoint, &principal).await,
            None => {
                let peer = arrived.peer.ip();
                api::register_client(call, &self.registrations, peer, &headers, self.address).await
            }
        })
    }

    fn sign_in(&self, snapshot: &Snapshot, headers: &HeaderMap, now: Duration) -> Result<Principal, Refusal> {
        let token = bearer_token(headers)?;
        self.gateway.sign_in(&self.memory, snapshot, token, now).map_err(|error| match error {
            AuthError::Invalid => Refusal::InvalidToken,
            AuthError::Expired => Refusal::ExpiredToken,
        })
    }

    /// Checks that whoever asks may read the metrics: the holder of the token for them, who is no client, and admins.
    fn check_reader(
        &self,
        snapshot: &Snapshot,
        headers: &HeaderMap,
        now: Duration,
        access: &mut Access,
    ) -> Result<(), Refusal> {
        let registry = snapshot.registry();
        if registry.opens_metrics(bearer_token(headers)?) {
            return Ok(());
        }
        let principal = self.sign_in(snapshot, headers, now)?;
        access.client = Some(principal.client().clone());
        if registry.is_admin(principal.client()) { Ok(()) } else { Err(Refusal::AdminsOnly) }
    }

    /// The body of a request that changes something; whoever only asks sends none that would be looked at.
    async fn api_body(
        &self,
        endpoint: Endpoint,
        snapshot: &Snapshot,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Bytes, Refusal> {
        if !endpoint.changes() || body.is_end_stream() {
            return Ok(Bytes::new());
        }
        check_content_type(headers)?;
        let limits = &snapshot.registry().settings().limits;
        let (budget, most) = (self.gateway.budget(), limits.buffered_bytes);
        let body = read_body(body, limits.body_bytes, limits.body_read, budget.hold(most)).await?;
        budget.admit(most).map_err(|Full| Refusal::Overloaded(Vec::new()))?;
        Ok(body)
    }
}

fn check_method(route: Route, request: &Request<Incoming>) -> Result<(), Refusal> {
    if route.takes(request.method()) { Ok(()) } else { Err(Refusal::Method(route.allow())) }
}

/// How a request came.
struct Arrived<'a> {
    /// From where.
    peer: SocketAddr,
    /// When, since the epoch.
    now: Duration,
    /// What its `Origin` was found to be.
    origin: &'a Result<Option<HeaderValue>, Refusal>,
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // At the limit nothing is accepted; the kernel keeps a few waiting.
    let permit = Arc::clone(connections).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// Headers that a page may send; besides these, those that mirror arguments of tools.
const ALLOWED_HEADERS: &str = "authorization, content-type, accept, mcp-protocol-version, mcp-session-id, mcp-method, \
                               mcp-name, last-event-id";

/// The answer to a browser that asks whether it may send the real request.
fn preflight(route: Route, headers: &HeaderMap) -> Response<Body> {
    let mut answer = empty(StatusCode::NO_CONTENT);
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|asked| asked.to_str().ok()).unwrap_or_default();
    let mirrors = asked.split(',').map(str::trim).filter(|name| name.starts_with(header::PARAM_PREFIX));
    let allowed = std::iter::once(ALLOWED_HEADERS).chain(mirrors).collect::<Vec<_>>().join(", ");
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(route.allow()));
    // What the browser asked for was a header value, and parts of it are.
    headers
        .insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::try_from(allowed).unwrap_or(HeaderValue::from_static("")));
    answer
}

/// Time since the Unix epoch: the one place where requests get theirs.
#[expect(clippy::disallowed_methods, reason = "this is the edge")]
#[must_use]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
