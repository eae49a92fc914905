//! The bodies of REST requests and, in `answer`, of the answers.
//!
//! Knows their shapes (design 7) and says of a request what was expected and what was found, with the path of the member. What a
//! request means, and whether it is allowed, is decided by `policy::edit`.

pub mod answer;
pub mod query;

use std::fmt;

use super::config::{check_header_name, check_header_value, join, tool_prefix};
use super::endpoint::Endpoint;
use super::json::{Duplicates, JsonError, JsonType, Scanner, text_of, type_of};

/// Deepest nesting of a body.
const DEPTH: usize = 16;
/// Longest label and longest name of a client that is taken, in characters.
const LONGEST_LABEL: usize = 100;
const LONGEST_NAME: usize = 256;
/// Longest name of a server, in characters.
const LONGEST_SERVER: usize = 40;
/// Longest pattern, in bytes, as in the file; and how many a list may have.
const LONGEST_PATTERN: usize = 1024;
const MOST_PATTERNS: usize = 1_000;
/// Most headers of a server, longest URL and header value, and all of the headers together, in bytes.
const MOST_HEADERS: usize = 32;
const LONGEST_VALUE: usize = 4096;
const LONGEST_HEADERS: usize = 8192;

/// Why a body cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is no JSON that may be read.
    NotJson(JsonError),
    /// It has another shape than the endpoint expects: where, and what was expected and found.
    Shape(String),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(error) => write!(f, "expected a JSON body: {error}"),
            Self::Shape(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for BodyError {}

/// `POST /register_mcp_server`.
#[derive(Debug, PartialEq, Eq)]
pub struct RegisterServer {
    /// Where the server lives, as it was written.
    pub url: String,
    /// The same, parsed.
    pub endpoint: Endpoint,
    /// The name it is to have.
    pub name: Option<String>,
    /// Headers sent to it.
    pub headers: Vec<(String, String)>,
    /// What is put before its tools' names.
    pub tool_prefix: Option<String>,
}

/// `POST /update_access_control`.
#[derive(Debug, PartialEq, Eq)]
pub struct UpdateAccess {
    /// Whose access.
    pub client: String,
    /// Patterns by server, in the order of the body.
    pub access: Vec<(String, Vec<String>)>,
}

/// Reads the body of a request that needs none: nothing, or `{}`.
///
/// # Errors
/// [`BodyError`].
pub fn nothing(body: &[u8]) -> Result<(), BodyError> {
    Members::read_optional(body)?.finish()
}

/// Reads the body of `POST /register_client`: a label for people, or none.
///
/// # Errors
/// [`BodyError`].
pub fn register_client(body: &[u8]) -> Result<Option<String>, BodyError> {
    let mut members = Members::read_optional(body)?;
    let label = members.text("label")?;
    members.finish()?;
    label.map(|label| name("label", label, LONGEST_LABEL)).transpose()
}

/// Reads a body with the name of one thing: `{"client_id": …}` or `{"server_id": …}`.
///
/// # Errors
/// [`BodyError`].
pub fn id(body: &[u8], key: &'static str) -> Result<String, BodyError> {
    let mut members = Members::read(body)?;
    let id = members.needed(key)?;
    members.finish()?;
    name(key, id, LONGEST_NAME)
}

/// Reads the body of `POST /register_mcp_server`.
///
/// # Errors
/// [`BodyError`].
pub fn register_server(body: &[u8]) -> Result<RegisterServer, BodyError> {
    let mut members = Members::read(body)?;
    let url = members.needed("url")?;
    let server = RegisterServer {
        endpoint: Endpoint::parse(&url).map_err(|e| shape("url", e))?,
        url: short("url", url)?,
        name: members.text("name")?.map(server_name).transpose()?,
        headers: headers(members.take("headers"))?,
        tool_prefix: members
            .text("tool_prefix")?
            .map(|p| tool_prefix(&p).map_err(|e| shape("tool_prefix", e)))
            .transpose()?,
    };
    members.finish()?;
    Ok(server)
}

/// Reads the body of `POST /update_access_control`.
///
/// # Errors
/// [`BodyError`].
pub fn update_access(body: &[u8]) -> Result<UpdateAccess, BodyError> {
    let mut members = Members::read(body)?;
    let client = name("client_id", members.needed("client_id")?, LONGEST_NAME)?;
    let access = match members.take("server_access") {
        Some(Value::Object(access)) => access,
        other => return Err(expected("server_access", "an object of servers and patterns", other.as_ref())),
    };
    members.finish()?;
    let patterns = |(server, value): (String, Value)| {
        Ok((name("server_access", server.clone(), LONGEST_NAME)?, patterns(&server, value)?))
    };
    Ok(UpdateAccess { client, access: access.into_iter().map(patterns).collect::<Result<_, BodyError>>()? })
}

/// A list of patterns; a string is a list of one.
fn patterns(server: &str, value: Value) -> Result<Vec<String>, BodyError> {
    let path = join("server_access", server);
    let items = match value {
        Value::Text(one) => vec![Value::Text(one)],
        Value::List(items) => items,
        other => return Err(expected(&path, "a pattern or a list of patterns", Some(&other))),
    };
    if items.len() > MOST_PATTERNS {
        return Err(shape(&path, format!("expected at most {MOST_PATTERNS} patterns, found {}", items.len())));
    }
    let pattern = |item| match item {
        // SECURITY: no name has one, and they would forge lines where patterns are shown.
        Value::Text(text) if text.contains(is_unseen) => {
            Err(shape(&path, "expected patterns without control characters"))
        }
        Value::Text(text) if text.len() <= LONGEST_PATTERN => Ok(text),
        Value::Text(_) => {
            Err(shape(&path, format!("expected patterns of at most {LONGEST_PATTERN} bytes, found a longer one")))
        }
        other => Err(expected(&path, "a list of patterns", Some(&other))),
    };
    items.into_iter().map(pattern).collect()
}

/// The headers of a server.
///
/// SECURITY: `${` would read like a reference to the gateway's environment or files to whoever looks at the file.
fn headers(value: Option<Value>) -> Result<Vec<(String, String)>, BodyError> {
    let headers = match value {
        None => return Ok(Vec::new()),
        Some(Value::Object(headers)) if headers.len() <= MOST_HEADERS => headers,
        Some(Value::Object(headers)) => {
            return Err(shape("headers", format!("expected at most {MOST_HEADERS} headers, found {}", headers.len())));
        }
        other => return Err(expected("headers", "an object of headers", other.as_ref())),
    };
    let mut read: Vec<(String, String)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let path = join("headers", &name);
        check_header_name(&name).map_err(|e| shape(&path, e))?;
        if read.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name)) {
            return Err(shape(&path, "this header is given twice"));
        }
        let Value::Text(value) = value else { return Err(expected(&path, "a string", Some(&value))) };
        check_header_value(&value).map_err(|e| shape(&path, e))?;
        if value.contains("${") {
            return Err(shape(
                &path,
                "expected a value without `${`, which stands for something in the operator's file only",
            ));
        }
        read.push((name, short(&path, value)?));
    }
    let bytes: usize = read.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > LONGEST_HEADERS {
        return Err(shape("headers", format!("expected at most {LONGEST_HEADERS} bytes, found {bytes}")));
    }
    Ok(read)
}

