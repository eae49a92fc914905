//! Catalogues that outlive the process: their form on the disk, and when they are written.
//!
//! A server that is down after a restart still holds its names by what it offered last. A catalogue is kept for one
//! server at one place with one owner, and is nothing to another.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::catalogue::listed;
use super::{Catalogue, Offer, Upstream};
use crate::log::{Log, Record};
use crate::policy::{Server, ServerId, ServerKey};
use crate::wire::config::Limits;
use crate::wire::hex;
use crate::wire::json::{Duplicates, JsonType, Scanner, Span, elements_of, members_of, text_of, type_of, write_text};
use crate::wire::mcp::{Era, ListKind};
use crate::wire::splice::object_of;

/// The number of the form; a file with another one is of a newer gateway.
const FORMAT: &str = "1";
/// Bytes of a file besides its tools.
const ENVELOPE: usize = 64 * 1024;
/// Catalogues that are written at the same time.
const WRITES: usize = 4;

/// Where catalogues are kept as bytes. Each of these may take as long as a disk does.
pub trait Keeper: Send + Sync {
    /// What is kept for a server, of at most so many bytes.
    ///
    /// # Errors
    /// Why that cannot be told, for the log.
    fn load(&self, server: &ServerKey, most: u64) -> Result<Option<Vec<u8>>, Box<dyn Error>>;

    /// Replaces what is kept for a server.
    ///
    /// # Errors
    /// Why it could not be, for the log.
    fn save(&self, server: &ServerKey, bytes: &[u8]) -> Result<(), Box<dyn Error>>;

    /// Forgets a server that is gone.
    fn remove(&self, server: &ServerKey);
}

/// What the pool keeps catalogues with.
pub(super) struct Kept {
    keeper: Box<dyn Keeper>,
    /// Keeps a start with many servers from writing all of them at once.
    turns: Semaphore,
}

/// What is known of the keeper's copy of one upstream's catalogue. Locked while it is written.
#[derive(Default)]
pub(super) struct OnDisk {
    /// The catalogue that the keeper has.
    catalogue: Option<Arc<Catalogue>>,
    /// Whether the upstream was taken out, so that nothing may be written for it any more.
    over: bool,
    /// Whether the last try to write failed, which is told once.
    failed: bool,
}

/// Why a kept catalogue is not used.
#[derive(Debug, PartialEq, Eq)]
enum Misfit {
    /// It is of another place or another owner.
    Other,
    /// It has another form.
    Format,
    /// It is not what was written.
    Damaged(&'static str),
    /// It goes beyond a limit that was lowered since.
    TooLarge,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("it is of another URL or owner"),
            Self::Format => write!(f, "expected format {FORMAT}"),
            Self::Damaged(expected) => write!(f, "damaged: expected {expected}"),
            Self::TooLarge => f.write_str("larger than `max_catalogue_bytes` or `max_tools_per_server`"),
        }
    }
}

impl Kept {
    pub(super) fn new(keeper: Box<dyn Keeper>) -> Self {
        Self { keeper, turns: Semaphore::new(WRITES) }
    }

    /// What a server offered when it was last asked, by whatever process; nothing is known of it yet if there is nothing.
    pub(super) fn offer(&self, server: &Server, limits: &Limits, log: &Log) -> Offer {
        let most = limits.catalogue_bytes.saturating_mul(2).saturating_add(ENVELOPE) as u64;
        let read = match self.keeper.load(&server.key, most) {
            Ok(None) => return Offer::default(),
            Ok(Some(bytes)) => read(bytes.into(), server, limits).map_err(Box::<dyn Error>::from),
            Err(error) => Err(error),
        };
        match read {
            Ok(catalogue) => Offer { catalogue: Arc::new(catalogue), known: true, ..Offer::default() },
            Err(reason) => {
                ignored(log, &server.id, &*reason);
                Offer::default()
            }
        }
    }

