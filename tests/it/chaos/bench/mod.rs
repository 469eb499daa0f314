//! What a rollout costs the operator: the real one, with its watches, caches, plans, writes and metrics, on a
//! cluster of any size, in virtual time. `scripts/bench` runs it.
//!
//! CPU is that of the thread, less what the simulation takes of it. Times on the clock are the model's. There
//! is no TLS and no socket.

mod idle;
mod line;
mod passes;
mod rollout;
mod turns;

use std::{env, sync::atomic::Ordering, time::Duration};

use kairos_sim::meter;

use self::{
    passes::Passes,
    rollout::{Figures, Plan},
};
use super::run;

const HEAD: &str = "| rollout | nodes finished | CPU ms per node | until the first is done | per node from then on | passes | \
    a pass: median / 99 of 100 / longest, ms | with its requests | writes per node | status MB sent per node | read per node | status kB | \
    s in the model | waves × the slowest node, s | ratio | s of simulation |";

fn print(rollout: &str, plan: &Plan, figures: &Figures) {
    let Figures { done, spent, begun, first, passes, writes, traffic, status, took, slowest } = figures;
    let per = |total: f64| total / *done as f64;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let waves = plan.nodes.div_ceil(plan.concurrency.max(1));
    // How long the operator has a node is told of each rollout: what it adds with many of them shows there.
    let (slowest, least) = (slowest.as_secs_f64(), slowest.as_secs_f64() * waves as f64);
    let model = if plan.until == plan.nodes {
        format!("{waves} × {slowest:.1} = {least:.0} | {:.2}", took.as_secs_f64() / least)
    } else {
        format!("× {slowest:.1} | –")
    };
    println!(
        "| {rollout} | {done} | {:.1} | {:.0} | {:.1} | {passes} | {:.1} | {:.2} | {:.2} | {:.0} | {:.0} | {model} | {:.0} |",
        per(ms(spent.operator)),
        ms(first.operator),
        ms(spent.operator - first.operator) / (done - begun).max(1) as f64,
        per(writes.values().sum::<usize>() as f64),
        per(traffic.sent.load(Ordering::Relaxed) as f64 / 1e6),
        per(traffic.read.load(Ordering::Relaxed) as f64 / 1e6),
        *status as f64 / 1e3,
        took.as_secs_f64(),
        spent.simulation.as_secs_f64(),
    );
    if env::var_os("KAIROS_BENCH_WRITES").is_some() {
        let kinds = writes.iter().map(|(write, count)| format!("{write} {:.1}", per(*count as f64)));
        println!("writes per node: {}", kinds.collect::<Vec<_>>().join(", "));
    }
}

/// Plays something on a thread whose time is measured from now on.
fn measured<F: Future>(play: impl FnOnce(Passes) -> F) -> F::Output {
    meter::start();
    let (passes, _guard) = Passes::note();
    run::runtime(1).block_on(meter::metered(play(passes)))
}

/// `KAIROS_BENCH`: rollouts, and `idle=NODES`, see [`Plan::parse`]. `KAIROS_BENCH_WRITES`: also how much is
/// written of what. `KAIROS_BENCH_LOG`: each write, when it was sent and what it says.
#[test]
#[ignore = "a benchmark: scripts/bench runs it"]
fn what_a_rollout_costs() {
    let asked = env::var("KAIROS_BENCH").unwrap_or_else(|_| "100/1/10 100/50/100".into());
    let (idle, rollouts): (Vec<&str>, Vec<&str>) =
        asked.split_whitespace().partition(|what| what.starts_with("idle="));
    for what in idle {
        let nodes = what.trim_start_matches("idle=").parse().expect("a number of nodes");
        idle::print_parts();
        measured(|passes| idle::print(nodes, passes));
    }
    if rollouts.is_empty() {
        return;
    }
    println!("{HEAD}\n|{}", "---|".repeat(HEAD.matches('|').count() - 1));
    for rollout in rollouts {
        let plan = Plan::parse(rollout);
        let figures = measured(|passes| rollout::play(plan.clone(), passes));
        print(rollout, &plan, &figures);
    }
}