fn server_name(text: String) -> Result<String, BodyError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=LONGEST_SERVER).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text);
    }
    let wanted = format!("expected 1 to {LONGEST_SERVER} letters, digits, `.`, `_` or `-`");
    Err(shape("name", format!("{wanted}, found `{}`", text.chars().take(80).collect::<String>().escape_debug())))
}

fn name(path: &str, text: String, longest: usize) -> Result<String, BodyError> {
    let fits = !text.is_empty() && text.chars().count() <= longest && !text.contains(is_unseen);
    if fits {
        Ok(text)
    } else {
        Err(shape(path, format!("expected 1 to {longest} characters, none of them a control character")))
    }
}

/// Characters that control how what stands around them is shown: control characters, line separators, and those that
/// turn the direction of a text.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn short(path: &str, text: String) -> Result<String, BodyError> {
    let fits = text.len() <= LONGEST_VALUE;
    if fits {
        Ok(text)
    } else {
        Err(shape(path, format!("expected at most {LONGEST_VALUE} bytes, found {}", text.len())))
    }
}

fn shape(path: &str, problem: impl fmt::Display) -> BodyError {
    BodyError::Shape(format!("{path}: {problem}"))
}

fn expected(path: &str, what: &str, found: Option<&Value>) -> BodyError {
    shape(path, format!("expected {what}, found {}", found.map_or("nothing", Value::kind)))
}

/// A JSON value, as far as bodies have them.
enum Value {
    Object(Vec<(String, Self)>),
    List(Vec<Self>),
    Text(String),
    /// Something that no body has.
    Other(&'static str),
}

impl Value {
    /// Reads a whole body.
    ///
    /// SECURITY: a member that occurs twice is refused at every level, so that nobody in between can have read another.
    fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let read = || {
            let mut scanner = Scanner::new(body, DEPTH, Duplicates::Refused)?;
            let value = Self::next(&mut scanner, body)?;
            scanner.end().map(|()| value)
        };
        read().map_err(BodyError::NotJson)
    }

