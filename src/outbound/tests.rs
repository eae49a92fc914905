//! [`Client`] over real sockets, against servers scripted by each test.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::{Method, StatusCode};
use mcp_x_fixture::Port;
use tokio::time::{Instant, advance, pause, resume, sleep, timeout};

use super::*;

/// Time for what happens at once on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// More bytes than sockets buffer.
const LARGE: usize = 32 << 20;

/// Bytes that [`Conn::glance`] reads.
const GLANCE: usize = 64;

/// A server on a loopback port, with a thread per connection running the test's script.
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    counts: Arc<Counts>,
}

/// What a server has seen so far.
#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    /// The numbers of the connections on which the client was seen to be gone.
    closed: Mutex<Vec<usize>>,
    /// Connections whose script has ended, which closed them.
    ended: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

/// The server's end of one connection.
pub(super) struct Conn {
    /// Which connection of its server this is, from 0.
    number: usize,
    stream: Box<dyn Stream>,
    counts: Arc<Counts>,
}

/// What a script reads and writes.
pub(super) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Server {
    pub(super) fn start(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        Self::start_over("http://localhost", |tcp| Ok(Box::new(tcp)), script)
    }

    /// Starts a server whose streams are made by `wrap`, reached under the URL `base` and its port.
    pub(super) fn start_over(
        base: &str,
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
        script: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::parse(&format!("{base}:{}/mcp", listener.local_addr().unwrap().port())).unwrap();
        let counts = Arc::<Counts>::default();
        let server = Self { endpoint, counts: Arc::clone(&counts) };
        let serve = Arc::new((wrap, script));
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let number = counts.accepted.fetch_add(1, SeqCst);
                let (serve, counts) = (Arc::clone(&serve), Arc::clone(&counts));
                thread::spawn(move || {
                    let (wrap, script) = &*serve;
                    if let Ok(stream) = wrap(tcp.unwrap()) {
                        script(&mut Conn { number, stream, counts: Arc::clone(&counts) });
                    }
                    counts.ended.fetch_add(1, SeqCst);
                });
            }
        });
        server
    }

    /// Starts a server that gives the same answer to every request.
    fn answering(answer: &'static str) -> Self {
        Self::start(move |conn| conn.answer_all(answer))
    }

    pub(super) fn accepted(&self) -> usize {
        self.counts.accepted.load(SeqCst)
    }

    fn requests(&self) -> usize {
        self.counts.requests.lock().unwrap().len()
    }

    /// Waits until the server has seen `count` connections closed by the client, and gives their numbers in order.
    pub(super) async fn closed(&self, count: usize) -> Vec<usize> {
        eventually(|| self.counts.closed.lock().unwrap().len() == count).await;
        let mut numbers = self.counts.closed.lock().unwrap().clone();
        numbers.sort_unstable();
        numbers
    }
}

impl Conn {
    /// Reads one request, head and body; `None` when the client is gone.
    fn request(&mut self) -> Option<String> {
        let mut seen = Vec::new();
        loop {
            if let Some(request) = whole(&seen) {
                self.counts.requests.lock().unwrap().push(request.clone());
                return Some(request);
            }
            let mut some = [0; 4096];
            let read = self.stream.read(&mut some).unwrap_or(0);
            if read == 0 {
                self.counts.closed.lock().unwrap().push(self.number);
                return None;
            }
            seen.extend_from_slice(&some[..read]);
        }
    }

    /// Reads the first bytes of what the client sends.
    pub(super) fn glance(&mut self) {
        self.stream.read_exact(&mut [0; GLANCE]).unwrap();
    }

    /// Reads and forgets what the client sends, until it is gone.
    fn read_until_closed(&mut self) {
        _ = io::copy(&mut self.stream, &mut io::sink());
        self.counts.closed.lock().unwrap().push(self.number);
    }

    /// Writes interim answers, reading nothing, until the client is gone.
    #[cfg(feature = "tls")]
    pub(super) fn write_until_closed(&mut self) {
        while self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        self.counts.closed.lock().unwrap().push(self.number);
    }

    pub(super) fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    pub(super) fn answer_all(&mut self, answer: &str) {
        while self.request().is_some() {
            self.write(answer);
        }
    }
}

/// The text of a request, once its head and the body its `content-length` announces are there.
fn whole(seen: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(seen).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    (body.len() >= length.parse().unwrap()).then_some(text)
}

async fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "condition not met in time");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Lets `time` pass at once. Only while nothing waits for a socket: a paused clock runs ahead of those.
async fn let_pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

fn client() -> Client {
    Client::new(Trust::system())
}

fn request(method: Method, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri("/mcp").header("host", "h").body(Full::from(body)).unwrap()
}

/// A request of [`LARGE`] bytes.
pub(super) fn large_request() -> Request<Full<Bytes>> {
    request(Method::POST, "").map(|_| Full::from(vec![b' '; LARGE]))
}

