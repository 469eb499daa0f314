//! The loop: wait for a change, take a snapshot, plan, answer the plan's questions, act.
//!
//! One task, one plan at a time, for all NodeOps. Nothing in it waits for long: a drain or a reboot is many short passes.
//! Evictions, which the server may hold for ten seconds, run beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use super::{clock::Clock, evictions::Evictions, health::Health, lease::Leading, questions};
use crate::{
    act::{Actor, describe, is_conflict},
    observe::{Observer, Seen},
    plan::{
        self,
        action::{Action, Plan},
        question::{Answer, Question},
        snapshot::{OpRef, Settings, Snapshot},
    },
};

/// Rounds of questions in one pass; what is still open then is asked by the next pass.
const ROUNDS: usize = 4;
/// Actions under way at once.
const AT_ONCE: usize = 16;
/// Changes come in bursts: a Job's pod and its Job, a node and its pods.
const SETTLE: Duration = Duration::from_millis(10);
/// Even if nothing happens, so that a lost watch event costs minutes at most.
const IDLE: Duration = Duration::from_secs(300);
/// First and longest pause after an action failed; it doubles in between.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(120));

/// The loop's state.
#[derive(Debug)]
pub struct Planner {
    actor: Actor,
    observer: Observer,
    settings: Settings,
    clock: Clock,
    leading: watch::Receiver<Leading>,
    evictions: Evictions,
    health: Arc<Health>,
    failures: BTreeMap<String, Failure>,
    /// NodeOps whose last write failed, or got no answer and may have been applied: they are read live before the next plan.
    doubtful: BTreeSet<OpRef>,
}

/// An action that failed, and when it may be tried again.
#[derive(Debug)]
struct Failure {
    times: u32,
    until: Instant,
}

impl Planner {
    pub fn new(
        actor: Actor,
        observer: Observer,
        settings: Settings,
        clock: Clock,
        leading: watch::Receiver<Leading>,
        health: Arc<Health>,
    ) -> Self {
        let evictions = Evictions::new(actor.clone(), observer.clone(), clock.clone());
        Self { actor, observer, settings, clock, leading, evictions, health, failures: BTreeMap::new(), doubtful: BTreeSet::new() }
    }

    /// Plans until it is told to stop, or the task is ended. Told, it lets what is under way end.
    pub async fn run(mut self, stop: Arc<Notify>) {
        let mut wait = IDLE;
        loop {
            tokio::select! {
                biased;
                () = stop.notified() => return self.evictions.end().await,
                () = self.observer.changed() => sleep(SETTLE).await,
                _ = self.leading.changed() => {}
                () = sleep(wait) => {}
            }
            self.health.planned();
            let since = *self.leading.borrow_and_update();
            wait = match since {
                Some(since) if self.observer.ready() => self.pass(since).await,
                Some(_) | None => IDLE,
            };
        }
    }

    /// One pass; returns how long to wait for the next if nothing happens.
    async fn pass(&mut self, since: Timestamp) -> Duration {
        if !self.clear_doubts(since).await {
            return BACKOFF.0;
        }
        let (plan, snapshot) = self.plan(since).await;
        self.observer.watch_pods_of(&self.actor.client, &plan.drains);
        self.evictions.forget_all_but(&snapshot);
        for ((op, node), why) in &plan.waiting {
            debug!(op = format!("{}/{}", op.0, op.1), node, why, "waiting");
        }
        let wake = plan.wake_at.map(|at| until(snapshot.now, at));
        let retry = self.act(plan.actions).await;
        [Some(IDLE), wake, retry].into_iter().flatten().min().unwrap_or(IDLE)
    }

    /// Reads the NodeOps live whose last write is in doubt; whether all could be read. What is gone is no longer in doubt.
    async fn clear_doubts(&mut self, since: Timestamp) -> bool {
        if self.doubtful.is_empty() {
            return true;
        }
        let asked: BTreeSet<Question> = self.doubtful.iter().cloned().map(Question::Op).collect();
        let snapshot = self.observer.snapshot(&self.settings, self.clock.now(), since, BTreeMap::new(), BTreeMap::new());
        let found = questions::answer(&self.actor, &self.observer, &snapshot, asked).await;
        self.doubtful.retain(|op| !found.contains_key(&Question::Op(op.clone())));
        self.doubtful.is_empty()
    }

