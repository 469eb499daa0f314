//! The loop: wait for a change, take a snapshot, plan, answer the plan's questions, act.
//!
//! One task, one plan at a time, for all NodeOps. Nothing in it waits for long: a drain or a reboot is many
//! short passes. Evictions, which the server may hold for ten seconds, run beside it, and so do Events.

mod results;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join;
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    clock::Clock,
    evictions::Evictions,
    failures::{Failures, Retry, Said},
    health::Health,
    hot_loop::HotLoopLimiter,
    lease::Leading,
    metrics::Metrics,
    plan_pace::PlanPace,
    question_pace::QuestionPace,
    questions,
    remembered_answers::RememberedAnswers,
    timed::timed,
};
use crate::{
    act::{self, Actor},
    observe::Observer,
    plan::{
        self,
        model::{
            effects::Plan,
            id::OpRef,
            identity::Identified,
            question::{Answer, Question},
            snapshot::{PlannerConfig, Snapshot},
        },
    },
};

/// Rounds of questions in one pass; what is still open then is asked by the next pass.
const ROUNDS: usize = 4;
/// Even if nothing happens, so that a lost watch event costs minutes at most.
const IDLE_PLAN_INTERVAL: Duration = Duration::from_secs(300);
/// The longest pause after a question had no answer. An answer is cheap, and nodes wait for it.
const MAX_QUESTION_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause before a NodeOp that is in doubt is read again: nothing is planned meanwhile.
const DOUBT: Duration = Duration::from_secs(5);
/// For how long the Events that are queued may still go out, when we are told to stop: they are worth a
/// moment, and no other leader is to wait for them.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// An object, and whether the Event about what fails for it was written.
type EventResult = (ObjectReference, bool);

/// The loop's state.
#[derive(Debug)]
pub struct Planner {
    actor: Actor,
    observer: Observer,
    settings: PlannerConfig,
    clock: Clock,
    leading: watch::Receiver<Leading>,
    evictions: Evictions,
    health: Arc<Health>,
    /// Nothing is measured if nobody can ask for it.
    metrics: Option<Arc<Metrics>>,
    failures: Failures,
    /// Whether Events about failures were written: the object that each was about.
    event_results: mpsc::UnboundedReceiver<EventResult>,
    /// The other end, for whoever writes them.
    event_sender: mpsc::UnboundedSender<EventResult>,
    remembered: RememberedAnswers,
    hot_loops: HotLoopLimiter,
    plan_pace: PlanPace,
    question_pace: QuestionPace,
    /// The processor's time that the requests of this pass have taken: to make them, and to read the answers.
    requests: Duration,
    /// NodeOps whose last write failed, or got no answer and may have been applied: they are read live before
    /// the next plan.
    uncertain_writes: BTreeSet<OpRef>,
}

impl Planner {
    pub fn new(
        actor: Actor,
        observer: Observer,
        settings: PlannerConfig,
        clock: Clock,
        leading: watch::Receiver<Leading>,
        health: Arc<Health>,
    ) -> Self {
        let evictions = Evictions::new(observer.clone(), clock);
        let (event_sender, event_results) = mpsc::unbounded_channel();
        Self {
            actor,
            observer,
            settings,
            failures: Failures::new(clock),
            event_results,
            event_sender,
            clock,
            leading,
            evictions,
            health,
            metrics: None,
            remembered: RememberedAnswers::default(),
            hot_loops: HotLoopLimiter::default(),
            plan_pace: PlanPace::default(),
            question_pace: QuestionPace::default(),
            requests: Duration::ZERO,
            uncertain_writes: BTreeSet::new(),
        }
    }

    /// Measures what is done from now on.
    pub fn measure(&mut self, metrics: &Arc<Metrics>) {
        self.metrics = Some(metrics.clone());
        self.evictions.measure(metrics);
        let metrics = metrics.clone();
        self.actor.count_lost_events(move |events| metrics.events_lost(events));
    }

