//! Where one node of a NodeOp stands: its entry in the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{nodeop::Phase, text::stored};

/// How the message of a node begins that is done and needed nothing, for people; see
/// [`NodeStatus::is_skipped`].
pub const SKIPPED: &str = "Skipped";

/// Where a node in progress is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Step {
    /// Its preflight runs; the node is not taken yet.
    Preflight,
    /// Being claimed and cordoned.
    Claim,
    /// Being drained, while its reboot waiter starts.
    Drain,
    /// The operation itself.
    Job,
    /// Waiting for the new boot.
    Reboot,
    /// Proving what it runs.
    Verify,
}

impl Step {
    /// Whether the drain is over, if one was asked for.
    pub fn follows_drain(self) -> bool {
        self > Self::Drain
    }
}

/// What became of a node's reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RebootStatus {
    /// None was asked for, or none was needed.
    NotRequested,
    /// Asked for, not proved yet.
    Pending,
    /// Proved by a new boot id.
    Completed,
    /// Asked for, and cancelled because the operation did not succeed.
    Cancelled,
}

/// Why a node is over that the operation has changed nothing on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeReason {
    /// Nothing had to be done, or somebody else sees to it.
    Skipped,
    /// It was found to run the image's release already.
    UpToDate,
    /// Its preflight could not run: nothing is known of it, and a later round tries it again.
    PreflightNotRun,
}

// The planner parses it, and writes it, in one place: `plan::node::state`, which says what is read elsewhere.
/// Where one node stands. Times, boot ids and UIDs are kept only while the node is in progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Where the node stands.
    pub phase: Phase,
    /// The step within `Preflight` or `Running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Name of the node's Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// What happens, what is waited for, or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why the node is over, in one word, if the operation has changed nothing on it and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<NodeReason>,
    /// What became of the reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_status: Option<RebootStatus>,
    /// Last change of phase or step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Time>,
    /// UID of the node that was taken: a node made again under the same name is another machine, unless
    /// `machineId` says that it is the same. It goes when a live read has proved that the node was given
    /// back; until then the node holds its slot, whatever its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,
    /// UID of the Job, recorded before the Job is allowed to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_uid: Option<String>,
    /// How many pods of the present kind (preflight, waiter) were lost and made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// When the drain started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_started_at: Option<Time>,
    /// Since when the drain is blocked, or the node refuses the Job's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_since: Option<Time>,
    /// Since when the drain waits for volumes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detaching_since: Option<Time>,
    /// Why the node is given up, once it is: it fails for this reason when nothing of the operation can act
    /// on it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
    /// Set if the node was given up because its Job had not begun: true while no container of the operation
    /// has, false if one began before the Job was seen to end, or may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untouched: Option<bool>,
    /// From when the time counts that the reboot waiter has to get ready, if not from the beginning of the
    /// step: an earlier one stood and was lost, or had to wait for the room that the drain makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiter_since: Option<Time>,
    /// The machine's own id, recorded when the node is taken: by it a Node object that was deleted meanwhile
    /// is known again. It stays where the Node was still deleted when the node was given up, if the operation
    /// may have run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// True for a node of the control plane that is in progress; it counts as away also while its Node object
    /// is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<bool>,
    /// When the present step is given up; none while its reboot is held back, since another control-plane
    /// node is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// The boot in which the preflight said to go on; then the one in which the Job was let run, and the one
    /// in which the operation succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The boot in which the command succeeded, if that could not be recorded when it did: the Job that is
    /// there now, or is to be made, runs no command and only records it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_in: Option<String>,
    /// The release that the upgrade brings, as its image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The image by the digest of what the preflight ran here, if its name may have come to mean something
    /// else by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The release that the node ran before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Why GRUB may boot the fallback again, on a node that had fallen back, without trying the new image;
    /// absent if it tries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_tried: Option<String>,
    /// Whether it was proved that the node runs what it was upgraded to; false if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// The boot that proves the reboot; during the preflight, the boot in which it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_boot: Option<String>,
    /// True for a node that failed and is out of service since: still cordoned, or not Ready. It holds its
    /// slot until it is back in service, or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_slot: Option<bool>,
    /// Since when we have seen the node Ready in that boot, or not Ready before it was started; when the last
    /// preflight pod or waiter was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

impl NodeStatus {
    /// The boot in which the preflight of a node that is still to be taken said to go on.
    pub fn passed_in(&self) -> Option<&str> {
        self.boot.as_deref().filter(|_| self.phase == Phase::Pending)
    }

    /// The boot in which the operation succeeded, and which the node is to leave.
    pub fn boot_to_leave(&self) -> Option<&str> {
        self.boot.as_deref().filter(|_| self.phase == Phase::Running && self.step == Some(Step::Reboot))
    }

    /// Whether the node is done and needed nothing, as was known before it was taken.
    pub fn is_skipped(&self) -> bool {
        let says_so = match self.reason {
            Some(NodeReason::Skipped | NodeReason::UpToDate) => true,
            Some(NodeReason::PreflightNotRun) => false,
            // Versions before 1.0 said it by the message alone.
            None => self.message.as_deref().is_some_and(|said| said.starts_with(SKIPPED)),
        };
        // One whose Job has found that nothing had to be done was proved by that.
        says_so && self.phase == Phase::Completed && self.job_name.is_none() && self.verified.is_none()
    }

    /// All times in it.
    pub fn times_mut(&mut self) -> impl Iterator<Item = &mut Time> {
        let times = [
            &mut self.last_updated,
            &mut self.drain_started_at,
            &mut self.blocked_since,
            &mut self.detaching_since,
            &mut self.waiter_since,
            &mut self.deadline,
            &mut self.since,
        ];
        times.into_iter().flatten()
    }

    /// Bytes of all that stands here, but for the message and what is as long for every node.
    pub fn bytes_beside_message(&self) -> usize {
        let Self {
            phase: _,
            step: _,
            job_name,
            message: _,
            reason: _,
            reboot_status: _,
            last_updated: _,
            node_uid,
            job_uid,
            attempt: _,
            drain_started_at: _,
            blocked_since: _,
            detaching_since: _,
            given_up,
            untouched: _,
            waiter_since: _,
            machine_id,
            control_plane: _,
            deadline: _,
            boot,
            succeeded_in,
            target,
            image,
            before,
            not_tried,
            verified: _,
            new_boot,
            holds_slot: _,
            since: _,
        } = self;
        let texts = [
            job_name,
            node_uid,
            job_uid,
            given_up,
            machine_id,
            boot,
            succeeded_in,
            target,
            image,
            before,
            not_tried,
            new_boot,
        ];
        texts.into_iter().flatten().map(|text| stored(text)).sum()
    }
}
