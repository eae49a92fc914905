//! Values of `Mcp-Name` and `Mcp-Param-*`: how a text is written as a header, and which arguments of a tool are.
//!
//! A modern request mirrors parts of its body in headers, so that what stands between client and server need not read the
//! body; whoever does read it has to compare the two. Which arguments are mirrored is said by `x-mcp-header` annotations
//! in the tool's input schema. Source: MCP 2026-07-28, streamable HTTP, "Request Metadata"; protocol.md 2.5, 2.6.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json::{JsonType, Member, Span, elements_of, members_of, text_of, type_of, whole_members_of};

const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";
/// The keyword that annotates a property.
const KEYWORD: &str = "x-mcp-header";
/// Integers that JavaScript holds exactly: ±(2^53 − 1).
const SAFE: f64 = 9_007_199_254_740_991.0;

/// Writes a text as a header value: as it is, or in Base64 where a header could not carry it unchanged.
#[must_use]
pub fn encode(text: &str) -> Cow<'_, str> {
    let plain =
        text.bytes().all(|b| matches!(b, 0x20..=0x7e)) && text.trim_matches(' ') == text && sentinel(text).is_none();
    if plain { Cow::Borrowed(text) } else { Cow::Owned(format!("{PREFIX}{}{SUFFIX}", STANDARD.encode(text))) }
}

/// Reads a header value; `None` for one that is not ASCII text, or claims to be Base64 of UTF-8 and is not.
#[must_use]
pub fn decode(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    match sentinel(text) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => text.bytes().all(|b| matches!(b, b'\t' | 0x20..=0x7e)).then_some(Cow::Borrowed(text)),
    }
}

/// What stands between the markers; `None` for a value that does not have both.
fn sentinel(text: &str) -> Option<&str> {
    text.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)
}

/// An argument that is mirrored in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The header's name in lower case, `mcp-param-` included.
    pub header: String,
    /// The keys that lead to the argument.
    path: Vec<String>,
}

/// An argument that cannot be written as a header value: an integer that JavaScript could not hold, or no plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmirrorable;

impl Annotation {
    /// The header value for these arguments, not yet encoded; `None` if the argument is absent or null.
    ///
    /// # Errors
    /// [`Unmirrorable`].
    pub fn value(&self, arguments: &[u8]) -> Result<Option<String>, Unmirrorable> {
        let Some(value) = self.find(arguments)? else { return Ok(None) };
        match type_of(value) {
            JsonType::Null => Ok(None),
            JsonType::String => text_of(value).map(|text| Some(text.into_owned())).ok_or(Unmirrorable),
            JsonType::Bool => Ok(std::str::from_utf8(value).ok().map(str::to_owned)),
            JsonType::Number => integer(value).map(|number| Some(format!("{number:.0}"))).ok_or(Unmirrorable),
            JsonType::Object | JsonType::Array => Err(Unmirrorable),
        }
    }

    /// Whether a decoded header value, or the lack of one, agrees with these arguments.
    #[must_use]
    pub fn agrees(&self, header: Option<&str>, arguments: &[u8]) -> bool {
        let Ok(value) = self.find(arguments) else { return false };
        match (header, value.filter(|value| type_of(value) != JsonType::Null)) {
            (None, None) => true,
            (Some(header), Some(value)) => match type_of(value) {
                // Numerically: `42.0` is 42.
                JsonType::Number => header.parse() == Ok(integer(value).unwrap_or(f64::NAN)),
                JsonType::String => text_of(value).is_some_and(|text| text == header),
                _ => value == header.as_bytes(),
            },
            _ => false,
        }
    }

    /// The argument as it is written.
    ///
    /// SECURITY: a member that occurs twice would be one thing to us and another to the server.
    fn find<'a>(&self, arguments: &'a [u8]) -> Result<Option<&'a [u8]>, Unmirrorable> {
        let mut at = arguments;
        for key in &self.path {
            let members = members_of(at, Span { start: 0, end: at.len() });
            let mut named = members.into_iter().filter(|(name, _)| name == key);
            let Some((_, value)) = named.next() else { return Ok(None) };
            if named.next().is_some() {
                return Err(Unmirrorable);
            }
            at = value.of(at);
        }
        Ok(Some(at))
    }
}

