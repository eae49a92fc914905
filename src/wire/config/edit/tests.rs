use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::wire::config::{Config, Severity};

/// Names and texts that have to be quoted and escaped.
const ODD: [&str; 7] = ["plain", "a.b c", "quo\"te'", "ünï 😀", "a]\\b", "${env:X}", "#x = 1"];

/// Every fixture with its name.
fn fixtures() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/edit");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let fixtures: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    assert!(fixtures.len() >= 15, "fixtures are missing");
    fixtures
}

/// What a configuration says, as far as changes can change it: one fact a line.
fn facts(text: &str) -> BTreeSet<String> {
    let config = Config::parse(text);
    let errors: Vec<_> = config.problems().iter().filter(|p| p.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?} in\n{text}");
    let mut facts = BTreeSet::new();
    for client in &config.clients {
        facts.insert(format!("client {:?} {:?} {:?}", client.name.value, client.registered, client.label));
    }
    for server in &config.servers {
        let url = server.endpoint.as_ref().map(ToString::to_string);
        let by = server.registered_by.as_ref().map(|by| &by.value);
        let headers: Vec<&str> = server.headers.iter().map(|header| header.name.as_str()).collect();
        let owner = server.owner.as_ref().map(|owner| &owner.value);
        facts.insert(format!(
            "server {:?} {url:?} {owner:?} {by:?} {headers:?} {:?}",
            server.name.value, server.tool_prefix
        ));
    }
    for (allow, grant) in config.allow.iter().flat_map(|allow| allow.grants.iter().map(move |grant| (allow, grant))) {
        let lists = [("tools", &grant.tools), ("deny", &grant.deny), ("prompts", &grant.prompts)];
        for (kind, list) in lists {
            let texts: Vec<&str> = list.iter().map(|pattern| &*pattern.value).collect();
            if !texts.is_empty() {
                facts.insert(format!("{kind} {:?} {:?} {texts:?}", allow.server.value, grant.client.value));
            }
        }
    }
    facts
}

#[track_caller]
fn applied(text: &str, changes: &[Change]) -> String {
    apply(text, changes).unwrap_or_else(|error| panic!("{error}: {changes:?} in\n{text}"))
}

/// Whether the lines of one text, with their ends, are all in another, in order.
fn keeps(old: &str, new: &str) -> bool {
    let mut lines = new.split_inclusive('\n');
    old.split_inclusive('\n').all(|line| lines.any(|other| other == line || other.trim_end() == line))
}

fn add_client(name: &str) -> Change {
    Change::AddClient {
        name: name.to_owned(),
        registered: Duration::from_secs(1_795_356_131),
        label: Some(name.to_owned()),
    }
}

fn add_server(name: &str) -> Change {
    Change::AddServer {
        name: name.to_owned(),
        url: "http://new:1/mcp?a=\"b\"".replace('"', "%22"),
        owner: "alice".to_owned(),
        headers: vec![("X-Key".to_owned(), name.to_owned()), ("X-Other".to_owned(), "1".to_owned())],
        tool_prefix: Some("p_".to_owned()),
        registered_by: "alice".to_owned(),
    }
}

fn remove_client(name: &str) -> Change {
    Change::RemoveClient { name: name.to_owned() }
}

fn remove_server(name: &str) -> Change {
    Change::RemoveServer { name: name.to_owned() }
}

fn grant(server: &str, client: &str, tools: &[&str]) -> Change {
    let tools = tools.iter().map(|&tool| tool.to_owned()).collect();
    Change::SetTools { server: server.to_owned(), client: client.to_owned(), tools }
}

#[test]
fn without_a_change_every_byte_stays() {
    for (name, text) in fixtures() {
        assert_eq!(applied(&text, &[]), text, "{name}");
        let nothing = [remove_client("nobody"), remove_server("nothing"), grant("nothing", "nobody", &[])];
        assert_eq!(applied(&text, &nothing), text, "{name}");
    }
}

