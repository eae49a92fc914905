//! The command line, as a process of its own. Design 16; texts of style.md, "Errors".

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::client::closed_port;
use super::support::message::{MODERN, Message};
use super::support::process::{Served, program};
use super::support::upstream::Plan;
use super::support::{ALICE, Folder, call_message, clients, owned_by_alice, wait_until};

/// Runs the program to its end: exit code, stdout, stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn help_and_version_are_printed() {
    for arguments in [&["--help"][..], &["-h"], &["serve", "--help"], &["check", "--help"]] {
        let (code, stdout, stderr) = run(&mut program(arguments));
        assert_eq!((code, stderr.as_str()), (0, ""));
        for word in ["Usage:", "--config", "--listen", "MCP_X_CONFIG", "Exit codes:"] {
            assert!(stdout.contains(word), "{word:?} is not in {stdout}");
        }
    }
    let version = format!("mcp-x {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&mut program(&["--version"])), (0, version, String::new()));
}

#[test]
fn wrong_usage_ends_with_2_and_a_hint() {
    for (arguments, expected) in [
        (&["--prot", "1"][..], "mcp-x: unknown option `--prot`\nhint: did you mean `--port`?\n"),
        (&["sevre"], "mcp-x: unknown command `sevre`\nhint: did you mean `serve`?\n"),
        (&["--config"], "mcp-x: expected a value after `--config`\n"),
        (&["--port", "high"], "mcp-x: `--port`: expected a number up to 65535, found `high`\n"),
    ] {
        assert_eq!(run(&mut program(arguments)), (2, String::new(), expected.to_owned()));
    }
}

#[test]
fn a_missing_configuration_ends_with_1_and_a_hint() {
    let folder = Folder::new();
    for command in ["serve", "check"] {
        let (code, stdout, stderr) = run(program(&[command]).current_dir(folder.path()));
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.starts_with("mcp-x: cannot read config.toml: no such file"), "{stderr}");
        assert!(stderr.contains("\nhint: "), "{stderr}");
        assert!(!folder.path().join("jwt_secret").exists());
    }
}

const BROKEN: &str = "[clients.alice]\nauth_token = 7\n[mcp_servers.a]\nurl = \"ftp://x\"\nfrom_client = \"alice\"\n[allow.a]\nalice = 9\n";
const PLACES: [&str; 3] = ["config.toml:2", "config.toml:4", "config.toml:7"];

#[test]
fn a_broken_configuration_ends_with_1_and_every_problem() {
    let folder = Folder::new();
    fs::write(folder.config(), BROKEN).unwrap();
    let (code, stdout, stderr) = run(program(&["serve", "--port", "0"]).current_dir(folder.path()));
    assert_eq!((code, stdout.as_str()), (1, ""));
    for place in PLACES.iter().chain(&["clients.alice.auth_token", "mcp_servers.a.url", "allow.a.alice", "3 problems"])
    {
        assert!(stderr.contains(place), "{place:?} is not in {stderr}");
    }
    let (code, stdout, stderr) = run(program(&["check"]).current_dir(folder.path()));
    assert_eq!(code, 1);
    for place in PLACES {
        assert!(stdout.contains(&format!("error: {place}")), "{place:?} is not in {stdout}");
    }
    assert_eq!(stderr, "mcp-x: config.toml: 3 problems\n");
}

#[test]
fn a_good_configuration_is_called_fine() {
    let folder = Folder::new();
    let upstream = Plan::new("a").start();
    fs::write(folder.config(), owned_by_alice(&[("server_a", &upstream)])).unwrap();
    let path = folder.config().display().to_string();
    let fine = format!("{path}: fine (3 clients, 1 servers)\n");
    assert_eq!(run(&mut program(&["check", "--config", &path])), (0, fine.clone(), String::new()));
    assert_eq!(run(program(&["check"]).env("MCP_X_CONFIG", &path)), (0, fine, String::new()));
    assert_eq!(upstream.state().connections, 0, "checking asks no server");
}

