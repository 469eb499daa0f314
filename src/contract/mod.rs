//! What the controller and the applets on a node agree on: applet names, paths, environment, exit codes, and
//! the shapes of what an applet leaves behind.
//!
//! Both ends are this one crate. The controller builds an applet's arguments here and `cli` parses them; the
//! test `contract` closes the loop for every applet. Nothing here does anything: it is names and small
//! records.

mod said;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::said::{BadEnd, Proceed, RecoveryProof, UpToDate};

/// The binary's path in our own image (and its name after `install` copied it).
pub const BINARY: &str = "/kairos-operator";

/// The image of this program, in this version: what its pods run unless the operator was told of another.
/// Its name stands in Cargo.toml.
pub const IMAGE: &str = concat!(env!("IMAGE_REPOSITORY"), ":v", env!("CARGO_PKG_VERSION"));

/// The names under which the binary answers, as `argv[0]` or as its first argument.
pub mod applet {
    pub const CONTROLLER: &str = "controller";
    pub const SENTINEL: &str = "sentinel";
    pub const REBOOT_WAITER: &str = "reboot-waiter";
    pub const MANIFESTS: &str = "manifests";
    pub const UPGRADE: &str = "upgrade";
    pub const INSTALL: &str = "install";
    pub const IMAGE_CHECK: &str = "image-check";
    pub const NODE_LABELER: &str = "node-labeler";
    pub const NODE_LOCK: &str = "node-lock";
    pub const LOG_LEVEL: &str = "log-level";
}

/// Environment variables that the controller sets for applets.
pub mod env {
    /// The pod's own name, namespace and UID (downward API).
    pub const POD_NAME: &str = "POD_NAME";
    pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
    pub const POD_UID: &str = "POD_UID";
    /// UID of the Job that a pod belongs to, from its label [`super::JOB_UID_LABEL`].
    pub const JOB_UID: &str = "JOB_UID";
    /// Where the host's root is mounted; scripts of users and `kairos-agent` read it.
    pub const HOST_DIR: &str = "HOST_DIR";
    /// A directory that stands for `/` in every path that an applet opens. Tests and kairos-sim set it; unset
    /// means `/`.
    pub const ROOT: &str = "KAIROS_ROOT";
    /// The process that stands for the node's PID 1 when [`ROOT`] is set. With a root and without this, no
    /// reboot is asked.
    pub const INIT_PID: &str = "KAIROS_INIT_PID";
}

/// The label by which Kubernetes (1.27 and later) names the Job's UID on its pods.
pub const JOB_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";

/// Default of the controller's `--state-dir`: a directory on the host that survives a reboot and an upgrade.
pub const STATE_DIR: &str = "/usr/local/.kairos";
/// Where the sentinel container sees the state directory.
pub const SENTINEL_MOUNT: &str = "/sentinel";
/// Where the waiter sees the *parent* of the state directory: a mount of the directory itself would go on
/// showing a removed directory after it has been made again.
pub const WAITER_MOUNT: &str = "/state";
/// Where the host's root is mounted if a NodeOp does not say.
pub const HOST_MOUNT: &str = "/host";

/// Where the volume with the copied binary is mounted: below `/mnt`, which `kairos-agent` leaves out of the
/// image it writes.
pub const INSTALL_MOUNT: &str = "/mnt/kairos-operator";
/// The copied binary, for the `command` of containers that run in the user's image.
pub const INSTALLED: &str = "/mnt/kairos-operator/kairos-operator";

/// The directory on the host with the node's lock, see `node::lock`. Below `/run`, which is in memory: it can
/// be written on every node, whatever its disks are like, and a boot leaves nothing of it.
pub const LOCK_DIR: &str = "/run/kairos-operator";
/// Where `node-lock` sees that directory.
pub const LOCK_MOUNT: &str = "/lock";
/// The lock's file in it.
pub const LOCK_FILE: &str = "node.lock";

/// File name of a Job's sentinel in the state directory.
pub fn sentinel_file(job: &str) -> String {
    format!("{job}.json")
}

/// File name of what a Job's waiter writes down in the state directory before it asks for the reboot.
pub fn asked_file(job: &str) -> String {
    format!("{job}.asked.json")
}

/// File name of an upgrade's result in the state directory.
pub fn result_file(job: &str) -> String {
    format!("{job}.upgrade.json")
}

