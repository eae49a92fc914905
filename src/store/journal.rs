//! What is known of sessions, as short texts by key, kept so that `kill -9` loses nothing of it.
//!
//! A change is appended to a file in the state folder before whoever made it goes on; once a second what was appended is
//! made durable, so that the loss of power costs a second at most. Every process writes a file of its own, and reads those
//! of all others at its start: the newest record of a key counts, whoever wrote it. What the keys and texts mean is the
//! business of others; here they are kept until a time that they say, or until they are forgotten.
//!
//! | file | holds |
//! |---|---|
//! | `record` | the lines of a file |
//! | `slot` | which file is whose |

mod record;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::record::{Kept, OtherFormat, Record};
use self::slot::{Own, SLOTS, Slot};
use super::replace::{Temporary, create};
use crate::log::{Log, os_error};

const FOLDER: &str = "sessions";
/// A file is not worth rewriting before it is this long, in bytes.
const SMALL: u64 = 64 * 1024;
/// Bytes of the lines that count, at most.
const MOST_LIVE: u64 = 128 * 1024 * 1024;
/// Bytes of a file, at most; one that is longer nobody has written here.
const MOST_FILE: u64 = 4 * MOST_LIVE;

/// The texts that are kept, and the file that outlives the process. Shared by all threads.
pub struct Journal {
    /// This process's place on the disk; `None` if there can be none.
    own: Option<Own>,
    state: Mutex<State>,
    /// Bytes of the lines that count, at most.
    most: u64,
    now: fn() -> Duration,
    log: Log,
}

#[derive(Default)]
struct State {
    texts: BTreeMap<Box<str>, Text>,
    /// When the last record was written, by anybody that is known here.
    last: u64,
    /// Bytes of the lines that count.
    live: u64,
    /// Bytes of the file.
    written: u64,
    /// Where records are appended; `None` until the file was written for the first time.
    file: Option<Arc<File>>,
    /// Whether something was appended that is not durable yet.
    dirty: bool,
    /// Whether the file lacks something, so that it has to be written anew.
    behind: bool,
    /// Whether it was told that nothing can be written.
    told: bool,
    /// Whether it was told that no more can be kept.
    told_full: bool,
    /// What was appended since somebody began to write the file anew.
    aside: Option<Vec<u8>>,
    /// Places of processes that are gone; what they left behind goes once it is in the own file.
    absorbed: Vec<Own>,
}

/// A text that is kept.
#[derive(Clone)]
struct Text {
    value: Box<str>,
    /// Seconds since the epoch.
    until: u64,
    /// When it was written, in microseconds since the epoch.
    at: u64,
    /// Bytes of its line.
    length: u64,
}

impl Journal {
    /// Reads what every process has kept in a state folder, and begins a file of this process's own. `now` is the time
    /// since the epoch. Whatever the disk is like, there is a journal then; one that cannot be written is told to the log.
    #[must_use]
    pub fn open(state_dir: &Path, now: fn() -> Duration, log: Log) -> Self {
        let folder = state_dir.join(FOLDER);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        let found = made.map_or_else(Found::nothing, |()| Found::in_folder(&folder, &log));
        let Found { newest, own, absorbed, trouble } = found;
        let journal = Self { own, state: Mutex::default(), most: MOST_LIVE, now, log };
        let mut state = journal.state();
        state.absorbed = absorbed;
        for record in newest.into_values() {
            state.last = state.last.max(record.at);
            if let Some(Kept { value, until }) = record.kept {
                let length = record::kept(record.at, until, &record.key, &value).len() as u64;
                let text = Text { value: value.into(), until, at: record.at, length };
                state.set(&record.key, Some(text));
            }
        }
        if journal.own.is_none() {
            let none_free = io::Error::other(format!("{SLOTS} gateways write there already"));
            let reason = trouble.unwrap_or(none_free);
            journal.tell(&mut state, &folder, &reason);
        }
        drop(state);
        journal.rewrite();
        journal
    }

    /// The time since the epoch.
    #[must_use]
    pub fn now(&self) -> Duration {
        (self.now)()
    }

    /// Keeps a text under a key until then, since the epoch, in place of the one before. When this returns, the end of the
    /// process does not lose it. If there is no room for it, nothing is kept under the key.
    pub fn put(&self, key: &str, value: &str, until: Duration) {
        let mut state = self.state();
        let (at, until) = (self.tick(&mut state), until.as_secs());
        let line = record::kept(at, until, key, value);
        if state.live + line.len() as u64 > self.most {
            self.tell_full(&mut state);
            return self.forget(&mut state, key);
        }
        state.set(key, Some(Text { value: value.into(), until, at, length: line.len() as u64 }));
        self.append(&mut state, &line);
    }

