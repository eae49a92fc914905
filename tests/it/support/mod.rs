//! What the socket tests stand on: a gateway, its clients, and the servers behind it, all in this process.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | [`Harness`]: a gateway on a configuration of the test's, its log, its end |
//! | `http` | [`Connection`](http::Connection): raw HTTP/1.1, and what is checked of every answer |
//! | `asking` | clients that are asked things while they are served |
//! | `client` | [`Client`]: an MCP client of the gateway |
//! | `crowd` | [`Crowd`](crowd::Crowd): a gateway of its own, its many clients, and servers of every kind that all of them use |
//! | `ear` | [`Ear`](ear::Ear): a client that listens to what changes |
//! | `exposition` | reads metrics, strictly |
//! | `message` | [`Message`](message::Message): a request of any revision, with its headers |
//! | `process` | the program as a process of its own |
//! | `schema` | whether an answer is what `/openapi.json` says |
//! | `tls` | [`Tls`](tls::Tls): TLS in front of a server |
//! | `upstream` | [`Upstream`]: a scripted MCP server |
//!
//! Nothing here uses the gateway's own reading and writing: messages are text or `serde_json` values.

pub(crate) mod asking;
pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod ear;
pub(crate) mod exposition;
pub(crate) mod http;
pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod schema;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod upstream;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mcp_x::cli::args::Options;
use mcp_x::cli::serve::{Running, start};
use mcp_x::gateway::Gateway;
use mcp_x::log::{Format, Level, Log};
use mcp_x_fixture::Fixture;

use self::client::Client;
use self::http::Connection;
use self::upstream::{Plan, Upstream};

/// How long anything is waited for that should happen soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) const ALICE: &str = "alice-secret-0c41";
pub(crate) const BOB: &str = "bob-secret-77a9";
pub(crate) const CHARLIE: &str = "charlie-secret-e5d2";
/// Sent to every server of [`server`], and never to a client.
pub(crate) const CREDENTIAL: &str = "upstream-secret-b83f";

/// What a client reads whose call of `echo` finds nobody there.
pub(crate) const UNREACHABLE: &str = "server of tool `echo` is not reachable";

/// The three clients.
pub(crate) fn clients() -> String {
    let named = [("alice", ALICE), ("bob", BOB), ("charlie", CHARLIE)];
    named.map(|(name, token)| format!("[clients.{name}]\nauth_token = \"{token}\"\n")).concat()
}

/// The three clients, the first of whom is an admin.
pub(crate) fn with_admin() -> String {
    clients().replacen("auth_token", "admin = true\nauth_token", 1)
}

/// A server that a gateway can be told of.
pub(crate) trait Located {
    /// Its URL.
    fn located(&self) -> String;
}

impl Located for Upstream {
    fn located(&self) -> String {
        self.url()
    }
}

impl Located for Fixture {
    fn located(&self) -> String {
        self.url()
    }
}

/// The table of a server, with a credential, and with further lines.
pub(crate) fn server(name: &str, owner: &str, upstream: &impl Located, lines: &str) -> String {
    let headers = format!("headers = {{ Authorization = \"Bearer {CREDENTIAL}\" }}");
    let url = upstream.located();
    format!("[mcp_servers.{name}]\nurl = \"{url}\"\nfrom_client = \"{owner}\"\n{headers}\n{lines}\n")
}

/// A configuration in which alice owns every server named.
pub(crate) fn owned_by_alice(servers: &[(&str, &impl Located)]) -> String {
    servers.iter().fold(clients(), |text, (name, upstream)| text + &server(name, "alice", *upstream, ""))
}

/// A running gateway, stopped and removed when it is dropped.
pub(crate) struct Harness {
    running: Option<Running>,
    folder: Folder,
    log: Log,
    written: Written,
    secrets: Arc<Vec<String>>,
}

