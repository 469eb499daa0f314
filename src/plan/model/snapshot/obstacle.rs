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
/// (`UnexpectedAdmissionError`), a kubelet that has not seen its own labels since its start (`NodeAffinity`).
const UNFIT_POD: [&str; 5] = [
    "InitContainerRestartPolicyForbidden",
    "PodOSNotSupported",
    "PodOSSelectorNodeLabelDoesNotMatch",
    "SupplementalGroupsPolicyNotSupported",
    "SysctlForbidden",
];

/// Reasons under which a runtime says that it could not start a container at all.
const NOT_STARTED: [&str; 5] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "ContainerCannotRun",
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
    let lasts = reason == "InvalidImageName" || is_unfit(reason, message);
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

    /// Whether what ended is only an attempt to start the container, and another one may succeed: its exit code
    /// is not the command's. Under load a runtime fails at one of a hundred.
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
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::{
        api::names,
        plan::{
            fixtures,
            model::snapshot::{Owner, Role},
        },
    };

    fn pod(phase: PodPhase, reason: &str, containers: Vec<ContainerView>) -> PodView {
        let pod = fixtures::pod(Role::Preflight, "p", Owner::nodeop("op", "u"), "n1");
        PodView { phase, reason: reason.into(), containers, ..pod }
    }

    fn says(pod: &PodView) -> Option<(bool, String)> {
        pod.obstacle().map(|obstacle| (obstacle.permanent, obstacle.text))
    }

    fn waits(reason: &str, message: &str) -> ContainerView {
        ContainerView::new("c", ContainerState::Waiting { reason: reason.into(), message: message.into() })
    }

    fn ends(code: i32, reason: &str, message: &str) -> ContainerView {
        ContainerView::new(
            "install",
            ContainerState::Ended { code, reason: reason.into(), message: message.into() },
        )
    }

    const RUNC: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: \
                        unable to start container process: error during container init: ";

    /// Messages of real kubelets and runtimes, and whether waiting helps against what they tell of.
    #[test]
    fn what_a_container_waits_for_passes_or_lasts() {
        for (permanent, reason, message) in [
            (
                true,
                "InvalidImageName",
                "Failed to apply default image tag \"quay.io/Kairos/x:v1\": couldn't parse image name: invalid reference format: repository name must be lowercase",
            ),
            (
                true,
                "CreateContainerError",
                "failed to generate container \"5ce0\" spec: failed to generate spec: no command specified",
            ),
            (
                true,
                "CreateContainerError",
                "container create failed: executable file `/bin/nope` not found: No such file or directory",
            ),
            (
                true,
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root (pod: \"p_ns(1)\", container: c)",
            ),
            (
                true,
                "RunContainerError",
                &format!("{RUNC}exec: \"/go-runner\": stat /go-runner: no such file or directory: unknown"),
            ),
            (
                true,
                "RunContainerError",
                &format!("{RUNC}exec: \"nope\": executable file not found in $PATH: unknown"),
            ),
            (true, "RunContainerError", &format!("{RUNC}exec: \"/etc/passwd\": permission denied: unknown")),
            (
                false,
                "RunContainerError",
                &format!(
                    "{RUNC}error mounting \"/dev/sdz\" to rootfs at \"/data\": stat /dev/sdz: no such file or directory: unknown"
                ),
            ),
            (false, "CreateContainerConfigError", "secret \"registry\" not found"),
            (false, "CreateContainerError", "context deadline exceeded"),
            (
                false,
                "CreateContainerError",
                "failed to reserve container name \"c_p_ns_1_0\": name is reserved for \"9f\"",
            ),
            (
                false,
                "ErrImagePull",
                "rpc error: code = NotFound desc = failed to pull and unpack image \"quay.io/k/x:nope\": failed to resolve reference \"quay.io/k/x:nope\": quay.io/k/x:nope: not found",
            ),
            (false, "ImagePullBackOff", "Back-off pulling image \"quay.io/k/x:nope\""),
            (false, "ErrImageNeverPull", "Container image \"x\" is not present with pull policy of Never"),
            (false, "CrashLoopBackOff", "back-off 10s restarting failed container=c pod=p_ns(1)"),
        ] {
            let text = format!("{reason}: {}", brief(message));
            assert_eq!(
                says(&pod(PodPhase::Pending, "", vec![waits(reason, message)])),
                Some((permanent, text))
            );
        }
        for calm in CALM {
            assert_eq!(says(&pod(PodPhase::Pending, "", vec![waits(calm, "")])), None, "{calm}");
        }
    }

    #[test]
    fn what_a_container_ended_with_is_told_and_judged_by_whether_it_began() {
        for (permanent, code, reason, message, told) in [
            (
                true,
                255,
                "Error",
                "exec /bin/install: exec format error\n",
                "exit code 255: exec /bin/install: exec format error",
            ),
            (
                true,
                1,
                "Error",
                "standard_init_linux.go:228: exec user process caused: exec format error",
                "exit code 1: standard_init_linux.go:228: exec user process caused: exec format error",
            ),
            (
                true,
                1,
                "Error",
                "exec container process `/kairos-operator`: Exec format error",
                "exit code 1: exec container process `/kairos-operator`: Exec format error",
            ),
            (
                true,
                1,
                "Error",
                "{\"msg\":\"exec container process `/x`: Exec format error\",\"level\":\"error\",\"time\":\"2026-01-01T00:00:00Z\"}",
                "exit code 1: {\"msg\":\"exec container process `/x`: Exec format error\",\"level\":\"error\",\"time\":\"2026-01-01T00:00:00Z\"}",
            ),
            (
                true,
                1,
                "Error",
                "exec container process (missing dynamic library?) `/x`: No such file or directory\n",
                "exit code 1: exec container process (missing dynamic library?) `/x`: No such file or directory",
            ),
            (
                true,
                255,
                "Error",
                "exec /run.sh: no such file or directory",
                "exit code 255: exec /run.sh: no such file or directory",
            ),
            (
                false,
                1,
                "Error",
                "exec /run.sh: no such file or directory, trying /bin/sh",
                "exit code 1: exec /run.sh: no such file or directory, trying /bin/sh",
            ),
            (
                true,
                128,
                "StartError",
                "exec: \"nope\": executable file not found in $PATH",
                "exit code 128: exec: \"nope\": executable file not found in $PATH",
            ),
            (
                false,
                1,
                "Error",
                "upgrading\n./tool: exec format error",
                "exit code 1: upgrading ./tool: exec format error",
            ),
            (
                false,
                127,
                "Error",
                "sh: nope: executable file not found",
                "exit code 127: sh: nope: executable file not found",
            ),
            (false, 137, "OOMKilled", "", "exit code 137, OOMKilled"),
        ] {
            let ended =
                pod(PodPhase::Failed, "", vec![ends(code, reason, message), waits("PodInitializing", "")]);
            assert_eq!(says(&ended), Some((permanent, format!("container install ended with {told}"))));
        }
        assert_eq!(says(&pod(PodPhase::Running, "", vec![ends(0, "Completed", "fine")])), None);
        let holder = ContainerView { name: names::container::NODE_LOCK.into(), ..ends(137, "Error", "") };
        assert_eq!(says(&pod(PodPhase::Failed, "", vec![holder])), None, "it is ended with the pod");
    }

    #[test]
    fn a_container_that_comes_and_goes_tells_of_its_last_end() {
        let last =
            |code, message: &str| Some(Ended { code, reason: "Error".into(), message: message.into() });
        let message =
            "checking the state directory: making /state/.kairos: Read-only file system (os error 30)";
        let looping = ContainerView { last: last(1, message), ..waits("CrashLoopBackOff", "back-off 10s") };
        let told = format!("CrashLoopBackOff: back-off 10s; it ended with exit code 1: {message}");
        assert_eq!(says(&pod(PodPhase::Running, "", vec![looping])), Some((false, told)));
        let foreign = ContainerView {
            last: last(255, "exec /kairos-operator: exec format error"),
            ..waits("CrashLoopBackOff", "")
        };
        assert!(says(&pod(PodPhase::Running, "", vec![foreign])).is_some_and(|(permanent, _)| permanent));
        let running = |last| ContainerView {
            last,
            ..ContainerView::new("reboot", ContainerState::Running { since: Timestamp::UNIX_EPOCH })
        };
        let told = format!("container reboot was started again after exit code 1: {message}");
        assert_eq!(says(&pod(PodPhase::Running, "", vec![running(last(1, message))])), Some((false, told)));
        assert_eq!(says(&pod(PodPhase::Running, "", vec![running(last(0, ""))])), None);
    }

    #[test]
    fn what_the_kubelet_rejects_passes_unless_the_pod_is_wrong() {
        for (permanent, reason) in [
            (
                false,
                "OutOfpods: Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110",
            ),
            (false, "Evicted: The node was low on resource: ephemeral-storage."),
            (false, "Evicted: Pod was rejected: The node had condition: [DiskPressure]."),
            (false, "NodeAffinity: Pod was rejected: Predicate NodeAffinity failed"),
            (
                false,
                "UnexpectedAdmissionError: Pod was rejected: Allocate failed due to no healthy devices present",
            ),
            (false, "Preempting: Preempted in order to admit critical pod"),
            (
                true,
                "PodOSNotSupported: Pod was rejected: Failed to admit pod as the OS field doesn't match node OS",
            ),
        ] {
            // The kubelet ends what had begun with 137; that says nothing about the command.
            let ended = pod(PodPhase::Failed, reason, vec![ends(137, "Error", "")]);
            assert_eq!(says(&ended), Some((permanent, reason.to_owned())));
            assert_eq!(says(&pod(PodPhase::Running, reason, vec![])), None, "it still runs");
        }
    }
}
