//! What is wrong with a configuration, and where: [`Problem`], [`Place`], and the [`Lines`] that turn offsets into places.
//!
//! Knows how a problem reads (`config.toml:14:1: allow.server_z: no such server in [mcp_servers]`); what counts as one
//! is decided by the readers beside it and by `policy::registry`.

use std::fmt;
use std::sync::Arc;

/// The longest name that a hint is looked for; every key and name worth a hint is shorter.
const HINT_CHARS: usize = 64;
/// Most candidates compared for the hints of one configuration, so that a file full of unknown names stays cheap.
const HINT_LOOKS: usize = 200_000;

/// A value and where it begins in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// What was written.
    pub value: T,
    /// Offset in bytes from the start of the file, a BOM included.
    pub at: u32,
}

/// A line and a column, both counted from 1; the column in characters, a BOM not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Character in the line.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Whether a configuration with the problem can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot: the last good one stays in force.
    Error,
    /// It can, but probably does not do what its author wanted.
    Warning,
}

/// One thing that is wrong, for the person who wrote the file. Never holds a token or another secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the configuration from being used.
    pub severity: Severity,
    /// Where; `None` when it is about the file as a whole.
    pub place: Option<Place>,
    /// The key, as TOML writes it: `allow.server_a.bob`; empty for a syntax error.
    pub path: String,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
}

impl Problem {
    /// An error at a key. The report that collects it sets the place.
    #[must_use]
    pub fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place: None, path: path.into(), message: message.into(), hint: None }
    }

    /// A warning at a key. The report that collects it sets the place.
    #[must_use]
    pub fn warning(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, message) }
    }

    /// The same with a hint, if there is one.
    #[must_use]
    pub fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// Writes it as `FILE:LINE:COLUMN: PATH: MESSAGE`, and the hint on a line of its own.
    pub fn display<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            write!(f, "{file}:")?;
            if let Some(place) = self.place {
                write!(f, "{place}:")?;
            }
            if !self.path.is_empty() {
                write!(f, " {}:", self.path)?;
            }
            write!(f, " {}", self.message)?;
            self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
        })
    }
}

/// Where the lines of a file begin: turns offsets into places without keeping the text, in which tokens stand.
#[derive(Debug, Default)]
pub struct Lines {
    /// Offset of the first character of every line.
    starts: Vec<u32>,
    /// Offsets of bytes that continue a character; none in an ASCII file.
    continuations: Vec<u32>,
}

impl Lines {
    /// Reads the line starts of a text of at most 4 GiB.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let first = if text.starts_with('\u{feff}') { 3 } else { 0 };
        let mut lines = Self { starts: vec![first], continuations: Vec::new() };
        for (at, byte) in (0_u32..).zip(text.bytes()) {
            match byte {
                b'\n' => lines.starts.push(at.saturating_add(1)),
                0x80..=0xBF => lines.continuations.push(at),
                _ => {}
            }
        }
        lines
    }

    /// The place of an offset.
    #[must_use]
    pub fn place(&self, at: u32) -> Place {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let before = |offset: u32| self.continuations.partition_point(|c| *c < offset);
        let wide = before(at).saturating_sub(before(start));
        let column = (at.saturating_sub(start) as usize).saturating_sub(wide) + 1;
        Place { line: line as u32, column: column as u32 }
    }
}

/// Collects the problems of one file.
pub(crate) struct Report {
    lines: Arc<Lines>,
    problems: Vec<Problem>,
    looks: usize,
}

impl Report {
    /// Continues a list of problems.
    pub(crate) fn new(lines: Arc<Lines>, problems: Vec<Problem>) -> Self {
        Self { lines, problems, looks: 0 }
    }

    /// Notes a problem at an offset.
    pub(crate) fn add(&mut self, at: u32, problem: Problem) {
        self.problems.push(Problem { place: Some(self.lines.place(at)), ..problem });
    }

    /// The hint ``did you mean `x`?`` if one of the candidates is near enough.
    pub(crate) fn nearest<'a>(&mut self, name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
        let left = HINT_LOOKS.saturating_sub(self.looks);
        let found = nearest(name, candidates.take(left).inspect(|_| self.looks += 1))?;
        Some(format!("did you mean `{found}`?"))
    }

    /// All problems in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|p| p.place);
        self.problems
    }
}

/// The candidate nearest to a misspelt name: at most two edits away, and at most half of the name.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().collect();
    let limit = 2.min(name.len() / 2);
    if name.len() > HINT_CHARS {
        return None;
    }
    let near = candidates.filter(|c| c.len().abs_diff(name.len()) <= 2 * 4 && c.len() <= HINT_CHARS * 4);
    near.map(|c| (distance(&name, c), c)).filter(|(d, _)| *d <= limit).min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// Levenshtein's edit distance, row by row.
