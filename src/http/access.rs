//! The one record of each request.

use std::time::Instant;

use crate::http::connection::Busy;
use crate::log::Log;
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
    /// Keeps the connection from counting as idle.
    _busy: Busy,
}

impl Access {
    /// Starts the record of a request that has just arrived.
    #[must_use]
    pub fn start(id: String, method: hyper::Method, path: &str, log: Log, busy: Busy) -> Self {
        Self {
            id,
            client: None,
            method,
            path: path.chars().take(LONGEST_PATH).collect(),
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
            _busy: busy,
        }
    }

    /// Records that the client asked for a tool that it may not use or that does not exist.
    pub fn denied(&self) {
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
}

impl Drop for Access {
    fn drop(&mut self) {
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
            r.number("status", self.status.into());
            if let Some(code) = self.code {
                r.field("code", code);
            }
            if !self.complete {
                r.field("end", "client left");
            }
            r.number("bytes", self.bytes);
            r.field("ms", format_args!("{:.1}", self.started.elapsed().as_secs_f64() * 1e3));
        });
    }
}
