//! Dry runs: would the API server admit what a NodeOp makes? Asked before a node is touched, since Pod
//! Security, quota, limits and webhooks refuse objects only when they are created, by then on a node that is
//! cordoned and drained.
//!
//! A Job's template is not admitted with the Job, so its pod is tried by itself.
//!
//! What is admitted is looked at, too: a webhook or a policy may take off the labels by which the operator
//! finds what it made, and it would wait for a pod that it never sees. Or it binds pods to some nodes, and
//! the kubelets of the others reject what is made for them, one after the other, each after its drain.

use std::fmt;

use anyhow::Context;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, ObjectMeta},
};
use kube::{Resource, api::PostParams, core::Status};
use serde::{Serialize, de::DeserializeOwned};

use super::{Actor, error_message, workload::namespace};
use crate::{
    api::{labels::Labels, names, nodeop::NodeOp},
    plan::model::{object_name, selector},
    render::{
        access::{self, Grant},
        job, preflight, waiter,
    },
};

/// The name of everything that is tried. Nothing of that name is ever stored.
const NAME: &str = "kairos-operator-dry-run";

/// What the API server says to what would be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It admits everything.
    Admitted,
    /// It refuses something; this is its message, and time may change that.
    NotYet(String),
    /// It refuses something; this is its message, and it will go on to.
    Refused(String),
}

impl Actor {
    /// Whether the API server would admit everything that is made for `op` on a node. What is no answer to
    /// that, such as one about a webhook that does not answer, is an error.
    /// `labels` are those of the node, if it is seen.
    pub async fn admits(
        &self,
        op: &NodeOp,
        on: job::On<'_>,
        labels: Option<&Labels>,
    ) -> anyhow::Result<Admission> {
        let Err(error) = self.try_all(op, on, labels).await else { return Ok(Admission::Admitted) };
        if error.is::<Spoilt>() {
            return Ok(Admission::Refused(error_message(&error)));
        }
        match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if is_refusal(status) => Ok(if passes(status) {
                Admission::NotYet(error_message(&error))
            } else {
                Admission::Refused(error_message(&error))
            }),
            _ => Err(error),
        }
    }

    async fn try_all(&self, op: &NodeOp, on: job::On<'_>, labels: Option<&Labels>) -> anyhow::Result<()> {
        let node = on.node;
        let preflight = preflight::pod(op, node, NAME, &self.config);
        self.try_pod(op, &preflight, labels).await.context("the preflight's pod")?;
        let spec = job::pod(op, on, NAME, &self.config);
        self.try_pod(op, &job_pod(op, node, spec), labels).await.context("the Job's pod")?;
        self.try_creating(op, &job::job(op, on, NAME, &self.config)).await.context("the Job")?;
        if op.spec.reboot_on_success.unwrap_or(false) {
            self.try_rebooting(op, node, labels).await?;
        }
        Ok(())
    }

    async fn try_rebooting(&self, op: &NodeOp, node: &str, labels: Option<&Labels>) -> anyhow::Result<()> {
        let mut waiter =
            waiter::pod(op, node, NAME, waiter::For { job: NAME, succeeded: None }, NAME, &self.config);
        // Its account is made with the first waiter, and a pod without its account is refused.
        if let Some(spec) = &mut waiter.spec {
            spec.service_account_name = None;
            spec.automount_service_account_token = Some(false);
        }
        self.try_pod(op, &waiter, labels).await.context("the reboot waiter")?;
        // Their names have the form that the policy on the operator demands of those that are made.
        let account = object_name::accounts((NAME, ""), node).remove(0);
        let named_waiter = object_name::object((NAME, ""), node, "reboot", 0);
        let grant = Grant { node, waiter: &named_waiter, job: NAME };
        self.try_creating(op, &access::service_account(op, &account, grant))
            .await
            .context("the waiter's ServiceAccount")?;
        // Not its RoleBinding: the server looks for the Role that it names, and a dry run has stored none.
        self.try_creating(op, &access::role(op, &account, grant)).await.context("the waiter's Role")?;
        Ok(())
    }

    /// A pod that its node's kubelet takes, too: it looks at what the scheduler would look at elsewhere.
    async fn try_pod(&self, op: &NodeOp, pod: &Pod, labels: Option<&Labels>) -> anyhow::Result<()> {
        let admitted = self.try_creating(op, pod).await?;
        let unmet = admitted.spec.as_ref().zip(labels).and_then(|(spec, labels)| unmet(spec, labels));
        unmet.map_or(Ok(()), |unmet| Err(Spoilt::Bound(unmet).into()))
    }

    async fn try_creating<K>(&self, op: &NodeOp, object: &K) -> anyhow::Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + fmt::Debug + Serialize + DeserializeOwned,
        K::DynamicType: Default,
    {
        let params = PostParams { dry_run: true, field_manager: Some(names::MANAGER.into()) };
        let admitted = self.write(self.api::<K>(namespace(op)).create(&params, object)).await?;
        unlabelled(object.meta(), admitted.meta()).map_or(Ok(admitted), |missing| Err(missing.into()))
    }
}

