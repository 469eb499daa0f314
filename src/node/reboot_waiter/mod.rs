//! Applet `reboot-waiter`: reboots the node once, after its Job has succeeded. Never twice, never unasked,
//! never not.
//!
//! A reboot is due if and only if the sentinel of its own Job names the boot that the node is still in, and a
//! live GET shows that very Job `Complete`. Nothing else is remembered, in the process or on the pod, so a
//! waiter that is killed, replaced or started again finds by itself where things stand. (A waiter that is
//! made after the controller has recorded both is told so by its arguments, since a Job may be deleted at any
//! time: what is recorded then stands for the sentinel, and for the Job. And which init it asks is written
//! down on the node, for nodes whose boot id stays when they restart.)
//!
//! | after this line, the power fails or the waiter is killed | what the next start does |
//! |---|---|
//! | the directory is made, and room for the sentinel and for the note of what is asked is kept in it | finds both; if the room is gone, keeps it anew, unless the sentinel is there |
//! | the watch stands | sets it anew, *then* lists: a sentinel from before is found |
//! | `waiting` announced, or lost on the way | announces it again |
//! | the sentinel is found | finds it again: due |
//! | the Job is seen `Complete` | asks again; an old answer is never acted on |
//! | `rebooting` announced, or lost on the way | still due: looks, announces, asks init |
//! | `rebooting` announced with a token that is not taken (401) | looks until it is, and begins from there; init is not asked |
//! | init is asked, and the node stays up | still due: asks init again, to whom that is one request; then the grace, then the kernel |
//! | init is asked, and the node starts anew in the same boot id (it is a container: kind, k3d) | the init that was asked, as written down before, is another one: ends with that, and asks nothing |
//! | that init is to be asked cannot be written down (a disk that is full, read-only or hangs) | a machine is asked all the same; a node that plainly is a container is not, it would be without an end: ends with that, is started again, and tries again |
//! | init or the kernel is asked, and the node goes down | another boot than the sentinel's: `completed` |
//! | the node reboots by itself, at any line above | the same, if the Job is `Complete`; if it goes on, waits for its end, as the operation may succeed again in this boot |
//! | `completed` announced, or lost on the way | announces it again, removes the sentinel |
//! | the sentinel is removed, before exit 0 | the pod's own annotation says `completed`: exit 0 |
//! | the sentinel is removed as the Job failed, before exit 0 | the Job is seen failed: exit 0; if it is gone: waits, until the controller deletes the pod |
//! | the Job is seen `Complete`, and there is no sentinel | looks anew, and once more a minute later: if it is `Complete` still and no file is in the sentinel's place, exit 0 |
//!
//! Each row is a test in `crashes`, those of containers in `same_boot`, the last one in `nothing_due`, and
//! `storms` plays random ones in random order.
//!
//! For a sentinel it waits without an end while the Job may bring one: how long an operation may take is the
//! controller's to judge, which deletes this pod. A Job that is `Complete` brings none any more: its pod
//! writes the sentinel before it ends. So it was acted on and removed, or nothing asked for a reboot; and
//! should the disk have lost it, the controller has read it from the Job's pod, and tells the next waiter.
//! Who ends so is a pod that was started again since the API server's store went back to when it ran. Its own
//! deadline (`--timeout-seconds`) counts from when it found the sentinel; over, it ends with 1 and leaves the
//! sentinel: a restart goes on where it stood. After init was asked there is only the grace.
//!
//! A state directory that is full, read-only or no directory is found before `waiting` is announced, and so
//! before the operation begins: what is written there for trial is kept as the room of the sentinel and of
//! that note ([`super::host::reserve`]).
//!
//! Where it cannot be said whether a pod or Job exists (no answer, 401, 403, 500), it waits. It gives up
//! without a reboot, and leaves the sentinel, if its own pod is gone, replaced or being deleted: who deletes
//! the pod cancels the reboot, and a replacement has its own waiter.

mod api;
#[cfg(test)]
mod crashes;
mod decide;
mod node;
#[cfg(test)]
mod nothing_due;
mod request;
#[cfg(test)]
mod said_again;
#[cfg(test)]
mod same_boot;
pub mod state_dir;
#[cfg(test)]
mod storms;
mod waiter;
mod watch;
#[cfg(test)]
mod world;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use kube::{Client, Config};
use tracing::{info, warn};

pub use self::{
    api::{Cluster, Identity, JobEvents},
    decide::{Announced, Live},
    waiter::{Limits, Waiter, World},
};
use self::{node::Node, state_dir::StateDir};
use super::{
    AppletExit,
    host::{Host, init::Reach},
    job_name,
};
use crate::contract::Succeeded;

/// Arguments of the applet.
#[derive(Clone, Debug, Args)]
pub struct RebootWaiterArgs {
    /// The state directory, below a mount of its parent.
    #[arg(long)]
    pub state_dir: PathBuf,
    /// Name of the Job whose success is followed by a reboot.
    #[arg(long, value_parser = job_name)]
    pub job: String,
    /// UID of the NodeOp that controls the Job.
    #[arg(long)]
    pub owner_uid: String,
    /// UID of the Job, if its success is recorded: it may be gone by now, and its sentinel with it.
    #[arg(long, requires = "succeeded_in")]
    pub succeeded_job: Option<String>,
    /// The boot in which it succeeded.
    #[arg(long, requires = "succeeded_job")]
    pub succeeded_in: Option<String>,
    /// How long to wait, from the sentinel on, for what must come before the reboot.
    #[arg(long)]
    pub timeout_seconds: u32,
    /// How long init gets before the kernel is asked.
    #[arg(long)]
    pub grace_seconds: u32,
}

impl RebootWaiterArgs {
    /// What is recorded of the Job.
    pub fn succeeded(&self) -> Option<Succeeded> {
        let (job_uid, boot) = self.succeeded_job.clone().zip(self.succeeded_in.clone())?;
        Some(Succeeded { job_uid, boot })
    }
}

/// Checks that it could do its work, then waits for it.
pub fn run(args: &RebootWaiterArgs, host: &Host) -> Result<AppletExit> {
    let me = Identity::from_env()?;
    let boot = host.boot_id()?;
    let directory = StateDir::new(host.path(&args.state_dir), &args.job, args.succeeded());
    directory.prepare()?;
    match host.reach()? {
        Reach::Init => info!(boot, "init can be asked"),
        Reach::KernelOnly(why) => warn!(boot, "only the kernel can be asked: {why}"),
    }
    let limits = Limits {
        timeout: Duration::from_secs(args.timeout_seconds.into()),
        grace: Duration::from_secs(args.grace_seconds.into()),
        jitter: node::jitter(&me.uid),
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    let ended = runtime.block_on(async {
        let mut config = Config::infer().await.context("finding the cluster")?;
        // The waiter tries again by itself, with what it knows by then; a request that goes on trying has an
        // old answer.
        config.default_retry = false;
        let client = Client::try_from(config).context("making a client")?;
        let succeeded = args.succeeded_job.clone();
        let cluster = Cluster::new(client, me, &args.job, &args.owner_uid, succeeded).in_boot(&boot);
        let node = Node::new(host.clone(), cluster, directory, boot.clone())?;
        Ok(Waiter::new(node, boot, limits).run().await)
    });
    runtime.shutdown_background();
    ended
}
