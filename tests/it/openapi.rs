//! `/openapi.json` is true: every route and every status that it names is brought about here, and every answer of these and
//! all other REST tests is compared with it, so that it names neither too much nor too little.

use std::collections::BTreeSet;
use std::fs;

use mcp_x::http::api::Endpoint;
use serde_json::{Value, json};

use super::support::client::{Client, closed_port};
use super::support::http::Answer;
use super::support::schema::{check_answer, document};
use super::support::upstream::Plan;
use super::support::{ALICE, BOB, Harness, call_message, clients, server, with_admin};

/// Statuses that are the same for every route and are brought about for one of them: 403 of a `Host`, 408 and 501, which
/// end the connection, 413, and 503 of a configuration that cannot be changed.
const SHARED: [&str; 5] = ["400", "408", "413", "501", "503"];

/// What was asked and what was answered: method, path, status.
type Seen = BTreeSet<(String, String, String)>;

/// Asks everything, and notes it.
struct Visitor<'a> {
    harness: &'a Harness,
    seen: Seen,
}

impl Visitor<'_> {
    #[track_caller]
    fn note(&mut self, method: &str, path: &str, answer: &Answer) {
        check_answer(method, path, answer);
        let path = path.split('?').next().unwrap_or_default();
        let entry = |method: &str| (method.to_lowercase(), path.to_owned(), answer.status().to_string());
        match document()["paths"][path].as_object() {
            // A method that a route does not take is answered for those it does take.
            Some(methods) if answer.status() == 405 => self.seen.extend(methods.keys().map(|method| entry(method))),
            _ => _ = self.seen.insert(entry(method)),
        }
    }

    #[track_caller]
    fn ask(&mut self, token: &str, method: &str, path: &str, body: &str, status: u16) -> Value {
        let answer = self.harness.client(token).rest(method, path, body);
        assert_eq!(answer.status(), status, "{method} {path} {body}: {answer:?}");
        self.note(method, path, &answer);
        answer.json()
    }

    /// Sends a head as it stands, and a body.
    #[track_caller]
    fn raw(&mut self, head: &str, body: &str, status: u16) {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut connection = self.harness.connect();
        connection.send_while_taken(format!("{head}\r\n\r\n{body}"));
        let answer = connection.answer();
        assert_eq!(answer.status(), status, "{head}: {answer:?}");
        self.note(method, path, &answer);
    }

    /// Opens the stream of a client's session, and ones that are none.
    fn streams_of(&mut self, client: &Client) {
        let head = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}");
        let session = format!("Mcp-Session-Id: {}", client.session.as_deref().unwrap());
        let mut connection = self.harness.connect();
        connection.send(format!("{head}\r\n{session}\r\n\r\n"));
        let opened = Answer { head: connection.head(), body: String::new() };
        assert_eq!(opened.status(), 200, "{opened:?}");
        self.note("GET", "/mcp", &opened);
        self.raw(&head, "", 405);
        self.raw(&format!("{head}\r\nMcp-Session-Id: x"), "", 404);
        self.raw(&format!("{head}\r\n{session}\r\nMCP-Protocol-Version: x"), "", 400);
        self.raw(&format!("{head}\r\n{session}\r\nAccept: application/json"), "", 406);
        self.raw("GET /mcp HTTP/1.1\r\nHost: localhost", "", 401);
    }
}

fn documented() -> Seen {
    let mut documented = Seen::new();
    for (path, item) in document()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            documented.extend(statuses.map(|status| (method.clone(), path.clone(), status.clone())));
        }
    }
    documented
}

#[test]
fn every_endpoint_is_documented_and_no_other() {
    let paths: BTreeSet<&str> = document()["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let others = ["/mcp", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"];
    let known: BTreeSet<&str> = Endpoint::ALL.iter().map(|(path, _)| *path).chain(others).collect();
    assert_eq!(paths, known);
}