#[test]
fn a_warning_is_no_error() {
    let folder = Folder::new();
    fs::write(folder.config(), "[clients.alice]\n").unwrap();
    let (code, stdout, stderr) = run(program(&["check"]).current_dir(folder.path()));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("warning: config.toml:1") && stdout.contains("fine"), "{stdout}");
}

#[test]
fn a_taken_port_ends_with_1_and_a_hint() {
    let folder = Folder::new();
    fs::write(folder.config(), clients()).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(program(&["--listen", &address, "--log", "error"]).current_dir(folder.path()));
    let expected =
        format!("mcp-x: cannot listen on {address}: address already in use\nhint: choose another with --port\n");
    assert_eq!((code, stderr), (1, expected));
}

#[test]
fn a_state_folder_that_cannot_be_used_ends_with_1_and_a_hint() {
    let folder = Folder::new();
    fs::write(folder.config(), clients()).unwrap();
    // Root may read and write everything, so the obstacles are of another kind.
    fs::write(folder.path().join("file"), "").unwrap();
    fs::create_dir_all(folder.path().join("odd/jwt_secret")).unwrap();
    for (state, expected) in [
        ("file", "cannot read file/jwt_secret: not a directory"),
        ("file/state", "cannot read file/state/jwt_secret: not a directory"),
        ("odd", "cannot read odd/jwt_secret: is a directory"),
    ] {
        let arguments = ["serve", "--port", "0", "--state-dir", state, "--log", "error"];
        let (code, _, stderr) = run(program(&arguments).current_dir(folder.path()));
        let hint = "name a folder that the gateway may read and write with --state-dir";
        assert_eq!((code, stderr), (1, format!("mcp-x: {expected}\nhint: {hint}\n")));
    }
}

#[test]
fn the_supervisor_hears_when_the_gateway_is_ready_and_when_it_stops() {
    let folder = Folder::new();
    fs::write(folder.config(), clients()).unwrap();
    let path = folder.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let told = || {
        let mut told = [0; 64];
        let length = supervisor.recv(&mut told).unwrap();
        String::from_utf8(told[..length].to_vec()).unwrap()
    };
    let mut served = Served::start_in(&folder, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(told(), "READY=1");
    assert!(served.client().tools().is_empty());
    served.signal("TERM");
    assert_eq!((told().as_str(), served.end().0.code()), ("STOPPING=1", Some(0)));
}

#[test]
fn a_supervisor_that_is_gone_is_worth_a_warning() {
    let folder = Folder::new();
    fs::write(folder.config(), clients()).unwrap();
    let mut served = Served::start_in(&folder, &[("NOTIFY_SOCKET", "/nowhere/notify")]);
    assert!(served.client().tools().is_empty());
    served.signal("TERM");
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("WARN cannot tell the supervisor state=\"READY=1\" socket=/nowhere/notify"), "{log}");
}

#[test]
fn sighup_reads_the_configuration_again_with_the_files_that_it_names() {
    let folder = Folder::new();
    fs::write(folder.path().join("token"), "first-token").unwrap();
    fs::write(folder.config(), "[clients.alice]\nauth_token_file = \"token\"\n").unwrap();
    let mut served = Served::start(&folder);
    assert!(served.client_of("first-token").tools().is_empty());
    fs::write(folder.path().join("token"), "second-token").unwrap();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let status = |token: &str| served.client_of(token).post(ping).status();
    assert_eq!((status("first-token"), status("second-token")), (200, 401));
    served.signal("HUP");
    wait_until("the new token is good", || status("second-token") == 200);
    assert_eq!(status("first-token"), 401);
    served.signal("TERM");
    assert_eq!(served.end().0.code(), Some(0));
}

