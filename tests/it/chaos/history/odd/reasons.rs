//! Every entry that holds a slot has a reason, and what cannot start is given up.

use super::{
    super::{CLAIMED_BY, Object},
    *,
};

impl Past<'_> {
    /// A final entry that holds its slot says why, sooner or later.
    pub(super) fn reasons(&mut self, key: &(String, String), entry: &NodeStatus, now: &NodeOpStatus) {
        let claimed =
            self.nodes.get(&key.1).and_then(|node| owner(node, CLAIMED_BY)).as_ref() == Some(&key.0);
        if !entry.phase.is_final() || entry.node_uid.is_none() || !claimed {
            if let Some((since, told)) = self.odd.holds.remove(key)
                && !told
                && self.at > since + SILENT
                && self.scenario.is_calm()
                && !self.rivals()
            {
                self.broken(format!(
                    "{} held the slot of {} for {:?} and did not say why",
                    key.0,
                    key.1,
                    self.at - since
                ));
            }
            return;
        }
        let on_node = |pod: &&Object| text(pod, "/spec/nodeName") == key.1;
        let names: Vec<&str> =
            self.pods.values().filter(on_node).map(|pod| text(pod, "/metadata/name")).collect();
        let says = |message: &Option<String>| {
            let message = message.as_deref().unwrap_or_default();
            message.contains("given back")
                || message.contains(&format!("patching node {} keeps failing", key.1))
                || message.contains("waiting for")
                || names.iter().any(|name| message.contains(name))
        };
        let told = says(&entry.message) || says(&now.message);
        let held = self.odd.holds.entry(key.clone()).or_insert((self.at, false));
        held.1 |= told;
    }

    /// What cannot start is given up after its time, once. The end of a waiter whose label a stranger took
    /// off shows when it is read again, once a minute; that it is given up is recorded before that.
    pub(super) fn given_up(&mut self, op: &NodeOp, key: &(String, String), entry: &NodeStatus) {
        let Some((since, phase, step)) = self.odd.steps.get(key).copied() else { return };
        let prepares = intent(op).reboot && matches!(step, Some(Step::Claim | Step::Drain));
        let waits = match self.odd.hopeless.get(&key.1) {
            Some(&"waiter") => prepares,
            Some(&"sandbox") => matches!(step, Some(Step::Job | Step::Preflight)) || prepares,
            _ => false,
        };
        let unlabelled = entry.given_up.is_some() && self.scenario.is(Kind::Strangers);
        let slack = if unlabelled { SLACK * 2 } else { SLACK };
        let limit = Duration::from_secs(intent(op).pull_timeout.as_secs().unsigned_abs()) + slack;
        if waits && !phase.is_final() && self.at > since + limit && self.scenario.is_calm() && !self.rivals()
        {
            self.odd.steps.insert(key.clone(), (self.at + Duration::from_secs(36_000), phase, step));
            self.broken(format!(
                "{} waits in step {step:?} for more than {} s on {}, where nothing can start",
                key.0,
                limit.as_secs(),
                key.1
            ));
        }
    }
}
