//! Clients, servers and grants over REST. Design 6, 7, 12, 14; issue 3.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcp_x::wire::jwt::Keys;
use serde_json::{Value, json};

use super::support::client::{Client, closed_port};
use super::support::upstream::Plan;
use super::support::{
    ALICE, BOB, CHARLIE, Harness, call_message, clients, owned_by_alice, server, wait_until, with_admin,
};

/// A configuration in which self-registered clients may bring the servers of these tests, which live at loopback.
fn open(config: &str) -> String {
    format!("{config}[gateway]\nallow_private_upstreams = true\nmax_registrations_per_minute = 1000\n")
}

/// Registers a client and returns its name and itself.
fn register(harness: &Harness) -> (String, Client) {
    let answer = harness.client("").done("/register_client", &json!({}));
    let id = answer["client_id"].as_str().unwrap().to_owned();
    (id, harness.client(answer["auth_token"].as_str().unwrap()))
}

fn seconds() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "tokens are made with the time of day")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A token of this gateway, issued so many seconds ago and good for so long.
pub(super) fn token(harness: &Harness, client: &str, ago: u64, lifetime: u64) -> String {
    let keys = Keys::new([harness.secret().as_bytes()]);
    keys.sign(client, seconds() - Duration::from_secs(ago), Duration::from_secs(lifetime))
}

fn grant(client: &str, access: Value) -> Value {
    json!({ "client_id": client, "server_access": access })
}

#[test]
fn two_strangers_share_exactly_what_they_say() {
    let upstream = Plan::new("a").tools(&["text_one", "text_two", "other"]).start();
    let config = open(&clients());
    let harness = Harness::start(&config);
    let ((one, mut owner), (two, mut guest)) = (register(&harness), register(&harness));
    assert_ne!(one, two);
    assert_eq!(
        owner.done("/register_mcp_server", &json!({ "url": upstream.url(), "name": "tools" })),
        json!({ "server_id": "tools" })
    );
    assert_eq!(owner.tools(), ["text_one", "text_two", "other"]);
    assert_eq!(guest.tools(), [""; 0]);
    let message = format!("Successfully updated access control for client '{two}'");
    assert_eq!(
        owner.done("/update_access_control", &grant(&two, json!({ "tools": "text_*" }))),
        json!({ "message": message })
    );
    assert_eq!(guest.tools(), ["text_one", "text_two"]);
    assert_eq!(guest.text("text_two"), "a:text_two");
    assert_eq!(guest.error("other"), (-32602, "unknown tool: `other`".to_owned()));
    let access = json!({ "owned_servers": ["tools"], "access_control": { two.as_str(): { "tools": ["text_*"] } } });
    assert_eq!(owner.get("/get_access_control"), access);
    assert_eq!(guest.get("/get_access_control"), json!({ "owned_servers": [], "access_control": {} }));
    owner.done("/update_access_control", &grant(&two, json!({})));
    assert_eq!(guest.tools(), [""; 0]);
    assert_eq!(guest.error("text_one").0, -32602);
    owner.done("/unregister_mcp_server", &json!({ "server_id": "tools" }));
    owner.done("/unregister_client", &json!({ "client_id": one }));
    guest.done("/unregister_client", &json!({ "client_id": two }));
    assert_eq!(harness.config().replace("drain_seconds = 0\n", ""), config, "something is left in the file");
}

#[test]
fn a_file_keeps_every_byte_that_no_change_touches() {
    let upstream = Plan::new("a").start();
    let config = format!(
        "\u{feff}# top\r\n{}\t# odd   \n[mcp_servers.s]   # ours\r\nurl = '{}'\nfrom_client = \"alice\"\n\n[allow.s]\nbob   = [ 'x', # why\n  'y' ]\n\n# end",
        clients().replace('\n', "\r\n"),
        upstream.url()
    );
    let harness = Harness::start(&config);
    let before = harness.config();
    let mut alice = harness.client(ALICE);
    alice.done("/update_access_control", &grant("charlie", json!({ "s": ["*"] })));
    assert_eq!(harness.client(CHARLIE).tools(), ["echo"]);
    let (start, end) = before.split_once("  'y' ]\n").unwrap();
    assert_eq!(harness.config(), format!("{start}  'y' ]\ncharlie = [\"*\"]\n{end}"));
    alice.done("/update_access_control", &grant("charlie", json!({ "s": [] })));
    assert_eq!(harness.config(), before);
}

