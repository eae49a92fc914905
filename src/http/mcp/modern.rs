//! The modern era, revision 2026-07-28: every request by itself, with all that has to be known to serve it.
//!
//! What a request says twice, in its body and in its headers, is compared before it is acted on; errors of the protocol
//! have HTTP statuses. Source: protocol.md 2.3; MCP 2026-07-28, streamable HTTP and versioning.

use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, StatusCode};

use super::{
    Exchange, List, OFFERED, Step, check_progress_token, failed, id_of, no_such_method, status_of, subject_of,
    with_instructions,
};
use crate::gateway::{GatewayError, MOST_SUBSCRIPTIONS, Page, Session, Speech};
use crate::http::request::only;
use crate::http::response::{Body, empty, result, result_of, rpc};
use crate::wire::changes::Filter;
use crate::wire::headers::decode;
use crate::wire::json::{JsonType, text_of, type_of, write_text};
use crate::wire::jsonrpc::{Envelope, ErrorObject, Kind, Meta, Param};
use crate::wire::mcp::{
    ClientCapabilities, Era, IDENTITY, ListKind, LogLevel, MODERN, Operation, code, header, meta, method,
};

/// Takes a message of the modern era.
pub(super) fn step(exchange: &mut Exchange<'_>, kind: Kind, envelope: Envelope) -> Step {
    match kind {
        Kind::Request => request(exchange, envelope),
        Kind::Notification if version_header(exchange.headers) == Some(MODERN) => empty(StatusCode::ACCEPTED).into(),
        Kind::Notification => {
            let error = unsupported(version_header(exchange.headers).unwrap_or_default());
            refused(exchange, None, &error).into()
        }
        Kind::Result | Kind::Error => {
            let error =
                ErrorObject::new(code::INVALID_REQUEST, "invalid request: expected a request, found a response");
            refused(exchange, None, &error).into()
        }
    }
}

fn request(exchange: &mut Exchange<'_>, envelope: Envelope) -> Step {
    let id = id_of(&envelope);
    if let Err(missing) = check_meta(&envelope) {
        let error = ErrorObject::new(code::INVALID_PARAMS, format!("invalid params: {missing}"));
        return super::refused(exchange.access, rpc(StatusCode::BAD_REQUEST, Some(&id), &error), error.code).into();
    }
    if let Err(error) =
        check_version(exchange.headers, &envelope).and_then(|()| check_method(exchange.headers, &envelope))
    {
        return refused(exchange, Some(&id), &error).into();
    }
    if let Some(operation) = envelope.method().as_deref().and_then(Operation::of_method) {
        return match operation.is_about_task() {
            true => about_task(exchange, id, operation, envelope),
            false => call(exchange, id, operation, envelope),
        };
    }
    match envelope.method().as_deref() {
        Some(method::DISCOVER) => discover(exchange, &id, &envelope).into(),
        Some(method::LISTEN) => match listen(&envelope) {
            Ok(filter) => Step::Listen(id, filter),
            Err(error) => failed(exchange, Era::Modern, &id, &error).into(),
        },
        Some(name) => match ListKind::of_method(name) {
            Some(kind) => match check_options(&envelope) {
                Ok(_) => Step::List(List::new(id, kind, None, Session::default(), &envelope)),
                Err(error) => failed(exchange, Era::Modern, &id, &error).into(),
            },
            None => refused(exchange, Some(&id), &no_such_method(Some(name))).into(),
        },
        None => refused(exchange, Some(&id), &no_such_method(None)).into(),
    }
}

/// An error with the status that goes with it.
fn refused(exchange: &mut Exchange<'_>, id: Option<&[u8]>, error: &ErrorObject) -> Response<Body> {
    exchange.access.code = Some(error.code);
    let status = match (id, status_of(Era::Modern, error.code)) {
        // What is no request has no response either, so that the status has to say it.
        (None, StatusCode::OK) => StatusCode::BAD_REQUEST,
        (_, status) => status,
    };
    rpc(status, id, error)
}

