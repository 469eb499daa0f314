//! The cluster of the demo: nodes, images, workload, the operator's installation, and the sample that is to
//! be applied.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kairos_sim::{Cluster, install, kairos};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::Arguments;

/// The node that runs the new release already.
pub const AHEAD: &str = "n2";
/// The node that does not boot the new image, if a failure is to be shown.
pub const BROKEN: &str = "n3";
/// What the nodes run, and what the sample's image brings.
const OLD: &str = "v3.4.1";
const NEW: &str = "v3.4.2";

const WORKLOAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cache, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec: {containers: [{name: cache, image: redis}], volumes: [{name: data, emptyDir: {}}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log-shipper, namespace: default}
spec:
  selector: {matchLabels: {app: log-shipper}}
  template:
    metadata: {labels: {app: log-shipper}}
    spec: {tolerations: [{operator: Exists}], containers: [{name: ship, image: fluent-bit}]}
";

/// What the demo shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    NodeOp,
    Canary,
    BrokenCanary,
}

/// The cluster, ready for the sample.
#[derive(Debug)]
pub struct Stage {
    pub cluster: Cluster,
    pub plot: Plot,
    pub sample_path: PathBuf,
    pub sample: String,
    /// Name of the sample, and of the NodeOp that comes of it.
    pub name: String,
}

impl Stage {
    /// All of it, with its files below `directory`.
    pub async fn set(arguments: &Arguments, operator: &Path, directory: &Path) -> anyhow::Result<Self> {
        let (plot, file) = match (arguments.nodeop, arguments.failure) {
            (true, _) => (Plot::NodeOp, "nodeop.yaml"),
            (false, false) => (Plot::Canary, "nodeopupgrade.yaml"),
            (false, true) => (Plot::BrokenCanary, "nodeopupgrade.yaml"),
        };
        let manifests = arguments.repository.join("manifests");
        let sample_path = manifests.join("samples").join(file);
        let sample = std::fs::read_to_string(&sample_path)
            .with_context(|| format!("reading {}", sample_path.display()))?;
        let object: Value = serde_saphyr::from_str(&sample).context("reading the sample")?;
        let image = directory.join("image");
        std::fs::create_dir(&image)?;
        kairos::make_image(&image, NEW)?;
        let cluster = Cluster::builder()
            .nodes(5)
            .control_planes(1)
            .boot(Duration::from_secs(2))
            .script_time(Duration::from_millis(800))
            .operator(operator)
            .image(object["spec"]["image"].as_str().unwrap_or_default(), &image)
            .files_below(directory)
            .start()
            .await?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let stage = Self { cluster, plot, sample_path, sample, name };
        stage.prepare_nodes().await?;
        println!(
            "Installing manifests/default (without its Deployment: here the operator is a process) and some workload."
        );
        stage
            .cluster
            .apply(&install::printed_by(operator).await?)
            .await
            .context("installing the manifests")?;
        stage.cluster.apply(WORKLOAD).await.context("applying the workload")?;
        let pending = |pod: &Value| pod["status"]["phase"] != "Running";
        stage
            .cluster
            .until("pods", Duration::from_secs(20), |pod| pod["metadata"]["labels"]["app"] == "cache")
            .await?;
        stage
            .cluster
            .until_none("pods", Duration::from_secs(20), pending)
            .await
            .context("waiting for the workload")?;
        Ok(stage)
    }

    async fn prepare_nodes(&self) -> anyhow::Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.cluster.client());
        for node in self.cluster.nodes() {
            let ahead = self.plot != Plot::NodeOp && node.name() == AHEAD;
            kairos::install(&node.disk(), if ahead { NEW } else { OLD })?;
            std::fs::write(kairos::state(&node.disk()).join("slow"), "1")?;
            if self.plot == Plot::BrokenCanary && node.name() == BROKEN {
                std::fs::write(kairos::state(&node.disk()).join("will-not-boot"), "")?;
            }
            if node.is_control_plane() {
                // As k3s, which Kairos comes with, writes it; the sample selects by this value.
                let patch =
                    json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "true"}}});
                nodes.patch(node.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
        }
        Ok(())
    }

    /// The sample's object, as kubectl names it.
    pub fn target(&self) -> String {
        let kind = if self.plot == Plot::NodeOp { "nop" } else { "nou" };
        format!("{kind}/{}", self.name)
    }

    /// Waits until the operator has read and labelled every node.
    pub async fn until_labelled(&self) -> anyhow::Result<()> {
        let unlabelled = |node: &Value| node["metadata"]["labels"]["kairos.io/managed"] != "true";
        self.cluster
            .until_none("nodes", Duration::from_secs(60), unlabelled)
            .await
            .context("waiting for the nodes' labels")
    }

    /// Waits until the NodeOp has released what it held and, for an upgrade, until that shows the end too.
    pub async fn until_settled(&self) -> anyhow::Result<()> {
        let time = Duration::from_secs(20);
        let mine = |op: &Value| op["metadata"]["name"] == self.name.as_str();
        let held =
            |op: &Value| mine(op) && op["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        self.cluster
            .until_none("nodeops.operator.kairos.io", time, held)
            .await
            .context("waiting until the nodes are given back")?;
        if self.plot != Plot::NodeOp {
            let over = |op: &Value| {
                mine(op) && matches!(op["status"]["phase"].as_str(), Some("Completed" | "Failed"))
            };
            self.cluster
                .until("nodeopupgrades.operator.kairos.io", time, over)
                .await
                .context("waiting for the NodeOpUpgrade")?;
        }
        Ok(())
    }

    /// A line per node: what it is and what it runs.
    pub fn nodes(&self) -> Vec<String> {
        let nodes = self.cluster.list("nodes");
        let line = |node: &Value| {
            let label = |name: &str| node["metadata"]["labels"][name].as_str().unwrap_or("-").to_owned();
            let role = if node["metadata"]["labels"].get("node-role.kubernetes.io/control-plane").is_some() {
                "control-plane"
            } else {
                "worker"
            };
            let release =
                node["metadata"]["annotations"]["operator.kairos.io/release"].as_str().unwrap_or("unknown");
            format!(
                "{}  {role:<13}  {release}  booted {}",
                node["metadata"]["name"].as_str().unwrap_or_default(),
                label("kairos.io/boot-state")
            )
        };
        nodes.iter().map(|node| line(node)).collect()
    }
}
