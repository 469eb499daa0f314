//! What a cluster does not admit, by the word of a test: it stands for quota, limits, Pod Security and webhooks.
//!
//! A rule is asked about every object that is created, whoever creates it: a client, with or without a dry run, or the
//! simulator's own Job controller.

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

/// The rules; clones share them.
#[derive(Clone, Default)]
pub struct Admission {
    rules: Arc<Mutex<Vec<Rule>>>,
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

    /// Takes all rules away.
    pub fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Why an object is refused.
    pub fn refusal(&self, creation: &Creation<'_>) -> Option<String> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        rules.iter().find_map(|rule| rule(creation))
    }
}
