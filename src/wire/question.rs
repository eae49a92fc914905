//! What servers ask clients for, and what clients answer, as each era and revision has it.
//!
//! A legacy server sends a JSON-RPC request of its own; a modern one answers with `inputRequests`, a map of such requests
//! without ids, and gets `inputResponses` when the request is made again. Here one becomes the other; who is asked, and
//! when, is the business of `gateway`. What has the same meaning on both sides keeps its bytes; values that come as bytes
//! were scanned before. Source: protocol.md 1.7, 4.3, 4.4; `ElicitRequest`, `CreateMessageRequest` and `ListRootsRequest`
//! of the schemas.

use std::borrow::Cow;
use std::collections::HashSet;

use hyper::body::Bytes;

use super::json::{JsonType, Span, elements_of, member, members_of, text_of, type_of, whole_members_of, write_text};
use super::jsonrpc::{Envelope, ErrorObject, result_head, result_message};
use super::mcp::{ClientCapabilities, IDENTITY, ProtocolVersion, code, meta, method};
use super::splice::{Splice, object_of};

/// An elicitation that its user has ended without an answer.
const CANCEL: &[u8] = br#"{"action":"cancel"}"#;
/// An elicitation that its user has refused.
const DECLINE: &[u8] = br#"{"action":"decline"}"#;

/// Members of `_meta` that belong to the side from which a question came.
const OWN_META: [&str; 2] = ["progressToken", "io.modelcontextprotocol/related-task"];

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// One of the three methods with which a server may ask.
    pub method: &'static str,
    /// Whether it is an elicitation that wants a form filled in, and so data back.
    pub form: bool,
    /// What a client needs to answer it.
    pub needed: ClientCapabilities,
}

impl Asked {
    /// Reads a question, a JSON-RPC request or a value of `inputRequests`; `None` if it is none that a server may ask.
    #[must_use]
    pub fn of(question: &[u8]) -> Option<Self> {
        let name = member(question, "method").and_then(text_of)?;
        let method = [method::ELICIT, method::SAMPLE, method::ROOTS].into_iter().find(|known| *known == name)?;
        let params = member(question, "params").unwrap_or_default();
        let mode = member(params, "mode").map(|mode| text_of(mode).unwrap_or_default());
        let has_tools = ["tools", "toolChoice"].into_iter().any(|name| member(params, name).is_some());
        let needed = ClientCapabilities::needed_for(method, mode.as_deref(), has_tools)?;
        Some(Self { method, form: method == method::ELICIT && mode.as_deref() != Some("url"), needed })
    }
}

/// A question as a modern client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What it is about.
    pub asked: Asked,
    /// A value of `inputRequests`: `{"method":…,"params":…}`.
    pub value: Vec<u8>,
}

/// A legacy server's request as a modern client gets it; `None` if it is none that a server may make.
#[must_use]
pub fn legacy_to_modern(request: &Envelope) -> Option<Question> {
    let method = request.method()?;
    let params = request.params_span().map_or(&b"{}"[..], |params| params.of(request.bytes()));
    let value = modern(&method, params);
    Some(Question { asked: Asked::of(&value)?, value })
}

/// Writes a value of `inputRequests` from the method and parameters of a legacy request.
fn modern(method: &str, params: &[u8]) -> Vec<u8> {
    let opens_url = member(params, "mode").and_then(text_of).is_some_and(|mode| mode == "url");
    let params = remade(params, |key, value| match key {
        "task" => Fate::Goes,
        "elicitationId" if method == method::ELICIT && opens_url => Fate::Goes,
        "_meta" => match remade(value, |key, _| if OWN_META.contains(&key) { Fate::Goes } else { Fate::Stays }) {
            Cow::Owned(empty) if empty == b"{}" => Fate::Goes,
            rest => Fate::to(rest),
        },
        _ => Fate::Stays,
    });
    let mut value = b"{\"method\":".to_vec();
    write_text(&mut value, method);
    value.extend_from_slice(b",\"params\":");
    value.extend_from_slice(&params);
    value.push(b'}');
    value
}

