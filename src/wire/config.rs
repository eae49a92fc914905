//! `config.toml` → typed tables with their places, and every problem of shape at once.
//!
//! Walks the spanned tree of the `toml` crate, so that each value knows where it stands and one wrong value hides no
//! other. Knows the shape: keys, types, ranges, and what a value must look like. What the tables mean together (who
//! owns what, which grants reach whom) belongs to `policy::registry`; references to the environment and to files are
//! found here and resolved by `store`. The format is section 6 of the design.

mod address;
mod edit;
mod problem;
mod secret;
mod section;
mod settings;
mod tables;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::endpoint::Endpoint;
pub use address::{AddressRange, listen_address};
pub use edit::{Change, EditError, apply as edit};
pub(crate) use problem::Report;
pub use problem::{Lines, Located, Place, Problem, Severity, join, nearest};
pub use secret::{HeaderError, Reference, Secrets, Template, check_header_name, check_header_value};
use section::{Section, entries, offset};
pub use settings::{Limits, Registration, Settings, Shares};
pub use tables::tool_prefix;
use tables::{named, read_allow, read_client, read_server};

/// Largest file that is read, in bytes.
const MAX_FILE: usize = 64 * 1024 * 1024;

/// What `config.toml` says, as far as it could be read; [`Config::problems`] says what could not.
pub struct Config {
    /// `[clients]` in the order of the file.
    pub clients: Vec<ClientTable>,
    /// `[mcp_servers]` in the order of the file.
    pub servers: Vec<ServerTable>,
    /// `[allow]` in the order of the file.
    pub allow: Vec<AllowTable>,
    /// `[gateway]`, defaults filled in.
    pub settings: Settings,
    problems: Vec<Problem>,
    lines: Arc<Lines>,
}

/// One client.
pub struct ClientTable {
    /// Its name, placed at the beginning of its table.
    pub name: Located<String>,
    /// Its token; `None` when the file has none.
    pub token: Option<Located<Token>>,
    /// Whether it may use the admin endpoints.
    pub admin: bool,
    /// When it registered itself, since the epoch; `None` for a client that the operator wrote.
    pub registered: Option<Duration>,
    /// The issue time, since the epoch, before which its JWTs are refused.
    pub valid_from: Option<Duration>,
    /// A name for people.
    pub label: Option<String>,
}

/// How a client's token is known. The token itself is not kept.
pub enum Token {
    /// By its SHA-256.
    Digest([u8; 32]),
    /// By where it can be found.
    Reference(Reference),
    /// Not at all: what the file says is an error, and reported.
    Wrong,
}

/// One MCP server.
pub struct ServerTable {
    /// Its name, placed at the beginning of its table.
    pub name: Located<String>,
    /// Where it lives; `None` when `url` is missing or wrong.
    pub endpoint: Option<Endpoint>,
    /// The client that owns it (`from_client`); `None` when the key is missing or wrong.
    pub owner: Option<Located<String>>,
    /// Headers sent to it.
    pub headers: Vec<Header>,
    /// What is put before the names of its tools and prompts.
    pub tool_prefix: String,
    /// Longest time a call may be silent, instead of the gateway's.
    pub timeout: Option<Duration>,
    /// Which dialect it speaks.
    pub protocol: ProtocolPin,
    /// The client that created it over REST; `None` for a server that the operator wrote.
    pub registered_by: Option<Located<String>>,
}

/// A header of a server.
pub struct Header {
    /// Its name as written.
    pub name: String,
    /// Its value before references are resolved.
    pub value: Located<Template>,
}

/// Which era of the protocol a server is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolPin {
    /// Found out by a probe.
    Auto,
    /// 2026-07-28 and later.
    Modern,
    /// 2024-11-05 to 2025-11-25.
    Legacy,
}

/// The grants on one server: `[allow.server_a]`.
pub struct AllowTable {
    /// Name of the server, placed at the beginning of the table.
    pub server: Located<String>,
    /// One entry a client, in the order of the file.
    pub grants: Vec<GrantTable>,
}

/// What one client, or everyone (`*`), is granted on a server. A plain list fills `tools` only.
pub struct GrantTable {
    /// Name of the client.
    pub client: Located<String>,
    /// Patterns of tools.
    pub tools: Vec<Located<Box<str>>>,
    /// Patterns of tools, prompts and resources that are refused whatever the others say.
    pub deny: Vec<Located<Box<str>>>,
    /// Patterns of prompts.
    pub prompts: Vec<Located<Box<str>>>,
    /// Patterns of resource URIs.
    pub resources: Vec<Located<Box<str>>>,
}

