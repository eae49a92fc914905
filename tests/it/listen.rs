//! Streams of changes: lists that change for a client, from whatever cause, in both eras and with every kind of server.
//! protocol.md 2.3, 2.4, 3.2, 4.2; design 10, 13, 14.

use std::time::{Duration, Instant};

use mcp_x_fixture::{Fixture, ListKind, Mode, Options};
use serde_json::json;

use super::rest::token;
use super::support::client::Client;
use super::support::ear::{ERAS, Ear, LEGACY, TELLING, WATCHED, start};
use super::support::message::{KEY, MODERN, Message};
use super::support::{ALICE, BOB, CHARLIE, Harness, clients, server, wait_until};

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

/// Resources and templates are two lists, which change as one.
#[test]
fn what_changed_between_two_lists_that_change_as_one_is_told_when_the_stream_opens() {
    let (fixture, harness) = start(Mode::LegacySessions, "");
    let mut alice = harness.client(ALICE).speaking(LEGACY);
    let before = alice.listed("resources/list").len();
    fixture.put(ListKind::Resources, r#"{"uri":"test://new","name":"new"}"#);
    let mut other = harness.client(ALICE);
    wait_until("the change is seen", || other.listed("resources/list").len() > before);
    let _ = alice.listed("resources/templates/list");
    let stream = alice.get_stream();
    let mut ear = Ear { client: alice, stream, revision: LEGACY };
    ear.hears_of("resources");
    let _ = (ear.client.listed("resources/list"), ear.client.listed("resources/templates/list"));
    let stream = ear.client.get_stream();
    ear.hears_the_end();
    ear.stream = stream;
    fixture.add_tool("new");
    ear.hears_of("tools");
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
    let (_, granted) = alice.listen(r#"{"taskIds":[],"else":null,"promptsListChanged":true}"#);
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
fn the_record_of_a_stream_is_written_at_its_end() {
    let (_fixture, harness) = start(Mode::Modern, "");
    for (revision, marks) in [(LEGACY, "method=GET path=/mcp"), (MODERN, "rpc=subscriptions/listen")] {
        let ear = Ear::open(&harness, CHARLIE, revision, &[]);
        assert!(!harness.log().contains(marks), "{}", harness.log());
        drop(ear);
        harness.wait_for_log(marks);
    }
}
