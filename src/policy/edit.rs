//! What clients may change over REST: [`Edit`] → the [`Change`]s of the configuration, or why not.
//!
//! Pure rules (design 6 and 7): only marked clients are registered and unregistered here, a server belongs to who
//! brought it, nobody grants what is not its own, no name can be claimed that somebody else was given rights under.
//! A [`Draft`] takes several edits that are to be stored together: each sees what those before it did.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::registry::{ClientId, Registry, ServerId, Who};
use crate::wire::config::{Change, Limits};

/// Bytes of patterns that a registered owner may have in the file altogether.
const MOST_GRANTED: usize = 64 * 1024;

/// What somebody wants changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A new client registers itself.
    AddClient {
        /// Its name, made by the gateway and never before.
        client: ClientId,
        /// A name for people.
        label: Option<String>,
        /// Now, since the epoch.
        at: Duration,
    },
    /// A registered client is to go, with its servers and every grant to it.
    RemoveClient {
        /// Who wants it.
        by: ClientId,
        /// Which.
        client: ClientId,
    },
    /// A registered client that nobody uses any more is to go, unless it has servers.
    Collect {
        /// Which.
        client: ClientId,
    },
    /// A client brings a server.
    AddServer {
        /// Who brings it, and owns it.
        by: ClientId,
        /// The server.
        server: NewServer,
    },
    /// An owner takes its server away, and every grant on it.
    RemoveServer {
        /// Who wants it.
        by: ClientId,
        /// Which.
        server: ServerId,
    },
    /// An owner says what one client may call on its servers; on those that it does not name, nothing.
    SetAccess {
        /// The owner.
        by: ClientId,
        /// Whose access.
        client: Who,
        /// Patterns of tools, by server.
        access: Vec<(ServerId, Vec<String>)>,
    },
}

/// A server that a client brings.
#[derive(Clone, PartialEq, Eq)]
pub struct NewServer {
    /// Its name.
    pub id: ServerId,
    /// Where it lives.
    pub url: String,
    /// Headers sent to it.
    pub headers: Vec<(String, String)>,
    /// What is put before its tools' names.
    pub tool_prefix: Option<String>,
}

impl fmt::Debug for NewServer {
    /// SECURITY: the URL's query and the headers' values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewServer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why an edit is refused; the texts are for the one who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditError {
    /// Whoever asks is no client any more.
    Stranger,
    /// Clients do not register themselves here.
    Closed,
    /// It owns no server on which it could grant something.
    OwnsNothing,
    /// Some of the servers are not its own, or do not exist, which reads the same.
    NotOwned {
        /// Those, as they were asked for.
        foreign: Vec<ServerId>,
        /// Those it owns, in the order of the file.
        owned: Vec<ServerId>,
    },
    /// The one server is not its own, or does not exist, which reads the same.
    NotYours(ServerId),
    /// Grants to everyone are for admins to make.
    Everyone,
    /// Only admins may remove other clients.
    NotYou,
    /// The operator wrote this client; only the operator removes it.
    Operators(ClientId),
    /// There is no such client.
    NoSuchClient(ClientId),
    /// The name is a server's already, or rights were given under it in advance.
    NameTaken(ServerId),
    /// There are as many as may be.
    TooMany(&'static str, usize),
    /// The client has servers, so it is still of use.
    InUse,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ids: &[ServerId]| ids.iter().map(ServerId::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::Stranger => f.write_str("Invalid authentication token"),
            Self::Closed => f.write_str("Registration is closed; ask the operator for a token"),
            Self::OwnsNothing => f.write_str("You don't own any servers to grant access to"),
            Self::NotOwned { foreign, owned } => {
                let (foreign, owned) = (list(foreign), list(owned));
                write!(
                    f,
                    "You don't own these servers: {foreign}. You can only update access for servers you own: {owned}"
                )
            }
            Self::NotYours(server) => write!(f, "You don't own this server: {server}"),
            Self::Everyone => f.write_str("Only admins may grant access to everyone (`*`)"),
            Self::NotYou => f.write_str("Only admins may unregister other clients"),
            Self::Operators(client) => {
                write!(f, "Client '{client}' was written by the operator and can be removed from the file only")
            }
            Self::NoSuchClient(client) => write!(f, "No such client: '{client}'"),
            Self::NameTaken(server) => {
                write!(
                    f,
                    "The name '{server}' is taken: it occurs in [mcp_servers] or [allow]; choose another, or none"
                )
            }
            Self::TooMany(what, limit) => write!(f, "There may be {limit} {what} and no more"),
            Self::InUse => f.write_str("The client owns servers"),
        }
    }
}

