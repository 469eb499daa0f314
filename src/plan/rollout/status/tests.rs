//! Tests of the status of a NodeOp.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::{
    api::nodeop::{NodeStatus, Phase, RebootStatus},
    plan::{
        model::{effects::Effects, snapshot::Snapshot},
        rollout::compact::{compact, max_in_progress},
    },
};

#[test]
fn a_stamp_in_the_future_keeps_no_message_from_being_written() {
    let now = Timestamp::constant(1_000, 0);
    let says = |message: &str, at: i64| NodeOpStatus {
        phase: Some(Phase::Running),
        message: Some(message.into()),
        last_updated: Timestamp::from_second(at).ok().map(Time),
        ..NodeOpStatus::default()
    };
    let written = |at: i64| {
        let op = Arc::new(NodeOp { status: Some(says("old", at)), ..NodeOp::new("op", Default::default()) });
        let snapshot = Snapshot { now, ..Snapshot::default() };
        let effects = write(&snapshot, &op, says("new", at), Effects::default());
        (effects.actions.len(), effects.wake_at)
    };
    assert_eq!(written(990), (1, None));
    assert_eq!(written(1_000).0, 0, "what was written just now is not written again");
    assert_eq!(written(31_537_000), (1, None), "somebody's clock was a year ahead");
}

/// Whoever looks on sees within seconds why a node waits, and a step that takes hours is not written down
/// each second.
#[test]
fn messages_are_written_the_less_often_the_longer_a_node_stands_in_its_step() {
    let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
    let says = |message: String, last: i64| {
        let node = |message: &str| NodeStatus {
            phase: Phase::Running,
            message: Some(message.into()),
            last_updated: Some(Time(at(0))),
            ..NodeStatus::default()
        };
        NodeOpStatus {
            phase: Some(Phase::Running),
            node_statuses: [("n1".to_owned(), node(&message))].into_iter().collect(),
            last_updated: Some(Time(at(last))),
            ..NodeOpStatus::default()
        }
    };
    // Something else is to be said each second, from the step's beginning on.
    let (mut last, mut written) = (0, Vec::new());
    for second in 1..60 {
        let op = Arc::new(NodeOp {
            status: Some(says(format!("{last}"), last)),
            ..NodeOp::new("op", Default::default())
        });
        let snapshot = Snapshot { now: at(second), ..Snapshot::default() };
        let effects = write(&snapshot, &op, says(format!("{second}"), last), Effects::default());
        assert_eq!(effects.actions.is_empty(), effects.wake_at.is_some_and(|wake| wake > at(second)));
        if !effects.actions.is_empty() {
            last = second;
            written.push(second);
        }
    }
    assert_eq!(written, [2, 4, 8, 16, 26, 36, 46, 56]);
}

/// Everything that stands about a node that is done.
fn whole(succeeded: bool, message: &str) -> NodeStatus {
    NodeStatus {
        phase: if succeeded { Phase::Completed } else { Phase::Failed },
        message: Some(message.into()),
        job_name: Some("j".repeat(63)),
        reboot_status: Some(if succeeded { RebootStatus::Completed } else { RebootStatus::Cancelled }),
        verified: succeeded.then_some(true),
        holds_slot: (!succeeded).then_some(true),
        target: Some("v3.5.0-k3sv1.30.11+k3s1".into()),
        last_updated: Some(Time(Timestamp::UNIX_EPOCH)),
        ..NodeStatus::default()
    }
}

fn named(node: usize) -> String {
    let name = format!("edge-{node:04}.");
    format!("{name}{}", "x".repeat(63 - name.len()))
}

#[test]
fn five_thousand_nodes_that_are_done_fit_into_etcd_with_all_that_stands_about_each() {
    let op: NodeOp = serde_json::from_value(serde_json::json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "op", "namespace": "ns", "uid": "u"}, "spec": {"command": []},
    }))
    .unwrap();
    let op = crate::plan::node::context::Op::of(&Arc::new(op));
    let failed = "é".repeat(2000);
    for (succeeded, message) in [
        (true, "Job and reboot completed successfully: upgraded to v3.5.0-k3sv1.30.11+k3s1"),
        (false, &failed),
    ] {
        let mut nodes: NodeStatuses = (0..5000).map(|n| (named(n), whole(succeeded, message))).collect();
        compact(&Snapshot::default(), &op, &mut nodes);
        let mut status = summarize(&op.object, nodes, &OpProgress::default(), Timestamp::UNIX_EPOCH);
        shorten(None, &mut status);
        let bytes = serde_json::to_vec(&status).unwrap().len();
        assert!(bytes <= 1 << 20, "{bytes} bytes");
        let entry = &status.node_statuses[named(7).as_str()];
        assert!(entry.message.as_ref().is_some_and(|said| said.len() >= 50), "{entry:?}");
        assert_eq!(
            (entry.verified, entry.holds_slot),
            (succeeded.then_some(true), (!succeeded).then_some(true))
        );
    }
    let mut few: NodeStatuses = (0..1000).map(|n| (named(n), whole(true, "m"))).collect();
    let before = few.clone();
    compact(&Snapshot::default(), &op, &mut few);
    assert_eq!(few, before, "of a thousand all is kept");
}

