//! Several messages in one body, as revision 2025-03-26 has them and no other. Protocol.md 1.1, 2.2, 2.4 (L1).

use mcp_x_fixture::{Fixture, Mode, Options};
use serde_json::{Value, json};

use super::support::client::{Client, initialize_message};
use super::support::message::{KEY, MODERN, Message};
use super::support::{ALICE, Harness, call_message, owned_by_alice};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const NOTE: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

struct World {
    fixture: Fixture,
    harness: Harness,
}

impl World {
    fn start() -> Self {
        let fixture = Fixture::start(Options::of(Mode::Modern));
        let harness = Harness::start(&owned_by_alice(&[("fixture", &fixture)]));
        Self { fixture, harness }
    }

    fn client(&self) -> Client {
        self.harness.client(ALICE).speaking("2025-03-26")
    }

    /// These messages are refused as a whole, and none of them is served.
    #[track_caller]
    fn refused(&self, client: &mut Client, messages: &[&str]) {
        let answer = client.post(batch(messages));
        assert_eq!((answer.status(), answer.code()), (400, -32600), "{messages:?}");
        assert_eq!(answer.json().get("id"), None);
        assert_eq!(self.fixture.counts().requests_of("tools/call"), 0, "{messages:?}");
    }
}

fn batch(messages: &[&str]) -> String {
    format!(" [ {} ]\n", messages.join(" , "))
}

#[test]
fn each_request_of_a_batch_is_answered_and_nothing_else() {
    let world = World::start();
    let unknown = r#"{"jsonrpc":"2.0","id":"u","method":"unknown"}"#;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let response = r#"{"jsonrpc":"2.0","id":9,"result":{}}"#;
    for mut client in [world.client(), world.harness.client(ALICE)] {
        client.version = None;
        let answer = client.post(batch(&[PING, NOTE, unknown, response, list]));
        assert_eq!((answer.status(), answer.head.header("content-type")), (200, Some("application/json")));
        let responses = answer.json();
        let responses = responses.as_array().unwrap();
        assert_eq!(responses[0], json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
        assert_eq!((&responses[1]["id"], &responses[1]["error"]["code"]), (&json!("u"), &json!(-32601)));
        assert_eq!(responses[2]["result"]["tools"][0]["name"], "test_simple_text");
        assert_eq!(responses.len(), 3);
        assert_eq!(client.post(batch(&[PING])).json(), json!([{ "jsonrpc": "2.0", "id": 1, "result": {} }]));
    }
}

#[test]
fn a_batch_without_a_request_is_accepted() {
    let world = World::start();
    let response = r#"{"jsonrpc":"2.0","id":9,"result":{}}"#;
    for messages in [&[NOTE][..], &[NOTE, NOTE], &[response], &[NOTE, response]] {
        let answer = world.client().post(batch(messages));
        assert_eq!((answer.status(), answer.body.as_str()), (202, ""), "{messages:?}");
    }
}

#[test]
fn a_batch_with_a_message_that_does_not_belong_there_is_refused_as_a_whole() {
    let world = World::start();
    let mut client = world.client();
    let call = call_message("2", "echo", "{}");
    let modern = Message::call(MODERN, "echo", "{}").body();
    let half = format!(
        r#"{{"jsonrpc":"2.0","id":3,"method":"ping","params":{{"_meta":{{"{KEY}clientCapabilities":{{}}}}}}}}"#
    );
    let discover = r#"{"jsonrpc":"2.0","id":3,"method":"server/discover"}"#;
    for odd in
        [&initialize_message("2025-03-26"), modern.as_str(), &half, discover, "7", "null", "[]", PING_TWICE, "{}"]
    {
        world.refused(&mut client, &[&call, odd]);
        world.refused(&mut client, &[odd, &call]);
    }
    world.refused(&mut client, &[]);
    world.refused(&mut client, &[call.as_str(); 51]);
    assert_eq!(client.post(batch(&[PING; 50])).json().as_array().map(Vec::len), Some(50));
}

/// A batch in a batch.
const PING_TWICE: &str = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":1,"method":"ping"}]"#;

#[test]
fn a_batch_that_is_no_json_is_a_parse_error() {
    let world = World::start();
    for text in ["[", "[{]", r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},]"#, "[] []"] {
        let answer = world.client().post(text);
        assert_eq!((answer.status(), answer.code()), (400, -32700), "{text}");
    }
}

#[test]
fn other_revisions_have_no_batches() {
    let world = World::start();
    let call = call_message("2", "echo", "{}");
    for revision in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        world.refused(&mut world.harness.client(ALICE).speaking(revision), &[&call]);
    }
    for version in ["2025-06-18", MODERN, "v999"] {
        let mut client = world.harness.client(ALICE);
        client.version = Some(version.to_owned());
        world.refused(&mut client, &[&call]);
    }
    let mut client = world.client();
    client.session = Some("unknown".to_owned());
    assert_eq!(client.post(batch(&[PING])).status(), 404);
}

#[test]
fn calls_of_a_batch_run_side_by_side_and_are_answered_on_one_stream() {
    let world = World::start();
    let slow = |id: &str, ms: u32| {
        let arguments = format!(r#"{{"ms":{ms},"steps":2}}"#);
        Message::call("2025-03-26", "slow", &arguments).meta(&format!(r#""progressToken":{id}"#)).id(id).body()
    };
    let unknown = call_message("4", "nothing", "{}");
    let answer = world.client().post(batch(&[&slow("2", 250), PING, &slow("\"3\"", 150), NOTE, &unknown]));
    assert!(answer.head.is_stream());
    let events = answer.messages();
    let ids: Vec<&Value> = events.iter().filter_map(|event| event.get("id")).collect();
    assert_eq!(ids, [&json!(1), &json!(4), &json!("3"), &json!(2)], "the quicker one first, and each once");
    for id in [json!(2), json!("3")] {
        let of = |event: &&Value| event["params"]["progressToken"] == id || event.get("id") == Some(&id);
        let steps: Vec<Value> = events.iter().filter(of).map(|event| event["params"]["progress"].clone()).collect();
        assert_eq!(steps, [json!(1), json!(2), Value::Null], "its own progress, then the response: {id}");
    }
    assert_eq!(events.len(), 8);
    assert_eq!(world.fixture.counts().most_repeated(), 1);
}
