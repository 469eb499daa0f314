//! An entry as it is read from the status, and as it is written there.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    At, DrainRecord, Entry, GivenUp, ImageRecord, JobRecord, JobStep, Machine, NewBoot, Over, Pending,
    Preflight, Reboot, Remade, State, Tampered, Touched, Verify, WaiterRecord, Working,
};
use crate::{
    api::nodeop::{NodeStatus, Phase, Step},
    plan::model::stamp::Stamp,
};

impl Entry {
    /// What an entry says. The error is what somebody changed.
    pub fn parse(entry: &NodeStatus) -> Result<Self, Tampered> {
        let time = |time: &Option<Time>| time.as_ref().map(|time| Stamp::from(time.0));
        let mut missing = None;
        let state = match entry.phase {
            Phase::Pending => State::Pending(Pending {
                passed_in: entry.boot.clone(),
                found: found(entry),
                attempt: entry.attempt,
                not_ready_since: time(&entry.since),
            }),
            Phase::Preflight => State::Preflight(Preflight {
                begun_in: entry.new_boot.clone(),
                attempt: entry.attempt,
                lost_at: time(&entry.since),
            }),
            Phase::Running => State::Working(working(entry, &mut missing).into()),
            Phase::Completed | Phase::Failed => State::Over(Over {
                succeeded: entry.phase == Phase::Completed,
                reason: entry.reason,
                reboot: entry.reboot_status,
                job_name: entry.job_name.clone(),
                verified: entry.verified,
                holds_slot: entry.holds_slot == Some(true),
                target: entry.target.clone(),
                machine_id: entry.machine_id.clone(),
            }),
        };
        let parsed = Self {
            message: entry.message.clone(),
            since: time(&entry.last_updated),
            node_uid: entry.node_uid.clone(),
            state,
        };
        match missing {
            Some(missing) => Err(Tampered { missing, rest: Box::new(parsed) }),
            None => Ok(parsed),
        }
    }

    /// What is written.
    pub fn record(self) -> NodeStatus {
        let base = NodeStatus {
            message: self.message,
            last_updated: self.since.map(written),
            node_uid: self.node_uid,
            ..NodeStatus::default()
        };
        match self.state {
            State::Pending(Pending { passed_in, found, attempt, not_ready_since }) => NodeStatus {
                phase: Phase::Pending,
                boot: passed_in,
                attempt,
                since: not_ready_since.map(written),
                ..with(base, found)
            },
            State::Preflight(Preflight { begun_in, attempt, lost_at }) => NodeStatus {
                phase: Phase::Preflight,
                step: Some(Step::Preflight),
                new_boot: begun_in,
                attempt,
                since: lost_at.map(written),
                ..base
            },
            State::Working(work) => record_work(base, *work),
            State::Over(over) => record_over(base, over),
        }
    }
}

fn record_over(base: NodeStatus, over: Over) -> NodeStatus {
    let Over { succeeded, reason, reboot, job_name, verified, holds_slot, target, machine_id } = over;
    NodeStatus {
        phase: if succeeded { Phase::Completed } else { Phase::Failed },
        reason,
        reboot_status: reboot,
        job_name,
        verified,
        holds_slot: holds_slot.then_some(true),
        target,
        machine_id,
        ..base
    }
}

fn written(stamp: Stamp) -> Time {
    Time(stamp.written())
}

fn found(entry: &NodeStatus) -> ImageRecord {
    ImageRecord {
        target: entry.target.clone(),
        image: entry.image.clone(),
        before: entry.before.clone(),
        not_tried: entry.not_tried.clone(),
    }
}

fn with(base: NodeStatus, found: ImageRecord) -> NodeStatus {
    let ImageRecord { target, image, before, not_tried } = found;
    NodeStatus { target, image, before, not_tried, ..base }
}

