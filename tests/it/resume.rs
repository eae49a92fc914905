//! Event streams of legacy servers that end before the response: the call goes on where it ended, within its limits, and
//! is never made twice. Protocol.md 1.8, 3.5.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::message::{MODERN, Message, revisions};
use super::support::upstream::{Exchange, Plan, Received, Upstream};
use super::support::{ALICE, Harness, call_message, owned_by_alice, side_by_side};

const LOST: &str = "connection to the server of tool `echo` was lost; the call may have been executed";
const PRIMING: &str = "id: 1\nretry: 100\ndata: \n\n";

/// What a server does with a call, or with a GET: the exchange, the id of the call, and how many GETs there were before.
type Script = fn(&mut Exchange<'_>, &str, usize);

/// A sessionful server, of which every GET is noted with its time.
struct Server {
    upstream: Upstream,
    gets: Arc<Mutex<Vec<(Received, Instant)>>>,
}

impl Server {
    fn start(call: Script, get: Script) -> Self {
        let upstream = Plan::new("a").sessionful().start();
        let gets = Arc::<Mutex<Vec<_>>>::default();
        let (noted, id) = (Arc::clone(&gets), Mutex::new(String::new()));
        upstream.on_request(move |exchange| {
            if exchange.request.method == "GET" {
                let before = noted.lock().unwrap().len();
                noted.lock().unwrap().push((exchange.request.clone(), Instant::now()));
                let id = id.lock().unwrap().clone();
                get(exchange, &id, before);
            } else if exchange.request.rpc() == "tools/call" {
                id.lock().unwrap().clone_from(&exchange.request.id());
                call(exchange, &exchange.request.id(), 0);
            } else {
                exchange.normally();
            }
        });
        Self { upstream, gets }
    }

    fn gateway(&self, limits: &str) -> Harness {
        Harness::start(&(owned_by_alice(&[("server_a", &self.upstream)]) + "[gateway]\n" + limits))
    }

    fn gets(&self) -> Vec<Received> {
        self.gets.lock().unwrap().iter().map(|(get, _)| get.clone()).collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.gets.lock().unwrap().iter().map(|(_, time)| *time).collect()
    }

    /// The events after which the gateway wanted the stream to go on.
    fn resumed_after(&self) -> Vec<String> {
        self.gets().iter().map(|get| get.header("last-event-id").unwrap_or("none").to_owned()).collect()
    }
}

/// A whole stream of these events.
fn stream(exchange: &mut Exchange<'_>, events: &str) {
    exchange.begin_events();
    exchange.chunk(events);
    exchange.end_events();
}

fn primed(exchange: &mut Exchange<'_>, _: &str, _: usize) {
    stream(exchange, PRIMING);
}

fn result(id: &str) -> String {
    format!("id: 9\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"z\":1.0}}}}\n\n")
}

fn answered(exchange: &mut Exchange<'_>, id: &str, _: usize) {
    stream(exchange, &result(id));
}

fn log(text: &str) -> String {
    let params = json!({ "level": "info", "data": text });
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params }).to_string()
}

#[test]
fn a_call_goes_on_where_its_stream_ended() {
    let server = Server::start(
        |exchange, _, _| stream(exchange, &format!("{PRIMING}id: b/2\nretry: 300\ndata: {}\n\n", log("before"))),
        |exchange, id, _| stream(exchange, &format!("id: b/3\ndata: {}\n\n{}", log("after"), result(id))),
    );
    let harness = server.gateway("");
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    let begun = Instant::now();
    let answer = alice.post(call_message("\"mine\"", "echo", "{}"));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    let data = |message: &Value| message["params"]["data"].clone();
    let messages = answer.messages();
    assert_eq!(messages.iter().map(data).collect::<Vec<_>>(), [json!("before"), json!("after"), Value::Null]);
    assert_eq!(messages[2], json!({ "jsonrpc": "2.0", "id": "mine", "result": { "z": 1.0 } }));

    let (gets, calls) = (server.gets(), server.upstream.calls());
    assert_eq!((gets.len(), calls.len()), (1, 1));
    let headers = |get: &Received, name: &str| get.header(name).map(str::to_owned);
    assert_eq!(headers(&gets[0], "last-event-id").as_deref(), Some("b/2"));
    assert_eq!(headers(&gets[0], "accept").as_deref(), Some("text/event-stream"));
    for same in ["mcp-session-id", "mcp-protocol-version", "authorization", "host"] {
        assert!(gets[0].header(same).is_some(), "{same} is missing: {:?}", gets[0]);
        assert_eq!(headers(&gets[0], same), headers(&calls[0], same), "{same}");
    }
    for of_a_body in ["content-type", "content-length"] {
        assert_eq!(gets[0].header(of_a_body), None, "{of_a_body}");
    }
}

