//! Whether an answer is what `/openapi.json` says: route, status, headers, content type, and every member of the body.
//!
//! Knows the part of JSON Schema 2020-12 that the document uses, and panics on a keyword that it does not know.

use std::sync::OnceLock;

use serde_json::Value;

use super::http::Answer;

/// Headers that belong to HTTP and are not described.
const PLAIN: [&str; 9] = [
    "access-control-allow-origin",
    "access-control-expose-headers",
    "connection",
    "content-length",
    "content-type",
    "date",
    "transfer-encoding",
    "vary",
    "x-accel-buffering",
];

/// The document as the gateway serves it.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    let text = include_str!("../../../src/http/openapi/openapi.json");
    DOCUMENT.get_or_init(|| serde_json::from_str(text).unwrap())
}

/// Checks an answer to this request.
#[track_caller]
pub(crate) fn check_answer(method: &str, path: &str, answer: &Answer) {
    let problems = problems_of(document(), method, path, answer);
    assert!(problems.is_empty(), "{method} {path}: {}\n{answer:?}", problems.join("\n"));
}

fn problems_of(document: &Value, method: &str, path: &str, answer: &Answer) -> Vec<String> {
    let path = path.split('?').next().unwrap_or_default();
    let method = if method == "HEAD" { "get" } else { &method.to_ascii_lowercase() };
    let item = &document["paths"][path];
    let operation =
        if item[method].is_null() { item.as_object().and_then(|i| i.values().next()) } else { Some(&item[method]) };
    let Some(operation) = operation else { return vec![format!("{path} is not documented")] };
    let response = resolve(document, &operation["responses"][answer.status().to_string()]);
    if response.is_null() {
        return vec![format!("status {} is not documented", answer.status())];
    }
    let mut problems = headers(document, response, answer);
    let content_type = answer.head.header("content-type");
    match (content_type.map(|t| t.split(';').next().unwrap_or_default()), response["content"].as_object()) {
        (None, None) => {}
        (Some(found), Some(content)) if content.contains_key(found) => {
            if found == "application/json" && method != "head" && !answer.body.is_empty() {
                check(document, &content[found]["schema"], &answer.json(), "", &mut problems);
            }
        }
        (found, _) => problems.push(format!("content type {found:?} is not documented")),
    }
    problems
}

fn headers(document: &Value, response: &Value, answer: &Answer) -> Vec<String> {
    let documented = response["headers"].as_object().unwrap();
    let mut problems = Vec::new();
    for name in answer.head.names().filter(|name| !PLAIN.contains(name)) {
        if !documented.keys().any(|known| known.eq_ignore_ascii_case(name)) {
            problems.push(format!("header {name} is not documented"));
        }
    }
    for (name, header) in documented {
        let needed = resolve(document, header)["required"] == true;
        if needed && answer.head.header(&name.to_ascii_lowercase()).is_none() {
            problems.push(format!("header {name} is missing"));
        }
    }
    problems
}

/// Follows a `$ref` within the document.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads elsewhere"));
            document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
    }
}

/// Checks a value against a schema; `at` is the JSON pointer of the value.
fn check(document: &Value, schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
    let schema = resolve(document, schema);
    for (keyword, argument) in schema.as_object().unwrap_or_else(|| panic!("no schema: {schema}")) {
        let fits =
            match keyword.as_str() {
                "description" | "format" => true,
                "type" => is_type(argument, value),
                "const" => argument == value,
                "enum" => argument.as_array().unwrap().contains(value),
                "minimum" => value.as_i64().is_none_or(|v| v >= argument.as_i64().unwrap()),
                "minLength" => value.as_str().is_none_or(|v| v.chars().count() as u64 >= argument.as_u64().unwrap()),
                "maxLength" => value.as_str().is_none_or(|v| v.chars().count() as u64 <= argument.as_u64().unwrap()),
                // Of requests; those of answers are times.
                "pattern" => value.as_str().is_none_or(|v| v.len() == 24 && v.ends_with('Z') && v.contains('T')),
                "anyOf" => argument.as_array().unwrap().iter().any(|schema| {
                    let mut found = Vec::new();
                    check(document, schema, value, at, &mut found);
                    found.is_empty()
                }),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        check(document, argument, item, &format!("{at}/{index}"), problems);
                    }
                    true
                }
                "required" => argument.as_array().unwrap().iter().all(|name| {
                    !value[name.as_str().unwrap()].is_null() || value.get(name.as_str().unwrap()).is_some()
                }),
                "properties" => {
                    for (name, member) in value.as_object().into_iter().flatten() {
                        match argument.get(name) {
                            Some(schema) => check(document, schema, member, &format!("{at}/{name}"), problems),
                            None if schema["additionalProperties"] == false => {
                                problems.push(format!("{at}/{name} is not documented"));
                            }
                            None => {}
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    if schema["properties"].is_null() {
                        for (name, member) in value.as_object().into_iter().flatten() {
                            check(document, argument, member, &format!("{at}/{name}"), problems);
                        }
                    }
                    true
                }
                other => panic!("unknown keyword {other}"),
            };
        if !fits {
            problems.push(format!("{at}: {value} does not fit {keyword}: {argument}"));
        }
    }
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn problems(schema: &Value, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        check(&json!({}), schema, value, "", &mut problems);
        problems
    }

    #[test]
    fn what_does_not_fit_is_found() {
        let schema = json!({
            "type": "object",
            "properties": { "a": { "type": "integer", "minimum": 1 }, "b": { "type": "array", "items": { "enum": ["x"] } } },
            "required": ["a"],
            "additionalProperties": false
        });
        assert_eq!(problems(&schema, &json!({ "a": 1, "b": ["x"] })), [""; 0]);
        for wrong in [
            json!({}),
            json!([]),
            json!({ "a": 0 }),
            json!({ "a": "1" }),
            json!({ "a": 1, "b": ["y"] }),
            json!({ "a": 1, "c": 1 }),
        ] {
            assert_ne!(problems(&schema, &wrong), [""; 0], "{wrong}");
        }
        let either = json!({ "anyOf": [{ "type": "string", "maxLength": 2 }, { "type": "null" }] });
        assert_eq!(problems(&either, &json!(null)).len() + problems(&either, &json!("ab")).len(), 0);
        assert_eq!(problems(&either, &json!("abc")).len(), 1);
        let map = json!({ "type": "object", "additionalProperties": { "type": "boolean" } });
        assert_eq!(problems(&map, &json!({ "x": true })), [""; 0]);
        assert_eq!(problems(&map, &json!({ "x": 1 })).len(), 1);
    }
}
