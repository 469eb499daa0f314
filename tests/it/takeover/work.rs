//! Its Jobs and its reboot pods, of which there may be more than one, and which may never end by themselves.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kairos_operator::{
    api::nodeop::{Phase, RebootStatus, Step},
    plan::model::{
        action::Action,
        snapshot::{ContainerState, ContainerView, JobState, JobView, PodPhase, PodView, Role, Snapshot},
    },
};
use serde_json::json;

use super::{at, entry, in_progress, job, mid_life::cordoned, planned, pod, until_stable, world};

fn running(reboot: bool) -> serde_json::Value {
    let reboot = if reboot { "pending" } else { "not-requested" };
    json!({"phase": "Running", "jobName": "op-n1-x7k2q", "rebootStatus": reboot})
}

/// A Job that it made twice for one node, under another name.
fn another_job(s: &mut Snapshot, node: &str, name: &str, state: JobState) {
    let first = &s.jobs[&("ns".to_owned(), format!("op-{node}-x7k2q"))];
    let job = JobView { name: name.into(), uid: format!("{name}-uid"), state, ..first.as_ref().clone() };
    s.jobs.insert(("ns".into(), name.into()), Arc::new(job));
}

/// It sets no deadline: a Job whose image cannot be pulled would hold its node for ever, also when its NodeOp
/// is deleted.
#[test]
fn a_job_of_its_gets_a_deadline() {
    let owner = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "op", "uid": "uu", "controller": true}]);
    for (owners, spec, seconds) in [
        (json!([]), json!({}), 86_400),
        (owner.clone(), json!({}), 3600),
        (owner, json!({"activeDeadlineSeconds": 600}), 600),
    ] {
        let mut s = in_progress(spec, running(false));
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (*s.ops[&key]).clone();
        op.metadata.owner_references = serde_json::from_value(owners).unwrap();
        s.ops.insert(key.clone(), Arc::new(op));
        job(&mut s, "n1", JobState::Active);
        until_stable(&mut s);
        let extends = |s: &mut Snapshot| {
            let wanted = planned(s).actions;
            wanted.into_iter().find_map(|action| match action {
                Action::ExtendJob { job, deadline_seconds } if job.name == "op-n1-x7k2q" => {
                    Some(deadline_seconds)
                }
                _ => None,
            })
        };
        // It counts from the Job's start, and what it had is not known: it has that time from now on, also if
        // the clock of the API server is ahead of ours.
        let had = s.now.as_second() - at(10).as_second() + 3600;
        assert_eq!(extends(&mut s), Some(had + seconds));
        let mut deleted = s.clone();
        let mut op = (*s.ops[&key]).clone();
        op.metadata.deletion_timestamp = Some(Time(s.now));
        deleted.ops.insert(key.clone(), Arc::new(op));
        if seconds != 86_400 {
            assert_eq!(extends(&mut deleted), Some(had + seconds), "an upgrade is left to end");
        }
        let key = ("ns".to_owned(), "op-n1-x7k2q".to_owned());
        let bounded = JobView { deadline_seconds: Some(had + seconds), ..(*s.jobs[&key]).clone() };
        s.jobs.insert(key, Arc::new(bounded));
        assert_eq!(extends(&mut s), None, "once");
    }
}

