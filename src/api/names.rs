//! Every label, annotation, finalizer, condition and fixed object name, once.
//!
//! Those that the Go operator used keep their spelling: users select and script on them.

use super::hash::digits;

/// API group of both kinds.
pub const GROUP: &str = "operator.kairos.io";
/// Version of both kinds.
pub const VERSION: &str = "v1alpha1";

/// The namespace that the manifests put the operator into.
pub const OPERATOR_NAMESPACE: &str = "operator-system";
/// kubectl's annotation with a copy of the object as it was applied: half of what an object takes, and no
/// part of it.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Label on Jobs and pods: the NodeOp's name (cut to 63 characters with a hash).
pub const NODEOP: &str = "kairos.io/nodeop";
/// Label on Jobs and pods: the node's name (cut to 63 characters with a hash).
pub const NODE: &str = "kairos.io/node";
/// Label `"true"` on reboot waiters.
pub const REBOOT: &str = "kairos.io/reboot";
/// Label `"true"` on preflight pods.
pub const PREFLIGHT: &str = "kairos.io/preflight";
/// Label on the NodeOp that a NodeOpUpgrade made: the NodeOpUpgrade's name.
pub const UPGRADE_NAME: &str = "nodeopupgrade.kairos.io/name";
/// Label that says which controller keeps an object, and its value on the NodeOp that a NodeOpUpgrade made.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const MANAGED_BY_UPGRADE: &str = "nodeopupgrade-controller";
/// Annotation on the NodeOp that a NodeOpUpgrade made: the generation at which its run was decided on, and the
/// hash of what decided it, as `<generation>/<hash>`; for a later round of the run its number, too, as
/// `<generation>/<hash>/<round>`.
pub const RUN: &str = "operator.kairos.io/run";
/// Label that people set on a node, with any value but `"false"`: no operation takes it until the label is
/// gone.
pub const HOLD: &str = "kairos.io/hold";
/// Label on nodes that run Kairos. `"false"`, set by a user, means hands off.
pub const MANAGED: &str = "kairos.io/managed";

/// Node annotation: which NodeOp made the node unschedulable, as `<namespace>/<name>@<uid>`, with `!failed`
/// behind it once that has failed on the node, and `!failed!deleted` once it is gone.
pub const CORDONED_BY: &str = "operator.kairos.io/cordoned-by";
/// Node annotation: which NodeOp has claimed the node, as `<namespace>/<name>@<uid>`.
pub const CLAIMED_BY: &str = "operator.kairos.io/claimed-by";
/// Node annotation: what our facts were read from, as `<boot id>/<schema version>`.
pub const FACTS_OF: &str = "operator.kairos.io/facts-of";
/// Node annotation: which runs of which NodeOpUpgrades have had their attempt at the node, see
/// [`super::attempts`].
pub const ATTEMPTED: &str = "operator.kairos.io/attempted";
/// Node annotation: the release that the node runs, as upgrades compare it.
pub const RELEASE: &str = "operator.kairos.io/release";
/// Node annotation: the boot state of the facts' boot, also on a node whose labels we keep off.
pub const BOOT_STATE_OF: &str = "operator.kairos.io/boot-state";
/// Annotation on facts pods: how many before it failed.
pub const ATTEMPT: &str = "operator.kairos.io/attempt";
/// Label on facts pods: the Go operator's.
pub const APP: &str = "app";
/// Value of [`APP`] on facts pods.
pub const LABELER: &str = "kairos-node-labeler";
/// Node label: the boot state, see [`FACT_LABELS`].
pub const BOOT_STATE: &str = "kairos.io/boot-state";

