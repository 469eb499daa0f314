//! Leader election that fences.
//!
//! A Lease of 15 seconds, renewed every 3 with its resourceVersion. The holder may begin a write until 10
//! seconds after its last renewal, counted from *before* that request was sent, by a clock that nobody sets
//! and that goes on while the machine is suspended, and no request lasts beyond the 15: its last write has
//! ended before another replica, which waits 15 seconds from when *it* last saw the Lease change, may begin.
//! No clock is compared with another machine's. A stop hands the Lease over at once, and standbys watch it by
//! name.
//!
//! What the Lease says is believed within bounds alone, since anybody with the right may edit or delete it:
//! [`Sight`].
//!
//! Own code: a holder here must know at every write how old its last renewal is, and how long the write may
//! take. The crates that elect leaders on kube 5 tell whether one leads, and not until when.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use super::{
    clock::{Clock, Moment},
    sight::{HANDED_OVER, Sight, holder},
};
use crate::{
    act::{Fence, REQUEST_TIMEOUT, Term, error_message, is_conflict, is_gone},
    api::names,
};

/// How long a holder that says nothing is still taken to hold.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews: so that one request that hangs for its whole time leaves another try.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How long after its last renewal the holder may still begin a write.
const WRITES_UNTIL: Duration = Duration::from_secs(10);
const _: () = assert!(RENEW_EVERY.as_secs() + REQUEST_TIMEOUT.as_secs() < WRITES_UNTIL.as_secs() - 1);

/// Since when this process leads; `None` while it does not.
pub type Leading = Option<Term>;

/// The state that the election and the writer share.
#[derive(Debug)]
pub struct Leadership {
    renewed: Mutex<Option<Moment>>,
    leading: watch::Sender<Leading>,
    /// Without an election, the one process leads.
    elected: bool,
}

impl Leadership {
    /// A process that has to win an election.
    pub fn elected() -> Arc<Self> {
        Arc::new(Self { renewed: Mutex::new(None), leading: watch::Sender::new(None), elected: true })
    }

    /// A process that is alone, or told so.
    pub fn standalone(now: Timestamp) -> Arc<Self> {
        Arc::new(Self { renewed: Mutex::new(None), leading: watch::Sender::new(Some(now)), elected: false })
    }

    /// Follows whether we lead.
    pub fn subscribe(&self) -> watch::Receiver<Leading> {
        self.leading.subscribe()
    }

