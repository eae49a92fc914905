//! Alarms: time limits that are set for every request and hardly ever pass.
//!
//! A timer of the runtime takes some twenty locked instructions to set and to put away; and while there is any, each wait of
//! its thread for sockets has a deadline, which the kernel sets and puts away as well: together 4 % of what a call of a
//! lone client costs. So the limits of a thread's requests stand in a list, and a thread of its own looks through that
//! when the earliest of them may have passed. Nearly all are gone by then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A list of alarms, which clones share. It is watched until the last of them is gone.
#[derive(Clone, Debug, Default)]
pub struct Alarms(Arc<Owner>);

#[derive(Debug, Default)]
struct Owner(Arc<Shared>);

/// What the alarms and the watch share.
#[derive(Debug, Default)]
struct Shared {
    list: Mutex<List>,
    /// How often the list was looked through.
    looked: AtomicU64,
    /// Tells the watch that it has something else to do than it meant to.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct List {
    /// When each alarm rings, and whom it wakes; nothing in the places of those that have rung or are gone.
    places: Vec<Option<(Instant, Waker)>>,
    /// Places of alarms that are gone.
    free: Vec<usize>,
    watch: Watch,
}

/// What the thread that watches over a list does.
#[derive(Clone, Copy, Debug, Default)]
enum Watch {
    /// There is no such thread.
    #[default]
    None,
    /// It waits for an alarm to be set.
    Idle,
    /// It will look through the list then.
    Until(Instant),
    /// It ends.
    Over,
}

impl Alarms {
    /// An alarm that will ring at `deadline`.
    #[must_use]
    pub fn at(&self, deadline: Instant) -> Alarm {
        Alarm { shared: Arc::clone(&self.0.0), deadline, set: None }
    }

    /// An alarm that will ring after some time.
    #[must_use]
    pub fn after(&self, time: Duration) -> Alarm {
        self.at(Instant::now() + time)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.list().watch = Watch::Over;
        self.0.changed.notify_one();
    }
}

/// One time limit. Rings when it is waited for, and not before; never once its [`Alarms`] are gone.
#[derive(Debug)]
pub struct Alarm {
    shared: Arc<Shared>,
    deadline: Instant,
    /// How it stands in the list; not at all before somebody waits.
    set: Option<Set>,
}

#[derive(Debug)]
struct Set {
    place: usize,
    rings: Instant,
    waker: Waker,
    /// [`Shared::looked`] before it was set. As long as that is the same, it has not rung.
    looked: u64,
}

impl Alarm {
    /// When it rings.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Lets it ring at another time. A later one costs nothing: it wakes whoever waits once more for nothing instead.
    pub fn move_to(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Ready when the deadline has passed. The task that asked last is woken then.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let looked = self.shared.looked.load(Ordering::Acquire);
        let waits = |set: &Set| set.looked == looked && set.rings <= self.deadline && set.waker.will_wake(cx.waker());
        if self.set.as_ref().is_some_and(waits) {
            return Poll::Pending;
        }
        // One that was never set is not looked at: should its time be over, it rings at once.
        if self.set.is_some() && Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let place = self.shared.set(self.set.as_ref().map(|set| set.place), self.deadline, cx.waker().clone());
        self.set = Some(Set { place, rings: self.deadline, waker: cx.waker().clone(), looked });
        Poll::Pending
    }

    /// Waits for the deadline.
    pub async fn ring(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(Set { place, .. }) = self.set {
            let mut list = self.shared.list();
            let alarm = list.places.get_mut(place).and_then(Option::take);
            list.free.push(place);
            drop(list);
            drop(alarm);
        }
    }
}

impl Shared {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets an alarm in its place, or in a free one; tells which.
    fn set(self: &Arc<Self>, place: Option<usize>, rings: Instant, waker: Waker) -> usize {
        let mut list = self.list();
        let place = place.or_else(|| list.free.pop()).unwrap_or(list.places.len());
        let mut alarm = Some((rings, waker));
        match list.places.get_mut(place) {
            Some(old) => std::mem::swap(old, &mut alarm),
            None => list.places.push(alarm.take()),
        }
        let early_enough = match list.watch {
            Watch::None | Watch::Idle => false,
            Watch::Until(next) => next <= rings,
            Watch::Over => true,
        };
        if !early_enough {
            let watched = match list.watch {
                Watch::None => self.watch(),
                _ => {
                    self.changed.notify_one();
                    true
                }
            };
            // Where no thread can be had, time limits do not hold until one of the next alarms gets it.
            list.watch = if watched { Watch::Until(rings) } else { Watch::None };
        }
        drop(list);
        // What was there is given up without the lock: a waker is its task's, and may do anything.
        drop(alarm);
        place
    }

