//! The conditions of both kinds, and the Event when an operation as a whole turns.
//!
//! `Progressing`, `Complete` and `Failed` are for scripts. `Ready`, `Reconciling` and `Stalled` are the three
//! conditions by which kstatus, and with it Flux, Helm and Argo CD, judges any resource; the last two are
//! absent where they do not hold, and never there together:
//!
//! | | Ready | Reconciling | Stalled | kstatus says |
//! |---|---|---|---|---|
//! | under way, waiting (also for somebody), paused, without a node | False | True | | in progress |
//! | blocked for ten minutes, refused | False | | True | failed |
//! | completed, or expired before anything was started | True | | | current |
//! | failed, or superseded or expired before all nodes were taken | False | | True | failed |
//! | not seen yet (`observedGeneration: -1`, the default of the CRDs) | | | | in progress |
//! | over, and a node does not run any more what it was upgraded to | False | | True | failed |

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::{
        ended::end,
        names::{condition, reason},
        upgrade::UpgradePhase,
    },
    plan::model::{action::Notice, stamp::Stamp, time::later},
};

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Completed,
    Failed,
    /// Over, and a node that it has had its attempt at runs another release.
    Drifted,
    /// Over before all nodes were taken, because the NodeOpUpgrade asks for another run.
    Superseded,
    /// Over because `notAfter` has passed, before all nodes were taken. `untouched`: before anything was
    /// started.
    Expired {
        untouched: bool,
    },
    /// Not over. The reason is that of `Progressing`; `stalled`: it does not go on unless somebody helps.
    Open {
        reason: &'static str,
        stalled: bool,
    },
}

/// When, and for which generation of the spec, conditions are set.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub generation: Option<i64>,
    pub now: Timestamp,
}

/// Sets all conditions that every operation has; others are left. `Reconciling` is dated anew when the
/// operation gets blocked or is so no longer: how long it has been blocked is counted from there, by
/// whichever leader.
pub fn set(conditions: &mut Vec<Condition>, standing: Standing, message: &str, at: Moment) {
    let blocked = matches!(standing, Standing::Open { reason: reason::BLOCKED, .. });
    conditions
        .retain(|old| old.type_ != condition::RECONCILING || (old.reason == reason::BLOCKED) == blocked);
    let mut set = |type_, (status, reason)| set_condition(conditions, type_, (status, reason), message, at);
    match standing {
        Standing::Completed | Standing::Expired { untouched: true } => {
            let why = if standing == Standing::Completed { "Completed" } else { reason::EXPIRED };
            set(condition::PROGRESSING, ("False", "Finished"));
            set(condition::COMPLETE, ("True", why));
            set(condition::FAILED, ("False", why));
            set(condition::READY, ("True", why));
            set(condition::RECONCILING, ABSENT);
            set(condition::STALLED, ABSENT);
        }
        Standing::Failed
        | Standing::Drifted
        | Standing::Superseded
        | Standing::Expired { untouched: false } => {
            let why = match standing {
                Standing::Drifted => reason::DRIFTED,
                Standing::Superseded => reason::SUPERSEDED,
                Standing::Expired { .. } => reason::EXPIRED,
                Standing::Failed | Standing::Completed | Standing::Open { .. } => reason::FAILED,
            };
            set(condition::PROGRESSING, ("False", "Finished"));
            set(condition::COMPLETE, ("False", why));
            set(condition::FAILED, ("True", why));
            set(condition::READY, ("False", why));
            set(condition::RECONCILING, ABSENT);
            set(condition::STALLED, ("True", why));
        }
        Standing::Open { reason, stalled } => {
            set(condition::PROGRESSING, ("True", reason));
            set(condition::COMPLETE, ("False", reason));
            set(condition::FAILED, ("False", reason));
            set(
                condition::READY,
                ("False", if reason == reason::ROLLING_OUT { condition::PROGRESSING } else { reason }),
            );
            set(condition::RECONCILING, if stalled { ABSENT } else { ("True", reason) });
            set(condition::STALLED, if stalled { ("True", reason) } else { ABSENT });
        }
    }
}

/// What keeps failing for this time needs somebody's help.
const STALLS_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// Status and reason of a condition that is not there at all.
const ABSENT: (&str, &str) = ("", "");

