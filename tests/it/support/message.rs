//! Requests of any revision, well formed unless the test makes them otherwise.

use mcp_x_fixture::Mode;
pub(crate) use mcp_x_fixture::{LEGACY, MODERN};

/// What the keys of `_meta` begin with that are the specification's.
pub(crate) const KEY: &str = "io.modelcontextprotocol/";

/// Every revision, oldest first.
pub(crate) fn revisions() -> impl Iterator<Item = &'static str> {
    LEGACY.into_iter().chain([MODERN])
}

/// A request with the headers that mirror it: in the modern era its revision, its method, and the tool's name.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    headers: Vec<(String, String)>,
    id: String,
    method: String,
    /// The members of `params` but `_meta`, as they are written.
    params: Vec<String>,
    /// The members of `params._meta`.
    meta: Vec<String>,
    /// In the place of all that.
    text: Option<String>,
}

impl Message {
    /// A request of this revision with the id 1.
    pub(crate) fn of(revision: &str, method: &str) -> Self {
        let (mut headers, mut meta) = (Vec::new(), Vec::new());
        if revision == MODERN {
            headers.push(("MCP-Protocol-Version".to_owned(), MODERN.to_owned()));
            headers.push(("Mcp-Method".to_owned(), method.to_owned()));
            meta.push(format!(r#""{KEY}protocolVersion":"{MODERN}""#));
            meta.push(format!(r#""{KEY}clientCapabilities":{{}}"#));
        }
        Self { headers, id: "1".to_owned(), method: method.to_owned(), params: Vec::new(), meta, text: None }
    }

    /// A request of the modern era.
    pub(crate) fn modern(method: &str) -> Self {
        Self::of(MODERN, method)
    }

    /// A call of this revision, with these arguments as they are written.
    pub(crate) fn call(revision: &str, tool: &str, arguments: &str) -> Self {
        let mut message = Self::of(revision, "tools/call");
        if revision == MODERN {
            message.headers.push(("Mcp-Name".to_owned(), tool.to_owned()));
        }
        message.param(&format!(r#""name":"{tool}""#)).param(&format!(r#""arguments":{arguments}"#))
    }

    /// The id, as it is written.
    pub(crate) fn id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    /// Another method.
    pub(crate) fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self.header("Mcp-Method", method)
    }

    /// A call of another tool.
    pub(crate) fn named(mut self, tool: &str) -> Self {
        self.params.retain(|member| !member.starts_with(r#""name":"#));
        self.header("Mcp-Name", tool).param(&format!(r#""name":"{tool}""#))
    }

    /// One more member of `params`.
    pub(crate) fn param(mut self, member: &str) -> Self {
        self.params.push(member.to_owned());
        self
    }

    /// One more member of `params._meta`.
    pub(crate) fn meta(mut self, member: &str) -> Self {
        self.meta.push(member.to_owned());
        self
    }

    /// One more member of `params._meta` with a key of the specification's, in the place of the one that is there.
    pub(crate) fn told(mut self, key: &str, value: &str) -> Self {
        self = self.untold(key);
        self.meta(&format!(r#""{KEY}{key}":{value}"#))
    }

    /// No member of `params._meta` with this key of the specification's.
    pub(crate) fn untold(mut self, key: &str) -> Self {
        let start = format!(r#""{KEY}{key}":"#);
        self.meta.retain(|member| !member.starts_with(&start));
        self
    }

    /// A header in the place of the one that is there.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.without(name).another(name, value)
    }

    /// A header besides the one that is there.
    pub(crate) fn another(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Another body with the same headers.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.text = Some(text.to_owned());
        self
    }

    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body.
    pub(crate) fn body(&self) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        let Self { id, method, .. } = self;
        let mut params = self.params.clone();
        if !self.meta.is_empty() {
            params.push(format!(r#""_meta":{{{}}}"#, self.meta.join(",")));
        }
        let params = match params.is_empty() {
            true => String::new(),
            false => format!(r#","params":{{{}}}"#, params.join(",")),
        };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"{params}}}"#)
    }
}

/// The gateway as modern results name it, as a member of `_meta`.
pub(crate) fn identity() -> String {
    format!(r#""{KEY}serverInfo":{{"name":"mcp-x","version":"{}"}}"#, env!("CARGO_PKG_VERSION"))
}

/// A tool's result as a client of this revision gets it, if `members` stand between its braces at the server and none of
/// them is changed by a translation. The fixture puts what its era adds behind the others, the gateway in front.
pub(crate) fn framed(revision: &str, server: Mode, members: &str) -> String {
    let (complete, meta) = (r#""resultType":"complete""#, format!(r#""_meta":{{{}}}"#, identity()));
    let comma = if members.trim().is_empty() { "" } else { "," };
    match (revision == MODERN, server) {
        (false, _) => format!("{{{members}}}"),
        (true, Mode::Modern) => format!("{{{members}{comma}{meta},{complete}}}"),
        (true, _) => format!("{{{complete},{meta}{comma}{members}}}"),
    }
}
