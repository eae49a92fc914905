//! What a server offers: its tools, as the server describes them.

use std::borrow::Cow;
use std::collections::HashSet;

use hyper::body::Bytes;

use super::channel::Channel;
use super::error::UpstreamError;
use super::legacy::Tenant;
use crate::wire::json::{JsonType, Span, elements_of, members_of, text_of, type_of, write_text};
use crate::wire::jsonrpc::Envelope;
use crate::wire::mcp::{code, method};

/// One tool as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The server's own name for it.
    pub name: String,
    /// The members of its description, each `"key": value` as it is written, in order.
    pub members: Vec<Member>,
}

/// One member of a tool's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key, unescaped.
    pub key: String,
    /// Key and value as they are written.
    pub text: Bytes,
    /// The value alone.
    pub value: Bytes,
}

/// What a server offers, as it was when it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Tools in the server's order.
    pub tools: Vec<Tool>,
    /// The server's instructions to models, at most 2 KiB.
    pub instructions: Option<Box<str>>,
    /// What was left out, in words for the log, the first few; empty if nothing was.
    pub left_out: Vec<String>,
}

/// What was left out is told up to this number.
const TOLD: usize = 20;
/// Longest name of a tool that is taken, in bytes; the specification has 128.
const LONGEST_NAME: usize = 256;

/// A catalogue while its pages come in.
struct Walk {
    catalogue: Catalogue,
    names: HashSet<String>,
    bytes: usize,
    cursor: Option<String>,
}

impl Channel {
    /// Asks the server for everything it offers, page by page.
    ///
    /// # Errors
    /// [`UpstreamError`] of the page that failed; then nothing of what came before is used.
    pub(super) async fn fetch_catalogue(&self) -> Result<Catalogue, UpstreamError> {
        let limits = &self.settings.limits;
        let mut walk = Walk { catalogue: Catalogue::default(), names: HashSet::new(), bytes: 0, cursor: None };
        for _ in 0..limits.list_pages {
            let page = self.page(&mut walk.catalogue.instructions, walk.cursor.as_deref()).await?;
            let Some(page) = page else { return Ok(walk.catalogue) };
            walk.take(&page, limits.tools_per_server, limits.catalogue_bytes)?;
            if walk.cursor.is_none() {
                return Ok(walk.catalogue);
            }
        }
        walk.leave_out(format!("pages beyond {}", limits.list_pages));
        Ok(walk.catalogue)
    }

    /// One page of `tools/list`; `None` if the server has no tools at all.
    async fn page(
        &self,
        instructions: &mut Option<Box<str>>,
        cursor: Option<&str>,
    ) -> Result<Option<Envelope>, UpstreamError> {
        let id = self.upstream.next_id();
        let mut message =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{}","params":{{"#, method::TOOLS_LIST).into_bytes();
        if let Some(cursor) = cursor {
            message.extend_from_slice(b"\"cursor\":");
            write_text(&mut message, cursor);
        }
        message.extend_from_slice(b"}}");
        let answer = self.request(&Tenant::Catalogue, id, message).await?;
        instructions.clone_from(&answer.session().instructions);
        let response = answer.response().await?;
        match response.error() {
            Some(error) if error.code == code::METHOD_NOT_FOUND => Ok(None),
            Some(error) => Err(UpstreamError::Rpc(error)),
            None => Ok(Some(response)),
        }
    }
}

impl Walk {
    /// Adds the tools of one page.
    fn take(&mut self, page: &Envelope, most: usize, most_bytes: usize) -> Result<(), UpstreamError> {
        let bytes = page.bytes();
        let result = page.result_span().unwrap_or(Span { start: 0, end: 0 });
        let mut tools = None;
        self.cursor = None;
        for (key, value) in members_of(bytes, result) {
            match key.as_ref() {
                "tools" if type_of(value.of(bytes)) == JsonType::Array => tools = Some(value),
                "nextCursor" => self.cursor = text_of(value.of(bytes)).map(Cow::into_owned),
                _ => {}
            }
        }
        let tools = tools.ok_or_else(|| UpstreamError::NotMcp("tools/list: expected a list `tools`".into()))?;
        for entry in elements_of(bytes, tools) {
            self.bytes += entry.end - entry.start;
            if self.catalogue.tools.len() >= most || self.bytes > most_bytes {
                self.leave_out(format!("tools beyond {most} or {most_bytes} bytes"));
                self.cursor = None;
                break;
            }
            match tool(entry.of(bytes)) {
                Ok(tool) if self.names.insert(tool.name.clone()) => self.catalogue.tools.push(tool),
                Ok(tool) => self.leave_out(format!("a second `{}`", tool.name)),
                Err(why) => self.leave_out(why),
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, what: String) {
        if self.catalogue.left_out.len() < TOLD {
            self.catalogue.left_out.push(what);
        }
    }
}

/// Reads one entry of a list. It is copied, so that it does not keep the page it came with.
pub(super) fn tool(entry: &[u8]) -> Result<Tool, String> {
    let entry = Bytes::copy_from_slice(entry);
    let mut name = None;
    let mut members: Vec<Member> = Vec::new();
    let mut start = 1;
    for (key, value) in members_of(&entry, Span { start: 0, end: entry.len() }) {
        // From the end of the value before, less the comma and white space between them.
        let between = entry.get(start..value.start).unwrap_or_default();
        let skipped = between.iter().position(|&b| b == b'"').unwrap_or(0);
        let text = entry.slice(start + skipped..value.end);
        start = value.end;
        if key == "name" {
            name = text_of(value.of(&entry)).map(Cow::into_owned);
        }
        if key == "execution" && needs_tasks(&entry, value) {
            return Err("a tool that runs only as a task".into());
        }
        members.retain(|m| m.key != key);
        members.push(Member { key: key.into_owned(), text, value: entry.slice(value.range()) });
    }
    match name {
        Some(name) if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) => {
            Err(format!("a tool whose name is empty, over {LONGEST_NAME} bytes, or has control characters"))
        }
        Some(name) => Ok(Tool { name, members }),
        None => Err("a tool without a name".into()),
    }
}

/// Whether `execution.taskSupport` is `required`: such a tool cannot be called plainly (protocol.md 4.9).
fn needs_tasks(page: &[u8], execution: Span) -> bool {
    let support = members_of(page, execution).into_iter().find(|(key, _)| key == "taskSupport");
    support.is_some_and(|(_, value)| text_of(value.of(page)).as_deref() == Some("required"))
}
