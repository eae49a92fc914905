//! Who sees and may call what, under which name. Design 1.1, 6, 8, 10; protocol.md 2.4 L10, 4.6, 4.8.

use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, BOB, CHARLIE, Harness, call_message, clients, numbered, owned_by_alice, server};

#[test]
fn owned_servers_come_before_granted_ones_and_each_in_file_order() {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Plan::new(name).tools(&[format!("of_{name}")]).start());
    let mut config = clients();
    for (name, owner, upstream) in
        [("server_a", "alice", &a), ("server_b", "bob", &b), ("server_c", "charlie", &c), ("server_d", "charlie", &d)]
    {
        config += &server(name, owner, upstream, "");
    }
    // The order of the grants is not that of the servers.
    config += "[allow.server_b]\ncharlie = [\"*\"]\n[allow.server_a]\ncharlie = [\"*\"]\nbob = [\"*\"]\n";
    let harness = Harness::start(&config);
    assert_eq!(harness.client(CHARLIE).tools(), ["of_c", "of_d", "of_a", "of_b"]);
    assert_eq!(harness.client(BOB).tools(), ["of_b", "of_a"]);
    assert_eq!(harness.client(ALICE).tools(), ["of_a"]);
}

/// Bob's grant on a server of alice's, and what he sees of its four tools.
#[track_caller]
fn check_grant(grant: &str, expected: &[&str]) {
    let upstream = Plan::new("a").tools(&["read", "read_all", "write", "Read"]).start();
    let config = clients() + &server("server_a", "alice", &upstream, "tool_prefix = \"p_\"") + grant;
    let harness = Harness::start(&config);
    let mut bob = harness.client(BOB);
    assert_eq!(bob.tools(), expected, "{grant}");
    for tool in ["p_read", "p_read_all", "p_write", "p_Read"] {
        let called = bob.call(tool);
        assert_eq!(called.get("result").is_some(), expected.contains(&tool), "{grant}: {tool}: {called}");
    }
    assert_eq!(upstream.calls().len(), expected.len(), "{grant}");
    assert_eq!(harness.client(ALICE).tools(), ["p_read", "p_read_all", "p_write", "p_Read"], "{grant}");
}

#[test]
fn a_client_sees_and_calls_exactly_what_is_granted() {
    for (grant, expected) in [
        ("", &[][..]),
        ("[allow.server_a]\nbob = []\n", &[]),
        ("[allow.server_a]\ncharlie = [\"*\"]\n", &[]),
        ("[allow.server_a]\nbob = [\"*\"]\n", &["p_read", "p_read_all", "p_write", "p_Read"]),
        ("[allow.server_a]\nbob = [\"read\"]\n", &["p_read"]),
        ("[allow.server_a]\nbob = [\"read*\"]\n", &["p_read", "p_read_all"]),
        ("[allow.server_a]\nbob = [\"p_*\"]\n", &[]),
        ("[allow.server_a]\nbob = [\"[!r]*\"]\n", &["p_write", "p_Read"]),
        ("[allow.server_a]\nbob = [\"writ?\", \"Read\"]\n", &["p_write", "p_Read"]),
        ("[allow.server_a]\n\"*\" = [\"write\"]\n", &["p_write"]),
        ("[allow.server_a]\n\"*\" = [\"write\"]\nbob = [\"read\"]\n", &["p_read", "p_write"]),
        ("[allow.server_a]\nbob = { tools = [\"*\"], deny = [\"read*\"] }\n", &["p_write", "p_Read"]),
        ("[allow.server_a]\nbob = { tools = [\"*\"], deny = [\"*\"] }\n", &[]),
        ("[allow.server_a]\nbob = [\"*\"]\n\"*\" = { deny = [\"write\"] }\n", &["p_read", "p_read_all", "p_Read"]),
        ("[allow.server_a]\nbob = { prompts = [\"*\"], resources = [\"*\"] }\n", &[]),
    ] {
        check_grant(grant, expected);
    }
}

/// Two servers of alice's that both offer `same`, the first one with a tool of its own before and after.
fn twins() -> (Upstream, Upstream, Harness) {
    let first = Plan::new("first").tools(&["x", "same", "y"]).start();
    let second = Plan::new("second").tools(&["same", "z"]).start();
    let harness = Harness::start(&owned_by_alice(&[("server_1", &first), ("server_2", &second)]));
    (first, second, harness)
}

#[test]
fn of_two_tools_with_one_name_the_first_has_it() {
    let (first, second, harness) = twins();
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), ["x", "same", "y", "z"]);
    assert_eq!(alice.text("same"), "first:same");
    assert_eq!(alice.text("z"), "second:z");
    assert_eq!((first.calls().len(), second.calls().len()), (1, 1));
}

