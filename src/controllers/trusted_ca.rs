//! Which authority signs the API server's certificate, as the kubelet keeps it in our pod. A client reads it
//! once.
//!
//! Whoever rotates it restarts what was started before, as the guides say; and who does not would have an
//! operator that lives, calls itself ready, and reaches nothing from its next connection on. So this process
//! ends when the file changes, and the next one starts with the new authority.

use std::{fs, path::PathBuf, time::Duration};

use tokio::time::sleep;

/// Where a pod finds it.
const IN_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// How often it is looked at. A kubelet passes a change on within a minute or two.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(60);

/// What was trusted at the start.
#[derive(Debug)]
pub struct TrustedCa {
    path: PathBuf,
    content: Option<Vec<u8>>,
}

impl TrustedCa {
    /// That of our own pod, to be read before the client reads it; nothing outside a cluster.
    pub fn of_pod() -> Self {
        Self::in_file(IN_POD)
    }

    fn in_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { content: fs::read(&path).ok(), path }
    }

    /// Waits until the file says something else. One that cannot be read at a moment, or is empty, says
    /// nothing.
    pub async fn changes(&self) {
        loop {
            sleep(LOOKED_AT_EVERY).await;
            let now = fs::read(&self.path).ok().filter(|content| !content.is_empty());
            if now.is_some() && self.content.is_some() && now != self.content {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_authority_ends_the_wait_and_a_file_that_is_away_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        let (nothing, late) = (TrustedCa::in_file(&path), 3 * LOOKED_AT_EVERY);
        fs::write(&path, "old").unwrap();
        let known = TrustedCa::in_file(&path);
        let mut waits = Box::pin(known.changes());
        let mut ends = async || {
            tokio::select! {
                () = &mut waits => true,
                () = sleep(late) => false,
            }
        };
        assert!(!ends().await, "it is what it was");
        fs::write(&path, "").unwrap();
        assert!(!ends().await, "it is being written");
        fs::remove_file(&path).unwrap();
        assert!(!ends().await, "it is away");
        fs::write(&path, "new").unwrap();
        assert!(ends().await);
        assert!(nothing.changes().now_or_never().is_none(), "outside a cluster none was there");
    }
}