#[test]
fn connect_prints_what_to_paste_and_says_where() {
    let folder = Folder::new();
    fs::write(folder.config(), clients()).unwrap();
    let (code, stdout, stderr) =
        run(program(&["connect", "--client", "alice", "--for", "cursor"]).current_dir(folder.path()));
    assert_eq!(code, 0);
    let pasted: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(pasted["mcpServers"]["mcp-x"]["url"], "http://127.0.0.1:9000/mcp");
    assert!(stderr.contains(".cursor/mcp.json") && stderr.contains("--client alice --for 7d"), "{stderr}");
    assert!(!stdout.contains(ALICE) && !stderr.contains(ALICE), "no token is shown");
    let arguments = ["connect", "--client", "alise", "--for", "curl"];
    let (code, stdout, stderr) = run(program(&arguments).current_dir(folder.path()));
    let expected = "mcp-x: no such client `alise` in [clients]\nhint: did you mean `alice`?\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (1, "", expected));
}

#[test]
fn sigterm_answers_what_is_in_flight_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let (folder, upstream) = (Folder::new(), Plan::new("a").start());
        fs::write(folder.config(), owned_by_alice(&[("server_a", &upstream)])).unwrap();
        let gate = upstream.wait_at_gate();
        let mut served = Served::start(&folder);
        let mut idle = served.client();
        assert_eq!(idle.tools(), ["echo"]);
        let mut alice = served.client();
        alice.send(call_message("1", "echo", "{}"));
        upstream.wait_for("the call", |s| s.of("tools/call").len() == 1);
        served.signal(signal);
        wait_until("nobody is let in any more", || std::net::TcpStream::connect(served.address).is_err());
        assert!(idle.connection.is_closed(), "an idle connection is not waited for");
        gate.open();
        assert!(alice.connection.answer().body.contains("a:echo"), "{signal}");
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{signal}: {log}");
        assert!(log.contains("stopping") && log.contains("stopped"), "{log}");
    }
}

#[test]
fn streams_that_are_open_when_the_drain_is_over_end_with_an_error_in_both_eras() {
    let (folder, upstream) = (Folder::new(), Plan::new("a").start());
    let settings = "[gateway]\ndrain_seconds = 2\nkeep_alive_seconds = 1\n";
    fs::write(folder.config(), owned_by_alice(&[("server_a", &upstream)]) + settings).unwrap();
    let _shut = upstream.wait_at_gate();
    let mut served = Served::start(&folder);
    let mut clients = ["2025-11-25", MODERN].map(|revision| (served.client().speaking(revision), revision));
    let heads: Vec<_> = clients
        .iter_mut()
        .map(|(client, revision)| {
            client.send_message(&Message::call(revision, "echo", "{}").id("7"));
            client.connection.head()
        })
        .collect();
    let begun = Instant::now();
    served.signal("TERM");
    for ((client, revision), head) in clients.iter_mut().zip(heads) {
        assert!(head.is_stream(), "{revision}: {head:?}");
        let response = client.connection.rest_of(head).response();
        let told = "the gateway is stopping; the call may have been executed";
        let expected = json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32603, "message": told}});
        assert_eq!(response, expected, "{revision}");
        assert!(client.connection.is_closed(), "{revision}");
    }
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(10), "the drain has an end");
}

#[test]
fn a_session_survives_kill_9() {
    let (folder, upstream) = (Folder::new(), Plan::new("a").start());
    fs::write(folder.config(), owned_by_alice(&[("server_a", &upstream)])).unwrap();
    let served = Served::start(&folder);
    let session = served.client().initialize("2025-06-18");
    served.signal("KILL");
    drop(served);
    let served = Served::start(&folder);
    let mut alice = served.client();
    alice.session = Some(session);
    assert_eq!(alice.text("echo"), "a:echo");
}

#[test]
fn the_secret_is_private_and_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    fs::write(folder.config(), clients()).unwrap();
    drop(Served::start(&folder));
    let path = folder.path().join("jwt_secret");
    let secret = fs::read(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(Served::start(&folder));
    assert_eq!(fs::read(&path).unwrap(), secret);
}

