//! The reboot waiter of a node that is worked on: there before the Job may start, there again if it was lost.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    contract::{EXIT_SAME_BOOT, Succeeded, reboot_state},
    plan::{
        model::{
            action::{Action, Target},
            effects::{Effects, Planned},
            failing,
            id::Key,
            question::Question,
            snapshot::{PodView, Role, brief},
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            failure::Failure,
            state::{At, WaiterRecord},
            waiting::Starting,
        },
        pod_news,
    },
};

/// The pause before another waiter, for each one that was lost.
const BACKOFF: SignedDuration = SignedDuration::from_secs(5);
/// The pause before another waiter, at most. A node that ends its pods at once must not be fed with them.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(120);
/// A waiter that watches may take as long as this to hear that its reboot is due.
const HEARS_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// How long a node and its waiter may be seen in different boots, after one that nobody asked for: until its
/// kubelet has started the waiter again.
const TELLS_WITHIN: SignedDuration = SignedDuration::from_secs(120);
/// Before the operation has started, a node on which this number of waiters were lost is given up, however
/// long each may take to start.
const MAX_ATTEMPTS: i32 = 50;

/// Where the waiter stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiter {
    /// No reboot is asked for.
    NotAsked,
    /// It stands, and watches.
    Ready,
    /// Not yet, and why.
    Starting(Starting),
    /// It ended without a reboot, and the next attempt is to be recorded; or it did not get ready in the time
    /// that it has, or never will.
    Decided(Decision),
}

/// Whether the node has the room that its drain makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Made,
    /// The drain goes on, or is still to begin. A waiter that the node has no room for waits for it: no pod
    /// is ever pushed aside for a waiter.
    Awaited,
}

/// Sees to it that the node's waiter exists.
pub fn ensure(ctx: &NodeContext<'_>, job: &str, room: Room) -> Planned<Waiter> {
    if !ctx.op.intent.reboot {
        return Waiter::NotAsked.into();
    }
    if ctx.is_adopted() {
        return Waiter::Ready.into();
    }
    let attempt = ctx.work.waiter.number();
    let name = ctx.op.object_name(&ctx.node.name, "reboot", attempt);
    let key = (ctx.op.id.namespace.clone(), name.clone());
    let Some(pod) = ctx.snapshot.pods.get(&key) else {
        return vanished(ctx, key, attempt).unwrap_or_else(|| make(ctx, name, job, attempt));
    };
    if !pod.is_of(&ctx.op.id) {
        return under_another_name(ctx, attempt).into();
    }
    if !pod.is_active() {
        return lost(ctx, pod, attempt, room);
    }
    let state = pod.reboot_state.as_deref();
    // What it said when it came up is not so any more: the node may have rebooted by itself without the file
    // system that its state is on.
    if state == Some(reboot_state::WAITING)
        && may_give_up(ctx)
        && ctx.node.ready
        && let Some(obstacle) = pod.held_up()
    {
        return replace_broken(pod, obstacle.text);
    }
    match state {
        Some(reboot_state::WAITING | reboot_state::REBOOTING | reboot_state::COMPLETED) => stands(ctx, key),
        // It says that once, and somebody has taken the annotation off.
        _ if may_give_up(ctx) && has_stood(ctx, &pod.name) => {
            replace_broken(pod, "its annotation was taken off".into())
        }
        _ => starting(ctx, pod),
    }
}

/// The waiter stands; but one that reads another boot id than the node's kubelet is of no use. A reboot is
/// known by the boot id alone, so that it would be said to be proved before it came. After a boot of its own
/// the node may say so before its waiter does.
fn stands(ctx: &NodeContext<'_>, key: Key) -> Planned<Waiter> {
    let apart = ctx.snapshot.waiter_apart_since(&ctx.op.id, &ctx.node.name).filter(|_| may_give_up(ctx));
    let Some(since) = apart else { return Waiter::Ready.into() };
    let until = later(since, TELLS_WITHIN);
    let waits = Planned::from(Waiter::Starting(Starting::OtherBoot));
    if ctx.snapshot.now < until {
        return waits.with(Effects::wake_at(until));
    }
    // An old view of either may show an earlier boot.
    let questions = [Question::Node(ctx.node.name.clone()), Question::Pod(key)];
    if !ctx.node.ready {
        return waits;
    }
    let open = ctx.snapshot.unanswered(questions);
    if open.is_asking() {
        return waits.with(open);
    }
    Waiter::Decided(Failure::OtherBoot.gives_up()).into()
}

/// Whether we have seen the waiter of this name stand.
fn has_stood(ctx: &NodeContext<'_>, name: &str) -> bool {
    ctx.snapshot.waiter_stood_until(&ctx.op.id, &ctx.node.name, name).is_some()
}

