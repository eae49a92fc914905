//! Servers that are killed, hang and come back while clients call them and others: nothing runs twice, and whoever uses
//! the others notices nothing. Design 1.4, 1.5; protocol.md 3.3, 3.5.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mcp_x_fixture::{Fault, Fixture, Mode, Options};
use serde_json::Value;

use super::support::client::Client;
use super::support::message::{MODERN, Message};
use super::support::{ALICE, Harness, clients, server, wait_until};

const MODES: [(&str, Mode); 3] =
    [("stateless", Mode::LegacyStateless), ("sessions", Mode::LegacySessions), ("modern", Mode::Modern)];
const REVISIONS: [&str; 2] = ["2025-11-25", MODERN];
/// Calls of undisturbed servers that must get through during each disturbance.
const MEANWHILE: usize = 30;

/// Servers of every kind, each with one tool, `<its name>_do`.
fn servers(prefix: &str) -> Vec<(String, Fixture)> {
    let start = |(name, mode): (&str, Mode)| {
        let name = format!("{prefix}_{name}");
        let tools = Some(vec![format!("{name}_do")]);
        let fixture = Fixture::start(Options { tools, ..Options::of(mode) });
        (name, fixture)
    };
    MODES.map(start).into()
}

/// A gateway in front of servers that are all alice's; a call may be silent for a second.
fn gateway<'a>(servers: impl IntoIterator<Item = &'a (String, Fixture)>) -> Harness {
    let tables = servers.into_iter().map(|(name, fixture)| server(name, "alice", fixture, "")).collect::<String>();
    Harness::start(&format!("{}{tables}[gateway]\nsilent_call_seconds = 1\n", clients()))
}

