//! One call from client to server and back: nothing but ids, tokens and names is touched, nothing is sent twice, and
//! what comes while the call runs arrives while it runs. Design 1.3, 8, 11; protocol.md 2.4, 3.4, 4.2.

use mcp_x_fixture::{Fixture, Mode, Options};
use serde_json::Value;

use super::support::http::Answer;
use super::support::message::{Message, revisions};
use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, Gate, Harness, call_message, clients, owned_by_alice};

/// A gateway with one server.
fn gateway(upstream: &Upstream) -> Harness {
    Harness::start(&owned_by_alice(&[("server_a", upstream)]))
}

/// Values in which a careless hand would change something.
const DELICATE: [&str; 12] = [
    "{}",
    r#"{"n":9007199254740993,"m":-18446744073709551617,"big":123456789012345678901234567890}"#,
    r#"{"a":1e21,"b":42.0,"c":1E+2,"d":-0,"e":0.10,"f":1.0e-7,"g":95.5}"#,
    r#"{"z":1,"a":2,"m":{"y":1,"b":2}}"#,
    r#"{"text":"é 漢字 \ud83d\ude00 😀 \u0000 \u2028 \u007f \/ \\ \" \t"}"#,
    r#"{"lone":"\ud800","other":"\udfff\ud800"}"#,
    r#"{ "space" :  [ 1 ,	2 ] , "empty" : [ ] }"#,
    r#"{"":null,"null":null,"true":true,"list":[[],[[]],{}]}"#,
    r#"{"same":1,"same":2}"#,
    r#"{"name":"other","arguments":{"name":"x"},"_meta":{"progressToken":1}}"#,
    r#"{"id":5,"jsonrpc":"1.0","method":"x","progressToken":"y"}"#,
    r#"{"html":"</script><!-- & -->","rtl":"\u202e"}"#,
];

#[test]
fn arguments_reach_the_server_byte_for_byte() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    let mut alice = harness.client(ALICE);
    for arguments in DELICATE {
        let sent = format!(
            r#"{{ "unknown":[1.0], "params":{{"extra":{arguments},"name":"echo","arguments":{arguments}}},"jsonrpc":"2.0","method":"tools/call","id":"mine"}}"#
        );
        let answer = alice.post(&sent);
        assert_eq!(answer.status(), 200, "{answer:?}");
        let received = upstream.calls().pop().unwrap();
        assert_ne!(received.id(), "\"mine\"", "the client's id left the gateway");
        let expected = sent.replace(r#""id":"mine""#, &format!(r#""id":{}"#, received.id()));
        assert_eq!(received.body, expected);
    }
}

#[test]
fn results_reach_the_client_byte_for_byte() {
    for plan in [Plan::new("a"), Plan::new("a").events()] {
        let upstream = plan.start();
        let harness = gateway(&upstream);
        let mut alice = harness.client(ALICE);
        for result in DELICATE {
            let message = format!(r#"{{"result":{result},"extra":{result},"id":ID,"jsonrpc":"2.0"}}"#);
            let reply = message.clone();
            upstream.on_call(move |exchange| exchange.message(&reply.replace("ID", &exchange.request.id())));
            let answer = alice.post(call_message("77", "echo", "{}"));
            assert_eq!(answer.message(), message.replace("ID", "77"));
        }
    }
}

#[test]
fn a_result_of_many_lines_in_one_event_is_the_same_message() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        exchange.begin_events();
        let id = exchange.request.id();
        exchange
            .chunk(&format!("data: {{\"jsonrpc\":\"2.0\",\ndata: \"id\":{id},\ndata:\"result\":{{\"n\":1e21}}}}\n\n"));
        exchange.end_events();
    });
    let answer = harness.client(ALICE).post(call_message("1", "echo", "{}"));
    assert_eq!(answer.response()["id"], 1);
    assert!(answer.message().contains("1e21"), "{answer:?}");
}

#[test]
fn an_error_that_cannot_be_read_is_an_error_with_the_id_of_the_client() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    let mut alice = harness.client(ALICE);
    for members in [r#""id":null,"error":{"code":"x"}"#, r#""error":{"message":7}"#, r#""error":{"code":1.5}"#] {
        let message = format!(r#"{{"jsonrpc":"2.0",{members}}}"#);
        upstream.on_call(move |exchange| exchange.respond(200, "application/json", &message));
        let response = alice.call("echo");
        assert!(response["id"].is_number(), "{members}: {response}");
        assert_eq!(response["error"]["code"], -32603, "{members}: {response}");
    }
}

