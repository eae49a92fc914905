//! From an endpoint to a connection that takes requests: resolve, vet, connect, TLS, HTTP.
//!
//! Follows RFC 6761 for `localhost` (resolved here: an empty root folder has no `/etc/hosts`). Leaves the choice
//! between a new and an idle connection to its caller.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::OutboundError;
use super::pool::{Place, key};
use super::tls::Trust;
use super::vet::vet;
use crate::policy::Reach;
use crate::wire::endpoint::Endpoint;

/// Most bytes of an answer's head, and of what is read from a socket at once. The number of headers is hyper's
/// default, 100: another would cost an allocation per answer.
const MAX_HEAD: usize = 64 * 1024;

/// A connection: the end that takes requests, and a hold on the task that does the work.
pub(super) struct Link {
    /// Takes a request when it is ready, one at a time.
    pub(super) sender: http1::SendRequest<Full<Bytes>>,
    /// Where it leads; the pool's shelf has it too.
    pub(super) place: Arc<Place>,
    /// The address at the other end.
    pub(super) peer: SocketAddr,
    driver: AbortHandle,
}

impl Drop for Link {
    /// Closes the connection: in good order when it is idle, at once in the middle of an exchange.
    fn drop(&mut self) {
        // Without the abort a server that reads nothing could hold up the good order (TLS says goodbye) for ever.
        if !self.sender.is_ready() {
            self.driver.abort();
        }
    }
}

/// Opens a connection to an endpoint within `limit`, TLS included.
///
/// # Errors
/// Those of [`OutboundError`] for which a request is never sent.
pub(super) async fn connect(
    to: &Endpoint,
    reach: Reach,
    trust: &Trust,
    limit: Duration,
) -> Result<Link, OutboundError> {
    let deadline = Instant::now() + limit;
    match timeout_at(deadline, open(to, reach, trust, deadline)).await {
        Ok(done) => done,
        Err(_) => Err(OutboundError::ConnectTimeout { authority: to.authority.clone(), limit }),
    }
}

async fn open(to: &Endpoint, reach: Reach, trust: &Trust, deadline: Instant) -> Result<Link, OutboundError> {
    let session = if to.https { Some(trust.session(&to.host).await?) } else { None };
    let addresses = allowed(resolve(&to.host, to.port).await?, reach)?;
    let (stream, peer) = dial(&addresses, deadline).await?;
    let place = Arc::new(Place::new(key(to, reach)));
    match session {
        Some(session) => drive(session.handshake(stream).await?, place, peer).await,
        None => drive(stream, place, peer).await,
    }
}

/// Finds the addresses of a host, in the order in which they should be tried; at least one.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, OutboundError> {
    if let Ok(literal) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(literal, port)]);
    }
    let name = host.trim_end_matches('.');
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let failed = |reason: String| OutboundError::Resolve { host: host.to_owned(), reason };
    let found: Vec<_> = lookup_host((host, port)).await.map_err(|error| failed(error.to_string()))?.collect();
    if found.is_empty() { Err(failed("no address".to_owned())) } else { Ok(found) }
}

/// Keeps the addresses that may be connected to; at least one.
///
/// SECURITY: what is vetted here is connected to as it is; nothing is resolved a second time.
fn allowed(found: Vec<SocketAddr>, reach: Reach) -> Result<Vec<SocketAddr>, OutboundError> {
    let mut refused = None;
    let mut addresses = found;
    addresses.retain(|address| match vet(address.ip(), reach) {
        Ok(()) => true,
        Err(forbidden) => {
            refused.get_or_insert(forbidden);
            false
        }
    });
    match refused {
        Some(forbidden) if addresses.is_empty() => Err(forbidden.into()),
        _ => Ok(addresses),
    }
}

/// Connects to the first address that accepts; the time left is shared out among those not yet tried.
async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<(TcpStream, SocketAddr), OutboundError> {
    let mut first_failure = None;
    for (&address, untried) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
        let share = deadline.saturating_duration_since(Instant::now()) / untried;
        let kind = match timeout(share, dial_one(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => error.kind(),
            Err(_) => io::ErrorKind::TimedOut,
        };
        first_failure.get_or_insert(OutboundError::Connect { address, kind });
    }
    Err(first_failure.unwrap_or(OutboundError::Resolve { host: String::new(), reason: "no address".to_owned() }))
}

async fn dial_one(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    // A stream that a server keeps open for hours would otherwise outlive the server unnoticed.
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

/// Starts HTTP on a connected stream.
async fn drive<S>(stream: S, place: Arc<Place>, peer: SocketAddr) -> Result<Link, OutboundError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    // How a connection ends is told to its request; between requests nobody needs to know.
    let driver = tokio::spawn(connection).abort_handle();
    Ok(Link { sender, place, peer, driver })
}