/// Calls a tool with this argument; the response.
fn call(client: &mut Client, revision: &str, tool: &str, key: &str) -> Value {
    client.ask(&Message::call(revision, tool, &format!(r#"{{"key":"{key}"}}"#))).response()
}

/// What ran, by tool and arguments, on servers that forget it when they are restarted.
#[derive(Default)]
struct Ran(BTreeMap<(String, String), u64>);

impl Ran {
    fn add(&mut self, fixture: &Fixture) {
        for (call, times) in fixture.counts().executions_with {
            *self.0.entry(call).or_default() += times;
        }
    }

    /// Kills a server.
    fn kill(&mut self, fixture: &mut Fixture) {
        fixture.stop();
        self.add(fixture);
    }
}

/// What the callers have to know of each other.
#[derive(Default)]
struct Course {
    over: AtomicBool,
    /// Calls of undisturbed servers that were answered.
    answered: AtomicUsize,
}

impl Course {
    fn runs(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Waits until the undisturbed servers have answered some more calls.
    #[track_caller]
    fn go_on(&self, what: &str) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until(what, || self.answered.load(Ordering::Relaxed) >= before + MEANWHILE);
    }
}

/// Calls the undisturbed servers again and again; every answer is right, and every list as it was.
fn call_calm(course: &Course, mut alice: Client, revision: &str) {
    let list = Message::of(revision, "tools/list");
    let expected = alice.ask(&list).body;
    for number in 0.. {
        for (name, _) in MODES {
            let response = call(&mut alice, revision, &format!("calm_{name}_do"), &format!("{revision}-{number}"));
            let key = &response["result"]["structuredContent"]["key"];
            assert_eq!(*key, format!("{revision}-{number}"), "{name}: {response}");
            course.answered.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(alice.ask(&list).body, expected);
        if !course.runs() {
            return;
        }
    }
}

/// Calls the disturbed servers again and again; the arguments of the calls that were answered with a result. All others
/// were answered with an error that says so.
fn call_disturbed(course: &Course, mut alice: Client, revision: &str) -> Vec<(String, String)> {
    let mut done = Vec::new();
    for number in 0.. {
        for (name, _) in MODES {
            let (tool, key) = (format!("disturbed_{name}_do"), format!("{revision}-{number}"));
            let response = call(&mut alice, revision, &tool, &key);
            if response.get("result").is_some() {
                done.push((tool, format!(r#"{{"key":"{key}"}}"#)));
            } else {
                assert_eq!(response["error"]["code"], -32603, "{name}: {response}");
            }
        }
        if !course.runs() {
            break;
        }
    }
    done
}

/// Disturbs the servers one after the other, in every way.
fn disturb(course: &Course, disturbed: &mut [(String, Fixture)], ran: &mut Ran) {
    for (name, fixture) in disturbed {
        ran.kill(fixture);
        course.go_on(&format!("{name} is dead"));
        fixture.restart().unwrap();
        course.go_on(&format!("{name} is back"));
        fixture.switches().on(Fault::Hang);
        course.go_on(&format!("{name} hangs"));
        ran.kill(fixture);
        fixture.restart().unwrap();
        fixture.forget_sessions();
        course.go_on(&format!("{name} has forgotten everything"));
        fixture.switches().on(Fault::CloseMidStream);
        course.go_on(&format!("{name} breaks off"));
        fixture.switches().clear();
    }
}

#[test]
fn whatever_happens_to_some_servers_the_others_are_called_as_ever() {
    let (calm, mut disturbed) = (servers("calm"), servers("disturbed"));
    let harness = gateway(calm.iter().chain(&disturbed));
    let (course, mut ran) = (Course::default(), Ran::default());
    assert_eq!(harness.client(ALICE).tools().len(), 6);
    let done = std::thread::scope(|scope| {
        let client = |revision: &str| harness.client(ALICE).speaking(revision);
        let course = &course;
        let callers = REVISIONS.map(|revision| {
            let (first, second) = (client(revision), client(revision));
            scope.spawn(move || call_calm(course, first, revision));
            scope.spawn(move || call_disturbed(course, second, revision))
        });
        disturb(course, &mut disturbed, &mut ran);
        course.over.store(true, Ordering::Relaxed);
        callers.map(|caller| caller.join().unwrap()).concat()
    });
    calm.iter().chain(&disturbed).for_each(|(_, fixture)| ran.add(fixture));
    let twice: Vec<_> = ran.0.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "ran more than once: {twice:?}");
    assert!(done.iter().all(|call| ran.0.contains_key(call)), "a result of a call that never ran");
    assert!(done.len() > 30, "hardly any call of the disturbed servers got through: {}", done.len());
    let mut alice = harness.client(ALICE);
    for (name, _) in MODES {
        let tool = format!("disturbed_{name}_do");
        wait_until("all is well again", || call(&mut alice, MODERN, &tool, "").get("result").is_some());
    }
}

#[test]
fn a_server_that_was_restarted_between_two_calls_is_called_as_if_nothing_had_happened() {
    for revision in REVISIONS {
        let mut servers = servers("restarted");
        let harness = gateway(&servers);
        let mut alice = harness.client(ALICE).speaking(revision);
        let session = alice.session.clone();
        for ((name, fixture), (_, mode)) in servers.iter_mut().zip(MODES) {
            let tool = format!("{name}_do");
            assert!(call(&mut alice, revision, &tool, "before").get("result").is_some(), "{name}");
            for restart in 0..3 {
                fixture.restart().unwrap();
                let response = call(&mut alice, revision, &tool, "after");
                assert!(response.get("result").is_some(), "{name} for {revision}, restart {restart}: {response}");
                let counts = fixture.counts();
                assert_eq!((counts.executions_of(&tool), counts.most_repeated()), (1, 1), "{name}");
                // Whoever was restarted without sessions needs no handshake either.
                assert_eq!(counts.requests_of("initialize") > 0, mode == Mode::LegacySessions, "{name}");
            }
        }
        assert_eq!(alice.session, session);
        assert_eq!(alice.tools().len(), 3, "the client's own session lives on");
    }
}

#[test]
fn a_call_that_runs_when_its_server_is_killed_is_lost_and_not_repeated() {
    for (name, mode) in MODES {
        for revision in REVISIONS {
            let mut fixture = Fixture::start(Options::of(mode));
            let harness = Harness::start(&(clients() + &server("killed", "alice", &fixture, "")));
            let mut alice = harness.client(ALICE).speaking(revision);
            alice.send_message(&Message::call(revision, "slow", r#"{"ms":600000}"#));
            wait_until("the call runs", || fixture.counts().executions_of("slow") == 1);
            fixture.restart().unwrap();
            let response = alice.connection.answer().response();
            assert_eq!(response["error"]["code"], -32603, "{response}");
            let text = "connection to the server of tool `slow` was lost; the call may have been executed";
            assert_eq!(response["error"]["message"], text, "{name} for {revision}");
            assert!(call(&mut alice, revision, "echo", "after").get("result").is_some(), "{name} for {revision}");
            let counts = fixture.counts();
            assert_eq!((counts.executions_of("slow"), counts.executions_of("echo")), (0, 1), "{name} for {revision}");
        }
    }
}

#[test]
fn lists_come_from_memory_whatever_the_servers_do() {
    let mut servers = servers("listed");
    let harness = gateway(&servers);
    // Those that can tell of changes are asked once more when they are listened to.
    wait_until("two of them are", || {
        let counts: Vec<_> = servers.iter().map(|(_, fixture)| fixture.counts()).collect();
        counts.iter().filter(|c| c.streams == 1 && c.requests_of("resources/templates/list") == 2).count() == 2
    });
    for revision in REVISIONS {
        let mut alice = harness.client(ALICE).speaking(revision);
        let list = Message::of(revision, "tools/list");
        let warm = alice.ask(&list).body;
        let heard = |servers: &[(String, Fixture)]| -> Vec<_> {
            servers.iter().map(|(_, fixture)| (fixture.counts().requests, fixture.counts().connections)).collect()
        };
        let before = heard(&servers);
        for fault in [None, Some(Fault::Hang), Some(Fault::CloseWithoutAnswer)] {
            for (_, fixture) in &servers {
                fixture.switches().clear();
                fault.clone().into_iter().for_each(|fault| fixture.switches().on(fault));
            }
            for _ in 0..20 {
                assert_eq!(alice.ask(&list).body, warm, "{fault:?}");
            }
        }
        assert_eq!(heard(&servers), before, "a list that is known is asked of nobody");
        servers.iter().for_each(|(_, fixture)| fixture.switches().clear());
    }
    let warm = harness.client(ALICE).tools();
    servers.iter_mut().for_each(|(_, fixture)| fixture.stop());
    assert_eq!((harness.client(ALICE).tools().len(), harness.client(ALICE).tools()), (3, warm));
}
