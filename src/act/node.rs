//! Changes of nodes: patches with a resourceVersion, never a PUT of a trimmed or older type.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::{Actor, about_node};
use crate::{
    api::{names, node::Node},
    observe::LiveObject,
    plan::model::{
        action::{ConditionChange, NodeChange},
        id::OpRef,
    },
};

/// The merge patch of a change: `null` removes an annotation.
fn patch(resource_version: &str, change: &NodeChange) -> Value {
    let NodeChange {
        unschedulable,
        cordoned_by,
        claimed_by,
        kept_cordon,
        labels,
        annotations: said,
        notice: _,
    } = change;
    let mut annotations = Map::new();
    let mut set = |name: &str, value: &Option<Option<OpRef>>| {
        if let Some(value) = value {
            annotations
                .insert(name.into(), value.as_ref().map_or(Value::Null, |of| Value::String(of.to_string())));
        }
    };
    set(names::CORDONED_BY, cordoned_by);
    set(names::CLAIMED_BY, claimed_by);
    annotations.extend(
        kept_cordon.iter().map(|kept| (names::CORDONED_BY.to_owned(), Value::String(kept.to_string()))),
    );
    let value = |(key, value): (&String, &Option<String>)| {
        (key.clone(), value.clone().map_or(Value::Null, Value::String))
    };
    annotations.extend(said.iter().map(value));
    let mut patch = json!({"metadata": {"resourceVersion": resource_version, "annotations": annotations}});
    if !labels.is_empty() {
        patch["metadata"]["labels"] = labels.iter().map(value).collect::<Map<String, Value>>().into();
    }
    if let Some(unschedulable) = unschedulable {
        // `false` is the field's absence, as kubectl uncordon leaves it.
        patch["spec"] =
            json!({"unschedulable": if *unschedulable { Value::Bool(true) } else { Value::Null }});
    }
    patch
}

/// The strategic merge patch of a change of conditions, which merges by their types and leaves others alone.
fn conditions(resource_version: &str, change: &ConditionChange, at: Timestamp) -> Value {
    let ConditionChange { set, remove } = change;
    let set = set.iter().map(|(condition, op)| {
        json!({"type": condition.kind(), "status": "True", "reason": condition.reason(),
            "message": condition.message(op), "lastTransitionTime": Time(at), "lastHeartbeatTime": Time(at)})
    });
    let remove = remove.iter().map(|condition| json!({"$patch": "delete", "type": condition.kind()}));
    let conditions: Vec<Value> = set.chain(remove).collect();
    json!({"metadata": {"resourceVersion": resource_version}, "status": {"conditions": conditions}})
}

impl Actor {
    pub(super) async fn patch_node_conditions(
        &self,
        name: &str,
        resource_version: &str,
        change: &ConditionChange,
        at: Timestamp,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let api = Api::<Node>::all(self.client.clone());
        let patch = Patch::Strategic(conditions(resource_version, change, at));
        let params = PatchParams { field_manager: Some(names::MANAGER.into()), ..PatchParams::default() };
        let node = self.write(api.patch_status(name, &params, &patch)).await?;
        Ok(vec![LiveObject::Node(Box::new(node))])
    }

    pub(super) async fn patch_node(
        &self,
        name: &str,
        resource_version: &str,
        change: &NodeChange,
    ) -> anyhow::Result<Vec<LiveObject>> {
        let api = Api::<Node>::all(self.client.clone());
        let patch = Patch::Merge(patch(resource_version, change));
        let params = PatchParams { field_manager: Some(names::MANAGER.into()), ..PatchParams::default() };
        let node = self.write(api.patch(name, &params, &patch)).await?;
        if let Some(notice) = &change.notice {
            self.say(&about_node(name), std::slice::from_ref(&**notice));
        }
        Ok(vec![LiveObject::Node(Box::new(node))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::model::{kept_cordon::KeptCordon, lifecycle::Lifecycle};

    #[test]
    fn one_patch_of_the_status_sets_and_removes_conditions_by_their_type() {
        let op = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        let change =
            ConditionChange { set: vec![(Lifecycle::Drained, op)], remove: vec![Lifecycle::Draining] };
        let at = "2026-11-28T02:00:07Z";
        let set = json!({"type": "Drained", "status": "True", "reason": "DrainCompleted",
            "message": "ns/op@u: the node is drained", "lastTransitionTime": at, "lastHeartbeatTime": at});
        assert_eq!(
            conditions("7", &change, at.parse().unwrap()),
            json!({"metadata": {"resourceVersion": "7"},
                   "status": {"conditions": [set, {"$patch": "delete", "type": "DrainInProgress"}]}})
        );
    }

    #[test]
    fn one_patch_sets_or_clears_cordon_and_annotations() {
        let me = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        let take = NodeChange {
            unschedulable: Some(true),
            cordoned_by: Some(Some(me.clone())),
            claimed_by: Some(Some(me)),
            ..NodeChange::default()
        };
        let text = "ns/op@u";
        assert_eq!(
            patch("7", &take),
            json!({"metadata": {"resourceVersion": "7", "annotations": {names::CORDONED_BY: text, names::CLAIMED_BY: text}},
                   "spec": {"unschedulable": true}})
        );
        let give = NodeChange {
            unschedulable: None,
            cordoned_by: None,
            claimed_by: Some(None),
            ..NodeChange::default()
        };
        assert_eq!(
            patch("8", &give),
            json!({"metadata": {"resourceVersion": "8", "annotations": {names::CLAIMED_BY: null}}})
        );
        let by = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        let keep = NodeChange {
            claimed_by: Some(None),
            kept_cordon: Some(KeptCordon { by, deleted: false }.into()),
            ..NodeChange::default()
        };
        let kept = json!({names::CLAIMED_BY: null, names::CORDONED_BY: "ns/op@u!failed"});
        assert_eq!(patch("9", &keep), json!({"metadata": {"resourceVersion": "9", "annotations": kept}}));
    }
}
