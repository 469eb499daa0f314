//! What an agent has written in this boot of a node, and no boot has tried.
//!
//! A node has its active image and the one to fall back to. The agent moves the active one over the fallback
//! before it puts a new one in its place. So of two upgrades in one boot the second would make the image of
//! the first, which nobody has booted, the fallback, and overwrite the one that the node runs: if neither of
//! the two boots, the machine is lost. It does not matter whether both are of one operation, nor what became
//! of the first after its agent.
//!
//! An upgrade of the recovery image alone does none of that, and is neither counted nor refused. Nor is one
//! on a node that has booted its fallback, which the agent leaves as it is.

use crate::{
    contract::{UpgradeResult, UpgradeState},
    node::result::Left,
};

/// The image that the node boots next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untried {
    /// Its release; `None` if unknown.
    pub release: Option<String>,
    /// Name of the Job whose agent wrote it.
    pub job: String,
}

/// The image that an agent of another Job has made the active one in this boot, or may have: that Job failed
/// afterwards, or nobody wanted a reboot. A preflight is of no Job, and says an empty `job_uid`.
///
/// Several may have, if `force` was set, and nothing tells which of them was the last. In doubt it is one of
/// another release than `image`, which is that of the image at hand: so a node is not said to be at a release
/// that it may not boot next.
pub fn untried(boot: &str, job_uid: &str, image: Option<&str>, left: &[Left]) -> Option<Untried> {
    let written = |result: &UpgradeResult| {
        let ran = matches!(result.state, UpgradeState::Started | UpgradeState::Upgraded);
        ran && result.active && result.boot == boot && result.job_uid != job_uid
    };
    let is_another = |target: Option<&str>| target.is_none() || target != image;
    let all = left.iter().filter(|left| written(&left.result));
    let found = all.max_by_key(|left| (is_another(left.result.target.as_deref()), &left.job))?;
    Some(Untried { release: found.result.target.clone(), job: found.job.clone() })
}

/// How a node comes to what is written on it. The messages that say so are short enough to be shown whole.
const REBOOT: &str = "by hand, or by a NodeOp with rebootOnSuccess";

impl Untried {
    fn release(&self) -> &str {
        self.release.as_deref().unwrap_or("another release")
    }

    /// Why a node that runs the release already is not said to be at it.
    pub fn until_then(&self, release: &str) -> String {
        let (next, job) = (self.release(), &self.job);
        format!(
            "the node runs {release} only until its next boot: Job {job} has written {next}, or begun to. \
             Reboot the node first ({REBOOT}), or set force: true to have {release} written again"
        )
    }

    /// Why no other image is written over it. This very one is not written twice either.
    pub fn first(&self, image: Option<&str>) -> String {
        let (next, job) = (self.release(), &self.job);
        if self.release.is_some() && self.release.as_deref() == image {
            return format!(
                "Job {job} has written {next} already, or begun to, and the node has not booted since: it needs no other upgrade, but a reboot \
                 ({REBOOT})"
            );
        }
        format!(
            "Job {job} has written {next}, or begun to, and the node has not booted since: another image now would leave none that it ever booted. \
             Reboot the node first ({REBOOT}), or set force: true"
        )
    }
}
