//! `upgrade --check`: whether the upgrade is needed and could work, before anything is touched.
//!
//! Exits 0 with a message to skip the node, 0 with the record [`Proceed`] to go ahead, and another code, with
//! the reason, if the upgrade could not work or would go back to an older release.

use anyhow::{Result, bail};

use super::{
    UpgradeArgs,
    agent::Agent,
    plan::{self, Need},
};
use crate::{
    contract::{self, ALREADY_AT, Proceed, UpgradeOrder},
    node::{
        AppletExit, Permanent, facts,
        host::{Host, mounts},
        os_release, result,
    },
};

/// Looks, and changes nothing.
pub fn run(args: &UpgradeArgs, order: &UpgradeOrder, host: &Host) -> Result<AppletExit> {
    let host_dir = host.path(&args.host_dir);
    let node = os_release::of(&host_dir);
    if !node.kairos {
        let message = "the node does not run Kairos";
        if args.skip_foreign {
            return Ok(AppletExit::success(message));
        }
        bail!(Permanent(format!("{message}; select nodes by kairos.io/managed=true")));
    }
    let image = os_release::of(host.root());
    let boot = host.boot_id()?;
    let directory = host_dir.join(contract::STATE_DIR.trim_start_matches('/'));
    let next = plan::boots_next(&boot, None, &result::all(&directory));
    match plan::need(order, (&node, facts::boot_state_of(host), next.as_deref()), &image) {
        Need::Nothing { release } => return Ok(AppletExit::success(format!("{ALREADY_AT}{release}"))),
        Need::Refused(why) => bail!(Permanent(why)),
        Need::Upgrade => {}
    }
    UsableAgent::find(order, host)?;
    let proceed = Proceed { proceed: true, boot, before: node.version, target: image.version };
    Ok(AppletExit::success(serde_json::to_string(&proceed)?))
}

/// An agent that can do what is asked: as root, on this machine, with all flags.
#[derive(Debug)]
pub struct UsableAgent {
    pub agent: Agent,
    pub knows_exclude_path: bool,
}

impl UsableAgent {
    /// Looks for it in the image. What fails here fails permanently.
    pub fn find(order: &UpgradeOrder, host: &Host) -> Result<Self> {
        if host.is_real() && !mounts::is_root() {
            bail!(Permanent("kairos-agent must be root, and this container runs as another user".into()));
        }
        let agent = Agent::find(host)?;
        let knows_exclude_path = agent.knows_exclude_path()?;
        if !order.exclude_paths.is_empty() && !knows_exclude_path {
            let message = "excludePaths is set, but the image's kairos-agent does not know --exclude-path (Kairos 3.6 and later do)";
            bail!(Permanent(message.into()));
        }
        Ok(Self { agent, knows_exclude_path })
    }
}
