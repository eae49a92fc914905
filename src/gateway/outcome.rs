//! The response to a request that was passed on, as the client gets it: results, errors, and why there is no answer.
//!
//! Source: protocol.md 4.2, 4.6.

use super::GatewayError;
use super::error::{data_of_uri, names_uri, not_found_code};
use super::flight::Over;
use super::relay::{Call, Client, Outgoing};
use crate::log::cut;
use crate::upstream::{Answer, Outcome, UpstreamError};
use crate::wire::jsonrpc::{Envelope, ErrorObject};
use crate::wire::mcp::{Era, Operation, ProtocolVersion, code};
use crate::wire::rewrite;
use crate::wire::rewrite::{Instead, ResultType};
use crate::wire::splice::Splice;

/// Codes of JSON-RPC servers' own making without a shared meaning, and those of MCP that mean something between the
/// gateway and the server only; they stay there.
const PRIVATE_CODES: std::ops::RangeInclusive<i64> = -32099..=-32000;

/// Bytes of a server's text that go into an error of ours.
const LONGEST_MESSAGE: usize = 1024;

impl Call {
    /// A response as the client gets it (protocol.md 4.6).
    ///
    /// `None` if there is none yet: the server has asked for something, and the client is being asked for it.
    pub(super) fn response(&mut self, answer: &Answer, response: &Envelope) -> Option<Outgoing> {
        if answer.era() == Era::Modern && response.result().is_some() {
            match rewrite::result_type(response) {
                ResultType::Complete if self.is_astray(response) => {
                    return Some(self.not_a_task("expected the task that was asked for, without `requestState`"));
                }
                ResultType::Complete => {}
                ResultType::InputRequired => return self.input_required(response),
                ResultType::Task => return Some(self.begun_task(answer, response)),
                ResultType::Unknown => {
                    let what = "expected a complete result".to_owned();
                    return Some(self.failure(UpstreamError::NotMcp(what)));
                }
            }
        }
        Some(self.final_response(answer, response))
    }

