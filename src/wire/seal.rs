//! Values that leave the gateway and come back unchanged or not at all: HMAC-sealed.
//!
//! Format: base64url, without padding, of version (1 byte) ‖ key id (1 byte) ‖ payload ‖ HMAC-SHA256 over all before it.
//! A seal proves that this gateway (or another with the same secret) made the value; it hides nothing, so nothing secret
//! goes in. Every kind of value has its own key, so that one cannot be passed off as another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::mcp::{ClientCapabilities, ListKind, ProtocolVersion};

const FORMAT: u8 = 1;
const MAC_BYTES: usize = 32;

/// The keys of one kind of sealed value: the newest seals, all of them open.
#[derive(Clone)]
pub struct Sealer {
    keys: Vec<Key>,
}

/// A key ready for use, and the byte that tells it from others so that the right one of several is tried.
#[derive(Clone)]
struct Key {
    id: u8,
    hmac: Hmac<Sha256>,
}

impl Key {
    fn derive(line: &[u8], label: &str) -> Self {
        let hmac = keyed(&mac(keyed(line), label.as_bytes()));
        let [id, ..] = mac(hmac.clone(), b"key id");
        Self { id, hmac }
    }
}

impl Sealer {
    /// Derives the keys of `kind` from the lines of the secret file, the newest first: HMAC(line, `mcp-x/1/<kind>`).
    #[must_use]
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a [u8]>, kind: &str) -> Self {
        let label = format!("mcp-x/1/{kind}");
        Self { keys: lines.into_iter().map(|line| Key::derive(line, &label)).collect() }
    }

    /// Seals `payload`.
    #[must_use]
    pub fn seal(&self, payload: &[u8]) -> String {
        let Some(key) = self.keys.first() else { return String::new() };
        let mut value = vec![FORMAT, key.id];
        value.extend_from_slice(payload);
        let tag = mac(key.hmac.clone(), &value);
        value.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(value)
    }

    /// Opens a sealed value; `None` if it was not sealed with one of the keys, whatever else is wrong with it.
    #[must_use]
    pub fn open(&self, sealed: &str) -> Option<Vec<u8>> {
        let mut value = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (signed, tag) = value.split_at_checked(value.len().checked_sub(MAC_BYTES)?)?;
        let [FORMAT, id, payload @ ..] = signed else { return None };
        let made = |key: &&Key| key.id == *id && key.hmac.clone().chain_update(signed).verify_slice(tag).is_ok();
        self.keys.iter().find(made)?;
        let length = payload.len();
        value.drain(..2);
        value.truncate(length);
        Some(value)
    }
}

#[expect(
    clippy::expect_used,
    reason = "HMAC takes keys of every length; the error is for other algorithms of the trait"
)]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

fn mac(keyed: Hmac<Sha256>, message: &[u8]) -> [u8; 32] {
    keyed.chain_update(message).finalize().into_bytes().into()
}

/// What an `Mcp-Session-Id` says: enough to serve the session again after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// First half of the SHA-256 of the client's name.
    pub principal: [u8; 16],
    /// Negotiated revision.
    pub version: ProtocolVersion,
    /// What the client declared in `initialize`.
    pub capabilities: ClientCapabilities,
    /// Issue time, seconds since the Unix epoch.
    pub issued: u64,
    /// 128 random bits: the key of the session's soft state.
    pub nonce: [u8; 16],
}

impl SessionId {
    /// Longest session id there is, in bytes; longer headers are not looked at.
    pub const MAX_LENGTH: usize = 200;

    /// The principal of a client's name.
    #[must_use]
    pub fn principal(client: &str) -> [u8; 16] {
        let hash = Sha256::digest(client.as_bytes());
        std::array::from_fn(|i| hash.get(i).copied().unwrap_or_default())
    }

