//! The documents name what there is, and link to what exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dependencies::metadata;
use crate::layers::layers;
use crate::source;

/// The project's documents, as paths from the workspace's root.
fn documents() -> Vec<PathBuf> {
    let mut found = vec!["README.md".into(), "ARCHITECTURE.md".into(), "CHANGELOG.md".into()];
    let docs = source::root().join("docs");
    for entry in fs::read_dir(docs).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "md") {
            found.push(Path::new("docs").join(entry.file_name()));
        }
    }
    found
}

#[test]
fn the_readme_names_every_binary() {
    let readme = source::read("README.md");
    let metadata = metadata();
    let targets = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|package| package["targets"].as_array());
    let binaries =
        targets.flatten().filter(|target| target["kind"][0] == "bin").map(|target| target["name"].as_str());
    let unnamed: Vec<&str> =
        binaries.flatten().filter(|name| !readme.contains(&format!("`{name}"))).collect();
    assert!(unnamed.is_empty(), "README.md does not name {unnamed:?}");
}

#[test]
fn the_readme_names_every_unit() {
    let readme = source::read("README.md");
    let units = fs::read_dir(source::root().join("systemd")).expect("systemd/").flatten();
    let names = units.map(|unit| unit.file_name().into_string().expect("a name in UTF-8"));
    let unnamed: Vec<String> = names.filter(|name| !readme.contains(name)).collect();
    assert!(unnamed.is_empty(), "README.md does not name {unnamed:?}");
}

#[test]
fn the_architecture_lists_the_layers_that_the_source_has() {
    let architecture = source::read("ARCHITECTURE.md");
    let mut listed = BTreeMap::new();
    for line in architecture.lines() {
        // `| 1 | `id`, `time` | … |`
        let mut cells = line.split('|').skip(1).map(str::trim);
        let (Some(layer), Some(modules)) = (cells.next().and_then(|cell| cell.parse().ok()), cells.next())
        else {
            continue;
        };
        listed.extend(modules.split('`').skip(1).step_by(2).map(|module| (module.to_string(), layer)));
    }
    assert_eq!(
        listed,
        layers(),
        "ARCHITECTURE.md (left) and common/src/lib.rs (right) list different layers"
    );
}

#[test]
fn every_drop_reason_has_its_line_for_operators() {
    let operations = source::read("docs/operations.md");
    let counters = source::read("common/src/counter/mod.rs");
    let reasons: Vec<&str> =
        counters.split('"').skip(1).step_by(2).filter(|name| name.starts_with("drop_")).collect();
    assert!(reasons.contains(&"drop_no_session"), "{reasons:?}");
    let has_line = |reason: &str| {
        let cell = format!("`{reason}`");
        let mut rows = operations.lines().filter_map(|line| line.strip_prefix("| "));
        rows.any(|row| {
            row.split_once(" | ").is_some_and(|(names, means)| names.contains(&cell) && means.len() > 20)
        })
    };
    let untold: Vec<&str> = reasons.into_iter().filter(|reason| !has_line(reason)).collect();
    assert!(untold.is_empty(), "docs/operations.md does not tell what {untold:?} mean");
}

#[test]
fn every_rejected_datagram_or_record_that_operators_are_told_of_is_counted() {
    let operations = source::read("docs/operations.md");
    let counters = source::read("common/src/counter/mod.rs");
    let told = operations.split('`').skip(1).step_by(2).filter(|name| name.starts_with("sync_reject_"));
    let unknown: Vec<&str> =
        told.filter(|name| !name.ends_with('…') && !counters.contains(&format!("\"{name}\""))).collect();
    assert!(unknown.is_empty(), "docs/operations.md tells of {unknown:?}, which nobody counts");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = source::read(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or(target);
            if !source::root().join(&document).with_file_name("").join(file).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
