//! What our containers do on a node, without processes: the command, the sentinel, the preflight, the upgrade
//! and the facts as their applets define them; the reboot waiter is the real one (see [`super::waiter`]).

use std::{collections::BTreeMap, ffi::OsString, sync::Arc, time::Duration};

use kairos_operator::{
    api::names::{self, container},
    cli::{self, Applet},
    contract::{self, Facts, Sentinel, UpgradeResult, UpgradeState, boot_state},
    node::{
        os_release::Release,
        result::Left,
        sentinel::SentinelArgs,
        upgrade::{
            UpgradeArgs,
            plan::{self, Found, Need, Verdict},
            replaced::{Identity, Seen},
            settled,
        },
    },
};
use kairos_sim::{Outcome, Run};
use tokio::time::sleep;

use super::{
    lock, waiter,
    world::{Event, Image, OLD, World},
    worlds::{self, Kind},
};

/// How an applet ends where no retry is of any use.
const FOR_GOOD: i32 = contract::EXIT_PERMANENT as i32;

/// What a run of one of our containers comes to; `None`: it is somebody else's.
pub fn script(world: &Arc<World>, run: &Run) -> Option<Outcome> {
    if worlds::is_somebody_elses(run) {
        return Some(worlds::theirs(world, run));
    }
    let place = Place::of(run);
    boot(world, &place);
    let outcome = honest(world, run, place)?;
    Some(if world.machine(&run.node, |machine| machine.bad) {
        twisted(world, &run.node, outcome)
    } else {
        outcome
    })
}

/// What a compromised node says instead, of a container that ran as it should.
fn twisted(world: &Arc<World>, node: &str, outcome: Outcome) -> Outcome {
    let Outcome::Until(work) = outcome else { return outcome };
    let (world, node) = (world.clone(), node.to_owned());
    until(async move {
        let (code, truth) = work.await;
        (code, worlds::says(&world, &truth, &node))
    })
}

/// What a container of ours comes to on a machine that is as it should be.
fn honest(world: &Arc<World>, run: &Run, place: Place) -> Option<Outcome> {
    let world = world.clone();
    let applet = applet(run);
    let unpullable = world.fates(&place.op, |fates| fates.unpullable.contains(&place.node));
    Some(match (run.container.name.as_str(), applet) {
        (container::INSTALL, _) => Outcome::Exit(world.time(1, 300), 0, String::new()),
        (container::SENTINEL, Some(Applet::Sentinel(args))) => until(async move {
            sleep(world.time(1, 400)).await;
            let ended = sentinel(&world, &place, &args);
            // The file is there before the Job has heard of it.
            sleep(world.time(1, 800)).await;
            ended
        }),
        (container::REBOOT, Some(Applet::RebootWaiter(args))) => {
            let pod = run.pod.clone();
            until(async move { waiter::run(&world, &place, &pod, &args).await })
        }
        (container::FACTS, Some(Applet::NodeLabeler(_))) => until(async move {
            sleep(world.time(1, 2000)).await;
            (0, facts(&world, &place))
        }),
        (container::PREFLIGHT, Some(Applet::Upgrade(args))) => until(async move {
            ran(&world, &place, true);
            sleep(world.time(1, 5000)).await;
            match plan::need(&args.order(), &found(&world, &place, "")) {
                Need::Nothing { release } => (0, format!("{}{release}", contract::UpToDate::SENTENCE)),
                Need::Refused(why) => (FOR_GOOD, why),
                Need::Upgrade(_) => (0, String::new()),
            }
        }),
        (container::NODEOP, _) | (_, Some(Applet::ImageCheck(_))) if unpullable => Outcome::NoImage,
        (container::PREFLIGHT | container::IMAGE_CHECK, Some(Applet::ImageCheck(_))) => {
            ran(&world, &place, true);
            Outcome::Exit(world.time(1, 2000), 0, String::new())
        }
        (container::PREFLIGHT, None) if run.restarts == 0 && world.chance(20) => until(async move {
            sleep(world.time(1, 3000)).await;
            (1, "not yet".into())
        }),
        (container::PREFLIGHT, None) => until(async move {
            sleep(world.time(1, 5000)).await;
            match world.fates(&place.op, |fates| fates.preflight.get(&place.node).copied()) {
                None => (0, String::new()),
                Some(true) => (0, "nothing to do".into()),
                Some(false) => (3, "this node must not".into()),
            }
        }),
        (container::NODE_LOCK, Some(Applet::NodeLock(args))) if args.check => {
            Outcome::code(i32::from(!lock::is_held_by(&world, &place.node, &run.pod)))
        }
        (container::NODE_LOCK, Some(Applet::NodeLock(args))) => {
            let pod = run.pod.clone();
            until(async move { lock::hold(&world, &place.node, &pod, args.beside_init).await })
        }
        (container::NODEOP, applet) => {
            ran(&world, &place, false);
            match applet {
                Some(Applet::Upgrade(args)) => until(async move { upgrade(&world, &place, &args).await }),
                // Some do not mind being told to end.
                _ if world.is(Kind::Lingering) && world.chance(70) => {
                    Outcome::Through(Box::pin(async move { command(&world, &place).await }))
                }
                _ => until(async move { command(&world, &place).await }),
            }
        }
        _ => return None,
    })
}

