//! Leader election that fences.
//!
//! A Lease of 15 seconds, renewed every 5 with its resourceVersion. The holder may begin a write until 10 seconds after its
//! last renewal, counted by a monotonic clock from *before* that request was sent, and no request lasts beyond the 15: its
//! last write has ended before another replica, which waits 15 seconds from when *it* last saw the Lease change, may begin.
//! No clock is compared with another machine's. A stop hands the Lease over at once, and standbys watch it by name.
//!
//! Own code, since no kept crate on kube 5 tells a holder whose renewals fail.

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
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::clock::Clock;
use crate::{
    act::{Fence, REQUEST_TIMEOUT, is_conflict},
    api::names,
};

/// How long a holder that says nothing is still taken to hold.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How long after its last renewal the holder may still begin a write.
const WRITES_UNTIL: Duration = Duration::from_secs(10);

/// Since when this process leads; `None` while it does not.
pub type Leading = Option<Timestamp>;

/// The state that the election and the writer share.
#[derive(Debug)]
pub struct Leadership {
    renewed: Mutex<Option<Instant>>,
    leading: watch::Sender<Leading>,
    /// Without an election, the one process leads.
    elected: bool,
}

impl Leadership {
    /// A process that has to win an election.
    pub fn contended() -> Arc<Self> {
        Arc::new(Self { renewed: Mutex::new(None), leading: watch::Sender::new(None), elected: true })
    }

    /// A process that is alone, or told so.
    pub fn uncontended(now: Timestamp) -> Arc<Self> {
        Arc::new(Self { renewed: Mutex::new(None), leading: watch::Sender::new(Some(now)), elected: false })
    }

    /// Follows whether we lead.
    pub fn subscribe(&self) -> watch::Receiver<Leading> {
        self.leading.subscribe()
    }

    fn renewed(&self, at: Option<Instant>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn age(&self) -> Option<Duration> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}

impl Fence for Leadership {
    fn check(&self) -> anyhow::Result<Duration> {
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

/// The Lease as a candidate last saw it change.
struct Seen {
    lease: Lease,
    at: Instant,
}

impl Election {
    pub fn new(client: Client, namespace: &str, identity: String, clock: Clock, state: Arc<Leadership>) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.into(), identity, clock, state }
    }

    /// Runs for election, leads, and runs again, until the task is ended. Call [`Self::release`] after that.
    pub async fn run(&self) {
        loop {
            let lease = self.win().await;
            info!(identity = self.identity, "leading");
            self.state.leading.send_replace(Some(self.clock.now()));
            let error = self.hold(lease).await;
            self.state.leading.send_replace(None);
            self.state.renewed(None);
            warn!(error = format!("{error:#}"), "leadership lost; nothing more is written");
        }
    }

    /// Waits until the Lease is ours, and returns it.
    async fn win(&self) -> Lease {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", names::LEASE));
        let mut changes = Box::pin(watcher(self.api.clone(), config).default_backoff().applied_objects());
        let mut seen: Option<Seen> = None;
        loop {
            match self.attempt(&mut seen).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {}
                Err(error) if is_conflict(&error) => continue,
                Err(error) => {
                    warn!(error = format!("{error:#}"), "the Lease could not be taken; trying again");
                    tokio::time::sleep(RENEW_EVERY / 2).await;
                }
            }
            let expires = seen.as_ref().map_or(RENEW_EVERY, |seen| duration_of(&seen.lease).saturating_sub(seen.at.elapsed()));
            // Whatever the watch says, the Lease is read again; a watch that stands still costs one wait.
            let _ = timeout(expires + Duration::from_millis(50), changes.next()).await;
        }
    }

