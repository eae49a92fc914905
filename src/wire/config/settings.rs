//! `[gateway]`: what the gateway as a whole is told, with every default in one place.
//!
//! Defaults are `Default` of [`Settings`] and [`Limits`]; `config.example.toml` repeats them as comments, and a test
//! compares the two. Ranges are wide: they refuse what cannot work, not what is unwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::address::{AddressRange, host, listen_address, origin};
use super::problem::{Problem, join};
use super::section::Section;

/// Everything in `[gateway]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Values of `Host` that are served besides loopback names, in lower case, with a port if written with one.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are served, in lower case; by default `https://` and an allowed host.
    pub allowed_origins: Vec<String>,
    /// Whether anybody may register as a client; `None` leaves it to [`Settings::registration_open`].
    pub registration: Option<Registration>,
    /// Whom the grants of self-registered owners reach.
    pub shares: Shares,
    /// Whether servers of self-registered clients may live at loopback and private addresses.
    pub allow_private_upstreams: bool,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<AddressRange>,
    /// SHA-256 of the token that opens `/metrics` and nothing else.
    pub metrics_token: Option<[u8; 32]>,
    /// Where audit records go.
    pub audit_file: Option<PathBuf>,
    /// Entries on one page of a list.
    pub page_size: usize,
    /// Oldest age of a catalogue before it is fetched again in the background.
    pub refresh: Duration,
    /// Longest wait for the first catalogue of a server.
    pub list_timeout: Duration,
    /// Longest wait for open requests when stopping.
    pub drain: Duration,
    /// Limits on what clients and servers can make the gateway do.
    pub limits: Limits,
}

/// Whether clients may register themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Anybody who reaches the gateway may.
    Open,
    /// Nobody may.
    Closed,
}

/// Whom the grants of self-registered owners reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shares {
    /// Every client they name.
    All,
    /// Self-registered clients only: what the operator's clients see is for the operator to say.
    Operator,
}

/// Limits of the design's section 13; what lies beyond each is said there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Bytes of a request's line and headers.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Longest time a connection may be idle between requests.
    pub idle: Duration,
    /// Longest time from the first byte of a request's headers to the last.
    pub header_read: Duration,
    /// Longest time for a request's body.
    pub body_read: Duration,
    /// How often a silent event stream says that it is alive.
    pub keep_alive: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Nesting of JSON.
    pub json_depth: usize,
    /// Bytes of a server's response.
    pub response_bytes: usize,
    /// Bytes of one event of a server's event stream.
    pub event_bytes: usize,
    /// Longest time to connect to a server.
    pub connect: Duration,
    /// Longest time a call may be silent, unless the server has a `timeout_seconds` of its own.
    pub silent_call: Duration,
    /// Longest time of a whole call.
    pub whole_call: Duration,
    /// Tools, and likewise prompts and resources, of one server.
    pub tools_per_server: usize,
    /// Pages fetched for one list of a server.
    pub list_pages: usize,
    /// Calls in flight for one client.
    pub calls_per_client: usize,
    /// Calls in flight to one server.
    pub calls_per_server: usize,
    /// Bytes held in buffers by all requests together.
    pub buffered_bytes: usize,
    /// Bytes of one server's catalogue.
    pub catalogue_bytes: usize,
    /// Sessions of one client with soft state.
    pub sessions_per_client: usize,
    /// Event streams of one client.
    pub streams_per_client: usize,
    /// Calls of one client that wait for an answer from it.
    pub parked_calls_per_client: usize,
    /// How long such a call waits.
    pub parked_call: Duration,
    /// Longest time the soft state of an unused session is kept.
    pub idle_session: Duration,
    /// Registrations from one address in a minute.
    pub registrations_per_minute: usize,
    /// Clients created over REST.
    pub registered_clients: usize,
    /// Servers that one client created over REST.
    pub registered_servers_per_client: usize,
    /// Servers created over REST by all clients.
    pub registered_servers: usize,
}

