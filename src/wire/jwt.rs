//! The gateway's own tokens that expire: JSON Web Tokens (RFC 7519) in compact form (RFC 7515), HS256 only.
//!
//! `verify` looks at the signature before it looks at a claim, and takes the algorithm from nowhere but this file: the
//! header may say `HS256` and nothing else, and the rest of it is ignored, but for `crit` and `b64`, which change what is
//! signed and have to be refused by whoever does not understand them. Claims are those the original program wrote.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::json::{Duplicates, JsonError, JsonType, Scanner, Span, elements_of, text_of, type_of, write_text};

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// Who issues the tokens, and for whom.
const ISSUER: &str = "mcp-x";
const AUDIENCE: &str = "mcp-x-client";
/// Longest token that is looked at, in bytes.
const LONGEST: usize = 8 * 1024;
/// Deepest nesting of a header or payload.
const DEPTH: usize = 16;
/// The end of the year 9999, in seconds since the epoch: no time beyond is meant seriously.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The keys behind the gateway's tokens: the newest signs, all of them verify.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

/// What a token says, once it has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose it is (`sub`).
    pub sub: String,
    /// When it was issued (`iat`), since the epoch, if it says so.
    pub issued: Option<Duration>,
    /// When it expires (`exp`), since the epoch.
    pub expires: Duration,
}

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is no JWT, or its header asks for something that is not understood.
    Malformed,
    /// Its header names another algorithm than HS256.
    Algorithm,
    /// It was not signed with one of the keys.
    Signature,
    /// This claim is missing, or is not what it has to be.
    Claim(&'static str),
    /// It is not valid yet (`nbf`).
    NotYet,
    /// It would be good, but it has expired (`exp`).
    Expired,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed"),
            Self::Algorithm => f.write_str("algorithm"),
            Self::Signature => f.write_str("signature"),
            Self::Claim(name) => write!(f, "claim {name}"),
            Self::NotYet => f.write_str("not yet"),
            Self::Expired => f.write_str("expired"),
        }
    }
}

impl std::error::Error for TokenError {}

impl Keys {
    /// Takes the lines of the secret file, the newest first. The bytes of a line are the key as they stand, so that tokens
    /// which the original program issued with it stay good.
    #[must_use]
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(lines.into_iter().map(keyed).collect())
    }

    /// Issues a token; `issued` is the time since the epoch, of which whole seconds count.
    #[must_use]
    pub fn sign(&self, sub: &str, issued: Duration, lifetime: Duration) -> String {
        let Some(key) = self.0.first() else { return String::new() };
        let mut payload = format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"#).into_bytes();
        write_text(&mut payload, sub);
        let (iat, exp) = (issued.as_secs(), (issued + lifetime).as_secs());
        payload.extend_from_slice(format!(r#","scopes":["mcp"],"iat":{iat},"exp":{exp}}}"#).as_bytes());
        let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(payload));
        let signature = key.clone().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Checks a token at the time `now`, since the epoch.
    ///
    /// # Errors
    /// [`TokenError`]; [`TokenError::Expired`] only of a token that is good in every other way.
    pub fn verify(&self, token: &str, now: Duration) -> Result<Claims, TokenError> {
        let Parts { header, payload, signature, signed } = Parts::of(token).ok_or(TokenError::Malformed)?;
        check_header(&header)?;
        // SECURITY: in constant time, and before anything of the payload is believed.
        let made = |key: &&Hmac<Sha256>| (*key).clone().chain_update(signed).verify_slice(&signature).is_ok();
        self.0.iter().find(made).ok_or(TokenError::Signature)?;
        check_claims(&payload, now)
    }
}

/// Whether a text passes itself off as a token of this gateway, whoever signed it: three parts, and a payload that names
/// the gateway as its issuer.
#[must_use]
pub fn claims_to_be_ours(token: &str) -> bool {
    // What a static token looks like is told apart without decoding anything.
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    // SECURITY: read as leniently as anybody might have read it who once accepted it.
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
    let claims: Option<serde_json::Value> = serde_json::from_slice(&payload).ok();
    claims.is_some_and(|claims| claims.get("iss").and_then(serde_json::Value::as_str) == Some(ISSUER))
}

/// A token taken apart.
struct Parts<'a> {
    header: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
    /// What the signature is over.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    /// `None` if there are not exactly three parts in base64url as RFC 7515 writes it: no padding, no white space, nothing
    /// left over in the last character.
    fn of(token: &'a str) -> Option<Self> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        Some(Self { header: decode(header)?, payload: decode(payload)?, signature: decode(signature)?, signed })
    }
}

