//! SIGTERM as an event, beside the end of a child.
//!
//! By a handler and not by a blocked mask: a child inherits the mask, and an agent that cannot be terminated
//! would be our doing. Tokio brings the handler; its runtime lives in a thread of its own, and the applet
//! stays synchronous.

use std::{
    io,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// What an applet waits for.
#[derive(Debug)]
pub enum Event {
    /// SIGTERM, and whether one came before.
    Terminate {
        again: bool,
    },
    Ended(io::Result<ExitStatus>),
}

/// Where events arrive.
#[derive(Debug)]
pub struct Signals {
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    told: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let (listening, ready) = mpsc::channel();
        let (forward, told) = (sender.clone(), Arc::new(AtomicBool::new(false)));
        let tell = Arc::clone(&told);
        std::thread::spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(listening.send(Err(error))),
            };
            runtime.block_on(async {
                let mut terminate = match signal(SignalKind::terminate()) {
                    Ok(terminate) => terminate,
                    Err(error) => return drop(listening.send(Err(error))),
                };
                let _ = listening.send(Ok(()));
                while terminate.recv().await.is_some() {
                    let again = tell.swap(true, Ordering::SeqCst);
                    if forward.send(Event::Terminate { again }).is_err() {
                        break;
                    }
                }
            });
        });
        ready.recv().context("starting to listen for SIGTERM")?.context("listening for SIGTERM")?;
        Ok(Self { sender, events, told })
    }

    /// Whether SIGTERM has come, whoever was told of it.
    pub fn told_to_stop(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    pub fn sender(&self) -> mpsc::Sender<Event> {
        self.sender.clone()
    }

    pub fn next(&self) -> Result<Event> {
        self.events.recv().context("no more events")
    }
}
