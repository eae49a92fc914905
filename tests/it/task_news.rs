//! What a modern client hears of its tasks on a stream of `subscriptions/listen`: who hears it, of which tasks, under which
//! id. Protocol.md 4.9; the extension `io.modelcontextprotocol/tasks`, "Task Status Notifications".

use mcp_x_fixture::Mode;
use serde_json::{Value, json};

use super::support::client::Client;
use super::support::http::Connection;
use super::support::message::{KEY, Message, identity};
use super::support::{ALICE, BOB, Harness, clients, server, wait_until};
use super::tasks::{SLOW, about, begin, bob_may, config, fixture, is_refused, knowing};

/// Listens for news of these tasks; the ids of those that are granted.
#[track_caller]
fn listen(client: &Client, ids: &[&str]) -> (Connection, Value) {
    let mut stream = client.another();
    let filter = json!({ "taskIds": ids, "toolsListChanged": true });
    stream
        .send_message(&knowing(Message::modern("subscriptions/listen").param(&format!(r#""notifications":{filter}"#))));
    let head = stream.connection.head();
    assert!(head.status == 200 && head.is_stream(), "{head:?}");
    let first = stream.connection.message();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["notifications"]["toolsListChanged"], true);
    (stream.connection, first["params"]["notifications"]["taskIds"].clone())
}

fn end() -> String {
    let meta = format!(r#"{{"{KEY}subscriptionId":1,{}}}"#, identity());
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete","_meta":{meta}}}}}"#)
}

/// The next thing to be heard is that a task has got so far.
#[track_caller]
fn hears(stream: &mut Connection, id: &str, status: &str) -> Value {
    let news = stream.message();
    let params = &news["params"];
    assert_eq!((&news["method"], news.get("id")), (&json!("notifications/tasks"), None), "{news}");
    assert_eq!((&params["taskId"], &params["status"]), (&json!(id), &json!(status)), "{news}");
    assert_eq!(params["_meta"], json!({ format!("{KEY}subscriptionId"): 1 }), "{news}");
    params.clone()
}

#[test]
fn a_client_hears_of_its_own_tasks_under_the_ids_that_it_knows() {
    let fixture = fixture(Mode::Modern);
    let harness = Harness::start(&config(&fixture, &bob_may("")));
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    let asking = begin(&mut alice, ("slow_compute", r#"{"seconds":600,"label":"a"}"#));
    let (short, his) = (begin(&mut alice, ("slow_compute", r#"{"seconds":2,"label":"b"}"#)), begin(&mut bob, SLOW));
    let mut ids = [asking.as_str(), short.as_str()];
    ids.sort_unstable();
    let (mut stream, granted) = listen(&alice, &[&short, "x", &his, &asking, &short]);
    assert_eq!(granted, json!(ids), "what is no task of hers is left out, and nothing is granted twice");
    let (mut other, granted) = listen(&bob, &[&his, &asking]);
    assert_eq!(granted, json!([his]));
    assert_eq!(alice.ask(&about("tasks/cancel", &asking)).status(), 200);
    hears(&mut stream, &asking, "cancelled");
    let completed = hears(&mut stream, &short, "completed");
    assert_eq!(completed["result"]["content"][0]["text"], "Computed b.");
    let mut got = alice.ask(&about("tasks/get", &short)).response()["result"].clone();
    let (got, mut told) = (got.as_object_mut().unwrap(), completed.as_object().unwrap().clone());
    for member in ["_meta", "resultType"] {
        got.remove(member);
        told.remove(member);
    }
    assert_eq!(*got, told, "it is what tasks/get says");
    // Bob has heard nothing of all that.
    assert_eq!(bob.ask(&about("tasks/cancel", &his)).status(), 200);
    hears(&mut other, &his, "cancelled");
}

#[test]
fn tasks_are_followed_as_long_as_somebody_listens() {
    let fixture = fixture(Mode::Modern);
    let harness = Harness::start(&config(&fixture, ""));
    let mut alice = harness.client(ALICE);
    let first = begin(&mut alice, SLOW);
    let are_open = |count: usize| wait_until("as many streams", || fixture.counts().streams == count);
    // That on which the gateway hears of lists.
    are_open(1);
    let (mut one, _) = listen(&alice, &[&first]);
    let second = begin(&mut alice, SLOW);
    let (mut two, granted) = listen(&alice, &[&first, &second]);
    assert_eq!(granted.as_array().map(Vec::len), Some(2));
    // One more does for both, once the one that it replaces is gone.
    are_open(2);
    for id in [&first, &second] {
        assert_eq!(alice.ask(&about("tasks/cancel", id)).status(), 200);
        hears(&mut two, id, "cancelled");
    }
    hears(&mut one, &first, "cancelled");
    drop((one, two));
    are_open(1);
}

#[test]
fn a_stream_ends_with_the_grant_of_the_tool_and_with_the_server() {
    let fixture = fixture(Mode::Modern);
    let harness = Harness::start(&config(&fixture, &bob_may("")));
    let mut bob = harness.client(BOB);
    let id = begin(&mut bob, SLOW);
    let moved = clients() + &server("fixture", "alice", &fixture, "timeout_seconds = 77") + &bob_may("");
    for without in [config(&fixture, &bob_may("deny = [\"slow_*\"]")), moved, config(&fixture, "")] {
        let (mut stream, granted) = listen(&bob, &[&id]);
        assert_eq!(granted, json!([id]));
        harness.replace_config(&without);
        let mut last = stream.event();
        while last.as_ref().is_some_and(|event| event.contains("notifications/tools/list_changed")) {
            last = stream.event();
        }
        assert_eq!(last.as_deref(), Some(end().as_str()));
        harness.replace_config(&config(&fixture, &bob_may("")));
        wait_until("the grant is back", || bob.ask(&about("tasks/get", &id)).response().get("result").is_some());
    }
}

#[test]
fn what_is_no_list_of_ids_is_refused() {
    let fixture = fixture(Mode::Modern);
    let harness = Harness::start(&config(&fixture, ""));
    let mut alice = harness.client(ALICE);
    let many = json!((0..1001).map(|n| n.to_string()).collect::<Vec<_>>()).to_string();
    let shape = "invalid params: expected `taskIds` to be a list of strings";
    let count = "invalid params: expected at most 1000 `taskIds`";
    for (ids, message) in [("\"x\"", shape), ("[7]", shape), ("{}", shape), (&many, count)] {
        let listen = Message::modern("subscriptions/listen").param(&format!(r#""notifications":{{"taskIds":{ids}}}"#));
        is_refused(&alice.ask(&knowing(listen)), 200, &json!({ "code": -32602, "message": message }));
    }
}