#[test]
fn what_is_added_means_what_was_meant_and_moves_nothing() {
    for (fixture, text) in fixtures() {
        let before = facts(&text);
        for name in ODD {
            let quoted = format!("{name:?}");
            let seconds = "Some(1795356131s)";
            let client = format!("client {quoted} {seconds} Some({quoted})");
            let server = format!(
                "server {quoted} Some(\"http://new:1/mcp?…\") Some(\"alice\") Some(\"alice\") [\"X-Key\", \"X-Other\"] \"p_\""
            );
            let tools = format!("tools {quoted} {quoted} [{quoted}, \"*\"]");
            let rows =
                [(add_client(name), client), (add_server(name), server), (grant(name, name, &[name, "*"]), tools)];
            for (change, fact) in rows {
                let new = applied(&text, std::slice::from_ref(&change));
                let mut expected = before.clone();
                expected.insert(fact);
                assert_eq!(facts(&new), expected, "{fixture}: {change:?}\n{new}");
                let inline = new.lines().count() == text.lines().count();
                assert!(inline || keeps(&text, &new), "{fixture}: {change:?}\n{new}");
            }
        }
    }
}

#[test]
fn what_was_added_goes_without_a_trace() {
    for (fixture, text) in fixtures() {
        for name in ODD {
            let pairs = [
                [add_client(name), remove_client(name)],
                [add_server(name), remove_server(name)],
                [grant("s", "new", &["a"]), grant("s", "new", &[])],
                [grant("s.1", "new", &["a"]), grant("s.1", "new", &[])],
                [grant("server_b", "new", &["a", name]), grant("server_b", "new", &[])],
            ];
            for pair in pairs {
                let is_inline = fixture.starts_with("inline") && matches!(pair[0], Change::SetTools { .. });
                let [there, back] = &pair;
                let new = applied(&text, std::slice::from_ref(there));
                let again = applied(&new, std::slice::from_ref(back));
                // Of `allow = {}` the server's own table stays, empty.
                assert!(
                    again == text || (is_inline && facts(&again) == facts(&text)),
                    "{fixture}: {there:?}\n{new}\n{again}"
                );
                assert_eq!(applied(&text, &pair), again, "{fixture}: at once is not the same as one by one");
            }
        }
    }
}

#[test]
fn what_is_removed_takes_nothing_along() {
    for (fixture, text) in fixtures() {
        let config = Config::parse(&text);
        for client in config.clients.iter().map(|client| &client.name.value) {
            let quoted = format!("{client:?}");
            let gone = |fact: &String| {
                let mut words = fact.split_inclusive(' ');
                let kind = words.next().unwrap_or_default();
                match kind {
                    "client " => fact.starts_with(&format!("client {quoted} ")),
                    "server " => false,
                    _ => fact.contains(&format!(" {quoted} [")),
                }
            };
            let new = applied(&text, &[remove_client(client)]);
            let expected: BTreeSet<String> = facts(&text).into_iter().filter(|fact| !gone(fact)).collect();
            assert_eq!(facts(&new), expected, "{fixture}: {client}\n{new}");
            // A member of an inline table goes, and the rest of its line stays.
            let whole: String = new.split_inclusive('\n').filter(|line| !line.contains('{')).collect();
            assert!(keeps(&whole, &text), "{fixture}: {client}\n{new}");
        }
        for server in config.servers.iter().map(|server| &server.name.value) {
            let quoted = format!("{server:?}");
            let gone = |fact: &String| {
                fact.split_once(' ').is_some_and(|(_, rest)| rest.starts_with(&quoted)) && !fact.starts_with("client")
            };
            let new = applied(&text, &[remove_server(server)]);
            let expected: BTreeSet<String> = facts(&text).into_iter().filter(|fact| !gone(fact)).collect();
            assert_eq!(facts(&new), expected, "{fixture}: {server}\n{new}");
        }
        for (server, client, deny) in grants_of(&config) {
            for tools in [&["x", "y\"z"][..], &[]] {
                let new = applied(&text, &[grant(&server, &client, tools)]);
                let start = format!("tools {server:?} {client:?} ");
                let mut expected: BTreeSet<String> =
                    facts(&text).into_iter().filter(|f| !f.starts_with(&start)).collect();
                if !tools.is_empty() {
                    expected.insert(format!("{start}{tools:?}"));
                }
                assert_eq!(facts(&new), expected, "{fixture}: {server} {client} {deny} {tools:?}\n{new}");
            }
        }
    }
}

fn grants_of(config: &Config) -> Vec<(String, String, bool)> {
    let all = config.allow.iter().flat_map(|allow| allow.grants.iter().map(move |grant| (allow, grant)));
    all.map(|(allow, grant)| (allow.server.value.clone(), grant.client.value.clone(), !grant.deny.is_empty())).collect()
}

#[track_caller]
fn check(text: &str, changes: &[Change], expected: &str) {
    assert_eq!(applied(text, changes), expected, "{changes:?}");
}

