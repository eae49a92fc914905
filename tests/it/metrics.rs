//! `/metrics`: who may read it, that it keeps the format's rules, that it counts what was done, and that every gauge comes
//! back to 0 however things end. Also the limit on bytes held. Design 13, 15.

use std::collections::BTreeSet;

use super::support::client::Client;
use super::support::exposition::Exposition;
use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, BOB, Gate, Harness, call_message, server, wait_until, with_admin};

const METRICS: &str = "metrics-secret-51d0";
const RELOADED: &str = "configuration loaded";

/// alice is admin and owns the server; there is a token for metrics.
fn config(upstream: &Upstream, gateway: &str) -> String {
    with_admin()
        + &server("server_a", "alice", upstream, "")
        + &format!("[gateway]\nmetrics_token = \"{METRICS}\"\n{gateway}\n")
}

#[track_caller]
fn read(harness: &Harness) -> Exposition {
    let answer = harness.client(METRICS).rest("GET", "/metrics", "");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.head.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Exposition::parse(&answer.body)
}

/// Waits until a gauge without labels has this value.
#[track_caller]
fn wait_for(harness: &Harness, name: &str, value: f64) {
    wait_until(&format!("{name} = {value}"), || read(harness).value(name, &[]) == value);
}

/// Nothing is going on but the reading of the metrics.
#[track_caller]
fn is_quiet(harness: &Harness) {
    for name in ["mcp_x_calls_in_flight", "mcp_x_event_streams", "mcp_x_buffered_bytes"] {
        wait_for(harness, name, 0.0);
    }
    assert_eq!(read(harness).value("mcp_x_server_calls_in_flight", &[("server", "server_a")]), 0.0);
}

fn calls(page: &Exposition, outcome: &str) -> f64 {
    page.value("mcp_x_server_calls_total", &[("server", "server_a"), ("outcome", outcome)])
}

fn errors(page: &Exposition, kind: &str) -> f64 {
    page.value("mcp_x_server_errors_total", &[("server", "server_a"), ("kind", kind)])
}

/// A call whose arguments have so many bytes.
fn large_call(id: &str, bytes: usize) -> String {
    call_message(id, "echo", &format!(r#"{{"text":"{}","deep":[{{"id":"not this"}}]}}"#, "x".repeat(bytes)))
}

#[test]
fn metrics_are_for_admins_and_for_the_holder_of_their_token() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, ""));
    let status = |token: &str, method: &str| harness.client(token).rest(method, "/metrics", "").status();
    assert_eq!((status(ALICE, "GET"), status(METRICS, "GET")), (200, 200));
    assert_eq!((status("", "GET"), status("nobody", "GET"), status(BOB, "GET")), (401, 401, 403));
    assert_eq!((status(ALICE, "POST"), status(METRICS, "POST"), status("", "POST")), (405, 405, 401));
    let mut connection = harness.connect();
    connection.send(format!("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {METRICS}\r\n\r\n"));
    let head = connection.answer_to_head();
    assert_eq!((head.status, head.header("cache-control")), (200, Some("no-store")));
    connection.send(format!("GET /metrics HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {METRICS}\r\n\r\n"));
    assert_eq!(connection.answer().status(), 403);
}

#[test]
fn the_token_for_metrics_opens_nothing_else() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, ""));
    let mut scraper = harness.client(METRICS);
    assert_eq!((scraper.tools_status(), scraper.delete().status()), (401, 401));
    for path in ["/status", "/servers", "/clients", "/get_tools", "/get_access_control", "/explain?tool=echo"] {
        assert_eq!(scraper.rest("GET", path, "").status(), 401, "{path}");
    }
    for path in ["/refresh_token", "/register_mcp_server", "/unregister_client", "/update_access_control"] {
        assert_eq!(scraper.rest("POST", path, "{}").status(), 401, "{path}");
    }
    harness.replace_config(&config(&upstream, "").replace(METRICS, ALICE));
    harness.wait_for_log("configuration refused");
    harness.wait_for_log("same token as `gateway.metrics_token`");
    harness.overwrite_config(&config(&upstream, "").replace(METRICS, "another-token"));
    harness.wait_for_log(RELOADED);
    assert_eq!(scraper.rest("GET", "/metrics", "").status(), 401);
    assert_eq!(harness.client("another-token").rest("GET", "/metrics", "").status(), 200);
}

