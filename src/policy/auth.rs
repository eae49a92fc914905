//! Who is calling: a bearer token → a [`Caller`].
//!
//! Knows static tokens by their SHA-256, and the gateway's own tokens with an expiry (JWT) by their signature. Taking the
//! token out of a request, and what a refusal looks like, is `http`'s.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::registry::{ClientId, Registry};
use crate::wire::jwt::{Keys, TokenError, claims_to_be_ours};

/// A client that has proved who it is. Made by [`authenticate`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    client: ClientId,
    proof: Proof,
}

/// How a client has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    /// With the token of this SHA-256.
    Static([u8; 32]),
    /// With a signed token.
    Signed {
        /// When it was issued, if it says so.
        issued: Option<Duration>,
        expires: Duration,
        /// Whether it stands in the file as well, by its SHA-256: then taking it out of there revokes it.
        listed: Option<[u8; 32]>,
    },
}

impl Caller {
    /// The client.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// When its token expires, since the epoch; `None` for one that does not.
    #[must_use]
    pub fn expires(&self) -> Option<Duration> {
        match self.proof {
            Proof::Static(_) => None,
            Proof::Signed { expires, .. } => Some(expires),
        }
    }
}

/// Why a token signs nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// It belongs to no client, or was revoked, or is not valid yet.
    Invalid,
    /// It would be good, but its time is over.
    Expired,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("invalid authentication token"),
            Self::Expired => f.write_str("expired authentication token"),
        }
    }
}

impl std::error::Error for AuthError {}

/// Finds the client a token belongs to. `now` is the time since the epoch; static tokens do not look at it, tokens
/// that expire do.
///
/// # Errors
/// [`AuthError`].
pub fn authenticate(registry: &Registry, keys: &Keys, token: &str, now: Duration) -> Result<Caller, AuthError> {
    // SECURITY: how long the look-up takes depends on the digest only, which tells nothing about the tokens there are.
    let digest: [u8; 32] = Sha256::digest(token).into();
    let listed = registry.client_of_token(&digest);
    // SECURITY: also one that the file lists like a static token; the original wrote such, and they are to expire.
    if claims_to_be_ours(token) {
        return signed(registry, keys, token, now, listed.map(|client| (client, digest)));
    }
    let client = listed.ok_or(AuthError::Invalid)?;
    Ok(Caller { client: client.clone(), proof: Proof::Static(digest) })
}

fn signed(
    registry: &Registry,
    keys: &Keys,
    token: &str,
    now: Duration,
    listed: Option<(&ClientId, [u8; 32])>,
) -> Result<Caller, AuthError> {
    let claims = keys.verify(token, now).map_err(|error| match error {
        TokenError::Expired => AuthError::Expired,
        _ => AuthError::Invalid,
    })?;
    let client = ClientId::new(&claims.sub);
    // A token that stands in the table of one client is not good for another.
    if listed.is_some_and(|(owner, _)| *owner != client) {
        return Err(AuthError::Invalid);
    }
    let proof =
        Proof::Signed { issued: claims.issued, expires: claims.expires, listed: listed.map(|(_, digest)| digest) };
    let caller = Caller { client, proof };
    if registry.still_knows(&caller) { Ok(caller) } else { Err(AuthError::Invalid) }
}

impl Registry {
    /// Whether a token is the one that opens `/metrics` and nothing else; it is no client's.
    #[must_use]
    pub fn opens_metrics(&self, token: &str) -> bool {
        // SECURITY: the comparison tells something of the digests at most.
        self.settings().metrics_token == Some(Sha256::digest(token).into())
    }

