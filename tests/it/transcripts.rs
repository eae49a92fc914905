//! Exchanges of real SDKs, as `fixtures/transcripts/record.py` wrote them down: every message in them is one that the
//! gateway can read, and what the servers said comes through it unchanged.

use std::fs;
use std::path::PathBuf;

use mcp_x::wire::jsonrpc::{Envelope, Sender};
use serde_json::Value;

use super::support::upstream::{Exchange, Plan};
use super::support::{ALICE, Harness, owned_by_alice};

/// Deepest nesting that is read, the default of `max_json_depth`.
const DEPTH: usize = 128;

/// The transcripts, with their names.
fn transcripts() -> Vec<(String, Value)> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fixtures", "transcripts"].iter().collect();
    let paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    })
    .collect()
}

/// The messages of a body: itself, or the data of its events; none in what is no JSON by its own word.
fn messages(side: &Value) -> Vec<String> {
    let body = side["body"].as_str().unwrap().replace("\r\n", "\n");
    let headers = side["headers"].as_array().unwrap();
    let content_type = headers.iter().find(|header| header[0].as_str().unwrap().eq_ignore_ascii_case("content-type"));
    let content_type = content_type.map_or("", |header| header[1].as_str().unwrap());
    if body.is_empty() || content_type.starts_with("text/plain") {
        return Vec::new();
    }
    if !content_type.starts_with("text/event-stream") {
        return vec![body];
    }
    let data = |event: &str| {
        let lines: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
        lines.join("\n")
    };
    body.split("\n\n").map(data).filter(|data| !data.is_empty()).collect()
}

#[test]
fn every_message_of_every_sdk_is_understood() {
    let transcripts = transcripts();
    assert!(!transcripts.is_empty(), "no transcripts");
    for (name, transcript) in transcripts {
        let exchanges = transcript["exchanges"].as_array().unwrap();
        let mut count = 0;
        for exchange in exchanges {
            for (side, sender) in [("request", Sender::Client), ("response", Sender::Server)] {
                for message in messages(&exchange[side]) {
                    let envelope = Envelope::parse(message.clone().into_bytes().into(), DEPTH, sender)
                        .unwrap_or_else(|error| panic!("{name}: {error}: {message}"));
                    envelope.kind().unwrap_or_else(|error| panic!("{name}: {error}: {message}"));
                    assert_eq!(envelope.bytes(), message.as_bytes(), "{name}");
                    count += 1;
                }
            }
        }
        assert!(count > exchanges.len(), "{name}: hardly a message among {} exchanges", exchanges.len());
    }
}

#[test]
fn the_methods_and_ids_read_are_those_that_are_there() {
    for (name, transcript) in transcripts() {
        for exchange in transcript["exchanges"].as_array().unwrap() {
            for message in messages(&exchange["request"]).into_iter().chain(messages(&exchange["response"])) {
                let value: Value = serde_json::from_str(&message).unwrap();
                let envelope = Envelope::parse(message.clone().into_bytes().into(), DEPTH, Sender::Server).unwrap();
                assert_eq!(envelope.method().as_deref(), value["method"].as_str(), "{name}: {message}");
                let id = envelope.id().map(|id| serde_json::from_slice::<Value>(id).unwrap());
                // Some servers say `null` where there should be no id.
                assert_eq!(id.as_ref(), value.get("id").filter(|id| !id.is_null()), "{name}: {message}");
                let tool = envelope.param_text(mcp_x::wire::jsonrpc::Param::Name);
                assert_eq!(tool.as_deref(), value["params"]["name"].as_str(), "{name}: {message}");
            }
        }
    }
}

/// The exchanges of one JSON-RPC method.
fn exchanges<'a>(transcript: &'a Value, method: &str) -> Vec<&'a Value> {
    let all = transcript["exchanges"].as_array().unwrap().iter();
    all.filter(|exchange| request(exchange)["method"] == method).collect()
}

/// The message that was sent.
fn request(exchange: &Value) -> Value {
    serde_json::from_str(exchange["request"]["body"].as_str().unwrap()).unwrap_or(Value::Null)
}

/// The response of the server.
fn response(exchange: &Value) -> String {
    messages(&exchange["response"]).pop().unwrap()
}

/// A message whose id is another one.
fn with_id(message: &str, exchange: &Value, id: &str) -> String {
    let own = format!("\"id\":{}", request(exchange)["id"]);
    assert!(message.contains(&own), "{own} is not in {message}");
    message.replacen(&own, &format!("\"id\":{id}"), 1)
}

/// Says again what the server said, in the same form.
fn replay(exchange: &mut Exchange<'_>, recorded: &Value) {
    let id = exchange.request.id();
    let body = with_id(recorded["response"]["body"].as_str().unwrap(), recorded, &id);
    let content_type = if body.starts_with('{') { "application/json" } else { "text/event-stream" };
    exchange.respond(200, content_type, &body);
}

#[test]
fn what_real_servers_answered_comes_through_unchanged() {
    let legacy = transcripts().into_iter().filter(|(_, t)| !exchanges(t, "initialize").is_empty());
    let mut calls = 0;
    for (name, transcript) in legacy {
        let upstream = Plan::new("replayed").start();
        let list = exchanges(&transcript, "tools/list")[0].clone();
        upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
            "tools/list" => replay(exchange, &list),
            _ => exchange.normally(),
        });
        let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
        let mut alice = harness.client(ALICE);
        let list: Value = serde_json::from_str(&response(exchanges(&transcript, "tools/list")[0])).unwrap();
        let tools: Vec<_> =
            list["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        // A tool that runs only as a task is hidden (protocol.md 4.9).
        assert!(alice.tools().iter().all(|tool| tools.contains(&tool.as_str())), "{name}");
        assert!(alice.tools().len() + 1 >= tools.len(), "{name}");
        let is_listed = |call: &Value| tools.contains(&request(call)["params"]["name"].as_str().unwrap());
        for call in exchanges(&transcript, "tools/call").into_iter().filter(|call| is_listed(call)) {
            let recorded = call.clone();
            let listed = exchanges(&transcript, "tools/list")[0].clone();
            upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
                "tools/call" => replay(exchange, &recorded),
                "tools/list" => replay(exchange, &listed),
                _ => exchange.normally(),
            });
            let answer = alice.post(call["request"]["body"].as_str().unwrap());
            assert_eq!(answer.message(), response(call), "{name}");
            calls += 1;
        }
    }
    assert!(calls > 30, "only {calls} calls");
}
