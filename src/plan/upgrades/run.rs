//! Which run an upgrade is at, and which one its spec asks for.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        child,
        names::reason,
        nodeop::NodeOp,
        owner,
        run::{self, Run},
        upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus, Round, RunResult, UpgradePhase},
    },
    plan::{
        conditions,
        model::{
            action::Action,
            effects::Effects,
            failing,
            id::{Key, OpRef},
            question::Question,
            snapshot::Snapshot,
        },
        node::legacy,
        upgrades::{
            content, continuous,
            copy::copy,
            follow::{follow, supersede},
            history, older,
            status::{base, say, write_finished},
        },
    },
};

/// An upgrade that is being planned.
struct UpgradePlanner<'a> {
    snapshot: &'a Snapshot,
    key: &'a Key,
    object: &'a Arc<NodeOpUpgrade>,
    /// Its status, as it is about to be.
    status: NodeOpUpgradeStatus,
    /// The hash of the run that its spec asks for.
    asked: String,
}

/// Plans one NodeOpUpgrade, which made these NodeOps.
pub fn plan_upgrade(
    snapshot: &Snapshot,
    key: &Key,
    object: &Arc<NodeOpUpgrade>,
    made: &[&Arc<NodeOp>],
) -> Effects {
    let old = object.status.as_ref();
    let said = old.and_then(|status| status.phase).is_some_and(UpgradePhase::is_final);
    let observed = old.and_then(|status| status.observed_generation);
    let is_known = old.is_some_and(|status| status.run.is_some());
    let for_good = said && is_known && !object.spec.is_continuous();
    if for_good && observed == object.metadata.generation {
        return Effects::default();
    }
    let asked = run::hash(&child::spec(&object.spec));
    let mut upgrade = UpgradePlanner { snapshot, key, object, status: base(object), asked };
    // What the Go operator says of an upgrade it has copied, and its NodeOp says it first.
    let older = upgrade.older().filter(|_| observed.is_none());
    let over = older.as_ref().map_or(said, |child| older::has_ended(child));
    if let Some(child) = older.filter(|_| over) {
        older::show(&mut upgrade.status, &child);
    }
    if over && !is_known && observed.is_none_or(|seen| Some(seen) == object.metadata.generation) {
        // Over before runs were told apart, by the Go operator perhaps: that was the run which it asks for.
        // Unless it was edited, about which that operator did nothing: no old edit runs by itself.
        if let Some(why) = upgrade.older().and_then(|child| older::never_run(&child, &object.spec)) {
            return say(snapshot, object, upgrade.status, reason::FAILED, why);
        }
        upgrade.status.run = Some(upgrade.asked.clone());
        let left = observed.is_none().then(|| older::left_out(snapshot, object, &upgrade.status));
        if let Some(why) = left.flatten() {
            return upgrade.fail(why);
        }
    }
    match (over, upgrade.status.node_op_uid.clone()) {
        (true, _) if upgrade.is_asked_for() && !upgrade.has_time_again(&upgrade.status.conditions) => {
            upgrade.over()
        }
        (true, _) => {
            let older = upgrade.older().filter(|_| upgrade.status.run.is_none());
            let result =
                older.map_or_else(|| history::result(&upgrade.status), |child| older::result(&child));
            upgrade.next(Some(result))
        }
        (false, Some(uid)) => upgrade.recorded(uid),
        (false, None) if upgrade.status.phase.is_none() => upgrade.unknown(made),
        (false, None) => upgrade.announced(),
    }
}

