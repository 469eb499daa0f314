//! The page of docs/ that lists labels, annotations and Events: what the operator writes on objects, and what
//! it reads there.

use super::markdown::{code, table};
use crate::api::{
    event_reason::{self, EventReason},
    names,
};

const HEAD: &str = "# Names

Every label, annotation and finalizer that the operator writes, and those of people and of Kubernetes that it reads; and every Event that
it makes. Another key is never changed. Who may set which is bounded by an admission policy, see [Rights](rights.md).

";

/// On which kind of object a key stands, which one, and what it says.
type Row = (&'static str, String);

/// The page.
pub(super) fn page() -> String {
    let rows = |rows: &[Row]| -> Vec<Vec<String>> {
        rows.iter().map(|(name, meaning)| vec![code(name), meaning.clone()]).collect()
    };
    let keys = |title: &str, all: &[Row]| format!("## {title}\n\n{}", table(&["key", "meaning"], &rows(all)));
    [
        HEAD.to_owned() + &keys("Labels of nodes", &node_labels()),
        keys("Annotations of nodes", &node_annotations()),
        keys("On operations", &of_operations()),
        keys("On Jobs and pods", &of_work()),
        "## Events\n\nEach is on the operation; one that tells of a node is on the Node, too (`kubectl describe node`).\n\n"
            .to_owned()
            + &events(),
    ]
    .join("\n")
}

fn said(name: &'static str, meaning: &str) -> Row {
    (name, meaning.to_owned())
}

fn node_labels() -> Vec<Row> {
    let facts = names::FACT_LABELS.map(|(name, key)| {
        (name, format!("`KAIROS_{key}` of the node's `/etc/kairos-release`, as far as a label can hold it"))
    });
    let own = [
        said(
            names::MANAGED,
            "`true` on nodes that run Kairos. `false`, set by people, keeps all of these labels off the node",
        ),
        said(names::BOOT_STATE, "what the node has booted: `active`, `passive`, `recovery`, …"),
        said(names::HOLD, "set by people: with any value but `false`, no operation takes the node"),
        said(
            names::NOT_BALANCED,
            "`true` while an operation has the node, if it asks for that (`loadBalancer.exclude`)",
        ),
        said(names::NOT_REMEDIATED, "`true` while an operation that reboots has the node"),
    ];
    own.into_iter().chain(facts).collect()
}

fn node_annotations() -> Vec<Row> {
    let facts = names::FACT_ANNOTATIONS
        .map(|(name, key)| (name, format!("`KAIROS_{key}` of the node's `/etc/kairos-release`")));
    let kept = names::KEEPS_FROM_SCALE_DOWN.map(|(name, value)| {
        (name, format!("`{value}` while an operation has the node: autoscalers leave it"))
    });
    let own = [
        said(
            names::CLAIMED_BY,
            "which NodeOp has the node: `<namespace>/<name>@<uid>`. No other one touches it",
        ),
        said(
            names::CORDONED_BY,
            "which NodeOp has cordoned it; with `!failed` behind it once that has failed on the node, and `!failed!deleted` once it is gone",
        ),
        said(
            names::AUTOSCALER_HINTS,
            "which NodeOp has set what autoscalers, load balancers and remediators read, and what stood there before",
        ),
        said(
            names::ATTEMPTED,
            "which runs of which NodeOpUpgrades have had their attempt at the node, and when each was done with it",
        ),
        said(
            names::FACTS_OF,
            "in which boot its facts were read: `<boot id>/<version>/<hash>`, the last of the labels as they were written",
        ),
        said(names::RELEASE, "the release that it runs, as upgrades compare it"),
        said(names::BOOT_STATE_OF, "the boot state in that boot, also where `kairos.io/managed` is `false`"),
    ];
    own.into_iter().chain(kept).chain(facts).collect()
}

fn of_operations() -> Vec<Row> {
    vec![
        said(
            names::UPGRADE_NAME,
            "label of a NodeOp: the NodeOpUpgrade that made it (`kubectl get nodeops -l nodeopupgrade.kairos.io/name=up1`)",
        ),
        said(names::MANAGED_BY, "label of such a NodeOp: `nodeopupgrade-controller`"),
        said(
            names::RUN,
            "annotation of such a NodeOp: the run that it belongs to, `<generation>/<hash>`, and its round",
        ),
        said(names::FINALIZER, "finalizer of a NodeOp that has nodes to give back"),
        said(names::LEGACY_FINALIZER, "finalizer of the Go operator; it is taken off"),
    ]
}

fn of_work() -> Vec<Row> {
    let all = |names: &[(&'static str, &'static str)], what: &str| -> Vec<Row> {
        names.iter().map(|(name, value)| (*name, format!("{what}: `{value}`"))).collect()
    };
    let own = vec![
        said(names::NODEOP, "label: the NodeOp's name, cut to 63 characters with a hash"),
        said(names::NODE, "label: the node's name, cut likewise"),
        said(names::NODE_NAME, "annotation: the node's whole name"),
        said(names::REBOOT, "label of reboot waiters: `true`"),
        said(names::PREFLIGHT, "label of preflight pods: `true`"),
        said(names::APP, "label of facts pods: `kairos-node-labeler`"),
        said(names::ATTEMPT, "annotation of facts pods: how many before it failed"),
        said(
            names::REBOOT_STATE,
            "annotation that a reboot waiter writes on its own pod: `waiting`, `rebooting` or `completed`",
        ),
        said(names::WAITS_IN, "annotation that it writes there, too: the boot id that it reads"),
        said(
            names::SETTLED_IN,
            "annotation of a Job that a container of somebody else keeps from completing: the boot in which its operation succeeded",
        ),
        said(
            names::NO_REPLICA,
            "readiness gate of all our pods: none is Ready, so that no disruption budget counts one",
        ),
        said(names::DEFAULT_CONTAINER, "annotation: the container that `kubectl logs` means"),
    ];
    let mut rows = own;
    rows.extend(all(&names::KEEPS_NODE, "annotation of pods, by which autoscalers leave their node"));
    rows.extend(all(&names::LEAVE_ALONE_LABELS, "label of pods, by which service meshes leave them alone"));
    rows.extend(all(&names::LEAVE_ALONE_ANNOTATIONS, "annotation of pods, for the same"));
    rows
}

fn events() -> String {
    let row = |one: &EventReason| {
        let type_ = one.type_.name().to_owned();
        vec![code(one.name), type_, one.about.to_owned(), format!("{}.", one.meaning)]
    };
    let rows: Vec<Vec<String>> = event_reason::ALL.iter().map(row).collect();
    table(&["reason", "type", "on", "when"], &rows)
}
