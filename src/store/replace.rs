//! Replacing a file so that it holds either the old text or the new one, whatever happens in between.
//!
//! The new text is written beside the file, made durable, and renamed over it; the folder is made durable too before
//! anybody is told. An advisory lock keeps two gateways on one file from undoing each other's changes.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;
use crate::wire::hex;

/// How often the lock is asked for again.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);
/// A temporary file that is older than this was left behind by a process that is gone.
const ABANDONED: Duration = Duration::from_secs(60);

const HINT_FOLDER: &str = "the folder has to be writable for the gateway, because the file is replaced as a whole";
const HINT_MOUNT: &str = "the file is replaced as a whole; mount its folder instead of the single file, and writable";
const HINT_OWNER: &str = "give the file to the user the gateway runs as, which then replaces it";
const HINT_READ_ONLY: &str = "the file is read-only; give the gateway's user the right to write to it";
const HINT_LOCK_FILE: &str =
    "give the lock file to the group of everybody who runs a gateway on the file, or remove it";
const HINT_LOCK: &str = "another gateway is changing the file, or hangs; see who holds the lock with `fuser`";

/// Holds the lock on a file that is to be replaced: the file's name and `.lock` behind it. It ends with the process.
pub struct Locked {
    target: PathBuf,
    /// Closing it gives the lock back.
    _lock: File,
}

impl Locked {
    /// Waits for the lock on `target`, at most for `within`.
    ///
    /// # Errors
    /// [`StoreError`] if the lock file cannot be made or somebody else has it for too long.
    pub(super) fn acquire(target: &Path, within: Duration) -> Result<Self, StoreError> {
        let mut name = target.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&path).map_err(|e| match path.exists() {
            true => StoreError::new("open", &path, e).with_hint(HINT_LOCK_FILE),
            false => failed("open", &path, e),
        })?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { target: target.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) if begun.elapsed() < within => std::thread::sleep(LOCK_INTERVAL),
                Err(TryLockError::WouldBlock) => {
                    let late = io::Error::new(ErrorKind::TimedOut, format!("locked for {} s", within.as_secs()));
                    return Err(StoreError::new("lock", &path, late).with_hint(HINT_LOCK));
                }
                Err(TryLockError::Error(error)) => return Err(StoreError::new("lock", &path, error)),
            }
        }
    }
}

/// The file behind a path: links are followed, so that what they lead to is replaced and they stay.
///
/// # Errors
/// [`StoreError`] if there is no such file, or it is something else than a file.
pub(super) fn target_of(path: &Path) -> Result<PathBuf, StoreError> {
    let target = fs::canonicalize(path).map_err(|e| StoreError::new("find", path, e))?;
    let metadata = fs::metadata(&target).map_err(|e| StoreError::new("find", &target, e))?;
    if metadata.is_file() {
        return Ok(target);
    }
    Err(StoreError::new("replace", &target, io::Error::new(ErrorKind::InvalidInput, "not a regular file")))
}

/// Why a file was not replaced.
#[derive(Debug)]
pub(super) enum ReplaceError {
    /// It does not hold what it was expected to.
    Changed,
    /// It could not be.
    Store(StoreError),
}

impl From<StoreError> for ReplaceError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Replaces the file that is locked, which must still hold `expected`, by `text`; keeps its mode and its owner.
///
/// When this returns without an error, the new text survives the loss of power.
///
/// # Errors
/// [`ReplaceError`]; then the file is as it was, but for a failure of the very last step, which says so.
pub(super) fn replace(lock: &Locked, expected: &str, text: &str) -> Result<(), ReplaceError> {
    let target = &lock.target;
    let folder = target.parent().unwrap_or(Path::new("/"));
    let temporary = Temporary(folder.join(format!("{}{:016x}", prefix(target), rand::random::<u64>())));
    let file = create(&temporary.0).map_err(|e| failed("write beside", target, e))?;
    let old = writable(target)?;
    let filled = (&file).write_all(text.as_bytes()).and_then(|()| like(&file, &old)).and_then(|()| file.sync_all());
    filled.map_err(|e| failed("write beside", target, e))?;
    // As late as can be: what somebody writes from here to the next line is lost, and nothing else.
    match fs::read(target) {
        Ok(found) if found == expected.as_bytes() => {}
        Ok(_) => return Err(ReplaceError::Changed),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(ReplaceError::Changed),
        Err(error) => return Err(StoreError::new("read", target, error).into()),
    }
    fs::rename(&temporary.0, target).map_err(|e| failed("replace", target, e))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| {
        StoreError::new("make durable what has replaced", target, e)
            .with_hint("the new text is in the file, but may be lost with the power")
    })?;
    Ok(())
}

