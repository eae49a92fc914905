//! Servers of both eras: how the gateway finds out which it is, notices when that changes, and reads what they send,
//! however odd. Protocol.md 3.1 to 3.8; in none of it does a call run twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_x_fixture::{AnswerForm, Fault, Fixture, ListKind, Mode, Options, ProbeRefusal};
use serde_json::Value;

use super::support::client::Client;
use super::support::message::{MODERN, Message};
use super::support::{ALICE, Harness, clients, server, side_by_side, wait_until};

const MODES: [Mode; 3] = [Mode::LegacyStateless, Mode::LegacySessions, Mode::Modern];
const LEGACY: &str = "2025-11-25";

/// A server of alice's and a gateway in front of it, which does not wait long for a silent server.
struct World {
    fixture: Fixture,
    harness: Harness,
    /// Numbers the calls, so that no two have the same arguments.
    calls: AtomicUsize,
}

impl World {
    fn start(fixture: Fixture) -> Self {
        Self::with(fixture, "", "")
    }

    /// With further lines for the server and for the gateway.
    fn with(fixture: Fixture, of_server: &str, of_gateway: &str) -> Self {
        let config = clients() + &server("fixture", "alice", &fixture, of_server);
        let limits = "list_timeout_seconds = 1\nconnect_seconds = 1\n";
        let harness = Harness::start(&format!("{config}\n[gateway]\n{limits}{of_gateway}\n"));
        Self { fixture, harness, calls: AtomicUsize::new(0) }
    }

