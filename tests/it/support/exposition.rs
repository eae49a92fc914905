//! Reads metrics as strictly as the format is written down: Prometheus, "Exposition formats", text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a sample, by name.
type Labels = BTreeMap<String, String>;

/// One page of metrics that keeps every rule.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// Family → its type.
    types: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    /// Reads a page; panics where it breaks a rule.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut page = Self::default();
        let mut family = String::new();
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
                family = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(name == family && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(page.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}: a second time");
            } else {
                page.samples.push(sample(line));
                let (name, labels, value) = &page.samples[page.samples.len() - 1];
                page.check_sample(&family, name, labels, *value, line);
            }
        }
        let series: BTreeSet<_> = page.samples.iter().map(|(name, labels, _)| (name, labels)).collect();
        assert_eq!(series.len(), page.samples.len(), "a series occurs twice");
        page.check_histograms();
        page
    }

    #[track_caller]
    fn check_sample(&self, family: &str, name: &str, labels: &Labels, value: f64, line: &str) {
        assert!(is_name(name) && labels.keys().all(|label| is_name(label) && !label.contains(':')), "{line}");
        let kind = self.types.get(family).unwrap_or_else(|| panic!("{line}: no type"));
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line}: not of {family}"));
        match kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
        if kind == "counter" {
            assert!(name.ends_with("_total") && value >= 0.0, "{line}");
        }
    }

    /// Buckets grow, the last is `+Inf` and has everything; and each histogram has a sum and a count.
    #[track_caller]
    fn check_histograms(&self) {
        let mut buckets: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for (name, labels, value) in self.samples.iter().filter(|(name, _, _)| name.ends_with("_bucket")) {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap().parse().unwrap();
            buckets.entry((name.trim_end_matches("_bucket").to_owned(), labels)).or_default().push((bound, *value));
        }
        for ((family, labels), buckets) in buckets {
            let grow = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            let last = *buckets.last().unwrap();
            assert!(grow && last.0.is_infinite(), "{family} {labels:?}: {buckets:?}");
            assert_eq!(self.find(&format!("{family}_count"), &labels), Some(last.1), "{family} {labels:?}");
            assert!(self.find(&format!("{family}_sum"), &labels).is_some(), "{family} {labels:?}");
        }
    }

    fn find(&self, name: &str, labels: &Labels) -> Option<f64> {
        let mut found = self.samples.iter().filter(|(n, l, _)| n == name && l == labels);
        found.next().map(|(_, _, value)| *value)
    }

    /// The value of a series; `labels` are all it has.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}"))
    }

    /// The same, if there is such a series.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.find(name, &labels)
    }

    /// Every gauge: its name, its labels, its value.
    pub(crate) fn gauges(&self) -> impl Iterator<Item = &(String, Labels, f64)> {
        self.samples.iter().filter(|(name, _, _)| self.types.get(name).is_some_and(|kind| kind == "gauge"))
    }

    /// The names of all samples.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.samples.iter().map(|(name, _, _)| name.as_str()).collect()
    }

    /// The values of this label, wherever it occurs.
    pub(crate) fn values_of(&self, label: &str) -> BTreeSet<&str> {
        self.samples.iter().filter_map(|(_, labels, _)| labels.get(label).map(String::as_str)).collect()
    }
}

/// `name{label="value",…} number`, with one space and nothing else.
#[track_caller]
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            let (value, after) = label_value(after, line);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}: a label twice");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
                    break;
                }
            }
        }
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, number.parse().unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// A value up to its quote, and what follows.
#[track_caller]
fn label_value<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, text.split_at(at + 1).1),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                other => panic!("{line}: escaped {other:?}"),
            },
            c => value.push(c),
        }
    }
    panic!("{line}: a value without an end")
}

fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(first) && text.chars().all(|c| first(c) || c.is_ascii_digit())
}