    /// Forgets a server that is gone.
    pub(super) fn remove(&self, server: &Server) {
        self.keeper.remove(&server.key);
    }
}

impl Error for Misfit {}

fn ignored(log: &Log, server: &ServerId, reason: &(dyn Error + 'static)) {
    let event = "kept catalogue ignored";
    let fields = |r: &mut Record| _ = r.field("server", server).field("reason", reason);
    match reason.downcast_ref() {
        Some(Misfit::Other) => log.debug(event, fields),
        _ => log.warn(event, fields),
    }
}

impl Upstream {
    /// Keeps the catalogue in force, unless it is kept already. The disk work is done elsewhere.
    pub(super) async fn keep(self: &Arc<Self>, kept: &Arc<Kept>) {
        let offer = self.offer();
        if offer.failure.is_some() || self.on_disk().holds(&offer.catalogue) {
            return;
        }
        let Ok(_turn) = kept.turns.acquire().await else { return };
        let (upstream, kept) = (Arc::clone(self), Arc::clone(kept));
        // Of a runtime that ends nobody expects an answer.
        let _ = tokio::task::spawn_blocking(move || upstream.write(&*kept.keeper, offer.catalogue)).await;
    }

    fn write(&self, keeper: &dyn Keeper, catalogue: Arc<Catalogue>) {
        let mut on_disk = self.on_disk();
        if on_disk.over {
            return;
        }
        match keeper.save(&self.server.key, &written(&catalogue, &self.server)) {
            Ok(()) => {
                on_disk.catalogue = Some(catalogue);
                on_disk.failed = false;
            }
            Err(error) if !std::mem::replace(&mut on_disk.failed, true) => {
                self.log.warn("catalogue not kept", |r| _ = r.field("server", self.id()).field("reason", error));
            }
            Err(_) => {}
        }
    }

    /// Ends the writing for an upstream that was taken out; a write that is under way is waited for.
    /// Returns what is kept of it.
    pub(super) fn retire(&self) -> Option<Arc<Catalogue>> {
        let mut on_disk = self.on_disk();
        on_disk.over = true;
        on_disk.catalogue.clone()
    }

    fn on_disk(&self) -> MutexGuard<'_, OnDisk> {
        self.on_disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OnDisk {
    /// The keeper has this already.
    pub(super) fn new(catalogue: Option<Arc<Catalogue>>) -> Mutex<Self> {
        Mutex::new(Self { catalogue, ..Self::default() })
    }

    fn holds(&self, catalogue: &Arc<Catalogue>) -> bool {
        self.catalogue.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, catalogue))
    }
}

/// Tells whose catalogue it is.
///
/// SECURITY: hashed, because the query of a URL may hold a credential.
fn whose(server: &Server) -> String {
    let place = format!("{}{} {}", server.endpoint.origin(), server.endpoint.target, server.owner);
    hex::encode(&Sha256::digest(place))
}

/// A catalogue as it is kept: `{"format":1,"server":…,"whose":…,"instructions":…,"tools":[…],…}`, one list for each kind
/// there is anything of, each entry as its server describes it.
fn written(catalogue: &Catalogue, server: &Server) -> Vec<u8> {
    let mut out = format!("{{\"format\":{FORMAT},\"server\":").into_bytes();
    write_text(&mut out, server.id.as_str());
    out.extend_from_slice(b",\"whose\":");
    write_text(&mut out, &whose(server));
    if let Some(instructions) = &catalogue.instructions {
        out.extend_from_slice(b",\"instructions\":");
        write_text(&mut out, instructions);
    }
    for kind in ListKind::ALL {
        let list = catalogue.list(kind);
        let there = kind == ListKind::Tools || (kind == ListKind::Resources && catalogue.resources);
        if list.is_empty() && !there {
            continue;
        }
        out.extend_from_slice(format!(",\"{}\":[", kind.member()).as_bytes());
        for (position, entry) in list.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend(object_of(entry.members.iter().map(|member| &*member.text)));
        }
        out.push(b']');
    }
    out.push(b'}');
    out
}

