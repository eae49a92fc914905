//! Lists beyond `page_size`: what is on the pages, and what a cursor is worth when things have changed since.
//! Design 10; protocol.md 4.8.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use mcp_x::gateway::{Memory, Session};
use mcp_x::policy::Registry;
use mcp_x::wire::config::Secrets;
use mcp_x::wire::mcp::{ListKind, ProtocolVersion};
use serde_json::{Value, json};

use super::support::client::Client;
use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, BOB, Draw, Harness, call_message, clients, numbered, owned_by_alice, wait_until};

/// Asks for the page that a cursor stands for, the first without one.
fn ask(client: &mut Client, cursor: &Value) -> Value {
    let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
    let answer =
        client.post(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params }).to_string());
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.json()
}

/// The names on a page, and the cursor of the next one; null on the last.
#[track_caller]
fn page(client: &mut Client, cursor: &Value) -> (Vec<String>, Value) {
    let answer = ask(client, cursor);
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("no page: {answer}"));
    let names = tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect();
    (names, answer["result"]["nextCursor"].clone())
}

/// All pages from a cursor on.
#[track_caller]
fn pages(client: &mut Client, mut cursor: Value) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let (names, next) = page(client, &cursor);
        pages.push(names);
        if next.is_null() {
            return pages;
        }
        cursor = next;
    }
}

#[track_caller]
fn publish(harness: &Harness, text: &str) {
    let built = Registry::load(text, |_| Secrets::default());
    harness.gateway().publish(built.registry.unwrap_or_else(|| panic!("{:?}", built.problems)));
}

/// Two servers of alice's with twelve tools, one of which hides another, and this many on a page.
fn twelve() -> (Upstream, Upstream, impl Fn(usize) -> String) {
    let first = Plan::new("first").tools(&["a", "b", "c", "d", "e"]).start();
    let second = Plan::new("second").tools(&["f", "g", "a", "h", "i", "j", "k", "l"]).start();
    let config = owned_by_alice(&[("first", &first), ("second", &second)]);
    (first, second, move |size| format!("{config}[gateway]\npage_size = {size}\n"))
}

#[test]
fn the_pages_of_every_size_are_the_whole_list() {
    let (_first, _second, config) = twelve();
    let harness = Harness::start(&config(1_000));
    let mut alice = harness.client(ALICE);
    let whole = alice.tools();
    assert_eq!(whole.concat(), "abcdefghijkl");
    for size in 1..=13 {
        publish(&harness, &config(size));
        let pages = pages(&mut alice, Value::Null);
        assert_eq!(pages.concat(), whole, "{size}");
        assert_eq!(pages.len(), 12_usize.div_ceil(size), "{size}");
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == size), "{size}: {pages:?}");
        // A call is found on whatever page its tool is.
        assert_eq!(alice.text("l"), "second:l");
    }
}

#[test]
fn a_thousand_tools_are_one_page_and_one_more_is_another() {
    for (count, expected) in [(1_000, &[1_000][..]), (1_001, &[1_000, 1])] {
        let upstream = Plan::new("a").tools(&numbered(count)).start();
        let harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
        let pages = pages(&mut harness.client(ALICE), Value::Null);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), expected);
        assert_eq!(pages.concat(), numbered(count));
    }
}

#[test]
fn the_same_view_gives_the_same_bytes_which_are_made_once() {
    let (_first, _second, config) = twelve();
    let harness = Harness::start(&config(5));
    let mut alice = harness.client(ALICE);
    let (_, second) = page(&mut alice, &Value::Null);
    let (_, third) = page(&mut alice, &second);
    let gateway = harness.gateway();
    let snapshot = gateway.snapshot();
    let alice = gateway.sign_in(&Memory::default(), &snapshot, ALICE, Duration::ZERO).unwrap();
    let list = |cursor: &Value| {
        let session = Session::default();
        let list =
            gateway.list(&snapshot, &alice, &session, ListKind::Tools, Some(ProtocolVersion::LATEST), cursor.as_str());
        harness.block_on(list).unwrap().bytes
    };
    for cursor in [Value::Null, second, third] {
        let (once, again) = (list(&cursor), list(&cursor));
        assert_eq!(once, again);
        assert_eq!(once.as_ptr(), again.as_ptr(), "the page was made twice");
    }
}

