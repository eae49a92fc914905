//! From which of several servers prompts and resources come, what is made of that server's errors, and how each revision gets
//! what comes back. Design 6; protocol.md 1.5, 4.2, 4.6, 4.8.

use serde_json::{Value, json};

use super::support::client::Client;
use super::support::message::{MODERN, Message, revisions};
use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, BOB, Harness, clients, owned_by_alice, server};

const LISTS: [&str; 3] = ["prompts/list", "resources/list", "resources/templates/list"];

fn get(client: &mut Client, prompt: &str) -> Value {
    client.response("prompts/get", &json!({ "name": prompt }))
}

fn read(client: &mut Client, uri: &str) -> Value {
    client.response("resources/read", &json!({ "uri": uri }))
}

/// The server that a resource was read at, if one was.
fn place(response: &Value) -> Option<&str> {
    response["result"]["contents"][0]["text"].as_str()?.split(':').next()
}

fn reads(upstream: &Upstream) -> usize {
    upstream.state().of("resources/read").len()
}

/// Two servers of alice's that have a prompt, a resource and a template in common.
fn twins() -> (Upstream, Upstream, Harness) {
    let common = |name| Plan::new(name).prompts(&["same", name]).resources(&["x:same", name]).templates(&["x:{a}"]);
    let (first, second) = (common("first").start(), common("second").start());
    let harness = Harness::start(&owned_by_alice(&[("server_1", &first), ("server_2", &second)]));
    (first, second, harness)
}

#[test]
fn of_two_with_one_name_the_first_has_it_and_the_other_is_reported() {
    let (first, second, harness) = twins();
    let mut alice = harness.client(ALICE);
    let lists = LISTS.map(|list| alice.listed(list));
    assert_eq!(lists, [vec!["same", "first", "second"], vec!["x:same", "first", "second"], vec!["x:{a}"]]);
    assert_eq!(get(&mut alice, "same")["result"]["messages"][0]["content"]["text"], "first:same");
    assert_eq!(get(&mut alice, "second")["result"]["messages"][0]["content"]["text"], "second:second");
    for (uri, at) in [("x:same", "first"), ("x:other", "first"), ("second", "second")] {
        assert_eq!(place(&read(&mut alice, uri)), Some(at), "{uri}");
    }
    let reference =
        json!({ "ref": { "type": "ref/resource", "uri": "x:{a}" }, "argument": { "name": "a", "value": "" } });
    let completed = alice.response("completion/complete", &reference);
    assert_eq!(completed["result"]["completion"]["values"][1], "first:x:{a}");
    assert_eq!((reads(&first), reads(&second)), (2, 1));
    for fields in [
        "kind=prompt name=same server=server_2 winner=server_1",
        "kind=resource name=x:same server=server_2 winner=server_1",
        "kind=\"resource template\" name=x:{a} server=server_2 winner=server_1",
    ] {
        harness.wait_for_log(&format!("hidden by an earlier one of the same name client=alice {fields}"));
    }
}

#[test]
fn nothing_is_ever_tried_on_the_next_server() {
    let (first, second, harness) = twins();
    let mut alice = harness.client(ALICE);
    let mut fails = |what: &str| {
        for response in [get(&mut alice, "same"), read(&mut alice, "x:same"), read(&mut alice, "x:other")] {
            assert!(response["error"]["code"].is_i64(), "{what}: {response}");
        }
    };
    for status in [404, 500, 503] {
        first.on_request(move |exchange| match exchange.request.rpc().as_str() {
            "prompts/get" | "resources/read" => exchange.respond(status, "text/plain", ""),
            _ => exchange.normally(),
        });
        fails(&status.to_string());
    }
    for code in [-32601, -32602, -32603, -32002, 0] {
        first.on_request(move |exchange| match exchange.request.rpc().as_str() {
            "prompts/get" | "resources/read" => exchange.error(code, "no"),
            _ => exchange.normally(),
        });
        fails(&code.to_string());
    }
    first.stop();
    fails("down");
    assert_eq!((reads(&second), second.state().of("prompts/get").len()), (0, 0), "the second server was asked");
}