#[test]
fn a_signed_token_is_good_for_any_client_of_the_file_until_it_expires() {
    let folder = Folder::new();
    fs::write(folder.config(), clients()).unwrap();
    let token = |arguments: &[&str]| run(program(&["token"]).args(arguments).current_dir(folder.path()));
    let (code, good, stderr) = token(&["--client", "bob", "--for", "15m"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let (_, short, _) = token(&["--client", "alice", "--for", "1s"]);
    let served = Served::start(&folder);
    let status = |token: &str| served.client_of(token.trim_end()).rest("GET", "/get_tools", "").status();
    assert_eq!(status(&good), 200);
    assert_eq!(status(&format!("{}x", good.trim_end())), 401);
    wait_until("the short one has expired", || status(&short) == 401);
    let (code, _, stderr) = token(&["--client", "bobb"]);
    assert_eq!((code, stderr.as_str()), (1, "mcp-x: no such client `bobb` in [clients]\nhint: did you mean `bob`?\n"));
}

#[test]
fn explain_says_the_same_on_the_command_line_as_over_rest() {
    let (folder, upstream) = (Folder::new(), Plan::new("a").tools(&["one", "two"]).start());
    let down = format!("[mcp_servers.down]\nurl = \"http://{}/\"\nfrom_client = \"alice\"\n", closed_port());
    let grants = "[allow.s]\nbob = [\"one\"]\n[allow.down]\nbob = [\"three\"]\n";
    fs::write(folder.config(), owned_by_alice(&[("s", &upstream)]) + &down + grants).unwrap();
    let explain = |arguments: &[&str]| run(program(&["explain"]).args(arguments).current_dir(folder.path()));
    let (code, yes, stderr) = explain(&["--client", "bob", "--tool", "one"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let served = Served::start(&folder);
    let told = |client: &str, tool: &str| {
        let path = format!("/explain?client={client}&tool={tool}&server=s");
        served.client().get(&path)["rule"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        yes,
        format!("yes: bob may call `one` of server s: {}\n  s: yes: {0} (server ok)\n", told("bob", "one"))
    );
    let (_, no, _) = explain(&["--client", "bob", "--tool", "two", "--server", "s"]);
    assert_eq!(no, format!("no: bob may not call `two`: {}\n  s: no: {0} (server ok)\n", told("bob", "two")));
    let unknown = "the server has not answered yet, so its tools are not known";
    let (_, down, _) = explain(&["--client", "bob", "--tool", "three"]);
    assert_eq!(down, format!("no: bob may not call `three`: {unknown}\n  down: no: {unknown}\n"));
    assert_eq!(explain(&["--client", "bob", "--tool", "one", "--server", "t"]).0, 1);
    assert_eq!(explain(&["--client", "bob"]).0, 2);
}

#[test]
fn diff_says_who_gains_and_who_loses() {
    let (folder, upstream) = (Folder::new(), Plan::new("a").tools(&["one", "two"]).start());
    let config = owned_by_alice(&[("s", &upstream)]);
    fs::write(folder.config(), format!("{config}[allow.s]\nbob = [\"one\"]\n")).unwrap();
    let new = folder.path().join("new.toml");
    fs::write(&new, format!("{config}[allow.s]\nbob = [\"two\"]\ncharlie = [\"*\"]\n")).unwrap();
    let diff = |to: &str| run(program(&["diff", "--config", to]).current_dir(folder.path()));
    let expected = "bob loses one (s)\nbob gains two (s)\ncharlie gains one (s)\ncharlie gains two (s)\n";
    assert_eq!(diff("new.toml"), (0, expected.to_owned(), String::new()));
    assert_eq!(diff("config.toml"), (0, "no client gains or loses a tool\n".to_owned(), String::new()));
    fs::write(&new, "[clients").unwrap();
    let (code, stdout, stderr) = diff("new.toml");
    assert!(
        code == 1 && stdout.starts_with("error: new.toml:1") && stderr == "mcp-x: new.toml: 1 problem\n",
        "{stdout}{stderr}"
    );
}

#[test]
fn a_change_that_is_being_made_survives_sigterm() {
    let folder = Folder::new();
    fs::write(folder.config(), clients()).unwrap();
    let mut served = Served::start(&folder);
    let id = served.client_of("").done("/register_client", &json!({}))["client_id"].as_str().unwrap().to_owned();
    served.signal("TERM");
    assert_eq!(served.end().0.code(), Some(0));
    assert!(fs::read_to_string(folder.config()).unwrap().contains(&id));
}
