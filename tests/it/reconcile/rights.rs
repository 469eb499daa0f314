//! Least privilege: one run of everything, and then what the roles hold is compared with the rights that the
//! server saw used.
//!
//! A right that is held and not used is a right that somebody else may use. One that is used and not held
//! would have been refused, and the run would not end.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use k8s_openapi::api::{core::v1::Node, policy::v1::PodDisruptionBudget};
use kairos_operator::{
    manifests::{Grant, LEADER, OPERATOR},
    render::access,
};
use kairos_sim::{Cluster, Effect, Fault, Outcome};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::policies::bounds;

use super::{
    drains::{BLOCKED, blocker},
    rig::{self, LONG, Rig, WAITERS, and, reboot},
    silent::no_sandbox,
};

/// Verb, group and resource.
type Rights = BTreeSet<(String, String, String)>;

/// What the operator must hold only because it grants it to waiters.
const ONLY_GRANTED: [(&str, &str, &str); 1] = [("patch", "", "pods")];

fn right(verb: &str, group: &str, resource: &str) -> (String, String, String) {
    (verb.to_owned(), group.to_owned(), resource.to_owned())
}

fn held(grants: &[Grant]) -> Rights {
    let resources =
        grants.iter().flat_map(|grant| grant.resources.iter().map(move |resource| (grant, resource)));
    resources
        .flat_map(|(grant, resource)| grant.verbs.iter().map(move |verb| right(verb, grant.group, resource)))
        .collect()
}

/// What a waiter is granted.
fn granted() -> Rights {
    let grant = access::Grant { node: "n1", waiter: "waiter", job: "job" };
    let rules = access::role(&Default::default(), "account", grant).rules.unwrap();
    let mut rights = Rights::new();
    for rule in rules {
        for (group, resource) in rule
            .api_groups
            .iter()
            .flatten()
            .flat_map(|g| rule.resources.iter().flatten().map(move |r| (g, r)))
        {
            rights.extend(rule.verbs.iter().map(|verb| right(verb, group, resource)));
        }
    }
    rights
}

/// Two candidates, so that the Lease is made, watched and handed over; three nodes that run Kairos.
async fn cluster() -> Rig {
    let mut rig = Rig::idle(Cluster::builder().nodes(3).control_planes(1)).await;
    bound(&rig.cluster);
    rig.cluster.script(|run| {
        (run.container.name == "preflight" && run.container.image.as_deref() == Some("busybox:1"))
            .then(|| Outcome::code(0))
    });
    for name in ["first", "second"] {
        let own = format!("--pod-name={name}");
        rig.start(&["--leader-elect", "--node-conditions=auto", &own, "--operator-image=operator:v1"]);
    }
    rig.labelled().await;
    rig
}

/// A drain with a budget that blocks, a volume that stays attached for a pod that stays, a preflight and a
/// reboot.
async fn drain(rig: &Rig) {
    let keeps = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "keeps", "namespace": "default", "labels": {"keep": "yes"}},
        "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "busybox"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "disk"}});
    let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "at-n2"},
        "spec": {"attacher": "csi", "nodeName": "n2", "source": {"persistentVolumeName": "disk"}}});
    for object in [&keeps.to_string(), &claim.to_string(), &attachment.to_string(), &blocker("n2")] {
        rig.cluster.apply(object).await.unwrap();
    }
    let nodes: Api<Node> = Api::all(rig.cluster.client());
    let attached = json!({"status": {"volumesAttached": [{"name": "disk", "devicePath": "/dev/sdb"}]}});
    nodes.patch_status("n2", &PatchParams::default(), &Patch::Merge(attached)).await.unwrap();
    let running = |name: &'static str| {
        move |p: &Value| p["metadata"]["name"] == name && p["status"]["phase"] == "Running"
    };
    for name in ["keeps", "db"] {
        rig.cluster.until("pods", LONG, running(name)).await.unwrap();
    }
    let options = json!({"drainOptions": {"enabled": true, "force": true, "skip": {"matchLabels": {"keep": "yes"}}},
        "preflight": {"command": ["check"]}, "nodeSelector": on("n2")});
    // The kubelet reports late that the Job's pod has ended: the waiter has its sentinel and watches for the
    // Job's end.
    let late =
        Fault::on("patch", "pods/status", Effect::Delay(Duration::from_millis(500))).by("^system:node:");
    rig.cluster.faults().arm(late.named("^drains-n2-[0-9a-f]{10}-").always());
    rig.op("drains", and(reboot(), options)).await;
    rig.says("drains", "n2", BLOCKED).await;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(rig.cluster.client());
    budgets.delete("db-budget", &DeleteParams::default()).await.unwrap();
    assert_eq!(rig.over("drains").await["phase"], "Completed");
    rig.cluster.faults().clear();
}

