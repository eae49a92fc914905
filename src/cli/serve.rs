//! `mcp-x serve`: the gateway put together, and its life until a signal.

use std::future::poll_fn;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{self, SignalKind};

use super::args::Options;
use super::notify::{READY, STOPPING, notify};
use super::{Failure, check};
use crate::gateway::writer::{Writer, report};
use crate::gateway::{Beginning, Gateway, Keyring};
use crate::http::server::{Server, wall_clock};
use crate::log::{Format, Level, Log};
use crate::outbound::{Client, Trust};
use crate::policy::Registry;
use crate::shutdown::{self, Shutdown, Trigger};
use crate::store::{Catalogues, ConfigFile, Journal, TokenEnds, load_secret};
use crate::upstream::Pool;
use crate::wire::config::Problem;

/// How often sessions are looked through for idle ones.
const SWEEP: Duration = Duration::from_secs(60);
/// How long servers may take, at the end, to hear of calls that have ended.
const PARTING: Duration = Duration::from_secs(1);
/// How often what was kept of sessions is made durable.
const TEND: Duration = Duration::from_secs(1);

/// A gateway that is being served; ends when it is told to, or dropped.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The gateway itself.
    pub gateway: Arc<Gateway>,
    trigger: Trigger,
    threads: Vec<JoinHandle<()>>,
    /// Ends after these, as it sends what servers have to hear of the calls that end with them.
    control: (Trigger, JoinHandle<()>),
    /// Ends after all others, because requests may wait for it.
    writer: (Trigger, JoinHandle<()>),
}

impl Running {
    /// Stops accepting, answers what has been accepted, and ends.
    pub fn stop(self) {
        self.trigger.fire();
        // Nobody can come back for these any more, and their servers need not wait for the others.
        self.gateway.end_parked();
        for thread in self.threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        self.gateway.end_parked();
        for (trigger, thread) in [self.control, self.writer] {
            trigger.fire();
            let _ = thread.join();
        }
        self.gateway.tend();
    }
}

/// Serves until SIGTERM or SIGINT; SIGHUP has the configuration read again.
///
/// # Errors
/// [`Failure`] if the gateway cannot start.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let log = open_log(options);
    // Before anything else: a signal must not end a gateway that is being started in the middle of it.
    let mut signals = Signals::listen()?;
    let running = start(options, &log)?;
    notify(READY, &log);
    while signals.next() == Signal::Hangup {
        running.gateway.reload();
    }
    log.info("stopping", |_| {});
    notify(STOPPING, &log);
    spawn("signal", move || {
        while signals.next() == Signal::Hangup {}
        // A second one means now.
        std::process::exit(1);
    })?;
    running.stop();
    log.info("stopped", |_| {});
    log.flush();
    Ok(())
}

pub(super) fn open_log(options: &Options) -> Log {
    Log::stderr(options.log.unwrap_or(Level::Info), options.log_format.unwrap_or(Format::Text))
}

/// What the process is asked by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// To end: SIGTERM or SIGINT.
    End,
    /// SIGHUP: of a service, to read its configuration again, with all that it names; of what runs in a terminal, to end.
    Hangup,
}

/// The signals that the process has got since they were first listened for.
pub(super) struct Signals {
    runtime: Runtime,
    kinds: [(unix::Signal, Signal); 3],
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`Failure`] if the system does not let it.
    pub(super) fn listen() -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listening = runtime.enter();
        let kinds = [
            (unix::signal(SignalKind::terminate())?, Signal::End),
            (unix::signal(SignalKind::interrupt())?, Signal::End),
            (unix::signal(SignalKind::hangup())?, Signal::Hangup),
        ];
        drop(listening);
        Ok(Self { runtime, kinds })
    }

    /// Waits for the next one.
    pub(super) fn next(&mut self) -> Signal {
        let kinds = &mut self.kinds;
        self.runtime.block_on(poll_fn(|cx| {
            let got = kinds.iter_mut().find_map(|(signal, kind)| signal.poll_recv(cx).is_ready().then_some(*kind));
            got.map_or(Poll::Pending, Poll::Ready)
        }))
    }
}

