//! Sessions on both sides: ids that clients are given, and what is held for them at servers.
//! Design 8; protocol.md 2.4 L3 to L5, 3.2, 3.3, 4.1.

use std::collections::BTreeSet;

use mcp_x::http::server::wall_clock;
use mcp_x_fixture::{Fixture, Mode, Options};

use super::support::client::Client;
use super::support::message::{MODERN, Message};
use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, BOB, Gate, Harness, call_message, clients, owned_by_alice, server, wait_until};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// What a request in a session that is not there gets, whatever the reason.
fn not_found(client: &mut Client, session: &str) -> (u16, String) {
    client.session = Some(session.to_owned());
    let answer = client.post(PING);
    (answer.status(), answer.body)
}

#[test]
fn a_session_id_is_short_visible_and_never_the_same() {
    let harness = Harness::start(&clients());
    let mut ids = BTreeSet::new();
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"].repeat(3) {
        let id = harness.client(ALICE).initialize(version);
        assert!(id.len() <= 200 && id.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{id}");
        assert!(!id.contains("alice"), "{id}");
        assert!(ids.insert(id));
    }
}

#[test]
fn foreign_forged_ended_and_garbled_sessions_read_the_same() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    let good = alice.initialize("2025-06-18");
    let foreign = harness.client(BOB).initialize("2025-06-18");
    let mut ending = harness.client(ALICE);
    let ended = ending.initialize("2025-06-18");
    assert_eq!(ending.delete().status(), 204);

    let expected = not_found(&mut alice, "garbage");
    assert_eq!(expected.0, 404);
    assert!(expected.1.contains(r#""code":-32600"#) && !expected.1.contains(r#""id""#), "{expected:?}");
    let mut forged: Vec<String> = (0..good.len()).step_by(7).map(|at| flipped(&good, at)).collect();
    forged.push(flipped(&good, good.len() - 1));
    let (rest, start) = (good.chars().skip(1).collect(), good.chars().take(good.len() - 1).collect());
    forged.extend([rest, start, format!("{good}A"), good.repeat(2)]);
    forged.extend([foreign, ended, "a".repeat(5000), format!("{good}=="), "null".into(), "../x".into(), "x y".into()]);
    for session in forged {
        assert_eq!(not_found(&mut alice, &session), expected, "{session}");
    }
    // Empty, and twice.
    for lines in ["Mcp-Session-Id:\r\n".to_owned(), format!("Mcp-Session-Id: {good}\r\n").repeat(2)] {
        alice.session = None;
        let head = alice.request_head("POST", PING.len()).replacen("\r\n", &format!("\r\n{lines}"), 1);
        alice.connection.send(head + PING);
        let answer = alice.connection.answer();
        assert_eq!((answer.status(), answer.body), expected, "{lines}");
    }
    alice.session = Some(good);
    assert_eq!(alice.post(PING).status(), 200);
}

/// The id with one character changed so that at least one bit of what it encodes is another.
fn flipped(id: &str, at: usize) -> String {
    let mut bytes = id.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'Q' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_kind_of_message_needs_a_session_that_is_there() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    alice.session = Some("gone".to_owned());
    for body in [
        PING,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"nonsense"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
    ] {
        assert_eq!(alice.post(body).status(), 404, "{body}");
    }
    assert_eq!(alice.delete().status(), 404);
}

#[test]
fn a_session_survives_a_restart_of_the_gateway() {
    let upstream = Plan::new("a").sessionful().start();
    let mut harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    let id = alice.initialize("2024-11-05");
    assert_eq!(alice.text("echo"), "a:echo");
    drop(alice);
    harness.restart();
    let mut alice = harness.client(ALICE);
    alice.session = Some(id.clone());
    assert_eq!(alice.text("echo"), "a:echo");
    assert_eq!(not_found(&mut harness.client(BOB), &id).0, 404);
    assert_eq!(alice.delete().status(), 204);
    assert_eq!(alice.delete().status(), 404);
}

#[test]
fn a_session_ends_once() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-06-18");
    let mut other = harness.client(ALICE);
    other.initialize("2025-06-18");
    let ended = alice.delete();
    assert_eq!((ended.status(), ended.body.as_str()), (204, ""));
    let again = alice.delete();
    assert_eq!((again.status(), again.code()), (404, -32600));
    assert_eq!(alice.post(PING).status(), 404);
    assert_eq!(other.post(PING).status(), 200, "another session of the same client goes on");
}

