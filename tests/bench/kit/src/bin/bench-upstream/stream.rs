//! Event streams: progress, then the result.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::time::{Sleep, sleep};

/// The body of an answer that is an event stream: each event is a piece of its own.
pub(crate) struct Events {
    /// The client's progress token as JSON. None: only the result comes.
    token: Option<String>,
    /// Number of the next progress notification, and of all.
    next: u64,
    all: u64,
    pause: Duration,
    asleep: Option<Pin<Box<Sleep>>>,
    /// The message that ends the stream; None when it was sent.
    last: Option<String>,
}

impl Events {
    pub(crate) fn new(token: Option<&str>, events: u64, interval_ms: u64, last: String) -> Self {
        let all = if token.is_some() { events } else { 0 };
        let pause = Duration::from_millis(interval_ms);
        Self { token: token.map(str::to_owned), next: 1, all, pause, asleep: None, last: Some(last) }
    }

    fn event(&mut self) -> Option<String> {
        if self.next > self.all {
            return self.last.take().map(|message| format!("event: message\ndata: {message}\n\n"));
        }
        let (token, next, all) = (self.token.as_deref().unwrap_or("null"), self.next, self.all);
        self.next += 1;
        let params = format!(r#"{{"progressToken":{token},"progress":{next},"total":{all},"message":"step {next}"}}"#);
        let message = format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#);
        Some(format!("event: message\ndata: {message}\n\n"))
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.pause > Duration::ZERO && self.next <= self.all {
            let pause = self.pause;
            let asleep = self.asleep.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(asleep.as_mut().poll(cx));
            self.asleep = None;
        }
        Poll::Ready(self.event().map(|event| Ok(Frame::data(event.into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_before_the_result_and_only_to_who_asked_for_it() {
        let mut events = Events::new(Some("\"t\""), 2, 0, "{}".to_owned());
        let all: Vec<String> = std::iter::from_fn(|| events.event()).collect();
        assert_eq!(all.len(), 3);
        assert!(all[1].contains(r#""progressToken":"t","progress":2,"total":2"#), "{}", all[1]);
        assert_eq!(all[2], "event: message\ndata: {}\n\n");
        let mut events = Events::new(None, 2, 0, "{}".to_owned());
        assert_eq!(std::iter::from_fn(|| events.event()).count(), 1);
    }
}