impl std::error::Error for EditError {}

/// Edits that are to be stored together, on top of a registry.
pub struct Draft<'a> {
    registry: &'a Registry,
    changes: Vec<Change>,
    /// Clients that came, or went (`false`).
    clients: HashMap<ClientId, bool>,
    /// Servers that came, in order, each with its owner.
    added: Vec<(ServerId, ClientId)>,
    removed: HashSet<ServerId>,
    /// Bytes of patterns that owners have put in.
    granted: HashMap<ClientId, usize>,
    /// Clients and servers created over REST.
    registered_clients: usize,
    registered_servers: usize,
}

impl<'a> Draft<'a> {
    /// Starts with nothing changed.
    #[must_use]
    pub fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            changes: Vec::new(),
            clients: HashMap::new(),
            added: Vec::new(),
            removed: HashSet::new(),
            granted: HashMap::new(),
            registered_clients: registry.clients().filter(|client| client.registered.is_some()).count(),
            registered_servers: registry.servers().filter(|server| server.registered_by.is_some()).count(),
        }
    }

    /// Adds an edit, if the rules allow it; otherwise nothing of it.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn apply(&mut self, edit: &Edit) -> Result<(), EditError> {
        match edit {
            Edit::AddClient { client, label, at } => self.add_client(client, label.clone(), *at),
            Edit::RemoveClient { by, client } => self.remove_client(by, client),
            Edit::Collect { client } => self.collect(client),
            Edit::AddServer { by, server } => self.add_server(by, server),
            Edit::RemoveServer { by, server } => self.remove_server(by, server),
            Edit::SetAccess { by, client, access } => self.set_access(by, client, access),
        }
    }

    /// The changes of all edits, in order.
    #[must_use]
    pub fn finish(self) -> Vec<Change> {
        self.changes
    }

    fn add_client(&mut self, client: &ClientId, label: Option<String>, at: Duration) -> Result<(), EditError> {
        within("registered clients", self.registered_clients, self.limits().registered_clients)?;
        self.registered_clients += 1;
        self.clients.insert(client.clone(), true);
        self.changes.push(Change::AddClient { name: client.as_str().to_owned(), registered: at, label });
        Ok(())
    }

    fn remove_client(&mut self, by: &ClientId, client: &ClientId) -> Result<(), EditError> {
        self.known(by)?;
        if by != client && !self.registry.is_admin(by) {
            return Err(EditError::NotYou);
        }
        match self.is_registered(client) {
            None => Err(EditError::NoSuchClient(client.clone())),
            Some(false) => Err(EditError::Operators(client.clone())),
            Some(true) => {
                self.drop_client(client);
                Ok(())
            }
        }
    }

    fn collect(&mut self, client: &ClientId) -> Result<(), EditError> {
        match self.is_registered(client) {
            Some(true) if self.owned(client).is_empty() => {
                self.drop_client(client);
                Ok(())
            }
            Some(true) => Err(EditError::InUse),
            Some(false) => Err(EditError::Operators(client.clone())),
            None => Err(EditError::NoSuchClient(client.clone())),
        }
    }

    fn drop_client(&mut self, client: &ClientId) {
        for server in self.owned(client) {
            // What the operator wrote, or has made somebody else's, is not the client's to take along.
            if self.brought_by(&server).as_ref() == Some(client) {
                self.drop_server(&server);
            }
        }
        self.registered_clients = self.registered_clients.saturating_sub(1);
        self.clients.insert(client.clone(), false);
        self.changes.push(Change::RemoveClient { name: client.as_str().to_owned() });
    }

    fn add_server(&mut self, by: &ClientId, server: &NewServer) -> Result<(), EditError> {
        self.known(by)?;
        let added = self.added.iter().any(|(id, _)| *id == server.id);
        let there = self.registry.server(&server.id).is_some() || self.registry.is_granted_on(&server.id);
        // SECURITY: rights that were given under a name in advance must not fall to whoever claims the name.
        if added || (there && !self.removed.contains(&server.id)) {
            return Err(EditError::NameTaken(server.id.clone()));
        }
        let limits = self.limits();
        let (mine, most) = (limits.registered_servers_per_client, limits.registered_servers);
        let own = self.owned(by).iter().filter(|id| self.brought_by(id).as_ref() == Some(by)).count();
        within("servers of yours", own, mine)?;
        within("registered servers", self.registered_servers, most)?;
        self.registered_servers += 1;
        self.added.push((server.id.clone(), by.clone()));
        self.changes.push(Change::AddServer {
            name: server.id.as_str().to_owned(),
            url: server.url.clone(),
            owner: by.as_str().to_owned(),
            headers: server.headers.clone(),
            tool_prefix: server.tool_prefix.clone(),
            registered_by: by.as_str().to_owned(),
        });
        Ok(())
    }

    fn remove_server(&mut self, by: &ClientId, server: &ServerId) -> Result<(), EditError> {
        self.known(by)?;
        if !self.owned(by).contains(server) {
            return Err(EditError::NotYours(server.clone()));
        }
        self.drop_server(server);
        Ok(())
    }

    fn drop_server(&mut self, server: &ServerId) {
        if self.brought_by(server).is_some() {
            self.registered_servers = self.registered_servers.saturating_sub(1);
        }
        self.added.retain(|(id, _)| id != server);
        self.removed.insert(server.clone());
        self.changes.push(Change::RemoveServer { name: server.as_str().to_owned() });
    }

    fn set_access(&mut self, by: &ClientId, client: &Who, access: &[(ServerId, Vec<String>)]) -> Result<(), EditError> {
        self.known(by)?;
        let owned = self.owned(by);
        if owned.is_empty() {
            return Err(EditError::OwnsNothing);
        }
        let foreign: Vec<ServerId> =
            access.iter().map(|(id, _)| id).filter(|id| !owned.contains(id)).cloned().collect();
        if !foreign.is_empty() {
            return Err(EditError::NotOwned { foreign, owned });
        }
        match client {
            Who::Everyone if !self.registry.is_admin(by) => return Err(EditError::Everyone),
            Who::Everyone => {}
            Who::Client(client) => {
                self.is_registered(client).ok_or_else(|| EditError::NoSuchClient(client.clone()))?;
            }
        }
        self.check_granted(by, client, access, &owned)?;
        for server in owned {
            let tools = access.iter().find(|(id, _)| *id == server).map(|(_, tools)| tools.clone()).unwrap_or_default();
            let (server, client) = (server.as_str().to_owned(), client.as_str().to_owned());
            self.changes.push(Change::SetTools { server, client, tools });
        }
        Ok(())
    }

    /// SECURITY: strangers must not make the operator's file too large to be read.
    fn check_granted(
        &mut self,
        by: &ClientId,
        client: &Who,
        access: &[(ServerId, Vec<String>)],
        owned: &[ServerId],
    ) -> Result<(), EditError> {
        if self.is_registered(by) != Some(true) {
            return Ok(());
        }
        let others = owned.iter().flat_map(|server| self.registry.grants_on(server)).filter(|(who, _)| *who != client);
        let there: usize = others.flat_map(|(_, grant)| grant.tools.texts()).map(str::len).sum();
        let new: usize = access.iter().flat_map(|(_, tools)| tools).map(String::len).sum();
        let drafted = self.granted.entry(by.clone()).or_default();
        if there + *drafted + new > MOST_GRANTED {
            return Err(EditError::TooMany("bytes of patterns", MOST_GRANTED));
        }
        *drafted += new;
        Ok(())
    }

    fn limits(&self) -> &'a Limits {
        &self.registry.settings().limits
    }

    /// Whether a client registered itself; `None` if there is no such client.
    fn is_registered(&self, client: &ClientId) -> Option<bool> {
        match self.clients.get(client) {
            Some(came) => came.then_some(true),
            None => self.registry.client(client).map(|c| c.registered.is_some()),
        }
    }

    /// SECURITY: a client may have been removed between its request and this moment.
    fn known(&self, by: &ClientId) -> Result<(), EditError> {
        self.is_registered(by).map(drop).ok_or(EditError::Stranger)
    }

    /// The servers a client owns now, in the order of the file.
    fn owned(&self, client: &ClientId) -> Vec<ServerId> {
        let before = self.registry.owned_by(client).into_iter().map(|server| server.id.clone());
        let before = before.filter(|id| !self.removed.contains(id));
        let added = self.added.iter().filter(|(_, owner)| owner == client).map(|(id, _)| id.clone());
        before.chain(added).collect()
    }

    /// The client that brought a server over REST.
    fn brought_by(&self, server: &ServerId) -> Option<ClientId> {
        if let Some((_, owner)) = self.added.iter().find(|(id, _)| id == server) {
            return Some(owner.clone());
        }
        self.registry.server(server).filter(|_| !self.removed.contains(server)).and_then(|s| s.registered_by.clone())
    }
}