/// Where a container runs, and for whom.
#[derive(Clone, Debug)]
pub struct Place {
    pub node: String,
    pub boot: String,
    /// Name of the NodeOp, and UID of the Job, as the pod's labels say.
    pub op: String,
    pub job_uid: String,
    /// UID of the pod's owner.
    owner: String,
    /// What the container's image holds, and the release of it.
    content: String,
    release: String,
}

impl Place {
    fn of(run: &Run) -> Self {
        let labels = run.pod.metadata.labels.clone().unwrap_or_default();
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let owners = run.pod.metadata.owner_references.iter().flatten();
        let owner = owners.map(|owner| owner.uid.clone()).next().unwrap_or_default();
        let content = run.content.clone();
        let release =
            content.split_once(':').map(|(_, tag)| format!("{tag}-k3sv1.30.11+k3s1")).unwrap_or_default();
        let (op, job_uid) = (label(names::NODEOP), label(contract::JOB_UID_LABEL));
        Self { node: run.node.clone(), boot: run.boot.clone(), op, job_uid, owner, content, release }
    }
}

/// Writes down what an operation's container runs.
fn ran(world: &World, place: &Place, preflight: bool) {
    world.happens(
        &place.node,
        Event::Ran { owner: place.owner.clone(), content: place.content.clone(), preflight },
    );
}

fn until(work: impl Future<Output = (i32, String)> + Send + 'static) -> Outcome {
    Outcome::Until(Box::pin(work))
}

/// The container's arguments as the real binary reads them.
fn applet(run: &Run) -> Option<Applet> {
    let mut argv: Vec<OsString> = run.argv().into_iter().map(OsString::from).collect();
    let ours = argv.first().is_some_and(|first| first == contract::BINARY || first == contract::INSTALLED);
    if !ours {
        return None;
    }
    argv[0] = "kairos-operator".into();
    Some(cli::parse(argv).unwrap_or_else(|error| panic!("arguments are not understood: {error}")))
}

/// The first container of a boot finds what has booted.
fn boot(world: &World, place: &Place) {
    let booted = world.machine(&place.node, |machine| {
        let new = machine.booted.0 != place.boot;
        new.then(|| {
            let image = match machine.falls_back && machine.active != OLD {
                true => Image { release: OLD.into(), state: boot_state::PASSIVE },
                false => Image { release: machine.active.clone(), state: boot_state::ACTIVE },
            };
            machine.booted = (place.boot.clone(), image.clone());
            image
        })
    });
    if let Some(Image { release, state }) = booted {
        world.happens(&place.node, Event::Booted { release, state });
    }
}

/// An operation that runs. It ends when this is dropped, be it that the machine lost its power.
struct Running<'a>(&'a World, &'a Place);

