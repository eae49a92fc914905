//! The one thread that changes the configuration: it follows the file and stores what REST asks for.
//!
//! A good edit of the file is in force within two seconds; a bad one is reported with every problem, and the last good one
//! stays, as it does when the file is gone, unreadable or empty. A change over REST is made to the newest text of the
//! file, so that it never undoes a hand edit; changes that wait are stored together, and each is answered only when it
//! is on the disk and in force. Registries are built and dropped here, because both take long when they are large.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::change::{ChangeError, Job, Unavailable};
use super::{Gateway, Loaded};
use crate::log::{Level, Log};
use crate::policy::{Draft, Registry};
use crate::shutdown::Shutdown;
use crate::store::{ConfigFile, Locked, Reloaded, StoreError};
use crate::time::Timestamp;
use crate::wire::config::{self, Change, Problem, Settings, Severity};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often a text that was refused is tried again: what it needs of files beside it may have come.
const RETRY: Duration = Duration::from_secs(10);
/// How often the stop is looked at in between.
const STEP: Duration = Duration::from_millis(100);
/// Changes that are stored together.
const BATCH: usize = 256;
/// How often a change is begun again because somebody else has changed the file meanwhile.
const TRIES: usize = 3;
/// Bytes up to which changes over REST let the file grow.
const LARGEST: usize = 32 * 1024 * 1024;

/// Follows the file, and changes it, until the stop.
pub struct Writer {
    /// Whom to tell.
    pub gateway: Arc<Gateway>,
    /// What REST asks for.
    pub jobs: Receiver<Job>,
    /// The file, loaded once already.
    pub file: ConfigFile,
    /// Where to say what happened.
    pub log: Log,
    /// The clock, which is the caller's.
    pub now: fn() -> Duration,
}

/// Why nothing could be stored.
enum Failure {
    /// The file is not as it was read; a fresh start may help.
    Changed,
    /// The file cannot be used or replaced.
    File(Unavailable),
    /// One of the changes cannot be made to this text.
    Edit(Unavailable),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::File(error.into())
    }
}

/// What became of each of several changes.
type Outcomes = Vec<Result<(), ChangeError>>;

impl Writer {
    /// Looks at the file once a second, reads it again and changes it when asked to, until the stop.
    pub fn run(mut self, stop: &Shutdown) {
        let mut retired: Vec<Arc<Registry>> = Vec::new();
        let (mut looked, mut tried) = (Instant::now(), Instant::now());
        loop {
            match self.jobs.recv_timeout(STEP) {
                Ok(first) => retired.extend(self.change(first)),
                Err(RecvTimeoutError::Timeout) if !stop.ordered() => {}
                Err(_) => return,
            }
            let asked = self.gateway.reload.swap(false, Ordering::Relaxed);
            if asked || looked.elapsed() >= INTERVAL {
                looked = Instant::now();
                let again = asked || (self.gateway.is_refused() && tried.elapsed() >= RETRY);
                if again || self.file.looks_changed() {
                    tried = Instant::now();
                    let reloaded = self.file.reload(again);
                    retired.extend(self.take(reloaded).ok().flatten());
                }
                // Dropped here, and not by whichever request happens to be the last to hold one.
                retired.retain(|registry| Arc::strong_count(registry) > 1);
            }
        }
    }

    /// Puts in force what came of reading the file again; what cannot be used is told and the last good one stays.
    ///
    /// # Errors
    /// The reason why the newest text is not in force.
    fn take(&mut self, reloaded: Result<Reloaded, StoreError>) -> Result<Option<Arc<Registry>>, Unavailable> {
        let built = match reloaded {
            Ok(Reloaded::Built(built)) => built,
            Ok(Reloaded::Same) => return self.gateway.loaded().refused.map_or(Ok(None), Err),
            Ok(Reloaded::Empty) => return Err(self.refuse(Level::Warn, "configuration empty", self.empty(), vec![])),
            Err(error) => {
                return Err(self.refuse(Level::Error, "configuration unreadable", error.into(), vec![]));
            }
        };
        let Some(registry) = built.registry else {
            let reason = Unavailable::of_text(self.first_error(&built.problems));
            return Err(self.refuse(Level::Error, "configuration refused", reason, built.problems));
        };
        report(&self.log, &self.name(), &built.problems);
        self.tell_of_restart(self.gateway.snapshot().registry().settings(), registry.settings());
        Ok(Some(self.publish("configuration loaded", registry, built.problems)))
    }

    /// Keeps the configuration in force, and says once why.
    fn refuse(&self, level: Level, event: &str, reason: Unavailable, problems: Vec<Problem>) -> Unavailable {
        let loaded = self.gateway.loaded();
        if loaded.refused.as_ref() != Some(&reason) || loaded.problems != problems {
            report(&self.log, &self.name(), &problems);
            let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
            self.log.write(level, event, |r| {
                match errors {
                    0 => r.field("reason", reason.whole()),
                    _ => r.number("problems", errors as u64),
                }
                .field("keeping", Timestamp(loaded.at));
            });
            self.gateway.set_loaded(|loaded| {
                loaded.refused = Some(reason.clone());
                loaded.problems = problems;
            });
        }
        reason
    }

    /// What is said of a file with nothing in it.
    fn empty(&self) -> Unavailable {
        Unavailable::of_text(format!("{} is empty", self.name()))
    }

