//! URI templates as servers list them (RFC 6570), read backwards: whether a URI may have come from one.
//!
//! It only says which server a URI belongs to. Whether a client may read it is decided on the URI itself, so that a template
//! may take in more than it would expand to: values are not checked against one another, nor is what is escaped in them.

/// Bytes of a URI that is compared; a longer one matches nothing.
const LONGEST_URI: usize = 8 * 1024;
/// Expressions of a template that is compared; one with more matches nothing.
const MOST_EXPRESSIONS: usize = 32;

/// A template, ready for comparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    /// Whether it is too much to compare.
    excessive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Stands in the URI as it is.
    Literal(String),
    /// `{var}`, `{var:3}`, `{a,b}`: at least one byte, and none of [`ends_segment`].
    Segment,
    /// An expression with an operator, which may bring what it likes, or nothing.
    Any,
}

/// The operators of RFC 6570, 2.2, less those that it keeps for later.
const OPERATORS: [char; 7] = ['+', '#', '.', '/', ';', '?', '&'];

impl Template {
    /// Reads a template. Braces that enclose nothing, or are not closed, stand for themselves.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('}') {
            rest = after;
            match before.rsplit_once('{') {
                Some((front, expression)) if !expression.is_empty() => {
                    literal.push_str(front);
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(if expression.starts_with(OPERATORS) { Part::Any } else { Part::Segment });
                }
                _ => {
                    literal.push_str(before);
                    literal.push('}');
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let expressions = parts.iter().filter(|part| !matches!(part, Part::Literal(_))).count();
        Self { parts, excessive: expressions > MOST_EXPRESSIONS }
    }

    /// Whether the template may have become this URI.
    ///
    /// SECURITY: servers choose the template and clients the URI, and one URI may be compared with thousands of templates.
    /// All ways to match go forward together, so that the time is at most that of comparing each byte of the one with each
    /// of the other, and both are bounded.
    #[must_use]
    pub fn matches(&self, uri: &str) -> bool {
        if self.excessive || uri.len() > LONGEST_URI {
            return false;
        }
        let uri = uri.as_bytes();
        let ends = self.parts.iter().try_fold(vec![0], |starts, part| {
            let ends = part.ends(starts, uri);
            (!ends.is_empty()).then_some(ends)
        });
        ends.and_then(|ends| ends.last().copied()) == Some(uri.len())
    }
}

impl Part {
    /// Where the part may end in `uri` if it begins at one of `starts`; both are in ascending order.
    fn ends(&self, mut starts: Vec<usize>, uri: &[u8]) -> Vec<usize> {
        match self {
            Self::Literal(text) => {
                starts.retain(|start| uri.get(*start..).is_some_and(|rest| rest.starts_with(text.as_bytes())));
                starts.iter_mut().for_each(|at| *at += text.len());
                starts
            }
            Self::Segment => {
                let (mut ends, mut at) = (Vec::new(), 0);
                for start in starts {
                    // A start that was passed already leads nowhere else.
                    at = start.max(at);
                    while uri.get(at).is_some_and(|byte| !ends_segment(*byte)) {
                        at += 1;
                        ends.push(at);
                    }
                }
                ends
            }
            Self::Any => starts.first().map(|first| (*first..=uri.len()).collect()).unwrap_or_default(),
        }
    }
}

/// What a simple expression escapes in its values and would end a segment of a path.
fn ends_segment(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, matching: &[&str], others: &[&str]) {
        let parsed = Template::parse(template);
        for uri in matching {
            assert!(parsed.matches(uri), "{template} should match {uri}");
        }
        for uri in others {
            assert!(!parsed.matches(uri), "{template} should not match {uri}");
        }
    }

    #[test]
    fn simple_expressions_stay_within_a_segment() {
        check(
            "file:///{name}",
            &["file:///a", "file:///a.b%2F", "file:///\u{e9}"],
            &["file:///", "file:///a/b", "file://a"],
        );
        check("x://{a}/{b}", &["x://1/2"], &["x://1/", "x:///2", "x://1/2/3", "x://1/2?q", "x://1/2#f", "y://1/2"]);
        check("x://{a}-{b}.txt", &["x://1-2.txt", "x://1-2-3.txt.txt"], &["x://-2.txt", "x://1-.txt", "x://1-2.txt0"]);
        for same in ["x:{a,b}", "x:{a:3}", "x:{a*}"] {
            check(same, &["x:1", "x:1,2", "x:12345"], &["x:", "x:1/2"]);
        }
        check("{a}{b}", &["12", "123"], &["", "1", "1/2"]);
    }