    /// Calls a tool with an argument that no other call has; the response.
    fn call_as(&self, client: &mut Client, revision: &str, tool: &str) -> Value {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        client.ask(&Message::call(revision, tool, &format!(r#"{{"n":{number}}}"#))).response()
    }

    /// The same in the legacy era, without a session.
    fn call(&self, tool: &str) -> Value {
        self.call_as(&mut self.harness.client(ALICE), LEGACY, tool)
    }

    /// A call works, from clients of both eras.
    #[track_caller]
    fn works(&self, what: &str) {
        for revision in [LEGACY, MODERN] {
            let response = self.call_as(&mut self.harness.client(ALICE), revision, "echo");
            assert!(response["result"]["structuredContent"]["n"].is_u64(), "{what}, {revision}: {response}");
        }
    }

    /// A call fails with this code and text.
    #[track_caller]
    fn fails(&self, what: &str, code: i64, text: &str) {
        let response = self.call("echo");
        assert_eq!(response["error"]["code"], code, "{what}: {response}");
        assert!(response["error"]["message"].as_str().unwrap().contains(text), "{what}: {response}");
    }

    /// Another server takes the place of the one that was there.
    fn replace(&mut self, options: Options) {
        let address = self.fixture.address();
        self.fixture.stop();
        self.fixture = Fixture::start(Options { address, ..options });
    }

    fn requests(&self, method: &str) -> u64 {
        self.fixture.counts().requests_of(method)
    }

    fn wait_for_tools(&self, what: &str) {
        wait_until(what, || !self.harness.client(ALICE).tools().is_empty());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.fixture.counts().most_repeated() <= 1, "a call ran twice");
        }
    }
}

fn fixture(mode: Mode) -> Fixture {
    Fixture::start(Options::of(mode))
}

/// A server that answers the probe with this fault, and everything else as it should.
fn probed(mode: Mode, fault: Fault) -> Fixture {
    let fixture = fixture(mode);
    fixture.switches().on_method("server/discover", fault);
    fixture
}

fn refusal(status: u16, content_type: &str, body: &str) -> Fault {
    Fault::Refuse { status, body: Some((content_type.to_owned(), body.to_owned())) }
}

#[track_caller]
fn finds(era: &str, what: &str, fixture: Fixture) {
    let world = World::start(fixture);
    world.wait_for_tools(what);
    world.works(what);
    world.works(what);
    let lines = world.harness.log().matches("server probed").count();
    assert!(world.harness.log().contains(&format!("server probed server=fixture era={era}")), "{what}");
    assert_eq!(lines, 1, "{what}: what was found out is remembered");
    assert_eq!(world.requests("initialize") > 0, era == "legacy", "{what}");
    assert_eq!(world.fixture.counts().executions_of("echo"), 4, "{what}");
}

#[test]
fn a_server_that_discovers_itself_is_modern() {
    let versions = |all: &[&str]| Fault::DiscoverVersions(all.iter().map(ToString::to_string).collect());
    let rows = [
        ("older versions as well", versions(&["2025-11-25", MODERN, "2027-01-01"])),
        ("its request was at fault", Fault::HeaderMismatch),
        ("an odd stream", Fault::OddEvents),
        ("an id that is a string", Fault::StringIds),
        ("duplicate members", Fault::DuplicateMembers),
        ("unknown members", Fault::UnknownMembers),
        ("no type of result", Fault::OmitResultType),
        ("a session header", Fault::SessionHeader("odd".to_owned())),
        ("byte by byte", Fault::Drip(Duration::from_micros(100))),
        ("a redirect", Fault::RedirectToSlash),
        ("missing capability", refusal(400, "application/json", MISSING_CAPABILITY)),
    ];
    side_by_side(rows, |(what, fault)| finds("modern", what, probed(Mode::Modern, fault)));
    for answers in [AnswerForm::Json, AnswerForm::Sse] {
        finds("modern", "a form", Fixture::start(Options { answers, ..Options::of(Mode::Modern) }));
    }
}

const MISSING_CAPABILITY: &str = r#"{"jsonrpc":"2.0","error":{"code":-32021,"message":"m","data":{}}}"#;

#[test]
fn a_server_that_answers_the_probe_with_anything_else_is_legacy() {
    let rpc = |status: u16, code: i64| {
        let error = format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"no"}}}}"#);
        refusal(status, "application/json", &error)
    };
    let rows = [
        ("a legacy version", Fault::UnsupportedVersion(vec!["2024-11-05".to_owned()])),
        ("200 and a page", Fault::HtmlPage),
        ("202", Fault::AcceptOnly),
        ("200 and no JSON", Fault::Garbage),
        ("200 and another JSON", refusal(200, "application/json", r#"{"status":"ok"}"#)),
        (
            "200 and a result of something else",
            refusal(200, "application/json", r#"{"jsonrpc":"2.0","id":1,"result":7}"#),
        ),
        ("400", refusal(400, "text/plain", "no")),
        ("404", Fault::Refuse { status: 404, body: None }),
        ("405", Fault::Refuse { status: 405, body: None }),
        ("406", Fault::Refuse { status: 406, body: None }),
        ("415", refusal(415, "text/plain", "unexpected message")),
        ("422", refusal(422, "text/plain", "expect initialize request")),
        ("-32602", rpc(400, -32602)),
        ("-32600", rpc(400, -32600)),
        ("-32001", rpc(404, -32001)),
        ("-32603", rpc(200, -32603)),
        ("a code of its own", rpc(200, 7)),
    ];
    side_by_side(rows, |(what, fault)| finds("legacy", what, probed(Mode::LegacySessions, fault)));
    let refusals = [ProbeRefusal::TypeScript, ProbeRefusal::NotFound, ProbeRefusal::MethodNotFound, ProbeRefusal::Html];
    for (probe, mode) in refusals.into_iter().flat_map(|probe| MODES[..2].iter().map(move |mode| (probe, *mode))) {
        finds("legacy", "its own refusal", Fixture::start(Options { probe, ..Options::of(mode) }));
    }
    finds("legacy", "old", Fixture::start(Options { newest: "2024-11-05", ..Options::of(Mode::LegacySessions) }));
}

#[test]
fn a_server_that_holds_the_probe_is_asked_by_handshake() {
    finds("legacy", "silence", probed(Mode::LegacySessions, Fault::Hang));
}

#[test]
fn a_server_that_holds_everything_is_not_remembered_as_legacy() {
    let fixture = fixture(Mode::Modern);
    fixture.switches().on(Fault::Hang);
    let world = World::start(fixture);
    wait_until("the handshake is tried", || world.requests("initialize") > 0);
    world.fixture.switches().clear();
    world.wait_for_tools("it answers again");
    world.works("it answers again");
    assert!(world.harness.log().contains("server probed server=fixture era=modern"));
}

#[test]
fn what_says_nothing_about_the_era_is_not_remembered() {
    let page = |status: u16| (status.to_string(), refusal(status, "text/html", "<html>"));
    let plain = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"no"}}"#;
    let others = [
        ("401 with an error".to_owned(), refusal(401, "application/json", plain)),
        ("a broken connection".to_owned(), Fault::CloseWithoutAnswer),
        ("a redirect to another origin".to_owned(), Fault::RedirectTo("http://127.0.0.2:1/mcp".to_owned())),
    ];
    let rows = [401, 403, 407, 421, 429, 500, 502, 503].map(page).into_iter().chain(others);
    side_by_side(rows, |(what, fault)| {
        let fixture = fixture(Mode::Modern);
        fixture.switches().once("server/discover", fault);
        let world = World::start(fixture);
        assert!(world.harness.client(ALICE).tools().is_empty(), "{what}");
        world.harness.wait_for_log("server failed server=fixture");
        world.wait_for_tools(&what);
        world.works(&what);
        assert_eq!((world.requests("server/discover"), world.requests("initialize")), (2, 0), "{what}");
    });
}

