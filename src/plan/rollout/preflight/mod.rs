//! The preflight of a node: a pod that disturbs nothing, ahead of its turn.
//!
//! A verdict is the command's own exit code, or its deadline, and it counts for a node that nobody else has,
//! in the boot in which it was asked, confirmed by a live read when it is recorded. A user's command that
//! fails is run again by the kubelet, in the same pod, until it succeeds or its deadline is over (see
//! [`again`]). A pod that was refused, evicted, shut down with its node or deleted says nothing, and is made
//! again (see [`lost`]). What no waiting helps fails the node at once.
//!
//! Times are counted from when we first saw the pod, and its container run: the node has a clock of its own.

mod again;
mod lost;
mod reason;
mod room;
mod starts;

use std::{fmt, sync::Arc};

use k8s_openapi::jiff::Timestamp;

use self::{
    again::Again,
    reason::{Interrupted, Lost},
};
pub use self::{
    reason::{Asking, PreflightFailure},
    starts::waits_with_it,
};
use crate::{
    api::{names::container, node_status::NodeReason, node_statuses::Mark, nodeop::Phase},
    contract::{EXIT_PERMANENT, Proceed},
    plan::{
        image,
        model::{
            action::{Action, Target},
            effects::{Effects, Planned},
            intent::Asks,
            question::Question,
            snapshot::{ContainerState, Ended, NodeView, PodView, Role, Snapshot},
            time::later,
        },
        node::{
            context::{EntryPlan, Op},
            state::{Entry, ImageRecord, Over, Pending, Preflight, State},
        },
        rollout::{
            context::{Rollout, RolloutContext},
            not_taken::{NotTaken, Untouched},
        },
    },
};

/// Everything that a preflight's step looks at.
#[derive(Clone, Copy, Debug)]
struct PreflightContext<'a> {
    snapshot: &'a Snapshot,
    op: &'a Op,
    /// The node's name.
    name: &'a str,
    /// What stands in the status about the node …
    entry: &'a Entry,
    /// … and about its preflight.
    record: &'a Preflight,
}

/// What is said of a node that ran short of disk while its image was pulled. Its workloads are evicted for
/// what is pulled, and no disruption budget is asked: that ends.
const DISK_PRESSURE: &str = "the node ran short of disk (DiskPressure) before the check began";

/// The record of a preflight that is to run.
///
/// A verdict that is outdated has a pod, which may still be seen: the next attempt must not read its verdict
/// again.
pub fn begin(node: &NodeView, pending: &Pending) -> Preflight {
    let again = pending.passed_in.is_some() || pending.attempt.is_some();
    Preflight {
        begun_in: Some(node.boot_id.clone()),
        attempt: again.then(|| pending.attempt.unwrap_or(0).saturating_add(1)),
        lost_at: None,
    }
}

/// What becomes of a node in phase `Preflight` whose rollout starts nothing more: it is as untouched as the
/// others, and its pod goes.
pub fn withdrawn(now: Timestamp, entry: &Entry, record: &Preflight) -> Entry {
    let (message, since, state) = (None, Some(now.into()), State::Pending(unasked(record)));
    Entry { message, since, state, ..entry.clone() }
}

/// A node whose preflight has come to no verdict.
fn unasked(record: &Preflight) -> Pending {
    Pending { attempt: Some(record.attempt.unwrap_or(0)), ..Pending::default() }
}

/// Advances a node in phase `Preflight`.
pub fn advance(
    rollout: &RolloutContext<'_>,
    name: &str,
    entry: &Entry,
    record: &Preflight,
) -> Planned<EntryPlan> {
    let RolloutContext { snapshot, op, .. } = *rollout;
    let ctx = PreflightContext { snapshot, op, name, entry, record };
    if op.deleting {
        return EntryPlan::Record(Box::new(withdrawn(snapshot.now, entry, record))).into();
    }
    // A node that went away says nothing, and must not keep others from being looked at.
    let Some(node) = snapshot.nodes.get(name).filter(|node| node.ready) else {
        return ctx.reset(Interrupted::NodeNotReady).into();
    };
    if record.begun_in.as_ref() != Some(&node.boot_id) {
        return ctx.rebooted(node).into();
    }
    if node.labels.on_hold() {
        return ctx.reset(Interrupted::NotTaken(NotTaken::OnHold)).into();
    }
    let others = rollout.others();
    if let Some(why) = others.and_then(|others| others.precede(node)) {
        return ctx.reset(Interrupted::NotTaken(why)).into();
    }
    let next = ctx.ask(node);
    let decides =
        matches!(&next.value, EntryPlan::Record(next) if !matches!(next.state, State::Preflight(_)));
    let questions =
        others.map_or_else(|| vec![Question::Node(node.name.clone())], |others| others.questions(node));
    let open = snapshot.unanswered(questions);
    if !decides || !open.is_asking() {
        return next;
    }
    wait(Asking::Confirming).with(next.effects).with(open)
}

