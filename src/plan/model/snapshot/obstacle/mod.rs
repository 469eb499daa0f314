//! What keeps a pod from its work, as the kubelet and the container runtime tell it, and whether waiting
//! helps.
//!
//! Nobody has to be asked about what these messages mean: they were taken from kubelets with containerd
//! (runc) and CRI-O (runc, crun). What is not known to last counts as passing. Then a limit of time ends the
//! wait, and nothing is given up that would have passed by itself.

use crate::plan::model::snapshot::{ContainerState, ContainerView, Ended, PodPhase, PodView, brief};

/// What keeps a pod from its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// No waiting helps: the image, the command or the pod itself is wrong.
    pub permanent: bool,
    pub text: String,
}

/// What a container says that nothing is wrong with yet.
const CALM: [&str; 3] = ["", "PodInitializing", "ContainerCreating"];

/// Reasons for which a kubelet rejects a pod, and will reject each one like it on this node. Others pass: a
/// full node (`OutOfpods`, `OutOfcpu`), pressure (`Evicted`), a device plugin that is not up yet
/// (`UnexpectedAdmissionError`). Our pods demand nothing of a node's labels, so that `NodeAffinity` is what
/// somebody's policy demands; and a kubelet runs no pod before it has seen its own labels (since 1.21).
const UNFIT_POD: [&str; 6] = [
    "InitContainerRestartPolicyForbidden",
    "NodeAffinity",
    "PodOSNotSupported",
    "PodOSSelectorNodeLabelDoesNotMatch",
    "SupplementalGroupsPolicyNotSupported",
    "SysctlForbidden",
];

/// How a kubelet begins the reason of a pod that it has no room for, and what it says of one that it does not
/// take for want of disk or memory.
const NO_ROOM: (&str, &str) = ("OutOf", "The node had condition: [");

/// Reasons under which a runtime says that it could not start a container at all.
const NOT_STARTED: [&str; 5] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "ContainerCannotRun",
];

/// Reasons under which a kubelet says that it could not pull an image.
const NOT_PULLED: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];
/// What runtimes say then of an image that has nothing for the machine's architecture: containerd, CRI-O of
/// an index and of a list, Docker.
const NO_PLATFORM: [&str; 4] = [
    "no match for platform in manifest",
    "no image found in image index for architecture",
    "no image found in manifest list for architecture",
    "no matching manifest for ",
];

/// What a runtime says when it failed before there was a process of the container: containerd, and runc or
/// crun for Docker.
const NOT_CREATED: [&str; 2] = ["failed to create containerd task", "OCI runtime create failed"];

/// A binary for another architecture. The kernel finds that out after the runtime has handed over, so it
/// stands in the container's output. crun takes it from the C library, with a capital.
const EXEC_FORMAT: &str = "exec format error";

/// How the one line begins that a runtime writes as a container's output when the kernel did not execute the
/// command: crun and runc, and runc's first versions.
const NOT_EXECUTED: [&str; 2] = ["exec ", "standard_init_linux.go"];
/// How crun begins that line where it logs in JSON.
const AS_JSON: &str = r#"{"msg":""#;
/// What keeps the kernel from it for good, and ends that line: the file, or the interpreter or loader that it
/// names, is missing, or may not be executed.
const NO_EXECUTABLE: [&str; 3] = [": no such file or directory", ": permission denied", ": is a directory"];

impl PodView {
    /// What keeps the pod from its work, if its status says that something does. The first container that
    /// cannot start speaks first, then one that ended badly, then one that runs again after it had ended
    /// badly.
    pub fn obstacle(&self) -> Option<Obstacle> {
        let of_each = |judge: fn(&ContainerView) -> Option<Obstacle>| self.containers.iter().find_map(judge);
        self.rejection().or_else(|| of_each(waiting)).or_else(|| of_each(ended)).or_else(|| of_each(again))
    }

    /// Why a container of ours that is to run does not, as the kubelet sees it now.
    pub fn held_up(&self) -> Option<Obstacle> {
        self.containers.iter().filter(|container| container.is_ours()).find_map(waiting)
    }

    /// Whether the kubelet has not taken the pod, for want of room.
    pub fn had_no_room(&self) -> bool {
        let (out_of, had_condition) = NO_ROOM;
        let told = self.reason.starts_with(out_of) || self.reason.contains(had_condition);
        self.phase == PodPhase::Failed && told && !self.has_run()
    }

