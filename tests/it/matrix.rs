//! Every client revision with every kind of server, as `fixtures/matrix.toml` says: it tells what is expected of each
//! cell, and what "works" means. A cell that does better than the file says fails as well.

mod asked;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mcp_x_fixture::{Fixture, ListKind, Mode, Options};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use toml::de::DeTable;

use super::support::client::Client;
use super::support::http::{Answer, Connection};
use super::support::message::{KEY, MODERN, Message, framed, revisions};
use super::support::{ALICE, Harness, owned_by_alice, wait_until};

const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/matrix.toml");
const TOOLS: &str = include_str!("../../fixtures/upstream/data/tools.json");
const PROMPTS: &str = include_str!("../../fixtures/upstream/data/prompts.json");
const RESOURCES: &str = include_str!("../../fixtures/upstream/data/resources.json");
const TEMPLATES: &str = include_str!("../../fixtures/upstream/data/resource_templates.json");
/// A resource that the server has and lists only after the gateway has seen its lists.
const UNLISTED: &str = "test://watched-resource";
/// The extension.
const TASKS: &str = "io.modelcontextprotocol/tasks";
const KINDS: [(&str, Mode); 3] =
    [("legacy-stateless", Mode::LegacyStateless), ("legacy-sessions", Mode::LegacySessions), ("modern", Mode::Modern)];
const CHECKS: [Check; 19] = [
    ("list", list),
    ("call", call),
    ("resume", resume),
    ("tool_error", tool_error),
    ("progress", progress),
    ("log", log),
    ("cancel", cancel),
    ("list_changed", list_changed),
    ("subscribe", subscribe),
    ("prompts", prompts),
    ("resources", resources),
    ("completion", completion),
    ("elicitation", asked::elicitation),
    ("sampling", asked::sampling),
    ("roots", asked::roots),
    ("undeclared", asked::undeclared),
    ("url", asked::url),
    ("url_required", asked::url_required),
    ("tasks", tasks),
];

/// What is tried, under its name in the file.
type Check = (&'static str, fn(&Pair) -> Outcome);

/// `Err` holds the error that the client got, as `CODE MESSAGE`. What is wrong otherwise is a failed assertion.
type Outcome = Result<(), String>;

/// Outcomes by client revision, kind of server, and what was tried.
type Table = BTreeMap<(String, String, String), String>;

#[test]
fn every_client_gets_from_every_server_what_the_matrix_says() {
    let (expected, found) = (read(), tried());
    let mut text = String::new();
    let mut different = 0;
    for key in expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key))) {
        let (client, server, what) = key;
        let [file, now] = [&expected, &found].map(|table| table.get(key).map_or("not there", String::as_str));
        text += &format!("{client}  {server:<16}  {what:<10}  {now}\n");
        if file != now {
            different += 1;
            text += &format!("    expected: {file}\n");
        }
    }
    println!("{text}");
    assert_eq!(different, 0, "cells differ from {EXPECTED}:\n{text}");
}

fn read() -> Table {
    let text = std::fs::read_to_string(EXPECTED).unwrap();
    let file = DeTable::parse(&text).unwrap();
    let mut table = Table::new();
    for (client, servers) in file.get_ref() {
        for (server, cells) in servers.get_ref().as_table().unwrap() {
            for (what, outcome) in cells.get_ref().as_table().unwrap() {
                let key = [client, server, what].map(|name| name.get_ref().to_string());
                table.insert(key.into(), outcome.get_ref().as_str().unwrap().to_owned());
            }
        }
    }
    table
}

/// Tries every cell, the pairs of a client and a server side by side.
fn tried() -> Table {
    std::thread::scope(|scope| {
        let pairs = KINDS.into_iter().flat_map(|(name, mode)| revisions().map(move |revision| (revision, name, mode)));
        let rows: Vec<_> = pairs.map(|(revision, name, mode)| scope.spawn(move || row(revision, name, mode))).collect();
        rows.into_iter().flat_map(|row| row.join().unwrap()).collect()
    })
}

