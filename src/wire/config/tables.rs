//! Reads the tables of clients, servers and grants, key by key.
//!
//! Knows every key of `[clients]`, `[mcp_servers]` and `[allow]` and what its value must look like.

use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::de::DeValue;

use super::problem::{Located, Problem, Report, join};
use super::secret::{Reference, Template, check_header_name, check_header_value};
use super::section::{Entry, Section, kind, strings};
use super::{AllowTable, ClientTable, GrantTable, Header, ProtocolPin, ServerTable, Token};
use crate::wire::endpoint::Endpoint;

/// What a grant may be, for messages.
const PATTERNS: &str = "a list of patterns";

/// Reads a table whose keys are names, each with a table of its own.
pub(super) fn named<'a, T>(
    entry: &Entry<'a>,
    expected: &str,
    report: &mut Report,
    read: impl Fn(Located<String>, Section<'a, '_>) -> T,
) -> Vec<T> {
    let Some(section) = Section::open("", entry, expected, report) else {
        return Vec::new();
    };
    let mut tables = Vec::new();
    for entry in section.entries() {
        let path = join(&section.path, entry.key);
        if let Some(reason) = bad_name(entry.key) {
            section.report.add(entry.start(), Problem::error(path, reason));
        }
        if let Some(table) = Section::open(&section.path, &entry, "a table", section.report) {
            tables.push(read(Located { value: entry.key.to_owned(), at: entry.start() }, table));
        }
    }
    tables
}

/// Why a text cannot be the name of a client or a server.
fn bad_name(name: &str) -> Option<&'static str> {
    (name.is_empty() || name.contains(char::is_control))
        .then_some("expected a name that is not empty and has no control characters")
}

pub(super) fn read_client(name: Located<String>, mut section: Section<'_, '_>) -> ClientTable {
    let s = &mut section;
    if name.value == "*" {
        s.report.add(name.at, Problem::error(s.path.clone(), "`*` means every client and cannot be the name of one"));
    }
    let token = read_token(s);
    let admin = s.flag("admin");
    let registered_known = s.entry("registered").is_some();
    let registered = if registered_known { s.instant("registered") } else { None };
    if let Some(admin) = admin.as_ref().filter(|admin| admin.value && registered_known) {
        let problem = Problem::error(join(&s.path, "admin"), "a client that registered itself cannot be an admin");
        s.report.add(admin.at, problem.with_hint(Some("remove `registered` to make it the operator's".to_owned())));
    }
    let client = ClientTable {
        name,
        token,
        admin: admin.is_some_and(|admin| admin.value),
        registered,
        valid_from: s.instant("valid_from"),
        label: s.text("label", "a string").map(|label| label.value.to_owned()),
    };
    section.finish();
    client
}

/// Reads the one of four keys that says how a client's token is known.
fn read_token(s: &mut Section<'_, '_>) -> Option<Located<Token>> {
    let text = |s: &mut Section<'_, '_>, key, expected, parse: fn(&str) -> Result<Token, String>| {
        let at = s.entry(key)?.at;
        Some((key, at, s.parsed(key, expected, parse)))
    };
    let sha256 = "the SHA-256 of a token in 64 hexadecimal digits";
    let forms = [
        text(s, "auth_token", "a token", |token| Ok(Token::Digest(Sha256::digest(token).into()))),
        text(s, "auth_token_sha256", sha256, |hex| {
            let wrong = "expected the SHA-256 of a token in 64 hexadecimal digits, found something else";
            digest(hex).map(Token::Digest).ok_or_else(|| wrong.to_owned())
        }),
        // A name that does not fit is not repeated: somebody may have put the token itself there.
        text(s, "auth_token_env", "the name of an environment variable", |name| {
            let wrong = "expected the name of an environment variable, found something else";
            Reference::env(name).map(Token::Reference).ok_or_else(|| wrong.to_owned())
        }),
        text(s, "auth_token_file", "the path of a file", |path| {
            let wrong = "expected the path of a file, found something else";
            Reference::file(path).map(Token::Reference).ok_or_else(|| wrong.to_owned())
        }),
    ];
    let mut given = forms.into_iter().flatten();
    let (first, at, token) = given.next()?;
    if let Some((second, at, _)) = given.next() {
        s.error(at, second, format!("expected one token, found `{first}` as well"));
        return Some(Located { value: Token::Wrong, at });
    }
    Some(Located { value: token.unwrap_or(Token::Wrong), at })
}

/// Decodes a SHA-256 from hexadecimal digits of either case.
fn digest(hex: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u32>> = hex.chars().map(|c| c.to_digit(16)).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().filter_map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect();
    if rest.is_empty() { bytes.try_into().ok() } else { None }
}

