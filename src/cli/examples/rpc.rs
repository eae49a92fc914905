//! JSON-RPC and the MCP methods of the example servers: the body of a POST in, what to answer out.
//!
//! Pure: the time is an argument, and a call that takes a while says how long instead of waiting. HTTP is left to
//! [the module above](super).

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::Example;

/// The legacy revisions, newest first.
pub(super) const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

const PARSE_ERROR: i64 = -32700;
pub(super) const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

/// What the body of a POST comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Notifications and responses only: there is nothing to answer.
    Accepted,
    /// Not JSON-RPC; the error says why.
    Refused(Value),
    /// One request.
    Single(Answer),
    /// The requests of a batch (2025-03-26).
    Batch(Vec<Answer>),
}

/// A JSON-RPC response, and when it is due.
#[derive(Debug)]
pub(super) struct Answer {
    /// The whole response.
    pub(super) message: Value,
    /// How long the call takes; 0 unless it is a countdown.
    pub(super) seconds: u64,
    /// The token under which the caller wants to hear about the meantime.
    pub(super) progress: Option<Value>,
}

/// A tool: what `tools/list` says of it, and what it does.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    /// The `properties` of its input schema.
    pub(super) properties: fn() -> Value,
    /// The properties that must be there.
    pub(super) required: &'static [&'static str],
    /// Runs it at a time in Unix seconds. An error is the text of a tool error.
    pub(super) run: fn(&Arguments<'_>, i64) -> Result<Output, String>,
}

/// What a tool has to say.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    /// Plain text.
    Text(String),
    /// An object, given both as text and as structured content.
    Data(Value),
    /// The answer is that this many seconds have passed.
    Countdown(u64),
}

/// Reads and answers the body of a POST at time `now`, in Unix seconds.
pub(super) fn receive(example: Example, body: &[u8], now: i64) -> Outcome {
    match serde_json::from_slice(body) {
        Err(_) => Outcome::Refused(error(None, PARSE_ERROR, "expected JSON")),
        Ok(Value::Array(batch)) if !batch.is_empty() => {
            let answers: Result<Vec<_>, _> = batch.iter().map(|message| answer(example, message, now)).collect();
            match answers.map(|answers| answers.into_iter().flatten().collect::<Vec<_>>()) {
                Err(error) => Outcome::Refused(error),
                Ok(answers) if answers.is_empty() => Outcome::Accepted,
                Ok(answers) => Outcome::Batch(answers),
            }
        }
        Ok(message) => match answer(example, &message, now) {
            Err(error) => Outcome::Refused(error),
            Ok(None) => Outcome::Accepted,
            Ok(Some(answer)) => Outcome::Single(answer),
        },
    }
}

/// A JSON-RPC error; without `id` when the request's could not be read.
pub(super) fn error(id: Option<&Value>, code: i64, message: &str) -> Value {
    let mut response = json!({"jsonrpc": "2.0", "error": {"code": code, "message": message}});
    if let (Some(id), Some(members)) = (id, response.as_object_mut()) {
        members.insert("id".to_owned(), id.clone());
    }
    response
}

/// Answers one message; notifications and responses get none. An error refuses the whole body.
fn answer(example: Example, message: &Value, now: i64) -> Result<Option<Answer>, Value> {
    let is_rpc = message.get("jsonrpc").is_some_and(|version| version == "2.0");
    let is_response = message.get("result").or_else(|| message.get("error")).is_some();
    match (message.get("method").and_then(Value::as_str), message.get("id")) {
        (Some(method), Some(id)) if is_rpc && (id.is_string() || id.is_i64() || id.is_u64()) => {
            let params = message.get("params").unwrap_or(&Value::Null);
            Ok(Some(request(example, method, id, params, now)))
        }
        (Some(_), None) if is_rpc => Ok(None),
        (None, _) if is_rpc && is_response => Ok(None),
        _ => Err(error(None, INVALID_REQUEST, "expected a JSON-RPC 2.0 message; an `id` is a string or an integer")),
    }
}

fn request(example: Example, method: &str, id: &Value, params: &Value, now: i64) -> Answer {
    let result = match method {
        "initialize" => initialize(example, params).map(at_once),
        "ping" => Ok(at_once(json!({}))),
        "tools/list" => list(example, params).map(at_once),
        "tools/call" => call(example, params, now),
        _ => Err((METHOD_NOT_FOUND, format!("unknown method: `{method}`"))),
    };
    match result {
        Ok((result, seconds)) => Answer {
            message: json!({"jsonrpc": "2.0", "id": id, "result": result}),
            seconds,
            progress: params
                .pointer("/_meta/progressToken")
                .filter(|token| token.is_string() || token.is_number())
                .cloned(),
        },
        Err((code, message)) => Answer { message: error(Some(id), code, &message), seconds: 0, progress: None },
    }
}

