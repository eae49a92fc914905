//! Arguments and results come through byte for byte, whatever is in them, from clients of both eras to servers of both.
//! Design 1.3; what the eras themselves add and take away is as in protocol.md 4.6.

use mcp_x_fixture::{AnswerForm, Fixture, Mode, Options};
use serde_json::Value;

use super::support::client::Client;
use super::support::message::{MODERN, Message, framed};
use super::support::{ALICE, Draw, Harness, owned_by_alice};

const ROUNDS: usize = 40;
/// Levels of nesting that a message may have, and those that stand around arguments and results.
const DEPTH: usize = 128;
const AROUND: usize = 3;

const NUMBERS: [&str; 16] = [
    "0",
    "-0",
    "-0.0",
    "42.0",
    "1e21",
    "1E+2",
    "1e-7",
    "0.1000",
    "95.5",
    "9007199254740993",
    "-9223372036854775809",
    "18446744073709551616",
    "123456789012345678901234567890.123456789012345678901234567890",
    "1e400",
    "-1e-400",
    "3.141592653589793238462643383279",
];
/// Between quotes; the last two hold halves of surrogate pairs, which no `String` can.
const TEXTS: [&str; 16] = [
    "",
    "plain",
    "\\u00e9",
    "é",
    "e\u{301}",
    "\\ud83d\\ude00",
    "😀",
    "\\/ / \\\\ \\\" \\b\\f\\n\\r\\t",
    "\\u0000\\u001f\\u007f",
    "\u{7f}\u{a0}\u{feff}\u{202e}",
    "\u{2028}\\u2028\u{2029}",
    "data: x\\n\\nevent: y",
    "jsonrpc",
    "\u{10ffff}\u{fffd}",
    "\\ud800",
    "\\udc00\\ud800",
];
const SPACES: [&str; 7] = ["", "", "", " ", "\t", "\n", "\r\n "];

/// Members of an object, each as it is written, and what stands between them and around them.
struct Members(Vec<String>, &'static str);

impl Members {
    /// What stands between the braces.
    fn inside(&self) -> String {
        let space = self.1;
        format!("{space}{}{space}", self.0.join(&format!("{space},{space}")))
    }
}

fn value(draw: &mut Draw, depth: usize) -> String {
    match draw.below(if depth == 0 { 3 } else { 5 }) {
        0 => draw.one_of(&NUMBERS).to_owned(),
        1 => format!("\"{}\"", draw.one_of(&TEXTS)),
        2 => draw.one_of(&["true", "false", "null", "[]", "{}", "[ ]"]).to_owned(),
        3 => {
            let elements: Vec<String> = (0..draw.below(4)).map(|_| value(draw, depth - 1)).collect();
            format!("[{}]", elements.join(&format!("{},", draw.one_of(&SPACES))))
        }
        _ => format!("{{{}}}", members(draw, depth - 1, &TEXTS).inside()),
    }
}

/// Members with keys made of these texts, no two alike.
fn members(draw: &mut Draw, depth: usize, texts: &[&'static str]) -> Members {
    let mut members: Vec<String> = Vec::new();
    for number in 0..draw.below(5) {
        let key = match number {
            0 => String::new(),
            _ => format!("{}{number}", draw.one_of(texts)),
        };
        let space = draw.one_of(&SPACES);
        members.push(format!("\"{key}\"{space}:{space}{}", value(draw, depth)));
    }
    members.reverse();
    Members(members, draw.one_of(&SPACES))
}

/// What chance would hardly find.
fn extremes() -> Vec<Members> {
    let deep = DEPTH - AROUND - 1;
    let arrays = format!("\"deep\":{}{}", "[".repeat(deep), "]".repeat(deep));
    let objects = format!("\"deep\":{}0{}", "{\"\":".repeat(deep), "}".repeat(deep));
    let long = format!("\"long\":\"{}\"", "é\\u00e9\\\\ ".repeat(10_000));
    let wide = (0..1_000).map(|n| format!("\"{n}\":{n}.0")).collect();
    vec![
        Members(vec![arrays], ""),
        Members(vec![objects], " "),
        Members(vec![long], "\n"),
        Members(wide, ""),
        Members(Vec::new(), "\t"),
    ]
}

/// A client and a server of one era each, and a gateway between them.
struct Cell {
    revision: &'static str,
    server: Mode,
    form: AnswerForm,
    client: Client,
    _running: (Fixture, Harness),
}

impl Cell {
    fn start(revision: &'static str, server: Mode, form: AnswerForm) -> Self {
        let fixture = Fixture::start(Options { answers: form, ..Options::of(server) });
        let harness = Harness::start(&owned_by_alice(&[("fixture", &fixture)]));
        let client = harness.client(ALICE).speaking(revision);
        Self { revision, server, form, client, _running: (fixture, harness) }
    }

    /// Calls a tool; between the braces of its result stands this.
    #[track_caller]
    fn check(&mut self, tool: &str, arguments: &str, inside: &str) {
        let mut result = framed(self.revision, self.server, inside);
        if self.form == AnswerForm::Sse {
            // Event streams know one end of line only.
            result = result.replace("\r\n", "\n");
        }
        let answer = self.client.ask(&Message::call(self.revision, tool, arguments));
        let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        assert!(answer.body == expected, "{} from {:?}\n{expected}\n{}", self.revision, self.server, answer.body);
    }

    fn arguments(&mut self, members: &Members) {
        let arguments = format!("{{{}}}", members.inside());
        let text = Value::from(arguments.as_str());
        let content = format!(r#""content":[{{"type":"text","text":{text}}}],"structuredContent":{arguments}"#);
        self.check("echo", &arguments, &content);
    }

    fn result(&mut self, members: &Members) {
        let arguments = format!(r#"{{ "result": {{{}}} }}"#, members.inside());
        self.check("echo_result", &arguments, &members.inside());
    }
}

/// Relays everything between these two.
fn relay(revision: &'static str, server: Mode) {
    let speakable = &TEXTS[..TEXTS.len() - 2];
    for form in [AnswerForm::Auto, AnswerForm::Sse] {
        let (mut cell, mut draw) = (Cell::start(revision, server, form), Draw(11));
        for members in extremes() {
            cell.arguments(&members);
            cell.result(&members);
        }
        for _ in 0..ROUNDS {
            cell.arguments(&members(&mut draw, 5, &TEXTS));
            cell.result(&members(&mut draw, 5, speakable));
        }
    }
}

#[test]
fn from_legacy_servers_to_legacy_clients_nothing_is_lost() {
    relay("2025-11-25", Mode::LegacySessions);
}

#[test]
fn from_modern_servers_to_legacy_clients_nothing_is_lost() {
    relay("2025-11-25", Mode::Modern);
}

#[test]
fn from_legacy_servers_to_modern_clients_nothing_is_lost() {
    relay(MODERN, Mode::LegacyStateless);
}

#[test]
fn from_modern_servers_to_modern_clients_nothing_is_lost() {
    relay(MODERN, Mode::Modern);
}
