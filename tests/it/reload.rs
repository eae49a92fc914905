//! Editing `config.toml` while clients are at work: in force within two seconds, nobody's request harmed, a bad edit
//! refused. Design 1.6, 5, 12; issue 2, "Done when".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mcp_x::policy::{ClientId, Registry};
use mcp_x::wire::config::Secrets;

use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, BOB, CHARLIE, Harness, call_message, clients, server, wait_until};

/// How long an edit may take to be in force, and a little for a busy machine.
const SOON: Duration = Duration::from_millis(2500);

/// Alice's server, and what bob may use of it.
fn config(upstream: &Upstream, grant: &str) -> String {
    clients() + &server("server_a", "alice", upstream, "") + &format!("[allow.server_a]\nbob = [{grant}]\n")
}

/// Waits until something holds that an edit just made should bring about.
#[track_caller]
fn soon(what: &str, is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    wait_until(what, is_so);
    assert!(begun.elapsed() < SOON, "{what}: took {:?}", begun.elapsed());
}

#[test]
fn grants_change_under_a_running_load_without_a_failed_call() {
    let upstream = Plan::new("a").tools(&["one", "two"]).start();
    let harness = Harness::start(&config(&upstream, "\"one\""));
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = [(ALICE, "two"), (BOB, "one")]
        .into_iter()
        .map(|(token, tool)| {
            let mut client = harness.client(token);
            let (stop, made) = (Arc::clone(&stop), Arc::clone(&made));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.text(tool), format!("a:{tool}"));
                    made.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut bob = harness.client(BOB);
    assert_eq!(bob.tools(), ["one"]);
    harness.replace_config(&config(&upstream, "\"*\""));
    soon("bob sees two", || bob.tools() == ["one", "two"]);
    assert_eq!(bob.text("two"), "a:two");
    harness.overwrite_config(&config(&upstream, "\"one\""));
    soon("bob sees one again", || bob.tools() == ["one"]);
    assert_eq!(bob.error("two"), (-32602, "unknown tool: `two`".to_owned()));
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().unwrap();
    }
    assert!(made.load(Ordering::Relaxed) > 20, "there was hardly a load");
}

#[test]
fn a_grant_that_is_taken_is_refused_to_calls_as_well() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, "\"*\""));
    let mut bob = harness.client(BOB);
    assert_eq!(bob.text("echo"), "a:echo");
    harness.replace_config(&config(&upstream, ""));
    soon("bob is refused", || bob.call("echo").get("error").is_some());
    assert_eq!(bob.error("echo"), (-32602, "unknown tool: `echo`".to_owned()));
    assert_eq!(bob.tools(), [""; 0]);
}

#[test]
fn a_client_that_is_removed_is_refused_and_a_new_token_is_let_in() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, "\"*\""));
    assert_eq!(harness.client(BOB).text("echo"), "a:echo");
    harness.replace_config(&config(&upstream, "\"*\"").replace(BOB, "another-secret-91"));
    let status = |token| harness.client(token).post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status();
    soon("the old token is refused", || status(BOB) == 401);
    assert_eq!(status("another-secret-91"), 200);
}

#[test]
fn a_bad_edit_keeps_the_last_good_configuration_and_says_why() {
    let upstream = Plan::new("a").tools(&["one", "two"]).start();
    let good = config(&upstream, "\"one\"");
    let harness = Harness::start(&good);
    let mut bob = harness.client(BOB);
    assert_eq!(bob.tools(), ["one"]);
    let line = good.lines().position(|line| line.starts_with("bob = ")).unwrap() + 1;
    let rows = [
        (good.replace("bob = [\"one\"]", "bob = [7]"), format!("config.toml:{line}")),
        (good.replace("[allow.server_a]", "[allow.server_a"), format!("config.toml:{}", line - 1)),
    ];
    for (at, (bad, expected)) in rows.into_iter().enumerate() {
        harness.replace_config(&bad);
        wait_until("the edit is refused", || harness.log().matches("ERROR configuration refused").count() > at);
        harness.wait_for_log(&expected);
        assert_eq!(bob.tools(), ["one"], "after {bad}");
        assert_eq!(bob.text("one"), "a:one");
    }
    harness.overwrite_config(&config(&upstream, "\"two\""));
    soon("the next good edit is in force", || bob.tools() == ["two"]);
}

#[test]
fn every_problem_of_a_bad_edit_is_named() {
    let upstream = Plan::new("a").start();
    let good = config(&upstream, "\"one\"");
    let harness = Harness::start(&good);
    let bad =
        good.replace("bob = [\"one\"]", "bob = [7]").replace("[clients.charlie]", "[clients.charlie]\nadmim = true");
    harness.replace_config(&bad);
    harness.wait_for_log("problems=2");
    let log = harness.log();
    assert!(log.contains("admim") && log.contains("allow.server_a.bob"), "{log}");
    assert!(log.contains("keeping="), "{log}");
}

#[test]
fn a_file_that_vanishes_keeps_the_last_good_configuration() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, "\"*\""));
    let mut bob = harness.client(BOB);
    assert_eq!(bob.text("echo"), "a:echo");
    harness.remove_config();
    harness.wait_for_log("ERROR configuration unreadable");
    assert_eq!(bob.text("echo"), "a:echo");
    harness.replace_config(&config(&upstream, ""));
    soon("the new file is in force", || bob.tools().is_empty());
}

