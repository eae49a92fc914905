//! Sessions outlive the gateway, however it ends: its clients go on in them, servers with state behind theirs too, and what
//! has ended stays ended. Design 8, 9; protocol.md 3.3, 4.1.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use mcp_x_fixture::{Fixture, Mode, Options, Received};
use serde_json::Value;

use super::support::client::Client;
use super::support::process::{Served, program};
use super::support::{ALICE, BOB, Folder, Harness, call_message, clients, side_by_side, wait_until};

const WATCHED: &str = "test://watched-resource";

fn stateful() -> Fixture {
    Fixture::start(Options::of(Mode::LegacySessions))
}

/// Alice owns a server, and bob may use it. It shows everybody the header with which it is asked.
fn shared(fixture: &Fixture) -> String {
    let server = format!("[mcp_servers.server_a]\nurl = \"{}\"\nfrom_client = \"alice\"\n", fixture.url());
    clients() + &server + "headers = { X-Key = \"one\" }\n[allow.server_a]\nbob = [\"*\"]\n"
}

/// Calls a tool with arguments of this call's own; the session with the server that it ran in.
#[track_caller]
fn served_in(client: &mut Client, call: &str) -> String {
    let answer = client.post(call_message("1", "whoami", &format!(r#"{{"call":"{call}"}}"#)));
    assert_eq!(answer.status(), 200, "{answer:?}");
    let text = answer.response()["result"]["content"][0]["text"].as_str().map(str::to_owned);
    let known: Value = serde_json::from_str(&text.unwrap_or_else(|| panic!("no text: {answer:?}"))).unwrap();
    known["session"].as_str().unwrap().to_owned()
}

/// A client of a session that was opened before.
fn back(mut client: Client, session: &str) -> Client {
    client.session = Some(session.to_owned());
    client
}

/// A client in a session of its own, and that session's id.
#[track_caller]
fn opened(mut client: Client) -> (Client, String) {
    let session = client.initialize("2025-06-18");
    (client, session)
}

#[track_caller]
fn status(client: &mut Client) -> u16 {
    client.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status()
}

/// What the server was told of log levels, in the order in which it was: the session, and what was sent.
fn levels(fixture: &Fixture) -> Vec<(String, String)> {
    let of = |received: Received| {
        let session = received.header("mcp-session-id").unwrap_or_default().to_owned();
        received.body.contains("logging/setLevel").then_some((session, received.body))
    };
    fixture.received().into_iter().filter_map(of).collect()
}

fn journal(state: &Path, number: usize) -> PathBuf {
    state.join("sessions").join(format!("journal-{number}"))
}

/// One of the sessions that are open when the gateway is killed.
struct Open {
    token: &'static str,
    session: String,
    /// The session with the server.
    behind: String,
}

#[test]
fn kill_9_under_a_thousand_sessions_is_noticed_by_none_of_them() {
    const SESSIONS: usize = 1_000;
    const RUNNING: usize = 16;
    let (fixture, folder) = (stateful(), Folder::new());
    fs::write(folder.config(), shared(&fixture)).unwrap();
    let mut served = Served::start(&folder);
    let all = Mutex::new(Vec::with_capacity(SESSIONS));
    side_by_side(0..SESSIONS, |number| {
        let token = if number % 2 == 0 { ALICE } else { BOB };
        let (mut client, session) = opened(served.client_of(token));
        let behind = served_in(&mut client, &format!("before {number}"));
        all.lock().unwrap().push(Open { token, session, behind });
    });
    let mut all = all.into_inner().unwrap();
    let mut running: Vec<Client> = Vec::new();
    for (number, open) in all.iter().take(RUNNING).enumerate() {
        let mut client = back(served.client_of(open.token), &open.session);
        client.send(call_message("1", "slow", &format!(r#"{{"ms":60000,"call":{number}}}"#)));
        running.push(client);
    }
    wait_until("they run", || fixture.counts().executions_of("slow") == RUNNING as u64);
    served.signal("KILL");
    served.end();
    let handshakes = fixture.counts().requests_of("initialize");
    let served = Served::start(&folder);
    all.sort_by(|one, other| one.session.cmp(&other.session));
    side_by_side(&all, |open| {
        let mut client = back(served.client_of(open.token), &open.session);
        assert_eq!(served_in(&mut client, &format!("after {}", open.session)), open.behind);
    });
    let counts = fixture.counts();
    assert_eq!(counts.executions_of("whoami"), 2 * SESSIONS as u64);
    assert_eq!(counts.most_repeated(), 1, "a call ran twice");
    assert_eq!(counts.requests_of("initialize"), handshakes + 1, "only the catalogue's session is another");
    assert_eq!(counts.requests_of("DELETE"), 0);
}

#[test]
fn what_was_asked_for_and_what_has_ended_outlives_kill_9() {
    let (fixture, folder) = (stateful(), Folder::new());
    fs::write(folder.config(), shared(&fixture)).unwrap();
    let mut served = Served::start(&folder);
    let (mut alice, own) = opened(served.client());
    let set = r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"error"}}"#;
    assert_eq!(alice.post(set).status(), 200);
    let behind = served_in(&mut alice, "1");
    let (mut other, ended) = opened(served.client());
    served_in(&mut other, "2");
    assert_eq!(other.delete().status(), 204);
    served.signal("KILL");
    served.end();
    assert_eq!(levels(&fixture).len(), 1);

    let served = Served::start(&folder);
    for _ in 0..2 {
        assert_eq!(status(&mut back(served.client(), &ended)), 404);
    }
    assert_eq!(back(served.client(), &ended).delete().status(), 404);
    let mut alice = back(served.client(), &own);
    assert_eq!(served_in(&mut alice, "3"), behind);
    let told = levels(&fixture);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].0 == behind && told[1].1.contains(r#""level":"error""#), "{told:?}");
}

#[test]
fn subscriptions_outlive_kill_9() {
    let (fixture, folder) = (stateful(), Folder::new());
    // Nothing but an update is to come in the time that it is waited for.
    fs::write(folder.config(), shared(&fixture) + "[gateway]\nkeep_alive_seconds = 60\n").unwrap();
    let mut served = Served::start(&folder);
    let (mut alice, own) = opened(served.client());
    for (method, uri) in
        [("subscribe", "test://static-text"), ("subscribe", WATCHED), ("unsubscribe", "test://static-text")]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/{method}","params":{{"uri":"{uri}"}}}}"#);
        assert!(alice.post(body).response().get("result").is_some(), "{method} {uri}");
    }
    served.signal("KILL");
    served.end();
    let served = Served::start(&folder);
    let mut stream = back(served.client(), &own).get_stream();
    wait_until("an update is told", || {
        fixture.resource_updated("test://static-text");
        fixture.resource_updated(WATCHED);
        stream.has_event()
    });
    let told = stream.message();
    assert_eq!((&told["method"], &told["params"]["uri"]), (&"notifications/resources/updated".into(), &WATCHED.into()));
}

#[test]
fn a_plain_stop_ends_no_session_with_a_server() {
    let fixture = stateful();
    let mut harness = Harness::start(&shared(&fixture));
    let (mut alice, session) = opened(harness.client(ALICE));
    let (behind, outside) = (served_in(&mut alice, "1"), served_in(&mut harness.client(ALICE), "2"));
    assert_ne!(behind, outside);
    for round in 0..2 {
        drop(alice);
        harness.restart();
        alice = back(harness.client(ALICE), &session);
        assert_eq!(served_in(&mut alice, &format!("in a session {round}")), behind);
        assert_eq!(served_in(&mut harness.client(ALICE), &format!("outside {round}")), outside);
    }
    assert_eq!(fixture.counts().requests_of("DELETE"), 0);
    let log = harness.log();
    assert!(!log.contains(&behind) && !log.contains(&outside), "a credential is in the log:\n{log}");
    // One that was not used since the restart is ended like any other.
    drop(alice);
    harness.restart();
    assert_eq!(back(harness.client(ALICE), &session).delete().status(), 204);
    wait_until("the server hears of the end", || fixture.counts().requests_of("DELETE") == 1);
    let ended: Vec<_> = fixture.received().into_iter().filter(|r| r.method == "DELETE").collect();
    assert_eq!(ended[0].header("mcp-session-id"), Some(behind.as_str()));
    harness.restart();
    assert_eq!(served_in(&mut harness.client(ALICE), "3"), outside);
}

/// No id of a request occurs twice in a session with a server, whichever process sent it.
#[test]
fn ids_of_requests_are_never_used_again_in_a_session() {
    let fixture = stateful();
    let mut harness = Harness::start(&shared(&fixture));
    let session = opened(harness.client(ALICE)).1;
    let mut behind = String::new();
    for round in 0..3 {
        let mut alice = back(harness.client(ALICE), &session);
        for call in 0..10 {
            behind = served_in(&mut alice, &format!("{round}.{call}"));
        }
        drop(alice);
        harness.restart();
    }
    let calls = fixture.received().into_iter().filter(|r| r.header("mcp-session-id") == Some(&behind));
    let ids = calls.filter_map(|call| serde_json::from_str::<Value>(&call.body).ok()?["id"].as_u64());
    let ids: Vec<u64> = ids.collect();
    let different: BTreeSet<u64> = ids.iter().copied().collect();
    assert!(ids.len() == 30 && different.len() == 30, "{ids:?}");
}

#[test]
fn a_server_that_was_restarted_too_is_renewed_and_no_call_runs_twice() {
    let mut fixture = stateful();
    let mut harness = Harness::start(&shared(&fixture));
    let (mut alice, session) = opened(harness.client(ALICE));
    let first = served_in(&mut alice, "1");
    drop(alice);
    harness.restart();
    fixture.forget_sessions();
    let mut alice = back(harness.client(ALICE), &session);
    let second = served_in(&mut alice, "2");
    assert_ne!(first, second);
    assert_eq!(fixture.counts().most_repeated(), 1);
    // Only the newest is kept.
    drop(alice);
    harness.restart();
    let mut alice = back(harness.client(ALICE), &session);
    assert_eq!(served_in(&mut alice, "3"), second);
    fixture.restart().unwrap();
    assert_ne!(served_in(&mut alice, "4"), second);
    assert_eq!((fixture.counts().executions_of("whoami"), fixture.counts().most_repeated()), (1, 1));
}

#[test]
fn gateways_on_one_state_folder_know_each_others_sessions_after_a_restart() {
    let fixture = stateful();
    let mut one = Harness::start(&shared(&fixture));
    let mut other = one.second();
    let (mut alice, at_one) = opened(one.client(ALICE));
    let (mut bob, at_other) = opened(other.client(BOB));
    let (behind_one, behind_other) = (served_in(&mut alice, "1"), served_in(&mut bob, "2"));
    let ended = opened(one.client(ALICE)).1;
    assert_eq!(back(one.client(ALICE), &ended).delete().status(), 204);
    let state = one.config_path().parent().unwrap().to_owned();
    assert!(journal(&state, 0).exists() && journal(&state, 1).exists());
    drop((alice, bob));
    other.restart();
    assert_eq!(served_in(&mut back(other.client(ALICE), &at_one), "3"), behind_one);
    assert_eq!(status(&mut back(other.client(ALICE), &ended)), 404);
    one.restart();
    for (gateway, round) in [(&one, "4"), (&other, "5")] {
        assert_eq!(served_in(&mut back(gateway.client(BOB), &at_other), round), behind_other);
        assert_eq!(served_in(&mut back(gateway.client(ALICE), &at_one), &format!("{round} too")), behind_one);
        assert_eq!(status(&mut back(gateway.client(ALICE), &ended)), 404);
    }
    assert_eq!(fixture.counts().most_repeated(), 1);
}

/// A session is a credential: who is asked with other headers is perhaps another.
#[test]
fn a_session_of_other_credentials_is_not_used() {
    let fixture = stateful();
    let mut harness = Harness::start(&shared(&fixture));
    let (mut alice, session) = opened(harness.client(ALICE));
    let first = served_in(&mut alice, "1");
    drop(alice);
    harness.overwrite_config(&shared(&fixture).replace("X-Key = \"one\"", "X-Key = \"another\""));
    harness.restart();
    let second = served_in(&mut back(harness.client(ALICE), &session), "2");
    assert_ne!(first, second);
    harness.restart();
    assert_eq!(served_in(&mut back(harness.client(ALICE), &session), "3"), second);
}

#[test]
fn a_client_or_server_that_went_meanwhile_takes_its_sessions_along() {
    let fixture = stateful();
    let whole = shared(&fixture);
    let mut harness = Harness::start(&whole);
    let path = journal(harness.config_path().parent().unwrap(), 0);
    let kept = || fs::read_to_string(&path).unwrap().matches("\"server/").count();
    let (mut alice, _) = opened(harness.client(ALICE));
    let (mut bob, _) = opened(harness.client(BOB));
    let behind = served_in(&mut bob, "1");
    served_in(&mut alice, "2");
    assert_eq!(kept(), 2);
    drop((alice, bob));
    harness.overwrite_config(&whole.replace("[clients.bob]", "[clients.robert]"));
    harness.restart();
    let ended = || fixture.received().into_iter().filter(|r| r.method == "DELETE").collect::<Vec<_>>();
    wait_until("the server hears of the end", || !ended().is_empty());
    assert_eq!(ended()[0].header("mcp-session-id"), Some(behind.as_str()));
    harness.overwrite_config(&clients());
    harness.restart();
    harness.restart();
    assert_eq!(kept(), 0);
}

#[test]
fn what_is_damaged_is_told_once_and_the_rest_is_used() {
    let fixture = stateful();
    let mut harness = Harness::start(&shared(&fixture));
    let (mut alice, session) = opened(harness.client(ALICE));
    let behind = served_in(&mut alice, "1");
    drop(alice);
    let path = journal(harness.config_path().parent().unwrap(), 0);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut kept = OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut kept, b"0123456789abcdef [17").unwrap();
    harness.restart();
    assert_eq!(served_in(&mut back(harness.client(ALICE), &session), "2"), behind);
    harness.restart();
    assert_eq!(served_in(&mut back(harness.client(ALICE), &session), "3"), behind);
    assert_eq!(harness.log().matches("WARN kept sessions damaged ").count(), 1, "{}", harness.log());
}

#[test]
fn a_state_folder_that_takes_no_sessions_costs_a_record_and_nothing_else() {
    let fixture = stateful();
    let folder = Folder::new();
    fs::write(folder.config(), shared(&fixture)).unwrap();
    fs::write(folder.path().join("sessions"), "in the way").unwrap();
    let mut served = Served::start(&folder);
    let (mut alice, session) = opened(served.client());
    let behind = served_in(&mut alice, "1");
    assert_eq!(served_in(&mut back(served.client(), &session), "2"), behind);
    served.signal("TERM");
    let (status, log) = served.end();
    assert!(status.success(), "{log}");
    let served = Served::start(&folder);
    assert_ne!(served_in(&mut back(served.client(), &session), "3"), behind);
}

#[test]
fn the_commands_that_only_ask_leave_no_trace_of_sessions() {
    let (fixture, folder) = (stateful(), Folder::new());
    fs::write(folder.config(), shared(&fixture)).unwrap();
    let config = folder.config().display().to_string();
    let explained = program(&["explain", "--config", &config, "--client", "alice", "--tool", "echo"]).output().unwrap();
    assert!(explained.status.success(), "{explained:?}");
    assert!(!folder.path().join("sessions").exists());
}

#[test]
fn whoever_unsubscribes_first_thing_after_a_restart_is_not_subscribed_again() {
    let fixture = stateful();
    let quiet = "[gateway]\nkeep_alive_seconds = 60\n";
    let mut harness = Harness::start(&(shared(&fixture) + quiet));
    let (mut alice, session) = opened(harness.client(ALICE));
    let ask = |client: &mut Client, method: &str, uri: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/{method}","params":{{"uri":"{uri}"}}}}"#);
        assert!(client.post(body).response().get("result").is_some(), "{method} {uri}");
    };
    for uri in ["test://static-text", WATCHED] {
        ask(&mut alice, "subscribe", uri);
    }
    drop(alice);
    harness.restart();
    let mut alice = back(harness.client(ALICE), &session);
    ask(&mut alice, "unsubscribe", "test://static-text");
    let mut stream = alice.get_stream();
    wait_until("an update is told", || {
        fixture.resource_updated(WATCHED);
        stream.has_event()
    });
    assert_eq!(stream.message()["params"]["uri"], WATCHED);
    // The server is asked for one after the other.
    ask(&mut alice, "subscribe", "test://template/1/data");
    let asked = fixture.received().into_iter().filter(|r| r.body.contains("resources/subscribe"));
    assert_eq!(asked.filter(|r| r.body.contains("test://static-text")).count(), 1);
}

#[test]
fn a_client_that_registered_itself_takes_all_along_that_was_kept_of_it() {
    let (fixture, folder) = (stateful(), Folder::new());
    fs::write(folder.config(), shared(&fixture) + "[gateway]\nregistration = \"open\"\n").unwrap();
    let mut served = Served::start(&folder);
    let registered = served.client().done("/register_client", &serde_json::json!({}));
    let text = |member: &str| registered[member].as_str().unwrap().to_owned();
    let (id, token) = (text("client_id"), text("auth_token"));
    let (mut client, _) = opened(served.client_of(&token));
    let set = r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"error"}}"#;
    assert_eq!(client.post(set).status(), 200);
    let (mut other, _) = opened(served.client_of(&token));
    assert_eq!(other.delete().status(), 204);
    let (mut alice, ended) = opened(served.client());
    assert_eq!(alice.delete().status(), 204);
    let kept = |kind: &str| fs::read_to_string(journal(folder.path(), 0)).unwrap().matches(kind).count();
    assert_eq!((kept("\"level/"), kept("\"ended/")), (1, 2));
    client.done("/unregister_client", &serde_json::json!({ "client_id": id }));
    served.signal("TERM");
    let (status, log) = served.end();
    assert!(status.success(), "{log}");
    let served = Served::start(&folder);
    assert_eq!((kept("\"level/"), kept("\"ended/")), (0, 1));
    assert_eq!(status_of(&served, &ended), 404);
}

/// How a request in a session of alice's is answered.
fn status_of(served: &Served, session: &str) -> u16 {
    status(&mut back(served.client(), session))
}
