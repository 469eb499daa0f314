//! The loop: gather what is known, decide, do one thing. What is done is behind [`World`], so that a test can
//! be the node, the API and the power switch.

use std::time::Duration;

use anyhow::{Error, Result};
use tracing::{info, warn};

use super::decide::{Announced, Asked, Job, Live, NextStep, Observation, Pod, Until, decide, pod_after};
use crate::{
    contract::{Sentinel, reboot_state},
    node::AppletExit,
};

/// Everything that the waiter touches.
#[expect(
    async_fn_in_trait,
    reason = "one thread runs a waiter, and nothing else; a test's own world may ask for more"
)]
pub trait World {
    /// Monotonic time since the start of this process.
    fn elapsed(&self) -> Duration;
    /// Whether SIGTERM came.
    fn stopped(&mut self) -> bool;
    /// Makes sure that the watch stands, then reads the sentinel of our Job.
    fn read(&mut self) -> Option<Sentinel>;
    /// Asks the API for the pod and the Job. `job_uid` is the one that the Job must have.
    async fn look(&mut self, job_uid: Option<&str>) -> Live;
    /// Annotates the pod.
    async fn announce(&mut self, state: &'static str) -> Announced;
    /// Why the API gave no answer, or none that tells, the last time that it did not.
    fn last_error(&self) -> Option<String> {
        None
    }
    /// Whether there is a file in the sentinel's place, be it one that cannot be read.
    fn has_record(&self) -> bool {
        false
    }
    /// Whether the node has started anew since the reboot was asked for that this sentinel asks for. It is in
    /// the same boot, as far as the boot id says.
    fn has_restarted(&mut self, _: &Sentinel) -> bool {
        false
    }
    /// Writes down that the reboot which this sentinel asks for is asked for now. An error says why it must
    /// not be: nothing would tell later that it was.
    fn note_asking(&mut self, _: &Sentinel) -> Result<()> {
        Ok(())
    }
    /// Waits for an event, for at most this time; an event of the Job counts if `job` says so.
    async fn wait(&mut self, job: bool, at_most: Duration);
    fn ask_init(&mut self) -> Result<()>;
    /// Has the kernel reboot the node. Returns only if it did not.
    async fn ask_kernel(&mut self) -> Error;
    /// Removes the sentinel if it is still this one, and old files of other Jobs.
    fn remove(&mut self, sentinel: &Sentinel) -> Result<()>;
}

/// Limits of one waiter.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long it waits, from the sentinel on, for what must come between the sentinel and the reboot.
    pub timeout: Duration,
    /// How long init gets before the kernel is asked.
    pub grace: Duration,
    /// Spreads the retries of many waiters whose API went away at once.
    pub jitter: u32,
}

/// A waiter in the course of its life. Nothing in it is worth keeping: a new one finds its way from the node
/// and the API.
#[derive(Debug)]
pub struct Waiter<W> {
    pub world: W,
    limits: Limits,
    boot: String,
    sentinel: Option<Sentinel>,
    live: Option<Live>,
    announced: Option<&'static str>,
    /// When that was said last.
    said_at: Duration,
    asked_at: Option<Duration>,
    refused: bool,
    /// When the sentinel was found, from which the deadline counts.
    found_at: Option<Duration>,
    /// How often the API gave no answer, in a row.
    failures: u32,
    /// Since when it has not been able to say that it waits.
    unheard_since: Option<Duration>,
    /// When the API was asked last.
    looked_at: Duration,
    /// Since when each look has shown the Job `Complete`, and there was no record of a success.
    complete_since: Option<Duration>,
    ending: Option<AppletExit>,
}

impl<W: World> Waiter<W> {
    pub fn new(world: W, boot: String, limits: Limits) -> Self {
        Self {
            world,
            limits,
            boot,
            sentinel: None,
            live: None,
            announced: None,
            said_at: Duration::ZERO,
            asked_at: None,
            refused: false,
            found_at: None,
            failures: 0,
            unheard_since: None,
            looked_at: Duration::ZERO,
            complete_since: None,
            ending: None,
        }
    }

    /// Runs until its end.
    pub async fn run(mut self) -> AppletExit {
        loop {
            if let Some(ended) = self.step().await {
                return ended;
            }
        }
    }