    /// Takes the Lease if it is free or has not changed for as long as it lasts.
    async fn attempt(&self, seen: &mut Option<Seen>) -> anyhow::Result<Option<Lease>> {
        let begun = Instant::now();
        let found = timeout(REQUEST_TIMEOUT, self.api.get_opt(names::LEASE)).await.context("reading the Lease")??;
        let Some(mut lease) = found else {
            let (params, fresh) = (PostParams::default(), self.fresh());
            let made = timeout(REQUEST_TIMEOUT, self.api.create(&params, &fresh)).await.context("creating the Lease")??;
            self.state.renewed(Some(begun));
            return Ok(Some(made));
        };
        let changed = seen.as_ref().is_none_or(|seen| seen.lease.metadata.resource_version != lease.metadata.resource_version);
        if changed {
            *seen = Some(Seen { lease: lease.clone(), at: Instant::now() });
        }
        let spec = lease.spec.get_or_insert_default();
        let free = spec.holder_identity.as_deref().is_none_or(str::is_empty);
        let expired = seen.as_ref().is_some_and(|seen| seen.at.elapsed() >= duration_of(&seen.lease));
        if !free && !expired {
            return Ok(None);
        }
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        spec.acquire_time = Some(MicroTime(self.clock.now()));
        let begun = Instant::now();
        let taken = self.put(lease, &self.identity.clone()).await?;
        self.state.renewed(Some(begun));
        Ok(Some(taken))
    }

    /// Renews until that fails for good; returns why.
    async fn hold(&self, mut lease: Lease) -> anyhow::Error {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            loop {
                let begun = Instant::now();
                match self.put(lease.clone(), &self.identity).await {
                    Ok(renewed) => {
                        self.state.renewed(Some(begun));
                        lease = renewed;
                        break;
                    }
                    Err(error) if is_conflict(&error) => match self.reread().await {
                        // Somebody else wrote to it, or our own renewal was applied without an answer.
                        Ok(now) if holder(&now) == Some(&self.identity) => lease = now,
                        Ok(now) => return anyhow::anyhow!("the Lease is held by {}", holder(&now).map_or("nobody", String::as_str)),
                        Err(error) => warn!(error = format!("{error:#}"), "the Lease could not be read"),
                    },
                    Err(error) => warn!(error = format!("{error:#}"), "the Lease could not be renewed; trying again"),
                }
                if self.state.age().is_none_or(|age| age >= WRITES_UNTIL) {
                    return anyhow::anyhow!("the Lease could not be renewed for {} s", WRITES_UNTIL.as_secs());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn reread(&self) -> anyhow::Result<Lease> {
        Ok(timeout(REQUEST_TIMEOUT, self.api.get(names::LEASE)).await.context("reading the Lease")??)
    }

    async fn put(&self, mut lease: Lease, holder: &str) -> anyhow::Result<Lease> {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(holder.into());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(MicroTime(self.clock.now()));
        let params = PostParams::default();
        let request = self.api.replace(names::LEASE, &params, &lease);
        Ok(timeout(REQUEST_TIMEOUT, request).await.context("writing the Lease")??)
    }

    fn fresh(&self) -> Lease {
        let now = MicroTime(self.clock.now());
        Lease {
            metadata: ObjectMeta { name: Some(names::LEASE.into()), namespace: Some(self.namespace.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Hands the Lease over, if it is still ours: a standby that watches it takes it at once.
    pub async fn release(&self) -> anyhow::Result<()> {
        self.state.leading.send_replace(None);
        self.state.renewed(None);
        let lease = self.reread().await?;
        if holder(&lease) == Some(&self.identity) {
            self.put(lease, "").await?;
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

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref()
}

/// How long the holder of this Lease said that it lasts.
fn duration_of(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_write_lasts_beyond_the_lease_that_it_was_begun_under() {
        let state = Leadership::contended();
        assert!(state.check().is_err(), "nothing was won yet");
        state.renewed(Some(Instant::now()));
        assert_eq!(state.check().unwrap(), DURATION);
        tokio::time::advance(Duration::from_secs(9)).await;
        let room = state.check().unwrap();
        assert_eq!(room, Duration::from_secs(6));
        assert!(room >= REQUEST_TIMEOUT, "an ordinary request has its whole time");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(state.check().is_err(), "the last write has begun");
    }
}
