//! A cluster with the project's manifests installed, and operators that run against it with their own
//! account's rights.

use std::{
    collections::BTreeSet,
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kairos_operator::{
    api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade},
    contract,
    manifests::install::objects,
};
use kairos_sim::{Builder, Cluster, Effect, Fault, Outcome, Request, install, kairos};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A watchdog, and no measure of anything: far longer than all that is waited for here takes on a machine
/// under load.
pub const LONG: Duration = Duration::from_secs(600);
/// Clusters at once: each is a server, some nodes and several processes.
static CLUSTERS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(6));
pub const OPS: &str = "nodeops.operator.kairos.io";
pub const UPGRADES: &str = "nodeopupgrades.operator.kairos.io";
/// The user that the operator is.
pub const OPERATOR: &str = "system:serviceaccount:operator-system:operator-kairos-operator";

/// What the users that the waiters are begin with.
pub const WAITERS: &str = "system:serviceaccount:default:";

/// A cluster and its operators.
pub struct Rig {
    pub cluster: Cluster,
    pub operators: Vec<Operator>,
    _images: tempfile::TempDir,
    _turn: SemaphorePermit<'static>,
}

impl Rig {
    /// Nodes of which the first is a control plane, and one operator without an election.
    pub async fn new(nodes: usize) -> Self {
        Self::with(Cluster::builder().nodes(nodes).control_planes(1)).await
    }

    pub async fn with(builder: Builder) -> Self {
        let mut rig = Self::idle(builder).await;
        rig.start(&[]);
        rig
    }

    /// No operator yet. Nodes run v3.4.2; the images `kairos:v3.5.0` and `kairos:v3.6.0` upgrade them.
    pub async fn idle(builder: Builder) -> Self {
        let turn = CLUSTERS.acquire().await.unwrap();
        let images = tempfile::tempdir().unwrap();
        let mut builder = builder
            .operator(env!("CARGO_BIN_EXE_kairos-operator"))
            .boot(Duration::from_millis(150))
            .not_ready_after(Duration::from_millis(300))
            .script_time(Duration::from_millis(30))
            // The copy of a debug build is what takes longest, and the applet has tests of its own.
            .script(|run| (run.container.name == "install").then(|| Outcome::code(0)));
        for version in ["v3.4.2", "v3.5.0", "v3.6.0"] {
            kairos::make_image(&images.path().join(version), version).unwrap();
            builder = builder.image(&format!("kairos:{version}"), images.path().join(version));
        }
        let cluster = builder.start().await.unwrap();
        cluster.apply(&install::without_deployment(objects(contract::IMAGE).unwrap())).await.unwrap();
        Self { cluster, operators: Vec::new(), _images: images, _turn: turn }
    }

    /// Starts an operator.
    pub fn start(&mut self, arguments: &[&str]) {
        let operator = Operator::start(&self.cluster, self.operators.len(), arguments);
        self.operators.push(operator);
    }

    pub async fn op(&self, name: &str, spec: Value) {
        self.create("NodeOp", name, spec).await;
    }

    pub async fn upgrade(&self, name: &str, version: &str) {
        let spec = json!({"image": format!("kairos:{version}"), "concurrency": 1, "stopOnFailure": true,
            "nodeSelector": {"matchLabels": {"kairos.io/managed": "true"}}});
        self.create("NodeOpUpgrade", name, spec).await;
    }

    async fn create(&self, kind: &str, name: &str, spec: Value) {
        let object = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.cluster.apply(&object.to_string()).await.unwrap();
    }

    /// Waits until the NodeOp is over and has given back what it held; returns its status.
    pub async fn over(&self, name: &str) -> Value {
        let over = |op: &Value| {
            let phase = op["status"]["phase"].as_str();
            op["metadata"]["name"] == name
                && matches!(phase, Some("Completed" | "Failed"))
                && op["metadata"].get("finalizers").is_none_or(is_empty)
        };
        match self.cluster.until(OPS, LONG, over).await {
            Ok(op) => {
                assert_eq!(self.debug_output(), [""; 0]);
                op["status"].clone()
            }
            Err(error) => panic!("{error:#}: {:#}", self.status(name)),
        }
    }

