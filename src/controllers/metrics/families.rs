//! Every family of metrics: name, type, labels and meaning. What is served and `docs/metrics.md` are both
//! made from this table.
//!
//! Names are as Prometheus' own text format has them. A family of [`Scope::Process`] is served by every
//! replica; one of [`Scope::Cluster`] by the leader alone, so that nothing is counted twice.

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This process.
    Process,
    /// Operations and nodes.
    Cluster,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// A gauge that is always 1, whose labels say something.
    Info,
}

impl Kind {
    /// Its name, as people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub scope: Scope,
    pub labels: &'static [&'static str],
    /// One sentence, without its full stop.
    pub help: &'static str,
}

impl Family {
    /// Its unit, which its name ends in.
    pub fn unit(&self) -> Option<&'static str> {
        const SECONDS: &str = "seconds";
        self.name.ends_with(SECONDS).then_some(SECONDS)
    }

    /// Its name without what its type and its unit add to it.
    pub(super) fn stem(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let stem = self.name.strip_suffix(suffix).unwrap_or(self.name);
        self.unit().and_then(|unit| stem.strip_suffix(unit)?.strip_suffix('_')).unwrap_or(stem)
    }
}

const fn process(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, scope: Scope::Process, labels, help }
}

const fn cluster(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, scope: Scope::Cluster, labels, help }
}

/// The labels that name an operation. A NodeOpUpgrade and the NodeOp that it makes are one operation, the
/// NodeOpUpgrade.
macro_rules! operation {
    ($($more:literal),*) => { &["namespace", "name", "kind" $(, $more)*] };
}

pub const BUILD: Family =
    process("kairos_operator_build_info", Kind::Info, &["version"], "The version of the operator");
pub const LEADER: Family =
    process("kairos_operator_leader", Kind::Gauge, &[], "1 on the replica that leads, 0 on a standby");
pub const PLANS: Family =
    process("kairos_operator_plans_total", Kind::Counter, &[], "Plans made since the process began");
pub const PLAN_DURATION: Family = process(
    "kairos_operator_plan_duration_seconds",
    Kind::Histogram,
    &[],
    "How long the computing of one plan took",
);
pub const API_REQUESTS: Family = process(
    "kairos_operator_api_requests_total",
    Kind::Counter,
    &["verb", "code"],
    "Requests to the API server that were answered with this code; the code none is that of requests without an answer",
);
pub const BLOCKED: Family = process(
    "kairos_operator_blocked",
    Kind::Gauge,
    &[],
    "1 while something that the operator does failed three times in a row and has not succeeded since",
);
pub const EVENTS_LOST: Family = process(
    "kairos_operator_events_lost_total",
    Kind::Counter,
    &[],
    "Events that could not be written, or were dropped because too many waited, or for too long",
);

