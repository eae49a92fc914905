//! Modern servers that say what they need first, and are asked once more with it: for a legacy client the gateway does
//! that, a modern one does it itself. Protocol.md 4.4, 4.5.

use std::time::Duration;

use mcp_x_fixture::{Mode, Options};
use serde_json::{Value, json};

use super::support::asking::{EVERYTHING, accept, again, declaring, nothing_is_left, play, reply, shared};
use super::support::client::Client;
use super::support::message::{LEGACY, MODERN, Message};
use super::support::upstream::{Exchange, Plan, Received, Upstream};
use super::support::{ALICE, BOB, Harness, call_message, owned_by_alice, wait_until};

const NEWEST: &str = LEGACY[3];

/// A scripted modern server with one thing of each kind.
fn server(script: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) -> Upstream {
    let upstream = Plan::new("a").start();
    upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
        "server/discover" => {
            let capabilities = json!({ "tools": {}, "prompts": {}, "resources": {}, "completions": {} });
            let result =
                json!({ "resultType": "complete", "supportedVersions": [MODERN], "capabilities": capabilities });
            exchange.result(&result.to_string());
        }
        "tools/list" => {
            let tool = json!({ "name": "echo", "inputSchema": { "type": "object" } });
            exchange.result(&json!({ "resultType": "complete", "tools": [tool] }).to_string());
        }
        "prompts/list" => exchange.result(r#"{"resultType":"complete","prompts":[{"name":"echo"}]}"#),
        "resources/list" => exchange.result(r#"{"resultType":"complete","resources":[{"uri":"test://r","name":"r"}]}"#),
        "resources/templates/list" => exchange.result(r#"{"resultType":"complete","resourceTemplates":[]}"#),
        _ => script(exchange),
    });
    upstream
}

/// The same, and a gateway with further lines.
fn scripted(lines: &str, script: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) -> (Upstream, Harness) {
    let upstream = server(script);
    let harness = Harness::start(&(owned_by_alice(&[("server_a", &upstream)]) + lines));
    assert_eq!(harness.client(ALICE).tools(), ["echo"]);
    (upstream, harness)
}

fn legacy(harness: &Harness, capabilities: &str) -> Client {
    harness.client(ALICE).speaking_as(NEWEST, capabilities)
}

/// A result that asks for the text `reply` under this key, as it is written.
fn asks(key: &str, state: &str) -> String {
    let question = r#"{"method":"elicitation/create","params":{"message":"?","requestedSchema":{"type":"object","properties":{}}}}"#;
    format!(r#"{{"resultType":"input_required","inputRequests":{{{key}:{question}}}{state}}}"#)
}

const DONE: &str = r#"{"resultType":"complete","content":[{"type":"text","text":"done"}]}"#;

/// The member of a request's `params` that has this name, as it is written.
fn param<'a>(request: &'a Received, name: &str) -> Option<&'a str> {
    let (_, rest) = request.body.split_once(&format!(r#""{name}":"#))?;
    Some(rest)
}

#[test]
fn a_server_gets_back_what_it_gave_out_byte_for_byte() {
    const STATE: &str = r#""\u0041\/ \ud83d\ude00 é\\""#;
    const KEY: &str = r#""k \"1\" é""#;
    let (upstream, harness) = scripted("", |exchange| {
        let round = ["one", "two"].iter().filter(|text| exchange.request.body.contains(*text)).count();
        match (round, exchange.request.body.contains("inputResponses")) {
            (0, false) => exchange.result(&asks(KEY, &format!(r#","requestState":{STATE}"#))),
            // Without a state this time.
            (1, true) if exchange.request.body.contains("one") => exchange.result(&asks(r#""second""#, "")),
            _ => exchange.result(DONE),
        }
    });
    let mut answers = ["one", "two"].into_iter();
    let message = Message::call(NEWEST, "echo", r#"{"n":9007199254740993}"#);
    let response = play(&mut legacy(&harness, EVERYTHING), NEWEST, &message, |method, _| {
        assert_eq!(method, "elicitation/create");
        accept(&json!({ "reply": answers.next().unwrap() }))
    });
    assert_eq!(response["result"], json!({ "content": [{ "type": "text", "text": "done" }] }));
    let [first, second, third]: [Received; 3] = upstream.calls().try_into().unwrap();
    assert_eq!((param(&first, "requestState"), param(&first, "inputResponses")), (None, None));
    assert!(param(&second, "requestState").is_some_and(|state| state.starts_with(STATE)), "{second:?}");
    let answer = r#"{"action":"accept","content":{"reply":"one"}}"#;
    let expected = format!("{{{KEY}:{answer}}}").replace('é', "é");
    let sent: Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(second.json()["params"]["inputResponses"], sent);
    assert_eq!(param(&third, "requestState"), None);
    assert_eq!(third.json()["params"]["inputResponses"]["second"]["content"]["reply"], "two");
    let ids: std::collections::BTreeSet<String> = [&first, &second, &third].map(Received::id).into();
    assert_eq!(ids.len(), 3, "each request has an id of its own");
    assert!([&second, &third].iter().all(|request| request.body.contains(r#"{"n":9007199254740993}"#)));
    nothing_is_left(&harness);
}

#[test]
fn a_server_that_only_wants_to_be_asked_again_is() {
    let (upstream, harness) = scripted("", |exchange| match exchange.request.body.contains(r#""requestState":"s2""#) {
        true => exchange.result(DONE),
        false => {
            let next = if exchange.request.body.contains(r#""requestState":"s1""#) { "s2" } else { "s1" };
            exchange.result(&format!(r#"{{"resultType":"input_required","requestState":"{next}"}}"#));
        }
    });
    for capabilities in ["{}", EVERYTHING] {
        upstream.state().received.clear();
        let begun = std::time::Instant::now();
        assert_eq!(legacy(&harness, capabilities).text("echo"), "done");
        // 250 ms and then twice that, each give or take a fifth.
        assert!(begun.elapsed() >= Duration::from_millis(590), "{:?}", begun.elapsed());
        assert_eq!(upstream.calls().len(), 3, "{capabilities}");
    }
    nothing_is_left(&harness);
}

#[test]
fn a_server_that_is_asked_again_must_not_be_silent() {
    let (_upstream, harness) = scripted("[gateway]\nsilent_call_seconds = 1\n", |exchange| {
        match exchange.request.body.contains("requestState") {
            true => exchange.hang(),
            false => exchange.result(r#"{"resultType":"input_required","requestState":"s"}"#),
        }
    });
    let (code, text) = legacy(&harness, EVERYTHING).error("echo");
    assert!(code == -32603 && text.contains('1'), "{text}");
    nothing_is_left(&harness);
}

#[test]
fn a_server_that_never_has_enough_is_given_up() {
    let (upstream, harness) = scripted("", |exchange| exchange.result(&asks(r#""k""#, "")));
    let mut asked = 0;
    let message = Message::call(NEWEST, "echo", "{}");
    let response = play(&mut legacy(&harness, EVERYTHING), NEWEST, &message, |_, _| {
        asked += 1;
        accept(&json!({}))
    });
    let text = "server of tool `echo` asks for input, which cannot be passed on to its clients";
    assert_eq!((&response["error"]["code"], &response["error"]["message"]), (&json!(-32603), &json!(text)));
    assert_eq!((asked, upstream.calls().len()), (16, 17));
    nothing_is_left(&harness);
}

#[test]
fn what_is_no_question_is_an_error() {
    for odd in [
        r#"{"resultType":"input_required","inputRequests":{"k":{"method":"tools/list"}}}"#,
        r#"{"resultType":"input_required","inputRequests":{"k":7}}"#,
        r#"{"resultType":"input_required","inputRequests":[],"requestState":"s"}"#,
        r#"{"resultType":"input_required"}"#,
        // Which of them a client takes nobody knows.
        r#"{"resultType":"input_required","inputRequests":{"k":{"method":"tools/list"}},"inputRequests":{"k":{"method":"roots/list"}}}"#,
    ] {
        let (upstream, harness) = scripted("", |exchange| exchange.result(odd));
        let modern = declaring(Message::call(MODERN, "echo", "{}"), MODERN, EVERYTHING);
        let answers = [legacy(&harness, EVERYTHING).call("echo"), harness.client(ALICE).ask(&modern).response()];
        for response in answers {
            let text = response["error"]["message"].as_str().unwrap_or_else(|| panic!("{odd}: {response}"));
            assert_eq!(text, "server of tool `echo` answered with something that is not MCP", "{odd}");
        }
        assert_eq!(upstream.calls().len(), 2);
        nothing_is_left(&harness);
    }
}

#[test]
fn a_completion_cannot_ask() {
    let (_upstream, harness) = scripted("", |exchange| exchange.result(&asks(r#""k""#, "")));
    for revision in [NEWEST, MODERN] {
        let complete = Message::of(revision, "completion/complete")
            .param(r#""ref":{"type":"ref/prompt","name":"echo"}"#)
            .param(r#""argument":{"name":"a","value":"b"}"#);
        let mut alice = harness.client(ALICE).speaking_as(revision, EVERYTHING);
        let response = alice.ask(&declaring(complete, revision, EVERYTHING)).response();
        assert_eq!(response["error"]["code"], -32603, "{response}");
    }
    nothing_is_left(&harness);
}

#[test]
fn an_error_after_the_answers_is_passed_on() {
    let (_upstream, harness) = scripted("", |exchange| match exchange.request.body.contains("inputResponses") {
        true => exchange.error(-32602, "no such user"),
        false => exchange.result(&asks(r#""k""#, "")),
    });
    let message = Message::call(NEWEST, "echo", "{}");
    let response = play(&mut legacy(&harness, EVERYTHING), NEWEST, &message, |_, _| accept(&json!({})));
    assert_eq!(response["error"], json!({ "code": -32602, "message": "no such user" }));
    nothing_is_left(&harness);
}

#[test]
fn a_legacy_client_cannot_send_a_state() {
    let (upstream, harness) = scripted("", |exchange| exchange.result(DONE));
    let message =
        Message::call(NEWEST, "echo", "{}").param(r#""requestState":"s""#).param(r#""inputResponses":{"k":{}}"#);
    assert_eq!(legacy(&harness, "{}").ask(&message).response()["result"]["content"][0]["text"], "done");
    let sent = upstream.calls().pop().unwrap();
    assert_eq!((param(&sent, "requestState"), param(&sent, "inputResponses")), (None, None), "{sent:?}");
}

#[test]
fn a_call_ends_with_the_access_while_its_client_is_asked() {
    let (upstream, harness) = scripted("[allow.server_a]\nbob = [\"*\"]\n", |exchange| {
        exchange.result(&asks(r#""k""#, ""));
    });
    let mut bob = harness.client(BOB).speaking_as(NEWEST, EVERYTHING);
    bob.stream(&call_message("1", "echo", "{}"));
    let question = bob.connection.message();
    harness.replace_config(&harness.config().replace("bob = [\"*\"]", "bob = []"));
    let error = bob.connection.message()["error"].clone();
    assert!(error["message"].as_str().is_some_and(|text| text.starts_with("access was taken away")), "{error}");
    assert_eq!(bob.connection.event(), None);
    assert_eq!(bob.another().post(reply(&question, &accept(&json!({})))).status(), 202);
    nothing_is_left(&harness);
    assert_eq!(upstream.calls().len(), 1, "the answer went nowhere");
}

/// A request of a modern client about something that asks, and what it is about.
fn asking(method: &str, key: &str, name: &str, arguments: &str) -> Message {
    let message = Message::modern(method).param(&format!(r#""{key}":"{name}""#)).header("Mcp-Name", name);
    let message = if arguments.is_empty() { message } else { message.param(&format!(r#""arguments":{arguments}"#)) };
    declaring(message, MODERN, EVERYTHING)
}

#[test]
fn prompts_and_resources_ask_as_tools_do_and_their_states_are_theirs_alone() {
    for mode in [Mode::Modern, Mode::LegacySessions] {
        let (fixture, harness) = shared(Options::of(mode), "");
        let mut alice = harness.client(ALICE);
        let text = r#"{"text":"t"}"#;
        for message in [
            asking("tools/call", "name", "ask_back", text),
            asking("prompts/get", "name", "ask_prompt", text),
            asking("resources/read", "uri", "test://asking-resource", ""),
        ] {
            let first = alice.ask(&message).response()["result"].clone();
            assert_eq!(first["resultType"], "input_required", "{first}");
            let keys: Vec<&String> = first["inputRequests"].as_object().unwrap().keys().collect();
            let answers = json!({ keys[0].as_str(): accept(&json!({ "reply": "r", "allowed": true })) });
            let refused = |client: &mut Client, message: &Message, result: &Value| {
                let response = client.ask(&again(message, result, &answers)).response();
                let expected = "invalid params: unknown or expired `requestState`";
                assert_eq!(response["error"], json!({ "code": -32602, "message": expected }), "{mode:?}");
            };
            refused(&mut harness.client(BOB), &message, &first);
            for other in [
                asking("tools/call", "name", "ask_twice_slowly", text),
                asking("tools/call", "name", "ask_back", r#"{"text":"u"}"#),
                asking("prompts/get", "name", "ask_prompt", r#"{"text":"u"}"#),
                asking("resources/read", "uri", "test://static-text", ""),
            ] {
                refused(&mut alice, &other, &first);
            }
            let mut tampered = first.clone();
            let state = first["requestState"].as_str().unwrap();
            let mut changed = state.as_bytes().to_vec();
            let middle = &mut changed[state.len() / 2];
            *middle = if *middle == b'A' { b'B' } else { b'A' };
            tampered["requestState"] = String::from_utf8(changed).unwrap().into();
            refused(&mut alice, &message, &tampered);
            let done = alice.ask(&again(&message, &first, &answers)).response();
            assert_eq!(done["result"]["resultType"], "complete", "{done}");
            assert!(done.to_string().contains(r#"accept"#), "{done}");
        }
        assert!(fixture.counts().most_repeated() <= if mode == Mode::Modern { 2 } else { 1 });
        nothing_is_left(&harness);
    }
}

#[test]
fn a_state_of_a_tool_is_not_good_for_a_prompt_of_the_same_name() {
    let (upstream, harness) = scripted("", |exchange| match exchange.request.body.contains("inputResponses") {
        true => exchange.result(r#"{"resultType":"complete","messages":[],"content":[]}"#),
        false => exchange.result(&asks(r#""k""#, r#","requestState":"theirs""#)),
    });
    let mut alice = harness.client(ALICE);
    let [tool, prompt] = [("tools/call", "{}"), ("prompts/get", "{}")]
        .map(|(method, arguments)| asking(method, "name", "echo", arguments));
    for (asked, other) in [(&tool, &prompt), (&prompt, &tool)] {
        let first = alice.ask(asked).response()["result"].clone();
        assert_ne!(first["requestState"], "theirs", "{first}");
        let answers = json!({ "k": accept(&json!({})) });
        let before = upstream.state().received.len();
        assert_eq!(alice.ask(&again(other, &first, &answers)).response()["error"]["code"], -32602);
        assert_eq!(upstream.state().received.len(), before, "the server hears nothing of it");
        assert_eq!(alice.ask(&again(asked, &first, &answers)).response()["result"]["resultType"], "complete");
        let sent = upstream.state().received.last().unwrap().clone();
        assert!(param(&sent, "requestState").is_some_and(|state| state.starts_with(r#""theirs""#)), "{sent:?}");
    }
}

#[test]
fn a_modern_client_is_not_asked_what_it_has_not_declared() {
    let (_upstream, harness) = scripted("", |exchange| exchange.result(&asks(r#""k""#, "")));
    let message = declaring(Message::call(MODERN, "echo", "{}"), MODERN, r#"{"roots":{}}"#);
    let answer = harness.client(ALICE).ask(&message);
    assert_eq!(answer.status(), 400);
    let error = answer.response()["error"].clone();
    let required = json!({ "requiredCapabilities": { "elicitation": { "form": {} } } });
    assert_eq!((&error["code"], &error["data"]), (&json!(-32021), &required), "{error}");
    wait_until("nothing is left", || harness.gateway().vitals().calls == 0);
}

#[test]
fn a_state_is_not_good_for_a_server_of_another_owner() {
    let (upstream, harness) = scripted("[allow.server_a]\nbob = [\"*\"]\n", |exchange| {
        exchange.result(&asks(r#""k""#, r#","requestState":"theirs""#));
    });
    let mut bob = harness.client(BOB);
    let message = declaring(Message::call(MODERN, "echo", "{}"), MODERN, EVERYTHING);
    let first = bob.ask(&message).response()["result"].clone();
    let answers = json!({ "k": accept(&json!({})) });
    // Somebody else takes the name.
    let other = server(|exchange| exchange.result(DONE));
    let taken = harness.config().replace(&upstream.url(), &other.url()).replace(r#""alice""#, r#""charlie""#);
    harness.replace_config(&taken);
    let ask = |client: &mut Client| client.ask(&message).response();
    wait_until("the other server answers", || ask(&mut bob)["result"]["resultType"] == "complete");
    let before = other.state().received.len();
    let refused = bob.ask(&again(&message, &first, &answers)).response();
    assert_eq!(refused["error"]["message"], "invalid params: unknown or expired `requestState`", "{refused}");
    assert_eq!(other.state().received.len(), before, "it hears nothing of the answers");
}
