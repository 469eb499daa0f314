//! Tests of operations whose time is over, and of nodes that people hold.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::names,
    plan::{
        fixtures::{self, at},
        model::{
            action::Action,
            effects::Plan,
            id::OpRef,
            question::{Answer, Question},
            snapshot::{ContainerState, ContainerView, NodeView, Owner, PodView, Role},
        },
        plan as plan_all,
    },
};

/// Nodes c1, of the control plane, and w1 and w2, of which those named are held; and one operation at second
/// 10.
fn world(spec: Value, entries: Value, held: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot { now: at(10), ..Snapshot::default() };
    for name in ["c1", "w1", "w2"] {
        let mut node = NodeView {
            name: name.into(),
            uid: name.into(),
            ready: true,
            boot_id: "b".into(),
            etcd_votes: name.starts_with('c').then_some(true),
            ..NodeView::default()
        };
        if name.starts_with('c') {
            node.labels.insert("node-role.kubernetes.io/control-plane".into(), String::new());
        }
        if held.contains(&name) {
            node.labels.insert(names::HOLD.into(), "true".into());
        }
        snapshot.nodes.insert(name.into(), Arc::new(node));
    }
    let mut all = json!({"command": ["true"], "concurrency": 1});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let op: NodeOp = serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "op", "namespace": "ns", "uid": "op", "generation": 1, "finalizers": [names::FINALIZER]},
        "spec": all,
        "status": {"phase": "Running", "observedGeneration": 1, "nodeStatuses": entries},
    }))
    .unwrap();
    let me = OpRef::of(&op);
    snapshot.answers.insert(Question::ControlPlanePods("c1".into()), Answer::NotFound);
    for node in ["c1", "w1", "w2"] {
        snapshot.answers.insert(Question::Admission(me.clone(), node.into()), Answer::Found);
    }
    snapshot.ops.insert(me.key(), Arc::new(op));
    snapshot
}

fn written(out: &Plan) -> Option<NodeOpStatus> {
    out.actions.iter().find_map(|action| match action {
        Action::PatchStatus { status, .. } => Some(status.as_ref().clone()),
        _ => None,
    })
}

fn reason_of(status: &NodeOpStatus, type_: &str) -> (String, String) {
    let found = status.conditions.iter().find(|one| one.type_ == type_).unwrap();
    (found.status.clone(), found.reason.clone())
}

/// The pod of a node's preflight, whose check runs, or cannot start.
fn preflight_pod(snapshot: &mut Snapshot, node: &str, runs: bool) {
    let op = Op::of(&snapshot.ops[&("ns".to_owned(), "op".to_owned())]);
    let state = if runs {
        ContainerState::Running { since: at(0) }
    } else {
        ContainerState::Waiting { reason: "ErrImagePull".into(), message: String::new() }
    };
    let name = op.object_name(node, "preflight", 0);
    let pod = PodView {
        name: name.clone(),
        containers: vec![ContainerView::new(names::container::PREFLIGHT, state)],
        ..fixtures::pod(Role::Preflight, "p", Owner::nodeop("op", "op"), node)
    };
    snapshot.pods.insert(("ns".into(), name), Arc::new(pod));
}

/// Its preflight has passed.
fn pending() -> Value {
    json!({"phase": "Pending", "boot": "b"})
}

fn works(node: &str) -> Value {
    json!({"phase": "Running", "step": "Job", "jobName": "j", "jobUid": "ju", "nodeUid": node, "boot": "b"})
}

