//! `notifications/cancelled`: a call that its client calls off ends at the server, and is never answered; nobody else can
//! call it off. Protocol.md 2.4, 3.7, 4.2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, Gate, Harness, call_message, owned_by_alice, wait_until};

/// A gateway with a server whose calls wait for the gate; with `streaming` they send an event first.
fn waiting(upstream: &Upstream, streaming: bool) -> (Harness, Gate) {
    let gate = Gate::default();
    let waited = gate.clone();
    upstream.on_call(move |exchange| {
        if streaming {
            exchange.begin_events();
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#);
        }
        waited.wait();
        match streaming {
            true => exchange.result_event("{}"),
            false => exchange.result("{}"),
        }
    });
    (Harness::start(&owned_by_alice(&[("server_a", upstream)])), gate)
}

fn cancelled(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"enough"}}}}"#)
}

#[test]
fn a_call_that_is_called_off_ends_at_the_server_and_is_not_answered() {
    for streaming in [false, true] {
        for plan in [Plan::new("a"), Plan::new("a").sessionful()] {
            let upstream = plan.start();
            let (harness, gate) = waiting(&upstream, streaming);
            let mut alice = harness.client(ALICE);
            alice.initialize("2025-11-25");
            alice.send(call_message(r#""mine""#, "echo", "{}"));
            upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
            if streaming {
                assert!(alice.connection.head().is_stream());
                assert!(alice.connection.event().is_some());
            }
            assert_eq!(alice.another().post(cancelled(r#""mine""#)).status(), 202);
            upstream.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == 1);
            let of_server = upstream.state().of("notifications/cancelled").pop().unwrap();
            let call = upstream.calls().pop().unwrap();
            assert_eq!(of_server.json()["params"]["requestId"].to_string(), call.id());
            assert_eq!(of_server.header("mcp-session-id"), call.header("mcp-session-id"));
            if !streaming {
                assert!(alice.connection.head().is_stream());
            }
            assert_eq!(alice.connection.event(), None, "a call that was called off is not answered");
            gate.open();
            upstream.on_call(|exchange| exchange.echo());
            assert_eq!(alice.another().text("echo"), "a:echo");
        }
    }
}

#[test]
fn a_client_that_has_left_can_still_call_off() {
    let upstream = Plan::new("a").start();
    let (harness, gate) = waiting(&upstream, false);
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    let mut later = alice.another();
    alice.send(call_message("7", "echo", "{}"));
    upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
    drop(alice);
    harness.wait_for_log("end=\"client left\"");
    assert!(upstream.state().of("notifications/cancelled").is_empty(), "leaving calls nothing off");
    assert_eq!(later.post(cancelled("7")).status(), 202);
    upstream.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == 1);
    gate.open();
}

#[test]
fn a_cancellation_that_may_have_overtaken_its_call_is_repeated() {
    for streaming in [false, true] {
        let upstream = Plan::new("a").sessionful().start();
        let (harness, gate) = waiting(&upstream, streaming);
        let mut alice = harness.client(ALICE);
        alice.initialize("2025-11-25");
        alice.send(call_message("7", "echo", "{}"));
        upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
        if streaming {
            assert!(alice.connection.head().is_stream());
            assert!(alice.connection.event().is_some());
        }
        let begun = Instant::now();
        assert_eq!(alice.another().post(cancelled("7")).status(), 202);
        // Of a call that has begun to answer the server knows.
        let times = if streaming { 1 } else { 2 };
        upstream.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == times);
        let call = upstream.calls().pop().unwrap();
        for told in upstream.state().of("notifications/cancelled") {
            assert_eq!(told.json()["params"]["requestId"].to_string(), call.id());
            assert_eq!(told.header("mcp-session-id"), call.header("mcp-session-id"));
        }
        assert!(streaming || begun.elapsed() > Duration::from_millis(900));
        gate.open();
    }
}

#[test]
fn only_the_session_that_called_can_call_off() {
    let upstream = Plan::new("a").start();
    let (harness, gate) = waiting(&upstream, false);
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    alice.send(call_message("7", "echo", "{}"));
    upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);

    let mut other_session = harness.client(ALICE);
    other_session.initialize("2025-11-25");
    assert_eq!(other_session.post(cancelled("7")).status(), 202);
    assert_eq!(harness.client(ALICE).post(cancelled("7")).status(), 202, "outside of any session");
    assert_eq!(alice.another().post(cancelled(r#""7""#)).status(), 202, "another id");
    assert_eq!(alice.another().post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#).status(), 202);

    gate.open();
    assert_eq!(alice.connection.answer().body, r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
    assert!(upstream.state().of("notifications/cancelled").is_empty());
}

#[test]
fn calling_off_what_is_over_changes_nothing() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    assert_eq!(alice.post(call_message("1", "echo", "{}")).status(), 200);
    assert_eq!(alice.post(cancelled("1")).status(), 202);
    assert_eq!(alice.text("echo"), "a:echo");
    assert!(upstream.state().of("notifications/cancelled").is_empty());
}

#[test]
fn a_server_that_takes_no_cancellations_has_no_more_of_them_wait_than_may() {
    const CALLS: usize = 100;
    const MOST: usize = 64;
    let upstream = Plan::new("a").start();
    let (harness, calls) = waiting(&upstream, true);
    let (gate, waiting, most) = (Gate::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    let mut streams = Vec::new();
    for id in 0..CALLS {
        let mut client = alice.another();
        client.send(call_message(&id.to_string(), "echo", "{}"));
        assert!(client.connection.head().is_stream());
        streams.push(client);
    }
    let (waited, counted, highest) = (gate.clone(), Arc::clone(&waiting), Arc::clone(&most));
    upstream.on_request(move |exchange| {
        highest.fetch_max(counted.fetch_add(1, Relaxed) + 1, Relaxed);
        waited.wait();
        counted.fetch_sub(1, Relaxed);
        exchange.respond(202, "application/json", "");
    });
    let cancellations = || upstream.state().of("notifications/cancelled").len();
    for id in 0..CALLS {
        assert_eq!(alice.another().post(cancelled(&id.to_string())).status(), 202);
    }
    wait_until("the calls are over", || harness.gateway().vitals().calls == 0);
    wait_until("the server is told", || cancellations() >= MOST);
    gate.open();
    wait_until("the server has heard of all", || cancellations() == CALLS);
    assert_eq!(most.load(Relaxed), MOST);
    upstream.as_planned();
    calls.open();
}
