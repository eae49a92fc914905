//! What one client sees: exposed name → (server, own name), and the bytes of its lists, page by page.
//!
//! Names are clean: a tool or prompt keeps its own, with the server's `tool_prefix` if it has one; URIs are the same
//! everywhere. Where two servers offer the same name or URI the first in the client's order has it and the other's is
//! hidden: a call goes to the winner only and is never tried on another, because a tool may have side effects. Whether
//! something is in a view is decided by `policy`, once, when the view is made; a call uses the permit of that moment.
//!
//! A page ends where the next multiple of `page_size` begins, wherever it began: a walk that was put out of step by a
//! change falls into step again, and so all walks share the same pages. Source: protocol.md 4.8.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::paging::{Mark, Order};
use super::{ClientState, Gateway, GatewayError, Principal, Session, Snapshot};
use crate::policy::{ClientId, Decider, Permit, Registry, ServerKey, Target};
use crate::upstream::{Catalogue, Member, Upstream};
use crate::wire::json::{Span, members_of, text_of, write_text};
use crate::wire::mcp::{ListKind, ProtocolVersion};
use crate::wire::seal::{Cursor, Sealer};
use crate::wire::splice::object_of;
use crate::wire::uri_template::Template;

/// Revisions that are served different lists, see [`fits`].
const SHAPES: usize = 4;
/// How long to wait before looking again whether another registry is wholly in force.
const REPLACING: Duration = Duration::from_millis(1);

/// What one client sees. Belongs to one registry, or to several under which the client sees the same.
pub struct View {
    /// The newest of those registries.
    generation: AtomicU64,
    /// The pool's epoch up to which the catalogues below are known to be the current ones.
    epoch: AtomicU64,
    /// Whose view it is.
    client: ClientId,
    /// The servers in the client's order.
    sources: Vec<Source>,
    /// The first of them of which nothing was known yet, by its position.
    unsettled: Option<usize>,
    /// Whether a server of the registry was another in the pool, or not there: both are being replaced, or were after the
    /// request began.
    torn: bool,
    /// Each in the place that its kind has in [`ListKind::ALL`].
    lists: [List; ListKind::ALL.len()],
    /// The client, as its cursors name it.
    principal: [u8; 16],
    /// Entries on one page.
    page_size: usize,
}

/// One list of a view.
struct List {
    kind: ListKind,
    /// Positions in `entries` by exposed name.
    by_name: HashMap<String, usize>,
    entries: Vec<Entry>,
    /// The templates, read; only in a list of these, each in the place of its entry.
    templates: Vec<Template>,
    /// The results, for each shape (see `fits`) every page, made when first asked for.
    pages: [Vec<OnceLock<Bytes>>; SHAPES],
    /// Where the entries stand and where those stood that are gone; only for lists of several pages.
    order: Option<Order>,
    /// The entries in short, made when first asked for.
    digest: OnceLock<u64>,
}

impl List {
    fn new(kind: ListKind) -> Self {
        let (by_name, entries, templates) = (HashMap::new(), Vec::new(), Vec::new());
        let (pages, digest) = (Default::default(), OnceLock::new());
        Self { kind, by_name, entries, templates, pages, order: None, digest }
    }

    fn find(&self, exposed: &str) -> Option<&Entry> {
        self.by_name.get(exposed).and_then(|at| self.entries.get(*at))
    }

    /// Makes room for the pages, and takes down the order of their entries if there are several.
    fn divide(&mut self, page_size: usize, earlier: Option<&Order>) {
        let count = self.entries.len().div_ceil(page_size).max(1);
        self.pages = std::array::from_fn(|_| std::iter::repeat_with(OnceLock::new).take(count).collect());
        self.order = (count > 1 || earlier.is_some()).then(|| Order::new(self.marks(), earlier));
    }

    /// Where the list goes on after this entry.
    fn after(&self, last: &Mark) -> usize {
        match &self.order {
            Some(order) => order.after(last),
            None => Order::new(self.marks(), None).after(last),
        }
    }

    fn marks(&self) -> impl Iterator<Item = Mark> {
        self.entries.iter().map(Entry::mark)
    }
}

/// One page of a list.
pub struct Page {
    /// The result, or for modern clients all of it but its first brace.
    pub bytes: Bytes,
    /// For how long it will do, in milliseconds; 0 for legacy revisions, which have no place for it.
    pub ttl_ms: u64,
}

/// One server of a view, as it was when the view was made.
struct Source {
    upstream: Arc<Upstream>,
    catalogue: Arc<Catalogue>,
    /// Whether there was a catalogue, or nobody has to wait for one.
    settled: bool,
}

