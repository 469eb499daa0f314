//! Of several upgrades of a node the newest wins: the one whose NodeOpUpgrade was created last.
//!
//! An older one waits for as long as a newer one is not over and has the node before it, or has not chosen
//! its nodes yet and selects it. So does one whose newer one is paused: it is to go on, and what the older
//! one did meanwhile would be done again. (One that is paused from its beginning has chosen none, and has the
//! nodes that it selects now.) And a node on which the newer one has had its attempt since, or which runs the
//! release that the newer one brings, is not taken by the older one at all; nor is any that a `Continuous`
//! one selects whose run is over: that may leave the node as it is for ever, but it is the one to decide
//! that. Objects that are restored together, with all that was ever asked for, end on the newest one's image
//! so.
//!
//! Among themselves, and beside upgrades, other NodeOps are served as they come, see
//! [`crate::plan::rollout`]'s `others`. For one node that is an order without a cycle: an older upgrade comes
//! after the newest, and before nobody.

use std::{cell::OnceCell, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{
        child, names,
        nodeop::{NodeOp, NodeOpStatus},
        run::{self, Run},
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus, UpgradePhase},
    },
    plan::{
        attempts::{self, Attempt},
        model::{
            age::age,
            id::Key,
            snapshot::{NodeView, Snapshot},
        },
        upgrades::maker::{is_recorded, maker},
    },
};

/// What a newer upgrade has to do with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// It has the node before it.
    Waits(Key),
    /// It has decided what the node runs.
    Decided(Key),
}

impl Precedence {
    /// The upgrade that comes first.
    pub fn upgrade(&self) -> &Key {
        match self {
            Self::Waits(upgrade) | Self::Decided(upgrade) => upgrade,
        }
    }
}

/// The upgrade that comes first, for people.
impl fmt::Display for Precedence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.upgrade();
        write!(f, "NodeOpUpgrade {namespace}/{name}")
    }
}

/// Upgrades that are newer than one, the newest first.
#[derive(Debug, Default)]
pub struct Newer<'a>(Vec<NewerUpgrade<'a>>);

#[derive(Debug)]
struct NewerUpgrade<'a> {
    object: &'a NodeOpUpgrade,
    /// The NodeOp of its present run.
    child: Option<&'a NodeOp>,
    takes: Takes,
    /// Whether its run was asked for after that of the older one.
    is_later: bool,
    /// What [`Self::chosen`] has found: it is asked for each of thousands of nodes.
    chosen: OnceCell<Option<&'a NodeOpStatus>>,
}

/// Whether an upgrade has still to take nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Its run is under way, or still to come.
    InThisRun,
    /// Its run is over, and further rounds may follow.
    InRounds,
    No,
}

/// Since when the present run of an upgrade has been asked for, by the server's clock: the first since the
/// object is there, a later one since its NodeOp was made.
fn asked_since(upgrade: &NodeOpUpgrade) -> Option<&Time> {
    let round = upgrade.status.as_ref().and_then(|status| status.round.as_ref());
    let edited = round.filter(|round| round.generation > 1).and_then(|round| round.since.as_ref());
    edited.or(upgrade.metadata.creation_timestamp.as_ref())
}

impl<'a> Newer<'a> {
    /// Those that are newer than the upgrade that made a NodeOp.
    pub fn than_maker_of(snapshot: &'a Snapshot, op: &NodeOp) -> Self {
        maker(snapshot, op).map(|upgrade| Self::than(snapshot, upgrade)).unwrap_or_default()
    }

