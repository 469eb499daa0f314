//! A value that many follow, told in the order in which they began to wait.
//!
//! As `tokio::sync::watch`, as far as it is used here, but for that order: tokio's spreads its waiters at
//! random, and a run in paused time would not be the same twice.

use std::{
    ops::Deref,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<(T, u64)>,
    told: Notify,
    senders: AtomicUsize,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, (T, u64)> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody is left who could change the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody is left who could change the value")
    }
}

impl std::error::Error for Closed {}

/// The value, locked.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, (T, u64)>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

/// Changes the value.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// Follows the value.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A value with its first sender and receiver.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new((value, 0)),
        told: Notify::new(),
        senders: AtomicUsize::new(1),
    });
    (Sender(shared.clone()), Receiver { shared, seen: 0 })
}

impl<T> Sender<T> {
    /// The present value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    /// Whether somebody follows it.
    pub fn is_followed(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Follows the value from here on.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.read().1;
        Receiver { shared: self.0.clone(), seen }
    }

    /// Sets the value and returns the old one.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|old| std::mem::swap(old, &mut value));
        value
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value, and tells of it if `change` says so.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = {
            let mut value = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
            let modified = change(&mut value.0);
            value.1 += u64::from(modified);
            modified
        };
        if modified {
            self.0.told.notify_waiters();
        }
        modified
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.told.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    /// The present value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// The present value, which then counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        self.seen = value.1;
        Ref(value)
    }

    /// The present value counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.read().1;
    }

    /// Waits for a value that was not seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            let told = self.shared.told.notified();
            tokio::pin!(told);
            // From here on nothing is missed.
            told.as_mut().enable();
            let now = self.shared.read().1;
            if now != self.seen {
                self.seen = now;
                return Ok(());
            }
            if self.shared.senders.load(Ordering::Acquire) == 0 {
                return Err(Closed);
            }
            told.await;
        }
    }

    /// Waits until the value is as wanted; it counts as seen.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let found = {
                let value = self.shared.read();
                self.seen = value.1;
                wanted(&value.0)
            };
            if found {
                return Ok(Ref(self.shared.read()));
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_is_told() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(sender.send_replace(2), 1);
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), 2);
        assert!(!sender.send_if_modified(|_| false));
        let waiting = tokio::spawn(async move {
            let three = receiver.wait_for(|value| *value == 3).await.map(|value| *value);
            (three, receiver.changed().await)
        });
        tokio::task::yield_now().await;
        sender.clone().send_modify(|value| *value += 1);
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(waiting.await.unwrap(), (Ok(3), Err(Closed)));
    }
}
