//! `config.toml`: reading it, noticing that it changed, and replacing it.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::StoreError;
use super::replace::{Locked, ReplaceError, replace, sweep, target_of};
use crate::policy::Registry;
use crate::policy::registry::Built;
use crate::wire::config::{Reference, Secrets};

/// How long a file must have rested before it is read again, so that half an edit is not taken for a whole one.
const SETTLE: Duration = Duration::from_millis(50);
/// How many rests a file gets before it is left for the next look.
const SETTLE_TRIES: usize = 10;

/// How long another process may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { modified: metadata.modified().ok(), size: metadata.size(), inode: metadata.ino() }
    }
}

/// What came of reading a file again.
pub enum Reloaded {
    /// It says the same as before, or is still being written and will be looked at again.
    Same,
    /// Nothing is left in it. That is a slip or half an edit, and no configuration without clients.
    Empty,
    /// It says something else.
    Built(Box<Built>),
}

/// A configuration file, and what was last seen of it.
pub struct ConfigFile {
    path: PathBuf,
    /// `None`: could not be looked at.
    seen: Option<Identity>,
    text: String,
}

impl ConfigFile {
    /// Names a file; nothing is read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None, text: String::new() }
    }

    /// The file's path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file looks different from when it was last loaded. Costs one `stat`.
    #[must_use]
    pub fn looks_changed(&self) -> bool {
        self.identity() != self.seen
    }

    /// Reads the file and builds a registry from it.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read. What is wrong with its text is in [`Built::problems`].
    pub fn load(&mut self) -> Result<Built, StoreError> {
        self.seen = self.identity();
        self.text = self.read()?;
        Ok(self.build(&self.text))
    }

    /// The text that was read last.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Locks the file against other gateways that may want to replace it.
    ///
    /// # Errors
    /// [`StoreError`] if there is no file to replace, or the lock cannot be had within 5 s.
    pub fn lock(&self) -> Result<Locked, StoreError> {
        let target = target_of(&self.path)?;
        let locked = Locked::acquire(&target, LOCK_PATIENCE)?;
        sweep(&target);
        Ok(locked)
    }

    /// Reads the file if it says something else than the text that was read last, or `again` if not.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn newest(&mut self, again: bool) -> Result<Reloaded, StoreError> {
        match self.read() {
            Ok(text) if text == self.text && !again => Ok(Reloaded::Same),
            _ => self.reload(again),
        }
    }

    /// Replaces the file, which must still hold the text that was read last; false if it does not. When this returns true
    /// the new text survives the loss of power.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be replaced.
    pub fn replace(&mut self, lock: &Locked, text: String) -> Result<bool, StoreError> {
        match replace(lock, &self.text, &text) {
            Ok(()) => {
                let seen = self.identity();
                // Whoever wrote to it since is noticed at the next look.
                self.seen = seen.filter(|_| self.read().is_ok_and(|now| now == text));
                self.text = text;
                Ok(true)
            }
            Err(ReplaceError::Changed) => Ok(false),
            Err(ReplaceError::Store(error)) => Err(error),
        }
    }

    /// Reads the file again, once it has rested; `again` builds a registry even from the text that was read last.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reload(&mut self, again: bool) -> Result<Reloaded, StoreError> {
        let mut before = self.identity();
        for _ in 0..SETTLE_TRIES {
            std::thread::sleep(SETTLE);
            let after = self.identity();
            if std::mem::replace(&mut before, after) != after {
                continue;
            }
            let text = self.read();
            if self.identity() != after {
                continue;
            }
            self.seen = after;
            let text = text?;
            if text == self.text && !again {
                return Ok(Reloaded::Same);
            }
            if text.is_empty() {
                return Ok(Reloaded::Empty);
            }
            self.text = text;
            return Ok(Reloaded::Built(Box::new(self.build(&self.text))));
        }
        Ok(Reloaded::Same)
    }

    fn read(&self) -> Result<String, StoreError> {
        fs::read_to_string(&self.path).map_err(|source| {
            let error = StoreError::new("read", &self.path, source);
            match error.source.kind() {
                ErrorKind::NotFound => {
                    error.with_hint("name the configuration with --config, or copy config.example.toml")
                }
                _ => error,
            }
        })
    }

    /// Builds a registry from a text, as if it stood in the file.
    #[must_use]
    pub fn build(&self, text: &str) -> Built {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        Registry::load(text, |references| resolve(references, folder))
    }

    fn identity(&self) -> Option<Identity> {
        fs::metadata(&self.path).ok().map(|m| Identity::of(&m))
    }
}

