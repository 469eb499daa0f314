//! What is served for what the planner saw and decided.

mod counted;

use std::collections::BTreeSet;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use super::{
    families::{FAMILIES, Scope},
    *,
};
use crate::{
    api::{nodeop::NodeOp, upgrade::NodeOpUpgrade},
    plan::model::{
        effects::Reasons,
        snapshot::{Eviction, Refusal},
        why::{WaitReason, Why},
    },
};

const NOW: i64 = 1_700_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).unwrap()
}

fn stamp(second: i64) -> String {
    at(second).to_string()
}

fn snapshot(second: i64, ops: &[Value], upgrades: &[Value]) -> Snapshot {
    let key = |object: &Value| ("ns".to_owned(), object["metadata"]["name"].as_str().unwrap().to_owned());
    let op = |op: &Value| (key(op), Arc::new(serde_json::from_value::<NodeOp>(op.clone()).unwrap()));
    let upgrade = |upgrade: &Value| {
        (key(upgrade), Arc::new(serde_json::from_value::<NodeOpUpgrade>(upgrade.clone()).unwrap()))
    };
    Snapshot {
        now: at(second),
        ops: ops.iter().map(op).collect(),
        upgrades: upgrades.iter().map(upgrade).collect(),
        ..Snapshot::default()
    }
}

fn op(name: &str, phase: &str, nodes: Value) -> Value {
    json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("{name}-uid"), "creationTimestamp": stamp(-1000)},
        "spec": {"rebootOnSuccess": true, "preflight": {"command": ["true"]}},
        "status": {"phase": phase, "nodeStatuses": nodes},
    })
}

fn child(name: &str, phase: &str, nodes: Value) -> Value {
    let mut op = op(name, phase, nodes);
    op["spec"]["upgrade"] = json!({"active": true});
    op["metadata"]["ownerReferences"] = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "name": name, "uid": format!("{name}-upgrade"), "controller": true}]);
    op
}

fn upgrade(name: &str, phase: &str) -> Value {
    json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("{name}-upgrade")},
        "spec": {"image": "i:1"}, "status": {"phase": phase},
    })
}

fn over(name: &str, phase: &str, ended: i64) -> Value {
    let mut op = op(name, phase, json!({"n1": {"phase": phase}}));
    let type_ = if phase == "Failed" { "Failed" } else { "Complete" };
    op["status"]["conditions"] = json!([{"type": type_, "status": "True", "reason": "r", "message": "", "lastTransitionTime": stamp(ended)},
        {"type": "Stalled", "status": "True", "reason": "r", "message": "", "lastTransitionTime": stamp(ended)}]);
    op
}

/// Writes the status of `new` over that of `old`, as the planner does.
fn write(metrics: &Metrics, old: &Value, new: &Value, second: i64) {
    let parse = |op: &Value| serde_json::from_value::<NodeOp>(op.clone()).unwrap();
    let status = parse(new).status.unwrap();
    let last_updated = Some(Time(at(second)));
    metrics.recorded(&parse(old), &NodeOpStatus { last_updated, ..status });
}

fn leading() -> Arc<Metrics> {
    let metrics = Metrics::new();
    metrics.leads(true);
    metrics
}

/// The samples of a scrape, without those of histograms' buckets.
fn samples(metrics: &Metrics) -> BTreeSet<String> {
    let text = metrics.text(Format::Classic).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket"));
    lines.map(str::to_owned).collect()
}

/// The samples of families with this prefix that are not 0.
fn shown(metrics: &Metrics, prefix: &str) -> Vec<String> {
    let of = samples(metrics)
        .into_iter()
        .filter(|line| line.starts_with(prefix) && !line.ends_with(" 0") && !line.ends_with(" 0.0"));
    of.map(|line| line.trim_start_matches(prefix).replace("namespace=\"ns\",", "")).collect()
}

#[test]
fn a_scrape_has_every_family_of_the_table_with_its_labels_and_no_other() {
    let metrics = leading();
    let nodes = json!({"n1": {"phase": "Running", "step": "Drain", "lastUpdated": stamp(0), "deadline": stamp(9), "blockedSince": stamp(0)}});
    metrics.planned(&snapshot(1, &[op("op", "Running", nodes)], &[]), &Plan::default());
    let text = metrics.text(Format::Classic).unwrap();
    let declared: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(declared, FAMILIES.iter().map(|family| family.name).collect());
    for family in FAMILIES {
        assert!(text.contains(&format!("# HELP {} {}.\n", family.name, family.help)), "{}", family.name);
        let of = |line: &&str| {
            let rest = line.strip_prefix(family.name).unwrap_or_default();
            ["{", " ", "_count{", "_count "].iter().any(|next| rest.starts_with(next))
        };
        let sample = text.lines().find(of).unwrap_or_else(|| panic!("{} has no sample", family.name));
        let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let names: Vec<&str> = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
        assert_eq!(names, family.labels, "{sample}");
    }
}

