//! Turns a block in which nobody can run into a report.

use crate::context::Context;
use crate::report::{Report, Wait, Waiting};

/// Why nobody can run: a warp collective that is not reached and a phase that does not end are a
/// deadlock, a barrier that is not reached is a divergence.
pub(crate) fn stuck(context: &Context) -> Report {
    let (waiting, exited) = census(context);
    let (kernel, block) = (context.kernel(), context.block_idx);
    if waiting.iter().any(|group| group.wait.is_deadlock()) {
        Report::Deadlock { kernel, block, waiting, exited }
    } else {
        Report::BarrierDivergence { kernel, block, waiting, exited }
    }
}

/// All live threads that could run have polled for longer than the limit.
pub(crate) fn spun_out(context: &Context) -> Report {
    let (waiting, exited) = census(context);
    Report::Deadlock { kernel: context.kernel(), block: context.block_idx, waiting, exited }
}

/// Who waits where, in the order of the first thread of each group, and who left.
fn census(context: &Context) -> (Vec<Waiting>, Vec<[u32; 3]>) {
    let mut groups: Vec<Waiting> = Vec::new();
    let mut exited = Vec::new();
    for thread in &context.threads {
        let Some((wait, location)) = thread.waits.get() else {
            exited.push(thread.idx);
            continue;
        };
        let wait = match wait {
            Wait::Mbarrier { offset_bytes, parity, .. } => {
                let (arrivals, bytes) = context.lacks(offset_bytes);
                Wait::Mbarrier { offset_bytes, parity, arrivals, bytes }
            }
            other => other,
        };
        match groups.iter_mut().find(|g| g.wait == wait && g.location == location) {
            Some(group) => group.threads.push(thread.idx),
            None => groups.push(Waiting { wait, location, threads: vec![thread.idx] }),
        }
    }
    (groups, exited)
}