    /// Writes the id as a header value.
    #[must_use]
    pub fn seal(&self, sealer: &Sealer) -> String {
        let mut payload = Vec::with_capacity(43);
        payload.extend_from_slice(&self.principal);
        payload.push(self.version as u8);
        payload.extend_from_slice(&self.capabilities.bits().to_be_bytes());
        payload.extend_from_slice(&self.issued.to_be_bytes());
        payload.extend_from_slice(&self.nonce);
        sealer.seal(&payload)
    }

    /// Reads a header value; `None` if it is no session id of this gateway.
    #[must_use]
    pub fn open(sealer: &Sealer, sealed: &str) -> Option<Self> {
        if sealed.len() > Self::MAX_LENGTH {
            return None;
        }
        let payload = sealer.open(sealed)?;
        let (principal, rest) = payload.split_first_chunk::<16>()?;
        let (version, rest) = rest.split_first()?;
        let (capabilities, rest) = rest.split_first_chunk::<2>()?;
        let (issued, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            principal: *principal,
            version: *ProtocolVersion::ALL.get(usize::from(*version))?,
            capabilities: ClientCapabilities::from_bits(u16::from_be_bytes(*capabilities)),
            issued: u64::from_be_bytes(*issued),
            nonce: rest.try_into().ok()?,
        })
    }
}

/// What the cursor of a list says: after which entry it goes on, and whose list it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which list.
    pub list: ListKind,
    /// First half of the SHA-256 of the client's name.
    pub principal: [u8; 16],
    /// SHA-256 of the name of the last entry's server.
    pub server: [u8; 32],
    /// The server's own name for the last entry.
    pub name: String,
}

impl Cursor {
    /// Longest cursor that is looked at, in bytes.
    const MAX_LENGTH: usize = 1024;

    /// Writes the cursor as a text without characters that JSON escapes.
    #[must_use]
    pub fn seal(&self, sealer: &Sealer) -> String {
        let list = [self.list as u8];
        sealer.seal(&[&list[..], &self.principal, &self.server, self.name.as_bytes()].concat())
    }

    /// Reads a cursor that a client sent; `None` if it is none of this gateway.
    #[must_use]
    pub fn open(sealer: &Sealer, sealed: &str) -> Option<Self> {
        if sealed.len() > Self::MAX_LENGTH {
            return None;
        }
        let payload = sealer.open(sealed)?;
        let (list, rest) = payload.split_first()?;
        let (principal, rest) = rest.split_first_chunk::<16>()?;
        let (server, name) = rest.split_first_chunk::<32>()?;
        Some(Self {
            list: *ListKind::ALL.get(usize::from(*list))?,
            principal: *principal,
            server: *server,
            name: std::str::from_utf8(name).ok()?.to_owned(),
        })
    }
}

/// What the client's answers to a server's questions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// They go to a modern server, with its own state (protocol.md 4.5).
    Relay,
    /// They go into a call that waits for them at a legacy server (protocol.md 4.3); the state is that of a [`Handle`].
    Parked,
    /// They go nowhere: nothing waits, and the request is made once more (after an error -32042).
    Again,
}

impl StateKind {
    /// All kinds; the place of one is its number in sealed values, so new ones go to the end.
    const ALL: [Self; 3] = [Self::Relay, Self::Parked, Self::Again];
}

/// What a `requestState` of the gateway says. It stands for that of a server, which takes every client of the gateway for
/// the same one and so cannot keep them apart itself, or for what the gateway keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestState {
    /// What becomes of the answers.
    pub kind: StateKind,
    /// First half of the SHA-256 of the client's name, as in [`SessionId::principal`].
    pub principal: [u8; 16],
    /// The server, as long as it is its owner's.
    pub server: [u8; 32],
    /// Digest of the request that the server wants to see again.
    pub request: [u8; 32],
    /// When it ends, seconds since the Unix epoch.
    pub expires: u64,
    /// What is behind it: the server's own value, a JSON string as it was written; the bytes of a [`Handle`]; or nothing.
    pub original: Vec<u8>,
}