#[test]
fn after_its_time_nothing_is_started_and_what_is_in_progress_ends() {
    let (done, skipped) = (
        json!({"phase": "Completed", "jobName": "j"}),
        json!({"phase": "Completed", "message": "Skipped by preflight: is there"}),
    );
    let failed = json!({"phase": "Failed", "message": "no"});
    for (entries, phase, ready, message) in [
        (
            json!({"w1": pending(), "w2": pending()}),
            Phase::Completed,
            "True",
            "no node was taken; nothing more is started: its time was over",
        ),
        (json!({"w1": skipped.clone(), "w2": pending()}), Phase::Completed, "True", "no node was taken"),
        (
            json!({"w1": done.clone(), "w2": pending()}),
            Phase::Failed,
            "False",
            "1 was not started: its time was over",
        ),
        (json!({"w1": failed, "w2": pending()}), Phase::Failed, "False", "1 was not started"),
        (
            json!({"w1": works("w1"), "w2": pending()}),
            Phase::Running,
            "False",
            "nothing more is started: its time was over",
        ),
    ] {
        let out = plan_all(&world(json!({"notAfter": Time(at(10))}), entries.clone(), &[]));
        let status = written(&out).unwrap();
        assert_eq!(status.phase, Some(phase), "{entries}");
        let said = status.message.clone().unwrap();
        assert!(said.contains(message), "{said}");
        assert_eq!(reason_of(&status, "Ready"), (ready.into(), "Expired".into()), "{entries}");
    }
    // Done in time, and over since.
    let over = plan_all(&world(json!({"notAfter": Time(at(10))}), json!({"w1": done, "w2": skipped}), &[]));
    let status = written(&over).unwrap();
    assert_eq!((status.phase, reason_of(&status, "Ready").1), (Some(Phase::Completed), "Completed".into()));
}

#[test]
fn an_operation_is_looked_at_again_when_its_time_is_over() {
    let spec = json!({"notAfter": Time(at(1000))});
    let out = plan_all(&world(spec.clone(), json!({"w1": works("w1"), "w2": pending()}), &[]));
    assert!(out.wake_at.is_some_and(|wake| wake <= at(1000)), "{:?}", out.wake_at);
    // It has no node yet, and waits for one until then.
    let mut empty = world(spec, json!({}), &[]);
    let op = Arc::make_mut(empty.ops.get_mut(&("ns".into(), "op".into())).unwrap());
    (op.spec.node_selector, op.status.as_mut().unwrap().phase) =
        (serde_json::from_value(json!({"matchLabels": {"a": "b"}})).unwrap(), Some(Phase::Pending));
    let out = plan_all(&empty);
    assert_eq!(out.wake_at, Some(at(1000)));
    // Nothing was done, and nothing will be: that is no success.
    empty.now = at(1000);
    let status = written(&plan_all(&empty)).unwrap();
    assert_eq!(
        (status.phase, reason_of(&status, "Complete"), reason_of(&status, "Progressing")),
        (Some(Phase::Pending), ("False".into(), "NoNodes".into()), ("True".into(), "NoNodes".into()))
    );
    let said = status.message.clone().unwrap();
    assert!(said.contains("no node matches nodeSelector a=b") && said.contains("its time is over"), "{said}");
    // A node that matches later is not taken, and makes no success of it.
    let op = Arc::make_mut(empty.ops.get_mut(&("ns".into(), "op".into())).unwrap());
    op.status = Some(status);
    op.spec.node_selector = serde_json::from_value(json!({"matchLabels": {}})).unwrap();
    assert!(written(&plan_all(&empty)).is_none_or(|status| status.phase == Some(Phase::Pending)));
}

#[test]
fn a_node_that_people_hold_is_left_alone_and_holds_up_nobody() {
    let entries = || json!({"c1": pending(), "w1": pending()});
    let out = plan_all(&world(json!({}), entries(), &["c1"]));
    let status = written(&out).unwrap();
    let phase = |node: &str| status.node_statuses[node].phase;
    assert_eq!((phase("c1"), phase("w1")), (Phase::Pending, Phase::Running), "the next one is taken");
    let said = status.message.clone().unwrap();
    assert!(said.ends_with("; c1 held by the label kairos.io/hold"), "{said}");

    // Nothing else is left: it waits, and says for what.
    let out = plan_all(&world(
        json!({}),
        json!({"w1": {"phase": "Completed", "jobName": "j"}, "w2": pending()}),
        &["w2"],
    ));
    let status = written(&out).unwrap();
    assert_eq!((status.phase, reason_of(&status, "Progressing").1), (Some(Phase::Running), "OnHold".into()));
    assert_eq!(reason_of(&status, "Ready").0, "False");
    let event = |action: &Action| matches!(action, Action::PatchStatus { notices, .. } if notices.iter().any(|one| one.reason == "OnHold" && !one.warning));
    assert!(out.actions.iter().any(event));
    let out = plan_all(&world(json!({}), json!({"w2": pending()}), &[]));
    assert_eq!(out.why(&("ns".into(), "op".into()), "w2"), None, "until it is let go");
}