impl Source {
    fn new(upstream: Arc<Upstream>) -> Self {
        let offer = upstream.offer();
        Self { upstream, settled: offer.is_settled(), catalogue: offer.catalogue }
    }

    fn is_current(&self) -> bool {
        let offer = self.upstream.offer();
        self.settled == offer.is_settled() && Arc::ptr_eq(&self.catalogue, &offer.catalogue)
    }
}

/// One entry of a list of a view.
pub(super) struct Entry {
    pub(super) permit: Permit,
    pub(super) upstream: Arc<Upstream>,
    /// The name under which the client knows it.
    exposed: String,
    /// Where its description is: position in `sources`, position in the catalogue.
    at: (usize, usize),
}

impl Entry {
    /// The name under which the client knows it.
    pub(super) fn exposed(&self) -> &str {
        &self.exposed
    }

    fn mark(&self) -> Mark {
        Mark { server: self.upstream.server().key, name: self.permit.name().into() }
    }
}

impl View {
    fn list(&self, kind: ListKind) -> &List {
        let [tools, prompts, resources, templates] = &self.lists;
        match kind {
            ListKind::Tools => tools,
            ListKind::Prompts => prompts,
            ListKind::Resources => resources,
            ListKind::Templates => templates,
        }
    }

    /// The entry of a list that the client knows under this name.
    pub(super) fn find(&self, kind: ListKind, exposed: &str) -> Option<&Entry> {
        self.list(kind).find(exposed)
    }

    /// Where the resource of this URI is read, if the client may read it: at the server that lists it, or else at the first
    /// with a template that it fits, or else at the only one that could have it. The registry is one of those that the view
    /// belongs to.
    ///
    /// A server may give out URIs that it lists nowhere. Whether such a one may be read is decided by the same rules.
    pub(super) fn resource(&self, registry: &Registry, uri: &str) -> Option<(Permit, Arc<Upstream>)> {
        if let Some(entry) = self.find(ListKind::Resources, uri) {
            return Some((entry.permit.clone(), Arc::clone(&entry.upstream)));
        }
        let decide = |upstream: &Arc<Upstream>, client| {
            let verdict = registry.decide(client, upstream.id(), Target::Resource(uri)).verdict;
            Some((verdict.ok()?, Arc::clone(upstream)))
        };
        let templates = self.list(ListKind::Templates);
        let mut fitting = templates.entries.iter().zip(&templates.templates).filter(|(_, t)| t.matches(uri));
        if let Some(found) = fitting.find_map(|(entry, _)| decide(&entry.upstream, entry.permit.client())) {
            return Some(found);
        }
        let sources = self.sources.iter().filter(|source| source.catalogue.has_resources());
        let mut allowed = sources.filter_map(|source| decide(&source.upstream, &self.client));
        allowed.next().filter(|_| allowed.next().is_none())
    }

    /// The result of a list for a client of this revision, from this position to the end of its page; for modern clients
    /// (`None`) without its first brace, so that what else a result says can be put in front. The same view gives the same
    /// bytes.
    fn page(&self, kind: ListKind, version: Option<ProtocolVersion>, start: usize, sealer: &Sealer) -> Bytes {
        let shape = match version {
            Some(ProtocolVersion::V2024_11_05 | ProtocolVersion::V2025_03_26) => 0,
            Some(ProtocolVersion::V2025_06_18) => 1,
            Some(ProtocolVersion::V2025_11_25) => 2,
            None => 3,
        };
        let list = self.list(kind);
        let made = || self.write_page(list, version, start, sealer).into();
        let pages = list.pages.get(shape).filter(|_| start.is_multiple_of(self.page_size));
        let page = pages.and_then(|pages| pages.get(start / self.page_size));
        page.map_or_else(made, |page| page.get_or_init(made).clone())
    }

    /// What the client sees of a list in short: another for every other list, and the same for the same.
    pub(super) fn digest(&self, kind: ListKind) -> u64 {
        let list = self.list(kind);
        *list.digest.get_or_init(|| self.digest_of(list))
    }

