//! Large answers of the API server, one at a time.
//!
//! How large an object is that we read, somebody else decides: whoever may make pods, or has the credentials
//! of a node. It may be a megabyte and a half, of which each `<` is six characters in JSON, and the client
//! has an answer in memory twice before it is parsed. So no page of a list is larger than [`PAGE`] bytes,
//! unless one object is: a larger one is given up half-way and asked for a few objects at a time, or one. And
//! this bounds what all requests together bring, whoever asks and of however many nodes: of each answer the
//! first [`FREE`] bytes are read in any case, and what is beyond them of one answer alone: the others wait in
//! the network, and with the server. In a watch, each event counts as an answer, and a large one is its last:
//! the client keeps the room that it needed for as long as the watch lasts. So a pod of any size costs time,
//! and no memory.
//!
//! Nothing that decides about leadership waits here: neither writes, nor Leases, nor what users write into
//! objects of our own kinds. Whoever waits holds nothing that another one needs, and his own limits of time
//! go on meanwhile. An answer that does not come to its end is given up.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame},
};
use kube::{Client, client::Body};
use tokio::{
    runtime::Handle,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tower_service::Service;

use super::list_pages;
use crate::api::names;

/// Bytes of an answer, or of an event, that are read in any case: a page of usual pods is a third of it. A
/// hundred answers of so much at once are 25 MB of our 64, since each is in memory twice.
const FREE: usize = 128 * 1024;
/// Bytes of a page of several objects: with what the client makes of it, an eighth of our 64 MiB. Fifty usual
/// Nodes are half of it.
const PAGE: usize = 4 * 1024 * 1024;
/// How long one may take beyond that: 18 MB take a second or two where the network is slow. An API server
/// that stops in the middle of an answer must not keep all others from theirs.
const MOST: Duration = Duration::from_secs(30);
/// How long the place is kept beyond an answer's end for each mebibyte of it. kube's client copies and parses
/// it then, and says nobody when it has: that takes some 10 ms, and longer where our CPU time is limited.
const PARSED_IN: Duration = Duration::from_millis(40);

/// A client that does what this one does, and reads one large answer at a time.
pub fn one_at_a_time(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(LargeAnswers { client, place: Arc::new(Semaphore::new(1)) }, namespace)
}

/// A client's requests, as a service for another one.
#[derive(Clone)]
struct LargeAnswers {
    client: Client,
    place: Arc<Semaphore>,
}

impl Service<Request<Body>> for LargeAnswers {
    type Response = Response<Answer>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = kube::Result<Response<Answer>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<kube::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { client, place } = self.clone();
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
        let counts = *request.method() == Method::GET && is_of_strangers(request.uri().path());
        let place = counts.then_some(place);
        let smaller = if counts && !is_watch { list_pages::smaller(&request) } else { Vec::new() };
        Box::pin(async move {
            let answer = |body| Answer::new(body, is_watch, place.clone());
            let mut request = request;
            for next in smaller {
                let mut page = list_pages::send(&client, request).await?.map(answer);
                if page.body_mut().read_ahead().await? {
                    return Ok(page);
                }
                request = next;
            }
            Ok(list_pages::send(&client, request).await?.map(answer))
        })
    }
}

/// Whether objects of this path are written by others than us and those who may make operations.
fn is_of_strangers(path: &str) -> bool {
    let group = path.strip_prefix("/apis/").and_then(|rest| rest.split('/').next());
    !matches!(group, Some(names::GROUP | "coordination.k8s.io"))
}

type Asks = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// An answer's body, of which no more is read than may be.
struct Answer {
    body: Body,
    /// What was read of it, and not handed on yet.
    ahead: VecDeque<Bytes>,
    is_watch: bool,
    /// Nothing where the size does not matter.
    place: Option<Arc<Semaphore>>,
    /// That were read of the answer, or of the event that is under way.
    bytes: usize,
    asks: Option<Asks>,
    has: Option<Place>,
    /// A watch that ends here, though the server has more: it is asked for again from where it was.
    is_over: bool,
}

/// The one place for large answers.
struct Place {
    permit: OwnedSemaphorePermit,
    until: Pin<Box<Sleep>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Answer {
    fn new(body: Body, is_watch: bool, place: Option<Arc<Semaphore>>) -> Self {
        let ahead = VecDeque::new();
        Self { body, ahead, is_watch, place, bytes: 0, asks: None, has: None, is_over: false }
    }

    /// Reads the whole page before anything of it is handed on, unless it is too large.
    async fn read_ahead(&mut self) -> kube::Result<bool> {
        let mut ahead = VecDeque::new();
        while let Some(frame) = self.frame().await {
            ahead.extend(frame?.into_data());
            if self.bytes > PAGE {
                // Nobody is going to parse it.
                self.has = None;
                return Ok(false);
            }
        }
        self.ahead = ahead;
        Ok(true)
    }

    /// Counts what was read, and returns how much of it is handed on: a watch ends with a large event.
    fn read(&mut self, data: &[u8]) -> usize {
        let end = if self.is_watch { data.iter().rposition(|byte| *byte == b'\n') } else { None };
        let Some(end) = end.map(|at| at + 1) else {
            self.bytes += data.len();
            return data.len();
        };
        self.bytes += end;
        self.is_over = self.place.is_some() && self.bytes > FREE;
        self.leave();
        self.bytes = data.len() - end;
        if self.is_over { end } else { data.len() }
    }

    /// Gives the place back once what was read is parsed.
    fn leave(&mut self) {
        self.asks = None;
        let Some(Place { permit, until: _ }) = self.has.take() else { return };
        let mebibytes = u32::try_from(self.bytes >> 20).unwrap_or(u32::MAX).saturating_add(1);
        // Without a runtime the process ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                sleep(PARSED_IN.saturating_mul(mebibytes)).await;
                drop(permit);
            });
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.leave();
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = kube::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, kube::Error>>> {
        let this = self.get_mut();
        if let Some(data) = this.ahead.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if this.is_over {
            return Poll::Ready(None);
        }
        if let Some(place) = this.place.as_ref().filter(|_| this.bytes > FREE && this.has.is_none()) {
            let asks = this.asks.get_or_insert_with(|| Box::pin(place.clone().acquire_owned()));
            // An error means that nobody hands out places any more.
            if let Ok(permit) = ready!(asks.as_mut().poll(context)) {
                this.has = Some(Place { permit, until: Box::pin(sleep(MOST)) });
            }
            this.asks = None;
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    let read = this.read(&data);
                    Some(Ok(Frame::data(data.slice(..read))))
                }
                Some(Ok(Err(trailers))) => Some(Ok(trailers)),
                // Whoever watches asks again after a pause, and may not drop this one before.
                Some(Err(error)) => {
                    this.leave();
                    Some(Err(error))
                }
                None => {
                    this.is_over = true;
                    this.leave();
                    None
                }
            });
        }
        let late = this.has.as_mut().is_some_and(|has| has.until.as_mut().poll(context).is_ready());
        if late {
            this.leave();
            let why = format!("a large answer did not come to its end within {} s", MOST.as_secs());
            return Poll::Ready(Some(Err(kube::Error::Service(why.into()))));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
