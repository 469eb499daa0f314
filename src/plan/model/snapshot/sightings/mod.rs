//! Since when this process has seen what it sees, by the clock that plans are made by.
//!
//! A deadline that compares the node's or the API server's time stamps with our clock is wrong by as much as
//! the two are apart, which on a board without a battery is years. So a deadline counts from the moment at
//! which we first saw the thing. Another leader has seen nothing yet and counts anew: it ends later, never
//! too early.

mod arrivals;
mod away;
mod begun;
mod candidates;
mod control_planes;
mod gone;
mod halted;
mod in_order;
mod returned;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use self::{
    arrivals::Arrivals,
    away::Away,
    begun::Begun,
    candidates::Candidates,
    control_planes::ControlPlanes,
    gone::Gone,
    halted::Halted,
    in_order::{InOrder, sorted},
    returned::Returned,
};
pub use self::{
    arrivals::PodArrival,
    away::Absence,
    candidates::{MatchedSince, had_no_nodes},
    control_planes::RETURNS_WITHIN,
};
use crate::{
    api::{
        node_statuses::Mark,
        nodeop::{NodeOp, NodeStatus, Step},
    },
    plan::model::{
        id::OpRef,
        question::{Answer, Question},
        snapshot::{
            ContainerState, JobState, JobView, NodeClass, NodePod, NodeView, PodPhase, PodView, Role,
            Snapshot, Table,
        },
        time::later,
    },
};

/// One run of a container: the pod's UID, the container's name, and how often it was started before.
type Run = (String, String, i32);
/// One run of a container, as a view names it.
type RunOf<'a> = (&'a str, &'a str, i32);

/// A waiter that said that it stands.
#[derive(Clone, Debug, PartialEq)]
struct Stood {
    name: String,
    /// When it was first seen not to stand any more.
    until: Option<Timestamp>,
    /// Since when it reads another boot id than the node's kubelet has told.
    apart: Option<Timestamp>,
}

/// When things were seen first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sightings {
    /// Pods, by UID.
    pods: BTreeMap<String, Timestamp>,
    /// Containers that run.
    runs: BTreeMap<Run, Timestamp>,
    /// Jobs that may run, by UID.
    jobs: BTreeMap<String, Timestamp>,
    /// Jobs that have failed, or are about to, by UID.
    failed: BTreeMap<String, Timestamp>,
    begun: Begun,
    /// Pods that stand still, and of which their kubelet says nothing in their status, by UID.
    silent: BTreeMap<String, Timestamp>,
    /// Preflights whose check we saw begin, by UID, however often it was started again since.
    checks: BTreeMap<String, Timestamp>,
    /// Nodes of which it cannot be read yet what they run, by UID.
    joining: BTreeMap<String, Timestamp>,
    /// Nodes that an operation took out of load balancers, by UID.
    unbalanced: BTreeMap<String, Timestamp>,
    /// Nodes whose reboot is due and that have no waiter, by the NodeOp's UID and the node's name.
    unwatched: BTreeMap<(String, String), Timestamp>,
    /// Since when nodes that are in step `Claim` have been claimed, by the NodeOp's UID and the node's name.
    claimed: BTreeMap<(String, String), Timestamp>,
    /// Waiters that stood on nodes whose operation has not begun, by the NodeOp's UID and the node's name.
    stood: BTreeMap<(String, String), Stood>,
    /// Pods of nodes that are drained which are being deleted, by UID.
    endings: BTreeMap<String, Timestamp>,
    /// The pods of nodes that are drained, or are still being worked on after that, by node and by the UID of
    /// the NodeOp: not for as long as a watch lasts, which may be ended and begun again at any time.
    arrivals: BTreeMap<String, BTreeMap<String, Arrivals>>,
    /// Nodes from which our own pod is to move, and when another replica was first seen to start.
    replicas: BTreeMap<String, Timestamp>,
    away: Away,
    gone: Gone,
    halted: Halted,
    control_planes: ControlPlanes,
    returned: Returned,
    candidates: Candidates,
    /// The tokens of the tables in which that was seen: of Jobs, of pods, and of facts pods.
    noted: [Arc<()>; 3],
    /// The pods of drained nodes of which the endings were noted.
    noted_endings: Table<String, Vec<Arc<NodePod>>>,
}