    #[test]
    fn expressions_with_an_operator_bring_what_they_like() {
        for same in ["x:{+p}", "x:{#p}", "x:{/p*}", "x:{?p}", "x:{&p}", "x:{;p}", "x:{.p}"] {
            check(same, &["x:", "x:/a/b?c=d#e", "x:."], &["x", "y:", " x:"]);
        }
        check("x:/{+path}/raw{?v,w}", &["x:/a/raw", "x:/a/b/raw?v=1", "x://raw", "x:/raw/raw"], &["x:/raw", "x:/a/ra"]);
        check("{scheme}:{+rest}", &["file:///a", "a:", "a:b:c"], &[":x", "", "a/b:c"]);
    }

    #[test]
    fn what_is_no_expression_stands_for_itself() {
        check("x://plain", &["x://plain"], &["x://plain/", "x://plai", "X://plain", ""]);
        check("", &[""], &["x"]);
        check("a{b", &["a{b"], &["ab", "a"]);
        check("a}b{c}", &["a}b1"], &["ab1"]);
        check("a{}b", &["a{}b"], &["ab", "axb"]);
        check("a{b{c}d", &["a{b1d"], &["a1d", "a{bd"]);
        check("{a}}", &["1}", "}}"], &["1", "}"]);
    }

    /// Tries every way of splitting the URI: exponential, but evidently right.
    fn naive(pieces: &[&str], uri: &str) -> bool {
        let Some((first, others)) = pieces.split_first() else { return uri.is_empty() };
        let mut splits = (0..=uri.len()).map(|at| uri.split_at(at));
        splits.any(|(front, rest)| {
            let fits = match *first {
                "{+x}" => true,
                "{x}" => !front.is_empty() && !front.contains(['/', '?', '#']),
                literal => front == literal,
            };
            fits && naive(others, rest)
        })
    }

    /// Every text of up to so many of these pieces.
    fn texts(pieces: &[&'static str], most: usize) -> Vec<Vec<&'static str>> {
        let mut all = vec![vec![]];
        let mut from = 0;
        for _ in 0..most {
            let longer = all[from..]
                .iter()
                .flat_map(|text| pieces.iter().map(move |piece| [text.as_slice(), &[*piece]].concat()));
            let longer: Vec<_> = longer.collect();
            from = all.len();
            all.extend(longer);
        }
        all
    }

    #[test]
    fn every_short_template_matches_as_a_naive_matcher_says() {
        let uris: Vec<String> = texts(&["a", "b", "/"], 5).iter().map(|pieces| pieces.concat()).collect();
        let mut matched = 0;
        for pieces in texts(&["{x}", "{+x}", "a", "/"], 4) {
            let template = Template::parse(&pieces.concat());
            for uri in &uris {
                let expected = naive(&pieces, uri);
                assert_eq!(template.matches(uri), expected, "{pieces:?} {uri}");
                matched += usize::from(expected);
            }
        }
        assert!(matched > 10_000, "only {matched} of the cases matched");
    }

    #[test]
    fn hostile_templates_and_uris_are_compared_at_once() {
        let (letters, slashes) = ("a".repeat(LONGEST_URI - 1), "/a".repeat(LONGEST_URI / 2 - 1));
        for (expression, uri) in [("{a}", &letters), ("{a}a", &letters), ("{+a}a", &letters), ("{+a}/{a}", &slashes)] {
            let template = expression.repeat(MOST_EXPRESSIONS / 2);
            check(&template, &[uri], &[]);
            check(&format!("{template}b"), &[&format!("{uri}b")], &[uri]);
        }
        check(&"{".repeat(LONGEST_URI), &[&"{".repeat(LONGEST_URI)], &[&letters]);
        check(&"{}".repeat(100), &[&"{}".repeat(100)], &[&letters]);
    }

    #[test]
    fn what_is_too_much_matches_nothing() {
        let uri = |length: usize| format!("x:{}", "a".repeat(length - 2));
        check("x:{a}", &[&uri(LONGEST_URI)], &[&uri(LONGEST_URI + 1)]);
        let template = |expressions: usize| "{a}".repeat(expressions);
        check(&template(MOST_EXPRESSIONS), &[&uri(100)], &[]);
        check(&template(MOST_EXPRESSIONS + 1), &[], &[&uri(100)]);
    }
}
