//! Why a budget gives no room that has some: it counts pods of operations.
//!
//! For a budget with `maxUnavailable`, or with `minAvailable` in percent, Kubernetes' disruption controller
//! adds up how many replicas the controllers of its pods are to have. It reads that from the subresource
//! `scale`, which neither NodeOps nor Jobs have; with one of their pods among the selected ones, running or
//! ended, the budget fails its sync and allows nothing (`getExpectedScale` and `failSafe` in
//! `pkg/controller/disruption`, read in the source). A selector that is empty, or only leaves something out,
//! selects our pods, too.
//!
//! Pods with a plain owner reference would not be counted. But those of Jobs are made by Kubernetes, and are
//! there until the Job is deleted; and that the reference is a controlling one is what proves whose a pod is.

use k8s_openapi::jiff::SignedDuration;

use crate::plan::{
    model::{snapshot::NodePod, time::later},
    node::context::NodeContext,
};

/// How the API server says it, as its source on the main branch has it: whose scale was looked for stands
/// before it.
const NO_SCALE: &str = "does not implement the scale subresource";
/// For how long an earlier one, which says only how many pods are healthy, must have refused: a budget that
/// another eviction has just spent looks the same for a moment.
const LASTS: SignedDuration = SignedDuration::from_secs(30);
const HINT: &str = "; the budget seems to count pods of NodeOps or Jobs, which have no number of replicas: \
                    have its selector leave them out";

/// What to do about a refusal by a budget that counts what has no replicas.
pub fn hint(ctx: &NodeContext<'_>, pod: &NodePod) -> Option<&'static str> {
    let refusal = ctx.snapshot.last_eviction(&ctx.node.name, pod)?.refusal.as_ref()?;
    let message = refusal.message.as_str();
    let ours = || ctx.snapshot.ops.keys().any(|(namespace, _)| *namespace == pod.namespace);
    let lasts = ctx.snapshot.now >= later(refusal.since, LASTS);
    let no_scale = ["nodeops.operator.kairos.io", "jobs.batch"]
        .iter()
        .any(|kind| message.contains(&format!("{kind} {NO_SCALE}")));
    (no_scale || (lasts && has_room(message) && ours())).then_some(HINT)
}

/// Whether a budget has more healthy pods than it needs, by what the server says of it.
fn has_room(message: &str) -> bool {
    let counts = || {
        let (_, counts) = message.split_once(" needs ")?;
        let (needs, rest) = counts.split_once(" healthy pods and has ")?;
        let (has, _) = rest.split_once(" currently")?;
        Some((needs.parse::<u32>().ok()?, has.parse::<u32>().ok()?))
    };
    counts().is_some_and(|(needs, has)| has > needs)
}