fn row(revision: &'static str, kind: &'static str, server: Mode) -> Vec<((String, String, String), String)> {
    let pair = Pair::start(revision, server);
    let cell = |(what, check): Check| {
        let outcome = match catch_unwind(AssertUnwindSafe(|| check(&pair))) {
            Ok(Ok(())) => "works".to_owned(),
            Ok(Err(error)) => error,
            Err(panic) => format!("wrong: {}", panic.downcast_ref::<String>().map_or("an assertion", String::as_str)),
        };
        ((revision.to_owned(), kind.to_owned(), what.to_owned()), outcome)
    };
    CHECKS.map(cell).into()
}

/// A client's revision and a server, with a gateway between them that lets the client make one call at a time.
struct Pair {
    revision: &'static str,
    server: Mode,
    fixture: Fixture,
    harness: Harness,
}

impl Pair {
    fn start(revision: &'static str, server: Mode) -> Self {
        let fixture = Fixture::start(Options::of(server));
        assert!(fixture.remove(ListKind::Resources, UNLISTED));
        let config = owned_by_alice(&[("fixture", &fixture)]);
        let harness = Harness::start(&format!("{config}\n[gateway]\nmax_calls_per_client = 1\nrefresh_seconds = 1\n"));
        Self { revision, server, fixture, harness }
    }

    fn client(&self) -> Client {
        self.harness.client(ALICE).speaking(self.revision)
    }

    fn is_modern(&self) -> bool {
        self.revision == MODERN
    }

    fn call(&self, tool: &str, arguments: &str) -> Message {
        Message::call(self.revision, tool, arguments)
    }

    /// The tool ran so often since the server started, and no call of anything twice with the same arguments.
    #[track_caller]
    fn ran(&self, tool: &str, times: u64) {
        assert_eq!(self.fixture.counts().executions_of(tool), times, "executions of {tool}");
    }

    /// A result that may be kept for so long, as the client gets it.
    fn kept(&self, mut members: Value, ttl: &Value) -> Value {
        if self.is_modern() {
            let result = members.as_object_mut().unwrap();
            result.extend(json!({ "ttlMs": ttl, "cacheScope": "private" }).as_object().unwrap().clone());
        }
        self.complete(members)
    }

    /// A result as the client gets it.
    fn complete(&self, mut members: Value) -> Value {
        if self.is_modern() {
            let identity = json!({ "name": "mcp-x", "version": env!("CARGO_PKG_VERSION") });
            let added = json!({ "resultType": "complete", "_meta": { format!("{KEY}serverInfo"): identity } });
            members.as_object_mut().unwrap().extend(added.as_object().unwrap().clone());
        }
        members
    }