fn working(entry: &NodeStatus, missing: &mut Option<&'static str>) -> Working {
    let time = |time: &Option<Time>| time.as_ref().map(|time| Stamp::from(time.0));
    // Once a node is given up, nothing but what still acts on it matters.
    let given_up = given_up(entry);
    let mut lacks = |what: &'static str| *missing = missing.or(given_up.is_none().then_some(what));
    let mut needed = |there: Option<Stamp>, what: &'static str| {
        if there.is_none() {
            lacks(what);
        }
        there.unwrap_or_else(|| Timestamp::UNIX_EPOCH.into())
    };
    let at = match entry.step {
        Some(Step::Claim) | None => At::Claim { passed_in: entry.boot.clone() },
        Some(Step::Drain) => At::Drain(DrainRecord {
            started: needed(time(&entry.drain_started_at), "start of the drain"),
            deadline: time(&entry.deadline),
            blocked_since: time(&entry.blocked_since),
            detaching_since: time(&entry.detaching_since),
        }),
        Some(Step::Job) => {
            let since = time(&entry.blocked_since);
            let remade = match entry.succeeded_in.clone() {
                Some(boot) => Some(Remade::ToRecord { boot, since }),
                None => since.map(|since| Remade::Refused { since }),
            };
            At::Job(JobStep { let_go_in: entry.boot.clone(), remade })
        }
        Some(Step::Reboot) => At::Reboot(Reboot {
            left: entry.boot.clone(),
            deadline: time(&entry.deadline),
            seen: entry.new_boot.clone().map(|boot| NewBoot { boot, ready_since: time(&entry.since) }),
        }),
        Some(Step::Verify) => {
            let deadline = needed(time(&entry.deadline), "deadline of the proof");
            let boot = entry.new_boot.clone().filter(|boot| !boot.is_empty());
            if boot.is_none() {
                lacks("boot of the proof");
            }
            let boot = boot.unwrap_or_default();
            At::Verify(Verify { boot, ready_since: time(&entry.since), deadline })
        }
        Some(Step::Preflight) => {
            needed(None, "step that fits its phase");
            At::Job(JobStep::default())
        }
    };
    let job = entry.job_name.clone().map(|name| JobRecord { name, uid: entry.job_uid.clone() });
    if matches!(at, At::Job(_) | At::Reboot(_) | At::Verify(_)) && job.is_none() {
        lacks("name of the Job");
    }
    // Once a new boot shows, `since` is since when the node is Ready in it (see `Reboot`), and no longer when
    // a waiter was lost.
    let lost_at = time(&entry.since).filter(|_| entry.new_boot.is_none());
    let waiter = WaiterRecord { attempt: entry.attempt, lost_at, wanted_since: time(&entry.waiter_since) };
    // Earlier versions recorded the machine from step `Reboot` on only: an entry of theirs may have no id.
    let machine = Machine { id: entry.machine_id.clone(), control_plane: entry.control_plane == Some(true) };
    Working { at, machine, found: found(entry), job, waiter, reboot: entry.reboot_status, given_up }
}

/// The reason that stands in an entry whose node is being given up.
fn given_up(entry: &NodeStatus) -> Option<GivenUp> {
    // Until 0.1 a Job that was given up had a deadline, and the reason stood in the message.
    let before =
        || entry.message.clone().filter(|_| entry.step == Some(Step::Job) && entry.deadline.is_some());
    let reason = entry.given_up.clone().or_else(before)?;
    let touched = match (&entry.given_up, entry.untouched) {
        (Some(_), None) => Touched::NotTheReason,
        (Some(_), Some(true)) => Touched::No,
        (Some(_), Some(false)) | (None, _) => Touched::Perhaps,
    };
    Some(GivenUp { reason, touched })
}

