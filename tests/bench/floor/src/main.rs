//! `mcp-x-floor`: the least that a gateway built on hyper can cost.
//!
//! For one `tools/call` it does what no MCP gateway can leave out, and nothing else: find the bearer token, read the
//! envelope, find the tool among those that the token's client may call, send the message on with an id of its own,
//! and hand the answer back with the client's id. Other methods pass likewise. What MCP-X costs beyond it is what its
//! features cost; both are one thread on the same hyper.

mod message;
mod pool;
mod stream;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use message::{Envelope, answer, with_id};
use pool::{Link, Pool};
use stream::Stream;

const USAGE: &str = "usage: mcp-x-floor --listen ADDRESS --upstream ADDRESS --token TOKEN";
/// Tools that the client may call.
const TOOLS: [&str; 3] = ["echo", "payload", "sse"];
/// What goes on of a client's headers; `Host` with another value.
static PASSED_ON: [HeaderName; 7] = [
    HOST,
    CONTENT_TYPE,
    ACCEPT,
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("mcp-session-id"),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];
/// What goes back of an upstream's headers.
static HANDED_BACK: [HeaderName; 2] = [CONTENT_TYPE, HeaderName::from_static("mcp-session-id")];
/// Bytes of room that are made for a body, at most, before they have come.
const MOST_FORESEEN: usize = 1 << 20;
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
        tokio::task::spawn_local(connection(stream, floor.clone()));
    }
}

/// Serves a connection to its end. How it ends is the client's business.
async fn connection(stream: TcpStream, floor: Rc<Floor>) {
    if stream.set_nodelay(true).is_ok() {
        let service = service_fn(move |request| reply(floor.clone(), request));
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

/// Answers one request. An error, of either side, ends the client's connection.
async fn reply(floor: Rc<Floor>, mut request: Request<Incoming>) -> Result<Reply, Error> {
    let Some(tools) = request.headers().get(AUTHORIZATION).and_then(|token| floor.clients.get(token)) else {
        return Ok(plain(StatusCode::UNAUTHORIZED, Bytes::new()));
    };
    let message = whole(request.body_mut()).await?;
    let Some(envelope) = Envelope::read(&message) else {
        return Ok(plain(StatusCode::BAD_REQUEST, Bytes::from_static(PARSE_ERROR)));
    };
    if envelope.method == "tools/call" && !tools.contains(&*envelope.params.name) {
        return Ok(unknown_tool(envelope.id));
    }
    forward(floor, std::mem::take(request.headers_mut()), &message, envelope.id).await
}

/// Sends a message on with an id of the floor's own, and hands its answer back.
async fn forward(floor: Rc<Floor>, headers: HeaderMap, message: &Bytes, id: Option<&RawValue>) -> Result<Reply, Error> {
    let mut digits = itoa::Buffer::new();
    let ours = digits.format(floor.next_id.replace(floor.next_id.get() + 1)).as_bytes();
    let forwarded = match id {
        Some(id) => with_id(message, id, ours).ok_or("the id is not in the message")?,
        None => message.clone(),
    };
    let mut link = floor.pool.take().await?;
    let answered = link.send_request(floor.request(headers, forwarded)).await?;
    hand_back(floor, link, answered, ours, written(id).as_bytes()).await
}

/// Hands an answer to the client: a message in one piece, an event stream as it comes.
async fn hand_back(
    floor: Rc<Floor>,
    link: Link,
    mut answered: Response<Incoming>,
    ours: &[u8],
    theirs: &[u8],
) -> Result<Reply, Error> {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = answered.status();
    *reply.headers_mut() = std::mem::take(answered.headers_mut());
    keep(&HANDED_BACK, reply.headers_mut());
    let kind = reply.headers().get(CONTENT_TYPE);
    *reply.body_mut() = if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        Either::Right(Stream::new(answered.into_body(), ours, theirs, floor, link))
    } else {
        let message = whole(answered.body_mut()).await?;
        floor.pool.give_back(link);
        Either::Left(Full::new(answer(&message, ours, theirs).unwrap_or(message)))
    };
    Ok(reply)
}

fn plain(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn unknown_tool(id: Option<&RawValue>) -> Reply {
    let error = r#"{"code":-32602,"message":"unknown tool"}"#;
    plain(StatusCode::OK, format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, written(id)).into())
}

/// The client's id as it wrote it.
fn written(id: Option<&RawValue>) -> &str {
    id.map_or("null", RawValue::get)
}

/// Reads a body to its end. One that came in one piece is not copied.
async fn whole(body: &mut Incoming) -> Result<Bytes, hyper::Error> {
    let first = piece(body).await?.unwrap_or_default();
    if body.is_end_stream() {
        return Ok(first);
    }
    let more = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    let mut all = Vec::with_capacity(first.len() + more.min(MOST_FORESEEN));
    all.extend_from_slice(&first);
    while let Some(piece) = piece(body).await? {
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let frame = body.frame().await.transpose()?;
    Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

/// Removes every header that is not one of `names`.
fn keep(names: &[HeaderName], headers: &mut HeaderMap) {
    while let Some(other) = headers.keys().find(|name| !names.contains(name)).cloned() {
        headers.remove(other);
    }
}

impl Floor {
    /// Makes the request to the upstream out of the headers of the client's.
    fn request(&self, mut headers: HeaderMap, message: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        headers.insert(HOST, self.host.clone());
        keep(&PASSED_ON, &mut headers);
        *request.headers_mut() = headers;
        request
    }
}
