//! Large answers of the API server, one at a time.
//!
//! How large an object is that we read, somebody else decides: whoever may make pods, or has the credentials
//! of a node. It may be a megabyte and a half, of which each `<` is six characters in JSON, and the client
//! has an answer in memory twice before it is parsed. Pages and partial types bound what one request brings;
//! this bounds what all requests together do, whoever asks and of however many nodes. Of each answer the
//! first [`FREE`] bytes are read in any case, and what is beyond them of one answer alone: the others wait in
//! the network, and with the server. In a watch, each event counts as an answer. So a pod of any size costs
//! time, and no memory.
//!
//! Nothing that decides about leadership waits here: neither writes, nor Leases, nor what users write into
//! objects of our own kinds. Whoever waits holds nothing that another one needs, and his own limits of time
//! go on meanwhile. An answer that does not come to its end is given up.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

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

use super::later_pages;
use crate::api::names;

/// Bytes of an answer, or of an event, that are read in any case: a page of usual pods is a third of it. A
/// hundred answers of so much at once are 25 MB of our 64, since each is in memory twice.
const FREE: usize = 128 * 1024;
/// How long one may take beyond that: 18 MB take a second or two where the network is slow. An API server
/// that stops in the middle of an answer must not keep all others from theirs.
const MOST: Duration = Duration::from_secs(30);
/// How long the place is kept beyond an answer's end for each mebibyte of it. kube's client copies and parses
/// it then, and says nobody when it has: that takes some 10 ms, and longer where our CPU time is limited.
const PARSED_IN: Duration = Duration::from_millis(40);

