//! Streams of changes: lists that change for a client, from whatever cause, and resources that are updated, in both eras and
//! with every kind of server. protocol.md 2.3, 2.4, 3.2, 3.5, 4.2; design 10, 13, 14.

use std::time::{Duration, Instant};

use mcp_x_fixture::{Fixture, ListKind, Mode, Options};
use serde_json::{Value, json};

use super::rest::token;
use super::support::client::Client;
use super::support::http::Connection;
use super::support::message::{KEY, MODERN, Message, identity};
use super::support::upstream::Plan;
use super::support::{ALICE, BOB, CHARLIE, Harness, clients, owned_by_alice, server, wait_until};

const MODES: [Mode; 3] = [Mode::LegacyStateless, Mode::LegacySessions, Mode::Modern];
/// Those whose servers say when something changes.
const TELLING: [Mode; 2] = [Mode::LegacySessions, Mode::Modern];
const LEGACY: &str = "2025-11-25";
const ERAS: [&str; 2] = [LEGACY, MODERN];
const ALL: &str = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}"#;
const WATCHED: &str = "test://watched-resource";

/// A client that listens, in one era or the other.
struct Ear {
    client: Client,
    stream: Connection,
    revision: &'static str,
}

impl Ear {
    /// Listens for all lists, and for these resources.
    #[track_caller]
    fn open(harness: &Harness, token: &str, revision: &'static str, uris: &[&str]) -> Self {
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
    fn hears_of(&mut self, list: &str) {
        let expected = self.notification(&format!("notifications/{list}/list_changed"), json!({}));
        assert_eq!(self.stream.message(), expected, "{}", self.revision);
    }

    /// The next thing it hears is that this resource was updated.
    #[track_caller]
    fn hears_of_update(&mut self, uri: &str) {
        let expected = self.notification("notifications/resources/updated", json!({ "uri": uri }));
        assert_eq!(self.stream.message(), expected, "{}", self.revision);
    }

    /// The stream ends as it should.
    #[track_caller]
    fn hears_the_end(&mut self) {
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
fn about(revision: &str, method: &str, uri: &str) -> Message {
    Message::of(revision, method).param(&format!(r#""uri":"{uri}""#))
}

/// A fixture of this kind, which has been found by a gateway with further lines.
fn start(mode: Mode, lines: &str) -> (Fixture, Harness) {
    let fixture = Fixture::start(Options::of(mode));
    let harness = Harness::start(&(owned_by_alice(&[("fixture", &fixture)]) + lines));
    assert!(!harness.client(ALICE).tools().is_empty());
    if mode != Mode::LegacyStateless {
        wait_until("the server is heard", || fixture.counts().streams == 1);
    }
    (fixture, harness)
}

#[test]
fn what_changes_at_a_server_is_told_at_once_in_both_eras() {
    for mode in TELLING {
        let (fixture, harness) = start(mode, "");
        let mut ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[]));
        let mut caller = harness.client(ALICE);
        for (tool, list) in [("test_trigger_tool_change", "tools"), ("test_trigger_prompt_change", "prompts")] {
            let begun = Instant::now();
            caller.call(tool);
            ears.iter_mut().for_each(|ear| ear.hears_of(list));
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        }
        fixture.put(ListKind::Resources, r#"{"uri":"test://new","name":"new"}"#);
        ears.iter_mut().for_each(|ear| ear.hears_of("resources"));
        fixture.put(ListKind::Templates, r#"{"uriTemplate":"test://new/{x}","name":"new"}"#);
        ears.iter_mut().for_each(|ear| ear.hears_of("resources"));
        // A server that says so for nothing has told nobody anything, and neither has one that takes it back at once.
        fixture.announce(ListKind::Tools);
        fixture.announce(ListKind::Prompts);
        fixture.put(ListKind::Resources, r#"{"uri":"test://newer","name":"newer"}"#);
        ears.iter_mut().for_each(|ear| ear.hears_of("resources"));
    }
}

#[test]
fn what_changes_at_a_server_that_says_nothing_is_told_when_it_is_seen() {
    let (fixture, harness) = start(Mode::LegacyStateless, "[gateway]\nrefresh_seconds = 1\n");
    let mut ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[]));
    fixture.add_tool("new");
    ears.iter_mut().for_each(|ear| ear.hears_of("tools"));
}

#[test]
fn a_storm_of_changes_costs_few_fetches_and_tells_of_the_last() {
    for mode in TELLING {
        let (fixture, harness) = start(mode, "");
        let mut ear = Ear::open(&harness, ALICE, LEGACY, &[]);
        let before = fixture.counts().requests_of("tools/list");
        let begun = Instant::now();
        for number in 0..200 {
            fixture.add_tool(&format!("tool_{number}"));
        }
        fixture.add_tool("last");
        wait_until("the last is seen", || ear.client.tools().contains(&"last".to_owned()));
        let fetches = fixture.counts().requests_of("tools/list") - before;
        let most = 3 + begun.elapsed().as_millis() as u64 / 100;
        assert!(fetches <= most, "{fetches} fetches in {:?}", begun.elapsed());
        ear.hears_of("tools");
    }
}

#[test]
fn only_those_are_told_who_see_something_else() {
    let fixture = Fixture::start(Options::of(Mode::LegacySessions));
    let config = |grants: &str| clients() + &server("fixture", "alice", &fixture, "") + "[allow.fixture]\n" + grants;
    let harness = Harness::start(&config("bob = [\"test_simple_*\"]\n"));
    let _ = harness.client(ALICE).tools();
    wait_until("the server is heard", || fixture.counts().streams == 1);
    let mut alices = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[]));
    let mut bobs = ERAS.map(|revision| Ear::open(&harness, BOB, revision, &[]));
    let mut charlies = ERAS.map(|revision| Ear::open(&harness, CHARLIE, revision, &[]));
    // Bob does not see this one; the next thing he hears of is what he is granted.
    fixture.add_tool("new");
    alices.iter_mut().for_each(|ear| ear.hears_of("tools"));
    harness.replace_config(&config("bob = [\"test_simple_*\", \"new\"]\n"));
    bobs.iter_mut().for_each(|ear| ear.hears_of("tools"));
    // Of a grant that was taken away, too.
    harness.replace_config(&config("bob = []\ncharlie = { tools = [\"new\"], prompts = [\"*\"] }\n"));
    bobs.iter_mut().for_each(|ear| ear.hears_of("tools"));
    for ear in &mut charlies {
        ear.hears_of("tools");
        ear.hears_of("prompts");
    }
    // Alice has heard of none of that: the next thing she hears of is a prompt.
    fixture.put(ListKind::Prompts, r#"{"name":"new_prompt"}"#);
    alices.iter_mut().for_each(|ear| ear.hears_of("prompts"));
    charlies.iter_mut().for_each(|ear| ear.hears_of("prompts"));
}

#[test]
fn a_grant_over_rest_is_told() {
    let (_fixture, harness) = start(Mode::Modern, "");
    let mut ears = ERAS.map(|revision| Ear::open(&harness, BOB, revision, &[]));
    let mut alice = harness.client(ALICE);
    for patterns in [json!(["test_simple_*"]), json!([])] {
        alice.done("/update_access_control", &json!({ "client_id": "bob", "server_access": { "fixture": patterns } }));
        ears.iter_mut().for_each(|ear| ear.hears_of("tools"));
    }
}

#[test]
fn a_server_that_is_there_again_with_other_tools_is_told_of() {
    for mode in TELLING {
        let (fixture, harness) = start(mode, "");
        let mut ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[]));
        fixture.end_streams();
        fixture.add_tool("new");
        ears.iter_mut().for_each(|ear| ear.hears_of("tools"));
        wait_until("it is heard again", || fixture.counts().streams == 1);
        fixture.forget_sessions();
        wait_until("it is heard in another session", || fixture.counts().streams == 1);
        fixture.add_tool("newer");
        ears.iter_mut().for_each(|ear| ear.hears_of("tools"));
    }
}

#[test]
fn what_changed_between_a_list_and_the_stream_is_told_when_it_opens() {
    let (fixture, harness) = start(Mode::LegacySessions, "");
    let mut alice = harness.client(ALICE).speaking(LEGACY);
    let before = alice.tools().len();
    fixture.add_tool("new");
    let mut other = harness.client(ALICE);
    wait_until("the change is seen", || other.tools().len() > before);
    let stream = alice.get_stream();
    let mut ear = Ear { client: alice, stream, revision: LEGACY };
    ear.hears_of("tools");
    // What it was told of it is not told again.
    let stream = ear.client.get_stream();
    ear.hears_the_end();
    ear.stream = stream;
    fixture.put(ListKind::Prompts, r#"{"name":"new_prompt"}"#);
    ear.hears_of("prompts");
}

#[test]
fn the_newest_stream_of_a_session_wins() {
    let (fixture, harness) = start(Mode::LegacySessions, "");
    let mut first = Ear::open(&harness, ALICE, LEGACY, &[]);
    let stream = first.client.get_stream();
    first.hears_the_end();
    first.stream = stream;
    fixture.add_tool("new");
    first.hears_of("tools");
    // Another session has its own.
    let mut second = Ear::open(&harness, ALICE, LEGACY, &[]);
    fixture.add_tool("newer");
    first.hears_of("tools");
    second.hears_of("tools");
    assert_eq!(second.client.delete().status(), 204);
    second.hears_the_end();
    fixture.add_tool("newest");
    first.hears_of("tools");
}

#[test]
fn what_is_no_stream_is_refused() {
    let (_fixture, harness) = start(Mode::LegacySessions, "");
    let mut alice = harness.client(ALICE).speaking(LEGACY);
    let get = |client: &mut Client, from: &str, to: &str| {
        let head = client.request_head("GET", 0).replace(from, to);
        client.connection.send(head);
        client.connection.answer()
    };
    let both = "application/json, text/event-stream";
    assert_eq!(get(&mut alice, both, "application/json").status(), 406);
    assert_eq!(get(&mut alice, LEGACY, "2024-99-99").status(), 400);
    let gone = get(&mut alice, LEGACY, MODERN);
    assert_eq!((gone.status(), gone.head.header("allow")), (405, Some("POST")));
    let session = alice.session.clone().unwrap();
    let unknown = get(&mut alice, &session, "unknown");
    assert_eq!((unknown.status(), unknown.code()), (404, -32600));
    let mut bob = harness.client(BOB);
    bob.session = Some(session);
    assert_eq!(get(&mut bob, "", "").status(), 404);
    bob.session = None;
    let none = get(&mut bob, "", "");
    assert_eq!((none.status(), none.head.header("allow")), (405, Some("POST, DELETE")));
    // The session is there all the same.
    assert_eq!(alice.tools_status(), 200);
}

#[test]
fn a_filter_must_have_its_shape() {
    let (_fixture, harness) = start(Mode::Modern, "");
    let mut alice = harness.client(ALICE);
    let many = json!((0..1_001).map(|n| format!("test://{n}")).collect::<Vec<_>>());
    for filter in [
        "null".to_owned(),
        r#"{"toolsListChanged":"yes"}"#.to_owned(),
        r#"{"resourceSubscriptions":["a",1]}"#.to_owned(),
        format!(r#"{{"resourceSubscriptions":{many}}}"#),
    ] {
        let message = Message::modern("subscriptions/listen").param(&format!(r#""notifications":{filter}"#));
        let answer = alice.ask(&message);
        assert_eq!((answer.status(), answer.code()), (200, -32602), "{answer:?}");
    }
    let answer = alice.ask(&Message::modern("subscriptions/listen"));
    assert_eq!((answer.status(), answer.code()), (200, -32602), "{answer:?}");
    // What nobody knows is not granted, and neither is what may not be read.
    let (_, granted) = alice.listen(r#"{"taskIds":["a"],"else":null,"promptsListChanged":true}"#);
    assert_eq!(granted, json!({ "promptsListChanged": true }));
    let (_, granted) = harness.client(BOB).listen(&format!(r#"{{"resourceSubscriptions":["{WATCHED}"]}}"#));
    assert_eq!(granted, json!({}));
}

#[test]
fn a_stream_is_told_of_what_it_asked_for_and_nothing_else_under_the_id_of_its_request() {
    let (fixture, harness) = start(Mode::Modern, "");
    let mut alice = harness.client(ALICE);
    let message = Message::modern("subscriptions/listen").id(r#""one""#);
    alice.send_message(&message.param(r#""notifications":{"promptsListChanged":true,"toolsListChanged":false}"#));
    assert!(alice.connection.head().is_stream());
    let stamp = json!({ format!("{KEY}subscriptionId"): "one" });
    let first = alice.connection.message();
    assert_eq!(first["params"], json!({ "notifications": { "promptsListChanged": true }, "_meta": stamp }));
    fixture.add_tool("new");
    let mut other = harness.client(ALICE);
    wait_until("the tool is seen", || other.tools().contains(&"new".to_owned()));
    fixture.put(ListKind::Prompts, r#"{"name":"new_prompt"}"#);
    let method = "notifications/prompts/list_changed";
    assert_eq!(alice.connection.message(), json!({"jsonrpc":"2.0","method":method,"params":{"_meta":stamp}}));
}

#[test]
fn updates_of_resources_are_told_to_those_who_subscribed() {
    for mode in TELLING {
        let (fixture, harness) = start(mode, "");
        let mut ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
        let mut deaf = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[]));
        for _ in 0..2 {
            fixture.resource_updated(WATCHED);
            ears.iter_mut().for_each(|ear| ear.hears_of_update(WATCHED));
        }
        fixture.add_tool("new");
        ears.iter_mut().chain(&mut deaf).for_each(|ear| ear.hears_of("tools"));
    }
}

#[test]
fn subscriptions_outlive_streams_and_sessions_with_the_server() {
    for mode in TELLING {
        let (fixture, harness) = start(mode, "");
        let mut ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
        let streams = fixture.counts().streams;
        fixture.end_streams();
        fixture.forget_sessions();
        let told = || {
            fixture.counts().requests_of("resources/subscribe") + fixture.counts().requests_of("subscriptions/listen")
        };
        let before = told();
        wait_until("it is heard again", || fixture.counts().streams == streams && told() > before);
        wait_until("the update is heard", || {
            fixture.resource_updated(WATCHED);
            ears.iter().all(|ear| ear.stream.has_event())
        });
        ears.iter_mut().for_each(|ear| ear.hears_of_update(WATCHED));
    }
}

#[test]
fn an_update_that_nobody_heard_is_told_when_the_client_listens_again() {
    for mode in TELLING {
        let (fixture, harness) = start(mode, "");
        let mut ear = Ear::open(&harness, ALICE, LEGACY, &[WATCHED]);
        let mut other = Ear::open(&harness, ALICE, LEGACY, &[WATCHED]);
        drop(std::mem::replace(&mut ear.stream, harness.connect()));
        for _ in 0..3 {
            fixture.resource_updated(WATCHED);
            other.hears_of_update(WATCHED);
        }
        ear.stream = ear.client.get_stream();
        ear.hears_of_update(WATCHED);
        fixture.add_tool("new");
        ear.hears_of("tools");
    }
}

#[test]
fn subscriptions_are_limited() {
    let (_fixture, harness) = start(Mode::Modern, "");
    let mut alice = harness.client(ALICE).speaking(LEGACY);
    let code = |client: &mut Client, uri: &str| {
        client.ask(&about(LEGACY, "resources/subscribe", uri)).json()["error"]["code"].clone()
    };
    assert_eq!(code(&mut alice, &format!("test://{}", "x".repeat(3_000))), -32002);
    for number in 0..1_000 {
        assert_eq!(code(&mut alice, &format!("test://{number}")), Value::Null, "{number}");
    }
    assert_eq!(code(&mut alice, "test://one-too-many"), -32602);
    // One that is there may be named again, and another session has its own.
    assert_eq!(code(&mut alice, "test://7"), Value::Null);
    assert_eq!(code(&mut harness.client(ALICE).speaking(LEGACY), "test://one-too-many"), Value::Null);
}

#[test]
fn whoever_unsubscribes_hears_no_more_and_the_server_is_told() {
    for mode in TELLING {
        let (fixture, harness) = start(mode, "");
        let mut ear = Ear::open(&harness, ALICE, LEGACY, &[WATCHED]);
        let open = fixture.counts().streams;
        let answer = ear.client.ask(&about(LEGACY, "resources/unsubscribe", WATCHED));
        assert_eq!(answer.json()["result"], json!({}));
        wait_until("the server is told", || fixture.counts().streams < open);
        fixture.resource_updated(WATCHED);
        fixture.add_tool("new");
        ear.hears_of("tools");
        // It may subscribe again.
        let answer = ear.client.ask(&about(LEGACY, "resources/subscribe", WATCHED));
        assert_eq!(answer.json()["result"], json!({}));
        fixture.resource_updated(WATCHED);
        ear.hears_of_update(WATCHED);
    }
}

#[test]
fn nobody_subscribes_to_what_is_not_there_or_not_theirs() {
    for mode in MODES {
        let (_fixture, harness) = start(mode, "");
        let mut bob = harness.client(BOB).speaking(LEGACY);
        let answer = bob.ask(&about(LEGACY, "resources/subscribe", WATCHED));
        assert_eq!((answer.status(), answer.code()), (200, -32002), "{answer:?}");
        assert_eq!(answer.json()["error"]["data"], json!({ "uri": WATCHED }));
        let answer = bob.ask(&Message::of(LEGACY, "resources/subscribe"));
        assert_eq!((answer.status(), answer.code()), (200, -32602), "{answer:?}");
        let outside = harness.client(ALICE).ask(&about(LEGACY, "resources/subscribe", WATCHED));
        assert_eq!((outside.status(), outside.code()), (400, -32600), "{outside:?}");
    }
}

#[test]
fn a_grant_that_is_taken_away_takes_the_subscription_with_it() {
    for mode in TELLING {
        let fixture = Fixture::start(Options::of(mode));
        let config = |grant: &str| clients() + &server("fixture", "alice", &fixture, "") + "[allow.fixture]\n" + grant;
        let harness = Harness::start(&config("bob = { tools = [\"*\"], resources = [\"*\"] }\n"));
        let _ = harness.client(ALICE).tools();
        let [mut legacy, mut modern] = ERAS.map(|revision| Ear::open(&harness, BOB, revision, &[WATCHED]));
        harness.replace_config(&config("bob = { tools = [\"*\"] }\n"));
        // What was granted to a modern stream does not hold any more.
        modern.hears_the_end();
        legacy.hears_of("resources");
        wait_until("the server is told", || fixture.counts().streams == 1);
        fixture.resource_updated(WATCHED);
        fixture.add_tool("new");
        legacy.hears_of("tools");
    }
}

#[test]
fn subscriptions_follow_a_server_that_is_defined_anew() {
    for mode in TELLING {
        let fixture = Fixture::start(Options::of(mode));
        let config = |lines: &str| clients() + &server("fixture", "alice", &fixture, lines);
        let harness = Harness::start(&config(""));
        let _ = harness.client(ALICE).tools();
        let mut ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
        harness.replace_config(&config("tool_prefix = \"x_\""));
        for ear in &mut ears {
            ear.hears_of("tools");
            ear.hears_of("prompts");
        }
        wait_until("the update is heard", || {
            fixture.resource_updated(WATCHED);
            ears.iter().all(|ear| ear.stream.has_event())
        });
        ears.iter_mut().for_each(|ear| ear.hears_of_update(WATCHED));
    }
}

#[test]
fn streams_end_with_the_token_that_opened_them() {
    let (_fixture, harness) = start(Mode::LegacySessions, "");
    let config = harness.config();
    let mut ears = ERAS.map(|revision| Ear::open(&harness, BOB, revision, &[]));
    let mut others = ERAS.map(|revision| Ear::open(&harness, CHARLIE, revision, &[]));
    harness.replace_config(&config.replace(BOB, "another-secret-9d01"));
    ears.iter_mut().for_each(Ear::hears_the_end);
    let without = config.split("[clients.charlie]").next().unwrap().to_owned();
    harness.replace_config(&(without + config.split_once(CHARLIE).unwrap().1.trim_start_matches('"')));
    others.iter_mut().for_each(Ear::hears_the_end);
}

#[test]
fn streams_end_when_their_token_expires() {
    let (_fixture, harness) = start(Mode::Modern, "");
    let short = token(&harness, "alice", 3_598, 3_600);
    let mut ears = ERAS.map(|revision| Ear::open(&harness, &short, revision, &[]));
    let mut other = Ear::open(&harness, ALICE, LEGACY, &[]);
    let begun = Instant::now();
    ears.iter_mut().for_each(Ear::hears_the_end);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // The same client's stream that was opened with another token is still there.
    other.client.call("test_trigger_tool_change");
    other.hears_of("tools");
}

#[test]
fn a_stream_beyond_the_limit_ends_the_oldest() {
    let (fixture, harness) = start(Mode::Modern, "[gateway]\nmax_streams_per_client = 3\n");
    let mut ears = [LEGACY, MODERN, MODERN].map(|revision| Ear::open(&harness, ALICE, revision, &[]));
    let mut bob = Ear::open(&harness, BOB, MODERN, &[]);
    let mut newest = Ear::open(&harness, ALICE, MODERN, &[]);
    ears[0].hears_the_end();
    let mut another = Ear::open(&harness, ALICE, LEGACY, &[]);
    ears[1].hears_the_end();
    fixture.add_tool("new");
    for ear in [&mut ears[2], &mut newest, &mut another] {
        ear.hears_of("tools");
    }
    harness.replace_config(&harness.config().replace(&format!("auth_token = \"{BOB}\""), "auth_token = \"x\""));
    bob.hears_the_end();
}

#[test]
fn a_slow_reader_hears_of_the_last_change_and_keeps_nobody_waiting() {
    let (fixture, harness) = start(Mode::LegacySessions, "");
    let mut slow = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
    let mut quick = Ear::open(&harness, ALICE, LEGACY, &[WATCHED]);
    for _ in 0..300 {
        fixture.resource_updated(WATCHED);
        quick.hears_of_update(WATCHED);
    }
    fixture.add_tool("new");
    quick.hears_of("tools");
    for ear in &mut slow {
        let mut updates = 0;
        while ear.stream.message()["method"] == "notifications/resources/updated" {
            updates += 1;
        }
        assert!((1..=300).contains(&updates), "{updates}");
    }
}

#[test]
fn many_clients_hear_of_a_change_soon() {
    const CLIENTS: usize = 200;
    let fixture = Fixture::start(Options::of(Mode::LegacySessions));
    let mut config = clients() + &server("fixture", "alice", &fixture, "") + "[allow.fixture]\n\"*\" = [\"*\"]\n";
    for number in 0..CLIENTS {
        config += &format!("[clients.client_{number}]\nauth_token = \"token-of-{number}\"\n");
    }
    let harness = Harness::start(&config);
    let _ = harness.client(ALICE).tools();
    wait_until("the server is heard", || fixture.counts().streams == 1);
    let mut ears: Vec<Ear> =
        (0..CLIENTS).map(|n| Ear::open(&harness, &format!("token-of-{n}"), ERAS[n % 2], &[])).collect();
    let begun = Instant::now();
    fixture.add_tool("new");
    ears.iter_mut().for_each(|ear| ear.hears_of("tools"));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    println!("{CLIENTS} clients heard of it within {:?}", begun.elapsed());
}

#[test]
fn streams_and_subscriptions_are_counted() {
    let (_fixture, harness) =
        start(Mode::Modern, "[clients.metrics]\nauth_token = \"metrics-secret-11\"\nadmin = true\n");
    let counted = || {
        let page = harness.client("metrics-secret-11").rest("GET", "/metrics", "").body;
        let value = |name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name}: {page}")).parse().unwrap()
        };
        [value("mcp_x_listeners"), value("mcp_x_subscriptions")]
    };
    assert_eq!(counted(), [0.0, 0.0]);
    let [legacy, modern] = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
    assert_eq!(counted(), [2.0, 2.0]);
    drop(modern);
    wait_until("the modern one is gone", || counted() == [1.0, 1.0]);
    // A session's subscriptions outlive its stream.
    let Ear { mut client, stream, .. } = legacy;
    drop(stream);
    wait_until("the legacy one is gone", || counted() == [0.0, 1.0]);
    assert_eq!(client.delete().status(), 204);
    wait_until("its session is gone", || counted() == [0.0, 0.0]);
}

#[test]
fn log_messages_that_belong_to_no_call_are_told_in_their_session_from_its_level_on() {
    let (fixture, harness) = start(Mode::LegacySessions, "");
    let [mut legacy, mut modern] = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
    let log = |level: &str| json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": "x" } });
    // On the streams of both, and on the one for lists.
    assert_eq!(fixture.broadcast(&log("debug").to_string()), 3);
    assert_eq!(legacy.stream.message(), log("debug"));
    let answer = legacy.client.ask(&Message::of(LEGACY, "logging/setLevel").param(r#""level":"error""#));
    assert_eq!(answer.json()["result"], json!({}));
    for level in ["info", "error"] {
        fixture.broadcast(&log(level).to_string());
    }
    assert_eq!(legacy.stream.message(), log("error"));
    fixture.resource_updated(WATCHED);
    legacy.hears_of_update(WATCHED);
    // A modern stream has no place for them.
    modern.hears_of_update(WATCHED);
}

#[test]
fn what_a_server_tells_of_resources_of_others_is_told_to_nobody() {
    let fixtures = TELLING.map(|mode| Fixture::start(Options::of(mode)));
    let config = owned_by_alice(&[("first", &fixtures[0]), ("second", &fixtures[1])]);
    let harness = Harness::start(&config);
    assert!(!harness.client(ALICE).tools().is_empty());
    // Both have it, and it is the first one's.
    let mut ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
    assert_eq!(fixtures[1].counts().requests_of("resources/subscribe"), 0);
    let update = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": WATCHED } });
    fixtures[1].broadcast(&update.to_string());
    fixtures[1].put(ListKind::Tools, r#"{"name":"new","inputSchema":{"type":"object"}}"#);
    ears.iter_mut().for_each(|ear| ear.hears_of("tools"));
    // What lies below it, but nothing beside it.
    for uri in ["test://watched-resources", "test://watched-resource/part"] {
        let params = json!({ "uri": uri });
        let update = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params });
        assert_eq!(fixtures[0].broadcast(&update.to_string()), 3);
    }
    ears.iter_mut().for_each(|ear| ear.hears_of_update("test://watched-resource/part"));
}

#[test]
fn silent_streams_are_kept_alive() {
    let (_fixture, harness) = start(Mode::Modern, "[gateway]\nkeep_alive_seconds = 1\n");
    for revision in ERAS {
        let mut ear = Ear::open(&harness, ALICE, revision, &[]);
        for _ in 0..2 {
            assert_eq!(ear.stream.raw_chunk().as_deref(), Some(b": keep-alive\n\n".as_slice()));
        }
    }
}

#[test]
fn the_end_of_the_gateway_is_the_end_of_the_streams() {
    let (_fixture, mut harness) = start(Mode::Modern, "[gateway]\ndrain_seconds = 10\n");
    let mut ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
    let begun = Instant::now();
    harness.restart();
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for them: {:?}", begun.elapsed());
    ears.iter_mut().for_each(Ear::hears_the_end);
}

#[test]
fn the_server_forgets_clients_that_leave() {
    for mode in TELLING {
        let (fixture, harness) = start(mode, "");
        let ears = ERAS.map(|revision| Ear::open(&harness, ALICE, revision, &[WATCHED]));
        wait_until("each has a stream of its own", || fixture.counts().streams == 3);
        let [mut legacy, modern] = ears;
        drop(modern);
        wait_until("the modern one is gone", || fixture.counts().streams == 2);
        assert_eq!(legacy.client.delete().status(), 204);
        wait_until("the legacy one is gone", || fixture.counts().streams == 1);
    }
}

#[test]
fn the_record_of_a_stream_is_written_at_its_end() {
    let (_fixture, harness) = start(Mode::Modern, "");
    for (revision, marks) in [(LEGACY, "method=GET path=/mcp"), (MODERN, "rpc=subscriptions/listen")] {
        let ear = Ear::open(&harness, CHARLIE, revision, &[]);
        assert!(!harness.log().contains(marks), "{}", harness.log());
        drop(ear);
        harness.wait_for_log(marks);
    }
}

#[test]
fn a_server_without_a_stream_is_not_asked_for_one_all_the_time() {
    let upstream = Plan::new("quiet").sessionful().start();
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "initialize" => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    let harness = Harness::start(&(owned_by_alice(&[("quiet", &upstream)]) + "[gateway]\nrefresh_seconds = 1\n"));
    assert_eq!(harness.client(ALICE).tools(), ["echo"]);
    upstream.wait_for("it is asked", |state| state.received.iter().any(|r| r.method == "GET"));
    assert_eq!(harness.client(ALICE).text("echo"), "quiet:echo");
    upstream.wait_for("it is asked for its tools again", |state| state.of("tools/list").len() >= 3);
    assert_eq!(upstream.state().received.iter().filter(|r| r.method == "GET").count(), 1);
}

#[test]
fn a_stream_goes_on_where_its_server_said() {
    let upstream = Plan::new("polled").sessionful().start();
    upstream.on_request(|exchange| match (exchange.request.method.as_str(), exchange.request.rpc().as_str()) {
        ("GET", _) => {
            exchange.begin_events();
            exchange.chunk("retry: 120\nid: after-this\ndata:\n\n");
            exchange.end_events();
        }
        (_, "initialize") => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    let _harness = Harness::start(&owned_by_alice(&[("polled", &upstream)]));
    let gets = |state: &super::support::upstream::State| -> Vec<Option<String>> {
        let gets = state.received.iter().filter(|r| r.method == "GET");
        gets.map(|get| get.header("last-event-id").map(str::to_owned)).collect()
    };
    let begun = Instant::now();
    upstream.wait_for("it polls", |state| gets(state).len() >= 4);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let asked = gets(&upstream.state());
    assert!(asked[0].is_none() && asked[1..].iter().all(|id| id.as_deref() == Some("after-this")), "{asked:?}");
}

#[test]
fn what_a_server_asks_on_its_stream_is_answered() {
    let upstream = Plan::new("asking").sessionful().start();
    upstream.on_request(|exchange| match (exchange.request.method.as_str(), exchange.request.rpc().as_str()) {
        ("GET", _) => {
            exchange.begin_events();
            exchange.event(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
            exchange.event(r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#);
            exchange.hang();
        }
        (_, "initialize") => exchange.initialize_with(r#"{"tools":{"listChanged":true}}"#),
        _ => exchange.normally(),
    });
    let _harness = Harness::start(&owned_by_alice(&[("asking", &upstream)]));
    let answered = |state: &super::support::upstream::State| -> Vec<Value> {
        let answers = state.received.iter().map(|r| r.json());
        answers.filter(|m| m.get("result").is_some() || m.get("error").is_some()).collect()
    };
    upstream.wait_for("both are answered", |state| answered(state).len() == 2);
    let answers = answered(&upstream.state());
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!(7), &json!(-32601)));
}