impl RequestState {
    /// Longest value that is looked at, in bytes.
    pub const MAX_LENGTH: usize = 64 * 1024;

    /// Writes the value; `None` if it would be longer than [`MAX_LENGTH`](Self::MAX_LENGTH).
    #[must_use]
    pub fn seal(&self, sealer: &Sealer) -> Option<String> {
        let mut payload = Vec::with_capacity(89 + self.original.len());
        payload.push(self.kind as u8);
        payload.extend_from_slice(&self.principal);
        payload.extend_from_slice(&self.server);
        payload.extend_from_slice(&self.request);
        payload.extend_from_slice(&self.expires.to_be_bytes());
        payload.extend_from_slice(&self.original);
        Some(sealer.seal(&payload)).filter(|sealed| sealed.len() <= Self::MAX_LENGTH)
    }

    /// Reads a value; `None` if the gateway did not make it.
    #[must_use]
    pub fn open(sealer: &Sealer, sealed: &str) -> Option<Self> {
        if sealed.len() > Self::MAX_LENGTH {
            return None;
        }
        let payload = sealer.open(sealed)?;
        let (kind, rest) = payload.split_first()?;
        let (principal, rest) = rest.split_first_chunk::<16>()?;
        let (server, rest) = rest.split_first_chunk::<32>()?;
        let (request, rest) = rest.split_first_chunk::<32>()?;
        let (expires, original) = rest.split_first_chunk::<8>()?;
        Some(Self {
            kind: *StateKind::ALL.get(usize::from(*kind))?,
            principal: *principal,
            server: *server,
            request: *request,
            expires: u64::from_be_bytes(*expires),
            original: original.to_vec(),
        })
    }
}

/// Names a call that waits in the gateway for answers of its client, and the questions that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The gateway that holds it: another, or the same one started anew, has never heard of it.
    pub instance: u64,
    /// 128 random bits: the call.
    pub bits: [u8; 16],
    /// How often it has asked: answers to an earlier round come too late.
    pub round: u32,
}

impl Handle {
    /// The handle as the `original` of a [`RequestState`].
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        [&self.instance.to_be_bytes()[..], &self.bits, &self.round.to_be_bytes()].concat()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (instance, rest) = bytes.split_first_chunk::<8>()?;
        let (bits, round) = rest.split_first_chunk::<16>()?;
        let round = u32::from_be_bytes(round.try_into().ok()?);
        Some(Self { instance: u64::from_be_bytes(*instance), bits: *bits, round })
    }
}

/// What the id of a task says, as clients get it: which server has the task, and whose it is (protocol.md 4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskId {
    /// First half of the SHA-256 of the client's name, as in [`SessionId::principal`].
    pub principal: [u8; 16],
    /// The server, as long as it is its owner's.
    pub server: [u8; 32],
    /// The server's own name for the tool that became a task.
    pub tool: String,
    /// The server's own id of the task.
    pub own: String,
}

impl TaskId {
    /// Longest id there is, in bytes; longer ones are not looked at.
    pub const MAX_LENGTH: usize = 2048;

    /// Writes the id, in characters that neither JSON nor headers escape; `None` if it would be longer than
    /// [`MAX_LENGTH`](Self::MAX_LENGTH).
    #[must_use]
    pub fn seal(&self, sealer: &Sealer) -> Option<String> {
        let length = u16::try_from(self.tool.len()).ok()?.to_be_bytes();
        let parts = [&self.principal[..], &self.server, &length, self.tool.as_bytes(), self.own.as_bytes()];
        Some(sealer.seal(&parts.concat())).filter(|sealed| sealed.len() <= Self::MAX_LENGTH)
    }

