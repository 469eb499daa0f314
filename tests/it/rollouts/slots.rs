//! How many nodes may be down: failed ones that are out of service count, until they are back.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use kairos_operator::{
    api::{names, nodeop::Phase},
    plan::model::{id::OpRef, kept_cordon::KeptCordon},
};
use serde_json::{Value, json};

use super::{Cluster, at, condition, key};

fn failed() -> Value {
    json!({"phase": "Failed", "rebootStatus": "not-requested", "message": "Job failed", "nodeUid": "n1-uid"})
}

/// n1 failed under the operation, which holds it still, as it was cordoned then; n2 and n3 wait.
pub fn one_failed(spec: Value, cordoned: bool) -> Cluster {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]);
    cluster.op("op", spec);
    cluster.entry("op", "n1", failed(), true);
    ["n2", "n3"].iter().for_each(|name| cluster.entry("op", name, json!({"phase": "Pending"}), false));
    cluster.edit("op", |op| {
        let status = op.status.as_mut().unwrap();
        (status.phase, status.observed_generation) = (Some(Phase::Running), Some(1));
    });
    let me = OpRef::of(&cluster.s.ops[&key("op")]);
    cluster.node("n1", |node| {
        (node.claimed_by, node.unschedulable) = (Some(me.clone()), cordoned);
        node.cordoned_by = Some(me).filter(|_| cordoned);
    });
    cluster
}

#[test]
fn with_one_slot_a_bad_image_takes_one_node() {
    let mut cluster = one_failed(json!({}), true);
    cluster.until_stable();
    cluster.wait(86_400);
    cluster.another_leader();
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0]);
    let status = cluster.status("op");
    assert_eq!(status.phase, Some(Phase::Running));
    let why = "waiting: node n1 failed and is still cordoned; kubectl uncordon n1 when it is well; 0 of 3";
    assert!(status.message.unwrap().starts_with(why), "what is to be done is said once");
    let all_wait = |cluster: &Cluster| {
        let why = "waiting: nodes out of service hold every slot";
        assert_eq!(["n2", "n3"].map(|node| cluster.says("op", node)), [why, why]);
    };
    all_wait(&cluster);
    assert_eq!(condition(&status.conditions, "Progressing"), "True/NodesOutOfService");
    assert_eq!(condition(&status.conditions, "Stalled"), "", "it goes on by itself when somebody has helped");
    assert_eq!(condition(&status.conditions, "Reconciling"), "True/NodesOutOfService");
    assert!(cluster.why("op", "n1").contains("uncordon"), "the final entry has a reason as well");
    assert_eq!(cluster.events, [("op".to_owned(), "NodesOutOfService")]);
    // Its kubelet comes and goes: that is told of it, and no entry of the thousands that wait is written
    // anew.
    cluster.node("n1", |node| (node.unschedulable, node.ready) = (false, false));
    cluster.until_stable();
    assert!(cluster.message("op").starts_with("waiting: node n1 failed and is not Ready; "));
    all_wait(&cluster);
    cluster.node("n1", |node| (node.unschedulable, node.ready) = (true, true));
    cluster.until_stable();
    all_wait(&cluster);
    cluster.wait(60);
    cluster.node("n1", |node| node.unschedulable = false);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["n2"]);
    assert_eq!(condition(&cluster.status("op").conditions, "Stalled"), "");
    cluster.node("n1", |node| node.unschedulable = true);
    cluster.until_stable();
    assert_eq!(
        cluster.status("op").node_statuses["n1"].holds_slot,
        None,
        "a later cordon is none of the operation's"
    );
}

#[test]
fn what_frees_the_slot_of_a_failed_node() {
    for (what, taken) in [
        ("nothing", vec![]),
        ("deleted", vec!["n2"]),
        ("uncordonOnFailure", vec!["n2"]),
        ("uncordonOnFailure, and it is not Ready", vec![]),
        ("no cordon was asked for", vec!["n2"]),
        ("two slots", vec!["n2"]),
        ("no limit", vec!["n2", "n3"]),
        ("it was not touched", vec!["n2"]),
    ] {
        let spec = match what {
            "uncordonOnFailure" | "uncordonOnFailure, and it is not Ready" => {
                json!({"uncordonOnFailure": true})
            }
            "no cordon was asked for" => json!({"cordon": false}),
            "two slots" => json!({"concurrency": 2}),
            "no limit" => json!({"concurrency": 0}),
            _ => json!({}),
        };
        let mut cluster = one_failed(spec, what != "no cordon was asked for");
        match what {
            "it was not touched" => cluster.edit("op", |op| {
                op.status.as_mut().unwrap().node_statuses.update("n1", |entry| entry.job_name = None);
            }),
            "uncordonOnFailure, and it is not Ready" => cluster.node("n1", |node| node.ready = false),
            _ => {}
        }
        cluster.until_stable();
        if what == "deleted" {
            cluster.s.nodes.remove("n1");
            cluster.until_stable();
        }
        assert_eq!(cluster.running("op"), taken, "{what}: {}", cluster.message("op"));
    }
}