#[test]
fn what_was_done_is_what_is_counted() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, ""));
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    alice.tools();
    alice.tools();
    for _ in 0..3 {
        alice.text("echo");
    }
    assert_eq!(alice.error("nothing").0, -32602);
    assert_eq!(alice.post(r#"{"jsonrpc":"2.0","id":1,"method":"made/up/by/a/client"}"#).code(), -32601);
    assert_eq!(harness.client("nobody").tools_status(), 401);
    assert_eq!(harness.client("").tools_status(), 401);
    assert_eq!(harness.client(ALICE).rest("GET", "/get_tools", "").status(), 200);
    let made_up = ("method", "other");
    wait_until("the last of them", || {
        read(&harness).value("mcp_x_rpc_requests_total", &[made_up, ("outcome", "error")]) == 1.0
    });
    let page = read(&harness);
    let rpc = |method: &str, outcome: &str| {
        page.value("mcp_x_rpc_requests_total", &[("method", method), ("outcome", outcome)])
    };
    assert_eq!((rpc("tools/list", "ok"), rpc("tools/call", "ok"), rpc("tools/call", "error")), (2.0, 3.0, 1.0));
    assert_eq!((rpc("initialize", "ok"), rpc("notifications/initialized", "ok"), rpc("ping", "ok")), (1.0, 1.0, 0.0));
    let took = |method: &str| page.value("mcp_x_rpc_duration_seconds_count", &[("method", method)]);
    assert_eq!((took("tools/list"), took("tools/call"), took("ping")), (2.0, 4.0, 0.0));
    assert_eq!((calls(&page, "result"), calls(&page, "error"), calls(&page, "failed")), (3.0, 0.0, 0.0));
    let own = &[("server", "server_a")];
    assert_eq!(page.value("mcp_x_server_call_duration_seconds_count", own), 3.0);
    assert!(page.value("mcp_x_server_call_duration_seconds_sum", own) > 0.0);
    assert_eq!(page.value("mcp_x_denied_total", &[]), 1.0);
    let refused = |reason: &str| page.value("mcp_x_http_refused_total", &[("reason", reason)]);
    assert_eq!((refused("not_authenticated"), refused("invalid_token"), refused("host")), (1.0, 1.0, 0.0));
    let http =
        |route: &str, status: &str| page.value("mcp_x_http_requests_total", &[("route", route), ("status", status)]);
    assert_eq!((http("/mcp", "2xx"), http("/mcp", "4xx"), http("/get_tools", "2xx")), (9.0, 2.0, 1.0));
    assert!(!page.values_of("method").contains("made/up/by/a/client"));
}

#[test]
fn the_state_of_configuration_servers_and_process_is_told() {
    let upstream = Plan::new("a").tools(&["one", "two"]).start();
    let harness = Harness::start(&config(&upstream, ""));
    harness.client(ALICE).tools();
    let page = read(&harness);
    let own = &[("server", "server_a")];
    let alone = |page: &Exposition, name: &str| page.value(name, &[]);
    assert_eq!((alone(&page, "mcp_x_clients"), alone(&page, "mcp_x_servers")), (3.0, 1.0));
    assert_eq!((alone(&page, "mcp_x_config_generation"), alone(&page, "mcp_x_config_refused")), (0.0, 0.0));
    let (started, loaded) = ("process_start_time_seconds", "mcp_x_config_loaded_timestamp_seconds");
    assert!(alone(&page, started) > 1.7e9 && alone(&page, loaded) >= alone(&page, started));
    assert_eq!(page.value("mcp_x_server_tools", own), 2.0);
    assert!(page.value("mcp_x_server_catalogue_age_seconds", own) < 15.0);
    assert_eq!(page.value("mcp_x_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(alone(&page, "process_resident_memory_bytes") > 1e6 && alone(&page, "process_open_fds") > 3.0);
    assert!(alone(&page, "process_cpu_seconds_total") >= 0.0 && alone(&page, "process_max_fds") > 3.0);

    harness.replace_config("[clients");
    harness.wait_for_log("configuration refused");
    assert_eq!(alone(&read(&harness), "mcp_x_config_refused"), 1.0);
    harness.replace_config(&config(&upstream, "[clients.another]\nauth_token = \"another-secret-1\""));
    harness.wait_for_log(RELOADED);
    wait_for(&harness, "mcp_x_config_generation", 1.0);
    let page = read(&harness);
    assert_eq!((alone(&page, "mcp_x_clients"), alone(&page, "mcp_x_config_refused")), (4.0, 0.0));
}

#[test]
fn the_state_of_a_server_is_one_of_four() {
    let upstream = Plan::new("a").start();
    let config = config(&upstream, "refresh_seconds = 1");
    let nowhere = "[mcp_servers.nowhere]\nurl = \"http://127.0.0.1:1/\"\nfrom_client = \"bob\"\n";
    let harness = Harness::start(&config.replacen("[gateway]", &format!("{nowhere}[gateway]"), 1));
    let state = |server: &str| {
        let page = read(&harness);
        let is = |state: &&str| page.value("mcp_x_server_state", &[("server", server), ("state", *state)]) == 1.0;
        let states: Vec<&str> = ["ok", "stale", "down", "starting"].into_iter().filter(is).collect();
        assert_eq!(states.len(), 1, "{states:?}");
        states[0].to_owned()
    };
    wait_until("down", || state("nowhere") == "down");
    wait_until("ok", || state("server_a") == "ok");
    upstream.stop();
    wait_until("stale", || state("server_a") == "stale");
    let page = read(&harness);
    assert_eq!(page.value("mcp_x_server_tools", &[("server", "server_a")]), 1.0);
    assert_eq!(page.get("mcp_x_server_catalogue_age_seconds", &[("server", "nowhere")]), None);
    let refreshes = |server: &str, outcome: &str| {
        page.value("mcp_x_server_refreshes_total", &[("server", server), ("outcome", outcome)])
    };
    assert!(refreshes("server_a", "ok") >= 1.0 && refreshes("server_a", "failed") >= 1.0);
    assert_eq!(refreshes("nowhere", "ok"), 0.0);
    upstream.start_again();
    wait_until("ok again", || state("server_a") == "ok");
}

#[test]
fn names_of_servers_cannot_break_the_page() {
    let upstream = Plan::new("a").start();
    let names = [r#"quote\"} 9"#, r"back\\slash\\n", r#"a\",state=\"ok"#, "é漢😀"];
    let mut config = config(&upstream, "");
    for name in names {
        let server = server(&format!("\"{name}\""), "alice", &upstream, "");
        config = config.replacen("[gateway]", &format!("{server}[gateway]"), 1);
    }
    let harness = Harness::start(&config);
    let page = read(&harness);
    for name in ["quote\"} 9", r"back\slash\n", "a\",state=\"ok", "é漢😀"] {
        assert!(page.values_of("server").contains(name), "{name}");
    }
}

#[test]
fn a_server_that_is_removed_takes_its_series_along_and_one_that_is_changed_does_not() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, ""));
    harness.client(ALICE).text("echo");
    harness.replace_config(&config(&upstream, "").replace("from_client", "timeout_seconds = 9\nfrom_client"));
    wait_for(&harness, "mcp_x_config_generation", 1.0);
    assert_eq!(calls(&read(&harness), "result"), 1.0);
    harness.client(ALICE).done("/unregister_mcp_server", &serde_json::json!({ "server_id": "server_a" }));
    assert!(!read(&harness).values_of("server").contains("server_a"));
}

#[test]
fn every_way_to_fail_is_counted_and_holds_nothing() {
    let upstream = Plan::new("a").start();
    let limits = "silent_call_seconds = 1\nwhole_call_seconds = 2\nmax_response_bytes = 10000\nmax_event_bytes = 10000";
    let harness = Harness::start(&config(&upstream, limits));
    let mut alice = harness.client(ALICE);
    let fails = |alice: &mut Client| assert_eq!(alice.error("echo").0, -32603);
    upstream.on_call(|exchange| exchange.respond(500, "text/plain", "no"));
    fails(&mut alice);
    upstream.on_call(|exchange| exchange.respond(200, "text/html", "<html>"));
    fails(&mut alice);
    upstream.on_call(|exchange| exchange.result(&format!("{{\"a\":\"{}\"}}", "x".repeat(20_000))));
    fails(&mut alice);
    upstream.on_call(|exchange| exchange.close());
    fails(&mut alice);
    upstream.on_call(|exchange| {
        exchange.begin_events();
        exchange.chunk("data: {\"half\":");
        exchange.hang();
    });
    fails(&mut alice);
    upstream.on_call(|exchange| {
        exchange.begin_events();
        exchange.end_events();
    });
    fails(&mut alice);
    upstream.on_call(|exchange| exchange.error(-32000, "mine"));
    fails(&mut alice);
    is_quiet(&harness);
    let page = read(&harness);
    let counted = ["status", "not_mcp", "too_large", "lost", "silent", "ended"].map(|kind| errors(&page, kind));
    assert_eq!(counted, [1.0; 6]);
    assert_eq!((calls(&page, "failed"), calls(&page, "error"), calls(&page, "result")), (6.0, 1.0, 0.0));
    upstream.stop();
    fails(&mut alice);
    is_quiet(&harness);
    let page = read(&harness);
    assert_eq!((errors(&page, "no_connection"), calls(&page, "failed")), (1.0, 7.0));
}

#[test]
fn a_call_in_flight_is_counted_until_it_ends_even_if_its_client_has_left() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, ""));
    let gate = upstream.wait_at_gate();
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    let (body, mut left) = (large_call("1", 30_000), alice.another());
    alice.send(&body);
    left.send(call_message("2", "echo", "{}"));
    upstream.wait_for("the calls", |s| s.of("tools/call").len() == 2);
    let page = read(&harness);
    assert_eq!(page.value("mcp_x_calls_in_flight", &[]), 2.0);
    assert_eq!(page.value("mcp_x_server_calls_in_flight", &[("server", "server_a")]), 2.0);
    assert_eq!(page.value("mcp_x_sessions", &[]), 1.0);
    // The other is too small to be counted.
    let held = body.len() as f64;
    assert_eq!(page.value("mcp_x_buffered_bytes", &[]), held);
    drop(left);
    let gone = [("method", "tools/call"), ("outcome", "left")];
    wait_until("the client has left", || read(&harness).value("mcp_x_rpc_requests_total", &gone) == 1.0);
    assert_eq!(read(&harness).value("mcp_x_calls_in_flight", &[]), 2.0);
    assert_eq!(read(&harness).value("mcp_x_buffered_bytes", &[]), held);
    gate.open();
    assert_eq!(alice.connection.answer().status(), 200);
    is_quiet(&harness);
    assert_eq!(calls(&read(&harness), "result"), 2.0);
    alice.delete();
    assert_eq!(read(&harness).value("mcp_x_sessions", &[]), 0.0);
}