fn at_once(result: Value) -> (Value, u64) {
    (result, 0)
}

fn initialize(example: Example, params: &Value) -> Result<Value, (i64, String)> {
    let Some(wanted) = params.get("protocolVersion").and_then(Value::as_str) else {
        return Err((INVALID_PARAMS, "expected `params.protocolVersion`, a string".to_owned()));
    };
    let [newest, ..] = VERSIONS;
    let name = format!("mcp-x-example-{}", example.name());
    Ok(json!({
        "protocolVersion": if VERSIONS.contains(&wanted) { wanted } else { newest },
        "capabilities": {"tools": {}},
        "serverInfo": {"name": name, "version": env!("CARGO_PKG_VERSION")},
    }))
}

fn list(example: Example, params: &Value) -> Result<Value, (i64, String)> {
    if params.get("cursor").is_some_and(|cursor| !cursor.is_null()) {
        return Err((INVALID_PARAMS, "unknown cursor: the list has one page".to_owned()));
    }
    Ok(json!({"tools": example.tools().iter().map(describe).collect::<Value>()}))
}

fn describe(tool: &Tool) -> Value {
    json!({
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": {
            "type": "object",
            "properties": (tool.properties)(),
            "required": tool.required,
            "additionalProperties": false,
        },
        "annotations": {"title": tool.title, "readOnlyHint": true, "openWorldHint": false},
    })
}

/// Runs a tool: its result, and after how many seconds it is due.
fn call(example: Example, params: &Value, now: i64) -> Result<(Value, u64), (i64, String)> {
    let Some(name) = params.get("name").and_then(Value::as_str) else {
        return Err((INVALID_PARAMS, "expected `params.name`, a string".to_owned()));
    };
    let Some(tool) = example.tools().iter().find(|tool| tool.name == name) else {
        return Err((INVALID_PARAMS, format!("unknown tool: `{name}`")));
    };
    let output = Arguments::new(tool, params.get("arguments")).and_then(|arguments| (tool.run)(&arguments, now));
    Ok(match output {
        Ok(Output::Text(text)) => (tool_result(&text, false), 0),
        Ok(Output::Data(data)) => {
            let mut result = tool_result(&data.to_string(), false);
            if let Some(members) = result.as_object_mut() {
                members.insert("structuredContent".to_owned(), data);
            }
            (result, 0)
        }
        Ok(Output::Countdown(seconds)) => (tool_result(&format!("counted down from {seconds}"), false), seconds),
        Err(reason) => (tool_result(&reason, true), 0),
    })
}

fn tool_result(text: &str, is_error: bool) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": is_error})
}

/// The arguments of a call. Every error names the argument, what was expected and what was found.
pub(super) struct Arguments<'a>(Option<&'a Map<String, Value>>);

impl<'a> Arguments<'a> {
    /// Accepts an object, or nothing, that has no argument `tool` does not know.
    pub(super) fn new(tool: &Tool, arguments: Option<&'a Value>) -> Result<Self, String> {
        let members = match arguments {
            None | Some(Value::Null) => return Ok(Self(None)),
            Some(Value::Object(members)) => members,
            Some(other) => return Err(format!("arguments: expected an object, found {}", kind(other))),
        };
        let properties = (tool.properties)();
        match members.keys().find(|name| properties.get(name).is_none()) {
            Some(name) => Err(format!("unknown argument: `{name}`")),
            None => Ok(Self(Some(members))),
        }
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        self.read(name, "a string", Value::as_str)
    }

    /// A string that must be there.
    pub(super) fn required_text(&self, name: &str) -> Result<&'a str, String> {
        self.text(name)?.ok_or_else(|| format!("`{name}`: expected a string, found nothing"))
    }

    /// A boolean, `false` if it is not there.
    pub(super) fn flag(&self, name: &str) -> Result<bool, String> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or_default())
    }

    /// An integer within limits.
    pub(super) fn integer(&self, name: &str, limits: RangeInclusive<i64>) -> Result<Option<i64>, String> {
        let expected = format!("an integer from {} to {}", limits.start(), limits.end());
        self.read(name, &expected, |value| value.as_i64().filter(|number| limits.contains(number)))
    }

    fn read<T>(&self, name: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, String> {
        let Some(value) = self.0.and_then(|members| members.get(name)) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(format!("`{name}`: expected {expected}, found {}", kind(value))),
        }
    }
}

