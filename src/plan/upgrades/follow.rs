//! The NodeOp of the present run is there: it is recorded, told what may be changed, and its status is shown.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    api::{
        names::reason,
        node_statuses::Mark,
        nodeop::{NodeOp, Phase},
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus, UpgradePhase},
    },
    plan::{
        model::{
            action::{Action, Notice, Steering},
            effects::Effects,
            failing, manual,
            snapshot::Snapshot,
        },
        upgrades::{
            continuous,
            copy::copy,
            status::{complete_conditions, own_conditions, write},
        },
    },
};

/// Bytes of what is said of a node that failed, at most.
const MAX_QUOTED: usize = 300;

/// The run that is asked for: records its NodeOp, passes changes on, shows its status.
pub fn follow(
    snapshot: &Snapshot,
    upgrade: &Arc<NodeOpUpgrade>,
    child: &Arc<NodeOp>,
    mut status: NodeOpUpgradeStatus,
) -> Effects {
    let mut effects = Effects::default();
    let mut error = None;
    // What may be changed. A NodeOp is given `false` by the server where an upgrade says nothing.
    let of =
        |concurrency: i32, paused: Option<bool>, stop: Option<bool>, not_after: &Option<Time>| Steering {
            concurrency,
            paused: paused.unwrap_or(false),
            stop_on_failure: stop.unwrap_or(false),
            not_after: not_after.as_ref().map(|time| time.0),
        };
    let spec = &child.spec;
    let is = of(spec.concurrency, spec.paused, spec.stop_on_failure, &spec.not_after);
    // An upgrade's 0 (all at once) is what it began with: who has slowed its NodeOp down by hand since is not
    // overruled, and the server would not let us either.
    let asked = &upgrade.spec;
    let concurrency = if asked.concurrency == 0 { spec.concurrency } else { asked.concurrency };
    let wanted = of(concurrency, asked.paused, asked.stop_on_failure, &asked.not_after);
    if wanted != is && !child.is_over() && child.metadata.deletion_timestamp.is_none() {
        let notice = Box::new(told(upgrade, &is, &wanted));
        let propagates = Action::PropagateSpec { child: child.clone(), steering: wanted, notice };
        error = failing::of(snapshot, &propagates);
        effects.add(propagates);
    }
    status.node_op_uid = child.metadata.uid.clone();
    copy(&mut status, child);
    match &child.status {
        None => {
            status.message = Some("NodeOp created".into());
            own_conditions(snapshot, &mut status, reason::INITIALIZING);
        }
        Some(shown) => {
            status.message = Some(sentence(shown.phase, &said(child)));
            status.conditions = copied_conditions(&shown.conditions, upgrade.metadata.generation);
            // Of one that was over before this status was, a cache keeps no more than how it ended.
            complete_conditions(snapshot, &mut status);
        }
    }
    if upgrade.spec.is_continuous() && status.phase.is_some_and(UpgradePhase::is_final) {
        effects.add(continuous::look(snapshot, upgrade, &mut status).effects);
    }
    if let (Some(message), Some(error)) = (&mut status.message, error) {
        message.push_str(&format!("; {error}"));
    }
    effects.add(write(snapshot, upgrade, status));
    effects
}

