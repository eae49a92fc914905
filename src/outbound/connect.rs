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

/// Most bytes of an answer's head. The number of headers is hyper's default, 100: another costs an allocation per answer.
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
    let (stream, peer) = dial(&to.host, &addresses, deadline).await?;
    let place = Arc::new(Place::new(key(to, reach)));
    match session {
        Some(session) => drive(session.handshake(stream).await?, place, peer).await,
        None => drive(stream, place, peer).await,
    }
}

/// Finds the addresses of a host, in the order in which they should be tried.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, OutboundError> {
    if let Some(known) = known(host, port) {
        return Ok(known);
    }
    match lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(OutboundError::Resolve { host: host.to_owned(), reason: error.to_string() }),
    }
}

/// The addresses of a host that nobody has to be asked for.
fn known(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if let Ok(literal) = host.parse::<IpAddr>() {
        return Some(vec![SocketAddr::new(literal, port)]);
    }
    let name = host.trim_end_matches('.');
    (name == "localhost" || name.ends_with(".localhost"))
        .then(|| vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
}

/// Refuses an endpoint of which it is known without asking anybody that it cannot be connected to.
///
/// What a name leads to is vetted at every connection, because it may lead somewhere else by then.
///
/// # Errors
/// [`OutboundError::Forbidden`].
pub fn vet_endpoint(to: &Endpoint, reach: Reach) -> Result<(), OutboundError> {
    known(&to.host, to.port).map_or(Ok(()), |addresses| allowed(addresses, reach).map(drop))
}

/// Keeps the addresses that may be connected to; an error if that leaves none of them.
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

/// Connects to the first address that accepts, or says why the first one did not.
///
/// Each gets an equal share of the time left; the last one's end is that of the deadline, which the caller sets.
async fn dial(
    host: &str,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), OutboundError> {
    let mut first_failure = None;
    let mut untried = addresses.iter();
    while let Some(&address) = untried.next() {
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = match u32::try_from(untried.len()) {
            Ok(others @ 1..) => {
                timeout(left / (others + 1), dial_one(address)).await.unwrap_or_else(|late| Err(late.into()))
            }
            _ => dial_one(address).await,
        };
        match outcome {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => first_failure.get_or_insert(OutboundError::Connect { address, kind: error.kind() }),
        };
    }
    let nothing_to_try = || OutboundError::Resolve { host: host.to_owned(), reason: "no address".to_owned() };
    Err(first_failure.unwrap_or_else(nothing_to_try))
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
    let (sender, connection) =
        http1::Builder::new().max_header_size(MAX_HEAD).max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    // How a connection ends is told to its request; between requests nobody needs to know.
    let driver = tokio::spawn(connection).abort_handle();
    Ok(Link { sender, place, peer, driver })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SOON, Server, refusing};
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check_allowed(found: &[&str], reach: Reach, expected: Result<&[&str], &str>) {
        let left = allowed(addresses(found), reach).map_err(|error| error.to_string());
        assert_eq!(left, expected.map(addresses).map_err(str::to_owned), "{found:?} {reach:?}");
    }

    #[test]
    fn every_address_of_a_name_is_vetted() {
        let mixed = ["127.0.0.1:1", "8.8.8.8:1", "169.254.169.254:1", "[2606:4700::1]:1"];
        check_allowed(&mixed, Reach::Public, Ok(&["8.8.8.8:1", "[2606:4700::1]:1"]));
        check_allowed(&mixed, Reach::Private, Ok(&["127.0.0.1:1", "8.8.8.8:1", "[2606:4700::1]:1"]));
        let none = Err("address `127.0.0.1` is not allowed here: loopback");
        check_allowed(&["127.0.0.1:1", "10.0.0.1:1"], Reach::Public, none);
        check_allowed(&[], Reach::Public, Ok(&[]));
    }

    #[tokio::test]
    async fn literals_and_localhost_need_no_resolver() {
        let local = addresses(&["127.0.0.1:7", "[::1]:7"]);
        for (host, expected) in [
            ("localhost", local.clone()),
            ("localhost.", local.clone()),
            ("mcp.localhost", local),
            ("10.1.2.3", addresses(&["10.1.2.3:7"])),
            ("fe80::1", addresses(&["[fe80::1]:7"])),
        ] {
            assert_eq!(resolve(host, 7).await, Ok(expected), "{host}");
        }
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let server = Server::start(|_| ());
        let good = SocketAddr::from((Ipv4Addr::LOCALHOST, server.endpoint.port));
        let held = [refusing(), refusing()];
        let [one, other] = held.each_ref().map(|port| port.address());
        let reached = |result: Result<(TcpStream, SocketAddr), _>| result.map(|(_, address)| address);
        let deadline = Instant::now() + SOON;
        assert_eq!(reached(dial("h", &[one, good, other], deadline).await), Ok(good));
        let refused = OutboundError::Connect { address: one, kind: io::ErrorKind::ConnectionRefused };
        assert_eq!(reached(dial("h", &[one, other], deadline).await), Err(refused));
        let none = OutboundError::Resolve { host: "h".to_owned(), reason: "no address".to_owned() };
        assert_eq!(reached(dial("h", &[], deadline).await), Err(none));
    }
}
