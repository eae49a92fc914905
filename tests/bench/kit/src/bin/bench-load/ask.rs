//! What is asked: the messages, and what their answers must be. Pure.

use std::str::FromStr;

use mcp_x_bench::mcp::{Era, MODERN, prefix};

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `tools/call` of `echo` with a text that no other call has.
    Echo,
    /// `tools/call` of `payload`: a text of `size` KiB.
    Payload,
    /// `tools/call` of `sse`: `size` progress notifications before the result.
    Sse,
    /// `tools/list`: `size` tools.
    List,
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "echo" => Ok(Self::Echo),
            "payload" => Ok(Self::Payload),
            "sse" => Ok(Self::Sse),
            "list" => Ok(Self::List),
            _ => Err(()),
        }
    }
}

impl Kind {
    /// What `size` is if nobody says.
    pub(crate) fn usual_size(self) -> usize {
        match self {
            Self::Echo => 0,
            Self::Payload => 64,
            Self::Sse => 20,
            Self::List => 10,
        }
    }
}

/// What to ask, again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) era: Era,
    pub(crate) kind: Kind,
    /// See [`Kind`].
    pub(crate) size: usize,
    /// Servers behind the gateway.
    pub(crate) servers: usize,
    /// How many of them are called, in turn.
    pub(crate) called: usize,
}

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Its id, and its progress token, which nobody else has.
    pub(crate) id: u64,
    pub(crate) method: &'static str,
    /// The tool.
    pub(crate) name: Option<String>,
    pub(crate) body: String,
}

impl Plan {
    /// Makes the request with this id.
    pub(crate) fn ask(&self, id: u64) -> Ask {
        let index = usize::try_from(id).unwrap_or_default() % self.called.max(1);
        let tool = |name: &str| Some(format!("{}{name}", prefix(index, self.servers)));
        match self.kind {
            Kind::Echo => self.call(id, tool("echo"), &format!(r#"{{"text":"{}"}}"#, echoed(id))),
            Kind::Payload => self.call(id, tool("payload"), &format!(r#"{{"kib":{}}}"#, self.size)),
            Kind::Sse => self.call(id, tool("sse"), &format!(r#"{{"events":{}}}"#, self.size)),
            Kind::List => self.request(id, "tools/list", None, String::new()),
        }
    }

    fn call(&self, id: u64, name: Option<String>, arguments: &str) -> Ask {
        let members = format!(r#""name":"{}","arguments":{arguments}"#, name.as_deref().unwrap_or_default());
        self.request(id, "tools/call", name, members)
    }

    fn request(&self, id: u64, method: &'static str, name: Option<String>, mut members: String) -> Ask {
        let meta = self.meta(id);
        if !meta.is_empty() {
            members = format!("{members}{}{meta}", if members.is_empty() { "" } else { "," });
        }
        Ask { id, method, name, body: request(id, method, &members) }
    }

    /// The member `_meta`, if one is needed.
    fn meta(&self, id: u64) -> String {
        let mut members = Vec::new();
        if self.kind == Kind::Sse {
            members.push(format!(r#""progressToken":{id}"#));
        }
        if self.era == Era::Modern {
            let prefix = "io.modelcontextprotocol/";
            members.push(format!(r#""{prefix}protocolVersion":"{MODERN}""#));
            members.push(format!(r#""{prefix}clientInfo":{{"name":"bench-load","version":"0"}}"#));
            members.push(format!(r#""{prefix}clientCapabilities":{{}}"#));
        }
        if members.is_empty() { String::new() } else { format!(r#""_meta":{{{}}}"#, members.join(",")) }
    }
}

/// The text that the echo with this id sends and gets back.
pub(crate) fn echoed(id: u64) -> String {
    format!("the text of call {id}, which no other call has")
}

/// A request as JSON; `members` are those of its parameters.
pub(crate) fn request(id: u64, method: &str, members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{members}}}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(era: Era, kind: Kind, servers: usize, expected: &[&str]) {
        let ask = Plan { era, kind, size: kind.usual_size(), servers, called: servers }.ask(7);
        for part in expected {
            assert!(ask.body.contains(part), "expected {part}, found {}", ask.body);
        }
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&ask.body).is_ok(), "{}", ask.body);
        assert_eq!(ask.name.is_some(), kind != Kind::List);
    }

    #[test]
    fn requests_are_json_and_ask_for_what_they_should() {
        check(Era::Legacy, Kind::Echo, 1, &[r#""id":7,"method":"tools/call","params":{"name":"echo""#, "call 7,"]);
        check(Era::Legacy, Kind::Echo, 5, &[r#""name":"s2-echo""#]);
        check(Era::Legacy, Kind::List, 1, &[r#""method":"tools/list","params":{}"#]);
        check(Era::Modern, Kind::List, 1, &[r#""params":{"_meta":{"#, r#"protocolVersion":"2026-07-28""#]);
        check(Era::Modern, Kind::Sse, 1, &[r#""events":20"#, r#""progressToken":7,"#]);
        check(Era::Legacy, Kind::Payload, 1, &[r#""kib":64"#]);
    }
}
