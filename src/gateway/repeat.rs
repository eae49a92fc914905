//! What a modern client is given to send again with its answers.
//!
//! What a server wants to see again is sealed to the client, the request and the time: to the server every client of the
//! gateway is the same one, so that it could not tell when one client sends what another was given. What the gateway itself
//! wants to see again, because a call waits here, goes the same way. Source: protocol.md 4.5.

use std::time::Duration;

use hyper::body::Bytes;

use super::relay::{Call, Client, Modern, Outgoing};
use super::{GatewayError, Principal};
use crate::policy::Server;
use crate::upstream::{Outcome, UpstreamError};
use crate::wire::canonical;
use crate::wire::json::{text_of, write_text};
use crate::wire::jsonrpc::{Envelope, ErrorObject};
use crate::wire::mcp::{Era, Operation, code};
use crate::wire::rewrite::Instead;
use crate::wire::seal::{RequestState, Sealer, StateKind};
use crate::wire::{question, rewrite};

/// How long a client may take to answer.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A request that a server may want to see again.
pub(super) struct Repeatable {
    /// Whose request it is.
    principal: [u8; 16],
    server: [u8; 32],
    /// Its method and what it is about, as the client names it, and its arguments.
    request: String,
    arguments: Bytes,
    /// When the request came, since the epoch.
    now: Duration,
}

impl Repeatable {
    pub(super) fn new(asker: &Principal, server: &Server, request: String, arguments: Bytes, now: Duration) -> Self {
        let (principal, server) = (asker.state().digest, *server.identity.as_bytes());
        Self { principal, server, request, arguments, now }
    }

    /// What is said of every state that is not one.
    pub(super) const UNKNOWN: &str = "unknown or expired `requestState`";

    /// The state that a client gets in the place of the server's own, or of what is kept here, as a JSON string; `None` if
    /// that is too long.
    pub(super) fn seal(&self, sealer: &Sealer, kind: StateKind, original: &[u8]) -> Option<Vec<u8>> {
        let state = RequestState {
            kind,
            principal: self.principal,
            server: self.server,
            request: canonical::digest(&self.request, &self.arguments),
            expires: (self.now + LIFETIME).as_secs(),
            original: original.to_vec(),
        };
        let mut text = Vec::new();
        write_text(&mut text, &state.seal(sealer)?);
        Some(text)
    }

    /// What is behind a state that a client sends: of which kind, and what was sealed.
    ///
    /// # Errors
    /// [`GatewayError::InvalidParams`] for one that was not given to this client for this request, or has expired.
    pub(super) fn open(&self, sealer: &Sealer, sent: &[u8]) -> Result<(StateKind, Vec<u8>), GatewayError> {
        let state = text_of(sent).and_then(|sent| RequestState::open(sealer, &sent));
        let fits = |state: &RequestState| {
            // SECURITY: each of these keeps apart what the server takes for the same.
            state.principal == self.principal
                && state.server == self.server
                && state.expires > self.now.as_secs()
                && state.request == canonical::digest(&self.request, &self.arguments)
        };
        let state = state.filter(fits).ok_or(GatewayError::InvalidParams(Self::UNKNOWN))?;
        Ok((state.kind, state.original))
    }
}

impl Call {
    /// The questions of a modern server as they are, with a state of the gateway's own.
    pub(super) fn ask_modern(&mut self, response: &Envelope, state: Option<&[u8]>) -> Option<Outgoing> {
        let Client::Modern(client) = &self.client else { return None };
        let seal = |original: &[u8]| client.repeatable.seal(&client.states, StateKind::Relay, original);
        let ours = match state.map(seal) {
            Some(None) => return Some(self.failure(UpstreamError::TooLarge(RequestState::MAX_LENGTH))),
            ours => ours.flatten(),
        };
        self.slot.ended(Outcome::Result);
        let instead = Instead { state: ours.as_deref(), ..Instead::default() };
        let asked = rewrite::result_for_modern(response, self.lease.id(), Era::Modern, instead);
        Some(Outgoing::Response(asked, None))
    }

    /// A legacy server wants URLs to be opened first (-32042). A modern client is asked to, and makes its request again.
    pub(super) fn opens_first(&self, client: &Modern, error: ErrorObject) -> Outgoing {
        if !client.capabilities.opens_urls() {
            let needed = Bytes::from_static(br#"{"requiredCapabilities":{"elicitation":{"url":{}}}}"#);
            return self.error(&ErrorObject { code: code::MISSING_CAPABILITY, data: Some(needed), ..error });
        }
        let questions = error.data.as_deref().and_then(question::elicitations_of);
        let state = client.repeatable.seal(&client.states, StateKind::Again, b"");
        match questions {
            Some(questions) if self.operation != Operation::Complete => {
                let response = question::input_required(self.lease.id(), &questions, state.as_deref());
                Outgoing::Response(vec![response.into()], None)
            }
            _ => self.error(&ErrorObject::new(code::INTERNAL_ERROR, error.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::seal::SessionId;

    fn asked(client: &str, tool: &str, arguments: &'static str, now: u64) -> Repeatable {
        let (principal, arguments) = (SessionId::principal(client), Bytes::from_static(arguments.as_bytes()));
        Repeatable { principal, server: [7; 32], request: tool.to_owned(), arguments, now: Duration::from_secs(now) }
    }

    #[test]
    fn a_state_is_good_for_its_client_and_request_and_for_a_while() {
        let sealer = Sealer::new([b"secret".as_slice()], "state");
        let first = asked("alice", "t", r#"{"a":1}"#, 1000);
        let sealed = first.seal(&sealer, StateKind::Relay, b"\"theirs\"").unwrap();
        let open = |asked: &Repeatable| asked.open(&sealer, &sealed);
        assert_eq!(
            open(&asked("alice", "t", r#"{ "a" : 1.0 }"#, 2799)),
            Ok((StateKind::Relay, b"\"theirs\"".to_vec()))
        );
        let refused = Err(GatewayError::InvalidParams(Repeatable::UNKNOWN));
        let parked = first.seal(&sealer, StateKind::Parked, b"here").unwrap();
        assert_eq!(first.open(&sealer, &parked), Ok((StateKind::Parked, b"here".to_vec())));
        assert_eq!(open(&asked("bob", "t", r#"{"a":1}"#, 1000)), refused, "another client");
        assert_eq!(open(&asked("alice", "u", r#"{"a":1}"#, 1000)), refused, "another tool");
        assert_eq!(open(&asked("alice", "t", r#"{"a":2}"#, 1000)), refused, "other arguments");
        assert_eq!(open(&asked("alice", "t", r#"{"a":1}"#, 2800)), refused, "too late");
        assert_eq!(
            open(&Repeatable { server: [8; 32], ..asked("alice", "t", r#"{"a":1}"#, 1000) }),
            refused,
            "another server"
        );
        assert_eq!(first.open(&sealer, b"\"theirs\""), refused, "the server's own");
        assert_eq!(first.open(&sealer, b"7"), refused);
        let sessions = Sealer::new([b"secret".as_slice()], "session");
        assert_eq!(first.open(&sessions, &sealed), refused, "another kind of value");
    }
}