fn record_work(base: NodeStatus, work: Working) -> NodeStatus {
    let Working { at, machine, found, job, waiter, reboot, given_up } = work;
    let (job_name, job_uid) = job.map(|JobRecord { name, uid }| (name, uid)).unzip();
    let (given_up, untouched) =
        given_up.map(|GivenUp { reason, touched }| (reason, touched.recorded())).unzip();
    let entry = NodeStatus {
        phase: Phase::Running,
        job_name,
        job_uid: job_uid.flatten(),
        attempt: waiter.attempt,
        since: waiter.lost_at.map(written),
        waiter_since: waiter.wanted_since.map(written),
        given_up,
        untouched: untouched.flatten(),
        machine_id: machine.id,
        control_plane: machine.control_plane.then_some(true),
        reboot_status: reboot,
        ..with(base, found)
    };
    match at {
        At::Claim { passed_in } => NodeStatus { step: Some(Step::Claim), boot: passed_in, ..entry },
        At::Drain(DrainRecord { started, deadline, blocked_since, detaching_since }) => NodeStatus {
            step: Some(Step::Drain),
            drain_started_at: Some(written(started)),
            deadline: deadline.map(written),
            blocked_since: blocked_since.map(written),
            detaching_since: detaching_since.map(written),
            ..entry
        },
        At::Job(step) => NodeStatus {
            step: Some(Step::Job),
            succeeded_in: step.succeeded_in().map(Into::into),
            blocked_since: step.remade_since().map(written),
            boot: step.let_go_in,
            ..entry
        },
        At::Reboot(Reboot { left, deadline, seen }) => {
            let (new_boot, ready_since) =
                seen.map(|NewBoot { boot, ready_since }| (boot, ready_since)).unzip();
            NodeStatus {
                step: Some(Step::Reboot),
                boot: left,
                deadline: deadline.map(written),
                since: if new_boot.is_some() { ready_since.flatten().map(written) } else { entry.since },
                new_boot,
                ..entry
            }
        }
        At::Verify(Verify { boot, ready_since, deadline }) => NodeStatus {
            step: Some(Step::Verify),
            new_boot: Some(boot),
            since: ready_since.map(written),
            deadline: Some(written(deadline)),
            ..entry
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::node_status::NodeReason, plan::node::failure::Failure};

    fn at(second: i64) -> Stamp {
        Timestamp::from_second(1_000_000 + second).unwrap().into()
    }

    fn working(at: At) -> State {
        let job = JobRecord { name: "j".into(), uid: Some("ju".into()) };
        let given_up = GivenUp { reason: "no room".into(), touched: Touched::Perhaps };
        let waiter =
            WaiterRecord { attempt: Some(2), lost_at: Some(self::at(3)), wanted_since: Some(self::at(4)) };
        let found = ImageRecord {
            target: Some("v2".into()),
            image: Some("i@sha256:1".into()),
            ..ImageRecord::default()
        };
        let (job, given_up) = (Some(job), Some(given_up));
        let machine = Machine { id: Some("m1".into()), control_plane: true };
        let claims = Working::claims(machine, None, found);
        State::Working(Box::new(Working { at, job, waiter, given_up, ..claims }))
    }

    fn reboot(seen: Option<NewBoot>) -> Reboot {
        Reboot { left: Some("b1".into()), deadline: Some(at(900)), seen }
    }

    #[test]
    fn what_is_written_is_read_again_in_every_state() {
        let boot = "b2".to_owned();
        let verify = Verify { boot: boot.clone(), ready_since: Some(at(6)), deadline: at(900) };
        let drain = DrainRecord {
            started: at(0),
            deadline: Some(at(900)),
            blocked_since: Some(at(1)),
            detaching_since: Some(at(2)),
        };
        let over = Over {
            succeeded: false,
            reason: Some(NodeReason::PreflightNotRun),
            reboot: None,
            job_name: Some("j".into()),
            verified: Some(false),
            holds_slot: true,
            target: Some("v2".into()),
            machine_id: Some("m1".into()),
        };
        let pending = Pending { passed_in: Some("b1".into()), attempt: Some(1), ..Pending::default() };
        let preflight = Preflight { begun_in: Some("b1".into()), attempt: None, lost_at: Some(at(1)) };
        let states = [
            State::Pending(pending),
            State::Preflight(preflight),
            working(At::Claim { passed_in: Some("b1".into()) }),
            working(At::Drain(drain)),
            working(At::Job(JobStep {
                let_go_in: Some("b1".into()),
                remade: Some(Remade::Refused { since: at(1) }),
            })),
            working(At::Job(JobStep {
                let_go_in: Some("b1".into()),
                remade: Some(Remade::ToRecord { boot: "b1".into(), since: Some(at(1)) }),
            })),
            working(At::Reboot(reboot(None))),
            State::Over(over),
        ];
        // Once a new boot shows, it is no matter any more when a waiter was lost.
        let mut later = [
            working(At::Reboot(reboot(Some(NewBoot { boot, ready_since: Some(at(5)) })))),
            working(At::Verify(verify)),
        ];
        for state in &mut later {
            let State::Working(work) = state else { panic!() };
            work.waiter.lost_at = None;
        }
        for state in states.into_iter().chain(later) {
            let entry =
                Entry { message: Some("said".into()), since: Some(at(0)), node_uid: Some("u".into()), state };
            assert_eq!(Entry::parse(&entry.clone().record()), Ok(entry));
        }
    }

    #[test]
    fn what_somebody_took_out_of_an_entry_has_one_sentence_and_leaves_what_must_be_ended() {
        let whole = Entry { state: working(At::Reboot(reboot(None))), ..Entry::default() }.record();
        let whole = NodeStatus { given_up: None, untouched: None, ..whole };
        assert!(Entry::parse(&whole).is_ok());
        type Change = fn(&mut NodeStatus);
        let cases: [(&str, Change); 5] = [
            ("name of the Job", |entry| entry.job_name = None),
            ("boot of the proof", |entry| entry.step = Some(Step::Verify)),
            ("deadline of the proof", |entry| (entry.step, entry.deadline) = (Some(Step::Verify), None)),
            ("start of the drain", |entry| entry.step = Some(Step::Drain)),
            ("step that fits its phase", |entry| entry.step = Some(Step::Preflight)),
        ];
        for (missing, change) in cases {
            let mut entry = whole.clone();
            change(&mut entry);
            let Err(tampered) = Entry::parse(&entry) else { panic!("{missing}: {entry:?}") };
            let said = Failure::Tampered { missing: tampered.missing }.to_string();
            assert!(said.contains(&format!("has no {missing} any more")), "{said}");
            let State::Working(rest) = tampered.rest.state else { panic!() };
            assert_eq!(rest.waiter.number(), 2, "its waiter is known still");
            entry.given_up = Some("it was cancelled".into());
            assert!(Entry::parse(&entry).is_ok(), "it is given up as it was decided");
        }
    }

    #[test]
    fn a_job_that_an_earlier_version_gave_up_is_still_given_up() {
        let entry = NodeStatus {
            phase: Phase::Running,
            step: Some(Step::Job),
            job_name: Some("j".into()),
            deadline: Some(written(at(0))),
            message: Some("the Job's pod could not start".into()),
            ..NodeStatus::default()
        };
        let Ok(Entry { state: State::Working(work), .. }) = Entry::parse(&entry) else { panic!() };
        let given_up = work.given_up.unwrap();
        assert_eq!(
            (given_up.reason.as_str(), given_up.touched),
            ("the Job's pod could not start", Touched::Perhaps)
        );
    }
}