    /// One step, with one effect.
    pub async fn step(&mut self) -> Option<AppletExit> {
        if let Some(ended) = self.ending.take() {
            return Some(ended);
        }
        self.read();
        let now = self.world.elapsed();
        if self.is_to_be_said_again(now) {
            self.said_at = now;
            // The answer decides nothing: whoever waits for a sentinel needs no API server.
            drop(self.world.announce(reboot_state::WAITING).await);
            return None;
        }
        let due = self.sentinel.as_ref().filter(|sentinel| sentinel.boot == self.boot);
        let restarted = due.is_some_and(|sentinel| self.world.has_restarted(sentinel));
        let step = decide(&Observation {
            boot: &self.boot,
            restarted,
            sentinel: self.sentinel.as_ref(),
            live: self.live.as_ref(),
            announced: self.announced,
            looks_again: now >= self.looks_again_at(),
            was_complete: self.complete_since.is_some_and(|since| now >= since + SECOND_LOOK),
            asked: match (self.refused, self.asked_at) {
                (true, _) => Asked::Refused,
                (false, Some(at)) => Asked::Init(now.saturating_sub(at)),
                (false, None) => Asked::No,
            },
            grace: self.limits.grace,
            stop: self.world.stopped(),
            overdue: self.deadline().is_some_and(|deadline| now >= deadline),
        });
        self.perform(step).await
    }

    /// The sentinel as it is now. A new one starts the deadline, and makes what was asked about another one
    /// worthless.
    fn read(&mut self) {
        let found = self.world.read();
        if found.is_some() || self.world.has_record() {
            self.complete_since = None;
        }
        if found == self.sentinel {
            return;
        }
        if let Some(sentinel) = &found {
            info!(boot = sentinel.boot, job = sentinel.job, "sentinel found");
        }
        self.found_at = found.is_some().then(|| self.world.elapsed());
        self.sentinel = found;
        self.live = None;
    }

    /// When it asks the API again, for as long as there is no sentinel.
    fn looks_again_at(&self) -> Duration {
        self.looked_at + if self.complete_since.is_some() { SECOND_LOOK } else { LOOK_AGAIN }
    }

    /// Somebody may have taken its annotation off, or a store been restored that has none: it would be waited
    /// for in vain until its node is given up.
    fn is_to_be_said_again(&mut self, now: Duration) -> bool {
        let waits = self.sentinel.is_none() && self.announced == Some(reboot_state::WAITING);
        waits && !self.world.stopped() && now >= self.said_at + LOOK_AGAIN
    }

    /// None without a sentinel: how long an operation may take is not for the waiter to say.
    fn deadline(&self) -> Option<Duration> {
        self.found_at.map(|found_at| found_at + self.limits.timeout)
    }

    async fn perform(&mut self, step: NextStep) -> Option<AppletExit> {
        match step {
            NextStep::Look => {
                let uid = self.sentinel.as_ref().map(|sentinel| sentinel.job_uid.as_str());
                let live = self.world.look(uid).await;
                if live.pod == Pod::Unknown || live.job == Job::Unknown {
                    self.failures += 1;
                } else if self.unheard_since.is_none() {
                    self.failures = 0;
                }
                self.looked_at = self.world.elapsed();
                match live.job {
                    Job::Complete => drop(self.complete_since.get_or_insert(self.looked_at)),
                    Job::Unknown => {}
                    Job::Absent | Job::Running | Job::Over(_) => self.complete_since = None,
                }
                self.live = Some(live);
            }
            NextStep::Announce(state) => self.announce(state).await,
            NextStep::Wait(until) => {
                if let Some(ended) = self.unheard(until) {
                    return Some(ended);
                }
                self.wait(until).await;
            }
            NextStep::AskInit => {
                let noted = self.sentinel.as_ref().map(|sentinel| self.world.note_asking(sentinel));
                if let Some(Err(error)) = noted {
                    return Some(AppletExit::failure(format!("the node is not asked to reboot: {error:#}")));
                }
                info!("asking init to reboot the node");
                self.asked_at = Some(self.world.elapsed());
                if let Err(error) = self.world.ask_init() {
                    warn!("init cannot be asked: {error:#}");
                    self.refused = true;
                }
            }
            NextStep::AskKernel => {
                let error = self.world.ask_kernel().await;
                return Some(AppletExit::failure(format!("the node cannot be rebooted: {error:#}")));
            }
            NextStep::Remove(ended) => {
                if let Some(error) =
                    self.sentinel.take().and_then(|sentinel| self.world.remove(&sentinel).err())
                {
                    return Some(AppletExit::failure(format!("{}, but: {error:#}", ended.message)));
                }
                self.ending = Some(ended);
            }
            NextStep::End(ended) => return Some(ended),
        }
        None
    }

