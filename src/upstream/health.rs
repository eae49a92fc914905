//! Whether a server can be reached, and when it is asked next: the breaker and the backoff, on one clock.
//!
//! The refresher asks a server for its catalogue whenever [`Breaker::due`] has come. While the breaker is open calls fail
//! at once, and that fetch is the probe which closes it. Only connections that cannot be made count: a slow tool, an
//! error, or a call that ran out of time says nothing about the way to the server. Source: design 9.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::catalogue::Fetched;
use super::{Answer, Upstream, UpstreamError};
use crate::outbound::OutboundError;

/// Failed connections in a row that open the breaker. One may be chance; it brings the next fetch forward, which tells.
const OPENS_AT: u32 = 2;
/// Shortest time between two fetches from a server that is well.
pub(super) const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// The same when the server itself has said that it offers something else; this bounds what storms of that cost.
const LEAST_INTERVAL_TOLD: Duration = Duration::from_millis(100);
/// Shortest and longest wait before a server that failed is asked again.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What an attempt says about the way to a server.
#[derive(Clone, Debug, PartialEq)]
enum Contact {
    /// It answered, whatever it said.
    Made,
    /// No connection could be made.
    Failed(OutboundError),
    /// Neither can be told.
    Unclear,
}

impl Contact {
    fn of<T>(attempt: &Result<T, UpstreamError>) -> Self {
        match attempt {
            Err(UpstreamError::Unreachable(OutboundError::Connect { kind, .. })) if is_ours(*kind) => Self::Unclear,
            Err(UpstreamError::Unreachable(error)) if error.never_sent() => Self::Failed(error.clone()),
            Err(
                UpstreamError::Unreachable(_)
                | UpstreamError::Silent(_)
                | UpstreamError::TooLong(_)
                | UpstreamError::Suspended { .. }
                | UpstreamError::Unmirrorable(_)
                | UpstreamError::NoRoom
                | UpstreamError::Removed,
            ) => Self::Unclear,
            Ok(_)
            | Err(
                UpstreamError::TooLarge(_)
                | UpstreamError::BadStatus(_)
                | UpstreamError::NotMcp(_)
                | UpstreamError::Ended
                | UpstreamError::NeedsInput
                | UpstreamError::Rpc(_),
            ) => Self::Made,
        }
    }
}

/// Whether a connection failed for want of something on this side, such as file descriptors, which says nothing about the
/// server.
fn is_ours(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::TimedOut
    )
}

/// What an attempt did to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Opened,
    Closed,
}

/// The breaker of one server and the time of its next fetch, as a function of what happened when.
#[derive(Debug)]
struct Breaker {
    /// Connections that failed, one after the other.
    failures: u32,
    /// Why the last of them did; the breaker is open while this is there.
    open: Option<OutboundError>,
    /// How long the next fetch was put off after the last one failed, jitter aside; `None` after one that did not.
    retry: Option<Duration>,
    /// When the catalogue is fetched next.
    due: Instant,
    /// Before this nobody can bring the fetch forward.
    earliest: Instant,
    /// Before this not even the server can.
    soonest: Instant,
    /// Whether the server has said that it offers something else since the last fetch was begun.
    told: bool,
}

impl Breaker {
    /// That of a server which was never asked, and is to be at once.
    fn new(now: Instant) -> Self {
        Self { failures: 0, open: None, retry: None, due: now, earliest: now, soonest: now, told: false }
    }

    /// Why a call cannot be made now, if it cannot.
    fn refusal(&self, now: Instant) -> Option<UpstreamError> {
        let reason = self.open.clone()?;
        Some(UpstreamError::Suspended { until_probe: self.due.saturating_duration_since(now), reason })
    }