#[test]
fn nobody_ends_a_session_of_somebody_else() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    let id = alice.initialize("2025-06-18");
    let mut bob = harness.client(BOB);
    bob.session = Some(id);
    assert_eq!(bob.delete().status(), 404);
    assert_eq!(alice.post(PING).status(), 200);
}

#[test]
fn delete_needs_a_session_and_a_version_that_fits() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    let refused = alice.delete();
    assert_eq!((refused.status(), refused.code()), (400, -32600));
    alice.initialize("2025-06-18");
    alice.version = Some("1999-01-01".to_owned());
    let refused = alice.delete();
    assert_eq!((refused.status(), refused.code()), (400, -32600));
    assert!(refused.body.contains("2025-11-25") && refused.body.contains("2024-11-05"), "{refused:?}");
    alice.version = Some("2024-11-05".to_owned());
    assert_eq!(alice.delete().status(), 204);
}

/// Protocol.md 2.4 L5: in the modern era there is no DELETE.
#[test]
fn delete_of_the_modern_era_is_405() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-06-18");
    alice.version = Some("2026-07-28".to_owned());
    assert_eq!(alice.delete().status(), 405);
    alice.version = None;
    assert_eq!(alice.post(PING).status(), 200, "the session is still there");
}

/// The session that the server was called in, most recently.
fn used(upstream: &Upstream) -> String {
    upstream.calls().pop().and_then(|call| call.header("mcp-session-id").map(str::to_owned)).unwrap()
}

/// Alice owns a sessionful server; bob may use it.
fn shared(upstream: &Upstream) -> Harness {
    let grant = "[allow.server_a]\nbob = [\"*\"]\n";
    Harness::start(&(clients() + &server("server_a", "alice", upstream, "") + grant))
}

#[test]
fn sessions_with_a_server_are_never_shared() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = shared(&upstream);
    let mut callers = vec![harness.client(ALICE), harness.client(BOB)];
    for token in [ALICE, ALICE, BOB] {
        let mut client = harness.client(token);
        client.initialize("2025-06-18");
        callers.push(client);
    }
    let mut call_all = || -> Vec<String> {
        let each = callers.iter_mut().map(|client| {
            assert_eq!(client.text("echo"), "a:echo");
            used(&upstream)
        });
        each.collect()
    };
    let first = call_all();
    assert_eq!(call_all(), first, "each has its own, and keeps it");
    let lists = upstream.state().of("tools/list");
    let mut all: BTreeSet<_> = first.iter().cloned().collect();
    assert_eq!(all.len(), 5, "{first:?}");
    all.extend(lists.iter().map(|list| list.header("mcp-session-id").unwrap().to_owned()));
    assert_eq!(all.len(), 6, "the catalogue has one of its own");
}

/// Protocol.md 4.7: never declare more than can be passed on.
#[test]
fn a_session_for_calls_declares_no_capability() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = shared(&upstream);
    harness.client(ALICE).text("echo");
    let handshakes = upstream.state().of("initialize");
    let declared: Vec<_> = handshakes.iter().map(|h| h.json()["params"]["capabilities"].clone()).collect();
    assert_eq!(declared.len(), 2);
    assert!(declared[0].get("elicitation").is_some(), "the catalogue's lists what is there for anybody");
    assert_eq!(declared[1], serde_json::json!({}));
    for handshake in handshakes {
        assert_eq!(handshake.json()["params"]["protocolVersion"], "2025-11-25");
        assert_eq!(handshake.json()["params"]["clientInfo"]["name"], "mcp-x");
    }
}

#[test]
fn a_session_less_server_needs_one_handshake_for_everybody() {
    let upstream = Plan::new("a").start();
    let harness = shared(&upstream);
    for token in [ALICE, BOB, ALICE] {
        let mut client = harness.client(token);
        client.initialize("2025-06-18");
        assert_eq!(client.text("echo"), "a:echo");
    }
    let state = upstream.state();
    assert_eq!(state.of("initialize").len(), 1);
    assert!(state.received.iter().all(|received| received.header("mcp-session-id").is_none()));
}

