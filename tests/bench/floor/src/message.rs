//! JSON-RPC messages as bytes: what stands in one, and its id exchanged without touching anything else.

use std::borrow::Cow;

use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What a gateway has to know of a message; everything else is checked to be JSON and passed over.
#[derive(Deserialize)]
pub(crate) struct Envelope<'a> {
    /// The id as it is written. None: a notification.
    #[serde(borrow)]
    pub(crate) id: Option<&'a RawValue>,
    /// Empty: a response.
    #[serde(borrow, default)]
    pub(crate) method: Cow<'a, str>,
    /// Of the parameters, those that say who is meant.
    #[serde(borrow, default)]
    pub(crate) params: Params<'a>,
}

/// The parameters of `tools/call`, but for the arguments.
#[derive(Default, Deserialize)]
pub(crate) struct Params<'a> {
    /// The tool.
    #[serde(borrow, default)]
    pub(crate) name: Cow<'a, str>,
}

/// Gives `message` with `new` in the place of `id`, which was read from it. Allocates once.
pub(crate) fn with_id(message: &[u8], id: &RawValue, new: &[u8]) -> Option<Bytes> {
    let start = id.get().as_ptr().addr().checked_sub(message.as_ptr().addr())?;
    let (head, rest) = message.split_at_checked(start)?;
    let tail = rest.get(id.get().len()..)?;
    Some([head, new, tail].concat().into())
}

/// Gives a response with the client's id instead of ours; None if `message` is not the response to `ours`.
pub(crate) fn answer(message: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Bytes> {
    with_id(message, response_id(message, ours)?, theirs)
}

/// Gives the id in `message` if that is the response to `ours`.
fn response_id<'a>(message: &'a [u8], ours: &[u8]) -> Option<&'a RawValue> {
    let envelope: Envelope<'_> = serde_json::from_slice(message).ok()?;
    envelope.id.filter(|id| envelope.method.is_empty() && id.get().as_bytes() == ours)
}

/// An event stream on its way to the client. A message has to stand on one `data:` line, as MCP servers write it.
pub(crate) struct Events {
    ours: Bytes,
    theirs: Bytes,
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
}

impl Events {
    /// For the stream that holds the response to `ours`, which the client knows as `theirs`.
    pub(crate) fn new(ours: Bytes, theirs: Bytes) -> Self {
        Self { ours, theirs, held: Vec::new() }
    }

    /// Takes a piece of the stream and gives the lines that are whole by now, the response's id exchanged.
    pub(crate) fn pass(&mut self, piece: Bytes) -> Bytes {
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

    #[track_caller]
    fn check(message: &str, expected: Option<&str>) {
        let found = answer(message.as_bytes(), b"7", br#""a""#);
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{message}");
    }

    #[test]
    fn only_the_id_of_the_response_is_exchanged() {
        check(r#"{"id":7,"result":{"id":7}}"#, Some(r#"{"id":"a","result":{"id":7}}"#));
        check(r#" { "result" : {} , "id" : 7 } "#, Some(r#" { "result" : {} , "id" : "a" } "#));
        check(r#"{"id":8,"result":{}}"#, None);
        check(r#"{"id":7,"method":"ping"}"#, None);
        check(r#"{"id":7"#, None);
    }

    #[test]
    fn a_call_tells_its_tool() {
        let message =
            br#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"arguments":{"name":1},"name":"\u0065cho"}}"#;
        let envelope: Envelope<'_> = serde_json::from_slice(message).unwrap();
        assert_eq!((&*envelope.method, &*envelope.params.name), ("tools/call", "echo"));
        let own = with_id(message, envelope.id.unwrap(), b"12").unwrap();
        assert!(own.starts_with(br#"{"jsonrpc":"2.0","id":12,"method""#), "{own:?}");
    }

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
