//! Reads Rust source well enough to judge it: what is code, what is test, which paths it names.
//!
//! This is a tokenizer and not a parser, because the questions are small: which paths stand in a
//! file, nested braces and `super` included, and which lines belong to tests. A parser crate would
//! answer them too, at the price of a dependency that only one test has.
//!
//! What must stay true: text in comments, strings and character literals never counts as code, and
//! blanking it moves no line. What is left out: paths that a macro puts together, items renamed by
//! `use … as …` and then used by the new name, and `cfg` other than plain `#[cfg(test)]`; the lints
//! in `clippy.toml` see those, since they work on resolved names.

/// One path as written, `use` trees spread out: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// The line on which the path begins, from 1.
    pub(crate) line: usize,
    /// The names between the colons; a glob is the name `*`.
    pub(crate) names: Vec<String>,
    /// The inline modules around the path, outermost first.
    pub(crate) inside: Vec<String>,
}

impl Path {
    /// Whether the path is `prefix` or goes on from it.
    pub(crate) fn starts_with(&self, prefix: &str) -> bool {
        let wanted: Vec<&str> = prefix.split("::").collect();
        self.names.len() >= wanted.len() && self.names.iter().zip(wanted).all(|(a, b)| a == b)
    }

    /// Whether the path ends before `longer` does, hence may bring it in under another name.
    ///
    /// A single name is no such path: `std` alone says nothing.
    pub(crate) fn hides(&self, longer: &str) -> bool {
        let names: Vec<&str> =
            self.names.iter().map(String::as_str).filter(|name| *name != "*").collect();
        let longer: Vec<&str> = longer.split("::").collect();
        let whole_module = names.len() > 1 || self.names.len() > names.len();
        whole_module && names.len() < longer.len() && longer.starts_with(&names)
    }
}

