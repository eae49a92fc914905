//! Values of `Mcp-Name` and `Mcp-Param-*`: how a text is written as a header, and which arguments of a tool are.
//!
//! A modern request mirrors parts of its body in headers, so that what stands between client and server need not read the
//! body; whoever does read it has to compare the two. Which arguments are mirrored is said by `x-mcp-header` annotations
//! in the tool's input schema. Source: MCP 2026-07-28, streamable HTTP, "Request Metadata"; protocol.md 2.5, 2.6.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json::{JsonType, Member, Span, elements_of, members_of, text_of, type_of, whole_members_of};
use super::mcp::header::PARAM_PREFIX;
use super::splice::Splice;

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

/// An argument as it is written, if it is there.
pub type Argument<'a> = Result<Option<&'a [u8]>, Unmirrorable>;

/// Finds the annotated arguments, one for each annotation, in one pass.
///
/// SECURITY: a member that occurs twice would be one thing to us and another to the server.
#[must_use]
pub fn find<'a>(annotations: &[Annotation], arguments: &'a [u8]) -> Vec<Argument<'a>> {
    let mut found = vec![Ok(None); annotations.len()];
    let all: Vec<usize> = (0..annotations.len()).collect();
    if !all.is_empty() {
        find_within(annotations, &all, 0, (arguments, Span { start: 0, end: arguments.len() }), &mut found);
    }
    found
}

/// Finds those that lead through this value, at this many keys from the root.
fn find_within<'a>(
    annotations: &[Annotation],
    some: &[usize],
    depth: usize,
    (bytes, value): (&'a [u8], Span),
    found: &mut [Argument<'a>],
) {
    let key_of = |at: &usize| annotations.get(*at).and_then(|annotation| annotation.path.get(depth));
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in members_of(bytes, value) {
        let here: Vec<usize> = some.iter().copied().filter(|at| key_of(at).is_some_and(|key| *key == name)).collect();
        if here.is_empty() {
            continue;
        }
        let twice = seen.iter().any(|key| *key == name);
        let (ends, goes_on): (Vec<usize>, Vec<usize>) = here
            .into_iter()
            .partition(|at| twice || annotations.get(*at).is_some_and(|annotation| annotation.path.len() == depth + 1));
        for at in ends {
            if let Some(slot) = found.get_mut(at) {
                *slot = if twice { Err(Unmirrorable) } else { Ok(Some(value.of(bytes))) };
            }
        }
        if !goes_on.is_empty() {
            find_within(annotations, &goes_on, depth + 1, (bytes, value), found);
        }
        seen.push(name.into_owned());
    }
}

/// The header value for an argument, not yet encoded; `None` if it is absent or null.
///
/// # Errors
/// [`Unmirrorable`].
pub fn mirrored(argument: Argument<'_>) -> Result<Option<String>, Unmirrorable> {
    let Some(value) = argument? else { return Ok(None) };
    match type_of(value) {
        JsonType::Null => Ok(None),
        JsonType::String => text_of(value).map(|text| Some(text.into_owned())).ok_or(Unmirrorable),
        JsonType::Bool => Ok(std::str::from_utf8(value).ok().map(str::to_owned)),
        JsonType::Number => integer(value).map(|number| Some(format!("{number:.0}"))).ok_or(Unmirrorable),
        JsonType::Object | JsonType::Array => Err(Unmirrorable),
    }
}

/// Whether a decoded header value, or the lack of one, agrees with an argument.
#[must_use]
pub fn agrees(header: Option<&str>, argument: Argument<'_>) -> bool {
    let Ok(value) = argument else { return false };
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

/// A number, if it is an integer that a float holds exactly, however it is written.
pub(super) fn integer(value: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    // No negative zero: it would be written with its sign.
    (number.fract() == 0.0 && number.abs() <= SAFE).then_some(number + 0.0)
}

/// Annotations of one tool, and bytes of one's name and of the keys that lead to it: what is beyond makes the tool invalid,
/// because a server could make us work for each of them with every call.
const MOST: usize = 64;
const LONGEST: usize = 1024;
/// Deepest nesting of schemas that is looked into; what is deeper is passed over.
const DEEPEST: usize = 32;

/// The annotations of an input schema, a JSON text.
///
/// # Errors
/// Why the annotations, and with them the tool, are not valid.
pub fn annotations(schema: &[u8]) -> Result<Vec<Annotation>, String> {
    let walk = Walk::over(schema);
    walk.wrong.map_or(Ok(walk.found), Err)
}

/// A schema without its annotations, for clients whose server would not look for the headers; `None` if there are none.
#[must_use]
pub fn without_annotations(schema: &[u8]) -> Option<Vec<u8>> {
    let places = Walk::over(schema).places;
    if places.is_empty() {
        return None;
    }
    let mut splice = Splice::new(schema);
    for place in places {
        splice = splice.replace(place, b"");
    }
    Some(splice.build())
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
/// keyword that is not known, and what lies too deep.
struct Walk<'a> {
    schema: &'a [u8],
    found: Vec<Annotation>,
    /// The first rule that is broken.
    wrong: Option<String>,
    /// Where annotations stand, each with the comma that goes with it.
    places: Vec<Span>,
}

/// The keys of `properties` that lead to a schema.
#[derive(Clone, Copy)]
struct Path<'p> {
    key: &'p str,
    parent: Option<&'p Self>,
}

impl Path<'_> {
    fn keys(self) -> Vec<String> {
        let steps = std::iter::successors(Some(&self), |step| step.parent);
        let mut keys: Vec<String> = steps.map(|step| step.key.to_owned()).collect();
        keys.reverse();
        keys
    }

    fn bytes(self) -> usize {
        std::iter::successors(Some(&self), |step| step.parent).map(|step| step.key.len()).sum()
    }
}

