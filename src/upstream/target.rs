//! Where requests to a server go, and what all of them say. Made once for many, because every call needs it.

use std::sync::Arc;

use hyper::Uri;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};

use super::Upstream;
use crate::wire::endpoint::Endpoint;
use crate::wire::mcp::{MODERN, ProtocolVersion, header};

const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("mcp-x/", env!("CARGO_PKG_VERSION")));

/// Where requests go, and the headers that they have in common. Not to be shown: they may hold credentials.
pub(super) struct Target {
    pub(super) place: Arc<Endpoint>,
    /// The request target, in origin form.
    pub(super) uri: Uri,
    /// With a `Content-Length` for no body at all, so that the right one finds its place there in every copy.
    pub(super) headers: HeaderMap,
}

impl Target {
    /// For modern requests, and for those that find out whether the server knows them.
    pub(super) fn modern(upstream: &Upstream, place: Arc<Endpoint>) -> Self {
        let mut target = Self::plain(upstream, place);
        target.headers.insert(header::PROTOCOL_VERSION, HeaderValue::from_static(MODERN));
        target
    }

    /// For legacy requests in a session of this revision, with the id that the server gave it, if it gave one.
    pub(super) fn legacy(
        upstream: &Upstream,
        place: Arc<Endpoint>,
        version: ProtocolVersion,
        session: Option<&HeaderValue>,
    ) -> Self {
        let mut target = Self::plain(upstream, place);
        if let Some(id) = session {
            target.headers.insert(header::SESSION_ID, id.clone());
        }
        if version.sends_header() {
            target.headers.insert(header::PROTOCOL_VERSION, HeaderValue::from_static(version.as_str()));
        }
        target
    }

    /// For requests without a session, which say nothing of their era.
    pub(super) fn plain(upstream: &Upstream, place: Arc<Endpoint>) -> Self {
        // Both are parts of a URL that parsed.
        let uri = Uri::try_from(place.target.as_str()).unwrap_or_default();
        let host = HeaderValue::try_from(&place.authority).unwrap_or(HeaderValue::from_static(""));
        let mut headers = HeaderMap::with_capacity(8 + upstream.headers.len());
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, BOTH);
        headers.insert(USER_AGENT, AGENT);
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        // What the configuration may not name, such as the headers of MCP, the registry has refused.
        for (name, value) in &upstream.headers {
            headers.insert(name, value.clone());
        }
        Self { place, uri, headers }
    }
}
