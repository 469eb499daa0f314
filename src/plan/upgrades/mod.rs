//! NodeOpUpgrades: each makes one NodeOp for each run that its spec asks for, one after the other, and shows
//! the status of the present one.
//!
//! ```text
//!   announced ─▶ made ─▶ recorded ─▶ over, until the spec asks for another run
//!                           └─▶ superseded ─▶ over ─▶ the next one is announced
//! ```
//!
//! What makes this safe, whoever is killed where:
//!
//! - A run is *announced*: its name and hash stand in status before its NodeOp is made, so whoever goes on
//!   makes the same one. Its name is of its own (see [`crate::api::run`]).
//! - Its NodeOp's UID is *recorded* before that NodeOp may start (see [`may_start`]), so a NodeOp that is
//!   missing later has run or been deleted, and is never made again; and one that was made and is not wanted
//!   any more before it was recorded never starts.
//! - The next run is announced by a write that is planned from the end of the one before it, which is final,
//!   and has given its nodes back. So no two runs of one upgrade are ever at work.
//! - A NodeOp of the name that is somebody else's is not touched.
//!
//! An upgrade that is `Continuous` goes on when a run of it is over: with further rounds, each a NodeOp of
//! the same run for nodes that joined or drifted, which is announced, made and recorded as any other
//! ([`continuous`]). Such a round are also the nodes that the Go operator had not begun, where its NodeOp of
//! a run is taken over ([`older`]). A node is tried once by each run ([`crate::plan::attempts`]), and by the
//! newest upgrade first ([`newest`]).

mod content;
mod continuous;
mod copy;
mod follow;
mod history;
mod maker;
pub mod newest;
mod older;
mod run;
mod status;
mod superseded;

use std::{collections::BTreeMap, sync::Arc};

pub use self::{
    content::of_run as contents_of_run,
    continuous::comes_back,
    maker::{maker, may_start},
    older::upgrade_of as made_by_go_operator,
    superseded::superseded,
};
use crate::{
    api::{nodeop::NodeOp, owner, upgrade::NodeOpUpgrade},
    plan::model::{effects::Effects, id::Key, snapshot::Snapshot},
};

/// Plans every NodeOpUpgrade.
pub fn plan_upgrades(snapshot: &Snapshot) -> Effects {
    let made = Made::of(snapshot);
    let upgrades = snapshot.upgrades.iter().filter(|(_, it)| it.metadata.deletion_timestamp.is_none());
    let planned = upgrades.flat_map(|(key, upgrade)| {
        let made = made.by(key, upgrade);
        [run::plan_upgrade(snapshot, key, upgrade, made), history::sweep(upgrade, made)]
    });
    planned.collect()
}

/// The NodeOps that NodeOpUpgrades made, by namespace and UID of the upgrade.
struct Made<'a>(BTreeMap<(&'a str, &'a str), Vec<&'a Arc<NodeOp>>>);

impl<'a> Made<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut made = Self(BTreeMap::new());
        for ((namespace, _), op) in &snapshot.ops {
            if let Some(uid) = owner::upgrade_uid(&op.metadata) {
                made.0.entry((namespace, uid)).or_default().push(op);
            }
        }
        made
    }

    fn by(&self, key: &'a Key, upgrade: &'a NodeOpUpgrade) -> &[&'a Arc<NodeOp>] {
        let uid = upgrade.metadata.uid.as_deref().unwrap_or_default();
        self.0.get(&(key.0.as_str(), uid)).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