    fn next(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Self, JsonError> {
        match scanner.peek() {
            Some(b'{') => {
                let mut members = Vec::new();
                scanner.object(|s, key| {
                    members.push((key.into_owned(), Self::next(s, body)?));
                    Ok(())
                })?;
                Ok(Self::Object(members))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                scanner.array(|s| {
                    items.push(Self::next(s, body)?);
                    Ok(())
                })?;
                Ok(Self::List(items))
            }
            _ => scanner.value().map(|span| Self::plain(span.of(body))),
        }
    }

    fn plain(value: &[u8]) -> Self {
        match type_of(value) {
            JsonType::String => {
                text_of(value).map_or(Self::Other("a string with half a character"), |t| Self::Text(t.into_owned()))
            }
            JsonType::Number => Self::Other("a number"),
            JsonType::Bool => Self::Other("a boolean"),
            JsonType::Null | JsonType::Object | JsonType::Array => Self::Other("null"),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Object(_) => "an object",
            Self::List(_) => "a list",
            Self::Text(_) => "a string",
            Self::Other(kind) => kind,
        }
    }
}

/// The members of a body, taken out one by one; what is left in the end is unknown.
struct Members(Vec<(String, Value)>);

impl Members {
    fn read(body: &[u8]) -> Result<Self, BodyError> {
        match Value::parse(body)? {
            Value::Object(members) => Ok(Self(members)),
            other => Err(BodyError::Shape(format!("expected an object, found {}", other.kind()))),
        }
    }

