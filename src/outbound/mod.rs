//! Outgoing HTTP/1.1 and HTTPS: the only module that connects to anything.
//!
//! Knows how to find, vet and reach the host of an [`Endpoint`], and how to keep its connections for the next request.
//! Every address is vetted as it is connected to ([`vet()`]), so that a name cannot lead where its URL could not.
//! Built on hyper's `client::conn::http1` (RFC 9112), one driver task per connection.
//!
//! Leaves to its caller: what is sent (headers included), what an answer means, redirects, the size of answer bodies,
//! and every time limit but that of connecting.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | [`Client`]: a request from its pool of connections to its answer |
//! | `body` | [`Incoming`]: an answer's body, which gives its connection back |
//! | `connect` | resolving, vetting and connecting; a connection and its driver |
//! | `error` | [`OutboundError`]: what can go wrong, and whether the request may be repeated |
//! | `pool` | idle connections by place, newest first |
//! | `tls`, `no_tls` | [`Trust`]: TLS with the feature `tls`, a clear refusal without it |
//! | `vet` | which addresses may be connected to |

mod body;
mod connect;
mod error;
mod pool;
mod vet;

#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
#[cfg(feature = "tls")]
mod tls;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response};

pub use self::body::Incoming;
pub use self::connect::vet_endpoint;
pub use self::error::OutboundError;
pub use self::tls::Trust;
pub use self::vet::{Forbidden, vet};

use self::pool::{Pool, key};
use crate::alarm::Alarms;
use crate::policy::Reach;
use crate::wire::endpoint::Endpoint;

/// Sends requests to upstreams over connections of its own.
///
/// One per runtime thread: a connection's driver lives on the thread that opened it, and so should its requests.
/// Clones share their connections; separate clients share nothing but the [`Trust`] they were given.
/// Dropping the last clone closes the idle connections.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

/// What clones share.
struct Shared {
    /// The idle connections; the bodies of running answers hold it too, to give theirs back.
    pool: Arc<Pool>,
    /// The root certificates, shared with the clients of other threads.
    trust: Trust,
    alarms: Alarms,
}

impl Client {
    /// Makes a client without connections, which verifies TLS servers by `trust`.
    ///
    /// The process makes one [`Trust`] and hands a clone to each thread's client, so that certificates are read once.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        let alarms = Alarms::default();
        Self(Arc::new(Shared { pool: Arc::new(Pool::new(alarms.clone())), trust, alarms }))
    }

    /// The time limits of the thread.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.0.alarms
    }

    /// Sends one request and waits for the head of its answer.
    ///
    /// The request goes out as it stands: its URI is the origin-form target already, and `Host` is set. It takes the
    /// connection to `to` that became idle last; one found closed before a byte was written is passed over, and
    /// when there is none left, a new one is opened within `connect_limit`. Interim answers (1xx) are skipped.
    /// Dropping the returned future, or the answer before the end of its body, closes the connection.
    ///
    /// `reach` says which addresses are open to whoever configured `to`; connections are never shared between reaches.
    /// The head of an answer may have 64 KiB and 100 headers.
    ///
    /// # Errors
    /// [`OutboundError`]; where [`OutboundError::never_sent`] holds, the server has not seen the request.
    pub fn send(
        &self,
        to: &Endpoint,
        reach: Reach,
        connect_limit: Duration,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Result<Response<Incoming>, OutboundError>> {
        // Not an async function, which would keep the request twice.
        let mut request = request;
        async move {
            loop {
                let idle = self.0.pool.take(key(to, reach));
                let reused = idle.is_some();
                let mut link = match idle {
                    Some(link) => link,
                    // Boxed because it is rare and large: it would make every request's future as large.
                    None => Box::pin(connect::connect(to, reach, &self.0.trust, connect_limit)).await?,
                };
                match link.sender.try_send_request(request).await {
                    Ok(answer) => return Ok(Incoming::wrap(answer, link, &self.0.pool)),
                    // hyper hands a request back only if it wrote nothing of it.
                    Err(mut failure) => match failure.take_message() {
                        Some(unsent) if reused => request = unsent,
                        Some(_) => return Err(OutboundError::closed_at_once(link.peer)),
                        None => return Err(failure.into_error().into()),
                    },
                }
            }
        }
    }
}