#[test]
fn a_call_that_is_called_off_and_one_whose_grant_is_gone_hold_nothing() {
    let upstream = Plan::new("a").start();
    let granted = format!("[allow.server_a]\nbob = [\"*\"]\n{}", config(&upstream, ""));
    let harness = Harness::start(&granted);
    let gate = upstream.wait_at_gate();
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    alice.initialize("2025-11-25");
    alice.send(call_message("7", "echo", "{}"));
    bob.send(call_message("8", "echo", "{}"));
    upstream.wait_for("the calls", |s| s.of("tools/call").len() == 2);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
    assert_eq!(alice.another().post(cancel).status(), 202);
    harness.replace_config(&config(&upstream, ""));
    assert_eq!(bob.connection.answer().code(), -32603);
    is_quiet(&harness);
    let page = read(&harness);
    assert_eq!((calls(&page, "cancelled"), calls(&page, "withdrawn"), calls(&page, "result")), (1.0, 1.0, 0.0));
    gate.open();
}

#[test]
fn streams_and_connections_are_counted_until_they_end() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, ""));
    let gate = Gate::default();
    let waited = gate.clone();
    upstream.on_call(move |exchange| {
        exchange.begin_events();
        exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#);
        waited.wait();
        exchange.result_event("{}");
    });
    wait_for(&harness, "mcp_x_connections", 1.0);
    let (mut kept, mut dropped) = (harness.client(ALICE), harness.client(ALICE));
    kept.stream(&call_message("1", "echo", "{}"));
    dropped.stream(&call_message("2", "echo", "{}"));
    wait_for(&harness, "mcp_x_event_streams", 2.0);
    wait_for(&harness, "mcp_x_connections", 3.0);
    drop(dropped);
    wait_for(&harness, "mcp_x_event_streams", 1.0);
    wait_for(&harness, "mcp_x_connections", 2.0);
    gate.open();
    assert!(
        kept.connection.event().is_some() && kept.connection.event().is_some() && kept.connection.event().is_none()
    );
    is_quiet(&harness);
    drop(kept);
    wait_for(&harness, "mcp_x_connections", 1.0);
}

