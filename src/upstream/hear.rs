//! The life of an ear: its stream is opened, read, and opened again; the server is told what its tenant wants to hear.
//!
//! A legacy server says everything unasked on the GET stream of a session; a modern one, on a stream of its own, what it
//! was asked for in `subscriptions/listen`. Source: MCP 2025-11-25, transports; MCP 2026-07-28, "Subscriptions";
//! protocol.md 3.2, 3.5, 4.2.

use std::collections::BTreeSet;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::Upstream;
use super::answer::collect;
use super::channel::{Channel, Dialect, ERROR_BYTES};
use super::ear::{Ear, Replier};
use super::error::UpstreamError;
use super::legacy::{Session, Tenant};
use super::probe::{Discovered, Known};
use super::request::Outbound;
use super::stream::{Resume, Stream};
use crate::wire::changes::{self, Change, Changes, Filter};
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, result_message};
use crate::wire::mcp::{code, method};

/// Shortest and longest wait before a stream is opened again that its server has ended, unless that says itself how long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(30);
/// Shortest wait that a server can ask for.
const LEAST_WAIT: Duration = Duration::from_millis(100);
/// A stream that was open for so long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// How a turn of an ear ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The tenant has another session, or the server is another.
    Replaced,
    /// A stream ended; there will be another.
    Closed,
    /// Nobody wants to hear anything any more.
    Idle,
}

/// What happens next to a modern ear.
enum Next {
    Message(Envelope),
    End(End),
    /// The tenant wants to hear something else.
    Wanted,
}

/// Waits that grow.
#[derive(Default)]
struct Patience {
    tries: u32,
}

impl Patience {
    /// How long to wait after something that lasted so long.
    fn next(&mut self, lasted: Duration, asked: Option<Duration>) -> Duration {
        self.tries = if lasted > GOOD { 0 } else { (self.tries + 1).min(16) };
        let own = FIRST_WAIT * 2_u32.pow(self.tries);
        let wait = asked.map_or(own, |asked| asked.max(LEAST_WAIT)).min(LAST_WAIT);
        wait.mul_f64(rand::random_range(0.8..1.2))
    }
}

/// Hears what a server says to a tenant, as long as that wants to.
pub(super) async fn keep_hearing(upstream: Arc<Upstream>, tenant: Tenant, ear: Arc<Ear>) {
    let mut patience = Patience::default();
    loop {
        upstream.reached().await;
        let begun = Instant::now();
        let channel = Channel::new(&upstream, &upstream.ears.http);
        let hearing = Hearing { channel, tenant: &tenant, ear: &ear };
        match hearing.turn().await {
            Ok(End::Idle) => return,
            Ok(End::Replaced) => continue,
            Ok(End::Closed) => {}
            Err(error) => upstream.log.debug("server not heard", |r| {
                r.field("server", upstream.id()).field("reason", error);
            }),
        }
        sleep(patience.next(begun.elapsed(), None)).await;
    }
}

impl Upstream {
    /// Waits until the server has given its catalogue when it was last asked.
    async fn reached(&self) {
        let mut offer = self.offer.subscribe();
        // The sender lives as long as `self`.
        let _ = offer.wait_for(|offer| offer.attempted && offer.failure.is_none()).await.map(drop);
    }
}

/// One turn of an ear: as long as the server and the session are the same.
struct Hearing<'a> {
    channel: Channel,
    tenant: &'a Tenant,
    ear: &'a Arc<Ear>,
}

/// Waits for the first of several futures.
async fn first<T, const N: usize>(mut futures: [Pin<Box<dyn Future<Output = T> + Send + '_>>; N]) -> T {
    poll_fn(|cx| {
        for future in &mut futures {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(value);
            }
        }
        Poll::Pending
    })
    .await
}

/// Why a server tells nothing about a resource that it offers.
fn not_offered() -> UpstreamError {
    UpstreamError::Rpc(ErrorObject::new(code::METHOD_NOT_FOUND, "the server does not tell of changes of resources"))
}