fn wait(why: Asking) -> Planned<EntryPlan> {
    EntryPlan::Wait(why.into()).into()
}

impl PreflightContext<'_> {
    /// What the node's pod says, or is about to.
    fn ask(&self, node: &NodeView) -> Planned<EntryPlan> {
        let name = self.op.object_name(&node.name, "preflight", self.record.attempt.unwrap_or(0));
        let Some(pod) = self.snapshot.pods.get(&(self.op.id.namespace.clone(), name.clone())) else {
            if let Some(pause) = self.pause() {
                return pause;
            }
            let (op, node) = (self.op.object.clone(), node.name.clone());
            return wait(Asking::Runs).with(Action::CreatePreflightPod { op, node, name });
        };
        if pod.role != Role::Preflight || !pod.is_of(&self.op.id) || pod.node != node.name {
            return self.foreign(pod).into();
        }
        if let Some(refused) = refused_image(pod) {
            return self.fail(PreflightFailure::Ended(refused.to_string())).into();
        }
        if node.disk_pressure && pod.is_active() && !pod.has_begun() {
            return self.again(Lost::NoRoom(DISK_PRESSURE.into())).into();
        }
        let Some(check) = pod.container_view(container::PREFLIGHT) else {
            return self.not_started(pod);
        };
        let again = again::of(self.op, pod, check);
        match (&check.state, again) {
            (_, Again::Later(last)) => self.running(pod, Some(last)),
            (_, Again::Never(ended)) => self.fail(PreflightFailure::Ended(ended.to_string())).into(),
            (_, Again::AsNew) | (ContainerState::Waiting { .. }, Again::No) => self.not_started(pod),
            (ContainerState::Running { .. }, Again::No) => self.running(pod, None),
            (ContainerState::Ended { code, reason, message }, Again::No) => {
                let ended = Ended { code: *code, reason: reason.clone(), message: message.clone() };
                self.verdict(node, pod, &ended).into()
            }
        }
    }

    /// The container has ended.
    fn verdict(&self, node: &NodeView, pod: &PodView, ended: &Ended) -> EntryPlan {
        if ended.code != 0 {
            return match lost::says_nothing(pod, ended) {
                true => self.again(lost::reason(pod)),
                false => self.fail(PreflightFailure::Ended(ended.to_string())),
            };
        }
        match image::compare(self.snapshot, &self.op.object, pod) {
            image::Compared::Differs(why) => return self.fail(PreflightFailure::OtherContent(why)),
            // What it is compared with stands in status before anything follows from it.
            image::Compared::First => return EntryPlan::Wait(Asking::Runs.into()),
            image::Compared::Same | image::Compared::Unknown => {}
        }
        let said = proceed(self.op, pod);
        if said.as_ref().is_some_and(|said| said.boot != node.boot_id) {
            return self.again(Lost::OtherBoot);
        }
        match ended.message.trim() {
            message if said.is_none() && !message.is_empty() => {
                let found = pod.container(container::PREFLIGHT).filter(|_| asks_release(self.op));
                let why = found
                    .and_then(ContainerState::says_up_to_date)
                    .map_or_else(|| Untouched::NotNeeded(message.to_owned()), Untouched::UpToDate);
                self.ends(why.reason(), why.release(), why.to_string())
            }
            _ => {
                let (before, target) = said.map_or((None, None), |said| (said.before, said.target));
                let image = image::pinned(self.snapshot, &self.op.object, pod);
                let found = ImageRecord { before, target, image, not_tried: None };
                let passed_in = Some(node.boot_id.clone());
                self.moves(
                    State::Pending(Pending { passed_in, found, ..unasked(self.record) }),
                    "Preflight passed",
                )
            }
        }
    }

    /// The check runs, or will again after it ended as `last` says, for as long as it may.
    fn running(&self, pod: &PodView, last: Option<Ended>) -> Planned<EntryPlan> {
        let limit = self.op.intent.preflight.deadline;
        let deadline = later(self.snapshot.checking_since(pod), limit);
        let last = last.map(|last| last.to_string());
        if self.snapshot.now >= deadline {
            let failure = match last {
                Some(last) => PreflightFailure::NeverSucceeded { limit, last },
                None => PreflightFailure::RanFor(limit),
            };
            return self.fail(failure).into();
        }
        wait(last.map_or(Asking::Runs, |last| Asking::RunsAgain { last })).with(Effects::wake_at(deadline))
    }

    /// The node fails; or it is looked at again when nobody else has it any more.
    fn fail(&self, why: PreflightFailure) -> EntryPlan {
        match self.holder().filter(|_| why.may_pass()) {
            Some(holder) => self.reset(Interrupted::NotTaken(holder)),
            None => self.ends(why.reason(), None, why.to_string()),
        }
    }

    fn ends(&self, reason: Option<NodeReason>, target: Option<String>, message: String) -> EntryPlan {
        self.moves(State::Over(Over::untouched(reason, target)), message)
    }

    /// Ends the preflight without a verdict: the node is pending again, and says why its check was broken
    /// off.
    fn reset(&self, why: Interrupted) -> EntryPlan {
        self.moves(State::Pending(unasked(self.record)), why)
    }

    fn moves(&self, state: State, message: impl fmt::Display) -> EntryPlan {
        EntryPlan::Record(Box::new(self.entry.moved(self.snapshot.now, state, message)))
    }
}