/// The pod of the Job, as the controller of Jobs makes it: with the labels that it adds, by which webhooks
/// and policies may choose what they look at.
fn job_pod(op: &NodeOp, node: &str, spec: PodSpec) -> Pod {
    let mut metadata = job::pod_meta(op, node, NAME);
    let labels = metadata.labels.get_or_insert_default();
    for key in [names::JOB_NAME_LABEL, names::LEGACY_JOB_NAME_LABEL] {
        labels.insert(key.into(), NAME.into());
    }
    Pod { metadata, spec: Some(spec), status: None }
}

/// What became of an object on its way through the API server, so that it is of no use.
#[derive(Debug, PartialEq, Eq)]
enum Spoilt {
    /// It lost this label of ours, or has another value in it.
    Unlabelled(String),
    /// It may run on nodes of these labels alone, which its own node has not.
    Bound(String),
}

impl fmt::Display for Spoilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlabelled(label) => write!(
                f,
                "a webhook or a policy of this cluster takes off or changes the label {label}, without which the operator does not see it"
            ),
            Self::Bound(labels) => write!(
                f,
                "a webhook, or the annotation scheduler.alpha.kubernetes.io/node-selector of the namespace, binds it to nodes with {labels}, \
                 which its node has not: narrow nodeSelector down, or use another namespace"
            ),
        }
    }
}

impl std::error::Error for Spoilt {}

fn unlabelled(sent: &ObjectMeta, admitted: &ObjectMeta) -> Option<Spoilt> {
    let kept = |key: &str| admitted.labels.as_ref().and_then(|labels| labels.get(key));
    let mut labels = sent.labels.iter().flatten();
    labels.find(|(key, value)| kept(key) != Some(*value)).map(|(key, _)| Spoilt::Unlabelled(key.clone()))
}

/// What the pod demands of its node's labels and is not so. Our pods demand nothing themselves. Of affinity,
/// what compares numbers or names of nodes is taken for met: the kubelet tells.
fn unmet(pod: &PodSpec, labels: &Labels) -> Option<String> {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|has| has == value);
    let mut wanted = pod.node_selector.iter().flatten();
    if let Some((key, value)) = wanted.find(|(key, value)| !has(key, value)) {
        return Some(format!("{key}={value}"));
    }
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fails = |term: &NodeSelectorTerm| {
        term.match_expressions.iter().flatten().find_map(|wanted| {
            let NodeSelectorRequirement { key, operator, values } = wanted.clone();
            let compares_numbers = matches!(&*operator, "Gt" | "Lt");
            let wanted = LabelSelectorRequirement { key, operator, values };
            let is_met = compares_numbers || selector::meets(&wanted, |key| labels.get(key));
            let values = wanted.values.iter().flatten().cloned().collect::<Vec<_>>().join(",");
            (!is_met).then(|| format!("{} {} ({values})", wanted.key, wanted.operator))
        })
    };
    // One term that holds is enough.
    let failed: Vec<String> = required.node_selector_terms.iter().map(fails).collect::<Option<_>>()?;
    failed.into_iter().next()
}

/// Whether the server judged the object: forbidden (Pod Security, quota, a webhook) or invalid. A proxy's
/// page is no judgement.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 422) && status.reason != NO_STATUS
}

/// What kube gives as the reason where the answer's body was none of the API server's.
const NO_STATUS: &str = "Failed to parse error data";

/// What API servers say when they refuse something for now. There is no field for it: all of these are a
/// plain `Forbidden`. Policies (Pod Security, limits, webhooks, ValidatingAdmissionPolicies) are not among
/// them, but for the one that the operator brings along: whoever changes one makes the NodeOp again.
const PASSING: [&str; 9] = [
    // A quota is full until somebody else's pod ends, is not counted yet, or does not exist yet where one is
    // demanded.
    "exceeded quota: ",
    "status unknown for quota: ",
    "insufficient quota to match these scopes: ",
    // A namespace that was made a moment ago has no account yet.
    "error looking up service account ",
    // Caches of an API server that has just started.
    "not yet ready to handle request",
    // Of the namespace, and so of the NodeOp: it is going.
    "because it is being terminated",
    // Our own rights, which are being installed.
    " cannot create resource ",
    // The policy on the operator, under whatever prefix: another version of it is being installed, or
    // somebody is at work on it. It says nothing of the user's operation.
    "bounds' with binding '",
    "is attempting to grant RBAC permissions not currently held",
];

