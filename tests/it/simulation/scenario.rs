//! A cluster and its NodeOps, by a seed.

use kairos_operator::api::nodeop::{DrainOptions, LoadBalancer, NodeOpSpec, Preflight};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::world::{Script, World, controller};

/// Control-plane nodes, workers, workload.
pub fn cluster(world: &mut World) {
    let control_planes = world.rng.span(1, 3);
    let workers = world.rng.span(1, 4);
    for number in 1..=control_planes {
        world.add_node(&format!("c{number}"), true);
    }
    for number in 1..=workers {
        world.add_node(&format!("w{number}"), false);
    }
    let names: Vec<String> = world.machines.keys().cloned().collect();
    for name in &names {
        world.set_node(name, |node| drop(node.labels.insert("kubernetes.io/hostname".into(), name.clone())));
        for group in ["g0", "g1", "g2"] {
            if world.rng.chance(50) {
                world.add_home(group, name, |_| {});
            }
        }
        if world.rng.chance(50) {
            world.add_home("daemon", name, |pod| pod.controller = Some(controller("DaemonSet", "d")));
        }
        if world.rng.chance(20) {
            world.add_home("bare", name, |pod| pod.controller = None);
        }
    }
}

/// One NodeOp on some of the nodes.
pub fn nodeop(world: &mut World, number: usize) {
    let names: Vec<String> = world.machines.keys().cloned().collect();
    let rivals = world.rivals;
    let rng = &mut world.rng;
    let cordon = rng.chance(65);
    let drain = cordon && rng.chance(60);
    let spec = NodeOpSpec {
        node_selector: match rng.below(if rivals { 4 } else { 2 }) {
            0 => None,
            1 => Some(hosts(names.iter().filter(|_| rng.chance(60)).cloned().collect())),
            // Each its own control-plane node: nothing but the limit across NodeOps keeps them apart.
            _ => Some(hosts(vec![format!("c{}", number + 1)])),
        },
        command: Some(vec!["true".into()]),
        cordon: Some(cordon),
        uncordon_on_failure: Some(rng.chance(40)),
        drain_options: drain.then(|| DrainOptions {
            enabled: Some(true),
            force: Some(rng.chance(60)),
            strict: Some(rng.chance(20)),
            timeout_seconds: rng.chance(40).then_some(120),
            ..DrainOptions::default()
        }),
        load_balancer: (cordon && rng.chance(40)).then(|| LoadBalancer {
            exclude: Some(true),
            wait_seconds: Some(i32::try_from(rng.span(0, 15)).unwrap()),
        }),
        reboot_on_success: Some(rng.chance(70)),
        active_deadline_seconds: Some(900),
        backoff_limit: Some(i32::try_from(rng.span(0, 3)).unwrap()),
        concurrency: i32::try_from(rng.span(0, 3)).unwrap(),
        stop_on_failure: Some(rng.chance(40)),
        preflight: rng
            .chance(30)
            .then(|| Preflight { command: vec!["check".into()], ..Preflight::default() }),
        pull_timeout_seconds: Some(200),
        reboot_timeout_seconds: Some(300),
        min_ready_seconds: rng.chance(30).then_some(10),
        not_ready_timeout_seconds: rng.chance(30).then_some(200),
        ..NodeOpSpec::default()
    };
    let mut script = Script { inadmissible: rng.chance(4), ..Script::default() };
    for name in names {
        if rng.chance(25) {
            script.failures.insert(name.clone(), u32::try_from(rng.span(1, 5)).unwrap());
        }
        if rng.chance(4) {
            script.unpullable.insert(name.clone());
        }
        match rng.below(10) {
            0 => drop(script.preflight.insert(name, Some("up to date".into()))),
            1 => drop(script.preflight.insert(name, None)),
            _ => {}
        }
    }
    world.add_op(&format!("op{number}"), spec, script);
}

/// A NodeOp for one control-plane node; the first one asks before it starts.
pub fn duellist(world: &mut World, number: i64) {
    let spec = NodeOpSpec {
        node_selector: Some(hosts(vec![format!("c{}", number + 1)])),
        command: Some(vec!["true".into()]),
        cordon: Some(true),
        preflight: (number == 0).then(|| Preflight { command: vec!["check".into()], ..Preflight::default() }),
        ..NodeOpSpec::default()
    };
    world.add_op(&format!("op{number}"), spec, Script::default());
}

/// A NodeOp that reboots its node.
pub fn rebooter(world: &mut World) {
    let spec = NodeOpSpec {
        command: Some(vec!["true".into()]),
        reboot_on_success: Some(true),
        ..NodeOpSpec::default()
    };
    world.add_op("rebooter", spec, Script::default());
}

/// A selector by host name.
pub fn hosts(names: Vec<String>) -> LabelSelector {
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "kubernetes.io/hostname".into(),
            operator: "In".into(),
            values: Some(names),
        }]),
        ..LabelSelector::default()
    }
}
