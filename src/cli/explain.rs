//! `mcp-x explain`: whether a client may use a tool, prompt or resource, and which rule decides; the same words as `GET /explain`.

use std::fmt::Write as _;

use super::args::Question;
use super::local::{Local, known_client, load};
use super::{Failure, print};
use crate::gateway::{Explanation, Reason, Subject};
use crate::policy::ServerId;
use crate::wire::mcp::ListKind;

/// Asks the servers what they offer and prints the explanation.
///
/// # Errors
/// [`Failure`] if the configuration cannot be used or has no such client or server.
pub(super) fn run(question: &Question) -> Result<(), Failure> {
    let (registry, problems) = load(&question.config)?;
    let client = known_client(&registry, &question.client)?;
    let server = question.server.as_deref().map(ServerId::new);
    if let Some(unknown) = server.as_ref().filter(|id| registry.server(id).is_none()) {
        return Err(Failure(format!("no such server `{}` in [mcp_servers]", unknown.as_str().escape_debug())));
    }
    let local = Local::start(registry, problems)?;
    let snapshot = local.gateway.snapshot();
    let explanation = local.gateway.explain(&snapshot, &client, &question.subject, server.as_ref(), |_| true);
    let explanation = local.runtime.block_on(explanation);
    print(&told(question, &explanation))
}

/// The explanation for people: the answer, then every server that was looked at.
fn told(question: &Question, explanation: &Explanation) -> String {
    let Question { client, subject: Subject { kind, name }, .. } = question;
    let verb = match kind {
        ListKind::Tools => "call",
        ListKind::Prompts => "get",
        ListKind::Resources | ListKind::Templates => "read",
    };
    let reason = explanation.reason.about(*kind);
    let mut text = match &explanation.server {
        Some(server) => format!("yes: {client} may {verb} `{name}` of server {server}: {reason}\n"),
        None => format!("no: {client} may not {verb} `{name}`: {reason}\n"),
    };
    for candidate in &explanation.candidates {
        let verdict = if candidate.allowed { "yes" } else { "no" };
        // A string takes every write.
        let _ = write!(text, "  {}: {verdict}: {}", candidate.server, candidate.reason.about(*kind));
        let _ = match candidate.reason {
            Reason::Unknown => writeln!(text),
            _ => writeln!(text, " (server {})", candidate.health),
        };
    }
    text
}
