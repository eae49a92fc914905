//! Hearing a legacy server: the GET stream of a session, and `resources/subscribe` in it.
//!
//! Source: MCP 2025-11-25, transports, "Listening for Messages from the Server"; protocol.md 3.2, 3.3, 3.5.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::{End, Hearing, Patience, first, not_offered};
use crate::upstream::channel::Dialect;
use crate::upstream::error::UpstreamError;
use crate::upstream::legacy::{Session, Tenant};
use crate::upstream::request::Outbound;
use crate::upstream::stream::{Resume, Stream};
use crate::wire::changes::{self, Change, Topic};
use crate::wire::mcp::method;

/// How long a server that is to be subscribed at is waited for to open its stream, on which it will tell of changes.
const HEAD: Duration = Duration::from_secs(1);

impl Hearing<'_> {
    /// Hears a legacy server in the tenant's session with it.
    pub(super) async fn legacy(&self) -> Result<End, UpstreamError> {
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
                // It does not know any more which event that was.
                Err(UpstreamError::BadStatus(400 | 404)) if resume.last.take().is_some() => {}
                // The server had a stream for the session, and does not know it any more.
                Err(UpstreamError::BadStatus(400 | 404)) if had_one => {
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
            status if status.is_success() => Stream::new(&self.channel, self.tenant, response),
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
        // Some servers take subscriptions though they declare none. One without sessions has no stream to tell on.
        let offered = session.id.is_some();
        let (mut told, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let mut wanted = self.ear.wanted.subscribe();
        // Whether there is one or not.
        let _ = timeout(HEAD, opened.notified()).await;
        loop {
            wanted.mark_unchanged();
            let wants = self.ear.topics();
            refused.retain(|topic| wants.contains(topic));
            for topic in told.difference(&wants) {
                // Whatever comes of it, nobody listens any more.
                let _ = self.ask_about(session, method::UNSUBSCRIBE, topic.name()).await;
            }
            told.retain(|topic| wants.contains(topic));
            for topic in wants {
                // What was given up and is wanted again is asked for again.
                if self.ear.is_settled(&topic) && (told.contains(&topic) || refused.contains(&topic)) {
                    continue;
                }
                let answer = match &topic {
                    Topic::Resource(uri) if offered => self.ask_about(session, method::SUBSCRIBE, uri).await,
                    Topic::Resource(_) | Topic::Task(_) => Err(not_offered()),
                };
                match answer {
                    Err(error @ UpstreamError::Rpc(_)) => {
                        self.ear.settle(&topic, Err(error));
                        refused.insert(topic);
                    }
                    Err(error) => return Err(error),
                    Ok(()) => {
                        self.ear.settle(&topic, Ok(()));
                        told.insert(topic);
                    }
                }
            }
            // What nobody wants any more since the server was asked for it is to be unsubscribed first.
            if told.is_empty() && self.is_over() {
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
}
