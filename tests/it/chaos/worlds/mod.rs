//! Worlds that are not as an operator's author imagines them first: as clusters, machines and people really
//! are.
//!
//! A seed draws some of them, each with its own chance. `KAIROS_CHAOS_WORLD=name` puts every seed into that
//! world (several names with commas between them); half of such seeds are calm otherwise, so that what goes
//! wrong is the world's own doing, and [`super::history`] asks more of them: nothing fails for nothing.

mod continuous;
mod edits;
mod hostile;
mod machines;
mod nodes;
mod operations;
mod people;
mod strangers;

use std::{collections::BTreeSet, sync::Arc};

use kairos_sim::{Cluster, Outcome, Run};

use super::{
    operator::Replica,
    scenario::{Mode, Scenario},
    world::World,
};

pub use self::{
    hostile::says,
    machines::{Disk, SIDECAR},
    people::restore,
    strangers::{FORGED_FACTS, NAMESPACE as ELSEWHERE, STRANGER, is_ours, is_strange, take_name},
};

/// A way in which a cluster is odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nodes, server and operators have clocks that are minutes or hours apart.
    ClocksApart,
    /// A dozen nodes that were Ready for a moment, and then went away for good.
    DeadNodes,
    /// A dozen Windows nodes, which run none of our containers.
    Windows,
    /// Pods of others with labels of ours, and with owners that they do not have.
    Strangers,
    /// Accounts, Roles and pods of others under the names that we want.
    ForeignNames,
    /// Nodes at their limit of pods: a kubelet that is asked for a critical one ends others.
    FullNodes,
    /// Kubelets that refuse pods for a while.
    Refusing,
    /// Nodes that make no sandbox, for a while or at all: only Events say so.
    Sandboxes,
    /// State directories that are read-only or full.
    Disks,
    /// A tag that is pushed again, with caches on the nodes.
    MovingTags,
    /// Containers that a webhook adds, which do not end.
    Injected,
    /// Nodes on which a waiter never gets ready.
    DeafWaiters,
    /// NodeOps that are deleted and made again under one name.
    MadeAgain,
    /// A cloud controller deletes the Node of every machine that is away; the machine joins again.
    NodesRemade,
    /// The store goes back, once.
    StoreBack,
    /// Members of etcd that have no other role, and take part again only some time after their boot.
    EtcdMembers,
    /// Members of the control plane that go away while the Job of another one runs, and take minutes.
    MembersLeave,
    /// Kubelets that stop for a while, and leave their containers running; some Nodes are deleted meanwhile.
    KubeletsStop,
    /// People who uncordon nodes that are in progress.
    Uncordoned,
    /// A rollback that meets the upgrade.
    Rollbacks,
    /// The API server refuses one sort of request for a while.
    Refusals,
    /// Machines that never reboot, whatever they are told.
    MachinesHang,
    /// People who strip NodeOps of their finalizers and delete them.
    Stripped,
    /// One watch of one operator stands still for minutes, and the other operator dies meanwhile.
    WatchesStall,
    /// Selectors by a label that the operator itself writes, asked for before any node's facts are read.
    OwnLabels,
    /// Selectors that match nobody until a node joins.
    NobodyYet,
    /// People who pause operations, and let them go on.
    Paused,
    /// People who lower `concurrency` while nodes are in progress.
    Lowered,
    /// Somebody who may edit another namespace, and makes there what looks like ours.
    Editors,
    /// A node that is compromised, with its kubelet's credentials.
    BadNode,
    /// People who change what upgrades ask for, at any moment.
    Edits,
    /// An upgrade that goes on with nodes that join and drift.
    Continuous,
    /// Somebody who tells autoscalers this and that about nodes, at any moment.
    Autoscalers,
    /// Load balancers leave nodes that are taken, and somebody keeps them off this and that node.
    LoadBalancers,
    /// Nodes say in conditions of their own how far their drain is; some have some of somebody else.
    DrainsAreSaid,
    /// Commands that go on after their pods were deleted by force, and a Job controller that may not wait for
    /// the end of a pod before it makes another.
    Lingering,
}