    /// Puts a registry in force, and says so when it is.
    fn publish(&self, event: &str, registry: Registry, problems: Vec<Problem>) -> Arc<Registry> {
        let (clients, servers) = (registry.clients().len(), registry.servers().len());
        let before = self.gateway.publish(registry);
        let at = (self.now)();
        self.gateway.set_loaded(|loaded| *loaded = Loaded { at, refused: None, problems });
        self.log.info(event, |r| _ = r.number("clients", clients as u64).number("servers", servers as u64));
        before
    }

    fn name(&self) -> String {
        self.file.path().display().to_string()
    }

    /// The first of the problems that keep a configuration from being used.
    fn first_error(&self, problems: &[Problem]) -> String {
        let first = problems.iter().find(|problem| problem.severity == Severity::Error);
        first.map(|problem| problem.display(&self.name()).to_string()).unwrap_or_default()
    }

    /// Says which of the settings that were changed are read at the start only.
    fn tell_of_restart(&self, before: &Settings, now: &Settings) {
        if now.listen != before.listen {
            self.log.warn("gateway.listen takes effect after a restart", |r| _ = r.field("listen", now.listen));
        }
        let most = now.limits.connections;
        if most != before.limits.connections {
            self.log.warn("gateway.max_connections takes effect after a restart", |r| {
                _ = r.number("max_connections", most as u64);
            });
        }
    }

    /// Makes a change and all that wait behind it, and answers them. Returns the registries that were replaced.
    fn change(&mut self, first: Job) -> Vec<Arc<Registry>> {
        let mut jobs = vec![first];
        jobs.extend(self.jobs.try_iter().take(BATCH - 1));
        let begun = Instant::now();
        let mut retired = Vec::new();
        let outcomes = self.make(&jobs, &mut retired);
        self.log.debug("changes answered", |r| {
            r.number("changes", jobs.len() as u64).number("ms", begun.elapsed().as_millis() as u64);
        });
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            job.answer(outcome);
        }
        retired
    }

    /// Makes changes together; one by one where one of them cannot be made, so that it fails alone.
    fn make(&mut self, jobs: &[Job], retired: &mut Vec<Arc<Registry>>) -> Outcomes {
        let mut failure = Failure::Changed;
        for _ in 0..TRIES {
            match self.store(jobs, retired) {
                Ok(outcomes) => return outcomes,
                Err(Failure::Changed) => {}
                Err(Failure::Edit(_)) if jobs.len() > 1 => {
                    return jobs.chunks(1).flat_map(|job| self.make(job, retired)).collect();
                }
                Err(other) => {
                    failure = other;
                    break;
                }
            }
        }
        let reason = match failure {
            Failure::Changed => Unavailable::plain("the file was changed by somebody else each time; try again"),
            Failure::File(reason) | Failure::Edit(reason) => reason,
        };
        self.log.error("configuration not changed", |r| _ = r.field("reason", reason.whole()));
        jobs.iter().map(|_| Err(ChangeError::Unavailable(reason.clone()))).collect()
    }

    /// One try: everything that is allowed of the changes is on the disk and in force when this returns.
    fn store(&mut self, jobs: &[Job], retired: &mut Vec<Arc<Registry>>) -> Result<Outcomes, Failure> {
        let lock = self.file.lock()?;
        let newest = self.file.newest(self.gateway.is_refused());
        retired.extend(self.take(newest).map_err(Failure::File)?);
        let snapshot = self.gateway.snapshot();
        let mut draft = Draft::new(snapshot.registry());
        let mut apply =
            |job: &Job| job.authority().still_holds(snapshot.registry()).and_then(|()| draft.apply(job.edit()));
        let outcomes = jobs.iter().map(|job| apply(job).map_err(ChangeError::Refused)).collect();
        retired.extend(self.write(&lock, &draft.finish())?);
        Ok(outcomes)
    }

    /// Stores changes of the text that is in force; returns the registry that was replaced, if anything was changed.
    fn write(&mut self, lock: &Locked, changes: &[Change]) -> Result<Option<Arc<Registry>>, Failure> {
        let text = config::edit(self.file.text(), changes)
            .map_err(|e| Failure::Edit(Unavailable::of_text(format!("{}: {e}", self.name()))))?;
        if text == self.file.text() {
            return Ok(None);
        }
        if text.len() > LARGEST && text.len() > self.file.text().len() {
            return Err(Failure::Edit(Unavailable::plain(
                "the configuration file is as large as it may become, 32 MiB",
            )));
        }
        let built = self.file.build(&text);
        let Some(registry) = built.registry else {
            return Err(Failure::Edit(Unavailable::of_text(self.first_error(&built.problems))));
        };
        if !self.file.replace(lock, text)? {
            return Err(Failure::Changed);
        }
        Ok(Some(self.publish("configuration changed", registry, built.problems)))
    }
}

/// Writes every problem of a configuration to the log.
pub fn report(log: &Log, file: &str, problems: &[Problem]) {
    for problem in problems {
        match problem.severity {
            Severity::Error => log.error("configuration problem", |r| _ = r.field("problem", problem.display(file))),
            Severity::Warning => log.warn("configuration warning", |r| _ = r.field("problem", problem.display(file))),
        }
    }
}
