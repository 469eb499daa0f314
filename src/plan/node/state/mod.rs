//! A node's entry in the status of its NodeOp, parsed: each stage has the fields that it needs, and no
//! others.
//!
//! An entry is parsed here before anything is decided about its node, and written here. Thousands that only
//! wait are not parsed in each plan: they are found by their marks (`api::node_statuses`), and what asks only
//! whether a node is somebody's reads the one field. What somebody changed so that it says nothing any more
//! is [`Tampered`], whatever is missing: the node is given up with one sentence, and no step has to think of
//! a field that is not there.

mod record;

use std::fmt;

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{
        node_status::NodeReason,
        nodeop::{NodeStatus, RebootStatus},
    },
    plan::model::{
        snapshot::{NodeView, Snapshot},
        stamp::Stamp,
    },
};

/// What stands in the status about one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub message: Option<String>,
    /// When the phase or the step changed last.
    pub since: Option<Stamp>,
    /// As which Node object the node was taken. It stays until the node is proved to be given back.
    pub node_uid: Option<String>,
    pub state: State,
}

/// Where a node stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Pending(Pending),
    Preflight(Preflight),
    Working(Box<Working>),
    Over(Over),
}

/// Not started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// The boot in which the preflight said to go on.
    pub passed_in: Option<String>,
    pub found: ImageRecord,
    /// The number of the last preflight pod.
    pub attempt: Option<i32>,
    /// Since when it has not been Ready.
    pub not_ready_since: Option<Stamp>,
}

/// Its preflight runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    pub begun_in: Option<String>,
    pub attempt: Option<i32>,
    /// When the last pod was lost.
    pub lost_at: Option<Stamp>,
}

/// What is known of the image, and of what it replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRecord {
    /// The release that it brings.
    pub target: Option<String>,
    /// The image by its digest.
    pub image: Option<String>,
    /// The release that the node ran before.
    pub before: Option<String>,
    /// Why GRUB may boot the fallback again without trying the image.
    pub not_tried: Option<String>,
}

/// Taken, and not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Working {
    pub at: At,
    pub machine: Machine,
    pub found: ImageRecord,
    /// From the moment at which its name is recorded, before it is made.
    pub job: Option<JobRecord>,
    pub waiter: WaiterRecord,
    /// What is said of the reboot so far; nothing before the operation is next.
    pub reboot: Option<RebootStatus>,
    pub given_up: Option<GivenUp>,
}

/// The machine that is worked on, whatever becomes of its Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its own id; nothing before its kubelet has told it.
    pub id: Option<String>,
    /// It is a member of the control plane, or was at some time since it was taken.
    pub control_plane: bool,
}

/// The step at which the work is.
#[derive(Clone, Debug, PartialEq)]
pub enum At {
    /// Until the node is claimed it may go back to where it was before.
    Claim {
        passed_in: Option<String>,
    },
    Drain(DrainRecord),
    Job(JobStep),
    Reboot(Reboot),
    Verify(Verify),
}

/// A drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainRecord {
    pub started: Stamp,
    pub deadline: Option<Stamp>,
    pub blocked_since: Option<Stamp>,
    /// Since when volumes alone are waited for.
    pub detaching_since: Option<Stamp>,
}

/// A Job that is made, let run, and over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobStep {
    /// The boot in which the present Job was first let run; until then, in which its UID was recorded.
    pub let_go_in: Option<String>,
    /// Why it is not the first one, if it is not.
    pub remade: Option<Remade>,
}

/// Why a Job follows another one of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remade {
    /// Nothing of the one before had begun: since then the node's kubelet refuses the pods.
    Refused { since: Stamp },
    /// The command has succeeded in that boot, and this Job only records it. `since`: since when that is to
    /// be recorded; nothing if somebody took that out of the status.
    ToRecord { boot: String, since: Option<Stamp> },
}

/// A reboot that is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reboot {
    /// The boot in which the operation succeeded; nothing if its record is gone.
    pub left: Option<String>,
    /// Until when it is awaited; nothing for as long as it is kept from coming.
    pub deadline: Option<Stamp>,
    pub seen: Option<NewBoot>,
}

/// Another boot than the one that was to be left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBoot {
    pub boot: String,
    /// Since when we have seen the node Ready in it.
    pub ready_since: Option<Stamp>,
}

/// The proof of what the node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    pub boot: String,
    /// Since when we have seen the node Ready in it; nothing while it is not.
    pub ready_since: Option<Stamp>,
    /// Until when it has to say what it runs, if it stays Ready.
    pub deadline: Stamp,
}

/// The node's Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    pub name: String,
    /// Recorded before the Job may run.
    pub uid: Option<String>,
}

/// The node's reboot waiter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaiterRecord {
    /// How many were lost and made again.
    pub attempt: Option<i32>,
    /// When the last one was lost.
    pub lost_at: Option<Stamp>,
    /// From when its time to get ready counts, if not from the beginning of the step.
    pub wanted_since: Option<Stamp>,
}

/// Why a node is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    pub reason: String,
    pub touched: Touched,
}

/// Whether the operation has begun on a node that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// It is given up for another reason.
    NotTheReason,
    /// It is given up because no container of the operation has begun, and none is going to: the node is as
    /// it was.
    No,
    /// One began before the Job was seen to end, or may have.
    Perhaps,
}

