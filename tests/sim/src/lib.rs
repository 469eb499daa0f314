//! An embedded Kubernetes API server with hollow nodes, for the operator's demo, tests and benchmarks.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let cluster = kairos_sim::Cluster::builder().nodes(5).control_planes(1).operator("target/debug/kairos-operator").start().await?;
//! cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n").await?;
//! cluster.node("n2").reboot();
//! # Ok(())
//! # }
//! ```
//!
//! [`Cluster`] is the door. Behind it, [`server`] answers HTTP on one [`store`] of JSON objects whose
//! [`kinds`] are the built-in ones and those of CustomResourceDefinitions; [`mod@show`] is what kubectl asks
//! for beside objects; [`auth`] is tokens and RBAC; a few controllers (garbage collection, Jobs, workloads,
//! scheduler, namespaces, disruption budgets) are driven by the store's log. [`hollow`] nodes are clients of
//! the API and use nothing else. [`faults`] and [`audit`] are for tests.
//!
//! # What is not imitated
//!
//! Where this and a real API server differ, this is wrong. On purpose it has no:
//!
//! - TLS, HTTP/2, answers in protobuf (bodies are read of the few kinds that kubectl makes itself, as in
//!   `create namespace`), aggregated discovery, OpenAPI v2, `pods/exec`, scale; following a log
//!   ends where the log ends now; a request without a token is the administrator's;
//! - field ownership: server-side apply merges, sees no conflicts, and removes nothing that an applier stops
//!   naming;
//! - admission by webhooks, ValidatingAdmissionPolicies (stored only), quota, Pod Security (a test's closure
//!   says what they refuse and add, see [`admission`]), priority classes (the two of the system are known by
//!   name); no API priority and fairness; no CEL cost limits; no multi-version conversion of custom
//!   resources;
//! - node authorizer: hollow nodes may do everything;
//! - watches of `events.k8s.io/v1` (they see nothing; those of `v1` see all Events);
//! - warnings in the header of an answer, as of unknown fields;
//! - taints by condition, taint-based eviction, node leases, heartbeats, graceful node shutdown; a node that
//!   is away shows as NotReady after a time that the test sets;
//! - rolling updates of Deployments, Indexed Jobs, TTL of finished Jobs, CronJobs, Services' endpoints,
//!   storage;
//! - sidecar containers, probes, resources (but for the number of pods on a node), cgroups, users: containers
//!   that are not the operator's are scripts;
//! - long back-offs: what takes seconds to minutes on a real cluster (restarts, Job retries) takes a fraction
//!   of one;
//! - the ten seconds for which a real server retries the eviction of a Pending pod under a wrong UID.

pub mod admission;
mod apply;
pub mod audit;
pub mod auth;
mod builder;
pub mod clock;
mod cluster;
mod control;
pub mod faults;
pub mod hollow;
mod in_process;
pub mod install;
pub mod json;
pub mod kinds;
mod kubeconfig;
pub mod meter;
pub mod server;
pub mod show;
pub mod store;
pub mod watch;

pub use admission::{Admission, Creation};
pub use audit::{Request, Right};
pub use builder::Builder;
pub use cluster::Cluster;
pub use faults::{Effect, Fault, Faults};
pub use hollow::{
    etcd::Tells,
    kairos,
    node::{Boot, Fate, Node},
    registry::{Registry, image_id},
    script::{Outcome, Run, Script},
};
pub use in_process::InProcess;
pub use store::{Change, ChangeKind};