#[test]
fn a_cursor_that_was_not_given_to_this_client_is_unknown() {
    let (first, _second, config) = twelve();
    let harness = Harness::start(&(config(5) + "[allow.first]\nbob = [\"*\"]\n[allow.second]\nbob = [\"*\"]\n"));
    let (mut alice, mut bob) = (harness.client(ALICE), harness.client(BOB));
    let (names, cursor) = page(&mut alice, &Value::Null);
    assert_eq!(page(&mut bob, &Value::Null).0, names, "both see the same");
    let good = cursor.as_str().unwrap().to_owned();
    let session = alice.another().initialize("2025-11-25");
    let error = json!({ "code": -32602, "message": "invalid params: unknown cursor" });
    for bad in [
        json!(""),
        json!("2"),
        json!(format!("{good}A")),
        json!(good.split_at(good.len() - 1).0),
        json!(good.replace(|c: char| c.is_ascii_lowercase(), "x")),
        json!(session),
        json!("x".repeat(100_000)),
        json!(5),
        json!({}),
        json!([good]),
        json!(true),
    ] {
        assert_eq!(ask(&mut alice, &bad)["error"], error, "{bad}");
    }
    assert_eq!(ask(&mut bob, &cursor)["error"], error, "alice's cursor");
    assert_eq!(page(&mut alice, &cursor).0, ["f", "g", "h", "i", "j"]);
    let null = alice.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":null}}"#);
    assert_eq!(null.json()["result"]["nextCursor"], cursor, "null is no cursor");
    assert_eq!(first.state().of("tools/list").len(), 1);
}

#[test]
fn a_cursor_outlives_the_gateway() {
    let (first, second, config) = twelve();
    let mut harness = Harness::start(&config(5));
    let (_, cursor) = page(&mut harness.client(ALICE), &Value::Null);
    let catalogues = harness.config_path().with_file_name("catalogues");
    wait_until("both are kept", || std::fs::read_dir(&catalogues).is_ok_and(|folder| folder.count() == 2));
    first.stop();
    second.stop();
    harness.restart();
    assert_eq!(pages(&mut harness.client(ALICE), cursor), [vec!["f", "g", "h", "i", "j"], vec!["k", "l"]]);
}

#[test]
fn a_cursor_outlives_another_page_size() {
    let (_first, _second, config) = twelve();
    let harness = Harness::start(&config(5));
    let mut alice = harness.client(ALICE);
    let (_, cursor) = page(&mut alice, &Value::Null);
    publish(&harness, &config(4));
    // The next page ends where a page of the new size does.
    assert_eq!(pages(&mut alice, cursor.clone()), [vec!["f", "g", "h"], vec!["i", "j", "k", "l"]]);
    publish(&harness, &config(1_000));
    assert_eq!(pages(&mut alice, cursor).concat().concat(), "fghijkl");
}

