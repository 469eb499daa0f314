//! What a cluster does not admit or adds to objects, by the word of a test: it stands for quota, limits, Pod
//! Security and webhooks.
//!
//! A rule is asked about every object that is created, whoever creates it: a client, with or without a dry
//! run, or the simulator's own Job controller.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;

/// An object that is about to be created.
#[derive(Clone, Copy, Debug)]
pub struct Creation<'a> {
    /// `pods`, `jobs.batch`, …
    pub table: &'a str,
    /// As it would be stored.
    pub object: &'a Value,
    /// It would not be stored in any case.
    pub dry_run: bool,
}

type Rule = Arc<dyn Fn(&Creation<'_>) -> Option<String> + Send + Sync>;
type Addition = Arc<dyn Fn(&str, &mut Value) + Send + Sync>;

/// The rules; clones share them.
#[derive(Clone, Default)]
pub struct Admission {
    rules: Arc<Mutex<Vec<Rule>>>,
    additions: Arc<Mutex<Vec<Addition>>>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl Admission {
    /// Adds a rule, which says why an object is refused, or nothing.
    pub fn refuse(&self, rule: impl Fn(&Creation<'_>) -> Option<String> + Send + Sync + 'static) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(rule));
    }

    /// Changes every object of any table before it is created.
    pub fn mutate(&self, addition: impl Fn(&str, &mut Value) + Send + Sync + 'static) {
        self.additions.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(addition));
    }

    /// Makes all additions to a new object.
    pub fn add(&self, table: &str, object: &mut Value) {
        let additions = self.additions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        additions.iter().for_each(|addition| addition(table, object));
    }

    /// Takes all rules and additions away.
    pub fn clear(&self) {
        self.additions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Why an object is refused.
    pub fn refusal(&self, creation: &Creation<'_>) -> Option<String> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        rules.iter().find_map(|rule| rule(creation))
    }
}
