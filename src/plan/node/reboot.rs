//! The reboot, proved: another boot id than the one in which the operation succeeded, and Ready in it.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::nodeop::RebootStatus,
    contract::reboot_state,
    plan::{
        model::{
            action::{Action, Target},
            effects::{Effects, Planned},
            question::Question,
            snapshot::JobState,
            time::{earlier, later},
        },
        node::{
            context::{Decision, NodeContext},
            cordon,
            end::{End, Proof},
            enforce::{self, claim_and_cordon},
            failure::{Failure, RebootTimeout},
            job, legacy,
            state::{At, NewBoot, Reboot, Verify, Working},
            verify,
            waiter::{self, Room, Waiter},
            waiting::Waiting,
        },
    },
};

/// How long the pod that reads what a node runs may take, before it is said that this is waited for.
const READ_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// Advances a node in step `Reboot`.
pub fn advance(ctx: &NodeContext<'_>, reboot: &Reboot) -> Planned<Decision> {
    if reboot.left.is_none()
        && let Some(next) = job::late_sentinel(ctx, reboot)
    {
        return next.into();
    }
    let now = ctx.snapshot.now;
    let Some(deadline) = ctx.deadline(ctx.op.intent.reboot_timeout) else {
        return match arrival(ctx, reboot) {
            Arrival::Proved => begins(ctx, reboot),
            Arrival::Unconfirmed(question) => Waiting::BootUnconfirmed.with(question),
            Arrival::No => awaited(ctx, reboot),
        };
    };
    let in_time = now < deadline;
    let next = match arrival(ctx, reboot) {
        Arrival::Proved => {
            let lifted = Effects::act(cordon::was_lifted(ctx.node, &ctx.op.id));
            back(ctx, reboot, deadline).with(lifted)
        }
        Arrival::Unconfirmed(question) => Waiting::BootUnconfirmed.with(question),
        Arrival::No if in_time => awaited(ctx, reboot),
        Arrival::No => time_out(ctx, reboot),
    };
    if in_time { next.with(Effects::wake_at(deadline)) } else { next }
}

/// A reboot that was held back is so no longer, or it has come all the same: its time begins.
fn begins(ctx: &NodeContext<'_>, reboot: &Reboot) -> Planned<Decision> {
    let deadline = Some(later(ctx.snapshot.now, ctx.op.intent.reboot_timeout).into());
    let at = At::Reboot(Reboot { deadline, ..reboot.clone() });
    ctx.move_to(Working { at, ..ctx.work.clone() }, Waiting::Reboot).into()
}

/// Keeps a reboot from coming of which nobody has been seen to ask for it. Its time begins anew when the
/// others are well: until then nothing ends it but they, or whoever deletes the NodeOp.
fn hold_back(ctx: &NodeContext<'_>, reboot: &Reboot) -> Planned<Option<Decision>> {
    let watched = reboot.deadline.is_some() && waiter::is_there(ctx);
    let Planned { value, effects } = enforce::reboot(ctx, watched);
    let next = value.map(|why| match why {
        Waiting::RebootHeldBack(_) if reboot.deadline.is_some() => {
            let at = At::Reboot(Reboot { deadline: None, ..reboot.clone() });
            ctx.move_to(Working { at, ..ctx.work.clone() }, why)
        }
        why => Decision::Wait(why),
    });
    Planned { value: next, effects }
}

