//! `make install` of this build's binaries, into a root of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What is installed.
const BINARIES: [&str; 4] = ["baton-hugepages", "baton-primary", "baton-sync", "batonctl"];

/// The workspace's directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' package lies in the workspace")
}

/// The directory with the binaries of this build: the one above this test's own.
pub fn built() -> PathBuf {
    let own = std::env::current_exe().expect("a path to this test");
    let directory = own.ancestors().nth(2).expect("…/deps/units").to_path_buf();
    for binary in BINARIES {
        assert!(
            directory.join(binary).exists(),
            "{binary} is not built: run `cargo build --workspace` first"
        );
    }
    directory
}

/// Runs `make` on a root of its own, with this build's binaries.
pub fn make(target: &str, root: &Path, variables: &[&str]) -> Output {
    let output = Command::new("make")
        .arg(target)
        .arg(format!("DESTDIR={}", root.display()))
        .arg(format!("BUILT={}", built().display()))
        .args(variables)
        .current_dir(workspace())
        .env_remove("MAKEFLAGS")
        .output()
        .expect("make starts");
    assert!(output.status.success(), "make {target}: {}", text(&output));
    output
}

/// What a command printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