    /// Plans until it is told to stop, or the task is ended. Told, it lets what is under way end.
    pub async fn run(mut self, stop: Arc<Notify>) {
        let mut wait = IDLE_PLAN_INTERVAL;
        // They end with this task.
        let mut events = JoinSet::new();
        let actor = self.actor.clone();
        events.spawn(async move { actor.write_events().await });
        loop {
            tokio::select! {
                biased;
                () = stop.notified() => return self.end(events).await,
                () = self.observer.changed() => sleep(self.plan_pace.pause(Instant::now())).await,
                _ = self.leading.changed() => {}
                () = sleep(wait) => {}
            }
            self.health.planned();
            let since = *self.leading.borrow_and_update();
            if let Some(metrics) = &self.metrics {
                metrics.leads(since.is_some());
            }
            wait = match since {
                Some(since) if self.observer.ready() => {
                    self.requests = Duration::ZERO;
                    let (next, all) = timed(self.pass(since)).await;
                    let (requests, computed) = (self.requests, all.saturating_sub(self.requests));
                    debug!(
                        computed_us = computed.as_micros(),
                        requests_us = requests.as_micros(),
                        "a pass has ended"
                    );
                    next.max(self.plan_pace.pause(Instant::now()))
                }
                Some(_) | None => IDLE_PLAN_INTERVAL,
            };
        }
    }

    /// Lets what is under way end, and the Events that are queued if that takes no longer than a moment. One
    /// that is cut off may still be written afterwards, and nothing follows from it.
    async fn end(&self, mut events: JoinSet<()>) {
        self.actor.close_events();
        let last = async {
            let _ = timeout(LAST_EVENTS, events.join_next()).await;
            events.shutdown().await;
        };
        join(self.evictions.end(), last).await;
    }

    /// One pass; returns how long to wait for the next if nothing happens.
    async fn pass(&mut self, since: Timestamp) -> Duration {
        // Whatever this pass writes was planned in this term.
        self.actor = self.actor.in_term(since);
        self.failures.forget_old(Instant::now());
        self.question_pace.begin(Instant::now());
        if !self.reread_uncertain(since).await {
            self.report_failures();
            return self.failures.next(Instant::now()).unwrap_or(DOUBT);
        }
        // Without a snapshot nothing is planned, and nothing is dropped: not the watches of drains, not what
        // is known of evictions. The list that is awaited wakes the next pass.
        let Some((plan, snapshot)) = self.plan(since).await else {
            self.report_failures();
            return self.failures.next(Instant::now()).unwrap_or(IDLE_PLAN_INTERVAL);
        };
        self.plan_pace.planned(Instant::now(), snapshot.nodes.len());
        if let Some(metrics) = &self.metrics {
            metrics.planned(&snapshot, &plan);
        }
        self.observer.watch_pods_of(&self.actor.client, &plan.watched_nodes);
        self.evictions.forget_all_but(&snapshot);
        for ((namespace, name), reasons) in &plan.waiting {
            for (node, why) in &reasons.nodes {
                debug!(op = format!("{namespace}/{name}"), node, reason = why.reason.name(), %why, "waiting");
            }
            if let Some((why, nodes)) = &reasons.others {
                debug!(op = format!("{namespace}/{name}"), nodes, reason = why.reason.name(), %why, "waiting");
            }
        }
        if *self.leading.borrow() != Some(since) {
            // The change of leadership wakes the next pass.
            return IDLE_PLAN_INTERVAL;
        }
        let wake = plan.wake_at.map(|at| until(snapshot.now, at));
        self.act(plan.actions, &snapshot.paused).await;
        self.report_failures();
        let now = Instant::now();
        let paced = self.question_pace.next(now);
        [Some(IDLE_PLAN_INTERVAL), wake, self.failures.next(now), self.remembered.next(now), paced]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(IDLE_PLAN_INTERVAL)
    }