/// A modern server's question, a value of `inputRequests`, as a request to a client of this legacy revision; `None` if it is
/// none that a server may ask. A client that is to open a URL is told `elicitation_id` for that.
#[must_use]
pub fn modern_to_legacy(question: &[u8], id: &str, version: ProtocolVersion, elicitation_id: &str) -> Option<Vec<u8>> {
    let asked = Asked::of(question)?;
    let mut request = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    write_text(&mut request, id);
    request.extend_from_slice(b",\"method\":");
    write_text(&mut request, asked.method);
    if let Some(params) = member(question, "params").filter(|params| type_of(params) == JsonType::Object) {
        let opens_url = asked.method == method::ELICIT && !asked.form;
        let params = legacy_params(asked, params, version);
        let params = if opens_url { with_elicitation_id(&params, elicitation_id).into() } else { params };
        request.extend_from_slice(b",\"params\":");
        request.extend_from_slice(&params);
    }
    request.push(b'}');
    Some(request)
}

fn with_elicitation_id(params: &[u8], id: &str) -> Vec<u8> {
    let mut named = b"\"elicitationId\":".to_vec();
    write_text(&mut named, id);
    let members = whole_members_of(params, whole(params));
    let others = members.iter().filter(|member| member.key != "elicitationId").map(|member| member.whole.of(params));
    object_of(others.chain([named.as_slice()]))
}

/// A legacy server's request as a client of this legacy revision gets it, under another `id`.
#[must_use]
pub fn legacy_to_legacy(request: &Envelope, id: &str, version: ProtocolVersion) -> Vec<u8> {
    let bytes = request.bytes();
    let mut new_id = Vec::new();
    write_text(&mut new_id, id);
    let params = Asked::of(bytes.trim_ascii_start()).zip(request.params_span());
    let params = params.map(|(asked, span)| (span, legacy_params(asked, span.of(bytes), version)));
    let splice = Splice::new(bytes).replace_if(request.id_span(), &new_id);
    match &params {
        Some((span, Cow::Owned(new))) => splice.replace(*span, new).build(),
        _ => splice.build(),
    }
}

/// The parameters of a question as a client of this legacy revision reads them. URLs are opened only by clients that say
/// so, which know of modes then, whatever their revision.
fn legacy_params(asked: Asked, params: &[u8], version: ProtocolVersion) -> Cow<'_, [u8]> {
    let is_old = version < ProtocolVersion::V2025_11_25;
    remade(params, |key, value| match key {
        "task" => Fate::Goes,
        "mode" if is_old && asked.form => Fate::Goes,
        "requestedSchema" if is_old && asked.form => Fate::to(old_form(value)),
        "tools" | "toolChoice" if is_old && asked.method == method::SAMPLE => Fate::Goes,
        _ => Fate::Stays,
    })
}

/// The schema of a form as clients before 2025-11-25 read it.
fn old_form(schema: &[u8]) -> Cow<'_, [u8]> {
    remade(schema, |key, value| match key {
        "properties" => Fate::to(remade(value, |_, field| Fate::to(old_choice(field)))),
        _ => Fate::Stays,
    })
}

/// A choice whose options have titles (`oneOf`), the way it was written before 2025-11-25: `enum` and `enumNames`.
fn old_choice(field: &[u8]) -> Cow<'_, [u8]> {
    if ["enum", "enumNames"].into_iter().any(|name| member(field, name).is_some()) {
        return Cow::Borrowed(field);
    }
    remade(field, |key, value| match key {
        "oneOf" => old_options(value).map_or(Fate::Stays, Fate::Becomes),
        _ => Fate::Stays,
    })
}

/// A list of options with titles as the members `enum` and `enumNames`; `None` if it is something else, or empty.
fn old_options(list: &[u8]) -> Option<Vec<u8>> {
    let string = |option, name| member(option, name).filter(|value| type_of(value) == JsonType::String);
    let options = elements_of(list, whole(list)).into_iter().map(|option| option.of(list));
    let options = options.map(|option| Some((string(option, "const")?, string(option, "title")?)));
    let (constants, titles): (Vec<_>, Vec<_>) = options.collect::<Option<_>>()?;
    let (constants, titles) = (constants.join(&b","[..]), titles.join(&b","[..]));
    (!constants.is_empty()).then(|| [b"\"enum\":[", constants.as_slice(), b"],\"enumNames\":[", &titles, b"]"].concat())
}

