//! Before the Job: the node is drained while its reboot waiter starts, and then its Job is made, suspended.
//! Nothing of the operation has begun.

use crate::plan::{
    model::effects::{Effects, Planned},
    node::{
        context::{Decision, NodeContext},
        drain::{self, Progress},
        enforce::claim_and_cordon,
        failure::Failure,
        job,
        state::DrainRecord,
        waiter::{self, Room, Waiter},
        waiting::{Draining, Starting, Waiting},
    },
};

/// Advances a node in step `Drain`.
pub fn advance(ctx: &NodeContext<'_>, record: &DrainRecord) -> Planned<Decision> {
    if ctx.op.deleting {
        return Failure::DeletedBeforeStart.into();
    }
    // Whatever this pass comes to: a watch that is taken up again knows nothing at first of what came late or
    // back, and what blocks is forgotten.
    let drains = ctx.op.intent.drain.is_some();
    let mut effects = if drains { Effects::watch_pods_of(&ctx.node.name) } else { Effects::default() };
    if let Some(next) = effects.absorb(claim_and_cordon(ctx)) {
        return next.with(effects);
    }
    let progress = match &ctx.op.intent.drain {
        Some(options) => effects.absorb(drain::advance(ctx, options, record)),
        None => Progress::Done(Vec::new()),
    };
    let room = if matches!(progress, Progress::Done(_)) { Room::Made } else { Room::Awaited };
    if let Progress::Decided(refused @ Decision::GiveUp(_)) = progress {
        return refused.with(effects);
    }
    let name = ctx.work.job.as_ref().map(|job| job.name.clone());
    let name = name.unwrap_or_else(|| ctx.op.object_name(&ctx.node.name, "", 0));
    let waiter = effects.absorb(waiter::ensure(ctx, &name, room));
    let next = match (progress, waiter) {
        (_, Waiter::Decided(next)) | (Progress::Decided(next), _) => next.into(),
        (Progress::Done(left), Waiter::Ready | Waiter::NotAsked) => {
            let next = job::begin(ctx);
            // Said once, with the status that says that the drain is over.
            let is_over = matches!(next.value, Decision::Record(_));
            next.with(drain::say_left(ctx, &left).filter(|_| is_over).map(Effects::from).unwrap_or_default())
        }
        (Progress::Done(_), Waiter::Starting(why)) => Waiting::Waiter(why).into(),
        (Progress::Going(drain), Waiter::Starting(waiter)) if waiter != Starting::Starts => {
            give_up_or_wait(ctx, drain, Some(waiter))
        }
        (Progress::Going(drain), _) => give_up_or_wait(ctx, drain, None),
    };
    next.with(effects)
}

fn give_up_or_wait(ctx: &NodeContext<'_>, drain: Draining, waiter: Option<Starting>) -> Planned<Decision> {
    let timeout = ctx.op.intent.drain.as_ref().and_then(|drain| drain.timeout);
    let Some(deadline) = timeout.and_then(|timeout| ctx.deadline(timeout)) else {
        return Waiting::Drain { drain, waiter }.into();
    };
    if ctx.snapshot.now >= deadline {
        let waiter = waiter.or_else(|| waiter::not_made(ctx));
        return Failure::DrainTimedOut { drain, waiter }.into();
    }
    Waiting::Drain { drain, waiter }.with(Effects::wake_at(deadline))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::plan::{
        model::{action::Action, identity::Identified, snapshot::PersistentFailure},
        node::{
            fixtures::{World, at, line},
            state::At,
        },
    };

    /// Both are why the operation was not started, and who reads it can help with the second alone, perhaps.
    #[test]
    fn a_drain_that_timed_out_names_a_waiter_that_could_not_be_made() {
        let timed_out = |waiter: bool| {
            let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "drainStartedAt": Time(at(0)),
                "deadline": Time(at(60))});
            let mut world = World::new(entry).now(100).op(|op| {
                let options = json!({"enabled": true, "timeoutSeconds": 60});
                op.spec.drain_options = Some(serde_json::from_value(options).unwrap());
                op.spec.pull_timeout_seconds = Some(600);
            });
            let makes = world.decide(|ctx| ctx.op.object_name("n1", "reboot", 0));
            let id = Action::CreateWaiter {
                op: world.snapshot.ops[&world.me.key()].clone(),
                node: "n1".into(),
                name: makes,
                job: String::new(),
                succeeded: None,
            }
            .id();
            if waiter {
                let failure = PersistentFailure { since: at(1), message: "quota".into() };
                world.snapshot.failures.insert(id, failure);
            }
            world.decide(|ctx| {
                let At::Drain(record) = &ctx.work.at else { panic!() };
                line(&advance(ctx, record))
            })
        };
        let drain =
            "gives up: drain timed out, the operation was not started: draining: listing the node's pods";
        assert!(
            timed_out(false).starts_with(drain) && !timed_out(false).contains("quota"),
            "{}",
            timed_out(false)
        );
        let told = timed_out(true);
        assert!(
            told.starts_with(drain) && told.contains("; the reboot waiter: ") && told.contains("quota"),
            "{told}"
        );
    }

    /// A watch that ends forgets which pods came late or back, and which were there before.
    #[test]
    fn the_pods_of_a_node_are_watched_also_while_it_is_cordoned_again() {
        let entry =
            json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "drainStartedAt": Time(at(0))});
        let mut world = World::new(entry).node(|node| node.unschedulable = false).op(|op| {
            op.spec.drain_options = Some(serde_json::from_value(json!({"enabled": true})).unwrap());
        });
        let out = world.pass(1);
        let cordons = out.actions.iter().any(|action| matches!(action, Action::PatchNode { .. }));
        assert!(cordons && out.watched_nodes.contains("n1"), "{:?} {:?}", out.actions, out.watched_nodes);
    }
}
