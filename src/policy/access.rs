//! The one answer to "may this client use that?": [`Registry::decide`] and [`Registry::decider`].
//!
//! Lists, calls and `explain` all come here, so they cannot disagree. A yes is a [`Permit`], which only this file can
//! make and which every call to a server needs; a forgotten check does not compile. Every answer names the rule that
//! decided it. Knows rules and patterns; what a server offers, and under which name, is the business of `gateway::view`.

use std::fmt;
use std::sync::Arc;

use super::fnmatch::{Matcher, Pattern};
use super::registry::{ClientId, Grant, Patterns, Registry, Relation, Server, ServerId, Who};
use crate::wire::config::Place;

/// What is to be used, under the server's own name for it, never the prefixed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A tool by its name.
    Tool(&'a str),
    /// A prompt by its name.
    Prompt(&'a str),
    /// A resource by its URI, or a template by its text.
    Resource(&'a str),
}

impl<'a> Target<'a> {
    /// The name or URI.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Tool(name) | Self::Prompt(name) | Self::Resource(name) => name,
        }
    }
}

/// An answer and its reason.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Yes, with the proof of it, or no.
    pub verdict: Result<Permit, Refusal>,
    /// The rule that decided.
    pub rule: Rule,
}

/// A no. It says nothing more, because to the caller forbidden and unknown must look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal;

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The client owns the server.
    Owner,
    /// A pattern of a grant allows it.
    Allowed(Match),
    /// A pattern of a `deny` list forbids it.
    Denied(Match),
    /// There is a grant, but no pattern of it matches.
    NotMatched,
    /// There is a grant, and it has no patterns at all for these: `prompts` or `resources`.
    NoneOf(&'static str),
    /// There is no grant.
    NoGrant,
    /// There is a grant of a self-registered owner, and `shares = "operator"` keeps it from this client.
    NotShared,
    /// The resource's URI could mean another place than the one it seems to name.
    UnsafeUri,
    /// There is no such server.
    NoSuchServer,
    /// There is no such client.
    NoSuchClient,
}

/// A pattern that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Whom the grant names.
    pub by: Who,
    /// The pattern as written.
    pub pattern: Box<str>,
    /// Where it stands.
    pub place: Place,
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SECURITY: the file may have been written by a client.
        let (pattern, by) = (self.pattern.escape_debug(), self.by.as_str().escape_debug());
        write!(f, "pattern `{pattern}` for `{by}` at {}", self.place)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner => f.write_str("the client owns the server"),
            Self::Allowed(found) => write!(f, "allowed by {found}"),
            Self::Denied(found) => write!(f, "denied by {found}"),
            Self::NotMatched => f.write_str("no pattern granted to the client matches"),
            Self::NoneOf(kind) => {
                write!(f, "no {kind} on this server are granted to the client; a plain list grants tools only")
            }
            Self::NoGrant => f.write_str("nothing on this server is granted to the client"),
            Self::NotShared => {
                f.write_str("`shares = \"operator\"` keeps grants of self-registered owners from the client")
            }
            Self::UnsafeUri => f.write_str("a URI with `.` or `..` segments or encoded slashes is for the owner only"),
            Self::NoSuchServer => f.write_str("no such server"),
            Self::NoSuchClient => f.write_str("no such client"),
        }
    }
}

/// The proof that a client may use one thing of one server. Made here only; belongs to the registry it came from.
#[derive(Clone, Debug)]
pub struct Permit {
    client: ClientId,
    server: Arc<Server>,
    kind: Kind,
    name: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tool,
    Prompt,
    Resource,
}

impl Permit {
    /// Who may.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// Where.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// What, under the server's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What, with its kind.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        match self.kind {
            Kind::Tool => Target::Tool(&self.name),
            Kind::Prompt => Target::Prompt(&self.name),
            Kind::Resource => Target::Resource(&self.name),
        }
    }
}

