//! What holds once nothing goes wrong any more and all has come to rest.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use kairos_operator::{
    api::{
        names,
        nodeop::{NodeOp, Phase},
    },
    plan::model::kept_cordon::KeptCordon,
};
use kairos_sim::{Change, Cluster, store::Object};
use serde_json::Value;

use super::{
    CLAIMED_BY, CORDONED_BY, OPS, UPGRADES,
    admission::selects,
    balancers,
    drains::said,
    hints::annotation,
    runs::{are_decided, goes_on},
    text,
};
use crate::chaos::{
    scenario::{Mode, Scenario},
    world::{Event, World},
    worlds::{self, Kind},
};

const ACCOUNTS: [&str; 3] =
    ["serviceaccounts", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"];

/// Whether every operation has ended and holds nothing any more.
pub fn is_over(cluster: &Cluster, world: &World, scenario: &Scenario) -> bool {
    // A machine that is away for long may be what somebody waits for, and so may one of which nothing is known.
    let boots = || world.nodes.values().any(|node| !node.boot().up && !node.is_scrapped());
    let joins = || boots() || is_read_soon(cluster, world);
    let ended = |object: &Value| {
        let phase = object["status"]["phase"].as_str();
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        // One that no node matches waits for the first, and holds nothing.
        let empty = phase == Some("Pending") && object["status"]["nodeStatuses"].is_null() && !joins();
        (empty || matches!(phase, Some("Completed" | "Failed"))) && !held
    };
    let arrived = scenario.wishes.iter().all(|wish| world.fates(&wish.name, |fates| fates.arrived));
    let claimed = cluster.list("nodes").iter().any(|node| !text(node, CLAIMED_BY).is_empty());
    arrived
        && !claimed
        && !world.is_busy()
        && are_decided(cluster)
        && !(world.is(Kind::Continuous) && (goes_on(cluster) || joins()))
        && cluster.list(OPS).iter().chain(&cluster.list(UPGRADES)).all(|object| ended(object))
}

/// What is open, in words.
pub fn open(cluster: &Cluster) -> String {
    let mut open = Vec::new();
    for op in cluster.list(OPS).iter().chain(&cluster.list(UPGRADES)) {
        if matches!(op["status"]["phase"].as_str(), Some("Completed" | "Failed"))
            && op["metadata"]["finalizers"].is_null()
        {
            continue;
        }
        let entries = op["status"]["nodeStatuses"].as_object().cloned().unwrap_or_default();
        let entries = entries.iter().filter(|(_, e)| {
            !matches!(e["phase"].as_str(), Some("Completed" | "Failed")) || !e["nodeUid"].is_null()
        });
        let entries: Vec<String> = entries.map(|(node, e)| format!("{node}: {e}")).collect();
        open.push(format!(
            "{} {} finalizers {} {entries:?}",
            op["metadata"]["name"], op["status"]["phase"], op["metadata"]["finalizers"]
        ));
    }
    open.join("; ")
}

/// Ours, and to be cleared away by us. A pod that was told to end on a node that went away ends with the
/// Node.
fn ours(object: &Value) -> bool {
    let node = text(object, "/spec/nodeName");
    let lost = node.starts_with("dead-") && !text(object, "/metadata/deletionTimestamp").is_empty();
    worlds::is_ours(object) && !lost
}

/// A facts pod on a node that never starts one: each is given up after its time, and another one is made
/// later.
fn is_tried_for_ever(pod: &Value, world: &World) -> bool {
    let node = text(pod, "/spec/nodeName");
    let never = |node: &str| {
        world.nodes.contains_key(node) && world.machine(node, |machine| machine.no_sandbox || machine.bad)
    };
    pod["metadata"]["labels"]["app"] == "kairos-node-labeler" && never(node)
}

/// Nothing is left but what is meant to stay.
pub fn check_rest(cluster: &Cluster, world: &World, scenario: &Scenario, broken: &mut Vec<String>) {
    // Of two that both lead one may grant what the other has just taken back; it goes with the NodeOp.
    for table in ACCOUNTS.into_iter().filter(|_| scenario.mode != Mode::Rivals) {
        let left = cluster.list(table).into_iter().filter(|object| ours(object));
        broken.extend(left.map(|object| format!("at rest: {table} {} is left", object["metadata"]["name"])));
    }
    for pod in cluster.list("pods").iter().filter(|pod| ours(pod)) {
        if !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") && !is_tried_for_ever(pod, world) {
            broken.push(format!(
                "at rest: pod {} is left: {}",
                pod["metadata"]["name"], pod["status"]["phase"]
            ));
        }
    }
    for job in cluster.list("jobs.batch") {
        let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
        let over = conditions
            .into_iter()
            .flatten()
            .any(|c| matches!(c["type"].as_str(), Some("Complete" | "Failed")));
        if !over {
            broken.push(format!("at rest: Job {} is left", job["metadata"]["name"]));
        }
    }
    for op in cluster
        .list(OPS)
        .iter()
        .filter(|op| op["status"]["nodeStatuses"].as_object().is_none_or(serde_json::Map::is_empty))
        .filter(|op| !is_superseded(op))
    {
        check_waiting(cluster, op, broken);
    }
    for node in cluster.list("nodes") {
        let name = text(&node, "/metadata/name");
        if !text(&node, CLAIMED_BY).is_empty() {
            broken.push(format!("at rest: {name} is claimed by {}", text(&node, CLAIMED_BY)));
        }
        broken.extend(said(&node).into_iter().map(|said| format!("at rest: {name} still says {said}")));
        broken.extend(balancers::left(&node).map(|left| format!("at rest: {left}")));
        if let Some(hints) =
            annotation(&node, names::AUTOSCALER_HINTS).filter(|_| !balancers::is_kept_off(&node))
        {
            broken.push(format!("at rest: {name} has hints to autoscalers of ours: {hints}"));
        }
        let (unschedulable, mark) = (node["spec"]["unschedulable"] == true, text(&node, CORDONED_BY));
        if !unschedulable && !mark.is_empty() {
            broken.push(format!("at rest: {name} keeps a stale mark"));
        }
        // A store that went back may have brought back a human's cordon, which that human had lifted.
        let restored = mark.is_empty() && world.is(Kind::StoreBack);
        if unschedulable && !is_human(world, name) && !restored && !keeps(cluster, name, mark) {
            broken.push(format!("at rest: {name} is left cordoned by {mark:?}"));
        }
    }
}