#[test]
fn a_call_that_there_is_no_room_for_is_refused_and_everything_else_goes_on() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, "max_buffered_bytes = 100000"));
    let gate = upstream.wait_at_gate();
    let mut first = harness.client(ALICE);
    first.send(large_call("1", 90_000));
    upstream.wait_for("the first call", |s| s.of("tools/call").len() == 1);

    // There is no room for it at all; its id stands behind what is not kept.
    let text = large_call("1", 60_000).replacen("\"id\":1,", "", 1);
    let at_the_end = format!("{},\"id\":\"second\"}}", text.strip_suffix('}').unwrap());
    let mut alice = harness.client(ALICE);
    let answer = alice.post(&at_the_end);
    assert_eq!((answer.status(), answer.code()), (200, -32603), "{answer:?}");
    assert_eq!(answer.json()["id"], "second");
    assert!(answer.body.contains("overloaded"), "{answer:?}");
    let no_request = alice.post(at_the_end.replace(",\"id\":\"second\"", ""));
    assert_eq!((no_request.status(), no_request.code()), (503, -32603), "{no_request:?}");

    // Small ones are read, and calls refused while more is held than may be.
    let mut full = harness.client(ALICE);
    full.send(large_call("3", 9_800));
    let answer = full.connection.answer();
    assert_eq!((answer.status(), answer.code(), &answer.json()["id"]), (200, -32603, &3.into()), "{answer:?}");
    assert_eq!(alice.tools(), ["echo"]);
    for path in ["/healthz", "/readyz", "/get_tools"] {
        assert_eq!(alice.rest("GET", path, "").status(), 200, "{path}");
    }
    let body = format!("{{\"client_id\":\"{}\"}}", "x".repeat(30_000));
    let refused = alice.rest("POST", "/unregister_client", &body);
    assert_eq!((refused.status(), refused.head.header("retry-after")), (429, Some("1")), "{refused:?}");
    assert_eq!(upstream.calls().len(), 1);
    assert_eq!(read(&harness).value("mcp_x_overloaded_total", &[("limit", "buffered_bytes")]), 4.0);

    gate.open();
    assert_eq!(first.connection.answer().status(), 200);
    assert_eq!(alice.text("echo"), "a:echo");
    assert_eq!(alice.post(&at_the_end).status(), 200);
    assert_eq!(upstream.calls().len(), 3);
    is_quiet(&harness);
}

