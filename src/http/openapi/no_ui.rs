//! Without the feature `docs` there is a page that says so.

/// Content type and content of a file; the empty name is the page itself, and the only one.
pub(super) fn content(name: &str) -> Option<(&'static str, &'static [u8])> {
    let page = b"This mcp-x was built without its documentation page (feature `docs`); /openapi.json describes the endpoints.\n";
    name.is_empty().then_some(("text/plain; charset=utf-8", page.as_slice()))
}
