//! What others write into objects: pods that carry our labels, or name owners that are ours, hold no node,
//! and nobody waits for them; and a time that our calendar does not hold makes no list unreadable.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{batch::v1::Job, core::v1::Pod},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::{Value, json};

use super::rig::{LONG, OPS, Rig, and, reboot};

fn spec() -> Value {
    json!({"containers": [{"name": "c", "image": "i", "command": ["sh", "-c", "sleep infinity"]}]})
}

/// A DaemonSet whose pods carry our label on every node.
fn daemons(namespace: &str) -> String {
    let labels = json!({"app": "web", "kairos.io/nodeop": "op", "kairos.io/node": "n1"});
    let template = json!({"metadata": {"labels": labels}, "spec": spec()});
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}})
    .to_string()
}

/// A pod that names an owner of a kind which nobody can look up: the garbage collector leaves it.
fn forged(namespace: &str) -> String {
    let owner = json!({"apiVersion": "no.such.group/v1", "kind": "Job", "name": "op-n1", "uid": "j", "controller": true});
    let labels = json!({"kairos.io/nodeop": "op", "kairos.io/node": "n1"});
    let mut spec = spec();
    spec["nodeName"] = "n1".into();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "forged", "namespace": namespace, "labels": labels, "ownerReferences": [owner]}, "spec": spec})
    .to_string()
}

/// A Job whose owner is a NodeOp that is not there, of a version that nobody can look up, so that the garbage
/// collector leaves it.
fn orphan(namespace: &str) -> String {
    let owner = json!({"apiVersion": "operator.kairos.io/v9", "kind": "NodeOp", "name": "ghost", "uid": "0", "controller": true});
    let labels = json!({"kairos.io/nodeop": "ghost", "kairos.io/node": "n1"});
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]});
    json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "orphan", "namespace": namespace, "labels": labels, "ownerReferences": [owner]},
        "spec": {"suspend": true, "template": {"spec": pod}}})
    .to_string()
}

/// The namespace of somebody else.
async fn with_tenant(rig: &Rig) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}});
    rig.cluster.apply(&namespace.to_string()).await.unwrap();
}

/// A Job that names this NodeOp as its owner, and whose pod runs on n1 with our label.
fn lodger(namespace: &str, version: &str, (name, uid): (&str, &str)) -> String {
    let owner = json!({"apiVersion": format!("operator.kairos.io/{version}"), "kind": "NodeOp", "name": name, "uid": uid, "controller": true});
    let labels = json!({"kairos.io/nodeop": name, "kairos.io/node": "n1"});
    let mut pod = spec();
    (pod["nodeName"], pod["restartPolicy"]) = ("n1".into(), "Never".into());
    json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "lodger", "namespace": namespace, "labels": labels, "ownerReferences": [owner]},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": pod}}})
    .to_string()
}

/// People once paused Jobs so: the Job controller ends the pod and makes no other, and the node would stay
/// cordoned for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_somebody_allows_no_pod_gets_its_pod_again() {
    let rig = Rig::new(1).await;
    rig.op("op", and(reboot(), json!({"command": ["sleep", "infinity"]}))).await;
    rig.command_runs("n1").await;
    let name = rig.status("op")["nodeStatuses"]["n1"]["jobName"].as_str().unwrap().to_owned();
    let none = Patch::Merge(json!({"spec": {"parallelism": 0}}));
    let jobs = Api::<Job>::default_namespaced(rig.cluster.client());
    jobs.patch(&name, &PatchParams::default(), &none).await.unwrap();
    rig.cluster.until("jobs.batch", LONG, |job| job["spec"]["parallelism"] == 1).await.unwrap();
    let said = |event: &Value| {
        event["reason"] == "JobSuspended" && event.to_string().contains("its parallelism to 0")
    };
    rig.cluster.until("events", LONG, said).await.unwrap();
    rig.delete("op").await;
    rig.cluster.until_none(OPS, LONG, |_| true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_past_pods_and_jobs_that_carry_our_label() {
    let rig = Rig::new(2).await;
    with_tenant(&rig).await;
    for namespace in ["default", "team-a"] {
        rig.cluster.apply(&daemons(namespace)).await.unwrap();
        rig.cluster.apply(&forged(namespace)).await.unwrap();
        rig.cluster.apply(&orphan(namespace)).await.unwrap();
        for node in ["n1", "n2"] {
            let runs = |pod: &Value| {
                pod["metadata"]["namespace"] == namespace
                    && pod["spec"]["nodeName"] == node
                    && pod["status"]["phase"] == "Running"
            };
            rig.cluster.until("pods", LONG, runs).await.unwrap();
        }
    }
    rig.op("op", reboot()).await;
    let status = rig.over("op").await;
    assert_eq!((&status["phase"], rig.left()), (&json!("Completed"), vec![]), "{status:#}");
    assert_eq!(["n1", "n2"].map(|node| (rig.commands(node), rig.reboots(node))), [(1, 1); 2]);
}

/// Whoever may create Jobs in a namespace can name any NodeOp there as their owner, one that is not there, or
/// one that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_past_jobs_that_only_name_a_nodeop_as_their_owner() {
    let rig = Rig::new(2).await;
    with_tenant(&rig).await;
    rig.op("done", json!({"command": ["true"]})).await;
    rig.over("done").await;
    let uid =
        rig.cluster.get(OPS, "default", "done").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    for (namespace, version, owner) in
        [("team-a", "v9", ("ghost", "0")), ("default", "v1alpha1", ("done", uid.as_str()))]
    {
        rig.cluster.apply(&lodger(namespace, version, owner)).await.unwrap();
        let runs = |pod: &Value| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            pod["metadata"]["namespace"] == namespace
                && name.starts_with("lodger-")
                && pod["status"]["phase"] == "Running"
        };
        rig.cluster.until("pods", LONG, runs).await.unwrap();
    }
    let drain = json!({"concurrency": 1, "drainOptions": {"enabled": true}});
    for (op, spec) in [("plain", json!({"concurrency": 1})), ("drained", drain)] {
        rig.op(op, and(reboot(), spec)).await;
        let status = rig.over(op).await;
        assert_eq!((&status["phase"], rig.left()), (&json!("Completed"), vec![]), "{status:#}");
    }
    assert_eq!(["n1", "n2"].map(|node| rig.reboots(node)), [2; 2]);
}

