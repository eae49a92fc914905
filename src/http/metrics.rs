//! `/metrics`: what is counted here, and the page on which everything that the gateway counts is shown.
//!
//! Who asks is checked by `server`: names of servers are on the page, so it is for admins and for the holder of
//! `metrics_token` only. No label has a value that a peer could make up, but for the names of servers, which are limited
//! in number. Source: design 15; Prometheus, "Metric and label naming".

use std::time::Duration;

use hyper::Response;
use hyper::header::{CACHE_CONTROL, HeaderValue};

use super::api::Endpoint;
use super::response::{Body, Refusal, file};
use super::router::Route;
use crate::gateway::{Gateway, Health, ServerVitals, Snapshot};
use crate::metrics::process::Process;
use crate::metrics::{Counter, Gauge, Histogram, Kind, Text, Words};
use crate::wire::mcp::method;

/// Classes of statuses; a request whose client left before its answer has none.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
/// Paths that are none of ours.
const ELSEWHERE: &str = "other";
/// Methods that are counted by name; whatever else clients send is `other`.
pub(super) const METHODS: [&str; 22] = [
    method::INITIALIZE,
    method::PING,
    method::TOOLS_LIST,
    method::TOOLS_CALL,
    method::PROMPTS_LIST,
    method::PROMPTS_GET,
    method::RESOURCES_LIST,
    method::TEMPLATES_LIST,
    method::RESOURCES_READ,
    method::COMPLETE,
    method::TASKS_GET,
    method::TASKS_UPDATE,
    method::TASKS_CANCEL,
    method::DISCOVER,
    method::INITIALIZED,
    method::CANCELLED,
    method::SET_LEVEL,
    method::LISTEN,
    method::SUBSCRIBE,
    method::UNSUBSCRIBE,
    "batch",
    "other",
];

/// How a JSON-RPC message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was answered, or taken if it wants no answer.
    Fine,
    /// It was answered with an error.
    Error,
    /// Its client left before the end of the answer.
    Left,
}

impl End {
    const ALL: [Self; 3] = [Self::Fine, Self::Error, Self::Left];

    fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Error => "error",
            Self::Left => "left",
        }
    }
}

/// What is counted of requests, by all threads together.
#[derive(Debug)]
pub struct Traffic {
    /// Open connections.
    pub connections: Gauge,
    /// Event streams to clients.
    pub streams: Gauge,
    /// Requests for tools, prompts, resources and tasks that the caller may not use or that do not exist.
    pub denied: Counter,
    /// Requests by route and class of status.
    requests: Words<Words<Counter>>,
    /// Requests refused before anybody looked at what they ask for.
    refused: Words<Counter>,
    /// JSON-RPC messages by method.
    rpc: Words<Rpc>,
}

/// What is counted of one JSON-RPC method.
#[derive(Debug)]
struct Rpc {
    ends: Words<Counter>,
    /// From the request's head to the end of its answer.
    seconds: Histogram,
}

impl Default for Traffic {
    fn default() -> Self {
        let rpc = || Rpc { ends: Words::counters(End::ALL.map(End::as_str)), seconds: Histogram::default() };
        Self {
            connections: Gauge::default(),
            streams: Gauge::default(),
            denied: Counter::default(),
            requests: Words::new(routes(), || Words::counters(CLASSES)),
            refused: Words::counters(Refusal::KINDS),
            rpc: Words::new(METHODS, rpc),
        }
    }
}

impl Traffic {
    /// Notes that a request was refused.
    pub fn refused(&self, refusal: &Refusal) {
        self.refused.inc(refusal.kind());
    }

    /// Notes the end of a request; a `status` of 0 is none.
    pub fn request(&self, route: Option<Route>, status: u16) {
        let class = usize::from(status / 100).checked_sub(1).and_then(|class| CLASSES.get(class)).unwrap_or(&"none");
        let route = route.map_or(ELSEWHERE, Route::path);
        self.requests.of(route).inspect(|classes| classes.inc(class));
    }

    /// Notes the end of a JSON-RPC message.
    pub fn rpc(&self, method: &str, end: End, took: Duration) {
        let Some(rpc) = self.rpc.of(method) else { return };
        rpc.ends.inc(end.as_str());
        rpc.seconds.observe(took);
    }

