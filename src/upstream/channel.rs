//! Requests to one server over the connections of one thread, in the server's own dialect.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Method, Response};

use super::Upstream;
use super::answer::{Answer, TimeLimits, Timer, Waits, collect, discard, refusal_of};
use super::error::UpstreamError;
use super::legacy::{Session, Tenant};
use super::probe::Known;
use super::request::{Outbound, Request};
use super::target::Target;
use crate::outbound::{Client, Incoming, OutboundError};
use crate::wire::config::Settings;
use crate::wire::mcp::{Era, code, method};

/// Bytes of an error body that are looked at.
pub(super) const ERROR_BYTES: usize = 64 * 1024;
/// How much longer an answer to the gateway itself is waited for than a connection: one that cannot be made is to be told
/// apart from a server that is silent, and so must not be outrun.
const BEYOND_CONNECT: Duration = Duration::from_secs(1);

/// How a request is made: in a session of its own, or by itself at a server that stands there.
#[derive(Clone)]
pub(super) enum Dialect {
    Legacy(Arc<Session>),
    Modern(Arc<Target>),
}

impl Dialect {
    pub(super) fn era(&self) -> Era {
        match self {
            Self::Legacy(_) => Era::Legacy,
            Self::Modern(_) => Era::Modern,
        }
    }

    fn target(&self) -> &Target {
        match self {
            Self::Legacy(session) => &session.target,
            Self::Modern(target) => target,
        }
    }
}

/// A server, and the connections of the thread that talks to it; made for one task.
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) upstream: Arc<Upstream>,
    /// The settings when the task began.
    pub(super) settings: Arc<Settings>,
    pub(super) http: Client,
}

impl Channel {
    pub(super) fn new(upstream: &Arc<Upstream>, http: &Client) -> Self {
        Self { upstream: Arc::clone(upstream), settings: upstream.settings(), http: http.clone() }
    }

    /// Sends a request in the dialect that the server speaks, and once more if the server turns out to speak another.
    ///
    /// What is rare is boxed here and below, as in [`known`](Self::known).
    pub(super) async fn request(
        &self,
        tenant: &Tenant,
        id: u64,
        request: &Request<'_>,
    ) -> Result<Box<Answer>, UpstreamError> {
        let known = self.known().await?;
        let answer = self.request_as(&known, tenant, id, request).await;
        let refusal = refusal_of(&answer);
        if known.era() == Era::Legacy && refusal == Some(code::INVALID_PARAMS) {
            // The words of a modern server for a request without `_meta`, and of a tool that has looked at its arguments:
            // not to be sent twice, but a reason to ask again.
            self.upstream.doubt();
        }
        if !is_doubtful(known.era(), answer.as_ref().map(|_| refusal)) {
            return answer;
        }
        Box::pin(self.request_anew(known.era(), answer, tenant, id, request)).await
    }

    /// Asks what a server is that gave a doubtful answer, and sends the request once more if it was not executed.
    async fn request_anew(
        &self,
        era: Era,
        answer: Result<Box<Answer>, UpstreamError>,
        tenant: &Tenant,
        id: u64,
        request: &Request<'_>,
    ) -> Result<Box<Answer>, UpstreamError> {
        let unsupported = refusal_of(&answer) == Some(code::UNSUPPORTED_VERSION);
        match self.known_anew(era).await {
            // Whatever was refused by a server of the other era, or for its revision, was not executed.
            Ok(now) if unsupported || now.era() != era => self.request_as(&now, tenant, id, request).await,
            _ => answer,
        }
    }

    /// Sends a request to a server of which this is known.
    ///
    /// A 404 to a session id means that the server has forgotten the session and refused the request: the session is
    /// renewed and the request sent once more.
    async fn request_as(
        &self,
        known: &Known,
        tenant: &Tenant,
        id: u64,
        request: &Request<'_>,
    ) -> Result<Box<Answer>, UpstreamError> {
        let mut message = request.write(known, id)?;
        let dialect = match known {
            Known::Legacy => Dialect::Legacy(self.prepared_session(tenant, request.level()).await?),
            Known::Modern(server) => Dialect::Modern(Arc::clone(&server.target)),
        };
        let limits = self.time_limits(tenant, request.waits());
        let (response, timer) = self.post(&dialect, Some(id), &mut message, limits).await?;
        if response.status().is_success() {
            return self.answered(tenant, dialect, id, response, timer);
        }
        match &dialect {
            Dialect::Legacy(session) if response.status() == 404 && session.id.is_some() => {
                let lost = Arc::clone(session);
                drop((response, timer, dialect));
                Box::pin(self.request_renewed(&lost, tenant, id, request)).await
            }
            _ => Box::pin(self.answer(tenant, dialect, id, response, timer)).await,
        }
    }