pub const PHASE: Family = cluster(
    "kairos_nodeop_phase",
    Kind::Gauge,
    operation!("phase"),
    "1 for the phase of the operation, 0 for each other one; Deleting stands for an operation that is being deleted",
);
pub const NODES: Family = cluster(
    "kairos_nodeop_nodes",
    Kind::Gauge,
    operation!("phase"),
    "Targets of the operation in this phase",
);
pub const START: Family = cluster(
    "kairos_nodeop_start_timestamp_seconds",
    Kind::Gauge,
    operation!(),
    "When the operation was created",
);
pub const LAST_PROGRESS: Family = cluster(
    "kairos_nodeop_last_progress_timestamp_seconds",
    Kind::Gauge,
    operation!(),
    "When a node of the operation changed its phase or its step last; before that, when the operation was created",
);
pub const STALLED: Family = cluster(
    "kairos_nodeop_stalled",
    Kind::Gauge,
    operation!(),
    "1 while the operation does not go on unless somebody helps: its condition Stalled, unless it is over",
);
pub const WAITING: Family = cluster(
    "kairos_nodeop_waiting",
    Kind::Gauge,
    operation!("reason"),
    "Targets of an unfinished operation that wait for this reason",
);
pub const STEP_START: Family = cluster(
    "kairos_node_step_start_timestamp_seconds",
    Kind::Gauge,
    &["node", "step"],
    "When the node began its present step; only for nodes in progress",
);
pub const STEP_DEADLINE: Family = cluster(
    "kairos_node_step_deadline_timestamp_seconds",
    Kind::Gauge,
    &["node", "step"],
    "When the present step of the node is given up, if it has a deadline of its own",
);
pub const BLOCKED_PODS: Family = cluster(
    "kairos_node_drain_blocked_pods",
    Kind::Gauge,
    &["node"],
    "Pods whose eviction is refused; only for nodes that are being drained",
);
pub const BLOCKED_SINCE: Family = cluster(
    "kairos_node_drain_blocked_start_timestamp_seconds",
    Kind::Gauge,
    &["node"],
    "Since when the drain of the node has been blocked; only while it is",
);
pub const FINISHED: Family = cluster(
    "kairos_nodes_finished_total",
    Kind::Counter,
    &["kind", "result", "reason"],
    "Nodes that were finished; the reason of a failed or skipped one is the step in which it ended",
);
pub const NODE_DURATION: Family = cluster(
    "kairos_node_duration_seconds",
    Kind::Histogram,
    &["kind"],
    "From the moment that a node was taken to its end, whatever its result",
);
pub const DRAIN_DURATION: Family = cluster(
    "kairos_drain_duration_seconds",
    Kind::Histogram,
    &["kind"],
    "How long a drain took that came to its end",
);
pub const BLOCKED_DURATION: Family = cluster(
    "kairos_drain_blocked_duration_seconds",
    Kind::Histogram,
    &["kind"],
    "How long the evictions of a drain were refused, as by a PodDisruptionBudget",
);
pub const JOB_DURATION: Family = cluster(
    "kairos_job_duration_seconds",
    Kind::Histogram,
    &["kind"],
    "From the drained node to the success of its Job",
);
pub const REBOOT_DURATION: Family = cluster(
    "kairos_reboot_duration_seconds",
    Kind::Histogram,
    &["kind"],
    "From the success of the Job to the node being Ready in another boot",
);
pub const PULL_DURATION: Family = cluster(
    "kairos_image_pull_duration_seconds",
    Kind::Histogram,
    &["kind"],
    "From the making of the first pod of an operation on a node (its preflight, else its Job) to the start of that pod's container, which is the pull of the image where the node did not have it",
);
pub const EVICTIONS: Family = cluster(
    "kairos_evictions_total",
    Kind::Counter,
    &["result"],
    "Tries to evict a pod, by what came of them",
);

/// All families, in the order in which they are explained.
pub const FAMILIES: [Family; 25] = [
    BUILD,
    LEADER,
    PLANS,
    PLAN_DURATION,
    API_REQUESTS,
    BLOCKED,
    EVENTS_LOST,
    PHASE,
    NODES,
    START,
    LAST_PROGRESS,
    STALLED,
    WAITING,
    STEP_START,
    STEP_DEADLINE,
    BLOCKED_PODS,
    BLOCKED_SINCE,
    FINISHED,
    NODE_DURATION,
    DRAIN_DURATION,
    BLOCKED_DURATION,
    JOB_DURATION,
    REBOOT_DURATION,
    PULL_DURATION,
    EVICTIONS,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What Prometheus' naming rules ask for, and what keeps both text formats valid: nothing in a help text
    /// has to be escaped, and no name ends in what a type adds to it.
    #[test]
    fn names_and_texts_are_as_prometheus_wants_them() {
        for Family { name, kind, scope, labels, help } in FAMILIES {
            let prefix = if scope == Scope::Process { "kairos_operator_" } else { "kairos_" };
            assert!(name.starts_with(prefix), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), kind == Kind::Info, "{name}");
            for suffix in ["_count", "_sum", "_bucket", "_created"] {
                assert!(!name.ends_with(suffix), "{name}");
            }
            assert!(!help.ends_with('.') && !help.contains(['"', '\\', '\n']), "{name}: {help}");
            // A label that names an object without bound has no place here.
            for label in labels {
                assert!(!["pod", "uid", "budget", "message", "image"].contains(label), "{name}: {label}");
            }
        }
        let names: std::collections::BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len());
    }

    #[test]
    fn the_stem_is_the_name_without_type_and_unit() {
        let stems = [BUILD, PLANS, PLAN_DURATION, STEP_START, NODES].map(|family| family.stem());
        assert_eq!(
            stems,
            [
                "kairos_operator_build",
                "kairos_operator_plans",
                "kairos_operator_plan_duration",
                "kairos_node_step_start_timestamp",
                "kairos_nodeop_nodes"
            ]
        );
    }
}