fn within(what: &'static str, there_are: usize, limit: usize) -> Result<(), EditError> {
    if there_are < limit { Ok(()) } else { Err(EditError::TooMany(what, limit)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::config::Secrets;

    const FILE: &str = "
[clients]
root = { auth_token = '0', admin = true }
alice = { auth_token = '1' }
bob = { auth_token = '2' }
carol = { registered = 2026-01-01T00:00:00Z }
dave = { registered = 2026-01-01T00:00:00Z }
[mcp_servers]
alices = { url = 'http://a/', from_client = 'alice' }
alices2 = { url = 'http://a2/', from_client = 'alice' }
bobs = { url = 'http://b/', from_client = 'bob' }
carols = { url = 'http://c/', from_client = 'carol', registered_by = 'carol' }
given = { url = 'http://g/', from_client = 'carol' }
[allow]
ahead.bob = ['*']
bobs.alice = ['x']
[gateway]
max_registered_clients = 3
max_registered_servers_per_client = 2
max_registered_servers = 3
";

    fn registry() -> Registry {
        let built = Registry::load(FILE, |_| Secrets::default());
        built.registry.unwrap_or_else(|| panic!("{:?}", built.problems))
    }

    fn add_client(name: &str) -> Edit {
        Edit::AddClient { client: ClientId::new(name), label: None, at: Duration::ZERO }
    }

    fn remove_client(by: &str, client: &str) -> Edit {
        Edit::RemoveClient { by: ClientId::new(by), client: ClientId::new(client) }
    }

    fn add_server(by: &str, name: &str) -> Edit {
        let server =
            NewServer { id: ServerId::new(name), url: "http://h/".to_owned(), headers: vec![], tool_prefix: None };
        Edit::AddServer { by: ClientId::new(by), server }
    }

    fn remove_server(by: &str, server: &str) -> Edit {
        Edit::RemoveServer { by: ClientId::new(by), server: ServerId::new(server) }
    }

    fn grant(by: &str, client: &str, servers: &[&str]) -> Edit {
        let client = if client == "*" { Who::Everyone } else { Who::Client(ClientId::new(client)) };
        let access = servers.iter().map(|server| (ServerId::new(server), vec!["t".to_owned()])).collect();
        Edit::SetAccess { by: ClientId::new(by), client, access }
    }

    /// Applies edits that must be allowed, and then one more; what came of that, in words, and all changes.
    #[track_caller]
    fn run(before: &[Edit], last: &Edit) -> (Result<(), String>, Vec<Change>) {
        let registry = registry();
        let mut draft = Draft::new(&registry);
        for edit in before {
            assert_eq!(draft.apply(edit), Ok(()), "{edit:?}");
        }
        let outcome = draft.apply(last).map_err(|e| e.to_string());
        (outcome, draft.finish())
    }

    #[track_caller]
    fn check(before: &[Edit], last: &Edit, expected: Result<(), &str>) {
        let (outcome, changes) = run(before, last);
        assert_eq!(outcome.as_ref().map_err(String::as_str).copied(), expected, "{last:?}");
        if expected.is_err() {
            assert_eq!(changes, all_of(before), "something of a refused edit is left: {last:?}");
        }
    }

    fn all_of(edits: &[Edit]) -> Vec<Change> {
        let registry = registry();
        let mut draft = Draft::new(&registry);
        edits.iter().for_each(|edit| draft.apply(edit).unwrap());
        draft.finish()
    }

    fn taken(name: &str) -> String {
        format!("The name '{name}' is taken: it occurs in [mcp_servers] or [allow]; choose another, or none")
    }

    #[test]
    fn a_name_cannot_be_claimed_that_was_given_rights_in_advance() {
        check(&[], &add_server("dave", "ahead"), Err(&taken("ahead")));
        check(&[], &add_server("dave", "bobs"), Err(&taken("bobs")));
        check(&[], &add_server("bob", "bobs"), Err(&taken("bobs")));
        check(&[], &add_server("dave", "free"), Ok(()));
        check(&[add_server("dave", "free")], &add_server("bob", "free"), Err(&taken("free")));
    }

    #[test]
    fn a_name_is_free_again_when_its_server_and_grants_are_gone() {
        check(&[remove_server("bob", "bobs")], &add_server("dave", "bobs"), Ok(()));
        let before = [remove_server("bob", "bobs"), add_server("dave", "bobs")];
        check(&before, &remove_server("bob", "bobs"), Err("You don't own this server: bobs"));
        check(&before, &grant("dave", "bob", &["bobs"]), Ok(()));
    }

    #[test]
    fn nobody_grants_what_is_not_its_own() {
        check(&[], &grant("dave", "bob", &[]), Err("You don't own any servers to grant access to"));
        check(&[], &grant("dave", "bob", &["alices"]), Err("You don't own any servers to grant access to"));
        let owned = "You can only update access for servers you own: alices, alices2";
        let foreign = |servers: &str| format!("You don't own these servers: {servers}. {owned}");
        check(&[], &grant("alice", "dave", &["bobs", "alices", "none"]), Err(&foreign("bobs, none")));
        // Being admin gives no server.
        check(&[], &grant("root", "bob", &["alices"]), Err("You don't own any servers to grant access to"));
    }

    #[test]
    fn a_grant_revokes_on_the_owners_other_servers_and_on_no_one_elses() {
        let set = |server: &str, tools: &[&str]| Change::SetTools {
            server: server.to_owned(),
            client: "bob".to_owned(),
            tools: tools.iter().map(|&tool| tool.to_owned()).collect(),
        };
        assert_eq!(run(&[], &grant("alice", "bob", &["alices2"])).1, [set("alices", &[]), set("alices2", &["t"])]);
        assert_eq!(run(&[], &grant("alice", "bob", &[])).1, [set("alices", &[]), set("alices2", &[])]);
    }

    #[test]
    fn everyone_is_for_admins_to_grant() {
        check(&[], &grant("alice", "*", &["alices"]), Err("Only admins may grant access to everyone (`*`)"));
        check(&[], &grant("carol", "*", &["carols"]), Err("Only admins may grant access to everyone (`*`)"));
        check(&[add_server("root", "roots")], &grant("root", "*", &["roots"]), Ok(()));
    }

    #[test]
    fn a_grant_to_nobody_is_a_slip() {
        check(&[], &grant("alice", "bbo", &["alices"]), Err("No such client: 'bbo'"));
        check(&[remove_client("dave", "dave")], &grant("alice", "dave", &["alices"]), Err("No such client: 'dave'"));
        check(&[add_client("new")], &grant("alice", "new", &["alices"]), Ok(()));
    }

    #[test]
    fn nobody_removes_somebody_elses_server() {
        for server in ["alices", "none", "ahead", "*"] {
            check(&[], &remove_server("bob", server), Err(&format!("You don't own this server: {server}")));
        }
        check(&[], &remove_server("root", "alices"), Err("You don't own this server: alices"));
        check(&[], &remove_server("alice", "alices"), Ok(()));
        check(
            &[remove_server("alice", "alices")],
            &remove_server("alice", "alices"),
            Err("You don't own this server: alices"),
        );
    }

    #[test]
    fn only_marked_clients_are_removed_and_only_by_themselves_or_admins() {
        check(&[], &remove_client("carol", "dave"), Err("Only admins may unregister other clients"));
        check(&[], &remove_client("carol", "none"), Err("Only admins may unregister other clients"));
        check(&[], &remove_client("alice", "carol"), Err("Only admins may unregister other clients"));
        let operators = "Client 'alice' was written by the operator and can be removed from the file only";
        check(&[], &remove_client("alice", "alice"), Err(operators));
        check(&[], &remove_client("root", "alice"), Err(operators));
        check(&[], &remove_client("root", "none"), Err("No such client: 'none'"));
        check(&[], &remove_client("dave", "dave"), Ok(()));
        check(&[], &remove_client("root", "dave"), Ok(()));
    }

    #[test]
    fn a_client_takes_its_servers_along_but_not_those_of_the_operator() {
        let gone = |name: &str| Change::RemoveServer { name: name.to_owned() };
        let changes = run(&[add_server("carol", "more")], &remove_client("carol", "carol")).1;
        assert_eq!(changes[1..], [gone("carols"), gone("more"), Change::RemoveClient { name: "carol".to_owned() }]);
    }

    #[test]
    fn whoever_was_removed_meanwhile_changes_nothing() {
        let gone = [remove_client("carol", "carol")];
        let stranger = Err("Invalid authentication token");
        check(&gone, &add_server("carol", "late"), stranger);
        check(&gone, &remove_server("carol", "given"), stranger);
        check(&gone, &grant("carol", "bob", &["given"]), stranger);
        check(&gone, &remove_client("carol", "dave"), stranger);
        check(&[], &add_server("none", "late"), stranger);
    }

    #[test]
    fn a_client_with_servers_is_not_collected() {
        let collect = |name: &str| Edit::Collect { client: ClientId::new(name) };
        check(&[], &collect("dave"), Ok(()));
        check(&[], &collect("carol"), Err("The client owns servers"));
        check(&[add_server("dave", "d")], &collect("dave"), Err("The client owns servers"));
        check(
            &[],
            &collect("alice"),
            Err("Client 'alice' was written by the operator and can be removed from the file only"),
        );
        check(&[], &collect("none"), Err("No such client: 'none'"));
    }

    #[test]
    fn there_are_only_so_many() {
        check(&[add_client("x")], &add_client("y"), Err("There may be 3 registered clients and no more"));
        check(&[add_client("x"), remove_client("dave", "dave")], &add_client("y"), Ok(()));
        let two = [add_server("bob", "1"), add_server("bob", "2")];
        check(&two, &add_server("bob", "3"), Err("There may be 2 servers of yours and no more"));
        check(&two, &add_server("dave", "3"), Err("There may be 3 registered servers and no more"));
        let fewer = [two.as_slice(), &[remove_server("bob", "1")]].concat();
        check(&fewer, &add_server("dave", "3"), Ok(()));
    }

    #[test]
    fn strangers_cannot_fill_the_file_with_patterns() {
        let fill = |by: &str, client: &str, server: &str, bytes: usize| {
            let client = Who::Client(ClientId::new(client));
            Edit::SetAccess {
                by: ClientId::new(by),
                client,
                access: vec![(ServerId::new(server), vec!["x".repeat(bytes)])],
            }
        };
        let half = MOST_GRANTED / 2;
        check(&[], &fill("carol", "bob", "carols", MOST_GRANTED), Ok(()));
        let too_many = "There may be 65536 bytes of patterns and no more";
        check(&[], &fill("carol", "bob", "carols", MOST_GRANTED + 1), Err(too_many));
        let before = [fill("carol", "bob", "carols", half)];
        check(&before, &fill("carol", "dave", "carols", half), Ok(()));
        check(&before, &fill("carol", "dave", "carols", half + 1), Err(too_many));
        check(&[], &fill("alice", "bob", "alices", 2 * MOST_GRANTED), Ok(()));
    }

    #[test]
    fn what_a_server_is_reached_with_is_not_shown() {
        let headers = vec![("Authorization".to_owned(), "Bearer hunter2".to_owned())];
        let url = "http://h/?key=hunter2".to_owned();
        let server = NewServer { id: ServerId::new("s"), url, headers, tool_prefix: None };
        assert!(!format!("{server:?}").contains("hunter2"));
    }
}