#[test]
fn the_end_of_a_session_ends_its_session_with_the_server() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = shared(&upstream);
    let (mut alice, mut other) = (harness.client(ALICE), harness.client(ALICE));
    alice.initialize("2025-06-18");
    other.initialize("2025-06-18");
    alice.text("echo");
    let own = used(&upstream);
    other.text("echo");
    let others = used(&upstream);
    assert_eq!(alice.delete().status(), 204);
    upstream.wait_for("the end of its session", |s| !s.sessions.contains(&own));
    assert!(upstream.state().sessions.contains(&others));
    let ends: Vec<_> = upstream.state().received.iter().filter(|r| r.method == "DELETE").cloned().collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].header("mcp-session-id"), Some(own.as_str()));
    assert_eq!(other.text("echo"), "a:echo");
}

#[test]
fn a_server_that_lost_its_sessions_is_renewed_and_each_call_executed_once() {
    for plan in [Plan::new("a").sessionful(), Plan::new("a").sessionful().events()] {
        let upstream = plan.start();
        let harness = shared(&upstream);
        let mut alice = harness.client(ALICE);
        for round in 1..=3 {
            assert_eq!(alice.text("echo"), "a:echo");
            let executed = upstream.state().executed;
            upstream.forget_sessions();
            assert_eq!(alice.text("echo"), "a:echo");
            assert_eq!(upstream.state().executed, executed + 1, "round {round}");
            let ids: Vec<_> = upstream.calls().iter().map(|call| call.id()).collect();
            assert_eq!(ids.len(), 3 * round, "sent, refused, sent again");
            assert_eq!(ids[ids.len() - 2], ids[ids.len() - 1], "the same request again");
        }
    }
}

#[test]
fn many_calls_that_find_the_session_lost_renew_it_once() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = shared(&upstream);
    let mut first = harness.client(ALICE);
    first.text("echo");
    let tenants = |upstream: &Upstream| {
        upstream
            .state()
            .of("initialize")
            .iter()
            .filter(|h| h.json()["params"]["capabilities"] == serde_json::json!({}))
            .count()
    };
    assert_eq!(tenants(&upstream), 1);
    upstream.forget_sessions();
    let mut callers: Vec<_> = (0..8).map(|_| harness.client(ALICE)).collect();
    for caller in &mut callers {
        caller.send(call_message("1", "echo", "{}"));
    }
    for caller in &mut callers {
        assert!(caller.connection.answer().body.contains("a:echo"));
    }
    assert_eq!(tenants(&upstream), 2);
    assert_eq!(upstream.state().executed, 9);
}

#[test]
fn a_second_404_is_an_error_and_not_a_loop() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = shared(&upstream);
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.text("echo"), "a:echo");
    upstream.on_call(|exchange| exchange.respond(404, "text/plain", "Not Found"));
    let before = upstream.calls().len();
    let error = alice.error("echo");
    assert_eq!(error, (-32603, "server of tool `echo` answered with HTTP status 404".to_owned()));
    assert_eq!(upstream.calls().len() - before, 2);
    upstream.on_call(|exchange| exchange.echo());
    assert_eq!(alice.text("echo"), "a:echo");
}

/// Protocol.md 3.3: the request may have been executed, so it is not sent again; the next one finds a new session.
#[test]
fn a_400_is_not_repeated_but_the_session_is_renewed() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = shared(&upstream);
    let mut alice = harness.client(ALICE);
    alice.text("echo");
    let old = used(&upstream);
    upstream.on_call(|exchange| exchange.respond(400, "text/plain", "Bad Request: no valid session ID provided"));
    let before = upstream.calls().len();
    assert_eq!(alice.error("echo").0, -32603);
    assert_eq!(upstream.calls().len() - before, 1);
    upstream.on_call(|exchange| exchange.echo());
    assert_eq!(alice.text("echo"), "a:echo");
    assert_ne!(used(&upstream), old);
}

#[test]
fn a_lost_session_of_one_client_is_nobody_elses_business() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = shared(&upstream);
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    alice.text("echo");
    let alices = used(&upstream);
    bob.text("echo");
    let bobs = used(&upstream);
    upstream.end_session(&alices);
    assert_eq!(alice.text("echo"), "a:echo");
    assert_ne!(used(&upstream), alices);
    bob.text("echo");
    assert_eq!(used(&upstream), bobs);
}

