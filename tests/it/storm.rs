//! kill -9 in a storm of changes: the file always parses, every acknowledged change is in it, and what the operator wrote is
//! as it was, byte for byte. Design 1.6, 12; issue 3, "Done when".

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_x::wire::config::{Config, Severity};
use serde_json::{Value, json};

use super::support::process::Served;
use super::support::{ALICE, Folder, wait_until};

const ROUNDS: u64 = 50;

/// What the operator wrote, in ways that a rewrite would lose.
const WRITTEN: &str = "\u{feff}# ours\r\n\r\n[clients.alice]   # admin\r\nauth_token = \"alice-secret-0c41\"\n\n# strangers come below\n\
                       \n[mcp_servers.s] # s\nurl = 'http://127.0.0.1:1/'\r\nfrom_client   =   \"alice\"\n\n[allow.s] # grants\n\
                       # nobody by hand\n\n[gateway]\nmax_registrations_per_minute = 100000\n# end";

/// What was acknowledged.
#[derive(Default)]
struct Acknowledged {
    clients: BTreeSet<String>,
    grants: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// What was asked for and may have been done.
    unsure: BTreeSet<String>,
}

/// Asks for something; nothing if the gateway went away before it had answered.
fn ask(address: SocketAddr, path: &str, token: &str, body: &Value) -> Option<Value> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close");
    let length = body.len();
    write!(stream, "{head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let value = serde_json::from_str(body).ok()?;
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    Some(value)
}

/// Registers, grants and unregisters until the gateway is gone.
fn storm(address: SocketAddr, known: &Mutex<Acknowledged>, over: &AtomicBool) {
    for turn in 0.. {
        let Some(answer) = ask(address, "/register_client", "", &json!({})) else { return };
        let id = answer["client_id"].as_str().unwrap().to_owned();
        known.lock().unwrap().clients.insert(id.clone());
        let body = json!({ "client_id": id, "server_access": { "s": ["a*"] } });
        let Some(_) = ask(address, "/update_access_control", ALICE, &body) else { return };
        known.lock().unwrap().grants.insert(id.clone());
        if turn % 3 == 0 {
            known.lock().unwrap().unsure.insert(id.clone());
            let token = answer["auth_token"].as_str().unwrap();
            let Some(_) = ask(address, "/unregister_client", token, &json!({ "client_id": id })) else { return };
            let mut known = known.lock().unwrap();
            known.unsure.remove(&id);
            known.removed.insert(id);
        }
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// The text without what REST wrote, which is written in one way only.
fn without_rest(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().copied().unwrap_or_default();
        if line == "\n" && next.starts_with("[clients.") && !next.starts_with("[clients.alice]") {
            lines.next();
            assert!(lines.next().is_some_and(|line| line.starts_with("registered = ")));
        } else if !line.ends_with(" = [\"a*\"]\n") {
            kept.push_str(line);
        }
    }
    kept
}

#[track_caller]
fn check(text: &str, known: &Acknowledged, round: u64) {
    let config = Config::parse(text);
    let errors = config.problems().iter().filter(|p| p.severity == Severity::Error).count();
    assert_eq!(errors, 0, "round {round}: {:?}\n{text}", config.problems());
    assert_eq!(without_rest(text), WRITTEN, "round {round}");
    let clients: BTreeSet<&str> = config.clients.iter().map(|client| client.name.value.as_str()).collect();
    let grants: BTreeSet<&str> =
        config.allow.iter().flat_map(|allow| &allow.grants).map(|grant| grant.client.value.as_str()).collect();
    let gone = |id: &&String| known.removed.contains(*id) || known.unsure.contains(*id);
    for id in known.clients.iter().filter(|id| !gone(id)) {
        assert!(clients.contains(id.as_str()), "round {round}: client {id} is lost");
    }
    for id in known.grants.iter().filter(|id| !gone(id)) {
        assert!(grants.contains(id.as_str()), "round {round}: the grant to {id} is lost");
    }
    for id in &known.removed {
        assert!(!clients.contains(id.as_str()) && !grants.contains(id.as_str()), "round {round}: {id} is back");
    }
}

#[test]
fn kill_9_in_a_storm_of_changes_loses_nothing() {
    let folder = Folder::new();
    fs::write(folder.config(), WRITTEN).unwrap();
    let known = Mutex::new(Acknowledged::default());
    for round in 0..ROUNDS {
        let served = Served::start(&folder);
        let over = AtomicBool::new(false);
        let before = known.lock().unwrap().clients.len();
        // However slow the disk is today, so much is done between two kills on average.
        let enough = |known: &Acknowledged| {
            let (grants, removed) = (known.grants.len() as u64, known.removed.len() as u64);
            known.clients.len() > before && grants >= round * 2 && removed * 2 >= round
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| storm(served.address, &known, &over));
            }
            wait_until("enough is acknowledged", || enough(&known.lock().unwrap()));
            // At another moment each time: from at once to in the middle of it.
            std::thread::sleep(Duration::from_micros(round * 7_919 % 40_000));
            served.signal("KILL");
            over.store(true, Ordering::Relaxed);
        });
        drop(served);
        check(&fs::read_to_string(folder.config()).unwrap(), &known.lock().unwrap(), round);
    }
    let known = known.into_inner().unwrap();
    assert!(known.grants.len() >= 98 && known.removed.len() >= 24, "hardly a storm: {} grants", known.grants.len());
}
