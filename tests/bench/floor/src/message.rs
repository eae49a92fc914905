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

impl<'a> Envelope<'a> {
    /// Reads a client's message; None if it is not one. Whether it is UTF-8 is asked once, not string by string.
    pub(crate) fn read(message: &'a [u8]) -> Option<Self> {
        serde_json::from_str(str::from_utf8(message).ok()?).ok()
    }
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
pub(crate) fn response_id<'a>(message: &'a [u8], ours: &[u8]) -> Option<&'a RawValue> {
    // What is in the result is not looked at: whether it is UTF-8, the client will see.
    let envelope: Envelope<'_> = serde_json::from_slice(message).ok()?;
    envelope.id.filter(|id| envelope.method.is_empty() && id.get().as_bytes() == ours)
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
        let envelope = Envelope::read(message).unwrap();
        assert_eq!((&*envelope.method, &*envelope.params.name), ("tools/call", "echo"));
        let own = with_id(message, envelope.id.unwrap(), b"12").unwrap();
        assert!(own.starts_with(br#"{"jsonrpc":"2.0","id":12,"method""#), "{own:?}");
    }
}
