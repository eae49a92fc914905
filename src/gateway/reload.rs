//! Following the configuration file while the gateway runs.
//!
//! A good edit is in force within two seconds; a bad one is reported with every problem, and the last good one stays,
//! as it does when the file is gone, unreadable or empty.
//! Runs on a thread of its own, where registries are built and dropped, because both take long when they are large.

use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use crate::log::{Log, Timestamp};
use crate::policy::Registry;
use crate::policy::registry::Built;
use crate::shutdown::Shutdown;
use crate::store::{ConfigFile, Reloaded};
use crate::wire::config::{Settings, Severity};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the stop is looked at in between.
const STEP: Duration = Duration::from_millis(100);

/// Follows the file until the stop.
pub struct Follower {
    /// Whom to tell.
    pub gateway: Arc<Gateway>,
    /// The file, loaded once already.
    pub file: ConfigFile,
    /// Where to say what happened.
    pub log: Log,
    /// When the configuration in force was loaded, since the Unix epoch.
    pub loaded_at: Duration,
    /// The clock, which is the caller's.
    pub now: fn() -> Duration,
}

impl Follower {
    /// Looks at the file once a second until the stop.
    pub fn run(mut self, stop: &Shutdown) {
        let mut retired: Vec<Arc<Registry>> = Vec::new();
        while !stop.ordered() {
            for _ in 0..INTERVAL.as_millis() / STEP.as_millis() {
                if stop.ordered() {
                    return;
                }
                std::thread::sleep(STEP);
            }
            if self.file.looks_changed() {
                retired.extend(self.reload());
            }
            // Dropped here, and not by whichever request happens to be the last to hold one.
            retired.retain(|registry| Arc::strong_count(registry) > 1);
        }
    }

    /// Loads the file; returns the registry that it replaced, if it did.
    fn reload(&mut self) -> Option<Arc<Registry>> {
        let kept = Timestamp(self.loaded_at);
        let built = match self.file.reload() {
            Ok(Reloaded::Built(built)) => built,
            Ok(Reloaded::Same) => return None,
            Ok(Reloaded::Empty) => {
                self.log.warn("configuration empty", |r| _ = r.field("keeping", kept));
                return None;
            }
            Err(error) => {
                self.log.error("configuration unreadable", |r| _ = r.field("reason", &error).field("keeping", kept));
                return None;
            }
        };
        report(&self.log, &self.file.path().display().to_string(), &built);
        let Some(registry) = built.registry else {
            let errors = built.problems.iter().filter(|p| p.severity == Severity::Error).count();
            self.log.error("configuration refused", |r| _ = r.number("problems", errors as u64).field("keeping", kept));
            return None;
        };
        self.tell_of_restart(self.gateway.snapshot().registry().settings(), registry.settings());
        self.loaded_at = (self.now)();
        self.log.info("configuration loaded", |r| {
            r.number("clients", registry.clients().len() as u64).number("servers", registry.servers().len() as u64);
        });
        Some(self.gateway.publish(registry))
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
