//! Native sidecars, as kubelets since 1.29 run them; and what goes on in pods that were deleted by force.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kairos_sim::{Cluster, Outcome};
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{LONG, is};

/// What has ended, in order.
type Ends = Arc<Mutex<Vec<&'static str>>>;

/// Notes the end of a container, however it ends.
struct End(Ends, &'static str);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(self.1);
    }
}

/// A cluster in which a sidecar runs until it is ended, its probe succeeds when `up`, and the main container
/// works for ten seconds, whatever it is told.
async fn cluster(up: Arc<AtomicBool>, ends: Ends) -> Cluster {
    let script = move |run: &kairos_sim::Run| {
        let (name, end) = (run.container.name.clone(), |name| End(ends.clone(), name));
        Some(match name.as_str() {
            "side" if run.argv() == ["look"] => Outcome::code(i32::from(!up.load(Ordering::Relaxed))),
            "side" => {
                let end = end("side");
                Outcome::Until(Box::pin(async move {
                    let _end = end;
                    std::future::pending().await
                }))
            }
            "main" => {
                let end = end("main");
                Outcome::Through(Box::pin(async move {
                    let _end = end;
                    sleep(Duration::from_secs(10)).await;
                    (0, String::new())
                }))
            }
            _ => Outcome::code(0),
        })
    };
    Cluster::builder().in_process().nodes(1).control_planes(1).script(script).start().await.unwrap()
}

fn pod() -> String {
    let side = json!({"name": "side", "image": "w:1", "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["look"]}, "periodSeconds": 1}});
    let init = json!([side, {"name": "next", "image": "w:1"}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "restartPolicy": "Never", "initContainers": init, "containers": [{"name": "main", "image": "w:1"}]}})
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_starts_before_the_others_ends_after_them_and_decides_nothing() {
    let (up, ends) = (Arc::new(AtomicBool::new(false)), Ends::default());
    let cluster = cluster(up.clone(), ends.clone()).await;
    cluster.apply(&pod()).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    let waits = cluster.get("pods", "default", "p").unwrap();
    let init =
        |pod: &Value, at: usize, field: &str| pod["status"]["initContainerStatuses"][at][field].clone();
    assert_eq!((&waits["status"]["phase"], init(&waits, 0, "started")), (&json!("Pending"), json!(false)));
    assert!(
        init(&waits, 0, "state")["running"].is_object() && init(&waits, 1, "state")["waiting"].is_object()
    );
    up.store(true, Ordering::Relaxed);
    let runs = cluster.until("pods", LONG, |p| is(p, "p", "Running")).await.unwrap();
    assert_eq!((init(&runs, 0, "started"), init(&runs, 0, "ready")), (json!(true), json!(true)));
    let over = cluster.until("pods", LONG, |p| is(p, "p", "Succeeded")).await.unwrap();
    assert_eq!(init(&over, 0, "state")["terminated"]["exitCode"], 143, "{over}");
    assert_eq!(*ends.lock().unwrap(), ["main", "side"]);
}

#[tokio::test(start_paused = true)]
async fn what_lingers_in_a_pod_that_was_deleted_by_force_has_its_sidecar_beside_it() {
    let (up, ends) = (Arc::new(AtomicBool::new(true)), Ends::default());
    let cluster = cluster(up, ends.clone()).await;
    cluster.node("n1").linger(Duration::from_secs(60));
    cluster.apply(&pod()).await.unwrap();
    cluster.until("pods", LONG, |p| is(p, "p", "Running")).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.until_none("pods", LONG, |_| true).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(ends.lock().unwrap().is_empty(), "nobody sees it, and it goes on");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(*ends.lock().unwrap(), ["main", "side"]);
}

/// No new sandbox is made for a pod that is never restarted and of which a container is known.
#[tokio::test(start_paused = true)]
async fn a_kubelet_does_not_go_on_after_a_boot_with_a_pod_whose_sidecar_had_begun() {
    let cluster = cluster(Arc::new(AtomicBool::new(false)), Ends::default()).await;
    cluster.apply(&pod()).await.unwrap();
    let state = |pod: &Value, at: usize| pod["status"]["initContainerStatuses"][at]["state"].clone();
    cluster.until("pods", LONG, |pod| state(pod, 0)["running"].is_object()).await.unwrap();
    cluster.node("n1").reboot();
    cluster.until("pods", LONG, |pod| state(pod, 0)["terminated"]["exitCode"] == 255).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let halted = cluster.get("pods", "default", "p").unwrap();
    assert_eq!(halted["status"]["phase"], "Pending", "{halted}");
    assert!(
        state(&halted, 1)["waiting"].is_object() && state(&halted, 0)["terminated"].is_object(),
        "{halted}"
    );
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    cluster.until_none("pods", LONG, |_| true).await.unwrap();
}