/// The node has not rebooted yet, as far as one knows.
fn awaited(ctx: &NodeContext<'_>, reboot: &Reboot) -> Planned<Decision> {
    if legacy::is_reboot_over(ctx) {
        return Failure::RebootNotProved.into();
    }
    if waiter::saw_the_same_boot(ctx) {
        return Failure::BootIdStays.into();
    }
    let asked = waiter::says(ctx) == Some(reboot_state::REBOOTING);
    let known = reboot.left.is_some();
    let went_on = waiter::went_on(ctx).filter(|_| !known);
    if ctx.op.deleting && !asked && went_on.is_none() {
        return Failure::DeletedBeforeReboot { upgraded: ctx.op.intent.upgrade }.into();
    }
    let asked_for = asked || went_on.is_some();
    let held_back = if asked_for { Planned::from(None) } else { hold_back(ctx, reboot) };
    if held_back.value.is_none() && reboot.deadline.is_none() {
        return begins(ctx, reboot);
    }
    // Whatever became of the waiter: it has done its part, or it is seen to when the node is back.
    if went_on == Some(reboot_state::COMPLETED) || (asked && known && !ctx.node.ready) {
        return Waiting::Reboot.into();
    }
    let mut effects = Effects::act(settle(ctx, reboot));
    // Until it goes down, nothing is to be scheduled on it.
    let enforced = if ctx.node.ready { effects.absorb(claim_and_cordon(ctx)) } else { None };
    if let Some(next) = effects.absorb(held_back) {
        return next.with(effects);
    }
    let job = ctx.work.job.as_ref().map(|job| job.name.as_str()).unwrap_or_default();
    let next = match effects.absorb(waiter::ensure(ctx, job, Room::Made)) {
        Waiter::Decided(next) => next,
        Waiter::Starting(why) if ctx.node.ready => Decision::Wait(Waiting::RebootWaiterLost(why)),
        Waiter::Ready if known && ctx.node.ready && frees_its_waiter(ctx) => {
            effects.add(waiter::replace_unaware(ctx, due_since(ctx)));
            enforced.unwrap_or(Decision::Wait(Waiting::Reboot))
        }
        Waiter::NotAsked | Waiter::Ready | Waiter::Starting(_) => {
            enforced.unwrap_or(Decision::Wait(Waiting::Reboot))
        }
    };
    next.with(effects)
}

/// Since when the reboot is due.
fn due_since(ctx: &NodeContext<'_>) -> Timestamp {
    let timeout = ctx.op.intent.reboot_timeout;
    ctx.deadline(timeout).map_or(ctx.snapshot.now, |deadline| earlier(deadline, timeout))
}

/// Whether nothing of the Job keeps its waiter from the reboot. One that has failed, of a container of
/// somebody else, is no success to a waiter that is not told of it.
fn frees_its_waiter(ctx: &NodeContext<'_>) -> bool {
    ctx.recorded_job().is_none_or(|job| job.state.is_over())
}

/// A Job that has not completed although its operation succeeded, because of a container of somebody else, is
/// suspended: it must not start another pod when the node is back, and its waiter waits for its end.
fn settle(ctx: &NodeContext<'_>, reboot: &Reboot) -> Option<Action> {
    let (boot, job) = (reboot.left.clone()?, ctx.recorded_job()?);
    let runs = job.state == JobState::Active && !job.suspended && !job.deleting;
    (runs && !ctx.is_adopted()).then(|| Action::SettleJob { job: Target::of_job(job), boot })
}

/// Whether the node is in a later boot than the one in which the operation succeeded.
pub enum Arrival {
    No,
    Unconfirmed(Question),
    Proved,
}

/// Another boot id is not yet a later one: if the node rebooted by itself while its command ran, an old view
/// still shows the boot *before* the one in which the command succeeded. A kubelet reports its boot before it
/// runs a pod, so a live read after the success cannot be that old. Where the sentinel's word is lost, the
/// waiter's `completed` says the same: it compared the sentinel file with the boot that it was started in.
pub fn arrival(ctx: &NodeContext<'_>, reboot: &Reboot) -> Arrival {
    let shown = &ctx.node.boot_id;
    let completed = Some(reboot_state::COMPLETED)
        == match reboot.left {
            // Where both speak, the boot ids decide: the waiter may have meant an earlier attempt of the Job.
            Some(_) => waiter::says(ctx),
            None => waiter::went_on(ctx),
        };
    let other = reboot.left.as_ref().map_or(completed, |boot| shown != boot) && !shown.is_empty();
    let question = Question::Node(ctx.node.name.clone());
    match ctx.snapshot.answer(&question) {
        _ if other && reboot.seen.as_ref().is_some_and(|seen| seen.boot == *shown) => Arrival::Proved,
        _ if other && ctx.snapshot.returned_since(ctx.node).is_some() => Arrival::Proved,
        None if other || completed => Arrival::Unconfirmed(question),
        Some(_) if other => Arrival::Proved,
        Some(_) | None => Arrival::No,
    }
}

/// The deadline has passed: the reboot is given up. If it comes before the waiter has ended, it counts all
/// the same.
fn time_out(ctx: &NodeContext<'_>, reboot: &Reboot) -> Planned<Decision> {
    let stands = match (&reboot.left, ctx.node.ready) {
        (_, false) => RebootTimeout::Away,
        (Some(_), true) => match waiter::missing(ctx) {
            Some(why) => RebootTimeout::NoWaiter { why },
            // By somebody, or for a `ttlSecondsAfterFinished` that a policy has set.
            None if ctx.recorded_job().is_none() => RebootTimeout::JobDeleted,
            None => RebootTimeout::SameBoot,
        },
        (None, true) => RebootTimeout::Unknown,
    };
    Failure::RebootTimeout { seconds: ctx.op.intent.reboot_timeout.as_secs(), stands }.into()
}

