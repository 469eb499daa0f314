//! An API server that does not admit what an operation makes: quota, limits, Pod Security, webhooks. The
//! reason is told before any node is touched, and nothing is left behind.

use kairos_sim::{Cluster, Creation, Effect, Fault};
use serde_json::{Value, json};

use super::rig::{LONG, OPS, Rig, and, reboot};

/// What a real API server says.
const RESTRICTED: &str = "violates PodSecurity \"restricted:latest\": privileged (container \"nodeop\" must not set securityContext.privileged=true)";
const QUOTA: &str = "exceeded quota: compute, requested: pods=1, used: pods=10, limited: pods=10";

fn has_container(pod: &Value, name: &str) -> bool {
    let lists = ["initContainers", "containers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    lists.flatten().any(|container| container["name"] == name)
}

/// An object that a NodeOp makes.
fn is_made(object: &Value) -> bool {
    !object["metadata"]["labels"]["kairos.io/nodeop"].is_null()
}

/// A name, what is refused, and in which words.
type Case = (&'static str, fn(&Creation<'_>) -> bool, &'static str);

// A RoleBinding cannot be tried: a server first looks for its Role, which a dry run does not store.
const CASES: [Case; 6] = [
    ("the Job's pod", |c| c.table == "pods" && has_container(c.object, "nodeop"), RESTRICTED),
    (
        "the reboot waiter",
        |c| c.table == "pods" && has_container(c.object, "reboot"),
        "hostPID is not allowed (baseline)",
    ),
    (
        "the preflight's pod",
        |c| c.table == "pods" && has_container(c.object, "preflight"),
        "hostPath volumes are not allowed",
    ),
    (
        "the Job",
        |c| c.table == "jobs.batch",
        "admission webhook \"policy.example.com\" denied the request: no Jobs here",
    ),
    (
        "the waiter's ServiceAccount",
        |c| c.table == "serviceaccounts" && is_made(c.object),
        "no accounts here",
    ),
    ("the waiter's Role", |c| c.table.starts_with("roles.") && is_made(c.object), "no Roles here"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_refused_fails_the_nodeop_in_the_servers_words_and_touches_nothing() {
    let refused = |(what, rule, words): Case| async move {
        let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1)).await;
        rig.cluster.admission().refuse(move |c| rule(c).then(|| words.to_owned()));
        rig.start(&[]);
        rig.op(
            "op",
            and(reboot(), json!({"preflight": {"command": ["check"]}, "drainOptions": {"enabled": true}})),
        )
        .await;
        let status = rig.over("op").await;
        let message = status["message"].as_str().unwrap();
        assert!(
            message.contains("no node was touched") && message.contains(what) && message.contains(words),
            "{what}: {message}"
        );
        assert_eq!(status["phase"], "Failed");
        for node in ["n1", "n2"] {
            assert_eq!(status["nodeStatuses"][node]["phase"], "Pending", "{what}: {status:#}");
        }
        let made = rig.cluster.history().into_iter().find(|change| is_made(&change.object));
        assert!(made.is_none(), "{what}: {made:?}");
        assert_eq!((rig.claims().0.len(), rig.left()), (0, Vec::new()), "{what}");
    };
    futures::future::join_all(CASES.map(refused)).await;
}

/// What passes by itself is told and waited for: before a node is touched, and without a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_passes_is_told_and_waited_for() {
    let account = "error looking up service account default/default: serviceaccount \"default\" not found";
    let waited_for = |words: &'static str| async move {
        let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1)).await;
        rig.cluster
            .admission()
            .refuse(move |c| (c.table == "pods" && is_made(c.object)).then(|| words.to_owned()));
        rig.start(&[]);
        rig.op("op", reboot()).await;
        rig.says("op", "n1", words).await;
        let status = rig.status("op");
        let blocked = |c: &Value| {
            c["type"] == "Progressing"
                && c["reason"] == "Blocked"
                && c["message"].as_str().unwrap().contains(words)
        };
        assert!(status["conditions"].as_array().unwrap().iter().any(blocked), "{status:#}");
        assert_eq!((rig.claims().0.len(), rig.left()), (0, Vec::new()), "no node is touched meanwhile");
        let told = |event: &Value| event["reason"] == "Blocked" && event.to_string().contains(&words[..20]);
        rig.cluster.until("events", LONG, told).await.unwrap();
        rig.cluster.admission().clear();
        let status = rig.over("op").await;
        assert_eq!((&status["phase"], rig.reboots("n2")), (&json!("Completed"), 1), "{status:#}");
        assert!(!status.to_string().contains(words), "{status:#}");
    };
    futures::future::join_all([QUOTA, account].map(waited_for)).await;
}

/// A webhook that does not answer is no refusal: it is told, and waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_is_down_is_waited_for() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    let words = "failed calling webhook \"policy.example.com\": connection refused";
    rig.cluster.faults().arm(Fault::on("create", "pods", Effect::Refuse(500)).saying(words).always());
    rig.op("op", reboot()).await;
    rig.says("op", "n1", words).await;
    assert_eq!((rig.claims().0.len(), &rig.status("op")["phase"]), (0, &json!("Pending")));
    rig.cluster.faults().clear();
    assert_eq!((&rig.over("op").await["phase"], rig.reboots("n1")), (&json!("Completed"), 1));
}

