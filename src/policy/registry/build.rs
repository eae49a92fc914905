//! Builds a [`Registry`] from a configuration, finding every problem of meaning on the way.
//!
//! Knows which tables belong together and what is an error or a warning; the shape of the tables has been checked by
//! `wire::config`, whose problems come out here together with those found.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::model::{Client, ClientId, Grant, Headers, Reach, Server, ServerId, ServerKey, Who};
use super::{ClientSlot, Registry, ServerSlot};
use crate::wire::config::{
    ClientTable, Config, GrantTable, Problem, Reference, Report, Secrets, ServerTable, Severity, Token,
    check_header_value, join,
};

/// What became of a configuration.
pub struct Built {
    /// The registry, unless one of the problems is an error.
    pub registry: Option<Registry>,
    /// All problems of shape and of meaning, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Registry {
    /// Reads a file and builds from it; `resolve` is asked once for the values that stand outside the file.
    pub fn load(text: &str, resolve: impl FnOnce(&BTreeSet<Reference>) -> Secrets) -> Built {
        let config = Config::parse(text);
        let secrets = resolve(&config.references());
        Self::build(&config, &secrets)
    }

    /// Builds from a configuration that has been read.
    #[must_use]
    pub fn build(config: &Config, secrets: &Secrets) -> Built {
        let report = Report::new(Arc::clone(config.lines()), config.problems().to_vec());
        let mut builder = Builder { config, secrets, report, registry: Self::empty(config) };
        builder.add_clients();
        builder.add_servers();
        builder.add_grants();
        let problems = builder.report.finish();
        let usable = problems.iter().all(|problem| problem.severity == Severity::Warning);
        Built { registry: usable.then_some(builder.registry), problems }
    }

    fn empty(config: &Config) -> Self {
        Self {
            settings: config.settings.clone(),
            lines: Arc::clone(config.lines()),
            clients: Vec::new(),
            client_index: HashMap::new(),
            servers: Vec::new(),
            server_index: HashMap::new(),
            everyone: BTreeMap::new(),
            tokens: HashMap::new(),
            granted_ahead: BTreeSet::new(),
        }
    }
}

/// A registry being built.
struct Builder<'a> {
    config: &'a Config,
    secrets: &'a Secrets,
    report: Report,
    registry: Registry,
}