    /// Somebody has reason to believe that the catalogue changed. A server that failed is asked no sooner for that.
    fn wanted(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.earliest));
    }

    /// The server says that it offers something else.
    fn told(&mut self, now: Instant) {
        self.told = true;
        if self.retry.is_none() {
            self.due = self.due.min(now.max(self.soonest));
        }
    }

    /// A fetch is begun: what was told before needs no other.
    fn begun(&mut self) {
        self.told = false;
    }

    /// A call was made, or could not be. `jitter` is a factor near 1.
    fn called(&mut self, now: Instant, contact: Contact, jitter: f64) -> Change {
        match contact {
            Contact::Unclear => Change::None,
            Contact::Made => {
                let change = self.reached();
                if change == Change::Closed {
                    (self.retry, self.due, self.earliest, self.soonest) = (None, now, now, now);
                }
                change
            }
            Contact::Failed(reason) => {
                let change = self.missed(reason);
                match self.retry {
                    // However long the refresher meant to wait for a server that failed in other ways.
                    _ if change == Change::Opened => self.put_off(now, FIRST_RETRY, jitter),
                    None => self.wanted(now),
                    // What is being waited for, or under way, is the probe.
                    Some(_) => {}
                }
                change
            }
        }
    }

    /// A catalogue was fetched, and is good for `refresh`.
    fn fetched(&mut self, now: Instant, refresh: Duration) -> Change {
        self.retry = None;
        self.earliest = now + LEAST_INTERVAL;
        self.soonest = now + LEAST_INTERVAL_TOLD;
        // What was told meanwhile may have come after the list.
        self.due = if self.told { self.soonest } else { now + refresh.max(LEAST_INTERVAL) };
        self.reached()
    }

    /// A catalogue could not be fetched.
    fn failed(&mut self, now: Instant, contact: Contact, jitter: f64) -> Change {
        let wait = self.retry.map_or(FIRST_RETRY, |last| (last * 2).min(LAST_RETRY));
        self.put_off(now, wait, jitter);
        match contact {
            Contact::Made => self.reached(),
            Contact::Failed(reason) => self.missed(reason),
            Contact::Unclear => Change::None,
        }
    }

    fn put_off(&mut self, now: Instant, wait: Duration, jitter: f64) {
        self.retry = Some(wait);
        self.due = now + wait.mul_f64(jitter);
        (self.earliest, self.soonest) = (self.due, self.due);
    }

    fn reached(&mut self) -> Change {
        self.failures = 0;
        if self.open.take().is_some() { Change::Closed } else { Change::None }
    }

    fn missed(&mut self, reason: OutboundError) -> Change {
        self.failures = self.failures.saturating_add(1);
        if self.failures < OPENS_AT {
            return Change::None;
        }
        if self.open.replace(reason).is_none() { Change::Opened } else { Change::None }
    }
}

/// The breaker of one server, as all threads share it.
pub(super) struct Health {
    breaker: Mutex<Breaker>,
    /// Whether the breaker has counted a failure: calls to a server that is well do not take the lock.
    ailing: AtomicBool,
    /// Tells the refresher that the next fetch was moved.
    moved: Notify,
}

impl Health {
    pub(super) fn new() -> Self {
        let breaker = Mutex::new(Breaker::new(Instant::now()));
        Self { breaker, ailing: AtomicBool::new(false), moved: Notify::new() }
    }

    /// Asks for a fetch soon.
    pub(super) fn wanted(&self) {
        self.lock().wanted(Instant::now());
        self.moved.notify_one();
    }

    /// Asks for a fetch at once, because the server says that it offers something else.
    pub(super) fn told(&self) {
        self.lock().told(Instant::now());
        self.moved.notify_one();
    }

    /// Waits until the catalogue is to be fetched, which is begun then.
    pub(super) async fn due(&self) {
        loop {
            let due = self.lock().due;
            if timeout_at(due, self.moved.notified()).await.is_err() {
                self.lock().begun();
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Breaker, Instant) -> Change) -> Change {
        let mut breaker = self.lock();
        let changed = change(&mut breaker, Instant::now());
        self.ailing.store(breaker.failures > 0, Ordering::Release);
        changed
    }
}

/// Keeps the gateways of a fleet from asking in step.
fn jitter() -> f64 {
    rand::random_range(0.8..1.2)
}

impl Upstream {
    /// Refuses a call while the server is known not to be reachable.
    pub(super) fn admit(&self) -> Result<(), UpstreamError> {
        if !self.health.ailing.load(Ordering::Acquire) {
            return Ok(());
        }
        self.health.lock().refusal(Instant::now()).map_or(Ok(()), Err)
    }

    /// Takes note of how the server answered a call, or failed to.
    pub(super) fn note_call(&self, answer: &Result<Box<Answer>, UpstreamError>) {
        let contact = Contact::of(answer);
        let well = contact == Contact::Made && !self.health.ailing.load(Ordering::Acquire);
        if well || contact == Contact::Unclear {
            return;
        }
        let change = self.health.change(|breaker, now| breaker.called(now, contact, jitter()));
        self.health.moved.notify_one();
        if let (Change::Opened, Err(error)) = (change, answer) {
            self.failed(error);
        }
        self.report_breaker(change);
    }