impl Harness {
    /// Starts a gateway on a free port of this configuration, with one serving thread.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, Format::Text)
    }

    /// The same, with a log in this format.
    #[track_caller]
    pub(crate) fn start_with(config: &str, format: Format) -> Self {
        let folder = Folder::new();
        fs::write(folder.config(), with_short_drain(config)).unwrap();
        let written = Written::default();
        let log = Log::to(Box::new(written.clone()), Level::Debug, format);
        let running = run(&folder, &log);
        Self { running: Some(running), folder, log, written, secrets: Arc::new(secrets(config)) }
    }

    /// Ends the gateway and starts another one on the same configuration and state.
    pub(crate) fn restart(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        self.running = Some(run(&self.folder, &self.log));
    }

    /// Another gateway on the same configuration and state.
    pub(crate) fn second(&self) -> Self {
        let folder = Folder(self.folder.0.clone(), false);
        let written = Written::default();
        let log = Log::to(Box::new(written.clone()), Level::Debug, Format::Text);
        let running = run(&folder, &log);
        Self { running: Some(running), folder, log, written, secrets: Arc::clone(&self.secrets) }
    }

    /// The gateway itself, for what no client can ask of it.
    pub(crate) fn gateway(&self) -> &Gateway {
        &self.running.as_ref().unwrap().gateway
    }

    /// Waits for something that the gateway does.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address
    }

    /// A connection on which the test writes what it likes.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address(), Arc::clone(&self.secrets))
    }

    /// A client with this token.
    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(self.connect(), token)
    }

    /// Puts another configuration in the place of the one in force, by renaming a file as editors do.
    pub(crate) fn replace_config(&self, config: &str) {
        let new = self.folder.0.join("config.new");
        fs::write(&new, with_short_drain(config)).unwrap();
        fs::rename(new, self.folder.config()).unwrap();
    }

    /// Writes another configuration into the same file.
    pub(crate) fn overwrite_config(&self, config: &str) {
        fs::write(self.folder.config(), with_short_drain(config)).unwrap();
    }

    /// What the configuration file holds.
    pub(crate) fn config(&self) -> String {
        fs::read_to_string(self.folder.config()).unwrap()
    }

    /// Where it lies.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.config()
    }

    /// The secret behind the gateway's tokens.
    pub(crate) fn secret(&self) -> String {
        fs::read_to_string(self.folder.0.join("jwt_secret")).unwrap().trim_end().to_owned()
    }

    /// Leaves nothing in the file.
    pub(crate) fn empty_config(&self) {
        fs::write(self.folder.config(), "").unwrap();
    }

    /// Takes the configuration away.
    pub(crate) fn remove_config(&self) {
        fs::remove_file(self.folder.config()).unwrap();
    }

    /// What has been logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.flush();
        self.written.text()
    }

    /// Waits until the log holds this text.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let begun = Instant::now();
        while !self.log().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "{text:?} is not in the log:\n{}", self.log());
            pause();
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(12);
            eprintln!("---- end of the gateway's log\n{}\n----", lines[from..].join("\n"));
            return;
        }
        for secret in self.secrets.iter() {
            assert!(!log.contains(secret), "a secret is in the log:\n{log}");
        }
    }
}

fn run(folder: &Folder, log: &Log) -> Running {
    let options = Options {
        config: Some(folder.config()),
        state_dir: Some(folder.0.clone()),
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        threads: Some(1),
        ..Options::default()
    };
    start(&options, log).unwrap_or_else(|failure| panic!("{failure}"))
}

/// A server that is to fail, with the tool `echo`, and one that is not, with `fine`, both alice's.
pub(crate) struct Pair {
    pub(crate) bad: Upstream,
    pub(crate) good: Upstream,
    pub(crate) harness: Harness,
}

impl Pair {
    /// Starts both, and a gateway with further lines that has seen their tools.
    #[track_caller]
    pub(crate) fn start(lines: &str) -> Self {
        let (bad, good) = (Plan::new("bad").start(), Plan::new("good").tools(&["fine"]).start());
        let config = owned_by_alice(&[("server_bad", &bad), ("server_good", &good)]);
        let harness = Harness::start(&(config + lines));
        assert_eq!(harness.client(ALICE).tools(), ["echo", "fine"]);
        Self { bad, good, harness }
    }
}

/// Calls left hanging by a test must not keep it from ending.
fn with_short_drain(config: &str) -> String {
    if config.contains("drain_seconds") {
        return config.to_owned();
    }
    match config.split_once("[gateway]\n") {
        Some((before, after)) => format!("{before}[gateway]\ndrain_seconds = 0\n{after}"),
        None => format!("{config}\n[gateway]\ndrain_seconds = 0\n"),
    }
}

/// The tokens and credentials in a configuration.
fn secrets(config: &str) -> Vec<String> {
    let token = |line: &str| {
        let value = line.strip_prefix("auth_token = \"").or_else(|| line.strip_prefix("metrics_token = \""))?;
        Some(value.strip_suffix('"')?.to_owned())
    };
    let mut secrets: Vec<String> = config.lines().filter_map(token).collect();
    secrets.push(CREDENTIAL.to_owned());
    secrets
}

/// A folder of the test's own, removed when it is dropped.
pub(crate) struct Folder(PathBuf, /* whether it is removed */ bool);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mcp-x-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path, true)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the configuration lies.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.1 {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A sink that the test can read.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Something that one side opens and the other waits for.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; false if that takes too long.
    pub(crate) fn wait(&self) -> bool {
        let open = self.0.0.lock().unwrap();
        *self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap().0
    }
}

/// A generator of the tests' own, so that every run is the same.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    pub(crate) fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    pub(crate) fn some_of<'a>(&mut self, all: &[&'a str], most: usize) -> Vec<&'a str> {
        (0..self.below(most + 1)).map(|_| self.one_of(all)).collect()
    }
}

/// Runs `check` on every row, several at the same time, as most of them have to wait for something.
pub(crate) fn side_by_side<T: Send>(rows: impl IntoIterator<Item = T>, check: impl Fn(T) + Sync) {
    let rows: Vec<T> = rows.into_iter().collect();
    let (most, rows) = (rows.len().min(8), Mutex::new(rows.into_iter()));
    let next = || rows.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..most {
            scope.spawn(|| {
                while let Some(row) = next() {
                    check(row);
                }
            });
        }
    });
}

/// Waits until something is the case.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        pause();
    }
}

/// Between two looks at a condition that nobody announces.
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// `tool_1`, `tool_2`, … as JSON for a list.
pub(crate) fn numbered(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("tool_{n}")).collect()
}

/// A `tools/call` request.
pub(crate) fn call_message(id: &str, tool: &str, arguments: &str) -> String {
    let mut text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","#);
    let _ = write!(text, r#""arguments":{arguments}}}}}"#);
    text
}
