//! What a container leaves on the host: a directory, and hugepages that were reserved from inside. All of it goes, however the
//! container's owner ended.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::install::{built, text};

/// Where the directories of all containers lie. Each is named `<its owner's pid>-<number>`.
const DIRECTORIES: &str = "/run/baton-boot";

/// Gives the pages back and deletes the directory `$1`, with `baton-hugepages` at `$2`. Processes that are just being killed hold their
/// locks for a moment.
const CLEAN: &str = r#"
clean() {
    tries=0
    until "$2" --config "$1/host.ron" remove; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || exit 1
        sleep 0.1
    done
    rm -rf "$1"
}
"#;

/// The directory of container `number` of the process `owner`, made now.
pub fn directory(owner: u32, number: u32) -> PathBuf {
    let directory = Path::new(DIRECTORIES).join(format!("{owner}-{number}"));
    fs::create_dir_all(&directory).expect("a directory in /run");
    directory
}

/// Takes away what is left of containers whose owners are gone.
pub fn clean_dead() {
    for entry in fs::read_dir(DIRECTORIES).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().expect("a name that we gave");
        let owner = name.split('-').next().expect("a pid");
        if !Path::new("/proc").join(owner).exists() {
            clean(&entry.path()).expect("what a dead owner left goes");
        }
    }
}

/// Takes away what a container that does not run any more has left; says what went wrong.
pub fn clean(directory: &Path) -> Result<(), String> {
    let script = format!("{CLEAN} clean \"$1\" \"$2\"");
    let mut command = Command::new("sh");
    command.args(["-euc", &script, "clean"]).arg(directory).arg(built().join("baton-hugepages"));
    let output = command.output().expect("sh starts");
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}", directory.display(), text(&output))),
    }
}

/// Starts a process that waits for the end of the process `owner`, then kills the container and cleans up.
pub fn guard(owner: u32, directory: &Path, container: u32) -> Child {
    let script = format!(
        "{CLEAN} tail --pid=\"$3\" --follow /dev/null; kill -KILL \"$4\" || true; clean \"$1\" \"$2\""
    );
    let mut command = Command::new("sh");
    command.args(["-euc", &script, "guard"]).arg(directory).arg(built().join("baton-hugepages"));
    command.args([owner, container].map(|pid| pid.to_string()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Out of reach of what kills its owner.
    command.process_group(0).spawn().expect("sh starts")
}
