//! One request to the scripted server, and the means to answer it: as a server that works, or in any other way.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{PATIENCE, Received, Script, Shared, State};
use crate::support::client::list_of;

/// One request, and the means to answer it.
pub(crate) struct Exchange<'a> {
    shared: &'a Shared,
    stream: &'a TcpStream,
    pub(crate) request: &'a Received,
    /// Whether the connection is of further use.
    open: bool,
    /// Session id of the answer.
    session: Option<String>,
}

pub(super) fn echo(exchange: &mut Exchange<'_>) {
    exchange.echo();
}

impl<'a> Exchange<'a> {
    pub(super) fn new(shared: &'a Shared, stream: &'a TcpStream, request: &'a Received) -> Self {
        Self { shared, stream, request, open: true, session: None }
    }

    /// Answers as the scripts say.
    pub(super) fn serve(&mut self) {
        let scripts = self.shared.scripts.lock().unwrap();
        let (call, request) = (Arc::clone(&scripts.call), scripts.request.clone());
        drop(scripts);
        match request {
            Some(script) => script(self),
            None if self.session_is_known() => self.as_planned(&call),
            None => self.respond(
                404,
                "application/json",
                r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#,
            ),
        }
    }

    /// Answers as a server that works, but for the scripts.
    pub(crate) fn normally(&mut self) {
        self.as_planned(&(Arc::new(echo) as Script));
    }

    fn session_is_known(&self) -> bool {
        if !self.shared.plan.sessionful || self.request.rpc() == "initialize" {
            return true;
        }
        let id = self.request.header("mcp-session-id").unwrap_or_default();
        self.shared.state().sessions.contains(id)
    }

    fn as_planned(&mut self, call: &Script) {
        if self.request.method == "DELETE" {
            let id = self.request.header("mcp-session-id").unwrap_or_default();
            self.shared.state().sessions.remove(id);
            self.shared.changed.notify_all();
            return self.respond(200, "application/json", "");
        }
        if self.request.method != "POST" {
            return self.respond(405, "text/plain", "");
        }
        match self.request.rpc().as_str() {
            "initialize" => self.initialize(),
            rpc if self.shared.plan.lists.contains_key(rpc) => self.list(rpc),
            "tools/call" => {
                self.shared.state().executed += 1;
                call(self);
            }
            "prompts/get" | "resources/read" | "completion/complete" => self.tell(),
            rpc if self.request.id() == "null" || rpc == "null" => {
                self.respond(202, "application/json", "");
            }
            _ => self.error(-32601, "Method not found"),
        }
    }

    fn initialize(&mut self) {
        let lists = self.shared.plan.lists.keys().map(|method| method.split('/').next().unwrap_or_default());
        let capabilities: BTreeMap<&str, Value> = lists.map(|list| (list, json!({}))).collect();
        self.initialize_with(&json!(capabilities).to_string());
    }

