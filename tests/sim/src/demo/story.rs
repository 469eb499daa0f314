//! What a NodeOp's status tells over time: who was taken when, what is waited for, how each node ended.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::Value;
use tokio::sync::mpsc;

/// One node, as far as the status told.
#[derive(Clone, Debug, Default)]
pub struct NodeStory {
    pub phase: String,
    pub message: String,
    pub started: Option<Duration>,
    pub ended: Option<Duration>,
}

impl NodeStory {
    /// How long it was in progress, up to `now` if it still is.
    pub fn time(&self, now: Duration) -> Option<Duration> {
        self.started.map(|started| self.ended.unwrap_or(now).saturating_sub(started))
    }
}

/// The story so far.
#[derive(Debug)]
pub struct Story {
    began: Instant,
    pub nodes: BTreeMap<String, NodeStory>,
    /// In which order nodes were taken.
    pub order: Vec<String>,
    pub phase: String,
    pub message: String,
}

impl Default for Story {
    fn default() -> Self {
        let (nodes, order) = Default::default();
        Self { began: Instant::now(), nodes, order, phase: String::new(), message: String::new() }
    }
}

impl Story {
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "Completed" | "Failed")
    }

    /// Takes the next version of the NodeOp.
    pub fn see(&mut self, op: &Value) {
        let now = self.elapsed();
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let status = &op["status"];
        for (name, entry) in status["nodeStatuses"].as_object().into_iter().flatten() {
            let node = self.nodes.entry(name.clone()).or_default();
            (node.phase, node.message) = (text(entry, "phase"), text(entry, "message"));
            if node.phase == "Running" && node.started.is_none() {
                node.started = Some(now);
                self.order.push(name.clone());
            }
            if matches!(node.phase.as_str(), "Completed" | "Failed") {
                node.ended.get_or_insert(now);
            }
        }
        (self.phase, self.message) = (text(status, "phase"), text(status, "message"));
    }
}

/// Versions of the NodeOp of a name, as they come.
pub fn follow(client: Client, name: String) -> mpsc::Receiver<Value> {
    let (sender, receiver) = mpsc::channel(64);
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("operator.kairos.io", "v1alpha1", "NodeOp"),
        "nodeops",
    );
    let api: Api<DynamicObject> = Api::default_namespaced_with(client, &kind);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(event) = events.next().await {
            let (Ok(Event::Apply(op)) | Ok(Event::InitApply(op))) = event else { continue };
            if op.name_any() == name
                && sender.send(serde_json::to_value(op).unwrap_or_default()).await.is_err()
            {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_is_kept_and_times_are_counted() {
        let mut story = Story::default();
        let op = |a: &str, b: &str, phase: &str| json!({"status": {"phase": phase, "message": "m", "nodeStatuses": {"a": {"phase": a, "message": "x"}, "b": {"phase": b}}}});
        story.see(&op("Pending", "Running", "Running"));
        story.see(&op("Running", "Completed", "Running"));
        assert_eq!((story.order.join(" "), story.is_over()), ("b a".into(), false));
        assert!(story.nodes["b"].ended.is_some() && story.nodes["a"].ended.is_none());
        story.see(&op("Failed", "Completed", "Failed"));
        assert!(story.is_over() && story.nodes["a"].time(Duration::MAX).is_some());
    }
}