    /// Takes note of how a fetch of the catalogue ended.
    pub(super) fn note_fetch(&self, fetched: &Result<Fetched, UpstreamError>, refresh: Duration) {
        let change = self.health.change(|breaker, now| match fetched {
            Ok(_) => breaker.fetched(now, refresh),
            Err(_) => breaker.failed(now, Contact::of(fetched), jitter()),
        });
        self.report_breaker(change);
    }

    fn report_breaker(&self, change: Change) {
        match change {
            Change::None => {}
            Change::Closed => self.log.info("breaker closed", |r| _ = r.field("server", self.id())),
            Change::Opened => {
                if let Some(refusal) = self.health.lock().refusal(Instant::now()) {
                    self.log.warn("breaker open", |r| _ = r.field("server", self.id()).field("reason", refusal));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::SocketAddr;

    use super::*;
    use crate::wire::jsonrpc::ErrorObject;

    const REFRESH: Duration = Duration::from_secs(30);

    fn refused() -> OutboundError {
        OutboundError::Connect { address: SocketAddr::from(([127, 0, 0, 1], 9)), kind: ErrorKind::ConnectionRefused }
    }

    fn lost() -> OutboundError {
        OutboundError::Lost { reason: "reset".to_owned() }
    }

    /// One thing that happens, and what is seen after it: whether the breaker is open, and in how many milliseconds the
    /// next fetch is due.
    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Wanted(bool, u64),
        Told(bool, u64),
        Begun(bool, u64),
        Called(Contact, bool, u64),
        Fetched(bool, u64),
        Failed(Contact, bool, u64),
    }
    use Step::{Begun, Called, Failed, Fetched, Told, Wait, Wanted};

    #[track_caller]
    fn check(steps: &[Step]) {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        for (at, step) in steps.iter().enumerate() {
            let was_open = breaker.open.is_some();
            let (change, open, due) = match step {
                Wait(ms) => {
                    now += Duration::from_millis(*ms);
                    continue;
                }
                Wanted(open, due) => {
                    breaker.wanted(now);
                    (Change::None, open, due)
                }
                Told(open, due) => {
                    breaker.told(now);
                    (Change::None, open, due)
                }
                Begun(open, due) => {
                    breaker.begun();
                    (Change::None, open, due)
                }
                Called(contact, open, due) => (breaker.called(now, contact.clone(), 1.0), open, due),
                Fetched(open, due) => (breaker.fetched(now, REFRESH), open, due),
                Failed(contact, open, due) => (breaker.failed(now, contact.clone(), 1.0), open, due),
            };
            let in_ms = breaker.due.saturating_duration_since(now).as_millis();
            assert_eq!((breaker.open.is_some(), in_ms), (*open, u128::from(*due)), "step {at}: {step:?}");
            assert_eq!(breaker.refusal(now).is_some(), *open, "step {at}: {step:?}");
            let expected = match (was_open, *open) {
                (false, true) => Change::Opened,
                (true, false) => Change::Closed,
                _ => Change::None,
            };
            assert_eq!(change, expected, "step {at}: {step:?}");
        }
    }

    fn no() -> Contact {
        Contact::Failed(refused())
    }

    #[test]
    fn a_server_that_is_well_is_asked_at_its_time_or_when_somebody_wants_it() {
        check(&[Fetched(false, 30_000), Wait(30_000), Fetched(false, 30_000)]);
        check(&[Fetched(false, 30_000), Wanted(false, 1_000), Wait(400), Wanted(false, 600), Wait(600)]);
        check(&[Fetched(false, 30_000), Wait(9_000), Wanted(false, 0), Called(Contact::Made, false, 0)]);
    }

    #[test]
    fn a_server_that_tells_of_a_change_is_asked_at_once_but_not_all_the_time() {
        check(&[Fetched(false, 30_000), Wait(500), Told(false, 0), Begun(false, 0), Fetched(false, 30_000)]);
        check(&[Fetched(false, 30_000), Told(false, 100), Wait(40), Told(false, 60), Wanted(false, 60)]);
        // What is told while the list is fetched may be missing there.
        let told_meanwhile = [Begun(false, 0), Told(false, 0), Fetched(false, 100), Wait(100), Begun(false, 0)];
        check(&[&told_meanwhile[..], &[Fetched(false, 30_000)]].concat());
        // A server that failed is asked no sooner for it.
        check(&[Failed(no(), false, 1_000), Told(false, 1_000), Wait(1_000), Begun(false, 0), Fetched(false, 30_000)]);
    }

    #[test]
    fn one_failed_connection_is_looked_into_and_two_in_a_row_open() {
        check(&[Fetched(false, 30_000), Wait(5_000), Called(no(), false, 0), Failed(no(), true, 1_000)]);
        check(&[Fetched(false, 30_000), Wait(5_000), Called(no(), false, 0), Called(no(), true, 1_000)]);
        check(&[Fetched(false, 30_000), Called(no(), false, 1_000), Wait(1_000), Fetched(false, 30_000)]);
        check(&[Failed(no(), false, 1_000), Called(no(), true, 1_000)]);
        let failed = |wait| Failed(Contact::Made, false, wait);
        check(&[failed(1_000), failed(2_000), failed(4_000), Called(no(), false, 4_000), Called(no(), true, 1_000)]);
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let made = || Called(Contact::Made, false, 0);
        check(&[Fetched(false, 30_000), Wait(5_000), Called(no(), false, 0), made(), Called(no(), false, 0), made()]);
        check(&[Failed(no(), false, 1_000), Failed(Contact::Made, false, 2_000), Failed(no(), false, 4_000)]);
        check(&[Failed(no(), false, 1_000), Failed(Contact::Unclear, false, 2_000), Failed(no(), true, 4_000)]);
    }

    #[test]
    fn what_is_no_failed_connection_never_opens() {
        for contact in [Contact::Made, Contact::Unclear] {
            let steps = (0..10).map(|_| Called(contact.clone(), false, 0));
            check(&steps.collect::<Vec<_>>());
            let waits = [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
            check(&waits.map(|wait| Failed(contact.clone(), false, wait)));
        }
    }

    #[test]
    fn a_probe_is_made_after_ever_longer_waits_and_nobody_hurries_it() {
        let waits = [2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        let mut steps = vec![Failed(no(), false, 1_000)];
        for wait in waits {
            steps.extend([Failed(no(), true, wait), Wanted(true, wait), Called(no(), true, wait), Wait(wait)]);
        }
        check(&steps);
    }

    #[test]
    fn the_probe_closes_whatever_it_is_answered_and_so_does_a_call_that_gets_through() {
        let open = || [Failed(no(), false, 1_000), Failed(no(), true, 2_000)];
        let then = |step: Step| open().into_iter().chain([step]).collect::<Vec<_>>();
        check(&then(Fetched(false, 30_000)));
        check(&then(Failed(Contact::Made, false, 4_000)));
        check(&then(Failed(Contact::Unclear, true, 4_000)));
        check(&then(Called(Contact::Unclear, true, 2_000)));
        check(&then(Called(Contact::Made, false, 0)));
        // After it the waits begin anew.
        let mut steps = then(Called(Contact::Made, false, 0));
        steps.extend([Failed(no(), false, 1_000), Failed(no(), true, 2_000)]);
        check(&steps);
    }

    #[test]
    fn a_refusal_says_why_and_when_the_probe_is_due() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        assert_eq!(breaker.refusal(now), None);
        breaker.failed(now, no(), 1.0);
        breaker.failed(now, no(), 1.1);
        let refusal = |ms| breaker.refusal(now + Duration::from_millis(ms)).unwrap().to_string();
        assert_eq!(
            refusal(200),
            "breaker open, next probe in 2000 ms: cannot connect to `127.0.0.1:9`: connection refused"
        );
        assert!(refusal(9_000).starts_with("breaker open, next probe in 0 ms: "), "{}", refusal(9_000));
    }

    #[test]
    fn errors_tell_whether_the_server_was_reached() {
        let second = Duration::from_secs(1);
        let error = ErrorObject::new(-32603, "");
        for (error, contact) in [
            (UpstreamError::Unreachable(refused()), no()),
            (UpstreamError::Unreachable(lost()), Contact::Unclear),
            (UpstreamError::Silent(second), Contact::Unclear),
            (UpstreamError::TooLong(second), Contact::Unclear),
            (UpstreamError::Removed, Contact::Unclear),
            (UpstreamError::Suspended { until_probe: second, reason: refused() }, Contact::Unclear),
            (UpstreamError::TooLarge(7), Contact::Made),
            (UpstreamError::BadStatus(503), Contact::Made),
            (UpstreamError::NotMcp(String::new()), Contact::Made),
            (UpstreamError::Ended, Contact::Made),
            (UpstreamError::Rpc(error), Contact::Made),
        ] {
            assert_eq!(Contact::of::<()>(&Err(error.clone())), contact, "{error:?}");
        }
        assert_eq!(Contact::of(&Ok(())), Contact::Made);
    }
}
