//! Changes that clients ask for over REST, on their way to the one thread that makes them.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::Gateway;
use crate::policy::{Edit, EditError};

/// Changes that may wait; more are refused at once.
const WAITING: usize = 1_024;

/// A change and whoever waits for it.
pub struct Job {
    edit: Edit,
    reply: oneshot::Sender<Result<(), ChangeError>>,
}

impl Job {
    pub(super) fn edit(&self) -> &Edit {
        &self.edit
    }

    pub(super) fn answer(self, done: Result<(), ChangeError>) {
        // Whoever asked may have left; what was changed stays changed.
        let _ = self.reply.send(done);
    }
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The rules do not allow it.
    Refused(EditError),
    /// The configuration cannot be changed now; the reason, with what to do.
    Unavailable(String),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Unavailable(reason) => write!(f, "The configuration cannot be changed now: {reason}"),
        }
    }
}

impl std::error::Error for ChangeError {}

/// The queue between those who ask for changes and the one who makes them.
pub(super) fn queue() -> (SyncSender<Job>, Receiver<Job>) {
    sync_channel(WAITING)
}

impl Gateway {
    /// Has a change made. When this returns without an error the change is on the disk and in force; if the caller does
    /// not wait for that, the change may be made all the same.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was changed.
    pub async fn change(&self, edit: Edit) -> Result<(), ChangeError> {
        let (reply, done) = oneshot::channel();
        let unavailable = |reason: &str| ChangeError::Unavailable(reason.to_owned());
        self.jobs.try_send(Job { edit, reply }).map_err(|_| unavailable("too many changes are waiting; try again"))?;
        done.await.unwrap_or_else(|_| Err(unavailable("the gateway is stopping")))
    }
}
