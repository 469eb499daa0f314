//! The node's lock, as `node::lock` defines it, on machines without files.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kairos_operator::node::lock::ABANDONED;
use kube::ResourceExt;
use tokio::time::{Instant, sleep};

use super::world::World;

/// What stands for the lock's file and the kernel's word on it.
#[derive(Clone, Debug, Default)]
pub struct Lock {
    /// Somebody has it.
    held: bool,
    /// What stands in the file: the UID of a pod, or nothing.
    by: String,
    /// Whose UID stood there when it was found free, and since when that has been so.
    left: Option<(String, Instant)>,
    /// The boot that it is of.
    boot: String,
}

/// The lock, until this is dropped, however its holder ends.
struct Held<'a>(&'a World, &'a str, String);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Self(world, node, boot) = self;
        locked(world, node, |lock| lock.held &= lock.boot != *boot);
    }
}

/// The machine's lock in its present boot: `/run` is empty after each.
fn locked<T>(world: &World, node: &str, look: impl FnOnce(&mut Lock) -> T) -> T {
    let boot = world.nodes[node].boot().id;
    world.machine(node, |machine| {
        if machine.lock.boot != boot {
            machine.lock = Lock { boot, ..Lock::default() };
        }
        look(&mut machine.lock)
    })
}

fn take<'a>(world: &'a World, node: &'a str, me: &str) -> Option<Held<'a>> {
    let boot = locked(world, node, |lock| {
        if lock.held {
            lock.left = None;
            return None;
        }
        if !lock.by.is_empty() && lock.by != me {
            let since = match &lock.left {
                Some((by, since)) if *by == lock.by => *since,
                _ => Instant::now(),
            };
            lock.left = Some((lock.by.clone(), since));
            if since.elapsed() < ABANDONED {
                return None;
            }
        }
        (lock.held, lock.by) = (true, me.to_owned());
        Some(lock.boot.clone())
    })?;
    Some(Held(world, node, boot))
}

/// Waits for the lock and holds it, for a pod. Who ends it ends it with SIGTERM, as a rule.
pub async fn hold(world: &World, node: &str, pod: &Pod, beside_init: bool) -> (i32, String) {
    let me = pod.uid().unwrap_or_default();
    let back = (!beside_init).then(|| GiveBack(world, node, &me));
    let _held = loop {
        match take(world, node, &me) {
            Some(held) => break held,
            None => sleep(Duration::from_millis(100)).await,
        }
    };
    // It runs for a while, and dies: the kubelet starts it again.
    if world.chance(10) {
        sleep(world.time(1, 5_000)).await;
        std::mem::forget(back);
        return (137, String::new());
    }
    std::future::pending().await
}

/// Takes the pod's UID out of the file.
struct GiveBack<'a>(&'a World, &'a str, &'a str);

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        let Self(world, node, me) = self;
        locked(world, node, |lock| {
            if lock.by == **me {
                lock.by.clear();
            }
        });
    }
}

/// Whether the pod has the lock.
pub fn is_held_by(world: &World, node: &str, pod: &Pod) -> bool {
    locked(world, node, |lock| Some(&lock.by) == pod.metadata.uid.as_ref())
}

/// An upgrade's wrapper takes it, or gives up after a while.
pub async fn of_upgrade<'a>(world: &'a World, node: &'a str) -> Option<impl Drop + use<'a>> {
    let until = Instant::now() + Duration::from_secs(960);
    loop {
        match take(world, node, "") {
            Some(held) => return Some(held),
            None if Instant::now() >= until => return None,
            None => sleep(Duration::from_millis(100)).await,
        }
    }
}
