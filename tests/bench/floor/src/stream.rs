//! Event streams on their way from the upstream to the client.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming};
use serde_json::value::RawValue;

use crate::Floor;
use crate::message::{response_id, with_id};
use crate::pool::Link;

/// How often hyper asks a body for its next piece, at most, before other tasks have their turn.
const ASKED_IN_A_TURN: u8 = 2;
/// Bytes that are held, at most, before they go on even if there is more.
const MOST_HELD: usize = 16 << 10;

/// An event stream that is handed through.
pub(crate) struct Stream {
    events: Events,
    from: Incoming,
    /// What has come and not gone on yet.
    held: Vec<u8>,
    /// How often it was asked since `held` grew.
    asked: u8,
    /// The connection it comes from, and where that goes at the end.
    link: Option<(Rc<Floor>, Link)>,
}

impl Stream {
    /// For an answer from `link` that holds the response to `ours`, which the client knows as `theirs`.
    pub(crate) fn new(from: Incoming, ours: &[u8], theirs: &[u8], floor: Rc<Floor>, link: Link) -> Self {
        let events = Events::new(Bytes::copy_from_slice(ours), Bytes::copy_from_slice(theirs));
        Self { events, from, held: Vec::new(), asked: 0, link: Some((floor, link)) }
    }

    fn give_back(&mut self) {
        if let Some((floor, link)) = self.link.take() {
            floor.pool.give_back(link);
        }
    }

    /// Gives what is held, if anything is.
    fn release(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| Ok(Frame::data(held.into())))
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = hyper::Error;

    /// Gives what comes in one turn of the runtime in one piece, so that it costs one write: the connection to the
    /// upstream hands over one event a turn, even where it has read them all.
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        while let Poll::Ready(frame) = Pin::new(&mut self.from).poll_frame(cx)? {
            let Some(frame) = frame else {
                self.give_back();
                return Poll::Ready(self.release());
            };
            let piece = frame.into_data().map(|piece| self.events.pass(piece)).unwrap_or_default();
            self.held.extend_from_slice(&piece);
            self.asked = 0;
            if self.held.len() >= MOST_HELD {
                return Poll::Ready(self.release());
            }
        }
        if self.held.is_empty() {
            return Poll::Pending;
        }
        if self.asked < ASKED_IN_A_TURN {
            self.asked += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.release())
    }

    fn is_end_stream(&self) -> bool {
        self.link.is_none() && self.held.is_empty()
    }
}

/// The bytes of an event stream. A message has to stand on one `data:` line, as MCP servers write it.
struct Events {
    ours: Bytes,
    theirs: Bytes,
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
}

impl Events {
    /// For the stream that holds the response to `ours`, which the client knows as `theirs`.
    fn new(ours: Bytes, theirs: Bytes) -> Self {
        Self { ours, theirs, held: Vec::new() }
    }

    /// Takes a piece of the stream and gives the lines that are whole by now, the response's id exchanged.
    fn pass(&mut self, piece: Bytes) -> Bytes {
        let mut lines = piece;
        if !self.held.is_empty() {
            self.held.extend_from_slice(&lines);
            lines = std::mem::take(&mut self.held).into();
        }
        let rest = lines.split_off(memchr::memrchr(b'\n', &lines).map_or(0, |end| end + 1));
        self.held.extend_from_slice(&rest);
        let Some(id) = self.response_id(&lines) else { return lines };
        with_id(&lines, id, &self.theirs).unwrap_or_default()
    }

    fn response_id<'a>(&self, mut lines: &'a [u8]) -> Option<&'a RawValue> {
        while let Some((line, rest)) = lines.split_at_checked(memchr::memchr(b'\n', lines)? + 1) {
            let id = line.strip_prefix(b"data:").and_then(|message| response_id(message, &self.ours));
            if id.is_some() {
                return id;
            }
            lines = rest;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_everything_but_the_id_wherever_they_are_cut() {
        let stream = "event: message\ndata: {\"method\":\"notifications/progress\",\"params\":{\"progress\":7}}\n\n\
                      data: {\"id\":7,\"result\":{}}\r\n\r\n";
        for cut in 0..stream.len() {
            let mut events = Events::new(Bytes::from_static(b"7"), Bytes::from_static(b"\"a\""));
            let (head, tail) = stream.as_bytes().split_at(cut);
            let passed = [head, tail].map(|piece| events.pass(Bytes::copy_from_slice(piece))).concat();
            assert_eq!(String::from_utf8(passed).unwrap(), stream.replace("\"id\":7", "\"id\":\"a\""), "{cut}");
        }
    }
}
