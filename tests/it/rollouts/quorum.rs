//! When a control-plane node may go: the others are not only Ready, their etcd votes.

use std::sync::Arc;

use kairos_operator::plan::model::{
    action::Action,
    effects::Plan,
    question::{Answer, Question},
    snapshot::NodeView,
};
use serde_json::json;

use super::{Cluster, at, condition, job, key};

fn pods(node: &str) -> Question {
    Question::ControlPlanePods(node.into())
}

/// What stands on a node of kubeadm's whose control plane is well.
fn runs() -> Answer {
    Answer::Components(vec!["etcd".into(), "kube-apiserver".into()])
}

/// Two control-plane nodes, both known for long.
fn two() -> Cluster {
    let mut cluster = Cluster::new(&["c1", "c2"]);
    ["c1", "c2"].iter().for_each(|name| cluster.control_plane(name));
    cluster.planned();
    cluster
}

/// c2 boots, which nobody sees it away for.
fn booted(cluster: &mut Cluster) {
    cluster.node("c2", |node| node.boot_id = "b2".into());
    cluster.read_facts("c2");
    cluster.planned();
}

#[test]
fn where_the_distribution_says_whether_etcd_votes_that_counts() {
    let mut cluster = two();
    let said = "MemberIsLearner: not promoted";
    ["c1", "c2"].iter().for_each(|name| {
        cluster.node(name, |node| (node.etcd_votes, node.etcd_said) = (Some(false), said.into()));
    });
    cluster.op("op", json!({}));
    cluster.until_stable();
    assert_eq!(
        cluster.says("op", "c1"),
        format!("waiting: etcd of control-plane node c2 is not a healthy voting member: {said}")
    );
    assert!(
        cluster.message("op").starts_with("waiting: etcd of control-plane node c2"),
        "{}",
        cluster.message("op")
    );
    assert_eq!(condition(&cluster.status("op").conditions, "Progressing"), "True/Waiting");
    cluster.node("c2", |node| node.etcd_votes = Some(true));
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["c1"]);
}

/// RKE2 has both. Its condition is what etcd's leader counts, and may be old; of the API server it says
/// nothing.
#[test]
fn where_it_says_so_and_runs_it_in_static_pods_both_count() {
    let mut cluster = two();
    ["c1", "c2"].iter().for_each(|name| cluster.node(name, |node| node.etcd_votes = Some(true)));
    cluster.answers.insert(pods("c2"), Answer::NotReady(vec!["kube-apiserver-c2".into()]));
    cluster.op("op", json!({}));
    cluster.until_stable();
    let told = "waiting: pod kube-system/kube-apiserver-c2 of control-plane node c2 is not Ready";
    assert_eq!(cluster.says("op", "c1"), told);
    cluster.answers.insert(pods("c2"), runs());
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["c1"]);
}

#[test]
fn where_it_runs_in_static_pods_they_must_be_ready() {
    let mut cluster = two();
    cluster.answers.insert(pods("c2"), Answer::NotReady(vec!["etcd-c2".into()]));
    cluster.op("op", json!({}));
    let out = cluster.until_stable();
    assert_eq!(
        cluster.says("op", "c1"),
        "waiting: pod kube-system/etcd-c2 of control-plane node c2 is not Ready"
    );
    assert_eq!(
        out.wake_at,
        Some(cluster.s.now.checked_add(k8s_openapi::jiff::SignedDuration::from_secs(10)).unwrap()),
        "no watch tells"
    );
    cluster.answers.insert(pods("c2"), runs());
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["c1"]);
}

/// Its kubelet reaches the API server through another member, and is Ready.
#[test]
fn a_member_whose_static_pods_are_missing_is_not_well_however_long_it_is_ready() {
    let api_server = || Answer::Components(vec!["kube-apiserver".into()]);
    for (left, missing) in [(Answer::NotFound, "etcd"), (api_server(), "etcd")] {
        let mut cluster = Cluster::new(&["c1", "c2", "c3"]);
        ["c1", "c2", "c3"].iter().for_each(|name| cluster.control_plane(name));
        ["c1", "c2"].iter().for_each(|name| drop(cluster.answers.insert(pods(name), runs())));
        cluster.answers.insert(pods("c3"), left);
        cluster.op("op", json!({}));
        cluster.until_stable();
        cluster.wait(100);
        cluster.until_stable();
        assert_eq!(cluster.running("op"), [""; 0]);
        let told =
            format!("waiting: control-plane node c3 runs no {missing} pod, as c1 does; put its static pod");
        assert!(cluster.says("op", "c1").starts_with(&told), "{}", cluster.says("op", "c1"));
        cluster.answers.insert(pods("c3"), runs());
        cluster.until_stable();
        assert_eq!(cluster.running("op"), ["c1"]);
    }
    // Where etcd is outside, or on nodes of its own, nobody has it, or those that are marked so.
    let mut cluster = Cluster::new(&["c1", "c2", "e1"]);
    ["c1", "c2"].iter().for_each(|name| cluster.control_plane(name));
    cluster.label("e1", "node-role.kubernetes.io/etcd", "true");
    ["c1", "c2"].iter().for_each(|name| drop(cluster.answers.insert(pods(name), api_server())));
    cluster.answers.insert(pods("e1"), Answer::Components(vec!["etcd".into()]));
    cluster.op("op", json!({}));
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["c1"]);
}

