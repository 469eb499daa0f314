//! What a cluster is to be like.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    Cluster,
    hollow::script::{Outcome, Run, Script},
};

/// Settings of a cluster.
#[derive(Clone)]
pub struct Builder {
    pub(crate) nodes: usize,
    pub(crate) control_planes: usize,
    pub(crate) port: u16,
    pub(crate) operator: Option<PathBuf>,
    pub(crate) boot: Duration,
    pub(crate) not_ready_after: Duration,
    pub(crate) script_time: Duration,
    pub(crate) scripts: Vec<Script>,
    pub(crate) images: BTreeMap<String, PathBuf>,
    pub(crate) seed: u64,
    pub(crate) rbac: bool,
    pub(crate) history: usize,
    pub(crate) in_process: bool,
    pub(crate) files_below: Option<PathBuf>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("nodes", &self.nodes)
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: 3,
            control_planes: 0,
            port: 0,
            operator: None,
            boot: Duration::from_secs(1),
            not_ready_after: Duration::from_secs(5),
            script_time: Duration::from_millis(50),
            scripts: Vec::new(),
            images: BTreeMap::new(),
            seed: 1,
            rbac: true,
            history: usize::MAX,
            in_process: false,
            files_below: None,
        }
    }
}

impl Builder {
    /// How many nodes, `n1` and on; control planes included.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = count;
        self
    }

    /// How many of them, from the first on, are control planes.
    #[must_use]
    pub fn control_planes(mut self, count: usize) -> Self {
        self.control_planes = count;
        self
    }

    /// Where the API listens; 0 (the default): any free port of the loopback.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The operator's binary, which containers named `kairos-operator` run. Without it they are scripts like
    /// all others.
    #[must_use]
    pub fn operator(mut self, binary: impl AsRef<Path>) -> Self {
        self.operator = Some(binary.as_ref().to_owned());
        self
    }

    /// How long a node is away when it reboots.
    #[must_use]
    pub fn boot(mut self, time: Duration) -> Self {
        self.boot = time;
        self
    }

    /// How long a node must be away until it shows as NotReady.
    #[must_use]
    pub fn not_ready_after(mut self, time: Duration) -> Self {
        self.not_ready_after = time;
        self
    }

    /// How long a container runs that no script is about.
    #[must_use]
    pub fn script_time(mut self, time: Duration) -> Self {
        self.script_time = time;
        self
    }

    /// Adds a script; the latest one that is about a run decides what it does.
    #[must_use]
    pub fn script(mut self, script: impl Fn(&Run) -> Option<Outcome> + Send + Sync + 'static) -> Self {
        self.scripts.push(Arc::new(script));
        self
    }

    /// What an image holds: a directory whose files appear in containers of that image.
    #[must_use]
    pub fn image(mut self, name: &str, dir: impl AsRef<Path>) -> Self {
        self.images.insert(name.into(), dir.as_ref().to_owned());
        self
    }

    /// Where UIDs, name suffixes and tokens come from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether RBAC is enforced (it is, unless this says otherwise).
    #[must_use]
    pub fn rbac(mut self, enforced: bool) -> Self {
        self.rbac = enforced;
        self
    }

    /// How many changes are remembered (all of them, unless this says otherwise). Older versions cannot be
    /// watched.
    #[must_use]
    pub fn history(mut self, changes: usize) -> Self {
        self.history = changes;
        self
    }

    /// Where the directory with all files of the cluster is made; without it, where temporary files are.
    pub fn files_below(mut self, directory: impl Into<PathBuf>) -> Self {
        self.files_below = Some(directory.into());
        self
    }

    /// No socket, no process and no disk of a node: clients come from [`Cluster::client_with`], containers
    /// are scripts. Such a cluster can run on one thread in paused time.
    #[must_use]
    pub fn in_process(mut self) -> Self {
        self.in_process = true;
        self
    }

    /// Starts the cluster; its nodes are registered and Ready when this returns.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        Cluster::start(self).await
    }
}