/// The text with comments and the insides of strings and characters blanked, line for line.
pub(crate) fn code(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            '/' if bytes.get(at + 1) == Some(&'/') => line_end(&bytes, at),
            '/' if bytes.get(at + 1) == Some(&'*') => comment_end(&bytes, at),
            '"' => string_end(&bytes, at + 1, 0),
            'r' | 'b' | 'c' if !follows_name(&bytes, at) => raw_string_end(&bytes, at),
            '\'' => character_end(&bytes, at),
            _ => at,
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn follows_name(text: &[char], at: usize) -> bool {
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_')
}

fn line_end(text: &[char], at: usize) -> usize {
    text[at..].iter().position(|c| *c == '\n').map_or(text.len(), |length| at + length)
}

/// The end of a block comment, which may hold others.
fn comment_end(text: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The end of a string whose inside begins at `at` and which closes with `hashes` hash signs.
fn string_end(text: &[char], mut at: usize, hashes: usize) -> usize {
    while at < text.len() {
        match text[at] {
            '\\' if hashes == 0 => at += 2,
            '"' if text[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes => {
                return at + 1 + hashes;
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// The end of `r"…"`, `r#"…"#`, `br"…"`, `b"…"`, `c"…"`; `at` itself if none begins here.
fn raw_string_end(text: &[char], at: usize) -> usize {
    let letters = text[at..].iter().take(2).take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    let raw = text[at..at + letters].contains(&'r');
    let hashes = text[at + letters..].iter().take_while(|c| **c == '#').count();
    let opens = text.get(at + letters + hashes) == Some(&'"') && (raw || hashes == 0);
    if !opens {
        return at;
    }
    let inside = at + letters + hashes + 1;
    // A raw string without hash signs ends at the first quote: a backslash means nothing in it.
    match (raw, hashes) {
        (true, 0) => {
            text[inside..].iter().position(|c| *c == '"').map_or(text.len(), |n| inside + n + 1)
        }
        _ => string_end(text, inside, hashes),
    }
}

/// The end of a character literal; `at` itself for a lifetime.
fn character_end(text: &[char], at: usize) -> usize {
    match (text.get(at + 1), text.get(at + 2)) {
        (Some('\\'), _) => {
            // Skip the escaped character, which may be a quote itself.
            let from = (at + 3).min(text.len());
            text[from..].iter().position(|c| *c == '\'').map_or(text.len(), |n| from + n + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

/// A name or a mark, with its line from 1.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    line: usize,
    text: String,
}

fn tokens(code: &str) -> Vec<Token> {
    let mut found: Vec<Token> = Vec::new();
    for (index, text) in code.lines().enumerate() {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match first {
                _ if name > 0 => name,
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            if !first.is_whitespace() {
                found.push(Token { line: index + 1, text: rest[..length].to_owned() });
            }
            rest = &rest[length..];
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Every path in the code, `use` trees spread out; a lone name counts as a path of one.
pub(crate) fn paths(code: &str) -> Vec<Path> {
    let tokens = tokens(code);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut depth = 0;
    // The inline modules around the current token, with the depth of braces at which each began.
    let mut modules: Vec<(usize, String)> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "mod" if is_name(text(at + 1)) && text(at + 2) == "{" => {
                modules.push((depth, text(at + 1).to_owned()));
                depth += 1;
                at += 3;
            }
            "{" => (depth, at) = (depth + 1, at + 1),
            "}" => {
                depth = depth.saturating_sub(1);
                modules.retain(|(began, _)| *began < depth);
                at += 1;
            }
            name if is_name(name) => {
                let line = tokens[at].line;
                let mut spread = Vec::new();
                at = tree(&tokens, at, &[], &mut spread);
                let inside: Vec<String> = modules.iter().map(|(_, name)| name.clone()).collect();
                found.extend(spread.into_iter().map(|names| Path {
                    line,
                    names,
                    inside: inside.clone(),
                }));
            }
            _ => at += 1,
        }
    }
    found
}

/// Reads one path or `use` tree from `at`, adds what it spreads to, answers where it ends.
fn tree(
    tokens: &[Token],
    mut at: usize,
    before: &[String],
    spread: &mut Vec<Vec<String>>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut names = before.to_vec();
    loop {
        if is_name(text(at)) || text(at) == "*" {
            // `a::{self}` names `a`.
            if text(at) != "self" || names.is_empty() {
                names.push(text(at).to_owned());
            }
            at += 1;
        }
        if text(at) != "::" {
            break;
        }
        match text(at + 1) {
            "{" => {
                at += 2;
                while at < tokens.len() && text(at) != "}" {
                    let branch = is_name(text(at)) || text(at) == "*";
                    at = if branch { tree(tokens, at, &names, spread) } else { at + 1 };
                    if text(at) == "as" {
                        at += 2;
                    }
                }
                return at + 1;
            }
            next if is_name(next) || next == "*" => at += 1,
            _ => {
                at += 1;
                break;
            }
        }
    }
    spread.push(names);
    at
}

/// The code with everything under a plain `#[cfg(test)]` blanked, line for line.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = code.to_owned();
    while let Some(start) = kept.find(MARK) {
        let from = start + MARK.len();
        let end = item_end(&kept[from..]).map_or(kept.len(), |length| from + length);
        let blank: String =
            kept[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        kept.replace_range(start..end, &blank);
    }
    kept
}

/// The length of the item at the start of the text: up to its closing brace or its semicolon.
fn item_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(c, '}' | ';') {
            // An import with braces has both.
            let both = c == '}' && text[at + 1..].starts_with(';');
            return Some(at + 1 + usize::from(both));
        }
    }
    None
}

mod tests {
    use super::{Path, code, paths, without_tests};

    fn spelled(text: &str) -> Vec<String> {
        paths(&code(text)).iter().map(|path| path.names.join("::")).collect()
    }

    /// Comments, strings and characters are blank, and no line moves.
    #[test]
    fn only_code_counts() {
        let text = "a // crate::x\n/* b /* c */ d */ e \"f\\\" g\" h r#\"i \" j\"# 'k' 'l m '\\'' n b\"o\" r\"p\\\" q\n";
        let code = code(text);
        let names: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(names, ["a", "e", "h", "'l", "m", "n", "q"]);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.chars().count(), text.chars().count());
    }

    /// Trees of braces are spread out, with globs, `self` and renamings, over several lines.
    #[test]
    fn use_trees_are_spread_out() {
        let text = "use crate::{\n  a::b,\n  c::{d, e::{self, f as g}},\n  h::*,\n};";
        assert_eq!(
            spelled(text),
            ["use", "crate::a::b", "crate::c::d", "crate::c::e", "crate::c::e::f", "crate::h::*"]
        );
    }

    /// Paths count outside of `use` as well, in signatures, expressions and macros.
    #[test]
    fn paths_in_expressions_count() {
        assert_eq!(spelled("x = Vec::<a::B>::new()"), ["x", "Vec", "a::B", "new"]);
        assert_eq!(
            spelled("$crate::net::f!(::std::mem::take)"),
            ["crate::net::f", "std::mem::take"]
        );
        assert_eq!(spelled("if a { b::c } else { d }"), ["if", "a", "b::c", "else", "d"]);
    }

    /// Each path knows its line and the inline modules around it.
    #[test]
    fn paths_know_where_they_stand() {
        let found = paths("mod a {\n mod b { x }\n y }\nz");
        let places: Vec<(&str, usize, usize)> =
            found.iter().map(|p| (p.names[0].as_str(), p.line, p.inside.len())).collect();
        assert_eq!(places, [("x", 2, 2), ("y", 3, 1), ("z", 4, 0)]);
    }

    /// A path that stops short of a longer one may bring it in; one that turns off may not.
    #[test]
    fn a_parent_module_hides_what_is_in_it() {
        let path = |text: &str| Path {
            line: 1,
            names: text.split("::").map(str::to_owned).collect(),
            inside: Vec::new(),
        };
        assert!(path("std::time").hides("std::time::Instant"));
        assert!(path("std::time::*").hides("std::time::Instant"));
        assert!(path("std::*").hides("std::time::Instant"));
        assert!(!path("std").hides("std::time::Instant"));
        assert!(!path("std::time::Duration").hides("std::time::Instant"));
        assert!(!path("std::time::Instant").hides("std::time::Instant"));
        assert!(path("std::time::Instant::now").starts_with("std::time::Instant"));
        assert!(!path("std::time").starts_with("std::time::Instant"));
    }

    /// Test modules, functions and imports go; what stands after them stays.
    #[test]
    fn tests_are_cut_out() {
        let text =
            "a\n#[cfg(test)]\nmod tests { fn b() { c } }\nd\n#[cfg(test)]\nuse e::{f, g};\nh";
        let kept = without_tests(text);
        assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["a", "d", "h"]);
        assert_eq!(kept.lines().count(), text.lines().count());
    }
}
