//! Golden plans: what the planner does, step by step, in a world where nothing lags and nothing is left to
//! chance.
//!
//! Each scenario is a text file next to this one. `UPDATE_GOLDEN=1 cargo test --test it golden` writes them
//! anew; read the difference before you commit it.

pub mod stage;

use kairos_operator::api::nodeop::{DrainOptions, NodeOpSpec};
use stage::Stage;

use crate::simulation::{
    scenario::hosts,
    world::{Script, controller},
};

fn reboot_and_drain() -> NodeOpSpec {
    NodeOpSpec {
        command: Some(vec!["true".into()]),
        cordon: Some(true),
        drain_options: Some(DrainOptions { enabled: Some(true), ..DrainOptions::default() }),
        reboot_on_success: Some(true),
        concurrency: 1,
        ..NodeOpSpec::default()
    }
}

fn command_only(concurrency: i32) -> NodeOpSpec {
    NodeOpSpec { command: Some(vec!["true".into()]), concurrency, ..NodeOpSpec::default() }
}

/// The commonest NodeOp: three nodes, one at a time, the control-plane node first; drained and rebooted.
#[test]
fn three_nodes_drained_and_rebooted() {
    let mut stage = Stage::new(3);
    for node in ["c1", "w1", "w2"] {
        stage.world.add_home("g0", node, |_| {});
    }
    stage.world.add_home("daemon", "w1", |pod| pod.controller = Some(controller("DaemonSet", "d")));
    stage.world.add_op("upgrade", reboot_and_drain(), Script::default());
    stage.play(400);
    stage.compare("three_nodes_drained_and_rebooted");
}

/// A node fails: nothing new is started, the reboot is cancelled, the node stays cordoned.
#[test]
fn stop_on_failure() {
    let mut stage = Stage::new(3);
    let spec = NodeOpSpec {
        stop_on_failure: Some(true),
        backoff_limit: Some(0),
        drain_options: None,
        ..reboot_and_drain()
    };
    let script = Script { failures: [("w1".to_owned(), 9)].into(), ..Script::default() };
    stage.world.add_op("fragile", spec, script);
    stage.play(300);
    stage.compare("stop_on_failure");
}

/// A node that a human had cordoned is cordoned afterwards.
#[test]
fn a_human_cordoned_the_node() {
    let mut stage = Stage::new(2);
    stage.world.human("w1");
    let spec =
        NodeOpSpec { node_selector: Some(hosts(vec!["w1".into()])), cordon: Some(true), ..command_only(1) };
    stage.world.add_op("polite", spec, Script::default());
    stage.play(100);
    stage.compare("a_human_cordoned_the_node");
}

/// The NodeOp is deleted while its command runs: the Job is stopped, no reboot, the node is given back.
#[test]
fn deleted_while_running() {
    let mut stage = Stage::new(2);
    let spec = NodeOpSpec { drain_options: None, ..reboot_and_drain() };
    stage.world.add_op("unwanted", spec, Script::default());
    stage.play_until(100, |world| world.log.iter().any(|line| line.contains("starts on")));
    let op = stage.world.ops.live().values().next().expect("the NodeOp").clone();
    stage.world.delete_op(&op);
    stage.play(100);
    stage.compare("deleted_while_running");
}

/// No node matches: not over, and said so, until the first one does.
#[test]
fn no_node_matches() {
    let mut stage = Stage::new(2);
    let spec = NodeOpSpec { node_selector: Some(hosts(vec!["elsewhere".into()])), ..command_only(0) };
    stage.world.add_op("nowhere", spec, Script::default());
    stage.play(30);
    stage
        .world
        .set_node("w1", |node| drop(node.labels.insert("kubernetes.io/hostname".into(), "elsewhere".into())));
    stage.play(60);
    stage.compare("no_node_matches");
}

/// A bad image takes one node, and no other until somebody has put that one back into service.
#[test]
fn a_failed_node_keeps_its_slot() {
    let mut stage = Stage::new(3);
    let spec = NodeOpSpec {
        backoff_limit: Some(0),
        drain_options: None,
        reboot_on_success: None,
        ..reboot_and_drain()
    };
    let script = Script { failures: [("w1".to_owned(), 9)].into(), ..Script::default() };
    stage.world.add_op("bad", spec, script);
    stage.play(200);
    stage.world.human("w1");
    stage.play(100);
    stage.compare("a_failed_node_keeps_its_slot");
}

/// A second NodeOp repairs the node that the first one failed on, with its cordon, and so frees the slot of
/// the first.
#[test]
fn a_repair_frees_the_slot() {
    let mut stage = Stage::new(2);
    let spec = || NodeOpSpec {
        backoff_limit: Some(0),
        drain_options: None,
        reboot_on_success: None,
        ..reboot_and_drain()
    };
    let script = Script { failures: [("c1".to_owned(), 9)].into(), ..Script::default() };
    stage.world.add_op("bad", spec(), script);
    stage.play(60);
    let repair = NodeOpSpec { node_selector: Some(hosts(vec!["c1".into()])), ..spec() };
    stage.world.add_op("repair", repair, Script::default());
    stage.play(200);
    stage.compare("a_repair_frees_the_slot");
}

/// A budget allows no eviction until the drain is given up: the node is given back as it was, and the next
/// one goes on.
#[test]
fn blocked_drain() {
    let mut stage = Stage::new(2);
    stage.world.add_home("g0", "c1", |_| {});
    stage.world.blocked.insert("g0".into(), i64::MAX);
    let spec = NodeOpSpec {
        drain_options: Some(DrainOptions {
            enabled: Some(true),
            timeout_seconds: Some(15),
            ..DrainOptions::default()
        }),
        reboot_on_success: None,
        ..reboot_and_drain()
    };
    stage.world.add_op("patient", spec, Script::default());
    stage.play(200);
    stage.compare("blocked_drain");
}
