//! What holds of every pod that we make, whatever was asked for: it takes nobody's room, nobody adds a
//! container to it, its words are kept, and what it may only read it cannot write.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::{Job, PodFailurePolicyRule},
    core::v1::{Container, Pod, PodSpec},
};
use kairos_operator::{
    api::{
        names::{self, container},
        nodeop::NodeOp,
    },
    contract,
    render::{
        RenderConfig, facts,
        job::{self, On},
        preflight, waiter,
    },
};
use serde_json::{Value, json};

use crate::tidy::scan;

pub fn render_config() -> RenderConfig {
    RenderConfig {
        operator_image: "operator:v1".into(),
        operator_pull_policy: "IfNotPresent".into(),
        namespace: "operator-system".into(),
        default_image: "busybox:latest".into(),
        state_dir: "/usr/local/.kairos".into(),
        pull_secrets: vec![],
    }
}

/// A node that can hold its lock beside a command, and one whose kubelet is too old for that.
pub const ON: On<'static> = On { node: "n1", locks: true };
const OLD: On<'static> = On { node: "n1", locks: false };

/// The pod that a Job controller makes.
fn pod_of(job: Job) -> Pod {
    let template = job.spec.unwrap().template;
    Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None }
}

/// Every pod that is made for `op`, and the one that reads a node's facts, each with its main container.
pub fn pods(op: &NodeOp) -> Vec<(&'static str, Pod)> {
    let config = render_config();
    let tried = Pod {
        metadata: job::pod_meta(op, "n1", "job"),
        spec: Some(job::pod(op, ON, "job", &config)),
        status: None,
    };
    let mut pods = vec![
        (container::NODEOP, pod_of(job::job(op, ON, "job", &config))),
        (container::NODEOP, pod_of(job::job(op, OLD, "job", &config))),
        (container::NODEOP, tried),
        (
            container::REBOOT,
            waiter::pod(op, "n1", "waiter", waiter::For { job: "job", succeeded: None }, "account", &config),
        ),
        (container::FACTS, facts::pod(("n1", "uid"), "facts", 0, false, &config)),
    ];
    let unrecorded =
        json!({"phase": "Running", "nodeStatuses": {"n1": {"phase": "Running", "succeededIn": "b1"}}});
    let recorded = NodeOp { status: serde_json::from_value(unrecorded).unwrap(), ..op.clone() };
    // Whatever stands in the status, an upgrade is no command, and what follows no reboot has no record.
    let records = op.spec.upgrade.is_none() && op.spec.reboot_on_success == Some(true);
    let main = if records { container::SENTINEL } else { container::NODEOP };
    pods.push((main, pod_of(job::job(&recorded, ON, "job", &config))));
    pods.push((container::PREFLIGHT, preflight::pod(op, "n1", "preflight", &config)));
    pods
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref().unwrap();
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// What is wrong with a pod of ours.
pub fn wrong_with(main: &str, pod: &Pod) -> Vec<String> {
    let mut wrong = takes_room(pod);
    wrong.extend(invites_containers(pod));
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(names::DEFAULT_CONTAINER));
    if annotation.map(String::as_str) != Some(main) || !containers(pod).any(|c| c.name == main) {
        wrong.push(format!("kubectl logs shows {annotation:?}, not {main}"));
    }
    for container in containers(pod) {
        if container.termination_message_policy.as_deref() != Some("FallbackToLogsOnError") {
            wrong.push(format!("the termination message of {} is lost", container.name));
        }
        for mount in container.volume_mounts.iter().flatten() {
            let whole = mount.recursive_read_only.as_deref() == Some("IfPossible");
            // A user's check, which has no context, has what the Go operator gave it: `it/preflight.rs`.
            if mount.read_only.unwrap_or(false) != whole && container.security_context.is_some() {
                wrong.push(format!("{} can write below {}", container.name, mount.mount_path));
            }
        }
    }
    let kept =
        containers(pod).filter(|container| writes_to_the_host(pod, container) && !may_write(container));
    wrong.extend(
        kept.map(|container| format!("SELinux may keep {} from writing on the host", container.name)),
    );
    wrong
}

fn writes_to_the_host(pod: &Pod, container: &Container) -> bool {
    let volumes = pod.spec.as_ref().unwrap().volumes.iter().flatten();
    let of_host: Vec<&str> =
        volumes.filter(|volume| volume.host_path.is_some()).map(|volume| volume.name.as_str()).collect();
    let mut mounts = container.volume_mounts.iter().flatten();
    mounts.any(|mount| of_host.contains(&mount.name.as_str()) && !mount.read_only.unwrap_or(false))
}