    fn read_optional(body: &[u8]) -> Result<Self, BodyError> {
        if body.is_empty() { Ok(Self(Vec::new())) } else { Self::read(body) }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(at).1)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, BodyError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            other => Err(expected(key, "a string", other.as_ref())),
        }
    }

    fn needed(&mut self, key: &str) -> Result<String, BodyError> {
        self.text(key)?.ok_or_else(|| expected(key, "a string", None))
    }

    fn finish(self) -> Result<(), BodyError> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => {
                let shown: String = key.chars().take(80).collect();
                Err(BodyError::Shape(format!("unknown member `{}`", shown.escape_debug())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused<T: fmt::Debug>(read: impl Fn(&[u8]) -> Result<T, BodyError>, body: &str, expected: &str) {
        assert_eq!(read(body.as_bytes()).unwrap_err().to_string(), expected, "{body}");
    }

    #[test]
    fn a_body_that_is_not_needed_may_be_missing_but_not_wrong() {
        assert_eq!(nothing(b""), Ok(()));
        assert_eq!(nothing(b" {} "), Ok(()));
        assert_eq!(register_client(b""), Ok(None));
        assert_eq!(register_client(br#"{"label":"CI \u00fc"}"#), Ok(Some("CI ü".to_owned())));
        refused(nothing, r#"{"a":1}"#, "unknown member `a`");
        refused(nothing, "[]", "expected an object, found a list");
        refused(nothing, " ", "expected a JSON body: expected a JSON value at byte 1");
        refused(register_client, r#"{"label":null}"#, "label: expected a string, found null");
        let wrong = "label: expected 1 to 100 characters, none of them a control character";
        refused(register_client, r#"{"label":"a\nb"}"#, wrong);
        refused(register_client, r#"{"label":""}"#, wrong);
        refused(register_client, r#"{"label":"a\u202eb"}"#, wrong);
        refused(register_client, &format!(r#"{{"label":"{}"}}"#, "ü".repeat(101)), wrong);
    }

    #[test]
    fn what_is_no_json_is_told_from_what_has_the_wrong_shape() {
        assert!(matches!(id(b"{", "server_id"), Err(BodyError::NotJson(_))));
        assert!(matches!(id(b"\xff", "server_id"), Err(BodyError::NotJson(_))));
        assert!(matches!(id(br#"{"server_id":"a","server_id":"b"}"#, "server_id"), Err(BodyError::NotJson(_))));
        assert!(matches!(id(br#"{"server_id":"a","s\u0065rver_id":"b"}"#, "server_id"), Err(BodyError::NotJson(_))));
        assert!(matches!(id("[".repeat(17).as_bytes(), "server_id"), Err(BodyError::NotJson(_))));
        assert!(matches!(id(b"{}", "server_id"), Err(BodyError::Shape(_))));
        refused(
            |b| id(b, "server_id"),
            r#"{"server_id":"\ud800"}"#,
            "server_id: expected a string, found a string with half a character",
        );
    }

    #[test]
    fn a_server_is_read_whole() {
        let body =
            r#"{"url":"http://h:1/mcp?k=1","name":"my.Server_1-","headers":{"X-Key":"a b"},"tool_prefix":"gh_"}"#;
        let server = register_server(body.as_bytes()).unwrap();
        assert_eq!((server.url.as_str(), server.name.as_deref()), ("http://h:1/mcp?k=1", Some("my.Server_1-")));
        assert_eq!(server.headers, [("X-Key".to_owned(), "a b".to_owned())]);
        assert_eq!((server.tool_prefix.as_deref(), server.endpoint.port), (Some("gh_"), 1));
    }

    #[test]
    fn what_no_server_has_is_refused() {
        let check = |members: &str, expected: &str| {
            refused(register_server, &format!(r#"{{"url":"http://h/"{members}}}"#), expected);
        };
        let name = "name: expected 1 to 40 letters, digits, `.`, `_` or `-`, found ";
        check(r#","name":"""#, &format!("{name}``"));
        check(r#","name":"a b""#, &format!("{name}`a b`"));
        check(r#","name":"*""#, &format!("{name}`*`"));
        check(&format!(r#","name":"{}""#, "a".repeat(41)), &format!("{name}`{}`", "a".repeat(41)));
        check(r#","name":1"#, "name: expected a string, found a number");
        check(r#","headers":[]"#, "headers: expected an object of headers, found a list");
        check(r#","headers":{"X-A":1}"#, "headers.X-A: expected a string, found a number");
        check(r#","headers":{"X-A":"1","x-a":"2"}"#, "headers.x-a: this header is given twice");
        check(
            r#","headers":{"X-A":"${env:HOME}"}"#,
            "headers.X-A: expected a value without `${`, which stands for something in the operator's file only",
        );
        check(
            r#","tool_prefix":"a b""#,
            "tool_prefix: expected at most 64 letters, digits, `_`, `-`, `.` or `/`, found `a b`",
        );
        check(r#","from_client":"alice""#, "unknown member `from_client`");
        for header in
            ["Host", "content-length", "Content-Type", "Transfer-Encoding", "Connection", "Accept", "Mcp-Session-Id"]
        {
            assert!(
                register_server(format!(r#"{{"url":"http://h/","headers":{{"{header}":"x"}}}}"#).as_bytes()).is_err(),
                "{header}"
            );
        }
        for value in ["a\\r\\nB: c", "a\\nb", "\\u0000"] {
            assert!(
                register_server(format!(r#"{{"url":"http://h/","headers":{{"X-A":"{value}"}}}}"#).as_bytes()).is_err(),
                "{value}"
            );
        }
        refused(register_server, r#"{"url":"file:///etc/passwd"}"#, "url: expected a URL like `http://host:port/mcp`");
        refused(register_server, r#"{"url":"ftp://h/"}"#, "url: expected an `http` or `https` URL");
        refused(register_server, "{}", "url: expected a string, found nothing");
    }

    #[test]
    fn a_string_is_one_pattern_and_nothing_else_is_taken_apart() {
        let read =
            update_access(br#"{"client_id":"bob","server_access":{"b":"tool_*","a":["x","y"],"c":[]}}"#).unwrap();
        let expected = [("b", vec!["tool_*"]), ("a", vec!["x", "y"]), ("c", vec![])];
        let expected = expected.map(|(s, p)| (s.to_owned(), p.into_iter().map(str::to_owned).collect::<Vec<_>>()));
        assert_eq!(read.access, expected);
        let check = |access: &str, expected: &str| {
            refused(update_access, &format!(r#"{{"client_id":"bob","server_access":{access}}}"#), expected);
        };
        check("[]", "server_access: expected an object of servers and patterns, found a list");
        check(r#"{"a":1}"#, "server_access.a: expected a pattern or a list of patterns, found a number");
        check(r#"{"a":{"tools":["*"]}}"#, "server_access.a: expected a pattern or a list of patterns, found an object");
        check(r#"{"a":["x",null]}"#, "server_access.a: expected a list of patterns, found null");
        check(r#"{"a":[["x"]]}"#, "server_access.a: expected a list of patterns, found a list");
        check(
            &format!(r#"{{"a":"{}"}}"#, "a".repeat(1025)),
            "server_access.a: expected patterns of at most 1024 bytes, found a longer one",
        );
        refused(
            update_access,
            r#"{"client_id":"bob"}"#,
            "server_access: expected an object of servers and patterns, found nothing",
        );
        refused(update_access, r#"{"server_access":{}}"#, "client_id: expected a string, found nothing");
    }
}
