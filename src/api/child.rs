//! The NodeOp that a NodeOpUpgrade makes for a run: a pure function of the NodeOpUpgrade and the run.
//!
//! It is in the same namespace and belongs to the NodeOpUpgrade, so that deleting the one deletes the other.
//! The first run's has the NodeOpUpgrade's name, as the Go operator's had.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Resource, ResourceExt, api::ObjectMeta};

use super::{
    names,
    nodeop::{DrainOptions, NodeOp, NodeOpSpec, UpgradeOptions},
    run::{self, Run},
    upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec, Round},
};

/// Where the host's root is mounted. kairos-agent leaves this path, and hardly another, out of the image that
/// it writes.
const HOST_MOUNT: &str = "/host";
/// Seconds after which a drain before an upgrade is given up: a forgotten PodDisruptionBudget must not hold a
/// rollout for ever.
const DRAIN_TIMEOUT: i32 = 300;
/// How often an agent that failed is tried again. A Job's own default of six, with its growing pauses, would
/// let a canary wait ten minutes for a failure that each try repeats.
const RETRIES: i32 = 2;
/// Seconds that an upgrade may take on one node. It writes some gigabytes; one that takes longer hangs.
pub const DEADLINE: i64 = 3600;

/// The NodeOp of the first run of `upgrade`, as it is now.
pub fn first(upgrade: &NodeOpUpgrade) -> NodeOp {
    node_op(upgrade, upgrade.metadata.name.as_deref().unwrap_or_default())
}

