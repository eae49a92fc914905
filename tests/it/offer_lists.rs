//! The lists of prompts, resources and templates: page by page, within limits, from servers that have only some of them or
//! fail at some of them, after a restart, and for how long they will do. Design 10, 13; protocol.md 4.2, 4.8.

use std::fs;

use mcp_x_fixture::{Fixture, Mode, Options};
use serde_json::{Value, json};

use super::support::client::{Client, list_of};
use super::support::message::{MODERN, Message};
use super::support::upstream::{Exchange, Plan, Upstream};
use super::support::{ALICE, Harness, owned_by_alice, wait_until};

const LISTS: [&str; 4] = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];

fn all(client: &mut Client) -> [Vec<String>; 4] {
    LISTS.map(|list| client.listed(list))
}

fn read(client: &mut Client, uri: &str) -> Value {
    client.response("resources/read", &json!({ "uri": uri }))
}

/// A server with `a` to `e` in every list.
fn five(name: &str) -> Plan {
    let letters = ["a", "b", "c", "d", "e"];
    Plan::new(name).tools(&letters).prompts(&letters).resources(&letters).templates(&letters)
}

/// Has lists answered by a script from now on, which says whether it did, and a call of the tool `change` tell of it.
fn change(upstream: &Upstream, script: impl Fn(&mut Exchange<'_>) -> bool + Send + Sync + 'static) {
    upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
        "tools/call" => {
            exchange.begin_events();
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#);
            exchange.result_event("{}");
        }
        _ if script(exchange) => {}
        _ => exchange.normally(),
    });
}

#[test]
fn every_list_comes_in_pages_and_a_cursor_belongs_to_one_of_them() {
    let upstream = five("a").page(2).start();
    let harness = Harness::start(&(owned_by_alice(&[("a", &upstream)]) + "[gateway]\npage_size = 3\n"));
    let mut alice = harness.client(ALICE);
    let page = |alice: &mut Client, method: &str, cursor: &Value| {
        let response = alice.response(method, &json!({ "cursor": cursor }));
        let (member, key) = list_of(method);
        let entries = response["result"][member].as_array().unwrap_or_else(|| panic!("no list: {response}"));
        let names: Vec<String> = entries.iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect();
        (names.concat(), response["result"]["nextCursor"].clone())
    };
    let cursors = LISTS.map(|method| {
        let (names, cursor) = page(&mut alice, method, &Value::Null);
        assert_eq!(names, "abc", "{method}");
        assert_eq!(page(&mut alice, method, &cursor), ("de".to_owned(), Value::Null), "{method}");
        cursor
    });
    for (given, cursor) in LISTS.iter().zip(&cursors) {
        for method in LISTS.iter().filter(|method| *method != given) {
            let error = json!({ "code": -32602, "message": "invalid params: unknown cursor" });
            assert_eq!(alice.response(method, &json!({ "cursor": cursor }))["error"], error, "{given}, {method}");
        }
    }
    for method in LISTS {
        assert_eq!(upstream.state().of(method).len(), 3, "{method}");
    }
}

#[test]
fn a_server_may_have_only_some_lists() {
    let resources = Plan::new("r").without_tools().resources(&["x:1"]).start();
    let prompts = Plan::new("p").without_tools().prompts(&["p"]).start();
    let templates = Plan::new("t").without_tools().templates(&["y:{a}"]).start();
    let harness = Harness::start(&owned_by_alice(&[("r", &resources), ("p", &prompts), ("t", &templates)]));
    let mut alice = harness.client(ALICE);
    assert_eq!(all(&mut alice), [vec![], vec!["p"], vec!["x:1"], vec!["y:{a}"]]);
    assert_eq!(read(&mut alice, "x:1")["result"]["contents"][0]["text"], "r:x:1");
    assert_eq!(read(&mut alice, "y:1")["result"]["contents"][0]["text"], "t:y:1");
    let state = alice.get("/get_tools");
    assert!(state["servers"].as_array().unwrap().iter().all(|server| server["state"] == "ok"), "{state}");
    // What a server does not say that it has is not asked for, but for tools, which some forget to declare.
    let asked = [&resources, &prompts, &templates].map(|server| LISTS.map(|list| server.state().of(list).len()));
    assert_eq!(asked, [[1, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1]]);
}

