//! Prompts, resources, templates and completion: who gets which of them, from which server, and what whoever does not is
//! told. Design 6; protocol.md 1.5, 2.3 M8 and M10, 2.4 L10, 4.2, 4.6, 4.8.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::support::client::Client;
use super::support::message::{MODERN, Message, revisions};
use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, BOB, CHARLIE, Harness, clients, owned_by_alice, server};

const LISTS: [&str; 3] = ["prompts/list", "resources/list", "resources/templates/list"];
/// All that the server of [`library`] has.
const PROMPTS: [&str; 2] = ["read", "write"];
const URIS: [&str; 2] = ["file:///pub/a", "file:///secret"];
const TEMPLATE: &str = "file:///pub/{name}";

/// A server with prompts, resources and a template.
fn library(name: &str) -> Upstream {
    Plan::new(name).prompts(&PROMPTS).resources(&URIS).templates(&[TEMPLATE]).start()
}

/// A gateway in front of a library of alice's, with a prefix and with further lines.
fn shared(lines: &str) -> (Upstream, Harness) {
    let upstream = library("lib");
    let config = clients() + &server("lib", "alice", &upstream, "tool_prefix = \"gh_\"") + lines;
    (upstream, Harness::start(&config))
}

fn get(client: &mut Client, prompt: &str) -> Value {
    client.response("prompts/get", &json!({ "name": prompt }))
}

fn read(client: &mut Client, uri: &str) -> Value {
    client.response("resources/read", &json!({ "uri": uri }))
}

fn complete(client: &mut Client, reference: &Value) -> Value {
    client.response("completion/complete", &json!({ "ref": reference, "argument": { "name": "a", "value": "b" } }))
}

/// A text that the server and its subject are told in, wherever it stands in the response.
fn text_of(response: &Value) -> &str {
    let result = &response["result"];
    let texts = [&result["messages"][0]["content"]["text"], &result["contents"][0]["text"]];
    texts.into_iter().find_map(Value::as_str).unwrap_or_else(|| panic!("no text: {response}"))
}

/// The error of something that is not there, as a legacy client without a session is told it.
fn unknown(kind: &str, name: &str) -> Value {
    let message = format!("unknown {kind}: `{name}`");
    match kind {
        "resource" => json!({ "code": -32002, "message": message, "data": { "uri": name } }),
        _ => json!({ "code": -32602, "message": message }),
    }
}

/// A grant of bob's, and what of the library he sees and reaches by it.
#[track_caller]
fn check_grant(grant: &str, prompts: &[&str], uris: &[&str], template: bool) {
    let (upstream, harness) = shared(&format!("[allow.lib]\n{grant}\n"));
    let mut bob = harness.client(BOB);
    let prefixed = |names: &[&str]| names.iter().map(|name| format!("gh_{name}")).collect::<Vec<_>>();
    assert_eq!(bob.listed("prompts/list"), prefixed(prompts), "{grant}");
    assert_eq!(bob.listed("resources/list"), uris, "{grant}");
    assert_eq!(bob.listed("resources/templates/list"), if template { &[TEMPLATE][..] } else { &[] }, "{grant}");
    for own in PROMPTS {
        let name = format!("gh_{own}");
        let response = get(&mut bob, &name);
        match prompts.contains(&own) {
            true => assert_eq!(text_of(&response), format!("lib:{own}"), "{grant}"),
            false => assert_eq!(response["error"], unknown("prompt", &name), "{grant}"),
        }
    }
    for uri in URIS {
        let response = read(&mut bob, uri);
        match uris.contains(&uri) {
            true => assert_eq!(text_of(&response), format!("lib:{uri}"), "{grant}"),
            false => assert_eq!(response["error"], unknown("resource", uri), "{grant}"),
        }
    }
    let reached = ["prompts/get", "resources/read"].map(|method| upstream.state().of(method).len());
    assert_eq!(reached, [prompts.len(), uris.len()], "{grant}");
    let mut alice = harness.client(ALICE);
    let all = LISTS.map(|list| alice.listed(list).len());
    assert_eq!(all, [2, 2, 1], "the owner sees all: {grant}");
}

