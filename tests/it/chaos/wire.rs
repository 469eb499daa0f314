//! The way between a client and the API server: everything that can go wrong on it, by a seed.
//!
//! A request that is on its way goes on without its sender: an operator that is killed, or has given up
//! waiting, does not stop what it sent.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame},
};
use kairos_sim::{InProcess, meter, server::http::Body, watch};
use kube::client::Body as Sent;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tower_service::Service;

use super::{
    watched::Watch,
    world::World,
    worlds::{self, Kind},
};

/// After this time without a byte the client's connection breaks (kube's default).
pub const READ_TIMEOUT: Duration = Duration::from_secs(295);

/// How bad it is, in chances of a thousand, at each request or watch event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    pub refused: u32,
    pub dropped: u32,
    pub unanswered: u32,
    pub late: u32,
    pub killed: u32,
    pub watch_cut: u32,
    pub watch_stalled: u32,
    pub watch_repeated: u32,
    /// A human cordons or uncordons the node that a patch is on its way to.
    pub meddled: u32,
}

/// The state of all ways.
#[derive(Debug)]
pub struct Weather {
    pub rng: fastrand::Rng,
    pub odds: Odds,
    /// How late a request may be applied after it was sent.
    pub latest: Duration,
    pub away_until: Option<Instant>,
    /// An operator that cannot reach the Lease.
    pub leaseless: Option<Leaseless>,
    /// A watch that stands still.
    pub stall: Option<Stall>,
    /// Patches of this path are applied, and never answered.
    pub mute: Option<&'static str>,
    /// Counts cuts of all watches.
    pub cut: watch::Sender<u64>,
}

/// An operator that cannot reach the Lease, and whose writes are slow; nothing else is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Leaseless {
    pub operator: usize,
    /// Its connections break until then, which it hears of at once, and after that they stand: it may wait in
    /// vain for an answer until just before another one leads.
    pub breaks_until: Instant,
    pub until: Instant,
}

/// A sort of watch of one operator that shows nothing until then.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    pub operator: usize,
    /// In the watch's path and query.
    pub path: &'static str,
    pub until: Instant,
}

impl Weather {
    pub fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed ^ 0x00ea_7be5);
        let (odds, latest) = (Odds::default(), Duration::from_secs(4));
        Self {
            rng,
            odds,
            latest,
            away_until: None,
            leaseless: None,
            stall: None,
            mute: None,
            cut: watch::channel(0).0,
        }
    }

    /// Nothing goes wrong from here on.
    pub fn clear(&mut self) {
        self.odds = Odds::default();
        self.away_until = None;
        self.leaseless = None;
        self.stall = None;
        self.cut.send_modify(|count| *count += 1);
    }

    pub fn hits(&mut self, odds: u32) -> bool {
        self.rng.u32(..1000) < odds
    }

    /// How a request gets lost.
    fn lost(&mut self) -> Fate {
        [Fate::Dropped, Fate::Swallowed][self.rng.usize(..2)]
    }

    pub fn leg(&mut self) -> Duration {
        let slow = if self.hits(20) { 400 } else { 12 };
        Duration::from_micros(self.rng.u64(100..slow * 1000))
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused(u16),
    /// Lost on the way there: the connection breaks.
    Dropped,
    /// Lost on the way there, and the connection stands: nothing ever comes.
    Swallowed,
    /// Applied, and the answer is lost: the connection breaks.
    Unanswered,
    /// Applied, and the connection stands: nothing ever comes.
    Mute,
    /// The sender is killed before it is sent, or once it is applied.
    KilledBefore,
    KilledAfter,
}

/// Whose way it is. `alive` turns false when its process is killed.
#[derive(Clone)]
pub struct Wire {
    world: Arc<World>,
    server: InProcess,
    pub who: String,
    killable: bool,
    alive: watch::Sender<bool>,
}

impl Wire {
    pub fn client(
        world: &Arc<World>,
        who: &str,
        token: &str,
        killable: bool,
        alive: watch::Sender<bool>,
    ) -> kube::Client {
        let server = world.service.with_token(token);
        kube::Client::new(Self { world: world.clone(), server, who: who.into(), killable, alive }, "default")
    }

