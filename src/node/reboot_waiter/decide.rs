//! What the waiter does next: a total function of what it knows. No clock, file or client in it.

use std::time::Duration;

use crate::{
    contract::{EXIT_SAME_BOOT, Sentinel, reboot_state},
    node::AppletExit,
};

/// What the API said about the waiter's own pod, or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pod {
    /// No answer, or one that says nothing about the pod (403, 500).
    Unknown,
    /// It is there, with our UID, and is not being deleted. `completed`: it bears that annotation.
    Ours { completed: bool },
    /// It is gone, replaced, or being deleted; how, for the termination message.
    Lost(String),
}

/// What the API said about the waiter's Job, or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    Unknown,
    /// Not made yet, when there is no sentinel of it either.
    Absent,
    /// Neither `Complete` nor `Failed` yet.
    Running,
    /// `Complete`: the Job that wrote the sentinel, and ours.
    Complete,
    /// Failed, gone, replaced, somebody else's: never again `Complete`; how, for the termination message.
    Over(String),
}

/// What came of an annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The server took it, and this is the pod now.
    Done(Pod),
    /// No answer, or none that tells: the annotation may be there or not.
    Unknown,
    /// The server answered, and does not take us for anybody (401).
    Stranger,
}

/// Answers of live GETs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    pub pod: Pod,
    pub job: Job,
}

/// Whether this process has asked for the reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    No,
    /// How long ago init took the signal.
    Init(Duration),
    /// Init cannot be asked.
    Refused,
}

/// All that is decided by.
#[derive(Debug)]
pub struct Observation<'a> {
    /// The boot that the node is in.
    pub boot: &'a str,
    /// It has started anew since the reboot was asked for, in this boot.
    pub restarted: bool,
    /// The sentinel of our own Job.
    pub sentinel: Option<&'a Sentinel>,
    /// What was asked of the API since the last wait, about this very sentinel.
    pub live: Option<&'a Live>,
    /// The state that this process announced last, or tried to where success does not matter.
    pub announced: Option<&'static str>,
    /// It has waited long enough to ask the API server whether a sentinel can still come.
    pub looks_again: bool,
    /// An earlier look, a while ago, showed the Job `Complete` as well, and there was no sentinel since.
    pub was_complete: bool,
    pub asked: Asked,
    /// How long init gets.
    pub grace: Duration,
    /// SIGTERM came.
    pub stop: bool,
    /// The waiter's own deadline is over, which counts from the sentinel.
    pub overdue: bool,
}

/// What to wait for. Events of the state directory and SIGTERM end every wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Sentinel,
    /// An event of the Job.
    Job,
    /// The time to ask the API again.
    Api,
    /// Init's grace to be over.
    Init,
}

/// One step. Each has one effect, so that a crash falls between two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// GET the pod and the Job.
    Look,
    Announce(&'static str),
    Wait(Until),
    AskInit,
    AskKernel,
    /// Remove the sentinel, then end.
    Remove(AppletExit),
    End(AppletExit),
}

/// What is known of the pod after an annotation; [`Pod::Unknown`]: it is to be looked at again, and the
/// annotation is to be said again.
///
/// `waiting` and `completed` are said until they are heard. `rebooting` is said once, right after a look that
/// showed that the reboot is due: whether it is must not depend on an annotation that may be lost on either
/// way (upstream's does, and waits for ever). It is no more than news for people, and its answer one more
/// chance to learn that this pod is being deleted.
///
/// A 401 is such an answer. The token is bound to our pod and to its account, and both are deleted where a
/// reboot is cancelled; the API server goes on taking the token for seconds after that, so that the look may
/// have been its last use. It may also be that its keys were changed, or that its store was restored to a
/// time before our pod. Nobody can tell which, for the next look is answered in the same way; so that look is
/// what is waited for, as with a server that does not answer, until our own deadline. A reboot that is
/// cancelled in the same moment cannot be taken back, and one that is due comes as soon as the token is taken
/// again.
pub fn pod_after(state: &str, announced: Announced) -> Pod {
    match announced {
        Announced::Done(pod) => pod,
        Announced::Unknown if state == reboot_state::REBOOTING => Pod::Ours { completed: false },
        Announced::Unknown | Announced::Stranger => Pod::Unknown,
    }
}