#[test]
fn a_client_gets_exactly_the_prompts_and_resources_that_are_granted() {
    let (none, all) = (&[][..], (&PROMPTS[..], &URIS[..]));
    for (grant, prompts, uris, template) in [
        ("", none, none, false),
        ("bob = [\"*\"]", none, none, false),
        ("bob = { tools = [\"*\"] }", none, none, false),
        ("\"*\" = [\"*\"]", none, none, false),
        ("bob = { prompts = [\"*\"] }", all.0, none, false),
        ("bob = { prompts = [\"r*\"] }", &["read"], none, false),
        ("bob = { prompts = [\"gh_*\"] }", none, none, false),
        ("bob = { resources = [\"*\"] }", none, all.1, true),
        ("bob = { resources = [\"file:///pub/*\"] }", none, &["file:///pub/a"], true),
        ("bob = { resources = [\"file:///secret\"] }", none, &["file:///secret"], false),
        ("bob = { prompts = [\"file:*\"], resources = [\"read\"] }", none, none, false),
        ("bob = { prompts = [\"*\"], deny = [\"w*\"] }", &["read"], none, false),
        ("bob = { resources = [\"*\"], deny = [\"*secret\"] }", none, &["file:///pub/a"], true),
        ("bob = { resources = [\"*\"], deny = [\"*[{]*\"] }", none, all.1, false),
        ("bob = { prompts = [\"*\"], resources = [\"*\"], deny = [\"*\"] }", none, none, false),
        ("\"*\" = { prompts = [\"write\"] }\nbob = { prompts = [\"read\"] }", all.0, none, false),
        ("\"*\" = { deny = [\"read\"] }\nbob = { prompts = [\"*\"], resources = [\"*\"] }", &["write"], all.1, true),
    ] {
        check_grant(grant, prompts, uris, template);
    }
}

#[test]
fn a_template_is_seen_by_its_text_and_read_by_what_it_becomes() {
    for (pattern, seen, may) in [
        ("file:///pub/{name}", true, &[][..]),
        ("file:///pub/b", false, &["file:///pub/b"]),
        ("file:///pub/[!a]*", true, &["file:///pub/b", "file:///pub/c"]),
    ] {
        let (upstream, harness) = shared(&format!("[allow.lib]\nbob = {{ resources = [\"{pattern}\"] }}\n"));
        let mut bob = harness.client(BOB);
        assert_eq!(bob.listed("resources/templates/list").len(), usize::from(seen), "{pattern}");
        for uri in ["file:///pub/a", "file:///pub/b", "file:///pub/c"] {
            let response = read(&mut bob, uri);
            assert_eq!(response.get("result").is_some(), may.contains(&uri), "{pattern}: {response}");
        }
        assert_eq!(upstream.state().of("resources/read").len(), may.len(), "{pattern}");
    }
}

#[test]
fn a_uri_that_could_mean_another_place_is_for_the_owner_only() {
    let odd = ["file:///pub/../secret", "file:///pub/%2e%2E/secret", "file:///pub/a%2fb", "file:///pub/%252e./secret"];
    let upstream = Plan::new("lib").resources(&[odd[0], "file:///pub/a"]).templates(&[TEMPLATE]).start();
    let grants = "[allow.lib]\nbob = { resources = [\"*\"] }\n";
    let harness = Harness::start(&(owned_by_alice(&[("lib", &upstream)]) + grants));
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    assert_eq!(bob.listed("resources/list"), ["file:///pub/a"]);
    assert_eq!(alice.listed("resources/list").len(), 2);
    for uri in odd {
        assert_eq!(read(&mut bob, uri)["error"], unknown("resource", uri));
        assert_eq!(upstream.state().of("resources/read").len(), 0, "{uri}");
    }
    for uri in odd {
        assert_eq!(text_of(&read(&mut alice, uri)), format!("lib:{uri}"));
    }
}

