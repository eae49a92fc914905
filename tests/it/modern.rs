//! Clients of the modern era: which requests are theirs, what is checked of them in which order, what they are answered.
//! Protocol.md 2.2, 2.3, 2.5 to 2.7. What they get from each kind of server is in `matrix`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mcp_x_fixture::{Fixture, ListKind, Mode, Options, Received};
use serde_json::{Value, json};

use super::support::client::{Client, closed_port, initialize_message};
use super::support::http::Answer;
use super::support::message::{KEY, MODERN, Message, identity};
use super::support::{ALICE, BOB, Harness, clients, owned_by_alice, side_by_side, wait_until};

fn gateway(server: Mode) -> (Fixture, Harness) {
    let fixture = Fixture::start(Options::of(server));
    let harness = Harness::start(&owned_by_alice(&[("fixture", &fixture)]));
    (fixture, harness)
}

/// Status and code of an answer; the code is 0 if it is a result.
#[track_caller]
fn told(answer: &Answer) -> (u16, i64) {
    let response = answer.json();
    match response.get("error") {
        Some(error) => (answer.status(), error["code"].as_i64().unwrap()),
        None => (answer.status(), 0),
    }
}

/// A request gets this status and code (0: a result), and its id back; nothing in it is of a session.
#[track_caller]
fn check(client: &mut Client, message: &Message, expected: (u16, i64)) -> Answer {
    let answer = client.ask(message);
    assert_eq!(told(&answer), expected, "{message:?}\n{answer:?}");
    assert_eq!(answer.json()["id"], 1, "{answer:?}");
    assert_eq!(answer.head.header("mcp-session-id"), None);
    answer
}

/// The calls that reached a server.
fn calls(fixture: &Fixture) -> Vec<Received> {
    fixture.received().into_iter().filter(|received| received.body.contains(r#""method":"tools/call""#)).collect()
}

#[test]
fn the_era_of_a_request_is_decided_by_the_request_alone() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let plain = |method: &str| Message::of("2025-11-25", method);
    let version = |message: Message, version: &str| message.header("MCP-Protocol-Version", version);
    let initialize = plain("initialize").text(&initialize_message("2026-07-28"));
    for (message, expected) in [
        // By `_meta`, whatever the method and the header.
        (Message::modern("unknown/method"), (404, -32601)),
        (Message::modern("initialize"), (404, -32601)),
        (plain("ping").told("protocolVersion", "\"2026-07-28\""), (400, -32602)),
        (plain("ping").told("clientCapabilities", "{}"), (400, -32602)),
        (version(plain("ping").told("clientCapabilities", "null"), "2025-11-25"), (400, -32602)),
        // `initialize` without it is the legacy handshake.
        (initialize.clone(), (200, 0)),
        (version(initialize.clone(), MODERN), (200, 0)),
        (version(initialize, "v999"), (200, 0)),
        // By the header.
        (version(plain("tools/list"), MODERN), (400, -32602)),
        (version(plain("tools/list"), "v999"), (400, -32602)),
        (version(plain("tools/list"), ""), (400, -32602)),
        (version(plain("tools/list"), "2025-11-25").another("MCP-Protocol-Version", "2025-11-25"), (400, -32602)),
        // By the method.
        (plain("server/discover"), (400, -32602)),
        (version(plain("subscriptions/listen"), "2025-11-25"), (400, -32602)),
        // Everything else is legacy.
        (plain("unknown/method"), (200, -32601)),
        (version(plain("unknown/method"), "2024-11-05"), (200, -32601)),
        (plain("unknown/method").header("Mcp-Method", "unknown/method"), (200, -32601)),
        (plain("unknown/method").told("clientInfo", "{}").told("logLevel", "\"info\""), (200, -32601)),
    ] {
        let answer = alice.ask(&message);
        assert_eq!(told(&answer), expected, "{message:?}\n{answer:?}");
        assert_eq!(answer.json()["id"], 1, "{answer:?}");
    }
}

#[test]
fn a_connection_may_carry_both_eras_and_several_clients() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    let list = Message::modern("tools/list");
    for _ in 0..2 {
        assert_eq!(alice.ask(&list).json()["result"]["tools"][0]["name"], "test_simple_text");
        assert_eq!(told(&alice.ask(&Message::of("2025-11-25", "tools/list").id("2"))), (200, 0));
        std::mem::swap(&mut alice.connection, &mut bob.connection);
        assert_eq!(bob.ask(&list).json()["result"]["tools"], json!([]));
        assert_eq!(told(&bob.ask(&Message::of("2025-11-25", "unknown/method"))), (200, -32601));
        assert_eq!(told(&bob.ask(&Message::modern("unknown/method"))), (404, -32601));
        std::mem::swap(&mut alice.connection, &mut bob.connection);
    }
}

