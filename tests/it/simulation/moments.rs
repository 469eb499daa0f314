//! One thing that happens, at every moment of a rollout in turn: a new leader one of whose watches stands
//! still, a Job or a NodeOp that somebody takes away. Nothing is left to chance but the seed's own draws, so
//! each guard against an old view is tried just when it counts.

use kairos_operator::{
    api::nodeop::{DrainOptions, NodeOpSpec},
    plan::model::snapshot::JobState,
};

use super::{
    operator::{Cache, Operator},
    scenario::hosts,
    world::{Script, Stage, World, op_key},
};

/// Ticks of the rollout, and within which it is over whatever happened.
const MOMENTS: i64 = 75;
const TIMEOUT: i64 = 900;
/// For this time the watch of a new leader stands still.
const STILL: i64 = 25;

/// The group of the pods that the scheduler binds to a node after its drain.
pub const LATE: &str = "late";

/// What is tried.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Another planner takes over. All of its caches are new but for this one.
    Leader(Cache),
    /// Somebody deletes the Jobs that are there, at once and without a trace.
    Jobs,
    /// The same while nobody leads, and just when a waiter has looked at its Job for the last time.
    JobsUnwatched,
    /// Somebody takes the NodeOps away, finalizers and all.
    Ops,
    /// Somebody deletes the NodeOps.
    Deletion,
    /// A node reboots by itself, and a new leader's cache of nodes is older than that.
    RebootAndLeader,
    /// The scheduler binds pods to nodes that are drained already, and then another planner takes over.
    LatePodsAndLeader,
}

fn world(seed: u64, drains: bool) -> World {
    let mut world = World::new(seed);
    world.add_node("c1", true);
    world.add_node("w1", false);
    for name in ["c1", "w1"] {
        world.set_node(name, |node| drop(node.labels.insert("kubernetes.io/hostname".into(), name.into())));
        world.add_home("g0", name, |_| {});
    }
    let spec = NodeOpSpec {
        command: Some(vec!["true".into()]),
        cordon: Some(true),
        reboot_on_success: Some(true),
        backoff_limit: Some(2),
        concurrency: 1,
        drain_options: drains.then(|| DrainOptions { enabled: Some(true), ..DrainOptions::default() }),
        ..NodeOpSpec::default()
    };
    let script = Script { failures: [("w1".to_owned(), 1)].into(), ..Script::default() };
    world.add_op("first", spec.clone(), script);
    let other = NodeOpSpec { node_selector: Some(hosts(vec!["w1".into()])), reboot_on_success: None, ..spec };
    world.add_op("second", other, Script::default());
    world
}

/// The operator plans until it wants nothing more, then everybody else takes a step.
fn step(world: &mut World, operator: &mut Operator) {
    for _ in 0..40 {
        if !operator.plan_and_act(world) {
            break;
        }
    }
    others(world);
}

fn others(world: &mut World) {
    world.job_controller();
    for node in world.machines.keys().cloned().collect::<Vec<_>>() {
        world.kubelet(&node);
    }
    world.garbage();
    world.workload();
    world.node_controller();
    world.end_tick();
}

fn happen(world: &mut World, operator: &mut Operator, change: Change) {
    world.note(format!("{change:?}"));
    let runs = |world: &World, name: &str| {
        let jobs = world.jobs.live();
        jobs.values().any(|job| job.node == *name && !job.suspended && job.state == JobState::Active)
    };
    let mut lead = |world: &World, cache, ticks| {
        *operator = Operator::new(1, world);
        operator.calm = true;
        operator.stand_still(world, cache, ticks);
    };
    match change {
        // By how much it is older differs from one moment to the next.
        Change::Leader(cache) => {
            lead(world, cache, [3, 10, 28, 45][usize::try_from(world.tick % 4).unwrap_or_default()])
        }
        Change::Jobs | Change::JobsUnwatched => {
            // Until a waiter has seen its Job Complete, and has not yet said what it makes of that.
            let looked = |world: &World| world.procs.values().any(|proc| proc.stage == Stage::Checked);
            for _ in 0..if matches!(change, Change::Jobs) { 0 } else { 15 } {
                if !looked(world) {
                    others(world);
                }
            }
            for job in world.jobs.live().values().cloned().collect::<Vec<_>>() {
                let rv = world.next_rv();
                world.jobs.remove(&(job.namespace.clone(), job.name.clone()), rv);
            }
        }
        Change::Ops => {
            for op in world.ops.live().values().cloned().collect::<Vec<_>>() {
                let rv = world.next_rv();
                world.history.gone.insert(op.metadata.uid.clone().unwrap());
                world.ops.remove(&op_key(&op), rv);
            }
        }
        Change::Deletion => {
            for op in world.ops.live().values().cloned().collect::<Vec<_>>() {
                world.delete_op(&op);
            }
        }
        Change::RebootAndLeader => {
            let Some(node) = world.machines.keys().find(|name| runs(world, name)).cloned() else { return };
            let back = world.tick + 3;
            world.take_down(&node, back, false);
            for _ in 0..4 {
                step(world, operator);
            }
            *operator = Operator::new(1, world);
            operator.calm = true;
            operator.stand_still(world, Cache::Nodes, 8);
        }
        Change::LatePodsAndLeader => {
            for node in world.machines.keys().cloned().collect::<Vec<_>>() {
                let drains = world.ops.live().values().all(|op| op.spec.drain_options.is_some());
                if drains && runs(world, &node) {
                    world.add_home(LATE, &node, |_| {});
                }
            }
            *operator = Operator::new(1, world);
            operator.calm = true;
        }
    }
}

