//! What a call in flight was begun with, and its end when that is no longer good.
//!
//! A client that is removed, a token that is revoked or expires, a grant that is taken away: each ends the calls that
//! were begun with it, within a second (design 14).

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::ClientState;
use super::session::Cancel;
use crate::policy::{Caller, Permit, Registry};

/// Why a call was ended before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The token has expired.
    Expired,
    /// Client, token or grant are gone.
    Withdrawn,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the token expired while the call was running; the call may have been executed",
            Self::Withdrawn => "access was taken away while the call was running; the call may have been executed",
        })
    }
}

/// What the calls of one client were begun with.
#[derive(Default)]
pub(super) struct Leases(Mutex<Vec<Arc<Held>>>);

struct Held {
    caller: Caller,
    permit: Permit,
    cancel: Cancel,
}

impl Leases {
    /// Ends the calls that could not be begun under this registry.
    pub(super) fn review(&self, registry: &Registry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|held| held.review(registry));
    }
}

impl Held {
    fn review(&self, registry: &Registry) {
        let (permit, server) = (&self.permit, &self.permit.server().id);
        // A server that is gone takes no rights away: what it was asked before may be answered.
        let gone = registry.server(server).is_none();
        let allowed = gone || registry.decide(permit.client(), server, permit.target()).verdict.is_ok();
        if !registry.still_knows(&self.caller) || !allowed {
            self.cancel.order();
        }
    }
}

/// Held by a call while it runs.
pub(super) struct Lease {
    state: Arc<ClientState>,
    held: Arc<Held>,
    /// Rings when the token expires.
    expiry: Option<Pin<Box<Sleep>>>,
}

impl Lease {
    /// Begins a call; `now` is the time since the epoch.
    pub(super) fn new(state: Arc<ClientState>, caller: Caller, permit: Permit, now: Duration) -> Self {
        let expiry = caller.expires().map(|expires| Box::pin(sleep(expires.saturating_sub(now))));
        let held = Arc::new(Held { caller, permit, cancel: Cancel::default() });
        state.leases.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&held));
        Self { state, held, expiry }
    }

    /// Ends the call if it could not be begun under this registry.
    pub(super) fn review(&self, registry: &Registry) {
        self.held.review(registry);
    }

    /// Ready when the call has to end.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        if self.held.cancel.poll(cx).is_ready() {
            return Poll::Ready(Over::Withdrawn);
        }
        match &mut self.expiry {
            Some(expiry) => expiry.as_mut().poll(cx).map(|()| Over::Expired),
            None => Poll::Pending,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state
            .leases
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|held| !Arc::ptr_eq(held, &self.held));
    }
}