impl Registry {
    /// Decides about one thing.
    #[must_use]
    pub fn decide(&self, client: &ClientId, server: &ServerId, target: Target<'_>) -> Decision {
        self.decider(client, server).decide(target)
    }

    /// Prepares to decide about many things of one server.
    #[must_use]
    pub fn decider(&self, client: &ClientId, server: &ServerId) -> Decider<'_> {
        let standing = match self.relation(client, server) {
            Relation::NoSuchClient => Standing::Refused(Rule::NoSuchClient),
            Relation::NoSuchServer => Standing::Refused(Rule::NoSuchServer),
            Relation::NoGrant => Standing::Refused(Rule::NoGrant),
            Relation::NotShared => Standing::Refused(Rule::NotShared),
            Relation::Owner { client, server } => Standing::Owner(client, server),
            Relation::Granted { client, server, grants } => Standing::Granted(
                client,
                server,
                grants.into_iter().map(|(by, grant)| Compiled::new(by, grant)).collect(),
            ),
        };
        Decider { registry: self, standing }
    }
}

/// Decides about the things of one server for one client, with patterns compiled once.
pub struct Decider<'a> {
    registry: &'a Registry,
    standing: Standing<'a>,
}

enum Standing<'a> {
    Refused(Rule),
    Owner(&'a ClientId, &'a Arc<Server>),
    Granted(&'a ClientId, &'a Arc<Server>, Vec<Compiled<'a>>),
}

impl Decider<'_> {
    /// Decides about one thing: the owner may everything; others what a pattern allows and no `deny` forbids.
    #[must_use]
    pub fn decide(&self, target: Target<'_>) -> Decision {
        match &self.standing {
            Standing::Refused(rule) => Decision { verdict: Err(Refusal), rule: rule.clone() },
            Standing::Owner(client, server) => {
                Decision { verdict: Ok(permit(client, server, target)), rule: Rule::Owner }
            }
            Standing::Granted(client, server, grants) => {
                let rule = self.rule(grants, target);
                let allowed = matches!(rule, Rule::Allowed(_));
                let verdict = if allowed { Ok(permit(client, server, target)) } else { Err(Refusal) };
                Decision { verdict, rule }
            }
        }
    }

    fn rule(&self, grants: &[Compiled<'_>], target: Target<'_>) -> Rule {
        if matches!(target, Target::Resource(uri) if is_unsafe(uri)) {
            return Rule::UnsafeUri;
        }
        if let Some(found) = self.find(grants, |grant| &grant.deny, target) {
            return Rule::Denied(found);
        }
        match target {
            Target::Tool(_) => self.allowed(grants, |grant| &grant.tools, target, Rule::NotMatched),
            Target::Prompt(_) => self.allowed(grants, |grant| &grant.prompts, target, Rule::NoneOf("prompts")),
            Target::Resource(_) => self.allowed(grants, |grant| &grant.resources, target, Rule::NoneOf("resources")),
        }
    }

    /// What one list of each grant says of it, and `none` where all these lists are empty.
    fn allowed<'g>(
        &self,
        grants: &'g [Compiled<'g>],
        list: impl Fn(&'g Compiled<'g>) -> &'g [Test<'g>],
        target: Target<'_>,
        none: Rule,
    ) -> Rule {
        match self.find(grants, &list, target) {
            Some(found) => Rule::Allowed(found),
            None if grants.iter().all(|grant| list(grant).is_empty()) => none,
            None => Rule::NotMatched,
        }
    }

    /// The first pattern in one list of each grant that matches.
    fn find<'g>(
        &self,
        grants: &'g [Compiled<'g>],
        list: impl Fn(&'g Compiled<'g>) -> &'g [Test<'g>],
        target: Target<'_>,
    ) -> Option<Match> {
        let hit = |grant| {
            list(grant).iter().find(|test: &&Test<'_>| test.matcher.matches(target.name())).map(|test| (grant, test))
        };
        let (grant, test) = grants.iter().find_map(hit)?;
        Some(Match { by: grant.by.clone(), pattern: test.pattern.as_str().into(), place: self.registry.place(test.at) })
    }
}

