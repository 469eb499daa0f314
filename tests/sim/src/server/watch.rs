//! Watches: the log of one table, seen through a selector.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::stream::{self, Stream};
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Shared, State,
    error::{ApiError, ApiResult},
    read,
    request::{Query, Resource},
};
use crate::{
    json::{set, text},
    kinds::Kind,
    show::Form,
    store::{Change, ChangeKind, Object, Topic, selector::Selector},
    watch,
};

/// How often an idle watch tells its version.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long a watch lasts that does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// A watch that is being served.
#[derive(Debug)]
pub struct Watch {
    shared: Shared,
    kind: Arc<Kind>,
    selector: Selector,
    topic: Option<Topic>,
    form: Form,
    cursor: u64,
    /// The cursor as clients know it.
    revision: u64,
    queue: VecDeque<Bytes>,
    head: watch::Receiver<u64>,
    cuts: watch::Receiver<u64>,
    cuttable: bool,
    bookmarks: bool,
    end: Instant,
    over: bool,
}

impl Watch {
    /// Begins a watch. `cuts` ends it from outside.
    pub fn begin(
        shared: &Shared,
        kind: &Arc<Kind>,
        resource: &Resource,
        query: &Query,
        form: Form,
        cuttable: bool,
    ) -> ApiResult<Self> {
        let selector = read::selector(kind, resource, query)?;
        let timeout = query.number("timeoutSeconds")?.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let mut state = shared.lock();
        let (present, revision) = (state.store.version(), state.store.revision());
        // One that is still to come is waited for: nothing before it is told.
        let asked = query.number("resourceVersion")?.unwrap_or_default();
        let initial = query.flag("sendInitialEvents");
        let from_now = asked == 0 || initial;
        let topic = selector.topic();
        let mut watch = Self {
            shared: shared.clone(),
            kind: kind.clone(),
            form,
            cursor: if from_now { present } else { state.store.version_of(asked) },
            revision: if from_now { revision } else { asked },
            queue: VecDeque::new(),
            head: state.store.follow(kind.table(), topic.as_ref()),
            selector,
            topic,
            cuts: shared.faults.cuts(cuttable),
            cuttable,
            bookmarks: query.flag("allowWatchBookmarks"),
            end: Instant::now() + timeout,
            over: false,
        };
        if from_now && query.get("sendInitialEvents") != "false" {
            watch.send_present(&state, initial);
        }
        Ok(watch)
    }

    fn send_present(&mut self, state: &State, mark_end: bool) {
        let table = self.kind.table();
        for object in
            state.store.list(table, self.selector.namespace.as_deref()).filter(|o| self.selector.matches(o))
        {
            let event = self.event("ADDED", object, None);
            self.queue.push_back(event);
        }
        if mark_end {
            self.bookmark(true);
        }
    }

    /// The body of the answer.
    pub fn into_stream(self) -> impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> {
        stream::unfold(self, |mut watch| async move {
            watch.next().await.map(|bytes| (Ok(Frame::data(bytes)), watch))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.queue.pop_front() {
                return Some(bytes);
            }
            if self.over || !self.wait().await {
                return None;
            }
        }
    }

    /// Waits until there is something to send; false if the watch is over.
    async fn wait(&mut self) -> bool {
        let bookmark_at = Instant::now() + BOOKMARK_EVERY;
        if self.fill() {
            return true;
        }
        tokio::select! {
            biased;
            changed = self.head.changed() => {
                if changed.is_err() {
                    return false;
                }
                let delay = if self.cuttable { self.shared.faults.watch_delay() } else { Duration::ZERO };
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                self.fill();
            }
            // An error means that the switchboard is gone, with the cluster.
            _ = self.cuts.changed() => return false,
            () = tokio::time::sleep_until(self.end) => {
                self.over = true;
                self.bookmark(false);
            }
            () = tokio::time::sleep_until(bookmark_at) => self.bookmark(false),
        }
        true
    }

    /// Queues what happened since the last look; true if there was anything.
    fn fill(&mut self) -> bool {
        let changes = {
            let state = self.shared.lock();
            let changes = state.store.since(self.kind.table(), self.topic.as_ref(), self.cursor);
            if changes.is_some() && state.store.version() > self.cursor {
                (self.cursor, self.revision) = (state.store.version(), state.store.revision());
            }
            changes
        };
        let Some(changes) = changes else {
            let oldest = self.shared.lock().store.compacted();
            let gone =
                ApiError::expired(format!("too old resource version: {} ({oldest})", self.cursor)).status();
            self.queue.push_back(line(&json!({"type": "ERROR", "object": gone})));
            self.over = true;
            return true;
        };
        for change in changes {
            self.queue_change(&change);
        }
        !self.queue.is_empty()
    }

    fn queue_change(&mut self, change: &Change) {
        let was = change.before.as_ref().is_some_and(|o| self.selector.matches(o));
        let is = change.kind != ChangeKind::Deleted && self.selector.matches(&change.object);
        let event = match (was, is) {
            (false, true) => self.event("ADDED", &change.object, Some(change)),
            (true, true) => self.event("MODIFIED", &change.object, Some(change)),
            (true, false) if change.kind == ChangeKind::Deleted => {
                self.event("DELETED", &change.object, Some(change))
            }
            (true, false) => {
                // The object lives, but not for this watch: it gets the last version that it could see.
                let mut last = change.before.as_deref().cloned().unwrap_or_default();
                set(
                    &mut last,
                    "/metadata/resourceVersion",
                    text(&change.object, "/metadata/resourceVersion"),
                );
                self.event("DELETED", &Arc::new(last), None)
            }
            (false, false) => return,
        };
        if self.cuttable && self.shared.faults.take_duplicate() {
            self.queue.push_back(event.clone());
        }
        self.queue.push_back(event);
    }

    fn event(&self, kind: &str, object: &Object, change: Option<&Change>) -> Bytes {
        match (change, &self.form) {
            (Some(change), Form::Plain) => {
                let object = change.encoded();
                let mut bytes = Vec::with_capacity(object.len() + 40);
                bytes.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
                bytes.extend_from_slice(&object);
                bytes.extend_from_slice(b"}\n");
                bytes.into()
            }
            _ => line(&json!({"type": kind, "object": self.form.one(&self.kind, object)})),
        }
    }

    fn bookmark(&mut self, end_of_initial: bool) {
        if !self.bookmarks {
            return;
        }
        let revision = self.revision.to_string();
        let mut object = json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": {"resourceVersion": revision, "creationTimestamp": null}});
        if end_of_initial {
            set(&mut object, "/metadata/annotations/k8s.io~1initial-events-end", "true");
        }
        debug_assert!(!text(&object, "/kind").is_empty(), "a bookmark names its kind");
        self.queue.push_back(line(&json!({"type": "BOOKMARK", "object": object})));
    }
}

fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}
