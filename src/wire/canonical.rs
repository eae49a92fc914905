//! A digest of a request that stays the same however its sender writes it down.
//!
//! A client that is asked for input sends its request again, and may have parsed and written it anew in between: members in
//! another order, numbers and strings spelt otherwise. Source: protocol.md 4.5.

use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};

/// Integers that are the same as a float and as an integer: ±(2^53 − 1).
const SAFE: f64 = 9_007_199_254_740_991.0;

/// The digest of a request for `name` with these arguments, a JSON text or nothing.
#[must_use]
pub fn digest(name: &str, arguments: &[u8]) -> [u8; 32] {
    let arguments = serde_json::from_slice(arguments).map_or(Value::Null, normalised);
    // Objects of `serde_json` are sorted by their keys.
    Sha256::digest(Value::Array(vec![name.into(), arguments]).to_string()).into()
}

fn normalised(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(integer(&number).unwrap_or(number)),
        Value::Array(items) => items.into_iter().map(normalised).collect(),
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, normalised(value))).collect(),
        other => other,
    }
}

/// `42.0` as 42.
#[expect(clippy::cast_possible_truncation, reason = "it is an integer within the range of both")]
fn integer(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() <= SAFE)?;
    Some(Number::from(float as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_otherwise_is_the_same_and_what_says_something_else_is_not() {
        let of = |arguments: &str| digest("t", arguments.as_bytes());
        assert_eq!(of(r#"{"a":1,"b":{"d":2.0,"c":"\u00e9"}}"#), of(r#" { "b" : {"c":"é","d":2}, "a":1.0 } "#));
        assert_eq!(of(r#"{"a":1e2}"#), of(r#"{"a":100}"#));
        assert_eq!(of(r#"{"a":-0.0}"#), of(r#"{"a":0}"#));
        let different = [
            "{}",
            "",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1.5}"#,
            r#"{"a":null}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
        ];
        for (at, one) in different.iter().enumerate() {
            assert!(different[..at].iter().all(|other| of(other) != of(one)), "{one}");
        }
        assert_ne!(digest("t", b"{}"), digest("u", b"{}"));
    }
}