/// What is said on the NodeOp whose steering is set to what its upgrade says. If nothing of the upgrade has
/// changed since it was last looked at, somebody has changed the NodeOp, and learns here where that is asked.
fn told(upgrade: &NodeOpUpgrade, is: &Steering, wanted: &Steering) -> Notice {
    let Steering { concurrency, paused, stop_on_failure, not_after } = wanted;
    let until = not_after.map_or_else(|| "unset".to_owned(), |time| time.to_string());
    let set = [
        (*concurrency != is.concurrency, format!("concurrency: {concurrency}")),
        (*paused != is.paused, format!("paused: {paused}")),
        (*stop_on_failure != is.stop_on_failure, format!("stopOnFailure: {stop_on_failure}")),
        (*not_after != is.not_after, format!("notAfter: {until}")),
    ];
    let set: Vec<String> = set.into_iter().filter_map(|(differs, text)| differs.then_some(text)).collect();
    let name = upgrade.metadata.name.as_deref().unwrap_or_default();
    let seen = upgrade.status.as_ref().and_then(|status| status.observed_generation);
    let message = format!(
        "{} again as NodeOpUpgrade {name} says, to which this NodeOp belongs and which decides; change it there",
        set.join(", ")
    );
    let by_hand = seen.is_some() && seen == upgrade.metadata.generation;
    if by_hand {
        return Notice { warning: true, reason: "ChangeTakenBack", message, node: None };
    }
    let message = format!("{} as NodeOpUpgrade {name} says now", set.join(", "));
    Notice { warning: false, reason: "ChangePassedOn", message, node: None }
}

/// Another run is asked for, and this one has still to end.
pub fn supersede(
    snapshot: &Snapshot,
    upgrade: &Arc<NodeOpUpgrade>,
    child: &Arc<NodeOp>,
    mut status: NodeOpUpgradeStatus,
) -> Effects {
    status.node_op_uid = child.metadata.uid.clone();
    copy(&mut status, child);
    let name = child.metadata.name.as_deref().unwrap_or_default();
    let detail = said(child);
    let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
    status.message = Some(format!(
        "Upgrade operation was changed, and the next run starts when NodeOp {name} has ended{detail}"
    ));
    own_conditions(snapshot, &mut status, reason::SUPERSEDED);
    write(snapshot, upgrade, status)
}

/// The NodeOp's sentence; if nodes failed, with what is said of the first of them, which tells what to do.
fn said(child: &NodeOp) -> String {
    let Some(status) = &child.status else { return String::new() };
    let message = status.message.clone().unwrap_or_default();
    let failed = status.node_statuses.marked([Mark::Failed]).next();
    match failed.and_then(|(name, node)| Some((name, node.message.as_ref()?))) {
        Some((name, why)) if status.phase == Some(Phase::Failed) => {
            format!("{message}; {name}: {}", manual::clipped(why, MAX_QUOTED))
        }
        _ => message,
    }
}

/// The Go operator's sentence, and after it what there is to say.
pub fn sentence(phase: Option<Phase>, detail: &str) -> String {
    let what = match phase {
        Some(Phase::Completed) => "completed successfully",
        Some(Phase::Failed) => "failed",
        Some(Phase::Running | Phase::Preflight) => "is running",
        Some(Phase::Pending) | None => "is pending",
    };
    if detail.is_empty() {
        format!("Upgrade operation {what}")
    } else {
        format!("Upgrade operation {what}: {detail}")
    }
}

fn copied_conditions(shown: &[Condition], generation: Option<i64>) -> Vec<Condition> {
    shown.iter().map(|condition| Condition { observed_generation: generation, ..condition.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::nodeop::{NodeOpSpec, NodeOpStatus, NodeStatus};

    #[test]
    fn what_is_quoted_of_a_node_that_failed_names_its_section_of_the_manual() {
        let why = format!("Job failed ({}) (see docs: job-failed)", "x".repeat(2 * MAX_QUOTED));
        let failed = NodeStatus { phase: Phase::Failed, message: Some(why), ..NodeStatus::default() };
        let status = NodeOpStatus {
            phase: Some(Phase::Failed),
            message: Some("1 of 1 nodes failed".into()),
            node_statuses: [("n1".to_owned(), failed)].into_iter().collect(),
            ..NodeOpStatus::default()
        };
        let said = said(&NodeOp { status: Some(status), ..NodeOp::new("up", NodeOpSpec::default()) });
        assert!(said.starts_with("1 of 1 nodes failed; n1: Job failed (xx"), "{said}");
        assert!(said.ends_with("xx… (see docs: job-failed)") && said.len() < 2 * MAX_QUOTED, "{said}");
    }
}