    fn digest_of(&self, list: &List) -> u64 {
        let mut hasher = DefaultHasher::new();
        for entry in &list.entries {
            let (source, at) = entry.at;
            let listed = self.sources.get(source).and_then(|source| source.catalogue.list(list.kind).get(at));
            (&entry.exposed, listed.map(|listed| listed.digest)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether the view was made while another registry was being put in force, and may lack a server for that.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Whether nothing was known yet of some server.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled.is_some()
    }

    /// Whether a client may hold cursors of this view or of those before it.
    pub(super) fn has_cursors(&self) -> bool {
        self.lists.iter().any(|list| list.order.is_some())
    }

    /// For how long the lists will do, in milliseconds: as long as every server of the view says that its own do, and no
    /// longer than `most`.
    fn ttl_ms(&self, most: Duration) -> u64 {
        let shortest = self.sources.iter().map(|source| source.upstream.lasts()).min().unwrap_or_default();
        shortest.min(most).as_millis() as u64
    }

    /// Where an entry is described: what its server offers, and where the entry stands in that.
    pub(super) fn described(&self, entry: &Entry) -> (Arc<Catalogue>, usize) {
        let (source, at) = entry.at;
        (self.sources.get(source).map(|source| Arc::clone(&source.catalogue)).unwrap_or_default(), at)
    }

    /// The tools in the order of the client's lists.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.list(ListKind::Tools).entries.iter()
    }

    /// The tools as the client names them, in the order of its lists.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries().map(Entry::exposed)
    }

    fn write_page(&self, list: &List, version: Option<ProtocolVersion>, start: usize, sealer: &Sealer) -> Vec<u8> {
        let end = (start / self.page_size + 1) * self.page_size;
        let page = list.entries.get(start..end.min(list.entries.len())).unwrap_or_default();
        let open = if version.is_some() { "{" } else { "" };
        let mut out = format!("{open}\"{}\":[", list.kind.member()).into_bytes();
        for (position, entry) in page.iter().enumerate() {
            let (source, at) = entry.at;
            let source = self.sources.get(source);
            let Some(listed) = source.and_then(|s| s.catalogue.list(list.kind).get(at)) else { continue };
            if position > 0 {
                out.push(b',');
            }
            let key = list.kind.key();
            let mut name = format!("\"{key}\":").into_bytes();
            write_text(&mut name, &entry.exposed);
            let members = listed.members.iter().filter(|m| fits(m, version));
            out.extend(object_of(members.map(|m| if m.key == key { name.as_slice() } else { &m.text })));
        }
        out.push(b']');
        if let Some(last) = page.last().filter(|_| end < list.entries.len()) {
            out.extend_from_slice(b",\"nextCursor\":");
            write_text(&mut out, &self.cursor(list.kind, last).seal(sealer));
        }
        out.push(b'}');
        out
    }

    /// The cursor of the page that follows this entry.
    fn cursor(&self, list: ListKind, last: &Entry) -> Cursor {
        let (server, name) = (*last.upstream.server().key.as_bytes(), last.permit.name().to_owned());
        Cursor { list, principal: self.principal, server, name }
    }

    /// Whether the view is still what it would be if it were made now.
    fn is_current(&self, generation: u64, epoch: u64) -> bool {
        if self.generation.load(Ordering::Acquire) != generation {
            return false;
        }
        if self.epoch.load(Ordering::Acquire) == epoch {
            return true;
        }
        let same = self.sources.iter().all(Source::is_current);
        if same {
            self.epoch.store(epoch, Ordering::Release);
        }
        same
    }

    /// Whether the view was made for this registry.
    pub(super) fn belongs_to(&self, snapshot: &Snapshot) -> bool {
        self.generation.load(Ordering::Acquire) == snapshot.generation
    }

    /// Makes the view that of a newer registry, under which the client sees the same; false if a server of it was
    /// replaced, or its pages would be others.
    pub(super) fn carry_over(&self, snapshot: &Snapshot) -> bool {
        let registry = snapshot.registry();
        let kept = |source: &Source| {
            registry.server(source.upstream.id()).is_some_and(|server| server == source.upstream.server())
        };
        let same = self.page_size == registry.settings().page_size && self.sources.iter().all(kept);
        if same {
            self.generation.store(snapshot.generation, Ordering::Release);
        }
        same
    }

    /// The first server of which nothing was known yet, if it might offer this before the one that has it now.
    fn undecided(&self, wanted: Option<Wanted<'_>>) -> Option<&Arc<Upstream>> {
        let unsettled = self.unsettled?;
        let winner = match wanted {
            Some(Wanted(kind, name)) => self.find(kind, name).map_or(usize::MAX, |entry| entry.at.0),
            None => usize::MAX,
        };
        self.sources.get(unsettled).filter(|_| unsettled < winner).map(|source| &source.upstream)
    }
}

/// An entry that a client asks for, as it names it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a>(pub ListKind, pub &'a str);