impl Touched {
    /// As it stands in the status.
    pub fn recorded(self) -> Option<bool> {
        match self {
            Self::NotTheReason => None,
            Self::No => Some(true),
            Self::Perhaps => Some(false),
        }
    }
}

/// Over, well or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Over {
    pub succeeded: bool,
    /// Why, if the operation has changed nothing.
    pub reason: Option<NodeReason>,
    pub reboot: Option<RebootStatus>,
    /// The Job that ran.
    pub job_name: Option<String>,
    /// Whether it was proved that the node runs what it was upgraded to.
    pub verified: Option<bool>,
    /// It failed, and is out of service since.
    pub holds_slot: bool,
    /// The release that the image brought here, with which that of the next nodes is compared.
    pub target: Option<String>,
    /// The machine's own id, if its Node was deleted while the operation was, or may have been, at it.
    pub machine_id: Option<String>,
}

/// Somebody changed the status so that it does not say any more where the node stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Tampered {
    pub missing: &'static str,
    /// What it says still: enough to end what may act on the node.
    pub rest: Box<Entry>,
}

impl Entry {
    /// What an entry says, whatever somebody has taken out of it.
    pub fn read(entry: &NodeStatus) -> Self {
        Self::parse(entry).unwrap_or_else(|tampered| *tampered.rest)
    }

    /// The entry in another phase or step, as which this is said of the node.
    pub fn moved(&self, now: Timestamp, state: State, message: impl fmt::Display) -> Self {
        let (message, since) = (Some(message.to_string()), Some(now.into()));
        Self { message, since, node_uid: self.node_uid.clone(), state }
    }
}

impl Over {
    /// The end of a node on which nothing has begun: well, if `reason` says that nothing had to be done.
    /// `target`: the release that the image brings, if the node told it.
    pub fn untouched(reason: Option<NodeReason>, target: Option<String>) -> Self {
        let succeeded = matches!(reason, Some(NodeReason::Skipped | NodeReason::UpToDate));
        Self { succeeded, reason, reboot: Some(RebootStatus::NotRequested), target, ..Self::default() }
    }

    /// What is kept of the work, however it ended.
    pub fn of(work: &Working) -> Self {
        Self { target: work.found.target.clone(), ..Self::default() }
    }
}

impl Machine {
    /// What its Node object says of it.
    pub fn of(snapshot: &Snapshot, node: &NodeView) -> Self {
        Self { id: node.machine_id.clone(), control_plane: snapshot.is_control_plane(node) }
    }

    /// Notes what was not known of it before. What is known stays: a Node object that a kubelet has made
    /// again gets its labels later, or never.
    pub fn note(&mut self, snapshot: &Snapshot, node: &NodeView) {
        let Self { id, control_plane } = Self::of(snapshot, node);
        self.id = self.id.take().or(id);
        self.control_plane |= control_plane;
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Pending(Pending::default())
    }
}

impl JobStep {
    /// The boot in which the command succeeded, if the Job only records that.
    pub fn succeeded_in(&self) -> Option<&str> {
        match self.remade.as_ref()? {
            Remade::ToRecord { boot, .. } => Some(boot),
            Remade::Refused { .. } => None,
        }
    }

    /// Since when Jobs follow one another, as far as that is recorded.
    pub fn remade_since(&self) -> Option<Stamp> {
        match self.remade.as_ref()? {
            Remade::Refused { since } => Some(*since),
            Remade::ToRecord { since, .. } => *since,
        }
    }
}

impl WaiterRecord {
    /// The number of the present one.
    pub fn number(&self) -> i32 {
        self.attempt.unwrap_or(0)
    }
}

impl Working {
    /// The node was just taken.
    pub fn claims(machine: Machine, passed_in: Option<String>, found: ImageRecord) -> Self {
        let (at, waiter) = (At::Claim { passed_in }, WaiterRecord::default());
        Self { at, machine, found, job: None, waiter, reboot: None, given_up: None }
    }

    /// The Job's UID, if it is recorded: it may have run then.
    pub fn job_uid(&self) -> Option<&str> {
        self.job.as_ref()?.uid.as_deref()
    }

    /// The name of the Job, if it may have run: one whose UID was never recorded never did.
    pub fn ran(&self) -> Option<String> {
        self.job.as_ref().filter(|job| job.uid.is_some()).map(|job| job.name.clone())
    }

    /// The boot in which the operation succeeded, once it has and its record is there.
    pub fn boot_to_leave(&self) -> Option<&str> {
        if let At::Reboot(reboot) = &self.at { reboot.left.as_deref() } else { None }
    }

    /// The boot in which the Job was let run, until it is over.
    pub fn job_boot(&self) -> Option<&str> {
        if let At::Job(step) = &self.at { step.let_go_in.as_deref() } else { None }
    }

    /// The boot in which the command succeeded, if the Job only records that.
    pub fn succeeded_in(&self) -> Option<&str> {
        if let At::Job(step) = &self.at { step.succeeded_in() } else { None }
    }

    /// Until when the step may take, if it has an end of its own.
    pub fn deadline(&self) -> Option<Stamp> {
        match &self.at {
            At::Claim { .. } | At::Job(_) => None,
            At::Drain(drain) => drain.deadline,
            At::Reboot(reboot) => reboot.deadline,
            At::Verify(verify) => Some(verify.deadline),
        }
    }
}