/// Node labels that say what `/etc/kairos-release` says, with the key (less `KAIROS_`) that each comes from.
/// Beside these, [`MANAGED`] and [`BOOT_STATE`]. No other label is ever removed.
pub const FACT_LABELS: [(&str, &str); 12] = [
    ("kairos.io/id", "ID"),
    ("kairos.io/family", "FAMILY"),
    ("kairos.io/flavor", "FLAVOR"),
    ("kairos.io/flavor-release", "FLAVOR_RELEASE"),
    ("kairos.io/variant", "VARIANT"),
    ("kairos.io/release", "RELEASE"),
    ("kairos.io/model", "MODEL"),
    ("kairos.io/arch", "ARCH"),
    ("kairos.io/trusted-boot", "TRUSTED_BOOT"),
    ("kairos.io/fips", "FIPS"),
    ("kairos.io/software-version-prefix", "SOFTWARE_VERSION_PREFIX"),
    ("kairos.io/software-version", "SOFTWARE_VERSION"),
];
/// Node annotations that say the rest of it, which is no label value.
pub const FACT_ANNOTATIONS: [(&str, &str); 6] = [
    ("kairos.io/name", "NAME"),
    ("kairos.io/id-like", "ID_LIKE"),
    ("kairos.io/init-version", "INIT_VERSION"),
    ("kairos.io/version", "VERSION"),
    ("kairos.io/bug-report-url", "BUG_REPORT_URL"),
    ("kairos.io/home-url", "HOME_URL"),
];

/// Labels, with their values, by which a pod tells whoever adds containers to pods (service meshes above all)
/// to leave it as it is: a container that was added and does not end would keep a Job from completing. Each
/// key is its maker's word.
pub const LEAVE_ALONE_LABELS: [(&str, &str); 4] = [
    ("sidecar.istio.io/inject", "false"),
    ("istio.io/dataplane-mode", "none"),
    ("kuma.io/sidecar-injection", "disabled"),
    ("injector.nsm.nginx.com/auto-inject", "false"),
];
/// Annotations that say so to those that read annotations. Some read one in older releases and a label in
/// newer ones, and stand in both lists.
pub const LEAVE_ALONE_ANNOTATIONS: [(&str, &str); 10] = [
    ("sidecar.istio.io/inject", "false"),
    ("linkerd.io/inject", "disabled"),
    ("kuma.io/sidecar-injection", "disabled"),
    ("consul.hashicorp.com/connect-inject", "false"),
    ("openservicemesh.io/sidecar-injection", "disabled"),
    ("flomesh.io/sidecar-injection", "disabled"),
    ("appmesh.k8s.aws/sidecarInjectorWebhook", "disabled"),
    ("injector.nsm.nginx.com/auto-inject", "false"),
    ("sidecar.opentelemetry.io/inject", "false"),
    ("sensor.falcon-system.crowdstrike.com/injection", "disabled"),
];
/// Annotation on pods: the container that `kubectl logs` and `kubectl exec` mean when none is named.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// The readiness gate of our pods. Nothing ever sets this condition, so that none of them is Ready: a
/// disruption budget whose selector happens to match one must not count it as a healthy replica, and let the
/// last real one be evicted.
pub const NO_REPLICA: &str = "operator.kairos.io/no-replica";

