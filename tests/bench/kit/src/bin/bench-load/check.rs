//! Whether an answer is the right one. Pure.

use std::borrow::Cow;

use mcp_x_bench::mcp::Era;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::ask::{Kind, Plan, echoed};

#[derive(Deserialize)]
struct Message<'a> {
    id: Option<u64>,
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<Outcome<'a>>,
    #[serde(default)]
    params: Progress,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    #[serde(borrow, default)]
    result_type: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Vec<Content<'a>>,
    #[serde(default)]
    is_error: bool,
    tools: Option<Vec<IgnoredAny>>,
    next_cursor: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Progress {
    progress_token: Option<u64>,
    progress: Option<usize>,
}

impl Plan {
    /// Checks the answer to the request with this id; `stream` says whether it came as an event stream.
    ///
    /// # Errors
    ///
    /// What was expected and what was found.
    pub(crate) fn check(&self, id: u64, stream: bool, body: &[u8]) -> Result<(), String> {
        if !stream {
            self.response(id, body)?;
            return expect("progress notifications", 0, self.progress());
        }
        let mut progress = 0;
        let mut answered = false;
        for line in body.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:")) {
            expect("the response as the last event", !answered, true)?;
            let message = read(line)?;
            if message.method == "notifications/progress" {
                progress += 1;
                expect("progress token", message.params.progress_token, Some(id))?;
                expect("progress", message.params.progress, Some(progress))?;
            } else {
                self.response(id, line)?;
                answered = true;
            }
        }
        expect("response in the stream", answered, true)?;
        expect("progress notifications", progress, self.progress())
    }

    fn progress(&self) -> usize {
        if self.kind == Kind::Sse { self.size } else { 0 }
    }

    fn response(&self, id: u64, body: &[u8]) -> Result<(), String> {
        let message = read(body)?;
        expect("error", message.error.map(RawValue::get), None)?;
        expect("id", message.id, Some(id))?;
        let result = message.result.ok_or_else(|| format!("expected a result, found {}", excerpt(body)))?;
        expect("isError", result.is_error, false)?;
        if self.era == Era::Modern {
            expect("resultType", &*result.result_type, "complete")?;
        }
        let text = result.content.first().map_or("", |content| &*content.text);
        match self.kind {
            Kind::Echo => expect("text", text, &*echoed(id)),
            Kind::Sse => expect("text", text, "done"),
            Kind::Payload => {
                expect("length of the text", text.len(), self.size << 10)?;
                expect("text of `x` alone", text.bytes().all(|byte| byte == b'x'), true)
            }
            Kind::List => {
                expect("tools", result.tools.map(|tools| tools.len()), Some(self.size))?;
                expect("a cursor", result.next_cursor.is_some(), false)
            }
        }
    }
}

fn read(message: &[u8]) -> Result<Message<'_>, String> {
    serde_json::from_slice(message).map_err(|error| format!("expected a message, found {} ({error})", excerpt(message)))
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

/// The beginning of a body, for people.
pub(crate) fn excerpt(body: &[u8]) -> String {
    format!("`{}`", String::from_utf8_lossy(body).chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRESS: &str = r#"{"method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#;
    const DONE: &str = r#"{"id":7,"result":{"content":[{"type":"text","text":"done"}]}}"#;

    #[track_caller]
    fn check(era: Era, kind: Kind, size: usize, body: &str, expected: &str) {
        let found = Plan { era, kind, size, servers: 1, called: 1 }.check(7, body.contains("data:"), body.as_bytes());
        assert_eq!(found.err().unwrap_or_default(), expected, "{body}");
    }

    #[test]
    fn an_echo_has_its_id_and_its_text() {
        let right = r#"{"id":7,"result":{"content":[{"text":"the text of call 7, which no other call has"}]}}"#;
        check(Era::Legacy, Kind::Echo, 0, right, "");
        check(Era::Modern, Kind::Echo, 0, right, r#"resultType: expected "complete", found """#);
        check(Era::Legacy, Kind::Echo, 0, &right.replace(":7", ":8"), "id: expected Some(7), found Some(8)");
        let other = right.replace("call 7", "call 8");
        let texts = "expected \"the text of call 7, which no other call has\", found \"the text of call 8, which no other call has\"";
        check(Era::Legacy, Kind::Echo, 0, &other, &format!("text: {texts}"));
        check(
            Era::Legacy,
            Kind::Echo,
            0,
            r#"{"id":7,"error":{"code":1}}"#,
            r#"error: expected None, found Some("{\"code\":1}")"#,
        );
    }

    #[test]
    fn a_stream_has_all_its_events_in_order() {
        check(Era::Legacy, Kind::Sse, 1, &format!("data: {PROGRESS}\n\ndata: {DONE}\n\n"), "");
        check(
            Era::Legacy,
            Kind::Sse,
            2,
            &format!("data: {PROGRESS}\n\ndata: {DONE}\n\n"),
            "progress notifications: expected 2, found 1",
        );
        check(Era::Legacy, Kind::Sse, 1, DONE, "progress notifications: expected 1, found 0");
        check(
            Era::Legacy,
            Kind::Sse,
            1,
            &format!("data: {PROGRESS}\n\n"),
            "response in the stream: expected true, found false",
        );
        check(
            Era::Legacy,
            Kind::Sse,
            1,
            &format!("data: {DONE}\n\ndata: {PROGRESS}\n\n"),
            "the response as the last event: expected true, found false",
        );
    }

    #[test]
    fn a_list_is_whole() {
        check(Era::Legacy, Kind::List, 2, r#"{"id":7,"result":{"tools":[{},{}]}}"#, "");
        check(
            Era::Legacy,
            Kind::List,
            3,
            r#"{"id":7,"result":{"tools":[{},{}]}}"#,
            "tools: expected Some(3), found Some(2)",
        );
        check(
            Era::Legacy,
            Kind::List,
            2,
            r#"{"id":7,"result":{"tools":[{},{}],"nextCursor":"a"}}"#,
            "a cursor: expected false, found true",
        );
    }
}