    /// Forgets what is kept under a key.
    pub fn remove(&self, key: &str) {
        self.forget(&mut self.state(), key);
    }

    fn forget(&self, state: &mut State, key: &str) {
        if state.set(key, None) {
            let at = self.tick(state);
            self.append(state, &record::forgotten(at, key));
        }
    }

    /// Forgets all that is kept under keys that begin so.
    pub fn remove_under(&self, prefix: &str) {
        for Entry { key, .. } in self.under(prefix) {
            self.remove(&[prefix, &key].concat());
        }
    }

    /// What is kept under keys that begin so, in their order.
    #[must_use]
    pub fn under(&self, prefix: &str) -> Vec<Entry> {
        let now = self.now().as_secs();
        let state = self.state();
        let from = state.texts.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let under = from.map_while(|(key, text)| Some((key.strip_prefix(prefix)?, text)));
        let good = under.filter(|(_, text)| text.until > now);
        let entry = |(key, text): (&str, &Text)| Entry {
            key: key.to_owned(),
            value: text.value.to_string(),
            until: Duration::from_secs(text.until),
        };
        good.map(entry).collect()
    }

    /// Makes durable what was appended, and writes the file anew if that is due. To be called once a second, from where
    /// one may wait for a disk.
    pub fn tend(&self) {
        let mut state = self.state();
        if state.behind || state.written > state.live.saturating_mul(2).max(SMALL) {
            drop(state);
            self.rewrite();
            state = self.state();
        }
        // If it could not be written anew, the old one is still the one that counts.
        let Some(file) = state.file.clone().filter(|_| state.dirty && !state.behind) else { return };
        state.dirty = false;
        drop(state);
        if let (Err(error), Some(own)) = (file.sync_data(), &self.own) {
            let mut state = self.state();
            // What of it is on the disk nobody knows.
            state.behind = true;
            self.tell(&mut state, &own.path, &error);
        }
    }

    /// The time of a record that is made now.
    fn tick(&self, state: &mut State) -> u64 {
        let now = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        // Later than all others even if the clock was set back.
        state.last = now.max(state.last.saturating_add(1));
        state.last
    }

    fn append(&self, state: &mut State, line: &[u8]) {
        if let Some(aside) = &mut state.aside {
            aside.extend_from_slice(line);
        }
        let Some(file) = state.file.as_deref().filter(|_| !state.behind) else { return };
        state.dirty = true;
        let fits = state.written + line.len() as u64 <= MOST_FILE;
        let appended = if fits { { file }.write_all(line) } else { Err(io::ErrorKind::FileTooLarge.into()) };
        match appended {
            Ok(()) => state.written += line.len() as u64,
            Err(error) => {
                // A part of the line may be there, and everything else that belongs behind it is missing.
                state.behind = true;
                if let Some(own) = &self.own {
                    self.tell(state, &own.path, &error);
                }
            }
        }
    }

    /// Replaces the file by one that holds what counts and nothing else. What is appended meanwhile is in both.
    fn rewrite(&self) {
        let Some(own) = &self.own else { return };
        let texts = {
            let mut state = self.state();
            state.drop_outdated(self.now().as_secs());
            state.aside = Some(Vec::new());
            // Nobody is to wait until the lines are made.
            state.texts.clone()
        };
        let text = whole(&texts);
        let temporary = Temporary(own.beside());
        let filled = begin(&temporary.0, &text);
        let mut state = self.state();
        let aside = state.aside.take().unwrap_or_default();
        let replaced = filled.and_then(|mut file| {
            file.write_all(&aside)?;
            fs::rename(&temporary.0, &own.path)?;
            Ok(file)
        });
        match replaced {
            Err(error) => {
                state.behind |= state.file.is_none();
                return self.tell(&mut state, &own.path, &error);
            }
            Ok(file) => {
                state.file = Some(Arc::new(file));
                state.written = (text.len() + aside.len()) as u64;
                (state.dirty, state.behind) = (!aside.is_empty(), false);
            }
        }
        if std::mem::take(&mut state.told) {
            self.log.info("sessions kept again", |r| _ = r.field("file", own.path.display()));
        }
        let absorbed = std::mem::take(&mut state.absorbed);
        drop(state);
        // Should the power be lost before, it is the old file that is there.
        if own.path.parent().is_some_and(|folder| File::open(folder).and_then(|f| f.sync_all()).is_ok()) {
            absorbed.iter().for_each(Own::clear);
        }
    }