/// What a wrong value is, in words; a number as it stands.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(number) => format!("`{number}`"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Calls a tool with arguments in JSON at a time, as `tools/call` would.
    #[track_caller]
    pub(in super::super) fn run(tools: &[Tool], name: &str, arguments: Value, now: i64) -> Result<Output, String> {
        let tool = tools.iter().find(|tool| tool.name == name).expect("no such tool");
        Arguments::new(tool, Some(&arguments)).and_then(|arguments| (tool.run)(&arguments, now))
    }

    /// Sends a body to the text server and compares what leaves: the variant, and its messages.
    #[track_caller]
    fn check(body: &str, variant: &str, messages: Value) {
        let (found, found_messages) = match receive(Example::Text, body.as_bytes(), 0) {
            Outcome::Accepted => ("accepted", Value::Null),
            Outcome::Refused(error) => ("refused", error["error"]["code"].clone()),
            Outcome::Single(answer) => ("single", answer.message),
            Outcome::Batch(answers) => ("batch", answers.into_iter().map(|answer| answer.message).collect()),
        };
        assert_eq!((found, found_messages), (variant, messages), "body {body}");
    }

    #[test]
    fn messages_are_told_apart() {
        let pong = |id: i64| json!({"jsonrpc": "2.0", "id": id, "result": {}});
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "single", pong(1));
        check(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "accepted", Value::Null);
        check(r#"{"jsonrpc":"2.0","id":"x","result":{}}"#, "accepted", Value::Null);
        check(
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"n"}]"#,
            "batch",
            json!([pong(1)]),
        );
        check(r#"[{"jsonrpc":"2.0","method":"n"}]"#, "accepted", Value::Null);
        check("{", "refused", json!(PARSE_ERROR));
        for body in [
            "[]",
            "1",
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            "[1]",
        ] {
            check(body, "refused", json!(INVALID_REQUEST));
        }
    }

    #[test]
    fn errors_of_the_protocol_carry_the_id() {
        for (method, params, code, message) in [
            ("resources/list", json!({}), METHOD_NOT_FOUND, "unknown method: `resources/list`"),
            ("initialize", json!({}), INVALID_PARAMS, "expected `params.protocolVersion`, a string"),
            ("tools/call", json!({"name": "clock_now"}), INVALID_PARAMS, "unknown tool: `clock_now`"),
            ("tools/call", json!([]), INVALID_PARAMS, "expected `params.name`, a string"),
            ("tools/list", json!({"cursor": "2"}), INVALID_PARAMS, "unknown cursor: the list has one page"),
        ] {
            let body = json!({"jsonrpc": "2.0", "id": "a", "method": method, "params": params}).to_string();
            let expected = json!({"jsonrpc": "2.0", "id": "a", "error": {"code": code, "message": message}});
            check(&body, "single", expected);
        }
    }

    #[test]
    fn a_known_revision_is_taken_up_and_another_answered_with_the_newest() {
        for (wanted, agreed) in
            [("2024-11-05", "2024-11-05"), ("2025-11-25", "2025-11-25"), ("2026-07-28", "2025-11-25")]
        {
            let result = initialize(Example::Clock, &json!({"protocolVersion": wanted})).unwrap();
            assert_eq!(result["protocolVersion"], agreed);
            assert_eq!(result["serverInfo"]["name"], "mcp-x-example-clock");
        }
    }

    #[test]
    fn every_tool_is_described() {
        for tool in [Example::Text, Example::Clock].iter().flat_map(|example| example.tools()) {
            let described = describe(tool);
            let properties = described["inputSchema"]["properties"].as_object().unwrap();
            assert!(tool.required.iter().all(|name| properties.contains_key(*name)), "{}", tool.name);
            assert!(properties.values().all(|property| property["description"].is_string()), "{}", tool.name);
            assert_eq!(described["annotations"]["readOnlyHint"], true);
        }
    }

    #[test]
    fn wrong_arguments_are_tool_errors() {
        for (arguments, text) in [
            (json!({}), "`text`: expected a string, found nothing"),
            (json!({"text": 5}), "`text`: expected a string, found `5`"),
            (json!({"text": "a", "decode": "yes"}), "`decode`: expected true or false, found a string"),
            (json!({"text": "a", "mode": 1}), "unknown argument: `mode`"),
            (json!([]), "arguments: expected an object, found an array"),
        ] {
            let (result, _) = call(Example::Text, &json!({"name": "text_base64", "arguments": arguments}), 0).unwrap();
            assert_eq!(result, tool_result(text, true));
        }
    }

    #[test]
    fn data_is_given_as_text_and_as_structured_content() {
        let (result, _) = call(Example::Clock, &json!({"name": "clock_now"}), 0).unwrap();
        let text = result["content"][0]["text"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), result["structuredContent"]);
        assert_eq!(result["isError"], false);
    }
}
