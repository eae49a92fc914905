//! Two small MCP servers, so that `mcp-x demo` has something to put behind the gateway.
//!
//! They speak the legacy revisions of MCP over streamable HTTP, without sessions: `POST /mcp` answers with JSON, or with an event
//! stream where a call reports progress. They know nothing of the gateway and share no code with it, so that the demo crosses a
//! real connection to a real server. What the messages mean is in `rpc`, the tools are in `text` and `clock`.
//! Follows the transport pages of MCP 2024-11-05 (message shapes only), 2025-03-26, 2025-06-18 and 2025-11-25.

mod clock;
mod rpc;
mod text;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval};

use rpc::{Answer, Outcome};

/// Largest request body, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// How long to wait before accepting again after a failure, which is most likely a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Names the revision on every request but the first, from 2025-06-18 on.
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// Which of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Example {
    /// Counts, hashes, encodes and formats text.
    Text,
    /// Tells and converts the time, and counts down.
    Clock,
}

impl Example {
    /// The server's short name, as a configuration would call it.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Clock => "clock",
        }
    }

    fn tools(self) -> &'static [rpc::Tool] {
        match self {
            Self::Text => text::TOOLS,
            Self::Clock => clock::TOOLS,
        }
    }
}

/// Serves `example` at `/mcp` on `listener`. Runs until dropped, which closes its connections too.
pub(super) async fn serve(listener: TcpListener, example: Example) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, example));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, example: Example) {
    let service = service_fn(move |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(respond(example, request, now()).await)
    });
    // An error here is a client that left or did not speak HTTP: nobody is waiting for an answer.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// Seconds since 1970-01-01T00:00:00Z.
#[expect(clippy::disallowed_methods, reason = "an example server is its own edge: nobody hands it the time")]
fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

type ResponseBody = Either<Full<Bytes>, Countdown>;

async fn respond<B>(example: Example, request: Request<B>, now: i64) -> Response<ResponseBody>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    if let Err((status, reason)) = vet(&head) {
        return refuse(status, reason);
    }
    if !knows_version(&head.headers) {
        let message = format!("unsupported protocol version, expected one of {}", rpc::VERSIONS.join(", "));
        return json_response(StatusCode::BAD_REQUEST, &rpc::error(None, rpc::INVALID_REQUEST, &message));
    }
    // A body that broke off ends here too, but then nobody reads the answer.
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    };
    match rpc::receive(example, &body.to_bytes(), now) {
        Outcome::Accepted => response(StatusCode::ACCEPTED, None, Bytes::new()),
        Outcome::Refused(error) => json_response(StatusCode::BAD_REQUEST, &error),
        Outcome::Single(Answer { message, seconds, progress: Some(token) })
            if seconds > 0 && takes_events(&head.headers) =>
        {
            event_stream(Countdown::new(message, seconds, token))
        }
        Outcome::Single(Answer { message, seconds, .. }) => {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            json_response(StatusCode::OK, &message)
        }
        Outcome::Batch(answers) => {
            let longest = answers.iter().map(|answer| answer.seconds).max().unwrap_or_default();
            tokio::time::sleep(Duration::from_secs(longest)).await;
            json_response(StatusCode::OK, &answers.into_iter().map(|answer| answer.message).collect())
        }
    }
}

/// Checks everything about a request that HTTP can tell.
fn vet(head: &Parts) -> Result<(), (StatusCode, &'static str)> {
    if head.uri.path() != "/mcp" {
        return Err((StatusCode::NOT_FOUND, "not found: the MCP endpoint is /mcp"));
    }
    // SECURITY: only browsers send an origin, and a page that reached us, perhaps by DNS rebinding, has no business here.
    if head.headers.contains_key(ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "requests from web pages are not served"));
    }
    if head.method != Method::POST {
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "only POST: this server has no sessions and opens no streams of its own",
        ));
    }
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected Content-Type: application/json"));
    }
    Ok(())
}

fn knows_version(headers: &HeaderMap) -> bool {
    headers.get(PROTOCOL_VERSION).is_none_or(|version| rpc::VERSIONS.iter().any(|known| version == known))
}

fn takes_events(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains("text/event-stream")))
}

fn refuse(status: StatusCode, reason: &'static str) -> Response<ResponseBody> {
    let mut response = response(status, Some("text/plain; charset=utf-8"), Bytes::from_static(reason.as_bytes()));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<ResponseBody> {
    response(status, Some("application/json"), body.to_string().into())
}

fn response(status: StatusCode, content_type: Option<&'static str>, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

fn event_stream(countdown: Countdown) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Right(countdown));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// An event stream that reports progress once a second and ends with the answer. Dropped with its connection, it just stops.
struct Countdown {
    clock: Interval,
    /// Seconds that have passed, and all there are.
    passed: u64,
    total: u64,
    /// The caller's progress token, as it was given.
    token: Value,
    /// The JSON-RPC response; taken when it has been sent.
    answer: Option<Value>,
}

impl Countdown {
    fn new(answer: Value, total: u64, token: Value) -> Self {
        let second = Duration::from_secs(1);
        let clock = tokio::time::interval_at(Instant::now() + second, second);
        Self { clock, passed: 0, total, token, answer: Some(answer) }
    }

    /// The progress notification for the second that has just passed.
    fn progress(&self) -> Value {
        let message = match self.total - self.passed {
            1 => "1 second left".to_owned(),
            left => format!("{left} seconds left"),
        };
        let params =
            json!({"progressToken": self.token, "progress": self.passed, "total": self.total, "message": message});
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    }
}

impl Body for Countdown {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.answer.is_none() {
            return Poll::Ready(None);
        }
        ready!(self.clock.poll_tick(cx));
        self.passed += 1;
        let mut events = event(&self.progress());
        if self.passed == self.total {
            events.extend(self.answer.take().map(|answer| event(&answer)));
        }
        Poll::Ready(Some(Ok(Frame::data(events.into()))))
    }
}

