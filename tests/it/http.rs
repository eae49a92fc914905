//! The door: who is let in, what is refused before anybody reads it, and how long a slow peer is waited for.
//! Protocol.md 2.1; design 8, 13, 14.

use std::time::{Duration, Instant};

use super::support::http::{Answer, Head};
use super::support::upstream::Plan;
use super::support::{ALICE, Harness, clients, owned_by_alice};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const ACCEPT: &str = "Accept: application/json, text/event-stream\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

fn token() -> String {
    format!("Authorization: Bearer {ALICE}\r\n")
}

/// A gateway with clients and these lines in `[gateway]`.
fn gateway(lines: &str) -> Harness {
    Harness::start(&format!("{}[gateway]\n{lines}", clients()))
}

/// A ping with these header lines, after `Host` and without it.
fn ping(headers: &str) -> String {
    format!("POST /mcp HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{PING}", PING.len())
}

/// A good ping but for this replacement in its head.
fn good_ping_but(part: &str, other: &str) -> String {
    let good = ping(&format!("Host: localhost\r\n{}{JSON}{ACCEPT}", token()));
    assert!(good.contains(part), "{part:?} is not in {good}");
    good.replacen(part, other, 1)
}

/// The answer to this request on a connection of its own.
#[track_caller]
fn answer(harness: &Harness, request: &str) -> Answer {
    let mut connection = harness.connect();
    connection.send(request);
    connection.answer()
}