#[test]
fn a_standby_tells_of_itself_and_of_nothing_else() {
    let metrics = Metrics::new();
    let names = |metrics: &Metrics, scope: Scope| {
        let lines = samples(metrics);
        let of = FAMILIES.iter().filter(|family| family.scope == scope);
        of.filter(|family| lines.iter().any(|line| line.starts_with(family.name))).count()
    };
    assert_eq!((names(&metrics, Scope::Process), names(&metrics, Scope::Cluster)), (7, 0));
    metrics.leads(true);
    metrics.planned(&snapshot(0, &[op("op", "Pending", json!({}))], &[]), &Plan::default());
    assert!(names(&metrics, Scope::Cluster) > 8);
    assert!(samples(&metrics).contains("kairos_operator_leader 1"));
    metrics.leads(false);
    assert_eq!((names(&metrics, Scope::Process), names(&metrics, Scope::Cluster)), (7, 0));
    metrics.leads(true);
    assert!(shown(&metrics, "kairos_nodeop").is_empty(), "what it knew may have changed meanwhile");
}

#[test]
fn gauges_follow_the_status_survive_a_restart_and_leave_nothing_behind() {
    let nodes = json!({
        "n1": {"phase": "Running", "step": "Drain", "lastUpdated": stamp(-50), "deadline": stamp(250), "drainStartedAt": stamp(-49), "blockedSince": stamp(-40)},
        "n2": {"phase": "Preflight", "lastUpdated": stamp(-20)},
        "n3": {"phase": "Pending"}, "n4": {"phase": "Completed", "lastUpdated": stamp(-60)},
    });
    let refused = Eviction {
        at: at(0),
        under_way: false,
        refusal: Some(Refusal { since: at(0), message: String::new(), retry_after: None, permanent: false }),
    };
    let mut first = snapshot(0, &[op("op", "Running", nodes)], &[]);
    let tried =
        |uids: &[&str]| Arc::new(uids.iter().map(|uid| ((*uid).to_owned(), refused.clone())).collect());
    first.evictions = [("n1".to_owned(), tried(&["a", "b"])), ("n9".to_owned(), tried(&["c"]))].into();
    let why = |reason| Why { reason, message: "m".into() };
    let nodes = [("n1", WaitReason::Budget), ("n2", WaitReason::Preflight), ("n3", WaitReason::Turn)];
    let nodes = nodes.map(|(node, reason)| (node.to_owned(), why(reason))).into();
    let reasons = Reasons { nodes, others: Some((why(WaitReason::Turn), 1)) };
    let plan = Plan { waiting: [(("ns".into(), "op".into()), reasons)].into(), ..Plan::default() };
    let expected = [
        format!("kairos_node_drain_blocked_start_timestamp_seconds{{node=\"n1\"}} {}", NOW - 40),
        "kairos_node_drain_blocked_pods{node=\"n1\"} 2".into(),
        format!("kairos_node_step_start_timestamp_seconds{{node=\"n1\",step=\"Drain\"}} {}", NOW - 50),
        format!("kairos_node_step_start_timestamp_seconds{{node=\"n2\",step=\"Preflight\"}} {}", NOW - 20),
        format!("kairos_node_step_deadline_timestamp_seconds{{node=\"n1\",step=\"Drain\"}} {}", NOW + 250),
    ];
    let of_op = [
        "last_progress_timestamp_seconds{name=\"op\",kind=\"NodeOp\"} 1699999980",
        "nodes{name=\"op\",kind=\"NodeOp\",phase=\"Completed\"} 1",
        "nodes{name=\"op\",kind=\"NodeOp\",phase=\"Pending\"} 1",
        "nodes{name=\"op\",kind=\"NodeOp\",phase=\"Preflight\"} 1",
        "nodes{name=\"op\",kind=\"NodeOp\",phase=\"Running\"} 1",
        "phase{name=\"op\",kind=\"NodeOp\",phase=\"Running\"} 1",
        "start_timestamp_seconds{name=\"op\",kind=\"NodeOp\"} 1699999000",
        "waiting{name=\"op\",kind=\"NodeOp\",reason=\"Budget\"} 1",
        "waiting{name=\"op\",kind=\"NodeOp\",reason=\"Preflight\"} 1",
        "waiting{name=\"op\",kind=\"NodeOp\",reason=\"Turn\"} 2",
    ];
    // Once for a process that has seen it begin, and once for one that has just been started.
    let metrics = leading();
    metrics.planned(&snapshot(-90, &[op("op", "Pending", json!({}))], &[]), &Plan::default());
    for metrics in [metrics.clone(), leading()] {
        metrics.planned(&first, &plan);
        let lines = samples(&metrics);
        assert!(expected.iter().all(|line| lines.contains(line)), "{lines:#?}");
        assert_eq!(shown(&metrics, "kairos_nodeop_"), of_op);
    }
    let done = json!({"n1": {"phase": "Completed"}, "n2": {"phase": "Completed"}});
    metrics.planned(&snapshot(1, &[op("op", "Running", done)], &[]), &Plan::default());
    let left: Vec<String> = shown(&metrics, "kairos_node_step");
    assert!(left.is_empty() && shown(&metrics, "kairos_node_drain").is_empty(), "{left:?}");
    assert!(shown(&metrics, "kairos_nodeop_waiting").is_empty());
    metrics.planned(&snapshot(2, &[], &[]), &Plan::default());
    assert!(!samples(&metrics).iter().any(|line| line.starts_with("kairos_nodeop_")));
}