/// The members of a JSON object that is a whole text.
fn members(text: &[u8]) -> Result<Vec<(String, Span)>, JsonError> {
    let mut members = Vec::new();
    let mut scanner = Scanner::new(text, DEPTH, Duplicates::Refused)?;
    scanner.object(|s, key| {
        members.push((key.into_owned(), s.value()?));
        Ok(())
    })?;
    scanner.end().map(|()| members)
}

fn check_header(header: &[u8]) -> Result<(), TokenError> {
    let members = members(header).map_err(|_| TokenError::Malformed)?;
    // SECURITY: `crit` and `b64` change what has to be checked (RFC 7515 4.1.11, RFC 7797).
    if members.iter().any(|(name, _)| matches!(name.as_str(), "crit" | "b64")) {
        return Err(TokenError::Malformed);
    }
    let algorithm = members.iter().find(|(name, _)| name == "alg");
    let algorithm = algorithm.and_then(|(_, value)| text_of(value.of(header)));
    if algorithm.as_deref() == Some("HS256") { Ok(()) } else { Err(TokenError::Algorithm) }
}

fn check_claims(payload: &[u8], now: Duration) -> Result<Claims, TokenError> {
    let members = members(payload).map_err(|_| TokenError::Malformed)?;
    let claim = |name: &str| members.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    let text = |name: &str| claim(name).and_then(|value| text_of(value.of(payload)));
    if text("iss").as_deref() != Some(ISSUER) {
        return Err(TokenError::Claim("iss"));
    }
    if !claim("aud").is_some_and(|audience| is_audience(payload, audience)) {
        return Err(TokenError::Claim("aud"));
    }
    let sub = text("sub").filter(|sub| !sub.is_empty()).ok_or(TokenError::Claim("sub"))?.into_owned();
    let time = |name| claim(name).map(|value| instant(value.of(payload)).ok_or(TokenError::Claim(name))).transpose();
    let (issued, from, expires) = (time("iat")?, time("nbf")?, time("exp")?.ok_or(TokenError::Claim("exp"))?);
    if from.is_some_and(|from| from > now) {
        return Err(TokenError::NotYet);
    }
    if now >= expires {
        return Err(TokenError::Expired);
    }
    Ok(Claims { sub, issued, expires })
}

/// Whether an `aud` names the gateway's clients: as a string, or in a list of strings.
fn is_audience(payload: &[u8], audience: Span) -> bool {
    let is = |value: &[u8]| text_of(value).as_deref() == Some(AUDIENCE);
    let among = elements_of(payload, audience);
    let strings = among.iter().all(|element| type_of(element.of(payload)) == JsonType::String);
    is(audience.of(payload)) || (strings && among.iter().any(|element| is(element.of(payload))))
}

