//! Calls of modern clients at legacy servers that ask: parked until the client comes back with its answer, once.
//! Protocol.md 4.3.

use std::time::{Duration, Instant};

use mcp_x_fixture::{Fixture, Mode, Options};
use serde_json::{Value, json};

use super::support::asking::{
    EVERYTHING, GRANT, accept, again, answered, answers, asks, call, declaring, elicitation, nothing_is_left, scripted,
    shared,
};
use super::support::client::Client;
use super::support::message::{MODERN, Message};
use super::support::{ALICE, BOB, Gate, Harness, wait_until};

fn ask_back(text: &str) -> Message {
    call(MODERN, EVERYTHING, "ask_back", &json!({ "text": text }).to_string())
}

/// Makes a request that is answered by asking for input; the result.
#[track_caller]
fn parked(client: &mut Client, message: &Message) -> Value {
    let response = client.ask(message).response();
    assert_eq!(response["result"]["resultType"], "input_required", "{response}");
    response["result"].clone()
}

/// Answers to these questions, all the same.
fn fill_in(keys: &[&str], reply: &str) -> Value {
    keys.iter().map(|key| (key.to_string(), accept(&json!({ "reply": reply })))).collect()
}

/// The call is gone.
#[track_caller]
fn is_unknown(client: &mut Client, message: &Message, result: &Value) {
    let error = client.ask(&again(message, result, &fill_in(&["q1"], "r"))).response()["error"].clone();
    assert_eq!(error, json!({ "code": -32602, "message": "invalid params: unknown or expired `requestState`" }));
}

/// The server has heard that nobody answers, and then that nobody waits.
#[track_caller]
fn was_ended(fixture: &Fixture) {
    wait_until("the server hears of it", || fixture.counts().requests_of("notifications/cancelled") == 1);
    let counts = fixture.counts();
    assert_eq!((counts.questions_open, counts.questions_cancelled, counts.questions_withdrawn), (0, 1, 0));
}

fn echo() -> Message {
    call(MODERN, EVERYTHING, "echo", "{}")
}

#[test]
fn a_parked_call_is_good_once() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let mut alice = harness.client(ALICE);
    let result = parked(&mut alice, &ask_back("mine"));
    let question = &result["inputRequests"]["q1"];
    assert_eq!((&question["method"], &question["params"]["message"]), (&json!("elicitation/create"), &json!("mine")));
    assert_eq!((harness.gateway().vitals().parked, harness.gateway().vitals().questions), (1, 1));
    let response = alice.ask(&again(&ask_back("mine"), &result, &fill_in(&["q1"], "r"))).response();
    let text = response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}"));
    assert_eq!(
        serde_json::from_str::<Value>(text).unwrap(),
        json!({ "text": "mine", "answer": accept(&json!({ "reply": "r" })) })
    );
    nothing_is_left(&harness);
    is_unknown(&mut alice, &ask_back("mine"), &result);
    let counts = fixture.counts();
    assert_eq!((counts.executions_of("ask_back"), counts.requests_of("response"), counts.cancellations), (1, 1, 0));
}

