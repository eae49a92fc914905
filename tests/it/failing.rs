//! Servers that are down, slow, broken or hostile: a clear error for calls to them, and nothing else harmed.
//! Design 1.4, 10, 13; protocol.md 3.4, 3.6, 3.7; texts of style.md, "Errors".

use std::time::{Duration, Instant};

use super::support::client::closed_port;
use super::support::upstream::{Exchange, Plan};
use super::support::{
    ALICE, BOB, Harness, Pair, UNREACHABLE, call_message, clients, owned_by_alice, server, wait_until,
};

const LOST: &str = "connection to the server of tool `echo` was lost; the call may have been executed";
const NOT_MCP: &str = "server of tool `echo` answered with something that is not MCP";

/// A way to fail, how it is called, and what the client reads.
type Row = (&'static str, fn(&mut Exchange<'_>), &'static str);

/// Behind a gateway where calls may be silent for a second.
#[track_caller]
fn pair(limits: &str) -> Pair {
    Pair::start(&format!("[gateway]\nsilent_call_seconds = 1\n{limits}"))
}

impl Pair {
    /// Fails a call this way; the client reads this, the other server is unharmed, and so is this one afterwards.
    #[track_caller]
    fn check(&self, (what, script, expected): Row) {
        self.bad.on_call(script);
        let before = self.bad.calls().len();
        let mut alice = self.harness.client(ALICE);
        assert_eq!(alice.error("echo"), (-32603, expected.to_owned()), "{what}");
        assert_eq!(self.bad.calls().len() - before, 1, "{what}: sent more than once");
        assert_eq!(alice.text("fine"), "good:fine", "{what}");
        assert_eq!(alice.tools(), ["echo", "fine"], "{what}");
        self.bad.on_call(|exchange| exchange.echo());
        assert_eq!(alice.text("echo"), "bad:echo", "{what}");
    }
}

