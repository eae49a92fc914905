//! Sessions with servers that outlive the process: what is kept of one, and when.
//!
//! A server with sessions keeps state behind them, such as a browser or a cart; so that a restart of the gateway does not
//! cost its clients that, the gateway goes on in the same session. One is kept from when it was opened until it has ended,
//! or the server does not know it any more. It is good for the same server, at the same place, with the same owner and the
//! same headers, and for the same tenant; if it is gone at the server all the same, it is renewed like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::Upstream;
use super::legacy::{Session, Tenant};
use super::target::Target;
use crate::policy::{ClientId, Server, ServerKey};
use crate::wire::hex;
use crate::wire::mcp::{ClientCapabilities, ProtocolVersion, ServerCapabilities};

/// Ids of requests begin somewhere below this where an earlier process has used some: far enough from where a number of
/// 32 bits ends, because some servers know no larger ones.
const FIRST_IDS: u64 = 1 << 30;

/// Where sessions with servers are kept, as texts that hold credentials. Each of these is quick.
pub trait SessionKeeper: Send + Sync {
    /// What is kept of the sessions with a server.
    fn kept(&self, server: &ServerKey) -> Vec<(Tenant, String)>;

    /// Keeps a session, in place of the tenant's last one.
    fn keep(&self, server: &ServerKey, tenant: &Tenant, session: &str);

    /// Forgets a session that is over.
    fn forget(&self, server: &ServerKey, tenant: &Tenant);
}

impl Tenant {
    /// The tenant as a text without spaces, for [`read`](Self::read); `None` for the gateway itself, which begins anew.
    #[must_use]
    pub fn written(&self) -> Option<String> {
        let Self::Client { client, session, capabilities, lane } = self else { return None };
        let session = session.map_or_else(|| "-".to_owned(), |nonce| hex::encode(&nonce));
        let client = hex::encode(client.as_str().as_bytes());
        Some(format!("{client}.{session}.{}.{lane}", capabilities.bits()))
    }

    /// The tenant of a text made by [`written`](Self::written).
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let client = String::from_utf8(hex::decode_all(parts.next()?)?).ok()?;
        let session = match parts.next()? {
            "-" => None,
            nonce => Some(hex::decode(nonce)?),
        };
        let capabilities = ClientCapabilities::from_bits(parts.next()?.parse().ok()?);
        let lane = parts.next()?.parse().ok()?;
        let client = ClientId::new(&client);
        parts.next().is_none().then_some(Self::Client { client, session, capabilities, lane })
    }
}

/// Keeps the sessions with one server.
pub(super) struct Lasting {
    keeper: Option<Arc<dyn SessionKeeper>>,
    server: Arc<Server>,
    /// Whether the upstream was taken out, so that what is kept is not its own any more.
    over: AtomicBool,
}

impl Lasting {
    pub(super) fn new(keeper: Option<Arc<dyn SessionKeeper>>, server: &Arc<Server>) -> Self {
        Self { keeper, server: Arc::clone(server), over: AtomicBool::default() }
    }

    fn keeper(&self) -> Option<(&dyn SessionKeeper, &Server)> {
        let keeper = self.keeper.as_deref().filter(|_| !self.over.load(Ordering::Relaxed))?;
        Some((keeper, &self.server))
    }

    /// Keeps a session that was just opened.
    pub(super) fn opened(&self, tenant: &Tenant, session: &Session) {
        let Some((keeper, server)) = self.keeper() else { return };
        if let Some(text) = written(session, server).filter(|_| *tenant != Tenant::Catalogue) {
            keeper.keep(&server.key, tenant, &text);
        }
    }

    /// Forgets the session of a tenant, which is over.
    pub(super) fn ended(&self, tenant: &Tenant) {
        if let Some((keeper, server)) = self.keeper().filter(|_| *tenant != Tenant::Catalogue) {
            keeper.forget(&server.key, tenant);
        }
    }

