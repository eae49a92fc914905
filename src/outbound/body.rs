//! The body of an answer, which knows the connection it comes over.
//!
//! Reads nothing ahead, limits nothing and changes nothing; at the end of the body the connection goes back to the pool.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, body};

use super::connect::Link;
use super::error::OutboundError;
use super::pool::Pool;

/// Longest time an idle connection is reused for: Node and uvicorn close theirs after 5 s.
const IDLE: Duration = Duration::from_secs(4);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The body of an answer, as it arrives.
///
/// Read to its end, it leaves its connection to the next request; dropped before, it closes it. (An answer that has
/// arrived whole but was not looked at leaves its connection, too; one that came before the end of its request does
/// not.)
pub struct Incoming {
    body: body::Incoming,
    /// The connection, until the end of the body or its first error.
    lease: Option<Lease>,
}

/// A connection on loan from its pool.
struct Lease {
    link: Link,
    pool: Arc<Pool>,
    /// How long the connection may wait for its next request.
    idle: Duration,
}

impl Incoming {
    /// Puts an answer's body and the connection it comes over together.
    pub(super) fn wrap(answer: Response<body::Incoming>, link: Link, pool: &Arc<Pool>) -> Response<Self> {
        let idle = idle_time(answer.headers());
        let lease = Lease { link, pool: Arc::clone(pool), idle };
        answer.map(|body| {
            let mut incoming = Self { body, lease: Some(lease) };
            incoming.settle();
            incoming
        })
    }

    /// Gives the connection back if nothing of the body is left to come.
    fn settle(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(Lease { link, pool, idle }) = self.lease.take() {
            pool.put(link, idle);
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = OutboundError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OutboundError>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.settle();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.lease = None;
                Some(Err(error.into()))
            }
            None => {
                self.give_back();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.lease.as_ref().is_some_and(|lease| lease.link.sender.is_ready()) {
            self.give_back();
        }
    }
}

/// How long the connection of an answer with these headers may stay idle: at most [`IDLE`], and a second less than the
/// server announces (`Keep-Alive: timeout=N`, RFC 2068 19.7.1), so that it does not close while a request is on its way.
fn idle_time(headers: &HeaderMap) -> Duration {
    let announced = headers
        .get_all(KEEP_ALIVE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .filter_map(|(_, seconds)| seconds.trim().parse::<u64>().ok())
        .min();
    announced.map_or(IDLE, |seconds| IDLE.min(Duration::from_secs(seconds.saturating_sub(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], seconds: u64) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("keep-alive", value.parse().unwrap());
        }
        assert_eq!(idle_time(&headers), Duration::from_secs(seconds), "{values:?}");
    }

    #[test]
    fn the_announced_timeout_less_a_second_limits_reuse() {
        check(&[], 4);
        check(&["timeout=5"], 4);
        check(&["timeout=5, max=1000"], 4);
        check(&["timeout=75"], 4);
        check(&["timeout=4"], 3);
        check(&["max=100, Timeout = 2"], 1);
        check(&["timeout=1"], 0);
        check(&["timeout=0"], 0);
        check(&["timeout=3", "timeout=2"], 1);
        check(&["timeout=18446744073709551615"], 4);
    }

    #[test]
    fn a_timeout_that_is_no_number_is_passed_over() {
        check(&["timeout=soon"], 4);
        check(&["timeout"], 4);
        check(&["timeout=-1"], 4);
        check(&["timeout=18446744073709551616"], 4);
    }
}
