//! Containers that somebody adds to the pods of our Jobs, as service meshes do: one that does not end keeps a
//! Job from completing.
//!
//! What counts is the operation. When all of our own containers have ended well, it has succeeded, and the
//! Job is not waited for any more. It must not run again either, so a Job whose node is about to reboot is
//! suspended, which ends its pod and starts no other. When one of our own containers has failed, the pod is
//! ended: a kubelet calls it running as long as any container runs, and before it is over the Job controller
//! neither counts the failure nor tries again.

use std::sync::Arc;

use crate::{
    api::names::container,
    plan::{
        model::{
            action::{Action, Target},
            effects::Effects,
            snapshot::{ContainerState, ContainerView, JobView, PodView},
        },
        node::context::NodeContext,
    },
};

/// The containers that do the work in the pod of a Job, each of which has to end well.
const WORK: [&str; 3] = [container::INSTALL, container::NODEOP, container::SENTINEL];

/// Whether we have put the container into the pod.
fn is_ours(container: &ContainerView) -> bool {
    works(container) || container.holds_lock()
}

fn works(container: &ContainerView) -> bool {
    WORK.contains(&container.name.as_str())
}

/// The containers of others that still run in a pod of the Job in which the operation has succeeded; none if
/// no pod is so.
pub fn running_on(ctx: &NodeContext<'_>, job: &JobView) -> Vec<String> {
    let done = |pod: &&Arc<PodView>| pod.is_active() && succeeded(pod);
    ctx.job_pods(&job.uid).find(done).map(|pod| others(pod)).unwrap_or_default()
}

/// Whether the operation has succeeded in the pod, whatever else runs in it.
pub fn succeeded(pod: &PodView) -> bool {
    let work = || pod.containers.iter().filter(|container| works(container));
    let well = |container: &ContainerView| matches!(container.state, ContainerState::Ended { code: 0, .. });
    work().any(|container| container.name == container::NODEOP) && work().all(well)
}

/// Ends the pods of the Job in which the operation has failed and containers of others still run.
pub fn end_failed_tries(ctx: &NodeContext<'_>, job: &JobView) -> Effects {
    let kept = |pod: &&Arc<PodView>| pod.is_active() && has_failed(pod) && !others(pod).is_empty();
    let why = "the operation has failed in it, and a container that is not ours still runs";
    Effects::act(
        ctx.job_pods(&job.uid).filter(kept).map(|pod| Action::DeletePod { pod: Target::of(pod), why }),
    )
}

/// Whether one of the containers that do the work in the pod has failed.
fn has_failed(pod: &PodView) -> bool {
    let failed = |container: &ContainerView| container.ended().is_some_and(|ended| ended.code != 0);
    pod.containers.iter().any(|container| works(container) && failed(container))
}

fn others(pod: &PodView) -> Vec<String> {
    let runs = |container: &&ContainerView| matches!(container.state, ContainerState::Running { .. });
    let foreign = pod.containers.iter().filter(|container| !is_ours(container));
    foreign.filter(runs).map(|container| container.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{
        api::nodeop::NodeOp,
        plan::{
            fixtures,
            model::snapshot::{JobState, NodeView, Owner, Role, Snapshot},
            node::{context::Op, fixtures as node_fixtures, state::JobRecord},
        },
    };

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
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u"}, "spec": {"command": ["true"]},
        }))
        .unwrap();
        let (op, node) = (Op::of(&Arc::new(op)), NodeView { name: "n1".into(), ..NodeView::default() });
        let (entry, mut work) = node_fixtures::draining(Timestamp::UNIX_EPOCH);
        work.job = Some(JobRecord { name: "j".into(), uid: Some("ju".into()) });
        let ends = |pod: PodView| {
            let pods = [(("ns".to_owned(), pod.name.clone()), Arc::new(pod))].into();
            let snapshot = Snapshot { pods, ..Snapshot::default() };
            let ctx = NodeContext { snapshot: &snapshot, op: &op, node: &node, entry: &entry, work: &work };
            end_failed_tries(&ctx, &fixtures::job("j", JobState::Active))
                .actions
                .iter()
                .any(|action| matches!(action, Action::DeletePod { pod, .. } if pod.uid == "p"))
        };
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
        assert!(succeeded(&pod(vec![ended(nodeop, 0), ended(sentinel, 0), mesh()])));
        assert!(
            succeeded(&pod(vec![ended(nodeop, 0), mesh()])),
            "a command without a reboot has no sentinel"
        );
        assert!(
            !succeeded(&pod(vec![ended(nodeop, 0), runs(sentinel), mesh()])),
            "its record is not written yet"
        );
        assert!(!succeeded(&pod(vec![ended(nodeop, 1), mesh()])) && !succeeded(&pod(vec![mesh()])));
        assert_eq!(others(&pod(vec![ended(nodeop, 0), mesh(), ended("mesh-init", 0)])), ["mesh-proxy"]);
        for lock in [runs(container::NODE_LOCK), ended(container::NODE_LOCK, 137)] {
            let pod = pod(vec![lock, ended(nodeop, 0)]);
            assert!(
                succeeded(&pod) && others(&pod).is_empty(),
                "the lock's holder is ours, and does no work"
            );
        }
    }
}