async fn send(client: &Client, to: &Endpoint) -> Result<Response<Incoming>, OutboundError> {
    client.send(to, Reach::Private, SOON, request(Method::POST, "{}")).await
}

/// Sends a request and reads the answer to its end.
pub(super) async fn ask(client: &Client, to: &Endpoint) -> Result<String, OutboundError> {
    let body = send(client, to).await?.into_body().collect().await?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sends three requests one after the other, which are answered alike, over so many connections.
async fn check_connections(method: Method, answer: &'static str, connections: usize) {
    let server = Server::start(move |conn| {
        let closes = connections > 1 && !answer.to_ascii_lowercase().contains("keep-alive");
        while conn.request().is_some() {
            conn.write(answer);
            if closes {
                return;
            }
        }
    });
    let client = client();
    // Kept, because a connection must not have to wait for somebody to drop a body that is at its end.
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let request = request(method.clone(), "");
        let mut body = client.send(&server.endpoint, Reach::Private, SOON, request).await.unwrap().into_body();
        while !body.is_end_stream() && body.frame().await.transpose().unwrap().is_some() {}
        bodies.push(body);
    }
    assert_eq!((server.accepted(), server.requests()), (connections, 3), "{method} {answer}");
}

#[tokio::test]
async fn a_connection_is_used_again_after_the_end_of_an_answer() {
    for answer in [
        OK,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nkeep-alive: timeout=5\r\n\r\nno",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        check_connections(Method::POST, answer, 1).await;
    }
    check_connections(Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", 1).await;
    check_connections(Method::GET, OK, 1).await;
}

#[tokio::test]
async fn a_connection_that_the_server_gives_up_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok",
    ] {
        check_connections(Method::POST, answer, 3).await;
    }
}

#[tokio::test]
async fn the_request_goes_out_as_it_is() {
    let server = Server::answering(OK);
    assert_eq!(ask(&client(), &server.endpoint).await.as_deref(), Ok("ok"));
    let seen = server.counts.requests.lock().unwrap().concat();
    assert_eq!(seen, "POST /mcp HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}");
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let server = Server::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
    );
    assert_eq!(send(&client(), &server.endpoint).await.map(|answer| answer.status()), Ok(StatusCode::CREATED));
}