    /// Waits until a node of a NodeOp is in a step.
    pub async fn in_step(&self, name: &str, node: &str, step: &str) {
        let there =
            |op: &Value| op["metadata"]["name"] == name && op["status"]["nodeStatuses"][node]["step"] == step;
        self.cluster.until(OPS, LONG, there).await.unwrap();
    }

    /// Waits until the operation's command runs on a node.
    pub async fn command_runs(&self, node: &str) {
        let runs = |pod: &Value| {
            let statuses = ["initContainerStatuses", "containerStatuses"]
                .into_iter()
                .filter_map(|list| pod["status"][list].as_array());
            pod["spec"]["nodeName"] == node
                && statuses.flatten().any(|c| c["name"] == "nodeop" && c["state"].get("running").is_some())
        };
        self.cluster.until("pods", LONG, runs).await.unwrap();
    }

    /// Waits until a node's message in a NodeOp contains words.
    pub async fn says(&self, name: &str, node: &str, words: &str) {
        let says = |op: &Value| {
            let message = op["status"]["nodeStatuses"][node]["message"].as_str().unwrap_or_default();
            op["metadata"]["name"] == name && message.contains(words)
        };
        if let Err(error) = self.cluster.until(OPS, LONG, says).await {
            panic!("{node} does not say {words:?}: {error:#}: {:#}", self.status(name));
        }
    }

    /// Holds every node between its sentinel and its reboot, until the faults are cleared: the waiter asks
    /// whether its Job is complete, and gets no answer.
    pub fn hold_reboots(&self) {
        self.cluster.faults().arm(Fault::on("get", "jobs.batch", Effect::Refuse(503)).by(WAITERS).always());
    }

    pub fn status(&self, name: &str) -> Value {
        self.cluster.get(OPS, "default", name).map_or(Value::Null, |op| op["status"].clone())
    }