#[test]
fn an_answer_that_there_is_no_room_for_fails_its_call_and_no_other() {
    for plan in [Plan::new("a"), Plan::new("a").events()] {
        let upstream = plan.start();
        let harness = Harness::start(&config(&upstream, "max_buffered_bytes = 50000"));
        let mut alice = harness.client(ALICE);
        alice.initialize("2025-11-25");
        upstream.on_call(|exchange| {
            let large = exchange.request.body.contains("large");
            exchange.result(&format!("{{\"a\":\"{}\"}}", "x".repeat(if large { 70_000 } else { 20_000 })));
        });
        let answer = alice.post(call_message("1", "echo", r#"{"large":true}"#));
        assert!(answer.message().contains("-32603") && answer.message().contains("overloaded"), "{answer:?}");
        assert!(alice.post(call_message("2", "echo", "{}")).message().len() > 20_000);
        is_quiet(&harness);
        let page = read(&harness);
        assert_eq!((errors(&page, "no_room"), calls(&page, "failed"), calls(&page, "result")), (1.0, 1.0, 1.0));
        upstream.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == 1);
    }
}

#[test]
fn an_answer_that_its_client_does_not_take_is_held_until_the_client_goes() {
    const BYTES: usize = 20_000_000;
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, "max_buffered_bytes = 30000000"));
    upstream.on_call(|exchange| match exchange.request.body.contains("large") {
        true => exchange.result(&format!("{{\"a\":\"{}\"}}", "x".repeat(BYTES))),
        false => exchange.echo(),
    });
    let mut lazy = harness.client(ALICE);
    lazy.send(call_message("1", "echo", r#"{"large":true}"#));
    let held = |harness: &Harness| read(harness).value("mcp_x_buffered_bytes", &[]);
    wait_until("the answer is there", || calls(&read(&harness), "result") == 1.0);
    assert!(held(&harness) >= BYTES as f64);
    let mut alice = harness.client(ALICE);
    let refused = alice.post(call_message("2", "echo", r#"{"large":true}"#));
    assert!(refused.message().contains("overloaded"), "{}", refused.message().len());
    assert_eq!(alice.text("echo"), "a:echo");
    drop(lazy);
    is_quiet(&harness);
    assert!(alice.post(call_message("3", "echo", r#"{"large":true}"#)).message().len() > BYTES);
    is_quiet(&harness);
}

#[test]
fn too_many_calls_are_counted_by_the_limit_that_they_met() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, "max_calls_per_client = 2\nmax_calls_per_server = 2"));
    let gate = upstream.wait_at_gate();
    let mut first = harness.client(ALICE);
    first.send(call_message("1", "echo", "{}"));
    upstream.wait_for("the first call", |s| s.of("tools/call").len() == 1);
    assert_eq!(harness.client(ALICE).error("echo").0, -32603);
    assert_eq!(calls(&read(&harness), "overloaded"), 1.0);
    gate.open();
    first.connection.answer();
    harness.replace_config(&config(&upstream, "max_calls_per_client = 1"));
    wait_for(&harness, "mcp_x_config_generation", 1.0);
    let gate = upstream.wait_at_gate();
    first.send(call_message("1", "echo", "{}"));
    upstream.wait_for("the second call", |s| s.of("tools/call").len() == 2);
    assert_eq!(harness.client(ALICE).error("echo").0, -32603);
    assert_eq!(read(&harness).value("mcp_x_overloaded_total", &[("limit", "client_calls")]), 1.0);
    gate.open();
    first.connection.answer();
    is_quiet(&harness);
}

#[test]
fn the_readme_names_every_metric_and_no_other() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&config(&upstream, ""));
    let readme = include_str!("../../README.md");
    harness.client(ALICE).tools();
    let page = read(&harness);
    let family = |name: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    let there: BTreeSet<String> = page.names().into_iter().map(family).collect();
    let quoted = readme.split('`').skip(1).step_by(2).filter(|text| text.starts_with("mcp_x_"));
    let named: BTreeSet<String> = quoted.map(str::to_owned).collect();
    let (own, others): (BTreeSet<_>, BTreeSet<_>) = there.into_iter().partition(|name| name.starts_with("mcp_x_"));
    assert_eq!(named, own);
    for name in others {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
    }
}