/// Where SELinux is enforced, the domain that containers have by default may not write into the host's
/// directories.
fn may_write(container: &Container) -> bool {
    let context = container.security_context.as_ref().unwrap();
    let domain = context.se_linux_options.as_ref().and_then(|options| options.type_.as_deref());
    context.privileged == Some(true) || domain == Some("spc_t")
}

/// Whatever could make a kubelet, or the scheduler, end somebody's pod for ours, or let a budget give one up.
fn takes_room(pod: &Pod) -> Vec<String> {
    let spec = pod.spec.as_ref().unwrap();
    let mut wrong = Vec::new();
    let mut check = |fits: bool, what: &str| wrong.extend((!fits).then(|| what.to_owned()));
    check(
        spec.priority_class_name.is_none() && spec.priority.is_none() && spec.preemption_policy.is_none(),
        "it has a priority",
    );
    check(spec.resources.is_none() && spec.overhead.is_none(), "the pod asks for resources");
    check(spec.runtime_class_name.is_none(), "a runtime class may ask for resources");
    check(spec.resource_claims.is_none(), "it asks for devices");
    check(spec.node_name.as_deref() == Some("n1"), "the scheduler places it");
    check(spec.host_network.is_none(), "it has the host's ports");
    // Limits are requests where there are no others.
    check(containers(pod).all(|c| c.resources.is_none()), "a container asks for resources, or has limits");
    check(
        containers(pod).all(|c| c.ports.iter().flatten().all(|port| port.host_port.is_none())),
        "it takes a port of the host",
    );
    let gates = spec.readiness_gates.iter().flatten().any(|gate| gate.condition_type == names::NO_REPLICA);
    check(gates, "a budget may count it as a healthy replica");
    for volume in spec.volumes.iter().flatten() {
        let mut bare = volume.clone();
        (bare.host_path, bare.empty_dir, bare.name) = (None, None, String::new());
        check(bare == Default::default(), "a volume other than the host's and our binary's");
        if let Some(memory) = &volume.empty_dir {
            let limit = memory.size_limit.as_ref().map(|limit| limit.0.as_str());
            check(
                (memory.medium.as_deref(), limit) == (Some("Memory"), Some("64Mi")),
                "a volume of unknown size",
            );
        }
    }
    wrong
}

fn invites_containers(pod: &Pod) -> Option<String> {
    let has = |all: &Option<BTreeMap<String, String>>, marks: &[(&str, &str)]| {
        marks
            .iter()
            .all(|(key, value)| all.as_ref().and_then(|all| all.get(*key)).is_some_and(|is| is == value))
    };
    let marked = has(&pod.metadata.labels, &names::LEAVE_ALONE_LABELS)
        && has(&pod.metadata.annotations, &names::LEAVE_ALONE_ANNOTATIONS);
    (!marked).then(|| "a mesh may add a container".to_owned())
}

fn op(spec: Value) -> NodeOp {
    serde_json::from_value(json!({
        "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
        "metadata": {"name": "op", "namespace": "default", "uid": "u"}, "spec": spec,
    }))
    .unwrap()
}

/// A command with all that it can have, and an upgrade.
fn ops() -> [NodeOp; 3] {
    let command = json!({"command": ["true"], "cordon": true, "drainOptions": {"enabled": true}, "rebootOnSuccess": true,
        "preflight": {"command": ["check"], "image": "checker"}});
    let upgrade =
        json!({"image": "kairos:v2", "upgrade": {"active": true}, "cordon": true, "rebootOnSuccess": true});
    let recovery = json!({"image": "kairos:v2", "upgrade": {"recovery": true}});
    [op(command), op(upgrade), op(recovery)]
}

#[test]
fn nothing_is_wrong_with_any_pod() {
    for op in ops() {
        for (main, pod) in pods(&op) {
            assert_eq!(wrong_with(main, &pod), Vec::<String>::new(), "{:?}", pod.metadata.name);
        }
    }
}

/// A pod that is made elsewhere, or in a way of its own, would be held by none of this.
#[test]
fn every_pod_is_described_where_it_is_tested() {
    let mut makes = Vec::new();
    for file in scan::files(&scan::root().join("src"), ".rs") {
        let made = scan::code(&file)
            .lines()
            .filter(|line| line.contains("PodSpec {") && !line.contains("->") && !line.contains("struct "))
            .count();
        makes.extend((0..made).map(|_| scan::below(&file, "src").to_owned()));
    }
    assert_eq!(
        makes,
        ["facts", "job", "job", "parts", "preflight", "waiter"].map(|name| format!("render/{name}.rs"))
    );
}

