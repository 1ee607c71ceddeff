//! Prints what the executor's parts cost: nanoseconds for each call in each thread.
//!
//! `cargo run --release -p kasmina-simt --example throughput`

use std::hint::black_box;
use std::time::Instant;

use kasmina_simt::{Executor, Geometry, LaunchError, rt};

const THREADS: u32 = 256;
const CALLS: u32 = 2000;

fn main() -> Result<(), LaunchError> {
    let buffer = vec![0.0_f32; (THREADS * CALLS) as usize];
    let (base, len) = (buffer.as_ptr().cast::<u8>() as usize, buffer.len() * 4);
    let touch = |access, read_only| {
        move || {
            for i in 0..CALLS {
                let offset = ((i * THREADS + rt::linear_thread()) * 4) as usize;
                rt::access_global(base as *const u8, len, offset, 4, 4, access, read_only);
            }
        }
    };
    let shared = || {
        let base = rt::shared_static(0, (THREADS * 4) as usize, 4);
        let offset = (rt::linear_thread() * 4) as usize;
        for _ in 0..CALLS {
            rt::access_shared(base, (THREADS * 4) as usize, offset, 4, 4, rt::Access::Write);
        }
    };
    let atomics = || {
        for i in 0..CALLS {
            let offset = (i % 64 * 4) as usize;
            rt::access_global(base as *const u8, len, offset, 4, 4, rt::Access::Atomic, false);
        }
    };
    for checks in [true, false] {
        println!("checking mode {}", if checks { "on" } else { "off" });
        measure(checks, "empty body (a thread)", 1, &|| ())?;
        measure(checks, "access, read-only view", CALLS, &touch(rt::Access::Read, true))?;
        measure(checks, "access, global write", CALLS, &touch(rt::Access::Write, false))?;
        measure(checks, "access, shared write", CALLS, &shared)?;
        measure(checks, "access, global atomic", CALLS, &atomics)?;
        measure(checks, "block barrier", CALLS, &|| (0..CALLS).for_each(|_| rt::barrier()))?;
        measure(checks, "warp exchange", CALLS, &|| {
            for i in 0..CALLS {
                black_box(rt::warp_exchange(u32::MAX, u64::from(i)));
            }
        })?;
    }
    Ok(())
}

/// Launches one block many times and prints the shortest time of one call in one thread.
fn measure(
    checks: bool,
    what: &str,
    calls: u32,
    body: &(dyn Fn() + Sync),
) -> Result<(), LaunchError> {
    let executor = Executor::new().checks(checks);
    let geometry = Geometry {
        grid: [1, 1, 1],
        cluster: [1; 3],
        block: [THREADS, 1, 1],
        dynamic_shared_bytes: 0,
    };
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        executor.launch(what, geometry, body)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("  {what:<24} {:8.1} ns", best * 1e9 / f64::from(THREADS) / f64::from(calls));
    Ok(())
}