impl Kind {
    pub const ALL: [Self; 36] = [
        Self::ClocksApart,
        Self::DeadNodes,
        Self::Windows,
        Self::Strangers,
        Self::ForeignNames,
        Self::FullNodes,
        Self::Refusing,
        Self::Sandboxes,
        Self::Disks,
        Self::MovingTags,
        Self::Injected,
        Self::DeafWaiters,
        Self::MadeAgain,
        Self::NodesRemade,
        Self::StoreBack,
        Self::EtcdMembers,
        Self::KubeletsStop,
        Self::Uncordoned,
        Self::Rollbacks,
        Self::Refusals,
        Self::MachinesHang,
        Self::Stripped,
        Self::WatchesStall,
        Self::OwnLabels,
        Self::NobodyYet,
        Self::Paused,
        Self::Lowered,
        Self::Editors,
        Self::BadNode,
        Self::Edits,
        Self::Autoscalers,
        Self::DrainsAreSaid,
        Self::Continuous,
        Self::LoadBalancers,
        Self::Lingering,
        Self::MembersLeave,
    ];

    pub fn name(self) -> String {
        let dashed =
            |c: char| if c.is_uppercase() { format!("-{}", c.to_lowercase()) } else { c.to_string() };
        format!("{self:?}").chars().map(dashed).collect::<String>().trim_start_matches('-').to_owned()
    }

    /// In how many of a hundred seeds it is drawn.
    fn percent(self) -> u32 {
        match self {
            Self::ClocksApart
            | Self::Strangers
            | Self::NodesRemade
            | Self::EtcdMembers
            | Self::KubeletsStop => 6,
            Self::StoreBack | Self::WatchesStall => 5,
            _ => 4,
        }
    }

    /// It needs other things to go wrong, too.
    fn needs_trouble(self) -> bool {
        matches!(self, Self::StoreBack | Self::WatchesStall | Self::Stripped)
    }
}

