//! The workspace's source as the rules see it: files, and their tokens without comments and test code.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Group, TokenStream, TokenTree};

/// The workspace's packages that hold source, by directory.
pub const PACKAGES: [&str; 9] =
    ["common", "dpdk-sys", "dpdk", "hugepage-setup", "primary", "sync-secondary", "ctl", "tests", "bench"];

/// A Rust file.
pub struct Source {
    /// Its path from the workspace's root.
    pub path: PathBuf,
    /// Its tokens: brackets are tokens, comments, strings' insides and `#[cfg(test)]` items are not there.
    pub tokens: Vec<String>,
    /// Modules that it declares for tests only.
    test_modules: Vec<String>,
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' package lies in the workspace")
        .to_path_buf()
}

/// A text file of the workspace.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below `directory`, test code and all, as paths from the workspace's root.
pub fn rust_files(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(directory)];
    while let Some(directory) = pending.pop() {
        let entries =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for path in entries.map(|entry| entry.expect("a directory entry").path()) {
            if path.is_dir() && !path.ends_with("target") {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).expect("below the root").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// The source below `directory/src` that is no test code.
pub fn sources(directory: &str) -> Vec<Source> {
    let all: Vec<Source> = rust_files(&format!("{directory}/src")).into_iter().map(Source::parse).collect();
    let for_tests: Vec<PathBuf> = all.iter().flat_map(Source::test_module_paths).collect();
    all.into_iter()
        .filter(|source| !for_tests.iter().any(|module| source.path.with_extension("").starts_with(module)))
        .collect()
}

impl Source {
    fn parse(path: PathBuf) -> Source {
        let stream: TokenStream =
            read(&path).parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut source = Source { path, tokens: Vec::new(), test_modules: Vec::new() };
        source.flatten(stream);
        source
    }

    /// Appends the tokens of `stream`, leaving out what follows a `#[cfg(test)]` up to its braces or semicolon.
    fn flatten(&mut self, stream: TokenStream) {
        let mut trees = stream.into_iter().peekable();
        while let Some(tree) = trees.next() {
            match (&tree, trees.peek()) {
                (TokenTree::Punct(hash), Some(TokenTree::Group(attribute))) if hash.as_char() == '#' => {
                    let for_tests = is_cfg_test(attribute);
                    trees.next();
                    if for_tests {
                        self.skip_item(&mut trees);
                    }
                }
                _ => self.push(tree),
            }
        }
    }

    fn push(&mut self, tree: TokenTree) {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                self.tokens.push(open.into());
                self.flatten(group.stream());
                self.tokens.push(close.into());
            }
            TokenTree::Literal(_) => self.tokens.push("literal".into()),
            other => self.tokens.push(other.to_string()),
        }
    }

    fn skip_item(&mut self, trees: &mut impl Iterator<Item = TokenTree>) {
        let mut module = None;
        let mut after_mod = false;
        for tree in trees {
            match &tree {
                TokenTree::Group(group) if group.delimiter() == proc_macro2::Delimiter::Brace => return,
                TokenTree::Punct(punct) if punct.as_char() == ';' => break,
                TokenTree::Ident(name) if after_mod => module = Some(name.to_string()),
                _ => {}
            }
            after_mod = matches!(&tree, TokenTree::Ident(word) if word == "mod");
        }
        self.test_modules.extend(module);
    }

    /// Where the modules lie that this file declares for tests only, without their extension.
    fn test_module_paths(&self) -> Vec<PathBuf> {
        let is_root = ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| self.path.ends_with(name));
        let directory =
            if is_root { self.path.parent().expect("a file").into() } else { self.path.with_extension("") };
        self.test_modules.iter().map(|module| directory.join(module)).collect()
    }
}

fn is_cfg_test(attribute: &Group) -> bool {
    let text = attribute.stream().to_string();
    text.starts_with("cfg") && text.contains("test") && !text.contains("not")
}
