//! Deadlines of Jobs that are set anew: a Job whose pod has succeeded must not fail of its deadline, and one
//! of the Go operator's, which sets none, has to have one.
//!
//! The Job controller counts ended pods up to a second after they ended, and a deadline that passes in
//! between makes a failure of a success. So the deadline is put off, once. It also spares the node that
//! second: a Job whose spec was changed is looked at without delay (`syncJobBatchPeriod` of the controller is
//! for changes of pods and of status).

use super::pods::JobPods;
use crate::plan::{
    model::{
        action::{Action, Target},
        intent::MAX_SECONDS,
        snapshot::{JobView, PodPhase},
    },
    node::context::NodeContext,
};

/// Seconds by which the deadline is put off.
const TIME_TO_COUNT: i64 = 60;

/// By how many seconds the clock of the API server may be ahead of ours, for a Job that must not be ended too
/// early.
const APART: i64 = 3600;

/// What puts the deadline off, if a pod has succeeded and that has not been done yet.
pub fn extend_after_success(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Option<Action> {
    let given = ctx.op.intent.job_deadline;
    let succeeded = pods.all.iter().any(|pod| pod.phase == PodPhase::Succeeded);
    let deadline_seconds = given.checked_add(TIME_TO_COUNT)?;
    (succeeded && job.deadline_seconds == Some(given))
        .then(|| Action::ExtendJob { job: Target::of_job(job), deadline_seconds })
}

/// What bounds a Job of the Go operator's: one whose image cannot be pulled would hold its node for ever,
/// also when its NodeOp is deleted. It has the whole time from now on, whatever it had before.
pub fn bound_adopted(ctx: &NodeContext<'_>, job: &JobView) -> Option<Action> {
    let unbounded = ctx.is_adopted() && job.deadline_seconds.is_none();
    let had = job.started_at.map_or(0, |since| ctx.snapshot.now.as_second() - since.as_second());
    let had = had.max(0).saturating_add(APART);
    let deadline_seconds = ctx.op.intent.job_deadline.saturating_add(had).min(MAX_SECONDS);
    unbounded.then(|| Action::ExtendJob { job: Target::of_job(job), deadline_seconds })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{
        api::nodeop::NodeOp,
        plan::{
            fixtures,
            model::{
                id::OpRef,
                snapshot::{JobState, NodeView, Owner, PodView, Role, Snapshot},
            },
            plan,
        },
    };

    /// The Job of a NodeOp runs on n1 with this deadline, and its pod is in this phase.
    fn extends(deadline_seconds: i64, phase: PodPhase) -> Vec<i64> {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u", "finalizers": [crate::api::names::FINALIZER]},
            "spec": {"command": ["true"], "concurrency": 1, "activeDeadlineSeconds": 900},
            "status": {"phase": "Running", "observedGeneration": 1, "nodeStatuses": {
                "n1": {"phase": "Running", "step": "Job", "jobName": "j", "jobUid": "ju", "nodeUid": ""},
            }},
        }))
        .unwrap();
        let me = OpRef::of(&op);
        let node =
            NodeView { name: "n1".into(), claimed_by: Some(me.clone()), ready: true, ..NodeView::default() };
        let job = JobView {
            deadline_seconds: Some(deadline_seconds),
            failed: 0,
            ..fixtures::job("j", JobState::Active)
        };
        let pod = PodView { phase, ..fixtures::pod(Role::Job, "p", Owner::job("j", "ju"), "n1") };
        let plan = plan(&Snapshot {
            now: Timestamp::UNIX_EPOCH,
            nodes: [("n1".into(), Arc::new(node))].into(),
            ops: [(me.key(), Arc::new(op))].into(),
            jobs: [(("ns".into(), "j".into()), Arc::new(job))].into(),
            pods: [(("ns".into(), "p".into()), Arc::new(pod))].into(),
            ..Snapshot::default()
        });
        let seconds = plan.actions.iter().filter_map(|action| match action {
            Action::ExtendJob { job, deadline_seconds } if job.uid == "ju" => Some(*deadline_seconds),
            _ => None,
        });
        seconds.collect()
    }

    #[test]
    fn a_job_whose_pod_has_succeeded_gets_time_to_be_counted_once() {
        assert_eq!(extends(900, PodPhase::Succeeded), [960]);
        assert!(extends(960, PodPhase::Succeeded).is_empty(), "once");
        assert!(extends(900, PodPhase::Running).is_empty() && extends(900, PodPhase::Failed).is_empty());
    }
}
