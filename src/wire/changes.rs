//! Streams of changes: what a client wants to hear of, and the messages of such a stream.
//!
//! A legacy client opens one by GET and is told of every list; a modern one says in `subscriptions/listen` what it wants,
//! and every message of its stream names that request. Source: MCP 2026-07-28, "Subscriptions"; MCP 2025-11-25, tools,
//! prompts and resources; protocol.md 1.7, 2.3.

use super::json::{JsonType, Span, elements_of, members_of, text_of, type_of, whole_members_of, write_text};
use super::jsonrpc::Envelope;
use super::mcp::{IDENTITY, ListKind, ServerCapabilities, meta, method};
use super::rewrite;
use super::splice::object_of;

/// A list, as far as it can be said to have changed; resources and their templates are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list` and `resources/templates/list`
    Resources,
}

impl Change {
    /// Every list.
    pub const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    /// The list that a notification of this method says has changed.
    #[must_use]
    pub fn of(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|list| list.method() == method)
    }

    /// The method of the notification that it has changed.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Tools => method::TOOLS_CHANGED,
            Self::Prompts => method::PROMPTS_CHANGED,
            Self::Resources => method::RESOURCES_CHANGED,
        }
    }

    /// The member of a filter by which that is asked for.
    fn wish(self) -> &'static str {
        match self {
            Self::Tools => "toolsListChanged",
            Self::Prompts => "promptsListChanged",
            Self::Resources => "resourcesListChanged",
        }
    }

    /// The lists that are meant.
    #[must_use]
    pub fn kinds(self) -> &'static [ListKind] {
        match self {
            Self::Tools => &[ListKind::Tools],
            Self::Prompts => &[ListKind::Prompts],
            Self::Resources => &[ListKind::Resources, ListKind::Templates],
        }
    }

    /// Whether a server that can do this tells of it.
    #[must_use]
    pub fn is_told_by(self, capabilities: ServerCapabilities) -> bool {
        self.kinds().iter().any(|kind| capabilities.tells_of(*kind))
    }
}

/// Some of the lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes(u8);

impl Changes {
    /// All of them.
    pub const ALL: Self = Self(7);

    /// Those of which this is true.
    #[must_use]
    pub fn of(is_in: impl Fn(Change) -> bool) -> Self {
        let mut lists = Self::default();
        Change::ALL.into_iter().filter(|list| is_in(*list)).for_each(|list| lists.add(list));
        lists
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(self, list: Change) -> bool {
        self.0 & (1 << list as u8) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds one.
    pub fn add(&mut self, list: Change) {
        self.0 |= 1 << list as u8;
    }

    /// Takes out the first of them.
    pub fn pop(&mut self) -> Option<Change> {
        let first = Change::ALL.into_iter().find(|list| self.has(*list))?;
        self.0 &= !(1 << first as u8);
        Some(first)
    }
}

/// One thing of a server of which somebody wants to hear.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A resource, by its URI.
    Resource(String),
    /// A task, by the server's own id.
    Task(String),
}

impl Topic {
    /// The URI or id.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Resource(name) | Self::Task(name) => name,
        }
    }
}

/// What a listener wants to hear of, or is granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Changes that change.
    pub lists: Changes,
    /// Resources that are updated, each once, in order.
    pub uris: Vec<String>,
    /// Tasks that get on, each once, by id, in order.
    pub tasks: Vec<String>,
}

/// The member of a filter that names resources.
const RESOURCES: &str = "resourceSubscriptions";
/// The one that names tasks.
const TASKS: &str = "taskIds";

