//! Stands in for `tls` in a build without that feature: the same interface, and `https` is refused.

use tokio::net::TcpStream;

use super::error::OutboundError;

/// Whom TLS connections are opened to: in this build, nobody.
#[derive(Clone, Default)]
pub struct Trust;

/// A TLS connection to come; in this build there is none.
pub(super) enum Session {}

impl Trust {
    /// Trusts the root certificates of the system, which this build has no use for.
    #[must_use]
    pub fn system() -> Self {
        Self
    }

    #[expect(clippy::unused_async, reason = "the interface is that of a build with TLS")]
    pub(super) async fn session(&self, host: &str) -> Result<Session, OutboundError> {
        let reason = "this build has no TLS\nhint: build with feature `tls`".to_owned();
        Err(OutboundError::Tls { host: host.to_owned(), reason })
    }
}

impl Session {
    #[expect(clippy::unused_async, reason = "the interface is that of a build with TLS")]
    pub(super) async fn handshake(self, _: TcpStream) -> Result<TcpStream, OutboundError> {
        match self {}
    }
}