#[test]
fn of_many_who_come_back_one_goes_on() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let result = parked(&mut harness.client(ALICE), &ask_back("mine"));
    let message = again(&ask_back("mine"), &result, &fill_in(&["q1"], "r"));
    let responses: Vec<Value> = std::thread::scope(|scope| {
        let ask = || harness.client(ALICE).ask(&message).response();
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert_eq!(responses.iter().filter(|response| response.get("result").is_some()).count(), 1, "{responses:?}");
    assert_eq!(responses.iter().filter(|response| response["error"]["code"] == -32602).count(), 7, "{responses:?}");
    assert_eq!((fixture.counts().executions_of("ask_back"), fixture.counts().requests_of("response")), (1, 1));
}

#[test]
fn what_is_not_answered_is_asked_again_under_the_same_key() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let mut alice = harness.client(ALICE);
    let message = call(MODERN, EVERYTHING, "test_input_required_result_multiple_inputs", "{}");
    let first = parked(&mut alice, &message);
    let requests = first["inputRequests"].as_object().unwrap();
    let methods: Vec<&Value> = requests.values().map(|question| &question["method"]).collect();
    assert_eq!(methods, ["elicitation/create", "sampling/createMessage", "roots/list"], "asked together");
    // One answer, one of a wrong shape, one to something that nobody has asked.
    let some = json!({ "q1": accept(&json!({ "name": "A" })), "q2": { "nonsense": true }, "q9": {} });
    let second = parked(&mut alice, &again(&message, &first, &some));
    let keys: Vec<&String> = second["inputRequests"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["q2", "q3"]);
    assert_eq!(second["inputRequests"]["q2"], first["inputRequests"]["q2"]);
    is_unknown(&mut alice, &message, &first);
    let sampled = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "hi" } });
    let rest = json!({ "q2": sampled, "q3": { "roots": [] } });
    let response = alice.ask(&again(&message, &second, &rest)).response();
    assert_eq!(response["result"]["resultType"], "complete", "{response}");
    assert_eq!(fixture.counts().executions_of("test_input_required_result_multiple_inputs"), 1);
    nothing_is_left(&harness);
}

#[test]
fn a_second_question_has_another_key() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let mut alice = harness.client(ALICE);
    let message = call(MODERN, EVERYTHING, "ask_twice_slowly", r#"{"text":"t"}"#);
    let first = parked(&mut alice, &message);
    let second = parked(&mut alice, &again(&message, &first, &fill_in(&["q1"], "one")));
    assert_eq!(second["inputRequests"]["q2"]["params"]["message"], "t (second)", "{second}");
    is_unknown(&mut alice, &message, &first);
    let response = alice.ask(&again(&message, &second, &fill_in(&["q1", "q2"], "two"))).response();
    let text = response["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("one") && text.contains("two"), "{text}");
    assert_eq!(fixture.counts().executions_of("ask_twice_slowly"), 1);
    nothing_is_left(&harness);
}

#[test]
fn a_call_that_nobody_comes_back_for_is_ended() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "[gateway]\nparked_call_seconds = 1\n");
    let mut alice = harness.client(ALICE);
    let result = parked(&mut alice, &ask_back("mine"));
    was_ended(&fixture);
    nothing_is_left(&harness);
    is_unknown(&mut alice, &ask_back("mine"), &result);
    assert_eq!(fixture.counts().executions_of("ask_back"), 1);
}

#[test]
fn a_call_does_not_outlive_the_gateway_and_its_server_is_told() {
    let (fixture, mut harness) = shared(Options::of(Mode::LegacySessions), "");
    let result = parked(&mut harness.client(ALICE), &ask_back("mine"));
    harness.restart();
    // Not only soon: the messages were out before the process would have ended.
    assert_eq!(fixture.counts().requests_of("notifications/cancelled"), 1);
    was_ended(&fixture);
    is_unknown(&mut harness.client(ALICE), &ask_back("mine"), &result);
    assert_eq!(fixture.counts().executions_of("ask_back"), 1);
}

