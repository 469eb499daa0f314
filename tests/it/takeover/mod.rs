//! What the Go operator leaves behind, kind by kind, and what becomes of it: pure plans on what it would have
//! written.

mod carried;
mod ends;
mod mid_life;
mod unfinished;
mod upgrades;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kairos_operator::{
    api::{
        names,
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase, RebootStatus, Step},
        upgrade::{NodeOpUpgrade, UpgradePhase},
    },
    plan::{
        check,
        model::{
            action::Action,
            effects::Plan,
            id::OpRef,
            question::{Answer, Question},
            snapshot::{JobState, JobView, NodeView, Owner, PodPhase, PodView, Role, Snapshot},
        },
        plan,
    },
};
use serde_json::{Value, json};

/// When the NodeOp was made; the present is five minutes later.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// A world as the Go operator left it: nodes n1 to n3, and n4, which joined after the NodeOp was made.
fn world(spec: Value, status: Value) -> Snapshot {
    let mut fields = json!({"command": ["true"], "concurrency": 1});
    fields.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut op: NodeOp = serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "op", "namespace": "ns", "uid": "u", "generation": 1, "finalizers": [names::LEGACY_FINALIZER]},
        "spec": fields, "status": status,
    }))
    .unwrap();
    op.metadata.creation_timestamp = Some(Time(at(0)));
    let node = |number: i64| NodeView {
        name: format!("n{number}"),
        uid: format!("n{number}-uid"),
        created: at(if number == 4 { 60 } else { -60 }),
        ready: true,
        boot_id: "b1".into(),
        ..NodeView::default()
    };
    Snapshot {
        now: at(300),
        leading_since: at(290),
        nodes: (1..=4).map(node).map(|node| (node.name.clone(), Arc::new(node))).collect(),
        ops: [(("ns".into(), "op".into()), Arc::new(op))].into(),
        ..Snapshot::default()
    }
}

fn job(s: &mut Snapshot, node: &str, state: JobState) {
    let name = format!("op-{node}-x7k2q");
    let view = JobView {
        namespace: "ns".into(),
        uid: format!("{name}-uid"),
        name: name.clone(),
        resource_version: "1".into(),
        owner: Owner::nodeop("op", "u"),
        node: node.into(),
        suspended: false,
        deleting: false,
        state,
        generation: Some(1),
        started_at: Some(at(10)),
        deadline_seconds: None,
        failed: 0,
        has_pod: false,
        has_ready_pod: false,
        settled_in: None,
    };
    s.jobs.insert(("ns".into(), name), Arc::new(view));
}

fn pod(s: &mut Snapshot, node: &str, role: Role, phase: PodPhase, reboot_state: Option<&str>) {
    let name = format!("op-{role:?}-{node}-p9w4z").to_lowercase();
    let view = PodView {
        namespace: "ns".into(),
        uid: format!("{name}-uid"),
        name: name.clone(),
        owner: Owner::nodeop("op", "u"),
        role,
        node: node.into(),
        phase,
        reason: String::new(),
        deleting: false,
        created: at(10),
        attempt: 0,
        reboot_state: reboot_state.map(Into::into),
        waits_in: None,
        containers: vec![],
    };
    s.pods.insert(("ns".into(), name), Arc::new(view));
}

/// Plans until nothing more is asked, as the controller does. What is asked is answered by what the snapshot
/// shows.
fn answered(s: &mut Snapshot) -> Plan {
    s.answers.clear();
    loop {
        let out = plan(s);
        assert_eq!(check::broken(s, &out), [""; 0]);
        let open: Vec<Question> =
            out.questions.iter().filter(|question| s.answer(question).is_none()).cloned().collect();
        if open.is_empty() {
            return out;
        }
        for question in open {
            let there = match &question {
                Question::Node(name) => s.nodes.contains_key(name),
                Question::Job(key) => s.jobs.contains_key(key),
                Question::Pod(key) => s.pods.contains_key(key),
                Question::Op(of) => s.op(of).is_some(),
                _ => true,
            };
            s.answers.insert(question, if there { Answer::Found } else { Answer::NotFound });
        }
    }
}

/// The same; and a finalizer is there before anything else is done.
fn planned(s: &mut Snapshot) -> Plan {
    loop {
        let out = answered(s);
        let finalizers = out.actions.iter().find_map(|action| match action {
            Action::SetFinalizers { finalizers, .. } => Some(finalizers.clone()),
            _ => None,
        });
        let Some(finalizers) = finalizers else { return out };
        assert!(status(&out).is_none(), "it is recorded before its finalizer is there");
        let mut op = (*s.ops[&("ns".to_owned(), "op".to_owned())]).clone();
        op.metadata.finalizers = Some(finalizers);
        s.ops.insert(("ns".into(), "op".into()), Arc::new(op));
    }
}

fn status(out: &Plan) -> Option<NodeOpStatus> {
    out.actions.iter().find_map(|action| match action {
        Action::PatchStatus { status, .. } => Some(status.as_ref().clone()),
        _ => None,
    })
}

