//! What a body that is not quite a request gets: exact statuses, codes and ids. Protocol.md 2.1 C9 and C10, 2.2, 2.4.

use serde_json::Value;

use super::support::client::{Client, initialize_message};
use super::support::upstream::Plan;
use super::support::{ALICE, Harness, clients, owned_by_alice};

/// Sends a body; the answer has this status, code and id (`None`: no member `id`).
#[track_caller]
fn check(client: &mut Client, body: impl AsRef<[u8]>, status: u16, code: i64, id: Option<&str>) {
    let shown = String::from_utf8_lossy(body.as_ref()).into_owned();
    let answer = client.post(body);
    assert_eq!((answer.status(), answer.code()), (status, code), "{shown}: {answer:?}");
    let expected = id.map(|id| serde_json::from_str(id).unwrap());
    let json = answer.json();
    assert_eq!(json.get("id").cloned(), expected, "{shown}: {answer:?}");
    assert_eq!(json["jsonrpc"], "2.0");
    let text = json["error"]["message"].as_str().unwrap();
    assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
}

#[test]
fn what_is_no_json_is_a_parse_error_without_an_id() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{}{}}}}}"#,
        "[".repeat(127),
        "]".repeat(127)
    );
    for body in [
        "",
        " ",
        "garbage",
        "{",
        r#"{"jsonrpc":"2.0","id":1,"method":"ping""#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{}"#,
        r#"{'jsonrpc':'2.0','id':1,'method':'ping'}"#,
        r#"{"jsonrpc":"2.0","id":01,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}"#,
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}",
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\u0061me":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{},"_meta":{}}}"#,
        &deep,
    ] {
        check(&mut alice, body, 400, -32700, None);
    }
    check(&mut alice, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", 400, -32700, None);
    check(&mut alice, b"\x1f\x8b\x08\0", 400, -32700, None);
}

#[test]
fn nesting_within_the_limit_is_read() {
    let harness = Harness::start(&clients());
    let nested = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{nested}}}}}"#);
    assert_eq!(harness.client(ALICE).post(body).status(), 200);
}

#[test]
fn json_that_is_no_object_is_an_invalid_request_without_an_id() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    for body in ["7", "null", "true", "\"ping\"", "[]", r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#] {
        check(&mut alice, body, 400, -32600, None);
    }
}

#[test]
fn an_object_that_is_no_message_is_an_invalid_request() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    for (body, id) in [
        ("{}", None),
        (r#"{"id":1,"method":"ping"}"#, Some("1")),
        (r#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#, Some(r#""a""#)),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1e3,"method":"ping"}"#, None),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, None),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, None),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, None),
    ] {
        check(&mut alice, body, 400, -32600, id);
    }
}

#[test]
fn a_version_that_nobody_speaks_makes_a_request_modern() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    for version in ["2026-07-28", "2025-11-26", "1", "latest"] {
        alice.version = Some(version.to_owned());
        check(&mut alice, r#"{"jsonrpc":"2.0","id":5,"method":"tools/list"}"#, 400, -32602, Some("5"));
    }
    check(&mut alice, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, 400, -32022, None);
    alice.version = Some("2026-07-28".to_owned());
    assert_eq!(alice.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).status(), 202);
}

#[test]
fn an_unknown_method_is_a_json_rpc_error_with_status_200() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    for method in ["nonsense", "", "prompts/lists", "resources/List", "Tools/List", "tools/list ", "tasks/list"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":"u","method":"{method}"}}"#);
        check(&mut alice, body, 200, -32601, Some(r#""u""#));
    }
}

#[test]
fn bad_params_are_a_json_rpc_error_with_status_200() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    for params in [
        r#""params":[]"#,
        r#""params":[{"name":"echo"}]"#,
        r#""params":null"#,
        r#""params":"echo""#,
        r#""params":{}"#,
        r#""params":{"name":7}"#,
        r#""params":{"name":null}"#,
        r#""params":{"name":["echo"]}"#,
        r#""params":{"name":"\ud800"}"#,
        r#""params":{"name":""}"#,
        r#""params":{"Name":"echo"}"#,
        r#""x":1"#,
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call",{params}}}"#);
        check(&mut alice, body, 200, -32602, Some("1"));
    }
    assert_eq!(upstream.calls().len(), 0);
}

