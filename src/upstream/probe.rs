//! Which era a server belongs to: asked once, with `server/discover`, and remembered until it turns out to be wrong.
//!
//! A modern server has to know the method, and whatever answers with a JSON-RPC error that is none of the modern ones is
//! legacy; what says nothing about the era is not remembered. Source: MCP 2026-07-28, versioning, "Backward
//! Compatibility"; protocol.md 3.1.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use hyper::body::Bytes;
use tokio::time::Instant;

use super::Upstream;
use super::answer::collect;
use super::channel::{Channel, Dialect};
use super::error::UpstreamError;
use super::legacy::{elsewhere, kept_instructions};
use super::request::Outbound;
use super::target::Target;
use crate::policy::registry::ProtocolPin;
use crate::wire::endpoint::Endpoint;
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, Sender};
use crate::wire::mcp::{
    DiscoverResult, Era, MODERN, ProtocolVersion, ServerCapabilities, UnsupportedVersion, code, method,
};
use crate::wire::rewrite;

/// Bytes of an error body that are looked at.
const ANSWER_BYTES: usize = 1024 * 1024;

/// What is known of a server.
#[derive(Clone)]
pub(super) enum Known {
    Legacy,
    Modern(Arc<Discovered>),
}

/// Something that was done once for all who waited for it, and failed.
pub(super) struct Failed {
    pub(super) ended: Instant,
    pub(super) failure: UpstreamError,
}

/// A modern server, and what it has said about itself.
pub(super) struct Discovered {
    /// Where it was found.
    pub(super) target: Arc<Target>,
    /// Its instructions to models.
    pub(super) instructions: Option<Box<str>>,
    /// What it can do.
    pub(super) capabilities: ServerCapabilities,
}

impl Known {
    pub(super) fn era(&self) -> Era {
        match self {
            Self::Legacy => Era::Legacy,
            Self::Modern(_) => Era::Modern,
        }
    }

    /// Whether the server may run a tool as a task of the modern era.
    pub(super) fn runs_tasks(&self) -> bool {
        matches!(self, Self::Modern(server) if server.capabilities.runs_tasks())
    }
}

impl Upstream {
    /// The era of the server, as far as is known now.
    #[must_use]
    pub fn era(&self) -> Option<Era> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(Known::era)
    }

    /// Whether the server is known to run tools as tasks of the modern era.
    #[must_use]
    pub fn runs_tasks(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(Known::runs_tasks)
    }

    fn remembered(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, known: Option<Known>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        self.sessions.changed.send_replace(());
    }

    /// Forgets everything, as a server that failed may come back as another.
    pub(super) fn forget(&self) {
        self.remember(None);
    }

    /// Whether the server holds what it is asked, so that no call should wait for that.
    pub(super) fn asking_is_slow(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Whether the server has to be asked again, which is no longer so then.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.swap(false, Ordering::Relaxed)
    }
}

impl Channel {
    /// What is known of the server, asked now if nothing is. One asks, the others wait for that.
    ///
    /// # Errors
    /// [`UpstreamError`] if the server says nothing from which its era can be told.
    pub(super) async fn known(&self) -> Result<Known, UpstreamError> {
        match self.upstream.remembered() {
            Some(known) => Ok(known),
            // Boxed because it is rare and large: it would make the future of every call as large.
            None => Box::pin(self.ask_unless(|_| true)).await,
        }
    }

    /// The same after an answer that does not fit what is known. Meanwhile the others go on with that.
    ///
    /// # Errors
    /// As [`known`](Self::known).
    pub(super) async fn known_anew(&self, wrong: Era) -> Result<Known, UpstreamError> {
        self.ask_unless(|known| known.era() != wrong).await
    }

    /// Asks, unless somebody has found out meanwhile what will do, or how asking fails.
    async fn ask_unless(&self, will_do: impl Fn(&Known) -> bool) -> Result<Known, UpstreamError> {
        let since = Instant::now();
        let mut last = self.upstream.probing.lock().await;
        if let Some(known) = self.upstream.remembered().filter(will_do) {
            return Ok(known);
        }
        if let Some(probe) = last.as_ref().filter(|probe| probe.ended >= since) {
            return Err(probe.failure.clone());
        }
        let asked = self.ask().await;
        *last = asked.as_ref().err().map(|failure| Failed { ended: Instant::now(), failure: failure.clone() });
        asked
    }

    async fn ask(&self) -> Result<Known, UpstreamError> {
        let known = match self.upstream.server.protocol {
            ProtocolPin::Legacy => Known::Legacy,
            ProtocolPin::Auto => self.probe().await?,
            ProtocolPin::Modern => match self.probe().await? {
                Known::Legacy => {
                    return Err(UpstreamError::NotMcp(format!("expected a server of {MODERN}, as configured")));
                }
                modern @ Known::Modern(_) => modern,
            },
        };
        if let Known::Modern(_) = known {
            // Sessions with what was there before mean nothing to it.
            self.upstream.sessions.clear();
        }
        self.upstream.remember(Some(known.clone()));
        self.upstream.log.debug("server probed", |r| {
            r.field("server", self.upstream.id()).field("era", known.era());
        });
        Ok(known)
    }

