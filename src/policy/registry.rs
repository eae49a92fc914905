//! [`Registry`]: everything the gateway is told at one instant, checked and indexed.
//!
//! Never changed once it is built, so that readers share it freely. Knows who owns what and which grants there are,
//! under the rules of section 6 of the design; deciding with them is `access`, recognising a client is `auth`.
//! `model` has what it is made of, `build` makes it from a configuration.

mod build;
mod model;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::wire::config::{Lines, Place, Settings, Shares};
pub use build::Built;
pub use model::{Client, ClientId, Grant, Headers, Patterns, ProtocolPin, Reach, Server, ServerId, ServerKey, Who};

/// Everything the gateway is told at one instant. Immutable.
pub struct Registry {
    settings: Settings,
    lines: Arc<Lines>,
    clients: Vec<ClientSlot>,
    client_index: HashMap<ClientId, usize>,
    servers: Vec<ServerSlot>,
    server_index: HashMap<ServerId, usize>,
    /// The `"*"` grants, by the index of their server.
    everyone: BTreeMap<usize, Arc<Grant>>,
    /// SHA-256 of every token.
    tokens: HashMap<[u8; 32], ClientId>,
    /// Names in `[allow]` that no server has yet.
    granted_ahead: BTreeSet<ServerId>,
}

struct ClientSlot {
    client: Client,
    /// Indexes of its servers, ascending.
    owned: Vec<usize>,
    /// Its grants, by the index of their server.
    granted: BTreeMap<usize, Arc<Grant>>,
}

struct ServerSlot {
    server: Arc<Server>,
    /// Where its table begins.
    at: u32,
    /// Whether the operator wrote its owner.
    by_operator: bool,
    /// All its grants in the order of the file, those to unknown clients included.
    grants: Vec<(Who, Arc<Grant>)>,
}

impl Registry {
    /// `[gateway]`.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A client by its name.
    #[must_use]
    pub fn client(&self, id: &ClientId) -> Option<&Client> {
        self.client_slot(id).map(|slot| &slot.client)
    }

    /// Whether a client may do what only admins may.
    #[must_use]
    pub fn is_admin(&self, id: &ClientId) -> bool {
        self.client(id).is_some_and(|client| client.admin)
    }

    /// A server by its name.
    #[must_use]
    pub fn server(&self, id: &ServerId) -> Option<&Arc<Server>> {
        self.server_slot(id).map(|(_, slot)| &slot.server)
    }

