//! Nodes that are full. A kubelet takes no preflight pod then, and its node would never be looked at, though
//! a drain would make the room.
//!
//! Where nothing but the image is looked for, such a node is taken without that: its Job meets whatever the
//! look would have met, and nothing is called a success for it. The word of a user's check, or of our own for
//! the release, decides what becomes of the node. No node is drained without it.

use super::{
    PreflightContext,
    reason::{Lost, not_looked},
};
use crate::plan::{
    model::snapshot::PodView,
    node::{
        context::EntryPlan,
        state::{Pending, State},
    },
    rollout::preflight::{lost, unasked},
};

impl PreflightContext<'_> {
    /// The node waits for its turn without the look, if it has refused a second pod for want of room, and the
    /// operation drains it. A first one may be the moment's.
    pub(super) fn drained_first(&self, pod: &PodView) -> Option<EntryPlan> {
        let intent = &self.op.intent;
        let makes_room = intent.drain.is_some() && !intent.preflight.is_about_the_node();
        let Lost::NoRoom(why) = lost::reason(pod) else { return None };
        (makes_room && self.record.lost_at.is_some()).then(|| {
            let passed = Pending { passed_in: self.record.begun_in.clone(), ..unasked(self.record) };
            self.moves(State::Pending(passed), not_looked(&why))
        })
    }
}
