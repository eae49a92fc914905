//! Connections to the upstream.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One connection; a task of its own reads and writes its socket.
pub(crate) type Link = SendRequest<Full<Bytes>>;

/// The idle connections to one address. The one used last is taken first, so that the fewest are kept busy.
pub(crate) struct Pool {
    address: SocketAddr,
    idle: RefCell<Vec<Link>>,
}

impl Pool {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, idle: RefCell::default() }
    }

    /// Gives a connection that is ready for a request.
    ///
    /// # Errors
    ///
    /// A new one is needed and cannot be made.
    pub(crate) async fn take(&self) -> io::Result<Link> {
        while let Some(mut link) = self.pop() {
            if link.ready().await.is_ok() {
                return Ok(link);
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (link, driver) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(driver);
        Ok(link)
    }

    fn pop(&self) -> Option<Link> {
        self.idle.borrow_mut().pop()
    }

    /// Takes back a connection whose answer was read to its end.
    pub(crate) fn give_back(&self, link: Link) {
        self.idle.borrow_mut().push(link);
    }
}