    /// A modern server needs something before it goes on. A modern client is told; a legacy one is asked, and there is no
    /// response yet.
    fn input_required(&mut self, response: &Envelope) -> Option<Outgoing> {
        let questions = rewrite::questions(response);
        let Some(needed) = questions.needed.filter(|_| self.operation.may_ask()) else {
            let what = "expected no other requests for input than MCP has".to_owned();
            return Some(self.failure(UpstreamError::NotMcp(what)));
        };
        if let Some(missing) = self.client.capabilities().lacks(needed) {
            self.slot.ended(Outcome::Result);
            let message = format!("the server needs a capability that the client did not declare: {missing}");
            let data = Some(format!(r#"{{"requiredCapabilities":{missing}}}"#).into());
            let error = ErrorObject { code: code::MISSING_CAPABILITY, message, data };
            return Some(match self.client {
                Client::Modern(_) => self.error(&error),
                Client::Legacy(..) => self.told(&error),
            });
        }
        match &self.client {
            Client::Modern(_) => self.ask_modern(response, questions.state),
            Client::Legacy(..) => self.ask_legacy(response, questions.state),
        }
    }

    fn final_response(&mut self, answer: &Answer, response: &Envelope) -> Outgoing {
        self.slot.ended(if response.result().is_some() { Outcome::Result } else { Outcome::Error });
        match response.error() {
            Some(error) => self.server_error(answer, response, error),
            // The client would not know which of its requests it is about.
            None if response.id().is_none() => self.error(&ErrorObject::new(code::INTERNAL_ERROR, "unreadable error")),
            None => self.result(answer, response),
        }
    }

    fn result(&self, answer: &Answer, response: &Envelope) -> Outgoing {
        let bytes = match &self.client {
            Client::Legacy(version, ..) => {
                rewrite::result_for_legacy(response, self.lease.id(), *version, answer.era())
            }
            Client::Modern(client) => {
                let longest = (self.operation == Operation::Read).then_some(self.longest);
                let task = client.tasks.id();
                let instead = Instead { state: None, task: task.as_deref(), longest };
                rewrite::result_for_modern(response, self.lease.id(), answer.era(), instead)
            }
        };
        Outgoing::Response(bytes, None)
    }

    /// The response to a call that its server answers with an error.
    fn server_error(&self, answer: &Answer, response: &Envelope, error: ErrorObject) -> Outgoing {
        match error.code {
            // Says nothing about what the server offers.
            _ if self.operation == Operation::Complete => {}
            code::INVALID_PARAMS if self.operation.is_about_task() => {}
            // Perhaps what it is about is gone.
            code::INVALID_PARAMS | code::RESOURCE_NOT_FOUND => answer.upstream().refresh_soon(),
            code::METHOD_NOT_FOUND => answer.upstream().doubt(),
            _ => {}
        }
        match (error.code, answer.era(), &self.client) {
            (code::METHOD_NOT_FOUND, ..) if self.operation == Operation::Complete => {
                self.own_result(br#""completion":{"values":[]}"#)
            }
            (code::METHOD_NOT_FOUND, ..) => self.gateway_error(&self.unknown()),
            // What else could be wrong with these is looked at here.
            (code::INVALID_PARAMS, ..) if matches!(self.operation, Operation::GetTask | Operation::CancelTask) => {
                self.gateway_error(&self.unknown())
            }
            (code::RESOURCE_NOT_FOUND, ..) if self.operation == Operation::Read => self.not_found(error),
            (code::INVALID_PARAMS, _, Client::Legacy(..)) if self.operation == Operation::Read && names_uri(&error) => {
                self.not_found(error)
            }
            (code::MISSING_CAPABILITY, Era::Modern, Client::Modern(_)) => self.passed_on(response, error),
            (code::MISSING_CAPABILITY, Era::Modern, Client::Legacy(..)) => self.told(&error),
            (code::URL_ELICITATION_REQUIRED, Era::Legacy, client) => match client {
                Client::Legacy(ProtocolVersion::V2025_11_25, can, _) if can.opens_urls() => {
                    self.passed_on(response, error)
                }
                Client::Legacy(..) => self.told(&error),
                Client::Modern(client) => self.opens_first(client, error),
            },
            (number, ..) if PRIVATE_CODES.contains(&number) => {
                self.report("server answered with an error of its own", &error);
                self.error(&ErrorObject::new(code::INTERNAL_ERROR, cut(&error.message, LONGEST_MESSAGE)))
            }
            _ => self.passed_on(response, error),
        }
    }

    /// The server's error for a resource that is not there, with the client's code for it, and which one it is.
    fn not_found(&self, error: ErrorObject) -> Outgoing {
        let code = not_found_code(self.client.era());
        let data = if names_uri(&error) { error.data } else { Some(data_of_uri(&self.subject.name)) };
        self.error(&ErrorObject { code, data, ..error })
    }

    /// A result of the gateway's own, given as its members.
    pub(super) fn own_result(&self, members: &[u8]) -> Outgoing {
        let result = rewrite::own_result(self.lease.id(), self.client.era(), members);
        Outgoing::Response(vec![result.into()], None)
    }

    /// An error as the server wrote it.
    fn passed_on(&self, response: &Envelope, error: ErrorObject) -> Outgoing {
        if response.id().is_none() {
            return self.error(&error);
        }
        let spliced = Splice::new(response.bytes()).replace_if(response.id_span(), self.lease.id());
        Outgoing::Response(spliced.pieces(response.bytes()), Some(error.code))
    }

    /// An error that the client has no code for: as the result of a tool that failed, or as an internal one.
    pub(super) fn told(&self, error: &ErrorObject) -> Outgoing {
        self.report("server answered with an error of its own", error);
        if self.operation != Operation::Call {
            return self.error(&ErrorObject::new(code::INTERNAL_ERROR, cut(&error.message, LONGEST_MESSAGE)));
        }
        let text = rewrite::text_block(cut(&error.message, LONGEST_MESSAGE));
        self.own_result(&[b"\"content\":[", text.as_slice(), b"],\"isError\":true"].concat())
    }

    /// The response to a call that failed without an answer: the log says why, the client as much as it may know.
    pub(super) fn failure(&mut self, error: UpstreamError) -> Outgoing {
        self.slot.failed(&error);
        self.report("call failed", &error);
        let error = match error {
            UpstreamError::Removed => self.unknown(),
            error => GatewayError::Upstream { subject: self.subject.clone(), error },
        };
        self.gateway_error(&error)
    }

    /// What is said if there is nothing that the request is about.
    fn unknown(&self) -> GatewayError {
        match self.operation.is_about_task() {
            true => GatewayError::UnknownTask,
            false => GatewayError::Unknown(self.subject.clone()),
        }
    }

    /// The response to a call that the client may not make any more.
    pub(super) fn withdrawn(&mut self, over: Over) -> Outgoing {
        self.slot.ended(Outcome::Withdrawn);
        self.report("call ended", &over);
        self.error(&ErrorObject::new(code::INTERNAL_ERROR, over.to_string()))
    }

    fn gateway_error(&self, error: &GatewayError) -> Outgoing {
        self.error(&error.to_rpc(self.client.era()))
    }

    pub(super) fn error(&self, error: &ErrorObject) -> Outgoing {
        Outgoing::Response(vec![error.to_message(Some(self.lease.id())).into()], Some(error.code))
    }

    pub(super) fn report(&self, event: &str, reason: &dyn std::fmt::Display) {
        let upstream = &self.lease.sent().upstream;
        upstream.log().warn(event, |r| {
            r.text("req", self.request.as_str())
                .field(self.subject.kind.word(), &self.subject.name)
                .field("server", upstream.id())
                .field("reason", reason);
        });
    }
}
