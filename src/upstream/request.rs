//! Requests as they are written in one dialect or the other.

use hyper::body::Bytes;
use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};

use super::answer::Waits;
use super::error::UpstreamError;
use super::probe::Known;
use crate::wire::headers::{Annotation, encode, find, mirrored};
use crate::wire::json::write_text;
use crate::wire::jsonrpc::{Envelope, Param};
use crate::wire::mcp::{Era, ListKind, LogLevel, Operation, header};
use crate::wire::rewrite::{self, Asker, Inputs, Sent};
use crate::wire::splice::object_of;

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A message on its way: its bytes, and the headers that say the same as parts of them.
#[derive(Clone, Default)]
pub(super) struct Outbound {
    pub(super) body: Bytes,
    /// Of a modern request.
    method: Option<&'static str>,
    /// The tool, prompt, resource or task that a modern request is about.
    name: Option<HeaderValue>,
    /// Those that mirror arguments, belong to a trace context, or to a GET. Boxed because they are rare, and what is sent is
    /// handed on many times.
    mirrored: Option<Box<HeaderMap>>,
}

impl Outbound {
    /// A message that is not mirrored.
    pub(super) fn of(body: Vec<u8>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// No message, but the id of the event after which a stream is to go on.
    pub(super) fn after(last: Option<&str>) -> Self {
        let last = last.and_then(|id| HeaderValue::try_from(id).ok());
        let mirrored = last.map(|id| Box::new(HeaderMap::from_iter([(header::LAST_EVENT_ID, id)])));
        Self { mirrored, ..Self::default() }
    }

    /// A modern request; `name` is the tool, prompt, resource or task it is about.
    pub(super) fn modern(body: Vec<u8>, method: &'static str, name: Option<&str>) -> Self {
        let name = name.and_then(|name| HeaderValue::try_from(encode(name).as_ref()).ok());
        Self { body: body.into(), method: Some(method), name, mirrored: None }
    }

    /// A GET of what an event stream has after the event with this id.
    pub(super) fn resuming(last_event_id: HeaderValue) -> Self {
        let headers = [(ACCEPT, EVENTS), (header::LAST_EVENT_ID, last_event_id)];
        Self { mirrored: Some(Box::new(headers.into_iter().collect())), ..Self::default() }
    }

    /// The same with the headers of a trace context.
    fn traced(mut self, trace: Option<&HeaderMap>) -> Self {
        if let Some(trace) = trace {
            self.mirrored.get_or_insert_default().extend(trace.clone());
        }
        self
    }

    /// Adds the headers to those that the request has anyway.
    pub(super) fn mirror_in(&mut self, headers: &mut HeaderMap) {
        if let Some(method) = self.method {
            headers.insert(header::METHOD, HeaderValue::from_static(method));
        }
        if let Some(name) = self.name.take() {
            headers.insert(header::NAME, name);
        }
        if let Some(mirrored) = self.mirrored.take() {
            headers.extend(*mirrored);
        }
    }
}

/// A request to a server.
pub(super) enum Request<'a> {
    /// A page of a list, for the gateway itself.
    List {
        /// Of which.
        kind: ListKind,
        /// Where the list goes on.
        cursor: Option<&'a str>,
    },
    /// A client's request.
    Client(Call<'a>),
}

/// A client's request: a call of a tool, or whatever else is passed on.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// The request, as the client made it.
    pub(super) envelope: &'a Envelope,
    /// What is asked for.
    pub(super) operation: Operation,
    /// The server's own name for what it is about, or its own id of that.
    pub(super) name: &'a str,
    /// Who is behind it.
    pub(super) asker: Asker,
    /// What goes back to the server of what it has asked for.
    pub(super) inputs: Inputs<'a>,
    /// Arguments that the tool wants mirrored.
    pub(super) annotations: &'a [Annotation],
    /// Headers of the client that mirror something nobody here knows of.
    pub(super) passed_on: &'a HeaderMap,
    /// The headers of the request's trace context.
    pub(super) trace: Option<&'a HeaderMap>,
    /// Says when the server waits for the client.
    pub(super) waits: Option<&'a Waits>,
}