/// How a schema was reached.
#[derive(Clone, Copy)]
enum Reached<'p> {
    Root,
    /// Through `properties` alone.
    Property(Path<'p>),
    /// Through something else.
    Otherwise,
}

impl<'a> Walk<'a> {
    fn over(schema: &'a [u8]) -> Self {
        let mut walk = Self { schema, found: Vec::new(), wrong: None, places: Vec::new() };
        walk.subschema(Span { start: 0, end: schema.len() }, Reached::Root, 0);
        walk
    }

    /// Looks through one schema.
    fn subschema(&mut self, at: Span, reached: Reached<'_>, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        let schema = self.schema;
        let members = whole_members_of(schema, at);
        self.note_places(&members);
        for member in &members {
            let (key, value) = (member.key.as_ref(), member.value);
            match key {
                KEYWORD => {
                    if let Err(wrong) = self.annotation(&members, value, reached) {
                        self.wrong.get_or_insert(wrong);
                    }
                }
                "properties" => {
                    for (name, property) in members_of(schema, value) {
                        let parent = match &reached {
                            Reached::Root => Some(None),
                            Reached::Property(path) => Some(Some(path)),
                            Reached::Otherwise => None,
                        };
                        let path = parent.map(|parent| Path { key: &name, parent });
                        self.subschema(property, path.map_or(Reached::Otherwise, Reached::Property), depth + 1);
                    }
                }
                _ => self.other(key, value, depth + 1),
            }
        }
    }

    /// A keyword behind which an annotation makes the tool invalid.
    fn other(&mut self, key: &str, value: Span, depth: usize) {
        let schemas = match type_of(value.of(self.schema)) {
            JsonType::Object if SCHEMA.contains(&key) => vec![value],
            JsonType::Object if NAMED.contains(&key) => {
                members_of(self.schema, value).into_iter().map(|(_, schema)| schema).collect()
            }
            JsonType::Array if LIST.contains(&key) => elements_of(self.schema, value),
            _ => Vec::new(),
        };
        for schema in schemas {
            self.subschema(schema, Reached::Otherwise, depth);
        }
    }