/// Whether it is about to be known what a node runs.
fn is_read_soon(cluster: &Cluster, world: &World) -> bool {
    let never = |name: &str| {
        let room = world.nodes.get(name).is_none_or(|node| node.room().is_some());
        room || world.machine(name, |machine| machine.no_sandbox || machine.bad)
    };
    let ready = |node: &Object| {
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let nodes = cluster.list("nodes");
    nodes.iter().any(|node| ready(node) && is_unread(node) && !never(text(node, "/metadata/name")))
}

/// Whether what the node runs in its present boot has not been read.
fn is_unread(node: &Object) -> bool {
    let read = text(node, "/metadata/annotations/operator.kairos.io~1facts-of");
    !read.starts_with(text(node, "/status/nodeInfo/bootID"))
}

/// Whether another run was asked for before this one had a node.
fn is_superseded(op: &Value) -> bool {
    let conditions = op.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Failed" && one["reason"] == "Superseded")
}

/// An operation without a node waits for the first that matches, and says so.
fn check_waiting(cluster: &Cluster, op: &Value, broken: &mut Vec<String>) {
    let name = text(op, "/metadata/name");
    let matches = |node: &Object| selects(&op["spec"]["nodeSelector"], &node["metadata"]["labels"]);
    // Where a node never makes a sandbox its facts are never read, and a selector by them is not evaluated.
    let waits_for_facts = text(op, "/status/message").starts_with("waiting: the facts of");
    if waits_for_facts && op["status"]["phase"] == "Pending" && cluster.list("nodes").iter().any(is_unread) {
        return;
    }
    if let Some(node) = cluster.list("nodes").into_iter().find(|node| matches(node)) {
        broken.push(format!(
            "at rest: {name} is about no node, and {} matches: {}",
            node["metadata"]["name"], op["status"]["message"]
        ));
    }
    let conditions = op.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let reason = conditions.filter(|c| c["type"] == "Progressing").find_map(|c| c["reason"].as_str());
    if op["status"]["phase"] != "Pending" || reason != Some("NoNodes") {
        broken.push(format!(
            "at rest: {name}, which no node matches, is {}: {reason:?}",
            op["status"]["phase"]
        ));
    }
}

fn is_human(world: &World, node: &str) -> bool {
    let last = world
        .book()
        .into_iter()
        .rev()
        .find(|record| record.node == node && matches!(record.event, Event::Human { .. }));
    last.is_some_and(|record| record.event == Event::Human { cordoned: true })
}

/// A node that failed after its operation had been let go stays cordoned for a human to look at, also when
/// the NodeOp is gone; that has been told then.
fn keeps(cluster: &Cluster, node: &str, mark: &str) -> bool {
    let Ok(kept) = mark.parse::<KeptCordon>() else { return false };
    let there = cluster.list(OPS).iter().any(|op| text(op, "/metadata/uid") == kept.by.uid);
    let history = cluster.history();
    let last = history
        .iter()
        .rev()
        .find(|c| c.key.table.as_ref() == OPS && text(&c.object, "/metadata/uid") == kept.by.uid);
    let Some(op) = last.and_then(|change| serde_json::from_value::<NodeOp>((*change.object).clone()).ok())
    else {
        return false;
    };
    let entry = op.status.as_ref().and_then(|status| status.node_statuses.get(node));
    let failed = entry.is_some_and(|entry| entry.phase == Phase::Failed && entry.job_name.is_some());
    failed && !op.spec.uncordon_on_failure.unwrap_or(false) && kept.deleted != there
}

/// After the operations were deleted nothing tells that they ever were, but for the cordons of nodes that
/// failed.
pub fn check_gone(cluster: &Cluster, world: &World, broken: &mut Vec<String>) {
    for table in ACCOUNTS.into_iter().chain(["pods", "jobs.batch", OPS, UPGRADES]) {
        // A facts pod that failed is the memory of that, as long as its node is there.
        let memory = |object: &Value| {
            object["metadata"]["labels"]["app"] == "kairos-node-labeler"
                && text(object, "/status/phase") == "Failed"
        };
        let hard = world.is(Kind::Sandboxes) || world.is(Kind::FullNodes);
        let stays = |object: &Value| (hard && memory(object)) || is_tried_for_ever(object, world);
        let left = cluster
            .list(table)
            .into_iter()
            .filter(|object| (ours(object) && !stays(object)) || table.contains("kairos"));
        broken.extend(
            left.map(|object| format!("after deletion: {table} {} is left", object["metadata"]["name"])),
        );
    }
    for node in cluster.list("nodes") {
        let name = text(&node, "/metadata/name");
        let (unschedulable, mark) = (node["spec"]["unschedulable"] == true, text(&node, CORDONED_BY));
        let kept = unschedulable && keeps(cluster, name, mark);
        broken
            .extend(said(&node).into_iter().map(|said| format!("after deletion: {name} still says {said}")));
        broken.extend(balancers::left(&node).map(|left| format!("after deletion: {left}")));
        if !text(&node, CLAIMED_BY).is_empty() || (!mark.is_empty() && !kept) {
            broken.push(format!("after deletion: {name} keeps a mark: {mark}"));
        }
        if unschedulable && !kept && !is_human(world, name) && !world.is(Kind::StoreBack) {
            broken.push(format!("after deletion: {name} is left cordoned"));
        }
    }
}

/// Every change of what matters, for whoever plays a seed again; each with its version.
pub fn told(cluster: &Cluster) -> Vec<(u64, String)> {
    let tables = ["pods", "jobs.batch", "nodes", OPS, UPGRADES];
    let tell = |change: &Arc<Change>| {
        let object = &change.object;
        let ending = if text(object, "/metadata/deletionTimestamp").is_empty() { "" } else { "ending" };
        let ready = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let conditions: Vec<&str> =
            ready.filter(|c| c["status"] == "True").filter_map(|c| c["type"].as_str()).collect();
        let said = match change.key.table.as_ref() {
            "nodes" => format!(
                "boot {} claim {:?}",
                text(object, "/status/nodeInfo/bootID"),
                text(object, CLAIMED_BY)
            ),
            OPS => object["status"]["nodeStatuses"].to_string(),
            _ => String::new(),
        };
        let (at, version, name) = (change.at.as_secs_f64(), change.version, &change.key.name);
        let phase = text(object, "/status/phase");
        let line = format!(
            "{at:>10.3} v{version} {:?} {} {name} {phase} {ending} {conditions:?} {said}",
            change.kind, change.key.table
        );
        (change.version, line)
    };
    cluster.history().iter().filter(|change| tables.contains(&change.key.table.as_ref())).map(tell).collect()
}

/// A number for the whole history.
pub fn digest(cluster: &Cluster) -> u64 {
    let mut hasher = DefaultHasher::new();
    for change in cluster.history() {
        if change.key.table.as_ref() != "events" {
            (change.at, change.key.name.as_str(), change.object.to_string()).hash(&mut hasher);
        }
    }
    hasher.finish()
}
