//! Requests and results as the era of the other side has them.
//!
//! What the eras say differently is replaced, everything else keeps its bytes: arguments, schemas and results lose no digit
//! and no unknown member on their way through. Source: protocol.md 3.8, 4.2, 4.6.

use std::borrow::Cow;
use std::time::Duration;

use hyper::body::Bytes;

use super::json::{JsonType, Member, Span, elements_of, members_of, text_of, type_of, whole_members_of, write_text};
use super::jsonrpc::{Envelope, Found, Meta, Param, ResultMember, result_message};
use super::mcp::{ClientCapabilities, Era, IDENTITY, LogLevel, MODERN, Operation, ProtocolVersion, meta};
use super::question::Asked;
use super::splice::{Splice, object_of};

/// Keys of a request's `_meta` that are the gateway's to write.
const REQUEST_KEYS: [&str; 5] =
    [meta::PROTOCOL_VERSION, meta::CLIENT_INFO, meta::CLIENT_CAPABILITIES, meta::LOG_LEVEL, "progressToken"];
/// Keys of a result's `_meta` that legacy clients do not know.
const RESULT_KEYS: [&str; 2] = [meta::SERVER_INFO, meta::SUBSCRIPTION_ID];

/// Whoever is behind a request, as the server is told.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The era in which the client speaks.
    pub era: Era,
    /// From which level on it wants log messages.
    pub level: Option<LogLevel>,
    /// What it can be asked for through the gateway.
    pub capabilities: ClientCapabilities,
}

/// What goes back to a modern server of what it has asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// What the server has given out itself for the request, a JSON string.
    pub state: Option<&'a [u8]>,
    /// The answers to its questions, an object, where the client did not send them with its request.
    pub responses: Option<&'a [u8]>,
}

/// How a request is sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// What is asked for.
    pub operation: Operation,
    /// The server's own name for the tool or prompt that it is about, or its own id of the task.
    pub name: &'a str,
    /// Who asks.
    pub asker: Asker,
    /// What goes back to the server.
    pub inputs: Inputs<'a>,
    /// As which era has it.
    pub server: Era,
}

/// A client's request as its server gets it: with the gateway's own `id`, which is the progress token too, and the server's
/// own name for what it is about.
#[must_use]
pub fn request(envelope: &Envelope, id: u64, sent: Sent<'_>) -> Vec<u8> {
    let Sent { operation, name: own_name, asker, inputs, server } = sent;
    let id = id.to_string();
    let mut name = Vec::new();
    let named = name_span(envelope, operation);
    if named.and_then(|span| text_of(span.of(envelope.bytes()))).is_some_and(|name| name != own_name) {
        write_text(&mut name, own_name);
    }
    let new_meta = request_meta(envelope, &id, asker, server);
    // Nobody is sent the first, and the others are something between modern clients and servers.
    // SECURITY: a modern server takes all clients for the same, so that no state may reach it which was not opened here.
    let dropped: &[Param] = match (asker.era, server) {
        (Era::Modern, Era::Modern) if inputs.state.is_none() => &[Param::Task, Param::RequestState],
        (Era::Modern, Era::Modern) => &[Param::Task],
        _ => &[Param::Task, Param::InputResponses, Param::RequestState],
    };
    let splice = Splice::new(envelope.bytes()).replace_if(envelope.id_span(), id.as_bytes());
    let drops = dropped.iter().any(|param| envelope.param_span(*param).is_some());
    if drops || inputs.responses.is_some() {
        let is_dropped = |key: &str| dropped.iter().any(|param| param.name() == key);
        let renamed = named.filter(|_| !name.is_empty()).map(|span| (span, name.as_slice()));
        let params = params_anew(envelope, is_dropped, renamed, inputs, new_meta.as_deref());
        return splice.replace_if(envelope.params_span(), &params).build();
    }
    let renamed = named.filter(|_| !name.is_empty());
    let restated = envelope.param_span(Param::RequestState).filter(|_| inputs.state.is_some());
    let splice = splice.replace_if(renamed, &name).replace_if(restated, inputs.state.unwrap_or_default());
    let Some(new_meta) = new_meta else {
        return splice.replace_if(envelope.meta_span(Meta::ProgressToken), id.as_bytes()).build();
    };
    match (envelope.meta_member_span(), envelope.params_span()) {
        (Some(meta), _) => splice.replace(meta, &new_meta).build(),
        (None, Some(params)) => {
            let at = Span { start: params.start + 1, end: params.start + 1 };
            let comma = if is_empty(envelope.bytes(), params) { "" } else { "," };
            splice.replace(at, &[b"\"_meta\":", new_meta.as_slice(), comma.as_bytes()].concat()).build()
        }
        (None, None) => splice.build(),
    }
}

/// Where a request says by name what it is about; a resource has the same URI everywhere.
fn name_span(envelope: &Envelope, operation: Operation) -> Option<Span> {
    match operation {
        Operation::Call | Operation::Get => envelope.param_span(Param::Name),
        Operation::Read => None,
        Operation::Complete => match reference(envelope)? {
            Reference::Prompt(name) => Some(name),
            Reference::Resource(_) => None,
        },
        Operation::GetTask | Operation::UpdateTask | Operation::CancelTask => envelope.param_span(Param::TaskId),
    }
}

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A prompt; where its name stands.
    Prompt(Span),
    /// A resource or template; where its URI stands.
    Resource(Span),
}

/// What a request for a completion is about; `None` for what is neither a prompt nor a resource, names both, or says
/// anything twice.
///
/// SECURITY: of two names one would be authorised, and the server might take the other.
#[must_use]
pub fn reference(envelope: &Envelope) -> Option<Reference> {
    let bytes = envelope.bytes();
    let mut found = [None; 3];
    for (key, value) in members_of(bytes, envelope.param_span(Param::Ref)?) {
        let place = ["type", "name", "uri"].iter().position(|name| *name == key);
        if place.and_then(|place| found.get_mut(place)).is_some_and(|slot| slot.replace(value).is_some()) {
            return None;
        }
    }
    let is_text = |value: &Span| type_of(value.of(bytes)) == JsonType::String;
    let [kind, name, uri] = found.map(|value: Option<Span>| value.filter(is_text));
    match (text_of(kind?.of(bytes))?.as_ref(), name, uri) {
        ("ref/prompt", Some(name), None) => Some(Reference::Prompt(name)),
        ("ref/resource", None, Some(uri)) => Some(Reference::Resource(uri)),
        _ => None,
    }
}

