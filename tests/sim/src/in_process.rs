//! The server as a service of this process: no socket, so that it can run in paused time.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{Request, Response, header::AUTHORIZATION, http::HeaderValue};
use kube::client::Body as Sent;
use tower_service::Service;

use crate::server::{
    Shared,
    http::{self, Body},
};

/// The server, as whoever holds a token sees it. A request that is dropped before it was looked at is not
/// applied.
#[derive(Clone)]
pub struct InProcess {
    shared: Shared,
    token: String,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").finish_non_exhaustive()
    }
}

impl InProcess {
    pub(crate) fn new(shared: &Shared, token: &str) -> Self {
        Self { shared: shared.clone(), token: token.to_owned() }
    }

    /// The same server, for another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self::new(&self.shared, token)
    }

    /// The version of the last change of anything.
    pub fn version(&self) -> u64 {
        self.shared.lock().store.version()
    }
}

impl Service<Request<Sent>> for InProcess {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Sent>) -> Self::Future {
        if let Ok(value) = HeaderValue::try_from(format!("Bearer {}", self.token)) {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Box::pin(http::answer(self.shared.clone(), request))
    }
}