/// Ends a waiter that stood and cannot run any more, or does not say so any more, before anything relies on
/// it. The next one has to show that it can.
fn replace_broken(pod: &PodView, why: String) -> Planned<Waiter> {
    let end = Action::DeletePod { pod: Target::of(pod), why: "it does not stand any more" };
    Planned::from(Waiter::Starting(Starting::HeldUp { why })).with(end)
}

/// One that stood has gone, and counts as lost like one whose pod tells how it ended. Whoever leads anew has
/// not seen it stand, makes another under its name, and gives it the whole time as well. Once the operation
/// has succeeded there is no time but that of the reboot, and nothing to count.
fn vanished(ctx: &NodeContext<'_>, key: Key, attempt: i32) -> Option<Planned<Waiter>> {
    ctx.snapshot.waiter_stood_until(&ctx.op.id, &ctx.node.name, &key.1).filter(|_| may_give_up(ctx))?;
    let question = Question::Pod(key);
    if ctx.snapshot.is_gone(&question) {
        return Some(next_attempt(ctx, "somebody deleted it", attempt, true).into());
    }
    Some(in_time(ctx, Starting::OldOneDeleted).with(ctx.snapshot.unanswered([question])))
}

/// The waiter is there, and has not said yet that it watches.
fn starting(ctx: &NodeContext<'_>, pod: &PodView) -> Planned<Waiter> {
    let obstacle = pod.obstacle();
    if let Some(obstacle) = obstacle.as_ref().filter(|obstacle| obstacle.permanent)
        && may_give_up(ctx)
    {
        return cannot_start(obstacle.text.clone()).into();
    }
    let mut effects = Effects::default();
    let told = obstacle
        .map(|obstacle| obstacle.text)
        .or_else(|| effects.absorb(pod_news::event_message(ctx.snapshot, pod)).map(|told| told.to_string()));
    if told.is_none() && pod_news::is_asked(ctx.snapshot, pod, &effects) {
        // Not given up for a reason that is just being read.
        return Planned { value: Waiter::Starting(Starting::Starts), effects };
    }
    in_time(ctx, told.map_or(Starting::Starts, |why| Starting::HeldUp { why })).with(effects)
}

fn cannot_start(why: String) -> Waiter {
    Waiter::Decided(Failure::WaiterCannotStart { why }.gives_up())
}

fn make(ctx: &NodeContext<'_>, name: String, job: &str, attempt: i32) -> Planned<Waiter> {
    if attempt > 0 {
        // No record of when it was lost: long ago, in an earlier step.
        if let Some(until) = made_at(ctx).filter(|until| ctx.snapshot.now < *until) {
            let why = Starting::Pause { lost: attempt, last: last_lost(ctx, attempt), until: Some(until) };
            return in_time(ctx, why).with(Effects::wake_at(until));
        }
    }
    let make = creation(ctx, name, job);
    // As long as it is wanted, what keeps failing is said with it; of one that is given up nothing is wanted.
    let fails = failing::of(ctx.snapshot, &make).filter(|_| ctx.snapshot.now >= until(ctx));
    in_time(ctx, fails.map_or(Starting::Starts, |why| Starting::HeldUp { why })).with(make)
}

fn creation(ctx: &NodeContext<'_>, name: String, job: &str) -> Action {
    let (op, node) = (ctx.op.object.clone(), ctx.node.name.clone());
    Action::CreateWaiter { op, node, name, job: job.to_owned(), succeeded: succeeded(ctx) }
}

/// Why the API server does not let us make the waiter, if it has not for a while.
pub fn not_made(ctx: &NodeContext<'_>) -> Option<Starting> {
    let job = ctx.op.object_name(&ctx.node.name, "", 0);
    let name = ctx.op.object_name(&ctx.node.name, "reboot", ctx.work.waiter.number());
    let why = failing::of(ctx.snapshot, &creation(ctx, name, &job)).filter(|_| ctx.op.intent.reboot)?;
    Some(Starting::HeldUp { why })
}

/// When the present waiter may be made at the earliest: a while after the one before was lost.
fn made_at(ctx: &NodeContext<'_>) -> Option<Timestamp> {
    let pause = (BACKOFF * ctx.work.waiter.number()).min(MAX_BACKOFF);
    ctx.work.waiter.lost_at.map(|lost| later(ctx.snapshot.begun_at(lost), pause))
}

