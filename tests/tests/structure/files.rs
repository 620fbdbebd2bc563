//! Sizes of files, and what a test may not be.

use std::collections::BTreeSet;

use crate::source;

/// Lines that a source file has at most; most have far fewer.
const LINES_MAX: usize = 600;

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<String> = source::PACKAGES
        .into_iter()
        .flat_map(source::rust_files)
        .map(|path| (source::read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| {
            format!("{}: {lines} lines, at most {LINES_MAX}: which two nouns is it?", path.display())
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_test_is_ignored() {
    let attribute = concat!("#[", "ignore");
    let ignored: Vec<_> = source::PACKAGES
        .into_iter()
        .flat_map(source::rust_files)
        .filter(|path| source::read(path).contains(attribute))
        .collect();
    assert!(
        ignored.is_empty(),
        "tests that need root say so in their name and run in their own profile: {ignored:?}"
    );
}

#[test]
fn each_test_runs_in_exactly_one_profile() {
    let config = source::read(".config/nextest.toml");
    let filters: Vec<&str> = config
        .lines()
        .filter_map(|line| line.strip_prefix("default-filter = '")?.strip_suffix('\''))
        .collect();
    let [default, root] = filters[..] else {
        panic!("two profiles are expected, each with a filter: {filters:?}")
    };
    assert_eq!(default, format!("not {root}"));
}

#[test]
fn every_package_of_the_workspace_is_looked_at() {
    let manifest = source::read("Cargo.toml");
    let members =
        manifest.lines().find(|line| line.starts_with("members")).expect("the workspace has members");
    let members: BTreeSet<&str> = members.split('"').skip(1).step_by(2).collect();
    assert_eq!(members, BTreeSet::from(source::PACKAGES));
}
