//! Bytes as hexadecimal digits, in lower case.

/// Writes bytes, two digits each.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text is what [`encode`] writes for so many bytes.
#[must_use]
pub fn is_encoded(text: &str, bytes: usize) -> bool {
    text.len() == 2 * bytes && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads what [`encode`] writes for `N` bytes; `None` if it is anything else.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode_all(text)?.try_into().ok()
}

/// Reads what [`encode`] writes, however long; `None` if it is anything else.
#[must_use]
pub fn decode_all(text: &str) -> Option<Vec<u8>> {
    if !is_encoded(text, text.len() / 2) {
        return None;
    }
    let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    Some(pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode_all(&encode(&all)), Some(all));
        assert_eq!((decode("009aff"), decode::<0>("")), (Some([0x00, 0x9a, 0xff]), Some([])));
        assert_eq!((decode::<2>("009aff"), decode::<4>("009aff")), (None, None));
        for odd in ["009af", "009AFF", "00 aff", "\u{e9}", "0x"] {
            assert_eq!(decode_all(odd), None, "{odd}");
        }
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(encode(&[0x00, 0x9a, 0xff]), "009aff");
        assert_eq!(encode(&[]), "");
        assert!(is_encoded("009aff", 3) && is_encoded("", 0));
        for odd in ["009af", "009aff0", "009AFF", "00 aff", "\u{e9}\u{e9}\u{e9}"] {
            assert!(!is_encoded(odd, 3), "{odd}");
        }
    }
}