    pub fn weather<T>(&self, look: impl FnOnce(&mut Weather) -> T) -> T {
        look(&mut self.world.weather.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn decide(&self, request: &Request<Sent>) -> (Fate, Duration, Duration) {
        let write = request.method() != Method::GET;
        self.weather(|weather| {
            let odds = weather.odds;
            let mut there = weather.leg();
            let back = weather.leg();
            if weather.away_until.is_some_and(|until| Instant::now() < until) {
                return (Fate::Dropped, there, back);
            }
            if request.method() == Method::PATCH
                && weather.mute.is_some_and(|path| request.uri().path().ends_with(path))
            {
                return (Fate::Unanswered, there, back);
            }
            let hit = |it: &Leaseless| {
                Instant::now() < it.until && self.who.starts_with(&format!("operator-{}.", it.operator))
            };
            let leaseless = weather.leaseless.filter(hit);
            if let Some(it) = leaseless.filter(|_| request.uri().path().contains("/leases/")) {
                let fate = if Instant::now() < it.breaks_until { Fate::Dropped } else { Fate::Swallowed };
                return (fate, there, back);
            }
            if write && weather.hits(if leaseless.is_some() { 500 } else { odds.late }) {
                there = weather.latest.mul_f64(weather.rng.f64());
            }
            let fate = if weather.hits(odds.refused) {
                Fate::Refused([409, 429, 500, 503, 504][weather.rng.usize(..5)])
            } else if weather.hits(odds.dropped) {
                weather.lost()
            } else if weather.hits(odds.unanswered) {
                [Fate::Unanswered, Fate::Mute][weather.rng.usize(..2)]
            } else if self.killable && write && weather.hits(odds.killed) {
                [Fate::KilledBefore, Fate::KilledAfter][weather.rng.usize(..2)]
            } else {
                Fate::Answered
            };
            // 409 to a read is not said by any server.
            let fate = if fate == Fate::Refused(409) && !write { Fate::Refused(500) } else { fate };
            (fate, there, back)
        })
    }

    fn kill(&self) {
        self.alive.send_replace(false);
    }

    async fn carry(
        mut self,
        request: Request<Sent>,
        (fate, there, back): (Fate, Duration, Duration),
    ) -> Option<io::Result<Response<Body>>> {
        let path = request.uri().path();
        // kube names Events by the real time.
        let path = path.find("/events").map_or(path, |at| &path[..at + 7]);
        let what = format!("{} {path}", request.method());
        if fate != Fate::Answered {
            self.world.note(|| format!("{}: {fate:?}: {what}", self.who));
        }
        let reset = || Some(Err(io::ErrorKind::ConnectionReset.into()));
        if fate == Fate::KilledBefore {
            self.kill();
            return None;
        }
        sleep(there).await;
        match fate {
            Fate::Dropped => return reset(),
            Fate::Swallowed => {
                sleep(READ_TIMEOUT).await;
                return reset();
            }
            Fate::Refused(code) => return Some(Ok(refusal(code))),
            _ => {}
        }
        let method = request.method().clone();
        let read = method == Method::GET;
        let meddled = what.strip_prefix("PATCH /api/v1/nodes/").map(str::to_owned);
        if let Some(node) = meddled.filter(|_| self.weather(|weather| weather.hits(weather.odds.meddled))) {
            super::trouble::human(&self.world, &node).await;
        }
        let request = if self.killable && method == Method::POST && self.world.is(Kind::ForeignNames) {
            self.named_before(request).await
        } else {
            request
        };
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
        // A dry run changes nothing, whenever it comes.
        let dry = request.uri().query().is_some_and(|query| query.contains("dryRun="));
        let target = request.uri().to_string();
        let answer = self.server.call(request).await;
        if !read {
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            self.world.note(|| format!("{}: {what}: {code}", self.who));
            if self.killable && code < 300 && !dry && !what.contains("/leases") {
                self.world.wrote(&self.who, &what);
            }
        }
        match fate {
            Fate::KilledAfter => {
                self.kill();
                return None;
            }
            Fate::Mute => {
                sleep(READ_TIMEOUT).await;
                return reset();
            }
            Fate::Unanswered => {
                sleep(back).await;
                return reset();
            }
            _ => {}
        }
        sleep(back).await;
        Some(answer.map(|answer| if is_watch { self.watched(answer, target) } else { answer }))
    }

    /// The request, before which a stranger may have taken the name that it wants.
    async fn named_before(&self, request: Request<Sent>) -> Request<Sent> {
        let (head, body) = request.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if head.uri.path().ends_with("/pods")
            && !head.uri.query().is_some_and(|query| query.contains("dryRun="))
        {
            worlds::take_name(&self.world, &bytes).await;
        }
        Request::from_parts(head, Sent::from(bytes.to_vec()))
    }

    /// A watch that may break, stand still, repeat itself or go back.
    fn watched(&self, answer: Response<Body>, target: String) -> Response<Body> {
        let (head, body) = answer.into_parts();
        let cut = self.weather(|weather| weather.cut.subscribe());
        let alive = self.alive.subscribe();
        let watch = Watch {
            wire: self.clone(),
            target,
            frames: body.into_data_stream(),
            cut,
            alive,
            past: VecDeque::new(),
            queue: VecDeque::new(),
        };
        let stream = futures::stream::unfold(watch, |mut watch| async move {
            watch.next().await.map(|bytes| (Ok(Frame::data(bytes)), watch))
        });
        Response::from_parts(head, StreamBody::new(stream).boxed_unsync())
    }
}

fn refusal(code: u16) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "injected", "reason": reason, "code": code});
    let body = http_body_util::Full::new(Bytes::from(status.to_string()))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).expect("a code");
    response
}

impl Service<Request<Sent>> for Wire {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if !*this.alive.borrow() {
                return std::future::pending().await;
            }
            let fate = this.decide(&request);
            let (tell, told) = oneshot::channel();
            let alive = this.alive.subscribe();
            tokio::spawn(meter::metered(async move {
                if let Some(answer) = this.carry(request, fate).await {
                    // Its sender may have given up, or may be gone.
                    let _ = tell.send(answer);
                } else {
                    // Held, so that the connection seems to stand.
                    tell_nothing(tell).await;
                }
            }));
            match told.await {
                Ok(answer) if *alive.borrow() => answer,
                _ => std::future::pending().await,
            }
        })
    }
}

/// Keeps a connection open until its client has gone.
async fn tell_nothing<T>(mut tell: oneshot::Sender<T>) {
    tell.closed().await;
}
