//! The API server: HTTP in front, and behind it one state that is read and written under one lock.
//!
//! Every write is a synchronous function on [`State`], so a request is as atomic as a transaction of etcd,
//! and the controllers use the same functions as clients do.

pub mod delete;
pub mod error;
pub mod events;
pub mod evict;
pub mod handle;
pub mod http;
pub mod logs;
pub mod patch;
mod protobuf;
pub mod read;
pub mod request;
pub mod strategic;
pub mod watch;
pub mod write;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{admission::Admission, audit, auth::Users, faults::Faults, kinds::Registry, store::Store};

/// Everything that the server knows.
#[derive(Debug)]
pub struct State {
    /// All objects.
    pub store: Store,
    /// All resources.
    pub registry: Registry,
    /// Who may ask, and with which token.
    pub users: Users,
    /// What was asked.
    pub audit: Vec<audit::Request>,
    /// Which rights were used.
    pub rights: BTreeSet<audit::Right>,
    /// Source of UIDs, name suffixes and tokens.
    pub random: fastrand::Rng,
    /// Whether RBAC is enforced.
    pub rbac: bool,
    /// What is not admitted.
    pub admission: Admission,
    /// Where the nodes' files are, and among them what containers print.
    pub nodes: Option<PathBuf>,
}

impl State {
    fn new(seed: u64, rbac: bool, history: usize) -> Self {
        let mut state = Self {
            store: Store::new(history),
            registry: Registry::builtin(),
            users: Users::default(),
            audit: Vec::new(),
            rights: BTreeSet::new(),
            random: fastrand::Rng::with_seed(seed),
            rbac,
            admission: Admission::default(),
            nodes: None,
        };
        for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let object = json!({"metadata": {"name": namespace, "labels": {"kubernetes.io/metadata.name": namespace}}});
            state.seed("", "v1", "namespaces", object);
        }
        let service = json!({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
        state.seed("", "v1", "services", service);
        crate::auth::rbac::seed(&mut state);
        state
    }

    /// Stores an object that a cluster has from its birth.
    pub fn seed(&mut self, group: &str, version: &str, plural: &str, object: Value) {
        if let Some(kind) = self.registry.find(group, version, plural)
            && let Err(error) = self.insert(&kind, object, write::Options::default())
        {
            tracing::warn!(?error, plural, "cannot seed an object");
        }
    }

    /// A UID that is new, and the same in every run of one seed.
    pub fn uid(&mut self) -> String {
        let (a, b) = (self.random.u64(..), self.random.u64(..));
        let (a, b) = (format!("{a:016x}"), format!("{b:016x}"));
        format!("{}-{}-4{}-8{}-{}", &a[..8], &a[8..12], &a[13..], &b[1..4], &b[4..])
    }

    /// A suffix for `generateName`.
    pub fn suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5).map(|_| char::from(LETTERS[self.random.usize(..LETTERS.len())])).collect()
    }
}

/// The present time as Kubernetes writes it: whole seconds.
pub fn now() -> String {
    crate::clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The state, the faults before it and the clock beside it, shared by connections and controllers.
#[derive(Clone, Debug)]
pub struct Shared {
    state: Arc<Mutex<State>>,
    /// Faults on demand.
    pub faults: Faults,
    started: Instant,
}

impl Shared {
    /// A server's state as it is at its start.
    pub fn new(seed: u64, rbac: bool, history: usize) -> Self {
        let state = State::new(seed, rbac, history);
        Self { state: Arc::new(Mutex::new(state)), faults: Faults::default(), started: Instant::now() }
    }

    /// Everything, for a moment: never hold it across an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}
