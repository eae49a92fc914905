//! A gateway that serves nobody, for commands that have to know what the servers offer.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use super::Failure;
use super::check::{self, print_problems};
use crate::gateway::{Beginning, Gateway, Keyring};
use crate::http::server::wall_clock;
use crate::log::Log;
use crate::outbound::{Client, Trust};
use crate::policy::{ClientId, Registry};
use crate::store::{ConfigFile, TokenEnds};
use crate::upstream::Pool;
use crate::wire::config::{Problem, nearest};

/// A gateway and the runtime on which it asks the servers.
pub(super) struct Local {
    pub(super) gateway: Arc<Gateway>,
    pub(super) runtime: Runtime,
}

impl Local {
    /// Asks all servers of a registry what they offer, and waits for the answers as long as a client would.
    ///
    /// # Errors
    /// [`Failure`] if there can be no runtime.
    pub(super) fn start(registry: Registry, problems: Vec<Problem>) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let pool = Pool::new(runtime.handle().clone(), Client::new(Trust::system()), Log::none());
        let keys = Keyring::new(&[rand::random::<[u8; 32]>().to_vec()]);
        // Nobody signs in here, so no token is noted anywhere; nor is what the servers of this configuration offer.
        let (config_path, ends) = (String::new(), TokenEnds::new(Path::new("")));
        let (catalogues, journal, now) = (None, None, wall_clock());
        let beginning = Beginning { registry, problems, config_path, keys, ends, catalogues, journal, now };
        let (gateway, _) = Gateway::new(beginning, pool, Log::none());
        let local = Self { gateway, runtime };
        local.wait();
        Ok(local)
    }

    /// Waits until every server was asked.
    pub(super) fn wait(&self) {
        self.runtime.block_on(self.gateway.all_asked(&self.gateway.snapshot()));
    }
}

/// Reads a configuration that must be usable; what is wrong with one that is not is printed.
///
/// # Errors
/// [`Failure`] if it cannot be read or used.
pub(super) fn load(path: &Path) -> Result<(Registry, Vec<Problem>), Failure> {
    let name = path.display().to_string();
    let mut built = ConfigFile::new(path).load()?;
    match built.registry.take() {
        Some(registry) => Ok((registry, built.problems)),
        None => {
            print_problems(&name, &built)?;
            Err(check::refused(&name, &built))
        }
    }
}

/// A client of the configuration.
///
/// # Errors
/// [`Failure`] with the name that was probably meant.
pub(super) fn known_client(registry: &Registry, name: &str) -> Result<ClientId, Failure> {
    let id = ClientId::new(name);
    if registry.client(&id).is_some() {
        return Ok(id);
    }
    let near = nearest(name, registry.clients().map(|client| client.id.as_str()));
    let hint = near.map(|near| format!("\nhint: did you mean `{near}`?")).unwrap_or_default();
    Err(Failure(format!("no such client `{}` in [clients]{hint}", name.escape_debug())))
}