/// Bytes in a KiB and a MiB.
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Largest count, largest size in bytes, and longest time in seconds (a year) that can be configured.
const MOST: u32 = 10_000_000;
const MOST_BYTES: u32 = u32::MAX;
/// Most headers of a request that can be configured: hyper makes room for all of them, for every request.
const MOST_HEADERS: u32 = 1_000;
const LONGEST: u32 = 365 * 24 * 60 * 60;

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9000)),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            registration: None,
            shares: Shares::All,
            allow_private_upstreams: false,
            trusted_proxies: Vec::new(),
            metrics_token: None,
            audit_file: None,
            page_size: 1_000,
            refresh: Duration::from_secs(30),
            list_timeout: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_bytes: 64 * KIB,
            headers: 100,
            idle: Duration::from_secs(75),
            header_read: Duration::from_secs(10),
            body_read: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            body_bytes: 4 * MIB,
            json_depth: 128,
            response_bytes: 32 * MIB,
            event_bytes: 16 * MIB,
            connect: Duration::from_secs(5),
            silent_call: Duration::from_secs(60),
            whole_call: Duration::from_secs(15 * 60),
            tools_per_server: 10_000,
            list_pages: 100,
            calls_per_client: 128,
            calls_per_server: 256,
            buffered_bytes: 512 * MIB,
            catalogue_bytes: 8 * MIB,
            sessions_per_client: 1_000,
            streams_per_client: 100,
            parked_calls_per_client: 32,
            parked_call: Duration::from_secs(5 * 60),
            idle_session: Duration::from_secs(24 * 60 * 60),
            registrations_per_minute: 10,
            registered_clients: 10_000,
            registered_servers_per_client: 100,
            registered_servers: 1_000,
        }
    }
}

impl Settings {
    /// Tells whether anybody may register when the gateway listens on this address: as `registration` says, by
    /// default only on a loopback address without `allowed_hosts` (which mean a proxy, and so the world, in front).
    #[must_use]
    pub fn registration_open(&self, listening: SocketAddr) -> bool {
        match self.registration {
            Some(registration) => registration == Registration::Open,
            None => listening.ip().is_loopback() && self.allowed_hosts.is_empty(),
        }
    }

    /// Reads the keys of `[gateway]`.
    pub(super) fn read(s: &mut Section<'_, '_>) -> Self {
        let mut settings = Self::default();
        settings.limits.read(s);
        settings.read_doors(s);
        if let Some(shares) = s.choice("shares", &[("all", Shares::All), ("operator", Shares::Operator)]) {
            settings.shares = shares.value;
        }
        settings.allow_private_upstreams = s.flag("allow_private_upstreams").is_some_and(|flag| flag.value);
        settings.metrics_token = s.parsed("metrics_token", "a token", |token| match token {
            "" => Err("expected a token, found an empty string".to_owned()),
            token => Ok(Sha256::digest(token).into()),
        });
        settings.audit_file = s.parsed("audit_file", "a path", |path| match path {
            "" => Err("expected a path, found an empty string".to_owned()),
            path => Ok(PathBuf::from(path)),
        });
        s.count("page_size", 1..=MOST, &mut settings.page_size);
        s.seconds("refresh_seconds", 1..=LONGEST, &mut settings.refresh);
        s.seconds("list_timeout_seconds", 1..=LONGEST, &mut settings.list_timeout);
        s.seconds("drain_seconds", 0..=LONGEST, &mut settings.drain);
        settings
    }

    /// Reads the keys that say who may come in, and from where.
    fn read_doors(&mut self, s: &mut Section<'_, '_>) {
        if let Some(listen) = s.parsed("listen", "an address like `127.0.0.1:9000`", listen_address) {
            self.listen = listen;
        }
        self.allowed_hosts = s.parsed_list("allowed_hosts", "a list of host names", host).unwrap_or_default();
        let origins = s.parsed_list("allowed_origins", "a list of origins", origin);
        let https = |host: &String| format!("https://{host}");
        self.allowed_origins = origins.unwrap_or_else(|| self.allowed_hosts.iter().map(https).collect());
        let ranges = s.parsed_list("trusted_proxies", "a list of addresses", AddressRange::parse);
        self.trusted_proxies = ranges.unwrap_or_default();
        let choices = [("open", Registration::Open), ("closed", Registration::Closed)];
        let registration = s.choice("registration", &choices);
        self.registration = registration.as_ref().map(|r| r.value);
        if let Some(open) = registration.filter(|r| r.value == Registration::Open && !self.allowed_hosts.is_empty()) {
            let message = "anybody who reaches the hosts in `allowed_hosts` can register as a client";
            s.report.add(open.at, Problem::warning(join(&s.path, "registration"), message));
        }
    }
}