/// Looks up the values that stand outside the configuration; relative paths begin at its folder.
fn resolve(references: &BTreeSet<Reference>, folder: &Path) -> Secrets {
    let mut secrets = Secrets::default();
    for reference in references {
        let value = match reference {
            Reference::Env(name) => {
                std::env::var(name).map_err(|_| format!("environment variable `{name}` is not set or not UTF-8"))
            }
            Reference::File(path) => fs::read_to_string(folder.join(path))
                .map_err(|e| format!("cannot read `{path}`: {}", crate::log::os_error(&e))),
        };
        secrets.insert(reference.clone(), value);
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("mcp-x-file-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_change_is_noticed_and_read() {
        let folder = folder("change");
        let path = folder.join("config.toml");
        fs::write(&path, "[clients.a]\nauth_token = \"1\"\n").unwrap();
        let mut file = ConfigFile::new(&path);
        assert!(file.looks_changed());
        assert!(file.load().unwrap().registry.is_some());
        assert!(!file.looks_changed());
        fs::write(&path, "[clients.b]\nauth_token = \"1\"\n# more\n").unwrap();
        assert!(file.looks_changed());
        assert!(matches!(file.reload(false).unwrap(), Reloaded::Built(built) if built.registry.is_some()));
        fs::remove_file(&path).unwrap();
        assert!(file.looks_changed());
        assert!(file.reload(false).is_err());
        assert!(!file.looks_changed(), "a file that is gone is reported once");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_same_text_is_no_change_and_an_empty_file_is_told_apart() {
        let folder = folder("same");
        let path = folder.join("config.toml");
        fs::write(&path, "# 1\n").unwrap();
        let mut file = ConfigFile::new(&path);
        file.load().unwrap();
        for (text, empty) in [("# 1\n", false), ("", true), ("# 1\n", false)] {
            fs::write(folder.join("new"), text).unwrap();
            fs::rename(folder.join("new"), &path).unwrap();
            assert!(file.looks_changed());
            match file.reload(false).unwrap() {
                Reloaded::Same => assert!(!empty, "{text:?}"),
                Reloaded::Empty => assert!(empty, "{text:?}"),
                Reloaded::Built(_) => panic!("{text:?} is loaded"),
            }
            assert!(!file.looks_changed(), "it is told once");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_being_written_is_left_alone() {
        let folder = folder("writing");
        let path = folder.join("config.toml");
        fs::write(&path, "# 1\n").unwrap();
        let mut file = ConfigFile::new(&path);
        file.load().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let left_alone = std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0_u64.. {
                    fs::write(&path, format!("# {i}")).unwrap();
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            // On a busy machine the writer may be kept from writing for as long as a file has to rest.
            let mut tries = (0..20).map(|_| matches!(file.reload(false), Ok(Reloaded::Same)) && file.looks_changed());
            let left_alone = tries.any(|same| same);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            left_alone
        });
        assert!(left_alone, "it is looked at again");
        assert!(matches!(file.reload(false).unwrap(), Reloaded::Built(_)));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn references_are_resolved_from_files_and_the_environment() {
        let folder = folder("secrets");
        fs::write(folder.join("token"), "abc\n").unwrap();
        let path = folder.join("config.toml");
        fs::write(&path, "[clients.a]\nauth_token_file = \"token\"\n[clients.b]\nauth_token_env = \"MCP_X_NO_SUCH\"\n")
            .unwrap();
        let built = ConfigFile::new(&path).load().unwrap();
        let texts: Vec<String> = built.problems.iter().map(|p| p.display("config.toml").to_string()).collect();
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts[0].contains("`MCP_X_NO_SUCH` is not set"), "{texts:?}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_secret_in_a_file_loses_one_line_end_and_no_more() {
        let folder = folder("line-end");
        for (text, expected) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("abc\n\n", "abc\n"), ("abc", "abc")] {
            fs::write(folder.join("token"), text).unwrap();
            let reference = Reference::File("token".to_owned());
            let secrets = resolve(&BTreeSet::from([reference.clone()]), &folder);
            assert_eq!(secrets.get(&reference).as_deref(), Ok(expected), "{text:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
