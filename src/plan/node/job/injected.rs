//! Containers that somebody adds to the pods of our Jobs, as service meshes do: one that does not end keeps a
//! Job from completing.
//!
//! What counts is the operation. When all of our own containers have ended well, it has succeeded, and the
//! Job is not waited for any more. It must not run again either, so a Job whose node is about to reboot is
//! suspended, which ends its pod and starts no other.

use crate::{
    api::names::container,
    plan::{
        model::snapshot::{ContainerState, ContainerView, JobView, PodView},
        node::context::NodeContext,
    },
};

/// The containers that we put into the pod of a Job.
const OURS: [&str; 3] = [container::INSTALL, container::NODEOP, container::SENTINEL];

/// The containers of others that still run in a pod of the Job in which the operation has succeeded; none if
/// no pod is so.
pub fn running_on(ctx: &NodeContext<'_>, job: &JobView) -> Vec<String> {
    let done = |pod: &&std::sync::Arc<PodView>| !pod.phase.is_final() && !pod.deleting && succeeded(pod);
    ctx.job_pods(&job.uid).find(done).map(|pod| others(pod)).unwrap_or_default()
}

/// Whether the operation has succeeded in the pod, whatever else runs in it.
pub fn succeeded(pod: &PodView) -> bool {
    let ours = || pod.containers.iter().filter(|container| OURS.contains(&container.name.as_str()));
    let well = |container: &ContainerView| matches!(container.state, ContainerState::Ended { code: 0, .. });
    ours().any(|container| container.name == container::NODEOP) && ours().all(well)
}

fn others(pod: &PodView) -> Vec<String> {
    let runs = |container: &&ContainerView| matches!(container.state, ContainerState::Running { .. });
    let foreign = pod.containers.iter().filter(|container| !OURS.contains(&container.name.as_str()));
    foreign.filter(runs).map(|container| container.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::plan::{
        fixtures,
        model::snapshot::{Owner, Role},
    };

    #[test]
    fn an_operation_is_over_when_our_containers_have_ended_well() {
        let ended = |name: &str, code| {
            ContainerView::new(
                name,
                ContainerState::Ended { code, reason: String::new(), message: String::new() },
            )
        };
        let runs =
            |name: &str| ContainerView::new(name, ContainerState::Running { since: Timestamp::UNIX_EPOCH });
        let pod =
            |containers| PodView { containers, ..fixtures::pod(Role::Job, "p", Owner::job("j", "ju"), "n1") };
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
    }
}
