//! When the last token of each registered client ends.
//!
//! Kept in the state folder, because every gateway on it has to know before one of them takes a client for abandoned,
//! after a restart as well: one empty file a client, whose time of modification is the end.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::StoreError;
use crate::wire::hex;

const FOLDER: &str = "token_ends";

/// The ends of tokens, as every gateway on a state folder knows them.
pub struct TokenEnds(PathBuf);

impl TokenEnds {
    /// Those of a state folder; nothing is read yet.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join(FOLDER))
    }

    /// When the last token of a client ends, since the epoch, as far as anybody has noted it.
    #[must_use]
    pub fn of(&self, client: &str) -> Option<Duration> {
        let modified = fs::metadata(self.path(client)).and_then(|file| file.modified()).ok()?;
        modified.duration_since(SystemTime::UNIX_EPOCH).ok()
    }

    /// Notes that a token of a client ends at this time, since the epoch, unless another one ends later.
    ///
    /// # Errors
    /// [`StoreError`] if the state folder cannot be written to.
    pub fn note(&self, client: &str, ends: Duration) -> Result<(), StoreError> {
        if self.of(client).is_some_and(|noted| noted >= ends) {
            return Ok(());
        }
        let path = self.path(client);
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file: std::io::Result<File> = open().or_else(|_| fs::create_dir_all(&self.0).and_then(|()| open()));
        file.and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH + ends))
            .map_err(|e| StoreError::new("note the end of a token in", &path, e))
    }

    /// Forgets a client that is gone.
    pub fn forget(&self, client: &str) {
        // What is left behind is an empty file.
        let _ = fs::remove_file(self.path(client));
    }

    /// SECURITY: a client's name may hold anything, and is no name for a file.
    fn path(&self, client: &str) -> PathBuf {
        let digest: [u8; 32] = Sha256::digest(client).into();
        self.0.join(hex::encode(&digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_end_is_kept_for_everybody_on_the_folder() {
        let folder = std::env::temp_dir().join(format!("mcp-x-ends-{}", std::process::id()));
        let (one, other) = (TokenEnds::new(&folder), TokenEnds::new(&folder));
        let seconds = Duration::from_secs;
        assert_eq!(one.of("../a"), None);
        one.note("../a", seconds(2_000_000_000)).unwrap();
        other.note("../a", seconds(1_900_000_000)).unwrap();
        assert_eq!(other.of("../a"), Some(seconds(2_000_000_000)));
        assert_eq!(other.of("b"), None);
        other.forget("../a");
        assert_eq!(one.of("../a"), None);
        fs::remove_dir_all(folder).unwrap();
        assert!(TokenEnds::new(Path::new("/proc/none")).note("a", seconds(1)).is_err());
    }
}
