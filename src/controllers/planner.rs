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

use super::{
    admissions::Admissions,
    clock::Clock,
    evictions::Evictions,
    failures::{Failures, Said},
    health::Health,
    lease::Leading,
    questions,
    repeats::{self, Repeats},
};
use crate::{
    act::{self, Actor, is_conflict},
    observe::{Observer, Seen},
    plan::{
        self,
        model::{
            action::{Action, Plan},
            id::OpRef,
            question::{Answer, Question},
            snapshot::{Settings, Snapshot},
        },
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
/// The longest pause after an action failed, and after a question had no answer. An answer is cheap, and nodes wait for it.
const PAUSES: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(30));
/// The longest pause before a NodeOp that is in doubt is read again: nothing is planned meanwhile.
const DOUBT: Duration = Duration::from_secs(5);

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
    failures: Failures,
    admissions: Admissions,
    repeats: Repeats,
    /// NodeOps whose last write failed, or got no answer and may have been applied: they are read live before the next plan.
    doubtful: BTreeSet<OpRef>,
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
        Self {
            actor,
            observer,
            settings,
            failures: Failures::new(clock.clone()),
            clock,
            leading,
            evictions,
            health,
            admissions: Admissions::default(),
            repeats: Repeats::default(),
            doubtful: BTreeSet::new(),
        }
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
        self.failures.forget_old(Instant::now());
        if !self.clear_doubts(since).await {
            self.complain().await;
            return self.failures.next(Instant::now()).unwrap_or(DOUBT);
        }
        let (plan, snapshot) = self.plan(since).await;
        self.observer.watch_pods_of(&self.actor.client, &plan.drains);
        self.evictions.forget_all_but(&snapshot);
        for ((op, node), why) in &plan.waiting {
            debug!(op = format!("{}/{}", op.0, op.1), node, why, "waiting");
        }
        let wake = plan.wake_at.map(|at| until(snapshot.now, at));
        self.act(plan.actions).await;
        self.complain().await;
        [Some(IDLE), wake, self.failures.next(Instant::now())].into_iter().flatten().min().unwrap_or(IDLE)
    }

    /// Reads the NodeOps live whose last write is in doubt; whether all could be read. What is gone is no longer in doubt.
    async fn clear_doubts(&mut self, since: Timestamp) -> bool {
        if self.doubtful.is_empty() {
            return true;
        }
        let asked: BTreeSet<Question> = self.doubtful.iter().cloned().map(Question::Op).collect();
        let snapshot = self.snapshot(since, BTreeMap::new());
        let found = self.ask(&snapshot, asked, DOUBT).await;
        self.doubtful.retain(|op| !found.contains_key(&Question::Op(op.clone())));
        self.doubtful.is_empty()
    }

    /// Plans, and plans again with the answers to its questions: what is asked is meant to be known before acting.
    async fn plan(&mut self, since: Timestamp) -> (Plan, Snapshot) {
        let mut answers: BTreeMap<Question, Answer> = BTreeMap::new();
        let mut round = 0;
        loop {
            let snapshot = self.snapshot(since, answers.clone());
            let plan = plan::plan(&snapshot);
            let asked: BTreeSet<Question> = plan.questions.iter().filter(|question| !answers.contains_key(question)).cloned().collect();
            round += 1;
            if asked.is_empty() || round > ROUNDS {
                return (plan, snapshot);
            }
            let found = self.ask(&snapshot, asked, PAUSES.1).await;
            if found.is_empty() {
                return (plan, snapshot);
            }
            answers.extend(found);
        }
    }

    fn snapshot(&self, since: Timestamp, answers: BTreeMap<Question, Answer>) -> Snapshot {
        let mut snapshot = self.observer.snapshot(&self.settings, self.clock.now(), since, self.evictions.known(), answers);
        snapshot.failures = self.failures.lasting();
        snapshot
    }

    /// Answers what may be asked again by now. What has no answer is asked by a later pass, `longest` after this one at the latest.
    async fn ask(&mut self, snapshot: &Snapshot, mut asked: BTreeSet<Question>, longest: Duration) -> BTreeMap<Question, Answer> {
        let now = Instant::now();
        asked.retain(|question| !self.failures.paused(&question.to_string(), now));
        let standing = |question: &Question| Some((question.clone(), self.admissions.standing(question, now)?));
        let mut found: BTreeMap<Question, Answer> = asked.iter().filter_map(standing).collect();
        asked.retain(|question| !found.contains_key(question));
        for (question, answer) in questions::answer(&self.actor, &self.observer, snapshot, asked).await {
            let what = question.to_string();
            match answer {
                Ok(answer) => {
                    self.failures.succeeded(&what);
                    self.admissions.learn(&question, &answer, now);
                    found.insert(question, answer);
                }
                Err(error) => {
                    let words = act::words(&error);
                    let (_, pause) = self.failures.failed(
                        &what,
                        Said { words: words.clone(), about: questions::about(&question) },
                        longest,
                        Instant::now(),
                    );
                    warn!(error = words, retry_in = ?pause, "{what} failed");
                }
            }
        }
        found
    }

    /// Carries the actions out, side by side, but for those that failed and are left alone for a while.
    async fn act(&mut self, actions: Vec<Action>) {
        let (now, mut under_way) = (Instant::now(), Vec::new());
        for action in actions.into_iter().filter(|action| !self.failures.paused(&action.to_string(), now)) {
            match action {
                Action::Evict { node, pod, grace_period_seconds } => self.evictions.start(node, pod, grace_period_seconds),
                other => under_way.push(other),
            }
        }
        let actor = &self.actor;
        let results: Vec<(Action, anyhow::Result<Vec<Seen>>)> = stream::iter(under_way)
            .map(|action| async move {
                debug!("{action}");
                let result = actor.carry_out(&action).await;
                if result.is_ok() && !matches!(action, Action::Status { .. }) {
                    info!("{action}");
                }
                (action, result)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (action, result) in results {
            self.doubtful.extend(written(&action).filter(|_| result.is_err()));
            self.settle(&action, result);
        }
    }

    /// Takes an action's result. What failed, or was planned from an old view, is planned again after a pause.
    fn settle(&mut self, action: &Action, result: anyhow::Result<Vec<Seen>>) {
        let name = action.to_string();
        match result {
            Ok(seen) => {
                // A status is written as often as there is something to say.
                let says = matches!(action, Action::Status { .. } | Action::UpgradeStatus { .. });
                if !says && self.repeats.too_often(&name, Instant::now()) {
                    let said = Said { words: repeats::WORDS.into(), about: act::about(action) };
                    let (_, pause) = self.failures.failed(&name, said, PAUSES.0, Instant::now());
                    warn!(retry_in = ?pause, "{name}: {}", repeats::WORDS);
                } else {
                    self.failures.succeeded(&name);
                }
                seen.into_iter().for_each(|seen| self.observer.saw(seen));
            }
            Err(error) => {
                let words = act::words(&error);
                let (times, pause) =
                    self.failures.failed(&name, Said { words: words.clone(), about: act::about(action) }, PAUSES.0, Instant::now());
                if is_conflict(&error) && times < 3 {
                    debug!(error = words, "{name}: planned from an old view");
                } else {
                    warn!(error = words, retry_in = ?pause, "{name} failed");
                }
            }
        }
    }

    /// Says in an Event what keeps failing, once for each object that waits for it.
    async fn complain(&mut self) {
        for (about, what, words) in self.failures.unsaid() {
            self.actor.complain(&about, &what, &words).await;
        }
    }
}

/// The NodeOp that an action writes to.
fn written(action: &Action) -> Option<OpRef> {
    match action {
        Action::Status { op, status: _, notices: _ }
        | Action::Finalizers { op, finalizers: _ }
        | Action::Conclude { op, finalizers: _ } => Some(OpRef::of(op)),
        Action::PassOn { child, concurrency: _, paused: _, stop_on_failure: _ } => Some(OpRef::of(child)),
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
