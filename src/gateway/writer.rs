//! The one thread that changes the configuration: it follows the file and stores what REST asks for.
//!
//! A good edit of the file is in force within two seconds; a bad one is reported with every problem, and the last good one
//! stays, as it does when the file is gone, unreadable or empty. A change over REST is made to the newest text of the
//! file, so that it never undoes a hand edit; changes that wait are stored together, and each is answered only when it
//! is on the disk and in force. Registries are built and dropped here, because both take long when they are large.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::change::{ChangeError, Job};
use super::{Gateway, Loaded};
use crate::log::Log;
use crate::policy::registry::Built;
use crate::policy::{Draft, EditError, Registry};
use crate::shutdown::Shutdown;
use crate::store::{ConfigFile, Locked, Reloaded, StoreError};
use crate::time::Timestamp;
use crate::wire::config::{self, Change, Problem, Settings, Severity};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the stop is looked at in between.
const STEP: Duration = Duration::from_millis(100);
/// Changes that are stored together.
const BATCH: usize = 256;
/// How often a change is begun again because somebody else has changed the file meanwhile.
const TRIES: usize = 3;

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
    /// The reason, for whoever asked.
    Reason(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Reason(error.to_string())
    }
}

impl Writer {
    /// Looks at the file once a second, and changes it when asked to, until the stop.
    pub fn run(mut self, stop: &Shutdown) {
        let mut retired: Vec<Arc<Registry>> = Vec::new();
        let mut looked = Instant::now();
        loop {
            match self.jobs.recv_timeout(STEP) {
                Ok(first) => retired.extend(self.change(first)),
                Err(RecvTimeoutError::Timeout) if !stop.ordered() => {}
                Err(_) => return,
            }
            if looked.elapsed() >= INTERVAL {
                looked = Instant::now();
                if self.file.looks_changed() {
                    retired.extend(self.reload());
                }
                // Dropped here, and not by whichever request happens to be the last to hold one.
                retired.retain(|registry| Arc::strong_count(registry) > 1);
            }
        }
    }

    /// Loads the file; returns the registry that it replaced, if it did.
    fn reload(&mut self) -> Option<Arc<Registry>> {
        let reloaded = self.file.reload();
        self.take(reloaded).ok().flatten()
    }

    /// Puts in force what came of reading the file again; what cannot be used is told and the last good one stays.
    ///
    /// # Errors
    /// The reason why the newest text is not in force.
    fn take(&mut self, reloaded: Result<Reloaded, StoreError>) -> Result<Option<Arc<Registry>>, String> {
        let kept = Timestamp(self.gateway.loaded().at);
        let built = match reloaded {
            Ok(Reloaded::Built(built)) => built,
            Ok(Reloaded::Same) => return self.gateway.loaded().refused.map_or(Ok(None), Err),
            Ok(Reloaded::Empty) => {
                self.log.warn("configuration empty", |r| _ = r.field("keeping", kept));
                return Err(format!("{} is empty; the configuration of {kept} stays in force", self.name()));
            }
            Err(error) => {
                self.log.error("configuration unreadable", |r| _ = r.field("reason", &error).field("keeping", kept));
                return Err(error.to_string());
            }
        };
        report(&self.log, &self.name(), &built);
        let Some(registry) = built.registry else {
            let errors = built.problems.iter().filter(|p| p.severity == Severity::Error).count();
            self.log.error("configuration refused", |r| _ = r.number("problems", errors as u64).field("keeping", kept));
            let reason = self.first_error(&built.problems);
            self.gateway.set_loaded(|loaded| {
                loaded.refused = Some(reason.clone());
                loaded.problems = built.problems;
            });
            return Err(reason);
        };
        self.tell_of_restart(self.gateway.snapshot().registry().settings(), registry.settings());
        self.log.info("configuration loaded", |r| {
            r.number("clients", registry.clients().len() as u64).number("servers", registry.servers().len() as u64);
        });
        Ok(Some(self.publish(registry, built.problems)))
    }

    fn publish(&self, registry: Registry, problems: Vec<Problem>) -> Arc<Registry> {
        let before = self.gateway.publish(registry);
        let at = (self.now)();
        self.gateway.set_loaded(|loaded| *loaded = Loaded { at, refused: None, problems });
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
        let mut outcomes = Err("the file was changed by somebody else each time; try again".to_owned());
        for _ in 0..TRIES {
            match self.store(&jobs, &mut retired) {
                Ok(done) => outcomes = Ok(done),
                Err(Failure::Changed) => continue,
                Err(Failure::Reason(reason)) => outcomes = Err(reason),
            }
            break;
        }
        if let Err(reason) = &outcomes {
            self.log.error("configuration not changed", |r| _ = r.field("reason", reason));
        }
        self.log.debug("changes answered", |r| {
            r.number("changes", jobs.len() as u64).number("ms", begun.elapsed().as_millis() as u64);
        });
        let mut outcomes = outcomes.map(Vec::into_iter);
        for job in jobs {
            job.answer(match &mut outcomes {
                Ok(outcomes) => outcomes.next().unwrap_or(Ok(())).map_err(ChangeError::Refused),
                Err(reason) => Err(ChangeError::Unavailable(reason.clone())),
            });
        }
        retired
    }

    /// One try: everything that is allowed of the changes is on the disk and in force when this returns.
    fn store(&mut self, jobs: &[Job], retired: &mut Vec<Arc<Registry>>) -> Result<Vec<Result<(), EditError>>, Failure> {
        let lock = self.file.lock()?;
        let newest = self.file.newest();
        retired.extend(self.take(newest).map_err(Failure::Reason)?);
        let snapshot = self.gateway.snapshot();
        let mut draft = Draft::new(snapshot.registry());
        let outcomes = jobs.iter().map(|job| draft.apply(job.edit())).collect();
        retired.extend(self.write(&lock, &draft.finish())?);
        Ok(outcomes)
    }

    /// Stores changes of the text that is in force; returns the registry that was replaced, if anything was changed.
    fn write(&mut self, lock: &Locked, changes: &[Change]) -> Result<Option<Arc<Registry>>, Failure> {
        let refuse = |reason: String| Failure::Reason(format!("{}: {reason}", self.name()));
        let text = config::edit(self.file.text(), changes).map_err(|e| refuse(e.to_string()))?;
        if text == self.file.text() {
            return Ok(None);
        }
        let built = self.file.build(&text);
        let Some(registry) = built.registry else {
            return Err(Failure::Reason(self.first_error(&built.problems)));
        };
        if !self.file.replace(lock, text)? {
            return Err(Failure::Changed);
        }
        self.log.info("configuration changed", |r| {
            r.number("changes", changes.len() as u64)
                .number("clients", registry.clients().len() as u64)
                .number("servers", registry.servers().len() as u64);
        });
        Ok(Some(self.publish(registry, built.problems)))
    }
}

/// Writes every problem of a configuration to the log.
pub fn report(log: &Log, file: &str, built: &Built) {
    for problem in &built.problems {
        match problem.severity {
            Severity::Error => log.error("configuration problem", |r| _ = r.field("problem", problem.display(file))),
            Severity::Warning => log.warn("configuration warning", |r| _ = r.field("problem", problem.display(file))),
        }
    }
}
