//! Kernels that stay on a device, and what has to wait until they have left it.
//!
//! While a kernel runs, the driver does not load a module, free memory or end a wait for all work: it blocks until the
//! kernel has ended. One that stays until it is told to leave would have it block for long, so it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A kernel that stays.
pub(crate) trait Residence: Send + Sync {
    /// Tells the kernel to leave after the items in work, without a call of the driver. Whoever launches it asks
    /// [`Residents::are_away`] before and after.
    fn step_aside(&self);

    /// The device is free again.
    fn come_back(&self);
}

/// The kernels that stay on a device.
#[derive(Default)]
pub(super) struct Residents {
    known: Mutex<Vec<Weak<dyn Residence>>>,
    /// Jobs that wait for their absence.
    jobs: AtomicUsize,
}

impl Residents {
    pub(super) fn add(&self, residence: Weak<dyn Residence>) {
        self.lock().push(residence);
    }

    /// Whether no kernel may be launched to stay.
    pub(super) fn are_away(&self) -> bool {
        self.jobs.load(Ordering::SeqCst) > 0
    }

    /// Does a job that the driver has wait for all kernels.
    pub(super) fn without<T>(&self, job: impl FnOnce() -> T) -> T {
        /// Also where the job panics.
        struct Away<'a>(&'a Residents);
        impl Drop for Away<'_> {
            fn drop(&mut self) {
                if self.0.jobs.fetch_sub(1, Ordering::SeqCst) == 1 {
                    self.0.each(|residence| residence.come_back());
                }
            }
        }
        self.jobs.fetch_add(1, Ordering::SeqCst);
        let _away = Away(self);
        self.each(|residence| residence.step_aside());
        job()
    }

    fn each(&self, tell: impl Fn(&dyn Residence)) {
        // The lock goes first: the last handle of a residence may be among these, and its memory comes here when it goes.
        let known: Vec<Arc<dyn Residence>> = {
            let mut known = self.lock();
            known.retain(|residence| residence.strong_count() > 0);
            known.iter().filter_map(Weak::upgrade).collect()
        };
        known.iter().for_each(|residence| tell(&**residence));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn Residence>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(AtomicUsize, AtomicUsize);

    impl Residence for Told {
        fn step_aside(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn come_back(&self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn they_come_back_after_the_last_job() {
        let (residents, told) = (Residents::default(), Arc::new(Told::default()));
        let residence: Arc<dyn Residence> = told.clone();
        residents.add(Arc::downgrade(&residence));
        drop(residence);
        let counts = || (told.0.load(Ordering::Relaxed), told.1.load(Ordering::Relaxed));
        assert!(!residents.are_away());
        residents.without(|| {
            assert_eq!((residents.are_away(), counts()), (true, (1, 0)));
            residents.without(|| assert_eq!(counts(), (2, 0)));
            assert_eq!((residents.are_away(), counts()), (true, (2, 0)));
        });
        assert_eq!((residents.are_away(), counts()), (false, (2, 1)));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let residents = Residents::default();
        let residence: Arc<dyn Residence> = Arc::new(Told::default());
        residents.add(Arc::downgrade(&residence));
        drop(residence);
        residents.without(|| {});
        assert!(residents.lock().is_empty());
    }
}
