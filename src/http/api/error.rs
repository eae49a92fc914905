//! What a REST endpoint cannot do: status and text of each.

use std::fmt;

use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::gateway::ChangeError;
use crate::http::response::{Body, Refusal, detail};
use crate::outbound::OutboundError;
use crate::policy::EditError;
use crate::wire::rest::BodyError;

/// Why a request to a REST endpoint was not served.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The body has no use.
    Body(BodyError),
    /// The query has no use; why.
    Query(String),
    /// The endpoint is for admins.
    AdminsOnly,
    /// Explanations about others are for their servers' owners and for admins.
    NotAboutOthers,
    /// Only registered clients have tokens to refresh.
    NotRefreshable,
    /// As many requests of the client are running as may be.
    Overloaded,
    /// Too many registrations from one address; seconds until the next may succeed.
    TooOften(u64),
    /// A server may not live there.
    Address(OutboundError),
    /// The change was not made.
    Change(ChangeError),
}

impl ApiError {
    /// With everything that an admin may know.
    pub(super) fn in_full(self) -> Self {
        match self {
            Self::Change(ChangeError::Unavailable(reason)) => Self::Change(ChangeError::Unavailable(reason.in_full())),
            other => other,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Body(BodyError::NotJson(_)) => StatusCode::BAD_REQUEST,
            Self::Body(BodyError::Shape(_)) | Self::Query(_) | Self::Address(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::AdminsOnly | Self::NotAboutOthers | Self::NotRefreshable => StatusCode::FORBIDDEN,
            Self::Overloaded | Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Change(ChangeError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Change(ChangeError::Refused(error)) => match error {
                EditError::Stranger => StatusCode::UNAUTHORIZED,
                EditError::NoSuchClient(_) => StatusCode::NOT_FOUND,
                EditError::NameTaken(_) | EditError::InUse => StatusCode::CONFLICT,
                EditError::Closed
                | EditError::OwnsNothing
                | EditError::NotOwned { .. }
                | EditError::NotYours(_)
                | EditError::Everyone
                | EditError::NotYou
                | EditError::Operators(_)
                | EditError::TooMany(..) => StatusCode::FORBIDDEN,
            },
        }
    }

    /// The answer.
    pub(super) fn answer(&self) -> Response<Body> {
        if matches!(self, Self::Change(ChangeError::Refused(EditError::Stranger))) {
            return Refusal::InvalidToken.detail();
        }
        let mut answer = detail(self.status(), &self.to_string());
        let wait = match self {
            Self::TooOften(seconds) => *seconds,
            Self::Overloaded => 1,
            _ => return answer,
        };
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait));
        answer
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(error) => error.fmt(f),
            Self::Query(problem) => f.write_str(problem),
            Self::AdminsOnly => f.write_str("Only admins may use this endpoint"),
            Self::NotAboutOthers => {
                f.write_str("You may ask about yourself, and about others at a server you own: name it with `server`")
            }
            Self::NotRefreshable => f.write_str(
                "Only clients that registered themselves have tokens to refresh; yours is the operator's to change",
            ),
            Self::Overloaded => f.write_str("Too many requests of this client are running, try again later"),
            Self::TooOften(seconds) => write!(f, "Too many registrations from this address, try again in {seconds} s"),
            Self::Address(error) => write!(f, "url: {error}"),
            Self::Change(error) => error.fmt(f),
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        Self::Change(ChangeError::Refused(error))
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}