fn passes(status: &Status) -> bool {
    PASSING.iter().any(|message| status.message.contains(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_of_a_job_is_tried_with_the_labels_by_which_webhooks_choose_such_pods() {
        let labels = job_pod(&NodeOp::default(), "n1", PodSpec::default()).metadata.labels.unwrap();
        for key in ["job-name", "batch.kubernetes.io/job-name"] {
            assert_eq!(labels.get(key).map(String::as_str), Some(NAME), "{key}");
        }
    }

    #[test]
    fn what_time_mends_is_told_from_what_it_does_not() {
        let quota = "pods \"x\" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=10, limited: pods=10";
        let account = "pods \"x\" is forbidden: error looking up service account ns/default: serviceaccount \"default\" not found";
        let rights = "pods is forbidden: User \"system:serviceaccount:a:b\" cannot create resource \"pods\" in API group \"\" in the namespace \"c\"";
        let security = "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": host namespaces (hostPID=true)";
        let limits = "pods \"x\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi";
        let unset = "pods \"x\" is forbidden: failed quota: compute: must specify limits.cpu for: nodeop";
        let webhook = "admission webhook \"policy.example.com\" denied the request: no Jobs here";
        let policy =
            "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no";
        let bounds = "jobs.batch \"x\" is forbidden: ValidatingAdmissionPolicy 'operator-bounds' with binding 'operator-bounds' denied request: the operator changes no pods";
        let invalid = "Pod \"x\" is invalid: spec.nodeName: Invalid value";
        let cases = [
            (403, quota, Some(true)),
            (403, account, Some(true)),
            (403, rights, Some(true)),
            (403, "pods \"x\" is forbidden: not yet ready to handle request", Some(true)),
            (403, "pods \"x\" is forbidden: status unknown for quota: q, resources: pods", Some(true)),
            (
                403,
                "pods \"x\" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [a]}]",
                Some(true),
            ),
            (403, security, Some(false)),
            (403, limits, Some(false)),
            (403, unset, Some(false)),
            (400, webhook, Some(false)),
            (422, policy, Some(false)),
            (422, bounds, Some(true)),
            (422, invalid, Some(false)),
            (500, "failed calling webhook \"policy.example.com\": connection refused", None),
            (409, "Operation cannot be fulfilled on resourcequotas \"q\"", None),
            (429, "too many requests", None),
        ];
        for (code, message, passing) in cases {
            let status = Status::failure(message, "Forbidden").with_code(code);
            assert_eq!(is_refusal(&status).then(|| passes(&status)), passing, "{message}");
        }
        assert!(
            !is_refusal(&Status::failure("<html>no entry", NO_STATUS).with_code(403)),
            "a proxy said that"
        );
    }

    #[test]
    fn a_label_of_ours_that_admission_takes_off_is_missed() {
        let meta = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
        };
        let (of, on) = (("kairos.io/nodeop", "op"), ("kairos.io/node", "n1"));
        let sent = meta(&[of, on]);
        let missing = |admitted: &ObjectMeta| match unlabelled(&sent, admitted)? {
            Spoilt::Unlabelled(label) => Some(label),
            Spoilt::Bound(_) => None,
        };
        assert_eq!(missing(&meta(&[of, on, ("mesh", "off")])), None, "others may add theirs");
        assert_eq!(missing(&meta(&[on])).as_deref(), Some("kairos.io/nodeop"));
        assert_eq!(missing(&meta(&[of, ("kairos.io/node", "other")])).as_deref(), Some("kairos.io/node"));
        assert_eq!(missing(&ObjectMeta::default()).as_deref(), Some("kairos.io/node"));
    }

    #[test]
    fn a_pod_that_admission_binds_to_other_nodes_than_its_own_is_told() {
        let labels = [("env", "dev"), ("arch", "arm")].into_iter().collect();
        let told = |spec: serde_json::Value| {
            let mut pod = serde_json::json!({"containers": []});
            pod.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            unmet(&serde_json::from_value(pod).unwrap(), &labels)
        };
        let demands = |terms: serde_json::Value| {
            let required = serde_json::json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
            told(serde_json::json!({"affinity": {"nodeAffinity": required}}))
        };
        let wants = |operator: &str, key: &str, values: &[&str]| serde_json::json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        assert_eq!(told(serde_json::json!({})), None);
        assert_eq!(told(serde_json::json!({"nodeSelector": {"env": "dev"}})), None);
        assert_eq!(
            told(serde_json::json!({"nodeSelector": {"arch": "arm", "env": "prod"}})).unwrap(),
            "env=prod"
        );
        assert_eq!(demands(serde_json::json!([wants("In", "env", &["prod"])])).unwrap(), "env In (prod)");
        for met in [
            wants("In", "env", &["prod", "dev"]),
            wants("NotIn", "env", &["prod"]),
            wants("Exists", "arch", &[]),
            wants("DoesNotExist", "gpu", &[]),
            wants("Gt", "cores", &["4"]),
            serde_json::json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}),
        ] {
            assert_eq!(demands(serde_json::json!([wants("Exists", "gpu", &[]), met])), None, "{met}");
        }
        for unmet in
            [wants("NotIn", "env", &["dev"]), wants("Exists", "gpu", &[]), wants("DoesNotExist", "env", &[])]
        {
            assert!(demands(serde_json::json!([unmet])).is_some(), "{unmet}");
        }
    }
}
