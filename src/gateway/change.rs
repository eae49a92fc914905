//! Changes that clients ask for over REST, on their way to the one thread that makes them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use super::Gateway;
use crate::policy::{Caller, Edit, EditError, Registry};
use crate::store::StoreError;

/// Changes that may wait; more are refused at once.
const WAITING: usize = 1_024;

/// On whose behalf a change is made.
#[derive(Clone, Debug)]
pub enum Authority {
    /// A client with the token it has shown.
    Caller(Caller),
    /// Somebody who registers, at a gateway that listens there.
    Registration(SocketAddr),
    /// The gateway itself.
    Gateway,
}

impl Authority {
    /// SECURITY: asked once more when the change is made: the newest text of the file may have revoked the token, or
    /// closed registration, after the request was let in.
    pub(super) fn still_holds(&self, registry: &Registry) -> Result<(), EditError> {
        match self {
            Self::Caller(caller) if !registry.still_knows(caller) => Err(EditError::Stranger),
            Self::Registration(listen) if !registry.settings().registration_open(*listen) => Err(EditError::Closed),
            _ => Ok(()),
        }
    }
}

/// A change and whoever waits for it.
pub struct Job {
    edit: Edit,
    authority: Authority,
    reply: oneshot::Sender<Result<(), ChangeError>>,
}

impl Job {
    pub(super) fn edit(&self) -> &Edit {
        &self.edit
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
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
    /// The configuration cannot be changed now.
    Unavailable(Unavailable),
}

/// Why the configuration cannot be changed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What anybody may know of it.
    public: String,
    /// The whole reason, with names and paths of the operator's, and what to do.
    whole: String,
}

impl Unavailable {
    /// A reason that has nothing of the operator's in it.
    pub(super) fn plain(reason: &str) -> Self {
        Self { public: reason.to_owned(), whole: reason.to_owned() }
    }

    /// A text of the file that cannot be used, or cannot be changed.
    pub(super) fn of_text(whole: String) -> Self {
        let public = "the configuration file has an error, which the gateway's log and GET /status tell the operator";
        Self { public: public.to_owned(), whole }
    }

    /// The whole reason; for the operator's eyes.
    pub(super) fn whole(&self) -> &str {
        &self.whole
    }

    /// The same, shown as a whole; for the operator's eyes.
    #[must_use]
    pub fn in_full(self) -> Self {
        Self { public: self.whole.clone(), whole: self.whole }
    }
}

impl From<StoreError> for Unavailable {
    fn from(error: StoreError) -> Self {
        let public = format!("the configuration file cannot be replaced: {}", crate::log::os_error(&error.source));
        Self { public, whole: error.to_string() }
    }
}

/// SECURITY: shows what anybody may know. The whole reason can name servers and clients that the asker may not know of.
impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
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

/// A change that was asked for.
pub(super) struct Pending(oneshot::Receiver<Result<(), ChangeError>>);

impl Pending {
    pub(super) async fn done(self) -> Result<(), ChangeError> {
        self.0.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> ChangeError {
    ChangeError::Unavailable(Unavailable::plain("the gateway is stopping"))
}

impl Gateway {
    /// Has a change made. When this returns without an error the change is on the disk and in force; if the caller does
    /// not wait for that, the change may be made all the same.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was changed.
    pub async fn change(&self, edit: Edit, authority: Authority) -> Result<(), ChangeError> {
        self.ask(edit, authority)?.done().await
    }

    pub(super) fn ask(&self, edit: Edit, authority: Authority) -> Result<Pending, ChangeError> {
        let (reply, done) = oneshot::channel();
        self.jobs.try_send(Job { edit, authority, reply }).map_err(|error| match error {
            TrySendError::Full(_) => {
                ChangeError::Unavailable(Unavailable::plain("too many changes are waiting; try again"))
            }
            TrySendError::Disconnected(_) => stopping(),
        })?;
        Ok(Pending(done))
    }
}
