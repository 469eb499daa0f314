//! Any pod of a node that is drained, as the drain sees it.

use super::view::{annotation, created, phase, text};
use crate::{
    api::{
        names,
        owner::Owner,
        pod::{Pod, Toleration, Volume},
    },
    plan::model::snapshot::NodePod,
};

/// Claims of a pod that are looked at: no machine has more disks attached.
const MAX_CLAIMS: usize = 128;
/// Bytes of a claim's name. There is none of a longer one.
const MAX_NAME: usize = 253;

/// The PersistentVolumeClaim behind a volume; an ephemeral volume's claim is named after pod and volume.
fn claim(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
    let ephemeral =
        || volume.ephemeral.as_ref().map(|_| format!("{}-{}", text(&pod.metadata.name), volume.name));
    named.or_else(ephemeral)
}

/// Whether the toleration covers the taint that a cordon is, `node.kubernetes.io/unschedulable:NoSchedule`,
/// which has no value.
fn tolerates_cordon(toleration: &Toleration) -> bool {
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    let exists = said(&toleration.operator) == "Exists";
    let key = match said(&toleration.key).as_str() {
        "" => exists,
        key => key == "node.kubernetes.io/unschedulable",
    };
    let value = exists || said(&toleration.value).is_empty();
    key && value && matches!(said(&toleration.effect).as_str(), "" | "NoSchedule")
}

/// Any pod, as a drain sees it.
pub fn resident(pod: &Pod) -> NodePod {
    let meta = &pod.metadata;
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    NodePod {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        labels: meta.labels.clone().unwrap_or_default(),
        created: created(meta),
        deleting_since: meta.deletion_timestamp.as_ref().map(|time| time.0),
        grace_seconds: meta.deletion_grace_period_seconds.unwrap_or(0),
        finished: phase(pod).is_final(),
        controller: Owner::of(meta),
        mirror: annotation(meta, names::MIRROR).is_some(),
        tolerates_cordon: tolerations.into_iter().flatten().any(tolerates_cordon),
        local_storage: volumes.into_iter().flatten().any(|volume| volume.empty_dir.is_some()),
        claims: volumes
            .into_iter()
            .flatten()
            .filter_map(|volume| claim(pod, volume))
            .filter(|claim| claim.len() <= MAX_NAME)
            .take(MAX_CLAIMS)
            .collect(),
        finalizers: meta.finalizers.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Whoever may make pods names the node that they are on, and one that is refused there stays for ever.
    #[test]
    fn of_a_pod_of_megabytes_some_kilobytes_are_kept_and_what_decides_about_it_is_among_them() {
        let many = |value: fn(usize) -> Value| (0..20_000).map(value).collect::<Vec<_>>();
        let mut labels: serde_json::Map<String, Value> =
            (0..20_000).map(|number| (format!("a{number:06}"), "x".repeat(63).into())).collect();
        labels.insert(names::NODEOP.into(), "op".into());
        let mut annotations = labels.clone();
        annotations.insert(names::MIRROR.into(), "m".into());
        annotations.insert(names::NODE_NAME.into(), "x".repeat(100_000).into());
        let long = "x".repeat(100_000);
        let mut owners = many(|_| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"}));
        owners.push(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": long, "uid": long, "controller": true}));
        let mut volumes = many(
            |number| json!({"name": format!("v{number}"), "persistentVolumeClaim": {"claimName": format!("c{number}")}}),
        );
        volumes.insert(0, json!({"name": "long", "persistentVolumeClaim": {"claimName": long}}));
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "ns", "name": "p", "uid": "u", "labels": labels, "annotations": annotations,
                "ownerReferences": owners, "finalizers": many(|number| json!(format!("example.com/{number}"))),
                "managedFields": many(|_| json!({"manager": "m", "fieldsV1": {"f:metadata": {}}}))},
            "spec": {"containers": many(|_| json!({"name": "c", "env": [{"name": "A", "value": "<".repeat(30)}]})),
                "volumes": volumes, "tolerations": many(|_| json!({"key": "a"}))},
            "status": {"phase": "Failed", "conditions": many(|_| json!({"type": "Ready", "status": "False"}))}})
        .to_string();
        assert!(pod.len() > 8_000_000);
        let read: Pod = serde_json::from_str(&pod).unwrap();
        let kept = format!("{read:?}").len();
        assert!(kept < 500_000, "{kept} bytes, most of them three long names, while a page is read");
        let view = resident(&read);
        let kept = format!("{view:?}").len();
        assert!(kept < 32_000, "{kept} bytes, as long as its node is drained");
        assert!(view.mirror && view.finished && view.labels.contains_key(names::NODEOP));
        assert_eq!(view.controller.map(|owner| owner.kind).as_deref(), Some("ReplicaSet"));
        assert_eq!((view.claims.len(), view.finalizers.len()), (MAX_CLAIMS, 4));
    }

    #[test]
    fn who_tolerates_a_cordon_comes_back_to_a_cordoned_node() {
        let tolerates = |toleration: Value| {
            let pod =
                json!({"metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": [toleration]}});
            resident(&serde_json::from_value(pod).unwrap()).tolerates_cordon
        };
        let unschedulable = "node.kubernetes.io/unschedulable";
        for toleration in [
            json!({"operator": "Exists"}),
            json!({"operator": "Exists", "effect": "NoSchedule"}),
            json!({"key": unschedulable, "operator": "Exists", "effect": "NoSchedule"}),
            json!({"key": unschedulable}),
        ] {
            assert!(tolerates(toleration.clone()), "{toleration}");
        }
        for toleration in [
            json!({}),
            json!({"operator": "Exists", "effect": "NoExecute"}),
            json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists"}),
            json!({"key": unschedulable, "value": "x"}),
        ] {
            assert!(!tolerates(toleration.clone()), "{toleration}");
        }
    }
}
