//! Any pod of a node that is drained, as the drain sees it.

use super::view::{annotation, created, phase, text};
use crate::{
    api::{
        owner::Owner,
        pod::{Pod, Toleration, Volume},
    },
    plan::model::snapshot::NodePod,
};

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
        mirror: annotation(meta, "kubernetes.io/config.mirror").is_some(),
        tolerates_cordon: tolerations.into_iter().flatten().any(tolerates_cordon),
        local_storage: volumes.into_iter().flatten().any(|volume| volume.empty_dir.is_some()),
        claims: volumes.into_iter().flatten().filter_map(|volume| claim(pod, volume)).collect(),
        finalizers: meta.finalizers.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