    /// Reads an id; `None` if the gateway did not make it.
    #[must_use]
    pub fn open(sealer: &Sealer, sealed: &str) -> Option<Self> {
        if sealed.len() > Self::MAX_LENGTH {
            return None;
        }
        let payload = sealer.open(sealed)?;
        let (principal, rest) = payload.split_first_chunk::<16>()?;
        let (server, rest) = rest.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (tool, own) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        Some(Self {
            principal: *principal,
            server: *server,
            tool: std::str::from_utf8(tool).ok()?.to_owned(),
            own: std::str::from_utf8(own).ok()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(lines: &[&str], kind: &str) -> Sealer {
        Sealer::new(lines.iter().map(|l| l.as_bytes()), kind)
    }

    #[test]
    fn request_states_come_back_as_they_were() {
        let sealer = sealer(&["secret"], "state");
        for kind in StateKind::ALL {
            let original = b"\"\\u00e9 x\"".to_vec();
            let state =
                RequestState { kind, principal: [1; 16], server: [2; 32], request: [3; 32], expires: 4, original };
            let sealed = state.seal(&sealer).unwrap();
            assert_eq!(RequestState::open(&sealer, &sealed), Some(state.clone()));
            for odd in [
                format!("{sealed}-TAMPERED"),
                sealed.replacen(|_: char| true, "", 1),
                String::new(),
                "x".repeat(70_000),
            ] {
                assert_eq!(RequestState::open(&sealer, &odd), None, "{odd}");
            }
            assert_eq!(RequestState { original: vec![b'x'; 50_000], ..state }.seal(&sealer), None);
        }
        for (kind, is_known) in [(0, true), (2, true), (3, false), (0xff, false)] {
            let sealed = sealer.seal(&[[kind].as_slice(), &[0; 88]].concat());
            assert_eq!(RequestState::open(&sealer, &sealed).is_some(), is_known, "{kind}");
        }
    }

    #[test]
    fn handles_have_one_length() {
        let handle = Handle { instance: 0x0102_0304_0506_0708, bits: [9; 16], round: 0x0a0b_0c0d };
        let bytes = handle.to_bytes();
        assert_eq!(bytes, [&[1, 2, 3, 4, 5, 6, 7, 8][..], &[9; 16], &[10, 11, 12, 13]].concat());
        assert_eq!(Handle::from_bytes(&bytes), Some(handle));
        for length in (0..40).filter(|length| *length != bytes.len()) {
            assert_eq!(Handle::from_bytes(&vec![0; length]), None, "{length}");
        }
    }

    #[test]
    fn task_ids_survive_the_round_trip() {
        let seal = sealer(&["secret"], "task");
        let id = |tool: &str, own: &str| TaskId {
            principal: SessionId::principal("alice"),
            server: [9; 32],
            tool: tool.to_owned(),
            own: own.to_owned(),
        };
        for (tool, own) in [("echo", "786512e2-9e0d"), ("", ""), ("", "a"), ("a", ""), ("\u{e9}\"\n", "\u{1f600}/?")] {
            let sealed = id(tool, own).seal(&seal).unwrap();
            assert!(sealed.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{sealed}");
            assert_eq!(TaskId::open(&seal, &sealed), Some(id(tool, own)));
            assert_eq!(TaskId::open(&sealer(&["secret"], "cursor"), &sealed), None);
            assert_eq!(TaskId::open(&seal, &format!("{sealed}A")), None);
        }
        assert!(id("ab", "c") != id("a", "bc") && id("ab", "c").seal(&seal) != id("a", "bc").seal(&seal));
        for payload in
            [&[0; 49][..], &[[0; 48].as_slice(), &[0, 2, b'a']].concat(), &[[0; 50].as_slice(), &[0xff]].concat()]
        {
            assert_eq!(TaskId::open(&seal, &seal.seal(payload)), None, "{payload:?}");
        }
        for long in [1500, 70_000] {
            assert_eq!(id("t", &"x".repeat(long)).seal(&seal), None);
            assert_eq!(id(&"x".repeat(long), "o").seal(&seal), None);
        }
        let longest = id("", &"x".repeat(1452)).seal(&seal).unwrap();
        assert_eq!((longest.len(), TaskId::open(&seal, &longest).is_some()), (TaskId::MAX_LENGTH, true));
        assert_eq!(TaskId::open(&seal, &seal.seal(&[0; 1503])), None, "too long");
    }

    #[test]
    fn what_was_sealed_opens() {
        let seal = sealer(&["secret"], "session");
        for payload in [&b""[..], b"a", &[0; 1000]] {
            assert_eq!(seal.open(&seal.seal(payload)).as_deref(), Some(payload));
        }
    }

    #[test]
    fn a_changed_value_does_not_open() {
        let seal = sealer(&["secret"], "session");
        let sealed = seal.seal(b"payload");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open(std::str::from_utf8(&changed).unwrap()), None, "byte {at}");
            assert_eq!(seal.open(sealed.split_at(at).0), None, "length {at}");
        }
        for other in ["", "x", "====", &format!("{sealed}A"), &format!("{sealed}-TAMPERED")] {
            assert_eq!(seal.open(other), None, "{other}");
        }
    }

    #[test]
    fn a_value_of_another_kind_or_secret_does_not_open() {
        let sealed = sealer(&["secret"], "session").seal(b"x");
        assert_eq!(sealer(&["secret"], "cursor").open(&sealed), None);
        assert_eq!(sealer(&["other"], "session").open(&sealed), None);
        assert_eq!(sealer(&[], "session").open(&sealed), None);
    }

    #[test]
    fn an_older_secret_still_opens() {
        let old = sealer(&["old"], "session").seal(b"x");
        let rotated = sealer(&["new", "old"], "session");
        assert_eq!(rotated.open(&old).as_deref(), Some(&b"x"[..]));
        assert_eq!(sealer(&["old"], "session").open(&rotated.seal(b"y")), None);
    }

    #[test]
    fn session_ids_survive_the_round_trip_and_stay_short() {
        let seal = sealer(&["secret"], "session");
        for version in ProtocolVersion::ALL {
            let id = SessionId {
                principal: SessionId::principal(&"long name ".repeat(100)),
                version,
                capabilities: ClientCapabilities::from_bits(0x7f),
                issued: u64::MAX,
                nonce: [7; 16],
            };
            let sealed = id.seal(&seal);
            assert!(sealed.len() <= SessionId::MAX_LENGTH, "{}", sealed.len());
            assert!(sealed.bytes().all(|b| b.is_ascii_graphic()));
            assert_eq!(SessionId::open(&seal, &sealed), Some(id));
        }
        assert_eq!(SessionId::open(&seal, &seal.seal(b"short")), None);
    }

    #[test]
    fn cursors_survive_the_round_trip() {
        let seal = sealer(&["secret"], "cursor");
        let names = ["echo", "", "\u{e9}\"\n", &"x".repeat(256)];
        for (list, name) in ListKind::ALL.into_iter().zip(names) {
            let (principal, server) = (SessionId::principal("alice"), [9; 32]);
            let cursor = Cursor { list, principal, server, name: name.to_owned() };
            let sealed = cursor.seal(&seal);
            assert!(sealed.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{sealed}");
            assert_eq!(sealed, cursor.seal(&seal), "the same cursor is written in the same way");
            assert_eq!(Cursor::open(&seal, &sealed), Some(cursor));
        }
        for payload in
            [&b""[..], &[0; 48], &[[4].as_slice(), &[0; 49]].concat(), &[[0].as_slice(), &[0xff; 49]].concat()]
        {
            assert_eq!(Cursor::open(&seal, &seal.seal(payload)), None, "{payload:?}");
        }
        let long = Cursor { list: ListKind::Tools, principal: [0; 16], server: [0; 32], name: "x".repeat(1000) };
        assert_eq!(Cursor::open(&seal, &long.seal(&seal)), None);
    }
}