/// What `KAIROS_CHAOS_WORLD` names.
fn forced() -> BTreeSet<String> {
    let named = std::env::var("KAIROS_CHAOS_WORLD").unwrap_or_default();
    named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The worlds of a seed.
pub fn of(seed: u64) -> BTreeSet<Kind> {
    let forced = forced();
    let named: BTreeSet<Kind> = Kind::ALL.into_iter().filter(|kind| forced.contains(&kind.name())).collect();
    if !named.is_empty() {
        return named;
    }
    let rng = &mut fastrand::Rng::with_seed(seed ^ 0x0dd5);
    Kind::ALL.into_iter().filter(|kind| rng.u32(..100) < kind.percent()).collect()
}

/// Fits a scenario to its worlds.
pub fn fit(scenario: &mut Scenario, rng: &mut fastrand::Rng) {
    let worlds = scenario.worlds.clone();
    if worlds.is_empty() {
        return;
    }
    let calm = rng.bool();
    if worlds.iter().any(|kind| kind.needs_trouble()) {
        scenario.trouble = scenario.trouble.max(std::time::Duration::from_secs(rng.u64(200..500)));
    } else if calm {
        (scenario.trouble, scenario.mode) = (std::time::Duration::ZERO, Mode::Alone);
    }
    if worlds.contains(&Kind::WatchesStall) {
        scenario.mode = Mode::Elected;
    }
    people::wish(scenario, rng);
    operations::wish(scenario, rng);
    edits::wish(scenario, rng);
    continuous::wish(scenario, rng);
    people::name_those_that_stay(scenario);
}

/// Makes a cluster odd, before any operator starts.
pub async fn furnish(cluster: &Cluster, world: &Arc<World>) {
    for kind in world.worlds.clone() {
        match kind {
            Kind::ClocksApart => nodes::clocks(world),
            Kind::FullNodes => nodes::fill(cluster, world).await,
            Kind::EtcdMembers => nodes::members(world).await,
            Kind::Strangers => strangers::arrive(cluster, world).await,
            Kind::ForeignNames => strangers::take_accounts(cluster, world).await,
            Kind::Sandboxes | Kind::Disks | Kind::DeafWaiters | Kind::MachinesHang => {
                machines::spoil(world, kind)
            }
            Kind::MovingTags => machines::shelve(world),
            Kind::Injected => machines::inject(cluster, world),
            Kind::NobodyYet => operations::keep_away(world).await,
            Kind::Editors => hostile::settle(cluster).await,
            Kind::BadNode => hostile::corrupt(world),
            Kind::DrainsAreSaid => nodes::say(world).await,
            Kind::Continuous => continuous::furnish(world).await,
            Kind::LoadBalancers => nodes::label_some(world).await,
            Kind::Lingering => machines::linger(cluster, world),
            Kind::DeadNodes
            | Kind::Windows
            | Kind::Refusing
            | Kind::MadeAgain
            | Kind::NodesRemade
            | Kind::StoreBack
            | Kind::KubeletsStop
            | Kind::MembersLeave
            | Kind::Uncordoned
            | Kind::Rollbacks
            | Kind::Refusals
            | Kind::Stripped
            | Kind::WatchesStall
            | Kind::OwnLabels
            | Kind::Paused
            | Kind::Lowered
            | Kind::Edits
            | Kind::Autoscalers => {}
        }
    }
}

/// What goes on in odd worlds while operators work.
pub fn go_on(cluster: &Cluster, world: &Arc<World>, scenario: &Scenario, replicas: &[Replica]) {
    for kind in world.worlds.clone() {
        match kind {
            Kind::DeadNodes => nodes::join_and_die(world),
            Kind::Windows => nodes::join_windows(world),
            Kind::Refusing => nodes::refuse(world),
            Kind::Sandboxes => nodes::lose_sandboxes(world),
            Kind::NodesRemade => nodes::delete_the_absent(world),
            Kind::KubeletsStop => nodes::stop_kubelets(world),
            Kind::MembersLeave => nodes::leave(world),
            Kind::Strangers => {
                strangers::forge(world);
                strangers::unlabel(world);
            }
            Kind::MovingTags => machines::move_tag(world),
            Kind::MadeAgain => people::make_again(world, scenario),
            Kind::Uncordoned => people::uncordon(world),
            Kind::Refusals => people::refuse(cluster, world),
            Kind::Stripped => people::strip(world),
            Kind::WatchesStall => people::stall_watches(world, replicas),
            Kind::Paused => operations::pause(world),
            Kind::Lowered => operations::lower(world),
            Kind::Edits => edits::edit(world),
            Kind::Autoscalers => nodes::tell_autoscalers(world),
            Kind::LoadBalancers => nodes::keep_off(world),
            Kind::Continuous => continuous::go_on(world),
            Kind::Lingering => people::force(world),
            Kind::Editors => hostile::forge_elsewhere(world),
            Kind::BadNode => hostile::misbehave(world),
            Kind::ClocksApart
            | Kind::ForeignNames
            | Kind::FullNodes
            | Kind::Disks
            | Kind::Injected
            | Kind::DeafWaiters
            | Kind::StoreBack
            | Kind::EtcdMembers
            | Kind::Rollbacks
            | Kind::MachinesHang
            | Kind::OwnLabels
            | Kind::NobodyYet
            | Kind::DrainsAreSaid => {}
        }
    }
}

/// Whether a container is somebody else's.
pub fn is_somebody_elses(run: &Run) -> bool {
    [SIDECAR, machines::INIT].contains(&run.container.name.as_str()) || is_strange(&run.pod.metadata)
}

/// What somebody else's container does: it says what it was told to, crashes, ends well before ours begin, or
/// runs for ever.
pub fn theirs(world: &World, run: &Run) -> Outcome {
    match run.container.name.as_str() {
        machines::INIT => return Outcome::Exit(world.time(1, 2_000), 0, String::new()),
        SIDECAR if world.chance(30) => return Outcome::Exit(world.time(1, 20_000), 1, "crashed".into()),
        _ => {}
    }
    let says = run.pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(strangers::SAYS));
    says.map_or(Outcome::Forever, |says| Outcome::Exit(std::time::Duration::from_secs(1), 0, says.clone()))
}

/// The world of a name; also for people who mistype one.
#[test]
fn every_name_is_known() {
    let worlds: BTreeSet<String> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert!(worlds.contains("clocks-apart") && worlds.len() == Kind::ALL.len(), "{worlds:?}");
    let unknown: Vec<String> = forced().into_iter().filter(|name| !worlds.contains(name)).collect();
    assert!(unknown.is_empty(), "no worlds: {unknown:?}; there are {worlds:?}");
}