#[test]
fn on_a_node_that_people_hold_there_is_no_preflight_and_what_is_in_progress_goes_on() {
    let check = json!({"preflight": {"command": ["check"]}});
    let new = json!({"phase": "Pending"});
    let held = plan_all(&world(check.clone(), json!({"w1": new, "w2": new}), &["w1"]));
    let status = written(&held).unwrap();
    let phase = |node: &str| status.node_statuses[node].phase;
    assert_eq!((phase("w1"), phase("w2")), (Phase::Pending, Phase::Preflight));
    // One that runs is cancelled, and a verdict is not believed any more.
    let asking = json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b"});
    let passed = json!({"phase": "Pending", "boot": "b"});
    let out = plan_all(&world(check, json!({"w1": asking, "w2": passed}), &["w1", "w2"]));
    let status = written(&out).unwrap();
    assert!(
        status.node_statuses.values().all(|node| node.phase == Phase::Pending && node.boot.is_none()),
        "{status:?}"
    );
    assert!(!out.actions.iter().any(|action| matches!(action, Action::CreatePreflightPod { .. })));

    let out = plan_all(&world(json!({}), json!({"w1": works("w1")}), &["w1"]));
    assert!(
        out.questions.contains(&Question::Job(("ns".into(), "j".into()))),
        "it is worked on: {:?}",
        out.questions
    );
}

/// Of an operation that disturbs nobody the node that has the image speaks for the others.
#[test]
fn nodes_are_asked_for_the_image_until_one_has_it_or_each_that_is_to_be_disturbed() {
    let next = |spec: Value, w1: Value, boot: Option<&str>| {
        let w2 = json!({"phase": "Pending", "boot": boot});
        let mut all = json!({"concurrency": 2});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let out = plan_all(&world(all, json!({"w1": w1, "w2": w2}), &[]));
        let entry = written(&out).unwrap().node_statuses["w2"].clone();
        (entry.phase, entry.boot.filter(|_| entry.phase == Phase::Running))
    };
    let (plain, cordons) = (json!({}), json!({"cordon": true}));
    let asked = (Phase::Preflight, None);
    assert_eq!(next(plain.clone(), json!({"phase": "Pending"}), None), asked);
    assert_eq!(next(plain.clone(), works("w1"), None), (Phase::Running, None));
    assert_eq!(next(cordons, works("w1"), None), asked);
    // What was found out in an earlier boot is not kept: it would be asked again at once.
    assert_eq!(next(plain, works("w1"), Some("a")), (Phase::Running, None));
}

/// "All at once" did nothing for half an hour where control-plane nodes have no way to the registry.
#[test]
fn an_operation_that_disturbs_nobody_does_not_wait_behind_control_plane_nodes() {
    let asking = json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b"});
    let new = json!({"phase": "Pending"});
    let phases = |spec: Value, c1: &Value, change: fn(&mut Snapshot)| {
        let mut snapshot = world(spec, json!({"c1": c1, "w1": pending(), "w2": new}), &[]);
        change(&mut snapshot);
        let status = written(&plan_all(&snapshot)).unwrap();
        ["c1", "w1", "w2"].map(|node| status.node_statuses[node].phase)
    };
    let as_it_is: fn(&mut Snapshot) = |_| ();
    let claimed: fn(&mut Snapshot) = |snapshot| {
        let other = OpRef { namespace: "ns".into(), name: "other".into(), uid: "other".into() };
        Arc::make_mut(snapshot.nodes.get_mut("c1").unwrap()).claimed_by = Some(other);
    };
    let (plain, cordons) = (json!({"concurrency": 0}), json!({"concurrency": 0, "cordon": true}));
    let (pending, preflight, running) = (Phase::Pending, Phase::Preflight, Phase::Running);
    // One that has the image speaks for those that nobody has looked at.
    assert_eq!(phases(plain.clone(), &asking, as_it_is), [preflight, running, running]);
    assert_eq!(phases(plain, &new, claimed), [pending, running, running]);
    let checks = json!({"concurrency": 0, "preflight": {"command": ["check"]}});
    assert_eq!(phases(checks, &asking, as_it_is), [preflight, running, preflight], "each speaks for itself");
    // Where nodes are taken out of service the order is a promise.
    assert_eq!(phases(cordons, &asking, as_it_is), [preflight, pending, preflight]);
}