    pub async fn delete(&self, name: &str) {
        let ops: Api<NodeOp> = Api::default_namespaced(self.cluster.client());
        ops.delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn delete_upgrade(&self, name: &str) {
        let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(self.cluster.client());
        upgrades.delete(name, &DeleteParams::background()).await.unwrap();
        self.cluster.until_none(OPS, LONG, |op| op["metadata"]["name"] == name).await.unwrap();
    }

    pub async fn patch_node(&self, name: &str, patch: Value) {
        let nodes: Api<Node> = Api::all(self.cluster.client());
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until every node says its facts.
    pub async fn labelled(&self) {
        let unread = |node: &Value| node["metadata"]["annotations"]["operator.kairos.io/facts-of"].is_null();
        self.cluster.until_none("nodes", LONG, unread).await.unwrap();
    }

    /// How often the operation's container ran on a node.
    pub fn commands(&self, node: &str) -> usize {
        let mut runs = BTreeSet::new();
        for change in self.cluster.history() {
            let pod = &change.object;
            if change.key.table.as_ref() != "pods" || pod["spec"]["nodeName"] != node {
                continue;
            }
            let statuses = ["initContainerStatuses", "containerStatuses"]
                .into_iter()
                .filter_map(|list| pod["status"][list].as_array());
            let ran = |c: &&Value| c["name"] == "nodeop" && c["state"].get("waiting").is_none();
            if statuses.flatten().any(|c| ran(&c)) {
                runs.insert(pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
            }
        }
        runs.len()
    }

    /// Reboots of a node.
    pub fn reboots(&self, node: &str) -> usize {
        self.cluster.node(node).boots().len() - 1
    }

    pub fn is_cordoned(&self, node: &str) -> bool {
        self.cluster.get("nodes", "", node).unwrap()["spec"]["unschedulable"] == true
    }

    /// In which order nodes were claimed for the first time, and how many were claimed at once at most.
    pub fn claims(&self) -> (Vec<String>, usize) {
        let (mut order, mut held, mut most) = (Vec::new(), BTreeSet::new(), 0);
        for change in self.cluster.history().iter().filter(|change| change.key.table.as_ref() == "nodes") {
            let name = change.key.name.clone();
            if change.object["metadata"]["annotations"]["operator.kairos.io/claimed-by"].is_null() {
                held.remove(&name);
                continue;
            }
            held.insert(name.clone());
            most = most.max(held.len());
            if !order.contains(&name) {
                order.push(name);
            }
        }
        (order, most)
    }

    /// Waits until the operator has asked for so much more, or until the NodeOp is over. Who is killed after
    /// the same number of requests has got equally far on a slow machine and on a fast one.
    pub async fn asks(&self, more: usize, op: &str) {
        let before = self.requests().len();
        let asked = async {
            while !self.is_over(op) && self.requests().len() < before + more {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, asked)
            .await
            .unwrap_or_else(|_| panic!("nothing is asked: {:#}", self.status(op)));
    }

    /// Whether the NodeOp's last phase is reached.
    pub fn is_over(&self, op: &str) -> bool {
        matches!(self.status(op)["phase"].as_str(), Some("Completed" | "Failed"))
    }

    /// Statuses and Events with what Rust prints for programmers, or what the client calls things by.
    fn debug_output(&self) -> Vec<String> {
        let told = |table: &str| [OPS, UPGRADES, "events"].contains(&table);
        let texts = self
            .cluster
            .history()
            .into_iter()
            .filter(|change| told(&change.key.table))
            .map(|change| change.object.to_string());
        texts
            .filter(|text| {
                ["ApiError", "Status {", "ServiceError", "HyperError", "Some("]
                    .iter()
                    .any(|word| text.contains(word))
            })
            .collect()
    }

    /// What a finished or deleted NodeOp must not leave behind.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for node in self.cluster.list("nodes") {
            let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let annotations = &node["metadata"]["annotations"];
            let ours = [names::CLAIMED_BY, names::CORDONED_BY, names::AUTOSCALER_HINTS];
            for annotation in ours.into_iter().chain(names::KEEPS_FROM_SCALE_DOWN.map(|(hint, _)| hint)) {
                if !annotations[annotation].is_null() {
                    left.push(format!("{name}: {annotation}"));
                }
            }
            if node["spec"]["unschedulable"] == true {
                left.push(format!("{name}: cordoned"));
            }
        }
        for table in
            ["roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io", "serviceaccounts"]
        {
            let ours = |o: &Value| !o["metadata"]["labels"]["kairos.io/nodeop"].is_null();
            left.extend(
                self.cluster
                    .list(table)
                    .iter()
                    .filter(|o| ours(o))
                    .map(|o| format!("{table}: {}", o["metadata"]["name"])),
            );
        }
        left
    }

    /// Requests of the operator, watches and the Lease aside.
    pub fn requests(&self) -> Vec<Request> {
        let counts = |request: &Request| {
            request.user == OPERATOR && request.verb != "watch" && !request.resource.starts_with("leases")
        };
        self.cluster.requests().into_iter().filter(counts).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for operator in &self.operators {
                eprintln!("--- operator {}\n{}", operator.log.display(), operator.log_tail());
            }
        }
    }
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}

/// A NodeOp that reboots nodes one by one.
pub fn reboot() -> Value {
    json!({"image": "busybox:1", "command": ["sh", "-c", "true"], "cordon": true, "rebootOnSuccess": true, "concurrency": 1, "backoffLimit": 1})
}

/// `base` with some fields set anew.
pub fn and(mut base: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

/// Where it answers probes; nowhere, if a test does not say.
pub const PROBES: &str = "--health-probe-bind-address";

/// A process of the operator; dropping it kills it.
pub struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    fn start(cluster: &Cluster, number: usize, arguments: &[&str]) -> Self {
        let log = cluster.dir().join(format!("operator-{number}.log"));
        let file = File::create(&log).unwrap();
        let kubeconfig = cluster.kubeconfig_for(install::NAMESPACE, install::ACCOUNT).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kairos-operator"))
            .args(["controller", "--kubeconfig"])
            .arg(kubeconfig)
            .args((!arguments.iter().any(|one| one.starts_with(PROBES))).then(|| format!("{PROBES}=0")))
            .args(arguments)
            .env("CONTROLLER_POD_NAMESPACE", install::NAMESPACE)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Kilobytes of memory that it holds.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, without waiting for what it does about it.
    pub fn terminate(&mut self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}