/// Whether an object that is known to be one has no members.
fn is_empty(bytes: &[u8], object: Span) -> bool {
    bytes.get(object.start + 1..).is_some_and(|inside| inside.trim_ascii_start().starts_with(b"}"))
}

/// The value of a member; of several of this name the last.
fn last_of(members: &[(Cow<'_, str>, Span)], name: &str) -> Option<Span> {
    members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
}

/// `params` put together from its members, some of them left out, and with another name, inputs and `_meta` where there are
/// such.
fn params_anew(
    envelope: &Envelope,
    is_dropped: impl Fn(&str) -> bool,
    renamed: Option<(Span, &[u8])>,
    inputs: Inputs<'_>,
    new_meta: Option<&[u8]>,
) -> Vec<u8> {
    let bytes = envelope.bytes();
    let named = |key: &str, value: &[u8]| Cow::Owned([b"\"", key.as_bytes(), b"\":", value].concat());
    let members = envelope.params_span().map(|params| whole_members_of(bytes, params)).unwrap_or_default();
    let added = new_meta.filter(|_| envelope.meta_member_span().is_none()).map(|meta| named("_meta", meta));
    // What the gateway answers for a client stands in the place of whatever that sent by these names.
    let replaces = |key: &str| inputs.responses.is_some() && matches!(key, "inputResponses" | "requestState");
    let kept = members.iter().filter(|member| !is_dropped(&member.key) && !replaces(&member.key)).map(|member| {
        if let Some((span, name)) = renamed.filter(|(span, _)| member.whole.range().contains(&span.start)) {
            let [before, behind] = [(member.whole.start, span.start), (span.end, member.whole.end)]
                .map(|(start, end)| Span { start, end }.of(bytes));
            return Cow::Owned([before, name, behind].concat());
        }
        match (member.key.as_ref(), new_meta, inputs.state) {
            ("_meta", Some(meta), _) => named("_meta", meta),
            ("requestState", _, Some(state)) => named("requestState", state),
            _ => Cow::Borrowed(member.whole.of(bytes)),
        }
    });
    let responses = inputs.responses.map(|responses| named("inputResponses", responses));
    let state = inputs.state.filter(|_| inputs.responses.is_some()).map(|state| named("requestState", state));
    let parts: Vec<Cow<'_, [u8]>> = added.into_iter().chain(kept).chain(responses).chain(state).collect();
    object_of(parts.iter().map(AsRef::as_ref))
}

/// The `_meta` of a request as the server gets it; `None` if it stays, but for the progress token.
fn request_meta(envelope: &Envelope, id: &str, asker: Asker, server: Era) -> Option<Vec<u8>> {
    if asker.era == Era::Legacy && server == Era::Legacy {
        return None;
    }
    let mut front = match server {
        Era::Legacy => Vec::new(),
        Era::Modern => modern_meta(asker.level, asker.capabilities),
    };
    if envelope.meta_span(Meta::ProgressToken).is_some() {
        let comma = if front.is_empty() { "" } else { "," };
        front.extend_from_slice(&[comma, "\"progressToken\":", id].concat().into_bytes());
    }
    Some(meta_of(envelope.bytes(), envelope.meta_object_span(), &REQUEST_KEYS, &front))
}

/// What a modern request has to say about its sender, as members of `_meta`.
fn modern_meta(level: Option<LogLevel>, capabilities: ClientCapabilities) -> Vec<u8> {
    // Put together without formatting, because every call to a modern server has it.
    let (version, info, capable) = (meta::PROTOCOL_VERSION, meta::CLIENT_INFO, meta::CLIENT_CAPABILITIES);
    let capabilities = capabilities.to_modern();
    let level = level.map(|level| format!(r#","{}":"{}""#, meta::LOG_LEVEL, level.as_str())).unwrap_or_default();
    ["\"", version, "\":\"", MODERN, "\",\"", info, "\":", IDENTITY, ",\"", capable, "\":", &capabilities, &level]
        .concat()
        .into_bytes()
}

/// The `_meta` of a modern request that the gateway makes for itself. It declares everything, because some servers list their
/// tools by what the client can do, and what is asked here has no result that asks for anything.
#[must_use]
pub fn own_meta() -> String {
    let members = modern_meta(None, ClientCapabilities::ALL);
    format!("{{{}}}", String::from_utf8_lossy(&members))
}

/// A `_meta` object with some keys left out, and new members, which are written already, in front.
pub(super) fn meta_of(bytes: &[u8], old: Option<Span>, without: &[&str], front: &[u8]) -> Vec<u8> {
    let old = old.map(|old| whole_members_of(bytes, old)).unwrap_or_default();
    let kept = old.iter().filter(|member| !without.contains(&member.key.as_ref())).map(|member| member.whole.of(bytes));
    object_of(Some(front).filter(|front| !front.is_empty()).into_iter().chain(kept))
}

/// What a result says about how it has to be read (`resultType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultType {
    /// It is the result.
    Complete,
    /// The server needs input first.
    InputRequired,
    /// The server has begun a task, whose result is fetched later.
    Task,
    /// Something that was not asked for.
    Unknown,
}

/// The type of a modern server's result; none means that it is complete.
#[must_use]
pub fn result_type(response: &Envelope) -> ResultType {
    match response.in_result(ResultMember::Type).map(|found| text_of(found.value.of(response.bytes()))) {
        None => ResultType::Complete,
        Some(Some(text)) if text == "complete" => ResultType::Complete,
        Some(Some(text)) if text == "input_required" => ResultType::InputRequired,
        Some(Some(text)) if text == "task" => ResultType::Task,
        Some(_) => ResultType::Unknown,
    }
}

/// What a modern server asks for before it goes on.
#[derive(Debug, PartialEq, Eq)]
pub struct Questions<'a> {
    /// What the client needs for the answers; `None` if one of the questions is none that a server may ask, they come
    /// twice, or there is neither a question nor a state.
    pub needed: Option<ClientCapabilities>,
    /// What the server wants back with the answers, a JSON string.
    pub state: Option<&'a [u8]>,
}

/// The questions of a result that is not complete.
#[must_use]
pub fn questions(response: &Envelope) -> Questions<'_> {
    let bytes = response.bytes();
    let members = response.result_span().map(|result| members_of(bytes, result)).unwrap_or_default();
    let repeats = members.iter().filter(|(key, _)| key == "inputRequests").count() > 1;
    let state = last_of(&members, "requestState")
        .map(|state| state.of(bytes))
        .filter(|state| type_of(state) == JsonType::String);
    let needed = match last_of(&members, "inputRequests") {
        // SECURITY: the client might take the one that is not looked at.
        _ if repeats => None,
        Some(requests) if type_of(requests.of(bytes)) == JsonType::Object => {
            let mut asked = members_of(bytes, requests).into_iter().map(|(_, request)| Asked::of(request.of(bytes)));
            asked.try_fold(ClientCapabilities::NONE, |all, one| Some(all.with(one?.needed)))
        }
        Some(_) => None,
        None => state.map(|_| ClientCapabilities::NONE),
    };
    Questions { needed, state }
}

/// What stands in a modern client's result in the place of what its server wrote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Instead<'a> {
    /// Of the state that the server has given out, a JSON string.
    pub state: Option<&'a [u8]>,
    /// Of the server's own id of a task, a JSON string.
    pub task: Option<&'a [u8]>,
    /// Of a time for which the result may be kept that is longer; only for what may be kept.
    pub longest: Option<Duration>,
}