#[test]
fn a_listed_uri_comes_before_a_template_and_that_before_the_only_server() {
    let by_template = Plan::new("template").templates(&["x:/{a}"]).start();
    let listing = Plan::new("listing").resources(&["x:/1"]).start();
    let neither = Plan::new("neither").prompts(&["p"]).start();
    let three = [("a", &by_template), ("b", &listing), ("c", &neither)].map(|(name, at)| server(name, "alice", at, ""));
    let grants = "[allow.a]\nbob = { resources = [\"*\"] }\n[allow.c]\nbob = { resources = [\"*\"] }\n";
    let harness = Harness::start(&(clients() + &three.concat() + grants));
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    for (uri, for_alice, for_bob) in [
        ("x:/1", Some("listing"), Some("template")),
        ("x:/2", Some("template"), Some("template")),
        // Two servers of alice's could have these, and one of bob's.
        ("x:/1/2", None, Some("template")),
        ("y:/1", None, Some("template")),
    ] {
        let before = [&by_template, &listing, &neither].map(reads);
        let response = read(&mut alice, uri);
        assert_eq!(place(&response), for_alice, "{uri}");
        if for_alice.is_none() {
            let message = format!("unknown resource: `{uri}`");
            let error = json!({ "code": -32002, "message": message, "data": { "uri": uri } });
            assert_eq!(response["error"], error);
            assert_eq!([&by_template, &listing, &neither].map(reads), before, "{uri}: a server was asked");
        }
        assert_eq!(place(&read(&mut bob, uri)), for_bob, "{uri}");
    }
}

/// Of two templates that fit, the first counts whose server the client may read the resource at.
#[test]
fn a_template_of_a_server_where_the_client_may_not_read_it_is_passed_over() {
    let [a, b] = ["a", "b"].map(|name| Plan::new(name).templates(&[&format!("x:/{{{name}}}")]).start());
    let servers = server("a", "alice", &a, "") + &server("b", "alice", &b, "");
    let grants = "[allow.a]\nbob = { resources = [\"x:/{*\", \"*1\"] }\n[allow.b]\nbob = { resources = [\"*\"] }\n";
    let harness = Harness::start(&(clients() + &servers + grants));
    let mut bob = harness.client(BOB);
    assert_eq!(bob.listed("resources/templates/list"), ["x:/{a}", "x:/{b}"]);
    assert_eq!(place(&read(&mut bob, "x:/1")), Some("a"));
    assert_eq!(place(&read(&mut bob, "x:/2")), Some("b"));
}

/// Only templates that a client sees lead its reads.
#[test]
fn a_hidden_template_leads_nowhere() {
    let [a, b] = ["a", "b"].map(|name| Plan::new(name).templates(&[&format!("x:/{{{name}}}")]).start());
    let servers = server("a", "alice", &a, "") + &server("b", "alice", &b, "");
    let grants = "[allow.a]\nbob = { resources = [\"x:/1\"] }\n[allow.b]\nbob = { resources = [\"*\"] }\n";
    let harness = Harness::start(&(clients() + &servers + grants));
    let mut bob = harness.client(BOB);
    assert_eq!(bob.listed("resources/templates/list"), ["x:/{b}"]);
    assert_eq!(place(&read(&mut bob, "x:/1")), Some("b"));
}