#[test]
fn a_call_is_never_tried_on_the_next_server() {
    let (first, second, harness) = twins();
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools().len(), 4);
    for status in [404, 500, 503] {
        first.on_call(move |exchange| exchange.respond(status, "text/plain", ""));
        assert_eq!(alice.error("same").0, -32603);
    }
    for code in [-32601, -32602, -32603] {
        first.on_call(move |exchange| exchange.error(code, "no"));
        alice.error("same");
    }
    first.on_call(|exchange| exchange.close());
    alice.error("same");
    first.stop();
    assert_eq!(alice.error("same").0, -32603);
    assert_eq!(alice.tools(), ["x", "same", "y", "z"]);
    assert_eq!(second.calls().len(), 0, "the second server got a call");
}

/// Joined with an underscore, the two pairs of names read the same.
#[test]
fn names_that_read_alike_when_joined_are_kept_apart() {
    let foo = Plan::new("foo").tools(&["bar_baz"]).start();
    let foo_bar = Plan::new("foo_bar").tools(&["baz"]).start();
    let servers = |first: &str, second: &str| {
        clients() + &server("foo", "alice", &foo, first) + &server("foo_bar", "alice", &foo_bar, second)
    };
    let grants = "[allow.foo]\nbob = [\"baz\"]\n[allow.foo_bar]\nbob = [\"baz\"]\n";

    let harness = Harness::start(&servers("", ""));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), ["bar_baz", "baz"]);
    assert_eq!((alice.text("bar_baz"), alice.text("baz")), ("foo:bar_baz".into(), "foo_bar:baz".into()));

    let prefixes = servers("tool_prefix = \"foo_\"", "tool_prefix = \"foo_bar_\"");
    let harness = Harness::start(&(prefixes + grants));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), ["foo_bar_baz"]);
    assert_eq!(alice.text("foo_bar_baz"), "foo:bar_baz");
    // Bob may not use the one that hides the other from alice.
    let mut bob = harness.client(BOB);
    assert_eq!(bob.tools(), ["foo_bar_baz"]);
    assert_eq!(bob.text("foo_bar_baz"), "foo_bar:baz");
}

#[test]
fn the_server_gets_its_own_name_and_the_rest_of_the_call_untouched() {
    let upstream = Plan::new("a").tools(&["read"]).start();
    let harness = Harness::start(&(clients() + &server("server_a", "alice", &upstream, "tool_prefix = \"gh_\"")));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), ["gh_read"]);
    for name in ["gh_read", r"\u0067h_\u0072ead"] {
        let answer = alice.post(call_message("1", name, r#"{"name":"gh_read","n":1e21}"#));
        assert!(answer.body.contains("a:read"), "{answer:?}");
        let call = upstream.calls().pop().unwrap();
        let expected = r#""params":{"name":"read","arguments":{"name":"gh_read","n":1e21}}"#;
        assert!(call.body.contains(expected), "{call:?}");
    }
    assert_eq!(alice.error("read").0, -32602, "the own name is not exposed");
}

#[test]
fn denied_and_unknown_tools_read_exactly_the_same() {
    let upstream = Plan::new("a").tools(&["open", "shut"]).start();
    let config = clients() + &server("server_a", "alice", &upstream, "") + "[allow.server_a]\nbob = [\"open\"]\n";
    let harness = Harness::start(&config);
    for token in [BOB, CHARLIE] {
        let mut client = harness.client(token);
        let shape = |name: &str, client: &mut super::support::client::Client| {
            let answer = client.post(call_message("1", name, "{}"));
            assert_eq!((answer.status(), answer.code()), (200, -32602));
            answer.body.replace(name, "NAME")
        };
        let denied = shape("shut", &mut client);
        assert_eq!(denied, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"unknown tool: `NAME`"}}"#);
        assert_eq!(shape("none", &mut client), denied);
        assert_eq!(shape("Open", &mut client), denied);
    }
    assert_eq!(upstream.calls().len(), 0);
    harness.wait_for_log("WARN denied");
}