/// Sets one condition to a status and a reason, or takes it out. Its transition time changes with its status
/// only.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: &str,
    (status, reason): (&str, &str),
    message: &str,
    at: Moment,
) {
    let old =
        conditions.iter().position(|condition| condition.type_ == type_).map(|at| conditions.swap_remove(at));
    if (status, reason) == ABSENT {
        return;
    }
    let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time);
    conditions.push(Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: at.generation,
        last_transition_time: since.unwrap_or(Time(at.now)),
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

/// Whether an operation that is still blocked has been so for a time after which it needs somebody's help, or
/// was said to.
pub fn is_blocked_for_long(conditions: &[Condition], now: Timestamp) -> bool {
    let blocked =
        |type_: &str| conditions.iter().find(|old| old.type_ == type_ && old.reason == reason::BLOCKED);
    let long = |old: &Condition| {
        let since = Stamp::from(&old.last_transition_time).trusted(now);
        since.is_none_or(|since| now >= later(since, STALLS_AFTER))
    };
    blocked(condition::STALLED).is_some() || blocked(condition::RECONCILING).is_some_and(long)
}

/// The Event of an operation as a whole, if its phase has changed, or what it waits for has become something
/// that only people change.
pub fn notice(
    old: (Option<UpgradePhase>, &[Condition]),
    new: (Option<UpgradePhase>, &[Condition]),
    message: &str,
) -> Option<Notice> {
    let say = |warning, reason| Some(Notice { warning, reason, message: message.to_owned(), node: None });
    let phase = new.0.filter(|_| old.0 != new.0);
    match phase {
        Some(UpgradePhase::Completed | UpgradePhase::Failed) if is_expired(new.1) => {
            return say(phase == Some(UpgradePhase::Failed), reason::EXPIRED);
        }
        Some(UpgradePhase::Completed) => return say(false, "Completed"),
        Some(UpgradePhase::Failed) if is_superseded(new.1) => return say(false, reason::SUPERSEDED),
        Some(UpgradePhase::Failed) => return say(true, reason::FAILED),
        Some(UpgradePhase::Initializing | UpgradePhase::Pending | UpgradePhase::Running) | None => {}
    }
    let told = [
        reason::NO_NODES,
        reason::PAUSED,
        reason::SUPERSEDED,
        reason::ON_HOLD,
        reason::NODES_OUT_OF_SERVICE,
        reason::NAME_TAKEN,
    ];
    let turned = told.into_iter().find(|told| progress(new.1) == Some(told) && progress(old.1) != Some(told));
    match turned {
        Some(reason) => say(![reason::PAUSED, reason::SUPERSEDED, reason::ON_HOLD].contains(&reason), reason),
        None if phase == Some(UpgradePhase::Running) => say(false, "Started"),
        None => None,
    }
}

/// What conditions say of a run is not said of the next one: what was proved is to be proved again.
pub fn of_next_run(mut conditions: Vec<Condition>) -> Vec<Condition> {
    conditions.retain(|one| one.type_ != condition::VERIFIED);
    conditions
}

/// Whether an operation ended before all its nodes were taken, because its NodeOpUpgrade asked for another
/// run.
pub fn is_superseded(conditions: &[Condition]) -> bool {
    ended_for(conditions, reason::SUPERSEDED)
}

/// Whether it ended before that because its time was over.
pub fn is_expired(conditions: &[Condition]) -> bool {
    ended_for(conditions, reason::EXPIRED)
}

/// Whether a node was seen, after the operation, to run something else.
pub fn is_drifted(conditions: &[Condition]) -> bool {
    ended_for(conditions, reason::DRIFTED)
}

fn ended_for(conditions: &[Condition], reason: &str) -> bool {
    end(conditions).is_some_and(|end| end.reason == reason)
}

/// The reason of `Progressing`.
fn progress(conditions: &[Condition]) -> Option<&str> {
    conditions
        .iter()
        .find(|condition| condition.type_ == condition::PROGRESSING)
        .map(|condition| condition.reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Moment {
        Moment { generation: Some(second), now: Timestamp::from_second(second).unwrap() }
    }

    fn open(reason: &'static str) -> Standing {
        Standing::Open { reason, stalled: false }
    }

    fn says(conditions: &[Condition], type_: &str) -> Option<(String, String)> {
        conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .map(|found| (found.status.clone(), found.reason.clone()))
    }

    /// What kstatus makes of a resource's conditions (`cli-utils`, `pkg/kstatus/status/generic.go`).
    fn kstatus(conditions: &[Condition]) -> &'static str {
        let holds = |type_: &str| says(conditions, type_).is_some_and(|(status, _)| status == "True");
        let not_ready = says(conditions, "Ready").is_some_and(|(status, _)| status == "False");
        if holds("Reconciling") {
            "InProgress"
        } else if holds("Stalled") {
            "Failed"
        } else if not_ready {
            "InProgress"
        } else {
            "Current"
        }
    }

    #[test]
    fn tools_that_wait_see_an_operation_as_it_is() {
        for (standing, expected) in [
            (open(reason::ROLLING_OUT), "InProgress"),
            (open(reason::PAUSED), "InProgress"),
            (open(reason::NO_NODES), "InProgress"),
            (open(reason::NODES_OUT_OF_SERVICE), "InProgress"),
            (Standing::Open { reason: reason::NAME_TAKEN, stalled: true }, "Failed"),
            (Standing::Failed, "Failed"),
            (open(reason::SUPERSEDED), "InProgress"),
            (Standing::Superseded, "Failed"),
            (Standing::Drifted, "Failed"),
            (Standing::Expired { untouched: false }, "Failed"),
            (Standing::Expired { untouched: true }, "Current"),
            (Standing::Completed, "Current"),
        ] {
            // Whatever was said before.
            for before in [open(reason::ROLLING_OUT), Standing::Failed, Standing::Completed] {
                let mut conditions = Vec::new();
                set(&mut conditions, before, "before", at(1));
                set(&mut conditions, standing, "now", at(2));
                assert_eq!(kstatus(&conditions), expected, "{standing:?} after {before:?}: {conditions:?}");
                let holds =
                    |type_: &str| says(&conditions, type_).is_some_and(|(status, _)| status == "True");
                assert!(
                    !(holds("Stalled") && holds("Reconciling")),
                    "{standing:?} after {before:?}: {conditions:?}"
                );
                assert!(
                    conditions.iter().all(|condition| condition.observed_generation == Some(2)),
                    "{conditions:?}"
                );
                assert!(conditions.iter().all(|condition| !condition.reason.is_empty()), "{conditions:?}");
            }
        }
    }

    #[test]
    fn a_transition_is_dated_once_and_what_is_not_ours_stays() {
        let mut conditions = vec![];
        set_condition(&mut conditions, "Theirs", ("True", "Because"), "", at(0));
        set(&mut conditions, open(reason::WAITING), "", at(1));
        set(&mut conditions, open(reason::ROLLING_OUT), "", at(2));
        let since = |type_: &str| {
            conditions
                .iter()
                .find(|condition| condition.type_ == type_)
                .unwrap()
                .last_transition_time
                .0
                .as_second()
        };
        assert_eq!((since("Progressing"), since("Theirs")), (1, 0));
        assert_eq!(says(&conditions, "Ready"), Some(("False".into(), "Progressing".into())));
    }

    #[test]
    fn what_is_blocked_for_ten_minutes_is_stalled_until_it_is_not_blocked() {
        let mut conditions = vec![];
        set(&mut conditions, open(reason::ROLLING_OUT), "", at(0));
        set(&mut conditions, open(reason::BLOCKED), "", at(700));
        let long = |conditions: &[Condition], second| is_blocked_for_long(conditions, at(second).now);
        assert_eq!((long(&conditions, 1299), long(&conditions, 1300)), (false, true));
        set(&mut conditions, Standing::Open { reason: reason::BLOCKED, stalled: true }, "", at(1300));
        assert!(long(&conditions, 1301), "it stays so while it is blocked");
        set(&mut conditions, open(reason::ROLLING_OUT), "", at(1400));
        assert!(!long(&conditions, 9999));
    }

    #[test]
    fn what_only_people_change_is_an_event_once() {
        let of = |standing| {
            let mut conditions = Vec::new();
            set(&mut conditions, standing, "", at(1));
            conditions
        };
        let (none, empty, running) = (vec![], of(open(reason::NO_NODES)), of(open(reason::ROLLING_OUT)));
        let pending = Some(UpgradePhase::Pending);
        let said = |old, new| notice(old, new, "m").map(|notice| notice.reason);
        assert_eq!(said((None, &none), (pending, &empty)), Some("NoNodes"));
        assert_eq!(said((pending, &empty), (pending, &empty)), None);
        assert_eq!(said((pending, &empty), (Some(UpgradePhase::Running), &running)), Some("Started"));
        assert_eq!(
            said((Some(UpgradePhase::Running), &running), (Some(UpgradePhase::Running), &running)),
            None
        );
        assert_eq!(
            said(
                (Some(UpgradePhase::Running), &running),
                (Some(UpgradePhase::Failed), &of(Standing::Failed))
            ),
            Some("Failed")
        );
    }
}
