//! What the pods of a Job tell: whether the operation has begun, succeeded or failed in them, and what was
//! said last in them. It is read from the pods alone, once for all that follows from it.
//!
//! Somebody may have added containers to them, as service meshes do. What counts is the operation: when all
//! of our own containers have ended well, it has succeeded, though one that does not end keeps the Job from
//! completing, and one that ends badly has the kubelet call the pod failed; and when one of our own has
//! failed, so has the try, though a kubelet calls the pod running.

#[cfg(test)]
mod tests;

use crate::{
    api::names::container,
    contract::{BadEnd, EXIT_PERMANENT, RecoveryProof, Sentinel, UpToDate},
    plan::{
        model::snapshot::{ContainerState, ContainerView, Ended, JobState, PodPhase, PodView, brief},
        node::context::NodeContext,
    },
};

/// The containers that do the work in the pod of a Job, each of which has to end well.
const WORK: [&str; 3] = [container::INSTALL, container::NODEOP, container::SENTINEL];

/// The pods of a Job on its node.
#[derive(Clone, Debug)]
pub struct JobPods<'a> {
    pub job_uid: &'a str,
    /// The node's present boot.
    pub boot_id: &'a str,
    pub all: Vec<&'a PodView>,
}

/// What the sentinel container says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentinelReport {
    /// The boot in which the operation succeeded; no boot at all if nothing had to be changed.
    Found(Sentinel),
    /// A pod of the Job has not ended yet, as far as one sees.
    Lags,
    /// No pod is left that says it.
    Gone,
}

/// A pod in which the operation has succeeded, and the containers of others that keep its Job from
/// completing.
#[derive(Clone, Debug)]
pub struct Beside<'a> {
    pod: &'a PodView,
    pub others: Vec<String>,
    /// They have failed; else they still run.
    pub failed: bool,
}

impl Beside<'_> {
    /// What the operation said last.
    pub fn said(&self) -> Option<String> {
        said_by_operation(self.pod)
    }
}

impl<'a> JobPods<'a> {
    /// Those that the cache shows of the node's Job, as which it is recorded by this UID.
    pub fn of(ctx: &'a NodeContext<'_>, job_uid: &'a str) -> Self {
        let all = ctx.job_pods(job_uid).map(AsRef::as_ref).collect();
        Self { job_uid, boot_id: &ctx.node.boot_id, all }
    }
}

