//! A node, an API server and a power switch for tests: the [`World`] of waiters that tests kill.

use std::{cell::RefCell, rc::Rc, time::Duration};

use anyhow::{Error, Result, anyhow, bail};

use super::{
    decide::{Announced, Job, Live, Pod},
    waiter::{Limits, Waiter, World},
};
use crate::{
    contract::{Sentinel, reboot_state},
    node::AppletExit,
};

/// The Job as the API server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Absent,
    Running,
    Complete,
    Failed,
    Gone,
}

/// Everything that outlives a waiter.
#[derive(Clone, Debug)]
pub struct FakeCluster {
    pub now: Duration,
    pub boot: u32,
    pub sentinel: Option<Sentinel>,
    /// There is a sentinel, and it cannot be read.
    pub illegible: bool,
    pub phase: Phase,
    pub job_uid: u32,
    pub pod_uid: u32,
    pub pod_lost: bool,
    pub api: bool,
    /// The API server knows whose the waiter's token is.
    pub token: bool,
    /// An annotation reaches the server, but its answer does not come back.
    pub mute: bool,
    pub annotation: Option<&'static str>,
    pub sigterm: bool,
    pub init_deaf: bool,
    /// Something happened that ends a wait.
    pub event: bool,
    pub job_event: bool,
    /// What the last answer about the Job was.
    pub seen: Option<Phase>,
    /// Boots in which init or the kernel was asked, once per request.
    pub asked: Vec<u32>,
    pub kernel: u32,
    /// Which init runs, and which was asked for which reboot.
    pub init: u32,
    pub noted: Option<(Sentinel, u32)>,
    /// No note can be taken of what is asked, on a machine or on a node that is a container.
    pub unwritable: Option<Kind>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Machine,
    Container,
}

pub type Shared = Rc<RefCell<FakeCluster>>;

pub fn fake_cluster() -> Shared {
    Rc::new(RefCell::new(FakeCluster {
        now: Duration::ZERO,
        boot: 1,
        sentinel: None,
        illegible: false,
        phase: Phase::Absent,
        job_uid: 1,
        pod_uid: 1,
        pod_lost: false,
        api: true,
        token: true,
        mute: false,
        annotation: None,
        sigterm: false,
        init_deaf: false,
        event: false,
        job_event: false,
        seen: None,
        asked: Vec::new(),
        kernel: 0,
        init: 1,
        noted: None,
        unwritable: None,
    }))
}

impl FakeCluster {
    /// The operation succeeds and its sentinel is written.
    pub fn succeed(&mut self) {
        let sentinel = Sentinel {
            job: "j".into(),
            job_uid: self.job_uid.to_string(),
            boot: self.boot.to_string(),
            ..Sentinel::default()
        };
        self.sentinel = Some(sentinel);
        self.event = true;
    }

    pub fn job(&mut self, phase: Phase) {
        self.phase = phase;
        self.job_event = true;
    }

    /// Whatever ran on the node is gone with this.
    pub fn reboot(&mut self) {
        self.boot += 1;
        self.restart();
    }

    /// The node is a container: its boot id stays.
    pub fn restart(&mut self) {
        self.init += 1;
        self.sigterm = false;
    }
}

/// One process: it knows the UID that it was started with.
#[derive(Debug)]
pub struct Process {
    all: Shared,
    pod_uid: u32,
    started: Duration,
}

pub const TIMEOUT: Duration = Duration::from_secs(1800);
pub const GRACE: Duration = Duration::from_secs(600);

/// Starts a waiter on the node.
pub fn start(all: &Shared) -> Waiter<Process> {
    let (process, boot) = {
        let now = all.borrow();
        (Process { all: all.clone(), pod_uid: now.pod_uid, started: now.now }, now.boot.to_string())
    };
    Waiter::new(process, boot, Limits { timeout: TIMEOUT, grace: GRACE, jitter: 0 })
}

/// One step, or `None` if the waiter waits for something that does not happen.
pub fn step(waiter: &mut Waiter<Process>) -> Option<Option<AppletExit>> {
    futures::FutureExt::now_or_never(waiter.step())
}

