//! The text format in which Prometheus and its kin read metrics.
//!
//! Source: Prometheus, "Exposition formats", text-based format, version 0.0.4.

use std::fmt::{self, Display, Write as _};

use super::Histogram;

/// What kind of metric a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows while the process lives.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Counts by duration.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Metrics as they are written, one family after the other.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// The content type of the text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family; its samples are written before the next one begins. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        Family { out: &mut self.0, name }
    }

    /// Writes a family that consists of one number.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &'static str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

/// A name, and in which labels and value a sample of it ends.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// Writes one sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let _ = writeln!(self.out, "{}{} {value}", self.name, Labels(labels, None));
    }

    /// Writes a histogram. Its count is that of the last bucket, whatever is added meanwhile.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let (name, mut count) = (self.name, 0);
        for (bound, up_to) in histogram.cumulated() {
            let _ = writeln!(self.out, "{name}_bucket{} {up_to}", Labels(labels, Some(bound)));
            count = up_to;
        }
        let labels = Labels(labels, None);
        let _ = writeln!(self.out, "{name}_sum{labels} {}\n{name}_count{labels} {count}", histogram.seconds());
    }
}

/// Labels as they are written, with the bound of a bucket, if it is one, as the last.
struct Labels<'a>(&'a [(&'a str, &'a str)], Option<f64>);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(labels, bound) = self;
        if labels.is_empty() && bound.is_none() {
            return Ok(());
        }
        for (position, (name, value)) in labels.iter().enumerate() {
            f.write_char(if position == 0 { '{' } else { ',' })?;
            write!(f, "{name}=\"{}\"", Escaped(value))?;
        }
        if let Some(bound) = bound {
            f.write_char(if labels.is_empty() { '{' } else { ',' })?;
            match bound.is_infinite() {
                true => f.write_str("le=\"+Inf\"")?,
                false => write!(f, "le=\"{bound}\"")?,
            }
        }
        f.write_char('}')
    }
}

/// The value of a label as it is written.
///
/// SECURITY: clients choose the names of their servers; none of them may end a value early or begin a line.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_family_is_written_with_its_help_and_type() {
        let mut text = Text::default();
        text.single("a_total", Kind::Counter, "Of a.", 7);
        let mut family = text.family("b", Kind::Gauge, "Of b.");
        family.sample(&[("x", "1"), ("y", "")], 0.5);
        family.sample(&[("x", "2"), ("y", "é")], -1);
        let expected = "# HELP a_total Of a.\n# TYPE a_total counter\na_total 7\n# HELP b Of b.\n# TYPE b gauge\n\
                        b{x=\"1\",y=\"\"} 0.5\nb{x=\"2\",y=\"é\"} -1\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn the_value_of_a_label_cannot_be_ended_early() {
        #[track_caller]
        fn check(value: &str, expected: &str) {
            let mut text = Text::default();
            text.family("a", Kind::Gauge, "A.").sample(&[("x", value)], 1);
            let text = text.finish();
            assert_eq!(text.lines().nth(2), Some(format!("a{{x=\"{expected}\"}} 1").as_str()), "{text}");
            assert_eq!(text.matches('\n').count(), 3, "{text}");
        }
        check("plain", "plain");
        check("\"} 9\nb 1", r#"\"} 9\nb 1"#);
        check(r"\n\", r"\\n\\");
    }

    #[test]
    fn a_histogram_is_written_with_buckets_sum_and_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1500));
        histogram.observe(Duration::from_secs(1000));
        let mut text = Text::default();
        let mut family = text.family("a", Kind::Histogram, "A.");
        family.histogram(&[("x", "1")], &histogram);
        family.histogram(&[], &Histogram::default());
        let text = text.finish();
        for line in [
            "a_bucket{x=\"1\",le=\"0.001\"} 0",
            "a_bucket{x=\"1\",le=\"1\"} 0",
            "a_bucket{x=\"1\",le=\"2.5\"} 1",
            "a_bucket{x=\"1\",le=\"300\"} 1",
            "a_bucket{x=\"1\",le=\"+Inf\"} 2",
            "a_sum{x=\"1\"} 1001.5",
            "a_count{x=\"1\"} 2",
            "a_bucket{le=\"+Inf\"} 0",
            "a_sum 0",
            "a_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
