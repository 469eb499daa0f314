//! Events on their way to the API server. Whoever has something to say queues it here, and it is written
//! beside everything else: no pass of the planner waits for an Event.
//!
//! Events are a courtesy, and the one kind of write that may be slow or stand still while all others work:
//! many clusters keep them in an etcd of their own, and a webhook for them may have no backend. So the queue
//! has a bound, what has waited for long is dropped, and a server that gives no answer is left alone for a
//! while. Nothing is decided by an Event, and one that is lost breaks nothing.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::Event;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tracing::warn;

use super::{
    Actor, Fence,
    error::{error_message, is_refusal},
};

/// Events that are written at once. Each costs the server a write of its etcd, and nobody waits for it.
const AT_ONCE: usize = 4;
/// Events that wait: both of two thousand nodes that are taken in one pass, in about 4 MB.
const MOST: usize = 4_000;
/// For how long an Event may wait. It is dated when it is written, and what is told later than that would
/// mislead whoever reads it.
const STALE: Duration = Duration::from_secs(600);
/// The pause after a write that had no answer; it doubles with each further one, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How often it is looked whether we may write again, while something waits for that.
const LEADING_AGAIN: Duration = Duration::from_secs(1);

/// Told whether the Event was written.
pub type OnWritten = Box<dyn FnOnce(bool) + Send>;

/// An Event that waits.
struct Letter {
    event: Event,
    about: ObjectReference,
    since: Instant,
    told: Option<OnWritten>,
}

impl Letter {
    fn tell(self, written: bool) {
        if let Some(told) = self.told {
            told(written);
        }
    }
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Letter>,
    /// The queue is full, which was logged.
    full: bool,
    closed: bool,
}

/// The queue; all clones of an [`Actor`] share one.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
    count: OnceLock<Box<dyn Fn(usize) + Send + Sync>>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("waiting", &self.lock().queue.len()).finish_non_exhaustive()
    }
}

/// What there is to do next.
enum QueueState {
    Write(Box<Letter>),
    Wait,
    /// Something waits, and we may not write.
    NotLeading,
    End,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, letter: Letter) {
        let (oldest, first) = {
            let mut waiting = self.lock();
            waiting.queue.push_back(letter);
            let oldest = if waiting.queue.len() > MOST { waiting.queue.pop_front() } else { None };
            let first = oldest.is_some() && !mem::replace(&mut waiting.full, oldest.is_some());
            (oldest, first)
        };
        if first {
            warn!(
                waiting = MOST,
                "Events cannot be written as fast as they are said; the oldest are dropped"
            );
        }
        self.drop_unwritten(oldest);
        self.changed.notify_waiters();
    }

    fn drop_unwritten(&self, letters: impl IntoIterator<Item = Letter>) {
        for letter in letters {
            if let Some(count) = self.count.get() {
                count(1);
            }
            letter.tell(false);
        }
    }

    fn look(&self, fence: &dyn Fence) -> QueueState {
        let (stale, next) = {
            let mut waiting = self.lock();
            let old = waiting.queue.iter().take_while(|letter| letter.since.elapsed() > STALE).count();
            let stale: Vec<Letter> = waiting.queue.drain(..old).collect();
            waiting.full &= waiting.queue.len() > MOST / 2;
            let next = match (waiting.queue.is_empty(), waiting.closed) {
                (true, true) => QueueState::End,
                (true, false) => QueueState::Wait,
                (false, closed) => match (fence.check(None), closed) {
                    (Ok(_), _) => {
                        let letter = waiting.queue.pop_front().map(Box::new);
                        letter.map_or(QueueState::Wait, QueueState::Write)
                    }
                    (Err(_), true) => QueueState::End,
                    (Err(_), false) => QueueState::NotLeading,
                },
            };
            (stale, next)
        };
        if !stale.is_empty() {
            warn!(events = stale.len(), "Events were dropped that had waited for {} s", STALE.as_secs());
        }
        self.drop_unwritten(stale);
        next
    }

    /// The next one to write; `None` once the queue is closed and empty.
    async fn next(&self, fence: &dyn Fence) -> Option<Letter> {
        loop {
            // Before the look: what is queued after it wakes us.
            let changed = self.changed.notified();
            match self.look(fence) {
                QueueState::Write(letter) => return Some(*letter),
                QueueState::Wait => changed.await,
                QueueState::NotLeading => sleep(LEADING_AGAIN).await,
                QueueState::End => return None,
            }
        }
    }
}

impl Actor {
    /// Queues an Event. `told` is called at its end; not if the process ends before that.
    pub(super) fn queue(&self, event: Event, about: ObjectReference, told: Option<OnWritten>) {
        self.events.put(Letter { event, about, since: Instant::now(), told });
    }

    /// Calls this with the number of Events that are given up, from now on.
    pub fn count_lost_events(&self, count: impl Fn(usize) + Send + Sync + 'static) {
        // It is set once, when the process starts.
        let _ = self.events.count.set(Box::new(count));
    }

    /// Writes what is queued while we lead, until [`Self::close_events`] was called and nothing is left.
    pub async fn write_events(&self) {
        join_all((0..AT_ONCE).map(|_| self.write_one_by_one())).await;
    }

    /// Lets [`Self::write_events`] end with what is queued by now.
    pub fn close_events(&self) {
        self.events.lock().closed = true;
        self.events.changed.notify_waiters();
    }

