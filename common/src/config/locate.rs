//! The locator: line and column of a field path in the text of a configuration.
//!
//! It is a scanner, not a second parser: it runs over text that ron has already accepted, knows strings, comments and
//! nesting, and understands nothing else. For text that is not RON it answers something near, and never panics.

use super::field_path::{FieldPath, Step};

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column, characters, from 1.
    pub column: usize,
}

/// Where the value at `path` begins in `text`. If the text does not hold it (the value is a default), where the nearest
/// enclosing value begins.
pub(super) fn locate(text: &str, path: &FieldPath) -> Position {
    let mut scanner = Scanner { text: text.as_bytes(), at: 0 };
    scanner.skip_attributes();
    let mut found = scanner.at;
    for step in path.steps() {
        let entered = match step {
            Step::Field(name) => scanner.enter_field(name),
            Step::Index(index) => scanner.enter_element(*index),
        };
        if !entered {
            break;
        }
        found = scanner.at;
    }
    position(text, found)
}

/// The first place at or after `from` where neither white space nor a comment stands; `from` itself if there is none.
pub(super) fn skip_blank(text: &str, from: Position) -> Position {
    let Some(line) = text.split_inclusive('\n').nth(from.line - 1) else { return from };
    let column = line.char_indices().nth(from.column - 1).map_or(line.len(), |(offset, _)| offset);
    let line_start = line.as_ptr().addr() - text.as_ptr().addr();
    let mut scanner = Scanner { text: text.as_bytes(), at: line_start + column };
    scanner.skip_blank();
    if scanner.peek().is_some() { position(text, scanner.at) } else { from }
}

/// The line and column of a byte offset.
fn position(text: &str, offset: usize) -> Position {
    let before = String::from_utf8_lossy(&text.as_bytes()[..offset.min(text.len())]);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// A cursor over the text. Between calls it stands at the first byte of a value or of a delimiter.
struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Scanner<'t> {
    fn rest(&self) -> &'t [u8] {
        &self.text[self.at.min(self.text.len())..]
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let accepted = self.peek() == Some(byte);
        self.at += usize::from(accepted);
        accepted
    }

    /// Goes past `#![enable(…)]` lines and what is blank around them.
    fn skip_attributes(&mut self) {
        self.skip_blank();
        while self.rest().starts_with(b"#!") {
            self.at += 2;
            self.skip_one();
            self.skip_blank();
        }
    }

    /// Goes past white space and comments.
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if blank > 0 {
                self.at += blank;
            } else if rest.starts_with(b"//") {
                self.at += rest.iter().take_while(|byte| **byte != b'\n').count();
            } else if rest.starts_with(b"/*") {
                self.skip_block_comment();
            } else {
                return;
            }
        }
    }

    /// Goes past a block comment; they nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while !self.rest().is_empty() {
            if self.rest().starts_with(b"/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with(b"*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// Goes past a name, and returns it; empty if there is none.
    fn identifier(&mut self) -> &'t [u8] {
        let rest = self.rest();
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        self.at += length;
        &rest[..length]
    }

    /// Goes into `Name(`, `Some(` or `(`, past the parenthesis.
    fn enter_parenthesis(&mut self) -> bool {
        self.identifier();
        self.skip_blank();
        let entered = self.accept(b'(');
        self.skip_blank();
        entered
    }

    /// From the beginning of a struct to the beginning of its field `name`.
    fn enter_field(&mut self, name: &str) -> bool {
        if !self.enter_parenthesis() {
            return false;
        }
        while !matches!(self.peek(), None | Some(b')')) {
            let entry = self.at;
            let found = self.identifier();
            self.skip_blank();
            if !self.accept(b':') {
                // No field stands here, so this is an optional value's wrapper: the struct is inside.
                self.at = entry;
                return self.enter_field(name);
            }
            self.skip_blank();
            if found == name.as_bytes() {
                return true;
            }
            self.skip_value();
        }
        false
    }

    /// From the beginning of a list or tuple to the beginning of its element `index`.
    fn enter_element(&mut self, index: usize) -> bool {
        if self.accept(b'[') {
            self.skip_blank();
        } else if !self.enter_parenthesis() {
            return false;
        }
        for _ in 0..index {
            self.skip_value();
        }
        !matches!(self.peek(), None | Some(b']' | b')'))
    }

    /// Goes past a value and the comma behind it.
    fn skip_value(&mut self) {
        while !matches!(self.peek(), None | Some(b',' | b')' | b']' | b'}')) {
            self.skip_one();
            self.skip_blank();
        }
        self.accept(b',');
        self.skip_blank();
    }

    /// Goes past one string, character, bracketed group, or byte of anything else.
    fn skip_one(&mut self) {
        let rest = self.rest();
        match rest {
            [b'"', ..] => self.skip_string(),
            [b'r', b'"' | b'#', ..] => self.skip_raw_string(),
            [b'\'', b'\\', ..] => self.at += 4,
            [b'\'', _, b'\'', ..] => self.at += 3,
            [b'(' | b'[' | b'{', ..] => self.skip_group(),
            [byte, ..] if byte.is_ascii_alphanumeric() || *byte == b'_' => {
                self.identifier();
            }
            [_, ..] => self.at += 1,
            [] => {}
        }
    }

    /// Goes past a bracketed group with all that is in it.
    fn skip_group(&mut self) {
        let mut depth = 0;
        loop {
            match self.peek() {
                None => return,
                Some(b'(' | b'[' | b'{') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b')' | b']' | b'}') => {
                    depth -= 1;
                    self.at += 1;
                    if depth == 0 {
                        return;
                    }
                }
                Some(_) => self.skip_one(),
            }
            self.skip_blank();
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        loop {
            match self.peek() {
                None => return,
                Some(b'\\') => self.at += 2,
                Some(byte) => {
                    self.at += 1;
                    if byte == b'"' {
                        return;
                    }
                }
            }
        }
    }

    /// Goes past `r"…"`, `r#"…"#` and so on.
    fn skip_raw_string(&mut self) {
        self.at += 1;
        let hashes = self.rest().iter().take_while(|byte| **byte == b'#').count();
        self.at += hashes;
        if !self.accept(b'"') {
            // `r#name` is a raw identifier.
            self.identifier();
            return;
        }
        let end: Vec<u8> = [b'"'].into_iter().chain(std::iter::repeat_n(b'#', hashes)).collect();
        while !self.rest().is_empty() && !self.rest().starts_with(&end) {
            self.at += 1;
        }
        self.at += end.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, path: &FieldPath) -> (usize, usize) {
        let Position { line, column } = locate(text, path);
        (line, column)
    }

    const TEXT: &str = r##"#![enable(implicit_some)]