/// The last entry of the page goes, with others around it; later everything behind it.
#[test]
fn a_list_whose_last_entry_is_gone_goes_on_where_that_one_stood() {
    let upstream = Plan::new("a").tools(&["a", "b", "c", "d", "e", "f"]).start();
    let harness = Harness::start(&(owned_by_alice(&[("a", &upstream)]) + "[gateway]\npage_size = 3\n"));
    let mut alice = harness.client(ALICE);
    let (names, cursor) = page(&mut alice, &Value::Null);
    assert_eq!(names, ["a", "b", "c"]);
    for (tools, rest) in [("abdef", "def"), ("axdef", "xdef"), ("exf", "exf"), ("a", ""), ("ay", "y")] {
        upstream.on_request(move |exchange| match exchange.request.rpc().as_str() {
            "tools/list" => {
                let list: Vec<Value> = tools.chars().map(|name| json!({ "name": name.to_string() })).collect();
                exchange.result(&json!({ "tools": list }).to_string());
            }
            "tools/call" => {
                exchange.begin_events();
                exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
                exchange.result_event("{}");
            }
            _ => exchange.normally(),
        });
        let any = pages(&mut alice, Value::Null).concat()[0].clone();
        alice.post(call_message("1", &any, "{}"));
        wait_until("the new list", || pages(&mut alice, Value::Null).concat().concat() == tools);
        assert_eq!(pages(&mut alice, cursor.clone()).concat().concat(), rest, "{tools}");
    }
}

const SERVERS: usize = 3;
const TOOLS: usize = 8;

/// What bob may not use yet, and what not any more; servers of which he may use nothing are not his.
#[derive(Default)]
struct Denied {
    not_yet: BTreeSet<String>,
    no_longer: BTreeSet<String>,
}

impl Denied {
    fn config(&self, servers: &[Upstream], size: usize) -> String {
        let mut text = clients();
        for (at, upstream) in servers.iter().enumerate() {
            let url = upstream.url();
            let of = |name: &&String| name.starts_with(&format!("s{at}_"));
            let denied: Vec<&String> = self.not_yet.iter().chain(&self.no_longer).filter(of).collect();
            let _ = write!(text, "[mcp_servers.s{at}]\nurl = \"{url}\"\nfrom_client = \"alice\"\n");
            if denied.len() < TOOLS {
                let _ = write!(text, "[allow.s{at}]\nbob = {{ tools = [\"*\"], deny = {denied:?} }}\n");
            }
        }
        text + &format!("[gateway]\npage_size = {size}\n")
    }
}

#[test]
fn a_walk_meets_everything_that_stays_and_nothing_twice_while_grants_change() {
    let mut draw = Draw(11);
    let names = |at: usize| (0..TOOLS).map(move |n| format!("s{at}_{n}"));
    let servers: Vec<Upstream> =
        (0..SERVERS).map(|at| Plan::new(&format!("s{at}")).tools(&names(at).collect::<Vec<_>>()).start()).collect();
    let all: Vec<String> = (0..SERVERS).flat_map(names).collect();
    let harness = Harness::start(&Denied::default().config(&servers, 1_000));
    let mut bob = harness.client(BOB);
    assert_eq!(bob.tools(), all);
    let mut turned = 0;
    for size in (1..=9).cycle().take(90) {
        let not_yet = all.iter().filter(|_| draw.below(3) == 0).cloned().collect();
        let mut denied = Denied { not_yet, ..Denied::default() };
        publish(&harness, &denied.config(&servers, size));
        let mut stays: BTreeSet<String> = pages(&mut bob, Value::Null).concat().into_iter().collect();
        let (mut met, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let (names, next) = page(&mut bob, &cursor);
            met.extend(names);
            if next.is_null() {
                break;
            }
            cursor = next;
            for _ in 0..draw.below(4) {
                let name = &all[draw.below(all.len())];
                if !denied.not_yet.remove(name) && denied.no_longer.insert(name.clone()) {
                    stays.remove(name);
                }
                publish(&harness, &denied.config(&servers, size));
                // Not every list that was for a while has been looked at.
                if draw.below(2) == 0 {
                    page(&mut bob, &Value::Null);
                }
                turned += 1;
            }
        }
        let once: BTreeSet<String> = met.iter().cloned().collect();
        assert_eq!(once.len(), met.len(), "something came twice: {met:?}");
        assert!(stays.is_subset(&once), "something that stayed was missed: {met:?}, {stays:?}");
    }
    assert!(turned > 200, "hardly anything changed: {turned}");
}