fn integer(value: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    // No negative zero: it would be written with its sign.
    (number.fract() == 0.0 && number.abs() <= SAFE).then_some(number + 0.0)
}

/// The annotations of an input schema, a JSON text.
///
/// # Errors
/// Why the annotations, and with them the tool, are not valid.
pub fn annotations(schema: &[u8]) -> Result<Vec<Annotation>, String> {
    let mut walk = Walk { schema, found: Vec::new(), names: HashSet::new(), places: Vec::new() };
    walk.subschema(Span { start: 0, end: schema.len() }, Some(&[]))?;
    Ok(walk.found)
}

/// A schema without its annotations, for clients whose server would not look for the headers; `None` if there are none.
#[must_use]
pub fn without_annotations(schema: &[u8]) -> Option<Vec<u8>> {
    let mut walk = Walk { schema, found: Vec::new(), names: HashSet::new(), places: Vec::new() };
    // Invalid ones are no reason to keep them; what was passed over behind one is harmless.
    let _ = walk.subschema(Span { start: 0, end: schema.len() }, Some(&[]));
    if walk.places.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(schema.len());
    let mut copied = 0;
    for (start, end) in walk.places {
        out.extend_from_slice(schema.get(copied..start).unwrap_or_default());
        copied = end;
    }
    out.extend_from_slice(schema.get(copied..).unwrap_or_default());
    Some(out)
}

/// Keywords whose value is a schema.
const SCHEMA: [&str; 11] = [
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const NAMED: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "dependencies"];

/// A schema being looked through. What is data in it (`const`, `enum`, `default`, `examples`) is passed over, as is every
/// keyword that is not known.
struct Walk<'a> {
    schema: &'a [u8],
    found: Vec<Annotation>,
    names: HashSet<String>,
    /// Where annotations stand, each with one of the commas beside it.
    places: Vec<(usize, usize)>,
}

impl Walk<'_> {
    /// Looks through one schema; `path` are the keys of `properties` that lead there, if nothing else does.
    fn subschema(&mut self, at: Span, path: Option<&[String]>) -> Result<(), String> {
        let members = whole_members_of(self.schema, at);
        for (position, member) in members.iter().enumerate() {
            let (key, value) = (member.key.as_ref(), member.value);
            if key == KEYWORD {
                self.note_place(&members, position);
                self.annotation(&members, value, path)?;
            } else if key == "properties" {
                for (name, property) in members_of(self.schema, value) {
                    let inner = path.map(|path| [path, &[name.into_owned()]].concat());
                    self.subschema(property, inner.as_deref())?;
                }
            } else {
                self.other(key, value)?;
            }
        }
        Ok(())
    }

    /// A keyword behind which an annotation makes the tool invalid.
    fn other(&mut self, key: &str, value: Span) -> Result<(), String> {
        match type_of(value.of(self.schema)) {
            JsonType::Object if SCHEMA.contains(&key) => self.subschema(value, None),
            JsonType::Object if NAMED.contains(&key) => {
                members_of(self.schema, value).into_iter().try_for_each(|(_, schema)| self.subschema(schema, None))
            }
            JsonType::Array if LIST.contains(&key) => {
                elements_of(self.schema, value).into_iter().try_for_each(|schema| self.subschema(schema, None))
            }
            _ => Ok(()),
        }
    }

    fn annotation(&mut self, property: &[Member<'_>], value: Span, path: Option<&[String]>) -> Result<(), String> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Err(format!("`{KEYWORD}` outside of a property that is reached through `properties` alone"));
        };
        let name = text_of(value.of(self.schema)).filter(|name| is_token(name));
        let name = name.ok_or_else(|| format!("`{KEYWORD}` that is no header name"))?.to_ascii_lowercase();
        let kind = property.iter().find(|member| member.key == "type").and_then(|m| text_of(m.value.of(self.schema)));
        if !matches!(kind.as_deref(), Some("string" | "integer" | "boolean")) {
            return Err(format!("`{KEYWORD}` on a property whose type is not string, integer or boolean"));
        }
        if !self.names.insert(name.clone()) {
            return Err(format!("`{KEYWORD}` twice with the same name"));
        }
        self.found.push(Annotation { header: format!("mcp-param-{name}"), path: path.to_vec() });
        Ok(())
    }

    fn note_place(&mut self, members: &[Member<'_>], position: usize) {
        let whole = |at: usize| members.get(at).map(|member| member.whole);
        let Some(own) = whole(position) else { return };
        let before = position.checked_sub(1).and_then(whole);
        self.places.push(match (before, whole(position + 1)) {
            (Some(before), _) => (before.end, own.end),
            (None, Some(after)) => (own.start, after.start),
            (None, None) => (own.start, own.end),
        });
    }
}

