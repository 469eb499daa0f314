//! The [`World`] of a real pod on a real node.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result};
use futures::{FutureExt, StreamExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use super::{
    api::{Cluster, JobEvents},
    decide::{Announced, Live},
    state_dir::StateDir,
    waiter::World,
    watch::Watch,
};
use crate::{contract::Sentinel, node::host::Host};

/// Why a node that is a container (kind, k3d) is not asked.
const UNNOTED: &str = "it is a container, which may keep its boot id, and without a note on its disk it would \
                       be asked again and again; make room in the state directory";

/// A node, its API server, and the signals of the kubelet.
pub(super) struct Node {
    host: Host,
    cluster: Cluster,
    directory: StateDir,
    boot: String,
    watch: Watch,
    job_events: Option<JobEvents>,
    terminate: Signal,
    stopped: bool,
    started: Instant,
    init_refusal: Option<String>,
}

impl Node {
    pub fn new(host: Host, cluster: Cluster, directory: StateDir, boot: String) -> Result<Self> {
        Ok(Self {
            watch: Watch::new(directory.path.clone()),
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            host,
            cluster,
            directory,
            boot,
            job_events: None,
            stopped: false,
            started: Instant::now(),
            init_refusal: None,
        })
    }
}

impl World for Node {
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn stopped(&mut self) -> bool {
        self.stopped |= self.terminate.recv().now_or_never().is_some();
        self.stopped
    }

    fn read(&mut self) -> Option<Sentinel> {
        self.watch.arm();
        self.directory.sentinel()
    }

    fn has_record(&self) -> bool {
        self.directory.has_record()
    }

    async fn look(&mut self, job_uid: Option<&str>) -> Live {
        self.cluster.look(job_uid).await
    }

    async fn announce(&mut self, state: &'static str) -> Announced {
        self.cluster.announce(state).await
    }

    fn last_error(&self) -> Option<String> {
        self.cluster.last_error()
    }

    async fn wait(&mut self, job: bool, at_most: Duration) {
        let by_job = job || !self.watch.stands();
        match by_job {
            true if self.job_events.is_none() => self.job_events = Some(self.cluster.watch_job()),
            true => {}
            false => self.job_events = None,
        }
        let job_event = async {
            match &mut self.job_events {
                Some(events) => drop(events.next().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.watch.changed() => {}
            () = job_event => {}
            _ = self.terminate.recv() => self.stopped = true,
            () = tokio::time::sleep(at_most) => {}
        }
    }

    fn has_restarted(&mut self, sentinel: &Sentinel) -> bool {
        let asked = self.directory.asked_init(sentinel);
        asked.is_some_and(|asked| self.host.init_start().is_ok_and(|start| start != asked))
    }

    fn note_asking(&mut self, sentinel: &Sentinel) -> Result<()> {
        let noted = self.host.init_start().and_then(|start| self.directory.note_asked(sentinel, &start));
        let Err(error) = noted else { return Ok(()) };
        if self.host.is_container() {
            return Err(error.context(UNNOTED));
        }
        warn!("it is not known later that the reboot was asked for: {error:#}");
        Ok(())
    }

    fn ask_init(&mut self) -> Result<()> {
        self.host.ask_init().inspect_err(|error| self.init_refusal = Some(format!("{error:#}")))
    }

    async fn ask_kernel(&mut self) -> Error {
        let why =
            self.init_refusal.take().unwrap_or_else(|| "init was asked and the node is still up".into());
        warn!("{why}");
        self.cluster.tell_of_kernel_reboot(&why).await;
        match self.host.ask_kernel() {
            Err(error) => error,
        }
    }

    fn remove(&mut self, sentinel: &Sentinel) -> Result<()> {
        self.directory.remove(sentinel, &self.boot)
    }
}

/// A number that differs between pods.
pub(super) fn jitter(uid: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or(0)
}
