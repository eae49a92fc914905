//! What a server offers: its tools, as the server describes them.

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
    /// The server's instructions to models.
    pub instructions: Option<String>,
    /// What was left out, in words for the log; empty if nothing was.
    pub left_out: Vec<String>,
}

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
        walk.catalogue.left_out.push(format!("pages beyond {}", limits.list_pages));
        Ok(walk.catalogue)
    }

    /// One page of `tools/list`; `None` if the server has no tools at all.
    async fn page(
        &self,
        instructions: &mut Option<String>,
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
                "nextCursor" => self.cursor = text_of(value.of(bytes)).map(std::borrow::Cow::into_owned),
                _ => {}
            }
        }
        let tools = tools.ok_or_else(|| UpstreamError::NotMcp("tools/list: expected a list `tools`".into()))?;
        for entry in elements_of(bytes, tools) {
            self.bytes += entry.end - entry.start;
            if self.catalogue.tools.len() >= most || self.bytes > most_bytes {
                self.catalogue.left_out.push(format!("tools beyond {most} or {most_bytes} bytes"));
                self.cursor = None;
                break;
            }
            match tool(bytes, entry) {
                Ok(tool) if self.names.insert(tool.name.clone()) => self.catalogue.tools.push(tool),
                Ok(tool) => self.catalogue.left_out.push(format!("a second `{}`", tool.name)),
                Err(why) => self.catalogue.left_out.push(why),
            }
        }
        Ok(())
    }
}

/// Reads one entry of a list.
fn tool(page: &Bytes, entry: Span) -> Result<Tool, String> {
    let mut name = None;
    let mut members: Vec<Member> = Vec::new();
    let mut start = entry.start + 1;
    for (key, value) in members_of(page, entry) {
        // From the end of the value before, less the comma and white space between them.
        let between = page.get(start..value.start).unwrap_or_default();
        let skipped = between.iter().position(|&b| b == b'"').unwrap_or(0);
        let text = page.slice(start + skipped..value.end);
        start = value.end;
        if key == "name" {
            name = text_of(value.of(page)).map(std::borrow::Cow::into_owned);
        }
        if key == "execution" && needs_tasks(page, value) {
            return Err(format!("`{}`, which runs only as a task", name.unwrap_or_default()));
        }
        members.retain(|m| m.key != key);
        members.push(Member { key: key.into_owned(), text, value: page.slice(value.range()) });
    }
    match name {
        Some(name) if !name.is_empty() => Ok(Tool { name, members }),
        _ => Err("a tool without a name".into()),
    }
}

/// Whether `execution.taskSupport` is `required`: such a tool cannot be called plainly (protocol.md 4.9).
fn needs_tasks(page: &[u8], execution: Span) -> bool {
    let support = members_of(page, execution).into_iter().find(|(key, _)| key == "taskSupport");
    support.is_some_and(|(_, value)| text_of(value.of(page)).as_deref() == Some("required"))
}