/// By it a later round knows a machine that joins again under a new Node, and does not try it once more.
#[test]
fn of_a_machine_whose_node_was_lost_its_id_is_kept_among_very_many() {
    let op = crate::plan::node::context::Op::of(&Arc::new(NodeOp::new("op", Default::default())));
    let of = |n: usize| NodeStatus { machine_id: (n == 7).then(|| "m7".into()), ..whole(n != 7, "m") };
    let mut nodes: NodeStatuses = (0..1001).map(|n| (named(n), of(n))).collect();
    compact(&Snapshot::default(), &op, &mut nodes);
    let entry = &nodes[named(7).as_str()];
    assert_eq!((entry.machine_id.as_deref(), entry.job_name.as_deref()), (Some("m7"), None));
}

/// How many bytes etcd gets of it: the API server's encoder escapes what would end a script in HTML.
fn stored(status: &NodeOpStatus) -> usize {
    let json = serde_json::to_string(status).unwrap();
    json.len() + 5 * json.chars().filter(|character| "<>&".contains(*character)).count()
}

/// All that stands about a node that has booted and is to be proved.
fn under_way() -> NodeStatus {
    let id = |bytes: usize| Some("0".repeat(bytes));
    let time = || Some(Time(Timestamp::UNIX_EPOCH));
    NodeStatus {
        phase: Phase::Running,
        step: Some(crate::api::nodeop::Step::Verify),
        message: Some("being proved".repeat(20)),
        job_name: id(63),
        reboot_status: Some(RebootStatus::Pending),
        last_updated: time(),
        node_uid: id(36),
        job_uid: id(36),
        attempt: Some(1),
        drain_started_at: time(),
        waiter_since: time(),
        machine_id: id(32),
        deadline: time(),
        boot: id(36),
        succeeded_in: id(36),
        new_boot: id(36),
        target: Some("v3.5.0-k3sv1.30.11+k3s1".into()),
        before: Some("v3.4.2-k3sv1.30.11+k3s1".into()),
        image: Some(format!("quay.io/kairos/opensuse@sha256:{}", "0".repeat(64))),
        since: time(),
        given_up: Some("<".repeat(2000)),
        ..NodeStatus::default()
    }
}

#[test]
fn five_thousand_nodes_with_as_many_in_progress_as_may_be_fit_into_etcd() {
    let op = crate::plan::node::context::Op::of(&Arc::new(NodeOp::default()));
    let done = whole(true, "Job and reboot completed successfully: upgraded to v3.5.0-k3sv1.30.11+k3s1");
    let mut nodes: NodeStatuses = (0..5000).map(|n| (named(n), done.clone())).collect();
    let in_progress = max_in_progress(5000).min(5000);
    (0..in_progress).for_each(|n| nodes.insert(named(n), under_way()));
    compact(&Snapshot::default(), &op, &mut nodes);
    let mut status = summarize(&op.object, nodes, &OpProgress::default(), Timestamp::UNIX_EPOCH);
    shorten(None, &mut status);
    // The server takes 1,572,864, and beside the entries there is more.
    assert!(stored(&status) <= 1_400_000, "{} bytes", stored(&status));
    assert!(in_progress >= 200, "{in_progress}");
}