    /// Tells that nothing can be written, the first time.
    fn tell(&self, state: &mut State, path: &Path, reason: &io::Error) {
        if !std::mem::replace(&mut state.told, true) {
            self.log.warn("sessions not kept", |r| {
                r.field("file", path.display()).field("reason", os_error(reason));
            });
        }
    }

    /// Tells that no more can be kept, the first time.
    fn tell_full(&self, state: &mut State) {
        if let Some(own) = self.own.as_ref().filter(|_| !std::mem::replace(&mut state.told_full, true)) {
            self.log.warn("sessions not kept", |r| {
                r.field("file", own.path.display())
                    .field("reason", format_args!("{} bytes are kept already", self.most));
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key, without the beginning that was asked for.
    pub key: String,
    /// The text.
    pub value: String,
    /// How long it is good for, since the epoch.
    pub until: Duration,
}

impl State {
    /// Puts a text under a key, or nothing; tells whether there was one.
    fn set(&mut self, key: &str, text: Option<Text>) -> bool {
        self.live += text.as_ref().map_or(0, |text| text.length);
        let before = match text {
            Some(text) => self.texts.insert(key.into(), text),
            None => self.texts.remove(key),
        };
        self.live -= before.as_ref().map_or(0, |before| before.length);
        before.is_some()
    }

    fn drop_outdated(&mut self, now: u64) {
        let live = &mut self.live;
        self.texts.retain(|_, text| {
            let stays = text.until > now;
            if !stays {
                *live -= text.length;
            }
            stays
        });
    }
}

/// A file that holds every text.
fn whole(texts: &BTreeMap<Box<str>, Text>) -> Vec<u8> {
    let mut whole = record::header();
    for (key, text) in texts {
        whole.extend(record::kept(text.at, text.until, key, &text.value));
    }
    whole
}

/// What is found in a folder at the start.
#[derive(Default)]
struct Found {
    newest: HashMap<String, Record>,
    /// The first place that is free.
    own: Option<Own>,
    /// The other places that processes have left.
    absorbed: Vec<Own>,
    /// Why a place could not be taken.
    trouble: Option<io::Error>,
}

impl Found {
    fn nothing(trouble: io::Error) -> Self {
        Self { trouble: Some(trouble), ..Self::default() }
    }

    fn in_folder(folder: &Path, log: &Log) -> Self {
        let mut found = Self::default();
        for number in 0..SLOTS {
            let slot = Slot::new(folder, number);
            if found.own.is_none() || slot.path.exists() {
                found.look_at(&slot, log);
            }
        }
        found
    }

    /// Reads the journal of a place, and takes the place if nobody else has it.
    fn look_at(&mut self, slot: &Slot, log: &Log) {
        let taken = slot.take().unwrap_or_else(|error| {
            self.trouble.get_or_insert(error);
            None
        });
        let fits = self.read(slot, taken.is_some(), log);
        match taken.filter(|_| fits) {
            Some(own) if self.own.is_none() => self.own = Some(own),
            absorbed => self.absorbed.extend(absorbed),
        }
    }

    /// Reads a journal; false if it is one to be left alone. The last line of one that another process writes may be
    /// on its way.
    fn read(&mut self, slot: &Slot, own: bool, log: &Log) -> bool {
        let ignored = |reason: String| {
            log.warn("kept sessions ignored", |r| {
                r.field("file", slot.path.display()).field("reason", reason);
            });
            false
        };
        let (records, damaged) = match slot.read(MOST_FILE) {
            Err(error) => return ignored(os_error(&error)),
            Ok(bytes) => match record::read(&bytes.unwrap_or_default()) {
                Err(OtherFormat) => return ignored(format!("expected format {}", record::FORMAT)),
                Ok(read) => read,
            },
        };
        if damaged > 0 && own {
            log.warn("kept sessions damaged", |r| {
                r.field("file", slot.path.display()).number("lines", damaged as u64);
            });
        }
        for record in records {
            if self.newest.get(&record.key).is_none_or(|known| known.at <= record.at) {
                self.newest.insert(record.key.clone(), record);
            }
        }
        true
    }
}

/// Writes the beginning of a new file, and makes it durable.
fn begin(path: &Path, text: &[u8]) -> io::Result<File> {
    // Left behind by a process that was killed; the place is this one's now.
    let _ = fs::remove_file(path);
    let mut file = create(path)?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(file)
}