#[test]
fn the_images_of_users_are_pulled_as_kubernetes_or_the_user_says() {
    for policy in [None, Some("Always"), Some("IfNotPresent"), Some("Never")] {
        for mut op in ops() {
            op.spec.image_pull_policy = policy.map(|policy| serde_json::from_value(json!(policy)).unwrap());
            for (_, pod) in pods(&op) {
                for container in containers(&pod) {
                    let ours = container.image.as_deref() == Some("operator:v1");
                    let wanted = if ours { Some("IfNotPresent") } else { policy };
                    assert_eq!(container.image_pull_policy.as_deref(), wanted, "{}", container.name);
                }
            }
        }
    }
}

/// As the Job controller reads them, of a pod in which this container alone failed: the first rule that
/// matches.
fn fails_for_good(job: &Job, failed: &str, code: i32) -> bool {
    let rules = job.spec.as_ref().unwrap().pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    let matches = |rule: &&PodFailurePolicyRule| {
        rule.on_exit_codes.as_ref().is_some_and(|on| {
            let named = on.container_name.as_deref().is_none_or(|name| name == failed);
            named && code != 0 && on.values.contains(&code) == (on.operator == "In")
        })
    };
    rules.into_iter().find(matches).is_some_and(|rule| rule.action == "FailJob")
}

#[test]
fn a_command_that_succeeded_is_never_run_again_and_one_that_failed_is() {
    let [command, upgrade, _] = ops();
    let config = render_config();
    let job = job::job(&command, ON, "job", &config);
    for code in [1, 42, 137] {
        assert!(fails_for_good(&job, container::SENTINEL, code), "the sentinel ended with {code}");
        for ours in [container::NODEOP, container::NODE_LOCK] {
            assert!(!fails_for_good(&job, ours, code), "a user's command may end with {code}");
        }
        // Somebody else's container that fails a pod beside a command that succeeded.
        let plain = job::job(&op(json!({"command": ["true"]})), ON, "job", &config);
        for job in [&job, &plain] {
            assert!(fails_for_good(job, "apm", code) && !fails_for_good(job, container::NODEOP, code));
        }
    }
    let job = job::job(&upgrade, ON, "job", &config);
    let permanent = i32::from(contract::EXIT_PERMANENT);
    for container in [container::INSTALL, container::NODEOP, container::SENTINEL] {
        assert!(
            fails_for_good(&job, container, permanent) && !fails_for_good(&job, container, 1),
            "{container}"
        );
    }
}

/// What an API server asks of a policy: restartPolicy Never, and containers that are there.
#[test]
fn failure_policies_are_admitted() {
    let [command, upgrade, recovery] = ops();
    // One that is only to record the success of the Job before it.
    let mut record = command.clone();
    record.status = serde_json::from_value(
        json!({"nodeStatuses": {"n1": {"phase": "Running", "step": "Job", "succeededIn": "b1"}}}),
    )
    .unwrap();
    for op in [command, upgrade, recovery, record, op(json!({"command": ["true"]}))] {
        for on in [ON, OLD] {
            let job = job::job(&op, on, "job", &render_config());
            let policy = job.spec.as_ref().unwrap().pod_failure_policy.clone().unwrap();
            let pod = pod_of(job);
            assert_eq!(pod.spec.as_ref().unwrap().restart_policy.as_deref(), Some("Never"));
            for rule in policy.rules {
                assert_ne!(rule.on_exit_codes.is_some(), rule.on_pod_conditions.is_some(), "one of them");
                let Some(on) = rule.on_exit_codes else { continue };
                if let Some(name) = on.container_name {
                    assert!(containers(&pod).any(|container| container.name == name), "{name}");
                }
                assert!(on.operator == "NotIn" || !on.values.contains(&0));
            }
        }
    }
}

