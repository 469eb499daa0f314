//! A NodeOp's spec, parsed once: what was typed and what it means are two structs.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::{
        child,
        nodeop::{DrainOptions, LoadBalancer, NodeOp, NodeOpSpec},
        owner,
    },
    contract,
};

/// Seconds for a drain's waiter, or a preflight's image, to get going, if the spec does not say
/// (`pullTimeoutSeconds`).
pub const PULL_TIMEOUT: i32 = 1800;
/// Seconds from the operation's success to a proved reboot, if the spec does not say.
pub const REBOOT_TIMEOUT: i32 = 1800;
/// Seconds from the new boot to the proof of what it runs, if the spec does not say.
pub const VERIFY_TIMEOUT: i32 = 300;
/// Seconds that an operation may take on one node, if the spec does not say: nothing waits for ever.
pub const JOB_DEADLINE: i64 = 86_400;
/// No deadline is longer, in seconds. A pod's may not be, and a Job's of a few hundred years overflows in its
/// controller, which then takes it for one that has passed.
pub const MAX_SECONDS: i64 = i32::MAX as i64;
/// Retries of a Job, if the spec does not say (Kubernetes' own default, and the Go operator's).
pub const BACKOFF_LIMIT: i32 = 6;
/// Seconds that a preflight may run, if the spec does not say.
pub const PREFLIGHT_DEADLINE: i32 = 120;

/// What a NodeOp asks for, with every default in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// `None`: all at once.
    pub concurrency: Option<usize>,
    /// Nothing new is started; nodes that are being worked on finish.
    pub paused: bool,
    pub stop_on_failure: bool,
    /// Nothing new is started from then on.
    pub not_after: Option<Timestamp>,
    pub cordon: bool,
    pub uncordon_on_failure: bool,
    pub drain: Option<DrainIntent>,
    /// How long load balancers get to leave a node that they are told to leave; `None`: they are not told.
    pub leaves_balancers: Option<SignedDuration>,
    pub reboot: bool,
    pub upgrade: bool,
    pub preflight: PreflightIntent,
    /// How many nodes may be asked at a time.
    pub preflights_at_once: usize,
    /// Of the Job, in seconds.
    pub job_deadline: i64,
    pub pull_timeout: SignedDuration,
    pub reboot_timeout: SignedDuration,
    pub verify_timeout: SignedDuration,
    pub min_ready: SignedDuration,
    pub not_ready_timeout: Option<SignedDuration>,
}

/// A drain, with every default in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainIntent {
    pub force: bool,
    pub delete_empty_dir_data: bool,
    pub ignore_daemon_sets: bool,
    pub strict: bool,
    /// `None`: each pod's own.
    pub grace_period_seconds: Option<i64>,
    /// `None`: never given up.
    pub timeout: Option<SignedDuration>,
    pub skip_wait_for_delete: Option<SignedDuration>,
    pub options: DrainOptions,
}

/// A preflight, with every default in its place. Every operation has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreflightIntent {
    pub asks: Asks,
    /// From its container's start.
    pub deadline: SignedDuration,
}

/// What a preflight asks about its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// What a command of the user's says.
    Command,
    /// Whether the node needs the image's release, and can be brought to it.
    Release,
    /// Whether the node has the image, and can run it: an image that is misspelt takes no node, and none is
    /// drained for it.
    Image,
}

fn seconds(value: i32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(value.max(0)))
}

/// `None` and 0 both mean "no limit".
fn limit(value: Option<i32>) -> Option<SignedDuration> {
    value.filter(|seconds| *seconds > 0).map(seconds)
}