#[test]
fn a_hand_edit_made_a_moment_before_is_never_overwritten() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("s", &upstream)]));
    let mut alice = harness.client(ALICE);
    for round in 0..10 {
        let edited = format!("# edit {round}\n{}", harness.config());
        fs::write(harness.config_path(), &edited).unwrap();
        alice.done("/update_access_control", &grant("bob", json!({ "s": [format!("tool_{round}")] })));
        let now = harness.config();
        assert!(now.starts_with(&format!("# edit {round}\n")) && now.contains(&format!("tool_{round}\"")), "{now}");
        assert_eq!(now.matches("# edit").count(), round + 1);
    }
}

#[test]
fn a_hand_edit_is_in_force_with_the_change_that_follows_it() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("s", &upstream)]));
    harness.overwrite_config(&harness.config().replace(CHARLIE, "charlies-new-secret"));
    harness.client(ALICE).done("/update_access_control", &grant("charlie", json!({ "s": "*" })));
    assert_eq!(harness.client("charlies-new-secret").tools(), ["echo"]);
    assert_eq!(harness.client(CHARLIE).rest("GET", "/get_tools", "").status(), 401);
}

#[test]
fn a_file_that_does_not_parse_is_told_and_left_alone() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&(with_admin() + &server("s", "alice", &upstream, "")));
    let good = harness.config();
    for (broken, reason) in
        [("[clients", "config.toml:"), ("[clients.x]\nwhat = 1\n", "clients.x.what: unknown key"), ("", "is empty")]
    {
        fs::write(harness.config_path(), broken).unwrap();
        let (status, detail) =
            harness.client(ALICE).refused("/update_access_control", &grant("bob", json!({ "s": "*" })));
        assert!(status == 503 && detail.starts_with("The configuration cannot be changed now: "), "{detail}");
        assert!(detail.contains(reason), "{detail}");
        // Again, now that the broken text has been seen before; strangers learn nothing of what is in it.
        let (status, detail) = harness.client("").refused("/register_client", &json!({}));
        assert!(status == 503 && detail.contains("the configuration file has an error"), "{detail}");
        assert!(!detail.contains("config.toml") && !detail.contains("clients"), "{detail}");
        wait_until("it is told", || harness.client(ALICE).get("/status")["config"]["in_force"] == false);
        assert_eq!(harness.config(), broken);
        assert_eq!(harness.client(ALICE).tools(), ["echo"], "the last good one is in force");
    }
    fs::write(harness.config_path(), &good).unwrap();
    harness.client(ALICE).done("/update_access_control", &grant("bob", json!({ "s": "*" })));
}

#[test]
fn a_file_that_cannot_be_replaced_is_told_with_what_to_do() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&(with_admin() + &server("s", "alice", &upstream, "")));
    // A folder where the lock file should be: nobody can open that, not even root.
    let mut lock = harness.config_path().into_os_string();
    lock.push(".lock");
    fs::create_dir(&lock).unwrap();
    let (status, detail) = harness.client(ALICE).refused("/update_access_control", &grant("bob", json!({ "s": "*" })));
    assert!(status == 503 && detail.contains("config.toml.lock: is a directory\nhint: "), "{detail}");
    let (status, detail) = harness.client("").refused("/register_client", &json!({}));
    assert!(status == 503 && detail.ends_with("cannot be replaced: is a directory"), "{detail}");
    fs::remove_dir(Path::new(&lock)).unwrap();
    register(&harness);
    fs::rename(harness.config_path(), harness.config_path().with_extension("away")).unwrap();
    let (status, detail) = harness.client("").refused("/register_client", &json!({}));
    assert!(status == 503 && detail.contains("no such file"), "{detail}");
}

