//! Where configuration, secrets and what is known of servers and sessions are kept.
//!
//! Knows files; what is in them is read by `wire::config` and judged by `policy`. Nothing outside this module may assume
//! that there is one writer.

mod catalogues;
mod ends;
mod file;
mod journal;
mod replace;
mod secret;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use self::catalogues::Catalogues;
pub use self::ends::TokenEnds;
pub use self::file::{ConfigFile, Reloaded};
pub use self::journal::{Entry, Journal};
pub use self::replace::Locked;
pub use self::secret::load_or_create as load_secret;

/// A file that could not be read or written.
#[derive(Debug)]
pub struct StoreError {
    /// What was tried, such as `read`.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
    /// What to do, if that is known.
    pub hint: Option<&'static str>,
}

impl StoreError {
    fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source, hint: None }
    }

    fn with_hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = crate::log::os_error(&self.source);
        write!(f, "cannot {} {}: {source}", self.action, self.path.display())?;
        match self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