    fn renewed(&self, at: Option<Moment>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn age(&self) -> Option<Duration> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}

impl Fence for Leadership {
    fn check(&self, term: Option<Term>) -> anyhow::Result<Duration> {
        if term.is_some_and(|term| Some(term) != *self.leading.borrow()) {
            bail!(
                "this was planned in a term of leadership that is over, and another replica may have led since"
            );
        }
        match self.age() {
            _ if !self.elected => Ok(Duration::MAX),
            Some(age) if age < WRITES_UNTIL => Ok(DURATION - age),
            Some(age) => bail!("leadership is in doubt: the Lease was last renewed {} s ago", age.as_secs()),
            None => bail!("this replica does not lead"),
        }
    }
}

/// One candidate.
#[derive(Clone)]
pub struct Election {
    api: Api<Lease>,
    namespace: String,
    /// Unique for this process: a pod restarted in place is another candidate.
    identity: String,
    clock: Clock,
    state: Arc<Leadership>,
}

impl Election {
    pub fn new(
        client: Client,
        namespace: &str,
        identity: String,
        clock: Clock,
        state: Arc<Leadership>,
    ) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.into(), identity, clock, state }
    }

    /// Runs for election, leads, and runs again, until the task is ended. Call [`Self::release`] after that.
    pub async fn run(&self) {
        let mut sight = Sight::new(&self.identity);
        loop {
            let lease = self.win(&mut sight).await;
            sight.look(Some(&lease));
            info!(identity = self.identity, "leading");
            self.state.leading.send_replace(Some(self.clock.now()));
            let error = self.hold(lease).await;
            self.state.leading.send_replace(None);
            self.state.renewed(None);
            warn!(error = error_message(&error), "leadership lost; nothing more is written");
        }
    }

    /// Waits until the Lease is ours, and returns it.
    async fn win(&self, sight: &mut Sight) -> Lease {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", names::LEASE));
        // Deletions, too: somebody who deletes the Lease wants another leader.
        let mut changes = Box::pin(watcher(self.api.clone(), config).default_backoff().touched_objects());
        loop {
            match self.attempt(sight).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {}
                // Another one was faster, which the next look shows.
                Err(error) if is_conflict(&error) => {}
                Err(error) => {
                    warn!(error = error_message(&error), "the Lease could not be taken; trying again")
                }
            }
            if let Some(report) = sight.report() {
                info!("{report}");
            }
            // Whatever the watch says, and whatever the Lease says, it is read again soon.
            let _ = timeout(sight.next_look(), changes.next()).await;
        }
    }

    /// Takes the Lease if nobody holds it, or if it has not changed for as long as it lasts.
    async fn attempt(&self, sight: &mut Sight) -> anyhow::Result<Option<Lease>> {
        let found =
            timeout(REQUEST_TIMEOUT, self.api.get_opt(names::LEASE)).await.context("reading the Lease")??;
        sight.look(found.as_ref());
        if !sight.is_free() {
            return Ok(None);
        }
        let begun = Moment::now();
        let taken = match found {
            None => self.make().await?,
            Some(mut lease) => {
                let spec = lease.spec.get_or_insert_default();
                spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
                spec.acquire_time = Some(MicroTime(self.clock.now()));
                self.put(lease, &self.identity, DURATION).await?
            }
        };
        self.state.renewed(Some(begun));
        Ok(Some(taken))
    }

    /// Renews until that fails permanently; returns why.
    async fn hold(&self, mut lease: Lease) -> anyhow::Error {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            loop {
                let begun = Moment::now();
                let renewed = match self.put(lease.clone(), &self.identity, DURATION).await {
                    // Nobody else makes it within the time in which we may still write: see `Sight::is_free`.
                    Err(error) if is_gone(&error) => {
                        self.make().await.inspect(|_| warn!("the Lease was deleted; it is made again"))
                    }
                    answer => answer,
                };
                match renewed {
                    Ok(renewed) => {
                        self.state.renewed(Some(begun));
                        lease = renewed;
                        break;
                    }
                    Err(error) if is_conflict(&error) => match self.reread().await {
                        // Somebody else wrote to it, or our own renewal was applied without an answer. Where
                        // our name was wiped out, nobody has taken it: others wait until we can no longer
                        // write.
                        Ok(now) if holder(&now).is_none_or(|holder| holder == self.identity) => lease = now,
                        Ok(now) => {
                            return anyhow::anyhow!(
                                "the Lease is held by {}",
                                holder(&now).unwrap_or_default()
                            );
                        }
                        Err(error) => warn!(error = error_message(&error), "the Lease could not be read"),
                    },
                    Err(error) => {
                        warn!(error = error_message(&error), "the Lease could not be renewed; trying again")
                    }
                }
                if self.state.age().is_none_or(|age| age >= WRITES_UNTIL) {
                    return anyhow::anyhow!(
                        "the Lease could not be renewed for {} s",
                        WRITES_UNTIL.as_secs()
                    );
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn reread(&self) -> anyhow::Result<Lease> {
        Ok(timeout(REQUEST_TIMEOUT, self.api.get(names::LEASE)).await.context("reading the Lease")??)
    }

    async fn put(&self, mut lease: Lease, holder: &str, lasts: Duration) -> anyhow::Result<Lease> {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(holder.into());
        spec.lease_duration_seconds = i32::try_from(lasts.as_secs()).ok();
        spec.renew_time = Some(MicroTime(self.clock.now()));
        let params = PostParams::default();
        let request = self.api.replace(names::LEASE, &params, &lease);
        Ok(timeout(REQUEST_TIMEOUT, request).await.context("writing the Lease")??)
    }

    /// Makes the Lease, which is not there; if it is there by now, that is a conflict.
    async fn make(&self) -> anyhow::Result<Lease> {
        let now = MicroTime(self.clock.now());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(names::LEASE.into()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams::default();
        let request = self.api.create(&params, &lease);
        Ok(timeout(REQUEST_TIMEOUT, request).await.context("making the Lease")??)
    }

    /// Hands the Lease over, if it is still ours: a standby that watches it takes it at once.
    pub async fn release(&self) -> anyhow::Result<()> {
        self.state.leading.send_replace(None);
        self.state.renewed(None);
        let lease = self.reread().await?;
        if holder(&lease) == Some(self.identity.as_str()) {
            self.put(lease, "", HANDED_OVER).await?;
            info!("the Lease was handed over");
        }
        Ok(())
    }
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_write_lasts_beyond_the_lease_that_it_was_begun_under() {
        let state = Leadership::elected();
        assert!(state.check(None).is_err(), "nothing was won yet");
        state.renewed(Some(Moment::now()));
        assert_eq!(state.check(None).unwrap(), DURATION);
        tokio::time::advance(Duration::from_secs(9)).await;
        let room = state.check(None).unwrap();
        assert_eq!(room, Duration::from_secs(6));
        assert!(room >= REQUEST_TIMEOUT, "an ordinary request has its whole time");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(state.check(None).is_err(), "the last write has begun");
    }

    /// The Lease ran out while a plan waited for the answers to its questions; another replica led, and then
    /// this one again.
    #[tokio::test(start_paused = true)]
    async fn what_was_planned_in_an_earlier_term_is_not_written_in_a_later_one() {
        let (state, clock) = (Leadership::elected(), Clock::system());
        let win = || {
            state.renewed(Some(Moment::now()));
            let term = clock.now();
            state.leading.send_replace(Some(term));
            term
        };
        let first = win();
        assert!(state.check(Some(first)).is_ok());
        state.leading.send_replace(None);
        assert!(state.check(Some(first)).is_err());
        tokio::time::advance(Duration::from_secs(30)).await;
        let second = win();
        assert!(state.check(Some(first)).is_err(), "it was planned before another one led");
        assert!(state.check(Some(second)).is_ok() && state.check(None).is_ok());
        let alone = clock.now();
        assert!(Leadership::standalone(alone).check(Some(alone)).is_ok());
    }
}