/// What may not be used and what is not there read the same to the byte, in both eras and for everything that can be asked.
#[test]
fn denied_and_unknown_read_exactly_the_same() {
    let grants = "bob = { prompts = [\"read\"], resources = [\"file:///pub/a\"] }";
    let (upstream, harness) = shared(&format!("[allow.lib]\n{grants}\n"));
    for (token, revision) in [(BOB, "2025-11-25"), (CHARLIE, "2025-11-25"), (BOB, MODERN), (CHARLIE, MODERN)] {
        let mut client = harness.client(token).speaking(revision);
        let mut shape = |method: &str, key: &str, name: &str| {
            let about = format!(r#""{key}":"{name}""#);
            let message = Message::of(revision, method);
            let message = match method {
                "completion/complete" => {
                    let kind = if key == "name" { "ref/prompt" } else { "ref/resource" };
                    let message = message.param(&format!(r#""ref":{{"type":"{kind}",{about}}}"#));
                    message.param(r#""argument":{"name":"a","value":"b"}"#)
                }
                _ if revision == MODERN => message.param(&about).header("Mcp-Name", name),
                _ => message.param(&about),
            };
            let answer = client.ask(&message);
            assert!(answer.status() == 200 && answer.response().get("error").is_some(), "{answer:?}");
            answer.body.replace(name, "NAME")
        };
        let denied = shape("prompts/get", "name", "gh_write");
        let error = r#"{"code":-32602,"message":"unknown prompt: `NAME`"}"#;
        assert_eq!(denied, format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#));
        for absent in ["none", "write", "read", "gh_Read"] {
            assert_eq!(shape("prompts/get", "name", absent), denied, "{absent}");
        }
        let denied = shape("resources/read", "uri", "file:///secret");
        let code = if revision == MODERN { -32602 } else { -32002 };
        let error = format!(r#"{{"code":{code},"message":"unknown resource: `NAME`","data":{{"uri":"NAME"}}}}"#);
        assert_eq!(denied, format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#));
        for absent in ["file:///pub/b", "other:1", "gh_file:///pub/a", "x"] {
            assert_eq!(shape("resources/read", "uri", absent), denied, "{absent}");
        }
        let complete = "completion/complete";
        assert_eq!(shape(complete, "name", "gh_write"), shape(complete, "name", "none"));
        assert_eq!(shape(complete, "uri", TEMPLATE), shape(complete, "uri", "file:///none/{name}"));
        assert_eq!(shape(complete, "uri", "file:///secret"), shape(complete, "uri", "file:///none"));
    }
    for method in ["prompts/get", "resources/read", "completion/complete"] {
        assert_eq!(upstream.state().of(method).len(), 0, "{method}");
    }
    for field in ["prompt=gh_write", "resource=file:///secret", "resource=file:///none/{name}"] {
        let is_denied = |line: &str| line.contains("WARN denied") && line.contains(field);
        assert!(harness.log().lines().any(is_denied), "{field}: {}", harness.log());
    }
}

#[test]
fn the_server_gets_its_own_name_for_a_prompt_and_the_rest_untouched() {
    let (upstream, harness) = shared("");
    let mut alice = harness.client(ALICE);
    let ask = |alice: &mut Client, method: &str, params: &str| {
        let answer = alice.post(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#));
        assert!(answer.response().get("result").is_some(), "{answer:?}");
        upstream.state().of(method).pop().unwrap().body
    };
    for (method, params, expected) in [
        (
            "prompts/get",
            r#"{"arguments":{"name":"gh_read","n":1e21},"name":"\u0067h_read"}"#,
            r#"{"arguments":{"name":"gh_read","n":1e21},"name":"read"}"#,
        ),
        (
            "completion/complete",
            r#"{"ref":{ "x":1.0,"name":"gh_read","type":"ref/prompt" },"argument":{"name":"gh_read","value":"gh_"}}"#,
            r#"{"ref":{ "x":1.0,"name":"read","type":"ref/prompt" },"argument":{"name":"gh_read","value":"gh_"}}"#,
        ),
        (
            "completion/complete",
            r#"{"task":{},"ref":{"name":"gh_read","type":"ref/prompt"},"argument":{"name":"a","value":""}}"#,
            r#"{"ref":{"name":"read","type":"ref/prompt"},"argument":{"name":"a","value":""}}"#,
        ),
        ("resources/read", r#"{"uri":"file:///\u0070ub/a","y":[ ]}"#, r#"{"uri":"file:///\u0070ub/a","y":[ ]}"#),
        (
            "completion/complete",
            r#"{"argument":{"name":"name","value":"b"},"ref":{"uri":"file:///pub/{name}","type":"ref/resource"}}"#,
            r#"{"argument":{"name":"name","value":"b"},"ref":{"uri":"file:///pub/{name}","type":"ref/resource"}}"#,
        ),
    ] {
        let sent = ask(&mut alice, method, params);
        assert!(sent.contains(&format!("\"params\":{expected}")), "{params}: {sent}");
    }
}

#[test]
fn a_completion_is_about_one_prompt_or_one_resource() {
    let (upstream, harness) = shared("");
    let mut alice = harness.client(ALICE);
    for reference in [
        json!({ "type": "ref/prompt", "name": "gh_read", "uri": "file:///pub/a" }),
        json!({ "type": "ref/resource", "name": "gh_read", "uri": "file:///pub/a" }),
        json!({ "type": "ref/prompt", "uri": "file:///pub/a" }),
        json!({ "type": "ref/tool", "name": "echo" }),
        json!({ "type": "ref/prompt", "name": 7 }),
        json!("gh_read"),
    ] {
        let error =
            json!({ "code": -32602, "message": "invalid params: expected a `ref` to one prompt or one resource" });
        assert_eq!(complete(&mut alice, &reference)["error"], error, "{reference}");
    }
    for twice in [r#""name":"gh_read","name":"gh_write""#, r#""name":"gh_read","\u006eame":"gh_write""#] {
        let reference = format!(r#"{{"type":"ref/prompt",{twice}}}"#);
        let answer = alice.post(format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{{"ref":{reference}}}}}"#
        ));
        assert_eq!((answer.status(), answer.code()), (200, -32602), "{twice}: {answer:?}");
    }
    assert_eq!(upstream.state().of("completion/complete").len(), 0);
    // A resource may be named instead of its template.
    for uri in ["file:///pub/a", "file:///pub/b"] {
        let completed = complete(&mut alice, &json!({ "type": "ref/resource", "uri": uri }));
        assert_eq!(completed["result"]["completion"]["values"][1], format!("lib:{uri}"));
    }
}

#[test]
fn a_server_that_completes_nothing_has_no_values() {
    let upstream = library("lib");
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "completion/complete" => exchange.error(-32601, "Method not found"),
        _ => exchange.normally(),
    });
    let harness = Harness::start(&owned_by_alice(&[("lib", &upstream)]));
    for revision in revisions() {
        let reference = r#""ref":{"type":"ref/prompt","name":"read"}"#;
        let message = Message::of(revision, "completion/complete").param(reference);
        let answer =
            harness.client(ALICE).speaking(revision).ask(&message.param(r#""argument":{"name":"a","value":""}"#));
        assert_eq!(answer.response()["result"]["completion"], json!({ "values": [] }), "{revision}: {answer:?}");
        assert_eq!(answer.response()["result"].get("resultType").is_some(), revision == MODERN);
    }
    assert_eq!(upstream.state().of("server/discover").len(), 1, "it was asked again what it is");
}

#[test]
fn the_name_header_says_the_same_as_the_body() {
    let (_upstream, harness) = shared("");
    let mut alice = harness.client(ALICE);
    let sentinel = |text: &str| format!("=?base64?{}?=", STANDARD.encode(text));
    for (method, key, name, kind) in [
        ("prompts/get", "name", "gh_read", "messages"),
        ("resources/read", "uri", "file:///pub/a", "contents"),
        ("resources/read", "uri", r"file:///pub/\u00e9", "contents"),
    ] {
        let message = || Message::modern(method).param(&format!(r#""{key}":"{name}""#));
        let plain: String = serde_json::from_str(&format!("\"{name}\"")).unwrap();
        let mut fine = vec![sentinel(&plain)];
        if plain.is_ascii() {
            fine.extend([plain.clone(), format!(" {plain}\t")]);
        }
        for header in fine {
            let answer = alice.ask(&message().header("Mcp-Name", &header));
            assert!(answer.json()["result"].get(kind).is_some(), "{header}: {answer:?}");
        }
        let mut wrong = vec![
            message(),
            message().header("Mcp-Name", &sentinel("gh_write")),
            message().header("Mcp-Name", "file:///pub/b"),
            message().header("Mcp-Name", &sentinel(&plain).to_uppercase()),
            message().header("Mcp-Name", &sentinel(&plain)).another("Mcp-Name", &sentinel(&plain)),
        ];
        if plain.is_ascii() {
            wrong.push(message().header("Mcp-Name", &plain.to_uppercase()));
        }
        for message in wrong {
            let answer = alice.ask(&message);
            assert_eq!((answer.status(), answer.code()), (400, -32020), "{message:?}: {answer:?}");
        }
    }
    for method in ["prompts/get", "resources/read"] {
        for params in ["\"x\":1", "\"name\":7", "\"uri\":[]"] {
            let answer = alice.ask(&Message::modern(method).param(params).header("Mcp-Name", "x"));
            assert_eq!((answer.status(), answer.code()), (200, -32602), "{method} {params}: {answer:?}");
        }
    }
}

/// What `/explain` says: the verdict, the server, and the reason.
#[track_caller]
fn explained(client: &mut Client, query: &str) -> (String, Option<String>, String) {
    let answer = client.get(&format!("/explain?{query}"));
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    (text("verdict").unwrap(), text("server"), text("rule").unwrap())
}

#[test]
fn explanations_of_prompts_and_resources_agree_with_what_is_served() {
    let (first, second) = (library("first"), library("second"));
    let servers = server("one", "alice", &first, "tool_prefix = \"gh_\"") + &server("two", "alice", &second, "");
    let grants = "[allow.one]\nbob = { prompts = [\"r*\"], resources = [\"file:///pub/*\"], deny = [\"*/b\"] }\n";
    let harness = Harness::start(&(clients() + &servers + grants));
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    assert_eq!((alice.listed("prompts/list").len(), bob.listed("prompts/list").len()), (4, 1));
    let yes = |server: &str, rule: &str| ("yes".to_owned(), Some(server.to_owned()), rule.to_owned());
    let no = |rule: &str| ("no".to_owned(), None, rule.to_owned());
    let owner = "the client owns the server";
    for (query, expected) in [
        ("prompt=gh_read", yes("one", owner)),
        ("prompt=read", yes("two", owner)),
        ("prompt=read&server=one", no("clients know this prompt as `gh_read`")),
        ("prompt=none", no("no server in sight has such a prompt")),
        ("resource=file:///secret", yes("one", owner)),
        (
            "resource=file:///secret&server=two",
            no("hidden: server `one` comes first and has a resource of the same URI"),
        ),
        ("resource=file:///pub/x", yes("one", owner)),
        ("resource=other:1", no("no server in sight has such a resource")),
        (
            "resource=other:1&server=two",
            no("the server lists no such resource, and is not the only one that could have it"),
        ),
    ] {
        assert_eq!(explained(&mut alice, query), expected, "{query}");
    }
    for (query, verdict, rule) in [
        ("prompt=gh_read", "yes", "allowed by pattern `r*` for `bob` at"),
        ("prompt=gh_write", "no", "no pattern granted to the client matches"),
        ("resource=file:///pub/a", "yes", "allowed by pattern `file:///pub/*` for `bob` at"),
        ("resource=file:///pub/b", "no", "denied by pattern `*/b` for `bob` at"),
        ("resource=file:///pub/../secret&server=one", "no", "a URI with `.` or `..` segments"),
    ] {
        let (found, _, reason) = explained(&mut bob, query);
        assert!(found == verdict && reason.starts_with(rule), "{query}: {found}: {reason}");
        let (kind, name) = query.split('&').next().unwrap().split_once('=').unwrap();
        let answer = bob.get(&format!("/explain?{query}"));
        assert_eq!((answer[kind].as_str(), answer.get("tool")), (Some(name), None), "{answer}");
        let served = match kind {
            "prompt" => get(&mut bob, name),
            _ => read(&mut bob, name),
        };
        assert_eq!(served.get("result").is_some(), verdict == "yes", "{query}: {served}");
    }
    for query in ["", "?tool=a&prompt=b", "?prompt=a&resource=b", "?prompt=", "?resource=a&resource=b"] {
        assert_eq!(alice.rest("GET", &format!("/explain{query}"), "").status(), 422, "{query}");
    }
}
