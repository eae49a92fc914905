//! Listed ⇔ callable ⇔ explained "yes", over generated configurations, and all three as a naive reading of the rules has it.
//! Design 1.1, 6; issue 3.5.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mcp_x::policy::Registry;
use mcp_x::wire::config::Secrets;

use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, BOB, CHARLIE, Draw, Harness, clients};

const CONFIGURATIONS: usize = 60;
const CLIENTS: [(&str, &str); 3] = [("alice", ALICE), ("bob", BOB), ("charlie", CHARLIE)];
const TOOLS: [&str; 5] = ["get", "get_all", "set", "x_get", "delete"];
const PREFIXES: [&str; 3] = ["", "x_", "x_get"];
const PATTERNS: [&str; 9] = ["*", "get", "get*", "?et", "*_*", "x_*", "*e", "delete", "none"];

/// A server as it is generated: what the rules say about it, in the plainest form.
struct Server {
    name: String,
    tools: Vec<&'static str>,
    prefix: &'static str,
    owner: &'static str,
    /// Who, allowed patterns, denied patterns.
    grants: Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)>,
}

fn generate(draw: &mut Draw, upstreams: &[(Upstream, Vec<&'static str>)]) -> Vec<Server> {
    let server = |(index, (_, tools)): (usize, &(Upstream, Vec<&'static str>))| {
        let mut grants = Vec::new();
        for who in ["alice", "bob", "charlie", "*"] {
            if draw.below(2) == 0 {
                let deny = if draw.below(3) == 0 { draw.some_of(&PATTERNS[1..], 2) } else { Vec::new() };
                grants.push((who, draw.some_of(&PATTERNS, 2), deny));
            }
        }
        let owner = draw.one_of(&["alice", "bob", "stranger", "nobody"]);
        Server { name: format!("s{index}"), tools: tools.clone(), prefix: draw.one_of(&PREFIXES), owner, grants }
    };
    upstreams.iter().enumerate().map(server).collect()
}

fn written(servers: &[Server], upstreams: &[(Upstream, Vec<&'static str>)], shares: &str) -> String {
    let mut text = clients() + "[clients.stranger]\nregistered = 2026-01-01T00:00:00Z\n";
    for (server, (upstream, _)) in servers.iter().zip(upstreams) {
        let Server { name, prefix, owner, grants, .. } = server;
        let url = upstream.url();
        let _ = write!(
            text,
            "[mcp_servers.{name}]\nurl = \"{url}\"\nfrom_client = \"{owner}\"\ntool_prefix = \"{prefix}\"\n[allow.{name}]\n"
        );
        for (who, tools, deny) in grants {
            let _ = writeln!(text, "\"{who}\" = {{ tools = {tools:?}, deny = {deny:?} }}");
        }
    }
    text + &format!("[gateway]\nshares = \"{shares}\"\n")
}

/// `*` and `?` by trying everything.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], rest) => rest.is_empty(),
        ([b'*', pattern @ ..], _) => (0..=name.len()).any(|skipped| matches(pattern, &name[skipped..])),
        ([_, ..], []) => false,
        ([p, pattern @ ..], [n, name @ ..]) => (*p == b'?' || p == n) && matches(pattern, name),
    }
}

/// Which server answers which name for a client, by the rules as they are told in the design.
fn expected(client: &str, servers: &[Server], shares: &str) -> Vec<(String, String)> {
    let by_stranger = |server: &&Server| server.owner == "stranger";
    let owned = servers.iter().filter(|server| server.owner == client);
    let operators = servers.iter().filter(|server| server.owner != client && !by_stranger(server));
    let strangers = servers.iter().filter(|server| by_stranger(server) && shares == "all");
    let mut seen: Vec<(String, String)> = Vec::new();
    for server in owned.chain(operators).chain(strangers) {
        for tool in &server.tools {
            let mine = || server.grants.iter().filter(|(who, ..)| *who == client || *who == "*");
            let any = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern.as_bytes(), tool.as_bytes()));
            let granted = mine().any(|(_, tools, _)| any(tools)) && !mine().any(|(_, _, deny)| any(deny));
            let name = format!("{}{tool}", server.prefix);
            if (server.owner == client || granted) && !seen.iter().any(|(known, _)| *known == name) {
                seen.push((name, server.name.clone()));
            }
        }
    }
    seen
}

#[test]
fn listed_means_callable_means_explained_yes() {
    let mut draw = Draw(7);
    let upstreams: Vec<(Upstream, Vec<&'static str>)> = (0..4)
        .map(|index| {
            let tools: BTreeSet<&'static str> = (0..3).map(|_| draw.one_of(&TOOLS)).collect();
            let tools: Vec<&'static str> = tools.into_iter().collect();
            (Plan::new(&format!("s{index}")).tools(&tools).start(), tools)
        })
        .collect();
    let harness = Harness::start(&clients());
    let names: BTreeSet<String> = PREFIXES.iter().flat_map(|p| TOOLS.iter().map(move |t| format!("{p}{t}"))).collect();
    let (mut yes, mut no) = (0, 0);
    for _ in 0..CONFIGURATIONS {
        let servers = generate(&mut draw, &upstreams);
        let shares = draw.one_of(&["all", "operator"]);
        let text = written(&servers, &upstreams, shares);
        let built = Registry::load(&text, |_| Secrets::default());
        harness.gateway().publish(built.registry.unwrap_or_else(|| panic!("{:?}", built.problems)));
        for (name, token) in CLIENTS {
            let (mut client, expected) = (harness.client(token), expected(name, &servers, shares));
            let listed: Vec<&str> = expected.iter().map(|(tool, _)| tool.as_str()).collect();
            assert_eq!(client.tools(), listed, "{name}\n{text}");
            for tool in &names {
                let server = expected.iter().find(|(known, _)| known == tool).map(|(_, server)| server.as_str());
                let explained = client.get(&format!("/explain?tool={tool}"));
                assert_eq!(explained["verdict"], if server.is_some() { "yes" } else { "no" }, "{name} {tool}\n{text}");
                assert_eq!(explained["server"].as_str(), server, "{name} {tool}\n{text}");
                match server {
                    Some(server) => {
                        assert!(client.text(tool).starts_with(&format!("{server}:")), "{name} {tool}\n{text}");
                    }
                    None => {
                        assert_eq!(client.error(tool), (-32602, format!("unknown tool: `{tool}`")), "{name}\n{text}");
                    }
                }
                if server.is_some() { yes += 1 } else { no += 1 }
            }
        }
    }
    assert!(yes > 400 && no > 400, "{yes} yes, {no} no: hardly anything was asked");
}
