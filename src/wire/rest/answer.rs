//! The bodies of REST answers, member by member as design 7 and `/openapi.json` give them.

use serde::ser::{Serialize, Serializer};

use crate::wire::mcp::ListKind;

/// An object whose members keep their order.
#[derive(Debug, Default)]
pub struct Ordered<V>(pub Vec<(String, V)>);

impl<V: Serialize> Serialize for Ordered<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// Writes an answer as JSON.
#[must_use]
pub fn to_json(answer: &impl Serialize) -> Vec<u8> {
    // Nothing here fails to serialise: every key is a string and every number is whole.
    serde_json::to_vec(answer).unwrap_or_default()
}

/// Of `/register_client` and `/refresh_token`.
#[derive(Debug, serde::Serialize)]
pub struct Token<'a> {
    /// The client.
    pub client_id: &'a str,
    /// Its token.
    pub auth_token: &'a str,
    /// How long it is good, in seconds.
    pub expires_in_seconds: u64,
}

/// Of `/register_mcp_server`.
#[derive(Debug, serde::Serialize)]
pub struct ServerName<'a> {
    /// The server.
    pub server_id: &'a str,
}

/// Of what was done, in words.
#[derive(Debug, serde::Serialize)]
pub struct Message {
    /// The words.
    pub message: String,
}

/// Of `/get_access_control`.
#[derive(Debug, serde::Serialize)]
pub struct Access {
    /// The caller's servers in the order of the file.
    pub owned_servers: Vec<String>,
    /// Patterns of tools, by client and server.
    pub access_control: Ordered<Ordered<Vec<String>>>,
}

/// Of `/get_tools`.
#[derive(Debug, serde::Serialize)]
pub struct Tools {
    /// The tools in the order of the client's list.
    pub tools: Vec<Tool>,
    /// The servers they may come from, in the order in which they win names.
    pub servers: Vec<ToolServer>,
}

/// A tool that a client sees.
#[derive(Debug, serde::Serialize)]
pub struct Tool {
    /// The name under which the client knows it.
    pub name: String,
    /// Where a call goes.
    pub server: String,
    /// The rule that allows it, in words.
    pub why: String,
    /// How the server is doing, in one word.
    pub state: String,
}

/// A server that a client sees something of.
#[derive(Debug, serde::Serialize)]
pub struct ToolServer {
    /// The server.
    pub server: String,
    /// Whether it is the client's own.
    pub owner: bool,
    /// How it is doing, in one word.
    pub state: String,
    /// How many tools of it the client sees.
    pub tools: usize,
    /// What went wrong; for the owner and admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where something stands in the configuration file.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Character in the line, from 1.
    pub column: u32,
}

/// Of `/explain`.
#[derive(Debug, serde::Serialize)]
pub struct Explanation {
    /// Who was asked about.
    pub client: String,
    /// About what, as the client names it.
    #[serde(flatten)]
    pub about: About,
    /// Where a request goes.
    pub server: Option<String>,
    /// `yes` or `no`.
    pub verdict: &'static str,
    /// What decided, in words.
    pub rule: String,
    /// Where that stands.
    pub place: Option<Place>,
    /// Every server that has it, or may have it.
    pub candidates: Vec<Candidate>,
}

/// What an explanation is about: one of these.
#[derive(Debug, Default, serde::Serialize)]
pub struct About {
    /// A tool by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// A prompt by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A resource by its URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

impl About {
    /// The same of a kind and a name.
    #[must_use]
    pub fn new(kind: ListKind, name: String) -> Self {
        match kind {
            ListKind::Tools => Self { tool: Some(name), ..Self::default() },
            ListKind::Prompts => Self { prompt: Some(name), ..Self::default() },
            ListKind::Resources | ListKind::Templates => Self { resource: Some(name), ..Self::default() },
        }
    }
}

/// One server that has what is asked about, or may have it.
#[derive(Debug, serde::Serialize)]
pub struct Candidate {
    /// The server.
    pub server: String,
    /// Its own name for it.
    #[serde(flatten)]
    pub about: About,
    /// `yes` or `no`.
    pub verdict: &'static str,
    /// What decided, in words.
    pub rule: String,
    /// Where that stands.
    pub place: Option<Place>,
    /// How the server is doing, in one word.
    pub state: String,
}

/// Of `/status`.
#[derive(Debug, serde::Serialize)]
pub struct Status {
    /// The gateway's version.
    pub version: &'static str,
    /// When it was started.
    pub started: String,
    /// The configuration.
    pub config: Configuration,
    /// How many clients there are.
    pub clients: usize,
    /// How many servers there are.
    pub servers: usize,
    /// Revisions of MCP that clients may speak.
    pub protocol_versions: Vec<&'static str>,
    /// Limits in force, by their keys in `[gateway]`.
    pub limits: Ordered<u64>,
}

/// The configuration, for `/status`.
#[derive(Debug, serde::Serialize)]
pub struct Configuration {
    /// The file.
    pub path: String,
    /// When what is in force was loaded.
    pub loaded: String,
    /// How many configurations were in force before it.
    pub generation: u64,
    /// Whether it is the newest text of the file.
    pub in_force: bool,
    /// What is wrong with the newest text.
    pub problems: Vec<Problem>,
}

/// A problem of the configuration.
#[derive(Debug, serde::Serialize)]
pub struct Problem {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// The key.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Character in the line, from 1.
    pub column: Option<u32>,
    /// What may help.
    pub hint: Option<String>,
}

/// Of `/clients`.
#[derive(Debug, serde::Serialize)]
pub struct Clients {
    /// All clients in the order of the file.
    pub clients: Vec<Client>,
}

/// A client.
#[derive(Debug, serde::Serialize)]
pub struct Client {
    /// Its name.
    pub client_id: String,
    /// Whether it may use the admin endpoints.
    pub admin: bool,
    /// A name for people.
    pub label: Option<String>,
    /// When it registered itself.
    pub registered: Option<String>,
    /// Since when tokens must have been issued.
    pub valid_from: Option<String>,
    /// The servers it owns.
    pub servers: Vec<String>,
}

/// Of `/servers`.
#[derive(Debug, serde::Serialize)]
pub struct Servers {
    /// All servers in the order of the file.
    pub servers: Vec<Server>,
}

/// A server.
#[derive(Debug, serde::Serialize)]
pub struct Server {
    /// Its name.
    pub server_id: String,
    /// Where it lives, without what a query says.
    pub url: String,
    /// Its owner.
    pub owner: String,
    /// Who created it over REST.
    pub registered_by: Option<String>,
    /// What is put before its tools' names.
    pub tool_prefix: String,
    /// Names of the headers sent to it.
    pub headers: Vec<String>,
    /// How it is doing, in one word.
    pub state: String,
    /// What went wrong when it was last asked.
    pub error: Option<String>,
    /// How many tools it offers.
    pub tools: usize,
    /// What is granted on it, by client.
    pub grants: Ordered<Grant>,
}

/// What one client, or everyone, is granted on a server.
#[derive(Debug, serde::Serialize)]
pub struct Grant {
    /// Patterns of tools.
    pub tools: Vec<String>,
    /// Patterns of what is refused.
    pub deny: Vec<String>,
    /// Patterns of prompts.
    pub prompts: Vec<String>,
    /// Patterns of resource URIs.
    pub resources: Vec<String>,
}
