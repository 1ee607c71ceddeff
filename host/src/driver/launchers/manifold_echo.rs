//! Launcher of `manifold_echo`: what a trip to a resident kernel and back takes at least.

use std::time::{Duration, Instant};

use kasmina_kernels::instances;
use kasmina_ring::Words;
use kasmina_simt::Executor;
use kasmina_types::ManifoldEcho;
use kasmina_types::manifold::ECHO_ENDS;

use super::KernelDevice;
use super::manifold::{NO_SPIN_LIMIT, Run, SharedWords};
use crate::device::Device;
use crate::driver::launch::{LaunchConfig, launch};
use crate::driver::{Function, Stream, recording};
use crate::error::Error;
use crate::persistent::PersistentError;

/// `manifold_echo`: a thread on the device that answers a word with the same word. It is launched by the first one.
pub(crate) struct Echo {
    bell: SharedWords,
    answer: SharedWords,
    /// The last word.
    word: u64,
    on: EchoDevice,
    run: Option<Run>,
}

/// Where an [`Echo`] runs.
enum EchoDevice {
    Cuda(Stream, Function),
    Simt(Executor),
}

impl Echo {
    /// None on a device that lacks the kernel.
    ///
    /// # Errors
    /// Exhausted memory, or a failed call.
    pub(crate) fn new(device: &Device) -> Result<Option<Self>, Error> {
        recording::refuse("a new resident kernel")?;
        let kernel = instances::manifold_echo();
        let on = match KernelDevice::of(device).filter(|on| on.supports(kernel)) {
            None => return Ok(None),
            Some(KernelDevice::Cuda(gpu)) => {
                EchoDevice::Cuda(Stream::new(gpu.device())?, gpu.kernel(kernel.name())?.function)
            }
            Some(KernelDevice::Simt(executor)) => EchoDevice::Simt(executor.clone()),
        };
        let (bell, answer) = (SharedWords::zeroed(device, 1)?, SharedWords::zeroed(device, 1)?);
        Ok(Some(Self { bell, answer, word: 0, on, run: None }))
    }

    fn launch(&self) -> Result<Run, Error> {
        let kernel = instances::manifold_echo();
        let limit_ns = u64::try_from(ECHO_LIMIT.as_nanos()).unwrap_or(u64::MAX);
        let (bell, answer) = (self.bell.view(), self.answer.view());
        let params = ManifoldEcho { bell, answer, limit_ns, _padding: 0 };
        match &self.on {
            EchoDevice::Cuda(stream, function) => {
                let config = LaunchConfig::linear(1, kernel.bounds().block_threads);
                // SAFETY: both arrays have a word, zero so far. The memory lives as long as `self`, whose drop ends the
                // kernel and waits for it.
                unsafe { launch(function, config, stream, &params) }?;
                Ok(Run::Cuda(stream.clone()))
            }
            EchoDevice::Simt(executor) => {
                let executor = executor.clone().alone().spin_limit(NO_SPIN_LIMIT);
                // SAFETY: as above; the thread is waited for before the memory goes.
                let run = move || unsafe { kernel.run(&executor, 1, 0, params) };
                let thread = std::thread::Builder::new().name("kasmina-echo".into());
                Ok(Run::Simt(thread.spawn(run).map_err(|source| Error::Thread { source })?))
            }
        }
    }

    /// Writes a word and waits until the same one has come back.
    ///
    /// # Errors
    /// A failed launch, a kernel that has left or failed, or one that does not answer in time.
    pub(crate) fn round_trip(&mut self) -> Result<(), Error> {
        if self.run.is_none() {
            self.run = Some(self.launch()?);
        }
        self.word += 1;
        self.bell.store(0, self.word);
        let begun = Instant::now();
        loop {
            for look in 0..LOOKS {
                if self.answer.load(0) == self.word {
                    return Ok(());
                }
                // The executor's thread may need this processor.
                if look < LOOKS / 4 { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
            if begun.elapsed() > ANSWER_LIMIT {
                return Err(PersistentError::TimedOut(ANSWER_LIMIT).into());
            }
            if let Some(Run::Cuda(stream)) = &self.run {
                // What made the kernel fail, if something did.
                stream.is_idle()?;
            }
        }
    }
}

/// How long `manifold_echo` stays without a word.
const ECHO_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Looks for an answer between two looks at the clock.
const LOOKS: u32 = 1 << 12;

impl Drop for Echo {
    fn drop(&mut self) {
        self.bell.store(0, ECHO_ENDS);
        // The memory must outlive the kernel, which leaves at its limit if not at the word.
        match self.run.take() {
            Some(Run::Cuda(stream)) => drop(stream.synchronize()),
            Some(Run::Simt(thread)) => drop(thread.join()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_in_their_order_and_the_thread_leaves() {
        let device = Device::Simt(Executor::new());
        let mut echo = Echo::new(&device).unwrap().expect("the executor has every kernel");
        for trip in 1..=200 {
            echo.round_trip().unwrap();
            assert_eq!((echo.word, echo.answer.load(0)), (trip, trip));
        }
        // Nobody writes: nothing changes.
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(echo.answer.load(0), 200);
        let answer = echo.answer.clone();
        let begun = Instant::now();
        drop(echo);
        assert!(begun.elapsed() < Duration::from_secs(5), "it waited for the word, not the limit");
        assert_eq!(answer.load(0), ECHO_ENDS);
    }

    #[test]
    fn the_cpu_has_no_echo() {
        assert!(Echo::new(&Device::Cpu).unwrap().is_none());
    }
}
