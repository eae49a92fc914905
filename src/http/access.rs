//! The one record of each request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gateway::Subject;
use crate::http::connection::Busy;
use crate::http::metrics::{End, METHODS, Traffic};
use crate::http::router::Route;
use crate::log::{Level, Log, RequestId, cut};
use crate::metrics::Held;
use crate::policy::{ClientId, ServerId};
use crate::wire::mcp::{Era, ListKind};

/// Bytes of a path, and of a name, that are recorded.
const LONGEST_NAME: usize = 128;
/// Bytes of a JSON-RPC method's name that are recorded.
const LONGEST_METHOD: usize = 64;

/// What is known of a request so far; written to the log when the request is over, however it ends.
pub struct Access {
    /// Names the request in every record about it and in its answer.
    pub id: RequestId,
    /// Who made it, once that is known.
    pub client: Option<ClientId>,
    /// HTTP method.
    pub method: hyper::Method,
    /// Path, without the query.
    pub path: Cow<'static, str>,
    /// Where it went.
    pub route: Option<Route>,
    /// JSON-RPC method.
    pub rpc: Option<Cow<'static, str>>,
    /// What it is about, as the client names it, and what that is.
    pub subject: Option<(ListKind, Box<str>)>,
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
    /// When it came.
    started: Instant,
    /// The same, since the epoch.
    now: Duration,
    log: Log,
    traffic: Arc<Traffic>,
    /// While the answer is an event stream.
    stream: Option<Held>,
    /// Keeps the connection from counting as idle.
    _busy: Busy,
}

impl Access {
    /// Starts the record of a request that has just arrived; `now` is the time since the epoch.
    #[must_use]
    pub fn start(
        id: RequestId,
        now: Duration,
        method: hyper::Method,
        path: &str,
        log: Log,
        traffic: Arc<Traffic>,
        busy: Busy,
    ) -> Self {
        let route = Route::of(path);
        let path = match route.map(Route::path) {
            Some(known) if known == path => Cow::Borrowed(known),
            _ => Cow::Owned(cut(path, LONGEST_NAME).to_owned()),
        };
        Self {
            id,
            client: None,
            method,
            path,
            route,
            rpc: None,
            subject: None,
            server: None,
            eras: None,
            status: 0,
            code: None,
            bytes: 0,
            complete: false,
            started: Instant::now(),
            now,
            log,
            traffic,
            stream: None,
            _busy: busy,
        }
    }

    /// Notes the JSON-RPC method.
    pub fn set_rpc(&mut self, method: &str) {
        let known = METHODS.into_iter().find(|known| *known == method);
        self.rpc = Some(known.map_or_else(|| Cow::Owned(cut(method, LONGEST_METHOD).to_owned()), Cow::Borrowed));
    }

    /// Notes what the request is about.
    pub fn set_subject(&mut self, subject: &Subject) {
        self.subject = Some((subject.kind, cut(&subject.name, LONGEST_NAME).into()));
    }

    /// Records that the client asked for something that it may not use or that does not exist.
    pub fn denied(&self) {
        self.traffic.denied.inc();
        self.log.warn("denied", |r| {
            r.text("req", self.id.as_str());
            if let Some(client) = &self.client {
                r.text("client", client.as_str());
            }
            if let Some((kind, name)) = &self.subject {
                r.text(kind.word(), name);
            }
        });
    }

    /// Counts the answer as an event stream until it is over.
    pub fn streams(&mut self) {
        self.stream = Some(self.traffic.streams.hold());
    }

    /// Counts the request, which took so long.
    fn count(&self, took: Duration) {
        self.traffic.request(self.route, self.status);
        let Some(method) = &self.rpc else { return };
        let end = match self.code {
            _ if !self.complete => End::Left,
            None if self.status < 400 => End::Fine,
            _ => End::Error,
        };
        self.traffic.rpc(method, end, took);
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.count(took);
        self.log.write_at(self.now + took, Level::Info, "request", |r| {
            r.text("req", self.id.as_str());
            let client = self.client.as_ref().map(ClientId::as_str);
            let server = self.server.as_ref().map(ServerId::as_str);
            let kind = self.subject.as_ref().map_or(ListKind::Tools, |(kind, _)| *kind);
            for (name, value) in [
                ("client", client),
                ("method", Some(self.method.as_str())),
                ("path", Some(&*self.path)),
                ("rpc", self.rpc.as_deref()),
                (kind.word(), self.subject.as_ref().map(|(_, name)| &**name)),
                ("server", server),
                ("eras", self.eras.map(pair_of_eras)),
            ] {
                if let Some(value) = value {
                    r.text(name, value);
                }
            }
            r.number("status", self.status);
            if let Some(code) = self.code {
                r.number("code", code);
            }
            if !self.complete {
                r.field("end", "client left");
            }
            r.number("bytes", self.bytes);
            r.millis("ms", took);
        });
    }
}

/// The client's era and the server's.
fn pair_of_eras(eras: (Era, Era)) -> &'static str {
    match eras {
        (Era::Legacy, Era::Legacy) => "legacy/legacy",
        (Era::Legacy, Era::Modern) => "legacy/modern",
        (Era::Modern, Era::Legacy) => "modern/legacy",
        (Era::Modern, Era::Modern) => "modern/modern",
    }
}