#[test]
fn clients_of_every_revision_get_what_comes_later() {
    side_by_side(revisions(), |revision| {
        let server = Server::start(primed, answered);
        let harness = server.gateway("");
        let answer = harness.client(ALICE).speaking(revision).ask(&Message::call(revision, "echo", "{}"));
        assert_eq!(answer.response()["result"]["z"], json!(1.0), "{revision}");
        assert_eq!((server.resumed_after(), server.upstream.calls().len()), (vec!["1".to_owned()], 1), "{revision}");
    });
}

#[test]
fn the_event_that_was_handed_out_last_is_the_one_to_go_on_after() {
    let rows: [(&str, Script, &str); 8] = [
        ("an id without data", |e, _, _| stream(e, "retry: 100\n\nid: 1\n\n"), "1"),
        ("events without ids after it", |e, _, _| stream(e, &format!("{PRIMING}data: {}\n\n", log("x"))), "1"),
        ("the last of several", |e, _, _| stream(e, &format!("{PRIMING}id: 2\ndata: {}\n\n", log("x"))), "2"),
        ("an event that the end cuts short", |e, _, _| stream(e, &format!("{PRIMING}id: 2\ndata: {{\"json")), "1"),
        (
            "an event that only lacks its blank line",
            |e, _, _| stream(e, &format!("{PRIMING}id: 2\ndata: {}", log("x"))),
            "2",
        ),
        ("an id that the end cuts short", |e, _, _| stream(e, &format!("{PRIMING}id: 22")), "1"),
        ("no ASCII", |e, _, _| stream(e, "retry: 100\nid: é 😀\n\n"), "é 😀"),
        (
            "a connection that breaks",
            |e, _, _| {
                e.begin_events();
                e.chunk(&format!("{PRIMING}id: 2\ndata: {{\"json"));
                e.close();
            },
            "1",
        ),
    ];
    side_by_side(rows, |(what, call, expected)| {
        let server = Server::start(call, answered);
        assert_eq!(server.gateway("").client(ALICE).call("echo")["result"], json!({ "z": 1.0 }), "{what}");
        assert_eq!(server.resumed_after(), [expected], "{what}");
        assert_eq!(server.upstream.calls().len(), 1, "{what}");
    });
}

#[test]
fn a_stream_that_cannot_go_on_loses_its_call() {
    let cut: Script = |e, _, _| {
        e.begin_events();
        e.close();
    };
    let rows: [(&str, Script, Script, usize); 12] = [
        ("no id", |e, _, _| stream(e, "retry: 100\n\n"), answered, 0),
        ("an id that is taken back", |e, _, _| stream(e, &format!("{PRIMING}id\n\n")), answered, 0),
        ("an id that cannot be sent", |e, _, _| stream(e, "id: a\u{7}b\n\n"), answered, 0),
        ("400", primed, |e, _, _| e.respond(400, "application/json", "{}"), 1),
        ("404", primed, |e, _, _| e.respond(404, "text/html", ""), 1),
        ("405", primed, |e, _, _| e.respond(405, "text/plain", ""), 1),
        ("no content", primed, |e, _, _| e.raw("HTTP/1.1 204 No Content\r\n\r\n"), 1),
        ("JSON", primed, |e, id, _| e.respond(200, "application/json", &result(id)), 1),
        ("nothing, twice", primed, |e, _, _| stream(e, ": nothing\n\nretry: 100\n\n"), 2),
        ("a broken stream, twice", primed, cut, 2),
        ("503, twice", primed, |e, _, _| e.respond(503, "text/plain", ""), 2),
        ("nobody there, twice", primed, |e, _, _| e.close(), 2),
    ];
    side_by_side(rows, |(what, call, get, gets)| {
        let server = Server::start(call, get);
        let harness = server.gateway("");
        let mut alice = harness.client(ALICE);
        assert_eq!(alice.error("echo"), (-32603, LOST.to_owned()), "{what}");
        assert_eq!((server.gets().len(), server.upstream.calls().len()), (gets, 1), "{what}");
        server.upstream.as_planned();
        assert_eq!(alice.text("echo"), "a:echo", "{what}");
    });
}

#[test]
fn a_stream_is_taken_up_as_often_as_something_comes() {
    let server = Server::start(primed, |exchange, id, before| match before {
        // Only two in a row that bring nothing are the end of it.
        1 | 3 => stream(exchange, ""),
        7 => stream(exchange, &result(id)),
        _ => stream(exchange, &format!("id: get-{before}\ndata: \n\n")),
    });
    assert_eq!(server.gateway("").client(ALICE).call("echo")["result"], json!({ "z": 1.0 }));
    assert_eq!(server.resumed_after(), ["1", "get-0", "get-0", "get-2", "get-2", "get-4", "get-5", "get-6"]);
    assert_eq!(server.upstream.calls().len(), 1);
}

