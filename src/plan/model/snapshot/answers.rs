//! What the API server's answers mean, question by question. Each question has a few of the answers that
//! there are; the others say no more to it than that it was answered.

use k8s_openapi::jiff::Timestamp;

use super::Snapshot;
use crate::plan::model::{
    id::OpRef,
    question::{Answer, Question},
};

/// Whether the API server admits what an operation makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<'a> {
    Admitted,
    /// Not at this moment, for a reason that passes by itself; this is its message.
    NotYet(&'a str),
    Refused(&'a str),
}

/// Another replica of the operator, on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherReplica {
    Ready,
    /// It is there, and not Ready yet.
    Starts,
    None,
}

/// What the newest Event about an object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// A warning.
    Warns(&'a str),
    /// An image is being pulled, since then by the server's clock.
    Pulls(Option<Timestamp>),
    /// Nothing that is wrong.
    Nothing,
}

/// The static pods of the control plane on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlPlanePods<'a> {
    /// There are none, as outside of kubeadm's clusters.
    None,
    /// These are not Ready, by name.
    NotReady(&'a [String]),
    /// All are Ready: those of these components.
    Ready(&'a [String]),
}

impl Snapshot {
    /// Whether the pods are admitted that the operation makes on the node.
    pub fn admission(&self, op: &OpRef, node: &str) -> Option<Admission<'_>> {
        Some(match self.answer(&Question::Admission(op.clone(), node.to_owned()))? {
            Answer::Refused(message) => Admission::Refused(message),
            Answer::NotYet(message) => Admission::NotYet(message),
            // Any other answer says that nothing was refused.
            _ => Admission::Admitted,
        })
    }

    /// Whether there is another replica of the operator than the one on this node.
    pub fn other_replica(&self, node: &str) -> Option<OtherReplica> {
        Some(match self.answer(&Question::OtherReplica(node.to_owned()))? {
            Answer::Found => OtherReplica::Ready,
            Answer::Pending => OtherReplica::Starts,
            _ => OtherReplica::None,
        })
    }

    /// What `question`, which is about the Events of an object, has brought.
    pub fn news(&self, question: &Question) -> Option<News<'_>> {
        Some(match self.answer(question)? {
            Answer::Said(message) => News::Warns(message),
            Answer::Pulls { since } => News::Pulls(*since),
            _ => News::Nothing,
        })
    }

    /// The volumes that are attached to the node, by name.
    pub fn attached(&self, node: &str) -> Option<&[String]> {
        Some(match self.answer(&Question::Volumes(node.to_owned()))? {
            Answer::Attached(volumes) => volumes,
            _ => &[],
        })
    }

    /// The static pods of the control plane on the node.
    pub fn control_plane_pods(&self, node: &str) -> Option<ControlPlanePods<'_>> {
        match self.answer(&Question::ControlPlanePods(node.to_owned()))? {
            Answer::NotFound => Some(ControlPlanePods::None),
            Answer::NotReady(pods) => Some(ControlPlanePods::NotReady(pods)),
            Answer::Components(components) => Some(ControlPlanePods::Ready(components)),
            _ => None,
        }
    }
}