#[test]
fn a_token_that_was_revoked_a_moment_ago_changes_nothing() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("s", &upstream)]));
    let mut alice = harness.client(ALICE);
    // Without waiting until the gateway has seen it.
    fs::write(harness.config_path(), harness.config().replace(ALICE, "alices-new-secret")).unwrap();
    let answer = alice.rest("POST", "/update_access_control", &grant("bob", json!({ "s": "*" })).to_string());
    assert_eq!((answer.status(), answer.body.as_str()), (401, r#"{"detail":"Invalid authentication token"}"#));
    assert!(!harness.config().contains("bob = [\"*\"]"));
}

#[test]
fn registration_that_was_closed_a_moment_ago_lets_nobody_in() {
    let harness = Harness::start(&clients());
    fs::write(harness.config_path(), format!("{}registration = \"closed\"\n", harness.config())).unwrap();
    assert_eq!(harness.client("").refused("/register_client", &json!({})).0, 403);
    assert!(!harness.config().contains("registered ="));
}

#[test]
fn a_refused_file_is_tried_again_when_what_it_needs_has_come() {
    let harness = Harness::start(&clients());
    let edited = harness.config() + "[clients.dora]\nauth_token_file = \"doras\"\n";
    fs::write(harness.config_path(), &edited).unwrap();
    assert_eq!(harness.client("").refused("/register_client", &json!({})).0, 503);
    fs::write(harness.config_path().with_file_name("doras"), "doras-secret").unwrap();
    register(&harness);
    assert_eq!(harness.client("doras-secret").tools(), [""; 0]);
    assert!(harness.config().starts_with(&edited));
}

#[test]
fn a_change_that_cannot_be_made_fails_alone() {
    let upstream = Plan::new("a").start();
    // A form in which `t` cannot be taken out.
    let url = upstream.url();
    let odd = format!(
        "mcp_servers = {{ s = {{ url = \"{url}\", from_client = \"bob\" }}, t.url = \"{url}\", t.from_client = \"alice\" }}\n"
    );
    let harness = Harness::start(&(odd + &clients()));
    std::thread::scope(|scope| {
        for turn in 0..8 {
            let harness = &harness;
            scope.spawn(move || {
                assert_eq!(
                    harness.client(ALICE).refused("/unregister_mcp_server", &json!({ "server_id": "t" })).0,
                    503
                );
                harness
                    .client(BOB)
                    .done("/update_access_control", &grant("charlie", json!({ "s": [format!("tool_{turn}")] })));
            });
        }
    });
}

#[test]
fn a_name_that_was_made_up_is_explained_and_forgotten() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("s", &upstream)]));
    let explained = harness.client(ALICE).get("/explain?client=nobody&server=s&tool=echo");
    assert_eq!((explained["verdict"].as_str(), explained["rule"].as_str()), (Some("no"), Some("no such client")));
}

#[test]
fn a_hundred_at_once_are_all_in_the_file_and_in_force() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&open(&owned_by_alice(&[("s", &upstream)])));
    let registered: Vec<(String, Client)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(|| register(&harness))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    std::thread::scope(|scope| {
        for (id, _) in &registered {
            scope.spawn(|| harness.client(ALICE).done("/update_access_control", &grant(id, json!({ "s": "*" }))));
        }
    });
    let file = harness.config();
    for (id, mut client) in registered {
        assert!(file.contains(&format!("[clients.{id}]\nregistered = 20")), "{id} is not in the file");
        assert!(file.contains(&format!("\n{id} = [\"*\"]\n")), "the grant to {id} is not in the file");
        assert_eq!(client.tools(), ["echo"]);
    }
    assert!(harness.log().matches("configuration changed").count() < 200, "nothing was stored together");
}

