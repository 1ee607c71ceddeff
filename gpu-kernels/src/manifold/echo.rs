//! A resident thread that answers: the floor of what a trip to a resident kernel and back takes.
//!
//! # Math
//! answer\[0\] ← bell\[0\], each time that it changes.
//!
//! # Layout
//! Two words in mapped memory.
//!
//! # Traffic
//! A word read over the bus for each look, a word written for each answer; bound by the bus's latency.
//!
//! # Launch
//! One warp, of which one thread works. It leaves when the word is [`ECHO_ENDS`], or has not changed for the limit.
//!
//! # Determinism
//! Bitwise; changes that follow each other before the thread looks are answered as one.
//!
//! # Source
//! Original. There is nothing to compute: its family's operations have `kasmina_reference::information::axpby` and others.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::{kernel, thread};
use kasmina_types::ManifoldEcho;
use kasmina_types::manifold::ECHO_ENDS;

/// Answers until it is told to end.
///
/// # Safety
/// As [`ManifoldEcho`] says.
#[kernel(block = 32)]
pub unsafe fn manifold_echo(p: ManifoldEcho) {
    if thread::thread_idx_x() != 0 {
        return;
    }
    let (mut last, mut since) = (0, thread::clock_ns());
    loop {
        // SAFETY: one word; the host writes it by atomics.
        let word = unsafe { atomic::load(&p.bell, 0, Order::Acquire, Scope::System) };
        let now = thread::clock_ns();
        if word != last {
            (last, since) = (word, now);
            // SAFETY: one word; the host reads it by atomics.
            unsafe { atomic::store(&p.answer, 0, word, Order::Release, Scope::System) };
        }
        if last == ECHO_ENDS || now - since > p.limit_ns {
            return;
        }
        thread::spin_wait(0);
    }
}
