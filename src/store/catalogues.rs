//! The last known good catalogue of each server, as bytes.
//!
//! Kept in the state folder, so that after a restart a server that is down still holds the names of its tools: one file a
//! server, named by its key. What is in a file is the business of `upstream`; here it is replaced as a whole or not at all.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::replace::{Temporary, create, is_abandoned};
use crate::policy::ServerKey;
use crate::wire::hex;

const FOLDER: &str = "catalogues";

/// The catalogues in a state folder.
pub struct Catalogues(PathBuf);

impl Catalogues {
    /// Those of a state folder; nothing is read yet.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join(FOLDER))
    }

    /// The catalogue of a server, of at most so many bytes; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read or is larger.
    pub fn load(&self, server: &ServerKey, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(server);
        match read(&path, most) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::new("read", &path, error)),
        }
    }

    /// Replaces the catalogue of a server; whatever happens, the file holds the old one or the new one.
    ///
    /// # Errors
    /// [`StoreError`] if the state folder cannot be written to.
    pub fn save(&self, server: &ServerKey, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(server);
        let failed = |error| StoreError::new("write", &path, error);
        let temporary = Temporary(self.0.join(format!(".{}.{:016x}", hex(server), rand::random::<u64>())));
        let file = create(&temporary.0).or_else(|_| {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            create(&temporary.0)
        });
        let filled = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        // The name alone may be lost with the power: then it is the older catalogue that holds the names.
        filled.and_then(|()| fs::rename(&temporary.0, &path)).map_err(failed)
    }

    /// Removes the catalogue of a server that is gone.
    pub fn remove(&self, server: &ServerKey) {
        // What is left behind is removed at the next start.
        let _ = fs::remove_file(self.path(server));
    }

    /// Removes the catalogues of all other servers, and what a process left behind that was killed while it wrote.
    pub fn retain(&self, servers: impl IntoIterator<Item = ServerKey>) {
        let names: HashSet<String> = servers.into_iter().map(|server| hex(&server)).collect();
        let Ok(folder) = fs::read_dir(&self.0) else { return };
        for entry in folder.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let goes = match name.strip_prefix('.').and_then(|name| name.split_once('.')) {
                Some((key, _)) => is_key(key) && is_abandoned(&entry),
                None => is_key(name) && !names.contains(name),
            };
            if goes {
                // Another process may have removed it at the same time.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, server: &ServerKey) -> PathBuf {
        self.0.join(hex(server))
    }
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

fn hex(server: &ServerKey) -> String {
    hex::encode(server.as_bytes())
}

fn is_key(name: &str) -> bool {
    hex::is_encoded(name, 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ServerId;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, SystemTime};

    fn key(name: &str) -> ServerKey {
        ServerKey::of(&ServerId::new(name))
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mcp-x-catalogues-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder.join(FOLDER)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let folder = folder("saved");
        let catalogues = Catalogues::new(&folder);
        let (a, b) = (key("../a"), key("b"));
        assert_eq!(catalogues.load(&a, 9).unwrap(), None);
        catalogues.save(&a, b"one").unwrap();
        catalogues.save(&a, b"two").unwrap();
        catalogues.save(&b, b"").unwrap();
        assert_eq!(catalogues.load(&a, 3).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(catalogues.load(&b, 0).unwrap().as_deref(), Some(&b""[..]));
        let mut expected = [hex(&a), hex(&b)];
        expected.sort();
        assert_eq!(names(&folder), expected, "no temporary file is left");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&catalogues.path(&a)), mode(&catalogues.0)), (0o600, 0o700));
        catalogues.remove(&a);
        catalogues.remove(&a);
        assert_eq!(catalogues.load(&a, 9).unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_too_large_or_no_file_is_an_error() {
        let folder = folder("large");
        let catalogues = Catalogues::new(&folder);
        catalogues.save(&key("a"), b"1234").unwrap();
        let error = catalogues.load(&key("a"), 3).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.ends_with(": larger than 3 bytes"), "{error}");
        fs::create_dir(catalogues.path(&key("b"))).unwrap();
        assert!(catalogues.load(&key("b"), 3).is_err());
        assert!(catalogues.save(&key("b"), b"1").is_err());
        assert_eq!(names(&folder).len(), 2, "no temporary file is left");
        fs::remove_dir_all(folder).unwrap();
        assert!(Catalogues::new(Path::new("/proc/none")).save(&key("a"), b"1").is_err());
    }

    #[test]
    fn what_belongs_to_no_server_is_removed_and_nothing_else() {
        let folder = folder("retain");
        let catalogues = Catalogues::new(&folder);
        catalogues.retain([key("a")]);
        for name in ["a", "b", "c"] {
            catalogues.save(&key(name), b"1").unwrap();
        }
        let with = |name: &str| File::create(catalogues.0.join(name)).unwrap();
        #[expect(clippy::disallowed_methods, reason = "files get old by this clock")]
        let old = SystemTime::now() - Duration::from_secs(600);
        let (killed, writing) = (format!(".{}.0000000000000001", hex(&key("a"))), format!(".{}.2", hex(&key("a"))));
        with(&killed).set_modified(old).unwrap();
        with(&writing);
        with("README").set_modified(old).unwrap();
        catalogues.retain([key("a"), key("c"), key("d")]);
        let mut expected = [writing, hex(&key("a")), hex(&key("c")), "README".to_owned()];
        expected.sort();
        assert_eq!(names(&folder), expected);
        fs::remove_dir_all(folder).unwrap();
    }
}