    /// A request about something, with the headers that belong to it.
    fn named(&self, method: &str, key: &str, name: &str) -> Message {
        let message = Message::of(self.revision, method).param(&format!(r#""{key}":"{name}""#));
        let header = if name.is_ascii() { name.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(name)) };
        if self.is_modern() { message.header("Mcp-Name", &header) } else { message }
    }

    /// Calls a tool; the answer is exactly this result.
    fn expect(&self, message: &Message, members: &str) -> Outcome {
        let answer = self.client().ask(message);
        answered(&answer)?;
        let result = framed(self.revision, self.server, members);
        assert_eq!(answer.body, format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
        Ok(())
    }
}

/// The result of an answer, whose status must fit it.
fn answered(answer: &Answer) -> Result<Value, String> {
    let response = answer.response();
    if let Some(error) = response.get("error") {
        return Err(format!("{} {}", error["code"], error["message"].as_str().unwrap()));
    }
    assert_eq!((answer.status(), &response["id"]), (200, &json!(1)), "{answer:?}");
    Ok(response["result"].clone())
}

/// The text of a tool's result; `Err` holds the error instead, or what the tool says that failed.
fn text_of(response: &Value) -> Result<String, String> {
    if let Some(error) = response.get("error") {
        return Err(format!("{} {}", error["code"], error["message"].as_str().unwrap()));
    }
    let result = &response["result"];
    let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {response}"));
    if result["isError"] == true { Err(format!("isError {text}")) } else { Ok(text.to_owned()) }
}

fn list(pair: &Pair) -> Outcome {
    let described: Vec<Value> = serde_json::from_str(TOOLS).unwrap();
    let body = listed(pair, "tools/list", "tools", described.into_iter().map(|tool| shown(tool, pair)).collect())?;
    let schemas: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_str(TOOLS).unwrap();
    for schema in schemas.iter().map(|tool| tool["inputSchema"].get()).filter(|text| !text.contains("x-mcp-header")) {
        assert!(body.contains(schema), "bytes of a schema changed: {schema}");
    }
    Ok(())
}

/// Asks for a list, whose result has these entries and what the client's era adds; the body of the answer.
fn listed(pair: &Pair, method: &str, member: &str, expected: Vec<Value>) -> Result<String, String> {
    let answer = pair.client().ask(&Message::of(pair.revision, method));
    let mut result = answered(&answer)?;
    assert_eq!(result[member].take(), Value::from(expected));
    assert!(!pair.is_modern() || result["ttlMs"].is_u64(), "{result}");
    let ttl = result["ttlMs"].clone();
    assert_eq!(result, pair.kept(json!({ member: null }), &ttl));
    Ok(answer.body)
}

/// A tool as the client is shown it.
fn shown(mut tool: Value, pair: &Pair) -> Value {
    let members = tool.as_object_mut().unwrap();
    if pair.revision < "2025-06-18" {
        members.remove("outputSchema");
    }
    if pair.server != Mode::Modern
        && let Some(properties) = tool.pointer_mut("/inputSchema/properties").and_then(Value::as_object_mut)
    {
        // A legacy server does not look for headers.
        properties.values_mut().for_each(|property| _ = property.as_object_mut().unwrap().remove("x-mcp-header"));
    }
    tool
}

fn call(pair: &Pair) -> Outcome {
    let arguments = r#"{ "n":9007199254740993,"f":42.0,"z":[1e21,-0],"a":"\u00e9é\ud83d\ude00","":null }"#;
    let mut members = format!(r#""content":[{{"type":"text","text":{}}}]"#, Value::from(arguments));
    if pair.revision >= "2025-06-18" {
        members += &format!(r#","structuredContent":{arguments}"#);
    }
    pair.expect(&pair.call("echo", arguments), &members)?;
    pair.ran("echo", 1);
    Ok(())
}

fn resume(pair: &Pair) -> Outcome {
    let members = r#""content":[{"text":"Reconnection test completed successfully.","type":"text"}]"#;
    pair.expect(&pair.call("test_reconnection", "{}"), members)?;
    pair.ran("test_reconnection", 1);
    Ok(())
}

fn tool_error(pair: &Pair) -> Outcome {
    let members =
        r#""content":[{"text":"This tool intentionally returns an error for testing","type":"text"}],"isError":true"#;
    pair.expect(&pair.call("test_error_handling", "{}"), members)?;
    pair.ran("test_error_handling", 1);
    Ok(())
}

/// Makes a call; what was notified before the response.
fn notified(client: &mut Client, message: &Message) -> Result<Vec<Value>, String> {
    let answer = client.ask(message);
    answered(&answer)?;
    if !answer.head.is_stream() {
        return Ok(Vec::new());
    }
    let mut events = answer.messages();
    assert!(events.pop().is_some_and(|last| last.get("result").is_some()), "the response is not the last");
    Ok(events)
}

fn progress(pair: &Pair) -> Outcome {
    let mut client = pair.client();
    for (number, token) in [r#""7""#, "7"].into_iter().enumerate() {
        // Other arguments each time, so that no call looks like the other's repetition.
        let message = pair.call("test_tool_with_progress", &format!(r#"{{"n":{number}}}"#));
        let events = notified(&mut client, &message.meta(&format!(r#""progressToken":{token}"#)))?;
        let token: Value = serde_json::from_str(token).unwrap();
        let step = |progress: u64, message: &str| {
            let params = json!({ "progressToken": token, "progress": progress, "total": 100, "message": message });
            json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
        };
        assert_eq!(events, [step(0, "started"), step(50, "halfway"), step(100, "completed")]);
    }
    pair.ran("test_tool_with_progress", 2);
    assert_eq!(pair.fixture.counts().most_repeated(), 1);
    Ok(())
}

/// Asks for messages of this level and makes a call; the messages that came.
fn logged(pair: &Pair, client: &mut Client, level: Option<&str>) -> Result<Vec<Value>, String> {
    let message = pair.call("test_tool_with_logging", &format!(r#"{{"level":"{}"}}"#, level.unwrap_or("unasked")));
    let Some(level) = level else { return notified(client, &message) };
    if pair.is_modern() {
        return notified(client, &message.told("logLevel", &format!("\"{level}\"")));
    }
    let answer = client.ask(&Message::of(pair.revision, "logging/setLevel").param(&format!(r#""level":"{level}""#)));
    assert_eq!(answered(&answer)?, json!({}));
    notified(client, &message)
}

fn log(pair: &Pair) -> Outcome {
    let message = |text: &str| {
        let params = json!({ "level": "info", "logger": "fixture", "data": text });
        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params })
    };
    let texts = ["Tool execution started", "Tool processing data", "Tool execution completed"];
    let (none, all) = (Vec::new(), texts.map(message).to_vec());
    let mut client = pair.client();
    // What a legacy server sends unasked is its own decision.
    let unasked = if pair.is_modern() || pair.server == Mode::Modern { &none } else { &all };
    for (level, expected) in [(None, unasked), (Some("error"), &none), (Some("info"), &all), (Some("debug"), &all)] {
        assert_eq!(logged(pair, &mut client, level)?, *expected, "{level:?}");
    }
    assert_eq!(pair.fixture.counts().most_repeated(), 1);
    Ok(())
}

fn cancel(pair: &Pair) -> Outcome {
    let mut client = pair.client();
    client.send_message(&pair.call("slow", r#"{"ms":600000}"#));
    wait_until("the call runs", || pair.fixture.counts().executions_of("slow") == 1);
    if pair.is_modern() {
        drop(client);
    } else {
        let notification = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
        assert_eq!(client.another().post(notification).status(), 202);
        assert!(client.connection.head().is_stream());
        assert_eq!(client.connection.event(), None, "a call that was called off is not answered");
    }
    wait_until("the server hears of it", || pair.fixture.counts().cancellations == 1);
    let mut client = pair.client();
    let again = pair.call("test_simple_text", "{}");
    wait_until("the slot is free", || answered(&client.ask(&again)).is_ok());
    let counts = pair.fixture.counts();
    assert_eq!((counts.cancellations, counts.executions_of("slow"), counts.most_repeated()), (1, 1, 1));
    let told = if pair.server == Mode::Modern { 0 } else { 1 };
    // It may have been told twice: the first time may have come before the call.
    assert_eq!(counts.requests_of("notifications/cancelled").min(1), told);
    Ok(())
}

/// Opens the stream on which the client hears of changes of prompts and of this resource.
fn listen(pair: &Pair, client: &mut Client, uri: Option<&str>) -> Result<Connection, String> {
    if pair.is_modern() {
        let (stream, granted) =
            client.listen(&json!({ "promptsListChanged": true, "resourceSubscriptions": uri.as_slice() }).to_string());
        let is_granted = uri.is_none() || granted["resourceSubscriptions"] == json!([uri]);
        return if is_granted { Ok(stream) } else { Err("not granted".to_owned()) };
    }
    let stream = client.get_stream();
    if let Some(uri) = uri {
        let message = Message::of(pair.revision, "resources/subscribe").param(&format!(r#""uri":"{uri}""#));
        assert_eq!(answered(&client.ask(&message))?, json!({}));
    }
    Ok(stream)
}

/// A notification as the client gets it on that stream.
fn told(pair: &Pair, method: &str, mut params: Value) -> Value {
    if pair.is_modern() {
        params["_meta"] = json!({ format!("{KEY}subscriptionId"): 1 });
    }
    match params.as_object().is_some_and(serde_json::Map::is_empty) {
        true => json!({ "jsonrpc": "2.0", "method": method }),
        false => json!({ "jsonrpc": "2.0", "method": method, "params": params }),
    }
}

fn list_changed(pair: &Pair) -> Outcome {
    let mut stream = listen(pair, &mut pair.client(), None)?;
    for _ in 0..2 {
        match pair.fixture.remove(ListKind::Prompts, "new_prompt") {
            true => {}
            false => assert!(pair.fixture.put(ListKind::Prompts, r#"{"name":"new_prompt"}"#)),
        }
        assert_eq!(stream.message(), told(pair, "notifications/prompts/list_changed", json!({})));
    }
    Ok(())
}

fn subscribe(pair: &Pair) -> Outcome {
    let uri = "test://static-text";
    let mut client = pair.client();
    let mut stream = listen(pair, &mut client, Some(uri))?;
    for _ in 0..2 {
        pair.fixture.resource_updated(uri);
        assert_eq!(stream.message(), told(pair, "notifications/resources/updated", json!({ "uri": uri })));
    }
    Ok(())
}

/// A list of prompts, resources or templates as the client is shown it.
fn entries(pair: &Pair, file: &str) -> Vec<Value> {
    let mut entries: Vec<Value> = serde_json::from_str(file).unwrap();
    for entry in &mut entries {
        let members = entry.as_object_mut().unwrap();
        for (member, since) in [("title", "2025-06-18"), ("icons", "2025-11-25")] {
            if pair.revision < since {
                members.remove(member);
            }
        }
    }
    entries
}

fn prompts(pair: &Pair) -> Outcome {
    listed(pair, "prompts/list", "prompts", entries(pair, PROMPTS))?;
    let text = |text: &str| json!({ "role": "user", "content": { "type": "text", "text": text } });
    let resource =
        json!({ "uri": "test://x", "mimeType": "text/plain", "text": "Embedded resource content for testing." });
    let embedded = json!({ "role": "user", "content": { "type": "resource", "resource": resource } });
    let mut client = pair.client();
    for (name, arguments, expected) in [
        ("test_simple_prompt", "{}", json!([text("This is a simple prompt for testing.")])),
        (
            "test_prompt_with_arguments",
            r#"{"arg1":"\u00e9","arg2":"b"}"#,
            json!([text("Prompt with arguments: arg1='é', arg2='b'")]),
        ),
        (
            "test_prompt_with_embedded_resource",
            r#"{"resourceUri":"test://x"}"#,
            json!([embedded, text("Please process the embedded resource above.")]),
        ),
    ] {
        let message = pair.named("prompts/get", "name", name).param(&format!(r#""arguments":{arguments}"#));
        assert_eq!(answered(&client.ask(&message))?, pair.complete(json!({ "messages": expected })), "{name}");
    }
    let image = answered(&client.ask(&pair.named("prompts/get", "name", "test_prompt_with_image")))?;
    let block = &image["messages"][0]["content"];
    assert_eq!((&block["type"], &block["mimeType"]), (&json!("image"), &json!("image/png")), "{image}");
    assert!(block["data"].as_str().is_some_and(|data| data.starts_with("iVBOR")), "{image}");
    let missing = client.ask(&pair.named("prompts/get", "name", "test_prompt_with_arguments")).response();
    assert_eq!(missing["error"], json!({ "code": -32602, "message": "missing argument: `arg1`" }));
    let unknown = client.ask(&pair.named("prompts/get", "name", "none")).response();
    assert_eq!(unknown["error"], json!({ "code": -32602, "message": "unknown prompt: `none`" }));
    Ok(())
}

fn resources(pair: &Pair) -> Outcome {
    let listed_resources = || entries(pair, RESOURCES).into_iter().filter(|entry| entry["uri"] != UNLISTED).collect();
    listed(pair, "resources/list", "resources", listed_resources())?;
    listed(pair, "resources/templates/list", "resourceTemplates", entries(pair, TEMPLATES))?;
    assert!(pair.fixture.put(ListKind::Resources, &json!({ "uri": UNLISTED, "name": "watched" }).to_string()));
    let mut client = pair.client();
    let mut read = |uri: &str| client.ask(&pair.named("resources/read", "uri", uri));
    // What a modern server says is 60 s, `refresh_seconds` is 1.
    let ttl = json!(if pair.server == Mode::Modern { 1_000 } else { 0 });
    let data = r#"{"data":"Data for ID: 7é","id":"7é","templateTest":true}"#;
    for (uri, kind, text) in [
        ("test://static-text", "text/plain", "This is the content of the static text resource."),
        ("test://template/7é/data", "application/json", data),
        (UNLISTED, "text/plain", "This is the content of the watched resource."),
    ] {
        let contents = json!([{ "uri": uri, "mimeType": kind, "text": text }]);
        assert_eq!(answered(&read(uri))?, pair.kept(json!({ "contents": contents }), &ttl), "{uri}");
    }
    let binary = answered(&read("test://static-binary"))?;
    let blob = binary["contents"][0]["blob"].as_str();
    assert!(
        blob.is_some_and(|blob| blob.starts_with("iVBOR")) && binary["contents"][0].get("text").is_none(),
        "{binary}"
    );
    let code = if pair.is_modern() { -32602 } else { -32002 };
    let absent = "test://template/a/b";
    let error =
        json!({ "code": code, "message": format!("resource not found: `{absent}`"), "data": { "uri": absent } });
    assert_eq!(read(absent).response()["error"], error);
    Ok(())
}

fn completion(pair: &Pair) -> Outcome {
    let mut client = pair.client();
    let mut ask = |reference: &str, argument: &str| {
        let message = Message::of(pair.revision, "completion/complete").param(&format!(r#""ref":{reference}"#));
        client.ask(&message.param(&format!(r#""argument":{{"name":"{argument}","value":"a"}}"#)))
    };
    let expected = json!({ "completion": { "values": ["a-1", "a-2", "a-3"], "total": 3, "hasMore": false } });
    for (reference, argument) in [
        (r#"{"type":"ref/prompt","name":"test_prompt_with_arguments"}"#, "arg1"),
        (r#"{"type":"ref/resource","uri":"test://template/{id}/data"}"#, "id"),
    ] {
        assert_eq!(answered(&ask(reference, argument))?, pair.complete(expected.clone()), "{reference}");
    }
    let unknown = ask(r#"{"type":"ref/prompt","name":"none"}"#, "x").response();
    assert_eq!(unknown["error"], json!({ "code": -32602, "message": "unknown prompt: `none`" }));
    Ok(())
}

fn tasks(pair: &Pair) -> Outcome {
    let knows = json!({ "elicitation": {}, "extensions": { TASKS: {} } }).to_string();
    let begin = |tool: &str, arguments: &str| {
        let call = pair.call(tool, arguments);
        let call = if pair.is_modern() { call.told("clientCapabilities", &knows) } else { call };
        answered(&pair.client().ask(&call))
    };
    let about = |method: &str, id: &str, more: &str| {
        let message = pair.named(method, "taskId", id).told("clientCapabilities", &knows);
        answered(&pair.client().ask(&if more.is_empty() { message } else { message.param(more) }))
    };
    let begun = begin("slow_compute", r#"{"seconds":0,"label":"it"}"#)?;
    let computed = json!([{ "type": "text", "text": "Computed it." }]);
    if !pair.is_modern() {
        assert_eq!(begun["content"], computed);
        return answered(&pair.client().ask(&pair.named("tasks/get", "taskId", "x"))).map(drop);
    }
    if pair.server != Mode::Modern {
        assert_eq!((&begun["content"], &begun["resultType"]), (&computed, &json!("complete")));
        return Err("answered at once".to_owned());
    }
    let until = |id: &str, status: &str| {
        let mut task = Value::Null;
        wait_until("the task gets there", || {
            task = about("tasks/get", id, "").unwrap();
            task["status"] == status
        });
        assert_eq!((&task["resultType"], &task["taskId"]), (&json!("complete"), &json!(id)));
        task
    };
    let id = |begun: &Value| {
        assert_eq!((&begun["resultType"], &begun["status"]), (&json!("task"), &json!("working")));
        begun["taskId"].as_str().unwrap().to_owned()
    };
    assert_eq!(until(&id(&begun), "completed")["result"]["content"], computed);
    let asking = id(&begin("multi_input", "{}")?);
    assert_eq!(until(&asking, "input_required")["inputRequests"]["shape"]["method"], "elicitation/create");
    for key in ["color", "shape"] {
        let responses = json!({ key: { "action": "accept", "content": { "name": key } } });
        let ack = about("tasks/update", &asking, &format!(r#""inputResponses":{responses}"#))?;
        assert_eq!(ack, pair.complete(json!({})));
    }
    let text = until(&asking, "completed")["result"]["content"][0]["text"].to_string();
    assert!(text.contains("color") && text.contains("shape"), "{text}");
    let long = id(&begin("slow_compute", r#"{"seconds":600}"#)?);
    assert_eq!(about("tasks/cancel", &long, "")?, pair.complete(json!({})));
    until(&long, "cancelled");
    Ok(())
}
