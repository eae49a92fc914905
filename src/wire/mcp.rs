//! What the MCP specifications name: revisions, methods, header names, error codes, capabilities.
//!
//! Source: the specification pages and `schema.ts` of 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25 and 2026-07-28.

use std::borrow::Cow;
use std::fmt;

use hyper::header::HeaderName;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{JsonType, Span, members_of, type_of};

/// A protocol revision of the legacy era (those with an `initialize` handshake), older before newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// 2024-11-05
    V2024_11_05,
    /// 2025-03-26
    V2025_03_26,
    /// 2025-06-18
    V2025_06_18,
    /// 2025-11-25
    V2025_11_25,
}

impl ProtocolVersion {
    /// Every legacy revision, the oldest first.
    pub const ALL: [Self; 4] = [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25];
    /// The newest legacy revision.
    pub const LATEST: Self = Self::V2025_11_25;

    /// The revision of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }

    /// The revision's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
        }
    }

    /// Whether requests after the handshake carry the `MCP-Protocol-Version` header.
    #[must_use]
    pub fn sends_header(self) -> bool {
        self >= Self::V2025_06_18
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The revision of the modern era (stateless, no handshake).
pub const MODERN: &str = "2026-07-28";

/// The gateway as it names itself to clients and servers (`Implementation`), as JSON.
pub const IDENTITY: &str = concat!(r#"{"name":"mcp-x","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// The two ways to speak MCP: with a handshake and sessions, or every request by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        })
    }
}

/// How much a log message matters (RFC 5424), the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For debugging.
    Debug,
    /// What is going on.
    Info,
    /// Normal, but of note.
    Notice,
    /// Odd.
    Warning,
    /// Something failed.
    Error,
    /// A part has failed.
    Critical,
    /// Something has to be done at once.
    Alert,
    /// Nothing works.
    Emergency,
}

impl LogLevel {
    /// Every level, the least first.
    pub const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// The level of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// The level's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

/// Keys of `_meta` that the specification has taken for itself.
pub mod meta {
    /// Revision of a request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// Name and version of a client.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// What a client can do for a server.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// From which level on a client wants log messages.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// Name and version of the server, in a result.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// The stream of changes that a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// The extension that runs tools as tasks.
    pub const TASKS: &str = "io.modelcontextprotocol/tasks";
}

/// Method names.
pub mod method {
    /// Asks a modern server what it is.
    pub const DISCOVER: &str = "server/discover";
    /// Opens a modern stream of changes.
    pub const LISTEN: &str = "subscriptions/listen";
    /// Opens a legacy session.
    pub const INITIALIZE: &str = "initialize";
    /// Asks whether the other side is alive.
    pub const PING: &str = "ping";
    /// Lists tools.
    pub const TOOLS_LIST: &str = "tools/list";
    /// Calls a tool.
    pub const TOOLS_CALL: &str = "tools/call";
    /// Lists prompts.
    pub const PROMPTS_LIST: &str = "prompts/list";
    /// Asks for a prompt.
    pub const PROMPTS_GET: &str = "prompts/get";
    /// Lists resources.
    pub const RESOURCES_LIST: &str = "resources/list";
    /// Lists templates of resources.
    pub const TEMPLATES_LIST: &str = "resources/templates/list";
    /// Reads a resource.
    pub const RESOURCES_READ: &str = "resources/read";
    /// Asks how an argument of a prompt or of a template may go on.
    pub const COMPLETE: &str = "completion/complete";
    /// Asks how far a task has got.
    pub const TASKS_GET: &str = "tasks/get";
    /// Answers what a task waits for.
    pub const TASKS_UPDATE: &str = "tasks/update";
    /// Calls a task off.
    pub const TASKS_CANCEL: &str = "tasks/cancel";
    /// Tells how far a task has got.
    pub const TASK_CHANGED: &str = "notifications/tasks";
    /// Ends the handshake.
    pub const INITIALIZED: &str = "notifications/initialized";
    /// What a server asks its client for: something from its user.
    pub const ELICIT: &str = "elicitation/create";
    /// What a server asks its client for: something from its model.
    pub const SAMPLE: &str = "sampling/createMessage";
    /// What a server asks its client for: where it works.
    pub const ROOTS: &str = "roots/list";
    /// A legacy client's roots are others.
    pub const ROOTS_CHANGED: &str = "notifications/roots/list_changed";
    /// Calls a request off.
    pub const CANCELLED: &str = "notifications/cancelled";
    /// Tells that what a URL was opened for is done; 2025-11-25 only.
    pub const ELICITATION_COMPLETE: &str = "notifications/elicitation/complete";
    /// Tells how far a request got.
    pub const PROGRESS: &str = "notifications/progress";
    /// Says from which level on a legacy client wants log messages.
    pub const SET_LEVEL: &str = "logging/setLevel";
    /// A log message of a server.
    pub const MESSAGE: &str = "notifications/message";
    /// Tells that a server's tools changed.
    pub const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
    /// Tells that a server's prompts changed.
    pub const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
    /// Tells that a server's resources or templates changed.
    pub const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
    /// Tells that a resource has other content.
    pub const RESOURCE_UPDATED: &str = "notifications/resources/updated";
    /// Tells what of a stream of changes is granted.
    pub const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
    /// Asks a legacy server to tell when a resource changes.
    pub const SUBSCRIBE: &str = "resources/subscribe";
    /// Asks it not to any more.
    pub const UNSUBSCRIBE: &str = "resources/unsubscribe";

