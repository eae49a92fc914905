//! Brings together `upstream`, which knows what to keep of a server, and `store`, which knows where.

use std::error::Error;

use crate::policy::ServerKey;
use crate::store::Catalogues;
use crate::upstream::Keeper;

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
