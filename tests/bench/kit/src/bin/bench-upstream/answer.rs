//! What the server answers, in both eras. Pure.
//!
//! A modern request is told by its `_meta`. Refusals are those of real servers, so that a gateway that asks a server for
//! its era finds the truth, and one that sends wrong headers is found out.

use std::collections::HashSet;

use hyper::StatusCode;
use mcp_x_bench::mcp::{Era, LEGACY, MODERN};
use serde_json::value::RawValue;

use crate::message::{Message, Params};
use crate::stream::Events;

const CAPABILITIES: &str = r#""capabilities":{"tools":{}}"#;
const IDENTITY: &str = r#"{"name":"bench-upstream","version":"0"}"#;
const NO_ARGUMENT: &str = r#""""#;

/// One server: which clients it answers, and its tools.
pub(crate) struct Server {
    era: Era,
    /// Its tools' names begin with it.
    prefix: String,
    names: HashSet<String>,
    /// The JSON array of its tools.
    list: String,
}

/// The headers that repeat what the body says.
pub(crate) struct Mirrored<'a> {
    /// `MCP-Protocol-Version`
    pub(crate) version: Option<&'a str>,
    /// `Mcp-Method`
    pub(crate) method: Option<&'a str>,
    /// `Mcp-Name`
    pub(crate) name: Option<&'a str>,
}

/// An answer: one message, or an event stream.
pub(crate) enum Answer {
    Json(StatusCode, String),
    Events(Events),
}

