//! The little of MCP that both sides need: revisions, header names, and the names of tools.

use std::str::FromStr;

use hyper::header::HeaderName;

/// The modern revision.
pub const MODERN: &str = "2026-07-28";
/// The legacy revisions, the newest first.
pub const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// `MCP-Protocol-Version`
pub const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`
pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Mcp-Method`
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// How a client speaks, or which clients a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25
    Legacy,
    /// 2026-07-28
    Modern,
    /// A server for both.
    Dual,
}

impl FromStr for Era {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "legacy" => Ok(Self::Legacy),
            "modern" => Ok(Self::Modern),
            "dual" => Ok(Self::Dual),
            _ => Err(()),
        }
    }
}

/// What stands before the names of the tools of server `index` of `servers`.
#[must_use]
pub fn prefix(index: usize, servers: usize) -> String {
    if servers > 1 { format!("s{index}-") } else { String::new() }
}
