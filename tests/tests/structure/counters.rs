//! Every counter that is defined is counted somewhere.

use std::collections::BTreeSet;

use crate::source::{self, Source};

/// Where the counters are defined.
const DEFINITION: &str = "common/src/counter";

/// The counters, from the lines `Name = 7, "name", "unit";` of their definition.
fn counters() -> Vec<String> {
    source::read(format!("{DEFINITION}/mod.rs"))
        .lines()
        .filter_map(|line| line.trim().split_once(" = "))
        .filter(|(name, rest)| {
            name.chars().all(char::is_alphanumeric) && rest.starts_with(|first: char| first.is_ascii_digit())
        })
        .map(|(name, _)| name.to_string())
        .collect()
}

/// The code that counts. Tools that only read counters are left out.
fn counting_sources() -> Vec<Source> {
    ["common", "dpdk", "hugepage-setup", "primary", "sync-secondary"]
        .into_iter()
        .flat_map(source::sources)
        .filter(|source| !source.path.starts_with(DEFINITION))
        .collect()
}

/// The reason in `Reason => Counter` or `Reason => Counter::Name`, where the counter's name stands at `at`.
fn mapped_from(tokens: &[String], at: usize) -> Option<&str> {
    let before = match &tokens[..at] {
        [before @ .., counter, colon, _] if counter == "Counter" && colon == ":" => before,
        before => before,
    };
    match before {
        [.., reason, equals, greater] if equals == "=" && greater == ">" => {
            reason.starts_with(char::is_alphabetic).then_some(reason)
        }
        _ => None,
    }
}

/// Whether some code gives `reason` as a value: `…::Reason` that is not itself the left side of a mapping.
fn is_given(sources: &[Source], reason: &str) -> bool {
    sources.iter().any(|source| {
        source.tokens.windows(5).any(|window| {
            window[0] == ":"
                && window[1] == ":"
                && window[2] == reason
                && !(window[3] == "=" && window[4] == ">")
        })
    })
}

#[test]
fn every_counter_is_counted_somewhere() {
    let sources = counting_sources();
    let mut unused = BTreeSet::new();
    for counter in counters() {
        let used = sources.iter().any(|source| {
            source.tokens.iter().enumerate().filter(|(_, token)| **token == counter).any(|(at, _)| {
                mapped_from(&source.tokens, at).is_none_or(|reason| is_given(&sources, reason))
            })
        });
        if !used {
            unused.insert(counter);
        }
    }
    assert_eq!(unused, BTreeSet::new(), "no code adds to these counters: count them, or take them out");
}

#[test]
fn counters_are_found_in_their_definition() {
    let counters = counters();
    assert!(counters.contains(&"RxPackets".to_string()) && counters.contains(&"SyncRejectMagic".to_string()));
}