/// One that pulls for hours, or gets no image, is looked at on and on, and keeps no other from it for as long.
#[test]
fn a_preflight_that_is_kept_from_its_start_does_not_keep_others_from_theirs() {
    let cordons = json!({"cordon": true, "preflightConcurrency": 1, "pullTimeoutSeconds": 300});
    let with = |field: &str, value: Value| {
        let mut spec = cordons.clone();
        spec[field] = value;
        spec
    };
    for (spec, seconds, begun, next) in [
        (cordons.clone(), 299, false, Phase::Pending),
        (cordons.clone(), 300, false, Phase::Preflight),
        (cordons.clone(), 300, true, Phase::Pending),
        (with("cordon", json!(false)), 59, false, Phase::Pending),
        // One that has the image would speak for all.
        (with("cordon", json!(false)), 60, false, Phase::Preflight),
        (with("preflight", json!({"command": ["check"]})), 60, false, Phase::Pending),
    ] {
        let asking =
            json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b", "lastUpdated": Time(at(10))});
        let mut snapshot = world(spec.clone(), json!({"w1": asking, "w2": {"phase": "Pending"}}), &[]);
        preflight_pod(&mut snapshot, "w1", begun);
        snapshot.now = at(10 + seconds);
        let out = plan_all(&snapshot);
        let phase = written(&out).map_or(Phase::Pending, |status| status.node_statuses["w2"].phase);
        assert_eq!(phase, next, "{spec} after {seconds} s, begun: {begun}");
        assert!(begun || next == Phase::Preflight || out.wake_at.is_some(), "it is looked at again");
    }
}

/// A quota of five pods, of which three look for an image that is not there, while a drained node has no Job.
#[test]
fn what_is_ahead_of_its_turn_gives_way_to_a_node_in_progress() {
    let asking =
        json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b", "lastUpdated": Time(at(10))});
    let entries = json!({"c1": {"phase": "Pending"}, "w1": works("w1"), "w2": asking});
    for (starves, begun, phases) in [
        (false, false, [Phase::Preflight, Phase::Preflight]),
        (true, false, [Phase::Pending, Phase::Pending]),
        (true, true, [Phase::Pending, Phase::Preflight]),
    ] {
        let mut snapshot = world(json!({"cordon": true}), entries.clone(), &[]);
        preflight_pod(&mut snapshot, "w2", begun);
        if starves {
            let me = OpRef::of(&snapshot.ops[&("ns".to_owned(), "op".to_owned())]);
            let quota = Answer::NotYet("exceeded quota: pods".into());
            snapshot.answers.insert(Question::Admission(me, "w1".into()), quota);
        }
        let status = written(&plan_all(&snapshot)).unwrap();
        assert_eq!(["c1", "w2"].map(|node| status.node_statuses[node].phase), phases, "{starves} {begun}");
    }
}

/// A registry's token expires, and a kubelet removes what no container uses: the word of last week proves
/// nothing any more.
#[test]
fn a_preflight_that_passed_long_ago_is_asked_again_before_its_node_is_taken() {
    for (spec, seconds, w1) in [
        (json!({"cordon": true}), 3599, Phase::Running),
        (json!({"cordon": true}), 3600, Phase::Preflight),
        (json!({}), 3600, Phase::Running),
        (json!({"cordon": true, "paused": true}), 3600, Phase::Pending),
    ] {
        let passed = json!({"phase": "Pending", "boot": "b", "lastUpdated": Time(at(10))});
        let mut snapshot = world(spec.clone(), json!({"w1": passed}), &[]);
        snapshot.now = at(10 + seconds);
        let out = plan_all(&snapshot);
        let status = written(&out).unwrap();
        assert_eq!(status.node_statuses["w1"].phase, w1, "{spec} after {seconds} s");
        // While it waits it is not asked, and another slot's node is no matter of its age.
        let works = world(spec.clone(), json!({"w1": works("w1"), "w2": passed}), &[]);
        let out = plan_all(&Snapshot { now: at(10 + seconds), ..works });
        let w2 = written(&out).map_or(Phase::Pending, |status| status.node_statuses["w2"].phase);
        assert_eq!(w2, Phase::Pending, "{spec}");
    }
}
