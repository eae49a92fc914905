//! The tools of the text server: counting, hashing, Base64 and JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::rpc::{Arguments, Output, Tool};

/// Deepest indentation of [`json_format`], in spaces a level.
const MAX_INDENT: i64 = 8;
/// Longest text [`json_format`] returns, in bytes: indentation grows with the square of the depth.
const MAX_FORMATTED: usize = 1024 * 1024;

/// All of them, in the order they are listed.
pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "text_stats",
        title: "Text statistics",
        description: "Counts the bytes (UTF-8), characters (Unicode code points), words (separated by white space) \
                      and lines of a text.",
        properties: || json!({"text": {"type": "string", "description": "The text to count"}}),
        required: &["text"],
        run: text_stats,
    },
    Tool {
        name: "text_hash",
        title: "SHA-256 of a text",
        description: "Computes the SHA-256 of a text's UTF-8 bytes, as 64 lower-case hexadecimal digits.",
        properties: || json!({"text": {"type": "string", "description": "The text to hash"}}),
        required: &["text"],
        run: text_hash,
    },
    Tool {
        name: "text_base64",
        title: "Base64",
        description: "Encodes a text as Base64 (RFC 4648, standard alphabet, padded), or decodes Base64 to the text \
                      it stands for.",
        properties: || {
            json!({
                "text": {"type": "string", "description": "The text to encode, or the Base64 to decode"},
                "decode": {"type": "boolean", "default": false, "description": "Whether to decode instead of encode"},
            })
        },
        required: &["text"],
        run: text_base64,
    },
    Tool {
        name: "json_format",
        title: "Format JSON",
        description: "Checks a JSON text and lays it out anew. Only white space changes: key order and the spelling \
                      of numbers and strings are kept.",
        properties: || {
            let indent = "Spaces for each level; 0 puts everything on one line";
            json!({
                "text": {"type": "string", "description": "The JSON text"},
                "indent": {"type": "integer", "minimum": 0, "maximum": MAX_INDENT, "default": 2, "description": indent},
            })
        },
        required: &["text"],
        run: json_format,
    },
];

fn text_stats(arguments: &Arguments<'_>, _: i64) -> Result<Output, String> {
    let text = arguments.required_text("text")?;
    Ok(Output::Data(json!({
        "bytes": text.len(),
        "chars": text.chars().count(),
        "words": text.split_whitespace().count(),
        "lines": text.lines().count(),
    })))
}

