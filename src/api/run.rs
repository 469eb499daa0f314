//! What makes two runs of a NodeOpUpgrade the same, and how the NodeOps of its runs are called.
//!
//! A run is decided by the spec of its NodeOp, less the fields that only steer it (`concurrency`, `paused`,
//! `stopOnFailure`, `notAfter`): those are passed on to the NodeOp that is there; and less the names of nodes
//! to which a later round of the run is narrowed down. The hash of the rest goes over its fields by their
//! names in a NodeOp, sorted. A field that is unset, empty or says what it would say unset is left out, so
//! that writing a default down is no change, and a field that a later version adds changes no hash. The
//! defaults that count stand here as numbers: the hash is in the status of upgrades, and must not change with
//! an operator's version, or every finished upgrade would run again.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    hash::digits,
    names::{self, cut},
    nodeop::{DrainOptions, LoadBalancer, NodeOpSpec, UpgradeOptions},
};

/// Longest name of a NodeOp.
const MAX_NAME: usize = 253;
/// Digits of the hash in a name.
const NAME_DIGITS: usize = 8;
/// Digits of the hash of what decides a run.
const DIGITS: usize = 16;

/// The run that a NodeOp is: when it was decided on, by what, and at which round it is. Of two that one
/// upgrade made the later one has the greater [`Run::order`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The generation of the NodeOpUpgrade at which it was decided on: of two runs the later one has the
    /// greater.
    pub generation: i64,
    /// The hash of what decides it.
    pub hash: String,
    /// 0 for the NodeOp with which it begins; greater for those that follow, for nodes that joined or drifted.
    pub round: i64,
}

impl Run {
    /// As which run a NodeOp was made, if it says so. An earlier version wrote nothing, and made one at most.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let (generation, rest) = meta.annotations.as_ref()?.get(names::RUN)?.split_once('/')?;
        let (hash, round) = match rest.split_once('/') {
            Some((hash, round)) => (hash, round.parse().ok().filter(|round| *round > 0)?),
            None => (rest, 0),
        };
        Some(Self { generation: generation.parse().ok()?, hash: hash.to_owned(), round })
    }

    /// As it stands on the NodeOp.
    pub fn annotation(&self) -> String {
        let round = if self.round > 0 { format!("/{}", self.round) } else { String::new() };
        format!("{}/{}{round}", self.generation, self.hash)
    }

    /// When a NodeOp was decided on, among those of its upgrade; one that does not say it comes first.
    pub fn order(meta: &ObjectMeta) -> (i64, i64) {
        Self::of(meta).map_or((0, 0), |run| (run.generation, run.round))
    }

    /// The name of the NodeOp of a run that is not the first one: the upgrade's, and eight digits. An upgrade
    /// goes back to an image that it ran before, whose NodeOp may be there still, and is made again under its
    /// own name; so the digits are also of the generation, which the API server never gives out twice, and of
    /// the upgrade's UID.
    pub fn name(&self, upgrade: (&str, &str)) -> String {
        let (name, uid) = upgrade;
        let (generation, round) = (self.generation.to_string(), self.round.to_string());
        let mut parts = vec![name, uid, &generation, &self.hash];
        parts.extend((self.round > 0).then_some(round.as_str()));
        let hash = digits(&parts, NAME_DIGITS);
        let head = cut(name, MAX_NAME - NAME_DIGITS - 1);
        format!("{}-{hash}", head.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()))
    }
}

