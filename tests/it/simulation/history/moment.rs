//! What must hold at each moment, and at the end.

use super::*;

impl World {
    /// What holds at every moment.
    pub fn check_moment(&mut self) {
        let mut found = Vec::new();
        let mut control_planes = Vec::new();
        for node in self.nodes.live().values() {
            let Some(of) = &node.claimed_by else { continue };
            let Some(op) = self.history.ops.get(&of.uid) else { continue };
            if node.has_control_plane_label() && Intent::of(op).disturbs() {
                control_planes.push(node.name.clone());
            }
        }
        if control_planes.len() > 1 {
            found.push(format!("control-plane nodes {control_planes:?} are in progress together"));
        }
        for op in self.ops.live().values() {
            let me = OpRef::of(op);
            let running = op.status.iter().flat_map(|status| &status.node_statuses);
            let mut held: BTreeSet<&String> =
                running.filter(|(_, entry)| entry.phase == Phase::Running).map(|(node, _)| node).collect();
            // A node that it failed on and left cordoned is down as well.
            let ours = |node: &NodeView| {
                node.claimed_by.as_ref() == Some(&me)
                    || (node.unschedulable && node.cordoned_by.as_ref() == Some(&me))
            };
            held.extend(self.nodes.live().values().filter(|node| ours(node)).map(|node| &node.name));
            if Intent::of(op).concurrency.is_some_and(|limit| held.len() > limit) {
                found.push(format!("{me} has {held:?} in progress"));
            }
        }
        found.into_iter().for_each(|what| self.broken(what));
    }

    /// What holds once the faults have stopped and everything has come to rest.
    pub fn check_rest(&mut self) {
        let mut found = Vec::new();
        for op in self.ops.live().values() {
            let name = &op.metadata.name;
            // One that no node matches waits for the first, and holds nothing.
            let empty = op.status.as_ref().is_some_and(|status| {
                status.phase == Some(Phase::Pending) && status.node_statuses.is_empty()
            });
            if !empty && !op.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final) {
                let entries = op.status.iter().flat_map(|status| &status.node_statuses);
                let open = entries.filter(|(_, entry)| !entry.phase.is_final() || entry.node_uid.is_some());
                let open: Vec<_> = open
                    .map(|(node, entry)| (node, entry.phase, entry.step, entry.message.clone()))
                    .collect();
                found.push(format!("{name:?} never ends: {open:?}"));
            }
            if op.metadata.finalizers.iter().flatten().next().is_some() {
                found.push(format!("{name:?} keeps its finalizer"));
            }
        }
        for node in self.nodes.live().values() {
            if let Some(of) = &node.claimed_by {
                found.push(format!("{} is still claimed by {of}", node.name));
            }
            let kept_off = node.unschedulable && node.is_kept_off();
            if (node.hints.is_some() || node.left_balancers()) && !kept_off {
                found.push(format!("{} is left with hints: {:?}", node.name, node.hints));
            }
            let human = self.machines.get(&node.name).is_some_and(|machine| machine.human);
            if !node.unschedulable && (node.cordoned_by.is_some() || node.kept_cordon.is_some()) {
                found.push(format!("{} keeps a stale annotation", node.name));
            }
            if node.unschedulable && !human && !self.keeps_cordon(node) {
                found.push(format!(
                    "{} is left cordoned by {:?}, {:?}",
                    node.name, node.cordoned_by, node.kept_cordon
                ));
            }
        }
        for job in self.jobs.live().values().filter(|job| job.state == JobState::Active) {
            found.push(format!("Job {} is left", job.name));
        }
        for pod in self.pods.live().values().filter(|pod| !pod.phase.is_final()) {
            found.push(format!("{:?} pod {} is left", pod.role, pod.name));
        }
        found.into_iter().for_each(|what| self.broken(what));
    }

    /// A node that failed after its operation had started stays cordoned for a human to look at.
    fn keeps_cordon(&self, node: &NodeView) -> bool {
        let Some(kept) = &node.kept_cordon else { return false };
        let of = &kept.by;
        // Also when its NodeOp is gone, which has been told then.
        let Some(op) =
            self.history.ops.get(&of.uid).filter(|_| kept.deleted == self.history.gone.contains(&of.uid))
        else {
            return false;
        };
        let entry = op.status.as_ref().and_then(|status| status.node_statuses.get(&node.name));
        let failed = entry.is_some_and(|entry| entry.phase == Phase::Failed);
        failed
            && !op.spec.uncordon_on_failure.unwrap_or(false)
            && self.history.started.contains(&(of.uid.clone(), node.name.clone()))
    }
}
