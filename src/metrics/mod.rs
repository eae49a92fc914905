//! Counters, gauges and histograms, and the text in which Prometheus reads them.
//!
//! An instrument is a few atomics, so that counting takes no lock and allocates nothing. It belongs to whoever counts;
//! there is no register of all. Whoever is asked for metrics reads the instruments and writes them into a [`Text`].
//! What is only a matter of looking, such as how many sessions there are, has no instrument and is looked up then.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | the instruments |
//! | `text` | [`Text`]: the exposition format |
//! | `process` | [`process::Process`]: this process, as the kernel sees it |

pub mod process;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use self::text::{Family, Kind, Text};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there have been.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many of something there are. Counted by guards, so that it comes back to 0 however each of them ends.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Counts one while the guard lives.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.0))
    }

    /// How many there are now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of what a [`Gauge`] counts.
#[derive(Debug)]
pub struct Held(Arc<AtomicU64>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Upper ends of a histogram's buckets, in seconds: from an answer out of memory to a call that takes minutes.
const BOUNDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many ended up in each bucket alone; the last is for those beyond all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// All of them together, in nanoseconds: enough for 584 years.
    nanos: AtomicU64,
}

impl Histogram {
    /// Adds one.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Each bound with the number of those that took no longer.
    fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        BOUNDS.into_iter().chain([f64::INFINITY]).zip(&self.buckets).map(move |(bound, bucket)| {
            sum += bucket.load(Ordering::Relaxed);
            (bound, sum)
        })
    }

    /// All of them together, in seconds.
    fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// One instrument for each of a few words that are known beforehand, so that no peer can make new series.
#[derive(Debug)]
pub struct Words<T>(Vec<(&'static str, T)>);

impl<T> Words<T> {
    /// Makes an instrument for every word.
    pub fn new(words: impl IntoIterator<Item = &'static str>, make: impl Fn() -> T) -> Self {
        Self(words.into_iter().map(|word| (word, make())).collect())
    }

    /// The instrument of a word, or else that of the last one.
    #[must_use]
    pub fn of(&self, word: &str) -> Option<&T> {
        let same = self.0.iter().find(|(known, _)| std::ptr::eq(*known, word));
        let found = same.or_else(|| self.0.iter().find(|(known, _)| *known == word));
        found.or(self.0.last()).map(|(_, instrument)| instrument)
    }

    /// Every word with its instrument.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        self.0.iter().map(|(word, instrument)| (*word, instrument))
    }
}

impl Words<Counter> {
    /// Makes a counter for every word.
    pub fn counters(words: impl IntoIterator<Item = &'static str>) -> Self {
        Self::new(words, Counter::default)
    }

    /// Counts one of this word.
    pub fn inc(&self, word: &str) {
        self.of(word).inspect(|counter| counter.inc());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_0_when_all_guards_are_gone() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.hold(), gauge.hold());
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        drop(two);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_bucket_has_everything_up_to_its_bound() {
        let histogram = Histogram::default();
        for millis in [0, 1, 2, 1_000, 1_001, 300_000, 300_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let cumulated: Vec<(f64, u64)> = histogram.cumulated().collect();
        let of = |bound: f64| cumulated.iter().find(|(b, _)| *b == bound).unwrap().1;
        assert_eq!((of(0.001), of(0.0025), of(0.5), of(1.0), of(2.5)), (2, 3, 3, 4, 5));
        assert_eq!((of(300.0), of(f64::INFINITY)), (6, 7));
        assert!((histogram.seconds() - 602.005).abs() < 1e-6, "{}", histogram.seconds());
    }

    #[test]
    fn unknown_words_count_as_the_last() {
        let words = Words::counters(["a", "other"]);
        for word in ["a", "b", "", "other"] {
            words.inc(word);
        }
        let counts: Vec<_> = words.iter().map(|(word, counter)| (word, counter.get())).collect();
        assert_eq!(counts, [("a", 1), ("other", 3)]);
    }
}
