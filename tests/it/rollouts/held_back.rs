//! A reboot that is due waits when another control-plane node goes away while the Job runs.

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kairos_operator::{
    api::nodeop::Phase,
    plan::model::{
        action::Action,
        effects::Plan,
        object_name,
        snapshot::{JobState, JobView, Owner, PodPhase, PodView, Role},
        why::WaitReason,
    },
};
use serde_json::{Value, json};

use super::{Cluster, at, job, key};

const TIMEOUT: i64 = 900;

/// c1 of three control-plane nodes is under way, and so far as the entry says; its waiter watches.
fn under_way(entry: Value) -> Cluster {
    let mut cluster = Cluster::new(&["c1", "c2", "c3"]);
    ["c1", "c2", "c3"].iter().for_each(|name| cluster.control_plane(name));
    cluster.op("op", json!({"rebootOnSuccess": true, "rebootTimeoutSeconds": TIMEOUT}));
    cluster.until_stable();
    let mut whole = json!({"phase": "Running", "nodeUid": "c1-uid", "jobUid": "ju", "boot": "b1", "rebootStatus": "pending",
        "controlPlane": true});
    whole.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
    cluster.entry("op", "c1", whole, true);
    let name = cluster.status("op").node_statuses["c1"].job_name.clone().unwrap();
    cluster.s.jobs.insert(key(&name), Arc::new(job("op", "c1", &name, false)));
    waiter(&mut cluster, "waiting");
    cluster.until_stable();
    cluster
}

/// The step Reboot of c1, whose Job succeeded a moment ago.
fn rebooting() -> Cluster {
    let mut cluster = under_way(json!({"step": "Reboot", "deadline": Time(at(TIMEOUT))}));
    let name = cluster.status("op").node_statuses["c1"].job_name.clone().unwrap();
    let job = JobView { state: JobState::Complete, ..(*cluster.s.jobs[&key(&name)]).clone() };
    cluster.s.jobs.insert(key(&name), Arc::new(job));
    cluster
}

fn waiter(cluster: &mut Cluster, state: &str) {
    let name = object_name::object(("op", "op"), "c1", "reboot", 0);
    let pod = PodView {
        namespace: "ns".into(),
        name: name.clone(),
        uid: "waiter".into(),
        owner: Owner::nodeop("op", "op"),
        role: Role::Waiter,
        node: "c1".into(),
        phase: PodPhase::Running,
        reason: String::new(),
        deleting: false,
        created: at(0),
        attempt: 0,
        reboot_state: Some(state.into()),
        waits_in: Some("b1".into()),
        containers: vec![],
    };
    cluster.s.pods.insert(key(&name), Arc::new(pod));
}

fn ends_the_waiter(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::DeletePod { pod, .. } if pod.uid == "waiter"))
}

/// The boot that the waiter is told to leave which the plan makes, if it makes one.
fn makes_a_waiter(out: &Plan) -> Option<Option<String>> {
    out.actions.iter().find_map(|action| match action {
        Action::CreateWaiter { node, succeeded, .. } if node == "c1" => {
            Some(succeeded.as_ref().map(|told| told.boot.clone()))
        }
        _ => None,
    })
}

fn deadline(cluster: &Cluster) -> Option<Timestamp> {
    cluster.status("op").node_statuses["c1"].deadline.as_ref().map(|time| time.0)
}

#[test]
fn while_the_job_runs_the_waiter_is_ended_when_another_member_goes_away() {
    let mut cluster = under_way(json!({"step": "Job"}));
    assert!(!ends_the_waiter(&cluster.planned()), "all are well");
    cluster.node("c2", |node| node.ready = false);
    assert!(ends_the_waiter(&cluster.step()));
    cluster.s.pods = Default::default();
    // Nothing is said to have failed, and no other waiter is made before the Job has succeeded.
    let out = cluster.until_stable();
    assert_eq!((cluster.running("op"), makes_a_waiter(&out)), (vec!["c1".to_owned()], None));
    // A worker may go away as it likes.
    let mut other = under_way(json!({"step": "Job"}));
    other.node("c2", |node| (node.labels, node.ready) = (Default::default(), false));
    other.seen = Default::default();
    assert!(!ends_the_waiter(&other.planned()));
}