    /// Plans, and plans again with the answers to its questions: what is asked is meant to be known before acting.
    async fn plan(&self, since: Timestamp) -> (Plan, Snapshot) {
        let mut answers: BTreeMap<Question, Answer> = BTreeMap::new();
        let mut round = 0;
        loop {
            let snapshot = self.observer.snapshot(&self.settings, self.clock.now(), since, self.evictions.known(), answers.clone());
            let plan = plan::plan(&snapshot);
            let asked: BTreeSet<Question> = plan.questions.iter().filter(|question| !answers.contains_key(question)).cloned().collect();
            round += 1;
            if asked.is_empty() || round > ROUNDS {
                return (plan, snapshot);
            }
            let found = questions::answer(&self.actor, &self.observer, &snapshot, asked).await;
            if found.is_empty() {
                return (plan, snapshot);
            }
            answers.extend(found);
        }
    }

    /// Carries the actions out, side by side; returns when to try those again that failed.
    async fn act(&mut self, actions: Vec<Action>) -> Option<Duration> {
        let now = Instant::now();
        self.failures.retain(|_, failure| failure.until + BACKOFF.1 * 2 > now);
        let paused = |failures: &BTreeMap<String, Failure>, action: &Action| failures.get(&describe(action)).is_some_and(|f| f.until > now);
        let due: Vec<Action> = actions.into_iter().filter(|action| !paused(&self.failures, action)).collect();
        let mut under_way = Vec::new();
        for action in due {
            match action {
                Action::Evict { node, pod, grace_period_seconds } => self.evictions.start(node, pod, grace_period_seconds),
                other => under_way.push(other),
            }
        }
        let actor = &self.actor;
        let results: Vec<(String, Option<OpRef>, anyhow::Result<Vec<Seen>>)> = stream::iter(under_way)
            .map(|action| async move {
                let name = describe(&action);
                debug!("{name}");
                let result = actor.carry_out(&action).await;
                if result.is_ok() && !matches!(action, Action::Status { .. }) {
                    info!("{name}");
                }
                (name, written(&action), result)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (name, op, result) in results {
            self.doubtful.extend(op.filter(|_| result.is_err()));
            self.settle(name, result);
        }
        let next = self.failures.values().map(|failure| failure.until).filter(|until| *until > now).min();
        next.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Takes an action's result. What failed, or was planned from an old view, is planned again after a pause.
    fn settle(&mut self, name: String, result: anyhow::Result<Vec<Seen>>) {
        match result {
            Ok(seen) => {
                self.failures.remove(&name);
                seen.into_iter().for_each(|seen| self.observer.saw(seen));
            }
            Err(error) => {
                let failure = self.failures.entry(name.clone()).or_insert_with(|| Failure { times: 0, until: Instant::now() });
                let pause = (BACKOFF.0 * 2u32.saturating_pow(failure.times.min(16))).min(BACKOFF.1);
                failure.times += 1;
                failure.until = Instant::now() + pause;
                if is_conflict(&error) && failure.times < 3 {
                    debug!(error = format!("{error:#}"), "{name}: planned from an old view");
                } else {
                    warn!(error = format!("{error:#}"), retry_in = ?pause, "{name} failed");
                }
            }
        }
    }
}

/// The NodeOp that an action writes to.
fn written(action: &Action) -> Option<OpRef> {
    match action {
        Action::Status { op, status: _, notices: _ }
        | Action::Finalizers { op, finalizers: _ }
        | Action::Conclude { op, finalizers: _ } => Some(OpRef::of(op)),
        Action::PassOn { child, concurrency: _, stop_on_failure: _ } => Some(OpRef::of(child)),
        Action::Node { .. }
        | Action::MakeChild { .. }
        | Action::UpgradeStatus { .. }
        | Action::MakeFacts { .. }
        | Action::MakePreflight { .. }
        | Action::MakeWaiter { .. }
        | Action::MakeJob { .. }
        | Action::ResumeJob { .. }
        | Action::ExtendJob { .. }
        | Action::DeleteJob { .. }
        | Action::DeletePod { .. }
        | Action::Evict { .. } => None,
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO).max(Duration::from_millis(1))
}
