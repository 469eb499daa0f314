//! Preflights that ask about nothing but the image, for worlds in which every node has it.

use kairos_operator::{
    api::{names, nodeop::NodeOp},
    plan::model::{
        id::OpRef,
        intent::{Asks, Intent},
        snapshot::{ContainerState, ContainerView, Owner, PodPhase, PodView, Role},
    },
};

/// Whether the operation's preflight is one.
pub fn is_one(op: &NodeOp) -> bool {
    Intent::of(op).preflight.asks == Asks::Image
}

/// One that found nothing against its node.
pub fn passed(op: &NodeOp, node: &str, name: &str) -> PodView {
    let me = OpRef::of(op);
    let ended = ContainerState::Ended { code: 0, reason: "Completed".into(), message: String::new() };
    PodView {
        namespace: me.namespace,
        name: name.into(),
        uid: name.into(),
        owner: Owner::nodeop(&me.name, &me.uid),
        role: Role::Preflight,
        node: node.into(),
        phase: PodPhase::Succeeded,
        reason: String::new(),
        deleting: false,
        created: op.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
        attempt: 0,
        reboot_state: None,
        waits_in: None,
        containers: vec![ContainerView::new(names::container::PREFLIGHT, ended)],
    }
}
