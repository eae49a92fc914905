//! What the REST endpoints are: `/openapi.json` for programs, `/docs` (Swagger UI) for people.
//!
//! The document is written by hand; the integration tests compare every answer of the gateway with it, and fail where it
//! names too much or too little. The page loads nothing from anywhere else, and keeps no token.

#[cfg(not(feature = "docs"))]
#[path = "openapi/no_ui.rs"]
mod ui;
#[cfg(feature = "docs")]
mod ui;

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

use super::response::{Body, file};

/// OpenAPI 3.1; its version is the gateway's.
const DOCUMENT: &str = include_str!("openapi/openapi.json");

/// What the page may load and do. Swagger UI sets styles on its elements, so that these cannot be forbidden.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/openapi.json`.
pub(super) fn document() -> Response<Body> {
    file("application/json", Bytes::from_static(DOCUMENT.as_bytes()))
}

/// `/docs` and the files of that page; `None` for a file that it does not have.
pub(super) fn page(path: &str) -> Option<Response<Body>> {
    let name = path.strip_prefix("/docs")?;
    let (content_type, content) = ui::content(name.strip_prefix('/').unwrap_or(name))?;
    let mut answer = file(content_type, Bytes::from_static(content));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_version_of_the_gateway() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_page_is_there_and_other_files_are_not() {
        assert!(page("/docs").is_some() && page("/docs/").is_some());
        for path in ["/docs/nothing", "/docs/../Cargo.toml", "/docs//", "/docs/swagger-ui.css/x"] {
            assert!(page(path).is_none(), "{path}");
        }
    }
}