/// The new boot shows; wait until the node has been Ready in it for long enough, by our own clock, since the
/// condition's own transition time survives a reboot.
fn back(ctx: &NodeContext<'_>, reboot: &Reboot, deadline: Timestamp) -> Planned<Decision> {
    let (now, boot) = (ctx.snapshot.now, ctx.node.boot_id.clone());
    let seen = reboot.seen.as_ref().filter(|seen| seen.boot == boot);
    let sees = |ready_since| {
        let next = Reboot { seen: Some(NewBoot { boot: boot.clone(), ready_since }), ..reboot.clone() };
        Planned::from(ctx.record(|work| work.at = At::Reboot(next)))
    };
    if !ctx.node.ready {
        if now >= deadline {
            return ctx.end(&End::NotReady { seconds: ctx.op.intent.reboot_timeout.as_secs() }).into();
        }
        return match seen {
            Some(NewBoot { ready_since: None, .. }) => Waiting::RebootedNotReady.into(),
            Some(_) | None => sees(None),
        };
    }
    let wait = ctx.op.intent.min_ready;
    match seen.and_then(|seen| seen.ready_since).map(|since| later(ctx.snapshot.begun_at(since), wait)) {
        _ if wait.is_zero() => proved(ctx),
        Some(at) if now >= at => proved(ctx),
        Some(at) => Waiting::RebootedReadyUntil(at).with(Effects::wake_at(at)),
        None => sees(Some(now.into())),
    }
}