    async fn write_one_by_one(&self) {
        let mut pause = FIRST_PAUSE;
        while let Some(mut letter) = self.events.next(&*self.fence).await {
            let (event, told) = (letter.event, letter.told.take());
            let reason = event.reason.clone();
            let written = self.publish(event, &letter.about).await;
            if let Err(error) = &written {
                if let Some(count) = self.events.count.get() {
                    count(1);
                }
                warn!(error = error_message(error), reason, "an Event was lost");
            }
            if let Some(told) = told {
                told(written.is_ok());
            }
            match written {
                Err(error) if !is_refusal(&error) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Ok(()) | Err(_) => pause = FIRST_PAUSE,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use kube::runtime::events::EventType;
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        act::{
            about_node,
            tests::{Left, Server, actor},
        },
        api::nodeop::{NodeOp, NodeOpStatus},
        plan::model::action::{Action, Notice},
    };

    fn event(note: usize) -> Event {
        Event {
            type_: EventType::Normal,
            reason: "R".into(),
            note: Some(note.to_string()),
            action: "A".into(),
            secondary: None,
        }
    }

    fn leads(left: Option<u64>) -> Arc<Left> {
        Arc::new(Left(Mutex::new(left.map(Duration::from_secs))))
    }

    /// Who writes Events, one of which takes that long on the server, and what has come there.
    fn slow(takes: Duration, fence: Arc<Left>) -> (Actor, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let client = Server::slowly(move |_| {
            count.fetch_add(1, Relaxed);
            (takes, 201, json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}}))
        });
        (actor(client, fence), asked)
    }

    /// Whether each of this number of Events was written, in the order in which they came to their end.
    fn say(actor: &Actor, count: usize) -> Arc<Mutex<Vec<(usize, bool)>>> {
        let ends = Arc::<Mutex<Vec<(usize, bool)>>>::default();
        for number in 0..count {
            let noted = ends.clone();
            let told: OnWritten = Box::new(move |written| noted.lock().unwrap().push((number, written)));
            actor.queue(event(number), about_node("n1"), Some(told));
        }
        ends
    }

    /// Nothing of an action waits for the Events that go with it, however many there are.
    #[tokio::test(start_paused = true)]
    async fn whoever_says_something_does_not_wait_for_the_server() {
        let (actor, asked) = slow(Duration::from_secs(3_600), leads(Some(60)));
        let writing = tokio::spawn({
            let actor = actor.clone();
            async move { actor.write_events().await }
        });
        let notice = |number: usize| Notice {
            warning: false,
            reason: "NodeStarted",
            message: "m".into(),
            node: Some(format!("n{number}")),
        };
        let action = Action::PatchStatus {
            op: Arc::new(NodeOp::new("op", Default::default())),
            status: Box::new(NodeOpStatus::default()),
            notices: (0..100).map(notice).collect(),
        };
        let began = Instant::now();
        actor.tell(&action);
        assert_eq!(began.elapsed(), Duration::ZERO);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(asked.load(Relaxed), AT_ONCE, "all have their whole time");
        sleep(Duration::from_secs(600)).await;
        // Each of them every half minute, and more often in the first one.
        let most = AT_ONCE * (600 / 30 + 5);
        assert!(asked.load(Relaxed) <= most, "a server that does not answer is left alone");
        writing.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_the_oldest_give_way() {
        let (actor, _) = slow(Duration::ZERO, leads(Some(60)));
        let lost = Arc::new(AtomicUsize::new(0));
        let count = lost.clone();
        actor.count_lost_events(move |events| {
            count.fetch_add(events, Relaxed);
        });
        let ends = say(&actor, MOST + 3);
        assert_eq!(*ends.lock().unwrap(), [(0, false), (1, false), (2, false)]);
        actor.close_events();
        actor.write_events().await;
        assert_eq!((ends.lock().unwrap().len(), lost.load(Relaxed)), (MOST + 3, 3));
        assert_eq!(ends.lock().unwrap().iter().filter(|(_, written)| *written).count(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_while_we_do_not_lead_and_nothing_that_is_old() {
        let fence = leads(None);
        let (actor, asked) = slow(Duration::ZERO, fence.clone());
        let writing = tokio::spawn({
            let actor = actor.clone();
            async move { actor.write_events().await }
        });
        let ends = say(&actor, 1);
        sleep(Duration::from_secs(300)).await;
        let later = say(&actor, 1);
        sleep(Duration::from_secs(400)).await;
        assert_eq!((asked.load(Relaxed), &*ends.lock().unwrap()), (0, &vec![(0, false)]));
        *fence.0.lock().unwrap() = Some(Duration::from_secs(60));
        sleep(Duration::from_secs(2)).await;
        assert_eq!((asked.load(Relaxed), &*later.lock().unwrap()), (1, &vec![(0, true)]));
        writing.abort();
    }

    /// A namespace that ends takes no Event any more; those about other objects do not wait for that.
    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_there_is_no_pause() {
        let client = Server::client(|_| {
            (
                403,
                json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403}),
            )
        });
        let actor = actor(client, leads(Some(60)));
        let (ends, began) = (say(&actor, 50), Instant::now());
        actor.close_events();
        actor.write_events().await;
        assert_eq!((ends.lock().unwrap().len(), began.elapsed()), (50, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_queued_at_the_end_still_goes_out() {
        for (leading, written) in [(Some(60), 9), (None, 0)] {
            let (actor, asked) = slow(Duration::from_millis(100), leads(leading));
            say(&actor, 9);
            actor.close_events();
            timeout(Duration::from_secs(1), actor.write_events()).await.unwrap();
            assert_eq!(asked.load(Relaxed), written);
        }
    }
}