/// Ends a waiter that watches and has not heard that its reboot is due, as it is since `due`: somebody took
/// away its account or its Role, or it does not reach the API server any more. The next one gets both anew,
/// and is told. Should this one have asked for the reboot meanwhile, then the next one finds another boot and
/// nothing to do.
pub fn replace_unaware(ctx: &NodeContext<'_>, due: Timestamp) -> Effects {
    let watches =
        |pod: &&PodView| pod.is_active() && pod.reboot_state.as_deref() == Some(reboot_state::WAITING);
    let Some(pod) = present(ctx).filter(watches) else { return Effects::default() };
    let made = made_at(ctx);
    let until = later(made.map_or(due, |made| made.max(due)), HEARS_WITHIN);
    if ctx.snapshot.now < until {
        return Effects::wake_at(until);
    }
    let why = "it does not hear that its reboot is due";
    Effects::act([Action::DeletePod { pod: Target::of(pod), why }])
}

/// What is recorded of a Job that has succeeded. It may have been deleted since, by somebody or for its
/// `ttlSecondsAfterFinished`, before its waiter knew: the reboot is due all the same.
fn succeeded(ctx: &NodeContext<'_>) -> Option<Succeeded> {
    let boot = ctx.work.boot_to_leave()?.to_owned();
    Some(Succeeded { job_uid: ctx.work.job_uid()?.to_owned(), boot })
}

/// Why the waiter before this attempt was lost, while its pod is there to tell.
fn last_lost(ctx: &NodeContext<'_>, attempt: i32) -> Option<String> {
    let name = ctx.op.object_name(&ctx.node.name, "reboot", attempt.saturating_sub(1));
    let pod = ctx.snapshot.pods.get(&(ctx.op.id.namespace.clone(), name))?;
    if !pod.is_of(&ctx.op.id) {
        return Some(not_ours(pod));
    }
    let own = || pod.containers.iter().filter(|container| container.is_ours());
    let said = || own().find_map(|container| Some(container.ended()?.message));
    pod.obstacle()
        .map(|obstacle| obstacle.text)
        .or_else(|| said().map(|said| brief(&said)))
        .filter(|why| !why.is_empty())
}

fn not_ours(pod: &PodView) -> String {
    format!("a pod {}/{} exists that is not ours", pod.namespace, pod.name)
}

fn lost(ctx: &NodeContext<'_>, pod: &PodView, attempt: i32, room: Room) -> Planned<Waiter> {
    if pod.deleting && !pod.phase.is_final() {
        return in_time(ctx, Starting::OldOneDeleted);
    }
    let obstacle = pod.obstacle();
    let why = obstacle.as_ref().map_or_else(|| "its pod ended".to_owned(), |obstacle| obstacle.text.clone());
    if obstacle.is_some_and(|obstacle| obstacle.permanent) && may_give_up(ctx) {
        return cannot_start(why).into();
    }
    let refused = !pod.has_run();
    if refused && room == Room::Awaited {
        return Waiter::Starting(Starting::NoRoomYet { why }).into();
    }
    // One that stood, or that had to wait for the drain, leaves its successor the whole time; one that never
    // stood does not.
    let anew = pod.reboot_state.is_some()
        || (refused && ctx.op.intent.drain.is_some() && ctx.work.waiter.wanted_since.is_none());
    next_attempt(ctx, &why, attempt, anew).into()
}

/// Records the next attempt; `anew`: it has the whole time to get ready.
fn next_attempt(ctx: &NodeContext<'_>, why: &str, attempt: i32, anew: bool) -> Waiter {
    if attempt >= MAX_ATTEMPTS && may_give_up(ctx) {
        let failure = Failure::WaiterLost { times: attempt, why: why.to_owned() };
        return Waiter::Decided(failure.gives_up());
    }
    let now = ctx.snapshot.now;
    Waiter::Decided(ctx.record(|work| {
        let wanted_since = if anew { Some(now.into()) } else { work.waiter.wanted_since };
        let attempt = Some(attempt.saturating_add(1));
        work.waiter = WaiterRecord { attempt, lost_at: Some(now.into()), wanted_since };
    }))
}

/// Somebody else's pod stands in the name, and in nothing else. No waiter of ours was lost, so the next name
/// is taken at once, and its waiter has the whole time. The names can be computed by whoever has the
/// credentials of another node and knows the NodeOp's UID: however many he takes, he cannot fail this one.
fn under_another_name(ctx: &NodeContext<'_>, attempt: i32) -> Waiter {
    Waiter::Decided(ctx.record(|work| {
        let (attempt, wanted_since) = (Some(attempt.saturating_add(1)), Some(ctx.snapshot.now.into()));
        work.waiter = WaiterRecord { attempt, lost_at: None, wanted_since };
    }))
}

/// Whether the node can still be given up for its waiter: not once the operation has succeeded, then it has
/// to reboot.
fn may_give_up(ctx: &NodeContext<'_>) -> bool {
    !matches!(ctx.work.at, At::Reboot(_))
}