/// Takes our label off an object of this kind and name, as `kubectl label --all` does and many a policy.
async fn unlabel<K>(client: Client, name: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let patch =
        Patch::Merge(json!({"metadata": {"labels": {"kairos.io/nodeop": null, "kairos.io/reboot": null}}}));
    let request =
        Request::new(K::url_path(&(), Some("default"))).patch(name, &PatchParams::default(), &patch).unwrap();
    let written: Value = client.request(request).await.unwrap();
    assert!(written["metadata"]["labels"]["kairos.io/nodeop"].is_null(), "{written}");
}

/// Names of what carries our label.
fn labelled(rig: &Rig, kind: &str) -> Vec<String> {
    let ours = |object: &Value| {
        object["metadata"]["namespace"] == "default"
            && !object["metadata"]["labels"]["kairos.io/nodeop"].is_null()
    };
    let all = rig.cluster.list(kind);
    all.iter()
        .filter(|object| ours(object))
        .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The watches select by that label: they say that the object was deleted, and nothing of it from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_past_somebody_who_takes_our_label_off_jobs_and_pods() {
    let mut rig = Rig::new(2).await;
    for (op, leaders_change) in [("one", false), ("two", true)] {
        rig.op(op, and(reboot(), json!({"concurrency": 1}))).await;
        let over = |op: &Value| op["status"]["phase"] == "Completed" || op["status"]["phase"] == "Failed";
        let (mut taken, began) = (0, std::time::Instant::now());
        while !rig.cluster.get(OPS, "default", op).is_some_and(|op| over(&op)) {
            assert!(began.elapsed() < LONG, "{:#}", rig.status(op));
            for job in labelled(&rig, "jobs.batch") {
                unlabel::<Job>(rig.cluster.client(), &job).await;
                taken += 1;
                if leaders_change {
                    rig.operators[0].kill();
                    rig.start(&[]);
                }
            }
            for pod in labelled(&rig, "pods") {
                unlabel::<Pod>(rig.cluster.client(), &pod).await;
                taken += 1;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let status = rig.over(op).await;
        assert_eq!((&status["phase"], rig.left()), (&json!("Completed"), vec![]), "{status:#}");
        assert!(taken >= 6, "{taken}: of each node a Job, its pod and a waiter");
    }
    assert_eq!(["n1", "n2"].map(|node| (rig.commands(node), rig.reboots(node))), [(2, 2); 2]);
}

/// Kubernetes takes it, and a calendar that is kept in nanoseconds, and in all time zones, ends before it.
const LATE: &str = "9999-12-31T23:59:59Z";

/// Writes that time into an object's status, as whoever has the credentials of its node can.
async fn date<K>(client: Client, name: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let patch = Patch::Merge(json!({"status": {"startTime": LATE}}));
    let request = Request::new(K::url_path(&(), Some("default")))
        .patch_subresource("status", name, &PatchParams::default(), &patch)
        .unwrap();
    let written: Value = client.request(request).await.unwrap();
    assert_eq!(written["status"]["startTime"], LATE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_a_time_that_no_calendar_holds_is_drained_like_any_other() {
    let rig = Rig::new(1).await;
    let mut spec = spec();
    spec["nodeName"] = "n1".into();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late", "namespace": "default"}, "spec": spec});
    rig.cluster.apply(&pod.to_string()).await.unwrap();
    let runs = |pod: &Value| pod["metadata"]["name"] == "late" && pod["status"]["phase"] == "Running";
    rig.cluster.until("pods", LONG, runs).await.unwrap();
    date::<Pod>(rig.cluster.client(), "late").await;
    rig.op("op", and(reboot(), json!({"drainOptions": {"enabled": true, "force": true}}))).await;
    let status = rig.over("op").await;
    assert_eq!((&status["phase"], rig.left()), (&json!("Completed"), vec![]), "{status:#}");
    assert!(rig.cluster.get("pods", "default", "late").is_none(), "it was evicted");
}

/// The operator that takes over has everything to list; the waiter reads its own pod and its Job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_ends_whatever_times_stand_in_its_job_and_its_pods() {
    let mut rig = Rig::new(1).await;
    rig.hold_reboots();
    rig.op("op", reboot()).await;
    let complete = |job: &Value| {
        let mut conditions = job["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Complete")
    };
    let job = rig.cluster.until("jobs.batch", LONG, complete).await.unwrap();
    rig.operators[0].kill();
    date::<Job>(rig.cluster.client(), job["metadata"]["name"].as_str().unwrap()).await;
    let pods = rig.cluster.list("pods").into_iter().filter(|pod| pod["metadata"]["namespace"] == "default");
    for pod in pods {
        date::<Pod>(rig.cluster.client(), pod["metadata"]["name"].as_str().unwrap()).await;
    }
    rig.start(&[]);
    rig.cluster.faults().clear();
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], rig.commands("n1"), rig.reboots("n1")),
        (&json!("Completed"), 1, 1),
        "{status:#}"
    );
}
