//! What each verb asks the server for is what `check` says that it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    time::{Duration, Instant},
};

use kairos_sim::{Cluster, Request};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::stage::{Stage, ago, command, entry, run};

const LONG: Duration = Duration::from_secs(600);

/// What is run, each verb in each of its ways. What `check`, `version` and a completion read is another
/// matter: see `src/plugin/rights.rs`.
const RUNS: &[&str] = &[
    "plan quay.io/kairos/opensuse:v3.5.0",
    "status",
    "status -A",
    "status up1",
    "status nop/op1",
    "wait over",
    "explain n2",
    "nodes",
    "logs up1",
    "logs nop/done",
    "history",
    "history -A",
    "report",
    "report -A",
    "plan up1 --drain-nodes all",
    "plan nop/op1",
    "upgrade kairos:v2 --name made",
    "upgrade kairos:v2 --name late --wait --timeout 1s",
    "run --name made -- true",
    "run --name late --wait --timeout 1s -- true",
    "pause up1",
    "resume up1",
    "pause nop/op1",
    "resume nop/op1",
    "cancel up1 -y",
    "cancel nop/op1 -y",
];

/// The same, of what goes on until the operation is over, and is ended when it watches these kinds.
const WATCHES: &[(&str, &[&str])] = &[
    ("status up1 -w", &["nodeopupgrades", "nodeops"]),
    ("status nop/op1 -w", &["nodeops"]),
    ("wait up1", &["nodeopupgrades", "nodeops"]),
    ("wait nop/op1", &["nodeops"]),
    ("upgrade kairos:v2 --name followed --wait", &["nodeopupgrades", "nodeops"]),
    ("run --name followed --wait -- true", &["nodeops"]),
];

/// Pods that a drain would evict.
async fn workload(stage: &Stage) {
    let labels = json!({"app": "web"});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "image": "web", "command": ["sleep", "infinity"]}]}}}});
    stage.cluster.apply(&web.to_string()).await.unwrap();
    stage.cluster.until("deployments.apps", LONG, |web| web["status"]["readyReplicas"] == 3).await.unwrap();
}

