//! What a server offers: its tools, prompts, resources and templates, as the server describes them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use hyper::body::Bytes;

use super::channel::Channel;
use super::error::UpstreamError;
use super::legacy::Tenant;
use super::probe::Known;
use super::request::Request;
use crate::wire::headers::{self, Annotation};
use crate::wire::json::{self, JsonType, Span, elements_of, members_of, text_of, type_of, whole_members_of};
use crate::wire::jsonrpc::Envelope;
use crate::wire::mcp::{Era, ListKind, code};

/// One entry of a list as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The server's own name for it: of a tool or prompt the name, of a resource the URI, of a template its text.
    pub name: String,
    /// The members of its description, each `"key": value` as it is written, in order.
    pub members: Vec<Member>,
    /// Arguments of a tool that a modern server wants mirrored in headers.
    pub annotations: Vec<Annotation>,
    /// Its description in short, to tell it from another of the same name.
    pub digest: u64,
}

/// One member of an entry's description.
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
    /// The lists in the server's order, each in the place that its kind has in [`ListKind::ALL`].
    pub(super) lists: [Vec<Listed>; ListKind::ALL.len()],
    /// Whether the server answers when it is asked for its resources, even if it lists none.
    pub(super) resources: bool,
    /// The server's instructions to models, at most 2 KiB.
    pub instructions: Option<Box<str>>,
    /// What was left out, in words for the log, the first few; empty if nothing was.
    pub left_out: Vec<String>,
}

impl Catalogue {
    /// One of the lists, in the server's order.
    #[must_use]
    pub fn list(&self, kind: ListKind) -> &[Listed] {
        self.lists.get(kind as usize).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn list_mut(&mut self, kind: ListKind) -> &mut Vec<Listed> {
        let [tools, prompts, resources, templates] = &mut self.lists;
        match kind {
            ListKind::Tools => tools,
            ListKind::Prompts => prompts,
            ListKind::Resources => resources,
            ListKind::Templates => templates,
        }
    }

    /// Whether the server may have resources, listed or not.
    #[must_use]
    pub fn has_resources(&self) -> bool {
        self.resources || !self.list(ListKind::Resources).is_empty() || !self.list(ListKind::Templates).is_empty()
    }

    /// The arguments that the tool at this position wants mirrored in headers; none if there is no such tool.
    #[must_use]
    pub fn annotations(&self, at: usize) -> &[Annotation] {
        self.list(ListKind::Tools).get(at).map(|tool| tool.annotations.as_slice()).unwrap_or_default()
    }
}

/// A catalogue that was just fetched.
#[derive(Default)]
pub(super) struct Fetched {
    pub(super) catalogue: Catalogue,
    /// For how long a modern server says that it will do.
    pub(super) ttl: Option<Duration>,
}

/// What was left out is told up to this number.
const TOLD: usize = 20;
/// Longest name of a tool or prompt that is taken, in bytes; the specification has 128.
const LONGEST_NAME: usize = 256;
/// Longest URI of a resource that is taken, in bytes.
const LONGEST_URI: usize = 2048;

/// A catalogue while its pages come in.
struct Walk {
    fetched: Fetched,
    names: HashSet<String>,
    bytes: usize,
    cursor: Option<String>,
}

impl Channel {
    /// Asks the server for everything it offers, list by list and page by page.
    ///
    /// # Errors
    /// [`UpstreamError`] of the page that failed; then nothing of what came before is used.
    pub(super) async fn fetch_catalogue(&self) -> Result<Fetched, UpstreamError> {
        let fetched = self.walk_catalogue().await;
        if fetched.is_err() {
            // A server that failed may come back as another.
            self.upstream.forget();
        }
        fetched
    }

    async fn walk_catalogue(&self) -> Result<Fetched, UpstreamError> {
        let mut walk = Walk { fetched: Fetched::default(), names: HashSet::new(), bytes: 0, cursor: None };
        let known = match self.upstream.era() {
            Some(era) if self.upstream.is_doubted() => self.known_anew(era).await?,
            _ => self.known().await?,
        };
        if let Known::Modern(server) = known {
            walk.fetched.catalogue.instructions.clone_from(&server.instructions);
        }
        for kind in ListKind::ALL {
            if kind == ListKind::Tools || self.offers(kind).await? {
                self.walk_list(&mut walk, kind).await?;
            }
        }
        Ok(walk.fetched)
    }