/// Where it could not write down the first it makes another one: two agents on one disk. And whose sentinel
/// each of its reboot pods waits for nothing says: one may reboot the node while the other Job runs.
#[test]
fn a_node_with_two_jobs_is_failed_and_not_rebooted() {
    for (one, other) in [
        (JobState::Active, JobState::Active),
        (JobState::Active, JobState::Complete),
        (JobState::Complete, JobState::Active),
        (JobState::Complete, JobState::Complete),
    ] {
        let mut s = in_progress(json!({"rebootOnSuccess": true, "cordon": true}), running(true));
        cordoned(&mut s, true);
        job(&mut s, "n1", one.clone());
        another_job(&mut s, "n1", "op-n1-a1b2c", other.clone());
        pod(&mut s, "n1", Role::Waiter, PodPhase::Running, None);
        let out = planned(&mut s);
        let ends =
            |action: &Action| matches!(action, Action::DeletePod { pod, .. } if pod.name.contains("waiter"));
        assert!(out.actions.iter().any(ends), "{one:?} {other:?}: {:?}", out.actions);
        assert!(super::status(&out).is_none(), "it is recorded while a reboot may come");
        s.pods.clear();
        let wanted = until_stable(&mut s);
        let said = entry(&s, "n1");
        assert_eq!((said.phase, said.reboot_status), (Phase::Failed, Some(RebootStatus::Cancelled)));
        let message = said.message.unwrap();
        assert!(message.contains("op-n1-x7k2q") && message.contains("op-n1-a1b2c"), "{message}");
        // They are left to end, as upgrades are, and the node stays cordoned.
        let undoes = |action: &Action| match action {
            Action::DeleteJob { .. } => true,
            Action::PatchNode { change, .. } => change.unschedulable.is_some(),
            _ => false,
        };
        assert!(!wanted.iter().any(undoes), "{wanted:?}");
    }
    // One that has failed does nothing any more.
    let mut s = in_progress(json!({}), running(false));
    job(&mut s, "n1", JobState::Failed("BackoffLimitExceeded".into()));
    another_job(&mut s, "n1", "op-n1-a1b2c", JobState::Active);
    until_stable(&mut s);
    assert_eq!(
        (entry(&s, "n1").step, entry(&s, "n1").job_name.unwrap()),
        (Some(Step::Job), "op-n1-a1b2c".into())
    );
}

/// It may have been changed.
#[test]
fn a_node_whose_job_is_gone_stays_cordoned() {
    let mut s = in_progress(json!({"cordon": true}), running(false));
    cordoned(&mut s, true);
    let wanted = until_stable(&mut s);
    assert_eq!(entry(&s, "n1").phase, Phase::Failed);
    let lifts = |action: &Action| matches!(action, Action::PatchNode { change, .. } if change.unschedulable.is_some());
    assert!(!wanted.iter().any(lifts), "{wanted:?}");
}

/// A start that failed leaves its reboot pod behind, which waits for ever for the sentinel of a Job that was
/// never made.
#[test]
fn a_reboot_that_was_over_is_not_awaited_because_another_reboot_pod_waits() {
    let mut s = in_progress(
        json!({"rebootOnSuccess": true}),
        json!({"phase": "Completed", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"}),
    );
    job(&mut s, "n1", JobState::Complete);
    pod(&mut s, "n1", Role::Waiter, PodPhase::Succeeded, Some("completed"));
    let done = s.pods.values().next().unwrap().as_ref().clone();
    let state = ContainerState::Running { since: at(5) };
    let leaked = PodView {
        name: "op-reboot-leaked".into(),
        uid: "leaked".into(),
        phase: PodPhase::Running,
        reboot_state: None,
        containers: vec![ContainerView::new("reboot", state)],
        ..done
    };
    s.pods.insert(("ns".into(), "op-reboot-leaked".into()), Arc::new(leaked));
    until_stable(&mut s);
    assert!(entry(&s, "n1").message.unwrap().contains("not proved"), "{:?}", entry(&s, "n1"));
    assert_ne!(entry(&s, "n1").step, Some(Step::Reboot));
}

/// Privileged, and without an end: it waits on a node that was never begun.
#[test]
fn a_reboot_pod_on_a_node_that_was_never_begun_ends_with_its_nodeop() {
    for phase in ["Failed", "Completed"] {
        let mut s = world(
            json!({"rebootOnSuccess": true}),
            json!({"phase": phase, "nodeStatuses": {"n1": {"phase": phase, "jobName": "op-n1-x7k2q", "rebootStatus": "completed"}}}),
        );
        pod(&mut s, "n3", Role::Waiter, PodPhase::Running, None);
        let wanted = planned(&mut s).actions;
        let ends = |action: &Action| matches!(action, Action::DeletePod { pod, .. } if pod.name.contains("waiter-n3"));
        assert!(wanted.iter().any(ends), "{phase}: {wanted:?}");
    }
}
