//! A digest of a request that stays the same however its sender writes it down.
//!
//! A client that is asked for input sends its request again, and may have parsed and written it anew in between: members in
//! another order, numbers and strings spelt otherwise. Source: protocol.md 4.5.

use sha2::{Digest as _, Sha256};

use super::headers::integer;
use super::json::{Duplicates, JsonError, JsonType, Scanner, text_of, type_of, write_text};

/// Deepest nesting that is put in order; what is deeper has to come as it was written.
const DEPTH: usize = 256;

/// The digest of a request for `name` with these arguments, a JSON text or nothing.
#[must_use]
pub fn digest(name: &str, arguments: &[u8]) -> [u8; 32] {
    let mut text = Vec::with_capacity(arguments.len() + name.len() + 4);
    write_text(&mut text, name);
    match canonical(arguments) {
        Ok(canonical) => text.extend(canonical),
        // SECURITY: what is no JSON, or too deep, is itself and nothing else.
        Err(_) => text.extend_from_slice(&[b"!", arguments].concat()),
    }
    Sha256::digest(text).into()
}

fn canonical(arguments: &[u8]) -> Result<Vec<u8>, JsonError> {
    let mut scanner = Scanner::new(arguments, DEPTH, Duplicates::LastCounts)?;
    let text = value(&mut scanner, arguments)?;
    scanner.end().map(|()| text)
}

/// The value that comes next: objects sorted by their keys, without white space, numbers and strings in one spelling.
fn value(scanner: &mut Scanner<'_>, bytes: &[u8]) -> Result<Vec<u8>, JsonError> {
    match scanner.peek() {
        Some(b'{') => {
            let mut members = Vec::new();
            scanner.object(|s, key| {
                let mut member = Vec::new();
                write_text(&mut member, &key);
                member.push(b':');
                member.extend(value(s, bytes)?);
                members.push((key.into_owned(), member));
                Ok(())
            })?;
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            let members: Vec<Vec<u8>> = members.into_iter().map(|(_, member)| member).collect();
            Ok([b"{", members.join(&b',').as_slice(), b"}"].concat())
        }
        Some(b'[') => {
            let mut items = Vec::new();
            scanner.array(|s| {
                items.push(value(s, bytes)?);
                Ok(())
            })?;
            Ok([b"[", items.join(&b',').as_slice(), b"]"].concat())
        }
        _ => scanner.value().map(|span| plain(span.of(bytes))),
    }
}

fn plain(value: &[u8]) -> Vec<u8> {
    match type_of(value) {
        JsonType::Number => number(value),
        JsonType::String => match text_of(value) {
            Some(text) => {
                let mut out = Vec::new();
                write_text(&mut out, &text);
                out
            }
            // Half a character: in the one spelling it has.
            None => value.to_vec(),
        },
        _ => value.to_vec(),
    }
}

/// `42.0` and `4.2e1` as 42; what a float would not hold exactly stays as it is written.
fn number(value: &[u8]) -> Vec<u8> {
    if let Some(integer) = integer(value) {
        return format!("{integer:.0}").into_bytes();
    }
    let text = std::str::from_utf8(value).unwrap_or_default();
    let digits = text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && !digits => format!("{number:e}").into_bytes(),
        _ => value.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_otherwise_is_the_same() {
        let same = |one: &str, other: &str| {
            assert_eq!(digest("t", one.as_bytes()), digest("t", other.as_bytes()), "{one} {other}");
        };
        same(r#"{"a":1,"b":{"d":2.0,"c":"\u00e9"}}"#, r#" { "b" : {"c":"é","d":2}, "a":1.0 } "#);
        same(r#"{"a":1e2}"#, r#"{"a":100}"#);
        same(r#"{"a":-0.0}"#, r#"{"a":0}"#);
        same(r#"[1.50, 1e21]"#, r#"[1.5,1.0E+21]"#);
        same(r#"{"\u0061":[ ]}"#, r#"{"a":[]}"#);
    }

    #[test]
    fn what_says_something_else_is_not() {
        let different = [
            "{}",
            "",
            "null",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1.5}"#,
            r#"{"a":null}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":1e999}"#,
            r#"{"a":1e999,"b":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\ud801"}"#,
            r#"{"a":18446744073709551617}"#,
            r#"{"a":18446744073709551999}"#,
            r#"{"a":"#,
            r#"{"b":"#,
        ];
        for (at, one) in different.iter().enumerate() {
            for other in &different[..at] {
                assert_ne!(digest("t", one.as_bytes()), digest("t", other.as_bytes()), "{one} {other}");
            }
        }
        assert_ne!(digest("t", b"{}"), digest("u", b"{}"));
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        assert_ne!(digest("t", deep.as_bytes()), digest("t", b"null"));
    }
}
