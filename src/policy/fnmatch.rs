//! Patterns over names, exactly as Python's `fnmatch.fnmatchcase` reads them, in linear time.
//!
//! Knows `*` (any run of characters), `?` (any one), `[seq]` and `[!seq]` (one of a set, one outside it); everything else, a
//! `[` that is never closed included, stands for itself. Case counts, a character is a Unicode code point, a newline is a
//! character like any other, and nothing quotes. Which names to try, and what a match grants, is for [the registry](super).
//! Follows `fnmatch.translate` of CPython 3.11, whose answers are in `fixtures/fnmatch/`.
//!
//! # Algorithm
//!
//! Most patterns are one literal, or a prefix and a suffix around one `*`; those are compared as text. Any other becomes a
//! nondeterministic automaton run in parallel on the bits of a few words (Shift-And, Baeza-Yates and Gonnet 1992). With *m*
//! single-character elements there are *m* + 1 states; state *i* says "the first *i* elements have matched". A character that
//! element *i* accepts moves state *i* to *i* + 1, and a `*` before element *i* lets state *i* stay where it is.
//!
//! Which elements accept a character depends only on where it lies between the ends of all the sets' ranges, so those ends cut
//! the code points into intervals, and each interval has one row of bits. With *r* ranges in the pattern and *W* words to a
//! row, ⌈(*m* + 1) / 64⌉, a name of *n* characters costs O(*n* · (*W* + log *r*)) whatever the pattern. Compiling costs
//! O(*r* · (*W* + log *r*)) time and O(*r* · *W*) memory: 300 KiB at most for a pattern of 1,000 characters. How long a
//! pattern may be is for the configuration to say.

/// A pattern as it was written.
///
/// Holds the text only, so that a great many cost little; equal texts are equal patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

/// A [`Pattern`] made ready to be tried against many names.
#[derive(Clone, Debug)]
pub struct Matcher<'a>(Plan<'a>);

impl Pattern {
    /// Takes any text: every text is a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether the whole of `name` matches. To try many names, make one [`matcher`](Self::matcher).
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.matcher().matches(name)
    }

    /// Compiles the pattern. Time and memory are given in the [module's documentation](self).
    #[must_use]
    pub fn matcher(&self) -> Matcher<'_> {
        Matcher(Plan::new(&self.0))
    }
}

impl Matcher<'_> {
    /// Says whether the whole of `name` matches, in time linear in its length.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.0 {
            Plan::Literal(text) => name == *text,
            Plan::Affixes(prefix, suffix) => name.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(suffix)),
            Plan::Automaton(automaton) => automaton.matches(name),
        }
    }
}

/// How a pattern is compared.
#[derive(Clone, Debug)]
enum Plan<'a> {
    /// No wildcard: the name is this text.
    Literal(&'a str),
    /// One `*`: the name begins and ends like this, without overlap.
    Affixes(&'a str, &'a str),
    /// Anything else.
    Automaton(Automaton),
}

impl<'a> Plan<'a> {
    fn new(pattern: &'a str) -> Self {
        if pattern.contains(['?', '[']) {
            return Self::Automaton(Automaton::new(pattern));
        }
        let Some((prefix, rest)) = pattern.split_once('*') else { return Self::Literal(pattern) };
        let suffix = rest.trim_start_matches('*');
        if suffix.contains('*') { Self::Automaton(Automaton::new(pattern)) } else { Self::Affixes(prefix, suffix) }
    }
}

/// The states of a pattern and what moves them. Bit *i* of a row is bit *i* mod 64 of its word *i* / 64.
#[derive(Clone, Debug)]
struct Automaton {
    /// The last state: reached at the end of a name, it means a match.
    end: usize,
    /// The row of states that a `*` lets stay; as long as every row.
    stays: Vec<u64>,
    /// Where the intervals of the alphabet meet, ascending: code points at which the accepting elements change.
    bounds: Vec<u32>,
    /// The row of accepting elements for each interval, one after the other: row 0 is for code points below the first bound,
    /// row *k* for those from bound *k* − 1 on.
    accepts: Vec<u64>,
}