#[test]
fn servers_come_and_go() {
    let (first, second) = (Plan::new("a").start(), Plan::new("b").tools(&["other"]).start());
    let one = clients() + &server("server_a", "alice", &first, "");
    let both = one.clone() + &server("server_b", "alice", &second, "");
    let harness = Harness::start(&one);
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), ["echo"]);
    harness.replace_config(&both);
    soon("the new server is there", || alice.tools() == ["echo", "other"]);
    assert_eq!(alice.text("other"), "b:other");
    let handshakes = first.state().of("initialize").len();
    harness.replace_config(&one);
    soon("the server is gone", || alice.tools() == ["echo"]);
    assert_eq!(alice.error("other"), (-32602, "unknown tool: `other`".to_owned()));
    assert_eq!(alice.text("echo"), "a:echo");
    assert_eq!(first.state().of("initialize").len(), handshakes, "a server that stays is left alone");
}

#[test]
fn a_server_that_moves_is_called_at_its_new_place() {
    let (old, new) = (Plan::new("old").start(), Plan::new("new").start());
    let harness = Harness::start(&config(&old, "\"*\""));
    let mut bob = harness.client(BOB);
    assert_eq!(bob.text("echo"), "old:echo");
    harness.replace_config(&config(&new, "\"*\""));
    soon("the new place is called", || bob.text("echo") == "new:echo");
    let calls = old.calls().len();
    assert_eq!(bob.text("echo"), "new:echo");
    assert_eq!(old.calls().len(), calls);
}

#[test]
fn a_request_that_began_before_its_server_moved_finds_it_at_its_new_place() {
    let (old, new) = (Plan::new("old").start(), Plan::new("new").tools(&["echo", "other"]).start());
    let harness = Harness::start(&config(&old, "\"*\""));
    assert_eq!(harness.client(BOB).tools(), ["echo"]);
    let (gateway, bob) = (harness.gateway(), ClientId::new("bob"));
    let before = gateway.snapshot();
    let built = Registry::load(&config(&new, "\"*\""), |_| Secrets::default());
    gateway.publish(built.registry.unwrap());
    // Its own registry names a server that is not there any more, and must not be taken for one without tools.
    let view = harness.block_on(gateway.view(&before, &bob));
    assert_eq!(view.names().collect::<Vec<_>>(), ["echo", "other"]);
    assert_eq!(harness.client(BOB).text("echo"), "new:echo");
}

#[test]
fn a_call_in_flight_during_a_reload_finishes() {
    let (upstream, other) = (Plan::new("a").start(), Plan::new("b").tools(&["other"]).start());
    let harness = Harness::start(&config(&upstream, "\"*\""));
    let gate = upstream.wait_at_gate();
    let (mut alice, mut charlie) = (harness.client(ALICE), harness.client(CHARLIE));
    alice.send(call_message("1", "echo", "{}"));
    upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
    // Even the server is taken out.
    harness.replace_config(&(clients() + &server("server_b", "charlie", &other, "")));
    soon("the reload", || charlie.tools() == ["other"]);
    gate.open();
    let answer = alice.connection.answer();
    assert!(answer.body.contains("a:echo"), "{answer:?}");
    assert_eq!(alice.tools(), [""; 0]);
}

#[test]
fn a_session_outlives_a_reload() {
    let upstream = Plan::new("a").sessionful().start();
    let harness = Harness::start(&config(&upstream, "\"*\""));
    let mut bob = harness.client(BOB);
    bob.initialize("2025-11-25");
    assert_eq!(bob.text("echo"), "a:echo");
    let handshakes = upstream.state().of("initialize").len();
    harness.replace_config(&config(&upstream, "\"*\", \"x\""));
    harness.wait_for_log("configuration loaded");
    assert_eq!(bob.text("echo"), "a:echo");
    assert_eq!(upstream.state().of("initialize").len(), handshakes, "the session with the server is kept");
}

/// Design 1.4: a bad server costs the tools it owns and nothing more, from the moment on that it is added.
#[test]
fn a_new_server_that_hangs_does_not_hold_up_calls_to_others() {
    let (good, hanging) = (Plan::new("a").start(), Plan::new("hanging").start());
    hanging.on_request(|exchange| exchange.hang());
    let one = clients() + &server("server_a", "alice", &good, "");
    let harness = Harness::start(&one);
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.text("echo"), "a:echo");
    harness.replace_config(&(one + &server("server_b", "alice", &hanging, "")));
    // Long enough that calls are made before, at and after the reload.
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    while hanging.state().received.is_empty() || begun.elapsed() < SOON {
        assert!(begun.elapsed() < 4 * SOON, "the new server was never asked");
        let call = Instant::now();
        assert_eq!(alice.text("echo"), "a:echo");
        longest = longest.max(call.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "a call took {longest:?}");
}

#[test]
fn an_emptied_file_keeps_the_last_good_one_and_says_so() {
    let upstream = Plan::new("a").tools(&["one", "two"]).start();
    let harness = Harness::start(&config(&upstream, "\"one\""));
    harness.empty_config();
    harness.wait_for_log("WARN configuration empty");
    assert_eq!(harness.client(BOB).text("one"), "a:one");
    harness.overwrite_config(&config(&upstream, "\"two\""));
    soon("bob sees two", || harness.client(BOB).tools() == ["two"]);
}
