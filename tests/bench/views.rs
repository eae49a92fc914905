//! A gateway without sockets: what a client sees, and its lists.
//!
//! Its servers are never asked, because the runtime that would do it is never run; what they offer comes from catalogues
//! that an earlier process is said to have kept, in the form of `upstream::kept`.

use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::{Body as _, Bytes};
use mcp_x::gateway::{Beginning, Gateway, Keyring, Memory, Principal, Session, Snapshot, View};
use mcp_x::http::response::{Body, result};
use mcp_x::log::Log;
use mcp_x::outbound::{Client, Trust};
use mcp_x::policy::{Registry, Server, ServerId, ServerKey};
use mcp_x::store::TokenEnds;
use mcp_x::upstream::{Keeper, Pool};
use mcp_x::wire::hex;
use mcp_x::wire::mcp::{ListKind, ProtocolVersion};
use mcp_x::wire::seal::{Cursor, Sealer, SessionId};
use sha2::{Digest as _, Sha256};
use tokio::runtime::{Builder, Runtime};

use super::access::registry;
use super::measure::Operations;
use super::samples::tools;

/// A line of the secret file.
const SECRET: &[u8] = b"secret of a gateway that nobody reaches";
/// Three servers, of which alice owns one and is granted the others, with the same tools under other names.
const SERVERS: &str = r#"
[gateway]
page_size = 50
[clients]
alice = { auth_token = "123" }
bob = { auth_token = "456" }
[mcp_servers]
server_a = { url = "http://127.0.0.1:9100/mcp", from_client = "alice" }
server_b = { url = "http://127.0.0.1:9101/mcp", from_client = "bob", tool_prefix = "b_" }
server_c = { url = "http://127.0.0.1:9102/mcp", from_client = "bob", tool_prefix = "c_" }
[allow]
server_b.alice = ["*"]
"#;
/// The first tool of the first server.
const FIRST: &str = "test_simple_text";
/// How many servers there are.
const SERVED: usize = 3;

pub(crate) fn add(operations: &mut Operations) -> Result<(), Box<dyn Error>> {
    let world = Rc::new(World::new()?);

    let here = Rc::clone(&world);
    let signed_in = |found: &bool| *found;
    let again = move || here.gateway.sign_in(&here.memory, &here.after, "123", Duration::ZERO).is_ok();
    operations.add("sign in: with a token that is remembered", again, signed_in);
    let here = Rc::clone(&world);
    let all = world.tools;
    let seen = move |view: &Option<Arc<View>>| view.as_ref().is_some_and(|view| view.names().count() == all);
    operations.add("view: one that is ready", move || here.view(&here.after), seen);
    // Under the registry before, a view is made for every request, and not kept.
    let here = Rc::clone(&world);
    operations.add(format!("view: made anew, {all} tools"), move || here.view(&here.before), seen);

    let here = Rc::clone(&world);
    let first = move || here.page(Some(ProtocolVersion::LATEST), None);
    operations.add("list: a page of 50 that is ready, legacy client", first, |page| tools_on(page) == 50);
    let here = Rc::clone(&world);
    operations.add(
        "list: a page of 50 that is ready, modern client",
        move || here.page(None, None),
        |page| tools_on(page) == 50,
    );
    // No page begins behind the first tool, so that this one is written for every request, up to where the next begins.
    let server = *ServerKey::of(&ServerId::new("server_a")).as_bytes();
    let cursor = Cursor { list: ListKind::Tools, principal: SessionId::principal("alice"), server, name: FIRST.into() };
    let cursor = cursor.seal(&Sealer::new([SECRET], "cursor"));
    let here = Rc::clone(&world);
    operations.add(
        "list: a page of 49 behind a cursor, written anew, modern client",
        move || here.page(None, Some(&cursor)),
        |page| tools_on(page) == 49,
    );
    let answer = move || result(b"3", world.page(Some(ProtocolVersion::LATEST), None).unwrap_or_default());
    operations.add("list: the answer with a page of 50, legacy client", answer, |answer| length(answer.body()) > 5_000);
    Ok(())
}

