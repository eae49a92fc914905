//! What a server offered outlives the gateway, so that after a restart a server that is down still holds its names.
//! Design 10.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mcp_x::policy::{ServerId, ServerKey};
use mcp_x_fixture::{Fixture, Mode, Options};

use super::support::process::{Served, program};
use super::support::upstream::{Plan, Upstream};
use super::support::{ALICE, Folder, Harness, UNREACHABLE, clients, owned_by_alice, server, wait_until};

/// The file of a server's catalogue in a state folder.
fn file_of(state: &Path, server: &str) -> PathBuf {
    let key = ServerKey::of(&ServerId::new(server));
    let name: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    state.join("catalogues").join(name)
}

/// Waits until the catalogue of a server that is kept has this in it.
#[track_caller]
fn wait_for_file(state: &Path, server: &str, text: &str) {
    let path = file_of(state, server);
    wait_until("the catalogue is kept", || fs::read_to_string(&path).is_ok_and(|kept| kept.contains(text)));
}

/// A gateway in front of one server, `a`, of alice's, whose catalogue is kept.
fn one() -> (Upstream, Harness, PathBuf) {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
    let state = harness.config_path().parent().unwrap().to_owned();
    wait_for_file(&state, "a", "\"echo\"");
    (upstream, harness, state)
}

#[test]
fn after_kill_9_a_server_that_is_down_still_holds_its_names() {
    let first = Plan::new("first").tools(&["echo", "own"]).start();
    let second = Plan::new("second").tools(&["echo", "other"]).start();
    let folder = Folder::new();
    fs::write(folder.config(), owned_by_alice(&[("first", &first), ("second", &second)])).unwrap();
    let mut served = Served::start(&folder);
    assert_eq!(served.client().tools(), ["echo", "own", "other"]);
    wait_for_file(folder.path(), "first", "\"own\"");
    wait_for_file(folder.path(), "second", "\"other\"");
    served.signal("KILL");
    served.end();
    first.stop();
    let served = Served::start(&folder);
    let mut alice = served.client();
    for _ in 0..3 {
        assert_eq!(alice.tools(), ["echo", "own", "other"]);
        assert_eq!(alice.error("echo"), (-32603, UNREACHABLE.to_owned()));
    }
    assert_eq!(alice.text("other"), "second:other");
    assert_eq!(second.calls().len(), 1, "a call went to whom it was not for");
    assert_eq!(alice.get("/get_tools")["servers"][0]["state"], "stale");
    first.start_again();
    wait_until("the first is back", || alice.call("echo").get("result").is_some());
    assert_eq!(first.calls().len(), 1);
}

#[test]
fn nobody_waits_for_a_server_that_was_known_before_the_restart() {
    let (upstream, mut harness, _) = one();
    upstream.on_request(|exchange| exchange.hang());
    harness.restart();
    let mut alice = harness.client(ALICE);
    let begun = Instant::now();
    assert_eq!(alice.tools(), ["echo"]);
    assert!(begun.elapsed() < Duration::from_secs(3), "the list took {:?}", begun.elapsed());
    assert_eq!(alice.get("/get_tools")["tools"][0]["state"], "stale");
    upstream.as_planned();
    wait_until("it is well again", || alice.get("/get_tools")["tools"][0]["state"] == "ok");
}

