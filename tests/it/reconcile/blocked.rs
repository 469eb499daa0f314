//! Errors that stay: told in the status and in one Event, tried again ever more rarely, and forgotten when
//! they are over.

use std::time::{Duration, Instant};

use kairos_sim::{Cluster, Effect, Fault};
use serde_json::{Value, json};

use super::rig::{LONG, OPS, Rig, UPGRADES, and, reboot};

/// What the server says no with.
const WORDS: &str = "exceeded quota: nothing is left";

/// The Events of our own about something that keeps failing.
fn complaints(rig: &Rig, kind: &str) -> Vec<String> {
    let about = |event: &Value| {
        [&event["regarding"]["kind"], &event["involvedObject"]["kind"]].contains(&&json!(kind))
    };
    let words = |event: &Value| {
        event["note"].as_str().or_else(|| event["message"].as_str()).unwrap_or_default().to_owned()
    };
    rig.cluster
        .list("events")
        .iter()
        .filter(|event| event["reason"] == "Blocked" && about(event))
        .map(|event| words(event))
        .collect()
}

async fn complained(rig: &Rig, kind: &str) {
    let about = |event: &Value| {
        [&event["regarding"]["kind"], &event["involvedObject"]["kind"]].contains(&&json!(kind))
    };
    rig.cluster.until("events", LONG, |event| event["reason"] == "Blocked" && about(event)).await.unwrap();
}

fn progressing(status: &Value) -> (String, String) {
    let found = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Progressing")
        .cloned()
        .unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

/// That one thing is asked for ever more rarely in the time that follows: pauses of half a second and more
/// double.
async fn rarely_asked_for(rig: &Rig, verb: &str, resource: &str) {
    rig.cluster.clear_requests();
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let requests = rig.requests();
    // On a machine under load it was longer than that.
    let most = 1 + (2 * began.elapsed().as_secs() + 1).ilog2();
    let tries = requests
        .iter()
        .filter(|r| r.verb == verb && r.resource == resource && !r.query.contains("dryRun"))
        .count();
    assert!(tries <= most as usize, "{verb} {resource}: {tries} tries in {:?}", began.elapsed());
}

struct Case {
    verb: &'static str,
    resource: &'static str,
    code: u16,
    named: &'static str,
    /// What the status says that it is at.
    at: &'static str,
}

/// Each request that a node in progress depends on is refused for good, with quota's 403, a webhook's 400, an
/// invalid object's 422.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_stays_is_told_tried_rarely_and_forgotten() {
    let case = |verb, resource, code, named, at| Case { verb, resource, code, named, at };
    let cases = [
        case(
            "patch",
            "nodeops.operator.kairos.io",
            403,
            "^op$",
            "setting the finalizers of NodeOp default/op",
        ),
        case("patch", "nodes", 400, "n1", "patching node n1"),
        case("patch", "jobs.batch", 403, "op-", "resuming Job default/op-"),
    ];
    futures::future::join_all(cases.into_iter().map(refused_for_good)).await;
}

async fn refused_for_good(case: Case) {
    let rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
    let fault =
        Fault::on(case.verb, case.resource, Effect::Refuse(case.code)).named(case.named).saying(WORDS);
    rig.cluster.faults().arm(fault.by("operator").always());
    is_told_and_forgotten(rig, &case, |rig| rig.cluster.faults().clear()).await;
}

async fn is_told_and_forgotten(mut rig: Rig, case: &Case, mend: impl FnOnce(&Rig)) {
    let Case { verb, resource, at, .. } = *case;
    rig.start(&[]);
    rig.op("op", reboot()).await;
    rig.says("op", "n1", WORDS).await;
    let status = rig.status("op");
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap();
    assert!(message.contains(at) && message.contains("keeps failing"), "{verb} {resource}: {message}");
    let (reason, text) = progressing(&status);
    assert!(
        reason == "Blocked" && text.contains(WORDS) && status["message"].as_str().unwrap().contains(WORDS),
        "{status:#}"
    );

    let kind = if verb == "patch" && resource == "jobs.batch" { "Job" } else { "NodeOp" };
    complained(&rig, kind).await;
    rarely_asked_for(&rig, verb, resource).await;
    let writes = rig.requests().iter().filter(|r| r.resource == "nodeops.operator.kairos.io/status").count();
    assert!(writes <= 1, "{verb} {resource}: {writes} statuses written, which say the same");
    assert_eq!(complaints(&rig, kind).len(), 1, "{:?}", complaints(&rig, kind));

    mend(&rig);
    let status = rig.over("op").await;
    assert_eq!(
        (&status["phase"], rig.commands("n1"), rig.reboots("n1")),
        (&json!("Completed"), 1, 1),
        "{status:#}"
    );
    assert!(!status.to_string().contains(WORDS), "{status:#}");
    assert_eq!((progressing(&status).0.as_str(), rig.left()), ("Finished", Vec::new()));
}

