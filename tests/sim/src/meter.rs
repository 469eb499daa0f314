//! What the simulation costs, so that a benchmark can tell it from what the operator does.
//!
//! Everything that is not the operator is polled through [`metered`]; in a runtime of one thread the rest of
//! that thread's CPU time is the operator's. It measures nothing before [`start`] was called on the thread.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

thread_local! {
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
}

/// The CPU time of this thread, and whose it was.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    /// How many metered calls are under way, one in the other.
    depth: u32,
    /// When the last change of hands was.
    since: Duration,
    ours: Duration,
    theirs: Duration,
    longest: Duration,
}

/// What has been measured so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// By the operator.
    pub operator: Duration,
    /// By everything else.
    pub simulation: Duration,
    /// The longest time for which the operator kept the thread.
    pub longest: Duration,
}

/// Measures on this thread from now on.
pub fn start() {
    METER.set(Some(Meter { since: cpu_time(), ..Meter::default() }));
}

/// What was spent since then.
pub fn spent() -> Spent {
    let meter = METER.get().unwrap_or_default();
    Spent { operator: meter.theirs, simulation: meter.ours, longest: meter.longest }
}

/// Forgets the longest time so far.
pub fn forget_longest() {
    METER.set(METER.get().map(|meter| Meter { longest: Duration::ZERO, ..meter }));
}

/// Calls what is part of the simulation.
pub fn call<T>(work: impl FnOnce() -> T) -> T {
    if METER.get().is_none() {
        return work();
    }
    enter();
    let done = if METER.get().is_some_and(|meter| meter.depth == 1) { outermost(work) } else { work() };
    leave();
    done
}

/// What callgrind is not to count.
#[inline(never)]
fn outermost<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Polls what is part of the simulation.
pub fn metered<F: Future>(future: F) -> impl Future<Output = F::Output> {
    Metered(Box::pin(future))
}

struct Metered<F>(Pin<Box<F>>);

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        call(|| self.0.as_mut().poll(context))
    }
}

fn enter() {
    let Some(mut meter) = METER.get() else { return };
    if meter.depth == 0 {
        let now = cpu_time();
        let stretch = now.saturating_sub(meter.since);
        meter.theirs += stretch;
        meter.longest = meter.longest.max(stretch);
        meter.since = now;
    }
    meter.depth += 1;
    METER.set(Some(meter));
}

fn leave() {
    let Some(mut meter) = METER.get() else { return };
    meter.depth -= 1;
    if meter.depth == 0 {
        let now = cpu_time();
        meter.ours += now.saturating_sub(meter.since);
        meter.since = now;
    }
    METER.set(Some(meter));
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