impl JobPods<'_> {
    /// Whether the operation runs in one of them, as far as one sees.
    pub fn run(&self) -> bool {
        self.all.iter().any(|pod| pod.has_begun() && !pod.phase.is_final())
    }

    /// Whether one of them may still run, as far as one sees.
    pub fn are_open(&self) -> bool {
        self.all.iter().any(|pod| !pod.phase.is_final())
    }

    /// Whether the operation has succeeded in one of them.
    pub fn have_succeeded(&self) -> bool {
        self.all.iter().any(|pod| pod.phase == PodPhase::Succeeded || has_succeeded(pod))
    }

    /// How many have failed.
    pub fn count_failed(&self) -> usize {
        self.failed().count()
    }

    fn failed(&self) -> impl Iterator<Item = &PodView> {
        self.all.iter().copied().filter(|pod| pod.phase == PodPhase::Failed)
    }

    /// What the sentinel container printed: the boot in which the operation succeeded.
    pub fn sentinel(&self) -> SentinelReport {
        // A pod that was ended with its node after its sentinel had spoken has failed, and does not count.
        // One in which a container of somebody else still runs, or has failed, has succeeded all the same.
        let beside = self.failed_beside().map(|pod| &pod.uid);
        let over = |pod: &PodView| {
            pod.phase == PodPhase::Succeeded
                || (!pod.phase.is_final() && has_succeeded(pod))
                || beside == Some(&pod.uid)
        };
        let found = self
            .all
            .iter()
            .filter(|pod| over(pod))
            .filter_map(|pod| Some((pod, self.said_by_sentinel(pod)?)));
        // A pod that succeeded and was deleted before the Job knew of it was followed by another one, perhaps
        // in another boot. A sentinel that names the present boot decides, whatever the others say: no reboot
        // has been proved then.
        let newest = found.max_by_key(|(pod, found)| (found.boot == self.boot_id, pod.created, &pod.name));
        if let Some((_, found)) = newest {
            return SentinelReport::Found(found);
        }
        if self.are_open() { SentinelReport::Lags } else { SentinelReport::Gone }
    }

    /// The record of a Job that has failed all the same: its operation changed nothing, or succeeded in this
    /// boot, or in one that was left since, and then no other pod followed.
    pub fn recorded_after_all(&self) -> Option<Sentinel> {
        let SentinelReport::Found(found) = self.sentinel() else { return None };
        let was_last = || self.newest().is_some_and(|pod| pod.phase == PodPhase::Succeeded);
        (found.boot.is_empty() || found.boot == self.boot_id || was_last()).then_some(found)
    }

    /// What the sentinel container of one pod printed, if it is about this Job.
    fn said_by_sentinel(&self, pod: &PodView) -> Option<Sentinel> {
        let said = pod.container(container::SENTINEL)?.parsed_message::<Sentinel>()?;
        (said.job_uid == self.job_uid).then_some(said)
    }

    /// The node's own record of an upgrade of its recovery image.
    pub fn recovery_proof(&self) -> Option<RecoveryProof> {
        self.all.iter().find_map(|pod| pod.container(container::NODEOP)?.parsed_message())
    }

    /// That an upgrade has found the node at its release.
    pub fn up_to_date(&self) -> Option<UpToDate> {
        self.all.iter().find_map(|pod| pod.container(container::NODEOP)?.says_up_to_date())
    }

    /// How an upgrade, or the record of any operation, ended badly in the newest pod, if that says so.
    pub fn bad_end(&self, is_upgrade: bool) -> Option<BadEnd> {
        let pod = self.newest().filter(|pod| !is_ended_by_kubelet(pod))?;
        // A command of a user's may say what it likes.
        let says = [container::NODEOP, container::SENTINEL].into_iter().skip(usize::from(!is_upgrade));
        says.filter_map(|name| ended(pod, name))
            .find(|ended| ended.code != 0)
            .and_then(|ended| BadEnd::read(&ended.message))
    }

    /// The one that was made last.
    pub fn newest(&self) -> Option<&PodView> {
        newest(self.all.iter().copied())
    }

    /// What was said last in the newest pod.
    pub fn last_message(&self) -> Option<String> {
        last_message(self.newest()?)
    }

    /// The code with which the operation's container has ended in the newest pod.
    pub fn ended_with(&self) -> Option<i32> {
        code(self.newest()?, container::NODEOP)
    }

    /// What was said last in the newest of those that have failed.
    pub fn last_failure(&self) -> Option<String> {
        last_message(newest(self.failed())?)
    }

    /// What was said last in the one that failed before the newest.
    pub fn failure_before(&self) -> Option<String> {
        let last = self.newest()?;
        last_message(newest(self.failed().filter(|pod| pod.uid != last.uid))?)
    }

    /// Whether the operation's container ended well in a pod that has failed since the success could not be
    /// recorded, and nothing says so: the sentinel's container was not even started, or ended before it could
    /// say.
    pub fn succeeded_unrecorded(&self) -> bool {
        let is_told =
            |pod: &PodView| [Some(0), Some(EXIT_PERMANENT.into())].contains(&code(pod, container::SENTINEL));
        self.failed().any(|pod| code(pod, container::NODEOP) == Some(0) && !is_told(pod))
    }

    /// Whether the sentinel's container has said in one of them that nothing helps.
    pub fn gave_up_recording(&self) -> bool {
        self.failed().any(|pod| code(pod, container::SENTINEL) == Some(EXIT_PERMANENT.into()))
    }

    /// A pod in which the operation has succeeded, beside containers of somebody else that keep its Job from
    /// completing: they still run, or have failed. A Job that goes on may have another try made after that,
    /// in another boot; so there a pod that has failed counts in the boot in which the operation succeeded.
    pub fn succeeded_beside(&self, job: &JobState) -> Option<Beside<'_>> {
        let open = self.all.iter().copied().filter(|pod| pod.is_active() && has_succeeded(pod));
        let mut running = open.map(|pod| Beside { pod, others: running(pod), failed: false });
        if let Some(beside) = running.find(|beside| !beside.others.is_empty()) {
            return Some(beside);
        }
        let in_this_boot = |said: &Sentinel| said.boot.is_empty() || said.boot == self.boot_id;
        let pod = self.failed_beside()?;
        let counts = job.is_failure() || self.said_by_sentinel(pod).is_none_or(|said| in_this_boot(&said));
        counts.then(|| Beside { pod, others: failed(pod), failed: true })
    }

    /// The newest pod, if it has failed of a container of somebody else alone: the operation has succeeded in
    /// it, and said so where it had to.
    fn failed_beside(&self) -> Option<&PodView> {
        let pod = self.newest()?;
        let is_silent = pod.container(container::SENTINEL).is_some() && self.said_by_sentinel(pod).is_none();
        let is_ended_alone = pod.phase == PodPhase::Failed && pod.reason.is_empty();
        (is_ended_alone && has_succeeded(pod) && !is_silent && !failed(pod).is_empty()).then_some(pod)
    }

    /// Those in which the operation has failed, and containers of others still run. Before such a pod is
    /// over, the Job controller neither counts the failure nor tries again.
    pub fn failed_but_open(&self) -> impl Iterator<Item = &PodView> {
        let kept = |pod: &&PodView| pod.is_active() && has_failed(pod) && !running(pod).is_empty();
        self.all.iter().copied().filter(kept)
    }
}

