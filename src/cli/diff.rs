//! `mcp-x diff`: which client gains and which loses which tools by a change of the configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::local::{Local, load};
use super::{Failure, print};
use crate::gateway::Health;
use crate::policy::{ClientId, ServerId};

/// What each client sees: servers by the names of their tools.
type Seen = BTreeMap<ClientId, BTreeMap<String, ServerId>>;

/// Asks the servers of both configurations what they offer and prints the differences.
///
/// # Errors
/// [`Failure`] if one of the files cannot be used.
pub(super) fn run(from: &Path, to: &Path) -> Result<(), Failure> {
    let (old, problems) = load(from)?;
    let (new, _) = load(to)?;
    let local = Local::start(old, problems)?;
    let mut unknown = local.unknown();
    let before = local.seen();
    local.gateway.publish(new);
    local.wait();
    let after = local.seen();
    unknown.extend(local.unknown());
    let mut text = differences(&before, &after);
    unknown.sort();
    unknown.dedup();
    if text.is_empty() {
        let known = if unknown.is_empty() { "" } else { ", as far as servers have answered" };
        text = format!("no client gains or loses a tool{known}\n");
    }
    for server in unknown {
        // A string takes every write.
        let _ = writeln!(text, "unknown: server {server} did not answer, so nobody knows what it has");
    }
    print(&text)
}

impl Local {
    fn seen(&self) -> Seen {
        let snapshot = self.gateway.snapshot();
        let clients = snapshot.registry().clients().map(|client| {
            let tools = self.runtime.block_on(self.gateway.seen_tools(&snapshot, &client.id));
            (client.id.clone(), tools.into_iter().map(|tool| (tool.name, tool.server)).collect())
        });
        clients.collect()
    }

    /// The servers that never answered.
    fn unknown(&self) -> Vec<ServerId> {
        let snapshot = self.gateway.snapshot();
        let servers = snapshot.registry().servers().map(|server| self.gateway.seen_server(server));
        let silent = servers.filter(|seen| matches!(seen.health, Health::Down | Health::Starting));
        silent.map(|seen| seen.server.id.clone()).collect()
    }
}

/// One line for every tool that a client sees in only one of the two, or at another server.
fn differences(before: &Seen, after: &Seen) -> String {
    let (none, mut text) = (BTreeMap::new(), String::new());
    let mut clients: Vec<&ClientId> = before.keys().chain(after.keys()).collect();
    clients.sort();
    clients.dedup();
    for client in clients {
        let (old, new) = (before.get(client).unwrap_or(&none), after.get(client).unwrap_or(&none));
        for (tool, server) in old {
            let _ = match new.get(tool) {
                None => writeln!(text, "{client} loses {tool} ({server})"),
                Some(other) if other != server => {
                    writeln!(text, "{client} has {tool} from {other} instead of {server}")
                }
                Some(_) => Ok(()),
            };
        }
        for (tool, server) in new.iter().filter(|(tool, _)| !old.contains_key(*tool)) {
            let _ = writeln!(text, "{client} gains {tool} ({server})");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rows: &[(&str, &str, &str)]) -> Seen {
        let mut seen = Seen::new();
        for (client, tool, server) in rows {
            seen.entry(ClientId::new(client)).or_default().insert((*tool).to_owned(), ServerId::new(server));
        }
        seen
    }

    #[test]
    fn gains_losses_and_moves_are_told_client_by_client() {
        let before = seen(&[("bob", "a", "s"), ("bob", "b", "s"), ("gone", "a", "s"), ("zoe", "a", "s")]);
        let after = seen(&[("bob", "a", "t"), ("bob", "c", "s"), ("new", "a", "s"), ("zoe", "a", "s")]);
        let expected =
            "bob has a from t instead of s\nbob loses b (s)\nbob gains c (s)\ngone loses a (s)\nnew gains a (s)\n";
        assert_eq!(differences(&before, &after), expected);
        assert_eq!(differences(&after, &after), "");
    }
}