fn text_hash(arguments: &Arguments<'_>, _: i64) -> Result<Output, String> {
    let digest = Sha256::digest(arguments.required_text("text")?);
    Ok(Output::Text(digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn text_base64(arguments: &Arguments<'_>, _: i64) -> Result<Output, String> {
    let text = arguments.required_text("text")?;
    if !arguments.flag("decode")? {
        return Ok(Output::Text(STANDARD.encode(text)));
    }
    let bytes = STANDARD.decode(text).map_err(|error| format!("`text`: expected Base64: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| format!("`text`: expected Base64 of UTF-8 text: {error}"))?;
    Ok(Output::Text(text))
}

fn json_format(arguments: &Arguments<'_>, _: i64) -> Result<Output, String> {
    let text = arguments.required_text("text")?;
    let indent = arguments.integer("indent", 0..=MAX_INDENT)?.unwrap_or(2);
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("`text`: expected JSON: {error}"))?;
    let formatted = layout(text, usize::try_from(indent).unwrap_or_default());
    formatted.map(Output::Text).ok_or_else(|| format!("the formatted text would be longer than {MAX_FORMATTED} bytes"))
}

/// Lays out valid JSON, moving nothing but the white space between tokens; `None` if that becomes too long.
fn layout(json: &str, indent: usize) -> Option<String> {
    let mut out = String::with_capacity(json.len());
    let mut depth = 0_usize;
    let mut previous = "";
    let mut rest = json;
    while let Some((token, after)) = split_token(rest) {
        let opened = matches!(previous, "{" | "[");
        let closes = matches!(token, "}" | "]");
        if closes {
            depth = depth.saturating_sub(1);
        }
        // Nothing stands between the brackets of an empty object or array.
        if indent > 0 && (previous == "," || opened != closes) {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', depth * indent));
        } else if indent > 0 && previous == ":" {
            out.push(' ');
        }
        out.push_str(token);
        if out.len() > MAX_FORMATTED {
            return None;
        }
        if matches!(token, "{" | "[") {
            depth += 1;
        }
        (previous, rest) = (token, after);
    }
    Some(out)
}

/// Splits the first token off valid JSON.
fn split_token(json: &str) -> Option<(&str, &str)> {
    let json = json.trim_start();
    let end = match json.chars().next()? {
        '"' => {
            let mut escaped = false;
            let closing = json.char_indices().skip(1).find(|(_, c)| {
                let closes = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                closes
            });
            closing?.0 + 1
        }
        '{' | '}' | '[' | ']' | ',' | ':' => 1,
        _ => json.find(|c: char| c.is_ascii_whitespace() || ",]}".contains(c)).unwrap_or(json.len()),
    };
    json.split_at_checked(end)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::rpc::tests::run;
    use super::*;

    #[track_caller]
    fn check(tool: &str, arguments: Value, expected: Result<&str, &str>) {
        let found = run(TOOLS, tool, arguments.clone(), 0);
        let expected = expected.map(|text| Output::Text(text.to_owned())).map_err(str::to_owned);
        assert_eq!(found, expected, "{tool} {arguments}");
    }

    #[test]
    fn text_is_counted_in_four_ways() {
        for (text, [bytes, chars, words, lines]) in
            [("", [0, 0, 0, 0]), ("a b\nc", [5, 5, 3, 2]), ("é\u{1f600} \r\n", [9, 5, 1, 1]), ("\n\n", [2, 2, 0, 2])]
        {
            let counts = json!({"bytes": bytes, "chars": chars, "words": words, "lines": lines});
            assert_eq!(run(TOOLS, "text_stats", json!({"text": text}), 0), Ok(Output::Data(counts)), "{text:?}");
        }
    }

    #[test]
    fn hashes_are_those_of_fips_180() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check("text_hash", json!({"text": "abc"}), Ok(abc));
        check("text_hash", json!({"text": ""}), Ok("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    }

    #[test]
    fn base64_goes_both_ways() {
        check("text_base64", json!({"text": "hé"}), Ok("aMOp"));
        check("text_base64", json!({"text": "aMOp", "decode": true}), Ok("hé"));
        check("text_base64", json!({"text": "a", "decode": false}), Ok("YQ=="));
        let reason = "`text`: expected Base64: Invalid symbol 33, offset 2.";
        check("text_base64", json!({"text": "aM!p", "decode": true}), Err(reason));
        let reason = "`text`: expected Base64 of UTF-8 text: invalid utf-8 sequence of 1 bytes from index 0";
        check("text_base64", json!({"text": "//8=", "decode": true}), Err(reason));
    }

    #[test]
    fn json_is_laid_out_and_otherwise_left_alone() {
        let text = r#" {"b":[1.50,{},[ ] ,"x\"]: ,"],"a":{"\\":null,"b":1e999}, "b":[[1]]}"#;
        let pretty = r#"{
  "b": [
    1.50,
    {},
    [],
    "x\"]: ,"
  ],
  "a": {
    "\\": null,
    "b": 1e999
  },
  "b": [
    [
      1
    ]
  ]
}"#;
        let plain = r#"{"b":[1.50,{},[],"x\"]: ,"],"a":{"\\":null,"b":1e999},"b":[[1]]}"#;
        check("json_format", json!({"text": text}), Ok(pretty));
        check("json_format", json!({"text": pretty, "indent": 0}), Ok(plain));
        check("json_format", json!({"text": "[1]", "indent": 1}), Ok("[\n 1\n]"));
        check("json_format", json!({"text": " 12 "}), Ok("12"));
    }

    #[test]
    fn bad_json_is_refused_with_its_place() {
        check(
            "json_format",
            json!({"text": "{\n  \"a\" 1\n}"}),
            Err("`text`: expected JSON: expected `:` at line 2 column 7"),
        );
        check(
            "json_format",
            json!({"text": "[1]", "indent": 9}),
            Err("`indent`: expected an integer from 0 to 8, found `9`"),
        );
        let deep = "[".repeat(2_000) + &"]".repeat(2_000);
        check("json_format", json!({"text": deep}), Err("the formatted text would be longer than 1048576 bytes"));
    }
}
