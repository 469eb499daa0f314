//! `explain`: one node, and why it is worked on, or is not.

use clap::Args;
use k8s_openapi::jiff::Timestamp;
use kube::Api;

use super::{
    connection::Connection,
    failure::{Code, Doing, Failure, Result, WHETHER_ONE_RUNS},
    nodes,
    operation::{self, Operation},
    screen::{Screen, Tone},
    status::tree,
    target, time,
};
use crate::{
    api::{
        names,
        node::Node,
        nodeop::{NodeStatus, Phase},
    },
    observe::view,
    plan::model::{id::OpRef, selector, snapshot::NodeView},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Says of a node whose it is, what it waits for, and what stands in the way of each operation.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// NAME or node/NAME
    #[arg(value_parser = target::node)]
    pub node: String,
}

/// Runs the verb.
pub async fn run(args: &ExplainArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let name = &args.node;
    let node = Api::<Node>::all(connection.client.clone()).get_opt(name).await;
    let node = node.doing(|| format!("reading node {name}"))?.ok_or_else(|| {
        Failure::new(format!("there is no node {name}")).hint("Which there are: kubectl kairos nodes")
    })?;
    let node = view::node(node);
    let (operations, all) = operations(connection).await?;
    let now = Timestamp::now();
    screen.line(&format!("node {name}: {}", state(&node)))?;
    for line in ownership(&node, &operations, all) {
        screen.line(&line)?;
    }
    let lines = reasons(&node, &operations, now);
    if lines.is_empty() {
        let place = if all { "" } else { &format!(" in namespace {}", connection.namespace) };
        screen
            .line(&format!("There is no operation{place} that is not over, and none that was about it."))?;
    }
    for (tone, line) in lines {
        screen.line(&screen.tint(tone, &screen.cut(&line)))?;
    }
    if !all {
        screen.line(&format!(
            "Operations of other namespaces than {} are not known: you may not list them.",
            connection.namespace
        ))?;
    }
    Ok(Code::Done)
}

/// All operations that the user may see, and whether those are all that there are. An upgrade that has
/// thousands of nodes is completed.
async fn operations(connection: &Connection) -> Result<(Vec<Operation>, bool)> {
    let (mut found, all) = match operation::list(connection, None, None).await {
        Ok(found) => (found, true),
        Err(error) if error.forbidden => {
            (operation::list(connection, Some(&connection.namespace), None).await?, false)
        }
        Err(error) => return Err(error),
    };
    for operation in &mut found {
        operation::complete(connection, operation).await;
    }
    Ok((found, all))
}

fn state(node: &NodeView) -> String {
    let mut parts = vec![if node.ready { "Ready" } else { "not Ready" }.to_owned()];
    if node.has_control_plane_label() {
        parts.push("control plane".into());
    }
    if node.deleting {
        parts.push("being deleted".into());
    }
    parts.extend(
        nodes::release(node).filter(|release| !release.is_empty()).map(|release| format!("runs {release}")),
    );
    parts.extend(nodes::boot_state(node).map(|state| format!("booted {state}")));
    parts.join(", ")
}

/// Claim and cordon, and what ends each.
fn ownership(node: &NodeView, operations: &[Operation], all: bool) -> Vec<String> {
    let known = |op: &OpRef| operations.iter().any(|operation| operation.is_done_by(&op.namespace, &op.name));
    // One that is gone does nothing any more.
    let whose = |op: &OpRef, mark: &str, there: &str| match all && !known(op) {
        true => format!(
            "NodeOp {}, which is gone: the operator takes the {mark} off ({WHETHER_ONE_RUNS}).",
            nodes::path(op)
        ),
        false => format!("NodeOp {}{there}.", nodes::path(op)),
    };
    let mut lines = Vec::new();
    if let Some(op) = &node.claimed_by {
        lines.push(format!("Claimed by {}", whose(op, "claim", ": no other operation takes the node")));
    }
    if let Some(op) = &node.cordoned_by {
        lines.push(format!("Cordoned by {}", whose(op, "cordon", ", which uncordons it")));
    } else if let Some(kept) = &node.kept_cordon {
        let by = nodes::path(&kept.by);
        lines.push(format!(
            "Still cordoned, since NodeOp {by} failed on it. Look at it, then: kubectl uncordon {}",
            node.name
        ));
    } else if node.unschedulable {
        lines.push("Cordoned by somebody else: no operation uncordons it.".into());
    }
    if node.labels.on_hold() {
        let (name, label) = (&node.name, names::HOLD);
        lines.push(format!(
            "Held by the label {label}: no operation takes it. To let it go: kubectl label node {name} {label}-"
        ));
    }
    lines
}

/// What each operation has to do with the node: those that are not over, and the last one that was about it.
fn reasons(node: &NodeView, operations: &[Operation], now: Timestamp) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    for operation in operations.iter().filter(|operation| !operation.is_over()) {
        let name = format!("{} in {}", operation.short(), operation.namespace);
        match operation.nodes.get(&node.name) {
            Some(entry) => lines.push(entry_of(&name, entry, now)),
            None => lines.push((Tone::Faint, format!("{name}: {}", not_chosen(node, operation, now)))),
        }
    }
    let over = operations.iter().filter(|operation| operation.is_over());
    let last = over.filter_map(|operation| Some((operation, operation.nodes.get(&node.name)?)));
    if let Some((operation, entry)) = last.max_by_key(|(operation, _)| operation.ended()) {
        let name = format!("last: {} in {}", operation.short(), operation.namespace);
        lines.push(entry_of(&name, entry, now));
    }
    lines
}

fn entry_of(name: &str, entry: &NodeStatus, now: Timestamp) -> (Tone, String) {
    let tone = match entry.phase {
        Phase::Completed => Tone::Good,
        Phase::Failed => Tone::Bad,
        Phase::Preflight | Phase::Running => Tone::Moving,
        Phase::Pending => Tone::Plain,
    };
    let since = entry.last_updated.as_ref().map(|time| time::age(now, time.0));
    let since = since.filter(|_| entry.phase != Phase::Pending);
    let since = since.map_or_else(String::new, |age| {
        if entry.phase.is_final() { format!(", {age} ago") } else { format!(" for {age}") }
    });
    let message = time::relative(now, entry.message.as_deref().unwrap_or_default());
    (tone, format!("{name}: {}{since}: {message}", tree::state(entry)))
}

/// Why an operation is not about the node.
fn not_chosen(node: &NodeView, operation: &Operation, now: Timestamp) -> String {
    if operation.nodes.is_empty() {
        return time::relative(now, &operation.message);
    }
    let named = operation.object["spec"]["nodeNames"].as_array();
    if named.is_some_and(|names| !names.iter().any(|name| *name == node.name.as_str())) {
        return "not about this node: nodeNames does not name it".into();
    }
    let selector = operation.object["spec"].get("nodeSelector").cloned();
    let selector = selector.and_then(|value| serde_json::from_value::<LabelSelector>(value).ok());
    match selector {
        Some(selector) if !selector::matches(&selector, |key| node.labels.get(key)) => {
            format!("not about this node: nodeSelector {} does not match", selector::describe(&selector))
        }
        None if !node.is_linux() => "not about this node: it does not run Linux".into(),
        None if node.bootless => "not about this node: its kubelet reports no boot id".into(),
        _ => "not about this node: it joined, or got its labels, after the nodes were chosen".into(),
    }
}
