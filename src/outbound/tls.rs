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
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore, crypto::ring};
use tokio_rustls::{Connect, TlsConnector};

use super::error::OutboundError;

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
            store.add(CertificateDer::from(root)).map_err(|error| failed("any host", error.to_string()))?;
        }
        let config = config(store).map_err(|reason| failed("any host", reason))?;
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
    config(store).map_err(|none| found.errors.first().map_or(none, ToString::to_string))
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
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return error.to_string();
    };
    match tls {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "certificate of an unknown authority\nhint: name a file with the authority's certificate in SSL_CERT_FILE"
                .to_owned()
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { .. }) => "certificate has expired".to_owned(),
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            let names: Vec<String> = presented.iter().map(|name| format!("`{}`", bare(name))).collect();
            let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            format!("certificate is for {names}, not for `{}`", expected.to_str())
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS\nhint: did you mean `http://`?".to_owned()
        }
        other => other.to_string(),
    }
}

/// The name in what rustls says of one, such as `DnsName("localhost")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn failed(host: &str, reason: String) -> OutboundError {
    OutboundError::Tls { host: host.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::super::tests::{Conn, SOON, Server, ask, large_request};
    use super::super::{Client, Reach};
    use super::*;

    const CA: &[u8] = include_bytes!("../../fixtures/tls/ca.der");
    const STRANGER: &[u8] = include_bytes!("../../fixtures/tls/stranger.der");
    const GOOD: &[u8] = include_bytes!("../../fixtures/tls/good.der");
    const EXPIRED: &[u8] = include_bytes!("../../fixtures/tls/expired.der");
    const KEY: &[u8] = include_bytes!("../../fixtures/tls/server.key.der");

    /// Starts an HTTPS server with this certificate, reached as `https://{host}`; it agrees on `alpn` only.
    fn serve(host: &str, certificate: &'static [u8], alpn: &str) -> Server {
        let ok = |conn: &mut Conn| conn.answer_all("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        serve_script(host, certificate, alpn, ok)
    }

    fn serve_script(host: &str, certificate: &'static [u8], alpn: &str, script: fn(&mut Conn)) -> Server {
        let key = PrivatePkcs8KeyDer::from(KEY.to_vec()).into();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.into()];
        let config = Arc::new(config);
        let wrap = move |mut tcp| {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            tls.complete_io(&mut tcp)?;
            Ok(Box::new(StreamOwned::new(tls, tcp)) as _)
        };
        Server::start_over(&format!("https://{host}"), wrap, script)
    }

    async fn check(server: Server, roots: &[u8], expected: Result<&str, &str>) {
        let client = Client::new(Trust::only([roots.to_vec()]).unwrap());
        let found = ask(&client, &server.endpoint).await;
        assert!(found.as_ref().err().is_none_or(OutboundError::never_sent));
        let found = found.map_err(|error| error.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }

    #[tokio::test]
    async fn a_certificate_of_a_trusted_authority_is_accepted() {
        check(serve("localhost", GOOD, "http/1.1"), CA, Ok("ok")).await;
    }

    #[tokio::test]
    async fn other_certificates_are_refused_with_the_reason() {
        let unknown = "no TLS with `localhost`: certificate of an unknown authority\n\
                       hint: name a file with the authority's certificate in SSL_CERT_FILE";
        check(serve("localhost", GOOD, "http/1.1"), STRANGER, Err(unknown)).await;
        let expired = "no TLS with `localhost`: certificate has expired";
        check(serve("localhost", EXPIRED, "http/1.1"), CA, Err(expired)).await;
        for host in ["127.0.0.1", "other.localhost"] {
            let wrong_name = format!("no TLS with `{host}`: certificate is for `localhost`, not for `{host}`");
            check(serve(host, GOOD, "http/1.1"), CA, Err(&wrong_name)).await;
        }
    }

    #[tokio::test]
    async fn a_server_without_http_1_is_refused() {
        let refused = "no TLS with `localhost`: received fatal alert: NoApplicationProtocol";
        check(serve("localhost", GOOD, "h2"), CA, Err(refused)).await;
    }

    /// Starts a server that answers a handshake with `answer` and waits.
    fn without_tls(answer: &'static str) -> Server {
        let plain = |tcp| Ok(Box::new(tcp) as _);
        Server::start_over("https://localhost", plain, move |conn| {
            conn.glance();
            conn.write(answer);
            conn.answer_all("");
        })
    }

    #[tokio::test]
    async fn a_server_without_tls_is_refused() {
        let plain = "no TLS with `localhost`: the server does not speak TLS\nhint: did you mean `http://`?";
        check(without_tls("HTTP/1.1 400 Bad Request\r\n\r\n"), CA, Err(plain)).await;
    }

    #[tokio::test]
    async fn tls_connections_are_used_again() {
        let server = serve("localhost", GOOD, "http/1.1");
        let client = Client::new(Trust::only([CA.to_vec()]).unwrap());
        for _ in 0..3 {
            assert_eq!(ask(&client, &server.endpoint).await.as_deref(), Ok("ok"));
        }
        assert_eq!(server.accepted(), 1);
    }

    #[tokio::test]
    async fn a_server_that_does_not_read_cannot_keep_a_connection_open() {
        let server = serve_script("localhost", GOOD, "http/1.1", |conn| {
            conn.glance();
            conn.write_until_closed();
        });
        let client = Client::new(Trust::only([CA.to_vec()]).unwrap());
        let sending = client.send(&server.endpoint, Reach::Private, SOON, large_request());
        assert!(tokio::time::timeout(Duration::from_millis(100), sending).await.is_err());
        server.closed(1).await;
    }

    #[tokio::test]
    async fn a_handshake_has_the_time_of_a_connection() {
        let server = without_tls("");
        let client = Client::new(Trust::only([CA.to_vec()]).unwrap());
        let limit = Duration::from_millis(50);
        let request = hyper::Request::default();
        let sending = client.send(&server.endpoint, Reach::Private, limit, request);
        let error = tokio::time::timeout(SOON, sending).await.unwrap().err().unwrap();
        assert_eq!(error.to_string(), format!("cannot connect to `{}` within 50ms", server.endpoint.authority));
        assert!(error.never_sent());
    }

    #[test]
    fn roots_that_are_none_are_refused() {
        let refused = |roots: Vec<Vec<u8>>| Trust::only(roots).err().map(|error| error.to_string());
        assert!(refused(vec![b"no certificate".to_vec()]).is_some());
        assert!(refused(vec![]).is_some_and(|error| error.contains("no root certificates")));
        assert_eq!(refused(vec![CA.to_vec()]), None);
    }
}