fn event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

    fn post(body: &str) -> Request<Full<Bytes>> {
        let mut request = Request::post("/mcp").body(Full::from(body.to_owned())).unwrap();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        request
    }

    fn countdown(seconds: u64, meta: Value) -> Request<Full<Bytes>> {
        let params = json!({"name": "countdown", "arguments": {"seconds": seconds}, "_meta": meta});
        post(&json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": params}).to_string())
    }

    async fn text(response: Response<ResponseBody>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// Sends a request whose head was changed by `edit`, and compares the status.
    #[track_caller]
    fn check(edit: impl FnOnce(&mut Request<Full<Bytes>>), status: u16) {
        let mut request = post(PING);
        edit(&mut request);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let response = runtime.block_on(respond(Example::Text, request, 0));
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key(ALLOW), status == 405);
    }

    #[test]
    fn only_sound_requests_are_served() {
        check(|_| (), 200);
        check(|request| *request.uri_mut() = "/mcp?a=b".parse().unwrap(), 200);
        check(|request| *request.uri_mut() = "/".parse().unwrap(), 404);
        check(|request| *request.method_mut() = Method::GET, 405);
        check(|request| *request.method_mut() = Method::DELETE, 405);
        check(|request| *request.body_mut() = Full::from("x".repeat(MAX_BODY + 1)), 413);
        check(|request| *request.body_mut() = Full::from("x"), 400);
        check(|request| drop(request.headers_mut().remove(CONTENT_TYPE)), 415);
        for (name, value, status) in [
            (ORIGIN, "http://localhost:9100", 403),
            (CONTENT_TYPE, "text/plain", 415),
            (PROTOCOL_VERSION, "2026-07-28", 400),
            (PROTOCOL_VERSION, "2025-06-18", 200),
        ] {
            check(|request| drop(request.headers_mut().insert(name, HeaderValue::from_static(value))), status);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_countdown_reports_every_second_to_those_who_ask() {
        let mut request = countdown(3, json!({"progressToken": 7}));
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let start = Instant::now();
        let response = respond(Example::Clock, request, 0).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        let text = text(response).await;
        let messages: Vec<Value> = text
            .split_terminator("\n\n")
            .map(|event| serde_json::from_str(event.strip_prefix("event: message\ndata: ").unwrap()).unwrap())
            .collect();
        let progress = |passed: u64, message: &str| {
            let params = json!({"progressToken": 7, "progress": passed, "total": 3, "message": message});
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        };
        let [first, second, third, answer] = messages.as_slice() else { panic!("{text}") };
        assert_eq!(
            [first, second, third],
            [&progress(1, "2 seconds left"), &progress(2, "1 second left"), &progress(3, "0 seconds left"),]
        );
        assert_eq!(answer["id"], "c");
        assert_eq!(answer["result"]["content"][0]["text"], "counted down from 3");
        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_countdown_nobody_watches_is_answered_with_json() {
        for meta in [json!({}), json!({"progressToken": "not accepting events"})] {
            let start = Instant::now();
            let response = respond(Example::Clock, countdown(2, meta), 0).await;
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(start.elapsed().as_secs(), 2);
            let body: Value = serde_json::from_str(&text(response).await).unwrap();
            assert_eq!(body["result"]["isError"], false);
        }
    }

    #[tokio::test]
    async fn a_client_is_served_over_a_socket_until_the_server_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Example::Text));
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);

        let hash = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"text_hash","arguments":{"text":"abc"}}}"#;
        for (body, status, part) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#,
                200,
                "2025-06-18",
            ),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, 202, ""),
            (r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#, 200, "text_stats"),
            (hash, 200, "ba7816bf8f01cfea"),
        ] {
            let response = client.send_request(post(body)).await.unwrap();
            assert_eq!(response.status(), status, "{body}");
            let answer = response.into_body().collect().await.unwrap().to_bytes();
            let answer = std::str::from_utf8(&answer).unwrap();
            assert!(answer.contains(part) && answer.is_empty() == part.is_empty(), "{body} {answer}");
        }

        server.abort();
        assert!(connection.await.is_ok(), "the connection outlived the server");
        assert!(TcpStream::connect(address).await.is_err(), "the listener outlived the server");
    }
}
