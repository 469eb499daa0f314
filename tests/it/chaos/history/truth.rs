//! What is said of releases and failures, against what images hold and machines run.

use std::time::Duration;

use kairos_operator::{
    api::{
        nodeop::{NodeOp, NodeStatus, Phase, RebootStatus, Step},
        owner,
        run::Run,
    },
    contract::boot_state,
};
use kairos_sim::Change;
use serde_json::Value;

use super::{Past, intent, text};
use crate::chaos::{scenario::Wish, world::OLD, worlds::Kind};

/// Somebody has named a tag, and a moment later it meant something else: nobody can tell which was meant.
const AT_ONCE: Duration = Duration::from_secs(30);

/// What a node says is known to who plans within this time, where nothing goes wrong.
const SEEN: Duration = Duration::from_secs(15);

fn release(content: &str) -> String {
    let named = content.split_once('@').map_or(content, |(name, _)| name);
    format!("{}-k3sv1.30.11+k3s1", named.trim_start_matches("kairos:"))
}

/// Whether it was not looked at, and is left to others, or to a later round.
fn is_let_go(entry: &NodeStatus) -> bool {
    let said = entry.message.as_deref().unwrap_or_default();
    said.starts_with("Skipped: ") && !said.contains("deleted")
}

impl Past<'_> {
    /// The release that an upgrade of a node is meant to bring.
    pub(super) fn target(&self, op: &NodeOp, node: &str) -> String {
        let uid = op.metadata.uid.clone().unwrap_or_default();
        let ran = self.odd.ran.get(&(uid, node.to_owned())).cloned();
        release(&ran.unwrap_or_else(|| op.spec.image.clone().unwrap_or_default()))
    }

    /// A container of an operation starts: what it runs must be what was named, and the same everywhere.
    pub(super) fn ran(&mut self, owner: &str, node: &str, content: &str, preflight: bool) {
        let op = self.jobs.get(owner).map_or_else(|| owner.to_owned(), |job| job.op.clone());
        let Some(object) = self.known.get(&op).filter(|object| intent(object).upgrade).cloned() else {
            return;
        };
        self.odd.ran.insert((op.clone(), node.to_owned()), content.to_owned());
        if !preflight {
            // All rounds of a run are one.
            let run = Run::of(&object.metadata).map(|run| Run { round: 0, ..run }.annotation());
            let of_upgrade = owner::upgrade_uid(&object.metadata).zip(run);
            let one = of_upgrade.map_or_else(|| op.clone(), |(upgrade, run)| format!("{upgrade} {run}"));
            let contents = self.odd.contents.entry(one).or_default();
            contents.insert(content.to_owned());
            if contents.len() > 1 {
                let contents = contents.clone();
                self.broken(format!("one upgrade, {op}, runs {contents:?}"));
            }
        }
        if self.scenario.is(Kind::MovingTags)
            && object.spec.image.as_deref().is_some_and(|image| image.ends_with(":latest"))
        {
            let born = self.odd.born.get(&op).copied().unwrap_or_default().saturating_sub(AT_ONCE);
            let until = |index: usize| self.odd.tag.get(index + 1).map_or(Duration::MAX, |(at, _)| *at);
            let named = self
                .odd
                .tag
                .iter()
                .enumerate()
                .any(|(index, (_, meant))| meant == content && until(index) >= born);
            if !named {
                self.broken(format!(
                    "{op} runs {content} on {node}, which its tag has not meant since it was made"
                ));
            }
        }
    }

    /// An operation that has succeeded does not run again, where nothing ends pods.
    pub(super) fn again(&mut self, job: &str, op: &str, node: &str) {
        let ends = [
            Kind::FullNodes,
            Kind::KubeletsStop,
            Kind::MembersLeave,
            Kind::StoreBack,
            Kind::NodesRemade,
            Kind::MadeAgain,
            Kind::Stripped,
            Kind::Lingering,
        ];
        let calm = self.scenario.is_calm() && !ends.iter().any(|kind| self.scenario.is(*kind));
        if calm && self.successes.iter().any(|(done, _, _)| done == job) && !self.rivals() {
            self.broken(format!("the operation of {op} runs on {node} again, though it had succeeded"));
        }
    }

    /// An upgrade says something.
    pub(super) fn upgrade(&mut self, change: &Change) {
        self.upgrade_is_paused(&change.object);
        let uid = text(&change.object, "/metadata/uid").to_owned();
        let conditions = change.object.pointer("/status/conditions").and_then(Value::as_array);
        let is =
            |kind: &str| conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True");
        let nodes = change
            .object
            .pointer("/status/nodeStatuses")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        if is("Complete") && nodes.is_empty() {
            self.broken(format!("{} is Complete=True over no node", change.key.name));
        }
        let sworn = is("Verified");
        if !sworn || !self.odd.sworn.insert(uid.clone()) || self.rivals() {
            return;
        }
        let child =
            |op: &&NodeOp| op.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid);
        if !self.known.values().any(|op| child(&op)) {
            self.broken(format!("{} is Verified=True, and has no NodeOp", change.key.name));
        }
        if nodes.is_empty() {
            self.broken(format!("{} is Verified=True over no node", change.key.name));
        }
        for (name, entry) in &nodes {
            self.runs_it_still(&change.key.name, name, entry);
        }
    }

    /// An upgrade says that all is verified: no node that it has upgraded says that it runs something else.
    fn runs_it_still(&mut self, upgrade: &str, name: &str, entry: &Value) {
        let booted = entry["verified"] == true && entry["rebootStatus"] == "completed";
        let said = self.odd.releases.get(name).filter(|(_, since)| self.at > *since + SEEN);
        let Some((release, _)) = said.filter(|_| booted && self.scenario.is_calm() && !self.is_bad(name))
        else {
            return;
        };
        if entry["target"].as_str().is_some_and(|target| target != release) {
            self.broken(format!("{upgrade} is Verified=True, and {name} says that it runs {release}"));
        }
    }

    /// A node says what it runs, in its present boot or not any more.
    pub(super) fn says_release(&mut self, name: &str, node: &Value) {
        let text = |path: &str| text(node, path).to_owned();
        let boot = text("/status/nodeInfo/bootID");
        let of = text("/metadata/annotations/operator.kairos.io~1facts-of");
        let release = text("/metadata/annotations/operator.kairos.io~1release");
        if boot.is_empty() || !of.starts_with(&boot) {
            self.odd.releases.remove(name);
        } else if self.odd.releases.get(name).is_none_or(|(known, _)| *known != release) {
            self.odd.releases.insert(name.to_owned(), (release, self.at));
        }
    }

    /// An upgrade says that it is done with a node: the node runs what was wanted, will boot it again, and
    /// nobody is about to change that who was first.
    pub(super) fn is_true(&mut self, op: &NodeOp, node: &str, (old, entry): (&NodeStatus, &NodeStatus)) {
        let done =
            entry.phase == Phase::Completed && old.phase != Phase::Completed && entry.verified != Some(false);
        if !done
            || self.is_bad(node)
            || !intent(op).upgrade
            || !intent(op).reboot
            || is_let_go(entry)
            || !self.nodes.contains_key(node)
            || self.rivals()
        {
            return;
        }
        let target = self.target(op, node);
        let (booted, state) =
            self.booted.get(node).cloned().unwrap_or_else(|| (OLD.into(), boot_state::ACTIVE));
        let installed = self.odd.installed.get(node).cloned().unwrap_or_else(|| booted.clone());
        let me = op.metadata.uid.clone().unwrap_or_default();
        // By what the server says: where its clock was set back, the one that was asked for first is the
        // younger one.
        let maker = owner::upgrade_uid(&op.metadata).unwrap_or_default();
        let newer = |(uid, other): (&String, &NodeOp)| {
            let open = other.status.as_ref().filter(|status| !status.phase.is_some_and(Phase::is_final));
            let entry = open.and_then(|status| status.node_statuses.get(node));
            let theirs = owner::upgrade_uid(&other.metadata).unwrap_or_default();
            *uid != me
                && self.declared.is_newer(theirs, maker)
                && entry.is_some_and(|entry| !entry.phase.is_final())
        };
        // One that fell back runs what it ran before, and says so; that its active image is another one is
        // known.
        let skipped = entry.reboot_status == Some(RebootStatus::NotRequested);
        // What was in progress when the newer one was asked for goes on to its end.
        let contested = skipped && self.ops.iter().any(newer);
        let fell = state != boot_state::ACTIVE;
        if booted != target || (fell && !skipped) || (installed != target && !fell) || contested {
            let name = op.metadata.name.clone().unwrap_or_default();
            let what = format!(
                "{node} runs {booted} ({state}), will boot {installed}, a newer upgrade is still to come: {contested}"
            );
            self.broken(format!("{name} is done with {node} for {target}; {what}: {:?}", entry.message));
        }
    }

    /// After everything.
    pub(super) fn in_the_end(&mut self) {
        let disturbs = [
            Kind::FullNodes,
            Kind::KubeletsStop,
            Kind::MembersLeave,
            Kind::StoreBack,
            Kind::MadeAgain,
            Kind::Stripped,
            Kind::Refusals,
            Kind::WatchesStall,
            Kind::Lingering,
        ];
        if !self.scenario.is_calm() || disturbs.iter().any(|kind| self.scenario.is(*kind)) {
            return;
        }
        self.run_the_last_image();
        for (uid, op) in self.known.clone() {
            let name = op.metadata.name.clone().unwrap_or_default();
            let Some(wish) = self.scenario.wishes.iter().find(|wish| wish.name == name).cloned() else {
                continue;
            };
            for (node, entry) in op.status.iter().flat_map(|status| &status.node_statuses) {
                let key = (uid.clone(), node.clone());
                if entry.phase == Phase::Failed && !self.rivals() && !self.excused(&op, &wish, &key) {
                    self.broken(format!("{name} fails {node} for nothing: {:?}", entry.message));
                }
                self.proved(&op, &wish, node, entry);
            }
        }
    }

    /// Where one upgrade alone was asked for, and changed, the nodes that it is done with run what it asked for
    /// last.
    fn run_the_last_image(&mut self) {
        if !self.scenario.is(Kind::Edits) || self.scenario.wishes.len() > 1 {
            return;
        }
        let last =
            self.known.values().max_by_key(|op| self.odd.born.get(op.metadata.uid.as_deref()?)).cloned();
        let Some(op) = last else { return };
        let target = release(op.spec.image.as_deref().unwrap_or_default());
        for (node, entry) in op.status.iter().flat_map(|status| &status.node_statuses) {
            let (booted, state) =
                self.booted.get(node).cloned().unwrap_or_else(|| (OLD.into(), boot_state::ACTIVE));
            if entry.phase == Phase::Completed && booted != target && !self.is_bad(node) {
                self.broken(format!("{node} runs {booted} ({state}) in the end, not {target}: {entry:?}"));
            }
        }
    }

    /// An upgrade that did what it should is proved.
    fn proved(&mut self, op: &NodeOp, wish: &Wish, node: &str, entry: &NodeStatus) {
        let done = entry.phase == Phase::Completed && entry.reboot_status == Some(RebootStatus::Completed);
        let honest = !self.is_bad(node)
            && !wish.fates.lies.iter().any(|lies| lies == node)
            && !self.scenario.fall_back.iter().any(|falls| falls == node);
        if done && honest && intent(op).upgrade && entry.verified != Some(true) && !self.rivals() {
            self.broken(format!("{} upgraded {node}, and has no proof: {:?}", wish.name, entry.message));
        }
    }

    /// Whether there was a reason to fail a node.
    fn excused(&self, op: &NodeOp, wish: &Wish, key: &(String, String)) -> bool {
        let (node, fates) = (&key.1, &wish.fates);
        let intent = intent(op);
        let limit = op.spec.backoff_limit.unwrap_or(6).unsigned_abs();
        let refused = self.jobs.iter().filter(|(_, job)| job.op == key.0 && job.node == *node);
        let unrecorded = refused.clone().any(|(uid, _)| self.odd.unrecorded.contains(uid));
        let refused: u64 = refused.filter_map(|(uid, _)| self.odd.refused.get(uid)).sum();
        let failures = u64::from(fates.failures.get(node).copied().unwrap_or_default());
        // An agent that has failed after it had replaced the image is not run again.
        let late = intent.upgrade && failures > 0;
        let command = failures + refused > u64::from(limit) || unrecorded || late;
        let told = fates.preflight.get(node) == Some(&false) || fates.unpullable.contains(node);
        let unproved = fates.lies.contains(node) || self.scenario.fall_back.contains(node);
        let hopeless = match self.odd.hopeless.get(node) {
            Some(&"sandbox") => true,
            Some(_) => intent.reboot || self.is_bad(node),
            None => false,
        };
        let drain = intent.drain.is_some() && self.odd.last.get(key).copied().flatten() == Some(Step::Drain);
        // A newer release may be there already, or the tag have moved: such a node is failed, untouched.
        let older = intent.upgrade
            && (self.scenario.wishes.iter().filter(|wish| wish.kind == "NodeOpUpgrade").count() > 1);
        let moved = intent.upgrade && self.scenario.is(Kind::MovingTags);
        let slow = self.odd.slow.contains(node) && intent.reboot;
        command || told || unproved || hopeless || drain || older || moved || slow
    }
}
