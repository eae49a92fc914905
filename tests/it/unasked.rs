//! What servers say unasked: streams that they refuse, end and go on with, and what they say there. protocol.md 3.2, 3.5, 4.2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mcp_x_fixture::{Fixture, Mode, Options};
use serde_json::{Value, json};

use super::support::ear::{ERAS, Ear, LEGACY, WATCHED, about, start};
use super::support::message::Message;
use super::support::upstream::{Plan, State};
use super::support::{ALICE, BOB, Gate, Harness, clients, owned_by_alice, server, wait_until};

#[test]
fn log_messages_that_belong_to_no_call_are_told_in_their_session_from_its_level_on() {
    let (fixture, harness) = start(Mode::LegacySessions, "");
    let [mut legacy, mut modern] = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
    let log = |level: &str| json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": "x" } });
    // On the streams of both, and on the one for lists.
    assert_eq!(fixture.broadcast(&log("debug").to_string()), 3);
    assert_eq!(legacy.stream.message(), log("debug"));
    let answer = legacy.client.ask(&Message::of(LEGACY, "logging/setLevel").param(r#""level":"error""#));
    assert_eq!(answer.json()["result"], json!({}));
    for level in ["info", "error"] {
        fixture.broadcast(&log(level).to_string());
    }
    assert_eq!(legacy.stream.message(), log("error"));
    fixture.resource_updated(WATCHED);
    legacy.hears_of_update(WATCHED);
    // A modern stream has no place for them.
    modern.hears_of_update(WATCHED);
}

#[test]
fn a_server_without_a_stream_is_not_asked_for_one_all_the_time() {
    let upstream = Plan::new("quiet").sessionful().start();
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "initialize" => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    let harness = Harness::start(&(owned_by_alice(&[("quiet", &upstream)]) + "[gateway]\nrefresh_seconds = 1\n"));
    assert_eq!(harness.client(ALICE).tools(), ["echo"]);
    upstream.wait_for("it is asked", |state| state.received.iter().any(|r| r.method == "GET"));
    assert_eq!(harness.client(ALICE).text("echo"), "quiet:echo");
    upstream.wait_for("it is asked for its tools again", |state| state.of("tools/list").len() >= 3);
    assert_eq!(upstream.state().received.iter().filter(|r| r.method == "GET").count(), 1);
}

#[test]
fn a_stream_goes_on_where_its_server_said() {
    let upstream = Plan::new("polled").sessionful().start();
    upstream.on_request(|exchange| match (exchange.request.method.as_str(), exchange.request.rpc().as_str()) {
        ("GET", _) => {
            exchange.begin_events();
            exchange.chunk("retry: 120\nid: after-this\ndata:\n\n");
            exchange.end_events();
        }
        (_, "initialize") => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    let _harness = Harness::start(&owned_by_alice(&[("polled", &upstream)]));
    let gets = |state: &State| -> Vec<Option<String>> {
        let gets = state.received.iter().filter(|r| r.method == "GET");
        gets.map(|get| get.header("last-event-id").map(str::to_owned)).collect()
    };
    let begun = Instant::now();
    upstream.wait_for("it polls", |state| gets(state).len() >= 4);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let asked = gets(&upstream.state());
    assert!(asked[0].is_none() && asked[1..].iter().all(|id| id.as_deref() == Some("after-this")), "{asked:?}");
}

#[test]
fn what_a_server_asks_on_its_stream_is_answered() {
    let upstream = Plan::new("asking").sessionful().start();
    upstream.on_request(|exchange| match (exchange.request.method.as_str(), exchange.request.rpc().as_str()) {
        ("GET", _) => {
            exchange.begin_events();
            exchange.event(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
            exchange.event(r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#);
            exchange.hang();
        }
        (_, "initialize") => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    let _harness = Harness::start(&owned_by_alice(&[("asking", &upstream)]));
    let answered = |state: &State| -> Vec<Value> {
        let answers = state.received.iter().map(|r| r.json());
        answers.filter(|m| m.get("result").is_some() || m.get("error").is_some()).collect()
    };
    upstream.wait_for("both are answered", |state| answered(state).len() == 2);
    let answers = answered(&upstream.state());
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!(7), &json!(-32601)));
}

#[test]
fn what_a_server_says_on_the_stream_of_a_call_reaches_those_who_listen() {
    let upstream = Plan::new("talking").sessionful().events().start();
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "initialize" => exchange.initialize_with(r#"{"tools":{},"resources":{"subscribe":true}}"#),
        "resources/list" => exchange.result(r#"{"resources":[{"uri":"test://a","name":"a"}]}"#),
        "resources/subscribe" => exchange.result("{}"),
        "tools/call" => {
            exchange.begin_events();
            let updated = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": "test://a" } });
            exchange.event(&updated.to_string());
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
            exchange.result_event(r#"{"content":[{"type":"text","text":"done"}]}"#);
        }
        _ => exchange.normally(),
    });
    let harness = Harness::start(&owned_by_alice(&[("talking", &upstream)]));
    assert_eq!(harness.client(ALICE).tools(), ["echo"]);
    let mut ear = Ear::open(&harness, ALICE, LEGACY, &["test://a"]);
    let fetches = upstream.state().of("tools/list").len();
    assert_eq!(
        ear.client.post(super::support::call_message("1", "echo", "{}")).response()["result"]["content"][0]["text"],
        "done"
    );
    ear.hears_of_update("test://a");
    upstream.wait_for("its tools are fetched again", |state| state.of("tools/list").len() > fetches);
    let answer = ear.client.ask(&about(LEGACY, "resources/unsubscribe", "test://a"));
    assert_eq!(answer.json()["result"], json!({}));
    upstream.wait_for("it is told", |state| state.of("resources/unsubscribe").len() == 1);
}

#[test]
fn a_client_that_may_use_nothing_of_a_server_hears_nothing_of_it_any_more() {
    let fixture = Fixture::start(Options::of(Mode::LegacySessions));
    let config = |grant: &str| clients() + &server("fixture", "alice", &fixture, "") + grant;
    let harness = Harness::start(&config("[allow.fixture]\nbob = [\"*\"]\n"));
    assert!(!harness.client(ALICE).tools().is_empty());
    let mut bob = Ear::open(&harness, BOB, LEGACY, &[]);
    let _ = bob.client.text("echo");
    wait_until("the server is heard for bob, too", || fixture.counts().streams == 2);
    let log = |data: &str| json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "error", "data": data } });
    assert_eq!(fixture.broadcast(&log("for bob").to_string()), 2);
    assert_eq!(bob.stream.message(), log("for bob"));
    harness.replace_config(&config(""));
    bob.hears_of("tools");
    wait_until("it is heard for the gateway itself only", || fixture.counts().streams == 1);
    fixture.broadcast(&log("for alice").to_string());
    harness.replace_config(&config("[allow.fixture]\nbob = [\"*\"]\n"));
    bob.hears_of("tools");
    let _ = bob.client.text("echo");
    wait_until("it is heard for bob again", || fixture.counts().streams == 2);
    fixture.broadcast(&log("for bob again").to_string());
    assert_eq!(bob.stream.message(), log("for bob again"));
}

/// As much as a server says, it is listened to for a part of the time only.
#[test]
fn a_server_that_never_stops_talking_is_heard_at_a_pace() {
    const LISTENED: Duration = Duration::from_secs(3);
    let upstream = Plan::new("talking").sessionful().start();
    let said = Arc::new(AtomicUsize::default());
    let counted = Arc::clone(&said);
    upstream.on_request(move |exchange| match (exchange.request.method.as_str(), exchange.request.rpc().as_str()) {
        ("GET", _) => {
            exchange.begin_events();
            let data = "x".repeat(4_000);
            let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": data } });
            let events = format!("data: {log}\n\n").repeat(16);
            while exchange.is_open() {
                exchange.chunk(&events);
                counted.fetch_add(events.len(), Ordering::Relaxed);
            }
        }
        (_, "initialize") => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    let (fixture, harness) = start(Mode::LegacySessions, &server("talking", "alice", &upstream, ""));
    let mut ear = Ear::open(&harness, ALICE, LEGACY, &[]);
    wait_until("it talks", || said.load(Ordering::Relaxed) > 0);
    std::thread::sleep(LISTENED);
    let said = said.load(Ordering::Relaxed);
    // What the sockets hold comes on top.
    assert!(said < 60_000_000, "{said} bytes were taken in {LISTENED:?}");
    fixture.add_tool("new");
    ear.hears_of("tools");
}

#[test]
fn what_servers_only_begin_to_say_leaves_room_for_calls() {
    let (quiet, good) = (Plan::new("quiet").sessionful().start(), Plan::new("good").tools(&["fine"]).start());
    quiet.on_request(|exchange| match (exchange.request.method.as_str(), exchange.request.rpc().as_str()) {
        ("GET", _) => {
            exchange.begin_events();
            exchange.chunk(&format!("data: {}", "x".repeat(60_000)));
            exchange.hang();
        }
        (_, "initialize") => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    good.on_call(|exchange| {
        let text = "y".repeat(60_000);
        exchange.result(&json!({ "content": [{ "type": "text", "text": text }] }).to_string());
    });
    let config = owned_by_alice(&[("quiet", &quiet), ("good", &good)]) + "[gateway]\nmax_buffered_bytes = 100000\n";
    let harness = Harness::start(&config);
    let gets = || quiet.state().received.iter().filter(|r| r.method == "GET").count();
    wait_until("it has begun, or is not listened to any more", || {
        harness.gateway().budget().held() > 50_000 || gets() > 1
    });
    assert_eq!(harness.client(ALICE).text("fine").len(), 60_000);
}

#[test]
fn a_session_is_not_given_up_for_an_event_that_its_server_has_forgotten() {
    let upstream = Plan::new("forgetful").sessionful().start();
    upstream.on_request(|exchange| match (exchange.request.method.as_str(), exchange.request.rpc().as_str()) {
        ("GET", _) if exchange.request.header("last-event-id").is_some() => {
            exchange.respond(400, "text/plain", "no such event");
        }
        ("GET", _) => {
            exchange.begin_events();
            exchange.chunk("retry: 100\nid: 1\ndata:\n\n");
            exchange.end_events();
        }
        (_, "initialize") => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    let _harness = Harness::start(&owned_by_alice(&[("forgetful", &upstream)]));
    let gets = |state: &State| -> Vec<(bool, Option<String>)> {
        let gets = state.received.iter().filter(|r| r.method == "GET");
        gets.map(|get| (get.header("last-event-id").is_some(), get.header("mcp-session-id").map(str::to_owned)))
            .collect()
    };
    upstream.wait_for("it is heard once more", |state| gets(state).len() >= 5);
    let asked = gets(&upstream.state());
    let session = Some("session-1".to_owned());
    for (at, get) in asked.iter().enumerate() {
        assert_eq!(*get, (at % 2 == 1, session.clone()), "{at}: {asked:?}");
    }
    assert_eq!(upstream.state().of("initialize").len(), 1);
}

/// However many requests a server makes that it gets no answer to, few connections are used to say so.
#[test]
fn a_server_that_asks_a_lot_is_refused_a_few_at_a_time() {
    const ASKED: usize = 100;
    const AT_A_TIME: usize = 64;
    let (upstream, gate) = (Plan::new("asking").sessionful().start(), Gate::default());
    let held = gate.clone();
    upstream.on_request(move |exchange| match (exchange.request.method.as_str(), exchange.request.rpc().as_str()) {
        ("GET", _) => {
            exchange.begin_events();
            exchange.chunk(":\n\n");
            assert!(exchange.called());
            for number in 0..ASKED {
                exchange.event(&format!(
                    r#"{{"jsonrpc":"2.0","id":{number},"method":"sampling/createMessage","params":{{}}}}"#
                ));
            }
            exchange.hang();
        }
        (_, "initialize") => exchange.initialize_with(r#"{"tools":{}}"#),
        (_, "tools/call") => exchange.hang(),
        ("POST", "null") => {
            held.wait();
            exchange.respond(202, "application/json", "");
        }
        _ => exchange.normally(),
    });
    let harness = Harness::start(&owned_by_alice(&[("asking", &upstream)]));
    let mut alice = harness.client(ALICE).speaking_as(LEGACY, r#"{"elicitation":{}}"#);
    alice.send(super::support::call_message("1", "echo", "{}"));
    let refused = |state: &State| state.received.iter().filter(|r| r.json()["error"]["code"] == -32601).count();
    upstream.wait_for("some are refused", |state| refused(state) >= AT_A_TIME);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(refused(&upstream.state()), AT_A_TIME);
    gate.open();
    upstream.wait_for("all are refused", |state| refused(state) == ASKED);
}