/// Annotations, with their values, that keep Cluster Autoscaler and Karpenter from removing the node under a
/// pod.
pub const KEEPS_NODE: [(&str, &str); 2] =
    [("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), ("karpenter.sh/do-not-disrupt", "true")];
/// Annotations, with their values, by which Cluster Autoscaler and Karpenter leave a node itself.
pub const KEEPS_FROM_SCALE_DOWN: [(&str, &str); 2] = [
    ("cluster-autoscaler.kubernetes.io/scale-down-disabled", "true"),
    ("karpenter.sh/do-not-disrupt", "true"),
];
/// Keys of the taints by which they say that they remove a node: Cluster Autoscaler, and Karpenter since its
/// version 1 and before. The Node itself is deleted minutes later, and the taint is taken off if it is not.
pub const REMOVES_NODE: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"];
/// Node label by which load balancers outside the cluster leave a node: those of cloud controllers, and
/// MetalLB. Whatever its value is, it is there or not.
pub const NOT_BALANCED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The value that we give it.
pub const NOT_BALANCED_VALUE: &str = "true";
/// Node label by which what heals nodes (medik8s' NodeHealthCheck, Self Node Remediation and Fence Agents)
/// leaves a node that is in maintenance. A machine that boots for long is none to be
/// power-cycled.
pub const NOT_REMEDIATED: &str = "remediation.medik8s.io/exclude-from-remediation";
/// The value that counts.
pub const NOT_REMEDIATED_VALUE: &str = "true";
/// Node annotation: which NodeOp has set any of those, and what stood there before.
pub const AUTOSCALER_HINTS: &str = "operator.kairos.io/autoscaler-hints";
/// Annotation on Jobs and pods: the full node name (the label may be cut).
pub const NODE_NAME: &str = "operator.kairos.io/node-name";
/// Annotation that a reboot waiter writes on its own pod; see [`crate::contract::reboot_state`].
pub const REBOOT_STATE: &str = "kairos.io/reboot-state";

/// Annotation of a reboot waiter's pod: the boot id that it reads, with each thing that it says.
pub const WAITS_IN: &str = "kairos.io/waits-in";
/// Annotation on a Job of ours: the boot in which its operation succeeded, although a container that somebody
/// else added to its pod keeps the Job from completing. The Job is suspended with it, which ends that pod and
/// starts no other.
pub const SETTLED_IN: &str = "operator.kairos.io/settled-in";
/// The kubelet's annotation on the object of a static pod, which stands for it in the API.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Finalizer on a NodeOp that has something to release.
pub const FINALIZER: &str = "operator.kairos.io/release";
/// Finalizer that the Go operator left; removed on sight.
pub const LEGACY_FINALIZER: &str = "nodeop-reboot.kairos.io/clusterrolebinding";

/// Whether a finalizer is ours, or the Go operator's, which goes with it.
pub fn is_our_finalizer(name: &str) -> bool {
    [FINALIZER, LEGACY_FINALIZER].contains(&name)
}

/// Name of the leader election Lease (the Go operator's, so that the two never lead together).
pub const LEASE: &str = "ce9721c3.kairos.io";
/// Field manager of our writes and reporting controller of our Events.
pub const MANAGER: &str = "kairos-operator";

/// Node labels by which a distribution marks a member of the control plane or of its etcd, whatever their
/// value. Each was looked up in the sources or the documentation of those that are named.
pub const CONTROL_PLANE_LABELS: [&str; 10] = [
    // Kubernetes' own: kubeadm, k3s, RKE2, k0s, Talos, kOps, OpenShift, MicroShift, Canonical Kubernetes.
    "node-role.kubernetes.io/control-plane",
    // The same before Kubernetes 1.20; k3s, RKE2, OpenShift and MicroShift set both.
    "node-role.kubernetes.io/master",
    // Members of etcd that may be nothing else: k3s and RKE2 (`disable-apiserver`), Rancher's RKE, Harvester,
    // kOps.
    ETCD_LABEL,
    // Rancher's RKE, in its spelling.
    "node-role.kubernetes.io/controlplane",
    // kOps: nodes that run kube-apiserver and no etcd.
    "node-role.kubernetes.io/api-server",
    // OpenShift with two nodes: the third member of etcd.
    "node-role.kubernetes.io/arbiter",
    // Harvester: the third member of etcd, which runs no workload.
    "node-role.harvesterhci.io/witness",
    // MicroK8s sets no role, only this (kubelet's `--node-labels`).
    "node.kubernetes.io/microk8s-controlplane",
    // Typhoon sets no role either.
    "node.kubernetes.io/controller",
    // kOps: the nodes that run kops-controller, which are those of the control plane.
    "kops.k8s.io/kops-controller-pki",
];
/// Node labels whose value says which role a node has, with the one that marks a control plane.
pub const CONTROL_PLANE_ROLES: [(&str, &str); 3] = [
    // k0s (`constant.K0SNodeRoleLabel`).
    ("node.k0sproject.io/role", "control-plane"),
    // Canonical Kubernetes (k8s-snap, `kubeletControlPlaneLabels`).
    ("k8sd.io/role", "control-plane"),
    // The form before `node-role.kubernetes.io/…`, which kubectl still shows as a role; kOps set it.
    ("kubernetes.io/role", "master"),
];
/// Node label of the members of etcd.
pub const ETCD_LABEL: &str = "node-role.kubernetes.io/etcd";
/// Node condition by which k3s and RKE2 say whether the node's etcd votes, and its reason on a node that runs
/// no etcd.
pub const ETCD_CONDITION: &str = "EtcdIsVoter";
pub const ETCD_NO_MEMBER: &str = "NotAMember";
/// Node label with the operating system, set by every kubelet.
pub const OS_LABEL: &str = "kubernetes.io/os";
/// Label that Kubernetes puts on the pods of a Job (1.27 and later).
pub const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// What it was called before Kubernetes 1.27; pods still get both.
pub const LEGACY_JOB_NAME_LABEL: &str = "job-name";

/// Container names in our Jobs and pods; the first two are the Go operator's.
pub mod container {
    pub const NODEOP: &str = "nodeop";
    pub const SENTINEL: &str = "sentinel-creator";
    pub const REBOOT: &str = "reboot";
    pub const PREFLIGHT: &str = "preflight";
    pub const INSTALL: &str = "install";
    pub const IMAGE_CHECK: &str = "image-check";
    pub const FACTS: &str = "node-labeler";
    pub const NODE_LOCK: &str = "node-lock";

    /// All of them. Any other container of a pod of ours was added by somebody else.
    pub const ALL: [&str; 8] = [NODEOP, SENTINEL, REBOOT, PREFLIGHT, INSTALL, IMAGE_CHECK, FACTS, NODE_LOCK];
}

/// Conditions of a Node of Kubernetes' own (KEP-5683): that it is in maintenance, and how far its drain is.
pub mod node_condition {
    pub const MAINTENANCE_IN_PROGRESS: &str = "MaintenanceInProgress";
    pub const DRAIN_IN_PROGRESS: &str = "DrainInProgress";
    pub const DRAINED: &str = "Drained";
}

/// Condition types in the status of both kinds: first those that scripts wait for, then those by which
/// kstatus, and with it Flux, Helm and Argo CD, judges any resource. `Reconciling` and `Stalled` are absent
/// where they do not hold.
pub mod condition {
    pub const PROGRESSING: &str = "Progressing";
    pub const COMPLETE: &str = "Complete";
    pub const FAILED: &str = "Failed";
    pub const VERIFIED: &str = "Verified";
    pub const READY: &str = "Ready";
    pub const RECONCILING: &str = "Reconciling";
    pub const STALLED: &str = "Stalled";
}

/// Reasons in those conditions that readers, and we, tell apart.
pub mod reason {
    /// A NodeOpUpgrade's NodeOp is being made.
    pub const INITIALIZING: &str = "Initializing";
    /// All is well.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// What is needed to go on keeps failing; the message says what, and why. Also the reason of the Event.
    pub const BLOCKED: &str = "Blocked";
    /// It is over, badly.
    pub const FAILED: &str = "Failed";
    /// No node is being worked on; the message says what is waited for.
    pub const WAITING: &str = "Waiting";
    /// Nothing new is started, because `spec.paused` says so.
    pub const PAUSED: &str = "Paused";
    /// No node matches the selector; it starts when the first one does.
    pub const NO_NODES: &str = "NoNodes";
    /// Nodes that failed are out of service and hold every slot, until somebody puts them back into service.
    pub const NODES_OUT_OF_SERVICE: &str = "NodesOutOfService";
    /// A NodeOp that the NodeOpUpgrade did not make has its name.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The NodeOpUpgrade was changed: this run takes no further node, and the next one starts after it.
    pub const SUPERSEDED: &str = "Superseded";
    /// `spec.notAfter` has passed, and nothing new is started.
    pub const EXPIRED: &str = "Expired";
    /// Of the condition `Verified`: what an upgraded node runs is not known.
    pub const NOT_PROVED: &str = "NotProved";
    /// A node that the upgrade has had its attempt at runs another release than the upgrade brings. Also of the
    /// condition `Verified`.
    pub const DRIFTED: &str = "Drifted";
    /// All nodes that are left carry the label by which people hold them.
    pub const ON_HOLD: &str = "OnHold";
}

/// A label value for a name that may be longer than the 63 characters of one: cut, with a hash of the whole
/// name.
pub fn label_value(name: &str) -> String {
    const MAX: usize = 63;
    const DIGITS: usize = 10;
    if name.len() <= MAX {
        return name.to_owned();
    }
    let head = cut(name, MAX - DIGITS - 1).trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{head}-{}", digits(&[name], DIGITS))
}

/// As much of `text` as fits into `max` bytes, cut at a character.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