fn on(node: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/hostname": node}})
}

/// A command that fails; the next NodeOp inherits the cordon that it left.
async fn fail(rig: &Rig) {
    let command = json!({"command": ["sh", "-c", "exit 3"], "backoffLimit": 0, "nodeSelector": on("n2")});
    rig.op("fails", and(reboot(), command)).await;
    assert_eq!(rig.over("fails").await["phase"], "Failed");
    rig.op("repairs", and(reboot(), json!({"rebootOnSuccess": false, "nodeSelector": on("n2")}))).await;
    assert_eq!(rig.over("repairs").await["phase"], "Completed");
    rig.delete("fails").await;
}

/// A NodeOp that is deleted while its command runs.
async fn delete(rig: &Rig) {
    rig.op("deleted", and(reboot(), json!({"command": ["sleep", "infinity"], "nodeSelector": on("n2")})))
        .await;
    rig.command_runs("n2").await;
    rig.delete("deleted").await;
    rig.cluster.until_none(rig::OPS, LONG, |op| op["metadata"]["name"] == "deleted").await.unwrap();
}

/// A NodeOp that is deleted a while after it is over.
async fn expire(rig: &Rig) {
    let spec = json!({"rebootOnSuccess": false, "ttlSecondsAfterFinished": 60, "nodeSelector": on("n2")});
    rig.op("expires", and(reboot(), spec)).await;
    assert_eq!(rig.over("expires").await["phase"], "Completed");
}

/// A pod that gets no container, and Events that say why.
async fn wait_in_silence(rig: &Rig) {
    no_sandbox(rig, "silent", "n2").await;
    rig.cluster.faults().clear();
    assert_eq!(rig.over("silent").await["phase"], "Completed");
}

/// A node that somebody else claims in the last moment: it goes back, and is taken again, which is the same
/// Event once more.
async fn lose_and_win(rig: &Rig) {
    rig.cluster.faults().arm(Fault::on("patch", "nodes", Effect::Refuse(500)).named("n2").always());
    rig.op("yields", and(reboot(), json!({"rebootOnSuccess": false, "nodeSelector": on("n2")}))).await;
    rig.in_step("yields", "n2", "Claim").await;
    rig.patch_node(
        "n2",
        json!({"metadata": {"annotations": {"operator.kairos.io/claimed-by": "default/ghost@ghost"}}}),
    )
    .await;
    rig.says("yields", "n2", "waiting for NodeOp ").await;
    rig.cluster.faults().clear();
    assert_eq!(rig.over("yields").await["phase"], "Completed");
}

/// An init that cannot be asked: the waiter turns to the kernel and says so, which here is in vain.
async fn ask_the_kernel(rig: &Rig) {
    // Its preflight has passed when it is about to be claimed.
    rig.cluster.faults().arm(Fault::on("patch", "nodes", Effect::Refuse(500)).named("n3").always());
    rig.op("kernel", and(reboot(), json!({"nodeSelector": on("n3")}))).await;
    rig.in_step("kernel", "n3", "Claim").await;
    // The kubelet refuses its first waiter, and the next one needs the same account for a pod of another
    // name.
    let full =
        "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110";
    rig.cluster.node("n3").refuse_pods(Some(("OutOfpods", full.into())));
    rig.cluster.faults().clear();
    rig.hold_reboots();
    let refused = |pod: &Value| {
        pod["metadata"]["labels"]["kairos.io/reboot"] == "true" && pod["status"]["phase"] == "Failed"
    };
    rig.cluster.until("pods", LONG, refused).await.unwrap();
    rig.cluster.node("n3").refuse_pods(None);
    rig.in_step("kernel", "n3", "Reboot").await;
    let changed = forget_systemd(&rig.cluster.dir().join("nodes/n3"));
    assert_eq!(changed, 1, "one waiter on n3");
    rig.cluster.faults().clear();
    rig.cluster.until("events", LONG, |event| event["reason"] == "RebootForced").await.unwrap();
    // The kernel is the machine's and is not asked here. The waiter gives up, is started again, and finds its
    // init.
    assert_eq!((rig.over("kernel").await["phase"].clone(), rig.reboots("n3")), (json!("Completed"), 1));
}