    /// Answers `initialize` with these capabilities.
    pub(crate) fn initialize_with(&mut self, capabilities: &str) {
        if self.shared.plan.sessionful {
            let mut state = self.shared.state();
            state.next_session += 1;
            let id = format!("session-{}", state.next_session);
            state.sessions.insert(id.clone());
            self.session = Some(id);
        }
        let version = self.request.json()["params"]["protocolVersion"].clone();
        let info = json!({ "name": self.shared.plan.name, "version": "1" });
        self.result(&format!(r#"{{"protocolVersion":{version},"capabilities":{capabilities},"serverInfo":{info}}}"#));
    }

    fn list(&mut self, method: &str) {
        let (plan, (member, _)) = (&self.shared.plan, list_of(method));
        let entries = &plan.lists[method];
        let from: usize = self.request.json()["params"]["cursor"].as_str().and_then(|c| c.parse().ok()).unwrap_or(0);
        let until = from.saturating_add(plan.page).min(entries.len());
        let next = if until < entries.len() { format!(r#","nextCursor":"{until}""#) } else { String::new() };
        self.result(&format!(r#"{{"{member}":[{}]{next}}}"#, entries[from..until].join(",")));
    }

    /// Answers with the server's name and the prompt's, or with the server's name and the resource's URI.
    fn tell(&mut self) {
        let params = self.request.json()["params"].clone();
        let told = |what: &Value| format!("{}:{}", self.shared.plan.name, what.as_str().unwrap_or_default());
        let result = match self.request.rpc().as_str() {
            "prompts/get" => {
                let content = json!({ "type": "text", "text": told(&params["name"]) });
                json!({ "messages": [{ "role": "user", "content": content }] })
            }
            "resources/read" => json!({ "contents": [{ "uri": params["uri"], "text": told(&params["uri"]) }] }),
            _ => json!({ "completion": { "values": [told(&params["ref"]["name"]), told(&params["ref"]["uri"])] } }),
        };
        self.result(&result.to_string());
    }

    /// Answers with the server's name and the tool's.
    pub(crate) fn echo(&mut self) {
        let tool = self.request.json()["params"]["name"].as_str().unwrap_or_default().to_owned();
        let text = format!("{}:{tool}", self.shared.plan.name);
        self.result(&json!({ "content": [{ "type": "text", "text": text }] }).to_string());
    }

    /// Answers with a result, in the form that the plan says.
    pub(crate) fn result(&mut self, result: &str) {
        self.message(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.request.id()));
    }

    /// Answers with an error, in the form that the plan says.
    pub(crate) fn error(&mut self, code: i64, message: &str) {
        let error = json!({ "code": code, "message": message });
        self.message(&format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, self.request.id()));
    }

    /// Answers with a message, in the form that the plan says.
    pub(crate) fn message(&mut self, message: &str) {
        match self.shared.plan.events {
            true => {
                self.begin_events();
                self.event(message);
                self.end_events();
            }
            false => self.respond(200, "application/json", message),
        }
    }

    /// Sends a whole HTTP answer.
    pub(crate) fn respond(&mut self, status: u16, content_type: &str, body: &str) {
        let head = self.head(status, content_type);
        self.raw(format!("{head}content-length: {}\r\n\r\n{body}", body.len()));
    }

    /// Sends a whole HTTP answer that leads elsewhere.
    pub(crate) fn redirect(&mut self, location: &str) {
        self.raw(format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"));
    }

    /// Begins an event stream.
    pub(crate) fn begin_events(&mut self) {
        let head = self.head(200, "text/event-stream");
        self.raw(format!("{head}transfer-encoding: chunked\r\n\r\n"));
    }

    /// Sends one message on the event stream.
    pub(crate) fn event(&mut self, message: &str) {
        self.chunk(&format!("event: message\r\ndata: {message}\r\n\r\n"));
    }

    /// Sends the result on the event stream and ends it.
    pub(crate) fn result_event(&mut self, result: &str) {
        self.event(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.request.id()));
        self.end_events();
    }

    /// Sends text on the event stream, as one chunk.
    pub(crate) fn chunk(&mut self, text: &str) {
        self.raw(format!("{:x}\r\n{text}\r\n", text.len()));
    }

    /// Ends the event stream.
    pub(crate) fn end_events(&mut self) {
        self.raw("0\r\n\r\n");
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        if self.stream.write_all(bytes.as_ref()).is_err() {
            self.open = false;
        }
    }

    /// Whether the other side still takes what is sent.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Waits until a tool is called; false if that takes long.
    pub(crate) fn called(&self) -> bool {
        let state = self.shared.state();
        let called = |state: &mut State| state.of("tools/call").is_empty();
        !self.shared.changed.wait_timeout_while(state, PATIENCE, called).unwrap().1.timed_out()
    }

    /// Closes the connection after this.
    pub(crate) fn close(&mut self) {
        self.open = false;
    }

    /// Says nothing until the other side closes the connection.
    pub(crate) fn hang(&mut self) {
        while self.stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
        self.open = false;
    }

    fn head(&self, status: u16, content_type: &str) -> String {
        let session = self.session.as_ref().map(|id| format!("mcp-session-id: {id}\r\n")).unwrap_or_default();
        format!("HTTP/1.1 {status} Status\r\ncontent-type: {content_type}\r\n{session}")
    }
}
