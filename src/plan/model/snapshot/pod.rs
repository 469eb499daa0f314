//! A pod that carries our label (a waiter, a preflight, a Job's, one that reads facts, or a stranger's), and
//! what keeps it from its work.

use std::fmt;

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::{
    api::{names, text::brief},
    contract::{self, UpToDate},
    plan::model::snapshot::Owner,
};

/// A pod that carries our label; [`Role`] says what it is for, or that it is a stranger's.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Who controls it: the NodeOp, the Job, or the Node whose facts it reads.
    pub owner: Owner,
    pub role: Role,
    pub node: String,
    pub phase: PodPhase,
    /// `status.reason` and `status.message` of a pod that the kubelet or a controller ended.
    pub reason: String,
    pub deleting: bool,
    pub created: Timestamp,
    /// Of a facts pod: its number, which is how many earlier ones failed for this boot. 0 for all others.
    pub attempt: i32,
    /// The waiter's annotation.
    pub reboot_state: Option<String>,
    /// The boot id that the waiter reads, if it says so.
    pub waits_in: Option<String>,
    /// Init containers and containers, in order.
    pub containers: Vec<ContainerView>,
}

/// What a pod is for, by its owner and its labels. That the owner is one of ours has still to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Waiter,
    Preflight,
    Job,
    Facts,
    /// It carries our label, and its owner is nothing that owns our pods.
    Stranger,
}

/// A pod's phase; `Unknown` counts as running, since it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl PodPhase {
    /// Whether no container of the pod will ever run again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A container of a pod of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerView {
    pub name: String,
    pub state: ContainerState,
    /// How its run before this one ended.
    pub last: Option<Ended>,
    /// How often the kubelet has started it again.
    pub restarts: i32,
    /// It runs, and its startup probe has succeeded if it has one: the kubelet goes on to the next container.
    pub started: bool,
    /// The content that the kubelet runs, as it names it; empty until it has the image. See [`Self::digest`].
    pub image_id: String,
}

impl ContainerView {
    /// A container that was not started before.
    pub fn new(name: &str, state: ContainerState) -> Self {
        let started = matches!(state, ContainerState::Running { .. });
        Self { name: name.into(), state, last: None, restarts: 0, started, image_id: String::new() }
    }

    /// Whether we have put it into the pod. Others come from whoever adds containers to pods, such as a
    /// service mesh or an agent that watches applications.
    pub fn is_ours(&self) -> bool {
        names::container::ALL.contains(&self.name.as_str())
    }

    /// Whether the operation begins with it: it is neither somebody else's nor one that only brings our
    /// binary, looks at the image, or holds the node's lock.
    fn carries_out(&self) -> bool {
        let prepares = [names::container::INSTALL, names::container::IMAGE_CHECK];
        self.is_ours() && !prepares.contains(&self.name.as_str()) && !self.holds_lock()
    }

    /// Whether it runs now.
    pub fn runs(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    fn waits(&self) -> bool {
        matches!(self.state, ContainerState::Waiting { .. })
    }

    /// Whether it holds the node's lock for the others. The kubelet ends it with the pod, and starts it again
    /// if it must: how it ended says nothing.
    pub fn holds_lock(&self) -> bool {
        self.name == names::container::NODE_LOCK
    }

    /// The digest of the content that the kubelet runs, once it has the image: of what was pulled
    /// (`repository@sha256:…`), or, where an image was put on the node without a registry, of its
    /// configuration (`sha256:…`).
    pub fn digest(&self) -> Option<&str> {
        let digest = self.image_id.rsplit_once('@').map_or(self.image_id.as_str(), |(_, digest)| digest);
        Some(digest).filter(|digest| digest.contains(':'))
    }

    /// How it ended, if it does not run.
    pub fn ended(&self) -> Option<Ended> {
        match &self.state {
            ContainerState::Ended { code, reason, message } => {
                Some(Ended { code: *code, reason: reason.clone(), message: message.clone() })
            }
            ContainerState::Waiting { .. } | ContainerState::Running { .. } => None,
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub reason: String,
    pub message: String,
}

/// The exit code, and what was said last.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, reason, message } = self;
        match brief(message) {
            line if line.is_empty() => write!(f, "exit code {code}, {}", brief(reason)),
            line => write!(f, "exit code {code}: {line}"),
        }
    }
}

/// What a container does.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Not running; the kubelet's reason and message (`ImagePullBackOff`, …).
    Waiting {
        reason: String,
        message: String,
    },
    Running {
        since: Timestamp,
    },
    Ended {
        code: i32,
        reason: String,
        message: String,
    },
}