impl Config {
    /// Reads a file. A syntax error leaves everything empty and is the only problem; all others are found at once.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut config = Self {
            clients: Vec::new(),
            servers: Vec::new(),
            allow: Vec::new(),
            settings: Settings::default(),
            problems: Vec::new(),
            lines: Arc::default(),
        };
        if text.len() > MAX_FILE {
            config
                .problems
                .push(Problem::error("", format!("expected at most {MAX_FILE} bytes, found {}", text.len())));
            return config;
        }
        config.lines = Arc::new(Lines::new(text));
        let mut report = Report::new(Arc::clone(&config.lines), Vec::new());
        match DeTable::parse(text) {
            Ok(root) => config.read(root.get_ref(), &mut report),
            Err(error) => {
                let at = offset(error.span().map_or(0, |span| span.start));
                report.add(at, Problem::error("", error.message().replace('\n', ", ")));
            }
        }
        config.problems = report.finish();
        config
    }

    /// What is wrong with the shape of the file, in its order.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Where offsets lie.
    #[must_use]
    pub fn lines(&self) -> &Arc<Lines> {
        &self.lines
    }

    /// What has to be looked up outside the file before a registry can be built.
    #[must_use]
    pub fn references(&self) -> BTreeSet<Reference> {
        let mut references = BTreeSet::new();
        for client in &self.clients {
            if let Some(Located { value: Token::Reference(reference), .. }) = &client.token {
                references.insert(reference.clone());
            }
        }
        for header in self.servers.iter().flat_map(|server| &server.headers) {
            header.value.value.collect(&mut references);
        }
        references
    }

    fn read(&mut self, root: &DeTable<'_>, report: &mut Report) {
        for entry in entries(root) {
            match entry.key {
                "clients" => self.clients = named(&entry, "a table of clients", report, read_client),
                "mcp_servers" => self.servers = named(&entry, "a table of servers", report, read_server),
                "allow" => self.allow = named(&entry, "a table of servers", report, read_allow),
                "gateway" => {
                    if let Some(mut section) = Section::open("", &entry, "a table of settings", report) {
                        self.settings = Settings::read(&mut section);
                        section.finish();
                    }
                }
                other => {
                    let hint = report.nearest(other, ["clients", "mcp_servers", "allow", "gateway"].into_iter());
                    report.add(entry.start(), Problem::error(join("", other), "unknown section").with_hint(hint));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_leaves_nothing() {
        let config = Config::parse("[clients.a]\nauth_token = \"1\"\n[clients.b\n");
        assert!(config.clients.is_empty());
        assert_eq!(config.problems().len(), 1);
        assert_eq!(config.problems()[0].place, Some(Place { line: 3, column: 11 }));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let config = Config::parse(&" ".repeat(MAX_FILE + 1));
        assert_eq!(config.problems()[0].message, "expected at most 67108864 bytes, found 67108865");
    }

    #[test]
    fn an_empty_file_is_a_configuration() {
        let config = Config::parse("");
        assert!(config.problems().is_empty());
        assert_eq!(config.settings, Settings::default());
    }

    #[test]
    fn references_are_found_in_tokens_and_headers_of_the_operators_servers_only() {
        let config = Config::parse(include_str!("../../fixtures/config/everything.toml"));
        let found: Vec<_> = config.references().iter().map(Reference::to_string).collect();
        assert_eq!(found, ["environment variable `SET`", "file `/set`"]);
    }

    #[test]
    fn values_know_where_they_stand() {
        let text = "\u{feff}[allow.s]\r\nbob = [\"é*\", \"b\"]\r\n";
        let config = Config::parse(text);
        let grant = &config.allow[0].grants[0];
        let shown: Vec<_> = grant.tools.iter().map(|p| (&*p.value, config.lines().place(p.at).to_string())).collect();
        assert_eq!(shown, [("é*", "2:8".to_owned()), ("b", "2:14".to_owned())]);
        assert_eq!(config.lines().place(grant.client.at).to_string(), "2:1");
        assert_eq!(config.lines().place(config.allow[0].server.at).to_string(), "1:1");
    }
}
