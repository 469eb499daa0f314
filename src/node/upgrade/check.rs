//! `upgrade --check`: whether the upgrade is needed and could work, before anything is touched.
//!
//! Exits 0 with a message to skip the node, 0 with the record [`Proceed`] to go ahead, and another code, with
//! the reason, if the upgrade could not work, would go back to an older release, or would write over an image
//! that no boot has tried.

use anyhow::{Result, bail};

use super::{
    UpgradeArgs,
    agent::Agent,
    cloud_config,
    plan::{self, Found, Need},
};
use crate::{
    contract::{Proceed, UpgradeOrder, boot_state},
    node::{
        AppletExit, Permanent,
        host::{Host, mounts},
    },
};

/// What the node has booted, by the agent's names for it, where it ends with "cannot upgrade from live
/// media/unknown boot state" (kairos-agent, `bootFromLiveMedia`).
const REFUSED: [&str; 2] = ["unknown", "livecd_boot"];

/// Looks, and changes nothing.
pub fn run(args: &UpgradeArgs, order: &UpgradeOrder, host: &Host) -> Result<AppletExit> {
    let found = super::find(args, host, "")?;
    if !found.host.kairos {
        let message = "the node does not run Kairos";
        if args.skip_foreign {
            return Ok(AppletExit::success(message));
        }
        bail!(Permanent(format!("{message}; select nodes by kairos.io/managed=true")));
    }
    let images = match plan::need(order, &found) {
        Need::Nothing { release } => return Ok(AppletExit::success(super::up_to_date(&release))),
        Need::Refused(why) => bail!(Permanent(why)),
        Need::Upgrade(images) => images,
    };
    cloud_config::check(&images, host, &host.path(&args.host_dir))?;
    UsableAgent::find(order, host, &found)?;
    let Found { boot, host: node, image, .. } = found;
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
    pub fn find(order: &UpgradeOrder, host: &Host, found: &Found) -> Result<Self> {
        if host.is_real() && !mounts::is_root() {
            bail!(Permanent("kairos-agent must be root, and this container runs as another user".into()));
        }
        let agent = Agent::find(host)?;
        // Agents since 2.8.1 upgrade no such machine, and one that knows more of it than we do says so.
        if found.boot_state == boot_state::UNKNOWN
            && let Some(state) = agent.boot_state().filter(|state| REFUSED.contains(&state.as_str()))
        {
            bail!(Permanent(format!(
                "kairos-agent cannot tell what the node has booted ({state}), and upgrades no such node; have its kernel's command line name the image, as in root=LABEL=COS_ACTIVE"
            )));
        }
        let knows_exclude_path = agent.knows_exclude_path()?;
        if !order.exclude_paths.is_empty() && !knows_exclude_path {
            let message = "excludePaths is set, but the image's kairos-agent does not know --exclude-path (Kairos 3.6 and later do)";
            bail!(Permanent(message.into()));
        }
        Ok(Self { agent, knows_exclude_path })
    }
}