    /// Why the kubelet, or a controller, ended the pod as a whole.
    fn rejection(&self) -> Option<Obstacle> {
        let ended = self.phase == PodPhase::Failed && !self.reason.is_empty();
        let reason = self.reason.split(':').next().unwrap_or_default();
        ended.then(|| Obstacle { permanent: UNFIT_POD.contains(&reason), text: brief(&self.reason) })
    }
}

fn waiting(container: &ContainerView) -> Option<Obstacle> {
    let ContainerState::Waiting { reason, message } = &container.state else { return None };
    if CALM.contains(&reason.as_str()) {
        return None;
    }
    let last = container.last.as_ref().filter(|last| last.code != 0);
    let told = if message.is_empty() { reason.clone() } else { format!("{reason}: {}", brief(message)) };
    let text = last.map_or_else(|| told.clone(), |last| format!("{told}; it ended with {last}"));
    let lasts = reason == "InvalidImageName" || is_unfit(reason, message) || has_no_platform(reason, message);
    Some(Obstacle { permanent: lasts || last.is_some_and(Ended::never_will), text })
}

fn ended(container: &ContainerView) -> Option<Obstacle> {
    let ended = container.ended().filter(|ended| ended.code != 0 && !container.holds_lock())?;
    Some(Obstacle {
        permanent: ended.never_will(),
        text: format!("container {} ended with {ended}", container.name),
    })
}

fn again(container: &ContainerView) -> Option<Obstacle> {
    let last = container.last.as_ref().filter(|last| last.code != 0)?;
    let running = matches!(container.state, ContainerState::Running { .. });
    running.then(|| Obstacle {
        permanent: false,
        text: format!("container {} was started again after {last}", container.name),
    })
}

impl Ended {
    /// Whether a runtime could not start the container, now and whenever it tries. Its own output proves
    /// nothing but for the one line that stands there instead of any.
    fn never_will(&self) -> bool {
        is_unfit(&self.reason, &self.message) || was_not_executed(self.message.trim())
    }

    /// Whether what ended is only an attempt to start the container, and another one may succeed: its exit
    /// code is not the command's. Under load a runtime fails at one of a hundred.
    pub fn failed_to_start(&self) -> bool {
        NOT_STARTED.contains(&self.reason.as_str()) && !self.never_will()
    }

    /// Whether surely nothing of the container has run. A runtime that fails at its last step, the start of
    /// what it has created, may have started it all the same.
    pub fn never_began(&self) -> bool {
        let created_nothing = NOT_CREATED.iter().any(|text| self.message.contains(text));
        self.never_will() || (self.failed_to_start() && created_nothing)
    }
}

/// Whether that is all that a container has said, and its runtime says it: that the kernel did not execute
/// the command, nor ever will.
fn was_not_executed(output: &str) -> bool {
    let output = output.to_ascii_lowercase();
    let json = output.strip_prefix(AS_JSON).and_then(|rest| rest.split_once("\","));
    let line = json.map_or(output.as_str(), |(message, _)| message);
    let lasts = line.contains(EXEC_FORMAT) || NO_EXECUTABLE.iter().any(|cause| line.ends_with(cause));
    lasts && !output.contains('\n') && NOT_EXECUTED.iter().any(|beginning| line.starts_with(beginning))
}

/// Whether the image is none for this machine. The next node of another architecture need not wait for it.
fn has_no_platform(reason: &str, message: &str) -> bool {
    NOT_PULLED.contains(&reason) && NO_PLATFORM.iter().any(|text| message.contains(text))
}

/// Whether a runtime that could not start a container will never be able to.
fn is_unfit(reason: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let says = |text: &str| message.contains(text);
    // `no such file` alone may be a mount's source, which can still come.
    let command = says("exec: \"") && NO_EXECUTABLE.into_iter().any(says);
    let missing = says("executable file") && says("not found");
    let named = [
        EXEC_FORMAT,
        "no command specified",
        "container has runasnonroot",
        "open executable: permission denied",
    ];
    NOT_STARTED.contains(&reason) && (command || missing || named.into_iter().any(says))
}

#[cfg(test)]
mod tests;
