//! Where everything stands in a text, and how it is taken out or put in.

use std::ops::Range;

use toml_edit::{Document, Item, Key, Table, TableLike, Value};

use super::{EditError, list, quoted, string};
use crate::wire::config::problem::join;

/// A part of the text and what comes in its place.
#[derive(Debug)]
pub(super) struct Splice {
    range: Range<usize>,
    text: String,
    /// The table, if it puts whole lines at its end: several may follow one another.
    table: Option<String>,
}

impl Splice {
    /// Something in the place of a value.
    pub(super) fn replace(range: Range<usize>, text: String) -> Self {
        Self { range, text, table: None }
    }

    fn remove(range: Range<usize>) -> Self {
        Self::replace(range, String::new())
    }

    fn insert(at: usize, text: String) -> Self {
        Self::replace(at..at, text)
    }

    /// Whether one of two has to be made before the other can be planned.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let apart = self.range.end < other.range.start || other.range.end < self.range.start;
        !apart && (self.table.is_none() || self.table != other.table)
    }
}

/// A key and what it stands for.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a Key,
    pub(super) item: &'a Item,
    /// The inline table in which it stands, if it does.
    inline: Option<&'a dyn TableLike>,
}

impl<'a> Entry<'a> {
    /// Where its value stands; of a table with a header, where the header does.
    pub(super) fn span(&self) -> Range<usize> {
        self.item.span().unwrap_or_default()
    }

    /// What stands in it, each with its path.
    pub(super) fn entries(&self, path: &str) -> Result<Vec<(String, Self)>, EditError> {
        let table = self.table(path)?;
        let keys = table.iter().map(|(key, _)| key);
        Ok(keys.filter_map(|key| Some((join(path, key), self.within(table, key)?))).collect())
    }

    /// One of them.
    pub(super) fn child(&self, path: &str, name: &str) -> Result<Option<Self>, EditError> {
        Ok(self.within(self.table(path)?, name))
    }

    fn table(&self, path: &str) -> Result<&'a dyn TableLike, EditError> {
        self.item.as_table_like().ok_or_else(|| EditError::Form(path.to_owned(), "expected a table"))
    }

    fn within(&self, table: &'a dyn TableLike, name: &str) -> Option<Self> {
        let (key, item) = table.get_key_value(name)?;
        let inline = if self.item.is_inline_table() { Some(table) } else { self.inline };
        Some(Self { key, item, inline })
    }
}

/// A text that has been read.
pub(super) struct Reading {
    document: Document<String>,
    /// The line end that most lines have.
    line_end: &'static str,
}

impl Reading {
    pub(super) fn new(text: String) -> Result<Self, EditError> {
        let windows = text.matches("\r\n").count();
        let line_end = if windows * 2 > text.matches('\n').count() { "\r\n" } else { "\n" };
        let document = Document::parse(text).map_err(|e| EditError::Syntax(e.message().to_owned()))?;
        Ok(Self { document, line_end })
    }

    /// The text as these splices leave it.
    pub(super) fn spliced(&self, splices: &mut [Splice]) -> String {
        let text = self.text();
        splices.sort_by_key(|splice| (splice.range.start, splice.range.end));
        let mut out = String::with_capacity(text.len() + splices.iter().map(|s| s.text.len()).sum::<usize>());
        let mut done = 0;
        for splice in splices {
            out.push_str(text.get(done..splice.range.start).unwrap_or_default());
            out.push_str(&splice.text);
            done = splice.range.end.max(done);
        }
        out.push_str(text.get(done..).unwrap_or_default());
        out
    }

    fn text(&self) -> &str {
        self.document.raw()
    }

