//! What the server reads of a message.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A request or a notification.
#[derive(Deserialize)]
pub(crate) struct Message<'a> {
    /// None: a notification.
    #[serde(borrow)]
    pub(crate) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) params: Params<'a>,
}

#[derive(Default, Deserialize)]
pub(crate) struct Params<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) arguments: Arguments<'a>,
    #[serde(borrow, default, rename = "_meta")]
    pub(crate) meta: Meta<'a>,
}

/// The arguments of all tools together.
#[derive(Default, Deserialize)]
pub(crate) struct Arguments<'a> {
    /// `echo`: what to answer.
    #[serde(borrow)]
    pub(crate) text: Option<&'a RawValue>,
    /// `payload`: the length of the answer's text in KiB.
    #[serde(default)]
    pub(crate) kib: usize,
    /// `sse`: how many progress notifications come before the result.
    #[serde(default)]
    pub(crate) events: u64,
    /// `sse`: milliseconds before each.
    #[serde(default)]
    pub(crate) interval_ms: u64,
}

#[derive(Default, Deserialize)]
pub(crate) struct Meta<'a> {
    /// There: the request is modern.
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    pub(crate) version: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities")]
    pub(crate) capabilities: Option<&'a RawValue>,
    #[serde(borrow, rename = "progressToken")]
    pub(crate) progress_token: Option<&'a RawValue>,
}
