//! Clients that are asked things while they are served, in either era.

use serde_json::{Map, Value, json};

use super::client::Client;
use super::message::{MODERN, Message};

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