/// The response that carries a tool's result, as a modern client gets it: complete unless it says otherwise, with the
/// gateway as the server, and with what stands `instead` of the server's own. One that may be kept says for how long
/// at most, and that it is for this client only.
#[must_use]
pub fn result_for_modern(response: &Envelope, id: &[u8], server: Era, instead: Instead<'_>) -> Vec<Bytes> {
    const COMPLETE: &[u8] = b"\"complete\"";
    let bytes = response.bytes();
    let splice = Splice::new(bytes).replace_if(response.id_span(), id);
    let Some(result) = response.result_span().filter(|r| type_of(r.of(bytes)) == JsonType::Object) else {
        return splice.pieces(response.bytes());
    };
    let last = |member: ResultMember| response.in_result(member).map(|found| found.value);
    let (old_type, old_meta) = (last(ResultMember::Type), last(ResultMember::Meta));
    let identity = ["\"", meta::SERVER_INFO, "\":", IDENTITY].concat();
    let readable = old_meta.filter(|value| type_of(value.of(bytes)) == JsonType::Object);
    let new_meta = meta_of(bytes, readable, &[meta::SERVER_INFO], identity.as_bytes());
    let mut front = Vec::new();
    if old_type.is_none() {
        front.extend_from_slice(b"\"resultType\":");
        front.extend_from_slice(COMPLETE);
        front.push(b',');
    }
    if old_meta.is_none() {
        front.extend_from_slice(b"\"_meta\":");
        front.extend_from_slice(&new_meta);
        front.push(b',');
    }
    let ttl = instead.longest.map(|longest| ttl_of(response, server).min(longest.as_millis() as u64).to_string());
    if let Some(ttl) = &ttl {
        if last(ResultMember::Ttl).is_none() {
            front.extend_from_slice(format!("\"ttlMs\":{ttl},").as_bytes());
        }
        if last(ResultMember::CacheScope).is_none() {
            front.extend_from_slice(b"\"cacheScope\":\"private\",");
        }
    }
    if is_empty(bytes, result) {
        front.pop();
    }
    let at = Span { start: result.start + 1, end: result.start + 1 };
    let new_value = |key: &str| match key {
        "ttlMs" => ttl.as_deref().map(str::as_bytes),
        "cacheScope" => ttl.as_ref().map(|_| b"\"private\"".as_slice()),
        // What a legacy server means by the word is its own business.
        "resultType" if server == Era::Legacy => Some(COMPLETE),
        "requestState" => instead.state,
        "taskId" => instead.task,
        "_meta" => Some(new_meta.as_slice()),
        _ => None,
    };
    let old: Vec<(Cow<'_, str>, Span)> = if response.result_repeats() || instead.task.is_some() {
        // Each of them: nobody knows which of several the client takes.
        members_of(bytes, result)
    } else {
        let members = [
            ResultMember::Type,
            ResultMember::RequestState,
            ResultMember::Meta,
            ResultMember::Ttl,
            ResultMember::CacheScope,
        ];
        members.into_iter().filter_map(|member| Some((Cow::Borrowed(member.name()), last(member)?))).collect()
    };
    let mut splice = splice.replace(at, &front);
    for (key, value) in old {
        if let Some(new) = new_value(&key) {
            splice = splice.replace(value, new);
        }
    }
    splice.pieces(response.bytes())
}

/// A server's own id of the task that a result is about; `None` if it has no text for one, several, or a state, which tasks
/// do not have.
///
/// SECURITY: of two ids the client might take the one that is not looked at, and a state would be the server's own.
#[must_use]
pub fn task_of(response: &Envelope) -> Option<Cow<'_, str>> {
    let bytes = response.bytes();
    let members = members_of(bytes, response.result_span()?);
    let mut ids = members.iter().filter(|(key, _)| key == "taskId");
    let id = ids.next().filter(|_| ids.next().is_none())?.1;
    if members.iter().any(|(key, _)| key == "requestState") { None } else { text_of(id.of(bytes)) }
}