#[test]
fn an_upgrade_and_its_nodeop_are_one_operation() {
    let metrics = leading();
    let nodes = json!({"n1": {"phase": "Running", "step": "Job"}});
    let ops = [child("up", "Running", nodes.clone()), op("taken", "Running", nodes)];
    let mut upgrades =
        [upgrade("up", "Running"), upgrade("taken", "Initializing"), upgrade("new", "Initializing")];
    metrics.planned(&snapshot(0, &ops, &upgrades), &Plan::default());
    assert_eq!(
        shown(&metrics, "kairos_nodeop_phase"),
        [
            "{name=\"new\",kind=\"NodeOpUpgrade\",phase=\"Initializing\"} 1",
            "{name=\"taken\",kind=\"NodeOp\",phase=\"Running\"} 1",
            "{name=\"taken\",kind=\"NodeOpUpgrade\",phase=\"Initializing\"} 1",
            "{name=\"up\",kind=\"NodeOpUpgrade\",phase=\"Running\"} 1",
        ]
    );
    assert_eq!(
        shown(&metrics, "kairos_nodeop_nodes"),
        [
            "{name=\"taken\",kind=\"NodeOp\",phase=\"Running\"} 1",
            "{name=\"up\",kind=\"NodeOpUpgrade\",phase=\"Running\"} 1"
        ]
    );
    // The NodeOp is left of a NodeOpUpgrade that was deleted, and another one has its name.
    upgrades[0]["metadata"]["uid"] = "later".into();
    metrics.planned(&snapshot(1, &ops, &upgrades), &Plan::default());
    let kinds = ["NodeOp", "NodeOpUpgrade"]
        .map(|kind| format!("{{name=\"up\",kind=\"{kind}\",phase=\"Running\"}} 1"));
    assert_eq!(shown(&metrics, "kairos_nodeop_phase")[3..], kinds);
}

#[test]
fn what_is_over_is_shown_for_a_day_and_not_without_bound() {
    let metrics = leading();
    let day = SignedDuration::from_hours(24).as_secs();
    let mut ops: Vec<Value> = (0..60).map(|n| over(&format!("op{n:02}"), "Failed", -n)).collect();
    metrics.planned(&snapshot(0, &ops, &[]), &Plan::default());
    let failed = shown(&metrics, "kairos_nodeop_phase");
    assert_eq!(failed.len(), 50);
    assert!(failed[0].contains("op00") && failed[49].contains("op49"), "{failed:?}");
    assert!(shown(&metrics, "kairos_nodeop_stalled").is_empty(), "an end is no standstill");
    metrics.planned(&snapshot(day - 10, &ops, &[]), &Plan::default());
    assert_eq!(shown(&metrics, "kairos_nodeop_phase").len(), 11);
    let mut open: Vec<Value> = (0..300).map(|n| op(&format!("op{n:03}"), "Pending", json!({}))).collect();
    open[299] = op("op299", "Running", json!({}));
    metrics.planned(&snapshot(0, &open, &[]), &Plan::default());
    let phases = shown(&metrics, "kairos_nodeop_phase");
    assert!(phases.len() == 200 && phases[199].contains("op299"), "{}", phases.len());
    ops.truncate(1);
    ops[0]["metadata"]["deletionTimestamp"] = stamp(0).into();
    metrics.planned(&snapshot(day * 9, &ops, &[]), &Plan::default());
    assert_eq!(
        shown(&metrics, "kairos_nodeop_phase"),
        ["{name=\"op00\",kind=\"NodeOp\",phase=\"Deleting\"} 1"]
    );
}

/// As the caches have it; see `observe::trim`.
#[test]
fn what_is_over_is_shown_from_the_little_that_is_kept_of_it() {
    let metrics = leading();
    let mut kept = op("op", "Failed", json!({}));
    let counts = json!({"total": 3, "pending": 1, "running": 0, "completed": 0, "failed": 2, "done": "2/3"});
    kept["status"]["counts"] = counts.clone();
    kept["status"]["lastUpdated"] = stamp(-60).into();
    let mut up = upgrade("up", "Completed");
    up["status"]["counts"] = counts;
    up["status"]["lastUpdated"] = stamp(-60).into();
    metrics.planned(&snapshot(0, &[kept], &[up]), &Plan::default());
    assert_eq!(shown(&metrics, "kairos_nodeop_phase").len(), 2);
    let nodes = shown(&metrics, "kairos_nodeop_nodes");
    assert_eq!(
        nodes[..2],
        [
            "{name=\"op\",kind=\"NodeOp\",phase=\"Failed\"} 2",
            "{name=\"op\",kind=\"NodeOp\",phase=\"Pending\"} 1"
        ]
    );
    assert_eq!(nodes.len(), 4);
}