/// With two members, the one that is to go tells what the other one lacks.
#[test]
fn a_member_is_compared_with_the_one_that_is_to_go_too() {
    let mut cluster = two();
    cluster.answers.insert(pods("c1"), runs());
    cluster.op("op", json!({}));
    cluster.until_stable();
    cluster.wait(100);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0], "{}", cluster.says("op", "c1"));
}

/// Right after a boot, what stands there may have been said before it.
#[test]
fn what_is_told_of_etcd_right_after_a_boot_is_not_believed_at_once() {
    for told in ["condition", "pods"] {
        let mut cluster = two();
        match told {
            "pods" => drop(cluster.answers.insert(pods("c2"), runs())),
            _ => cluster.node("c2", |node| node.etcd_votes = Some(true)),
        }
        cluster.planned();
        booted(&mut cluster);
        cluster.op("op", json!({}));
        cluster.step();
        cluster.step();
        cluster.wait(2);
        cluster.step();
        assert!(
            cluster.says("op", "c1").ends_with("10 s are waited for"),
            "{told}: {}",
            cluster.says("op", "c1")
        );
        cluster.wait(8);
        cluster.until_stable();
        assert_eq!(cluster.running("op"), ["c1"], "{told}");
    }
}

#[test]
fn where_nobody_tells_the_others_must_have_been_ready_for_a_minute() {
    let mut cluster = two();
    booted(&mut cluster);
    cluster.op("op", json!({}));
    cluster.step();
    cluster.step();
    cluster.wait(2);
    cluster.step();
    let said = cluster.says("op", "c1");
    assert!(
        said.starts_with("waiting: control-plane node c2 is Ready since ")
            && said.ends_with("; 60 s are waited for"),
        "{said}"
    );
    cluster.wait(57);
    cluster.step();
    assert_eq!(cluster.running("op"), [""; 0]);
    cluster.wait(1);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["c1"]);
}

/// Another leader has not seen for how long a node has been Ready.
#[test]
fn a_new_leader_counts_the_minute_anew() {
    let mut cluster = two();
    cluster.another_leader();
    cluster.op("op", json!({}));
    cluster.step();
    cluster.step();
    cluster.wait(2);
    cluster.step();
    assert!(cluster.says("op", "c1").ends_with("60 s are waited for"), "{}", cluster.says("op", "c1"));
    cluster.wait(60);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["c1"]);
}

#[test]
fn a_node_that_is_not_ready_is_named_and_workers_wait_behind() {
    let mut cluster = Cluster::new(&["c1", "c2", "w1"]);
    ["c1", "c2"].iter().for_each(|name| cluster.control_plane(name));
    cluster.node("c2", |node| node.ready = false);
    cluster.op("op", json!({"concurrency": 0}));
    cluster.until_stable();
    assert!(
        cluster.message("op").starts_with("waiting: control-plane node c2 is not Ready"),
        "{}",
        cluster.message("op")
    );
    assert_eq!(cluster.says("op", "w1"), "waiting for its turn, after a control-plane node");
    // What neither cordons nor reboots takes nobody away.
    cluster.op("look", json!({"cordon": false, "concurrency": 0}));
    cluster.until_stable();
    assert_eq!(cluster.running("look"), ["c1", "w1"]);
}

#[test]
fn a_member_of_etcd_alone_counts() {
    let mut cluster = Cluster::new(&["e1", "e2", "e3"]);
    ["e1", "e2", "e3"].iter().for_each(|name| cluster.label(name, "node-role.kubernetes.io/etcd", "true"));
    cluster.op("op", json!({"concurrency": 0}));
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["e1"]);
    assert!(cluster.says("op", "e2").contains("control-plane nodes go one at a time, and e1 is in progress"));
}

