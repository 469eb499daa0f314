//! Operators that live, are killed at any request or moment, and live again: the real controller with its
//! watches, caches, plans and writes.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use kairos_operator::{
    cli::{self, Applet},
    controllers::{Clock, Controller, Running, args::ControllerArgs},
};
use kairos_sim::watch;
use tokio::{sync::mpsc, time::sleep};

use super::{
    scenario::Mode,
    wire::Wire,
    world::{World, time_off_by},
    worlds::Kind,
};

/// What is asked of an operator from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGKILL.
    Kill,
    /// SIGTERM: the Lease is handed over.
    End,
}

/// One replica through its lives.
#[derive(Clone, Debug)]
pub struct Replica {
    pub orders: mpsc::UnboundedSender<Order>,
    /// Seconds that its machine's clock is off, which its next life begins with.
    pub off: Arc<AtomicI64>,
    /// And when nobody sets it.
    pub base: i64,
}

pub fn args(mode: Mode, worlds: &BTreeSet<Kind>) -> ControllerArgs {
    let elect = format!("--leader-elect={}", mode == Mode::Elected);
    let said = if worlds.contains(&Kind::DrainsAreSaid) { "auto" } else { "off" };
    let (namespace, conditions) =
        ("--controller-pod-namespace=operator-system", format!("--node-conditions={said}"));
    let argv = ["kairos-operator", "controller", &elect, namespace, &conditions].map(OsString::from);
    match cli::parse(argv) {
        Ok(Applet::Controller(args)) => *args,
        other => panic!("{other:?}"),
    }
}

impl Replica {
    /// Starts a replica; it lives until the runtime ends.
    pub fn start(world: &Arc<World>, number: usize, mode: Mode) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let base = if world.is(Kind::ClocksApart) { world.rng(|rng| rng.i64(-7_200..7_200)) } else { 0 };
        let off = Arc::new(AtomicI64::new(base));
        tokio::spawn(live(world.clone(), number, args(mode, &world.worlds), inbox, off.clone()));
        Self { orders, off, base }
    }
}

async fn live(
    world: Arc<World>,
    number: usize,
    args: ControllerArgs,
    mut orders: mpsc::UnboundedReceiver<Order>,
    off: Arc<AtomicI64>,
) {
    for life in 0.. {
        let alive = watch::channel(true).0;
        let name = format!("operator-{number}.{life}");
        world.note(|| format!("{name} starts"));
        let running = begin(&world, &args, &name, &alive, &off);
        let mut dead = alive.subscribe();
        let order = tokio::select! {
            biased;
            _ = dead.wait_for(|alive| !alive) => Order::Kill,
            order = orders.recv() => match order {
                Some(order) => order,
                None => return,
            }
        };
        world.note(|| format!("{name}: {order:?}"));
        match order {
            Order::Kill => running.kill(),
            Order::End => running.hand_over().await,
        }
        alive.send_replace(false);
        // What was ordered of the dead is nothing to the next one.
        sleep(if world.chance(50) { world.time(0, 2_000) } else { world.time(0, 30_000) }).await;
        while orders.try_recv().is_ok() {}
    }
}

fn begin(
    world: &Arc<World>,
    args: &ControllerArgs,
    name: &str,
    alive: &watch::Sender<bool>,
    off: &Arc<AtomicI64>,
) -> Running {
    let client = Wire::client(world, name, &world.operator_token, true, alive.clone());
    let clock = Clock::set_to(time_off_by(off.load(Ordering::Relaxed)));
    Controller::new(args, client, clock, name.to_owned()).start()
}

/// How long a replica may take to be back.
pub const BACK: Duration = Duration::from_secs(31);
