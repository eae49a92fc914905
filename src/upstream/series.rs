//! What is counted of one server.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::UpstreamError;
use crate::metrics::{Counter, Histogram, Words};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Result,
    /// With an error of the server's.
    Error,
    /// Without an answer.
    Failed,
    /// Token or grant were taken away while it ran.
    Withdrawn,
    /// Nobody waited for it any more.
    Cancelled,
    /// It was not begun: as many were running as may be.
    Overloaded,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Result, Self::Error, Self::Failed, Self::Withdrawn, Self::Cancelled, Self::Overloaded];

    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Error => "error",
            Self::Failed => "failed",
            Self::Withdrawn => "withdrawn",
            Self::Cancelled => "cancelled",
            Self::Overloaded => "overloaded",
        }
    }
}

/// The counts of one server; they go on when its definition changes, and end when it is removed.
#[derive(Debug)]
pub struct Series {
    /// Calls by [`Outcome`].
    pub calls: Words<Counter>,
    /// Calls without an answer, by [`UpstreamError::kind`].
    pub errors: Words<Counter>,
    /// From a call's beginning to its end, whichever that was.
    pub seconds: Histogram,
    /// Attempts to fetch the catalogue that came to something, and those that did not.
    pub refreshes: Words<Counter>,
    /// When the catalogue was last fetched.
    fetched: Mutex<Option<Instant>>,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            calls: Words::counters(Outcome::ALL.map(Outcome::as_str)),
            errors: Words::counters(UpstreamError::KINDS),
            seconds: Histogram::default(),
            refreshes: Words::counters(["ok", "failed"]),
            fetched: Mutex::default(),
        }
    }
}

impl Series {
    /// Notes an attempt to fetch the catalogue.
    pub(super) fn refreshed(&self, fine: bool) {
        self.refreshes.inc(if fine { "ok" } else { "failed" });
        if fine {
            *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// How long ago the catalogue was fetched; `None` if it never was.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).map(|fetched| fetched.elapsed())
    }
}
