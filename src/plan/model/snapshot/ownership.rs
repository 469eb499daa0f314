//! What is ours: by namespace, kind, name and UID of the owner, compared in one place.
//!
//! A label says only why an object is looked at. A stranger's pod with our label, a pod that names the UID of
//! a Job of ours from another namespace, or an owner of a kind that does not exist matches nothing.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    api::nodeop::{NodeOp, NodeStatus},
    plan::model::{
        id::OpRef,
        object_name,
        snapshot::{JobView, NodeView, Owner, PodView, Role, Snapshot},
    },
};

impl OpRef {
    /// Whether an object of that namespace with that owner belongs to this very NodeOp.
    pub fn owns(&self, namespace: &str, owner: &Owner) -> bool {
        is_owner((&self.namespace, &self.name, &self.uid), namespace, owner)
    }
}

/// Whether an object of that namespace with that owner belongs to the NodeOp of this namespace, name and UID.
fn is_owner((its_namespace, name, uid): (&str, &str, &str), namespace: &str, owner: &Owner) -> bool {
    namespace == its_namespace && owner.is_nodeop() && owner.name == name && owner.uid == uid
}

impl JobView {
    /// Whether it belongs to the NodeOp.
    pub fn is_of(&self, op: &OpRef) -> bool {
        op.owns(&self.namespace, &self.owner)
    }
}

impl PodView {
    /// Whether it belongs to the NodeOp itself, as a waiter and a preflight do.
    pub fn is_of(&self, op: &OpRef) -> bool {
        op.owns(&self.namespace, &self.owner)
    }

    /// Whether a Job made it.
    pub fn is_of_job(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.namespace == namespace && self.owner.is_job() && self.owner.name == name && self.owner.uid == uid
    }

    /// Whether it reads the facts of this machine.
    pub fn is_of_node(&self, node: &NodeView) -> bool {
        self.owner.is_node() && self.owner.name == node.name && self.owner.uid == node.uid
    }
}

impl Snapshot {
    /// The pods of one role, other than a Job's, that the NodeOp has and that are open.
    pub fn pods_of<'a>(&'a self, op: &'a OpRef, role: Role) -> impl Iterator<Item = &'a Arc<PodView>> {
        self.pods.open_of_owner(&op.uid).filter(move |pod| pod.role == role && pod.is_of(op))
    }