const FILE: &str = "# us\n\n[clients.alice] # a\nauth_token = '1'\n\n# servers\n[mcp_servers.s]\nurl = 'http://s/'\nfrom_client = 'alice'\n\n\
                    [allow.s] # s\nbob = ['a'] # b\n\n# end\n";

#[test]
fn new_tables_come_behind_the_last_of_their_section() {
    let client = "\n[clients.new]\nregistered = 2026-11-22T14:02:11Z\nlabel = \"new\"\n";
    check(FILE, &[add_client("new")], &FILE.replace("'1'\n", &format!("'1'\n{client}")));
    check("", &[add_client("new")], client.trim_start());
    check("# c", &[add_client("new")], &format!("# c\n{}", client.trim_end()));
    check("# c\r\n", &[add_client("new")], &format!("# c\n{client}").replace('\n', "\r\n"));
    let server = "\n[mcp_servers.new]\nurl = \"http://new:1/mcp?a=%22b%22\"\nfrom_client = \"alice\"\nregistered_by = \"alice\"\n\
                  headers = { X-Key = \"new\", X-Other = \"1\" }\ntool_prefix = \"p_\"\n";
    check(FILE, &[add_server("new")], &FILE.replace("'alice'\n", &format!("'alice'\n{server}")));
}

#[test]
fn a_grant_is_one_line() {
    check(FILE, &[grant("s", "new", &["x", "y*"])], &FILE.replace("# b\n", "# b\nnew = [\"x\", \"y*\"]\n"));
    check(FILE, &[grant("s", "bob", &["x"])], &FILE.replace("['a']", "[\"x\"]"));
    check(FILE, &[grant("s", "bob", &[])], &FILE.replace("bob = ['a'] # b\n", ""));
    check(FILE, &[grant("t", "*", &["x"])], &FILE.replace("# b\n", "# b\n\n[allow.t]\n\"*\" = [\"x\"]\n"));
}

#[test]
fn of_the_table_form_only_tools_are_changed() {
    let of = |inside: &str| format!("[allow.s]\nbob = {{ {inside} }} # b\n");
    let text = of("tools = [\"a\"], deny = [\"d\"]");
    check(&text, &[grant("s", "bob", &["x"])], &of("tools = [\"x\"], deny = [\"d\"]"));
    check(&text, &[grant("s", "bob", &[])], &of("deny = [\"d\"]"));
    check(&of("deny = [\"d\"]"), &[grant("s", "bob", &["x"])], &of("deny = [\"d\"], tools = [\"x\"]"));
    check(&of("deny = [\"d\"]"), &[grant("s", "bob", &[])], &of("deny = [\"d\"]"));
    check(&of("tools = [\"a\"]"), &[grant("s", "bob", &[])], "");
}

#[test]
fn a_list_keeps_the_bytes_and_comments_of_what_stays() {
    let lines = |inside: &str| format!("[allow.s]\nbob = [\n{inside}] # b\n");
    let text = lines("  \"a\", # why a\n  # next\n  'b', # why b\n  'c'\n");
    check(&text, &[grant("s", "bob", &["a", "b", "c"])], &text);
    check(&text, &[grant("s", "bob", &["b", "c"])], &lines("  # next\n  'b', # why b\n  'c'\n"));
    check(&text, &[grant("s", "bob", &["a", "c"])], &lines("  \"a\", # why a\n  # next\n  'c'\n"));
    check(&text, &[grant("s", "bob", &["a", "b"])], &lines("  \"a\", # why a\n  # next\n  'b'\n"));
    check(&text, &[grant("s", "bob", &["a", "x", "y"])], &lines("  \"a\", \"x\", \"y\"\n"));
    check(&text, &[grant("s", "bob", &["x", "a"])], "[allow.s]\nbob = [\"x\", \"a\"] # b\n");
    let line = |inside: &str| format!("[allow.s]\nbob = [{inside}]\n");
    check(&line("'a', 'b' , 'c'"), &[grant("s", "bob", &["a", "c"])], &line("'a', 'c'"));
    check(&line("'a', 'b', 'c',"), &[grant("s", "bob", &["c", "d"])], &line("'c', \"d\","));
    check(&line("'a', 'a'"), &[grant("s", "bob", &["a"])], &line("\"a\""));
}

