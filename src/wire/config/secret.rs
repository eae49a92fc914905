//! Values that stand outside the file: `${env:NAME}` and `${file:/path}` in header values, `auth_token_env`, `auth_token_file`.
//!
//! Knows how references are written and how resolved values are put in; reading the environment and files is the
//! work of `store`. Nothing here has a `Debug` that shows a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hyper::header::{HeaderName, HeaderValue};

/// Names something outside the file that holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// An environment variable, by its name.
    Env(String),
    /// A file, by its path as written.
    File(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable `{name}`"),
            Self::File(path) => write!(f, "file `{path}`"),
        }
    }
}

impl Reference {
    /// The variable of this name; `None` for a text that cannot be one.
    pub(super) fn env(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && !name.contains(|c: char| c == '=' || c.is_control());
        fits.then(|| Self::Env(name.to_owned()))
    }

    /// The file at this path; `None` for a text that cannot be one.
    pub(super) fn file(path: &str) -> Option<Self> {
        let fits = !path.is_empty() && !path.contains(char::is_control);
        fits.then(|| Self::File(path.to_owned()))
    }
}

/// The values of references, or why one has none: filled by `store`, used by `Registry::build`.
#[derive(Default)]
pub struct Secrets(BTreeMap<Reference, Result<String, String>>);

impl Secrets {
    /// Notes what a reference stands for, or a reason that reads as a whole:
    /// ``environment variable `X` is not set``, ``cannot read `/run/x`: permission denied``.
    pub fn insert(&mut self, reference: Reference, value: Result<String, String>) {
        self.0.insert(reference, value);
    }

    /// The value; of a file without the line end, LF or CRLF, that it may end with.
    ///
    /// # Errors
    /// The reason why there is none, for the person who wrote the configuration.
    pub fn get(&self, reference: &Reference) -> Result<&str, String> {
        match (reference, self.0.get(reference)) {
            (Reference::Env(_), Some(Ok(value))) => Ok(value),
            (Reference::File(_), Some(Ok(value))) => {
                Ok(value.strip_suffix("\r\n").or_else(|| value.strip_suffix('\n')).unwrap_or(value))
            }
            (_, Some(Err(reason))) => Err(reason.clone()),
            (Reference::Env(name), None) => Err(format!("environment variable `{name}` is not set")),
            (Reference::File(path), None) => Err(format!("file `{path}` has not been read")),
        }
    }
}

/// A header value of the file: text with references in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Reference(Reference),
}

impl Template {
    /// A value without references: what a server created over REST has, whatever it looks like.
    #[must_use]
    pub fn plain(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// Takes a value apart at its `${env:NAME}` and `${file:/path}`.
    ///
    /// # Errors
    /// A message when something that begins with `${` is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (inside, after) = after.split_once('}').ok_or("expected `}` after `${`")?;
            let reference = match inside.split_once(':') {
                Some(("env", name)) => Reference::env(name),
                Some(("file", path)) => Reference::file(path),
                _ => None,
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Reference(reference.ok_or("expected `${env:NAME}` or `${file:/path}` after `${`")?));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Adds the references to a set.
    pub(super) fn collect(&self, references: &mut BTreeSet<Reference>) {
        references.extend(self.0.iter().filter_map(|part| match part {
            Part::Reference(reference) => Some(reference.clone()),
            Part::Text(_) => None,
        }));
    }

    /// The value with every reference replaced.
    ///
    /// # Errors
    /// The reasons of [`Secrets::get`].
    pub fn resolve(&self, secrets: &Secrets) -> Result<String, String> {
        let part = |part: &Part| match part {
            Part::Text(text) => Ok(text.clone()),
            Part::Reference(reference) => secrets.get(reference).map(str::to_owned),
        };
        self.0.iter().map(part).collect()
    }
}

/// Why a header cannot be sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The name is not a token of RFC 9110, 5.6.2.
    Name,
    /// The gateway sets this header itself.
    Reserved,
    /// The value holds a control character, such as a line end.
    Value,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "expected the name of a header",
            Self::Reserved => "this header is set by the gateway",
            Self::Value => "expected a header value without line ends and other control characters",
        })
    }
}

impl std::error::Error for HeaderError {}