/// Opens `count` connections to a server that answers its connection's number once all are open.
async fn open_together(count: usize) -> (Server, Vec<Response<Incoming>>, Client) {
    let all = Barrier::new(count);
    let server = Server::start(move |conn| {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{:04}", conn.number);
        conn.request();
        all.wait();
        conn.write(&answer);
        conn.answer_all(&answer);
    });
    let client = client();
    let running: Vec<_> = (0..count)
        .map(|_| {
            let (client, to) = (client.clone(), server.endpoint.clone());
            tokio::spawn(async move { send(&client, &to).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for one in running {
        answers.push(one.await.unwrap());
    }
    (server, answers, client)
}

async fn read(answer: Response<Incoming>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn the_connection_that_became_idle_last_is_used_first() {
    let (server, answers, client) = open_together(3).await;
    let mut last = Bytes::new();
    for answer in answers {
        last = read(answer).await;
    }
    for _ in 0..3 {
        assert_eq!(read(send(&client, &server.endpoint).await.unwrap()).await, last);
    }
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn idle_connections_are_bounded_and_the_oldest_makes_room() {
    let (server, answers, client) = open_together(130).await;
    let mut numbers: Vec<usize> = Vec::new();
    for answer in answers {
        numbers.push(String::from_utf8_lossy(&read(answer).await).parse().unwrap());
    }
    numbers.truncate(2);
    numbers.sort_unstable();
    assert_eq!(server.closed(2).await, numbers);
    assert_eq!(client.0.pool.idle(), 128);
}

#[tokio::test]
async fn an_idle_connection_is_used_within_four_seconds() {
    let server = Server::answering(OK);
    let client = client();
    for _ in 0..3 {
        ask(&client, &server.endpoint).await.unwrap();
        let_pass(Duration::from_millis(3_900)).await;
    }
    assert_eq!(server.accepted(), 1);
    let_pass(Duration::from_millis(100)).await;
    ask(&client, &server.endpoint).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn the_announced_keep_alive_less_a_second_is_kept_to() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nkeep-alive: timeout=3\r\ncontent-length: 0\r\n\r\n");
    let client = client();
    ask(&client, &server.endpoint).await.unwrap();
    let_pass(Duration::from_millis(1_900)).await;
    ask(&client, &server.endpoint).await.unwrap();
    assert_eq!(server.accepted(), 1);
    let_pass(Duration::from_millis(2_000)).await;
    ask(&client, &server.endpoint).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn expired_connections_are_closed_without_further_requests() {
    let server = Server::answering(OK);
    let client = client();
    for _ in 0..2 {
        ask(&client, &server.endpoint).await.unwrap();
        let_pass(Duration::from_secs(5)).await;
        eventually(|| client.0.pool.idle() == 0).await;
    }
    server.closed(2).await;
    // Neither a driver nor a sweeper is left behind.
    eventually(|| tokio::runtime::Handle::current().metrics().num_alive_tasks() == 0).await;
}

#[tokio::test]
async fn dropping_the_client_closes_its_idle_connections() {
    let server = Server::answering(OK);
    let client = client();
    ask(&client, &server.endpoint).await.unwrap();
    drop(client);
    server.closed(1).await;
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_request() {
    let server = Server::start(|conn| {
        conn.request();
        conn.write(OK);
    });
    let client = client();
    for round in 1..=3 {
        assert_eq!(ask(&client, &server.endpoint).await.as_deref(), Ok("ok"));
        assert_eq!(server.accepted(), round);
        eventually(|| client.0.pool.ready() == 0).await;
    }
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_request_not_yet_written_moves_on_to_the_next_connection() {
    let close = Arc::new(Barrier::new(2));
    let server = Server::start({
        let close = Arc::clone(&close);
        move |conn| {
            conn.request();
            conn.write(OK);
            if conn.number == 0 {
                close.wait();
            }
        }
    });
    let client = client();
    ask(&client, &server.endpoint).await.unwrap();
    // The runtime stands still, so that the close stays unnoticed ...
    close.wait();
    while server.counts.ended.load(SeqCst) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    // ... until here; yet this task runs before the connection's driver.
    tokio::task::yield_now().await;
    assert_eq!(client.0.pool.ready(), 1);
    assert_eq!(ask(&client, &server.endpoint).await.as_deref(), Ok("ok"));
    assert_eq!((server.accepted(), server.requests()), (2, 2));
}

#[tokio::test]
async fn a_connection_with_unasked_bytes_is_not_used_again() {
    let server = Server::start(|conn| {
        while conn.request().is_some() {
            conn.write(OK);
            conn.write("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let client = client();
    for _ in 0..2 {
        assert_eq!(ask(&client, &server.endpoint).await.as_deref(), Ok("ok"));
        eventually(|| client.0.pool.ready() == 0).await;
    }
    assert_eq!(server.accepted(), 2);
}

/// A server that answers `answered` requests of a connection and closes it on reading the next.
fn closing_after(answered: usize) -> Server {
    Server::start(move |conn| {
        for _ in 0..answered {
            conn.request();
            conn.write(OK);
        }
        conn.request();
    })
}

#[tokio::test]
async fn a_request_that_was_read_is_lost_and_never_repeated() {
    for answered in [0, 1] {
        let server = closing_after(answered);
        let client = client();
        for _ in 0..answered {
            ask(&client, &server.endpoint).await.unwrap();
        }
        let error = ask(&client, &server.endpoint).await.unwrap_err();
        assert!(matches!(error, OutboundError::Lost { .. }), "{error:?}");
        assert!(!error.never_sent());
        assert_eq!((server.accepted(), server.requests()), (1, answered + 1));
    }
}

#[track_caller]
fn check_text(error: &OutboundError, expected: &str) {
    assert_eq!(error.to_string(), expected);
}

async fn error_of(answer: &'static str) -> OutboundError {
    let server = Server::start(move |conn| {
        conn.request();
        conn.write(answer);
    });
    ask(&client(), &server.endpoint).await.unwrap_err()
}

#[tokio::test]
async fn broken_answers_are_told_from_lost_ones() {
    let lost = |reason: &str| format!("connection lost before the end of the answer: {reason}");
    let odd = |reason: &str| format!("expected an HTTP/1.1 answer: {reason}");
    let body = "error reading a body from connection";
    for (answer, expected) in [
        ("", lost("connection closed before message completed")),
        ("HTTP/1.1 200 OK\r\ncontent-le", lost("connection closed before message completed")),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
            lost(&format!("{body}: end of file before message length reached")),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
            lost(&format!("{body}: unexpected EOF during chunk size line")),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n",
            odd(&format!("{body}: Invalid chunk size line: missing size digit")),
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", odd("invalid HTTP version parsed")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok", odd("invalid content-length parsed")),
    ] {
        check_text(&error_of(answer).await, &expected);
    }
}

#[tokio::test]
async fn the_head_of_an_answer_is_bounded() {
    for (size, count, fits) in [(1_000, 99, true), (1_000, 101, false), (60_000, 1, true), (66_000, 1, false)] {
        let headers = format!("x: {}\r\n", "y".repeat(size / count)).repeat(count);
        let server = Server::start(move |conn| conn.answer_all(&format!("HTTP/1.1 204 No Content\r\n{headers}\r\n")));
        let found = send(&client(), &server.endpoint).await.map(|answer| answer.status());
        match found {
            Ok(status) => assert!(fits && status == StatusCode::NO_CONTENT, "{size} {count}"),
            Err(error) => assert!(!fits && matches!(error, OutboundError::Protocol { .. }), "{size} {count} {error:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_dropped_before_its_end_closes_the_connection() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n");
    let client = client();
    for round in 1..=2 {
        let mut answer = send(&client, &server.endpoint).await.unwrap();
        assert!(answer.body_mut().frame().await.is_some());
        drop(answer);
        server.closed(round).await;
        assert_eq!(server.accepted(), round);
    }
}

#[tokio::test]
async fn a_whole_answer_dropped_unread_gives_its_connection_back() {
    let server = Server::answering(OK);
    let client = client();
    for _ in 0..3 {
        drop(send(&client, &server.endpoint).await.unwrap());
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_request_given_up_closes_its_connection() {
    let server = Server::answering("");
    let given_up = timeout(Duration::from_millis(50), send(&client(), &server.endpoint)).await;
    assert!(given_up.is_err());
    server.closed(1).await;
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_ends_its_connection() {
    let server = Server::start(|conn| {
        if conn.number == 0 {
            conn.glance();
            conn.write("HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n");
            conn.read_until_closed();
            return;
        }
        conn.answer_all(OK);
    });
    let client = client();
    let answer = client.send(&server.endpoint, Reach::Private, SOON, large_request()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(server.closed(1).await, [0]);
    assert_eq!(ask(&client, &server.endpoint).await.as_deref(), Ok("ok"));
    assert_eq!((server.accepted(), client.0.pool.idle(), client.0.pool.ready()), (2, 1, 1));
}

/// A loopback port on which nobody listens as long as it is held.
pub(super) fn refusing() -> Port {
    Port::reserve(([127, 0, 0, 1], 0).into()).unwrap()
}

#[tokio::test]
async fn a_refused_connection_is_told_apart_and_never_sent() {
    let port = refusing();
    let address = port.address();
    let endpoint = Endpoint::parse(&format!("http://{address}/")).unwrap();
    let error = ask(&client(), &endpoint).await.unwrap_err();
    assert_eq!(error, OutboundError::Connect { address, kind: ErrorKind::ConnectionRefused });
    assert!(error.never_sent());
    check_text(&error, &format!("cannot connect to `{address}`: connection refused"));
}

#[tokio::test]
async fn a_name_without_address_is_never_sent() {
    let endpoint = Endpoint::parse(&format!("http://{}.invalid/", "x".repeat(64))).unwrap();
    let error = ask(&client(), &endpoint).await.unwrap_err();
    assert!(matches!(error, OutboundError::Resolve { .. }), "{error:?}");
    assert!(error.never_sent());
}

#[tokio::test]
async fn this_machine_is_closed_to_public_reach_by_every_name() {
    for host in ["localhost", "a.LOCALHOST", "localhost.", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"] {
        let endpoint = Endpoint::parse(&format!("http://{host}:1/")).unwrap();
        let error = client().send(&endpoint, Reach::Public, SOON, request(Method::GET, "")).await.err().unwrap();
        assert!(matches!(error, OutboundError::Forbidden(_)) && error.never_sent(), "{host} {error:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_not_shared_with_another_reach() {
    let server = Server::answering(OK);
    let client = client();
    ask(&client, &server.endpoint).await.unwrap();
    let error = client.send(&server.endpoint, Reach::Public, SOON, request(Method::GET, "")).await.err();
    assert!(matches!(error, Some(OutboundError::Forbidden(_))), "{error:?}");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn places_are_kept_apart() {
    let servers: Vec<_> = (0..5).map(|_| Server::answering(OK)).collect();
    let client = client();
    for _ in 0..3 {
        for server in servers.iter().rev() {
            ask(&client, &server.endpoint).await.unwrap();
        }
    }
    for server in &servers {
        assert_eq!((server.accepted(), server.requests()), (1, 3));
    }
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn without_tls_an_https_endpoint_is_refused() {
    let endpoint = Endpoint::parse("https://localhost:1/").unwrap();
    let error = ask(&client(), &endpoint).await.unwrap_err();
    check_text(&error, "no TLS with `localhost`: this build has no TLS\nhint: build with feature `tls`");
    assert!(error.never_sent());
}

/// Compiles only if requests can be moved between threads, bodies and all.
#[test]
fn requests_and_answers_are_send() {
    fn send<T: Send>(_: T) {}
    let endpoint = Endpoint::parse("http://h/").unwrap();
    let client = client();
    send(client.send(&endpoint, Reach::Public, SOON, request(Method::GET, "")));
    send(None::<Incoming>);
    send(None::<Result<Infallible, OutboundError>>);
}