#[test]
fn a_server_without_a_version_in_common_is_down_until_it_has_one() {
    let later = || vec!["2027-01-01".to_owned()];
    let rows = [
        (Mode::Modern, Fault::DiscoverVersions(later()), "no protocol version in common"),
        (Mode::Modern, Fault::UnsupportedVersion(later()), "no protocol version in common"),
        (Mode::LegacySessions, Fault::InitializeVersion(MODERN.to_owned()), "found `2026-07-28`"),
    ];
    side_by_side(rows, |(mode, fault, reason)| {
        let (fixture, what) = (fixture(mode), reason);
        fixture.switches().on(fault);
        let world = World::start(fixture);
        assert!(world.harness.client(ALICE).tools().is_empty(), "{what}");
        world.harness.wait_for_log(reason);
        world.fixture.switches().clear();
        world.wait_for_tools(what);
        world.works(what);
    });
}

#[test]
fn a_version_that_is_refused_and_named_at_once_is_asked_for_once_more() {
    let rows = [vec![MODERN.to_owned()], vec![LEGACY.to_owned(), MODERN.to_owned()]];
    side_by_side(rows, |versions| {
        let (fixture, what) = (fixture(Mode::Modern), format!("{versions:?}"));
        fixture.switches().once("server/discover", Fault::UnsupportedVersion(versions));
        let world = World::start(fixture);
        assert!(!world.harness.client(ALICE).tools().is_empty(), "{what}");
        world.works(&what);
        assert_eq!((world.requests("server/discover"), world.requests("initialize")), (2, 0), "{what}");
    });
    let stubborn = fixture(Mode::Modern);
    stubborn.switches().on(Fault::UnsupportedVersion(vec![MODERN.to_owned()]));
    let world = World::start(stubborn);
    assert!(world.harness.client(ALICE).tools().is_empty());
    world.harness.wait_for_log("the server refuses 2026-07-28, which it says it speaks");
}

