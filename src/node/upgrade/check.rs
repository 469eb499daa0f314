//! `upgrade --check`: whether the upgrade is needed and could work, before anything is touched.
//!
//! Ends well with words to skip the node, well and silent to go ahead, and badly, with the reason, if it could not work.

use anyhow::{Result, bail};

use super::{UpgradeArgs, agent::Agent, plan};
use crate::{
    contract::UpgradeOrder,
    node::{
        Ended, Permanent,
        host::{Host, mounts},
        release,
    },
};

/// Looks, and changes nothing.
pub fn run(args: &UpgradeArgs, order: &UpgradeOrder, host: &Host) -> Result<Ended> {
    let node = release::of(&host.path(&args.host_dir));
    if !node.kairos {
        let words = "the node does not run Kairos";
        if args.skip_foreign {
            return Ok(Ended::well(words));
        }
        bail!(Permanent(format!("{words}; select nodes by kairos.io/managed=true")));
    }
    let image = release::of(host.root());
    if let Some(release) = plan::already_at(order, node.version.as_deref(), image.version.as_deref()) {
        return Ok(Ended::well(format!("node is already at {release}")));
    }
    usable_agent(order, host)?;
    Ok(Ended::well(""))
}

/// The agent, if it can do what is asked: as root, on this machine, with all flags. What fails here fails for good.
pub fn usable_agent(order: &UpgradeOrder, host: &Host) -> Result<(Agent, bool)> {
    if host.is_real() && !mounts::is_root() {
        bail!(Permanent("kairos-agent must be root, and this container runs as another user".into()));
    }
    let agent = Agent::find(host)?;
    let knows_exclude_path = agent.knows_exclude_path()?;
    if !order.exclude_paths.is_empty() && !knows_exclude_path {
        bail!(Permanent("excludePaths is set, but the image's kairos-agent does not know --exclude-path (Kairos 3.6 and later do)".into()));
    }
    Ok((agent, knows_exclude_path))
}