/// Headers that are not for the configuration to set, in lower case: what is about one connection (RFC 9110, 7.6.1) or
/// one exchange (`Expect`), what the gateway must understand in the answer (`Accept`, `Accept-Encoding`), what it sends
/// by itself or never (protocol.md 2.7). `Authorization` and `Cookie` are credentials, and the operator's to give.
const RESERVED: [&str; 12] = [
    "accept",
    "accept-encoding",
    "connection",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Beginnings of further such names.
const RESERVED_PREFIXES: [&str; 3] = ["content-", "mcp-", "proxy-"];

/// Tells whether a header of this name may be configured for a server.
///
/// # Errors
/// [`HeaderError::Name`]; [`HeaderError::Reserved`] for what the gateway says itself or that concerns one connection only.
pub fn check_header_name(name: &str) -> Result<(), HeaderError> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError::Name)?;
    let name = name.as_str();
    if RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(HeaderError::Reserved);
    }
    Ok(())
}

/// Tells whether a header may have this value.
///
/// # Errors
/// [`HeaderError::Value`].
pub fn check_header_value(value: &str) -> Result<(), HeaderError> {
    HeaderValue::from_bytes(value.as_bytes()).map(|_| ()).map_err(|_| HeaderError::Value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let mut secrets = Secrets::default();
        secrets.insert(Reference::Env("A".to_owned()), Ok("one".to_owned()));
        secrets.insert(Reference::Env("LINE".to_owned()), Ok("one\n".to_owned()));
        secrets.insert(Reference::File("/b".to_owned()), Ok("two\r\n".to_owned()));
        secrets.insert(Reference::File("/c".to_owned()), Ok("two\n\n".to_owned()));
        secrets.insert(Reference::File("/r".to_owned()), Ok("two\r".to_owned()));
        secrets.insert(Reference::File("/d".to_owned()), Err("cannot read `/d`: permission denied".to_owned()));
        secrets
    }

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, &str>) {
            let resolved = Template::parse(text).and_then(|template| template.resolve(&secrets()));
            assert_eq!(resolved.as_deref().map_err(String::as_str), expected, "{text}");
        }
        check("", Ok(""));
        check("plain $ { } text", Ok("plain $ { } text"));
        check("Bearer ${env:A}", Ok("Bearer one"));
        check("${env:A}${file:/b}!", Ok("onetwo!"));
        check("${file:/c}", Ok("two\n"));
        check("${file:/r}", Ok("two\r"));
        check("${env:LINE}", Ok("one\n"));
        check("$${env:A}}", Ok("$one}"));
        check("${env:B}", Err("environment variable `B` is not set"));
        check("${file:/d}", Err("cannot read `/d`: permission denied"));
        check("${file:/e}", Err("file `/e` has not been read"));
        check("${env:A", Err("expected `}` after `${`"));
        for neither in ["${}", "${A}", "${env:}", "${env:A=B}", "${file:}", "${ENV:A}"] {
            check(neither, Err("expected `${env:NAME}` or `${file:/path}` after `${`"));
        }
    }

    #[test]
    fn a_plain_value_has_no_references() {
        let mut references = BTreeSet::new();
        Template::plain("${env:A}").collect(&mut references);
        assert!(references.is_empty());
        assert_eq!(Template::plain("${env:A}").resolve(&secrets()).as_deref(), Ok("${env:A}"));
    }

    #[test]
    fn headers_of_the_gateway_and_broken_ones_are_refused() {
        #[track_caller]
        fn check(name: &str, value: &str, expected: Result<(), HeaderError>) {
            let found = check_header_name(name).and_then(|()| check_header_value(value));
            assert_eq!(found, expected, "{name}: {value:?}");
        }
        check("Authorization", "Bearer x", Ok(()));
        check("X-Ünicode", "x", Err(HeaderError::Name));
        check("X-Unicode", "é\t", Ok(()));
        check("Accept-Language", "de", Ok(()));
        for name in ["", "a b", "a:", "a\n"] {
            check(name, "x", Err(HeaderError::Name));
        }
        let own = "HOST Content-Type content-length Accept Accept-Encoding mcp-x Origin Last-Event-ID Expect";
        let hop_by_hop =
            "connection Keep-Alive TE Trailer Transfer-Encoding Upgrade Proxy-Authorization proxy-connection";
        for name in own.split(' ').chain(hop_by_hop.split(' ')) {
            check(name, "x", Err(HeaderError::Reserved));
        }
        for name in ["Cookie", "User-Agent", "X-Forwarded-For", "Tea", "Origins", "Proxy"] {
            check(name, "x", Ok(()));
        }
        for value in ["a\nb", "a\rb", "a\0b", "\u{7f}"] {
            check("X-A", value, Err(HeaderError::Value));
        }
    }
}
