//! What servers ask legacy clients while they serve them: whose answer counts, and what becomes of questions that nobody
//! answers. Protocol.md 4.2, 4.4, 6; modern servers' side is in `rounds`, modern clients' in `parked`.

use std::time::{Duration, Instant};

use mcp_x_fixture::{AnswerForm, Mode, Options};
use serde_json::{Value, json};

use super::support::asking::{
    EVERYTHING, accept, answered, answers, asks, elicitation, nothing_is_left, play, reply, scripted, shared,
};
use super::support::client::Client;
use super::support::message::Message;
use super::support::upstream::Received;
use super::support::{ALICE, BOB, Gate, Harness, call_message, wait_until};

const NEWEST: &str = "2025-11-25";
/// Kinds of servers that can ask.
const ASKING: [Mode; 2] = [Mode::LegacySessions, Mode::Modern];

fn client(harness: &Harness, token: &str) -> Client {
    harness.client(token).speaking_as(NEWEST, EVERYTHING)
}

/// Calls `ask_back`; the question, which comes behind what the tool says first.
#[track_caller]
fn asked(client: &mut Client, arguments: &str) -> Value {
    client.stream(&call_message("1", "ask_back", arguments));
    question(client)
}

/// The next question on the stream of a call.
#[track_caller]
fn question(client: &mut Client) -> Value {
    loop {
        let message = client.connection.message();
        assert!(message.get("method").is_some(), "a response before the question: {message}");
        if message.get("id").is_some() {
            return message;
        }
    }
}

#[test]
fn only_the_session_that_was_asked_can_answer_and_only_once() {
    for mode in ASKING {
        let (fixture, harness) = shared(Options::of(mode), "");
        let mut alice = client(&harness, ALICE);
        let question = asked(&mut alice, r#"{"text":"mine"}"#);
        assert!(question["id"].as_str().is_some_and(|id| id.starts_with("gw-")), "{question}");
        let answer = |text: &str| reply(&question, &accept(&json!({ "reply": text })));
        assert_eq!(client(&harness, ALICE).post(answer("another session")).status(), 202);
        assert_eq!(client(&harness, BOB).post(answer("another client")).status(), 202);
        let mut thief = harness.client(BOB);
        (thief.session, thief.version) = (alice.session.clone(), alice.version.clone());
        assert_eq!(thief.post(answer("a stolen session")).status(), 404);
        assert_eq!(harness.client(ALICE).post(answer("no session")).status(), 400);
        for id in ["7", "null", r#""gw-1""#, r#""gw-00000000-1""#] {
            let guess = answer("a guess").replace(&question["id"].to_string(), id);
            let status = alice.another().post(guess).status();
            assert!(status == 202 || (status == 400 && id == "null"), "{id}: {status}");
        }
        assert_eq!((harness.gateway().vitals().questions, fixture.counts().requests_of("response")), (1, 0));
        assert_eq!(alice.another().post(answer("true")).status(), 202);
        let response = alice.connection.message();
        let expected = json!({ "text": "mine", "answer": accept(&json!({ "reply": "true" })) });
        let text = response["result"]["content"][0]["text"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);
        assert_eq!(alice.connection.event(), None);
        for _ in 0..2 {
            assert_eq!(alice.another().post(answer("too late")).status(), 202);
        }
        nothing_is_left(&harness);
        let once = if mode == Mode::Modern { 0 } else { 1 };
        assert_eq!(fixture.counts().requests_of("response"), once);
    }
}

#[test]
fn an_error_in_the_place_of_an_answer_is_what_the_client_says() {
    for (mode, kind, code, expected) in [
        (Mode::LegacySessions, "elicitation", -1, "client refused: not now"),
        (Mode::LegacySessions, "sampling", -1, "client refused: not now"),
        (Mode::Modern, "elicitation", -1, r#""answer":{"action":"decline"}"#),
        (Mode::Modern, "elicitation", -32603, r#""answer":{"action":"cancel"}"#),
        (Mode::Modern, "sampling", -1, "the client refused what the server needs: not now"),
        (Mode::Modern, "roots", -32601, "the client refused what the server needs: not now"),
    ] {
        let (_fixture, harness) = shared(Options::of(mode), "");
        let mut alice = client(&harness, ALICE);
        let question = asked(&mut alice, &json!({ "text": "t", "kind": kind }).to_string());
        let error = json!({ "code": code, "message": "not now" });
        let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "error": error }).to_string();
        assert_eq!(alice.another().post(answer).status(), 202);
        let response = alice.connection.message();
        let text = response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}"));
        assert!(text.contains(expected), "{mode:?} {kind} {code}: {text}");
        assert_eq!(response["result"]["isError"] == true, text.contains("refused"), "{response}");
        nothing_is_left(&harness);
    }
}