fn tools_on(page: &Option<Bytes>) -> usize {
    let text = page.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    text.matches(r#""inputSchema""#).count()
}

fn length(body: &Body) -> u64 {
    body.size_hint().lower()
}

/// A gateway after a change of its configuration.
struct World {
    gateway: Arc<Gateway>,
    alice: Principal,
    memory: Memory,
    /// What was in force at first, and what is now.
    before: Snapshot,
    after: Snapshot,
    /// Tools of all servers together.
    tools: usize,
    /// Holds the tasks that would ask the servers, and the timers of whoever would wait for that.
    runtime: Runtime,
}

impl World {
    fn new() -> Result<Self, Box<dyn Error>> {
        let registry = |grant: &str| registry(&format!("{SERVERS}server_c.alice = {grant}\n"));
        let first = registry(r#"["*"]"#)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut pool = Pool::new(runtime.handle().clone(), Client::new(Trust::system()), Log::none());
        pool.keep_in(Shelf::new(&first)?);
        let beginning = Beginning {
            registry: first,
            problems: Vec::new(),
            config_path: String::new(),
            keys: Keyring::new(&[SECRET.to_vec()]),
            ends: TokenEnds::new(Path::new("")),
            catalogues: None,
            journal: None,
            now: Duration::ZERO,
        };
        let (gateway, _) = Gateway::new(beginning, pool, Log::none());
        let before = gateway.snapshot();
        // Another grant with which alice sees the same tools.
        gateway.publish(registry(r#"["test_*", "*"]"#)?);
        let after = gateway.snapshot();
        let memory = Memory::default();
        let alice = gateway.sign_in(&memory, &after, "123", Duration::ZERO)?;
        let tools = SERVED * tools()?.matches(r#""inputSchema""#).count();
        let world = Self { gateway, alice, memory, before, after, tools, runtime };
        let found = {
            let _timers = world.runtime.enter();
            world.view(&world.after).map_or(0, |view| view.names().count())
        };
        if found != tools {
            let what = format!("expected {tools} tools, found {found}: has the form of kept catalogues changed?");
            return Err(what.into());
        }
        Ok(world)
    }

    /// What alice sees.
    fn view(&self, snapshot: &Snapshot) -> Option<Arc<View>> {
        at_once(self.gateway.view_of(snapshot, &self.alice, None))
    }

    fn page(&self, version: Option<ProtocolVersion>, cursor: Option<&str>) -> Option<Bytes> {
        at_once(self.gateway.list(&self.after, &self.alice, &Session::default(), ListKind::Tools, version, cursor))?
            .ok()
            .map(|page| page.bytes)
    }
}

/// The output of a future that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Catalogues that were kept, one for each server.
struct Shelf(Vec<(ServerKey, Vec<u8>)>);

impl Shelf {
    fn new(registry: &Registry) -> Result<Self, Box<dyn Error>> {
        let tools = tools()?;
        Ok(Self(registry.servers().map(|server| (server.key, kept(server, &tools))).collect()))
    }
}

fn kept(server: &Server, tools: &str) -> Vec<u8> {
    let place = format!("{}{} {}", server.endpoint.origin(), server.endpoint.target, server.owner);
    let whose = hex::encode(&Sha256::digest(place));
    format!(r#"{{"format":1,"server":"{}","whose":"{whose}","tools":{tools}}}"#, server.id).into_bytes()
}

impl Keeper for Shelf {
    fn load(&self, server: &ServerKey, _most: u64) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
        Ok(self.0.iter().find(|(key, _)| key == server).map(|(_, bytes)| bytes.clone()))
    }

    fn save(&self, _server: &ServerKey, _bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        Ok(())
    }

    fn remove(&self, _server: &ServerKey) {}
}
