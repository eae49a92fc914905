//! TLS in front of a server that has none, with the certificates of `fixtures/tls`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use mcp_x_fixture::{Listening, Port};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

pub(crate) const CA: &[u8] = include_bytes!("../../../fixtures/tls/ca.der");
/// An authority that has signed nothing.
pub(crate) const STRANGER: &[u8] = include_bytes!("../../../fixtures/tls/stranger.der");
/// Signed by [`CA`], for `localhost`.
pub(crate) const GOOD: &[u8] = include_bytes!("../../../fixtures/tls/good.der");
/// Signed by [`CA`], for `localhost`, and out of date.
pub(crate) const EXPIRED: &[u8] = include_bytes!("../../../fixtures/tls/expired.der");
const KEY: &[u8] = include_bytes!("../../../fixtures/tls/server.key.der");

/// A listener that speaks TLS and passes what is said on; ends, with its connections, when it is dropped.
pub(crate) struct Tls {
    /// Held while the certificate is changed, too.
    port: Port,
    behind: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>, Listening)>,
}

impl Tls {
    pub(crate) fn in_front_of(behind: SocketAddr, certificate: &'static [u8]) -> Self {
        let port = Port::reserve(([127, 0, 0, 1], 0).into()).unwrap();
        let mut tls = Self { port, behind, running: None };
        tls.start(certificate);
        tls
    }

    /// The port to which a URL has to lead.
    pub(crate) fn port(&self) -> u16 {
        self.port.address().port()
    }

    /// Closes every connection and comes back with another certificate.
    pub(crate) fn change_certificate(&mut self, certificate: &'static [u8]) {
        self.stop();
        self.start(certificate);
    }

    fn start(&mut self, certificate: &'static [u8]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.port.address())).unwrap();
        let listening = Listening::of(&listener).unwrap();
        let (acceptor, behind) = (acceptor(certificate), self.behind);
        let (sender, stopped) = oneshot::channel();
        // The runtime is dropped with its tasks, which closes the connections.
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, acceptor, behind) => {}
                }
            });
        });
        self.running = Some((sender, thread, listening));
    }

    fn stop(&mut self) {
        if let Some((sender, thread, listening)) = self.running.take() {
            drop(sender);
            thread.join().unwrap();
            listening.end();
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, behind: SocketAddr) {
    while let Ok((outside, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not like the certificate goes away.
            let Ok(mut outside) = acceptor.accept(outside).await else { return };
            let mut inside = TcpStream::connect(behind).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        });
    }
}

fn acceptor(certificate: &'static [u8]) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], PrivatePkcs8KeyDer::from(KEY.to_vec()).into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
