//! The way between the operator and the server: what it takes, what goes over it, and whose work is whose.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Frame, SizeHint},
};
use kairos_sim::{InProcess, meter, server::http::Body};
use kube::client::Body as Sent;
use tokio::time::{Instant, sleep};
use tower_service::Service;

/// One way between the operator and the server.
const LEG: Duration = Duration::from_millis(3);

/// Bytes of the objects whose status grows with the number of nodes.
#[derive(Debug, Default)]
pub struct Traffic {
    pub sent: AtomicU64,
    pub read: AtomicU64,
}

/// The server, at a distance, whose work is not the operator's: it is done by a task of its own, as it would
/// be elsewhere, and not while the operator is looked at.
#[derive(Clone)]
pub struct Line {
    pub server: InProcess,
    pub traffic: Arc<Traffic>,
    /// From when the time is counted with which each write is printed, if it is.
    pub told_since: Option<Instant>,
}

impl Service<Request<Sent>> for Line {
    type Response = Response<Counted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Counted>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        let (mut server, traffic) = (self.server.clone(), self.traffic.clone());
        let told_since = self.told_since;
        let answered = tokio::spawn(meter::metered(async move {
            let request = match told_since {
                Some(since) => told(request, since).await,
                None => request,
            };
            let counts = request.uri().path().contains("/nodeop");
            if counts {
                let size = request.body().size_hint().exact().unwrap_or_default();
                traffic.sent.fetch_add(size, Ordering::Relaxed);
            }
            sleep(LEG).await;
            let response = server.call(request).await?;
            sleep(LEG).await;
            Ok(response.map(|body| Counted { body, traffic: counts.then_some(traffic) }))
        }));
        // A request that is given up is not answered any more.
        let answered = Answered(answered);
        Box::pin(async move { answered.await.map_err(io::Error::other)? })
    }
}

/// A task that ends with whoever waits for it.
struct Answered<T>(tokio::task::JoinHandle<T>);

impl<T> Future for Answered<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Answered<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Prints a write, with what it sends.
async fn told(request: Request<Sent>, since: Instant) -> Request<Sent> {
    if request.method() == "GET" {
        return request;
    }
    let (head, body) = request.into_parts();
    let body = body.collect_bytes().await.expect("a body that is there already");
    let at = since.elapsed().as_secs_f64();
    println!("{at:>9.3} {} {} {}", head.method, head.uri.path(), String::from_utf8_lossy(&body));
    Request::from_parts(head, Sent::from(body))
}

/// An answer, or what a watch tells.
pub struct Counted {
    body: Body,
    traffic: Option<Arc<Traffic>>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = meter::call(|| Pin::new(&mut self.body).poll_frame(context));
        if let (Poll::Ready(Some(Ok(frame))), Some(traffic)) = (&frame, &self.traffic) {
            let size = frame.data_ref().map_or(0, Bytes::len);
            traffic.read.fetch_add(size as u64, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
