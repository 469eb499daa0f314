//! The page of docs/ that lists the metrics: the table from which they are served.

use super::markdown::{code, table};
use crate::{
    controllers::metrics::families::{FAMILIES, Family, Scope},
    plan::model::why::WaitReason,
};

const INTRODUCTION: &str = "# Metrics

Every family of metrics that the operator serves at `/metrics`, as Prometheus' text format and as OpenMetrics, whichever is
asked for. [Monitoring](monitoring.md) says how to switch them on, and what alerts and panels are made of them.

";

const CLUSTER: &str = "The replica that leads serves these, so that nothing is counted twice. An operation is what you made: a NodeOpUpgrade
together with its NodeOp, or a NodeOp alone; `kind` says which. Operations that are not over are shown, 200 at most, and of
those that are over the 50 that ended last, for a day. Nodes are shown while they are in progress; no pod and no disruption budget is a
label. Gauges come from the statuses, so a restart of the operator changes nothing in them. Counters and histograms begin at
0 with each process.

";

/// The page.
pub(super) fn page() -> String {
    let parts = [
        INTRODUCTION.to_owned() + "## The operator's process\n\n" + &families(Scope::Process),
        "## Operations and nodes\n\n".to_owned() + CLUSTER + &families(Scope::Cluster),
        "## What a node waits for\n\nThe label `reason` of `kairos_nodeop_waiting`:\n\n".to_owned()
            + &reasons(),
    ];
    parts.join("\n")
}

fn families(scope: Scope) -> String {
    let row = |family: &Family| {
        let labels: Vec<String> = family.labels.iter().map(|label| code(label)).collect();
        let unit = family.unit().unwrap_or_default().to_owned();
        vec![
            code(family.name),
            family.kind.name().to_owned(),
            labels.join(", "),
            unit,
            format!("{}.", family.help),
        ]
    };
    let rows: Vec<Vec<String>> = FAMILIES.iter().filter(|family| family.scope == scope).map(row).collect();
    table(&["name", "type", "labels", "unit", "meaning"], &rows)
}

fn reasons() -> String {
    let row = |reason: WaitReason| vec![code(reason.name()), format!("{}.", reason.meaning())];
    table(&["reason", "meaning"], &WaitReason::ALL.map(row))
}
