//! What can go wrong between the gateway and a server, before anything of MCP is looked at.
//!
//! Names the cause and keeps apart what was certainly never sent from what may have been executed; what the caller
//! of a tool gets to read is decided elsewhere. The texts are for the log: no header value occurs in them.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::vet::Forbidden;

/// Why a request has no answer, or an answer's body no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundError {
    /// The host name has no address.
    Resolve {
        /// The name that was asked for.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// Every address of the host is closed to this reach; the first of them.
    Forbidden(Forbidden),
    /// No address accepted a connection; the first failure.
    Connect {
        /// The address that was tried.
        address: SocketAddr,
        /// How it failed, such as [`io::ErrorKind::ConnectionRefused`].
        kind: io::ErrorKind,
    },
    /// Resolving, connecting and the TLS handshake together took too long.
    ConnectTimeout {
        /// Host and port.
        authority: String,
        /// The time they had.
        limit: Duration,
    },
    /// No TLS connection could be agreed on, or the certificate is not to be trusted.
    Tls {
        /// The host whose certificate was expected.
        host: String,
        /// What was wrong, possibly followed by a `hint:` line.
        reason: String,
    },
    /// The request was written, in whole or in part, and no complete answer came back.
    Lost {
        /// How the connection ended.
        reason: String,
    },
    /// What came back is not HTTP/1.1, or its head is too large.
    Protocol {
        /// What was wrong with it.
        reason: String,
    },
}

impl OutboundError {
    /// Whether the server has certainly not seen a byte of the request, so that it may be sent again.
    #[must_use]
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Forbidden(_)
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. } => true,
            Self::Lost { .. } | Self::Protocol { .. } => false,
        }
    }

    /// The error for a server that accepts connections and closes them before a request is written.
    pub(super) fn closed_at_once(address: SocketAddr) -> Self {
        Self::Connect { address, kind: io::ErrorKind::ConnectionAborted }
    }
}

impl fmt::Display for OutboundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, reason } => write!(f, "cannot resolve `{host}`: {reason}"),
            Self::Forbidden(forbidden) => forbidden.fmt(f),
            Self::Connect { address, kind } => write!(f, "cannot connect to `{address}`: {kind}"),
            Self::ConnectTimeout { authority, limit } => {
                write!(f, "cannot connect to `{authority}` within {limit:?}")
            }
            Self::Tls { host, reason } => write!(f, "no TLS with `{host}`: {reason}"),
            Self::Lost { reason } => write!(f, "connection lost before the end of the answer: {reason}"),
            Self::Protocol { reason } => write!(f, "expected an HTTP/1.1 answer: {reason}"),
        }
    }
}

impl Error for OutboundError {}

impl From<Forbidden> for OutboundError {
    fn from(forbidden: Forbidden) -> Self {
        Self::Forbidden(forbidden)
    }
}

/// For errors after hyper took the request, or within an answer's body.
impl From<hyper::Error> for OutboundError {
    fn from(error: hyper::Error) -> Self {
        let reason = chain(&error);
        if error.is_parse() || error.is_user() || is_malformed(&error) {
            Self::Protocol { reason }
        } else {
            Self::Lost { reason }
        }
    }
}

/// Whether the cause is malformed framing of a body; hyper says so by an I/O error of its own making.
fn is_malformed(error: &hyper::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|io| matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

/// The error's text and those of its causes, outermost first.
fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}
