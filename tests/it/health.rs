//! The breaker: a server that cannot be reached costs its callers nothing but an error, and is found again when it is back.
//! Design 9; texts of style.md, "Errors".

use std::net::TcpListener;

use super::support::client::closed_port;
use super::support::upstream::Plan;
use super::support::{ALICE, Harness, Pair, UNREACHABLE, call_message, clients, owned_by_alice, wait_until};

const OPEN: &str = "WARN breaker open server=server_bad reason=\"breaker open, next probe in ";

impl Pair {
    /// How many calls ended like this.
    fn failed(&self, reason: &str) -> usize {
        let log = self.harness.log();
        log.lines().filter(|line| line.contains("WARN call failed") && line.contains(reason)).count()
    }
}

#[test]
fn a_dead_server_costs_a_connection_or_two_and_not_one_for_every_call() {
    const CALLS: usize = 50;
    let pair = Pair::start("");
    let mut alice = pair.harness.client(ALICE);
    pair.bad.stop();
    for _ in 0..CALLS {
        assert_eq!(alice.error("echo"), (-32603, UNREACHABLE.to_owned()));
    }
    let (tried, refused) =
        (pair.failed("reason=\"cannot connect"), pair.failed("reason=\"breaker open, next probe in "));
    assert!((1..=2).contains(&tried), "{tried} calls tried to connect");
    assert_eq!(tried + refused, CALLS);
    pair.harness.wait_for_log(OPEN);
    assert!(pair.harness.log().contains("cannot connect to"), "the operator reads why");
}

#[test]
fn a_server_that_is_back_is_found_by_the_probe_and_not_before() {
    let pair = Pair::start("");
    let mut alice = pair.harness.client(ALICE);
    pair.bad.stop();
    wait_until("the breaker is open", || alice.error("echo").1 == UNREACHABLE && pair.harness.log().contains(OPEN));
    pair.bad.start_again();
    wait_until("calls get through", || alice.call("echo").get("result").is_some());
    let log = pair.harness.log();
    assert!(log.contains("INFO breaker closed server=server_bad"), "{log}");
    assert!(log.contains("INFO server recovered server=server_bad"), "{log}");
    // All that reached it between its return and the first call that did was the probe.
    assert_eq!(pair.bad.calls().len(), 1);
    pair.bad.stop();
    wait_until("it opens again", || {
        alice.error("echo").1 == UNREACHABLE && pair.harness.log().matches(OPEN).count() == 2
    });
}

#[test]
fn lists_show_the_last_known_tools_of_a_dead_server_and_get_tools_how_it_is() {
    let pair = Pair::start("");
    let mut alice = pair.harness.client(ALICE);
    assert_eq!(alice.told_of("server_bad")["state"], "ok");
    pair.bad.stop();
    wait_until("the breaker is open", || alice.error("echo").1 == UNREACHABLE && pair.harness.log().contains(OPEN));
    assert_eq!(alice.tools(), ["echo", "fine"]);
    assert_eq!(alice.told_of("server_bad")["state"], "stale");
    assert_eq!(alice.told_of("server_good")["state"], "ok");
    pair.bad.start_again();
    wait_until("it is well again", || alice.told_of("server_bad")["state"] == "ok");
}

#[test]
fn a_server_that_never_answered_is_down() {
    let good = Plan::new("good").start();
    let down = format!("[mcp_servers.down]\nurl = \"http://{}/mcp\"\nfrom_client = \"alice\"\n", closed_port());
    let harness = Harness::start(&(owned_by_alice(&[("server_good", &good)]) + &down));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.text("echo"), "good:echo");
    assert_eq!(alice.told_of("down")["state"], "down");
}

#[test]
fn the_breaker_of_one_server_is_not_that_of_another() {
    let pair = Pair::start("");
    let mut alice = pair.harness.client(ALICE);
    pair.bad.stop();
    for _ in 0..10 {
        assert_eq!(alice.error("echo").1, UNREACHABLE);
        assert_eq!(alice.text("fine"), "good:fine");
    }
    assert_eq!(pair.good.calls().len(), 10);
    assert!(!pair.harness.log().contains("breaker open server=server_good"));
}

/// Whatever a server does once it has taken the connection, it is there.
#[test]
fn a_tool_that_hangs_or_fails_never_opens_the_breaker() {
    let pair = Pair::start("[gateway]\nsilent_call_seconds = 1\n");
    pair.bad.on_call(|exchange| exchange.hang());
    let mut waiting: Vec<_> = (0..8).map(|_| pair.harness.client(ALICE)).collect();
    for client in &mut waiting {
        client.send(call_message("1", "echo", "{}"));
    }
    for client in &mut waiting {
        let answer = client.connection.answer();
        assert!(answer.body.contains("sent nothing for 1 s"), "{answer:?}");
    }
    let mut alice = pair.harness.client(ALICE);
    pair.bad.on_call(|exchange| exchange.close());
    (0..4).for_each(|_| assert_eq!(alice.error("echo").0, -32603));
    pair.bad.on_call(|exchange| exchange.respond(503, "text/plain", ""));
    (0..4).for_each(|_| assert_eq!(alice.error("echo").0, -32603));
    pair.bad.on_call(|exchange| exchange.error(-32603, "no"));
    (0..4).for_each(|_| assert_eq!(alice.error("echo"), (-32603, "no".to_owned())));
    pair.bad.on_call(|exchange| exchange.echo());
    assert_eq!(alice.text("echo"), "bad:echo");
    assert!(!pair.harness.log().contains("breaker open"), "{}", pair.harness.log());
}

/// A handshake that nobody answers is a connection that cannot be made, and not a server that takes its time.
#[test]
fn a_connection_that_is_never_completed_opens_the_breaker() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/mcp", mute.local_addr().unwrap());
    let config = format!("{}[mcp_servers.mute]\nurl = \"{url}\"\nfrom_client = \"alice\"\n", clients());
    let harness = Harness::start(&(config + "[gateway]\nconnect_seconds = 2\nlist_timeout_seconds = 1\n"));
    harness.wait_for_log("WARN breaker open server=mute");
    assert_eq!(harness.client(ALICE).tools(), [""; 0]);
}
