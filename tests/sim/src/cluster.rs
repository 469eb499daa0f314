//! A cluster: the server, its controllers and its nodes, started and stopped together.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    admission::Admission,
    audit::{Request, Right},
    auth::{MASTERS, TEST_USER, User},
    builder::Builder,
    control,
    faults::Faults,
    hollow::{
        fleet::{self, Nodes},
        node::{self, Node},
        registry::Registry,
        script::{Outcome, Run, Script},
    },
    in_process::InProcess,
    kubeconfig,
    meter::metered,
    server::{Shared, http},
    store::{Change, ChangeKind, Key, Object},
};

/// A running cluster. Dropping it ends all its tasks and processes and removes its files.
pub struct Cluster {
    shared: Shared,
    server: Option<String>,
    dir: tempfile::TempDir,
    nodes: Nodes,
    scripts: Arc<Mutex<Vec<Script>>>,
    registry: Registry,
    tasks: Arc<Mutex<JoinSet<()>>>,
    client: Client,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server)
            .field("nodes", &self.nodes.keys())
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// What a cluster is to be like.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn start(plan: Builder) -> anyhow::Result<Self> {
        let shared = Shared::new(plan.seed, plan.rbac, plan.history);
        let below = plan.files_below.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new()
            .prefix("kairos-sim-")
            .tempdir_in(below)
            .context("making a directory for the nodes' disks")?;
        let tasks: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let server = if plan.in_process { None } else { Some(listen(&plan, &shared, &tasks).await?) };
        spawn(&tasks, control::run(shared.clone()));
        let scripts: Arc<Mutex<Vec<Script>>> = Arc::new(Mutex::new(plan.scripts.clone()));
        let registry = Registry::default();
        let config = node::Config {
            server: server.clone().unwrap_or_default(),
            disks: !plan.in_process,
            operator: plan.operator.clone(),
            boot_time: plan.boot,
            not_ready_after: plan.not_ready_after,
            script_time: plan.script_time,
            scripts: scripts.clone(),
            images: Arc::new(plan.images.clone()),
            registry: registry.clone(),
            tasks: tasks.clone(),
        };
        let token = shared.lock().token(User::new("system:node:sim", &["system:nodes"]));
        let door = Door { shared: &shared, server: server.as_deref() };
        let kubelet = door.client("sim", &token).await?;
        shared.lock().nodes = Some(dir.path().join("nodes"));
        let nodes = make_nodes(&plan, &config, &kubelet, dir.path())?;
        fleet::register(&nodes).await.context("registering the nodes")?;
        spawn(&tasks, fleet::run(kubelet, nodes.clone(), shared.faults.cuts(false)));
        let token = shared.lock().token(User::new(TEST_USER, &[MASTERS]));
        let client = door.client("test", &token).await?;
        let token = shared.lock().token(User::new("admin", &[MASTERS]));
        if let Some(server) = &server {
            std::fs::write(
                dir.path().join("kubeconfig"),
                kubeconfig::text(server, "admin", &token, "default"),
            )?;
        }
        Ok(Self { shared, server, dir, nodes, scripts, registry, tasks, client })
    }

    /// Address of the API; empty if it is in this process only.
    pub fn server(&self) -> &str {
        self.server.as_deref().unwrap_or_default()
    }

    /// The directory of all files of this cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's kubeconfig, for kubectl and for an operator that runs outside.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A kubeconfig of a service account, which is made if it is not there.
    pub fn kubeconfig_for(&self, namespace: &str, account: &str) -> anyhow::Result<PathBuf> {
        let token = self.account_token(namespace, account)?;
        let path = self.dir.path().join(format!("kubeconfig-{namespace}-{account}"));
        std::fs::write(&path, kubeconfig::text(self.server(), account, &token, namespace))?;
        Ok(path)
    }

    /// The test's own client: it may do everything, and faults spare it.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client with the rights of a service account, which is made if it is not there.
    pub async fn client_for(&self, namespace: &str, account: &str) -> anyhow::Result<Client> {
        let token = self.account_token(namespace, account)?;
        Door { shared: &self.shared, server: self.server.as_deref() }.client(account, &token).await
    }

    /// The server as a service of this process, for whoever holds the token.
    pub fn service(&self, token: &str) -> InProcess {
        InProcess::new(&self.shared, token)
    }

    /// A token of a service account, which is made if it is not there.
    pub fn account_token(&self, namespace: &str, account: &str) -> anyhow::Result<String> {
        let mut state = self.shared.lock();
        if state.store.get(&Key::new("namespaces", "", namespace)).is_none() {
            state.seed("", "v1", "namespaces", serde_json::json!({"metadata": {"name": namespace}}));
        }
        if state.store.get(&Key::new("serviceaccounts", namespace, account)).is_none() {
            state.seed(
                "",
                "v1",
                "serviceaccounts",
                serde_json::json!({"metadata": {"name": account, "namespace": namespace}}),
            );
        }
        state.account_token(namespace, account).map_err(|error| anyhow::anyhow!(error.message))
    }

    /// Faults on demand.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Makes all watches start over: the versions that they would resume from are forgotten (410).
    pub fn compact(&self) {
        self.shared.lock().store.compact();
        self.shared.faults.close_watches();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().audit.clone()
    }

    /// All rights that were used so far.
    pub fn rights(&self) -> Vec<Right> {
        self.shared.lock().rights.iter().cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.lock().audit.clear();
    }

    /// All changes of all objects so far, in their order.
    pub fn history(&self) -> Vec<Arc<Change>> {
        self.shared.lock().store.history(0)
    }

    /// The changes after a version, as far as they are remembered.
    pub fn history_since(&self, version: u64) -> Vec<Arc<Change>> {
        self.shared.lock().store.history(version)
    }

    /// The present version of an object; the table is the plural name with the group, as in `jobs.batch`.
    pub fn get(&self, table: &str, namespace: &str, name: &str) -> Option<Object> {
        self.shared.lock().store.get(&Key::new(table, namespace, name))
    }

    /// All objects of a table.
    pub fn list(&self, table: &str) -> Vec<Object> {
        self.shared.lock().store.list(table, None).cloned().collect()
    }

    /// Waits until an object of a table is as wanted, now or at any moment from now on. It looks at every
    /// version since, not only at the latest one: what lasts for a moment is found on a slow machine, too.
    pub async fn until(
        &self,
        table: &str,
        timeout: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Object> {
        let (mut head, mut seen, now): (_, u64, Vec<Object>) = {
            let mut state = self.shared.lock();
            let head = state.store.follow(table, None);
            (head, state.store.version(), state.store.list(table, None).cloned().collect())
        };
        let found = async {
            let mut looked_at = now.into_iter();
            loop {
                match looked_at.by_ref().find(|object| wanted(object)) {
                    Some(found) => return Ok(found),
                    None => head.changed().await?,
                }
                let changes = self.shared.lock().store.history(seen);
                seen = changes.last().map_or(seen, |change| change.version);
                let there = changes.into_iter().filter(|change| {
                    change.key.table.as_ref() == table && change.kind != ChangeKind::Deleted
                });
                looked_at = there.map(|change| change.object.clone()).collect::<Vec<_>>().into_iter();
            }
        };
        tokio::time::timeout(timeout, found).await.with_context(|| format!("waiting for one of {table}"))?
    }

    /// Waits until no object of a table is as said.
    pub async fn until_none(
        &self,
        table: &str,
        timeout: Duration,
        unwanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let mut head = self.shared.lock().store.follow(table, None);
        let gone = async {
            while self.list(table).iter().any(|o| unwanted(o)) {
                head.changed().await?;
            }
            Ok(())
        };
        tokio::time::timeout(timeout, gone)
            .await
            .with_context(|| format!("waiting until none of {table} is left"))?
    }

    /// A node. Asking for one that is none is a mistake of the test.
    #[expect(clippy::panic, reason = "a wrong name in a test has no better answer")]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// What the tags of images mean, and what nodes have in their caches.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// The store goes back to what it was after this version, as after a restore of etcd: resourceVersions
    /// are given a second time, and all watches end.
    pub fn restore(&self, version: u64) {
        self.shared.lock().store.restore(version);
        self.shared.faults.close_all_watches();
    }

    /// What is not admitted, and what admission adds.
    pub fn admission(&self) -> Admission {
        self.shared.lock().admission.clone()
    }

    /// Adds a script; the latest one that is about a run decides what it does.
    pub fn script(&self, script: impl Fn(&Run) -> Option<Outcome> + Send + Sync + 'static) {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(script));
    }

    /// Creates or changes the objects of a text of YAML documents, as `kubectl apply` does.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        crate::apply::apply(&self.client, yaml).await
    }

    /// Ends the cluster.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Processes are children of these tasks and are killed with them.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        // They may hold nodes, which hold the scripts.
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn spawn(tasks: &Mutex<JoinSet<()>>, task: impl Future<Output = ()> + Send + 'static) {
    tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(metered(task));
}

