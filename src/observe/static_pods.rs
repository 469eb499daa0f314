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

/// The label by which such a pod says what it is.
const COMPONENT: &str = "component";

/// Where the control plane of a node stands that has these; elsewhere than on such clusters it has none.
pub fn answer<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Answer {
    let pods: Vec<&Pod> = pods.into_iter().collect();
    let not_ready: Vec<String> = pods.iter().filter(|pod| !is_ready(pod)).map(|pod| pod.name_any()).collect();
    match not_ready.is_empty() {
        true if pods.is_empty() => Answer::NotFound,
        true => {
            let mut components: Vec<String> =
                pods.iter().filter_map(|pod| pod.labels().get(COMPONENT).cloned()).collect();
            components.sort();
            Answer::Components(components)
        }
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
            let component = name.strip_suffix("-n1").unwrap();
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"component": component}},
                "status": {"conditions": conditions}
            }))
            .unwrap()
        };
        assert_eq!(answer(&[]), Answer::NotFound, "none is run as a pod");
        assert_eq!(
            answer(&[pod("kube-apiserver-n1", "True"), pod("etcd-n1", "True")]),
            Answer::Components(vec!["etcd".into(), "kube-apiserver".into()])
        );
        assert_eq!(
            answer(&[pod("etcd-n1", "False"), pod("kube-apiserver-n1", "True")]),
            Answer::NotReady(vec!["etcd-n1".into()])
        );
    }
}
