//! An MCP client of the gateway: a token, perhaps a session, and one connection that is kept.

use std::net::SocketAddr;
use std::sync::LazyLock;

use mcp_x_fixture::Port;
use serde_json::{Value, json};

use super::call_message;
use super::http::{Answer, Connection, Head};
use super::message::{KEY, MODERN, Message};
use super::schema::check_answer;

/// A client; what it sends is well formed unless the test writes it itself.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    token: String,
    /// Sent with every request, once there is one.
    pub(crate) session: Option<String>,
    /// Sent with every request, if there is one.
    pub(crate) version: Option<String>,
}

impl Client {
    pub(crate) fn new(connection: Connection, token: &str) -> Self {
        Self { connection, token: token.to_owned(), session: None, version: None }
    }

    /// The same client in the same session on a connection of its own.
    pub(crate) fn another(&self) -> Self {
        let (session, version) = (self.session.clone(), self.version.clone());
        Self { connection: self.connection.another(), token: self.token.clone(), session, version }
    }

    /// The head of a request with a body of so many bytes.
    pub(crate) fn request_head(&self, method: &str, length: usize) -> String {
        let mut head = format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n", self.token);
        head += "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
        for (name, value) in [("Mcp-Session-Id", &self.session), ("MCP-Protocol-Version", &self.version)] {
            if let Some(value) = value {
                head += &format!("{name}: {value}\r\n");
            }
        }
        head + &format!("Content-Length: {length}\r\n\r\n")
    }

    /// Sends a POST and does not wait for its answer.
    pub(crate) fn send(&mut self, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut request = self.request_head("POST", body.len()).into_bytes();
        request.extend_from_slice(body);
        self.connection.send(request);
    }

    /// Sends a request with the headers that belong to it.
    pub(crate) fn send_message(&mut self, message: &Message) {
        let body = message.body();
        let head = self.request_head("POST", body.len());
        let headers = message.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
        let (start, end) = head.split_at(head.len() - 2);
        self.connection.send(format!("{start}{headers}{end}{body}"));
    }