/// Plans and writes the status, again and again, until it says no more; returns everything else that was
/// wanted.
fn until_stable(s: &mut Snapshot) -> Vec<Action> {
    let mut wanted = Vec::new();
    for _ in 0..20 {
        let out = planned(s);
        wanted.extend(
            out.actions.iter().filter(|action| !matches!(action, Action::PatchStatus { .. })).cloned(),
        );
        let Some(status) = status(&out) else { return wanted };
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (*s.ops[&key]).clone();
        op.status = Some(status);
        s.ops.insert(key, Arc::new(op));
        s.now = s.now.checked_add(SignedDuration::from_secs(2)).unwrap();
    }
    panic!("it never rests: {wanted:?}");
}

fn entries(s: &Snapshot) -> BTreeMap<String, NodeStatus> {
    s.ops.values().next().unwrap().status.clone().unwrap().node_statuses.into()
}

fn entry(s: &Snapshot, node: &str) -> NodeStatus {
    entries(s)[node].clone()
}

fn makes(wanted: &[Action]) -> Vec<String> {
    let made = |action: &Action| match action {
        Action::CreateJob { node, .. } => Some(format!("Job on {node}")),
        Action::CreateWaiter { node, .. } => Some(format!("waiter on {node}")),
        _ => None,
    };
    wanted.iter().filter_map(made).collect()
}

/// A NodeOp of one node in progress, n1, and the entry that the Go operator wrote for it.
fn in_progress(spec: Value, entry: Value) -> Snapshot {
    let mut fields = json!({"nodeSelector": {"matchLabels": {"only": "n1"}}});
    fields.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut s = world(fields, json!({"phase": "Running", "nodeStatuses": {"n1": entry}}));
    let mut n1 = (*s.nodes["n1"]).clone();
    n1.labels.insert("only".into(), "n1".into());
    s.nodes.insert("n1".into(), Arc::new(n1));
    s
}

#[test]
fn what_it_finished_is_over_and_loses_its_finalizer() {
    for phase in ["Completed", "Failed"] {
        let mut s = world(
            json!({}),
            json!({"phase": phase, "nodeStatuses": {"n1": {"phase": phase, "jobName": "op-n1-x7k2q"}}}),
        );
        pod(&mut s, "n1", Role::Preflight, PodPhase::Succeeded, None);
        let out = planned(&mut s);
        assert!(status(&out).is_none(), "{phase} is final");
        let concluded = out
            .actions
            .iter()
            .any(|action| matches!(action, Action::Finalize { finalizers, .. } if finalizers.is_empty()));
        assert!(concluded, "{:?}", out.actions);
    }
}

#[test]
fn a_cordon_that_it_left_on_a_finished_node_is_undone_as_our_own() {
    let mut s = world(
        json!({"cordon": true}),
        json!({"phase": "Completed", "nodeStatuses": {"n1": {"phase": "Completed", "jobName": "j"}}}),
    );
    let me = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
    let n1 = NodeView { unschedulable: true, cordoned_by: Some(me), ..(*s.nodes["n1"]).clone() };
    s.nodes.insert("n1".into(), Arc::new(n1));
    let out = planned(&mut s);
    let undone = |action: &Action| matches!(action, Action::PatchNode { name, change, .. } if name == "n1" && change.unschedulable == Some(false));
    assert!(out.actions.iter().any(undone), "{:?}", out.actions);
}

#[test]
fn a_running_job_is_adopted_and_its_outcome_counts() {
    for (state, phase) in [
        (JobState::Complete, Phase::Completed),
        (JobState::Failed("BackoffLimitExceeded".into()), Phase::Failed),
    ] {
        for before in ["Pending", "Running"] {
            let mut s = in_progress(
                json!({}),
                json!({"phase": before, "jobName": "op-n1-x7k2q", "rebootStatus": "not-requested"}),
            );
            job(&mut s, "n1", JobState::Active);
            let wanted = until_stable(&mut s);
            assert_eq!((entry(&s, "n1").phase, entry(&s, "n1").step), (Phase::Running, Some(Step::Job)));
            assert!(makes(&wanted).is_empty(), "no second run: {wanted:?}");
            job(&mut s, "n1", state.clone());
            let wanted = until_stable(&mut s);
            assert_eq!(entry(&s, "n1").phase, phase);
            assert!(makes(&wanted).is_empty(), "{wanted:?}");
        }
    }
}

#[test]
fn a_job_that_was_not_recorded_yet_is_adopted_too() {
    let empty = [json!({"phase": "Running"}), Value::Null];
    for status in empty {
        let mut s = in_progress(json!({}), json!({"phase": "Pending"}));
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (*s.ops[&key]).clone();
        op.status = serde_json::from_value(status).unwrap();
        s.ops.insert(key, Arc::new(op));
        job(&mut s, "n1", JobState::Active);
        let wanted = until_stable(&mut s);
        assert_eq!(entry(&s, "n1").job_name.as_deref(), Some("op-n1-x7k2q"), "{wanted:?}");
        assert!(makes(&wanted).is_empty(), "no second run: {wanted:?}");
    }
}

