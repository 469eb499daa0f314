//! Whether the operation may have begun in a Job. It is asked wherever a node is to be given back as it was,
//! and has one answer.
//!
//! A pod that is there tells, and one that we have seen. But pods are deleted and evicted, and whoever leads
//! anew has not seen those of before. Then the Job's own status is left: it counts every pod that has failed,
//! and `podReplacementPolicy: Failed` has each counted before another one follows. Those that its controller
//! ends because somebody suspends it are not counted; but that changes its spec, whose changes are. Where
//! none of these says that nothing has begun, something may have.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::in_order::{InOrder, sorted};
use crate::plan::model::snapshot::{JobState, JobView, Obstacle, PodPhase, PodView, Snapshot};

/// How a kubelet says that it does not take a pod in.
const REJECTED: &str = "Pod was rejected";

/// What was seen of the Jobs that are there, by UID.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Begun(BTreeMap<String, Seen>);

/// What was seen of a Job and its pods.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// The Job, before it might run: of its pods nothing has escaped us.
    made: bool,
    /// A pod in which the operation had begun, or may have.
    begun: bool,
    /// Each pod, by UID.
    pods: BTreeMap<String, SeenPod>,
    /// Since when it may run, and the operation runs in no pod of it.
    idle: Option<Timestamp>,
    /// What kept a pod of it from starting, as was seen last: the pod may be gone when that is asked.
    obstacle: Option<Obstacle>,
}

/// What was seen of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct SeenPod {
    /// A container of it had run.
    ran: bool,
    /// It had come to its end. Of one that was gone before that, nobody knows what it still began: a watch
    /// may stand still for as long as a command takes.
    ended: bool,
}

impl Begun {
    pub fn note(&mut self, snapshot: &Snapshot) {
        let there = sorted(snapshot.jobs.open().map(|job| &*job.uid));
        let mut in_order = InOrder(&there);
        self.0.retain(|uid, _| in_order.has_text(uid));
        for job in snapshot.jobs.open() {
            if !self.0.contains_key(&job.uid) {
                self.0.insert(job.uid.clone(), Seen::default());
            }
            if let Some(seen) = self.0.get_mut(&job.uid) {
                seen.note(snapshot, job);
            }
        }
    }
}

impl Seen {
    fn note(&mut self, snapshot: &Snapshot, job: &JobView) {
        self.made |= job.suspended && job.generation == Some(1);
        let mut works = false;
        for pod in snapshot.pods_made_by(job) {
            if !self.pods.contains_key(&pod.uid) {
                self.pods.insert(pod.uid.clone(), SeenPod::default());
            }
            if let Some(seen) = self.pods.get_mut(&pod.uid) {
                seen.ran |= pod.has_run();
                seen.ended |= pod.phase.is_final();
            }
            self.begun |= self.may_have_begun_in(pod);
            if pod.has_begun() {
                works |= !pod.phase.is_final();
            } else if let Some(obstacle) = pod.obstacle() {
                self.obstacle = Some(obstacle);
            }
        }
        let idle = job.state == JobState::Active && !job.suspended && !works;
        self.idle = idle.then(|| self.idle.unwrap_or(snapshot.now));
    }

    /// A kubelet that starts again may refuse pods that ran before, and says of them what it says of those
    /// that it never took in; so it is believed only of pods that we have watched from the beginning.
    fn may_have_begun_in(&self, pod: &PodView) -> bool {
        let ran = || pod.has_run() || self.pods.get(&pod.uid).is_some_and(|seen| seen.ran);
        pod.has_begun() || (is_refused(pod) && (!self.made || ran()))
    }
}

/// Kubelets before 1.29 give another message; but they as well know no container of such a pod.
fn is_refused(pod: &PodView) -> bool {
    pod.phase == PodPhase::Failed && (pod.reason.contains(REJECTED) || pod.containers.is_empty())
}

/// Whether its spec was changed once at most, to let it run. The deletion of an object that something keeps
/// counts as a change, too.
fn is_as_let_go(job: &JobView) -> bool {
    let known = 1 + i64::from(!job.suspended) + i64::from(job.deleting);
    job.generation.is_some_and(|generation| generation <= known)
}

impl Snapshot {
    fn pods_made_by<'a>(&'a self, job: &'a JobView) -> impl Iterator<Item = &'a PodView> {
        self.pods_of_job(&job.namespace, &job.name, &job.uid).map(AsRef::as_ref)
    }

    /// Whether the operation may have begun in a pod of the Job, be it that the pod is gone.
    pub fn may_have_begun(&self, job: &JobView) -> bool {
        let nothing = Seen::default();
        let seen = self.sightings.begun.0.get(&job.uid).unwrap_or(&nothing);
        let seen_to_end = |pod: &&PodView| seen.pods.get(&pod.uid).is_some_and(|seen| seen.ended);
        let new = self.pods_made_by(job).filter(|pod| pod.phase.is_final() && !seen_to_end(pod)).count();
        let ended = seen.pods.values().filter(|pod| pod.ended).count() + new;
        let unseen = i32::try_from(ended).is_ok_and(|ended| ended < job.failed);
        seen.begun
            || self.pods_made_by(job).any(|pod| seen.may_have_begun_in(pod))
            || unseen
            || !(seen.made || is_as_let_go(job))
    }

    /// What kept a pod of the Job from starting, as was seen last.
    pub fn last_obstacle(&self, job: &JobView) -> Option<&Obstacle> {
        self.sightings.begun.0.get(&job.uid)?.obstacle.as_ref()
    }

    /// Since when we have seen that the Job may run, and that the operation runs in no pod of it; now, if
    /// that is new, or not so.
    pub fn idle_since(&self, job: &JobView) -> Timestamp {
        self.sightings.begun.0.get(&job.uid).and_then(|seen| seen.idle).unwrap_or(self.now)
    }
}