#[test]
fn what_is_not_an_answer_is_a_clear_error() {
    let pair = pair("");
    let rows: [Row; 14] = [
        ("HTML", |e| e.respond(200, "text/html", "<html>Welcome to nginx!</html>"), NOT_MCP),
        ("no content type", |e| e.raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), NOT_MCP),
        ("HTML as JSON", |e| e.respond(200, "application/json", "<html>"), NOT_MCP),
        ("JSON, but no message", |e| e.respond(200, "application/json", r#"{"tools":[]}"#), NOT_MCP),
        ("an empty answer", |e| e.respond(200, "application/json", ""), NOT_MCP),
        ("accepted", |e| e.respond(202, "application/json", ""), NOT_MCP),
        ("another id", |e| e.respond(200, "application/json", r#"{"jsonrpc":"2.0","id":-5,"result":{}}"#), NOT_MCP),
        ("a notification", |e| e.respond(200, "application/json", r#"{"jsonrpc":"2.0","method":"x"}"#), NOT_MCP),
        ("deep nesting", |e| e.result(&format!("{}{}", "[".repeat(500), "]".repeat(500))), NOT_MCP),
        ("events that are no JSON", events_of_garbage, NOT_MCP),
        (
            "500",
            |e| e.respond(500, "text/plain", "Traceback: /srv/app.py"),
            "server of tool `echo` answered with HTTP status 500",
        ),
        (
            "403",
            |e| e.respond(403, "text/html", "<h1>Forbidden</h1>"),
            "server of tool `echo` answered with HTTP status 403",
        ),
        ("404", |e| e.respond(404, "text/html", ""), "server of tool `echo` answered with HTTP status 404"),
        ("302", |e| e.respond(302, "text/html", ""), "server of tool `echo` answered with HTTP status 302"),
    ];
    for row in rows {
        pair.check(row);
    }
}

fn events_of_garbage(exchange: &mut Exchange<'_>) {
    exchange.begin_events();
    exchange.event("garbage");
    exchange.end_events();
}

#[test]
fn an_answer_that_breaks_off_is_a_lost_connection_and_is_not_repeated() {
    let pair = pair("");
    let rows: [Row; 6] = [
        ("closed at once", |e| e.close(), LOST),
        ("within the head", |e| broken(e, "HTTP/1.1 200 OK\r\ncontent-ty"), LOST),
        ("within the body", broken_body, LOST),
        ("an event stream without response", ended_stream, LOST),
        ("within an event", |e| broken_stream(e, "data: {\"jsonrpc\":\"2.0\",\"id\""), LOST),
        ("a stream for another request", wrong_id_stream, LOST),
    ];
    for row in rows {
        pair.check(row);
    }
}

fn broken(exchange: &mut Exchange<'_>, text: &str) {
    exchange.raw(text);
    exchange.close();
}

fn broken_body(exchange: &mut Exchange<'_>) {
    broken(exchange, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"jsonrpc\":");
}

fn broken_stream(exchange: &mut Exchange<'_>, text: &str) {
    exchange.begin_events();
    exchange.chunk(text);
    exchange.close();
}

fn ended_stream(exchange: &mut Exchange<'_>) {
    exchange.begin_events();
    exchange.chunk(": nothing\n\n");
    exchange.end_events();
}

fn wrong_id_stream(exchange: &mut Exchange<'_>) {
    exchange.begin_events();
    exchange.event(r#"{"jsonrpc":"2.0","id":-5,"result":{}}"#);
    exchange.end_events();
}

#[test]
fn bytes_that_are_no_http_are_a_clear_error() {
    let pair = pair("");
    pair.bad.on_call(|exchange| broken(exchange, "\u{0}\u{1}SSH-2.0-OpenSSH_9.6\r\n\r\n"));
    let (code, text) = pair.harness.client(ALICE).error("echo");
    assert_eq!(code, -32603);
    assert!(text.contains("server of tool `echo`") && !text.contains("SSH"), "{text}");
    assert_eq!(pair.harness.client(ALICE).text("fine"), "good:fine");
}

#[test]
fn an_answer_that_is_too_large_is_cut_off() {
    let pair = pair("max_response_bytes = 2048\nmax_event_bytes = 1024\n");
    const JSON: &str = "answer of tool `echo` is larger than 2048 bytes";
    const EVENT: &str = "answer of tool `echo` is larger than 1024 bytes";
    let rows: [Row; 4] = [
        ("JSON", |e| e.result(&format!("\"{}\"", "x".repeat(4000))), JSON),
        ("JSON without end", endless_json, JSON),
        ("an event", large_event, EVENT),
        ("an event without end", endless_event, EVENT),
    ];
    for row in rows {
        pair.check(row);
    }
}

fn large_event(exchange: &mut Exchange<'_>) {
    exchange.begin_events();
    exchange.result_event(&format!("\"{}\"", "x".repeat(2000)));
}

fn endless_json(exchange: &mut Exchange<'_>) {
    exchange.raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    endless(exchange);
}

fn endless_event(exchange: &mut Exchange<'_>) {
    exchange.begin_events();
    exchange.chunk("data: ");
    endless(exchange);
}

/// Sends until the other side closes.
fn endless(exchange: &mut Exchange<'_>) {
    while exchange.is_open() {
        exchange.chunk(&"x".repeat(500));
    }
}

#[test]
fn a_silent_call_ends_and_is_cancelled_at_the_server() {
    let streams: [fn(&mut Exchange<'_>); 3] = [
        |exchange| exchange.hang(),
        |exchange| {
            exchange.begin_events();
            exchange.hang();
        },
        |exchange| {
            exchange.raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{");
            exchange.hang();
        },
    ];
    std::thread::scope(|scope| {
        for script in streams {
            scope.spawn(move || check_silence(script));
        }
    });
}

/// A call that this server answers with silence.
#[track_caller]
fn check_silence(script: fn(&mut Exchange<'_>)) {
    let pair = pair("");
    pair.bad.on_call(script);
    let begun = Instant::now();
    let error = pair.harness.client(ALICE).error("echo");
    assert_eq!(error, (-32603, "server of tool `echo` sent nothing for 1 s".to_owned()));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    pair.bad.wait_for("the cancellation", |s| !s.of("notifications/cancelled").is_empty());
    let cancelled = pair.bad.state().of("notifications/cancelled")[0].clone();
    assert_eq!(cancelled.json()["params"]["requestId"].to_string(), pair.bad.calls()[0].id());
}

#[test]
fn a_call_that_reports_progress_is_not_silent() {
    let pair = pair("");
    pair.bad.on_call(|exchange| {
        exchange.begin_events();
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(250));
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#);
        }
        exchange.result_event(r#"{"done":true}"#);
    });
    let answer = pair.harness.client(ALICE).post(call_message("1", "echo", "{}"));
    assert_eq!(answer.message(), r#"{"jsonrpc":"2.0","id":1,"result":{"done":true}}"#);
}

#[test]
fn a_whole_call_has_a_limit_too() {
    let pair = pair("whole_call_seconds = 2\n");
    pair.bad.on_call(|exchange| {
        exchange.begin_events();
        while exchange.is_open() {
            std::thread::sleep(Duration::from_millis(100));
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#);
        }
    });
    let error = pair.harness.client(ALICE).error("echo");
    assert_eq!(error, (-32603, "call of tool `echo` was not finished after 2 s".to_owned()));
    pair.bad.wait_for("the cancellation", |s| s.of("notifications/cancelled").len() == 1);
}

/// The head of the answer is out already, so the error is an event.
#[test]
fn a_stream_that_breaks_off_after_it_began_ends_with_an_error() {
    let pair = pair("");
    const MESSAGE: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
    pair.bad.on_call(|exchange| {
        exchange.begin_events();
        exchange.event(MESSAGE);
        exchange.close();
    });
    let events = pair.harness.client(ALICE).post(call_message("\"c\"", "echo", "{}")).events();
    let error = format!(r#"{{"jsonrpc":"2.0","id":"c","error":{{"code":-32603,"message":"{LOST}"}}}}"#);
    assert_eq!(events, [MESSAGE.to_owned(), error]);
}

#[test]
fn nothing_of_what_a_failing_server_says_reaches_the_client() {
    let pair = pair("");
    pair.bad.on_call(|e| e.respond(500, "text/plain", "panic at 10.0.0.7: password=hunter2"));
    let answer = pair.harness.client(ALICE).post(call_message("1", "echo", "{}"));
    for secret in ["hunter2", "10.0.0.7", "server_bad", "127.0.0.1"] {
        assert!(!answer.body.contains(secret), "{answer:?}");
    }
    assert!(pair.harness.log().contains("server_bad"), "the operator reads which server it was");
}

#[test]
fn a_server_that_is_down_hides_only_its_own_tools() {
    let good = Plan::new("good").start();
    let config = owned_by_alice(&[("server_good", &good)]);
    let down = format!("[mcp_servers.down]\nurl = \"http://{}/mcp\"\nfrom_client = \"alice\"\n", closed_port());
    let harness = Harness::start(&(config + &down));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), ["echo"]);
    assert_eq!(alice.text("echo"), "good:echo");
    harness.wait_for_log("WARN server failed server=down");
}

#[test]
fn a_dead_server_keeps_its_last_known_tools_and_comes_back() {
    for plan in [Plan::new("a"), Plan::new("a").sessionful()] {
        let upstream = plan.start();
        let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
        let mut alice = harness.client(ALICE);
        assert_eq!(alice.text("echo"), "a:echo");
        upstream.stop();
        assert_eq!(alice.tools(), ["echo"]);
        assert_eq!(alice.error("echo"), (-32603, UNREACHABLE.to_owned()));
        assert_eq!(alice.tools(), ["echo"]);
        upstream.start_again();
        wait_until("calls get through", || alice.call("echo").get("result").is_some());
    }
}

#[test]
fn a_server_that_comes_up_late_is_found() {
    let upstream = Plan::new("late").start();
    upstream.stop();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), [""; 0]);
    upstream.start_again();
    wait_until("the tools are there", || alice.tools() == ["echo"]);
    assert_eq!(alice.text("echo"), "late:echo");
}

#[test]
fn with_one_server_hanging_and_one_down_the_others_are_as_quick_as_ever() {
    let (good, hanging) = (Plan::new("good").start(), Plan::new("hanging").start());
    hanging.on_request(|exchange| exchange.hang());
    let mut config = clients() + &server("hanging", "alice", &hanging, "") + &server("good", "alice", &good, "");
    config += &format!("[mcp_servers.down]\nurl = \"http://{}/mcp\"\nfrom_client = \"alice\"\n", closed_port());
    config += "[allow.good]\nbob = [\"*\"]\n[gateway]\nlist_timeout_seconds = 1\n";
    let harness = Harness::start(&config);

    let mut bob = harness.client(BOB);
    let begun = Instant::now();
    assert_eq!(bob.text("echo"), "good:echo");
    assert!(begun.elapsed() < Duration::from_millis(900), "bob waited for a server he cannot see");

    let mut alice = harness.client(ALICE);
    let begun = Instant::now();
    assert_eq!(alice.tools(), ["echo"]);
    assert!(begun.elapsed() < Duration::from_millis(2500), "the first list took {:?}", begun.elapsed());

    let timed = |work: &mut dyn FnMut()| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    // The machine may be busy; a list that waited for a server would never be quick.
    let lists = (0..10).map(|_| timed(&mut || assert_eq!(alice.tools(), ["echo"])));
    assert!(lists.min().unwrap() < Duration::from_millis(50));
    let calls = (0..10).map(|_| timed(&mut || assert_eq!(alice.text("echo"), "good:echo")));
    assert!(calls.min().unwrap() < Duration::from_millis(50));
}

#[test]
fn a_catalogue_that_cannot_be_read_costs_only_its_own_tools() {
    let scripts: [fn(&mut Exchange<'_>); 6] = [
        |exchange| exchange.respond(200, "text/html", "<html>"),
        |exchange| exchange.respond(500, "text/plain", ""),
        |exchange| exchange.respond(401, "application/json", "{}"),
        |exchange| broken(exchange, "garbage\r\n\r\n"),
        |exchange| exchange.result("{}"),
        |exchange| match exchange.request.rpc().as_str() {
            "tools/list" => exchange.result(r#"{"tools":{"name":"x"}}"#),
            _ => exchange.normally(),
        },
    ];
    for (at, script) in scripts.into_iter().enumerate() {
        let (bad, good) = (Plan::new("bad").start(), Plan::new("good").tools(&["fine"]).start());
        bad.on_request(script);
        let harness = Harness::start(&owned_by_alice(&[("server_bad", &bad), ("server_good", &good)]));
        let mut alice = harness.client(ALICE);
        assert_eq!(alice.tools(), ["fine"], "{at}");
        assert_eq!(alice.text("fine"), "good:fine", "{at}");
        harness.wait_for_log("WARN server failed server=server_bad");
    }
}

#[test]
fn a_server_that_spoke_nonsense_is_found_when_it_recovers() {
    let upstream = Plan::new("a").start();
    upstream.on_request(|exchange| exchange.respond(502, "text/html", "<html>Bad Gateway"));
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), [""; 0]);
    upstream.as_planned();
    wait_until("the tools are there", || alice.tools() == ["echo"]);
    assert_eq!(alice.text("echo"), "a:echo");
    harness.wait_for_log("INFO server recovered server=server_a");
}

#[test]
fn entries_that_are_no_tools_are_left_out_and_the_rest_stays() {
    let tools =
        [r#"{"name":"one","inputSchema":{}}"#, "7", r#"{"title":"nameless"}"#, r#"{"name":5}"#, r#"{"name":"two"}"#];
    let upstream = Plan::new("a").described(&tools).start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    assert_eq!(harness.client(ALICE).tools(), ["one", "two"]);
    harness.wait_for_log("left out of a list");
}

#[test]
fn too_many_calls_at_once_are_refused_and_the_rest_goes_on() {
    let pair = pair("max_calls_per_client = 2\n");
    pair.bad.on_call(|exchange| exchange.hang());
    let mut waiting: Vec<_> = (0..2).map(|_| pair.harness.client(ALICE)).collect();
    for client in &mut waiting {
        client.send(call_message("1", "echo", "{}"));
    }
    pair.bad.wait_for("two calls", |s| s.of("tools/call").len() == 2);
    let (code, text) = pair.harness.client(ALICE).error("fine");
    assert_eq!(code, -32603);
    assert!(text.starts_with("overloaded"), "{text}");
    assert_eq!(pair.harness.client(ALICE).tools(), ["echo", "fine"], "lists are exempt");
    for client in &mut waiting {
        assert_eq!(client.connection.answer().code(), -32603);
    }
    assert_eq!(pair.harness.client(ALICE).text("fine"), "good:fine");
    assert_eq!(pair.good.calls().len(), 1);
}