// ( [ comment: "x
Config(
    node: (id: 1, name: "a) \" // not, a comment"), /* b: ( /* nested */ ] */
    raw: r#"text: " ( "#, letter: '(', escaped: '\'',
    list: [(a: 1), (a: 2, /* c */ b: (3, [4], 5)),
        Some((a: 6)),
    ],
    enum_like: Adaptive(polls_min: 7),
    last: 8,
)"##;

    #[test]
    fn fields_and_elements_are_found() {
        let root = FieldPath::root();
        assert_eq!(at(TEXT, &root), (3, 1));
        assert_eq!(at(TEXT, &root.field("node").field("name")), (4, 25));
        assert_eq!(at(TEXT, &root.field("list").index(1).field("b").index(2)), (6, 47));
        assert_eq!(at(TEXT, &root.field("list").index(2).field("a")), (7, 18));
        assert_eq!(at(TEXT, &root.field("enum_like").field("polls_min")), (9, 36));
        assert_eq!(at(TEXT, &root.field("last")), (10, 11));
    }

    #[test]
    fn what_the_text_does_not_hold_is_placed_at_its_parent() {
        let root = FieldPath::root();
        assert_eq!(at(TEXT, &root.field("absent").field("deeper")), (3, 1));
        assert_eq!(at(TEXT, &root.field("node").field("cluster")), (4, 11));
        assert_eq!(at(TEXT, &root.field("list").index(9)), (6, 11));
        assert_eq!(at(TEXT, &root.field("last").field("inside")), (10, 11));
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        assert_eq!(at("(a: \"äöü\", b: 1)", &FieldPath::root().field("b")), (1, 15));
    }

    proptest::proptest! {
        #[test]
        fn locate_ends_on_any_text(text in "[(){}\\[\\],:a-c\"'r#/*\\\\! \n]{0,60}", index in 0usize..4) {
            let path = FieldPath::root().field("a").index(index).field("b");
            locate(&text, &path);
        }
    }
}