#[test]
fn every_documented_answer_is_given() {
    let upstream = Plan::new("a").start();
    let gateway = "[gateway]\nmax_registrations_per_minute = 3\nmax_body_bytes = 1024\nbody_seconds = 1\n";
    let config = with_admin() + &server("s", "alice", &upstream, "") + gateway;
    let harness = Harness::start(&config);
    let mut visitor = Visitor { harness: &harness, seen: Seen::new() };
    let v = &mut visitor;
    let registered = v.ask("", "POST", "/register_client", r#"{"label":"CI"}"#, 200);
    let (id, token) =
        (registered["client_id"].as_str().unwrap(), registered["auth_token"].as_str().unwrap().to_owned());
    answers_of_success(v, id, &token);
    answers_of_meaning(v);
    answers_to_strangers(v);
    answers_to_odd_requests(v);
    answers_of_mcp(v);
    busy_client(v, &upstream);
    closed_and_broken(v);
    let shared = |(_, path, status): &(String, String, String)| {
        SHARED.contains(&status.as_str()) || (status == "403" && !path.starts_with("/register"))
    };
    let missing: Vec<_> = documented().difference(&visitor.seen).filter(|entry| !shared(entry)).cloned().collect();
    assert!(missing.is_empty(), "documented, but not seen: {missing:?}");
    for status in SHARED {
        assert!(visitor.seen.iter().any(|(_, _, seen)| seen == status), "{status} was not seen at all");
    }
}

fn answers_of_success(v: &mut Visitor<'_>, id: &str, token: &str) {
    v.ask(token, "POST", "/refresh_token", "", 200);
    v.ask(ALICE, "POST", "/register_mcp_server", r#"{"url":"http://127.0.0.1:1/","name":"t"}"#, 200);
    let grant = json!({ "client_id": id, "server_access": { "s": ["*"], "t": "x" } }).to_string();
    v.ask(ALICE, "POST", "/update_access_control", &grant, 200);
    let everyone = json!({ "client_id": "*", "server_access": { "s": ["status"] } }).to_string();
    v.ask(ALICE, "POST", "/update_access_control", &everyone, 200);
    for path in ["/get_access_control", "/get_tools", "/explain?tool=echo", "/status", "/clients", "/servers"] {
        v.ask(ALICE, "GET", path, "", 200);
    }
    v.ask(token, "GET", "/get_tools", "", 200);
    v.ask(token, "GET", "/explain?tool=nothing", "", 200);
    v.ask(ALICE, "POST", "/unregister_mcp_server", r#"{"server_id":"t"}"#, 200);
    v.ask(token, "POST", "/unregister_client", &json!({ "client_id": id }).to_string(), 200);
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        v.raw(&format!("GET {path} HTTP/1.1\r\nHost: localhost"), "", 200);
    }
    v.raw("GET /docs HTTP/1.1\r\nHost: localhost", "", 200);
    v.raw(&format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}"), "", 200);
}

fn answers_of_meaning(v: &mut Visitor<'_>) {
    v.ask(ALICE, "POST", "/register_mcp_server", r#"{"url":"http://h/","name":"s"}"#, 409);
    v.ask(ALICE, "POST", "/update_access_control", r#"{"client_id":"none","server_access":{}}"#, 404);
    v.ask(ALICE, "POST", "/unregister_client", r#"{"client_id":"none"}"#, 404);
    v.ask(ALICE, "POST", "/unregister_client", r#"{"client_id":"bob"}"#, 403);
    v.ask(BOB, "POST", "/unregister_mcp_server", r#"{"server_id":"s"}"#, 403);
    v.ask(BOB, "POST", "/update_access_control", r#"{"client_id":"bob","server_access":{}}"#, 403);
    v.ask(BOB, "POST", "/refresh_token", "{}", 403);
    v.ask(BOB, "GET", "/status", "", 403);
    v.ask(BOB, "GET", "/metrics", "", 403);
    v.ask("", "GET", "/metrics", "", 401);
}

fn answers_to_strangers(v: &mut Visitor<'_>) {
    for (path, endpoint) in Endpoint::ALL {
        let method = if endpoint.changes() { "POST" } else { "GET" };
        if endpoint != Endpoint::RegisterClient {
            v.ask("", method, path, "", 401);
            v.ask("nobody", method, path, "", 401);
            v.raw(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic eDp5"), "", 401);
        }
        v.raw(&format!("{method} {path} HTTP/1.1\r\nHost: evil.example"), "", 403);
    }
}

fn answers_to_odd_requests(v: &mut Visitor<'_>) {
    let alice = format!("Host: localhost\r\nAuthorization: Bearer {ALICE}");
    for (path, endpoint) in Endpoint::ALL {
        if !endpoint.changes() {
            v.ask(ALICE, "GET", &format!("{path}?odd=1"), "", 422);
            v.raw(&format!("POST {path} HTTP/1.1\r\n{alice}\r\nContent-Length: 0"), "", 405);
            continue;
        }
        v.raw(&format!("GET {path} HTTP/1.1\r\n{alice}"), "", 405);
        v.ask(ALICE, "POST", path, r#"{"odd":1}"#, 422);
        v.ask(ALICE, "POST", path, r#"{"a":1,"a":2}"#, 400);
        v.ask(ALICE, "POST", path, "{", 400);
        v.raw(&format!("POST {path} HTTP/1.1\r\n{alice}\r\nContent-Length: 2"), "{}", 415);
        let json = format!("POST {path} HTTP/1.1\r\n{alice}\r\nContent-Type: application/json");
        v.raw(&format!("{json}\r\nContent-Length: 2000"), &" ".repeat(2000), 413);
        v.raw(&format!("{json}\r\nTransfer-Encoding: gzip, chunked"), "0\r\n\r\n", 501);
    }
    let slow =
        format!("POST /refresh_token HTTP/1.1\r\n{alice}\r\nContent-Type: application/json\r\nContent-Length: 9");
    v.raw(&slow, "{", 408);
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"] {
        v.raw(&format!("POST {path} HTTP/1.1\r\n{alice}\r\nContent-Length: 0"), "", 405);
    }
}

fn answers_of_mcp(v: &mut Visitor<'_>) {
    let head =
        |headers: &str| format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}\r\n{headers}");
    let json =
        |length: usize, more: &str| head(&format!("Content-Type: application/json\r\nContent-Length: {length}{more}"));
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    v.raw(&json(ping.len(), ""), ping, 200);
    v.raw(&json(told.len(), ""), told, 202);
    v.raw(&json(1, ""), "{", 400);
    v.raw(&json(ping.len(), "\r\nMcp-Session-Id: x"), ping, 404);
    v.raw(&json(ping.len(), "\r\nAccept: text/html"), ping, 406);
    v.raw(&head("Content-Length: 2"), "{}", 415);
    v.raw("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", "", 401);
    let mut alice = v.harness.client(ALICE);
    alice.initialize("2025-11-25");
    v.streams_of(&alice);
    let ended = alice.delete();
    v.note("DELETE", "/mcp", &ended);
    let again = alice.delete();
    v.note("DELETE", "/mcp", &again);
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}");
    v.raw(&delete, "", 400);
    v.raw(&format!("{delete}\r\nMCP-Protocol-Version: 2026-07-28"), "", 405);
    v.raw("DELETE /mcp HTTP/1.1\r\nHost: localhost", "", 401);
}

/// As many requests of one client as there may be, and then one of each kind.
fn busy_client(v: &mut Visitor<'_>, upstream: &super::support::upstream::Upstream) {
    let busy = v.harness.config().replace("[gateway]\n", "[gateway]\nmax_calls_per_client = 1\n");
    v.harness.overwrite_config(&busy);
    v.harness.wait_for_log("configuration loaded");
    let gate = upstream.wait_at_gate();
    let mut alice: Client = v.harness.client(ALICE);
    alice.send(call_message("1", "echo", "{}"));
    upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
    for (path, endpoint) in Endpoint::ALL.into_iter().filter(|(_, endpoint)| *endpoint != Endpoint::RegisterClient) {
        v.ask(ALICE, if endpoint.changes() { "POST" } else { "GET" }, path, "", 429);
    }
    gate.open();
    alice.connection.answer();
    while v.harness.client("").rest("POST", "/register_client", "").status() == 200 {}
    v.ask("", "POST", "/register_client", "", 429);
}

fn closed_and_broken(v: &mut Visitor<'_>) {
    fs::write(v.harness.config_path(), "[clients").unwrap();
    v.ask(
        ALICE,
        "POST",
        "/register_mcp_server",
        &json!({ "url": format!("http://{}/", closed_port()) }).to_string(),
        503,
    );
}

#[test]
fn the_page_loads_only_its_own_files_and_those_are_there() {
    let harness = Harness::start(&clients());
    let file = |path: &str| {
        let mut connection = harness.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = connection.head();
        let policy = head.header("content-security-policy").map(str::to_owned);
        (head.status, head.header("content-type").map(str::to_owned), policy)
    };
    let (status, content_type, policy) = file("/docs");
    assert_eq!(status, 200);
    assert!(policy.is_some_and(|p| p.starts_with("default-src 'none'; script-src 'self';")));
    if cfg!(feature = "docs") {
        assert_eq!(content_type.as_deref(), Some("text/html; charset=utf-8"));
        for name in ["swagger-ui.css", "swagger-ui-bundle.js", "init.js", "favicon-32x32.png"] {
            assert_eq!(file(&format!("/docs/{name}")).0, 200, "{name}");
        }
    }
    assert_eq!(file("/docs/swagger-ui.js").0, 404);
}