/// The quota was free when it was tried, and is not when the Job controller makes the pod: only its Events
/// say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_the_job_controller_may_not_make_is_told_and_the_node_goes_on_when_it_may() {
    let rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    let mut rig = rig;
    let job_exists = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = job_exists.clone();
    rig.cluster.admission().refuse(move |c| {
        let order = std::sync::atomic::Ordering::SeqCst;
        if c.table == "jobs.batch" && !c.dry_run {
            seen.store(true, order);
        }
        (c.table == "pods" && has_container(c.object, "nodeop") && seen.load(order)).then(|| QUOTA.to_owned())
    });
    rig.start(&[]);
    rig.op("op", reboot()).await;
    rig.says("op", "n1", QUOTA).await;
    let message = rig.status("op")["nodeStatuses"]["n1"]["message"].to_string();
    assert!(message.contains("cannot start yet") && message.contains("the Job's pod"), "{message}");
    rig.cluster.clear_requests();
    let began = std::time::Instant::now();
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    let tries = rig.requests().iter().filter(|r| r.resource == "pods" && r.query.contains("dryRun")).count();
    let most = 1 + began.elapsed().as_secs() / 10;
    assert!(tries as u64 <= most, "{tries} dry runs in {:?}", began.elapsed());
    rig.cluster.admission().clear();
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], rig.commands("n1"), rig.reboots("n1")),
        (&json!("Completed"), 1, 1),
        "{status:#}"
    );
}

/// Somebody installs a policy while a rollout runs: no further node is drained for what is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_after_the_first_node_touches_no_further_one() {
    let mut rig = Rig::idle(Cluster::builder().nodes(2).control_planes(1)).await;
    let is_made_once = std::sync::atomic::AtomicBool::new(false);
    rig.cluster.admission().refuse(move |c| {
        let order = std::sync::atomic::Ordering::SeqCst;
        let concerned = c.table == "pods" && has_container(c.object, "nodeop");
        let refused =
            if c.dry_run { is_made_once.load(order) } else { concerned && is_made_once.swap(true, order) };
        (concerned && refused).then(|| RESTRICTED.to_owned())
    });
    rig.start(&[]);
    let spec =
        json!({"command": ["true"], "cordon": true, "drainOptions": {"enabled": true}, "concurrency": 1});
    rig.op("op", spec).await;
    let status = rig.over("op").await;
    let message = status["message"].as_str().unwrap();
    assert!(message.contains(RESTRICTED) && !message.contains("no node was touched"), "{message}");
    assert_eq!((&status["phase"], rig.commands("n1"), rig.commands("n2")), (&json!("Failed"), 1, 0));
    assert_eq!(status["nodeStatuses"]["n2"]["phase"], "Pending", "{status:#}");
    assert_eq!((rig.claims().0, rig.left()), (vec!["n1".to_owned()], vec![]));
}

/// A Job that is refused for good does not keep its node cordoned for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_made_in_time_fails_the_node_and_gives_it_back() {
    let rig = Rig::new(2).await;
    let n1 = |object: &Value| object["metadata"]["annotations"]["operator.kairos.io/node-name"] == "n1";
    rig.cluster
        .admission()
        .refuse(move |c| (c.table == "jobs.batch" && !c.dry_run && n1(c.object)).then(|| QUOTA.to_owned()));
    rig.op("op", and(reboot(), json!({"pullTimeoutSeconds": 20, "stopOnFailure": true}))).await;
    let status = rig.over("op").await;
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(message.contains("not started in 20 s") && message.contains(QUOTA), "{message}");
    assert_eq!((&status["phase"], rig.commands("n1"), rig.commands("n2")), (&json!("Failed"), 0, 0));
    assert_eq!(rig.left(), [""; 0]);
    let pods = rig.cluster.list("pods").iter().filter(|pod| is_made(pod)).count();
    assert_eq!((pods, rig.cluster.list("jobs.batch").len(), rig.cluster.list(OPS).len()), (0, 0, 1));
}

/// A policy engine's own pods may be what a drain has evicted, and where there is no other node they come
/// back once this one is uncordoned, and not before. It answers nobody until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_goes_down_before_the_jobs_pod_is_made_does_not_keep_the_node_cordoned() {
    let mut rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    let words = "failed calling webhook \"policy.example.com\": no endpoints available";
    let faults = rig.cluster.faults().clone();
    // Neither the operator's dry runs nor the Job controller make a pod once there is a Job.
    let is_down = std::sync::atomic::AtomicBool::new(false);
    rig.cluster.admission().refuse(move |c| {
        let order = std::sync::atomic::Ordering::SeqCst;
        if c.table == "jobs.batch" && !c.dry_run && !is_down.swap(true, order) {
            faults.arm(Fault::on("create", "pods", Effect::Refuse(500)).saying(words).always());
        }
        (c.table == "pods" && has_container(c.object, "nodeop") && is_down.load(order))
            .then(|| words.to_owned())
    });
    rig.start(&[]);
    rig.op("op", and(reboot(), json!({"cordon": true, "pullTimeoutSeconds": 20}))).await;
    let status = rig.over("op").await;
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(message.contains("could not start in 20 s") && message.contains(words), "{message}");
    assert_eq!((&status["phase"], rig.commands("n1"), rig.reboots("n1")), (&json!("Failed"), 0, 0));
    let node = rig.cluster.get("nodes", "", "n1").unwrap();
    assert!(node["spec"]["unschedulable"] != true, "{node:#}");
    assert_eq!(rig.left(), [""; 0]);
}

/// An upgrade shows what its NodeOp says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_in_a_restricted_namespace_fails_in_the_servers_words() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    rig.cluster
        .admission()
        .refuse(|c| (c.table == "pods" && is_made(c.object)).then(|| RESTRICTED.to_owned()));
    rig.upgrade("up", "v3.5.0").await;
    let over = |up: &Value| up["status"]["phase"] == "Failed";
    let up = rig.cluster.until(super::rig::UPGRADES, LONG, over).await.unwrap();
    assert!(up["status"]["message"].as_str().unwrap().contains(RESTRICTED), "{up:#}");
    assert_eq!((rig.claims().0.len(), rig.left()), (0, Vec::new()));
}