/// The NodeOp, of this name, that does what `upgrade` asks for now.
pub fn node_op(upgrade: &NodeOpUpgrade, name: &str) -> NodeOp {
    let mut spec = spec(&upgrade.spec);
    let mut run =
        Run { generation: upgrade.metadata.generation.unwrap_or_default(), hash: run::hash(&spec), round: 0 };
    // A round that follows is of the generation at which its run was decided on, whatever was changed since.
    if let Some(round) = announced_round(upgrade, name) {
        (run.generation, run.round) = (round.generation, round.number);
        spec.node_names = round.node_names.clone();
        spec.image = round.image.clone().or(spec.image);
    }
    let labels = [
        (names::MANAGED_BY.to_owned(), names::MANAGED_BY_UPGRADE.to_owned()),
        (names::UPGRADE_NAME.to_owned(), names::label_value(&upgrade.name_any())),
    ];
    let owner = upgrade.controller_owner_ref(&()).map(|mut owner| {
        owner.block_owner_deletion = Some(true);
        owner
    });
    NodeOp {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: upgrade.metadata.namespace.clone(),
            labels: Some(labels.into()),
            annotations: Some([(names::RUN.to_owned(), run.annotation())].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// The round that was announced under this name, if it is one that follows.
fn announced_round<'a>(upgrade: &'a NodeOpUpgrade, name: &str) -> Option<&'a Round> {
    let status = upgrade.status.as_ref().filter(|status| status.node_op_name.as_deref() == Some(name))?;
    status.round.as_ref().filter(|round| round.number > 0)
}

/// What the NodeOp is told.
pub fn spec(upgrade: &NodeOpUpgradeSpec) -> NodeOpSpec {
    let active = upgrade.upgrade_active.unwrap_or(true);
    let drain_options = drain(upgrade, active);
    let cordon = active || drain_options.is_some();
    NodeOpSpec {
        node_selector: selecting(upgrade.node_selector.clone()),
        node_names: Vec::new(),
        command: None,
        upgrade: Some(UpgradeOptions {
            active,
            recovery: upgrade.upgrade_recovery.unwrap_or(false),
            force: upgrade.force.unwrap_or(false),
            debug: upgrade.debug.unwrap_or(false),
            exclude_paths: upgrade.exclude_paths.clone(),
            preflight_timeout_seconds: upgrade.preflight_timeout_seconds,
        }),
        host_mount_path: Some(HOST_MOUNT.to_owned()),
        image: Some(upgrade.image.clone()),
        image_pull_policy: upgrade.image_pull_policy,
        image_pull_secrets: upgrade.image_pull_secrets.clone(),
        // The recovery image can be written under a node at work; only a reboot or a drain asks for a cordon.
        cordon: Some(cordon),
        uncordon_on_failure: upgrade.uncordon_on_failure,
        drain_options,
        // One that stays in service stays in load balancers.
        load_balancer: upgrade.load_balancer.clone().filter(|_| cordon),
        reboot_on_success: Some(active),
        backoff_limit: Some(upgrade.backoff_limit.unwrap_or(RETRIES)),
        concurrency: upgrade.concurrency,
        paused: upgrade.paused,
        stop_on_failure: upgrade.stop_on_failure,
        not_after: upgrade.not_after.clone(),
        preflight: None,
        active_deadline_seconds: Some(upgrade.active_deadline_seconds.unwrap_or(DEADLINE)),
        pull_timeout_seconds: upgrade.pull_timeout_seconds,
        reboot_timeout_seconds: upgrade.reboot_timeout_seconds,
        verify_timeout_seconds: upgrade.verify_timeout_seconds,
        min_ready_seconds: upgrade.min_ready_seconds,
        not_ready_timeout_seconds: upgrade.not_ready_timeout_seconds,
        preflight_concurrency: upgrade.preflight_concurrency,
        // The upgrade owns it, and shows what came of it.
        ttl_seconds_after_finished: None,
    }
}

/// A selector, if there is anything in it. An upgrade that was stored before an empty one was refused still
/// means all.
fn selecting(selector: Option<LabelSelector>) -> Option<LabelSelector> {
    selector.filter(|selector| {
        selector.match_labels.iter().flatten().next().is_some()
            || selector.match_expressions.iter().flatten().next().is_some()
    })
}

/// What the user asked for, completed with the defaults of an upgrade; `None` if nothing is to be drained.
fn drain(upgrade: &NodeOpUpgradeSpec, active: bool) -> Option<DrainOptions> {
    let mut asked = upgrade.drain_options.clone().unwrap_or_default();
    asked.pod_selector = selecting(asked.pod_selector);
    asked.enabled.unwrap_or(active).then(|| DrainOptions {
        enabled: Some(true),
        // A pod that is left on the node for its emptyDir goes down with it, whatever its budget says, and
        // without the time that it has to end in order. An upgrade takes the whole node away, so it asks for
        // more.
        delete_empty_dir_data: asked.delete_empty_dir_data.or(Some(true)),
        ignore_daemon_sets: asked.ignore_daemon_sets.or(Some(true)),
        timeout_seconds: asked.timeout_seconds.or(Some(DRAIN_TIMEOUT)),
        ..asked
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn child(spec: Value) -> Value {
        let upgrade = json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
            "metadata": { "name": "up", "namespace": "fleet", "uid": "u-1", "generation": 3, "resourceVersion": "7" },
            "spec": spec,
        });
        serde_json::to_value(first(&serde_json::from_value(upgrade).unwrap())).unwrap()
    }

    #[test]
    fn the_child_has_the_name_and_belongs_to_its_maker() {
        let child = child(json!({ "image": "kairos:v2" }));
        assert_eq!(
            child["metadata"],
            json!({
                "name": "up", "namespace": "fleet",
                "labels": { "app.kubernetes.io/managed-by": "nodeopupgrade-controller", "nodeopupgrade.kairos.io/name": "up" },
                "annotations": { "operator.kairos.io/run": "3/8545f5da5bf933b9" },
                "ownerReferences": [{
                    "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "up", "uid": "u-1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            })
        );
        assert_eq!(
            (&child["apiVersion"], &child["kind"]),
            (&json!("operator.kairos.io/v1alpha1"), &json!("NodeOp"))
        );
    }

    #[test]
    fn an_image_alone_is_a_drained_upgrade_of_the_active_image_with_a_reboot() {
        assert_eq!(
            child(json!({ "image": "kairos:v2" }))["spec"],
            json!({
                "image": "kairos:v2", "hostMountPath": "/host", "concurrency": 0, "cordon": true, "rebootOnSuccess": true,
                "upgrade": { "active": true, "recovery": false, "force": false, "debug": false },
                "drainOptions": { "enabled": true, "deleteEmptyDirData": true, "ignoreDaemonSets": true, "timeoutSeconds": 300 },
                "activeDeadlineSeconds": 3600, "backoffLimit": 2,
            })
        );
    }

    #[test]
    fn recovery_alone_disturbs_nothing_unless_a_drain_is_asked_for() {
        let alone = |extra: Value| {
            let mut spec = json!({ "image": "kairos:v2", "upgradeActive": false, "upgradeRecovery": true });
            spec["drainOptions"] = extra;
            child(spec)["spec"].clone()
        };
        for quiet in [Value::Null, json!({ "timeoutSeconds": 60 })] {
            let spec = alone(quiet);
            assert_eq!(
                (&spec["cordon"], &spec["rebootOnSuccess"], &spec["drainOptions"]),
                (&json!(false), &json!(false), &Value::Null)
            );
            assert_eq!(
                spec["upgrade"],
                json!({ "active": false, "recovery": true, "force": false, "debug": false })
            );
        }
        let drained = alone(json!({ "enabled": true }));
        assert_eq!(
            (&drained["cordon"], &drained["drainOptions"]["enabled"], &drained["rebootOnSuccess"]),
            (&json!(true), &json!(true), &json!(false))
        );
    }

    #[test]
    fn both_images_reboot() {
        let spec = child(json!({ "image": "kairos:v2", "upgradeRecovery": true }))["spec"].clone();
        assert_eq!(
            (&spec["rebootOnSuccess"], &spec["upgrade"]["active"], &spec["upgrade"]["recovery"]),
            (&json!(true), &json!(true), &json!(true))
        );
    }

    #[test]
    fn what_the_user_says_about_the_drain_wins() {
        let drain =
            |options: Value| child(json!({ "image": "kairos:v2", "drainOptions": options }))["spec"].clone();
        let spec = drain(
            json!({ "deleteEmptyDirData": false, "timeoutSeconds": 0, "gracePeriodSeconds": 30, "strict": true }),
        );
        assert_eq!(
            spec["drainOptions"],
            json!({ "enabled": true, "deleteEmptyDirData": false, "ignoreDaemonSets": true, "timeoutSeconds": 0, "gracePeriodSeconds": 30, "strict": true })
        );
        let spec = drain(json!({ "enabled": false, "timeoutSeconds": 60 }));
        assert_eq!((&spec["cordon"], &spec["drainOptions"]), (&json!(true), &Value::Null));
    }

    #[test]
    fn everything_else_is_passed_on() {
        let same = json!({
            "image": "kairos:v2", "imagePullPolicy": "Never", "imagePullSecrets": [{ "name": "s" }], "nodeSelector": { "matchLabels": { "a": "b" } },
            "concurrency": 2, "paused": true, "stopOnFailure": true, "uncordonOnFailure": true, "backoffLimit": 0, "pullTimeoutSeconds": 1,
            "activeDeadlineSeconds": 2, "rebootTimeoutSeconds": 3, "verifyTimeoutSeconds": 4, "minReadySeconds": 5, "notReadyTimeoutSeconds": 6,
            "notAfter": "2027-01-31T00:00:00Z",
        });
        let mut spec = same.clone();
        for (field, value) in [
            ("force", json!(true)),
            ("debug", json!(true)),
            ("excludePaths", json!(["/a b"])),
            ("preflightTimeoutSeconds", json!(9)),
        ] {
            spec[field] = value;
        }
        let child = child(spec)["spec"].clone();
        for (field, value) in same.as_object().unwrap() {
            assert_eq!(&child[field], value, "{field}");
        }
        assert_eq!(
            child["upgrade"],
            json!({ "active": true, "recovery": false, "force": true, "debug": true, "excludePaths": ["/a b"], "preflightTimeoutSeconds": 9 })
        );
    }

    #[test]
    fn a_stored_upgrade_with_an_empty_selector_still_means_all() {
        let empty = json!({"image": "kairos:v2", "nodeSelector": {}, "drainOptions": {"podSelector": {"matchLabels": {}}}});
        let spec = child(empty)["spec"].clone();
        assert_eq!(
            (&spec["nodeSelector"], &spec["drainOptions"]["podSelector"]),
            (&Value::Null, &Value::Null)
        );
    }

    #[test]
    fn a_long_name_still_makes_a_label() {
        let label = names::label_value(&format!("{}.{}", "a".repeat(51), "b".repeat(100)));
        assert!(label.len() <= 63 && !label.contains(".-"), "{label}");
        assert_eq!(names::label_value("kairos-upgrade"), "kairos-upgrade");
    }
}
