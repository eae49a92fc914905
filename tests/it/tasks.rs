//! Tasks: whose they are, who may ask for them, and what servers may say of them. Protocol.md 4.9; the extension
//! `io.modelcontextprotocol/tasks`. That they work is in `matrix`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mcp_x_fixture::{Fixture, Mode, Options, Received};
use serde_json::{Value, json};

use super::support::client::Client;
use super::support::http::Answer;
use super::support::message::{KEY, MODERN, Message};
use super::support::upstream::{Exchange, Plan, Upstream};
use super::support::{ALICE, BOB, Harness, Located, clients, owned_by_alice, server, wait_until};

/// The client capabilities of whoever knows tasks.
const KNOWS: &str = r#"{"elicitation":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
const METHODS: [&str; 3] = ["tasks/get", "tasks/update", "tasks/cancel"];
pub(super) const SLOW: (&str, &str) = ("slow_compute", r#"{"seconds":600}"#);

pub(super) fn fixture(mode: Mode) -> Fixture {
    Fixture::start(Options::of(mode))
}

/// A server of alice's, and what of it is granted.
pub(super) fn config(upstream: &impl Located, grants: &str) -> String {
    clients() + &server("fixture", "alice", upstream, "") + grants
}

/// What lets bob call this.
pub(super) fn bob_may(patterns: &str) -> String {
    format!("[allow.fixture]\nbob = {{ tools = [\"*\"], {patterns} }}\n")
}

pub(super) fn knowing(message: Message) -> Message {
    message.told("clientCapabilities", KNOWS)
}

fn call((tool, arguments): (&str, &str)) -> Message {
    Message::call(MODERN, tool, arguments)
}

/// Has a task begun; its id.
#[track_caller]
pub(super) fn begin(client: &mut Client, tool: (&str, &str)) -> String {
    let answer = client.ask(&knowing(call(tool)));
    let result = answer.response()["result"].clone();
    assert_eq!((&result["resultType"], &result["status"]), (&json!("task"), &json!("working")), "{answer:?}");
    assert_eq!(result.get("requestState"), None);
    result["taskId"].as_str().unwrap().to_owned()
}

/// A request about a task that lacks nothing.
pub(super) fn about(method: &str, id: &str) -> Message {
    let message = Message::modern(method).header("Mcp-Name", id).param(&format!(r#""taskId":"{id}""#));
    knowing(if method == "tasks/update" { message.param(r#""inputResponses":{}"#) } else { message })
}

#[track_caller]
fn get(client: &mut Client, id: &str) -> Value {
    client.ask(&about("tasks/get", id)).response()
}

#[track_caller]
pub(super) fn is_refused(answer: &Answer, status: u16, error: &Value) {
    assert_eq!((answer.status(), &answer.response()["error"]), (status, error), "{answer:?}");
}

/// No request about the task of this id does anything but say that there is none.
#[track_caller]
fn is_unknown(client: &mut Client, id: &str) {
    for method in METHODS {
        is_refused(&client.ask(&about(method, id)), 200, &json!({ "code": -32602, "message": "unknown task" }));
    }
}

/// The error of what takes tasks and comes from a client that does not declare them.
fn missing() -> Value {
    let needed = json!({ "extensions": { format!("{KEY}tasks"): {} } });
    let message = format!("the request needs a capability that the client did not declare: {needed}");
    json!({ "code": -32021, "message": message, "data": { "requiredCapabilities": needed } })
}

/// The requests about tasks that reached a server.
fn reached(fixture: &Fixture) -> Vec<Received> {
    let is_about = |received: &Received| METHODS.iter().any(|m| received.body.contains(&format!(r#""method":"{m}""#)));
    fixture.received().into_iter().filter(is_about).collect()
}

#[test]
fn a_task_is_known_to_the_client_that_was_given_its_id_and_to_nobody_else() {
    let fixture = fixture(Mode::Modern);
    let mut harness = Harness::start(&config(&fixture, &bob_may("")));
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    let (hers, his) = (begin(&mut alice, SLOW), begin(&mut bob, SLOW));
    is_unknown(&mut bob, &hers);
    is_unknown(&mut alice, &his);
    let other = if hers.ends_with('A') { 'B' } else { 'A' };
    let mut cut = hers.clone();
    cut.pop();
    for tampered in [cut.clone(), format!("{cut}{other}"), format!("A{hers}"), "x".repeat(4096), "x".to_owned()] {
        is_unknown(&mut alice, &tampered);
    }
    assert!(reached(&fixture).is_empty(), "{:?}", reached(&fixture));
    assert_eq!(get(&mut alice, &hers)["result"]["taskId"], json!(hers));
    let sent = reached(&fixture).pop().unwrap();
    let own = serde_json::from_str::<Value>(&sent.body).unwrap()["params"]["taskId"].as_str().unwrap().to_owned();
    assert_eq!(sent.header("mcp-name"), Some(own.as_str()));
    is_unknown(&mut alice, &own);
    // Nothing about it is kept: it is the same after a restart.
    harness.restart();
    assert_eq!(get(&mut harness.client(ALICE), &hers)["result"]["status"], "working");
    let log = harness.log();
    assert!([&hers, &his, &own].iter().all(|id| !log.contains(id.as_str())), "an id is in the log:\n{log}");
    assert!(log.contains("rpc=tasks/get tool=slow_compute server=fixture eras=modern/modern"), "{log}");
}

#[test]
fn a_task_ends_for_the_client_with_the_grant_of_its_tool() {
    let fixture = fixture(Mode::Modern);
    let harness = Harness::start(&config(&fixture, &bob_may("")));
    let mut bob = harness.client(BOB);
    let id = begin(&mut bob, SLOW);
    let is_known = |bob: &mut Client| get(bob, &id).get("result").is_some();
    let nowhere = Upstream::located(&Plan::new("other").start());
    for without in [
        config(&fixture, &bob_may("deny = [\"slow_*\"]")),
        config(&fixture, "[allow.fixture]\nbob = [\"greet\"]\n"),
        config(&fixture, ""),
        clients() + &format!("[mcp_servers.other]\nurl = \"{nowhere}\"\nfrom_client = \"alice\"\n"),
    ] {
        assert!(is_known(&mut bob));
        harness.replace_config(&without);
        wait_until("the grant is gone", || !is_known(&mut bob));
        let before = reached(&fixture).len();
        is_unknown(&mut bob, &id);
        assert_eq!(reached(&fixture).len(), before, "{without}");
        harness.replace_config(&config(&fixture, &bob_may("")));
        wait_until("the grant is back", || is_known(&mut bob));
    }
}

#[test]
fn a_task_is_not_known_at_a_server_of_another_owner() {
    let (first, second) = (fixture(Mode::Modern), fixture(Mode::Modern));
    let harness = Harness::start(&config(&first, &bob_may("")));
    let mut bob = harness.client(BOB);
    let id = begin(&mut bob, SLOW);
    let taken = config(&second, &bob_may("")).replace("from_client = \"alice\"", "from_client = \"charlie\"");
    harness.replace_config(&taken);
    wait_until("somebody else has the name", || get(&mut bob, &id).get("result").is_none());
    is_unknown(&mut bob, &id);
    assert!(reached(&second).is_empty(), "it hears nothing of the task");
}

#[test]
fn a_tool_with_a_prefix_is_the_same_tool_for_its_tasks() {
    let fixture = fixture(Mode::Modern);
    let config = clients() + &server("fixture", "alice", &fixture, "tool_prefix = \"gh_\"");
    let harness = Harness::start(&config);
    let mut alice = harness.client(ALICE);
    let id = begin(&mut alice, ("gh_slow_compute", r#"{"seconds":600}"#));
    assert_eq!(get(&mut alice, &id)["result"]["status"], "working");
    assert!(harness.log().contains("rpc=tasks/get tool=gh_slow_compute"), "{}", harness.log());
}

#[test]
fn a_client_that_does_not_declare_tasks_has_none() {
    let fixture = fixture(Mode::Modern);
    let harness = Harness::start(&config(&fixture, ""));
    let mut alice = harness.client(ALICE);
    let id = begin(&mut alice, SLOW);
    let result = alice.ask(&call(("slow_compute", r#"{"seconds":0,"label":"it"}"#))).response()["result"].clone();
    assert_eq!((&result["resultType"], &result["content"][0]["text"]), (&json!("complete"), &json!("Computed it.")));
    let refused = alice.ask(&call(("failing_job", "{}")));
    let needed = json!({ "requiredCapabilities": { "extensions": { format!("{KEY}tasks"): {} } } });
    let error = refused.response()["error"].clone();
    assert_eq!((refused.status(), &error["code"], &error["data"]), (400, &json!(-32021), &needed));
    for method in METHODS {
        let undeclared = about(method, &id).told("clientCapabilities", r#"{"elicitation":{},"tasks":{}}"#);
        is_refused(&alice.ask(&undeclared), 400, &missing());
    }
    let listen = Message::modern("subscriptions/listen").param(r#""notifications":{"taskIds":["x"]}"#);
    is_refused(&alice.ask(&listen), 400, &missing());
    assert!(reached(&fixture).is_empty());
}

#[test]
fn there_are_no_other_methods_for_tasks_and_none_at_all_in_the_legacy_era() {
    let fixture = fixture(Mode::Modern);
    let harness = Harness::start(&config(&fixture, ""));
    let mut alice = harness.client(ALICE);
    let id = begin(&mut alice, SLOW);
    for method in ["tasks/list", "tasks/result"] {
        let message = format!("method not found: `{method}`");
        is_refused(&alice.ask(&about(method, &id)), 404, &json!({ "code": -32601, "message": message }));
    }
    for method in METHODS {
        let error = alice.response(method, &json!({ "taskId": id }))["error"].clone();
        assert_eq!(error, json!({ "code": -32601, "message": format!("method not found: `{method}`") }));
    }
    assert!(reached(&fixture).is_empty());
}

#[test]
fn the_id_stands_in_the_header_too() {
    let fixture = fixture(Mode::Modern);
    let harness = Harness::start(&config(&fixture, ""));
    let mut alice = harness.client(ALICE);
    let (id, other) = (begin(&mut alice, SLOW), begin(&mut alice, SLOW));
    let mismatch = "header mismatch: expected one header `Mcp-Name` with the value of `params.taskId`";
    for method in METHODS {
        for wrong in [about(method, &id).header("Mcp-Name", &other), about(method, &id).without("Mcp-Name")] {
            is_refused(&alice.ask(&wrong), 400, &json!({ "code": -32020, "message": mismatch }));
        }
        let none = knowing(Message::modern(method).header("Mcp-Name", "x"));
        let message = "invalid params: expected a string `taskId`";
        is_refused(&alice.ask(&none), 200, &json!({ "code": -32602, "message": message }));
    }
    assert!(reached(&fixture).is_empty());
    let encoded = format!("=?base64?{}?=", STANDARD.encode(&id));
    let answer = alice.ask(&about("tasks/get", &id).header("Mcp-Name", &encoded));
    assert_eq!(answer.response()["result"]["taskId"], json!(id));
}

#[test]
fn a_legacy_server_is_told_nothing_of_tasks() {
    for mode in [Mode::LegacyStateless, Mode::LegacySessions] {
        let (modern, legacy) = (fixture(Mode::Modern), fixture(mode));
        let harness = Harness::start(&config(&modern, ""));
        let mut alice = harness.client(ALICE);
        let id = begin(&mut alice, SLOW);
        // Another server has the name by now.
        harness.replace_config(&config(&legacy, ""));
        wait_until("the server is another", || {
            let answer = alice.ask(&knowing(call(("slow_compute", r#"{"seconds":0,"label":"it"}"#))));
            answer.response()["result"]["content"][0]["text"] == "Computed it."
        });
        is_unknown(&mut alice, &id);
        let told = legacy.received();
        assert!(
            told.iter().all(|received| !received.body.contains("io.modelcontextprotocol/tasks\":{}")
                || received.body.contains("server/discover")),
            "{mode:?}: {told:?}"
        );
        assert!(reached(&legacy).is_empty(), "{mode:?}");
    }
}

/// A modern server with the tool `echo` that answers calls and requests about tasks with this, and has the extension or not.
fn scripted(has_tasks: bool, answer: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) -> Upstream {
    let upstream = Plan::new("fixture").start();
    let extensions = if has_tasks { format!(r#","extensions":{{"{KEY}tasks":{{}}}}"#) } else { String::new() };
    upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
        "server/discover" => {
            let can = format!(r#"{{"tools":{{}}{extensions}}}"#);
            let members = r#""resultType":"complete","ttlMs":0,"cacheScope":"private""#;
            exchange.result(&format!(r#"{{{members},"supportedVersions":["{MODERN}"],"capabilities":{can}}}"#));
        }
        "tools/call" | "tasks/get" | "tasks/update" | "tasks/cancel" => answer(exchange),
        _ => exchange.normally(),
    });
    upstream
}

fn task(members: &str) -> String {
    format!(r#"{{"status":"working","resultType":"task","ttlMs":null,{members}}}"#)
}

#[test]
fn a_task_that_is_none_is_an_error() {
    let long = format!(r#""taskId":"{}""#, "x".repeat(2048));
    for (has_tasks, declares, members) in [
        (true, false, r#""taskId":"own""#),
        (false, false, r#""taskId":"own""#),
        (false, true, r#""taskId":"own""#),
        (true, true, r#""status":"working""#),
        (true, true, r#""taskId":7"#),
        (true, true, r#""taskId":"own","taskId":"other""#),
        (true, true, r#""taskId":"own","requestState":"s""#),
        (true, true, &long),
    ] {
        let result = task(members);
        let upstream = scripted(has_tasks, move |exchange| exchange.result(&result));
        let harness = Harness::start(&owned_by_alice(&[("fixture", &upstream)]));
        let mut alice = harness.client(ALICE);
        let message = call(("echo", "{}"));
        let answer = alice.ask(&if declares { knowing(message) } else { message });
        let what = if members.len() > 2048 {
            "answer of tool `echo` is larger than 2048 bytes"
        } else {
            "server of tool `echo` answered with something that is not MCP"
        };
        is_refused(&answer, 200, &json!({ "code": -32603, "message": what }));
        let mut legacy = harness.client(ALICE);
        legacy.initialize("2025-11-25");
        let not_mcp = "server of tool `echo` answered with something that is not MCP";
        assert_eq!(legacy.error("echo"), (-32603, not_mcp.to_owned()), "{members}");
    }
}

#[test]
fn a_server_is_told_that_the_client_knows_tasks_if_it_has_them_itself() {
    for has_tasks in [true, false] {
        let upstream = scripted(has_tasks, |exchange| exchange.echo());
        let harness = Harness::start(&owned_by_alice(&[("fixture", &upstream)]));
        let mut alice = harness.client(ALICE);
        for declared in [KNOWS, r#"{"elicitation":{}}"#] {
            let answer = alice.ask(&call(("echo", "{}")).told("clientCapabilities", declared));
            assert_eq!(answer.response()["result"]["content"][0]["text"], "fixture:echo");
            let sent = upstream.calls().pop().unwrap().json();
            let told = &sent["params"]["_meta"][format!("{KEY}clientCapabilities")];
            assert_eq!(told.get("extensions").is_some(), has_tasks && declared == KNOWS, "{sent}");
            assert!(told.get("elicitation").is_some(), "{sent}");
        }
        let mut legacy = harness.client(ALICE);
        legacy.initialize("2025-11-25");
        legacy.text("echo");
        assert!(!upstream.calls().pop().unwrap().body.contains("extensions"));
    }
}

#[test]
fn what_a_server_says_of_a_task_is_passed_on_as_far_as_it_is_about_that_task() {
    let working = r#"{"resultType":"complete","taskId":"own","status":"working","a":1.0,"b":{"taskId":"own"}}"#;
    let not_mcp = json!({ "code": -32603, "message": "server of tool `echo` answered with something that is not MCP" });
    let unknown = json!({ "code": -32602, "message": "unknown task" });
    for (result, error) in [
        (Ok(working), Value::Null),
        (Ok(r#"{"resultType":"complete","taskId":"another","status":"working"}"#), not_mcp.clone()),
        (Ok(r#"{"resultType":"complete","status":"working"}"#), not_mcp.clone()),
        (Ok(r#"{"resultType":"complete","taskId":"own","requestState":"s"}"#), not_mcp.clone()),
        (Ok(r#"{"resultType":"task","taskId":"own","status":"working"}"#), not_mcp.clone()),
        (Ok(r#"{"resultType":"input_required","requestState":"s"}"#), not_mcp),
        (Err((-32602, "no task `own`")), unknown.clone()),
        (Err((-32601, "no tasks here")), unknown),
        (Err((-32050, "odd")), json!({ "code": -32603, "message": "odd" })),
    ] {
        let upstream = scripted(true, move |exchange| match (exchange.request.rpc().as_str(), result) {
            ("tools/call", _) => exchange.result(&task(r#""taskId":"own""#)),
            (_, Ok(result)) => exchange.result(result),
            (_, Err((code, message))) => exchange.error(code, message),
        });
        let harness = Harness::start(&owned_by_alice(&[("fixture", &upstream)]));
        let mut alice = harness.client(ALICE);
        let id = begin(&mut alice, ("echo", "{}"));
        let answer = alice.ask(&about("tasks/get", &id).param(r#""requestState":"mine","more":[1.0]"#));
        let sent = upstream.state().of("tasks/get").pop().unwrap();
        assert!(sent.body.contains(r#""taskId":"own","more":[1.0]"#) && !sent.body.contains("mine"), "{}", sent.body);
        if !error.is_null() {
            is_refused(&answer, 200, &error);
            continue;
        }
        let rest = r#""status":"working","a":1.0,"b":{"taskId":"own"}}"#;
        assert!(answer.body.contains(&format!(r#""taskId":"{id}",{rest}"#)), "{}", answer.body);
    }
}