#[test]
fn calls_of_one_session_run_side_by_side() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = shared(&upstream);
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-06-18");
    let both = Gate::default();
    let waited = both.clone();
    upstream.on_call(move |exchange| {
        let together = waited.wait();
        exchange.result(&format!(r#"{{"together":{together}}}"#));
    });
    let mut callers = [alice.another(), alice.another()];
    for caller in &mut callers {
        caller.send(call_message("1", "echo", "{}"));
    }
    upstream.wait_for("both calls", |s| s.of("tools/call").len() == 2);
    both.open();
    for caller in &mut callers {
        assert!(caller.connection.answer().body.contains(r#""together":true"#));
    }
}

/// Protocol.md 3.2: servers that notify before they answer, and that answer oddly.
#[test]
fn a_handshake_with_an_odd_server_works() {
    let upstream = Plan::new("a").start();
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "initialize" => {
            exchange.begin_events();
            exchange.chunk("id: 1\ndata:\n\n: hello\n\n");
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#);
            exchange.result_event(
                r#"{"protocolVersion":"2024-11-05","capabilities":{},"serverInfo":{"name":"x","version":"1"}}"#,
            );
        }
        "notifications/initialized" => exchange.respond(200, "text/plain", "ok"),
        _ => exchange.normally(),
    });
    let harness = shared(&upstream);
    assert_eq!(harness.client(ALICE).text("echo"), "a:echo");
    let call = upstream.calls().pop().unwrap();
    assert_eq!(call.header("mcp-protocol-version"), None, "unknown before 2025-06-18");
}

#[test]
fn a_server_of_an_unknown_revision_is_refused() {
    let upstream = Plan::new("a").start();
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "initialize" => exchange.result(r#"{"protocolVersion":"2026-07-28","capabilities":{},"serverInfo":{}}"#),
        _ => exchange.normally(),
    });
    let harness = shared(&upstream);
    assert_eq!(harness.client(ALICE).tools(), [""; 0]);
    harness.wait_for_log("2026-07-28");
}

#[test]
fn instructions_of_the_servers_are_passed_on() {
    let (one, two) = (Plan::new("a").start(), Plan::new("b").tools(&["other"]).start());
    for (upstream, text) in [(&one, "Use a for \\u00e9."), (&two, "Use b.")] {
        let result = format!(
            r#"{{"protocolVersion":"2025-06-18","capabilities":{{}},"serverInfo":{{}},"instructions":"{text}"}}"#
        );
        upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
            "initialize" => exchange.result(&result),
            _ => exchange.normally(),
        });
    }
    let harness = Harness::start(&owned_by_alice(&[("server_a", &one), ("server_b", &two)]));
    assert_eq!(harness.client(ALICE).tools(), ["echo", "other"]);
    let instructions = |token| {
        let answer = harness.client(token).post(super::support::client::initialize_message("2025-06-18"));
        answer.json()["result"]["instructions"].as_str().map(str::to_owned)
    };
    assert_eq!(instructions(ALICE).as_deref(), Some("Use a for é.\n\nUse b."));
    assert_eq!(instructions(BOB), None, "who may not use a server does not hear it");
}

/// A client that can be asked has a session for each of its calls that run at a time, and a stream in each.
#[test]
fn what_is_held_for_a_client_that_can_be_asked_ends_when_nobody_uses_it() {
    let fixture = Fixture::start(Options::of(Mode::LegacySessions));
    let harness = Harness::start(&(owned_by_alice(&[("fixture", &fixture)]) + "[gateway]\nidle_session_seconds = 1\n"));
    let call = Message::call(MODERN, "slow", r#"{"ms":300}"#).told("clientCapabilities", r#"{"elicitation":{}}"#);
    let mut both = [harness.client(ALICE), harness.client(ALICE)];
    both.iter_mut().for_each(|client| client.send_message(&call));
    wait_until("each has a session and a stream, beside the gateway's own", || {
        let counts = fixture.counts();
        (counts.sessions, counts.get_streams) == (3, 3)
    });
    both.iter_mut().for_each(|client| assert_eq!(client.connection.answer().status(), 200));
    wait_until("they are gone", || {
        harness.gateway().drop_idle_sessions(wall_clock());
        let counts = fixture.counts();
        (counts.sessions, counts.get_streams) == (1, 1)
    });
}
