//! What a NodeOp's status tells over time: who was taken when, what is waited for, how each node ended.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    pub step: String,
    pub message: String,
    pub started: Option<Duration>,
    pub ended: Option<Duration>,
}

impl NodeStory {
    /// How long it was in hand, up to `now` if it still is.
    pub fn time(&self, now: Duration) -> Option<Duration> {
        self.started.map(|started| self.ended.unwrap_or(now).saturating_sub(started))
    }
}

/// The story so far.
#[derive(Debug)]
pub struct Story {
    began: Instant,
    pub control_planes: BTreeSet<String>,
    pub nodes: BTreeMap<String, NodeStory>,
    /// In which order nodes were taken in hand.
    pub order: Vec<String>,
    pub phase: String,
    pub message: String,
}

impl Story {
    pub fn new(control_planes: BTreeSet<String>) -> Self {
        let (nodes, order) = Default::default();
        Self {
            began: Instant::now(),
            control_planes,
            nodes,
            order,
            phase: String::new(),
            message: String::new(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "Completed" | "Failed")
    }

    /// How many nodes are finished, and of how many.
    pub fn done(&self) -> (usize, usize) {
        (self.nodes.values().filter(|node| node.ended.is_some()).count(), self.nodes.len())
    }

    /// Takes the next version of the NodeOp; returns a line for everything that changed.
    pub fn see(&mut self, op: &Value) -> Vec<String> {
        let now = self.elapsed();
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let status = &op["status"];
        let mut lines = Vec::new();
        let first = self.nodes.is_empty();
        for (name, entry) in status["nodeStatuses"].as_object().into_iter().flatten() {
            let node = self.nodes.entry(name.clone()).or_default();
            let next = (text(entry, "phase"), text(entry, "step"), text(entry, "message"));
            if next.0 == "Running" && node.started.is_none() {
                node.started = Some(now);
                self.order.push(name.clone());
            }
            if matches!(next.0.as_str(), "Completed" | "Failed") {
                node.ended.get_or_insert(now);
            }
            if next != (node.phase.clone(), node.step.clone(), node.message.clone()) {
                (node.phase, node.step, node.message) = next;
                lines.push(format!(
                    "{:6.1}s  {name}  {:<9} {:<8} {}",
                    now.as_secs_f64(),
                    node.phase,
                    node.step,
                    node.message
                ));
            }
        }
        if first && !self.nodes.is_empty() {
            let matched: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
            lines.insert(0, format!("{:6.1}s  it is about {}", now.as_secs_f64(), matched.join(", ")));
        }
        let next = (text(status, "phase"), text(status, "message"));
        if !next.0.is_empty() && next.0 != self.phase {
            lines.push(format!("{:6.1}s  {} {}", now.as_secs_f64(), next.0, next.1));
        }
        (self.phase, self.message) = next;
        lines
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
    fn each_change_is_told_once_and_the_order_is_kept() {
        let mut story = Story::new(BTreeSet::new());
        let op = |a: &str, b: &str, phase: &str| json!({"status": {"phase": phase, "message": "m", "nodeStatuses": {"a": {"phase": a, "message": "x"}, "b": {"phase": b}}}});
        assert_eq!(story.see(&op("Pending", "Running", "Running")).len(), 4);
        assert_eq!(story.see(&op("Pending", "Running", "Running")), Vec::<String>::new());
        assert_eq!(story.see(&op("Running", "Completed", "Running")).len(), 2);
        assert_eq!((story.order.join(" "), story.done(), story.is_over()), ("b a".into(), (1, 2), false));
        story.see(&op("Failed", "Completed", "Failed"));
        assert!(story.is_over() && story.nodes["a"].time(Duration::MAX).is_some());
    }
}
