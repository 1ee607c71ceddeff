//! Turns a cluster in which nobody can run into a report.

use crate::context::{Block, Context};
use crate::report::{Report, Wait, Waiting};

/// Why nobody can run: a warp collective that is not reached, a phase that does not end and a cluster's barrier that is
/// not reached are a deadlock, a block's barrier that is not reached is a divergence.
pub(crate) fn stuck(context: &Context) -> Report {
    let waiting: Vec<Vec<Waiting>> =
        (0..context.blocks.len()).map(|block| census(context, block)).collect();
    let is_deadlock = |groups: &[Waiting]| groups.iter().any(|group| group.wait.is_deadlock());
    let doomed = context.blocks.iter().position(|block| block.doomed.get());
    let block = doomed
        .or_else(|| waiting.iter().position(|groups| is_deadlock(groups)))
        .or_else(|| waiting.iter().position(|groups| !groups.is_empty()))
        .unwrap_or(0);
    if is_deadlock(&waiting[block]) {
        return deadlock(context, block, waiting);
    }
    Report::BarrierDivergence {
        kernel: context.kernel(),
        block: context.blocks[block].idx,
        waiting: waiting.into_iter().nth(block).unwrap_or_default(),
        exited: exited(context, block),
    }
}

/// All live threads that could run have polled for longer than the limit.
pub(crate) fn spun_out(context: &Context) -> Report {
    let waiting: Vec<Vec<Waiting>> =
        (0..context.blocks.len()).map(|block| census(context, block)).collect();
    let polls = |groups: &Vec<Waiting>| groups.iter().any(|group| group.wait == Wait::Spin);
    let block = waiting.iter().position(polls).unwrap_or(0);
    deadlock(context, block, waiting)
}

/// The whole cluster's, the block's own first.
fn deadlock(context: &Context, block: usize, mut waiting: Vec<Vec<Waiting>>) -> Report {
    let mut all = std::mem::take(&mut waiting[block]);
    all.extend(waiting.into_iter().flatten());
    let left = |of: &&Block| of.exited.get() == context.block_threads;
    Report::Deadlock {
        kernel: context.kernel(),
        block: context.blocks[block].idx,
        waiting: all.into(),
        exited: exited(context, block),
        left: context.blocks.iter().filter(left).map(|block| block.idx).collect(),
    }
}

/// Who of a block waits where, in the order of the first thread of each group.
fn census(context: &Context, block: usize) -> Vec<Waiting> {
    let mut groups: Vec<Waiting> = Vec::new();
    for thread in &context.threads[context.threads_of(block)] {
        let Some((wait, location)) = thread.waits.get() else { continue };
        let wait = match wait {
            Wait::Mbarrier { offset_bytes, parity, .. } => {
                let (arrivals, bytes) = context.lacks(block, offset_bytes);
                Wait::Mbarrier { offset_bytes, parity, arrivals, bytes }
            }
            other => other,
        };
        match groups.iter_mut().find(|g| g.wait == wait && g.location == location) {
            Some(group) => group.threads.push(thread.idx),
            None => {
                let (block, threads) = (context.blocks[block].idx, vec![thread.idx]);
                groups.push(Waiting { block, wait, location, threads });
            }
        }
    }
    groups
}

/// Who of a block left.
fn exited(context: &Context, block: usize) -> Vec<[u32; 3]> {
    let threads = &context.threads[context.threads_of(block)];
    threads.iter().filter(|thread| thread.waits.get().is_none()).map(|thread| thread.idx).collect()
}