    /// Sends a request with the headers that belong to it, and reads the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, message: &Message) -> Answer {
        self.send_message(message);
        self.connection.answer()
    }

    /// Gets ready to speak this revision: a legacy one in a session.
    #[track_caller]
    pub(crate) fn speaking(mut self, revision: &str) -> Self {
        if revision != MODERN {
            self.initialize(revision);
        }
        self
    }

    /// The same with these capabilities, which a modern one declares with each request.
    #[track_caller]
    pub(crate) fn speaking_as(mut self, revision: &str, capabilities: &str) -> Self {
        if revision != MODERN {
            self.initialize_as(revision, capabilities);
        }
        self
    }

    #[track_caller]
    pub(crate) fn post(&mut self, body: impl AsRef<[u8]>) -> Answer {
        self.send(body);
        self.connection.answer()
    }

    /// Sends a POST and reads the head of its answer, which must be a stream.
    #[track_caller]
    pub(crate) fn stream(&mut self, body: &str) -> Head {
        self.send(body);
        let head = self.connection.head();
        assert!(head.status == 200 && head.is_stream(), "{head:?}");
        head
    }

    /// Opens the stream of the session on a connection of its own.
    #[track_caller]
    pub(crate) fn get_stream(&self) -> Connection {
        let mut stream = self.another();
        let request = stream.request_head("GET", 0);
        stream.connection.send(request);
        let head = stream.connection.head();
        assert!(head.status == 200 && head.is_stream(), "{head:?}");
        stream.connection
    }

    /// Opens a stream of what this filter names, on a connection of its own; returns what of it is granted, too.
    #[track_caller]
    pub(crate) fn listen(&self, filter: &str) -> (Connection, Value) {
        let mut stream = self.another();
        let message = Message::modern("subscriptions/listen").param(&format!(r#""notifications":{filter}"#));
        stream.send_message(&message);
        let head = stream.connection.head();
        assert!(head.status == 200 && head.is_stream(), "{head:?}");
        let first = stream.connection.message();
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        assert_eq!(first["params"]["_meta"], json!({ format!("{KEY}subscriptionId"): 1 }));
        (stream.connection, first["params"]["notifications"].clone())
    }

    #[track_caller]
    pub(crate) fn delete(&mut self) -> Answer {
        let request = self.request_head("DELETE", 0);
        self.connection.send(request);
        self.connection.answer()
    }

    /// Asks a REST endpoint, with a body unless that is empty, and checks the answer against `/openapi.json`.
    #[track_caller]
    pub(crate) fn rest(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let token = match self.token.as_str() {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}{kind}Content-Length: {length}\r\n\r\n");
        self.connection.send(head + body);
        let answer = self.connection.answer();
        check_answer(method, path, &answer);
        answer
    }

    /// Asks a REST endpoint for something that must be there.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Value {
        let answer = self.rest("GET", path, "");
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()
    }

    /// What `/get_tools` tells of a server.
    #[track_caller]
    pub(crate) fn told_of(&mut self, server: &str) -> Value {
        let seen = self.get("/get_tools");
        let servers = seen["servers"].as_array().unwrap();
        servers.iter().find(|s| s["server"] == server).unwrap_or_else(|| panic!("no {server}: {seen}")).clone()
    }

    /// Has a REST endpoint do something that must succeed.
    #[track_caller]
    pub(crate) fn done(&mut self, path: &str, body: &Value) -> Value {
        let answer = self.rest("POST", path, &body.to_string());
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()
    }

    /// Has a REST endpoint refuse something: the status and the text.
    #[track_caller]
    pub(crate) fn refused(&mut self, path: &str, body: &Value) -> (u16, String) {
        let answer = self.rest("POST", path, &body.to_string());
        assert!(answer.status() >= 400, "{answer:?}");
        (answer.status(), answer.json()["detail"].as_str().unwrap().to_owned())
    }

    /// Opens a session of this revision and uses it from now on; returns its id.
    #[track_caller]
    pub(crate) fn initialize(&mut self, version: &str) -> String {
        self.initialize_as(version, "{}")
    }

    /// The same with these capabilities.
    #[track_caller]
    pub(crate) fn initialize_as(&mut self, version: &str, capabilities: &str) -> String {
        let (session, _) = (self.session.take(), self.version.take());
        assert_eq!(session, None, "there is a session already");
        let declared = format!(r#""capabilities":{capabilities}"#);
        let answer = self.post(initialize_message(version).replace(r#""capabilities":{}"#, &declared));
        assert_eq!(answer.status(), 200, "{answer:?}");
        let id = answer.head.header("mcp-session-id").unwrap_or_else(|| panic!("no session: {answer:?}")).to_owned();
        self.session = Some(id.clone());
        self.version = Some(version.to_owned());
        let answer = self.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert_eq!((answer.status(), answer.body.as_str()), (202, ""));
        id
    }

    /// The tools that the client sees, in order.
    #[track_caller]
    pub(crate) fn tools(&mut self) -> Vec<String> {
        let answer = self.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        let json = answer.json();
        let tools = json["result"]["tools"].as_array().unwrap_or_else(|| panic!("no list: {answer:?}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Asks for something, without a session if there is none, and returns the response.
    #[track_caller]
    pub(crate) fn response(&mut self, method: &str, params: &Value) -> Value {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.post(message.to_string());
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.response()
    }

    /// What the client sees of one of the lists, in order: names of prompts and tools, URIs, or templates.
    #[track_caller]
    pub(crate) fn listed(&mut self, method: &str) -> Vec<String> {
        let response = self.response(method, &json!({}));
        let (member, key) = list_of(method);
        let entries = response["result"][member].as_array().unwrap_or_else(|| panic!("no list: {response}"));
        entries.iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
    }

    /// The status of a request for the tools.
    #[track_caller]
    pub(crate) fn tools_status(&mut self) -> u16 {
        self.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).status()
    }

    /// Calls a tool without arguments and returns the response.
    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str) -> Value {
        let answer = self.post(call_message("1", tool, "{}"));
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.response()
    }

    /// Calls a tool and returns the text of its result.
    #[track_caller]
    pub(crate) fn text(&mut self, tool: &str) -> String {
        let response = self.call(tool);
        let text = response["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("no text: {response}")).to_owned()
    }

    /// Calls a tool and returns the code and text of the error.
    #[track_caller]
    pub(crate) fn error(&mut self, tool: &str) -> (i64, String) {
        let response = self.call(tool);
        let error = &response["error"];
        let parts = error["code"].as_i64().zip(error["message"].as_str().map(str::to_owned));
        parts.unwrap_or_else(|| panic!("no error: {response}"))
    }
}

/// The member of a list's result that holds its entries, and the one of an entry that names it.
pub(crate) fn list_of(method: &str) -> (&'static str, &'static str) {
    match method {
        "tools/list" => ("tools", "name"),
        "prompts/list" => ("prompts", "name"),
        "resources/list" => ("resources", "uri"),
        _ => ("resourceTemplates", "uriTemplate"),
    }
}

/// An `initialize` request for this revision.
pub(crate) fn initialize_message(version: &str) -> String {
    let info = r#""capabilities":{},"clientInfo":{"name":"test","version":"1"}"#;
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}",{info}}}}}"#)
}

/// Where nobody listens.
pub(crate) fn closed_port() -> SocketAddr {
    static HELD: LazyLock<Port> = LazyLock::new(|| Port::reserve(([127, 0, 0, 1], 0).into()).unwrap());
    HELD.address()
}