fn newest<'a>(pods: impl Iterator<Item = &'a PodView>) -> Option<&'a PodView> {
    pods.max_by_key(|pod| (pod.created, &pod.name))
}

/// How the container of that name ended, if it does not run.
fn ended(pod: &PodView, name: &str) -> Option<Ended> {
    pod.container_view(name)?.ended()
}

fn code(pod: &PodView, name: &str) -> Option<i32> {
    ended(pod, name).map(|ended| ended.code)
}

fn works(container: &ContainerView) -> bool {
    WORK.contains(&container.name.as_str())
}

/// Whether the operation has succeeded in the pod, whatever else runs in it; or, in a pod that only records
/// its success, whether it is recorded.
fn has_succeeded(pod: &PodView) -> bool {
    let work = || pod.containers.iter().filter(|container| works(container));
    let well = |container: &ContainerView| matches!(container.state, ContainerState::Ended { code: 0, .. });
    let decides =
        |container: &ContainerView| [container::NODEOP, container::SENTINEL].contains(&&*container.name);
    work().any(decides) && work().all(well)
}

/// Whether one of the containers that do the work in the pod has failed.
fn has_failed(pod: &PodView) -> bool {
    let failed = |container: &ContainerView| container.ended().is_some_and(|ended| ended.code != 0);
    pod.containers.iter().any(|container| works(container) && failed(container))
}

/// The containers of others that run in the pod.
fn running(pod: &PodView) -> Vec<String> {
    others(pod, ContainerView::runs)
}

/// The containers of others that have ended badly in the pod.
fn failed(pod: &PodView) -> Vec<String> {
    others(pod, |container| container.ended().is_some_and(|ended| ended.code != 0))
}

fn others(pod: &PodView, are: impl Fn(&ContainerView) -> bool) -> Vec<String> {
    let foreign = pod.containers.iter().filter(|container| !container.is_ours() && are(container));
    foreign.map(|container| container.name.clone()).collect()
}

/// What was said last in a pod: by the kubelet, of a pod that it has refused or ended; else by the container
/// that failed, whichever it is, or by the operation's own.
fn last_message(pod: &PodView) -> Option<String> {
    if is_ended_by_kubelet(pod) {
        return Some(pod.obstacle()?.text);
    }
    let operation = ended(pod, container::NODEOP);
    if let Some(ended) = operation.as_ref().filter(|ended| ended.code != 0) {
        return Some(ended.to_string());
    }
    let failed =
        pod.containers.iter().filter(|container| !container.holds_lock()).find_map(|container| {
            Some((&container.name, container.ended().filter(|ended| ended.code != 0)?))
        });
    if let Some((name, ended)) = failed {
        return Some(format!("container {name} ended with {ended}"));
    }
    said_by_operation(pod)
}

/// Of a pod that the kubelet has ended the kubelet knows why; its containers were killed, and know nothing.
fn is_ended_by_kubelet(pod: &PodView) -> bool {
    pod.phase == PodPhase::Failed && !pod.reason.is_empty()
}

fn said_by_operation(pod: &PodView) -> Option<String> {
    ended(pod, container::NODEOP).map(|ended| brief(&ended.message)).filter(|message| !message.is_empty())
}