impl<'a> Running<'a> {
    fn new(world: &'a World, place: &'a Place) -> Self {
        world.happens(&place.node, Event::Began { job: place.job_uid.clone() });
        Self(world, place)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.happens(&self.1.node, Event::Ended { job: self.1.job_uid.clone() });
    }
}

async fn command(world: &World, place: &Place) -> (i32, String) {
    let _running = Running::new(world, place);
    let short = if world.is(Kind::Lingering) { 30 } else { 80 };
    // Long enough to see that another member has gone away, and for that to last.
    if world.is(Kind::MembersLeave) && world.nodes[&place.node].is_control_plane() {
        sleep(world.time(1, 240_000)).await;
    }
    sleep(if world.chance(short) { world.time(1, 8000) } else { world.time(1, 90_000) }).await;
    let fails = world.fates(&place.op, |fates| {
        fates.failures.get_mut(&place.node).filter(|left| **left > 0).map(|left| *left -= 1).is_some()
    });
    if fails {
        return (1, "the command failed".into());
    }
    world.happens(&place.node, Event::Succeeded { job: place.job_uid.clone(), reboots: true });
    (0, String::new())
}

fn sentinel(world: &World, place: &Place, args: &SentinelArgs) -> (i32, String) {
    let (job, upgrade) = (&*args.job, args.upgrade);
    if args.succeeded_in.as_ref().is_some_and(|boot| *boot != place.boot) {
        return (FOR_GOOD, "the node has booted since".into());
    }
    let mut sentinel = Sentinel {
        job: job.into(),
        job_uid: place.job_uid.clone(),
        boot: place.boot.clone(),
        ..Sentinel::default()
    };
    if upgrade {
        let found = world.machine(&place.node, |machine| machine.results.get(job).cloned());
        let Some(result) = found.filter(|result| result.job_uid == place.job_uid) else {
            return (1, "there is no result".into());
        };
        sentinel.boot = match result.state {
            UpgradeState::Upgraded if result.active => result.boot,
            UpgradeState::UpToDate | UpgradeState::Upgraded => String::new(),
            UpgradeState::Started | UpgradeState::Failed => {
                return (1, "the upgrade did not end well".into());
            }
        };
        (sentinel.before, sentinel.target) = (result.before, result.target);
    }
    let words = serde_json::to_string(&sentinel).expect("a sentinel");
    if !sentinel.boot.is_empty() {
        if let Err(words) = world.machine(&place.node, |machine| machine.disk).write(&sentinel) {
            return (FOR_GOOD, words);
        }
        world.disk(&place.node, |machine| machine.sentinels.insert(job.into(), sentinel));
    }
    (0, words)
}

/// What the machine runs.
fn booted(world: &World, place: &Place) -> Image {
    world.machine(&place.node, |machine| machine.booted.1.clone())
}

/// What the applet finds. Releases say nothing besides their names, and so have no order.
fn found(world: &World, place: &Place, job_uid: &str) -> Found {
    let release = |version: String| Release { kairos: true, version: Some(version), ..Release::default() };
    let Image { release: running, state } = booted(world, place);
    let left = |(job, result): (&String, &UpgradeResult)| Left { job: job.clone(), result: result.clone() };
    let left: Vec<Left> = world.machine(&place.node, |machine| machine.results.iter().map(left).collect());
    Found {
        job_uid: job_uid.into(),
        boot: place.boot.clone(),
        boot_state: state.into(),
        trusted_boot: false,
        host: release(running),
        image: release(place.release.clone()),
        untried: plan::untried(&place.boot, job_uid, Some(&place.release), &left),
    }
}

fn facts(world: &World, place: &Place) -> String {
    let Image { release: version, state } = booted(world, place);
    let release = BTreeMap::from([("VERSION".to_owned(), version.clone())]);
    let facts = Facts {
        boot: place.boot.clone(),
        boot_state: state.into(),
        kairos: true,
        version: Some(version),
        release,
    };
    serde_json::to_string(&facts).expect("facts")
}