#[test]
fn an_upgrade_that_found_nothing_to_do_does_not_say_that_it_upgraded() {
    let intent = Intent { upgrade: true, reboot: true, ..Intent::of(&NodeOp::default()) };
    let skipped = NodeStatus {
        phase: Phase::Completed,
        reboot_status: Some(RebootStatus::NotRequested),
        last_updated: Some(Time(Timestamp::UNIX_EPOCH)),
        ..NodeStatus::default()
    };
    let of = |nodes: &[&NodeStatus]| {
        let nodes = nodes.iter().enumerate().map(|(n, node)| (named(n), (*node).clone())).collect();
        let Verified { status, reason, .. } = verified(&intent, &nodes, &[]);
        (status, reason)
    };
    let upgraded = whole(true, "m");
    let upgraded_at = upgraded.last_updated.clone();
    let found_at = NodeStatus { target: Some("v3.6.0".into()), ..skipped.clone() };
    assert_eq!(of(&[&skipped, &found_at]), ("True", "NothingToDo"));
    assert_eq!(of(&[&skipped, &skipped]), ("Unknown", "NotUpgraded"), "deleted before its turn, for one");
    assert_eq!(of(&[&skipped, &upgraded]), ("True", "Proved"));
    assert_eq!(of(&[&NodeStatus { verified: Some(false), ..upgraded }]), ("Unknown", "NotProved"));
    // The recovery image alone was written, be it that more was asked for, and the node says so or does not.
    let recovery = NodeStatus { job_name: Some("j".into()), last_updated: upgraded_at, ..found_at.clone() };
    let recorded = NodeStatus { verified: Some(true), ..recovery.clone() };
    assert_eq!(of(&[&recovery]), ("Unknown", "NotRebooted"));
    assert_eq!(of(&[&recovery, &whole(true, "m"), &found_at]), ("Unknown", "NotRebooted"));
    assert_eq!(of(&[&recorded, &found_at]), ("True", "Recorded"));
    assert_eq!(of(&[&recorded, &whole(true, "m")]), ("True", "Proved"));
    // Of one of thousands that was skipped no more than the message is kept.
    let kept = |message: &str, verified| NodeStatus {
        phase: Phase::Completed,
        message: Some(message.into()),
        verified,
        ..NodeStatus::default()
    };
    let skipped = kept("Skipped by preflight: node is already at v3.6.0", None);
    assert_eq!(of(&[&skipped, &kept("m", Some(true))]), ("True", "Proved"));
    assert_eq!(of(&[&skipped, &kept("recovery upgraded to v3.6.0", None)]), ("Unknown", "NotRebooted"));
}

#[test]
fn whatever_nodes_say_the_status_fits_into_etcd() {
    let op = NodeOp::default();
    let says = |message: &str| NodeStatus {
        phase: Phase::Failed,
        message: Some(message.into()),
        ..NodeStatus::default()
    };
    let cases = ["é", "<", "\"", "\u{1}"].map(|text| {
        [(1, 1_000_000), (500, 4096), (5000, 4096)].map(|(count, times)| (count, text.repeat(times)))
    });
    for (count, message) in cases.into_iter().flatten() {
        let nodes = (0..count).map(|n| (format!("node-{n}.example.com"), says(&message))).collect();
        let mut status = summarize(&op, nodes, &OpProgress::default(), Timestamp::UNIX_EPOCH);
        shorten(None, &mut status);
        let bytes = stored(&status);
        assert!(bytes < 1_200_000, "{count} nodes: {bytes} bytes");
        let mut again = status.clone();
        shorten(Some(&status), &mut again);
        assert_eq!(again, status, "what is cut stays as it is");
    }
}

/// Whoever has the credentials of a few nodes of many. What these call their boots is bounded where it is
/// read (`api::node`); what their pods say of a release, by the length of a termination message.
#[test]
fn whatever_a_hundred_nodes_call_themselves_the_status_fits_into_etcd() {
    let text = |bytes: usize| Some("x".repeat(bytes));
    let hostile = NodeStatus {
        phase: Phase::Running,
        message: text(4000),
        given_up: text(8000),
        machine_id: text(128),
        boot: text(128),
        new_boot: text(128),
        target: text(2000),
        before: text(2000),
        image: text(512),
        ..NodeStatus::default()
    };
    let honest = NodeStatus { phase: Phase::Running, message: text(900), ..NodeStatus::default() };
    let mut nodes: NodeStatuses = (0..1000).map(|n| (named(n), honest.clone())).collect();
    (0..100).for_each(|n| nodes.insert(named(n), hostile.clone()));
    let mut status = summarize(&NodeOp::default(), nodes, &OpProgress::default(), Timestamp::UNIX_EPOCH);
    shorten(None, &mut status);
    let bytes = serde_json::to_vec(&status).unwrap().len();
    assert!(bytes < 1_200_000, "{bytes} bytes");
    let mut again = status.clone();
    shorten(Some(&status), &mut again);
    assert_eq!(again, status, "what is cut stays as it is");
}
