//! What the stages of one pass over a NodeOp look at, each found once; and what they come to.

use std::cell::OnceCell;

use crate::{
    api::{image_content::ImageContent, node_statuses::NodeStatuses, upgrade::NodeOpUpgrade},
    plan::{
        model::{effects::Reasons, snapshot::Snapshot},
        node::context::Op,
        release::Releases,
        rollout::{
            not_taken::{Closed, Stopped},
            others::Others,
            status::OpProgress,
        },
        upgrades,
    },
};

/// Everything that the pass looks at.
#[derive(Debug)]
pub struct RolloutContext<'a> {
    pub snapshot: &'a Snapshot,
    pub op: &'a Op,
    /// What is done in this pass to give nodes back.
    pub releases: &'a Releases<'a>,
    /// The NodeOpUpgrade that made it, if one did and is there.
    pub upgrade: Option<&'a NodeOpUpgrade>,
    others: OnceCell<Others<'a>>,
}

/// What the stages of a pass hand on to one another: each takes it, and returns what it has become.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// The entries of its nodes.
    pub nodes: NodeStatuses,
    /// How it stands as a whole, beyond what the nodes say.
    pub progress: OpProgress,
    /// Why nodes that are not finished do not move.
    pub waiting: Reasons,
    /// What its run has run before it began, with which its nodes are compared, if it begins in this pass.
    pub ran_before: Vec<ImageContent>,
}

/// What a pass comes to.
#[derive(Debug)]
pub enum Outcome {
    /// The status that follows from this is written, if it is another one than before.
    Record(Box<Rollout>),
    /// Something has to be known or done first, or nothing is left to be recorded.
    Nothing(Reasons),
}

impl<'a> RolloutContext<'a> {
    pub fn new(snapshot: &'a Snapshot, op: &'a Op, releases: &'a Releases<'a>) -> Self {
        let upgrade = upgrades::maker(snapshot, &op.object).map(AsRef::as_ref);
        Self { snapshot, op, releases, upgrade, others: OnceCell::new() }
    }

    /// The other NodeOps, to which a preflight gives way, if it asks what they change. They are found when
    /// somebody first asks, which is in few passes.
    pub fn others(&self) -> Option<&Others<'a>> {
        self.op.intent.preflight.is_about_the_node().then_some(())?;
        Some(self.others.get_or_init(|| Others::of(self.snapshot, self.op, self.upgrade)))
    }

    /// Why nothing at all is started, for a rollout that is `stopped` or not.
    pub fn closed(&self, stopped: Option<&Stopped>) -> Option<Closed> {
        if self.op.deleting {
            return Some(Closed::Deleting);
        }
        let stopped = stopped.cloned().map(Closed::Stopped);
        stopped.or_else(|| self.op.intent.paused.then_some(Closed::Paused))
    }
}