/// Says that a Job's operation succeeded, and in which boot. Written by `sentinel` into the state directory,
/// and as its termination message; read by `reboot-waiter` and by the controller.
///
/// A reboot is due if and only if the sentinel of the waiter's own Job names the boot that the node is still
/// in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sentinel {
    /// Name of the Job.
    pub job: String,
    /// UID of the Job: a Job that was deleted and made again under the same name is another one.
    pub job_uid: String,
    /// `/proc/sys/kernel/random/boot_id` of the boot in which the operation *succeeded*. Empty: nothing was
    /// changed, do not reboot.
    pub boot: String,
    /// When, in RFC 3339, by the node's clock. For people only; nothing is decided by it.
    pub time: String,
    /// An upgrade's: the release that the host ran before; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// An upgrade's: the release that its image carries; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// An upgrade's, of a node that had fallen back: why GRUB may boot the fallback again, and not try the
    /// new image. Absent if it tries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_tried: Option<String>,
}

/// What the upgrade wrapper leaves in the state directory, and what a retry of its Job goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeResult {
    /// UID of the Job; a result of another one is no result.
    pub job_uid: String,
    /// How far it got.
    pub state: UpgradeState,
    /// The boot in which the agent was started or, in [`UpgradeState::Upgraded`], succeeded.
    pub boot: String,
    /// Whether the active partition was to be upgraded. Only then is a reboot due.
    pub active: bool,
    /// The release that the host ran before; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The boot state (see [`Facts`]) that the host was in before.
    #[serde(default)]
    pub before_state: String,
    /// The release of the image; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When the recovery image was written, in RFC 3339, if it alone was to be and the node's own record says
    /// since that run that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_at: Option<String>,
    /// See [`Sentinel::not_tried`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_tried: Option<String>,
}

/// States of an [`UpgradeResult`]. What a retry does with each stands in the header of `node/upgrade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeState {
    UpToDate,
    Started,
    Upgraded,
    Failed,
}

/// What `node-labeler` prints about a node, as its termination message of at most 4096 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The boot that the facts were read in.
    pub boot: String,
    /// From the kernel's command line: one of [`boot_state`].
    pub boot_state: String,
    /// Whether the node runs Kairos at all.
    pub kairos: bool,
    /// The release that upgrades compare; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The `KAIROS_…` keys that labels and annotations are made from, without the prefix.
    #[serde(default)]
    pub release: BTreeMap<String, String>,
}

/// Which facts are read and what is made of them. Another number in a node's annotation means that they are
/// read again.
pub const FACTS_SCHEMA: &str = "3";

/// Values of [`Facts::boot_state`].
pub mod boot_state {
    pub const ACTIVE: &str = "active";
    pub const PASSIVE: &str = "passive";
    pub const RECOVERY: &str = "recovery";
    /// The boot of a factory reset, which ends with another boot.
    pub const AUTORESET: &str = "autoreset";
    pub const LIVECD: &str = "livecd";
    /// The system was loaded into memory; of what is installed at most the data partitions are used. Kairos
    /// itself calls this active.
    pub const IN_RAM: &str = "in-ram";
    pub const UNKNOWN: &str = "unknown";
}

/// Values of the waiter's annotation [`crate::api::names::REBOOT_STATE`].
pub mod reboot_state {
    /// The watch stands, the directory can be written, init can be asked: the Job may start.
    pub const WAITING: &str = "waiting";
    /// The Job was seen `Complete` by a live GET and the node is about to be asked to reboot.
    pub const REBOOTING: &str = "rebooting";
    /// The node is in another boot than the one that the sentinel names.
    pub const COMPLETED: &str = "completed";
}

/// Exit code of an applet after an error that no retry can repair; Jobs fail at once on it
/// (`podFailurePolicy`).
///
/// `upgrade` ends with it where another try could do harm, and `sentinel` wherever it fails: the operation
/// before it has succeeded by then, and a retry of the pod would run it again.
pub const EXIT_PERMANENT: u8 = 42;

/// Exit code of `upgrade` where it could not have the node's lock, and has done nothing. A command of a user
/// may end with it too, and means something else by it.
pub const EXIT_LOCKED: u8 = 75;

/// Exit code of `reboot-waiter` where the node has started anew since its reboot was asked for, and its boot
/// id is what it was.
pub const EXIT_SAME_BOOT: u8 = 76;

/// Arguments of `sentinel`, after the applet's name.
/// `succeeded_in` is the boot in which the command succeeded, if this Job only records that.
pub fn sentinel_args(job: &str, upgrade: bool, succeeded_in: Option<&str>) -> Vec<String> {
    let mut args = vec![format!("--state-dir={SENTINEL_MOUNT}"), format!("--job={job}")];
    if upgrade {
        args.push("--upgrade".into());
    }
    args.extend(succeeded_in.map(|boot| format!("--succeeded-in={boot}")));
    args
}

