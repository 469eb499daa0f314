//! `pause`, `resume` and `cancel`: what may be done to an operation under way.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use super::{
    connection::Connection,
    failure::{Code, Doing, Failure, Result},
    nodes_seen::counted,
    operation::Operation,
    screen::Screen,
    target::{Kind, Target},
};
use crate::{
    api::{
        child,
        nodeop::{NodeOp, NodeStatus, Phase, Step},
        text::listed,
        upgrade::NodeOpUpgrade,
    },
    plan::model::intent::Intent,
};

/// Names the operation.
#[derive(Debug, Args)]
pub struct SteerArgs {
    /// NAME, nou/NAME or nop/NAME
    pub target: Target,
}

/// Ends an operation: deletes it, after it has said which nodes are under way, and what that ends.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// NAME, nou/NAME or nop/NAME
    pub target: Target,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub yes: bool,
}

/// Runs `pause` (`paused`) or `resume`.
pub async fn pause(args: &SteerArgs, paused: bool, connection: &Connection, screen: &Screen) -> Result<Code> {
    let operation = open(&args.target, connection).await?;
    let word = if paused { "paused" } else { "resumed" };
    if operation.paused == paused {
        screen.line(&format!(
            "{} is {} already",
            operation.short(),
            if paused { "paused" } else { "not paused" }
        ))?;
        return Ok(Code::Done);
    }
    let (name, namespace) = (&operation.name, &operation.namespace);
    let patch = Patch::Merge(json!({"spec": {"paused": paused}}));
    let (client, params) = (connection.client.clone(), PatchParams::default());
    let patched = match operation.kind {
        Kind::NodeOp => {
            let patched = Api::<NodeOp>::namespaced(client, namespace).patch(name, &params, &patch).await;
            patched.map(|op| Operation::of_op(&op))
        }
        Kind::Upgrade => {
            let patched =
                Api::<NodeOpUpgrade>::namespaced(client, namespace).patch(name, &params, &patch).await;
            patched.map(|upgrade| Operation::of_upgrade(&upgrade))
        }
    };
    let patched = patched.doing(|| format!("changing spec.paused of {}", operation.full()))?;
    if patched.paused != paused {
        return Err(Failure::new(format!(
            "{} was not {word}: the kind has no field spec.paused",
            operation.full()
        ))
        .hint("An older operator's CRDs are installed; kubectl kairos check says more."));
    }
    screen.line(&format!("{} {word}{}", operation.short(), effect(&operation, paused)))?;
    Ok(Code::Done)
}

/// What that means for its nodes now.
fn effect(operation: &Operation, paused: bool) -> String {
    // Of a Continuous upgrade, between its rounds.
    if operation.is_over() {
        let then =
            if paused { "no further round begins" } else { "a further round takes nodes that need it" };
        return format!(": {then}");
    }
    if operation.nodes.is_empty() && operation.counts.total == 0 {
        let when = if paused { "when it is resumed" } else { "now" };
        return format!(": its nodes are chosen {when}");
    }
    let running = operation.nodes.iter().filter(|(_, node)| node.phase == Phase::Running);
    let under_way: Vec<&str> = running.map(|(name, _)| name.as_str()).collect();
    let waits = counted(not_started(operation));
    match (paused, under_way.as_slice()) {
        (true, []) => format!(": {waits} not started"),
        (true, [one]) => format!(": {one} is under way and goes on to its end, {waits} not started"),
        (true, names) => {
            format!(": {} are under way and go on to their end, {waits} not started", listed(names))
        }
        (false, _) => format!(": {waits} to go"),
    }
}

/// How many nodes have not been taken. A preflight under way goes on to its answer, and its node is not taken
/// for that. Of more than a thousand nodes an upgrade's own status leaves out those that wait, and only its
/// counts tell of them; the Go operator's objects have none.
fn not_started(operation: &Operation) -> usize {
    if operation.counts.total > 0 {
        return usize::try_from(operation.counts.pending).unwrap_or(0);
    }
    operation.nodes.values().filter(|node| matches!(node.phase, Phase::Pending | Phase::Preflight)).count()
}