/// Whether a member of an entry's description may be shown to a client of this revision, or to a modern one (protocol.md
/// 4.6, 4.9).
fn fits(member: &Member, version: Option<ProtocolVersion>) -> bool {
    // Tasks of 2025-11-25 are not relayed, so nobody is told about them.
    let Some(version) = version else { return member.key != "execution" };
    match member.key.as_str() {
        "execution" => false,
        "title" => version >= ProtocolVersion::V2025_06_18,
        "outputSchema" => version >= ProtocolVersion::V2025_06_18 && is_object_schema(&member.value),
        "icons" => version >= ProtocolVersion::V2025_11_25,
        _ => true,
    }
}

/// Whether a schema's root says `"type": "object"`, the only root that legacy clients know.
fn is_object_schema(schema: &[u8]) -> bool {
    let whole = Span { start: 0, end: schema.len() };
    let root = members_of(schema, whole).into_iter().find(|(key, _)| key == "type");
    root.is_some_and(|(_, value)| text_of(value.of(schema)).as_deref() == Some("object"))
}

impl Gateway {
    /// One page of what a request for a list answers a client of this revision, in its session if it has one: the first, or
    /// the one that a cursor stands for.
    ///
    /// # Errors
    /// [`GatewayError::InvalidParams`] for a cursor that was not given to this client for this list.
    pub async fn list(
        &self,
        snapshot: &Snapshot,
        principal: &Principal,
        session: &Session,
        kind: ListKind,
        version: Option<ProtocolVersion>,
        cursor: Option<&str>,
    ) -> Result<Page, GatewayError> {
        let last = cursor.map(|cursor| self.read_cursor(principal, kind, cursor)).transpose()?;
        let view = self.view_of(snapshot, principal, None).await;
        let start = last.map_or(0, |last| view.list(kind).after(&last));
        // A list that changes while it is walked is not the one that its first page was of.
        if session.version().is_some() && cursor.is_none() {
            session.shown(kind, view.digest(kind));
        }
        Ok(Page {
            bytes: view.page(kind, version, start, &self.keys.cursors),
            ttl_ms: version.map_or_else(|| view.ttl_ms(snapshot.registry().settings().refresh), |_| 0),
        })
    }

    /// The entry after which a list goes on.
    fn read_cursor(&self, principal: &Principal, kind: ListKind, cursor: &str) -> Result<Mark, GatewayError> {
        let whose = principal.state().digest;
        Cursor::open(&self.keys.cursors, cursor)
            // SECURITY: a cursor is worth nothing to another client, so that nobody learns from it what is where.
            .filter(|cursor| cursor.list == kind && cursor.principal == whose)
            .map(|cursor| Mark { server: ServerKey::from_bytes(cursor.server), name: cursor.name.into() })
            .ok_or(GatewayError::InvalidParams("unknown cursor"))
    }

    /// What a client sees. Made on first use, and again when its part of the registry or one of the catalogues changed.
    ///
    /// Waits for servers of which nothing is known yet, `list_timeout` at most; for no others.
    pub async fn view(&self, snapshot: &Snapshot, client: &ClientId) -> Arc<View> {
        self.decided_view(snapshot, client, &self.client(client), None).await
    }

    /// The same, but waits only for servers that might have this.
    pub(super) async fn view_with(&self, snapshot: &Snapshot, client: &ClientId, wanted: Wanted<'_>) -> Arc<View> {
        self.decided_view(snapshot, client, &self.client(client), Some(wanted)).await
    }

    /// The same for a client that has signed in, for which nothing has to be looked up. Ready at once nearly always.
    pub async fn view_of(&self, snapshot: &Snapshot, principal: &Principal, wanted: Option<Wanted<'_>>) -> Arc<View> {
        let (client, state) = (principal.client(), &**principal.state());
        let view = self.view_as_known(snapshot, client, state);
        if !view.torn && view.undecided(wanted).is_none() {
            return view;
        }
        // Boxed because it is rare and large.
        Box::pin(self.decided_view(snapshot, client, state, wanted)).await
    }

    async fn decided_view(
        &self,
        snapshot: &Snapshot,
        client: &ClientId,
        state: &ClientState,
        wanted: Option<Wanted<'_>>,
    ) -> Arc<View> {
        let mut snapshot = snapshot.clone();
        let deadline = Instant::now() + snapshot.registry().settings().list_timeout;
        loop {
            let view = self.view_as_known(&snapshot, client, state);
            if view.torn && Instant::now() < deadline {
                // Not to be told that a tool is unknown because its server has moved: what comes into force decides.
                sleep(REPLACING).await;
                snapshot = self.snapshot();
                continue;
            }
            let Some(upstream) = view.undecided(wanted) else { return view };
            // They are all being asked side by side in the background; one after the other is only the waiting.
            if timeout_at(deadline, upstream.attempted()).await.is_err() {
                return view;
            }
        }
    }