    /// The pods of one role, other than a Job's, that the NodeOp has on a node and that are open.
    pub fn pods_of_on<'a>(
        &'a self,
        op: &'a OpRef,
        role: Role,
        node: &'a str,
    ) -> impl Iterator<Item = &'a Arc<PodView>> {
        self.pods.on_node(node).filter(move |pod| pod.role == role && pod.is_of(op))
    }

    /// The Jobs that the NodeOp has.
    pub fn jobs_of<'a>(&'a self, op: &'a OpRef) -> impl Iterator<Item = &'a Arc<JobView>> {
        self.jobs.of_owner(&op.uid).filter(move |job| job.is_of(op))
    }

    /// The pods that a Job made, whether or not a cache shows that Job.
    pub fn pods_of_job<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> impl Iterator<Item = &'a Arc<PodView>> {
        self.pods.of_owner(uid).filter(move |pod| pod.is_of_job(namespace, name, uid))
    }

    /// The Job that made a pod, if a cache shows it.
    pub fn job_of(&self, pod: &PodView) -> Option<&Arc<JobView>> {
        self.job(&pod.namespace, &pod.owner)
    }

    fn job(&self, namespace: &str, owner: &Owner) -> Option<&Arc<JobView>> {
        let job = self.jobs.get(&(namespace.to_owned(), owner.name.clone()))?;
        (owner.is_job() && job.uid == owner.uid).then_some(job)
    }

    /// The NodeOp that an owner of objects in a namespace is, if it is there.
    pub fn nodeop_of(&self, namespace: &str, owner: &Owner) -> Option<Arc<NodeOp>> {
        let op = self.op_named(&(namespace.to_owned(), owner.name.clone()))?;
        let ObjectMeta { namespace: its_namespace, name, uid, .. } = &op.metadata;
        let [its_namespace, name, uid] =
            [its_namespace, name, uid].map(|text| text.as_deref().unwrap_or_default());
        is_owner((its_namespace, name, uid), namespace, owner).then_some(op)
    }

    /// The NodeOp whose operation a pod carries out: through its Job, or, when no cache shows that Job (any
    /// more), through the status in which a NodeOp of the pod's namespace recorded it for the pod's node.
    pub fn operation_of(&self, pod: &PodView) -> Option<Arc<NodeOp>> {
        self.operation_of_job(&pod.namespace, &pod.owner, &pod.node)
    }

    /// The NodeOp that works on the node by a Job, if its owner does.
    pub fn worker(&self, job: &JobView, node: &str) -> Option<Arc<NodeOp>> {
        let op = self.nodeop_of(&job.namespace, &job.owner)?;
        works_by(&op, &Owner::job(&job.name, &job.uid), node).then_some(op)
    }

    /// The NodeOp whose Job an owner of pods in a namespace is, see [`Self::operation_of`].
    pub fn operation_of_job(&self, namespace: &str, owner: &Owner, node: &str) -> Option<Arc<NodeOp>> {
        if !owner.is_job() {
            return None;
        }
        match self.job(namespace, owner) {
            Some(job) => self.worker(job, node),
            // The record of a finished one names no Job.
            None => {
                let from = (namespace.to_owned(), String::new());
                let of_namespace = self.ops.range(from..).take_while(|((its, _), _)| its == namespace);
                of_namespace.map(|(_, op)| op).find(|op| records(op, owner, node)).cloned()
            }
        }
    }
}

/// Whether the NodeOp works on the node by this Job, which names it as its owner. Whoever may create Jobs can
/// write that: a NodeOp that is there, is not over or is, of that namespace. So the NodeOp has to know of it.
/// Its status names the Job, before there is one; or it is as the Go operator left it, which wrote down its
/// Jobs late or never; or the Job has a name that this NodeOp gives to its own, and the NodeOp has been at
/// the node: then its status may not tell any more, and a Job of such a name is ended once the node is
/// finished. Before that it would keep the node from the very NodeOp that it names.
pub fn works_by(op: &NodeOp, job: &Owner, node: &str) -> bool {
    let Some(status) = op.status.as_ref().filter(|status| !status.is_legacy()) else { return true };
    let entry = status.node_statuses.get(node);
    let was_here =
        || entry.map_or_else(|| status.is_over(), |entry| entry.phase.is_final() || entry.job_name.is_some());
    let is_named = || {
        let ObjectMeta { name, uid, .. } = &op.metadata;
        let [name, uid] = [name, uid].map(|text| text.as_deref().unwrap_or_default());
        object_name::attempt((name, uid), node, "", &job.name).is_some()
    };
    records(op, job, node) || (was_here() && is_named())
}