async fn listen(plan: &Builder, shared: &Shared, tasks: &Mutex<JoinSet<()>>) -> anyhow::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", plan.port)).await.context("listening on a local port")?;
    let server = format!("http://{}", listener.local_addr()?);
    spawn(tasks, http::serve(listener, shared.clone()));
    Ok(server)
}

/// The way to the server: its address, or this process.
struct Door<'a> {
    shared: &'a Shared,
    server: Option<&'a str>,
}

impl Door<'_> {
    async fn client(&self, user: &str, token: &str) -> anyhow::Result<Client> {
        let Some(server) = self.server else {
            return Ok(Client::new(InProcess::new(self.shared, token), "default"));
        };
        let text = kubeconfig::text(server, user, token, "default");
        let mut config =
            Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text)?, &KubeConfigOptions::default())
                .await?;
        // By default the client itself tries a 429 again for minutes, and nobody sees a refused eviction or a
        // fault.
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }
}

/// Control-plane nodes come first: `n1`, `n2`, … in one row.
fn make_nodes(plan: &Builder, config: &node::Config, client: &Client, dir: &Path) -> anyhow::Result<Nodes> {
    let mut nodes = BTreeMap::new();
    for index in 0..plan.nodes {
        let name = format!("n{}", index + 1);
        let place = dir.join("nodes").join(&name);
        let node =
            Node::new(&name, index, index < plan.control_planes, config.clone(), client.clone(), place);
        nodes.insert(name.clone(), node.with_context(|| format!("making the disk of {name}"))?);
    }
    Ok(Arc::new(nodes))
}