/// Cloud controllers delete the Node of a machine that is away. It is away all the same.
#[test]
fn a_node_that_reboots_counts_when_its_object_is_deleted_meanwhile() {
    for another in [false, true] {
        let mut cluster = two();
        cluster.op("op", json!({"rebootOnSuccess": true, "concurrency": 2}));
        cluster.until_stable();
        let entry = json!({"phase": "Running", "step": "Reboot", "nodeUid": "c1-uid", "jobUid": "ju", "boot": "b1", "machineId": "m1",
            "controlPlane": true, "rebootStatus": "pending", "deadline": format!("{:.0}", at(900))});
        cluster.entry("op", "c1", entry, true);
        cluster.entry("op", "c2", json!({"phase": if another { "Completed" } else { "Pending" }}), false);
        cluster.s.nodes.remove("c1");
        if another {
            cluster.op("other", json!({}));
        }
        cluster.until_stable();
        let (op, said) = if another {
            ("other", "NodeOp ns/op, which has control-plane node c1")
        } else {
            ("op", "c1 is in progress")
        };
        assert!(cluster.says(op, "c2").contains(said), "{}", cluster.says(op, "c2"));
        cluster.wait(1000);
        cluster.until_stable();
        assert_eq!(cluster.running(op), ["c2"], "c1 is given up by then");
    }
}

/// A machine that boots may get a new Node object, Ready at once, and its labels a moment later.
#[test]
fn a_member_whose_node_object_is_made_again_must_have_been_ready_for_a_minute() {
    let mut cluster = two();
    let c2 = Arc::clone(&cluster.s.nodes["c2"]);
    cluster.s.nodes.remove("c2");
    cluster.op("op", json!({}));
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0]);
    assert!(
        cluster.says("op", "c1").contains("the Node of control-plane node c2 was deleted at "),
        "{}",
        cluster.says("op", "c1")
    );
    cluster.wait(5);
    let mut again = NodeView { uid: "c2-again".into(), boot_id: "b2".into(), ..(*c2).clone() };
    let labels = std::mem::take(&mut again.labels);
    cluster.s.nodes.insert("c2".into(), again.into());
    cluster.read_facts("c2");
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0], "its labels come later");
    cluster.node("c2", |node| node.labels = labels.clone());
    cluster.wait(40);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0]);
    assert!(cluster.says("op", "c1").ends_with("60 s are waited for"), "{}", cluster.says("op", "c1"));
    cluster.wait(20);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["c1"]);
}

/// What goes away while a drain goes on asks nobody. Nothing of the operation has begun by then.
#[test]
fn a_node_that_is_claimed_is_not_disturbed_when_another_one_has_gone_away_since() {
    let makes = |out: &Plan| out.actions.iter().any(|action| matches!(action, Action::CreateJob { .. }));
    let lets_go = |out: &Plan| out.actions.iter().any(|action| matches!(action, Action::ResumeJob { .. }));
    for made in [false, true] {
        let mut cluster = two();
        cluster.op("op", json!({}));
        let out = cluster.until_stable();
        assert!(makes(&out), "c2 is well: {out:?}");
        if made {
            let name = cluster.status("op").node_statuses["c1"].job_name.clone().unwrap();
            cluster.s.jobs.insert(key(&name), Arc::new(job("op", "c1", &name, true)));
            assert!(lets_go(&cluster.until_stable()), "c2 is well");
        }
        cluster.node("c2", |node| node.ready = false);
        let out = cluster.until_stable();
        assert!(!makes(&out) && !lets_go(&out), "{out:?}");
        let said = "waiting: control-plane node c2 is not Ready, and a second one must not go away";
        assert!(cluster.says("op", "c1").starts_with(said), "{}", cluster.says("op", "c1"));
        cluster.node("c2", |node| node.ready = true);
        cluster.wait(30);
        let out = cluster.until_stable();
        assert!(!makes(&out) && !lets_go(&out), "Ready is not yet a member that votes: {out:?}");
        cluster.wait(60);
        let out = cluster.until_stable();
        assert!(makes(&out) || lets_go(&out), "{out:?}");
        // Those that are under way beside it, as the limit allows, are away because they are to be.
        cluster.s.config.control_plane_concurrency = 2;
        cluster.op("other", json!({}));
        cluster.entry(
            "other",
            "c2",
            json!({"phase": "Running", "step": "Job", "nodeUid": "c2-uid", "jobUid": "x"}),
            true,
        );
        cluster.node("c2", |node| node.ready = false);
        let out = cluster.planned();
        assert!(makes(&out) || lets_go(&out), "{out:?}");
    }
}
