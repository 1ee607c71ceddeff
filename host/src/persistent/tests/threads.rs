//! Many threads, and futures.

use super::*;

#[test]
fn many_threads_submit_one_program() {
    let device = device();
    let executor = executor(&device);
    let counter = Counter::new(&device, &executor);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    executor.submit(&counter.program).unwrap();
                }
            });
        }
    });
    assert_eq!(counter.read(), 200.0);
}

#[test]
fn futures_are_woken() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let device = device();
    let executor = executor(&device);
    let empty = empty();
    let waker = Arc::new(Unpark(thread::current())).into();
    for _ in 0..20 {
        let mut future = Box::pin(executor.submit(&empty).unwrap().into_future());
        let mut context = Context::from_waker(&waker);
        while future.as_mut().poll(&mut context).is_pending() {
            thread::park_timeout(Duration::from_secs(10));
        }
    }
    executor.drain().unwrap();
}

/// A fault wakes futures, and what is woken may ask for the kernel.
#[test]
fn who_is_woken_by_a_fault_may_ask_the_executor() {
    struct Ask(Mutex<mpsc::Sender<u64>>, Arc<PersistentExecutor>);
    impl Wake for Ask {
        fn wake(self: Arc<Self>) {
            let launches = self.1.statistics().launches;
            let _ = self.0.lock().unwrap().send(launches);
        }
    }
    let device = device();
    let config = PersistentConfig { deadline: Duration::from_millis(200), ..Default::default() };
    let executor = Arc::new(executor_with(&device, config));
    let (sender, answers) = mpsc::channel();
    let waker = Arc::new(Ask(Mutex::new(sender), Arc::clone(&executor))).into();
    let stuck = executor.submit(&Program::provoking(Provoke::Hang)).unwrap();
    let mut future = Box::pin(stuck.into_future());
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let answer = answers.recv_timeout(Duration::from_secs(20));
    if answer.is_err() {
        // Its end would wait for the watchdog, which is stuck.
        std::mem::forget((future, waker, executor));
    }
    assert_eq!(answer, Ok(1), "what the watchdog woke did not come back");
}

#[test]
fn many_threads_submit() {
    let device = device();
    let executor = executor(&device);
    let empty = empty();
    thread::scope(|scope| {
        for lane in 0..4 {
            let (executor, empty) = (&executor, &empty);
            scope.spawn(move || {
                let options = ItemOptions { lane, ..Default::default() };
                for _ in 0..200 {
                    executor.submit_with(empty, &options).unwrap();
                }
            });
        }
    });
    executor.drain().unwrap();
    assert_eq!(executor.statistics().completed, 800);
}
