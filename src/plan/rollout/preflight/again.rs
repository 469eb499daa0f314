//! A user's check that failed, which the kubelet runs again in the same pod: a registry, a disk or a service
//! that it asks may be there the next time. So the Go operator documents it, and so its users' scripts are
//! written.

use crate::plan::{
    model::{
        intent::Asks,
        snapshot::{ContainerState, ContainerView, Ended, PodView},
    },
    node::context::Op,
};

/// Exit codes of a shell that could not run a command, or did not find it. It will not the next time.
const NO_COMMAND: [i32; 2] = [126, 127];

/// Whether a check is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// What its container says counts.
    No,
    /// It has failed so, and runs again, now or later.
    Later(Ended),
    /// It has failed so, and would again.
    Never(Ended),
    /// The container runtime could not start it, and tries again: it has not begun.
    AsNew,
}

/// What becomes of the check in `pod`. Of a run that succeeded only the container's present state tells: one
/// before it counts for nothing but a failure.
pub(super) fn of(op: &Op, pod: &PodView, check: &ContainerView) -> Again {
    // Nothing runs again in a pod that is over or is to go.
    if op.intent.preflight.asks != Asks::Command || !pod.is_active() {
        return Again::No;
    }
    let last = match &check.state {
        ContainerState::Ended { .. } => check.ended(),
        ContainerState::Running { .. } | ContainerState::Waiting { .. } => check.last.clone(),
    };
    let Some(last) = last.filter(|last| last.code != 0) else { return Again::No };
    if matches!(check.state, ContainerState::Running { .. }) {
        return Again::Later(last);
    }
    if NO_COMMAND.contains(&last.code) {
        return Again::Never(last);
    }
    // What it cannot be started for stands in the pod's status, also why no waiting helps.
    if pod.has_begun() && pod.obstacle().is_none_or(|obstacle| !obstacle.permanent) {
        Again::Later(last)
    } else {
        Again::AsNew
    }
}
