//! Nothing crosses from one client to another, and nothing mixes at a server: fifty clients of both eras do everything that
//! can be done at servers that they share, with a mark of their own in all they send, leave in the middle of it, and try
//! what belongs to others: sessions, states, ids of questions. Nobody ever sees a mark but the own one, not even the log, and
//! no session with a server sees two. Issue 7, "Done when"; protocol.md 4.1, 4.3, 4.5.
//!
//! As much as everybody can afford; `tests/soak` does more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use mcp_x_fixture::Received;
use serde_json::{Value, json};

use super::support::Draw;
use super::support::client::Client;
use super::support::crowd::{Crowd, LEGACY, Seed, name, open_to_all};
use super::support::http::{Answer, Connection};
use super::support::message::{MODERN, Message};
use super::support::process::soaked;

const CLIENTS: usize = 50;
/// What each client does.
const SHORT: usize = 40;
const LONG: usize = 250;
/// What every mark begins with; two digits of the client follow.
const MARK: &str = "mark";
/// How often a modern client comes back with answers.
const ROUNDS: usize = 6;

/// Whose marks are in a text.
fn owners(text: &str) -> BTreeSet<usize> {
    text.match_indices(MARK)
        .filter_map(|(at, _)| text.get(at + MARK.len()..at + MARK.len() + 2)?.parse().ok())
        .collect()
}

/// What clients leave lying about, and what came of everything.
#[derive(Default)]
struct Common {
    sessions: Mutex<Vec<(usize, String)>>,
    /// Requests, and the states that were given out for them.
    states: Mutex<Vec<(usize, Message, String)>>,
    questions: Mutex<Vec<(usize, Value)>>,
    /// Calls with questions that came to their end.
    finished: AtomicUsize,
    /// Attempts on what belongs to others that were refused.
    refused: AtomicUsize,
    /// Things heard on streams.
    heard: AtomicUsize,
}

/// One of what other clients have left.
fn of_another<T: Clone>(left: &Mutex<Vec<T>>, draw: &mut Draw, is_own: impl Fn(&T) -> bool) -> Option<T> {
    let left = left.lock().unwrap();
    let others: Vec<&T> = left.iter().rev().filter(|one| !is_own(one)).take(20).collect();
    (!others.is_empty()).then(|| others[draw.below(others.len())].clone())
}

/// One client.
struct Actor<'a> {
    crowd: &'a Crowd,
    common: &'a Common,
    number: usize,
    revision: &'static str,
    draw: Draw,
    client: Client,
    /// On which it hears what happens.
    ear: Connection,
    step: usize,
}