/// The next step.
pub fn decide(observed: &Observation<'_>) -> NextStep {
    match observed.asked {
        Asked::Refused => return NextStep::AskKernel,
        Asked::Init(since) if since >= observed.grace => return NextStep::AskKernel,
        // Whatever comes now, SIGTERM above all, comes because the node is going down. It must not end us
        // before the grace is over: who would ask the kernel then?
        Asked::Init(_) => return NextStep::Wait(Until::Init),
        Asked::No => {}
    }
    if observed.stop {
        return NextStep::End(AppletExit::failure("told to stop before a reboot was asked"));
    }
    if let Some(Live { pod: Pod::Lost(how), .. }) = observed.live {
        return NextStep::End(AppletExit::failure(format!("gave up: this pod {how}")));
    }
    let Some(sentinel) = observed.sentinel else { return without_sentinel(observed) };
    match with_sentinel(observed, sentinel) {
        // Not before a last look: a wait for the Job knows no more than that it is over.
        NextStep::Wait(_) if observed.overdue => NextStep::End(AppletExit::failure(overdue(observed))),
        step => step,
    }
}

/// Nothing is due. Our own `completed` from before a crash ends it: it was written before the sentinel was
/// removed. So does a Job that is over, and one that is `Complete` and has left no sentinel, twice: its pod
/// writes that first, and it is read after each look. The second one is for disks that fail for a moment.
fn without_sentinel(observed: &Observation<'_>) -> NextStep {
    let waits = observed.announced == Some(reboot_state::WAITING);
    let Some(live) = observed.live else {
        return if waits && !observed.looks_again { NextStep::Wait(Until::Sentinel) } else { NextStep::Look };
    };
    match (&live.pod, &live.job) {
        (Pod::Ours { completed: true }, _) => {
            NextStep::End(AppletExit::success("the reboot was completed before"))
        }
        (Pod::Ours { .. }, Job::Over(how)) => {
            NextStep::End(AppletExit::success(format!("no reboot: the Job {how}")))
        }
        (Pod::Ours { .. }, Job::Complete) if observed.was_complete => {
            NextStep::End(AppletExit::success(NOTHING_DUE))
        }
        _ if waits => NextStep::Wait(Until::Sentinel),
        (Pod::Ours { .. }, _) => NextStep::Announce(reboot_state::WAITING),
        (Pod::Unknown | Pod::Lost(_), _) => NextStep::Wait(Until::Api),
    }
}

/// Due if the sentinel names the boot that the node is in; otherwise done. Either counts only once the Job is
/// `Complete`: the operation of a Job that goes on may succeed again, in a later boot, and then *that* boot
/// is to be left.
fn with_sentinel(observed: &Observation<'_>, sentinel: &Sentinel) -> NextStep {
    let Some(live) = observed.live else { return NextStep::Look };
    match (&live.pod, &live.job) {
        (Pod::Unknown | Pod::Lost(_), _) | (_, Job::Unknown | Job::Absent) => NextStep::Wait(Until::Api),
        (Pod::Ours { .. }, Job::Over(how)) if sentinel.boot != observed.boot => {
            NextStep::Remove(AppletExit::success(format!(
                "no reboot by us: the node left boot {}, and the Job {how}",
                sentinel.boot
            )))
        }
        (Pod::Ours { .. }, Job::Over(how)) => {
            NextStep::Remove(AppletExit::success(format!("no reboot: the Job {how}")))
        }
        (Pod::Ours { .. }, Job::Running) => NextStep::Wait(Until::Job),
        (Pod::Ours { completed }, Job::Complete) if sentinel.boot != observed.boot => {
            let said = *completed || observed.announced == Some(reboot_state::COMPLETED);
            let done = || {
                NextStep::Remove(AppletExit::success(format!(
                    "completed: the node left boot {}",
                    sentinel.boot
                )))
            };
            if said { done() } else { NextStep::Announce(reboot_state::COMPLETED) }
        }
        (Pod::Ours { .. }, Job::Complete) if observed.restarted => {
            NextStep::End(AppletExit { code: EXIT_SAME_BOOT, message: SAME_BOOT.into() })
        }
        (Pod::Ours { .. }, Job::Complete) if observed.announced != Some(reboot_state::REBOOTING) => {
            NextStep::Announce(reboot_state::REBOOTING)
        }
        (Pod::Ours { .. }, Job::Complete) => NextStep::AskInit,
    }
}