/// The reboot is proved. What an upgraded node runs is read within seconds, as a rule; then the proof of that
/// is the next thing to be recorded.
fn proved(ctx: &NodeContext<'_>) -> Planned<Decision> {
    if !ctx.op.intent.upgrade {
        return ctx.end(&End::Rebooted).into();
    }
    let proof = verify::proof(ctx);
    if let Some(proof @ Proof::Proved(_)) = proof {
        return ctx.end(&End::Verified(proof)).into();
    }
    let read_by = ctx.snapshot.returned_since(ctx.node).map(|since| later(since, READ_WITHIN));
    if let Some(until) = read_by.filter(|until| proof.is_none() && ctx.snapshot.now < *until) {
        let told = ctx.entry.message.clone().unwrap_or_else(|| Waiting::Reboot.to_string());
        return Waiting::Returned { told }.with(Effects::wake_at(until));
    }
    let verify = Verify {
        boot: ctx.node.boot_id.clone(),
        ready_since: Some(ctx.snapshot.now.into()),
        deadline: later(ctx.snapshot.now, ctx.op.intent.verify_timeout).into(),
    };
    let reboot = Some(RebootStatus::Completed);
    let work = Working { at: At::Verify(verify), reboot, ..ctx.work.clone() };
    // What is about to be so is said with the step, and needs no write of its own.
    ctx.move_to(work, Waiting::Facts { obstacle: None }).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use crate::{
        api::{
            names,
            nodeop::{Phase, Step},
        },
        contract::Facts,
        plan::{
            fixtures,
            model::{
                action::{Action, NodeChange},
                effects::Plan,
                identity::Identified,
                question::Question,
                snapshot::{
                    ContainerState, ContainerView, Owner, PersistentFailure, PodPhase, PodView, Role,
                },
            },
            node::fixtures::{World, at},
        },
    };

    /// An upgraded node that has left boot b1, and is Ready in b2; nobody has recorded that.
    fn returned() -> World {
        let job = fixtures::job_name();
        let entry = json!({"phase": "Running", "step": "Reboot", "nodeUid": "n1", "jobName": job, "jobUid": "ju",
            "rebootStatus": "pending", "boot": "b1", "target": "v2", "deadline": Time(at(1800)), "lastUpdated": Time(at(0)),
            "message": "Job completed, the node reboots"});
        let mut world = World::new(entry);
        world = world.op(|op| op.spec.upgrade = serde_json::from_value(json!({"active": true})).unwrap());
        world.pass(1);
        world.node(|node| node.boot_id = "b2".into())
    }

    /// The pod that the plan makes has read this.
    fn reads(world: &mut World, out: &Plan, release: &str) {
        let made = out.actions.iter().find_map(|action| match action {
            Action::CreateFactsPod { name, .. } => Some(name.clone()),
            _ => None,
        });
        let facts = Facts {
            boot: "b2".into(),
            boot_state: "active".into(),
            kairos: true,
            version: Some(release.into()),
            ..Facts::default()
        };
        let message = serde_json::to_string(&facts).unwrap();
        let ended = ContainerState::Ended { code: 0, reason: "Completed".into(), message };
        let pod = PodView {
            name: made.expect("a pod that reads what the node runs"),
            phase: PodPhase::Succeeded,
            containers: vec![ContainerView::new(names::container::FACTS, ended)],
            ..fixtures::pod(Role::Facts, "f", Owner::node("n1", "n1"), "n1")
        };
        world.snapshot.facts_pods.insert(("ns".into(), pod.name.clone()), Arc::new(pod));
    }

    fn writes(out: &Plan) -> Vec<&Action> {
        let is_write =
            |action: &&Action| matches!(action, Action::PatchStatus { .. } | Action::PatchNode { .. });
        out.actions.iter().filter(is_write).collect()
    }

    fn patches(out: &Plan) -> Vec<NodeChange> {
        let patches = out.actions.iter().filter_map(|action| match action {
            Action::PatchNode { change, .. } => Some(change.clone()),
            _ => None,
        });
        patches.collect()
    }

    /// Not the boot, its end, the release, and that the node is given back, each with a write of its own.
    #[test]
    fn what_a_node_runs_that_is_read_at_once_is_written_with_its_end_and_with_its_release() {
        let mut world = returned();
        let out = world.pass(60);
        assert!(writes(&out).is_empty() && out.wake_at == Some(at(65)), "{:?}", out.actions);
        reads(&mut world, &out, "v2");
        let out = world.pass(62);
        let entry = world.entry();
        assert_eq!((entry.phase, entry.verified), (Phase::Completed, Some(true)), "{entry:?}");
        assert!(matches!(writes(&out)[..], [Action::PatchStatus { .. }]), "{:?}", out.actions);
        let out = world.pass(63);
        let [change] = &patches(&out)[..] else { panic!("{:?}", out.actions) };
        assert_eq!((&change.claimed_by, change.unschedulable), (&Some(None), Some(false)));
        assert_eq!(change.labels[names::MANAGED].as_deref(), Some("true"));
        assert_eq!(change.annotations[names::RELEASE].as_deref(), Some("v2"));
        // Somebody's policy may refuse the labels, and no node stays cordoned for that.
        let failure = PersistentFailure { since: at(63), message: "labels are refused".into() };
        let of_node = Action::patch_node(&world.snapshot.nodes["n1"], NodeChange::default()).id();
        world.snapshot.failures.insert(of_node, failure);
        let [release, facts] = &patches(&world.pass(64))[..] else { panic!() };
        assert_eq!((release.unschedulable, facts.unschedulable), (Some(false), None));
        assert!(release.labels.is_empty() && !facts.labels.is_empty(), "{release:?}");
    }

    #[test]
    fn what_is_not_read_at_once_or_proves_nothing_good_is_waited_for_in_a_step_of_its_own() {
        let mut slow = returned();
        slow.pass(60);
        slow.pass(64);
        assert_eq!(slow.entry().step, Some(Step::Reboot));
        slow.pass(65);
        assert_eq!(slow.entry().step, Some(Step::Verify));
        let mut wrong = returned();
        let out = wrong.pass(60);
        reads(&mut wrong, &out, "v1");
        wrong.pass(61);
        assert_eq!(wrong.entry().step, Some(Step::Verify));
        wrong.pass(62);
        assert_eq!(wrong.entry().phase, Phase::Failed);
    }

    /// An old view may show the boot before the one that is to be left: this is read live, once.
    #[test]
    fn that_it_is_back_is_read_once_and_again_in_another_boot() {
        let mut world = returned();
        let asks = |world: &World| {
            let plan = crate::plan::plan(&world.snapshot);
            plan.questions.contains(&Question::Node("n1".into()))
        };
        assert!(asks(&world));
        world.pass(60);
        world.snapshot.answers.clear();
        assert!(!asks(&world), "it is known");
        assert!(asks(&world.node(|node| node.boot_id = "b3".into())));
    }
}
