//! `bench-upstream`: a fast MCP server, or a thousand of them in one thread.
//!
//! Server `i` listens on `127.0.{i / 250}.{i % 250 + 1}`, so that many servers on one port are as many addresses to a
//! gateway. Every path is the MCP endpoint but `GET /stats`, which counts what was asked of all servers together.

mod answer;
mod message;
mod stream;

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mcp_x_bench::mcp::{Era, METHOD, NAME, VERSION, prefix};
use mcp_x_bench::options::{Options, exit};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use answer::{Answer, Mirrored, Server};
use message::Message;
use stream::Events;

const KNOWN: [&str; 4] = ["--port", "--servers", "--tools", "--era"];

type Reply = Response<Either<Full<Bytes>, Events>>;

/// What was asked, of all servers together.
#[derive(Default)]
struct Counts {
    connections: Cell<u64>,
    requests: Cell<u64>,
    initialize: Cell<u64>,
    discover: Cell<u64>,
    list: Cell<u64>,
    call: Cell<u64>,
}

fn main() -> ExitCode {
    let served = Options::read(std::env::args().skip(1), &KNOWN).and_then(|options| {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        runtime.map_err(|error| error.to_string())?.block_on(serve(&options))
    });
    exit("bench-upstream", served)
}

async fn serve(options: &Options) -> Result<(), String> {
    let (port, servers) = (options.get("--port", 23200)?, options.get("--servers", 1)?);
    let (tools, era) = (options.get("--tools", 10)?, options.get("--era", Era::Dual)?);
    let counts = Rc::new(Counts::default());
    for index in 0..servers {
        let address = SocketAddr::from((address(index), port));
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let server = Rc::new(Server::new(era, &prefix(index, servers), tools));
        tokio::task::spawn_local(accept(listener, server, counts.clone()));
    }
    std::future::pending().await
}

/// The address of server `index`: 127.0.0.1, 127.0.0.2 … 127.0.0.250, 127.0.1.1 …
fn address(index: usize) -> Ipv4Addr {
    let part = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 0, part(index / 250), part(index % 250 + 1))
}

async fn accept(listener: TcpListener, server: Rc<Server>, counts: Rc<Counts>) {
    while let Ok((stream, _)) = listener.accept().await {
        count(&counts.connections);
        tokio::task::spawn_local(connection(stream, server.clone(), counts.clone()));
    }
}

async fn connection(stream: TcpStream, server: Rc<Server>, counts: Rc<Counts>) {
    if stream.set_nodelay(true).is_ok() {
        let service = service_fn(move |request| reply(server.clone(), counts.clone(), request));
        // How a connection ends is the client's business.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

async fn reply(server: Rc<Server>, counts: Rc<Counts>, request: Request<Incoming>) -> Result<Reply, hyper::Error> {
    if request.uri().path() == "/stats" {
        return Ok(json(StatusCode::OK, counts.to_string()));
    }
    if request.method() != Method::POST {
        let mut reply = json(StatusCode::METHOD_NOT_ALLOWED, String::new());
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Ok(reply);
    }
    let (head, body) = request.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let mirrored = Mirrored { version: header(VERSION), method: header(METHOD), name: header(NAME) };
    let body = body.collect().await?.to_bytes();
    let answer = match serde_json::from_slice::<Message<'_>>(&body) {
        Ok(message) => {
            counts.note(&message.method);
            server.answer(&mirrored, &message)
        }
        Err(error) => Answer::unreadable(&error),
    };
    Ok(match answer {
        Answer::Json(status, text) => json(status, text),
        Answer::Events(events) => {
            let mut reply = with_type(Response::new(Either::Right(events)), "text/event-stream");
            // Asks nginx to pass events on as they come.
            reply.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
            reply
        }
    })
}

fn json(status: StatusCode, text: String) -> Reply {
    let mut reply = with_type(Response::new(Either::Left(Full::new(text.into()))), "application/json");
    *reply.status_mut() = status;
    reply
}

fn with_type(mut reply: Reply, kind: &'static str) -> Reply {
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Counts {
    fn note(&self, method: &str) {
        count(&self.requests);
        match method {
            "initialize" => count(&self.initialize),
            "server/discover" => count(&self.discover),
            "tools/list" => count(&self.list),
            "tools/call" => count(&self.call),
            _ => {}
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { connections, requests, initialize, discover, list, call } = self;
        let counters = [connections, requests, initialize, discover, list, call].map(Cell::get);
        let names = ["connections", "requests", "initialize", "server/discover", "tools/list", "tools/call"];
        let pairs: Vec<_> =
            names.iter().zip(counters).map(|(name, counter)| format!(r#""{name}":{counter}"#)).collect();
        write!(f, "{{{}}}", pairs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_an_address_of_its_own() {
        let addresses = [0, 249, 250, 999].map(|index| address(index).to_string());
        assert_eq!(addresses, ["127.0.0.1", "127.0.0.250", "127.0.1.1", "127.0.3.250"]);
    }
}