/// Until when a waiter may take to get ready: `pullTimeoutSeconds`, once, from when it was wanted, or from
/// when the present one is not seen to stand any more: the drain may have taken hours by then. Once the
/// operation has succeeded, for as long as its reboot is waited for.
fn until(ctx: &NodeContext<'_>) -> Timestamp {
    if !may_give_up(ctx) {
        return ctx.deadline(ctx.op.intent.reboot_timeout).unwrap_or(ctx.snapshot.now);
    }
    let begun = match &ctx.work.at {
        // Before that the API server may not have let us claim the node for hours.
        At::Claim { .. } => Some(ctx.snapshot.claimed_since(&ctx.op.id, &ctx.node.name).into()),
        At::Drain(drain) => Some(drain.started),
        At::Job(_) | At::Reboot(_) | At::Verify(_) => ctx.entry.since,
    };
    let wanted = ctx.work.waiter.wanted_since.or(begun);
    let name = ctx.op.object_name(&ctx.node.name, "reboot", ctx.work.waiter.number());
    let stood = ctx.snapshot.waiter_stood_until(&ctx.op.id, &ctx.node.name, &name);
    let since = ctx.begun_at(begun).max(ctx.begun_at(wanted));
    later(stood.map_or(since, |until| until.max(since)), ctx.op.intent.pull_timeout)
}

/// Waits for a waiter, for as long as it may take to get ready.
fn in_time(ctx: &NodeContext<'_>, why: Starting) -> Planned<Waiter> {
    if !may_give_up(ctx) {
        return Waiter::Starting(why).into();
    }
    let deadline = until(ctx);
    if ctx.snapshot.now >= deadline {
        let seconds = ctx.op.intent.pull_timeout.as_secs();
        return Waiter::Decided(Failure::WaiterLate { seconds, why: why.in_the_end() }.gives_up()).into();
    }
    Planned::from(Waiter::Starting(why)).with(Effects::wake_at(deadline))
}

/// Why no waiter stands, where one was to reboot the node until now.
pub fn missing(ctx: &NodeContext<'_>) -> Option<String> {
    let job = ctx.work.job.as_ref().map(|job| job.name.as_str()).unwrap_or_default();
    match ensure(ctx, job, Room::Made).value {
        Waiter::Starting(why) => Some(why.in_the_end().to_string()),
        Waiter::Decided(_) => last_lost(ctx, ctx.work.waiter.number().saturating_add(1)),
        Waiter::NotAsked | Waiter::Ready => None,
    }
}

/// The pod of the node's present waiter, if it is there and ours.
fn present<'a>(ctx: &'a NodeContext<'_>) -> Option<&'a PodView> {
    let name = ctx.op.object_name(&ctx.node.name, "reboot", ctx.work.waiter.number());
    let pod = ctx.snapshot.pods.get(&(ctx.op.id.namespace.clone(), name))?;
    pod.is_of(&ctx.op.id).then_some(&**pod)
}

/// Whether the node's present waiter is there to reboot it.
pub fn is_there(ctx: &NodeContext<'_>) -> bool {
    present(ctx).is_some_and(PodView::is_active)
}

/// What the node's present waiter says of itself.
pub fn says<'a>(ctx: &'a NodeContext<'_>) -> Option<&'a str> {
    present(ctx)?.reboot_state.as_deref()
}

/// Whether the node's present waiter has seen that the node started anew since it asked for the reboot, and
/// that its boot id is what it was.
pub fn saw_the_same_boot(ctx: &NodeContext<'_>) -> bool {
    let ours = present(ctx).into_iter().flat_map(|pod| &pod.containers).filter(|it| it.is_ours());
    let mut ends = ours.flat_map(|it| [it.ended(), it.last.clone()]).flatten();
    ends.any(|ended| ended.code == i32::from(EXIT_SAME_BOOT))
}

/// Whether the node's present waiter is over, as its pod tells, and has not said that it reboots the node.
pub fn ended_without_asking(ctx: &NodeContext<'_>) -> bool {
    let asked = says(ctx) == Some(reboot_state::REBOOTING);
    present(ctx).is_some_and(|pod| !pod.is_active() && !asked)
}

/// Whether a waiter of this node said that the reboot is under way or over: it had seen the Job `Complete` by
/// then.
pub fn went_on(ctx: &NodeContext<'_>) -> Option<&'static str> {
    let here = ctx.snapshot.pods_of_on(&ctx.op.id, Role::Waiter, &ctx.node.name);
    let states: Vec<&str> = here.filter_map(|pod| pod.reboot_state.as_deref()).collect();
    [reboot_state::COMPLETED, reboot_state::REBOOTING].into_iter().find(|state| states.contains(state))
}

#[cfg(test)]
mod tests;
