//! What a candidate sees of the Lease, and what it believes of it.
//!
//! A holder may write for some seconds after its last renewal, and only time proves that it does not: so the
//! Lease is free when it has not changed for [`DURATION`], by our own clock. Two things that it says are
//! believed within bounds, since anybody with the right may have written them. A longer duration is, up to
//! [`MAX_LEASE_DURATION`]. A shorter one is not: whoever holds it writes for as long as always. A missing
//! holder is only if the duration says that it was handed over (a second, as Kubernetes' own client has it,
//! too); if somebody has wiped the name out, or deleted the Lease, its holder may not know yet.
//!
//! A candidate that has never seen a Lease makes one at once, or a first installation would begin with a
//! wait. It could only meet a leader if the Lease was deleted within the five seconds in which that leader
//! makes it again.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

use super::lease::DURATION;

/// No holder is waited for longer, whatever the Lease says.
const MAX_LEASE_DURATION: Duration = Duration::from_secs(60);
/// The Lease is looked at so often, though the watch tells of no change: together with [`DURATION`] less than
/// 20 seconds.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// How often the log says for whom we wait.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// How long a Lease lasts that its holder has handed over.
pub const HANDED_OVER: Duration = Duration::from_secs(1);

/// The Lease as a candidate last saw it change.
#[derive(Debug)]
pub struct Sight {
    identity: String,
    seen: Option<ObservedLease>,
    /// When the log said last for whom we wait.
    told: Instant,
}

#[derive(Debug)]
struct ObservedLease {
    /// `None`: it was there, and is gone.
    lease: Option<Lease>,
    since: Instant,
}

impl Sight {
    pub fn new(identity: &str) -> Self {
        Self { identity: identity.into(), seen: None, told: Instant::now() }
    }

    /// Takes in what the API server says now.
    pub fn look(&mut self, found: Option<&Lease>) {
        let version = |lease: Option<&Lease>| lease.and_then(|lease| lease.metadata.resource_version.clone());
        // Of a Lease that was never there nothing is remembered: nobody can have held it.
        let changed = self
            .seen
            .as_ref()
            .map_or_else(|| found.is_some(), |seen| version(seen.lease.as_ref()) != version(found));
        if changed {
            self.seen = Some(ObservedLease { lease: found.cloned(), since: Instant::now() });
        }
    }

    /// Whether nobody can hold it any more.
    pub fn is_free(&self) -> bool {
        let Some(seen) = &self.seen else { return true };
        let ours = seen.lease.as_ref().and_then(holder) == Some(self.identity.as_str());
        ours || seen.since.elapsed() >= seen.lasts()
    }

    /// When to look again, if no watch tells of a change.
    pub fn next_look(&self) -> Duration {
        let free_in = self.seen.as_ref().map(|seen| seen.lasts().saturating_sub(seen.since.elapsed()));
        // A moment later, so that it is over then; and never at once, whatever was answered.
        free_in.unwrap_or(LOOK_EVERY).min(LOOK_EVERY) + Duration::from_millis(50)
    }

    /// For whom we wait, once a minute.
    pub fn report(&mut self) -> Option<String> {
        if self.told.elapsed() < REPORT_EVERY {
            return None;
        }
        self.told = Instant::now();
        let seen = self.seen.as_ref()?;
        let (unchanged, lasts) = (seen.since.elapsed().as_secs(), seen.lasts().as_secs());
        let held = match seen.lease.as_ref().map(holder) {
            Some(Some(holder)) => format!("the Lease is held by {holder}"),
            Some(None) => "the Lease names nobody".into(),
            None => "the Lease was deleted".into(),
        };
        Some(format!(
            "not leading: {held}; it has not changed for {unchanged} s, and is free after {lasts} s without a change"
        ))
    }
}

impl ObservedLease {
    /// After what time without a change it is free.
    fn lasts(&self) -> Duration {
        let Some(lease) = &self.lease else { return DURATION };
        let said = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok());
        let said = said.map_or(DURATION, Duration::from_secs);
        match holder(lease) {
            Some(_) => said.clamp(DURATION, MAX_LEASE_DURATION),
            None if said <= HANDED_OVER => Duration::ZERO,
            None => DURATION,
        }
    }
}

/// Who is said to hold it.
pub fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, holder: &str, seconds: i32) -> Lease {
        let object = serde_json::json!({"metadata": {"resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds}});
        serde_json::from_value(object).unwrap()
    }

    /// Seconds until it is free, looked at as often as a candidate does.
    async fn free_after(sight: &mut Sight, found: Option<&Lease>) -> u64 {
        let began = Instant::now();
        sight.look(found);
        while !sight.is_free() {
            assert!(sight.next_look() < LOOK_EVERY + Duration::from_secs(1));
            tokio::time::advance(sight.next_look()).await;
            sight.look(found);
        }
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_lease_says_is_believed_within_bounds() {
        let cases = [
            ("another replica's", lease("1", "other", 15), 15),
            ("edited: a day", lease("1", "evil", 86_400), 60),
            ("edited: no time at all", lease("1", "other", 0), 15),
            ("edited: less than none", lease("1", "other", -1), 15),
            ("the holder wiped out", lease("1", "", 15), 15),
            ("wiped out after it was edited", lease("1", "", 86_400), 15),
            ("handed over", lease("1", "", 1), 0),
            ("our own", lease("1", "me", 15), 0),
            ("without a spec", Lease::default(), 15),
        ];
        for (case, lease, seconds) in cases {
            assert_eq!(free_after(&mut Sight::new("me"), Some(&lease)).await, seconds, "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_repaired_or_deleted_stops_nobody_for_twenty_seconds() {
        let edited = lease("1", "evil", 86_400);
        for repaired in [None, Some(lease("2", "evil", 15)), Some(lease("2", "", 15))] {
            let mut sight = Sight::new("me");
            sight.look(Some(&edited));
            tokio::time::advance(Duration::from_secs(20)).await;
            assert_eq!(
                free_after(&mut sight, repaired.as_ref()).await,
                15,
                "its holder might write: {repaired:?}"
            );
        }
        assert!(DURATION + LOOK_EVERY < Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_once_a_minute_for_whom_we_wait() {
        let mut sight = Sight::new("me");
        let mut told = Vec::new();
        for second in 0..180u64 {
            // Its holder renews for two minutes, and is heard no more.
            sight.look(Some(&lease(&(second.min(120) / 5).to_string(), "other", 15)));
            told.extend(sight.report().map(|message| (second, message)));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let waited = |seconds| {
            format!(
                "not leading: the Lease is held by other; it has not changed for {seconds} s, and is free after 15 s without a change"
            )
        };
        assert_eq!(told, [(60, waited(0)), (120, waited(0))]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(sight.report(), Some(waited(61)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_lease_has_ever_been_seen_there_is_nobody_to_wait_for() {
        assert_eq!(free_after(&mut Sight::new("me"), None).await, 0);
    }
}