/// Whether the NodeOp's status names the Job. An entry that is final keeps the Job's name alone, which is
/// made from the NodeOp's UID.
pub fn records(op: &NodeOp, job: &Owner, node: &str) -> bool {
    let names = |entry: &NodeStatus| {
        entry.job_name.as_ref() == Some(&job.name) && entry.job_uid.as_ref().is_none_or(|uid| *uid == job.uid)
    };
    op.status.as_ref().and_then(|status| status.node_statuses.get(node)).is_some_and(names)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::names::{FINALIZER, container},
        plan::{
            fixtures,
            model::{
                action::Action,
                snapshot::{ContainerState, ContainerView, JobState, PodPhase},
            },
            plan,
        },
    };

    /// The NodeOp `ns/op` works on n1, or is done with it, as `entry` says; `job` is where its Job stands,
    /// and `pods` are on n1.
    fn world(entry: Value, job: Option<JobState>, pods: Vec<PodView>) -> Snapshot {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u", "finalizers": [FINALIZER]},
            "spec": {"command": ["true"], "cordon": true, "rebootOnSuccess": true, "concurrency": 1},
            "status": {"phase": "Running", "observedGeneration": 1, "nodeStatuses": {"n1": entry, "n2": {"phase": "Pending"}}},
        }))
        .unwrap();
        let me = OpRef::of(&op);
        let held = Some(me.clone());
        let n1 = NodeView { unschedulable: true, cordoned_by: held.clone(), claimed_by: held, ..node("n1") };
        let job = job.map(|state| fixtures::job(&fixtures::job_name(), state));
        Snapshot {
            nodes: [n1, node("n2")].into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect(),
            ops: [(me.key(), Arc::new(op))].into(),
            jobs: job
                .into_iter()
                .map(|job| (("ns".to_owned(), fixtures::job_name()), Arc::new(job)))
                .collect(),
            pods: pods
                .into_iter()
                .map(|pod| ((pod.namespace.clone(), pod.name.clone()), Arc::new(pod)))
                .collect(),
            ..Snapshot::default()
        }
    }

    fn node(name: &str) -> NodeView {
        NodeView {
            name: name.into(),
            uid: name.into(),
            ready: true,
            boot_id: "b1".into(),
            ..NodeView::default()
        }
    }

    /// A pod that names the Job of the NodeOp as its owner, wherever it is, and says what a sentinel would
    /// say.
    fn claims(namespace: &str, owner: Owner) -> PodView {
        let message =
            json!({"job": fixtures::job_name(), "jobUid": "ju", "boot": "b1", "time": "", "target": "v9"})
                .to_string();
        let state = ContainerState::Ended { code: 0, reason: "Completed".into(), message };
        let containers = vec![ContainerView::new(container::SENTINEL, state)];
        let pod = fixtures::pod(Role::Job, "p", owner, "n1");
        PodView { namespace: namespace.into(), phase: PodPhase::Succeeded, containers, ..pod }
    }

    fn elsewhere(kind: &str) -> Owner {
        Owner {
            group: "no.such.group".into(),
            kind: kind.into(),
            name: fixtures::job_name(),
            uid: "ju".into(),
        }
    }

    #[test]
    fn only_a_pod_of_our_own_job_proves_what_it_did() {
        // The boot and the target that the plan records from the pod's termination message.
        let believed = |pod: PodView| {
            let entry = json!({"phase": "Running", "step": "Job", "jobName": fixtures::job_name(), "jobUid": "ju", "nodeUid": "n1"});
            let planned = plan(&world(entry, Some(JobState::Complete), vec![pod]));
            let written = planned.actions.into_iter().find_map(|action| match action {
                Action::PatchStatus { status, .. } => status.node_statuses.get("n1").cloned(),
                _ => None,
            });
            let written = written.unwrap();
            (written.boot, written.target)
        };
        assert_eq!(
            believed(claims("ns", Owner::job(&fixtures::job_name(), "ju"))),
            (Some("b1".into()), Some("v9".into()))
        );
        for forged in [
            claims("team-b", Owner::job(&fixtures::job_name(), "ju")),
            claims("ns", Owner::job("another", "ju")),
            claims("ns", Owner::job(&fixtures::job_name(), "another")),
            claims("ns", elsewhere("Job")),
            claims("team-b", elsewhere("Job")),
            claims("ns", Owner::default()),
        ] {
            assert_eq!(believed(forged.clone()), (None, None), "{:?} in {}", forged.owner, forged.namespace);
        }
    }

    #[test]
    fn a_strangers_pod_holds_no_node() {
        let released = |pod: PodView, job: Option<JobState>| {
            let entry = json!({"phase": "Completed", "rebootStatus": "completed", "jobName": fixtures::job_name(), "nodeUid": "n1"});
            let running = PodView { phase: PodPhase::Running, containers: vec![], ..pod };
            let planned = plan(&world(entry, job, vec![running]));
            planned
                .actions
                .iter()
                .any(|action| matches!(action, Action::PatchNode { name, .. } if name == "n1"))
        };
        let ours = || claims("ns", Owner::job(&fixtures::job_name(), "ju"));
        assert!(!released(ours(), Some(JobState::Complete)), "our own Job's pod still ends");
        assert!(!released(ours(), None), "its Job has gone, and the status tells of it");
        for stranger in [
            PodView { role: Role::Stranger, ..claims("team-a", Owner::default()) },
            PodView {
                role: Role::Stranger,
                ..claims("ns", Owner { kind: "DaemonSet".into(), ..Owner::job(&fixtures::job_name(), "ju") })
            },
            claims("team-a", Owner::job(&fixtures::job_name(), "ju")),
            claims("ns", Owner::job("a-job-of-theirs", "tu")),
            claims("ns", elsewhere("Job")),
        ] {
            for job in [Some(JobState::Complete), None] {
                assert!(released(stranger.clone(), job), "{:?} in {}", stranger.owner, stranger.namespace);
            }
        }
    }

    /// Whoever may create Jobs can name any NodeOp as their owner, and can compute what our own are called.
    #[test]
    fn a_nodeop_works_by_the_jobs_that_it_knows_of() {
        let works = |name: &str, status: Value| {
            let mut op = NodeOp::new("op", Default::default());
            op.metadata.uid = Some("u".into());
            op.status = serde_json::from_value(status).unwrap();
            works_by(&op, &Owner::job(name, "ju"), "n1")
        };
        let about = |entry: Value| json!({"observedGeneration": 1, "nodeStatuses": {"n1": entry}});
        let ours = fixtures::job_name();
        let named = json!({"phase": "Running", "jobName": "j", "jobUid": "ju"});
        assert!(works("j", about(named.clone())) && !works("theirs", about(named.clone())));
        assert!(!works("j", about(json!({"phase": "Running", "jobName": "j", "jobUid": "another"}))));
        assert!(works(&ours, about(named)), "one before it");
        let compacted = about(json!({"phase": "Completed"}));
        assert!(works(&ours, compacted.clone()) && !works("theirs", compacted));
        let record = json!({"phase": "Completed", "observedGeneration": 1});
        assert!(works(&ours, record.clone()) && !works("theirs", record));
        assert!(
            !works(&ours, about(json!({"phase": "Pending"}))),
            "it would wait for a Job of its own for ever"
        );
        let elsewhere = json!({"phase": "Running", "observedGeneration": 1, "nodeStatuses": {"n2": {"phase": "Pending"}}});
        assert!(!works(&ours, elsewhere));
        for of_the_go_operator in [Value::Null, json!({"phase": "Running"})] {
            assert!(works("theirs", of_the_go_operator));
        }
    }

    #[test]
    fn a_forged_job_or_waiter_is_nobodys() {
        let snapshot = world(json!({"phase": "Pending"}), Some(JobState::Active), vec![]);
        let me = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        assert_eq!(snapshot.jobs_of(&me).count(), 1);
        let own = Owner::nodeop("op", "u");
        assert!(me.owns("ns", &own));
        let group = Owner { group: "no.such.group".into(), ..own.clone() };
        let kind = Owner { kind: "NodeOpUpgrade".into(), ..own.clone() };
        for (namespace, owner) in [
            ("team-a", own),
            ("ns", group),
            ("ns", kind),
            ("ns", Owner::nodeop("op", "v")),
            ("ns", Owner::nodeop("po", "u")),
        ] {
            assert!(!me.owns(namespace, &owner), "{owner:?} in {namespace}");
            let waiter =
                PodView { namespace: namespace.into(), ..fixtures::pod(Role::Waiter, "w", owner, "n1") };
            let snapshot = Snapshot {
                pods: [((namespace.to_owned(), "w".to_owned()), Arc::new(waiter))].into(),
                ..snapshot.clone()
            };
            assert_eq!(snapshot.pods_of(&me, Role::Waiter).count(), 0);
        }
    }
}