pub(super) fn read_server(name: Located<String>, mut section: Section<'_, '_>) -> ServerTable {
    let s = &mut section;
    for key in ["url", "from_client"] {
        if s.entry(key).is_none() {
            s.report.add(s.at, Problem::error(s.path.clone(), format!("missing key `{key}`")));
        }
    }
    let owned = |text: Located<&str>| Located { value: text.value.to_owned(), at: text.at };
    let registered_by = s.text("registered_by", "the name of a client").map(owned);
    let mut timeout = Duration::ZERO;
    s.seconds("timeout_seconds", 1..=365 * 24 * 60 * 60, &mut timeout);
    let pins = [("auto", ProtocolPin::Auto), ("modern", ProtocolPin::Modern), ("legacy", ProtocolPin::Legacy)];
    let server = ServerTable {
        name,
        endpoint: s.parsed("url", "a URL", |url| Endpoint::parse(url).map_err(|e| e.to_string())),
        owner: s.text("from_client", "the name of a client").map(owned),
        headers: read_headers(s),
        tool_prefix: s.parsed("tool_prefix", "a prefix", tool_prefix).unwrap_or_default(),
        timeout: (!timeout.is_zero()).then_some(timeout),
        protocol: s.choice("protocol", &pins).map_or(ProtocolPin::Auto, |pin| pin.value),
        registered_by,
    };
    section.finish();
    server
}

/// Tells whether a text can be put before tool names (MCP: `A–Z a–z 0–9 _ - . /`), and returns it.
///
/// # Errors
/// A message.
pub fn tool_prefix(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
    if text.len() <= 64 && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    let expected = "expected at most 64 letters, digits, `_`, `-`, `.` or `/`";
    Err(format!("{expected}, found `{}`", text.escape_debug()))
}

/// Reads the headers of a server. References are looked for only where the operator wrote the server: what came in
/// over REST must not be able to read the gateway's environment and files.
fn read_headers(s: &mut Section<'_, '_>) -> Vec<Header> {
    let operators = s.entry("registered_by").is_none();
    let Some(entry) = s.entry("headers") else {
        return Vec::new();
    };
    let Some(table) = Section::open(&s.path, &entry, "a table of headers", s.report) else {
        return Vec::new();
    };
    let mut headers: Vec<Header> = Vec::new();
    for entry in table.entries() {
        let known = |header: &Header| header.name.eq_ignore_ascii_case(entry.key);
        let value = if headers.iter().any(known) {
            Err("this header is given twice".to_owned())
        } else {
            read_header(&entry, operators)
        };
        match value {
            Ok(value) => headers.push(Header { name: entry.key.to_owned(), value: Located { value, at: entry.at } }),
            Err(message) => table.report.add(entry.at, Problem::error(join(&table.path, entry.key), message)),
        }
    }
    headers
}

fn read_header(entry: &Entry<'_>, operators: bool) -> Result<Template, String> {
    check_header_name(entry.key).map_err(|e| e.to_string())?;
    let DeValue::String(text) = entry.value else {
        return Err(format!("expected a header value, found {}", kind(entry.value)));
    };
    check_header_value(text).map_err(|e| e.to_string())?;
    if operators { Template::parse(text) } else { Ok(Template::plain(text)) }
}

pub(super) fn read_allow(server: Located<String>, section: Section<'_, '_>) -> AllowTable {
    let mut grants = Vec::new();
    for entry in section.entries() {
        let client = Located { value: entry.key.to_owned(), at: entry.start() };
        match entry.value {
            DeValue::Table(_) => {
                if let Some(table) = Section::open(&section.path, &entry, PATTERNS, section.report) {
                    grants.push(read_grant(client, table));
                }
            }
            _ => match strings(&entry) {
                Ok(list) => {
                    let tools = patterns(list);
                    grants.push(GrantTable {
                        client,
                        tools,
                        deny: Vec::new(),
                        prompts: Vec::new(),
                        resources: Vec::new(),
                    });
                }
                Err((at, found)) => {
                    let path = join(&section.path, entry.key);
                    section.report.add(at, Problem::error(path, format!("expected {PATTERNS}, found {found}")));
                }
            },
        }
    }
    AllowTable { server, grants }
}

/// Reads the table form of a grant.
fn read_grant(client: Located<String>, mut section: Section<'_, '_>) -> GrantTable {
    let mut list = |key| section.list(key, PATTERNS).map(patterns).unwrap_or_default();
    let (tools, deny, prompts, resources) = (list("tools"), list("deny"), list("prompts"), list("resources"));
    section.finish();
    GrantTable { client, tools, deny, prompts, resources }
}

fn patterns(list: Vec<Located<&str>>) -> Vec<Located<Box<str>>> {
    list.into_iter().map(|text| Located { value: text.value.into(), at: text.at }).collect()
}
