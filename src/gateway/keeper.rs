//! Brings together `upstream`, which knows what to keep of a server, and `store`, which knows where.

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

use super::session::LIFETIME;
use crate::policy::ServerKey;
use crate::store::{Catalogues, Entry, Journal};
use crate::upstream::{Keeper, SessionKeeper, Tenant};
use crate::wire::hex;

impl Keeper for Catalogues {
    fn load(&self, server: &ServerKey, most: u64) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
        Ok(self.load(server, most)?)
    }

    fn save(&self, server: &ServerKey, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        Ok(self.save(server, bytes)?)
    }

    fn remove(&self, server: &ServerKey) {
        self.remove(server);
    }
}

/// What the keys of sessions with servers begin with; the server and the tenant follow.
const AT_SERVERS: &str = "server/";

impl SessionKeeper for Journal {
    fn kept(&self, server: &ServerKey) -> Vec<(Tenant, String)> {
        let under = under(server);
        let mut kept = Vec::new();
        for Entry { key, value, .. } in self.under(&under) {
            match Tenant::read(&key) {
                Some(tenant) => kept.push((tenant, value)),
                None => self.remove(&[under.as_str(), &key].concat()),
            }
        }
        kept
    }

    fn keep(&self, server: &ServerKey, tenant: &Tenant, session: &str) {
        let Some(name) = tenant.written() else { return };
        // One that belongs to a session of the client is of no use without that.
        let bound = matches!(tenant, Tenant::Client { session: Some(_), .. });
        let until = if bound { self.now() + LIFETIME } else { Duration::MAX };
        self.put(&(under(server) + &name), session, until);
    }

    fn forget(&self, server: &ServerKey, tenant: &Tenant) {
        if let Some(name) = tenant.written() {
            self.remove(&(under(server) + &name));
        }
    }
}

fn under(server: &ServerKey) -> String {
    format!("{AT_SERVERS}{}/", hex::encode(server.as_bytes()))
}

/// Forgets the sessions with all other servers.
pub(super) fn retain(journal: &Journal, servers: impl IntoIterator<Item = ServerKey>) {
    let known: HashSet<String> = servers.into_iter().map(|server| under(&server)).collect();
    for Entry { key, .. } in journal.under(AT_SERVERS) {
        let server = key.split_inclusive('/').next().unwrap_or_default();
        if !known.contains(&[AT_SERVERS, server].concat()) {
            journal.remove(&[AT_SERVERS, &key].concat());
        }
    }
}