    /// Whether the server says that it has such a list, or has said nothing at all.
    async fn offers(&self, kind: ListKind) -> Result<bool, UpstreamError> {
        let capabilities = match self.known().await? {
            Known::Modern(server) => server.capabilities,
            Known::Legacy => self.session(&Tenant::Catalogue).await?.capabilities,
        };
        Ok(capabilities.lists(kind))
    }

    async fn walk_list(&self, walk: &mut Walk, kind: ListKind) -> Result<(), UpstreamError> {
        (walk.cursor, walk.names) = (None, HashSet::new());
        match self.walk_pages(walk, kind).await {
            // Without its tools a server is of no use; without anything else its tools still are.
            Err(error) if is_of_list(&error) && (kind != ListKind::Tools || !self.offers(kind).await?) => {
                self.keep_list(walk, kind);
                walk.leave_out(match error {
                    // Its words may be other ones each time.
                    UpstreamError::Rpc(error) => format!("{}: error {}", kind.method(), error.code),
                    // Which list it is about is said in it.
                    UpstreamError::NotMcp(what) => what,
                    error => format!("{}: {error}", kind.method()),
                });
                Ok(())
            }
            walked => walked,
        }
    }

    async fn walk_pages(&self, walk: &mut Walk, kind: ListKind) -> Result<(), UpstreamError> {
        let limits = &self.settings.limits;
        for _ in 0..limits.list_pages {
            let instructions = &mut walk.fetched.catalogue.instructions;
            let page = self.page(instructions, kind, walk.cursor.as_deref()).await?;
            let Some((page, era)) = page else { return Ok(()) };
            walk.fetched.catalogue.resources |= kind == ListKind::Resources;
            walk.take(kind, &page, era, limits.tools_per_server, limits.catalogue_bytes)?;
            if walk.cursor.is_none() {
                return Ok(());
            }
        }
        walk.leave_out(format!("pages of {} beyond {}", kind.method(), limits.list_pages));
        Ok(())
    }

    /// Takes over what was known of a list that its server does not give now.
    fn keep_list(&self, walk: &mut Walk, kind: ListKind) {
        let known = self.upstream.offer().catalogue;
        let Fetched { catalogue, ttl } = &mut walk.fetched;
        *catalogue.list_mut(kind) = known.list(kind).to_vec();
        catalogue.resources |= kind == ListKind::Resources;
        // Nobody has said how long that will do.
        *ttl = Some(Duration::ZERO);
    }

