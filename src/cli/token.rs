//! `mcp-x token`: a new random token, and its SHA-256 for the configuration; with `--client`, a signed one that expires.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::args::Options;
use super::local::{known_client, load};
use super::{Failure, print, serve};
use crate::http::server::wall_clock;
use crate::wire::hex;

/// Prints a token of 256 random bits and the line that lets it in. Nothing is stored.
///
/// # Errors
/// [`Failure`] if stdout cannot be written.
pub(super) fn run() -> Result<(), Failure> {
    print(&introduce(&URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())))
}

/// Prints a token that expires, for a client of the configuration, signed with the secret of the state folder.
///
/// # Errors
/// [`Failure`] if there is no such client, or configuration or secret cannot be read.
pub(super) fn run_signed(options: &Options, client: &str, lifetime: Duration) -> Result<(), Failure> {
    let (registry, _) = load(&options.config())?;
    let client = known_client(&registry, client)?;
    let token = serve::keyring(options)?.tokens().sign(client.as_str(), wall_clock(), lifetime);
    print(&format!("{token}\n"))
}

fn introduce(token: &str) -> String {
    let digest = hex::encode(&Sha256::digest(token));
    format!("token, for the client:        {token}\nline, for its [clients] table: auth_token_sha256 = \"{digest}\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Registry, authenticate};
    use crate::wire::jwt::Keys;

    #[test]
    fn the_line_lets_the_token_in_and_no_other() {
        let text = introduce("abc");
        let line = text.lines().find_map(|l| l.split_once("auth_token_sha256")).unwrap().1;
        let config = format!("[clients.a]\nauth_token_sha256{line}\n");
        let registry = Registry::load(&config, |_| crate::wire::config::Secrets::default()).registry.unwrap();
        let keys = Keys::new([]);
        assert!(authenticate(&registry, &keys, "abc", Duration::ZERO).is_ok());
        assert!(authenticate(&registry, &keys, "abd", Duration::ZERO).is_err());
    }
}
