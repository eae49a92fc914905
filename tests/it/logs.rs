//! The log as programs read it: every line of `--log-format json` is one object without a name twice, whatever clients and
//! servers send; and every record of a request says the same things. Design 15; style.md, "Log".

use std::fmt;

use mcp_x::log::Format;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::support::upstream::Plan;
use super::support::{ALICE, Harness, call_message, clients, owned_by_alice, server, wait_until};

/// An object in which no name occurs twice.
struct Unique;

impl<'de> Visitor<'de> for Unique {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            assert!(map.insert(name.clone(), value).is_none(), "{name} occurs twice");
        }
        Ok(map)
    }
}

#[track_caller]
fn records(log: &str) -> Vec<Map<String, Value>> {
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log:?}");
    let read = |line: &str| {
        let mut reader = serde_json::Deserializer::from_str(line);
        let record = reader.deserialize_map(Unique).unwrap_or_else(|error| panic!("{error}: {line}"));
        reader.end().unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(record.values().all(|value| value.is_string() || value.is_number()), "{line}");
        let levels = ["ERROR", "WARN", "INFO", "DEBUG"];
        assert!(record["level"].as_str().is_some_and(|level| levels.contains(&level)), "{line}");
        assert!(
            record["time"].as_str().is_some_and(|time| time.ends_with('Z')) && record["event"].is_string(),
            "{line}"
        );
        record
    };
    log.lines().map(read).collect()
}

#[test]
fn every_line_is_an_object_whatever_is_in_it() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start_with(&owned_by_alice(&[("server_a", &upstream)]), Format::Json);
    let mut alice = harness.client(ALICE);
    for name in [
        r"\u0000\u001b[2J",
        r"\n2026 ERROR x",
        r#"\",\"level\":\"ERROR"#,
        r"\ud83d\ude00\u202e\u2028",
        r"\u007f\u0085\\",
    ] {
        assert_eq!(alice.post(call_message("1", name, "{}")).code(), -32602);
        assert_eq!(alice.post(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{name}"}}"#)).code(), -32601);
    }
    upstream.on_call(|exchange| exchange.error(-32000, "a\"\\\n\u{7}\u{1b}[0m"));
    assert_eq!(alice.post(call_message("1", "echo", "{}")).code(), -32603);
    upstream.on_call(|exchange| exchange.respond(500, "text/plain", "\u{0}\"}"));
    assert_eq!(alice.post(call_message("1", "echo", "{}")).code(), -32603);
    let mut connection = harness.connect();
    connection.send("GET /%00%22\"\\x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(connection.answer().status(), 404);
    let mut broken = harness.connect();
    broken.send("\u{1}\u{2}\"\\ nonsense\r\n\r\n");
    assert_eq!(broken.refusal().status(), 400);
    harness.replace_config("[clients.\"a\\u0007\\\"\"]\nx = 1\n");
    harness.wait_for_log("configuration refused");
    wait_until("thirteen requests", || {
        records(&harness.log()).iter().filter(|r| r["event"] == "request").count() == 13
    });
    let log = records(&harness.log());
    let denied = |record: &&Map<String, Value>| record["event"] == "denied";
    let tools: Vec<&str> = log.iter().filter(denied).map(|record| record["tool"].as_str().unwrap()).collect();
    assert_eq!(
        tools,
        ["\0\u{1b}[2J", "\n2026 ERROR x", "\",\"level\":\"ERROR", "😀\u{202e}\u{2028}", "\u{7f}\u{85}\\"]
    );
}

#[test]
fn the_record_of_a_call_says_who_called_what_where_and_how_it_ended() {
    let upstream = Plan::new("a").start();
    let config = clients() + &server("server_a", "alice", &upstream, "tool_prefix = \"a_\"");
    let harness = Harness::start_with(&config, Format::Json);
    let mut alice = harness.client(ALICE);
    let answer = alice.post(call_message("1", "a_echo", "{}"));
    let id = answer.head.header("x-request-id").unwrap().to_owned();
    assert_eq!(alice.post(call_message("2", "none", "{}")).code(), -32602);
    wait_until("two requests", || records(&harness.log()).iter().filter(|r| r["event"] == "request").count() == 2);
    let log = records(&harness.log());
    let requests: Vec<_> = log.iter().filter(|record| record["event"] == "request").collect();
    let text = |name: &str, expected: &str| assert_eq!(requests[0][name], expected, "{requests:?}");
    text("req", &id);
    text("client", "alice");
    text("method", "POST");
    text("path", "/mcp");
    text("rpc", "tools/call");
    text("tool", "a_echo");
    text("server", "server_a");
    assert_eq!((&requests[0]["status"], &requests[0]["bytes"]), (&Value::from(200), &Value::from(answer.body.len())));
    assert!(requests[0]["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{requests:?}");
    assert!(!requests[0].contains_key("code") && !requests[1].contains_key("server"), "{requests:?}");
    assert_eq!(requests[1]["code"], -32602);
}
