//! RON that people write: read strictly, and refused with the place and a guess.
//!
//! A key that is silently ignored is a setting somebody believes to be in force. Types read here
//! carry `#[serde(deny_unknown_fields)]`, and a slip comes back like this:
//!
//! ```text
//! volumes.ron:4:13: unknown field `namspace` in `Replica`; did you mean `namespace`?
//!   |
//! 4 |             namspace: "uuid.6fd1ee4c-…",
//!   |             ^^^^^^^^
//! ```
//!
//! The first line is the error's `Display`, fit for a log; all of it is
//! [`RonTextError::with_excerpt`]. `Some(…)` may be left out: `grace: "10m"` reads as
//! `grace: Some("10m")`.
//!
//! The price: a value refused by its own type (a bad UUID) is pointed at where the parser stood
//! when it was refused, which is the value's end on the right line, not always its first character.

use std::fmt;

use ron::Options;
use ron::error::{Error, SpannedError};
use ron::extensions::Extensions;
use serde::de::DeserializeOwned;

/// The most of a line that an excerpt shows.
const SHOWN: usize = 160;

/// Reads `text`, which came from `source` (a path, for the message).
///
/// # Errors
/// When it is not RON, or not a `T`.
pub fn parse<T: DeserializeOwned>(text: &str, source: &str) -> Result<T, RonTextError> {
    Options::default()
        .with_default_extension(Extensions::IMPLICIT_SOME)
        .from_str(text)
        .map_err(|error| RonTextError::new(text, source, &error))
}

/// Why a piece of RON was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RonTextError {
    source_name: String,
    line: usize,
    column: usize,
    width: usize,
    excerpt: String,
    message: String,
    hint: Option<String>,
}

impl std::error::Error for RonTextError {}

impl fmt::Display for RonTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source_name, line, column, message, .. } = self;
        write!(f, "{source_name}:{line}:{column}: {message}")?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl RonTextError {
    fn new(text: &str, source: &str, error: &SpannedError) -> Self {
        let named = named_by(&error.code);
        let (line, column, width) = place(text, error, named);
        let shown = text.lines().nth(line - 1).unwrap_or_default();
        let (message, hint) = wording(&error.code);
        Self {
            source_name: source.to_owned(),
            line,
            column,
            width,
            excerpt: crate::text::printable(shown.trim_end(), SHOWN),
            message,
            hint,
        }
    }

    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// "did you mean …?" or what would have been allowed, if there is such a word.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message with the line it is about and a mark under the place.
    #[must_use]
    pub fn with_excerpt(&self) -> String {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let before = " ".repeat(self.column.saturating_sub(1).min(SHOWN));
        let room = SHOWN.saturating_sub(before.len()).max(1);
        let mark = "^".repeat(self.width.clamp(1, room));
        format!("{self}\n{margin} |\n{number} | {}\n{margin} | {before}{mark}", self.excerpt)
    }
}

/// The word of the text that the error is about, if it names one.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's non-exhaustive enum: whatever it adds is worded by its own Display"
)]
fn named_by(error: &Error) -> Option<&str> {
    match error {
        Error::NoSuchStructField { found, .. } | Error::NoSuchEnumVariant { found, .. } => {
            Some(found)
        }
        Error::DuplicateStructField { field, .. } => Some(field),
        _ => None,
    }
}

/// Line, column and width of what the error is about. The parser reports where its cursor stood,
/// which may be past the word; a word that it names is found again just before that.
fn place(text: &str, error: &SpannedError, named: Option<&str>) -> (usize, usize, usize) {
    let (start, end) = (error.span.start, error.span.end);
    let last_line = text.lines().count().max(1);
    if let Some(word) = named.filter(|word| !word.is_empty()) {
        let upto = offset(text, end.line, end.col);
        if let Some(at) = text[..upto].rfind(word) {
            let line = 1 + text[..at].matches('\n').count();
            let column = 1 + text[..at].chars().rev().take_while(|c| *c != '\n').count();
            return (line, column, word.chars().count());
        }
    }
    let width = if start.line == end.line { end.col.saturating_sub(start.col) } else { 1 };
    (start.line.clamp(1, last_line), start.col.max(1), width)
}

/// The byte offset of a place counted in lines and characters; the text's end if it lies beyond.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    text[start..]
        .char_indices()
        .nth(column.saturating_sub(1))
        .map_or(text.len(), |(at, _)| start + at)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's non-exhaustive enum: whatever it adds is worded by its own Display"
)]
fn wording(error: &Error) -> (String, Option<String>) {
    let within = |outer: &Option<String>| match outer {
        Some(outer) => format!(" in `{outer}`"),
        None => String::new(),
    };
    match error {
        Error::NoSuchStructField { expected, found, outer } => (
            format!("unknown field `{}`{}", shortened(found), within(outer)),
            hint(found, expected),
        ),
        Error::NoSuchEnumVariant { expected, found, outer } => (
            format!("unknown value `{}`{}", shortened(found), within(outer)),
            hint(found, expected),
        ),
        Error::MissingStructField { field, outer } => {
            (format!("field `{field}` is missing{}", within(outer)), None)
        }
        Error::DuplicateStructField { field, outer } => {
            (format!("field `{field}` is given twice{}", within(outer)), None)
        }
        Error::Eof => ("the text ends too early".to_owned(), None),
        other => {
            let text = crate::text::printable(&other.to_string(), 300);
            let mut chars = text.chars();
            let first = chars.next().map(|c| c.to_lowercase().to_string());
            (first.unwrap_or_default() + chars.as_str(), None)
        }
    }
}