/// Arguments of `reboot-waiter`, after the applet's name. `timeout` and `grace` are seconds: how long it
/// waits, from the sentinel on, for what must come between the sentinel and the reboot; and how long init
/// gets before the kernel is asked. For the sentinel itself it waits without an end. Over its timeout the
/// waiter ends with 1 and loses nothing by a restart. `succeeded` is what the controller has recorded of the
/// Job, if it has: then nobody needs the Job and its sentinel any more.
pub fn reboot_waiter_args(
    job: &str,
    owner_uid: &str,
    state_dir_name: &str,
    (timeout, grace): (u32, u32),
    succeeded: Option<&Succeeded>,
) -> Vec<String> {
    let mut args = vec![
        format!("--state-dir={WAITER_MOUNT}/{state_dir_name}"),
        format!("--job={job}"),
        format!("--owner-uid={owner_uid}"),
        format!("--timeout-seconds={timeout}"),
        format!("--grace-seconds={grace}"),
    ];
    if let Some(Succeeded { job_uid, boot }) = succeeded {
        args.extend([format!("--succeeded-job={job_uid}"), format!("--succeeded-in={boot}")]);
    }
    args
}

/// A Job that has succeeded, and the boot in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succeeded {
    pub job_uid: String,
    pub boot: String,
}

impl Succeeded {
    /// The sentinel that the Job has left.
    pub fn sentinel(&self, job: &str) -> Sentinel {
        let Self { job_uid, boot } = self.clone();
        Sentinel { job: job.into(), job_uid, boot, ..Sentinel::default() }
    }
}

/// What an upgrade is to do, as `upgrade` and `upgrade --check` are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeOrder {
    pub active: bool,
    pub recovery: bool,
    pub force: bool,
    pub debug: bool,
    /// Absolute paths or rsync patterns, as the user wrote them.
    pub exclude_paths: Vec<String>,
}

/// Arguments of `upgrade`, after the applet's name. `state_dir` is the directory on the host.
pub fn upgrade_args(job: &str, state_dir: &str, order: &UpgradeOrder) -> Vec<String> {
    let mut args = vec![format!("--job={job}")];
    args.extend(order_args(state_dir, order));
    args
}

/// Arguments of `upgrade` as a preflight, with the same directory, in which it looks for what earlier
/// upgrades have left. A node that does not run Kairos is skipped or refused, as `skip_foreign` says.
pub fn check_args(state_dir: &str, order: &UpgradeOrder, skip_foreign: bool) -> Vec<String> {
    let mut args = vec!["--check".to_owned()];
    if skip_foreign {
        args.push("--skip-foreign".into());
    }
    args.extend(order_args(state_dir, order));
    args
}

fn order_args(state_dir: &str, order: &UpgradeOrder) -> Vec<String> {
    let UpgradeOrder { active, recovery, force, debug, exclude_paths } = order;
    let flags = [("--active", active), ("--recovery", recovery), ("--force", force), ("--debug", debug)];
    let mut args = vec![format!("--state-dir={HOST_MOUNT}{state_dir}"), format!("--host-dir={HOST_MOUNT}")];
    args.extend(flags.into_iter().filter(|(_, on)| **on).map(|(flag, _)| flag.to_owned()));
    args.extend(exclude_paths.iter().map(|path| format!("--exclude-path={path}")));
    args
}

/// Arguments of `install`, after the applet's name.
pub fn install_args() -> Vec<String> {
    vec![format!("--to={INSTALLED}")]
}

/// Arguments of `image-check`, after the applet's name. `program` is the operation's command, its first word.
pub fn image_check_args(program: Option<&str>) -> Vec<String> {
    program.map(|program| format!("--program={program}")).into_iter().collect()
}

/// Arguments of `node-lock`, after the applet's name.
pub fn node_lock_args(does: NodeLock) -> Vec<String> {
    let flag = match does {
        NodeLock::Hold => None,
        NodeLock::HoldBesideInit => Some("--beside-init"),
        NodeLock::Check => Some("--check"),
    };
    let file = format!("--file={LOCK_MOUNT}/{LOCK_FILE}");
    [file].into_iter().chain(flag.map(str::to_owned)).collect()
}

/// What `node-lock` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeLock {
    /// To hold the lock for a command that the kubelet ends before it ends the holder.
    Hold,
    /// To hold it for a command in an init container, which a kubelet ends at the same time.
    HoldBesideInit,
    /// To see whether this pod holds it.
    Check,
}

/// Seconds after which the kubelet ends a facts pod, image pull included; it reads two files.
pub const FACTS_DEADLINE: i64 = 120;
/// Seconds of one that an upgrade waits for: a board with an SD card has other pods to start after a boot,
/// and images to pull, and each new pod would begin from the beginning. The step that waits has an end of its
/// own.
pub const WAITED_FACTS_DEADLINE: i64 = 600;

/// Arguments of `node-labeler`, after the applet's name.
pub fn facts_args() -> Vec<String> {
    vec![format!("--host-dir={HOST_MOUNT}")]
}
