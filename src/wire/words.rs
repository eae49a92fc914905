//! Looking for certain bytes in many, eight or thirty-two at a time.
//!
//! Which bytes are meant is told for a word of eight: the lowest bit that is set must stand in the first of them, counted
//! from the low end, and none may be set if there is none. [`equal`] and [`below`] do that, and any `|` of them.

const LOW: u64 = u64::MAX / 255;
const HIGH: u64 = LOW * 0x80;

/// Marks the bytes of a word that are less than `n`, which is at most 128. Behind the first, others may be marked as well.
pub(super) fn below(word: u64, n: u8) -> u64 {
    word.wrapping_sub(LOW * u64::from(n)) & !word & HIGH
}

/// Marks the bytes of a word that are `byte`, in the same way.
pub(super) fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (LOW * u64::from(byte)), 1)
}

/// The first byte of those that `marked` marks, which must not mark 255.
pub(super) fn find(bytes: &[u8], marked: impl Fn(u64) -> u64) -> Option<usize> {
    let at = |marks: u64| marks.trailing_zeros() as usize / 8;
    let (words, rest) = bytes.as_chunks::<8>();
    for (position, word) in words.iter().enumerate() {
        let marks = marked(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(position * 8 + at(marks));
        }
    }
    let mut last = [0xff; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let marks = marked(u64::from_le_bytes(last));
    (marks != 0).then(|| words.len() * 8 + at(marks))
}

/// Length of the blocks at the beginning in which no byte `is` other than 0. Blocks are tested as a whole, without a branch
/// in them, which the compiler turns into vector instructions; with `bool` instead of `u8` it does not, and is twelve
/// times slower.
pub(super) fn clean_blocks(bytes: &[u8], is: impl Fn(u8) -> u8) -> usize {
    let (blocks, _) = bytes.as_chunks::<32>();
    blocks.iter().take_while(|block| block.iter().fold(0, |found, &byte| found | is(byte)) == 0).count() * 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_marked_byte_is_found_among_all_others() {
        let marked = |word| below(word, 0x20) | equal(word, b'"');
        let is_marked = |byte: u8| byte < 0x20 || byte == b'"';
        for byte in 0..=0xfe_u8 {
            for length in 1..20 {
                for at in 0..length {
                    let mut bytes = vec![b'x'; length];
                    bytes[at..].fill(byte);
                    assert_eq!(find(&bytes, marked), is_marked(byte).then_some(at), "{byte} of {length}");
                }
            }
        }
        assert_eq!((find(b"", marked), find(&[0xff; 9], marked)), (None, None));
    }

    #[test]
    fn only_whole_clean_blocks_count() {
        let is = |byte| u8::from(byte == b'!');
        for length in [0, 31, 32, 33, 64, 100] {
            assert_eq!(clean_blocks(&vec![b'x'; length], is), length / 32 * 32);
        }
        let mut bytes = [b'x'; 100];
        bytes[40] = b'!';
        assert_eq!(clean_blocks(&bytes, is), 32);
    }
}
