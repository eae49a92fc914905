//! What the MCP specifications name: revisions, methods, header names, error codes, capabilities.
//!
//! Source: the specification pages and `schema.ts` of 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25 and 2026-07-28.

use std::fmt;

use hyper::header::HeaderName;
use serde::Deserialize;

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
    /// Ends the handshake.
    pub const INITIALIZED: &str = "notifications/initialized";
    /// Calls a request off.
    pub const CANCELLED: &str = "notifications/cancelled";
    /// Tells how far a request got.
    pub const PROGRESS: &str = "notifications/progress";
    /// A log message of a server.
    pub const MESSAGE: &str = "notifications/message";
    /// Tells that a server's tools changed.
    pub const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
}

/// HTTP header names.
pub mod header {
    use super::HeaderName;

    /// Legacy session id.
    pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
    /// Revision of a request.
    pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
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
}

/// What a client can do for a server, as bit flags (`ClientCapabilities` of the schemas).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientCapabilities(u16);

impl ClientCapabilities {
    const NAMES: [(&'static str, &'static str, u16); 7] = [
        ("roots", "", 1),
        ("roots", "listChanged", 2),
        ("sampling", "", 4),
        ("sampling", "tools", 8),
        ("sampling", "context", 16),
        ("elicitation", "form", 32),
        ("elicitation", "url", 64),
    ];

    /// No capability at all.
    pub const NONE: Self = Self(0);

    /// Reads a `capabilities` object; an empty `elicitation` means forms.
    #[must_use]
    pub fn parse(object: &[u8]) -> Self {
        let whole = Span { start: 0, end: object.len() };
        let mut flags = 0;
        for (name, value) in members_of(object, whole) {
            if type_of(value.of(object)) != JsonType::Object {
                continue;
            }
            let inner = members_of(object, value);
            for (outer, member, flag) in Self::NAMES {
                let default = member.is_empty() || (member == "form" && inner.is_empty());
                if outer == name && (default || inner.iter().any(|(key, v)| key == member && is_on(v.of(object)))) {
                    flags |= flag;
                }
            }
        }
        Self(flags)
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

/// What the gateway reads of a server's answer to `initialize`.
#[derive(Debug, Deserialize)]
pub struct InitializeResult {
    /// The revision that the server chose.
    #[serde(rename = "protocolVersion")]
    pub protocol_version: String,
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

    #[track_caller]
    fn check(object: &str, bits: u16) {
        assert_eq!(ClientCapabilities::parse(object.as_bytes()).bits(), bits, "{object}");
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
        check(r#"{"elicitation":null,"sampling":7,"tasks":{},"experimental":{"x":{}}}"#, 0);
    }
}