    /// The view of what is known now. One request of a client makes it, the others wait for that.
    pub(super) fn view_as_known(&self, snapshot: &Snapshot, client: &ClientId, state: &ClientState) -> Arc<View> {
        let mut slot = state.view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = slot.as_ref().filter(|v| v.is_current(snapshot.generation, self.pool.epoch())) {
            return Arc::clone(view);
        }
        // A request that began before a reload must not undo it for those that come after.
        let comes_after = slot.as_ref().is_none_or(|v| v.generation.load(Ordering::Acquire) <= snapshot.generation);
        let earlier = slot.as_deref().filter(|_| comes_after);
        let view = Arc::new(self.make_view(snapshot, client, state.digest, earlier));
        if comes_after {
            *slot = Some(Arc::clone(&view));
        }
        view
    }

    /// Makes the view of what is known now. `earlier` is the view in whose place it comes, of whose lists clients may hold
    /// cursors.
    fn make_view(&self, snapshot: &Snapshot, client: &ClientId, principal: [u8; 16], earlier: Option<&View>) -> View {
        let registry = snapshot.registry();
        // Read before the catalogues: one that changes from here on makes the view outdated, not wrong.
        let epoch = self.pool.epoch();
        let servers = registry.servers_of(client);
        // SECURITY: a server that was changed since the snapshot was taken is not the one that was granted.
        let count = servers.len();
        let upstreams = servers.into_iter().filter_map(|s| self.pool.get(&s.id).filter(|u| u.server() == s));
        let sources: Vec<Source> = upstreams.map(Source::new).collect();
        let torn = sources.len() < count;
        let unsettled = sources.iter().position(|source| !source.settled);
        let (generation, page_size) = (AtomicU64::new(snapshot.generation), registry.settings().page_size);
        let mut lists = ListKind::ALL.map(List::new);
        for (position, source) in sources.iter().enumerate() {
            let decider = registry.decider(client, source.upstream.id());
            for list in &mut lists {
                self.add(list, client, position, source, &decider);
            }
        }
        for list in &mut lists {
            let order = earlier.and_then(|view| view.list(list.kind).order.as_ref());
            list.divide(page_size, order);
        }
        let (client, epoch) = (client.clone(), AtomicU64::new(epoch));
        View { generation, epoch, client, sources, unsettled, torn, lists, principal, page_size }
    }

    /// Adds to a list what a server has for it and the client may use.
    fn add(&self, list: &mut List, client: &ClientId, position: usize, source: &Source, decider: &Decider<'_>) {
        let Source { upstream, catalogue, .. } = source;
        for (at, listed) in catalogue.list(list.kind).iter().enumerate() {
            let Ok(permit) = decider.decide(target(list.kind, &listed.name)).verdict else { continue };
            let exposed = format!("{}{}", upstream.server().prefix(list.kind), listed.name);
            if let Some(winner) = list.by_name.get(&exposed) {
                self.report_hidden(list, client, &exposed, upstream, list.entries.get(*winner));
                continue;
            }
            if list.kind == ListKind::Templates {
                list.templates.push(Template::parse(&listed.name));
            }
            list.by_name.insert(exposed.clone(), list.entries.len());
            list.entries.push(Entry { permit, upstream: Arc::clone(upstream), exposed, at: (position, at) });
        }
    }

    fn report_hidden(
        &self,
        list: &List,
        client: &ClientId,
        exposed: &str,
        upstream: &Upstream,
        winner: Option<&Entry>,
    ) {
        self.log.debug("hidden by an earlier one of the same name", |r| {
            r.field("client", client).field("kind", list.kind.noun()).field("name", exposed);
            r.field("server", upstream.id());
            if let Some(winner) = winner {
                r.field("winner", winner.upstream.id());
            }
        });
    }
}

/// What is decided about where something of this kind is to be used, under its server's own name.
pub(super) fn target(kind: ListKind, name: &str) -> Target<'_> {
    match kind {
        ListKind::Tools => Target::Tool(name),
        ListKind::Prompts => Target::Prompt(name),
        ListKind::Resources | ListKind::Templates => Target::Resource(name),
    }
}