#[test]
fn changes_of_two_gateways_on_one_file_lose_nothing() {
    let upstream = Plan::new("a").start();
    let one = Harness::start(&open(&owned_by_alice(&[("s", &upstream)])));
    let other = one.second();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|n| {
                scope.spawn({
                    let harness = if n % 2 == 0 { &one } else { &other };
                    move || register(harness).0
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let file = one.config();
    for id in ids {
        assert!(file.contains(&format!("[clients.{id}]")), "{id} is lost");
    }
}

#[test]
fn a_server_that_is_down_or_forbidden_disturbs_nobody() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("s", &upstream)]));
    let mut alice = harness.client(ALICE);
    let wrong = |url: &str| harness.client(ALICE).refused("/register_mcp_server", &json!({ "url": url }));
    assert_eq!(wrong("not a url"), (422, "url: expected a URL like `http://host:port/mcp`".to_owned()));
    assert_eq!(
        wrong("http://169.254.169.254/"),
        (422, "url: address `169.254.169.254` is not allowed here: link-local".to_owned())
    );
    assert_eq!(wrong("http://[::ffff:a9fe:a9fe]/").0, 422);
    assert_eq!(wrong("http://0.0.0.0/").0, 422);
    let (_, mut stranger) = register(&harness);
    for url in ["http://127.0.0.1:1/", "http://localhost:1/", "http://10.0.0.1/", "http://[::1]/"] {
        assert_eq!(stranger.refused("/register_mcp_server", &json!({ "url": url })).0, 422, "{url}");
    }
    // A name whose address nobody knows yet is taken, and is down.
    stranger.done("/register_mcp_server", &json!({ "url": "http://no-such-host.invalid/", "name": "nowhere" }));
    let down = format!("http://{}/mcp", closed_port());
    alice.done("/register_mcp_server", &json!({ "url": down, "name": "down" }));
    assert_eq!(alice.tools(), ["echo"]);
    assert_eq!(alice.text("echo"), "a:echo");
    wait_until("the state is known", || alice.get("/get_tools")["servers"][1]["state"] == "down");
    let servers = alice.get("/get_tools")["servers"].clone();
    assert_eq!(servers[0], json!({ "server": "s", "owner": true, "state": "ok", "tools": 1 }));
    assert!(servers[1]["error"].as_str().unwrap().contains("connection refused"), "{servers}");
    wait_until("the stranger is told", || stranger.get("/get_tools")["servers"][0]["error"].is_string());
}

#[test]
fn a_removed_client_is_refused_at_once_and_its_calls_end() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&open(&owned_by_alice(&[("s", &upstream)])));
    let (id, mut client) = register(&harness);
    harness.client(ALICE).done("/update_access_control", &grant(&id, json!({ "s": "*" })));
    let gate = upstream.wait_at_gate();
    let mut waiting = client.another();
    assert_eq!(waiting.tools(), ["echo"]);
    waiting.send(call_message("1", "echo", "{}"));
    upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
    client.done("/unregister_client", &json!({ "client_id": id }));
    assert_eq!(client.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status(), 401);
    assert_eq!(client.rest("GET", "/get_tools", "").status(), 401);
    let ended = waiting.connection.answer();
    assert!(ended.body.contains("access was taken away while the call was running"), "{ended:?}");
    gate.open();
    assert!(!harness.config().contains(&id), "a trace of the client is left");
}

#[test]
fn a_grant_that_is_taken_away_ends_the_calls_made_with_it_and_no_others() {
    let upstream = Plan::new("a").tools(&["one", "two"]).start();
    let harness = Harness::start(&owned_by_alice(&[("s", &upstream)]));
    let mut alice = harness.client(ALICE);
    alice.done("/update_access_control", &grant("bob", json!({ "s": ["one", "two"] })));
    let gate = upstream.wait_at_gate();
    let (mut first, mut second) = (harness.client(BOB), harness.client(BOB));
    first.send(call_message("1", "one", "{}"));
    second.send(call_message("2", "two", "{}"));
    upstream.wait_for("the calls", |s| s.of("tools/call").len() == 2);
    alice.done("/update_access_control", &grant("bob", json!({ "s": ["two"] })));
    let ended = first.connection.answer();
    assert!(ended.body.contains("access was taken away"), "{ended:?}");
    gate.open();
    assert!(second.connection.answer().body.contains("a:two"));
}

