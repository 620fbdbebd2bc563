//! `make install`, and what systemd thinks of the units that it installs.

mod install;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use install::{make, text, workspace};
use tempfile::TempDir;

/// A root with Baton installed.
fn installed() -> TempDir {
    let root = TempDir::new().expect("a temporary directory");
    make("install", root.path(), &[]);
    root
}

/// The files below `directory`, as paths from there.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(current) = pending.pop() {
        for path in fs::read_dir(&current).expect("a directory").map(|entry| entry.expect("an entry").path())
        {
            if path.is_dir() {
                pending.push(path);
            } else {
                found.push(path.strip_prefix(directory).expect("below").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// The names of the units, a template as its first instance.
fn units() -> Vec<String> {
    files(&workspace().join("systemd"))
        .iter()
        .map(|unit| unit.display().to_string().replace("@.", "@0."))
        .collect()
}

/// What `systemd-analyze verify` prints about the units installed below `root`.
fn verify(root: &Path) -> String {
    let system = root.join("lib/systemd");
    fs::create_dir_all(&system).expect("a directory for the system's own units");
    let copied = Command::new("cp").args(["-a", "/lib/systemd/system/."]).arg(system.join("system")).status();
    assert!(copied.expect("cp starts").success(), "the system's own units could not be copied");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(format!("--root={}", root.display()))
        .args(units())
        .output()
        .expect("systemd-analyze starts");
    text(&output)
}

#[test]
fn systemd_finds_nothing_to_say_about_the_units() {
    let root = installed();
    assert_eq!(verify(root.path()), "");
}

#[test]
fn systemd_sees_a_mistake_in_a_unit() {
    let root = installed();
    let unit = root.path().join("usr/local/lib/systemd/system/baton-primary.service");
    let mistaken = fs::read_to_string(&unit).expect("the unit").replace("WatchdogSec=", "WatchdogSecs=");
    fs::write(&unit, mistaken).expect("the unit is writable");
    assert!(verify(root.path()).contains("WatchdogSecs"));
}

#[test]
fn units_follow_the_prefix() {
    let root = TempDir::new().expect("a temporary directory");
    make("install", root.path(), &["PREFIX=/usr", "SYSCONFDIR=/opt/etc"]);
    let unit = fs::read_to_string(root.path().join("usr/lib/systemd/system/baton-primary.service"))
        .expect("the unit");
    assert!(unit.contains("ExecStart=/usr/bin/baton-primary --config /opt/etc/baton/baton.ron\n"), "{unit}");
    assert_eq!(verify(root.path()), "");
}

#[test]
fn installing_twice_keeps_an_edited_config() {
    let root = installed();
    let config = root.path().join("etc/baton/baton.ron");
    fs::write(&config, "edited").expect("the config is writable");
    let before = files(root.path());
    make("install", root.path(), &[]);
    assert_eq!(fs::read_to_string(config).expect("the config"), "edited");
    assert_eq!(files(root.path()), before);
}

#[test]
fn shells_find_the_completions() {
    let root = installed();
    let share = root.path().join("usr/local/share");
    let completions = [
        ("bash-completion/completions/batonctl", "complete -F _batonctl"),
        ("zsh/site-functions/_batonctl", "#compdef batonctl"),
        ("fish/vendor_completions.d/batonctl.fish", "complete -c batonctl"),
    ];
    for (file, part) in completions {
        let text = fs::read_to_string(share.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(part), "{file}");
    }
    for document in ["alerts.yml", "grafana/baton.json"] {
        assert!(share.join("doc/baton/docs").join(document).exists(), "{document}");
    }
}

#[test]
fn uninstall_leaves_nothing() {
    let root = installed();
    make("uninstall", root.path(), &[]);
    assert_eq!(files(root.path()), Vec::<PathBuf>::new());
    assert!(!root.path().join("etc/baton").exists());
    assert!(!root.path().join("usr/local/share/doc/baton").exists());
}

#[test]
fn uninstall_leaves_an_edited_config() {
    let root = installed();
    fs::write(root.path().join("etc/baton/baton.ron"), "edited").expect("the config is writable");
    make("uninstall", root.path(), &[]);
    assert_eq!(files(root.path()), [PathBuf::from("etc/baton/baton.ron")]);
}

/// The most that `systemd-analyze security` may say of a unit, in tenths: 0 is a service that can do nothing, 100 one that can do
/// everything. A unit that becomes tighter lowers its limit here.
const EXPOSURE_LIMITS: [(&str, u32); 3] =
    [("baton-hugepages.service", 37), ("baton-primary.service", 24), ("baton-sync@.service", 23)];

/// What it says of the unit at `path`, in tenths.
fn exposure(path: &Path) -> u32 {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true"]).arg(path).env("LC_ALL", "C");
    let output = text(&command.output().expect("systemd-analyze starts"));
    let level = output.lines().find(|line| line.contains("Overall exposure level")).expect(&output);
    let (_, figure) = level.rsplit_once(": ").expect(&output);
    let figure = figure.split(' ').next().expect("a figure").replace('.', "");
    figure.parse().expect(&output)
}

#[test]
fn units_are_no_more_exposed_than_they_have_to_be() {
    for (unit, limit) in EXPOSURE_LIMITS {
        let found = exposure(&workspace().join("systemd").join(unit));
        assert!(found <= limit, "{unit}: {found} tenths, the limit is {limit}");
    }
}

#[test]
fn a_unit_without_a_limit_on_its_capabilities_exceeds_its_limit() {
    let directory = TempDir::new().expect("a temporary directory");
    for (unit, limit) in EXPOSURE_LIMITS {
        let text = fs::read_to_string(workspace().join("systemd").join(unit)).expect("the unit");
        let loose = directory.path().join(unit);
        fs::write(&loose, text.replace("CapabilityBoundingSet=", "#")).expect("a file");
        assert!(exposure(&loose) > limit, "{unit}");
    }
}
