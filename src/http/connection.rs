//! One accepted connection's socket, with the time limits that hyper does not have.
//!
//! hyper's own header timeout also runs while a kept-alive connection is merely idle, so the two limits are kept here: how
//! long a connection may wait for its next request, and how long the head may take once its first byte is there. While a
//! request is being served there is no limit on reading; the body has its own (`request`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::alarm::{Alarm, Alarms};

/// What a connection is doing; shared by its socket and its requests.
#[derive(Clone, Default)]
pub struct Phase(Arc<AtomicU8>);

/// Nothing: it waits for the next request.
const IDLE: u8 = 0;
/// The head of a request has begun to come.
const HEAD: u8 = 1;
/// A request is served.
const BUSY: u8 = 2;

impl Phase {
    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// A request has arrived; until the guard is dropped nothing is read against a clock.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.set(BUSY);
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

/// How long reading and writing may take.
#[derive(Clone, Copy, Debug)]
pub struct IoLimits {
    /// From the end of one answer to the first byte of the next request.
    pub idle: Duration,
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// How long the peer may take nothing of an answer.
    pub stall: Duration,
}

/// A socket that fails a read with [`io::ErrorKind::TimedOut`] when a limit has passed.
pub struct Socket {
    stream: TokioIo<TcpStream>,
    phase: Phase,
    /// The phase in which something was waited for last, and since when. The clock is only read to begin to wait.
    waiting: Option<(u8, Instant)>,
    limits: IoLimits,
    alarm: Alarm,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs while a closed connection is listened to.
    closing: Option<Pin<Box<Sleep>>>,
}

/// How long, and how much, a peer may go on sending after its connection was closed from this side. Closing at once would
/// reset the connection, and the peer might never see the answer that told it why.
const LINGER: Duration = Duration::from_secs(1);
const SCRATCH: usize = 16 * 1024;

impl Socket {
    /// Wraps a fresh connection.
    #[must_use]
    pub fn new(stream: TcpStream, limits: IoLimits, alarms: &Alarms) -> Self {
        let alarm = alarms.after(limits.idle);
        let (stream, phase) = (TokioIo::new(stream), Phase::default());
        Self { stream, phase, waiting: None, limits, alarm, stalled: None, closing: None }
    }

    /// The connection's phase, for its requests.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.clone()
    }

    /// Fails when the limit of the phase has passed. The timer is moved only when it rings too early or would ring too
    /// late, so that a busy connection does not touch the clock's queue for every request.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let phase = self.phase.get();
        let limit = match phase {
            // Not idle yet: the end of an answer is still on its way.
            IDLE if self.stalled.is_some() => return Poll::Pending,
            IDLE => self.limits.idle,
            HEAD => self.limits.head,
            _ => {
                self.waiting = None;
                return Poll::Pending;
            }
        };
        let since = match self.waiting {
            Some((same, since)) if same == phase => since,
            _ => self.waiting.insert((phase, Instant::now())).1,
        };
        self.alarm.move_to(since + limit);
        self.alarm.poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }
}

impl Socket {
    /// What a write comes to: one that the peer does not let happen fails when the limit has passed.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.waiting = None;
            }
            return written;
        }
        let limit = self.limits.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and throws away what the peer still sends, until it has closed its side or time is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closing = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; SCRATCH];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, buffer.unfilled())) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
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
                    self.waiting = None;
                }
                Poll::Ready(done)
            }
        }
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }
}
