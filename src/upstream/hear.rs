//! The life of an ear: its stream is opened, read, and opened again; the server is told what its tenant wants to hear.
//!
//! A legacy server says everything unasked on the GET stream of a session; a modern one, on a stream of its own, what it
//! was asked for in `subscriptions/listen`. Source: MCP 2025-11-25, transports; MCP 2026-07-28, "Subscriptions";
//! protocol.md 3.2, 3.5, 4.2.

mod legacy;
mod modern;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Upstream;
use super::answer::refusal_to;
use super::channel::Channel;
use super::ear::{Ear, Replier};
use super::error::UpstreamError;
use super::legacy::{Session, Tenant};
use super::probe::Known;
use crate::wire::changes::Change;
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind};
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
    let mut hasty = false;
    loop {
        upstream.reached().await;
        let begun = Instant::now();
        let channel = Channel::new(&upstream, &upstream.ears.http);
        let hearing = Hearing { channel, tenant: &tenant, ear: &ear };
        match hearing.turn().await {
            Ok(End::Idle) => return,
            // At once, unless that was so just before.
            Ok(End::Replaced) if !std::mem::replace(&mut hasty, begun.elapsed() < GOOD) => continue,
            Ok(End::Replaced | End::Closed) => {}
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

/// Why a server tells nothing about a resource or task that it has.
fn not_offered() -> UpstreamError {
    UpstreamError::Rpc(ErrorObject::new(code::METHOD_NOT_FOUND, "the server does not tell of changes of it"))
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
        let Some(refusal) = refusal_to(request) else { return };
        let (upstream, replier) = (&self.channel.upstream, Replier::new(&self.channel, session));
        let is_ping = request.method().as_deref() == Some(method::PING);
        let hearer = upstream.ears.hearer().filter(|_| !is_ping && *self.tenant != Tenant::Catalogue);
        if hearer.is_none_or(|hearer| !hearer.asked(upstream, self.tenant, request, &replier)) {
            replier.deliver(refusal).await;
        }
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