    /// A section of the file.
    fn section(&self, section: &str) -> Option<Entry<'_>> {
        let (key, item) = self.document.as_table().get_key_value(section)?;
        Some(Entry { key, item, inline: None })
    }

    /// What stands in a section, each with its path.
    pub(super) fn entries(&self, section: &str) -> Result<Vec<(String, Entry<'_>)>, EditError> {
        self.section(section).map_or(Ok(Vec::new()), |entry| entry.entries(section))
    }

    /// One of them.
    pub(super) fn entry(&self, section: &str, name: &str) -> Result<Option<Entry<'_>>, EditError> {
        self.section(section).map_or(Ok(None), |entry| entry.child(section, name))
    }

    /// Takes an entry of a section out, if it is there.
    pub(super) fn remove(&self, section: &str, name: &str) -> Result<Vec<Splice>, EditError> {
        self.entry(section, name)?.map_or(Ok(Vec::new()), |entry| self.removal(&join(section, name), entry))
    }

    /// Takes what a client was granted out of a server's grants, and these altogether if nothing is left but the header.
    pub(super) fn remove_grant(&self, path: &str, grants: Entry<'_>, client: &str) -> Result<Vec<Splice>, EditError> {
        let Some(grant) = grants.child(path, client)? else { return Ok(Vec::new()) };
        let removal = self.removal(&join(path, client), grant)?;
        let table = grants.item.as_table().filter(|table| has_header(table));
        let Some(table) = table else { return Ok(removal) };
        let (header, body) = (self.lines_of(grants.span()), self.body(table));
        let is_body = |splice: &Splice| splice.range.end == body.end && splice.range.start <= body.start;
        // A comment that the operator wrote is a reason to keep the header.
        let bare = self.text().get(header.clone()).is_some_and(|line| line.trim_end().ends_with(']'));
        let bare = bare && self.comments_after(body.end) == body.end;
        let nothing_left = bare && !body.is_empty() && removal.iter().all(is_body);
        Ok(if nothing_left { vec![self.without_table(header.start..body.end)] } else { removal })
    }

    /// Puts `[section.name]` with these lines behind the last table of the section, or at the end of the text.
    pub(super) fn add_table(
        &self,
        section: &str,
        name: &str,
        lines: &[(String, String)],
    ) -> Result<Vec<Splice>, EditError> {
        let taken = self.entry(section, name)?.is_some();
        if taken {
            return Err(EditError::Form(join(section, name), "it is there already"));
        }
        let lines = lines.iter().map(|(key, value)| format!("{key} = {value}"));
        if let Some(entry) = self.section(section).filter(|entry| entry.item.is_inline_table()) {
            let members = lines.collect::<Vec<_>>().join(", ");
            return self.add_member(section, entry, &format!("{} = {{ {members} }}", quoted(name)));
        }
        let last =
            self.section(section).and_then(|entry| entry.item.as_table().and_then(|table| self.last_line(table)));
        let header = format!("[{section}.{}]", quoted(name));
        let lines: Vec<String> = std::iter::once(header).chain(lines).collect();
        let at = last.unwrap_or(self.text().len());
        let text = self.lines_at(at, &lines.join(self.line_end), true);
        // At the very beginning there is no blank line in front, which a second table would need.
        let table = (!self.is_start(at)).then(|| section.to_owned());
        Ok(vec![Splice { table, ..Splice::insert(at, text) }])
    }

    /// Puts `name = value` into the table that these names lead to.
    pub(super) fn add_entry(
        &self,
        names: &[&str],
        parent: Entry<'_>,
        name: &str,
        value: &str,
    ) -> Result<Vec<Splice>, EditError> {
        let path = &names.iter().fold(String::new(), |path, name| join(&path, name));
        let line = format!("{} = {value}", quoted(name));
        let table = match parent.item {
            Item::Table(table) if has_header(table) => {
                let at = self.body(table).end;
                let line = Splice::insert(at, self.lines_at(at, &line, false));
                return Ok(vec![Splice { table: Some(path.clone()), ..line }]);
            }
            Item::Table(table) => table,
            _ => return self.add_member(path, parent, &line),
        };
        // A table of dotted keys, or one that is there only because of tables within it.
        let Some((keys, value)) = table.get_values().pop() else { return self.add_header(names, table, &line) };
        let (first, value) = (keys.first().and_then(|key| key.span()), value.span());
        let (Some(first), Some(value)) = (first, value) else { return Err(odd(path)) };
        // The keys that lead to the table stand in front of its own.
        let before = self.text().get(self.line_start(first.start)..first.start).unwrap_or_default();
        let at = self.line_after(value.end);
        Ok(vec![Splice::insert(at, self.lines_at(at, &format!("{before}{line}"), false))])
    }

    /// Puts a header of its own for a table that has only tables within it, behind the last of these.
    fn add_header(&self, names: &[&str], table: &Table, line: &str) -> Result<Vec<Splice>, EditError> {
        let header = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(".");
        let at = self.last_line(table).ok_or_else(|| odd(&header))?;
        let text = self.lines_at(at, &format!("[{header}]{}{line}", self.line_end), true);
        Ok(vec![Splice::insert(at, text)])
    }

    /// Puts a member into an inline table.
    fn add_member(&self, path: &str, parent: Entry<'_>, member: &str) -> Result<Vec<Splice>, EditError> {
        let Item::Value(Value::InlineTable(table)) = parent.item else { return Err(odd(path)) };
        let span = parent.span();
        Ok(vec![match ends_of(table).max() {
            Some(end) => Splice::insert(end, format!(", {member}")),
            None => Splice::insert(span.start + 1, member.to_owned()),
        }])
    }

    /// Takes an entry out, with all that belongs to it.
    pub(super) fn removal(&self, path: &str, entry: Entry<'_>) -> Result<Vec<Splice>, EditError> {
        if let Some(table) = entry.inline {
            return self.member_removal(path, table, entry);
        }
        match entry.item {
            Item::Table(table) => {
                let mut splices = Vec::new();
                self.table_removal(table, &mut splices);
                Ok(splices)
            }
            item => {
                let value = item.span().ok_or_else(|| odd(path))?;
                Ok(vec![Splice::remove(
                    self.without_end(self.lines_of(entry.key.span().unwrap_or(value.clone()).start..value.end)),
                )])
            }
        }
    }

    /// Takes out a table's header with its body, or its dotted keys, and the tables within it.
    fn table_removal(&self, table: &Table, splices: &mut Vec<Splice>) {
        if has_header(table) {
            let header = self.lines_of(table.span().unwrap_or_default());
            splices.push(self.without_table(header.start..self.comments_after(self.body(table).end)));
        }
        for (_, item) in table.iter() {
            match item {
                Item::Table(inner) if !has_header(table) || !inner.is_dotted() => self.table_removal(inner, splices),
                Item::Value(value) if !has_header(table) => {
                    splices.push(Splice::remove(self.without_end(self.lines_of(value.span().unwrap_or_default()))));
                }
                _ => {}
            }
        }
    }

    /// Takes a member out of an inline table, with one of the commas beside it.
    fn member_removal(&self, path: &str, table: &dyn TableLike, entry: Entry<'_>) -> Result<Vec<Splice>, EditError> {
        let (Some(key), Some(value)) = (entry.key.span(), entry.item.span()) else { return Err(odd(path)) };
        let dotted = entry.item.as_inline_table().is_some_and(toml_edit::InlineTable::is_dotted);
        if dotted {
            return Err(EditError::Form(
                path.to_owned(),
                "dotted keys within `{ }` cannot be changed; write a table instead",
            ));
        }
        let previous = ends_of(table).filter(|end| *end <= key.start).max();
        Ok(vec![match (self.comma_after(value.end), previous) {
            (Some(end), _) => Splice::remove(self.without_rest(key.start, end)),
            (None, Some(previous)) => Splice::remove(previous..value.end),
            (None, None) => Splice::remove(key.start..value.end),
        }])
    }

    /// Makes a list of strings say something else. What stays keeps its bytes and its comments, where that can be.
    pub(super) fn set_list(&self, value: &Item, wanted: &[String]) -> Vec<Splice> {
        let whole = || vec![Splice::replace(value.span().unwrap_or_default(), list(wanted))];
        let Some(array) = value.as_array() else { return whole() };
        let old: Option<Vec<(&str, Range<usize>)>> = array.iter().map(|v| Some((v.as_str()?, v.span()?))).collect();
        let Some(old) = old else { return whole() };
        let stays = |text: &str| wanted.iter().any(|pattern| pattern == text);
        let kept: Vec<&(&str, Range<usize>)> = old.iter().filter(|(text, _)| stays(text)).collect();
        let in_order =
            wanted.len() >= kept.len() && kept.iter().zip(wanted).all(|((text, _), pattern)| text == pattern);
        let (Some((_, last_kept)), Some((_, last)), true) = (kept.last(), old.last(), in_order) else { return whole() };
        let added: String = wanted.iter().skip(kept.len()).map(|text| format!(", {}", string(text))).collect();
        let gone = old.iter().filter(|(text, span)| !stays(text) && span.end < last_kept.start);
        let gone = gone.filter_map(|(_, span)| Some(self.without_rest(span.start, self.comma_after(span.end)?)));
        let mut splices: Vec<Splice> = gone.map(Splice::remove).collect();
        if !added.is_empty() || last_kept.end < last.end {
            splices.push(Splice::replace(last_kept.end..last.end, added));
        }
        splices
    }

    /// The end of the comma that follows a value, comments being skipped; `None` if it is the last without one.
    fn comma_after(&self, mut at: usize) -> Option<usize> {
        loop {
            let rest = self.text().get(at..)?;
            let next = rest.trim_start();
            at += rest.len() - next.len();
            match next.chars().next()? {
                ',' => return Some(at + 1),
                '#' => at = self.line_after(at),
                _ => return None,
            }
        }
    }

    /// A member with its comma and the comment behind it on the line; the whole line if nothing else is on it.
    fn without_rest(&self, start: usize, end: usize) -> Range<usize> {
        let rest = self.text().get(end..).unwrap_or_default();
        let end = end + rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let line = self.line_start(start);
        let alone = self.text().get(line..start).is_some_and(|before| before.trim().is_empty());
        match self.text().get(end..).unwrap_or_default().chars().next() {
            Some('#' | '\r' | '\n') if alone => line..self.line_after(end),
            Some('#') => start..end + self.text().get(end..).unwrap_or_default().find(['\r', '\n']).unwrap_or_default(),
            _ => start..end,
        }
    }

    /// The end of the line on which the last of a table, and of those within it, ends; `None` if none has a header.
    ///
    /// SECURITY: the comments at its end are part of it. Between them and their table a stranger's table would take them
    /// over, and a line that the operator brings back into force would belong to the stranger.
    fn last_line(&self, table: &Table) -> Option<usize> {
        let own = has_header(table).then(|| self.comments_after(self.body(table).end));
        let inner = table.iter().filter_map(|(_, item)| item.as_table()).filter_map(|table| self.last_line(table));
        own.into_iter().chain(inner).max()
    }

    /// The lines of a table behind its header, up to its last value.
    fn body(&self, table: &Table) -> Range<usize> {
        let header = self.lines_of(table.span().unwrap_or_default());
        let ends = table.get_values().into_iter().filter_map(|(_, value)| value.span()).map(|span| span.end);
        header.end..ends.max().map_or(header.end, |end| self.line_after(end))
    }

    /// The end of the comments that follow a line at once, unless they lead over to a header.
    fn comments_after(&self, at: usize) -> usize {
        let mut end = at;
        for line in self.text().get(at..).unwrap_or_default().split_inclusive('\n') {
            match line.trim_start().chars().next() {
                Some('#') => end += line.len(),
                Some(_) => return at,
                None => break,
            }
        }
        end
    }

    /// Whole lines, with their ends.
    fn lines_of(&self, span: Range<usize>) -> Range<usize> {
        self.line_start(span.start)..self.line_after(span.end)
    }

    fn line_start(&self, at: usize) -> usize {
        let before = self.text().get(..at).unwrap_or_default();
        before.rfind('\n').map_or(if before.starts_with('\u{feff}') { 3 } else { 0 }, |end| end + 1)
    }

    fn line_after(&self, at: usize) -> usize {
        let after = self.text().get(at..).unwrap_or_default();
        after.find('\n').map_or(self.text().len(), |end| at + end + 1)
    }

    /// Lines to be put in at the beginning of a line, or at the end of a text that may lack its last line end: there they
    /// lack it too, so that they can be taken out again without a trace. A table has a blank line in front.
    fn lines_at(&self, at: usize, lines: &str, table: bool) -> String {
        let end = self.line_end;
        let before = self.text().get(..at).unwrap_or_default();
        let blank = if table && !self.is_start(at) { end } else { "" };
        let unfinished = !self.is_start(at) && !before.ends_with('\n');
        if unfinished { format!("{end}{blank}{lines}") } else { format!("{blank}{lines}{end}") }
    }

    /// Whether nothing but a byte order mark stands before an offset.
    fn is_start(&self, at: usize) -> bool {
        matches!(self.text().get(..at), Some("" | "\u{feff}"))
    }

    /// Lines to be taken out; at the end of a text that lacks its last line end, with the line end before them.
    fn without_end(&self, lines: Range<usize>) -> Range<usize> {
        let before = self.text().get(..lines.start).unwrap_or_default();
        let last = lines.end == self.text().len() && !self.text().ends_with('\n');
        let shorter = before.strip_suffix("\r\n").or_else(|| before.strip_suffix('\n')).filter(|_| last);
        shorter.map_or(lines.start, str::len)..lines.end
    }

    /// The lines of a table to be taken out, with the blank line in front of them.
    fn without_table(&self, lines: Range<usize>) -> Splice {
        let before = self.text().get(..lines.start).unwrap_or_default();
        let line = before.strip_suffix('\n').map(|before| before.rfind('\n').map_or(0, |end| end + 1));
        let blank = line.filter(|start| before.get(*start..).is_some_and(|line| line.trim().is_empty()));
        Splice::remove(self.without_end(blank.unwrap_or(lines.start)..lines.end))
    }
}

fn has_header(table: &Table) -> bool {
    !table.is_implicit() && !table.is_dotted()
}

/// Where the values of a table end.
fn ends_of(table: &dyn TableLike) -> impl Iterator<Item = usize> {
    table.get_values().into_iter().filter_map(|(_, value)| value.span()).map(|span| span.end)
}

fn odd(path: &str) -> EditError {
    EditError::Form(path.to_owned(), "it is written in a way that cannot be changed; write a table instead")
}
