//! Just enough of Rust's grammar to tell which names a source file uses.

/// A name or a mark, and the line it stands on.
pub(super) type Token<'a> = (usize, &'a str);

/// Every name that a `crate::`, `self::` or `super::` path takes from the crate's root, `*` included.
pub(super) fn root_names<'a>(path: &str, tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut found = Vec::new();
    // For each open brace, whether it is that of an inline module.
    let mut braces: Vec<bool> = Vec::new();
    let mut rest = tokens;
    while let [(_, token), tail @ ..] = rest {
        let depth = depth(path) + braces.iter().filter(|module| **module).count();
        rest = match (*token, tail) {
            ("mod", [_, (_, "{"), tail @ ..]) => {
                braces.push(true);
                tail
            }
            ("crate" | "self" | "super", [(_, "::"), ..]) => follow(rest, depth, &mut found),
            _ => {
                match *token {
                    "{" => braces.push(false),
                    "}" => drop(braces.pop()),
                    _ => {}
                }
                tail
            }
        };
    }
    found
}

/// How many modules lie between the crate's root and what the file declares.
fn depth(path: &str) -> usize {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if inner == "lib" || inner == "main" { 0 } else { inner.split('/').count() }
}

/// Follows a path that starts `depth` modules below the root, with all branches of its groups; returns what comes after it.
fn follow<'t, 'a>(mut rest: &'t [Token<'a>], mut depth: usize, found: &mut Vec<Token<'a>>) -> &'t [Token<'a>] {
    loop {
        rest = match rest {
            [(_, "crate"), (_, "::"), tail @ ..] => {
                depth = 0;
                tail
            }
            [(_, "super"), (_, "::"), tail @ ..] => {
                depth = depth.saturating_sub(1);
                tail
            }
            [(_, "self"), (_, "::"), tail @ ..] => tail,
            [(_, "{"), tail @ ..] => return follow_group(tail, depth, found),
            [name, tail @ ..] => {
                if depth == 0 {
                    found.push(*name);
                }
                return tail;
            }
            [] => return rest,
        };
    }
}

/// Follows the branches of a group, whose opening brace is taken already.
fn follow_group<'t, 'a>(mut rest: &'t [Token<'a>], depth: usize, found: &mut Vec<Token<'a>>) -> &'t [Token<'a>] {
    let mut starts = true;
    loop {
        rest = match rest {
            [] => return rest,
            [(_, "}"), tail @ ..] => return tail,
            [(_, ","), tail @ ..] => {
                starts = true;
                tail
            }
            branch if starts => {
                starts = false;
                follow(branch, depth, found)
            }
            // Behind a branch's first name everything lies deeper.
            [(_, "{"), tail @ ..] => follow_group(tail, depth + 1, found),
            [_, tail @ ..] => tail,
        };
    }
}

/// Cuts a source file into names, numbers and marks, leaving out comments, strings and characters. `::` is one mark.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, counts) = lexeme(rest, first);
        let (lexeme, after) = rest.split_at(length);
        if counts {
            tokens.push((line, lexeme));
        }
        line += lexeme.matches('\n').count();
        rest = after;
    }
    tokens
}

/// How long the piece of source at the start of `rest` is, in bytes, and whether it is a token.
fn lexeme(rest: &str, first: char) -> (usize, bool) {
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (block_comment(rest), false)
    } else if let Some(length) = raw_string(rest) {
        (length, false)
    } else if first == '"' {
        (quoted(rest, '"').unwrap_or(rest.len()), false)
    } else if first == '\'' {
        // A quote without a partner right behind the next character begins a lifetime.
        let character = rest.chars().nth(1) == Some('\\') || rest.chars().nth(2) == Some('\'');
        (if character { quoted(rest, '\'').unwrap_or(rest.len()) } else { 1 }, false)
    } else if word > 0 {
        (word, true)
    } else if rest.starts_with("::") {
        (2, true)
    } else {
        (first.len_utf8(), !first.is_whitespace())
    }
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let mut rest = text;
    let mut open = 0;
    while let Some(first) = rest.chars().next() {
        let (step, change) = match rest {
            _ if rest.starts_with("/*") => (2, 1),
            _ if rest.starts_with("*/") => (2, -1),
            _ => (first.len_utf8(), 0),
        };
        rest = rest.split_at(step).1;
        open += change;
        if open == 0 {
            break;
        }
    }
    text.len() - rest.len()
}

/// The length of `r"…"`, `br#"…"#` and the like, if that is what `text` starts with.
fn raw_string(text: &str) -> Option<usize> {
    let start = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let body = start.trim_start_matches('#');
    let end = format!("\"{}", "#".repeat(start.len() - body.len()));
    let (_, after) = body.strip_prefix('"')?.split_once(&end)?;
    Some(text.len() - after.len())
}

/// The length of a literal between two `quote`s, where a backslash takes the next character along.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    let closing = text.char_indices().skip(1).find(|(_, c)| {
        let closes = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    });
    closing.map(|(at, _)| at + quote.len_utf8())
}
