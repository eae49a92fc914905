//! Why a server gave no usable answer.

use std::fmt;
use std::time::Duration;

use crate::outbound::OutboundError;
use crate::wire::jsonrpc::ErrorObject;
use crate::wire::sse::SseError;

/// Why a server gave no usable answer. The texts are for the log and for a server's owner, not for every client.
#[derive(Clone, Debug, PartialEq)]
pub enum UpstreamError {
    /// No connection, or one that broke.
    Unreachable(OutboundError),
    /// Nothing came for longer than the limit.
    Silent(Duration),
    /// The call as a whole took longer than the limit.
    TooLong(Duration),
    /// The answer is larger than the limit, in bytes.
    TooLarge(usize),
    /// An HTTP status that is not an answer.
    BadStatus(u16),
    /// Something that is not MCP: what was expected and what was found.
    NotMcp(String),
    /// The answer ended before the response was there.
    Ended,
    /// A JSON-RPC error that refuses a session or a list.
    Rpc(ErrorObject),
    /// The server asks for input before it goes on.
    NeedsInput,
    /// An argument cannot be mirrored in this header, as the tool wants it.
    Unmirrorable(String),
    /// Nothing was sent: the server could not be reached before, and was not tried again.
    Suspended {
        /// Time until it is.
        until_probe: Duration,
        /// Why it could not be reached.
        reason: OutboundError,
    },
    /// The server was taken out of the configuration.
    Removed,
    /// All requests together hold as many bytes as they may; there is no room for the answer.
    NoRoom,
}

impl UpstreamError {
    /// Every kind.
    pub const KINDS: [&'static str; 14] = [
        "no_connection",
        "lost",
        "silent",
        "too_long",
        "too_large",
        "status",
        "not_mcp",
        "ended",
        "refused",
        "removed",
        "no_room",
        "needs_input",
        "unmirrorable",
        "suspended",
    ];

    /// What kind of error it is, in one word of [`KINDS`](Self::KINDS).
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(OutboundError::Protocol { .. }) | Self::NotMcp(_) => "not_mcp",
            Self::Unreachable(error) if error.never_sent() => "no_connection",
            Self::Unreachable(_) => "lost",
            Self::Silent(_) => "silent",
            Self::TooLong(_) => "too_long",
            Self::TooLarge(_) => "too_large",
            Self::BadStatus(_) => "status",
            Self::Ended => "ended",
            Self::Rpc(_) => "refused",
            Self::Removed => "removed",
            Self::NoRoom => "no_room",
            Self::NeedsInput => "needs_input",
            Self::Unmirrorable(_) => "unmirrorable",
            Self::Suspended { .. } => "suspended",
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(e) => e.fmt(f),
            Self::Silent(limit) => write!(f, "no answer for {} s", limit.as_secs()),
            Self::TooLong(limit) => write!(f, "not finished after {} s", limit.as_secs()),
            Self::TooLarge(limit) => write!(f, "answer larger than {limit} bytes"),
            Self::BadStatus(status) => write!(f, "HTTP status {status}"),
            Self::NotMcp(what) => f.write_str(what),
            Self::Ended => f.write_str("the answer ended before the response"),
            Self::Rpc(e) => e.fmt(f),
            Self::NeedsInput => f.write_str("the server asks for input"),
            Self::Unmirrorable(header) => write!(f, "an argument cannot be sent as header `{header}`"),
            Self::Suspended { until_probe, reason } => {
                write!(f, "breaker open, next probe in {} ms: {reason}", until_probe.as_millis())
            }
            Self::Removed => f.write_str("no longer configured"),
            Self::NoRoom => f.write_str("no room for the answer: max_buffered_bytes are held"),
        }
    }
}

impl std::error::Error for UpstreamError {}

impl From<OutboundError> for UpstreamError {
    fn from(error: OutboundError) -> Self {
        Self::Unreachable(error)
    }
}

impl From<SseError> for UpstreamError {
    fn from(error: SseError) -> Self {
        match error {
            SseError::TooLarge { limit } => Self::TooLarge(limit),
            SseError::NotUtf8 => Self::NotMcp(error.to_string()),
        }
    }
}