fn shortened(found: &str) -> String {
    crate::text::printable(found, 64)
}

fn hint(found: &str, expected: &[&str]) -> Option<String> {
    if let Some(nearest) = nearest(found, expected) {
        return Some(format!("did you mean `{nearest}`?"));
    }
    let list: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
    match list.as_slice() {
        [] => None,
        [only] => Some(format!("it can only be {only}")),
        _ => Some(format!("it can be {}", list.join(", "))),
    }
}

/// The one of `known` that `word` was probably meant to be, if any is near enough.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| -> Vec<char> {
        text.chars()
            .take(64)
            .filter(|c| !matches!(c, '_' | '-'))
            .flat_map(char::to_lowercase)
            .collect()
    };
    let word = plain(word);
    known
        .iter()
        .map(|name| (distance(&word, &plain(name)), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many slips of the keyboard (a letter more, less, other, or two swapped) lie between two
/// words.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let other = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = other.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        grace: Option<crate::text::HumanDuration>,
        #[serde(default)]
        legs: Vec<Leg>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Leg {
        namespace: heal_types::NamespaceId,
        #[serde(default)]
        state: State,
    }

    #[derive(Debug, Deserialize, PartialEq, Default)]
    enum State {
        #[default]
        Available,
        Terminating,
    }

    fn error(text: &str) -> RonTextError {
        parse::<Outer>(text, "volumes.ron").unwrap_err()
    }

    #[test]
    fn an_unknown_field_is_pointed_at_with_a_guess() {
        let error =
            error("(\n    grace: \"10m\",\n    legs: [\n        (namspace: \"x\"),\n    ],\n)\n");
        assert_eq!(
            error.with_excerpt(),
            "volumes.ron:4:10: unknown field `namspace` in `Leg`; did you mean `namespace`?\n  |\n\
             4 |         (namspace: \"x\"),\n  |          ^^^^^^^^"
        );
    }

    #[test]
    fn an_unknown_word_far_from_any_lists_what_is_allowed() {
        let error = error("(zzzzzz: 1)");
        assert_eq!(
            error.to_string(),
            "volumes.ron:1:2: unknown field `zzzzzz` in `Outer`; it can be `grace`, `legs`"
        );
    }

    #[test]
    fn an_unknown_variant_is_pointed_at_with_a_guess() {
        let text =
            "(legs: [\n(namespace: \"6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a001\", state: Terminatng)])";
        let error = error(text);
        assert_eq!((error.line(), error.column()), (2, 60));
        assert_eq!(error.hint(), Some("did you mean `Terminating`?"));
    }

    #[test]
    fn a_value_its_type_refuses_is_on_the_right_line_with_the_types_own_words() {
        let error = error("(\n  legs: [\n    (namespace: \"not-a-uuid\"),\n  ],\n)");
        assert_eq!(error.line(), 3, "{error}");
        assert!(error.to_string().contains("it is not a UUID"), "{error}");
        let error = super::parse::<Outer>("(\n grace: \"10\",\n)", "c.ron").unwrap_err();
        assert_eq!(error.line(), 2, "{error}");
        assert!(error.to_string().contains("it has no unit"), "{error}");
    }

    #[test]
    fn a_missing_and_a_doubled_field_are_named() {
        let missing = error("(legs: [(state: Available)])").to_string();
        assert!(missing.contains("field `namespace` is missing in `Leg`"), "{missing}");
        let doubled = error("(grace: \"1s\", grace: \"2s\")").to_string();
        assert!(doubled.contains(":1:15: field `grace` is given twice"), "{doubled}");
    }

    #[test]
    fn some_may_be_written_or_left_out() {
        let a: Outer = parse("(grace: \"10m\")", "a").unwrap();
        let b: Outer = parse("(grace: Some(\"10m\"))", "b").unwrap();
        assert_eq!(a, b);
        let none: Outer = parse("(grace: None)", "c").unwrap();
        assert_eq!(none.grace, None);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let whole = "(\n grace: \"10m\", /* é */ legs: [(namespace: \"é\", state: Terminating)])";
        for end in (0..=whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            let _ = parse::<Outer>(&whole[..end], "x").map_err(|error| error.with_excerpt());
        }
        for text in
            ["", "\n\n", "(", "((((((((", "\u{0}", "(é: 1)", "(r#grace: 1)", "(\"grace\": 1)"]
        {
            let _ = parse::<Outer>(text, "x").map_err(|error| error.with_excerpt());
        }
        let deep = "[".repeat(100_000);
        assert!(parse::<Vec<Outer>>(&deep, "x").is_err());
    }

    #[test]
    fn the_nearest_word_forgives_case_dashes_and_one_slip_in_three() {
        let known = ["namespace", "nqn", "portals", "size"];
        assert_eq!(nearest("Name-Space", &known), Some("namespace"));
        assert_eq!(nearest("portlas", &known), Some("portals"));
        assert_eq!(nearest("nqm", &known), Some("nqn"));
        assert_eq!(nearest("colour", &known), None);
    }
}
