//! What is left of a message that is not kept.
//!
//! A message for which there is no room is still to be answered, and an answer needs its id. [`Skim`] reads a message of
//! any size and keeps the message's own members; of objects and lists in them only the brackets are kept. It checks
//! nothing: whether what is left is a message is for the reader of messages to say.

/// A message being skimmed.
#[derive(Debug, Default)]
pub struct Skim {
    kept: Vec<u8>,
    depth: usize,
    in_string: bool,
    /// The last character was a backslash, within a string.
    escaped: bool,
}

/// Bytes that are kept at most; a message with more in its own members is not answered.
const MOST: usize = 4 * 1024;

impl Skim {
    /// Reads on.
    pub fn push(&mut self, chunk: &[u8]) {
        chunk.iter().for_each(|byte| self.read(*byte));
    }

    /// What is left.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.kept
    }

    fn read(&mut self, byte: u8) {
        let before = self.depth;
        if self.in_string {
            self.in_string = byte != b'"' || self.escaped;
            self.escaped = byte == b'\\' && !self.escaped;
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if before.min(self.depth) <= 1 && self.kept.len() < MOST {
            self.kept.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        for size in [1, 2, 7, text.len().max(1)] {
            let mut skim = Skim::default();
            text.as_bytes().chunks(size).for_each(|chunk| skim.push(chunk));
            assert_eq!(String::from_utf8_lossy(&skim.finish()), expected, "{text}");
        }
    }

    #[test]
    fn the_own_members_are_kept_and_what_is_in_them_is_not() {
        check(r#"{"id":1,"params":{"a":[{"b":2}],"id":3},"x":[4,[5]]}"#, r#"{"id":1,"params":{},"x":[]}"#);
        check(r#" { "id" : "}" , "a" : "\"{[" }"#, r#" { "id" : "}" , "a" : "\"{[" }"#);
        check(r#"{"params":{"a":"}","b":"\\","c":"\"}"},"id":"\\\""}"#, r#"{"params":{},"id":"\\\""}"#);
        check("[1,[2]]", "[1,[]]");
        check("", "");
        check("}}}{", "}}}{");
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut skim = Skim::default();
        skim.push(&vec![b' '; 3 * MOST]);
        assert_eq!(skim.finish().len(), MOST);
    }
}