/// A time in seconds since the epoch: a number, fractional or not, never a string.
fn instant(value: &[u8]) -> Option<Duration> {
    let number = std::str::from_utf8(value).ok().filter(|_| type_of(value) == JsonType::Number)?;
    let seconds: f64 = number.parse().ok()?;
    (0.0..=LAST_SECOND).contains(&seconds).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[expect(
    clippy::expect_used,
    reason = "HMAC takes keys of every length; the error is for other algorithms of the trait"
)]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const ORACLE: &str = include_str!("../../fixtures/jwt/oracle.jsonl");

    fn rows() -> Vec<Value> {
        ORACLE.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn verdict(row: &Value) -> String {
        let keys: Vec<&[u8]> = row["keys"].as_array().unwrap().iter().map(|k| k.as_str().unwrap().as_bytes()).collect();
        let now = Duration::from_secs_f64(row["now"].as_f64().unwrap());
        match Keys::new(keys).verify(row["token"].as_str().unwrap(), now) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_token_of_the_oracle_is_judged_as_written() {
        let rows = rows();
        for row in &rows {
            assert_eq!(verdict(row), row["expected"], "{}", row["name"]);
        }
        let good = rows.iter().filter(|row| row["expected"] == "ok").count();
        assert!(good >= 12 && rows.len() - good >= 50, "{good} of {}", rows.len());
    }

    #[test]
    fn nothing_is_accepted_that_pyjwt_refuses() {
        for row in rows().iter().filter(|row| row["pyjwt"] != "ok") {
            assert_ne!(verdict(row), "ok", "{}", row["name"]);
        }
    }

    #[test]
    fn what_is_signed_verifies_and_says_what_it_was_given() {
        let keys = Keys::new([b"new".as_slice(), b"old"]);
        for sub in ["alice", "with \"quotes\" and ü", "\u{1}"] {
            let token = keys.sign(sub, Duration::from_millis(1_700_000_000_900), Duration::from_secs(60));
            let seconds = Duration::from_secs;
            let issued = Some(seconds(1_700_000_000));
            let expected = Claims { sub: sub.to_owned(), issued, expires: seconds(1_700_000_060) };
            assert_eq!(keys.verify(&token, seconds(1_700_000_000)), Ok(expected), "{sub}");
            assert_eq!(keys.verify(&token, seconds(1_700_000_060)), Err(TokenError::Expired));
            assert_eq!(Keys::new([b"old".as_slice()]).verify(&token, seconds(0)), Err(TokenError::Signature));
            assert!(claims_to_be_ours(&token));
        }
        assert_eq!(Keys::new([]).sign("a", Duration::ZERO, Duration::ZERO), "");
    }

    #[test]
    fn a_token_is_written_byte_for_byte_as_pyjwt_writes_it() {
        let row = rows().into_iter().find(|row| row["name"] == "as we sign it").unwrap();
        let key = row["keys"][0].as_str().unwrap();
        let token =
            Keys::new([key.as_bytes()]).sign("alice", Duration::from_secs(1_700_000_000), Duration::from_secs(3_600));
        assert_eq!(token, row["token"]);
    }

    #[test]
    fn an_altered_token_is_refused_wherever_it_was_altered() {
        let keys = Keys::new([b"secret".as_slice()]);
        let token = keys.sign("alice", Duration::ZERO, Duration::from_secs(60));
        for at in 0..token.len() {
            for byte in [b'A', b'B', b'.', b'=', b' '] {
                let mut altered = token.clone().into_bytes();
                if altered[at] == byte {
                    continue;
                }
                altered[at] = byte;
                assert!(keys.verify(std::str::from_utf8(&altered).unwrap(), Duration::ZERO).is_err(), "{at} {byte}");
            }
            assert!(keys.verify(token.split_at(at).0, Duration::ZERO).is_err(), "{at}");
        }
    }

    #[test]
    fn only_what_names_the_gateway_passes_itself_off_as_its_token() {
        let payload = |text: &str| format!("x.{}.y", URL_SAFE_NO_PAD.encode(text));
        for ours in [r#"{"iss":"mcp-x"}"#, r#" {"exp":1,"iss":"mcp\u002dx"} "#, r#"{"iss":"a","iss":"mcp-x"}"#] {
            assert!(claims_to_be_ours(&payload(ours)), "{ours}");
        }
        for other in [r#"{"iss":"other"}"#, r#"{"iss":["mcp-x"]}"#, r#""mcp-x""#, "{}", "", "mcp-x"] {
            assert!(!claims_to_be_ours(&payload(other)), "{other}");
        }
        for other in ["", "..", "a.b", "123", "x.y.z.w"] {
            assert!(!claims_to_be_ours(other), "{other}");
        }
    }
}