/// Whether a text can be (the end of) a header's name: `token` of RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_the_specification_shows_and_read_back() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(encode(text), expected);
            assert_eq!(decode(expected.as_bytes()).as_deref(), Some(text));
        }
        check("us-west1", "us-west1");
        check("a b  c", "a b  c");
        check("", "");
        check("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?=");
        check(" padded ", "=?base64?IHBhZGRlZCA=?=");
        check("line1\nline2", "=?base64?bGluZTEKbGluZTI=?=");
        check("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=");
        check("a\tb", "=?base64?YQli?=");
        check("=?base64?half", "=?base64?half");
        check("half?=", "half?=");
    }

    #[test]
    fn values_that_are_no_text_are_refused() {
        for value in
            ["=?base64?SGVsbG8?=", "=?base64?SGVs!G8=?=", "=?base64?/w==?=", "ü", "a\u{1}", "=?base64?SGVsbG9=?="]
        {
            assert_eq!(decode(value.as_bytes()), None, "{value}");
        }
        assert_eq!(decode(b"\xff"), None);
        assert_eq!(decode(b" \t padded \t").as_deref(), Some("padded"));
        assert_eq!(decode(b"=?base64??=").as_deref(), Some(""));
        assert_eq!(decode(b"=?BASE64?YQ==?=").as_deref(), Some("=?BASE64?YQ==?="));
    }

    const VALID: &str = r#"{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"x-mcp-header":{"type":"string"},
        "inner":{"type":"object","properties":{"n":{"x-mcp-header":"N","type":"integer"}}},"on":{"type":"boolean","x-mcp-header":"on!"},
        "data":{"default":{"x-mcp-header":"no"},"enum":[{"x-mcp-header":7}],"const":{"x-mcp-header":""},"examples":[{"x-mcp-header":""}]}}}"#;

    #[test]
    fn annotated_properties_are_found_and_data_is_no_annotation() {
        let found = annotations(VALID.as_bytes()).unwrap();
        let found: Vec<(String, String)> = found.into_iter().map(|a| (a.header, a.path.join("/"))).collect();
        let expected = [("mcp-param-region", "region"), ("mcp-param-n", "inner/n"), ("mcp-param-on!", "on")];
        assert_eq!(found, expected.map(|(header, path)| (header.to_owned(), path.to_owned())));
        assert_eq!(annotations(br#"{"type":"object"}"#), Ok(vec![]));
        assert_eq!(annotations(b"true"), Ok(vec![]));
    }

    #[test]
    fn annotations_that_break_a_rule_are_told() {
        #[track_caller]
        fn check(schema: &str, reason: &str) {
            let found = annotations(schema.as_bytes()).unwrap_err();
            assert!(found.contains(reason), "{schema}: {found}");
        }
        let property = |inside: &str| format!(r#"{{"properties":{{"a":{{{inside}}}}}}}"#);
        let string = r#""type":"string","x-mcp-header":"#;
        for name in [r#""""#, r#""a b""#, r#""a:b""#, r#""a\r\nb""#, r#""ü""#, "7", "null"] {
            check(&property(&format!("{string}{name}")), "no header name");
        }
        for kind in [r#""number""#, r#"["string"]"#, r#""object""#, "7"] {
            check(&property(&format!(r#""type":{kind},"x-mcp-header":"a""#)), "type is not");
        }
        check(&property(r#""x-mcp-header":"a""#), "type is not");
        let annotated = format!(r#"{{{string}"a"}}"#);
        check(&format!(r#"{{"properties":{{"a":{annotated},"b":{}}}}}"#, annotated.replace("\"a\"", "\"A\"")), "twice");
        check(&annotated, "outside of a property");
        for keyword in SCHEMA {
            check(&property(&format!(r#""{keyword}":{annotated}"#)), "outside of a property");
            check(&format!(r#"{{"{keyword}":{{"properties":{{"a":{annotated}}}}}}}"#), "outside of a property");
        }
        for keyword in LIST {
            check(&property(&format!(r#""{keyword}":[true,{annotated}]"#)), "outside of a property");
        }
        for keyword in NAMED {
            check(&format!(r#"{{"{keyword}":{{"x":{annotated}}}}}"#), "outside of a property");
        }
    }

    fn one(path: &[&str]) -> Annotation {
        Annotation { header: "mcp-param-a".to_owned(), path: path.iter().map(|&key| key.to_owned()).collect() }
    }

    #[test]
    fn arguments_become_header_values() {
        #[track_caller]
        fn check(arguments: &str, expected: Result<Option<&str>, Unmirrorable>) {
            let found = one(&["a"]).value(arguments.as_bytes());
            assert_eq!(found, expected.map(|value| value.map(str::to_owned)), "{arguments}");
        }
        check("{}", Ok(None));
        check(r#"{"a":null}"#, Ok(None));
        check(r#"{"b":{"a":"x"}}"#, Ok(None));
        check(r#"{"a":"\u00fc x"}"#, Ok(Some("ü x")));
        check(r#"{"a":""}"#, Ok(Some("")));
        check(r#"{"a":true}"#, Ok(Some("true")));
        check(r#"{"a":-7}"#, Ok(Some("-7")));
        check(r#"{"a":42.0}"#, Ok(Some("42")));
        check(r#"{"a":1e3}"#, Ok(Some("1000")));
        check(r#"{"a":-0}"#, Ok(Some("0")));
        check(r#"{"a":9007199254740991}"#, Ok(Some("9007199254740991")));
        for odd in ["9007199254740992", "-9007199254740993", "1e21", "1.5", "{}", "[1]", r#""\ud800""#] {
            check(&format!(r#"{{"a":{odd}}}"#), Err(Unmirrorable));
        }
        check(r#"{"a":1,"a":2}"#, Err(Unmirrorable));
        let nested = one(&["a", "b"]).value(br#"{"a":{"b":"x"}}"#);
        assert_eq!(nested, Ok(Some("x".to_owned())));
        assert_eq!(one(&["a", "b"]).value(br#"{"a":7}"#), Ok(None));
    }

    #[test]
    fn headers_are_compared_with_the_arguments() {
        #[track_caller]
        fn check(header: Option<&str>, arguments: &str, expected: bool) {
            assert_eq!(one(&["a"]).agrees(header, arguments.as_bytes()), expected, "{header:?} {arguments}");
        }
        check(None, "{}", true);
        check(None, r#"{"a":null}"#, true);
        check(None, r#"{"a":""}"#, false);
        check(Some(""), "{}", false);
        check(Some(""), r#"{"a":null}"#, false);
        check(Some(""), r#"{"a":""}"#, true);
        check(Some("ü"), r#"{"a":"\u00fc"}"#, true);
        check(Some("X"), r#"{"a":"x"}"#, false);
        check(Some("42"), r#"{"a":42.0}"#, true);
        check(Some("42.0"), r#"{"a":42}"#, true);
        check(Some("43"), r#"{"a":42}"#, false);
        check(Some("nan"), r#"{"a":1.5}"#, false);
        check(Some("true"), r#"{"a":true}"#, true);
        check(Some("TRUE"), r#"{"a":true}"#, false);
        check(Some("x"), r#"{"a":"x","a":"x"}"#, false);
    }

    #[test]
    fn annotations_are_taken_out_and_nothing_else() {
        let without = String::from_utf8(without_annotations(VALID.as_bytes()).unwrap()).unwrap();
        let expected = VALID
            .replace(r#","x-mcp-header":"Region""#, "")
            .replace(r#""x-mcp-header":"N","#, "")
            .replace(r#","x-mcp-header":"on!""#, "");
        assert_eq!(without, expected);
        assert_eq!(without_annotations(br#"{"properties":{"a":{"type":"string"}}}"#), None);
        let only = br#"{"properties":{"a":{ "x-mcp-header" : "A" }}}"#;
        assert_eq!(without_annotations(only).as_deref(), Some(&br#"{"properties":{"a":{  }}}"#[..]));
    }
}