/// Creates a file that nobody else may read.
///
/// SECURITY: `create_new` follows no link and takes over no file that somebody has put there.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A file that may be written to. The rename would not ask, but an operator who takes that right away means it, and root
/// is asked as well.
fn writable(target: &Path) -> Result<Metadata, StoreError> {
    let file = OpenOptions::new().write(true).open(target);
    let old = file.and_then(|file| file.metadata()).and_then(|old| match old.mode() & 0o222 {
        0 => Err(io::Error::new(ErrorKind::PermissionDenied, "the file is read-only")),
        _ => Ok(old),
    });
    old.map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => StoreError::new("replace", target, e).with_hint(HINT_READ_ONLY),
        _ => failed("replace", target, e),
    })
}

/// Gives a file the mode and the owner of another.
fn like(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        let refused = |e: io::Error| io::Error::new(e.kind(), OWNER);
        fchown(file, Some(old.uid()), Some(old.gid())).map_err(refused)?;
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))
}

/// What is said when a file cannot be given the owner of the one it is to replace.
const OWNER: &str = "its owner and group cannot be kept";

/// An error with what is to be done about it.
fn failed(action: &'static str, path: &Path, error: io::Error) -> StoreError {
    let hint = match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::ResourceBusy | ErrorKind::CrossesDevices => Some(HINT_MOUNT),
        ErrorKind::PermissionDenied if error.to_string() == OWNER => Some(HINT_OWNER),
        ErrorKind::PermissionDenied => Some(HINT_FOLDER),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("make room; the file is as it was"),
        _ => None,
    };
    let error = StoreError::new(action, path, error);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// A file that is removed unless it was renamed.
pub(super) struct Temporary(pub(super) PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing of this name.
        let _ = fs::remove_file(&self.0);
    }
}

