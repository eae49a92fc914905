//! Peers that are slow without being broken, and peers that never end: nobody is cut off in the middle, nobody holds
//! anything for ever. Design 13; protocol.md 2.3 (lazy commit).

use std::io::Read as _;
use std::time::Duration;

use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, Gate, Harness, call_message, owned_by_alice};

fn gateway(upstream: &Upstream, lines: &str) -> Harness {
    Harness::start(&format!("{}\n[gateway]\n{lines}\n", owned_by_alice(&[("server_a", upstream)])))
}

#[test]
fn a_slow_json_answer_becomes_a_stream_that_can_be_kept_alive() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream, "");
    let gate = Gate::default();
    let waited = gate.clone();
    upstream.on_call(move |exchange| {
        while !waited.wait() {}
        exchange.result("{\"late\":true}");
    });
    let mut alice = harness.client(ALICE);
    // The head comes while the server has not sent a byte.
    let head = alice.stream(&call_message("7", "echo", "{}"));
    assert!(head.is_stream(), "{head:?}");
    assert_eq!(upstream.calls().len(), 1);
    gate.open();
    assert_eq!(alice.connection.event().unwrap(), r#"{"jsonrpc":"2.0","id":7,"result":{"late":true}}"#);
}

#[test]
fn an_answer_that_takes_longer_than_the_idle_time_arrives_whole() {
    const SIZE: usize = 12 << 20;
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream, "idle_seconds = 1");
    upstream.on_call(|exchange| exchange.result(&format!("{{\"text\":\"{}\"}}", "x".repeat(SIZE))));
    let mut stream = std::net::TcpStream::connect(harness.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let body = call_message("1", "echo", "{}");
    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer alice-token\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let head = head.replace("alice-token", ALICE);
    std::io::Write::write_all(&mut stream, format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .unwrap();
    let (mut received, mut buffer) = (0, vec![0; SIZE / 12]);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            length => received += length,
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    assert!(received > SIZE, "{received}");
}

#[test]
fn a_client_that_takes_nothing_is_let_go_and_its_call_ends() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream, "idle_seconds = 1\nwhole_call_seconds = 3");
    upstream.on_call(|exchange| {
        exchange.begin_events();
        let text = "x".repeat(1 << 20);
        for _ in 0..64 {
            exchange.event(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"{text}"}}}}"#
            ));
        }
        exchange.result_event("{}");
    });
    let mut alice = harness.client(ALICE);
    alice.send(call_message("1", "echo", "{}"));
    harness.wait_for_log("end=\"client left\"");
    // The server is still there for others.
    upstream.on_call(|exchange| exchange.echo());
    assert_eq!(harness.client(ALICE).text("echo"), "a:echo");
}

#[test]
fn a_server_that_answers_notifications_with_an_endless_stream_works_all_the_same() {
    let upstream = Plan::new("a").sessionful().start();
    upstream.on_request(|exchange| {
        if exchange.request.rpc() == "notifications/initialized" {
            exchange.begin_events();
            exchange.chunk(": nothing to say\n\n");
            std::thread::sleep(Duration::from_secs(8));
        } else {
            exchange.normally();
        }
    });
    let harness = gateway(&upstream, "");
    assert_eq!(harness.client(ALICE).text("echo"), "a:echo");
}

#[test]
fn a_server_that_floods_a_call_with_requests_fails_that_call_only() {
    let upstream = Plan::new("a").start();
    let harness = gateway(&upstream, "");
    upstream.on_call(|exchange| {
        exchange.begin_events();
        let pings: String =
            (0..5_000).map(|i| format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{i},\"method\":\"ping\"}}\n\n")).collect();
        exchange.chunk(&pings);
        exchange.result_event("{}");
    });
    let mut alice = harness.client(ALICE);
    let (code, message) = alice.error("echo");
    assert_eq!(code, -32603);
    assert!(message.contains("not MCP"), "{message}");
    let connections = upstream.state().connections;
    assert!(connections < 12, "{connections} connections");
    upstream.on_call(|exchange| exchange.echo());
    assert_eq!(alice.text("echo"), "a:echo");
}