/// What a server answers to a request, and the error that clients of the legacy and of the modern era get.
type Told = (&'static str, Value, Value, Value);

#[test]
fn what_a_server_says_of_what_is_not_there_reaches_each_era_as_its_own() {
    let upstream = Plan::new("a").prompts(&["p"]).resources(&["x:1"]).start();
    let harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
    let error = |code: i64, message: &str, data: Value| match data {
        Value::Null => json!({ "code": code, "message": message }),
        data => json!({ "code": code, "message": message, "data": data }),
    };
    let (uri, more, null) = (json!({ "uri": "x:1" }), json!({ "uri": "x:one", "n": 1.0 }), Value::Null);
    let (read, get) = ("resources/read", "prompts/get");
    let rows: Vec<Told> = vec![
        (
            read,
            error(-32002, "gone", null.clone()),
            error(-32002, "gone", uri.clone()),
            error(-32602, "gone", uri.clone()),
        ),
        (
            read,
            error(-32002, "gone", more.clone()),
            error(-32002, "gone", more.clone()),
            error(-32602, "gone", more.clone()),
        ),
        (
            read,
            error(-32602, "gone", uri.clone()),
            error(-32002, "gone", uri.clone()),
            error(-32602, "gone", uri.clone()),
        ),
        (
            read,
            error(-32602, "bad", null.clone()),
            error(-32602, "bad", null.clone()),
            error(-32602, "bad", null.clone()),
        ),
        (
            read,
            error(-32601, "no", null.clone()),
            error(-32002, "unknown resource: `x:1`", uri.clone()),
            error(-32602, "unknown resource: `x:1`", uri.clone()),
        ),
        (read, error(-32001, "own", more), error(-32603, "own", null.clone()), error(-32603, "own", null.clone())),
        (read, error(0, "odd", uri.clone()), error(0, "odd", uri.clone()), error(0, "odd", uri)),
        (
            get,
            error(-32601, "no", null.clone()),
            error(-32602, "unknown prompt: `p`", null.clone()),
            error(-32602, "unknown prompt: `p`", null.clone()),
        ),
        (get, error(-32002, "own", null.clone()), error(-32603, "own", null.clone()), error(-32603, "own", null)),
    ];
    for (method, said, legacy, modern) in rows {
        let body = said.clone();
        upstream.on_request(move |exchange| {
            if exchange.request.rpc() == method {
                let id = exchange.request.id();
                return exchange.message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{body}}}"#));
            }
            exchange.normally();
        });
        for revision in revisions() {
            let (key, name) = if method == read { ("uri", "x:1") } else { ("name", "p") };
            let message = Message::of(revision, method).param(&format!(r#""{key}":"{name}""#));
            let message = if revision == MODERN { message.header("Mcp-Name", name) } else { message };
            let answer = harness.client(ALICE).speaking(revision).ask(&message);
            let expected = if revision == MODERN { &modern } else { &legacy };
            assert_eq!((answer.status(), &answer.response()["error"]), (200, expected), "{method} {said} {revision}");
        }
    }
}

/// Every kind of content that a prompt may have.
const MESSAGES: [&str; 5] = [
    r#"{"role":"user","content":{"type":"text","text":"t\u00e9","x":1.0}}"#,
    r#"{"role":"assistant","content":{"type":"image","data":"aQ==","mimeType":"image/png"}}"#,
    r#"{"content":{"type":"audio","data":"aQ==","mimeType":"audio/wav"},"role":"user","x":[ ]}"#,
    r#"{"role":"user","content":{"type":"resource","resource":{"uri":"x:1","text":"t"}}}"#,
    r#"{"role":"user","content":{"type":"resource_link","uri":"x:2","name":"two","title":"Two"}}"#,
];

#[test]
fn each_revision_gets_the_contents_of_prompts_that_it_knows() {
    let result = |messages: &[&str]| format!(r#"{{"description":"d","messages":[{}]}}"#, messages.join(","));
    let upstream = Plan::new("a").prompts(&["p"]).start();
    let whole = result(&MESSAGES);
    upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
        "prompts/get" => exchange.result(&whole),
        _ => exchange.normally(),
    });
    let harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
    let [text, image, audio, resource, link] = MESSAGES;
    let no_audio =
        r#"{"content":{"type":"text","text":"Audio that this client cannot play: audio/wav"},"role":"user","x":[ ]}"#;
    let no_link = r#"{"role":"user","content":{"type":"text","text":"Resource: two <x:2>"}}"#;
    for (revision, expected) in [
        ("2024-11-05", [text, image, no_audio, resource, no_link]),
        ("2025-03-26", [text, image, audio, resource, no_link]),
        ("2025-06-18", [text, image, audio, resource, link]),
        ("2025-11-25", [text, image, audio, resource, link]),
        (MODERN, [text, image, audio, resource, link]),
    ] {
        let message = Message::of(revision, "prompts/get").param(r#""name":"p""#);
        let message = if revision == MODERN { message.header("Mcp-Name", "p") } else { message };
        let body = harness.client(ALICE).speaking(revision).ask(&message).body;
        let expected = result(&expected);
        let expected = expected.trim_start_matches('{');
        assert!(body.ends_with(&format!("{expected}}}")), "{revision}: {body}");
    }
}

#[test]
fn records_name_what_a_request_is_about() {
    let upstream = Plan::new("a").prompts(&["p"]).templates(&["x:{a}"]).start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    get(&mut alice, "p");
    read(&mut alice, "x:1");
    let reference =
        json!({ "ref": { "type": "ref/resource", "uri": "x:{a}" }, "argument": { "name": "a", "value": "" } });
    alice.response("completion/complete", &reference);
    upstream.on_request(|exchange| exchange.close());
    alice.response("completion/complete", &reference);
    for record in [
        "rpc=prompts/get prompt=p server=server_a eras=legacy/legacy status=200",
        "rpc=resources/read resource=x:1 server=server_a",
        "rpc=completion/complete resource=x:{a} server=server_a",
        "resource=x:{a} server=server_a reason=",
    ] {
        harness.wait_for_log(record);
    }
}