#[test]
fn ids_of_every_kind_come_back_as_they_were_written() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    let mut alice = harness.client(ALICE);
    let long = format!("\"{}\"", "i".repeat(2000));
    let ids = ["0", "-7", "1", "9007199254740993", "123456789012345678901234567890", r#""""#, r#""a b""#];
    let odd = [r#""\u0061\/\"\\""#, r#""😀 é""#, r#""null""#, r#""1""#, &long];
    for id in ids.into_iter().chain(odd) {
        for request in [
            call_message(id, "echo", "{}"),
            call_message(id, "no such tool", "{}"),
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#),
        ] {
            let answer = alice.post(&request);
            let expected = format!(r#""id":{id}"#);
            assert!(answer.message().contains(&expected), "{expected} is not in {answer:?}");
        }
    }
}

#[test]
fn tool_errors_are_results_and_untouched() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        exchange.result(r#"{"isError":true,"content":[{"type":"text","text":"no such file"}],"x":1.0}"#);
    });
    let answer = harness.client(ALICE).post(call_message("3", "echo", "{}"));
    let expected = r#"{"jsonrpc":"2.0","id":3,"result":{"isError":true,"content":[{"type":"text","text":"no such file"}],"x":1.0}}"#;
    assert_eq!(answer.body, expected);
}

/// Protocol.md 4.6: what becomes of a server's own errors.
#[test]
fn errors_of_the_server_are_translated() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    let mut alice = harness.client(ALICE);
    for (code, text, expected) in [
        (-32602, "missing `path`", (-32602, "missing `path`")),
        (-32603, "it broke", (-32603, "it broke")),
        (-1, "user said no", (-1, "user said no")),
        (42, "own code", (42, "own code")),
        (-32601, "Method not found", (-32602, "unknown tool: `echo`")),
        (-32000, "private", (-32603, "private")),
        (-32019, "private", (-32603, "private")),
    ] {
        upstream.on_call(move |exchange| exchange.error(code, text));
        let (found, message) = alice.error("echo");
        assert_eq!((found, message.as_str()), expected, "of {code}");
    }
}

