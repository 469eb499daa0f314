//! The operator as its own process, outside the cluster, with the token of its own ServiceAccount: RBAC holds
//! for it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context;
use kairos_sim::{Cluster, install};
use tokio::process::{Child, Command};

/// How many lines of the log are shown when something went wrong.
const TAIL: usize = 25;

/// The running operator; it is killed when this is dropped.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    pub fn start(cluster: &Cluster, binary: &Path) -> anyhow::Result<Self> {
        let kubeconfig = cluster.kubeconfig_for(install::NAMESPACE, install::ACCOUNT)?;
        let log = cluster.dir().join("operator.log");
        let file = std::fs::File::create(&log)?;
        let child = Command::new(binary)
            .args(["controller", "--leader-elect", "--health-probe-bind-address=0"])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env("CONTROLLER_POD_NAMESPACE", install::NAMESPACE)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .context("starting the operator")?;
        Ok(Self { child, log })
    }

    /// Waits for its end, which nobody asked for.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait().await?;
        anyhow::bail!("the operator ended with {status}")
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}