/// The same client, which reads one large answer at a time.
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
        Box::pin(async move {
            let answer = later_pages::send(&client, request).await?;
            Ok(answer.map(|body| Answer {
                body,
                is_watch,
                place: counts.then_some(place),
                bytes: 0,
                asks: None,
                has: None,
            }))
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
    is_watch: bool,
    /// Nothing where the size does not matter.
    place: Option<Arc<Semaphore>>,
    /// That were read of the answer, or of the event that is under way.
    bytes: usize,
    asks: Option<Asks>,
    has: Option<Place>,
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
    fn read(&mut self, data: &[u8]) {
        let end = if self.is_watch { data.iter().rposition(|byte| *byte == b'\n') } else { None };
        match end {
            Some(at) => {
                self.bytes += at;
                self.leave();
                self.bytes = data.len() - at - 1;
            }
            None => self.bytes += data.len(),
        }
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
        if let Some(place) = this.place.as_ref().filter(|_| this.bytes > FREE && this.has.is_none()) {
            let asks = this.asks.get_or_insert_with(|| Box::pin(place.clone().acquire_owned()));
            // An error means that nobody hands out places any more.
            if let Ok(permit) = ready!(asks.as_mut().poll(context)) {
                this.has = Some(Place { permit, until: Box::pin(sleep(MOST)) });
            }
            this.asks = None;
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            match &frame {
                Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| this.read(data)),
                // Whoever watches asks again after a pause, and may not drop this one before.
                Some(Err(_)) | None => this.leave(),
            }
            return Poll::Ready(frame);
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
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };

    use futures::{StreamExt, future::join_all, stream};
    use http_body_util::StreamBody;
    use k8s_openapi::api::coordination::v1::Lease;
    use kube::{
        Api,
        api::{ListParams, WatchEvent, WatchParams},
    };
    use serde_json::json;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::api::{node::Node, pod::Pod};

    /// Bytes that come at once.
    const PIECE: usize = 32 * 1024;

    /// An API server that answers piece by piece, and how many answers are read beyond what is free at once.
    #[derive(Clone, Default)]
    struct Slow {
        size: usize,
        /// Answers that stop after so many pieces.
        stuck: Arc<Mutex<Option<usize>>>,
        under_way: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    /// One that is under way.
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }

    impl Slow {
        fn answer(&self, uri: &hyper::Uri) -> String {
            let text = "x".repeat(self.size);
            let pod = json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "1", "annotations": {"a": text}}});
            match uri.path() {
                path if path.ends_with("/leases/l") => json!({"metadata": {"name": "l"}}).to_string(),
                path if path.ends_with("/nodes/n1") => json!({"metadata": {"name": "n1"}}).to_string(),
                _ if uri.query().is_some_and(|query| query.contains("watch=true")) => {
                    format!("{}\n", json!({"type": "MODIFIED", "object": pod})).repeat(3)
                }
                _ => json!({"metadata": {}, "items": [pod]}).to_string(),
            }
        }
    }

    impl Service<Request<Body>> for Slow {
        type Response = Response<StreamBody<Pieces>>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let answer = Bytes::from(self.answer(request.uri()));
            let stuck = self.stuck.lock().unwrap().take();
            let (under_way, most) = (self.under_way.clone(), self.most.clone());
            let pieces = stream::unfold((0, None), move |(number, mut counted)| {
                let (answer, under_way, most) = (answer.clone(), under_way.clone(), most.clone());
                async move {
                    sleep(Duration::from_millis(1)).await;
                    if stuck == Some(number) {
                        std::future::pending::<()>().await;
                    }
                    let (from, to) = (number * PIECE, ((number + 1) * PIECE).min(answer.len()));
                    if from > FREE + PIECE && counted.is_none() {
                        most.fetch_max(under_way.fetch_add(1, Relaxed) + 1, Relaxed);
                        counted = Some(Counted(under_way));
                    }
                    (from < to).then(|| (Ok(Frame::data(answer.slice(from..to))), (number + 1, counted)))
                }
            });
            Box::pin(async move { Ok(Response::new(StreamBody::new(pieces.boxed()))) })
        }
    }

    type Pieces = Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

    fn client(server: &Slow) -> Client {
        one_at_a_time(Client::new(server.clone(), "default"))
    }

    /// A drain of twenty nodes, on each of which somebody has put a large pod.
    #[tokio::test(start_paused = true)]
    async fn of_large_answers_one_alone_is_read_beyond_the_beginning() {
        let server = Slow { size: 40 * PIECE, ..Slow::default() };
        let pods = Api::<Pod>::all(client(&server));
        let params = ListParams::default();
        let lists = join_all((0..20).map(|_| pods.list(&params))).await;
        assert!(lists.iter().all(|list| list.as_ref().is_ok_and(|list| list.items.len() == 1)), "{lists:?}");
        assert_eq!(server.most.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn usual_answers_leases_and_writes_do_not_wait_for_a_large_one() {
        let server = Slow { size: 40 * PIECE, ..Slow::default() };
        let client = client(&server);
        *server.stuck.lock().unwrap() = Some(20);
        let pods = Api::<Pod>::all(client.clone());
        let large = tokio::spawn({
            let pods = pods.clone();
            async move { pods.list(&ListParams::default()).await }
        });
        sleep(Duration::from_secs(1)).await;
        let second = Duration::from_secs(1);
        let lease = Api::<Lease>::default_namespaced(client.clone());
        timeout(second, lease.get("l")).await.unwrap().unwrap();
        timeout(second, Api::<Node>::all(client.clone()).get("n1")).await.unwrap().unwrap();
        let (began, params) = (Instant::now(), ListParams::default());
        assert!(timeout(second, pods.list(&params)).await.is_err(), "another large one waits");
        let error = large.await.unwrap().unwrap_err();
        assert!(crate::act::error_message(&error.into()).ends_with("did not come to its end within 30 s"));
        assert_eq!(pods.list(&params).await.unwrap().items.len(), 1, "and is read then");
        assert!(began.elapsed() < MOST + second * 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_of_a_watch_is_an_answer_of_its_own() {
        let server = Slow { size: 40 * PIECE, ..Slow::default() };
        let pods = Api::<Pod>::all(client(&server));
        let watched = join_all((0..5).map(|_| async {
            let events = pods.watch(&WatchParams::default(), "0").await.unwrap();
            events
                .filter(|event| std::future::ready(matches!(event, Ok(WatchEvent::Modified(_)))))
                .count()
                .await
        }));
        assert_eq!(watched.await, [3; 5]);
    }

    #[test]
    fn what_decides_about_leadership_and_what_users_ask_of_us_is_not_of_strangers() {
        for (path, expected) in [
            ("/api/v1/pods", true),
            ("/api/v1/nodes/n1", true),
            ("/apis/batch/v1/namespaces/ns/jobs", true),
            ("/apis/coordination.k8s.io/v1/namespaces/ns/leases/l", false),
            ("/apis/operator.kairos.io/v1alpha1/nodeops", false),
        ] {
            assert_eq!(is_of_strangers(path), expected, "{path}");
        }
    }
}
