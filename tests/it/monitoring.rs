//! `manifests/monitoring`: alerts that lead somewhere and are tested, a dashboard that can be loaded, and in
//! both no metric that does not exist (`reconcile::metrics` compares them with a scrape of a real run).
//!
//! Rules are tested by promtool, which is in Debian's package `prometheus`; scripts/test says if it is
//! missing.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    process::{Command, Stdio},
};

use kairos_operator::controllers::metrics::families::FAMILIES;
use serde_json::{Value, json};

use crate::tidy::scan::root;

/// Where the runbooks are.
const RUNBOOKS: &str = "https://unpublished.invalid/docs/failures.md#";

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rule() -> Value {
    serde_saphyr::from_str(&text("manifests/monitoring/prometheus-rule.yaml")).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&text("manifests/monitoring/kairos-operator.json")).unwrap()
}

fn alerts() -> Vec<Value> {
    let groups = rule()["spec"]["groups"].as_array().unwrap().clone();
    groups.into_iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Every query of the dashboard.
fn queries(of: &Value, found: &mut Vec<String>) {
    match of {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|_| ["expr", "query", "definition"].contains(&key.as_str())) {
                    Some(query) => found.push(query.to_owned()),
                    None => queries(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The names of metrics in alerts and panels, as a scrape shows them.
pub fn used() -> BTreeSet<String> {
    let mut texts: Vec<String> =
        alerts().iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()).collect();
    queries(&dashboard(), &mut texts);
    let words = texts.iter().flat_map(|text| {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("kairos_"))
    });
    words.map(str::to_owned).collect()
}

#[test]
fn panels_and_alerts_use_every_family_and_no_other() {
    let plain = |name: &str| {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        stem.filter(|stem| FAMILIES.iter().any(|family| family.name == *stem)).unwrap_or(name).to_owned()
    };
    let used: BTreeSet<String> = used().iter().map(|name| plain(name)).collect();
    let known: BTreeSet<String> = FAMILIES.iter().map(|family| family.name.to_owned()).collect();
    assert_eq!(used, known);
}

/// A counter begins anew with each process: an alert on one would not see what came just before a restart.
#[test]
fn every_alert_says_what_it_means_and_leads_to_a_runbook() {
    let (failures, page) = (text("docs/failures.md"), text("docs/monitoring.md"));
    let anchors: BTreeSet<String> = failures
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| {
            let kept = heading
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-'].contains(c))
                .collect::<String>();
            kept.replace(' ', "-")
        })
        .collect();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let annotation =
            |key: &str| alert["annotations"][key].as_str().unwrap_or_else(|| panic!("{name}: {key}"));
        assert!(annotation("summary").ends_with('.') && annotation("description").ends_with('.'), "{name}");
        let anchor = annotation("runbook_url").strip_prefix(RUNBOOKS).unwrap();
        assert!(anchors.contains(anchor), "{name}: {anchor}");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["info", "warning", "critical"].contains(&severity), "{name}");
        let row = format!("| `{name}` | {severity} | ");
        let row = page
            .lines()
            .find(|line| line.starts_with(&row))
            .unwrap_or_else(|| panic!("{name} is not explained"));
        assert!(row.contains(&format!("(failures.md#{anchor})")), "{row}");
        assert!(!alert["expr"].as_str().unwrap().contains("_total"), "{name}");
    }
    assert_eq!(alerts().len(), page.lines().filter(|line| line.starts_with("| `Kairos")).count());
}

#[test]
fn panels_do_not_overlap_and_each_has_a_query() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for place in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(place.0 < 24 && taken.insert(place), "{title} covers another one at {place:?}");
        }
        if panel["type"] != "row" {
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        }
    }
    assert!(panels.len() > 20);
}

/// Rules that are made of the panels' queries: promtool reads them as Prometheus would.
#[test]
fn every_query_of_the_dashboard_can_be_read() {
    let mut found = Vec::new();
    queries(&dashboard()["panels"], &mut found);
    let filled = |query: &str| {
        let variables =
            [("$__rate_interval", "5m"), ("$__range", "6h"), ("$namespace", ".*"), ("$nodeop", ".*")];
        variables.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value))
    };
    let record = |(number, query): (usize, &String)| {
        let expr = filled(query);
        assert!(!expr.contains('$'), "{expr}");
        json!({"record": format!("panel:{number}"), "expr": expr})
    };
    let rules: Vec<Value> = found.iter().enumerate().map(record).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

/// Runs promtool, if it is there.
pub fn promtool(arguments: &[&str], input: &str) -> Option<()> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("promtool is not here: {arguments:?} was not tried");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    Some(())
}

/// The component needs what is not in it: the port and the labels of the Deployment.
#[test]
fn the_monitor_and_the_policy_select_the_operators_pods() {
    let one = |path: &str| serde_saphyr::from_multiple::<Value>(&text(path)).unwrap().remove(0);
    let deployment = one("manifests/operator/deployment.yaml");
    let template = &deployment["spec"]["template"];
    let (monitor, policy) =
        (one("manifests/monitoring/pod-monitor.yaml"), one("manifests/monitoring/network-policy.yaml"));
    for selector in [&monitor["spec"]["selector"], &policy["spec"]["podSelector"]] {
        assert_eq!(selector["matchLabels"], template["metadata"]["labels"]);
    }
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let container = &template["spec"]["containers"][0];
    let ports = container["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["name"] == endpoint["port"]).unwrap();
    assert_eq!(port["containerPort"], policy["spec"]["ingress"][0]["ports"][0]["port"]);
    let address = format!("--metrics-bind-address=:{}", port["containerPort"]);
    assert!(container["args"].as_array().unwrap().iter().any(|argument| *argument == address));
    assert_eq!(endpoint["honorLabels"], true, "or the operation's namespace is lost");
}

#[test]
fn every_alert_fires_when_it_should_and_not_before() {
    let tests = text("tests/monitoring/alerts.yaml");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let of = [",", "\n"]
            .map(|end| tests.matches(&format!("alertname: {name}{end}")).count())
            .iter()
            .sum::<usize>();
        assert!(of >= 2, "{name} is not tested to fire and not to fire");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("rules.yaml"), rule()["spec"].to_string()).unwrap();
    fs::write(path("alerts.yaml"), tests).unwrap();
    if promtool(&["check", "rules", "--lint=all", "--lint-fatal", &path("rules.yaml")], "").is_some() {
        promtool(&["test", "rules", &path("alerts.yaml")], "").unwrap();
    }
}
