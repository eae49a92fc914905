//! Bytes held in buffers by all requests together, and their limit.
//!
//! Everything whose size a peer chooses and that has to be kept is counted here for as long as it is kept: the bodies of
//! requests, servers' answers while they are gathered, and answers until the client has taken them. One number for
//! the process, so that a thousand peers cannot do together what none of them may alone.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::Bytes;

use crate::metrics::Counter;

/// Bytes up to which something is not counted at all: a connection's own buffers, which nobody counts either, are twice as
/// large, and there is a limit on connections and on calls.
const SMALL: usize = 4 * 1024;

/// What so many bytes count as.
fn counted(bytes: usize) -> usize {
    if bytes <= SMALL { 0 } else { bytes }
}

/// More than all requests together may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What all requests hold; clones are the same number.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Total>);

#[derive(Debug, Default)]
struct Total {
    held: AtomicUsize,
    /// How often something was refused for it.
    refused: Counter,
}

impl Budget {
    /// Begins to hold; nothing at first. `limit` is for all holdings together.
    #[must_use]
    pub fn hold(&self, limit: usize) -> Holding {
        Holding { budget: self.clone(), bytes: 0, limit }
    }

    /// Holds `bytes`, whatever the limit, as long as any part of them is kept by anybody.
    #[must_use]
    pub fn keep(&self, bytes: Bytes) -> Bytes {
        if counted(bytes.len()) == 0 { bytes } else { self.hold(usize::MAX).keep(bytes) }
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// How often something was refused because too much was held.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    /// Checks that there is room for something new.
    ///
    /// # Errors
    /// [`Full`] if more than `limit` bytes are held.
    pub fn admit(&self, limit: usize) -> Result<(), Full> {
        if self.held() <= limit { Ok(()) } else { Err(self.refuse()) }
    }

    fn refuse(&self) -> Full {
        self.0.refused.inc();
        Full
    }
}

/// What one of them holds; given back on drop.
#[derive(Debug)]
pub struct Holding {
    budget: Budget,
    bytes: usize,
    limit: usize,
}

impl Holding {
    /// Notes that it is so many bytes now.
    ///
    /// # Errors
    /// [`Full`] if it would be more than before and everything together beyond the limit; then nothing changes.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Full> {
        let bytes = counted(bytes);
        if bytes <= self.bytes {
            self.set(bytes);
            return Ok(());
        }
        let (more, limit) = (bytes - self.bytes, self.limit);
        let grown = |held: usize| held.checked_add(more).filter(|sum| *sum <= limit);
        match self.budget.0.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => self.bytes = bytes,
            Err(_) => return Err(self.budget.refuse()),
        }
        Ok(())
    }

    /// Notes that it is so many bytes now, whatever the limit.
    pub fn set(&mut self, bytes: usize) {
        let bytes = counted(bytes);
        match bytes.cmp(&self.bytes) {
            Less => self.budget.0.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
            Equal => return,
            Greater => self.budget.0.held.fetch_add(bytes - self.bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
    }

    /// Goes on holding as long as any part of `bytes` is kept by anybody.
    #[must_use]
    pub fn keep(mut self, bytes: Bytes) -> Bytes {
        if counted(bytes.len()) == 0 {
            return bytes;
        }
        self.set(bytes.len());
        Bytes::from_owner(Kept { bytes, _holding: self })
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes together with what they count as.
struct Kept {
    bytes: Bytes,
    _holding: Holding,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_exceed_the_limit_is_refused_and_what_shrinks_is_not() {
        const K: usize = 2 * SMALL;
        let budget = Budget::default();
        let (mut one, mut two) = (budget.hold(10 * K), budget.hold(10 * K));
        assert_eq!((one.resize(6 * K), two.resize(4 * K)), (Ok(()), Ok(())));
        assert_eq!((budget.held(), two.resize(5 * K), budget.held()), (10 * K, Err(Full), 10 * K));
        assert_eq!((one.resize(5 * K), two.resize(5 * K), budget.held()), (Ok(()), Ok(()), 10 * K));
        assert_eq!((budget.admit(10 * K), budget.admit(9 * K), budget.refused()), (Ok(()), Err(Full), 2));
        two.set(50 * K);
        assert_eq!((budget.held(), two.resize(40 * K), two.resize(41 * K)), (55 * K, Ok(()), Err(Full)));
        drop(one);
        assert_eq!(budget.held(), 40 * K);
        drop(two);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_is_small_counts_as_nothing() {
        let budget = Budget::default();
        let mut holding = budget.hold(0);
        assert_eq!((holding.resize(SMALL), budget.held()), (Ok(()), 0));
        assert_eq!(holding.resize(SMALL + 1), Err(Full));
        holding.set(SMALL + 1);
        assert_eq!(budget.held(), SMALL + 1);
        assert_eq!((holding.resize(SMALL), budget.held()), (Ok(()), 0));
    }

    #[test]
    fn bytes_count_until_the_last_part_of_them_is_gone() {
        let budget = Budget::default();
        let large: Bytes = vec![b'x'; SMALL + 1].into();
        let bytes = budget.hold(0).keep(large.clone());
        assert_eq!((&bytes, budget.held()), (&large, SMALL + 1));
        let part = bytes.slice(2..3);
        drop(bytes);
        assert_eq!((&part[..], budget.held()), (&b"x"[..], SMALL + 1));
        drop(part);
        assert_eq!(budget.held(), 0);
        let mut holding = budget.hold(0);
        holding.set(SMALL);
        let small = holding.keep(large.slice(1..));
        assert_eq!((small.len(), budget.held()), (SMALL, 0));
    }
}