/// Gives every PID 1 that is systemd below `directory` a name that nobody knows.
fn forget_systemd(directory: &Path) -> usize {
    let mut changed = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            changed += forget_systemd(&path);
        } else if path.ends_with("proc/1/comm") && fs::read_to_string(&path).unwrap() == "systemd\n" {
            fs::write(&path, "unheard-of\n").unwrap();
            changed += 1;
        }
    }
    changed
}

/// An upgrade of all nodes, whose limits are changed meanwhile.
async fn upgrade(rig: &Rig) {
    rig.upgrade("up", "v3.5.0").await;
    rig.command_runs("n1").await;
    let change = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "metadata": {"name": "up", "namespace": "default"},
        "spec": {"image": "kairos:v3.5.0", "concurrency": 2, "stopOnFailure": true, "nodeSelector": {"matchLabels": {"kairos.io/managed": "true"}}}});
    rig.cluster.apply(&change.to_string()).await.unwrap();
    let over = |up: &Value| matches!(up["status"]["phase"].as_str(), Some("Completed" | "Failed"));
    let up = rig.cluster.until(rig::UPGRADES, LONG, over).await.unwrap();
    assert_eq!(up["status"]["phase"], "Completed", "{:#}", up["status"]);
    rig.over("up").await;
    rig.delete_upgrade("up").await;
}

/// What the admission policy on the operator's account would have said to what it makes, on which policies
/// are not evaluated otherwise: a refusal here is one there.
fn bound(cluster: &Cluster) {
    cluster.admission().refuse(|made| {
        let owners = made.object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let ours = owners.clone().any(|owner| owner["kind"] == "NodeOp")
            || (owners.clone().any(|owner| owner["kind"] == "Node") && made.table == "pods");
        let resource = made.table.split('.').next().unwrap_or_default();
        let concerned = BOUND.contains(&resource) && ours;
        concerned.then(|| bounds::refusal(resource, None, Some(made.object))).flatten()
    });
}

/// The kinds of objects that the policy on the operator is about.
const BOUND: [&str; 6] = ["pods", "nodes/status", "jobs", "serviceaccounts", "roles", "rolebindings"];

/// What the operator made, changed and deleted in the run, by the policy on its account.
fn stays_within_its_bounds(rig: &Rig) {
    let history = rig.cluster.history();
    let mut judged = BTreeSet::new();
    for request in rig.cluster.requests() {
        let resource = request.resource.split('.').next().unwrap_or_default();
        let done = request.user == rig::OPERATOR && request.is_write() && request.code < 300;
        if !done || !BOUND.contains(&resource) || request.verb == "create" {
            continue;
        }
        let of = |change: &&std::sync::Arc<kairos_sim::Change>| {
            (&change.key.name, &change.key.namespace) == (&request.name, &request.namespace)
                && Some(&*change.key.table) == request.resource.split('/').next()
                && change.version <= request.version
        };
        let Some(change) = history.iter().rev().find(of) else { panic!("{request:?} is of nothing") };
        let new = (request.verb != "delete").then_some(&*change.object);
        let old = change.before.as_ref().filter(|_| resource == "nodes/status").unwrap_or(&change.object);
        let refusal = bounds::refusal(resource, Some(old), new);
        assert_eq!(refusal, None, "{request:?}");
        judged.insert(format!("{} {resource}", request.verb));
    }
    let done = [
        "delete jobs",
        "delete roles",
        "delete serviceaccounts",
        "patch jobs",
        "patch roles",
        "patch nodes/status",
    ];
    assert!(done.iter().all(|what| judged.contains(*what)), "{judged:?}");
}