    /// Sends a request once more, in another session than one that the server has forgotten.
    async fn request_renewed(
        &self,
        lost: &Arc<Session>,
        tenant: &Tenant,
        id: u64,
        request: &Request<'_>,
    ) -> Result<Box<Answer>, UpstreamError> {
        self.upstream.log.debug("server session lost", |r| _ = r.field("server", self.upstream.id()));
        self.upstream.sessions.forget(tenant, lost);
        self.upstream.refresh_soon();
        let dialect = Dialect::Legacy(self.prepared_session(tenant, request.level()).await?);
        let mut message = request.write(&Known::Legacy, id)?;
        let limits = self.time_limits(tenant, request.waits());
        let (response, timer) = self.post(&dialect, Some(id), &mut message, limits).await?;
        self.answer(tenant, dialect, id, response, timer).await
    }

    fn time_limits(&self, tenant: &Tenant, waits: Option<&Waits>) -> TimeLimits {
        let limits = &self.settings.limits;
        let silent = match tenant {
            Tenant::Catalogue => self.settings.list_timeout.max(limits.connect + BEYOND_CONNECT),
            Tenant::Client { .. } => self.upstream.server.timeout.unwrap_or(limits.silent_call),
        };
        TimeLimits { silent, whole: limits.whole_call, waits: waits.cloned() }
    }

    /// Bytes of an answer, and of one event of it. A page of a list is no larger than a catalogue, all escaped.
    fn sizes(&self, tenant: &Tenant) -> (usize, usize) {
        let limits = &self.settings.limits;
        let most = match tenant {
            Tenant::Catalogue => limits.catalogue_bytes.saturating_mul(2).saturating_add(ERROR_BYTES),
            Tenant::Client { .. } => usize::MAX,
        };
        (limits.response_bytes.min(most), limits.event_bytes.min(most))
    }

    /// Sends a message of the gateway's own, within the time that lists have; it is never cancelled.
    pub(super) async fn post_short(
        &self,
        dialect: &Dialect,
        mut message: Outbound,
    ) -> Result<(Response<Incoming>, Timer), UpstreamError> {
        self.post(dialect, None, &mut message, self.time_limits(&Tenant::Catalogue, None)).await
    }

    /// Opens the stream on which a legacy server says in a session what belongs to no request; `last` is the id of the event
    /// after which it is to go on. There is no limit: some servers say nothing at all until they have something to say.
    pub(super) async fn get(
        &self,
        session: &Arc<Session>,
        last: Option<&str>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let dialect = Dialect::Legacy(Arc::clone(session));
        Ok(self.send(&dialect, Method::GET, Outbound::after(last)).await?)
    }

    /// Sends a message, which is taken, and waits for the head of the response. A request, which has an `id`, is cancelled
    /// if that takes too long.
    async fn post(
        &self,
        dialect: &Dialect,
        id: Option<u64>,
        message: &mut Outbound,
        limits: TimeLimits,
    ) -> Result<(Response<Incoming>, Timer), UpstreamError> {
        let mut timer = Timer::start(limits, self.http.alarms());
        match timer.limit(pin!(self.send(dialect, Method::POST, std::mem::take(message)))).await {
            Ok(sent) => Ok((sent?, timer)),
            Err(too_long) => {
                if let Some(id) = id {
                    self.cancel(dialect, id);
                }
                Err(too_long)
            }
        }
    }

    /// Sends a message, or a request without a body, and waits for the head of the response, however long that takes.
    pub(super) fn send(
        &self,
        dialect: &Dialect,
        method: Method,
        mut message: Outbound,
    ) -> impl Future<Output = Result<Response<Incoming>, OutboundError>> {
        let target = dialect.target();
        let mut headers = target.headers.clone();
        if message.body.is_empty() {
            // Of what is not there nothing is said: some servers would look for JSON in it.
            headers.remove(CONTENT_LENGTH);
            headers.remove(CONTENT_TYPE);
        } else {
            headers.insert(CONTENT_LENGTH, message.body.len().into());
        }
        message.mirror_in(&mut headers);
        let mut request = hyper::Request::new(Full::new(message.body));
        *request.method_mut() = method;
        *request.uri_mut() = target.uri.clone();
        *request.headers_mut() = headers;
        let (reach, limit) = (self.upstream.server.reach, self.settings.limits.connect);
        self.http.send(&target.place, reach, limit, request)
    }

