//! A scripted MCP server: hand-written HTTP on a listener of its own, one thread a connection.
//!
//! Out of the box it speaks the handshake dialect and echoes its name and the tool's. A test replaces how calls are
//! answered ([`Upstream::on_call`]) or how everything is ([`Upstream::on_request`]), and looks at what arrived.

mod exchange;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use mcp_x_fixture::{Listening, Port};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Gate, PATIENCE};
pub(crate) use exchange::Exchange;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Counts the connections from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON-RPC method; `null` for responses and for what is no message.
    pub(crate) fn rpc(&self) -> String {
        self.member("method").trim_matches('"').to_owned()
    }

    /// The JSON-RPC id as it is written.
    pub(crate) fn id(&self) -> String {
        self.member("id")
    }

    /// A member of the message as it is written; `null` if there is none.
    fn member(&self, name: &str) -> String {
        let members: Option<HashMap<String, Box<RawValue>>> = serde_json::from_str(&self.body).ok();
        members.and_then(|m| m.get(name).map(|value| value.get().to_owned())).unwrap_or_else(|| "null".to_owned())
    }
}

type Script = Arc<dyn Fn(&mut Exchange<'_>) + Send + Sync>;

/// How the server behaves; set before it starts.
#[derive(Clone)]
pub(crate) struct Plan {
    name: String,
    /// Its lists, by the method that asks for them; it has no others.
    lists: BTreeMap<&'static str, Vec<String>>,
    sessionful: bool,
    events: bool,
    page: usize,
}

impl Plan {
    /// A session-less server of this name that answers in JSON and has one tool, `echo`.
    pub(crate) fn new(name: &str) -> Self {
        let lists = BTreeMap::from([("tools/list", vec![tool("echo")])]);
        Self { name: name.to_owned(), lists, sessionful: false, events: false, page: usize::MAX }
    }

    /// The names of its tools.
    pub(crate) fn tools(self, names: &[impl AsRef<str>]) -> Self {
        self.list("tools/list", names.iter().map(|name| tool(name.as_ref())))
    }

    /// The descriptions of its tools, as they are written.
    pub(crate) fn described(self, tools: &[&str]) -> Self {
        self.list("tools/list", tools.iter().map(ToString::to_string))
    }

    /// It has no tools at all.
    pub(crate) fn without_tools(mut self) -> Self {
        self.lists.remove("tools/list");
        self
    }

    /// The names of its prompts.
    pub(crate) fn prompts(self, names: &[&str]) -> Self {
        self.list("prompts/list", names.iter().map(|name| json!({ "name": name }).to_string()))
    }

    /// The URIs of its resources.
    pub(crate) fn resources(self, uris: &[&str]) -> Self {
        self.list("resources/list", uris.iter().map(|uri| json!({ "uri": uri, "name": "r" }).to_string()))
    }

    /// The templates of its resources.
    pub(crate) fn templates(self, texts: &[&str]) -> Self {
        let entry = |text: &&str| json!({ "uriTemplate": text, "name": "t" }).to_string();
        self.list("resources/templates/list", texts.iter().map(entry))
    }

    /// The entries of one of its lists, as they are written.
    pub(crate) fn list(mut self, method: &'static str, entries: impl IntoIterator<Item = String>) -> Self {
        self.lists.insert(method, entries.into_iter().collect());
        self
    }

    /// It hands out session ids and refuses requests without one.
    pub(crate) fn sessionful(mut self) -> Self {
        self.sessionful = true;
        self
    }

    /// It answers with event streams.
    pub(crate) fn events(mut self) -> Self {
        self.events = true;
        self
    }

    /// So many entries on a page.
    pub(crate) fn page(mut self, entries: usize) -> Self {
        self.page = entries;
        self
    }

    pub(crate) fn start(self) -> Upstream {
        let port = Port::reserve(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = TcpListener::bind(port.address()).unwrap();
        let scripts = Mutex::new(Scripts { call: Arc::new(exchange::echo), request: None });
        let shared = Shared { plan: self, scripts, state: Mutex::default(), changed: Condvar::new() };
        let upstream =
            Upstream { port, shared: Arc::new(shared), accepting: Mutex::new(None), listening: Mutex::new(None) };
        upstream.accept(listener);
        upstream
    }
}

fn tool(name: &str) -> String {
    json!({ "name": name, "description": "A tool.", "inputSchema": { "type": "object" } }).to_string()
}

struct Scripts {
    call: Script,
    request: Option<Script>,
}

/// What the server's threads share with the test.
struct Shared {
    plan: Plan,
    scripts: Mutex<Scripts>,
    state: Mutex<State>,
    changed: Condvar,
}

/// What has happened to the server.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) connections: usize,
    pub(crate) received: Vec<Received>,
    /// Live sessions.
    pub(crate) sessions: HashSet<String>,
    /// Calls that were let through to the tool.
    pub(crate) executed: usize,
    next_session: usize,
    /// Open sockets, to be closed with the server.
    sockets: Vec<TcpStream>,
    down: bool,
}

impl State {
    /// What arrived of one JSON-RPC method.
    pub(crate) fn of(&self, rpc: &str) -> Vec<Received> {
        self.received.iter().filter(|received| received.rpc() == rpc).cloned().collect()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Still of use to the test's end when an assertion failed under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server; ends when it is dropped.
pub(crate) struct Upstream {
    /// Held while it is down, too.
    port: Port,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    listening: Mutex<Option<Listening>>,
}

impl Upstream {
    /// Its URL, with the path `/mcp`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.port.address())
    }

    /// Its URL without a path.
    pub(crate) fn bare_url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Answers calls this way from now on.
    pub(crate) fn on_call(&self, script: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) {
        self.shared.scripts.lock().unwrap().call = Arc::new(script);
    }

    /// Has calls wait for a gate from now on, and then echoes them.
    pub(crate) fn wait_at_gate(&self) -> Gate {
        let gate = Gate::default();
        let waited = gate.clone();
        self.on_call(move |exchange| {
            waited.wait();
            exchange.echo();
        });
        gate
    }

    /// Answers everything this way from now on.
    pub(crate) fn on_request(&self, script: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) {
        self.shared.scripts.lock().unwrap().request = Some(Arc::new(script));
    }

    /// Answers everything but calls as in the beginning.
    pub(crate) fn as_planned(&self) {
        self.shared.scripts.lock().unwrap().request = None;
    }

    /// What has happened so far.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// The calls that arrived.
    pub(crate) fn calls(&self) -> Vec<Received> {
        self.state().of("tools/call")
    }

    /// Waits until this is the case of what has happened.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let state = self.shared.state();
        let (state, waited) = self.shared.changed.wait_timeout_while(state, PATIENCE, |s| !is_so(s)).unwrap();
        assert!(!waited.timed_out(), "waited in vain: {what}; received {:#?}", state.received);
    }

    /// Forgets its sessions, as a restarted server does.
    pub(crate) fn forget_sessions(&self) {
        self.shared.state().sessions.clear();
    }

    /// Forgets one session.
    pub(crate) fn end_session(&self, id: &str) {
        assert!(self.shared.state().sessions.remove(id), "there is no session {id}");
    }

    /// Closes the listener and every connection.
    pub(crate) fn stop(&self) {
        let mut state = self.shared.state();
        state.down = true;
        state.sessions.clear();
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        if let Some(thread) = self.accepting.lock().unwrap().take() {
            // Wakes the thread, which sees that the server is down.
            let _ = TcpStream::connect(self.port.address());
            let _ = thread.join();
        }
        if let Some(listening) = self.listening.lock().unwrap().take() {
            listening.end();
        }
    }

    /// Listens again where it did before.
    pub(crate) fn start_again(&self) {
        self.shared.state().down = false;
        self.accept(TcpListener::bind(self.port.address()).unwrap());
    }

    fn accept(&self, listener: TcpListener) {
        *self.listening.lock().unwrap() = Some(Listening::of(&listener).unwrap());
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut state = shared.state();
                if state.down {
                    return;
                }
                let connection = state.connections;
                state.connections += 1;
                state.sockets.extend(stream.try_clone());
                drop(state);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&shared, connection, stream));
            }
        });
        *self.accepting.lock().unwrap() = Some(thread);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves one connection to its end.
fn serve(shared: &Shared, connection: usize, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    while let Some(request) = read(&mut reader, connection) {
        shared.state().received.push(request.clone());
        shared.changed.notify_all();
        let mut exchange = Exchange::new(shared, &stream, &request);
        exchange.serve();
        if !exchange.is_open() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Reads one request; `None` when there is none any more.
fn read(reader: &mut BufReader<TcpStream>, connection: usize) -> Option<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let mut start = lines.first()?.split(' ');
    let (method, path) = (start.next()?.to_owned(), start.next()?.to_owned());
    let pairs = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let headers: Vec<_> = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, v)| v.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Received { connection, method, path, headers, body: String::from_utf8(body).ok()? })
}
