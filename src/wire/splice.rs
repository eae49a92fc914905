//! A message rebuilt with some spans replaced, everything else byte for byte.
//!
//! This is what keeps the gateway lossless: numbers keep their spelling, objects their order, and unknown members stay.

use hyper::body::Bytes;

use super::json::Span;

/// Bytes of an unchanged stretch from which on it is shared instead of copied.
const WORTH_SHARING: usize = 8 * 1024;

/// A span, and what comes in its place.
type Edit<'a> = (Span, &'a [u8]);

/// Replacements in one message, collected and then carried out at once.
pub struct Splice<'a> {
    bytes: &'a [u8],
    /// The edits, while they are few, and how many.
    few: ([Edit<'a>; FEW], usize),
    /// All edits, once they are many.
    many: Vec<Edit<'a>>,
}

/// So many edits need no memory of their own.
const FEW: usize = 4;

impl<'a> Splice<'a> {
    /// Starts with the message as it is.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, few: ([(Span { start: 0, end: 0 }, b"".as_slice()); FEW], 0), many: Vec::new() }
    }

    /// Replaces the bytes of `span`; an empty span inserts. Spans must not overlap; of overlapping ones the first counts.
    #[must_use]
    pub fn replace(mut self, span: Span, with: &'a [u8]) -> Self {
        let (few, count) = &mut self.few;
        match few.get_mut(*count) {
            Some(free) => *free = (span, with),
            None => {
                if self.many.is_empty() {
                    self.many.extend_from_slice(few);
                }
                self.many.push((span, with));
            }
        }
        *count += 1;
        self
    }

    /// The same, if there is a span.
    #[must_use]
    pub fn replace_if(self, span: Option<Span>, with: &'a [u8]) -> Self {
        match span {
            Some(span) => self.replace(span, with),
            None => self,
        }
    }

    /// The new message.
    #[must_use]
    pub fn build(mut self) -> Vec<u8> {
        let (bytes, steps) = (self.bytes, self.steps());
        // Exactly so much, because then it becomes `Bytes` as it is.
        let mut out = Vec::with_capacity(steps.clone().map(|(kept, with)| kept.range().len() + with.len()).sum());
        for (kept, with) in steps {
            out.extend_from_slice(kept.of(bytes));
            out.extend_from_slice(with);
        }
        out
    }

    /// The new message in pieces that follow one another, nearly always one. Long stretches that stay as they are are not
    /// copied but share `whole`, which must be the message that the splice was made of.
    #[must_use]
    pub fn pieces(mut self, whole: &Bytes) -> Vec<Bytes> {
        if whole.len() < WORTH_SHARING {
            return vec![self.build().into()];
        }
        let (mut pieces, mut copied) = (Vec::new(), Vec::new());
        for (kept, with) in self.steps() {
            if kept.range().len() < WORTH_SHARING {
                copied.extend_from_slice(kept.of(whole));
            } else {
                pieces.push(Bytes::from(std::mem::take(&mut copied)));
                pieces.push(whole.slice(kept.range()));
            }
            copied.extend_from_slice(with);
        }
        pieces.push(copied.into());
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// The stretches that stay, each with what comes behind it.
    fn steps(&mut self) -> impl Iterator<Item = Edit<'a>> + Clone {
        let (few, count) = &mut self.few;
        let edits = if self.many.is_empty() { few.get_mut(..*count).unwrap_or_default() } else { &mut self.many };
        edits.sort_by_key(|(span, _)| span.start);
        let end = self.bytes.len();
        let mut at = 0;
        let edits = edits.iter().copied();
        edits.chain([(Span { start: end, end }, b"".as_slice())]).filter_map(move |(span, with)| {
            let kept = (span.start >= at).then_some(Span { start: at, end: span.start })?;
            at = span.end;
            Some((kept, with))
        })
    }
}

/// Rebuilds an object from some of its members, given as the spans of whole members (`"key": value`) or as new text.
#[must_use]
pub fn object_of<'a>(members: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> Vec<u8> {
    let members = members.into_iter();
    let length: usize = members.clone().map(|member| member.len() + 1).sum();
    let mut out = Vec::with_capacity(length + 2);
    out.push(b'{');
    for member in members {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(edits: &[(usize, usize, &str)], expected: &str) {
        let splice = edits.iter().fold(Splice::new(b"0123456789"), |s, (start, end, with)| {
            s.replace(Span { start: *start, end: *end }, with.as_bytes())
        });
        assert_eq!(String::from_utf8(splice.build()).unwrap(), expected);
    }

    #[test]
    fn long_stretches_are_shared_and_the_pieces_are_the_whole() {
        let whole: Bytes = (0..4 * WORTH_SHARING).map(|at| b'a' + (at % 26) as u8).collect::<Vec<_>>().into();
        let at = |start: usize, end: usize| Span { start, end };
        let end = whole.len();
        for edits in [
            vec![],
            vec![at(0, 0)],
            vec![at(end, end)],
            vec![at(0, end)],
            vec![at(20, 25), at(end - 3, end - 1)],
            vec![at(end / 2, end / 2 + 1), at(5, 9), at(6, 8)],
            vec![at(WORTH_SHARING - 1, WORTH_SHARING), at(2 * WORTH_SHARING, 2 * WORTH_SHARING)],
        ] {
            let splice = || edits.iter().fold(Splice::new(&whole), |splice, span| splice.replace(*span, b"+new+"));
            let pieces = splice().pieces(&whole);
            assert_eq!(pieces.concat(), splice().build(), "{edits:?}");
            assert!(pieces.iter().all(|piece| !piece.is_empty()), "{edits:?}");
            let own: usize =
                pieces.iter().filter(|piece| !whole.as_ptr_range().contains(&piece.as_ptr())).map(Bytes::len).sum();
            assert!(own < 2 * WORTH_SHARING, "{edits:?}: {own} bytes were copied");
        }
    }

    #[test]
    fn spans_are_replaced_and_the_rest_is_kept() {
        check(&[], "0123456789");
        check(&[(2, 4, "ab")], "01ab456789");
        check(&[(8, 10, ""), (0, 1, "xyz")], "xyz1234567");
        check(&[(5, 5, "+")], "01234+56789");
        check(&[(0, 10, "")], "");
        check(&[(2, 6, "a"), (4, 8, "b")], "01a6789");
        check(&[(10, 10, "end")], "0123456789end");
        let many = [9, 7, 5, 3, 1].map(|at| (at, at + 1, "-"));
        check(&many, "0-2-4-6-8-");
        check(many.get(..FEW).unwrap(), "012-4-6-8-");
    }

    #[test]
    fn objects_are_rebuilt_from_their_members() {
        assert_eq!(object_of([&b"\"a\": 1"[..], b"\"b\":[ ]"]), b"{\"a\": 1,\"b\":[ ]}");
        assert_eq!(object_of([]), b"{}");
    }
}