/// Reads what [`written`] made for this server.
fn read(bytes: Bytes, server: &Server, limits: &Limits) -> Result<Catalogue, Misfit> {
    let whole = checked(&bytes, limits.json_depth)?;
    let members = members_of(&bytes, whole);
    let member = |name| members.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let text = |name| member(name).and_then(|value| text_of(value.of(&bytes)));
    match member("format") {
        Some(format) if format.of(&bytes) == FORMAT.as_bytes() => {}
        Some(_) => return Err(Misfit::Format),
        None => return Err(Misfit::Damaged("a `format`")),
    }
    if text("whose").ok_or(Misfit::Damaged("a `whose`"))? != whose(server) {
        return Err(Misfit::Other);
    }
    let instructions = text("instructions").map(Into::into);
    let mut catalogue = Catalogue { instructions, ..Catalogue::default() };
    let mut size = 0;
    for kind in ListKind::ALL {
        let list = match member(kind.member()) {
            Some(list) if type_of(list.of(&bytes)) == JsonType::Array => elements_of(&bytes, list),
            None if kind != ListKind::Tools => Vec::new(),
            _ => return Err(Misfit::Damaged("a list of each kind")),
        };
        catalogue.resources |= kind == ListKind::Resources && member(kind.member()).is_some();
        size += list.iter().map(|entry| entry.end - entry.start).sum::<usize>();
        if list.len() > limits.tools_per_server || size > limits.catalogue_bytes {
            return Err(Misfit::TooLarge);
        }
        // Annotations that a legacy server would not look for were taken out before the catalogue was kept.
        let entries = list.iter().map(|entry| listed(kind, entry.of(&bytes), Era::Modern));
        let entries: Result<Vec<_>, _> = entries.collect();
        *catalogue.list_mut(kind) = entries.map_err(|_| Misfit::Damaged("an entry"))?;
    }
    Ok(catalogue)
}