    fn write(&self, text: &mut Text) {
        let mut family = text.family("mcp_x_http_requests_total", Kind::Counter, "HTTP requests that are over.");
        for (route, classes) in self.requests.iter() {
            for (class, counter) in classes.iter().filter(|(_, counter)| counter.get() > 0) {
                family.sample(&[("route", route), ("status", class)], counter.get());
            }
        }
        let help = "Requests refused before anybody looked at what they ask for.";
        let mut family = text.family("mcp_x_http_refused_total", Kind::Counter, help);
        for (reason, counter) in self.refused.iter() {
            family.sample(&[("reason", reason)], counter.get());
        }
        let mut family = text.family("mcp_x_rpc_requests_total", Kind::Counter, "JSON-RPC messages that are over.");
        for (method, rpc) in self.rpc.iter() {
            for (end, counter) in rpc.ends.iter() {
                family.sample(&[("method", method), ("outcome", end)], counter.get());
            }
        }
        let help = "Time from a JSON-RPC message to the end of its answer.";
        let mut family = text.family("mcp_x_rpc_duration_seconds", Kind::Histogram, help);
        for (method, rpc) in self.rpc.iter() {
            family.histogram(&[("method", method)], &rpc.seconds);
        }
        let help = "Requests for tools, prompts, resources and tasks that the caller may not use or that do not exist.";
        text.single("mcp_x_denied_total", Kind::Counter, help, self.denied.get());
        text.single("mcp_x_connections", Kind::Gauge, "Open connections of clients.", self.connections.get());
        text.single("mcp_x_event_streams", Kind::Gauge, "Open event streams to clients.", self.streams.get());
    }
}

/// Every route by its path, and the word for all others.
fn routes() -> impl Iterator<Item = &'static str> {
    let endpoints = Endpoint::ALL.iter().map(|(path, _)| *path);
    Route::PLAIN.into_iter().map(Route::path).chain(endpoints).chain([ELSEWHERE])
}

