//! What a drain would do to the pods of a node, and which budget would block it: the planner's own decisions,
//! and the API server's word for each, by evictions that are a dry run.

use std::time::Duration;

use k8s_openapi::{api::core::v1 as core, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, EvictParams, ListParams, PostParams},
};
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::{
    connection::Connection,
    failure::{self, Doing, Failure, Result},
};
use crate::{
    api::{
        error_text::{NotEvicted, not_evicted, refusal},
        names,
        pod::Pod,
    },
    observe::view,
    plan::{
        model::{intent::DrainIntent, snapshot::NodePod},
        node::drain::{EvictionDecision, decide},
    },
};

/// Between two dry runs: ten in a second are no burden to any API server.
const PAUSE: Duration = Duration::from_millis(100);

/// A drain of one node, as it would go now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainPreview {
    /// Pods that would be evicted.
    pub evicted: Vec<String>,
    /// Pods whose eviction is refused now.
    pub blocked: Vec<PodReason>,
    /// Pods that are ending already, and are waited for.
    pub ending: Vec<String>,
    /// Pods that stay.
    pub left: Vec<PodReason>,
    /// Pods for which the drain is not begun at all.
    pub refused: Vec<PodReason>,
    /// Why the API server was not asked, if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_tried: Option<String>,
}

/// A pod, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodReason {
    pub pod: String,
    pub reason: String,
}

impl DrainPreview {
    /// Whether it would not come to its end as things stand.
    pub fn is_blocked(&self) -> bool {
        !self.blocked.is_empty() || !self.refused.is_empty()
    }
}

/// Tries drains of one node after the other.
pub struct Rehearsal {
    client: Client,
    pace: Interval,
    now: Timestamp,
}

impl Rehearsal {
    pub fn new(connection: &Connection, now: Timestamp) -> Self {
        let mut pace = interval(PAUSE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { client: connection.client.clone(), pace, now }
    }

    /// Tries the drain of a node.
    pub async fn node(&mut self, node: &str, options: &DrainIntent) -> Result<DrainPreview> {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = match Api::<Pod>::all(self.client.clone()).list(&on_node).await {
            Err(error) if failure::is_forbidden(&error) => {
                let not_tried = Some("you may not list pods of all namespaces".into());
                return Ok(DrainPreview { not_tried, ..DrainPreview::default() });
            }
            pods => pods.doing(|| format!("listing the pods of node {node}"))?.items,
        };
        let mut preview = DrainPreview::default();
        for object in &pods {
            let pod = view::resident(object);
            let reason = |reason: &str| PodReason { pod: pod.path(), reason: reason.into() };
            match decide((&pod, pod.ends_by), options, is_ours(object, &pod), true, self.now) {
                EvictionDecision::Evict => self.evict(object, &pod, &mut preview).await?,
                EvictionDecision::AwaitDeletion => preview.ending.push(pod.path()),
                EvictionDecision::Skip(why) => preview.left.push(reason(why)),
                EvictionDecision::Refuse(why) => preview.refused.push(reason(why)),
            }
        }
        Ok(preview)
    }

    /// Asks the API server, unless its answer is known: no budget counts a pod that does not run yet.
    async fn evict(&mut self, object: &Pod, pod: &NodePod, preview: &mut DrainPreview) -> Result<()> {
        let pending = object.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending");
        if pending || preview.not_tried.is_some() {
            preview.evicted.push(pod.path());
            return Ok(());
        }
        self.pace.tick().await;
        let api = Api::<core::Pod>::namespaced(self.client.clone(), &pod.namespace);
        let params = EvictParams {
            delete_options: Some(DeleteParams { dry_run: true, ..DeleteParams::default() }),
            post_options: PostParams { dry_run: true, ..PostParams::default() },
        };
        match api.evict(&pod.name, &params).await {
            Ok(_) => preview.evicted.push(pod.path()),
            Err(error) if failure::lacks_right(&error) => {
                preview.not_tried = Some("you may not create pods/eviction".into());
                preview.evicted.push(pod.path());
            }
            Err(kube::Error::Api(status)) => match not_evicted(&status) {
                Some(NotEvicted::Gone | NotEvicted::Changed) => {}
                Some(
                    NotEvicted::Budget | NotEvicted::Budgets | NotEvicted::Forbidden | NotEvicted::Denied,
                ) => preview.blocked.push(PodReason { pod: pod.path(), reason: refusal(&status) }),
                // A webhook that does not answer, for one: the operator would try again, and so is held up.
                None if status.code == 500 => {
                    preview.blocked.push(PodReason { pod: pod.path(), reason: refusal(&status) })
                }
                None => return Err(failed(pod, &kube::Error::Api(status))),
            },
            Err(error) => return Err(failed(pod, &error)),
        }
        Ok(())
    }
}

fn failed(pod: &NodePod, error: &kube::Error) -> Failure {
    failure::of_request(&format!("trying to evict pod {}", pod.path()), error)
}

/// Whether the pod belongs to an operation. The planner looks at the Job's owner; here its label will do.
fn is_ours(object: &Pod, pod: &NodePod) -> bool {
    let owner = pod.controller.as_ref();
    owner.is_some_and(|owner| {
        owner.is_nodeop() || (owner.is_job() && object.labels().contains_key(names::NODEOP))
    })
}
