//! What a registry is made of: names, servers, clients and grants, as plain values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::policy::fnmatch::Pattern;
pub use crate::wire::config::ProtocolPin;
use crate::wire::config::{GrantTable, Located};
use crate::wire::endpoint::Endpoint;
use crate::wire::mcp::ListKind;

/// The name of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

/// The name of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(Arc<str>);

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// The name of a client or server that may or may not exist.
            #[must_use]
            pub fn new(name: &str) -> Self {
                Self(name.into())
            }

            /// The name as the file has it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
name!(ClientId);
name!(ServerId);

/// SHA-256 of a server's name: names the server inside sealed values, at a fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey([u8; 32]);

impl ServerKey {
    /// The key of a server.
    #[must_use]
    pub fn of(server: &ServerId) -> Self {
        Self(Sha256::digest(server.as_str()).into())
    }

    /// The key of a server as long as it is this owner's: what is sealed for one owner's server, and goes to it again, must
    /// not go to another's that has taken the name.
    #[must_use]
    pub fn owned(server: &ServerId, owner: &ClientId) -> Self {
        let digest = Sha256::new().chain_update(Self::of(server).0).chain_update(owner.as_str());
        Self(digest.finalize().into())
    }

    /// The key of which these are the bytes, be there such a server or not.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Which addresses a server may live at. Link-local and the like are refused to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses only.
    Public,
    /// Loopback and private ones too.
    Private,
}

/// One MCP server. Two that are equal are reached in the same way, so that a reload can keep what it holds for them;
/// where a server stands in the file is no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name.
    pub id: ServerId,
    /// SHA-256 of the name.
    pub key: ServerKey,
    /// What tells it from a server of the same name that is another owner's.
    pub identity: ServerKey,
    /// Where it lives.
    pub endpoint: Endpoint,
    /// The client that owns it, which may not exist.
    pub owner: ClientId,
    /// Headers sent to it, references resolved.
    pub headers: Headers,
    /// What is put before the names of its tools and prompts.
    pub tool_prefix: String,
    /// Longest time a call may be silent, if not the gateway's `silent_call`.
    pub timeout: Option<Duration>,
    /// Which era it is spoken to in.
    pub protocol: ProtocolPin,
    /// The client that created it over REST; `None` for one that the operator wrote.
    pub registered_by: Option<ClientId>,
    /// Which addresses it may live at.
    pub reach: Reach,
}

impl Server {
    /// What is put before the names of such entries; a resource has the same URI everywhere.
    #[must_use]
    pub fn prefix(&self, kind: ListKind) -> &str {
        match kind {
            ListKind::Tools | ListKind::Prompts => &self.tool_prefix,
            ListKind::Resources | ListKind::Templates => "",
        }
    }
}

/// Headers with values that are secret: `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers that have been checked.
    pub(super) fn new(headers: Vec<(String, String)>) -> Self {
        Self(headers)
    }

    /// Names and values in the order of the file; both fit into a request.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, _)| (name, "…"))).finish()
    }
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Name.
    pub id: ClientId,
    /// Whether it may use the admin endpoints; gives no tool.
    pub admin: bool,
    /// When it registered itself, since the epoch; `None` for one that the operator wrote.
    pub registered: Option<Duration>,
    /// The issue time, since the epoch, before which its JWTs are refused.
    pub valid_from: Option<Duration>,
    /// A name for people.
    pub label: Option<String>,
}

/// Whom a grant names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// `"*"`: every client that can sign in.
    Everyone,
    /// One client, which may not exist.
    Client(ClientId),
}

impl Who {
    /// As the file writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Everyone => "*",
            Self::Client(id) => id.as_str(),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a grant says: patterns by what they are for.
#[derive(Debug)]
pub struct Grant {
    /// Tools that are allowed.
    pub tools: Patterns,
    /// Tools, prompts and resources that are refused whatever the others say.
    pub deny: Patterns,
    /// Prompts that are allowed.
    pub prompts: Patterns,
    /// Resource URIs that are allowed.
    pub resources: Patterns,
}

impl Grant {
    pub(super) fn new(table: &GrantTable) -> Self {
        Self {
            tools: Patterns::new(&table.tools),
            deny: Patterns::new(&table.deny),
            prompts: Patterns::new(&table.prompts),
            resources: Patterns::new(&table.resources),
        }
    }

    /// Whether it allows anything at all; a grant of nothing is none.
    pub(super) fn allows(&self) -> bool {
        [&self.tools, &self.prompts, &self.resources].iter().any(|patterns| !patterns.0.is_empty())
    }

    /// Whether it says the same as another, wherever they stand.
    pub(super) fn same(&self, other: &Self) -> bool {
        let pairs = [
            (&self.tools, &other.tools),
            (&self.deny, &other.deny),
            (&self.prompts, &other.prompts),
            (&self.resources, &other.resources),
        ];
        pairs.into_iter().all(|(a, b)| a.texts().eq(b.texts()))
    }
}

/// Patterns with the offsets where they stand. There may be a million.
#[derive(Debug)]
pub struct Patterns(Box<[(Pattern, u32)]>);

impl Patterns {
    pub(super) fn new(list: &[Located<Box<str>>]) -> Self {
        Self(list.iter().map(|pattern| (Pattern::new(&pattern.value), pattern.at)).collect())
    }

    /// The patterns as written.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(pattern, _)| pattern.as_str())
    }

    /// The patterns and the offsets where they stand.
    pub(in crate::policy) fn iter(&self) -> impl Iterator<Item = (&Pattern, u32)> {
        self.0.iter().map(|(pattern, at)| (pattern, *at))
    }
}
