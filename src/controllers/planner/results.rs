//! What becomes of a plan's actions: they are carried out, and what failed is planned again after a pause.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Planner;
use crate::{
    act::{self, Actor, is_conflict},
    controllers::{
        evictions::Wanted,
        failures::{MAX_PAUSE, Retry},
        hot_loop,
        timed::timed,
    },
    observe::Observer,
    plan::model::{
        action::Action,
        identity::{Id, Identified},
    },
};

/// Actions under way at once.
const AT_ONCE: usize = 16;

impl Planner {
    /// Carries the actions out, side by side, but for those that failed and were left alone when they were
    /// planned: nothing was asked for them then.
    pub(super) async fn act(&mut self, actions: Vec<Action>, paused: &BTreeSet<Id>) {
        let (mut evictions, mut under_way) = (Vec::new(), Vec::new());
        let is_paused = |action: &Action| !paused.is_empty() && paused.contains(&action.id());
        for action in actions.into_iter().filter(|action| !is_paused(action)) {
            match action {
                Action::Evict { node, pod, grace_period_seconds } => {
                    evictions.push(Wanted { node, pod, grace_period_seconds })
                }
                other => under_way.push(other),
            }
        }
        self.evictions.start(&self.actor, evictions);
        let (actor, observer) = (&self.actor, &self.observer);
        let requests = stream::iter(under_way)
            .map(|mut action| async move {
                debug!("{action}");
                observer.bring_up_to_date(&mut action);
                let result = carry_out(actor, observer, &action).await;
                (action, result)
            })
            .buffer_unordered(AT_ONCE)
            .collect();
        let (results, took): (Vec<(Action, anyhow::Result<()>)>, _) = timed(requests).await;
        self.requests += took;
        for (action, result) in results {
            self.uncertain_writes.extend(action.writes().filter(|_| result.is_err()));
            self.take_result(&action, result);
        }
    }

    /// Takes an action's result. What failed, or was planned from an old view, is planned again after a
    /// pause.
    fn take_result(&mut self, action: &Action, result: anyhow::Result<()>) {
        let about = action.about().map(|about| act::reference_to(&about));
        match result {
            Ok(()) => {
                if let (Some(metrics), Action::PatchStatus { op, status, notices: _ }) =
                    (&self.metrics, action)
                {
                    metrics.recorded(op, status);
                }
                let id = action.id();
                if self.hot_loops.too_often(action, &id, Instant::now()) {
                    let again = self.failed(action, hot_loop::MESSAGE.into(), about, MAX_PAUSE);
                    warn!(retry_in = ?again.pause, "{action}: {}", hot_loop::MESSAGE);
                } else {
                    self.failures.succeeded(&id);
                }
            }
            Err(error) => {
                let message = act::error_message(&error);
                let Retry { times, pause } = self.failed(action, message.clone(), about, MAX_PAUSE);
                if is_conflict(&error) && times < 3 {
                    debug!(error = message, "{action}: planned from an old view");
                } else {
                    warn!(error = message, retry_in = ?pause, "{action} failed");
                }
            }
        }
    }

    /// Says in an Event what keeps failing, once for each object that waits for it; again if it was lost.
    pub(super) fn report_failures(&mut self) {
        let now = Instant::now();
        while let Ok((about, written)) = self.event_results.try_recv() {
            self.failures.wrote(&about, written, now);
        }
        for (about, what, message) in self.failures.unsaid(now) {
            self.failures.queued(&about);
            let (of, sender, observer) = (about.clone(), self.event_sender.clone(), self.observer.clone());
            let tell = move |written| {
                // An error means that the planner has ended.
                let _ = sender.send((of, written));
                if !written {
                    observer.nudge();
                }
            };
            self.actor.report_failure(about, &what, &message, Box::new(tell));
        }
    }
}

/// Carries one action out, and says what was to be said of it.
async fn carry_out(actor: &Actor, observer: &Observer, action: &Action) -> anyhow::Result<()> {
    for object in actor.carry_out(action).await? {
        // At once: a watch is about to tell of it as well.
        observer.saw(object);
    }
    actor.tell(action);
    if !matches!(action, Action::PatchStatus { .. }) {
        info!("{action}");
    }
    Ok(())
}