impl Sightings {
    /// Notes what is seen now, and forgets what is not.
    pub fn note(&mut self, snapshot: &Snapshot) {
        let now = snapshot.now;
        let noted =
            [snapshot.jobs.token(), snapshot.pods.token(), snapshot.facts_pods.token()].map(Arc::clone);
        // A plan that is made again with answers to its questions sees what it saw before, as a rule.
        let [jobs, pods, facts] = [0, 1, 2].map(|table| !Arc::ptr_eq(&noted[table], &self.noted[table]));
        if jobs {
            self.note_jobs(snapshot);
        }
        if pods || facts {
            self.note_pods(snapshot);
        }
        if jobs || pods {
            self.begun.note(snapshot);
        }
        self.noted = noted;
        renew(&mut self.joining, snapshot.nodes.that_are(NodeClass::Joining).map(|node| &*node.uid), now);
        let unbalanced = snapshot.nodes.that_are(NodeClass::Marked).filter(|node| node.left_balancers());
        renew(&mut self.unbalanced, unbalanced.map(|node| &*node.uid), now);
        self.renew_unwatched(snapshot);
        self.renew_claimed(snapshot);
        self.renew_stood(snapshot);
        if !self.noted_endings.is(&snapshot.drained_pods) {
            let drained_pods = snapshot.drained_pods.values().flat_map(|pods| pods.iter());
            let ending = drained_pods.filter(|pod| pod.ends_by.is_some());
            renew(&mut self.endings, ending.map(|pod| &*pod.uid), now);
            self.noted_endings = snapshot.drained_pods.clone();
        }
        self.note_arrivals(snapshot);
        self.replicas.retain(|node, _| snapshot.drained_pods.contains_key(node));
        for (question, answer) in &snapshot.answers {
            match (question, answer) {
                (Question::OtherReplica(node), Answer::Pending) => {
                    self.replicas.entry(node.clone()).or_insert(now);
                }
                (Question::OtherReplica(node), _) => drop(self.replicas.remove(node)),
                _ => {}
            }
        }
        self.away.note(snapshot);
        self.gone.note(snapshot);
        self.halted.note(snapshot);
        self.control_planes.note(&snapshot.nodes, now);
        self.returned.note(snapshot);
        self.candidates.note(snapshot);
    }

    fn note_pods(&mut self, snapshot: &Snapshot) {
        let now = snapshot.now;
        // Of an operation's pods that have succeeded, which most of a large rollout are, nobody asks since
        // when. A facts pod that ended well may have said nothing, and is followed by another after a pause.
        let of_operations =
            || snapshot.pods.open().filter(|pod: &&Arc<PodView>| pod.phase != PodPhase::Succeeded);
        let pods = || of_operations().chain(snapshot.facts_pods.values()).map(AsRef::as_ref);
        let there = sorted(pods().map(|pod| &*pod.uid));
        renew(&mut self.silent, pods().filter(|pod| pod.is_silent()).map(|pod| &*pod.uid), now);
        let mut pods_there = InOrder(&there);
        self.checks.retain(|uid, _| pods_there.has_text(uid));
        for pod in pods().filter(|pod| pod.role == Role::Preflight && pod.has_begun()) {
            if !self.checks.contains_key(&pod.uid) {
                self.checks.insert(pod.uid.clone(), now);
            }
        }
        renew_all(&mut self.pods, &there, now);
        renew_runs(&mut self.runs, pods().flat_map(runs), now);
    }

    /// Jobs that run or have failed. Of one that has succeeded nobody asks since when that is known.
    fn note_jobs(&mut self, snapshot: &Snapshot) {
        let now = snapshot.now;
        let let_go = snapshot.jobs.open().filter(|job| job.state == JobState::Active && !job.suspended);
        renew(&mut self.jobs, let_go.map(|job| &*job.uid), now);
        let failed = snapshot.jobs.open().filter(|job| job.state.is_failure());
        renew(&mut self.failed, failed.map(|job| &*job.uid), now);
    }

    fn renew_unwatched(&mut self, snapshot: &Snapshot) {
        let there: BTreeSet<_> = snapshot.unwatched().collect();
        self.unwatched.retain(|key, _| there.contains(key));
        for key in there {
            self.unwatched.entry(key).or_insert(snapshot.now);
        }
    }

    fn renew_claimed(&mut self, snapshot: &Snapshot) {
        let mut before = mem::take(&mut self.claimed);
        let claims = snapshot.running().filter(|(_, _, entry)| entry.step == Some(Step::Claim));
        for (op, node, _) in claims {
            let op = OpRef::of(op);
            if snapshot.nodes.get(node).is_some_and(|node| node.claimed_by.as_ref() == Some(&op)) {
                let key = (op.uid, node.clone());
                let since = before.remove(&key).unwrap_or(snapshot.now);
                self.claimed.insert(key, since);
            }
        }
    }

