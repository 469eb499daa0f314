//! The end of a story: who came when, what it took, and whether everything that was promised is true.

use std::collections::BTreeMap;

use kairos_sim::{Node, kairos};
use serde_json::Value;

use super::{
    stage::{AHEAD, BROKEN, Plot, Stage},
    story::Story,
};

/// A table of all nodes of the story.
pub fn table(stage: &Stage, story: &Story) -> String {
    let evictions = evictions(stage);
    let mut text = format!(
        "\n  {:<5} {:<5} {:<10} {:>7}  {:>7}  {:>7}\n",
        "order", "node", "result", "time", "reboots", "evicted"
    );
    let place = |name: &String| story.order.iter().position(|n| n == name);
    let mut names: Vec<&String> = story.nodes.keys().collect();
    names.sort_by_key(|name| (place(name).unwrap_or(usize::MAX), *name));
    for name in names {
        let node = &story.nodes[name];
        let order = place(name).map_or_else(|| "-".into(), |at| (at + 1).to_string());
        let result = if is_skipped(&node.message) { "skipped" } else { &node.phase };
        let time = node
            .time(story.elapsed())
            .map_or_else(|| "-".into(), |time| format!("{:.1} s", time.as_secs_f64()));
        let evicted = evictions.get(name).copied().unwrap_or_default();
        text += &format!(
            "  {order:<5} {name:<5} {result:<10} {time:>7}  {:>7}  {evicted:>7}\n",
            reboots(stage.cluster.node(name)),
        );
    }
    let all: usize = stage.cluster.nodes().map(reboots).sum();
    let skipped = story.nodes.values().filter(|node| is_skipped(&node.message)).count();
    text += &format!(
        "\n  {} in {:.1} s: {}, {}, {skipped} skipped",
        story.phase,
        story.elapsed().as_secs_f64(),
        counted(all, "reboot"),
        counted(evictions.values().sum(), "eviction"),
    );
    text
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn is_skipped(message: &str) -> bool {
    message.starts_with("Skipped by preflight")
}

fn reboots(node: &Node) -> usize {
    node.boots().len() - 1
}

/// Evictions that were granted, by node: the pods are gone, but the cluster's history knows where they were.
fn evictions(stage: &Stage) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for change in stage.cluster.history() {
        if let ("pods", Some(node)) = (change.key.table.as_ref(), change.object["spec"]["nodeName"].as_str())
        {
            places.insert((change.key.namespace.clone(), change.key.name.clone()), node.to_owned());
        }
    }
    let mut counts = BTreeMap::new();
    for request in stage.cluster.requests() {
        if request.verb == "create" && request.resource == "pods/eviction" && request.code < 300 {
            let node = places.get(&(request.namespace, request.name)).cloned().unwrap_or_default();
            *counts.entry(node).or_default() += 1;
        }
    }
    counts
}

/// What was promised and is not so.
pub fn broken_promises(stage: &Stage, story: &Story) -> Vec<String> {
    let mut broken = Vec::new();
    let mut promise = |kept: bool, words: String| {
        if !kept {
            broken.push(words);
        }
    };
    let expected = if stage.plot == Plot::BrokenCanary { "Failed" } else { "Completed" };
    promise(
        story.phase == expected,
        format!("the operation is {}, not {expected}: {}", story.phase, story.message),
    );
    for (name, node) in &story.nodes {
        let on_stage = stage.cluster.node(name);
        let boots = if node.started.is_some() { 1 } else { 0 };
        promise(
            reboots(on_stage) == boots,
            format!("{name} rebooted {} times, not {boots}", reboots(on_stage)),
        );
        if stage.plot != Plot::NodeOp {
            let calls = kairos::agent_calls(&on_stage.disk()).len();
            promise(calls == boots, format!("kairos-agent ran {calls} times on {name}, not {boots}"));
        }
        let failed = stage.plot == Plot::BrokenCanary && name == BROKEN;
        promise(
            cordoned(stage, name) == failed,
            format!("{name} is {}cordoned", if failed { "not " } else { "" }),
        );
    }
    if stage.plot != Plot::NodeOp {
        let skipped = story.nodes.get(AHEAD).is_some_and(|node| is_skipped(&node.message));
        promise(skipped, format!("{AHEAD} was not skipped"));
    }
    if stage.plot == Plot::BrokenCanary {
        let failed = story.nodes.get(BROKEN).cloned().unwrap_or_default();
        let named = ["v3.4.1", "v3.4.2", "passive"].iter().all(|word| failed.message.contains(word));
        promise(
            failed.phase == "Failed" && named,
            format!("{BROKEN} did not fail with both releases named: {}", failed.message),
        );
        let untouched = ["n4", "n5"]
            .iter()
            .all(|name| story.nodes.get(*name).is_some_and(|node| node.phase == "Pending"));
        promise(untouched, "the canary went on after a failure".into());
    }
    broken
}

fn cordoned(stage: &Stage, name: &str) -> bool {
    let node = stage.cluster.get("nodes", "", name);
    node.is_some_and(|node| node["spec"]["unschedulable"] == Value::Bool(true))
}

/// What there was to see.
pub fn moral(stage: &Stage, story: &Story) -> String {
    let last = story.order.last().cloned().unwrap_or_default();
    match stage.plot {
        Plot::NodeOp => "  Each node ran the command once and booted once, and none is cordoned.".into(),
        Plot::Canary => format!(
            "  Each node booted once and proved its release; {AHEAD} had it already; none is cordoned."
        ),
        Plot::BrokenCanary => {
            format!(
                "  {last} fell back to its old image. It stays cordoned for you to look at, and the nodes after it were left alone."
            )
        }
    }
}
