//! The query of a URL, as forms write it (WHATWG URL, 5.1): `a=1&b=x+y%21`.

/// Takes a query apart into its parameters, in order.
///
/// # Errors
/// A message when a `%` is not followed by two hexadecimal digits, or what it stands for is not UTF-8.
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => escaped(&mut rest).ok_or("expected two hexadecimal digits after `%` in the query")?,
            plain => plain,
        });
    }
    String::from_utf8(bytes).map_err(|_| "expected UTF-8 in the query".to_owned())
}

fn escaped(rest: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || char::from(rest.next()?).to_digit(16);
    u8::try_from(digit()? * 16 + digit()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_in_order() {
        #[track_caller]
        fn check(query: &str, expected: &[(&str, &str)]) {
            let found = parameters(query).unwrap();
            let found: Vec<(&str, &str)> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(found, expected, "{query}");
        }
        check("", &[]);
        check("tool=a&client=b", &[("tool", "a"), ("client", "b")]);
        check("tool=a%2Fb+c%c3%BC&&x", &[("tool", "a/b cü"), ("x", "")]);
        check("a=b=c&a=", &[("a", "b=c"), ("a", "")]);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for query in ["a=%", "a=%2", "a=%zz", "%+1=a", "a=%ff", "a=%c3"] {
            assert!(parameters(query).is_err(), "{query}");
        }
    }
}