fn permit(client: &ClientId, server: &Arc<Server>, target: Target<'_>) -> Permit {
    let kind = match target {
        Target::Tool(_) => Kind::Tool,
        Target::Prompt(_) => Kind::Prompt,
        Target::Resource(_) => Kind::Resource,
    };
    Permit { client: client.clone(), server: Arc::clone(server), kind, name: target.name().into() }
}

/// A grant with its patterns compiled.
struct Compiled<'a> {
    by: Who,
    tools: Vec<Test<'a>>,
    deny: Vec<Test<'a>>,
    prompts: Vec<Test<'a>>,
    resources: Vec<Test<'a>>,
}

struct Test<'a> {
    matcher: Matcher<'a>,
    pattern: &'a Pattern,
    at: u32,
}

impl<'a> Compiled<'a> {
    fn new(by: Who, grant: &'a Grant) -> Self {
        let compile = |patterns: &'a Patterns| -> Vec<Test<'a>> {
            patterns.iter().map(|(pattern, at)| Test { matcher: pattern.matcher(), pattern, at }).collect()
        };
        Self {
            by,
            tools: compile(&grant.tools),
            deny: compile(&grant.deny),
            prompts: compile(&grant.prompts),
            resources: compile(&grant.resources),
        }
    }
}

/// SECURITY: whether a URI could mean another place than the one it seems to name, so that `file:///pub/*` would open
/// `file:///pub/../etc/passwd`: a segment `.` or `..`, or a slash that is encoded. Dots and slashes count however often
/// they are percent-encoded, backslashes count as slashes, and characters that URL parsers drop are refused.
fn is_unsafe(uri: &str) -> bool {
    let mut decoded = String::with_capacity(uri.len());
    let mut rest = uri;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        rest = after.trim_start_matches("25");
        let code = rest.get(..2).unwrap_or_default();
        if ["2f", "5c"].iter().any(|slash| code.eq_ignore_ascii_case(slash)) {
            return true;
        }
        if code.eq_ignore_ascii_case("2e") {
            decoded.push('.');
            rest = rest.get(2..).unwrap_or_default();
        } else {
            decoded.push('%');
        }
    }
    decoded.push_str(rest);
    let mut segments = decoded.split(['/', '\\', ':', '?', '#', ';']);
    uri.contains(char::is_control) || segments.any(|segment| matches!(segment.trim(), "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::config::Secrets;

    const TABLES: &str = "
[clients]
alice = { auth_token = '1', admin = true }
bob = { auth_token = '2' }
dave = { registered = 2026-01-01T00:00:00Z }
carol = { registered = 2026-01-01T00:00:00Z }
[mcp_servers]
alices = { url = 'http://a/', from_client = 'alice', tool_prefix = 'x_' }
bobs = { url = 'http://b/', from_client = 'bob' }
carols = { url = 'http://c/', from_client = 'carol', registered_by = 'carol' }
";

    fn registry(text: &str) -> Registry {
        let built = Registry::load(&format!("{TABLES}{text}"), |_| Secrets::default());
        built.registry.unwrap_or_else(|| panic!("{:?}", built.problems))
    }

    /// Decides, and tells the rule in words; a permit, if any, must be for exactly what was asked.
    #[track_caller]
    fn check(text: &str, (client, server): (&str, &str), target: Target<'_>, allowed: bool, rule: &str) {
        let registry = registry(text);
        let (client, server) = (ClientId::new(client), ServerId::new(server));
        let decision = registry.decide(&client, &server, target);
        assert_eq!(
            (decision.verdict.is_ok(), decision.rule.to_string().as_str()),
            (allowed, rule),
            "{target:?} {text}"
        );
        if let Ok(permit) = decision.verdict {
            assert_eq!((permit.client(), &permit.server().id, permit.target()), (&client, &server, target));
            assert_eq!(permit.name(), target.name());
        }
        let listed = registry.servers_of(&client).iter().any(|listed| listed.id == server);
        assert!(listed || !allowed, "allowed on a server that is not listed");
    }

    const OWNER: &str = "the client owns the server";
    const NO_GRANT: &str = "nothing on this server is granted to the client";
    const NOT_MATCHED: &str = "no pattern granted to the client matches";
    const NO_PROMPTS: &str = "no prompts on this server are granted to the client; a plain list grants tools only";
    const NO_RESOURCES: &str = "no resources on this server are granted to the client; a plain list grants tools only";
    const NOT_SHARED: &str = "`shares = \"operator\"` keeps grants of self-registered owners from the client";
    const UNSAFE: &str = "a URI with `.` or `..` segments or encoded slashes is for the owner only";

    #[test]
    fn nobody_is_allowed_by_default() {
        for target in
            [Target::Tool("t"), Target::Prompt("t"), Target::Resource("t"), Target::Tool(""), Target::Tool("*")]
        {
            check("", ("alice", "bobs"), target, false, NO_GRANT);
            check("", ("dave", "bobs"), target, false, NO_GRANT);
            let nothing = match target {
                Target::Tool(_) => NOT_MATCHED,
                Target::Prompt(_) => NO_PROMPTS,
                Target::Resource(_) => NO_RESOURCES,
            };
            check("[allow.bobs]\nalice = []", ("alice", "bobs"), target, false, nothing);
            check("[allow.alices]\ndave = ['*']", ("dave", "bobs"), target, false, NO_GRANT);
            check("", ("nobody", "bobs"), target, false, "no such client");
            check("[allow.bobs]\n'*' = ['*']", ("nobody", "bobs"), target, false, "no such client");
            check("[allow.bobs]\n'*' = ['*']", ("*", "bobs"), target, false, "no such client");
            check("", ("alice", "nothing"), target, false, "no such server");
        }
    }

    #[test]
    fn owner_needs_no_grant() {
        for target in [Target::Tool("t"), Target::Prompt(""), Target::Resource("file:///../etc/passwd")] {
            check("", ("alice", "alices"), target, true, OWNER);
            check("[allow.alices]\nalice = { deny = ['*'] }", ("alice", "alices"), target, true, OWNER);
            check("[allow.alices]\n'*' = { deny = ['*'] }", ("alice", "alices"), target, true, OWNER);
            check("[gateway]\nshares = 'operator'", ("carol", "carols"), target, true, OWNER);
        }
    }

    #[test]
    fn a_pattern_allows_what_it_matches() {
        let text = "[allow.bobs]\nalice = ['tool_0', 'tool_1*']";
        let tool = |name, allowed, rule| check(text, ("alice", "bobs"), Target::Tool(name), allowed, rule);
        tool("tool_0", true, "allowed by pattern `tool_0` for `alice` at 12:10");
        tool("tool_12", true, "allowed by pattern `tool_1*` for `alice` at 12:20");
        tool("tool_2", false, NOT_MATCHED);
        tool("TOOL_0", false, NOT_MATCHED);
        tool("", false, NOT_MATCHED);
        check(text, ("dave", "bobs"), Target::Tool("tool_0"), false, NO_GRANT);
        check(text, ("alice", "carols"), Target::Tool("tool_0"), false, NO_GRANT);
    }

    #[test]
    fn patterns_match_the_servers_own_name() {
        let text = "[allow.alices]\nbob = ['tool']";
        check(text, ("bob", "alices"), Target::Tool("tool"), true, "allowed by pattern `tool` for `bob` at 12:8");
        check(text, ("bob", "alices"), Target::Tool("x_tool"), false, NOT_MATCHED);
    }

    #[test]
    fn a_list_grants_tools_only() {
        let text = "[allow.bobs]\nalice = ['*']";
        check(text, ("alice", "bobs"), Target::Tool("t"), true, "allowed by pattern `*` for `alice` at 12:10");
        check(text, ("alice", "bobs"), Target::Prompt("t"), false, NO_PROMPTS);
        check(text, ("alice", "bobs"), Target::Resource("t"), false, NO_RESOURCES);
        let others = "[allow.bobs]\nalice = ['*']\n'*' = { prompts = ['p'] }";
        check(others, ("alice", "bobs"), Target::Prompt("t"), false, NOT_MATCHED);
    }

    #[test]
    fn each_kind_has_its_own_patterns() {
        let text = "[allow.bobs.alice]\ntools = ['t']\nprompts = ['p']\nresources = ['r:*']";
        check(text, ("alice", "bobs"), Target::Tool("t"), true, "allowed by pattern `t` for `alice` at 12:10");
        check(text, ("alice", "bobs"), Target::Prompt("p"), true, "allowed by pattern `p` for `alice` at 13:12");
        check(text, ("alice", "bobs"), Target::Resource("r:x"), true, "allowed by pattern `r:*` for `alice` at 14:14");
        for other in [Target::Tool("p"), Target::Prompt("r:x"), Target::Resource("t")] {
            check(text, ("alice", "bobs"), other, false, NOT_MATCHED);
        }
    }

    #[test]
    fn the_rules_of_a_client_and_of_everyone_are_united() {
        let text = "[allow.bobs]\n'*' = ['status']\nalice = ['a*']";
        check(text, ("alice", "bobs"), Target::Tool("ab"), true, "allowed by pattern `a*` for `alice` at 13:10");
        check(text, ("alice", "bobs"), Target::Tool("status"), true, "allowed by pattern `status` for `*` at 12:8");
        check(text, ("dave", "bobs"), Target::Tool("status"), true, "allowed by pattern `status` for `*` at 12:8");
        check(text, ("dave", "bobs"), Target::Tool("ab"), false, NOT_MATCHED);
    }

    #[test]
    fn deny_wins_wherever_it_stands() {
        let own = "[allow.bobs]\n'*' = ['*']\nalice = { tools = ['*'], deny = ['*_delete'] }";
        let denied = "denied by pattern `*_delete` for `alice` at 13:34";
        check(own, ("alice", "bobs"), Target::Tool("x_delete"), false, denied);
        check(own, ("alice", "bobs"), Target::Tool("x"), true, "allowed by pattern `*` for `alice` at 13:20");
        check(own, ("dave", "bobs"), Target::Tool("x_delete"), true, "allowed by pattern `*` for `*` at 12:8");
        let everyones = "[allow.bobs]\nalice = ['*']\n'*' = { deny = ['*_delete'] }";
        let denied = "denied by pattern `*_delete` for `*` at 13:17";
        check(everyones, ("alice", "bobs"), Target::Tool("x_delete"), false, denied);
        check(everyones, ("dave", "bobs"), Target::Tool("x"), false, NOT_MATCHED);
    }

    #[test]
    fn deny_binds_tools_prompts_and_resources() {
        let text = "[allow.bobs]\nalice = { tools = ['*'], prompts = ['*'], resources = ['*'], deny = ['s*'] }";
        for target in [Target::Tool("s"), Target::Prompt("s"), Target::Resource("s:x")] {
            check(text, ("alice", "bobs"), target, false, "denied by pattern `s*` for `alice` at 12:70");
        }
    }

    #[test]
    fn shares_of_strangers_reach_strangers_only_if_the_operator_says_so() {
        let grants = "[allow]\ncarols.'*' = ['*']\ncarols.alice = ['*']\nbobs.dave = ['*']\n";
        check(grants, ("alice", "carols"), Target::Tool("t"), true, "allowed by pattern `*` for `alice` at 13:17");
        let operator = format!("{grants}[gateway]\nshares = 'operator'");
        check(&operator, ("alice", "carols"), Target::Tool("t"), false, NOT_SHARED);
        check(&operator, ("bob", "carols"), Target::Tool("t"), false, NOT_SHARED);
        check(&operator, ("dave", "carols"), Target::Tool("t"), true, "allowed by pattern `*` for `*` at 12:15");
        check(&operator, ("dave", "bobs"), Target::Tool("t"), true, "allowed by pattern `*` for `dave` at 14:14");
    }

    #[test]
    fn a_uri_that_could_mean_another_place_is_for_the_owner_only() {
        let text = "[allow.bobs]\nalice = { resources = ['*'] }";
        let allowed = "allowed by pattern `*` for `alice` at 12:24";
        let safe =
            ["file:///pub/x", "file:///a..b/.c/d./...", "x", "", "http://h:1/?q=1.2", "test://t/100%", "a:/%20%zz%2"];
        for uri in safe.into_iter().chain(["test://template/{id}/data", "file:///ü/%C3%BC"]) {
            check(text, ("alice", "bobs"), Target::Resource(uri), true, allowed);
        }
        let dots = [
            "file:///pub/../etc",
            "file:///pub/..",
            "..",
            ".",
            "file:..",
            "file:///./x",
            "a/..?q",
            "a/..#f",
            "a/..;x/b",
        ];
        let encoded =
            ["a/%2e%2E/b", "a/.%2e", "a/%252e./b", "a/%25252e%25252e", "a%2fb", "a%2Fb", "a%252Fb", "a%5cb", "a/%2e"];
        let odd = ["a\\..\\b", "a/.. /b", "a/.\t./b", "a\nb", "a/..\u{a0}"];
        for uri in dots.into_iter().chain(encoded).chain(odd) {
            check(text, ("alice", "bobs"), Target::Resource(uri), false, UNSAFE);
            check(text, ("bob", "bobs"), Target::Resource(uri), true, OWNER);
        }
        check(
            "[allow.bobs]\nalice = ['*']",
            ("alice", "bobs"),
            Target::Tool("../%2f"),
            true,
            "allowed by pattern `*` for `alice` at 12:10",
        );
    }

    #[test]
    fn an_encoded_uri_is_looked_at_in_one_pass() {
        assert!(is_unsafe(&format!("a/%{}2e", "25".repeat(1_000_000))));
        assert!(!is_unsafe(&"%25".repeat(1_000_000)));
    }

    #[test]
    fn being_admin_gives_no_tool() {
        check("", ("alice", "bobs"), Target::Tool("t"), false, NO_GRANT);
        check("", ("alice", "carols"), Target::Tool("t"), false, NO_GRANT);
    }

    #[test]
    fn the_example_gives_what_its_comments_say() {
        let registry = Registry::load(include_str!("../../config.example.toml"), |_| Secrets::default());
        assert_eq!(registry.problems, []);
        let registry = registry.registry.unwrap();
        let tools = [
            ("server_a", ["text_stats", "text_hash", "text_base64", "json_format"].as_slice()),
            ("server_b", &["clock_now", "clock_convert", "countdown"]),
        ];
        let allowed = |client: &str| -> Vec<&str> {
            let all = tools.iter().flat_map(|(server, tools)| tools.iter().map(move |tool| (*server, *tool)));
            let may = |(server, tool): &(&str, &str)| {
                registry.decide(&ClientId::new(client), &ServerId::new(server), Target::Tool(tool)).verdict.is_ok()
            };
            all.filter(may).map(|(_, tool)| tool).collect()
        };
        let alice = ["text_stats", "text_hash", "text_base64", "json_format", "clock_now", "clock_convert"];
        assert_eq!(allowed("alice"), alice);
        assert_eq!(
            allowed("bob"),
            ["text_stats", "text_hash", "text_base64", "clock_now", "clock_convert", "countdown"]
        );
        assert_eq!(allowed("charlie"), ["text_stats", "clock_now", "clock_convert"]);
    }
}