    /// Keeps and forgets nothing from now on.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Upstream {
    /// Takes up the sessions that an earlier process has left; what does not fit is forgotten.
    pub(super) fn take_up_sessions(&self) {
        let Some((keeper, server)) = self.sessions.lasting.keeper() else { return };
        let mut any = false;
        for (tenant, text) in keeper.kept(&server.key) {
            match self.session_of(&text) {
                Some(session) => {
                    any = true;
                    self.sessions.take_up(tenant, session);
                }
                None => keeper.forget(&server.key, &tenant),
            }
        }
        if any {
            // Within a session no id may occur twice, and a call of the process before may still be running in one.
            self.next_id.store(rand::random_range(1..FIRST_IDS), Ordering::Relaxed);
        }
    }

    /// The session of a text made by [`written`], if it is one with this server.
    fn session_of(&self, text: &str) -> Option<Session> {
        let mut parts = text.splitn(5, ' ');
        // SECURITY: a session is a credential, and what is behind it is the owner's of then, at the place of then.
        if parts.next()? != whose(&self.server) {
            return None;
        }
        let version = ProtocolVersion::parse(parts.next()?)?;
        let capabilities = ServerCapabilities::from_bits(parts.next()?.parse().ok()?);
        let endpoint = &self.server.endpoint;
        let place = match parts.next()? {
            "-" => endpoint.clone(),
            target => endpoint.with_target(target),
        };
        let id = HeaderValue::try_from(parts.next()?).ok()?;
        let target = Target::legacy(self, Arc::new(place), version, Some(&id));
        Some(Session::taken_up(id, version, capabilities, target))
    }
}

/// A session as it is kept: whose it is, its revision, what the server can do in it, the request target if that is not the
/// server's URL's, and the server's id for it. `None` for a session-less server.
fn written(session: &Session, server: &Server) -> Option<String> {
    let id = session.id.as_ref()?.to_str().ok()?;
    let place = &session.target.place;
    let target = if place.target == server.endpoint.target { "-" } else { &place.target };
    Some(format!("{} {} {} {target} {id}", whose(server), session.version, session.capabilities.bits()))
}

