//! Whole rollouts of the real operator against kairos-sim, in one process and in paused time, while
//! everything goes wrong.
//!
//! `KAIROS_CHAOS_SEEDS=5000 cargo test --profile chaos --test it chaos` runs that many seeds (from
//! `KAIROS_CHAOS_FROM` on, until `KAIROS_CHAOS_ENOUGH` of them failed); `KAIROS_CHAOS_SEED=42` runs one of
//! them and prints what happened. A run is one thread: the API server, its controllers and hollow nodes
//! ([`kairos_sim`]), one or two operators ([`operator`]) whose requests and watches go through [`wire`], the
//! real reboot waiter on machines that are none ([`waiter`], [`kubelet`]), and people and machines that make
//! [`trouble`]. Minutes of waiting cost nothing. Some seeds are played in odd [`worlds`], each of which can
//! be asked for by its name.
//!
//! What is checked stands in [`history`], on the server's history and on the book of what machines did; never
//! on what the operator says of itself.

mod bench;
mod doubt;
mod history;
mod kubelet;
mod lock;
mod operator;
mod run;
mod scenario;
mod trouble;
mod waiter;
mod watched;
mod wire;
mod world;
mod worlds;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use run::{Outcome, run};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 64;
/// After this number of failed seeds the others would tell nothing new.
const ENOUGH: usize = 20;
/// The number of slowest seeds that are named.
const SLOWEST: usize = 8;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn fails(seed: u64) -> Option<(u64, Vec<String>)> {
    let outcome = std::panic::catch_unwind(|| run(seed));
    let broken = outcome.map_or_else(|_| vec!["it panics".into()], |outcome| outcome.broken);
    if let Some(first) = broken.first() {
        eprintln!("seed {seed}: {first}");
    }
    (!broken.is_empty()).then_some((seed, broken))
}

/// Runs seeds on as many threads as there are cores, until `enough` have broken something, and returns those.
/// Which took longest is printed (`--nocapture` shows it).
fn sweep(from: u64, to: u64, enough: usize) -> Vec<(u64, Vec<String>)> {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(4);
    let (next, failed) = (AtomicU64::new(from), Mutex::new(Vec::new()));
    let times = Mutex::new(Vec::new());
    let failures = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while failures().len() < enough {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to {
                return;
            }
            let begun = Instant::now();
            let broken = fails(seed);
            times.lock().unwrap_or_else(PoisonError::into_inner).push((begun.elapsed(), seed));
            failures().extend(broken);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut times = times.into_inner().unwrap_or_else(PoisonError::into_inner);
    times.sort();
    let slowest: Vec<String> =
        times.iter().rev().take(SLOWEST).map(|(time, seed)| format!("{seed} in {time:.1?}")).collect();
    eprintln!("the slowest of {} seeds: {}", times.len(), slowest.join(", "));
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort();
    failed
}

#[test]
fn what_must_never_happen_does_not() {
    if let Some(seed) = number("KAIROS_CHAOS_SEED") {
        let Outcome { broken, log, .. } = run(seed);
        println!("{}", log.join("\n"));
        assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
        return;
    }
    let from = number("KAIROS_CHAOS_FROM").unwrap_or(0);
    let seeds = number("KAIROS_CHAOS_SEEDS").unwrap_or(SEEDS);
    let enough =
        number("KAIROS_CHAOS_ENOUGH").map_or(ENOUGH, |enough| usize::try_from(enough).expect("a count"));
    let failed = sweep(from, from + seeds, enough);
    let shown: Vec<String> =
        failed.iter().map(|(seed, what)| format!("seed {seed}: {}", what.join("; "))).collect();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds:\n{}\nKAIROS_CHAOS_SEED={} cargo test --test it chaos::what -- --nocapture",
        failed.len(),
        shown.join("\n"),
        failed[0].0
    );
}

/// Seeds that once found something in the operator: an object that was gone, deleted again and again for a
/// watch that stood still (29); a Lease handed over while a write was on its way (478); reboots said to be
/// cancelled that came (370, 489, 553); a status that a node filled (420).
const FOUND: [u64; 6] = [29, 370, 420, 478, 489, 553];

#[test]
fn what_was_found_stays_fixed() {
    let failed: Vec<_> = FOUND.into_iter().filter_map(fails).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_seed_is_a_history() {
    for seed in [2, 3, 5] {
        let (one, other) = (run(seed), run(seed));
        let differs = one.log.iter().zip(&other.log).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((one.log.len(), one.digest), (other.log.len(), other.digest), "seed {seed}");
    }
}