    /// Makes an answer of a response that is a success.
    fn answered(
        &self,
        tenant: &Tenant,
        dialect: Dialect,
        id: u64,
        response: Response<Incoming>,
        timer: Timer,
    ) -> Result<Box<Answer>, UpstreamError> {
        let sizes = self.sizes(tenant);
        // A list is gathered whatever else is held: it is bounded by limits of its own, and everybody waits for it.
        let most = match tenant {
            Tenant::Catalogue => usize::MAX,
            Tenant::Client { .. } => self.settings.limits.buffered_bytes,
        };
        let holding = self.upstream.budget.hold(most);
        Answer::new(self.clone(), dialect, id, response, sizes, timer, holding).map(Box::new)
    }

    /// Makes an answer of a response, or tells why it is none.
    pub(super) async fn answer(
        &self,
        tenant: &Tenant,
        dialect: Dialect,
        id: u64,
        response: Response<Incoming>,
        mut timer: Timer,
    ) -> Result<Box<Answer>, UpstreamError> {
        if response.status().is_success() {
            return self.answered(tenant, dialect, id, response, timer);
        }
        let status = response.status();
        let body = timer.limit(pin!(collect(response.into_body(), ERROR_BYTES))).await?.unwrap_or_default();
        // Some servers say 400 for a session they do not know. The request may have run all the same: it is not
        // repeated, but the next one opens a new session.
        if let Dialect::Legacy(session) = &dialect
            && (status == 404 || (status == 400 && mentions_session(&body)))
        {
            self.upstream.sessions.forget(tenant, session);
        }
        match self.error_message(body).filter(|message| message.error().is_some()) {
            Some(error) => Ok(Box::new(Answer::settled(self.clone(), dialect, id, error, timer))),
            None => Err(UpstreamError::BadStatus(status.as_u16())),
        }
    }

    /// Sends a message that has no response; every 2xx is as good as another.
    pub(super) async fn notify(&self, session: &Arc<Session>, message: Vec<u8>) -> Result<(), UpstreamError> {
        let dialect = Dialect::Legacy(Arc::clone(session));
        let (response, _) = self.post_short(&dialect, Outbound::of(message)).await?;
        let status = response.status();
        // Read to its end so that the connection is used again; some servers put something into it.
        discard(response.into_body());
        if status.is_success() { Ok(()) } else { Err(UpstreamError::BadStatus(status.as_u16())) }
    }

    /// Sends a message whose loss is only worth a record.
    pub(super) async fn notify_or_log(&self, session: &Arc<Session>, message: Vec<u8>) {
        if let Err(error) = self.notify(session, message).await {
            self.upstream.log.debug("message to server lost", |r| {
                r.field("server", self.upstream.id()).field("reason", error);
            });
        }
    }

    /// Ends a session at the server; whether the server likes that makes no difference.
    pub(super) async fn end(&self, session: &Arc<Session>) {
        /// Longest wait for a server that ends a session.
        const PATIENCE: Duration = Duration::from_secs(5);
        if session.id.is_some() {
            let dialect = Dialect::Legacy(Arc::clone(session));
            let goodbye = self.send(&dialect, Method::DELETE, Outbound::default());
            let _ = tokio::time::timeout(PATIENCE, goodbye).await;
        }
    }
}

/// What tells a legacy server that nobody waits for the response to a request any more.
pub(super) fn cancelled(id: u64) -> Vec<u8> {
    let (method, reason) = (method::CANCELLED, "nobody waits for it any more");
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{id},"reason":"{reason}"}}}}"#).into_bytes()
}

/// Whether an answer, or the code of its refusal, is one that a server of this era would hardly give, so that it may be of the other one by now.
fn is_doubtful(era: Era, answer: Result<Option<i64>, &UpstreamError>) -> bool {
    match (answer, era) {
        (Ok(Some(code::UNSUPPORTED_VERSION)), _) => true,
        // A modern server misses what every modern request has.
        (Ok(Some(code)), Era::Legacy) => code == code::HEADER_MISMATCH,
        (Err(UpstreamError::Rpc(_)), Era::Legacy) => true,
        // A legacy one has none of these errors, or no words at all.
        (Ok(Some(code)), Era::Modern) => !matches!(
            code,
            code::HEADER_MISMATCH
                | code::MISSING_CAPABILITY
                | code::METHOD_NOT_FOUND
                | code::INVALID_PARAMS
                | code::INTERNAL_ERROR
        ),
        (Err(UpstreamError::BadStatus(status)), Era::Modern) => matches!(status, 400 | 404 | 405 | 406 | 415 | 422),
        _ => false,
    }
}

/// Whether the text of an error is about the session and not about the request.
fn mentions_session(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    text.contains("session") || text.contains("initialize")
}
