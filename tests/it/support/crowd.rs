//! A gateway as a process of its own, with many clients that can be asked anything, and servers of every kind that all of
//! them use.

use std::fmt::Write as _;
use std::fs;

use mcp_x_fixture::{AnswerForm, Fixture, Mode, Options};

use super::Folder;
use super::client::{Client, initialize_message};
use super::exposition::Exposition;
use super::message::{MODERN, Message};
use super::process::Served;

/// The servers: their names, which are their prefixes too, and what they are. The last but one can ask nobody but on the
/// stream of its session, the last asks nobody at all.
const SERVERS: [(&str, Mode, AnswerForm); 4] = [
    ("sessions_", Mode::LegacySessions, AnswerForm::Auto),
    ("modern_", Mode::Modern, AnswerForm::Auto),
    ("json_", Mode::LegacySessions, AnswerForm::Json),
    ("stateless_", Mode::LegacyStateless, AnswerForm::Auto),
];
/// The last legacy revision.
pub(crate) const LEGACY: &str = "2025-11-25";
/// What every client can be asked for.
const CAPABILITIES: &str = r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#;
/// The token of the owner of everything, who calls nothing.
const OWNER: &str = "owner-secret-3b9d";

/// The gateway and all that is around it.
pub(crate) struct Crowd {
    pub(crate) servers: Vec<(&'static str, Fixture)>,
    pub(crate) served: Served,
    _folder: Folder,
}

impl Crowd {
    /// Starts a gateway for so many clients, with further lines under `[gateway]`, which logs as much as it can. The resources
    /// of a client are those of one server, as all servers have the same.
    pub(crate) fn start(clients: usize, gateway: &str) -> Self {
        let start = |(name, mode, answers)| (name, Fixture::start(Options { answers, ..Options::of(mode) }));
        let servers: Vec<_> = SERVERS.map(start).into();
        let mut config = format!("[clients.owner]\nadmin = true\nauth_token = \"{OWNER}\"\n");
        for number in 0..clients {
            let _ = write!(config, "[clients.{}]\nauth_token = \"{}\"\n", name(number), token(number));
        }
        for (index, (server, fixture)) in servers.iter().enumerate() {
            let url = fixture.url();
            let _ = write!(
                config,
                "[mcp_servers.{server}]\nurl = \"{url}\"\nfrom_client = \"owner\"\ntool_prefix = \"{server}\"\n\
                 [allow.{server}]\n\"*\" = {{ tools = [\"*\"], prompts = [\"*\"] }}\n"
            );
            for number in (0..clients).filter(|number| number % SERVERS.len() == index) {
                let _ = writeln!(config, "{} = {{ resources = [\"*\"] }}", name(number));
            }
        }
        let folder = Folder::new();
        fs::write(folder.config(), config + "[gateway]\ndrain_seconds = 1\n" + gateway).unwrap();
        let served = Served::start_soaked(&folder, &[("MCP_X_LOG", "debug")]);
        Self { servers, served, _folder: folder }
    }

    /// A client outside of sessions.
    pub(crate) fn client(&self, number: usize) -> Client {
        self.served.client_of(&token(number))
    }

    /// A client in a session of its own.
    #[track_caller]
    pub(crate) fn in_session(&self, number: usize) -> Client {
        let mut client = self.client(number);
        let message = initialize_message(LEGACY);
        let answer = client.post(message.replace(r#""capabilities":{}"#, &format!(r#""capabilities":{CAPABILITIES}"#)));
        client.session = answer.head.header("mcp-session-id").map(str::to_owned);
        assert!(client.session.is_some(), "{answer:?}");
        client.version = Some(LEGACY.to_owned());
        assert_eq!(client.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).status(), 202);
        client
    }

    /// What the gateway counts.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Exposition {
        let answer = self.served.client_of(OWNER).rest("GET", "/metrics", "");
        assert_eq!(answer.status(), 200, "{answer:?}");
        Exposition::parse(&answer.body)
    }
}

/// A client's name in the configuration, and in the log.
pub(crate) fn name(number: usize) -> String {
    format!("c{number:02}")
}

fn token(number: usize) -> String {
    format!("crowd-secret-{number:02}-a7f1")
}

/// A message of a client that can be asked anything, and wants to be told everything, with progress under this token.
pub(crate) fn open_to_all(revision: &str, message: Message, token: &str) -> Message {
    let message = message.meta(&format!(r#""progressToken":"{token}""#));
    match revision {
        MODERN => message.told("clientCapabilities", CAPABILITIES).told("logLevel", r#""debug""#),
        _ => message,
    }
}

/// Says with which seed a test has failed.
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    /// The one that is asked for, or else always the same.
    pub(crate) fn new() -> Self {
        Self(std::env::var("MCP_X_SEED").map_or(7, |seed| seed.parse().unwrap()))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- failed with MCP_X_SEED={}", self.0);
        }
    }
}
