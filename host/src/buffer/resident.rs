//! What keeps buffers and the programs of a resident kernel out of each other's way.
//!
//! A program names memory, not buffers, and its items run beside everything else. Its [`ResidentUse`] counts the items that
//! are out, and each of its buffers knows it: whoever reads or writes such a buffer otherwise waits until no item is out,
//! and while it does, none goes out. A buffer that is dropped leaves its memory to the programs.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::driver::Stream;
use crate::error::Error;

/// One program's use of its buffers.
pub(crate) struct ResidentUse {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether something may be queued on one of the buffers that no item has waited for.
    touched: AtomicBool,
    /// Whether one of them is the host's memory.
    reaches_host: AtomicBool,
    /// The streams that the buffers are at home on.
    homes: Mutex<Vec<Stream>>,
    /// The executor, once the program is one's.
    owner: OnceLock<u64>,
    /// Other programs that use one of the buffers.
    others: Mutex<Vec<Weak<ResidentUse>>>,
}

#[derive(Default)]
struct State {
    /// Items that were submitted and are not complete.
    out: usize,
    /// Accesses in progress.
    accesses: usize,
    /// Accesses that wait for the items: no other goes out before they had their turn.
    waiting: usize,
    /// Memory of buffers that are gone.
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl Default for ResidentUse {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            touched: AtomicBool::new(true),
            reaches_host: AtomicBool::new(false),
            homes: Mutex::default(),
            owner: OnceLock::new(),
            others: Mutex::default(),
        }
    }
}

impl ResidentUse {
    /// An item goes out, once nobody accesses the buffers and what is queued on their streams is done.
    ///
    /// # Errors
    /// What the queued work ran into; the item then is not out.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        let mut state = self.lock();
        while state.accesses > 0 || state.waiting > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.out += 1;
        drop(state);
        // While an item is out there is no access that could touch them anew.
        if self.touched.load(Ordering::Acquire) {
            let homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Err(why) = homes.iter().try_for_each(Stream::synchronize) {
                self.end();
                return Err(why.into());
            }
            self.touched.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the program one of the executor `owner`'s.
    ///
    /// # Errors
    /// Whether it, or another program that uses one of its buffers, is another executor's: two kernels know nothing of
    /// each other.
    pub(crate) fn own(&self, owner: u64) -> Result<(), ()> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let owner_of = |other: &Weak<Self>| other.upgrade().and_then(|o| o.owner.get().copied());
        let foreign = others.iter().filter_map(owner_of).any(|other| other != owner);
        if foreign || *self.owner.get_or_init(|| owner) != owner { Err(()) } else { Ok(()) }
    }

    /// One of the buffers is memory of the host.
    pub(super) fn reach_host(&self) {
        self.reaches_host.store(true, Ordering::Relaxed);
    }

    /// Whether one of the buffers is memory of the host.
    pub(crate) fn reaches_host(&self) -> bool {
        self.reaches_host.load(Ordering::Relaxed)
    }