impl Intent {
    /// Reads a spec that the API server admitted. What it admitted before our rules stood (the Go operator's
    /// objects) is read as that operator did: a drain without a cordon is no drain.
    pub fn of(op: &NodeOp) -> Self {
        let spec = &op.spec;
        let cordon = spec.cordon.unwrap_or(false);
        let drain = spec
            .drain_options
            .as_ref()
            .filter(|drain| cordon && drain.enabled.unwrap_or(false))
            .map(DrainIntent::of);
        // The Go operator's upgrades are commands, and show it in their owner alone.
        let of_upgrade = owner::is_of_upgrade(&op.metadata);
        let deadline = if of_upgrade { child::DEADLINE } else { JOB_DEADLINE };
        let balanced = spec.load_balancer.as_ref().filter(|_| cordon).and_then(LoadBalancer::wait);
        Self {
            concurrency: usize::try_from(spec.concurrency).ok().filter(|limit| *limit > 0),
            paused: spec.paused.unwrap_or(false),
            stop_on_failure: spec.stop_on_failure.unwrap_or(false),
            not_after: spec.not_after.as_ref().map(|time| time.0),
            cordon,
            uncordon_on_failure: spec.uncordon_on_failure.unwrap_or(false),
            drain,
            leaves_balancers: balanced.map(seconds),
            reboot: spec.reboot_on_success.unwrap_or(false),
            upgrade: spec.upgrade.is_some() || of_upgrade,
            preflights_at_once: preflights_at_once(spec),
            preflight: PreflightIntent::of(spec),
            job_deadline: spec.active_deadline_seconds.unwrap_or(deadline).min(MAX_SECONDS),
            pull_timeout: seconds(spec.pull_timeout_seconds.unwrap_or(PULL_TIMEOUT)),
            reboot_timeout: seconds(spec.reboot_timeout_seconds.unwrap_or(REBOOT_TIMEOUT)),
            verify_timeout: seconds(spec.verify_timeout_seconds.unwrap_or(VERIFY_TIMEOUT)),
            min_ready: seconds(spec.min_ready_seconds.unwrap_or(0)),
            not_ready_timeout: limit(spec.not_ready_timeout_seconds),
        }
    }

    /// Whether the operation takes a node out of service: then control-plane nodes go one at a time.
    pub fn disturbs(&self) -> bool {
        self.cordon || self.reboot
    }

    /// Whether each node has to be asked for itself. Where the image is all that is asked about, and a node
    /// that has it not would not be disturbed, one that has it speaks for all.
    pub fn asks_each_node(&self) -> bool {
        self.preflight.is_about_the_node() || self.disturbs()
    }
}

impl DrainIntent {
    fn of(options: &DrainOptions) -> Self {
        Self {
            force: options.force.unwrap_or(false),
            delete_empty_dir_data: options.delete_empty_dir_data.unwrap_or(false),
            ignore_daemon_sets: options.ignore_daemon_sets.unwrap_or(true),
            strict: options.strict.unwrap_or(false),
            grace_period_seconds: options.grace_period_seconds.filter(|grace| *grace >= 0).map(i64::from),
            timeout: limit(options.timeout_seconds),
            skip_wait_for_delete: limit(options.skip_wait_for_delete_timeout_seconds),
            options: options.clone(),
        }
    }
}

/// How many preflights run at a time: each pulls an image of gigabytes. They run ahead of the slots, so that
/// no slot waits for one.
fn preflights_at_once(spec: &NodeOpSpec) -> usize {
    let at_once = |number: i32| usize::try_from(number).ok().filter(|number| *number > 0);
    let by_slots = || at_once(spec.concurrency).unwrap_or(usize::MAX).clamp(3, 50);
    spec.preflight_concurrency.and_then(at_once).unwrap_or_else(by_slots)
}

impl PreflightIntent {
    /// An upgrade always looks first, even a forced one: that also pulls the image before anything is
    /// disturbed.
    fn of(spec: &NodeOpSpec) -> Self {
        let (asks, limit) = match (&spec.preflight, &spec.upgrade) {
            (Some(preflight), _) => (Asks::Command, preflight.active_deadline_seconds),
            (None, Some(upgrade)) => (Asks::Release, upgrade.preflight_timeout_seconds),
            (None, None) => (Asks::Image, None),
        };
        Self { asks, deadline: seconds(limit.unwrap_or(PREFLIGHT_DEADLINE)) }
    }

    /// Whether what is found out about a node changes while another operation is at work on it.
    pub fn is_about_the_node(&self) -> bool {
        match self.asks {
            Asks::Command | Asks::Release => true,
            Asks::Image => false,
        }
    }
}

/// Where the host's root is mounted in the operation's container. `kairos-agent` leaves only `/host` out of
/// the image that it writes, so an upgrade always gets that.
pub fn host_mount(op: &NodeOp) -> &str {
    match op.spec.host_mount_path.as_deref() {
        Some(path) if !path.is_empty() && op.spec.upgrade.is_none() => path,
        _ => contract::HOST_MOUNT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preflights_keep_up_with_the_slots_and_are_bounded_by_the_user() {
        for (concurrency, field, expected) in [
            (1, None, 3),
            (20, None, 20),
            (200, None, 50),
            // All at once.
            (0, None, 50),
            (1, Some(1), 1),
            (200, Some(300), 300),
        ] {
            let spec = NodeOpSpec { concurrency, preflight_concurrency: field, ..NodeOpSpec::default() };
            assert_eq!(preflights_at_once(&spec), expected, "concurrency {concurrency}, {field:?}");
        }
    }
}