#[test]
fn a_client_that_calls_its_request_off_has_its_questions_taken_back() {
    for mode in ASKING {
        let (fixture, harness) = shared(Options::of(mode), "");
        let mut alice = client(&harness, ALICE);
        let question = asked(&mut alice, r#"{"text":"mine"}"#);
        let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
        assert_eq!(alice.another().post(cancelled).status(), 202);
        let taken_back = json!({ "requestId": question["id"] });
        assert_eq!(
            alice.connection.message(),
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": taken_back })
        );
        assert_eq!(alice.connection.event(), None, "a call that was called off is not answered");
        nothing_is_left(&harness);
        if mode == Mode::LegacySessions {
            // First an answer, and then that nobody waits for the response.
            wait_until("the server hears both", || fixture.counts().requests_of("notifications/cancelled") == 1);
            let counts = fixture.counts();
            assert_eq!((counts.questions_open, counts.questions_cancelled, counts.questions_withdrawn), (0, 1, 0));
        }
        assert_eq!(alice.another().post(reply(&question, &accept(&json!({})))).status(), 202);
        assert_eq!(alice.another().text("test_simple_text"), "This is a simple text response for testing.");
        assert!(fixture.counts().requests_of("response") <= 1);
    }
}

#[test]
fn a_client_whose_stream_is_gone_can_still_answer() {
    for mode in ASKING {
        let (fixture, harness) = shared(Options::of(mode), "");
        let mut alice = client(&harness, ALICE);
        let question = asked(&mut alice, r#"{"text":"mine"}"#);
        let mut other = alice.another();
        drop(alice);
        // Whether the gateway has noticed makes no difference.
        harness.wait_for_log("rpc=tools/call");
        let executed = fixture.counts().executions_of("ask_back");
        assert_eq!(harness.gateway().vitals().questions, 1);
        assert_eq!(other.post(reply(&question, &accept(&json!({ "reply": "late" })))).status(), 202);
        nothing_is_left(&harness);
        let counts = fixture.counts();
        assert_eq!((counts.cancellations, counts.questions_cancelled, counts.questions_withdrawn), (0, 0, 0));
        let once_more = u64::from(mode == Mode::Modern);
        assert_eq!(counts.executions_of("ask_back") - executed, once_more, "{mode:?}");
    }
}

#[test]
fn what_is_asked_without_a_stream_goes_to_the_one_of_the_session() {
    for listens in [true, false] {
        let (upstream, harness) = scripted("");
        let (asking, gate) = (Gate::default(), Gate::default());
        let (ask, waited) = (asking.clone(), gate.clone());
        upstream.on_call(move |exchange| {
            exchange.begin_events();
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#);
            ask.wait();
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":2}}"#);
            exchange.event(&elicitation("5"));
            exchange.event(&elicitation("6"));
            exchange.event(
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":6,"reason":"enough"}}"#,
            );
            waited.wait();
            exchange.result_event(r#"{"content":[]}"#);
        });
        let mut alice = client(&harness, ALICE);
        let mut stream = listens.then(|| alice.get_stream());
        let mut other = alice.another();
        alice.stream(&call_message("1", "echo", "{}"));
        assert_eq!(alice.connection.message()["method"], "notifications/message");
        drop(alice);
        harness.wait_for_log("rpc=tools/call");
        asking.open();
        if let Some(stream) = &mut stream {
            let [question, withdrawn, told] = std::array::from_fn(|_| stream.message());
            assert_eq!(question["method"], "elicitation/create");
            assert_eq!(told["params"], json!({ "requestId": withdrawn["id"], "reason": "enough" }));
            assert_eq!(other.post(reply(&question, &accept(&json!({ "a": 1 })))).status(), 202);
            let answer = answered(&upstream, 1).remove(0);
            assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 5, "result": accept(&json!({ "a": 1 })) }));
        } else {
            let mut answers = answered(&upstream, 2);
            answers.sort_by_key(|answer| answer["id"].as_u64());
            let cancelled = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "result": { "action": "cancel" } });
            assert_eq!(answers, [cancelled(5), cancelled(6)]);
        }
        gate.open();
        nothing_is_left(&harness);
        assert_eq!(upstream.state().of("notifications/cancelled").len(), 0);
    }
}

