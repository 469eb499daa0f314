//! For how long a future keeps the processor, whatever it waits for in between.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

/// What the future comes to, and the processor's time that its polls took; none where there is no such clock.
pub async fn timed<F: Future>(future: F) -> (F::Output, Duration) {
    let (mut future, mut spent) = (pin!(future), Duration::ZERO);
    let output = poll_fn(|context| {
        let begun = of_thread();
        let polled = future.as_mut().poll(context);
        spent += of_thread().saturating_sub(begun);
        polled
    })
    .await;
    (output, spent)
}

/// The processor's time that this thread has taken.
fn of_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_computed_counts_and_what_is_waited_for_does_not() {
        let computes = |least: Duration| async move {
            let begun = of_thread();
            while of_thread() - begun < least {
                std::hint::black_box(());
            }
        };
        let work = async {
            computes(Duration::from_millis(2)).await;
            tokio::task::yield_now().await;
            tokio::spawn(computes(Duration::from_millis(200))).await.unwrap();
            computes(Duration::from_millis(2)).await;
            7
        };
        let (output, spent) = timed(work).await;
        assert_eq!(output, 7);
        assert!(spent >= Duration::from_millis(4) && spent < Duration::from_millis(200), "{spent:?}");
    }
}