    /// All clients in the order of the file.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = &Client> {
        self.clients.iter().map(|slot| &slot.client)
    }

    /// All servers in the order of the file.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = &Arc<Server>> {
        self.servers.iter().map(|slot| &slot.server)
    }

    /// Where a server's table begins.
    #[must_use]
    pub fn place_of(&self, server: &ServerId) -> Option<Place> {
        self.server_slot(server).map(|(_, slot)| self.place(slot.at))
    }

    /// The grants on a server in the order of the file, those to unknown clients included.
    pub fn grants_on(&self, server: &ServerId) -> impl Iterator<Item = (&Who, &Grant)> {
        let grants = self.server_slot(server).map(|(_, slot)| slot.grants.as_slice()).unwrap_or_default();
        grants.iter().map(|(who, grant)| (who, grant.as_ref()))
    }

    /// Which addresses a server may live at that this client brings over REST.
    ///
    /// SECURITY: strangers must not reach into the gateway's own network; an unknown client counts as a stranger.
    #[must_use]
    pub fn reach_of(&self, client: &ClientId) -> Reach {
        let operators = self.client(client).is_some_and(|client| client.registered.is_none());
        if operators || self.settings.allow_private_upstreams { Reach::Private } else { Reach::Public }
    }

    /// Whether `[allow]` has something under this name, be there a server or not.
    #[must_use]
    pub fn is_granted_on(&self, server: &ServerId) -> bool {
        self.granted_ahead.contains(server) || self.server_slot(server).is_some_and(|(_, slot)| !slot.grants.is_empty())
    }

    /// The servers a client owns, in the order of the file.
    #[must_use]
    pub fn owned_by(&self, client: &ClientId) -> Vec<&Arc<Server>> {
        let owned = self.client_slot(client).map(|slot| slot.owned.as_slice()).unwrap_or_default();
        owned.iter().filter_map(|index| self.servers.get(*index)).map(|slot| &slot.server).collect()
    }

    /// The servers of which a client may see something, in the order in which they win names: its own, then those
    /// granted by owners that the operator wrote, then those of self-registered owners; each in the order of the file.
    ///
    /// Costs as much as the client's servers and the `"*"` grants, however many servers there are.
    #[must_use]
    pub fn servers_of(&self, client: &ClientId) -> Vec<&Arc<Server>> {
        let Some(slot) = self.client_slot(client) else {
            return Vec::new();
        };
        let granted: BTreeSet<usize> = slot.granted.keys().chain(self.everyone.keys()).copied().collect();
        let reachable = |index: &usize| {
            let server = self.servers.get(*index)?;
            let anything = self.grants_for(slot, *index).any(|(_, grant)| grant.allows());
            (server.server.owner != slot.client.id && anything && self.shared(server, &slot.client)).then_some(server)
        };
        let granted: Vec<&ServerSlot> = granted.iter().filter_map(reachable).collect();
        let owned = slot.owned.iter().filter_map(|index| self.servers.get(*index));
        let operators = granted.iter().copied().filter(|server| server.by_operator);
        let registered = granted.iter().copied().filter(|server| !server.by_operator);
        owned.chain(operators).chain(registered).map(|server| &server.server).collect()
    }

    /// Whether a client may use anything of a server.
    #[must_use]
    pub fn may_use(&self, client: &ClientId, server: &ServerId) -> bool {
        match self.relation(client, server) {
            Relation::Owner { .. } => true,
            Relation::Granted { grants, .. } => grants.iter().any(|(_, grant)| grant.allows()),
            Relation::NoSuchClient | Relation::NoSuchServer | Relation::NoGrant | Relation::NotShared => false,
        }
    }

    /// Tells whether a client may see and call the same as under another registry, its servers being the same in
    /// order and in how they are reached.
    #[must_use]
    pub fn same_for(&self, other: &Self, client: &ClientId) -> bool {
        let (ours, theirs) = (self.servers_of(client), other.servers_of(client));
        let same = |server: &&Arc<Server>| server.owner == *client || self.same_grants(other, client, &server.id);
        ours == theirs && ours.iter().all(same)
    }

    fn same_grants(&self, other: &Self, client: &ClientId, server: &ServerId) -> bool {
        let (ours, theirs) = (self.grants_between(client, server), other.grants_between(client, server));
        let same = |(a, b): (&(Who, &Grant), &(Who, &Grant))| a.0 == b.0 && a.1.same(b.1);
        ours.len() == theirs.len() && ours.iter().zip(&theirs).all(same)
    }

    fn grants_between(&self, client: &ClientId, server: &ServerId) -> Vec<(Who, &Grant)> {
        let (Some(client), Some((index, _))) = (self.client_slot(client), self.server_slot(server)) else {
            return Vec::new();
        };
        self.grants_for(client, index).collect()
    }

    /// The client that a token, of which this is the SHA-256, belongs to.
    pub(super) fn client_of_token(&self, digest: &[u8; 32]) -> Option<&ClientId> {
        self.tokens.get(digest)
    }

    /// The place of an offset in the file.
    pub(super) fn place(&self, at: u32) -> Place {
        self.lines.place(at)
    }

    /// What `access` needs to know of a client and a server.
    pub(super) fn relation(&self, client: &ClientId, server: &ServerId) -> Relation<'_> {
        let Some(client) = self.client_slot(client) else {
            return Relation::NoSuchClient;
        };
        let Some((index, slot)) = self.server_slot(server) else {
            return Relation::NoSuchServer;
        };
        let (client_id, server) = (&client.client.id, &slot.server);
        if server.owner == *client_id {
            return Relation::Owner { client: client_id, server };
        }
        let grants: Vec<_> = self.grants_for(client, index).collect();
        if grants.is_empty() {
            Relation::NoGrant
        } else if self.shared(slot, &client.client) {
            Relation::Granted { client: client_id, server, grants }
        } else {
            Relation::NotShared
        }
    }

    /// The grants that bind a client at a server: its own and that of everyone.
    fn grants_for<'a>(&'a self, client: &'a ClientSlot, server: usize) -> impl Iterator<Item = (Who, &'a Grant)> {
        let own = client.granted.get(&server).map(|g| (Who::Client(client.client.id.clone()), g.as_ref()));
        let everyone = self.everyone.get(&server).map(|g| (Who::Everyone, g.as_ref()));
        own.into_iter().chain(everyone)
    }

    /// Whether the grants of a server's owner reach the client at all.
    fn shared(&self, server: &ServerSlot, client: &Client) -> bool {
        self.settings.shares == Shares::All || server.by_operator || client.registered.is_some()
    }

    fn client_slot(&self, id: &ClientId) -> Option<&ClientSlot> {
        self.clients.get(*self.client_index.get(id)?)
    }

    fn server_slot(&self, id: &ServerId) -> Option<(usize, &ServerSlot)> {
        let index = *self.server_index.get(id)?;
        Some((index, self.servers.get(index)?))
    }
}