impl Request<'_> {
    /// From which level on whoever is behind it wants log messages.
    pub(super) fn level(&self) -> Option<LogLevel> {
        match self {
            Self::List { .. } => None,
            Self::Client(call) => call.asker.level,
        }
    }

    /// What says when the server waits for the client.
    pub(super) fn waits(&self) -> Option<&Waits> {
        match self {
            Self::Client(call) => call.waits,
            _ => None,
        }
    }

    /// Writes the request for a server of which this is known.
    ///
    /// # Errors
    /// [`UpstreamError::Unmirrorable`] if an argument cannot be mirrored; [`UpstreamError::Removed`] if it is about a task,
    /// and the server, another by now, has none.
    pub(super) fn write(&self, known: &Known, id: u64) -> Result<Outbound, UpstreamError> {
        let era = known.era();
        match (self, era) {
            (Self::List { kind, cursor }, Era::Legacy) => Ok(Outbound::of(list(id, *kind, *cursor, None))),
            (Self::List { kind, cursor }, Era::Modern) => {
                let body = list(id, *kind, *cursor, Some(&rewrite::own_meta()));
                Ok(Outbound::modern(body, kind.method(), None))
            }
            (Self::Client(call), _) if call.operation.is_about_task() && !known.runs_tasks() => {
                Err(UpstreamError::Removed)
            }
            (Self::Client(call), Era::Legacy) => Ok(Outbound::of(call.body(known, id)).traced(call.trace)),
            (Self::Client(call), Era::Modern) => {
                let named = (call.operation != Operation::Complete).then_some(call.name);
                let mut message = Outbound::modern(call.body(known, id), call.operation.method(), named);
                message.mirrored = call.mirrored()?;
                Ok(message.traced(call.trace))
            }
        }
    }
}

impl Call<'_> {
    fn body(&self, known: &Known, id: u64) -> Vec<u8> {
        let Self { envelope, operation, name, mut asker, inputs, .. } = *self;
        if !known.runs_tasks() {
            asker.capabilities = asker.capabilities.without_tasks();
        }
        rewrite::request(envelope, id, Sent { operation, name, asker, inputs, server: known.era() })
    }

    /// The headers that mirror the arguments that are sent, which are the client's byte for byte.
    fn mirrored(&self) -> Result<Option<Box<HeaderMap>>, UpstreamError> {
        if self.passed_on.is_empty() && self.annotations.is_empty() {
            return Ok(None);
        }
        let mut headers = self.passed_on.clone();
        let arguments = self.envelope.param(Param::Arguments).unwrap_or(b"{}");
        for (annotation, argument) in self.annotations.iter().zip(find(self.annotations, arguments)) {
            let unmirrorable = || UpstreamError::Unmirrorable(annotation.header.clone());
            let name = HeaderName::try_from(annotation.header.as_str()).map_err(|_| unmirrorable())?;
            headers.remove(&name);
            if let Some(value) = mirrored(argument).map_err(|_| unmirrorable())? {
                let value = HeaderValue::try_from(encode(&value).as_ref()).map_err(|_| unmirrorable())?;
                headers.try_insert(name, value).map_err(|_| unmirrorable())?;
            }
        }
        Ok(Some(Box::new(headers)))
    }
}

fn list(id: u64, kind: ListKind, cursor: Option<&str>, meta: Option<&str>) -> Vec<u8> {
    let mut members: Vec<Vec<u8>> = meta.map(|meta| format!("\"_meta\":{meta}").into_bytes()).into_iter().collect();
    members.extend(cursor.map(|cursor| {
        let mut member = b"\"cursor\":".to_vec();
        write_text(&mut member, cursor);
        member
    }));
    let mut message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{}","params":"#, kind.method()).into_bytes();
    message.extend(object_of(members.iter().map(Vec::as_slice)));
    message.push(b'}');
    message
}
