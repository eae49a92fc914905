//! The places for journals in a folder: a file each, and a lock beside it that says whether a process writes there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Processes that can keep something in one folder at the same time.
pub(super) const SLOTS: usize = 64;

/// One of the places.
pub(super) struct Slot {
    /// The journal.
    pub(super) path: PathBuf,
}

/// A place that is this process's own, until it is dropped or the process ends.
pub(super) struct Own {
    /// The journal.
    pub(super) path: PathBuf,
    _lock: File,
}

impl Slot {
    pub(super) fn new(folder: &Path, number: usize) -> Self {
        Self { path: folder.join(format!("journal-{number}")) }
    }

    /// Takes the place; `None` if another process has it.
    ///
    /// The lock is a file of its own, which stays: the journal itself is replaced and removed.
    ///
    /// # Errors
    /// What the system says if there can be no lock.
    pub(super) fn take(&self) -> io::Result<Option<Own>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(self.path.with_extension("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Own { path: self.path.clone(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The journal as it is now, of at most so many bytes; nothing if there is none.
    ///
    /// # Errors
    /// What the system says if it cannot be read; also if it is larger, or no file.
    pub(super) fn read(&self, most: u64) -> io::Result<Option<Vec<u8>>> {
        match read(&self.path, most) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: what is no file may keep whoever opens it waiting.
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    // One that another process writes may have grown meanwhile.
    if found.len() <= most {
        File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    }
    if found.len().max(bytes.len() as u64) > most {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

impl Own {
    /// Where a new journal is written before it takes the place of the old one.
    pub(super) fn beside(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    /// Removes the journal, whose records are in another one.
    pub(super) fn clear(&self) {
        // What is left behind is read once more at the next start.
        let _ = fs::remove_file(&self.path);
    }
}
