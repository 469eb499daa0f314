//! Faults on demand: what goes wrong between a client and the API.
//!
//! What admission refuses, quota, Pod Security or a webhook, is no fault between the two: see
//! [`crate::admission`].
//!
//! A fault is armed for the next requests that it matches, or for a time. The simulator's own clients (hollow
//! nodes and the test's client) are spared unless a fault names them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use regex::Regex;
use tokio::time::Instant;

use crate::watch;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is refused with this status; nothing is applied.
    Refuse(u16),
    /// The connection is dropped; nothing is applied.
    Drop,
    /// It is applied, and the connection is dropped instead of an answer.
    ApplyAndDrop,
    /// It is answered later than it would be.
    Delay(Duration),
    /// It is never answered, and not applied.
    Hang,
}

/// Which requests are hit, how, and how many.
#[derive(Clone, Debug)]
pub struct Fault {
    verb: String,
    resource: String,
    name: Option<Regex>,
    user: Option<Regex>,
    effect: Effect,
    words: Option<String>,
    skip: usize,
    times: usize,
}

impl Fault {
    /// Hits the next request of this verb (`*`: any, `write`: any that changes something) on this resource
    /// (`*`: any).
    pub fn on(verb: &str, resource: &str, effect: Effect) -> Self {
        Self {
            verb: verb.into(),
            resource: resource.into(),
            name: None,
            user: None,
            effect,
            words: None,
            skip: 0,
            times: 1,
        }
    }

    /// Only requests for a name that this expression finds. An expression that is none matches nothing.
    #[must_use]
    pub fn named(mut self, pattern: &str) -> Self {
        self.name = Some(expression(pattern));
        self
    }

    /// Only requests of users that this expression finds; this also reaches the simulator's own clients.
    #[must_use]
    pub fn by(mut self, pattern: &str) -> Self {
        self.user = Some(expression(pattern));
        self
    }

    /// A refusal says this.
    #[must_use]
    pub fn saying(mut self, words: &str) -> Self {
        self.words = Some(words.into());
        self
    }

    /// The next `n` of them.
    #[must_use]
    pub fn times(mut self, n: usize) -> Self {
        self.times = n;
        self
    }

    /// After letting `n` of them pass.
    #[must_use]
    pub fn after(mut self, n: usize) -> Self {
        self.skip = n;
        self
    }

    /// All of them, until the faults are cleared.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    fn hits(&self, verb: &str, resource: &str, name: &str, user: &str) -> bool {
        let writes = matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection");
        (self.verb == "*" || self.verb == verb || (self.verb == "write" && writes))
            && (self.resource == "*" || self.resource == resource)
            && self.name.as_ref().is_none_or(|pattern| pattern.is_match(name))
            && self.user.as_ref().map_or_else(|| !is_ours(user), |pattern| pattern.is_match(user))
    }
}

fn expression(pattern: &str) -> Regex {
    // A class that holds no character: it stands for an expression that could not be read.
    Regex::new(pattern).unwrap_or_else(|_| nothing())
}

#[expect(clippy::expect_used, reason = "the expression is a constant")]
fn nothing() -> Regex {
    Regex::new("[^\\s\\S]").expect("an empty class")
}

/// Users of the simulator itself.
pub fn is_ours(user: &str) -> bool {
    user == crate::auth::TEST_USER || user.starts_with("system:node:")
}

#[derive(Debug, Default)]
struct Armed {
    faults: Vec<Fault>,
    away_until: Option<Instant>,
    duplicates: usize,
    watch_delay: Duration,
}

/// The switchboard; clones share it.
#[derive(Clone, Debug)]
pub struct Faults {
    armed: Arc<Mutex<Armed>>,
    cut: watch::Sender<u64>,
    cut_all: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { armed: Arc::default(), cut: watch::channel(0).0, cut_all: watch::channel(0).0 }
    }
}

impl Faults {
    /// Arms a fault. The earliest armed one that matches a request is used.
    pub fn arm(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Disarms everything.
    pub fn clear(&self) {
        *self.lock() = Armed::default();
    }

    /// The whole API is away for a time: connections are dropped, watches end. The simulator's own clients go
    /// on.
    pub fn away(&self, time: Duration) {
        self.lock().away_until = Some(Instant::now() + time);
        self.close_watches();
    }

    /// Ends all watches of clients that are not the simulator's own, without a word.
    pub fn close_watches(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Ends all watches, the simulator's own too, as a server that starts anew does.
    pub(crate) fn close_all_watches(&self) {
        self.cut_all.send_modify(|count| *count += 1);
        self.close_watches();
    }

    /// Sends each of the next `n` watch events twice.
    pub fn duplicate_events(&self, n: usize) {
        self.lock().duplicates = n;
    }

    /// Delivers watch events later by `delay`, so that caches are stale.
    pub fn delay_events(&self, delay: Duration) {
        self.lock().watch_delay = delay;
    }

    pub(crate) fn take(
        &self,
        verb: &str,
        resource: &str,
        name: &str,
        user: &str,
    ) -> Option<(Effect, Option<String>)> {
        let mut armed = self.lock();
        if !is_ours(user) && armed.away_until.is_some_and(|until| Instant::now() < until) {
            return Some((Effect::Drop, None));
        }
        let at = armed
            .faults
            .iter()
            .position(|fault| fault.times > 0 && fault.hits(verb, resource, name, user))?;
        let fault = armed.faults.get_mut(at)?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        if fault.times != usize::MAX {
            fault.times -= 1;
        }
        Some((fault.effect, fault.words.clone()))
    }

    /// What ends a watch: of a client that faults may hit, or of any.
    pub(crate) fn cuts(&self, cuttable: bool) -> watch::Receiver<u64> {
        if cuttable { self.cut.subscribe() } else { self.cut_all.subscribe() }
    }

    pub(crate) fn take_duplicate(&self) -> bool {
        let mut armed = self.lock();
        let twice = armed.duplicates > 0;
        armed.duplicates = armed.duplicates.saturating_sub(1);
        twice
    }

    pub(crate) fn watch_delay(&self) -> Duration {
        self.lock().watch_delay
    }

    fn lock(&self) -> MutexGuard<'_, Armed> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