/// An image may come up, and not stay so: the next node would follow the first one down.
#[test]
fn a_node_that_is_not_ready_soon_after_it_was_done_holds_its_slot_until_it_is() {
    let done = |ago: i64| {
        let mut cluster = one_failed(json!({}), false);
        let entry = json!({"phase": "Completed", "rebootStatus": "completed", "lastUpdated": Time(at(-ago))});
        cluster.entry("op", "n1", entry, true);
        cluster.node("n1", |node| node.claimed_by = None);
        cluster
    };
    for (ago, is_ready, taken) in
        [(1, true, vec!["n2"]), (1, false, vec![]), (599, false, vec![]), (601, false, vec!["n2"])]
    {
        let mut cluster = done(ago);
        cluster.node("n1", |node| node.ready = is_ready);
        cluster.until_stable();
        assert_eq!(cluster.running("op"), taken, "{ago} {is_ready}: {}", cluster.message("op"));
    }
    // It is not given back yet, and goes down meanwhile.
    let mut cluster = done(1);
    cluster.edit("op", |op| {
        let nodes = &mut op.status.as_mut().unwrap().node_statuses;
        nodes.update("n1", |entry| entry.node_uid = Some("n1-uid".into()));
    });
    cluster.node("n1", |node| node.ready = false);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0]);
    let why = "waiting: node n1 was done, and is not Ready since; ";
    assert!(cluster.message("op").starts_with(why), "{}", cluster.message("op"));
    // However long it takes, and whoever leads.
    cluster.wait(86_400);
    cluster.another_leader();
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0]);
    cluster.node("n1", |node| node.ready = true);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0], "it may go down again");
    cluster.wait(60);
    cluster.until_stable();
    assert_eq!(cluster.running("op"), ["n2"]);
    // Later it is none of the operation's doing.
    cluster.wait(86_400);
    cluster.node("n1", |node| node.ready = false);
    cluster.until_stable();
    assert_eq!(cluster.status("op").node_statuses["n1"].holds_slot, None);
}

/// One report of a kubelet is no recovery: the link of a node may flap.
#[test]
fn the_slot_of_a_node_that_was_away_is_free_once_it_has_been_ready_for_a_while() {
    for (min_ready, waits) in [(0, 60), (10, 60), (120, 120)] {
        let mut cluster = one_failed(json!({"uncordonOnFailure": true, "minReadySeconds": min_ready}), true);
        cluster.node("n1", |node| node.ready = false);
        cluster.until_stable();
        for is_back in [false, false, true] {
            cluster.node("n1", |node| node.ready = true);
            let (since, until) = (cluster.s.now, cluster.later(waits));
            cluster.until_stable();
            // It is said within seconds.
            cluster.wait(10);
            let out = cluster.until_stable();
            assert_eq!(out.wake_at, Some(until), "{min_ready}");
            let why = format!("waiting: node n1 is Ready since {since:.0} only; ");
            assert_eq!(cluster.message("op")[..41], why[..41], "{}", cluster.message("op"));
            cluster.s.now = until - SignedDuration::from_secs(1);
            cluster.until_stable();
            assert_eq!(cluster.running("op"), [""; 0], "{min_ready}");
            cluster.s.now = until;
            cluster.node("n1", |node| node.ready = is_back);
            cluster.until_stable();
            assert_eq!(cluster.running("op").is_empty(), !is_back, "{min_ready}: {}", cluster.message("op"));
        }
    }
}

/// Its waiter may have asked for the reboot before it was ended, and the node was given back.
#[test]
fn a_node_that_goes_down_soon_after_it_failed_holds_its_slot_if_its_reboot_may_have_been_asked_for() {
    for (reboot, taken) in [("pending", vec![]), ("cancelled", vec!["n2"])] {
        let mut cluster = one_failed(json!({"uncordonOnFailure": true}), false);
        let entry =
            json!({"phase": "Failed", "jobName": "j", "rebootStatus": reboot, "lastUpdated": Time(at(-1))});
        cluster.entry("op", "n1", entry, true);
        cluster.node("n1", |node| (node.claimed_by, node.ready) = (None, false));
        cluster.until_stable();
        assert_eq!(cluster.running("op"), taken, "{reboot}: {}", cluster.message("op"));
    }
}

