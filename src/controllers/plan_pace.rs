//! How often is planned. A plan looks at the whole cluster; while hundreds of nodes are under way something
//! changes every few milliseconds, and a plan for each change would keep a core busy with saying the same.
//!
//! So what changes is planned for at once, [`BURST`] times in a row, which is more than a node asks for at
//! any of its steps; and in the long run the less often the larger the cluster is, with all that has changed
//! since. Times are measured by one monotonic clock.

use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;

/// Changes come in bursts: a Job's pod and its Job, a node and its pods. So even the first one waits.
const GATHER: Duration = Duration::from_millis(10);
/// How much longer a change waits in the long run for each node of the cluster …
const FOR_EACH_NODE: Duration = Duration::from_micros(100);
/// … and for how long at most. A step of a node takes seconds.
const LONGEST: Duration = Duration::from_millis(250);
/// Plans that are made without a pause, after a quiet time: more than a node asks for at any of its steps.
const BURST: u32 = 20;

/// When was planned lately.
#[derive(Debug, Default)]
pub struct PlanPace {
    /// From one plan to the next, in the long run.
    every: Duration,
    made: Bucket,
}

impl PlanPace {
    /// A plan of a cluster of `nodes` nodes has been made.
    pub fn planned(&mut self, now: Instant, nodes: usize) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        self.every = FOR_EACH_NODE.saturating_mul(nodes).saturating_add(GATHER).min(LONGEST);
        self.made.take(now, self.every);
    }

    /// How long a change waits before it is planned for.
    pub fn pause(&self, now: Instant) -> Duration {
        let due = self.made.due(self.every, BURST).filter(|due| *due > now);
        due.map_or(GATHER, |due| GATHER.max(due - now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses before all plans of a time in which something changes always, and a plan takes none.
    fn pauses(pace: &mut PlanPace, nodes: usize, from: Instant, seconds: u64) -> Vec<Duration> {
        let (mut now, mut pauses) = (from, Vec::new());
        while now < from + Duration::from_secs(seconds) {
            let pause = pace.pause(now);
            now += pause;
            pace.planned(now, nodes);
            pauses.push(pause);
        }
        pauses
    }

    #[test]
    fn changes_are_planned_for_at_once_and_in_the_long_run_together() {
        for (nodes, every) in [(1_000, 110), (5_000, 250), (1_000_000, 250)] {
            let every = Duration::from_millis(every);
            let mut pace = PlanPace::default();
            let start = Instant::now();
            let all = pauses(&mut pace, nodes, start, 10);
            let at_once = all.iter().take_while(|pause| **pause == GATHER).count();
            assert!((BURST as usize..2 * BURST as usize).contains(&at_once), "{nodes}: {at_once}");
            assert!(all[at_once + 1..].iter().all(|pause| *pause == every), "{nodes}: {all:?}");
            // A quiet time gives the burst back, and no more than that.
            let again = pauses(&mut pace, nodes, start + Duration::from_secs(3_600), 10);
            assert_eq!(again.iter().take_while(|pause| **pause == GATHER).count(), at_once, "{nodes}");
        }
    }

    #[test]
    fn a_small_cluster_hardly_waits() {
        let all = pauses(&mut PlanPace::default(), 10, Instant::now(), 10);
        assert!(all.iter().all(|pause| *pause <= Duration::from_millis(11)), "{all:?}");
    }
}