#[test]
fn a_call_ends_when_its_token_expires() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("s", &upstream)]));
    let gate = upstream.wait_at_gate();
    let mut alice = harness.client(&token(&harness, "alice", 3598, 3600));
    assert_eq!(alice.tools(), ["echo"]);
    alice.send(call_message("1", "echo", "{}"));
    let ended = alice.connection.answer();
    assert!(ended.body.contains("the token expired while the call was running"), "{ended:?}");
    gate.open();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let answer = alice.post(ping);
    assert_eq!((answer.status(), answer.body.as_str()), (401, r#"{"detail":"Token expired"}"#));
    assert_eq!(answer.head.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
}

#[test]
fn an_expired_token_is_refused_however_it_came_into_the_file() {
    let plain = Harness::start(&clients());
    let (expired, good) = (token(&plain, "alice", 3601, 3600), token(&plain, "alice", 60, 3600));
    for line in ["auth_token = \"TOKEN\"", "auth_token_file = \"token\""] {
        for (token, status) in [(&expired, 401), (&good, 200)] {
            fs::write(plain.config_path().with_file_name("token"), token).unwrap();
            let config = format!("# {status} {line}\n[clients.alice]\n{}\n", line.replace("TOKEN", token));
            plain.replace_config(&config);
            plain.wait_for_log("configuration loaded");
            let ask = |client: &mut Client| (client.rest("GET", "/get_tools", "").status(), client.tools_status());
            wait_until("the file is in force", || plain.client(BOB).rest("GET", "/get_tools", "").status() == 401);
            wait_until(line, || ask(&mut plain.client(token)) == (status, status));
        }
    }
    let detail = plain.client(&expired).rest("GET", "/get_tools", "").json();
    assert_eq!(detail, json!({ "detail": "Token expired" }));
}

#[test]
fn a_token_is_refreshed_by_registered_clients_only() {
    let harness = Harness::start(&open(&clients()));
    let (id, mut client) = register(&harness);
    let fresh = client.done("/refresh_token", &json!({}));
    assert_eq!((fresh["client_id"].as_str(), fresh["expires_in_seconds"].as_u64()), (Some(id.as_str()), Some(3600)));
    harness.client(fresh["auth_token"].as_str().unwrap()).get("/get_tools");
    assert_eq!(harness.client(ALICE).refused("/refresh_token", &json!({})).0, 403);
    let minted = token(&harness, "alice", 0, 60);
    assert_eq!(
        harness.client(&minted).refused("/refresh_token", &json!({})).0,
        403,
        "the operator's clients get none over REST"
    );
    let expired = token(&harness, &id, 3601, 3600);
    assert_eq!(harness.client(&expired).refused("/refresh_token", &json!({})), (401, "Token expired".to_owned()));
}

#[test]
fn valid_from_revokes_older_tokens_at_once() {
    let harness = Harness::start(&open(&clients()));
    let (id, mut client) = register(&harness);
    client.get("/get_tools");
    let revoked = harness
        .config()
        .replace(&format!("[clients.{id}]\n"), &format!("[clients.{id}]\nvalid_from = 2100-01-01T00:00:00Z\n"));
    harness.overwrite_config(&revoked);
    wait_until("the token is revoked", || client.rest("GET", "/get_tools", "").status() == 401);
}

#[test]
fn nothing_that_rest_wrote_is_expanded() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&clients());
    let body = |value: &str| json!({ "url": upstream.url(), "name": "s", "headers": { "X-Key": value } });
    let (status, detail) = harness.client(ALICE).refused("/register_mcp_server", &body("${env:PATH}"));
    assert!(status == 422 && detail.contains("expected a value without `${`"), "{detail}");
    harness.client(ALICE).done("/register_mcp_server", &body("plain"));
    // Even if it gets into the file by hand: the mark decides.
    harness.overwrite_config(&harness.config().replace("\"plain\"", "\"${env:PATH}\""));
    harness.client(ALICE).done("/update_access_control", &grant("bob", json!({ "s": "*" })));
    wait_until("the header is sent as it stands", || {
        upstream.state().of("tools/list").iter().any(|request| request.header("x-key") == Some("${env:PATH}"))
    });
}

