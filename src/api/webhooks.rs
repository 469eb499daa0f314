//! What admission webhooks have a say in: how long an answer is awaited, and whom to suspect without one.

use std::time::Duration;

/// How long a write may take. The API server waits ten seconds for a webhook that says nothing else; and with
/// a client that goes away it drops the request, so that no try would ever get any further.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// What may take that time, after the sentence that no answer came.
pub const SUSPECT: &str = "; an admission webhook may be what takes so long (kubectl get \
                           mutatingwebhookconfigurations,validatingwebhookconfigurations)";
