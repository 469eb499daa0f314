//! `wait`: until an operation is over, whichever way. `kubectl wait --for=condition=Complete` waits on
//! after a failure.

use std::{pin::pin, time::Duration};

use clap::Args;
use futures::StreamExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::{
    connection::Connection,
    failure::{Code, Failure, Result},
    follow::{Scope, follow},
    operation::Operation,
    screen::Screen,
    target::Target,
    time,
};

/// Waits until an operation is over: exit code 0 if it completed, 1 if it failed, 124 if time was up before.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// NAME, nou/NAME or nop/NAME
    pub target: Target,
    /// How long to wait, as 30m or 2h; 0 only looks; unset, as long as it takes
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub timeout: Option<Duration>,
}

/// Runs the verb.
pub async fn run(args: &WaitArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let operation = args.target.find(connection).await?;
    until_over(operation, args.timeout, connection, screen).await
}

/// Waits until an operation is over, and says how it ended.
async fn until_over(
    mut operation: Operation,
    limit: Option<Duration>,
    connection: &Connection,
    screen: &Screen,
) -> Result<Code> {
    let over = async {
        let mut changes = pin!(follow(connection, &Scope::of(&operation)));
        let (kind, uid) = (operation.kind, operation.uid.clone());
        while !operation.is_over() {
            let all = changes.next().await.unwrap_or_else(|| Err(Failure::new("the watch has ended")))?;
            let same = all.into_iter().find(|next| next.uid == uid);
            operation = same.ok_or_else(|| {
                Failure::new(format!("{kind} {}/{} was deleted", operation.namespace, operation.name))
            })?;
        }
        Ok::<(), Failure>(())
    };
    let ended = match limit {
        None => Ok(over.await),
        Some(limit) => timeout(limit, over).await,
    };
    match ended {
        Ok(result) => result.and_then(|()| over_now(&operation, screen)),
        Err(_) => Err(late(&operation, limit.unwrap_or_default())),
    }
}

/// Says how an operation ended that is over.
pub fn over_now(operation: &Operation, screen: &Screen) -> Result<Code> {
    let message = time::relative(Timestamp::now(), &operation.message);
    screen.line(&format!("{} {}: {message}", operation.short(), operation.phase_word()))?;
    Ok(if operation.has_failed() { Code::Failed } else { Code::Done })
}

/// The time that was given to wait is up, and the operation is not over.
pub fn late(operation: &Operation, limit: Duration) -> Failure {
    let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::ZERO);
    let done = Some(&operation.counts.done).filter(|done| !done.is_empty());
    let done = done.map_or_else(String::new, |done| format!(", {done} nodes done"));
    let message = time::relative(Timestamp::now(), &operation.message);
    Failure::new(format!(
        "{} is not over after {}: {}{done}: {message}",
        operation.short(),
        time::brief(limit),
        operation.phase_word()
    ))
    .ending(Code::TimedOut)
    .hint(format!(
        "What it waits for: kubectl kairos status {} -n {}",
        operation.short(),
        operation.namespace
    ))
}