/// A server that declares no tools may refuse to list them as it likes.
#[test]
fn a_server_without_tools_may_refuse_to_list_them() {
    for answer in [-32601, -32602, -32603, 404, 500] {
        let upstream = Plan::new("r").without_tools().resources(&["x:1"]).start();
        upstream.on_request(move |exchange| match (exchange.request.rpc().as_str(), u16::try_from(answer)) {
            ("tools/list", Ok(status)) => exchange.respond(status, "text/plain", "no"),
            ("tools/list", Err(_)) => exchange.error(answer, "no"),
            _ => exchange.normally(),
        });
        let harness = Harness::start(&owned_by_alice(&[("r", &upstream)]));
        assert_eq!(all(&mut harness.client(ALICE)), [vec![], vec![], vec!["x:1"], vec![]], "{answer}");
    }
}

/// How a list of prompts fails.
type Failure = (&'static str, fn(&mut Exchange<'_>));

const FAILURES: [Failure; 5] = [
    ("error -32603", |exchange| exchange.error(-32603, "out of order")),
    ("HTTP status 500", |exchange| exchange.respond(500, "text/plain", "out of order")),
    ("expected a list `prompts`", |exchange| exchange.result("{}")),
    ("expected a list `prompts`", |exchange| exchange.result(r#"{"prompts":{}}"#)),
    ("error 7", |exchange| match exchange.request.json()["params"]["cursor"].is_string() {
        true => exchange.error(7, "the second page is out of order"),
        false => exchange.result(r#"{"prompts":[{"name":"half"}],"nextCursor":"2"}"#),
    }),
];

#[test]
fn a_server_that_fails_at_its_prompts_keeps_everything_else_and_what_was_known_of_them() {
    for (told, fail) in FAILURES {
        let upstream = Plan::new("a").prompts(&["p"]).resources(&["x:1"]).start();
        let harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
        let mut alice = harness.client(ALICE);
        assert_eq!(all(&mut alice), [vec!["echo"], vec!["p"], vec!["x:1"], vec![]]);
        change(&upstream, move |exchange| {
            match exchange.request.rpc().as_str() {
                "tools/list" => exchange.result(r#"{"tools":[{"name":"new"}]}"#),
                "prompts/list" => fail(exchange),
                "resources/list" => exchange.result(r#"{"resources":[{"uri":"x:2","name":"r"}]}"#),
                _ => return false,
            }
            true
        });
        alice.call("echo");
        wait_until("the other lists are new", || {
            all(&mut alice) == [vec!["new".to_owned()], vec!["p".to_owned()], vec!["x:2".to_owned()], vec![]]
        });
        harness.wait_for_log(&format!("left out of a list server=a what=\"prompts/list: {told}"));
        assert_eq!(alice.told_of("a")["state"], "ok");
    }
}

#[test]
fn a_server_that_never_listed_its_prompts_has_its_tools_all_the_same() {
    for (told, fail) in FAILURES {
        let upstream = Plan::new("a").prompts(&["p"]).resources(&["x:1"]).start();
        upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
            "prompts/list" => fail(exchange),
            _ => exchange.normally(),
        });
        let harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
        assert_eq!(all(&mut harness.client(ALICE)), [vec!["echo"], vec![], vec!["x:1"], vec![]], "{told}");
    }
}

/// One that fails at its resources still is the only one that could have them.
#[test]
fn a_server_that_fails_at_its_resources_is_read_from() {
    let upstream = Plan::new("a").resources(&["x:1"]).start();
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "resources/list" => exchange.error(-32603, "out of order"),
        _ => exchange.normally(),
    });
    let harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.listed("resources/list"), Vec::<String>::new());
    assert_eq!(read(&mut alice, "x:1")["result"]["contents"][0]["text"], "a:x:1");
}

