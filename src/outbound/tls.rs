//! TLS for outgoing connections: rustls with ring, versions 1.2 and 1.3, HTTP/1.1 by ALPN.
//!
//! Knows which root certificates count. Presents no client certificate and offers no way to skip verification.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore, crypto::ring};
use tokio_rustls::{Connect, TlsConnector};

use super::error::{OutboundError, chain};

/// Whose word counts for the identity of a TLS server.
///
/// Clones share what they loaded, across threads.
#[derive(Clone, Default)]
pub struct Trust(Arc<OnceCell<Arc<ClientConfig>>>);

/// A TLS connection to come: the settings, and the name its certificate must bear.
pub(super) struct Session {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Trust {
    /// Trusts the root certificates of the system, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    ///
    /// They are read at the first TLS connection, off the runtime's thread.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Trusts the given root certificates (DER) and no others.
    ///
    /// # Errors
    /// [`OutboundError::Tls`] if one of them is not a certificate, or there is none.
    pub fn only(roots: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, OutboundError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(CertificateDer::from(root)).map_err(|error| failed("", chain(&error)))?;
        }
        let config = config(store).map_err(|reason| failed("", reason))?;
        Ok(Self(Arc::new(OnceCell::new_with(Some(config)))))
    }

    /// Prepares a connection to `host`; certificates that could not be read are tried again next time.
    pub(super) async fn session(&self, host: &str) -> Result<Session, OutboundError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(host, error.to_string()))?;
        let config = self.0.get_or_try_init(load).await.map_err(|reason| failed(host, reason))?;
        Ok(Session { connector: TlsConnector::from(Arc::clone(config)), name })
    }
}

impl Session {
    /// Agrees on TLS over a connected stream and verifies the server.
    pub(super) async fn handshake(self, stream: TcpStream) -> Result<TlsStream<TcpStream>, OutboundError> {
        let host = self.name.to_str().into_owned();
        let connecting: Connect<TcpStream> = self.connector.connect(self.name, stream);
        connecting.await.map_err(|error| failed(&host, explain(&error)))
    }
}

/// Reads the system's root certificates.
async fn load() -> Result<Arc<ClientConfig>, String> {
    let found = spawn_blocking(rustls_native_certs::load_native_certs).await.map_err(|error| error.to_string())?;
    let mut store = RootCertStore::empty();
    // A store with a certificate that is not to rustls' taste is still a store.
    store.add_parsable_certificates(found.certs);
    config(store).map_err(|none| found.errors.first().map_or(none, |error| chain(error)))
}

fn config(store: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    if store.is_empty() {
        return Err("no root certificates\nhint: name a file of them in SSL_CERT_FILE".to_owned());
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What a failed handshake means, with a remedy where there is one.
fn explain(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "certificate of an unknown authority\nhint: name a file with the authority's certificate in SSL_CERT_FILE"
                .to_owned()
        }
        Some(tls) => tls.to_string(),
        None => error.to_string(),
    }
}

fn failed(host: &str, reason: String) -> OutboundError {
    OutboundError::Tls { host: host.to_owned(), reason }
}