/// What is said of a Job that has left no sentinel.
const NOTHING_DUE: &str = "no reboot: the Job is Complete, and no record on this node asks for one";

/// What is said of a node that is a container: it does reboot, and nothing proves that.
const SAME_BOOT: &str = "the node has started anew since its reboot was asked for, and its boot id is what it was: it is not asked again";

fn overdue(observed: &Observation<'_>) -> String {
    let why = match observed.live {
        None | Some(Live { pod: Pod::Unknown, .. } | Live { job: Job::Unknown, .. }) => {
            "the API did not answer"
        }
        Some(_) => "the Job did not become Complete",
    };
    format!("gave up without a reboot: {why} in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Pod = Pod::Ours { completed: false };

    fn sentinel(boot: &str) -> Sentinel {
        Sentinel { job: "j".into(), job_uid: "u".into(), boot: boot.into(), ..Sentinel::default() }
    }

    fn observed<'a>(sentinel: Option<&'a Sentinel>, live: Option<&'a Live>) -> Observation<'a> {
        Observation {
            boot: "now",
            restarted: false,
            sentinel,
            live,
            announced: None,
            looks_again: false,
            was_complete: false,
            asked: Asked::No,
            grace: Duration::from_secs(600),
            stop: false,
            overdue: false,
        }
    }

    #[test]
    fn a_reboot_is_asked_only_for_a_sentinel_of_this_boot_and_a_complete_job() {
        let over = || Job::Over("failed".into());
        let lost = || Pod::Lost("is gone".into());
        for boot in ["now", "old"] {
            for pod in [Pod::Unknown, OURS, Pod::Ours { completed: true }, lost()] {
                for job in [Job::Unknown, Job::Absent, Job::Running, Job::Complete, over()] {
                    for announced in [None, Some(reboot_state::WAITING), Some(reboot_state::REBOOTING)] {
                        for (stop, overdue) in [(false, false), (true, false), (false, true)] {
                            let (sentinel, live) =
                                (sentinel(boot), Live { pod: pod.clone(), job: job.clone() });
                            let ours = matches!(pod, Pod::Ours { .. });
                            let due = boot == "now"
                                && ours
                                && job == Job::Complete
                                && announced == Some("rebooting")
                                && !stop;
                            let observed = Observation {
                                announced,
                                stop,
                                overdue,
                                ..observed(Some(&sentinel), Some(&live))
                            };
                            assert_eq!(decide(&observed) == NextStep::AskInit, due, "{observed:?}");
                            assert_ne!(decide(&observed), NextStep::AskKernel, "{observed:?}");
                        }
                    }
                }
            }
        }
    }

    /// kind and k3d: the node reboots, and its boot id stays.
    #[test]
    fn what_restarted_in_the_same_boot_is_not_asked_again() {
        let sentinel = sentinel("now");
        for announced in [None, Some(reboot_state::REBOOTING)] {
            let live = Live { pod: OURS, job: Job::Complete };
            let observed =
                Observation { restarted: true, announced, ..observed(Some(&sentinel), Some(&live)) };
            let NextStep::End(ended) = decide(&observed) else { panic!("{:?}", decide(&observed)) };
            assert_eq!(ended.code, EXIT_SAME_BOOT);
        }
    }

    #[test]
    fn only_a_reboot_that_was_said_into_the_void_goes_on_and_none_that_a_stranger_said() {
        let (waiting, rebooting, completed) =
            (reboot_state::WAITING, reboot_state::REBOOTING, reboot_state::COMPLETED);
        let lost = || Pod::Lost("was replaced".into());
        for (state, answer, pod, next) in [
            (rebooting, Announced::Unknown, OURS, NextStep::AskInit),
            (rebooting, Announced::Done(OURS), OURS, NextStep::AskInit),
            (rebooting, Announced::Stranger, Pod::Unknown, NextStep::Wait(Until::Api)),
            (waiting, Announced::Unknown, Pod::Unknown, NextStep::Wait(Until::Api)),
            (waiting, Announced::Stranger, Pod::Unknown, NextStep::Wait(Until::Api)),
            (completed, Announced::Unknown, Pod::Unknown, NextStep::Wait(Until::Api)),
            (completed, Announced::Stranger, Pod::Unknown, NextStep::Wait(Until::Api)),
        ] {
            assert_eq!(pod_after(state, answer.clone()), pod, "{state} {answer:?}");
            let (sentinel, live) = (sentinel("now"), Live { pod, job: Job::Complete });
            let announced = (live.pod != Pod::Unknown).then_some(state);
            let observed = Observation { announced, ..observed(Some(&sentinel), Some(&live)) };
            assert_eq!(decide(&observed), next, "{state} {answer:?}");
        }
        assert_eq!(pod_after(rebooting, Announced::Done(lost())), lost());
    }

    #[test]
    fn without_a_sentinel_it_announces_itself_and_waits() {
        assert_eq!(decide(&observed(None, None)), NextStep::Look);
        let live = Live { pod: OURS, job: Job::Absent };
        assert_eq!(decide(&observed(None, Some(&live))), NextStep::Announce(reboot_state::WAITING));
        let waiting = Observation { announced: Some(reboot_state::WAITING), ..observed(None, None) };
        assert_eq!(decide(&waiting), NextStep::Wait(Until::Sentinel));
        let live = Live { pod: Pod::Unknown, job: Job::Unknown };
        assert_eq!(decide(&observed(None, Some(&live))), NextStep::Wait(Until::Api));
    }

    #[test]
    fn a_running_job_is_waited_for_in_any_boot() {
        for boot in ["now", "old"] {
            let (sentinel, live) = (sentinel(boot), Live { pod: OURS, job: Job::Running });
            assert_eq!(decide(&observed(Some(&sentinel), Some(&live))), NextStep::Wait(Until::Job));
        }
    }

    #[test]
    fn after_asking_only_time_counts() {
        let asked = |since| Asked::Init(Duration::from_secs(since));
        let gone = Live { pod: Pod::Lost("is gone".into()), job: Job::Over("is gone".into()) };
        for (asked, step) in [
            (asked(0), NextStep::Wait(Until::Init)),
            (asked(599), NextStep::Wait(Until::Init)),
            (asked(600), NextStep::AskKernel),
            (Asked::Refused, NextStep::AskKernel),
        ] {
            let observed = Observation { asked, stop: true, overdue: true, ..observed(None, Some(&gone)) };
            assert_eq!(decide(&observed), step);
        }
    }

    /// How long an operation may take is not the waiter's to say.
    #[test]
    fn without_a_sentinel_no_deadline_ends_it() {
        let unknown = Live { pod: Pod::Unknown, job: Job::Unknown };
        let absent = Live { pod: OURS, job: Job::Absent };
        for (announced, live) in
            [(None, None), (None, Some(&unknown)), (None, Some(&absent)), (Some(reboot_state::WAITING), None)]
        {
            let in_time = Observation { announced, ..observed(None, live) };
            let late = Observation { overdue: true, announced, ..observed(None, live) };
            assert_eq!(decide(&late), decide(&in_time), "{late:?}");
        }
    }

    #[test]
    fn the_deadline_ends_waits_and_says_what_was_missing() {
        let sentinel = sentinel("now");
        assert_eq!(
            decide(&Observation { overdue: true, ..observed(Some(&sentinel), None) }),
            NextStep::Look,
            "it has yet to learn why"
        );
        let unknown = Live { pod: OURS, job: Job::Unknown };
        let running = Live { pod: OURS, job: Job::Running };
        for (live, message) in [(&unknown, "the API"), (&running, "the Job")] {
            match decide(&Observation { overdue: true, ..observed(Some(&sentinel), Some(live)) }) {
                NextStep::End(ended) => {
                    assert!(ended.code == 1 && ended.message.contains(message), "{ended:?}")
                }
                step => panic!("{step:?}"),
            }
        }
    }
}