/// What admission refuses only when it counts: a dry run was fine, and the quota was used up since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_a_quota_that_is_used_up_after_the_dry_run() {
    let cases = [
        ("create", "pods", "creating reboot waiter"),
        ("create", "jobs.batch", "creating Job op-n1-"),
        ("create", "serviceaccounts", "making the waiter's ServiceAccount"),
        ("create", "roles.rbac.authorization.k8s.io", "making the waiter's Role"),
        ("create", "rolebindings.rbac.authorization.k8s.io", "making the waiter's RoleBinding"),
    ];
    let refused = |(verb, resource, at): (&'static str, &'static str, &'static str)| async move {
        let rig = Rig::idle(Cluster::builder().nodes(1).control_planes(1)).await;
        let label = |o: &Value, name: &str| !o["metadata"]["labels"][name].is_null();
        let ours = move |o: &Value| label(o, "kairos.io/nodeop") && !label(o, "kairos.io/preflight");
        rig.cluster
            .admission()
            .refuse(move |c| (c.table == resource && !c.dry_run && ours(c.object)).then(|| WORDS.into()));
        let case = Case { verb, resource, code: 403, named: "", at };
        is_told_and_forgotten(rig, &case, |rig| rig.cluster.admission().clear()).await;
    };
    futures::future::join_all(cases.map(refused)).await;
}

/// A status that cannot be written can say nothing: the Event does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_is_refused_is_told_in_an_event() {
    let rig = Rig::new(1).await;
    let fault = Fault::on("patch", "nodeops.operator.kairos.io/status", Effect::Refuse(413))
        .saying("etcdserver: request is too large");
    rig.cluster.faults().arm(fault.always());
    rig.op("op", reboot()).await;
    complained(&rig, "NodeOp").await;
    let said = complaints(&rig, "NodeOp");
    assert!(
        said[0].contains("patching the status of NodeOp default/op") && said[0].contains("too large"),
        "{said:?}"
    );
    rarely_asked_for(&rig, "patch", "nodeops.operator.kairos.io/status").await;
    assert_eq!((complaints(&rig, "NodeOp").len(), rig.claims().0.len()), (1, 0));
    rig.cluster.faults().clear();
    assert_eq!(rig.over("op").await["phase"], "Completed");
}

/// The claim of a finished node that cannot be given back keeps the NodeOp from its end, and it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_be_given_back_is_told() {
    let rig = Rig::new(1).await;
    rig.op("op", and(reboot(), json!({"command": ["sh", "-c", "sleep 1"], "rebootOnSuccess": false}))).await;
    rig.command_runs("n1").await;
    let webhook = "admission webhook denied the request";
    rig.cluster.faults().arm(Fault::on("patch", "nodes", Effect::Refuse(400)).saying(webhook).always());
    let says = |op: &Value| op["status"]["message"].as_str().is_some_and(|message| message.contains(webhook));
    let op = rig.cluster.until(OPS, LONG, says).await.unwrap();
    assert_eq!(
        (&op["status"]["phase"], progressing(&op["status"]).0.as_str()),
        (&json!("Running"), "Blocked"),
        "{op:#}"
    );
    assert!(op["status"]["message"].as_str().unwrap().contains("patching node n1 keeps failing"), "{op:#}");
    complained(&rig, "Node").await;
    rig.cluster.faults().clear();
    assert_eq!((&rig.over("op").await["phase"], rig.left()), (&json!("Completed"), Vec::new()));
}

/// A NodeOpUpgrade whose NodeOp is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodeop_that_an_upgrade_cannot_make_is_told_on_the_upgrade() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    rig.cluster.faults().arm(Fault::on("create", OPS, Effect::Refuse(403)).saying(WORDS).always());
    rig.upgrade("up", "v3.5.0").await;
    let says = |up: &Value| up["status"]["message"].as_str().is_some_and(|message| message.contains(WORDS));
    let up = rig.cluster.until(UPGRADES, LONG, says).await.unwrap();
    assert_eq!(progressing(&up["status"]).0, "Blocked", "{up:#}");
    complained(&rig, "NodeOpUpgrade").await;
    rig.cluster.faults().clear();
    let over = |up: &Value| up["status"]["phase"] == "Completed";
    let up = rig.cluster.until(UPGRADES, LONG, over).await.unwrap();
    assert!(!up["status"].to_string().contains(WORDS), "{up:#}");
    assert_eq!(complaints(&rig, "NodeOpUpgrade").len(), 1);
}

/// A live read that fails is read again soon, though nothing else happens, and one that keeps failing is
/// told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_without_an_answer_is_asked_again_and_told() {
    let rig = Rig::new(2).await;
    rig.labelled().await;
    // Before a control-plane node is taken, all NodeOps are listed.
    rig.cluster.faults().arm(Fault::on("list", OPS, Effect::Refuse(500)).saying("etcd is asleep").always());
    rig.op("op", reboot()).await;
    rig.says("op", "n1", "listing all NodeOps keeps failing").await;
    rig.says("op", "n1", "etcd is asleep").await;
    rarely_asked_for(&rig, "list", OPS).await;
    rig.cluster.faults().clear();
    assert_eq!(rig.over("op").await["phase"], "Completed");
}

/// Pods in the operator's own namespace that are refused: an upgrade that waits for its proof says so, and so
/// does the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_that_cannot_be_read_are_told_where_they_are_waited_for() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    let facts = |o: &Value| o["metadata"]["labels"]["app"] == "kairos-node-labeler";
    rig.cluster.admission().refuse(move |c| {
        (c.table == "pods" && facts(c.object)).then(|| "violates PodSecurity restricted".into())
    });
    rig.upgrade("up", "v3.5.0").await;
    rig.says("up", "n1", "violates PodSecurity restricted").await;
    complained(&rig, "Node").await;
    rig.cluster.admission().clear();
    let status = rig.over("up").await;
    assert_eq!(status["nodeStatuses"]["n1"]["verified"], true, "{status:#}");
    assert_eq!(complaints(&rig, "Node").len(), 1);
}