/// How our look at the operation's image ended, ahead of a check of the user's, if it found that the image
/// can't run the command. The kubelet would let it look again.
fn refused_image(pod: &PodView) -> Option<Ended> {
    let look = pod.container_view(container::IMAGE_CHECK)?;
    look.ended().or_else(|| look.last.clone()).filter(|ended| ended.code == i32::from(EXIT_PERMANENT))
}

/// Whether it is our own check for the release that is asked, and not a user's command.
fn asks_release(op: &Op) -> bool {
    op.intent.preflight.asks == Asks::Release
}

/// Our own check's record that the node may go ahead, and what it found. The same text from a user's command
/// skips the node, as all of its output does.
fn proceed(op: &Op, pod: &PodView) -> Option<Proceed> {
    let said = pod.container(container::PREFLIGHT).filter(|_| asks_release(op))?.parsed_message::<Proceed>();
    said.filter(|record| record.proceed)
}

/// Somebody else has to do with the node: what was found out about it is forgotten, and asked again under
/// another name.
pub fn forget(pending: &Pending) -> Pending {
    if pending.passed_in.is_none() {
        return pending.clone();
    }
    let attempt = pending.attempt.or(Some(0));
    Pending { attempt, not_ready_since: pending.not_ready_since, ..Pending::default() }
}

/// Ends the preflights that are under way, if the rollout starts nothing more; and those that have not begun,
/// if they may take what a node in progress needs.
pub fn withdraw(ctx: &RolloutContext<'_>, mut rollout: Rollout) -> Rollout {
    let progress = &rollout.progress;
    let ends = progress.stopped.is_some() || progress.refused.is_some();
    if !ends && !progress.starves {
        return rollout;
    }
    let before = rollout.nodes.clone();
    for (name, status) in before.marked([Mark::Preflight]) {
        let entry = Entry::read(status);
        let State::Preflight(record) = &entry.state else { continue };
        if ends || !has_begun(ctx.snapshot, ctx.op, name, record) {
            rollout.nodes.insert(name, withdrawn(ctx.snapshot.now, &entry, record).record());
        }
    }
    rollout
}

/// The node's present preflight pod.
pub fn pod<'a>(snapshot: &'a Snapshot, op: &Op, node: &str, record: &Preflight) -> Option<&'a Arc<PodView>> {
    let name = op.object_name(node, "preflight", record.attempt.unwrap_or(0));
    snapshot.pods.get(&(op.id.namespace.clone(), name))
}

/// Whether its check was started.
pub fn has_begun(snapshot: &Snapshot, op: &Op, node: &str, record: &Preflight) -> bool {
    pod(snapshot, op, node, record).is_some_and(|pod| pod.has_begun())
}

/// Deletes preflight pods whose verdict is recorded, or no longer wanted.
pub fn sweep(snapshot: &Snapshot, op: &Op) -> Effects {
    let Some(status) = &op.object.status else { return Effects::default() };
    let is_wanted = |pod: &PodView| {
        let entry = status.node_statuses.get(&pod.node);
        let attempt = entry.and_then(|entry| entry.attempt).unwrap_or(0);
        entry.is_some_and(|entry| entry.phase == Phase::Preflight)
            && pod.name == op.object_name(&pod.node, "preflight", attempt)
    };
    let unwanted = snapshot.pods_of(&op.id, Role::Preflight).filter(|pod| !pod.deleting && !is_wanted(pod));
    let why = "its verdict is recorded";
    Effects::act(unwanted.map(|pod| Action::DeletePod { pod: Target::of(pod), why }))
}

#[cfg(test)]
mod tests;