    async fn probe(&self) -> Result<Known, UpstreamError> {
        let mut place = self.upstream.place();
        let mut reply = self.discover(&place).await;
        if let Ok(Reply { elsewhere: Some(there), .. }) = reply {
            place = Arc::new(there);
            reply = self.discover(&place).await;
        }
        if reply.as_ref().is_ok_and(Reply::names_what_it_refuses) {
            reply = self.discover(&place).await;
        }
        self.upstream.silent.store(matches!(reply, Err(UpstreamError::Silent(_))), Ordering::Relaxed);
        match reply {
            Ok(reply) => reply.verdict(|| Arc::new(Target::modern(&self.upstream, Arc::clone(&place)))),
            // Some legacy servers hold what they do not know; the handshake will tell.
            Err(UpstreamError::Silent(_)) => Ok(Known::Legacy),
            Err(error) => {
                // Wherever the server was, it may be back at its URL.
                self.upstream.move_to_start();
                Err(error)
            }
        }
    }

    async fn discover(&self, place: &Arc<Endpoint>) -> Result<Reply, UpstreamError> {
        let (id, meta) = (self.upstream.next_id(), rewrite::own_meta());
        let discover = method::DISCOVER;
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{discover}","params":{{"_meta":{meta}}}}}"#);
        let dialect = Dialect::Modern(Arc::new(Target::modern(&self.upstream, Arc::clone(place))));
        let message = Outbound::modern(body.into_bytes(), discover, None);
        let (response, mut timer) = self.post_short(&dialect, message).await?;
        let (status, elsewhere) = (response.status().as_u16(), elsewhere(place, &response));
        if response.status().is_success() {
            let answer = self.answer(&super::Tenant::Catalogue, dialect, id, response, timer).await;
            let response = match answer {
                Ok(answer) => answer.response().await,
                Err(error) => Err(error),
            };
            return match response {
                Ok(message) => Ok(Reply { status, message: Some(message), elsewhere: None }),
                // A page for people, perhaps: no server of this era answers so.
                Err(UpstreamError::NotMcp(_)) => Ok(Reply { status, message: None, elsewhere: None }),
                Err(error) => Err(error),
            };
        }
        let body = timer.limit(pin!(collect(response.into_body(), ANSWER_BYTES))).await?.unwrap_or_default();
        let message = self.error_message(body);
        // Whoever answers in JSON-RPC is there, whatever the status.
        let elsewhere = elsewhere.filter(|_| message.is_none());
        Ok(Reply { status, message, elsewhere })
    }

    /// The JSON-RPC error that a body is, if it is one.
    pub(super) fn error_message(&self, body: Bytes) -> Option<Envelope> {
        let envelope = Envelope::parse(body, self.settings.limits.json_depth, Sender::Server).ok()?;
        (envelope.kind() == Ok(Kind::Error)).then_some(envelope)
    }
}

/// What came of asking.
struct Reply {
    status: u16,
    /// A JSON-RPC response, if it was one.
    message: Option<Envelope>,
    /// Where else the server may be.
    elsewhere: Option<Endpoint>,
}

impl Reply {
    /// Whether the server refuses the revision it was asked in and says in one breath that it speaks it.
    fn names_what_it_refuses(&self) -> bool {
        let error = self.message.as_ref().and_then(Envelope::error);
        error.is_some_and(|e| e.code == code::UNSUPPORTED_VERSION && has_modern(&spoken_instead(&e)))
    }

    fn verdict(&self, target: impl Fn() -> Arc<Target>) -> Result<Known, UpstreamError> {
        let modern = |instructions, capabilities| {
            Known::Modern(Arc::new(Discovered { target: target(), instructions, capabilities }))
        };
        let Some(message) = &self.message else {
            return match self.status {
                // Neither of these says anything about the era.
                401 | 403 | 407 | 421 | 429 | 300..=399 | 500..=599 => Err(UpstreamError::BadStatus(self.status)),
                _ => Ok(Known::Legacy),
            };
        };
        match message.error() {
            Some(error) => match error.code {
                code::UNSUPPORTED_VERSION => in_common(&spoken_instead(&error)),
                // The server understood, and found a fault in how it was asked.
                code::HEADER_MISMATCH | code::MISSING_CAPABILITY => Ok(modern(None, ServerCapabilities::UNKNOWN)),
                _ if matches!(self.status, 401 | 403 | 407 | 421 | 429 | 500..=599) => {
                    Err(UpstreamError::BadStatus(self.status))
                }
                _ => Ok(Known::Legacy),
            },
            None => {
                let result = DiscoverResult::parse(message.result().unwrap_or_default());
                let Ok(result) = result else { return Ok(Known::Legacy) };
                if has_modern(&result.supported_versions) {
                    let instructions = result.instructions.as_deref().map(kept_instructions);
                    return Ok(modern(instructions, result.capabilities()));
                }
                in_common(&result.supported_versions)
            }
        }
    }
}

/// What a server that does not speak the revision it was asked in says that it speaks.
fn spoken_instead(error: &ErrorObject) -> Vec<String> {
    UnsupportedVersion::parse(error.data.as_deref().unwrap_or_default()).supported
}

fn has_modern(versions: &[String]) -> bool {
    versions.iter().any(|version| version == MODERN)
}

/// What can be done with a server that says it speaks these revisions, and does not speak the modern one.
fn in_common(versions: &[String]) -> Result<Known, UpstreamError> {
    if versions.iter().any(|version| ProtocolVersion::parse(version).is_some()) {
        return Ok(Known::Legacy);
    }
    if has_modern(versions) {
        return Err(UpstreamError::NotMcp(format!("the server refuses {MODERN}, which it says it speaks")));
    }
    let found: Vec<String> = versions.iter().take(8).map(|version| version.chars().take(40).collect()).collect();
    Err(UpstreamError::NotMcp(format!("no protocol version in common: the server speaks {found:?}")))
}
