//! `ttlSecondsAfterFinished`: a NodeOp that is over is deleted, unless something would only create it
//! again, to run again.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::SignedDuration,
};

use crate::{
    api::{
        ended::ended,
        names,
        nodeop::{NodeOp, NodeOpStatus, Phase},
        owner,
    },
    plan::{
        model::{
            action::{Action, Notice},
            effects::Effects,
            id::OpRef,
            snapshot::Snapshot,
            time::later,
        },
        node::context::Op,
    },
};

/// Keys of annotations or labels by which those that keep objects as they are written somewhere know their
/// own, and whose they are. Each creates again what is missing: at once, at its next run, or, as k3s and k0s
/// with what lies in their directory of manifests, when it starts, which is after each reboot of a server.
const MARKS: [(&str, &str); 19] = [
    ("meta.helm.sh/release-name", "Helm"),
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    // Argo CD's own label where it tracks by labels, and one that charts set by convention.
    ("app.kubernetes.io/instance", "Argo CD or Helm"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("objectset.rio.cattle.io/id", "k3s, RKE2 or Rancher Fleet"),
    ("k0s.k0sproject.io/stack", "k0s"),
    ("addonmanager.kubernetes.io/mode", "the addon manager"),
    ("applyset.kubernetes.io/part-of", "an ApplySet"),
    ("config.k8s.io/owning-inventory", "kpt or Config Sync"),
    ("configsync.gke.io/resource-id", "Config Sync"),
    ("kapp.k14s.io/app", "kapp"),
    ("kluctl.io/discriminator", "Kluctl"),
    ("projectsveltos.io/reference-name", "Sveltos"),
    ("work.karmada.io/name", "Karmada"),
    ("crossplane.io/composition-resource-name", "Crossplane"),
    ("app.oam.dev/name", "KubeVela"),
    ("resources.gardener.cloud/origin", "Gardener"),
];

/// Who would create the object again if it were deleted: who has left a mark on it, who is named in
/// Kubernetes' own label for that, or the controller that it belongs to. Where that is not known, nobody is
/// believed to: `kubectl apply` leaves a mark, too, and most who use it create an operation once.
fn manager(meta: &ObjectMeta) -> Option<&str> {
    let maps = || [&meta.annotations, &meta.labels].into_iter().flatten();
    let mark =
        MARKS.into_iter().find_map(|(key, who)| maps().any(|map| map.contains_key(key)).then_some(who));
    mark.or_else(|| named(meta)).or_else(|| controlling(meta))
}

/// Who is named in `app.kubernetes.io/managed-by`, as Helm, Pulumi and Timoni do. Not us; nor kustomize,
/// which writes objects out, and whose label is in many a copied example.
fn named(meta: &ObjectMeta) -> Option<&str> {
    let who = meta.labels.as_ref()?.get(names::MANAGED_BY)?.as_str();
    let creates = !who.is_empty() && who != names::MANAGED_BY_UPGRADE && !who.starts_with("kustomize");
    creates.then_some(who)
}

/// The kind of the controller that the object belongs to: what is missing of its own a controller makes
/// again. Open Cluster Management's owner is one, too, though it does not say so. The NodeOp of a
/// NodeOpUpgrade is not made again, and those of earlier runs are not kept for ever.
fn controlling(meta: &ObjectMeta) -> Option<&str> {
    let applied = |owner: &&OwnerReference| {
        owner.kind == "AppliedManifestWork"
            && owner.api_version.starts_with("work.open-cluster-management.io/")
    };
    let owner = owner::controller(meta).or_else(|| meta.owner_references.iter().flatten().find(applied))?;
    owner::upgrade(meta).is_none().then_some(owner.kind.as_str())
}

/// Deletes a NodeOp that has been over for as long as it was to be kept, and of which nothing is left to do.
pub fn sweep(snapshot: &Snapshot, op: &Op) -> Effects {
    let ttl = op.object.spec.ttl_seconds_after_finished;
    let Some(ttl) = ttl.filter(|_| !op.deleting && manager(&op.object.metadata).is_none()) else {
        return Effects::default();
    };
    let over = op.object.status.as_ref().and_then(|status| ended(&status.conditions));
    let Some(over) = over else { return Effects::default() };
    // It counts over many leaders, or one that is followed each day would never end. But a clock that says it
    // was over in the future, or before the server made it, says nothing.
    let made = op.object.metadata.creation_timestamp.as_ref();
    let told = over <= snapshot.now && made.is_none_or(|made| made.0 <= over);
    let over = if told { over } else { snapshot.leading_since };
    let due = later(over, SignedDuration::from_secs(i64::from(ttl)));
    if snapshot.now < due {
        Effects::wake_at(due)
    } else {
        Action::DeleteOp { op: OpRef::of(&op.object) }.into()
    }
}

/// What is said of a NodeOp that is over now, and that would be deleted, but for whoever manages it.
pub fn notice(op: &NodeOp, new: &NodeOpStatus) -> Option<Notice> {
    let over = |status: &NodeOpStatus| status.phase.is_some_and(Phase::is_final);
    if op.spec.ttl_seconds_after_finished.is_none() || !over(new) || op.status.as_ref().is_some_and(over) {
        return None;
    }
    let who = manager(&op.metadata)?;
    let message = format!(
        "ttlSecondsAfterFinished is ignored: {who} manages this NodeOp, would create it again, and it would run again"
    );
    Some(Notice { warning: true, reason: "TTLIgnored", message, node: None })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::{fixtures::at, plan};

    /// Whether a NodeOp is deleted that was over at second 0 by somebody's clock; we lead since 10 s before.
    fn deleted(meta: Value, ttl: Option<i32>, phase: &str, now: i64) -> bool {
        deleted_of((0, -10), meta, ttl, phase, now)
    }

    /// Whether a NodeOp is deleted that was over, under a leader that began, at these seconds.
    fn deleted_of((over, leading): (i64, i64), meta: Value, ttl: Option<i32>, phase: &str, now: i64) -> bool {
        let mut metadata = json!({"name": "op", "namespace": "ns", "uid": "u"});
        metadata.as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        let over = json!({"type": "Complete", "status": "True", "reason": "Completed", "message": "", "lastTransitionTime": Time(at(over))});
        let conditions = if phase == "Completed" { vec![over] } else { vec![] };
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": metadata,
            "spec": {"command": [], "ttlSecondsAfterFinished": ttl},
            "status": {"phase": phase, "observedGeneration": 1, "conditions": conditions, "nodeStatuses": {"n1": {"phase": phase}}},
        }))
        .unwrap();
        let snapshot = Snapshot {
            now: at(now),
            leading_since: at(leading),
            ops: [(OpRef::of(&op).key(), Arc::new(op))].into(),
            ..Snapshot::default()
        };
        plan(&snapshot)
            .actions
            .iter()
            .any(|action| matches!(action, Action::DeleteOp { op } if op.uid == "u"))
    }

    #[test]
    fn a_nodeop_is_deleted_when_its_time_is_over_and_not_where_it_would_be_made_again() {
        let own = json!({});
        assert!(deleted(own.clone(), Some(60), "Completed", 60));
        assert!(!deleted(own.clone(), Some(60), "Completed", 59));
        assert!(!deleted(own.clone(), None, "Completed", 1_000_000));
        assert!(!deleted(own.clone(), Some(60), "Pending", 1_000_000));
        assert!(!deleted(own, Some(60), "Completed", -5), "by another clock it is over in the future");
        // By the clock of an earlier leader that was an hour wrong. The server made it at second 0.
        let made = json!({"creationTimestamp": Time(at(0))});
        for over in [-3600, 3600] {
            let deleted = |now| deleted_of((over, 10), made.clone(), Some(60), "Completed", now);
            assert_eq!((deleted(69), deleted(70)), (false, true), "{over}");
        }
        assert!(deleted_of((20, 1000), made, Some(60), "Completed", 1000), "many leaders may come and go");
        let held = json!({"finalizers": [names::FINALIZER]});
        assert!(!deleted(held, Some(60), "Completed", 60), "not before it is concluded");
    }

    /// Metadata as each of them writes it, and what is told of it. None has the label
    /// `app.kubernetes.io/instance`, which Helm does not set: the authors of charts may.
    #[test]
    fn what_somebody_would_create_again_stays() {
        let controller = |group: &str, kind: &str, controls: Option<bool>| json!({"ownerReferences": [{"apiVersion": group, "kind": kind, "name": "o", "uid": "o", "controller": controls}]});
        for (meta, who) in [
            (
                json!({"labels": {"app.kubernetes.io/managed-by": "Helm"},
                    "annotations": {"meta.helm.sh/release-name": "fleet", "meta.helm.sh/release-namespace": "default"}}),
                "Helm",
            ),
            (
                json!({"annotations": {"argocd.argoproj.io/tracking-id": "ops:operator.kairos.io/NodeOp:ns/op"}}),
                "Argo CD",
            ),
            (json!({"labels": {"argocd.argoproj.io/instance": "ops"}}), "Argo CD"),
            (json!({"labels": {"app.kubernetes.io/instance": "ops"}}), "Argo CD or Helm"),
            (
                json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "ops", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}}),
                "Flux",
            ),
            (
                json!({"annotations": {"objectset.rio.cattle.io/id": "", "objectset.rio.cattle.io/owner-gvk": "k3s.cattle.io/v1, Kind=Addon",
                    "objectset.rio.cattle.io/owner-name": "ops", "objectset.rio.cattle.io/owner-namespace": "kube-system"}}),
                "k3s, RKE2 or Rancher Fleet",
            ),
            (json!({"labels": {"k0s.k0sproject.io/stack": "ops"}}), "k0s"),
            (json!({"labels": {"addonmanager.kubernetes.io/mode": "EnsureExists"}}), "the addon manager"),
            (json!({"labels": {"applyset.kubernetes.io/part-of": "applyset-x-v1"}}), "an ApplySet"),
            (
                json!({"labels": {"app.kubernetes.io/managed-by": "configmanagement.gke.io"},
                    "annotations": {"configmanagement.gke.io/managed": "enabled", "configsync.gke.io/resource-id": "operator.kairos.io_nodeop_ns_op"}}),
                "Config Sync",
            ),
            (
                json!({"labels": {"kapp.k14s.io/app": "1654770079912481700", "kapp.k14s.io/association": "v1.f7"}}),
                "kapp",
            ),
            (json!({"labels": {"app.kubernetes.io/managed-by": "pulumi"}}), "pulumi"),
            (controller("example.com/v1", "Fleet", Some(true)), "Fleet"),
            (
                controller("work.open-cluster-management.io/v1", "AppliedManifestWork", None),
                "AppliedManifestWork",
            ),
        ] {
            assert!(!deleted(meta.clone(), Some(60), "Completed", 1_000_000), "{meta}");
            let mut op: NodeOp =
                serde_json::from_value(json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
                "metadata": meta, "spec": {"command": [], "ttlSecondsAfterFinished": 60}}))
                .unwrap();
            op.metadata.name = Some("op".into());
            let over = NodeOpStatus { phase: Some(Phase::Completed), ..NodeOpStatus::default() };
            let said = notice(&op, &over).unwrap().message;
            let says = format!("ttlSecondsAfterFinished is ignored: {who} manages this NodeOp, would");
            assert!(said.starts_with(&says), "{said}");
        }
        for meta in [
            json!({"labels": {"app.kubernetes.io/managed-by": "kustomize", "app.kubernetes.io/name": "op"}}),
            json!({"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}),
            controller("v1", "ConfigMap", None),
            controller("operator.kairos.io/v1alpha1", "NodeOpUpgrade", Some(true)),
        ] {
            assert!(deleted(meta.clone(), Some(60), "Completed", 60), "{meta}");
        }
    }
}