/// A node that an earlier run of `upgrade`, or another NodeOp, failed on and left cordoned, and a run of
/// `up`, which has not begun with its nodes; with the NodeOp that failed deleted, or not.
fn next_run(upgrade: &str, is_gone: bool, spec: Value) -> Cluster {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]);
    cluster.op("next", spec);
    cluster.op("before", json!({}));
    let of = |uid: &str| {
        json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "up",
                "uid": uid, "controller": true}])
    };
    cluster.edit("next", |op| {
        op.metadata.owner_references = serde_json::from_value(of("up-uid")).unwrap();
        // With one it would be the Go operator's.
        op.spec.command = None;
    });
    if !upgrade.is_empty() {
        cluster
            .edit("before", |op| op.metadata.owner_references = serde_json::from_value(of(upgrade)).unwrap());
    }
    for name in ["n1", "n2", "n3"] {
        cluster.entry("next", name, json!({"phase": "Pending"}), false);
    }
    let by = OpRef::of(&cluster.s.ops[&key("before")]);
    cluster.entry("before", "n3", json!({"phase": "Failed", "message": "Job failed"}), true);
    cluster.edit("before", |op| op.status.as_mut().unwrap().phase = Some(Phase::Failed));
    cluster.edit("next", |op| op.status.as_mut().unwrap().phase = Some(Phase::Running));
    cluster.node("n3", |node| {
        node.unschedulable = true;
        node.kept_cordon = Some(KeptCordon { by, deleted: is_gone });
        if !upgrade.is_empty() {
            node.annotations.insert(names::ATTEMPTED.into(), format!("{upgrade}/1"));
        }
    });
    if is_gone {
        cluster.s.ops.remove(&key("before"));
    }
    cluster
}

/// Whoever changes the image of an upgrade does not allow one more node to be down.
#[test]
fn a_node_that_an_earlier_run_left_cordoned_holds_a_slot_of_the_next_and_is_taken_first() {
    for (upgrade, is_gone, spec, taken) in [
        ("up-uid", false, json!({}), vec!["n3"]),
        ("up-uid", true, json!({}), vec!["n3"]),
        ("up-uid", false, json!({"concurrency": 2}), vec!["n1", "n3"]),
        // By another upgrade: the next release often comes in an object of its own.
        ("other", false, json!({}), vec!["n3"]),
        ("other", true, json!({}), vec!["n3"]),
        // By no upgrade: that was another matter.
        ("", false, json!({}), vec!["n1"]),
        ("", true, json!({}), vec!["n1"]),
    ] {
        let mut cluster = next_run(upgrade, is_gone, spec);
        cluster.until_stable();
        assert_eq!(cluster.running("next"), taken, "{upgrade} {is_gone}: {}", cluster.message("next"));
    }
    // It cannot be taken: the others wait until it is well.
    let mut cluster = next_run("up-uid", false, json!({}));
    cluster.node("n3", |node| node.ready = false);
    cluster.until_stable();
    assert_eq!(cluster.running("next"), [""; 0]);
    let why = "waiting: node n3 failed in an earlier run (before) and is still cordoned; kubectl uncordon n3 when it is well";
    assert_eq!(cluster.says("next", "n1"), "waiting: nodes out of service hold every slot");
    assert!(cluster.message("next").starts_with(why), "{}", cluster.message("next"));
    cluster.node("n3", |node| (node.unschedulable, node.ready) = (false, true));
    cluster.until_stable();
    assert_eq!(cluster.running("next"), ["n1"]);
    // Control-plane nodes go first all the same, as releases must.
    let mut cluster = next_run("up-uid", false, json!({}));
    cluster.control_plane("n1");
    cluster.until_stable();
    assert!(cluster.running("next").is_empty() && cluster.message("next").starts_with(why));
    // One that another upgrade left does not keep them waiting, and holds its slot once they are done.
    let mut cluster = next_run("other", false, json!({}));
    cluster.control_plane("n1");
    cluster.until_stable();
    assert_eq!(cluster.running("next"), ["n1"]);
    // A control-plane node that is down is no reason not to take it.
    let mut cluster = next_run("up-uid", false, json!({"concurrency": 0}));
    ["n1", "n2", "n3"].iter().for_each(|name| cluster.control_plane(name));
    cluster.until_stable();
    assert_eq!(cluster.running("next"), ["n3"], "{}", cluster.message("next"));
}