/// Runs `cancel`.
pub async fn cancel(args: &CancelArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let operation = open(&args.target, connection).await?;
    screen.line(&format!(
        "Cancelling {} deletes it, with its Jobs and their logs. What that ends:",
        operation.full()
    ))?;
    let under_way: Vec<_> = operation.under_way().collect();
    let intent = intent(&operation)?;
    for (name, node) in &under_way {
        screen.line(&format!("  {name}: {}", ends(node, &intent)))?;
    }
    if under_way.is_empty() {
        screen.line("  nothing is under way")?;
    }
    if operation.is_over() {
        screen.line("  no further round begins")?;
    } else {
        // Those in preflight stand above, by their names.
        let looked_at = under_way.iter().filter(|(_, node)| node.phase == Phase::Preflight).count();
        let waits = not_started(&operation).saturating_sub(looked_at);
        screen.line(&format!("  {} not started", counted(waits)))?;
    }
    if !args.yes && !confirmed(&operation)? {
        screen.line("Nothing was done.")?;
        return Ok(Code::Refused);
    }
    let preconditions = Preconditions { uid: Some(operation.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    let (name, namespace, client) = (&operation.name, &operation.namespace, connection.client.clone());
    let deleted = match operation.kind {
        Kind::NodeOp => Api::<NodeOp>::namespaced(client, namespace).delete(name, &params).await.map(drop),
        Kind::Upgrade => {
            Api::<NodeOpUpgrade>::namespaced(client, namespace).delete(name, &params).await.map(drop)
        }
    };
    deleted.doing(|| format!("deleting {}", operation.full()))?;
    screen.line(&format!("{}/{name} deleted", operation.kind.resource()))?;
    Ok(Code::Done)
}

/// What the operation does to each of its nodes.
fn intent(operation: &Operation) -> Result<Intent> {
    let object = operation.object.clone();
    let op = match operation.kind {
        Kind::NodeOp => serde_json::from_value(object),
        Kind::Upgrade => serde_json::from_value(object).map(|upgrade| child::first(&upgrade)),
    };
    let op = op.map_err(|error| Failure::new(format!("reading {}: {error}", operation.full())))?;
    Ok(Intent::of(&op))
}

/// What its deletion does to a node under way. A cordon that somebody else had set stays.
fn ends(node: &NodeStatus, intent: &Intent) -> &'static str {
    match (node.phase, node.step) {
        (Phase::Preflight, _) => "its preflight ends, the node is untouched",
        (_, Some(Step::Claim | Step::Drain)) => match (intent.drain.is_some(), intent.cordon) {
            (true, _) => "its drain stops, and its own cordon is taken off; the node is untouched",
            (false, true) => "nothing is started, and its own cordon is taken off; the node is untouched",
            (false, false) => "nothing is started; the node is untouched",
        },
        (_, Some(Step::Job)) if intent.upgrade => {
            "an upgrade that runs is left to end, one that has not started is not started; no reboot follows"
        }
        (_, Some(Step::Job)) => "its command is stopped if it runs, and no reboot follows",
        (_, Some(Step::Reboot)) if intent.upgrade => {
            "a reboot that has not been asked for is cancelled; the node boots the image that its upgrade wrote next"
        }
        (_, Some(Step::Reboot)) => "a reboot that has not been asked for is cancelled",
        (_, Some(Step::Verify)) => "what it runs is not proved any more",
        (_, Some(Step::Preflight) | None) => "what has not started does not start",
    }
}

/// Asks, where there is somebody to ask.
fn confirmed(operation: &Operation) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(format!(
            "{} was not cancelled: there is no terminal to ask on",
            operation.full()
        ))
        .hint("Say that it is meant: -y"));
    }
    eprint!("Cancel {}? [y/N] ", operation.short());
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The operation, if something can be done to it.
async fn open(target: &Target, connection: &Connection) -> Result<Operation> {
    let operation = target.find(connection).await?;
    if operation.is_over_for_good() {
        return Err(Failure::new(format!("{} is over: {}", operation.full(), operation.phase_word()))
            .ending(Code::Refused)
            .hint(format!(
                "To remove it, with its Jobs and their logs: kubectl delete {} -n {}",
                operation.short(),
                operation.namespace
            )));
    }
    if operation.deleting {
        return Err(Failure::new(format!("{} is being deleted", operation.full())).ending(Code::Refused));
    }
    if let Some(owner) = &operation.upgrade {
        return Err(Failure::new(format!(
            "{} belongs to NodeOpUpgrade {owner}, which decides",
            operation.full()
        ))
        .ending(Code::Refused)
        .hint(format!("Name that one: nou/{owner}")));
    }
    Ok(operation)
}
