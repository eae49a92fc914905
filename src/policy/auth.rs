//! Who is calling: a bearer token → a [`Caller`].
//!
//! Knows static tokens by their SHA-256. Taking the token out of a request, and what a refusal looks like, is `http`'s.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::registry::{ClientId, Registry};

/// A client that has proved who it is. Made by [`authenticate`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    client: ClientId,
}

impl Caller {
    /// The client.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }
}

/// Why a token signs nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// It belongs to no client.
    Invalid,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("invalid authentication token"),
        }
    }
}

impl std::error::Error for AuthError {}

/// Finds the client a token belongs to. `now` is the time since the epoch; static tokens do not look at it, tokens
/// that expire do.
///
/// # Errors
/// [`AuthError::Invalid`] for a token of no client.
pub fn authenticate(registry: &Registry, token: &str, _now: Duration) -> Result<Caller, AuthError> {
    // SECURITY: how long the look-up takes depends on the digest only, which tells nothing about the tokens there are.
    let digest: [u8; 32] = Sha256::digest(token).into();
    let client = registry.client_of_token(&digest).ok_or(AuthError::Invalid)?;
    Ok(Caller { client: client.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::config::Secrets;

    #[test]
    fn a_token_signs_in_its_own_client_and_nothing_else_signs_in_anybody() {
        let text = "[clients.alice]\nauth_token = \"123\"\n[clients.empty]\nauth_token = \"\"\n[clients.none]\n\
                    [clients.hashed]\nauth_token_sha256 = \"\
                    b3a8e0e1f9ab1bfe3a36f231f676f78bb30a519d2b21e6c530c0eee8ebb4a5d0\"\n\
                    [clients.empty_hash]\nauth_token_sha256 = \"\
                    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n";
        let registry = Registry::load(text, |_| Secrets::default()).registry.unwrap();
        let check = |token: &str, expected: Result<&str, AuthError>| {
            let caller = authenticate(&registry, token, Duration::ZERO);
            assert_eq!(caller.as_ref().map(|c| c.client().as_str()).map_err(|e| *e), expected, "{token:?}");
        };
        check("123", Ok("alice"));
        check("456", Ok("hashed"));
        for nobody in ["", " ", "123 ", "1234", "12", "alice", "none", "*"] {
            check(nobody, Err(AuthError::Invalid));
        }
        // The digest itself is no token.
        check("b3a8e0e1f9ab1bfe3a36f231f676f78bb30a519d2b21e6c530c0eee8ebb4a5d0", Err(AuthError::Invalid));
    }
}
