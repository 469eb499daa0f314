//! The entries as a NodeOpUpgrade shows them: without what the NodeOp keeps for itself.
//!
//! Each entry, and each chunk of them, remembers what is shown of it. So whoever asks again gets what was
//! found before, but for the entries that have changed since, and two versions of what is shown share as much
//! as the two versions that they were found from.

use std::sync::Arc;

use super::{CHUNK, Chunk, Item, Mark, NodeStatuses};
use crate::api::nodeop::NodeStatus;

/// What is shown of an entry.
fn shown(status: &NodeStatus) -> NodeStatus {
    NodeStatus {
        phase: status.phase,
        step: status.step,
        job_name: status.job_name.clone(),
        message: status.message.clone(),
        reboot_status: status.reboot_status,
        last_updated: status.last_updated.clone(),
        verified: status.verified,
        holds_slot: status.holds_slot,
        machine_id: status.machine_id.clone().filter(|_| status.phase.is_final()),
        ..NodeStatus::default()
    }
}

impl Item {
    fn shown(&self) -> &Arc<Self> {
        self.shown.get_or_init(|| Arc::new(Self::of(self.name.clone(), shown(&self.status))))
    }
}

impl Chunk {
    fn shown(&self) -> &Arc<Self> {
        self.shown.get_or_init(|| Self::of(self.items.iter().map(|item| item.shown().clone()).collect()))
    }
}

impl NodeStatuses {
    /// What is shown of all entries.
    pub fn shown(&self) -> Self {
        Self { chunks: self.chunks.iter().map(|chunk| chunk.shown().clone()).collect() }
    }

    /// What is shown of those that have one of the marks; of those that failed, of the first `most_failed`.
    pub fn shown_of<const N: usize>(&self, marks: [Mark; N], most_failed: usize) -> Self {
        let mut failed = 0;
        let marked = self.marked_items(marks).filter(|item| {
            let has_failed = Mark::Failed.is_on(&item.status);
            failed += usize::from(has_failed);
            !has_failed || failed <= most_failed
        });
        let marked: Vec<Arc<Item>> = marked.map(|item| item.shown().clone()).collect();
        Self { chunks: marked.chunks(CHUNK).map(|items| Chunk::of(items.to_vec())).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::nodeop::Phase;

    fn entry(rng: &mut fastrand::Rng) -> NodeStatus {
        let phases = [Phase::Pending, Phase::Preflight, Phase::Running, Phase::Completed, Phase::Failed];
        let text = |rng: &mut fastrand::Rng| rng.bool().then(|| rng.u8(..3).to_string());
        NodeStatus {
            phase: rng.choice(phases).unwrap(),
            message: text(rng),
            boot: text(rng),
            machine_id: text(rng),
            job_name: text(rng),
            job_uid: text(rng),
            ..NodeStatus::default()
        }
    }

    /// However the entries came to be what they are, and whenever it was asked before.
    #[test]
    fn what_is_remembered_is_what_is_found_anew() {
        let marks = [Mark::Preflight, Mark::Failed];
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut nodes: NodeStatuses =
                (0..rng.usize(..400)).map(|n| (format!("n{n}"), entry(&mut rng))).collect();
            for _ in 0..60 {
                let name = format!("n{}", rng.usize(..500));
                match rng.u8(..6) {
                    0 => nodes.remove(&name),
                    1 => nodes.say(&name, "m"),
                    2 => nodes.say_of_plain("all", |name| name.ends_with('3')),
                    _ => nodes.insert(name, entry(&mut rng)),
                }
                let anew = |is_meant: &dyn Fn(&NodeStatus) -> bool| -> BTreeMap<String, NodeStatus> {
                    let meant = nodes.iter().filter(|(_, entry)| is_meant(entry));
                    meant.map(|(name, entry)| (name.clone(), shown(entry))).collect()
                };
                let is_marked = |entry: &NodeStatus| marks.iter().any(|mark| mark.is_on(entry));
                assert!(nodes.shown().iter().eq(&anew(&|_| true)), "seed {seed}");
                assert!(nodes.shown_of(marks, usize::MAX).iter().eq(&anew(&is_marked)), "seed {seed}");
                assert_eq!(nodes.shown().count(Mark::Failed), nodes.count(Mark::Failed));
            }
        }
    }

    /// Else each plan would build, compare and drop what is shown of thousands of nodes.
    #[test]
    fn what_has_not_changed_is_shared_by_what_is_shown() {
        let mut nodes: NodeStatuses = (0..400).map(|n| (format!("n{n:03}"), NodeStatus::default())).collect();
        let before = nodes.shown();
        nodes.say("n200", "m");
        let shares = |one: &NodeStatuses, other: &NodeStatuses| {
            one.chunks.iter().zip(&other.chunks).filter(|(one, other)| Arc::ptr_eq(one, other)).count()
        };
        assert_eq!(shares(&nodes.shown(), &before), before.chunks.len() - 1);
        assert_eq!(shares(&nodes.shown(), &nodes.shown()), before.chunks.len());
        let changed: Vec<_> = nodes.shown().changes(&before).map(|change| change.name.clone()).collect();
        assert_eq!(changed, ["n200"]);
    }
}
