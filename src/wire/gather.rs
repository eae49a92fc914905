//! A body put together from its chunks, up to a limit.

use hyper::body::Bytes;

/// A body that is larger than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: usize,
}

/// Chunks being put together. Nearly every body is one chunk, which is then used as it is.
#[derive(Debug)]
pub struct Gather {
    limit: usize,
    /// Bytes that were announced.
    announced: usize,
    first: Bytes,
    /// Everything, once there is a second chunk.
    all: Vec<u8>,
}

impl Gather {
    /// Starts an empty body of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, announced: 0, first: Bytes::new(), all: Vec::new() }
    }

    /// The same for a body of which so many bytes were announced.
    #[must_use]
    pub fn expecting(limit: usize, announced: u64) -> Self {
        // SECURITY: an announcement is no more than that, and room is made for what somebody only says up to here.
        const MOST: usize = 1024 * 1024;
        Self { announced: usize::try_from(announced).unwrap_or(MOST).min(MOST), ..Self::new(limit) }
    }

    /// Bytes that have come.
    #[must_use]
    pub fn held(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// [`TooLarge`]; the chunk is not added then.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), TooLarge> {
        if self.held() + chunk.len() > self.limit {
            return Err(TooLarge { limit: self.limit });
        }
        if self.first.is_empty() && self.all.is_empty() {
            self.first = chunk;
            return Ok(());
        }
        if self.all.is_empty() {
            self.all.reserve_exact(self.announced.max(self.first.len() + chunk.len()).min(self.limit));
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&chunk);
        Ok(())
    }

    /// Takes the body.
    pub fn finish(&mut self) -> Bytes {
        if self.all.is_empty() { std::mem::take(&mut self.first) } else { std::mem::take(&mut self.all).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limit: usize, chunks: &[&'static str], expected: Result<&'static str, TooLarge>) {
        let mut gather = Gather::new(limit);
        let pushed: Result<(), TooLarge> =
            chunks.iter().try_for_each(|chunk| gather.push(Bytes::from_static(chunk.as_bytes())));
        let found = pushed.map(|()| String::from_utf8(gather.finish().to_vec()).unwrap());
        assert_eq!(found, expected.map(str::to_owned), "{chunks:?}");
    }

    #[test]
    fn chunks_are_put_together_up_to_the_limit() {
        check(5, &[], Ok(""));
        check(5, &["abcde"], Ok("abcde"));
        check(5, &["a", "", "bc", "de"], Ok("abcde"));
        check(5, &["", "abcde"], Ok("abcde"));
        check(5, &["abcdef"], Err(TooLarge { limit: 5 }));
        check(5, &["abc", "def"], Err(TooLarge { limit: 5 }));
        check(0, &["a"], Err(TooLarge { limit: 0 }));
    }

    #[test]
    fn a_single_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"abc");
        let mut gather = Gather::new(9);
        gather.push(chunk.clone()).unwrap();
        assert_eq!(gather.finish().as_ptr(), chunk.as_ptr());
    }
}
