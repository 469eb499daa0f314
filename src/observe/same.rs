//! Which versions of an object say the same to the planner: heartbeats, lists of images and whatever others
//! write into annotations bring new ones all the time.

use kube::core::ObjectMeta;

use super::cache::Observed;
use crate::{
    api::{nodeop::NodeOp, upgrade::NodeOpUpgrade},
    plan::model::snapshot::{FinishedOp, JobView, NodePod, NodeView, PodView},
};

impl Observed for NodeView {
    fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            name,
            uid,
            // A patch is made at it, and nothing is decided by it.
            resource_version: _,
            created,
            labels,
            annotations,
            unschedulable,
            cordoned_by,
            kept_cordon,
            claimed_by,
            hints,
            lifecycle,
            ready,
            ready_changed,
            stays_ready,
            boot_id,
            bootless,
            machine_id,
            os,
            arch,
            native_sidecars,
            etcd_votes,
            etcd_said,
            disk_pressure,
            volumes_attached,
            deleting,
        } = self;
        (ready, ready_changed, boot_id, unschedulable, deleting)
            == (&other.ready, &other.ready_changed, &other.boot_id, &other.unschedulable, &other.deleting)
            && (name, uid, machine_id, os, arch)
                == (&other.name, &other.uid, &other.machine_id, &other.os, &other.arch)
            && (cordoned_by, kept_cordon, claimed_by, hints)
                == (&other.cordoned_by, &other.kept_cordon, &other.claimed_by, &other.hints)
            && (stays_ready, bootless, disk_pressure)
                == (&other.stays_ready, &other.bootless, &other.disk_pressure)
            && (created, etcd_votes, etcd_said, volumes_attached, native_sidecars)
                == (
                    &other.created,
                    &other.etcd_votes,
                    &other.etcd_said,
                    &other.volumes_attached,
                    &other.native_sidecars,
                )
            && (labels, annotations, lifecycle) == (&other.labels, &other.annotations, &other.lifecycle)
    }
}

impl Observed for JobView {
    fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            namespace,
            name,
            uid,
            resource_version: _,
            owner,
            node,
            suspended,
            deleting,
            state,
            started_at,
            generation,
            deadline_seconds,
            failed,
            has_pod,
            has_ready_pod,
            settled_in,
        } = self;
        (namespace, name, uid, owner, node)
            == (&other.namespace, &other.name, &other.uid, &other.owner, &other.node)
            && (suspended, deleting, state, failed)
                == (&other.suspended, &other.deleting, &other.state, &other.failed)
            && (has_pod, has_ready_pod) == (&other.has_pod, &other.has_ready_pod)
            && (started_at, generation, deadline_seconds, settled_in)
                == (&other.started_at, &other.generation, &other.deadline_seconds, &other.settled_in)
    }
}

impl Observed for PodView {
    fn says_the_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Observed for NodePod {
    fn says_the_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Observed for NodeOp {
    const IS_WRITTEN_AS_SHOWN: bool = true;

    fn says_the_same(&self, other: &Self) -> bool {
        same(&self.metadata, &other.metadata) && self.spec == other.spec && self.status == other.status
    }

    fn record(&self) -> Option<FinishedOp> {
        FinishedOp::of(self)
    }
}

impl Observed for NodeOpUpgrade {
    const IS_WRITTEN_AS_SHOWN: bool = true;

    fn says_the_same(&self, other: &Self) -> bool {
        same(&self.metadata, &other.metadata) && self.spec == other.spec && self.status == other.status
    }
}

/// All that is kept of an object's metadata, but for its version.
fn same(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    (&one.name, &one.namespace, &one.uid, &one.generation)
        == (&other.name, &other.namespace, &other.uid, &other.generation)
        && (&one.creation_timestamp, &one.deletion_timestamp)
            == (&other.creation_timestamp, &other.deletion_timestamp)
        && (&one.finalizers, &one.owner_references) == (&other.finalizers, &other.owner_references)
        && (&one.labels, &one.annotations) == (&other.labels, &other.annotations)
}
