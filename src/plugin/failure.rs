//! What a verb ends with: an exit code, or an error that says what was being done, to which object, why it
//! did not work, and what to do next. A cause is told once.

use std::{fmt, io};

use crate::api::error_text::error_message;

/// How a verb ended, as scripts read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Done, or healthy.
    Done = 0,
    /// An error, or an operation that has failed.
    Failed = 1,
    /// Something would be blocked, or is refused.
    Refused = 2,
    /// Time was up, as coreutils' `timeout` says it.
    TimedOut = 124,
}

/// Why a verb could not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    /// What was being done, and why it did not work.
    pub what: String,
    /// What to do next.
    pub next: Option<String>,
    /// The user has not the right to it.
    pub forbidden: bool,
    /// The API server is unavailable, and may answer the next time.
    pub passes: bool,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(what: impl Into<String>) -> Self {
        Self { code: Code::Failed, what: what.into(), next: None, forbidden: false, passes: false }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// Ends with another exit code.
    #[must_use]
    pub fn ending(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// Nothing needs to be said: whoever read the output has gone.
    pub fn is_silent(&self) -> bool {
        self.what.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.next {
            Some(next) => write!(f, "\n{next}"),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // `kubectl kairos status | head` is no error.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new("").ending(Code::Done);
        }
        Self::new(format!("writing the output: {error}"))
    }
}

/// Says what a request was for, if it fails.
pub trait Doing<T> {
    /// `what` completes "error: … failed", as in `listing nodes`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, kube::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| of_request(&what(), &error))
    }
}

/// A request that failed.
pub fn of_request(what: &str, error: &kube::Error) -> Failure {
    if is_not_installed(error) {
        return not_installed();
    }
    let failure = Failure {
        forbidden: is_forbidden(error),
        passes: may_pass(error),
        ..Failure::new(format!("{what}: {}", error_message(error)))
    };
    match error {
        error if is_unknown_user(error) => {
            failure.hint("The API server does not know you: log in again, or look at the user of this context in your kubeconfig.")
        }
        kube::Error::Api(status) if status.code == 403 => failure
            .hint("What you may do: kubectl auth can-i --list. Which rights each verb needs: docs/kubectl-kairos.md."),
        // An answer that is none of an API server is a proxy's, or a page to log in at.
        kube::Error::Service(_)
        | kube::Error::HyperError(_)
        | kube::Error::SerdeError(_)
        | kube::Error::FromUtf8(_) => {
            failure.hint("Is the cluster of this context up, and the right one? kubectl cluster-info")
        }
        _ => failure,
    }
}

fn is_unknown_user(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 401)
}

/// Whether the API server was unavailable.
fn may_pass(error: &kube::Error) -> bool {
    let away = matches!(
        error,
        kube::Error::Service(_)
            | kube::Error::HyperError(_)
            | kube::Error::ReadEvents(_)
            | kube::Error::Api(_)
    );
    away && !is_verdict(error) && !is_unknown_user(error)
}

/// Whether it is an answer to what was asked, so that the same would be answered again. A server that is in
/// trouble (5xx), has too much to do (429) or was not asked in time (408) has decided nothing; nor has one
/// that does not know the user (401).
pub fn is_verdict(error: &kube::Error) -> bool {
    let decided = |code: u16| (400..500).contains(&code) && !matches!(code, 401 | 408 | 429);
    matches!(error, kube::Error::Api(status) if decided(status.code))
}

pub fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether the user has not the right to it, other than that an admission webhook or policy says no.
pub fn lacks_right(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains(" cannot "))
}

/// Whether the API server does not know the kind at all.
pub fn is_not_installed(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let unknown = ["the server could not find the requested resource", "404 page not found"];
    status.code == 404 && unknown.iter().any(|text| status.message.contains(text))
}

/// Who looks, and who would end what is said here, is found out by a verb.
pub const WHETHER_ONE_RUNS: &str = "kubectl kairos check says whether one runs";

/// How the operator gets into a cluster. Its image has the name that it was pushed under, which nobody here
/// knows.
pub const INSTALL: &str = "kairos-operator manifests --image IMAGE | kubectl apply -f -";

fn not_installed() -> Failure {
    Failure::new("the API server does not know NodeOps: the operator is not installed in this cluster").hint(
        format!("Install it (docs/operations.md): {INSTALL}; or choose another cluster with --context."),
    )
}
