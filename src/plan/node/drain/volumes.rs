//! Volumes of the pods that went: a database must not come up on a second node while the first still has its
//! disk.
//!
//! Waited for with an end, since a storage driver that never detaches must not hold a rollout: after two
//! minutes the drain goes on, and an Event says so. So it does where the API server has not said for as long
//! what is attached.

use k8s_openapi::jiff::SignedDuration;

use crate::plan::{
    model::{
        action::Notice,
        effects::{Effects, Planned},
        failing,
        question::Question,
        time::later,
    },
    node::{
        context::NodeContext,
        drain::Progress,
        state::{At, DrainRecord},
        waiting::{Draining, list},
    },
};

/// How long volumes are waited for.
const DETACH_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
/// How often the attachments are looked at meanwhile: nothing tells when one goes.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(2);

/// Waits for the volumes of pods that have gone; `None` when there is nothing (more) to wait for.
pub fn wait(ctx: &NodeContext<'_>, record: &DrainRecord) -> Planned<Option<Progress>> {
    if !ctx.node.volumes_attached {
        return None.into();
    }
    let Some(attached) = ctx.snapshot.attached(&ctx.node.name) else {
        return unknown(ctx, Question::Volumes(ctx.node.name.clone()));
    };
    if attached.is_empty() {
        return None.into();
    }
    let attached = attached.to_vec();
    let now = ctx.snapshot.now;
    let Some(since) = record.detaching_since else {
        let next = DrainRecord { detaching_since: Some(now.into()), ..record.clone() };
        let recorded = ctx.record(|work| work.at = At::Drain(next));
        return Some(Progress::Decided(recorded)).into();
    };
    if now < later(ctx.snapshot.begun_at(since), DETACH_TIMEOUT) {
        let again = Effects::wake_at(later(now, LOOK_EVERY));
        return Planned::from(Some(Progress::Going(Draining::Volumes(attached)))).with(again);
    }
    let name = ctx.node.name.clone();
    let message = format!(
        "node {name}: after {} s these volumes are still attached, going on: {}",
        DETACH_TIMEOUT.as_secs(),
        list(&attached)
    );
    Planned::from(None).with(Notice { warning: true, reason: "VolumesAttached", message, node: Some(name) })
}

/// Nobody has said what is attached.
fn unknown(ctx: &NodeContext<'_>, question: Question) -> Planned<Option<Progress>> {
    let (name, now) = (ctx.node.name.clone(), ctx.snapshot.now);
    let since = failing::since(ctx.snapshot, &question);
    if since.is_none_or(|since| now < later(since, DETACH_TIMEOUT)) {
        return Planned::from(Some(Progress::Going(Draining::VolumesUnknown))).with(question);
    }
    let why = failing::of(ctx.snapshot, &question).unwrap_or_default();
    let message = format!("node {name}: whether its volumes are detached is not known, going on: {why}");
    let notice = Notice { warning: true, reason: "VolumesUnknown", message, node: Some(name) };
    Planned::from(None).with(question).with(notice)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::{
        api::nodeop::NodeOp,
        plan::{
            model::{
                identity::Identified,
                question::Answer,
                snapshot::{NodeView, PersistentFailure, Snapshot},
            },
            node::{
                context::{Decision, Op},
                fixtures::{self, at},
            },
        },
    };

    /// The API server has failed to say what is attached since `since`.
    fn unread(now: i64, since: i64) -> (Option<Progress>, Effects) {
        let failure = PersistentFailure { since: at(since), message: "503".into() };
        let failures = [(Question::Volumes("n1".into()).id(), failure)].into();
        look_at(now, None, None, Snapshot { failures, ..Snapshot::default() })
    }

    /// One look at a node at `now`, whose volumes are waited for since `since`; the answer is what is still
    /// attached.
    fn look(now: i64, since: Option<i64>, attached: Option<&[&str]>) -> (Option<Progress>, Effects) {
        look_at(now, since, attached, Snapshot::default())
    }

    fn look_at(
        now: i64,
        since: Option<i64>,
        attached: Option<&[&str]>,
        world: Snapshot,
    ) -> (Option<Progress>, Effects) {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u"}, "spec": {"command": [], "cordon": true},
        }))
        .unwrap();
        let op = Op::of(&Arc::new(op));
        let answer = attached.map(|names| {
            (Question::Volumes("n1".into()), Answer::Attached(names.iter().map(|n| (*n).into()).collect()))
        });
        let snapshot =
            Snapshot { now: at(now), leading_since: at(-10), answers: answer.into_iter().collect(), ..world };
        let node = NodeView { name: "n1".into(), volumes_attached: true, ..NodeView::default() };
        let (entry, mut work) = fixtures::draining(at(-5));
        let At::Drain(record) = &mut work.at else { panic!("{work:?}") };
        record.detaching_since = since.map(|since| at(since).into());
        let record = record.clone();
        let ctx = NodeContext { snapshot: &snapshot, op: &op, node: &node, entry: &entry, work: &work };
        let planned = wait(&ctx, &record);
        (planned.value, planned.effects)
    }

    #[test]
    fn what_is_attached_is_asked_recorded_waited_for_and_given_up_with_an_event() {
        let (progress, plan) = look(0, None, None);
        assert!(matches!(progress, Some(Progress::Going(_))) && plan.questions.len() == 1, "{progress:?}");

        let (progress, _) = look(0, None, Some(&["pv-1"]));
        let Some(Progress::Decided(Decision::Record(entry))) = progress else { panic!("{progress:?}") };
        assert_eq!(entry.record().detaching_since, Some(Time(at(0))));

        let (progress, plan) = look(119, Some(0), Some(&["pv-1"]));
        assert!(
            matches!(&progress, Some(Progress::Going(why)) if why.to_string().contains("pv-1")),
            "{progress:?}"
        );
        assert_eq!(plan.wake_at, Some(at(121)), "nothing tells when a volume goes");

        let (progress, plan) = look(120, Some(0), Some(&["pv-1"]));
        let said: Vec<_> = plan.notices.iter().map(|notice| notice.reason).collect();
        assert_eq!((progress, said), (None, vec!["VolumesAttached"]));

        // By a clock of an earlier leader that was an hour wrong: it counts from when we began to lead.
        for since in [-3600, 3600] {
            let goes_on = |now| look(now, Some(since), Some(&["pv-1"])).0.is_none();
            assert_eq!((goes_on(109), goes_on(110)), (false, true), "{since}");
        }

        // Where nobody says what is attached, that has an end, too.
        let (progress, plan) = unread(119, 0);
        assert!(matches!(progress, Some(Progress::Going(_))) && plan.notices.is_empty(), "{progress:?}");
        let (progress, plan) = unread(120, 0);
        let said: Vec<_> = plan.notices.iter().map(|notice| notice.reason).collect();
        assert_eq!((progress, said), (None, vec!["VolumesUnknown"]));
        assert!(plan.notices[0].message.ends_with(": 503"), "{:?}", plan.notices);

        let (progress, plan) = look(5, Some(0), Some(&[]));
        assert!(progress.is_none() && plan.notices.is_empty(), "all are detached");
    }
}