/// How a client stands to a server.
pub(super) enum Relation<'a> {
    NoSuchClient,
    NoSuchServer,
    Owner {
        client: &'a ClientId,
        server: &'a Arc<Server>,
    },
    NoGrant,
    /// Granted by a self-registered owner to a client that `shares = "operator"` keeps such grants from.
    NotShared,
    Granted {
        client: &'a ClientId,
        server: &'a Arc<Server>,
        grants: Vec<(Who, &'a Grant)>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::config::Secrets;

    const CLIENTS: &str = "
        [clients]
        alice = { auth_token = '1' }
        bob = { auth_token = '2' }
        carol = { registered = 2026-01-01T00:00:00Z }
        dave = { registered = 2026-01-01T00:00:00Z }
        [mcp_servers]
        carols = { url = 'http://c/', from_client = 'carol', registered_by = 'carol' }
        bobs = { url = 'http://b/', from_client = 'bob' }
        nobodys = { url = 'http://n/', from_client = 'gone' }
        strangers = { url = 'http://s/', from_client = 'gone', registered_by = 'gone' }
        alices = { url = 'http://a/', from_client = 'alice' }
        alices2 = { url = 'http://a2/', from_client = 'alice' }
    ";

    #[track_caller]
    fn registry(text: &str) -> Registry {
        let built = Registry::load(&format!("{CLIENTS}{text}"), |_| Secrets::default());
        built.registry.unwrap_or_else(|| panic!("{:?}", built.problems))
    }

    #[track_caller]
    fn check(text: &str, client: &str, expected: &[&str]) {
        let registry = registry(text);
        let servers = registry.servers_of(&ClientId::new(client));
        assert_eq!(servers.iter().map(|server| server.id.as_str()).collect::<Vec<_>>(), expected, "{client} {text}");
    }

    #[test]
    fn without_grants_a_client_has_its_own_servers_only() {
        check("", "alice", &["alices", "alices2"]);
        check("", "carol", &["carols"]);
        check("", "dave", &[]);
        check("", "gone", &[]);
        check("", "*", &[]);
    }

    #[test]
    fn own_servers_come_first_then_the_operators_then_strangers() {
        let all = "[allow]\nalices2.'*' = ['a']\nalices.'*' = ['a']\nstrangers.'*' = ['a']\nnobodys.'*' = ['a']\n\
                   carols.'*' = ['a']\nbobs.'*' = ['a']\nbobs.alice = ['b']\nalices.alice = ['b']\n";
        check(all, "alice", &["alices", "alices2", "bobs", "nobodys", "carols", "strangers"]);
        check(all, "bob", &["bobs", "nobodys", "alices", "alices2", "carols", "strangers"]);
        check(all, "dave", &["bobs", "nobodys", "alices", "alices2", "carols", "strangers"]);
        check(all, "carol", &["carols", "bobs", "nobodys", "alices", "alices2", "strangers"]);
        check(all, "gone", &[]);
    }

    #[test]
    fn a_grant_of_nothing_is_none() {
        check("[allow.bobs]\nalice = []", "dave", &[]);
        check("[allow.bobs]\ndave = []", "dave", &[]);
        check("[allow.bobs]\ndave = { deny = ['*'] }", "dave", &[]);
        check("[allow.bobs]\ndave = { prompts = ['*'] }", "dave", &["bobs"]);
        check("[allow.bobs]\ndave = { resources = ['*'] }\n'*' = []", "dave", &["bobs"]);
    }

    #[test]
    fn shares_keep_strangers_servers_from_the_operators_clients() {
        let text =
            "[allow]\ncarols.'*' = ['a']\ncarols.bob = ['a']\nbobs.dave = ['a']\n[gateway]\nshares = 'operator'\n";
        check(text, "alice", &["alices", "alices2"]);
        check(text, "bob", &["bobs"]);
        check(text, "carol", &["carols"]);
        check(text, "dave", &["bobs", "carols"]);
    }

    #[test]
    fn a_registry_answers_in_the_order_of_the_file() {
        let registry = registry("[allow.bobs]\nzoe = ['z']\n'*' = ['b']\nalice = { prompts = ['p'] }");
        let clients: Vec<_> = registry.clients().map(|client| client.id.as_str()).collect();
        assert_eq!(clients, ["alice", "bob", "carol", "dave"]);
        let servers: Vec<_> = registry.servers().map(|server| server.id.as_str()).collect();
        assert_eq!(servers, ["carols", "bobs", "nobodys", "strangers", "alices", "alices2"]);
        let bobs = ServerId::new("bobs");
        let tools = |(who, grant): (&Who, &Grant)| (who.to_string(), grant.tools.texts().map(str::to_owned).collect());
        let grants: Vec<(String, Vec<String>)> = registry.grants_on(&bobs).map(tools).collect();
        let expected = [("zoe", vec!["z"]), ("*", vec!["b"]), ("alice", vec![])];
        let expected = expected.map(|(who, tools)| (who.to_owned(), tools.into_iter().map(str::to_owned).collect()));
        assert_eq!(grants, expected);
        assert_eq!(registry.grants_on(&ServerId::new("none")).count(), 0);
        assert_eq!(registry.place_of(&bobs).map(|place| place.line), Some(9));
        let owned: Vec<_> = registry.owned_by(&ClientId::new("alice")).iter().map(|s| s.id.to_string()).collect();
        assert_eq!(owned, ["alices", "alices2"]);
    }

    #[test]
    fn a_key_is_the_sha_256_of_the_name() {
        let key = registry("").server(&ServerId::new("bobs")).unwrap().key;
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "39b94ddf63d38931e1c677e591a630171d578394989c457d4c2bace5a0d82cc8");
    }

    #[test]
    fn only_what_concerns_a_client_counts_as_a_change_for_it() {
        let before = registry("[allow.bobs]\nalice = ['a', 'b']\n'*' = { tools = ['c'], deny = ['d'] }\n");
        #[track_caller]
        fn check(before: &Registry, text: &str, unchanged: &[&str]) {
            let after = registry(text);
            let same: Vec<_> = before.clients().filter(|client| before.same_for(&after, &client.id)).collect();
            assert_eq!(same.iter().map(|client| client.id.as_str()).collect::<Vec<_>>(), unchanged, "{text}");
        }
        let star = "'*' = { tools = ['c'], deny = ['d'] }";
        check(
            &before,
            &format!("# moved\n\n[allow.bobs]\n{star}\nalice = ['a', 'b']"),
            &["alice", "bob", "carol", "dave"],
        );
        check(&before, &format!("[allow.bobs]\nalice = ['b', 'a']\n{star}"), &["bob", "carol", "dave"]);
        check(
            &before,
            &format!("[allow.bobs]\nalice = {{ tools = ['a', 'b'], deny = ['x'] }}\n{star}"),
            &["bob", "carol", "dave"],
        );
        check(
            &before,
            &format!("[allow.bobs]\nalice = ['a', 'b']\n{star}\n[allow.alices]\ndave = ['x']"),
            &["alice", "bob", "carol"],
        );
        check(&before, "[allow.bobs]\nalice = ['a', 'b']\n'*' = { tools = ['c'] }", &["bob"]);
    }

    #[test]
    fn a_server_is_the_same_wherever_it_stands() {
        let (before, after) = (registry(""), registry("[gateway]\npage_size = 7"));
        assert_eq!(before.server(&ServerId::new("bobs")), after.server(&ServerId::new("bobs")));
        assert_ne!(before.server(&ServerId::new("bobs")), after.server(&ServerId::new("alices")));
    }
}
