//! The alert rules and the dashboard, as Prometheus' own checker reads them. That their metrics exist, the lab tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' package lies in the workspace")
        .to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs promtool in the workspace: whether it was content, and what it said.
fn promtool(words: &[&str]) -> (bool, String) {
    let output = Command::new("promtool").args(words).current_dir(workspace()).output();
    let output = output.expect("promtool, which `make testdeps` installs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The names of the alerts in the rules.
fn alerts() -> Vec<String> {
    let rules = read("docs/alerts.yml");
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

#[test]
fn the_alert_rules_are_rules() {
    let (good, said) = promtool(&["check", "rules", "docs/alerts.yml"]);
    assert!(good, "{said}");
    assert!(said.contains(&format!("{} rules found", alerts().len())), "{said}");
}

#[test]
fn the_alerts_fire_when_they_should() {
    let (good, said) = promtool(&["test", "rules", "tests/prometheus/alerts.yml"]);
    assert!(good, "{said}");
}

#[test]
fn each_alert_is_seen_to_fire() {
    let tests = read("tests/prometheus/alerts.yml");
    let untested: Vec<String> =
        alerts().into_iter().filter(|alert| !tests.contains(&format!("alertname: {alert}\n"))).collect();
    assert!(untested.is_empty(), "no test sees {untested:?} fire");
}

#[test]
fn each_alert_has_its_texts_and_a_runbook_that_exists() {
    let operations = read("docs/operations.md");
    let rules = read("docs/alerts.yml");
    for (alert, rule) in alerts().iter().zip(rules.split("- alert: ").skip(1)) {
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(rule.contains(part), "{alert} has no {part}");
        }
        let runbook = format!("runbook: docs/operations.md#{}\n", alert.to_lowercase());
        assert!(rule.contains(&runbook), "{alert} has no {runbook}");
        assert!(operations.contains(&format!("### {alert}\n")), "docs/operations.md has no heading {alert}");
    }
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let dashboard: Value = serde_json::from_str(&read("docs/grafana/baton.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().expect("a query"))
        .collect();
    assert!(queries.len() >= 30, "{} queries", queries.len());
    // As recording rules, promtool reads them; Grafana's variables are replaced as Grafana does.
    let rule = |(number, query): (usize, &&str)| {
        let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
        format!("      - {{record: \"dashboard:query:{number}\", expr: {query:?}}}\n")
    };
    let rules: String = queries.iter().enumerate().map(rule).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), format!("groups:\n  - name: dashboard\n    rules:\n{rules}")).expect("the rules");

    let (good, said) = promtool(&["check", "rules", file.path().to_str().expect("a path in UTF-8")]);

    assert!(good, "{said}");
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
}

#[test]
fn each_panel_of_the_dashboard_has_a_place_and_a_number_of_its_own() {
    let dashboard: Value = serde_json::from_str(&read("docs/grafana/baton.json")).expect("JSON");
    let mut taken = std::collections::BTreeSet::new();
    let mut numbers = std::collections::BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(numbers.insert(panel["id"].as_u64().expect("a number")), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} covers another panel", panel["title"]);
            }
        }
    }
}