/// Steps until it waits (`None`) or ends.
pub fn settle(waiter: &mut Waiter<Process>) -> Option<AppletExit> {
    for _ in 0..100 {
        match step(waiter) {
            None => return None,
            Some(Some(ended)) => return Some(ended),
            Some(None) => {}
        }
    }
    panic!("the waiter neither waits nor ends: {waiter:?}");
}

impl World for Process {
    fn elapsed(&self) -> Duration {
        self.all.borrow().now - self.started
    }

    fn stopped(&mut self) -> bool {
        self.all.borrow().sigterm
    }

    fn read(&mut self) -> Option<Sentinel> {
        self.all.borrow().sentinel.clone()
    }

    fn has_record(&self) -> bool {
        let all = self.all.borrow();
        all.illegible || all.sentinel.is_some()
    }

    async fn look(&mut self, job_uid: Option<&str>) -> Live {
        let mut all = self.all.borrow_mut();
        if !all.api || !all.token {
            return Live { pod: Pod::Unknown, job: Job::Unknown };
        }
        all.seen = Some(all.phase);
        let of_sentinel = job_uid.is_none_or(|uid| uid == all.job_uid.to_string());
        let job = match all.phase {
            Phase::Absent | Phase::Gone if job_uid.is_none() => Job::Absent,
            Phase::Absent | Phase::Gone => Job::Over("is gone".into()),
            _ if !of_sentinel => Job::Over("was replaced".into()),
            Phase::Failed => Job::Over("failed".into()),
            Phase::Running => Job::Running,
            Phase::Complete => Job::Complete,
        };
        drop(all);
        Live { pod: self.pod(), job }
    }

    async fn announce(&mut self, state: &'static str) -> Announced {
        let pod = self.pod();
        let mut all = self.all.borrow_mut();
        if !all.api {
            return Announced::Unknown;
        }
        if !all.token {
            return Announced::Stranger;
        }
        if let Pod::Ours { .. } = pod {
            all.annotation = Some(state);
        }
        if all.mute {
            return Announced::Unknown;
        }
        drop(all);
        Announced::Done(self.pod())
    }

    fn last_error(&self) -> Option<String> {
        let all = self.all.borrow();
        (!all.api || !all.token || all.mute)
            .then(|| "asking about the pod: pods \"w\" is forbidden".to_owned())
    }

    async fn wait(&mut self, job: bool, at_most: Duration) {
        let heard = {
            let mut all = self.all.borrow_mut();
            let job_event = job && std::mem::take(&mut all.job_event);
            std::mem::take(&mut all.event) || job_event || at_most.is_zero()
        };
        if !heard {
            std::future::pending::<()>().await;
        }
    }

    fn has_restarted(&mut self, sentinel: &Sentinel) -> bool {
        let all = self.all.borrow();
        all.noted.as_ref().is_some_and(|(of, init)| of == sentinel && *init != all.init)
    }

    fn note_asking(&mut self, sentinel: &Sentinel) -> Result<()> {
        let mut all = self.all.borrow_mut();
        match all.unwritable {
            None => all.noted = Some((sentinel.clone(), all.init)),
            Some(Kind::Machine) => {}
            Some(Kind::Container) => bail!("no space left on device"),
        }
        Ok(())
    }

    fn ask_init(&mut self) -> Result<()> {
        let mut all = self.all.borrow_mut();
        if all.init_deaf {
            return Err(anyhow!("init is deaf"));
        }
        let boot = all.boot;
        all.asked.push(boot);
        Ok(())
    }

    async fn ask_kernel(&mut self) -> Error {
        let mut all = self.all.borrow_mut();
        let boot = all.boot;
        all.asked.push(boot);
        all.kernel += 1;
        anyhow!("the test's kernel only counts")
    }

    fn remove(&mut self, sentinel: &Sentinel) -> Result<()> {
        let mut all = self.all.borrow_mut();
        if all.sentinel.as_ref() == Some(sentinel) {
            all.sentinel = None;
        }
        Ok(())
    }
}

impl Process {
    fn pod(&self) -> Pod {
        let all = self.all.borrow();
        if self.pod_uid != all.pod_uid {
            Pod::Lost("was replaced".into())
        } else if all.pod_lost {
            Pod::Lost("is being deleted".into())
        } else {
            Pod::Ours { completed: all.annotation == Some(reboot_state::COMPLETED) }
        }
    }
}