#[test]
fn every_change_is_kept_and_an_unchanged_catalogue_is_not_written_again() {
    let (upstream, mut harness, state) = one();
    let path = file_of(&state, "a");
    let written = || fs::metadata(&path).unwrap().modified().unwrap();
    let before = written();
    harness.restart();
    let mut alice = harness.client(ALICE);
    wait_until("it was asked again", || alice.get("/get_tools")["tools"][0]["state"] == "ok");
    assert_eq!(written(), before);
    upstream.on_request(|exchange| match exchange.request.rpc().as_str() {
        "tools/list" => exchange.result(r#"{"tools":[{"name":"changed"}]}"#),
        _ => exchange.normally(),
    });
    harness.restart();
    wait_until("the new list", || harness.client(ALICE).tools() == ["changed"]);
    wait_for_file(&state, "a", "\"changed\"");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    upstream.stop();
    harness.restart();
    assert_eq!(harness.client(ALICE).tools(), ["changed"]);
}

/// How long a list will do is not a part of it.
#[test]
fn an_unchanged_catalogue_of_a_modern_server_is_not_written_again() {
    let fixture = Fixture::start(Options::of(Mode::Modern));
    let config = clients() + &server("a", "alice", &fixture, "") + "\n[gateway]\nrefresh_seconds = 1\n";
    let mut harness = Harness::start(&config);
    let state = harness.config_path().parent().unwrap().to_owned();
    wait_for_file(&state, "a", "\"echo\"");
    let written = || fs::metadata(file_of(&state, "a")).unwrap().modified().unwrap();
    let before = written();
    harness.restart();
    let asked = fixture.counts().requests_of("tools/list");
    // What differs is written before the server is asked once more.
    wait_until("it was asked again and again", || fixture.counts().requests_of("tools/list") >= asked + 3);
    assert_eq!(written(), before);
}

/// A server that has no tools is known to have none.
#[test]
fn an_empty_catalogue_is_kept_too() {
    let upstream = Plan::new("a").tools(&[""; 0]).start();
    let mut harness = Harness::start(&owned_by_alice(&[("a", &upstream)]));
    let state = harness.config_path().parent().unwrap().to_owned();
    wait_for_file(&state, "a", "\"tools\":[]");
    upstream.on_request(|exchange| exchange.hang());
    harness.restart();
    let begun = Instant::now();
    assert_eq!(harness.client(ALICE).tools(), [""; 0]);
    assert!(begun.elapsed() < Duration::from_secs(3), "the list took {:?}", begun.elapsed());
}

#[test]
fn a_catalogue_that_does_not_fit_is_ignored_with_the_reason() {
    let (upstream, mut harness, state) = one();
    upstream.stop();
    let path = file_of(&state, "a");
    let good = fs::read_to_string(&path).unwrap();
    let half = good.len() / 2;
    let rows = [
        (good.split_at(half).0.to_owned(), "damaged: expected JSON"),
        (String::new(), "damaged: expected JSON"),
        (good.replace("\"format\":1", "\"format\":2"), "expected format 1"),
        (good.clone() + &" ".repeat(20 << 20), "larger than"),
    ];
    for (at, (text, reason)) in rows.into_iter().enumerate() {
        fs::write(&path, text).unwrap();
        harness.restart();
        assert_eq!(harness.client(ALICE).tools(), [""; 0], "{reason}");
        let log = harness.log();
        let ignored: Vec<&str> = log.lines().filter(|line| line.contains("WARN kept catalogue ignored")).collect();
        assert_eq!(ignored.len(), at + 1, "{log}");
        assert!(ignored[at].contains("server=a ") && ignored[at].contains(reason), "{}", ignored[at]);
    }
    fs::write(&path, good).unwrap();
    harness.restart();
    assert_eq!(harness.client(ALICE).tools(), ["echo"]);
}

/// A name that changed hands while the gateway was away must not bring the old owner's tools along.
#[test]
fn the_catalogue_of_another_url_or_owner_is_not_used() {
    let (upstream, mut harness, _) = one();
    let elsewhere = Plan::new("elsewhere").start();
    elsewhere.stop();
    harness.overwrite_config(&owned_by_alice(&[("a", &elsewhere)]));
    harness.restart();
    assert_eq!(harness.client(ALICE).tools(), [""; 0]);
    harness.wait_for_log("DEBUG kept catalogue ignored server=a reason=\"it is of another URL or owner\"");
    upstream.stop();
    let grant = "[allow.a]\nalice = [\"*\"]\n";
    harness.overwrite_config(&(clients() + &server("a", "bob", &upstream, "") + grant));
    harness.restart();
    assert_eq!(harness.client(ALICE).tools(), [""; 0]);
}

#[test]
fn the_catalogue_goes_with_its_server() {
    let (upstream, mut harness, state) = one();
    let another = Plan::new("b").tools(&["other"]).start();
    harness.replace_config(&owned_by_alice(&[("a", &upstream), ("b", &another)]));
    wait_for_file(&state, "b", "\"other\"");
    harness.replace_config(&owned_by_alice(&[("b", &another)]));
    wait_until("the file is removed", || !file_of(&state, "a").exists());
    assert!(file_of(&state, "b").exists());
    // One that went while no gateway was there to see it.
    fs::copy(file_of(&state, "b"), file_of(&state, "a")).unwrap();
    harness.restart();
    assert!(!file_of(&state, "a").exists() && file_of(&state, "b").exists());
}

#[test]
fn what_is_known_stays_on_the_disk_when_only_the_way_to_a_server_changes() {
    let (upstream, mut harness, state) = one();
    harness.replace_config(&(clients() + &server("a", "alice", &upstream, "tool_prefix = \"p_\"")));
    let mut alice = harness.client(ALICE);
    wait_until("the prefix", || alice.tools() == ["p_echo"]);
    assert!(file_of(&state, "a").exists());
    upstream.stop();
    harness.restart();
    assert_eq!(harness.client(ALICE).tools(), ["p_echo"]);
}

#[test]
fn a_state_folder_that_takes_no_catalogue_costs_a_record_and_nothing_else() {
    let upstream = Plan::new("a").start();
    let harness = Harness::start(&clients());
    fs::write(harness.config_path().with_file_name("catalogues"), "in the way").unwrap();
    harness.replace_config(&owned_by_alice(&[("a", &upstream)]));
    harness.wait_for_log("WARN catalogue not kept server=a reason=\"cannot write ");
    assert_eq!(harness.client(ALICE).text("echo"), "a:echo");
}

#[test]
fn the_commands_that_only_ask_neither_use_nor_keep_a_catalogue() {
    let (upstream, harness, state) = one();
    let fresh = Folder::new();
    fs::copy(harness.config_path(), fresh.config()).unwrap();
    let run = |folder: &Path| {
        let config = folder.join("config.toml").display().to_string();
        for arguments in [
            &["explain", "--config", &config, "--client", "alice", "--tool", "echo"][..],
            &["diff", "--config", &config, "--from", &config],
        ] {
            assert!(program(arguments).current_dir(folder).output().unwrap().status.success(), "{arguments:?}");
        }
    };
    run(fresh.path());
    assert!(!fresh.path().join("catalogues").exists());
    upstream.stop();
    let config = harness.config_path().display().to_string();
    let explained = program(&["explain", "--config", &config, "--client", "alice", "--tool", "echo"]).output().unwrap();
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(text.starts_with("no: ") && text.contains("has not answered yet"), "{text}");
    assert!(file_of(&state, "a").exists());
}
