//! Why the gateway cannot do what a client asked for.

use std::fmt;

use crate::log::cut;
use crate::outbound::OutboundError;
use crate::upstream::UpstreamError;

/// Why the gateway cannot do what a client asked for. The texts are for the client: nothing of how a server is reached is in them.
#[derive(Clone, Debug, PartialEq)]
pub enum GatewayError {
    /// The parameters have the wrong shape; what was expected.
    InvalidParams(&'static str),
    /// A tool that does not exist or that the client may not use, which reads the same.
    UnknownTool(String),
    /// A header that mirrors an argument does not agree with it.
    HeaderMismatch(String),
    /// As many calls are running as may be.
    Overloaded(&'static str),
    /// All requests together hold as many bytes as they may.
    Full,
    /// The tool's server gave no usable answer.
    Upstream {
        /// The tool, as the client named it.
        tool: String,
        /// What went wrong.
        error: UpstreamError,
    },
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidParams(expected) => write!(f, "invalid params: {expected}"),
            Self::UnknownTool(tool) => write!(f, "unknown tool: `{}`", Shortened(tool)),
            Self::HeaderMismatch(header) => {
                write!(f, "header mismatch: `{header}` does not agree with the argument that it mirrors")
            }
            Self::Overloaded(whose) => {
                write!(f, "overloaded: too many calls of this {whose} are running, try again later")
            }
            Self::Full => f.write_str("overloaded: too much is being transferred, try again later"),
            Self::Upstream { tool, error } => upstream(f, tool, error),
        }
    }
}

fn upstream(f: &mut fmt::Formatter<'_>, tool: &str, error: &UpstreamError) -> fmt::Result {
    let tool = Shortened(tool);
    match error {
        UpstreamError::Unreachable(OutboundError::Protocol { .. }) | UpstreamError::NotMcp(_) => {
            write!(f, "server of tool `{tool}` answered with something that is not MCP")
        }
        UpstreamError::Unreachable(e) if e.never_sent() => write!(f, "server of tool `{tool}` is not reachable"),
        UpstreamError::Suspended { .. } => write!(f, "server of tool `{tool}` is not reachable"),
        UpstreamError::Unreachable(_) | UpstreamError::Ended => {
            write!(f, "connection to the server of tool `{tool}` was lost; the call may have been executed")
        }
        UpstreamError::Silent(limit) => write!(f, "server of tool `{tool}` sent nothing for {} s", limit.as_secs()),
        UpstreamError::TooLong(limit) => {
            write!(f, "call of tool `{tool}` was not finished after {} s", limit.as_secs())
        }
        UpstreamError::TooLarge(limit) => write!(f, "answer of tool `{tool}` is larger than {limit} bytes"),
        UpstreamError::BadStatus(status) => write!(f, "server of tool `{tool}` answered with HTTP status {status}"),
        UpstreamError::Rpc(_) => write!(f, "server of tool `{tool}` refused a session to the gateway"),
        UpstreamError::Unmirrorable(header) => {
            write!(f, "invalid params: tool `{tool}` wants an argument in header `{header}`, which cannot hold it")
        }
        UpstreamError::NeedsInput => {
            write!(f, "server of tool `{tool}` asks for input, which cannot be passed on to its clients")
        }
        UpstreamError::NoRoom => {
            write!(f, "overloaded: no room for the answer of tool `{tool}`; the call may have been executed")
        }
        UpstreamError::Removed => write!(f, "unknown tool: `{tool}`"),
    }
}

/// A name of a client's choice, cut to a length that fits into a message.
struct Shortened<'a>(&'a str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 128;
        f.write_str(cut(self.0, LONGEST))?;
        if self.0.len() > LONGEST { f.write_str("…") } else { Ok(()) }
    }
}

impl std::error::Error for GatewayError {}