#[test]
fn a_parked_call_ends_with_what_its_client_may_do() {
    type Change = fn(&str) -> String;
    let changes: [(&str, Change); 3] = [
        ("grant", |config| config.replace(GRANT, "")),
        ("client", |config| config.replace("[clients.bob]\nauth_token = \"bob-secret-77a9\"\n", "").replace(GRANT, "")),
        ("token", |config| config.replace(BOB, "another-secret-91")),
    ];
    for (what, change) in changes {
        let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
        parked(&mut harness.client(BOB), &ask_back("mine"));
        let begun = Instant::now();
        harness.replace_config(&change(&harness.config()));
        if what == "client" {
            // Its session ends, too, so that the server may hear of that first.
            wait_until("the server hears of it", || fixture.counts().questions_open == 0);
        } else {
            was_ended(&fixture);
        }
        nothing_is_left(&harness);
        assert!(begun.elapsed() < Duration::from_secs(3), "{what}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_client_that_leaves_after_it_has_answered_calls_off() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let mut alice = harness.client(ALICE);
    let message = call(MODERN, EVERYTHING, "ask_twice_slowly", r#"{"text":"t"}"#);
    let first = parked(&mut alice, &message);
    alice.send_message(&again(&message, &first, &fill_in(&["q1"], "one")));
    wait_until("the answer is there", || fixture.counts().requests_of("response") == 1);
    drop(alice);
    wait_until("the server hears of it", || fixture.counts().requests_of("notifications/cancelled") == 1);
    nothing_is_left(&harness);
    assert_eq!(fixture.counts().questions_open, 0);
}

#[test]
fn more_calls_than_may_be_parked_are_answered_as_nobody_would() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "[gateway]\nmax_parked_calls_per_client = 2\n");
    let mut alice = harness.client(ALICE);
    let results = ["a", "b"].map(|text| parked(&mut alice, &ask_back(text)));
    let response = alice.ask(&ask_back("c")).response();
    let text = response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}"));
    assert!(text.contains(r#""action":"cancel""#), "the server goes on: {text}");
    // Another client has room of its own.
    parked(&mut harness.client(BOB), &ask_back("d"));
    for (text, result) in ["a", "b"].into_iter().zip(results) {
        let response = alice.ask(&again(&ask_back(text), &result, &fill_in(&["q1"], text))).response();
        assert_eq!(response["result"]["resultType"], "complete", "{response}");
    }
    assert_eq!(fixture.counts().questions_cancelled, 1);
    assert_eq!(harness.gateway().vitals().parked, 1);
}

#[test]
fn calls_that_can_be_asked_have_sessions_of_their_own_while_they_run() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let mut alice = harness.client(ALICE);
    let of_calls = || {
        let received = fixture.received();
        let calls = received.iter().filter(|r| r.body.contains("tools/call"));
        calls.map(|r| r.header("mcp-session-id").unwrap().to_owned()).collect::<Vec<_>>()
    };
    for text in ["a", "b"] {
        let result = parked(&mut alice, &ask_back(text));
        alice.ask(&again(&ask_back(text), &result, &fill_in(&["q1"], text)));
    }
    let one_after_the_other = of_calls();
    assert_eq!(one_after_the_other[0], one_after_the_other[1]);
    let results = ["c", "d"].map(|text| parked(&mut alice, &ask_back(text)));
    let side_by_side = of_calls();
    assert_ne!(side_by_side[2], side_by_side[3]);
    for (text, result) in ["c", "d"].into_iter().zip(results).rev() {
        let response = alice.ask(&again(&ask_back(text), &result, &fill_in(&["q1"], text))).response();
        assert!(response.to_string().contains(&format!(r#"\"text\":\"{text}\""#)), "{response}");
    }
    assert_eq!(fixture.counts().most_repeated(), 1);
    parked(&mut harness.client(BOB), &ask_back("e"));
    assert!(!of_calls()[..4].contains(&of_calls()[4]), "nobody else's");
}

/// Progress under a token, and a log message that names it.
fn remark(text: &str) -> [String; 2] {
    let log =
        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": text } });
    [progress(text), log.to_string()]
}

/// Progress under the token of the first call of a scripted server, which is its id.
fn progress(text: &str) -> String {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": "TOKEN", "progress": 1, "message": text } }).to_string()
}

#[test]
fn what_the_server_says_meanwhile_comes_with_the_next_answer_under_its_token() {
    let (upstream, harness) = scripted("");
    let [asked, finished] = [Gate::default(), Gate::default()];
    let (go_on, finish) = (asked.clone(), finished.clone());
    upstream.on_call(move |exchange| {
        let id = exchange.request.id();
        let say = |text: &str| remark(text).map(|message| message.replace(r#""TOKEN""#, &id));
        exchange.begin_events();
        say("before").iter().for_each(|message| exchange.event(message));
        exchange.event(&elicitation("1"));
        go_on.wait();
        say("between").iter().for_each(|message| exchange.event(message));
        finish.wait();
        exchange.result_event(r#"{"content":[]}"#);
    });
    let told = |messages: Vec<Value>, text: &str, token: &str| {
        let [progress, log, last]: [Value; 3] = messages.try_into().unwrap();
        assert_eq!(
            (&progress["params"]["progressToken"], &progress["params"]["message"]),
            (&json!(token), &json!(text))
        );
        assert_eq!(log["params"]["data"], text);
        last
    };
    let with = |token: &str| echo().meta(&format!(r#""progressToken":"{token}""#)).told("logLevel", r#""info""#);
    let mut alice = harness.client(ALICE);
    let last = told(alice.ask(&with("first")).messages(), "before", "first");
    let result = last["result"].clone();
    asked.open();
    finished.open();
    // The server has ended the call and waits for no answer; both are kept for the client.
    wait_until("the server has ended it", || harness.gateway().vitals().questions == 0);
    let last =
        told(alice.ask(&again(&with("second"), &result, &fill_in(&["q1"], "r"))).messages(), "between", "second");
    assert_eq!(last["result"]["resultType"], "complete", "{last}");
    assert_eq!(answers(&upstream), Vec::<Value>::new(), "the answer came too late");
    nothing_is_left(&harness);
}

#[test]
fn an_error_of_the_server_is_kept_for_the_client() {
    let (upstream, harness) = scripted("");
    let gate = Gate::default();
    let waited = gate.clone();
    upstream.on_call(move |exchange| {
        exchange.begin_events();
        exchange.event(&elicitation("1"));
        waited.wait();
        exchange.event(&format!(
            r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32602,"message":"too slow"}}}}"#,
            exchange.request.id()
        ));
        exchange.end_events();
    });
    let mut alice = harness.client(ALICE);
    let result = parked(&mut alice, &echo());
    gate.open();
    wait_until("the server has ended it", || harness.gateway().vitals().questions == 0);
    let response = alice.ask(&again(&echo(), &result, &fill_in(&["q1"], "r"))).response();
    assert_eq!(response["error"], json!({ "code": -32602, "message": "too slow" }));
    nothing_is_left(&harness);
}

#[test]
fn a_question_that_is_withdrawn_meanwhile_wants_no_answer() {
    let (upstream, harness) = scripted("");
    let (withdraw, gate) = (Gate::default(), Gate::default());
    let (withdrawing, waited) = (withdraw.clone(), gate.clone());
    upstream.on_call(move |exchange| {
        exchange.begin_events();
        exchange.event(&elicitation("1"));
        withdrawing.wait();
        exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
        waited.wait();
        exchange.result_event(r#"{"content":[]}"#);
    });
    let mut alice = harness.client(ALICE);
    let result = parked(&mut alice, &echo());
    withdraw.open();
    wait_until("it is withdrawn", || harness.gateway().vitals().questions == 0);
    alice.send_message(&again(&echo(), &result, &fill_in(&["q1"], "r")));
    wait_until("the client is back", || harness.gateway().vitals().parked == 0);
    gate.open();
    assert_eq!(alice.connection.answer().response()["result"]["resultType"], "complete");
    assert_eq!(answers(&upstream), Vec::<Value>::new());
}

#[test]
fn a_client_is_not_asked_again_for_what_it_does_not_declare_any_more() {
    let (upstream, harness) = scripted("");
    let gate = asks(&upstream, vec![elicitation("1")]);
    let mut alice = harness.client(ALICE);
    let result = parked(&mut alice, &echo());
    let without = declaring(again(&echo(), &result, &json!({})), MODERN, r#"{"roots":{}}"#);
    alice.send_message(&without);
    let answer = answered(&upstream, 1).remove(0);
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 1, "result": { "action": "cancel" } }));
    gate.open();
    assert_eq!(alice.connection.answer().response()["result"]["resultType"], "complete");
    nothing_is_left(&harness);
}

#[test]
fn a_question_on_the_stream_of_the_session_parks_the_call_as_well() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let mut alice = harness.client(ALICE);
    let warm = call(MODERN, EVERYTHING, "test_simple_text", "{}");
    assert_eq!(alice.ask(&warm).response()["result"]["resultType"], "complete");
    wait_until("the stream is open", || fixture.counts().get_streams == 2);
    let message = call(MODERN, EVERYTHING, "ask_on_get", r#"{"text":"t"}"#);
    let result = parked(&mut alice, &message);
    let response = alice.ask(&again(&message, &result, &fill_in(&["q1"], "r"))).response();
    assert!(response.to_string().contains("accept"), "{response}");
    assert_eq!(fixture.counts().executions_of("ask_on_get"), 1);
    nothing_is_left(&harness);
}

#[test]
fn a_parked_call_is_not_silent_but_ends_with_the_time_of_a_call() {
    let lines = "[gateway]\nsilent_call_seconds = 1\nwhole_call_seconds = 2\n";
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), lines);
    let mut alice = harness.client(ALICE);
    let result = parked(&mut alice, &ask_back("mine"));
    let begun = Instant::now();
    was_ended(&fixture);
    assert!(begun.elapsed() > Duration::from_millis(1_500), "{:?}", begun.elapsed());
    let response = alice.ask(&again(&ask_back("mine"), &result, &fill_in(&["q1"], "r"))).response();
    assert_eq!(response["error"]["code"], -32603, "{response}");
    nothing_is_left(&harness);
    assert_eq!(fixture.counts().executions_of("ask_back"), 1);
}

#[test]
fn an_url_that_is_opened_first_needs_another_call() {
    let (fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let mut alice = harness.client(ALICE);
    let required = |capabilities: &str| call(MODERN, capabilities, "test_url_required", r#"{"key":"k"}"#);
    let result = parked(&mut alice, &required(EVERYTHING));
    assert_eq!(result["inputRequests"]["q1"]["params"]["url"], "https://example.com/fixture/required");
    nothing_is_left(&harness);
    let state = again(&required(EVERYTHING), &result, &json!({ "q1": { "action": "accept" } }));
    assert_eq!(harness.client(BOB).ask(&state).response()["error"]["code"], -32602);
    let response = alice.ask(&state).response();
    assert_eq!(response["result"]["content"][0]["text"], "Visited the page for k.", "{response}");
    assert_eq!(fixture.counts().executions_of("test_url_required"), 2);
}

#[test]
fn one_gateway_does_not_know_what_another_has_parked() {
    let (_fixture, harness) = shared(Options::of(Mode::LegacySessions), "");
    let second = harness.second();
    let result = parked(&mut harness.client(ALICE), &ask_back("mine"));
    is_unknown(&mut second.client(ALICE), &ask_back("mine"), &result);
    let response = harness.client(ALICE).ask(&again(&ask_back("mine"), &result, &fill_in(&["q1"], "r"))).response();
    assert_eq!(response["result"]["resultType"], "complete", "{response}");
}

#[test]
fn parked_calls_are_counted() {
    let (_fixture, harness): (Fixture, Harness) =
        shared(Options::of(Mode::LegacySessions), "[gateway]\nmetrics_token = \"metrics-secret\"\n");
    let text = || harness.client("metrics-secret").rest("GET", "/metrics", "").body;
    assert!(text().contains("\nmcp_x_calls_parked 0\n") && text().contains("\nmcp_x_questions 0\n"));
    parked(&mut harness.client(ALICE), &ask_back("mine"));
    assert!(text().contains("\nmcp_x_calls_parked 1\n") && text().contains("\nmcp_x_questions 1\n"), "{}", text());
}
