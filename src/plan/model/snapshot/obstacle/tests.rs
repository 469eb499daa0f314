//! What kubelets and runtimes say of pods that do not work, and whether waiting helps.

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
        (
            true,
            "ErrImagePull",
            "rpc error: code = NotFound desc = failed to pull and unpack image \"quay.io/k/x:v1\": no match for platform in manifest: not found",
        ),
        (
            true,
            "ImagePullBackOff",
            "Back-off pulling image \"quay.io/k/x:v1\": ErrImagePull: failed to pull and unpack image \"quay.io/k/x:v1\": no match for platform in manifest: not found",
        ),
        (
            true,
            "ErrImagePull",
            "choosing image instance: no image found in image index for architecture \"arm64\", variant \"v8\", OS \"linux\"",
        ),
        (
            true,
            "ErrImagePull",
            "choosing image instance: no image found in manifest list for architecture arm64, variant \"v8\", OS linux",
        ),
        (true, "ErrImagePull", "no matching manifest for linux/arm64/v8 in the manifest list entries"),
        (false, "CreateContainerError", "no match for platform in manifest"),
        (false, "ErrImageNeverPull", "Container image \"x\" is not present with pull policy of Never"),
        (false, "CrashLoopBackOff", "back-off 10s restarting failed container=c pod=p_ns(1)"),
    ] {
        let text = format!("{reason}: {}", brief(message));
        assert_eq!(says(&pod(PodPhase::Pending, "", vec![waits(reason, message)])), Some((permanent, text)));
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
    let last = |code, message: &str| Some(Ended { code, reason: "Error".into(), message: message.into() });
    let message = "checking the state directory: making /state/.kairos: Read-only file system (os error 30)";
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
        (true, "NodeAffinity: Pod was rejected: Predicate NodeAffinity failed"),
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