/// A registry that asks for credentials: every pod with our own image pulls with the operator's own
/// Secrets, besides the user's, and no other pod does.
#[test]
fn pods_with_our_image_pull_with_the_operators_secrets() {
    let config = RenderConfig { pull_secrets: vec!["mirror".into(), "shared".into()], ..render_config() };
    let op = |spec: Value| -> NodeOp {
        serde_json::from_value(json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u"}, "spec": spec}))
        .unwrap()
    };
    let secrets = |spec: &PodSpec| -> Vec<String> {
        spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect()
    };
    let users = json!([{"name": "shared"}, {"name": "mine"}]);
    let plain =
        op(json!({"command": ["true"], "imagePullSecrets": users, "preflight": {"command": ["true"]}}));
    let upgrade = op(
        json!({"image": "os:1", "upgrade": {"active": true}, "rebootOnSuccess": true, "imagePullSecrets": users}),
    );
    let job = |op: &NodeOp| secrets(&job::pod(op, ON, "job", &config));
    let check = |op: &NodeOp| secrets(&preflight::pod(op, "n1", "name", &config).spec.unwrap());
    let both = ["shared", "mine", "mirror"];
    let users = ["shared", "mine"];
    assert_eq!(secrets(&job::pod(&plain, OLD, "job", &config)), users, "it has no container of ours");
    for op in [&plain, &upgrade] {
        assert_eq!([job(op), check(op)], [both, both], "our binary looks ahead of a user's check");
    }
    let of = waiter::For { job: "job", succeeded: None };
    assert_eq!(secrets(&waiter::pod(&upgrade, "n1", "name", of, "account", &config).spec.unwrap()), both);
    assert_eq!(secrets(&facts::pod(("n1", "u"), "f", 0, true, &config).spec.unwrap()), ["mirror", "shared"]);
}

/// As a kubelet reads them: what it starts one after the other, with those that run beside what comes after.
fn order(op: &NodeOp, on: On<'_>) -> Vec<String> {
    let pod = job::pod(op, on, "job", &render_config());
    containers(&Pod { spec: Some(pod), ..Pod::default() })
        .map(|container| match container.restart_policy.as_deref() {
            Some("Always") => format!("{} beside", container.name),
            None => container.name.clone(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_command_runs_while_the_nodes_lock_is_held_beside_it() {
    let [command, upgrade, recovery] = ops();
    let plain = op(json!({"command": ["true"]}));
    assert_eq!(order(&plain, ON), ["node-lock beside", "nodeop"]);
    assert_eq!(order(&command, ON), ["node-lock beside", "nodeop", "sentinel-creator"]);
    assert_eq!(order(&plain, OLD), ["nodeop"], "its kubelet would wait for it to end");
    assert_eq!(order(&command, OLD), ["nodeop", "sentinel-creator"]);
    for on in [ON, OLD] {
        assert_eq!(
            order(&upgrade, on),
            ["install", "nodeop", "sentinel-creator"],
            "its wrapper has the lock"
        );
        assert_eq!(order(&recovery, on), ["install", "nodeop"]);
    }
    let beside_init = |op: &NodeOp| {
        let holder = job::pod(op, ON, "job", &render_config()).init_containers.unwrap().swap_remove(0);
        holder.args.unwrap().contains(&"--beside-init".to_owned())
    };
    assert!(beside_init(&command) && !beside_init(&plain), "with a reboot the command is an init container");
    let pod = job::pod(&plain, ON, "job", &render_config());
    let holder = pod.init_containers.as_ref().unwrap()[0].clone();
    let paths = |pod: &PodSpec| {
        let hosts = pod.volumes.iter().flatten().filter_map(|volume| volume.host_path.clone());
        hosts.map(|host| host.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(&pod), ["/", contract::LOCK_DIR]);
    let mounts: Vec<_> =
        holder.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str()).collect();
    assert_eq!(mounts, [contract::LOCK_MOUNT], "it sees nothing else of the host");
    let probe = holder.startup_probe.unwrap();
    assert_eq!((probe.period_seconds, probe.failure_threshold), (Some(1), Some(i32::MAX)));
}

/// What one applet leaves another one looks for, and the preflight of the next upgrade as well.
#[test]
fn every_applet_of_an_upgrade_is_told_of_the_one_state_directory() {
    let [_, upgrade, _] = ops();
    let config = RenderConfig { state_dir: "/var/lib/kairos".into(), ..render_config() };
    let check = preflight::pod(&upgrade, "n1", "name", &config);
    let of = waiter::For { job: "job", succeeded: None };
    let waiter = waiter::pod(&upgrade, "n1", "name", of, "account", &config);
    for pod in [pod_of(job::job(&upgrade, ON, "job", &config)), check, waiter] {
        let text = serde_json::to_string(&pod).unwrap();
        assert!(text.contains("/var/lib") && !text.contains("/usr/local"), "{text}");
        let told = containers(&pod).find_map(|container| {
            container.args.iter().flatten().find(|arg| arg.starts_with("--state-dir=")).cloned()
        });
        let told = told.unwrap();
        let known = ["--state-dir=/host/var/lib/kairos", "--state-dir=/state/kairos"];
        assert!(known.contains(&&*told), "{told}");
    }
}