    /// Starts the watch; false if there is no thread for it.
    fn watch(self: &Arc<Self>) -> bool {
        let shared = Arc::clone(self);
        std::thread::Builder::new().name("alarms".into()).spawn(move || shared.look()).is_ok()
    }

    /// Wakes whoever has an alarm that rings, until the list is given up.
    fn look(&self) {
        let mut list = self.list();
        loop {
            let now = Instant::now();
            list = match list.watch {
                Watch::Over => return,
                Watch::None | Watch::Idle => self.changed.wait(list).unwrap_or_else(PoisonError::into_inner),
                Watch::Until(next) if now < next => {
                    let waited = self.changed.wait_timeout(list, next - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Watch::Until(_) => {
                    self.looked.fetch_add(1, Ordering::Release);
                    let due = |place: &mut Option<(Instant, Waker)>| place.take_if(|(rings, _)| *rings <= now);
                    let due: Vec<_> = list.places.iter_mut().filter_map(due).collect();
                    let next = list.places.iter().flatten().map(|(rings, _)| *rings).min();
                    list.watch = next.map_or(Watch::Idle, Watch::Until);
                    drop(list);
                    due.into_iter().for_each(|(_, waker)| waker.wake());
                    self.list()
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(3600);

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Bell(AtomicU64);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn rung(bell: &Bell) -> u64 {
        bell.0.load(Ordering::SeqCst)
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(10), "not in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[tokio::test]
    async fn alarms_ring_in_the_order_of_their_deadlines_and_not_before() {
        let (alarms, begun) = (Alarms::default(), Instant::now());
        let (mut late, mut soon, mut never) = (alarms.after(2 * SHORT), alarms.after(SHORT), alarms.after(LONG));
        let mut rang = Vec::new();
        std::future::poll_fn(|cx| {
            for (name, alarm) in [("late", &mut late), ("soon", &mut soon), ("never", &mut never)] {
                if !rang.iter().any(|(known, _)| *known == name) && alarm.poll(cx).is_ready() {
                    rang.push((name, begun.elapsed()));
                }
            }
            if rang.len() == 2 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(matches!(rang[..], [("soon", a), ("late", b)] if a >= SHORT && b >= 2 * SHORT), "{rang:?}");
    }

    #[test]
    fn whoever_asked_last_is_woken_once() {
        let (alarms, [one, two]) = (Alarms::default(), [Arc::<Bell>::default(), Arc::<Bell>::default()]);
        let mut alarm = alarms.after(SHORT);
        for bell in [&one, &two, &two] {
            let waker = Waker::from(Arc::clone(bell));
            assert!(alarm.poll(&Context::from_waker(&waker)).is_pending());
        }
        wait_until(|| rung(&two) == 1);
        assert!(alarm.poll(&Context::from_waker(Waker::noop())).is_ready());
        assert_eq!((rung(&one), rung(&two)), (0, 1));
    }

    #[test]
    fn an_alarm_that_was_moved_rings_at_its_new_time() {
        let (alarms, bell) = (Alarms::default(), Arc::<Bell>::default());
        let waker = Waker::from(Arc::clone(&bell));
        let cx = Context::from_waker(&waker);
        let mut alarm = alarms.after(SHORT);
        assert!(alarm.poll(&cx).is_pending());
        alarm.move_to(Instant::now() + LONG);
        // Later: whoever waits is woken for nothing, and waits on.
        wait_until(|| rung(&bell) == 1);
        assert!(alarm.poll(&cx).is_pending());
        // Earlier.
        alarm.move_to(Instant::now() + SHORT);
        assert!(alarm.poll(&cx).is_pending());
        wait_until(|| rung(&bell) == 2);
        assert!(alarm.poll(&cx).is_ready());
    }

    #[test]
    fn places_are_used_again_and_the_watch_ends_with_the_last_handle() {
        let alarms = Alarms::default();
        let shared = Arc::clone(&alarms.0.0);
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            let mut both = [alarms.after(LONG), alarms.clone().after(LONG)];
            assert!(both.iter_mut().all(|alarm| alarm.poll(&cx).is_pending()));
        }
        assert_eq!(shared.list().places.len(), 2);
        assert!(shared.list().places.iter().all(Option::is_none));
        drop(alarms);
        // This one and the watch's own.
        wait_until(|| Arc::strong_count(&shared) == 1);
    }
}
