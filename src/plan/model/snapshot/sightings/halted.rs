//! Pods of Jobs of which containers have ended and none runs, on nodes that have booted since the Job was let
//! go, and since when they are seen so in the present boot. A kubelet that does not go on with such a pod
//! says nothing of that, in its status or in an Event.

use std::{collections::BTreeMap, mem};

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::nodeop::Step,
    plan::model::snapshot::{NodeView, PodView, Snapshot},
};

/// By the pod's UID: the boot of its node, and when the pod was first seen so in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Halted(BTreeMap<String, (String, Timestamp)>);

impl Halted {
    /// A node that is not Ready has no kubelet that reports: its pods count anew when it is.
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let mut before = mem::take(&mut self.0);
        for (op, name, entry) in snapshot.running().filter(|(_, _, entry)| entry.step == Some(Step::Job)) {
            let (Some(left), Some(uid), Some(job)) = (&entry.boot, &entry.job_uid, &entry.job_name) else {
                continue;
            };
            let node = snapshot.nodes.get(name).filter(|node| node.ready && node.tells_its_boot());
            let Some(node) = node.filter(|node| node.boot_id != *left) else { continue };
            let namespace = op.metadata.namespace.as_deref().unwrap_or_default();
            for pod in snapshot.pods_of_job(namespace, job, uid).filter(|pod| pod.is_halted()) {
                let known = before.remove(&pod.uid).filter(|(boot, _)| *boot == node.boot_id);
                let since = known.unwrap_or_else(|| (node.boot_id.clone(), snapshot.now));
                self.0.insert(pod.uid.clone(), since);
            }
        }
    }
}

impl Snapshot {
    /// Since when we have seen the pod halted in the boot in which its node is, which is another one than
    /// that in which its Job was let go; nothing of any other pod.
    pub fn halted_since(&self, pod: &PodView, node: &NodeView) -> Option<Timestamp> {
        let (boot, since) = self.sightings.halted.0.get(&pod.uid)?;
        (*boot == node.boot_id && node.ready && pod.is_halted()).then_some(*since)
    }
}