#[test]
fn a_pin_is_believed_and_nothing_else_is_tried() {
    let rows = [
        ("legacy", Mode::LegacySessions, true),
        ("legacy", Mode::LegacyStateless, true),
        ("legacy", Mode::Modern, false),
        ("modern", Mode::Modern, true),
        ("modern", Mode::LegacySessions, false),
        ("auto", Mode::Modern, true),
        ("auto", Mode::LegacyStateless, true),
    ];
    side_by_side(rows, |(pin, mode, fits)| {
        let world = World::with(fixture(mode), &format!("protocol = \"{pin}\""), "");
        assert_eq!(world.harness.client(ALICE).tools().is_empty(), !fits, "{pin} {mode:?}");
        if fits {
            world.works(pin);
        }
        assert_eq!(world.requests("server/discover") > 0, pin != "legacy", "{pin} {mode:?}");
        assert!(pin != "modern" || world.requests("initialize") == 0, "{pin} {mode:?}");
    });
}

#[test]
fn a_server_that_comes_back_in_another_era_costs_one_call_at_most() {
    let kinds = MODES.into_iter().chain([Mode::LegacyStateless; 3]).zip([
        ProbeRefusal::TypeScript,
        ProbeRefusal::TypeScript,
        ProbeRefusal::TypeScript,
        ProbeRefusal::NotFound,
        ProbeRefusal::MethodNotFound,
        ProbeRefusal::Html,
    ]);
    let kinds: Vec<(Mode, ProbeRefusal)> = kinds.collect();
    let pairs = MODES.into_iter().flat_map(|before| kinds.iter().map(move |after| (before, *after)));
    let rows = pairs.flat_map(|(before, after)| [LEGACY, MODERN].map(|revision| (before, after, revision)));
    side_by_side(rows, |(before, (mode, probe), revision)| {
        let mut world = World::start(fixture(before));
        world.works("before");
        world.replace(Options { probe, ..Options::of(mode) });
        let mut client = world.harness.client(ALICE);
        let calls: Vec<Value> = (0..4).map(|_| world.call_as(&mut client, revision, "echo")).collect();
        let failed = calls.iter().filter(|response| response.get("result").is_none()).count();
        let what = format!("{before:?} then {mode:?} {probe:?} for {revision}");
        assert!(failed <= 1 && calls.last().unwrap().get("result").is_some(), "{what}: {calls:#?}");
        assert!(world.fixture.counts().executions_of("echo") >= 3, "{what}");
        assert!(world.harness.client(ALICE).tools().len() > 30, "{what}: its tools are still listed");
    });
}

#[test]
fn a_server_that_does_not_know_lists_any_more_is_found_in_its_other_era() {
    let mut world = World::with(fixture(Mode::Modern), "", "refresh_seconds = 1");
    world.wait_for_tools("before");
    world.replace(Options { probe: ProbeRefusal::MethodNotFound, ..Options::of(Mode::LegacySessions) });
    let mut alice = world.harness.client(ALICE);
    wait_until("the handshake", || {
        assert!(!alice.tools().is_empty(), "tools that are still there vanish");
        world.requests("initialize") > 0
    });
    world.works("after");
}

