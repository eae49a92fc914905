//! Subscriptions to resources, in both eras and with every kind of server. protocol.md 2.3, 2.4, 4.2; design 13, 14.

use std::time::Duration;

use mcp_x_fixture::{Fixture, ListKind, Mode, Options};
use serde_json::{Value, json};

use super::support::client::Client;
use super::support::ear::{ERAS, Ear, LEGACY, TELLING, WATCHED, about, start};
use super::support::message::Message;
use super::support::upstream::{Exchange, Plan};
use super::support::{ALICE, BOB, Gate, Harness, clients, owned_by_alice, server, wait_until};

const MODES: [Mode; 3] = [Mode::LegacyStateless, Mode::LegacySessions, Mode::Modern];

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
fn a_subscription_that_nobody_waits_for_any_more_ends_when_its_server_has_made_it() {
    let (upstream, gate) = (Plan::new("hesitant").sessionful().start(), Gate::default());
    let waited = gate.clone();
    upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
        "initialize" => exchange.initialize_with(r#"{"tools":{},"resources":{"subscribe":true}}"#),
        "resources/list" => exchange.result(r#"{"resources":[{"uri":"test://a","name":"a"}]}"#),
        "resources/subscribe" => {
            waited.wait();
            exchange.result("{}");
        }
        "resources/unsubscribe" => exchange.result("{}"),
        _ => exchange.normally(),
    });
    let config = owned_by_alice(&[("hesitant", &upstream)]) + "[gateway]\nlist_timeout_seconds = 1\n";
    let harness = Harness::start(&config);
    assert_eq!(harness.client(ALICE).tools(), ["echo"]);
    let (_stream, granted) = harness.client(ALICE).listen(r#"{"resourceSubscriptions":["test://a"]}"#);
    assert_eq!(granted, json!({}), "nothing that its server has not made in time");
    upstream.wait_for("it is asked", |state| state.of("resources/subscribe").len() == 1);
    gate.open();
    upstream.wait_for("it is told", |state| state.of("resources/unsubscribe").len() == 1);
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
        // What is sent before the gateway has seen that nobody reads it is lost.
        wait_until("the stream is over", || harness.gateway().vitals().listeners == 1);
        fixture.resource_updated(WATCHED);
        other.hears_of_update(WATCHED);
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

/// What is given up and asked for again while its server is still busy with something else is no other than before.
#[test]
fn a_subscription_that_is_made_again_before_its_server_hears_of_the_end_holds() {
    let (upstream, gate) =
        (Plan::new("busy").sessionful().resources(&["test://a", "test://b"]).start(), Gate::default());
    let waited = gate.clone();
    upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
        "initialize" => exchange.initialize_with(r#"{"tools":{},"resources":{"subscribe":true}}"#),
        "resources/subscribe" if exchange.request.body.contains("test://b") => {
            waited.wait();
            exchange.result("{}");
        }
        "resources/subscribe" | "resources/unsubscribe" => exchange.result("{}"),
        _ => exchange.normally(),
    });
    let harness = Harness::start(&owned_by_alice(&[("busy", &upstream)]));
    assert_eq!(harness.client(ALICE).tools(), ["echo"]);
    let mut alice = harness.client(ALICE).speaking(LEGACY);
    let mut others = [alice.another(), alice.another()];
    let done = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    assert_eq!(alice.ask(&about(LEGACY, "resources/subscribe", "test://a")).json(), done);
    others[0].send_message(&about(LEGACY, "resources/subscribe", "test://b"));
    upstream.wait_for("it is asked for the other", |state| state.of("resources/subscribe").len() == 2);
    assert_eq!(alice.ask(&about(LEGACY, "resources/unsubscribe", "test://a")).json(), done);
    others[1].send_message(&about(LEGACY, "resources/subscribe", "test://a"));
    // Long enough to be taken; if it is not, there is nothing to see here.
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    for other in &mut others {
        assert_eq!(other.connection.answer().json(), done);
    }
}

#[test]
fn what_a_server_refuses_costs_no_subscription_that_it_has_taken() {
    const NO: &str = r#"{"jsonrpc":"2.0","error":{"code":-32602,"message":"no"}}"#;
    check_refusal(|exchange| exchange.respond(400, "application/json", NO));
    check_refusal(|exchange| exchange.respond(200, "application/json", NO));
    check_refusal(|exchange| {
        exchange.begin_events();
        exchange.event(NO);
        exchange.end_events();
    });
    check_refusal(|exchange| exchange.respond(500, "text/plain", "no"));
}

/// A server that takes all of a filter or nothing, and says so like this.
#[track_caller]
fn check_refusal(refuse: impl Fn(&mut Exchange<'_>) + Send + Sync + 'static) {
    let upstream = Plan::new("picky").resources(&["test://a", "test://b"]).start();
    upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
        "server/discover" => exchange.result(
            r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"resources":{"subscribe":true}}}"#,
        ),
        "tools/list" => exchange.result(r#"{"tools":[]}"#),
        "subscriptions/listen" if exchange.request.body.contains("test://b") => {
            refuse(exchange);
        }
        "subscriptions/listen" => {
            let granted = json!({ "notifications": exchange.request.json()["params"]["notifications"] });
            exchange.begin_events();
            exchange.event(
                &json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": granted })
                    .to_string(),
            );
            exchange.hang();
        }
        _ => exchange.normally(),
    });
    let harness = Harness::start(&owned_by_alice(&[("picky", &upstream)]));
    wait_until("it is known", || harness.client(ALICE).listed("resources/list").len() == 2);
    let alice = harness.client(ALICE);
    let filter = |uri: &str| json!({ "resourceSubscriptions": [uri] });
    let (_first, granted) = alice.listen(&filter("test://a").to_string());
    assert_eq!(granted, filter("test://a"));
    let (_second, granted) = alice.listen(&filter("test://b").to_string());
    assert_eq!(granted, json!({}));
    let (_third, granted) = alice.listen(&filter("test://a").to_string());
    assert_eq!(granted, filter("test://a"));
    let asked = upstream.state().of("subscriptions/listen");
    let asked: Vec<Value> = asked.iter().map(|r| r.json()["params"]["notifications"].clone()).collect();
    let both = json!({ "resourceSubscriptions": ["test://a", "test://b"] });
    assert_eq!(asked, [filter("test://a"), both], "what it has taken it is not asked for again");
}
