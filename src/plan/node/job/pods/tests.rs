//! What the pods of a Job tell, pod by pod.

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::plan::{
    fixtures,
    model::snapshot::{Owner, Role},
};

fn of(pods: &[PodView]) -> JobPods<'_> {
    JobPods { job_uid: "ju", boot_id: "b1", all: pods.iter().collect() }
}

fn ended(name: &str, code: i32) -> ContainerView {
    let (reason, message) = (String::new(), String::new());
    ContainerView::new(name, ContainerState::Ended { code, reason, message })
}

fn runs(name: &str) -> ContainerView {
    ContainerView::new(name, ContainerState::Running { since: Timestamp::UNIX_EPOCH })
}

fn pod(containers: Vec<ContainerView>) -> PodView {
    PodView { containers, ..fixtures::pod(Role::Job, "p", Owner::job("j", "ju"), "n1") }
}

#[test]
fn a_pod_in_which_the_operation_has_failed_is_ended_and_no_other() {
    let ends = |pod: PodView| of(&[pod]).failed_but_open().count() == 1;
    let mesh = || runs("mesh-proxy");
    assert!(ends(pod(vec![ended(container::NODEOP, 1), mesh()])));
    assert!(ends(pod(vec![ended(container::NODEOP, 0), ended(container::SENTINEL, 1), mesh()])));
    assert!(!ends(pod(vec![ended(container::NODEOP, 0), mesh()])), "it has succeeded");
    assert!(!ends(pod(vec![runs(container::NODEOP), mesh()])), "it runs");
    assert!(!ends(pod(vec![ended(container::NODEOP, 1)])), "it ends by itself");
    let lock = || runs(container::NODE_LOCK);
    assert!(!ends(pod(vec![lock(), ended(container::NODEOP, 1)])), "the kubelet ends the lock's holder");
    assert!(!ends(pod(vec![ended(container::NODE_LOCK, 137), runs(container::NODEOP), mesh()])));
    let deleting = PodView { deleting: true, ..pod(vec![ended(container::NODEOP, 1), mesh()]) };
    assert!(!ends(deleting), "it is being ended");
}

#[test]
fn an_operation_is_over_when_our_containers_have_ended_well() {
    let mesh = || runs("mesh-proxy");
    let (nodeop, sentinel) = (container::NODEOP, container::SENTINEL);
    assert!(has_succeeded(&pod(vec![ended(nodeop, 0), ended(sentinel, 0), mesh()])));
    assert!(
        has_succeeded(&pod(vec![ended(nodeop, 0), mesh()])),
        "a command without a reboot has no sentinel"
    );
    assert!(
        !has_succeeded(&pod(vec![ended(nodeop, 0), runs(sentinel), mesh()])),
        "its record is not written yet"
    );
    assert!(!has_succeeded(&pod(vec![ended(nodeop, 1), mesh()])) && !has_succeeded(&pod(vec![mesh()])));
    assert_eq!(running(&pod(vec![ended(nodeop, 0), mesh(), ended("mesh-init", 0)])), ["mesh-proxy"]);
    for lock in [runs(container::NODE_LOCK), ended(container::NODE_LOCK, 137)] {
        let pod = pod(vec![lock, ended(nodeop, 0)]);
        assert!(
            has_succeeded(&pod) && running(&pod).is_empty(),
            "the lock's holder is ours, and does no work"
        );
    }
}

#[test]
fn the_container_that_failed_speaks_whichever_it_is() {
    let ended = |name: &str, code, message: &str| {
        ContainerView::new(
            name,
            ContainerState::Ended { code, reason: "Error".into(), message: message.into() },
        )
    };
    let message = |containers| {
        last_message(&PodView { containers, ..fixtures::pod(Role::Job, "p", Owner::job("j", "ju"), "n1") })
    };
    let (sentinel, full) =
        (container::SENTINEL, "writing the sentinel: No space left on device (os error 28)");
    assert_eq!(
        message(vec![ended(container::NODEOP, 0, "done\nindeed"), ended(sentinel, 0, "{}")]),
        Some("done indeed".into())
    );
    assert_eq!(message(vec![ended(container::NODEOP, 3, "")]), Some("exit code 3, Error".into()));
    let told = format!("container {sentinel} ended with exit code 1: {full}");
    assert_eq!(message(vec![ended(container::NODEOP, 0, "done"), ended(sentinel, 1, full)]), Some(told));
    assert!(message(vec![ended(container::INSTALL, 255, "exec format error")]).is_some());
    assert_eq!(message(vec![]), None);
    let holder = ended(container::NODE_LOCK, 137, "");
    assert_eq!(message(vec![holder, ended(container::NODEOP, 0, "done")]), Some("done".into()));
    let refused = "OutOfcpu Pod was rejected: Node didn't have enough resource: cpu";
    let job = fixtures::pod(Role::Job, "p", Owner::job("j", "ju"), "n1");
    let pod = PodView { phase: PodPhase::Failed, reason: refused.into(), ..job };
    assert_eq!(last_message(&pod), Some(refused.into()), "the kubelet alone says why nothing was started");
    let evicted = "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi.";
    let lost = "Error on reading termination message from logs: no such file or directory";
    let pod =
        PodView { reason: evicted.into(), containers: vec![ended(container::NODEOP, 137, lost)], ..pod };
    assert_eq!(last_message(&pod), Some(evicted.into()), "its logs are gone with it");
}
