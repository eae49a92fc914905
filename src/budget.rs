//! Bytes held in buffers by all requests together, and their limit.
//!
//! Everything whose size a peer chooses and that has to be kept is counted here for as long as it is kept: the bodies of
//! requests, servers' answers while they are gathered, and answers until the client has taken them. One number for
//! the process, so that a thousand peers cannot do together what none of them may alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::Bytes;

use crate::metrics::Counter;

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
        match bytes >= self.bytes {
            true => self.budget.0.held.fetch_add(bytes - self.bytes, Ordering::Relaxed),
            false => self.budget.0.held.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
    }

    /// Goes on holding as long as any part of `bytes` is kept by anybody.
    #[must_use]
    pub fn keep(mut self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
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
        let budget = Budget::default();
        let (mut one, mut two) = (budget.hold(10), budget.hold(10));
        assert_eq!((one.resize(6), two.resize(4)), (Ok(()), Ok(())));
        assert_eq!((budget.held(), two.resize(5), budget.held()), (10, Err(Full), 10));
        assert_eq!((one.resize(5), two.resize(5), budget.held()), (Ok(()), Ok(()), 10));
        assert_eq!((budget.admit(10), budget.admit(9), budget.refused()), (Ok(()), Err(Full), 2));
        two.set(50);
        assert_eq!((budget.held(), two.resize(40), two.resize(41)), (55, Ok(()), Err(Full)));
        drop(one);
        assert_eq!(budget.held(), 40);
        drop(two);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn bytes_count_until_the_last_part_of_them_is_gone() {
        let budget = Budget::default();
        let bytes = budget.hold(0).keep(Bytes::from_static(b"abcdef"));
        assert_eq!((&bytes[..], budget.held()), (&b"abcdef"[..], 6));
        let part = bytes.slice(2..3);
        drop(bytes);
        assert_eq!((&part[..], budget.held()), (&b"c"[..], 6));
        drop(part);
        assert_eq!(budget.held(), 0);
        assert!(budget.hold(0).keep(Bytes::new()).is_empty() && budget.held() == 0);
    }
}