/// The kubelet cuts a termination message there; a longer one is not from a kubelet, and would grow in our
/// statuses.
const MAX_MESSAGE: usize = 4096;

impl ContainerState {
    /// The record that a container of ours left as its termination message, if it ended well.
    pub fn parsed_message<T: DeserializeOwned>(&self) -> Option<T> {
        match self {
            Self::Ended { code: 0, message, .. } if message.len() <= MAX_MESSAGE => {
                serde_json::from_str(message).ok()
            }
            Self::Ended { .. } | Self::Running { .. } | Self::Waiting { .. } => None,
        }
    }
}

impl ContainerState {
    /// That the node runs the image's release already, if a container of an upgrade says so.
    pub fn says_up_to_date(&self) -> Option<UpToDate> {
        let Self::Ended { code: 0, message, .. } = self else { return None };
        self.parsed_message().or_else(|| UpToDate::from_sentence(message.trim()))
    }
}

impl PodView {
    /// Neither over nor being deleted, as the controllers of Kubernetes use the word.
    pub fn is_active(&self) -> bool {
        !self.phase.is_final() && !self.deleting
    }

    /// Whether the pod cannot change its node any more. On a node that is away nobody confirms the end of a
    /// pod, but a deleted waiter reads its own pod live before it acts, and gives up.
    pub fn is_terminated_or_fenced(&self, node_ready: bool) -> bool {
        self.phase.is_final() || (self.deleting && !node_ready)
    }

    /// The container that runs the operation, or asks for it.
    pub fn operates(&self) -> Option<&ContainerView> {
        let ours = |name: &str| [names::container::PREFLIGHT, names::container::NODEOP].contains(&name);
        self.containers.iter().find(|container| ours(&container.name))
    }

    /// Whether any of its containers was ever started. A pod that a kubelet refuses has none.
    pub fn has_run(&self) -> bool {
        let waits = |container: &ContainerView| {
            matches!(container.state, ContainerState::Waiting { .. }) && container.last.is_none()
        };
        !self.containers.iter().all(waits)
    }

    /// Whether the operation has begun in the pod: a container of ours was started, other than the ones that
    /// only bring our binary, or hold the node's lock. What somebody else added says nothing about the
    /// operation.
    pub fn has_begun(&self) -> bool {
        let begun = |container: &ContainerView| match &container.state {
            ContainerState::Waiting { .. } => container.last.as_ref().is_some_and(|last| !last.never_began()),
            ContainerState::Running { .. } => true,
            ContainerState::Ended { .. } => container.ended().is_some_and(|ended| !ended.never_began()),
        };
        let is_begun = |container: &ContainerView| container.carries_out() && begun(container);
        !self.was_locked_out() && self.containers.iter().any(is_begun)
    }

    /// Whether the upgrade in it has ended since it could not have the node's lock, before it did anything.
    /// The container that brings our binary tells it from a user's command, which may end with any code.
    fn was_locked_out(&self) -> bool {
        let is_upgrade = || self.containers.iter().any(|it| it.name == names::container::INSTALL);
        let code = Some(i32::from(contract::EXIT_LOCKED));
        let locked_out =
            |it: &ContainerView| it.name == names::container::NODEOP && it.ended().map(|it| it.code) == code;
        self.containers.iter().any(locked_out) && is_upgrade()
    }

