//! What is said of an operation that waits, and by which tools that wait know it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kairos_operator::{
    api::{names, nodeop::Phase, upgrade::UpgradePhase},
    plan::model::{
        action::Action,
        id::OpRef,
        question::{Answer, Question},
        snapshot::{Owner, PodPhase, PodView, Role},
    },
};
use serde_json::{Value, json};

use super::{Cluster, at, condition, key};

#[test]
fn a_paused_operation_takes_nothing_and_goes_on_when_it_is_resumed() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.op("op", json!({"paused": true, "preflight": {"command": ["true"]}}));
    cluster.until_stable();
    let status = cluster.status("op");
    assert_eq!((status.phase, cluster.targets("op").len()), (Some(Phase::Pending), 0));
    let said = "paused: its nodes are chosen when spec.paused is false; 2 nodes match now";
    assert_eq!(status.message.as_deref(), Some(said));
    let of = |type_| condition(&status.conditions, type_);
    assert_eq!((of("Progressing"), of("Ready")), ("True/Paused".into(), "False/Paused".into()));
    assert_eq!((of("Reconciling"), of("Stalled")), ("True/Paused".into(), String::new()));
    assert_eq!(
        (cluster.events.clone(), status.counts.unwrap().current),
        (vec![("op".to_owned(), "Paused")], "(paused)".into())
    );
    cluster.join("n3");
    cluster.edit("op", |op| op.spec.paused = Some(false));
    cluster.step();
    assert_eq!(cluster.targets("op"), ["n1", "n2", "n3"], "what joined meanwhile is one of its nodes");
    cluster.edit("op", |op| op.spec.paused = Some(true));
    cluster.until_stable();
    let waits = ["n1", "n2", "n3"].map(|node| cluster.says("op", node));
    assert_eq!(waits, ["waiting: paused (spec.paused)"; 3], "none is looked at");
    assert!(cluster.message("op").starts_with("paused: nothing new is started"), "{}", cluster.message("op"));
    cluster.edit("op", |op| op.spec.paused = Some(false));
    cluster.until_stable();
    assert_eq!(cluster.status("op").node_statuses["n1"].phase, Phase::Preflight);
}

#[test]
fn nodes_that_are_worked_on_go_on_while_it_is_paused() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.op("op", json!({}));
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["n1"]);
    cluster.edit("op", |op| op.spec.paused = Some(true));
    let out = cluster.until_stable();
    assert!(
        out.actions.iter().any(|action| matches!(action, Action::CreateJob { node, .. } if node == "n1")),
        "{:?}",
        out.actions
    );
    let status = cluster.status("op");
    assert_eq!(
        (status.phase, condition(&status.conditions, "Progressing")),
        (Some(Phase::Running), "True/Paused".into())
    );
    assert!(status.message.as_ref().unwrap().contains("1 in progress"), "{status:?}");
    assert_eq!(status.counts.unwrap().current, "n1 (paused)", "that is a column of kubectl get");
    // Its node is done: the next one is not taken.
    cluster.entry(
        "op",
        "n1",
        json!({"phase": "Completed", "message": "Job completed successfully", "nodeUid": "n1-uid"}),
        true,
    );
    cluster.until_stable();
    assert_eq!(
        (cluster.running("op").len(), cluster.says("op", "n2")),
        (0, "waiting: paused (spec.paused)".into())
    );
    cluster.edit("op", |op| op.spec.paused = None);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["n2"]);
}

#[test]
fn an_operation_that_waits_behind_another_is_pending_and_says_for_which() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.op("first", json!({"concurrency": 0}));
    cluster.until_stable();
    cluster.op("second", json!({"cordon": false}));
    cluster.until_stable();
    let status = cluster.status("second");
    assert_eq!((status.phase, cluster.status("first").phase), (Some(Phase::Pending), Some(Phase::Running)));
    assert_eq!(cluster.says("second", "n1"), "waiting for NodeOp ns/first, which has claimed the node");
    assert!(
        status
            .message
            .unwrap()
            .starts_with("waiting for NodeOp ns/first, which has claimed the node (node n1)")
    );
    assert_eq!(condition(&status.conditions, "Progressing"), "True/Waiting");
    assert_eq!(cluster.events, [("first".to_owned(), "Started")]);
    // Both at once: the one that was planned first has the node.
    let mut cluster = Cluster::new(&["n1"]);
    ["first", "second"].iter().for_each(|name| cluster.op(name, json!({})));
    cluster.step();
    cluster.step();
    cluster.wait(2);
    cluster.step();
    assert_eq!(
        (cluster.status("first").phase, cluster.status("second").phase),
        (Some(Phase::Running), Some(Phase::Pending))
    );
    assert!(
        cluster.says("second", "n1").starts_with("waiting for NodeOp ns/first"),
        "{}",
        cluster.says("second", "n1")
    );
}