/// For how long a server says that a result will do, in milliseconds; a legacy one cannot say so.
fn ttl_of(response: &Envelope, server: Era) -> u64 {
    let said = response.in_result(ResultMember::Ttl).filter(|_| server == Era::Modern);
    let digits = said.and_then(|found| std::str::from_utf8(found.value.of(response.bytes())).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// A response with a result of the gateway's own, given as its members, for a client of this era.
#[must_use]
pub fn own_result(id: &[u8], client: Era, members: &[u8]) -> Vec<u8> {
    let front = match client {
        Era::Legacy => String::new(),
        Era::Modern => format!(r#""resultType":"complete","_meta":{{"{}":{IDENTITY}}},"#, meta::SERVER_INFO),
    };
    result_message(id, &[b"{", front.as_bytes(), members, b"}"].concat())
}

/// The response that carries a tool's result, as a client of this legacy revision gets it.
#[must_use]
pub fn result_for_legacy(response: &Envelope, id: &[u8], version: ProtocolVersion, server: Era) -> Vec<Bytes> {
    let bytes = response.bytes();
    let splice = Splice::new(bytes).replace_if(response.id_span(), id);
    let as_it_is = server == Era::Legacy && version >= ProtocolVersion::V2025_06_18;
    let Some(result) = response.result_span().filter(|r| !as_it_is && type_of(r.of(bytes)) == JsonType::Object) else {
        return splice.pieces(response.bytes());
    };
    let structured = response.in_result(ResultMember::Structured);
    let keeps_structure = structured.is_none_or(|found| type_of(found.value.of(bytes)) == JsonType::Object);
    if version >= ProtocolVersion::V2025_06_18 && keeps_structure && !response.result_repeats() {
        return without_modern_members(response, splice);
    }
    let members = whole_members_of(bytes, result);
    let changed: Vec<Option<Cow<'_, [u8]>>> =
        members.iter().map(|member| legacy_member(bytes, member, version, server)).collect();
    let same = changed.iter().zip(&members).all(|(new, old)| new.as_deref() == Some(old.whole.of(bytes)));
    let lost_structure = lost_structure(bytes, &members);
    if same && lost_structure.is_none() {
        return splice.pieces(response.bytes());
    }
    let mut parts: Vec<Cow<'_, [u8]>> = changed.into_iter().flatten().collect();
    match (lost_structure, members.iter().rposition(|member| member.key == "content")) {
        (None, _) => {}
        (Some(text), None) => parts.push([b"\"content\":[", text_block(text).as_slice(), b"]"].concat().into()),
        (Some(text), Some(at)) => with_text_block(bytes, members.get(at), &mut parts, text),
    }
    let rebuilt = object_of(parts.iter().map(AsRef::as_ref));
    splice.replace(result, &rebuilt).pieces(response.bytes())
}

/// A modern result without what legacy clients do not know; everything else keeps its place and its bytes.
fn without_modern_members(response: &Envelope, splice: Splice<'_>) -> Vec<Bytes> {
    let bytes = response.bytes();
    let meta = response.in_result(ResultMember::Meta).filter(|meta| type_of(meta.value.of(bytes)) == JsonType::Object);
    let kept_meta = meta.map(|meta| meta_of(bytes, Some(meta.value), &RESULT_KEYS, b""));
    let bare = kept_meta.as_ref().is_none_or(|meta| meta == b"{}");
    let gone =
        [ResultMember::Type, ResultMember::Ttl, ResultMember::CacheScope].map(|member| response.in_result(member));
    let mut gone: Vec<Found> = gone.into_iter().flatten().chain(meta.filter(|_| bare)).collect();
    gone.sort_by_key(|found| found.before);
    let mut splice =
        splice.replace_if(meta.filter(|_| !bare).map(|meta| meta.value), kept_meta.as_deref().unwrap_or_default());
    // Members go with the comma in front of them, or with the one behind while everything in front goes as well.
    let mut leading_end = None;
    for found in gone {
        let leads = found.first || leading_end.is_some_and(|(member, _)| member == found.before);
        // White space in front of the comma, or of the first member, belongs to what stands before it.
        let own_start = found.before + spaces(bytes.get(found.before..).unwrap_or_default());
        let start = leading_end.filter(|_| leads).map_or(own_start, |(_, end)| end);
        let end = if leads { after_comma(bytes, found.value.end) } else { found.value.end };
        if leads {
            leading_end = Some((found.value.end, end));
        }
        splice = splice.replace(Span { start, end }, b"");
    }
    splice.pieces(response.bytes())
}

/// White space in front of something.
fn spaces(text: &[u8]) -> usize {
    text.len() - text.trim_ascii_start().len()
}

/// Where the next member begins, if there is one behind a value that ends here.
fn after_comma(bytes: &[u8], end: usize) -> usize {
    let rest = bytes.get(end..).unwrap_or_default();
    match rest.trim_ascii_start().split_first() {
        Some((b',', behind)) => end + spaces(rest) + 1 + spaces(behind),
        _ => end,
    }
}

/// One member of a result as a legacy client gets it; `None` if it does not.
fn legacy_member<'a>(
    bytes: &'a [u8],
    member: &Member<'_>,
    version: ProtocolVersion,
    server: Era,
) -> Option<Cow<'a, [u8]>> {
    let (value, whole) = (member.value.of(bytes), Cow::Borrowed(member.whole.of(bytes)));
    match member.key.as_ref() {
        "resultType" | "ttlMs" | "cacheScope" if server == Era::Modern => None,
        "_meta" if server == Era::Modern && type_of(value) == JsonType::Object => {
            let new = meta_of(bytes, Some(member.value), &RESULT_KEYS, b"");
            (new != b"{}").then(|| [b"\"_meta\":", new.as_slice()].concat().into())
        }
        "structuredContent" => {
            let fits = version >= ProtocolVersion::V2025_06_18 && type_of(value) == JsonType::Object;
            fits.then_some(whole)
        }
        "content" if version < ProtocolVersion::V2025_06_18 => {
            Some(legacy_list(bytes, member, |block| legacy_block(bytes, block, version)))
        }
        "messages" if version < ProtocolVersion::V2025_06_18 => {
            Some(legacy_list(bytes, member, |message| legacy_message(bytes, message, version)))
        }
        _ => Some(whole),
    }
}

/// A member that is a list, with each of its elements as an old client gets it.
fn legacy_list<'a>(bytes: &'a [u8], member: &Member<'_>, element: impl Fn(Span) -> Cow<'a, [u8]>) -> Cow<'a, [u8]> {
    let elements: Vec<Cow<'_, [u8]>> = elements_of(bytes, member.value).into_iter().map(element).collect();
    if elements.iter().all(|element| matches!(element, Cow::Borrowed(_))) {
        return Cow::Borrowed(member.whole.of(bytes));
    }
    let elements: Vec<&[u8]> = elements.iter().map(AsRef::as_ref).collect();
    [b"\"", member.key.as_bytes(), b"\":[", elements.join(&b","[..]).as_slice(), b"]"].concat().into()
}

