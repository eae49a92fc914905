//! Why the gateway cannot do what a client asked for.

use std::fmt;

use hyper::body::Bytes;

use crate::log::cut;
use crate::outbound::OutboundError;
use crate::upstream::UpstreamError;
use crate::wire::json::{Span, members_of, write_text};
use crate::wire::jsonrpc::ErrorObject;
use crate::wire::mcp::{ClientCapabilities, Era, ListKind, code};

/// Why the gateway cannot do what a client asked for. The texts are for the client: nothing of how a server is reached is in them.
#[derive(Clone, Debug, PartialEq)]
pub enum GatewayError {
    /// The parameters have the wrong shape; what was expected.
    InvalidParams(&'static str),
    /// What does not exist or what the client may not use, which reads the same.
    Unknown(Subject),
    /// A task that does not exist, or that the client may not ask for, which reads the same.
    UnknownTask,
    /// The client did not declare what its request needs; modern only.
    MissingCapability(ClientCapabilities),
    /// A header that mirrors an argument does not agree with it.
    HeaderMismatch(String),
    /// As many calls are running as may be.
    Overloaded(&'static str),
    /// All requests together hold as many bytes as they may.
    Full,
    /// The server gave no usable answer.
    Upstream {
        /// What was asked for.
        subject: Subject,
        /// What went wrong.
        error: UpstreamError,
    },
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidParams(expected) => write!(f, "invalid params: {expected}"),
            Self::Unknown(subject) => unknown(f, subject),
            Self::UnknownTask => f.write_str("unknown task"),
            Self::MissingCapability(needed) => {
                write!(f, "the request needs a capability that the client did not declare: {}", needed.to_modern())
            }
            Self::HeaderMismatch(header) => {
                write!(f, "header mismatch: `{header}` does not agree with the argument that it mirrors")
            }
            Self::Overloaded(whose) => {
                write!(f, "overloaded: too many calls of this {whose} are running, try again later")
            }
            Self::Full => f.write_str("overloaded: too much is being transferred, try again later"),
            Self::Upstream { subject, error } => upstream(f, subject, error),
        }
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Of what kind it is.
    pub kind: ListKind,
    /// The name or URI by which the client calls it.
    pub name: String,
}

impl Subject {
    /// The same of a name of the client's choice.
    #[must_use]
    pub fn new(kind: ListKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind.noun(), Shortened(&self.name))
    }
}

/// The code of the error for a resource that is not there, as a client of this era knows it.
pub(super) fn not_found_code(era: Era) -> i64 {
    match era {
        Era::Legacy => code::RESOURCE_NOT_FOUND,
        Era::Modern => code::INVALID_PARAMS,
    }
}

/// The `data` of an error about a resource: which one.
pub(super) fn data_of_uri(uri: &str) -> Bytes {
    let mut data = b"{\"uri\":".to_vec();
    write_text(&mut data, uri);
    data.push(b'}');
    data.into()
}

/// Whether an error says which resource it is about.
pub(super) fn names_uri(error: &ErrorObject) -> bool {
    let data = error.data.as_deref().unwrap_or_default();
    members_of(data, Span { start: 0, end: data.len() }).iter().any(|(key, _)| key == "uri")
}

impl GatewayError {
    /// The error as a client of this era is told it.
    #[must_use]
    pub fn to_rpc(&self, era: Era) -> ErrorObject {
        let (code, data) = match self {
            // A server that was taken out of the configuration is as unknown as what it had.
            Self::Unknown(subject) | Self::Upstream { subject, error: UpstreamError::Removed } => match subject.kind {
                ListKind::Resources => (not_found_code(era), Some(data_of_uri(&subject.name))),
                ListKind::Tools | ListKind::Prompts | ListKind::Templates => (code::INVALID_PARAMS, None),
            },
            Self::MissingCapability(needed) => {
                let data = format!(r#"{{"requiredCapabilities":{}}}"#, needed.to_modern());
                (code::MISSING_CAPABILITY, Some(data.into()))
            }
            Self::InvalidParams(_)
            | Self::UnknownTask
            | Self::Upstream { error: UpstreamError::Unmirrorable(_), .. } => (code::INVALID_PARAMS, None),
            Self::HeaderMismatch(_) => (code::HEADER_MISMATCH, None),
            Self::Overloaded(_) | Self::Full | Self::Upstream { .. } => (code::INTERNAL_ERROR, None),
        };
        ErrorObject { code, message: self.to_string(), data }
    }
}

fn unknown(f: &mut fmt::Formatter<'_>, subject: &Subject) -> fmt::Result {
    write!(f, "unknown {}: `{}`", subject.kind.noun(), Shortened(&subject.name))
}

fn upstream(f: &mut fmt::Formatter<'_>, subject: &Subject, error: &UpstreamError) -> fmt::Result {
    let deed = if subject.kind == ListKind::Tools { "call of" } else { "request for" };
    match error {
        UpstreamError::Unreachable(OutboundError::Protocol { .. }) | UpstreamError::NotMcp(_) => {
            write!(f, "server of {subject} answered with something that is not MCP")
        }
        UpstreamError::Unreachable(e) if e.never_sent() => write!(f, "server of {subject} is not reachable"),
        UpstreamError::Suspended { .. } => write!(f, "server of {subject} is not reachable"),
        UpstreamError::Unreachable(_) | UpstreamError::Ended => {
            write!(f, "connection to the server of {subject} was lost; the call may have been executed")
        }
        UpstreamError::Silent(limit) => write!(f, "server of {subject} sent nothing for {} s", limit.as_secs()),
        UpstreamError::TooLong(limit) => {
            write!(f, "{deed} {subject} was not finished after {} s", limit.as_secs())
        }
        UpstreamError::TooLarge(limit) => write!(f, "answer of {subject} is larger than {limit} bytes"),
        UpstreamError::BadStatus(status) => write!(f, "server of {subject} answered with HTTP status {status}"),
        UpstreamError::Rpc(_) => write!(f, "server of {subject} refused a session to the gateway"),
        UpstreamError::Unmirrorable(header) => {
            write!(f, "invalid params: {subject} wants an argument in header `{header}`, which cannot hold it")
        }
        UpstreamError::NeedsInput => {
            write!(f, "server of {subject} asks for input, which cannot be passed on to its clients")
        }
        UpstreamError::NoRoom => {
            write!(f, "overloaded: no room for the answer of {subject}; the call may have been executed")
        }
        UpstreamError::Removed => unknown(f, subject),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_reads_the_same_whatever_the_cause() {
        for (kind, legacy, data) in [
            (ListKind::Tools, code::INVALID_PARAMS, None),
            (ListKind::Prompts, code::INVALID_PARAMS, None),
            (ListKind::Resources, code::RESOURCE_NOT_FOUND, Some(data_of_uri("x"))),
            (ListKind::Templates, code::INVALID_PARAMS, None),
        ] {
            let subject = Subject::new(kind, "x");
            let removed = GatewayError::Upstream { subject: subject.clone(), error: UpstreamError::Removed };
            for error in [GatewayError::Unknown(subject), removed] {
                for (era, code) in [(Era::Legacy, legacy), (Era::Modern, code::INVALID_PARAMS)] {
                    let message = format!("unknown {}: `x`", kind.noun());
                    assert_eq!(
                        error.to_rpc(era),
                        ErrorObject { code, message, data: data.clone() },
                        "{kind:?} {era:?}"
                    );
                }
            }
        }
    }
}