    /// Those that most messages have, the most frequent first.
    pub const USUAL: [&str; 13] = [
        TOOLS_CALL,
        PROGRESS,
        MESSAGE,
        TOOLS_LIST,
        INITIALIZE,
        INITIALIZED,
        PING,
        CANCELLED,
        DISCOVER,
        RESOURCES_READ,
        PROMPTS_GET,
        PROMPTS_LIST,
        RESOURCES_LIST,
    ];
}

/// The lists there are. The place of one in [`ALL`](Self::ALL) is its number in cursors, so new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListKind {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    Templates,
}

impl ListKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// The list that a request of this method asks for.
    #[must_use]
    pub fn of_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.method() == method)
    }

    /// The method that asks for it.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Tools => method::TOOLS_LIST,
            Self::Prompts => method::PROMPTS_LIST,
            Self::Resources => method::RESOURCES_LIST,
            Self::Templates => method::TEMPLATES_LIST,
        }
    }

    /// The notification that tells of a change.
    #[must_use]
    pub fn changed(self) -> &'static str {
        match self {
            Self::Tools => method::TOOLS_CHANGED,
            Self::Prompts => method::PROMPTS_CHANGED,
            Self::Resources | Self::Templates => method::RESOURCES_CHANGED,
        }
    }

    /// The member of the result that holds the entries.
    #[must_use]
    pub fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The member of an entry that names it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    /// An entry, in words.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Prompts => "prompt",
            Self::Resources => "resource",
            Self::Templates => "resource template",
        }
    }

    /// The same in one word, as fields of records are called; what a template stands for is a resource.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Prompts => "prompt",
            Self::Resources | Self::Templates => "resource",
        }
    }
}

/// What a client asks a server for: the requests that are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `tools/call`
    Call,
    /// `prompts/get`
    Get,
    /// `resources/read`
    Read,
    /// `completion/complete`
    Complete,
    /// `tasks/get`
    GetTask,
    /// `tasks/update`
    UpdateTask,
    /// `tasks/cancel`
    CancelTask,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Call, Self::Get, Self::Read, Self::Complete, Self::GetTask, Self::UpdateTask, Self::CancelTask];

    /// The operation that a request of this method asks for.
    #[must_use]
    pub fn of_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.method() == method)
    }

    /// The method that asks for it.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Call => method::TOOLS_CALL,
            Self::Get => method::PROMPTS_GET,
            Self::Read => method::RESOURCES_READ,
            Self::Complete => method::COMPLETE,
            Self::GetTask => method::TASKS_GET,
            Self::UpdateTask => method::TASKS_UPDATE,
            Self::CancelTask => method::TASKS_CANCEL,
        }
    }

    /// Whether its server may ask the client for something before it answers. (What a task asks stands in its result.)
    #[must_use]
    pub fn may_ask(self) -> bool {
        matches!(self, Self::Call | Self::Get | Self::Read)
    }

    /// Whether it is about a task, which only the modern era knows.
    #[must_use]
    pub fn is_about_task(self) -> bool {
        matches!(self, Self::GetTask | Self::UpdateTask | Self::CancelTask)
    }
}