#[test]
fn comments_at_the_end_of_a_table_stay_in_it() {
    let text = "[allow.s]\nbob = ['a']\n# carol = ['x']\n\n[gateway]\n";
    let table = "\n[allow.t]\nbob = [\"x\"]\n";
    check(text, &[grant("t", "bob", &["x"])], &text.replace("['x']\n", &format!("['x']\n{table}")));
    check(text, &[grant("s", "bob", &[])], &text.replace("bob = ['a']\n", ""));
    check(text, &[remove_server("s")], "\n[gateway]\n");
    let leads_over = "[allow.s]\nbob = ['a']\n# the gateway\n[gateway]\n";
    check(leads_over, &[grant("t", "bob", &["x"])], &leads_over.replace("['a']\n", &format!("['a']\n{table}")));
}

#[test]
fn inline_tables_over_several_lines_are_understood() {
    let text = |inside: &str| format!("[allow]\ns = {{\n{inside}}}\n");
    let both = text(" bob = ['a'] # why, bob\n , alice = ['b'], # alice\n");
    check(&both, &[grant("s", "bob", &[])], &text(" alice = ['b'], # alice\n"));
    check(&text(" alice = ['b'], # why\n bob = ['a']\n"), &[grant("s", "bob", &[])], &text(" alice = ['b']\n"));
    check(&text(" bob = ['a'],\n"), &[grant("s", "bob", &[])], &text(""));
    check(&text(" bob = ['a'],\n"), &[grant("s", "alice", &["x"])], &text(" bob = ['a'], alice = [\"x\"],\n"));
}

#[test]
fn names_are_written_as_toml_has_them() {
    let text = "[mcp_servers.\"it's\"]\n[allow.\"it's\".bob]\ntools = ['a']\n";
    check(text, &[grant("it's", "alice", &["x"])], &format!("{text}\n[allow.\"it's\"]\nalice = [\"x\"]\n"));
}

#[test]
fn changes_that_meet_are_made_one_after_the_other() {
    check("", &[grant("s", "a", &["x"]), grant("s", "b", &["y"])], "[allow.s]\na = [\"x\"]\nb = [\"y\"]\n");
    check("", &[grant("s", "a", &["x"]), grant("s", "a", &["y"])], "[allow.s]\na = [\"y\"]\n");
    check("", &[add_client("a"), add_server("s"), grant("s", "a", &["x"]), remove_client("a"), remove_server("s")], "");
    check(
        "[allow.s]\na = [\"x\"]",
        &[add_client("c"), grant("s", "b", &["y"]), remove_client("c")],
        "[allow.s]\na = [\"x\"]\nb = [\"y\"]",
    );
    let both = applied("# c\n", &[add_client("a"), add_client("b"), add_server("s"), add_server("t")]);
    assert_eq!(
        applied(&both, &[remove_client("a"), remove_server("t"), remove_client("b"), remove_server("s")]),
        "# c\n"
    );
}

#[test]
fn what_cannot_be_changed_is_told() {
    let told = |text: &str, change| apply(text, &[change]).unwrap_err().to_string();
    assert_eq!(told("clients = 1", add_client("a")), "clients: expected a table");
    assert_eq!(told("[clients.a]\n", add_client("a")), "clients.a: it is there already");
    assert!(matches!(apply("[clients", &[]), Err(EditError::Syntax(_))));
    let dotted = "allow.s: dotted keys within `{ }` cannot be changed; write a table instead";
    assert_eq!(told("allow = { s.bob = ['x'], s.alice = ['x'] }", remove_server("s")), dotted);
}

/// Changes drawn by a generator of its own, so that every run is the same.
#[test]
fn any_sequence_of_changes_keeps_the_file_sound() {
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (fixture, text) in fixtures().into_iter().filter(|(name, _)| !name.starts_with("inline")) {
        for _ in 0..30 {
            let mut changes = Vec::new();
            let mut old = text.clone();
            for _ in 0..8 {
                let name = ["n1", "n.2", "s", "t", "bob", "alice", "*"][draw(7)];
                let change = match draw(6) {
                    0 => add_client(name),
                    1 => remove_client(name),
                    2 => add_server(name),
                    3 => remove_server(name),
                    _ => grant(["s", "t", "n1"][draw(3)], name, &["x", "y"][..draw(3)]),
                };
                // What is there already, or nobody can be called, is for `policy` to refuse.
                let wrong = matches!(&change, Change::AddClient { name, .. } if name == "*");
                let Some(new) = apply(&old, std::slice::from_ref(&change)).ok().filter(|_| !wrong) else { continue };
                facts(&new);
                changes.push(change);
                old = new;
            }
            assert_eq!(applied(&text, &changes), old, "{fixture}: at once is not the same as one by one: {changes:?}");
        }
    }
}
