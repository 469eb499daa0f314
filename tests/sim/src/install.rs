//! What an installation applies, without the operator's Deployment: here the operator is a process of its
//! own, with the rights of the account that the manifests make.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;
use tokio::process::Command;

/// The operator's namespace.
pub const NAMESPACE: &str = "operator-system";
/// The operator's ServiceAccount.
pub const ACCOUNT: &str = "operator-kairos-operator";

/// What this binary of the operator says that a cluster needs, without its Deployment.
pub async fn printed_by(operator: &Path) -> anyhow::Result<String> {
    let output = Command::new(operator).arg("manifests").output().await;
    let output = output.with_context(|| format!("running {} manifests", operator.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} manifests: {}",
        operator.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).context("reading the manifests")?;
    Ok(without_deployment(serde_saphyr::from_multiple(&text).context("reading the manifests")?))
}

/// The objects as one text, without the operator's Deployment.
pub fn without_deployment(objects: Vec<Value>) -> String {
    let kept = objects.into_iter().filter(|object| object["kind"] != "Deployment");
    kept.map(|object| object.to_string()).collect::<Vec<_>>().join("\n---\n")
}
