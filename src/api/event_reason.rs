//! Every reason of an Event of ours. `docs/names.md` is printed from it, and a test looks for others in the
//! code.

use super::names::reason;

/// Which type Events of a reason have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
    /// One or the other, by what it tells.
    Either,
}

impl EventType {
    /// As people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
            Self::Either => "Normal or Warning",
        }
    }
}

/// What Events of one reason tell.
#[derive(Clone, Copy, Debug)]
pub struct EventReason {
    pub name: &'static str,
    pub type_: EventType,
    /// The kinds of objects that they are on.
    pub about: &'static str,
    /// When they are made, as a sentence without its full stop.
    pub meaning: &'static str,
}

const OPERATION: &str = "operation";
const NODE_TOO: &str = "NodeOp, Node";

const fn normal(name: &'static str, about: &'static str, meaning: &'static str) -> EventReason {
    EventReason { name, type_: EventType::Normal, about, meaning }
}

const fn warning(name: &'static str, about: &'static str, meaning: &'static str) -> EventReason {
    EventReason { name, type_: EventType::Warning, about, meaning }
}

/// Its time is over, which is bad if anything was to be done.
const EXPIRED: EventReason = EventReason {
    type_: EventType::Either,
    ..normal(reason::EXPIRED, OPERATION, "It is over, since `notAfter` has passed; a Warning if it failed")
};

/// All of them.
pub const ALL: [EventReason; 27] = [
    normal("Started", OPERATION, "Its first node is taken"),
    normal("Completed", OPERATION, "It is over, well"),
    warning(reason::FAILED, OPERATION, "It is over, badly; the message says why"),
    EXPIRED,
    normal(
        reason::SUPERSEDED,
        OPERATION,
        "Its NodeOpUpgrade was changed, and this run takes no further node",
    ),
    normal(reason::PAUSED, OPERATION, "Nothing new is started (`spec.paused`)"),
    normal(reason::ON_HOLD, OPERATION, "All nodes that are left are held by the label `kairos.io/hold`"),
    warning(reason::NO_NODES, OPERATION, "No node matches its selector"),
    warning(reason::NODES_OUT_OF_SERVICE, OPERATION, "Nodes that failed, or are down, hold all of its slots"),
    warning(reason::NAME_TAKEN, OPERATION, "A NodeOp that the NodeOpUpgrade did not make has its name"),
    warning("NoSuchNode", "NodeOp", "A name of `nodeNames` was no node's that matched"),
    normal("ChangePassedOn", "NodeOp", "A change of its NodeOpUpgrade was passed on to it"),
    warning(
        "ChangeTakenBack",
        "NodeOp",
        "Somebody changed it, and it was changed back: its NodeOpUpgrade decides",
    ),
    warning(
        "TTLIgnored",
        "NodeOp",
        "`ttlSecondsAfterFinished` does not delete it: something would make it again",
    ),
    normal("NodeStarted", NODE_TOO, "A node is taken"),
    normal("NodeCompleted", NODE_TOO, "A node is done; the message says how"),
    warning("NodeFailed", NODE_TOO, "A node failed; the message says why, and what to do"),
    warning("StaysInLoadBalancers", NODE_TOO, "A node stays in load balancers, since no other one serves"),
    warning("DrainBlocked", NODE_TOO, "A drain is blocked; the message names pods and budgets"),
    warning("PodsLeft", NODE_TOO, "A node is drained, and these pods stay on it"),
    warning(
        "VolumesAttached",
        NODE_TOO,
        "Volumes of evicted pods are still attached, and the operation goes on",
    ),
    warning("VolumesUnknown", NODE_TOO, "Whether they are cannot be read, and the operation goes on"),
    warning("JobSuspended", "NodeOp", "Somebody suspended a Job that had begun; it is resumed"),
    warning("CordonKept", "Node", "The NodeOp that failed on the node is deleted, and the cordon stays"),
    warning(
        reason::BLOCKED,
        "operation, Node, Job, pod",
        "What is needed to go on keeps failing; it is said once",
    ),
    warning("FactsUnreadable", "Node", "What the node runs could not be read; it is tried again"),
    warning("RebootForced", "pod", "A reboot waiter has the kernel reboot the node, since init did not"),
];
