//! What is counted and timed.

use super::*;
use crate::plan::{
    fixtures,
    model::snapshot::{ContainerState, ContainerView, Owner, PodView, Role},
};

/// One node that goes through everything, of which each state is one plan.
#[test]
fn steps_are_timed_and_ends_counted_once() {
    let run = |step: &str, since: i64, more: Value| {
        let mut entry = json!({"phase": "Running", "step": step, "lastUpdated": stamp(since), "jobName": "j", "jobUid": "ju"});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let drains = |blocked: Option<i64>| {
        run("Drain", 20, json!({"drainStartedAt": stamp(21), "blockedSince": blocked.map(stamp)}))
    };
    let life = [
        (0, json!({"phase": "Preflight", "lastUpdated": stamp(0)})),
        (10, json!({"phase": "Pending", "boot": "b", "lastUpdated": stamp(10)})),
        (11, run("Claim", 11, json!({}))),
        (20, drains(None)),
        (25, drains(Some(25))),
        (65, drains(None)),
        (121, run("Job", 121, json!({}))),
        (300, run("Reboot", 300, json!({}))),
        (400, run("Verify", 400, json!({}))),
        (411, json!({"phase": "Completed", "rebootStatus": "completed", "lastUpdated": stamp(411)})),
        (420, json!({"phase": "Completed"})),
    ];
    let metrics = leading();
    let mut old = child("up", "Pending", json!({}));
    for (second, entry) in life {
        let new = child("up", "Running", json!({"n1": entry}));
        let mut snapshot = snapshot(second, std::slice::from_ref(&new), &[]);
        write(&metrics, &old, &new, second);
        if second == 0 {
            metrics.planned(&snapshot, &Plan::default());
            let running = ContainerState::Running { since: at(7) };
            let pod = PodView {
                containers: vec![ContainerView::new("preflight", running)],
                ..fixtures::pod(Role::Preflight, "p", Owner::nodeop("up", "up-uid"), "n1")
            };
            snapshot.pods = [(("ns".to_owned(), "p".to_owned()), Arc::new(pod))].into_iter().collect();
            snapshot.now = at(7);
        }
        for _ in 0..2 {
            metrics.planned(&snapshot, &Plan::default());
        }
        old = new;
    }
    let of = |name: &str| shown(&metrics, name);
    let kind = "{kind=\"NodeOpUpgrade\"}";
    for (name, seconds) in [
        ("kairos_image_pull_duration_seconds", 7),
        ("kairos_drain_blocked_duration_seconds", 40),
        ("kairos_drain_duration_seconds", 100),
        ("kairos_job_duration_seconds", 179),
        ("kairos_reboot_duration_seconds", 100),
        ("kairos_node_duration_seconds", 400),
    ] {
        assert_eq!(of(name), [format!("_count{kind} 1"), format!("_sum{kind} {seconds}.0")], "{name}");
    }
    let finished = ["{kind=\"NodeOpUpgrade\",result=\"upgraded\",reason=\"Finished\"} 1"];
    assert_eq!(of("kairos_nodes_finished_total"), finished);
}

#[test]
fn each_end_has_one_result_and_one_reason() {
    let pending = || json!({"phase": "Pending"});
    let run = |step: &str| json!({"phase": "Running", "step": step});
    let ends = |phase: &str, reboot: &str| json!({"phase": phase, "rebootStatus": reboot});
    for (before, after, expected) in [
        (pending(), ends("Completed", "not-requested"), "skipped NotStarted"),
        (json!({"phase": "Preflight"}), ends("Completed", "not-requested"), "skipped Preflight"),
        (json!({"phase": "Preflight"}), ends("Failed", "not-requested"), "failed Preflight"),
        (pending(), ends("Failed", "not-requested"), "failed NotStarted"),
        (json!({"phase": "Running"}), ends("Failed", "cancelled"), "failed Claim"),
        (run("Drain"), ends("Failed", "cancelled"), "failed Drain"),
        (run("Job"), ends("Failed", "cancelled"), "failed Job"),
        (run("Job"), ends("Completed", "not-requested"), "skipped Job"),
        (run("Reboot"), ends("Failed", "pending"), "failed Reboot"),
        (run("Verify"), ends("Failed", "completed"), "failed Verify"),
        (run("Reboot"), ends("Completed", "completed"), "succeeded Finished"),
    ] {
        let metrics = leading();
        let [before, after] = [before, after].map(|node| op("op", "Running", json!({"n1": node})));
        write(&metrics, &before, &after, 0);
        write(&metrics, &after, &after, 1);
        let (result, reason) = expected.split_once(' ').unwrap();
        let counted = shown(&metrics, "kairos_nodes_finished_total");
        assert_eq!(counted, [format!("{{kind=\"NodeOp\",result=\"{result}\",reason=\"{reason}\"}} 1")]);
    }
}

#[test]
fn what_was_remembered_of_an_operation_is_not_that_of_the_next_one_of_its_name() {
    let metrics = leading();
    let node = |phase: &str| json!({"n1": {"phase": phase, "step": "Job"}});
    write(&metrics, &op("op", "Running", json!({})), &op("op", "Running", node("Running")), 0);
    let mut again = [op("op", "Running", node("Running")), op("op", "Failed", node("Failed"))];
    again.iter_mut().for_each(|op| op["metadata"]["uid"] = "another".into());
    write(&metrics, &again[0], &again[1], 100);
    assert!(shown(&metrics, "kairos_node_duration").is_empty());
    assert_eq!(shown(&metrics, "kairos_nodes_finished_total").len(), 1);
}

#[test]
fn evictions_are_counted_by_what_came_of_them_from_0() {
    let metrics = leading();
    let of = || samples(&metrics).into_iter().filter(|line| line.starts_with("kairos_evictions_total"));
    assert_eq!(of().filter(|line| line.ends_with(" 0")).count(), EvictionResult::ALL.len());
    metrics.evicted(EvictionResult::Budget);
    assert_eq!(shown(&metrics, "kairos_evictions_total"), ["{result=\"budget\"} 1"]);
}