/// Operations under way and over, and a pod of each.
async fn operations(stage: &Stage) {
    let status = |phase: &str, total: i64| {
        let done = i64::from(phase == "Completed");
        json!({"phase": phase, "message": "m", "nodeStatuses": {"n1": entry(phase, None, "m", 5)},
            "counts": {"total": total, "pending": 0, "running": total - done, "completed": done, "failed": 0, "done": format!("{done}/{total}")}})
    };
    let mut over = status("Completed", 1);
    over["conditions"] = json!([{"type": "Complete", "status": "True", "reason": "Completed", "message": "", "lastTransitionTime": ago(60)}]);
    // Of more nodes than the upgrade's own status tells of.
    stage.upgrade("up1", json!({"image": "kairos:v2"}), status("Running", 2)).await;
    let upgrades = json!({"image": "kairos:v2", "upgrade": {"active": true}});
    stage.child_of("up1", upgrades, status("Running", 2)).await;
    stage.op("op1", json!({"command": ["x"]}), status("Running", 1)).await;
    stage.op("done", json!({"command": ["x"]}), over.clone()).await;
    over["observedGeneration"] = 1.into();
    stage.upgrade("over", json!({"image": "kairos:v1"}), over).await;
    for op in ["up1", "done"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{op}-pod"), "namespace": "default", "labels": {"kairos.io/nodeop": op}},
            "spec": {"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "nodeop", "image": "i", "command": ["sh", "-c", "exit 0"]}]}});
        stage.cluster.apply(&pod.to_string()).await.unwrap();
        let ended = move |pod: &Value| {
            pod["metadata"]["name"] == format!("{op}-pod") && pod["status"]["phase"] == "Succeeded"
        };
        stage.cluster.until("pods", LONG, ended).await.unwrap();
    }
}

/// The rights that were used, with the verbs that used them.
#[derive(Default)]
struct Used(BTreeMap<String, BTreeSet<String>>);

impl Used {
    /// Takes what was asked since the requests were cleared.
    fn take(&mut self, stage: &Stage, verb: &str) {
        for right in stage.cluster.requests().iter().filter_map(right) {
            self.0.entry(right).or_default().insert(verb.to_owned());
        }
        stage.cluster.clear_requests();
    }

    async fn run(&mut self, stage: &Stage, words: &[&str]) {
        stage.cluster.clear_requests();
        let ran = stage.run(words).await;
        let refused = ran.err.contains("there is no") || ran.err.contains("unexpected argument");
        assert!(!refused, "{words:?}: {ran:?}");
        self.take(stage, words[0]);
    }

    /// Runs what goes on for ever, until it watches these kinds.
    async fn watch(&mut self, stage: &Stage, words: &[&str], kinds: &[&str]) {
        stage.cluster.clear_requests();
        let mut child =
            command(&stage.cluster.kubeconfig(), None, words).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while !kinds.iter().all(|kind| watched(stage, kind)) {
            assert!(
                begun.elapsed() < LONG && child.try_wait().unwrap().is_none(),
                "{words:?} watches no {kinds:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
        child.kill().await.unwrap();
        self.take(stage, words[0]);
    }
}

/// A request as a right, in the words of `check`; `None`: everybody has that right, or `check` tells of it in
/// another place.
fn right(request: &Request) -> Option<String> {
    let Request { user, verb, resource, namespace, .. } = request;
    let is_path = resource.is_empty() || resource.starts_with('/');
    if user != "admin" || is_path || resource.starts_with("selfsubject") || namespace == "operator-system" {
        return None;
    }
    let (table, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let plural = table.split('.').next().unwrap();
    let what = if subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{subresource}") };
    let place = match namespace.as_str() {
        _ if plural == "nodes" => String::new(),
        // A drain evicts pods wherever they are.
        _ if subresource == "eviction" => " in all namespaces".to_owned(),
        "" => " in all namespaces".to_owned(),
        namespace => format!(" in {namespace}"),
    };
    Some(format!("{verb} {what}{place}"))
}

/// Whether the user has begun to watch objects of the kind.
fn watched(stage: &Stage, kind: &str) -> bool {
    let watches = |request: &Request| request.user == "admin" && request.verb == "watch";
    stage.cluster.requests().iter().any(|request| watches(request) && request.resource.starts_with(kind))
}

/// The rights that `check` lists, with the verbs that it says need them: to somebody who has none.
async fn listed(stage: &Stage) -> BTreeMap<String, BTreeSet<String>> {
    let guest = stage.cluster.kubeconfig_for("default", "guest").unwrap();
    let checked = run(&guest, None, &["check", "-o", "json"]).await;
    let checked: Vec<Value> = serde_json::from_str(&checked.out).unwrap_or_else(|_| panic!("{checked:?}"));
    let mut listed = BTreeMap::new();
    for check in checked {
        let says = check["says"].as_str().unwrap();
        let Some(verbs) = says.strip_prefix("you may not; needed by ") else { continue };
        let bare = verbs.split('(').map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
        let bare: String = bare.collect();
        let names = bare.split(',').filter_map(|verb| Some(verb.split_whitespace().next()?.to_owned()));
        let again = listed.insert(check["check"].as_str().unwrap().to_owned(), names.collect());
        assert_eq!(again, None, "{check} is listed twice");
    }
    listed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_verb_asks_for_what_check_says_that_it_needs_and_for_nothing_else() {
    let stage = Stage::with(Cluster::builder().nodes(3).control_planes(2)).await;
    let mut used = Used::default();
    workload(&stage).await;
    let file = stage.cluster.dir().join("op.yaml");
    let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"generateName": "op-"},
        "spec": {"command": ["x"], "cordon": true, "drainOptions": {"enabled": true}}});
    std::fs::write(&file, op.to_string()).unwrap();
    // Where no other operation stands in its way, it would drain.
    used.run(&stage, &["plan", "-f", file.to_str().unwrap(), "--drain-nodes", "all"]).await;
    operations(&stage).await;
    for (line, kinds) in WATCHES {
        used.watch(&stage, &line.split(' ').collect::<Vec<_>>(), kinds).await;
    }
    for line in RUNS {
        used.run(&stage, &line.split(' ').collect::<Vec<_>>()).await;
    }
    let (used, listed) = (used.0, listed(&stage).await);
    let differ: Vec<String> = used
        .keys()
        .chain(listed.keys())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|right| used.get(*right) != listed.get(*right))
        .map(|right| format!("{right}: used by {:?}, listed for {:?}", used.get(right), listed.get(right)))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
}