    /// Those that are newer than this one.
    pub fn than(snapshot: &'a Snapshot, upgrade: &NodeOpUpgrade) -> Self {
        let is_newer = |other: &&NodeOpUpgrade| {
            other.metadata.deletion_timestamp.is_none() && age(&other.metadata) > age(&upgrade.metadata)
        };
        let others = snapshot.upgrades.values().map(AsRef::as_ref).filter(is_newer);
        let all = others.map(|object| NewerUpgrade {
            object,
            child: child(snapshot, object),
            takes: Takes::of(snapshot, object),
            is_later: asked_since(object) >= asked_since(upgrade),
            chosen: OnceCell::new(),
        });
        let mut all: Vec<_> = all.filter(|other| other.takes != Takes::No || other.is_later).collect();
        all.sort_by(|one, other| age(&other.object.metadata).cmp(&age(&one.object.metadata)));
        Self(all)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them comes first on a node.
    pub fn on(&self, node: &NodeView) -> Option<Precedence> {
        self.0.iter().find_map(|other| other.on(node))
    }
}

/// The NodeOp that an upgrade has recorded. What is asked of it is which nodes it has chosen, and of those a
/// record says nothing.
fn child<'a>(snapshot: &'a Snapshot, upgrade: &NodeOpUpgrade) -> Option<&'a NodeOp> {
    let status = upgrade.status.as_ref();
    let name = status?.node_op_name.clone()?;
    let op = snapshot.ops.get(&(upgrade.metadata.namespace.clone()?, name))?;
    is_recorded(status, op).then_some(op)
}

impl Takes {
    fn of(snapshot: &Snapshot, upgrade: &NodeOpUpgrade) -> Self {
        let status = upgrade.status.as_ref();
        let is_observed =
            |status: &NodeOpUpgradeStatus| status.observed_generation == upgrade.metadata.generation;
        let over = |status: &NodeOpUpgradeStatus| status.phase.is_some_and(UpgradePhase::is_final);
        if upgrade.spec.not_after.as_ref().is_some_and(|time| time.0 <= snapshot.now) {
            Self::No
        } else if !status.is_some_and(|status| over(status) && is_observed(status)) {
            Self::InThisRun
        } else if upgrade.spec.is_continuous() {
            Self::InRounds
        } else {
            Self::No
        }
    }
}

impl<'a> NewerUpgrade<'a> {
    fn on(&self, node: &NodeView) -> Option<Precedence> {
        let meta = &self.object.metadata;
        let key = || (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        if !self.has(node) {
            return None;
        }
        if (self.is_later || self.object.spec.is_continuous()) && self.has_decided(node) {
            return Some(Precedence::Decided(key()));
        }
        match self.takes {
            Takes::InThisRun => Some(Precedence::Waits(key())),
            // Nobody would ever end a wait for it.
            Takes::InRounds => Some(Precedence::Decided(key())),
            Takes::No => None,
        }
    }

    /// Whether the node is one of its own: of those that its run has chosen, if it has, and is not to choose
    /// others.
    fn has(&self, node: &NodeView) -> bool {
        match self.chosen.get_or_init(|| self.chosen()) {
            Some(status) => status.node_statuses.contains_key(&node.name),
            None => node.is_selected_by(self.object.spec.node_selector.as_ref()),
        }
    }

    /// The status of its present run, if that has chosen its nodes, and no others are to be chosen.
    fn chosen(&self) -> Option<&'a NodeOpStatus> {
        let spec = &self.object.spec;
        let child = self.child.filter(|_| self.takes != Takes::No && !spec.is_continuous())?;
        let status = child.status.as_ref().filter(|status| !status.node_statuses.is_empty())?;
        // Its spec may name the image by digest.
        let hash = Run::of(&child.metadata).map_or_else(|| run::hash(&child.spec), |run| run.hash);
        (hash == run::hash(&child::spec(spec))).then_some(status)
    }

    /// Whether its run has had its attempt at the node, or the node runs the release that it brings.
    fn has_decided(&self, node: &NodeView) -> bool {
        let Some(status) = &self.object.status else { return false };
        let uid = self.object.metadata.uid.as_deref().unwrap_or_default();
        let generation = status.round.as_ref().map_or(0, |round| round.generation);
        let runs = node.annotations.get(names::RELEASE).filter(|_| node.says_its_facts());
        attempts::of(node, uid, generation) == Attempt::Had
            || runs.is_some() && runs == status.release.as_ref()
    }
}