    /// What the answer says about the pod, [`pod_after`] knows. What was not said is said again, after a
    /// pause and another look.
    async fn announce(&mut self, state: &'static str) {
        let answer = self.world.announce(state).await;
        let job = self.live.take().map_or(Job::Unknown, |live| live.job);
        if let Announced::Done(_) = answer {
            (self.failures, self.unheard_since) = (0, None);
        }
        let pod = pod_after(state, answer);
        if pod == Pod::Unknown {
            self.failures += 1;
        } else {
            self.announced = Some(state);
            self.said_at = self.world.elapsed();
        }
        self.live = Some(Live { pod, job });
    }

    /// A waiter that may not do what it has to, or that does not reach the API, says so in the only way that
    /// is left to it: it ends, and the kubelet reports its message and starts it again. Only while nothing
    /// is due.
    fn unheard(&mut self, until: Until) -> Option<AppletExit> {
        if until != Until::Api || self.sentinel.is_some() || self.announced.is_some() {
            self.unheard_since = None;
            return None;
        }
        let now = self.world.elapsed();
        let since = *self.unheard_since.get_or_insert(now);
        let last_error = self.world.last_error().filter(|_| now >= since + UNHEARD_FOR)?;
        Some(AppletExit::failure(format!("cannot say that it waits: {last_error}")))
    }

    /// Waits, at most until the deadline that applies. What the API said before a wait is not believed after
    /// it.
    async fn wait(&mut self, until: Until) {
        let now = self.world.elapsed();
        let left = self.deadline().map_or(LOOK_AGAIN, |deadline| deadline.saturating_sub(now));
        let at_most = match until {
            Until::Sentinel => self.looks_again_at().saturating_sub(now),
            Until::Job => left,
            Until::Api => left.min(backoff(self.failures, self.limits.jitter)),
            Until::Init => (self.asked_at.unwrap_or(now) + self.limits.grace).saturating_sub(now),
        };
        self.live = None;
        self.world.wait(until == Until::Job, at_most).await;
    }
}

#[cfg(test)]
impl<W> Waiter<W> {
    /// What it believes of the API at the moment.
    pub fn looked(&self) -> Option<&Live> {
        self.live.as_ref()
    }
}

/// How long it waits for an event before it looks at the directory all the same, and asks the API. Events are
/// not lost by inotify; but what is mounted there may be a filesystem that tells of none.
pub const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// Between two looks at a Job that is `Complete` and has left no sentinel.
pub const SECOND_LOOK: Duration = Duration::from_secs(60);

/// How long it tries to say that it waits before it ends, to be started again.
const UNHEARD_FOR: Duration = Duration::from_secs(30);

/// The longest pause between two questions to an API that does not answer.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Half a second, doubled with every failure, and up to half as much again by `jitter`.
fn backoff(failures: u32, jitter: u32) -> Duration {
    let pause =
        Duration::from_millis(500).saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MAX_BACKOFF);
    pause + pause.mul_f64(f64::from(jitter % 1000) / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::reboot_waiter::world;

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!(backoff(1, 0), Duration::from_millis(500));
        assert_eq!(backoff(2, 0), Duration::from_secs(1));
        assert_eq!(backoff(u32::MAX, 0), MAX_BACKOFF);
        assert!(backoff(9, 999) < MAX_BACKOFF.mul_f64(1.5));
        assert!(backoff(0, 7) >= Duration::from_millis(500));
    }

    /// Rights that are missing, or an API that is out of reach: the kubelet passes on what it ends with.
    #[test]
    fn a_waiter_that_cannot_say_that_it_waits_ends_with_the_reason_and_never_when_a_reboot_may_be_due() {
        for due in [false, true] {
            let all = world::fake_cluster();
            all.borrow_mut().api = false;
            if due {
                all.borrow_mut().succeed();
            }
            let mut waiter = world::start(&all);
            assert_eq!(world::settle(&mut waiter), None, "it tries for a while");
            all.borrow_mut().now += UNHEARD_FOR;
            all.borrow_mut().event = true;
            let ended = world::settle(&mut waiter);
            assert_eq!(ended.is_some(), !due, "{ended:?}");
            assert!(ended.is_none_or(|ended| ended.code != 0 && ended.message.contains("is forbidden")));
        }
    }
}