#[test]
fn a_cursor_that_was_never_given_out_is_refused() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    for cursor in [r#""""#, r#""2""#, "7", "{}"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"cursor":{cursor}}}}}"#);
        check(&mut alice, body, 200, -32602, Some("1"));
    }
    for params in ["{}", r#"{"_meta":{}}"#, r#"{"unknown":1}"#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{params}}}"#);
        assert!(alice.post(body).json().get("result").is_some(), "{params}");
    }
}

#[test]
fn a_very_long_name_is_not_echoed_whole() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    let name = "é".repeat(100_000);
    for method in ["tools/call", name.as_str()] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"{name}"}}}}"#);
        assert!(alice.post(body).body.len() < 1000);
    }
}

#[test]
fn ping_is_answered_with_an_empty_object() {
    let harness = Harness::start(&clients());
    for params in ["", r#","params":{}"#, r#","params":{"_meta":{"progressToken":1}}"#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":"p","method":"ping"{params}}}"#);
        let answer = harness.client(ALICE).post(body);
        assert_eq!((answer.status(), answer.body.as_str()), (200, r#"{"jsonrpc":"2.0","id":"p","result":{}}"#));
    }
}

#[test]
fn notifications_are_accepted_without_a_body() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    for method in
        ["notifications/initialized", "notifications/cancelled", "notifications/made_up", "ping", "tools/call"]
    {
        let answer = alice.post(format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#));
        assert_eq!((answer.status(), answer.body.as_str()), (202, ""), "{method}");
    }
}

#[test]
fn a_response_needs_a_session() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    let responses = [
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"gw-1","error":{"code":-1,"message":"no"}}"#,
    ];
    for response in responses {
        check(&mut alice, response, 400, -32600, None);
    }
    alice.initialize("2025-06-18");
    for response in responses {
        let answer = alice.post(response);
        assert_eq!((answer.status(), answer.body.as_str()), (202, ""), "late answers are normal");
    }
}

#[test]
fn initialize_agrees_on_a_revision() {
    let harness = Harness::start(&clients());
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
        ("", "2025-11-25"),
        ("2025-11-25 ", "2025-11-25"),
    ] {
        // Neither a session nor a version header has a say in it.
        let mut alice = harness.client(ALICE);
        alice.session = Some("stale".to_owned());
        alice.version = Some("2026-07-28".to_owned());
        let answer = alice.post(initialize_message(asked));
        assert_eq!(answer.status(), 200, "{asked}");
        assert!(answer.head.header("mcp-session-id").is_some(), "{asked}");
        let result = &answer.json()["result"];
        assert_eq!(result["protocolVersion"], agreed, "{asked}");
        assert_eq!(result["serverInfo"]["name"], "mcp-x");
        assert!(result["capabilities"]["tools"].is_object());
        let keys: Vec<_> = result.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["capabilities", "protocolVersion", "serverInfo"], "nothing of the modern era");
    }
}

#[test]
fn initialize_with_wrong_params_opens_no_session() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    let whole: Value = serde_json::from_str(&initialize_message("2025-11-25")).unwrap();
    let without = |member: &str| {
        let mut message = whole.clone();
        message["params"].as_object_mut().unwrap().remove(member);
        message
    };
    let with = |member: &str, value: Value| {
        let mut message = whole.clone();
        message["params"][member] = value;
        message
    };
    let mut rows = vec![without("protocolVersion"), without("capabilities"), without("clientInfo")];
    rows.extend([with("protocolVersion", 7.into()), with("protocolVersion", Value::Null)]);
    rows.extend([with("capabilities", Value::Null), with("capabilities", Value::Array(Vec::new()))]);
    rows.extend([with("clientInfo", "test".into()), with("clientInfo", serde_json::json!({ "name": "x" }))]);
    rows.push(with("clientInfo", serde_json::json!({ "name": "x", "version": 1 })));
    rows.push(serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize" }));
    rows.push(serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": [] }));
    for row in rows {
        let answer = alice.post(row.to_string());
        assert_eq!((answer.status(), answer.code()), (200, -32602), "{row}: {answer:?}");
        assert_eq!(answer.json()["id"], 1);
        assert_eq!(answer.head.header("mcp-session-id"), None, "{row}");
    }
}

#[test]
fn one_connection_may_carry_everything_one_after_the_other() {
    let harness = Harness::start(&clients());
    let mut alice = harness.client(ALICE);
    for body in ["garbage", "[]", "{}", r#"{"jsonrpc":"2.0","id":1,"method":"nonsense"}"#] {
        alice.post(body);
        assert_eq!(alice.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status(), 200, "after {body}");
    }
}
