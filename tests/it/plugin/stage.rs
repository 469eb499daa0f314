//! A cluster with the kinds installed and no operator, so that its objects stay as a test wrote them; and
//! `kubectl kairos`, run as people run it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use kairos_operator::{
    api::{nodeop::NodeOp, upgrade::NodeOpUpgrade},
    contract,
    manifests::install::objects,
};
use kairos_sim::{Builder, Cluster, install};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::process::Command;

/// A cluster to look at.
pub struct Stage {
    pub cluster: Cluster,
}

/// What a run ended with.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Stage {
    /// Three nodes, of which the first is a control plane.
    pub async fn new() -> Self {
        Self::with(Cluster::builder().nodes(3).control_planes(1)).await
    }

    pub async fn with(builder: Builder) -> Self {
        let cluster = builder.start().await.unwrap();
        cluster.apply(&install::without_deployment(objects(contract::IMAGE).unwrap())).await.unwrap();
        Self { cluster }
    }

    /// A NodeOp as it stands; without a status it is one that no operator has seen.
    pub async fn op(&self, name: &str, spec: Value, mut status: Value) {
        self.create("NodeOp", name, &spec).await;
        if status.is_null() {
            return;
        }
        status["observedGeneration"] = 1.into();
        let api = Api::<NodeOp>::default_namespaced(self.cluster.client());
        let status = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    /// A NodeOpUpgrade as it stands, or one that no operator has seen.
    pub async fn upgrade(&self, name: &str, spec: Value, status: Value) {
        self.create("NodeOpUpgrade", name, &spec).await;
        if !status.is_null() {
            self.upgrade_says(name, status).await;
        }
    }

    pub async fn upgrade_says(&self, name: &str, status: Value) {
        let api = Api::<NodeOpUpgrade>::default_namespaced(self.cluster.client());
        let status = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    /// The NodeOp of an upgrade, as that one made it.
    pub async fn child_of(&self, name: &str, spec: Value, status: Value) {
        let upgrade =
            Api::<NodeOpUpgrade>::default_namespaced(self.cluster.client()).get(name).await.unwrap();
        self.op(name, spec, status).await;
        let owner = upgrade.controller_owner_ref(&()).unwrap();
        let made = json!({"metadata": {"labels": {"nodeopupgrade.kairos.io/name": name}, "ownerReferences": [owner]}});
        let ops = Api::<NodeOp>::default_namespaced(self.cluster.client());
        let op = ops.patch(name, &PatchParams::default(), &Patch::Merge(made)).await.unwrap();
        self.upgrade_says(name, json!({"nodeOpName": name, "nodeOpUid": op.metadata.uid})).await;
    }

    pub async fn op_says(&self, name: &str, status: Value) {
        let api = Api::<NodeOp>::default_namespaced(self.cluster.client());
        let status = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    async fn create(&self, kind: &str, name: &str, spec: &Value) {
        let object = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.cluster.apply(&object.to_string()).await.unwrap();
    }

    /// `kubectl kairos` with these words, on a pipe of any width.
    pub async fn run(&self, words: &[&str]) -> Ran {
        self.run_at(None, words).await
    }

    /// The same, for a reader with a terminal of `columns`.
    pub async fn run_at(&self, columns: Option<usize>, words: &[&str]) -> Ran {
        run(&self.cluster.kubeconfig(), columns, words).await
    }

    /// How many requests so far were to change something.
    pub fn writes(&self) -> usize {
        let by_admin = |request: &kairos_sim::Request| request.user == "admin" && request.is_write();
        self.cluster.requests().iter().filter(|request| by_admin(request)).count()
    }
}

/// The plugin, started.
pub fn command(kubeconfig: &Path, columns: Option<usize>, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(words).env("KUBECONFIG", kubeconfig).env_remove("COLUMNS").env_remove("NO_COLOR");
    command.stdin(Stdio::null()).kill_on_drop(true);
    if let Some(columns) = columns {
        command.env("COLUMNS", columns.to_string());
    }
    command
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_kubectl-kairos"))
}

pub async fn run(kubeconfig: &Path, columns: Option<usize>, words: &[&str]) -> Ran {
    let ended = command(kubeconfig, columns, words).output().await.unwrap();
    Ran {
        code: ended.status.code().unwrap_or(-1),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}

/// Columns that the widest line takes. Nothing here is wider than one column a character.
pub fn width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// A node's entry in a status.
pub fn entry(phase: &str, step: Option<&str>, message: &str, seconds_ago: i64) -> Value {
    let mut entry = json!({"phase": phase, "message": message, "lastUpdated": ago(seconds_ago)});
    if let Some(step) = step {
        entry["step"] = step.into();
    }
    entry
}

/// This many hours, and half of one: a test that takes minutes on a slow machine still reads the same hours.
/// From eight on, ages are told in hours alone.
pub const fn hours(number: i64) -> i64 {
    number * 3600 + 1800
}

/// The time `seconds` ago.
pub fn ago(seconds: i64) -> String {
    let now = k8s_openapi::jiff::Timestamp::now();
    format!("{:.0}", now - k8s_openapi::jiff::SignedDuration::from_secs(seconds))
}