impl Hearing<'_> {
    async fn turn(&self) -> Result<End, UpstreamError> {
        match self.channel.known().await? {
            Known::Legacy => self.legacy().await,
            Known::Modern(server) => self.modern(&server).await,
        }
    }

    /// Whether nothing is left to be heard, and nobody will open the ear again.
    fn is_over(&self) -> bool {
        self.channel.upstream.ears.retire(self.tenant, self.ear)
    }

    /// Waits until the tenant's session, or what is known of the server, is another.
    async fn replaced(&self, session: Option<&Arc<Session>>) -> End {
        let mut changes = self.channel.upstream.sessions.changed.subscribe();
        loop {
            let live = self.channel.upstream.sessions.live(self.tenant);
            match (session, live) {
                (Some(session), Some(live)) if Arc::ptr_eq(session, &live) => {}
                (Some(_), _) => return End::Replaced,
                (None, _) => {}
            }
            // The sender lives as long as the server.
            let _ = changes.changed().await;
            if session.is_none() {
                return End::Replaced;
            }
        }
    }

    async fn legacy(&self) -> Result<End, UpstreamError> {
        let session = self.channel.session(self.tenant).await?;
        let opened = Notify::new();
        first([
            Box::pin(self.keep_stream(&session, &opened)),
            Box::pin(self.keep_told(&session, &opened)),
            Box::pin(async { Ok(self.replaced(Some(&session)).await) }),
        ])
        .await
    }

    /// Whether the GET stream of the session can say anything that is of use.
    fn needs_stream(&self, session: &Session) -> bool {
        let tells = |change: Change| change.is_told_by(session.capabilities);
        session.id.is_some() && (*self.tenant != Tenant::Catalogue || Change::ALL.into_iter().any(tells))
    }

    /// Reads the GET stream of a session, one after the other, until the server has forgotten the session. `opened` hears
    /// when there is one, or when it is clear that there will be none.
    async fn keep_stream(&self, session: &Arc<Session>, opened: &Notify) -> Result<End, UpstreamError> {
        let (mut resume, mut patience, mut had_one) = (Resume::default(), Patience::default(), false);
        while self.needs_stream(session) {
            let begun = Instant::now();
            match self.open_stream(session, resume.last.as_deref()).await {
                Ok(mut stream) => {
                    had_one = true;
                    opened.notify_one();
                    if resume.last.take().is_none() && *self.tenant == Tenant::Catalogue {
                        // What changed before nobody was told.
                        self.channel.upstream.told();
                    }
                    let ended = self.read(&mut stream, session).await;
                    resume = stream.resume;
                    if let Err(error) = ended {
                        self.report(&error);
                    }
                }
                // The server had a stream for the session, and does not know it any more.
                Err(UpstreamError::BadStatus(404)) if had_one => {
                    self.channel.upstream.sessions.forget(self.tenant, session);
                    return Ok(End::Replaced);
                }
                // As long as it has not noticed that the last one is gone.
                Err(UpstreamError::BadStatus(409)) if had_one => {}
                // It lives without.
                Err(UpstreamError::BadStatus(400 | 404 | 405 | 406 | 409 | 501)) => break,
                Err(error) => self.report(&error),
            }
            sleep(patience.next(begun.elapsed(), resume.retry)).await;
        }
        opened.notify_one();
        pending().await
    }

    async fn open_stream(&self, session: &Arc<Session>, last: Option<&str>) -> Result<Stream, UpstreamError> {
        let response = self.channel.get(session, last).await?;
        match response.status() {
            status if status.is_success() => Stream::new(&self.channel, response),
            status => Err(UpstreamError::BadStatus(status.as_u16())),
        }
    }

    async fn read(&self, stream: &mut Stream, session: &Arc<Session>) -> Result<(), UpstreamError> {
        while let Some(message) = stream.next().await? {
            self.hear(&message, Some(session)).await;
        }
        Ok(())
    }

    fn report(&self, error: &UpstreamError) {
        let upstream = &self.channel.upstream;
        upstream.log.debug("stream of server lost", |r| _ = r.field("server", upstream.id()).field("reason", error));
    }

    /// Subscribes to what the tenant wants, in its session, and unsubscribes.
    async fn keep_told(&self, session: &Arc<Session>, opened: &Notify) -> Result<End, UpstreamError> {
        let offered = session.id.is_some() && session.capabilities.subscribes();
        let (mut told, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let mut wanted = self.ear.wanted.subscribe();
        opened.notified().await;
        loop {
            wanted.mark_unchanged();
            let wants = self.ear.resources();
            refused.retain(|uri| wants.contains(uri));
            for uri in told.difference(&wants) {
                // Whatever comes of it, nobody listens any more.
                let _ = self.ask_about(session, method::UNSUBSCRIBE, uri).await;
            }
            told.retain(|uri| wants.contains(uri));
            for uri in wants {
                if told.contains(&uri) || refused.contains(&uri) {
                    continue;
                }
                let answer =
                    if offered { self.ask_about(session, method::SUBSCRIBE, &uri).await } else { Err(not_offered()) };
                match answer {
                    Err(error @ UpstreamError::Rpc(_)) => {
                        self.ear.settle(&uri, Err(error));
                        refused.insert(uri);
                    }
                    Err(error) => return Err(error),
                    Ok(()) => {
                        self.ear.settle(&uri, Ok(()));
                        told.insert(uri);
                    }
                }
            }
            if self.is_over() {
                return Ok(End::Idle);
            }
            let _ = wanted.changed().await;
        }
    }

    /// Makes a request about a resource in the tenant's session.
    async fn ask_about(&self, session: &Arc<Session>, method: &str, uri: &str) -> Result<(), UpstreamError> {
        let id = self.channel.upstream.next_id();
        let dialect = Dialect::Legacy(Arc::clone(session));
        let message = Outbound::of(changes::about_resource(id, method, uri));
        let (response, timer) = self.channel.post_short(&dialect, message).await?;
        let answer = self.channel.answer(self.tenant, dialect, id, response, timer).await?;
        answer.response().await?.error().map_or(Ok(()), |error| Err(UpstreamError::Rpc(error)))
    }

    /// What a modern server is asked to tell of.
    fn filter(&self, server: &Discovered) -> Filter {
        if *self.tenant == Tenant::Catalogue {
            let lists = Changes::of(|list| list.is_told_by(server.capabilities));
            return Filter { lists, uris: Vec::new() };
        }
        let uris = self.ear.resources();
        if !server.capabilities.subscribes() {
            uris.iter().for_each(|uri| self.ear.settle(uri, Err(not_offered())));
            return Filter::default();
        }
        Filter { lists: Changes::default(), uris: uris.into_iter().collect() }
    }

    async fn modern(&self, server: &Arc<Discovered>) -> Result<End, UpstreamError> {
        let mut wanted = self.ear.wanted.subscribe();
        let mut filter = self.filter(server);
        let mut stream = None;
        loop {
            if filter.is_empty() {
                stream = None;
                if self.is_over() {
                    return Ok(End::Idle);
                }
            } else if stream.is_none() {
                stream = Some(self.open_listen(server, &filter).await?);
            }
            match self.next(&mut stream, &mut wanted).await? {
                Next::Message(message) => self.hear(&message, None).await,
                Next::End(end) => return Ok(end),
                Next::Wanted => {
                    let other = self.filter(server);
                    if other != filter && !other.is_empty() {
                        // The new one is there before the old one goes, so that nothing is lost between them.
                        let newer = self.open_listen(server, &other).await?;
                        if let Some(old) = stream.replace(newer) {
                            self.drain(old).await;
                        }
                    }
                    filter = other;
                }
            }
        }
    }

    /// What happens next: on the stream, or, if there is none, to the server.
    async fn next(&self, stream: &mut Option<Stream>, wanted: &mut watch::Receiver<()>) -> Result<Next, UpstreamError> {
        let happens = async {
            let Some(stream) = stream else { return Ok(Next::End(self.replaced(None).await)) };
            Ok(match stream.next().await? {
                Some(message) if message.kind() == Ok(Kind::Notification) => Next::Message(message),
                // The response is its end.
                _ => Next::End(End::Closed),
            })
        };
        let wanted = async {
            // The sender lives as long as the ear.
            let _ = wanted.changed().await;
            Ok(Next::Wanted)
        };
        first([Box::pin(happens), Box::pin(wanted)]).await
    }

    /// Opens a stream of changes at a modern server, and waits for its acknowledgement.
    async fn open_listen(&self, server: &Discovered, filter: &Filter) -> Result<Stream, UpstreamError> {
        let id = self.channel.upstream.next_id();
        let message = Outbound::modern(changes::listen(id, filter), method::LISTEN, None);
        let dialect = Dialect::Modern(Arc::clone(&server.target));
        let (response, mut timer) = self.channel.post_short(&dialect, message).await?;
        let status = response.status();
        if !status.is_success() {
            let body = timer.limit(pin!(collect(response.into_body(), ERROR_BYTES))).await?.unwrap_or_default();
            let error = self.channel.error_message(body).and_then(|message| message.error());
            let error = error.map_or(UpstreamError::BadStatus(status.as_u16()), UpstreamError::Rpc);
            filter.uris.iter().for_each(|uri| self.ear.settle(uri, Err(error.clone())));
            return Err(error);
        }
        let mut stream = Stream::new(&self.channel, response)?;
        let granted = timer.limit(pin!(self.acknowledged(&mut stream))).await??;
        for uri in &filter.uris {
            let is_granted = granted.as_ref().is_none_or(|granted| granted.uris.contains(uri));
            self.ear.settle(uri, if is_granted { Ok(()) } else { Err(not_offered()) });
        }
        if *self.tenant == Tenant::Catalogue {
            // What changed before nobody was told.
            self.channel.upstream.told();
        }
        Ok(stream)
    }

    /// What the server grants; `None` if it does not say.
    async fn acknowledged(&self, stream: &mut Stream) -> Result<Option<Filter>, UpstreamError> {
        loop {
            let message = stream.next().await?.ok_or(UpstreamError::Ended)?;
            if message.method().as_deref() == Some(method::ACKNOWLEDGED) {
                let params = message.params_span().map(|params| params.of(message.bytes()));
                return Ok(params.and_then(|params| Filter::read(params).ok()));
            }
            if let Some(error) = message.error() {
                return Err(UpstreamError::Rpc(error));
            }
            self.hear(&message, None).await;
        }
    }

    /// Takes what is there already of a stream that is given up.
    async fn drain(&self, mut old: Stream) {
        let next = |old: &mut Stream| {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            match old.poll_next(&mut cx) {
                Poll::Ready(Ok(message)) => message,
                _ => None,
            }
        };
        while let Some(message) = next(&mut old) {
            self.hear(&message, None).await;
        }
    }

    /// Passes on what the server says, in this session if it has one.
    async fn hear(&self, message: &Envelope, session: Option<&Arc<Session>>) {
        let upstream = &self.channel.upstream;
        match message.kind() {
            Ok(Kind::Notification) => match message.method().as_deref().and_then(Change::of) {
                Some(_) => upstream.told(),
                None if *self.tenant == Tenant::Catalogue => {}
                None => upstream.heard(self.tenant, message),
            },
            Ok(Kind::Request) => {
                if let Some(session) = session {
                    self.answer(message, session).await;
                }
            }
            // What it answers to here nobody has asked.
            _ => {}
        }
    }

    /// Has a request answered; one that nobody takes before the next message is read.
    async fn answer(&self, request: &Envelope, session: &Arc<Session>) {
        let Some(id) = request.id() else { return };
        if request.method().as_deref() == Some(method::PING) {
            return self.channel.notify_or_log(session, result_message(id, b"{}")).await;
        }
        let upstream = &self.channel.upstream;
        let hearer = upstream.ears.hearer().filter(|_| *self.tenant != Tenant::Catalogue);
        let replier = Replier::new(&self.channel, session);
        if hearer.is_some_and(|hearer| hearer.asked(upstream, self.tenant, request, &replier)) {
            return;
        }
        let error = ErrorObject::new(code::METHOD_NOT_FOUND, "no client can be asked here");
        self.channel.notify_or_log(session, error.to_message(Some(id))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_a_good_stream_begins_anew() {
        let mut patience = Patience::default();
        let mut next = |lasted, asked: Option<u64>| {
            patience.next(Duration::from_secs(lasted), asked.map(Duration::from_millis)).as_secs_f64()
        };
        let mut near = |lasted, asked, expected: f64| {
            let wait = next(lasted, asked);
            assert!((0.79..1.21).contains(&(wait / expected)), "{wait} {expected}");
        };
        for (lasted, asked, expected) in [
            (0, None, 0.5),
            (0, None, 1.0),
            (11, None, 0.25),
            (0, None, 0.5),
            (0, Some(0), 0.1),
            (0, Some(700), 0.7),
            (0, Some(99_000), 30.0),
        ] {
            near(lasted, asked, expected);
        }
        for _ in 0..20 {
            next(0, None);
        }
        assert!((23.0..37.0).contains(&next(0, None)));
    }
}