/// A message of a prompt as an old client can read it.
fn legacy_message(bytes: &[u8], message: Span, version: ProtocolVersion) -> Cow<'_, [u8]> {
    let whole = Cow::Borrowed(message.of(bytes));
    let Some(block) = last_of(&members_of(bytes, message), "content") else { return whole };
    match legacy_block(bytes, block, version) {
        Cow::Borrowed(_) => whole,
        Cow::Owned(new) => {
            let [before, behind] = [(message.start, block.start), (block.end, message.end)]
                .map(|(start, end)| Span { start, end }.of(bytes));
            [before, &new, behind].concat().into()
        }
    }
}

/// A block of content as an old client can read it: links and, for the oldest, sound become a text.
fn legacy_block(bytes: &[u8], block: Span, version: ProtocolVersion) -> Cow<'_, [u8]> {
    let members = members_of(bytes, block);
    let text = |name: &str| last_of(&members, name).and_then(|value| text_of(value.of(bytes)));
    let note = match text("type").as_deref() {
        Some("resource_link") => {
            let (uri, name) = (text("uri").unwrap_or_default(), text("name").unwrap_or_default());
            format!("Resource: {name} <{uri}>")
        }
        Some("audio") if version < ProtocolVersion::V2025_03_26 => {
            format!("Audio that this client cannot play: {}", text("mimeType").unwrap_or_default())
        }
        _ => return Cow::Borrowed(block.of(bytes)),
    };
    text_block(&note).into()
}

/// A block of content that is a text.
#[must_use]
pub fn text_block(text: &str) -> Vec<u8> {
    let mut out = b"{\"type\":\"text\",\"text\":".to_vec();
    write_text(&mut out, text);
    out.push(b'}');
    out
}