impl Automaton {
    fn new(pattern: &str) -> Self {
        let mut end = 0;
        let mut stars = Vec::new();
        let mut changes = Vec::new();
        for token in Tokens::new(pattern) {
            match token {
                Token::Star => stars.push(end),
                Token::One(set) => {
                    changes.extend(set.changes().map(|bound| (bound, end)));
                    end += 1;
                }
            }
        }
        changes.sort_unstable();

        let words = end / 64 + 1;
        let mut stays = vec![0; words];
        stars.into_iter().for_each(|state| flip(&mut stays, state));
        let mut row = vec![0; words];
        let mut accepts = row.clone();
        let mut bounds = Vec::new();
        for change in changes.chunk_by(|(a, _), (b, _)| a == b) {
            bounds.extend(change.first().map(|(bound, _)| bound));
            change.iter().for_each(|(_, element)| flip(&mut row, *element));
            accepts.extend_from_slice(&row);
        }
        Self { end, stays, bounds, accepts }
    }

    fn matches(&self, name: &str) -> bool {
        match self.stays.len() {
            1 => self.run(name, &mut [0]),
            words => self.run(name, &mut vec![0; words]),
        }
    }

    /// Runs `name` through the automaton, starting from no state at all.
    fn run(&self, name: &str, states: &mut [u64]) -> bool {
        flip(states, 0);
        for c in name.chars() {
            let mut carry = 0;
            let mut alive = 0;
            for ((state, accept), stay) in states.iter_mut().zip(self.accepting(c)).zip(&self.stays) {
                let moved = *state & accept;
                *state = (moved << 1) | carry | (*state & stay);
                carry = moved >> 63;
                alive |= *state;
            }
            if alive == 0 {
                return false;
            }
        }
        states.get(self.end / 64).is_some_and(|word| (word >> (self.end % 64)) & 1 == 1)
    }

    /// The row of elements that accept `c`.
    fn accepting(&self, c: char) -> &[u64] {
        let interval = self.bounds.partition_point(|bound| *bound <= u32::from(c));
        self.accepts.chunks_exact(self.stays.len()).nth(interval).unwrap_or_default()
    }
}

/// Flips one bit of a row.
fn flip(row: &mut [u64], bit: usize) {
    if let Some(word) = row.get_mut(bit / 64) {
        *word ^= 1 << (bit % 64);
    }
}

/// One step of a pattern.
enum Token {
    /// One or more `*` in a row.
    Star,
    /// An element: exactly one character, out of a set.
    One(Set),
}

/// Reads a pattern from left to right.
struct Tokens<'a> {
    rest: &'a str,
    /// No `]` is left to close a `[`. Without this, looking for one at every `[` of `[[[[…` would be quadratic.
    unclosed: bool,
}

impl<'a> Tokens<'a> {
    fn new(pattern: &'a str) -> Self {
        Self { rest: pattern, unclosed: false }
    }

    /// Takes what stands between a `[`, already taken, and its `]`. A `]` in front, or behind a `!` in front, does not close.
    fn bracketed(&mut self) -> Option<&'a str> {
        if self.unclosed {
            return None;
        }
        let body = self.rest.strip_prefix('!').unwrap_or(self.rest);
        let body = body.strip_prefix(']').unwrap_or(body);
        let Some((_, after)) = body.split_once(']') else {
            self.unclosed = true;
            return None;
        };
        let inside = self.rest.strip_suffix(after)?.strip_suffix(']')?;
        self.rest = after;
        Some(inside)
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        Some(match c {
            '*' => {
                self.rest = self.rest.trim_start_matches('*');
                Token::Star
            }
            '?' => Token::One(Set { negated: true, ranges: Vec::new() }),
            '[' => Token::One(self.bracketed().map_or_else(|| Set::of('['), Set::parse)),
            c => Token::One(Set::of(c)),
        })
    }
}

