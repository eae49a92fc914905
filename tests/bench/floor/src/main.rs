//! `mcp-x-floor`: the least that a gateway built on hyper can cost.
//!
//! For one `tools/call` it does what no MCP gateway can leave out, and nothing else: find the bearer token, read the
//! envelope, find the tool among those that the token's client may call, send the message on with an id of its own,
//! and hand the answer back with the client's id. Other methods pass likewise. What MCP-X costs beyond it is what its
//! features cost; both are one thread on the same hyper.

mod message;
mod pool;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use message::{Envelope, Events, answer, with_id};
use pool::{Link, Pool};

const USAGE: &str = "usage: mcp-x-floor --listen ADDRESS --upstream ADDRESS --token TOKEN";
/// Tools that the client may call.
const TOOLS: [&str; 3] = ["echo", "payload", "sse"];
/// What goes on of a client's headers.
static PASSED_ON: [HeaderName; 6] = [
    CONTENT_TYPE,
    ACCEPT,
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("mcp-session-id"),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];

/// What goes back of an upstream's headers.
static HANDED_BACK: [HeaderName; 2] = [CONTENT_TYPE, HeaderName::from_static("mcp-session-id")];
const PARSE_ERROR: &[u8] = br#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"not a JSON-RPC message"}}"#;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Reply = Response<Either<Full<Bytes>, Stream>>;

/// Everything that requests share.
struct Floor {
    pool: Pool,
    host: HeaderValue,
    uri: Uri,
    /// `Authorization`, whole, to the tools that its client may call.
    clients: HashMap<HeaderValue, HashSet<&'static str>>,
    /// The id of the next request to the upstream.
    next_id: Cell<u64>,
}

fn main() -> ExitCode {
    let served = options().and_then(|(listen, floor)| {
        Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?.block_on(serve(listen, floor))
    });
    let Err(error) = served else { return ExitCode::SUCCESS };
    // Nobody may be left to read it.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("mcp-x-floor: {error}\n").as_bytes());
    ExitCode::FAILURE
}

fn options() -> Result<(SocketAddr, Floor), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, token] = ["--listen", "--upstream", "--token"].map(|flag| {
        words.iter().skip_while(|word| *word != flag).nth(1).ok_or_else(|| format!("`{flag}` is missing\n{USAGE}"))
    });
    let (listen, upstream, token) = (listen?.parse()?, upstream?, token?);
    let floor = Floor {
        pool: Pool::new(upstream.parse()?),
        host: HeaderValue::from_str(upstream)?,
        uri: Uri::from_static("/mcp"),
        clients: HashMap::from([(HeaderValue::from_str(&format!("Bearer {token}"))?, HashSet::from(TOOLS))]),
        next_id: Cell::new(1),
    };
    Ok((listen, floor))
}

async fn serve(listen: SocketAddr, floor: Floor) -> Result<(), Error> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let floor = Rc::new(floor);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(connection(stream, floor.clone()));
    }
}

async fn connection(stream: TcpStream, floor: Rc<Floor>) {
    let service = service_fn(move |request| reply(floor.clone(), request));
    // How a connection ends is the client's business.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Answers one request. An error, of either side, ends the client's connection.
async fn reply(floor: Rc<Floor>, request: Request<Incoming>) -> Result<Reply, Error> {
    let Some(tools) = request.headers().get(AUTHORIZATION).and_then(|token| floor.clients.get(token)) else {
        return Ok(plain(StatusCode::UNAUTHORIZED, Bytes::new()));
    };
    let (head, body) = request.into_parts();
    let message = whole(body).await?;
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&message) else {
        return Ok(plain(StatusCode::BAD_REQUEST, Bytes::from_static(PARSE_ERROR)));
    };
    let theirs = envelope.id.map_or("null", |id| id.get());
    if envelope.method == "tools/call" && !tools.contains(&*envelope.params.name) {
        let refusal =
            format!(r#"{{"jsonrpc":"2.0","id":{theirs},"error":{{"code":-32602,"message":"unknown tool"}}}}"#);
        return Ok(plain(StatusCode::OK, refusal.into()));
    }
    let mut digits = itoa::Buffer::new();
    let ours = digits.format(floor.next_id.replace(floor.next_id.get() + 1)).as_bytes();
    let forwarded = match envelope.id {
        Some(id) => with_id(&message, id, ours).ok_or("the id is not in the message")?,
        None => message.clone(),
    };
    let mut link = floor.pool.take().await?;
    let answered = link.send_request(floor.request(&head.headers, forwarded)).await?;
    hand_back(floor, link, answered, ours, theirs.as_bytes()).await
}

/// Hands an answer to the client: a message in one piece, an event stream as it comes.
async fn hand_back(
    floor: Rc<Floor>,
    link: Link,
    answered: Response<Incoming>,
    ours: &[u8],
    theirs: &[u8],
) -> Result<Reply, Error> {
    let (head, body) = answered.into_parts();
    let kind = head.headers.get(CONTENT_TYPE);
    let body = if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        let events = Events::new(Bytes::copy_from_slice(ours), Bytes::copy_from_slice(theirs));
        Either::Right(Stream { events, from: body, link: Some((floor, link)) })
    } else {
        let message = whole(body).await?;
        floor.pool.give_back(link);
        Either::Left(Full::new(answer(&message, ours, theirs).unwrap_or(message)))
    };
    let mut reply = Response::new(body);
    *reply.status_mut() = head.status;
    copy(&HANDED_BACK, &head.headers, reply.headers_mut());
    Ok(reply)
}

fn plain(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Reads a body to its end. One that came in one piece is not copied.
async fn whole(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let piece = frame?.into_data().unwrap_or_default();
        if first.is_empty() {
            first = piece;
            if body.is_end_stream() {
                break;
            }
        } else {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

fn copy(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

impl Floor {
    fn request(&self, headers: &HeaderMap, message: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        copy(&PASSED_ON, headers, request.headers_mut());
        request
    }
}

/// An event stream that is handed through.
struct Stream {
    events: Events,
    from: Incoming,
    /// The connection it comes from, and where that goes at the end.
    link: Option<(Rc<Floor>, Link)>,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        while let Some(frame) = ready!(Pin::new(&mut self.from).poll_frame(cx)?) {
            let piece = frame.into_data().map(|piece| self.events.pass(piece)).unwrap_or_default();
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        if let Some((floor, link)) = self.link.take() {
            floor.pool.give_back(link);
        }
        Poll::Ready(None)
    }
}
