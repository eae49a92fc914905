//! Who may do what: tokens, grants, patterns and sealed ids; and the record that is kept of it.

use std::cell::Cell;
use std::error::Error;
use std::hint::black_box;
use std::io::sink;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use mcp_x::log::{Format, Level, Log};
use mcp_x::policy::fnmatch::Pattern;
use mcp_x::policy::{AuthError, Caller, ClientId, Registry, ServerId, Target, authenticate};
use mcp_x::wire::config::Secrets;
use mcp_x::wire::jwt::Keys;
use mcp_x::wire::mcp::{ClientCapabilities, ProtocolVersion};
use mcp_x::wire::seal::{Sealer, SessionId};

use super::measure::Operations;
use super::samples::read;

/// A line of the secret file.
const SECRET: &[u8] = b"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I";
/// The time, since the epoch.
const NOW: Duration = Duration::from_secs(1_785_240_000);
/// Records after which the log is put out, which it usually is by a thread of its own when some have gathered.
const GATHERED: u32 = 256;
/// A pattern on which a matcher that goes back and tries again would not end.
static HOSTILE: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(&"*a".repeat(500)));

pub(crate) fn add(operations: &mut Operations) -> Result<(), Box<dyn Error>> {
    let registry = Rc::new(registry(&read("config/original.toml")?)?);
    add_decisions(operations, &registry);
    add_tokens(operations, &registry);
    add_seals(operations);
    add_patterns(operations);
    add_log(operations);
    Ok(())
}

/// The registry of a configuration that must be usable.
pub(crate) fn registry(text: &str) -> Result<Registry, Box<dyn Error>> {
    let built = Registry::load(text, |_| Secrets::default());
    built.registry.ok_or_else(|| format!("{:?}", built.problems).into())
}

fn add_decisions(operations: &mut Operations, registry: &Rc<Registry>) {
    for (name, client, tool, rule) in [
        ("the owner", "alice", "tool_17", "the client owns the server"),
        ("granted, by the one pattern", "bob", "tool_17", "allowed by pattern `*` for `bob`"),
        (
            "granted, by the second of three patterns",
            "charlie",
            "tool_17",
            "allowed by pattern `tool_1*` for `charlie`",
        ),
        ("refused, none of three patterns matches", "charlie", "tool_9", "no pattern granted to the client matches"),
    ] {
        let (registry, client, server) = (Rc::clone(registry), ClientId::new(client), ServerId::new("server_a"));
        let decide = move || registry.decide(&client, &server, Target::Tool(black_box(tool)));
        operations.add(format!("decide: {name}"), decide, move |decision| decision.rule.to_string().starts_with(rule));
    }
}

fn add_tokens(operations: &mut Operations, registry: &Rc<Registry>) {
    let keys = Keys::new([SECRET]);
    let signed = keys.sign("alice", NOW, Duration::from_secs(3_600));
    for (name, token) in [("static token", "123".to_owned()), ("JWT", signed)] {
        let (registry, keys) = (Rc::clone(registry), keys.clone());
        let look_up = move || authenticate(&registry, &keys, &token, NOW);
        let is_alice = |found: &Result<Caller, AuthError>| found.as_ref().is_ok_and(|c| c.client().as_str() == "alice");
        operations.add(format!("authenticate: {name}"), look_up, is_alice);
    }
}

fn add_seals(operations: &mut Operations) {
    let sealer = Sealer::new([SECRET], "session");
    let id = SessionId {
        principal: SessionId::principal("alice"),
        version: ProtocolVersion::LATEST,
        capabilities: ClientCapabilities::NONE,
        issued: NOW.as_secs(),
        nonce: [7; 16],
    };
    let sealed = id.seal(&sealer);
    let (opener, expected) = (sealer.clone(), sealed.clone());
    operations.add("seal: a session id", move || black_box(&id).seal(&sealer), move |text| *text == expected);
    operations.add("seal: open a session id", move || SessionId::open(&opener, &sealed), move |open| *open == Some(id));
}

fn add_patterns(operations: &mut Operations) {
    let name = format!("{}b", "a".repeat(255));
    let rows = [
        ("a literal", "tool_17", "tool_17", true),
        ("`tool_1*`", "tool_1*", "tool_17", true),
        ("`tool_[0-9]?`", "tool_[0-9]?", "tool_17", true),
        ("500 stars, 256 characters", HOSTILE.as_str(), &name, false),
    ];
    for (what, pattern, name, expected) in rows {
        let (pattern, name) = (Pattern::new(pattern), name.to_owned());
        let holds = move |matches: &bool| *matches == expected;
        operations.add(format!("fnmatch: {what}"), move || black_box(&pattern).matches(&name), holds);
    }
    // Compiled once for many names, as for a view.
    let matcher = HOSTILE.matcher();
    let run = move || black_box(&matcher).matches(&name);
    operations.add("fnmatch: 500 stars, 256 characters, compiled before", run, |matches| !matches);
}

/// The record of a call, as `http::access` writes it.
fn add_log(operations: &mut Operations) {
    let log = Log::to(Box::new(sink()), Level::Info, Format::Text);
    let written = Cell::new(0);
    let record = move || {
        log.info("request", |r| {
            r.field("req", "7f3a9c0e").field("client", "bob").field("method", "POST").field("path", "/mcp");
            r.field("rpc", "tools/call").field("tool", "tool_17").field("server", "server_a");
            r.field("eras", format_args!("{}/{}", "modern", "legacy")).number("status", 200_u16);
            r.number("bytes", 262_u64).millis("ms", Duration::from_micros(1_250));
        });
        written.set(written.get() + 1_u32);
        if written.get().is_multiple_of(GATHERED) {
            log.flush();
        }
        written.get()
    };
    operations.add("log: the record of a call", record, |written| *written > 0);
}