#[test]
fn rights_given_in_advance_cannot_be_claimed() {
    let harness = Harness::start(&open(&format!("{}[allow.ahead]\nbob = [\"*\"]\n", clients())));
    let (id, mut stranger) = register(&harness);
    let body = json!({ "url": "http://example.com/", "name": "ahead" });
    let taken = "The name 'ahead' is taken: it occurs in [mcp_servers] or [allow]; choose another, or none";
    assert_eq!(stranger.refused("/register_mcp_server", &body), (409, taken.to_owned()));
    let answer = harness.client("").rest("POST", "/register_client", r#"{"client_id":"bob"}"#);
    assert_eq!((answer.status(), answer.body.as_str()), (422, r#"{"detail":"unknown member `client_id`"}"#));
    assert_eq!(id.len(), 36);
}

#[test]
fn names_of_a_strangers_tools_never_win_over_the_operators() {
    let (ours, theirs) =
        (Plan::new("ours").tools(&["same"]).start(), Plan::new("theirs").tools(&["same", "own"]).start());
    let harness = Harness::start(&open(&(clients() + &server("z", "alice", &ours, "") + "[allow.z]\nbob = [\"*\"]\n")));
    let (_, mut stranger) = register(&harness);
    stranger.done("/register_mcp_server", &json!({ "url": theirs.url(), "name": "a" }));
    stranger.done("/update_access_control", &grant("bob", json!({ "a": ["*"] })));
    let mut bob = harness.client(BOB);
    assert_eq!(bob.tools(), ["same", "own"]);
    assert_eq!(bob.text("same"), "ours:same");
    let explained = bob.get("/explain?tool=same");
    assert_eq!((explained["verdict"].as_str(), explained["server"].as_str()), (Some("yes"), Some("z")));
    let hidden = explained["candidates"].as_array().unwrap().iter().find(|c| c["server"] == "a").unwrap();
    assert_eq!(hidden["rule"], "hidden: server `z` comes first and has a tool of the same name");
}

#[test]
fn only_owners_admins_and_oneself_are_told_why() {
    let upstream = Plan::new("a").tools(&["one", "two"]).start();
    let config = with_admin()
        + &server("s", "bob", &upstream, "")
        + "[allow.s]\ncharlie = { tools = [\"*\"], deny = [\"two\"] }\n";
    let harness = Harness::start(&config);
    let (mut admin, mut owner, mut charlie) = (harness.client(ALICE), harness.client(BOB), harness.client(CHARLIE));
    assert_eq!(charlie.tools(), ["one"]);
    let line = harness.config().lines().position(|line| line.starts_with("charlie = {")).unwrap() + 1;
    let explained = charlie.get("/explain?tool=two");
    let rule = format!("denied by pattern `two` for `charlie` at {line}:36");
    let place = json!({ "line": line, "column": 36 });
    let candidate =
        json!({ "server": "s", "tool": "two", "verdict": "no", "rule": rule, "place": place, "state": "ok" });
    let expected = json!({
        "client": "charlie", "tool": "two", "server": null, "verdict": "no", "rule": rule, "place": place, "candidates": [candidate]
    });
    assert_eq!(explained, expected);
    assert_eq!(owner.get("/explain?client=charlie&server=s&tool=two"), expected);
    assert_eq!(admin.get("/explain?client=charlie&tool=two"), expected);
    for path in ["/explain?client=charlie&tool=two", "/explain?client=charlie&server=t&tool=two"] {
        assert_eq!(owner.rest("GET", path, "").status(), 403, "{path}");
    }
    // Alice may use nothing there; as an admin she is told of it, and others in her place are not.
    assert_eq!(
        admin.get("/explain?tool=one")["candidates"][0]["rule"],
        "nothing on this server is granted to the client"
    );
    assert_eq!(charlie.get("/explain?tool=none")["rule"], "no server in sight has such a tool");
    assert_eq!(charlie.rest("GET", "/explain", "").status(), 422);
    assert_eq!(charlie.rest("GET", "/explain?tool=a&tool=b", "").status(), 422);
    assert_eq!(charlie.rest("GET", "/explain?tool=%zz", "").status(), 422);
    assert_eq!(charlie.rest("GET", "/explain?tool=a&why=b", "").status(), 422);
}

#[test]
fn admins_see_everything_but_secrets() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(
        &(with_admin()
            + &server("s", "bob", &upstream, "tool_prefix = \"p_\"")
            + "[allow.gone]\nbob = [\"x\"]\n[allow.s]\n\"*\" = [\"e*\"]\n"),
    );
    let (id, mut client) = register(&harness);
    let mut admin = harness.client(ALICE);
    assert_eq!(client.tools(), ["p_echo"]);
    let status = admin.get("/status");
    assert_eq!(
        (&status["clients"], &status["servers"], &status["config"]["in_force"]),
        (&json!(4), &json!(1), &json!(true))
    );
    assert_eq!(status["limits"]["max_calls_per_client"], 128);
    let spoken = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
    assert_eq!(status["protocol_versions"], json!(spoken));
    assert_eq!(status["config"]["problems"][0]["path"], "allow.gone");
    let clients = admin.get("/clients");
    assert_eq!(clients["clients"][0]["admin"], true);
    assert!(
        clients["clients"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["client_id"] == id.as_str() && c["registered"].is_string())
    );
    let servers = admin.get("/servers");
    let s = &servers["servers"][0];
    assert_eq!((&s["headers"], &s["state"], &s["tools"]), (&json!(["Authorization"]), &json!("ok"), &json!(1)));
    assert_eq!(s["grants"], json!({ "*": { "tools": ["e*"], "deny": [], "prompts": [], "resources": [] } }));
    fs::write(harness.config_path(), "[clients").unwrap();
    wait_until("the bad file is told", || admin.get("/status")["config"]["in_force"] == false);
    assert_eq!(admin.get("/status")["config"]["problems"][0]["line"], 1);
    for path in ["/status", "/clients", "/servers"] {
        assert_eq!(client.rest("GET", path, "").status(), 403);
        assert_eq!(harness.client("").rest("GET", path, "").status(), 401);
    }
}

#[test]
fn registration_is_closed_where_the_operator_says_so() {
    for (gateway, open) in
        [("", true), ("registration = \"closed\"\n", false), ("allowed_hosts = [\"mcp.example.com\"]\n", false)]
    {
        let harness = Harness::start(&format!("{}[gateway]\n{gateway}", clients()));
        assert_eq!(harness.client("").rest("POST", "/register_client", "").status() == 200, open, "{gateway}");
        assert_eq!(harness.config().contains("registered ="), open);
    }
}

#[test]
fn registrations_of_one_address_are_limited() {
    let harness = Harness::start(&format!(
        "{}[gateway]\nmax_registrations_per_minute = 2\ntrusted_proxies = [\"127.0.0.1\"]\n",
        clients()
    ));
    let status = |forwarded: &str| {
        let mut connection = harness.connect();
        connection
            .send(format!("POST /register_client HTTP/1.1\r\nHost: localhost\r\n{forwarded}Content-Length: 0\r\n\r\n"));
        connection.answer()
    };
    assert_eq!([status("").status(), status("").status()], [200, 200]);
    let limited = status("");
    assert_eq!(limited.status(), 429);
    assert!(limited.head.header("retry-after").unwrap().parse::<u64>().unwrap() <= 61);
    assert_eq!(status("X-Forwarded-For: 192.0.2.1\r\n").status(), 200);
}

#[test]
fn more_requests_than_a_client_may_make_are_refused() {
    let (slow, fast) = (Plan::new("a").start(), Plan::new("b").tools(&["fast"]).start());
    let config = owned_by_alice(&[("s", &slow), ("t", &fast)]);
    let harness = Harness::start(&format!("{config}[gateway]\nmax_calls_per_client = 1\n"));
    let gate = slow.wait_at_gate();
    let mut alice = harness.client(ALICE);
    alice.send(call_message("1", "echo", "{}"));
    slow.wait_for("the call", |s| s.of("tools/call").len() == 1);
    let answer = harness.client(ALICE).rest("GET", "/get_tools", "");
    assert_eq!((answer.status(), answer.head.header("retry-after")), (429, Some("1")));
    harness.client(BOB).get("/get_tools");
    gate.open();
    assert!(alice.connection.answer().body.contains("a:echo"));
}

#[test]
fn a_client_that_nobody_uses_is_removed_after_a_day() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&open(&owned_by_alice(&[("s", &upstream)])));
    let ((idle, _), (owner, mut owning)) = (register(&harness), register(&harness));
    owning.done("/register_mcp_server", &json!({ "url": upstream.url() }));
    let collect =
        |hours: u64| harness.block_on(harness.gateway().collect_clients(seconds() + Duration::from_secs(hours * 3600)));
    collect(24);
    assert!(harness.config().contains(&idle), "its token was good until an hour from now");
    // Another gateway on the folder, which has never seen the client, knows of its token all the same.
    let other = harness.second();
    let ends = |hours: u64| seconds() + Duration::from_secs(hours * 3600);
    harness.client(&token(&harness, &idle, 0, 48 * 3600)).tools();
    collect(26);
    other.block_on(other.gateway().collect_clients(ends(26)));
    assert!(harness.config().contains(&idle), "its token is good for two days");
    collect(73);
    assert!(!harness.config().contains(&idle));
    assert!(harness.config().contains(&owner) && harness.config().contains("[clients.alice]"));
}
