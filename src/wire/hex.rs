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

#[cfg(test)]
mod tests {
    use super::*;

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