#[test]
fn a_client_without_servers_sees_an_empty_list() {
    let harness = Harness::start(&clients());
    let answer = harness.client(BOB).post(r#"{"jsonrpc":"2.0","id":"l","method":"tools/list","params":{}}"#);
    assert_eq!(answer.body, r#"{"jsonrpc":"2.0","id":"l","result":{"tools":[]}}"#);
}

#[test]
fn the_same_view_gives_the_same_bytes() {
    let [a, b] = ["a", "b"].map(|name| Plan::new(name).tools(&numbered(20)).start());
    let harness = Harness::start(&owned_by_alice(&[("server_a", &a), ("server_b", &b)]));
    let list = || harness.client(ALICE).post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).body;
    let first = list();
    for _ in 0..5 {
        assert_eq!(list(), first);
    }
    assert_eq!(a.state().of("tools/list").len(), 1, "lists are answered from memory");
}

#[test]
fn every_page_of_a_server_is_fetched_and_its_order_kept() {
    let upstream = Plan::new("a").tools(&numbered(23)).page(5).start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    assert_eq!(harness.client(ALICE).tools(), numbered(23));
    assert_eq!(upstream.state().of("tools/list").len(), 5);
}

#[test]
fn a_server_without_end_of_pages_is_cut_off() {
    let upstream = Plan::new("a").start();
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "tools/list" => exchange.result(r#"{"tools":[{"name":"again"}],"nextCursor":""}"#),
        _ => exchange.normally(),
    });
    let config = owned_by_alice(&[("server_a", &upstream)]) + "[gateway]\nmax_list_pages = 4\n";
    let harness = Harness::start(&config);
    assert_eq!(harness.client(ALICE).tools(), ["again"]);
    assert_eq!(upstream.state().of("tools/list").len(), 4);
}

/// A tool with everything that came with one revision or another, unknown members and delicate values among it.
const RICH: &str = r#"{"name":"t","title":"T","description":"d\u00e9","x-new":{"b":1.0,"a":1e21},"icons":[{"src":"https://x/i.png"}],"inputSchema":{"type":"object","properties":{"z":{"const":42.0},"a":{"default":9007199254740993}}},"outputSchema":{"type":"object"},"annotations":{"readOnlyHint":true},"execution":{"taskSupport":"optional"},"_meta":{"k":null}}"#;

#[test]
fn each_revision_gets_the_members_it_knows_byte_for_byte() {
    let upstream = Plan::new("a").described(&[RICH]).start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let without = |members: &[&str]| members.iter().fold(RICH.to_owned(), |text, member| text.replace(member, ""));
    let (title, icons) = (r#""title":"T","#, r#""icons":[{"src":"https://x/i.png"}],"#);
    let (output, tasks) = (r#""outputSchema":{"type":"object"},"#, r#""execution":{"taskSupport":"optional"},"#);
    for (version, missing) in [
        ("2024-11-05", &[title, icons, output, tasks][..]),
        ("2025-03-26", &[title, icons, output, tasks]),
        ("2025-06-18", &[icons, tasks]),
        ("2025-11-25", &[tasks]),
    ] {
        let mut alice = harness.client(ALICE);
        alice.initialize(version);
        let answer = alice.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{}]}}}}"#, without(missing));
        assert_eq!(answer.body, expected, "{version}");
    }
}

#[test]
fn the_negotiated_revision_governs_and_not_the_header() {
    let upstream = Plan::new("a").described(&[RICH]).start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let expected = alice.post(list).body;
    for version in [None, Some("2024-11-05"), Some("2025-06-18")] {
        alice.version = version.map(str::to_owned);
        assert_eq!(alice.post(list).body, expected, "{version:?}");
    }
}

#[test]
fn without_a_session_the_header_says_the_revision() {
    let upstream = Plan::new("a").described(&[RICH]).start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    for (version, has_title) in [(None, false), (Some("2025-03-26"), false), (Some("2025-06-18"), true)] {
        alice.version = version.map(str::to_owned);
        let list = alice.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        assert_eq!(list.body.contains("\"title\""), has_title, "{version:?}");
    }
}

#[test]
fn what_no_legacy_client_can_use_is_left_out() {
    let tools = [
        r#"{"name":"list","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}"#,
        r#"{"name":"any","outputSchema":{"anyOf":[]},"inputSchema":{"type":"object"}}"#,
        r#"{"name":"task","inputSchema":{"type":"object"},"execution":{"taskSupport":"required"}}"#,
    ];
    let upstream = Plan::new("a").described(&tools).start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    alice.initialize("2025-11-25");
    let answer = alice.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let plain = |name: &str| format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}}}"#);
    let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{},{}]}}}}"#, plain("list"), plain("any"));
    assert_eq!(answer.body, expected);
    assert_eq!(alice.error("task").0, -32602);
}

#[test]
fn a_changed_list_is_seen_after_the_server_said_so() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("server_a", &upstream)]));
    let mut alice = harness.client(ALICE);
    assert_eq!(alice.tools(), ["echo"]);
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "tools/list" => exchange.result(r#"{"tools":[{"name":"other"}]}"#),
        "tools/call" => {
            exchange.begin_events();
            exchange.event(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
            exchange.result_event("{}");
        }
        _ => exchange.normally(),
    });
    assert!(alice.call("echo").get("result").is_some());
    super::support::wait_until("the new list", || alice.tools() == ["other"]);
    assert_eq!(alice.error("echo").0, -32602);
}