/// Loads the configuration, binds the address and starts every thread.
///
/// # Errors
/// [`Failure`] naming the file or address that is in the way.
pub fn start(options: &Options, log: &Log) -> Result<Running, Failure> {
    let path = options.config();
    let (file, registry, problems) = load(&path, log)?;
    let keys = keyring(options)?;
    let state = state_dir(options);
    let (ends, catalogues) = (TokenEnds::new(&state), Some(Catalogues::new(&state)));
    let address = options.address(registry.settings().listen);
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));

    let (trigger, stop) = shutdown::channel();
    let control = Builder::new_current_thread().enable_all().build()?;
    let trust = Trust::system();
    let pool = Pool::new(control.handle().clone(), Client::new(trust.clone()), log.clone());
    let listener = {
        let _runtime = control.enter();
        Server::bind(address).map_err(|e| cannot_listen(address, &e))?
    };
    let address = listener.local_addr()?;
    let config_path = path.display().to_string();
    let journal = Some(Journal::open(&state, wall_clock, log.clone()));
    let beginning = Beginning { registry, problems, config_path, keys, ends, catalogues, journal, now: wall_clock() };
    let (gateway, jobs) = Gateway::new(beginning, pool, log.clone());
    let handles = Server::new(listener, Arc::clone(&gateway), trust, log.clone()).run(threads, &stop)?;
    let (end, stop_control) = shutdown::channel();
    let control = spawn("control", {
        let gateway = Arc::clone(&gateway);
        move || {
            control.spawn(tend(Arc::clone(&gateway)));
            control.block_on(sweep(Arc::clone(&gateway), stop_control));
            control.block_on(gateway.parted(PARTING));
            control.shutdown_background();
        }
    })?;
    let writer = Writer { gateway: Arc::clone(&gateway), jobs, file, log: log.clone(), now: wall_clock };
    let (last, stop_writing) = shutdown::channel();
    let writer = spawn("config", move || writer.run(&stop_writing))?;
    log.info("listening", |r| {
        r.field("address", address).field("config", path.display()).field("version", env!("CARGO_PKG_VERSION"));
    });
    let (control, writer) = ((end, control), (last, writer));
    Ok(Running { address, gateway, trigger, threads: handles, control, writer })
}

/// What the gateway signs and seals with; its secret is made if there is none.
pub(super) fn keyring(options: &Options) -> Result<Keyring, Failure> {
    Ok(Keyring::new(&load_secret(&state_dir(options), rand::random())?))
}

/// The folder of what the gateway keeps for itself.
fn state_dir(options: &Options) -> PathBuf {
    options.state_dir.clone().unwrap_or_else(|| folder_of(&options.config()))
}

/// Loads the configuration at the start, when there is no last good one to keep.
pub(super) fn load(path: &Path, log: &Log) -> Result<(ConfigFile, Registry, Vec<Problem>), Failure> {
    let mut file = ConfigFile::new(path);
    let mut built = file.load()?;
    let name = path.display().to_string();
    match built.registry.take() {
        Some(registry) => {
            report(log, &name, &built.problems);
            Ok((file, registry, built.problems))
        }
        None => {
            for problem in &built.problems {
                // Not through the log: these lines are for whoever has just typed the command, as `check` prints them.
                let _ = writeln!(std::io::stderr(), "{}", problem.display(&name));
            }
            Err(check::refused(&name, &built))
        }
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => "\nhint: choose another with --port",
        std::io::ErrorKind::PermissionDenied => "\nhint: ports below 1024 need a privilege; choose another with --port",
        std::io::ErrorKind::AddrNotAvailable => "\nhint: no interface has this address; choose another with --host",
        _ => "",
    };
    Failure(format!("cannot listen on {address}: {}{hint}", crate::log::os_error(error)))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(work)?)
}

/// Drives the control runtime, whose tasks keep the catalogues fresh, until the stop.
async fn sweep(gateway: Arc<Gateway>, mut stop: Shutdown) {
    while stop.or(tokio::time::sleep(SWEEP)).await.is_some() {
        let now = wall_clock();
        gateway.drop_idle_sessions(now);
        gateway.collect_clients(now).await;
    }
}

/// Makes durable what is kept of sessions, until the runtime ends.
async fn tend(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(TEND).await;
        let gateway = Arc::clone(&gateway);
        // One that panicked has said so.
        let _ = tokio::task::spawn_blocking(move || gateway.tend()).await;
    }
}