/// The questions of a modern server's result that is not complete: key and value of each, in order. Of a key that repeats
/// the last counts.
#[must_use]
pub fn questions_of(response: &Envelope) -> Vec<(Cow<'_, str>, &[u8])> {
    let requests = response.result().and_then(|result| member(result, "inputRequests")).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut questions = members_of(requests, whole(requests));
    questions.reverse();
    questions.retain(|(key, _)| seen.insert(key.clone()));
    questions.into_iter().rev().map(|(key, value)| (key, value.of(requests))).collect()
}

/// Writes `inputResponses`: the answer to each question, a JSON text, under the question's key.
#[must_use]
pub fn input_responses(answers: &[(String, Bytes)]) -> Vec<u8> {
    map(answers.iter().map(|(key, answer)| (key.as_str(), answer.as_ref())))
}

/// Writes the response in which a modern client is asked: the id as it is written, key and value of each question, and a
/// `state`, a JSON string, that is wanted back with the answers.
#[must_use]
pub fn input_required(id: &[u8], questions: &[(String, Vec<u8>)], state: Option<&[u8]>) -> Vec<u8> {
    let mut out = result_head(id);
    out.extend_from_slice(b"{\"resultType\":\"input_required\",\"_meta\":{\"");
    out.extend_from_slice([meta::SERVER_INFO, "\":", IDENTITY, "}"].concat().as_bytes());
    if !questions.is_empty() {
        out.extend_from_slice(b",\"inputRequests\":");
        out.extend_from_slice(&map(questions.iter().map(|(key, value)| (key.as_str(), value.as_slice()))));
    }
    if let Some(state) = state {
        out.extend_from_slice(b",\"requestState\":");
        out.extend_from_slice(state);
    }
    out.extend_from_slice(b"}}");
    out
}

/// Writes an object whose values are JSON texts.
fn map<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let members = entries.map(|(key, value)| {
        let mut member = Vec::with_capacity(key.len() + value.len() + 3);
        write_text(&mut member, key);
        member.push(b':');
        member.extend_from_slice(value);
        member
    });
    let members: Vec<Vec<u8>> = members.collect();
    object_of(members.iter().map(Vec::as_slice))
}

/// Whether an answer, a JSON value that was scanned before, has the shape of a result of `method`; `form` tells of an
/// elicitation whether it wants data. Whether these fit the form is left to the server.
#[must_use]
pub fn fits(method: &str, form: bool, answer: &[u8]) -> bool {
    let is = |name: &str, expected: JsonType| member(answer, name).is_some_and(|value| type_of(value) == expected);
    match method {
        method::ELICIT => match member(answer, "action").and_then(text_of).as_deref() {
            Some("accept") => !form || is("content", JsonType::Object),
            Some("decline" | "cancel") => true,
            _ => false,
        },
        method::SAMPLE => ["role", "model", "content"].into_iter().all(|name| member(answer, name).is_some()),
        method::ROOTS => is("roots", JsonType::Array),
        _ => false,
    }
}

/// The response that a legacy server gets to a question that nobody will answer any more.
#[must_use]
pub fn cancel_answer(method: &str, id: &[u8]) -> Vec<u8> {
    let error = match method {
        method::ELICIT => return result_message(id, CANCEL),
        method::SAMPLE => ErrorObject::new(code::REJECTED, "user rejected sampling request"),
        _ => ErrorObject::new(code::INTERNAL_ERROR, format!("no answer to `{method}`")),
    };
    error.to_message(Some(id))
}

/// The answer that a modern server gets in the place of a legacy client's error: an elicitation has an action for it, which
/// is a refusal if the error says so; for other questions there is none.
#[must_use]
pub fn refused_answer(method: &str, error: &ErrorObject) -> Option<Vec<u8>> {
    let action = if error.code == code::REJECTED { DECLINE } else { CANCEL };
    (method == method::ELICIT).then(|| action.to_vec())
}