/// A node that is done, and whose Job's pod has not ended.
#[test]
fn a_node_that_is_done_and_not_released_has_a_reason() {
    for phase in ["Completed", "Failed"] {
        let mut cluster = Cluster::new(&["n1", "n2"]);
        cluster.op("op", json!({}));
        cluster.until_stable();
        cluster.entry("op", "n1", json!({"phase": phase, "message": "as it was", "nodeUid": "n1-uid"}), true);
        let job = cluster.status("op").node_statuses["n1"].job_name.clone().unwrap();
        let pod = PodView {
            namespace: "ns".into(),
            name: "slow".into(),
            uid: "slow".into(),
            owner: Owner::job(&job, "ju"),
            role: Role::Job,
            node: "n1".into(),
            phase: PodPhase::Running,
            reason: String::new(),
            deleting: false,
            created: at(0),
            attempt: 0,
            reboot_state: None,
            waits_in: None,
            containers: vec![],
        };
        cluster.s.pods.insert(key("slow"), Arc::new(pod));
        cluster.until_stable();
        let said = "node n1 is not released yet: waiting for pod ns/slow to end";
        assert!(cluster.why("op", "n1").starts_with(said), "{:?}", cluster.waiting);
        assert!(cluster.message("op").starts_with(said), "{}", cluster.message("op"));
        assert_eq!(
            (cluster.says("op", "n1"), cluster.says("op", "n2")),
            ("as it was".into(), "waiting for its turn".into())
        );
    }
}

#[test]
fn a_preflight_of_a_node_that_no_cache_shows_is_not_forgotten() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.op("op", json!({"preflight": {"command": ["true"]}}));
    cluster.until_stable();
    cluster.entry(
        "op",
        "n1",
        json!({"phase": "Preflight", "step": "Preflight", "attempt": 3, "newBoot": "b1"}),
        false,
    );
    let there = cluster.s.nodes.remove("n1").unwrap();
    let out = kairos_operator::plan::plan(&cluster.s);
    assert!(
        !out.questions.contains(&Question::Node("n1".into())),
        "n2 is to be waited for: {:?}",
        out.questions
    );
    let forgets = |action: &Action| {
        let Action::PatchStatus { status, .. } = action else { return false };
        status.node_statuses["n1"].attempt != Some(3)
    };
    assert!(!out.actions.iter().any(forgets), "it is only not seen: {:?}", out.actions);
    cluster.s.nodes.insert("n1".into(), there);
    let out = cluster.planned();
    let name = kairos_operator::plan::model::object_name::object(("op", "op"), "n1", "preflight", 3);
    assert!(
        out.actions
            .iter()
            .any(|action| matches!(action, Action::CreatePreflightPod { name: made, .. } if *made == name)),
        "{:?}",
        out.actions
    );
    // It is gone, and may be back before the other one is done; confirmed to be gone after that, it needs
    // nothing.
    cluster.s.nodes.remove("n1");
    cluster.until_stable();
    let entry = cluster.status("op").node_statuses["n1"].clone();
    assert_eq!(entry.phase, Phase::Pending);
    assert!(entry.message.unwrap().starts_with("waiting: the Node object is gone;"));
    cluster.entry("op", "n2", json!({"phase": "Completed"}), false);
    cluster.until_stable();
    assert_eq!(cluster.status("op").node_statuses["n1"].phase, Phase::Completed);
}

#[test]
fn an_upgrade_that_touched_nothing_is_not_verified() {
    let upgrade = json!({"image": "kairos:v2", "concurrency": 1});
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.upgrade(upgrade);
    // Looked at before anything is made for it.
    cluster.until_stable();
    let me = OpRef::of(&cluster.s.ops[&key("up")]);
    cluster.entry("up", "n1", json!({"phase": "Pending"}), false);
    cluster
        .answers
        .insert(Question::Admission(me, "n1".into()), Answer::Refused("violates PodSecurity".into()));
    cluster.until_stable();
    let status = cluster.status("up");
    assert_eq!(
        (status.phase, condition(&status.conditions, "Verified")),
        (Some(Phase::Failed), "Unknown/NotStarted".into()),
        "{status:?}"
    );
    assert_eq!(
        (condition(&status.conditions, "Ready"), condition(&status.conditions, "Stalled")),
        ("False/Failed".into(), "True/Failed".into())
    );
    let up = cluster.upgrade_status();
    assert_eq!(
        (up.phase, condition(&up.conditions, "Verified")),
        (Some(UpgradePhase::Failed), "Unknown/NotStarted".into())
    );
    let said: Vec<_> =
        cluster.events.iter().filter(|(about, _)| about == "upgrade up").map(|(_, reason)| *reason).collect();
    assert_eq!(said, ["Failed"]);
}