#[test]
fn a_reboot_that_is_due_waits_until_the_others_are_well_and_its_time_begins_then() {
    let mut cluster = rebooting();
    cluster.node("c2", |node| node.ready = false);
    let out = cluster.step();
    assert!(ends_the_waiter(&out), "{:?}", out.actions);
    cluster.s.pods = Default::default();
    let out = cluster.until_stable();
    assert_eq!((makes_a_waiter(&out), deadline(&cluster)), (None, None));
    let said = cluster.says("op", "c1");
    assert!(
        said.starts_with("Job completed, the reboot waits: control-plane node c2 is not Ready")
            && said.len() < 300,
        "{said}"
    );
    assert_eq!(cluster.waiting[&key("op")].of("c1").unwrap().reason, WaitReason::Quorum);
    // Neither time nor another leader ends that.
    cluster.wait(3 * TIMEOUT);
    cluster.until_stable();
    cluster.another_leader();
    cluster.wait(3 * TIMEOUT);
    let out = cluster.until_stable();
    assert_eq!((cluster.running("op"), makes_a_waiter(&out)), (vec!["c1".to_owned()], None));
    // One that is Ready is not yet a member that votes.
    cluster.node("c2", |node| node.ready = true);
    cluster.wait(1);
    let out = cluster.until_stable();
    assert_eq!((makes_a_waiter(&out), deadline(&cluster)), (None, None));
    cluster.wait(70);
    let began = cluster.s.now;
    let out = cluster.until_stable();
    assert_eq!(makes_a_waiter(&out), Some(Some("b1".into())), "it is told of the success: {:?}", out.actions);
    let ends = deadline(&cluster).unwrap();
    assert!(ends >= began + k8s_openapi::jiff::SignedDuration::from_secs(TIMEOUT), "{ends}");
    // And it counts.
    cluster.wait(TIMEOUT + 1);
    cluster.until_stable();
    let over = cluster.status("op").node_statuses["c1"].clone();
    assert_eq!(over.phase, Phase::Failed, "{over:?}");
}

/// What is under way cannot be taken back, and a reboot that came by itself is one.
#[test]
fn a_reboot_that_was_asked_for_is_not_held_back_and_one_that_has_come_counts() {
    let mut asked = rebooting();
    waiter(&mut asked, "rebooting");
    asked.node("c2", |node| node.ready = false);
    assert!(!ends_the_waiter(&asked.step()));
    assert!(deadline(&asked).is_some(), "its time goes on");
    let mut came = rebooting();
    came.node("c2", |node| node.ready = false);
    came.step();
    came.s.pods = Default::default();
    came.until_stable();
    came.node("c1", |node| node.boot_id = "b2".into());
    came.read_facts("c1");
    came.until_stable();
    let over = came.status("op").node_statuses["c1"].clone();
    assert_eq!(over.phase, Phase::Completed, "{over:?}");
}

#[test]
fn a_node_whose_reboot_waits_is_given_back_when_its_nodeop_is_deleted() {
    let mut cluster = rebooting();
    cluster.node("c2", |node| node.ready = false);
    cluster.step();
    cluster.s.pods = Default::default();
    cluster.until_stable();
    let now = Time(cluster.s.now);
    cluster.edit("op", |op| op.metadata.deletion_timestamp = Some(now));
    cluster.until_stable();
    cluster.wait(60);
    cluster.until_stable();
    let over = cluster.status("op").node_statuses["c1"].clone();
    let said = over.message.unwrap_or_default();
    assert_eq!(over.phase, Phase::Failed, "{said}");
    assert!(said.contains("deleted before the reboot"), "{said}");
    assert!(!cluster.s.nodes["c1"].unschedulable, "its cordon is taken off");
}

/// Who is gone for good and is taken out of the cluster holds nobody back.
#[test]
fn a_reboot_goes_on_when_the_node_of_the_member_that_is_away_is_deleted() {
    let mut cluster = rebooting();
    cluster.node("c2", |node| node.ready = false);
    cluster.step();
    cluster.s.pods = Default::default();
    cluster.until_stable();
    cluster.s.nodes.remove("c2");
    let out = cluster.until_stable();
    assert_eq!(makes_a_waiter(&out), None, "its machine may come back");
    cluster.wait(301);
    let out = cluster.until_stable();
    assert_eq!(makes_a_waiter(&out), Some(Some("b1".into())), "{:?}", out.actions);
}