#[test]
fn a_session_header_means_nothing() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let of_alice = harness.client(ALICE).initialize("2025-11-25");
    for session in ["no-such-session", "", &of_alice] {
        check(&mut alice, &Message::modern("tools/list").header("Mcp-Session-Id", session), (200, 0));
        check(&mut alice, &Message::modern("unknown").header("Mcp-Session-Id", session), (404, -32601));
    }
}

/// A call in which everything is right.
fn good() -> Message {
    Message::call(MODERN, "test_custom_header", r#"{"value":"x"}"#).header("Mcp-Param-Value", "x")
}

/// A way to spoil a request, and the status and code that it gets.
type Fault = (fn(Message) -> Message, (u16, i64));

/// One fault for each check, in the order of protocol.md 2.3.
const FAULTS: [Fault; 12] = [
    (|m| m.id("null"), (400, -32600)),
    (|m| m.untold("clientCapabilities"), (400, -32602)),
    (|m| m.without("MCP-Protocol-Version"), (400, -32020)),
    (|m| m.told("protocolVersion", "\"v998\""), (400, -32020)),
    (|m| m.told("protocolVersion", "\"v999\"").header("MCP-Protocol-Version", "v999"), (400, -32022)),
    (|m| m.header("Mcp-Method", "TOOLS/CALL"), (400, -32020)),
    (|m| m.method("tools/rename"), (404, -32601)),
    (|m| m.header("Mcp-Name", "echo"), (400, -32020)),
    (|m| m.told("logLevel", "\"loud\""), (200, -32602)),
    (|m| m.named("nothing"), (200, -32602)),
    (|m| m.header("Mcp-Param-Value", "y"), (400, -32020)),
    (|m| m.param(r#""requestState":7"#), (200, -32602)),
];

#[test]
fn of_two_faults_the_one_that_is_checked_first_is_told() {
    let (fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    check(&mut alice, &good(), (200, 0));
    for (first, (earlier, expected)) in FAULTS.iter().enumerate() {
        let alone = alice.ask(&earlier(good()));
        assert_eq!(told(&alone), *expected, "{alone:?}");
        for (later, _) in &FAULTS[first + 1..] {
            let both = earlier(later(good()));
            let answer = alice.ask(&both);
            assert_eq!((answer.status(), &answer.body), (alone.status(), &alone.body), "{both:?}");
        }
    }
    assert_eq!(calls(&fixture).len(), 1, "what is refused does not reach the server");
}

#[test]
fn what_is_no_request_is_refused_with_its_id_if_that_can_be_used() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let meta = format!(r#""params":{{"_meta":{{"{KEY}protocolVersion":"{MODERN}","{KEY}clientCapabilities":{{}}}}}}"#);
    for (members, id) in [
        (r#""jsonrpc":"2.0","id":null,"method":"tools/list""#, Value::Null),
        (r#""jsonrpc":"2.0","id":1.5,"method":"tools/list""#, Value::Null),
        (r#""jsonrpc":"2.0","id":{},"method":"tools/list""#, Value::Null),
        (r#""jsonrpc":"1.0","id":7,"method":"tools/list""#, json!(7)),
        (r#""id":7,"method":"tools/list""#, json!(7)),
        (r#""jsonrpc":"2.0","id":"a","method":7"#, json!("a")),
        (r#""jsonrpc":"2.0","id":7"#, json!(7)),
        (r#""jsonrpc":"2.0","id":7,"result":{}"#, Value::Null),
    ] {
        let answer = alice.ask(&Message::modern("tools/list").text(&format!("{{{members},{meta}}}")));
        assert_eq!((told(&answer), &answer.json()["id"]), ((400, -32600), &id), "{members}");
        assert_eq!(answer.json().get("id").is_some(), !id.is_null(), "an id that is `null`: {answer:?}");
    }
}

#[test]
fn what_a_request_has_to_say_about_its_sender_is_told_when_it_is_missing() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let message = |params: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover"{params}}}"#);
        Message::modern("server/discover").text(&text)
    };
    let (version, can) = (format!(r#""{KEY}protocolVersion""#), format!(r#""{KEY}clientCapabilities""#));
    for params in [
        String::new(),
        r#","params":null"#.to_owned(),
        r#","params":[]"#.to_owned(),
        r#","params":{}"#.to_owned(),
        r#","params":{"_meta":null}"#.to_owned(),
        r#","params":{"_meta":[]}"#.to_owned(),
        format!(r#","params":{{"_meta":{{{version}:"{MODERN}"}}}}"#),
        format!(r#","params":{{"_meta":{{{can}:{{}}}}}}"#),
        format!(r#","params":{{"_meta":{{{version}:20260728,{can}:{{}}}}}}"#),
        format!(r#","params":{{"_meta":{{{version}:"{MODERN}",{can}:null}}}}"#),
        format!(r#","params":{{"_meta":{{{version}:"{MODERN}",{can}:["roots"]}}}}"#),
    ] {
        check(&mut alice, &message(&params), (400, -32602));
    }
    check(&mut alice, &Message::modern("server/discover"), (200, 0));
}

#[test]
fn the_version_is_said_once_in_the_header_and_alike_in_the_body() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let list = || Message::modern("tools/list");
    let body = |version: &str| list().told("protocolVersion", &format!("\"{version}\""));
    let both = |version: &str| body(version).header("MCP-Protocol-Version", version);
    check(&mut alice, &list().header("mcp-PROTOCOL-version", " \t2026-07-28 "), (200, 0));
    check(&mut alice, &list().another("MCP-Protocol-Version", MODERN), (400, -32020));
    check(&mut alice, &list().header("MCP-Protocol-Version", ""), (400, -32020));
    check(&mut alice, &list().header("MCP-Protocol-Version", "2025-11-25"), (400, -32020));
    check(&mut alice, &body("2025-11-25"), (400, -32020));
    check(&mut alice, &body("2026-07-28 "), (400, -32020));
    for version in ["v999.0.0", "2025-11-25", "2026-07-29", ""] {
        let answer = check(&mut alice, &both(version), (400, -32022));
        let data = &answer.json()["error"]["data"];
        assert_eq!(*data, json!({ "supported": ["2026-07-28"], "requested": version }));
    }
}

#[test]
fn the_method_is_said_once_in_the_header_and_exactly() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let list = || Message::modern("tools/list");
    check(&mut alice, &list().header("MCP-METHOD", "\t tools/list  "), (200, 0));
    for header in ["Tools/List", "tools/call", "", "=?base64?dG9vbHMvbGlzdA==?="] {
        check(&mut alice, &list().header("Mcp-Method", header), (400, -32020));
    }
    check(&mut alice, &list().another("Mcp-Method", "tools/list"), (400, -32020));
    check(&mut alice, &list().without("Mcp-Method"), (400, -32020));
}

#[test]
fn methods_of_the_legacy_era_are_unknown() {
    let (_fixture, harness) = gateway(Mode::LegacySessions);
    let mut alice = harness.client(ALICE);
    for method in
        ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "roots/list"]
    {
        let answer = check(&mut alice, &Message::modern(method), (404, -32601));
        assert_eq!(answer.json()["error"]["message"], format!("method not found: `{method}`"));
    }
}

#[test]
fn options_of_another_shape_are_refused() {
    let (fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let call = || Message::call(MODERN, "echo", "{}");
    for level in ["\"loud\"", "\"INFO\"", "7", "null"] {
        for message in [Message::modern("tools/list"), Message::modern("server/discover"), call()] {
            check(&mut alice, &message.told("logLevel", level), (200, -32602));
        }
    }
    for token in ["null", "1.5", "true", "{}", "[1]"] {
        check(&mut alice, &call().meta(&format!(r#""progressToken":{token}"#)), (200, -32602));
    }
    for inputs in ["null", "7", "[]", r#"{"a":7}"#, r#"{"a":{},"b":null}"#, "\"\""] {
        check(&mut alice, &call().param(&format!(r#""inputResponses":{inputs}"#)), (200, -32602));
    }
    for cursor in ["\"\"", "\"after:1\"", "7", "{}"] {
        check(&mut alice, &Message::modern("tools/list").param(&format!(r#""cursor":{cursor}"#)), (200, -32602));
    }
    for name in ["", r#""name":7,"#, r#""name":null,"#] {
        let text = call().body().replace(r#""name":"echo","#, name);
        check(&mut alice, &call().text(&text), (200, -32602));
    }
    assert_eq!(calls(&fixture).len(), 0);
}

#[test]
fn unknown_and_forbidden_tools_read_the_same() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let call = Message::call(MODERN, "echo", "{}");
    let answer = check(&mut harness.client(BOB), &call, (200, -32602));
    assert_eq!(answer.json()["error"]["message"], "unknown tool: `echo`");
    let answer = check(&mut harness.client(ALICE), &Message::call(MODERN, "nothing", "{}"), (200, -32602));
    assert_eq!(answer.json()["error"]["message"], "unknown tool: `nothing`");
}

#[test]
fn discover_tells_what_the_gateway_is_whatever_its_servers_do() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    wait_until("the server's instructions", || {
        alice.ask(&Message::modern("server/discover")).json()["result"].get("instructions").is_some()
    });
    let result = |instructions: &str| {
        let identity = identity();
        let hints = format!(r#""resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{{{identity}}}"#);
        let lists = r#""tools":{"listChanged":true},"prompts":{"listChanged":true}"#;
        let resources = r#""resources":{"subscribe":true,"listChanged":true}"#;
        let extensions = format!(r#""extensions":{{"{KEY}tasks":{{}}}}"#);
        let can = format!(r#"{{{lists},{resources},"logging":{{}},"completions":{{}},{extensions}}}"#);
        let can = format!(r#""supportedVersions":["2026-07-28"],"capabilities":{can}"#);
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{{hints},{can}{instructions}}}}}"#)
    };
    let asked = Message::modern("server/discover").told("clientInfo", r#"{"name":"c","version":"1"}"#);
    let answer = check(&mut alice, &asked, (200, 0));
    assert_eq!(answer.body, result(r#","instructions":"A server for tests.""#));
    assert_eq!(check(&mut harness.client(BOB), &asked, (200, 0)).body, result(""));

    let down =
        format!("{}[mcp_servers.down]\nurl = \"http://{}\"\nfrom_client = \"alice\"\n", clients(), closed_port());
    let harness = Harness::start(&down);
    assert_eq!(check(&mut harness.client(ALICE), &asked, (200, 0)).body, result(""));
}

#[test]
fn ids_of_every_kind_come_back_as_they_were_written() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    for id in ["0", "-7", "1764028800123", "123456789012345678901234567890", "\"\"", "\"7\"", "\"\\u00e9\""] {
        for message in [
            Message::modern("server/discover"),
            Message::modern("tools/list"),
            Message::modern("unknown"),
            Message::call(MODERN, "echo", "{}"),
            Message::call(MODERN, "test_missing_capability", "{}"),
        ] {
            let body = alice.ask(&message.id(id)).body;
            assert!(body.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"#)), "{id}: {body}");
        }
    }
}

fn sentinel(text: &str) -> String {
    format!("=?base64?{}?=", STANDARD.encode(text))
}

const NAMES: [&str; 5] = ["näme", " x ", "=?base64?bm8=?=", "=?base64?x", "a b"];

#[test]
fn the_name_header_is_compared_as_the_text_that_it_stands_for() {
    let tools = NAMES.into_iter().chain(["echo"]).map(str::to_owned).collect();
    let fixture = Fixture::start(Options { tools: Some(tools), ..Options::of(Mode::Modern) });
    let harness = Harness::start(&owned_by_alice(&[("fixture", &fixture)]));
    let mut alice = harness.client(ALICE);
    let mut accepted = 0;
    for (tool, header, fine) in [
        ("echo", "echo", true),
        ("echo", " \techo\t ", true),
        ("echo", &sentinel("echo"), true),
        ("echo", "ECHO", false),
        ("echo", "", false),
        ("echo", "=?BASE64?ZWNobw==?=", false),
        ("echo", "=?base64?ZWNobw==", false),
        ("echo", "=?base64?ZWNobw?=", false),
        ("echo", "=?base64?ZWNo!bw==?=", false),
        ("näme", &sentinel("näme"), true),
        ("näme", "näme", false),
        ("näme", &sentinel("name"), false),
        (" x ", &sentinel(" x "), true),
        (" x ", " x ", false),
        ("=?base64?bm8=?=", &sentinel("=?base64?bm8=?="), true),
        ("=?base64?bm8=?=", "=?base64?bm8=?=", false),
        ("=?base64?x", "=?base64?x", true),
        ("a b", "a b", true),
    ] {
        let message = Message::call(MODERN, tool, &format!("{{\"n\":{accepted}}}")).header("Mcp-Name", header);
        check(&mut alice, &message, if fine { (200, 0) } else { (400, -32020) });
        accepted += usize::from(fine);
    }
    let call = || Message::call(MODERN, "echo", "{}");
    check(&mut alice, &call().another("Mcp-Name", "echo"), (400, -32020));
    check(&mut alice, &call().without("Mcp-Name"), (400, -32020));
    check(&mut alice, &call().without("Mcp-Name").header("MCP-NAME", "echo"), (200, 0));
    assert_eq!((calls(&fixture).len(), fixture.counts().most_repeated()), (accepted + 1, 1));
}

/// A tool with annotations of every type.
const ANNOTATED: &str = r#"{"name":"annotated","inputSchema":{"type":"object","properties":{
    "text":{"type":"string","x-mcp-header":"Text"},"number":{"x-mcp-header":"Number","type":"integer"},
    "flag":{"type":"boolean","x-mcp-header":"Flag"},"x-mcp-header":{"type":"string"},
    "inner":{"type":"object","properties":{"deep":{"type":"string","x-mcp-header":"Deep"}}}}}}"#;

fn annotated(server: Mode) -> (Fixture, Harness) {
    let fixture = Fixture::start(Options { tools: Some(vec!["echo".to_owned()]), ..Options::of(server) });
    assert!(fixture.put(ListKind::Tools, ANNOTATED));
    let harness = Harness::start(&owned_by_alice(&[("fixture", &fixture)]));
    (fixture, harness)
}

/// A call of that tool with headers that mirror its arguments.
fn mirrored(arguments: &str, headers: &[(&str, &str)]) -> Message {
    headers.iter().fold(Message::call(MODERN, "annotated", arguments), |message, (name, value)| {
        message.another(&format!("Mcp-Param-{name}"), value)
    })
}

/// Arguments, the headers that mirror them, and whether the two agree.
type Mirroring<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

/// Calls whose headers agree with their arguments reach the server, and no others.
#[track_caller]
fn agree(rows: &[Mirroring<'_>]) {
    let (fixture, harness) = annotated(Mode::Modern);
    let mut alice = harness.client(ALICE);
    for (arguments, headers, fine) in rows {
        check(&mut alice, &mirrored(arguments, headers), if *fine { (200, 0) } else { (400, -32020) });
    }
    assert_eq!(calls(&fixture).len(), rows.iter().filter(|(.., fine)| *fine).count());
}

#[test]
fn texts_and_their_headers_must_agree() {
    let (x, u) = (sentinel("x"), sentinel("ü"));
    agree(&[
        ("{}", &[], true),
        (r#"{"text":"x"}"#, &[("Text", "x")], true),
        (r#"{"text":"x"}"#, &[("tEXT", "\t x ")], true),
        (r#"{"text":"x","n":1}"#, &[("Text", &x)], true),
        (r#"{"text":"x"}"#, &[], false),
        (r#"{"text":"x"}"#, &[("Text", "X")], false),
        (r#"{"text":"x"}"#, &[("Text", "x"), ("Text", "x")], false),
        ("{}", &[("Text", "x")], false),
        ("{}", &[("Text", "")], false),
        (r#"{"text":null}"#, &[], true),
        (r#"{"text":null}"#, &[("Text", "")], false),
        (r#"{"text":null}"#, &[("Text", "null")], false),
        (r#"{"text":""}"#, &[("Text", "")], true),
        (r#"{"text":""}"#, &[], false),
        (r#"{"text":"ü"}"#, &[("Text", &u)], true),
        (r#"{"text":"\u00fc"}"#, &[("Text", &u)], true),
        (r#"{"text":"ü"}"#, &[("Text", "ü")], false),
        (r#"{"text":"Hello"}"#, &[("Text", "=?base64?SGVsbG8?=")], false),
        (r#"{"text":"Hello"}"#, &[("Text", "=?base64?SGVs!!!bG8=?=")], false),
        (r#"{"text":"SGVsbG8=?="}"#, &[("Text", "SGVsbG8=?=")], true),
    ]);
}

#[test]
fn numbers_booleans_and_nested_arguments_must_agree_with_their_headers_too() {
    agree(&[
        (r#"{"number":42}"#, &[("Number", "42")], true),
        (r#"{"number":42}"#, &[("Number", "42.0")], true),
        (r#"{"number":42.0}"#, &[("Number", "42")], true),
        (r#"{"number":1e2}"#, &[("Number", "100")], true),
        (r#"{"number":-0}"#, &[("Number", "0")], true),
        (r#"{"number":42}"#, &[("Number", "43")], false),
        (r#"{"number":42}"#, &[("Number", "")], false),
        (r#"{"number":42}"#, &[("Number", "0x2a")], false),
        (r#"{"number":42}"#, &[], false),
        (r#"{"number":9007199254740991}"#, &[("Number", "9007199254740991")], true),
        (r#"{"number":9007199254740993}"#, &[("Number", "9007199254740993")], false),
        (r#"{"flag":true}"#, &[("Flag", "true")], true),
        (r#"{"flag":false}"#, &[("Flag", "false")], true),
        (r#"{"flag":true}"#, &[("Flag", "True")], false),
        (r#"{"flag":false}"#, &[], false),
        (r#"{"inner":{"deep":"x"}}"#, &[("Deep", "x")], true),
        (r#"{"inner":{"deep":"x"}}"#, &[], false),
        (r#"{"inner":{},"deep":"x"}"#, &[], true),
        (r#"{"x-mcp-header":"x"}"#, &[], true),
        (r#"{"other":"x"}"#, &[("Other", "something else")], true),
    ]);
}

#[test]
fn what_a_server_gets_mirrored_is_made_of_the_body() {
    let (fixture, harness) = annotated(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let arguments = r#"{"text":"\u00fc","number":42.0,"flag":true,"inner":{"deep":" a"}}"#;
    let (text, deep) = (sentinel("ü"), sentinel(" a"));
    let headers = [("TEXT", text.as_str()), ("Number", "4.2e1"), ("Flag", " true"), ("Deep", &deep)];
    let unknown = [("Unknown", " a  b "), ("Two", "1"), ("Two", "2")];
    check(&mut alice, &mirrored(arguments, &[&headers[..], &unknown[..]].concat()), (200, 0));
    let call = calls(&fixture).pop().unwrap();
    let sent: Vec<_> = call.headers.iter().filter(|(name, _)| name.starts_with("mcp-")).collect();
    let pairs = [
        ("mcp-method", "tools/call"),
        ("mcp-name", "annotated"),
        ("mcp-param-deep", &deep),
        ("mcp-param-flag", "true"),
        ("mcp-param-number", "42"),
        ("mcp-param-text", &text),
        ("mcp-param-two", "1"),
        ("mcp-param-two", "2"),
        ("mcp-param-unknown", "a  b"),
        ("mcp-protocol-version", MODERN),
    ];
    assert_eq!(sent, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).iter().collect::<Vec<_>>());
}

#[test]
fn a_legacy_client_mirrors_nothing_and_the_gateway_does_it_for_it() {
    let (fixture, harness) = annotated(Mode::Modern);
    let mut alice = harness.client(ALICE).speaking("2025-06-18");
    let call =
        |arguments: &str| Message::call("2025-06-18", "annotated", arguments).header("Mcp-Param-Text", "ignored");
    check(&mut alice, &call(r#"{"text":"x","number":-7}"#), (200, 0));
    let sent = calls(&fixture).pop().unwrap();
    assert_eq!((sent.header("mcp-param-text"), sent.header("mcp-param-number")), (Some("x"), Some("-7")));
    let answer = check(&mut alice, &call(r#"{"number":9007199254740993}"#), (200, -32602));
    assert!(answer.body.contains("mcp-param-number"), "{answer:?}");
    assert_eq!(calls(&fixture).len(), 1);
}

#[test]
fn a_legacy_server_gets_no_modern_header_and_its_tools_ask_for_none() {
    let (fixture, harness) = annotated(Mode::LegacySessions);
    let mut alice = harness.client(ALICE);
    let list = alice.ask(&Message::modern("tools/list"));
    let annotations = list.body.matches(r#""x-mcp-header""#).count();
    assert_eq!(annotations, 1, "only the property of that name is left: {}", list.body);
    check(&mut alice, &mirrored(r#"{"text":"x"}"#, &[]), (200, 0));
    check(&mut alice, &mirrored(r#"{"text":"x","n":1}"#, &[("Text", "not compared"), ("Other", "y")]), (200, 0));
    for call in calls(&fixture) {
        let odd = call.headers.iter().find(|(name, _)| {
            name.starts_with("mcp-") && !["mcp-session-id", "mcp-protocol-version"].contains(&name.as_str())
        });
        assert_eq!((odd, call.header("mcp-protocol-version")), (None, Some("2025-11-25")));
        assert!(!call.body.contains(KEY), "{call:?}");
    }
}

#[test]
fn a_tool_with_a_wrong_annotation_is_hidden_and_the_log_says_why() {
    let wrong =
        r#"{"name":"wrong","inputSchema":{"type":"object","properties":{"a":{"type":"number","x-mcp-header":"A"}}}}"#;
    for (server, expected) in [(Mode::Modern, &["echo"][..]), (Mode::LegacyStateless, &["echo", "wrong"])] {
        let fixture = Fixture::start(Options { tools: Some(vec!["echo".to_owned()]), ..Options::of(server) });
        assert!(fixture.put(ListKind::Tools, wrong));
        let harness = Harness::start(&owned_by_alice(&[("fixture", &fixture)]));
        let mut alice = harness.client(ALICE);
        assert_eq!(alice.tools(), expected);
        let hidden = server == Mode::Modern;
        let call = Message::call(MODERN, "wrong", r#"{"a":1}"#);
        check(&mut alice, &call, if hidden { (200, -32602) } else { (200, 0) });
        let line = r#"left out of a list server=fixture what="tool `wrong`: `x-mcp-header` on a property whose type"#;
        assert_eq!(harness.log().contains(line), hidden, "{}", harness.log());
    }
}

#[test]
fn there_is_nothing_to_get_or_delete() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    alice.version = Some(MODERN.to_owned());
    for method in ["GET", "DELETE", "PUT"] {
        let head = alice.request_head(method, 0);
        alice.connection.send(head);
        let answer = alice.connection.answer();
        assert_eq!(answer.status(), 405, "{method}");
        assert!(answer.head.header("allow").is_some_and(|allowed| allowed.contains("POST")), "{answer:?}");
    }
}

#[test]
fn notifications_are_accepted_and_do_nothing() {
    let (fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    alice.send_message(&Message::call(MODERN, "slow", r#"{"ms":300}"#));
    wait_until("the call runs", || fixture.counts().executions_of("slow") == 1);
    let mut other = alice.another();
    let notification = |method: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":1}}}}"#);
        Message::modern(method).text(&text)
    };
    for method in ["notifications/cancelled", "notifications/progress", "notifications/unknown"] {
        let answer = other.ask(&notification(method).without("Mcp-Method"));
        assert_eq!((answer.status(), answer.body.as_str()), (202, ""), "{method}");
    }
    let meta = format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"_meta":{{"{KEY}protocolVersion":"v9"}}}}}}"#);
    for message in [
        notification("x").header("MCP-Protocol-Version", "v9"),
        notification("x").text(&meta).without("MCP-Protocol-Version"),
    ] {
        let answer = other.ask(&message);
        assert_eq!((told(&answer), answer.json().get("id")), ((400, -32022), None));
    }
    assert_eq!(told(&alice.connection.answer()), (200, 0), "an id is no reason to end another request");
    assert_eq!(fixture.counts().cancellations, 0);
}

#[test]
fn a_modern_client_that_leaves_has_cancelled_its_call_and_a_legacy_one_has_not() {
    let servers = [Mode::Modern, Mode::LegacyStateless, Mode::LegacySessions];
    let rows = servers.into_iter().flat_map(|server| [MODERN, "2025-11-25"].map(|revision| (server, revision)));
    side_by_side(rows, |(server, revision)| {
        leave(server, revision, r#"{"ms":400}"#);
        leave(server, revision, r#"{"ms":400,"steps":100}"#);
    });
}

/// A client leaves while its only call runs, which with `steps` has begun to answer.
fn leave(server: Mode, revision: &str, arguments: &str) {
    let fixture = Fixture::start(Options::of(server));
    let config = owned_by_alice(&[("fixture", &fixture)]);
    let harness = Harness::start(&format!("{config}\n[gateway]\nmax_calls_per_client = 1\n"));
    let mut alice = harness.client(ALICE).speaking(revision);
    alice.send_message(&Message::call(revision, "slow", arguments).meta(r#""progressToken":1"#));
    wait_until("the call runs", || fixture.counts().executions_of("slow") == 1);
    if arguments.contains("steps") {
        assert!(alice.connection.head().is_stream());
        assert!(alice.connection.event().is_some());
    }
    drop(alice);
    let mut again = harness.client(ALICE).speaking(revision);
    wait_until("the call is over", || told(&again.ask(&Message::call(revision, "test_simple_text", "{}"))) == (200, 0));
    let cancelled = u64::from(revision == MODERN);
    wait_until("the server knows", || fixture.counts().cancellations == cancelled);
    let counts = fixture.counts();
    let told = if server == Mode::Modern { 0 } else { cancelled };
    // It may have been told twice: the first time may have come before the call.
    assert_eq!((counts.requests_of("notifications/cancelled").min(1), counts.most_repeated()), (told, 1));
}

#[test]
fn an_error_that_comes_first_keeps_its_status() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE);
    let answer = check(&mut alice, &Message::call(MODERN, "test_missing_capability", "{}"), (400, -32021));
    assert_eq!(answer.json()["error"]["data"], json!({ "requiredCapabilities": { "sampling": {} } }));
    for (code, expected) in [
        (-32602, (200, -32602)),
        (-32603, (200, -32603)),
        (-32601, (200, -32602)),
        (-32000, (200, -32603)),
        (-32020, (200, -32603)),
        (-32022, (200, -32603)),
        (-1, (200, -1)),
        (7, (200, 7)),
    ] {
        let arguments = format!(r#"{{"code":{code},"message":"m","data":{{"a":1.0}}}}"#);
        check(&mut alice, &Message::call(MODERN, "rpc_error", &arguments), expected);
    }
}

#[test]
fn what_servers_say_in_the_place_of_meta_and_type_does_not_reach_modern_clients() {
    for server in [Mode::LegacyStateless, Mode::Modern] {
        let (_fixture, harness) = gateway(server);
        let mut alice = harness.client(ALICE);
        for result in [r#"{"_meta":null}"#, r#"{"_meta":[7]}"#, r#"{"_meta":{"x":1}}"#] {
            let call = Message::call(MODERN, "echo_result", &format!(r#"{{"result":{result}}}"#));
            let answer = check(&mut alice, &call, (200, 0));
            assert_eq!(answer.body.matches("\"_meta\"").count(), 1, "{answer:?}");
            let found = &answer.json()["result"];
            assert_eq!(found["_meta"][format!("{KEY}serverInfo")]["name"], "mcp-x", "{answer:?}");
            assert_eq!(found["resultType"], "complete", "{answer:?}");
        }
    }
    let (_fixture, harness) = gateway(Mode::LegacySessions);
    let call = Message::call(MODERN, "echo_result", r#"{"result":{"resultType":"input_required","content":[]}}"#);
    assert_eq!(check(&mut harness.client(ALICE), &call, (200, 0)).json()["result"]["resultType"], "complete");
}

#[test]
fn overload_is_an_error_with_status_200_and_stops_neither_discovery_nor_lists() {
    let fixture = Fixture::start(Options::of(Mode::Modern));
    let config = owned_by_alice(&[("fixture", &fixture)]);
    let harness = Harness::start(&format!("{config}\n[gateway]\nmax_calls_per_client = 1\n"));
    let (mut first, mut second) = (harness.client(ALICE), harness.client(ALICE));
    first.send_message(&Message::call(MODERN, "slow", r#"{"ms":600000}"#));
    wait_until("the call runs", || fixture.counts().executions_of("slow") == 1);
    let answer = check(&mut second, &Message::call(MODERN, "echo", "{}"), (200, -32603));
    assert!(answer.body.contains("overloaded"), "{answer:?}");
    check(&mut second, &Message::modern("server/discover"), (200, 0));
    check(&mut second, &Message::modern("tools/list"), (200, 0));
    assert_eq!(fixture.counts().executions_of("echo"), 0);
}

#[test]
fn a_legacy_client_of_a_modern_server_gets_nothing_modern() {
    let (_fixture, harness) = gateway(Mode::Modern);
    let mut alice = harness.client(ALICE).speaking("2025-11-25");
    let modern = ["resultType", "ttlMs", "cacheScope", KEY];
    for message in [
        Message::of("2025-11-25", "ping"),
        Message::of("2025-11-25", "tools/list"),
        Message::of("2025-11-25", "initialize").text(&initialize_message("2025-11-25")),
        Message::of("2025-11-25", "logging/setLevel").param(r#""level":"debug""#),
        Message::call("2025-11-25", "test_simple_text", "{}"),
        Message::call("2025-11-25", "test_tool_with_progress", "{}").meta(r#""progressToken":1"#),
        Message::call("2025-11-25", "test_missing_capability", "{}"),
    ] {
        let answer = alice.ask(&message);
        assert_eq!(answer.status(), 200);
        assert!(modern.iter().all(|key| !answer.body.contains(key)), "{answer:?}");
    }
    let failed = alice.ask(&Message::call("2025-11-25", "test_missing_capability", r#"{"n":1}"#)).json();
    assert_eq!(failed["result"]["isError"], true);
}