impl Builder<'_> {
    fn add_clients(&mut self) {
        for (index, table) in self.config.clients.iter().enumerate() {
            let id = ClientId::new(&table.name.value);
            self.registry.client_index.insert(id.clone(), index);
            self.add_token(&id, table);
            let client = Client {
                id,
                admin: table.admin,
                registered: table.registered,
                valid_from: table.valid_from,
                label: table.label.clone(),
            };
            self.registry.clients.push(ClientSlot { client, owned: Vec::new(), granted: BTreeMap::new() });
        }
    }

    fn add_token(&mut self, id: &ClientId, table: &ClientTable) {
        let path = join("clients", id.as_str());
        let Some(token) = &table.token else {
            // A client that registered itself signs in with JWTs.
            if table.registered.is_none() {
                let problem = Problem::warning(path, "no token: nobody can sign in as this client");
                self.report.add(table.name.at, problem);
            }
            return;
        };
        let digest = match &token.value {
            Token::Digest(digest) => *digest,
            Token::Wrong => return,
            Token::Reference(reference) => match self.secrets.get(reference) {
                Ok(value) => Sha256::digest(value).into(),
                Err(reason) => return self.report.add(token.at, Problem::error(path, reason)),
            },
        };
        // SECURITY: the empty token is no token, whichever way it is written; an empty bearer token signs nobody in.
        if digest == <[u8; 32]>::from(Sha256::digest("")) {
            let problem = Problem::warning(path, "empty token: nobody can sign in as this client");
            return self.report.add(token.at, problem);
        }
        // SECURITY: that token opens one page and nothing else.
        if self.config.settings.metrics_token == Some(digest) {
            let message = "same token as `gateway.metrics_token`, which opens /metrics and nothing else";
            return self.report.add(token.at, Problem::error(path, message));
        }
        match self.registry.tokens.entry(digest) {
            Entry::Vacant(vacant) => {
                vacant.insert(id.clone());
            }
            Entry::Occupied(taken) => {
                let message = format!("same token as client `{}`", taken.get().as_str().escape_debug());
                self.report.add(token.at, Problem::error(path, message));
            }
        }
    }

    fn add_servers(&mut self) {
        for table in &self.config.servers {
            let id = ServerId::new(&table.name.value);
            let headers = self.headers(table);
            let owner = self.owner(table);
            // Without an endpoint or an owner there is an error already.
            let (Some(endpoint), Some(owner)) = (table.endpoint.clone(), owner) else {
                continue;
            };
            let index = self.registry.servers.len();
            self.registry.server_index.insert(id.clone(), index);
            let owner_slot = self.registry.client_index.get(&owner).and_then(|i| self.registry.clients.get_mut(*i));
            let by_operator =
                owner_slot.as_ref().map_or(table.registered_by.is_none(), |o| o.client.registered.is_none());
            if let Some(slot) = owner_slot {
                slot.owned.push(index);
            }
            let registered_by = table.registered_by.as_ref().map(|by| ClientId::new(&by.value));
            let server = Server {
                key: ServerKey::of(&id),
                identity: ServerKey::owned(&id, &owner),
                id,
                endpoint,
                owner,
                headers,
                tool_prefix: table.tool_prefix.clone(),
                timeout: table.timeout,
                protocol: table.protocol,
                reach: registered_by.as_ref().map_or(Reach::Private, |by| self.registry.reach_of(by)),
                registered_by,
            };
            let server = Arc::new(server);
            self.registry.servers.push(ServerSlot { server, at: table.name.at, by_operator, grants: Vec::new() });
        }
    }

    /// The owner a server names, with a warning if there is no such client.
    fn owner(&mut self, table: &ServerTable) -> Option<ClientId> {
        let written = table.owner.as_ref()?;
        let owner = ClientId::new(&written.value);
        if !self.registry.client_index.contains_key(&owner) {
            let path = join(&join("mcp_servers", &table.name.value), "from_client");
            let message = format!("no such client `{}`: nobody owns this server", written.value.escape_debug());
            let hint = self.nearest_client(&written.value);
            self.report.add(written.at, Problem::warning(path, message).with_hint(hint));
        }
        Some(owner)
    }

    fn headers(&mut self, table: &ServerTable) -> Headers {
        let mut headers = Vec::new();
        for header in &table.headers {
            let value = header.value.value.resolve(self.secrets);
            // What a reference brought in has to be looked at once more.
            let value = value.and_then(|v| check_header_value(&v).map(|()| v).map_err(|e| e.to_string()));
            match value {
                Ok(value) => headers.push((header.name.clone(), value)),
                Err(message) => {
                    let path = join(&join(&join("mcp_servers", &table.name.value), "headers"), &header.name);
                    self.report.add(header.value.at, Problem::error(path, message));
                }
            }
        }
        Headers::new(headers)
    }

    fn add_grants(&mut self) {
        let config = self.config;
        let servers: HashSet<&str> = config.servers.iter().map(|server| server.name.value.as_str()).collect();
        for table in &config.allow {
            let server = table.server.value.as_str();
            if !servers.contains(server) {
                let hint = self.report.nearest(server, config.servers.iter().map(|server| server.name.value.as_str()));
                let problem = Problem::warning(join("allow", server), "no such server in [mcp_servers]");
                self.report.add(table.server.at, problem.with_hint(hint));
                self.registry.granted_ahead.insert(ServerId::new(server));
                continue;
            }
            // A server that is wrong itself has no index; what is granted on it is checked all the same.
            let index = self.registry.server_index.get(&ServerId::new(server)).copied();
            for grant in &table.grants {
                self.add_grant(server, index, grant);
            }
        }
    }

    fn add_grant(&mut self, server: &str, index: Option<usize>, table: &GrantTable) {
        let name = table.client.value.as_str();
        let id = ClientId::new(name);
        let client = self.registry.client_index.get(&id).copied();
        if client.is_none() && name != "*" {
            let hint = self.nearest_client(name);
            let problem = Problem::warning(join(&join("allow", server), name), "no such client in [clients]");
            self.report.add(table.client.at, problem.with_hint(hint));
        }
        let Some((index, slot)) = index.and_then(|index| Some((index, self.registry.servers.get_mut(index)?))) else {
            return;
        };
        let grant = Arc::new(Grant::new(table));
        slot.grants.push((if name == "*" { Who::Everyone } else { Who::Client(id) }, Arc::clone(&grant)));
        if name == "*" {
            self.registry.everyone.insert(index, grant);
        } else if let Some(client) = client.and_then(|client| self.registry.clients.get_mut(client)) {
            client.granted.insert(index, grant);
        }
    }

    fn nearest_client(&mut self, name: &str) -> Option<String> {
        self.report.nearest(name, self.config.clients.iter().map(|client| client.name.value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What the fixtures find outside the file: variables and files are there if their name begins with `SET`.
    fn outside(references: &BTreeSet<Reference>) -> Secrets {
        let mut secrets = Secrets::default();
        for reference in references {
            let value = match reference {
                Reference::Env(name) if name == "SET_EMPTY" => Ok(String::new()),
                Reference::Env(name) if name == "SET_LINES" => Ok("a\nb".to_owned()),
                Reference::Env(name) if name == "SET" => Ok("value-of-a-variable".to_owned()),
                Reference::File(path) if path == "/set" => Ok("value-of-a-file\n".to_owned()),
                Reference::Env(name) => Err(format!("environment variable `{name}` is not set")),
                Reference::File(path) => Err(format!("cannot read `{path}`: no such file")),
            };
            secrets.insert(reference.clone(), value);
        }
        secrets
    }

    /// What a fixture's `.txt` says: every problem after its severity.
    fn told(built: &Built) -> String {
        let line = |problem: &Problem| format!("{:?}: {}\n", problem.severity, problem.display("config.toml"));
        built.problems.iter().map(line).collect()
    }

    #[test]
    fn every_fixture_has_the_problems_written_beside_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let fixtures: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
        assert!(fixtures.len() >= 10, "fixtures are missing");
        for path in fixtures {
            let built = Registry::load(&std::fs::read_to_string(&path).unwrap(), outside);
            let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
            assert_eq!(told(&built), expected, "{}", path.display());
            assert_eq!(built.registry.is_some(), !expected.contains("Error: "), "{}", path.display());
            assert!(!expected.contains("hunter"), "{}: a token is shown", path.display());
        }
    }

    #[test]
    fn what_references_stand_for_is_sent_but_never_shown() {
        let text = include_str!("../../../fixtures/config/everything.toml");
        let registry = Registry::load(text, outside).registry.unwrap();
        let full = registry.server(&ServerId::new("full")).unwrap();
        let headers: Vec<_> = full.headers.iter().collect();
        let expected = [
            ("Authorization", "Bearer value-of-a-variable"),
            ("X-Both", "value-of-a-file-value-of-a-variable"),
            ("X-Plain", "$HOME {}"),
        ];
        assert_eq!(headers, expected);
        assert!(!format!("{full:?}").contains("value-of"), "{full:?}");
        let rest = registry.server(&ServerId::new("rest")).unwrap();
        assert_eq!(rest.headers.iter().collect::<Vec<_>>(), [("X-Literal", "${env:UNSET} stays as it is")]);
    }

    #[test]
    fn only_strangers_servers_are_kept_from_private_addresses() {
        #[track_caller]
        fn check(registered_by: &str, gateway: &str, expected: Reach) {
            let text = format!(
                "[clients.operators]\nauth_token = \"1\"\n[clients.stranger]\nregistered = 2026-01-01T00:00:00Z\n\
                 [mcp_servers.s]\nurl = \"http://h/\"\nfrom_client = \"operators\"\n{registered_by}\n[gateway]\n{gateway}\n"
            );
            let registry = Registry::load(&text, outside).registry.unwrap();
            assert_eq!(registry.server(&ServerId::new("s")).unwrap().reach, expected, "{registered_by} {gateway}");
        }
        check("", "", Reach::Private);
        check("registered_by = \"operators\"", "", Reach::Private);
        check("registered_by = \"stranger\"", "", Reach::Public);
        check("registered_by = \"gone\"", "", Reach::Public);
        check("registered_by = \"stranger\"", "allow_private_upstreams = true", Reach::Private);
    }
}