#[test]
fn without_a_good_token_the_answer_is_401_and_nothing_is_parsed() {
    let harness = gateway("");
    let line = token();
    for (instead, challenge, detail) in [
        (String::new(), "Bearer", "Not authenticated"),
        (format!("Authorization: Basic {ALICE}\r\n"), "Bearer", "Not authenticated"),
        (format!("Authorization: {ALICE}\r\n"), "Bearer", "Not authenticated"),
        ("Authorization: Bearer\r\n".into(), "Bearer", "Not authenticated"),
        ("Authorization: Bearer \r\n".into(), "Bearer", "Not authenticated"),
        ("Authorization: \r\n".into(), "Bearer", "Not authenticated"),
        (format!("{line}{line}"), "Bearer", "Not authenticated"),
        (format!("{line}Authorization: Bearer x\r\n"), "Bearer", "Not authenticated"),
        (format!("Authorization: Bearer {ALICE} x\r\n"), "Bearer", "Not authenticated"),
        ("Authorization: Bearer wrong\r\n".into(), "Bearer error=\"invalid_token\"", "Invalid authentication token"),
        (
            line.to_uppercase().replace("AUTHORIZATION", "Authorization"),
            "Bearer error=\"invalid_token\"",
            "Invalid authentication token",
        ),
        (line.replace("0c41", "0c4"), "Bearer error=\"invalid_token\"", "Invalid authentication token"),
    ] {
        // No body is sent, however long it is said to be, and nothing else about the request is right.
        let head = format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\n{instead}Content-Type: x\r\nAccept: x\r\n");
        let refused = answer(&harness, &format!("{head}Content-Length: 99999999999\r\n\r\n"));
        assert_eq!(refused.status(), 401, "{instead:?}");
        assert_eq!(refused.head.header("www-authenticate"), Some(challenge), "{instead:?}");
        assert_eq!(refused.body, format!(r#"{{"detail":"{detail}"}}"#), "{instead:?}");
    }
    for method in ["GET", "DELETE", "PUT", "BREW"] {
        let refused = answer(&harness, &format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(refused.status(), 401, "{method}");
    }
}

#[test]
fn a_token_in_the_url_lets_nobody_in() {
    let harness = gateway("");
    for query in ["access_token", "token", "auth_token"] {
        let request = ping(&format!("Host: localhost\r\n{JSON}{ACCEPT}"));
        let request = request.replace("/mcp ", &format!("/mcp?{query}={ALICE} "));
        assert_eq!(answer(&harness, &request).status(), 401);
    }
}

#[test]
fn the_scheme_word_and_space_around_the_token_do_not_matter() {
    let harness = gateway("");
    for line in ["Bearer X", "bearer X", "BEARER X", "bEaReR X", "Bearer   X", "Bearer X  "] {
        let line = format!("authorization: {}\r\n", line.replace('X', ALICE));
        assert_eq!(answer(&harness, &good_ping_but(&token(), &line)).status(), 200, "{line}");
    }
}

/// Status by the request line's target and the `Host` lines.
#[test]
fn only_hosts_that_are_served_are_answered() {
    let harness = gateway("allowed_hosts = [\"mcp.example.com\", \"other.example.com:8443\"]\n");
    for (target, hosts, status) in [
        ("/mcp", "Host: localhost\r\n", 200),
        ("/mcp", "Host: LOCALHOST:9000\r\n", 200),
        ("/mcp", "Host: 127.0.0.1:1\r\n", 200),
        ("/mcp", "Host: 127.9.9.9\r\n", 200),
        ("/mcp", "Host: [::1]:9000\r\n", 200),
        ("/mcp", "Host: mcp.example.com\r\n", 200),
        ("/mcp", "Host: MCP.Example.COM:443\r\n", 200),
        ("/mcp", "Host: other.example.com:8443\r\n", 200),
        ("http://localhost/mcp", "Host: localhost\r\n", 200),
        ("http://mcp.example.com/mcp", "Host: localhost\r\n", 200),
        ("/mcp", "Host: other.example.com\r\n", 403),
        ("/mcp", "Host: evil.example.com\r\n", 403),
        ("/mcp", "Host: localhost.evil.com\r\n", 403),
        ("/mcp", "Host: 127.0.0.1.evil.com\r\n", 403),
        ("/mcp", "Host: mcp.example.com.evil.com\r\n", 403),
        ("/mcp", "Host: 10.0.0.1\r\n", 403),
        ("/mcp", "Host: 0.0.0.0\r\n", 403),
        ("/mcp", "Host: user@mcp.example.com\r\n", 403),
        ("http://evil.example.com/mcp", "Host: localhost\r\n", 403),
        ("http://localhost/mcp", "Host: evil.example.com\r\n", 403),
        ("/mcp", "", 400),
        ("/mcp", "Host: localhost\r\nHost: localhost\r\n", 400),
        ("/mcp", "Host: localhost\r\nHost: evil.example.com\r\n", 400),
        ("/mcp", "Host: \r\n", 400),
        ("/mcp", "Host: a b\r\n", 400),
        ("/mcp", "Host: localhost, evil.example.com\r\n", 400),
    ] {
        let request = good_ping_but("Host: localhost\r\n", hosts).replacen("/mcp", target, 1);
        assert_eq!(answer(&harness, &request).status(), status, "{target} {hosts:?}");
    }
}

#[test]
fn probes_ask_for_no_host_and_no_token() {
    let harness = gateway("");
    for path in ["/healthz", "/readyz"] {
        let probed = answer(&harness, &format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:8080\r\n\r\n"));
        assert_eq!(probed.status(), 200, "{path}");
    }
    let mut connection = harness.connect();
    connection.send("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(connection.answer_to_head().status, 200);
    assert_eq!(connection.answer().body, r#"{"status":"ready"}"#);
    let refused = answer(&harness, "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((refused.status(), refused.head.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn only_origins_that_are_served_are_answered() {
    let harness = gateway("allowed_hosts = [\"mcp.example.com\"]\n");
    for (origin, status) in [
        ("http://localhost", 200),
        ("http://localhost:6274", 200),
        ("https://127.0.0.1:8443", 200),
        ("http://[::1]", 200),
        ("https://mcp.example.com", 200),
        ("http://mcp.example.com", 403),
        ("https://mcp.example.com:8443", 403),
        ("https://evil.example.com", 403),
        ("http://localhost.evil.com", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
        ("localhost", 403),
        ("https://mcp.example.com, https://evil.example.com", 403),
    ] {
        let request = good_ping_but(JSON, &format!("{JSON}Origin: {origin}\r\n"));
        let answered = answer(&harness, &request);
        assert_eq!(answered.status(), status, "{origin:?}");
        let allowed = answered.head.header("access-control-allow-origin");
        assert_eq!(allowed, (status == 200).then_some(origin), "{origin:?}");
    }
    let plain = answer(&harness, &good_ping_but(JSON, JSON));
    assert_eq!(plain.head.header("access-control-allow-origin"), None);
    let two = good_ping_but(JSON, &format!("{JSON}Origin: http://localhost\r\nOrigin: http://localhost\r\n"));
    assert_eq!(answer(&harness, &two).status(), 403);
    // Before the token is looked at, so that a page learns nothing.
    let strange = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.com\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(answer(&harness, strange).status(), 403);
}

#[test]
fn a_preflight_is_answered_for_origins_that_are_served() {
    let harness = gateway("");
    let preflight = |origin: &str| {
        let request = format!(
            "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\n{origin}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,mcp-session-id, mcp-param-region,x-other\r\n\r\n"
        );
        answer(&harness, &request)
    };
    let fine = preflight("Origin: http://localhost:6274\r\n");
    assert_eq!((fine.status(), fine.body.as_str()), (204, ""));
    assert_eq!(fine.head.header("access-control-allow-origin"), Some("http://localhost:6274"));
    let headers = fine.head.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    for header in
        ["authorization", "content-type", "mcp-session-id", "mcp-protocol-version", "mcp-name", "mcp-param-region"]
    {
        assert!(headers.contains(header), "{headers}");
    }
    assert!(!headers.contains("x-other"), "{headers}");
    for method in ["POST", "DELETE"] {
        assert!(fine.head.header("access-control-allow-methods").unwrap().contains(method));
    }
    assert_eq!(preflight("Origin: https://evil.example.com\r\n").status(), 403);
    assert_eq!(preflight("").status(), 401, "without an origin it is a request like any other");
}

#[test]
fn paths_that_are_not_there_are_404() {
    let harness = gateway("");
    for path in ["/", "/mcp/x", "/MCP", "//mcp", "/mcp%2f", "/../mcp", "/healthz/", "/metrics.json"] {
        let request = good_ping_but("/mcp ", &format!("{path} "));
        assert_eq!(answer(&harness, &request).status(), 404, "{path}");
    }
    for path in ["/mcp", "/mcp/", "/mcp?x=1"] {
        assert_eq!(answer(&harness, &good_ping_but("/mcp ", &format!("{path} "))).status(), 200, "{path}");
    }
}

#[test]
fn methods_that_are_not_taken_are_405_and_named() {
    let harness = gateway("");
    let all = "GET, POST, DELETE";
    // Outside of a session there is nothing to get.
    let rows = [("GET", "POST, DELETE"), ("PUT", all), ("PATCH", all), ("HEAD", all), ("BREW", all), ("post", all)];
    for (method, allowed) in rows {
        let mut connection = harness.connect();
        connection.send(format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\n{}{ACCEPT}\r\n", token()));
        let head = connection.head();
        assert_eq!((head.status, head.header("allow")), (405, Some(allowed)), "{method}");
    }
}

#[test]
fn a_body_must_be_json_by_its_own_word() {
    let harness = gateway("");
    for (line, status) in [
        ("Content-Type: application/json\r\n", 200),
        ("content-type: Application/JSON ; Charset=\"UTF-8\"\r\n", 200),
        ("Content-Type: application/json;charset=utf-8\r\n", 200),
        ("Content-Type: application/json; charset=latin1\r\n", 415),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/jsonp\r\n", 415),
        ("Content-Type: application/x-www-form-urlencoded\r\n", 415),
        ("Content-Type: \r\n", 415),
        ("Content-Type: application/json\r\nContent-Type: application/json\r\n", 415),
        ("", 415),
    ] {
        assert_eq!(answer(&harness, &good_ping_but(JSON, line)).status(), status, "{line:?}");
    }
}

#[test]
fn a_client_must_take_json_and_event_streams() {
    let harness = gateway("");
    for (line, status) in [
        ("", 200),
        ("Accept: */*\r\n", 200),
        ("Accept: text/event-stream, application/json\r\n", 200),
        ("accept: application/json;q=0.9,text/event-stream;q=0.1\r\n", 200),
        ("Accept: application/json\r\nAccept: text/event-stream\r\n", 200),
        ("Accept: application/*, text/*\r\n", 200),
        ("Accept: APPLICATION/JSON, Text/Event-Stream\r\n", 200),
        ("Accept: application/json\r\n", 406),
        ("Accept: text/event-stream\r\n", 406),
        ("Accept: text/html\r\n", 406),
        ("Accept: application/json, text/event-stream;q=0\r\n", 406),
        ("Accept: \r\n", 406),
    ] {
        assert_eq!(answer(&harness, &good_ping_but(ACCEPT, line)).status(), status, "{line:?}");
    }
}

/// The head of a good POST, to which the framing is to be added.
fn head(framing: &str) -> String {
    format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\n{}{JSON}{ACCEPT}{framing}\r\n", token())
}

#[test]
fn a_body_beyond_the_limit_is_413() {
    let harness = gateway("max_body_bytes = 1024\n");
    let fitting = format!("{PING}{}", " ".repeat(1024 - PING.len()));
    let mut connection = harness.connect();
    connection.send(head("Content-Length: 1024\r\n") + &fitting);
    assert_eq!(connection.answer().status(), 200);
    // Said before it comes: nothing is waited for.
    connection.send(head("Content-Length: 1025\r\n"));
    assert_eq!(connection.answer().status(), 413);
    assert!(connection.is_closed());

    let mut connection = harness.connect();
    connection.send(head("Transfer-Encoding: chunked\r\n") + &format!("400\r\n{fitting}\r\n0\r\n\r\n"));
    assert_eq!(connection.answer().status(), 200);
    connection.send(head("Transfer-Encoding: chunked\r\n"));
    for _ in 0..3 {
        connection.send_while_taken(format!("200\r\n{}\r\n", " ".repeat(512)));
    }
    let refused = connection.answer();
    assert_eq!((refused.status(), refused.code()), (413, -32600));
}

#[test]
fn a_chunked_body_is_read_whole() {
    let harness = gateway("");
    let mut connection = harness.connect();
    connection.send(head("Transfer-Encoding: chunked\r\n"));
    for byte in PING.bytes() {
        connection.send(format!("1\r\n{}\r\n", char::from(byte)));
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.answer().body, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let harness = gateway("body_seconds = 1\n");
    let mut connection = harness.connect();
    connection.send(head("Content-Length: 50\r\n") + "{");
    let begun = Instant::now();
    assert_eq!(connection.answer().status(), 408);
    assert!(begun.elapsed() >= Duration::from_millis(900) && begun.elapsed() < Duration::from_secs(4));
    assert!(connection.is_closed());
}

#[test]
fn a_head_beyond_the_limits_is_431() {
    let harness = gateway("max_head_bytes = 8192\nmax_headers = 20\n");
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    // Host, Authorization, Content-Type, Accept, Content-Length and these.
    assert_eq!(answer(&harness, &good_ping_but(JSON, &(many(15) + JSON))).status(), 200);
    for excess in [many(16), format!("X: {}\r\n", "x".repeat(9000))] {
        let mut connection = harness.connect();
        connection.send_while_taken(good_ping_but(JSON, &(excess + JSON)));
        assert_eq!(connection.refusal().status(), 431);
        assert!(connection.is_closed());
    }
    harness.wait_for_log("WARN request refused");
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let harness = gateway("header_seconds = 1\n");
    let mut connection = harness.connect();
    connection.send("POST /mcp HTTP/1.1\r\nHost: loc");
    let begun = Instant::now();
    assert!(connection.is_closed());
    assert!(begun.elapsed() >= Duration::from_millis(900) && begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_head_that_trickles_in_is_not_waited_for_either() {
    let harness = gateway("header_seconds = 1\n");
    let mut connection = harness.connect();
    let begun = Instant::now();
    connection.send(ping("Host: localhost\r\n").split_once("\r\n\r\n").unwrap().0);
    while begun.elapsed() < Duration::from_millis(1500) {
        connection.send_while_taken("x");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(connection.is_closed());
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let harness = gateway("idle_seconds = 1\nheader_seconds = 1\nsilent_call_seconds = 5\n");
    let mut fresh = harness.connect();
    let mut used = harness.client(ALICE);
    assert_eq!(used.post(PING).status(), 200);
    let begun = Instant::now();
    assert!(fresh.is_closed() && used.connection.is_closed());
    assert!(begun.elapsed() >= Duration::from_millis(900) && begun.elapsed() < Duration::from_secs(4));

    let upstream = Plan::new("a").start();
    upstream.on_call(|exchange| {
        std::thread::sleep(Duration::from_millis(2200));
        exchange.echo();
    });
    let config = owned_by_alice(&[("server_a", &upstream)]) + "[gateway]\nidle_seconds = 1\nheader_seconds = 1\n";
    let harness = Harness::start(&config);
    assert_eq!(harness.client(ALICE).text("echo"), "a:echo");
}

/// SECURITY: what a proxy in front may read otherwise.
#[test]
fn a_transfer_coding_other_than_chunked_is_501() {
    let harness = gateway("");
    let chunked = format!("{:x}\r\n{PING}\r\n0\r\n\r\n", PING.len());
    for coding in ["gzip, chunked", "identity, chunked", "chunked, chunked", "xchunked, chunked"] {
        let mut connection = harness.connect();
        connection.send(head(&format!("Transfer-Encoding: {coding}\r\n")) + &chunked);
        assert_eq!(connection.answer().status(), 501, "{coding}");
        assert!(connection.is_closed(), "{coding}");
    }
    for coding in ["gzip", "identity", "chunked, gzip", "xchunked"] {
        let mut connection = harness.connect();
        connection.send(head(&format!("Transfer-Encoding: {coding}\r\n")) + &chunked);
        let status = connection.refusal().status();
        assert!(matches!(status, 400 | 501), "{coding}: {status}");
        assert!(connection.is_closed(), "{coding}");
    }
}

/// Protocol.md 6, "Transport".
#[test]
fn a_length_beside_a_transfer_coding_gets_one_answer_and_a_closed_connection() {
    let harness = gateway("");
    let chunked = format!("{:x}\r\n{PING}\r\n0\r\n\r\n", PING.len());
    for framing in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"]
    {
        let mut connection = harness.connect();
        connection.send(head(framing) + &chunked + &head("Content-Length: 40\r\n") + PING);
        let first: Head = connection.refusal().head;
        assert!(matches!(first.status, 200 | 400), "{first:?}");
        assert!(connection.is_closed(), "{framing:?}");
    }
}

#[test]
fn lengths_that_contradict_are_refused() {
    let harness = gateway("");
    for framing in [
        "Content-Length: 40\r\nContent-Length: 41\r\n",
        "Content-Length: x\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +40\r\n",
    ] {
        let mut connection = harness.connect();
        connection.send(head(framing) + PING);
        assert_eq!(connection.refusal().status(), 400, "{framing:?}");
        assert!(connection.is_closed(), "{framing:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let one = |id: usize| {
        let params = r#"{"name":"echo"}"#;
        let method = if id.is_multiple_of(2) { "ping" } else { "tools/call" };
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        head(&format!("Content-Length: {}\r\n", body.len())) + &body
    };
    let mut connection = harness.connect();
    connection.send((0..10).map(one).collect::<String>());
    for id in 0..10 {
        assert_eq!(connection.answer().json()["id"], id);
    }
}

#[test]
fn http_1_0_gets_its_answer_and_a_closed_connection() {
    let harness = gateway("");
    let mut connection = harness.connect();
    connection.send("GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n");
    assert_eq!(connection.refusal_of("HTTP/1.0").status(), 200);
    assert!(connection.is_closed());
}

#[test]
fn what_is_no_http_is_refused_and_harms_nobody() {
    let harness = gateway("");
    for bytes in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let mut connection = harness.connect();
        connection.send(bytes);
        connection.finish_sending();
        assert!(connection.ends(), "{bytes:?}");
    }
    assert_eq!(harness.client(ALICE).post(PING).status(), 200);
}

#[test]
fn a_client_that_breaks_off_its_body_harms_nobody() {
    let harness = gateway("");
    let mut connection = harness.connect();
    connection.send(head("Content-Length: 50\r\n") + "{");
    drop(connection);
    assert_eq!(harness.client(ALICE).post(PING).status(), 200);
}

#[test]
fn every_answer_has_a_request_id_of_its_own_that_the_log_names() {
    let harness = gateway("");
    let mut alice = harness.client(ALICE);
    let ids = [(); 3].map(|()| alice.post(PING).head.header("x-request-id").unwrap().to_owned());
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
    for id in ids {
        harness.wait_for_log(&format!("req={id} client=alice method=POST path=/mcp rpc=ping status=200"));
    }
}

#[test]
fn a_body_is_asked_for_only_from_those_who_are_let_in() {
    let harness = gateway("");
    let framing = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", PING.len());
    let mut connection = harness.connect();
    connection.send(head(&framing));
    connection.interim(100);
    connection.send(PING);
    assert_eq!(connection.answer().status(), 200);
    connection.send(head(&framing).replace(ALICE, "wrong"));
    assert_eq!(connection.answer().status(), 401);
}
