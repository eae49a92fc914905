//! What waits to be sent to one listener: of lists and resources only that they changed, so that a slow reader costs no
//! more than a quick one; and messages, up to a limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::upstream::Subscription;
use crate::wire::changes::{Change, Changes};

/// Messages that may wait, and their bytes.
const MOST_MESSAGES: usize = 256;
const MOST_BYTES: usize = 1024 * 1024;
/// Resources that are named as their servers name them, and bytes of these names; beyond, as they were subscribed to.
const MOST_URIS: usize = 1_000;
const MOST_URI_BYTES: usize = 256 * 1024;

/// One thing to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A list has changed.
    Changed(Change),
    /// A resource was updated.
    Updated(String),
    /// A message, as it is.
    Message(Vec<u8>),
}

/// Whether a message may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Progress or a log message: the client can do without.
    Little,
    /// Without it the stream is of no use.
    Much,
}

/// What waits for one listener. Read by one stream at a time, the newest; it outlives them where a session does.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// The resources of whose changes it is told, by URI.
    held: Mutex<BTreeMap<String, Subscription>>,
    /// Those of which it is to be told again, once there is a subscription. Locked before `held`.
    awaited: Mutex<BTreeSet<String>>,
    /// The tasks, by the id that the client knows.
    tasks: Mutex<BTreeMap<String, Followed>>,
}

/// A task of which a stream is told.
pub(super) struct Followed {
    pub(super) subscription: Subscription,
    /// The request that opened the stream.
    pub(super) stream: Arc<[u8]>,
}