/// HTTP header names.
pub mod header {
    use super::HeaderName;

    /// Legacy session id.
    pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
    /// Revision of a request.
    pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
    /// Mirrors the method of a modern request.
    pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
    /// Mirrors the tool, prompt or resource of a modern request.
    pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
    /// What the names of headers begin with that mirror arguments of a modern call.
    pub const PARAM_PREFIX: &str = "mcp-param-";
    /// The event after which a legacy event stream is to go on.
    pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
    /// Where a request belongs in what is going on all around (W3C Trace Context and Baggage). Whoever sends any of them
    /// sends the first.
    pub const TRACE: [HeaderName; 3] = [
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
        HeaderName::from_static("baggage"),
    ];
    /// Tells nginx not to buffer an event stream.
    pub const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
}

/// JSON-RPC error codes.
pub mod code {
    /// Not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// Not a request object.
    pub const INVALID_REQUEST: i64 = -32600;
    /// Method unknown, or its capability not advertised.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// Unknown tool, bad cursor, wrong parameters.
    pub const INVALID_PARAMS: i64 = -32602;
    /// A failure on the way to the server, or in it.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// Headers that do not agree with the body; modern only.
    pub const HEADER_MISMATCH: i64 = -32020;
    /// The client did not declare a capability that the request needs; modern only.
    pub const MISSING_CAPABILITY: i64 = -32021;
    /// A revision that is not spoken; modern only.
    pub const UNSUPPORTED_VERSION: i64 = -32022;
    /// A resource that is not there; legacy only.
    pub const RESOURCE_NOT_FOUND: i64 = -32002;
    /// The client has to open a URL first; 2025-11-25 only.
    pub const URL_ELICITATION_REQUIRED: i64 = -32042;
    /// The user of a client said no to what its server asked.
    pub const REJECTED: i64 = -1;
}

/// What a client can do for a server, as bit flags (`ClientCapabilities` of the schemas).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientCapabilities(u16);

impl ClientCapabilities {
    const NAMES: [(&'static str, &'static str, u16); 8] = [
        ("roots", "", 1),
        ("roots", "listChanged", 2),
        ("sampling", "", 4),
        ("sampling", "tools", 8),
        ("sampling", "context", 16),
        ("elicitation", "form", 32),
        ("elicitation", "url", 64),
        ("extensions", meta::TASKS, 128),
    ];

    /// `roots.listChanged`, which means nothing in the modern era.
    const LEGACY_ONLY: u16 = 2;
    /// `extensions`, which legacy servers do not know.
    const MODERN_ONLY: u16 = 128;

    /// No capability at all.
    pub const NONE: Self = Self(0);

    /// The extension that runs tools as tasks.
    pub const TASKS: Self = Self(128);

    /// Every capability.
    pub const ALL: Self = Self(255);

    /// Reads a `capabilities` object; an empty `elicitation` means forms.
    #[must_use]
    pub fn parse(object: &[u8]) -> Self {
        Self(flags_of(object, &Self::NAMES))
    }

    /// Whether the client says when its roots are others.
    #[must_use]
    pub fn tells_of_roots(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether the client can be asked to open a URL.
    #[must_use]
    pub fn opens_urls(self) -> bool {
        self.0 & 64 != 0
    }

    /// Those for which a server may ask the client something.
    #[must_use]
    pub fn askable(self) -> Self {
        Self(self.0 & (1 | 4 | 8 | 16 | 32 | 64))
    }

    /// Whether the client knows what to do with a tool that runs as a task.
    #[must_use]
    pub fn knows_tasks(self) -> bool {
        self.0 & Self::TASKS.0 != 0
    }

    /// These without the extension that runs tools as tasks.
    #[must_use]
    pub fn without_tasks(self) -> Self {
        Self(self.0 & !Self::TASKS.0)
    }

    /// These and others.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// What of these is needed and not there, as a modern `ClientCapabilities` object; `None` if all of it is there.
    #[must_use]
    pub fn lacks(self, needed: Self) -> Option<String> {
        let missing = Self(needed.0 & !self.0);
        (missing != Self::NONE).then(|| missing.to_modern().into_owned())
    }

    /// The capability that a server's request needs of a client: its method, the mode of an elicitation, and whether a
    /// model is to use tools. (`includeContext` needs nothing: a client without `sampling.context` may leave that out.)
    #[must_use]
    pub fn needed_for(request: &str, mode: Option<&str>, has_tools: bool) -> Option<Self> {
        match (request, mode) {
            (method::ROOTS, _) => Some(Self(1)),
            (method::SAMPLE, _) => Some(Self(if has_tools { 4 | 8 } else { 4 })),
            (method::ELICIT, None | Some("form")) => Some(Self(32)),
            (method::ELICIT, Some("url")) => Some(Self(64)),
            _ => None,
        }
    }

    /// The capabilities as a modern client declares them.
    #[must_use]
    pub fn to_modern(self) -> Cow<'static, str> {
        Self(self.0 & !Self::LEGACY_ONLY).written()
    }

