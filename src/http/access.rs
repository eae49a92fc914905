//! The one record of each request.

use std::sync::Arc;
use std::time::Instant;

use crate::http::connection::Busy;
use crate::http::metrics::{End, Traffic};
use crate::http::router::Route;
use crate::log::Log;
use crate::metrics::Held;
use crate::policy::{ClientId, ServerId};
use crate::wire::mcp::Era;

/// Characters of a path that are recorded.
const LONGEST_PATH: usize = 128;

/// What is known of a request so far; written to the log when the request is over, however it ends.
pub struct Access {
    /// Names the request in every record about it and in its answer.
    pub id: String,
    /// Who made it, once that is known.
    pub client: Option<ClientId>,
    /// HTTP method.
    pub method: hyper::Method,
    /// Path, without the query.
    pub path: String,
    /// Where it went.
    pub route: Option<Route>,
    /// JSON-RPC method.
    pub rpc: Option<String>,
    /// Tool that was called, as the client names it.
    pub tool: Option<String>,
    /// Server that the call went to.
    pub server: Option<ServerId>,
    /// The eras in which the client spoke and the server was spoken to.
    pub eras: Option<(Era, Era)>,
    /// HTTP status; 0 while there is no answer.
    pub status: u16,
    /// JSON-RPC error code of the answer.
    pub code: Option<i64>,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Whether the answer was complete when it ended.
    pub complete: bool,
    started: Instant,
    log: Log,
    traffic: Arc<Traffic>,
    /// While the answer is an event stream.
    stream: Option<Held>,
    /// Keeps the connection from counting as idle.
    _busy: Busy,
}

impl Access {
    /// Starts the record of a request that has just arrived.
    #[must_use]
    pub fn start(id: String, method: hyper::Method, path: &str, log: Log, traffic: Arc<Traffic>, busy: Busy) -> Self {
        Self {
            id,
            client: None,
            method,
            path: path.chars().take(LONGEST_PATH).collect(),
            route: Route::of(path),
            rpc: None,
            tool: None,
            server: None,
            eras: None,
            status: 0,
            code: None,
            bytes: 0,
            complete: false,
            started: Instant::now(),
            log,
            traffic,
            stream: None,
            _busy: busy,
        }
    }

    /// Records that the client asked for a tool that it may not use or that does not exist.
    pub fn denied(&self) {
        self.traffic.denied.inc();
        self.log.warn("denied", |r| {
            r.field("req", &self.id);
            if let Some(client) = &self.client {
                r.field("client", client);
            }
            if let Some(tool) = &self.tool {
                r.field("tool", tool);
            }
        });
    }

    /// Counts the answer as an event stream until it is over.
    pub fn streams(&mut self) {
        self.stream = Some(self.traffic.streams.hold());
    }

    /// Counts the request, which is over.
    fn count(&self) {
        self.traffic.request(self.route, self.status);
        let Some(method) = &self.rpc else { return };
        let end = match self.code {
            _ if !self.complete => End::Left,
            None if self.status < 400 => End::Fine,
            _ => End::Error,
        };
        self.traffic.rpc(method, end, self.started.elapsed());
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.count();
        self.log.info("request", |r| {
            r.field("req", &self.id);
            if let Some(client) = &self.client {
                r.field("client", client);
            }
            r.field("method", &self.method).field("path", &self.path);
            for (name, value) in [("rpc", &self.rpc), ("tool", &self.tool)] {
                if let Some(value) = value {
                    r.field(name, value);
                }
            }
            if let Some(server) = &self.server {
                r.field("server", server);
            }
            if let Some((client, server)) = &self.eras {
                r.field("eras", format_args!("{client}/{server}"));
            }
            r.number("status", self.status);
            if let Some(code) = self.code {
                r.number("code", code);
            }
            if !self.complete {
                r.field("end", "client left");
            }
            r.number("bytes", self.bytes);
            r.millis("ms", self.started.elapsed());
        });
    }
}