/// What the names of a file's temporaries begin with.
fn prefix(target: &Path) -> String {
    format!(".{}.", target.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes the temporary files that a process left behind which was killed while it replaced `target`.
pub(super) fn sweep(target: &Path) {
    let prefix = prefix(target);
    let Some(Ok(folder)) = target.parent().map(fs::read_dir) else { return };
    for entry in folder.flatten() {
        let name = entry.file_name();
        let suffix = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let ours = suffix.is_some_and(|suffix| hex::is_encoded(suffix, 8));
        if ours && is_abandoned(&entry) {
            // Another process may have removed it at the same time.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a temporary file was left behind by a process that is gone.
pub(super) fn is_abandoned(entry: &fs::DirEntry) -> bool {
    let metadata = entry.metadata().ok().filter(Metadata::is_file);
    let age = metadata.and_then(|metadata| metadata.modified().ok()).and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age > ABANDONED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::SystemTime;

    const WITHIN: Duration = Duration::from_secs(10);

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("mcp-x-replace-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(fs::canonicalize(path).unwrap())
        }

        /// Writes a file and returns its path.
        fn with(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn put(path: &Path, expected: &str, text: &str) -> Result<(), ReplaceError> {
        let target = target_of(path)?;
        replace(&Locked::acquire(&target, WITHIN)?, expected, text)
    }

    #[track_caller]
    fn refused(result: Result<(), ReplaceError>) -> String {
        match result {
            Err(ReplaceError::Store(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it() {
        let folder = Folder::new();
        let path = folder.with("config.toml", "old\r\n");
        for mode in [0o600, 0o640, 0o644] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let expected = fs::read_to_string(&path).unwrap();
            put(&path, &expected, &format!("new {mode}\r\n")).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("new {mode}\r\n"));
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
        assert_eq!(folder.names(), ["config.toml", "config.toml.lock"]);
        assert_eq!(fs::metadata(folder.0.join("config.toml.lock")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_read_only_file_is_left_alone_even_by_root() {
        let folder = Folder::new();
        let path = folder.with("config.toml", "old");
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        let text = refused(put(&path, "old", "new"));
        assert!(text.contains("\nhint: the file is read-only; give the gateway's user the right"), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn an_owner_is_kept() {
        let folder = Folder::new();
        let path = folder.with("config.toml", "old");
        let own = fs::metadata(&path).unwrap();
        // Only root can give a file away; anybody else sees that its own stays its own.
        let other = std::os::unix::fs::chown(&path, Some(12_345), Some(23_456))
            .map_or((own.uid(), own.gid()), |()| (12_345, 23_456));
        put(&path, "old", "new").unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.uid(), after.gid()), other);
    }

    #[test]
    fn links_stay_and_what_they_lead_to_is_replaced() {
        let folder = Folder::new();
        let path = folder.with("real.toml", "0");
        symlink("real.toml", folder.0.join("relative")).unwrap();
        symlink(folder.0.join("relative"), folder.0.join("chain")).unwrap();
        put(&folder.0.join("relative"), "0", "1").unwrap();
        put(&folder.0.join("chain"), "1", "2").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2");
        assert!(fs::symlink_metadata(folder.0.join("relative")).unwrap().is_symlink());
        symlink("nowhere", folder.0.join("dangling")).unwrap();
        assert!(refused(put(&folder.0.join("dangling"), "", "1")).starts_with("cannot find "));
        assert!(refused(put(&folder.0, "", "1")).ends_with("not a regular file"));
    }

    #[test]
    fn what_somebody_else_has_written_is_not_overwritten() {
        let folder = Folder::new();
        let path = folder.with("config.toml", "theirs");
        assert!(matches!(put(&path, "mine", "new"), Err(ReplaceError::Changed)));
        let lock = Locked::acquire(&path, WITHIN).unwrap();
        fs::rename(&path, folder.0.join("moved")).unwrap();
        assert!(replace(&lock, "theirs", "new").is_err());
        assert_eq!(folder.names(), ["config.toml.lock", "moved"]);
    }

    #[test]
    fn a_folder_that_takes_no_files_is_told_with_what_to_do() {
        // Nobody, not even root, can write there.
        let path = Path::new("/proc/self/status");
        let text = refused(put(path, "", "new"));
        assert!(text.starts_with("cannot open /proc/"), "{text}");
        let folder = Folder::new();
        let path = folder.with("config.toml", "old");
        let lock = Locked::acquire(&path, WITHIN).unwrap();
        fs::remove_dir_all(&folder.0).unwrap();
        let text = refused(replace(&lock, "old", "new"));
        assert!(text.starts_with("cannot write beside "), "{text}");
    }

    #[test]
    fn every_known_trouble_has_a_hint() {
        let hint = |kind: ErrorKind| failed("replace", Path::new("/c"), kind.into()).to_string();
        for kind in [ErrorKind::ReadOnlyFilesystem, ErrorKind::ResourceBusy, ErrorKind::CrossesDevices] {
            assert!(hint(kind).contains("mount its folder instead of the single file"), "{kind}");
        }
        assert!(hint(ErrorKind::PermissionDenied).contains("the folder has to be writable"));
        assert!(hint(ErrorKind::StorageFull).contains("make room"));
        let owner = failed("write beside", Path::new("/c"), io::Error::new(ErrorKind::PermissionDenied, OWNER));
        assert!(owner.to_string().contains("its owner and group cannot be kept\nhint: give the file to the user"));
    }

    #[test]
    fn a_lock_is_waited_for_but_not_for_ever() {
        let folder = Folder::new();
        let path = folder.with("config.toml", "");
        let held = Locked::acquire(&path, WITHIN).unwrap();
        let late = Locked::acquire(&path, Duration::from_millis(20)).err().unwrap().to_string();
        assert!(
            late.contains("config.toml.lock: locked for 0 s\nhint: another gateway is changing the file"),
            "{late}"
        );
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Locked::acquire(&path, WITHIN).is_ok());
            std::thread::sleep(Duration::from_millis(20));
            drop(held);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn many_writers_lose_nothing_and_readers_never_see_half_a_file() {
        const WRITERS: usize = 4;
        const ROUNDS: usize = 25;
        let folder = Folder::new();
        let path = folder.with("config.toml", "\n");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(fs::read_to_string(&path).unwrap().ends_with('\n'), "half a file");
                }
            });
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let path = &path;
                    scope.spawn(move || {
                        for round in 0..ROUNDS {
                            let lock = Locked::acquire(path, WITHIN).unwrap();
                            let old = fs::read_to_string(path).unwrap();
                            replace(&lock, &old, &format!("{old}{writer}-{round}\n")).unwrap();
                        }
                    })
                })
                .collect();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), WRITERS * ROUNDS + 1);
    }

    #[test]
    fn what_a_killed_process_left_behind_is_swept_away_and_nothing_else() {
        let folder = Folder::new();
        let path = folder.with("config.toml", "");
        #[expect(clippy::disallowed_methods, reason = "files get old by this clock")]
        let old = SystemTime::now() - ABANDONED * 2;
        let others = [
            ".config.toml.0123456789abcdeg",
            ".config.toml.0123",
            "x.config.toml.0123456789abcdef",
            ".other.0123456789abcdef",
        ];
        for name in others.into_iter().chain([".config.toml.0123456789abcdef"]) {
            File::options().write(true).open(folder.with(name, "")).unwrap().set_modified(old).unwrap();
        }
        folder.with(".config.toml.fedcba9876543210", "young");
        sweep(&path);
        let mut expected: Vec<&str> =
            others.into_iter().chain([".config.toml.fedcba9876543210", "config.toml"]).collect();
        expected.sort_unstable();
        assert_eq!(folder.names(), expected);
    }
}