/// A set of characters.
struct Set {
    /// The set is everything outside `ranges`.
    negated: bool,
    /// First and last character of each range, in any order, possibly overlapping.
    ranges: Vec<(char, char)>,
}

impl Set {
    fn of(c: char) -> Self {
        Self { negated: false, ranges: vec![(c, c)] }
    }

    /// Reads what stands between the brackets.
    ///
    /// CPython first removes ranges that run backwards, then looks whether a `!` comes first. So in `[b-a!c]` the `!` negates,
    /// and in `[b-a!-c]` it does too, which leaves `-` and `c` as plain characters.
    fn parse(inside: &str) -> Self {
        let chars: Vec<char> = inside.chars().collect();
        let (negated, mut rest) = match chars.as_slice() {
            ['!', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let mut set = Self { negated, ranges: Vec::new() };
        while let [first, tail @ ..] = rest {
            let leads = !set.negated && set.ranges.is_empty();
            if let ['-', last, after @ ..] = tail {
                rest = after;
                if first <= last && *first == '!' && leads {
                    set.negated = true;
                    set.ranges.extend([('-', '-'), (*last, *last)]);
                } else if first <= last {
                    set.ranges.push((*first, *last));
                }
            } else {
                rest = tail;
                if *first == '!' && leads {
                    set.negated = true;
                } else {
                    set.ranges.push((*first, *first));
                }
            }
        }
        set
    }

    /// Where membership changes, going up through the code points from outside: at the start of each run of members and behind
    /// its end. A negated set is entered at 0 besides.
    fn changes(self) -> impl Iterator<Item = u32> {
        let mut runs: Vec<_> =
            self.ranges.into_iter().map(|(first, last)| (u32::from(first), u32::from(last) + 1)).collect();
        runs.sort_unstable();
        runs.dedup_by(|next, run| {
            let joined = next.0 <= run.1;
            if joined {
                run.1 = run.1.max(next.1);
            }
            joined
        });
        self.negated.then_some(0).into_iter().chain(runs.into_iter().flat_map(|(start, end)| [start, end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries both the pattern as it would be used and the automaton, which the shortcuts must agree with.
    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        assert_eq!(Pattern::new(pattern).matches(name), expected, "pattern {pattern:?}, name {name:?}");
        assert_eq!(Automaton::new(pattern).matches(name), expected, "automaton of {pattern:?}, name {name:?}");
    }

    #[test]
    fn every_answer_of_cpython_is_given() {
        let rows: Vec<(String, String, bool)> = include_str!("../../fixtures/fnmatch/oracle.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(rows.len() >= 3_000, "only {} rows", rows.len());
        rows.iter().for_each(|(pattern, name, expected)| check(pattern, name, *expected));
    }

    #[test]
    fn random_patterns_match_as_a_naive_matcher_says() {
        let mut random = Random(0x2026_1122);
        let mut matched = 0;
        for round in 0..25_000 {
            // Every fifth round the interesting part straddles the border between two words.
            let lead = "a".repeat(if round % 5 > 0 { 0 } else { 55 + random.below(12) });
            let set = format!("[{}]", random.text("!-^ab]\\&é-", 6));
            let pieces = ["*", "?", "a", "b", "[", "]", "!", "\\", &set, &set, "*"];
            let pattern: String = (0..random.below(6)).map(|_| pieces[random.below(pieces.len())]).collect();
            let pattern = lead.clone() + &pattern;
            let name = lead + &random.text("aab-]!\\\né[", 4);
            let expected = naive(&chars(&pattern), &chars(&name));
            matched += usize::from(expected);
            check(&pattern, &name, expected);
        }
        assert!(matched > 2_000, "only {matched} of the cases matched");
    }

    #[test]
    fn a_matcher_is_used_again_and_again() {
        let pattern = Pattern::new("tool_[0-9]*_?");
        let matcher = pattern.matcher();
        let names = ["tool_1_a", "tool_x_a", "tool_22_b", "tool_1_", "tool_1_é", ""];
        assert_eq!(names.map(|name| matcher.matches(name)), [true, false, true, false, true, false]);
    }

    /// Backtracking would not come to an end here, nor would looking for a `]` at every `[`.
    #[test]
    fn hostile_patterns_end() {
        let (stars, name) = ("*a".repeat(5_000), "a".repeat(100_000));
        for (pattern, name, expected) in [
            (stars.clone() + "*b", &*name, false),
            (stars + "*", &*name, true),
            ("[".repeat(500_000), "[[", false),
            (format!("[{}]", "é-a".repeat(300_000)), "é", false),
        ] {
            assert_eq!(Pattern::new(&pattern).matches(name), expected, "pattern {pattern:.10}…, name {name:.10}…");
        }
    }

    #[test]
    fn a_pattern_holds_no_more_than_its_text() {
        assert_eq!(size_of::<Pattern>(), size_of::<Box<str>>());
        assert_eq!(Pattern::new("a*[b").as_str(), "a*[b");
    }

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    /// Tries every way of splitting the name: exponential, but evidently right.
    fn naive(pattern: &[char], name: &[char]) -> bool {
        let Some((first, rest)) = pattern.split_first() else { return name.is_empty() };
        if *first == '*' {
            return (0..=name.len()).any(|skip| naive(rest, &name[skip..]));
        }
        let Some((c, others)) = name.split_first() else { return false };
        match (first, closing(rest)) {
            ('?', _) => naive(rest, others),
            ('[', Some(end)) => in_set(&rest[..end], *c) && naive(&rest[end + 1..], others),
            _ => first == c && naive(rest, others),
        }
    }

    /// Where the bracket closes, counted from behind the opening one.
    fn closing(rest: &[char]) -> Option<usize> {
        let mut from = usize::from(rest.first() == Some(&'!'));
        from += usize::from(rest.get(from) == Some(&']'));
        (from..rest.len()).find(|at| rest[*at] == ']')
    }

    /// CPython's own steps: cut into chunks at the hyphens that make ranges, glue the chunks of empty ranges together, join the
    /// others by hyphens (here `None`), and read the result as a regular expression does.
    fn in_set(stuff: &[char], c: char) -> bool {
        let mut chunks: Vec<Vec<char>> = Vec::new();
        let (mut start, mut from) = (0, if stuff[0] == '!' { 2 } else { 1 });
        while let Some(hyphen) = (from..stuff.len()).find(|at| stuff[*at] == '-') {
            chunks.push(stuff[start..hyphen].to_vec());
            (start, from) = (hyphen + 1, hyphen + 3);
        }
        match (&stuff[start..], chunks.last_mut()) {
            ([], Some(chunk)) => chunk.push('-'),
            (chunk, _) => chunks.push(chunk.to_vec()),
        }
        for k in (1..chunks.len()).rev() {
            if chunks[k - 1].last() > chunks[k].first() {
                let tail = chunks.remove(k);
                chunks[k - 1].pop();
                chunks[k - 1].extend(&tail[1..]);
            }
        }
        let chunks: Vec<Vec<_>> = chunks.into_iter().map(|chunk| chunk.into_iter().map(Some).collect()).collect();
        let joined = chunks.join(&None);
        match joined.strip_prefix(&[Some('!')]) {
            Some(rest) => !in_class(rest, c),
            None => in_class(&joined, c),
        }
    }

    /// Membership in a regular expression's character class, where a leading hyphen is a plain one.
    fn in_class(class: &[Option<char>], c: char) -> bool {
        match class {
            [] => false,
            [Some(first), None, Some(last), rest @ ..] => (*first..=*last).contains(&c) || in_class(rest, c),
            [first, rest @ ..] => first.unwrap_or('-') == c || in_class(rest, c),
        }
    }

    /// Xorshift, so that every run tries the same cases.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % limit as u64).unwrap()
        }

        fn text(&mut self, alphabet: &str, longest: usize) -> String {
            let alphabet = chars(alphabet);
            (0..self.below(longest + 1)).map(|_| alphabet[self.below(alphabet.len())]).collect()
        }
    }
}