#[test]
fn data_of_an_error_is_kept() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        let id = exchange.request.id();
        let error = r#""error":{"code":-32602,"message":"bad","data":{"z":1e21,"a":[42.0]}}"#;
        exchange.message(&format!(r#"{{"jsonrpc":"2.0","id":{id},{error}}}"#));
    });
    let answer = harness.client(ALICE).post(call_message("1", "echo", "{}"));
    assert!(answer.body.contains(r#"{"z":1e21,"a":[42.0]}"#), "{answer:?}");
}

/// A call with this progress token to a server that tells its progress under the token it was given.
fn call_with_token(token: &str, upstream: &Upstream) -> Answer {
    let harness = gateway(upstream);
    upstream.on_call(|exchange| {
        let own = exchange.request.json()["params"]["_meta"]["progressToken"].to_string();
        exchange.begin_events();
        for params in [
            format!(r#"{{"progressToken":{own},"progress":1,"total":2.50,"message":"first"}}"#),
            r#"{"progressToken":"somebody else's","progress":99}"#.to_owned(),
            r#"{"progressToken":987654321,"progress":99}"#.to_owned(),
            r#"{"progress":99}"#.to_owned(),
            format!(r#"{{"progress":2e0,"progressToken":{own}}}"#),
        ] {
            exchange.event(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#));
        }
        exchange.result_event("{}");
    });
    let meta = format!(r#""_meta":{{"keep":1.0,"progressToken":{token}}}"#);
    let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo",{meta}}}}}"#);
    harness.client(ALICE).post(request)
}

#[test]
fn progress_comes_back_under_the_clients_own_token_and_no_other() {
    for token in [r#""abc""#, "7", r#""7""#, "0", r#""""#, r#""\u0061 \"x\"""#, "9007199254740993"] {
        let upstream = Plan::new("a").start();
        let answer = call_with_token(token, &upstream);
        let call = upstream.calls().pop().unwrap();
        assert!(call.body.contains(r#""keep":1.0"#), "{}", call.body);
        let head = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"#;
        let expected = [
            format!(r#"{head}"progressToken":{token},"progress":1,"total":2.50,"message":"first"}}}}"#),
            format!(r#"{head}"progress":2e0,"progressToken":{token}}}}}"#),
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned(),
        ];
        assert_eq!(answer.events(), expected, "token {token}");
    }
}

#[test]
fn a_token_that_is_neither_text_nor_integer_is_refused() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    let mut alice = harness.client(ALICE);
    for token in ["null", "1.5", "true", "{}", "[1]"] {
        let meta = format!(r#""_meta":{{"progressToken":{token}}}"#);
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo",{meta}}}}}"#);
        assert_eq!(alice.post(request).code(), -32602, "{token}");
    }
    assert_eq!(upstream.calls().len(), 0);
}

#[test]
fn progress_is_dropped_when_the_client_asked_for_none() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        let id = exchange.request.id();
        exchange.begin_events();
        for token in [id.as_str(), "\"x\""] {
            let params = format!(r#"{{"progressToken":{token},"progress":1}}"#);
            exchange.event(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#));
        }
        exchange.result_event("{}");
    });
    let answer = harness.client(ALICE).post(call_message("1", "echo", "{}"));
    assert_eq!(answer.body, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
}

#[test]
fn notifications_arrive_in_order_while_the_call_runs() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    let gates = [Gate::default(), Gate::default()];
    let waited = gates.clone();
    upstream.on_call(move |exchange| {
        exchange.begin_events();
        exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}}"#);
        let first = waited[0].wait();
        let own = exchange.request.json()["params"]["_meta"]["progressToken"].to_string();
        let params = format!(r#"{{"progressToken":{own},"progress":1}}"#);
        exchange.event(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#));
        let second = waited[1].wait();
        exchange.result_event(&format!(r#"{{"first":{first},"second":{second}}}"#));
    });
    let mut alice = harness.client(ALICE);
    let params = r#"{"name":"echo","_meta":{"progressToken":"p"}}"#;
    let head = alice.stream(&format!(r#"{{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{params}}}"#));
    assert_eq!(head.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    let mut next = || alice.connection.event();
    let message = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}}"#;
    assert_eq!(next().as_deref(), Some(message));
    gates[0].open();
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}"#;
    assert_eq!(next().as_deref(), Some(progress));
    gates[1].open();
    assert_eq!(next().as_deref(), Some(r#"{"jsonrpc":"2.0","id":"c","result":{"first":true,"second":true}}"#));
    assert_eq!(next(), None);
    // The connection is of further use.
    upstream.on_call(|exchange| exchange.echo());
    assert_eq!(alice.text("echo"), "a:echo");
}

#[test]
fn notifications_that_do_not_belong_to_a_call_are_kept_back() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        exchange.begin_events();
        for method in ["resources/updated", "cancelled", "prompts/list_changed", "tools/list_changed", "made_up"] {
            exchange.event(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}"}}"#));
        }
        exchange.chunk(": a comment\n\nid: 7\ndata:\n\nretry: 10\n\nevent: other\ndata: not json\n\n");
        exchange.result_event("{}");
    });
    let answer = harness.client(ALICE).post(call_message("1", "echo", "{}"));
    assert_eq!(answer.body, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
}

/// Protocol.md 4.2: nobody can be asked for a client that declared nothing.
#[test]
fn requests_of_the_server_are_answered_by_the_gateway_and_never_shown() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = gateway(&upstream);
    let answered = Gate::default();
    let waited = answered.clone();
    upstream.on_call(move |exchange| {
        exchange.begin_events();
        exchange.event(r#"{"jsonrpc":"2.0","id":"q1","method":"sampling/createMessage","params":{"messages":[]}}"#);
        exchange.event(r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#);
        exchange.event(r#"{"jsonrpc":"2.0","id":"q2","method":"roots/list"}"#);
        exchange.event(r#"{"jsonrpc":"2.0","id":6,"method":"elicitation/create","params":{}}"#);
        let in_time = waited.wait();
        exchange.result_event(&format!(r#"{{"answered":{in_time}}}"#));
    });
    let mut alice = harness.client(ALICE);
    alice.send(call_message("1", "echo", "{}"));
    let is_answer = |body: &Value| body.get("method").is_none() && body.get("id").is_some();
    upstream.wait_for("four answers", |s| s.received.iter().filter(|r| is_answer(&r.json())).count() == 4);
    answered.open();
    assert_eq!(alice.connection.answer().body, r#"{"jsonrpc":"2.0","id":1,"result":{"answered":true}}"#);

    let session = upstream.calls()[0].header("mcp-session-id").map(str::to_owned);
    let received = upstream.state().received.clone();
    let mut answers = Vec::new();
    for answer in received.iter().filter(|r| is_answer(&r.json())) {
        assert_eq!(answer.header("mcp-session-id").map(str::to_owned), session);
        let body = answer.json();
        answers.push((body["id"].to_string(), body["result"].to_string(), body["error"]["code"].to_string()));
    }
    answers.sort();
    let row = |id: &str, result: &str, code: &str| (id.to_owned(), result.to_owned(), code.to_owned());
    let refused = |id| row(id, "null", "-32601");
    assert_eq!(answers, [refused(r#""q1""#), refused(r#""q2""#), row("5", "{}", "null"), refused("6")]);
}

#[test]
fn every_call_is_one_request_on_a_reused_connection() {
    // A server that answers with events ends its stream a moment after the response; a client that is quick calls before
    // that, while the connection is still in use.
    for (plan, most) in [
        (Plan::new("a"), 1),
        (Plan::new("a").events(), 3),
        (Plan::new("a").sessionful(), 1),
        (Plan::new("a").events().sessionful(), 3),
    ] {
        let upstream = plan.start();
        let harness = gateway(&upstream);
        let mut alice = harness.client(ALICE);
        assert_eq!(alice.tools(), ["echo"]);
        let connections = upstream.state().connections;
        for _ in 0..100 {
            assert_eq!(alice.text("echo"), "a:echo");
        }
        let state = upstream.state();
        let made = state.of("tools/call");
        assert_eq!(made.len(), 100);
        let used: Vec<_> = state.received.iter().map(|r| (r.connection, r.rpc())).collect();
        assert!(state.connections - connections <= most, "connections for 100 calls: {used:?}");
        // The first call of a session may be preceded by its handshake, as the list was by that and the probe.
        let others =
            state.received.iter().filter(|r| !["tools/call", "tools/list"].contains(&r.rpc().as_str())).count();
        assert!(others <= 5, "{others} other requests: {used:?}");
        drop(state);
    }
}

#[test]
fn no_id_is_used_twice_towards_a_server() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    let (mut one, mut two) = (harness.client(ALICE), harness.client(ALICE));
    for _ in 0..10 {
        one.text("echo");
        two.text("echo");
    }
    let mut ids: Vec<_> = upstream.state().received.iter().map(|r| r.id()).filter(|id| id != "null").collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn two_calls_with_the_same_id_get_their_own_answers() {
    let upstream = Plan::new("a").tools(&["slow", "fast"]).start();
    let harness = gateway(&upstream);
    let gate = Gate::default();
    let waited = gate.clone();
    upstream.on_call(move |exchange| {
        if exchange.request.body.contains("slow") {
            waited.wait();
        }
        exchange.echo();
    });
    let (mut one, mut two) = (harness.client(ALICE), harness.client(ALICE));
    one.send(call_message("1", "slow", "{}"));
    upstream.wait_for("the slow call", |s| s.of("tools/call").len() == 1);
    assert_eq!(two.text("fast"), "a:fast");
    gate.open();
    assert!(one.connection.answer().body.contains("a:slow"));
}

/// Protocol.md 2.3: in the legacy era the end of a connection is not a cancellation.
#[test]
fn a_client_that_leaves_does_not_cancel_its_call() {
    for streaming in [false, true] {
        let upstream = Plan::new("a").start();
        let harness = gateway(&upstream);
        let (gate, finished) = (Gate::default(), Gate::default());
        let (waited, done) = (gate.clone(), finished.clone());
        upstream.on_call(move |exchange| {
            if streaming {
                exchange.begin_events();
                exchange
                    .event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#);
            }
            waited.wait();
            match streaming {
                true => exchange.result_event("{}"),
                false => exchange.result("{}"),
            }
            done.open();
        });
        let mut alice = harness.client(ALICE);
        alice.send(call_message("1", "echo", "{}"));
        upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
        if streaming {
            let _ = alice.connection.head();
            assert!(alice.connection.event().is_some());
        }
        drop(alice);
        harness.wait_for_log("end=\"client left\"");
        gate.open();
        assert!(finished.wait());
        // The connection went back, so the answer was read to its end.
        upstream.on_call(|exchange| exchange.echo());
        let first = upstream.calls()[0].clone();
        // Answered on the thread that reads the server's answer, and after that.
        let mut again = harness.client(ALICE);
        for _ in 0..2 {
            again.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        }
        assert_eq!(again.text("echo"), "a:echo");
        assert_eq!(upstream.calls()[1].connection, first.connection, "the connection is reused");
        assert_eq!(upstream.state().of("notifications/cancelled").len(), 0);
        assert_eq!(upstream.calls().iter().filter(|call| call.id() == first.id()).count(), 1, "sent once");
    }
}

/// Protocol.md 2.7: what crosses the gateway.
#[test]
fn the_server_gets_our_headers_and_none_of_the_clients() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = gateway(&upstream);
    let mut alice = harness.client(ALICE);
    let session = alice.initialize("2025-06-18");
    let extra = "Cookie: c=1\r\nOrigin: http://localhost\r\nX-Mine: 1\r\nAccept-Language: de\r\nLast-Event-ID: 3\r\n";
    let body = call_message("1", "echo", "{}");
    let head = alice.request_head("POST", body.len()).replacen("\r\n", &format!("\r\n{extra}"), 1);
    alice.connection.send(format!("{head}{body}"));
    assert_eq!(alice.connection.answer().status(), 200);
    for received in upstream.state().received.iter().filter(|received| received.rpc() != "server/discover") {
        for forbidden in ["cookie", "origin", "x-mine", "accept-language", "last-event-id", "mcp-method", "mcp-name"] {
            assert_eq!(received.header(forbidden), None, "{received:?}");
        }
        assert_eq!(received.header("authorization"), Some("Bearer upstream-secret-b83f"));
        assert_eq!(received.header("accept"), Some("application/json, text/event-stream"));
        assert_eq!(received.header("content-type"), Some("application/json"));
        assert_eq!(received.header("host").map(|host| format!("http://{host}/mcp")), Some(upstream.url()));
        let opening = received.rpc() == "initialize";
        assert_eq!(received.header("mcp-protocol-version"), (!opening).then_some("2025-11-25"));
        assert_eq!(received.header("mcp-session-id").is_some(), !opening);
        assert_ne!(received.header("mcp-session-id"), Some(session.as_str()));
    }
}

/// W3C Trace Context and Baggage; protocol.md 2.7.
#[test]
fn a_trace_context_is_passed_on_between_all_eras() {
    let context = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=1,b=2"),
        ("baggage", "user=a"),
    ];
    for mode in [Mode::LegacyStateless, Mode::LegacySessions, Mode::Modern] {
        let fixture = Fixture::start(Options::of(mode));
        // Without a credential, as the tool shows all that it got.
        let table = format!("[mcp_servers.fixture]\nurl = \"{}\"\nfrom_client = \"alice\"\n", fixture.url());
        let harness = Harness::start(&(clients() + &table));
        for revision in revisions() {
            let mut alice = harness.client(ALICE).speaking(revision);
            let mut seen = |message: &Message| {
                let answer = alice.ask(message).response();
                let known = answer["result"]["content"][0]["text"].as_str().unwrap().to_owned();
                let known: Value = serde_json::from_str(&known).unwrap();
                context.map(|(name, _)| known["headers"].get(name).and_then(Value::as_str).map(str::to_owned))
            };
            let plain = || Message::call(revision, "whoami", "{}");
            assert_eq!(seen(&plain()), [None, None, None], "{mode:?} {revision}");
            let traced = context.into_iter().fold(plain(), |message, (name, value)| message.header(name, value));
            assert_eq!(seen(&traced), context.map(|(_, value)| Some(value.to_owned())), "{mode:?} {revision}");
        }
    }
}

#[test]
fn a_url_without_a_path_is_found_at_mcp() {
    let upstream = Plan::new("a").start();
    upstream.on_request(|exchange| match exchange.request.path.as_str() {
        "/mcp" => exchange.normally(),
        _ => exchange.respond(404, "text/html", "<p>Not Found"),
    });
    let config = owned_by_alice(&[("server_a", &upstream)]).replace(&upstream.url(), &upstream.bare_url());
    let harness = Harness::start(&config);
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.text("echo"), "a:echo");
    assert_eq!(upstream.state().received[0].path, "/");
}

#[test]
fn a_redirect_within_the_origin_is_followed_once() {
    let upstream = Plan::new("a").start();
    upstream.on_request(|exchange| match exchange.request.path.as_str() {
        "/mcp/" => exchange.normally(),
        _ => exchange.redirect("/mcp/"),
    });
    let harness = gateway(&upstream);
    assert_eq!(harness.client(ALICE).text("echo"), "a:echo");
}

#[test]
fn a_redirect_to_another_origin_is_not_followed() {
    let (upstream, elsewhere) = (Plan::new("a").start(), Plan::new("b").start());
    let target = elsewhere.url();
    upstream.on_request(move |exchange| exchange.redirect(&target));
    let harness = gateway(&upstream);
    assert_eq!(harness.client(ALICE).tools(), [""; 0]);
    assert_eq!(elsewhere.state().connections, 0);
}

#[test]
fn a_numeric_id_that_comes_back_as_text_is_understood() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        let id = exchange.request.id();
        exchange.message(&format!(r#"{{"jsonrpc":"2.0","id":"{id}","result":{{"n":1}}}}"#));
    });
    let answer = harness.client(ALICE).post(call_message("4", "echo", "{}"));
    assert_eq!(answer.body, r#"{"jsonrpc":"2.0","id":4,"result":{"n":1}}"#);
}

#[test]
fn an_answer_without_end_of_event_is_understood() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        exchange.begin_events();
        let id = exchange.request.id();
        exchange.chunk(&format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}"));
        exchange.end_events();
    });
    let answer = harness.client(ALICE).post(call_message("4", "echo", "{}"));
    assert_eq!(answer.message(), r#"{"jsonrpc":"2.0","id":4,"result":{}}"#);
}

#[test]
fn large_messages_come_through_whole() {
    for plan in [Plan::new("a"), Plan::new("a").events()] {
        let upstream = plan.start();
        let harness = gateway(&upstream);
        upstream.on_call(|exchange| {
            let sent = exchange.request.json()["params"]["arguments"].to_string();
            exchange.result(&sent);
        });
        let arguments = format!(r#"{{"text":"{}"}}"#, "é😀x".repeat(300_000));
        let answer = harness.client(ALICE).post(call_message("1", "echo", &arguments));
        assert!(
            answer.message() == format!(r#"{{"jsonrpc":"2.0","id":1,"result":{arguments}}}"#),
            "changed on the way"
        );
    }
}

#[test]
fn calls_side_by_side_never_get_each_others_answers() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        let number = exchange.request.json()["params"]["arguments"]["n"].to_string();
        exchange.begin_events();
        let params = format!(r#"{{"level":"info","data":{number}}}"#);
        exchange.event(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{params}}}"#));
        exchange.result_event(&format!(r#"{{"n":{number}}}"#));
    });
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let mut client = harness.client(ALICE);
            scope.spawn(move || {
                for n in (0..20).map(|call| caller * 100 + call) {
                    let answer = client.post(call_message("1", "echo", &format!(r#"{{"n":{n}}}"#)));
                    let params = format!(r#"{{"level":"info","data":{n}}}"#);
                    let message = format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{params}}}"#);
                    let response = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"n":{n}}}}}"#);
                    assert_eq!(answer.events(), [message, response]);
                }
            });
        }
    });
    assert_eq!(upstream.state().executed, 160);
}

#[test]
fn a_server_that_closes_idle_connections_is_called_on_a_fresh_one() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        exchange.echo();
        exchange.close();
    });
    let mut alice = harness.client(ALICE);
    for _ in 0..5 {
        assert_eq!(alice.text("echo"), "a:echo");
        // Answered on the thread that hears of the closed connection, and after that.
        for _ in 0..2 {
            alice.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        }
    }
    assert_eq!(upstream.calls().len(), 5);
}

#[test]
fn a_server_that_announces_the_close_is_never_called_on_that_connection() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream);
    upstream.on_call(|exchange| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, exchange.request.id());
        let length = body.len();
        exchange.raw(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        exchange.close();
    });
    let mut alice = harness.client(ALICE);
    for _ in 0..20 {
        assert_eq!(alice.post(call_message("1", "echo", "{}")).body, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    }
    let calls = upstream.calls();
    let mut connections: Vec<_> = calls.iter().map(|call| call.connection).collect();
    connections.dedup();
    assert_eq!((calls.len(), connections.len()), (20, 20));
}
