//! An API server whose answers are large, slow, or stop half-way.

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
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::*;
use crate::api::{node::Node, pages, pod::Pod};

/// Bytes that come at once.
const PIECE: usize = 32 * 1024;

/// An API server that answers piece by piece, and how many answers are read beyond what is free at once.
#[derive(Clone, Default)]
struct Slow {
    size: usize,
    /// The number of pieces after which an answer stops.
    stuck: Arc<Mutex<Option<usize>>>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// What the lists were asked for, and in which pages.
    asked: Arc<Mutex<Vec<String>>>,
}

/// Pods of a list that is asked for in pages.
const PODS: usize = 9;

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
            _ if uri.query().is_some_and(|query| query.contains("limit=")) => {
                self.page(uri.query().unwrap(), &pod)
            }
            _ => json!({"metadata": {}, "items": [pod]}).to_string(),
        }
    }
}

impl Slow {
    /// Where a list stands is how many were read.
    fn page(&self, query: &str, pod: &Value) -> String {
        self.asked.lock().unwrap().push(query.trim_start_matches(['?', '&']).to_owned());
        let number = |name: &str| {
            let value = query.split('&').find_map(|part| part.trim_start_matches('?').strip_prefix(name));
            value.map_or(0, |value| value.parse::<usize>().unwrap())
        };
        let (from, limit) = (number("continue="), number("limit="));
        let to = PODS.min(from + limit);
        let token = if to < PODS { to.to_string() } else { String::new() };
        json!({"metadata": {"continue": token}, "items": vec![pod; to - from]}).to_string()
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

/// Fifty pods of nine megabytes would be more than all our memory.
#[tokio::test(start_paused = true)]
async fn a_page_that_is_too_large_is_read_in_smaller_ones_and_the_next_as_it_was_asked_for() {
    for (size, pages) in [
        (PAGE / 16, vec!["limit=9"]),
        // Six of them fit.
        (PAGE / 7, vec!["limit=9", "limit=6", "limit=9&continue=6"]),
        (
            PAGE / 2,
            vec![
                "limit=9",
                "limit=6",
                "limit=1",
                "limit=9&continue=1",
                "limit=6&continue=1",
                "limit=1&continue=1",
            ],
        ),
    ] {
        let server = Slow { size, ..Slow::default() };
        let pods = Api::<Pod>::all(client(&server));
        let (mut page, mut read) = (Some(ListParams::default().limit(9)), 0);
        while let Some(params) = page {
            let list = pods.list(&params).await.unwrap();
            read += list.items.len();
            page = pages::after(params, list.metadata);
        }
        let asked = server.asked.lock().unwrap();
        assert_eq!(
            (read, &asked[..pages.len()]),
            (PODS, &pages.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
            "{size}"
        );
        assert!(server.most.load(Relaxed) < 2);
    }
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
async fn each_event_of_a_watch_is_an_answer_of_its_own_and_a_large_one_its_last() {
    for (size, events) in [(3 * PIECE, 3), (40 * PIECE, 1)] {
        let server = Slow { size, ..Slow::default() };
        let pods = Api::<Pod>::all(client(&server));
        let watched = join_all((0..5).map(|_| async {
            let events = pods.watch(&WatchParams::default(), "0").await.unwrap();
            events
                .map(|event| assert!(matches!(event, Ok(WatchEvent::Modified(_))), "{event:?}"))
                .count()
                .await
        }));
        assert_eq!(watched.await, [events; 5], "{size}");
    }
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
