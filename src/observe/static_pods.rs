//! The static pods of a control plane, where it is run by such: kubeadm's clusters, and those that build on it.

use kube::ResourceExt;

use crate::{api::pod::Pod, plan::model::question::Answer};

/// Their namespace.
pub const NAMESPACE: &str = "kube-system";
/// The labels of those that a node's place in the control plane depends on.
pub const LABELS: &str = "tier=control-plane,component in (etcd,kube-apiserver)";

/// Whether the pod is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Where the control plane of a node stands that has these; elsewhere than on such clusters it has none.
pub fn answer<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Answer {
    let pods: Vec<&Pod> = pods.into_iter().collect();
    let not_ready: Vec<String> = pods.iter().filter(|pod| !is_ready(pod)).map(|pod| pod.name_any()).collect();
    match not_ready.is_empty() {
        true if pods.is_empty() => Answer::NotFound,
        true => Answer::Found,
        false => Answer::NotReady(not_ready),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_control_plane_stands_if_all_its_pods_are_ready() {
        let pod = |name: &str, ready: &str| -> Pod {
            let conditions: Value = json!([{"type": "Ready", "status": ready}]);
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"conditions": conditions}}))
                .unwrap()
        };
        assert_eq!(answer(&[]), Answer::NotFound, "none is run as a pod");
        assert_eq!(answer(&[pod("etcd-n1", "True"), pod("kube-apiserver-n1", "True")]), Answer::Found);
        assert_eq!(
            answer(&[pod("etcd-n1", "False"), pod("kube-apiserver-n1", "True")]),
            Answer::NotReady(vec!["etcd-n1".into()])
        );
    }
}
