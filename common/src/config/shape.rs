//! From text to the raw configuration, with ron's complaints put into the words of a [`Problem`].

use serde::Deserialize;

use super::error::Problem;
use super::field_path::FieldPath;
use super::locate::{Position, locate, skip_blank};
use super::raw::RawConfig;

/// Reads `text`; `file` is its name for messages.
pub(super) fn read(text: &str, file: &str) -> Result<RawConfig, Box<Problem>> {
    let options = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    let mut ron = ron::Deserializer::from_str_with_options(text, &options)
        .map_err(|error| problem(error, &FieldPath::root(), text, file))?;
    let mut track = serde_path_to_error::Track::new();
    match RawConfig::deserialize(serde_path_to_error::Deserializer::new(&mut ron, &mut track)) {
        Ok(raw) => match ron.end() {
            Ok(()) => Ok(raw),
            Err(code) => Err(problem(ron.span_error(code), &FieldPath::root(), text, file)),
        },
        Err(code) => Err(problem(ron.span_error(code), &FieldPath::from(&track.path()), text, file)),
    }
}

fn problem(error: ron::error::SpannedError, field: &FieldPath, text: &str, file: &str) -> Box<Problem> {
    let start = Position { line: error.span.start.line, column: error.span.start.col };
    let position = match error.code {
        ron::Error::MissingStructField { .. } => locate(text, field),
        _ => skip_blank(text, start),
    };
    let (found, expected, remedy) = describe(&error.code, &token_at(text, position));
    Box::new(Problem { file: file.to_owned(), position, field: field.to_string(), found, expected, remedy })
}

/// Found, expected and remedy of one of ron's errors.
fn describe(code: &ron::Error, token: &str) -> (String, String, String) {
    use ron::Error;
    match code {
        Error::NoSuchStructField { expected, found, .. } => (
            format!("the unknown field `{found}`"),
            one_of(expected),
            match nearest(found, expected) {
                Some(name) => format!("write `{name}`, or take the field away"),
                None => "take the field away".to_owned(),
            },
        ),
        Error::NoSuchEnumVariant { expected, found, .. } => (
            format!("`{found}`"),
            one_of(expected),
            match nearest(found, expected) {
                Some(name) => format!("write `{name}`"),
                None => "write one of these".to_owned(),
            },
        ),
        Error::MissingStructField { field, .. } => {
            ("no such field".to_owned(), format!("`{field}`"), "add it: it has no default".to_owned())
        }
        Error::DuplicateStructField { field, .. } => {
            (format!("`{field}` a second time"), "it once".to_owned(), "take one of them away".to_owned())
        }
        Error::InvalidValueForType { expected, found } => {
            (found.clone(), expected.clone(), "correct the value".to_owned())
        }
        Error::IntegerOutOfBounds => (
            token.to_owned(),
            "a number in range".to_owned(),
            "correct it; `--print-default` tells the range".to_owned(),
        ),
        Error::ExpectedInteger => {
            (token.to_owned(), "a whole number".to_owned(), "write one, without quotes".to_owned())
        }
        Error::ExpectedBoolean => {
            (token.to_owned(), "true or false".to_owned(), "write one of these".to_owned())
        }
        Error::ExpectedString => {
            (token.to_owned(), "a string".to_owned(), "put the value in double quotes".to_owned())
        }
        Error::TrailingCharacters => {
            (token.to_owned(), "nothing after the last bracket".to_owned(), "take it away".to_owned())
        }
        other => (token.to_owned(), expected_syntax(other), REMEDY_SYNTAX.to_owned()),
    }
}

const REMEDY_SYNTAX: &str = "look at the brackets, commas and quotes here and on the line before";

/// What ron expected, in its words: `comma` of "Expected comma".
fn expected_syntax(code: &ron::Error) -> String {
    let message = code.to_string();
    match message.strip_prefix("Expected ") {
        Some(expected) => expected.split(" but found").next().unwrap_or(expected).to_owned(),
        None => format!("valid RON ({message})"),
    }
}

fn one_of(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [single] => single.clone(),
        several => format!("one of {}", several.join(", ")),
    }
}

/// What stands at a position, up to a blank or delimiter, for people.
fn token_at(text: &str, position: Position) -> String {
    let line = text.lines().nth(position.line - 1).unwrap_or_default();
    let token: String = line
        .chars()
        .skip(position.column - 1)
        .enumerate()
        .take_while(|(at, c)| *at == 0 || !(c.is_whitespace() || "()[]{},:".contains(*c)))
        .map(|(_, c)| c)
        .take(40)
        .collect();
    if token.trim().is_empty() { "the end of the line".to_owned() } else { format!("`{token}`") }
}

/// The name that was probably meant: fewest edits away, and not more than a third of its length.
fn nearest<'n>(found: &str, names: &[&'n str]) -> Option<&'n str> {
    names
        .iter()
        .map(|name| (edits(found, name), *name))
        .filter(|(edits, name)| *edits <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// The Levenshtein distance.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