#[test]
fn its_reboot_pod_reboots_and_only_another_boot_proves_it() {
    for before in [
        json!({"phase": "Running", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"}),
        json!({"phase": "Completed", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"}),
    ] {
        let mut s = in_progress(json!({"rebootOnSuccess": true}), before);
        job(&mut s, "n1", JobState::Complete);
        pod(&mut s, "n1", Role::Waiter, PodPhase::Running, None);
        let wanted = until_stable(&mut s);
        assert_eq!((entry(&s, "n1").step, entry(&s, "n1").boot.as_deref()), (Some(Step::Reboot), Some("b1")));
        assert!(makes(&wanted).is_empty(), "no second reboot pod: {wanted:?}");
        pod(&mut s, "n1", Role::Waiter, PodPhase::Succeeded, Some("completed"));
        until_stable(&mut s);
        assert_eq!(entry(&s, "n1").phase, Phase::Running, "its word is no proof");
        let back = NodeView { boot_id: "b2".into(), ..(*s.nodes["n1"]).clone() };
        s.nodes.insert("n1".into(), Arc::new(back));
        until_stable(&mut s);
        assert_eq!(
            (entry(&s, "n1").phase, entry(&s, "n1").reboot_status),
            (Phase::Completed, Some(RebootStatus::Completed))
        );
    }
}

#[test]
fn a_reboot_that_was_under_way_is_not_proved() {
    for state in [Some("completed"), None] {
        let mut s = in_progress(
            json!({"rebootOnSuccess": true}),
            json!({"phase": "Completed", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"}),
        );
        job(&mut s, "n1", JobState::Complete);
        if state.is_some() {
            pod(&mut s, "n1", Role::Waiter, PodPhase::Succeeded, state);
        }
        until_stable(&mut s);
        assert_eq!(entry(&s, "n1").phase, Phase::Failed);
        assert!(entry(&s, "n1").message.unwrap().contains("not proved"));
    }
}

#[test]
fn a_job_that_failed_ends_the_reboot_pod_first() {
    let mut s = in_progress(
        json!({"rebootOnSuccess": true}),
        json!({"phase": "Running", "jobName": "op-n1-x7k2q", "rebootStatus": "pending"}),
    );
    job(&mut s, "n1", JobState::Failed("BackoffLimitExceeded".into()));
    pod(&mut s, "n1", Role::Waiter, PodPhase::Running, None);
    let wanted = until_stable(&mut s);
    assert!(wanted.iter().any(|action| matches!(action, Action::DeletePod { .. })), "{wanted:?}");
    s.pods.clear();
    until_stable(&mut s);
    assert_eq!(
        (entry(&s, "n1").phase, entry(&s, "n1").reboot_status),
        (Phase::Failed, Some(RebootStatus::Cancelled))
    );
}

#[test]
fn an_entry_whose_job_is_gone_is_failed_and_not_run_again() {
    for phase in ["Pending", "Running"] {
        let mut s = in_progress(json!({}), json!({"phase": phase, "jobName": "op-n1-x7k2q"}));
        let wanted = until_stable(&mut s);
        assert_eq!(entry(&s, "n1").phase, Phase::Failed, "{phase}");
        assert!(makes(&wanted).is_empty(), "{wanted:?}");
    }
}

#[test]
fn nodes_that_it_had_not_begun_join_if_they_are_older_and_finished_ones_stay() {
    let mut s = world(
        json!({"rebootOnSuccess": true}),
        json!({"phase": "Running", "nodeStatuses": {
            "n1": {"phase": "Completed", "jobName": "op-n1-x7k2q", "rebootStatus": "completed"},
            "n2": {"phase": "Preflight"},
        }}),
    );
    pod(&mut s, "n2", Role::Preflight, PodPhase::Running, None);
    // Made for n3 before its Job: it waits for any sentinel of this NodeOp on the node, so it ends first.
    pod(&mut s, "n3", Role::Waiter, PodPhase::Running, None);
    let wanted = until_stable(&mut s);
    assert!(
        wanted
            .iter()
            .any(|action| matches!(action, Action::DeletePod { pod, .. } if pod.name.contains("waiter-n3"))),
        "{wanted:?}"
    );
    assert!(!entries(&s).contains_key("n3"), "not before");
    s.pods.retain(|_, pod| pod.role != Role::Waiter);
    let out = planned(&mut s);
    let nodes = status(&out).unwrap().node_statuses;
    let phases: Vec<(String, Phase)> = nodes.iter().map(|(name, node)| (name.clone(), node.phase)).collect();
    let expected = [("n1", Phase::Completed), ("n2", Phase::Pending), ("n3", Phase::Pending)]
        .map(|(name, phase)| (name.to_owned(), phase));
    assert_eq!(phases, expected, "n4 came later");
    assert!(
        out.actions.iter().any(
            |action| matches!(action, Action::DeletePod { pod, .. } if pod.name.contains("preflight-n2"))
        )
    );
    assert_eq!(nodes["n1"].reboot_status, Some(RebootStatus::Completed));
}