/// The span of a JSON object that is all there.
fn checked(bytes: &[u8], depth: usize) -> Result<Span, Misfit> {
    let scan = || {
        let mut scanner = Scanner::new(bytes, depth, Duplicates::LastCounts)?;
        let whole = scanner.value()?;
        scanner.end().map(|()| whole)
    };
    let whole = scan().map_err(|_| Misfit::Damaged("JSON"))?;
    if type_of(whole.of(bytes)) == JsonType::Object { Ok(whole) } else { Err(Misfit::Damaged("an object")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Registry;
    use crate::wire::config::Secrets;

    fn server(url: &str, owner: &str) -> Arc<Server> {
        let text = format!("[clients.a]\nauth_token = '1'\n[mcp_servers.s]\nurl = '{url}'\nfrom_client = '{owner}'\n");
        let built = Registry::load(&text, |_| Secrets::default());
        let registry = built.registry.unwrap_or_else(|| panic!("{:?}", built.problems));
        Arc::clone(registry.server(&ServerId::new("s")).unwrap())
    }

    fn catalogue(tools: &[&str], instructions: Option<&str>) -> Catalogue {
        let mut made = Catalogue { instructions: instructions.map(Into::into), ..Catalogue::default() };
        add(&mut made, ListKind::Tools, tools);
        made
    }

    fn add(catalogue: &mut Catalogue, kind: ListKind, entries: &[&str]) {
        let entries = entries.iter().map(|entry| listed(kind, entry.as_bytes(), Era::Legacy).unwrap());
        catalogue.list_mut(kind).extend(entries);
        catalogue.resources |= kind == ListKind::Resources;
    }

    const RICH: &str = r#"{ "name" : "t\u00e9" ,"x-new":{"b":1.0,"a":1e21} , "description":"\"\n"}"#;

    #[test]
    fn what_is_written_is_read_to_the_byte() {
        let server = server("http://h/mcp?key=secret", "a");
        let mut all = catalogue(&[r#"{"name":"a"}"#], None);
        add(&mut all, ListKind::Prompts, &[r#"{"name":"a","arguments":[{"name":"x"}]}"#]);
        add(
            &mut all,
            ListKind::Resources,
            &[r#"{"uri":"f:///a","name":"a","size":1.0}"#, r#"{"name":"b","uri":"f:b"}"#],
        );
        add(&mut all, ListKind::Templates, &[r#"{"uriTemplate":"f:///{a}","name":"t"}"#]);
        for catalogue in [
            all,
            Catalogue::default(),
            catalogue(&[r#"{"name":"a"}"#], Some("say \"hello\"\n")),
            catalogue(&[RICH, r#"{"name":"b","inputSchema":{"type":"object"}}"#], None),
        ] {
            let bytes = written(&catalogue, &server);
            assert!(!String::from_utf8_lossy(&bytes).contains("secret"), "a credential is kept");
            assert_eq!(read(bytes.into(), &server, &Limits::default()), Ok(catalogue));
        }
    }

    #[test]
    fn the_catalogue_of_another_place_or_owner_is_none() {
        let own = server("http://h/mcp?a=1", "a");
        let bytes = Bytes::from(written(&catalogue(&[RICH], None), &own));
        for other in [
            server("http://h/mcp?a=2", "a"),
            server("http://h/other?a=1", "a"),
            server("http://h:81/mcp?a=1", "a"),
            server("http://h/mcp?a=1", "b"),
        ] {
            assert_eq!(read(bytes.clone(), &other, &Limits::default()), Err(Misfit::Other), "{other:?}");
        }
        assert!(read(bytes, &own, &Limits::default()).is_ok());
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let server = server("http://h/", "a");
        let bytes = written(&catalogue(&[RICH, r#"{"name":"b"}"#], Some("i")), &server);
        for length in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..length]);
            assert_eq!(read(cut, &server, &Limits::default()), Err(Misfit::Damaged("JSON")), "{length}");
        }
        let text = String::from_utf8(bytes).unwrap();
        for (from, to, expected) in [
            ("\"format\":1", "\"format\":2", Misfit::Format),
            ("\"format\":1", "\"format\":\"1\"", Misfit::Format),
            ("\"format\"", "\"forma\"", Misfit::Damaged("a `format`")),
            ("\"whose\"", "\"who\"", Misfit::Damaged("a `whose`")),
            ("\"tools\"", "\"tool\"", Misfit::Damaged("a list of each kind")),
            ("\"name\":\"b\"", "\"name\":\"\"", Misfit::Damaged("an entry")),
            ("\"name\":\"b\"", "\"nam\":\"b\"", Misfit::Damaged("an entry")),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert_eq!(read(changed.into(), &server, &Limits::default()), Err(expected), "{to}");
        }
        for other in ["[]", "7", "", "\u{0}\u{0}"] {
            assert!(matches!(read(other.into(), &server, &Limits::default()), Err(Misfit::Damaged(_))), "{other:?}");
        }
    }

    #[test]
    fn what_goes_beyond_a_limit_is_not_read() {
        let server = server("http://h/", "a");
        let tools = [r#"{"name":"a"}"#, r#"{"name":"b"}"#];
        let bytes = Bytes::from(written(&catalogue(&tools, None), &server));
        let read = |limits: Limits| {
            read(bytes.clone(), &server, &limits).map(|catalogue| catalogue.list(ListKind::Tools).len())
        };
        assert_eq!(read(Limits { tools_per_server: 2, catalogue_bytes: 24, ..Limits::default() }), Ok(2));
        assert_eq!(read(Limits { tools_per_server: 1, ..Limits::default() }), Err(Misfit::TooLarge));
        assert_eq!(read(Limits { catalogue_bytes: 23, ..Limits::default() }), Err(Misfit::TooLarge));
    }
}
