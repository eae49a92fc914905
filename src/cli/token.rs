//! `mcp-x token`: a new random token, and its SHA-256 for the configuration.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::{Failure, print};

/// Prints a token of 256 random bits and the line that lets it in. Nothing is stored.
///
/// # Errors
/// [`Failure`] if stdout cannot be written.
pub(super) fn run() -> Result<(), Failure> {
    print(&introduce(&URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())))
}

fn introduce(token: &str) -> String {
    let mut digest = String::with_capacity(64);
    for byte in Sha256::digest(token) {
        // A string takes every write.
        let _ = write!(digest, "{byte:02x}");
    }
    format!("token, for the client:        {token}\nline, for its [clients] table: auth_token_sha256 = \"{digest}\"\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{Registry, authenticate};

    #[test]
    fn the_line_lets_the_token_in_and_no_other() {
        let text = introduce("abc");
        let line = text.lines().find_map(|l| l.split_once("auth_token_sha256")).unwrap().1;
        let config = format!("[clients.a]\nauth_token_sha256{line}\n");
        let registry = Registry::load(&config, |_| crate::wire::config::Secrets::default()).registry.unwrap();
        assert!(authenticate(&registry, "abc", Duration::ZERO).is_ok());
        assert!(authenticate(&registry, "abd", Duration::ZERO).is_err());
    }
}