    /// The last one of a node counts. A pod that has gone tells nobody that it stood.
    fn renew_stood(&mut self, snapshot: &Snapshot) {
        let mut before = mem::take(&mut self.stood);
        for (op, node) in snapshot.preparing() {
            let key = (op.uid.clone(), node.to_owned());
            let said =
                || snapshot.pods_of_on(&op, Role::Waiter, node).filter(|pod| pod.reboot_state.is_some());
            let stands = said().find(|pod| pod.is_active());
            let known = before.remove(&key);
            let stood = match (stands, known) {
                (Some(pod), known) => {
                    let since = known.filter(|known| known.name == pod.name).and_then(|known| known.apart);
                    // A node that is not Ready has booted, perhaps, and starts no waiter before its network
                    // is there.
                    let ready = snapshot.nodes.get(node).filter(|node| node.ready);
                    let told = ready.map(|node| &node.boot_id).filter(|boot| !boot.is_empty());
                    // Nor has one read anything of a boot in which its container has not been started again.
                    let reads = pod.waits_in.as_ref().filter(|_| !pod.waits_for_its_container());
                    let reads = reads.filter(|reads| told.is_some_and(|told| told != *reads));
                    let apart = reads.map(|_| since.unwrap_or(snapshot.now));
                    Some(Stood { name: pod.name.clone(), until: None, apart })
                }
                (None, Some(Stood { name, until, apart: _ })) => {
                    Some(Stood { name, until: until.or(Some(snapshot.now)), apart: None })
                }
                (None, None) => said().next().map(|pod| Stood {
                    name: pod.name.clone(),
                    until: Some(snapshot.now),
                    apart: None,
                }),
            };
            self.stood.extend(stood.map(|stood| (key, stood)));
        }
    }
}

/// Keeps the times of what is still there, and dates what is new. Nearly all was there before, and of that
/// nothing is copied.
fn renew<'a>(times: &mut BTreeMap<String, Timestamp>, there: impl Iterator<Item = &'a str>, now: Timestamp) {
    renew_all(times, &sorted(there), now);
}

fn renew_all(times: &mut BTreeMap<String, Timestamp>, there: &[&str], now: Timestamp) {
    let mut in_order = InOrder(there);
    times.retain(|key, _| in_order.has_text(key));
    // What is kept is there, so if it is as many, it is all.
    if times.len() < there.len() {
        let new: Vec<&str> = there.iter().copied().filter(|key| !times.contains_key(*key)).collect();
        times.extend(new.into_iter().map(|key| (key.to_owned(), now)));
    }
}

/// Forgets the runs of containers that are not there any more, and notes since when new ones are.
fn renew_runs<'a>(
    times: &mut BTreeMap<Run, Timestamp>,
    there: impl Iterator<Item = RunOf<'a>>,
    now: Timestamp,
) {
    let there = sorted(there);
    let mut in_order = InOrder(&there);
    times.retain(|(uid, name, restarts), _| in_order.has(|run| run.cmp(&(uid.as_str(), name, *restarts))));
    if times.len() < there.len() {
        for (uid, name, restarts) in there {
            times.entry((uid.to_owned(), name.to_owned(), restarts)).or_insert(now);
        }
    }
}

fn runs(pod: &PodView) -> impl Iterator<Item = RunOf<'_>> {
    let running =
        pod.containers.iter().filter(|container| matches!(container.state, ContainerState::Running { .. }));
    running.map(|container| (&*pod.uid, &*container.name, container.restarts))
}

impl Snapshot {
    /// When we first saw the pod; now, if it is new.
    pub fn first_seen(&self, pod: &PodView) -> Timestamp {
        self.sightings.pods.get(&pod.uid).copied().unwrap_or(self.now)
    }

    /// When we first saw this run of a container of the pod, if it runs.
    pub fn running_since(&self, pod: &PodView, container: &str) -> Option<Timestamp> {
        let (uid, name, restarts) = runs(pod).find(|(_, name, _)| *name == container)?;
        let run = (uid.to_owned(), name.to_owned(), restarts);
        Some(self.sightings.runs.get(&run).copied().unwrap_or(self.now))
    }

    /// When we first saw that the check of this preflight had begun; now, if that is new, or it has not.
    pub fn checking_since(&self, pod: &PodView) -> Timestamp {
        self.sightings.checks.get(&pod.uid).copied().unwrap_or(self.now)
    }

    /// When we first saw that the Job may run; now, if it is new or may not.
    pub fn let_go_since(&self, job: &JobView) -> Timestamp {
        self.sightings.jobs.get(&job.uid).copied().unwrap_or(self.now)
    }