impl Filter {
    /// Reads the `params` of a `subscriptions/listen`; wishes that are not known are passed over.
    ///
    /// # Errors
    /// What was expected of a member that has another shape.
    pub fn read(params: &[u8]) -> Result<Self, &'static str> {
        let member = |(key, value)| (key == "notifications").then_some(value);
        let wishes = members_of(params, whole(params)).into_iter().find_map(member);
        let wishes = wishes.filter(|wishes| type_of(wishes.of(params)) == JsonType::Object);
        let wishes = wishes.ok_or("expected `notifications` to be an object")?;
        let mut filter = Self::default();
        for (key, value) in members_of(params, wishes) {
            if let Some(list) = Change::ALL.into_iter().find(|list| list.wish() == key) {
                match value.of(params) {
                    b"true" => filter.lists.add(list),
                    b"false" => {}
                    _ => return Err("expected `listChanged` wishes to be booleans"),
                }
            } else if key == RESOURCES {
                filter.uris = texts(params, value).ok_or("expected `resourceSubscriptions` to be a list of strings")?;
            } else if key == TASKS {
                filter.tasks = texts(params, value).ok_or("expected `taskIds` to be a list of strings")?;
            }
        }
        for names in [&mut filter.uris, &mut filter.tasks] {
            names.sort_unstable();
            names.dedup();
        }
        Ok(filter)
    }

    /// Adds a topic that comes after all those of its kind.
    pub fn add(&mut self, topic: Topic) {
        match topic {
            Topic::Resource(uri) => self.uris.push(uri),
            Topic::Task(id) => self.tasks.push(id),
        }
    }

    /// All of its topics.
    pub fn topics(&self) -> impl Iterator<Item = Topic> {
        let resources = self.uris.iter().cloned().map(Topic::Resource);
        resources.chain(self.tasks.iter().cloned().map(Topic::Task))
    }

    /// Whether this topic is among them.
    #[must_use]
    pub fn has(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Resource(uri) => self.uris.binary_search(uri).is_ok(),
            Topic::Task(id) => self.tasks.binary_search(id).is_ok(),
        }
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.uris.is_empty() && self.tasks.is_empty()
    }

    /// Appends the filter as JSON.
    fn write(&self, out: &mut Vec<u8>) {
        let (mut lists, mut members) = (self.lists, Vec::new());
        while let Some(list) = lists.pop() {
            members.push(format!(r#""{}":true"#, list.wish()).into_bytes());
        }
        for (member, names) in [(RESOURCES, &self.uris), (TASKS, &self.tasks)] {
            if !names.is_empty() {
                members.push(list_of(member, names));
            }
        }
        out.extend(object_of(members.iter().map(Vec::as_slice)));
    }
}

/// A member that is a list of strings.
fn list_of(member: &str, texts: &[String]) -> Vec<u8> {
    let mut out = format!(r#""{member}":["#).into_bytes();
    for (position, text) in texts.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_text(&mut out, text);
    }
    out.push(b']');
    out
}

fn whole(bytes: &[u8]) -> Span {
    Span { start: 0, end: bytes.len() }
}

/// The elements of a list of strings.
fn texts(bytes: &[u8], list: Span) -> Option<Vec<String>> {
    if type_of(list.of(bytes)) != JsonType::Array {
        return None;
    }
    let text = |element: Span| text_of(element.of(bytes)).map(std::borrow::Cow::into_owned);
    elements_of(bytes, list).into_iter().map(text).collect()
}

/// The request by which a modern server is asked to tell of changes.
#[must_use]
pub fn listen(id: u64, filter: &Filter) -> Vec<u8> {
    let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{}","params":{{"notifications":"#, method::LISTEN);
    let mut out = start.into_bytes();
    filter.write(&mut out);
    out.extend_from_slice(format!(r#","_meta":{}}}}}"#, rewrite::own_meta()).as_bytes());
    out
}

/// A legacy server's request about one resource: `resources/subscribe` or `resources/unsubscribe`.
#[must_use]
pub fn about_resource(id: u64, method: &str, uri: &str) -> Vec<u8> {
    let mut out = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"uri":"#).into_bytes();
    write_text(&mut out, uri);
    out.extend_from_slice(b"}}");
    out
}

/// A notification of a stream; `stream` is the id of the modern request that opened it, `members` those of its
/// `params`, each with a comma behind it.
fn notification(method: &str, stream: Option<&[u8]>, members: &[u8]) -> Vec<u8> {
    let mut out = format!(r#"{{"jsonrpc":"2.0","method":"{method}""#).into_bytes();
    match (stream, members) {
        (None, []) => {}
        (None, [members @ .., _comma]) => {
            out.extend_from_slice(b",\"params\":{");
            out.extend_from_slice(members);
            out.push(b'}');
        }
        (Some(id), members) => {
            out.extend_from_slice(b",\"params\":{");
            out.extend_from_slice(members);
            out.extend_from_slice(format!(r#""_meta":{{"{}":"#, meta::SUBSCRIPTION_ID).as_bytes());
            out.extend_from_slice(id);
            out.extend_from_slice(b"}}");
        }
    }
    out.push(b'}');
    out
}

/// The first message of a modern stream: what of its filter is granted.
#[must_use]
pub fn acknowledged(stream: &[u8], granted: &Filter) -> Vec<u8> {
    let mut members = b"\"notifications\":".to_vec();
    granted.write(&mut members);
    members.push(b',');
    notification(method::ACKNOWLEDGED, Some(stream), &members)
}

/// Tells that a list has changed.
#[must_use]
pub fn changed(list: Change, stream: Option<&[u8]>) -> Vec<u8> {
    notification(list.method(), stream, b"")
}

/// Tells that a resource was updated.
#[must_use]
pub fn updated(uri: &str, stream: Option<&[u8]>) -> Vec<u8> {
    let mut members = b"\"uri\":".to_vec();
    write_text(&mut members, uri);
    members.push(b',');
    notification(method::RESOURCE_UPDATED, stream, &members)
}

/// Tells how far a task has got, as its server says, under this id. A server has no state of its own in that.
#[must_use]
pub fn task_changed(news: &Envelope, task: &str, stream: &[u8]) -> Vec<u8> {
    let bytes = news.bytes();
    let mut id = b"\"taskId\":".to_vec();
    write_text(&mut id, task);
    let own = [b"\"", meta::SUBSCRIPTION_ID.as_bytes(), b"\":", stream].concat();
    let about = rewrite::meta_of(bytes, news.meta_object_span(), &[meta::SUBSCRIPTION_ID, meta::SERVER_INFO], &own);
    let about = [b"\"_meta\":", about.as_slice()].concat();
    let members = news.params_span().map(|params| whole_members_of(bytes, params)).unwrap_or_default();
    let replaced = ["taskId", "_meta", "requestState"];
    let kept = members.iter().filter(|member| !replaced.contains(&member.key.as_ref()));
    let kept = kept.map(|member| member.whole.of(bytes));
    let params = object_of([id.as_slice()].into_iter().chain(kept).chain([about.as_slice()]));
    let mut out = format!(r#"{{"jsonrpc":"2.0","method":"{}","params":"#, method::TASK_CHANGED).into_bytes();
    out.extend_from_slice(&params);
    out.push(b'}');
    out
}

/// The response to the request that opened a modern stream, which is its end.
#[must_use]
pub fn complete(stream: &[u8]) -> Vec<u8> {
    let mut out = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    out.extend_from_slice(stream);
    let of_stream = format!(r#"{{"resultType":"complete","_meta":{{"{}":"#, meta::SUBSCRIPTION_ID);
    out.extend_from_slice(b",\"result\":");
    out.extend_from_slice(of_stream.as_bytes());
    out.extend_from_slice(stream);
    out.extend_from_slice(format!(r#","{}":{IDENTITY}}}}}}}"#, meta::SERVER_INFO).as_bytes());
    out
}

/// Whether news of a resource are news of one that was subscribed to: the same, or one below it.
#[must_use]
pub fn covers(subscribed: &str, updated: &str) -> bool {
    updated
        .strip_prefix(subscribed)
        .is_some_and(|rest| rest.is_empty() || subscribed.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(wishes: &str, lists: &[Change], uris: &[&str], tasks: &[&str]) {
        let read = Filter::read(format!(r#"{{"notifications":{wishes}}}"#).as_bytes()).unwrap();
        let [uris, tasks] = [uris, tasks].map(|texts| texts.iter().map(ToString::to_string).collect());
        let expected = Filter { lists: Changes::of(|l| lists.contains(&l)), uris, tasks };
        let mut added = Filter { lists: expected.lists, ..Filter::default() };
        expected.topics().for_each(|topic| added.add(topic));
        assert!(added == expected && expected.topics().all(|topic| expected.has(&topic)));
        assert_eq!(read, expected, "{wishes}");
        let mut written = Vec::new();
        read.write(&mut written);
        let again = [b"{\"notifications\":", written.as_slice(), b"}"].concat();
        assert_eq!(Filter::read(&again).as_ref(), Ok(&expected), "{wishes}");
    }

    #[test]
    fn filters_are_read_and_written() {
        check("{}", &[], &[], &[]);
        check(r#"{"toolsListChanged":true,"promptsListChanged":false}"#, &[Change::Tools], &[], &[]);
        check(
            r#"{"resourcesListChanged":true,"promptsListChanged":true}"#,
            &[Change::Prompts, Change::Resources],
            &[],
            &[],
        );
        check(r#"{"resourceSubscriptions":["b","\u0061","b"]}"#, &[], &["a", "b"], &[]);
        check(
            r#"{"toolsListChanged":true,"resourceSubscriptions":["test://\"x\""]}"#,
            &[Change::Tools],
            &["test://\"x\""],
            &[],
        );
        check(r#"{"taskIds":["b","a","a"],"resourceSubscriptions":["a"]}"#, &[], &["a"], &["a", "b"]);
        check(r#"{"taskIds":[],"unknown":null}"#, &[], &[], &[]);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for params in [
            "{}",
            r#"{"notifications":null}"#,
            r#"{"notifications":[]}"#,
            r#"{"notifications":{"toolsListChanged":1}}"#,
            r#"{"notifications":{"promptsListChanged":"true"}}"#,
            r#"{"notifications":{"resourceSubscriptions":"a"}}"#,
            r#"{"notifications":{"taskIds":7}}"#,
            r#"{"notifications":{"taskIds":["a",null]}}"#,
            r#"{"notifications":{"resourceSubscriptions":["a",7]}}"#,
            r#"{"notifications":{"resourceSubscriptions":{"a":true}}}"#,
        ] {
            assert!(Filter::read(params.as_bytes()).is_err(), "{params}");
        }
    }

    #[track_caller]
    fn same(written: &[u8], expected: &Value) {
        assert_eq!(serde_json::from_slice::<Value>(written).unwrap(), *expected);
    }

    #[test]
    fn messages_of_modern_streams_name_their_request_and_legacy_ones_nothing() {
        let key = meta::SUBSCRIPTION_ID;
        for (id, value) in [("7", json!(7)), (r#""7""#, json!("7"))] {
            let stream = json!({ key: value });
            let params = json!({ "_meta": stream });
            let method = "notifications/tools/list_changed";
            same(
                &changed(Change::Tools, Some(id.as_bytes())),
                &json!({"jsonrpc":"2.0","method":method,"params":params}),
            );
            let params = json!({ "uri": "a\"b", "_meta": stream });
            let method = "notifications/resources/updated";
            same(&updated("a\"b", Some(id.as_bytes())), &json!({"jsonrpc":"2.0","method":method,"params":params}));
            let granted = Filter { lists: Changes::ALL, uris: vec!["a".to_owned()], tasks: vec!["t".to_owned()] };
            let told = json!({"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,
                "resourceSubscriptions":["a"],"taskIds":["t"]});
            let params = json!({ "notifications": told, "_meta": stream });
            let method = "notifications/subscriptions/acknowledged";
            same(&acknowledged(id.as_bytes(), &granted), &json!({"jsonrpc":"2.0","method":method,"params":params}));
            let identity: Value = serde_json::from_str(IDENTITY).unwrap();
            let result = json!({"resultType":"complete","_meta":{key:value, meta::SERVER_INFO:identity}});
            same(&complete(id.as_bytes()), &json!({"jsonrpc":"2.0","id":value,"result":result}));
        }
        assert_eq!(
            changed(Change::Prompts, None),
            br#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#
        );
        let plain = br#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a"}}"#;
        assert_eq!(updated("a", None), plain);
    }

    #[test]
    fn news_of_a_task_are_passed_on_under_the_clients_id_and_for_its_stream() {
        let news = |params: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/tasks","params":{params}}}"#);
            Envelope::parse(text.into(), 64, super::super::jsonrpc::Sender::Server).unwrap()
        };
        let key = meta::SUBSCRIPTION_ID;
        for (theirs, kept) in
            [("", ""), (r#","_meta":{"x":1.0,"KEY":9}"#, r#","x":1.0"#), (r#","requestState":"s""#, "")]
        {
            let rest = r#""status":"completed","result":{"taskId":"own","n":1e21}"#;
            let told = news(&format!(
                r#"{{"status":"completed","taskId":"own","result":{{"taskId":"own","n":1e21}}{}}}"#,
                theirs.replace("KEY", key)
            ));
            let params = format!(r#"{{"taskId":"sealed",{rest},"_meta":{{"{key}":7{kept}}}}}"#);
            let expected = format!(r#"{{"jsonrpc":"2.0","method":"notifications/tasks","params":{params}}}"#);
            assert_eq!(String::from_utf8(task_changed(&told, "sealed", b"7")).unwrap(), expected);
        }
    }

    #[test]
    fn requests_to_servers_are_written() {
        let filter = Filter { lists: Changes::of(|l| l == Change::Tools), ..Filter::default() };
        let request: Value = serde_json::from_slice(&listen(7, &filter)).unwrap();
        assert_eq!(request["params"]["notifications"], json!({"toolsListChanged":true}));
        assert_eq!(request["params"]["_meta"][meta::PROTOCOL_VERSION], "2026-07-28");
        assert_eq!((&request["id"], &request["method"]), (&json!(7), &json!("subscriptions/listen")));
        let expected = json!({"jsonrpc":"2.0","id":8,"method":"resources/subscribe","params":{"uri":"a"}});
        same(&about_resource(8, method::SUBSCRIBE, "a"), &expected);
    }

    #[test]
    fn news_of_what_lies_below_a_resource_are_news_of_it() {
        for (subscribed, updated, is_covered) in [
            ("file:///a", "file:///a", true),
            ("file:///a", "file:///a/b", true),
            ("file:///a/", "file:///a/b", true),
            ("file:///a", "file:///ab", false),
            ("file:///a/b", "file:///a", false),
            ("file:///a", "", false),
        ] {
            assert_eq!(covers(subscribed, updated), is_covered, "{subscribed} {updated}");
        }
    }

    #[test]
    fn lists_are_sets() {
        let mut lists = Changes::of(|list| list != Change::Prompts);
        assert!(lists.has(Change::Tools) && !lists.has(Change::Prompts) && lists.has(Change::Resources));
        assert_eq!([lists.pop(), lists.pop(), lists.pop()], [Some(Change::Tools), Some(Change::Resources), None]);
        assert!(lists.is_empty() && Change::ALL.into_iter().all(|list| Changes::ALL.has(list)));
        assert!(Change::ALL.into_iter().all(|list| Change::of(list.method()) == Some(list)));
        assert_eq!(Change::of("notifications/message"), None);
    }
}
