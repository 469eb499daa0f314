//! The built-in resources, with the types of k8s-openapi as their schemas.

use k8s_openapi::{
    Metadata,
    api::{
        admissionregistration::v1 as admission, apps::v1 as apps, batch::v1 as batch,
        coordination::v1 as coordination, core::v1 as core, events::v1 as events,
        networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
        storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    schemars::{JsonSchema, generate::SchemaSettings},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Form, Kind};

/// All of them.
pub fn kinds() -> Vec<Kind> {
    let mut kinds = core_kinds();
    kinds.extend(workload_kinds());
    kinds.extend(other_kinds());
    kinds
}

fn core_kinds() -> Vec<Kind> {
    let pod = [
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ];
    let event = [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];
    vec![
        kind::<core::Namespace>("namespaces", false).short("ns").status().fields(&["status.phase"]),
        kind::<core::Node>("nodes", false).short("no").status().fields(&["spec.unschedulable"]),
        kind::<core::Pod>("pods", true).short("po").all().status().fields(&pod),
        kind::<core::ConfigMap>("configmaps", true).short("cm"),
        kind::<core::Secret>("secrets", true).fields(&["type"]),
        kind::<core::ServiceAccount>("serviceaccounts", true).short("sa"),
        kind::<core::Service>("services", true).short("svc").all().status(),
        kind::<core::PersistentVolumeClaim>("persistentvolumeclaims", true).short("pvc").status(),
        kind::<core::Event>("events", true).short("ev").fields(&event),
        kind::<core::ReplicationController>("replicationcontrollers", true).short("rc").all().status(),
    ]
}

fn workload_kinds() -> Vec<Kind> {
    vec![
        kind::<apps::Deployment>("deployments", true).short("deploy").all().status(),
        kind::<apps::ReplicaSet>("replicasets", true).short("rs").all().status(),
        kind::<apps::DaemonSet>("daemonsets", true).short("ds").all().status(),
        kind::<apps::StatefulSet>("statefulsets", true).short("sts").all().status(),
        kind::<batch::Job>("jobs", true).all().status().fields(&["status.successful"]),
        kind::<batch::CronJob>("cronjobs", true).short("cj").all().status(),
        kind::<policy::PodDisruptionBudget>("poddisruptionbudgets", true).short("pdb").status(),
    ]
}

fn other_kinds() -> Vec<Kind> {
    vec![
        kind::<coordination::Lease>("leases", true),
        kind::<events::Event>("events", true).short("ev"),
        kind::<rbac::Role>("roles", true),
        kind::<rbac::RoleBinding>("rolebindings", true),
        kind::<rbac::ClusterRole>("clusterroles", false),
        kind::<rbac::ClusterRoleBinding>("clusterrolebindings", false),
        kind::<CustomResourceDefinition>("customresourcedefinitions", false).short("crd").status(),
        kind::<storage::VolumeAttachment>("volumeattachments", false).status(),
        kind::<networking::NetworkPolicy>("networkpolicies", true).short("netpol"),
        kind::<scheduling::PriorityClass>("priorityclasses", false).short("pc"),
        kind::<admission::ValidatingAdmissionPolicy>("validatingadmissionpolicies", false).status(),
        kind::<admission::ValidatingAdmissionPolicyBinding>("validatingadmissionpolicybindings", false),
    ]
}

fn kind<K>(plural: &str, namespaced: bool) -> Kind
where
    K: Metadata + Serialize + DeserializeOwned + JsonSchema,
{
    Kind {
        table: super::table_name(K::GROUP, plural),
        group: K::GROUP.into(),
        version: K::VERSION.into(),
        kind: K::KIND.into(),
        plural: plural.into(),
        singular: K::KIND.to_lowercase(),
        namespaced,
        status: false,
        short: Vec::new(),
        categories: Vec::new(),
        fields: Vec::new(),
        columns: Vec::new(),
        form: Form::Typed { round_trip: round_trip::<K>, schema: schema::<K> },
    }
}

fn round_trip<K: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, serde_json::Error> {
    let once = |value: &Value| {
        let typed: K = K::deserialize(value)?;
        let mut value = serde_json::to_value(typed)?;
        crate::json::drop_nulls(&mut value);
        Ok(value)
    };
    once(value).or_else(|error| {
        let (mut held, mut late) = (value.clone(), Vec::new());
        hold(&mut held, "", &mut late);
        if late.is_empty() {
            return Err(error);
        }
        let mut value = once(&held)?;
        for (path, time) in late {
            value.pointer_mut(&path).into_iter().for_each(|at| *at = time.clone().into());
        }
        Ok(value)
    })
}

/// The last day that Kubernetes writes. Our types hold most of its hours not.
const LAST_DAY: &str = "9999-12-31T";
const LAST_HELD: &str = "9999-12-30T22:00:00Z";

/// Replaces times of that day, each of which is told with where it stood.
fn hold(value: &mut Value, path: &str, late: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) if text.starts_with(LAST_DAY) => {
            late.push((path.to_owned(), std::mem::replace(text, LAST_HELD.to_owned())));
        }
        Value::Array(list) => {
            list.iter_mut().enumerate().for_each(|(at, value)| hold(value, &format!("{path}/{at}"), late));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                hold(value, &format!("{path}/{name}"), late);
            }
        }
        _ => {}
    }
}

fn schema<K: JsonSchema>() -> Value {
    let generator = SchemaSettings::openapi3().into_generator();
    generator.into_root_schema_for::<K>().to_value()
}

impl Kind {
    fn short(mut self, name: &str) -> Self {
        self.short.push(name.into());
        self
    }

    fn all(mut self) -> Self {
        self.categories.push("all".into());
        self
    }

    fn status(mut self) -> Self {
        self.status = true;
        self
    }

    fn fields(mut self, fields: &[&str]) -> Self {
        self.fields = fields.iter().map(|&f| f.to_owned()).collect();
        self
    }
}