/// The structured content that a legacy client cannot get because it is no object, if no block of text has it already.
fn lost_structure<'a>(bytes: &'a [u8], members: &[Member<'_>]) -> Option<&'a str> {
    let structure = members.iter().find(|member| member.key == "structuredContent")?.value.of(bytes);
    if type_of(structure) == JsonType::Object {
        return None;
    }
    let content = members.iter().find(|member| member.key == "content");
    let blocks = content.map(|content| elements_of(bytes, content.value)).unwrap_or_default();
    let is_text = |block: &Span| {
        members_of(bytes, *block).iter().any(|(key, value)| key == "type" && value.of(bytes) == b"\"text\"")
    };
    if blocks.iter().any(is_text) { None } else { std::str::from_utf8(structure).ok() }
}

/// Puts a block of text in front of the others, if these are a list.
fn with_text_block(bytes: &[u8], content: Option<&Member<'_>>, parts: &mut [Cow<'_, [u8]>], text: &str) {
    let Some(content) = content.filter(|content| type_of(content.value.of(bytes)) == JsonType::Array) else { return };
    let whole = content.whole.of(bytes);
    let Some(part) = parts.iter_mut().find(|part| part.as_ptr() == whole.as_ptr()) else { return };
    let at = content.value.start - content.whole.start + 1;
    let (before, rest) = part.split_at_checked(at).unwrap_or_default();
    let comma: &[u8] = if rest.trim_ascii_start().starts_with(b"]") { b"" } else { b"," };
    *part = [before, &text_block(text), comma, rest].concat().into();
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::super::jsonrpc::Sender;
    use super::*;

    fn parse(text: &str) -> Envelope {
        Envelope::parse(Bytes::copy_from_slice(text.as_bytes()), 64, Sender::Server).unwrap()
    }

    const NONE: ClientCapabilities = ClientCapabilities::NONE;
    const LEGACY: Asker = Asker { era: Era::Legacy, level: None, capabilities: NONE };
    const MODERN_CLIENT: Asker = Asker { era: Era::Modern, level: Some(LogLevel::Info), capabilities: NONE };

    /// The parameters of a call as the server gets them.
    #[track_caller]
    fn check(params: &str, asker: Asker, server: Era, expected: &str) {
        let message = |id: &str, params: &str| {
            format!(r#"{{ "method":"tools/call","id":{id}, "params":{params},"jsonrpc":"2.0"}}"#)
        };
        let inputs = Inputs { state: Some(b"\"theirs\""), responses: None };
        let sent = Sent { operation: Operation::Call, name: "own", asker, inputs, server };
        let sent = request(&parse(&message("\"x\"", params)), 7, sent);
        assert_eq!(String::from_utf8(sent).unwrap(), message("7", expected), "{params}");
    }

    /// What stands first in the `_meta` that a modern server gets.
    fn about(level: &str) -> String {
        let own = String::from_utf8(modern_meta(None, NONE)).unwrap();
        if level.is_empty() { own } else { format!(r#"{own},"{}":"{level}""#, meta::LOG_LEVEL) }
    }

    #[test]
    fn what_the_gateway_asks_for_itself_declares_everything() {
        let capabilities = r#"{"roots":{},"sampling":{"tools":{},"context":{}},"elicitation":{"form":{},"url":{}},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        let text = own_meta();
        assert!(text.ends_with(&format!(r#""{}":{capabilities}}}"#, meta::CLIENT_CAPABILITIES)), "{text}");
    }

    #[test]
    fn a_reference_names_one_prompt_or_one_resource() {
        let found = |reference: &str| {
            let params = format!(r#"{{"ref":{reference},"argument":{{"name":"a","value":"b"}}}}"#);
            let envelope =
                parse(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{params}}}"#));
            let (kind, name) = match super::reference(&envelope)? {
                Reference::Prompt(name) => ("prompt", name),
                Reference::Resource(uri) => ("resource", uri),
            };
            Some(format!("{kind} {}", String::from_utf8_lossy(name.of(envelope.bytes()))))
        };
        assert_eq!(found(r#"{"type":"ref/prompt","name":"p","title":"t"}"#).unwrap(), r#"prompt "p""#);
        assert_eq!(found(r#"{"uri":"x:{a}","name":null,"type":"ref/resource"}"#).unwrap(), r#"resource "x:{a}""#);
        for neither in [
            "{}",
            "[]",
            r#""p""#,
            r#"{"name":"p"}"#,
            r#"{"type":"ref/prompt"}"#,
            r#"{"type":"ref/prompt","name":7}"#,
            r#"{"type":"ref/prompt","uri":"x:a"}"#,
            r#"{"type":"ref/resource","name":"p"}"#,
            r#"{"type":"ref/tool","name":"p"}"#,
            r#"{"type":"ref/prompt","name":"p","uri":"x:a"}"#,
            r#"{"type":"ref/resource","name":"p","uri":"x:a"}"#,
            r#"{"type":"ref/prompt","name":"p","n\u0061me":"q"}"#,
            r#"{"type":"ref/prompt","name":"p","uri":null,"uri":"x:a"}"#,
            r#"{"type":"ref/resource","type":"ref/prompt","uri":"x:a"}"#,
        ] {
            assert_eq!(found(neither), None, "{neither}");
        }
    }

    #[test]
    fn between_legacy_peers_only_name_id_and_token_change() {
        let plain = r#"{"name":"own","arguments":{"n":1e21,"z":42.0}}"#;
        check(plain, LEGACY, Era::Legacy, plain);
        check(r#"{"name" : "gw_own","x":[ ]}"#, LEGACY, Era::Legacy, r#"{"name" : "own","x":[ ]}"#);
        let meta = |token: &str| format!(r#"{{"name":"own","_meta":{{"a":1,"progressToken":{token}}}}}"#);
        check(&meta("\"p\""), LEGACY, Era::Legacy, &meta("7"));
        check(r#"{"task":{"ttl":1},"name":"gw","y":2}"#, LEGACY, Era::Legacy, r#"{"name":"own","y":2}"#);
        check(r#"{"name":"own","task":{},"_meta":{}}"#, LEGACY, Era::Legacy, r#"{"name":"own","_meta":{}}"#);
        check(r#"{"name":"own","_meta":null}"#, LEGACY, Era::Legacy, r#"{"name":"own","_meta":null}"#);
    }

    #[test]
    fn a_modern_server_is_told_who_asks_and_what_else_the_client_said() {
        let params = r#"{"name":"own","arguments":{"a":1.0}}"#;
        let expected = format!(r#"{{"_meta":{{{}}},"name":"own","arguments":{{"a":1.0}}}}"#, about(""));
        check(params, LEGACY, Era::Modern, &expected);
        let asker = Asker { level: Some(LogLevel::Debug), ..LEGACY };
        let params = r#"{"name":"own","_meta":{"traceparent":"00","progressToken":"p"}}"#;
        let expected =
            format!(r#"{{"name":"own","_meta":{{{},"progressToken":7,"traceparent":"00"}}}}"#, about("debug"));
        check(params, asker, Era::Modern, &expected);
        let expected = format!(r#"{{"_meta":{{{}}},"name":"own"}}"#, about(""));
        check(r#"{"_meta":null,"name":"gw"}"#, LEGACY, Era::Modern, &expected);
        check(r#"{"_meta":7,"task":{},"name":"gw"}"#, LEGACY, Era::Modern, &expected);
        let told = r#""io.modelcontextprotocol/clientInfo":{"name":"c"},"io.modelcontextprotocol/logLevel":"debug""#;
        let params = format!(r#"{{"_meta":{{{told},"v/x":1}},"name":"gw","inputResponses":{{}},"requestState":"s"}}"#);
        let expected = format!(
            r#"{{"_meta":{{{},"v/x":1}},"name":"own","inputResponses":{{}},"requestState":"theirs"}}"#,
            about("info")
        );
        check(&params, MODERN_CLIENT, Era::Modern, &expected);
    }

    #[test]
    fn a_state_that_was_not_opened_here_reaches_no_server() {
        let params = r#"{"name":"own","inputResponses":{},"requestState":"ours"}"#;
        let message = parse(&format!(r#"{{"method":"tools/call","id":1,"params":{params},"jsonrpc":"2.0"}}"#));
        let (inputs, asker, server) = (Inputs::default(), MODERN_CLIENT, Era::Modern);
        let sent = request(&message, 7, Sent { operation: Operation::Call, name: "own", asker, inputs, server });
        let sent = parse(&String::from_utf8(sent).unwrap());
        assert_eq!((sent.param(Param::RequestState), sent.param(Param::InputResponses)), (None, Some(&b"{}"[..])));
    }

    #[test]
    fn a_legacy_server_is_told_nothing_modern() {
        let told = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"sampling":{}}"#;
        let params =
            format!(r#"{{"name":"own","_meta":{{{told},"v/x":{{"y":1}},"progressToken":1}},"arguments":{{}}}}"#);
        let expected = r#"{"name":"own","_meta":{"progressToken":7,"v/x":{"y":1}},"arguments":{}}"#;
        check(&params, MODERN_CLIENT, Era::Legacy, expected);
        let params = format!(r#"{{"name":"gw","requestState":"s","_meta":{{{told}}},"inputResponses":{{"a":1}}}}"#);
        check(&params, MODERN_CLIENT, Era::Legacy, r#"{"name":"own","_meta":{}}"#);
    }

    #[test]
    fn a_server_gets_its_own_id_of_a_task_and_no_state() {
        let message = |params: &str, id: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tasks/update","params":{params}}}"#)
        };
        let asker = Asker { capabilities: ClientCapabilities::TASKS, ..MODERN_CLIENT };
        let meta = String::from_utf8(modern_meta(Some(LogLevel::Info), ClientCapabilities::TASKS)).unwrap();
        assert!(meta.contains(r#"Capabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#), "{meta}");
        let told = format!(r#""_meta":{{"{}":{{}}}}"#, meta::CLIENT_CAPABILITIES);
        let responses = r#""inputResponses":{"k":{"n":1.0}}"#;
        let expected = message(&format!(r#"{{"taskId":"own","_meta":{{{meta}}},{responses}}}"#), "7");
        for state in ["", r#","requestState":"s""#] {
            let text = message(&format!(r#"{{"taskId":"sealed",{told},{responses}{state}}}"#), "\"x\"");
            let inputs = Inputs::default();
            let sent = Sent { operation: Operation::UpdateTask, name: "own", asker, inputs, server: Era::Modern };
            assert_eq!(String::from_utf8(request(&parse(&text), 7, sent)).unwrap(), expected);
        }
    }

    #[test]
    fn a_client_gets_another_id_of_a_task_and_the_rest_as_it_is() {
        let info = format!(r#""_meta":{{"{}":{IDENTITY}}}"#, meta::SERVER_INFO);
        let of = |result: &str| parse(&format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#));
        let response =
            of(r#"{"resultType":"task", "t\u0061skId" : "own","ttlMs":null,"result":{"taskId":"own","x":1.0}}"#);
        assert_eq!(task_of(&response).as_deref(), Some("own"));
        let instead = Instead { task: Some(b"\"sealed\""), ..Instead::default() };
        let new = result_for_modern(&response, b"\"c\"", Era::Modern, instead).concat();
        let result = r#""resultType":"task", "t\u0061skId" : "sealed","ttlMs":null,"result":{"taskId":"own","x":1.0}"#;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":"c","result":{{{info},{result}}}}}"#);
        assert_eq!(String::from_utf8(new).unwrap(), expected);
        for none in [
            "{}",
            r#"{"taskId":7}"#,
            r#"{"taskId":"a","taskId":"b"}"#,
            r#"{"taskId":"a","task\u0049d":"a"}"#,
            r#"{"taskId":"a","requestState":"s"}"#,
        ] {
            assert_eq!(task_of(&of(none)), None, "{none}");
        }
    }

    /// The result as a client gets it; `None`: as it was.
    #[track_caller]
    fn result(old: &str, version: Option<ProtocolVersion>, server: Era, expected: Option<&str>) {
        let message = |id: &str, result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        let response = parse(&message("7", old));
        let new = match version {
            Some(version) => result_for_legacy(&response, b"\"x\"", version, server).concat(),
            None => {
                let instead = Instead { state: Some(b"\"ours\""), ..Instead::default() };
                result_for_modern(&response, b"\"x\"", server, instead).concat()
            }
        };
        assert_eq!(String::from_utf8(new).unwrap(), message("\"x\"", expected.unwrap_or(old)), "{old}");
    }

    #[test]
    fn legacy_results_stay_as_they_are_for_clients_that_know_them() {
        let whole = r#"{"content":[ {"type":"resource_link","uri":"u","name":"n"}],"structuredContent":{"a":1e21},"odd":[1.0]}"#;
        for version in [ProtocolVersion::V2025_06_18, ProtocolVersion::V2025_11_25] {
            result(whole, Some(version), Era::Legacy, None);
        }
    }

    #[test]
    fn old_clients_get_texts_for_what_they_do_not_know() {
        let link = r#"{"type":"resource_link","uri":"file:///a","name":"A"}"#;
        let audio = r#"{"type":"audio","data":"AA==","mimeType":"audio/wav"}"#;
        let (text, image) = (r#"{"type":"text","text":"t"}"#, r#"{"type":"image","data":"AA=="}"#);
        let old =
            format!(r#"{{"content":[{text}, {link},{image},{audio}],"structuredContent":{{"a":1}},"isError":false}}"#);
        let as_text = r#"{"type":"text","text":"Resource: A <file:///a>"}"#;
        let expected = format!(r#"{{"content":[{text},{as_text},{image},{audio}],"isError":false}}"#);
        result(&old, Some(ProtocolVersion::V2025_03_26), Era::Legacy, Some(&expected));
        let silent = r#"{"type":"text","text":"Audio that this client cannot play: audio/wav"}"#;
        let expected = format!(r#"{{"content":[{text},{as_text},{image},{silent}],"isError":false}}"#);
        result(&old, Some(ProtocolVersion::V2024_11_05), Era::Legacy, Some(&expected));
    }

    #[test]
    fn what_is_modern_about_a_result_does_not_reach_legacy_clients() {
        let version = Some(ProtocolVersion::V2025_11_25);
        let info = r#""io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}"#;
        let old = format!(
            r#"{{"resultType":"complete","content":[],"_meta":{{{info},"x":1}},"ttlMs":1,"cacheScope":"public"}}"#
        );
        result(&old, version, Era::Modern, Some(r#"{"content":[],"_meta":{"x":1}}"#));
        let old = format!(r#"{{"content":[],"_meta":{{{info}}}}}"#);
        result(&old, version, Era::Modern, Some(r#"{"content":[]}"#));
        result(r#"{"content":[],"_meta":{"x":1}}"#, version, Era::Modern, None);
    }

    #[test]
    fn whatever_goes_the_rest_of_a_result_stays_in_place() {
        let info = r#""_meta" : {"io.modelcontextprotocol/serverInfo":{}}"#;
        let members = [
            r#""resultType": "complete""#,
            r#""ttlMs" :1"#,
            r#""cacheScope":"public""#,
            info,
            r#""a":1.0"#,
            r#""b":[ ]"#,
        ];
        for drawn in 0..6_usize.pow(4) {
            let mut some: Vec<&str> = (0..4).map(|at| members[drawn / 6_usize.pow(at) % 6]).collect();
            some.sort_unstable();
            some.dedup();
            let turn = drawn % some.len();
            some.rotate_left(turn);
            let result = format!("{{ {} }}", some.join(" , "));
            let response = parse(&format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#));
            let new = result_for_legacy(&response, b"7", ProtocolVersion::V2025_11_25, Era::Modern).concat();
            let new: serde_json::Value = serde_json::from_slice(&new).unwrap_or_else(|e| panic!("{e}: {result}"));
            let left: Vec<&str> = new["result"].as_object().unwrap().keys().map(String::as_str).collect();
            let expected: Vec<&str> =
                ["a", "b"].into_iter().filter(|key| result.contains(&format!("\"{key}\":"))).collect();
            assert_eq!(left, expected, "{result}");
        }
    }

    #[test]
    fn structured_content_that_is_no_object_becomes_a_text_unless_there_is_one() {
        let version = Some(ProtocolVersion::V2025_11_25);
        let text = r#"{"type":"text","text":"[1, \"a\"]"}"#;
        let with_text = format!(r#"{{"content":[{text}],"structuredContent":[1, "a"]}}"#);
        let expected = format!(r#"{{"content":[{text}]}}"#);
        result(&with_text, version, Era::Modern, Some(&expected));
        result(r#"{"content":[],"structuredContent":[1, "a"]}"#, version, Era::Modern, Some(&expected));
        result(r#"{"structuredContent":[1, "a"]}"#, version, Era::Modern, Some(&expected));
        let odd = r#"{"content":"a[b","structuredContent":[1, "a"]}"#;
        result(odd, version, Era::Modern, Some(r#"{"content":"a[b"}"#));
        let escaped = r#"{"\u0063ontent" : [ ],"structuredContent":[1, "a"]}"#;
        result(escaped, version, Era::Modern, Some(&format!(r#"{{"\u0063ontent" : [{text} ]}}"#)));
        let image = r#"{"type":"image","data":"AA=="}"#;
        let expected = format!(r#"{{"content":[{text},{image}]}}"#);
        result(
            &format!(r#"{{"content":[{image}],"structuredContent":[1, "a"]}}"#),
            version,
            Era::Modern,
            Some(&expected),
        );
    }

    #[test]
    fn modern_clients_get_complete_results_of_the_gateway() {
        let info = format!(r#""{}":{IDENTITY}"#, meta::SERVER_INFO);
        let expected = format!(r#"{{"resultType":"complete","_meta":{{{info}}},"content":[ ]}}"#);
        result(r#"{"content":[ ]}"#, None, Era::Legacy, Some(&expected));
        let expected = format!(r#"{{"resultType":"complete","_meta":{{{info}}}}}"#);
        result("{}", None, Era::Legacy, Some(&expected));
        result(
            r#"{"_meta":null}"#,
            None,
            Era::Legacy,
            Some(&format!(r#"{{"resultType":"complete","_meta":{{{info}}}}}"#)),
        );
        let expected = format!(r#"{{"resultType":"complete","_meta":{{{info},"x":1}},"_meta":{{{info},"x":1}}}}"#);
        result(r#"{"_meta":[],"_meta":{"x":1}}"#, None, Era::Legacy, Some(&expected));
        let theirs =
            r#"{"a":1.0,"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"},"x":1},"resultType":"complete"}"#;
        let expected = format!(r#"{{"a":1.0,"_meta":{{{info},"x":1}},"resultType":"complete"}}"#);
        result(theirs, None, Era::Modern, Some(&expected));
    }

    #[test]
    fn a_legacy_server_has_no_types_of_results() {
        let info = format!(r#""{}":{IDENTITY}"#, meta::SERVER_INFO);
        let expected = format!(r#"{{"_meta":{{{info}}},"resultType":"complete","a":1}}"#);
        for odd in [r#""input_required""#, r#""complete""#, "7", "null"] {
            result(&format!(r#"{{"resultType":{odd},"a":1}}"#), None, Era::Legacy, Some(&expected));
        }
    }

    #[test]
    fn questions_reach_modern_clients_with_the_state_of_the_gateway() {
        let info = format!(r#""{}":{IDENTITY}"#, meta::SERVER_INFO);
        let asks = |state: &str| {
            let requests =
                r#""k":{"method":"elicitation/create","params":{"message":"?"}},"l":{"method":"roots/list"}"#;
            format!(r#"{{"resultType":"input_required","inputRequests":{{{requests}}},"requestState":{state}}}"#)
        };
        let expected = asks("\"ours\"").replacen('{', &format!(r#"{{"_meta":{{{info}}},"#), 1);
        result(&asks("\"theirs\""), None, Era::Modern, Some(&expected));
        let of = |result: &str| parse(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
        let asked = of(&asks("\"s\""));
        let needed = ClientCapabilities::parse(br#"{"elicitation":{},"roots":{}}"#);
        assert_eq!(questions(&asked), Questions { needed: Some(needed), state: Some(b"\"s\"") });
        let odd = of(r#"{"inputRequests":{"k":{"method":"tools/call"}}}"#);
        assert_eq!(questions(&odd), Questions { needed: None, state: None });
        for nothing in [r#"{"resultType":"input_required"}"#, r#"{"inputRequests":[],"requestState":"s"}"#] {
            assert_eq!(questions(&of(nothing)).needed, None, "{nothing}");
        }
        let nothing = of(r#"{"requestState":"later"}"#);
        let expected = Questions { needed: Some(ClientCapabilities::NONE), state: Some(&b"\"later\""[..]) };
        assert_eq!(questions(&nothing), expected);
    }

    #[test]
    fn a_result_says_of_what_type_it_is() {
        let of = |result: &str| result_type(&parse(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#)));
        assert_eq!([of("{}"), of(r#"{"resultType":"complete"}"#)], [ResultType::Complete; 2]);
        assert_eq!(of(r#"{"resultType":"input_required"}"#), ResultType::InputRequired);
        assert_eq!(of(r#"{"resultType":"task"}"#), ResultType::Task);
        for odd in [r#""tasks""#, r#""""#, "null", "7"] {
            assert_eq!(of(&format!(r#"{{"resultType":{odd}}}"#)), ResultType::Unknown, "{odd}");
        }
    }
}
