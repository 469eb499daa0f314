//! Node operations for Kubernetes: observe the cluster, plan without touching it, render what the plan needs,
//! act; small applets on the node do the rest.
//!
//! ```text
//!              watch                Snapshot           Plan{actions, questions, waiting}            objects
//!  Kubernetes ───────▶ observe ───────────────▶ plan ──────────────────────────────────▶ act ◀──── render
//!      ▲                                          │                                       │
//!      └──────────── status (messages, phases) ◀──┴────────────── creates, patches ◀──────┘
//!                                                                                         │ Job or pod: the same binary,
//!                                                                                         ▼ another applet
//!                             on the node:  install ─▶ upgrade ─▶ sentinel ─▶ reboot-waiter   node-lock   node-labeler
//! ```
//!
//! # The protocol, on one page
//!
//! The operator may be killed between any two requests, its caches lag, and two operators may both believe
//! that they lead. So the way of a node is a chain of records, each of which can be found again by whoever
//! comes next, and each of which is written before what follows from it is done:
//!
//! | record | where | what follows from it | if the operator dies here |
//! |---|---|---|---|
//! | 1. intent: the node's entry says `Claim` | the NodeOp's status, at its resourceVersion | the node is claimed and cordoned | the entry says that the node may be ours; the next leader claims it, or gives it back |
//! | 2. claim: `claimed-by` names the NodeOp's UID, `cordoned-by` too if it was us who cordoned it | the Node, at its resourceVersion, in one patch | its waiter starts, and then its pods are evicted | the claim keeps all others off, and tells whose it is: it is finished, or released |
//! | 3. a Job, suspended, whose name stands in the status | the API server | its UID is read | a suspended Job runs nothing: it is found under its name, or made again |
//! | 4. the Job's UID | the status | the Job is resumed | the Job is ours by that UID and no other, so none can be run twice; it is resumed |
//! | 5. the sentinel: a file that names the Job and the present boot id | the node, written by the Job after the command's success | the waiter reboots the node, once the Job is `Complete` | nothing is needed of it: the waiter reads the file, and asks the API server about the Job |
//! | 6. the boot id of the success | the status | another boot id is waited for, and Ready | it is read from the Job's pod again |
//! | 7. another boot id, seen live | the Node | the reboot is proved; for an upgrade, what the node runs is read | it is seen again |
//! | 8. the end, `Completed` or `Failed` | the status | claim and cordon are taken off, the waiter is deleted | a node with a claim of a finished entry is released by a sweep over all nodes |
//!
//! Three rules make it hold. *Status before action*: what cannot be found again is recorded first. *Absence
//! in a cache proves nothing*: what depends on an absence is a [`Question`](plan::model::question::Question),
//! answered by a live read, and its answer lives for one plan. *A reboot is due* if and only if the sentinel
//! of the waiter's own Job names the boot that the node is still in, and a live read shows that Job
//! `Complete`: it cannot come twice, for a reboot changes the boot id, and not unasked, for nobody else
//! writes that file. (Once record 6 stands, a waiter that is made anew is told of it, and needs neither: a
//! Job may be deleted at any time.) Only while another control-plane node is away is the reboot of one held
//! back: its waiter is ended, and made anew when the others are well. And whatever runs on a node holds that
//! node's lock ([`node::lock`]), so that no two operations do, whatever became of their pods.
//! [`node::reboot_waiter`] has the table of what happens when the power fails after each of its lines.
//!
//! # The planner, tried
//!
//! [`plan::plan`] is a function of its argument: no client, no clock, no randomness. One node and one
//! operation:
//!
//! ```
//! use std::sync::Arc;
//! use kairos_operator::plan::{self, model::{question::Answer, snapshot::{NodeView, Snapshot}}};
//!
//! let meta = serde_json::json!({"name": "uptime", "namespace": "default", "uid": "1"});
//! let op = serde_json::from_value(serde_json::json!({"metadata": meta, "spec": {"command": ["uptime"]}}))?;
//! let node = NodeView { name: "n1".into(), uid: "2".into(), ready: true, ..NodeView::default() };
//! let snapshot = Snapshot {
//!     nodes: [("n1".into(), Arc::new(node))].into(),
//!     ops: [(("default".into(), "uptime".into()), Arc::new(op))].into(),
//!     ..Snapshot::default()
//! };
//! // Whether anything of the operation is there already, no cache proves: it is to be read live.
//! let plan = plan::plan(&snapshot);
//! assert!(plan.actions.is_empty() && plan.questions.len() == 1, "{:?}", plan.questions);
//!
//! // With the answer, nothing is done to the node yet. First it is recorded which nodes the operation is about.
//! let answers = plan.questions.into_iter().map(|question| (question, Answer::Found)).collect();
//! let plan = plan::plan(&Snapshot { answers, ..snapshot });
//! assert!(plan.actions[0].to_string().contains("the status of NodeOp default/uptime"), "{:?}", plan.actions);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # In which order to read
//!
//! 1. [`api`]: what users write, and what they read. `docs/reference.md` is printed from it.
//! 2. [`contract`]: what controller and applets agree on; both ends are in this crate.
//! 3. [`plan`]: the decisions. Its header says in which order to read them.
//! 4. [`observe`], [`render`], [`act`]: where the snapshot comes from, and what becomes of the plan.
//! 5. [`controllers`]: the loop around it, leader election, probes.
//! 6. [`node`]: the applets, the other end of the contract. [`node::reboot_waiter`] is the one to begin with.
//! 7. [`manifests`]: what is installed, printed from the code.
//! 8. `plugin`: `kubectl kairos`, a binary of its own, with the feature of that name.
//! 9. [`cli`]: from `argv` to an applet; [`telemetry`]: logs, and the termination messages of applets.
//!
//! `tests/it/tidy` holds the walls between these modules: each may use those above it that it names, and
//! no others. `tests/README.md` says which kind of test finds what, and `.github/CONTRIBUTING.md` where a
//! change goes.

pub mod contract;

pub mod telemetry;

pub mod api;

pub mod plan;

pub mod observe;

pub mod render;

pub mod act;

pub mod controllers;

pub mod node;

pub mod manifests;

#[cfg(feature = "plugin")]
pub mod plugin;

pub mod cli;
