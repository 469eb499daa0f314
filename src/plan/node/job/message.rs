//! What a Job's pods said: the part of it that ends up in a node's message.

use crate::{
    api::names::container,
    plan::{
        model::snapshot::{ContainerView, JobView, PodPhase, PodView, brief},
        node::{context::NodeContext, waiting::Waiting},
    },
};

/// The Job goes on; what its last try failed of is said with it, if one did.
pub fn tries(ctx: &NodeContext<'_>, job: &JobView) -> Waiting {
    let over = || ctx.job_pods(&job.uid).filter(|pod| pod.phase == PodPhase::Failed);
    let last = over().max_by_key(|pod| (pod.created, &pod.name));
    match last.and_then(|pod| message_of(pod)) {
        Some(last) => Waiting::JobTries { failed: over().count(), last },
        None => Waiting::JobRuns,
    }
}

/// What the operation's container said last in the Job's newest pod.
pub fn termination_message(ctx: &NodeContext<'_>, job: &JobView) -> Option<String> {
    message_of(ctx.job_pods(&job.uid).max_by_key(|pod| (pod.created, &pod.name))?)
}

/// What was said last in a pod: by the kubelet, of a pod that it has refused or ended; else by the container
/// that failed, whichever it is, or by the operation's own.
fn message_of(pod: &PodView) -> Option<String> {
    // Of a pod that the kubelet has ended the kubelet knows why; its containers were killed, and know nothing.
    if pod.phase == PodPhase::Failed && !pod.reason.is_empty() {
        return Some(pod.obstacle()?.text);
    }
    let operation = pod
        .containers
        .iter()
        .find(|container| container.name == container::NODEOP)
        .and_then(ContainerView::ended);
    if let Some(ended) = operation.as_ref().filter(|ended| ended.code != 0) {
        return Some(ended.to_string());
    }
    let failed =
        pod.containers.iter().filter(|container| !container.holds_lock()).find_map(|container| {
            Some((&container.name, container.ended().filter(|ended| ended.code != 0)?))
        });
    if let Some((name, ended)) = failed {
        return Some(format!("container {name} ended with {ended}"));
    }
    operation.map(|ended| brief(&ended.message)).filter(|message| !message.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{
        fixtures,
        model::snapshot::{ContainerState, Owner, Role},
    };

    #[test]
    fn the_container_that_failed_speaks_whichever_it_is() {
        let ended = |name: &str, code, message: &str| {
            ContainerView::new(
                name,
                ContainerState::Ended { code, reason: "Error".into(), message: message.into() },
            )
        };
        let message = |containers| {
            message_of(&PodView { containers, ..fixtures::pod(Role::Job, "p", Owner::job("j", "ju"), "n1") })
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
        assert_eq!(message_of(&pod), Some(refused.into()), "the kubelet alone says why nothing was started");
        let evicted = "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi.";
        let lost = "Error on reading termination message from logs: no such file or directory";
        let pod =
            PodView { reason: evicted.into(), containers: vec![ended(container::NODEOP, 137, lost)], ..pod };
        assert_eq!(message_of(&pod), Some(evicted.into()), "its logs are gone with it");
    }
}