impl UpgradePlanner<'_> {
    /// Whether the run that is announced or recorded is the one that the spec asks for.
    fn is_asked_for(&self) -> bool {
        self.status.run.as_ref() == Some(&self.asked)
    }

    fn name(&self) -> String {
        self.status.node_op_name.clone().unwrap_or_else(|| self.key.1.clone())
    }

    /// The NodeOp of the name in status.
    fn child(&self) -> Option<Arc<NodeOp>> {
        self.snapshot.op_named(&(self.key.0.clone(), self.name()))
    }

    /// The NodeOp of the name in status, if the Go operator made it for this upgrade.
    fn older(&self) -> Option<Arc<NodeOp>> {
        self.child().filter(|child| is_made_by(child, self.object) && older::upgrade_of(child).is_some())
    }

    /// The run that is asked for is over.
    fn over(mut self) -> Effects {
        if !self.object.spec.is_continuous() {
            return write_finished(self.snapshot, self.object, self.status);
        }
        let child = self.child();
        self.status.round = child.and_then(|child| self.round(&child)).or(self.status.round);
        let mut effects = Effects::default();
        let next = effects.absorb(continuous::look(self.snapshot, self.object, &mut self.status));
        if !next.is_empty() {
            return self.next_round(next);
        }
        let expires = self.object.spec.not_after.as_ref().filter(|time| time.0 > self.snapshot.now);
        effects.add(expires.map(|time| Effects::wake_at(time.0)).unwrap_or_default());
        effects.add(write_finished(self.snapshot, self.object, self.status));
        effects
    }

    /// The round that the NodeOp is, which says so itself; an earlier version's says nothing.
    fn round(&self, child: &NodeOp) -> Option<Round> {
        let run = Run::of(&child.metadata)?;
        let known = self.status.round.as_ref();
        let same = |round: &&Round| (round.generation, round.number) == (run.generation, run.round);
        if let Some(known) = known.filter(|round| same(round) && (run.round > 0 || round.since.is_some())) {
            return Some(known.clone());
        }
        let since = known.and_then(|round| round.since.clone()).filter(|_| run.round > 0);
        Some(Round {
            generation: run.generation,
            number: run.round,
            since: since.or_else(|| child.metadata.creation_timestamp.clone()),
            node_names: child.spec.node_names.clone(),
            image: child.spec.image.clone().filter(|image| run.round > 0 && *image != self.object.spec.image),
            lost: known.map(|round| round.lost.clone()).unwrap_or_default(),
        })
    }

    /// Nothing is in status. If there are NodeOps of its runs all the same, the status was lost: the newest
    /// is that of its present run.
    fn unknown(mut self, made: &[&Arc<NodeOp>]) -> Effects {
        let age = |op: &NodeOp| {
            (Run::order(&op.metadata), op.metadata.creation_timestamp.as_ref().map(|time| time.0))
        };
        let mut made = made.to_vec();
        made.sort_by_key(|op| age(op));
        let Some(newest) = made.pop() else {
            if self.child().is_some() {
                return self.foreign();
            }
            let name = self.key.1.clone();
            return self.announce(name, None);
        };
        self.status.node_op_name = newest.metadata.name.clone();
        self.status.run = Run::of(&newest.metadata).map(|run| run.hash);
        let earlier = made.iter().rev().filter_map(|op| history::entry_of(op)).collect();
        self.status.history = history::trimmed(earlier, self.object.spec.kept_runs());
        self.present(newest)
    }

    /// The run has a name, and its NodeOp, which may be there, has not begun.
    fn announced(mut self) -> Effects {
        if self.status.run.is_some() && !self.is_asked_for() {
            return self.next(None);
        }
        let child = self.child();
        if let Some(child) = child.as_ref().filter(|child| is_made_by(child, self.object)) {
            return self.present(child);
        }
        self.status.run.get_or_insert_with(|| self.asked.clone());
        if child.is_some() { self.foreign() } else { self.absent() }
    }

    /// The NodeOp of this UID may have begun.
    fn recorded(self, uid: String) -> Effects {
        match self.child() {
            Some(child) if child.metadata.uid.as_ref() == Some(&uid) => self.present(&child),
            Some(_) => self.lost("was replaced"),
            None => {
                let (namespace, name) = (self.key.0.clone(), self.name());
                let child = Question::Op(OpRef { namespace, name, uid });
                match self.snapshot.is_gone(&child) {
                    true => self.lost("was deleted"),
                    false => child.into(),
                }
            }
        }
    }

    /// The NodeOp of the present run is there.
    fn present(mut self, child: &Arc<NodeOp>) -> Effects {
        let is_older = older::upgrade_of(child).is_some();
        if child.status.as_ref().is_some_and(legacy::is_to_be_adopted) {
            return Effects::default();
        }
        // What an earlier version made says in its own spec what it is the run of. The Go operator's says
        // some of it.
        let of_child = || {
            let same = is_older && older::is_as_asked(child, &self.object.spec);
            if same { self.asked.clone() } else { run::hash(&child.spec) }
        };
        self.status.run = Some(self.status.run.clone().unwrap_or_else(of_child));
        self.status.round = self.round(child).or(self.status.round);
        let shown = child.status.as_ref();
        let said = shown.map(|status| status.conditions.as_slice()).unwrap_or_default();
        // It is asked for again after it had ended for another one, or is given more time.
        let again = conditions::is_superseded(said) || self.is_later_than(child) && self.has_time_again(said);
        match (child.is_over(), self.is_asked_for()) {
            (true, true) if is_older && conditions::is_superseded(said) => self.rest(child),
            (true, asked) if !asked || again => {
                copy(&mut self.status, child);
                self.status.conditions = said.to_vec();
                let result = history::result(&self.status);
                self.next(Some(result))
            }
            (false, false) => supersede(self.snapshot, self.object, child, self.status),
            (_, _) => follow(self.snapshot, self.object, child, self.status),
        }
    }

    /// The Go operator's NodeOp of the run is over, and was kept from its further nodes: a round of ours
    /// takes them. Where it has had no node, that is the run from its beginning.
    fn rest(mut self, child: &Arc<NodeOp>) -> Effects {
        let left = match older::left(child) {
            Ok(left) => left,
            Err(many) => {
                copy(&mut self.status, child);
                let why = format!(
                    "Upgrade operation failed: {many} nodes that an older operator had not begun are left, more than are taken by themselves: change the upgrade, or create it under another name"
                );
                return self.fail(why);
            }
        };
        copy(&mut self.status, child);
        self.status.conditions = child.status.iter().flat_map(|status| status.conditions.clone()).collect();
        // Which content its command has run is not known.
        self.status.images.clear();
        let nodes = child.status.as_ref().map_or(0, |status| status.node_statuses.len());
        if left.len() == nodes {
            let result = history::result(&self.status);
            return self.next(Some(result));
        }
        self.next_round(left)
    }

    /// The NodeOp of the run is gone, and what it was about to do is not known.
    fn lost(self, how: &str) -> Effects {
        // Asked for another run, it is not run twice.
        if self.status.run.is_some() && !self.is_asked_for() {
            return self.next(Some(RunResult::Deleted));
        }
        let why = format!(
            "Upgrade operation failed: its NodeOp {how}. Nothing is run twice: change the upgrade, or create it again"
        );
        self.fail(why)
    }

    /// No NodeOp of the name that was announced is in the cache.
    fn absent(self) -> Effects {
        // The Go operator's object whose NodeOp is gone: it has run, or nobody knows. It wrote its first
        // status after the NodeOp.
        let legacy = self.object.status.as_ref().is_some_and(|status| status.observed_generation.is_none());
        if legacy || self.status.phase != Some(UpgradePhase::Initializing) {
            let why = "Upgrade operation failed: its NodeOp is gone. Nothing is run twice: change the upgrade, or create it again";
            return self.fail(why.into());
        }
        let make = Action::CreateChild { upgrade: self.object.clone(), name: self.name() };
        let error = failing::of(self.snapshot, &make);
        let (reason, why) = match error {
            Some(error) => (reason::BLOCKED, format!("NodeOp is being created; {error}")),
            None => (reason::INITIALIZING, "NodeOp is being created".into()),
        };
        let mut effects = Effects::from(make);
        effects.add(say(self.snapshot, self.object, self.status, reason, why));
        effects
    }

    /// A NodeOp that is not of this upgrade has the name. One that is being deleted gives it up by itself,
    /// and mostly is of an upgrade of the same name that was deleted and made again, as GitOps tools do.
    fn foreign(self) -> Effects {
        let name = self.name();
        let (reason, why) = if self.child().is_some_and(|other| other.metadata.deletion_timestamp.is_some()) {
            let why = format!(
                "waiting for NodeOp {name}, which this upgrade did not create, to be deleted: its nodes in progress are released first"
            );
            (reason::INITIALIZING, why)
        } else {
            let why = format!(
                "a NodeOp {name} exists that this upgrade did not create: delete it, or give the upgrade another name"
            );
            (reason::NAME_TAKEN, why)
        };
        say(self.snapshot, self.object, self.status, reason, why)
    }

    fn fail(mut self, why: String) -> Effects {
        self.status.run.get_or_insert_with(|| self.asked.clone());
        say(self.snapshot, self.object, self.status, reason::FAILED, why)
    }

    /// Announces the run that is asked for, behind the present one, of which this came if it ever began.
    fn next(mut self, result: Option<RunResult>) -> Effects {
        if let Some(result) = result {
            self.remember(result);
        }
        let generation = self.object.metadata.generation.unwrap_or_default();
        let name = self.name_of(generation, 0);
        self.announce(name, None)
    }

    /// Announces the round that follows, for those of these nodes that can have their image by one name.
    fn next_round(mut self, mut node_names: Vec<String>) -> Effects {
        let pin = |name: &String| {
            let arch = self.snapshot.nodes.get(name).map(|node| node.arch.as_str()).unwrap_or_default();
            content::pin(&self.object.spec, &self.status.images, arch)
        };
        let image = node_names.first().and_then(pin);
        node_names.retain(|name| pin(name) == image);
        let lost = continuous::lost(&self.status);
        let result = history::result(&self.status);
        self.remember(result);
        let generation = self.object.metadata.generation.unwrap_or_default();
        let before = self.status.round.clone().unwrap_or_else(|| Round { generation, ..Round::default() });
        let round = Round { number: before.number.saturating_add(1), node_names, image, lost, ..before };
        let name = self.name_of(round.generation, round.number);
        self.announce(name, Some(round))
    }

    /// What came of the present run goes into the history.
    fn remember(&mut self, result: RunResult) {
        // Whose content was never seen has run nothing; its name is all that there is.
        let named = self.child().and_then(|child| child.spec.image.clone());
        let mut run = history::entry(&self.status, self.name(), result);
        run.image = run.image.or(named);
        self.status.history.insert(0, run);
    }

    fn name_of(&self, generation: i64, round: i64) -> String {
        let uid = self.object.metadata.uid.as_deref().unwrap_or_default();
        Run { generation, hash: self.asked.clone(), round }.name((&self.key.1, uid))
    }

    /// Says which run is next, or which round of the present one. Its NodeOp is made once that is written.
    fn announce(mut self, name: String, round: Option<Round>) -> Effects {
        let history = history::trimmed(self.status.history, self.object.spec.kept_runs());
        let of_run = |known: Option<String>| known.filter(|_| round.is_some());
        let images = if round.is_some() { self.status.images } else { Vec::new() };
        self.status = NodeOpUpgradeStatus {
            node_op_name: Some(name),
            run: Some(self.asked),
            image: of_run(self.status.image),
            images,
            release: of_run(self.status.release),
            history,
            round,
            observed_generation: self.object.metadata.generation,
            conditions: conditions::of_next_run(self.status.conditions),
            ..NodeOpUpgradeStatus::default()
        };
        let why = "NodeOp is being created".into();
        say(self.snapshot, self.object, self.status, reason::INITIALIZING, why)
    }

    /// Whether a run whose time was over, as its conditions say, would have time now.
    fn has_time_again(&self, said: &[Condition]) -> bool {
        let passed = self.object.spec.not_after.as_ref().is_some_and(|time| time.0 <= self.snapshot.now);
        conditions::is_expired(said) && !passed
    }

    /// Whether the spec was changed since the run was decided on: a clock that went back gives no more time.
    fn is_later_than(&self, child: &NodeOp) -> bool {
        let decided = Run::of(&child.metadata).map_or(0, |run| run.generation);
        self.object.metadata.generation.is_some_and(|now| now > decided)
    }
}

fn is_made_by(op: &NodeOp, upgrade: &NodeOpUpgrade) -> bool {
    let owner = owner::upgrade_uid(&op.metadata);
    owner.is_some() && owner == upgrade.metadata.uid.as_deref()
}