    /// One page of a list and the era of the server that gave it; `None` if the server has no such list at all.
    async fn page(
        &self,
        instructions: &mut Option<Box<str>>,
        kind: ListKind,
        cursor: Option<&str>,
    ) -> Result<Option<(Envelope, Era)>, UpstreamError> {
        let id = self.upstream.next_id();
        let answer = self.request(&Tenant::Catalogue, id, &Request::List { kind, cursor }).await?;
        let era = answer.era();
        if era == Era::Legacy {
            *instructions = answer.instructions();
        }
        let response = answer.response().await?;
        match response.error() {
            Some(error) if error.code == code::METHOD_NOT_FOUND => {
                // A modern server that knows no lists of tools has none, or is a legacy one by now.
                let doubtful = era == Era::Modern && kind == ListKind::Tools;
                let other = doubtful && self.known_anew(era).await?.era() != era;
                if other { Box::pin(self.page(instructions, kind, cursor)).await } else { Ok(None) }
            }
            Some(error) => Err(UpstreamError::Rpc(error)),
            None => Ok(Some((response, era))),
        }
    }
}

/// Whether an error is about the list that was asked for, so that the server may give the others all the same.
fn is_of_list(error: &UpstreamError) -> bool {
    use UpstreamError::{BadStatus, NotMcp, Rpc, Silent, TooLarge};
    matches!(error, Rpc(_) | BadStatus(_) | NotMcp(_) | TooLarge(_) | Silent(_))
}

impl Walk {
    /// Adds the entries of one page.
    fn take(
        &mut self,
        kind: ListKind,
        page: &Envelope,
        era: Era,
        most: usize,
        most_bytes: usize,
    ) -> Result<(), UpstreamError> {
        let bytes = page.bytes();
        let result = page.result_span().unwrap_or(Span { start: 0, end: 0 });
        let (mut entries, mut ttl) = (None, Duration::ZERO);
        self.cursor = None;
        for (key, value) in members_of(bytes, result) {
            match key.as_ref() {
                key if key == kind.member() && type_of(value.of(bytes)) == JsonType::Array => entries = Some(value),
                "ttlMs" => ttl = milliseconds(value.of(bytes)),
                "nextCursor" => self.cursor = text_of(value.of(bytes)).map(Cow::into_owned),
                _ => {}
            }
        }
        let (method, member) = (kind.method(), kind.member());
        let no_list = || UpstreamError::NotMcp(format!("{method}: expected a list `{member}`"));
        let entries = entries.ok_or_else(no_list)?;
        if era == Era::Modern {
            self.fetched.ttl = Some(self.fetched.ttl.map_or(ttl, |shortest| shortest.min(ttl)));
        }
        for entry in elements_of(bytes, entries) {
            self.bytes += entry.end - entry.start;
            let list = self.fetched.catalogue.list_mut(kind);
            if list.len() >= most || self.bytes > most_bytes {
                self.leave_out(format!("{member} beyond {most} or {most_bytes} bytes"));
                self.cursor = None;
                break;
            }
            match listed(kind, entry.of(bytes), era) {
                Ok(entry) if self.names.insert(entry.name.clone()) => list.push(entry),
                Ok(entry) => self.leave_out(format!("a second `{}`", entry.name)),
                Err(why) => self.leave_out(why),
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, what: String) {
        if self.fetched.catalogue.left_out.len() < TOLD {
            self.fetched.catalogue.left_out.push(what);
        }
    }
}

/// A number of milliseconds; what is none is zero.
fn milliseconds(value: &[u8]) -> Duration {
    Duration::from_millis(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// Reads one entry of a list. It is copied, so that it does not keep the page it came with.
pub(super) fn listed(kind: ListKind, entry: &[u8], era: Era) -> Result<Listed, String> {
    let (is_tool, noun) = (kind == ListKind::Tools, kind.noun());
    let entry = Bytes::copy_from_slice(entry);
    let (mut name, mut annotations, mut tasks) = (None, Ok(Vec::new()), false);
    let mut members: Vec<Member> = Vec::new();
    for json::Member { key, whole, value } in whole_members_of(&entry, Span { start: 0, end: entry.len() }) {
        let text = entry.slice(whole.range());
        if key == kind.key() {
            name = text_of(value.of(&entry)).map(Cow::into_owned);
        }
        if is_tool && key == "execution" {
            tasks = needs_tasks(&entry, value);
        }
        let mut member = Member { key: key.into_owned(), text, value: entry.slice(value.range()) };
        if is_tool && member.key == "inputSchema" {
            annotations = member.take_annotations(era);
        }
        members.retain(|m| m.key != member.key);
        members.push(member);
    }
    let longest = if kind.key() == "name" { LONGEST_NAME } else { LONGEST_URI };
    match name {
        Some(name) if name.is_empty() || name.len() > longest || name.contains(char::is_control) => {
            Err(format!("a {noun} whose `{}` is empty, over {longest} bytes, or has control characters", kind.key()))
        }
        Some(name) if tasks => Err(format!("tool `{name}`: runs only as a task")),
        Some(name) => match annotations {
            Ok(annotations) => {
                let digest = digest_of(&members);
                Ok(Listed { name, members, annotations, digest })
            }
            Err(why) => Err(format!("tool `{name}`: {why}")),
        },
        None => Err(format!("a {noun} without a `{}`", kind.key())),
    }
}

impl Member {
    /// The annotations of an input schema. A legacy server does not look for the headers they ask for, so that of its
    /// schemas they are taken out.
    ///
    /// # Errors
    /// Why the tool is not valid (protocol.md 2.6).
    fn take_annotations(&mut self, era: Era) -> Result<Vec<Annotation>, String> {
        if era == Era::Modern {
            return headers::annotations(&self.value);
        }
        if let Some(schema) = headers::without_annotations(&self.value) {
            let start = self.text.len() - self.value.len();
            let text: Bytes = [self.text.get(..start).unwrap_or_default(), &schema].concat().into();
            *self = Self { key: std::mem::take(&mut self.key), value: text.slice(start..), text };
        }
        Ok(Vec::new())
    }
}

/// A description in short.
fn digest_of(members: &[Member]) -> u64 {
    let mut hasher = DefaultHasher::new();
    members.iter().for_each(|member| member.text.hash(&mut hasher));
    hasher.finish()
}

/// Whether `execution.taskSupport` is `required`: such a tool cannot be called plainly (protocol.md 4.9).
fn needs_tasks(page: &[u8], execution: Span) -> bool {
    let support = members_of(page, execution).into_iter().find(|(key, _)| key == "taskSupport");
    support.is_some_and(|(_, value)| text_of(value.of(page)).as_deref() == Some("required"))
}