#[test]
fn the_limits_hold_for_each_list() {
    let upstream = five("a").page(1).start();
    let config = owned_by_alice(&[("a", &upstream)]);
    let expected =
        |lengths: [usize; 4]| move |alice: &mut Client| assert_eq!(all(alice).map(|list| list.len()), lengths);
    let harness = Harness::start(&format!("{config}[gateway]\nmax_list_pages = 3\n"));
    expected([3, 3, 3, 3])(&mut harness.client(ALICE));
    harness.wait_for_log("pages of resources/templates/list beyond 3");
    let harness = Harness::start(&format!("{config}[gateway]\nmax_tools_per_server = 2\n"));
    expected([2, 2, 2, 2])(&mut harness.client(ALICE));
    harness.wait_for_log("prompts beyond 2 or");
    let long = |n: u8| format!(r#"{{"name":"p{n}","description":"{}"}}"#, "x".repeat(200));
    let upstream = Plan::new("a").list("prompts/list", (0..5).map(long)).resources(&["x:1"]).start();
    let config = owned_by_alice(&[("a", &upstream)]);
    let harness = Harness::start(&format!("{config}[gateway]\nmax_catalogue_bytes = 1024\n"));
    // All lists together: a tool, and four prompts of 229 bytes.
    expected([1, 4, 0, 0])(&mut harness.client(ALICE));
    harness.wait_for_log("prompts beyond 10000 or 1024 bytes");
    harness.wait_for_log("resources beyond 10000 or 1024 bytes");
}

#[test]
fn after_a_restart_a_server_that_is_down_still_holds_its_prompts_and_resources() {
    let first = five("first").start();
    let second = five("second").start();
    let mut harness = Harness::start(&owned_by_alice(&[("first", &first), ("second", &second)]));
    let before = all(&mut harness.client(ALICE));
    let catalogues = harness.config_path().with_file_name("catalogues");
    let kept = || fs::read_dir(&catalogues).into_iter().flatten().flatten();
    let is_whole = |path| fs::read_to_string(path).is_ok_and(|text| text.contains("resourceTemplates"));
    wait_until("both are kept", || kept().filter(|file| is_whole(file.path())).count() == 2);
    first.stop();
    harness.restart();
    let mut alice = harness.client(ALICE);
    assert_eq!(all(&mut alice), before);
    for (response, subject) in [
        (alice.response("prompts/get", &json!({ "name": "a" })), "prompt `a`"),
        (read(&mut alice, "a"), "resource `a`"),
    ] {
        let error = json!({ "code": -32603, "message": format!("server of {subject} is not reachable") });
        assert_eq!(response["error"], error);
    }
    assert_eq!(second.state().of("resources/read").len(), 0, "a read went to whom it was not for");
}

/// A server that lists nothing and is known to answer for its resources.
#[test]
fn after_a_restart_it_is_known_whose_unlisted_resources_are_read() {
    let upstream = Plan::new("a").resources(&[]).start();
    let mut harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
    assert_eq!(read(&mut harness.client(ALICE), "x:1")["result"]["contents"][0]["text"], "a:x:1");
    let catalogues = harness.config_path().with_file_name("catalogues");
    wait_until("it is kept", || fs::read_dir(&catalogues).is_ok_and(|folder| folder.count() == 1));
    upstream.stop();
    harness.restart();
    let error = json!({ "code": -32603, "message": "server of resource `x:1` is not reachable" });
    assert_eq!(read(&mut harness.client(ALICE), "x:1")["error"], error);
}

#[test]
fn what_may_be_kept_says_for_how_long_and_for_whom() {
    for (ttl, refresh, expected) in [(1_234, 30, 1_234), (0, 30, 0), (60_000, 1, 1_000)] {
        let fixture = Fixture::start(Options { ttl_ms: ttl, ..Options::of(Mode::Modern) });
        let config = owned_by_alice(&[("a", &fixture)]) + &format!("[gateway]\nrefresh_seconds = {refresh}\n");
        let harness = Harness::start(&config);
        let mut alice = harness.client(ALICE);
        for list in LISTS {
            let result = alice.ask(&Message::of(MODERN, list)).json()["result"].clone();
            let said = result["ttlMs"].as_u64().unwrap_or_else(|| panic!("{result}"));
            assert!(said <= expected && result["cacheScope"] == "private", "{list}: {result}");
        }
        let uri = "test://static-text";
        let message = Message::of(MODERN, "resources/read").param(&format!(r#""uri":"{uri}""#));
        let result = alice.ask(&message.header("Mcp-Name", uri)).json()["result"].clone();
        assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(expected), &json!("private")), "{result}");
    }
}

/// What a modern server says of a resource is taken for a time only if it is one; of a legacy one it is no such thing.
#[test]
fn a_time_that_is_none_is_no_time_at_all() {
    let upstream = Plan::new("a").resources(&["x:1"]).start();
    let harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
    for said in [r#""ttlMs":5000,"cacheScope":"public""#, r#""ttlMs":-1"#, r#""ttlMs":"9","ttlMs":null"#, r#""x":1"#] {
        let result = format!(r#"{{{said},"contents":[]}}"#);
        upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
            "resources/read" => exchange.result(&result),
            _ => exchange.normally(),
        });
        let message = Message::of(MODERN, "resources/read").param(r#""uri":"x:1""#).header("Mcp-Name", "x:1");
        let result = harness.client(ALICE).ask(&message).json()["result"].clone();
        assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(0), &json!("private")), "{said}: {result}");
    }
}
