//! Inside `common`, imports point down the layers that the comments in its `lib.rs` list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::source::{self, Source};

/// The top-level modules of `common` with their layers, from `// Layer N: …` and the `pub mod …;` lines below.
pub fn layers() -> BTreeMap<String, u32> {
    let mut layer = None;
    let mut layers = BTreeMap::new();
    for line in source::read("common/src/lib.rs").lines() {
        if let Some(heading) = line.strip_prefix("// Layer ") {
            let number = heading.split(':').next().and_then(|number| number.parse().ok());
            layer = Some(number.unwrap_or_else(|| panic!("common/src/lib.rs: no layer number in `{line}`")));
        } else if let Some(module) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            let layer =
                layer.unwrap_or_else(|| panic!("common/src/lib.rs: module {module} stands in no layer"));
            layers.insert(module.to_string(), layer);
        }
    }
    layers
}

/// The top-level module that a file of `common` belongs to; `None` for `lib.rs`.
fn module_of(path: &Path) -> Option<String> {
    let first = path.strip_prefix("common/src").ok()?.components().next()?;
    let name = Path::new(first.as_os_str()).file_stem()?.to_str()?.to_string();
    (name != "lib").then_some(name)
}

/// The top-level modules that a file names: `crate::a::…` and `crate::{a::…, b}`.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, window) in source.tokens.windows(4).enumerate() {
        match [&*window[0], &*window[1], &*window[2], &*window[3]] {
            ["crate", ":", ":", "{"] => found.extend(first_segments(&source.tokens[at + 4..])),
            ["crate", ":", ":", module] => {
                found.insert(module.to_string());
            }
            _ => {}
        }
    }
    found
}

/// The first words of the items in an import list that begins at `tokens`, up to its closing brace.
fn first_segments(tokens: &[String]) -> Vec<String> {
    let mut depth = 0;
    let mut at_start = true;
    let mut segments = Vec::new();
    for token in tokens {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 0 => break,
            "}" => depth -= 1,
            "," if depth == 0 => at_start = true,
            word if at_start => {
                segments.push(word.to_string());
                at_start = false;
            }
            _ => {}
        }
    }
    segments
}

/// Which top-level module imports which, and one file that does.
fn import_graph() -> BTreeMap<(String, String), String> {
    let layers = layers();
    let mut graph = BTreeMap::new();
    for source in source::sources("common") {
        let Some(module) = module_of(&source.path) else { continue };
        for import in imports(&source) {
            if import != module && layers.contains_key(&import) {
                graph.insert((module.clone(), import), source.path.display().to_string());
            }
        }
    }
    graph
}

#[test]
fn every_module_of_common_stands_in_a_layer() {
    let layers = layers();
    let missing: BTreeSet<String> = source::sources("common")
        .iter()
        .filter_map(|source| module_of(&source.path))
        .filter(|module| !layers.contains_key(module))
        .collect();
    assert_eq!(
        missing,
        BTreeSet::new(),
        "declare these as `pub mod` under a `// Layer N:` comment of common/src/lib.rs"
    );
}

#[test]
fn imports_inside_common_never_point_up() {
    let layers = layers();
    let upward: Vec<String> = import_graph()
        .into_iter()
        .filter(|((module, import), _)| layers.get(module) < layers.get(import))
        .map(|((module, import), file)| {
            format!("{file}: {module} imports {import}, which lies in a higher layer")
        })
        .collect();
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn modules_of_one_layer_import_each_other_in_no_circle() {
    let layers = layers();
    let mut beside: BTreeSet<(String, String)> = import_graph()
        .into_keys()
        .filter(|(module, import)| layers.get(module) == layers.get(import))
        .collect();
    // Taking away, again and again, what imports nothing beside it leaves the circles.
    loop {
        let importing: BTreeSet<String> = beside.iter().map(|(module, _)| module.clone()).collect();
        let count = beside.len();
        beside.retain(|(_, import)| importing.contains(import));
        if beside.len() == count {
            break;
        }
    }
    assert_eq!(beside, BTreeSet::new(), "these modules of one layer import each other in a circle");
}
