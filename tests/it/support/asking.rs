//! Clients that are asked things while they are served, in either era.

use mcp_x_fixture::{Fixture, Options};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::message::{MODERN, Message};
use super::upstream::{Plan, Received, Upstream};
use super::{ALICE, Gate, Harness, owned_by_alice, wait_until};

/// What a client declares that can be asked for everything.
pub(crate) const EVERYTHING: &str =
    r#"{"roots":{"listChanged":true},"sampling":{},"elicitation":{"form":{},"url":{}}}"#;

/// A call of this revision by a client that declares these capabilities; a legacy one has done so in its session.
pub(crate) fn call(revision: &str, capabilities: &str, tool: &str, arguments: &str) -> Message {
    declaring(Message::call(revision, tool, arguments), revision, capabilities)
}

/// A request of a client that declares these capabilities.
pub(crate) fn declaring(message: Message, revision: &str, capabilities: &str) -> Message {
    if revision == MODERN { message.told("clientCapabilities", capabilities) } else { message }
}

/// The request once more, with these answers to what its result asks for.
pub(crate) fn again(message: &Message, result: &Value, answers: &Value) -> Message {
    let message = message.clone().param(&format!(r#""inputResponses":{answers}"#));
    match result.get("requestState") {
        Some(state) => message.param(&format!(r#""requestState":{state}"#)),
        None => message,
    }
}

/// The response of a legacy client to a request.
pub(crate) fn reply(request: &Value, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }).to_string()
}

/// A form that is filled in with this.
pub(crate) fn accept(content: &Value) -> Value {
    json!({ "action": "accept", "content": content })
}

/// What a model says.
pub(crate) fn said(text: &str) -> Value {
    json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": text } })
}

/// Makes a request and answers whatever is asked, by method and parameters of the question; the response.
#[track_caller]
pub(crate) fn play(
    client: &mut Client,
    revision: &str,
    message: &Message,
    mut answer: impl FnMut(&str, &Value) -> Value,
) -> Value {
    let mut answered = |question: &Value| answer(question["method"].as_str().unwrap(), &question["params"]);
    if revision == MODERN {
        let mut response = client.ask(message).response();
        while response["result"]["resultType"] == "input_required" {
            let result = &response["result"];
            let questions = result["inputRequests"].as_object().unwrap();
            let answers: Map<_, _> = questions.iter().map(|(key, value)| (key.clone(), answered(value))).collect();
            response = client.ask(&again(message, result, &answers.into())).response();
        }
        return response;
    }
    client.send_message(message);
    let head = client.connection.head();
    if !head.is_stream() {
        return client.connection.rest_of(head).response();
    }
    loop {
        let message = client.connection.message();
        if message.get("method").is_none() {
            assert_eq!(client.connection.event(), None);
            return message;
        }
        if message.get("id").is_some() {
            let reply = reply(&message, &answered(&message));
            assert_eq!(client.another().post(reply).status(), 202);
        }
    }
}

/// What lets bob use it all.
pub(crate) const GRANT: &str = r#"bob = { tools = ["*"], prompts = ["*"], resources = ["*"] }"#;

/// A server of this kind that alice owns and shares with bob, and a gateway with further lines that has seen its tools.
pub(crate) fn shared(options: Options, lines: &str) -> (Fixture, Harness) {
    let fixture = Fixture::start(options);
    let config = owned_by_alice(&[("server_a", &fixture)]) + "[allow.server_a]\n" + GRANT + "\n" + lines;
    let harness = Harness::start(&config);
    assert!(!harness.client(ALICE).tools().is_empty());
    (fixture, harness)
}

/// A scripted legacy server with sessions that answers in event streams, and a gateway with further lines.
pub(crate) fn scripted(lines: &str) -> (Upstream, Harness) {
    let upstream = Plan::new("a").sessionful().events().prompts(&["echo"]).start();
    let harness = Harness::start(&(owned_by_alice(&[("server_a", &upstream)]) + lines));
    assert_eq!(harness.client(ALICE).tools(), ["echo"]);
    (upstream, harness)
}

/// An elicitation of a legacy server.
pub(crate) fn elicitation(id: &str) -> String {
    let params = r#"{"message":"?","requestedSchema":{"type":"object","properties":{}}}"#;
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{params}}}"#)
}

/// What has come back to a scripted server of what it asked, in order.
pub(crate) fn answers(upstream: &Upstream) -> Vec<Value> {
    let state = upstream.state();
    let answers = state.received.iter().filter(|received| received.method == "POST" && received.rpc() == "null");
    answers.map(Received::json).collect()
}

/// Waits until so many answers have come back to a scripted server; all of them.
#[track_caller]
pub(crate) fn answered(upstream: &Upstream, count: usize) -> Vec<Value> {
    wait_until("the answers", || answers(upstream).len() >= count);
    let answers = answers(upstream);
    assert_eq!(answers.len(), count, "{answers:?}");
    answers
}

/// Nothing is left of calls that were asked something.
#[track_caller]
pub(crate) fn nothing_is_left(harness: &Harness) {
    let open = || {
        let vitals = harness.gateway().vitals();
        (vitals.calls, vitals.parked, vitals.questions)
    };
    wait_until("no call is left", || open() == (0, 0, 0));
}

/// Has a scripted server ask all this on a call's stream, and answer when the gate is open.
pub(crate) fn asks(upstream: &Upstream, questions: Vec<String>) -> Gate {
    let gate = Gate::default();
    let waited = gate.clone();
    upstream.on_call(move |exchange| {
        exchange.begin_events();
        questions.iter().for_each(|question| exchange.event(question));
        waited.wait();
        exchange.result_event(r#"{"content":[]}"#);
    });
    gate
}
