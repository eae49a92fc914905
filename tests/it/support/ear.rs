//! A client that listens to what changes, in one era or the other, and a server that something changes at.

use mcp_x_fixture::{Fixture, Mode, Options};
use serde_json::{Value, json};

use super::client::Client;
use super::http::Connection;
use super::message::{KEY, MODERN, Message, identity};
use super::{ALICE, Harness, owned_by_alice, wait_until};

/// Kinds of servers that say when something changes.
pub(crate) const TELLING: [Mode; 2] = [Mode::LegacySessions, Mode::Modern];
/// A legacy revision.
pub(crate) const LEGACY: &str = "2025-11-25";
/// One revision of each era.
pub(crate) const ERAS: [&str; 2] = [LEGACY, MODERN];
/// A filter with every list.
const ALL: &str = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}"#;
/// A resource of the fixture.
pub(crate) const WATCHED: &str = "test://watched-resource";

/// A client that listens, in one era or the other.
pub(crate) struct Ear {
    pub(crate) client: Client,
    pub(crate) stream: Connection,
    pub(crate) revision: &'static str,
}

impl Ear {
    /// Listens for all lists, and for these resources.
    #[track_caller]
    pub(crate) fn open(harness: &Harness, token: &str, revision: &'static str, uris: &[&str]) -> Self {
        let mut client = harness.client(token).speaking(revision);
        if revision == MODERN {
            let filter = format!(r#"{},"resourceSubscriptions":{}}}"#, ALL.trim_end_matches('}'), json!(uris));
            let (stream, granted) = client.listen(&filter);
            let expected: Value = serde_json::from_str(if uris.is_empty() { ALL } else { &filter }).unwrap();
            assert_eq!(granted, expected);
            return Self { client, stream, revision };
        }
        let stream = client.get_stream();
        for uri in uris {
            let answer = client.ask(&about(revision, "resources/subscribe", uri));
            assert_eq!(answer.json(), json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
        }
        Self { client, stream, revision }
    }

    /// A notification as it comes on the stream.
    fn notification(&self, method: &str, mut params: Value) -> Value {
        if self.revision == MODERN {
            params["_meta"] = json!({ format!("{KEY}subscriptionId"): 1 });
        }
        match params.as_object().is_some_and(serde_json::Map::is_empty) {
            true => json!({ "jsonrpc": "2.0", "method": method }),
            false => json!({ "jsonrpc": "2.0", "method": method, "params": params }),
        }
    }

    /// The next thing it hears is that this list has changed.
    #[track_caller]
    pub(crate) fn hears_of(&mut self, list: &str) {
        let expected = self.notification(&format!("notifications/{list}/list_changed"), json!({}));
        assert_eq!(self.stream.message(), expected, "{}", self.revision);
    }

    /// The next thing it hears is that this resource was updated.
    #[track_caller]
    pub(crate) fn hears_of_update(&mut self, uri: &str) {
        let expected = self.notification("notifications/resources/updated", json!({ "uri": uri }));
        assert_eq!(self.stream.message(), expected, "{}", self.revision);
    }

    /// The stream ends as it should.
    #[track_caller]
    pub(crate) fn hears_the_end(&mut self) {
        if self.revision == MODERN {
            let result = format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete","_meta":{{"{KEY}subscriptionId":1,{}}}}}}}"#,
                identity()
            );
            assert_eq!(self.stream.event().as_deref(), Some(result.as_str()));
        }
        assert_eq!(self.stream.event(), None);
    }
}

/// A request about a resource.
pub(crate) fn about(revision: &str, method: &str, uri: &str) -> Message {
    Message::of(revision, method).param(&format!(r#""uri":"{uri}""#))
}

/// A fixture of this kind, which has been found by a gateway with further lines.
pub(crate) fn start(mode: Mode, lines: &str) -> (Fixture, Harness) {
    let fixture = Fixture::start(Options::of(mode));
    let harness = Harness::start(&(owned_by_alice(&[("fixture", &fixture)]) + lines));
    assert!(!harness.client(ALICE).tools().is_empty());
    if mode != Mode::LegacyStateless {
        wait_until("the server is heard", || fixture.counts().streams == 1);
    }
    (fixture, harness)
}
