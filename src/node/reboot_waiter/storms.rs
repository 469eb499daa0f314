//! Random mishaps in random order, many times over, and what must hold whatever happened: no reboot is asked
//! unless its Job is Complete and succeeded in this very boot; a Job brings about one reboot at most; and
//! once everything works again, a node whose Job is Complete has left the boot in which it succeeded.

use std::time::Duration;

use super::{
    waiter::{SECOND_LOOK, Waiter},
    world::{GRACE, Phase, Process, Shared, fake_cluster, settle, start, step},
};
use crate::contract::reboot_state;

struct Storm {
    all: Shared,
    /// A failing storm is known by its seed.
    rng: fastrand::Rng,
    waiter: Option<Waiter<Process>>,
    /// Ended with 0: the kubelet does not start it again.
    ended_well: bool,
    /// The boot in which the Job's pod succeeded, while that pod exists.
    succeeded: Option<u32>,
    /// The Job's only success that counts, fixed when the Job became Complete.
    complete: Option<u32>,
    asked: usize,
    reboots_by_us: u32,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let all = fake_cluster();
        Self {
            all,
            rng,
            waiter: None,
            ended_well: false,
            succeeded: None,
            complete: None,
            asked: 0,
            reboots_by_us: 0,
        }
    }

    fn inject_fault(&mut self) {
        match self.rng.u64(..22) {
            0..=6 => self.go_on(),
            7 => self.waiter = None,
            8 => self.reboot(),
            9 => self.asked_reboot(),
            10 => {
                let api = self.all.borrow().api;
                self.all.borrow_mut().api = !api;
            }
            11 => {
                let mute = self.all.borrow().mute;
                self.all.borrow_mut().mute = !mute;
            }
            12 => self.replace_pod(),
            13 => {
                // Long enough, now and then, for a grace or a deadline to be over.
                let seconds = self.rng.u64(..GRACE.as_secs() * 4);
                self.all.borrow_mut().now += Duration::from_secs(seconds);
            }
            14 if self.waiter.is_some() => self.all.borrow_mut().sigterm = true,
            15 => {
                let deaf = self.rng.u64(..4) == 0;
                self.all.borrow_mut().init_deaf = deaf;
            }
            16 => {
                let taken = self.rng.u64(..3) > 0;
                self.all.borrow_mut().token = taken;
            }
            17 => self.store_goes_back(),
            _ => self.job(),
        }
        self.check();
    }

    /// To when the waiter's pod ran: its kubelet starts it again.
    fn store_goes_back(&mut self) {
        if std::mem::take(&mut self.ended_well) {
            self.all.borrow_mut().annotation = Some(reboot_state::WAITING);
        }
    }

    /// The waiter takes a step, or is started by the kubelet.
    fn go_on(&mut self) {
        if self.ended_well {
            return;
        }
        let waiter = self.waiter.get_or_insert_with(|| start(&self.all));
        if let Some(Some(ended)) = step(waiter) {
            self.waiter = None;
            self.all.borrow_mut().sigterm = false;
            self.ended_well = ended.code == 0;
        }
    }

    /// The power goes. What ran is gone, and a pod of the Job that had not been heard of is tried again.
    fn reboot(&mut self) {
        self.all.borrow_mut().reboot();
        self.waiter = None;
        if self.complete.is_none() {
            self.succeeded = None;
        }
    }

    fn asked_reboot(&mut self) {
        let (boot, asked) = (self.all.borrow().boot, self.all.borrow().asked.last().copied());
        if asked == Some(boot) {
            self.reboots_by_us += 1;
            self.reboot();
        }
    }

    /// The waiter's pod is lost, and the controller makes another one, which knows nothing.
    fn replace_pod(&mut self) {
        let mut all = self.all.borrow_mut();
        all.pod_uid += 1;
        all.annotation = None;
        drop(all);
        if self.rng.u64(..2) == 0 {
            self.waiter = None;
        }
        self.ended_well = false;
    }

    fn job(&mut self) {
        let phase = self.all.borrow().phase;
        let boot = self.all.borrow().boot;
        match (phase, self.rng.u64(..8)) {
            (Phase::Absent, _) => self.all.borrow_mut().job(Phase::Running),
            (Phase::Running, 0..=2) => {
                self.all.borrow_mut().succeed();
                self.succeeded = Some(boot);
            }
            // Only a pod that has succeeded, in this boot or before a reboot that it was heard of in time,
            // completes it.
            (Phase::Running, 3..=5) if self.succeeded.is_some() => {
                self.complete = self.succeeded;
                self.all.borrow_mut().job(Phase::Complete);
            }
            // Its pod is lost before it is heard of; the next one does it all again.
            (Phase::Running, 6) => self.succeeded = None,
            (Phase::Running, 7) if self.rng.u64(..4) == 0 => self.all.borrow_mut().job(Phase::Failed),
            (Phase::Complete | Phase::Running, 7) if self.rng.u64(..8) == 0 => {
                self.all.borrow_mut().job(Phase::Gone)
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        let all = self.all.borrow();
        for boot in &all.asked[self.asked..] {
            assert_eq!(Some(*boot), self.complete, "asked in another boot than the one of the success");
            // Not what it is: a Job may be deleted in the instant between the answer and the signal.
            assert_eq!(all.seen, Some(Phase::Complete), "asked without a Complete Job");
        }
        self.asked = all.asked.len();
        assert!(self.reboots_by_us <= 1, "twice");
    }

    /// Whether a waiter that finds no sentinel ends after a while.
    fn ends_in_time(&self) -> bool {
        let mut waiter = start(&self.all);
        let _ = settle(&mut waiter);
        self.all.borrow_mut().now += SECOND_LOOK;
        self.all.borrow_mut().event = true;
        settle(&mut waiter).is_some_and(|ended| ended.code == 0)
    }

    /// The weather clears: the API answers, the pod stands, and what was asked happens.
    ///
    /// The pod is not replaced here: a waiter that ended well too early must not be forgiven by another one.
    fn clear_up(&mut self) {
        self.waiter = None;
        let mut all = self.all.borrow_mut();
        (all.api, all.token, all.mute, all.sigterm, all.init_deaf) = (true, true, false, false, false);
        drop(all);
        for _ in 0..3 {
            if self.ended_well {
                break;
            }
            self.ended_well = settle(&mut start(&self.all)).is_some_and(|ended| ended.code == 0);
            self.check();
            self.asked_reboot();
            self.check();
        }
        let all = self.all.borrow();
        if all.phase == Phase::Complete {
            assert_ne!(Some(all.boot), self.complete, "never");
            assert_eq!(all.sentinel, None, "a sentinel of an old boot is left");
            drop(all);
            assert!(self.ended_well || self.ends_in_time(), "it waits for nothing");
        }
    }
}

#[test]
fn once_never_twice_never_zero() {
    let (mut rebooted, mut complete) = (0, 0);
    for seed in 1..=10_000 {
        let storm = std::panic::catch_unwind(|| {
            let mut storm = Storm::new(seed);
            for _ in 0..storm.rng.u64(..120) {
                storm.inject_fault();
            }
            storm.clear_up();
            (storm.reboots_by_us, u32::from(storm.all.borrow().phase == Phase::Complete))
        });
        let (by_us, is_complete) = storm.unwrap_or_else(|_| panic!("storm {seed}"));
        rebooted += by_us;
        complete += is_complete;
    }
    assert!(
        rebooted > 1_500 && complete > 3_000,
        "the storms are too mild to prove a thing: {rebooted} {complete}"
    );
}
