//! One accepted connection's socket, with the time limits that hyper does not have.
//!
//! hyper's own header timeout also runs while a kept-alive connection is merely idle, so the two limits are kept here: how
//! long a connection may wait for its next request, and how long the head may take once its first byte is there. While a
//! request is being served there is no limit on reading; the body has its own (`request`).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// What a connection is doing; shared by its socket and its requests.
#[derive(Clone)]
pub struct Phase(Arc<Shared>);

struct Shared {
    phase: AtomicU8,
    /// When the phase began.
    since: Mutex<Instant>,
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

impl Phase {
    fn new() -> Self {
        Self(Arc::new(Shared { phase: AtomicU8::new(IDLE), since: Mutex::new(Instant::now()) }))
    }

    fn set(&self, phase: u8) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.phase.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.phase.load(Ordering::Relaxed)
    }

    fn since(&self) -> Instant {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has arrived; until the guard is dropped nothing is read against a clock.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.0.phase.store(BUSY, Ordering::Relaxed);
        Busy(self.clone())
    }
}

/// Held while a request is served; its end makes the connection idle.
pub struct Busy(Phase);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(IDLE);
    }
}

/// How long reading may take.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// From the end of one answer to the first byte of the next request.
    pub idle: Duration,
    /// From the first byte of a head to its end.
    pub head: Duration,
}

/// A socket that fails a read with [`io::ErrorKind::TimedOut`] when a limit has passed.
pub struct Socket {
    stream: TokioIo<TcpStream>,
    phase: Phase,
    limits: ReadLimits,
    timer: Pin<Box<Sleep>>,
}

impl Socket {
    /// Wraps a fresh connection.
    #[must_use]
    pub fn new(stream: TcpStream, limits: ReadLimits) -> Self {
        let timer = Box::pin(tokio::time::sleep(limits.idle));
        Self { stream: TokioIo::new(stream), phase: Phase::new(), limits, timer }
    }

    /// The connection's phase, for its requests.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.clone()
    }

    /// Fails when the limit of the phase has passed. The timer is moved only when it rings too early or would ring too
    /// late, so that a busy connection does not touch the clock's queue for every request.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = match self.phase.get() {
            IDLE => self.limits.idle,
            HEAD => self.limits.head,
            _ => return Poll::Pending,
        };
        let deadline = self.phase.since() + limit;
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl Read for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.poll_limit(cx).map(Err),
            Poll::Ready(done) => {
                if self.phase.get() == IDLE {
                    self.phase.set(HEAD);
                }
                Poll::Ready(done)
            }
        }
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