impl<'a> Actor<'a> {
    fn new(crowd: &'a Crowd, common: &'a Common, number: usize, seed: u64) -> Self {
        let draw = Draw(seed.wrapping_mul(1_000).wrapping_add(number as u64));
        let revision = if number.is_multiple_of(2) { MODERN } else { LEGACY };
        let client = if revision == MODERN { crowd.client(number) } else { crowd.in_session(number) };
        let uri = own_resource(number);
        let ear = match revision {
            MODERN => client.listen(&format!(r#"{{"toolsListChanged":true,"resourceSubscriptions":["{uri}"]}}"#)).0,
            _ => client.get_stream(),
        };
        let mut actor = Self { crowd, common, number, revision, draw, client, ear, step: 0 };
        if let Some(session) = &actor.client.session {
            common.sessions.lock().unwrap().push((number, session.clone()));
            let subscribe = actor.about("resources/subscribe", &uri);
            actor.ask(&subscribe);
        }
        actor
    }

    /// A text with the mark, other than any before.
    fn mark(&self) -> String {
        format!("{MARK}{:02}-{}", self.number, self.step)
    }

    /// Nobody else's mark is in a text.
    fn sees(&self, text: &str) {
        let all = owners(text);
        assert!(all.iter().all(|owner| *owner == self.number), "client {} sees {all:?}: {text}", self.number);
    }

    /// Everything of an answer.
    fn sees_all(&self, answer: &Answer) {
        self.sees(&format!("{answer:?}"));
    }

    fn open(&self, message: Message) -> Message {
        let id = format!(r#""{}-id""#, self.mark());
        open_to_all(self.revision, message.id(&id), &self.mark())
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Message {
        let server = self.crowd.servers[self.draw.below(self.crowd.servers.len())].0;
        self.call_at(server, tool, arguments)
    }

    fn call_at(&self, server: &str, tool: &str, arguments: &Value) -> Message {
        self.open(Message::call(self.revision, &format!("{server}{tool}"), &arguments.to_string()))
    }

    fn about(&self, method: &str, uri: &str) -> Message {
        self.open(named(self.revision, method, uri).param(&format!(r#""uri":"{uri}""#)))
    }

    /// The response to a request. What its server asks before may be for an earlier call that this client has left: a legacy
    /// server that asks on the stream of its session does not say for which.
    fn ask(&mut self, message: &Message) -> Value {
        let mut response = self.ask_once(message);
        while let Some((answers, _)) = self.answers(message, &response) {
            response = self.ask_once(&answers);
        }
        response
    }

    fn ask_once(&mut self, message: &Message) -> Value {
        let answer = self.client.ask(message);
        self.sees_all(&answer);
        answer.response()
    }

    /// The request with which a modern client comes back that is asked for something, and the state in it.
    fn answers(&self, message: &Message, response: &Value) -> Option<(Message, Option<String>)> {
        let result = &response["result"];
        if result["resultType"] != "input_required" {
            return None;
        }
        let asked = result["inputRequests"].as_object().into_iter().flatten();
        let answers: BTreeMap<&str, Value> =
            asked.map(|(key, asked)| (key.as_str(), self.fitting(asked["method"].as_str().unwrap()))).collect();
        let next = message.clone().param(&format!(r#""inputResponses":{}"#, json!(answers)));
        let state = result["requestState"].as_str().map(str::to_owned);
        Some(match &state {
            Some(text) => (next.param(&format!(r#""requestState":{}"#, json!(text))), state),
            None => (next, state),
        })
    }

    /// What was said on the stream meanwhile.
    fn listen(&mut self) {
        while self.ear.has_event() {
            let Some(event) = self.ear.event() else { return };
            self.sees(&event);
            self.common.heard.fetch_add(usize::from(event.contains(MARK)), Ordering::Relaxed);
        }
    }

    fn act(&mut self, step: usize) {
        self.step = step;
        match self.draw.below(12) {
            0 => self.echo(),
            1 => self.take_time(),
            2..=5 => self.be_asked(),
            6 => self.read(),
            7 => self.remember(),
            8 => self.leave(),
            9 => self.have_it_updated(),
            10 => self.try_anothers_session(),
            _ if self.revision == MODERN => self.try_anothers_state(),
            _ => self.answer_anothers_question(),
        }
        self.listen();
    }

    fn echo(&mut self) {
        let mark = self.mark();
        let message = self.call("echo", &json!({ "text": mark }));
        let response = self.ask(&message);
        assert_eq!(response["result"]["structuredContent"]["text"], mark, "{response}");
        assert_eq!(response["id"], format!("{mark}-id"));
    }

    /// A call with progress and log messages; a token that is not the own one would be seen.
    fn take_time(&mut self) {
        let message = self.call("slow", &json!({ "ms": 20, "steps": 2, "log": true, "text": self.mark() }));
        let response = self.ask(&message);
        assert_eq!(response["result"]["content"][0]["text"], "done", "{response}");
    }

    fn read(&mut self) {
        let uri = own_resource(self.number) + &format!("-{}", self.step);
        let message = self.about("resources/read", &uri);
        let response = self.ask(&message);
        assert_eq!(response["result"]["contents"][0]["uri"], uri, "{response}");
    }

    /// Has a server that knows its sessions keep a text.
    fn remember(&mut self) {
        let (server, mark) = (self.draw.one_of(&["sessions_", "json_"]), self.mark());
        let remember = self.call_at(server, "remember", &json!({ "text": mark }));
        self.ask(&remember);
        let recall = self.call_at(server, "recall", &json!({}));
        let text = self.ask(&recall)["result"]["content"][0]["text"].to_string();
        // Calls that can be asked something have sessions of their own while others are parked.
        assert!(self.revision == MODERN || text.contains(&mark), "{text}");
    }

    /// Leaves in the middle of a call.
    fn leave(&mut self) {
        let message = self.question();
        let mut other = self.client.another();
        other.send_message(&message);
        std::thread::sleep(Duration::from_micros(self.draw.below(8_000) as u64));
    }

    /// Has a server say that a resource was updated: to this client, as nobody else wants to know.
    fn have_it_updated(&mut self) {
        let server = self.crowd.servers[self.number % self.crowd.servers.len()].0;
        let message =
            self.call_at(server, "test_trigger_resource_update", &json!({ "uri": own_resource(self.number) }));
        self.ask(&message);
    }

    fn try_anothers_session(&mut self) {
        let own = self.number;
        let Some((_, session)) = of_another(&self.common.sessions, &mut self.draw, |(owner, _)| *owner == own) else {
            return;
        };
        let mut thief = self.client.another();
        (thief.session, thief.version) = (Some(session), Some(LEGACY.to_owned()));
        let list = thief.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        let answer = thief.post(answer_text(&json!("gw-00000000-1"), &json!({ "roots": [] })));
        let end = thief.delete();
        for answer in [list, answer, end] {
            assert_eq!(answer.status(), 404, "{answer:?}");
            self.sees_all(&answer);
        }
        self.common.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Comes back with the state of another: with its arguments, so that nothing but the client differs, or with own ones.
    fn try_anothers_state(&mut self) {
        let own = self.number;
        let Some((_, theirs, state)) = of_another(&self.common.states, &mut self.draw, |(owner, ..)| *owner == own)
        else {
            return;
        };
        let message = if self.draw.below(2) == 0 { theirs } else { self.question() };
        let message = message.param(&format!(r#""requestState":{}"#, json!(state)));
        let response = self.ask_once(&message.id("1"));
        assert_eq!(response["error"]["code"], -32602, "{response}");
        self.common.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers questions that others were asked, and such as nobody was.
    fn answer_anothers_question(&mut self) {
        let own = self.number;
        let theirs = of_another(&self.common.questions, &mut self.draw, |(owner, _)| *owner == own);
        let guessed = json!(format!("gw-{:08x}-{}", self.draw.below(1 << 30), self.draw.below(9) + 1));
        for id in theirs.map(|(_, id)| id).into_iter().chain([guessed, json!(self.draw.below(9))]) {
            self.reply(&id, "elicitation/create");
        }
        self.common.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A request whose server asks something, with what was sent quoted.
    fn question(&mut self) -> Message {
        let mark = self.mark();
        let kind = self.draw.one_of(&["elicitation", "sampling", "roots"]);
        match self.draw.below(6) {
            0 => self.call("ask_twice_slowly", &json!({ "text": mark })),
            1 => self.call_at("sessions_", "ask_on_get", &json!({ "text": mark })),
            2 => {
                let prompt = self.draw.one_of(&["sessions_ask_prompt", "modern_ask_prompt"]);
                let message = named(self.revision, "prompts/get", prompt).param(&format!(r#""name":"{prompt}""#));
                self.open(message.param(&format!(r#""arguments":{{"text":"{mark}"}}"#)))
            }
            _ => self.call("ask_back", &json!({ "text": mark, "kind": kind })),
        }
    }

    fn be_asked(&mut self) {
        let message = self.question();
        if self.revision == MODERN { self.come_back(message) } else { self.answer_on_the_way(&message) }
    }

    /// Answers what a result asks for, or does not; sometimes twice, which only one of both does any good.
    fn come_back(&mut self, message: Message) {
        let mut next = message.clone();
        for _ in 0..ROUNDS {
            let response = self.ask_once(&next);
            let Some((answers, state)) = self.answers(&message, &response) else {
                self.common.finished.fetch_add(usize::from(response.to_string().contains(MARK)), Ordering::Relaxed);
                return;
            };
            next = answers;
            if let Some(state) = state {
                self.common.states.lock().unwrap().push((self.number, message.clone(), state));
            }
            match self.draw.below(8) {
                0 => return,
                1 => return self.client.another().send_message(&next),
                2 => self.client.another().send_message(&next),
                _ => {}
            }
        }
    }

    /// Answers what is asked on the stream of a call: well, with an error, twice, too late, or not at all.
    fn answer_on_the_way(&mut self, message: &Message) {
        let mut caller = self.client.another();
        caller.send_message(message);
        let head = caller.connection.head();
        self.sees(&format!("{head:?}"));
        if !head.is_stream() {
            return self.sees_all(&caller.connection.rest_of(head));
        }
        while let Some(event) = caller.connection.event() {
            self.sees(&event);
            let event: Value = serde_json::from_str(&event).unwrap();
            let (id, Some(method)) = (&event["id"], event["method"].as_str()) else {
                self.common.finished.fetch_add(usize::from(event.to_string().contains(MARK)), Ordering::Relaxed);
                continue;
            };
            if id.is_null() {
                continue;
            }
            self.common.questions.lock().unwrap().push((self.number, id.clone()));
            match self.draw.below(10) {
                0 => {
                    drop(caller);
                    return self.reply(id, method);
                }
                1 => return,
                2 => {
                    let cancelled = json!({ "requestId": format!("{}-id", self.mark()), "reason": self.mark() });
                    let note = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled });
                    self.tell(&note.to_string());
                    self.reply(id, method);
                }
                3 => {
                    let error = json!({ "code": -1, "message": self.mark() });
                    self.tell(&json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string());
                }
                twice => {
                    self.reply(id, method);
                    if twice == 4 {
                        self.reply(id, method);
                    }
                }
            }
        }
    }

    /// An answer to such a question, with the mark.
    fn fitting(&self, method: &str) -> Value {
        let mark = self.mark();
        match method {
            "elicitation/create" => json!({ "action": "accept", "content": { "reply": mark } }),
            "roots/list" => json!({ "roots": [{ "uri": format!("file:///{mark}"), "name": mark }] }),
            _ => json!({ "role": "assistant", "model": mark, "content": { "type": "text", "text": mark } }),
        }
    }

    fn reply(&mut self, id: &Value, method: &str) {
        let answer = answer_text(id, &self.fitting(method));
        self.tell(&answer);
    }

    /// Sends what has no answer.
    fn tell(&mut self, message: &str) {
        let answer = self.client.post(message);
        self.sees_all(&answer);
        assert_eq!(answer.status(), 202, "{answer:?}");
    }
}

/// A resource that a client alone uses; its mark may be in the log.
fn own_resource(number: usize) -> String {
    format!("test://secret/{MARK}{number:02}u")
}

fn named(revision: &str, method: &str, name: &str) -> Message {
    let message = Message::of(revision, method);
    if revision == MODERN { message.header("Mcp-Name", name) } else { message }
}

fn answer_text(id: &Value, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

/// No request to a server, and no session with it, has the marks of two clients. How many requests had one.
fn check_server(server: &str, received: &Receiver<Received>) -> usize {
    let (mut sessions, mut marked) = (BTreeMap::<String, usize>::new(), 0);
    for request in received.try_iter() {
        let all = owners(&format!("{request:?}"));
        assert!(all.len() < 2, "{server} sees {all:?} in one request: {request:?}");
        let Some(owner) = all.first() else { continue };
        marked += 1;
        if let Some(session) = request.header("mcp-session-id") {
            let first = *sessions.entry(session.to_owned()).or_insert(*owner);
            assert_eq!(first, *owner, "a session of {server} sees the marks of two clients: {request:?}");
        }
    }
    marked
}

/// The log speaks of resources, and quotes why something was refused; that of a client only where it speaks of that client,
/// which the record of the request names.
fn check_log(log: &str) {
    let field = |line: &str, name: &str| -> Option<String> {
        let rest = line.split_once(&format!(" {name}="))?.1;
        Some(rest.split(' ').next()?.to_owned())
    };
    let records = log.lines().filter_map(|line| Some((field(line, "req")?, field(line, "client")?)));
    let clients: BTreeMap<String, String> = records.collect();
    for line in log.lines().filter(|line| line.contains(MARK)) {
        let all = owners(line);
        let client = field(line, "client").or_else(|| clients.get(&field(line, "req")?).cloned());
        let resources = line.matches(&format!("test://secret/{MARK}")).count();
        let quoted = line.split_once(" reason=").map_or(0, |(_, reason)| reason.matches(MARK).count());
        let is_own = client.is_none_or(|client| all.iter().all(|owner| name(*owner) == client));
        assert!(all.len() == 1 && is_own, "another's in the log: {line}");
        assert!(resources + quoted >= line.matches(MARK).count(), "what was sent is in the log: {line}");
    }
}

#[test]
fn no_client_ever_sees_anything_of_another() {
    let steps = if soaked().is_some() { LONG } else { SHORT };
    let seed = Seed::new();
    let mut crowd =
        Crowd::start(CLIENTS, "parked_call_seconds = 2\nwhole_call_seconds = 2\nmax_calls_per_server = 20000\n");
    let followed: Vec<_> = crowd.servers.iter().map(|(name, server)| (*name, server.follow())).collect();
    let common = Common::default();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (crowd, common, seed) = (&crowd, &common, seed.0);
            scope.spawn(move || {
                let mut actor = Actor::new(crowd, common, number, seed);
                (1..=steps).for_each(|step| actor.act(step));
            });
        }
    });
    let marked: Vec<usize> = followed.iter().map(|(name, received)| check_server(name, received)).collect();
    assert!(marked.iter().all(|marked| *marked > CLIENTS), "hardly anything reached the servers: {marked:?}");
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let [finished, refused, heard] = [&common.finished, &common.refused, &common.heard].map(count);
    assert!(finished > CLIENTS && refused > CLIENTS && heard > CLIENTS / 4, "{finished} {refused} {heard}");
    crowd.served.signal("TERM");
    let (_, log) = crowd.served.end();
    assert!(log.contains(&format!("client={}", name(0))) && log.contains(MARK), "{log}");
    check_log(&log);
    eprintln!(
        "seed {}: {marked:?} requests, {finished} calls with questions, {refused} refused, {heard} heard",
        seed.0
    );
}