#[test]
fn a_server_that_does_not_say_how_long_is_left_alone_ever_longer() {
    let server = Server::start(
        |exchange, _, _| stream(exchange, "id: 1\n\n"),
        |exchange, id, before| match before {
            0 => stream(exchange, "id: 2\n\n"),
            _ => stream(exchange, &result(id)),
        },
    );
    let harness = server.gateway("");
    let begun = Instant::now();
    assert_eq!(harness.client(ALICE).call("echo")["result"], json!({ "z": 1.0 }));
    let times = server.times();
    assert!(times[0] - begun >= Duration::from_secs(1), "{:?}", times[0] - begun);
    assert!(times[1] - times[0] >= Duration::from_millis(1500), "{:?}", times[1] - times[0]);
}

#[test]
fn a_server_that_says_at_once_is_not_asked_without_end() {
    let server = Server::start(
        |exchange, _, _| stream(exchange, "id: 1\nretry: 0\n\n"),
        |exchange, _, _| stream(exchange, "id: 1\n\n"),
    );
    let harness = server.gateway("whole_call_seconds = 1\n");
    assert_eq!(harness.client(ALICE).error("echo").0, -32603);
    let gets = server.gets().len();
    assert!((2..=10).contains(&gets), "{gets} requests in a second");
}

#[test]
fn a_wait_that_the_server_asks_for_is_no_silence_but_ends_with_the_call() {
    let server = Server::start(|exchange, _, _| stream(exchange, "id: 1\nretry: 1500\n\n"), answered);
    let harness = server.gateway("silent_call_seconds = 1\n");
    assert_eq!(harness.client(ALICE).call("echo")["result"], json!({ "z": 1.0 }));

    let server = Server::start(|exchange, _, _| stream(exchange, "id: 1\nretry: 18446744073709551615\n\n"), answered);
    let harness = server.gateway("silent_call_seconds = 1\nwhole_call_seconds = 2\n");
    let expected = "call of tool `echo` was not finished after 2 s".to_owned();
    assert_eq!(harness.client(ALICE).error("echo"), (-32603, expected));
    server.upstream.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == 1);
    assert_eq!(server.gets().len(), 0);
}

#[test]
fn a_server_that_is_silent_when_asked_to_go_on_is_told_that_nobody_waits() {
    let silent: [Script; 2] = [
        |exchange, _, _| exchange.hang(),
        |exchange, _, _| {
            exchange.begin_events();
            exchange.chunk("id: 2\n\n");
            exchange.hang();
        },
    ];
    side_by_side(silent, |get| {
        let server = Server::start(primed, get);
        let harness = server.gateway("silent_call_seconds = 1\n");
        let expected = "server of tool `echo` sent nothing for 1 s".to_owned();
        assert_eq!(harness.client(ALICE).error("echo"), (-32603, expected));
        server.upstream.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == 1);
        let cancelled = server.upstream.state().of("notifications/cancelled").pop().unwrap();
        assert_eq!(cancelled.json()["params"]["requestId"].to_string(), server.upstream.calls()[0].id());
    });
}

#[test]
fn a_call_can_be_called_off_while_its_server_is_left_alone() {
    let server = Server::start(|exchange, _, _| stream(exchange, "id: 1\nretry: 60000\n\n"), answered);
    let harness = server.gateway("");
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    alice.send(call_message("7", "echo", "{}"));
    server.upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
    assert_eq!(alice.another().post(notification).status(), 202);
    server.upstream.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == 1);
    assert!(alice.connection.head().is_stream());
    assert_eq!(alice.connection.event(), None, "a call that was called off is not answered");
    assert_eq!(server.gets().len(), 0);
}

#[test]
fn what_a_server_asks_on_the_later_stream_is_answered() {
    let server = Server::start(primed, |exchange, id, _| {
        exchange.begin_events();
        exchange.chunk("id: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"there?\",\"method\":\"ping\"}\n\n");
        exchange.chunk(&result(id));
        exchange.end_events();
    });
    let harness = server.gateway("");
    assert_eq!(harness.client(ALICE).call("echo")["result"], json!({ "z": 1.0 }));
    let pong = json!({ "jsonrpc": "2.0", "id": "there?", "result": {} });
    server.upstream.wait_for("the pong", |s| s.received.iter().any(|received| received.json() == pong));
}

#[test]
fn ids_of_a_modern_server_mean_nothing() {
    let upstream = Plan::new("a").start();
    upstream.on_request(|exchange| {
        let result = match exchange.request.rpc().as_str() {
            "server/discover" => json!({ "supportedVersions": [MODERN], "capabilities": { "tools": {} } }),
            "tools/list" => json!({ "tools": [{ "name": "echo", "inputSchema": { "type": "object" } }] }),
            _ => return stream(exchange, PRIMING),
        };
        exchange.result(&result.to_string());
    });
    let config = owned_by_alice(&[("server_a", &upstream)]) + "[gateway]\nwhole_call_seconds = 2\n";
    let harness = Harness::start(&config);
    assert_eq!(harness.client(ALICE).error("echo"), (-32603, LOST.to_owned()));
    assert!(upstream.state().received.iter().all(|received| received.method == "POST"));
}