fn distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, b) in b.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, a) in row.iter_mut().skip(1).zip(a) {
            let up = *cell;
            left = (diagonal + usize::from(*a != b)).min(up + 1).min(left + 1);
            *cell = left;
            diagonal = up;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// One more step of a path, quoted as TOML needs it: `allow.server_a."*"`.
#[must_use]
pub fn join(path: &str, key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let dot = if path.is_empty() { "" } else { "." };
    if !key.is_empty() && key.bytes().all(bare) {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}\"{}\"", key.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        #[track_caller]
        fn check(text: &str, needle: &str, expected: (u32, u32)) {
            let at = u32::try_from(text.find(needle).unwrap()).unwrap();
            let place = Lines::new(text).place(at);
            assert_eq!((place.line, place.column), expected, "{text:?} {needle:?}");
        }
        check("x", "x", (1, 1));
        check("abc\nx", "x", (2, 1));
        check("abc\r\n\r\n  x", "x", (3, 3));
        check("\u{feff}x", "x", (1, 1));
        check("\u{feff}a\n x", "x", (2, 2));
        check("é€😀x", "x", (1, 4));
        check("é\n€\nà x", "x", (3, 3));
        check("é\n€\nà x", "€", (2, 1));
    }

    #[test]
    fn an_offset_beyond_the_text_has_a_place_all_the_same() {
        assert_eq!(Lines::new("").place(0), Place { line: 1, column: 1 });
        assert_eq!(Lines::new("\u{feff}").place(0), Place { line: 1, column: 1 });
        assert_eq!(Lines::new("ab\n").place(3), Place { line: 2, column: 1 });
        assert_eq!(Lines::default().place(7), Place { line: 1, column: 8 });
    }

    #[test]
    fn a_hint_is_near_and_the_nearest() {
        #[track_caller]
        fn check(name: &str, candidates: &[&str], expected: Option<&str>) {
            assert_eq!(nearest(name, candidates.iter().copied()), expected, "{name} {candidates:?}");
        }
        check("server_z", &["server_aa", "server_b", "server_c"], Some("server_b"));
        check("prot", &["host", "port"], Some("port"));
        check("bo", &["alice", "bob"], Some("bob"));
        check("alcie", &["alice"], Some("alice"));
        check("aléce", &["alice"], Some("alice"));
        check("carol", &["alice", "bob"], None);
        check("a", &["b"], None);
        check("ab", &["cd"], None);
        check("", &["a"], None);
        check(&"x".repeat(65), &[&"x".repeat(65)], None);
    }

    #[test]
    fn distances_count_insertions_deletions_and_replacements() {
        #[track_caller]
        fn check(a: &str, b: &str, expected: usize) {
            assert_eq!(distance(&a.chars().collect::<Vec<_>>(), b), expected, "{a} {b}");
            assert_eq!(distance(&b.chars().collect::<Vec<_>>(), a), expected, "{b} {a}");
        }
        check("", "", 0);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("flaw", "lawn", 2);
        check("intention", "execution", 5);
    }

    #[test]
    fn hints_stop_when_too_many_names_were_compared() {
        let mut report = Report::new(Arc::new(Lines::new("")), Vec::new());
        assert_eq!(report.nearest("bo", ["bob"].into_iter()).as_deref(), Some("did you mean `bob`?"));
        assert_eq!(report.nearest("unlike", std::iter::repeat_n("bob", 2 * HINT_LOOKS)), None);
        assert_eq!(report.nearest("bo", ["bob"].into_iter()), None);
    }

    #[test]
    fn paths_are_quoted_as_toml_wants_them() {
        assert_eq!(join("", "clients"), "clients");
        assert_eq!(join("clients", "a-b_1"), "clients.a-b_1");
        assert_eq!(join("allow.s", "*"), "allow.s.\"*\"");
        assert_eq!(join("clients", ""), "clients.\"\"");
        assert_eq!(join("clients", "a.b\"\n"), "clients.\"a.b\\\"\\n\"");
    }

    #[test]
    fn a_problem_reads_file_place_path_message_hint() {
        let place = Some(Place { line: 14, column: 1 });
        let problem = Problem { place, ..Problem::error("allow.server_z", "no such server in [mcp_servers]") };
        let problem = problem.with_hint(Some("did you mean `server_a`?".to_owned()));
        assert_eq!(
            problem.display("config.toml").to_string(),
            "config.toml:14:1: allow.server_z: no such server in [mcp_servers]\nhint: did you mean `server_a`?"
        );
        assert_eq!(Problem::error("", "too large").display("c").to_string(), "c: too large");
    }

    #[test]
    fn problems_come_in_the_order_of_the_file() {
        let mut report = Report::new(Arc::new(Lines::new("a\nb\nc")), Vec::new());
        for at in [4, 0, 2] {
            report.add(at, Problem::warning(at.to_string(), ""));
        }
        let paths: Vec<_> = report.finish().into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["0", "2", "4"]);
    }
}
