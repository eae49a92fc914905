//! `https://` servers behind the whole gateway, run as a process of its own because it learns from its environment whose
//! certificates count. Design 6, 9, 14.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mcp_x_fixture::{Fixture, Mode, Options};
use serde_json::Value;

use super::support::client::Client;
use super::support::process::Served;
use super::support::tls::{CA, EXPIRED, GOOD, STRANGER, Tls};
use super::support::{ALICE, BOB, Folder, call_message, wait_until, with_admin};

/// What the server has to be sent: one value from the environment, one from a file.
const FROM_ENVIRONMENT: &str = "environment-secret-5d1c";
const FROM_FILE: &str = "file-secret-9e40";

/// A configuration, and the environment in which it is loaded.
struct Place {
    folder: Folder,
    roots: PathBuf,
}

impl Place {
    /// Alice, who is an admin, owns these servers, and bob may use all of each. The certificates of `root` count.
    fn new(root: &[u8], servers: &[(&str, String)]) -> Self {
        let folder = Folder::new();
        let (roots, key) = (folder.path().join("roots.pem"), folder.path().join("key"));
        fs::write(&roots, pem(root)).unwrap();
        fs::write(&key, format!("{FROM_FILE}\n")).unwrap();
        let headers = format!(
            r#"{{ Authorization = "Bearer ${{env:TEST_CREDENTIAL}}", X-Key = "${{file:{}}}" }}"#,
            key.display()
        );
        let mut config = with_admin();
        for (name, url) in servers {
            config += &format!("[mcp_servers.{name}]\nurl = \"{url}\"\nfrom_client = \"alice\"\nheaders = {headers}\n");
            config += &format!("[allow.{name}]\nbob = [\"*\"]\n");
        }
        fs::write(folder.config(), config).unwrap();
        Self { folder, roots }
    }

    fn serve(&self) -> Served {
        let roots = self.roots.to_str().unwrap();
        Served::start_in(&self.folder, &[("SSL_CERT_FILE", roots), ("TEST_CREDENTIAL", FROM_ENVIRONMENT)])
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

fn https(host: &str, tls: &Tls) -> String {
    format!("https://{host}:{}/mcp", tls.port())
}

/// Waits until the server has been asked for its tools; what the client is told of it.
#[track_caller]
fn told(client: &mut Client, server: &str) -> Value {
    let mut found = Value::Null;
    wait_until("the server was asked", || {
        found = client.told_of(server);
        found["state"] != "starting"
    });
    found
}

#[test]
fn an_https_server_of_a_private_authority_is_used_and_sees_the_configured_headers() {
    for mode in [Mode::LegacySessions, Mode::LegacyStateless, Mode::Modern] {
        let fixture = Fixture::start(Options::of(mode));
        let tls = Tls::in_front_of(fixture.address(), GOOD);
        let place = Place::new(CA, &[("s", https("localhost", &tls))]);
        let mut served = place.serve();
        for token in [ALICE, BOB] {
            let mut client = served.client_of(token);
            assert_eq!(client.tools().first().map(String::as_str), Some("test_simple_text"), "{mode:?}");
            assert_eq!(client.text("test_simple_text"), "This is a simple text response for testing.");
            let mut call = call_message("2", "test_tool_with_progress", "{}");
            call.insert_str(call.len() - 2, r#","_meta":{"progressToken":"p"}"#);
            let messages = client.post(call).events();
            assert!(messages.len() > 1 && messages[0].contains(r#""progressToken":"p""#), "{messages:?}");
        }
        let received = fixture.received();
        assert!(!received.is_empty());
        for request in received {
            assert_eq!(request.header("authorization"), Some(format!("Bearer {FROM_ENVIRONMENT}").as_str()));
            assert_eq!(request.header("x-key"), Some(FROM_FILE));
        }
        check_nothing_is_shown(&mut served);
    }
}

/// Asks for everything that an admin can, and reads the log to its end.
#[track_caller]
fn check_nothing_is_shown(served: &mut Served) {
    let mut shown = String::new();
    let mut alice = served.client_of(ALICE);
    for path in
        ["/get_tools", "/get_access_control", "/explain?tool=test_simple_text", "/status", "/clients", "/servers"]
    {
        shown += &alice.get(path).to_string();
    }
    shown += &alice.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).body;
    served.signal("TERM");
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    shown += &log;
    for secret in [FROM_ENVIRONMENT, FROM_FILE, ALICE, BOB] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}

#[test]
fn a_certificate_that_is_not_good_is_refused_and_the_owner_is_told_why() {
    let fixture = Fixture::start(Options::of(Mode::Modern));
    let (good, expired) = (Tls::in_front_of(fixture.address(), GOOD), Tls::in_front_of(fixture.address(), EXPIRED));
    let wrong_name = "no TLS with `127.0.0.1`: certificate is for `localhost`, not for `127.0.0.1`";
    let out_of_date = "no TLS with `localhost`: certificate has expired";
    let unknown = "no TLS with `localhost`: certificate of an unknown authority\n\
                   hint: name a file with the authority's certificate in SSL_CERT_FILE";
    for (root, url, expected) in [
        (CA, https("127.0.0.1", &good), wrong_name),
        (CA, https("localhost", &expired), out_of_date),
        (STRANGER, https("localhost", &good), unknown),
    ] {
        let place = Place::new(root, &[("s", url)]);
        let mut served = place.serve();
        let found = told(&mut served.client_of(ALICE), "s");
        assert_eq!(found["state"], "down", "{found}");
        let error = found["error"].as_str().unwrap();
        assert_eq!(error, expected);
        // Somebody else's server is down, and why is none of one's business.
        let found = told(&mut served.client_of(BOB), "s");
        assert_eq!((&found["state"], found.get("error")), (&"down".into(), None), "{found}");
        assert_eq!(served.client_of(ALICE).tools(), [""; 0]);
        served.signal("TERM");
        let log = served.end().1;
        let reason = expected.split('\n').next().unwrap();
        let line = log.lines().find(|line| line.contains(" WARN server failed")).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("server=s") && line.contains(reason), "expected {reason:?}, found {line:?}");
    }
    // Nobody has got as far as to say anything, least of all the headers.
    assert_eq!(fixture.received().len(), 0);
}

#[test]
fn a_certificate_that_expires_under_a_server_fails_its_calls() {
    let fixture = Fixture::start(Options::of(Mode::LegacySessions));
    let mut tls = Tls::in_front_of(fixture.address(), GOOD);
    let place = Place::new(CA, &[("s", https("localhost", &tls))]);
    let mut served = place.serve();
    let mut bob = served.client_of(BOB);
    assert_eq!(bob.text("test_simple_text"), "This is a simple text response for testing.");
    tls.change_certificate(EXPIRED);
    let unreachable = (-32603, "server of tool `test_simple_text` is not reachable".to_owned());
    assert_eq!(bob.error("test_simple_text"), unreachable);
    tls.change_certificate(GOOD);
    wait_until("the server is called again", || bob.call("test_simple_text")["result"].is_object());
    served.signal("TERM");
    assert!(served.end().1.contains("certificate has expired"));
}