#[test]
fn a_server_can_withdraw_its_question() {
    let (upstream, harness) = scripted("");
    let withdrawn = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s"}}"#;
    let gate = asks(&upstream, vec![elicitation(r#""s""#), withdrawn.to_owned()]);
    let mut alice = client(&harness, ALICE);
    alice.stream(&call_message("1", "echo", "{}"));
    let (question, told) = (alice.connection.message(), alice.connection.message());
    assert_eq!(
        (&told["method"], &told["params"]),
        (&json!("notifications/cancelled"), &json!({ "requestId": question["id"] }))
    );
    assert_eq!(harness.gateway().vitals().questions, 0);
    assert_eq!(alice.another().post(reply(&question, &accept(&json!({})))).status(), 202);
    gate.open();
    assert_eq!(alice.connection.message()["result"], json!({ "content": [] }));
    nothing_is_left(&harness);
    assert_eq!(answers(&upstream), Vec::<Value>::new(), "nobody waits for the answer");
}

#[test]
fn what_the_client_cannot_be_asked_is_refused() {
    let (upstream, harness) = scripted("");
    let request = |id: u64, method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    let gate = asks(
        &upstream,
        vec![
            elicitation("1"),
            request(2, "sampling/createMessage", json!({ "messages": [], "maxTokens": 1 })).to_string(),
            request(3, "tools/list", json!({})).to_string(),
            request(4, "ping", json!({})).to_string(),
            request(5, "roots/list", json!({})).to_string(),
        ],
    );
    for (revision, capabilities, open) in
        [(NEWEST, r#"{"roots":{}}"#, 1), (NEWEST, r#"{"elicitation":{"url":{}}}"#, 0), ("2024-11-05", "{}", 0)]
    {
        upstream.state().received.clear();
        let mut alice = harness.client(ALICE).speaking_as(revision, capabilities);
        alice.send(call_message("1", "echo", "{}"));
        let mut answers = answered(&upstream, 5 - open);
        answers.sort_by_key(|answer| answer["id"].as_u64());
        let refused = |id: u64| {
            let error = json!({ "code": -32601, "message": "no client can be asked here" });
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        };
        let pong = json!({ "jsonrpc": "2.0", "id": 4, "result": {} });
        let expected = [refused(1), refused(2), refused(3), pong, refused(5)];
        assert_eq!(answers, expected[..5 - open], "{capabilities}");
        assert_eq!(harness.gateway().vitals().questions, open as u64);
        if open == 1 {
            assert!(alice.connection.head().is_stream());
            let question = alice.connection.message();
            assert_eq!(question["method"], "roots/list");
            assert_eq!(alice.another().post(reply(&question, &json!({ "roots": [] }))).status(), 202);
            assert_eq!(answered(&upstream, 5)[4]["result"], json!({ "roots": [] }));
        }
    }
    gate.open();
    nothing_is_left(&harness);
}

#[test]
fn open_questions_are_limited_and_end_with_their_call() {
    let (upstream, harness) = scripted("");
    let mut alice = client(&harness, ALICE);
    // More than a session may have open, unless they end.
    for round in 1..=5 {
        let gate = asks(&upstream, (0..20).map(|id| elicitation(&id.to_string())).collect());
        alice.stream(&call_message("1", "echo", "{}"));
        let questions: Vec<Value> = (0..16).map(|_| alice.connection.message()).collect();
        assert!(questions.iter().all(|question| question["method"] == "elicitation/create"), "{questions:?}");
        let refused = answered(&upstream, round * 4);
        assert!(refused.iter().all(|answer| answer["error"]["code"] == -32601), "{refused:?}");
        gate.open();
        assert_eq!(alice.connection.message()["result"], json!({ "content": [] }));
        assert_eq!(alice.connection.event(), None);
        assert_eq!(harness.gateway().vitals().questions, 0);
    }
}

#[test]
fn calls_of_one_batch_are_asked_each_for_itself() {
    for mode in ASKING {
        let (_fixture, harness) = shared(Options::of(mode), "");
        let mut alice = harness.client(ALICE).speaking_as("2025-03-26", EVERYTHING);
        let call = |id: &str| call_message(id, "ask_back", &json!({ "text": id }).to_string());
        alice.stream(&format!("[{},{}]", call("1"), call("2")));
        let questions = [question(&mut alice), question(&mut alice)];
        let replies =
            questions.map(|question| reply(&question, &accept(&json!({ "reply": question["params"]["message"] }))));
        assert_eq!(alice.another().post(format!("[{}]", replies.join(","))).status(), 202);
        let mut responses = [alice.connection.message(), alice.connection.message()];
        responses.sort_by_key(|response| response["id"].as_u64());
        for (id, response) in ["1", "2"].into_iter().zip(responses) {
            let expected = json!({ "text": id, "answer": accept(&json!({ "reply": id })) });
            let text = response["result"]["content"][0]["text"].as_str().unwrap();
            assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);
        }
        nothing_is_left(&harness);
    }
}

#[test]
fn questions_on_the_stream_of_the_session_reach_the_call_that_runs() {
    for answers in [AnswerForm::Auto, AnswerForm::Json] {
        let (fixture, harness) = shared(Options { answers, ..Options::of(Mode::LegacySessions) }, "");
        let mut alice = client(&harness, ALICE);
        alice.text("test_simple_text");
        // The gateway's own, and alice's.
        wait_until("the stream is open", || fixture.counts().get_streams == 2);
        fixture.broadcast(&elicitation(r#""nobody""#));
        wait_until("both are refused", || fixture.counts().requests_of("response") == 2);
        let refused =
            fixture.received().iter().filter(|r| r.body.contains("-32601") && r.body.contains("nobody")).count();
        assert_eq!(refused, 2, "without a call nobody can be asked");
        let tool = if answers == AnswerForm::Json { "ask_back" } else { "ask_on_get" };
        let message = Message::call(NEWEST, tool, r#"{"text":"t"}"#);
        let response = play(&mut alice, NEWEST, &message, |method, _| {
            assert_eq!(method, "elicitation/create");
            accept(&json!({ "reply": "r" }))
        });
        let text = response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}"));
        assert!(text.contains(r#""reply":"r""#), "{text}");
        nothing_is_left(&harness);
    }
}

#[test]
fn a_call_that_cannot_be_asked_takes_no_questions_from_one_that_can() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let mut alice = client(&harness, ALICE);
    alice.text("test_simple_text");
    wait_until("the stream is open", || fixture.counts().get_streams == 2);
    let mut caller = alice.another();
    caller.send(call_message("1", "ask_on_get", r#"{"text":"t"}"#));
    assert!(caller.connection.head().is_stream());
    let first = question(&mut caller);
    // Younger than the call, in the same session, and nothing that a server may ask for.
    fixture.switches().on_method("completion/complete", mcp_x_fixture::Fault::Hang);
    let complete = Message::of(NEWEST, "completion/complete")
        .param(r#""ref":{"type":"ref/prompt","name":"test_prompt_with_arguments"}"#)
        .param(r#""argument":{"name":"arg1","value":"a"}"#);
    let mut completing = alice.another();
    completing.send_message(&complete);
    wait_until("it runs", || harness.gateway().vitals().calls == 2);
    fixture.broadcast(&elicitation(r#""second""#));
    let second = question(&mut caller);
    assert_eq!(second["params"]["message"], "?");
    for question in [second, first] {
        assert_eq!(caller.another().post(reply(&question, &accept(&json!({ "reply": "r" })))).status(), 202);
    }
    assert!(caller.connection.message().get("result").is_some());
}

#[test]
fn a_server_that_waits_for_the_user_is_not_taken_for_silent() {
    let (upstream, harness) = scripted("[gateway]\nsilent_call_seconds = 1\n");
    let gate = asks(&upstream, vec![elicitation("1")]);
    let mut alice = client(&harness, ALICE);
    alice.stream(&call_message("1", "echo", "{}"));
    let (question, begun) = (alice.connection.message(), Instant::now());
    let passes = |millis: u64| {
        let from = Instant::now();
        wait_until("time passes", || from.elapsed() >= Duration::from_millis(millis));
    };
    passes(1_800);
    assert_eq!(alice.another().post(reply(&question, &accept(&json!({})))).status(), 202);
    // From the answer on it has as long as any.
    passes(700);
    assert!(!alice.connection.has_event(), "{:?}", begun.elapsed());
    gate.open();
    assert_eq!(alice.connection.message()["result"], json!({ "content": [] }));
    nothing_is_left(&harness);
}

#[test]
fn nobody_is_waited_for_longer_than_a_call_may_take() {
    for mode in ASKING {
        let (fixture, harness) = shared(Options::of(mode), "[gateway]\nwhole_call_seconds = 1\n");
        let mut alice = client(&harness, ALICE);
        asked(&mut alice, r#"{"text":"mine"}"#);
        let error = alice.connection.message()["error"].clone();
        assert_eq!(error["code"], -32603, "{error}");
        assert_eq!(alice.connection.event(), None);
        nothing_is_left(&harness);
        wait_until("the server hears of it", || fixture.counts().questions_open == 0);
    }
}

#[test]
fn servers_are_told_that_the_roots_of_a_client_are_others() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let mut silent = harness.client(ALICE).speaking_as(NEWEST, r#"{"roots":{}}"#);
    let (mut alice, mut bob) = (client(&harness, ALICE), client(&harness, BOB));
    for client in [&mut silent, &mut alice, &mut bob] {
        client.text("test_simple_text");
        assert_eq!(client.post(changed).status(), 202);
    }
    wait_until("the server hears of it", || fixture.counts().requests_of("notifications/roots/list_changed") == 2);
    let of = |method: &str| {
        let received = fixture.received();
        let with_session =
            received.iter().filter(|r| r.body.contains(method)).map(|r| r.header("mcp-session-id").map(str::to_owned));
        with_session.collect::<Vec<_>>()
    };
    let mut told = of("roots/list_changed");
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 2, "each in its own session: {told:?}");
    // Those without the capability have promised nothing, and are not passed on.
    assert_eq!(silent.post(changed).status(), 202);
    let declared = fixture.received().iter().filter(|r| r.body.contains(r#""listChanged":true"#)).count();
    assert_eq!(declared, 2, "declared for those who have");
}

#[test]
fn a_call_that_takes_too_long_leaves_no_question_open_at_its_server() {
    let (upstream, harness) = scripted("[gateway]\nwhole_call_seconds = 1\n");
    let gate = asks(&upstream, vec![elicitation("1")]);
    let mut alice = client(&harness, ALICE);
    alice.stream(&call_message("1", "echo", "{}"));
    question(&mut alice);
    assert_eq!(alice.connection.message()["error"]["code"], -32603);
    let nobody = json!({ "jsonrpc": "2.0", "id": 1, "result": { "action": "cancel" } });
    assert_eq!(answered(&upstream, 1), [nobody]);
    upstream.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == 1);
    let last = upstream.state().received.last().map(Received::rpc);
    assert_eq!(last.as_deref(), Some("notifications/cancelled"), "first an answer, then that nobody waits");
    nothing_is_left(&harness);
    gate.open();
}

#[test]
fn a_call_ends_with_the_session_of_its_client() {
    for mode in ASKING {
        let (fixture, harness) = shared(Options::of(mode), "");
        let mut alice = client(&harness, ALICE);
        let mut other = client(&harness, ALICE);
        let question = asked(&mut alice, r#"{"text":"mine"}"#);
        let going_on = asked(&mut other, r#"{"text":"other"}"#);
        assert_eq!(alice.another().delete().status(), 204);
        // Nobody could answer any more.
        wait_until("the call is over", || harness.gateway().vitals().calls == 1);
        assert_eq!(harness.gateway().vitals().questions, 1);
        assert_eq!(alice.another().post(reply(&question, &accept(&json!({})))).status(), 404);
        assert_eq!(other.another().post(reply(&going_on, &accept(&json!({ "reply": "r" })))).status(), 202);
        assert!(other.connection.message()["result"].is_object());
        nothing_is_left(&harness);
        wait_until("the server has ended it", || fixture.counts().questions_open == 0);
    }
}