/// A rollout in which one thing happens at that tick.
fn play(seed: u64, drains: bool, at: i64, change: Change) -> World {
    let mut world = world(seed, drains);
    let mut operator = Operator::new(0, &world);
    operator.calm = true;
    for tick in 0..TIMEOUT {
        if tick == at {
            happen(&mut world, &mut operator, change);
        }
        if tick == at + STILL {
            operator.go_on();
        }
        step(&mut world, &mut operator);
        let over = world.ops.live().values().all(|op| {
            let done = op
                .status
                .as_ref()
                .and_then(|status| status.phase)
                .is_some_and(kairos_operator::api::nodeop::Phase::is_final);
            done && op.metadata.finalizers.iter().flatten().next().is_none()
        });
        let claimed = world.nodes.live().values().any(|node| node.claimed_by.is_some() || !node.ready);
        let busy = world.pods.live().values().any(|pod| !pod.phase.is_final());
        if !world.history.broken.is_empty() || (tick > at + STILL && over && !claimed && !busy) {
            break;
        }
        if tick > 300 {
            // What is left is to wait for a time, or for somebody to uncordon a node that failed.
            world.now += 20;
            world.look_after_failed_nodes();
        }
    }
    if world.history.broken.is_empty() {
        world.check_rest();
    }
    world
}

/// Plays every second moment; every one of them where seeds are asked for by `KAIROS_SIM_SEEDS`.
fn holds(change: Change) {
    let stride = if super::number("KAIROS_SIM_SEEDS").is_some() { 1 } else { 2 };
    for at in (1..MOMENTS).step_by(stride) {
        let world = play(at.unsigned_abs(), at % 4 < 2, at, change);
        let log = world.log.join("\n");
        assert!(world.history.broken.is_empty(), "{log}\n{change:?} at {at}: {:#?}", world.history.broken);
    }
}

#[test]
fn a_new_leader_with_an_old_view_of_nodes_does_no_harm() {
    holds(Change::Leader(Cache::Nodes));
}

#[test]
fn a_new_leader_with_an_old_view_of_nodeops_does_no_harm() {
    holds(Change::Leader(Cache::Ops));
}

#[test]
fn a_new_leader_with_an_old_view_of_jobs_does_no_harm() {
    holds(Change::Leader(Cache::Jobs));
}

#[test]
fn a_new_leader_with_an_old_view_of_pods_does_no_harm() {
    holds(Change::Leader(Cache::Pods));
}

#[test]
fn a_new_leader_with_an_old_view_of_jobs_and_pods_does_no_harm() {
    holds(Change::Leader(Cache::Work));
}

#[test]
fn a_boot_from_before_the_success_proves_nothing() {
    holds(Change::RebootAndLeader);
}

#[test]
fn a_pod_that_came_late_is_evicted_by_the_next_leader_too() {
    holds(Change::LatePodsAndLeader);
}

#[test]
fn a_job_that_is_taken_away_at_any_moment_does_no_harm() {
    holds(Change::Jobs);
    holds(Change::JobsUnwatched);
}

#[test]
fn a_nodeop_that_is_taken_away_at_any_moment_leaves_its_nodes_only_when_nothing_acts_on_them() {
    holds(Change::Ops);
}

#[test]
fn a_nodeop_that_is_deleted_at_any_moment_is_cancelled_before_it_says_so() {
    holds(Change::Deletion);
}
