//! Any pod of a node that is drained, as the drain sees it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};

use super::{
    Observer,
    view::{self, annotation, created, phase, text},
};
use crate::{
    api::{
        names,
        owner::Owner,
        pod::{Pod, Toleration, Volume},
    },
    plan::model::{id::Key, snapshot::NodePod},
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
    let (ends_by, grace_seconds, finalizers) = end(meta);
    NodePod {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        labels: meta.labels.clone().unwrap_or_default(),
        created: created(meta),
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
        ends_by,
        grace_seconds,
        finalizers,
    }
}

/// Until when a pod that is being deleted may take, how many seconds that is, and what holds it afterwards.
fn end(meta: &ObjectMeta) -> (Option<Timestamp>, i64, Vec<String>) {
    let until = meta.deletion_timestamp.as_ref().map(|time| time.0);
    let seconds = meta.deletion_grace_period_seconds.unwrap_or(0);
    (until, seconds, meta.finalizers.clone().unwrap_or_default())
}

impl Observer {
    /// Takes what a live read found of a pod that is seen on a node that is drained: it is not there any
    /// more, or this stands there of it. A view that is older would have it evicted again and again.
    pub fn read_resident(&self, node: &str, key: &Key, uid: &str, found: Option<&ObjectMeta>) {
        let changed = {
            let mut caches = self.lock();
            let Some(pods) = caches.drained_pods.get_mut(node) else { return };
            let seen = pods.get(key).filter(|pod| pod.uid == uid).cloned();
            match found.zip(seen) {
                Some((meta, pod)) => {
                    let (ends_by, grace_seconds, finalizers) = end(meta);
                    let pod = NodePod { ends_by, grace_seconds, finalizers, ..pod };
                    pods.apply(view::version(meta), pod)
                }
                None if found.is_none() => pods.remove(key, Some(uid), None),
                None => false,
            }
        };
        if changed {
            self.tell();
        }
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

    /// Its watch is broken, and the eviction that was planned reads the pod first.
    #[test]
    fn what_is_read_before_an_eviction_is_seen_by_the_next_plan() {
        let observer = Observer::default();
        let pod = |uid: &str, version: &str, deleting: Value| {
            let meta = json!({"name": "p", "namespace": "ns", "uid": uid, "resourceVersion": version,
                "deletionTimestamp": deleting, "deletionGracePeriodSeconds": 30, "finalizers": ["example.com/f"]});
            serde_json::from_value::<Pod>(json!({"metadata": meta})).unwrap()
        };
        let first = pod("u", "7", Value::Null);
        let key = ("ns".to_owned(), "p".to_owned());
        observer.lock().drained_pods.insert("n1".into(), <_>::default());
        let cached = |observer: &Observer| observer.lock().drained_pods["n1"].get(&key).cloned();
        let shows = |pod: &Pod| {
            let mut caches = observer.lock();
            let pods = caches.drained_pods.get_mut("n1").unwrap();
            pods.apply(view::version(&pod.metadata), resident(pod))
        };
        assert!(shows(&first));
        let ends = pod("u", "9", "2026-11-30T00:00:00Z".into());
        for (node, uid) in [("n2", "u"), ("n1", "another")] {
            observer.read_resident(node, &key, uid, Some(&ends.metadata));
            observer.read_resident(node, &key, uid, None);
            assert_eq!(cached(&observer), Some(resident(&first)), "{node} {uid}");
        }
        observer.read_resident("n1", &key, "u", Some(&ends.metadata));
        let seen = cached(&observer).unwrap();
        assert_eq!(seen, resident(&ends));
        assert!(!shows(&first), "nor does a late watch go back");
        observer.read_resident("n1", &key, "u", None);
        assert_eq!(cached(&observer), None);
        assert!(!shows(&ends));
    }
}