    /// An item is complete, or will never be carried out.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.out -= 1;
        if state.out == 0 {
            self.changed.notify_all();
        }
    }

    /// Takes memory of a buffer that is gone.
    pub(crate) fn keep(&self, memory: Box<dyn Any + Send + Sync>) {
        self.lock().kept.push(memory);
    }

    fn begin_access(&self) {
        let mut state = self.lock();
        // The items that are out need none that would have to go out first, so they come to an end.
        state.waiting += 1;
        while state.out > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        state.accesses += 1;
        self.touched.store(true, Ordering::Release);
    }

    fn end_access(&self) {
        let mut state = self.lock();
        state.accesses -= 1;
        if state.accesses == 0 {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The programs that use a buffer. Most have none, and pay no lock.
#[derive(Default)]
pub(super) struct Users(OnceLock<Box<Mutex<Vec<Weak<ResidentUse>>>>>);

impl Users {
    /// Adds a program, once; `home` is the buffer's stream.
    pub(super) fn add(&self, user: &Arc<ResidentUse>, home: Option<&Stream>) {
        let users = self.0.get_or_init(Box::default);
        let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&Arc::downgrade(user)));
        let mut others = user.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.extend(users.iter().cloned());
        users.push(Arc::downgrade(user));
        let mut homes = user.homes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(home) = home
            && !homes.contains(home)
        {
            homes.push(home.clone());
        }
    }

    /// Those that are left.
    fn live(&self) -> Vec<Arc<ResidentUse>> {
        let Some(users) = self.0.get() else { return Vec::new() };
        let users = users.lock().unwrap_or_else(PoisonError::into_inner);
        users.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether a program uses the buffer.
    pub(super) fn are_there(&self) -> bool {
        !self.live().is_empty()
    }

    /// Waits until no item of theirs is out, and keeps it so while the result lives.
    pub(super) fn access(&self) -> Access {
        let users = self.live();
        users.iter().for_each(|user| user.begin_access());
        Access(users)
    }

    /// Leaves memory to them, if there are any.
    pub(super) fn bequeath(&self, memory: impl FnOnce() -> Box<dyn Any + Send + Sync>) {
        let users = self.live();
        if users.is_empty() {
            return;
        }
        let memory: Arc<dyn Any + Send + Sync> = Arc::from(memory());
        for user in users {
            user.keep(Box::new(Arc::clone(&memory)));
        }
    }
}

/// An access of a buffer that programs use.
pub(crate) struct Access(Vec<Arc<ResidentUse>>);

impl Access {
    /// Of nothing.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.0.iter().for_each(|user| user.end_access());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    #[test]
    fn accesses_and_items_exclude_each_other() {
        let (user, users) = (Arc::new(ResidentUse::default()), Users::default());
        drop(users.access());
        users.add(&user, None);
        users.add(&user, None);
        user.begin().expect("nothing is queued");
        let order = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let access = users.access();
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), 1);
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), 2);
                drop(access);
            });
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(order.fetch_add(1, Ordering::SeqCst), 0);
            user.end();
            while order.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            user.begin().expect("nothing is queued");
            assert_eq!(order.fetch_add(1, Ordering::SeqCst), 3);
            waiter.join().expect("no panic");
        });
        user.end();
        drop(user);
        assert!(!users.are_there());
    }

    #[test]
    fn who_submits_on_and_on_starves_no_access() {
        let (user, users) = (Arc::new(ResidentUse::default()), Users::default());
        users.add(&user, None);
        user.begin().expect("nothing is queued");
        let order = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let access = users.access();
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), 1, "the reader is first");
                drop(access);
            });
            while user.lock().waiting == 0 {
                std::thread::yield_now();
            }
            // Goes out behind the access, so that something is out at any time before it has come.
            let submitter = scope.spawn(|| {
                user.begin().expect("nothing is queued");
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), 2, "the submitter is second");
                user.end();
            });
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(order.fetch_add(1, Ordering::SeqCst), 0);
            user.end();
            reader.join().expect("no panic");
            submitter.join().expect("no panic");
        });
    }

    #[test]
    fn a_buffer_is_one_executors() {
        let (users, programs) =
            (Users::default(), [(); 3].map(|()| Arc::new(ResidentUse::default())));
        for (program, (owner, fits)) in programs.iter().zip([(1, true), (1, true), (2, false)]) {
            users.add(program, None);
            assert_eq!(program.own(owner).is_ok(), fits);
        }
        assert_eq!((programs[0].own(1), programs[0].own(2)), (Ok(()), Err(())));
        let [first, second, _] = programs;
        drop((first, second));
        let program = Arc::new(ResidentUse::default());
        users.add(&program, None);
        assert_eq!(program.own(2), Ok(()));
    }

    #[test]
    fn memory_lives_as_long_as_its_users() {
        let (user, users) = (Arc::new(ResidentUse::default()), Users::default());
        let memory = Arc::new(1);
        users.bequeath(|| Box::new(Arc::clone(&memory)));
        assert_eq!(Arc::strong_count(&memory), 1);
        users.add(&user, None);
        users.bequeath(|| Box::new(Arc::clone(&memory)));
        assert_eq!(Arc::strong_count(&memory), 2);
        drop(user);
        assert_eq!(Arc::strong_count(&memory), 1);
    }
}