    /// Reads the NodeOps live whose last write is in doubt; whether all could be read. What is gone is no
    /// longer in doubt.
    async fn reread_uncertain(&mut self, since: Timestamp) -> bool {
        if self.uncertain_writes.is_empty() {
            return true;
        }
        let asked: BTreeSet<Question> = self.uncertain_writes.iter().cloned().map(Question::Op).collect();
        let Some(snapshot) = self.snapshot(since, BTreeMap::new()) else { return false };
        let found = self.ask(&snapshot, asked, DOUBT).await;
        self.uncertain_writes.retain(|op| !found.contains_key(&Question::Op(op.clone())));
        self.uncertain_writes.is_empty()
    }

    /// Plans, and plans again with the answers to its questions: what is asked is meant to be known before
    /// acting. `None`: in one of the rounds the cluster was not listed completely.
    async fn plan(&mut self, since: Timestamp) -> Option<(Plan, Snapshot)> {
        let mut answers: BTreeMap<Question, Answer> = BTreeMap::new();
        let mut round = 0;
        loop {
            let snapshot = self.snapshot(since, answers)?;
            let begun = std::time::Instant::now();
            let plan = plan::plan(&snapshot);
            if let Some(metrics) = &self.metrics {
                metrics.computed(begun.elapsed());
            }
            let asked = plan.questions.iter().filter(|question| snapshot.answer(question).is_none());
            let asked: BTreeSet<Question> = asked.cloned().collect();
            round += 1;
            if asked.is_empty() || round > ROUNDS {
                return Some((plan, snapshot));
            }
            let found = self.ask(&snapshot, asked, MAX_QUESTION_PAUSE).await;
            if found.is_empty() {
                return Some((plan, snapshot));
            }
            answers = snapshot.answers;
            answers.extend(found);
        }
    }

    fn snapshot(&self, since: Timestamp, answers: BTreeMap<Question, Answer>) -> Option<Snapshot> {
        let (now, known) = (self.clock.now(), self.evictions.known());
        let mut snapshot = self.observer.snapshot(&self.settings, now, since, known, answers)?;
        snapshot.failures = self.failures.lasting();
        snapshot.paused = self.failures.all_paused(Instant::now());
        Some(snapshot)
    }

    /// Answers what may be asked again by now. What has no answer is asked by a later pass, `longest` after
    /// this one at the latest.
    async fn ask(
        &mut self,
        snapshot: &Snapshot,
        mut asked: BTreeSet<Question>,
        longest: Duration,
    ) -> BTreeMap<Question, Answer> {
        let now = Instant::now();
        let standing =
            |question: &Question| Some((question.clone(), self.remembered.standing(question, now)?));
        let mut found: BTreeMap<Question, Answer> = asked.iter().filter_map(standing).collect();
        asked.retain(|question| !found.contains_key(question) && !self.failures.paused(&question.id(), now));
        asked.retain(|question| self.question_pace.allows(question, now));
        let until = self.question_pace.dry_runs_until(now);
        let answers = questions::answer(&self.actor, &self.observer, snapshot, asked, until);
        let (answers, took) = timed(answers).await;
        self.requests += took;
        for (question, answer) in answers {
            let about = questions::about(&question);
            match answer {
                Ok(answer) => {
                    // A refusal that passes is an answer, and told like a failure if it does not.
                    if let Answer::NotYet(message) = &answer {
                        self.failed(&question, message.clone(), about, longest);
                    } else {
                        self.failures.succeeded(&question.id());
                    }
                    self.remembered.learn(&question, &answer, now);
                    found.insert(question, answer);
                }
                Err(error) => {
                    let again = self.failed(&question, act::error_message(&error), about, longest);
                    warn!(error = act::error_message(&error), retry_in = ?again.pause, "{question} failed");
                }
            }
        }
        found
    }

    /// Remembers a failure.
    fn failed(
        &mut self,
        what: &impl Identified,
        message: String,
        about: Option<ObjectReference>,
        longest: Duration,
    ) -> Retry {
        self.failures.failed(
            what.id(),
            Said { what: what.to_string(), message, about },
            longest,
            Instant::now(),
        )
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO).max(Duration::from_millis(1))
}
