//! A watch on its way to an operator: it may break, stand still, repeat itself or go back.

use std::{collections::VecDeque, time::Duration};

use futures::StreamExt;
use hyper::body::Bytes;
use kairos_sim::{server::http::Body, watch};
use tokio::time::{Instant, sleep};

use super::wire::{Stall, Wire};

/// A watch on its way. `target` is what it asks for.
pub struct Watch {
    pub wire: Wire,
    pub target: String,
    pub frames: http_body_util::BodyDataStream<Body>,
    pub cut: watch::Receiver<u64>,
    pub alive: watch::Receiver<bool>,
    pub past: VecDeque<Bytes>,
    pub queue: VecDeque<Bytes>,
}

impl Watch {
    /// The next frame; `None`: it broke.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.queue.pop_front() {
            return Some(frame);
        }
        let frame = tokio::select! {
            biased;
            _ = self.cut.changed() => return None,
            () = killed(&mut self.alive) => None,
            frame = self.frames.next() => Some(frame?.ok()?),
        };
        let Some(frame) = frame else { return std::future::pending().await };
        let (cut, stall, repeat, lag) = self.wire.weather(|weather| {
            let odds = weather.odds;
            let longest = if weather.hits(800) { 20_000 } else { 290_000 };
            let stall = weather
                .hits(odds.watch_stalled)
                .then(|| Duration::from_millis(weather.rng.u64(200..longest)));
            let repeat = weather.hits(odds.watch_repeated).then(|| weather.rng.usize(1..6));
            let leg = weather.leg();
            let hits = |it: &Stall| {
                self.wire.who.starts_with(&format!("operator-{}.", it.operator))
                    && self.target.contains(it.path)
            };
            let still =
                weather.stall.filter(hits).map(|it| it.until.saturating_duration_since(Instant::now()));
            (weather.hits(odds.watch_cut), stall, repeat, leg.max(still.unwrap_or_default()))
        });
        if cut {
            return None;
        }
        let pause = async {
            sleep(stall.unwrap_or(lag)).await;
        };
        tokio::select! {
            biased;
            _ = self.cut.changed() => return None,
            () = pause => {}
        }
        self.past.push_back(frame.clone());
        if self.past.len() > 6 {
            self.past.pop_front();
        }
        if let Some(back) = repeat {
            let from = self.past.len().saturating_sub(back);
            self.queue.extend(self.past.iter().skip(from).cloned());
        }
        Some(frame)
    }
}

async fn killed(alive: &mut watch::Receiver<bool>) {
    // An error means that nobody can kill it any more.
    if alive.wait_for(|alive| !alive).await.is_err() {
        std::future::pending::<()>().await;
    }
}
