//! The stop signal: one [`Trigger`], any number of [`Shutdown`] listeners, across runtimes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use tokio::sync::watch;
use tokio::task::unconstrained;

/// Makes a connected pair.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(());
    let ordered = Arc::<AtomicBool>::default();
    (Trigger { sender, ordered: Arc::clone(&ordered) }, Shutdown { receiver, ordered })
}

/// Tells every listener to stop. Dropping it tells them too.
#[derive(Debug)]
pub struct Trigger {
    /// Wakes those who wait.
    sender: watch::Sender<()>,
    ordered: Arc<AtomicBool>,
}

impl Trigger {
    /// Tells every listener, present and future.
    pub fn fire(&self) {
        self.ordered.store(true, Ordering::Release);
        self.sender.send_replace(());
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        self.fire();
    }
}

/// Hears of the stop.
#[derive(Clone, Debug)]
pub struct Shutdown {
    receiver: watch::Receiver<()>,
    /// The same as a flag, which is looked at more often than it is waited for.
    ordered: Arc<AtomicBool>,
}

impl Shutdown {
    /// Whether the stop was ordered already.
    #[must_use]
    pub fn ordered(&self) -> bool {
        self.ordered.load(Ordering::Acquire)
    }

    /// Waits for the stop; returns at once if it was ordered already.
    pub async fn recv(&mut self) {
        let ordered = &self.ordered;
        // An error means that the trigger is gone, which is a stop as well.
        let _ = self.receiver.wait_for(|()| ordered.load(Ordering::Acquire)).await.map(drop);
    }

    /// Waits for `future`, or for the stop, whichever comes first; `None` for the stop.
    pub async fn or<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let order = self.clone();
        // Without a budget of the runtime it would not begin to listen, and nobody would ask it again.
        let (mut future, mut stop) = (pin!(future), pin!(unconstrained(self.recv())));
        // Whom the stop wakes. As long as that is the same task, it need not be told again.
        let mut waiting: Option<Waker> = None;
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if waiting.as_ref().is_some_and(|w| w.will_wake(cx.waker())) && !order.ordered() => {
                Poll::Pending
            }
            Poll::Pending => {
                waiting = Some(cx.waker().clone());
                stop.as_mut().poll(cx).map(|()| None)
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;

    #[tokio::test]
    async fn the_stop_is_heard_by_whoever_begins_to_wait_without_a_budget() {
        let (trigger, mut stop) = channel();
        let waiting = tokio::spawn(async move {
            // All that a task may do before it is the others' turn.
            while pin!(tokio::task::consume_budget()).poll(&mut Context::from_waker(Waker::noop())).is_ready() {}
            stop.or(std::future::pending::<()>()).await
        });
        // It has been asked once more by then, with a budget, and sleeps.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        trigger.fire();
        let heard = tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await;
        assert_eq!(heard.expect("the stop was not heard").unwrap(), None);
    }

    #[tokio::test]
    async fn firing_reaches_listeners_made_before_and_after() {
        let (trigger, mut early) = channel();
        assert!(!early.ordered());
        trigger.fire();
        let mut late = early.clone();
        early.recv().await;
        late.recv().await;
        assert!(late.ordered());
    }

    #[tokio::test]
    async fn a_future_runs_until_the_stop() {
        let (trigger, mut shutdown) = channel();
        assert_eq!(shutdown.or(async { 7 }).await, Some(7));
        trigger.fire();
        assert_eq!(shutdown.or(std::future::pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn a_lost_trigger_is_a_stop() {
        let (trigger, mut shutdown) = channel();
        drop(trigger);
        shutdown.recv().await;
        assert!(shutdown.ordered());
    }
}