/// Row by row what the header of `node/upgrade` says; what is decided is decided by the applet's own
/// functions.
async fn upgrade(world: &World, place: &Place, args: &UpgradeArgs) -> (i32, String) {
    let (job, order) = (args.job.clone().expect("a Job"), args.order());
    sleep(world.time(1, 2000)).await;
    let Some(_lock) = lock::of_upgrade(world, &place.node).await else {
        let why = "kairos-agent was not started; the node's lock cannot be taken";
        return (contract::EXIT_LOCKED.into(), why.into());
    };
    let (left, disk) =
        world.machine(&place.node, |machine| (machine.results.get(&job).cloned(), machine.disk));
    let found = found(world, place, &place.job_uid);
    let write = |result: UpgradeResult| {
        world.disk(&place.node, |machine| machine.results.insert(job.clone(), result));
    };
    let order = match plan::verdict(&order, &found, left.as_ref()) {
        Verdict::Refuse(why) => return (FOR_GOOD, why),
        Verdict::Settled(result) if left.as_ref() == Some(&result) => return (0, settled(&result)),
        Verdict::Settled(result) => {
            return match disk.start(&job) {
                Err(words) => (1, words),
                Ok(()) => {
                    let said = settled(&result);
                    write(result);
                    (0, said)
                }
            };
        }
        Verdict::Run(images) => images,
    };
    let state = |state| plan::result(&order, &found, state);
    if let Err(words) = disk.start(&job) {
        return (1, words);
    }
    write(state(UpgradeState::Started));
    let _running = Running::new(world, place);
    let before = images(world, place);
    let fails = world.fates(&place.op, |fates| {
        fates.failures.get_mut(&place.node).filter(|left| **left > 0).map(|left| *left -= 1).is_some()
    });
    let early = fails && world.chance(70);
    sleep(world.time(2000, 50_000)).await;
    let lies = world.fates(&place.op, |fates| fates.lies.contains(&place.node));
    if order.active && !lies && !early {
        install(world, place, &found, order.force);
    }
    // What comes after the images are in their places.
    sleep(world.time(100, 10_000)).await;
    let recorded = disk.conclude(&job);
    if fails {
        if order.active && before.is_replaced(&images(world, place)) {
            return (FOR_GOOD, "the agent failed after it had replaced the image".into());
        }
        if let Err(error) = recorded {
            return (
                FOR_GOOD,
                format!("the agent failed; it is not tried again, as that could not be recorded: {error}"),
            );
        }
        write(state(UpgradeState::Failed));
        return (1, "the agent failed".into());
    }
    world.happens(&place.node, Event::Succeeded { job: place.job_uid.clone(), reboots: order.active });
    if let Err(error) = recorded {
        let known = "kairos-agent succeeded and is not run again, but its record could not be written";
        return (
            FOR_GOOD,
            format!("{known}: {error}. Mend the disk, and reboot the node before another upgrade"),
        );
    }
    sleep(Duration::from_millis(20)).await;
    // The agent keeps a record of what it wrote.
    let recovery_at = (!order.active).then(|| "2026-11-28T02:00:07Z".into());
    let done = UpgradeResult { recovery_at, ..state(UpgradeState::Upgraded) };
    write(done.clone());
    (0, settled(&done))
}

/// What is seen of the images.
fn images(world: &World, place: &Place) -> Seen {
    let inode = world.machine(&place.node, |machine| machine.inode);
    Seen(Some(vec![Some(Identity { inode, ..Identity::default() })]))
}

/// The agent makes the active image the fallback, unless the node runs from that, and puts its own in the
/// place.
fn install(world: &World, place: &Place, found: &Found, forced: bool) {
    let untried = world.disk(&place.node, |machine| {
        machine.active = place.release.clone();
        machine.inode += 1;
        machine.written_in.replace(place.boot.clone())
    });
    world.happens(&place.node, Event::Installed { release: place.release.clone() });
    if untried.as_ref() == Some(&place.boot) && !forced && found.boot_state != boot_state::PASSIVE {
        world.happens(&place.node, Event::Overwrote { job: place.job_uid.clone() });
    }
}