/// What a legacy server wants opened first, by the `data` of its error -32042, as key and value of `inputRequests`; `None`
/// if it names nothing, or something that cannot be opened.
#[must_use]
pub fn elicitations_of(error_data: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let list = member(error_data, "elicitations")?;
    let elicitations = elements_of(list, whole(list)).into_iter().zip(1..).map(|(params, number)| {
        let params = params.of(list);
        let is_text = |name| member(params, name).is_some_and(|value| type_of(value) == JsonType::String);
        let opens_url = member(params, "mode").and_then(text_of)? == "url" && is_text("url") && is_text("message");
        opens_url.then(|| (format!("q{number}"), modern(method::ELICIT, params)))
    });
    elicitations.collect::<Option<Vec<_>>>().filter(|elicitations| !elicitations.is_empty())
}

/// What happens to a member of an object.
enum Fate {
    Stays,
    Goes,
    /// It keeps its key and gets this value.
    Takes(Vec<u8>),
    /// This comes in its place, one member or several.
    Becomes(Vec<u8>),
}

impl Fate {
    /// Of a member whose value may have changed.
    fn to(value: Cow<'_, [u8]>) -> Self {
        match value {
            Cow::Borrowed(_) => Self::Stays,
            Cow::Owned(new) => Self::Takes(new),
        }
    }
}