#[test]
fn a_server_that_has_become_modern_hears_nothing_of_old_sessions() {
    let mut world = World::start(fixture(Mode::LegacySessions));
    world.works("before");
    world.replace(Options::of(Mode::Modern));
    let mut alice = world.harness.client(ALICE);
    wait_until("the other era", || world.call_as(&mut alice, MODERN, "echo").get("result").is_some());
    alice.send_message(&Message::call(MODERN, "slow", r#"{"ms":600000}"#));
    wait_until("the call runs", || world.fixture.counts().executions_of("slow") == 1);
    drop(alice);
    wait_until("the server knows", || world.fixture.counts().cancellations == 1);
    world.works("after");
    assert_eq!((world.requests("notifications/cancelled"), world.requests("DELETE")), (0, 0));
}

#[test]
fn headers_that_do_not_fit_any_more_are_made_anew_once() {
    for revision in [LEGACY, MODERN] {
        let world = World::start(fixture(Mode::Modern));
        world.works("before");
        let lists = world.requests("tools/list");
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"Number"}}}"#;
        assert!(world.fixture.put(ListKind::Tools, &format!(r#"{{"name":"echo","inputSchema":{schema}}}"#)));
        let calls = world.requests("tools/call");
        let response = world.call_as(&mut world.harness.client(ALICE), revision, "echo");
        assert!(response.get("result").is_some(), "{response}");
        assert_eq!(world.requests("tools/call") - calls, 2, "refused once, and sent once more");
        assert!(world.requests("tools/list") > lists);
        let last = world.fixture.received().into_iter().rfind(|r| r.header("mcp-method") == Some("tools/call"));
        assert_eq!(last.unwrap().header("mcp-param-number"), Some("2"));
    }
}

#[test]
fn a_server_that_refuses_again_and_again_is_not_asked_for_ever() {
    let modern = || vec![MODERN.to_owned()];
    for fault in [Fault::HeaderMismatch, Fault::UnsupportedVersion(modern())] {
        let world = World::start(fixture(Mode::Modern));
        world.works("before");
        world.fixture.switches().on_method("tools/call", fault.clone());
        let (calls, probes) = (world.requests("tools/call"), world.requests("server/discover"));
        world.fails("refused", -32603, "as ordered");
        assert_eq!(world.requests("tools/call") - calls, 2, "{fault:?}");
        assert!(world.requests("server/discover") - probes <= 2, "{fault:?}");
        world.fixture.switches().clear();
        world.works("after");
    }
}

#[test]
fn a_server_of_another_version_is_probed_again_and_asked_once_more() {
    for mode in MODES {
        let world = World::start(fixture(mode));
        world.works("before");
        world.fixture.switches().once("tools/call", Fault::UnsupportedVersion(vec![MODERN.to_owned()]));
        let (calls, probes) = (world.requests("tools/call"), world.requests("server/discover"));
        assert!(world.call("echo").get("result").is_some(), "{mode:?}");
        assert_eq!(world.requests("tools/call") - calls, 2, "{mode:?}");
        assert_eq!(world.requests("server/discover") - probes, 1, "{mode:?}");
    }
}

#[test]
fn odd_answers_are_read_all_the_same() {
    let faults = [
        ("", Fault::StringIds),
        ("", Fault::DuplicateMembers),
        ("", Fault::UnknownMembers),
        ("", Fault::OddEvents),
        ("", Fault::OmitResultType),
        ("", Fault::AnnounceTools),
        ("", Fault::AcceptWithBody),
        ("", Fault::StrayMessages),
        ("", Fault::NotifyBeforeInitialize),
        ("", Fault::RedirectToSlash),
        ("tools/call", Fault::SessionHeader("odd".to_owned())),
        ("tools/call", Fault::Delay(Duration::from_millis(20))),
        ("tools/call", Fault::Drip(Duration::from_micros(10))),
    ];
    let rows = MODES.into_iter().flat_map(|mode| faults.iter().map(move |fault| (mode, fault.clone())));
    side_by_side(rows, |(mode, (method, fault))| {
        let fixture = Fixture::start(Options { tools: Some(vec!["echo".to_owned()]), ..Options::of(mode) });
        match method {
            "" => fixture.switches().on(fault.clone()),
            method => fixture.switches().on_method(method, fault.clone()),
        }
        let world = World::start(fixture);
        let what = format!("{mode:?} {fault:?}");
        world.works(&what);
        let response = world.call("echo");
        assert_eq!(response["result"]["structuredContent"]["n"], 2, "{what}: {response}");
        let kept = response["result"].get("x-fixture-unknown").is_some();
        assert_eq!(kept, fault == Fault::UnknownMembers, "{what}: {response}");
        assert_eq!(world.fixture.counts().executions_of("echo"), 3, "{what}");
    });
}

#[test]
fn a_modern_servers_session_header_is_not_taken_up() {
    let world = World::start(fixture(Mode::Modern));
    world.fixture.switches().on(Fault::SessionHeader("odd".to_owned()));
    world.works("twice");
    assert!(world.fixture.received().iter().all(|received| received.header("mcp-session-id").is_none()));
}

#[test]
fn an_answer_that_is_lost_is_never_asked_for_again() {
    const LOST: &str = "was lost; the call may have been executed";
    let rows = [
        (Fault::CloseMidStream, LOST, 1),
        (Fault::CloseWithoutAnswer, LOST, 0),
        (Fault::Garbage, "something that is not MCP", 0),
        (Fault::HtmlPage, "something that is not MCP", 0),
        (Fault::AcceptOnly, "something that is not MCP", 0),
        (Fault::Oversized(10_000), "larger than 4096 bytes", 1),
        (Fault::Refuse { status: 503, body: None }, "HTTP status 503", 0),
        (Fault::Refuse { status: 401, body: None }, "HTTP status 401", 0),
    ];
    let rows = MODES.into_iter().flat_map(|mode| rows.iter().map(move |row| (mode, row.clone())));
    side_by_side(rows, |(mode, (fault, text, executed))| {
        let fixture = Fixture::start(Options { tools: Some(vec!["echo".to_owned()]), ..Options::of(mode) });
        let world = World::with(fixture, "", "max_response_bytes = 4096");
        let what = format!("{mode:?} {fault:?}");
        world.works(&what);
        world.fixture.switches().on_method("tools/call", fault);
        world.fails(&what, -32603, text);
        world.fixture.switches().clear();
        assert_eq!(world.requests("tools/call"), 3, "{what}");
        assert_eq!(world.fixture.counts().executions_of("echo"), 2 + executed, "{what}");
        world.works(&what);
    });
}

#[test]
fn a_session_is_told_the_log_level_when_it_changes() {
    for (mode, told) in [(Mode::LegacySessions, [0, 0, 1, 1, 2, 2, 3]), (Mode::LegacyStateless, [0; 7])] {
        for revision in [LEGACY, MODERN] {
            let world = World::start(fixture(mode));
            let mut client = world.harness.client(ALICE).speaking(revision);
            let levels = [None, None, Some("info"), Some("info"), Some("error"), Some("error"), Some("debug")];
            for (level, told) in levels.into_iter().zip(told) {
                logging_call(&world, &mut client, revision, level);
                assert_eq!(world.requests("logging/setLevel"), told, "{mode:?} {revision} {level:?}");
            }
        }
    }
}

/// Calls a tool and wants log messages of this level: says so in the session, or in the call itself.
fn logging_call(world: &World, client: &mut Client, revision: &str, level: Option<&str>) {
    let number = world.calls.fetch_add(1, Ordering::Relaxed);
    let mut call = Message::call(revision, "echo", &format!(r#"{{"n":{number}}}"#));
    if let Some(level) = level {
        if revision == MODERN {
            call = call.told("logLevel", &format!("\"{level}\""));
        } else {
            let set = Message::of(revision, "logging/setLevel").param(&format!(r#""level":"{level}""#));
            assert_eq!(client.ask(&set).status(), 200);
        }
    }
    assert!(client.ask(&call).json().get("result").is_some());
}

#[test]
fn a_modern_server_is_told_the_level_with_every_call() {
    let world = World::start(fixture(Mode::Modern));
    let mut client = world.harness.client(ALICE).speaking(LEGACY);
    for (level, told) in [(None, None), (Some("warning"), Some("warning")), (None, Some("warning"))] {
        logging_call(&world, &mut client, LEGACY, level);
        let call = world.fixture.received().pop().unwrap();
        let body: Value = serde_json::from_str(&call.body).unwrap();
        let key = "/params/_meta/io.modelcontextprotocol~1logLevel";
        assert_eq!(body.pointer(key).and_then(Value::as_str), told);
    }
    assert_eq!(world.requests("logging/setLevel"), 0);
}
