//! The planner in a simulated world: seeded, deterministic, with everything that may go wrong between two
//! requests.
//!
//! `KAIROS_SIM_SEEDS=5000 cargo test --test it simulation` runs that many seeds; `KAIROS_SIM_SEED=42` runs
//! one of them and prints what happened. What is checked stands in [`history`]; the world's simplifications:
//! an API call is atomic, a kubelet reports its boot before it runs a pod in it, and a new leader's caches
//! are not older than its predecessor's last write (a lease that fences has at least five seconds between the
//! two).

mod act;
mod controllers;
mod faults;
pub mod hints;
mod history;
pub mod image_check;
mod kubelet;
mod moments;
pub mod operator;
mod rng;
pub mod scenario;
mod store;
pub mod world;

use kairos_operator::plan::model::snapshot::JobState;
use operator::Operator;
use world::World;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 150;
/// Ticks in which things go wrong.
const TROUBLE: i64 = 250;
/// Ticks within which everything has to end after that.
const TIMEOUT: i64 = 2500;
/// Ticks without a change after which nothing but time can bring one.
const QUIET: i64 = 16;

/// Runs one seed, and returns the world at its end.
fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    scenario::cluster(&mut world);
    let ops = 1 + world.rng.below(3);
    world.rivals = seed % 4 == 3;
    world.faults = !seed.is_multiple_of(4);
    let rivals = world.rivals;
    let planners = if rivals { 2 } else { 1 };
    let mut operators: Vec<Operator> = (0..planners).map(|name| Operator::new(name, &world)).collect();
    let arrivals: Vec<i64> = (0..ops)
        .map(|number| if number == 0 { 0 } else { world.rng.span(0, if rivals { 6 } else { 60 }) })
        .collect();
    for tick in 0..TROUBLE + TIMEOUT {
        for number in (0..ops).filter(|number| arrivals[*number] == tick) {
            scenario::nodeop(&mut world, number);
        }
        if tick == TROUBLE {
            world.note("the faults are over");
            world.mend();
        }
        if world.faults {
            world.fault(&mut operators);
        }
        round(&mut world, &mut operators);
        if !world.history.broken.is_empty() || (tick > TROUBLE && at_rest(&mut world, &mut operators)) {
            break;
        }
    }
    if world.history.broken.is_empty() {
        world.check_rest();
    }
    world
}

/// One tick: everybody does something, in any order.
fn round(world: &mut World, operators: &mut [Operator]) {
    let mut actors: Vec<String> = world.machines.keys().cloned().collect();
    actors.extend(["@jobs", "@garbage", "@work", "@nodes"].map(String::from));
    actors.extend((0..operators.len() * 4).map(|number| format!("@op{}", number % operators.len())));
    world.rng.shuffle(&mut actors);
    for actor in actors {
        match actor.as_str() {
            "@jobs" => world.job_controller(),
            "@garbage" => world.garbage(),
            "@work" => world.workload(),
            "@nodes" => world.node_controller(),
            other => match other.strip_prefix("@op") {
                Some(number) => drop(operators[number.parse::<usize>().unwrap()].round(world)),
                None => world.kubelet(other),
            },
        }
    }
    world.end_tick();
}

/// Whether nothing will happen any more. If all that is left is to wait for a time, it comes at once.
fn at_rest(world: &mut World, operators: &mut [Operator]) -> bool {
    let away = world.machines.values().any(|machine| machine.down.is_some() || !machine.reported);
    let moved =
        away || world.rv != world.rest.0 || operators.iter().any(|operator| !operator.queue.is_empty());
    if moved {
        world.rest = (world.rv, world.tick);
    }
    if world.tick < world.rest.1 + QUIET {
        return false;
    }
    world.rest.1 = world.tick;
    let wake = operators.iter().filter_map(|operator| operator.wake).min();
    // A Job's deadline is nothing that an operator waits for.
    let running = world.jobs.live().values().any(|job| !job.suspended && job.state == JobState::Active);
    world.now = world.now.max(wake.unwrap_or(0)) + if running { 60 } else { 0 };
    wake.is_none() && !running && !world.look_after_failed_nodes()
}

/// Two planners, two control-plane nodes, one NodeOp for each: nothing but their reading of each other's
/// intents keeps the nodes apart. The first NodeOp has a preflight, so that an old view shows it as not ready
/// to go.
fn duel(seed: u64) -> World {
    let mut world = World::new(seed);
    for name in ["c1", "c2"] {
        world.add_node(name, true);
        world.set_node(name, |node| drop(node.labels.insert("kubernetes.io/hostname".into(), name.into())));
    }
    world.rivals = true;
    let mut operators = [Operator::new(0, &world), Operator::new(1, &world)];
    let arrival = world.rng.span(0, 15);
    for tick in 0..40 {
        for number in 0..2 {
            if tick == number * arrival {
                scenario::duellist(&mut world, number);
            }
        }
        round(&mut world, &mut operators);
    }
    world
}

/// A reboot that is due, whose waiter is lost and made again and again, and the NodeOp deleted just when
/// there is a new waiter that no cache shows yet.
fn cancelled(seed: u64) -> World {
    let mut world = World::new(seed);
    world.add_node("w1", false);
    scenario::rebooter(&mut world);
    let mut operators = [Operator::new(0, &world)];
    for _ in 0..60 {
        world.delete_op_of_new_waiter();
        round(&mut world, &mut operators);
        world.lose_waiter();
    }
    world
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn what_must_never_happen_does_not() {
    if let Some(seed) = number("KAIROS_SIM_SEED") {
        let world = run(seed);
        println!("{}", world.log.join("\n"));
        assert!(world.history.broken.is_empty(), "seed {seed}: {:#?}", world.history.broken);
        return;
    }
    let seeds = number("KAIROS_SIM_SEEDS").unwrap_or(SEEDS);
    let mut failed: Vec<(u64, String)> = std::thread::scope(|scope| {
        let half = |first: u64| move || (first..seeds).step_by(2).filter_map(fails).collect::<Vec<_>>();
        let halves = [scope.spawn(half(0)), scope.spawn(half(1))];
        halves.into_iter().flat_map(|half| half.join().expect("no panic")).collect()
    });
    failed.sort();
    let shown: Vec<String> =
        failed.iter().take(12).map(|(seed, what)| format!("seed {seed}: {what}")).collect();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds:\n{}\nKAIROS_SIM_SEED={} cargo test --test it simulation -- --nocapture",
        failed.len(),
        shown.join("\n"),
        failed[0].0
    );
}

fn fails(seed: u64) -> Option<(u64, String)> {
    let world = std::panic::catch_unwind(|| run(seed));
    let broken = world.map_or_else(|_| vec!["it panics".into()], |world| world.history.broken);
    broken.into_iter().next().map(|what| (seed, what))
}

#[test]
fn two_control_plane_nodes_are_never_in_progress_together() {
    for seed in 0..number("KAIROS_SIM_SEEDS").unwrap_or(SEEDS) {
        let world = duel(seed);
        let log = world.log.join("\n");
        assert!(world.history.broken.is_empty(), "{log}\nduel {seed}: {:#?}", world.history.broken);
    }
}

#[test]
fn no_reboot_follows_its_cancellation() {
    for seed in 0..number("KAIROS_SIM_SEEDS").unwrap_or(SEEDS) {
        let world = cancelled(seed);
        let log = world.log.join("\n");
        assert!(world.history.broken.is_empty(), "{log}\ncalled off {seed}: {:#?}", world.history.broken);
    }
}

#[test]
fn a_seed_is_a_history() {
    assert_eq!(run(7).log, run(7).log);
}
