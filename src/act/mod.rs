//! The only writer: carries out what a plan asks for, with a few requests each, and decides nothing.
//!
//! Every write goes through [`Actor::write`], which refuses once leadership is in doubt and gives each
//! request a time after which it counts as failed. What the API server returns is handed back, so that the
//! next plan is made from it. Events alone are not waited for: they go out by a queue of their own.

mod accounts;
mod admission;
mod diff;
mod drain;
mod error;
mod events;
mod failure_events;
mod node;
mod status;
mod upgrade;
mod workload;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{Client, Resource, runtime::events::Reporter};

pub use self::admission::Admission;
pub use self::drain::{Outcome as Eviction, RefusedBy as EvictionRefusal};
pub use self::error::{error_message, is_conflict, is_gone};
pub use self::events::OnWritten;
use self::events::Outbox;
pub use self::failure_events::{about_node, about_op, reference_to};
use crate::{
    api::webhooks,
    observe::LiveObject,
    plan::model::action::{Action, Notice},
    render::{RenderConfig, access::Grant, job, waiter},
};

/// The time after which a request counts as failed. Together with the fence it ends before another replica
/// may lead.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer is awaited.
#[derive(Clone, Copy, Debug)]
struct Patience {
    limit: Duration,
    /// What may take that time, after the sentence that no answer came.
    suspect: &'static str,
}

/// With what nobody but the API server has a say in; and with Events, for which nobody waits.
const SERVER: Patience = Patience { limit: REQUEST_TIMEOUT, suspect: "" };

/// With what admission webhooks may be asked about.
const WEBHOOKS: Patience = Patience { limit: webhooks::ANSWER_WITHIN, suspect: webhooks::SUSPECT };

/// A term of leadership: when it began, by the clock of this process.
pub type Term = Timestamp;

/// Says whether we may still write.
pub trait Fence: Send + Sync {
    /// How long a request that begins now may last: then another replica may lead. `Err`: leadership is lost
    /// or in doubt; or, with a `term`, what is to be written was planned in another term than the present
    /// one, and another replica may have led meanwhile.
    fn check(&self, term: Option<Term>) -> anyhow::Result<Duration>;
}

/// Carries out actions.
#[derive(Clone)]
pub struct Actor {
    pub client: Client,
    pub config: RenderConfig,
    fence: Arc<dyn Fence>,
    /// The term in which what we write was planned; `None` for what is true in each.
    term: Option<Term>,
    reporter: Reporter,
    events: Arc<Outbox>,
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actor").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Actor {
    pub fn new(client: Client, config: RenderConfig, fence: Arc<dyn Fence>, reporter: Reporter) -> Self {
        Self { client, config, fence, term: None, reporter, events: Arc::default() }
    }

    /// An actor that is like this one, and writes in this term alone.
    pub fn in_term(&self, term: Term) -> Self {
        Self { term: Some(term), ..self.clone() }
    }

    /// One write: fenced, and with an end. Webhooks may look at each, also where something is deleted, or its
    /// status or its finalizers change.
    async fn write<T>(&self, request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
        Ok(self.answer_to(request, WEBHOOKS).await??)
    }

    /// One read on which a write depends.
    async fn read<T>(&self, request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
        Ok(self.answer_to(request, SERVER).await??)
    }

    /// The answer to one write, whatever it says; the patience is cut short where another replica might lead
    /// before its end.
    async fn answer_to<T>(&self, request: impl Future<Output = T>, patience: Patience) -> anyhow::Result<T> {
        let limit = patience.limit.min(self.fence.check(self.term)?);
        let answer = tokio::time::timeout(limit, request).await;
        let suspect = patience.suspect;
        answer.with_context(|| format!("the API server did not answer within {} s{suspect}", limit.as_secs()))
    }

    /// Says what was to be said once an action is carried out. It is written by and by, see
    /// [`Self::write_events`].
    pub fn tell(&self, action: &Action) {
        if let Action::PatchStatus { op, status: _, notices } = action {
            self.say(&op.object_ref(&()), notices);
        }
        if let Action::PatchUpgradeStatus { upgrade, status: _, notices } = action {
            self.say(&upgrade.object_ref(&()), notices);
        }
        if let Action::PropagateSpec { child, steering: _, notice } = action {
            self.say_one(&child.object_ref(&()), notice);
        }
        if let Action::ResumeJob { job: _, resource_version: _, op, notice: Some(notice) } = action {
            self.say_one(&op.object_ref(&()), notice);
        }
    }

    /// Carries out one action, except an eviction, which may take long: see [`Self::evict`].
    pub async fn carry_out(&self, action: &Action) -> anyhow::Result<Vec<LiveObject>> {
        match action {
            Action::PatchStatus { op, status, notices: _ } => self.patch_op_status(op, status).await,
            Action::SetFinalizers { op, finalizers } => self.set_finalizers(op, finalizers).await,
            Action::Finalize { op, finalizers } => {
                if !self.revoke(op).await? {
                    return Ok(vec![LiveObject::Unfinished]);
                }
                self.set_finalizers(op, finalizers).await
            }
            Action::DeleteOp { op } => self.delete_op(op).await,
            Action::PatchNode { name, resource_version, change } => {
                self.patch_node(name, resource_version, change).await
            }
            Action::PatchNodeConditions { name, resource_version, change, at } => {
                self.patch_node_conditions(name, resource_version, change, *at).await
            }
            Action::CreateChild { upgrade, name } => self.create_child(upgrade, name).await,
            Action::PropagateSpec { child, steering, notice: _ } => {
                self.propagate_spec(child, steering).await
            }
            Action::PatchUpgradeStatus { upgrade, status, notices: _ } => {
                self.patch_upgrade_status(upgrade, status).await
            }
            Action::CreateFactsPod { node, node_uid, name, attempt, last_error, waited_for } => {
                self.report_unreadable(node, *attempt, last_error.as_deref());
                self.create_facts_pod((node, node_uid), name, *attempt, *waited_for).await
            }
            Action::CreatePreflightPod { op, node, name } => self.create_preflight_pod(op, node, name).await,
            Action::CreateWaiter { op, node, name, job, succeeded } => {
                let account = self.grant(op, Grant { node, waiter: name, job }).await?;
                let of = waiter::For { job, succeeded: succeeded.as_ref() };
                self.create_waiter(op, node, name, of, &account).await
            }
            Action::CreateJob { op, node, locks, name } => {
                self.create_job(op, job::On { node, locks: *locks }, name).await
            }
            Action::ResumeJob { job, resource_version, op: _, notice: _ } => {
                self.resume_job(job, resource_version).await
            }
            Action::ExtendJob { job, deadline_seconds } => self.extend_job(job, *deadline_seconds).await,
            Action::SettleJob { job, boot } => self.settle_job(job, boot).await,
            Action::DeleteJob { job, after_its_pods, why: _ } => self.delete_job(job, *after_its_pods).await,
            Action::DeletePod { pod, why: _ } => self.delete_pod(pod).await,
            Action::Evict { node, pod, grace_period_seconds } => {
                self.evict(node, pod, *grace_period_seconds).await?;
                Ok(vec![])
            }
        }
    }
}

impl Actor {
    /// Says Events about an operation, and about the node that each names. They are a courtesy: a lost one is
    /// logged.
    fn say(&self, about: &ObjectReference, notices: &[Notice]) {
        for notice in notices {
            self.say_one(about, notice);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
