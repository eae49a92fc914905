//! Hearing a modern server: one stream of `subscriptions/listen`, opened anew whenever its tenant wants something else.
//!
//! Source: MCP 2026-07-28, "Subscriptions"; protocol.md 1.7, 3.5, 4.2.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

use super::{End, Hearing, first, not_offered};
use crate::upstream::answer::{collect, content_type};
use crate::upstream::channel::{Dialect, ERROR_BYTES};
use crate::upstream::error::UpstreamError;
use crate::upstream::legacy::Tenant;
use crate::upstream::probe::Discovered;
use crate::upstream::request::Outbound;
use crate::upstream::stream::Stream;
use crate::wire::changes::{self, Changes, Filter, Topic};
use crate::wire::jsonrpc::{Envelope, Kind};
use crate::wire::mcp::method;

/// What happens next to a modern ear.
enum Next {
    Message(Envelope),
    End(End),
    /// The tenant wants to hear something else.
    Wanted,
}

/// Whether an error is the server's word on what it was asked to tell of.
fn is_refusal(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Rpc(_) | UpstreamError::BadStatus(_) | UpstreamError::NotMcp(_))
}

impl Hearing<'_> {
    /// What a modern server is asked to tell of.
    fn filter(&self, server: &Discovered) -> Filter {
        if *self.tenant == Tenant::Catalogue {
            let lists = Changes::of(|list| list.is_told_by(server.capabilities));
            return Filter { lists, ..Filter::default() };
        }
        let mut filter = Filter::default();
        for topic in self.ear.topics() {
            let told = match topic {
                Topic::Resource(_) => server.capabilities.subscribes(),
                Topic::Task(_) => server.capabilities.runs_tasks(),
            };
            match told {
                true => filter.add(topic),
                false => self.ear.settle(&topic, Err(not_offered())),
            }
        }
        filter
    }

    /// Hears a modern server.
    pub(super) async fn modern(&self, server: &Arc<Discovered>) -> Result<End, UpstreamError> {
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
                stream = Some(self.open_listen(server, &filter, &Filter::default()).await?);
            }
            match self.next(&mut stream, &mut wanted).await? {
                Next::Message(message) => self.hear(&message, None).await,
                Next::End(end) => return Ok(end),
                Next::Wanted => {
                    let other = self.filter(server);
                    if other.is_empty() || (stream.is_some() && self.is_told(&filter, &other)) {
                        filter = other;
                        continue;
                    }
                    // The new one is there before the old one goes, so that nothing is lost between them.
                    match self.open_listen(server, &other, &filter).await {
                        Ok(newer) => {
                            if let Some(old) = stream.replace(newer) {
                                self.drain(old).await;
                            }
                            filter = other;
                        }
                        // Who wanted more has been told so; what the old one tells of it goes on telling.
                        Err(error) if stream.is_some() && is_refusal(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// Whether a stream with this filter will do for another.
    fn is_told(&self, filter: &Filter, other: &Filter) -> bool {
        // What was given up and is wanted again is asked for again.
        filter == other && other.topics().all(|topic| self.ear.is_settled(&topic))
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

    /// Opens a stream of changes at a modern server, and waits for its acknowledgement. If there is none, nothing changes for
    /// what another one tells of, whose filter is `before`.
    async fn open_listen(
        &self,
        server: &Discovered,
        filter: &Filter,
        before: &Filter,
    ) -> Result<Stream, UpstreamError> {
        let opened = self.ask_to_listen(server, filter).await;
        if let Some(error) = opened.as_ref().err().filter(|error| is_refusal(error)) {
            let more = filter.topics().filter(|topic| !(before.has(topic) && self.ear.is_settled(topic)));
            more.for_each(|topic| self.ear.settle(&topic, Err(error.clone())));
        }
        opened
    }

    async fn ask_to_listen(&self, server: &Discovered, filter: &Filter) -> Result<Stream, UpstreamError> {
        let id = self.channel.upstream.next_id();
        let message = Outbound::modern(changes::listen(id, filter), method::LISTEN, None);
        let dialect = Dialect::Modern(Arc::clone(&server.target));
        let (response, mut timer) = self.channel.post_short(&dialect, message).await?;
        let status = response.status();
        let is_stream = content_type(&response) == "text/event-stream";
        if !status.is_success() || !is_stream {
            let body = timer.limit(pin!(collect(response.into_body(), ERROR_BYTES))).await?.unwrap_or_default();
            return Err(match self.channel.error_message(body).and_then(|message| message.error()) {
                Some(error) => UpstreamError::Rpc(error),
                None if status.is_success() => UpstreamError::NotMcp("expected an event stream".to_owned()),
                None => UpstreamError::BadStatus(status.as_u16()),
            });
        }
        let mut stream = Stream::new(&self.channel, self.tenant, response)?;
        let granted = timer.limit(pin!(self.acknowledged(&mut stream))).await??;
        for topic in filter.topics() {
            let is_granted = granted.as_ref().is_none_or(|granted| granted.has(&topic));
            self.ear.settle(&topic, if is_granted { Ok(()) } else { Err(not_offered()) });
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
            let mut cx = Context::from_waker(Waker::noop());
            match old.poll_next(&mut cx) {
                Poll::Ready(Ok(message)) => message,
                _ => None,
            }
        };
        while let Some(message) = next(&mut old) {
            self.hear(&message, None).await;
        }
    }
}