/// The rights that a run of everything uses, as (operator, operator on its Lease, waiters).
async fn run() -> (Rights, Rights, Rights) {
    let mut rig = cluster().await;
    expire(&rig).await;
    drain(&rig).await;
    fail(&rig).await;
    delete(&rig).await;
    wait_in_silence(&rig).await;
    lose_and_win(&rig).await;
    ask_the_kernel(&rig).await;
    upgrade(&rig).await;
    rig.cluster.until_none(rig::OPS, LONG, |op| op["metadata"]["name"] == "expires").await.unwrap();
    stays_within_its_bounds(&rig);
    rig.operators.iter_mut().for_each(rig::Operator::terminate);
    let (mut operator, mut lease, mut waiters) = (Rights::new(), Rights::new(), Rights::new());
    for used in rig.cluster.rights() {
        let right = right(&used.verb, &used.group, &used.resource);
        match used.user.as_str() {
            rig::OPERATOR if used.group == "coordination.k8s.io" => {
                assert_eq!(used.namespace, "operator-system", "{used:?}");
                lease.insert(right);
            }
            rig::OPERATOR => drop(operator.insert(right)),
            user if user.starts_with(WAITERS) && user.ends_with("-reboot") => {
                let named = ["pods", "jobs"].contains(&used.resource.as_str());
                assert!(used.namespace == "default" && named != used.name.is_empty(), "{used:?}");
                waiters.insert(right);
            }
            // No other account says a word: Jobs, preflights and facts pods have no token.
            user => assert!(["kairos-sim:test", "system:node:sim"].contains(&user), "{used:?}"),
        }
    }
    (operator, lease, waiters)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_holds_what_a_run_of_everything_uses_and_nothing_else() {
    let (operator, lease, waiters) = run().await;
    assert_eq!(waiters, granted(), "a waiter's Role");
    assert_eq!(lease, held(LEADER), "the leader election Role");
    let only_granted: Rights =
        ONLY_GRANTED.iter().map(|(verb, group, resource)| right(verb, group, resource)).collect();
    assert!(only_granted.is_subset(&granted()), "{only_granted:?} is granted to nobody");
    let unused: Rights = held(OPERATOR).difference(&operator).cloned().collect();
    assert_eq!(unused, only_granted, "held, and neither used nor granted");
    assert!(operator.is_subset(&held(OPERATOR)));
}

/// What is compared above is what is printed and installed.
#[test]
fn the_printed_roles_are_these_grants() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/rbac/operator.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(file).unwrap()).unwrap();
    for (kind, grants) in [("ClusterRole", OPERATOR), ("Role", LEADER)] {
        let roles: Vec<&Value> = objects.iter().filter(|object| object["kind"] == kind).collect();
        assert_eq!(roles.len(), 1, "{kind}");
        let rules: Vec<Value> =
            grants.iter().map(|grant| serde_json::to_value(grant.rule()).unwrap()).collect();
        assert_eq!(roles[0]["rules"], Value::Array(rules), "{kind}");
    }
}

/// What a reader is told is all that is held, each with a reason.
#[test]
fn the_page_on_rights_names_every_right() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rights.md")).unwrap();
    // The rows of the table below a heading, as (resource, verb); a cell holds one or more resources, and
    // what they are limited to.
    let told = |heading: &str| {
        let section = page
            .split("\n## ")
            .find(|section| section.starts_with(heading))
            .unwrap_or_else(|| panic!("no {heading}"));
        let mut told = BTreeSet::new();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
            let [resources, _, verbs, why] = cells.as_slice() else { panic!("{row}") };
            assert!(why.ends_with('.'), "{row}");
            let resources = resources.split(", only").next().unwrap().split('`').skip(1).step_by(2);
            told.extend(resources.flat_map(|resource| {
                verbs.split(", ").map(move |verb| (verb.to_owned(), resource.to_owned()))
            }));
        }
        told
    };
    let pairs = |rights: Rights| {
        rights.into_iter().map(|(verb, _, resource)| (verb, resource)).collect::<BTreeSet<_>>()
    };
    assert_eq!(told("The operator, in all namespaces"), pairs(held(OPERATOR)));
    assert_eq!(told("The operator, in its own namespace"), pairs(held(LEADER)));
    assert_eq!(told("A reboot waiter"), pairs(granted()));
}