impl Answer {
    /// For a body that is not a message.
    pub(crate) fn unreadable(error: &serde_json::Error) -> Self {
        let message = format!(r#"{{"jsonrpc":"2.0","error":{{"code":-32700,"message":"parse error: {error}"}}}}"#);
        Self::Json(StatusCode::BAD_REQUEST, message.replace('`', "'"))
    }
}

/// A refusal: HTTP status, JSON-RPC code, what is wrong.
type Refusal = (StatusCode, i32, &'static str);

impl Server {
    /// A server with `tools` tools: `echo`, `payload`, `sse`, and more that do what `echo` does.
    pub(crate) fn new(era: Era, prefix: &str, tools: usize) -> Self {
        let known = ["echo", "payload", "sse"].map(str::to_owned).into_iter();
        let names = known.chain((3..).map(|number| format!("tool_{number}"))).map(|name| format!("{prefix}{name}"));
        let names: Vec<String> = names.take(tools).collect();
        let list: Vec<String> = names.iter().map(|name| tool(name)).collect();
        Self {
            era,
            prefix: prefix.to_owned(),
            list: format!("[{}]", list.join(",")),
            names: names.into_iter().collect(),
        }
    }

    /// Answers one message.
    pub(crate) fn answer(&self, mirrored: &Mirrored<'_>, message: &Message<'_>) -> Answer {
        let Some(id) = message.id else { return Answer::Json(StatusCode::ACCEPTED, String::new()) };
        let modern = message.params.meta.version.is_some() || message.method == "server/discover";
        let answered = match self.era {
            Era::Legacy => self.legacy(mirrored, message, id),
            Era::Modern => self.modern(mirrored, message, id),
            Era::Dual if modern => self.modern(mirrored, message, id),
            Era::Dual => self.legacy(mirrored, message, id),
        };
        answered.unwrap_or_else(|(status, code, problem)| {
            // -32022 says which revisions would do; to the others it does no harm.
            let data =
                format!(r#"{{"supported":["{MODERN}"],"requested":"{}"}}"#, mirrored.version.unwrap_or_default());
            let error = format!(r#"{{"code":{code},"message":"{problem}","data":{data}}}"#);
            Answer::Json(status, format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
        })
    }

    fn legacy(&self, mirrored: &Mirrored<'_>, message: &Message<'_>, id: &RawValue) -> Result<Answer, Refusal> {
        if mirrored.version.is_some_and(|version| !LEGACY.contains(&version)) {
            return Err((StatusCode::BAD_REQUEST, -32000, "Bad Request: Unsupported protocol version"));
        }
        let version = LEGACY[0];
        let members = match &*message.method {
            "initialize" => format!(r#""protocolVersion":"{version}",{CAPABILITIES},"serverInfo":{IDENTITY}"#),
            "ping" => String::new(),
            "tools/list" => format!(r#""tools":{}"#, self.list),
            "tools/call" => return self.call(&message.params, id, ""),
            _ => return Err((StatusCode::OK, -32601, "Method not found")),
        };
        Ok(result(id, &members, ""))
    }

    fn modern(&self, mirrored: &Mirrored<'_>, message: &Message<'_>, id: &RawValue) -> Result<Answer, Refusal> {
        check(mirrored, message)?;
        let more = format!(r#","resultType":"complete","_meta":{{"io.modelcontextprotocol/serverInfo":{IDENTITY}}}"#);
        let hints = r#""ttlMs":60000,"cacheScope":"private""#;
        let members = match &*message.method {
            "server/discover" => format!(r#""supportedVersions":["{MODERN}"],{CAPABILITIES},{hints}"#),
            "tools/list" => format!(r#""tools":{},{hints}"#, self.list),
            "tools/call" => return self.call(&message.params, id, &more),
            _ => return Err((StatusCode::NOT_FOUND, -32601, "Method not found")),
        };
        Ok(result(id, &members, &more))
    }

    /// Runs a tool; `more` ends its result.
    fn call(&self, params: &Params<'_>, id: &RawValue, more: &str) -> Result<Answer, Refusal> {
        if !self.names.contains(&*params.name) {
            return Err((StatusCode::OK, -32602, "unknown tool"));
        }
        let arguments = &params.arguments;
        match params.name.strip_prefix(&self.prefix) {
            Some("payload") => {
                Ok(result(id, &content(&format!(r#""{}""#, "x".repeat(arguments.kib.min(16 << 10) << 10))), more))
            }
            Some("sse") => {
                let last = message(id, &content(r#""done""#), more);
                let token = params.meta.progress_token.map(RawValue::get);
                Ok(Answer::Events(Events::new(token, arguments.events, arguments.interval_ms, last)))
            }
            _ => Ok(result(id, &content(arguments.text.map_or(NO_ARGUMENT, RawValue::get)), more)),
        }
    }
}

/// Checks what a modern request has to say of itself.
fn check(mirrored: &Mirrored<'_>, message: &Message<'_>) -> Result<(), Refusal> {
    let meta = &message.params.meta;
    let (Some(version), Some(_)) = (meta.version, meta.capabilities) else {
        return Err((StatusCode::BAD_REQUEST, -32602, "protocolVersion or clientCapabilities missing in _meta"));
    };
    if mirrored.version.is_none() || mirrored.version != Some(version.get().trim_matches('"')) {
        return Err((StatusCode::BAD_REQUEST, -32020, "MCP-Protocol-Version does not agree with the body"));
    }
    if mirrored.version != Some(MODERN) {
        return Err((StatusCode::BAD_REQUEST, -32022, "unsupported protocol version"));
    }
    if mirrored.method != Some(&*message.method) {
        return Err((StatusCode::BAD_REQUEST, -32020, "Mcp-Method does not agree with the body"));
    }
    if message.method == "tools/call" && mirrored.name != Some(&*message.params.name) {
        return Err((StatusCode::BAD_REQUEST, -32020, "Mcp-Name does not agree with the body"));
    }
    Ok(())
}

fn result(id: &RawValue, members: &str, more: &str) -> Answer {
    Answer::Json(StatusCode::OK, message(id, members, more))
}

fn message(id: &RawValue, members: &str, more: &str) -> String {
    ["{\"jsonrpc\":\"2.0\",\"id\":", id.get(), ",\"result\":{", members, more, "}}"].concat()
}

/// A result with one text; `text` is JSON.
fn content(text: &str) -> String {
    [r#""content":[{"type":"text","text":"#, text, r#"}],"isError":false"#].concat()
}

fn tool(name: &str) -> String {
    let description =
        "Answers what it was given. One of the tools of the benchmarks' server; the text has a usual length.";
    let text = r#"{"type":"string","description":"what to answer"}"#;
    let schema = format!(r#"{{"type":"object","properties":{{"text":{text}}},"additionalProperties":true}}"#);
    format!(r#"{{"name":"{name}","title":"{name}","description":"{description}","inputSchema":{schema}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

    #[track_caller]
    fn check(era: Era, headers: [Option<&str>; 3], body: &str, status: u16, expected: &str) {
        let [version, method, name] = headers;
        let message: Message<'_> = serde_json::from_str(body).unwrap();
        let answer = Server::new(era, "s1-", 4).answer(&Mirrored { version, method, name }, &message);
        let Answer::Json(found, text) = answer else { panic!("an event stream") };
        assert_eq!(found, status, "{text}");
        assert!(text.contains(expected), "expected {expected}, found {text}");
        assert!(text.is_empty() || serde_json::from_str::<&RawValue>(&text).is_ok(), "{text}");
    }

    #[test]
    fn a_legacy_server_knows_no_modern_client() {
        let discover = format!(r#"{{"id":1,"method":"server/discover","params":{{{META}}}}}"#);
        check(Era::Legacy, [Some(MODERN), Some("server/discover"), None], &discover, 400, "-32000");
        check(Era::Legacy, [None; 3], &discover, 200, "-32601");
        check(Era::Legacy, [None; 3], r#"{"id":1,"method":"initialize"}"#, 200, r#""protocolVersion":"2025-11-25""#);
        check(Era::Legacy, [None; 3], r#"{"method":"notifications/initialized"}"#, 202, "");
    }

    #[test]
    fn a_modern_server_insists_on_headers_and_meta() {
        let call = format!(
            r#"{{"id":1,"method":"tools/call","params":{{"name":"s1-echo","arguments":{{"text":"a"}},{META}}}}}"#
        );
        let right = [Some(MODERN), Some("tools/call"), Some("s1-echo")];
        check(Era::Modern, right, &call, 200, r#""text":"a"}],"isError":false,"resultType":"complete""#);
        check(Era::Dual, right, &call, 200, r#""resultType":"complete""#);
        check(Era::Modern, [None, right[1], right[2]], &call, 400, "-32020");
        check(Era::Modern, [right[0], None, right[2]], &call, 400, "-32020");
        check(Era::Modern, [right[0], right[1], Some("echo")], &call, 400, "-32020");
        check(
            Era::Modern,
            [Some("2030-01-01"), right[1], right[2]],
            &call.replace(MODERN, "2030-01-01"),
            400,
            "-32022",
        );
        check(Era::Modern, [None; 3], r#"{"id":1,"method":"initialize","params":{}}"#, 400, "-32602");
    }

    #[test]
    fn tools_are_those_that_are_listed() {
        let call = |name| {
            format!(r#"{{"id":"x","method":"tools/call","params":{{"name":"{name}","arguments":{{"kib":1}}}}}}"#)
        };
        check(Era::Dual, [None; 3], &call("s1-tool_3"), 200, r#"{"jsonrpc":"2.0","id":"x","result""#);
        check(Era::Dual, [None; 3], &call("s1-payload"), 200, &"x".repeat(1024));
        check(Era::Dual, [None; 3], &call("tool_3"), 200, "-32602");
        check(Era::Dual, [None; 3], r#"{"id":1,"method":"tools/list"}"#, 200, r#""name":"s1-sse""#);
    }
}