    /// Since when we have seen that the Job has failed; now, if it is new.
    pub fn failed_since(&self, job: &JobView) -> Timestamp {
        self.sightings.failed.get(&job.uid).copied().unwrap_or(self.now)
    }

    /// Until when a pod that is being deleted may take to end, counted from when we first saw that it is.
    pub fn ending_until(&self, pod: &NodePod) -> Timestamp {
        let since = self.sightings.endings.get(&pod.uid).copied().unwrap_or(self.now);
        later(since, SignedDuration::from_secs(pod.grace_seconds))
    }

    /// Since when we have seen another replica start, so that our own pod can leave this node.
    pub fn replica_starts_since(&self, node: &str) -> Timestamp {
        self.sightings.replicas.get(node).copied().unwrap_or(self.now)
    }

    /// Since when we have seen that it cannot be read yet what the node runs; now, if it can.
    pub fn joining_since(&self, node: &NodeView) -> Timestamp {
        self.sightings.joining.get(&node.uid).copied().unwrap_or(self.now)
    }

    /// Since when we have seen the node out of load balancers; now, if that is new, or not so.
    pub fn left_balancers_since(&self, node: &NodeView) -> Timestamp {
        self.sightings.unbalanced.get(&node.uid).copied().unwrap_or(self.now)
    }

    /// The nodes that are worked on, as the statuses of their NodeOps say.
    fn running(&self) -> impl Iterator<Item = (&Arc<NodeOp>, &String, &NodeStatus)> {
        let statuses = self.ops.values().filter_map(|op| Some((op, &op.status.as_ref()?.node_statuses)));
        statuses
            .flat_map(|(op, nodes)| nodes.marked([Mark::Running]).map(move |(node, entry)| (op, node, entry)))
    }

    /// The nodes whose reboot is due, or was until it was given up, or may have been when they were, and that
    /// have no waiter.
    fn unwatched(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let ends = |entry: &NodeStatus| entry.step == Some(Step::Job) && entry.given_up.is_some();
        let due = self.running().filter(move |(_, _, entry)| entry.step == Some(Step::Reboot) || ends(entry));
        let due = due.map(|(op, node, _)| (OpRef::of(op), node));
        let unwatched =
            due.filter(|(op, node)| !self.pods_of_on(op, Role::Waiter, node).any(|pod| pod.is_active()));
        unwatched.map(|(op, node)| (op.uid, node.clone()))
    }

    /// The nodes that are worked on, and whose operation has not succeeded, as far as their status says.
    fn preparing(&self) -> impl Iterator<Item = (OpRef, &str)> + '_ {
        let prepares = |entry: &NodeStatus| matches!(entry.step, Some(Step::Claim | Step::Drain | Step::Job));
        let preparing = self.running().filter(move |(_, _, entry)| prepares(entry));
        preparing.map(|(op, node, _)| (OpRef::of(op), node.as_str()))
    }

    /// Since when we have seen the node, which is in step `Claim`, claimed by the NodeOp; now, if we have
    /// not.
    pub fn claimed_since(&self, op: &OpRef, node: &str) -> Timestamp {
        self.sightings.claimed.get(&(op.uid.clone(), node.to_owned())).copied().unwrap_or(self.now)
    }

    /// Until when the waiter of this name stood, as far as we have seen it stand; now, if it still does.
    pub fn waiter_stood_until(&self, op: &OpRef, node: &str, name: &str) -> Option<Timestamp> {
        let stood = self.sightings.stood.get(&(op.uid.clone(), node.to_owned()))?;
        (stood.name == name).then(|| stood.until.unwrap_or(self.now))
    }

    /// Since when the waiter that stands on the node reads another boot id than its kubelet has told, if it
    /// does.
    pub fn waiter_apart_since(&self, op: &OpRef, node: &str) -> Option<Timestamp> {
        self.sightings.stood.get(&(op.uid.clone(), node.to_owned()))?.apart
    }

    /// Since when we have seen that the node, whose reboot by the NodeOp is due, has no waiter; now, if it is
    /// new or has one.
    pub fn unwatched_since(&self, op: &OpRef, node: &str) -> Timestamp {
        let key = (op.uid.clone(), node.to_owned());
        self.sightings.unwatched.get(&key).copied().unwrap_or(self.now)
    }

    /// Since when we have seen the pod stand still, and its kubelet say nothing of that in its status.
    pub fn silent_since(&self, pod: &PodView) -> Option<Timestamp> {
        pod.is_silent().then(|| self.sightings.silent.get(&pod.uid).copied().unwrap_or(self.now))
    }
}

#[cfg(test)]
mod tests;