/// What every request has to say about its sender.
fn check_meta(envelope: &Envelope) -> Result<(), String> {
    let missing = |what: &str| Err(format!("expected {what}"));
    if envelope.params_span().is_none() {
        return missing("`params` to be an object");
    }
    if envelope.meta_object_span().is_none() {
        return missing("`_meta` to be an object");
    }
    if envelope.meta(Meta::ProtocolVersion).and_then(text_of).is_none() {
        return missing(&format!("`_meta` to have a string `{}`", meta::PROTOCOL_VERSION));
    }
    if envelope.meta(Meta::ClientCapabilities).is_none_or(|c| type_of(c) != JsonType::Object) {
        return missing(&format!("`_meta` to have an object `{}`", meta::CLIENT_CAPABILITIES));
    }
    Ok(())
}

/// The text of a header that must not be repeated, without the white space around it.
fn only_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    only(headers, name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// The version header, if there is exactly one.
fn version_header(headers: &HeaderMap) -> Option<&str> {
    only_text(headers, &header::PROTOCOL_VERSION)
}

fn check_version(headers: &HeaderMap, envelope: &Envelope) -> Result<(), ErrorObject> {
    let in_body = envelope.meta(Meta::ProtocolVersion).and_then(text_of).unwrap_or_default();
    if version_header(headers) != Some(in_body.as_ref()) {
        return Err(mismatch("MCP-Protocol-Version", meta::PROTOCOL_VERSION));
    }
    if in_body == MODERN { Ok(()) } else { Err(unsupported(&in_body)) }
}

fn check_method(headers: &HeaderMap, envelope: &Envelope) -> Result<(), ErrorObject> {
    let agrees = only_text(headers, &header::METHOD) == envelope.method().as_deref();
    if agrees { Ok(()) } else { Err(mismatch("Mcp-Method", "method")) }
}

fn mismatch(header: &str, member: &str) -> ErrorObject {
    let what = format!("header mismatch: expected one header `{header}` with the value of `{member}`");
    ErrorObject::new(code::HEADER_MISMATCH, what)
}

fn unsupported(requested: &str) -> ErrorObject {
    let mut data = format!(r#"{{"supported":["{MODERN}"],"requested":"#).into_bytes();
    write_text(&mut data, &requested.chars().take(64).collect::<String>());
    data.push(b'}');
    let message = format!("unsupported protocol version: expected {MODERN}");
    ErrorObject { code: code::UNSUPPORTED_VERSION, message, data: Some(data.into()) }
}

/// The optional parts of `_meta`: the level of log messages that the client wants.
fn check_options(envelope: &Envelope) -> Result<Option<LogLevel>, GatewayError> {
    check_progress_token(envelope)?;
    let Some(level) = envelope.meta(Meta::LogLevel) else { return Ok(None) };
    let level = text_of(level).and_then(|level| LogLevel::parse(&level));
    level.map(Some).ok_or(GatewayError::InvalidParams("expected a log level from `debug` to `emergency`"))
}

/// What the result of a request that may be repeated begins with.
fn hints(ttl_ms: u64) -> String {
    format!(
        r#""resultType":"complete","ttlMs":{ttl_ms},"cacheScope":"private","_meta":{{"{}":{IDENTITY}}}"#,
        meta::SERVER_INFO
    )
}

fn discover(exchange: &mut Exchange<'_>, id: &[u8], envelope: &Envelope) -> Response<Body> {
    if let Err(error) = check_options(envelope) {
        return failed(exchange, Era::Modern, id, &error);
    }
    let offered = format!(r#"{{{OFFERED},"completions":{{}},"extensions":{{"{}":{{}}}}}}"#, meta::TASKS);
    let text = format!(r#"{{{},"supportedVersions":["{MODERN}"],"capabilities":{offered}"#, hints(0));
    result(id, with_instructions(exchange, text))
}

/// What a client wants to hear of.
fn listen(envelope: &Envelope) -> Result<Filter, GatewayError> {
    check_options(envelope)?;
    let params = envelope.params_span().map(|params| params.of(envelope.bytes()));
    let filter = Filter::read(params.unwrap_or_default()).map_err(GatewayError::InvalidParams)?;
    if filter.uris.len() > MOST_SUBSCRIPTIONS {
        return Err(GatewayError::InvalidParams("expected at most 1000 `resourceSubscriptions`"));
    }
    if filter.tasks.len() > MOST_SUBSCRIPTIONS {
        return Err(GatewayError::InvalidParams("expected at most 1000 `taskIds`"));
    }
    if !filter.tasks.is_empty() && !capabilities(envelope).knows_tasks() {
        return Err(GatewayError::MissingCapability(ClientCapabilities::TASKS));
    }
    Ok(filter)
}

/// The answer with a page of a list.
pub(super) fn listed(id: &[u8], page: Page) -> Response<Body> {
    result_of(id, vec![format!("{{{},", hints(page.ttl_ms)).into(), page.bytes])
}

fn call(exchange: &mut Exchange<'_>, id: Arc<[u8]>, operation: Operation, envelope: Envelope) -> Step {
    let subject = match subject_of(exchange, operation, &envelope) {
        Ok(subject) => subject,
        Err(error) => return failed(exchange, Era::Modern, &id, &error).into(),
    };
    if operation != Operation::Complete && !is_named(exchange.headers, &subject.name) {
        let member = if operation == Operation::Read { "params.uri" } else { "params.name" };
        return refused(exchange, Some(&id), &mismatch("Mcp-Name", member)).into();
    }
    let level = match check_options(&envelope) {
        Ok(level) => level,
        Err(error) => return failed(exchange, Era::Modern, &id, &error).into(),
    };
    let speech = Speech::Modern { level, capabilities: capabilities(&envelope), mirrored: mirrored(exchange.headers) };
    Step::Call(super::request(exchange, id, (Session::default(), speech), operation, subject, envelope))
}

/// A request about a task. Its id is not noted in the record.
fn about_task(exchange: &mut Exchange<'_>, id: Arc<[u8]>, operation: Operation, envelope: Envelope) -> Step {
    let sealed = envelope.param_text(Param::TaskId);
    if sealed.as_deref().is_some_and(|sealed| !is_named(exchange.headers, sealed)) {
        return refused(exchange, Some(&id), &mismatch("Mcp-Name", "params.taskId")).into();
    }
    let found = check_options(&envelope).and_then(|level| {
        let capabilities = capabilities(&envelope);
        if !capabilities.knows_tasks() {
            return Err(GatewayError::MissingCapability(ClientCapabilities::TASKS));
        }
        let sealed = sealed.ok_or(GatewayError::InvalidParams("expected a string `taskId`"))?;
        let task = exchange.gateway.task(&exchange.snapshot, &exchange.principal, &sealed)?;
        Ok((task, Speech::Modern { level, capabilities, mirrored: HeaderMap::new() }))
    });
    let (task, speech) = match found {
        Ok(found) => found,
        Err(error) => {
            if error == GatewayError::UnknownTask {
                exchange.access.denied();
            }
            return failed(exchange, Era::Modern, &id, &error).into();
        }
    };
    let subject = task.subject();
    exchange.access.set_subject(&subject);
    let mut request = super::request(exchange, id, (Session::default(), speech), operation, subject, envelope);
    request.task = Some(Box::new(task));
    Step::Call(request)
}

/// What the client of a request declares.
fn capabilities(envelope: &Envelope) -> ClientCapabilities {
    ClientCapabilities::parse(envelope.meta(Meta::ClientCapabilities).unwrap_or_default())
}

/// Whether the header that says what a request is about says this.
fn is_named(headers: &HeaderMap, name: &str) -> bool {
    decoded(headers, &header::NAME).as_deref() == Some(name)
}

/// The text of a header that may be written in Base64, if there is exactly one.
fn decoded(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = only(headers, name)?;
    decode(value.as_bytes()).map(std::borrow::Cow::into_owned)
}

/// The headers that mirror arguments.
fn mirrored(headers: &HeaderMap) -> HeaderMap {
    let mut found = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with(header::PARAM_PREFIX)) {
        found.append(name, value.clone());
    }
    found
}