/// An object with another fate for some of its members, by key and value; the same bytes if all of them stay, as for a value
/// that is no object.
fn remade<'a>(object: &'a [u8], fate: impl Fn(&str, &'a [u8]) -> Fate) -> Cow<'a, [u8]> {
    let mut same = true;
    let mut parts: Vec<Cow<'_, [u8]>> = Vec::new();
    for member in whole_members_of(object, whole(object)) {
        let fate = fate(&member.key, member.value.of(object));
        same &= matches!(fate, Fate::Stays);
        match fate {
            Fate::Stays => parts.push(member.whole.of(object).into()),
            Fate::Goes => {}
            Fate::Takes(value) => {
                let key = Span { start: member.whole.start, end: member.value.start }.of(object);
                parts.push([key, value.as_slice()].concat().into());
            }
            Fate::Becomes(part) => parts.push(part.into()),
        }
    }
    if same { Cow::Borrowed(object) } else { object_of(parts.iter().map(AsRef::as_ref)).into() }
}

/// All of a value.
fn whole(value: &[u8]) -> Span {
    Span { start: 0, end: value.len() }
}

#[cfg(test)]
mod tests {
    use super::super::jsonrpc::{Kind, Sender};
    use super::*;

    const OLD: ProtocolVersion = ProtocolVersion::V2025_06_18;
    const NEW: ProtocolVersion = ProtocolVersion::V2025_11_25;

    fn parse(text: &str) -> Envelope {
        Envelope::parse(Bytes::copy_from_slice(text.as_bytes()), 64, Sender::Server).unwrap()
    }

    fn text(bytes: Vec<u8>) -> String {
        serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn capabilities(object: &str) -> ClientCapabilities {
        ClientCapabilities::parse(object.as_bytes())
    }

    #[test]
    fn a_question_says_what_a_client_needs_to_answer_it() {
        for (method, params, form, needed) in [
            ("elicitation/create", r#"{"message":"?"}"#, true, r#"{"elicitation":{"form":{}}}"#),
            ("elicitation/create", r#"{"mode":"form","tools":[]}"#, true, r#"{"elicitation":{"form":{}}}"#),
            ("elicitation/create", r#"{"mode":"form","m\u006fde":"url"}"#, false, r#"{"elicitation":{"url":{}}}"#),
            ("sampling/createMessage", r#"{"mode":"x","includeContext":"allServers"}"#, false, r#"{"sampling":{}}"#),
            ("sampling/createMessage", r#"{"toolChoice":{}}"#, false, r#"{"sampling":{"tools":{}}}"#),
            ("sampling/createMessage", r#"{"tools":[]}"#, false, r#"{"sampling":{"tools":{}}}"#),
            ("roots/list", "null", false, r#"{"roots":{}}"#),
        ] {
            let asked = Asked::of(format!(r#"{{ "params":{params},"method":"{method}"}}"#).as_bytes());
            let expected = Asked { method: asked.unwrap().method, form, needed: capabilities(needed) };
            assert_eq!((asked, expected.method), (Some(expected), method), "{params}");
        }
        for odd in [
            r#"{"method":"tools/call","params":{}}"#,
            r#"{"method":7}"#,
            r#"{"params":{}}"#,
            r#"{"method":"elicitation/create","params":{"mode":"voice"}}"#,
            r#"{"method":"elicitation/create","params":{"mode":1}}"#,
            r#"["roots/list"]"#,
            "7",
        ] {
            assert_eq!(Asked::of(odd.as_bytes()), None, "{odd}");
        }
    }

    /// The parameters of a legacy request, and those of the modern question.
    #[track_caller]
    fn check_modern(method: &str, params: &str, expected: &str) {
        let question = legacy_to_modern(&parse(&format!(
            r#" {{"params":{params},"id":3, "method":"{method}","jsonrpc":"2.0"}} "#
        )));
        let question = question.unwrap();
        assert_eq!(text(question.value), format!(r#"{{"method":"{method}","params":{expected}}}"#), "{params}");
        assert_eq!(question.asked.method, method);
    }

    #[test]
    fn legacy_requests_become_questions() {
        let form = r#"{ "mode" : "form","message":"\u00e9","requestedSchema":{"x": [1.0, 1e21]}, "elicitationId":"e"}"#;
        check_modern("elicitation/create", form, form);
        let samples = r#"{"messages":[ ],"maxTokens":1E2,"includeContext":"none","_meta":{ "x":1}}"#;
        check_modern("sampling/createMessage", samples, samples);
        check_modern("roots/list", "{}", "{}");
        check_modern("roots/list", "null", "{}");
        let url = r#"{"mode":"url","message":"m","url":"u","elicitationId":"e","x":0}"#;
        check_modern("elicitation/create", url, r#"{"mode":"url","message":"m","url":"u","x":0}"#);
        let own = r#""progressToken":1,"io.modelcontextprotocol/related-task":{"taskId":"t"}"#;
        check_modern("roots/list", &format!(r#"{{"task":{{"ttl":1}}, "_meta" : {{{own}}}}}"#), "{}");
        check_modern(
            "sampling/createMessage",
            &format!(r#"{{"a":[ 1 ], "_meta" : {{"v/x": 1.0,{own}}},"b":2}}"#),
            r#"{"a":[ 1 ],"_meta" : {"v/x": 1.0},"b":2}"#,
        );
        check_modern("roots/list", r#"{"_meta":{}}"#, r#"{"_meta":{}}"#);
        check_modern("roots/list", r#"{"_meta":{"progress\u0054oken":1,"progressToken":2}}"#, "{}");
        let absent = legacy_to_modern(&parse(r#"{"jsonrpc":"2.0","id":"a","method":"roots/list"}"#)).unwrap();
        assert_eq!(text(absent.value), r#"{"method":"roots/list","params":{}}"#);
        for odd in [r#""method":"ping""#, r#""method":"elicitation/create","params":{"mode":"x"}"#, r#""result":{}"#] {
            assert_eq!(legacy_to_modern(&parse(&format!(r#"{{"jsonrpc":"2.0","id":1,{odd}}}"#))), None, "{odd}");
        }
    }

    /// The parameters of a question as a legacy client gets them, from a modern server and from a legacy one.
    #[track_caller]
    fn check_legacy(method: &str, params: &str, version: ProtocolVersion, expected: &str) {
        let question = format!(r#"{{ "params":{params},"method":"{method}" }}"#);
        let request = modern_to_legacy(question.as_bytes(), "gw-\"1\"", version, "ours").unwrap();
        assert_eq!(parse(&text(request.clone())).kind(), Ok(Kind::Request));
        let head = format!(r#"{{"jsonrpc":"2.0","id":"gw-\"1\"","method":"{method}","params":"#);
        assert_eq!(text(request), format!("{head}{expected}}}"), "{params}");
        check_relayed(method, params, version, expected);
    }

    #[track_caller]
    fn check_relayed(method: &str, params: &str, version: ProtocolVersion, expected: &str) {
        let message = |id: &str, params: &str| {
            format!(r#" {{ "id" : {id},"odd":[ ],"params":{params}, "method":"{method}","jsonrpc":"2.0"}}"#)
        };
        let relayed = legacy_to_legacy(&parse(&message("41", params)), "gw-\"1\"", version);
        assert_eq!(text(relayed), message(r#""gw-\"1\"""#, expected), "{params}");
    }

    #[test]
    fn clients_of_the_newest_legacy_revision_get_questions_as_they_are() {
        let choice = r#"{"oneOf":[{"const":"a","title":"A"}]}"#;
        let form = format!(r#"{{ "mode":"form","requestedSchema":{{"properties":{{"c": {choice}}}}},"n":1.0}}"#);
        check_legacy("elicitation/create", &form, NEW, &form);
        let sampling = r#"{ "messages":[],"tools":[ ],"toolChoice":{}, "_meta":{"progressToken":7}}"#;
        check_legacy("sampling/createMessage", sampling, NEW, sampling);
        check_legacy("roots/list", "{ }", NEW, "{ }");
        check_legacy("roots/list", r#"{"task":{},"x":1}"#, NEW, r#"{"x":1}"#);
    }

    #[test]
    fn older_clients_get_forms_without_mode_and_sampling_without_tools() {
        for version in ProtocolVersion::ALL.into_iter().filter(|version| *version < NEW) {
            check_legacy("elicitation/create", r#"{"mode":"form", "message" : "m"}"#, version, r#"{"message" : "m"}"#);
            let sampling = r#"{"tools":[],"messages":[ 1.0 ],"toolChoice":null,"mode":"x"}"#;
            check_legacy("sampling/createMessage", sampling, version, r#"{"messages":[ 1.0 ],"mode":"x"}"#);
            check_legacy("roots/list", r#"{"mode":"form"}"#, version, r#"{"mode":"form"}"#);
        }
    }

    #[test]
    fn older_clients_get_titled_choices_in_the_old_form() {
        let form = |field: &str| {
            format!(
                r#"{{"requestedSchema":{{ "type":"object","properties" : {{"n":{{"minimum":1.0}},"f":{field}}}}}}}"#
            )
        };
        let changed = |field: &str| form(field).replace("{ \"type\"", "{\"type\"");
        let titled = r#"{"type":"string", "oneOf" : [ {"const":"\u0061","title":"A"},{"title":"B","x":1,"const":"b"}],"default":"b"}"#;
        let old = r#"{"type":"string","enum":["\u0061","b"],"enumNames":["A","B"],"default":"b"}"#;
        check_legacy("elicitation/create", &form(titled), OLD, &changed(old));
        for other in [
            r#"{ "oneOf":[]}"#,
            r#"{ "oneOf":{"const":"a","title":"A"}}"#,
            r#"{ "oneOf":[{"const":"a","title":"A"},{"const":"b"}]}"#,
            r#"{ "oneOf":[{"const":1,"title":"A"}]}"#,
            r#"{ "oneOf":[{"const":"a","title":"A"}],"enum":["a"]}"#,
            r#"{ "type":"array","items":{"anyOf":[{"const":"a","title":"A"}]}}"#,
            r#"[{"oneOf":[{"const":"a","title":"A"}]}]"#,
            "true",
        ] {
            check_legacy("elicitation/create", &form(other), OLD, &form(other));
        }
        let elsewhere =
            r#"{"oneOf":[{"const":"a","title":"A"}],"requestedSchema":{"oneOf":[{"const":"a","title":"A"}]}}"#;
        check_legacy("elicitation/create", elsewhere, OLD, elsewhere);
    }

    #[test]
    fn who_is_to_open_a_url_is_told_an_id_for_it() {
        for version in [OLD, NEW] {
            let ours = |params: &str| {
                let question = format!(r#"{{"method":"elicitation/create","params":{params}}}"#);
                text(modern_to_legacy(question.as_bytes(), "1", version, "o\"urs").unwrap())
            };
            let head = r#"{"jsonrpc":"2.0","id":"1","method":"elicitation/create","params":"#;
            let expected = format!(r#"{head}{{"mode":"url","url": "u","elicitationId":"o\"urs"}}}}"#);
            assert_eq!(ours(r#"{"mode":"url", "url": "u"}"#), expected);
            assert_eq!(ours(r#"{"elicitationId":"x","mode":"url","url": "u"}"#), expected);
            let theirs = r#"{ "mode":"url","elicitationId":"theirs"}"#;
            check_relayed("elicitation/create", theirs, version, theirs);
        }
    }

    #[test]
    fn a_legacy_client_gets_no_other_requests_and_no_parameters_where_there_are_none() {
        let legacy = |question: &str| modern_to_legacy(question.as_bytes(), "1", NEW, "e").map(text);
        let bare = r#"{"jsonrpc":"2.0","id":"1","method":"roots/list"}"#;
        assert_eq!(legacy(r#"{"method":"roots/list"}"#).as_deref(), Some(bare));
        assert_eq!(legacy(r#"{"method":"roots/list","params":null}"#).as_deref(), Some(bare));
        for odd in [r#"{"method":"tools/call"}"#, "[]", r#"{"method":"elicitation/create","params":{"mode":"x"}}"#] {
            assert_eq!(legacy(odd), None, "{odd}");
        }
        let relayed = legacy_to_legacy(&parse(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#), "1", OLD);
        assert_eq!(text(relayed), bare);
        check_relayed("x/y", r#"{"task":1,"mode":"form"}"#, OLD, r#"{"task":1,"mode":"form"}"#);
    }

    #[test]
    fn the_questions_of_a_result_are_read_in_order() {
        let of = |result: &str| {
            let response = parse(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
            let questions = questions_of(&response).into_iter();
            let questions =
                questions.map(|(key, value)| (key.into_owned(), String::from_utf8(value.to_vec()).unwrap()));
            questions.collect::<Vec<_>>()
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let some = r#"{"inputRequests":{"z": {"a":1.0},"b\"":{ }, "":[] },"resultType":"input_required"}"#;
        assert_eq!(of(some), [pair("z", r#"{"a":1.0}"#), pair("b\"", "{ }"), pair("", "[]")]);
        assert_eq!(of(r#"{"inputRequests":{"a":1,"b":2,"\u0061":3}}"#), [pair("b", "2"), pair("a", "3")]);
        assert_eq!(of(r#"{"inputRequests":{"a":1},"inputRequests":{"b":2}}"#), [pair("b", "2")]);
        for none in ["{}", r#"{"inputRequests":{}}"#, r#"{"inputRequests":[1]}"#, "7"] {
            assert_eq!(of(none), [], "{none}");
        }
    }

    #[test]
    fn answers_and_questions_are_written_under_their_keys() {
        let answer = |key: &str, value: &'static str| (key.to_owned(), Bytes::from_static(value.as_bytes()));
        assert_eq!(text(input_responses(&[])), "{}");
        let both = [answer("k\n\"", r#"{ "action":"cancel"}"#), answer("\u{e9}", r#"{"roots":[1.0]}"#)];
        let expected = "{\"k\\n\\\"\":{ \"action\":\"cancel\"},\"\u{e9}\":{\"roots\":[1.0]}}";
        assert_eq!(text(input_responses(&both)), expected);
        let info = format!(r#""_meta":{{"{}":{IDENTITY}}}"#, meta::SERVER_INFO);
        let head = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{{"resultType":"input_required",{info}"#);
        let questions = [("q1".to_owned(), br#"{"method":"roots/list","params":{}}"#.to_vec())];
        let requests = r#""inputRequests":{"q1":{"method":"roots/list","params":{}}}"#;
        let state = Some(&b"\"s\""[..]);
        for (questions, state, expected) in [
            (&questions[..], state, format!(r#"{head},{requests},"requestState":"s"}}}}"#)),
            (&questions, None, format!("{head},{requests}}}}}")),
            (&[], state, format!(r#"{head},"requestState":"s"}}}}"#)),
        ] {
            assert_eq!(text(input_required(b"\"x\"", questions, state)), expected);
        }
        let asked = parse(&text(input_required(b"1", &questions, None)));
        assert_eq!(questions_of(&asked), [(Cow::Borrowed("q1"), questions[0].1.as_slice())]);
    }

    #[test]
    fn answers_have_the_shape_of_results() {
        let (elicit, sample, roots) = (method::ELICIT, method::SAMPLE, method::ROOTS);
        for (method, form, answer, expected) in [
            (elicit, true, r#"{"action":"accept","content":{}}"#, true),
            (elicit, true, r#"{"action":"accept"}"#, false),
            (elicit, true, r#"{"action":"accept","content":[]}"#, false),
            (elicit, false, r#"{"action":"accept"}"#, true),
            (elicit, true, r#"{"action":"d\u0065cline"}"#, true),
            (elicit, true, r#"{"action":"cancel","x":1}"#, true),
            (elicit, false, r#"{"action":"yes"}"#, false),
            (elicit, false, r#"{"action":null}"#, false),
            (elicit, false, "{}", false),
            (elicit, false, r#""accept""#, false),
            (sample, false, r#"{"role":"assistant","model":"m","content":{"type":"text"}}"#, true),
            (sample, false, r#"{"role":"assistant","model":"m","content":[]}"#, true),
            (sample, false, r#"{"role":"assistant","model":"m"}"#, false),
            (sample, false, r#"{"role":"assistant","content":{}}"#, false),
            (sample, false, r#"{"model":"m","content":{}}"#, false),
            (sample, false, r#"["role","model","content"]"#, false),
            (roots, false, r#"{"roots":[]}"#, true),
            (roots, false, r#"{"roots":{}}"#, false),
            (roots, false, "[]", false),
            ("tools/call", false, r#"{"roots":[]}"#, false),
        ] {
            assert_eq!(fits(method, form, answer.as_bytes()), expected, "{method} {form} {answer}");
        }
    }

    #[test]
    fn questions_that_nobody_answers_are_ended() {
        for (method, expected) in [
            (method::ELICIT, r#""result":{"action":"cancel"}"#),
            (method::SAMPLE, r#""error":{"code":-1,"message":"user rejected sampling request"}"#),
            (method::ROOTS, r#""error":{"code":-32603,"message":"no answer to `roots/list`"}"#),
        ] {
            let answer = text(cancel_answer(method, b"\"u\""));
            assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":"u",{expected}}}"#));
        }
        for (method, code, expected) in [
            (method::ELICIT, code::INTERNAL_ERROR, Some(r#"{"action":"cancel"}"#)),
            (method::ELICIT, code::REJECTED, Some(r#"{"action":"decline"}"#)),
            (method::SAMPLE, code::REJECTED, None),
            (method::ROOTS, code::INTERNAL_ERROR, None),
        ] {
            let answer = refused_answer(method, &ErrorObject::new(code, "no")).map(text);
            assert_eq!(answer.as_deref(), expected, "{method} {code}");
            assert!(answer.is_none_or(|answer| fits(method, true, answer.as_bytes())));
        }
    }

    #[test]
    fn urls_that_a_server_wants_opened_first_become_questions() {
        let of = |list: &str| elicitations_of(format!(r#"{{"x":1,"elicitations":{list}}}"#).as_bytes());
        let url = r#"{"mode":"url","elicitationId":"e","url": "https://x/","message":"m"}"#;
        let question =
            br#"{"method":"elicitation/create","params":{"mode":"url","url": "https://x/","message":"m"}}"#.to_vec();
        let expected = vec![("q1".to_owned(), question.clone()), ("q2".to_owned(), question.clone())];
        assert_eq!(of(&format!("[ {url} , {url}]")), Some(expected));
        assert!(Asked::of(&question).unwrap().needed.opens_urls());
        for odd in ["[]", "{}", "null", "[7]", r#"[{"mode":"form","url":"u","message":"m"}]"#] {
            assert_eq!(of(odd), None, "{odd}");
        }
        for (key, odd) in [("\"mode\":", "\"x\":"), ("\"url\":", "\"x\":"), ("\"message\":\"m\"", "\"message\":1")] {
            assert_eq!(of(&format!("[{url},{}]", url.replace(key, odd))), None, "{key}");
        }
        assert_eq!(elicitations_of(b"{}"), None);
        assert_eq!(elicitations_of(b"\"elicitations\""), None);
    }
}