    /// Whether the pod has failed before the operation had begun, of a container that the container runtime
    /// could not start, of one of somebody else that ended badly while ours waited for it, or for the node's
    /// lock. A pod that was ended as a whole tells no more of that.
    pub fn failed_to_start(&self) -> bool {
        let failed = |container: &ContainerView| container.ended().is_some_and(|it| it.failed_to_start());
        let ended_badly = |container: &ContainerView| container.ended().is_some_and(|it| it.code != 0);
        let waited = || self.containers.iter().any(|it| it.carries_out() && it.waits());
        let foreign = || self.containers.iter().any(|it| !it.is_ours() && ended_badly(it));
        self.phase == PodPhase::Failed
            && self.reason.is_empty()
            && !self.has_begun()
            && (self.containers.iter().any(failed) || self.was_locked_out() || (waited() && foreign()))
    }

    /// Whether the pod's command waits for the node's lock, as far as its container says: that one runs, and
    /// does not hold it yet.
    pub fn waits_for_lock(&self) -> bool {
        let waits =
            |container: &ContainerView| container.holds_lock() && container.runs() && !container.started;
        self.is_active() && !self.has_begun() && self.containers.iter().any(waits)
    }

    /// Whether a container that the operation begins with is still to start, and nothing of ours works before
    /// it. Of a pod that a kubelet has not taken up no container is known.
    fn stands_still(&self) -> bool {
        let working = |it: &ContainerView| it.is_ours() && !it.holds_lock() && it.runs();
        self.is_active()
            && !self.waits_for_lock()
            && (self.containers.is_empty() || self.waits_for_its_container())
            && !self.containers.iter().any(working)
    }

    /// Whether the container that carries the operation out is still to start, or to start again.
    pub fn waits_for_its_container(&self) -> bool {
        self.containers.iter().any(|it| it.carries_out() && it.waits())
    }

    /// Whether it stands still, and its kubelet does not say in its status what keeps it. That stands in
    /// Events alone; or it waits for a container of somebody else.
    pub fn is_silent(&self) -> bool {
        self.stands_still() && self.obstacle().is_none()
    }

    /// Whether it is silent, some of its containers have ended, and none runs, whoever put them into it.
    pub fn is_halted(&self) -> bool {
        let ended = |it: &ContainerView| it.ended().is_some();
        self.is_silent()
            && self.containers.iter().any(ended)
            && !self.containers.iter().any(ContainerView::runs)
    }

    /// The containers of somebody else that run in the pod while none of ours works, though one is still to:
    /// ours wait for them, or for something of which the kubelet says nothing.
    pub fn runs_others_alone(&self) -> impl Iterator<Item = &ContainerView> {
        let alone = self.stands_still();
        self.containers.iter().filter(move |it| alone && !it.is_ours() && it.runs())
    }

    /// The container of that name, if the kubelet has reported one.
    pub fn container_view(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The state of the container of that name, if the kubelet has reported one.
    pub fn container(&self, name: &str) -> Option<&ContainerState> {
        self.container_view(name).map(|container| &container.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_told_by_its_digest_whatever_it_is_called() {
        let running = ContainerView::new("c", ContainerState::Running { since: Timestamp::UNIX_EPOCH });
        for (image_id, digest) in [
            ("quay.io/kairos/opensuse@sha256:12", Some("sha256:12")),
            ("registry.example:5000/edge@sha256:12", Some("sha256:12")),
            ("docker-pullable://quay.io/kairos/opensuse@sha256:12", Some("sha256:12")),
            ("sha256:34", Some("sha256:34")),
            ("", None),
        ] {
            assert_eq!(
                ContainerView { image_id: image_id.into(), ..running.clone() }.digest(),
                digest,
                "{image_id}"
            );
        }
    }

    #[test]
    fn of_a_long_output_both_ends_are_told() {
        let told = |message: String| Ended { code: 4, reason: "Error".into(), message }.to_string();
        assert_eq!(told("looking\nat the disk\n".into()), "exit code 4: looking at the disk");
        assert_eq!(told(" \n".into()), "exit code 4, Error");
        let long = told(format!("checking the disks\n{}\nsda2 is too small", "ok ".repeat(1000)));
        assert!(
            long.starts_with("exit code 4: checking the disks") && long.ends_with("sda2 is too small"),
            "{long}"
        );
        assert!(long.chars().count() < 320, "{long}");
    }
}
