//! Dependencies point one way: `dpdk-sys → dpdk → binaries` and `common → binaries`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::source;

/// The workspace as cargo sees it, without what it depends on outside.
pub fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(source::root())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// What each package of the workspace uses of the others, in builds and tests.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_string();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies").iter().map(name);
            (name(package), dependencies.filter(|dependency| members.contains(dependency)).collect())
        })
        .collect()
}

/// What a package may use of the others. A new package takes its place here.
fn allowed(package: &str) -> &'static [&'static str] {
    match package {
        "dpdk-sys" | "baton-common" => &[],
        "dpdk" => &["dpdk-sys"],
        "baton-hugepages" | "batonctl" => &["baton-common"],
        "baton-primary" | "baton-sync" | "baton-lab" => &["baton-common", "dpdk"],
        "baton-bench" => &["baton-common", "dpdk", "dpdk-sys"],
        other => panic!("package {other} has no place in the dependency rule yet"),
    }
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for (package, used) in uses() {
        let allowed = allowed(&package);
        wrong.extend(
            used.into_iter()
                .filter(|used| !allowed.contains(&used.as_str()))
                .map(|used| format!("{package} uses {used}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_dpdk_sys_links_the_system_libraries() {
    for package in source::PACKAGES.into_iter().filter(|package| *package != "dpdk-sys") {
        assert!(!source::root().join(package).join("build.rs").exists(), "{package} has a build script");
    }
}