    fn annotation(&mut self, property: &[Member<'_>], value: Span, reached: Reached<'_>) -> Result<(), String> {
        let Reached::Property(path) = reached else {
            return Err(format!("`{KEYWORD}` outside of a property that is reached through `properties` alone"));
        };
        let name = text_of(value.of(self.schema)).filter(|name| is_token(name));
        let name = name.ok_or_else(|| format!("`{KEYWORD}` that is no header name"))?.to_ascii_lowercase();
        let kind =
            property.iter().rev().find(|member| member.key == "type").and_then(|m| text_of(m.value.of(self.schema)));
        if !matches!(kind.as_deref(), Some("string" | "integer" | "boolean")) {
            return Err(format!("`{KEYWORD}` on a property whose type is not string, integer or boolean"));
        }
        if self.found.len() == MOST || path.bytes() + name.len() > LONGEST {
            return Err(format!("more than {MOST} of `{KEYWORD}`, or one with more than {LONGEST} bytes of names"));
        }
        let header = format!("{PARAM_PREFIX}{name}");
        if self.found.iter().any(|known| known.header == header) {
            return Err(format!("`{KEYWORD}` twice with the same name"));
        }
        self.found.push(Annotation { header, path: path.keys() });
        Ok(())
    }

    /// Notes where the annotations of one schema stand: with the comma in front, or with the one behind where everything
    /// in front goes as well.
    fn note_places(&mut self, members: &[Member<'_>]) {
        let mut kept = false;
        for (position, member) in members.iter().enumerate() {
            if member.key != KEYWORD {
                kept = true;
                continue;
            }
            let before = position.checked_sub(1).and_then(|at| members.get(at)).filter(|_| kept);
            let after = members.get(position + 1).filter(|_| !kept);
            let start = before.map_or(member.whole.start, |before| before.whole.end);
            let end = after.map_or(member.whole.end, |after| after.whole.start);
            self.places.push(Span { start, end });
        }
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

    fn value(annotation: &Annotation, arguments: &[u8]) -> Result<Option<String>, Unmirrorable> {
        mirrored(find(std::slice::from_ref(annotation), arguments)[0])
    }

    #[test]
    fn several_arguments_are_found_in_one_pass() {
        let all = [one(&["a"]), one(&["b", "c"]), one(&["b", "d"]), one(&["none"]), one(&["twice"])];
        let arguments = br#"{"b":{"d":1,"c":"x"},"twice":1,"a":true,"twice":2}"#;
        let expected: [Argument<'_>; 5] =
            [Ok(Some(b"true")), Ok(Some(b"\"x\"")), Ok(Some(b"1")), Ok(None), Err(Unmirrorable)];
        assert_eq!(find(&all, arguments), expected);
    }

    #[test]
    fn what_would_cost_too_much_is_refused() {
        let property = |key: &str, name: &str| format!(r#""{key}":{{"type":"string","x-mcp-header":"{name}"}}"#);
        let many = |count: usize| (0..count).map(|n| property(&format!("k{n}"), &format!("n{n}"))).collect::<Vec<_>>();
        let schema = |properties: &[String]| format!(r#"{{"properties":{{{}}}}}"#, properties.join(","));
        assert_eq!(annotations(schema(&many(64)).as_bytes()).map(|found| found.len()), Ok(64));
        assert!(annotations(schema(&many(65)).as_bytes()).unwrap_err().starts_with("more than 64"));
        assert!(annotations(schema(&[property(&"k".repeat(1024), "n")]).as_bytes()).is_err());
        let deep = (0..40).fold(property("a", "n"), |inner, _| format!(r#""p":{{"properties":{{{inner}}}}}"#));
        assert_eq!(annotations(schema(&[deep]).as_bytes()), Ok(vec![]));
    }

    #[test]
    fn whatever_is_taken_out_the_rest_is_a_schema() {
        let members = [r#""x-mcp-header":"A""#, r#""x-mcp-header":7"#, r#""type":"string""#, r#""b":{}"#];
        for drawn in 0..4_usize.pow(4) {
            let some: Vec<&str> = (0..4).map(|at| members[drawn / 4_usize.pow(at) % 4]).collect();
            let schema = format!(r#"{{"properties":{{"a":{{{}}}}}}}"#, some.join(" , "));
            let without = without_annotations(schema.as_bytes()).unwrap_or_else(|| schema.clone().into_bytes());
            let left: serde_json::Value = serde_json::from_slice(&without).unwrap_or_else(|e| panic!("{e}: {schema}"));
            assert!(left["properties"]["a"].get("x-mcp-header").is_none(), "{schema}");
        }
    }

    #[test]
    fn arguments_become_header_values() {
        #[track_caller]
        fn check(arguments: &str, expected: Result<Option<&str>, Unmirrorable>) {
            let found = value(&one(&["a"]), arguments.as_bytes());
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
        let nested = value(&one(&["a", "b"]), br#"{"a":{"b":"x"}}"#);
        assert_eq!(nested, Ok(Some("x".to_owned())));
        assert_eq!(value(&one(&["a", "b"]), br#"{"a":7}"#), Ok(None));
        assert_eq!(value(&one(&["a", "b"]), br#"{"a":{"b":"x"},"a":{}}"#), Err(Unmirrorable));
    }

    #[test]
    fn headers_are_compared_with_the_arguments() {
        #[track_caller]
        fn check(header: Option<&str>, arguments: &str, expected: bool) {
            let found = find(&[one(&["a"])], arguments.as_bytes())[0];
            assert_eq!(agrees(header, found), expected, "{header:?} {arguments}");
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