/// The run that was done with it is over, or was another upgrade's: the node is down all the same.
#[test]
fn a_node_that_went_down_soon_after_an_upgrade_holds_a_slot_of_the_next_one_until_it_is_ready() {
    // When it was done, and went down, by the seconds that have passed since.
    for (done, down, taken) in [
        (Some(300), Some(100), vec![]),
        (Some(90_000), Some(89_999), vec![]),
        (Some(2000), Some(100), vec!["n1"]),
        (Some(300), Some(1000), vec!["n1"]),
        (Some(300), None, vec!["n1"]),
        (None, Some(100), vec!["n1"]),
    ] {
        let mut cluster = next_run("other", true, json!({}));
        cluster.node("n3", |node| {
            (node.unschedulable, node.kept_cordon) = (false, None);
            (node.ready, node.ready_changed) = (down.is_none(), down.map(|ago| at(-ago)));
            let done = done.map(|ago| format!("@{:.0}", at(-ago))).unwrap_or_default();
            node.annotations.insert(names::ATTEMPTED.into(), format!("other/1{done}"));
        });
        cluster.until_stable();
        assert_eq!(cluster.running("next"), taken, "{done:?} {down:?}: {}", cluster.message("next"));
        if taken.is_empty() {
            let says = |cluster: &Cluster, why: &str| {
                assert!(cluster.message("next").starts_with(why), "{}", cluster.message("next"));
            };
            says(&cluster, "waiting: node n3 was done, and is not Ready since; ");
            cluster.node("n3", |node| node.ready = true);
            cluster.until_stable();
            // One report of a kubelet is no recovery: its link may flap.
            assert_eq!(cluster.running("next"), [""; 0]);
            cluster.wait(10);
            cluster.until_stable();
            says(&cluster, "waiting: node n3 is Ready since ");
            cluster.s.now = cluster.later(50);
            cluster.until_stable();
            assert_eq!(cluster.running("next"), ["n1"]);
        }
    }
}

/// It went down and came back under the leader before, and the new one has not seen that.
#[test]
fn a_new_leader_sees_for_itself_that_a_node_that_was_done_stays_ready() {
    let taken_over = |stays_ready, done| {
        let mut cluster = next_run("other", true, json!({}));
        cluster.s.leading_since = cluster.s.now;
        cluster.node("n3", |node| {
            (node.unschedulable, node.kept_cordon, node.stays_ready) = (false, None, stays_ready);
            node.annotations.insert(names::ATTEMPTED.into(), format!("other/1@{:.0}", at(done)));
        });
        cluster.until_stable();
        cluster
    };
    assert_eq!(taken_over(true, -300).running("next"), ["n1"], "its kubelet has said so twice");
    assert_eq!(taken_over(false, 0).running("next"), ["n1"], "it would have been seen to go");
    let mut cluster = taken_over(false, -300);
    assert_eq!(cluster.running("next"), [""; 0]);
    assert!(cluster.message("next").starts_with("waiting: node n3 is Ready since "));
    cluster.s.now = cluster.later(60);
    cluster.until_stable();
    assert_eq!(cluster.running("next"), ["n1"]);
}

/// Each of two planners may see the node as it was before it was taken.
#[test]
fn a_view_that_is_older_than_our_claim_frees_no_slot() {
    let mut cluster = one_failed(json!({}), true);
    cluster.until_stable();
    cluster.node("n1", |node| (node.unschedulable, node.cordoned_by) = (false, None));
    let out = kairos_operator::plan::plan(&cluster.s);
    let asks = out.questions.iter().any(|question| question.to_string() == "reading node n1");
    let frees = out.actions.iter().any(|action| action.to_string().contains("status of NodeOp ns/op"));
    assert!(asks && !frees, "{:?} {:?}", out.questions, out.actions);
}

/// However many may go at once, control-plane nodes go one at a time, and one that failed is one that is
/// away.
#[test]
fn without_a_limit_a_bad_image_still_takes_one_control_plane_node() {
    let mut cluster = one_failed(json!({"concurrency": 0}), true);
    ["n1", "n2"].iter().for_each(|name| cluster.control_plane(name));
    cluster.until_stable();
    assert_eq!(cluster.running("op"), [""; 0]);
    let said = cluster.says("op", "n2");
    assert!(said.contains("n1 failed and is still cordoned"), "{said}");
    // Another operation may take it, to repair it; the cordon keeps the mark of the one that failed until the
    // repair has succeeded.
    cluster.op("repair", json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "n1"}}}));
    cluster.until_stable();
    assert_eq!(cluster.running("repair"), ["n1"]);
    let kept =
        |cluster: &Cluster| cluster.s.nodes["n1"].kept_cordon.as_ref().map(|kept| kept.by.name.clone());
    assert_eq!((cluster.s.nodes["n1"].unschedulable, kept(&cluster).as_deref()), (true, Some("op")));
    assert_eq!(cluster.running("op"), [""; 0], "not before it is repaired");
}

#[test]
fn under_stop_on_failure_it_ends_with_the_first_failure() {
    let mut cluster = one_failed(json!({"stopOnFailure": true}), true);
    cluster.until_stable();
    let status = cluster.status("op");
    assert_eq!(status.phase, Some(Phase::Failed));
    assert_eq!(
        status.message.unwrap(),
        "1 of 3 nodes failed, 0 completed, 2 were not started: node n1 failed (stopOnFailure)"
    );
    assert_eq!(cluster.says("op", "n2"), "not started: node n1 failed (stopOnFailure)");
    assert!(cluster.s.nodes["n1"].unschedulable);
}