#[test]
fn a_recovery_image_that_was_written_is_not_one_that_booted() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.upgrade(json!({"image": "kairos:v2", "upgradeActive": false, "upgradeRecovery": true}));
    cluster.until_stable();
    cluster.entry("up", "n1", json!({"phase": "Completed", "rebootStatus": "not-requested"}), true);
    cluster.until_stable();
    let status = cluster.status("up");
    assert_eq!(
        (status.phase, condition(&status.conditions, "Verified")),
        (Some(Phase::Completed), "Unknown/NotRebooted".into())
    );
    assert_eq!(
        (condition(&status.conditions, "Ready"), condition(&status.conditions, "Complete")),
        ("True/Completed".into(), "True/Completed".into())
    );
}

#[test]
fn a_recovery_image_is_proved_by_the_record_of_every_node_that_got_it() {
    let said = |second: Value| {
        let mut cluster = Cluster::new(&["n1", "n2"]);
        cluster.upgrade(json!({"image": "kairos:v2", "upgradeActive": false, "upgradeRecovery": true}));
        cluster.until_stable();
        let done =
            json!({"phase": "Completed", "rebootStatus": "not-requested", "jobName": "j", "verified": true});
        cluster.entry("up", "n1", done, true);
        cluster.entry("up", "n2", second, false);
        cluster.until_stable();
        condition(&cluster.status("up").conditions, "Verified")
    };
    let node = |more: Value| {
        let mut entry =
            json!({"phase": "Completed", "rebootStatus": "not-requested", "lastUpdated": Time(at(0))});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    assert_eq!(said(node(json!({"jobName": "j", "verified": true}))), "True/Recorded");
    assert_eq!(said(node(json!({"message": "Skipped: the node does not run Kairos"}))), "True/Recorded");
    assert_eq!(said(node(json!({"jobName": "j"}))), "Unknown/NotRebooted");
    assert_eq!(
        said(json!({"phase": "Completed"})),
        "Unknown/NotRebooted",
        "what is kept of one of thousands"
    );
}

#[test]
fn an_upgrade_whose_name_is_taken_says_so_in_an_event_once() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.op("up", json!({}));
    cluster.upgrade(json!({"image": "kairos:v2"}));
    cluster.until_stable();
    cluster.until_stable();
    let up = cluster.upgrade_status();
    assert_eq!(
        (up.phase, condition(&up.conditions, "Progressing")),
        (Some(UpgradePhase::Initializing), "True/NameTaken".into())
    );
    assert_eq!(
        (condition(&up.conditions, "Stalled"), condition(&up.conditions, "Reconciling")),
        ("True/NameTaken".into(), String::new())
    );
    let said: Vec<_> = cluster.events.iter().filter(|(about, _)| about == "upgrade up").collect();
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn every_condition_says_which_generation_it_follows() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.label("n1", names::HOLD, "true");
    cluster.upgrade(json!({"image": "kairos:v2"}));
    cluster.until_stable();
    let follows = |cluster: &Cluster, generation: i64| {
        let (op, up) = (cluster.status("up"), cluster.upgrade_status());
        let all = op.conditions.iter().chain(&up.conditions).map(|condition| condition.observed_generation);
        assert!(
            all.chain([op.observed_generation, up.observed_generation])
                .all(|observed| observed == Some(generation)),
            "{op:?} {up:?}"
        );
    };
    follows(&cluster, 1);
    cluster.edit("up", |op| op.metadata.generation = Some(2));
    Arc::make_mut(cluster.s.upgrades.get_mut(&key("up")).unwrap()).metadata.generation = Some(2);
    cluster.until_stable();
    follows(&cluster, 2);
    cluster.edit("up", |op| op.metadata.deletion_timestamp = Some(Time(at(0))));
    cluster.until_stable();
    assert_eq!(cluster.status("up").phase, Some(Phase::Failed));
}