    /// The capabilities as a legacy client declares them.
    #[must_use]
    pub fn to_legacy(self) -> Cow<'static, str> {
        Self(self.0 & !Self::MODERN_ONLY).written()
    }

    fn written(self) -> Cow<'static, str> {
        if self == Self::NONE {
            return Cow::Borrowed("{}");
        }
        let mut outer: Vec<(&str, Vec<String>)> = Vec::new();
        for (name, member, flag) in Self::NAMES {
            if self.0 & flag == 0 {
                continue;
            }
            let value = if member == "listChanged" { "true" } else { "{}" };
            let inner = (!member.is_empty()).then(|| format!(r#""{member}":{value}"#));
            match outer.iter_mut().find(|(known, _)| *known == name) {
                Some((_, members)) => members.extend(inner),
                None => outer.push((name, inner.into_iter().collect())),
            }
        }
        let members = outer.into_iter().map(|(name, inner)| format!(r#""{name}":{{{}}}"#, inner.join(",")));
        format!("{{{}}}", members.collect::<Vec<_>>().join(",")).into()
    }

    /// The flags as a number, for sealed values.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The capabilities of a number made by [`bits`](Self::bits).
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

/// What a server can do for its clients, as bit flags (`ServerCapabilities` of the schemas).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerCapabilities(u16);

impl ServerCapabilities {
    const NAMES: [(&'static str, &'static str, u16); 10] = [
        ("tools", "", 1),
        ("tools", "listChanged", 2),
        ("prompts", "", 4),
        ("prompts", "listChanged", 8),
        ("resources", "", 16),
        ("resources", "listChanged", 32),
        ("resources", "subscribe", 64),
        ("completions", "", 128),
        ("logging", "", 256),
        ("extensions", meta::TASKS, 512),
    ];

    /// Of a server that has not said what it can do: everything is to be tried.
    pub const UNKNOWN: Self = Self(u16::MAX);

    /// Reads a `capabilities` object.
    #[must_use]
    pub fn parse(object: &[u8]) -> Self {
        Self(flags_of(object, &Self::NAMES))
    }

    /// Whether it has such a list.
    #[must_use]
    pub fn lists(self, kind: ListKind) -> bool {
        self.0 & Self::flag(kind) != 0
    }

    /// Whether it tells when such a list changes.
    #[must_use]
    pub fn tells_of(self, kind: ListKind) -> bool {
        self.0 & (Self::flag(kind) << 1) != 0
    }

    /// Whether it tells when a resource changes that its client wants to hear of.
    #[must_use]
    pub fn subscribes(self) -> bool {
        self.0 & 64 != 0
    }

    /// Whether it completes arguments.
    #[must_use]
    pub fn completes(self) -> bool {
        self.0 & 128 != 0
    }

    /// Whether it may run a tool as a task.
    #[must_use]
    pub fn runs_tasks(self) -> bool {
        self.0 & 512 != 0
    }

    /// The flags as a number, for what is kept of a session.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The capabilities of a number made by [`bits`](Self::bits).
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    fn flag(kind: ListKind) -> u16 {
        match kind {
            ListKind::Tools => 1,
            ListKind::Prompts => 4,
            ListKind::Resources | ListKind::Templates => 16,
        }
    }
}

/// The flags of the members, and members of members, that an object of capabilities has.
fn flags_of(object: &[u8], names: &[(&str, &str, u16)]) -> u16 {
    let mut flags = 0;
    for (name, value) in members_of(object, Span { start: 0, end: object.len() }) {
        if type_of(value.of(object)) != JsonType::Object {
            continue;
        }
        let inner = members_of(object, value);
        for (outer, member, flag) in names {
            // An empty `elicitation` means forms.
            let default = member.is_empty() || (*member == "form" && inner.is_empty());
            if *outer == name && (default || inner.iter().any(|(key, v)| key == member && is_on(v.of(object)))) {
                flags |= flag;
            }
        }
    }
    flags
}

/// What the gateway reads of a server's answer to `initialize`.
#[derive(Debug, Deserialize)]
pub struct InitializeResult {
    /// The revision that the server chose.
    #[serde(rename = "protocolVersion")]
    pub protocol_version: String,
    /// What the server can do.
    #[serde(default)]
    capabilities: Option<Box<RawValue>>,
    /// What the server has to say to models about itself.
    #[serde(default)]
    pub instructions: Option<String>,
}

impl InitializeResult {
    /// Reads the `result` of an `initialize` response.
    ///
    /// # Errors
    /// The first member that is missing or of a wrong type.
    pub fn parse(result: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(result)
    }

    /// What the server can do.
    #[must_use]
    pub fn capabilities(&self) -> ServerCapabilities {
        capabilities_of(self.capabilities.as_deref())
    }
}

/// What the gateway reads of a server's answer to `server/discover`.
#[derive(Debug, Deserialize)]
pub struct DiscoverResult {
    /// The revisions that the server speaks.
    #[serde(rename = "supportedVersions")]
    pub supported_versions: Vec<String>,
    /// What the server can do.
    #[serde(default)]
    capabilities: Option<Box<RawValue>>,
    /// What the server has to say to models about itself.
    #[serde(default)]
    pub instructions: Option<String>,
}

impl DiscoverResult {
    /// Reads the `result` of a `server/discover` response.
    ///
    /// # Errors
    /// The first member that is missing or of a wrong type.
    pub fn parse(result: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(result)
    }

    /// What the server can do.
    #[must_use]
    pub fn capabilities(&self) -> ServerCapabilities {
        capabilities_of(self.capabilities.as_deref())
    }
}

/// What a server said that it can do; one that said nothing may be able to do anything.
fn capabilities_of(said: Option<&RawValue>) -> ServerCapabilities {
    said.map_or(ServerCapabilities::UNKNOWN, |said| ServerCapabilities::parse(said.get().as_bytes()))
}

/// The `data` of an error -32022.
#[derive(Debug, Default, Deserialize)]
pub struct UnsupportedVersion {
    /// The revisions that are spoken instead.
    #[serde(default)]
    pub supported: Vec<String>,
}

impl UnsupportedVersion {
    /// Reads the `data` of an error; one that cannot be read names nothing.
    #[must_use]
    pub fn parse(data: &[u8]) -> Self {
        serde_json::from_slice(data).unwrap_or_default()
    }
}

/// Capabilities are written as objects or, some of them, as booleans.
fn is_on(value: &[u8]) -> bool {
    type_of(value) == JsonType::Object || value == b"true"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_named_and_ordered() {
        for version in ProtocolVersion::ALL {
            assert_eq!(ProtocolVersion::parse(version.as_str()), Some(version));
        }
        assert!(ProtocolVersion::ALL.is_sorted());
        for other in ["2026-07-28", "", "2025-11-26", "2025-11-25 "] {
            assert_eq!(ProtocolVersion::parse(other), None);
        }
    }

    #[test]
    fn log_levels_are_named_and_ordered() {
        for level in LogLevel::ALL {
            assert_eq!(LogLevel::parse(level.as_str()), Some(level));
        }
        assert!(LogLevel::ALL.is_sorted());
        assert_eq!(LogLevel::parse("warn"), None);
    }

    #[test]
    fn operations_are_named_and_some_are_about_tasks() {
        for operation in Operation::ALL {
            assert_eq!(Operation::of_method(operation.method()), Some(operation));
            assert_eq!(operation.is_about_task(), operation.method().starts_with("tasks/"), "{operation:?}");
            assert!(!(operation.may_ask() && operation.is_about_task()), "{operation:?}");
        }
        for other in ["tasks/list", "tasks/result", "tasks", "notifications/tasks"] {
            assert_eq!(Operation::of_method(other), None, "{other}");
        }
    }

    #[test]
    fn tasks_are_an_extension_of_the_modern_era() {
        let text = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        let tasks = ClientCapabilities::parse(text.as_bytes());
        assert_eq!(
            (tasks, tasks.to_modern().as_ref(), tasks.to_legacy().as_ref()),
            (ClientCapabilities::TASKS, text, "{}")
        );
        assert!(tasks.knows_tasks() && ClientCapabilities::ALL.knows_tasks());
        assert_eq!((tasks.askable(), tasks.without_tasks()), (ClientCapabilities::NONE, ClientCapabilities::NONE));
        assert_eq!(ClientCapabilities::NONE.lacks(ClientCapabilities::TASKS).as_deref(), Some(text));
        for other in
            [r#"{"tasks":{}}"#, r#"{"extensions":{"io.modelcontextprotocol/tasks":null}}"#, r#"{"extensions":{}}"#]
        {
            assert!(!ClientCapabilities::parse(other.as_bytes()).knows_tasks(), "{other}");
        }
    }

    #[track_caller]
    fn check(object: &str, bits: u16) {
        assert_eq!(ClientCapabilities::parse(object.as_bytes()).bits(), bits, "{object}");
    }

    #[test]
    fn server_capabilities_become_flags() {
        let of = |text: &str| ServerCapabilities::parse(text.as_bytes());
        for kind in ListKind::ALL {
            assert!(ServerCapabilities::UNKNOWN.lists(kind) && !of("{}").lists(kind));
        }
        let some = of(r#"{"prompts":{"listChanged":true},"resources":{"listChanged":false,"subscribe":true}}"#);
        let lists = ListKind::ALL.map(|kind| (some.lists(kind), some.tells_of(kind)));
        assert_eq!(lists, [(false, false), (true, true), (true, false), (true, false)]);
        assert!(some.subscribes() && !some.completes() && !some.runs_tasks());
        let other = of(r#"{"completions":{},"extensions":{"io.modelcontextprotocol/tasks":{}},"tools":null}"#);
        assert!(other.completes() && other.runs_tasks() && !other.lists(ListKind::Tools));
        let silent = InitializeResult::parse(br#"{"protocolVersion":"2025-11-25"}"#).unwrap();
        assert_eq!(silent.capabilities(), ServerCapabilities::UNKNOWN);
    }

    #[test]
    fn client_capabilities_become_flags() {
        check("{}", 0);
        check(r#"{"roots":{}}"#, 1);
        check(r#"{"roots":{"listChanged":true},"sampling":{}}"#, 1 | 2 | 4);
        check(r#"{"roots":{"listChanged":false}}"#, 1);
        check(r#"{"sampling":{"tools":{},"context":{}}}"#, 4 | 8 | 16);
        check(r#"{"elicitation":{}}"#, 32);
        check(r#"{"elicitation":{"form":{}}}"#, 32);
        check(r#"{"elicitation":{"url":{}}}"#, 64);
        for bits in 0..256 {
            let flags = ClientCapabilities::from_bits(bits & !2);
            // Members of what is not there itself are not written.
            let written = ClientCapabilities::parse(flags.to_modern().as_bytes());
            let whole = if bits & 24 == 0 || bits & 4 != 0 { flags.bits() } else { flags.bits() | 4 };
            assert_eq!(written.bits(), whole, "{bits}");
        }
        let forms = ClientCapabilities::parse(br#"{"elicitation":{}}"#);
        assert_eq!(forms.lacks(ClientCapabilities::needed_for(method::ELICIT, None, false).unwrap()), None);
        let url = ClientCapabilities::needed_for(method::ELICIT, Some("url"), false).unwrap();
        assert_eq!(forms.lacks(url).as_deref(), Some(r#"{"elicitation":{"url":{}}}"#));
        let sampling = |has_tools| ClientCapabilities::needed_for(method::SAMPLE, None, has_tools).unwrap();
        assert_eq!((sampling(false).bits(), sampling(true).bits()), (4, 4 | 8));
        assert_eq!(sampling(false).lacks(sampling(true)).as_deref(), Some(r#"{"sampling":{"tools":{}}}"#));
        assert_eq!(ClientCapabilities::needed_for("tools/call", None, true), None);
        check(r#"{"elicitation":null,"sampling":7,"tasks":{},"experimental":{"x":{}}}"#, 0);
    }
}