    /// Whether a caller that signed in under an earlier registry could do so under this one; the clock is not looked at.
    #[must_use]
    pub fn still_knows(&self, caller: &Caller) -> bool {
        let Some(client) = self.client(&caller.client) else { return false };
        let is_listed = |digest| self.client_of_token(digest) == Some(&caller.client);
        match &caller.proof {
            Proof::Static(digest) => is_listed(digest),
            Proof::Signed { issued, listed, .. } => {
                // Without an issue time nobody knows whether it was issued before.
                let fresh = client.valid_from.is_none_or(|from| issued.is_some_and(|issued| issued >= from));
                fresh && listed.as_ref().is_none_or(is_listed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::config::Secrets;

    fn registry(text: &str) -> Registry {
        let built = Registry::load(text, |_| Secrets::default());
        built.registry.unwrap_or_else(|| panic!("{:?}", built.problems))
    }

    fn keys() -> Keys {
        Keys::new([b"secret".as_slice()])
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn check(registry: &Registry, token: &str, now: u64, expected: Result<&str, AuthError>) {
        let caller = authenticate(registry, &keys(), token, seconds(now));
        assert_eq!(caller.as_ref().map(|c| c.client().as_str()).map_err(|e| *e), expected, "{token:?}");
    }

    #[test]
    fn a_token_signs_in_its_own_client_and_nothing_else_signs_in_anybody() {
        let text = "[clients.alice]\nauth_token = \"123\"\n[clients.empty]\nauth_token = \"\"\n[clients.none]\n\
                    [clients.hashed]\nauth_token_sha256 = \"\
                    b3a8e0e1f9ab1bfe3a36f231f676f78bb30a519d2b21e6c530c0eee8ebb4a5d0\"\n\
                    [clients.empty_hash]\nauth_token_sha256 = \"\
                    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n";
        let registry = registry(text);
        check(&registry, "123", 0, Ok("alice"));
        check(&registry, "456", 0, Ok("hashed"));
        for nobody in ["", " ", "123 ", "1234", "12", "alice", "none", "*", "a.b.c", "..", "e30.e30."] {
            check(&registry, nobody, 0, Err(AuthError::Invalid));
        }
        // The digest itself is no token.
        check(
            &registry,
            "b3a8e0e1f9ab1bfe3a36f231f676f78bb30a519d2b21e6c530c0eee8ebb4a5d0",
            0,
            Err(AuthError::Invalid),
        );
    }

    #[test]
    fn a_signed_token_signs_in_a_client_of_the_file_until_it_expires() {
        let registry =
            registry("[clients.alice]\nauth_token = \"1\"\n[clients.c]\nregistered = 2026-01-01T00:00:00Z\n");
        for client in ["alice", "c"] {
            let token = keys().sign(client, seconds(100), seconds(50));
            check(&registry, &token, 149, Ok(client));
            check(&registry, &token, 150, Err(AuthError::Expired));
            let caller = authenticate(&registry, &keys(), &token, seconds(120)).unwrap();
            assert_eq!(caller.expires(), Some(seconds(150)));
        }
        for nobody in ["gone", "*", "Alice"] {
            check(&registry, &keys().sign(nobody, seconds(100), seconds(50)), 120, Err(AuthError::Invalid));
        }
        let stranger = Keys::new([b"another".as_slice()]).sign("alice", seconds(100), seconds(50));
        check(&registry, &stranger, 120, Err(AuthError::Invalid));
    }

    #[test]
    fn valid_from_revokes_what_was_issued_before() {
        let text = "[clients.c]\nregistered = 1970-01-01T00:00:00Z\nvalid_from = 1970-01-01T00:01:40Z\n";
        let registry = registry(text);
        check(&registry, &keys().sign("c", seconds(99), seconds(50)), 120, Err(AuthError::Invalid));
        check(&registry, &keys().sign("c", seconds(100), seconds(50)), 120, Ok("c"));
    }

    #[test]
    fn a_signed_token_in_the_file_expires_like_any_other() {
        let token = keys().sign("alice", seconds(100), seconds(50));
        let digest: String = Sha256::digest(&token).iter().map(|byte| format!("{byte:02x}")).collect();
        for line in [format!("auth_token = \"{token}\""), format!("auth_token_sha256 = \"{digest}\"")] {
            let registry = registry(&format!("[clients.alice]\n{line}\n"));
            check(&registry, &token, 120, Ok("alice"));
            check(&registry, &token, 150, Err(AuthError::Expired));
        }
        // Nor is it good for the client in whose table it was put by mistake, or by somebody else.
        let registry = registry(&format!("[clients.alice]\n[clients.bob]\nauth_token = \"{token}\"\n"));
        check(&registry, &token, 120, Err(AuthError::Invalid));
    }

    #[test]
    fn a_token_of_an_older_secret_in_the_file_does_not_live_for_ever() {
        let old = Keys::new([b"retired".as_slice()]).sign("alice", seconds(100), seconds(50));
        let registry = registry(&format!("[clients.alice]\nauth_token = \"{old}\"\n"));
        check(&registry, &old, 120, Err(AuthError::Invalid));
        check(&registry, &old, 1_000, Err(AuthError::Invalid));
    }

    #[test]
    fn a_caller_is_known_only_as_long_as_its_token_is() {
        let before = registry("[clients.alice]\nauth_token = \"1\"\n[clients.c]\nregistered = 1970-01-01T00:00:00Z\n");
        let token = keys().sign("c", seconds(100), seconds(50));
        let alice = authenticate(&before, &keys(), "1", seconds(0)).unwrap();
        let c = authenticate(&before, &keys(), &token, seconds(120)).unwrap();
        let known = |text: &str| (registry(text).still_knows(&alice), registry(text).still_knows(&c));
        assert_eq!(known("[clients.c]\nregistered = 1970-01-01T00:00:00Z\n"), (false, true));
        assert_eq!(known("[clients.alice]\nauth_token = \"1\"\n"), (true, false));
        assert_eq!(known("[clients.alice]\nauth_token = \"2\"\n[clients.bob]\nauth_token = \"1\"\n"), (false, false));
        let revoked = "[clients.c]\nregistered = 1970-01-01T00:00:00Z\nvalid_from = 1970-01-01T00:02:00Z\n";
        assert_eq!(known(revoked), (false, false));
    }
}