/// What is left out because it is unset, or says what unset says.
#[derive(Default)]
struct Said(BTreeMap<&'static str, Value>);

impl Said {
    /// A field, unless it is unset or this default.
    fn unless<T: Serialize + PartialEq>(&mut self, name: &'static str, value: Option<T>, default: &T) {
        if let Some(value) = value.filter(|value| value != default) {
            self.0.insert(name, json!(value));
        }
    }

    fn into_value(self) -> Value {
        json!(self.0)
    }
}

/// The hash of what decides a run: of all that the NodeOp's spec says and that does not only steer it.
pub fn hash(spec: &NodeOpSpec) -> String {
    digits(&[&sorted(&decisive(spec))], DIGITS)
}

fn decisive(spec: &NodeOpSpec) -> Value {
    let NodeOpSpec {
        node_selector,
        node_names: _,
        command,
        upgrade,
        host_mount_path: _,
        image,
        image_pull_policy,
        image_pull_secrets,
        // Whether the node is cordoned follows from the images that are written, and from the drain.
        cordon: _,
        uncordon_on_failure,
        drain_options,
        load_balancer,
        reboot_on_success: _,
        backoff_limit,
        concurrency: _,
        paused: _,
        stop_on_failure: _,
        not_after: _,
        preflight: _,
        active_deadline_seconds,
        pull_timeout_seconds,
        reboot_timeout_seconds,
        verify_timeout_seconds,
        min_ready_seconds,
        not_ready_timeout_seconds,
        preflight_concurrency,
        ttl_seconds_after_finished: _,
    } = spec;
    let mut said = Said::default();
    let image = image.as_deref().unwrap_or_default();
    said.unless("image", Some(image), &"");
    let policy = image_pull_policy.map(|policy| policy.as_str());
    said.unless("imagePullPolicy", policy, &kubernetes_policy(image));
    let secrets: Vec<&str> = image_pull_secrets.iter().map(|secret| secret.name.as_str()).collect();
    said.unless("imagePullSecrets", Some(secrets), &Vec::new());
    said.unless("nodeSelector", node_selector.as_ref().map(selector), &json!({}));
    // The Go operator's upgrades are commands.
    said.unless("command", command.as_ref(), &&Vec::new());
    let active = upgrade.as_ref().is_none_or(|upgrade| upgrade.active);
    said.unless("upgrade", upgrade.as_ref().map(options), &json!({}));
    said.unless("uncordonOnFailure", *uncordon_on_failure, &false);
    said.unless("drainOptions", Some(drain(drain_options.as_ref(), active)), &json!({}));
    said.unless("loadBalancer", load_balancer.as_ref().and_then(LoadBalancer::wait), &-1);
    said.unless("backoffLimit", *backoff_limit, &2);
    said.unless("activeDeadlineSeconds", *active_deadline_seconds, &3600);
    said.unless("pullTimeoutSeconds", *pull_timeout_seconds, &1800);
    said.unless("rebootTimeoutSeconds", *reboot_timeout_seconds, &1800);
    said.unless("verifyTimeoutSeconds", *verify_timeout_seconds, &300);
    said.unless("minReadySeconds", *min_ready_seconds, &0);
    said.unless("notReadyTimeoutSeconds", *not_ready_timeout_seconds, &0);
    said.unless("preflightConcurrency", *preflight_concurrency, &0);
    said.into_value()
}

/// What Kubernetes does if no policy is written.
fn kubernetes_policy(image: &str) -> &'static str {
    let path = image.rsplit('/').next().unwrap_or_default();
    let latest = match path.split_once('@') {
        Some(_) => false,
        None => path.split_once(':').is_none_or(|(_, tag)| tag == "latest"),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn options(upgrade: &UpgradeOptions) -> Value {
    let UpgradeOptions { active, recovery, force, debug, exclude_paths, preflight_timeout_seconds } = upgrade;
    let mut said = Said::default();
    said.unless("active", Some(*active), &true);
    said.unless("recovery", Some(*recovery), &false);
    said.unless("force", Some(*force), &false);
    said.unless("debug", Some(*debug), &false);
    said.unless("excludePaths", Some(exclude_paths), &&Vec::new());
    said.unless("preflightTimeoutSeconds", *preflight_timeout_seconds, &120);
    said.into_value()
}

/// An upgrade of the active image drains, unless it is told not to; one of the recovery image alone does not,
/// unless it is told to.
fn drain(options: Option<&DrainOptions>, active: bool) -> Value {
    let Some(options) = options.filter(|options| options.enabled.unwrap_or(false)) else {
        return if active { json!({"enabled": false}) } else { json!({}) };
    };
    let DrainOptions {
        enabled: _,
        force,
        grace_period_seconds,
        ignore_daemon_sets,
        delete_empty_dir_data,
        timeout_seconds,
        strict,
        pod_selector,
        skip,
        skip_wait_for_delete_timeout_seconds,
    } = options;
    let mut said = Said::default();
    said.unless("enabled", Some(true), &active);
    said.unless("force", *force, &false);
    said.unless("gracePeriodSeconds", *grace_period_seconds, &-1);
    said.unless("ignoreDaemonSets", *ignore_daemon_sets, &true);
    said.unless("deleteEmptyDirData", *delete_empty_dir_data, &true);
    said.unless("timeoutSeconds", *timeout_seconds, &300);
    said.unless("strict", *strict, &false);
    said.unless("podSelector", pod_selector.as_ref().map(selector), &json!({}));
    said.unless("skip", skip.as_ref().map(selector), &json!({}));
    said.unless("skipWaitForDeleteTimeoutSeconds", *skip_wait_for_delete_timeout_seconds, &0);
    said.into_value()
}

fn selector(selector: &LabelSelector) -> Value {
    let LabelSelector { match_expressions, match_labels } = selector;
    let mut said = Said::default();
    said.unless("matchLabels", match_labels.as_ref(), &&BTreeMap::new());
    said.unless("matchExpressions", match_expressions.as_ref(), &&Vec::new());
    said.into_value()
}

/// The value as JSON with the keys of each object in order, however the maps of a build of serde_json are.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let said: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}:{}", json!(name), sorted(value))).collect();
            format!("{{{}}}", said.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{child, upgrade::NodeOpUpgrade};

    fn hash_of(change: &Value) -> String {
        let mut spec = json!({"image": "kairos:v2"});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let upgrade: NodeOpUpgrade = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "metadata": {"name": "up"}, "spec": spec,
        }))
        .unwrap();
        hash(&child::spec(&upgrade.spec))
    }

    /// The hash stands in the status of upgrades that are over: if one of these changes with a version, all of
    /// them run again when somebody edits as much as `paused`. A default that changes has to be mapped to the
    /// old one in `decisive`.
    #[test]
    fn the_hash_is_the_same_in_all_versions() {
        let all = json!({
            "image": "kairos:v2", "imagePullPolicy": "Never", "imagePullSecrets": [{"name": "s"}],
            "nodeSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]},
            "upgradeRecovery": true, "force": true, "debug": true, "uncordonOnFailure": true, "excludePaths": ["/a"],
            "drainOptions": {"force": true, "gracePeriodSeconds": 5}, "backoffLimit": 1, "preflightTimeoutSeconds": 1,
            "pullTimeoutSeconds": 1, "activeDeadlineSeconds": 1, "rebootTimeoutSeconds": 1, "verifyTimeoutSeconds": 1,
            "minReadySeconds": 1, "notReadyTimeoutSeconds": 1, "preflightConcurrency": 1,
        });
        assert_eq!([hash_of(&json!({})), hash_of(&all)], ["8545f5da5bf933b9", "ed48d9d248040dcf"]);
    }

    #[test]
    fn a_default_that_is_written_down_is_no_change_and_neither_is_what_only_steers() {
        let silent = hash_of(&json!({}));
        for said in [
            json!({"imagePullPolicy": "IfNotPresent"}),
            json!({"imagePullSecrets": []}),
            json!({"nodeSelector": {"matchLabels": {}}}),
            json!({"upgradeActive": true, "upgradeRecovery": false, "force": false, "debug": false}),
            json!({"uncordonOnFailure": false, "excludePaths": []}),
            json!({"drainOptions": {}}),
            json!({"drainOptions": {"enabled": true, "force": false, "gracePeriodSeconds": -1, "ignoreDaemonSets": true,
                "deleteEmptyDirData": true, "timeoutSeconds": 300, "strict": false, "podSelector": {},
                "skip": {"matchLabels": {}}, "skipWaitForDeleteTimeoutSeconds": 0}}),
            json!({"backoffLimit": 2, "preflightTimeoutSeconds": 120, "pullTimeoutSeconds": 1800, "activeDeadlineSeconds": 3600}),
            json!({"rebootTimeoutSeconds": 1800, "verifyTimeoutSeconds": 300, "minReadySeconds": 0, "notReadyTimeoutSeconds": 0}),
            json!({"concurrency": 3}),
            json!({"paused": true}),
            json!({"stopOnFailure": true}),
            json!({"loadBalancer": {"exclude": false}}),
            json!({"notAfter": "2027-01-31T00:00:00Z"}),
            json!({"mode": "Once"}),
            json!({"mode": "Continuous"}),
        ] {
            assert_eq!(hash_of(&said), silent, "{said}");
        }
    }

    #[test]
    fn whatever_decides_a_run_changes_its_hash() {
        let changes = [
            json!({}),
            json!({"image": "kairos:v3"}),
            json!({"image": "kairos:latest"}),
            json!({"image": "kairos:latest", "imagePullPolicy": "IfNotPresent"}),
            json!({"imagePullPolicy": "Always"}),
            json!({"imagePullSecrets": [{"name": "s"}]}),
            json!({"nodeSelector": {"matchLabels": {"a": "b"}}}),
            json!({"upgradeRecovery": true}),
            json!({"upgradeActive": false, "upgradeRecovery": true}),
            json!({"upgradeActive": false, "upgradeRecovery": true, "drainOptions": {"enabled": true}}),
            json!({"force": true}),
            json!({"debug": true}),
            json!({"uncordonOnFailure": true}),
            json!({"excludePaths": ["/a", "/b"]}),
            json!({"excludePaths": ["/a,/b"]}),
            json!({"drainOptions": {"enabled": false}}),
            json!({"drainOptions": {"timeoutSeconds": 0}}),
            json!({"drainOptions": {"deleteEmptyDirData": false}}),
            json!({"drainOptions": {"podSelector": {"matchLabels": {"a": "b"}}}}),
            json!({"drainOptions": {"skip": {"matchLabels": {"a": "b"}}}}),
            json!({"loadBalancer": {"exclude": true}}),
            json!({"loadBalancer": {"exclude": true, "waitSeconds": 0}}),
            json!({"backoffLimit": 0}),
            json!({"preflightTimeoutSeconds": 7}),
            json!({"pullTimeoutSeconds": 7}),
            json!({"activeDeadlineSeconds": 7}),
            json!({"rebootTimeoutSeconds": 7}),
            json!({"verifyTimeoutSeconds": 7}),
            json!({"minReadySeconds": 7}),
            json!({"notReadyTimeoutSeconds": 7}),
            json!({"preflightConcurrency": 7}),
        ];
        let hashes: std::collections::BTreeSet<String> = changes.iter().map(hash_of).collect();
        assert_eq!(hashes.len(), changes.len());
        assert_eq!(
            hash_of(&json!({"image": "kairos:latest", "imagePullPolicy": "Always"})),
            hash_of(&json!({"image": "kairos:latest"}))
        );
    }

    /// The server adds defaults to the NodeOp that we make, and a run is known again by them.
    #[test]
    fn a_nodeop_with_the_servers_defaults_is_the_same_run() {
        let upgrade: NodeOpUpgrade = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "metadata": {"name": "up"},
            "spec": {"image": "kairos:v2", "concurrency": 1},
        }))
        .unwrap();
        let made = child::spec(&upgrade.spec);
        let mut stored = made.clone();
        (stored.uncordon_on_failure, stored.stop_on_failure) = (Some(false), Some(false));
        (stored.paused, stored.concurrency) = (Some(true), 7);
        stored.node_names = vec!["n1".into()];
        if let Some(drain) = &mut stored.drain_options {
            (drain.force, drain.strict) = (Some(false), Some(false));
        }
        assert_eq!(hash(&stored), hash(&made));
    }

    #[test]
    fn each_run_has_a_name_of_its_own_that_a_nodeop_may_have() {
        let run = |generation, hash: &str| Run { generation, hash: hash.into(), round: 0 };
        let round = |round| Run { round, ..run(2, "a") };
        let name = run(2, "a").name(("up", "u"));
        assert_eq!(name, run(2, "a").name(("up", "u")));
        assert!(name.starts_with("up-") && name.len() == 11, "{name}");
        for other in [
            run(3, "a").name(("up", "u")),
            run(2, "b").name(("up", "u")),
            run(2, "a").name(("up", "made-again")),
            round(1).name(("up", "u")),
        ] {
            assert_ne!(name, other);
        }
        assert_ne!(round(1).name(("up", "u")), round(2).name(("up", "u")));
        let long = "a".repeat(243) + "." + &"b".repeat(9);
        let name = run(2, "a").name((&long, "u"));
        assert!(name.len() <= 253 && !name.contains(".-"), "{name}");
    }

    #[test]
    fn what_stands_on_a_nodeop_is_read_back() {
        let run = Run { generation: 4, hash: "0123456789abcdef".into(), round: 0 };
        let third = Run { round: 3, ..run.clone() };
        let meta = |value: &str| ObjectMeta {
            annotations: Some([(names::RUN.to_owned(), value.to_owned())].into()),
            ..ObjectMeta::default()
        };
        assert_eq!(run.annotation(), "4/0123456789abcdef", "as it was before there were rounds");
        assert!(Run::order(&meta(&run.annotation())) < Run::order(&meta(&third.annotation())));
        for run in [run, third] {
            assert_eq!(Run::of(&meta(&run.annotation())), Some(run));
        }
        for other in ["", "4", "x/y", "/", "4/a/", "4/a/x", "4/a/0", "4/a/-1", "4/a/1/2"] {
            assert_eq!(Run::of(&meta(other)), None, "{other}");
        }
        assert_eq!(Run::of(&ObjectMeta::default()), None);
    }
}