/// Tells whose sessions they are: the server's place, its owner, and the headers with which it is asked.
///
/// SECURITY: hashed, because most of it may hold a credential.
fn whose(server: &Server) -> String {
    let mut digest = Sha256::new();
    let mut part = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    };
    part(&server.endpoint.origin());
    part(&server.endpoint.target);
    part(server.owner.as_str());
    for (name, value) in server.headers.iter() {
        part(name);
        part(value);
    }
    hex::encode(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    use tokio::runtime::Builder;

    use super::*;
    use crate::log::Log;
    use crate::outbound::{Client, Trust};
    use crate::policy::{Registry, ServerId};
    use crate::upstream::Pool;
    use crate::wire::config::Secrets;

    /// Keeps in memory.
    #[derive(Default)]
    struct Shelf(Mutex<BTreeMap<(ServerKey, String), String>>);

    impl Shelf {
        fn texts(&self) -> std::sync::MutexGuard<'_, BTreeMap<(ServerKey, String), String>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl SessionKeeper for Shelf {
        fn kept(&self, server: &ServerKey) -> Vec<(Tenant, String)> {
            let texts = self.texts();
            let own = texts.iter().filter(|((key, _), _)| key == server);
            own.map(|((_, tenant), text)| (Tenant::read(tenant).unwrap(), text.clone())).collect()
        }

        fn keep(&self, server: &ServerKey, tenant: &Tenant, session: &str) {
            self.texts().insert((*server, tenant.written().unwrap()), session.to_owned());
        }

        fn forget(&self, server: &ServerKey, tenant: &Tenant) {
            self.texts().remove(&(*server, tenant.written().unwrap()));
        }
    }

    fn tenant(client: &str, session: Option<[u8; 16]>, capabilities: u16) -> Tenant {
        let capabilities = ClientCapabilities::from_bits(capabilities);
        Tenant::Client { client: ClientId::new(client), session, capabilities, lane: capabilities.bits() / 2 }
    }

    #[test]
    fn a_tenant_is_read_as_it_was_written() {
        let all = [
            tenant("alice", None, 0),
            tenant("alice", Some([0xf0; 16]), 0),
            tenant("", Some([0; 16]), 0x7f),
            tenant("a.b - \u{e9}\n/", None, u16::MAX),
        ];
        let written: Vec<String> = all.iter().map(|tenant| tenant.written().unwrap()).collect();
        for (tenant, text) in all.iter().zip(&written) {
            assert_eq!(Tenant::read(text).as_ref(), Some(tenant));
            assert!(!text.contains(['/', ' ', '\n']), "{text}");
            assert_eq!(written.iter().filter(|other| *other == text).count(), 1);
        }
        assert_eq!(Tenant::Catalogue.written(), None);
        for odd in [
            "",
            "61",
            "61.-",
            "61.-.0",
            "61.-.0.0.0",
            "61.-.x.0",
            "61.-.0.x",
            "61.00.0.0",
            "6.-.0.0",
            "ff.-.0.0",
            "61.-.65536.0",
        ] {
            assert_eq!(Tenant::read(odd), None, "{odd}");
        }
    }

    fn registry(url: &str, owner: &str, header: &str) -> Registry {
        let text = format!(
            "[clients.a]\nauth_token = '1'\n[clients.b]\nauth_token = '2'\n\
             [mcp_servers.s]\nurl = '{url}'\nfrom_client = '{owner}'\nheaders = {{ {header} }}\n"
        );
        let built = Registry::load(&text, |_| Secrets::default());
        built.registry.unwrap_or_else(|| panic!("{:?}", built.problems))
    }

    /// A pool of one server, as a process makes it that finds what an earlier one has kept.
    fn upstream(shelf: &Arc<Shelf>, registry: &Registry) -> Arc<Upstream> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut pool = Pool::new(runtime.handle().clone(), Client::new(Trust::system()), Log::none());
        pool.keep_sessions_in(Arc::<Shelf>::clone(shelf));
        pool.follow(registry);
        pool.get(&ServerId::new("s")).unwrap()
    }

    const URL: &str = "http://127.0.0.1:9/mcp?key=secret";
    const HEADER: &str = "Authorization = 'Bearer secret'";

    /// What a process keeps that opens a session of this tenant.
    fn kept(tenant: &Tenant) -> Arc<Shelf> {
        let shelf = Arc::<Shelf>::default();
        let upstream = upstream(&shelf, &registry(URL, "a", HEADER));
        let place = Arc::new(upstream.server.endpoint.clone());
        let (id, version) = (HeaderValue::from_static("id of theirs"), ProtocolVersion::V2025_03_26);
        let target = Target::legacy(&upstream, place, version, Some(&id));
        let session = Session::taken_up(id, version, ServerCapabilities::from_bits(0x155), target);
        upstream.sessions.lasting.opened(tenant, &session);
        shelf
    }

    #[test]
    fn a_session_is_taken_up_as_it_was() {
        let alice = tenant("a", Some([7; 16]), 5);
        let shelf = kept(&alice);
        assert!(shelf.texts().values().all(|text| !text.contains("secret")), "a credential of the operator's is kept");
        let upstream = upstream(&shelf, &registry(URL, "a", HEADER));
        let session = upstream.sessions.live(&alice).unwrap();
        assert_eq!(session.id.as_ref().unwrap(), "id of theirs");
        assert_eq!(session.version, ProtocolVersion::V2025_03_26);
        assert_eq!(session.capabilities, ServerCapabilities::from_bits(0x155));
        assert_eq!(*session.target.place, upstream.server.endpoint);
        assert_eq!(session.target.headers.get("mcp-session-id"), session.id.as_ref());
        assert_eq!(shelf.texts().len(), 1);
        for other in [tenant("a", None, 5), tenant("a", Some([8; 16]), 5), tenant("a", Some([7; 16]), 4)] {
            assert!(upstream.sessions.live(&other).is_none(), "{other:?}");
        }
        upstream.sessions.forget(&alice, &session);
        assert!(shelf.texts().is_empty(), "it is over");
    }

    #[test]
    fn a_session_found_where_the_url_led_goes_on_there() {
        let (shelf, bob) = (Arc::<Shelf>::default(), tenant("b", None, 0));
        let bare = registry("http://127.0.0.1:9", "a", HEADER);
        let first = upstream(&shelf, &bare);
        let (id, version) = (HeaderValue::from_static("id"), ProtocolVersion::LATEST);
        let target = Target::legacy(&first, Arc::new(first.server.endpoint.with_target("/mcp")), version, Some(&id));
        let session = Session::taken_up(id, version, ServerCapabilities::UNKNOWN, target);
        first.sessions.lasting.opened(&bob, &session);
        let session = upstream(&shelf, &bare).sessions.live(&bob).unwrap();
        assert_eq!(session.target.uri, "/mcp");
    }

    #[test]
    fn nothing_is_taken_up_of_another_place_owner_or_credential_nor_for_a_client_that_is_gone() {
        let alice = tenant("a", None, 0);
        for other in [
            registry("http://127.0.0.1:8/mcp?key=secret", "a", HEADER),
            registry("http://127.0.0.1:9/mcp?key=other", "a", HEADER),
            registry(URL, "b", HEADER),
            registry(URL, "a", "Authorization = 'Bearer other'"),
            registry(URL, "a", "X-Authorization = 'Bearer secret'"),
            registry(URL, "a", ""),
        ] {
            let shelf = kept(&alice);
            let upstream = upstream(&shelf, &other);
            assert!(upstream.sessions.live(&alice).is_none(), "{:?}", upstream.server);
            assert!(shelf.texts().is_empty(), "it is not kept any longer: {:?}", upstream.server);
        }
        let gone = tenant("gone", None, 0);
        let shelf = kept(&gone);
        assert!(upstream(&shelf, &registry(URL, "a", HEADER)).sessions.live(&gone).is_none());
        assert!(shelf.texts().is_empty());
    }

    #[test]
    fn what_is_damaged_is_not_taken_up() {
        let alice = tenant("a", None, 0);
        let whole = kept(&alice).texts().values().next().unwrap().clone();
        let (whose, _) = whole.split_once(' ').unwrap();
        let rest = ["", "2025-06-18 1 -", "1999-01-01 1 - id", "2025-06-18 x - id", "2025-06-18 1 - \n"];
        let odd = rest.map(|rest| format!("{whose} {rest}"));
        for text in odd.iter().map(String::as_str).chain(["", "x", whose]) {
            let shelf = kept(&alice);
            shelf.texts().values_mut().for_each(|kept| *kept = text.to_owned());
            assert!(upstream(&shelf, &registry(URL, "a", HEADER)).sessions.live(&alice).is_none(), "{text}");
            assert!(shelf.texts().is_empty(), "{text}");
        }
    }

    #[test]
    fn ids_of_requests_begin_anew_only_where_no_earlier_process_used_any() {
        let registry = registry(URL, "a", HEADER);
        assert_eq!(upstream(&Arc::default(), &registry).next_id(), 1);
        let begun: Vec<u64> = (0..3).map(|_| upstream(&kept(&tenant("a", None, 0)), &registry).next_id()).collect();
        assert!(begun.iter().all(|id| *id < FIRST_IDS), "{begun:?}");
        assert!(begun[0] != begun[1] || begun[1] != begun[2], "{begun:?}");
    }

    #[test]
    fn a_retired_upstream_changes_nothing_of_what_its_successor_keeps() {
        let alice = tenant("a", None, 0);
        let shelf = kept(&alice);
        let upstream = upstream(&shelf, &registry(URL, "a", HEADER));
        assert_eq!(upstream.sessions.retire().len(), 1);
        assert!(shelf.texts().is_empty());
        shelf.keep(&upstream.server.key, &alice, "of the successor");
        upstream.sessions.lasting.ended(&alice);
        upstream.sessions.clear();
        assert_eq!(shelf.texts().values().next().unwrap(), "of the successor");
    }
}