/// One limit, wherever it is kept.
enum Limit<'a> {
    /// A number or a size in bytes.
    Count(&'a mut usize),
    /// A time, in whole seconds.
    Seconds(&'a mut Duration),
}

impl Limits {
    /// Reads the keys of `[gateway]` that are limits.
    fn read(&mut self, s: &mut Section<'_, '_>) {
        self.each(|key, range, limit| match limit {
            Limit::Count(count) => s.count(key, range, count),
            Limit::Seconds(seconds) => s.seconds(key, range, seconds),
        });
    }

    /// Every limit by its key in `[gateway]`; times are in seconds.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let mut named = Vec::new();
        self.clone().each(|key, _, limit| {
            let value = match limit {
                Limit::Count(count) => *count as u64,
                Limit::Seconds(seconds) => seconds.as_secs(),
            };
            named.push((key, value));
        });
        named
    }

    /// Shows every limit with its key and what it may be.
    fn each(&mut self, mut show: impl FnMut(&'static str, RangeInclusive<u32>, Limit<'_>)) {
        use Limit::{Count, Seconds};
        show("max_connections", 1..=MOST, Count(&mut self.connections));
        show("max_head_bytes", 8192..=MOST_BYTES, Count(&mut self.head_bytes));
        show("max_headers", 1..=MOST_HEADERS, Count(&mut self.headers));
        show("idle_seconds", 1..=LONGEST, Seconds(&mut self.idle));
        show("header_seconds", 1..=LONGEST, Seconds(&mut self.header_read));
        show("body_seconds", 1..=LONGEST, Seconds(&mut self.body_read));
        show("keep_alive_seconds", 1..=LONGEST, Seconds(&mut self.keep_alive));
        show("max_body_bytes", 1024..=MOST_BYTES, Count(&mut self.body_bytes));
        show("max_json_depth", 8..=1024, Count(&mut self.json_depth));
        show("max_response_bytes", 1024..=MOST_BYTES, Count(&mut self.response_bytes));
        show("max_event_bytes", 1024..=MOST_BYTES, Count(&mut self.event_bytes));
        show("connect_seconds", 1..=LONGEST, Seconds(&mut self.connect));
        show("silent_call_seconds", 1..=LONGEST, Seconds(&mut self.silent_call));
        show("whole_call_seconds", 1..=LONGEST, Seconds(&mut self.whole_call));
        show("max_tools_per_server", 1..=MOST, Count(&mut self.tools_per_server));
        show("max_list_pages", 1..=MOST, Count(&mut self.list_pages));
        show("max_calls_per_client", 1..=MOST, Count(&mut self.calls_per_client));
        show("max_calls_per_server", 2..=MOST, Count(&mut self.calls_per_server));
        show("max_buffered_bytes", 1024..=MOST_BYTES, Count(&mut self.buffered_bytes));
        show("max_catalogue_bytes", 1024..=MOST_BYTES, Count(&mut self.catalogue_bytes));
        show("max_sessions_per_client", 1..=MOST, Count(&mut self.sessions_per_client));
        show("max_streams_per_client", 1..=MOST, Count(&mut self.streams_per_client));
        show("max_parked_calls_per_client", 1..=MOST, Count(&mut self.parked_calls_per_client));
        show("parked_call_seconds", 1..=LONGEST, Seconds(&mut self.parked_call));
        show("idle_session_seconds", 1..=LONGEST, Seconds(&mut self.idle_session));
        show("max_registrations_per_minute", 1..=MOST, Count(&mut self.registrations_per_minute));
        show("max_registered_clients", 0..=MOST, Count(&mut self.registered_clients));
        show("max_registered_servers_per_client", 0..=MOST, Count(&mut self.registered_servers_per_client));
        show("max_registered_servers", 0..=MOST, Count(&mut self.registered_servers));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use toml::de::DeTable;

    use super::super::problem::{Lines, Report, Severity};
    use super::super::section::{NOT_IN_FORCE, entries};
    use super::*;
    use crate::wire::config::Config;

    const EXAMPLE: &str = include_str!("../../../config.example.toml");

    #[track_caller]
    fn gateway(keys: &str) -> Settings {
        let config = Config::parse(&format!("[gateway]\n{keys}"));
        let errors: Vec<_> = config.problems().iter().filter(|p| p.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{errors:?}");
        config.settings
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let is_key = |text: &&str| text.starts_with(|c: char| c.is_ascii_lowercase());
        let lines: Vec<&str> = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#').filter(is_key)).collect();
        assert!(lines.len() > 30, "{lines:?}");
        assert_eq!(gateway(&lines.join("\n")), Settings::default());
    }

    /// The keys that a reader asks for.
    fn keys(read: impl FnOnce(&mut Section<'_, '_>)) -> Vec<&'static str> {
        let root = DeTable::parse("[gateway]").unwrap();
        let mut report = Report::new(Arc::new(Lines::new("")), Vec::new());
        let mut section = Section::open("", &entries(root.get_ref()).next().unwrap(), "a table", &mut report).unwrap();
        read(&mut section);
        section.known
    }

    #[test]
    fn the_example_names_every_key() {
        for key in keys(|section| drop(Settings::read(section))) {
            let named = |line: &str| line.trim_start_matches(['#', ' ']).starts_with(&format!("{key} = "));
            assert!(EXAMPLE.lines().any(named), "{key}");
        }
    }

    #[test]
    fn the_example_marks_the_keys_that_are_not_in_force_and_no_others() {
        let marked = EXAMPLE.lines().filter(|line| line.contains("not in force"));
        let key = |line: &'static str| line.trim_start_matches(['#', ' ']).split([' ', '=']).next();
        let mut keys: Vec<&str> = marked.filter_map(key).filter(|key| *key != "Keys").collect();
        keys.sort_unstable();
        assert_eq!(keys, NOT_IN_FORCE);
    }

    #[test]
    fn keys_that_are_not_in_force_are_warned_of_only_where_they_are_written() {
        let written: String = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#')).fold(
            "[clients.a]\n[mcp_servers.a]\nprotocol = \"auto\"\n[gateway]\n".to_owned(),
            |text, line| match line.trim_start().split_once(" = ") {
                Some((key, _)) if NOT_IN_FORCE.contains(&key) => text + line + "\n",
                _ => text,
            },
        );
        let warned = |text: &str| {
            let config = Config::parse(text);
            config.problems().iter().filter(|p| p.message.contains("not in force")).count()
        };
        assert_eq!(warned(&written), NOT_IN_FORCE.len(), "{written}");
        assert_eq!(warned("[clients.protocol]\n[gateway]\nmax_headers = 7\n"), 0);
    }

    #[test]
    fn every_limit_is_read_from_its_own_key() {
        let mut seen = vec![Limits::default()];
        for key in keys(|section| Limits::default().read(section)) {
            let limits = gateway(&format!("{key} = {}", if key.ends_with("_bytes") { 9_001 } else { 999 })).limits;
            assert!(!seen.contains(&limits), "{key} changes nothing, or what another key changes");
            seen.push(limits);
        }
        assert_eq!(seen.len(), 30);
    }

    #[test]
    fn registration_is_open_by_default_only_where_nobody_else_comes() {
        #[track_caller]
        fn check(keys: &str, listening: &str, expected: bool) {
            assert_eq!(gateway(keys).registration_open(listening.parse().unwrap()), expected, "{keys} {listening}");
        }
        check("", "127.0.0.1:9000", true);
        check("", "[::1]:9000", true);
        check("", "0.0.0.0:9000", false);
        check("", "192.168.0.1:9000", false);
        check("allowed_hosts = [\"h\"]", "127.0.0.1:9000", false);
        check("registration = \"open\"", "0.0.0.0:9000", true);
        check("allowed_hosts = [\"h\"]\nregistration = \"open\"", "127.0.0.1:9000", true);
        check("registration = \"closed\"", "127.0.0.1:9000", false);
    }

    #[test]
    fn origins_are_those_of_the_hosts_unless_given() {
        #[track_caller]
        fn check(keys: &str, expected: &[&str]) {
            assert_eq!(gateway(keys).allowed_origins, expected, "{keys}");
        }
        check("", &[]);
        check("allowed_hosts = [\"A\", \"b:8443\"]", &["https://a", "https://b:8443"]);
        check("allowed_hosts = [\"a\"]\nallowed_origins = [\"http://c\"]", &["http://c"]);
        check("allowed_hosts = [\"a\"]\nallowed_origins = []", &[]);
    }

    #[test]
    fn the_other_keys_are_read() {
        let settings = gateway(
            "listen = \"localhost:8000\"\nshares = \"operator\"\nallow_private_upstreams = true\naudit_file = \"/a\"\n\
             trusted_proxies = [\"10.0.0.0/8\"]\nmetrics_token = \"123\"\npage_size = 7\nrefresh_seconds = 8\n\
             list_timeout_seconds = 9\ndrain_seconds = 0\n",
        );
        let expected = Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            shares: Shares::Operator,
            allow_private_upstreams: true,
            audit_file: Some(PathBuf::from("/a")),
            trusted_proxies: vec![AddressRange::parse("10.0.0.0/8").unwrap()],
            metrics_token: Some(Sha256::digest("123").into()),
            page_size: 7,
            refresh: Duration::from_secs(8),
            list_timeout: Duration::from_secs(9),
            drain: Duration::ZERO,
            ..Settings::default()
        };
        assert_eq!(settings, expected);
    }
}
