//! What one client sees: exposed name → (server, own name), and the bytes of its lists.
//!
//! Names are clean: a tool keeps its own, with the server's `tool_prefix` if it has one. Where two servers offer the same
//! name the first in the client's order has it and the other's is hidden: a call goes to the winner only and is never
//! tried on another, because a tool may have side effects. Whether a tool is in a view is decided by `policy`, once, when
//! the view is made; a call uses the permit of that moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use hyper::body::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{Gateway, Snapshot};
use crate::policy::{ClientId, Permit, Server, Target};
use crate::upstream::{Catalogue, Member, Tool, Upstream};
use crate::wire::json::{Span, members_of, text_of, write_text};
use crate::wire::mcp::ProtocolVersion;
use crate::wire::splice::object_of;

/// Revisions that are served different lists, see [`fits`].
const SHAPES: usize = 3;

/// What one client sees. Belongs to one registry.
pub struct View {
    generation: u64,
    /// The pool's epoch up to which the catalogues below are known to be the current ones.
    epoch: AtomicU64,
    /// The servers in the client's order, each with the catalogue the view was made from.
    sources: Vec<(Arc<Upstream>, Arc<Catalogue>)>,
    /// Positions in `tools` by exposed name.
    by_name: HashMap<String, usize>,
    tools: Vec<Entry>,
    /// The results of `tools/list`, one for each shape (see `fits`), made when first asked for.
    lists: [OnceLock<Bytes>; SHAPES],
}

/// One tool of a view.
pub(super) struct Entry {
    pub(super) permit: Permit,
    pub(super) upstream: Arc<Upstream>,
    /// The name under which the client knows it.
    exposed: String,
    /// Where its description is: position in `sources`, position in the catalogue.
    at: (usize, usize),
}

impl Entry {
    /// Whether the client knows the tool under another name than the server.
    pub(super) fn is_renamed(&self) -> bool {
        self.exposed != self.permit.name()
    }
}

impl View {
    /// The tool that the client knows under this name.
    pub(super) fn tool(&self, exposed: &str) -> Option<&Entry> {
        self.by_name.get(exposed).and_then(|at| self.tools.get(*at))
    }

    /// The `result` of `tools/list` for a client of this revision. The same view gives the same bytes.
    #[must_use]
    pub fn list(&self, version: ProtocolVersion) -> Bytes {
        let shape = match version {
            ProtocolVersion::V2024_11_05 | ProtocolVersion::V2025_03_26 => 0,
            ProtocolVersion::V2025_06_18 => 1,
            ProtocolVersion::V2025_11_25 => 2,
        };
        let made = || self.write_list(version).into();
        self.lists.get(shape).map_or_else(made, |list| list.get_or_init(made).clone())
    }

    /// The tools as the client names them, in the order of its lists.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|entry| entry.exposed.as_str())
    }

    fn write_list(&self, version: ProtocolVersion) -> Vec<u8> {
        let mut out = b"{\"tools\":[".to_vec();
        for (position, entry) in self.tools.iter().enumerate() {
            let (source, at) = entry.at;
            let Some(tool) = self.sources.get(source).and_then(|(_, c)| c.tools.get(at)) else { continue };
            if position > 0 {
                out.push(b',');
            }
            let mut name = b"\"name\":".to_vec();
            write_text(&mut name, &entry.exposed);
            let members = tool.members.iter().filter(|m| fits(m, version));
            out.extend(object_of(members.map(|m| if m.key == "name" { name.as_slice() } else { &m.text })));
        }
        out.extend_from_slice(b"]}");
        out
    }

    /// Whether the view is still what it would be if it were made now.
    fn is_current(&self, generation: u64, epoch: u64) -> bool {
        if self.generation != generation {
            return false;
        }
        if self.epoch.load(Ordering::Acquire) == epoch {
            return true;
        }
        let same = self.sources.iter().all(|(upstream, catalogue)| Arc::ptr_eq(&upstream.offer().catalogue, catalogue));
        if same {
            self.epoch.store(epoch, Ordering::Release);
        }
        same
    }
}

/// Whether a member of a tool's description may be shown to a client of this revision (protocol.md 4.6, 4.9).
fn fits(member: &Member, version: ProtocolVersion) -> bool {
    match member.key.as_str() {
        // Tasks of 2025-11-25 are not relayed, so nobody is told about them.
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
    /// What a client sees. Made on first use, and again when the registry or one of the catalogues changed.
    ///
    /// Waits for servers that have never been asked yet, `list_timeout` at most; for no others.
    pub async fn view(&self, snapshot: &Snapshot, client: &ClientId) -> Arc<View> {
        let state = self.client(client);
        let known = state.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(view) = known.filter(|v| v.is_current(snapshot.generation, self.pool.epoch())) {
            return view;
        }
        let view = Arc::new(self.make_view(snapshot, client).await);
        let mut slot = state.view.lock().unwrap_or_else(PoisonError::into_inner);
        // A request that began before a reload must not undo it for those that come after.
        if slot.as_ref().is_none_or(|v| v.generation <= view.generation) {
            *slot = Some(Arc::clone(&view));
        }
        view
    }

    async fn make_view(&self, snapshot: &Snapshot, client: &ClientId) -> View {
        let registry = snapshot.registry();
        let upstreams: Vec<_> = registry.servers_of(client).into_iter().filter_map(|s| self.pool.get(&s.id)).collect();
        let deadline = Instant::now() + registry.settings().list_timeout;
        for upstream in &upstreams {
            // The fetches run side by side in the background; one after the other is only the waiting.
            let _ = timeout_at(deadline, upstream.attempted()).await;
        }
        // Read before the catalogues: one that changes from here on makes the view outdated, not wrong.
        let epoch = self.pool.epoch();
        let sources: Vec<_> = upstreams.into_iter().map(|u| (Arc::clone(&u), u.offer().catalogue)).collect();
        let mut view = View {
            generation: snapshot.generation,
            epoch: AtomicU64::new(epoch),
            sources,
            by_name: HashMap::new(),
            tools: Vec::new(),
            lists: Default::default(),
        };
        for (position, (upstream, catalogue)) in view.sources.iter().enumerate() {
            let decider = registry.decider(client, upstream.id());
            for (at, tool) in catalogue.tools.iter().enumerate() {
                let Ok(permit) = decider.decide(Target::Tool(&tool.name)).verdict else { continue };
                let exposed = exposed_name(upstream.server(), tool);
                if let Some(winner) = view.by_name.get(&exposed) {
                    self.report_hidden(client, &exposed, upstream, view.tools.get(*winner));
                    continue;
                }
                view.by_name.insert(exposed.clone(), view.tools.len());
                view.tools.push(Entry { permit, upstream: Arc::clone(upstream), exposed, at: (position, at) });
            }
        }
        view
    }

    fn report_hidden(&self, client: &ClientId, exposed: &str, upstream: &Upstream, winner: Option<&Entry>) {
        self.log.debug("tool hidden by an earlier one of the same name", |r| {
            r.field("client", client).field("tool", exposed).field("server", upstream.id());
            if let Some(winner) = winner {
                r.field("winner", winner.upstream.id());
            }
        });
    }
}

fn exposed_name(server: &Server, tool: &Tool) -> String {
    format!("{}{}", server.tool_prefix, tool.name)
}
