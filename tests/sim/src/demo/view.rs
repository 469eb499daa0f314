//! How a rollout is shown: by `kubectl kairos status -w`, as anybody would watch it.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use kairos_sim::Cluster;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long the view may take to show the end that has come.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// The running view; it is killed when this is dropped.
#[derive(Debug)]
pub struct View(Child);

impl View {
    /// Shows an operation, once it is there.
    pub fn start(plugin: &Path, cluster: &Cluster, target: &str) -> anyhow::Result<Self> {
        let child = Command::new(plugin)
            .args(["status", target, "-w"])
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting kubectl-kairos")?;
        Ok(Self(child))
    }

    /// Waits for its end, which comes with the operation's; a view that is late is cut short.
    pub async fn close(mut self) -> anyhow::Result<Option<ExitStatus>> {
        match timeout(LAST_LOOK, self.0.wait()).await {
            Ok(status) => Ok(Some(status?)),
            Err(_) => Ok(None),
        }
    }
}

/// What puts a terminal back as it was, should the view have been ended while it drew.
pub fn restore() -> &'static str {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) { "\x1b[?25h" } else { "" }
}