/// The page.
pub(super) fn page(gateway: &Gateway, snapshot: &Snapshot, traffic: &Traffic) -> Response<Body> {
    let mut text = Text::default();
    traffic.write(&mut text);
    write_gateway(&mut text, gateway);
    write_configuration(&mut text, gateway, snapshot);
    write_servers(&mut text, gateway, snapshot);
    write_process(&mut text, gateway);
    let mut answer = file(Text::CONTENT_TYPE, text.finish());
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn write_gateway(text: &mut Text, gateway: &Gateway) {
    let vitals = gateway.vitals();
    let help = "Calls in flight: of tools, and whatever else is passed on to servers.";
    text.single("mcp_x_calls_in_flight", Kind::Gauge, help, vitals.calls);
    let help = "Calls in flight that wait for a modern client to come back with an answer.";
    text.single("mcp_x_calls_parked", Kind::Gauge, help, vitals.parked);
    let help = "Questions of servers to clients that wait for an answer.";
    text.single("mcp_x_questions", Kind::Gauge, help, vitals.questions);
    text.single("mcp_x_sessions", Kind::Gauge, "Legacy sessions with soft state.", vitals.sessions);
    let help = "Open streams of changes, whichever era's.";
    text.single("mcp_x_listeners", Kind::Gauge, help, vitals.listeners);
    let help = "Resources that clients have subscribed to.";
    text.single("mcp_x_subscriptions", Kind::Gauge, help, vitals.subscriptions);
    let help = "Bytes held for requests and answers.";
    text.single("mcp_x_buffered_bytes", Kind::Gauge, help, vitals.buffered_bytes);
    let help = "Requests and answers refused because a limit on all of a client, or of all clients, was reached.";
    let mut family = text.family("mcp_x_overloaded_total", Kind::Counter, help);
    family.sample(&[("limit", "client_calls")], vitals.too_many_calls);
    family.sample(&[("limit", "buffered_bytes")], vitals.too_many_bytes);
}

fn write_configuration(text: &mut Text, gateway: &Gateway, snapshot: &Snapshot) {
    let (registry, loaded) = (snapshot.registry(), gateway.loaded());
    let help = "Configurations that were in force before this one.";
    text.single("mcp_x_config_generation", Kind::Gauge, help, snapshot.generation());
    let help = "When the configuration in force was loaded, since the epoch.";
    text.single("mcp_x_config_loaded_timestamp_seconds", Kind::Gauge, help, loaded.at.as_secs_f64());
    let help = "Whether a newer text of the configuration is not in force.";
    text.single("mcp_x_config_refused", Kind::Gauge, help, u8::from(loaded.refused.is_some()));
    text.single("mcp_x_clients", Kind::Gauge, "Clients in the configuration.", registry.clients().len());
    text.single("mcp_x_servers", Kind::Gauge, "Servers in the configuration.", registry.servers().len());
}

fn write_servers(text: &mut Text, gateway: &Gateway, snapshot: &Snapshot) {
    let servers = snapshot.registry().servers();
    let known = servers.filter_map(|server| Some((server.id.as_str(), gateway.server_vitals(server)?)));
    let known: Vec<(&str, ServerVitals)> = known.collect();
    let mut family = text.family("mcp_x_server_state", Kind::Gauge, "1 for the state that a server is in.");
    for (name, vitals) in &known {
        for state in Health::ALL {
            let word = state.to_string();
            family.sample(&[("server", name), ("state", &word)], u8::from(state == vitals.health));
        }
    }
    let mut gauge = |name, help, value: &dyn Fn(&ServerVitals) -> Option<f64>| {
        let mut family = text.family(name, Kind::Gauge, help);
        for (name, value) in known.iter().filter_map(|(name, vitals)| Some((name, value(vitals)?))) {
            family.sample(&[("server", name)], value);
        }
    };
    gauge("mcp_x_server_tools", "Tools that a server offers.", &|v| Some(v.tools as f64));
    gauge("mcp_x_server_calls_in_flight", "Calls in flight to a server.", &|v| Some(v.calls as f64));
    let help = "Time since a server's catalogue was fetched.";
    gauge("mcp_x_server_catalogue_age_seconds", help, &|v| Some(v.age?.as_secs_f64()));
    let mut counts = |name, help, label, words: &dyn Fn(&ServerVitals) -> &Words<Counter>| {
        let mut family = text.family(name, Kind::Counter, help);
        for (name, vitals) in &known {
            for (word, counter) in words(vitals).iter() {
                family.sample(&[("server", name), (label, word)], counter.get());
            }
        }
    };
    let help = "Calls of a server, of tools and whatever else is passed on, that are over.";
    counts("mcp_x_server_calls_total", help, "outcome", &|v| &v.series.calls);
    let help = "Calls that a server did not answer.";
    counts("mcp_x_server_errors_total", help, "kind", &|v| &v.series.errors);
    let help = "Attempts to fetch a server's catalogue.";
    counts("mcp_x_server_refreshes_total", help, "outcome", &|v| &v.series.refreshes);
    let help = "Time from a call of a server to its end, whichever that was.";
    let mut family = text.family("mcp_x_server_call_duration_seconds", Kind::Histogram, help);
    for (name, vitals) in &known {
        family.histogram(&[("server", name)], &vitals.series.seconds);
    }
}

fn write_process(text: &mut Text, gateway: &Gateway) {
    let mut family = text.family("mcp_x_build_info", Kind::Gauge, "1, with the version.");
    family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let help = "When the process was started, since the epoch.";
    text.single("process_start_time_seconds", Kind::Gauge, help, gateway.started().as_secs_f64());
    let process = Process::read();
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", Kind::Counter, "Processor time.", process.cpu_seconds),
        ("process_resident_memory_bytes", Kind::Gauge, "Resident memory.", whole(process.resident_bytes)),
        ("process_open_fds", Kind::Gauge, "Open file descriptors.", whole(process.open_fds)),
        ("process_max_fds", Kind::Gauge, "File descriptors that may be open.", whole(process.max_fds)),
        ("process_threads", Kind::Gauge, "Threads.", whole(process.threads)),
    ] {
        // Where the kernel does not say, there is no sample.
        if let Some(value) = value {
            text.single(name, kind, help, value);
        }
    }
}
