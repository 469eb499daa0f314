//! What people type: kubectl, as it is installed.

use std::path::Path;

use crate::small;

const WORKLOAD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:1"}]}
"#;

async fn kubectl(config: &Path, arguments: &str) -> (bool, String) {
    let output = tokio::process::Command::new("kubectl")
        .env("KUBECONFIG", config)
        .args(arguments.split(' '))
        .output()
        .await
        .unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

#[tokio::test]
async fn a_session_with_kubectl() {
    if std::process::Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        println!("skipped: there is no kubectl here");
        return;
    }
    let cluster = small().start().await.unwrap();
    let file = cluster.dir().join("web.yaml");
    std::fs::write(&file, WORKLOAD).unwrap();
    let apply = format!("apply -f {}", file.display());
    for (arguments, words) in [
        ("get nodes", "n2     Ready"),
        (apply.as_str(), "deployment.apps/web created"),
        (apply.as_str(), "deployment.apps/web unchanged"),
        ("wait --for=condition=Available deploy/web --timeout=10s", "condition met"),
        ("describe pod -l app=web", "Controlled By:  ReplicaSet/web-sim"),
        ("explain job.spec.suspend", "suspend specifies whether"),
        ("label node n1 a=b", "node/n1 labeled"),
        ("annotate node n1 a=b", "node/n1 annotated"),
        ("drain n1 --ignore-daemonsets --timeout=15s", "node/n1 drained"),
        ("get node n1", "Ready,SchedulingDisabled"),
        ("uncordon n1", "node/n1 uncordoned"),
        ("delete deploy web --timeout=15s", "deleted"),
    ] {
        let (success, output) = kubectl(&cluster.kubeconfig(), arguments).await;
        assert!(success && output.contains(words), "kubectl {arguments}: {output}");
    }
}