#[derive(Default)]
struct Queue {
    changed: Changes,
    updated: BTreeSet<String>,
    /// Of these.
    uri_bytes: usize,
    messages: VecDeque<(Vec<u8>, Worth)>,
    /// Of the messages.
    bytes: usize,
    /// Counts the readers; another than the last has to end.
    readers: u64,
    /// Whether the last of them is there.
    is_read: bool,
    waker: Option<Waker>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn held(&self) -> MutexGuard<'_, BTreeMap<String, Subscription>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn awaited(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Followed>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits, and wakes the reader.
    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        change(&mut queue);
        let waker = queue.waker.take();
        drop(queue);
        waker.inspect(Waker::wake_by_ref);
    }

    /// Begins to read; whoever read before has to end. Returns what the reader is known by.
    pub(super) fn attach(&self) -> u64 {
        let mut reader = 0;
        self.change(|queue| {
            queue.readers += 1;
            queue.is_read = true;
            reader = queue.readers;
        });
        reader
    }

    /// Ends reading. Messages are not kept for the next reader.
    pub(super) fn detach(&self, reader: u64) {
        let mut queue = self.lock();
        if queue.readers == reader {
            queue.is_read = false;
            queue.messages.clear();
            queue.bytes = 0;
        }
    }

    /// Has whoever reads end.
    pub(super) fn end(&self) {
        self.change(Queue::end);
    }

    /// Has this reader end, if it is the one that reads.
    pub(super) fn end_of(&self, reader: u64) {
        self.change(|queue| {
            if queue.readers == reader {
                queue.end();
            }
        });
    }

    /// Whether there is a reader.
    pub(super) fn is_read(&self) -> bool {
        self.lock().is_read
    }

    /// Has it told that a list has changed.
    pub(super) fn changed(&self, list: Change) {
        self.change(|queue| queue.changed.add(list));
    }

    /// Has it told that a resource was updated, which lies below one that was subscribed to or is that one.
    pub(super) fn updated(&self, subscribed: &str, uri: &str) {
        self.change(|queue| {
            let fits = queue.updated.len() < MOST_URIS && queue.uri_bytes + uri.len() <= MOST_URI_BYTES;
            let uri = if fits { uri } else { subscribed };
            if queue.updated.insert(uri.to_owned()) {
                queue.uri_bytes += uri.len();
            }
        });
    }

    /// Has a message sent, if there is a reader; false if there is none. A reader that is too slow for messages that must
    /// not be lost has to end.
    pub(super) fn push(&self, message: Vec<u8>, worth: Worth) -> bool {
        if !self.is_read() {
            return false;
        }
        let mut overrun = false;
        self.change(|queue| {
            let needed = message.len();
            if !queue.has_room(needed, worth) && worth == Worth::Much {
                queue.messages.retain(|(_, worth)| *worth == Worth::Much);
                queue.bytes = queue.messages.iter().map(|(message, _)| message.len()).sum();
            }
            match (queue.has_room(needed, worth), worth) {
                (true, _) => {
                    queue.bytes += needed;
                    queue.messages.push_back((message, worth));
                }
                (false, Worth::Little) => {}
                (false, Worth::Much) => overrun = true,
            }
        });
        if overrun {
            self.end();
        }
        !overrun
    }

    /// What is to be sent next; `None` when this reader has to end.
    pub(super) fn poll_next(&self, reader: u64, cx: &Context<'_>) -> Poll<Option<News>> {
        let mut queue = self.lock();
        if queue.readers != reader {
            return Poll::Ready(None);
        }
        if let Some((message, _)) = queue.messages.pop_front() {
            queue.bytes -= message.len();
            return Poll::Ready(Some(News::Message(message)));
        }
        if let Some(list) = queue.changed.pop() {
            return Poll::Ready(Some(News::Changed(list)));
        }
        if let Some(uri) = queue.updated.pop_first() {
            queue.uri_bytes -= uri.len();
            return Poll::Ready(Some(News::Updated(uri)));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Queue {
    fn end(&mut self) {
        self.readers += 1;
        self.is_read = false;
    }

    fn has_room(&self, bytes: usize, worth: Worth) -> bool {
        let fits = self.messages.len() < MOST_MESSAGES && self.bytes + bytes <= MOST_BYTES;
        // One that must not be lost may be as large as its server's events, if it is alone.
        fits || (worth == Worth::Much && self.messages.is_empty())
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::iter::from_fn;

    use super::*;

    /// What is there now.
    fn read(outbox: &Outbox, reader: u64) -> Vec<News> {
        let next = || match outbox.poll_next(reader, &Context::from_waker(Waker::noop())) {
            Poll::Ready(news) => news,
            Poll::Pending => None,
        };
        from_fn(next).collect()
    }

    fn is_over(outbox: &Outbox, reader: u64) -> bool {
        outbox.poll_next(reader, &Context::from_waker(Waker::noop())) == Poll::Ready(None)
    }

    fn message(text: &str) -> News {
        News::Message(text.as_bytes().to_vec())
    }

    #[test]
    fn what_changed_is_told_once_however_often_it_did() {
        let outbox = Outbox::default();
        let reader = outbox.attach();
        for _ in 0..1_000 {
            outbox.changed(Change::Tools);
            outbox.changed(Change::Resources);
            outbox.updated("a", "a");
            outbox.updated("a", "a/b");
        }
        let updated = |uri: &str| News::Updated(uri.to_owned());
        let expected = [News::Changed(Change::Tools), News::Changed(Change::Resources), updated("a"), updated("a/b")];
        assert_eq!(read(&outbox, reader), expected);
        assert_eq!(read(&outbox, reader), []);
    }

    #[test]
    fn resources_below_one_are_named_up_to_a_limit() {
        let outbox = Outbox::default();
        (0..2 * MOST_URIS).for_each(|n| outbox.updated("a", &format!("a/{n}")));
        let told = read(&outbox, outbox.attach());
        assert_eq!(told.len(), MOST_URIS + 1);
        assert!(told.contains(&News::Updated("a".to_owned())));
    }

    #[test]
    fn the_newest_reader_wins_and_gets_what_nobody_has_read() {
        let outbox = Outbox::default();
        outbox.updated("a", "a");
        let first = outbox.attach();
        let second = outbox.attach();
        assert!(is_over(&outbox, first) && outbox.is_read());
        // The one that had to end takes nothing with it.
        outbox.detach(first);
        outbox.end_of(first);
        assert!(outbox.is_read());
        assert_eq!(read(&outbox, second), [News::Updated("a".to_owned())]);
        outbox.end_of(second);
        assert!(is_over(&outbox, second) && !outbox.is_read());
    }

    #[test]
    fn messages_are_for_whoever_reads_now() {
        let outbox = Outbox::default();
        assert!(!outbox.push(b"lost".to_vec(), Worth::Much));
        let reader = outbox.attach();
        assert!(outbox.push(b"1".to_vec(), Worth::Little) && outbox.push(b"2".to_vec(), Worth::Much));
        assert_eq!(read(&outbox, reader), [message("1"), message("2")]);
        assert!(outbox.push(b"3".to_vec(), Worth::Much));
        outbox.detach(reader);
        assert_eq!(read(&outbox, outbox.attach()), []);
    }

    #[test]
    fn what_can_be_done_without_is_lost_first_and_then_the_stream_ends() {
        let outbox = Outbox::default();
        let reader = outbox.attach();
        (0..MOST_MESSAGES).for_each(|_| assert!(outbox.push(b"log".to_vec(), Worth::Little)));
        assert!(outbox.push(b"late".to_vec(), Worth::Little));
        assert!(outbox.push(b"kept".to_vec(), Worth::Much));
        assert_eq!(read(&outbox, reader), [message("kept")]);
        assert!(outbox.push(vec![b'x'; MOST_BYTES], Worth::Much));
        assert!(!outbox.push(b"one too many".to_vec(), Worth::Much));
        assert!(is_over(&outbox, reader));
    }

    #[test]
    fn long_names_of_resources_cost_no_more_than_others() {
        let outbox = Outbox::default();
        let reader = outbox.attach();
        for round in 0..2 {
            (0..100).for_each(|n| outbox.updated("a", &format!("a/{n}{}", "x".repeat(MOST_URI_BYTES / 10))));
            let told = read(&outbox, reader);
            let bytes: usize = told.iter().map(|news| if let News::Updated(uri) = news { uri.len() } else { 0 }).sum();
            assert!((MOST_URI_BYTES / 2..=MOST_URI_BYTES + 1).contains(&bytes), "{round}: {bytes}");
            assert!(told.contains(&News::Updated("a".to_owned())), "{round}");
        }
    }

    #[test]
    fn what_can_be_done_without_is_never_large() {
        let outbox = Outbox::default();
        let reader = outbox.attach();
        let large = vec![b'x'; MOST_BYTES + 1];
        assert!(outbox.push(large.clone(), Worth::Little) && outbox.push(b"small".to_vec(), Worth::Little));
        assert_eq!(read(&outbox, reader), [message("small")]);
        assert!(outbox.push(large.clone(), Worth::Much));
        assert_eq!(read(&outbox, reader), [News::Message(large)]);
    }
}
